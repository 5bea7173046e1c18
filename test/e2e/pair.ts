// SPDX-License-Identifier: BSD-2-Clause
/**
 * The seed's two hosts and a client: hast1 and hast2 with what `config generate` makes in /etc/hast-failover, a
 * service with a file on the resources, and a client that uses it by the service address.
 */
import { strict as expect } from "node:assert";
import { readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Outcome } from "../system/command.ts";
import { hastctlHere } from "../system/hastctl-here.ts";
import { type Host, type HostOptions, Lan } from "./hosts.ts";

const CONTRIB = join(import.meta.dirname, "..", "..", "contrib");
export const SERVICE = "10.10.10.180";
const PORT = "7000";
const DIRECTORY = "/mnt/data";
const FILE = "records";
/** Where record-service.ts keeps them. */
export const RECORDS: string = join(DIRECTORY, FILE);
export const MAIN = "/etc/hast-failover";

/** "none": who is primary is decided by hand, and there is no service address. */
export type Tool = "ucarp" | "keepalived" | "none";

/** The resources, and what is on them. */
export interface Storage {
  readonly resources: readonly string[];
  /** Of each one's disk, in MiB. */
  readonly sizeMib: number;
  /** A line of failover.conf. */
  readonly use: string;
  /** Makes it, on the primary. */
  make(host: Host): Promise<unknown>;
  /** A program that each host needs for it, from its boot on. */
  readonly daemon?: readonly string[];
  /** Before hastd's first start, the disks being there as files. */
  plug?(host: Host): Promise<unknown>;
  /** The folder of contrib/ with what belongs beside the failover script; left out, record-service.ts is started. */
  readonly service?: string;
}

export const EXT4: Storage = {
  resources: ["disk1"],
  sizeMib: 64,
  use: 'mounts="disk1:/mnt/data"',
  make: (host) => host.expect("mkfs.ext4", "-q", "/dev/hast/disk1"),
};

/** Where the hosts are. */
export interface Network {
  /** hast1, hast2, the client; others for what is between them. */
  readonly hosts: readonly HostOptions[];
  /** Under which hast1 and hast2 know each other. */
  readonly nodes: readonly [string, string];
  /** What the client connects to, in turn. */
  readonly service: readonly string[];
  /** After each boot of a host. */
  route?(host: Host): Promise<unknown>;
}

const SEED: Network = {
  nodes: ["192.168.100.100", "192.168.100.101"],
  service: [SERVICE],
  hosts: [
    ...[1, 2].map((index) => ({
      name: `hast${index}`,
      cards: [
        { name: "svc0", address: `10.10.10.18${index}/24` },
        { name: "hast0", address: `192.168.100.10${index - 1}/24` },
      ],
      etc: { hosts: "127.0.0.1 localhost\n192.168.100.100 hast1\n192.168.100.101 hast2\n" },
    })),
    { name: "client", cards: [{ name: "svc0", address: "10.10.10.1/24" }] },
  ],
};

export class Pair {
  readonly lan: Lan;
  readonly tool: Tool;
  readonly storage: Storage;
  readonly network: Network;
  readonly one: Host;
  readonly two: Host;
  readonly client: Host;

  private constructor(
    lan: Lan,
    { tool, storage, network }: { tool: Tool; storage: Storage; network: Network },
  ) {
    this.lan = lan;
    this.tool = tool;
    this.storage = storage;
    this.network = network;
    [this.one, this.two, this.client] = lan.hosts as [Host, Host, Host];
  }

  /** Both nodes on; hast1 is primary with the storage and the service, and the tool has given it the address. */
  static async start(tool: Tool, storage: Storage = EXT4, network: Network = SEED): Promise<Pair> {
    const lan = await Lan.start([...network.hosts]);
    const pair = new Pair(lan, { tool, storage, network });
    try {
      await pair.#set();
      return pair;
    } catch (error) {
      await pair.stop();
      throw error;
    }
  }

  async #set(): Promise<void> {
    const { resources, sizeMib, make, plug } = this.storage;
    for (const host of this.lan.hosts.slice(2)) await this.boot(host);
    for (const host of [this.one, this.two]) {
      for (const name of resources) {
        const disk = diskOf(host.directory, name);
        writeFileSync(disk, "");
        truncateSync(disk, sizeMib * 1024 * 1024);
      }
      await this.boot(host);
      await this.#install(host);
      await plug?.(host);
      await host.expect("hastctl", "create", ...resources);
      this.startHastd(host);
    }
    await this.two.expect("hastctl", "role", "--wait", "20", "secondary", ...resources);
    await this.one.expect("hastctl", "role", "--wait", "20", "primary", ...resources);
    await make(this.one);
    await this.one.expect(`${MAIN}/failover`, "master");
    // In this order, or keepalived, which begins as BACKUP and so demotes, would leave it to chance.
    this.startTool(this.one);
    if (this.tool !== "none") {
      await this.one.until("the service address has come", () => this.hasAddress(this.one));
    }
    this.startTool(this.two);
    await this.two.until("hast2 is fit", () => this.isFit(this.two));
  }

  /** What the pages in docs/failover/ say. */
  async #install(host: Host): Promise<void> {
    const nodes = this.network.nodes.map((address, index) => `hast${index + 1}=${address}`);
    const service = ["--service", `${SERVICE}/24`, "--interface", "svc0"];
    const output = ["--output", "/etc/hast.conf"];
    const resources = this.storage.resources.map((name) => {
      const disks = [this.one, this.two].map(({ directory }) => diskOf(directory, name));
      return `${name}=${disks.join()}`;
    });
    const words = [...output, ...service, ...nodes, ...resources];
    await host.expect("hastctl", "config", "generate", ...words);
    const made = await host.expect("cat", "/etc/hast.conf");
    host.write("/etc/hast.conf", `timeout 5\n${made}`);
    const { use } = this.storage;
    const variable = use.slice(0, use.indexOf("="));
    await host.expect("sed", "-i", `s|^${variable}=.*|${use}|`, `${MAIN}/failover.conf`);
    // With --push they would be the same files; here nobody can ssh.
    const password = await this.one.expect("cat", `${MAIN}/ucarp.password`);
    host.write(`${MAIN}/ucarp.password`, password, 0o600);
    const keepalived = await host.expect("cat", `${MAIN}/keepalived-${host.name}.conf`);
    host.write("/etc/keepalived/keepalived.conf", keepalived);
    if (this.storage.service !== undefined) {
      const folder = join(CONTRIB, this.storage.service);
      for (const name of readdirSync(folder)) {
        const path = join(folder, name);
        host.write(`${MAIN}/${name}`, readFileSync(path, "utf8"), statSync(path).mode & 0o777);
      }
      return;
    }
    const program = join(import.meta.dirname, "record-service.ts");
    // In the directory from the first, so that it is found there and ended, however late it starts.
    const start = `cd ${DIRECTORY} || exit 1\nsetsid ${process.execPath} ${program} ${FILE} ${PORT} &`;
    host.write(`${MAIN}/after-primary`, `#!/bin/sh\n${start}\n`, 0o755);
  }

  /** Nothing runs on it yet. */
  async boot(host: Host): Promise<void> {
    await host.boot();
    await this.network.route?.(host);
  }

  /** What runs from a boot on, but for the tool. */
  startHastd(host: Host): void {
    host.spawn("hastd", "hastd", "-F");
    const { daemon } = this.storage;
    if (daemon !== undefined) host.spawn("storage", ...daemon);
  }

  startTool(host: Host): void {
    const skew = host === this.one ? "0" : "100";
    if (this.tool === "ucarp") host.spawn("ucarp", `${MAIN}/ucarp-start`, skew);
    if (this.tool === "keepalived") {
      host.spawn("keepalived", "keepalived", "--dont-fork", "--log-console");
    }
  }

  /** In good order, as `systemctl stop` does it: the address is given away. */
  stopTool(host: Host): Promise<string> {
    if (this.tool === "ucarp") return host.expect("pkill", "-f", `${MAIN}/ucarp-start`);
    return host.expect("pkill", "-x", "keepalived");
  }

  async hasAddress(host: Host): Promise<boolean> {
    return (await host.expect("ip", "-o", "address", "show", "dev", "svc0")).includes(
      `${SERVICE}/`,
    );
  }

  /** It may have the service address, and its copy is in step. */
  async isFit(host: Host): Promise<boolean> {
    const check = await host.run([`${MAIN}/failover`, "check"]);
    if (check.code !== 0) return false;
    return (await host.run(["hastctl", "failover-check", ...this.storage.resources])).code === 0;
  }

  /** "primary", "secondary", "init", or "" where no hastd answers; several where the resources differ. */
  role(host: Host): Promise<string> {
    return this.#listed(host, "role");
  }

  /** What its copy is worth: "uptodate" is connected and in step, or primary. */
  copy(host: Host): Promise<string> {
    return this.#listed(host, "copy");
  }

  /** What `hastctl status` says on this host, its notes included; "" where no hastd answers. */
  async status(host: Host): Promise<string> {
    return (await this.#ask(host, "status")).stdout;
  }

  async #listed(host: Host, key: string): Promise<string> {
    const { stdout } = await this.#ask(host, "list");
    const values = [...stdout.matchAll(new RegExp(`^ {2}${key}: (.*)$`, "gm"))].map(
      (each) => each[1]!,
    );
    return [...new Set(values)].join(" ");
  }

  #ask(host: Host, command: string): Promise<Outcome> {
    const configuration = join(this.lan.directory, `ask-${host.name}.conf`);
    writeFileSync(configuration, `control ${host.inside("/run/hastctl")}\n`);
    return hastctlHere([command, "-c", configuration, ...this.storage.resources]);
  }

  /** Waits until one node is primary with the address, and the other one in step and fit. */
  settled(): Promise<{ primary: Host; secondary: Host }> {
    const orders = [
      { primary: this.one, secondary: this.two },
      { primary: this.two, secondary: this.one },
    ];
    return this.one.until(
      "one is primary and the other in step",
      async () => {
        for (const order of orders) if (await this.#isSettled(order)) return order;
        return null;
      },
      { withinMs: 180_000, everyMs: 500 },
    );
  }

  async #isSettled({ primary, secondary }: { primary: Host; secondary: Host }): Promise<boolean> {
    return (
      (await this.role(primary)) === "primary" &&
      (await this.role(secondary)) === "secondary" &&
      (await this.copy(primary)) === "uptodate" &&
      (await this.copy(secondary)) === "uptodate" &&
      (await this.hasAddress(primary)) &&
      !(await this.hasAddress(secondary)) &&
      (await this.isFit(secondary))
    );
  }

  /** Starts the client. Its numbers are in its log. @param first clients on other hosts begin elsewhere */
  startClient(host: Host = this.client, first = 1): void {
    const program = join(import.meta.dirname, "record-client.ts");
    const service = this.network.service.join();
    host.spawn("records", process.execPath, program, service, PORT, String(first));
  }

  /** When each record of the client on this host was acknowledged, in ms. */
  acknowledged(client: Host = this.client): Map<number, number> {
    const text = readFileSync(join(client.directory, "records.log"), "utf8");
    const lines = text.split("\n").filter((line) => /^\d+ \d+$/.test(line));
    return new Map(lines.map((line) => line.split(" ").map(Number) as [number, number]));
  }

  /** The client gets so many more acknowledgements. */
  async served(count: number, withinMs = 60_000): Promise<void> {
    const before = this.acknowledged().size;
    const what = `${count} more records were acknowledged after ${before}`;
    await this.client.until(what, () => this.acknowledged().size >= before + count, { withinMs });
  }

  /** @throws AssertionError where a record that was acknowledged is not in the file on this host */
  async nothingLost(host: Host): Promise<number> {
    const acknowledged = [...this.acknowledged().keys()];
    const records = new Set((await host.expect("cat", RECORDS)).split("\n").map(Number));
    const lost = acknowledged.filter((each) => !records.has(each));
    expect.deepEqual(lost, [], `lost records\n${this.lan.logs()}`);
    return acknowledged.length;
  }

  /** Seconds of the longest time without an acknowledgement. @param from of so many, and later ones */
  longestGap(from = 0): number {
    const times = [...this.acknowledged().values()].slice(Math.max(0, from - 1));
    const gaps = times.slice(1).map((time, index) => time - times[index]!);
    return Math.max(...gaps) / 1000;
  }

  stop(): Promise<void> {
    return this.lan.stop();
  }
}

/** Where a node's disk is, as hast.conf has it. */
export function diskOf(directory: string, resource: string): string {
  return join(directory, `${resource}.img`);
}

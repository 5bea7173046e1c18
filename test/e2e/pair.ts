// SPDX-License-Identifier: BSD-2-Clause
/**
 * The seed's two hosts and a client: hast1 and hast2 with what `config generate` makes in /etc/hast-failover, a
 * service on ext4 on /dev/hast/disk1, and a client that uses it by the service address.
 */
import { strict as expect } from "node:assert";
import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Host, Lan } from "./hosts.ts";

const SERVICE = "10.10.10.180";
const PORT = "7000";
const FILE = "/mnt/data/records";
export const MAIN = "/etc/hast-failover";

export type Tool = "ucarp" | "keepalived";

export class Pair {
  readonly lan: Lan;
  readonly tool: Tool;
  readonly one: Host;
  readonly two: Host;
  readonly client: Host;

  private constructor(lan: Lan, tool: Tool) {
    this.lan = lan;
    this.tool = tool;
    [this.one, this.two, this.client] = lan.hosts as [Host, Host, Host];
  }

  /** Both nodes on; hast1 is primary with a file system and the service, and has the service address. */
  static async start(tool: Tool): Promise<Pair> {
    const node = (index: number) => ({
      name: `hast${index}`,
      cards: [
        { name: "svc0", address: `10.10.10.18${index}/24` },
        { name: "hast0", address: `192.168.100.10${index - 1}/24` },
      ],
      etc: { hosts: "127.0.0.1 localhost\n192.168.100.100 hast1\n192.168.100.101 hast2\n" },
    });
    const client = { name: "client", cards: [{ name: "svc0", address: "10.10.10.1/24" }] };
    const pair = new Pair(await Lan.start([node(1), node(2), client]), tool);
    try {
      await pair.#set();
      return pair;
    } catch (error) {
      await pair.stop();
      throw error;
    }
  }

  async #set(): Promise<void> {
    for (const host of [this.one, this.two]) {
      const disk = join(host.directory, "disk1.img");
      writeFileSync(disk, "");
      truncateSync(disk, 64 * 1024 * 1024);
      await host.boot();
      await this.#install(host);
      await host.expect("hastctl", "create", "disk1");
      this.startHastd(host);
    }
    await this.client.boot();
    await this.two.expect("hastctl", "role", "--wait", "20", "secondary", "disk1");
    await this.one.expect("hastctl", "role", "--wait", "20", "primary", "disk1");
    await this.one.expect("mkfs.ext4", "-q", "/dev/hast/disk1");
    await this.one.expect(`${MAIN}/failover`, "master");
    // In this order, or keepalived, which begins as BACKUP and so demotes, would leave it to chance.
    this.startTool(this.one);
    await this.one.until("the service address has come", () => this.hasAddress(this.one));
    this.startTool(this.two);
    await this.two.until("hast2 is fit", () => this.isFit(this.two));
  }

  /** What the pages in docs/failover/ say. */
  async #install(host: Host): Promise<void> {
    const disks = [1, 2].map((index) => join(this.lan.directory, `hast${index}`, "disk1.img"));
    const nodes = ["hast1=192.168.100.100", "hast2=192.168.100.101"];
    const service = ["--service", `${SERVICE}/24`, "--interface", "svc0"];
    const output = ["--output", "/etc/hast.conf"];
    const resource = `disk1=${disks.join()}`;
    await host.expect("hastctl", "config", "generate", ...output, ...service, ...nodes, resource);
    const made = await host.expect("cat", "/etc/hast.conf");
    host.write("/etc/hast.conf", `timeout 5\n${made}`);
    await host.expect(
      "sed",
      "-i",
      's|^mounts=.*|mounts="disk1:/mnt/data"|',
      `${MAIN}/failover.conf`,
    );
    // With --push they would be the same files; here nobody can ssh.
    const password = await this.one.expect("cat", `${MAIN}/ucarp.password`);
    host.write(`${MAIN}/ucarp.password`, password, 0o600);
    const keepalived = await host.expect("cat", `${MAIN}/keepalived-${host.name}.conf`);
    host.write("/etc/keepalived/keepalived.conf", keepalived);
    const program = join(import.meta.dirname, "record-service.ts");
    const start = `setsid ${process.execPath} ${program} ${FILE} ${PORT} &`;
    host.write(`${MAIN}/after-primary`, `#!/bin/sh\n${start}\n`, 0o755);
  }

  startHastd(host: Host): void {
    host.spawn("hastd", "hastd", "-F");
  }

  startTool(host: Host): void {
    const skew = host === this.one ? "0" : "100";
    if (this.tool === "ucarp") host.spawn("ucarp", `${MAIN}/ucarp-start`, skew);
    else host.spawn("keepalived", "keepalived", "--dont-fork", "--log-console");
  }

  async hasAddress(host: Host): Promise<boolean> {
    return (await host.expect("ip", "-o", "address", "show", "dev", "svc0")).includes(
      `${SERVICE}/`,
    );
  }

  async isFit(host: Host): Promise<boolean> {
    return (await host.run([`${MAIN}/failover`, "check"])).code === 0;
  }

  /** "primary", "secondary", "init", or "" where no hastd answers. */
  async role(host: Host): Promise<string> {
    const { stdout } = await host.run(["hastctl", "list", "disk1"]);
    return /^ {2}role: (.*)$/m.exec(stdout)?.[1] ?? "";
  }

  /** Starts the client. Its numbers are in its log. */
  startClient(): void {
    const program = join(import.meta.dirname, "record-client.ts");
    this.client.spawn("records", process.execPath, program, SERVICE, PORT);
  }

  /** When each record was acknowledged, in ms. */
  acknowledged(): Map<number, number> {
    const text = readFileSync(join(this.client.directory, "records.log"), "utf8");
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
    const records = new Set((await host.expect("cat", FILE)).split("\n").map(Number));
    const lost = acknowledged.filter((each) => !records.has(each));
    expect.deepEqual(lost, [], `lost records\n${this.lan.logs()}`);
    return acknowledged.length;
  }

  /** Seconds of the longest time without an acknowledgement. */
  longestGap(): number {
    const times = [...this.acknowledged().values()];
    const gaps = times.slice(1).map((time, index) => time - times[index]!);
    return Math.max(...gaps) / 1000;
  }

  stop(): Promise<void> {
    return this.lan.stop();
  }
}

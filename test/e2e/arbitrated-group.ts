// SPDX-License-Identifier: BSD-2-Clause
/**
 * hast1, hast2 and a witness, each with a member of an etcd cluster; hastd and hast-failover on the first two, set
 * up as docs/failover/etcd.md says; ext4 on /dev/hast/disk1 and a service that keeps records there. On a fourth host
 * three clients: one by the service address, and one that asks each node by its own, so that two writers would
 * be seen.
 */
import { strict as expect } from "node:assert";
import type { ChildProcess } from "node:child_process";
import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Host, Lan } from "./hosts.ts";

const SERVICE = "10.10.10.180";
const PORT = "7000";
const DIRECTORY = "/etc/hast-failover";
const GROUP = "data";
/** What ps(1) shows. */
export const AGENT: RegExp = /bin\/hast-failover\.ts/;
export const ETCD: RegExp = /^etcd /;
/** Its workers have longer names. */
export const HASTD: RegExp = /^hastd$/;
export const EVERYTHING: RegExp = /./;
/** Of a node. */
export const CARDS: readonly string[] = ["svc0", "hast0", "etcd0"];

interface Acknowledgement {
  readonly record: string;
  /** hast1, hast2, or service. */
  readonly by: string;
  readonly atMs: number;
}

export class ArbitratedGroup {
  readonly lan: Lan;
  readonly one: Host;
  readonly two: Host;
  readonly witness: Host;
  readonly client: Host;
  readonly resources: readonly string[];
  readonly #spawned = new Map<Host, ChildProcess[]>();

  private constructor(lan: Lan, resources: readonly string[]) {
    this.lan = lan;
    this.resources = resources;
    [this.one, this.two, this.witness, this.client] = lan.hosts as [Host, Host, Host, Host];
  }

  /** hast1 leads and serves, hast2 is in step, and the clients write. */
  static async start(resources: readonly string[] = ["disk1"]): Promise<ArbitratedGroup> {
    const etcdCard = (index: number) => ({
      name: "etcd0",
      address: `192.168.200.${index}/24`,
    });
    const node = (index: number) => ({
      name: `hast${index}`,
      cards: [
        { name: "svc0", address: `10.10.10.18${index}/24` },
        { name: "hast0", address: `192.168.100.10${index - 1}/24` },
        etcdCard(index),
      ],
      etc: { hosts: "127.0.0.1 localhost\n192.168.100.100 hast1\n192.168.100.101 hast2\n" },
    });
    const witness = { name: "witness", cards: [etcdCard(3)] };
    const client = { name: "client", cards: [{ name: "svc0", address: "10.10.10.1/24" }] };
    const lan = await Lan.start([node(1), node(2), witness, client]);
    const group = new ArbitratedGroup(lan, resources);
    try {
      await group.#set();
      return group;
    } catch (error) {
      await group.stop();
      throw error;
    }
  }

  async #set(): Promise<void> {
    const { one, two, witness, client, resources } = this;
    for (const host of [one, two, witness, client]) await host.boot();
    for (const host of this.members) this.startEtcd(host);
    for (const host of [one, two]) {
      for (const resource of resources) {
        const disk = join(host.directory, `${resource}.img`);
        writeFileSync(disk, "");
        truncateSync(disk, 64 * 1024 * 1024);
      }
      await this.#install(host);
      await host.expect("hastctl", "create", ...resources);
      this.startHastd(host);
    }
    // As the first steps in the README leave it.
    await two.expect("hastctl", "role", "--wait", "20", "secondary", ...resources);
    await one.expect("hastctl", "role", "--wait", "20", "primary", ...resources);
    for (const resource of resources) {
      await one.expect("mkfs.ext4", "-q", `/dev/hast/${resource}`);
    }
    // From here on as docs/failover/etcd.md says.
    for (const host of [one, two]) {
      const made = await host.expect("cat", "/etc/hast.conf");
      host.write("/etc/hast.conf", `arbiter on\n${made}`);
      await host.expect("hastctl", "reload");
    }
    await one.until("etcd answers", async () => (await this.etcdctl(one, "get", "x")) !== null);
    await one.expect("hast-failover", "seed");
    this.startAgent(one);
    await one.until("hast1 leads", async () => (await this.leader()) === "hast1");
    this.startAgent(two);
    await this.inStep();
    const program = join(import.meta.dirname, "record-client.ts");
    const targets = { service: SERVICE, hast1: "10.10.10.181", hast2: "10.10.10.182" };
    for (const [name, address] of Object.entries(targets)) {
      client.spawn(`records-${name}`, process.execPath, program, address, PORT, "1", name);
    }
    await this.served(20);
  }

  get members(): readonly Host[] {
    return [this.one, this.two, this.witness];
  }

  other(host: Host): Host {
    return host === this.one ? this.two : this.one;
  }

  host(name: string): Host {
    return this.lan.host(name);
  }

  async #install(host: Host): Promise<void> {
    const { resources, lan } = this;
    const nodes = ["hast1=192.168.100.100", "hast2=192.168.100.101"];
    const disks = resources.map((resource) => {
      const paths = [1, 2].map((index) => join(lan.directory, `hast${index}`, `${resource}.img`));
      return `${resource}=${paths.join()}`;
    });
    const service = ["--service", `${SERVICE}/24`, "--interface", "svc0"];
    const output = ["--output", "/etc/hast.conf"];
    await host.expect("hastctl", "config", "generate", ...output, ...service, ...nodes, ...disks);
    const made = await host.expect("cat", "/etc/hast.conf");
    host.write("/etc/hast.conf", `timeout 5\n${made}`);
    const conf = await host.expect("cat", `${DIRECTORY}/failover.conf`);
    const mounts = resources.map((resource) => `${resource}:/mnt/${resource}`).join(" ");
    const endpoints = [1, 2, 3].map((index) => `http://192.168.200.${index}:2379`).join(" ");
    host.write(
      `${DIRECTORY}/failover.conf`,
      `${conf.replace(/^mounts=.*$/m, `mounts="${mounts}"`)}
group="${GROUP}"
etcd="${endpoints}"
`,
    );
    const program = join(import.meta.dirname, "record-service.ts");
    const file = `/mnt/${resources[0]}/records`;
    const start = `setsid ${process.execPath} ${program} ${file} ${PORT} &`;
    host.write(`${DIRECTORY}/after-primary`, `#!/bin/sh\n${start}\n`, 0o755);
  }

  startEtcd(host: Host): void {
    this.#spawn(host, "etcd", ...etcdWords(this.members, host));
  }

  #spawn(host: Host, name: string, ...words: string[]): void {
    const child = host.spawn(name, ...words);
    this.#spawned.set(host, [...(this.#spawned.get(host) ?? []), child]);
  }

  startHastd(host: Host): void {
    this.#spawn(host, "hastd", "hastd", "-F");
  }

  startAgent(host: Host): void {
    this.#spawn(host, "agent", "hast-failover");
  }

  /** Switched on again, with all that a boot starts. */
  async bootAgain(host: Host): Promise<void> {
    await host.boot();
    this.startEtcd(host);
    this.startHastd(host);
    this.startAgent(host);
  }

  /** What etcd holds, asked at that host's member; null where it does not answer. */
  async etcdctl(host: Host, ...words: string[]): Promise<string | null> {
    const index = this.members.indexOf(host) + 1;
    const endpoint = `http://192.168.200.${index}:2379`;
    const call = ["env", "ETCDCTL_API=3", "etcdctl", "--endpoints", endpoint];
    const { code, stdout } = await host.run([...call, "--command-timeout=2s", ...words]);
    return code === 0 ? stdout : null;
  }

  /** The member at a host that is not in trouble says so. */
  async value(key: string, at: Host = this.witness): Promise<string | null> {
    const said = await this.etcdctl(at, "get", "--print-value-only", `/hast/${GROUP}/${key}`);
    return said === null || said.trim() === "" ? null : said.trim();
  }

  async leader(at?: Host): Promise<string | null> {
    const value = await this.value("leader", at);
    return value === null ? null : (JSON.parse(value) as { node: string }).node;
  }

  async insync(resource = "disk1", at?: Host): Promise<readonly string[]> {
    return JSON.parse((await this.value(`insync/${resource}`, at)) ?? "[]") as string[];
  }

  async inStep(): Promise<void> {
    const isBoth = async (): Promise<boolean> => {
      for (const each of this.resources) if ((await this.insync(each)).length < 2) return false;
      return true;
    };
    await this.one.until("both are in step", isBoth, { withinMs: 90_000, everyMs: 500 });
  }

  /** "primary", "secondary", "init", or "" where no hastd answers. */
  async role(host: Host, resource = "disk1"): Promise<string> {
    const { stdout } = await host.run(["hastctl", "list", resource]);
    return /^ {2}role: (.*)$/m.exec(stdout)?.[1] ?? "";
  }

  /** In the order of time. */
  acknowledged(): Acknowledgement[] {
    return ["service", "hast1", "hast2"]
      .flatMap((by) => {
        const file = join(this.client.directory, `records-${by}.log`);
        const lines = readFileSync(file, "utf8").split("\n");
        return lines.flatMap((line) => {
          const [, record, ms] = /^(\S+-\d+) (\d+)$/.exec(line) ?? [];
          return record === undefined ? [] : [{ record, by, atMs: Number(ms) }];
        });
      })
      .toSorted((a, b) => a.atMs - b.atMs);
  }

  /** The clients of the service address get so many more acknowledgements. */
  async served(count: number, withinMs = 90_000): Promise<void> {
    const seen = () => this.acknowledged().filter(({ by }) => by === "service").length;
    const before = seen();
    const what = `${count} more records were acknowledged after ${before}`;
    await this.client.until(what, () => seen() >= before + count, { withinMs });
  }

  /** @returns seconds of the longest time without an acknowledgement at the service address, that ended after `sinceMs` */
  longestGap(sinceMs = 0): number {
    const times = this.acknowledged().flatMap(({ by, atMs }) => (by === "service" ? [atMs] : []));
    const gaps = times.map((at, index) => (at < sinceMs ? 0 : at - (times[index - 1] ?? at)));
    return Math.max(0, ...gaps) / 1000;
  }

  /** Nodes whose own addresses acknowledged, in turn: "hast1 hast2 hast1". Two writers would make it long. */
  writers(): string {
    const nodes = this.acknowledged().flatMap(({ by }) => (by === "service" ? [] : [by]));
    return nodes.filter((each, index) => each !== nodes[index - 1]).join(" ");
  }

  /** @throws AssertionError where a record that was acknowledged is not in the file on this host */
  async nothingLost(host: Host): Promise<number> {
    const acknowledged = this.acknowledged().map(({ record }) => record);
    const file = `/mnt/${this.resources[0]}/records`;
    const records = new Set((await host.expect("cat", file)).split("\n"));
    const lost = acknowledged.filter((each) => !records.has(each));
    expect.deepEqual(lost, [], `lost records\n${this.lan.logs()}`);
    return acknowledged.length;
  }

  /** A signal to the processes of a host whose command line is like this; never to its first process. */
  async signal(
    host: Host,
    name: "STOP" | "CONT" | "TERM" | "KILL",
    pattern: RegExp,
  ): Promise<void> {
    const listed = (await host.expect("ps", "-e", "-o", "pid=,args=")).split("\n");
    const pids = listed.flatMap((line) => {
      const [, pid, command] = /^ *(\d+) (.*)$/.exec(line) ?? [];
      return pid !== undefined && pid !== "1" && pattern.test(command!) ? [pid] : [];
    });
    expect.ok(pids.length > 0, `${pattern} is no process of ${host.name}:\n${listed.join("\n")}`);
    // Those that only looked have gone.
    await host.run(["kill", `-${name}`, ...pids]);
    // nsenter(1), which has started each of them in the host, stops itself when its program is stopped.
    if (name === "CONT") for (const child of this.#spawned.get(host) ?? []) child.kill("SIGCONT");
  }

  stop(): Promise<void> {
    return this.lan.stop();
  }
}

/** The command of the member at one of the hosts, whose addresses are 192.168.200.1 and so on. */
export function etcdWords(members: readonly Host[], host: Host): string[] {
  const own = `192.168.200.${members.indexOf(host) + 1}`;
  const cluster = members.map(({ name }, at) => `${name}=http://192.168.200.${at + 1}:2380`);
  const options = {
    name: host.name,
    "data-dir": "/var/lib/etcd",
    "listen-client-urls": `http://${own}:2379`,
    "advertise-client-urls": `http://${own}:2379`,
    "listen-peer-urls": `http://${own}:2380`,
    "initial-advertise-peer-urls": `http://${own}:2380`,
    "initial-cluster": cluster.join(),
    "log-level": "error",
  };
  return ["etcd", ...Object.entries(options).map(([key, value]) => `--${key}=${value}`)];
}

/** Milliseconds by the machine's clock, as the clients print them. */
export function now(): number {
  return Number(process.hrtime.bigint() / 1_000_000n);
}

/** Starts a group for a test, and ends it; a failure shows all logs. */
export async function withGroup(
  run: (group: ArbitratedGroup) => Promise<void>,
  resources?: readonly string[],
): Promise<void> {
  const group = await ArbitratedGroup.start(resources);
  try {
    await run(group);
  } catch (error) {
    console.log(group.lan.logs());
    throw error;
  } finally {
    await group.stop();
  }
}

/** Something happens to the node that leads; the other one takes over, serves, and has every record. */
export async function takenOver(
  group: ArbitratedGroup,
  what: string,
  happen: (leader: Host) => Promise<unknown>,
  at: Host = group.witness,
): Promise<Host> {
  const leader = group.host((await group.leader())!);
  const successor = group.other(leader);
  const since = now();
  await happen(leader);
  await group.client.until(
    `${successor.name} leads`,
    async () => (await group.leader(at)) === successor.name,
    { withinMs: 60_000, everyMs: 500 },
  );
  const elected = ((now() - since) / 1000).toFixed(1);
  await group.served(20);
  const count = await group.nothingLost(successor);
  const gap = group.longestGap(since).toFixed(1);
  console.log(
    `etcd: ${what}: ${successor.name} elected after ${elected} s, serves after ${gap} s; ` +
      `${count} records, none lost`,
  );
  return leader;
}

/** What was done to the old leader is undone: it follows, and is in step again. */
export async function returned(group: ArbitratedGroup, old: Host): Promise<void> {
  await old.until("it is secondary", async () => (await group.role(old)) === "secondary", {
    withinMs: 90_000,
  });
  await group.inStep();
  expect.equal(await group.leader(), group.other(old).name);
  await group.nothingLost(group.other(old));
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * Pacemaker on two hosts with what contrib/ocf has, ext4 and a service under a client: power off, return, a switch
 * by hand, power off of the other one.
 */
import { strict as expect } from "node:assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { type Host, Lan } from "./hosts.ts";

const CONTRIB = join(import.meta.dirname, "..", "..", "contrib", "ocf");
const SERVICE = "10.10.10.180";
const PORT = "7000";
const FILE = "/mnt/data/records";

/**
 * $1 contrib/ocf, $2 the host's directory. The cluster's shared memory and logs are a host's own, and so is the
 * directory of agents.
 */
const INSTALL = `set -eu
mount -t tmpfs tmpfs /dev/shm
mkdir -p "$2/log/corosync" "$2/log/crmsh" "$2/log/pacemaker" /var/lib/corosync
mkdir -p /var/lib/pacemaker/blackbox /var/lib/pacemaker/cib /var/lib/pacemaker/cores /var/lib/pacemaker/pengine
chown -R hacluster:haclient "$2/log/pacemaker" /var/lib/pacemaker
mount --bind "$2/log" /var/log
mkdir -p /run/agents /run/agents.work /run/resource-agents
agents=/usr/lib/ocf/resource.d
mount -t overlay -o "lowerdir=$agents,upperdir=/run/agents,workdir=/run/agents.work" overlay "$agents"
mkdir "$agents/hast"
cp "$1/hast" "$agents/hast/hast"
mkdir -p /etc/corosync
cp "$1/corosync.conf" /etc/corosync/
`;

const CONFIGURATION = `timeout 5
resource disk1 {
  on hast1 { local /var/lib/disk1 remote tcp4://192.168.100.101 }
  on hast2 { local /var/lib/disk1 remote tcp4://192.168.100.100 }
}
`;

/** What contrib/ocf/service.crm says, for these hosts, with the service in it. */
function clusterConfiguration(): string {
  const program = join(import.meta.dirname, "record-service.ts");
  const service = `primitive records ocf:heartbeat:anything params binfile="${process.execPath}" \\
  cmdline_options="${program} ${FILE} ${PORT}" logfile=/var/log/records errlogfile=/var/log/records`;
  const text = readFileSync(join(CONTRIB, "service.crm"), "utf8");
  const changed = text
    .replace('directory="/data"', 'directory="/mnt/data"')
    .replace("group service data address", `${service}\ngroup service data address records`);
  return `property stonith-enabled=false\n${changed}`;
}

class Cluster {
  readonly lan: Lan;
  readonly one: Host;
  readonly two: Host;
  readonly client: Host;

  private constructor(lan: Lan) {
    this.lan = lan;
    [this.one, this.two, this.client] = lan.hosts as [Host, Host, Host];
  }

  /** The service runs on hast1, and hast2 is in step. */
  static async start(): Promise<Cluster> {
    const node = (index: number) => ({
      name: `hast${index}`,
      cards: [
        { name: "svc0", address: `10.10.10.18${index}/24` },
        { name: "hast0", address: `192.168.100.10${index - 1}/24` },
      ],
      etc: {
        hosts: "127.0.0.1 localhost\n192.168.100.100 hast1\n192.168.100.101 hast2\n",
        "hast.conf": CONFIGURATION,
      },
    });
    const client = { name: "client", cards: [{ name: "svc0", address: "10.10.10.1/24" }] };
    const cluster = new Cluster(await Lan.start([node(1), node(2), client]));
    try {
      await cluster.#set();
      return cluster;
    } catch (error) {
      await cluster.report();
      await cluster.lan.stop();
      throw error;
    }
  }

  /** What docs/failover/pacemaker.md says. */
  async #set(): Promise<void> {
    const { one, two } = this;
    for (const host of [one, two]) {
      await host.boot();
      await host.expect("truncate", "-s", "64M", "/var/lib/disk1");
      await host.expect("hastctl", "create", "disk1");
      this.#startHastd(host);
    }
    await this.client.boot();
    await two.expect("hastctl", "role", "--wait", "30", "secondary", "disk1");
    await one.expect("hastctl", "role", "--wait", "30", "primary", "disk1");
    await one.expect("mkfs.ext4", "-q", "/dev/hast/disk1");
    await one.expect("hastctl", "role", "--wait", "30", "secondary", "disk1");
    for (const host of [one, two]) await this.#startCluster(host);
    one.write("/etc/service.crm", clusterConfiguration());
    await one.until("both are online", () => this.says(one, /Online: \[ hast1 hast2 \]/), {
      withinMs: 180_000,
      everyMs: 1000,
    });
    const load = ["crm", "--wait", "configure", "load", "update", "/etc/service.crm"];
    const { code, stdout, stderr } = await one.run(load, { withinMs: 300_000 });
    expect.equal(code, 0, stdout + stderr);
    expect.doesNotMatch(stdout + stderr, /error/i);
  }

  /** For a failure. */
  async report(): Promise<void> {
    console.log(this.lan.logs());
    for (const host of [this.one, this.two].filter(({ isOn }) => isOn)) {
      const { stdout, stderr } = await host.run(["crm_mon", "-1", "-A", "-f", "-R"]);
      console.log(`--- ${host.name}\n${stdout}${stderr}`);
      const said = await host.run([
        "grep",
        "-hE",
        "error|warning|exit-reason",
        "/var/log/pacemaker/pacemaker.log",
      ]);
      console.log(said.stdout);
    }
  }

  #startHastd(host: Host): void {
    host.spawn("hastd", "hastd", "-F");
  }

  async #startCluster(host: Host): Promise<void> {
    await host.expect("sh", "-c", INSTALL, "sh", CONTRIB, host.directory);
    host.spawn("corosync", "corosync", "-f");
    await host.until(
      "corosync answers",
      async () => {
        return (await host.run(["corosync-quorumtool"])).stdout.includes("Nodes:");
      },
      { withinMs: 120_000 },
    );
    host.spawn("pacemaker", "pacemakerd");
  }

  /** After a power cut, as its systemd would. */
  async reboot(host: Host): Promise<void> {
    await host.boot();
    this.#startHastd(host);
    await this.#startCluster(host);
  }

  async says(host: Host, pattern: RegExp): Promise<boolean> {
    return pattern.test((await host.run(["crm_mon", "-1", "-A"])).stdout);
  }

  /** The host that has the service, by the word of one that is on, and the other one. */
  async serving(witness: Host): Promise<[Host, Host]> {
    const { stdout } = await witness.run(["crm_mon", "-1"]);
    const [, name] = /records\s+\(ocf:+heartbeat:anything\):\s+Started (\w+)/.exec(stdout) ?? [];
    expect.ok(name !== undefined, stdout);
    return name === "hast1" ? [this.one, this.two] : [this.two, this.one];
  }

  /** It is the other one's secondary, in step, and the cluster knows. */
  async secondaryIn(host: Host): Promise<void> {
    const scored = new RegExp(
      `Node: ${host.name}[^\n]*\n(?: {4}.*\n)*? *\\* master-disks\\s*: 100\\s`,
    );
    const inStep = async (): Promise<boolean> => {
      const { stdout } = await host.run(["hastctl", "list", "disk1"]);
      return /role: secondary/.test(stdout) && (await this.says(host, scored));
    };
    await host.until("the cluster may promote it", inStep, { withinMs: 240_000, everyMs: 1000 });
  }

  /** Starts the client. Its numbers are in its log. */
  startClient(): void {
    const program = join(import.meta.dirname, "record-client.ts");
    this.client.spawn("records", process.execPath, program, SERVICE, PORT, "1");
  }

  /** When each record was acknowledged, in ms. */
  acknowledged(): Map<number, number> {
    const text = readFileSync(join(this.client.directory, "records.log"), "utf8");
    const lines = text.split("\n").filter((line) => /^\d+ \d+$/.test(line));
    return new Map(lines.map((line) => line.split(" ").map(Number) as [number, number]));
  }

  /** The client gets so many more acknowledgements. @returns seconds without one on the way */
  async served(count: number): Promise<number> {
    const before = this.acknowledged().size;
    const what = `${count} more records were acknowledged after ${before}`;
    const enough = () => this.acknowledged().size >= before + count;
    await this.client.until(what, enough, { withinMs: 240_000 });
    const times = [...this.acknowledged().values()].slice(Math.max(0, before - 1));
    return Math.max(...times.slice(1).map((time, index) => time - times[index]!)) / 1000;
  }

  /** @returns how many records were acknowledged, and are there */
  async nothingLost(host: Host): Promise<number> {
    const acknowledged = [...this.acknowledged().keys()];
    const records = new Set((await host.expect("cat", FILE)).split("\n").map(Number));
    expect.deepEqual(
      acknowledged.filter((each) => !records.has(each)),
      [],
    );
    return acknowledged.length;
  }
}

test("Pacemaker: power off, return, a switch by hand, power off", async () => {
  const cluster = await Cluster.start();
  const { one, two } = cluster;
  const say = (what: string, seconds: number): void => {
    console.log(`pacemaker: ${what}: ${seconds.toFixed(1)} s without service`);
  };
  try {
    cluster.startClient();
    await cluster.served(100);
    const [first, second] = await cluster.serving(one);
    await cluster.secondaryIn(second);
    await first.powerOff();
    say("power off of the primary", await cluster.served(100));
    await cluster.nothingLost(second);

    await cluster.reboot(first);
    await cluster.secondaryIn(first);
    say("its return", await cluster.served(100));
    expect.equal((await cluster.serving(first))[0], second);

    await second.expect("crm", "--wait", "node", "standby", second.name);
    say("a switch by hand", await cluster.served(100));
    expect.equal((await cluster.serving(first))[0], first);
    await second.expect("crm", "--wait", "node", "online", second.name);
    await cluster.secondaryIn(second);

    await first.powerOff();
    say("power off of the other", await cluster.served(100));
    console.log(`pacemaker: ${await cluster.nothingLost(second)} records, none lost`);
    expect.doesNotMatch(one.log() + two.log(), /split-brain/i);
  } catch (error) {
    await cluster.report();
    throw error;
  } finally {
    await cluster.lan.stop();
  }
});

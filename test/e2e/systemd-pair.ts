// SPDX-License-Identifier: BSD-2-Clause
/**
 * Two hosts whose first process is systemd, with hast's units and nobody else's: hast1 and hast2, one resource
 * with ext4, and a service on it.
 *
 * systemd takes itself for one in a container, so it leaves the machine's devices alone: it makes no device
 * nodes, and detaches no loop devices when it ends. It sees its own control group, read-only /sys and /dev, and
 * its own /etc/systemd/system, which outlives a power cut.
 * Sources: systemd.io/CONTAINER_INTERFACE, unshare(1), cgroup_namespaces(7).
 */
import { strict as expect } from "node:assert";
import { cpSync, existsSync, mkdirSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { expectCommand, runCommand } from "../system/command.ts";
import { etcdWords } from "./arbitrated-group.ts";
import { type Host, Lan } from "./hosts.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const SYSTEM = "/etc/systemd/system";
export const SERVICE_ADDRESS = "10.10.10.180";

/** $1 name, $2 directory. Goes on as /sbin/init does. */
const SYSTEMD = `
groups=/run/groups
mkdir $groups
mount -t cgroup2 cgroup2 $groups
own=$groups/$(basename "$(dirname "$2")")-$1
mkdir -p "$own"
echo 0 >"$own/cgroup.procs"
umount $groups
exec unshare --cgroup sh -euc '
  mount --rbind /dev /dev && mount -o remount,bind,ro /dev
  mount --rbind /sys /sys && mount -o remount,bind,ro /sys
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys
  # No units but ours, and those that are asked for.
  for each in /lib/systemd/system/*.wants /lib/systemd/system-generators; do mount -t tmpfs tmpfs "$each"; done
  # logger(1) into the journal: what comes before what counts here.
  printf "#!/bin/sh\\necho \\"\\$*\\" | systemd-cat -t logger\\n" >"$1/logger"
  mkdir -p "$1/journal"
  mount -t tmpfs tmpfs /var/log
  mkdir /var/log/journal
  mount --bind "$1/journal" /var/log/journal
  mount --bind "$1/units" ${SYSTEM}
  mount -t tmpfs tmpfs /usr/local/sbin
  ln -s "$2/bin/hastd" "$2/bin/hastctl" "$2/bin/hast-failover" /usr/local/sbin/
  exec env -i container=hast-e2e PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \\
    /lib/systemd/systemd --unit=multi-user.target --log-target=journal
' sh "$2" ${ROOT}
`;

/** Outlives a power cut, so what is written there while nothing is mounted is found. */
export const DIRECTORY = "/var/lib/service";

/**
 * A service without a unit. It opens its file for each record, so nothing keeps the file system in use between
 * two of them.
 */
export const PROGRAMS: Readonly<Record<string, string>> = {
  "after-primary": `[ ! -e /run/service.pid ] || exit 0 # A second call.
setsid sh -c '
  echo $$ >/run/service.pid
  while :; do
    date +%s.%N >>${DIRECTORY}/records && sync ${DIRECTORY}/records
    sleep 0.05
  done' &`,
  // Not at once: there is time to see whether somebody else unmounts meanwhile.
  "before-secondary": `sleep 2
kill "$(cat /run/service.pid)"
rm -f /run/service.pid`,
};

/** Appends a line every 50 ms for as long as it can, each on the disk before the next. */
const SERVICE = `[Unit]
Requires=hast-promote@disk1.service mnt-data.mount
After=hast-promote@disk1.service mnt-data.mount

[Service]
ExecStart=/bin/sh -ec 'while :; do date +%%s.%%N >>/mnt/data/records; sync /mnt/data/records; sleep 0.05; done'
Restart=on-failure
`;

/** What docs/systemd.md says. */
const MOUNT = `[Unit]
Requires=hast-promote@disk1.service
After=hast-promote@disk1.service

[Mount]
What=/proc/self/root/dev/hast/disk1
Where=/mnt/data
Type=ext4
Options=_netdev
`;

/** Started as ucarp and the like are: after hastd. */
const PROBE = `[Unit]
After=hastd.service

[Service]
Type=oneshot
ExecStart=hastctl status all
`;

/** A property of a unit. */
export async function show(host: Host, unit: string, property: string): Promise<string> {
  return (await host.expect("systemctl", "show", "-P", property, unit)).trim();
}

export class SystemdPair {
  readonly lan: Lan;
  readonly one: Host;
  readonly two: Host;

  private constructor(lan: Lan) {
    this.lan = lan;
    [this.one, this.two] = lan.hosts as [Host, Host];
  }

  /**
   * Both are on, hastd runs, and every role is init.
   *
   * @param etcd whether each, and a third host without systemd, shall have a member of a cluster
   */
  static async start({ etcd = false }: { etcd?: boolean } = {}): Promise<SystemdPair> {
    const etcdCard = (index: number) => ({ name: "etcd0", address: `192.168.200.${index}/24` });
    const witness = { name: "witness", cards: [etcdCard(3)] };
    const node = (index: number) => ({
      name: `hast${index}`,
      cards: [
        { name: "svc0", address: `10.10.10.18${index}/24` },
        { name: "hast0", address: `192.168.100.10${index - 1}/24` },
        ...(etcd ? [etcdCard(index)] : []),
      ],
      etc: {
        hosts: "127.0.0.1 localhost\n192.168.100.100 hast1\n192.168.100.101 hast2\n",
        "systemd/journald.conf.d/e2e.conf": "[Journal]\nStorage=persistent\nReadKMsg=no\n",
      },
      init: SYSTEMD,
    });
    const pair = new SystemdPair(await Lan.start([node(1), node(2), ...(etcd ? [witness] : [])]));
    try {
      for (const host of pair.lan.hosts.slice(2)) {
        await host.boot();
        host.spawn("etcd", ...etcdWords(pair.lan.hosts, host));
      }
      for (const host of [pair.one, pair.two]) {
        pair.#install(host);
        if (etcd) pair.#installEtcd(host);
        await pair.boot(host);
      }
      return pair;
    } catch (error) {
      await pair.stop();
      throw error;
    }
  }

  #install(host: Host): void {
    const disks = ["hast1", "hast2"].map((name) => join(this.lan.directory, name, "disk1.img"));
    const own = disks[host === this.one ? 0 : 1]!;
    writeFileSync(own, "");
    truncateSync(own, 64 * 1024 * 1024);
    const component = (index: number) =>
      `on hast${index + 1} { local ${disks[index]} remote 192.168.100.10${1 - index} }`;
    host.write(
      "/etc/hast.conf",
      `timeout 5\nresource disk1 { ${component(0)} ${component(1)} }\nresource spare { on ${host.name} { local ${join(host.directory, "spare.img")} remote none } }\n`,
    );
    const spare = join(host.directory, "spare.img");
    writeFileSync(spare, "");
    truncateSync(spare, 8 * 1024 * 1024);
    const units = join(host.directory, "units");
    cpSync(join(ROOT, "contrib/systemd"), units, { recursive: true });
    // The journal's other sockets would be links in /dev, which is the machine's.
    for (const name of ["systemd-journald-dev-log.socket", "systemd-journald-audit.socket"]) {
      symlinkSync("/dev/null", join(units, name));
    }
    this.want(host, "sysinit.target", "systemd-journald.service");
    this.want(host, "sysinit.target", "systemd-journal-flush.service");
    this.want(host, "multi-user.target", "hastd.service");
    this.want(host, "multi-user.target", "probe.service");
    writeFileSync(join(units, "probe.service"), PROBE);
    writeFileSync(join(units, "records.service"), SERVICE);
    writeFileSync(join(units, "mnt-data.mount"), MOUNT);
    for (const name of ["mnt-data.mount", "records.service"]) {
      this.want(host, "hast-services@disk1.target", name);
    }
  }

  /** It stops after the agent, and so hears it say goodbye. */
  #installEtcd(host: Host): void {
    const command = etcdWords(this.lan.hosts, host).join(" ");
    const unit = `[Service]\nExecStart=/usr/bin/${command}\nRestart=always\n`;
    writeFileSync(join(host.directory, "units/etcd.service"), unit);
    this.want(host, "multi-user.target", "etcd.service");
  }

  /** As systemctl add-wants does, also where the host is off. */
  want(host: Host, target: string, unit: string): void {
    const directory = join(host.directory, "units", `${target}.wants`);
    mkdirSync(directory, { recursive: true });
    const own = unit.startsWith("systemd-") || unit.startsWith("keepalived");
    symlinkSync(`${own ? "/lib/systemd/system" : SYSTEM}/${unit}`, join(directory, unit));
  }

  /** Until what its systemd was to start is started, or has failed. */
  async boot(host: Host): Promise<void> {
    await host.boot();
    await host.until(
      "systemd has booted",
      async () => {
        const { stdout } = await host.run(["systemctl", "is-system-running"]);
        return /^(running|degraded)$/m.test(stdout);
      },
      { withinMs: 90_000 },
    );
  }

  /** What docs/failover/ says. */
  async installFailover(host: Host): Promise<void> {
    const own = await host.expect("cat", "/etc/hast.conf");
    await host.expect("rm", "/etc/hast.conf");
    const service = ["--service", `${SERVICE_ADDRESS}/24`, "--interface", "svc0"];
    const nodes = ["hast1=192.168.100.100", "hast2=192.168.100.101", "disk1=/dev/null"];
    const output = ["--output", "/etc/hast.conf"];
    await host.expect("hastctl", "config", "generate", ...output, ...service, ...nodes);
    host.write("/etc/hast.conf", own);
    const failover = "/etc/hast-failover";
    const script =
      "cp $1/keepalived-$2.conf /etc/keepalived/keepalived.conf; cp $1/ucarp-$2.service $3";
    await host.expect("mkdir", "-p", "/etc/keepalived");
    await host.expect("sh", "-ec", script, "sh", failover, host.name, `${SYSTEM}/ucarp.service`);
  }

  /** after-primary, before-secondary. */
  install(host: Host, programs: Readonly<Record<string, string>>): void {
    for (const [name, text] of Object.entries(programs)) {
      host.write(`/etc/hast-failover/${name}`, `#!/bin/sh\n${text}\n`, 0o755);
    }
  }

  /** What docs/failover/etcd.md says, hast1 having the data. */
  async serveByAgent(programs: Readonly<Record<string, string>>, mounts: string): Promise<void> {
    const { one, two } = this;
    for (const host of [one, two]) {
      await host.expect("systemctl", "stop", "hastd");
      for (const name of ["disk1", "spare"]) await host.expect("hastctl", "create", name);
      await host.expect("systemctl", "start", "hastd");
    }
    await two.expect("hastctl", "role", "secondary", "disk1");
    await one.expect("hastctl", "role", "--wait", "20", "primary", "disk1");
    await one.expect("mkfs.ext4", "-q", "/dev/hast/disk1");
    const endpoints = [1, 2, 3].map((index) => `http://192.168.200.${index}:2379`).join(" ");
    for (const host of [one, two]) {
      await this.installFailover(host);
      this.install(host, programs);
      const made = await host.expect("cat", "/etc/hast-failover/failover.conf");
      const own = `mounts="${mounts}"\ngroup="data"\netcd="${endpoints}"\n`;
      host.write("/etc/hast-failover/failover.conf", made.replace(/^mounts=.*\n/m, own));
      host.write("/etc/hast.conf", `arbiter on\n${await host.expect("cat", "/etc/hast.conf")}`);
      await host.expect("systemctl", "reload", "hastd");
    }
    const isSeeded = async () => (await one.run(["hast-failover", "seed"])).code === 0;
    await one.until("etcd knows who has the data", isSeeded, { everyMs: 1000 });
    for (const host of [one, two]) {
      await host.expect("systemctl", "enable", "--now", "hast-failover");
      await this.leads(one);
    }
    await this.inStep();
  }

  /** Waits until this node leads, and has started the group. */
  async leads(host: Host): Promise<void> {
    const line = new RegExp(`^ {2}leader: ${host.name}, since \\S+$`, "m");
    const leads = async () => line.test((await host.run(["hast-failover", "status"])).stdout);
    await host.until("it leads", leads, { withinMs: 120_000, everyMs: 500 });
  }

  /** Waits until the other node could take over at once. */
  async inStep(): Promise<void> {
    const isFit = async () => (await this.one.run(["hast-failover", "status"])).code === 0;
    await this.one.until("both are in step", isFit, { withinMs: 90_000, everyMs: 500 });
  }

  /** hast2 is secondary, and hast1 has made the file system and serves it. */
  async serve(): Promise<void> {
    for (const host of [this.one, this.two]) {
      await host.expect("systemctl", "stop", "hastd");
      for (const name of ["disk1", "spare"]) await host.expect("hastctl", "create", name);
      await host.expect("systemctl", "start", "hastd");
    }
    await this.two.expect("hastctl", "role", "secondary", "disk1");
    await this.one.expect("systemctl", "start", "hast-promote@disk1");
    await this.one.expect("mkfs.ext4", "-q", "/dev/hast/disk1");
    await this.one.expect("systemctl", "start", "hast-services@disk1.target");
    await this.served(this.one);
  }

  /** What was said on a host, to the end of its last boot. */
  async journal(host: Host): Promise<string> {
    const directory = join(host.directory, "journal");
    return await expectCommand("journalctl", ["-D", directory, "-q", "-o", "short-monotonic"]);
  }

  /**
   * Starts a program of nobody's, which goes on. Not by spawn(): a shutdown stops all processes for a moment,
   * and nsenter, which is outside, would stay stopped.
   */
  async leave(host: Host, script: string): Promise<void> {
    await host.expect("setsid", "--fork", "sh", "-c", `exec >/dev/null 2>&1 </dev/null; ${script}`);
  }

  /** The service writes ten more records. */
  async served(host: Host): Promise<void> {
    const before = (await this.records(host)).length;
    const more = async () => (await this.records(host)).length >= before + 10;
    await host.until("ten more records are written", more, { withinMs: 60_000 });
  }

  /** "primary", "secondary", "init", or "" where no hastd answers. */
  async role(host: Host): Promise<string> {
    const { stdout } = await host.run(["hastctl", "list", "disk1"]);
    return /^ {2}role: (.*)$/m.exec(stdout)?.[1] ?? "";
  }

  /** What the service has written, a time each. */
  async records(host: Host): Promise<string[]> {
    const { stdout } = await host.run(["cat", "/mnt/data/records"]);
    return stdout.split("\n").slice(0, -1);
  }

  async stop(): Promise<void> {
    await this.lan.stop();
    // Those of this LAN, which are empty now.
    const remove =
      'mount -t cgroup2 cgroup2 /mnt && find /mnt -mindepth 1 -depth -path "/mnt/$1-*" -type d -exec rmdir {} +';
    await runCommand("unshare", [
      "--mount",
      "sh",
      "-c",
      remove,
      "sh",
      basename(this.lan.directory),
    ]);
  }
}

/** Shows what the hosts have logged where it fails, and leaves nothing behind. */
export async function withPair(
  run: (pair: SystemdPair) => Promise<void>,
  options: { etcd?: boolean } = {},
): Promise<void> {
  const pair = await SystemdPair.start(options);
  try {
    await run(pair);
  } catch (error) {
    console.log(pair.lan.logs(), await pair.journal(pair.one), await pair.journal(pair.two));
    throw error;
  } finally {
    await pair.stop();
  }
}

export async function seconds(deed: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await deed();
  return (performance.now() - began) / 1000;
}

/** The last of each that the log has, one after the other. */
export function expectOrder(log: string, words: readonly string[]): void {
  const places = words.map((each) => log.lastIndexOf(each));
  expect.ok(!places.includes(-1), `${words} at ${places}`);
  expect.deepEqual(
    places,
    places.toSorted((a, b) => a - b),
    words.join(),
  );
}

export async function hasAddress(host: Host): Promise<boolean> {
  const addresses = await host.expect("ip", "-o", "address", "show", "dev", "svc0");
  return addresses.includes(`${SERVICE_ADDRESS}/`);
}

/** How many that service has written. */
export async function recordCount(host: Host): Promise<number> {
  const { stdout } = await host.run(["cat", `${DIRECTORY}/records`]);
  return stdout.split("\n").length - 1;
}

/** No record went where the file system is not, after a shutdown. */
export async function nothingBeneath(pair: SystemdPair, host: Host): Promise<void> {
  expect.ok(!existsSync(join(host.directory, "lib/service/records")), host.name);
  // Whoever stops the service unmounts. If systemd did, as well, it would be a matter of luck.
  expect.doesNotMatch(await pair.journal(host), /Unmounting var-lib-service\.mount/);
}

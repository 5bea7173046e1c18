// SPDX-License-Identifier: BSD-2-Clause
/**
 * Hosts on this machine: each a set of namespaces, with network cards on the bridges of a "switch".
 *
 *   hast1 (pid, net, mount, uts, ipc)        switch (net)              hast2
 *     svc0  10.10.10.181  ──── veth ──── hast1-svc0 ─ svc ─ hast2-svc0 ──── svc0  10.10.10.182
 *     hast0 192.168.100.100 ── veth ── hast1-hast0 ─ hast ─ hast2-hast0 ── hast0  192.168.100.101
 *
 * A host has a /run, /mnt, /var/lib, /var/log, /dev/shm and /dev/hast of its own, and an /etc over the
 * machine's; what it writes to /etc and /var, and its directory (for disks and logs), outlive a power cut, the
 * rest does not. Everything else is the machine's. Its first process reaps what is orphaned, and does nothing else. What is given to
 * logger(1) gets into the host's log.
 *
 * Nothing outside is touched but loop devices, which the kernel does not have per namespace: those made
 * for a host's /dev/hast are detached after it has died. /dev/hast outside is made where it is missing,
 * for the hosts' to be mounted over it, and removed again.
 * Sources: unshare(1), nsenter(1), ip-link(8), nft(8).
 */

import { type ChildProcess, spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type CommandOptions, expectCommand, type Outcome, runCommand } from "../system/command.ts";
import { signal } from "../system/marked-processes.ts";
import { type Patience, until } from "../system/until.ts";

const BIN = join(import.meta.dirname, "..", "..", "bin");
const DEVICES = "/dev/hast";

/** A network card: which bridge it is on, and its address with the prefix's bits. */
export interface Card {
  /** As the host calls it, and without its number, the bridge: "svc0" is on "svc". */
  readonly name: string;
  /** "10.10.10.181/24" */
  readonly address: string;
}

export interface HostOptions {
  readonly name: string;
  readonly cards: readonly Card[];
  /** Text by path below /etc: "hast.conf". */
  readonly etc?: Readonly<Record<string, string>>;
  /** What its first process goes on with, a shell's text that gets $1 name and $2 directory; left out, idle. */
  readonly init?: string;
}

/** What keeps the namespaces alive, and its first process in them. */
interface Holder {
  readonly child: ChildProcess;
  /** As this machine counts. */
  readonly pid: number;
}

export class Lan {
  readonly directory: string;
  readonly hosts: readonly Host[];
  readonly #switch: Holder;
  readonly #madeDevices: boolean;
  /** The test runner's end of a test that takes too long. */
  readonly #onTermination = (): void => {
    void this.stop().finally(() => process.exit(1));
  };
  /** Of hosts that are on. */
  readonly #ports = new Set<string>();
  #faults = 0;

  private constructor(
    directory: string,
    { holder, hosts, madeDevices }: { holder: Holder; hosts: HostOptions[]; madeDevices: boolean },
  ) {
    this.directory = directory;
    this.#switch = holder;
    this.#madeDevices = madeDevices;
    this.hosts = hosts.map((options, index) => new Host(this, options, index));
    process.on("SIGTERM", this.#onTermination).on("SIGINT", this.#onTermination);
  }

  /** The switch and its bridges; no host is on yet. Needs root. */
  static async start(hosts: HostOptions[]): Promise<Lan> {
    const directory = mkdtempSync(join(tmpdir(), "hast-e2e-"));
    const madeDevices = !existsSync(DEVICES);
    if (madeDevices) mkdirSync(DEVICES);
    const child = unshare(["--net", "--", "sleep", "infinity"], join(directory, "switch.log"));
    const lan = new Lan(directory, {
      holder: { child, pid: child.pid! },
      hosts,
      madeDevices,
    });
    try {
      await until(
        "the switch is in a network of its own",
        () => !sharesNamespace(child.pid!, "net"),
      );
      const bridges = new Set(hosts.flatMap(({ cards }) => cards.map(bridgeOf)));
      for (const bridge of bridges) {
        await lan.atSwitch("ip", "link", "add", bridge, "type", "bridge", "forward_delay", "0");
        await lan.atSwitch("ip", "link", "set", bridge, "up");
      }
      await lan.#clearRules();
      return lan;
    } catch (error) {
      await lan.stop();
      throw error;
    }
  }

  host(name: string): Host {
    const host = this.hosts.find((each) => each.name === name);
    if (host === undefined) throw new Error(`there is no host ${name}`);
    return host;
  }

  /** Runs a program in the switch's network. */
  atSwitch(...words: string[]): Promise<string> {
    return expectCommand("nsenter", ["-t", String(this.#switch.pid), "-n", "--", ...words]);
  }

  /** Gives a host's card its cable. @param pid the host's first process */
  async plug(host: Host, card: Card, pid: number): Promise<void> {
    const port = portOf(host, card);
    const peer = ["peer", "name", card.name, "address", host.macOf(card), "netns", String(pid)];
    await this.atSwitch("ip", "link", "add", port, "type", "veth", ...peer);
    this.#ports.add(port);
    await this.atSwitch("ip", "link", "set", port, "master", bridgeOf(card), "up");
  }

  /** Takes the card's cable away for good, as far as this boot goes. */
  async unplug(host: Host, card: Card): Promise<void> {
    const port = portOf(host, card);
    if (this.#ports.delete(port)) await this.atSwitch("ip", "link", "delete", port);
  }

  /** Pulls the cable: both ends lose their carrier. */
  cut(host: Host, card: string): Promise<unknown> {
    return this.atSwitch("ip", "link", "set", portOf(host, host.card(card)), "down");
  }

  /** Undoes what was done to one port: cut, oneWay, lose. */
  async heal(host: Host, card: string): Promise<void> {
    const port = portOf(host, host.card(card));
    await this.atSwitch("ip", "link", "set", port, "up");
    await this.#clearRules(port);
  }

  /** From now on the switch forwards nothing `from` this host's card, or nothing `to` it; carriers stay. */
  oneWay(host: Host, card: string, direction: "from" | "to"): Promise<unknown> {
    return this.#rule(host, card, direction, []);
  }

  /** From now on so many of a hundred frames are lost, in each direction. @param percent 1 to 99 */
  async lose(host: Host, card: string, percent: number): Promise<void> {
    for (const direction of ["from", "to"] as const) {
      await this.#rule(host, card, direction, [`numgen random mod 100 < ${percent}`]);
    }
  }

  #rule(host: Host, card: string, direction: "from" | "to", condition: string[]): Promise<unknown> {
    const port = portOf(host, host.card(card));
    const match = `${direction === "from" ? "iifname" : "oifname"} "${port}"`;
    this.#faults += 1;
    const chain = ["add", "rule", "bridge", "faults", "forward", match, ...condition, "drop"];
    return this.atSwitch("nft", [...chain, "comment", `"${port}"`].join(" "));
  }

  /** @param port left out: every rule, and the empty table is made */
  async #clearRules(port?: string): Promise<void> {
    if (port === undefined) {
      await this.atSwitch("nft", "add table bridge faults");
      const hook = "{ type filter hook forward priority 0; }";
      await this.atSwitch("nft", `add chain bridge faults forward ${hook}`);
      return;
    }
    if (this.#faults === 0) return;
    const listed = await this.atSwitch("nft", "-a", "list", "chain", "bridge", "faults", "forward");
    for (const line of listed.split("\n")) {
      const handle = /# handle (\d+)$/.exec(line)?.[1];
      if (handle === undefined || !line.includes(`comment "${port}"`)) continue;
      await this.atSwitch("nft", `delete rule bridge faults forward handle ${handle}`);
    }
  }

  /** Power off for every host, and everything is as it was before. */
  async stop(): Promise<void> {
    for (const host of this.hosts) await host.powerOff();
    await end(this.#switch);
    if (this.#madeDevices) {
      try {
        rmdirSync(DEVICES);
      } catch (error) {
        // Somebody else's hosts are mounted over it, or it is in use by now.
        const { code } = error as NodeJS.ErrnoException;
        if (code !== "EBUSY" && code !== "ENOTEMPTY" && code !== "ENOENT") throw error;
      }
    }
    rmSync(this.directory, { recursive: true, force: true });
    process.off("SIGTERM", this.#onTermination).off("SIGINT", this.#onTermination);
  }

  /** What all hosts have logged, for a failed test's report. */
  logs(): string {
    return this.hosts.map((host) => `--- ${host.name}\n${host.log()}`).join("\n");
  }
}

export class Host {
  readonly name: string;
  /** Outlives a power cut. */
  readonly directory: string;
  readonly #lan: Lan;
  readonly #options: HostOptions;
  readonly #index: number;
  #holder: Holder | null = null;

  constructor(lan: Lan, options: HostOptions, index: number) {
    this.name = options.name;
    this.directory = join(lan.directory, options.name);
    this.#lan = lan;
    this.#options = options;
    this.#index = index;
    for (const each of ["etc", "etc.work", "lib", "log"]) {
      mkdirSync(join(this.directory, each), { recursive: true });
    }
    const hostid = (0x6800_0000 + index + 1).toString(16).padStart(8, "0");
    writeFileSync(join(this.directory, "etc/hostid"), Buffer.from(hostid, "hex").reverse());
    writeFileSync(join(this.directory, "etc/hostname"), `${this.name}\n`);
    // Each has its own, or the two would be one node to hastd.
    writeFileSync(join(this.directory, "etc/machine-id"), `${hostid.repeat(4)}\n`);
    for (const [path, text] of Object.entries(options.etc ?? {})) this.write(`/etc/${path}`, text);
  }

  get isOn(): boolean {
    return this.#holder !== null;
  }

  /** Fixed, or the others would send to a card that a reboot has exchanged. */
  macOf(card: Card): string {
    const byte = (value: number): string => value.toString(16).padStart(2, "0");
    return `02:68:61:73:${byte(this.#options.cards.indexOf(card))}:${byte(this.#index + 1)}`;
  }

  card(name: string): Card {
    const card = this.#options.cards.find((each) => each.name === name);
    if (card === undefined) throw new Error(`${this.name} has no card ${name}`);
    return card;
  }

  /** Writes a file below /etc, whether the host is on or not. */
  write(path: string, text: string, mode = 0o644): void {
    if (!path.startsWith("/etc/")) throw new Error(`${path} is not below /etc`);
    // The overlay's own directory is not to be written behind its back.
    const root = this.#holder === null ? this.directory : `/proc/${this.#holder.pid}/root`;
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text, { mode });
  }

  /** The path by which the rest of the machine finds a file of this host, which must be on. */
  inside(path: string): string {
    if (this.#holder === null) throw new Error(`${this.name} is off: ${path}`);
    return `/proc/${this.#holder.pid}/root${path}`;
  }

  /** Switches it on: its network works when this returns, and nothing else runs. */
  async boot(): Promise<void> {
    if (this.#holder !== null) throw new Error(`${this.name} is on`);
    const flags = ["--pid", "--fork", "--kill-child", "--net", "--mount", "--uts", "--ipc"];
    flags.push("--propagation", "slave");
    const script = FIRST_PROCESS + (this.#options.init ?? IDLE);
    const argv = [...flags, "--", "sh", "-c", script, "sh", this.name, this.directory];
    rmSync(join(this.directory, "up"), { force: true });
    const child = unshare(argv, join(this.directory, "boot.log"));
    try {
      const pid = await until(`${this.name} has booted`, () => {
        if (child.exitCode !== null) throw new Error(`${this.name} did not boot:\n${this.log()}`);
        return existsSync(join(this.directory, "up")) && childOf(child.pid!);
      });
      this.#holder = { child, pid };
    } catch (error) {
      child.kill("SIGKILL");
      throw error;
    }
    const { pid } = this.#holder;
    for (const card of this.#options.cards) await this.#lan.plug(this, card, pid);
    await this.expect("ip", "link", "set", "lo", "up");
    for (const { name, address } of this.#options.cards) {
      await this.expect("ip", "address", "add", address, "dev", name);
      await this.expect("ip", "link", "set", name, "up");
    }
  }

  /** Runs a program to its end. */
  run(words: readonly string[], options: CommandOptions = {}): Promise<Outcome> {
    const [program, ...rest] = this.#argv(words);
    return runCommand(program!, rest, { ...options, env: this.#environment() });
  }

  /** Runs a program to its end, which has to be a good one. @returns its standard output */
  expect(...words: string[]): Promise<string> {
    const [program, ...rest] = this.#argv(words);
    return expectCommand(program!, rest, { env: this.#environment() });
  }

  /** Starts a program that goes on. What it prints gets into the host's log `name`.log. */
  spawn(name: string, ...words: string[]): ChildProcess {
    const [program, ...rest] = this.#argv(words);
    const log = openSync(join(this.directory, `${name}.log`), "a");
    try {
      const child = spawn(program!, rest, {
        stdio: ["ignore", log, log],
        env: this.#environment(),
      });
      // Ends with the host; a program that cannot be started is the test's own mistake.
      child.on("error", (error) => {
        throw error;
      });
      return child;
    } finally {
      closeSync(log);
    }
  }

  /** Waits until it has switched itself off, by a program of its own. */
  async off(patience: Patience = {}): Promise<void> {
    const holder = this.#holder;
    if (holder === null) return;
    await this.until("the power goes off", () => !existsSync(`/proc/${holder.pid}`), patience);
    this.#holder = null;
  }

  /**
   * Every process dies at once, and what was not on the disk yet is lost to this host. Nobody hears of it: the
   * cables go first, or the kernel would end connections in good order.
   *
   * @param pull takes out a disk outside of the host that answers no more: what waits for it cannot end before
   */
  async powerOff(pull: () => Promise<void> = async () => {}): Promise<void> {
    const holder = this.#holder;
    if (holder === null) return;
    const tokens = this.#tokens(holder.pid);
    this.#holder = null;
    for (const card of this.#options.cards) await this.#lan.unplug(this, card);
    signal(holder.pid, "SIGKILL");
    await pull();
    await end(holder);
    for (const loop of await loopsOf(tokens)) {
      await until(
        `${loop} is detached`,
        async () => {
          await runCommand("losetup", ["-d", loop]);
          return !existsSync(`/sys/block/${loop.slice("/dev/".length)}/loop`);
        },
        { withinMs: 15_000 },
      );
    }
  }

  /** All that its programs have printed, newest last in each file. */
  log(): string {
    const files = readdirSync(this.directory).filter((name) => name.endsWith(".log"));
    return files
      .map((name) => `[${name}]\n${readFileSync(join(this.directory, name), "utf8")}`)
      .join("\n");
  }

  /** {@link until}, where a failure shows what the hosts have logged. */
  async until<T>(
    what: string,
    look: () => T | Promise<T>,
    patience: Patience = {},
  ): Promise<Exclude<T, false | null | undefined>> {
    try {
      return await until(`${what} on ${this.name}`, look, patience);
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${this.#lan.logs()}`, { cause: error });
    }
  }

  /** What hastd has named its devices' places by, in this host's /dev/hast. */
  #tokens(pid: number): string[] {
    return readdirSync(`/proc/${pid}/root${DEVICES}`)
      .filter((name) => name.startsWith("."))
      .map((name) => name.slice(1));
  }

  #argv(words: readonly string[]): string[] {
    if (this.#holder === null) throw new Error(`${this.name} is off: ${words.join(" ")}`);
    const { pid } = this.#holder;
    return ["nsenter", "-t", String(pid), "-m", "-u", "-i", "-n", "-p", "-w/", "--", ...words];
  }

  #environment(): NodeJS.ProcessEnv {
    const path = [BIN, dirname(process.execPath), "/usr/sbin:/usr/bin:/sbin:/bin"].join(":");
    return { PATH: path, HOME: "/root", LANG: "C", TERM: "dumb" };
  }
}

/** $1 name, $2 directory. */
const FIRST_PROCESS = `set -eu
mount -t proc proc /proc
# A copy of a mount keeps it in use: what others mount below /tmp is theirs. They may just have unmounted it.
while read -r _ at _; do
  case $at in /tmp/*) umount -l "$at" || true ;; esac
done </proc/self/mounts
mount -t overlay -o "lowerdir=/etc,upperdir=$2/etc,workdir=$2/etc.work" overlay /etc
mount --bind "$2/lib" /var/lib
mount --bind "$2/log" /var/log
mount -t tmpfs tmpfs /run
mkdir /run/lock
mount -t tmpfs tmpfs /mnt
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs ${DEVICES}
cat >"$2/logger" <<END
#!/bin/sh
echo "\\$(date +%T) \\$*" >>"$2/syslog.log"
END
chmod +x "$2/logger"
mount --bind "$2/logger" "$(command -v logger)"
hostname "$1"
touch "$2/up"
`;

/** Ends only by being killed: a shell in `wait` reaps whatever ends. */
const IDLE = "while :; do sleep 3600 & wait; done\n";

/** Ends with this process, however that ends. */
function unshare(args: readonly string[], log: string): ChildProcess {
  const output = openSync(log, "a");
  try {
    const argv = ["--pdeathsig", "KILL", "unshare", ...args];
    return spawn("setpriv", argv, { stdio: ["ignore", output, output] });
  } finally {
    closeSync(output);
  }
}

/** SIGKILL, and the end of the last process. */
async function end({ child, pid }: Holder): Promise<void> {
  signal(pid, "SIGKILL");
  await until(`process ${pid} has ended`, () => !existsSync(`/proc/${pid}`), { everyMs: 10 });
  await until("unshare has ended", () => child.exitCode !== null || child.signalCode !== null, {
    everyMs: 10,
  });
}

/** Of all that this machine has, those over files with such a token in their names. */
async function loopsOf(tokens: readonly string[]): Promise<string[]> {
  const columns = ["--noheadings", "--list", "--output", "NAME,BACK-FILE"];
  const listed = (await expectCommand("losetup", columns)).split("\n");
  return listed
    .filter((line) => tokens.some((token) => line.includes(token)))
    .map((line) => line.split(" ")[0]!);
}

function childOf(pid: number): number | null {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
  return text === "" ? null : Number(text.split(" ")[0]);
}

function sharesNamespace(pid: number, kind: string): boolean {
  return readlinkSync(`/proc/${pid}/ns/${kind}`) === readlinkSync(`/proc/self/ns/${kind}`);
}

function portOf(host: Host, { name }: Card): string {
  return `${host.name}-${name}`;
}

function bridgeOf({ name }: Card): string {
  return name.replace(/\d+$/, "");
}

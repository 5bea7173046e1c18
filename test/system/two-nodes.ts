// SPDX-License-Identifier: BSD-2-Clause
/**
 * Two real nodes on this machine: real daemons, files for disks, a temporary directory for /var and /run.
 *
 *   <directory>/hast.conf    one file for both; hastd -n and hastctl -n say which node is meant
 *              alpha.img     local component        alpha.sock   NBD export while primary
 *              alpha.dev     /dev/hast, for tests with a device
 *              alpha.ctl     control socket         alpha.pid    pidfile
 *              alpha.log     what the daemon and its workers print
 *   (beta likewise)
 *
 * Each pair has loopback addresses of its own, so that pairs do not meet. With `proxied`, replication
 * passes through a TcpProxy in each direction, and the nodes still see each other's addresses.
 */

import { type ChildProcess, spawn } from "node:child_process";
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expectCommand, type Outcome, runCommand } from "./command.ts";
import { clearDevices } from "./device-remains.ts";
import { hastctlHere } from "./hastctl-here.ts";
import {
  killMarked,
  markedEnvironment,
  markedProcesses,
  signal,
  titleOf,
} from "./marked-processes.ts";
import { NbdClient } from "./nbd-client.ts";
import { TcpProxy } from "./tcp-proxy.ts";
import { type Patience, until } from "./until.ts";

const BIN = join(import.meta.dirname, "..", "..", "bin");

export const RESOURCE = "shared";

export type Role = "init" | "primary" | "secondary";

export interface TwoNodesOptions {
  /** Default memsync, as hast.conf's. */
  readonly replication?: "fullsync" | "memsync" | "async";
  readonly checksum?: "none" | "crc32" | "sha256";
  readonly compression?: "none" | "hole" | "lzf";
  /** Seconds; default 5. */
  readonly timeout?: number;
  /** Of each local component, in bytes; default 64 MiB. */
  readonly mediaSize?: number;
  /** More arguments for `hastctl create`. */
  readonly create?: readonly string[];
  /** More statements for the resource section. */
  readonly statements?: readonly string[];
  /** Replication goes over TLS; default no. Each node knows the other's certificate: see {@link TwoNodes.pins}. */
  readonly tls?: boolean;
  /** Replication goes through proxies; default no. */
  readonly proxied?: boolean;
  /** Where the temporary directory is made; default the system's. */
  readonly under?: string;
}

/** `hastctl list` of one resource: "workerpid" → "4711", "statistics/reads" → "0", … */
export type Listing = ReadonlyMap<string, string>;

export class TwoNodes {
  readonly directory: string;
  readonly configuration: string;
  readonly alpha: Node;
  readonly beta: Node;
  /** From alpha to beta, while alpha is primary; null unless proxied. */
  readonly alphaToBeta: TcpProxy | null;
  readonly betaToAlpha: TcpProxy | null;
  /** What each node's `tlspeer` says; null = nothing. Counts from the next configure() on. */
  readonly pins: Record<"alpha" | "beta", string | null> = { alpha: null, beta: null };
  /** Each node's `remote` as the next configure() writes it: "tls" or "tcp4". */
  readonly schemes: Record<"alpha" | "beta", "tls" | "tcp4">;
  readonly #options: TwoNodesOptions;
  readonly #onExit = (): void => killMarked(this.directory);

  private constructor(
    directory: string,
    options: TwoNodesOptions,
    places: Readonly<Record<"alpha" | "beta", Place>>,
    proxies: readonly [TcpProxy, TcpProxy] | null,
  ) {
    this.directory = directory;
    this.#options = options;
    const scheme = options.tls ? "tls" : "tcp4";
    this.schemes = { alpha: scheme, beta: scheme };
    this.configuration = join(directory, "hast.conf");
    this.alpha = new Node("alpha", directory, places.alpha);
    this.beta = new Node("beta", directory, places.beta);
    this.alphaToBeta = proxies?.[0] ?? null;
    this.betaToAlpha = proxies?.[1] ?? null;
    process.on("exit", this.#onExit);
  }

  /** The directory, the disks (not yet created by hastctl) and the configuration; no daemon runs. */
  static async prepare(options: TwoNodesOptions = {}): Promise<TwoNodes> {
    const directory = mkdtempSync(join(options.under ?? tmpdir(), "hast-"));
    const net = nextNetwork();
    const places = {
      alpha: { host: `${net}.1`, port: await freePort(`${net}.1`) },
      beta: { host: `${net}.2`, port: await freePort(`${net}.2`) },
    };
    const proxies: [TcpProxy, TcpProxy] | null = options.proxied
      ? [await proxyTo(places.beta, places.alpha), await proxyTo(places.alpha, places.beta)]
      : null;
    const pair = new TwoNodes(directory, options, places, proxies);
    for (const node of pair.nodes) makeDisk(node.local, options.mediaSize ?? 64 * 1024 * 1024);
    if (options.tls) {
      for (const node of pair.nodes)
        pair.pins[pair.other(node).name] = await node.makeCertificate();
    }
    pair.configure();
    return pair;
  }

  /** Two daemons over newly created disks, both roles init. */
  static async start(options: TwoNodesOptions = {}): Promise<TwoNodes> {
    const pair = await TwoNodes.prepare(options);
    try {
      for (const node of pair.nodes) await node.create(...(options.create ?? []));
      await Promise.all(pair.nodes.map((node) => node.start()));
      return pair;
    } catch (error) {
      throw await pair.failed(error);
    }
  }

  /** As {@link start}, then beta secondary, alpha primary, both connected and nothing dirty. */
  static async startReplicating(options: TwoNodesOptions = {}): Promise<TwoNodes> {
    const pair = await TwoNodes.start(options);
    try {
      await pair.beta.role("secondary");
      await pair.alpha.role("primary");
      await pair.inSync(pair.alpha);
      return pair;
    } catch (error) {
      throw await pair.failed(error);
    }
  }

  get nodes(): readonly [Node, Node] {
    return [this.alpha, this.beta];
  }

  other(node: Node): Node {
    return node === this.alpha ? this.beta : this.alpha;
  }

  /** Writes hast.conf anew, with `more` statements in the resource section. */
  configure(...more: readonly string[]): void {
    this.#configure(more, (node) => {
      const proxy = node === this.alpha ? this.betaToAlpha : this.alphaToBeta;
      const scheme = this.schemes[this.other(node).name];
      return `${scheme}://${node.place.host}:${proxy?.port ?? node.place.port}`;
    });
  }

  /** Writes hast.conf anew: each node has `remote none`. */
  configureAlone(): void {
    this.#configure([], () => "none");
  }

  #configure(more: readonly string[], addressOf: (peer: Node) => string): void {
    const { replication, checksum, compression, timeout, statements } = this.#options;
    const lines = [
      ...this.nodes.flatMap((node) => [
        `on ${node.name} {`,
        `  control ${node.control}`,
        `  pidfile ${node.pidfile}`,
        `  listen tcp4://${node.place.host}:${node.place.port}`,
        `  tlsdir ${node.tlsDirectory}`,
        `}`,
      ]),
      `resource ${RESOURCE} {`,
      `  replication ${replication ?? "memsync"}`,
      `  checksum ${checksum ?? "none"}`,
      `  compression ${compression ?? "hole"}`,
      `  timeout ${timeout ?? 5}`,
      // What needs a device says so: on a machine that can, each promotion would make one.
      `  device none`,
      ...[...(statements ?? []), ...more].map((statement) => `  ${statement}`),
      ...this.nodes.flatMap((node) => [
        `  on ${node.name} {`,
        `    local ${node.local}`,
        `    remote ${addressOf(this.other(node))}`,
        `    source tcp4://${node.place.host}`,
        `    tlspeer ${this.pins[node.name] ?? "none"}`,
        `    export unix://${node.socket}`,
        `  }`,
      ]),
      `}`,
      ``,
    ];
    writeFileSync(this.configuration, lines.join("\n"));
  }

  /** Waits until `primary` and the other node are connected and no extent is dirty. */
  async inSync(primary: Node, patience: Patience = { withinMs: 60_000 }): Promise<void> {
    const other = this.other(primary);
    await until(
      `${primary.name} and ${other.name} are in sync`,
      async () => {
        const [one, two] = await Promise.all([primary.list(), other.list()]);
        return (
          one.get("role") === "primary" &&
          one.get("status") === "complete" &&
          bytesOf(one.get("dirty")) === 0 &&
          two.get("role") === "secondary" &&
          two.get("status") === "complete" &&
          // It is on record, too.
          one.get("copy") === "uptodate" &&
          two.get("copy") === "uptodate"
        );
      },
      patience,
    );
  }

  /**
   * Compares the two data areas byte by byte.
   *
   * @returns the offsets of the differing extents; empty when the copies are equal
   */
  async differences(): Promise<number[]> {
    const [one, two] = await Promise.all(this.nodes.map((node) => node.dump()));
    const size = Number(bytesOf(one!.get("datasize")));
    const extentSize = bytesOf(one!.get("extentsize"));
    if (!(size > 0) || size !== bytesOf(two!.get("datasize"))) {
      throw new Error(`data sizes: ${one!.get("datasize")} and ${two!.get("datasize")}`);
    }
    const files = this.nodes.map((node) => openSync(node.local, "r"));
    const offsets = [one!, two!].map((listing) => bytesOf(listing.get("localoff")));
    const buffers = files.map(() => Buffer.alloc(extentSize));
    const different: number[] = [];
    try {
      for (let offset = 0; offset < size; offset += extentSize) {
        const length = Math.min(extentSize, size - offset);
        const [a, b] = buffers.map((buffer, index) => {
          const got = readSync(files[index]!, buffer, 0, length, offsets[index]! + offset);
          if (got !== length)
            throw new Error(`${this.nodes[index]!.local}: short read at ${offset}`);
          return buffer.subarray(0, length);
        });
        if (!a!.equals(b!)) different.push(offset);
      }
    } finally {
      for (const file of files) closeSync(file);
    }
    return different;
  }

  /** What the daemons printed, for a failure report. */
  logs(): string {
    return this.nodes.map((node) => `--- ${node.name}.log\n${node.logTail()}`).join("\n");
  }

  /** Stops everything and removes the directory. @returns `error` with the logs added to its message */
  async failed(error: unknown): Promise<Error> {
    const logs = this.logs();
    await this.stop();
    const known = error instanceof Error ? error : new Error(String(error));
    known.stack = `${known.stack ?? known.message}\n${logs}`;
    return known;
  }

  /** Leaves everything as it is and running, also when this process ends. */
  async leave(): Promise<void> {
    process.off("exit", this.#onExit);
    for (const node of this.nodes) node.leave();
    await this.alphaToBeta?.close();
    await this.betaToAlpha?.close();
  }

  /** Kills what is left, by process id, and removes the directory. */
  async stop(): Promise<void> {
    killMarked(this.directory);
    await clearDevices(this.nodes.map(({ devices }) => devices));
    await this.alphaToBeta?.close();
    await this.betaToAlpha?.close();
    process.off("exit", this.#onExit);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Runs `body` with a pair made by `make`; cleans up, and shows the daemons' logs if anything fails. */
export async function withPair(
  make: Promise<TwoNodes>,
  body: (pair: TwoNodes) => Promise<void>,
): Promise<void> {
  const pair = await make;
  try {
    await body(pair);
  } catch (error) {
    throw await pair.failed(error);
  }
  await pair.stop();
}

interface Place {
  readonly host: string;
  readonly port: number;
}

export class Node {
  readonly name: "alpha" | "beta";
  readonly place: Place;
  readonly configuration: string;
  readonly local: string;
  readonly socket: string;
  /** Its /dev/hast. */
  readonly devices: string;
  readonly control: string;
  readonly pidfile: string;
  readonly log: string;
  readonly tlsDirectory: string;
  readonly #mark: string;
  /** A program and its arguments that run hastd for us: `unshare -m sh -c …`. */
  wrapper: readonly string[] = [];
  #daemon: ChildProcess | null = null;
  #exit: Promise<number> = Promise.resolve(0);

  constructor(name: "alpha" | "beta", directory: string, place: Place) {
    this.name = name;
    this.place = place;
    this.configuration = join(directory, "hast.conf");
    this.local = join(directory, `${name}.img`);
    this.socket = join(directory, `${name}.sock`);
    this.devices = join(directory, `${name}.dev`);
    this.control = join(directory, `${name}.ctl`);
    this.pidfile = join(directory, `${name}.pid`);
    this.log = join(directory, `${name}.log`);
    this.tlsDirectory = join(directory, `${name}.tls`);
    this.#mark = join(directory, name);
  }

  /** `nbd+unix:` URI of the export, for nbdcopy, qemu-io, fio and the like. */
  get uri(): string {
    return `nbd+unix:///?socket=${this.socket}`;
  }

  /** @throws Error if no daemon is running */
  get daemonPid(): number {
    if (this.#daemon?.pid === undefined) throw new Error(`${this.name}: no daemon`);
    return this.#daemon.pid;
  }

  /** `hastctl create` on this node's component. */
  async create(...options: readonly string[]): Promise<void> {
    const { code, stdout, stderr } = await this.hastctl("create", ...options, RESOURCE);
    if (code !== 0) throw new Error(`${this.name}: create: exit code ${code}\n${stdout}${stderr}`);
  }

  /** `hastctl tls init`. @returns the fingerprint, as `tlspeer` has it */
  async makeCertificate(...options: readonly string[]): Promise<string> {
    const names = [this.place.host, this.name];
    const command = ["tls", "init", "--dir", this.tlsDirectory, ...options, ...names];
    const said = await expectCommand(join(BIN, "hastctl"), command);
    return /tlspeer (sha256:[0-9a-f]{64})/.exec(said)![1]!;
  }

  /** Starts hastd in the foreground and waits until it answers. */
  async start(...options: readonly string[]): Promise<void> {
    this.spawnDaemon(...options);
    let over: number | null = null;
    void this.#exit.then((code) => {
      over = code;
    });
    await until(
      `hastd on ${this.name} answers`,
      async () => {
        if (over !== null) throw new Error(`${this.name}: hastd exited with code ${over}`);
        return await this.#answers();
      },
      { withinMs: 20_000 },
    );
  }

  /** Starts hastd without waiting: for tests of what it does when it cannot run. */
  spawnDaemon(...options: readonly string[]): void {
    appendFileSync(this.log, `[test] hastd starts\n`);
    const log = openSync(this.log, "a");
    const args = ["-F", "-n", this.name, "-c", this.configuration, ...options];
    const [program, ...rest] = [...this.wrapper, join(BIN, "hastd"), ...args];
    const daemon = spawn(program!, rest, {
      stdio: ["ignore", log, log],
      env: { ...markedEnvironment(this.#mark), HAST_DEVICES: this.devices },
      detached: true, // a Ctrl-C is for us; what becomes of the daemon, we decide
    });
    closeSync(log);
    this.#daemon = daemon;
    this.#exit = new Promise((resolve, reject) => {
      daemon.on("error", reject);
      daemon.on("exit", (code) => resolve(code ?? -1));
    });
  }

  /** Resolves with the daemon's exit code, or -1 where a signal ended it. */
  exited(withinMs = 20_000): Promise<number> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<number>((_, reject) => {
      timer = setTimeout(() => {
        reject(new Error(`${this.name}: hastd is still there after ${withinMs / 1000} s`));
      }, withinMs);
    });
    return Promise.race([this.#exit, late]).finally(() => clearTimeout(timer));
  }

  /** The daemon stays when this process ends. */
  leave(): void {
    this.#daemon?.unref();
  }

  /** SIGTERM, then waits for the exit code and for the last worker to be gone. */
  async stop(): Promise<number> {
    signal(this.daemonPid, "SIGTERM");
    const code = await this.exited();
    await until(`${this.name} has no process left`, () => this.processes().length === 0);
    this.#daemon = null;
    return code;
  }

  /** The machine dies: SIGKILL to the daemon and every worker. */
  async crash(): Promise<void> {
    killMarked(this.#mark);
    await this.exited();
    this.#daemon = null;
    appendFileSync(this.log, `[test] ${this.name} was killed\n`);
  }

  /** SIGKILL to the main daemon alone; its workers are expected to follow. */
  async killDaemon(): Promise<void> {
    signal(this.daemonPid, "SIGKILL");
    await this.exited();
    this.#daemon = null;
  }

  /** SIGKILL to the resource's worker. @returns its id */
  async killWorker(): Promise<number> {
    const pid = await this.workerPid();
    if (pid === 0) throw new Error(`${this.name}: no worker`);
    signal(pid, "SIGKILL");
    return pid;
  }

  /** 0 if there is none. */
  async workerPid(): Promise<number> {
    return Number((await this.list()).get("workerpid") ?? 0);
  }

  /** Ids of the daemon, its workers and their hooks. */
  processes(): number[] {
    return markedProcesses(this.#mark);
  }

  titles(): string[] {
    return this.processes().map(titleOf);
  }

  hastctl(command: string, ...args: readonly string[]): Promise<Outcome> {
    return runCommand(
      join(BIN, "hastctl"),
      [command, "-n", this.name, "-c", this.configuration, ...args],
      { env: markedEnvironment(this.#mark) },
    );
  }

  /** @throws Error unless the daemon says that the role works */
  async role(role: Role, ...options: readonly string[]): Promise<void> {
    const { code, stdout, stderr } = await this.hastctl("role", ...options, role, RESOURCE);
    if (code !== 0) {
      throw new Error(`${this.name}: role ${role}: exit code ${code}\n${stdout}${stderr}`);
    }
  }

  async list(): Promise<Listing> {
    return parseListing((await this.#ask("list", RESOURCE)).split("\n").slice(1));
  }

  async dump(): Promise<Listing> {
    return parseListing((await this.#ask("dump", RESOURCE)).split("\n").slice(1));
  }

  status(): Promise<string> {
    return this.#ask("status");
  }

  async #answers(): Promise<boolean> {
    return existsSync(this.control) && (await this.#run("status")).code === 0;
  }

  async #ask(command: string, ...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.#run(command, ...args);
    if (code !== 0) {
      throw new Error(`${this.name}: ${command}: exit code ${code}\n${stdout}${stderr}`);
    }
    return stdout;
  }

  #run(command: string, ...args: readonly string[]): Promise<Outcome> {
    return hastctlHere([command, "-n", this.name, "-c", this.configuration, ...args]);
  }

  /** A client of this node's export; waits for it to be there. */
  connect(patience: Patience = {}): Promise<NbdClient> {
    return until(
      `${this.name}'s export accepts a client`,
      async () => {
        try {
          return await NbdClient.connect({ path: this.socket });
        } catch (error) {
          const code = (error as NodeJS.ErrnoException).code ?? "";
          if (["ENOENT", "ECONNREFUSED", "ECONNRESET", "EPIPE"].includes(code)) return null;
          throw error;
        }
      },
      patience,
    );
  }

  /** Runs an NBD tool with its arguments; "URI" among them becomes {@link uri}. */
  tool(program: string, ...args: readonly string[]): Promise<string> {
    return expectCommand(
      program,
      args.map((arg) => arg.replaceAll("URI", this.uri)),
    );
  }

  logText(): string {
    try {
      return readFileSync(this.log, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return "";
      throw error;
    }
  }

  logTail(): string {
    return this.logText().split("\n").slice(-60).join("\n");
  }
}

/** The number in "2097152 (2.0MB)"; NaN for undefined. */
export function bytesOf(value: string | undefined): number {
  return Number(value?.split(" ", 1)[0]);
}

function parseListing(lines: readonly string[]): Listing {
  const listing = new Map<string, string>();
  let section = "";
  const indent = /^ */.exec(lines[0] ?? "")![0];
  for (const line of lines) {
    const [, spaces, key, value] = /^( +)([^:]+):(?: (.*))?$/.exec(line) ?? [];
    if (spaces === undefined) continue;
    if (spaces.length > indent.length) listing.set(`${section}/${key}`, value ?? "");
    else if (value === undefined) section = key!;
    else listing.set(key!, value);
  }
  return listing;
}

/** A sparse file of `size` bytes. */
export function makeDisk(path: string, size: number): void {
  writeFileSync(path, "");
  truncateSync(path, size);
}

let networks = 0;

/** "127.x.y" of this process and pair. */
function nextNetwork(): string {
  networks += 1;
  const place = (process.pid * 31 + networks) % (190 * 254);
  return `127.${64 + Math.floor(place / 254)}.${1 + (place % 254)}`;
}

/** A port nobody on this address uses now. */
function freePort(host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, host, () => {
      const address = server.address();
      server.close(() => {
        if (address !== null && typeof address === "object") resolve(address.port);
        else reject(new Error("not a TCP listener"));
      });
    });
  });
}

/** Listens on `to`'s address, because a node only talks to the address of its peer. */
function proxyTo(to: Place, from: Place): Promise<TcpProxy> {
  return TcpProxy.listen({ listen: { host: to.host, port: 0 }, target: to, source: from.host });
}

// A test run that is stopped takes its daemons with it.
for (const name of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
  process.once(name, () => process.exit(1));
}

// SPDX-License-Identifier: BSD-2-Clause
/** A pretend world for the main daemon: a clock that is turned by hand, workers and sockets that record. */

import { setImmediate as nextTurn } from "node:timers/promises";
import type { Configuration } from "../../src/daemon/control-server.ts";
import type { HookParts } from "../../src/daemon/hooks.ts";
import type { Probed, ResourceSurroundings } from "../../src/daemon/resource.ts";
import type {
  Divergence,
  FromWorker,
  ToWorker,
  WorkerReport,
  WorkerSettings,
} from "../../src/engine/worker-messages.ts";
import type { Clock, Timer } from "../../src/platform/clock.ts";
import {
  type HandshakeSocket,
  HandshakeSocketError,
  type Resolver,
} from "../../src/platform/handshake-socket.ts";
import type { Log } from "../../src/platform/log.ts";
import type { Stream, StreamReader } from "../../src/platform/net.ts";
import type {
  ProcessExit,
  Processes,
  ProcessHandler,
  WorkerIdentity,
  WorkerProcess,
} from "../../src/platform/process.ts";
import type { TlsTerminator } from "../../src/platform/tls.ts";
import type {
  ProgramHandler,
  Programs,
  RunningProgram,
} from "../../src/platform/watched-program.ts";

/** Lets everything that is ready run. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await nextTurn();
}

export class FakeClock implements Clock {
  #now = 1_000_000;
  readonly #timers = new Set<{ readonly at: number; readonly run: () => void }>();

  now(): number {
    return this.#now;
  }

  wallTime(): number {
    return this.#now;
  }

  after(delayMs: number, run: () => void): Timer {
    const timer = { at: this.#now + delayMs, run };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }

  get timerCount(): number {
    return this.#timers.size;
  }

  /** Turns the clock, running what becomes due in order, and what follows from it. */
  async advance(ms: number): Promise<void> {
    const until = this.#now + ms;
    for (;;) {
      await settle();
      const due = [...this.#timers].filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.#now = due.at;
      due.run();
    }
    this.#now = until;
    await settle();
  }
}

export class FakeWorker implements WorkerProcess {
  readonly identity: WorkerIdentity;
  readonly pid: number;
  readonly sent: ToWorker[] = [];
  readonly sockets: HandshakeSocket[] = [];
  readonly kills: string[] = [];
  readonly #handler: ProcessHandler;
  alive = true;
  /** What it does when it is told to stop, or killed. */
  obedient = true;
  killable = true;
  report: WorkerReport | null = null;

  constructor(identity: WorkerIdentity, pid: number, handler: ProcessHandler) {
    this.identity = identity;
    this.pid = pid;
    this.#handler = handler;
  }

  send(message: object, socket?: HandshakeSocket): void {
    this.sent.push(message as ToWorker);
    if (socket !== undefined) this.sockets.push(socket);
    if ((message as ToWorker).kind === "stop" && this.obedient) {
      void settle().then(() => this.exit({ kind: "code", code: 0 }));
    }
    const question = message as ToWorker;
    if (question.kind === "status" && this.report !== null) {
      this.says({ kind: "status", id: question.id, report: this.report });
    }
  }

  kill(signal: "SIGTERM" | "SIGKILL"): void {
    this.kills.push(signal);
    if (this.killable) void settle().then(() => this.exit({ kind: "signal", signal }));
  }

  says(message: FromWorker): void {
    this.#handler.message(message);
  }

  /** It is ready; a primary's serves its clients. */
  serves(): void {
    this.says({ kind: "ready" });
    if (this.identity.role === "primary") this.says({ kind: "settled" });
  }

  exit(exit: ProcessExit): void {
    if (!this.alive) return;
    this.alive = false;
    this.#handler.exited(exit);
  }

  get start(): Extract<ToWorker, { kind: "start" }> {
    const first = this.sent[0];
    if (first?.kind !== "start") throw new Error("the first message is not start");
    return first;
  }

  /** Kinds of what it was sent. */
  get kinds(): readonly string[] {
    return this.sent.map(({ kind }) => kind);
  }
}

export class FakeProcesses implements Processes {
  readonly workers: FakeWorker[] = [];
  /** Why no process can be started now, or null. */
  shortage: string | null = null;
  /** Called with each new worker. */
  born: (worker: FakeWorker) => void = () => undefined;
  nextPid = 100;

  spawn(identity: WorkerIdentity, handler: ProcessHandler): WorkerProcess {
    const { shortage } = this;
    const worker = new FakeWorker(identity, shortage === null ? this.nextPid++ : 0, handler);
    this.workers.push(worker);
    if (shortage !== null) {
      void settle().then(() => worker.exit({ kind: "not-started", reason: shortage }));
    } else {
      void settle().then(() => this.born(worker));
    }
    return worker;
  }

  get last(): FakeWorker {
    return this.workers.at(-1)!;
  }

  get alive(): readonly FakeWorker[] {
    return this.workers.filter(({ alive }) => alive);
  }
}

/** A connection whose peer's bytes are given by the test, before or after they are wanted. */
export class FakeSocket implements HandshakeSocket {
  readonly peer: string;
  readonly peerHost: string;
  readonly localHost = "10.0.0.1";
  state: "open" | "ended" | "destroyed" = "open";
  #incoming: Uint8Array = new Uint8Array(0);
  #written: Uint8Array[] = [];
  #want: {
    length: number;
    body: ((head: Uint8Array) => number) | null;
    resolve(bytes: Uint8Array): void;
    reject(error: unknown): void;
  } | null = null;
  #whenBroken: ((reason: string) => void) | null = null;

  constructor(peerHost: string, port = 40000) {
    this.peerHost = peerHost;
    this.peer = `tcp://${peerHost}:${port}`;
  }

  get written(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(Buffer.concat(this.#written));
  }

  /** The peer sends. */
  feed(bytes: Uint8Array): void {
    this.#incoming = Buffer.concat([this.#incoming, bytes]);
    this.#deliver();
  }

  /** The peer closes, or sends what it should not. */
  break(reason: string): void {
    if (this.state !== "open") return;
    this.state = "destroyed";
    this.#want?.reject(new HandshakeSocketError(reason));
    this.#whenBroken?.(reason);
  }

  async receive(headLength: number, body: (head: Uint8Array) => number): Promise<Uint8Array> {
    return await new Promise((resolve, reject) => {
      this.#want = { length: headLength, body, resolve, reject };
      if (this.state !== "open") reject(new HandshakeSocketError("closed"));
      this.#deliver();
    });
  }

  #deliver(): void {
    const want = this.#want;
    if (want === null || this.#incoming.length < want.length) return;
    if (want.body !== null) {
      try {
        want.length += want.body(this.#incoming.subarray(0, want.length));
      } catch (error) {
        want.reject(error);
        return;
      }
      want.body = null;
      this.#deliver();
      return;
    }
    this.#want = null;
    want.resolve(this.#incoming.slice(0, want.length));
    this.#incoming = this.#incoming.slice(want.length);
  }

  whenBroken(run: (reason: string) => void): void {
    this.#whenBroken = run;
  }

  write(bytes: Uint8Array): void {
    if (this.state === "open") this.#written.push(bytes);
  }

  end(): void {
    if (this.state === "open") this.state = "ended";
  }

  destroy(): void {
    if (this.state !== "open") return;
    this.state = "destroyed";
    this.#want?.reject(new HandshakeSocketError("closed"));
  }
}

export class FakeResolver implements Resolver {
  readonly answers: Map<string, readonly string[]> = new Map();
  readonly asked: string[] = [];
  /** Names that get no answer until release(). */
  silent = false;
  #waiting: (() => void)[] = [];

  async lookup(host: string): Promise<readonly string[]> {
    this.asked.push(host);
    if (this.silent) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    return this.answers.get(host) ?? [];
  }

  release(): void {
    this.silent = false;
    for (const run of this.#waiting.splice(0)) run();
  }
}

/** One end of a control connection, the test holding the other. */
export class FakeStream implements Stream {
  readonly peer: string = "unix:///run/hastctl";
  state: "open" | "ended" | "destroyed" = "open";
  #written: Uint8Array[] = [];
  #reader: StreamReader | null = null;

  get written(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(Buffer.concat(this.#written));
  }

  /** The client sends, in pieces as the daemon has room. */
  feed(bytes: Uint8Array, pieceMax = 65536): void {
    let done = 0;
    while (done < bytes.length && this.state === "open") {
      const space = this.#reader!.space();
      const length = Math.min(space.length, pieceMax, bytes.length - done);
      space.set(bytes.subarray(done, done + length));
      done += length;
      this.#reader!.received(length);
    }
  }

  /** The client closes. */
  hangUp(): void {
    if (this.state === "destroyed") return;
    this.state = "destroyed";
    this.#reader?.closed(null);
  }

  start(reader: StreamReader): void {
    this.#reader = reader;
  }

  write(bytes: Uint8Array): void {
    this.#written.push(bytes);
  }

  writeAll(pieces: readonly Uint8Array[]): void {
    this.#written.push(...pieces);
  }

  pause(): void {}

  resume(): void {}

  end(): void {
    if (this.state === "open") this.state = "ended";
  }

  destroy(): void {
    if (this.state === "destroyed") return;
    this.state = "destroyed";
    void settle().then(() => this.#reader?.closed("destroyed"));
  }
}

export class FakeLog implements Log {
  readonly lines: string[];
  readonly debugLevel: number = 2;
  readonly #prefix: string;

  constructor(lines: string[] = [], prefix = "") {
    this.lines = lines;
    this.#prefix = prefix;
  }

  error(text: string): void {
    this.lines.push(`ERROR ${this.#prefix}${text}`);
  }

  warning(text: string): void {
    this.lines.push(`WARNING ${this.#prefix}${text}`);
  }

  notice(text: string): void {
    this.lines.push(`NOTICE ${this.#prefix}${text}`);
  }

  info(text: string): void {
    this.lines.push(`INFO ${this.#prefix}${text}`);
  }

  debug(level: number, text: string): void {
    this.lines.push(`DEBUG${level} ${this.#prefix}${text}`);
  }

  withPrefix(prefix: string): Log {
    return new FakeLog(this.lines, prefix);
  }

  /** Whether a line says this. */
  says(text: string): boolean {
    return this.lines.some((line) => line.includes(text));
  }
}

/** A component whose metadata can be read. */
export const USABLE: Probed = { kind: "usable", copy: { state: "uptodate", forced: null } };

/** A program that was started, and ends when the test says so. */
export class FakeProgram implements RunningProgram {
  readonly argv: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly pid: number;
  readonly kills: string[] = [];
  readonly #handler: ProgramHandler;
  running = true;

  constructor(
    argv: readonly string[],
    environment: Readonly<Record<string, string>>,
    pid: number,
    handler: ProgramHandler,
  ) {
    this.argv = argv;
    this.environment = environment;
    this.pid = pid;
    this.#handler = handler;
  }

  prints(text: string, stream: "stdout" | "stderr" = "stdout"): void {
    this.#handler.line(stream, text);
  }

  async exit(code: number): Promise<void> {
    await this.ends({ kind: "code", code });
  }

  async ends(exit: ProcessExit): Promise<void> {
    this.running = false;
    this.#handler.exited(exit);
    await settle();
  }

  kill(signal: "SIGTERM" | "SIGKILL"): void {
    this.kills.push(signal);
  }
}

export class FakePrograms implements Programs {
  readonly started: FakeProgram[] = [];

  start(
    argv: readonly string[],
    environment: Readonly<Record<string, string>>,
    handler: ProgramHandler,
  ): RunningProgram {
    const program = new FakeProgram(argv, environment, 500 + this.started.length, handler);
    this.started.push(program);
    return program;
  }

  get last(): FakeProgram {
    return this.started.at(-1)!;
  }

  /** What was started, without the path, one line each. */
  get calls(): readonly string[] {
    return this.started.map(({ argv }) => argv.slice(1).join(" "));
  }
}

/** For resources without hooks. */
export const NO_HOOKS: HookParts = {
  programs: new FakePrograms(),
  settings: () => ({ exec: null, gate: null, timeoutMs: 60_000 }),
};

/** A secondary has refused a primary whose counters are 2/1. */
export const DIVERGENCE: Divergence = {
  splitBrain: true,
  reason: "both nodes took writes while they were apart",
  extentSize: 65536,
  dataSize: 1 << 20,
  own: { resuid: 7n, localcnt: 2n, remotecnt: 1n, remarks: null },
  peer: { resuid: 7n, localcnt: 2n, remotecnt: 1n, remarks: null },
  refusal: {
    kind: "refused",
    datasize: 1 << 20,
    extentsize: 65536,
    localcnt: 2n,
    remotecnt: 1n,
    errmsg: "Split-brain condition!",
    wait: false,
    resuid: null,
    remarks: null,
  },
};

/** For daemons to which nobody comes with TLS. */
export const NO_TLS: TlsTerminator = {
  terminate: () => Promise.reject(new HandshakeSocketError("there is no TLS here")),
};

/** For resources without a device: a machine that has nothing. */
export const NO_DEVICES: ResourceSurroundings["devices"] = {
  directory: "/dev/hast",
  system: {
    text: () => null,
    names: () => [],
    target: () => null,
    mayUse: () => false,
    program: () => null,
    makeDirectory: () => undefined,
    write: () => undefined,
    link: () => undefined,
    remove: () => undefined,
    kill: () => undefined,
  },
};

/** For resources that have a disk and neither hooks nor a device, save for what `parts` says. */
export function surroundingsOf(
  parts: Pick<ResourceSurroundings, "clock" | "processes" | "log"> & Partial<ResourceSurroundings>,
): ResourceSurroundings {
  return {
    entropy: { fill: (bytes) => bytes.fill(1) },
    probe: async () => USABLE,
    workerLog: "stdio",
    hooks: NO_HOOKS,
    devices: NO_DEVICES,
    event: () => undefined,
    ...parts,
  };
}

/** For daemons that are not reloaded. */
export const FIXED: Configuration = {
  text: () => "",
  reload: async () => ({ kind: "failed", reason: "this test's daemon is fixed", lines: [] }),
};

export function settingsOf(name: string, changes: Partial<WorkerSettings> = {}): WorkerSettings {
  return {
    resource: name,
    provname: name,
    local: `/disks/${name}`,
    remote: "tcp4://10.0.0.2:8457",
    source: null,
    replication: "memsync",
    checksum: "none",
    compression: "hole",
    timeout: 20,
    metaflush: true,
    export: `unix:///run/hast/${name}.sock`,
    exportTls: false,
    tlspeer: null,
    ...changes,
  };
}

export const QUIET_REPORT: WorkerReport = {
  status: "complete",
  dirty: 0,
  extentsize: 65536,
  keepdirty: 64,
  reads: 0,
  writes: 0,
  deletes: 0,
  flushes: 0,
  activemapUpdates: 0,
  readErrors: 0,
  writeErrors: 0,
  deleteErrors: 0,
  flushErrors: 0,
  idleQueue: 255,
  localQueue: 0,
  sendQueue: 0,
  recvQueue: 0,
  doneQueue: 0,
  connected: true,
  bound: false,
  silentMs: 60_000,
  notes: [],
};

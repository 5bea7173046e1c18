// SPDX-License-Identifier: BSD-2-Clause
/**
 * One worker process, as the main daemon sees it.
 *
 *   spawn ─► start ─► ready ─► status, events … ─► stop ─► gone
 *                 └─► failed ─────────────────────────────► gone
 *
 * Nothing here waits without a deadline: the process may be stopped, stuck in the kernel, or gone.
 */

import { assert, unreachable } from "../base/assert.ts";
import type {
  CopyFacts,
  CopyWorth,
  Divergence,
  FromWorker,
  Left,
  Orders,
  PeerLacks,
  Resolution,
  ToWorker,
  WorkerEvent,
  WorkerReport,
  WorkerSettings,
} from "../engine/worker-messages.ts";
import type { Clock } from "../platform/clock.ts";
import type { HandshakeSocket } from "../platform/handshake-socket.ts";
import type { Log } from "../platform/log.ts";
import type { ProcessExit, Processes, WorkerIdentity, WorkerProcess } from "../platform/process.ts";
import type { Wish } from "../wire/control.ts";

/** How long a status request may take before its entry does without the worker's part. */
export const STATUS_TIMEOUT_MS = 1000;
/** How long a killed process may take to vanish before we say that it is stuck. */
export const KILL_TIMEOUT_MS = 5000;
/** How long a map of ones and a metadata write may take. */
export const COMMAND_TIMEOUT_MS = 60_000;

export interface WorkerEnd {
  readonly exit: ProcessExit;
  /** What it said before it went. */
  readonly failure: {
    readonly exitCode: number;
    readonly message: string;
    readonly peerLacks?: PeerLacks;
  } | null;
  /** What it left to its successor. */
  readonly left: Left | null;
  readonly wasReady: boolean;
  /** It has said what its copy is worth: its first flush was over. */
  readonly hadOpened: boolean;
  /** We had asked it to stop, or killed it. */
  readonly requested: boolean;
  /** We had to kill it, since it did not answer, and that is what it died of. */
  readonly killed: boolean;
  /** How long it lived. */
  readonly lifetimeMs: number;
}

export type Discarded = Extract<FromWorker, { kind: "discarded" }>;

export interface WorkerOwner {
  workerReady(worker: Worker): void;
  workerEvent(worker: Worker, event: WorkerEvent): void;
  /** What its local copy is worth: before it is ready, and whenever that changes. */
  workerCopy(worker: Worker, copy: CopyWorth): void;
  workerDiverged(worker: Worker, divergence: Divergence): void;
  /** What the arbiter is to put on record, in this worker's own numbers. */
  workerWishes(worker: Worker, wish: Wish): void;
  /** A secondary's was to throw this copy away. */
  workerInvalidated(worker: Worker, resolution: Resolution): void;
  /** A primary's device has to be taken from its users, before another worker serves it. */
  workerMisledDevice(worker: Worker): void;
  /** A primary's clients are served. */
  workerSettled(worker: Worker): void;
  /** May a resync overwrite this node's copy? To be answered with answerResync(). */
  workerAsks(worker: Worker): void;
  /** The last call. */
  workerGone(worker: Worker, end: WorkerEnd): void;
}

export interface WorkerSurroundings {
  readonly clock: Clock;
  readonly processes: Processes;
  readonly log: Log;
}

export class Worker {
  readonly identity: WorkerIdentity;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #owner: WorkerOwner;
  readonly #process: WorkerProcess;
  readonly #bornMs: number;
  #ready = false;
  #opened = false;
  #sectorSize = 512;
  #requested = false;
  #killed = false;
  #failure: WorkerEnd["failure"] = null;
  #end: WorkerEnd | null = null;
  /** Asked and not answered: at most one, so that a worker that never answers costs nothing. */
  #question: { readonly id: number; readonly askers: Set<(report: WorkerReport) => void> } | null =
    null;
  #questionCount = 0;
  #discarded: Discarded | null = null;
  #left: Left | null = null;
  /** What the worker says to the last command, or null while it has said nothing. */
  #answer: Resolution | null = null;
  readonly #answerWaiters = new Set<() => void>();
  readonly #startWaiters = new Set<() => void>();
  readonly #goneWaiters = new Set<() => void>();

  /** Starts the process. `start` is its first message. */
  constructor(
    identity: WorkerIdentity,
    start: Extract<ToWorker, { kind: "start" }>,
    owner: WorkerOwner,
    surroundings: WorkerSurroundings,
  ) {
    this.identity = identity;
    this.#clock = surroundings.clock;
    this.#log = surroundings.log;
    this.#owner = owner;
    this.#bornMs = this.#clock.now();
    this.#process = surroundings.processes.spawn(identity, {
      message: (message) => this.#received(message),
      exited: (exit) => this.#exited(exit),
    });
    this.#send(start);
  }

  get pid(): number {
    return this.#end === null ? this.#process.pid : 0;
  }

  get ready(): boolean {
    return this.#ready;
  }

  /** How it ended; null while it lives. */
  get end(): WorkerEnd | null {
    return this.#end;
  }

  /** Of a primary's disk, bytes; 512 until it is ready. */
  get sectorSize(): number {
    return this.#sectorSize;
  }

  /** The socket is the worker's from now on. */
  handOver(channel: "a" | "b", socket: HandshakeSocket): void {
    const message: ToWorker = { kind: "socket", channel, peer: socket.peer };
    this.#process.send(message, socket);
  }

  /**
   * Waits until the role works or the process has gone; one that takes longer than `timeoutMs` is
   * killed and reported as gone.
   */
  async started(timeoutMs: number): Promise<"ready" | WorkerEnd> {
    if (!this.#ready && this.#end === null) {
      const waited = await this.#wait(this.#startWaiters, timeoutMs);
      if (waited === "timeout") {
        this.#log.error(
          `The worker (pid ${this.pid}) was not ready after ${timeoutMs / 1000} s and is killed.`,
        );
        this.kill();
        await this.#wait(this.#goneWaiters, KILL_TIMEOUT_MS);
      }
    }
    if (this.#ready && this.#end === null) return "ready";
    return this.#end ?? this.#describe({ kind: "signal", signal: "SIGKILL" });
  }

  /**
   * A secondary's worker without sockets gives up this copy's changes, and ends.
   * @returns what there was to give up, or how it ended without a word
   */
  async discard(keeper: CopyFacts, dryRun: boolean): Promise<Discarded | WorkerEnd> {
    this.#send({ kind: "discard", keeper, dryRun });
    const end = await this.started(COMMAND_TIMEOUT_MS);
    assert(end !== "ready");
    return this.#discarded ?? end;
  }

  /** A primary's: other settings, all of which may change live. It obeys; nobody waits (BD-24). */
  configure(settings: WorkerSettings): void {
    this.#send({ kind: "settings", settings });
  }

  /** A primary's: what operators have ordered by now. It obeys; nobody waits. */
  order(orders: Orders): void {
    this.#send({ kind: "orders", orders });
  }

  /** A primary's: its lease goes on. @param confirmed the worker's own number; 0 = none */
  renewLease(deadlineMs: number, confirmed: number): void {
    this.#send({ kind: "lease", deadlineMs, confirmed });
  }

  /** A primary's that is not ready yet. @see PrimaryEngine.meetRival() */
  meetRival(isFirst: boolean | null): void {
    this.#send({ kind: "rival", isFirst });
  }

  /** Has the worker carry out a command, one at a time. @returns when that is on record, or why it is not */
  async command(
    message: Extract<ToWorker, { kind: "sync" | "invalidate" | "outdate" }>,
  ): Promise<Resolution> {
    this.#answer = null;
    this.#send(message);
    if (this.#end === null) await this.#wait(this.#answerWaiters, COMMAND_TIMEOUT_MS);
    if (this.#answer !== null) return this.#answer;
    const reason =
      this.#end === null
        ? `the worker (pid ${this.pid}) has not stored it within ${COMMAND_TIMEOUT_MS / 1000} s`
        : describeEnd(this.#end);
    if ("dryRun" in message && message.dryRun) return { kind: "failed", reason };
    const perhaps = "it may be on record all the same, which the same command says if typed again";
    return { kind: "failed", reason: `${reason}; ${perhaps}` };
  }

  /** What the worker says about itself, or null if it does not answer in time. Once it is ready: before, it is deaf. */
  async report(): Promise<WorkerReport | null> {
    if (this.#end !== null) return null;
    const asked = this.#question !== null;
    this.#question ??= { id: ++this.#questionCount, askers: new Set() };
    const { id, askers } = this.#question;
    const answer = new Promise<WorkerReport | null>((resolve) => {
      const finish = (report: WorkerReport | null) => {
        timer.cancel();
        askers.delete(finish);
        this.#goneWaiters.delete(gone);
        resolve(report);
      };
      const gone = () => finish(null);
      const timer = this.#clock.after(STATUS_TIMEOUT_MS, gone);
      askers.add(finish);
      this.#goneWaiters.add(gone);
    });
    if (!asked) this.#send({ kind: "status", id });
    return await answer;
  }

  /** Ends it as a crash would; what follows is what follows that, but that what its disk did is not known. */
  kill(): void {
    this.#killed = true;
    this.#process.kill("SIGKILL");
  }

  /**
   * Asks the worker to finish what it accepted and to go; kills it after `graceMs`.
   *
   * @returns "stuck" when even a kill has not ended it: then no other process may touch its disk
   */
  async stop(graceMs: number): Promise<"gone" | "stuck"> {
    if (this.#end !== null) return "gone";
    if (!this.#requested) {
      this.#requested = true;
      this.#send({ kind: "stop" });
    }
    // Every caller has its own patience; the shortest counts.
    const graceful = await this.#wait(this.#goneWaiters, graceMs);
    if (graceful === "done") return "gone";
    this.#log.warning(
      `The worker (pid ${this.pid}) did not stop within ${graceMs / 1000} s and is killed.`,
    );
    this.kill();
    const killed = await this.#wait(this.#goneWaiters, KILL_TIMEOUT_MS);
    return killed === "done" ? "gone" : "stuck";
  }

  /** Whether the process still lives, and has not been told to go. */
  get wanted(): boolean {
    return this.#end === null && !this.#requested;
  }

  /** @param refusal null: a resync may overwrite this node's copy; or why not */
  answerResync(refusal: string | null): void {
    this.#send({ kind: "resync-answer", refusal });
  }

  #send(message: ToWorker): void {
    this.#process.send(message);
  }

  #received(unchecked: unknown): void {
    if (this.#end !== null) return;
    // Our own program at the other end: of one version with us, but perhaps confused.
    const message = unchecked as FromWorker;
    switch (message?.kind) {
      case "ready":
        if (this.#ready) return;
        this.#ready = true;
        this.#sectorSize = message.sectorSize ?? 512;
        this.#owner.workerReady(this);
        this.#release(this.#startWaiters);
        return;
      case "failed":
        this.#failure = {
          exitCode: message.exitCode,
          message: message.message,
          ...(message.peerLacks === undefined ? {} : { peerLacks: message.peerLacks }),
        };
        return;
      case "left":
        this.#left = message.left;
        return;
      case "copy":
        this.#opened = true;
        this.#owner.workerCopy(this, message.copy);
        return;
      case "wish":
        this.#owner.workerWishes(this, message.wish);
        return;
      case "event":
        this.#owner.workerEvent(this, message.event);
        return;
      case "diverged":
        this.#owner.workerDiverged(this, message.divergence);
        return;
      case "discarded":
        this.#discarded = message;
        return;
      case "answer":
        this.#answer = message.resolution;
        this.#release(this.#answerWaiters);
        return;
      case "invalidated":
        this.#owner.workerInvalidated(this, message.resolution);
        return;
      case "device-misled":
        this.#owner.workerMisledDevice(this);
        return;
      case "settled":
        this.#owner.workerSettled(this);
        return;
      case "may-resync":
        this.#owner.workerAsks(this);
        return;
      case "status": {
        const question = this.#question;
        if (question === null || question.id !== message.id) return;
        this.#question = null;
        for (const answer of [...question.askers]) answer(message.report);
        return;
      }
      default:
        message satisfies never;
        this.#log.error(`The worker (pid ${this.pid}) sent a message that is not understood.`);
    }
  }

  #exited(exit: ProcessExit): void {
    if (this.#end !== null) return;
    this.#end = this.#describe(exit);
    this.#owner.workerGone(this, this.#end);
    this.#release(this.#startWaiters);
    this.#release(this.#answerWaiters);
    this.#release(this.#goneWaiters);
  }

  #describe(exit: ProcessExit): WorkerEnd {
    return {
      exit,
      failure: this.#failure,
      left: this.#left,
      wasReady: this.#ready,
      hadOpened: this.#opened || this.#ready,
      requested: this.#requested,
      killed: this.#killed && exit.kind === "signal",
      lifetimeMs: this.#clock.now() - this.#bornMs,
    };
  }

  #release(waiters: Set<() => void>): void {
    for (const run of [...waiters]) run();
  }

  async #wait(waiters: Set<() => void>, timeoutMs: number): Promise<"done" | "timeout"> {
    return await new Promise((resolve) => {
      const done = () => {
        timer.cancel();
        waiters.delete(done);
        resolve("done");
      };
      const timer = this.#clock.after(timeoutMs, () => {
        waiters.delete(done);
        resolve("timeout");
      });
      waiters.add(done);
    });
  }
}

/** For messages: "it was killed by SIGKILL", "it ended with exit code 66: …". */
export function describeEnd(end: WorkerEnd): string {
  if (end.failure !== null) return end.failure.message;
  switch (end.exit.kind) {
    case "code":
      return `it ended with exit code ${end.exit.code}`;
    case "signal":
      return `it was killed by ${end.exit.signal}`;
    case "not-started":
      return `it could not be started: ${end.exit.reason}`;
    default:
      return unreachable(end.exit);
  }
}

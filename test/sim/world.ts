// SPDX-License-Identifier: BSD-2-Clause
/**
 * Two nodes, their network, an application and an operator, all in simulated time; one seed decides
 * everything.
 *
 *   application ─NBD─▶ Machine A ══ SimNetwork ══ Machine B ◀─NBD─ application
 *                         └─ SimMedium               └─ SimMedium
 *
 *   faults, for minutes ─▶ faults stop ─▶ both nodes converge ─▶ everything is read, compared, let go of
 *
 * Daemons, workers, engines and cores are production code. History says what must hold; it is asked after
 * every event.
 *
 * What this world lets pass:
 *   - promotion of a copy that its peer has overtaken, which the rules cannot always see (S-2), or which is
 *     forced: such a bet is a split-brain in the making, which must be detected afterwards;
 *   - a primary without a whole copy, whose peer loses its power: what was not flushed is gone, and a FLUSH
 *     must say so;
 *   - clients of a server that was started anew: they are owed what is stable, and what either node is known
 *     to have kept (S-9);
 *   - never-written blocks are not compared when two fresh components meet (S-18): both begin as zeroes.
 */

import { assert } from "../../src/base/assert.ts";
import type { FromWorker, WorkerSettings } from "../../src/engine/worker-messages.ts";
import type { RunningRequest } from "../pretend/disk.ts";
import { Application } from "./application.ts";
import { Faults } from "./faults.ts";
import { type Counts, History } from "./history.ts";
import { type Arenas, EXPORT, Machine, type SimWorker, type Watcher } from "./machine.ts";
import { SimNetwork } from "./network.ts";
import { Operator } from "./operator.ts";
import { type Changes, type Plan, planOf, stream } from "./plan.ts";
import { Timeline } from "./timeline.ts";
import { type Cells, Trace } from "./trace.ts";
import { Violation } from "./violation.ts";

/** How long after the last fault the nodes may take to become equal. */
const CONVERGENCE_MS = 15 * 60_000;
/** No request may wait longer, whatever happens. */
const ANSWER_MS = 10 * 60_000;
/** The whole run, after its last fault. */
const END_MS = 60 * 60_000;
const TRACE_LINES = 200;

export interface WorldOptions {
  /** What to leave of the seed's plan. */
  readonly changes?: Changes;
  /** Lines of the story that stay, at least. */
  readonly keepLines?: number;
  /** Cells of which the story tells everything. */
  readonly watch?: ReadonlySet<number>;
}

export interface Outcome {
  readonly seed: number;
  /** Null if everything held. */
  readonly failure: Error | null;
  readonly trace: Trace;
  readonly simulatedMs: number;
  readonly events: number;
  readonly counts: Counts;
  readonly faults: ReadonlyMap<string, number>;
}

export class World implements Watcher {
  readonly seed: number;
  readonly plan: Plan;
  readonly timeline: Timeline = new Timeline();
  readonly trace: Trace;
  readonly network: SimNetwork;
  readonly machines: readonly [Machine, Machine];
  readonly history: History;
  readonly application: Application;
  readonly operator: Operator;
  readonly faults: Faults;
  /** Faults happen. */
  chaos = true;
  #failure: Error | null = null;
  #done = false;
  readonly #startedMs: number;

  constructor(seed: number, arenas: Arenas, options: WorldOptions = {}) {
    this.seed = seed;
    this.plan = planOf(seed, options.changes);
    const { plan, timeline } = this;
    this.#startedMs = timeline.nowMs;
    this.trace = new Trace(() => this.sinceStartMs, options.keepLines ?? TRACE_LINES);
    this.note(`seed ${seed}: ${describePlan(plan)}`);
    this.network = new SimNetwork(timeline, stream(seed, "network"), {
      delayMs: plan.networkDelayMs,
      burst: plan.burst,
      pieces: plan.pieces,
      legacy: plan.legacy,
    });
    this.machines = [this.#machine(0, arenas), this.#machine(1, arenas)];
    this.network.attach(this.machines);
    if (options.watch !== undefined) this.#watch(options.watch);
    this.history = new History(this.machines, !plan.legacy);
    for (const machine of this.machines) {
      const copy = this.history.copyOf(machine);
      machine.medium.onForgotten = (cells) => this.history.forgotten(copy, cells);
    }
    this.application = new Application(this, plan);
    this.operator = new Operator(this, stream(seed, "operator"));
    this.faults = new Faults(this);
  }

  #machine(index: 0 | 1, arenas: Arenas): Machine {
    const { plan, timeline, network, seed } = this;
    const name = index === 0 ? "A" : "B";
    const settings: WorkerSettings = {
      resource: "r0",
      provname: "r0",
      local: "/dev/r0",
      remote: `tcp://10.0.0.${2 - index}:8457`,
      source: null,
      replication: plan.modes[index],
      checksum: plan.checksum,
      compression: plan.compression,
      timeout: plan.timeout,
      metaflush: plan.metaflush[index],
      export: EXPORT,
      exportTls: false,
      tlspeer: null,
    };
    const manners = {
      diskDelayMs: plan.diskDelayMs,
      clockRate: plan.clockRates[index],
      flushLoses: plan.flushLoses,
      flushLies: plan.flushLies,
    };
    const surroundings = { timeline, random: stream(seed, name), network, arenas, watcher: this };
    return new Machine(name, `10.0.0.${index + 1}`, plan.shape, settings, surroundings, manners);
  }

  #watch(cells: ReadonlySet<number>): void {
    for (const { name, medium } of this.machines) {
      medium.onCell = (cell, what) => {
        const about = { from: cell, count: 1 };
        if (cells.has(cell)) this.note(`${name} disk: cell ${cell}: ${what}`, about);
      };
    }
  }

  get sinceStartMs(): number {
    return this.timeline.nowMs - this.#startedMs;
  }

  other(machine: Machine): Machine {
    return machine === this.machines[0] ? this.machines[1] : this.machines[0];
  }

  // ---- Watcher --------------------------------------------------------------------------------

  note(text: string, about: Cells | "detail" | null = null): void {
    this.trace.note(text, about);
  }

  fail(error: Error): void {
    this.#failure ??= error;
  }

  /** What is thrown in the middle of the code under test, it might catch. */
  #judge(check: () => void): void {
    try {
      check();
    } catch (error) {
      this.fail(error as Error);
    }
  }

  told(worker: SimWorker, message: FromWorker): void {
    if (worker.role === "primary") {
      if (message.kind === "copy") this.history.hasRead(worker);
      if (message.kind === "ready") this.#judge(() => this.history.serves(worker));
    }
    if (message.kind !== "event") return;
    this.note(`${worker}: event ${message.event}`);
    if (message.event !== "split-brain" || worker.role !== "secondary") return;
    this.#judge(() => this.history.splitBrain());
    this.operator.sawSplitBrain();
  }

  said(machine: Machine, text: string): void {
    const { forced } = this.history.counts;
    if (/Internal error|assertion failed|contradict|broken/.test(text)) {
      this.fail(new Violation(`${machine.name} says: ${text}`));
    } else if (/ran backwards/.test(text)) {
      // A copy that was never whole has been promoted by force, and has taken writes.
      if (forced > 0) this.operator.sawSplitBrain();
      else this.fail(new Violation(`${machine.name} says: ${text}`));
    } else if (/unique ID mismatch/.test(text)) {
      // One was created anew, and then promoted by mistake.
      this.operator.sawSplitBrain();
    }
  }

  opened(worker: SimWorker): void {
    this.note(`${worker}: has opened its disk`);
    if (worker.role !== "primary") return;
    this.#judge(() => this.history.promoted(this.history.copyOf(worker.host), worker));
  }

  died(worker: SimWorker, code: number | null): void {
    const copy = this.history.copyOf(worker.host);
    this.#judge(() => {
      if (worker.role === "primary") this.history.primaryDied(copy, worker, code === 0);
      else this.history.secondaryDied(copy, worker, code === 0 || code === 75 || code === 78);
    });
  }

  failed(error: Error): void {
    this.fail(error);
  }

  drained(worker: SimWorker): void {
    this.#judge(() => this.history.drained(worker));
  }

  diskFault(worker: SimWorker, request: RunningRequest): void {
    this.faults.count(`failed ${request.op}`);
    if (worker.role === "secondary") {
      const copy = this.history.copyOf(worker.host);
      if (request.op === "read") this.history.unreadable(copy);
      else this.#judge(() => this.history.secondaryFault(copy, worker, "disk"));
    }
  }

  // ---- the run --------------------------------------------------------------------------------

  async run(): Promise<Outcome> {
    const rejected = (error: unknown): void => this.fail(error as Error);
    process.on("unhandledRejection", rejected);
    try {
      for (const machine of this.machines) machine.powerOn();
      this.application.start();
      this.faults.start();
      this.operator.start();
      this.timeline.after(this.plan.chaosMs, () => this.#heal());
      await this.#play();
    } catch (error) {
      this.fail(error as Error);
    } finally {
      process.off("unhandledRejection", rejected);
    }
    if (this.#failure !== null) this.note(`FAILED: ${this.#failure.message}`);
    return {
      seed: this.seed,
      failure: this.#failure,
      trace: this.trace,
      simulatedMs: this.sinceStartMs,
      events: this.timeline.count,
      counts: this.history.counts,
      faults: this.faults.counts,
    };
  }

  async #play(): Promise<void> {
    while (!this.#done && this.#failure === null && this.timeline.step()) {
      // Promises go on until none can.
      await new Promise((resolve) => setImmediate(resolve));
      this.#check();
      if (this.timeline.nowMs > this.#startedMs + this.plan.chaosMs + END_MS) {
        throw new Violation("the run does not come to its end");
      }
    }
    if (!this.#done && this.#failure === null) throw new Violation("nothing happens any more");
  }

  #check(): void {
    this.history.poll();
    this.history.checkCoverage(this.chaos);
  }

  restartDaemon(machine: Machine, delayMs: number): void {
    this.timeline.after(delayMs, () => {
      if (!machine.on || machine.daemon !== null) return;
      this.note(`${machine.name}: the daemon is started`);
      machine.startDaemon();
    });
  }

  // ---- after the faults -----------------------------------------------------------------------

  #heal(): void {
    this.note("---- no more faults");
    this.chaos = false;
    this.network.heal();
    for (const machine of this.machines) {
      machine.mend();
      if (!machine.on) machine.powerOn();
      else if (machine.daemon === null) this.restartDaemon(machine, 500);
    }
    this.operator.sober();
    this.timeline.after(5_000, () => {
      this.application.pauseAll();
      this.#awaitConvergence(this.timeline.nowMs + CONVERGENCE_MS);
    });
  }

  #awaitConvergence(untilMs: number): void {
    this.timeline.after(500, () => {
      const why = this.#notConverged();
      if (why === null) {
        this.note("---- converged");
        this.operator.resting = true;
        this.#readEverything();
      } else if (this.timeline.nowMs >= untilMs) {
        throw new Violation(`the nodes do not converge: ${why}`);
      } else {
        this.#awaitConvergence(untilMs);
      }
    });
  }

  #notConverged(): string | null {
    const { application } = this;
    const { primary } = this.operator.wanted;
    const engine = primary?.primaryEngine ?? null;
    if (primary === null || engine === null) return `no primary on ${this.operator.wanted.name}`;
    if (this.operator.busy) return "a role change is under way";
    const { core } = engine;
    // It may not have noticed that the other end is gone.
    const peer = this.other(this.operator.wanted).secondary?.secondaryEngine ?? null;
    if (!core.connected || peer === null) return "not connected";
    if (core.stale) return "the primary's copy is not whole";
    if (core.resyncing || core.map.resyncCount > 0) return "still synchronizing";
    const waiting = application.waiting();
    if (waiting !== "") return `unanswered: ${waiting}`;
    if (core.map.dirtyCount > 0) return `${core.map.dirtyCount} extents are dirty`;
    return core.recordPending ? "a record is being written" : null;
  }

  #readEverything(): void {
    this.history.checkEqual();
    const { primary } = this.operator.wanted;
    assert(primary !== null);
    this.application.readEverything(this.operator.wanted, () => {
      this.history.checkEqual();
      this.application.leaveAll();
      this.timeline.after(3_000, () => this.#letGo());
    });
  }

  /** Nobody is connected, nothing is under way: no memory is held but by the connection of the two. */
  #letGo(): void {
    const engine = this.operator.wanted.primary?.primaryEngine;
    const peer = this.other(this.operator.wanted).secondary?.secondaryEngine;
    if (engine == null || peer == null) throw new Violation("a worker ended without a fault");
    const all = engine.memory.slabCount;
    // One slab for the peer's replies; on the other side one for requests, one for unpacking.
    if (engine.memory.freeSlabs !== all - 1) {
      throw new Violation(`the primary holds ${all - engine.memory.freeSlabs} slabs, not 1`);
    }
    if (peer.memory.freeSlabs < all - 2) {
      throw new Violation(`the secondary holds ${all - peer.memory.freeSlabs} slabs, not 2`);
    }
    if (engine.memory.freeCopies !== engine.memory.copyCount) {
      throw new Violation("the primary holds buffers of copies that have ended");
    }
    engine.core.map.assertInvariants();
    const queues = engine.core.queues();
    if (queues.local + queues.send + queues.recv + queues.done > 0) {
      throw new Violation(`requests are left in the core: ${JSON.stringify(queues)}`);
    }
    const { resource } = this.operator.wanted;
    assert(resource !== null);
    resource.changeRole("secondary").then(
      () => this.timeline.after(1_000, () => this.#end()),
      (error) => this.fail(error as Error),
    );
  }

  #end(): void {
    for (const machine of this.machines) {
      // Under a primary without our extensions a secondary keeps marks of its own; its next S2 carries them.
      const keepsMarks = this.plan.legacy && machine !== this.operator.wanted;
      if (!keepsMarks && machine.stableMap().some((byte) => byte !== 0)) {
        throw new Violation(`${machine.name}: extents are marked after a clean stop`);
      }
    }
    this.history.checkEqual();
    this.#done = true;
  }

  /** When the faults end, at the latest. */
  get chaosEndsMs(): number {
    return this.#startedMs + this.plan.chaosMs;
  }

  /** For the application: is this request's time up? */
  get answerMs(): number {
    return ANSWER_MS;
  }
}

function describePlan(plan: Plan): string {
  return JSON.stringify({ ...plan, faults: plan.faults.length });
}

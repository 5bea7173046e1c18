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
 * Known limits of the code under test, which this world therefore keeps from:
 *   - a primary whose disk fails stops, or answers EIO: there is no diskless primary yet;
 *   - what a failed flush leaves in the page cache can still be flushed by a later one;
 *   - promotion of a copy that its peer has overtaken is not refused (S-2): such a bet is a split-brain in
 *     the making, which must be detected afterwards;
 *   - a primary that has lost its power, promoted again, is the source, although its peer may have kept
 *     unflushed writes (S-9);
 *   - never-written blocks are not compared when two fresh components meet (S-18): both begin as zeroes;
 *   - no FreeBSD node takes part.
 */

import { assert } from "../../src/base/assert.ts";
import type { Resource } from "../../src/daemon/resource.ts";
import type {
  Checksum,
  Compression,
  FromWorker,
  Replication,
  WorkerSettings,
} from "../../src/engine/worker-messages.ts";
import type { Role } from "../../src/wire/control.ts";
import { Random } from "../model/disk.ts";
import type { RunningRequest } from "../pretend/disk.ts";
import { Application } from "./application.ts";
import { type Counts, History } from "./history.ts";
import {
  type Arenas,
  EXPORT,
  Machine,
  type Shape,
  type SimWorker,
  type Watcher,
} from "./machine.ts";
import { SimNetwork } from "./network.ts";
import { Timeline } from "./timeline.ts";
import { Trace } from "./trace.ts";
import { Violation } from "./violation.ts";

/** How long after the last fault the nodes may take to become equal. */
const CONVERGENCE_MS = 15 * 60_000;
/** No request may wait longer, whatever happens. */
const ANSWER_MS = 10 * 60_000;
const TRACE_LINES = 200;

type FaultKind =
  | "partition"
  | "one-way partition"
  | "reset"
  | "kill worker"
  | "kill daemon"
  | "stop daemon"
  | "power cut"
  | "read errors"
  | "write errors"
  | "flush errors"
  | "disk stuck"
  | "planned switch"
  | "wrong promotion"
  | "failover";

/** How often each, where a seed has it at all. */
const FAULTS: readonly (readonly [kind: FaultKind, weight: number])[] = [
  ["partition", 2],
  ["one-way partition", 1],
  ["reset", 4],
  ["kill worker", 3],
  ["kill daemon", 1],
  ["stop daemon", 1],
  ["power cut", 3],
  ["read errors", 1],
  ["write errors", 1],
  ["flush errors", 1],
  ["disk stuck", 1],
  ["planned switch", 3],
  ["wrong promotion", 0.5],
  ["failover", 3],
];

/** What a seed makes of the world, before anything happens. */
interface Plan {
  readonly mode: Replication;
  readonly checksum: Checksum;
  readonly compression: Compression;
  readonly timeout: number; // seconds
  readonly shape: Shape;
  readonly faults: readonly FaultKind[];
  /** Mean ms between faults. */
  readonly faultEveryMs: number;
  readonly chaosMs: number;
  readonly networkDelayMs: number;
  readonly diskDelayMs: number;
  readonly pieces: number;
  readonly connections: number;
  readonly depth: number;
  readonly thinkMs: number;
}

function planOf(random: Random): Plan {
  const sectorSize = random.pick([512, 512, 4096]);
  const cellCount = random.pick(sectorSize === 512 ? [64, 256, 640] : [16, 48, 96]);
  const extentSize = Math.max(sectorSize, random.pick([4096, 16384, 65536]));
  const connections = random.pick([1, 2, 4]);
  const chaosMs = random.pick([10_000, 40_000, 120_000]);
  // Some thousands of requests.
  const thinkMs = Math.max(random.pick([3, 20, 200]), (connections * chaosMs) / 6_000);
  return {
    mode: random.pick(["fullsync", "memsync", "async"] as const),
    checksum: random.pick(["none", "none", "crc32", "sha256"] as const),
    compression: random.pick(["none", "none", "hole", "lzf"] as const),
    timeout: random.pick([5, 20]),
    shape: { sectorSize, cellCount, extentSize, keepdirty: random.pick([2, 2, 4, 64]) },
    faults: FAULTS.filter(() => random.chance(0.5)).map(([kind]) => kind),
    faultEveryMs: random.pick([500, 2_000, 8_000]),
    chaosMs,
    networkDelayMs: random.pick([0.1, 0.5, 5, 40]),
    diskDelayMs: random.pick([0.1, 0.5, 4]),
    pieces: random.pick([0, 0.05, 0.5]),
    connections,
    depth: random.pick([1, 3, 8]),
    thinkMs,
  };
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
  readonly random: Random;
  readonly plan: Plan;
  readonly timeline: Timeline = new Timeline();
  readonly trace: Trace;
  readonly network: SimNetwork;
  readonly machines: readonly [Machine, Machine];
  readonly history: History;
  readonly application: Application;
  readonly faults: Map<string, number> = new Map();
  #failure: Error | null = null;
  #chaos = true;
  /** The operator is content. */
  #resting = false;
  /** Which machine the operator wants to be primary. */
  #wanted: Machine;
  /** Both, for a while, because somebody has made a mistake. */
  #both = false;
  #splitBrain = false;
  readonly #changing: Map<Machine, Resource> = new Map();
  readonly #startedMs: number;

  constructor(seed: number, arenas: Arenas, keep: number = TRACE_LINES) {
    this.seed = seed;
    this.random = new Random(seed);
    const { random, timeline } = this;
    this.plan = planOf(random);
    const { plan } = this;
    this.trace = new Trace(() => timeline.nowMs, keep);
    this.#startedMs = timeline.nowMs;
    this.note(`seed ${seed}: ${JSON.stringify(plan)}`);
    this.network = new SimNetwork(timeline, random, {
      delayMs: plan.networkDelayMs,
      pieces: plan.pieces,
    });
    this.machines = [this.#machine("A", 1, 2, arenas), this.#machine("B", 2, 1, arenas)];
    this.network.attach(this.machines);
    this.history = new History(this.machines, plan.mode);
    this.application = new Application(this, plan);
    this.#wanted = this.machines[0];
  }

  #machine(name: string, own: number, peer: number, arenas: Arenas): Machine {
    const { plan, timeline, random, network } = this;
    const settings: WorkerSettings = {
      resource: "r0",
      provname: "r0",
      local: "/dev/r0",
      remote: `tcp://10.0.0.${peer}:8457`,
      source: null,
      replication: plan.mode,
      checksum: plan.checksum,
      compression: plan.compression,
      timeout: plan.timeout,
      metaflush: true,
      export: EXPORT,
    };
    const disk = { delayMs: plan.diskDelayMs, readFaults: 0, writeFaults: 0, flushFaults: 0 };
    const surroundings = { timeline, random, network, arenas, watcher: this };
    return new Machine(name, `10.0.0.${own}`, plan.shape, settings, surroundings, disk);
  }

  other(machine: Machine): Machine {
    return machine === this.machines[0] ? this.machines[1] : this.machines[0];
  }

  // ---- Watcher --------------------------------------------------------------------------------

  note(text: string): void {
    this.trace.note(text);
  }

  fail(error: Error): void {
    this.#failure ??= error;
  }

  told(worker: SimWorker, message: FromWorker): void {
    // One that has only opened its disk may have to ask its peer, and be refused.
    if (message.kind === "ready" && worker.role === "primary") {
      this.history.promoted(this.history.copyOf(worker.host));
    }
    if (message.kind !== "event") return;
    this.note(`${worker}: event ${message.event}`);
    if (message.event === "split-brain" && worker.role === "secondary") {
      this.history.splitBrain();
      this.#splitBrain = true;
    }
  }

  said(machine: Machine, text: string): void {
    if (/Internal error|assertion failed|ran backwards|contradict|broken/.test(text)) {
      throw new Violation(`${machine.name} says: ${text}`);
    }
    // One was created anew, and then promoted by mistake.
    if (/unique ID mismatch/.test(text)) this.#splitBrain = true;
  }

  opened(worker: SimWorker): void {
    this.note(`${worker}: has opened its disk`);
  }

  died(worker: SimWorker, code: number | null): void {
    const copy = this.history.copyOf(worker.host);
    if (worker.role === "primary") this.history.primaryDied(copy, code === 0);
    else this.history.secondaryDied(copy, worker, code === 0 || code === 75 || code === 78);
  }

  drained(worker: SimWorker): void {
    this.history.drained(worker);
  }

  diskFault(worker: SimWorker, request: RunningRequest): void {
    this.#count(`EIO on ${request.op}`);
    if (worker.role === "secondary" && request.op !== "read") {
      this.history.secondaryFault(this.history.copyOf(worker.host), worker);
    }
  }

  #count(kind: string): void {
    this.faults.set(kind, (this.faults.get(kind) ?? 0) + 1);
  }

  // ---- the run --------------------------------------------------------------------------------

  async run(): Promise<Outcome> {
    const rejected = (error: unknown): void => this.fail(error as Error);
    process.on("unhandledRejection", rejected);
    try {
      for (const machine of this.machines) machine.powerOn();
      this.application.start();
      this.#planFault();
      this.#operate();
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
      simulatedMs: this.timeline.nowMs - this.#startedMs,
      events: this.timeline.count,
      counts: this.history.counts,
      faults: this.faults,
    };
  }

  #done = false;

  async #play(): Promise<void> {
    while (!this.#done && this.#failure === null && this.timeline.step()) {
      // Promises go on until none can.
      await new Promise((resolve) => setImmediate(resolve));
      this.#check();
    }
  }

  #check(): void {
    this.history.poll();
    this.history.checkCoverage();
  }

  // ---- faults ---------------------------------------------------------------------------------

  #planFault(): void {
    const { random, plan } = this;
    if (plan.faults.length === 0) return;
    this.timeline.after(-Math.log(1 - random.next()) * plan.faultEveryMs, () => {
      if (!this.#chaos) return;
      this.#planFault();
      this.#fault(this.#pickFault());
    });
  }

  #pickFault(): FaultKind {
    const able = FAULTS.filter(([kind]) => this.plan.faults.includes(kind));
    let at = this.random.next() * able.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [kind, weight] of able) {
      at -= weight;
      if (at < 0) return kind;
    }
    return able.at(-1)![0];
  }

  #fault(kind: FaultKind): void {
    const { random, network, timeline } = this;
    const machine = random.pick(this.machines);
    const [from, to] = random.chance(0.5) ? this.machines : [this.machines[1], this.machines[0]];
    const happens = (what: string): void => {
      this.#count(kind);
      this.note(`FAULT: ${what}`);
    };
    switch (kind) {
      case "partition":
      case "one-way partition":
        if (!network.whole) return;
        happens(kind === "partition" ? kind : `${kind} ${from.name} to ${to.name}`);
        network.block(from, to);
        if (kind === "partition") network.block(to, from);
        timeline.after(this.#outage(), () => {
          this.note("the network is whole again");
          network.unblock();
        });
        return;
      case "reset":
        if (network.remoteCount === 0) return;
        happens("a connection is reset");
        network.resetOne();
        return;
      case "kill worker": {
        const worker = random.pick([machine.primary, machine.secondary]);
        if (worker === null) return;
        happens(`${worker} is killed`);
        worker.die({ kind: "signal", signal: "SIGKILL" });
        return;
      }
      case "kill daemon":
        if (machine.daemon === null) return;
        happens(`${machine.name}: the daemon is killed`);
        machine.killDaemon();
        this.#restartDaemon(machine);
        return;
      case "stop daemon": {
        const { daemon } = machine;
        if (daemon === null) return;
        happens(`${machine.name}: the daemon is stopped`);
        void daemon.stop().then(() => this.#restartDaemon(machine));
        return;
      }
      case "power cut":
        if (!machine.on) return;
        happens(`${machine.name} loses its power`);
        this.application.hostGone(machine);
        machine.powerCut();
        this.history.powerCut(this.history.copyOf(machine));
        timeline.after(this.#outage(), () => {
          this.note(`${machine.name} has power`);
          machine.powerOn();
        });
        return;
      case "read errors":
      case "write errors":
      case "flush errors": {
        const rate = random.pick([0.02, 0.2, 1]);
        happens(`${machine.name}: ${kind}, ${rate}`);
        const field = {
          "read errors": "readFaults",
          "write errors": "writeFaults",
          "flush errors": "flushFaults",
        }[kind];
        machine.disk = { ...machine.disk, [field]: rate };
        timeline.after(this.#outage() / 2, () => {
          machine.disk = { ...machine.disk, [field]: 0 };
        });
        return;
      }
      case "disk stuck":
        happens(`${machine.name}: its disk does not answer`);
        machine.diskStuckUntilMs = timeline.nowMs + this.#outage();
        return;
      case "planned switch":
        happens(`planned switch to ${this.other(this.#wanted).name}`);
        this.#wanted = this.other(this.#wanted);
        return;
      case "failover":
        if (this.#wanted.primary !== null && network.whole) return;
        happens(`failover to ${this.other(this.#wanted).name}`);
        this.#wanted = this.other(this.#wanted);
        return;
      case "wrong promotion":
        if (this.#both) return;
        happens("both shall be primary");
        this.#both = true;
        timeline.after(this.#outage(), () => {
          if (!this.#chaos) return;
          this.#both = false;
          if (this.#chaos && random.chance(0.5)) this.#wanted = this.other(this.#wanted);
        });
        return;
    }
  }

  #outage(): number {
    const { random } = this;
    return random.pick([100, 1_000, 1_000, 10_000]) * (0.5 + random.next());
  }

  #restartDaemon(machine: Machine): void {
    this.timeline.after(this.#outage() / 5, () => {
      if (machine.on && machine.daemon === null) {
        this.note(`${machine.name}: the daemon is started`);
        machine.startDaemon();
      }
    });
  }

  // ---- the operator ---------------------------------------------------------------------------

  #operate(): void {
    const { random } = this;
    this.timeline.after(random.pick([50, 300, 2_000]) * (0.5 + random.next()), () => {
      if (this.#resting) return;
      this.#operate();
      // A component created anew is nobody's choice while there is another.
      const other = this.other(this.#wanted);
      if (isBlank(this.#wanted) && !isBlank(other) && !random.chance(0.05)) this.#wanted = other;
      this.#resolveSplitBrain();
      for (const machine of this.machines) this.#wantRole(machine);
    });
  }

  #wantRole(machine: Machine): void {
    const { resource } = machine;
    if (resource === null || this.#changing.get(machine) === resource) return;
    const wanted: Role = machine === this.#wanted || this.#both ? "primary" : "secondary";
    if (resource.role === wanted) return;
    // Who wants the other one to be primary demotes this one first, unless that is impossible.
    const other = this.other(machine);
    const reachable = other.daemon !== null && this.network.whole;
    const otherIs = other.resource?.role === "primary" || this.#changing.has(other);
    if (wanted === "primary" && otherIs && reachable && !this.#both) return;
    this.#change(machine, resource, wanted);
  }

  #change(machine: Machine, resource: Resource, wanted: Role): void {
    this.note(`operator: ${machine.name} shall be ${wanted}`);
    this.#changing.set(machine, resource);
    resource.changeRole(wanted).then(
      (change) => {
        if (this.#changing.get(machine) === resource) this.#changing.delete(machine);
        if (change.kind === "done") return;
        this.note(`operator: ${machine.name} is not ${wanted}: ${change.reason}`);
        if (wanted === "primary" && machine === this.#wanted && this.random.chance(0.7)) {
          this.#wanted = this.other(machine);
        }
      },
      (error) => this.fail(error as Error),
    );
  }

  /** The copy of the node that is not wanted as primary is created anew. */
  #resolveSplitBrain(): void {
    if (!this.#splitBrain || this.#both) return;
    const loser = this.other(this.#wanted);
    const { resource } = loser;
    if (resource === null || this.#changing.get(loser) === resource) return;
    if (resource.role !== "init") {
      this.#change(loser, resource, "init");
      return;
    }
    if (loser.workers.size > 0 || loser.lockedBy !== null) return;
    this.note(`operator: ${loser.name} is created anew`);
    this.#splitBrain = false;
    // What was never written is not copied to a component that meets another fresh one (S-18).
    loser.create(isBlank(this.#wanted));
    this.history.recreated(this.history.copyOf(loser));
  }

  // ---- after the faults -----------------------------------------------------------------------

  #heal(): void {
    this.note("---- no more faults");
    this.#chaos = false;
    this.#both = false;
    this.network.unblock();
    for (const machine of this.machines) {
      machine.disk = { ...machine.disk, readFaults: 0, writeFaults: 0, flushFaults: 0 };
      machine.diskStuckUntilMs = 0;
      if (!machine.on) machine.powerOn();
      else if (machine.daemon === null) this.#restartDaemon(machine);
    }
    if (this.#wanted.primary === null && this.other(this.#wanted).primary !== null) {
      this.#wanted = this.other(this.#wanted);
    }
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
        this.#resting = true;
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
    const { primary } = this.#wanted;
    const engine = primary?.primaryEngine ?? null;
    if (primary === null || engine === null) return `no primary on ${this.#wanted.name}`;
    const { core } = engine;
    if (!core.connected) return "not connected";
    if (core.stale) return "the primary's copy is not whole";
    if (core.resyncing || core.map.resyncCount > 0) return "still synchronizing";
    const waiting = application.waiting();
    if (waiting !== "") return `unanswered: ${waiting}`;
    if (core.map.dirtyCount > 0) return `${core.map.dirtyCount} extents are dirty`;
    return core.recordPending ? "a record is being written" : null;
  }

  #readEverything(): void {
    this.history.checkEqual();
    const { primary } = this.#wanted;
    assert(primary !== null);
    this.application.readEverything(this.#wanted, () => {
      this.history.checkEqual();
      this.application.leaveAll();
      this.timeline.after(3_000, () => this.#letGo());
    });
  }

  /** Nobody is connected, nothing is under way: no memory is held but by the connection of the two. */
  #letGo(): void {
    const engine = this.#wanted.primary?.primaryEngine;
    const peer = this.other(this.#wanted).secondary?.secondaryEngine;
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
    const { resource } = this.#wanted;
    assert(resource !== null);
    resource.changeRole("secondary").then(
      () => this.timeline.after(1_000, () => this.#end()),
      (error) => this.fail(error as Error),
    );
  }

  #end(): void {
    for (const machine of this.machines) {
      if (machine.stableMap().some((byte) => byte !== 0)) {
        throw new Violation(`${machine.name}: extents are marked after a clean stop`);
      }
    }
    this.history.checkEqual();
    this.#done = true;
  }

  /** For the application: is this request's time up? */
  get answerMs(): number {
    return ANSWER_MS;
  }
}

/** Never paired. */
function isBlank(machine: Machine): boolean {
  return machine.record.resuid === 0n;
}

// SPDX-License-Identifier: BSD-2-Clause
/** What befalls the two nodes, one planned fault after the other. */

import { unreachable } from "../../src/base/assert.ts";
import type { Order } from "../../src/wire/control.ts";
import { Random } from "../model/disk.ts";
import type { Machine } from "./machine.ts";
import type { FaultKind, PlannedFault } from "./plan.ts";
import type { World } from "./world.ts";

export class Faults {
  readonly #world: World;
  /** How many of each kind there were. */
  readonly counts: Map<string, number> = new Map();

  constructor(world: World) {
    this.#world = world;
  }

  start(): void {
    const { plan, timeline, network, operator, machines } = this.#world;
    if (plan.apartMs > 0) {
      this.#world.note("the nodes have not met, and cannot meet yet");
      network.block(machines[0], machines[1]);
      network.block(machines[1], machines[0]);
      timeline.after(plan.apartMs, () => network.unblock());
      if (plan.apartBoth) operator.wantBoth(plan.apartMs);
      this.count("not met");
    }
    for (const planned of plan.faults) {
      timeline.after(planned.atMs, () => {
        if (this.#world.chaos) new Fault(this.#world, planned).happen();
      });
    }
  }

  count(kind: string): void {
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1);
  }
}

class Fault {
  readonly #world: World;
  readonly #kind: FaultKind;
  readonly #number: number;
  readonly #random: Random;
  readonly #seed: number;

  constructor(world: World, planned: PlannedFault) {
    this.#world = world;
    this.#kind = planned.kind;
    this.#number = planned.number;
    this.#seed = planned.seed;
    this.#random = new Random(planned.seed);
  }

  #happens(what: string): void {
    this.#world.faults.count(this.#kind);
    this.#world.note(`FAULT ${this.#number}: ${what}`);
  }

  /** How long it lasts, ms. */
  #outage(): number {
    return this.#random.pick([100, 1_000, 1_000, 10_000]) * (0.5 + this.#random.next());
  }

  /** Undone by the end of all faults at the latest. */
  #later(ms: number, undo: () => void): void {
    this.#world.timeline.after(ms, () => {
      if (this.#world.chaos) undo();
    });
  }

  happen(): void {
    const random = this.#random;
    const { network, operator } = this.#world;
    const machine = random.pick(this.#world.machines);
    switch (this.#kind) {
      case "partition":
      case "one-way partition":
        this.#partition(machine);
        return;
      case "reset":
        if (network.remoteCount === 0) return;
        this.#happens("a connection is reset");
        network.resetOne();
        return;
      case "refusal":
        this.#happens(`${machine.name} refuses connections`);
        network.refuse(machine, true);
        this.#later(this.#outage(), () => network.refuse(machine, false));
        return;
      case "congestion":
        this.#happens("the network is slow");
        network.slowness = random.pick([10, 100]);
        this.#later(this.#outage(), () => {
          network.slowness = 1;
        });
        return;
      case "kill worker": {
        const worker = random.pick([machine.primary, machine.secondary]);
        if (worker === null) return;
        this.#happens(`${worker} is killed`);
        worker.die({ kind: "signal", signal: "SIGKILL" });
        return;
      }
      case "kill daemon":
        if (machine.daemon === null) return;
        this.#happens(`${machine.name}: the daemon is killed`);
        machine.killDaemon();
        this.#world.restartDaemon(machine, this.#outage() / 5);
        return;
      case "full sync":
        if (operator.syncFull()) this.#happens("everything shall be copied");
        return;
      case "reload":
        this.#reload(machine);
        return;
      case "mode change":
      case "stop daemon":
        this.#stopDaemon(machine);
        return;
      case "stopped process":
        this.#stopProcess(machine);
        return;
      case "power cut":
        this.#happens(`${machine.name} loses its power`);
        this.#powerCut(machine);
        return;
      case "power cut of both":
        this.#happens("both lose their power");
        for (const each of this.#world.machines) this.#powerCut(each);
        return;
      case "lagging secondary":
        this.#lag();
        return;
      case "read errors":
      case "write errors":
      case "flush errors":
        this.#diskErrors(machine);
        return;
      case "bad sectors":
        this.#badSectors(machine);
        return;
      case "disk full":
        this.#happens(`${machine.name}: no space left on its disk`);
        machine.disk = { ...machine.disk, full: true };
        this.#later(this.#outage(), () => {
          machine.disk = { ...machine.disk, full: false };
        });
        return;
      case "disk stuck":
        this.#happens(`${machine.name}: its disk does not answer`);
        // Perhaps for longer than anybody waits: workers are killed, and their disk lives on (S-8).
        machine.diskStuckUntilMs = Math.min(
          this.#world.timeline.nowMs + this.#outage() * random.pick([1, 1, 1, 8, 1_000]),
          this.#world.chaosEndsMs,
        );
        return;
      case "disk slow":
        this.#happens(`${machine.name}: its disk is slow`);
        machine.disk = { ...machine.disk, slowness: random.pick([20, 200]) };
        this.#later(this.#outage(), () => {
          machine.disk = { ...machine.disk, slowness: 1 };
        });
        return;
      case "planned switch":
        this.#happens(`planned switch to ${this.#world.other(operator.wanted).name}`);
        operator.switchOver();
        return;
      case "failover":
        if (operator.wanted.primary !== null && network.whole) return;
        this.#happens(`failover to ${this.#world.other(operator.wanted).name}`);
        operator.switchOver();
        return;
      case "wrong promotion":
        if (operator.both) return;
        this.#happens("both shall be primary");
        operator.wantBoth(this.#outage());
        return;
      case "new disk":
        this.#happens(`${this.#world.other(operator.wanted).name} shall have a new disk`);
        operator.replaceDisk();
        return;
      case "disconnect":
        this.#order(machine, { kind: "disconnect" }, { kind: "connect" });
        return;
      case "pause resync":
        this.#order(operator.wanted, { kind: "pause-resync" }, { kind: "resume-resync" });
        return;
      case "limit resync": {
        const rate = random.pick([1_000, 20_000, 1_000_000]);
        this.#order(
          operator.wanted,
          { kind: "resync-rate", rate },
          { kind: "resync-rate", rate: 0 },
        );
        return;
      }
      case "invalidate":
      case "outdate":
        this.#order(machine, { kind: this.#kind, dryRun: random.chance(0.1) }, null);
        return;
      default:
        unreachable(this.#kind);
    }
  }

  #order(machine: Machine, order: Order, end: Order | null): void {
    const { operator, faults } = this.#world;
    this.#world.note(`ORDER ${this.#number}: on ${machine.name}: hastctl ${order.kind}`);
    operator.order(machine, order, () => faults.count(this.#kind));
    if (end !== null) this.#later(this.#outage(), () => operator.order(machine, end));
  }

  #partition(from: Machine): void {
    const { network } = this.#world;
    if (!network.whole) return;
    const to = this.#world.other(from);
    const oneWay = this.#kind === "one-way partition";
    this.#happens(oneWay ? `nothing passes from ${from.name} to ${to.name}` : "partition");
    network.block(from, to);
    if (!oneWay) network.block(to, from);
    this.#later(this.#outage(), () => {
      this.#world.note("the network is whole again");
      network.unblock();
    });
  }

  #stopDaemon(machine: Machine): void {
    const { daemon } = machine;
    if (daemon === null || daemon.stopper.stopped) return;
    if (this.#kind === "mode change") {
      const replication = this.#random.pick(["fullsync", "memsync", "async"] as const);
      this.#happens(`${machine.name}: hast.conf says ${replication}; the daemon is stopped`);
      machine.settings = { ...machine.settings, replication };
    } else {
      this.#happens(`${machine.name}: the daemon is stopped`);
    }
    const delayMs = this.#outage() / 5;
    void daemon.stop().then(() => this.#world.restartDaemon(machine, delayMs));
  }

  /** hast.conf is edited, and the daemon told so; a primary takes most of it over while it works. */
  #reload(machine: Machine): void {
    const { daemon, settings } = machine;
    if (daemon === null) return;
    const random = this.#random;
    const finished = random.chance(0.9);
    const modes = ["fullsync", "memsync", "async"] as const;
    const changed = {
      ...(random.chance(0.6) ? { replication: random.pick(modes) } : {}),
      ...(random.chance(0.3)
        ? { checksum: random.pick(["none", "crc32", "sha256"] as const) }
        : {}),
      ...(random.chance(0.3) ? { compression: random.pick(["none", "hole", "lzf"] as const) } : {}),
      ...(random.chance(0.3) ? { timeout: random.pick([5, 20]) } : {}),
      ...(random.chance(0.1) ? { metaflush: !settings.metaflush } : {}),
    };
    const what = finished ? `says ${JSON.stringify(changed)}` : "is not finished";
    this.#happens(`${machine.name}: hast.conf ${what}; the daemon is to read it`);
    if (finished) machine.settings = { ...settings, ...changed };
    daemon.reload(finished);
  }

  #stopProcess(machine: Machine): void {
    const { daemon, primary, secondary } = machine;
    const process = this.#random.pick([daemon, primary ?? secondary]);
    if (process === null || process.stopper.stopped) return;
    this.#happens(`${process === daemon ? `${machine.name}: the daemon` : process} is stopped`);
    machine.stopProcess(process);
    this.#later(this.#outage() * this.#random.pick([1, 1, 4]), () => {
      this.#world.note(`${process === daemon ? `${machine.name}: the daemon` : process} goes on`);
      machine.processGoesOn(process);
    });
  }

  /** The secondary has received a lot and written little, and then its primary is gone, or the connection. */
  #lag(): void {
    const { machines, network, timeline } = this.#world;
    const laggard = machines.find(({ secondary }) => secondary !== null);
    if (laggard === undefined) return;
    const leader = this.#world.other(laggard);
    const random = this.#random;
    const end = random.pick(["reset", "killed", "power cut"] as const);
    this.#happens(`${laggard.name}: its disk is slow, and then its primary is gone: ${end}`);
    laggard.disk = { ...laggard.disk, slowness: 200 };
    this.#later(this.#outage(), () => {
      laggard.disk = { ...laggard.disk, slowness: 1 };
    });
    timeline.after(random.pick([20, 200, 1_000]) * random.next(), () => {
      if (!this.#world.chaos) return;
      if (end === "reset") network.resetOne();
      else if (end === "killed") leader.primary?.die({ kind: "signal", signal: "SIGKILL" });
      else this.#powerCut(leader);
    });
  }

  #powerCut(machine: Machine): void {
    if (!machine.on) return;
    const { application, history } = this.#world;
    const leader = this.#world.other(machine).primary?.primaryEngine?.core;
    if (leader?.diskless) this.#world.faults.count("power cut of the only copy");
    application.hostGone(machine);
    machine.powerCut();
    history.powerCut(history.copyOf(machine));
    this.#later(this.#outage(), () => {
      this.#world.note(`${machine.name} has power`);
      machine.powerOn();
    });
  }

  #diskErrors(machine: Machine): void {
    const rate = this.#random.pick([0.02, 0.2, 1]);
    // Not of #random, so that seeds which have found something stay what they were.
    const once = this.#kind === "flush errors" && this.#seed % 2 === 1;
    this.#happens(`${machine.name}: ${this.#kind}, ${rate}${once ? ", once" : ""}`);
    const field =
      this.#kind === "read errors"
        ? "readFaults"
        : this.#kind === "write errors"
          ? "writeFaults"
          : "flushFaults";
    machine.disk = { ...machine.disk, [field]: rate, flushFaultOnce: once };
    this.#later(this.#outage() / 2, () => {
      machine.disk = { ...machine.disk, [field]: 0 };
    });
  }

  /** Some sectors cannot be read until they are written again, or cannot even be written. */
  #badSectors(machine: Machine): void {
    const random = this.#random;
    const { cellCount } = machine.shape;
    const count = 1 + random.below(4);
    const first = random.below(cellCount);
    const last = Math.min(cellCount, first + count);
    const writable = random.chance(0.7);
    const what = writable ? "cannot be read" : "can be neither read nor written";
    this.#happens(`${machine.name}: cells ${first}–${last - 1} ${what}`);
    for (let cell = first; cell < last; cell++) {
      machine.badCells.set(cell, writable ? "unreadable" : "dead");
    }
    this.#later(this.#outage(), () => machine.badCells.clear());
  }
}

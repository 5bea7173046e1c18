// SPDX-License-Identifier: BSD-2-Clause
/**
 * Who decides about roles: a failover script with an operator behind it, who makes mistakes.
 *
 * Wants one machine to be primary and the other secondary, tries until it is so, changes its mind when
 * that fails, and ends a split-brain by `resolve`, or by creating one copy anew.
 */

import type { Resource } from "../../src/daemon/resource.ts";
import type { Order, Role } from "../../src/wire/control.ts";
import type { Random } from "../model/disk.ts";
import type { Machine } from "./machine.ts";
import { stream } from "./plan.ts";
import { Violation } from "./violation.ts";
import type { World } from "./world.ts";

export class Operator {
  readonly #world: World;
  readonly #random: Random;
  /** Which of the disks that are created anew are empty. */
  readonly #newDisks: Random;
  /** Which cells of a copy that is thrown away are spoilt. */
  readonly #spoils: Random;
  /** Which machine shall be primary. */
  wanted: Machine;
  /** Both, for a while, because somebody has made a mistake. */
  both = false;
  /** Content: nothing more to do. */
  resting = false;
  /** A machine whose disk is to be replaced. */
  #replace: Machine | null = null;
  #splitBrain = false;
  /** How to end it, once that has been decided. */
  #remedy: "resolve" | "create" | null = null;
  /** Promotions that the rules forbade, since one was forced. */
  #refusals = 0;
  /** Since there are no more faults: who was refused how often, and what it said last. */
  readonly #refused: Map<Machine, { readonly count: number; readonly reason: string }> = new Map();
  readonly #changing: Map<Machine, Resource> = new Map();

  constructor(world: World, random: Random) {
    this.#world = world;
    this.#random = random;
    this.#newDisks = stream(world.seed, "new disks");
    this.#spoils = stream(world.seed, "spoils");
    this.wanted = world.machines[0];
  }

  start(): void {
    this.#operate();
  }

  #operate(): void {
    const random = this.#random;
    const delay = random.pick([50, 300, 2_000]) * (0.5 + random.next());
    this.#world.timeline.after(delay, () => {
      if (this.resting) return;
      this.#operate();
      const { machines } = this.#world;
      // A component created anew is nobody's choice while there is another.
      const other = this.#world.other(this.wanted);
      if (isBlank(this.wanted) && !isBlank(other) && !random.chance(0.05)) this.wanted = other;
      this.#renewDisk();
      this.#heedStatus();
      this.#replaceDisk();
      for (const machine of machines) this.#wantRole(machine);
    });
  }

  // ---- wishes ---------------------------------------------------------------------------------

  switchOver(): void {
    this.wanted = this.#world.other(this.wanted);
  }

  /** @param ms how long until somebody notices */
  wantBoth(ms: number): void {
    this.both = true;
    this.#world.timeline.after(ms, () => {
      if (!this.#world.chaos) return;
      this.both = false;
      if (this.#random.chance(0.5)) this.switchOver();
    });
  }

  /** The disk of the machine that is not wanted as primary gives way to a new one. */
  replaceDisk(): void {
    this.#replace = this.#world.other(this.wanted);
  }

  /** Waits for a node to change its role. */
  get busy(): boolean {
    return this.#world.machines.some(
      (machine) => machine.resource !== null && this.#changing.get(machine) === machine.resource,
    );
  }

  sawSplitBrain(): void {
    this.#splitBrain = true;
  }

  /** No more mistakes. */
  sober(): void {
    this.both = false;
    this.#refused.clear();
    this.#replace = null;
    if (this.wanted.primary === null && this.#world.other(this.wanted).primary !== null) {
      this.switchOver();
    }
    for (const machine of this.#world.machines) {
      this.order(machine, { kind: "connect" });
      this.order(machine, { kind: "resume-resync" });
      this.order(machine, { kind: "resync-rate", rate: 0 });
    }
  }

  /** Who has been refused may know better, or think so. */
  #forces(machine: Machine): boolean {
    if (!this.#world.chaos) return this.#mustForce(machine);
    const forced = this.both ? this.#random.chance(0.5) : this.#refusals > 2;
    if (forced) this.#refusals = 0;
    return forced && this.#random.chance(0.5);
  }

  /**
   * Neither node may be promoted, again and again, and no fault will change that. A refusal names the command
   * that is left (invariant 11); it is for a copy that is still itself, rather than a mix of two.
   */
  #mustForce(machine: Machine): boolean {
    if (this.#splitBrain) return false;
    const { machines, history } = this.#world;
    const refusals = machines.map((each) => this.#refused.get(each));
    if (!refusals.every((refusal) => refusal !== undefined && refusal.count >= 10)) return false;
    const other = this.#world.other(machine);
    if (!wasLeader(machine) && wasLeader(other)) return false;
    const { reason } = this.#refused.get(machine)!;
    if (!/hastctl role --force primary r0/.test(reason)) {
      throw new Violation(
        `${machine.name} is not promoted, and says no command that helps: ${reason}`,
      );
    }
    const { recreated, forced, outdated } = history.counts;
    if (recreated + forced + outdated === 0 && machines.some(isWhole)) {
      throw new Violation(`neither node is promoted, although nobody made a mistake: ${reason}`);
    }
    history.counts.lastResorts++;
    this.#refused.clear();
    return true;
  }

  // ---- deeds ----------------------------------------------------------------------------------

  #wantRole(machine: Machine): void {
    const { resource } = machine;
    if (resource === null || machine.daemon?.stopper.stopped) return;
    if (this.#changing.get(machine) === resource) return;
    const wanted: Role = machine === this.wanted || this.both ? "primary" : "secondary";
    if (resource.role === wanted) return;
    // Who wants the other one to be primary demotes this one first, unless that is impossible.
    const other = this.#world.other(machine);
    const reachable = other.daemon !== null && this.#world.network.whole;
    const otherIs = other.resource?.role === "primary" || this.#changing.has(other);
    if (wanted === "primary" && otherIs && reachable && !this.both) return;
    this.#change(machine, resource, wanted);
  }

  #change(machine: Machine, resource: Resource, wanted: Role): void {
    const world = this.#world;
    const forced = wanted === "primary" && this.#forces(machine);
    world.note(`operator: ${machine.name} shall be ${wanted}${forced ? ", by force" : ""}`);
    if (forced) world.history.forcing(world.history.copyOf(machine));
    this.#changing.set(machine, resource);
    resource.changeRole(wanted, forced ? "by force" : "by the rules").then(
      (change) => {
        if (this.#changing.get(machine) === resource) this.#changing.delete(machine);
        if (change.kind === "done") return;
        if (wanted === "primary" && resource.role !== "primary") {
          this.#refusals++;
          const count = (this.#refused.get(machine)?.count ?? 0) + 1;
          this.#refused.set(machine, { count, reason: change.reason });
          world.history.counts.refusals++;
        }
        world.note(`operator: ${machine.name} is not ${wanted}: ${change.reason}`);
        if (wanted === "primary" && machine === this.wanted && this.#random.chance(0.7)) {
          this.switchOver();
        }
      },
      (error) => world.fail(error as Error),
    );
  }

  /** A primary that has given its disk up begins again, here or there, once the disk may work. */
  #renewDisk(): void {
    const { primary, resource } = this.wanted;
    if (primary?.primaryEngine?.core.diskless !== true || resource === null) return;
    if (this.wanted.daemon?.stopper.stopped) return;
    if (this.#world.chaos && !this.#random.chance(0.2)) return;
    if (this.#changing.get(this.wanted) === resource) return;
    if (this.#random.chance(0.5)) this.switchOver();
    else this.#change(this.wanted, resource, "init");
  }

  /** A primary that has served older data than the other node has begins again, as its status says (S-11). */
  #heedStatus(): void {
    const { primary, resource } = this.wanted;
    if (this.#world.chaos || !primary?.primaryEngine || resource === null) return;
    if (this.#changing.get(this.wanted) === resource) return;
    const { notes } = primary.primaryEngine.report();
    if (!/then here: hastctl role init r0 && hastctl role primary r0/.test(notes.join())) return;
    this.#change(this.wanted, resource, "init");
  }

  /** The copy of the node that is not wanted as primary is created anew. */
  #replaceDisk(): void {
    if (this.both || (!this.#splitBrain && this.#replace === null)) return;
    const world = this.#world;
    const loser = world.other(this.wanted);
    if (!this.#splitBrain && this.#replace !== loser) {
      this.#replace = null; // another one is wanted meanwhile
      return;
    }
    const { resource } = loser;
    if (resource === null || loser.daemon?.stopper.stopped) return;
    if (this.#changing.get(loser) === resource) return;
    // Nobody throws the only whole copy away, nor one of two that make up a whole. What was never written is
    // not copied between two fresh components (S-18): so nobody makes a second one while the first is.
    // Where both are, after mistakes, resolve is what copies everything.
    const bothBlank = this.#splitBrain && isBlank(this.wanted) && isBlank(loser);
    if (bothBlank) this.#remedy = "resolve";
    else if (
      isBlank(this.wanted) ||
      (!isGood(this.wanted) && (isGood(loser) || !this.#splitBrain))
    ) {
      this.#replace = null;
      if (this.#splitBrain) this.switchOver();
      return;
    }
    if (this.#splitBrain) {
      this.#remedy ??= this.#random.chance(0.7) ? "resolve" : "create";
      if (this.#remedy === "resolve") {
        this.#resolve(loser, resource);
        return;
      }
    }
    if (resource.role !== "init") {
      this.#change(loser, resource, "init");
      return;
    }
    if (loser.workers.size > 0 || loser.lockedBy !== null) return;
    // What the other one's record says of a pair may be undone, where its promotion is refused.
    if (this.#changing.get(this.wanted) === this.wanted.resource) return;
    world.note(`operator: ${loser.name} is created anew`);
    this.#splitBrain = false;
    this.#remedy = null;
    this.#replace = null;
    loser.create(this.#newDisks.chance(0.5));
    world.history.recreated(world.history.copyOf(loser));
  }

  /** `hastctl resolve --discard-local` there, perhaps after a look at what it would do. */
  #resolve(loser: Machine, resource: Resource): void {
    if (resource.role === "primary") return; // to be demoted first
    const world = this.#world;
    const dryRun = this.#random.chance(0.2);
    world.note(`operator: resolve --discard-local${dryRun ? " --dry-run" : ""} on ${loser.name}`);
    if (!dryRun) world.history.discarding(world.history.copyOf(loser));
    this.#changing.set(loser, resource);
    resource.discardLocal(dryRun).then(
      (resolution) => {
        if (this.#changing.get(loser) === resource) this.#changing.delete(loser);
        if (resolution.kind === "failed") {
          world.note(`operator: nothing is resolved: ${resolution.reason}`);
          // They meet again, and it is known then.
          if (isBlank(loser) && isBlank(this.wanted)) this.#splitBrain = false;
          else if (this.#random.chance(0.2)) this.#remedy = "create";
        } else if (!dryRun) {
          world.note(`operator: resolved: ${resolution.lines.join(" ")}`);
          world.history.counts.resolved++;
          this.#splitBrain = false;
          this.#remedy = null;
        }
      },
      (error) => world.fail(error as Error),
    );
  }

  /** `hastctl disconnect` and the like. @param obeyed called if that has changed anything */
  order(machine: Machine, order: Order, obeyed: () => void = () => {}): void {
    const { resource } = machine;
    if (resource === null || machine.daemon?.stopper.stopped) return;
    const world = this.#world;
    resource.obey(order).then(
      (resolution) => {
        if (resolution.kind === "failed") {
          world.note(`operator: no ${order.kind} on ${machine.name}: ${resolution.reason}`);
          const perhaps = /may be on record all the same/.test(resolution.reason);
          if (order.kind === "outdate" && perhaps) world.history.outdated();
        } else if (!resolution.before && !("dryRun" in order && order.dryRun)) {
          world.note(`operator: ${order.kind} on ${machine.name}: ${resolution.lines.join(" ")}`);
          if (order.kind === "outdate") world.history.outdated();
          if (order.kind === "invalidate") this.#spoil(machine);
          obeyed();
        }
      },
      (error) => world.fail(error as Error),
    );
  }

  /**
   * A secondary's copy is thrown away, and nobody reads it any more: some of it may as well be spoilt, where
   * the full copy has not been yet. No map and no counter has to do with that.
   */
  #spoil(machine: Machine): void {
    if (machine.lockedBy?.role !== "secondary" || machine.record.state !== "inconsistent") return;
    const { history, plan } = this.#world;
    const core = this.#world.other(machine).primary?.primaryEngine?.core;
    if (core === undefined || core.stale || core.diskless) return;
    const { cellCount, sectorSize, extentSize } = plan.shape;
    const map = machine.stableMap();
    for (let times = 0; times < 6; times++) {
      const cell = this.#spoils.below(cellCount);
      const extent = Math.floor((cell * sectorSize) / extentSize);
      const marked = (map[extent >> 3]! & (1 << (extent & 7))) !== 0;
      if (!marked || (core.connected && !core.map.isScheduled(extent))) continue;
      if (history.spoil(history.copyOf(machine), cell)) {
        this.#world.note(`${machine.name}: cell ${cell} is spoilt`, { from: cell, count: 1 });
      }
    }
  }

  /** `hastctl sync --full`, where there is a primary. */
  syncFull(): boolean {
    const { resource, primary } = this.wanted;
    if (resource?.role !== "primary" || primary === null) return false;
    if (this.wanted.daemon?.stopper.stopped) return false;
    const world = this.#world;
    resource.fullSync().then(
      (resolution) => {
        if (resolution.kind === "failed")
          world.note(`operator: no full copy: ${resolution.reason}`);
      },
      (error) => world.fail(error as Error),
    );
    return true;
  }
}

/** As `hastctl status` has it: a primary may know more than its disk does. */
function isWhole({ record, primary }: Machine): boolean {
  return record.state !== "inconsistent" && primary?.primaryEngine?.core.stale !== true;
}

/** As its status says: nor has anybody thrown it away, or found it to be older. */
function isGood(machine: Machine): boolean {
  return isWhole(machine) && machine.record.state !== "outdated";
}

function wasLeader({ record }: Machine): boolean {
  return record.prevrole === "primary";
}

/** Never paired. */
function isBlank(machine: Machine): boolean {
  return machine.record.resuid === 0n;
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * A small world: a few events in a given order, and one accident at a given disk operation.
 *
 *   event ─▶ everything that follows from it ─▶ event ─▶ … ─▶ faults end ─▶ both nodes are equal
 *                 │ accident, before the n-th disk operation has ended
 *
 * The nodes, disks, wires and checks are those of world.ts; here nothing is left to chance. Where a
 * disk or a wire has a choice (what a power cut keeps, what a dying process had still written, what
 * a cut connection still delivers), `fate` says which way all of them go.
 */

import { FLUSH, type Mode, READ, WRITE, ZERO } from "../../src/replication/requests.ts";
import { EXTENT_CELLS, type Op, Random, Violation } from "./disk.ts";
import type { Node } from "./node.ts";
import { World } from "./world.ts";

export const EVENTS = [
  "write",
  "trim",
  "flush",
  "crash A",
  "crash B",
  "cut",
  "heal",
  "promote A",
  "promote B",
  "restart",
] as const;
export type Event = (typeof EVENTS)[number];

/** `lose` and `keep` go one way always, `torn` by turns: a write of two cells keeps one of them. */
export const FATES = ["lose", "keep", "torn"] as const;
export type Fate = (typeof FATES)[number];

/** What moves first when several things could. */
export const PACES = ["wire first", "disk A first", "disk B first"] as const;
export type Pace = (typeof PACES)[number];

export const ACCIDENTS = ["power cut", "kill", "cut"] as const;
export interface Accident {
  readonly what: (typeof ACCIDENTS)[number];
  /** Before this write or flush of a disk ends; the first after the beginning is 0. */
  readonly at: number;
}

/** `fresh`: two components as created. `paired`: both whole and connected, A primary. */
export const BEGINNINGS = ["fresh", "paired", "A alone", "B took over"] as const;
export type Beginning = (typeof BEGINNINGS)[number];

export interface Plan {
  readonly mode: Mode;
  /** Both nodes are ours; else the peer is one of FreeBSD's. */
  readonly ours: boolean;
  readonly pace: Pace;
  readonly fate: Fate;
  /** Does a minute pass after each event, so that extents become clean by themselves? */
  readonly slow: boolean;
  readonly beginning: Beginning;
  readonly events: readonly Event[];
  readonly accident: Accident | null;
}

export function spellPlan(plan: Plan): string {
  const { accident } = plan;
  const kind = `${plan.mode}, ${plan.ours ? "ours" : "legacy"}, ${plan.pace}, ${plan.fate}, ${plan.slow ? "slow" : "quick"}`;
  const end = accident === null ? "" : ` with ${accident.what} at operation ${accident.at}`;
  return `${kind}, ${plan.beginning}: ${plan.events.join(", ")}${end}`;
}

class FatedChance extends Random {
  readonly #fate: Fate;
  #turn = 0;
  #ids = 0;

  constructor(fate: Fate) {
    super(0);
    this.#fate = fate;
  }

  #keeps(): boolean {
    return this.#fate === "keep" || (this.#fate === "torn" && this.#turn++ % 2 === 0);
  }

  override next(): number {
    return this.#keeps() ? 0 : 1 - Number.EPSILON;
  }
  override below(limit: number): number {
    // A resource's id: never the same twice.
    if (limit > 1000) return this.#ids++;
    return this.#keeps() ? limit - 1 : 0;
  }
  override chance(_probability: number): boolean {
    return this.#keeps();
  }
  override pick<T>(items: readonly T[]): T {
    return this.#keeps() ? items.at(-1)! : items[0]!;
  }
}

/** More turns than any of these worlds needs. */
const TURNS_MAX = 3000;
const SECONDS_MAX = 200;

export class SmallWorld {
  readonly world: World;
  readonly #plan: Plan;
  readonly #chance: FatedChance;
  #linkUp = true;
  #writes = 0;
  #counting = false;
  /** Writes and flushes of disks since the beginning. */
  operations = 0;
  /** Did the accident happen? */
  accidentHappened = false;

  constructor(plan: Plan) {
    this.#plan = plan;
    const { mode, ours, fate } = plan;
    this.#chance = new FatedChance(fate);
    this.world = new World({
      random: this.#chance,
      mode,
      states: ours,
      zeroes: ours,
      version: 2,
      faultRate: 0,
      keeps: ours,
      diskFaultRate: 0,
    });
  }

  /**
   * Plays the plan.
   *
   * @returns false if an event could not happen: then a shorter plan says the same
   * @throws Violation, with the plan and its story
   */
  run(): boolean {
    try {
      this.#begin();
      this.#counting = true;
      for (const event of this.#plan.events) {
        if (!this.#may(event)) return false;
        this.world.note(`==== ${event}`);
        this.#perform(event);
        this.#read();
        this.#rest();
        if (this.#plan.slow) this.#minute();
      }
      this.#counting = false;
      if (this.#plan.accident !== null && !this.accidentHappened) return false;
      this.#end();
    } catch (error) {
      const story = this.world.story.join("\n  ");
      throw new Violation(
        `${spellPlan(this.#plan)}: ${(error as Error).message}\n  ${story}\n` +
          `again: npm run worlds -- --plan '${JSON.stringify(this.#plan)}'`,
        { cause: error },
      );
    }
    return true;
  }

  // ---- the beginning and the end ------------------------------------------------------------------

  #begin(): void {
    const { world } = this;
    const [a, b] = world.nodes;
    world.moves.wantPrimary(a);
    world.moves.becomeSecondary(b);
    if (this.#plan.beginning === "fresh") return;
    this.#perform("write");
    this.#converge();
    if (this.#plan.beginning === "paired") return;
    this.#perform("cut");
    if (this.#plan.beginning === "A alone") {
      this.#perform("write");
      this.#rest();
      return;
    }
    world.moves.kill(a);
    this.#perform("promote B");
    this.#rest();
    this.#perform("write");
    this.#rest();
    this.#linkUp = true;
  }

  /** Faults stop, and whoever may, becomes primary: the nodes must become equal. */
  #end(): void {
    const { world } = this;
    world.note("==== no more faults");
    world.faults = false;
    this.#linkUp = true;
    if (world.leader === null) {
      const candidate = world.moves.candidates()[0];
      world.must(candidate !== undefined, "no node may be promoted");
      this.#promote(candidate!);
    }
    for (const node of world.nodes) {
      if (node.role === "down") world.moves.becomeSecondary(node);
    }
    this.#converge();
    world.moves.checkEnd();
  }

  #converge(): void {
    const { world } = this;
    for (let seconds = 0; seconds < SECONDS_MAX; seconds++) {
      this.#rest();
      if (world.moves.unrest() === "") {
        this.#inferEnd();
        return;
      }
      this.#second();
    }
    throw new Violation(`the nodes do not converge: ${world.moves.unrest()}`);
  }

  // ---- events --------------------------------------------------------------------------------------

  #may(event: Event): boolean {
    const { leader, nodes, moves } = this.world;
    const [a, b] = nodes;
    switch (event) {
      case "write":
      case "trim":
      case "flush":
        return leader !== null;
      case "crash A":
        return a.role !== "down";
      case "crash B":
        return b.role !== "down";
      case "cut":
        return this.#linkUp;
      case "heal":
        return !this.#linkUp;
      case "promote A":
        return a.leader === null && moves.candidates().includes(a);
      case "promote B":
        return b.leader === null && moves.candidates().includes(b);
      case "restart":
        return a.role === "down" || b.role === "down";
    }
  }

  #perform(event: Event): void {
    const { world } = this;
    const { leader, nodes, moves } = world;
    const [a, b] = nodes;
    switch (event) {
      case "write": {
        // Two that overlap, both under way at once; those of the next event go to another extent.
        const at = (this.#writes++ % 2) * EXTENT_CELLS;
        moves.submit(leader!, WRITE, at, 2);
        moves.submit(leader!, WRITE, at, 1);
        return;
      }
      case "trim": {
        const at = (this.#writes++ % 2) * EXTENT_CELLS;
        moves.submit(leader!, ZERO, at, 2);
        moves.submit(leader!, WRITE, at, 1);
        return;
      }
      case "flush":
        moves.submit(leader!, FLUSH, 0, 0);
        return;
      case "crash A":
        this.#powerCut(a);
        return;
      case "crash B":
        this.#powerCut(b);
        return;
      case "cut":
        this.#cut();
        return;
      case "heal":
        this.#linkUp = true;
        return;
      case "promote A":
        this.#promote(a);
        return;
      case "promote B":
        this.#promote(b);
        return;
      case "restart":
        for (const node of nodes) if (node.role === "down") moves.becomeSecondary(node);
    }
  }

  /** Of all that events write, while they happen. */
  #read(): void {
    const { leader, moves } = this.world;
    if (leader === null || leader.stopping) return;
    moves.submit(leader, READ, 0, 2);
    moves.submit(leader, READ, EXTENT_CELLS, 2);
  }

  #powerCut(node: Node): void {
    this.world.note(`${node.name}: power cut`);
    this.world.moves.powerCut(node);
  }

  #cut(): void {
    this.#linkUp = false;
    for (const wire of this.world.wires) wire.cut(this.#chance, "both");
  }

  /** The present primary is stopped in good order, and comes back as secondary. */
  #promote(node: Node): void {
    const { world } = this;
    const former = world.leader;
    if (former !== null) {
      world.moves.stop(former);
      for (let seconds = 0; world.leader === former && seconds < SECONDS_MAX; seconds++) {
        this.#rest();
        if (world.leader === former) this.#second();
      }
      world.must(world.leader !== former, "the primary does not stop");
      // Unless it died on the way.
      if (former.done) world.moves.becomeSecondary(former.node);
    }
    for (let turns = 0; node.leader === null; turns++) {
      world.must(turns < TURNS_MAX, `${node.name} does not get ready to be primary`);
      if (!world.moves.candidates().includes(node)) return;
      world.moves.wantPrimary(node);
      if (node.leader === null && !this.#turn()) this.#second();
    }
  }

  // ---- what follows --------------------------------------------------------------------------------

  /** Everything happens that can happen without time. */
  #rest(): void {
    for (let turns = 0; turns < TURNS_MAX; turns++) {
      if (this.#turn()) continue;
      const { leader } = this.world;
      // Only time answers a request that waits for a peer.
      if (leader === null || leader.client.size === 0) return;
      this.#second();
    }
    throw new Violation("this world never comes to rest");
  }

  #second(): void {
    this.world.moves.tick(1000);
    this.world.moves.afterwards();
  }

  /** Own flushes, cold extents and tidied maps. */
  #minute(): void {
    for (let times = 0; times < 3; times++) {
      this.world.moves.tick(31_000);
      this.world.moves.afterwards();
      this.#rest();
    }
    this.#inferEnd();
  }

  /** Nothing has been copied for long, unless there still is something to copy. */
  #inferEnd(): void {
    const { leader, states } = this.world;
    if (states || !leader?.core.connected || leader.core.resyncing) return;
    this.world.other(leader.node).follower?.inferEnd();
    this.#rest();
  }

  /** @returns false if nothing can happen */
  #turn(): boolean {
    const { world } = this;
    const moved = this.#pumps() || this.#connects() || this.#moves();
    if (moved) world.moves.afterwards();
    return moved;
  }

  #pumps(): boolean {
    const { leader } = this.world;
    if (leader === null || !leader.needsPump) return false;
    leader.pump();
    return true;
  }

  #connects(): boolean {
    const { world } = this;
    const { leader } = world;
    if (leader === null || leader.phase !== "idle" || leader.stopping) return false;
    if (this.#linkUp && world.other(leader.node).role === "secondary") {
      leader.connect();
      return true;
    }
    leader.core.openGate(leader);
    return false;
  }

  #moves(): boolean {
    switch (this.#plan.pace) {
      case "wire first":
        return this.#delivers() || this.#completes(0) || this.#completes(1);
      case "disk A first":
        return this.#completes(0) || this.#delivers() || this.#completes(1);
      case "disk B first":
        return this.#completes(1) || this.#delivers() || this.#completes(0);
    }
  }

  #delivers(): boolean {
    const { moves, wires } = this.world;
    for (const wire of wires) {
      if (wire.toPrimary.length > 0) {
        moves.deliverToPrimary(wire);
        return true;
      }
      if (wire.toSecondary.length > 0 && moves.deliverable(wire)) {
        moves.deliverToSecondary(wire);
        return true;
      }
    }
    return false;
  }

  #completes(which: 0 | 1): boolean {
    const { world } = this;
    const node = world.nodes[which];
    if (node.disk.ops.length === 0) return false;
    // The disk that is in a hurry does not keep the order of its requests.
    const op: Op = this.#plan.pace === "wire first" ? node.disk.ops[0]! : node.disk.ops.at(-1)!;
    if (this.#counting && (op.writes.length > 0 || op.covers !== null)) {
      const { accident } = this.#plan;
      if (accident?.at === this.operations++) {
        this.#happens(node, accident);
        return true;
      }
    }
    if (node.leader !== null) node.leader.needsPump = true;
    world.moves.complete(node, op);
    return true;
  }

  #happens(node: Node, accident: Accident): void {
    this.accidentHappened = true;
    this.world.note(`==== ${accident.what}, ${node.name}`);
    if (accident.what === "cut") this.#cut();
    else if (accident.what === "kill") this.world.moves.kill(node);
    else this.world.moves.powerCut(node);
  }
}

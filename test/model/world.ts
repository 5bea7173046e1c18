// SPDX-License-Identifier: BSD-2-Clause
/**
 * Two nodes, a network and two disks, all pretended, around the real replication cores.
 *
 *   client ─▶ Leader (Primary) ══ Wire, cut anywhere ══▶ Follower (judge, Secondary)
 *               └─ PretendDisk                             └─ PretendDisk
 *
 * One seed decides everything. After each step the world checks what docs/architecture.md promises:
 * what a client may read, what an acknowledgement means on both disks, that no node goes on alone
 * without a stable mark, that a promoted node has what it must have, and that whatever may differ
 * between the nodes is marked.
 */

import type { Primary } from "../../src/replication/primary.ts";
import { FLUSH, type Kind, type Mode, READ, WRITE, ZERO } from "../../src/replication/requests.ts";
import { equal } from "../../src/replication/secondary.ts";
import { Arbiter } from "./arbiter.ts";
import {
  CELL,
  CELLS,
  EXTENT_CELLS,
  MAP,
  type Op,
  PretendDisk,
  Random,
  RECORD,
  SOUND,
  type Stored,
  Violation,
  words,
} from "./disk.ts";
import { Follower } from "./follower.ts";
import { type ClientOp, describe, Leader } from "./leader.ts";
import { hasBit, isUnpaired, Node } from "./node.ts";
import { spell, type Wire } from "./wire.ts";

const OUTSTANDING_MAX = 6;

const EIO = 5;

/** What kind of pair this is, and who decides where a disk or a wire has a choice. */
export interface Setting {
  readonly random: Random;
  readonly mode: Mode;
  readonly states: boolean;
  readonly zeroes: boolean;
  readonly version: number;
  readonly faultRate: number;
  readonly keeps: boolean;
  /** How many of the faults are disks that break. */
  readonly diskFaultRate: number;
  /** An arbiter decides who is primary (S-17). */
  readonly arbiter?: boolean;
}

export function anySetting(seed: number): Setting {
  const random = new Random(seed);
  const mode = random.pick(["fullsync", "memsync", "async"] as const);
  const states = random.chance(0.6);
  const zeroes = states || random.chance(0.3);
  const version = states || random.chance(0.7) ? 2 : 1;
  const faultRate = random.pick([0.002, 0.01, 0.03]);
  const keeps = states && random.chance(0.8);
  const diskFaultRate = random.pick([0, 0.2, 0.7]);
  return { random, mode, states, keeps, zeroes, version, faultRate, diskFaultRate };
}

export class World {
  readonly random: Random;
  readonly mode: Mode;
  readonly states: boolean;
  readonly keeps: boolean;
  readonly zeroes: boolean;
  readonly version: number;
  readonly faultRate: number;
  readonly diskFaultRate: number;
  readonly nodes: readonly [Node, Node];
  /** Null where nobody is asked. */
  readonly arbiter: Arbiter | null;
  wires: Wire[] = [];
  nowMs = 1000;
  faults = true;
  readonly story: string[] = [];
  /** What happened, for the reader who wonders whether anything did. */
  readonly counts = {
    answers: 0,
    promotions: 0,
    /** The other node took over after a primary had died, and had to have everything. */
    failovers: 0,
    splitBrains: 0,
    resyncs: 0,
    /** A primary went on without its disk. */
    diskless: 0,
    /** Acknowledged on the peer's word alone. */
    masked: 0,
    /** A secondary was the source because it had kept its cache. */
    kept: 0,
    /** Nobody whom the arbiter has on record could be primary. */
    seeds: 0,
    faults: 0,
  };

  // What the client knows. Writes are numbered from 1 in the order of submission.
  #writes: { readonly from: number; readonly count: number }[] = [{ from: 0, count: CELLS }];
  /** Reads by the present primary's client must not see anything older. */
  #view: number[] = new Array(CELLS).fill(0);
  /** Acknowledged, and no power cut since could have taken it. */
  #acked: number[] = new Array(CELLS).fill(0);
  /** Acknowledged before a FLUSH that was acknowledged. */
  #flushed: number[] = new Array(CELLS).fill(0);
  /** The same, of answers that an arbiter has let go. */
  #told: number[] = new Array(CELLS).fill(0);
  #toldFlushed: number[] = new Array(CELLS).fill(0);
  /** Nodes that must hold everything that is required. */
  readonly entitled: Set<Node>;
  /** It has what the other one lost with its power, although that was acknowledged. */
  #keeper: Node | null = null;
  #lastLeader: Node | null = null;
  #lastDied = false;
  /** The secondary failed, and its primary has not noticed. */
  #peerDied = false;
  /** FLUSHes that failed at the peer, and of which the primary has not heard. */
  #unheard = 0;

  /** What may happen, for somebody else than step() to choose from (small-world.ts). */
  readonly moves = {
    submit: (leader: Leader, kind: Kind, from: number, count: number): void =>
      this.#submitAt(leader, kind, from, count),
    tick: (ms: number): void => this.#tick(ms),
    stop: (leader: Leader): void => this.#stop(leader),
    kill: (node: Node): void => this.#kill(node),
    powerCut: (node: Node): void => this.#powerCut(node),
    becomeSecondary: (node: Node): void => this.#becomeSecondary(node),
    wantPrimary: (node: Node): void => this.#wantPrimary(node),
    candidates: (): Node[] => this.#candidates(),
    complete: (node: Node, op: Op): void => this.#complete(node, op, 0),
    deliverable: (wire: Wire): boolean => this.#deliverable(wire),
    deliverToPrimary: (wire: Wire): void => this.#deliverToPrimary(wire),
    deliverToSecondary: (wire: Wire): void => this.#deliverToSecondary(wire),
    /** The checks after each step. */
    afterwards: (): void => this.#afterwards(),
    /** Why the nodes are not at rest and equal; "" if they are. */
    unrest: (): string => this.#why(),
    checkEnd: (): void => this.#checkEnd(),
  };

  constructor(seed: number | Setting) {
    const setting = typeof seed === "number" ? anySetting(seed) : seed;
    const { random } = setting;
    this.random = random;
    this.mode = setting.mode;
    this.states = setting.states;
    this.keeps = setting.keeps;
    this.zeroes = setting.zeroes;
    this.version = setting.version;
    this.faultRate = setting.faultRate;
    this.diskFaultRate = setting.diskFaultRate;
    this.nodes = [new Node("A", new PretendDisk(random)), new Node("B", new PretendDisk(random))];
    this.entitled = new Set(this.nodes);
    this.arbiter = setting.arbiter ? new Arbiter(this.nodes) : null;
    this.note(
      `${this.mode}, states ${this.states}, zeroes ${this.zeroes}, version ${this.version}`,
    );
  }

  note(text: string): void {
    this.story.push(text);
  }

  must(condition: boolean, text: string): void {
    if (!condition) throw new Violation(text);
  }

  other(node: Node): Node {
    return node === this.nodes[0] ? this.nodes[1] : this.nodes[0];
  }

  #caches = 0n;

  anyCache(): bigint {
    return ++this.#caches;
  }

  get leader(): Leader | null {
    return this.nodes[0].leader ?? this.nodes[1].leader;
  }

  #required(cell: number): number {
    return Math.max(this.#acked[cell]!, this.#flushed[cell]!);
  }

  #lacks(node: Node, first = 0): number {
    for (let cell = first; cell < CELLS; cell++) {
      if (node.disk.cell(cell) < this.#required(cell)) return cell;
    }
    return -1;
  }

  /** An answer that waited for the arbiter has left. */
  told(op: ClientOp): void {
    if (op.kind === READ) return;
    if (op.kind === FLUSH) {
      for (let cell = 0; cell < CELLS; cell++) {
        this.#toldFlushed[cell] = Math.max(this.#toldFlushed[cell]!, op.floor[cell]!);
      }
    }
    for (let cell = op.from; cell < op.from + op.count; cell++) {
      this.#told[cell] = Math.max(this.#told[cell]!, op.id);
    }
  }

  // ---- what the leader tells ---------------------------------------------------------------------

  answered(leader: Leader, op: ClientOp, errno: number, data: number[] | null): void {
    this.counts.answers++;
    this.note(`${leader.node.name}: answers ${describe(op)}: ${errno === 0 ? "ok" : errno}`);
    if (errno !== 0) return;
    const other = this.other(leader.node);
    if (op.kind === READ) {
      for (let index = 0; index < op.count; index++) {
        const cell = op.from + index;
        const value = data![index]!;
        const write = this.#writes[value];
        this.must(
          write !== undefined && cell >= write.from && cell < write.from + write.count,
          `cell ${cell} reads as ${value}, which was never written there`,
        );
        this.must(
          value >= op.floor[cell]!,
          `cell ${cell} reads as ${value}, older than ${op.floor[cell]}`,
        );
      }
      return;
    }
    if (op.kind === FLUSH) {
      let alone = false;
      for (let cell = 0; cell < CELLS; cell++) {
        const floor = op.floor[cell]!;
        const here = leader.node.disk.versions<number>(cell).every((value) => value >= floor);
        const there = other.disk.versions<number>(cell).every((value) => value >= floor);
        this.must(
          here || leader.core.stale,
          `FLUSH is acknowledged, but cell ${cell} is not stable here`,
        );
        this.must(
          there || !leader.core.stale || this.#peerFault,
          `a stale primary acknowledges FLUSH, but cell ${cell} is not stable at the peer`,
        );
        if (!there) alone = true;
        if (!here) this.entitled.delete(leader.node);
        this.#flushed[cell] = Math.max(this.#flushed[cell]!, floor);
      }
      const excused = this.mode === "async" && leader.core.connected;
      if (alone && !excused) this.#mustBeMarked(leader, describe(op));
      if (alone && this.#marked(leader.node)) this.entitled.delete(other);
      return;
    }
    let alone = false;
    for (let index = 0; index < op.count; index++) {
      const cell = op.from + index;
      const kept = !this.#peerFault || !leader.core.stale;
      if (kept) this.#view[cell] = Math.max(this.#view[cell]!, op.id);
      if (!this.#peerFault) this.#acked[cell] = Math.max(this.#acked[cell]!, op.id);
      if (leader.node.disk.cell(cell) < op.id) this.#mustBeOverPeer(leader, op, cell);
      if (!this.#holds(other, cell, op.id)) alone = true;
    }
    if (alone) {
      this.must(
        !leader.core.stale || this.#peerFault,
        `a stale primary acknowledges ${describe(op)} alone`,
      );
      const backlog = this.mode === "async" && leader.core.connected;
      // memsync relied on the peer's memory, and the peer's disk failed after that.
      const promised = other.received.has(op.id);
      if (!backlog && !promised) this.#mustBeMarked(leader, describe(op));
      if (!backlog || this.#marked(leader.node)) this.entitled.delete(other);
    }
  }

  /** Acknowledged on the peer's word alone: our own copy is known to lack it, whatever happens (S-1, S-7). */
  #mustBeOverPeer(leader: Leader, op: ClientOp, cell: number): void {
    const { node } = leader;
    const other = this.other(node);
    this.counts.masked++;
    this.entitled.delete(node);
    const what = `${describe(op)} is acknowledged without being written here`;
    this.must(leader.core.stale && this.states, what);
    this.must(other.disk.cell(cell) >= op.id || this.#peerFault, `${what} or there`);
    const told = node.disk
      .versions<Stored>(RECORD)
      .every((record) => record.state === "inconsistent");
    this.must(told || this.#marked(other), `${what}, and neither record says so`);
    this.must(hasBit(node, cell) || hasBit(other, cell), `${what}, and neither map says so`);
  }

  /** The peer has lost what it had promised, and the primary cannot know yet. */
  get #peerFault(): boolean {
    return this.#peerDied || this.#unheard > 0;
  }

  /** A FLUSH has failed at a secondary. Where it has the only whole copy, what it drops is gone. */
  flushFailed(node: Node, serving: boolean): void {
    const { leader } = this;
    // Not while the other copy is away or fails, too: then nobody has it, whatever is done.
    if (leader === null || leader.node.disk.broken !== SOUND) return;
    node.disk.dropSome();
    if (serving) this.#unheard++;
    if (!leader.core.stale) return;
    for (let cell = 0; cell < CELLS; cell++) {
      const flushed = this.#flushed[cell]!;
      this.#acked[cell] = flushed;
      this.#view[cell] = Math.min(this.#view[cell]!, flushed);
      // Not those of FLUSHes: they have to say so.
      for (const op of leader.client.values()) {
        if (op.kind === READ) op.floor[cell] = Math.min(op.floor[cell]!, flushed);
      }
    }
  }

  flushFailureHeard(): void {
    if (this.#unheard > 0) this.#unheard--;
  }

  #holds(node: Node, cell: number, value: number): boolean {
    return node.follower?.holds(cell, value) ?? node.disk.cell(cell) >= value;
  }

  #mustBeMarked(leader: Leader, what: string): void {
    if (this.#peerFault) return; // a promise that the peer broke; the link tells, and the mark follows
    this.entitled.delete(this.other(leader.node));
    this.must(this.#marked(leader.node), `${what} is acknowledged alone, without a stable mark`);
  }

  /** Will the other node learn, whatever happens, that this one went on alone? */
  #marked(node: Node): boolean {
    const other = this.other(node).disk.versions<Stored>(RECORD);
    return node.disk
      .versions<Stored>(RECORD)
      .every((own) => other.every((its) => own.localcnt > its.remotecnt));
  }

  mustBeCovered(node: Node, core: Primary, slot: number): void {
    const start = core.offset[slot]! / CELL;
    const end = start + core.length[slot]! / CELL;
    for (let cell = start; cell < end; cell++) {
      this.must(hasBit(node, cell), `cell ${cell} is written before its extent is marked on disk`);
    }
  }

  accepted(leader: Leader, source: "primary" | "secondary"): void {
    this.#peerDied = false;
    this.#unheard = 0;
    this.counts.resyncs++;
    const level = equal(leader.core.record, this.other(leader.node).disk.record);
    if (source === "secondary" && level) this.counts.kept++;
    leader.decide();
    const from = source === "primary" && !leader.core.stale ? leader.node : this.other(leader.node);
    let cell = this.#lacks(from);
    // What it lost with its power is still good at the primary, and comes from there.
    while (cell >= 0 && this.#heldBy(leader, cell)) cell = this.#lacks(from, cell + 1);
    this.must(
      cell < 0,
      `${from.name} is the source, but its cell ${cell} is ${cell < 0 ? 0 : from.disk.cell(cell)} where ` +
        `${cell < 0 ? 0 : this.#required(cell)} was acknowledged`,
    );
    if (this.#lacks(from) < 0) this.entitled.add(from);
    this.#keeper = null;
    for (let at = 0; at < CELLS; at++) {
      // What the peer, as the source, lost with its power before any FLUSH is gone.
      const seen = from === leader.node ? this.#view[at]! : 0;
      this.#lowerView(leader, at, Math.max(seen, this.#required(at)));
    }
  }

  linkLost(leader: Leader): void {
    const other = this.other(leader.node);
    this.#peerDied = false;
    this.#unheard = 0;
    for (let cell = 0; cell < CELLS; cell++) {
      if (!this.#holds(other, cell, this.#required(cell))) this.entitled.delete(other);
    }
  }

  refused(leader: Leader, reason: string, splitBrain: boolean): void {
    // Two that were primary before they ever met, and one of them had made up an id for both.
    const unmet = /different resources/.test(reason);
    this.must(splitBrain || unmet || reason === "not secondary", `refused: ${reason}`);
    if (!splitBrain && !unmet) return;
    this.counts.splitBrains++;
    this.must(!leader.core.stale, "split-brain with a primary that is not whole");
    // The operator keeps the primary's copy, and creates the other one anew.
    const other = this.other(leader.node);
    this.note(`split-brain: ${other.name} is created anew`);
    // An older attempt of the primary may have arrived later.
    if (other.follower !== null) this.#kill(other);
    other.disk.orphan();
    other.disk.wipe();
    other.held = null;
    other.cache = null;
    this.#keeper = null;
    this.#acked = [...this.#view];
    this.#flushed = this.#view.map((value, cell) =>
      Math.min(value, ...leader.node.disk.versions<number>(cell)),
    );
    this.entitled.clear();
    this.entitled.add(leader.node);
  }

  // ---- roles --------------------------------------------------------------------------------------

  #promote(node: Node): void {
    this.counts.promotions++;
    const { disk } = node;
    const last = this.#lastLeader;
    if (
      this.mode === "async" &&
      last !== null &&
      last !== node &&
      this.#lastDied &&
      !this.#marked(last)
    ) {
      // What async had not sent yet is gone: nothing promised it.
      for (let cell = 0; cell < CELLS; cell++) {
        this.#acked[cell] = Math.min(this.#acked[cell]!, disk.cell(cell));
        this.#flushed[cell] = Math.min(this.#flushed[cell]!, disk.cell(cell));
      }
    }
    const entitled = this.entitled.has(node);
    this.note(
      `${node.name}: primary${entitled ? "" : ", a bet"} ${words(disk.record)}, map ${disk.cell(MAP).toString(2)}`,
    );
    const cell = this.#lacks(node);
    this.must(
      !entitled || cell < 0,
      `${node.name} is promoted, but its cell ${cell} is ${cell < 0 ? 0 : disk.cell(cell)} where ` +
        `${cell < 0 ? 0 : this.#required(cell)} was acknowledged`,
    );
    if (entitled && this.#lastDied && last !== node) this.counts.failovers++;
    for (let at = 0; at < CELLS; at++) {
      this.#view[at] = entitled ? this.#required(at) : Math.min(this.#required(at), disk.cell(at));
    }
    // Its clients see it; but should it end with nothing acknowledged alone, nothing tells of it.
    this.disclaim(node);
    disk.broken = SOUND;
    node.role = "primary";
    if (this.arbiter?.record.has(node)) this.#mustHaveWhatWasTold(node);
    node.leader = new Leader(this, node);
    if (this.arbiter?.record.has(node) === false) this.counts.seeds++;
    this.arbiter?.promoted(node.leader);
    this.#lastLeader = node;
    this.#lastDied = false;
  }

  /** S-17: whom the arbiter has on record lacks nothing that a client has been told. */
  #mustHaveWhatWasTold(node: Node): void {
    for (let cell = 0; cell < CELLS; cell++) {
      const flushed = Math.min(this.#toldFlushed[cell]!, this.#flushed[cell]!);
      const told = Math.min(this.#told[cell]!, this.#required(cell));
      const owed = node.lossy ? flushed : Math.max(told, flushed);
      this.must(
        node.disk.cell(cell) >= owed,
        `the arbiter chooses ${node.name}, whose cell ${cell} is ${node.disk.cell(cell)} where ${owed} was answered`,
      );
    }
  }

  /** Who may become primary, the likeliest first. */
  #candidates(): Node[] {
    const fresh = this.nodes.every((node) => node.disk.record.resuid === 0n);
    const { arbiter } = this;
    // Where none of these can be, each having failed in its turn, an operator decides.
    const chosen = arbiter === null ? null : [...arbiter.record].filter((node) => node.promotable);
    const able = this.nodes.filter((node) => {
      const { record } = node.disk;
      if (!node.promotable) return false;
      if (chosen !== null && chosen.length > 0) return chosen.includes(node);
      if (fresh || this.entitled.has(node)) return true;
      // A component that has never been paired, or never got its first copy, is nobody's choice.
      return record.resuid !== 0n && !this.#neverWhole(node);
    });
    return able.sort((a, b) => Number(this.entitled.has(b)) - Number(this.entitled.has(a)));
  }

  #neverWhole(node: Node): boolean {
    return node.disk.record.state === "new" && this.#lacks(node) >= 0 && !this.entitled.has(node);
  }

  /** This node alone has what was acknowledged, and cannot say so any more: only what was flushed is safe. */
  disclaim(node: Node): void {
    if (this.#keeper !== node) return;
    this.#keeper = null;
    this.#acked = [...this.#flushed];
  }

  /** The worker of a node ends as if killed. */
  #kill(node: Node): void {
    this.disclaim(node);
    node.held = null;
    node.cache = null;
    const { leader, follower } = node;
    // Its daemon lives, or dies as well. Of a secondary's worker it knows what was lost with it.
    if (this.random.chance(0.5) || follower !== null) node.vouched = false;
    node.leader = null;
    node.follower = null;
    node.role = "down";
    node.disk.orphan();
    for (const wire of this.wires) {
      if (leader !== null && wire.leader === leader) wire.cut(this.random, "to-secondary");
      if (follower !== null && wire.follower === follower) wire.cut(this.random, "to-primary");
      if (wire.node === node && wire.follower === null) wire.cut(this.random, "to-primary");
    }
    if (leader !== null) {
      this.#forgetHeld(leader);
      this.#died(node);
    }
    if (follower !== null) {
      this.entitled.delete(node);
      node.lossy = true;
    }
    if (leader === null && this.leader?.phase === "up") this.#peerDied = true;
  }

  /** A primary has not ended in good order. */
  #died(node: Node): void {
    this.#lastDied = true;
    // async: what had not been sent is here only. Should the other node take over now, nobody
    // promised it; should this one come back first, it must see to it.
    const other = this.other(node);
    if (this.mode === "async" && this.#lacks(other) >= 0) this.entitled.delete(other);
  }

  #powerCut(node: Node): void {
    this.#kill(node);
    node.lossy = true;
    const other = this.other(node);
    const vouches = other.held !== null || other.follower?.vouches === true;
    node.disk.powerCut();
    node.vouched = false;
    const level = vouches && equal(node.disk.record, other.disk.record);
    for (let cell = 0; cell < CELLS; cell++) {
      if (this.#heldBy(other.leader, cell)) continue;
      const acked = this.#acked[cell]!;
      // What the other node holds, in its memory or its cache, is not lost yet (S-9).
      if (level && this.#holds(other, cell, acked)) {
        if (node.disk.cell(cell) < acked) this.#keeper = other;
      } else this.#acked[cell] = this.#flushed[cell]!;
    }
    if (this.#keeper !== null) this.entitled.delete(node);
    // async: what a FLUSH has promised is stable on the primary, and there only.
    const promised = this.mode !== "async" || node === this.#lastLeader;
    if (!promised && this.#lacks(node) >= 0) this.entitled.delete(node);
  }

  /** Has a stale primary that lives what was acknowledged here? Its peer's power may take the other copy. */
  #heldBy(leader: Leader | null, cell: number): boolean {
    if (leader === null || !leader.core.stale || leader.core.diskless) return false;
    // What is stale there, it learns from the peer.
    if (!leader.met) return false;
    if (leader.map.isStaleHere(cell * CELL, CELL)) return false;
    return leader.node.disk.cell(cell) >= this.#acked[cell]!;
  }

  /** A stale primary cannot read what it alone had: that is lost, and some FLUSH says so. */
  failedHere(leader: Leader, from: number, count: number): void {
    if (!leader.core.stale) return;
    const other = this.other(leader.node);
    const first = from - (from % EXTENT_CELLS);
    for (let cell = first; cell < from + count || cell % EXTENT_CELLS !== 0; cell++) {
      if (this.#holds(other, cell, this.#acked[cell]!)) continue;
      this.#acked[cell] = this.#flushed[cell]!;
      this.#lowerView(leader, cell, this.#flushed[cell]!);
    }
  }

  #lowerView(leader: Leader, cell: number, value: number): void {
    this.#view[cell] = value;
    for (const op of leader.client.values()) op.floor[cell] = Math.min(op.floor[cell]!, value);
  }

  /** A stale primary ends: what it alone had is nobody's any more. */
  #forgetHeld(leader: Leader): void {
    if (!leader.core.stale) return;
    const other = this.other(leader.node);
    for (let cell = 0; cell < CELLS; cell++) {
      if (!this.#holds(other, cell, this.#acked[cell]!)) this.#acked[cell] = this.#flushed[cell]!;
    }
  }

  // ---- one step ------------------------------------------------------------------------------------

  step(): void {
    const { random } = this;
    const actions: [weight: number, act: () => void][] = [];
    const leader = this.leader;
    for (const node of this.nodes) {
      const { ops } = node.disk;
      if (ops.length > 0) actions.push([3 + ops.length, () => this.#completeOne(node)]);
      if (node.role === "down" && this.#mayStart(node)) {
        actions.push([this.faults ? 0.3 : 5, () => this.#becomeSecondary(node)]);
      }
    }
    for (const wire of this.wires) {
      if (wire.toPrimary.length > 0) actions.push([5, () => this.#deliverToPrimary(wire)]);
      if (wire.toSecondary.length > 0 && this.#deliverable(wire)) {
        actions.push([5, () => this.#deliverToSecondary(wire)]);
      }
    }
    if (leader !== null) {
      if (leader.needsPump) actions.push([8, () => leader.pump()]);
      if (
        this.faults &&
        !leader.stopping &&
        leader.client.size < OUTSTANDING_MAX &&
        leader.core.room > 0
      ) {
        actions.push([3, () => this.#submit(leader)]);
      }
      // With a new disk, or the old one mended, an operator lets it take part again.
      if (leader.core.diskless && !leader.stopping) {
        actions.push([this.faults ? 0.03 : 5, () => this.#stop(leader)]);
      }
      if (leader.phase === "idle" && !leader.stopping) actions.push([1, () => leader.connect()]);
      if (this.faults) {
        actions.push([0.3, () => this.#tick(random.pick([200, 1000, 5000]))]);
        if (!leader.stopping) actions.push([0.05, () => this.#stop(leader)]);
        actions.push([0.1, () => leader.core.openGate(leader)]);
      }
    } else {
      const candidates = this.#candidates();
      if (candidates.length > 0) {
        // A failover more often than not, now and then a bet.
        const heirs = candidates.filter(
          (node) => this.entitled.has(node) && node !== this.#lastLeader,
        );
        // Or the one that comes back without its cache.
        const back = this.#keeper === null ? [] : candidates.filter((at) => at !== this.#keeper);
        const others = heirs.length > 0 && random.chance(0.7) ? heirs : candidates;
        const choice = back.length > 0 && random.chance(0.7) ? back : others;
        const node = this.faults ? random.pick(choice) : candidates[0]!;
        actions.push([this.faults ? 0.5 : 5, () => this.#wantPrimary(node)]);
      }
    }
    if (this.arbiter !== null) actions.push(...this.arbiter.actions(random));
    if (this.faults) actions.push([this.faultRate * 20, () => this.#fault()]);
    // Time passes by itself only when nothing else can happen.
    if (actions.length === 0) this.#tick(1000);
    else this.#choose(actions);
    this.#afterwards();
  }

  #choose(actions: readonly [weight: number, act: () => void][]): void {
    let at = this.random.next() * actions.reduce((sum, [weight]) => sum + weight, 0);
    for (const [weight, act] of actions) {
      at -= weight;
      if (at < 0) {
        act();
        return;
      }
    }
    this.#tick(1000);
  }

  #completeOne(node: Node): void {
    const op = this.random.pick(node.disk.ops);
    const unlucky = this.faults && this.random.chance(this.faultRate / 3);
    const errno = op.fallible && (unlucky || node.disk.fails(op)) ? EIO : 0;
    this.#complete(node, op, errno);
  }

  #complete(node: Node, op: Op, errno: number): void {
    this.note(`${node.name}: ${op.what} ${errno === 0 ? "done" : "fails"}`);
    if (node.leader !== null) node.leader.needsPump = true;
    node.disk.complete(op, errno);
  }

  #deliverToPrimary(wire: Wire): void {
    const message = wire.toPrimary.shift()!;
    if (wire.leader.node.leader !== wire.leader || wire.leader.wire !== wire) return;
    this.note(`${wire.leader.node.name}: hears ${spell(message)}`);
    wire.leader.needsPump = true;
    wire.leader.hear(message);
  }

  #deliverable(wire: Wire): boolean {
    const message = wire.toSecondary[0]!;
    if (message.kind !== "hello") return wire.follower === null || wire.follower.canTake;
    const { node } = wire;
    if (node.role === "down") return false;
    if (node.role !== "secondary" || node.follower === null) return true;
    // A new primary connection ends the old one, which first does what it has received.
    const old = node.follower.wire;
    if (old.toSecondary.at(-1)?.kind !== "eof" && node.follower.phase !== "draining") {
      old.cut(this.random, "both");
    }
    return false;
  }

  #deliverToSecondary(wire: Wire): void {
    const message = wire.toSecondary.shift()!;
    const { node, follower } = wire;
    if (message.kind === "hello") {
      if (node.role === "secondary") {
        wire.follower = new Follower(this, node, wire, message);
      } else {
        wire.tellPrimary({ kind: "refused", reason: "not secondary", splitBrain: false });
      }
      return;
    }
    if (follower === null || node.follower !== follower) return;
    if (message.kind !== "keepalive") this.note(`${node.name}: hears ${spell(message)}`);
    follower.hear(message);
  }

  #submit(leader: Leader): void {
    const { random } = this;
    const kind = random.pick([READ, READ, WRITE, WRITE, WRITE, WRITE, ZERO, FLUSH] as const);
    const limited = leader.core.connected && !leader.core.peerZeroes;
    const most = kind === ZERO && !limited ? 6 : 2;
    const count = kind === FLUSH ? 0 : 1 + random.below(most);
    const from = kind === FLUSH ? 0 : random.below(CELLS - count + 1);
    this.#submitAt(leader, kind, from, count);
  }

  #submitAt(leader: Leader, kind: Kind, from: number, count: number): void {
    let id = 0;
    if (kind === WRITE || kind === ZERO) id = this.#writes.push({ from, count }) - 1;
    const op: ClientOp = { kind, from, count, id, floor: [...this.#view] };
    this.note(`${leader.node.name}: ${describe(op)}`);
    leader.needsPump = true;
    leader.submit(op);
  }

  #tick(ms: number): void {
    this.nowMs += ms;
    const leader = this.leader;
    if (leader === null) return;
    leader.needsPump = true;
    leader.core.onTick(this.nowMs, leader);
  }

  #stop(leader: Leader): void {
    this.note(`${leader.node.name}: stop`);
    leader.stopping = true;
    leader.needsPump = true;
    leader.core.stop(leader);
  }

  #mayStart(node: Node): boolean {
    return this.leader !== null || this.faults || this.other(node).role !== "down";
  }

  #becomeSecondary(node: Node): void {
    this.note(`${node.name}: secondary`);
    node.disk.broken = SOUND;
    node.role = "secondary";
  }

  #wantPrimary(node: Node): void {
    const { follower } = node;
    if (follower !== null) {
      // Its worker stops first, which takes until everything received has been done.
      if (follower.phase === "starting") this.#kill(node);
      else if (follower.phase === "serving" && follower.wire.toSecondary.at(-1)?.kind !== "eof") {
        follower.wire.cut(this.random, "both");
      }
      return;
    }
    this.#promote(node);
  }

  #fault(): void {
    this.counts.faults++;
    const { random } = this;
    const node = random.pick(this.nodes);
    switch (random.chance(this.diskFaultRate) ? 4 : random.below(4)) {
      case 4: {
        const kind = random.below(4);
        const broken = {
          reads: kind === 0 || kind === 3,
          writes: kind === 1 || kind === 3,
          flushes: kind === 2 || kind === 3,
        };
        this.note(`${node.name}: the disk breaks: ${JSON.stringify(broken)}`);
        node.disk.broken = broken;
        return;
      }
      case 0:
      case 1: {
        const wire = this.leader?.wire ?? null;
        if (wire === null) return;
        this.note("the link is cut");
        wire.cut(random, "both");
        return;
      }
      case 2:
        if (node.role === "down") return;
        this.note(`${node.name}: killed`);
        this.#kill(node);
        return;
      default:
        this.note(`${node.name}: power cut`);
        this.#powerCut(node);
    }
  }

  #afterwards(): void {
    this.wires = this.wires.filter(
      (wire) =>
        wire.toPrimary.length + wire.toSecondary.length > 0 ||
        wire.leader.wire === wire ||
        wire.node.follower === wire.follower,
    );
    for (const node of this.nodes) {
      const { leader } = node;
      if (leader === null) continue;
      if (leader.needsPump && this.random.chance(0.7)) leader.pump();
      if (leader.done) {
        leader.finishRecord();
        this.#forgetHeld(leader);
        node.leader = null;
        node.role = "down";
        node.disk.orphan();
        if (leader.wire !== null) leader.wire.cut(this.random, "to-secondary");
        if (leader.failed) this.#died(node);
        continue;
      }
      if (!leader.decided && !leader.core.fresh) {
        // Without having heard the other node, it serves what it has.
        leader.decide();
        if (this.#keeper !== node) this.disclaim(this.other(node));
      }
      leader.map.assertInvariants();
      const { core } = leader;
      if (core.connected && !core.resyncing && core.map.resyncCount === 0 && !this.#peerFault) {
        for (const each of this.nodes) {
          if (this.#lacks(each) >= 0) continue;
          this.entitled.add(each);
          each.lossy = false;
        }
      }
    }
    this.#checkCoverage();
  }

  /** Whatever may differ between the nodes, now or after power cuts, is marked on a disk. */
  #checkCoverage(): void {
    const [a, b] = this.nodes;
    if (isUnpaired(a) || isUnpaired(b)) return;
    for (let cell = 0; cell < CELLS; cell++) {
      const value = a.disk.cell(cell);
      if (a.disk.isSurely(cell, value) && b.disk.isSurely(cell, value)) continue;
      if (hasBit(a, cell) || hasBit(b, cell)) continue;
      throw new Violation(
        `cell ${cell} may be ${[...a.disk.versions(cell)]} on A and ${[...b.disk.versions(cell)]} ` +
          "on B, and neither map says so",
      );
    }
  }

  // ---- a whole run ----------------------------------------------------------------------------------

  run(steps: number): void {
    for (let index = 0; index < steps; index++) this.step();
    this.faults = false;
    for (const node of this.nodes) node.disk.broken = SOUND;
    this.note("---- no more faults");
    // Whatever was under way must end, and the nodes become equal, in bounded time.
    for (let index = 0; index < 6000; index++) {
      if (this.#converged()) {
        this.#checkEnd();
        return;
      }
      this.step();
    }
    throw new Violation(`the nodes do not converge: ${this.#why()}`);
  }

  #converged(): boolean {
    return this.#why() === "";
  }

  #why(): string {
    const leader = this.leader;
    if (leader === null) return "no primary";
    if (leader.held.length > 0) return `${leader.held.length} answers are held`;
    if (leader.client.size > 0)
      return `${leader.client.size} requests are not answered: ${[...leader.client.values()].map(describe)}`;
    if (!leader.core.connected) return "not connected";
    if (leader.core.diskless) return "one node has no disk";
    // Perhaps only nobody has told it yet.
    const { toPrimary, toSecondary } = leader.wire!;
    if (toPrimary.length + toSecondary.length > 0) return "messages are on their way";
    if (leader.core.resyncing) return "still synchronizing";
    if (leader.map.dirtyCount > 0) return `${leader.map.dirtyCount} extents are dirty`;
    if (leader.core.recordPending) return "a record is being written";
    return "";
  }

  #checkEnd(): void {
    const [a, b] = this.nodes;
    for (let cell = 0; cell < CELLS; cell++) {
      this.must(
        a.disk.cell(cell) === b.disk.cell(cell),
        `at the end cell ${cell} is ${a.disk.cell(cell)} on A and ${b.disk.cell(cell)} on B`,
      );
      this.must(
        a.disk.cell(cell) >= this.#required(cell),
        `at the end cell ${cell} is ${a.disk.cell(cell)} where ${this.#required(cell)} was acknowledged`,
      );
    }
  }
}

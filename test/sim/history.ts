// SPDX-License-Identifier: BSD-2-Clause
/**
 * What was promised to the application, cell by cell, and what each node's copy therefore owes.
 *
 * Every submission and every answer has a time of its own, 1, 2, 3, … A write is over when it was answered,
 * or when the worker that had accepted it is gone and its disk at rest. What a cell holds is told by the
 * write that filled it, and is too old for a floor f if that write was over before f:
 *
 *   w1 ├────┤            w2 was submitted after w1 had been answered. Once w2 is answered, the floor of its
 *   w2         ├─────┤   cells is its start: w1 is too old now, whatever overlaps w2 in time is not.
 *
 * Zeroes do not say who wrote them: they count as the latest zeroes they could be.
 *
 * A copy has four floors per cell:
 *   must     what it shows must not be older, as long as its machine has power
 *   stable   what a power cut may leave must not be older
 *   alone    acknowledged here while the other node had no part in it: never to be overwritten from there
 *
 * A primary that is the target of a synchronization, or whose disk fails, shows what its peer has: its
 * clients are owed `promised`, and `view` with what they have read on top of it.
 */

import { assert } from "../../src/base/assert.ts";
import type { Metadata } from "../../src/metadata/block.ts";
import type { Primary } from "../../src/replication/primary.ts";
import { type Mode, SLOT_COUNT } from "../../src/replication/requests.ts";
import type { Machine, SimWorker } from "./machine.ts";
import { cellContent } from "./pattern.ts";
import { Violation } from "./violation.ts";

export type OpKind = "read" | "write" | "zero" | "flush";

export interface Op {
  /** Also what a write puts into cells. */
  readonly id: number;
  readonly kind: OpKind;
  readonly fua: boolean;
  readonly copy: Copy;
  readonly worker: SimWorker;
  readonly from: number; // cells
  readonly count: number;
  readonly start: number;
  /** When it was over; infinite while it is not. */
  end: number;
  /** READ: the floors of its cells. FLUSH: those of all cells. As they were when it was submitted. */
  floor: Int32Array;
  /** The connection that was there when it was submitted; 0 for none. */
  readonly epoch: number;
  /** Whose word it was acknowledged on (memsync), or null. */
  receiver: SimWorker | null;
  /** READ: what an earlier read saw last in each cell, or −1; nobody has changed it since, for all we know. */
  seen: Int32Array;
}

/** One node's copy, and what it owes. */
export class Copy {
  readonly machine: Machine;
  readonly must: Int32Array;
  readonly stable: Int32Array;
  readonly alone: Int32Array;
  readonly aloneStable: Int32Array;
  /** Acknowledged to the clients of this primary's life, wherever it lies. */
  readonly promised: Int32Array;
  readonly view: Int32Array;
  readonly seenValue: Int32Array;
  /** Per cell, up to which write the other node may lack something although it seems to have it; or 0. */
  readonly doubtful: Int32Array;
  /** Created anew, and has met nobody since. */
  anew = false;
  /** Cells that only the full copy mends which is under way. */
  readonly spoilt: Set<number> = new Set();
  /** async: acknowledged here as primary, on its way to the other node. */
  backlog: Op[] = [];
  /** memsync: the other node's worker said that it had received them. */
  received: Op[] = [];
  /**
   * The other node had a fault that this one, as its primary, has not noticed: its worker is gone, which the
   * end of the connection tells, or its disk failed, which the answers to what is on its way tell.
   */
  excuse: "worker" | "disk" | null = null;
  /** The last request that its disk's failure may concern. */
  excusedUpTo = 0;
  /** Acknowledged with that excuse. */
  excused: Op[] = [];
  /** The primary's worker that has the disk open. */
  leader: SimWorker | null = null;
  connected = false;
  /** Serves from the other node. */
  diskless = false;
  /** What it told last, and whom: that worker may store it yet, whatever has become of this one. */
  told: { readonly worker: SimWorker; readonly localcnt: bigint } | null = null;
  /** What its clients were promised is gone with the other node's cache, and no FLUSH has said so yet. */
  untold: string | null = null;
  /** Some of it is on this copy, which may be overwritten from there: then a FLUSH must say so. */
  atRisk = false;
  /**
   * This copy's primary died in step with the other node: what it lost with its power, if it did, that one's
   * daemon knows to be there (S-9).
   */
  keptBy: object | null = null;
  /** The hastd that the last connection of this primary was to. */
  acceptedBy: object | null = null;
  /**
   * The operator gives up what only this copy has: the counters that it was asked under. Once there are others on
   * its disk, that has been done, whoever has heard of it.
   */
  givingUp: ReadonlySet<string> | null = null;
  /** Why the rules forbid that what its primary found on the disk is promoted, or null; undefined until it has. */
  unfit: string | null | undefined = null;
  /** When this primary's worker, or the last, opened the disk. */
  since = 0;
  /** Which connection as primary this is, or was the last. */
  epoch = 0;
  inStep = false;
  /** Clients have seen it as it is. */
  serving = false;
  /** When a FLUSH or a FUA last failed. */
  toldAtMs = -1;
  /** Has been primary since the two were last in step. */
  led = false;

  constructor(machine: Machine) {
    const { cellCount } = machine.shape;
    this.machine = machine;
    this.must = new Int32Array(cellCount);
    this.stable = new Int32Array(cellCount);
    this.alone = new Int32Array(cellCount);
    this.aloneStable = new Int32Array(cellCount);
    this.promised = new Int32Array(cellCount);
    this.doubtful = new Int32Array(cellCount);
    this.view = new Int32Array(cellCount);
    this.seenValue = new Int32Array(cellCount).fill(-1);
  }

  get name(): string {
    return this.machine.name;
  }

  /** How its primary replicates, if there is one. */
  get mode(): Mode | null {
    return this.machine.primary?.mode ?? null;
  }

  get core(): Primary | null {
    return this.machine.primary?.primaryEngine?.core ?? null;
  }

  forget(): void {
    this.told = null;
    for (const floors of [this.must, this.stable, this.alone, this.aloneStable]) floors.fill(0);
    this.promised.fill(0);
    this.view.fill(0);
    this.seenValue.fill(-1);
    this.backlog = [];
    this.received = [];
    this.excused = [];
    this.givingUp = null;
    this.spoilt.clear();
    this.led = false;
  }
}

export class Counts {
  reads = 0;
  writes = 0;
  zeroes = 0;
  flushes = 0;
  errors = 0;
  joint = 0;
  alone = 0;
  backlog = 0;
  received = 0;
  excused = 0;
  overPeer = 0;
  diskless = 0;
  promotions = 0;
  refusals = 0;
  forced = 0;
  handshakes = 0;
  fromSecondary = 0;
  inSteps = 0;
  splitBrains = 0;
  resolved = 0;
  recreated = 0;
  spoilt = 0;
  outdated = 0;
  /** Promotions by force because nothing else was left. */
  lastResorts = 0;
  /** Extents that a primary has cleared on its disk while faults happened. */
  cleared = 0;
}

export class History {
  readonly copies: readonly [Copy, Copy];
  readonly counts: Counts = new Counts();
  readonly extensions: boolean;
  readonly #cellCount: number;
  readonly #cellSize: number;
  #time = 1;
  readonly #ops: (Op | null)[] = [null];
  readonly #open: Set<Op> = new Set();
  readonly #openZeroes: Int32Array;
  readonly #zeroEnd: Int32Array;
  readonly #markers: [Marker, Marker];

  /** @param extensions or each node takes the other for FreeBSD's */
  constructor(machines: readonly [Machine, Machine], extensions: boolean) {
    this.extensions = extensions;
    this.copies = [new Copy(machines[0]), new Copy(machines[1])];
    this.#cellCount = machines[0].shape.cellCount;
    this.#cellSize = machines[0].shape.sectorSize;
    this.#openZeroes = new Int32Array(this.#cellCount);
    this.#zeroEnd = new Int32Array(this.#cellCount);
    this.#markers = [new Marker(machines[0]), new Marker(machines[1])];
  }

  copyOf(machine: Machine): Copy {
    return this.copies[0].machine === machine ? this.copies[0] : this.copies[1];
  }

  other(copy: Copy): Copy {
    return copy === this.copies[0] ? this.copies[1] : this.copies[0];
  }

  #marker(copy: Copy): Marker {
    return copy === this.copies[0] ? this.#markers[0] : this.#markers[1];
  }

  // ---- contents -------------------------------------------------------------------------------

  #endOf(cell: number, value: number): number {
    if (value === 0) {
      return this.#openZeroes[cell]! > 0 ? Number.POSITIVE_INFINITY : this.#zeroEnd[cell]!;
    }
    const op = this.#ops[value];
    if (op == null || cell < op.from || cell >= op.from + op.count) {
      throw new Violation(`cell ${cell} holds ${value}, which was never written there`);
    }
    return op.end;
  }

  #holds(copy: Copy, cell: number, floor: number): boolean {
    return floor === 0 || this.#endOf(cell, copy.machine.medium.cells[cell]!) >= floor;
  }

  #holdsStably(copy: Copy, cell: number, floor: number): boolean {
    const { medium } = copy.machine;
    if (floor === 0) return true;
    if (medium.isStable(cell)) return this.#holds(copy, cell, floor);
    return medium.cellVersions(cell).every((value) => this.#endOf(cell, value) >= floor);
  }

  #holdsOp(copy: Copy, op: Op): boolean {
    for (let cell = op.from; cell < op.from + op.count; cell++) {
      if (!this.#holds(copy, cell, op.start)) return false;
    }
    return true;
  }

  /**
   * The same for certain. Zeroes could be older ones; and an earlier write that has no answer yet is no
   * older than this one, but on its way to the other node it comes before.
   */
  #surelyHolds(copy: Copy, cell: number, floor: number): boolean {
    const op = this.#ops[copy.machine.medium.cells[cell]!];
    return floor === 0 || (op != null && op.start >= floor);
  }

  #surelyHoldsOp(copy: Copy, op: Op): boolean {
    for (let cell = op.from; cell < op.from + op.count; cell++) {
      if (!this.#surelyHolds(copy, cell, op.start)) return false;
    }
    return true;
  }

  #describe(copy: Copy, cell: number): string {
    const { medium } = copy.machine;
    const versions = medium.cellVersions(cell);
    return versions.length === 1
      ? `${versions[0]}`
      : `${medium.cells[cell]} (of ${versions.join(", ")})`;
  }

  /** The writes whose start is this floor, for messages. */
  #floorText(floor: number): string {
    const op = this.#ops.find((each) => each?.start === floor);
    return op == null ? `floor ${floor}` : `write ${op.id}`;
  }

  // ---- the application ------------------------------------------------------------------------

  submit(kind: OpKind, fua: boolean, worker: SimWorker, from: number, count: number): Op {
    const copy = this.copyOf(worker.host);
    const op: Op = {
      id: this.#ops.length,
      kind,
      fua,
      copy,
      worker,
      from,
      count,
      start: ++this.#time,
      end: Number.POSITIVE_INFINITY,
      floor: NOTHING,
      epoch: copy.connected ? copy.epoch : 0,
      receiver: null,
      seen: NOTHING,
    };
    if (kind === "read") {
      op.floor = copy.view.slice(from, from + count);
      op.seen = copy.seenValue.slice(from, from + count);
    }
    if (kind === "flush") op.floor = copy.promised.slice();
    this.#ops.push(op);
    this.#open.add(op);
    if (kind === "zero") {
      for (let cell = from; cell < from + count; cell++) this.#openZeroes[cell]! += 1;
    }
    return op;
  }

  #finish(op: Op): void {
    op.end = ++this.#time;
    this.#open.delete(op);
    if (op.kind !== "zero") return;
    for (let cell = op.from; cell < op.from + op.count; cell++) {
      this.#openZeroes[cell]! -= 1;
      this.#zeroEnd[cell] = op.end;
    }
  }

  /** The worker is gone and its disk at rest: what it had accepted takes effect no more. */
  drained(worker: SimWorker): void {
    for (const op of [...this.#open]) if (op.worker === worker) this.#finish(op);
  }

  answered(op: Op, error: number, data: Uint8Array, nowMs: number): void {
    this.serves(op.worker);
    if (error !== 0) {
      this.counts.errors++;
      this.#finish(op);
      if ((op.kind === "write" || op.kind === "zero") && op.copy.core?.stale) this.#unsee(op);
      if (op.kind === "flush" || op.fua) this.#toldOfLoss(op.copy, nowMs);
      return;
    }
    switch (op.kind) {
      case "read":
        this.counts.reads++;
        this.#read(op, data);
        return;
      case "flush":
        this.counts.flushes++;
        this.#finish(op);
        this.#flushed(op, 0, this.#cellCount, op.floor);
        return;
      default:
        if (op.kind === "write") this.counts.writes++;
        else this.counts.zeroes++;
        this.#finish(op);
        this.#written(op);
        // One batch of answers reaches different clients in any order.
        if (nowMs === op.copy.toldAtMs) this.#toldOfLoss(op.copy, nowMs);
        if (op.fua) {
          const floor = new Int32Array(this.#cellCount);
          floor.fill(op.start, op.from, op.from + op.count);
          this.#flushed(op, op.from, op.from + op.count, floor);
        }
    }
  }

  /**
   * A primary whose own copy is not whole has failed this write, since the copy that counts did not take it. Who
   * read it here meanwhile, where that range had been copied already, finds there what it was before.
   */
  #unsee(failed: Op): void {
    const { copy, from } = failed;
    const value = failed.kind === "zero" ? 0 : failed.id;
    for (let cell = from; cell < from + failed.count; cell++) {
      const before = copy.promised[cell]!;
      for (const { kind, copy: its, from: first, floor, seen } of this.#open) {
        const index = cell - first;
        if (kind === "read" && its === copy && seen[index] === value) floor[index] = before;
      }
      if (copy.seenValue[cell] !== value) continue;
      copy.view[cell] = before;
      copy.seenValue[cell] = -1;
    }
  }

  #read(op: Op, data: Uint8Array): void {
    const { copy, from, count } = op;
    this.#finish(op);
    for (let index = 0; index < count; index++) {
      const cell = from + index;
      const value = cellContent(data, index * this.#cellSize, cell, this.#cellSize);
      if (value < 0) throw new Violation(`${copy.name}: cell ${cell} reads as bytes nobody wrote`);
      const floor = op.floor[index]!;
      if (this.#endOf(cell, value) < floor && value !== op.seen[index]) {
        throw new Violation(
          `${copy.name}: cell ${cell} reads as ${value}, which is older than ${this.#floorText(floor)}; ` +
            `the disks hold ${this.copies.map((each) => `${each.name} ${this.#describe(each, cell)}`).join(", ")}`,
        );
      }
      if (op.start < copy.view[cell]!) continue; // something newer is known
      copy.view[cell] = op.start;
      copy.seenValue[cell] = value;
    }
  }

  #written(op: Op): void {
    const { copy } = op;
    const other = this.other(copy);
    const { core } = copy;
    let lacking = -1;
    for (let cell = op.from; cell < op.from + op.count; cell++) {
      copy.promised[cell] = Math.max(copy.promised[cell]!, op.start);
      if (op.start > copy.view[cell]!) {
        copy.view[cell] = op.start;
        copy.seenValue[cell] = -1;
      }
      if (this.#holds(copy, cell, op.start)) {
        copy.must[cell] = Math.max(copy.must[cell]!, op.start);
      } else {
        lacking = cell;
      }
    }
    if (lacking >= 0) {
      this.#writtenOverPeer(op, lacking);
      return;
    }
    if (this.#holdsOp(other, op)) {
      this.counts.joint++;
      const promised = copy.mode === "fullsync" && (core?.connected ?? false);
      if (promised || this.#surelyHoldsOp(other, op)) this.#owe(other, op);
      else this.#doubt(copy, op);
      return;
    }
    if (core?.stale && !copy.excuse) {
      // A piece that both had written when the peer lost its power is good here, and on its way back there.
      for (let cell = op.from; cell < op.from + op.count; cell++) {
        if (this.#holds(other, cell, op.start)) continue;
        if (core.map.isGoodHere(cell * this.#cellSize, this.#cellSize)) continue;
        if (this.#lostPiece(op, cell)) continue;
        throw new Violation(
          `${copy.name}: ${describe(op)} is acknowledged alone by a primary whose copy is not whole`,
        );
      }
      this.counts.excused++;
      copy.excused.push(op);
      return;
    }
    const marked = this.#isMarked(copy);
    if (marked) {
      for (let cell = op.from; cell < op.from + op.count; cell++) {
        copy.alone[cell] = Math.max(copy.alone[cell]!, op.start);
      }
    }
    // Of one batch: it may have been answered before the connection's end was heard, which is followed by the mark.
    const connected = core?.connected || copy.connected;
    const received = marked ? core?.connected : connected;
    if (connected && copy.mode === "async") {
      this.counts.backlog++;
      copy.backlog.push(op);
    } else if (marked && op.epoch !== copy.epoch) {
      // Before this connection was there; or on it, by the other node's word.
      this.counts.alone++;
      if (core?.connected && copy.mode === "memsync") this.#doubt(copy, op);
    } else if (received && copy.mode === "memsync" && !copy.excuse) {
      this.counts.received++;
      op.receiver = other.machine.lockedBy;
      copy.received.push(op);
    } else if (marked) {
      this.counts.alone++;
    } else if (copy.excuse) {
      this.counts.excused++;
      copy.excused.push(op);
    } else {
      throw new Violation(
        `${copy.name}: ${describe(op)} is acknowledged without ${other.name} and without a stable mark ` +
          `(counts ${this.#counters()})`,
      );
    }
  }

  /** This node's disk has failed the write: the other node's copy is the only one (S-1, S-7). */
  #writtenOverPeer(op: Op, lacking: number): void {
    const { copy } = op;
    const other = this.other(copy);
    this.counts.overPeer++;
    if (!this.#holdsOp(other, op)) {
      if (copy.excuse && copy.core?.stale) return; // it had it
      if (this.#lostPieces(op)) return;
      throw new Violation(
        `${copy.name}: ${describe(op)} is acknowledged, but cell ${lacking} here is ` +
          `${this.#describe(copy, lacking)}, and ${other.name} lacks it, too`,
      );
    }
    if (!this.#isStaleOnRecord(copy)) {
      throw new Violation(
        `${copy.name}: ${describe(op)} is acknowledged, but cell ${lacking} here is ` +
          `${this.#describe(copy, lacking)}, and no record says so (counts ${this.#counters()})`,
      );
    }
    this.#owe(other, op);
    for (let cell = op.from; cell < op.from + op.count; cell++) {
      other.alone[cell] = Math.max(other.alone[cell]!, op.start);
    }
  }

  /** Is what the other node, whose copy was the only one, lacks of this write lost from before it was there? */
  #lostPieces(op: Op): boolean {
    const other = this.other(op.copy);
    for (let cell = op.from; cell < op.from + op.count; cell++) {
      if (!this.#holds(other, cell, op.start) && !this.#lostPiece(op, cell)) return false;
    }
    return true;
  }

  /** A piece that was done on an earlier connection is lost with the other node's cache: a FLUSH is to say so. */
  #lostPiece(op: Op, cell: number): boolean {
    const { copy } = op;
    if (!copy.core?.stale || op.epoch === copy.epoch) return false;
    copy.untold ??= `cell ${cell} of ${describe(op)}`;
    const floor = this.other(copy).must[cell]!;
    copy.must[cell] = Math.min(copy.must[cell]!, floor);
    copy.promised[cell] = copy.view[cell] = floor;
    copy.seenValue[cell] = -1;
    return true;
  }

  /** The other node has this write, or seems to, but it is perhaps still on its way. */
  #doubt(copy: Copy, op: Op): void {
    for (let cell = op.from; cell < op.from + op.count; cell++) {
      copy.doubtful[cell] = Math.max(copy.doubtful[cell]!, op.start);
    }
  }

  /** The copy has this write: from now on it owes it. */
  #owe(copy: Copy, op: Op): void {
    for (let cell = op.from; cell < op.from + op.count; cell++) {
      copy.must[cell] = Math.max(copy.must[cell]!, op.start);
    }
  }

  #flushed(op: Op, from: number, to: number, floor: Int32Array): void {
    const { copy } = op;
    if (copy.untold !== null) {
      throw new Violation(
        `${copy.name}: ${describe(op)} is acknowledged, and no FLUSH has said that ` +
          `${this.other(copy).name} had lost what was only there: ${copy.untold}`,
      );
    }
    const other = this.other(copy);
    const stale = copy.core?.stale ?? false;
    const connected = copy.core?.connected ?? false;
    // With both nodes, as the mode wants it.
    const promised = connected && copy.mode !== "async" && !copy.excuse;
    let alone = -1;
    for (let cell = from; cell < to; cell++) {
      const wanted = floor[cell]!;
      if (wanted <= copy.stable[cell]! && wanted <= other.stable[cell]!) continue;
      if (this.#holdsStably(copy, cell, wanted)) {
        copy.stable[cell] = Math.max(copy.stable[cell]!, wanted);
      } else if (!stale) {
        throw new Violation(
          `${copy.name}: ${describe(op)} is acknowledged, but cell ${cell} here may become ` +
            `${this.#describe(copy, cell)}, older than ${this.#floorText(wanted)}`,
        );
      }
      if (this.#holdsStably(other, cell, wanted)) {
        if (stale && !this.#holdsStably(copy, cell, wanted)) {
          other.alone[cell] = Math.max(other.alone[cell]!, wanted);
          other.aloneStable[cell] = Math.max(other.aloneStable[cell]!, wanted);
        }
        const sure = promised || this.#surelyHolds(other, cell, wanted);
        if (sure) other.stable[cell] = Math.max(other.stable[cell]!, wanted);
        if (promised && wanted >= copy.doubtful[cell]!) copy.doubtful[cell] = 0;
      } else if (!other.spoilt.has(cell)) {
        alone = cell;
      }
    }
    if (alone < 0) return;
    if (stale && !copy.excuse) {
      throw new Violation(
        `${copy.name}: ${describe(op)} is acknowledged by a primary whose copy is not whole, but cell ` +
          `${alone} is not stable on ${other.name}`,
      );
    }
    if (this.#isMarked(copy)) {
      for (let cell = from; cell < to; cell++) {
        const wanted = floor[cell]!;
        if (wanted === 0 || this.#holdsStably(other, cell, wanted)) continue;
        copy.alone[cell] = Math.max(copy.alone[cell]!, wanted);
        copy.aloneStable[cell] = Math.max(copy.aloneStable[cell]!, wanted);
      }
      return;
    }
    // Its own promotion is refused until it has met this one.
    if (other.anew) return;
    // As in #written(): of one batch.
    if (copy.excuse || (copy.mode === "async" && (connected || copy.connected))) return;
    throw new Violation(
      `${copy.name}: ${describe(op)} is acknowledged alone and without a stable mark: cell ${alone} on ` +
        `${other.name} may become ${this.#describe(other, alone)}, older than ` +
        `${this.#floorText(floor[alone]!)} (counts ${this.#counters()})`,
    );
  }

  // ---- the alone mark -------------------------------------------------------------------------

  /** Will the other node learn, whatever happens now, that this one went on alone? */
  #isMarked(copy: Copy): boolean {
    const told = this.#told(copy);
    const others = this.#marker(this.other(copy)).records;
    // Whatever a power cut leaves of either.
    return this.#marker(copy).records.every((own) =>
      others.every((other) => {
        if (own.localcnt > other.remotecnt && own.localcnt > told) return true;
        // Where the counters contradict each other, as with a copy created anew and never completed, the two
        // refuse each other. So do nodes of different resources, and one that took writes before it ever met
        // a peer.
        if (own.localcnt === 0n) return false;
        return own.localcnt < other.remotecnt || own.resuid !== other.resuid;
      }),
    );
  }

  /** The count that the other node may be about to store: a mark with it is spent. */
  #told(copy: Copy): bigint {
    const { lockedBy } = this.other(copy).machine;
    const telling = copy.core?.telling ?? null;
    if (lockedBy === null) return 0n;
    if (telling !== null) copy.told = { worker: lockedBy, localcnt: telling };
    return copy.told?.worker === lockedBy ? copy.told.localcnt : 0n;
  }

  /** Is it certain, whatever happens now, that this copy is known to lack something? */
  #isStaleOnRecord(copy: Copy): boolean {
    const others = this.#marker(this.other(copy)).records;
    return this.#marker(copy).records.every(
      (own) =>
        own.state === "inconsistent" || others.every((other) => other.localcnt > own.remotecnt),
    );
  }

  #counters(): string {
    return this.#markers.map((marker) => marker.toString()).join(", ");
  }

  // ---- nodes ----------------------------------------------------------------------------------

  /** A primary has opened its disk. */
  promoted(copy: Copy, worker: SimWorker): void {
    this.other(copy).keptBy = null;
    copy.leader = worker;
    copy.unfit = undefined;
    copy.since = ++this.#time;
    this.counts.promotions++;
    this.#mustHold(copy, copy.must, "is promoted, but");
    copy.promised.set(copy.must);
    copy.view.set(copy.must);
    copy.seenValue.fill(-1);
    copy.doubtful.fill(0);
    copy.connected = false;
    copy.diskless = false;
    copy.serving = false;
    copy.untold = null;
    copy.atRisk = false;
    copy.inStep = false;
    copy.excuse = null;
    copy.givingUp = null;
    copy.spoilt.clear();
    copy.led = true;
  }

  /** It has read what its disk says, which is less than it has cached where a flush had failed. */
  hasRead(worker: SimWorker): void {
    const copy = this.copyOf(worker.host);
    if (copy.leader !== worker || copy.unfit !== undefined) return;
    copy.unfit = unfitness(copy.machine.latestRecord);
  }

  /** This primary's worker begins to serve, or has answered something, from whichever copy. */
  serves(worker: SimWorker): void {
    const copy = this.copyOf(worker.host);
    const { unfit } = copy;
    if (copy.leader !== worker || unfit === null) return;
    assert(unfit !== undefined);
    copy.unfit = null;
    const { latestRecord } = copy.machine;
    // By force; that is on record by now.
    if (latestRecord.forced !== undefined && unfitness(latestRecord) === null) return;
    throw new Violation(`${copy.name} is promoted by the rules, although its copy was ${unfit}`);
  }

  #mustHold(copy: Copy, floors: Int32Array, what: string): void {
    for (let cell = 0; cell < this.#cellCount; cell++) {
      if (this.#holds(copy, cell, floors[cell]!)) continue;
      throw new Violation(
        `${copy.name} ${what} its cell ${cell} is ${this.#describe(copy, cell)}, older than ` +
          `${this.#floorText(floors[cell]!)}; ${this.other(copy).name} has ` +
          `${this.#describe(this.other(copy), cell)}`,
      );
    }
  }

  primaryDied(copy: Copy, worker: SimWorker, graceful: boolean): void {
    if (copy.leader !== worker) return; // it never had the disk
    copy.leader = null;
    const together = copy.connected && copy.inStep && copy.excuse === null && this.extensions;
    copy.keptBy = together && worker.mode !== "async" ? copy.acceptedBy : null;
    if (graceful && !this.#isMarked(copy)) {
      const other = this.other(copy);
      const lost = copy.backlog.find((op) => !this.#holdsOp(other, op));
      if (lost !== undefined) {
        throw new Violation(
          `${copy.name} is demoted in good order without a mark, but ${other.name} lacks ${describe(lost)}`,
        );
      }
    }
    copy.backlog = [];
    copy.excused = [];
    copy.connected = false;
    copy.inStep = false;
  }

  /** A secondary's worker has ended. */
  secondaryDied(copy: Copy, worker: SimWorker, graceful: boolean): void {
    if (!graceful) {
      this.secondaryFault(copy, worker, "worker");
      return;
    }
    // S-5: what it said it had received, it has done.
    for (const op of this.#takeReceived(copy, worker)) {
      if (!this.#holdsOp(copy, op)) {
        throw new Violation(`${worker} had received ${describe(op)}, and ends without it`);
      }
      this.#owe(copy, op);
    }
  }

  /** A secondary's worker is killed, or its disk fails. */
  secondaryFault(copy: Copy, worker: SimWorker, what: "worker" | "disk"): void {
    const primary = this.other(copy);
    primary.keptBy = null;
    if (primary.core?.connected && primary.excuse !== "worker") primary.excuse = what;
    primary.excusedUpTo = this.#ops.length - 1;
    for (const op of this.#takeReceived(copy, worker)) {
      if (this.#surelyHoldsOp(copy, op)) this.#owe(copy, op);
      else primary.excused.push(op);
    }
  }

  #takeReceived(copy: Copy, worker: SimWorker): Op[] {
    const primary = this.other(copy);
    const taken = primary.received.filter((op) => op.receiver === worker);
    primary.received = primary.received.filter((op) => op.receiver !== worker);
    return taken;
  }

  /** After the disk has lost what was not stable. */
  powerCut(copy: Copy): void {
    this.other(copy).keptBy = null;
    for (let cell = 0; cell < this.#cellCount; cell++) {
      copy.must[cell] = Math.min(copy.must[cell]!, copy.stable[cell]!);
    }
    copy.alone.set(copy.aloneStable);
    this.#mustHold(copy, copy.must, "has lost its power, and");
  }

  /** A secondary could not read its disk: it does not say that everything can be had from there. */
  unreadable(copy: Copy): void {
    const primary = this.other(copy);
    primary.keptBy = primary.acceptedBy = null;
  }

  /** Failed flushes have lost what was in these cells, and a worker that opens its disk learns of it. */
  forgotten(copy: Copy, cells: readonly number[]): void {
    for (const each of this.copies) each.keptBy = null;
    for (const cell of cells) {
      copy.must[cell] = Math.min(copy.must[cell]!, copy.stable[cell]!);
      copy.alone[cell] = copy.aloneStable[cell]!;
      // Its clients are new, too.
      copy.promised[cell] = copy.must[cell]!;
      copy.view[cell] = copy.must[cell]!;
    }
    this.#mustHold(copy, copy.must, "has lost what it could not flush, and");
  }

  /** The operator asks to give up what only this copy has. */
  discarding(copy: Copy): void {
    for (const each of this.copies) each.keptBy = null;
    copy.givingUp = this.#marker(copy).counters;
  }

  #giveUp(copy: Copy): void {
    const before = copy.givingUp;
    if (before === null || [...this.#marker(copy).counters].every((each) => before.has(each)))
      return;
    copy.givingUp = null;
    copy.alone.fill(0);
    copy.aloneStable.fill(0);
  }

  /** The operator has called a copy outdated: whatever it has kept is not wanted. */
  outdated(): void {
    this.counts.outdated++;
    for (const each of this.copies) each.keptBy = null;
  }

  /** The operator has created this copy anew. */
  recreated(copy: Copy): void {
    this.counts.recreated++;
    for (const each of this.copies) each.keptBy = null;
    copy.forget();
    copy.anew = true;
    const primary = this.other(copy);
    primary.received = [];
    // An answer of the copy that is gone may be on its way, before the end of its connection.
    if (primary.core?.connected) primary.excuse = "worker";
  }

  /**
   * A cell of a copy that is being filled loses what it holds, unless anything is on its way there.
   * @returns false where nothing has changed
   */
  spoil(copy: Copy, cell: number): boolean {
    const { medium } = copy.machine;
    const primary = this.other(copy);
    const concerns = (op: Op): boolean => cell >= op.from && cell < op.from + op.count;
    const onItsWay = [...this.#open, ...primary.backlog, ...primary.received, ...primary.excused];
    if (onItsWay.some(concerns) || primary.doubtful[cell]! > 0) return false;
    if (!medium.isStable(cell) || medium.cells[cell] === 0) return false;
    medium.spoil(cell);
    for (const floors of [copy.must, copy.stable, copy.alone, copy.aloneStable]) floors[cell] = 0;
    copy.spoilt.add(cell);
    this.counts.spoilt++;
    return true;
  }

  /** The operator promotes it by force. */
  forcing(copy: Copy): void {
    this.counts.forced++;
    copy.keptBy = null;
  }

  splitBrain(): void {
    this.counts.splitBrains++;
    if (this.copies.every(({ led }) => led)) return;
    throw new Violation(
      `split-brain (counts ${this.#counters()}), although only one node was primary since they were in step`,
    );
  }

  /** After every event: what has changed between the nodes? */
  poll(): void {
    for (const copy of this.copies) this.#giveUp(copy);
    for (const copy of this.copies) {
      this.#told(copy);
      const { core } = copy;
      const { daemon, resource } = this.other(copy).machine;
      if (copy.keptBy !== null && (daemon !== copy.keptBy || resource?.role !== "secondary")) {
        copy.keptBy = null;
      }
      if (core === null) continue;
      if (copy.serving && core.stale && !core.connected) {
        throw new Violation(`${copy.name}: newer data takes the place of a copy that is served`);
      }
      copy.serving = core.serving;
      if (core.connected !== copy.connected) {
        copy.connected = core.connected;
        copy.excuse = null;
        if (core.connected) {
          copy.epoch++;
          this.#accepted(copy, core);
        }
      }
      if (core.diskless && !copy.diskless) {
        this.counts.diskless++;
        this.other(copy).led = true; // it counts on its own from here on
      }
      copy.diskless = core.diskless;
      this.#deliver(copy);
      // Nothing is on its way.
      if (core.connected && core.queues().idle === SLOT_COUNT) copy.doubtful.fill(0);
      if (copy.excuse === "disk" && !this.#awaitsAnswer(copy, copy.excusedUpTo)) {
        copy.excuse = null;
      }
      const inStep = core.connected && !core.resyncing && core.map.resyncCount === 0 && !core.stale;
      if (inStep && !copy.inStep) this.#stepped(copy);
      copy.inStep = inStep;
    }
  }

  /** Is a request of this primary's, up to that one, without its answer? */
  #awaitsAnswer(copy: Copy, upTo: number): boolean {
    for (const op of this.#open) {
      if (op.copy === copy && op.kind !== "read" && op.id <= upTo) return true;
    }
    return false;
  }

  /** A handshake has ended, and nothing has been copied yet. */
  #accepted(primary: Copy, core: Primary): void {
    this.counts.handshakes++;
    const secondary = this.other(primary);
    for (const copy of this.copies) {
      copy.givingUp = null;
      copy.anew = false;
    }
    primary.acceptedBy = secondary.machine.daemon;
    const source = core.stale ? secondary : primary;
    const target = core.stale ? primary : secondary;
    if (core.stale) this.counts.fromSecondary++;
    this.#mustHold(source, source.must, "is the source of a synchronization, but");
    if (source === primary && primary.keptBy !== null && primary.mode !== "async") {
      const alone = this.copies.some((copy) => this.#isMarked(copy));
      const what = `is the source after its death, ${secondary.name} has kept everything, but`;
      if (!alone) this.#mustHold(primary, secondary.must, what);
    }
    primary.keptBy = null;
    this.#mustHold(source, target.alone, `is the source, and ${target.name} went on alone, but`);
    for (let cell = 0; cell < this.#cellCount; cell++) {
      target.must[cell] = Math.min(target.must[cell]!, source.must[cell]!);
      target.stable[cell] = Math.min(target.stable[cell]!, source.stable[cell]!);
    }
    target.alone.fill(0);
    target.aloneStable.fill(0);
    if (core.stale) {
      this.#ownPromises(primary);
      for (const op of this.#open) {
        if (op.copy !== primary) continue;
        if (op.kind === "read") {
          for (let index = 0; index < op.count; index++) {
            op.floor[index] = Math.min(op.floor[index]!, primary.view[op.from + index]!);
          }
        } else if (op.kind === "flush") {
          for (let cell = 0; cell < this.#cellCount; cell++) {
            op.floor[cell] = Math.min(op.floor[cell]!, primary.promised[cell]!);
          }
        }
      }
    }
  }

  /**
   * A primary that is no whole copy meets the other node. What it showed so far was older than what that one
   * has; and what that one has lost, with its cache, is lost for good, unless it is good here.
   */
  #ownPromises(primary: Copy): void {
    const secondary = this.other(primary);
    for (let cell = 0; cell < this.#cellCount; cell++) {
      const floor = primary.promised[cell]!;
      primary.view[cell] = secondary.must[cell]!;
      // Whoever comes back to a server that was started anew expects what is stable, and no more.
      if (floor > primary.since && !this.#holds(secondary, cell, floor)) {
        if (this.#holds(primary, cell, floor)) {
          primary.atRisk = true;
          continue;
        }
        primary.untold ??= `cell ${cell} of ${this.#floorText(floor)}`;
      }
      primary.promised[cell] = secondary.must[cell]!;
    }
    primary.seenValue.fill(-1);
  }

  /** A FLUSH has failed: of what is not stable on the only whole copy, its clients know that it may be lost. */
  #toldOfLoss(copy: Copy, nowMs: number): void {
    copy.toldAtMs = nowMs;
    copy.untold = null;
    // Its record may say by now that it is whole again; what was at risk is judged when both are in step.
    if (!copy.core?.stale && !copy.atRisk) return;
    const other = this.other(copy);
    for (let cell = 0; cell < this.#cellCount; cell++) {
      if (this.#holdsStably(other, cell, copy.promised[cell]!)) continue;
      copy.promised[cell] = Math.min(copy.promised[cell]!, other.stable[cell]!);
    }
  }

  /** What was on its way may have arrived; what will not is alone once there is a mark. */
  #deliver(copy: Copy): void {
    if (copy.backlog.length + copy.received.length + copy.excused.length === 0) return;
    const other = this.other(copy);
    const arrived = (op: Op): boolean => {
      if (!this.#holdsOp(other, op)) return false;
      if (this.#surelyHoldsOp(other, op)) this.#owe(other, op);
      else this.#doubt(copy, op);
      return true;
    };
    copy.backlog = copy.backlog.filter((op) => !arrived(op));
    copy.received = copy.received.filter((op) => !arrived(op));
    copy.excused = copy.excused.filter((op) => !arrived(op));
    if (copy.core?.connected || !this.#isMarked(copy)) return;
    for (const op of [...copy.backlog, ...copy.excused]) {
      for (let cell = op.from; cell < op.from + op.count; cell++) {
        copy.alone[cell] = Math.max(copy.alone[cell]!, op.start);
      }
    }
    copy.backlog = [];
    copy.excused = [];
  }

  /** Both copies are equal, as far as nothing is on its way. */
  #stepped(primary: Copy): void {
    this.counts.inSteps++;
    for (const copy of this.copies) copy.spoilt.clear();
    const secondary = this.other(primary);
    const onItsWay = new Uint8Array(this.#cellCount);
    for (const op of [...primary.backlog, ...primary.received, ...primary.excused]) {
      onItsWay.fill(1, op.from, op.from + op.count);
    }
    for (let cell = 0; cell < this.#cellCount; cell++) {
      if (primary.doubtful[cell]! > 0) onItsWay[cell] = 1;
    }
    if (primary.atRisk) {
      primary.atRisk = false;
      for (let cell = 0; cell < this.#cellCount; cell++) {
        const floor = primary.promised[cell]!;
        // What is here may be newer, and nobody's promise yet.
        const there = onItsWay[cell] !== 0 || this.#holds(secondary, cell, floor);
        if (there && this.#holds(primary, cell, floor)) continue;
        primary.untold ??= `cell ${cell} of ${this.#floorText(floor)}`;
        primary.promised[cell] = secondary.must[cell]!;
      }
    }
    this.#mustHold(primary, primary.promised, "says that it is in step, but");
    primary.must.set(primary.promised);
    for (let cell = 0; cell < this.#cellCount; cell++) {
      const floor = primary.must[cell]!;
      // Zeroes there may be older than a ZERO that is on its way, and what comes before it is, too.
      if (onItsWay[cell] !== 0 && !this.#surelyHolds(secondary, cell, floor)) continue;
      if (this.#holds(secondary, cell, floor)) {
        secondary.must[cell] = floor;
      } else if (!primary.excuse) {
        throw new Violation(
          `the nodes say that they are in step, but cell ${cell} on ${secondary.name} is ` +
            `${this.#describe(secondary, cell)}, older than ${this.#floorText(floor)}`,
        );
      }
      const stable = primary.stable[cell]!;
      if (stable > secondary.stable[cell]! && this.#holdsStably(secondary, cell, stable)) {
        secondary.stable[cell] = stable;
      }
    }
    for (const copy of this.copies) {
      copy.alone.fill(0);
      copy.aloneStable.fill(0);
      copy.led = copy === primary;
    }
  }

  // ---- at rest --------------------------------------------------------------------------------

  /** Both copies hold the same, and all that is owed. */
  checkEqual(): void {
    const [a, b] = this.copies;
    for (let cell = 0; cell < this.#cellCount; cell++) {
      if (a.machine.medium.cells[cell] === b.machine.medium.cells[cell]) continue;
      throw new Violation(
        `at the end cell ${cell} is ${this.#describe(a, cell)} on A and ${this.#describe(b, cell)} on B`,
      );
    }
    for (const copy of this.copies) this.#mustHold(copy, copy.must, "at the end:");
  }

  // ---- coverage -------------------------------------------------------------------------------

  /**
   * Whatever may differ between the nodes, now or after power cuts, is marked on a disk.
   * @param chaos faults happen
   */
  checkCoverage(chaos: boolean): void {
    const [a, b] = this.#markers;
    const media = [a.machine.medium, b.machine.medium] as const;
    const cells = new Set<number>();
    const dropped = new Set<number>();
    for (const marker of this.#markers) {
      for (const cell of marker.machine.medium.touched.splice(0)) cells.add(cell);
      const clears = chaos && marker.machine.lockedBy?.role === "primary";
      for (const extent of marker.refreshMap()) {
        dropped.add(extent);
        if (clears) this.counts.cleared++;
      }
    }
    if (cells.size === 0 && dropped.size === 0) return;
    if (a.unpaired || b.unpaired || a.isStrangerTo(b)) {
      this.#unchecked = true;
      return;
    }
    if (this.#unchecked) {
      // Since the two met, everything is under watch.
      this.#unchecked = false;
      for (let cell = 0; cell < this.#cellCount; cell++) cells.add(cell);
    }
    const perExtent = a.machine.shape.extentSize / this.#cellSize;
    for (const extent of dropped) {
      const end = Math.min(this.#cellCount, (extent + 1) * perExtent);
      for (let cell = extent * perExtent; cell < end; cell++) cells.add(cell);
    }
    for (const cell of cells) {
      const extent = Math.floor(cell / perExtent);
      if (a.covers(extent) || b.covers(extent)) continue;
      const [first, ...rest] = [...media[0].cellVersions(cell), ...media[1].cellVersions(cell)];
      if (rest.every((value) => value === first)) continue;
      throw new Violation(
        `cell ${cell} may be ${media[0].cellVersions(cell).join(", ")} on A and ` +
          `${media[1].cellVersions(cell).join(", ")} on B, and neither map says so`,
      );
    }
  }

  #unchecked = true;
}

/**
 * A copy that the other node has overtaken, or that lacks whatever its source had in line when that was gone, is
 * nobody's data. A primary whose own copy is not whole goes on: its map says what it reads from its peer.
 */
function unfitness({ state, prevrole }: Metadata): string | null {
  if (state === "outdated") return "outdated";
  return state === "inconsistent" && prevrole !== "primary" ? "a mix of old and new" : null;
}

const NOTHING: Int32Array = new Int32Array(0);

/** What the front of a machine's disk says, whatever a power cut leaves of it. */
class Marker {
  readonly machine: Machine;
  #records: readonly Metadata[] = [];
  #resuids: ReadonlySet<bigint> = new Set();
  #counters: ReadonlySet<string> = new Set();
  /** It says that its map cannot be relied upon (S-21). */
  #unflushed = false;
  #countsAt = -1;
  #map: Uint8Array = new Uint8Array(0);
  #mapAt = -1;

  constructor(machine: Machine) {
    this.machine = machine;
  }

  #refresh(): void {
    const { rawChanges } = this.machine.medium;
    if (this.#countsAt === rawChanges) return;
    this.#countsAt = rawChanges;
    const records = this.machine.recordVersions();
    this.#records = records;
    this.#resuids = new Set(records.map(({ resuid }) => resuid));
    this.#counters = new Set(records.map(({ resuid, localcnt }) => `${resuid} ${localcnt}`));
    this.#unflushed = records.every(({ unflushed }) => unflushed === true);
  }

  /** Each way that a power cut could leave it. */
  get records(): readonly Metadata[] {
    this.#refresh();
    return this.#records;
  }

  /** Do the two have nothing to do with each other, whatever a power cut leaves? */
  isStrangerTo(other: Marker): boolean {
    this.#refresh();
    other.#refresh();
    return [...this.#resuids].every((id) => !other.#resuids.has(id));
  }

  /** Whose they are, and how often it was alone, each way that a power cut could leave it. */
  get counters(): ReadonlySet<string> {
    this.#refresh();
    return this.#counters;
  }

  get unpaired(): boolean {
    this.#refresh();
    return this.#resuids.size === 1 && this.#resuids.has(0n);
  }

  /** Reads the map. @returns extents that were marked for certain, and are not any more */
  refreshMap(): readonly number[] {
    const { machine } = this;
    if (this.#mapAt === machine.medium.rawChanges) return [];
    this.#mapAt = machine.medium.rawChanges;
    this.#refresh();
    const map = this.#unflushed ? machine.fullMap() : machine.stableMap();
    const dropped: number[] = [];
    for (let extent = 0; extent < machine.extentCount; extent++) {
      if (bit(this.#map, extent) && !bit(map, extent)) dropped.push(extent);
    }
    this.#map = map;
    return dropped;
  }

  covers(extent: number): boolean {
    return bit(this.#map, extent);
  }

  toString(): string {
    const counts = this.machine
      .recordVersions()
      .map(({ localcnt, remotecnt, state }) => `${localcnt}/${remotecnt} ${state}`);
    return `${this.machine.name} ${counts.join(" or ")}`;
  }
}

function bit(map: Uint8Array, index: number): boolean {
  return ((map[index >> 3] ?? 0) & (1 << (index & 7))) !== 0;
}

export function describe(op: Op): string {
  if (op.kind === "flush") return "FLUSH";
  const range = op.count === 1 ? `${op.from}` : `${op.from}–${op.from + op.count - 1}`;
  const name = op.kind === "read" ? "READ" : `${op.kind === "write" ? "WRITE" : "ZERO"} ${op.id}`;
  return `${name}@${range}${op.fua ? " FUA" : ""}`;
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * The secondary of one resource: judges a primary's counters, then executes its requests.
 *
 *   request ─▶ overlaps an earlier one? ─▶ disk ─▶ reply
 *                (waits for it)
 *
 * Requests run in parallel where they do not overlap; what overlaps keeps the order of arrival, and
 * a FLUSH covers every WRITE that arrived before it (wire protocol §8). What was received whole is
 * executed even if the connection is gone by then (safety case S-5).
 *
 * For a primary that has lost its disk we keep the record: from then on an extent is marked in our own
 * activemap, on stable storage, before it is written (S-1). We do the same under a FreeBSD primary, which
 * forgets what failed here, and what a power cut here takes back (S-16): until a flush, or for good where
 * a request failed; the next S2 carries it.
 *
 * Sans I/O, like the primary. Source: behaviour §6, wire protocol §6.5.
 */

import { assert } from "../base/assert.ts";
import type { Synced } from "../metadata/block.ts";
import type { Activemap } from "./activemap.ts";
import { type DataState, FLUSH, type Kind, READ, SLOT_COUNT, WRITE, ZERO } from "./requests.ts";
import { type Side, syncVerdict } from "./sync-verdict.ts";

/** The part of the metadata that a secondary may change. */
export interface SecondaryRecord {
  readonly resuid: bigint;
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  readonly state: DataState;
  readonly synced: Synced | null;
}

export interface Hello {
  /** This primary tells when our copy is whole, and when it is not (EXT_STATE). */
  readonly states: boolean;
  readonly virgin: boolean;
  readonly resuid: bigint;
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  /** What the primary has on record; "unknown" of a FreeBSD primary, which records no such thing. */
  readonly synced: Synced | null | "unknown";
  /**
   * The primary has served nothing yet, and its cache may be lost; everything acknowledged under the
   * counters that we have on record is in ours; and the maps are not empty (S-9).
   */
  readonly keptHere: boolean;
}

export type Judgement =
  | {
      readonly kind: "accept";
      readonly source: Side;
      readonly virgin: boolean;
      /**
       * Which map S2 carries: the one on our disk, the same unless it is empty, or all ones. All ones
       * are stored on our disk first, before `record`: until a request shows that the primary has
       * merged them, every further handshake must send them again.
       */
      readonly map: "own" | "own-unless-empty" | "full";
      /** To be stored before S2 is sent, or null if nothing changes. */
      readonly record: SecondaryRecord | null;
    }
  /** `message` goes to the peer as it is; `splitBrain` raises the event. */
  | {
      readonly kind: "refuse";
      readonly message: string;
      readonly splitBrain: boolean;
      /** For our own operator. */
      readonly reason: string;
    };

/** Matched by exact string equality by the other side. */
export const SPLIT_BRAIN = "Split-brain condition!";

/** The table of wire protocol §6.5, first match wins. */
export function judge(own: SecondaryRecord, peer: Hello): Judgement {
  if (own.resuid === 0n) {
    if (own.localcnt !== 0n) {
      return beforeTheyMet();
    }
    // One that was thrown away differs from a primary that nobody has written, too.
    const gaveWay = own.state === "outdated" || own.state === "inconsistent";
    if (!peer.virgin || gaveWay) return fullCopy(own, peer);
    const met = { ...own, resuid: peer.resuid };
    const record = peer.states ? { ...met, synced: "written" as const } : untold(met, "primary");
    // Nothing was ever acknowledged here, but writes may have begun: the reference drops their bits.
    return { kind: "accept", source: "primary", virgin: true, map: "own-unless-empty", record };
  }
  if (own.resuid !== peer.resuid) {
    // Created, and made primary once, but never written nor synchronized: it has nothing to lose. A mix
    // of old and new has: it may be all that is left.
    if (own.state === "new" && neverWhole(own)) return fullCopy(own, peer);
    if (own.synced === null && peer.synced === null && own.localcnt > 0n && peer.localcnt > 0n) {
      return beforeTheyMet();
    }
    const message = `Resource unique ID mismatch (primary=${peer.resuid}, secondary=${own.resuid}).`;
    return {
      kind: "refuse",
      message,
      splitBrain: false,
      reason:
        "the two nodes' components belong to different resources; one of them was created anew or swapped",
    };
  }
  const verdict = syncVerdict(
    { local: peer.localcnt, remote: peer.remotecnt },
    { local: own.localcnt, remote: own.remotecnt },
  );
  switch (verdict.kind) {
    case "regular":
      if (verdict.from === "secondary" && own.state === "outdated") return calledOutdated();
      return {
        kind: "accept",
        source: peer.keptHere && equal(own, peer) ? "secondary" : verdict.from,
        virgin: false,
        map: "own",
        record: outdatedBy(own, peer) ?? untoldBy(own, peer, verdict.from),
      };
    case "split-brain":
      return {
        kind: "refuse",
        message: SPLIT_BRAIN,
        splitBrain: true,
        reason: "both nodes took writes while they were apart",
      };
    case "impossible":
      // A component created anew, whose first copy was cut short before the primary had noted that
      // it starts from nothing: it has nothing to lose.
      if (neverWhole(own)) return fullCopy(own, peer);
      return {
        kind: "refuse",
        message:
          `Modification counters ran backwards (primary=${peer.localcnt}/${peer.remotecnt}, ` +
          `secondary=${own.localcnt}/${own.remotecnt}): metadata of one node was lost or rolled back.`,
        splitBrain: false,
        reason: "a modification counter ran backwards: one node's metadata was lost or rolled back",
      };
  }
}

/**
 * An operator throws this copy away: all of the primary's is copied, which is whole. As of a copy created
 * anew, but that the two nodes go on counting.
 */
export function thrownAway(
  judgement: Judgement & { kind: "accept" },
  own: SecondaryRecord,
): Judgement & { kind: "accept" } {
  assert(judgement.source === "primary");
  const record = { ...(judgement.record ?? own), state: "inconsistent" as const, synced: null };
  return { ...judgement, map: "full", record };
}

/** Row 4: neither node has acknowledged anything alone. */
export function equal(
  own: Pick<SecondaryRecord, "localcnt" | "remotecnt">,
  peer: Pick<SecondaryRecord, "localcnt" | "remotecnt">,
): boolean {
  return own.localcnt === peer.remotecnt && own.remotecnt === peer.localcnt;
}

/**
 * A primary that went on alone has what this copy lacks: stable before it is told that it may go on
 * (invariant 7). One of ours says when its copies begin, and when they have ended. Another does not: a mix of
 * old and new from here on, until the end is inferred (S-13).
 */
function outdatedBy(own: SecondaryRecord, peer: Hello): SecondaryRecord | null {
  const behind = peer.localcnt > own.remotecnt;
  if (!behind || own.state === "inconsistent") return null;
  if (!peer.states) return { ...own, state: "inconsistent", synced: null };
  return { ...own, state: "outdated" };
}

function untoldBy(
  own: SecondaryRecord,
  peer: Hello,
  from: "primary" | "secondary",
): SecondaryRecord | null {
  if (peer.states || (own.synced === null && own.state !== "new")) return null;
  return untold(own, from);
}

/**
 * A FreeBSD primary forgets which extents differ: from now on no map can be believed whole. Nor does it say that
 * it fills a new copy, which then has something to lose, and is a mix of old and new until the end is inferred
 * (invariant 7): its counters do not tell, since it counts in memory only that it was alone (BD-14).
 */
function untold(own: SecondaryRecord, from: "primary" | "secondary"): SecondaryRecord {
  const state = from === "primary" ? "inconsistent" : "uptodate";
  return { ...own, state: own.state === "new" ? state : own.state, synced: null };
}

/**
 * Somebody knows that the other node has gone on without this one, though its counter does not say so: a FreeBSD
 * node does not always count (BD-14). Then each has what the other lacks.
 */
function calledOutdated(): Judgement & { kind: "refuse" } {
  return {
    kind: "refuse",
    message: SPLIT_BRAIN,
    splitBrain: true,
    reason:
      "this node went on alone, and was called outdated since: the other one, too, may have taken writes",
  };
}

/** Took writes before they ever met (S-18): neither copy may vanish silently. */
function beforeTheyMet(): Judgement & { kind: "refuse" } {
  return {
    kind: "refuse",
    message: SPLIT_BRAIN,
    splitBrain: true,
    reason: "this node holds data of its own from before the two nodes ever met",
  };
}

function neverWhole(own: SecondaryRecord): boolean {
  const { localcnt, remotecnt, state } = own;
  return localcnt === 0n && remotecnt === 0n && (state === "new" || state === "inconsistent");
}

/** Everything comes from the primary; this copy is worth nothing until it says so, or falls silent. */
function fullCopy(own: SecondaryRecord, peer: Hello): Judgement & { kind: "accept" } {
  const state = "inconsistent" as const;
  const record = { ...own, resuid: peer.resuid, state, synced: null };
  return { kind: "accept", source: "primary", virgin: true, map: "full", record };
}

// Where a slot is.
const FREE = 0;
const WAITING = 1;
const RUNNING = 2;
/** Its extents' bits are not on disk yet. */
const MAP_WAIT = 3;

export interface SecondaryOutbox {
  localRead(slot: number): void;
  localWrite(slot: number): void;
  localZero(slot: number): void;
  localFlush(slot: number): void;
  /** Answer on channel B; errno 0 or a Linux errno. A READ's data lies in the slot's memory. */
  reply(slot: number, received: boolean, errno: number): void;
  /** The slot is free; its memory may still be on its way to the peer (READ). */
  release(slot: number): void;
  /** Zero our own map on disk: a request proves that the primary has merged and stored it. */
  clearMap(): void;
  /** Write the changes of the kept map, flush, then call mapWritten(). */
  writeMap(): void;
}

/**
 * What a primary that has lost its disk makes us store, before anything is acknowledged on our word
 * alone: a count that it has never heard of, so that its old disk is the target when it returns.
 *
 * @param remotecnt our count as the primary may have recorded it
 * @returns null where its own count is not the one that we know: our copy is not what it thinks
 */
export function soleRecord(
  own: SecondaryRecord,
  localcnt: bigint,
  remotecnt: bigint,
): SecondaryRecord | null {
  if (localcnt !== own.remotecnt || own.localcnt < remotecnt) return null;
  const ahead = own.localcnt > remotecnt ? own.localcnt : remotecnt + 1n;
  return { ...own, localcnt: ahead, state: "uptodate" };
}

export class Secondary {
  readonly kind: Uint8Array = new Uint8Array(SLOT_COUNT);
  readonly offset: Float64Array = new Float64Array(SLOT_COUNT);
  readonly length: Float64Array = new Float64Array(SLOT_COUNT);
  readonly memory: Float64Array = new Float64Array(SLOT_COUNT);
  readonly seqHi: Uint32Array = new Uint32Array(SLOT_COUNT);
  readonly seqLo: Uint32Array = new Uint32Array(SLOT_COUNT);
  readonly #state: Uint8Array = new Uint8Array(SLOT_COUNT);
  readonly #free: Int32Array = new Int32Array(SLOT_COUNT);
  #freeCount = SLOT_COUNT;
  readonly #active: Int32Array = new Int32Array(SLOT_COUNT);
  #activeCount = 0;
  #waitingCount = 0;
  /** A request has come. */
  #asked = false;
  #mapCleared = false;
  /** Where we mark what only we have, or what we may lack; or null. */
  #kept: Activemap | null = null;
  /** What is kept is what we may lack. */
  #keepsLacking = false;
  /** The FLUSH that ends the present epoch of the kept map, or −1. */
  #epochFlush = -1;
  #mapWriting = false;
  #mapWaitCount = 0;
  /** Since the last flush that succeeded, a request has failed that was to change this copy. */
  #lacks = false;
  #failedSinceFlush = false;

  reads = 0;
  writes = 0;
  deletes = 0;
  flushes = 0;
  readErrors = 0;
  writeErrors = 0;
  deleteErrors = 0;
  flushErrors = 0;

  constructor() {
    for (let slot = 0; slot < SLOT_COUNT; slot++) this.#free[slot] = SLOT_COUNT - 1 - slot;
  }

  /** How many more requests submit() will take now. */
  get room(): number {
    return this.#freeCount;
  }

  /** Requests accepted and not yet executed. */
  get active(): number {
    return this.#activeCount;
  }

  /**
   * A request has arrived whole and is valid.
   *
   * @param memory where its data lies or shall lie in the arena
   * @param memsync answer `received` at once
   * @returns its slot
   */
  submit(
    kind: Kind,
    seqHi: number,
    seqLo: number,
    offset: number,
    length: number,
    memory: number,
    memsync: boolean,
    out: SecondaryOutbox,
  ): number {
    assert(this.#freeCount > 0);
    const slot = this.#free[--this.#freeCount]!;
    this.kind[slot] = kind;
    this.seqHi[slot] = seqHi;
    this.seqLo[slot] = seqLo;
    this.offset[slot] = offset;
    this.length[slot] = length;
    this.memory[slot] = memory;
    this.#active[this.#activeCount++] = slot;
    if (kind === READ) this.reads++;
    else if (kind === WRITE) this.writes++;
    else if (kind === ZERO) this.deletes++;
    else this.flushes++;
    if (memsync) out.reply(slot, true, 0);
    this.#asked = true;
    if (!this.#mapCleared) {
      this.#mapCleared = true;
      out.clearMap();
    }
    if (this.#mustWait(slot)) {
      this.#state[slot] = WAITING;
      this.#waitingCount++;
    } else {
      this.#start(slot, out);
    }
    return slot;
  }

  /** From now on `map`, our own as it is on disk, is kept: nothing clears it any more. */
  keep(map: Activemap): void {
    assert(this.#activeCount === 0);
    this.#kept = map;
    this.#mapCleared = true;
  }

  /** From now on `map`, nothing of which is ours yet, marks what this copy may lack. */
  keepLacking(map: Activemap): void {
    assert(this.#activeCount === 0 && this.#kept === null);
    this.#kept = map;
    this.#keepsLacking = true;
    // The first write proves that the primary has merged what lies on our disk.
    map.rewriteAll();
    this.#mapCleared = true;
  }

  /** The end: nothing is executed any more, and a flush is about to begin. @returns is there something to clean? */
  lastFlush(): boolean {
    assert(this.#activeCount === 0);
    // Without a request nothing says that the primary has merged what lies on our disk: it stays.
    if (!this.#keepsLacking || !this.#asked) return false;
    this.#kept!.flushStart();
    return true;
  }

  /** That flush has ended: only what failed stays marked in the kept map, which is to be written. */
  lastFlushed(errno: number): void {
    if (errno !== 0) {
      this.#lacks = true;
      this.#kept!.scheduleUnflushed();
    } else {
      this.#kept!.flushDone();
    }
    this.#kept!.coolAll();
  }

  /** Do we keep the record for a primary without a disk? */
  get keeping(): boolean {
    return this.#kept !== null && !this.#keepsLacking;
  }

  /** Is a request with this number being executed? */
  executes(seqHi: number, seqLo: number): boolean {
    for (let index = 0; index < this.#activeCount; index++) {
      const slot = this.#active[index]!;
      if (this.seqHi[slot] === seqHi && this.seqLo[slot] === seqLo) return true;
    }
    return false;
  }

  /** Has a request failed that was to change this copy, or to make it stable? Until that has been made good. */
  get lacks(): boolean {
    return this.#lacks;
  }

  /** The primary calls this copy whole, and it may be: what failed has been copied again and flushed. */
  madeGood(): void {
    assert(this.mayBeWhole);
    this.#lacks = false;
  }

  /**
   * May the primary's word that this copy is whole be believed? It says so after a flush that both nodes
   * finished; of what failed here since, it has not heard (S-16).
   */
  get mayBeWhole(): boolean {
    return !this.#failedSinceFlush;
  }

  /** The changes taken at writeMap() are on stable storage. */
  mapWritten(out: SecondaryOutbox): void {
    assert(this.#mapWriting);
    this.#mapWriting = false;
    for (let index = 0; index < this.#activeCount && this.#mapWaitCount > 0; index++) {
      const slot = this.#active[index]!;
      if (this.#state[slot] !== MAP_WAIT) continue;
      if (!this.#kept!.isPersisted(this.offset[slot]!, this.length[slot]!)) continue;
      this.#mapWaitCount--;
      this.#run(slot, out);
    }
  }

  /** The map could not be cleared: the next request tries again. */
  mapClearFailed(): void {
    this.#mapCleared = false;
  }

  #mustWait(slot: number): boolean {
    const kind = this.kind[slot]!;
    const start = this.offset[slot]!;
    const end = start + this.length[slot]!;
    for (let index = 0; index < this.#activeCount; index++) {
      const other = this.#active[index]!;
      if (other === slot) return false;
      const otherKind = this.kind[other]!;
      if (otherKind === FLUSH) continue;
      if (kind === FLUSH) {
        if (otherKind !== READ) return true;
        continue;
      }
      if (kind === READ && otherKind === READ) continue;
      const otherStart = this.offset[other]!;
      if (otherStart < end && otherStart + this.length[other]! > start) return true;
    }
    return false;
  }

  #start(slot: number, out: SecondaryOutbox): void {
    const kind = this.kind[slot]!;
    if (this.#kept !== null && (kind === WRITE || kind === ZERO)) {
      const verdict = this.#kept.writeStart(this.offset[slot]!, this.length[slot]!);
      if (verdict === "persist-first") {
        this.#state[slot] = MAP_WAIT;
        this.#mapWaitCount++;
        return;
      }
    }
    this.#run(slot, out);
  }

  #run(slot: number, out: SecondaryOutbox): void {
    this.#state[slot] = RUNNING;
    if (this.#keepsLacking && this.kind[slot] === FLUSH && this.#epochFlush < 0) {
      this.#epochFlush = slot;
      this.#kept!.flushStart();
    }
    switch (this.kind[slot]) {
      case READ:
        out.localRead(slot);
        return;
      case WRITE:
        out.localWrite(slot);
        return;
      case ZERO:
        out.localZero(slot);
        return;
      default:
        out.localFlush(slot);
    }
  }

  /** The disk has finished this slot. */
  localDone(slot: number, errno: number, out: SecondaryOutbox): void {
    assert(this.#state[slot] === RUNNING);
    const kind = this.kind[slot]!;
    if (errno !== 0) {
      if (kind === READ) this.readErrors++;
      else if (kind === WRITE) this.writeErrors++;
      else if (kind === ZERO) this.deleteErrors++;
      else this.flushErrors++;
    }
    if (kind !== READ && errno !== 0) {
      this.#failedSinceFlush = true;
      this.#lacks = true;
    } else if (kind === FLUSH) this.#failedSinceFlush = false;
    if (this.#kept !== null) this.#keepTrack(slot, errno, this.#kept);
    out.reply(slot, false, errno);
    this.#state[slot] = FREE;
    let index = 0;
    while (this.#active[index] !== slot) index++;
    this.#active.copyWithin(index, index + 1, this.#activeCount);
    this.#activeCount--;
    this.#free[this.#freeCount++] = slot;
    out.release(slot);
  }

  #keepTrack(slot: number, errno: number, kept: Activemap): void {
    const kind = this.kind[slot]!;
    if (kind === WRITE || kind === ZERO) {
      if (errno !== 0 && this.#keepsLacking) kept.schedule(this.offset[slot]!, this.length[slot]!);
      kept.writeDone(this.offset[slot]!, this.length[slot]!);
    }
    if (kind !== FLUSH || !this.#keepsLacking) return;
    // What a failed flush was to write counts as written by the next one: it is marked for good.
    if (errno !== 0) this.#unflushable(kept);
    if (this.#epochFlush !== slot) return;
    this.#epochFlush = -1;
    kept.flushDone();
    kept.ageWarm();
  }

  #unflushable(kept: Activemap): void {
    kept.scheduleUnflushed();
    for (let index = 0; index < this.#activeCount; index++) {
      const slot = this.#active[index]!;
      const kind = this.kind[slot]!;
      if (this.#state[slot] !== RUNNING || (kind !== WRITE && kind !== ZERO)) continue;
      kept.schedule(this.offset[slot]!, this.length[slot]!);
    }
  }

  /** Call after every batch of events: starts what no longer has to wait. */
  pump(out: SecondaryOutbox): void {
    for (let index = 0; index < this.#activeCount && this.#waitingCount > 0; index++) {
      const slot = this.#active[index]!;
      if (this.#state[slot] !== WAITING || this.#mustWait(slot)) continue;
      this.#waitingCount--;
      this.#start(slot, out);
    }
    if (this.#mapWaitCount > 0 && !this.#mapWriting) {
      this.#mapWriting = true;
      out.writeMap();
    }
  }
}

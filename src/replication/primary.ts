// SPDX-License-Identifier: BSD-2-Clause
/**
 * The primary of one resource: what happens to every request, and when it may be answered.
 *
 *   submit ─▶ conflict? ─▶ bit on disk? ─▶ send to peer, write here ─▶ both legs ─▶ free
 *              (range)       (activemap)            │
 *                                                   └─▶ answered when the mode allows it,
 *                                                       or alone, once the mark is stable
 *
 * Sans I/O: events come in as method calls, effects go out through {@link PrimaryOutbox}, which
 * never calls back. A request is a slot number into tables allocated once; nothing is allocated,
 * and no closure made, per request. Call pump() after each batch of events.
 *
 * Rules, by the invariant of docs/architecture.md they keep:
 *   1 covered     data is issued only when its extents are marked on stable storage
 *   2 clean       only a flush finished on both nodes, on one connection, cleans an extent
 *   3 alone mark  localcnt + 1 is stable before anything is acknowledged without the peer
 *   4 one order   overlapping writes go one after the other; only the later one waits
 *   5 reads       a range that is stale here is read from the peer
 *
 * A failing disk (S-1, S-7), where the peer has everything:
 *
 *   a read fails    served by the peer, then written here again
 *   a write fails   good ─▶ turning ─▶ "inconsistent" on record; the peer's success counts, and the
 *                   extent is copied back from there
 *   anything else   good ─▶ leaving ─▶ the peer keeps the record ─▶ gone: diskless, over the peer
 *
 * Source: behaviour §5, §8, §10; defects BD-1 … BD-4, BD-8 … BD-10, BD-13, BD-18 … BD-21, BD-26,
 * BD-31.
 */

import { assert } from "../base/assert.ts";
import type { Synced } from "../metadata/block.ts";
import type { Whole } from "../wire/control.ts";
import type { Activemap } from "./activemap.ts";
import type { PeerState, PrimaryOptions, PrimaryOutbox, PrimaryRecord } from "./primary-io.ts";
import {
  ERR_AGAIN,
  FLUSH,
  IO_MAX,
  type Kind,
  type Mode,
  READ,
  SLOT_COUNT,
  SYNC,
  type ToldState,
  WRITE,
  ZERO,
} from "./requests.ts";
import { SequenceRing } from "./sequence-ring.ts";
import { SyncPace } from "./sync-pace.ts";
import { SYNC_WINDOW, SyncWindow } from "./sync-window.ts";

/** Stand-ins for a slot in the table of sequence numbers. */
const FLUSH_SLOT = SLOT_COUNT;
const STATE_SLOT = SLOT_COUNT + 1;
/** Slots that only resync may use, so that a busy application cannot stop it. */
const SYNC_RESERVE = 16;
/** Pause after a copy or the peer's disk failed. */
const SYNC_RETRY_MS = 5_000;
const KEEPALIVE_MS = 10_000;
/** The same where the peer answers: often enough for the shortest timeouts. */
const ANSWERED_KEEPALIVE_MS = 2_000;
/** How many timeouts one request may take while the peer answers others. */
const BUSY_PEER_PATIENCE = 6;
/** A flush of our own, so that extents become clean: soon when idle, seldom when busy. */
const OWN_FLUSH_IDLE_MS = 5_000;
const OWN_FLUSH_BUSY_MS = 30_000;
const AGE_MS = 30_000;
/** Rounds of copies from the peer that our own disk may fail before it is given up. */
const REPAIR_ROUNDS = 3;

const ERR_IO = 5;
/** ENOTTY and EOPNOTSUPP, of a peer: it has nothing to flush, so what it has written is stable (S-15). */
const CANNOT_FLUSH = [25, 95];
// Where a slot is.
const FREE = 0;
/** Not started: the gate is closed (first connection attempt, or a map being merged). */
const HELD = 1;
/** Overlaps an earlier request. */
const CONFLICT = 2;
/** Its extents' bits are not on disk yet. */
const MAP_WAIT = 3;
const ISSUED = 4;

// A leg: one node's part of a slot.
const NONE = 0;
const PENDING = 1;
/** memsync: the peer has it in memory. */
const RECEIVED = 2;
const OK = 3;
const FAILED = 4;

// Why an answer has not been given although the legs would allow it.
const UNANSWERED = 0;
const WANTS_MARK = 1;
const WANTS_PEER = 2;
/** Only the peer has it, and that is not on record yet. */
const WANTS_RECORD = 3;
const ANSWERED = 4;

/** In #syncIndex: not part of a pass, but one range that could not be read here. */
const REPAIR = 255;

/** Counts for status (behaviour §5.5). */
export class PrimaryStatistics {
  reads = 0;
  writes = 0;
  deletes = 0;
  flushes = 0;
  activemapUpdates = 0;
  readErrors = 0;
  writeErrors = 0;
  deleteErrors = 0;
  flushErrors = 0;
  /** Bytes copied by the present or last resync pass, and when it began. */
  syncCopied = 0;
  syncExtents = 0;
  syncStartedAt = 0;
  syncTotalExtents = 0;
}

type Link = "down" | "merging" | "up";

export class Primary {
  readonly map: Activemap;
  readonly statistics: PrimaryStatistics = new PrimaryStatistics();

  // Slots.
  readonly kind: Uint8Array = new Uint8Array(SLOT_COUNT);
  readonly offset: Float64Array = new Float64Array(SLOT_COUNT);
  readonly length: Float64Array = new Float64Array(SLOT_COUNT);
  /** Where the data lies in the arena; set by the engine before submit() or takeSync. */
  readonly memory: Float64Array = new Float64Array(SLOT_COUNT);
  /** ZERO: may the space be given back? */
  readonly punch: Uint8Array = new Uint8Array(SLOT_COUNT);
  /** The request's number on the wire; unique, never reused (BD-31). */
  readonly seq: Float64Array = new Float64Array(SLOT_COUNT);
  /** This write was sent with `memsync`: two replies will come. */
  readonly memsync: Uint8Array = new Uint8Array(SLOT_COUNT);
  readonly #state: Uint8Array = new Uint8Array(SLOT_COUNT);
  readonly #local: Uint8Array = new Uint8Array(SLOT_COUNT);
  readonly #localErrno: Int32Array = new Int32Array(SLOT_COUNT);
  readonly #remote: Uint8Array = new Uint8Array(SLOT_COUNT);
  readonly #remoteErrno: Int32Array = new Int32Array(SLOT_COUNT);
  /** A write that was under way when the peer failed a flush: its success there says nothing. */
  readonly #distrusted: Uint8Array = new Uint8Array(SLOT_COUNT);
  readonly #answered: Uint8Array = new Uint8Array(SLOT_COUNT);
  readonly #sentAt: Float64Array = new Float64Array(SLOT_COUNT);
  readonly #waitingSince: Float64Array = new Float64Array(SLOT_COUNT);
  /** FLUSH: 0 waits for the next round, 1 rides in the round under way. */
  readonly #riding: Uint8Array = new Uint8Array(SLOT_COUNT);
  /** SYNC: index into the table of extents being copied. */
  readonly #syncIndex: Uint8Array = new Uint8Array(SLOT_COUNT);
  /** SYNC: 1 reading the source, 2 writing the target. */
  readonly #syncStep: Uint8Array = new Uint8Array(SLOT_COUNT);

  readonly #freeSlots: Int32Array = new Int32Array(SLOT_COUNT);
  #freeCount = SLOT_COUNT;
  /** Slots in use, in order of arrival. */
  readonly #active: Int32Array = new Int32Array(SLOT_COUNT);
  #activeCount = 0;
  #heldCount = 0;
  #conflictCount = 0;
  #mapWaitCount = 0;
  #markWaitCount = 0;
  #peerWaitCount = 0;
  #appCount = 0;
  #syncCount = 0;

  readonly #sequence = new SequenceRing();

  #mode: Mode;
  /** The mode is or was async: writes that the peer lacks may have been acknowledged. */
  #wasAsync: boolean;
  #timeoutMs: number;
  #hasRemote: boolean;
  #nowMs = 0;

  // The peer.
  #link: Link = "down";
  /** False until the first connection attempt has ended: nothing is issued before. */
  #gateOpen: boolean;
  /** The gate has been open: what a client has seen or changed since is this node's data. */
  #served: boolean;
  #handshaking = false;
  #effectiveMode: Mode;
  #peerVersion = 0;
  #peerLocal = 0n;
  #peerRemote = 0n;
  #peerZeroes = false;
  #peerStates = false;
  #peerKeeps = false;
  #peerSynced: Synced | null = null;
  #peerOutdated = false;
  #stateSeq = 0;
  #stateSentAt = 0;
  #stateLocalcnt = 0n;
  #stateSynced: Synced | null = null;
  /** The state message that the peer has not answered yet. */
  #stateAsked: "nothing" | ToldState = "nothing";
  /** The peer has stored that its copy is a resync's target: no copy begins before. */
  #peerKnows = false;
  #lastSentAt = 0;
  #lastHeardAt = 0;
  #peerAlive = false;
  /** When the oldest keepalive that the peer has not answered was sent, or -1. */
  #aliveAskedAt = -1;
  #peerCannotFlush = false;
  /** Dirty extents are stale here, and the peer has the good copy. */
  #stale: boolean;
  /**
   * Our map marks all that is stale here. Where an earlier life left "inconsistent" on record, the peer's
   * map may mark more: what was written while this node had no disk, or what was not merged any more.
   */
  #staleMarked: boolean;

  // The local disk.
  #disk: "good" | "turning" | "leaving" | "gone" = "good";
  /** Leaving: wait for what is under way, then say on our own disk that it is stale, then ask the peer. */
  #leaveStep: "drain" | "record" | "peer" = "drain";
  #troubleSince = 0;
  #trouble = "";
  #troubleErrno = 0;
  /** That this copy is stale is on stable storage, here or at the peer. */
  #staleOnRecord: boolean;
  /** Rounds of failed copies since the last pass that ended. */
  #repairRounds = 0;
  /**
   * An operator throws this copy away: "asked" while what is under way ends and "inconsistent" is put on
   * record, "marking" while the map of ones is. Nothing is overwritten before the end.
   */
  #throwAway: "no" | "asked" | "marking" = "no";

  // Metadata.
  #record: PrimaryRecord;
  #recordWriting = false;
  #recordChanged = false;
  #marked = false;
  #marking = false;
  /** Something was acknowledged that the peer turned out to lack. */
  #owes = false;
  /** The peer has everything that was acknowledged: both were in step, and nothing has gone on without it since. */
  #peerIn = false;
  /** "Went on alone" is on stable storage. */
  #wentAlone: boolean;
  /** The last connection went while the peer was being filled from here. */
  #cutShort = false;

  // Activemap on disk.
  #mapWriting = false;
  /** Bits can be cleared on disk, and there has been time. */
  #tidyMap = false;
  #agedAt = 0;

  // The joint flush.
  #flushing = false;
  #flushLocal = NONE;
  #flushLocalErrno = 0;
  #flushRemote = NONE;
  #flushRemoteErrno = 0;
  #flushSeq = 0;
  #flushSentAt = 0;
  #flushWanted = false;
  /** When the round began, the peer lacked nothing: a copy that ended since is not stable there. */
  #flushBeganWhole = false;
  #flushAnsweredEarly = false;
  /** The only whole copy failed a flush, perhaps one of our own: some FLUSH must say so. */
  #flushFault = false;
  /** The peer's cache, as it was last named; and whether the only copy of something may be in there, unflushed. */
  #peerCache: bigint | null = null;
  #doubtful = false;
  /** This instance has had a connection. */
  #met = false;
  /** This instance and a peer that lacked nothing have completed a flush. */
  #flushedTogether = false;
  #lastFlushAt = 0;

  // Resync.
  readonly #window: SyncWindow;
  readonly #pace = new SyncPace();
  #syncActive = false;
  #syncCopiedAny = false;
  #peerErrors = 0;
  #syncRetryAt = 0;
  /** The same where the peer could not store what its copy is worth. */
  #stateRetryAt = 0;
  #syncEnding: "no" | "flush" | "state" | "record" = "no";
  /** The flush that ends the pass began after its last copy. */
  #syncFlushFresh = false;
  /** Every extent was put in line; to be recorded when the map on disk says so. */
  #fillWanted = false;
  /**
   * What is in line, the peer has as well, as far as it was ever written: a full copy was asked for
   * while both were in step, and nothing has failed since. So nobody has to do without the peer's copy.
   */
  #comparing = false;

  #stopping = false;
  #stopStep: "drain" | "flush" | "map" | "done" = "drain";
  #failed = false;

  constructor(options: PrimaryOptions) {
    this.map = options.map;
    this.#window = new SyncWindow(options.map);
    this.#mode = options.mode;
    this.#effectiveMode = options.mode;
    this.#wasAsync = options.mode === "async";
    this.#timeoutMs = options.timeoutMs;
    this.#hasRemote = options.hasRemote;
    this.#record = options.record;
    this.#wentAlone = options.record.alone;
    this.#gateOpen = this.#served = !options.hasRemote;
    // A target of an unfinished resync: what our map marks is stale here.
    this.#stale = this.#staleOnRecord = options.record.state === "inconsistent";
    this.#staleMarked = !this.#stale;
    for (let slot = 0; slot < SLOT_COUNT; slot++) this.#freeSlots[slot] = SLOT_COUNT - 1 - slot;
  }

  // ---- what others may know -------------------------------------------------------------------

  get connected(): boolean {
    return this.#link === "up";
  }

  get record(): PrimaryRecord {
    return this.#record;
  }

  /** Nothing has been served yet: whose data it will be is open (S-9). */
  get fresh(): boolean {
    return !this.#served && !this.#stale;
  }

  /** Clients have been served from this copy as it is. */
  get serving(): boolean {
    return this.#served && !this.#stale;
  }

  /**
   * Whether the peer's data, where it is newer, must not appear under clients: they have been served from this
   * copy, or from the peer's before that one went on without us (S-11).
   * @param peerLocal its count of such times
   */
  clashes(peerLocal: bigint): boolean {
    return this.serving || (this.#served && this.#met && peerLocal !== this.#peerLocal);
  }

  /** Whether the peer may be filled from this copy, all of it. */
  get whole(): boolean {
    return !this.#stale && this.#disk === "good" && this.#throwAway === "no";
  }

  /** This node has acknowledged something alone, and the nodes have not been in step since, as its own record says. */
  get wentAlone(): boolean {
    return this.#wentAlone;
  }

  /**
   * The peer lacks something that was acknowledged here, as far as is known here: it was away, or is not filled yet.
   * What it has received and not flushed does not count.
   */
  get peerLacks(): boolean {
    if (this.#stale) return false;
    if (this.#owes || this.#marked) return true;
    if (this.#link !== "down") return this.map.resyncCount > 0 && !this.#comparing;
    // Of the connections of an earlier life nothing but the record is known.
    const filling = this.#met ? this.#cutShort : this.#record.synced === "filling";
    return this.#wentAlone || filling;
  }

  /** True while dirty extents must be read from the peer. */
  get stale(): boolean {
    return this.#stale;
  }

  /** Could the peer keep the record for this node, were its disk to fail? */
  get peerKeeps(): boolean {
    return this.#link === "up" && this.#peerKeeps;
  }

  /** True where the local disk has failed, and the peer serves every request. */
  get diskless(): boolean {
    return this.#disk === "gone";
  }

  /** Does this copy lead from the peer to here? For a slot that is one. */
  copiesFromPeer(slot: number): boolean {
    if (this.#syncIndex[slot] === REPAIR) return true;
    return this.#stale && !this.map.isGoodHere(this.offset[slot]!, this.length[slot]!);
  }

  get resyncing(): boolean {
    return this.#syncActive;
  }

  /** The count that the peer is about to store, with which the mark of the last outage is spent; or null. */
  get telling(): bigint | null {
    return this.#stateAsked === "uptodate" ? this.#stateLocalcnt : null;
  }

  get peerCannotFlush(): boolean {
    return this.#peerCannotFlush;
  }

  /** Requests that wait for a peer because this node's own copy is stale. */
  get waitingForPeer(): number {
    return this.#peerWaitCount;
  }

  /** Slots by place, as status counts queues (wire protocol §12.4). */
  queues(): { idle: number; local: number; send: number; recv: number; done: number } {
    let local = 0;
    let send = 0;
    let recv = 0;
    let done = 0;
    for (let index = 0; index < this.#activeCount; index++) {
      const slot = this.#active[index]!;
      const state = this.#state[slot]!;
      if (state !== ISSUED) send++;
      else if (this.#local[slot] === PENDING) local++;
      else if (this.#remote[slot] === PENDING || this.#remote[slot] === RECEIVED) recv++;
      else done++;
    }
    return { idle: this.#freeCount, local, send, recv, done };
  }

  /** How many more requests submit() will take now. */
  get room(): number {
    return this.#failed ? 0 : Math.max(0, this.#freeCount - SYNC_RESERVE);
  }

  // ---- the application -------------------------------------------------------------------------

  /**
   * Accepts a request. READ and WRITE are at most IO_MAX bytes; the range lies in the data area.
   *
   * @param memory where the data lies or shall lie in the arena; stays the caller's until release()
   * @returns its slot, or -1 when there is no room: try again after a release()
   */
  submit(
    kind: Kind,
    offset: number,
    length: number,
    memory: number,
    punch: boolean,
    out: PrimaryOutbox,
  ): number {
    if (this.room === 0) return -1;
    assert(kind === FLUSH || (length > 0 && offset + length <= this.map.dataSize));
    assert(kind === ZERO || length <= IO_MAX);
    const slot = this.#take(kind, offset, length);
    this.memory[slot] = memory;
    this.punch[slot] = punch ? 1 : 0;
    this.#appCount++;
    if (kind === READ) this.statistics.reads++;
    else if (kind === WRITE) this.statistics.writes++;
    else if (kind === ZERO) this.statistics.deletes++;
    else this.statistics.flushes++;
    if (this.#gateOpen) this.#begin(slot, out);
    else this.#setState(slot, HELD);
    return slot;
  }

  #take(kind: Kind, offset: number, length: number): number {
    assert(this.#freeCount > 0);
    const slot = this.#freeSlots[--this.#freeCount]!;
    assert(this.#state[slot] === FREE);
    this.kind[slot] = kind;
    this.offset[slot] = offset;
    this.length[slot] = length;
    this.memory[slot] = -1;
    this.seq[slot] = 0;
    this.memsync[slot] = 0;
    this.#local[slot] = NONE;
    this.#localErrno[slot] = 0;
    this.#remote[slot] = NONE;
    this.#remoteErrno[slot] = 0;
    this.#answered[slot] = UNANSWERED;
    this.#riding[slot] = 0;
    this.#syncStep[slot] = 0;
    this.#active[this.#activeCount++] = slot;
    return slot;
  }

  #free(slot: number, out: PrimaryOutbox): void {
    assert(this.#answered[slot] === ANSWERED || this.kind[slot] === SYNC);
    this.#setState(slot, FREE);
    if (this.kind[slot] === SYNC) this.#syncCount--;
    else this.#appCount--;
    let index = 0;
    while (this.#active[index] !== slot) index++;
    this.#active.copyWithin(index, index + 1, this.#activeCount);
    this.#activeCount--;
    this.#freeSlots[this.#freeCount++] = slot;
    out.release(slot);
  }

  #setState(slot: number, state: number): void {
    const before = this.#state[slot]!;
    if (before === HELD) this.#heldCount--;
    else if (before === CONFLICT) this.#conflictCount--;
    else if (before === MAP_WAIT) this.#mapWaitCount--;
    if (state === HELD) this.#heldCount++;
    else if (state === CONFLICT) this.#conflictCount++;
    else if (state === MAP_WAIT) this.#mapWaitCount++;
    this.#state[slot] = state;
  }

  #setAnswered(slot: number, answered: number): void {
    const before = this.#answered[slot]!;
    if (before === WANTS_MARK) this.#markWaitCount--;
    else if (before === WANTS_PEER) this.#peerWaitCount--;
    if (answered === WANTS_MARK) this.#markWaitCount++;
    else if (answered === WANTS_PEER) {
      this.#peerWaitCount++;
      if (before !== WANTS_PEER) this.#waitingSince[slot] = this.#nowMs;
    }
    this.#answered[slot] = answered;
  }

  #answer(slot: number, errno: number, out: PrimaryOutbox): void {
    assert(this.#answered[slot] !== ANSWERED);
    this.#setAnswered(slot, ANSWERED);
    out.answer(slot, errno);
  }

  // ---- from arrival to issue --------------------------------------------------------------------

  /** Takes the first step that is possible now: wait behind an overlapping request, or go on. */
  #begin(slot: number, out: PrimaryOutbox): void {
    const kind = this.kind[slot]!;
    if (kind === FLUSH) {
      this.#setState(slot, ISSUED);
      this.#flushWanted = true;
    } else if ((kind !== READ || this.#readsThere(slot)) && this.#conflicts(slot)) {
      this.#setState(slot, CONFLICT);
    } else if (kind === READ) {
      this.#setState(slot, ISSUED);
      this.#routeRead(slot, out);
    } else if (kind === SYNC && this.#syncIndex[slot] !== REPAIR) {
      this.#syncRead(slot, out);
    } else {
      this.#cover(slot, out);
    }
  }

  /** Does an earlier request overlap that this one must not overtake? */
  #conflicts(slot: number): boolean {
    const start = this.offset[slot]!;
    const end = start + this.length[slot]!;
    const read = this.kind[slot] === READ;
    const sync = this.kind[slot] === SYNC;
    let later = false;
    for (let index = 0; index < this.#activeCount; index++) {
      const other = this.#active[index]!;
      if (other === slot) {
        if (!read) return false;
        later = true;
        continue;
      }
      const kind = this.kind[other]!;
      if (kind === FLUSH) continue;
      if (kind === READ && (read || sync || this.#local[other] === PENDING)) continue;
      const otherStart = this.offset[other]!;
      if (otherStart >= end || otherStart + this.length[other]! <= start) continue;
      // The peer may have a write before this disk has it. Who has read it there must not read older data
      // here afterwards (invariant 5): for a part of the range that is not stale, or by then no more, or whose
      // sectors cannot be read now. That goes for later writes, too, unless they wait for this read.
      if (read) {
        const behind = later && this.#state[other] === CONFLICT;
        if (kind !== SYNC && !behind && !this.#settled(other)) return true;
        continue;
      }
      if (kind === READ) {
        const there = this.#remote[other] === PENDING || this.#state[other] === CONFLICT;
        if (this.#disk !== "gone" && there) return true;
        continue;
      }
      // The connection keeps the order on the peer, so another write need only wait for our own
      // disk. A copy must see both nodes settled, and is itself waited for until it has ended.
      if (sync || kind === SYNC) {
        if (!this.#settled(other)) return true;
      } else if (this.#state[other] !== ISSUED || this.#local[other] === PENDING) {
        return true;
      }
    }
    return false;
  }

  /** Have both legs of a write ended? (It may still wait for its answer.) */
  #settled(slot: number): boolean {
    if (this.kind[slot] === SYNC) return false;
    return this.#state[slot] === ISSUED && this.#local[slot]! >= OK && this.#remote[slot]! >= OK;
  }

  #cover(slot: number, out: PrimaryOutbox): void {
    const verdict = this.map.writeStart(this.offset[slot]!, this.length[slot]!);
    // Without a disk it is the peer that marks extents before it writes.
    if (verdict === "covered" || this.#disk === "gone") this.#issueCovered(slot, out);
    else this.#setState(slot, MAP_WAIT);
  }

  #issueCovered(slot: number, out: PrimaryOutbox): void {
    if (this.kind[slot] !== SYNC) {
      this.#issueWrite(slot, out);
      return;
    }
    this.#setState(slot, ISSUED);
    // What is in line for a copy by now is not repaired: one of the two nodes has the wrong data.
    const inLine = this.map.awaitsResync(this.offset[slot]!, this.length[slot]!);
    if (inLine || this.#link !== "up" || this.#disk === "gone") this.#freeCopy(slot, out);
    else this.#syncRead(slot, out);
  }

  /** The extents are marked on disk: to the peer first, then here (performance: the peer works meanwhile). */
  #issueWrite(slot: number, out: PrimaryOutbox): void {
    this.#setState(slot, ISSUED);
    if (this.#disk === "gone") {
      this.#local[slot] = OK; // nothing to be done here
      this.#sendWrite(slot, out);
      if (this.#remote[slot] === FAILED) this.#advanceWrite(slot, out);
      return;
    }
    assert(this.map.isPersisted(this.offset[slot]!, this.length[slot]!));
    this.#sendWrite(slot, out);
    this.#local[slot] = PENDING;
    if (this.kind[slot] === WRITE) out.localWrite(slot);
    else out.localZero(slot);
  }

  #sendWrite(slot: number, out: PrimaryOutbox): void {
    // A peer without ranged zeroes gets zero WRITEs, which are at most IO_MAX long.
    const sendable = this.kind[slot] === WRITE || this.#peerZeroes || this.length[slot]! <= IO_MAX;
    if (this.#link !== "up" || !sendable) {
      this.#remote[slot] = FAILED;
      this.#peerLacks(slot);
      return;
    }
    this.memsync[slot] = this.kind[slot] === WRITE && this.#effectiveMode === "memsync" ? 1 : 0;
    this.#send(slot, this.kind[slot] as Kind, out);
  }

  #send(slot: number, kind: Kind, out: PrimaryOutbox): void {
    this.seq[slot] = this.#sequence.allocate(slot);
    this.#remote[slot] = PENDING;
    this.#remoteErrno[slot] = 0;
    this.#distrusted[slot] = 0;
    this.#sentAt[slot] = this.#nowMs;
    this.#lastSentAt = this.#nowMs;
    out.sendRequest(slot, kind);
  }

  // ---- reads --------------------------------------------------------------------------------------

  #routeRead(slot: number, out: PrimaryOutbox): void {
    if (this.#local[slot] === FAILED) {
      // The peer's copy serves where it is known to be good.
      if (this.#comparing || !this.#behindThere(slot)) this.#readFromPeer(slot, out);
      else this.#finishRead(slot, this.#localErrno[slot]!, out);
      return;
    }
    if (this.#staleHere(slot)) {
      this.#local[slot] = NONE;
      this.#readFromPeer(slot, out);
      return;
    }
    this.#local[slot] = PENDING;
    out.localRead(slot);
  }

  /** Is the peer asked although there is a disk here, which later reads may be served from? */
  #readsThere(slot: number): boolean {
    return this.#disk !== "gone" && (this.#local[slot] === FAILED || this.#staleHere(slot));
  }

  #staleHere(slot: number): boolean {
    // One that is being given up may have dropped what it took, and the peer has everything.
    if (this.#disk === "gone" || this.#disk === "leaving") return true;
    if (!this.#staleMarked) return true;
    return this.#stale && this.map.isStaleHere(this.offset[slot]!, this.length[slot]!);
  }

  /** Is the range in line for a copy from here to the peer? */
  #behindThere(slot: number): boolean {
    const offset = this.offset[slot]!;
    const length = this.length[slot]!;
    return this.#stale
      ? this.map.isGoodHere(offset, length)
      : this.map.awaitsResync(offset, length);
  }

  /** The local copy is stale or unreadable. */
  #readFromPeer(slot: number, out: PrimaryOutbox): void {
    if (this.#disk === "leaving" && !this.#stale && this.#behindThere(slot)) {
      // The peer has refused a write of it that was answered: no node is known to have it.
      this.#finishRead(slot, this.#troubleErrno, out);
    } else if (this.#stale && this.#behindThere(slot)) {
      // Part of it is good here only: until that has been copied, no node has the whole range.
      this.#setAnswered(slot, WANTS_PEER);
    } else if (this.#link === "up") {
      if (this.#answered[slot] === WANTS_PEER) this.#setAnswered(slot, UNANSWERED);
      this.#send(slot, READ, out);
    } else if (this.#stale) {
      this.#setAnswered(slot, WANTS_PEER);
    } else {
      this.#finishRead(slot, this.#localErrno[slot]! || ERR_IO, out);
    }
  }

  /** The peer has answered a READ. */
  #peerRead(slot: number, errno: number, out: PrimaryOutbox): void {
    const offset = this.offset[slot]!;
    const length = this.length[slot]!;
    if (this.#local[slot] !== FAILED) {
      this.#finishRead(slot, errno, out);
    } else if (!this.#comparing && this.#behindThere(slot)) {
      // An answered write that was on its way there has failed: that copy is older than ours.
      this.#finishRead(slot, this.#localErrno[slot]!, out);
    } else {
      this.#finishRead(slot, errno, out);
      if (errno === 0) this.#repair(offset, length, out);
    }
  }

  #finishRead(slot: number, errno: number, out: PrimaryOutbox): void {
    this.#answer(slot, errno, out);
    this.#free(slot, out);
  }

  // ---- the local disk -------------------------------------------------------------------------------

  /** The slot's local read, write or zero has ended. */
  localDone(slot: number, errno: number, out: PrimaryOutbox): void {
    if (this.kind[slot] === SYNC) {
      this.#syncLocalDone(slot, errno, out);
      return;
    }
    assert(this.#local[slot] === PENDING);
    this.#local[slot] = errno === 0 ? OK : FAILED;
    this.#localErrno[slot] = errno;
    const kind = this.kind[slot]!;
    if (kind === READ) {
      if (errno === 0) {
        // A resync from the peer may have begun while the disk was reading.
        if (this.#staleHere(slot)) this.#begin(slot, out);
        else this.#finishRead(slot, 0, out);
        return;
      }
      this.statistics.readErrors++;
      this.#begin(slot, out);
      return;
    }
    if (errno !== 0) {
      if (kind === WRITE) this.statistics.writeErrors++;
      else this.statistics.deleteErrors++;
    }
    this.#advanceWrite(slot, out);
  }

  /** What was good here only is not any more: it is lost, and a FLUSH must say so. */
  #spoilGoodHere(slot: number, out: PrimaryOutbox): void {
    if (!this.map.spoilGoodHere(this.offset[slot]!, this.length[slot]!)) return;
    this.#flushFault = true;
    this.#eachWaitingUp(out);
  }

  // ---- the peer's answers -------------------------------------------------------------------------

  /** Which slot a reply belongs to (a value for replied(), not always below SLOT_COUNT), or −1 if unknown. */
  slotOfReply(seq: number): number {
    return this.#sequence.slotOf(seq);
  }

  /** Does this slot await READ data from the peer? Its memory takes exactly `length` bytes then. */
  awaitsData(slot: number): boolean {
    if (slot >= SLOT_COUNT || this.#remote[slot] !== PENDING) return false;
    const kind = this.kind[slot]!;
    return kind === READ || (kind === SYNC && this.#syncStep[slot] === 1);
  }

  /** The peer has answered a keepalive. It is alive; what else it owes, it owes still. */
  keepaliveAnswered(): void {
    this.#aliveAskedAt = -1;
  }

  /**
   * A reply has arrived whole (READ data already lies in the slot's memory).
   *
   * @param received the first of a memsync write's two replies
   * @param errno 0 or a Linux errno
   * @returns null, or what is wrong with it: the caller disconnects
   */
  replied(slot: number, received: boolean, errno: number, out: PrimaryOutbox): string | null {
    this.#lastHeardAt = this.#nowMs;
    if (slot === STATE_SLOT) {
      this.#sequence.forget(this.#stateSeq);
      this.#stateReplied(errno, out);
      return null;
    }
    if (slot === FLUSH_SLOT) {
      if (received) return "a FLUSH was answered with `received`";
      this.#sequence.forget(this.#flushSeq);
      this.#flushRemote = errno === 0 ? OK : FAILED;
      this.#flushRemoteErrno = errno;
      if (errno !== 0 && !CANNOT_FLUSH.includes(errno)) this.#distrustPeer(out);
      this.#advanceFlush(out);
      return null;
    }
    if (received && errno === 0) {
      if (this.memsync[slot] === 0) return "`received` for a request that is no memsync write";
      if (this.#remote[slot] !== PENDING) return "`received` twice";
      this.#remote[slot] = RECEIVED;
      this.#sentAt[slot] = this.#nowMs;
      this.#advanceWrite(slot, out);
      return null;
    }
    if (errno === 0 && this.memsync[slot] === 1 && this.#remote[slot] !== RECEIVED) {
      return "a memsync write was answered without `received`";
    }
    this.#sequence.forget(this.seq[slot]!);
    const failure = errno === 0 && this.#distrusted[slot] === 1 ? ERR_IO : errno;
    this.#remote[slot] = failure === 0 ? OK : FAILED;
    this.#remoteErrno[slot] = failure;
    const kind = this.kind[slot]!;
    if (kind === SYNC) {
      this.#syncRemoteDone(slot, failure, out);
    } else if (kind === READ) {
      this.#peerRead(slot, failure, out);
    } else {
      if (failure !== 0) this.#peerRefused(slot, failure, out);
      this.#advanceWrite(slot, out);
    }
    return null;
  }

  /** The peer could not write (BD-2): it lacks this range now. */
  #peerRefused(slot: number, errno: number, out: PrimaryOutbox): void {
    // Others like it may follow into the same extents. But what is in line already does not wait for them.
    if (this.map.resyncCount === 0) this.#syncRetryAt = this.#nowMs + SYNC_RETRY_MS;
    this.#peerLacks(slot);
    if (this.#answered[slot] === ANSWERED) {
      assert(!this.#stale);
      this.#owes = true;
      this.#mark(out);
    }
    if (this.#peerErrors++ === 0) {
      out.notice(
        `the peer could not write at offset ${this.offset[slot]} (error ${errno}); its copy is synchronized again from here`,
      );
    }
  }

  /** The nodes differ in this slot's range: it is copied at the next opportunity. */
  #peerLacks(slot: number): void {
    this.#comparing = false;
    this.map.schedule(this.offset[slot]!, this.length[slot]!);
  }

  // ---- when a write may be answered ---------------------------------------------------------------

  /** A leg of a WRITE or ZERO has moved. */
  #advanceWrite(slot: number, out: PrimaryOutbox): void {
    const local = this.#local[slot]!;
    const remote = this.#remote[slot]!;
    if (this.#answered[slot] !== ANSWERED) this.#maybeAnswer(slot, out);
    if (local < OK || remote < OK || this.#answered[slot] !== ANSWERED) return;
    // Both nodes are done with it. A failed leg leaves the extents in line for resync.
    if (local === FAILED) this.#peerLacks(slot);
    this.map.writeDone(this.offset[slot]!, this.length[slot]!);
    this.#free(slot, out);
  }

  #maybeAnswer(slot: number, out: PrimaryOutbox): void {
    const local = this.#local[slot]!;
    const remote = this.#remote[slot]!;
    if (local === PENDING || local === NONE) return;
    if (local === FAILED) {
      // Not before the peer has ended, so that nothing of it comes later.
      if (remote === OK) this.#answerOverPeer(slot, out);
      else if (remote === FAILED) this.#answerNowhere(slot, out);
      return;
    }
    switch (remote) {
      case OK:
        this.#answer(slot, 0, out);
        return;
      case RECEIVED:
        if (this.#effectiveMode !== "fullsync" && this.#mayBeEarly) this.#answer(slot, 0, out);
        return;
      case PENDING:
        if (this.#effectiveMode === "async" && this.#mayBeEarly) this.#answer(slot, 0, out);
        return;
      default:
        this.#answerAlone(slot, out);
    }
  }

  /**
   * May a write be answered before the peer has written it? A stale copy is no second one: what the
   * peer's worker loses would be lost. And a disk in trouble must not pile up more of them.
   */
  get #mayBeEarly(): boolean {
    return !this.#stale && this.#disk === "good";
  }

  /**
   * Our own disk failed this write, and the peer has it. Its success counts only where the peer is one
   * of ours and has everything else, and after it is on record that this copy has not (S-7, BD-3, BD-4): else the
   * application learns that the range is undefined.
   */
  #answerOverPeer(slot: number, out: PrimaryOutbox): void {
    const goodHere = this.map.isGoodHere(this.offset[slot]!, this.length[slot]!);
    if (!this.#peerStates || goodHere) {
      this.#answer(slot, this.#localErrno[slot]!, out);
    } else if (this.#stale && this.#staleOnRecord) {
      this.map.schedule(this.offset[slot]!, this.length[slot]!);
      if (this.#nowMs >= this.#syncRetryAt) this.#syncRetryAt = this.#nowMs + SYNC_RETRY_MS;
      this.#answer(slot, 0, out);
    } else if (this.#stale || this.#disk !== "good") {
      this.#setAnswered(slot, WANTS_RECORD);
    } else if (this.#peerWhole && !this.#stopping) {
      this.#setAnswered(slot, WANTS_RECORD);
      this.#disk = "turning";
      this.#troubleSince = this.#nowMs;
    } else {
      this.#answer(slot, this.#localErrno[slot]!, out);
    }
  }

  /** Neither node has it. Where the peer alone counts, and is away, it may still get it. */
  #answerNowhere(slot: number, out: PrimaryOutbox): void {
    if (this.#stale && this.#staleOnRecord && this.#link !== "up") {
      this.#setAnswered(slot, WANTS_PEER);
    } else {
      this.#answer(slot, this.#localErrno[slot]!, out);
    }
  }

  /** The peer has not done its part: nothing is acknowledged before that is on record. */
  #answerAlone(slot: number, out: PrimaryOutbox): void {
    if (this.#disk === "leaving") {
      // Our own disk has failed, and may say by now that it is stale: never alone from here on.
      this.#setAnswered(slot, WANTS_RECORD);
      return;
    }
    if (this.#stale) {
      // Our own copy is not whole, so it must not go on alone (S-6).
      if (this.#link === "up") this.#answer(slot, this.#remoteErrno[slot]! || ERR_IO, out);
      else this.#setAnswered(slot, WANTS_PEER);
      return;
    }
    if (this.#marked) {
      this.#answer(slot, 0, out);
      return;
    }
    this.#setAnswered(slot, WANTS_MARK);
    this.#mark(out);
  }

  /** Starts to make "went on alone" stable: localcnt + 1, once per outage (invariant 3). */
  #mark(out: PrimaryOutbox): void {
    // During a handshake the counters are on the wire: nothing changes until the peer has judged.
    if (this.#marked || this.#marking || this.#handshaking) return;
    assert(!this.#stale);
    this.#marking = true;
    this.#peerIn = false;
    this.#setRecord({ ...this.#record, localcnt: this.#record.localcnt + 1n, alone: true }, out);
  }

  #setRecord(record: PrimaryRecord, out: PrimaryOutbox): void {
    this.#record = record;
    if (this.#recordWriting) {
      this.#recordChanged = true;
      return;
    }
    this.#recordWriting = true;
    this.#recordChanged = false;
    out.writeRecord(record);
  }

  /** The metadata block is on stable storage (or not). */
  recordWritten(errno: number, out: PrimaryOutbox): void {
    assert(this.#recordWriting);
    this.#recordWriting = false;
    if (this.#failed) {
      if (errno === 0 && this.#recordChanged) this.#setRecord(this.#record, out);
      return;
    }
    if (this.#disk === "leaving" && this.#leaveStep === "record") {
      // Written or not: the peer's record is what counts.
      this.#leaveStep = "peer";
      if (this.#link === "up") this.#sendState("sole", out);
      return;
    }
    if (errno !== 0) {
      this.#marking = false;
      if (this.#syncEnding === "record") {
        // The peer has noted that both are in step; what it notes next makes up for our part.
        this.#syncEnding = "no";
        this.#syncActive = false;
      }
      this.#loseDisk("the metadata block", errno, out);
      return;
    }
    if (this.#recordChanged) {
      this.#setRecord(this.#record, out);
      return;
    }
    this.#wentAlone = this.#record.alone;
    if (this.#stale && !this.#staleOnRecord) {
      assert(this.#record.state === "inconsistent");
      this.#staleOnRecord = true;
      this.#eachWaiting(WANTS_RECORD, out);
    }
    if (this.#throwAway === "marking" && !this.#fillWanted) this.#throwAway = "no";
    if (this.#throwAway === "asked" && this.#disk === "good") this.#throwAllAway(out);
    if (this.#syncEnding === "record") {
      this.#syncEnding = "no";
      this.#syncActive = this.map.resyncCount > 0;
      if (this.#syncCopiedAny) out.event("syncdone");
      this.#syncCopiedAny = false;
    }
    if (this.#marking) {
      this.#marking = false;
      this.#marked = true;
      this.#eachWaiting(WANTS_MARK, out);
    }
    if (this.#link === "merging") this.#maybeMerged(out);
  }

  /** Tries again to answer the slots that waited for the mark or for the peer. */
  #eachWaiting(reason: number, out: PrimaryOutbox): void {
    for (let index = 0; index < this.#activeCount; ) {
      const slot = this.#active[index]!;
      if (this.#answered[slot] === reason) {
        this.#setAnswered(slot, UNANSWERED);
        if (this.kind[slot] === FLUSH) {
          this.#answerAlone(slot, out);
          if (this.#answered[slot] === ANSWERED) this.#free(slot, out);
        } else if (this.kind[slot] === READ) this.#begin(slot, out);
        else this.#advanceWrite(slot, out);
      }
      // The slot may have been freed, and the list closed up behind it.
      if (this.#active[index] === slot) index++;
    }
  }

  /** Reads that no node could serve whole, on a connection that stands: perhaps one can now. */
  #eachWaitingUp(out: PrimaryOutbox): void {
    if (this.#peerWaitCount > 0 && this.#link === "up") this.#eachWaiting(WANTS_PEER, out);
  }

  // ---- the activemap on disk --------------------------------------------------------------------

  /** The changes taken at writeMap() are on stable storage (or not). */
  mapWritten(errno: number, out: PrimaryOutbox): void {
    assert(this.#mapWriting);
    this.#mapWriting = false;
    // Leaving: what waits for the map is issued over the peer.
    if (this.#disk === "gone" || this.#disk === "leaving") return;
    if (errno !== 0) {
      this.#loseDisk("the activemap", errno, out);
      return;
    }
    for (let index = 0; index < this.#activeCount && this.#mapWaitCount > 0; ) {
      const slot = this.#active[index]!;
      if (
        this.#state[slot] === MAP_WAIT &&
        this.map.isPersisted(this.offset[slot]!, this.length[slot]!)
      ) {
        this.#issueCovered(slot, out);
      }
      if (this.#active[index] === slot) index++;
    }
    this.#maybeFilling(out);
    if (this.#link === "merging") this.#maybeMerged(out);
  }

  // ---- the joint flush ------------------------------------------------------------------------------

  #startFlush(out: PrimaryOutbox): void {
    assert(!this.#flushing);
    this.#flushing = true;
    this.#flushWanted = false;
    this.#lastFlushAt = this.#nowMs;
    this.#flushBeganWhole = this.#peerLacksNothing;
    this.map.flushStart();
    for (let index = 0; index < this.#activeCount; index++) {
      const slot = this.#active[index]!;
      if (this.kind[slot] === FLUSH && this.#state[slot] === ISSUED) this.#riding[slot] = 1;
    }
    this.#flushRemoteErrno = 0;
    this.#flushAnsweredEarly = false;
    if (this.#link === "up") {
      this.#flushSeq = this.#sequence.allocate(FLUSH_SLOT);
      this.#flushRemote = PENDING;
      this.#flushSentAt = this.#nowMs;
      this.#lastSentAt = this.#nowMs;
      out.sendFlush(this.#flushSeq);
    } else {
      this.#flushRemote = FAILED;
    }
    if (this.#disk === "gone") {
      this.#flushLocal = OK;
      this.#advanceFlush(out);
    } else {
      this.#flushLocal = PENDING;
      out.localFlush();
    }
  }

  /** The local flush has ended. */
  localFlushed(errno: number, out: PrimaryOutbox): void {
    assert(this.#flushLocal === PENDING);
    // A flush of the map or of the metadata that has failed took along what this one would have found.
    const believable = this.#disk !== "leaving";
    this.#flushLocal = believable && errno === 0 ? OK : FAILED;
    this.#flushLocalErrno = errno;
    if (errno !== 0) this.statistics.flushErrors++;
    this.#advanceFlush(out);
  }

  #advanceFlush(out: PrimaryOutbox): void {
    if (this.#flushLocal === PENDING) return;
    if (this.#flushLocal === OK && this.#flushRemote === PENDING) {
      if (this.#effectiveMode === "async" && this.#mayBeEarly) {
        this.#flushAnsweredEarly = this.#flushBeganWhole;
        this.#answerRiders(out);
      }
      return;
    }
    if (this.#flushRemote === PENDING) return;
    const errno = this.#flushRemoteErrno;
    if (this.#flushRemote === FAILED && CANNOT_FLUSH.includes(errno)) {
      this.#peerCannotFlush = true;
      this.#flushRemote = OK;
    }
    this.#flushing = false;
    if (this.#flushLocal === OK && this.#flushRemote === OK) {
      this.map.flushDone();
      this.#doubtful = false;
      if (!this.#stale && this.map.resyncCount === 0) this.#flushedTogether = true;
      if (this.#syncEnding === "flush") this.#endSync(out);
    } else {
      this.map.flushFailed();
      if (this.#syncEnding === "flush") this.#syncEnding = "no";
      // What the peer may have lost must be copied again, and it is not whole until then.
      if (this.#flushRemote === FAILED) {
        const doubtful = this.#scheduleUnflushed();
        if (errno !== 0) this.#peerFlushFailed(out);
        if (this.#stale && errno !== 0) this.#flushFault = true;
        else if (doubtful) this.#doubtful = true;
      }
      // The peer's answer, that is: a round that began without a peer says nothing about the one that has come.
      if (errno !== 0) this.#syncRetryAt = this.#nowMs + SYNC_RETRY_MS;
    }
    if (this.#flushAnsweredEarly && !this.#flushCovers()) {
      // async: stable here was enough, and now the peer may lose what it has written (S-4).
      this.#owes = true;
      if (this.owesMark) this.#mark(out);
    }
    if (this.#flushLocal === FAILED) {
      // What the page cache shows after a failed flush cannot be believed (invariant 6).
      this.#loseDisk("a cache flush", this.#flushLocalErrno, out);
      this.#rideAgain();
      return;
    }
    this.#answerRiders(out);
  }

  /** FLUSHes in line ask for another round: with the peer that has come, or without the disk that has gone. */
  #rideAgain(): void {
    for (let index = 0; index < this.#activeCount; index++) {
      const slot = this.#active[index]!;
      if (this.kind[slot] !== FLUSH || this.#state[slot] !== ISSUED) continue;
      if (this.#answered[slot] === ANSWERED) continue;
      this.#setAnswered(slot, UNANSWERED);
      this.#riding[slot] = 0;
      this.#flushWanted = true;
    }
  }

  #answerRiders(out: PrimaryOutbox): void {
    if (this.#flushFault) {
      this.#failFlushes(out);
      return;
    }
    for (let index = 0; index < this.#activeCount; ) {
      const slot = this.#active[index]!;
      if (this.kind[slot] === FLUSH && this.#riding[slot] === 1) this.#answerFlush(slot, out);
      if (this.#active[index] === slot) index++;
    }
  }

  /**
   * The only cache that had it has dropped what it could not write: the next flush there succeeds without it.
   * Who asked before anybody was told asked for that, too: of all FLUSHes in line none says that it is stable.
   */
  #failFlushes(out: PrimaryOutbox): void {
    for (let index = 0; index < this.#activeCount; ) {
      const slot = this.#active[index]!;
      if (this.kind[slot] === FLUSH) {
        // Somebody who has gone may come back and ask again, and must not hear that all is stable.
        if (this.#flushFault && out.hears(slot)) {
          out.lossTold();
          this.#flushFault = false;
        }
        this.#answer(slot, this.#flushRemoteErrno || ERR_IO, out);
        this.#free(slot, out);
      }
      if (this.#active[index] === slot) index++;
    }
  }

  /** A FLUSH whose round has ended (async: whose local part has). */
  #answerFlush(slot: number, out: PrimaryOutbox): void {
    assert(this.#riding[slot] === 1);
    if (this.#flushCovers()) this.#answer(slot, 0, out);
    else if (this.#flushRemote !== FAILED && this.#peerLacksNothing) {
      // By now: the next round covers it.
      this.#riding[slot] = 0;
      this.#flushWanted = true;
    } else this.#answerAlone(slot, out);
    if (this.#answered[slot] === ANSWERED) this.#free(slot, out);
  }

  /** Is what was acknowledged before this round stable wherever the mode wants it? */
  #flushCovers(): boolean {
    if (this.#flushRemote !== FAILED) return this.#flushBeganWhole && this.#peerLacksNothing;
    // Alone, but with nothing that the peer could lack; what it lacked before this instance began
    // is unknown until they have flushed together (S-4b).
    const { dirtyCount, unflushedCount } = this.map;
    return this.#flushedTogether && !this.#stale && dirtyCount === 0 && unflushedCount === 0;
  }

  /** Is nothing in line for a copy to the peer? A stale primary has nothing else, save for what is good here. */
  get #peerLacksNothing(): boolean {
    if (this.#stale) return this.map.goodHereCount === 0;
    return this.#comparing || this.map.resyncCount === 0;
  }

  // ---- the connection -------------------------------------------------------------------------------

  /**
   * Other settings, from the next decision on (BD-32). What was answered stays answered under the old
   * mode; what was not is answered under the new one, so async → fullsync may wait for the peer, and a
   * FLUSH from now on covers what was answered early: it follows the writes on their connection.
   *
   * @param timeoutMs > 0
   */
  reconfigure(mode: Mode, timeoutMs: number): void {
    assert(timeoutMs > 0);
    this.#mode = mode;
    if (mode === "async") this.#wasAsync = true;
    this.#timeoutMs = timeoutMs;
    if (this.#link !== "down") this.#negotiateMode();
  }

  /** The mode wanted, as far as this peer understands it (BD-32). */
  #negotiateMode(): void {
    const unknown = this.#mode === "memsync" && this.#peerVersion < 2;
    this.#effectiveMode = unknown ? "fullsync" : this.#mode;
  }

  /**
   * A handshake is about to send our counters: from now to linkUp() or handshakeFailed() they stand.
   *
   * @returns the counters to send, or null while a metadata write is under way: ask again later
   */
  handshakeBegin(): PrimaryRecord | null {
    assert(this.#link === "down");
    if (this.#recordWriting) return null;
    this.#handshaking = true;
    return this.#record;
  }

  /** Gives the resource its id, stably, before the first P2 carries it (disk format §2.1). */
  adoptResuid(resuid: bigint, out: PrimaryOutbox): void {
    assert(this.#record.resuid === 0n && resuid !== 0n);
    this.#setRecord({ ...this.#record, resuid }, out);
  }

  /** After diskFailed(): what the peer may lack is on its way to the record. */
  get lastRecordPending(): boolean {
    return this.#failed && this.#recordWriting;
  }

  /** The peer may lack something that was answered, and the mark that says so is not on disk. */
  get owesMark(): boolean {
    return this.#owes && !this.#marked && !this.#stale;
  }

  /** Is a metadata write under way? */
  get recordPending(): boolean {
    return this.#recordWriting;
  }

  /** fullSync() has not reached the disk yet. */
  get fillPending(): boolean {
    return this.#fillWanted || this.#recordWriting;
  }

  handshakeFailed(out: PrimaryOutbox): void {
    this.#handshaking = false;
    if (this.#markWaitCount > 0 || this.owesMark) this.#mark(out);
  }

  /** The first connection attempt has ended, or took too long to wait for: requests may start. */
  openGate(out: PrimaryOutbox): void {
    if (this.#gateOpen) return;
    this.#gateOpen = true;
    this.#releaseHeld(out);
  }

  #releaseHeld(out: PrimaryOutbox): void {
    this.#served = true;
    for (let index = 0; index < this.#activeCount && this.#heldCount > 0; ) {
      const slot = this.#active[index]!;
      if (this.#state[slot] === HELD) this.#begin(slot, out);
      if (this.#active[index] === slot) index++;
    }
  }

  /**
   * The peer accepted us. Its map is merged and stored before the first request goes out:
   * `connected` turns true then.
   */
  linkUp(peer: PeerState, out: PrimaryOutbox): void {
    assert(this.#link === "down" && this.#handshaking);
    this.#link = "merging";
    this.#gateOpen = false;
    if (peer.localcnt !== this.#peerLocal && this.map.spoilGoodHere(0, this.map.dataSize)) {
      // It has been primary itself meanwhile: what it wrote then is not to be overwritten.
      this.#flushFault = true;
    }
    if (this.#doubtful && (peer.cache === null || peer.cache !== this.#peerCache)) {
      this.#doubtful = false;
      this.#flushFault = true;
    }
    this.#peerCache = peer.cache;
    const lastSeen = this.#peerLocal;
    this.#peerLocal = peer.localcnt;
    this.#peerRemote = peer.remotecnt;
    this.#peerZeroes = peer.zeroes;
    this.#peerStates = peer.states;
    this.#peerKeeps = peer.keeps;
    this.#peerAlive = peer.alive;
    this.#aliveAskedAt = -1;
    this.#peerSynced = peer.synced;
    this.#peerOutdated = peer.outdated;
    this.#peerKnows = false;
    this.#peerCannotFlush = false;
    this.#peerVersion = peer.version;
    this.#negotiateMode();
    let record = this.#record;
    if (this.#disk === "gone") {
      this.#meetWithoutDisk(peer, lastSeen, out);
      return;
    }
    if (peer.virgin) {
      assert(!this.#stale);
      // Created anew: the counts we remember are another copy's. Ours must be ahead of its zeroes.
      assert(peer.localcnt === 0n && peer.source === "primary");
      const localcnt = record.localcnt === 0n ? 1n : record.localcnt;
      record = { ...record, localcnt, remotecnt: 0n };
    }
    if (peer.map !== null) this.map.merge(peer.map);
    // Until they are in step: it may be another disk, or lack what its cache has lost.
    if (peer.virgin || this.map.resyncCount > 0) this.#peerIn = false;
    const whole = this.map.resyncCount === this.map.extentCount;
    // Both new: whatever was ever written is marked.
    if (peer.virgin && !whole) record = { ...record, synced: "written" };
    if (whole && this.#syncedInStep() !== "all") this.#fillWanted = true;
    if (peer.source === "secondary") {
      // Stable before the first copy: a mix of old and new blocks must say so (BD-15).
      this.#stale = true;
      if (record.state !== "inconsistent") {
        this.#staleOnRecord = false;
        record = { ...record, state: "inconsistent" };
      }
    }
    // What an earlier instance acknowledged may be in that cache only: nothing here remembers.
    if (this.#stale && !this.#met) this.#doubtful = true;
    this.#met = true;
    if (record !== this.#record) this.#setRecord(record, out);
    this.#maybeMerged(out);
  }

  /**
   * Before anything else is asked of it, the peer knows that it keeps the record (S-1).
   * It has known before: its count is above all that we have on record, and does not go back.
   */
  #meetWithoutDisk(peer: PeerState, lastSeen: bigint, out: PrimaryOutbox): void {
    if (!this.#peerKeeps) {
      out.disconnect("this node has lost its disk, and the peer cannot keep the record for it");
    } else if (peer.source !== "secondary" || peer.localcnt < lastSeen) {
      this.#peerLocal = lastSeen;
      out.disconnect(
        "this node has lost its disk, and the peer's copy is older than the one that it has worked over: its " +
          "metadata were rolled back, or it is another disk",
      );
    } else {
      this.#sendState("sole", out);
    }
  }

  #maybeMerged(out: PrimaryOutbox): void {
    assert(this.#link === "merging");
    if (this.#recordWriting || this.#mapWriting || this.map.mustWrite) return;
    this.#merged(out);
  }

  #merged(out: PrimaryOutbox): void {
    this.#link = "up";
    this.#staleMarked = true;
    this.#handshaking = false;
    this.#maybeFilling(out);
    this.#lastSentAt = this.#nowMs;
    this.#peerErrors = 0;
    this.#syncRetryAt = this.#stateRetryAt = 0;
    // First of all: with the first request the peer forgets what its own map says that it lacks (BD-15).
    if (this.#peerStates && !this.#stale && this.map.resyncCount > 0) {
      this.#sendState("inconsistent", out);
    }
    this.#resend(out);
    if (this.#disk !== "gone") this.#beginPass(out);
    this.#gateOpen = true;
    this.#eachWaiting(WANTS_PEER, out);
    this.#releaseHeld(out);
  }

  /** Unanswered writes and flushes of the time without a peer go to it after all, oldest first. */
  #resend(out: PrimaryOutbox): void {
    this.#rideAgain();
    for (let index = 0; index < this.#activeCount; ) {
      const slot = this.#active[index]!;
      this.#resendSlot(slot, out);
      if (this.#active[index] === slot) index++;
    }
  }

  #resendSlot(slot: number, out: PrimaryOutbox): void {
    const kind = this.kind[slot]!;
    if (this.#state[slot] !== ISSUED || this.#answered[slot] === ANSWERED) return;
    if (kind === WRITE || kind === ZERO) {
      assert(this.#remote[slot] === FAILED);
      this.#setAnswered(slot, UNANSWERED);
      this.#sendWrite(slot, out);
      // A ZERO too long for this peer: nothing more will come, so it is answered alone.
      if (this.#remote[slot] === FAILED) this.#advanceWrite(slot, out);
    }
  }

  /** The connection is gone: everything not known to be stable on both nodes is in line for resync. */
  linkDown(out: PrimaryOutbox): void {
    this.#handshaking = false;
    if (this.#link === "down") return;
    const wasSyncing = this.#syncActive && this.map.resyncCount > 0;
    this.#cutShort = this.map.resyncCount > 0 && !this.#comparing;
    this.#link = "down";
    this.#gateOpen = true;
    this.#sequence.forgetAll();
    this.#stateAsked = "nothing";
    this.#syncActive = false;
    this.#syncEnding = "no";
    this.#comparing = false;
    if (this.#scheduleUnflushed()) this.#doubtful = true;
    this.#window.abandon();
    if (wasSyncing) out.event("syncintr");

    for (let index = 0; index < this.#activeCount; ) {
      const slot = this.#active[index]!;
      this.#loseRemote(slot, out);
      if (this.#active[index] === slot) index++;
    }
    // After the writes, so that a FLUSH sees what the peer may lack.
    if (this.#flushing && this.#flushRemote === PENDING) {
      this.#flushRemote = FAILED;
      this.#advanceFlush(out);
      if (this.#failed) return; // the disk takes nothing more
    }
    // Lost while merging: what waited for a mark may have learned that this copy is stale.
    this.#eachWaiting(WANTS_MARK, out);
    this.#releaseHeld(out);
    // Acknowledged writes that the peer may lack (async; memsync after `received`): S-4.
    if (this.owesMark) this.#mark(out);
  }

  /**
   * The peer may have lost what it has not flushed, with its machine's power. Where this copy is stale, it is
   * still good there: it goes to the peer, before everything else comes from it. What nobody may
   * have any more, a FLUSH must not call stable.
   *
   * @returns may something be nobody's any more, if the peer has lost it?
   */
  #scheduleUnflushed(): boolean {
    const peerAlone = this.#disk === "gone" && this.map.unflushedCount > 0;
    const overlaps = this.map.scheduleUnflushed(this.#worthHere);
    return this.#stale && (peerAlone || overlaps);
  }

  /** What is in line for a copy is stale here, or at the peer. */
  get #worthHere(): "stale" | "whole" {
    return this.#stale && this.#disk !== "gone" ? "stale" : "whole";
  }

  /**
   * A flush has failed at the peer: what it had written it may have dropped, and no later flush tells. So
   * of what is under way its success counts no more, now or later, copies are made once more, and nothing
   * is read there that could be had here.
   */
  #distrustPeer(out: PrimaryOutbox): void {
    const here = this.#worthHere;
    this.#comparing = false;
    this.#scheduleUnflushed();
    this.map.copyAgain(here);
    for (let index = 0; index < this.#activeCount; ) {
      const slot = this.#active[index]!;
      const kind = this.kind[slot]!;
      const remote = this.#remote[slot]!;
      const issued = this.#state[slot] === ISSUED && (kind === WRITE || kind === ZERO);
      if (issued && remote !== NONE && remote !== FAILED) {
        this.map.scheduleWrite(this.offset[slot]!, this.length[slot]!, here);
        if (remote === OK) {
          this.#remote[slot] = FAILED;
          this.#remoteErrno[slot] = ERR_IO;
          this.#advanceWrite(slot, out);
        } else this.#distrusted[slot] = 1;
      } else if (remote === PENDING && !this.#stale) this.#distrusted[slot] = 1;
      if (this.#active[index] === slot) index++;
    }
  }

  #loseRemote(slot: number, out: PrimaryOutbox): void {
    const kind = this.kind[slot]!;
    if (kind === SYNC) {
      // Reading or writing the local disk goes on; the slot ends with it.
      this.#remote[slot] = NONE;
      if (this.#state[slot] !== ISSUED || this.#local[slot] !== PENDING) this.#freeCopy(slot, out);
      else this.#syncStep[slot] = 3;
      return;
    }
    if (this.#state[slot] !== ISSUED) return;
    const remote = this.#remote[slot]!;
    if (remote === NONE || remote === FAILED) return;
    // A leg that has ended well counts no more, either: what the peer wrote on this connection was
    // not flushed on it (S-3), and a write that still waits for our own disk is in no epoch yet.
    this.#remote[slot] = FAILED;
    if (kind === READ) {
      this.#readFromPeer(slot, out);
      return;
    }
    this.map.schedule(this.offset[slot]!, this.length[slot]!);
    if (this.#answered[slot] === ANSWERED) this.#owes = true;
    this.#advanceWrite(slot, out);
  }

  // ---- resync ------------------------------------------------------------------------------------

  /**
   * Puts every extent in line to be copied to the peer, never-written ones as well (BD-16). The
   * application is not disturbed, and the peer stays as good as it was; what a crash leaves uncopied
   * stays in line.
   *
   * @returns false where this copy is not whole itself, or its disk fails: then nothing changes
   */
  fullSync(out: PrimaryOutbox): boolean {
    if (this.#stale || this.#disk !== "good") return false;
    if (this.#record.synced === "filling") return true;
    this.#comparing = this.#link === "up" && this.map.resyncCount === 0;
    this.map.merge(new Uint8Array(this.map.regionSize).fill(0xff));
    this.#fillWanted = true;
    this.#maybeFilling(out);
    return true;
  }

  // ---- what operators order ------------------------------------------------------------------------

  /**
   * Whether copies begin, and how fast. Neither touches what is acknowledged: new writes go to both nodes,
   * what is stale here is read from the peer as it is wanted, and what a FLUSH waits for is copied at once.
   *
   * @param rate bytes per second, 0 = no limit. A copy begins while there is credit, and may exceed it: in
   *   any time t at most rate·t + {@link syncBurst} + IO_MAX bytes begin.
   */
  orderSync({ held, rate }: { readonly held: boolean; readonly rate: number }): void {
    this.#pace.order(held, rate, this.#nowMs);
  }

  get syncHeld(): boolean {
    return this.#pace.held;
  }

  /** How long until the next copy may begin, where nothing but the limit stands in the way; else 0. */
  get syncPauseMs(): number {
    return this.#syncActive && this.map.resyncCount > 0 ? this.#pace.pauseMs : 0;
  }

  /** Call when syncPauseMs has passed, then pump(). */
  onSyncTime(nowMs: number): void {
    assert(nowMs >= this.#nowMs);
    this.#nowMs = nowMs;
    this.#pace.earn(nowMs);
  }

  /** Why this copy cannot be thrown away now, or null: the peer has everything, and serves what is wanted. */
  get indispensable(): "alone" | "peer-lacks" | "peer-legacy" | "disk" | null {
    if (this.#disk === "gone" || this.#disk === "leaving") return "disk";
    if (this.#link !== "up") return "alone";
    if (!this.#peerStates) return "peer-legacy";
    // It may have everything, and not know it yet.
    const telling = this.#syncActive && !this.#stale;
    return this.#peerWhole && !telling ? null : "peer-lacks";
  }

  /**
   * Throws this copy away: "inconsistent" on record, then every extent in line to be copied from the peer.
   * Meanwhile the application is served from there. `invalidating` is true until that is stable.
   */
  invalidate(): void {
    assert(this.indispensable === null && !this.#stopping);
    if (this.#throwAway !== "no") return;
    this.#throwAway = "asked";
    if (this.#disk === "good") {
      this.#disk = "turning";
      this.#troubleSince = this.#nowMs;
    }
  }

  /** Is a copy being thrown away, or about to be? */
  get invalidating(): boolean {
    return this.#throwAway !== "no";
  }

  /** That this copy lacks something is on record, so its map may say that it lacks everything. */
  #throwAllAway(out: PrimaryOutbox): void {
    this.#throwAway = "marking";
    this.map.merge(new Uint8Array(this.map.regionSize).fill(0xff));
    this.#fillWanted = true;
    this.#maybeFilling(out);
  }

  /** Records the full copy once the map on disk holds all of it: not before, or it could be forgotten. */
  #maybeFilling(out: PrimaryOutbox): void {
    if (!this.#fillWanted || this.#mapWriting || this.map.mustWrite) return;
    this.#fillWanted = false;
    this.#setRecord({ ...this.#record, synced: "filling" }, out);
  }

  /** What both nodes may record when nothing is left to copy. */
  #syncedInStep(): Synced | null {
    const own = this.#record.synced;
    if (own === "filling") return "all";
    if (!this.#peerStates) return own;
    if (own === null || this.#peerSynced === null) return null;
    return own === "all" && this.#peerSynced === "all" ? "all" : "written";
  }

  #beginPass(out: PrimaryOutbox): void {
    this.#syncActive = true;
    this.#syncCopiedAny = false;
    this.#syncEnding = "no";
    this.statistics.syncCopied = 0;
    this.statistics.syncExtents = 0;
    this.statistics.syncStartedAt = this.#nowMs;
    this.statistics.syncTotalExtents = this.map.resyncCount;
    if (this.map.resyncCount > 0) out.event("syncstart");
  }

  /**
   * The peer has failed a flush. One of ours has put that on record: even with nothing to copy it is to be
   * told when it lacks nothing any more. Of another one only our own record can say it.
   */
  #peerFlushFailed(out: PrimaryOutbox): void {
    if (this.#link !== "up") return;
    if (this.#peerStates) this.#peerOutdated = true;
    else if (!this.#stale) {
      this.#owes = true;
      this.#mark(out);
    }
  }

  /** Starts copies while there is room (behaviour §8, pipelined: BD-28). */
  #pumpSync(out: PrimaryOutbox): void {
    if (this.#link !== "up" || this.#stopping || this.#failed) return;
    if (this.#disk === "leaving" || this.#disk === "gone") return;
    if (!this.#syncActive) {
      // Failed writes and flushes put extents in line long after the pass has ended, or leave only words behind.
      const toTell = this.#peerOutdated || this.#record.alone;
      if (this.map.scheduledCount === 0 && !toTell) return;
      this.#beginPass(out);
    }
    if (this.#stateAsked !== "nothing" || this.#throwAway !== "no") return;
    const knows = this.#stale || this.#peerKnows || this.#comparing;
    if (this.#peerStates && !knows && this.map.scheduledCount > 0) {
      // A target in the middle of a resync holds old and new blocks: it must know so first (BD-15). And
      // what it lacks it lacks now, however long the copies wait.
      if (this.#nowMs >= this.#stateRetryAt) this.#sendState("inconsistent", out);
      return;
    }
    if (this.#nowMs < this.#syncRetryAt) return;
    while (this.#syncCount < SYNC_WINDOW && this.#freeCount > 0) {
      const urgentOnly = !this.#pace.mayBegin;
      const index = this.#window.find(urgentOnly);
      if (index < 0) break;
      const offset = this.#window.nextOffset(index);
      const length = this.#window.beginChunk(index);
      if (!urgentOnly) this.#pace.spend(length);
      const slot = this.#take(SYNC, offset, length);
      this.#syncCount++;
      this.#syncIndex[slot] = index;
      this.#begin(slot, out);
    }
    this.#maybeEndSync();
  }

  #syncRead(slot: number, out: PrimaryOutbox): void {
    this.#setState(slot, ISSUED);
    this.#syncStep[slot] = 1;
    if (this.copiesFromPeer(slot)) {
      this.#send(slot, READ, out);
    } else {
      this.#local[slot] = PENDING;
      out.localRead(slot);
    }
  }

  #syncLocalDone(slot: number, errno: number, out: PrimaryOutbox): void {
    assert(this.#local[slot] === PENDING);
    this.#local[slot] = errno === 0 ? OK : FAILED;
    if (this.#syncStep[slot] === 3) {
      this.#freeCopy(slot, out); // the connection went meanwhile
    } else if (errno !== 0) {
      if (this.#syncStep[slot] === 1) {
        this.statistics.readErrors++;
        this.#spoilGoodHere(slot, out);
      } else {
        this.statistics.writeErrors++;
        this.#repairFailed(errno, out);
      }
      this.#syncChunkDone(slot, false, out);
    } else if (this.#syncStep[slot] === 1) {
      this.#syncStep[slot] = 2;
      this.#send(slot, WRITE, out);
    } else {
      this.#syncChunkDone(slot, true, out);
    }
  }

  #syncRemoteDone(slot: number, errno: number, out: PrimaryOutbox): void {
    if (errno !== 0 || (this.#syncStep[slot] === 1 && this.#disk === "gone")) {
      this.#syncChunkDone(slot, false, out);
    } else if (this.#syncStep[slot] === 1) {
      this.#syncStep[slot] = 2;
      this.#local[slot] = PENDING;
      out.localWrite(slot);
    } else {
      this.#syncChunkDone(slot, true, out);
    }
  }

  /** Our own disk does not take a copy from the peer. */
  #repairFailed(errno: number, out: PrimaryOutbox): void {
    if (this.#nowMs < this.#syncRetryAt) return; // told, and counted
    this.#syncRetryAt = this.#nowMs + SYNC_RETRY_MS;
    if (++this.#repairRounds < REPAIR_ROUNDS || !this.#peerKeeps || !this.#peerWhole) {
      out.notice("this disk does not take a copy from the peer; trying again in 5 s");
    } else {
      this.#loseDisk("copies from the peer", errno, out);
    }
  }

  /** A range that could not be read here is written again, as the peer has it: disks heal by that. */
  #repair(offset: number, length: number, out: PrimaryOutbox): void {
    if (this.#link !== "up" || this.#disk !== "good" || this.#stopping) return;
    if (this.#syncCount === SYNC_WINDOW || this.#freeCount === 0) return;
    if (this.map.awaitsResync(offset, length)) return; // a pass sees to it
    const slot = this.#take(SYNC, offset, length);
    this.#syncCount++;
    this.#syncIndex[slot] = REPAIR;
    this.#begin(slot, out);
  }

  #freeCopy(slot: number, out: PrimaryOutbox): void {
    const covered = this.#state[slot] === ISSUED || this.#state[slot] === MAP_WAIT;
    if (this.#syncIndex[slot] === REPAIR && covered) {
      this.map.writeDone(this.offset[slot]!, this.length[slot]!);
    }
    this.#free(slot, out);
  }

  #syncChunkDone(slot: number, copied: boolean, out: PrimaryOutbox): void {
    const index = this.#syncIndex[slot]!;
    if (index === REPAIR) {
      this.#freeCopy(slot, out);
      return;
    }
    const start = this.#window.start(index);
    if (copied) {
      this.statistics.syncCopied += this.length[slot]!;
      this.#syncCopiedAny = true;
    } else {
      this.#comparing = false;
    }
    this.#free(slot, out);
    const extent = this.#window.chunkDone(index, copied);
    if (extent === "copied") {
      this.#eachWaitingUp(out);
      this.statistics.syncExtents++;
    } else if (extent === "failed") {
      // Not again at once, or a bad sector would keep both nodes busy; and told of the first only: on a
      // bad disk all that are under way fail.
      if (this.#nowMs >= this.#syncRetryAt) {
        out.notice(
          `synchronization: an extent at offset ${start} could not be copied; trying again in 5 s`,
        );
      }
      this.#syncRetryAt = this.#nowMs + SYNC_RETRY_MS;
    }
  }

  /** Nothing is left to copy: flush both nodes, then record that they are in step. */
  #maybeEndSync(): void {
    if (!this.#syncActive || this.#syncEnding !== "no" || this.map.resyncCount > 0) return;
    // A mark on its way to the disk: neither node may rely on a counter that is not stable.
    if (this.#recordWriting) return;
    const record = this.#record;
    const synced = this.#syncedInStep();
    const inStep =
      record.localcnt === this.#peerRemote &&
      record.remotecnt === this.#peerLocal &&
      !record.alone &&
      record.synced === synced &&
      !this.#peerOutdated &&
      (this.#peerSynced === synced || !this.#peerStates);
    if (inStep && !this.#syncCopiedAny && record.state === "uptodate" && !this.#stale) {
      this.#syncActive = false;
      this.#marked = false;
      this.#owes = false;
      this.#peerIn = true;
      return;
    }
    this.#syncEnding = "flush";
    this.#flushWanted = true;
    // A flush under way began before the last copy ended: it does not count.
    this.#syncFlushFresh = !this.#flushing;
  }

  /** Both nodes have flushed. The counters are equalised as the reference does (behaviour §10). */
  #endSync(out: PrimaryOutbox): void {
    if (!this.#syncFlushFresh) {
      this.#syncFlushFresh = true;
      this.#flushWanted = true;
      return;
    }
    if (this.map.resyncCount > 0 || this.#recordWriting || this.#fillWanted) {
      this.#syncEnding = "no";
      return;
    }
    if (this.#peerStates) {
      // The target first: from its one metadata write on, the counters agree (S-13). So from here on
      // the mark of the last outage is spent: its number is what the peer is about to store. A peer
      // that was the source is told, too: it may have failed a write meanwhile, and be on record for it.
      this.#syncEnding = "state";
      this.#marked = false;
      this.#owes = false;
      this.#sendState("uptodate", out);
      return;
    }
    this.#recordInStep(this.#peerRemote, out);
  }

  #recordInStep(localcnt: bigint, out: PrimaryOutbox): void {
    assert(!this.#marking);
    this.#stale = false;
    this.#repairRounds = 0;
    this.#owes = false;
    this.#marked = false;
    this.#peerIn = true;
    this.#syncEnding = "record";
    const { resuid } = this.#record;
    const remotecnt = this.#peerLocal;
    const synced = this.#syncedInStep();
    this.#setRecord({ resuid, localcnt, remotecnt, state: "uptodate", synced, alone: false }, out);
  }

  #sendState(state: ToldState, out: PrimaryOutbox): void {
    assert(this.#stateAsked === "nothing");
    this.#stateAsked = state;
    this.#peerKnows = false;
    this.#stateSeq = this.#sequence.allocate(STATE_SLOT);
    this.#stateSentAt = this.#nowMs;
    this.#lastSentAt = this.#nowMs;
    this.#stateLocalcnt = this.#record.localcnt;
    const { localcnt, remotecnt } = this.#record;
    this.#stateSynced = this.#syncedInStep();
    out.sendState(this.#stateSeq, state, localcnt, remotecnt, this.#stateSynced);
  }

  #stateReplied(errno: number, out: PrimaryOutbox): void {
    const asked = this.#stateAsked;
    this.#stateAsked = "nothing";
    if (asked === "sole") {
      this.#peerAgreed(errno, out);
    } else if (errno !== 0) {
      // Something failed there while the message travelled: of that, the peer has told already.
      if (errno !== ERR_AGAIN) {
        out.notice(
          `the peer could not store the state of its copy (error ${errno}); trying again in 5 s`,
        );
      }
      this.#syncEnding = "no";
      this.#syncRetryAt = this.#stateRetryAt = this.#nowMs + SYNC_RETRY_MS;
    } else if (asked === "inconsistent") {
      this.#peerKnows = true;
    } else {
      this.#peerRemote = this.#stateLocalcnt;
      this.#peerSynced = this.#stateSynced;
      this.#peerOutdated = false;
      // Something went on alone while the message travelled: the pass is not over.
      const overtaken = this.#record.localcnt !== this.#stateLocalcnt;
      if (overtaken || this.map.resyncCount > 0) this.#syncEnding = "no";
      else this.#recordInStep(this.#record.localcnt, out);
    }
  }

  /** Who has every byte that was acknowledged, and that is about to be. */
  get holders(): Whole {
    if (this.#stale) return "remote";
    return this.#peerIn ? "both" : "local";
  }

  // ---- a failing disk ------------------------------------------------------------------------------

  /** Does the peer have everything that was ever acknowledged, or will it once what is under way ends? */
  get #peerWhole(): boolean {
    if (this.#link !== "up") return false;
    if (this.#stale) return this.map.goodHereCount === 0;
    return this.map.resyncCount === 0 && !this.#marked && !this.#marking && !this.#owes;
  }

  /** Is nothing under way that a change of sides would have to reckon with? */
  #quiet(): boolean {
    if (this.#recordWriting || this.#stateAsked !== "nothing") return false;
    if (this.#syncActive && !this.#stale) return false; // the counters are not in step yet
    if (this.#flushing && this.#flushAnsweredEarly) return false;
    for (let index = 0; index < this.#activeCount; index++) {
      const slot = this.#active[index]!;
      if (this.#answered[slot] !== ANSWERED || this.kind[slot] === SYNC) continue;
      if (this.#remote[slot] === PENDING || this.#remote[slot] === RECEIVED) return false;
    }
    return true;
  }

  /** Our own disk can hold neither marks nor what a flush promised: go on without it, or stop. */
  #loseDisk(what: string, errno: number, out: PrimaryOutbox): void {
    if (this.#disk === "leaving" || this.#disk === "gone") return;
    this.#throwAway = "no";
    if (!this.#peerKeeps || !this.#peerWhole) {
      this.#diskFailed(what, errno, out);
      return;
    }
    this.#disk = "leaving";
    this.#leaveStep = "drain";
    // A pass that was about to end writes no counters any more: the peer is about to count from ours.
    if (this.#syncEnding === "flush") this.#syncEnding = "no";
    this.#trouble = what;
    this.#troubleErrno = errno;
    this.#troubleSince = this.#nowMs;
    this.#gateOpen = false;
  }

  /** The next step of turning or leaving, if it is possible now. */
  #pumpDisk(out: PrimaryOutbox): void {
    const patient = this.#nowMs - this.#troubleSince < this.#timeoutMs;
    if (this.#disk === "leaving") {
      if (this.#marking) return; // the backlog is ours alone: that goes on record first, if it can
      if (!this.#peerWhole || !patient) this.#diskFailed(this.#trouble, this.#troubleErrno, out);
      else if (this.#leaveStep === "drain" && this.#quiet()) this.#leave(out);
      return;
    }
    if (!this.#peerWhole || !patient || this.#stopping) {
      this.#disk = "good";
      this.#throwAway = "no";
      this.#eachWaiting(WANTS_RECORD, out);
      if (this.#link !== "merging") this.openGate(out);
    } else if (this.#throwAway !== "no" && this.map.unflushedCount > 0) {
      // What the peer has in its cache only is still good here, and its power may be gone already. Nothing new
      // begins before it has flushed that, or a busy resource would never come to the end of it.
      this.#gateOpen = false;
      if (!this.#flushing) this.#flushWanted = true;
    } else if (this.#quiet()) {
      this.#disk = "good";
      if (this.#stale) {
        this.#throwAllAway(out);
      } else {
        this.#stale = true;
        this.#staleOnRecord = false;
        this.#setRecord({ ...this.#record, state: "inconsistent" }, out);
      }
      this.openGate(out);
    }
  }

  /** The peer has everything. If our own disk still can, it says so: then it misleads nobody. */
  #leave(out: PrimaryOutbox): void {
    if (this.#trouble === "the metadata block" || this.#record.state === "inconsistent") {
      this.#leaveStep = "peer";
      this.#sendState("sole", out);
      return;
    }
    this.#leaveStep = "record";
    this.#setRecord({ ...this.#record, state: "inconsistent" }, out);
  }

  /** The peer keeps the record from here on, or cannot. */
  #peerAgreed(errno: number, out: PrimaryOutbox): void {
    const { remotecnt } = this.#record;
    // What it has stored (secondary.ts, soleRecord()).
    if (errno === 0 && this.#peerLocal <= remotecnt) this.#peerLocal = remotecnt + 1n;
    if (this.#disk === "gone") {
      if (errno === 0) this.#merged(out);
      else out.disconnect(`the peer cannot keep the record for this node (error ${errno})`);
      return;
    }
    if (errno !== 0) {
      this.#diskFailed(this.#trouble, this.#troubleErrno, out);
      return;
    }
    if (this.#syncActive && this.map.resyncCount > 0) out.event("syncintr");
    this.#syncActive = false;
    this.#syncEnding = "no";
    this.#disk = "gone";
    this.#stale = this.#staleOnRecord = true;
    out.diskless(this.#trouble, this.#troubleErrno);
    for (let index = 0; index < this.#activeCount; ) {
      const slot = this.#active[index]!;
      if (this.kind[slot] === SYNC && this.#state[slot] !== ISSUED) this.#freeCopy(slot, out);
      else if (this.#state[slot] === MAP_WAIT) this.#issueWrite(slot, out);
      if (this.#active[index] === slot) index++;
    }
    this.#rideAgain();
    this.#eachWaiting(WANTS_RECORD, out);
    this.#gateOpen = true;
    this.#releaseHeld(out);
  }

  // ---- time and batches -----------------------------------------------------------------------------

  /** Call about once a second with the monotonic clock, and once before anything else. */
  onTick(nowMs: number, out: PrimaryOutbox): void {
    assert(nowMs >= this.#nowMs);
    this.#nowMs = nowMs;
    if (this.#link === "up") {
      const pauseMs = this.#peerAlive ? ANSWERED_KEEPALIVE_MS : KEEPALIVE_MS;
      if (nowMs - this.#lastSentAt >= pauseMs) {
        this.#lastSentAt = nowMs;
        if (this.#peerAlive && this.#aliveAskedAt < 0) this.#aliveAskedAt = nowMs;
        out.sendKeepalive();
      }
    }
    if (this.#link !== "down" && this.#peerOverdue()) {
      out.disconnect(`no answer from the peer for ${this.#timeoutMs / 1000} s`);
      return;
    }
    this.#pace.earn(nowMs);
    this.#failPeerWaiters(nowMs - this.#timeoutMs, out);
    // With no flush from the application, one of our own, seldom: so that extents become clean, and doubt ends.
    if (
      this.#link === "up" &&
      (this.map.unflushedCount > 0 || this.#doubtful) &&
      nowMs - this.#lastFlushAt >= (this.#appCount === 0 ? OWN_FLUSH_IDLE_MS : OWN_FLUSH_BUSY_MS)
    ) {
      this.#flushWanted = true;
    }
    if (nowMs - this.#agedAt >= AGE_MS) {
      this.#agedAt = nowMs;
      this.map.ageWarm();
      this.#tidyMap = this.map.hasChanges;
    }
  }

  /** No more patience: requests that only the peer could serve fail now. */
  stopWaiting(out: PrimaryOutbox): void {
    this.#failPeerWaiters(this.#nowMs, out);
  }

  #failPeerWaiters(sinceMs: number, out: PrimaryOutbox): void {
    for (let index = 0; index < this.#activeCount && this.#peerWaitCount > 0; ) {
      const slot = this.#active[index]!;
      if (this.#answered[slot] === WANTS_PEER && this.#waitingSince[slot]! <= sinceMs) {
        this.#answer(slot, ERR_IO, out);
        if (this.kind[slot] === READ || this.kind[slot] === FLUSH) this.#free(slot, out);
        else this.#advanceWrite(slot, out);
      }
      if (this.#active[index] === slot) index++;
    }
  }

  /**
   * Has the peer been silent for too long, with something to answer? While it does answer, a long
   * queue on a slow connection is no failure; one request that never is answered is.
   */
  #peerOverdue(): boolean {
    if (this.#aliveAskedAt >= 0) {
      // It was heard last shortly before it was asked, so that all in all this takes one timeout.
      const askedMs = Math.max(this.#timeoutMs - ANSWERED_KEEPALIVE_MS, this.#timeoutMs / 2);
      const sinceMs = Math.max(this.#aliveAskedAt, this.#lastHeardAt);
      if (this.#nowMs - sinceMs >= askedMs) return true;
    }
    const silent = this.#nowMs - this.#lastHeardAt >= this.#timeoutMs;
    const patience = silent ? this.#timeoutMs : this.#timeoutMs * BUSY_PEER_PATIENCE;
    const limit = this.#nowMs - patience;
    if (this.#flushing && this.#flushRemote === PENDING && this.#flushSentAt <= limit) return true;
    if (this.#stateAsked !== "nothing" && this.#stateSentAt <= limit) return true;
    for (let index = 0; index < this.#activeCount; index++) {
      const slot = this.#active[index]!;
      const remote = this.#remote[slot]!;
      if ((remote === PENDING || remote === RECEIVED) && this.#sentAt[slot]! <= limit) return true;
    }
    return false;
  }

  /** Call after every batch of events: starts what has become possible. */
  pump(out: PrimaryOutbox): void {
    if (this.#failed) return;
    if (this.#disk === "turning" || this.#disk === "leaving") this.#pumpDisk(out);
    if (this.#failed) return;
    if (this.#conflictCount > 0) this.#pumpConflicts(out);
    this.#pumpSync(out);
    if (this.#flushWanted && !this.#flushing && this.#disk !== "leaving" && !this.#copiesFirst) {
      this.#startFlush(out);
    }
    const mapUsable = this.#disk !== "leaving" && this.#disk !== "gone";
    if (mapUsable && !this.#mapWriting && (this.map.mustWrite || this.#tidyMap)) {
      this.#tidyMap = false;
      this.#mapWriting = true;
      this.statistics.activemapUpdates++;
      out.writeMap();
    }
    if (this.#stopping) this.#pumpStop(out);
  }

  /** Must a FLUSH wait until the peer has what is good here only? Not while that fails. */
  get #copiesFirst(): boolean {
    if (this.map.goodHereCount === 0 || this.#link !== "up" || this.#stopping) return false;
    return this.#nowMs >= this.#syncRetryAt;
  }

  #pumpConflicts(out: PrimaryOutbox): void {
    for (let index = 0; index < this.#activeCount && this.#conflictCount > 0; ) {
      const slot = this.#active[index]!;
      if (this.#state[slot] === CONFLICT && !this.#conflicts(slot)) this.#begin(slot, out);
      if (this.#active[index] === slot) index++;
    }
  }

  // ---- the end -------------------------------------------------------------------------------------

  /** No request will be submitted any more: finish what was accepted, flush, clean the map; then stopped(). */
  stop(out: PrimaryOutbox): void {
    if (this.#stopping) return;
    this.#stopping = true;
    this.openGate(out);
    this.pump(out);
  }

  #pumpStop(out: PrimaryOutbox): void {
    if (this.#failed || this.#disk === "turning" || this.#disk === "leaving") return;
    if (this.#stopStep === "drain") {
      if (this.#appCount > 0 || this.#syncCount > 0 || this.#flushing || this.#recordWriting)
        return;
      if (this.#link === "merging") return;
      const whole = this.#stale || this.#comparing || this.map.resyncCount === 0;
      if (this.#wasAsync && !whole && !this.#marked) {
        // What a killed predecessor had acknowledged may be among what was not copied (S-4e).
        this.#mark(out);
        return;
      }
      this.#stopStep = "flush";
      this.#startFlush(out);
    }
    if (this.#stopStep === "flush") {
      if (this.#flushing || this.#recordWriting) return;
      this.map.coolAll();
      this.#stopStep = "map";
    }
    if (this.#stopStep === "map") {
      if (this.#mapWriting || this.#recordWriting) return;
      if (this.map.hasChanges && this.#disk !== "gone") {
        this.#mapWriting = true;
        out.writeMap();
        return;
      }
      this.#stopStep = "done";
      out.stopped();
    }
  }

  #diskFailed(what: string, errno: number, out: PrimaryOutbox): void {
    if (this.#failed) return;
    this.#failed = true;
    // Whatever has not been acknowledged never will be.
    for (let index = 0; index < this.#activeCount; index++) {
      const slot = this.#active[index]!;
      if (this.kind[slot] === SYNC) continue;
      if (this.#answered[slot] !== ANSWERED) this.#answer(slot, ERR_IO, out);
      else if (this.#remote[slot] === PENDING) this.#owes = true;
    }
    // What async has acknowledged and the peer may lack goes on record, if this disk still takes that (S-4).
    if (what !== "the metadata block" && this.owesMark) this.#mark(out);
    out.diskFailed(what, errno);
  }

  get peerZeroes(): boolean {
    return this.#peerZeroes;
  }
}

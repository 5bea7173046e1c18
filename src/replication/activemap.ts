// SPDX-License-Identifier: BSD-2-Clause
/**
 * Which extents may differ between the nodes, in memory and on disk.
 *
 *   writing ──both done──▶ settled ──flush on both──▶ warm ──aged──▶ clean
 *      │                      │
 *      └──a leg failed──▶ scheduled ──resync starts──▶ syncing ──copied──▶ settled
 *
 * Every state but clean keeps the extent's bit set in the map on disk. A bit is cleared only
 * after every write and resync copy has completed on both nodes and each has then finished a
 * flush (docs/architecture.md, "clean means stable twice").
 *
 * Invariants, checked by assertInvariants() in tests:
 *   an extent in any state but clean has its bit in `image`
 *   `persisted` ⊆ `image`: what a power cut cannot take away
 *   data is written only while its extents are `persisted`
 *
 * Source: behaviour §7; its pending counter is split into writes and syncing (BD-18), its LRU
 * becomes `warm` with an age, and settled extents are new (BD-9, BD-10).
 */

import { assert } from "../base/assert.ts";
import { clearBit, countBits, nextSetBit, setBit, testBit } from "../base/bitmap.ts";

/** Extents that were clean so recently that clearing their bits would only cost another map write. */
const WARM_CAPACITY = 8192;

/** A set of extents that can be listed without scanning: a bitmap and the order of arrival. */
class ExtentSet {
  readonly #bits: Uint8Array;
  #list: Int32Array = new Int32Array(256);
  #count = 0;

  constructor(extentCount: number) {
    this.#bits = new Uint8Array((extentCount + 7) >>> 3);
  }

  get count(): number {
    return this.#count;
  }

  has(extent: number): boolean {
    return testBit(this.#bits, extent);
  }

  add(extent: number): void {
    if (testBit(this.#bits, extent)) return;
    setBit(this.#bits, extent);
    if (this.#count === this.#list.length) {
      const larger = new Int32Array(this.#list.length * 2);
      larger.set(this.#list);
      this.#list = larger;
    }
    this.#list[this.#count++] = extent;
  }

  at(index: number): number {
    assert(index < this.#count);
    return this.#list[index]!;
  }

  /** at(), and has() denies it from now on; clear() must follow. */
  leave(index: number): number {
    const extent = this.at(index);
    clearBit(this.#bits, extent);
    return extent;
  }

  clear(): void {
    for (let index = 0; index < this.#count; index++) clearBit(this.#bits, this.#list[index]!);
    this.#count = 0;
  }
}

export interface ActivemapOptions {
  /** Bytes of the data area. */
  readonly dataSize: number;
  /** Bytes per extent, a power of two. */
  readonly extentSize: number;
  /** How many warm extents stay marked on disk for ever. */
  readonly keepdirty: number;
  /** Bytes of the map's region on disk; at least one bit per extent, a multiple of `sectorSize`. */
  readonly regionSize: number;
  /** The unit in which the map is rewritten, bytes. */
  readonly sectorSize: number;
}

export class Activemap {
  readonly dataSize: number;
  readonly extentSize: number;
  readonly extentCount: number;
  readonly keepdirty: number;
  readonly regionSize: number;
  readonly sectorSize: number;

  /** What the disk shall hold. */
  readonly image: Uint8Array;
  /** Bits that are certainly on stable storage. */
  readonly #persisted: Uint8Array;
  /** Map sectors whose image has changed since they were last taken for writing. */
  readonly #changedSectors: Uint8Array;
  #changedCount = 0;
  /** A bit was set that somebody waits for. */
  #urgent = false;

  readonly #writes: Uint16Array;
  readonly #scheduled: Uint8Array;
  #scheduledCount = 0;
  readonly #syncing: Uint8Array;
  #syncingCount = 0;
  /** Those of the scheduled and syncing extents whose good copy is here, although other ones' is the peer's. */
  readonly #goodHere: Uint8Array;
  #goodHereCount = 0;
  /** Extents with writes, syncing or scheduled: what `dirty` counts in status. */
  #dirtyCount = 0;
  /** Completed on both nodes since the last flush began, and covered by the flush under way. */
  #settled: ExtentSet;
  #flushing: ExtentSet;

  readonly #warm: Uint8Array;
  /** Extents that have been warm, oldest first, each once; some have been written again since. */
  readonly #inRing: Uint8Array;
  /** In the ring, and warm anew since it got there: it is younger than its place says. */
  readonly #warmAgain: Uint8Array;
  readonly #warmRing: Int32Array = new Int32Array(WARM_CAPACITY);
  readonly #warmAge: Int32Array = new Int32Array(WARM_CAPACITY);
  #warmHead = 0;
  #warmCount = 0;
  #age = 0;

  readonly #shift: number;

  constructor(options: ActivemapOptions) {
    const { dataSize, extentSize, regionSize, sectorSize } = options;
    assert(dataSize > 0);
    assert(extentSize > 0 && Number.isInteger(Math.log2(extentSize)));
    assert(regionSize % sectorSize === 0);
    this.dataSize = dataSize;
    this.extentSize = extentSize;
    this.keepdirty = options.keepdirty;
    this.regionSize = regionSize;
    this.sectorSize = sectorSize;
    this.#shift = Math.log2(extentSize);
    this.extentCount = Math.floor((dataSize - 1) / extentSize) + 1;
    assert(this.extentCount <= regionSize * 8);

    this.image = new Uint8Array(regionSize);
    this.#persisted = new Uint8Array(regionSize);
    this.#changedSectors = new Uint8Array(Math.ceil(regionSize / sectorSize / 8));
    this.#writes = new Uint16Array(this.extentCount);
    this.#scheduled = new Uint8Array(regionSize);
    this.#syncing = new Uint8Array(regionSize);
    this.#goodHere = new Uint8Array(regionSize);
    this.#warm = new Uint8Array(regionSize);
    this.#inRing = new Uint8Array(regionSize);
    this.#warmAgain = new Uint8Array(regionSize);
    this.#settled = new ExtentSet(this.extentCount);
    this.#flushing = new ExtentSet(this.extentCount);
  }

  // ---- reading -------------------------------------------------------------------------------

  extentOf(offset: number): number {
    assert(offset < this.dataSize);
    return this.#shift < 31 && offset < 2 ** 31
      ? offset >>> this.#shift
      : Math.floor(offset / this.extentSize);
  }

  /** Bytes in flight or awaiting resync, in whole extents (behaviour §7, "dirty"). */
  get dirtyBytes(): number {
    return this.#dirtyCount * this.extentSize;
  }

  get dirtyCount(): number {
    return this.#dirtyCount;
  }

  /** Extents still to be copied, those being copied included. */
  get resyncCount(): number {
    return this.#scheduledCount + this.#syncingCount;
  }

  /** Extents waiting for their copy to begin. */
  get scheduledCount(): number {
    return this.#scheduledCount;
  }

  /** Written on both nodes, but not yet covered by a flush on both. */
  get unflushedCount(): number {
    return this.#settled.count + this.#flushing.count;
  }

  /** Is any extent of the range waiting for, or in the middle of, a resync? */
  awaitsResync(offset: number, length: number): boolean {
    if (this.#scheduledCount + this.#syncingCount === 0) return false;
    const last = this.extentOf(offset + length - 1);
    for (let extent = this.extentOf(offset); extent <= last; extent++) {
      if (testBit(this.#scheduled, extent) || testBit(this.#syncing, extent)) return true;
    }
    return false;
  }

  /** How many extents scheduleUnflushed() called good here, and are not copied yet. */
  get goodHereCount(): number {
    return this.#goodHereCount;
  }

  /** Is any extent of the range one of those? */
  isGoodHere(offset: number, length: number): boolean {
    if (this.#goodHereCount === 0) return false;
    const last = this.extentOf(offset + length - 1);
    const extent = nextSetBit(this.#goodHere, this.extentOf(offset), last + 1);
    return extent >= 0;
  }

  /** Is any extent of the range in line for resync without being one of those? */
  isStaleHere(offset: number, length: number): boolean {
    const last = this.extentOf(offset + length - 1);
    for (let extent = this.extentOf(offset); extent <= last; extent++) {
      if (this.#inResync(extent) && !testBit(this.#goodHere, extent)) return true;
    }
    return false;
  }

  /** How many bytes from `offset`, at most `length`, share its answer to awaitsResync(). */
  uniformLength(offset: number, length: number): number {
    const wanted = this.awaitsResync(offset, 1);
    const end = offset + length;
    let extent = this.extentOf(offset) + 1;
    while (extent * this.extentSize < end) {
      if (this.awaitsResync(extent * this.extentSize, 1) !== wanted) break;
      extent++;
    }
    return Math.min(end, extent * this.extentSize) - offset;
  }

  // ---- writes --------------------------------------------------------------------------------

  /**
   * A write to [offset, offset + length) is about to be issued.
   *
   * @param offset bytes into the data area
   * @param length bytes, > 0
   * @returns "persist-first": issue the data only once isPersisted() says so
   */
  writeStart(offset: number, length: number): "covered" | "persist-first" {
    assert(length > 0);
    assert(offset + length <= this.dataSize);
    let verdict: "covered" | "persist-first" = "covered";
    const last = this.extentOf(offset + length - 1);
    for (let extent = this.extentOf(offset); extent <= last; extent++) {
      assert(this.#writes[extent]! < 0xffff);
      this.#writes[extent]! += 1;
      if (this.#writes[extent] === 1 && !this.#inResync(extent)) this.#dirtyCount++;
      clearBit(this.#warm, extent);
      this.#mark(extent);
      if (!testBit(this.#persisted, extent)) {
        verdict = "persist-first";
        this.#urgent = true;
      }
    }
    return verdict;
  }

  /** Are all bits of the range on stable storage? */
  isPersisted(offset: number, length: number): boolean {
    const last = this.extentOf(offset + length - 1);
    for (let extent = this.extentOf(offset); extent <= last; extent++) {
      if (!testBit(this.#persisted, extent)) return false;
    }
    return true;
  }

  /** The write has completed on every node it will complete on. Failed legs: schedule() first. */
  writeDone(offset: number, length: number): void {
    const last = this.extentOf(offset + length - 1);
    for (let extent = this.extentOf(offset); extent <= last; extent++) {
      assert(this.#writes[extent]! > 0);
      this.#writes[extent]! -= 1;
      if (this.#writes[extent] === 0 && !this.#inResync(extent)) this.#dirtyCount--;
      this.#settled.add(extent);
    }
  }

  // ---- resync --------------------------------------------------------------------------------

  /** The nodes may differ in this range: copy it at the next opportunity. */
  schedule(offset: number, length: number): void {
    const last = this.extentOf(offset + length - 1);
    for (let extent = this.extentOf(offset); extent <= last; extent++) this.#schedule(extent);
  }

  /**
   * Everything that is not known to be stable on both nodes: a new connection inherits no epoch.
   *
   * @param here "stale": what is in line for resync already is stale here; what gets there by this is
   *   good here, and perhaps here alone
   * @returns was anything in line already? Then nobody may have what was written there since
   */
  scheduleUnflushed(here: "whole" | "stale" = "whole"): boolean {
    let overlaps = false;
    for (const set of [this.#settled, this.#flushing]) {
      for (let index = 0; index < set.count; index++) {
        if (this.#scheduleUnflushed(set.at(index), here)) overlaps = true;
      }
      set.clear();
    }
    return overlaps;
  }

  /** @returns was it in line already, and not good here? */
  #scheduleUnflushed(extent: number, here: "whole" | "stale"): boolean {
    const inLine = this.#inResync(extent);
    if (!inLine && here === "stale") {
      setBit(this.#goodHere, extent);
      this.#goodHereCount++;
    }
    this.#schedule(extent);
    return inLine && !testBit(this.#goodHere, extent);
  }

  /** The same of a write that is under way. */
  scheduleWrite(offset: number, length: number, here: "whole" | "stale"): void {
    const last = this.extentOf(offset + length - 1);
    for (let extent = this.extentOf(offset); extent <= last; extent++) {
      this.#scheduleUnflushed(extent, here);
    }
  }

  /** What is being copied to the peer is copied once more when that has ended. */
  copyAgain(here: "whole" | "stale"): void {
    const copied = here === "whole" ? this.#syncing : this.#goodHere;
    for (
      let extent = nextSetBit(copied, 0, this.extentCount);
      extent >= 0;
      extent = nextSetBit(copied, extent + 1, this.extentCount)
    ) {
      this.#schedule(extent);
    }
  }

  /** The range is no longer good here. @returns was any of it, until now? */
  spoilGoodHere(offset: number, length: number): boolean {
    const before = this.#goodHereCount;
    const last = this.extentOf(offset + length - 1);
    for (let extent = this.extentOf(offset); extent <= last; extent++) this.#notGoodHere(extent);
    return this.#goodHereCount !== before;
  }

  #notGoodHere(extent: number): void {
    if (!testBit(this.#goodHere, extent)) return;
    clearBit(this.#goodHere, extent);
    this.#goodHereCount--;
  }

  /** The copies under way are void: their extents go back in line. */
  abandonSyncing(): void {
    if (this.#syncingCount === 0) return;
    for (
      let extent = nextSetBit(this.#syncing, 0, this.extentCount);
      extent >= 0;
      extent = nextSetBit(this.#syncing, extent + 1, this.extentCount)
    ) {
      this.extentFailed(extent);
    }
  }

  /** Adds another node's map, or our own as read from disk. Bits beyond the last extent are ignored. */
  merge(map: Uint8Array): void {
    const limit = Math.min(this.extentCount, map.length * 8);
    for (
      let extent = nextSetBit(map, 0, limit);
      extent >= 0;
      extent = nextSetBit(map, extent + 1, limit)
    ) {
      this.#schedule(extent);
    }
    this.#urgent = this.#changedCount > 0;
  }

  /** The disk holds bits that are not ours: the next map write covers all of it. */
  rewriteAll(): void {
    const sectorCount = this.regionSize / this.sectorSize;
    for (let sector = 0; sector < sectorCount; sector++) setBit(this.#changedSectors, sector);
    this.#changedCount = sectorCount;
  }

  /** Our own map, as found on disk at start: everything in it is scheduled, and already persisted. */
  load(map: Uint8Array): void {
    this.merge(map);
    for (let index = 0; index < this.regionSize; index++) {
      this.#persisted[index] = this.image[index]! & (map[index] ?? 0);
    }
    this.#changedSectors.fill(0);
    this.#changedCount = 0;
    this.#urgent = false;
  }

  /**
   * The next extent to copy at or after `from` (then from the beginning), now "syncing"; or -1. What
   * is good here goes first, since a FLUSH may wait for it.
   * One that was scheduled again in the middle of its copy waits for that copy to end.
   * @param goodHereOnly nothing else
   */
  takeScheduled(from: number, goodHereOnly = false): number {
    if (this.#scheduledCount === 0) return -1;
    const start = from < this.extentCount ? from : 0;
    let extent = this.#nextIdleGoodHere();
    if (extent < 0 && goodHereOnly) return -1;
    if (extent < 0) extent = this.#nextIdleScheduled(start, this.extentCount);
    if (extent < 0) extent = this.#nextIdleScheduled(0, start);
    if (extent < 0) return -1;
    clearBit(this.#scheduled, extent);
    this.#scheduledCount--;
    setBit(this.#syncing, extent);
    this.#syncingCount++;
    return extent;
  }

  #nextIdleScheduled(from: number, limit: number): number {
    let extent = nextSetBit(this.#scheduled, from, limit);
    while (extent >= 0 && testBit(this.#syncing, extent)) {
      extent = nextSetBit(this.#scheduled, extent + 1, limit);
    }
    return extent;
  }

  #nextIdleGoodHere(): number {
    if (this.#goodHereCount === 0) return -1;
    let extent = nextSetBit(this.#goodHere, 0, this.extentCount);
    while (extent >= 0 && testBit(this.#syncing, extent)) {
      extent = nextSetBit(this.#goodHere, extent + 1, this.extentCount);
    }
    return extent;
  }

  isSyncing(extent: number): boolean {
    return testBit(this.#syncing, extent);
  }

  isScheduled(extent: number): boolean {
    return testBit(this.#scheduled, extent);
  }

  /** The whole extent has been copied and the target has answered. */
  extentCopied(extent: number): void {
    assert(testBit(this.#syncing, extent));
    clearBit(this.#syncing, extent);
    this.#syncingCount--;
    if (!testBit(this.#scheduled, extent)) this.#notGoodHere(extent);
    if (!testBit(this.#scheduled, extent) && this.#writes[extent] === 0) this.#dirtyCount--;
    this.#settled.add(extent);
  }

  /** Part of the copy failed: the extent goes back in line. */
  extentFailed(extent: number): void {
    assert(testBit(this.#syncing, extent));
    this.#schedule(extent);
    clearBit(this.#syncing, extent);
    this.#syncingCount--;
  }

  #inResync(extent: number): boolean {
    return testBit(this.#scheduled, extent) || testBit(this.#syncing, extent);
  }

  #schedule(extent: number): void {
    if (testBit(this.#scheduled, extent)) return;
    if (!testBit(this.#syncing, extent) && this.#writes[extent] === 0) this.#dirtyCount++;
    setBit(this.#scheduled, extent);
    this.#scheduledCount++;
    clearBit(this.#warm, extent);
    this.#mark(extent);
  }

  // ---- flush epochs --------------------------------------------------------------------------

  /** A flush of both nodes begins now: it covers what has settled so far. At most one at a time. */
  flushStart(): void {
    assert(this.#flushing.count === 0);
    const empty = this.#flushing;
    this.#flushing = this.#settled;
    this.#settled = empty;
  }

  /** That flush succeeded on both nodes: what it covered and nobody touched since is warm. */
  flushDone(): void {
    for (let index = 0; index < this.#flushing.count; index++) {
      const extent = this.#flushing.leave(index);
      if (this.#settled.has(extent) || this.#writes[extent] !== 0 || this.#inResync(extent))
        continue;
      this.#keepWarm(extent);
    }
    this.#flushing.clear();
  }

  /** That flush did not succeed on both: it covered nothing. */
  flushFailed(): void {
    for (let index = 0; index < this.#flushing.count; index++) {
      this.#settled.add(this.#flushing.at(index));
    }
    this.#flushing.clear();
  }

  // ---- warm extents --------------------------------------------------------------------------

  #keepWarm(extent: number): void {
    setBit(this.#warm, extent);
    if (testBit(this.#inRing, extent)) {
      setBit(this.#warmAgain, extent);
      return;
    }
    while (this.#warmCount === WARM_CAPACITY) this.#coolOldest();
    setBit(this.#inRing, extent);
    this.#pushWarm(extent);
  }

  #pushWarm(extent: number): void {
    const place = (this.#warmHead + this.#warmCount) % WARM_CAPACITY;
    this.#warmRing[place] = extent;
    this.#warmAge[place] = this.#age;
    this.#warmCount++;
  }

  /** Takes the oldest from the ring; one that was warm again in between goes to its end, once. */
  #coolOldest(): void {
    const extent = this.#warmRing[this.#warmHead]!;
    this.#warmHead = (this.#warmHead + 1) % WARM_CAPACITY;
    this.#warmCount--;
    if (testBit(this.#warmAgain, extent)) {
      clearBit(this.#warmAgain, extent);
      this.#pushWarm(extent);
      return;
    }
    clearBit(this.#inRing, extent);
    if (!testBit(this.#warm, extent)) return; // written again since
    clearBit(this.#warm, extent);
    assert(this.#writes[extent] === 0 && !this.#inResync(extent) && !this.#settled.has(extent));
    clearBit(this.image, extent);
    clearBit(this.#persisted, extent);
    this.#touchSector(extent);
  }

  /**
   * Time passes (call every few seconds): warm extents beyond `keepdirty` that have stayed warm
   * for two calls are cleared in the image. The next map write carries them along.
   */
  ageWarm(): void {
    this.#age++;
    while (this.#warmCount > this.keepdirty && this.#age - this.#warmAge[this.#warmHead]! >= 2) {
      this.#coolOldest();
    }
  }

  /** For a clean stop: nothing stays marked that is not really dirty. */
  coolAll(): void {
    while (this.#warmCount > 0) this.#coolOldest();
  }

  // ---- the map on disk -----------------------------------------------------------------------

  #mark(extent: number): void {
    if (testBit(this.image, extent)) return;
    setBit(this.image, extent);
    this.#touchSector(extent);
  }

  #touchSector(extent: number): void {
    const sector = Math.floor((extent >>> 3) / this.sectorSize);
    if (testBit(this.#changedSectors, sector)) return;
    setBit(this.#changedSectors, sector);
    this.#changedCount++;
  }

  /** Somebody waits for a bit that is not on disk. */
  get mustWrite(): boolean {
    return this.#urgent && this.#changedCount > 0;
  }

  /** The image differs from the disk, be it only in bits that could be cleared. */
  get hasChanges(): boolean {
    return this.#changedCount > 0;
  }

  /**
   * Takes the next run of changed sectors for writing, copying it into `staging`.
   *
   * @returns the run's offset in the region (bytes), or -1 when nothing is left; its length is
   *   in {@link takenLength}
   */
  takeChanges(staging: Uint8Array): number {
    const sectorCount = this.regionSize / this.sectorSize;
    const first = nextSetBit(this.#changedSectors, 0, sectorCount);
    if (first < 0) {
      this.#urgent = false;
      return -1;
    }
    const most = Math.floor(staging.length / this.sectorSize);
    assert(most > 0);
    let sector = first;
    while (sector < sectorCount && sector - first < most && testBit(this.#changedSectors, sector)) {
      clearBit(this.#changedSectors, sector);
      this.#changedCount--;
      sector++;
    }
    if (this.#changedCount === 0) this.#urgent = false;
    const offset = first * this.sectorSize;
    this.takenLength = (sector - first) * this.sectorSize;
    staging.set(this.image.subarray(offset, offset + this.takenLength));
    return offset;
  }

  takenLength = 0;

  /** `staging` (as taken) is on stable storage at `offset` of the region. */
  changesPersisted(offset: number, staging: Uint8Array, length: number): void {
    for (let index = 0; index < length; index++) {
      const at = offset + index;
      // A bit cleared meanwhile may be cleared on disk by the next write: do not rely on it.
      this.#persisted[at] = staging[index]! & this.image[at]!;
    }
  }

  /** Re-derives what must hold. For tests and simulation: walks everything. */
  assertInvariants(): void {
    let dirty = 0;
    for (let extent = 0; extent < this.extentCount; extent++) {
      const busy = this.#writes[extent]! > 0 || this.#inResync(extent);
      if (busy) dirty++;
      if (testBit(this.#goodHere, extent)) {
        assert(this.#inResync(extent), `extent ${extent} is good here for no reason`);
      }
      const warm = testBit(this.#warm, extent);
      const marked = busy || this.#settled.has(extent) || this.#flushing.has(extent) || warm;
      if (marked) assert(testBit(this.image, extent), `extent ${extent} is not in the image`);
      else assert(!testBit(this.image, extent), `extent ${extent} is marked for no reason`);
      if (warm) assert(testBit(this.#inRing, extent), `extent ${extent} would be warm for ever`);
      if (testBit(this.#persisted, extent)) {
        assert(testBit(this.image, extent), `extent ${extent} is persisted but not in the image`);
      }
    }
    assert(dirty === this.#dirtyCount, `dirty ${this.#dirtyCount}, counted ${dirty}`);
    assert(countBits(this.#scheduled, this.extentCount) === this.#scheduledCount);
    assert(countBits(this.#syncing, this.extentCount) === this.#syncingCount);
    assert(countBits(this.#goodHere, this.extentCount) === this.#goodHereCount);
    assert(countBits(this.#inRing, this.extentCount) === this.#warmCount);
  }
}

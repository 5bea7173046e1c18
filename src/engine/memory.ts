// SPDX-License-Identifier: BSD-2-Clause
/**
 * The arena of one worker, cut into pieces once.
 *
 *   │ staging │ copies: one IO_MAX buffer each │ slabs │ large │
 *
 * Sockets are read straight into slabs, and requests point into them: a slab is free again when
 * the last holder has let go. Free slabs are reused last-in first-out, so that a quiet resource
 * stays in the processor's cache and untouched slabs never cost memory.
 */

import { assert } from "../base/assert.ts";
import { IO_MAX } from "../replication/requests.ts";

/** Metadata block, activemap runs: bytes. */
export const STAGING_SIZE: number = 512 * 1024;
const COPY_COUNT = 32;
/** One megabyte of payload with its header and some of the next request. */
export const SLAB_SIZE: number = 2 * 1024 * 1024 + 128 * 1024;
/** Enough for every NBD client to hold what it may, and some. */
const SLAB_COUNT = 96;
/** The longest NBD command, 32 MiB, with its header; there is one such buffer. */
export const LARGE_PAYLOAD: number = 32 * 1024 * 1024;
const LARGE_SIZE = LARGE_PAYLOAD + 4096;

/** What holds memory: a slab's index, or the large buffer. */
export const LARGE: number = SLAB_COUNT;
export const NOBODY = -1;
/** Memory that stays in place by other means. */
export const PINNED = -2;

const COPIES_START = STAGING_SIZE;
const SLABS_START: number = COPIES_START + COPY_COUNT * IO_MAX;
const LARGE_START: number = SLABS_START + SLAB_COUNT * SLAB_SIZE;

/** Bytes of arena that a worker needs; untouched pages cost nothing. */
export const ARENA_SIZE: number = LARGE_START + LARGE_SIZE;

export class Memory {
  readonly bytes: Uint8Array;
  readonly #holders: Int32Array = new Int32Array(SLAB_COUNT + 1);
  readonly #freeSlabs: Int32Array = new Int32Array(SLAB_COUNT);
  #freeSlabCount = SLAB_COUNT;
  readonly #freeCopies: Int32Array = new Int32Array(COPY_COUNT);
  #freeCopyCount = COPY_COUNT;
  /** Told when a slab or the large buffer has become free. */
  onFree: () => void = () => {};

  constructor(bytes: Uint8Array) {
    assert(bytes.length >= ARENA_SIZE);
    this.bytes = bytes;
    for (let index = 0; index < SLAB_COUNT; index++) {
      this.#freeSlabs[index] = SLAB_COUNT - 1 - index;
    }
    for (let index = 0; index < COPY_COUNT; index++) {
      this.#freeCopies[index] = COPY_COUNT - 1 - index;
    }
  }

  get slabCount(): number {
    return SLAB_COUNT;
  }

  get copyCount(): number {
    return COPY_COUNT;
  }

  get freeCopies(): number {
    return this.#freeCopyCount;
  }

  get freeSlabs(): number {
    return this.#freeSlabCount;
  }

  /** A slab with one holder, or NOBODY when all are in use: onFree() tells when to ask again. */
  takeSlab(): number {
    if (this.#freeSlabCount === 0) return NOBODY;
    const slab = this.#freeSlabs[--this.#freeSlabCount]!;
    assert(this.#holders[slab] === 0);
    this.#holders[slab] = 1;
    return slab;
  }

  /** The large buffer with one holder, or NOBODY while it is in use. */
  takeLarge(): number {
    if (this.#holders[LARGE] !== 0) return NOBODY;
    this.#holders[LARGE] = 1;
    return LARGE;
  }

  start(holder: number): number {
    return holder === LARGE ? LARGE_START : SLABS_START + holder * SLAB_SIZE;
  }

  size(holder: number): number {
    return holder === LARGE ? LARGE_SIZE : SLAB_SIZE;
  }

  hold(holder: number): void {
    assert(this.#holders[holder]! > 0);
    this.#holders[holder]! += 1;
  }

  holders(holder: number): number {
    return this.#holders[holder]!;
  }

  letGo(holder: number): void {
    assert(this.#holders[holder]! > 0);
    this.#holders[holder]! -= 1;
    if (this.#holders[holder] !== 0) return;
    if (holder !== LARGE) this.#freeSlabs[this.#freeSlabCount++] = holder;
    this.onFree();
  }

  /** A buffer of IO_MAX bytes for a resync copy. There is one for each copy in flight. */
  takeCopy(): number {
    assert(this.#freeCopyCount > 0);
    return COPIES_START + this.#freeCopies[--this.#freeCopyCount]! * IO_MAX;
  }

  returnCopy(at: number): void {
    this.#freeCopies[this.#freeCopyCount++] = (at - COPIES_START) / IO_MAX;
  }
}

/**
 * Bytes as they arrive from one stream, contiguous as far as a parser needs them.
 * The unparsed bytes are [start, end) of the arena.
 *
 * Change it only from the stream's received() or while the stream is paused: in between the
 * stream may be writing to space().
 */
export class Inbox {
  readonly #memory: Memory;
  #holder = NOBODY;
  /** Bytes may arrive up to here. */
  #limit = 0;
  start = 0;
  end = 0;

  constructor(memory: Memory) {
    this.#memory = memory;
  }

  /** What a payload parsed from here must hold. */
  get holder(): number {
    assert(this.#holder !== NOBODY);
    return this.#holder;
  }

  /** Does it keep the large buffer from others? */
  get large(): boolean {
    return this.#holder === LARGE;
  }

  /**
   * Makes room for the rest of a message of `wanted` bytes that begins at `start`.
   *
   * @returns false when no memory is free now: pause the stream, and try again after onFree()
   */
  makeRoom(wanted: number): boolean {
    const memory = this.#memory;
    const kept = this.end - this.start;
    assert(wanted > kept);
    if (this.#holder !== NOBODY && this.#holder !== LARGE) {
      const base = memory.start(this.#holder);
      const ours = memory.holders(this.#holder) === 1;
      if (ours && (kept === 0 || (wanted <= SLAB_SIZE && wanted > this.#limit - this.start))) {
        // Nothing points into the slab: begin again at its start.
        memory.bytes.copyWithin(base, this.start, this.end);
        this.start = base;
        this.end = base + kept;
      }
      if (wanted <= this.#limit - this.start) return true;
    } else if (this.#holder === LARGE && kept > 0 && this.start + wanted <= this.#limit) {
      return true;
    }
    // The large buffer takes one message and nothing behind it, so that it is soon free again.
    const large = wanted > SLAB_SIZE;
    const next = large ? memory.takeLarge() : memory.takeSlab();
    if (next === NOBODY) return false;
    const base = memory.start(next);
    memory.bytes.copyWithin(base, this.start, this.end);
    if (this.#holder !== NOBODY) memory.letGo(this.#holder);
    this.#holder = next;
    this.start = base;
    this.end = base + kept;
    this.#limit = base + (large ? wanted : SLAB_SIZE);
    return true;
  }

  /** Where the stream may put what comes next; at least one byte after makeRoom(). */
  space(): Uint8Array {
    return this.#memory.bytes.subarray(this.end, this.#limit);
  }

  close(): void {
    if (this.#holder !== NOBODY) this.#memory.letGo(this.#holder);
    this.#holder = NOBODY;
    this.start = this.end = this.#limit = 0;
  }
}

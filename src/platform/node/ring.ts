// SPDX-License-Identifier: BSD-2-Clause
/**
 * io_uring, as far as a disk needs it.
 *
 *   ours to fill:       SQEs, 64 bytes each  ─► tail      the kernel takes them at enter()
 *   the kernel's:       CQEs, 16 bytes each  ─► tail      we take them at reap()
 *
 *   SQE  opcode u8, flags u8, ioprio u16 │ fd i32 │ offset u64 │ address u64 │ length u32 │ op flags u32 │ tag u64
 *   CQE  tag u64 │ result i32 │ flags u32
 *
 * Both rings are memory shared with the kernel, little-endian here as on every machine Node runs on; head
 * and tail count up for ever, modulo 2^32. Source: io_uring(7), Linux include/uapi/linux/io_uring.h.
 */
import fs from "node:fs";
import { assert } from "../../base/assert.ts";
import {
  EAGAIN,
  EBUSY,
  EINTR,
  ioUringEnter,
  ioUringSetup,
  type Mapping,
  mapShared,
  type Poll,
  pollReadable,
  unmap,
} from "./libc.ts";

export const IORING_OP_FSYNC = 3;
export const IORING_OP_FALLOCATE = 17;
export const IORING_OP_READ = 22;
export const IORING_OP_WRITE = 23;
export const IORING_FSYNC_DATASYNC = 1;

const IORING_FEAT_SINGLE_MMAP = 1;
const IORING_ENTER_GETEVENTS = 1;
const OFFSET_OF_RINGS = 0;
const OFFSET_OF_SQES = 0x10000000;

const SQE_WORDS = 16;
const CQE_WORDS = 4;
const PARAMS_SIZE = 120;

export class Ring {
  readonly #fd: number;
  readonly #ringMapping: Mapping;
  readonly #sqeMapping: Mapping;
  /** Both rings' bookkeeping, in 32-bit words; the numbers below are indexes into it. */
  #words: Uint32Array;
  #results: Int32Array;
  #sqes: Uint32Array;
  readonly #entryCount: number;
  readonly #sqTail: number;
  readonly #sqMask: number;
  readonly #cqHead: number;
  readonly #cqTail: number;
  readonly #cqMask: number;
  readonly #cqes: number;
  /** SQEs filled since the kernel last took some. */
  #unsubmitted = 0;
  #enterScheduled = false;
  #poll: Poll | null = null;
  #closed = false;

  /**
   * @param entryCount a power of two: how many operations may be under way
   * @returns -errno where the kernel has no io_uring, or forbids it
   */
  static open(entryCount: number): Ring | number {
    const params = Buffer.alloc(PARAMS_SIZE);
    const fd = ioUringSetup(entryCount, params);
    if (fd < 0) return fd;
    const ring = Ring.#map(fd, params);
    if (typeof ring === "number") fs.closeSync(fd);
    return ring;
  }

  static #map(fd: number, params: Buffer): Ring | number {
    const features = params.readUInt32LE(20);
    if ((features & IORING_FEAT_SINGLE_MMAP) === 0) return -38; // ENOSYS: older than Linux 5.4
    const sqEntries = params.readUInt32LE(0);
    const cqEntries = params.readUInt32LE(4);
    const sqArray = params.readUInt32LE(64);
    const cqes = params.readUInt32LE(100);
    const ringSize = Math.max(sqArray + 4 * sqEntries, cqes + 4 * CQE_WORDS * cqEntries);
    const rings = mapShared(fd, OFFSET_OF_RINGS, ringSize);
    if (typeof rings === "number") return rings;
    const sqes = mapShared(fd, OFFSET_OF_SQES, 4 * SQE_WORDS * sqEntries);
    if (typeof sqes === "number") {
      unmap(rings);
      return sqes;
    }
    return new Ring(fd, rings, sqes, params);
  }

  private constructor(fd: number, rings: Mapping, sqes: Mapping, params: Buffer) {
    this.#fd = fd;
    this.#ringMapping = rings;
    this.#sqeMapping = sqes;
    this.#words = new Uint32Array(rings.bytes);
    this.#results = new Int32Array(rings.bytes);
    this.#sqes = new Uint32Array(sqes.bytes);
    this.#entryCount = params.readUInt32LE(0);
    this.#sqTail = params.readUInt32LE(44) >>> 2;
    this.#sqMask = this.#words[params.readUInt32LE(48) >>> 2]!;
    this.#cqHead = params.readUInt32LE(80) >>> 2;
    this.#cqTail = params.readUInt32LE(84) >>> 2;
    this.#cqMask = this.#words[params.readUInt32LE(88) >>> 2]!;
    this.#cqes = params.readUInt32LE(100) >>> 2;
    // The kernel looks SQEs up through an array; ours never says anything but "the n-th is n".
    const sqArray = params.readUInt32LE(64) >>> 2;
    for (let index = 0; index < this.#entryCount; index++) this.#words[sqArray + index] = index;
  }

  /**
   * Fills the next SQE. There must be room: at most `entryCount` operations are under way.
   *
   * @param address bytes in memory, or, for FALLOCATE, the range's length
   * @param length bytes, or, for FALLOCATE, its mode
   * @param tag comes back with the result; in [0, 2^32)
   */
  prepare(
    opcode: number,
    fd: number,
    address: number,
    length: number,
    offset: number,
    opFlags: number,
    tag: number,
  ): void {
    assert(!this.#closed);
    assert(this.#unsubmitted < this.#entryCount);
    const tail = this.#words[this.#sqTail]!; // only we write it
    const at = (tail & this.#sqMask) * SQE_WORDS;
    const sqes = this.#sqes;
    sqes[at] = opcode;
    sqes[at + 1] = fd;
    sqes[at + 2] = offset >>> 0;
    sqes[at + 3] = Math.floor(offset / 2 ** 32);
    sqes[at + 4] = address >>> 0;
    sqes[at + 5] = Math.floor(address / 2 ** 32);
    sqes[at + 6] = length;
    sqes[at + 7] = opFlags;
    sqes[at + 8] = tag;
    sqes.fill(0, at + 9, at + SQE_WORDS);
    Atomics.store(this.#words, this.#sqTail, tail + 1);
    this.#unsubmitted += 1;
  }

  /** Hands what was prepared to the kernel. */
  submit(): void {
    while (this.#unsubmitted > 0) {
      const taken = ioUringEnter(this.#fd, this.#unsubmitted, 0, 0);
      if (taken >= 0) {
        this.#unsubmitted -= taken;
      } else if (taken === -EAGAIN || taken === -EBUSY) {
        // Out of memory for now, or too much under way: what is prepared stays prepared.
        this.#submitLater();
        return;
      } else {
        assert(taken === -EINTR, `io_uring_enter: errno ${-taken}`);
      }
    }
  }

  #submitLater(): void {
    if (this.#enterScheduled) return;
    this.#enterScheduled = true;
    setImmediate(() => {
      this.#enterScheduled = false;
      this.submit();
    });
  }

  /** Submits, and waits until something has completed. Blocks the process: for the time of a probe only. */
  submitAndWait(): void {
    for (;;) {
      const taken = ioUringEnter(this.#fd, this.#unsubmitted, 1, IORING_ENTER_GETEVENTS);
      if (taken >= 0) {
        this.#unsubmitted -= taken;
        return;
      }
      assert(taken === -EINTR || taken === -EAGAIN, `io_uring_enter: errno ${-taken}`);
    }
  }

  /**
   * Takes every completion that is there.
   *
   * @param each called with the tag and the result: the call's, or -errno. It may prepare() and submit().
   */
  reap(each: (tag: number, result: number) => void): void {
    const words = this.#words;
    let head = words[this.#cqHead]!; // only we write it
    const tail = Atomics.load(words, this.#cqTail);
    while (head !== tail && !this.#closed) {
      const at = this.#cqes + (head & this.#cqMask) * CQE_WORDS;
      const tag = words[at]!;
      const result = this.#results[at + 2]!;
      head = (head + 1) >>> 0;
      Atomics.store(words, this.#cqHead, head);
      each(tag, result);
    }
  }

  /** Calls `ready` from the event loop while there are completions. Once; until close(). */
  watch(ready: () => void): void {
    assert(this.#poll === null);
    let scheduled = false;
    const run = () => {
      scheduled = false;
      if (!this.#closed) ready();
    };
    this.#poll = pollReadable(this.#fd, () => {
      if (scheduled) return;
      scheduled = true;
      setImmediate(run);
    });
  }

  /** Nothing may be under way. */
  close(): void {
    assert(!this.#closed);
    this.#closed = true;
    this.#poll?.close();
    // Touching unmapped memory would kill the process; an empty array only yields undefined.
    this.#words = new Uint32Array(0);
    this.#results = new Int32Array(0);
    this.#sqes = new Uint32Array(0);
    unmap(this.#ringMapping);
    unmap(this.#sqeMapping);
    fs.closeSync(this.#fd);
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * A writer that remembers what was acknowledged, and can prove later that a disk still has it.
 *
 *   block   index u32 │ sequence u32 │ pseudo-random bytes that follow from both │ crc32 u32
 *
 * Each block is rewritten with growing sequence numbers, one write at a time. At any moment the disk
 * must hold, in each block, exactly one of the versions from the last acknowledged one to the last one
 * sent, whole. What a verification has seen must not be older the next time.
 *
 * Where the power of all that had the newest data was cut, a block may hold any version from the last one
 * that a flush covered; only with blocks of one sector is it sure to be whole.
 */

import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { NbdError } from "./nbd-client.ts";

/** What the writer needs of an NBD client. */
export interface WritableDisk {
  write(offset: number, data: Uint8Array, options?: { fua?: boolean }): Promise<void>;
  flush(): Promise<void>;
}

export interface ReadableDisk {
  read(offset: number, length: number): Promise<Uint8Array>;
}

export interface RecordedWriterOptions {
  /** Bytes, where the first block lies. */
  readonly offset: number;
  readonly blockCount: number;
  /** Bytes; default 4096. */
  readonly blockSize?: number;
  /** Writes in flight; default 16. */
  readonly queueDepth?: number;
  /** A flush after so many writes; default none. */
  readonly flushEvery?: number;
  /** Chooses the order of blocks; default 1. */
  readonly seed?: number;
}

/**
 * What must still be there: all that was acknowledged; what a flush has covered since it was; or what was
 * there when the test said settle().
 */
export type Promised = "acknowledged" | "flushed" | "settled";

export interface Verification {
  /** Blocks that have at least one acknowledged write. */
  readonly blocks: number;
  /** SHA-256 over those blocks, as read. */
  readonly sha256: string;
}

export class RecordedWriter {
  readonly blockSize: number;
  readonly blockCount: number;
  readonly #offset: number;
  readonly #queueDepth: number;
  readonly #flushEvery: number;
  /** Per block, the newest version that must not get lost; 0 = none. */
  readonly #acknowledged: Uint32Array;
  /** Per block, the newest version that was acknowledged before a flush that succeeded; 0 = none. */
  readonly #flushed: Uint32Array;
  /** Per block, the newest version that was acknowledged at the last settle(); 0 = none. */
  readonly #settled: Uint32Array;
  /** Per block, the newest version ever sent. */
  readonly #sent: Uint32Array;
  readonly #busy: Uint8Array;
  #random: number;
  #acknowledgedCount = 0;
  #stopping = false;
  #running: Promise<string | null> | null = null;

  constructor(options: RecordedWriterOptions) {
    this.blockSize = options.blockSize ?? 4096;
    this.blockCount = options.blockCount;
    this.#offset = options.offset;
    this.#queueDepth = Math.min(options.queueDepth ?? 16, options.blockCount);
    this.#flushEvery = options.flushEvery ?? 0;
    this.#acknowledged = new Uint32Array(options.blockCount);
    this.#flushed = new Uint32Array(options.blockCount);
    this.#settled = new Uint32Array(options.blockCount);
    this.#sent = new Uint32Array(options.blockCount);
    this.#busy = new Uint8Array(options.blockCount);
    this.#random = options.seed ?? 1;
  }

  /** Writes answered with success, over all runs. */
  get acknowledgedCount(): number {
    return this.#acknowledgedCount;
  }

  /** Blocks with at least one acknowledged write. */
  get acknowledgedBlocks(): number {
    let count = 0;
    for (const sequence of this.#acknowledged) if (sequence > 0) count++;
    return count;
  }

  /** Writes to `disk` until {@link stop}, or until a request fails. Not while another run lasts. */
  start(disk: WritableDisk): void {
    if (this.#running !== null) throw new Error("the writer is already running");
    this.#stopping = false;
    this.#busy.fill(0);
    const lanes = Array.from({ length: this.#queueDepth }, () => this.#lane(disk));
    this.#running = Promise.all(lanes).then((ends) => ends.find((end) => end !== null) ?? null);
  }

  /** @returns why the run ended: null when {@link stop} was called, else the first failure */
  async ended(): Promise<string | null> {
    const end = await this.#running;
    this.#running = null;
    return end ?? null;
  }

  /** Lets the writes in flight finish. @returns as {@link ended} */
  stop(): Promise<string | null> {
    this.#stopping = true;
    return this.ended();
  }

  /**
   * Reads every block and compares it with what was acknowledged. What is found counts as acknowledged
   * from now on, and as flushed after the next flush.
   *
   * @throws Error naming the blocks that are lost, older than acknowledged, or torn
   */
  async verify(disk: ReadableDisk, promised: Promised = "acknowledged"): Promise<Verification> {
    const hash = createHash("sha256");
    const complaints: string[] = [];
    let blocks = 0;
    const perRead = Math.max(1, Math.floor(131_072 / this.blockSize));
    for (let first = 0; first < this.blockCount; first += perRead) {
      const count = Math.min(perRead, this.blockCount - first);
      const offset = this.#offset + first * this.blockSize;
      const bytes = await disk.read(offset, count * this.blockSize);
      for (let index = first; index < first + count; index++) {
        const at = (index - first) * this.blockSize;
        const block = bytes.subarray(at, at + this.blockSize);
        const complaint = this.#judge(index, block, promised);
        if (complaint !== null) complaints.push(complaint);
        if (this.#acknowledged[index]! > 0) {
          hash.update(block);
          blocks++;
        }
      }
    }
    if (complaints.length > 0) {
      const shown = complaints.slice(0, 8).join("\n  ");
      throw new Error(`${complaints.length} of ${blocks} acknowledged blocks are bad:\n  ${shown}`);
    }
    return { blocks, sha256: hash.digest("hex") };
  }

  /** Flushes: all that was acknowledged before must from now on survive a power cut. */
  async flush(disk: WritableDisk): Promise<void> {
    const before = this.#acknowledged.slice();
    await disk.flush();
    // Another lane's flush may have covered more.
    for (const [index, sequence] of before.entries()) {
      if (this.#flushed[index]! < sequence) this.#flushed[index] = sequence;
    }
  }

  /** Nothing is in flight, and every copy has everything. */
  settle(): void {
    this.#flushed.set(this.#acknowledged);
    this.#settled.set(this.#acknowledged);
  }

  #promised(promised: Promised): Uint32Array {
    switch (promised) {
      case "acknowledged":
        return this.#acknowledged;
      case "flushed":
        return this.#flushed;
      case "settled":
        return this.#settled;
    }
  }

  #judge(index: number, block: Uint8Array, promised: Promised): string | null {
    const least = this.#promised(promised)[index]!;
    const sent = this.#sent[index]!;
    if (sent === 0) return null;
    const sequence = sequenceOf(index, block);
    const where = `block ${index} at ${this.#offset + index * this.blockSize}`;
    if (sequence === null && least > 0) {
      return `${where}: version ${least} was ${promised}; its content is no version at all`;
    }
    // Where nothing was promised, what was there before may still be.
    const found = sequence ?? 0;
    if (found < least || found > sent) {
      return `${where}: version ${least} was ${promised}, ${sent} sent; found ${found}`;
    }
    this.#acknowledged[index] = found; // seen once, it must not go back
    if (this.#flushed[index]! > found) this.#flushed[index] = found;
    return null;
  }

  async #lane(disk: WritableDisk): Promise<string | null> {
    const block = new Uint8Array(this.blockSize);
    for (let round = 1; !this.#stopping; round++) {
      const index = this.#choose();
      this.#busy[index] = 1;
      const sequence = this.#sent[index]! + 1;
      this.#sent[index] = sequence;
      fillBlock(block, index, sequence);
      try {
        await disk.write(this.#offset + index * this.blockSize, block);
        this.#acknowledged[index] = sequence;
        this.#acknowledgedCount++;
        if (this.#flushEvery > 0 && round % this.#flushEvery === 0) await this.flush(disk);
      } catch (error) {
        if (!(error instanceof NbdError)) throw error;
        this.#stopping = true;
        return error.message;
      }
      this.#busy[index] = 0;
    }
    return null;
  }

  /** A block nobody is writing: a pseudo-random one, or the next free one after it. */
  #choose(): number {
    this.#random = nextRandom(this.#random);
    let index = this.#random % this.blockCount;
    while (this.#busy[index] !== 0) index = (index + 1) % this.blockCount;
    return index;
  }
}

/** Xorshift, 32 bits; never 0 when `state` is not. */
function nextRandom(state: number): number {
  let x = state | 0;
  x ^= x << 13;
  x ^= x >>> 17;
  x ^= x << 5;
  return x >>> 0;
}

function fillBlock(block: Uint8Array, index: number, sequence: number): void {
  const view = new DataView(block.buffer, block.byteOffset, block.length);
  let state = (Math.imul(index + 1, 0x9e3779b1) ^ Math.imul(sequence, 0x85ebca6b)) >>> 0 || 1;
  view.setUint32(0, index, true);
  view.setUint32(4, sequence, true);
  for (let at = 8; at < block.length; at += 4) {
    state = nextRandom(state);
    view.setUint32(at, state, true);
  }
  view.setUint32(block.length - 4, crc32(block.subarray(0, block.length - 4)), true);
}

/** The version a block holds, or null if it is not, in every byte, one of this writer's. */
function sequenceOf(index: number, block: Uint8Array): number | null {
  const view = new DataView(block.buffer, block.byteOffset, block.length);
  if (view.getUint32(0, true) !== index) return null;
  const sequence = view.getUint32(4, true);
  const expected = new Uint8Array(block.length);
  fillBlock(expected, index, sequence);
  return Buffer.compare(expected, block) === 0 ? sequence : null;
}

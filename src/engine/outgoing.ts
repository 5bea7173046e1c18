// SPDX-License-Identifier: BSD-2-Clause
/**
 * What goes out on one stream: headers and small payloads are gathered in a buffer, larger
 * payloads are sent from where they lie, and one flush() per batch hands everything over in a
 * single system call.
 */

import { assert } from "../base/assert.ts";
import type { Stream } from "../platform/net.ts";
import { type Memory, NOBODY, PINNED } from "./memory.ts";

/** Payloads up to this many bytes are copied: cheaper than another piece in the system call. */
const COPY_MAX = 16 * 1024;
const CHUNK_SIZE = 256 * 1024;

export class Outgoing {
  readonly #stream: Stream;
  readonly #memory: Memory;
  #chunk: Uint8Array = new Uint8Array(CHUNK_SIZE);
  /** [from, at) of the chunk has not been handed over. */
  #from = 0;
  #at = 0;
  /** Pieces not yet handed over, and what each keeps in place (NOBODY: a chunk). */
  #pieces: Uint8Array[] = [];
  readonly #holders: number[] = [];
  readonly #sizes: number[] = [];
  #unsent = 0;
  #closed = false;

  constructor(stream: Stream, memory: Memory) {
    this.#stream = stream;
    this.#memory = memory;
  }

  /** Bytes accepted that have not left our memory. */
  get unsent(): number {
    return this.#unsent;
  }

  /** The buffer to write a header into, with at least `size` (≤ 64 KiB) bytes behind {@link at}. */
  reserve(size: number): Uint8Array {
    if (this.#chunk.length - this.#at < size) {
      this.#cut();
      this.#chunk = new Uint8Array(CHUNK_SIZE);
      this.#from = this.#at = 0;
    }
    return this.#chunk;
  }

  get at(): number {
    return this.#at;
  }

  /** A header has been written up to `end`. */
  advance(end: number): void {
    assert(end >= this.#at && end <= this.#chunk.length);
    if (!this.#closed) this.#unsent += end - this.#at;
    this.#at = end;
  }

  /**
   * Appends `length` bytes of `bytes`.
   *
   * @param holder what to hold until they are sent; PINNED if they stay in place without that;
   *   NOBODY to have them copied
   */
  payload(bytes: Uint8Array, from: number, length: number, holder: number): void {
    if (length <= COPY_MAX || holder === NOBODY) {
      let done = 0;
      while (done < length) {
        const part = Math.min(length - done, 65536);
        this.reserve(part);
        this.#chunk.set(bytes.subarray(from + done, from + done + part), this.#at);
        this.advance(this.#at + part);
        done += part;
      }
      return;
    }
    this.#cut();
    if (this.#closed) return;
    if (holder !== PINNED) this.#memory.hold(holder);
    this.#push(bytes.subarray(from, from + length), holder);
    this.#unsent += length;
  }

  #cut(): void {
    if (this.#at === this.#from) return;
    if (this.#closed) this.#at = this.#from;
    else this.#push(this.#chunk.subarray(this.#from, this.#at), NOBODY);
    this.#from = this.#at;
  }

  #push(piece: Uint8Array, holder: number): void {
    this.#pieces.push(piece);
    this.#holders.push(holder);
    this.#sizes.push(piece.length);
  }

  /** Hands everything to the stream. */
  flush(): void {
    this.#cut();
    if (this.#pieces.length === 0 || this.#closed) return;
    const pieces = this.#pieces;
    if (pieces.length === 1) this.#stream.write(pieces[0]!);
    else this.#stream.writeAll(pieces);
    this.#pieces = [];
  }

  /** From the stream's reader: the oldest `count` writes have left. */
  sent(count: number): void {
    for (let index = 0; index < count; index++) {
      const holder = this.#holders.shift();
      const size = this.#sizes.shift();
      assert(holder !== undefined && size !== undefined);
      this.#unsent -= size;
      if (holder >= 0) this.#memory.letGo(holder);
    }
    // Nothing refers to the chunk any more.
    if (this.#unsent === 0) this.#from = this.#at = 0;
  }

  /** The stream is closed: lets go of everything. */
  close(): void {
    this.#closed = true;
    for (const holder of this.#holders) if (holder >= 0) this.#memory.letGo(holder);
    this.#holders.length = 0;
    this.#sizes.length = 0;
    this.#pieces = [];
    this.#unsent = 0;
    this.#at = this.#from;
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/** The extents that a resync is copying at the moment, each in chunks of up to IO_MAX bytes. */

import { assert } from "../base/assert.ts";
import type { Activemap } from "./activemap.ts";
import { IO_MAX } from "./requests.ts";

/** Chunks in flight, and so extents at a time. */
export const SYNC_WINDOW = 32;

export class SyncWindow {
  readonly #map: Activemap;
  /** Or -1. */
  readonly #extent: Int32Array = new Int32Array(SYNC_WINDOW).fill(-1);
  readonly #next: Float64Array = new Float64Array(SYNC_WINDOW);
  readonly #end: Float64Array = new Float64Array(SYNC_WINDOW);
  /** In flight. */
  readonly #chunks: Int32Array = new Int32Array(SYNC_WINDOW);
  readonly #failed: Uint8Array = new Uint8Array(SYNC_WINDOW);
  #cursor = 0;

  constructor(map: Activemap) {
    this.#map = map;
  }

  /**
   * An extent with chunks left to begin, taking a new one if need be; its index, or -1.
   * @param urgentOnly only what the peer lacks that a FLUSH, or a read, waits for
   */
  find(urgentOnly: boolean): number {
    if (urgentOnly && this.#map.goodHereCount === 0) return -1;
    let empty = -1;
    for (let index = 0; index < SYNC_WINDOW; index++) {
      if (this.#extent[index] === -1) empty = empty < 0 ? index : empty;
      else if (this.#next[index]! < this.#end[index]!) {
        if (!urgentOnly || this.#map.isGoodHere(this.#next[index]!, 1)) return index;
      }
    }
    if (empty < 0) return -1;
    const extent = this.#map.takeScheduled(this.#cursor, urgentOnly);
    if (extent < 0) return -1;
    this.#cursor = extent + 1;
    this.#extent[empty] = extent;
    this.#next[empty] = extent * this.#map.extentSize;
    this.#end[empty] = Math.min((extent + 1) * this.#map.extentSize, this.#map.dataSize);
    this.#chunks[empty] = 0;
    this.#failed[empty] = 0;
    return empty;
  }

  /** Where the next chunk of an extent begins, in bytes. */
  nextOffset(index: number): number {
    return this.#next[index]!;
  }

  /** That chunk begins. @returns its length in bytes */
  beginChunk(index: number): number {
    const length = Math.min(IO_MAX, this.#end[index]! - this.#next[index]!);
    this.#next[index]! += length;
    this.#chunks[index]! += 1;
    return length;
  }

  /** Where an extent that is being copied begins, in bytes. */
  start(index: number): number {
    assert(this.#extent[index]! >= 0);
    return this.#extent[index]! * this.#map.extentSize;
  }

  /** A chunk has ended. @returns what has become of its extent; one that failed stays in line (BD-8) */
  chunkDone(index: number, copied: boolean): "under way" | "copied" | "failed" {
    const extent = this.#extent[index]!;
    if (!copied) this.#failed[index] = 1;
    this.#chunks[index]! -= 1;
    const failed = this.#failed[index] === 1;
    const left = this.#next[index]! < this.#end[index]!;
    if (this.#chunks[index]! > 0 || (left && !failed)) return "under way";
    this.#extent[index] = -1;
    if (failed) this.#map.extentFailed(extent);
    else this.#map.extentCopied(extent);
    return failed ? "failed" : "copied";
  }

  /** The connection is gone: nothing is being copied any more. */
  abandon(): void {
    this.#map.abandonSyncing();
    this.#extent.fill(-1);
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * LZF: literal runs and back-references, told apart by the control byte c.
 *
 *   c < 32        literals: c + 1 bytes follow
 *   c >> 5 = 1…6  copy (c >> 5) + 2 bytes from distance ((c & 31) << 8 | next) + 1
 *   c >> 5 = 7    copy 7 + next + 2 bytes from distance ((c & 31) << 8 | the one after) + 1
 *
 * A copy may overlap what it produces. Source: the format of liblzf, as hastd uses it; wire protocol §4.3.
 */

import { assert } from "../base/assert.ts";
import { WireError } from "./error.ts";

const LITERALS_MAX = 32;
const DISTANCE_MAX = 8192;
const COPY_MIN = 3;
const COPY_MAX = 264;
const HASH_BITS = 14;
const BASE_MAX = 1 << 26; // so rarely is the table cleared

/** Owns the table of where three bytes were last seen. */
export class LzfCompressor {
  readonly #seen = new Int32Array(1 << HASH_BITS); // #base + index into the data; below #base = stale
  #base = 1;

  /**
   * Compresses input[at, at + length) into out[outAt, outEnd).
   *
   * @returns bytes written, > 0; or 0 where they do not fit, and then out[outAt, outEnd) holds garbage
   */
  compress(
    input: Uint8Array,
    at: number,
    length: number,
    out: Uint8Array,
    outAt: number,
    outEnd: number,
  ): number {
    assert(length > 0);
    assert(at + length <= input.length);
    assert(outEnd <= out.length);
    if (this.#base + length > BASE_MAX) {
      this.#seen.fill(0);
      this.#base = 1;
    }
    const seen = this.#seen;
    const origin = this.#base - at;
    this.#base += length;

    const end = at + length;
    const hashEnd = end - (COPY_MIN - 1);
    let from = at;
    let literals = 0;
    let to = outAt + 1; // one byte kept free for the control byte of the literals to come

    while (from < end) {
      if (from < hashEnd) {
        const three = (input[from]! << 16) | (input[from + 1]! << 8) | input[from + 2]!;
        const slot = Math.imul(three, 0x9e3779b1) >>> (32 - HASH_BITS);
        const earlier = seen[slot]! - origin;
        seen[slot] = origin + from;
        const distance = from - earlier;
        if (
          earlier >= at &&
          distance <= DISTANCE_MAX &&
          input[earlier] === input[from] &&
          input[earlier + 1] === input[from + 1] &&
          input[earlier + 2] === input[from + 2]
        ) {
          const copyMax = Math.min(COPY_MAX, end - from);
          let copy = COPY_MIN;
          while (copy < copyMax && input[earlier + copy] === input[from + copy]) copy++;

          if (literals === 0) to--;
          else out[to - literals - 1] = literals - 1;
          literals = 0;
          if (to + 3 > outEnd) return 0;
          if (copy - 2 < 7) {
            out[to++] = ((copy - 2) << 5) | ((distance - 1) >> 8);
          } else {
            out[to++] = (7 << 5) | ((distance - 1) >> 8);
            out[to++] = copy - 2 - 7;
          }
          out[to++] = (distance - 1) & 0xff;
          to++;
          from += copy;
          continue;
        }
      }
      if (to >= outEnd) return 0;
      out[to++] = input[from++]!;
      if (++literals === LITERALS_MAX) {
        out[to - literals - 1] = literals - 1;
        literals = 0;
        to++;
      }
    }
    if (literals === 0) to--;
    else out[to - literals - 1] = literals - 1;
    return to - outAt;
  }
}

/**
 * Decompresses bytes[at, end) into exactly out[outAt, outEnd). Nothing outside it is written, and nothing
 * outside both ranges is read.
 *
 * @throws WireError "lzf-damaged"; out[outAt, outEnd) then holds garbage
 */
export function lzfDecompress(
  bytes: Uint8Array,
  at: number,
  end: number,
  out: Uint8Array,
  outAt: number,
  outEnd: number,
): void {
  assert(end <= bytes.length);
  assert(outEnd <= out.length);
  let from = at;
  let to = outAt;
  while (from < end) {
    const control = bytes[from++]!;
    if (control < LITERALS_MAX) {
      const literals = control + 1;
      if (literals > end - from) throw damaged(from - at, "literals run past the end of the data");
      if (literals > outEnd - to) throw damaged(from - at, "more data than announced");
      for (let left = literals; left > 0; left--) out[to++] = bytes[from++]!;
      continue;
    }
    let copy = control >> 5;
    if (copy === 7) {
      if (from >= end) throw damaged(from - at, "copy length missing");
      copy += bytes[from++]!;
    }
    copy += 2;
    if (from >= end) throw damaged(from - at, "copy distance missing");
    let source = to - ((((control & 31) << 8) | bytes[from++]!) + 1);
    if (source < outAt) throw damaged(from - at, "copy from before the beginning");
    if (copy > outEnd - to) throw damaged(from - at, "more data than announced");
    for (let left = copy; left > 0; left--) out[to++] = out[source++]!;
  }
  if (to !== outEnd) {
    throw damaged(from - at, `${to - outAt} bytes came out; ${outEnd - outAt} were announced`);
  }
}

function damaged(at: number, reason: string): WireError {
  return new WireError("lzf-damaged", `LZF data, byte ${at}: ${reason}`);
}

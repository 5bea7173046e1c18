// SPDX-License-Identifier: BSD-2-Clause
/**
 * Answers in the transmission phase, written where the caller wants them. Nothing is allocated.
 *
 *   simple  magic u32 │ error u32 │ cookie u64                                    │ a READ's data
 *   chunk   magic u32 │ flags u16 │ type u16 │ cookie u64 │ payload length u32    │ payload
 *
 * Every function returns the index after the last byte written.
 * Source: NBD protocol, "Simple reply message" and "Structured reply chunk message".
 */

import { assert } from "../base/assert.ts";
import { putU16BE, putU32BE, putU64BE, putU64HalvesBE } from "../base/bytes.ts";
import * as nbd from "./protocol.ts";

export function putSimpleReply(
  out: Uint8Array,
  at: number,
  cookieHi: number,
  cookieLo: number,
  nbdErrno: number,
): number {
  assert(out.length - at >= nbd.NBD_SIMPLE_REPLY_SIZE);
  putU32BE(out, at, nbd.NBD_SIMPLE_REPLY_MAGIC);
  putU32BE(out, at + 4, nbdErrno);
  putU64HalvesBE(out, at + 8, cookieHi, cookieLo);
  return at + nbd.NBD_SIMPLE_REPLY_SIZE;
}

/** Nothing more to say: a success without content. */
export function putNone(out: Uint8Array, at: number, cookieHi: number, cookieLo: number): number {
  return putChunk(out, at, nbd.NBD_REPLY_TYPE_NONE, true, cookieHi, cookieLo, 0);
}

/** @param nbdErrno not 0 */
export function putError(
  out: Uint8Array,
  at: number,
  cookieHi: number,
  cookieLo: number,
  nbdErrno: number,
): number {
  assert(nbdErrno !== 0);
  const payload = putChunk(out, at, nbd.NBD_REPLY_TYPE_ERROR, true, cookieHi, cookieLo, 6);
  assert(out.length - payload >= 6);
  putU32BE(out, payload, nbdErrno);
  putU16BE(out, payload + 4, 0); // the length of a message; clients print strerror() instead
  return payload + 6;
}

/** The header of the only chunk of a READ: the caller sends `length` (> 0) bytes of data after it. */
export function putOffsetData(
  out: Uint8Array,
  at: number,
  cookieHi: number,
  cookieLo: number,
  offset: number,
  length: number,
): number {
  assert(length > 0);
  const payload = putChunk(
    out,
    at,
    nbd.NBD_REPLY_TYPE_OFFSET_DATA,
    true,
    cookieHi,
    cookieLo,
    8 + length,
  );
  assert(out.length - payload >= 8);
  putU64BE(out, payload, offset);
  return payload + 8;
}

/** @param extents (length, status flags) pairs; at least one, every length > 0 */
export function putBlockStatus(
  out: Uint8Array,
  at: number,
  cookieHi: number,
  cookieLo: number,
  contextId: number,
  extents: Uint32Array,
  extentCount: number,
  last: boolean,
): number {
  assert(extentCount > 0);
  assert(extentCount * 2 <= extents.length);
  const type = nbd.NBD_REPLY_TYPE_BLOCK_STATUS;
  const size = 4 + 8 * extentCount;
  let end = putChunk(out, at, type, last, cookieHi, cookieLo, size);
  assert(out.length - end >= size);
  putU32BE(out, end, contextId);
  end += 4;
  for (let index = 0; index < extentCount * 2; index += 2) {
    assert(extents[index]! > 0);
    putU32BE(out, end, extents[index]!);
    putU32BE(out, end + 4, extents[index + 1]!);
    end += 8;
  }
  return end;
}

function putChunk(
  out: Uint8Array,
  at: number,
  type: number,
  last: boolean,
  cookieHi: number,
  cookieLo: number,
  payloadLength: number,
): number {
  assert(out.length - at >= nbd.NBD_CHUNK_SIZE);
  putU32BE(out, at, nbd.NBD_STRUCTURED_REPLY_MAGIC);
  putU16BE(out, at + 4, last ? nbd.NBD_REPLY_FLAG_DONE : 0);
  putU16BE(out, at + 6, type);
  putU64HalvesBE(out, at + 8, cookieHi, cookieLo);
  putU32BE(out, at + 16, payloadLength);
  return at + nbd.NBD_CHUNK_SIZE;
}

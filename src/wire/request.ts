// SPDX-License-Identifier: BSD-2-Clause
/** Stub: signatures are final. */

import type { OutgoingPayload, PayloadHeader } from "./payload.ts";

export const CMD_READ = 1;
export const CMD_WRITE = 2;
export const CMD_DELETE = 3;
export const CMD_FLUSH = 4;
export const CMD_KEEPALIVE = 5;

/** No request header of ours is longer, in bytes, frame included. */
export const REQUEST_HEADER_MAX = 243;

export class RequestHeader implements PayloadHeader {
  version = 0; // of the frame
  cmd = 0; // 0 = missing
  seqHi = 0;
  seqLo = 0;
  hasSeq = false;
  offset = -1; // bytes into the data area; -1 = missing or above 2^53 - 1
  length = -1; // bytes; the same
  memsync = false;
  compression = 0;
  checksum = 0;
  readonly hash: Uint8Array = new Uint8Array(32);
  hashLength = 0;
  size = 0; // payload bytes behind the header, as claimed
  headerEnd = 0; // index into bytes, of the payload's first byte
}

/**
 * Decodes the request header at bytes[start], of which bytes[start, end) have arrived.
 *
 * @returns false while the header is incomplete; `into` is then undefined. The payload (into.size bytes at
 *   into.headerEnd) may be missing still, and its size is the peer's claim
 * @throws WireError
 */
export function decodeRequest(
  _bytes: Uint8Array,
  _start: number,
  _end: number,
  _into: RequestHeader,
): boolean {
  throw new Error("stub");
}

/**
 * Writes a request header at out[at], where REQUEST_HEADER_MAX bytes have room. The payload is sent behind it by the caller.
 *
 * @param offset bytes into the data area; 0 for CMD_FLUSH and CMD_KEEPALIVE
 * @returns index of the first byte behind the header
 */
export function encodeRequest(
  _out: Uint8Array,
  _at: number,
  _version: number,
  _cmd: number,
  _seqHi: number,
  _seqLo: number,
  _offset: number,
  _length: number,
  _memsync: boolean,
  _payload: OutgoingPayload | null,
): number {
  throw new Error("stub");
}

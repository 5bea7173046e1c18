// SPDX-License-Identifier: BSD-2-Clause
/** Stub: signatures are final. */

import type { OutgoingPayload, PayloadHeader } from "./payload.ts";

/** No reply header of ours is longer, in bytes, frame included. */
export const REPLY_HEADER_MAX = 207;

export class ReplyHeader implements PayloadHeader {
  version = 0; // of the frame
  seqHi = 0;
  seqLo = 0;
  hasSeq = false;
  received = false;
  error = 0; // FreeBSD errno, int16, 0 = success
  compression = 0;
  checksum = 0;
  readonly hash: Uint8Array = new Uint8Array(32);
  hashLength = 0;
  size = 0; // payload bytes behind the header, as claimed
  headerEnd = 0; // index into bytes, of the payload's first byte
}

/** As decodeRequest(), for replies (wire protocol §9). @throws WireError */
export function decodeReply(
  _bytes: Uint8Array,
  _start: number,
  _end: number,
  _into: ReplyHeader,
): boolean {
  throw new Error("stub");
}

/**
 * Writes a reply header at out[at], where REPLY_HEADER_MAX bytes have room.
 *
 * @param error FreeBSD errno (see errnoToWire), 0 for success
 * @returns index of the first byte behind the header
 */
export function encodeReply(
  _out: Uint8Array,
  _at: number,
  _version: number,
  _seqHi: number,
  _seqLo: number,
  _received: boolean,
  _error: number,
  _payload: OutgoingPayload | null,
): number {
  throw new Error("stub");
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * Replies, secondary → primary, on connection B. The data path: nothing here allocates.
 *
 *   frame │ seq u64 │ received i8 = 1 │ error i16 │ payload keys │ payload
 *                     first of the two   where     READ that succeeded
 *                     to memsync WRITEs  not 0
 *
 * Source: FreeBSD sbin/hastd/secondary.c, send_thread(), and primary.c, remote_recv_thread(); wire
 * protocol §9.
 */

import { assert } from "../base/assert.ts";
import { getI16, getU32, putU16, putU32, putU64Halves } from "../base/bytes.ts";
import { encodeFrame, FRAME_HEADER_SIZE, PROTOCOL_VERSION, peekFrame } from "./frame.ts";
import {
  NV_HEADER_SIZE,
  NV_INT16,
  NV_UINT64,
  NvWriter,
  nvBytesAre,
  nvEntryEnd,
  nvName,
  up8,
} from "./nv.ts";
import {
  CHECKSUM_NONE,
  COMPRESSION_NONE,
  clearPayload,
  encodePayloadKeys,
  type PayloadHeader,
  takePayloadKey,
} from "./payload.ts";

/** No reply header of ours is longer, in bytes, frame included. */
export const REPLY_HEADER_MAX = 207;

/** One decoded header, overwritten by the next. Nothing of it has been judged but the encoding. */
export class ReplyHeader implements PayloadHeader {
  version = 0; // of the frame
  seqHi = 0;
  seqLo = 0;
  hasSeq = false;
  received = false;
  error = 0; // FreeBSD errno (see errnoFromWire), 0 = success; any int16 from a hostile peer
  compression: number = COMPRESSION_NONE;
  checksum: number = CHECKSUM_NONE;
  readonly hash: Uint8Array = new Uint8Array(32);
  hashLength = 0;
  size = 0; // bytes of payload behind the header, as claimed
  headerEnd = 0; // index of the first byte behind the header
}

const SEQ = nvName("seq");
const RECEIVED = nvName("received");
const ERROR = nvName("error");

const SEEN_SEQ = 1;
const SEEN_ERROR = 2;

/**
 * Decodes the reply header at bytes[start], of which bytes[start, end) have arrived.
 *
 * The payload, into.size bytes at into.headerEnd, may not have arrived, and its size is the peer's claim:
 * hold it against what was asked for before waiting for it.
 *
 * @returns false while the header is incomplete; `into` is then undefined
 * @throws WireError; the stream cannot be read on
 */
export function decodeReply(
  bytes: Uint8Array,
  start: number,
  end: number,
  into: ReplyHeader,
): boolean {
  const nvSize = peekFrame(bytes, start, end);
  if (nvSize === "incomplete") return false;
  let at = start + FRAME_HEADER_SIZE;
  const nvEnd = at + nvSize;
  if (nvEnd > end) return false;

  into.version = bytes[start]!;
  into.seqHi = 0;
  into.seqLo = 0;
  into.hasSeq = false;
  into.received = false;
  into.error = 0;
  clearPayload(into);
  into.headerEnd = nvEnd;

  let seen = 0; // a bit for each name met: the first entry of a name counts, even of the wrong type
  while (at < nvEnd && bytes[at] !== 0) {
    const next = nvEntryEnd(bytes, at, nvEnd);
    const type = bytes[at]! & 0x7f;
    const nameSize = bytes[at + 1]!;
    const name = at + NV_HEADER_SIZE;
    const data = name + up8(nameSize);
    if (nameSize === 4 && nvBytesAre(bytes, name, SEQ)) {
      if ((seen & SEEN_SEQ) === 0 && type === NV_UINT64) {
        into.seqLo = getU32(bytes, data);
        into.seqHi = getU32(bytes, data + 4);
        into.hasSeq = true;
      }
      seen |= SEEN_SEQ;
    } else if (nameSize === 9 && nvBytesAre(bytes, name, RECEIVED)) {
      into.received = true;
    } else if (nameSize === 6 && nvBytesAre(bytes, name, ERROR)) {
      if ((seen & SEEN_ERROR) === 0 && type === NV_INT16) into.error = getI16(bytes, data);
      seen |= SEEN_ERROR;
    } else {
      seen = takePayloadKey(bytes, at, seen, into);
    }
    at = next;
  }
  return true;
}

const TEMPLATE = encodeFrame(PROTOCOL_VERSION, new NvWriter().u64("seq", 0).finish());
const SEQ_AT = FRAME_HEADER_SIZE + 14; // behind 6 bytes of entry header and 8 of name
const RECEIVED_KEY = new NvWriter().i8("received", 1).finish();
const ERROR_KEY = new NvWriter().i16("error", 0).finish();

/**
 * Writes a reply header at out[at], where REPLY_HEADER_MAX bytes have room. The payload, if any, is to be
 * sent right behind it.
 *
 * @param error FreeBSD errno (see errnoToWire), 0 for success
 * @returns index of the first byte behind the header
 */
export function encodeReply(
  out: Uint8Array,
  at: number,
  version: number,
  seqHi: number,
  seqLo: number,
  received: boolean,
  error: number,
  payload: PayloadHeader | null,
): number {
  assert(at + REPLY_HEADER_MAX <= out.length);
  out.set(TEMPLATE, at);
  out[at] = version;
  putU64Halves(out, at + SEQ_AT, seqHi, seqLo);
  let end = at + TEMPLATE.length;
  if (received) {
    out.set(RECEIVED_KEY, end);
    end += RECEIVED_KEY.length;
  }
  if (error !== 0) {
    out.set(ERROR_KEY, end);
    end += ERROR_KEY.length;
    putU16(out, end - 8, error);
  }
  if (payload !== null) end = encodePayloadKeys(out, end, payload);
  putU32(out, at + 1, end - at - FRAME_HEADER_SIZE);
  return end;
}

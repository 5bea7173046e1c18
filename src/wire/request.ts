// SPDX-License-Identifier: BSD-2-Clause
/**
 * Requests, primary → secondary, on connection A. The data path: nothing here allocates.
 *
 *   frame │ cmd u8 │ seq u64 │ offset u64 │ length u64 │ memsync u8 = 1 │ payload keys │ payload
 *                                                        memsync mode    WRITE
 *
 * A keepalive has only cmd. Source: FreeBSD sbin/hastd/primary.c, remote_send_thread(), and secondary.c,
 * recv_thread(); wire protocol §8.
 */

import { assert } from "../base/assert.ts";
import { getU32, getU64, putU32, putU64, putU64Halves } from "../base/bytes.ts";
import { encodeFrame, FRAME_HEADER_SIZE, PROTOCOL_VERSION, peekFrame } from "./frame.ts";
import {
  NV_HEADER_SIZE,
  NV_UINT8,
  NV_UINT64,
  NvWriter,
  nvBytesAre,
  nvEntryEnd,
  nvName,
  nvScalarHead,
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

export const CMD_READ = 1;
export const CMD_WRITE = 2;
export const CMD_DELETE = 3;
export const CMD_FLUSH = 4;
export const CMD_KEEPALIVE = 5;

/** Longest READ or WRITE that every peer accepts, in bytes (FreeBSD's MAXPHYS). */
export const MAXIO = 131072;

/** Longest READ or WRITE we accept: peers on FreeBSD 13 and later send up to 1 MiB. */
export const MAXIO_ACCEPTED: number = 1024 * 1024;

/** No request header of ours is longer, in bytes, frame included. */
export const REQUEST_HEADER_MAX = 243;

/** One decoded header, overwritten by the next. Nothing of it has been judged but the encoding. */
export class RequestHeader implements PayloadHeader {
  version = 0; // of the frame
  cmd = 0; // CMD_*, or any other byte; 0 = missing
  seqHi = 0;
  seqLo = 0;
  hasSeq = false;
  offset = -1; // bytes into the data area; -1 = missing, or above 2^53 - 1
  length = -1; // bytes; -1 likewise
  memsync = false;
  compression: number = COMPRESSION_NONE;
  checksum: number = CHECKSUM_NONE;
  readonly hash: Uint8Array = new Uint8Array(32);
  hashLength = 0;
  size = 0; // bytes of payload behind the header, as claimed
  headerEnd = 0; // index of the first byte behind the header
}

const CMD = nvName("cmd");
const SEQ = nvName("seq");
const OFFSET = nvName("offset");
const LENGTH = nvName("length");
const MEMSYNC = nvName("memsync");

const CMD_HEAD = nvScalarHead(NV_UINT8, "cmd");
const SEQ_HEAD = nvScalarHead(NV_UINT64, "seq");
const OFFSET_HEAD = nvScalarHead(NV_UINT64, "offset");
const LENGTH_HEAD = nvScalarHead(NV_UINT64, "length");
const ENTRY_SIZE = 22; // of each of these four: 6 bytes of header, 8 of name, 8 of data
const VALUE_AT = 14;

const SEEN_CMD = 1;
const SEEN_SEQ = 2;
const SEEN_OFFSET = 4;
const SEEN_LENGTH = 8;

/**
 * Decodes the request header at bytes[start], of which bytes[start, end) have arrived.
 *
 * The payload, into.size bytes at into.headerEnd, may not have arrived, and its size is the peer's claim:
 * hold it against into.length and our own buffers before waiting for it.
 *
 * @returns false while the header is incomplete; `into` is then undefined
 * @throws WireError; the stream cannot be read on
 */
export function decodeRequest(
  bytes: Uint8Array,
  start: number,
  end: number,
  into: RequestHeader,
): boolean {
  const nvSize = peekFrame(bytes, start, end);
  if (nvSize === "incomplete") return false;
  let at = start + FRAME_HEADER_SIZE;
  const nvEnd = at + nvSize;
  if (nvEnd > end) return false;

  into.version = bytes[start]!;
  into.cmd = 0;
  into.seqHi = 0;
  into.seqLo = 0;
  into.hasSeq = false;
  into.offset = -1;
  into.length = -1;
  into.memsync = false;
  clearPayload(into);
  into.headerEnd = nvEnd;

  let seen = 0; // a bit for each name met: the first entry of a name counts, even of the wrong type
  // Every known sender begins with these four. The loop below would find the same, but slower.
  if (
    nvSize >= 4 * ENTRY_SIZE &&
    nvBytesAre(bytes, at, CMD_HEAD) &&
    nvBytesAre(bytes, at + ENTRY_SIZE, SEQ_HEAD) &&
    nvBytesAre(bytes, at + 2 * ENTRY_SIZE, OFFSET_HEAD) &&
    nvBytesAre(bytes, at + 3 * ENTRY_SIZE, LENGTH_HEAD)
  ) {
    into.cmd = bytes[at + VALUE_AT]!;
    into.seqLo = getU32(bytes, at + ENTRY_SIZE + VALUE_AT);
    into.seqHi = getU32(bytes, at + ENTRY_SIZE + VALUE_AT + 4);
    into.hasSeq = true;
    into.offset = getU64(bytes, at + 2 * ENTRY_SIZE + VALUE_AT);
    into.length = getU64(bytes, at + 3 * ENTRY_SIZE + VALUE_AT);
    seen = SEEN_CMD | SEEN_SEQ | SEEN_OFFSET | SEEN_LENGTH;
    at += 4 * ENTRY_SIZE;
  }
  while (at < nvEnd && bytes[at] !== 0) {
    const next = nvEntryEnd(bytes, at, nvEnd);
    const type = bytes[at]! & 0x7f;
    const nameSize = bytes[at + 1]!;
    const name = at + NV_HEADER_SIZE;
    const data = name + up8(nameSize);
    if (nameSize === 4 && nvBytesAre(bytes, name, CMD)) {
      if ((seen & SEEN_CMD) === 0 && type === NV_UINT8) into.cmd = bytes[data]!;
      seen |= SEEN_CMD;
    } else if (nameSize === 4 && nvBytesAre(bytes, name, SEQ)) {
      if ((seen & SEEN_SEQ) === 0 && type === NV_UINT64) {
        into.seqLo = getU32(bytes, data);
        into.seqHi = getU32(bytes, data + 4);
        into.hasSeq = true;
      }
      seen |= SEEN_SEQ;
    } else if (nameSize === 7 && nvBytesAre(bytes, name, OFFSET)) {
      if ((seen & SEEN_OFFSET) === 0 && type === NV_UINT64) into.offset = getU64(bytes, data);
      seen |= SEEN_OFFSET;
    } else if (nameSize === 7 && nvBytesAre(bytes, name, LENGTH)) {
      if ((seen & SEEN_LENGTH) === 0 && type === NV_UINT64) into.length = getU64(bytes, data);
      seen |= SEEN_LENGTH;
    } else if (nameSize === 8 && nvBytesAre(bytes, name, MEMSYNC)) {
      into.memsync = true;
    } else {
      seen = takePayloadKey(bytes, at, seen, into);
    }
    at = next;
  }
  return true;
}

const TEMPLATE = encodeFrame(
  PROTOCOL_VERSION,
  new NvWriter().u8("cmd", 0).u64("seq", 0).u64("offset", 0).u64("length", 0).finish(),
);
const CMD_AT = FRAME_HEADER_SIZE + VALUE_AT;
const SEQ_AT = CMD_AT + ENTRY_SIZE;
const OFFSET_AT = SEQ_AT + ENTRY_SIZE;
const LENGTH_AT = OFFSET_AT + ENTRY_SIZE;
const KEEPALIVE = encodeFrame(PROTOCOL_VERSION, new NvWriter().u8("cmd", CMD_KEEPALIVE).finish());
const MEMSYNC_KEY = new NvWriter().u8("memsync", 1).finish();

/**
 * Writes a request header at out[at], where REQUEST_HEADER_MAX bytes have room. The payload, if any, is to
 * be sent right behind it.
 *
 * @param version as negotiated, 1 or 2
 * @param offset bytes into the data area; 0 for CMD_FLUSH and CMD_KEEPALIVE, as is `length`
 * @returns index of the first byte behind the header
 */
export function encodeRequest(
  out: Uint8Array,
  at: number,
  version: number,
  cmd: number,
  seqHi: number,
  seqLo: number,
  offset: number,
  length: number,
  memsync: boolean,
  payload: PayloadHeader | null,
): number {
  assert(at + REQUEST_HEADER_MAX <= out.length);
  if (cmd === CMD_KEEPALIVE) {
    out.set(KEEPALIVE, at);
    out[at] = version;
    return at + KEEPALIVE.length;
  }
  out.set(TEMPLATE, at);
  out[at] = version;
  out[at + CMD_AT] = cmd;
  putU64Halves(out, at + SEQ_AT, seqHi, seqLo);
  putU64(out, at + OFFSET_AT, offset);
  putU64(out, at + LENGTH_AT, length);
  let end = at + TEMPLATE.length;
  if (memsync) {
    assert(version >= 2);
    out.set(MEMSYNC_KEY, end);
    end += MEMSYNC_KEY.length;
  }
  if (payload !== null) end = encodePayloadKeys(out, end, payload);
  putU32(out, at + 1, end - at - FRAME_HEADER_SIZE);
  return end;
}

// SPDX-License-Identifier: BSD-2-Clause
/** Requests of a primary, and replies of a secondary, as bytes. */

import { nodeHashes } from "../../src/platform/node/hashes.ts";
import { OutgoingPayload, PayloadEncoder } from "../../src/wire/payload.ts";
import { encodeReply, REPLY_HEADER_MAX } from "../../src/wire/reply.ts";
import {
  CMD_DELETE,
  CMD_FLUSH,
  CMD_KEEPALIVE,
  CMD_READ,
  CMD_WRITE,
  encodeRequest,
  REQUEST_HEADER_MAX,
} from "../../src/wire/request.ts";

interface PayloadOptions {
  /** COMPRESSION_*, CHECKSUM_*; 0 is none. */
  readonly compression?: number;
  readonly checksum?: number;
}

interface WriteOptions extends PayloadOptions {
  readonly memsync?: boolean;
  /** What the header claims, where that is not the data's own length. */
  readonly length?: number;
}

export function writeRequest(
  seq: number,
  offset: number,
  data: Uint8Array,
  options: WriteOptions = {},
): Uint8Array {
  const payload = packed(data, options);
  const header = new Uint8Array(REQUEST_HEADER_MAX);
  const end = encodeRequest(
    header,
    0,
    2,
    CMD_WRITE,
    0,
    seq,
    offset,
    options.length ?? data.length,
    options.memsync ?? false,
    payload,
  );
  return joined(header.subarray(0, end), payload);
}

export function readRequest(seq: number, offset: number, length: number): Uint8Array {
  return plain(CMD_READ, seq, offset, length);
}

export function deleteRequest(seq: number, offset: number, length: number): Uint8Array {
  return plain(CMD_DELETE, seq, offset, length);
}

export function flushRequest(seq: number): Uint8Array {
  return plain(CMD_FLUSH, seq, 0, 0);
}

export function keepalive(): Uint8Array {
  return plain(CMD_KEEPALIVE, 0, 0, 0);
}

function plain(cmd: number, seq: number, offset: number, length: number): Uint8Array {
  const header = new Uint8Array(REQUEST_HEADER_MAX);
  const end = encodeRequest(header, 0, 2, cmd, 0, seq, offset, length, false, null);
  return header.slice(0, end);
}

interface ReplyOptions extends PayloadOptions {
  readonly received?: boolean;
  /** FreeBSD's number. */
  readonly error?: number;
  readonly data?: Uint8Array;
}

export function reply(seq: number, options: ReplyOptions = {}): Uint8Array {
  const payload = options.data === undefined ? null : packed(options.data, options);
  const header = new Uint8Array(REPLY_HEADER_MAX);
  const { received = false, error = 0 } = options;
  const end = encodeReply(header, 0, 2, 0, seq, received, error, payload);
  return joined(header.subarray(0, end), payload);
}

function packed(data: Uint8Array, options: PayloadOptions): OutgoingPayload | null {
  if (data.length === 0) return null;
  const payload = new OutgoingPayload();
  const { compression = 0, checksum = 0 } = options;
  new PayloadEncoder(nodeHashes).encode(compression, checksum, data, 0, data.length, payload);
  return payload;
}

function joined(header: Uint8Array, payload: OutgoingPayload | null): Uint8Array {
  if (payload === null) return header.slice();
  const { bytes, at, size } = payload;
  return new Uint8Array(Buffer.concat([header, bytes.subarray(at, at + size)]));
}

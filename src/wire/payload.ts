// SPDX-License-Identifier: BSD-2-Clause
/**
 * The data behind a message: WRITE data, READ answers and the activemap of the handshake.
 *
 *   sender:    data → compression → checksum → `size` bytes on the wire
 *   receiver:  `size` bytes → verify → decompress → exactly the length that was asked for
 *
 *   hole:  original length u32                (all of it zero)
 *   lzf:   original length u32 │ LZF stream
 *
 * So the hash covers what is transmitted. The keys compression, checksum, hash and size follow a
 * message's own keys in this order. Source: FreeBSD sbin/hastd/hast_compression.c, hast_checksum.c and
 * hast_proto.c; wire protocol §4.
 */

import { assert } from "../base/assert.ts";
import { getU32, putU32 } from "../base/bytes.ts";
import { WireError } from "./error.ts";
import { LzfCompressor, lzfDecompress } from "./lzf.ts";
import {
  NV_HEADER_SIZE,
  NV_STRING,
  NV_UINT8_ARRAY,
  NV_UINT32,
  NvWriter,
  nvBytesAre,
  nvName,
  up8,
} from "./nv.ts";

export const COMPRESSION_NONE = 0;
export const COMPRESSION_HOLE = 1;
export const COMPRESSION_LZF = 2;
export const CHECKSUM_NONE = 0;
export const CHECKSUM_CRC32 = 1;
export const CHECKSUM_SHA256 = 2;
/** A compression or checksum that the peer named and we do not know. */
export const UNKNOWN_ALGORITHM = 255;

/** LZF is tried only above this many bytes, and used only if it saves as many. */
const LZF_MARGIN = 1024;
const HASH_SIZE_MAX = 32;
const LENGTH_SIZE = 4; // of the original length in front of a hole or LZF data

/** Bytes that encodePayloadKeys() writes at most. */
export const PAYLOAD_KEYS_MAX = 128;

/** Provided by the platform: this folder may not reach for node:*. */
export interface Hashes {
  /** CRC-32/ISO-HDLC, zlib's; in [0, 2^32). */
  crc32(bytes: Uint8Array): number;
  /** 32 bytes. */
  sha256(bytes: Uint8Array): Uint8Array;
}

/** What a message's keys say of the payload behind it. Nothing of it has been checked. */
export interface PayloadHeader {
  compression: number; // COMPRESSION_*, or UNKNOWN_ALGORITHM
  checksum: number; // CHECKSUM_*, or UNKNOWN_ALGORITHM
  readonly hash: Uint8Array; // 32 bytes of room; a copy, so the message's bytes may be reused
  hashLength: number; // bytes the peer sent, 0 = none; above 32 nothing was copied
  size: number; // bytes on the wire, in [0, 2^32); 0 = no payload
}

/** A payload ready to send: `size` bytes of `bytes`, from `at`. Reused from message to message. */
export class OutgoingPayload implements PayloadHeader {
  compression: number = COMPRESSION_NONE;
  checksum: number = CHECKSUM_NONE;
  readonly hash: Uint8Array = new Uint8Array(HASH_SIZE_MAX);
  hashLength = 0;
  size = 0;
  bytes: Uint8Array = new Uint8Array(0);
  at = 0;
}

/** Turns data into payloads. One per sender: it owns scratch memory. */
export class PayloadEncoder {
  readonly #hashes: Hashes;
  readonly #lzf = new LzfCompressor();
  #scratch = new Uint8Array(LENGTH_SIZE);
  #words: Int32Array = new Int32Array(0); // the arena last seen, four bytes at a time

  constructor(hashes: Hashes) {
    this.#hashes = hashes;
  }

  /**
   * Describes `length` (> 0) bytes of `bytes`, from `at`, as a payload.
   *
   * Afterwards `into.bytes` is `bytes` itself, or, where into.compression is not COMPRESSION_NONE, this
   * encoder's scratch memory, which its next encode() overwrites: send or copy it before that.
   */
  encode(
    compression: number,
    checksum: number,
    bytes: Uint8Array,
    at: number,
    length: number,
    into: OutgoingPayload,
  ): void {
    assert(length > 0);
    assert(at + length <= bytes.length);
    into.compression = COMPRESSION_NONE;
    into.bytes = bytes;
    into.at = at;
    into.size = length;
    if (compression !== COMPRESSION_NONE) this.#compress(compression, bytes, at, length, into);

    into.checksum = checksum;
    into.hashLength = 0;
    if (checksum !== CHECKSUM_NONE) {
      const sent = into.bytes.subarray(into.at, into.at + into.size);
      into.hashLength = hash(this.#hashes, checksum, sent, into.hash);
    }
  }

  #compress(
    compression: number,
    bytes: Uint8Array,
    at: number,
    length: number,
    into: OutgoingPayload,
  ): void {
    if (this.#isHole(bytes, at, length)) {
      into.compression = COMPRESSION_HOLE;
      into.size = LENGTH_SIZE;
    } else {
      if (compression !== COMPRESSION_LZF || length <= LZF_MARGIN) return;
      if (this.#scratch.length < length) this.#scratch = new Uint8Array(length);
      const limit = LENGTH_SIZE + length - LZF_MARGIN;
      const size = this.#lzf.compress(bytes, at, length, this.#scratch, LENGTH_SIZE, limit);
      if (size === 0) return;
      into.compression = COMPRESSION_LZF;
      into.size = LENGTH_SIZE + size;
    }
    putU32(this.#scratch, 0, length);
    into.bytes = this.#scratch;
    into.at = 0;
  }

  /** Most data differs from zero in its first bytes; after these, four bytes at a time. */
  #isHole(bytes: Uint8Array, at: number, length: number): boolean {
    const end = at + length;
    const start = bytes.byteOffset + at;
    let index = at;
    const aligned = Math.min(end, at + (-start & 3) + 4);
    while (index < aligned) if (bytes[index++] !== 0) return false;

    if (this.#words.buffer !== bytes.buffer) {
      this.#words = new Int32Array(bytes.buffer, 0, bytes.buffer.byteLength >> 2);
    }
    const words = this.#words;
    let word = (bytes.byteOffset + index) >>> 2;
    const wordEnd = word + ((end - index) >>> 2);
    for (; word + 8 <= wordEnd; word += 8) {
      const any =
        words[word]! |
        words[word + 1]! |
        words[word + 2]! |
        words[word + 3]! |
        words[word + 4]! |
        words[word + 5]! |
        words[word + 6]! |
        words[word + 7]!;
      if (any !== 0) return false;
    }
    for (; word < wordEnd; word++) if (words[word] !== 0) return false;
    for (index = end - ((end - index) & 3); index < end; index++) {
      if (bytes[index] !== 0) return false;
    }
    return true;
  }
}

/** @returns bytes of hash written to `into` */
function hash(hashes: Hashes, checksum: number, bytes: Uint8Array, into: Uint8Array): number {
  if (checksum === CHECKSUM_CRC32) {
    putU32(into, 0, hashes.crc32(bytes));
    return 4;
  }
  assert(checksum === CHECKSUM_SHA256);
  into.set(hashes.sha256(bytes));
  return 32;
}

/**
 * Verifies and unpacks the header.size payload bytes at bytes[at], all of which have arrived.
 *
 * Nothing is written but out[outAt, outAt + expectedLength), where room must be; when it throws, that
 * range may hold garbage.
 *
 * @param expectedLength what the data must come to: the request's `length`, or `mapsize`
 * @returns "in-place": the data is bytes[at, at + expectedLength); "decoded": it is in `out`
 * @throws WireError "payload-checksum", "payload-compression", "payload-length", "lzf-damaged"
 */
export function decodePayload(
  hashes: Hashes,
  header: PayloadHeader,
  bytes: Uint8Array,
  at: number,
  expectedLength: number,
  out: Uint8Array,
  outAt: number,
): "in-place" | "decoded" {
  const end = at + header.size;
  assert(end <= bytes.length);
  if (header.checksum !== CHECKSUM_NONE) verify(hashes, header, bytes.subarray(at, end));

  switch (header.compression) {
    case COMPRESSION_NONE:
      checkLength(header.size, expectedLength);
      return "in-place";
    case COMPRESSION_HOLE:
      if (header.size !== LENGTH_SIZE) {
        throw new WireError("payload-length", `a hole is sent as 4 bytes, not ${header.size}`);
      }
      checkLength(getU32(bytes, at), expectedLength);
      assert(outAt + expectedLength <= out.length);
      out.fill(0, outAt, outAt + expectedLength);
      return "decoded";
    case COMPRESSION_LZF: {
      if (header.size <= LENGTH_SIZE) {
        throw new WireError("payload-length", `${header.size} bytes are no LZF data`);
      }
      const length = getU32(bytes, at);
      if (length <= LZF_MARGIN) {
        throw new WireError(
          "payload-length",
          `LZF data announces ${length} bytes; over 1024 are due`,
        );
      }
      checkLength(length, expectedLength);
      assert(outAt + expectedLength <= out.length);
      lzfDecompress(bytes, at + LENGTH_SIZE, end, out, outAt, outAt + expectedLength);
      return "decoded";
    }
    default:
      throw new WireError("payload-compression", "payload has an unknown compression");
  }
}

function checkLength(length: number, expectedLength: number): void {
  if (length !== expectedLength) {
    throw new WireError(
      "payload-length",
      `payload comes to ${length} bytes, not ${expectedLength}`,
    );
  }
}

function verify(hashes: Hashes, header: PayloadHeader, bytes: Uint8Array): void {
  if (header.checksum === UNKNOWN_ALGORITHM) {
    throw new WireError("payload-checksum", "payload has an unknown checksum");
  }
  const size = header.checksum === CHECKSUM_CRC32 ? 4 : 32;
  if (header.hashLength !== size) {
    throw new WireError(
      "payload-checksum",
      `payload hash has ${header.hashLength} bytes, not ${size}`,
    );
  }
  if (header.checksum === CHECKSUM_CRC32) {
    if (getU32(header.hash, 0) !== hashes.crc32(bytes)) throw mismatch();
    return;
  }
  const digest = hashes.sha256(bytes);
  for (let index = 0; index < size; index++) {
    if (digest[index] !== header.hash[index]) throw mismatch();
  }
}

function mismatch(): WireError {
  return new WireError(
    "payload-checksum",
    "payload does not match its checksum: damaged on the way",
  );
}

// What follows is shared by requests, replies and the handshake; it allocates nothing.

const COMPRESSION = nvName("compression");
const CHECKSUM = nvName("checksum");
const HASH = nvName("hash");
const SIZE = nvName("size");
const HOLE = nvName("hole");
const LZF = nvName("lzf");
const CRC32 = nvName("crc32");
const SHA256 = nvName("sha256");

/** Forgets an earlier message's payload. */
export function clearPayload(into: PayloadHeader): void {
  into.compression = COMPRESSION_NONE;
  into.checksum = CHECKSUM_NONE;
  into.hashLength = 0;
  into.size = 0;
}

const SEEN_COMPRESSION = 1 << 24;
const SEEN_CHECKSUM = 1 << 25;
const SEEN_HASH = 1 << 26;
const SEEN_SIZE = 1 << 27;

/**
 * Takes the nv entry at bytes[at], checked by nvEntryEnd(), if it is one of the payload's.
 *
 * @param seen a bit for each name met so far, of which these four are 24 to 27: only the first counts
 * @returns `seen`, updated
 */
export function takePayloadKey(
  bytes: Uint8Array,
  at: number,
  seen: number,
  into: PayloadHeader,
): number {
  const type = bytes[at]! & 0x7f;
  const nameSize = bytes[at + 1]!;
  const dataSize = getU32(bytes, at + 2);
  const name = at + NV_HEADER_SIZE;
  const data = name + up8(nameSize);
  if (nameSize === SIZE.length && nvBytesAre(bytes, name, SIZE)) {
    if ((seen & SEEN_SIZE) === 0 && type === NV_UINT32) into.size = getU32(bytes, data);
    return seen | SEEN_SIZE;
  }
  if (nameSize === HASH.length && nvBytesAre(bytes, name, HASH)) {
    if ((seen & SEEN_HASH) === 0 && type === NV_UINT8_ARRAY) {
      into.hashLength = dataSize;
      if (dataSize <= HASH_SIZE_MAX) {
        for (let index = 0; index < dataSize; index++) into.hash[index] = bytes[data + index]!;
      }
    }
    return seen | SEEN_HASH;
  }
  if (nameSize === CHECKSUM.length && nvBytesAre(bytes, name, CHECKSUM)) {
    if ((seen & SEEN_CHECKSUM) === 0 && type === NV_STRING) {
      if (stringIs(bytes, data, dataSize, CRC32)) into.checksum = CHECKSUM_CRC32;
      else if (stringIs(bytes, data, dataSize, SHA256)) into.checksum = CHECKSUM_SHA256;
      else into.checksum = UNKNOWN_ALGORITHM;
    }
    return seen | SEEN_CHECKSUM;
  }
  if (nameSize === COMPRESSION.length && nvBytesAre(bytes, name, COMPRESSION)) {
    if ((seen & SEEN_COMPRESSION) === 0 && type === NV_STRING) {
      if (stringIs(bytes, data, dataSize, HOLE)) into.compression = COMPRESSION_HOLE;
      else if (stringIs(bytes, data, dataSize, LZF)) into.compression = COMPRESSION_LZF;
      else into.compression = UNKNOWN_ALGORITHM;
    }
    return seen | SEEN_COMPRESSION;
  }
  return seen;
}

function stringIs(bytes: Uint8Array, data: number, dataSize: number, wanted: Uint8Array): boolean {
  return dataSize === wanted.length && nvBytesAre(bytes, data, wanted);
}

const HOLE_KEY = new NvWriter().string("compression", "hole").finish();
const LZF_KEY = new NvWriter().string("compression", "lzf").finish();
const CRC32_KEYS = new NvWriter()
  .string("checksum", "crc32")
  .bytes("hash", new Uint8Array(4))
  .finish();
const SHA256_KEYS = new NvWriter()
  .string("checksum", "sha256")
  .bytes("hash", new Uint8Array(32))
  .finish();
const SIZE_KEY = new NvWriter().u32("size", 0).finish();

/** Writes the payload's keys at out[at]. @returns index behind them */
export function encodePayloadKeys(out: Uint8Array, at: number, payload: PayloadHeader): number {
  let to = at;
  if (payload.compression !== COMPRESSION_NONE) {
    const key = payload.compression === COMPRESSION_HOLE ? HOLE_KEY : LZF_KEY;
    out.set(key, to);
    to += key.length;
  }
  if (payload.checksum !== CHECKSUM_NONE) {
    const keys = payload.checksum === CHECKSUM_CRC32 ? CRC32_KEYS : SHA256_KEYS;
    out.set(keys, to);
    to += keys.length;
    const hashAt = to - up8(payload.hashLength);
    for (let index = 0; index < payload.hashLength; index++) {
      out[hashAt + index] = payload.hash[index]!;
    }
  }
  out.set(SIZE_KEY, to);
  to += SIZE_KEY.length;
  putU32(out, to - 8, payload.size);
  return to;
}

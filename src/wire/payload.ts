// SPDX-License-Identifier: BSD-2-Clause
/** Stub: signatures are final. */

export const COMPRESSION_NONE = 0;
export const COMPRESSION_HOLE = 1;
export const COMPRESSION_LZF = 2;
export const CHECKSUM_NONE = 0;
export const CHECKSUM_CRC32 = 1;
export const CHECKSUM_SHA256 = 2;
/** A compression or checksum the peer named and we do not know. */
export const UNKNOWN = 255;

/** Provided by the platform: this folder may not reach for node:*. */
export interface Hashes {
  /** CRC-32/ISO-HDLC, in [0, 2^32). */
  crc32(bytes: Uint8Array): number;
  /** 32 bytes. */
  sha256(bytes: Uint8Array): Uint8Array;
}

/** What a message's nv keys say of the payload behind it; RequestHeader, ReplyHeader and OutgoingPayload have these. */
export interface PayloadHeader {
  compression: number; // COMPRESSION_*, or UNKNOWN
  checksum: number; // CHECKSUM_*, or UNKNOWN
  readonly hash: Uint8Array; // 32 bytes of room; copied, so the header's bytes may be reused
  hashLength: number; // bytes the peer sent, 0 = none; may exceed 32, then nothing was copied
  size: number; // bytes on the wire, in [0, 2^32): a claim
}

/** A payload ready to send: `size` bytes of `bytes` from `at`. Reused from message to message. */
export class OutgoingPayload implements PayloadHeader {
  compression: number = COMPRESSION_NONE;
  checksum: number = CHECKSUM_NONE;
  readonly hash: Uint8Array = new Uint8Array(32);
  hashLength = 0;
  size = 0;
  bytes: Uint8Array = new Uint8Array(0);
  at = 0;
}

export class PayloadEncoder {
  constructor(_hashes: Hashes) {
    throw new Error("stub");
  }

  /**
   * Describes `length` bytes of `bytes` from `at` as a payload (wire protocol §4).
   *
   * `into.bytes` is then `bytes` itself, or, for a hole or compressed data, this encoder's scratch memory,
   * which the next encode() overwrites: copy it before that.
   */
  encode(
    _compression: number,
    _checksum: number,
    _bytes: Uint8Array,
    _at: number,
    _length: number,
    _into: OutgoingPayload,
  ): void {
    throw new Error("stub");
  }
}

/**
 * Verifies and unpacks the `header.size` payload bytes that lie at bytes[at]. They must have arrived.
 *
 * @param expectedLength what the data must come to: the request's `length`, or `mapsize`
 * @returns "in-place": the data is bytes[at, at + expectedLength). "decoded": it is out[outAt, outAt + expectedLength)
 * @throws WireError
 */
export function decodePayload(
  _hashes: Hashes,
  _header: PayloadHeader,
  _bytes: Uint8Array,
  _at: number,
  _expectedLength: number,
  _out: Uint8Array,
  _outAt: number,
): "in-place" | "decoded" {
  throw new Error("stub");
}

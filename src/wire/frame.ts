// SPDX-License-Identifier: BSD-2-Clause
/**
 * The main header in front of every message, between nodes and on the control socket.
 *
 *   version u8 │ nvSize u32 │ nv block │ payload, if the nv block has a `size` key
 *
 * Source: FreeBSD sbin/hastd/hast_proto.c, struct hast_main_header; wire protocol §3.
 */

import { assert } from "../base/assert.ts";
import { getU32, putU32 } from "../base/bytes.ts";
import { WireError } from "./error.ts";

export const FRAME_HEADER_SIZE = 5;

/** The highest protocol version we speak, and the version byte of control messages. */
export const PROTOCOL_VERSION = 2;

/** Bytes; far above any legitimate message between nodes. */
export const NV_SIZE_MAX = 65536;

/** Bytes; control replies grow with the number of resources. */
export const CONTROL_NV_SIZE_MAX: number = 16 * 1024 * 1024;

/**
 * Reads the main header at bytes[start], of which bytes[start, end) have arrived.
 *
 * @returns bytes of nv block behind the header's FRAME_HEADER_SIZE, in [1, nvSizeMax], which need not have
 *   arrived; "incomplete" where the header itself has not
 * @throws WireError "frame-version", "frame-empty", "frame-too-large"
 */
export function peekFrame(
  bytes: Uint8Array,
  start: number,
  end: number,
  nvSizeMax: number = NV_SIZE_MAX,
): number | "incomplete" {
  assert(end <= bytes.length);
  if (end - start < FRAME_HEADER_SIZE) return "incomplete";
  const version = bytes[start]!;
  if (version > PROTOCOL_VERSION) {
    throw new WireError(
      "frame-version",
      `message has protocol version ${version}; the highest known is ${PROTOCOL_VERSION}`,
    );
  }
  const nvSize = getU32(bytes, start + 1);
  if (nvSize === 0) throw new WireError("frame-empty", "message has an empty nv block");
  if (nvSize > nvSizeMax) {
    throw new WireError(
      "frame-too-large",
      `message claims ${nvSize} bytes of nv block; at most ${nvSizeMax} are accepted`,
    );
  }
  return nvSize;
}

/** A message without payload. */
export function encodeFrame(version: number, nv: Uint8Array): Uint8Array {
  assert(nv.length > 0);
  const message = new Uint8Array(FRAME_HEADER_SIZE + nv.length);
  message[0] = version;
  putU32(message, 1, nv.length);
  message.set(nv, FRAME_HEADER_SIZE);
  return message;
}

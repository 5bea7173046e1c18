// SPDX-License-Identifier: BSD-2-Clause
/** Stub: signatures are final. */

export const FRAME_HEADER_SIZE = 5;
/** The highest protocol version we speak, and the version byte of control messages. */
export const PROTOCOL_VERSION = 2;
/** Far above any legitimate message between nodes. */
export const NV_SIZE_MAX = 65536;
/** Control replies grow with the number of resources. */
export const CONTROL_NV_SIZE_MAX: number = 16 * 1024 * 1024;

/**
 * Looks at the main header at bytes[start], of which bytes[start, end) have arrived.
 *
 * @returns size of the nv block that follows the FRAME_HEADER_SIZE bytes (it may not have arrived), in
 *   [1, nvSizeMax]; or "incomplete"
 * @throws WireError
 */
export function peekFrame(
  _bytes: Uint8Array,
  _start: number,
  _end: number,
  _nvSizeMax: number = NV_SIZE_MAX,
): number | "incomplete" {
  throw new Error("stub");
}

/** A whole message without payload: main header, then the nv block. */
export function encodeFrame(_version: number, _nv: Uint8Array): Uint8Array {
  throw new Error("stub");
}

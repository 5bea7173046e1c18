// SPDX-License-Identifier: BSD-2-Clause
/** The one error of every decoder in this folder: the peer, or a file, said something impossible. */

/** Stable; docs/errors.md has a row for each. */
export const WIRE_ERROR_CODES = [
  "address-invalid",
  "client-hello-invalid",
  "control-invalid",
  "frame-empty",
  "frame-too-large",
  "frame-version",
  "handshake-invalid",
  "lzf-damaged",
  "nv-invalid",
  "nv-truncated",
  "payload-checksum",
  "payload-compression",
  "payload-length",
  "reply-invalid",
  "request-invalid",
] as const;

export type WireErrorCode = (typeof WIRE_ERROR_CODES)[number];

export class WireError extends Error {
  override readonly name = "WireError";
  readonly code: WireErrorCode;
  constructor(code: WireErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

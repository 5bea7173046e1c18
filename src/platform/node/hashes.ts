// SPDX-License-Identifier: BSD-2-Clause
/** The payload checksums of the legacy protocol (wire protocol §4), by zlib and OpenSSL. */

import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { Hashes } from "../../wire/payload.ts";

export const nodeHashes: Hashes = {
  crc32: (bytes: Uint8Array) => crc32(bytes),
  sha256: (bytes: Uint8Array) => createHash("sha256").update(bytes).digest(),
};

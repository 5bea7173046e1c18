// SPDX-License-Identifier: BSD-2-Clause
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { Hashes } from "../../wire/payload.ts";

/** The two payload checksums of the legacy protocol, by zlib and OpenSSL. */
export const nodeHashes: Hashes = {
  crc32: (bytes: Uint8Array) => crc32(bytes),
  sha256: (bytes: Uint8Array) => createHash("sha256").update(bytes).digest(),
};

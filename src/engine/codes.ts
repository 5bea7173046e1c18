// SPDX-License-Identifier: BSD-2-Clause
/** hast.conf's words for checksum and compression, as the wire codecs number them. */

import {
  CHECKSUM_CRC32,
  CHECKSUM_NONE,
  CHECKSUM_SHA256,
  COMPRESSION_HOLE,
  COMPRESSION_LZF,
  COMPRESSION_NONE,
} from "../wire/payload.ts";
import type { Checksum, Compression } from "./worker-messages.ts";

export const CHECKSUM_CODE: Readonly<Record<Checksum, number>> = {
  none: CHECKSUM_NONE,
  crc32: CHECKSUM_CRC32,
  sha256: CHECKSUM_SHA256,
};

export const COMPRESSION_CODE: Readonly<Record<Compression, number>> = {
  none: COMPRESSION_NONE,
  hole: COMPRESSION_HOLE,
  lzf: COMPRESSION_LZF,
};

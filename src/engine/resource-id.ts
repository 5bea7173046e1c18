// SPDX-License-Identifier: BSD-2-Clause
/**
 * The number that the two components of a pair share, and no others: who finds another one refuses.
 * Source: FreeBSD sbin/hastd/primary.c, init_resuid(); wire protocol §6.4, row 2 of §6.5.
 */

import type { Entropy } from "../platform/entropy.ts";

/** Never 0, which says that there is none yet. */
export function newResourceId(entropy: Entropy): bigint {
  const bytes = new Uint8Array(8);
  do entropy.fill(bytes);
  while (bytes.every((byte) => byte === 0));
  return bytes.reduce((value, byte) => value * 256n + BigInt(byte), 0n);
}

// SPDX-License-Identifier: BSD-2-Clause
/** Chance, as an argument. */

export interface Entropy {
  /** Fills `bytes` with unpredictable bytes. */
  fill(bytes: Uint8Array): void;
}

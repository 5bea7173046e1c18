// SPDX-License-Identifier: BSD-2-Clause

export interface Entropy {
  /** Fills `bytes` with unpredictable bytes. */
  fill(bytes: Uint8Array): void;
}

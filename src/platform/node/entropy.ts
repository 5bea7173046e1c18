// SPDX-License-Identifier: BSD-2-Clause
/** Chance from the kernel, by way of OpenSSL. */

import { randomFillSync } from "node:crypto";
import type { Entropy } from "../entropy.ts";

export const nodeEntropy: Entropy = {
  fill(bytes: Uint8Array): void {
    randomFillSync(bytes);
  },
};

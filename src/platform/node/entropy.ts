// SPDX-License-Identifier: BSD-2-Clause
import { randomFillSync } from "node:crypto";
import type { Entropy } from "../entropy.ts";

export const nodeEntropy: Entropy = {
  fill(bytes: Uint8Array): void {
    randomFillSync(bytes);
  },
};

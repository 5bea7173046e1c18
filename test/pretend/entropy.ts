// SPDX-License-Identifier: BSD-2-Clause
/** Chance as a test wants it. */

import type { Entropy } from "../../src/platform/entropy.ts";

/** Gives the scripted bytes to requests of their length, in order, and zeroes to all others. */
export class FixedEntropy implements Entropy {
  readonly #script: Uint8Array[];

  constructor(script: readonly Uint8Array[] = []) {
    this.#script = [...script];
  }

  fill(bytes: Uint8Array): void {
    bytes.fill(0);
    if (this.#script[0]?.length !== bytes.length) return;
    bytes.set(this.#script.shift()!);
  }
}

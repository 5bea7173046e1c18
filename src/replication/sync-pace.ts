// SPDX-License-Identifier: BSD-2-Clause
/** How fast a resync may copy, as an operator has ordered it. */

import { IO_MAX } from "./requests.ts";

/** The shortest wait for more credit. */
const PAUSE_MIN_MS = 10;

/** How many bytes may begin at once after a pause, for a rate in bytes per second. */
export function syncBurst(rate: number): number {
  return Math.max(IO_MAX, rate / 10);
}

export class SyncPace {
  #held = false;
  /** Bytes per second, 0 = no limit. */
  #rate = 0;
  /** Bytes that may begin now; below 0 where a copy began on credit. */
  #credit = 0;
  #creditAt = 0;

  /** @param rate bytes per second, 0 = no limit */
  order(held: boolean, rate: number, nowMs: number): void {
    this.#held = held;
    if (rate === this.#rate) return;
    this.#rate = rate;
    this.#credit = 0;
    this.#creditAt = nowMs;
  }

  /** An operator wants no copies now. */
  get held(): boolean {
    return this.#held;
  }

  /** May a copy that nobody waits for begin now? */
  get mayBegin(): boolean {
    return !this.#held && (this.#rate === 0 || this.#credit > 0);
  }

  /** How long until one may, where only the rate stands in the way; else 0. */
  get pauseMs(): number {
    if (this.#held || this.mayBegin) return 0;
    return Math.max(PAUSE_MIN_MS, Math.ceil(((1 - this.#credit) * 1000) / this.#rate));
  }

  /** A copy of so many bytes begins. */
  spend(bytes: number): void {
    this.#credit -= bytes;
  }

  earn(nowMs: number): void {
    if (this.#rate === 0) return;
    const earned = ((nowMs - this.#creditAt) * this.#rate) / 1000;
    this.#credit = Math.min(syncBurst(this.#rate), this.#credit + earned);
    this.#creditAt = nowMs;
  }
}

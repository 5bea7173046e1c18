// SPDX-License-Identifier: BSD-2-Clause
/**
 * How many lines of one kind outsiders can make us log: a few at once, then one now and then.
 *
 *   20 lines at once │ then one per 10 s, which tells how many were left out
 */

const BURST = 20;
const INTERVAL_MS = 10_000;

export class LineQuota {
  #left = BURST;
  #refilledMs = Number.NEGATIVE_INFINITY;
  #leftOut = 0;

  /**
   * Someone wants to log a line.
   *
   * @param nowMs the monotonic clock, milliseconds
   * @returns the line as it may be logged, or null for not at all
   */
  take(nowMs: number, text: string): string | null {
    const earned = Math.floor((nowMs - this.#refilledMs) / INTERVAL_MS);
    if (earned > 0) {
      this.#left = Math.min(BURST, this.#left + earned);
      this.#refilledMs = nowMs;
    }
    if (this.#left === 0) {
      this.#leftOut++;
      return null;
    }
    this.#left--;
    const leftOut = this.#leftOut;
    this.#leftOut = 0;
    return leftOut === 0 ? text : `${text} (left out before this one: ${leftOut} such lines)`;
  }
}

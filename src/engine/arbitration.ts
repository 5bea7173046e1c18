// SPDX-License-Identifier: BSD-2-Clause
/**
 * May a primary that an arbiter has chosen answer its clients now?
 *
 *   the lease runs, and every node that the arbiter may call whole is whole
 *
 * The arbiter promotes nobody whom it does not call whole. So whoever is going to be primary next has all
 * that was answered before; clocks decide only how long a primary goes on that the arbiter cannot reach.
 * Source: safety case S-17; docs/decisions/0009.
 */

import type { Lease, Whole, Wish } from "../wire/control.ts";

const LOCAL = 1;
const REMOTE = 2;
const NODES: Readonly<Record<Whole, number>> = {
  local: LOCAL,
  remote: REMOTE,
  both: LOCAL | REMOTE,
};

export class Arbitration {
  readonly term: bigint;
  readonly #tell: (wish: Wish) => void;
  #deadlineMs: number;
  #wish: Wish | null = null;
  /** Whom the arbiter may have on record, now or by what is on its way there: at first anybody. */
  #possible: number = LOCAL | REMOTE;

  /** @param tell the arbiter is to put this on record, and then to confirm its number */
  constructor(lease: Lease, tell: (wish: Wish) => void) {
    this.term = lease.term;
    this.#deadlineMs = lease.deadlineMs;
    this.#tell = tell;
  }

  /** @param confirmed the number of the last wish that is on record; 0 = none */
  renew(deadlineMs: number, confirmed: number): void {
    this.#deadlineMs = Math.max(this.#deadlineMs, deadlineMs);
    if (confirmed === this.#wish?.number) this.#possible = NODES[this.#wish.whole];
  }

  /**
   * Whether no node but those that are whole is on record.
   * @param whole who has everything that was acknowledged, and what waits to be
   */
  agrees(whole: Whole): boolean {
    if (this.#wish?.whole !== whole) {
      this.#wish = { number: (this.#wish?.number ?? 0) + 1, whole };
      // From now on the arbiter may have put it on record, whatever it is told afterwards.
      this.#possible |= NODES[whole];
      this.#tell(this.#wish);
    }
    return (this.#possible & ~NODES[whole]) === 0;
  }

  /** Whether clients may be answered. */
  allows(whole: Whole, nowMs: number): boolean {
    return this.agrees(whole) && nowMs < this.#deadlineMs;
  }
}

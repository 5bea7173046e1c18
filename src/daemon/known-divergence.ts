// SPDX-License-Identifier: BSD-2-Clause
/**
 * That one resource's two copies do not fit together, as one of the two nodes judged last.
 *
 * It lasts until a person has decided which copy to keep, perhaps for days, and all that time the primary
 * asks again: the operator hears of it once, and the primary is answered without another look at the disk
 * (BD-34).
 */

import type { CopyFacts, Divergence } from "../engine/worker-messages.ts";
import type { Clock } from "../platform/clock.ts";
import type { S2Refused } from "../wire/handshake.ts";

/** How long a refused primary is told the same again: it asks every 10 s. */
const REFUSAL_REMEMBERED_MS = 60_000;

export class KnownDivergence {
  readonly #clock: Clock;
  #facts: Divergence | null = null;
  #judgedAt = 0;
  /** The split-brain event has been raised for it. */
  #told = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Null = none is known. */
  get facts(): Divergence | null {
    return this.#facts;
  }

  /** A worker has judged. @returns "known" where the reason is the one known before */
  judged(facts: Divergence): "known" | "new" {
    const known = this.#facts?.reason === facts.reason;
    this.#facts = facts;
    this.#judgedAt = this.#clock.now();
    return known ? "known" : "new";
  }

  /** Each life of a worker finds a split-brain anew. @returns "told" where the operator has heard */
  tellSplitBrain(): "told" | "tell" {
    if (this.#told) return "told";
    this.#told = true;
    return "tell";
  }

  /** What a primary with these very counters was told a short while ago, or null. */
  answerTo(primary: CopyFacts): S2Refused | null {
    const known = this.#facts;
    if (known === null || known.refusal === null) return null;
    if (this.#clock.now() - this.#judgedAt >= REFUSAL_REMEMBERED_MS) return null;
    const { peer } = known;
    const same =
      primary.resuid === peer.resuid &&
      primary.localcnt === peer.localcnt &&
      primary.remotecnt === peer.remotecnt;
    if (!same) return null;
    const { remarks } = primary;
    if (remarks !== null) this.#facts = { ...known, peer: { ...peer, remarks } };
    return known.refusal;
  }

  /** A person has decided: the primary is to be judged anew, and not told the same as before. */
  forgetAnswer(): void {
    if (this.#facts !== null) this.#facts = { ...this.#facts, refusal: null };
  }

  /** The copies fit together, or nobody knows any more. */
  forget(): void {
    this.#facts = null;
    this.#told = false;
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/** The numbers of requests on the wire: unique, never reused (BD-31), each leading back to its slot. */

import { assert } from "../base/assert.ts";

/** Far more than there can be under way, so that a place is hardly ever taken. */
const PLACES = 4096;

export class SequenceRing {
  readonly #slot: Int16Array = new Int16Array(PLACES).fill(-1);
  readonly #seq: Float64Array = new Float64Array(PLACES);
  #next = 1;

  /** @returns a new number, which leads to `slot` until it is forgotten */
  allocate(slot: number): number {
    while (this.#slot[this.#next % PLACES] !== -1) this.#next++;
    const seq = this.#next++;
    this.#slot[seq % PLACES] = slot;
    this.#seq[seq % PLACES] = seq;
    return seq;
  }

  /** @param seq as a peer sent it @returns -1 where it belongs to nothing that is under way */
  slotOf(seq: number): number {
    const place = seq % PLACES;
    return seq > 0 && this.#seq[place] === seq ? this.#slot[place]! : -1;
  }

  forget(seq: number): void {
    assert(this.slotOf(seq) !== -1);
    this.#slot[seq % PLACES] = -1;
  }

  forgetAll(): void {
    this.#slot.fill(-1);
  }
}

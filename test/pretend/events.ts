// SPDX-License-Identifier: BSD-2-Clause
/**
 * What happens next in a pretended world: disks, streams and timers queue here, and nothing else runs.
 *
 *   post() ─► queue ─► settle(): one after another, promises in between, until nothing is left
 */

/** Where something that happens later is left. */
export interface Poster {
  /** `run` happens later: never from inside this call. */
  post(run: () => void): void;
}

/** More than any world needs until it rests; one that goes on beyond it has livelocked. */
const EVENTS_MAX = 2_000_000;

export class Events implements Poster {
  #queue: (() => void)[] = [];
  #count = 0;
  readonly #pick: (count: number) => number;

  /** @param pick which of `count` waiting events comes next; by default the oldest */
  constructor(pick: (count: number) => number = () => 0) {
    this.#pick = pick;
  }

  post(run: () => void): void {
    this.#queue.push(run);
  }

  /** Runs everything that is queued, and what follows from it. */
  runAll(): void {
    this.#runUpTo(this.#count + EVENTS_MAX);
  }

  /** The same, and lets promises go on, until neither changes anything. */
  async settle(): Promise<void> {
    const countMax = this.#count + EVENTS_MAX;
    let seen: number;
    do {
      seen = this.#count;
      this.#runUpTo(countMax);
      await new Promise((resolve) => setImmediate(resolve));
    } while (this.#queue.length > 0 || seen !== this.#count);
  }

  #runUpTo(countMax: number): void {
    while (this.#queue.length > 0) {
      if (++this.#count > countMax) throw new Error("the pretended world does not come to rest");
      const [run] = this.#queue.splice(this.#pick(this.#queue.length), 1);
      run!();
    }
  }
}

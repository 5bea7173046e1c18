// SPDX-License-Identifier: BSD-2-Clause
/**
 * Simulated time: everything that will happen, soonest first; of equals, what was planned first.
 *
 * Nothing else makes anything happen, so that one seed decides everything.
 */

import type { Clock, Timer } from "../../src/platform/clock.ts";
import type { Poster } from "../pretend/events.ts";
import type { Stopper } from "./stopper.ts";

interface Planned {
  readonly at: number;
  readonly order: number;
  /** Null once cancelled. */
  run: (() => void) | null;
}

export class Timeline {
  /** A binary heap. */
  readonly #heap: Planned[] = [];
  #order = 0;
  #nowMs = 1_000_000; // not zero: nobody may take it for "never"
  /** Events that have happened. */
  count = 0;

  get nowMs(): number {
    return this.#nowMs;
  }

  /** @param delayMs ≥ 0, may have a fraction */
  after(delayMs: number, run: () => void): Timer {
    const planned: Planned = { at: this.#nowMs + delayMs, order: this.#order++, run };
    this.#push(planned);
    return {
      cancel: () => {
        planned.run = null;
      },
    };
  }

  /** Lets the next thing happen. @returns false if nothing will */
  step(): boolean {
    for (;;) {
      const planned = this.#pop();
      if (planned === null) return false;
      if (planned.run === null) continue;
      this.#nowMs = planned.at;
      this.count++;
      planned.run();
      return true;
    }
  }

  /** Posts that happen after a delay of their own. */
  poster(delayMs: () => number): Poster {
    return {
      post: (run) => {
        this.after(delayMs(), run);
      },
    };
  }

  #push(planned: Planned): void {
    const heap = this.#heap;
    let at = heap.push(planned) - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (sooner(heap[above]!, planned)) break;
      heap[at] = heap[above]!;
      at = above;
    }
    heap[at] = planned;
  }

  #pop(): Planned | null {
    const heap = this.#heap;
    const first = heap[0];
    if (first === undefined) return null;
    const last = heap.pop()!;
    if (heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let below = at * 2 + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && sooner(heap[below + 1]!, heap[below]!)) below++;
      if (sooner(last, heap[below]!)) break;
      heap[at] = heap[below]!;
      at = below;
    }
    heap[at] = last;
    return first;
  }
}

function sooner(a: Planned, b: Planned): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** One process's clock: its timers die with it. A machine's clock may run slow, or fast. */
export class ProcessClock implements Clock {
  readonly #timeline: Timeline;
  readonly #alive: () => boolean;
  readonly #rate: number;
  readonly #stopper: Stopper;

  constructor(timeline: Timeline, stopper: Stopper, rate: number, alive: () => boolean) {
    this.#timeline = timeline;
    this.#stopper = stopper;
    this.#rate = rate;
    this.#alive = alive;
  }

  now(): number {
    return Math.floor(this.#timeline.nowMs * this.#rate);
  }

  wallTime(): number {
    return this.now();
  }

  after(delayMs: number, run: () => void): Timer {
    let cancelled = false;
    const timer = this.#timeline.after(delayMs / this.#rate, () => {
      this.#stopper.reach(() => {
        if (!cancelled && this.#alive()) run();
      });
    });
    return {
      cancel: () => {
        cancelled = true;
        timer.cancel();
      },
    };
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/** A process that may be stopped for a while, as by SIGSTOP: what would have reached it waits. */

import type { Poster } from "../pretend/events.ts";
import type { Timeline } from "./timeline.ts";

export class Stopper {
  readonly #timeline: Timeline;
  #waiting: (() => void)[] | null = null;

  constructor(timeline: Timeline) {
    this.#timeline = timeline;
  }

  get stopped(): boolean {
    return this.#waiting !== null;
  }

  stop(): void {
    this.#waiting ??= [];
  }

  /** What waited happens now, in its order. */
  goOn(): void {
    const waiting = this.#waiting ?? [];
    this.#waiting = null;
    for (const act of waiting) this.#timeline.after(0, () => this.reach(act));
  }

  /** Something reaches the process: at once, or when it goes on. */
  reach(act: () => void): void {
    if (this.#waiting === null) act();
    else this.#waiting.push(act);
  }

  /** Posts that reach this process after a delay of their own. */
  poster(delayMs: () => number): Poster {
    return { post: (run) => void this.#timeline.after(delayMs(), () => this.reach(run)) };
  }
}

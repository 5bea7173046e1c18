// SPDX-License-Identifier: BSD-2-Clause
/** Time that passes when a test says so. */

import type { Clock, Timer } from "../../src/platform/clock.ts";
import type { Events } from "./events.ts";

interface Alarm {
  readonly at: number;
  readonly run: () => void;
}

export class PretendClock implements Clock {
  readonly #events: Events;
  readonly #alarms: Set<Alarm> = new Set();
  #now = 1_000_000; // not zero: nobody may take it for "never"

  constructor(events: Events) {
    this.#events = events;
  }

  now(): number {
    return this.#now;
  }

  wallTime(): number {
    return this.#now;
  }

  after(delayMs: number, run: () => void): Timer {
    const alarm: Alarm = { at: this.#now + delayMs, run };
    this.#alarms.add(alarm);
    return { cancel: () => this.#alarms.delete(alarm) };
  }

  /** How many timers wait. */
  get waiting(): number {
    return this.#alarms.size;
  }

  /** Lets `ms` pass, timer by timer, and everything happen that follows from each. */
  async pass(ms: number): Promise<void> {
    const end = this.#now + ms;
    await this.#events.settle();
    while (await this.step(end));
    this.#now = end;
  }

  /** Runs the next timer that is due at `end` or before, and what follows from it. @returns false if there is none */
  async step(end: number): Promise<boolean> {
    const next = this.#next(end);
    if (next === null) return false;
    this.#alarms.delete(next);
    this.#now = Math.max(this.#now, next.at);
    next.run();
    await this.#events.settle();
    return true;
  }

  /** The earliest alarm up to `end`; of equals, the one set first. */
  #next(end: number): Alarm | null {
    let next: Alarm | null = null;
    for (const alarm of this.#alarms) {
      if (alarm.at <= end && (next === null || alarm.at < next.at)) next = alarm;
    }
    return next;
  }
}

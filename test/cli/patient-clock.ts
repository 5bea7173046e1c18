// SPDX-License-Identifier: BSD-2-Clause
/** A clock for commands that wait, without waiting. */

import type { Clock } from "../../src/platform/clock.ts";

/** Time passes only while somebody waits. */
export class PatientClock implements Clock {
  #now = 5;
  now(): number {
    return this.#now;
  }
  wallTime(): number {
    throw new Error("nobody asks for it");
  }
  after(delayMs: number, run: () => void): { cancel(): void } {
    this.#now += delayMs;
    queueMicrotask(run);
    return { cancel: () => undefined };
  }
}

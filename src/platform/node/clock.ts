// SPDX-License-Identifier: BSD-2-Clause
/** Time as the kernel tells it: CLOCK_MONOTONIC to decide by, CLOCK_REALTIME to show. */

import type { Clock, Timer } from "../clock.ts";

/** setTimeout()'s own limit; beyond it Node fires at once. 24.8 days. */
const DELAY_MAX_MS = 2 ** 31 - 1;

/** What performance.now() begins to count from, by CLOCK_MONOTONIC. */
const ORIGIN_MS = Number(process.hrtime.bigint()) / 1e6 - performance.now();

export const nodeClock: Clock = {
  // CLOCK_MONOTONIC: stops while the machine is suspended.
  now: () => ORIGIN_MS + performance.now(),
  wallTime: () => Date.now(),
  after(delayMs: number, run: () => void): Timer {
    const timeout = setTimeout(run, Math.min(delayMs, DELAY_MAX_MS));
    return { cancel: () => clearTimeout(timeout) };
  },
};

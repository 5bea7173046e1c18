// SPDX-License-Identifier: BSD-2-Clause
/**
 * Who watches whom.
 *
 *   service manager ──restarts──► hastd ──kills and starts again──► a worker ──waits for──► its disk
 *          ▲                        │ ▲                                │
 *          └──── alive, status ─────┘ └──────────── answers ───────────┘
 *
 * hastd is alive when a round is over: each worker has answered, or its deadline has passed. So the service
 * manager hears of a main daemon that hangs, and ends it. A worker that hangs costs its own resource only:
 * that one is killed here (Resource.watch), and the others go on.
 * Source: systemd.service(5), WatchdogSec=.
 */

import type { Clock } from "../platform/clock.ts";
import type { Supervisor } from "../platform/supervisor.ts";

/** From the end of one round to the beginning of the next, which takes at most STATUS_TIMEOUT_MS. */
export const ROUND_PAUSE_MS = 5_000;
/** A service manager that wants to hear from us more often than this might hear too late. */
export const WATCHDOG_MIN_MS = 15_000;

/**
 * One round now, and one after the other from then on, until the process ends.
 * @param round asks every worker, and says in one line how things are
 */
export async function keepWatch(
  clock: Clock,
  supervisor: Supervisor,
  round: () => Promise<string>,
): Promise<void> {
  supervisor.alive(await round());
  clock.after(ROUND_PAUSE_MS, () => void keepWatch(clock, supervisor, round));
}

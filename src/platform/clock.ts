// SPDX-License-Identifier: BSD-2-Clause
/** Time, as an argument. Production code reads no other clock. */

export interface Timer {
  /** Idempotent; after it, the timer's function is not called. */
  cancel(): void;
}

export interface Clock {
  /** Milliseconds since an arbitrary start, the same one for all processes of a machine; never steps back. */
  now(): number;
  /** Milliseconds since the Unix epoch; for people to read, never for decisions. */
  wallTime(): number;
  /** Calls `run` once, `delayMs` (≥ 0) from now. */
  after(delayMs: number, run: () => void): Timer;
}

// SPDX-License-Identifier: BSD-2-Clause
/** Whoever started this program and watches over it, as systemd does; what it wants to hear. Source: sd_notify(3). */

export interface Supervisor {
  /** It restarts us unless it hears from alive() at least so often, in ms; null: it does not care. */
  readonly watchdogMs: number | null;
  /** We serve; or we serve again, after reloading(). */
  ready(): void;
  reloading(): void;
  stopping(): void;
  /** @param status one line for people */
  alive(status: string): void;
}

/** Started by hand, or by something that asks nothing. */
export const NO_SUPERVISOR: Supervisor = {
  watchdogMs: null,
  ready: () => undefined,
  reloading: () => undefined,
  stopping: () => undefined,
  alive: () => undefined,
};

// SPDX-License-Identifier: BSD-2-Clause
/** Lines for the operator. Source: FreeBSD lib/libpjdlog/pjdlog.c; behaviour §14. */

/**
 * Where lines go: the terminal, as text or as JSON objects; syslog; or the journal of systemd, where it
 * reads our output anyway.
 */
export type LogDestination = "stdio" | "json" | "syslog" | "journal";

export interface Log {
  error(text: string): void;
  warning(text: string): void;
  notice(text: string): void;
  info(text: string): void;
  /** @param level 1 lifecycle, 2 per request; dropped above {@link debugLevel}, so guard costly texts with it */
  debug(level: number, text: string): void;
  /** 0 none, 1 lifecycle, 2 per request. */
  readonly debugLevel: number;
  /** The same sink under another prefix, such as "[shared] (primary) "; it replaces the present one. */
  withPrefix(prefix: string): Log;
}

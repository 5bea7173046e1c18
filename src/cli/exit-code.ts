// SPDX-License-Identifier: BSD-2-Clause
/** hastctl's exit codes, sysexits(3)' (behaviour §2.1). Also a resource's error code from hastd, 1 to 63. */

export const EX_OK = 0;
/** Wrong usage, or a number that is none. */
export const EX_USAGE = 64;
/** create, dump: unknown resource; create: refused parameters or content. */
export const EX_DATAERR = 65;
/** create: the local component cannot be used. */
export const EX_NOINPUT = 66;
/** hastd did not answer. */
export const EX_UNAVAILABLE = 69;
/** hastd answered that it cannot do this at all. */
export const EX_SOFTWARE = 70;
/** hastd cannot be reached. */
export const EX_OSERR = 71;
/** The configuration file cannot be opened. */
export const EX_OSFILE = 72;
/** config generate: a file exists already, or cannot be written. */
export const EX_CANTCREAT = 73;
/** create: writing failed. */
export const EX_IOERR = 74;
/** The configuration file is wrong. */
export const EX_CONFIG = 78;
/** dump: no metadata to be read. */
export const EX_DUMP = 255;

/** Codes of our own begin where hastd's end. */
const DAEMON_ERROR_MAX = 63;

/**
 * The exit code for what hastd says of several resources: its first error, 0 where there is none.
 * Source: FreeBSD sbin/hastctl/hastctl.c, control_status(); behaviour §16.1.
 */
export function exitCodeOf(
  entries: readonly {
    readonly outcome: { readonly kind: string; readonly error?: number };
  }[],
): number {
  const failed = entries.find((entry) => entry.outcome.kind === "failed");
  const error = failed?.outcome.error ?? EX_OK;
  return error >= 0 && error <= DAEMON_ERROR_MAX ? error : EX_SOFTWARE;
}

// SPDX-License-Identifier: BSD-2-Clause
/** What both cores and the engine say of a request, and of a copy. */

/** Requests at a time, numbered from 0. */
export const SLOT_COUNT = 256;
/** The longest READ or WRITE, bytes: FreeBSD up to 12 refuses more (wire protocol §1). */
export const IO_MAX = 131072;
/** The peer's answer to "uptodate" where a request has failed since its last flush. */
export const ERR_AGAIN = 11;

// What a slot carries. SYNC copies IO_MAX bytes from one node to the other.
export const READ = 1;
export const WRITE = 2;
/** TRIM and WRITE_ZEROES: the range reads as zeroes afterwards. */
export const ZERO = 3;
export const FLUSH = 4;
export const SYNC = 5;
export type Kind = typeof READ | typeof WRITE | typeof ZERO | typeof FLUSH | typeof SYNC;

export type Mode = "fullsync" | "memsync" | "async";

/**
 * What a primary tells its peer about the peer's copy (wire protocol §15). "sole": this copy is the only
 * one from now on; the peer keeps the record of what it alone has.
 */
export type ToldState = "inconsistent" | "uptodate" | "sole";

export type DataState = "new" | "uptodate" | "consistent" | "outdated" | "inconsistent";

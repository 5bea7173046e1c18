// SPDX-License-Identifier: BSD-2-Clause
/**
 * What two of our own nodes can do beyond the reference, negotiated by `ext` in P1 and S1: the
 * primary offers, the secondary answers with what both know. A FreeBSD node ignores the key.
 *
 * EXT_STATE adds one request on connection A (answered like a FLUSH):
 *
 *   cmd u8 = 6 │ seq u64 │ state string │ localcnt u64 [│ remotecnt u64] [│ synced string]
 *
 * "inconsistent": a resync towards you begins; store that before you answer.
 * "uptodate": it has ended, and both of us have flushed; store that, `localcnt` as your remotecnt, and
 * `synced`, in one metadata write.
 * "sole" (EXT_SOLE, with `remotecnt`): the primary has lost its disk. Your copy is "uptodate", and the
 * only one: count one further than `remotecnt`, and from now on mark extents in your own activemap, on
 * stable storage, before you write them. Store that before you answer.
 *
 * EXT_WHOLE adds one that is not answered, sent whenever it changes:
 *
 *   cmd u8 = 7 │ whole u8
 */

import { encodeFrame } from "./frame.ts";
import type { SyncedWord } from "./handshake.ts";
import { NvWriter } from "./nv.ts";

/** The STATE request. */
export const EXT_STATE = 1n;
/** DELETE makes the range read as zeroes, whatever its length. */
export const EXT_ZERO = 2n;
/** A secondary can keep the record for a primary that has lost its disk. */
export const EXT_SOLE = 4n;
/**
 * P2, and the WHOLE request afterwards, say whether the primary's own copy is whole, so that a secondary may
 * throw its away; and S2 whether the secondary calls its copy outdated, or a mix, so that it is told when it is not.
 */
export const EXT_WHOLE = 16n;
/** A secondary answers each KEEPALIVE on B, with sequence number 0, which no request has. */
export const EXT_ALIVE = 64n;
/**
 * P2 tells of the primary's present life, and where the counters are equal S2 may name the secondary as the
 * source: what was acknowledged is in its cache, while the primary lost its own (S-9).
 */
export const EXT_KEPT = 128n;
/** What this build knows. */
export const EXTENSIONS: bigint =
  EXT_STATE | EXT_ZERO | EXT_SOLE | EXT_WHOLE | EXT_ALIVE | EXT_KEPT;

export const CMD_STATE = 6;
export const CMD_WHOLE = 7;

export function encodeWhole(version: number, whole: boolean): Uint8Array {
  const nv = new NvWriter().u8("cmd", CMD_WHOLE).u8("whole", whole ? 1 : 0);
  return encodeFrame(version, nv.finish());
}

export function encodeState(
  version: number,
  seq: number,
  state: "inconsistent" | "uptodate" | "sole",
  localcnt: bigint,
  remotecnt: bigint = 0n,
  synced: SyncedWord | null = null,
): Uint8Array {
  const nv = new NvWriter();
  nv.u8("cmd", CMD_STATE);
  nv.u64("seq", BigInt(seq));
  nv.string("state", state);
  nv.u64("localcnt", localcnt);
  if (state === "sole") nv.u64("remotecnt", remotecnt);
  if (synced !== null) nv.string("synced", synced);
  return encodeFrame(version, nv.finish());
}

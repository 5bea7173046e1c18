// SPDX-License-Identifier: BSD-2-Clause
/** What goes into the core of a primary, and what comes out. */

import type { Synced } from "../metadata/block.ts";
import type { Activemap } from "./activemap.ts";
import type { DataState, Kind, Mode, ToldState } from "./requests.ts";
import type { Side } from "./sync-verdict.ts";

/** The part of the metadata that changes while a primary runs. */
export interface PrimaryRecord {
  readonly resuid: bigint;
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  readonly state: DataState;
  readonly synced: Synced | null;
  /** Something was acknowledged without the peer, and they have not been in step since. */
  readonly alone: boolean;
}

/** Effects, in order. Nothing here calls back into the core. */
export interface PrimaryOutbox {
  localRead(slot: number): void;
  localWrite(slot: number): void;
  localZero(slot: number): void;
  /** Flush the local disk, then call localFlushed(). */
  localFlush(): void;
  /** Send this slot's READ, WRITE or ZERO to the peer under the slot's `seq`. */
  sendRequest(slot: number, kind: Kind): void;
  sendFlush(seq: number): void;
  sendKeepalive(): void;
  /**
   * Ours only: the peer shall store what its copy is worth, given our own counters; with "uptodate"
   * `synced` as well.
   */
  sendState(
    seq: number,
    state: ToldState,
    localcnt: bigint,
    remotecnt: bigint,
    synced: Synced | null,
  ): void;
  /** Is whoever sent this request still there to be answered? */
  hears(slot: number): boolean;
  /** FLUSHes are about to be answered with an error since something that was acknowledged is nobody's any more. */
  lossTold(): void;
  /** Tell the application; errno 0 or a Linux errno. The slot may live on. */
  answer(slot: number, errno: number): void;
  /** The slot is free: so is its memory. */
  release(slot: number): void;
  /** Write the changes of the activemap (takeChanges()), flush, then call mapWritten(). */
  writeMap(): void;
  /** Write the metadata block, flush, then call recordWritten(). */
  writeRecord(record: PrimaryRecord): void;
  /** Close the connection to the peer and call linkDown(). */
  disconnect(reason: string): void;
  event(event: "syncstart" | "syncdone" | "syncintr"): void;
  /** Something an operator should read. */
  notice(text: string): void;
  /**
   * This node's disk cannot be trusted with another write: stop the resource, and tell nothing but
   * recordWritten() any more, which is awaited while `lastRecordPending`.
   */
  diskFailed(what: string, errno: number): void;
  /** The same, but the peer has everything: from now on it serves every request. */
  diskless(what: string, errno: number): void;
  /** After stop(): everything accepted is finished and on disk. */
  stopped(): void;
}

export interface PrimaryOptions {
  readonly mode: Mode;
  /** Milliseconds a peer may take to answer. */
  readonly timeoutMs: number;
  readonly map: Activemap;
  readonly record: PrimaryRecord;
  /** False where hast.conf says `remote none`. */
  readonly hasRemote: boolean;
}

/** What S2 and its map told (wire protocol §6.5). */
export interface PeerState {
  readonly version: number;
  /** The peer's own counters. */
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  readonly virgin: boolean;
  readonly source: Side;
  /** Merged into ours, or null for none. */
  readonly map: Uint8Array | null;
  /** The peer makes DELETE read as zeroes, of any length; a FreeBSD peer promises neither. */
  readonly zeroes: boolean;
  /** The peer understands sendState(). */
  readonly states: boolean;
  /** The peer can keep the record for a primary without a disk: "sole". */
  readonly keeps: boolean;
  /** The peer answers keepalives. */
  readonly alive: boolean;
  /** What the peer has on record; null from a FreeBSD peer, which records no such thing. */
  readonly synced: Synced | null;
  /** Names the peer's cache: under the same name it has lost nothing since. Null where it does not say. */
  readonly cache: bigint | null;
  /** The peer calls its copy outdated, or promoted by force: it is to be told when it is not, even with nothing to copy. */
  readonly outdated: boolean;
}

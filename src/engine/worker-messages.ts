// SPDX-License-Identifier: BSD-2-Clause
/** What the main daemon and a resource's worker say to each other, over the worker's IPC channel. */

import type { CopyState, CopyWorth } from "../metadata/block.ts";
import type { LogDestination } from "../platform/log.ts";
import type { DiscardPlan } from "../replication/discard.ts";
import type { Trust } from "../replication/promotion.ts";
import type { Lease, Wish } from "../wire/control.ts";
import type { CopyRemarks, PrimaryLife, S2Refused } from "../wire/handshake.ts";

export type Replication = "fullsync" | "memsync" | "async";
export type Checksum = "none" | "crc32" | "sha256";
export type Compression = "none" | "hole" | "lzf";

/** One resource, as its worker needs it: hast.conf with everything inherited and defaulted. */
export interface WorkerSettings {
  readonly resource: string;
  /** The name users see: the NBD export's, and /dev/hast/<provname>. */
  readonly provname: string;
  /** Path of the local component. */
  readonly local: string;
  /** HAST address of the peer, or "none". */
  readonly remote: string;
  /** Address to connect from, or null for the kernel's choice. */
  readonly source: string | null;
  readonly replication: Replication;
  readonly checksum: Checksum;
  readonly compression: Compression;
  /** Seconds, > 0: connecting, sending, waiting for a reply. */
  readonly timeout: number;
  readonly metaflush: boolean;
  /** Where the NBD server listens: "unix:///path" or "tcp://host:port". */
  readonly export: string;
  /** NBD clients must use TLS. */
  readonly exportTls: boolean;
  /** "sha256:" and the fingerprint of the peer's certificate, for a tls:// remote; null = an authority vouches for it. */
  readonly tlspeer: string | null;
  /** How the main daemon makes /dev/hast/<provname> of it; left out, it does not. */
  readonly device?: "auto" | "nbd" | "ublk" | "fuse" | "none";
  /** An arbiter decides who is primary. */
  readonly arbiter?: boolean;
}

/** What is known of one node's copy. */
export interface CopyFacts {
  /** 0n = it has none, null = it is not known: a FreeBSD node does not tell when it refuses. */
  readonly resuid: bigint | null;
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  /** Null for a FreeBSD node. */
  readonly remarks: CopyRemarks | null;
}

/** Two copies that nobody but a person can bring together. */
export interface Divergence {
  /** Both were written while apart; else an id or a counter does not fit. */
  readonly splitBrain: boolean;
  /** What is true, for people; without a full stop. */
  readonly reason: string;
  readonly extentSize: number;
  readonly dataSize: number;
  readonly own: CopyFacts;
  readonly peer: CopyFacts;
  /** What the secondary answered; null where this node is the primary. */
  readonly refusal: S2Refused | null;
}

/** What the main daemon knows of a primary that connects, from its two handshake messages (wire protocol §6). */
export interface PeerHello {
  readonly version: number;
  /** Extensions both sides have; 0n with a FreeBSD peer. */
  readonly extensions: bigint;
  readonly virgin: boolean;
  readonly resuid: bigint;
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  /** Null from a FreeBSD primary. */
  readonly remarks: CopyRemarks | null;
  /** Null where KEPT is not agreed upon. */
  readonly life: PrimaryLife | null;
  /** What the last worker left. */
  readonly left: Left | null;
  /** The primary's copy is whole, and it may be told that this one is not. */
  readonly whole: boolean;
  /** An operator throws this copy away, if the primary's is whole. */
  readonly invalidate: boolean;
  /** What an arbiter has granted the primary; left out where it asks none. */
  readonly term?: bigint;
}

/** What became of a command. */
export type Resolution =
  /** What was done, or with a dry run would be; a line each. */
  | {
      readonly kind: "done";
      readonly lines: readonly string[];
      /** It was so already. */
      readonly before?: true;
    }
  | { readonly kind: "failed"; readonly reason: string };

/** What a secondary's worker leaves to its successor, for as long as hastd lives. */
export interface Left {
  /**
   * Names the cache of this copy's disk while it loses nothing: hastd has lived, so the machine has, too; each
   * worker has ended by itself and executed what came whole; and no write and no flush has failed.
   */
  readonly cache: bigint;
  readonly held: Held | null;
}

/** With these counters on record, this copy has everything that was acknowledged under them, if only in its cache (S-9). */
export interface Held {
  readonly resuid: bigint;
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
}

/** The other node lacks what a primary has acknowledged, as far as that one knew at its end. */
export interface PeerLacks {
  /** In ms since the Unix epoch; null = not known. */
  readonly since: number | null;
}

/** What operators have ordered since the role was taken (`hastctl disconnect` and the like). */
export interface Orders {
  /** False: no connection to the peer. */
  readonly connected: boolean;
  /** No copies of a synchronization. */
  readonly resyncPaused: boolean;
  /** Bytes of copies per second, 0 = no limit. */
  readonly resyncRate: number;
}

export type ToWorker =
  /** First message. A primary acts at once; a secondary waits for its two sockets. */
  | {
      readonly kind: "start";
      readonly role: "primary" | "secondary";
      readonly settings: WorkerSettings;
      /** Lines of debug wanted: 0 none, 1 lifecycle, 2 per request. */
      readonly debug: number;
      /** Where log lines go. */
      readonly log: LogDestination;
      /** Set for a secondary. */
      readonly hello: PeerHello | null;
      /** What hastd knows of the copy beyond its metadata; a secondary does not look at it. */
      readonly trust: Trust;
      /** A secondary does not look at them. */
      readonly orders: Orders;
      /** A primary: the address at which a device of this machine is served besides; null for none. */
      readonly attach?: string | null;
      /** A primary that an arbiter has chosen: it answers while this runs. */
      readonly lease?: Lease;
    }
  /** Each comes with a socket handle: request channel A, then reply channel B. */
  | { readonly kind: "socket"; readonly channel: "a" | "b"; readonly peer: string }
  | { readonly kind: "status"; readonly id: number }
  /** A secondary without sockets: give up this copy's changes in favour of `keeper`'s, then exit. */
  | { readonly kind: "discard"; readonly keeper: CopyFacts; readonly dryRun: boolean }
  /** A primary: other settings, of which only those differ that may change live (config/changes.ts). */
  | { readonly kind: "settings"; readonly settings: WorkerSettings }
  /** A primary: other orders than before. */
  | { readonly kind: "orders"; readonly orders: Orders }
  /** A primary: its lease goes on. @see Arbitration.renew() */
  | { readonly kind: "lease"; readonly deadlineMs: number; readonly confirmed: number }
  /**
   * A primary that still asks whether it may be one: the other node has come, as primary itself. Whose address is
   * the first of the two has more patience; null where both have the same.
   */
  | { readonly kind: "rival"; readonly isFirst: boolean | null }
  /** A primary: copy every extent to the peer. */
  | { readonly kind: "sync" }
  /**
   * Throw this copy away, since the peer's is whole; a secondary only says whether that can be, and the
   * next connection does it (PeerHello.invalidate).
   */
  | { readonly kind: "invalidate"; readonly dryRun: boolean }
  /** A secondary without sockets: call this copy outdated, then exit. */
  | { readonly kind: "outdate"; readonly dryRun: boolean }
  /** Answers "may-resync": null, or why not. */
  | { readonly kind: "resync-answer"; readonly refusal: string | null }
  /** Finish what was accepted, then exit 0. The daemon kills a worker that takes too long. */
  | { readonly kind: "stop" };

export type WorkerEvent =
  | "connect"
  | "disconnect"
  | "syncstart"
  | "syncdone"
  | "syncintr"
  | "split-brain";

/** Exit code of a primary worker whose promotion the rules forbid; the resource keeps its role. */
export const EXIT_PROMOTION_REFUSED = 77;

export type { CopyState, CopyWorth, Trust };

export type FromWorker =
  /** Before `ready`, and whenever it changes. */
  | { readonly kind: "copy"; readonly copy: CopyWorth }
  /** The role works: disk open, metadata sound, NBD server listening (primary). Sent once. */
  | {
      readonly kind: "ready";
      /** Of a primary's disk, bytes: what requests have to be multiples of. */
      readonly sectorSize?: number;
    }
  /** The role cannot work; the worker exits with `exitCode` (spec: behaviour §2.1) right after. */
  | {
      readonly kind: "failed";
      readonly exitCode: number;
      readonly message: string;
      /** A primary whose disk failed: left out where the other node has everything. */
      readonly peerLacks?: PeerLacks;
    }
  | { readonly kind: "event"; readonly event: WorkerEvent }
  /** What the arbiter is to put on record; the number is the worker's own. */
  | { readonly kind: "wish"; readonly wish: Wish }
  /** The two copies do not fit together. A secondary's worker fails right after. */
  | { readonly kind: "diverged"; readonly divergence: Divergence }
  /** What there was to give up, or that there was nothing; the worker exits with 0 right after. */
  | {
      readonly kind: "discarded";
      readonly plan: DiscardPlan["kind"];
      readonly lines: readonly string[];
    }
  /** From a secondary, right before it exits. */
  | { readonly kind: "left"; readonly left: Left }
  /** "sync", "invalidate" or "outdate" is done, and on record; or why not. */
  | { readonly kind: "answer"; readonly resolution: Resolution }
  /** What became of PeerHello.invalidate. */
  | { readonly kind: "invalidated"; readonly resolution: Resolution }
  /** A primary's device has lost something that was acknowledged, and what serves it is not told: it has to go. */
  | { readonly kind: "device-misled" }
  /** A primary's clients are served, perhaps from a copy older than the peer's: that one's counts no more (S-9). */
  | { readonly kind: "settled" }
  /** A resync is about to overwrite this node's copy. The worker waits for the answer, for minutes if need be. */
  | { readonly kind: "may-resync" }
  | { readonly kind: "status"; readonly id: number; readonly report: WorkerReport };

/** A worker's part of a status reply (spec: wire protocol §12.4). Counts since the worker started. */
export interface WorkerReport {
  readonly status: "complete" | "degraded";
  /** Bytes in flight or awaiting resync, in whole extents; 0 on a secondary. */
  readonly dirty: number;
  readonly extentsize: number;
  /** 0 on a secondary. */
  readonly keepdirty: number;
  readonly reads: number;
  readonly writes: number;
  readonly deletes: number;
  readonly flushes: number;
  readonly activemapUpdates: number;
  readonly readErrors: number;
  readonly writeErrors: number;
  readonly deleteErrors: number;
  readonly flushErrors: number;
  readonly idleQueue: number;
  readonly localQueue: number;
  readonly sendQueue: number;
  readonly recvQueue: number;
  readonly doneQueue: number;
  /** To the other node. A primary that is, and yet degraded, has lost its disk. */
  readonly connected: boolean;
  /** Without this connection the primary cannot go on: its own copy is not whole. */
  readonly bound: boolean;
  /** Milliseconds since a secondary last heard its primary; 0 on a primary. */
  readonly silentMs: number;
  /** One sentence each, for people: resync progress, why degraded, what to type. */
  readonly notes: readonly string[];
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * A primary's two connections to its peer: the handshake, then requests out on A, replies in on B.
 *
 *   idle ─▶ connect A ─▶ P1/S1 ─▶ connect B ─▶ P2/S2 + map ─▶ up ─▶ idle, and again
 *
 * Every step has the resource's timeout. A refusal that only an operator can lift (split-brain,
 * sizes that differ) is retried seldom and quietly (BD-34); everything else soon, with jitter.
 * Source: wire protocol §6, §8–§10; behaviour §4.2, §9.
 */

import { assert } from "../base/assert.ts";
import { printable } from "../base/printable.ts";
import type { Synced } from "../metadata/block.ts";
import { mapBytes } from "../metadata/layout.ts";
import type { Clock, Timer } from "../platform/clock.ts";
import type { Entropy } from "../platform/entropy.ts";
import type { ConnectOptions, Net, NetFailure, Stream, StreamReader } from "../platform/net.ts";
import type { Primary } from "../replication/primary.ts";
import type { PeerState, PrimaryOutbox } from "../replication/primary-io.ts";
import { IO_MAX, type Kind, READ, type ToldState, WRITE } from "../replication/requests.ts";
import { equal } from "../replication/secondary.ts";
import { syncVerdict } from "../replication/sync-verdict.ts";
import { errnoFromWire } from "../wire/errno.ts";
import { WireError } from "../wire/error.ts";
import {
  EXT_ALIVE,
  EXT_KEPT,
  EXT_SOLE,
  EXT_STATE,
  EXT_WHOLE,
  EXT_ZERO,
  EXTENSIONS,
  encodeState,
  encodeWhole,
} from "../wire/extensions.ts";
import { FRAME_HEADER_SIZE, NV_SIZE_MAX, peekFrame } from "../wire/frame.ts";
import {
  type CopyRemarks,
  decodeS1,
  decodeS2,
  encodeP1,
  encodeP2,
  type PrimaryLife,
  type S2Accepted,
  type S2Refused,
  SPLIT_BRAIN_ERRMSG,
} from "../wire/handshake.ts";
import {
  CHECKSUM_NONE,
  COMPRESSION_HOLE,
  decodePayload,
  type Hashes,
  OutgoingPayload,
  PayloadEncoder,
  type PayloadHeader,
} from "../wire/payload.ts";
import { decodeReply, REPLY_HEADER_MAX, ReplyHeader } from "../wire/reply.ts";
import {
  CMD_DELETE,
  CMD_FLUSH,
  CMD_KEEPALIVE,
  CMD_READ,
  CMD_WRITE,
  encodeRequest,
  REQUEST_HEADER_MAX,
} from "../wire/request.ts";
import { CHECKSUM_CODE, COMPRESSION_CODE } from "./codes.ts";
import { Inbox, type Memory, NOBODY, PINNED } from "./memory.ts";
import { Outgoing } from "./outgoing.ts";
import { newResourceId } from "./resource-id.ts";
import type { CopyFacts, WorkerSettings } from "./worker-messages.ts";

const RETRY_FIRST_MS = 250;
const RETRY_MAX_MS = 5_000;
/** The same while nobody listens there, or with another role: such an attempt costs little. */
const RETRY_ABSENT_MAX_MS = 1_000;
/** While the peer says that it is still primary (behaviour §4.2). */
const RETRY_WAIT_MS = 500;
/** After a refusal that only an operator can lift. */
const RETRY_LATCHED_MS = 30_000;
/** An answer that came too late for its connection counts for one that begins within this time. */
const LEAVE_KEPT_MS = 60_000;
/** The same where the peer's daemon answers from memory, and an operator waits for the repair to show. */
const RETRY_DIVERGED_MS = 10_000;
/** Bytes of map that a peer may make us keep: 2^31 extents, the most there are. */
const MAP_SIZE_MAX: number = 256 * 1024 * 1024;

/** How the refusal of a resync by a gate begins, on either node. */
export const RESYNC_REFUSED = "Synchronization refused";

export interface PeerLinkHandler {
  /** The peer's data is newer: may it overwrite this node's? Resolves with null or why not, perhaps minutes later. */
  mayResync(): Promise<string | null>;
  /** A handshake ended well: merge, then requests may follow. */
  accepted(peer: PeerState): void;
  /** The peer's machine lives, and has a hastd: begun() or attemptFailed() follows. */
  reached(): void;
  /** The peer is secondary, and has begun to accept us: accepted() or attemptFailed() follows. */
  begun(): void;
  /**
   * An attempt ended without a connection. `wait`: the peer is primary, and may be on its way down. `repeated`: the
   * one before ended in the same way.
   */
  attemptFailed(reason: string, wait: boolean, repeated: boolean): void;
  /**
   * After attemptFailed(), at each such attempt: the two copies do not fit together.
   * @param reason for people, without a full stop; null where the peer's word says it
   */
  diverged(splitBrain: boolean, reason: string | null, peer: CopyFacts): void;
  /** What to tell the peer of our copy. */
  remarks(): CopyRemarks;
  /** What to tell the peer of this primary's life. */
  life(): PrimaryLife;
  /** The connection, once accepted, is gone. */
  lost(reason: string): void;
  /** The peer answers a request with an error, a Linux errno. @param slot as for Primary.replied() */
  requestFailed(slot: number, errno: number): void;
  /** Events have been handed over: do what follows from them. */
  turn(): void;
  notice(text: string): void;
  debug(level: number, text: string): void;
}

export interface PeerLinkOptions {
  readonly settings: WorkerSettings;
  readonly core: Primary;
  /** Where the core's effects go. */
  readonly out: PrimaryOutbox;
  readonly memory: Memory;
  readonly net: Net;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly hashes: Hashes;
  readonly dataSize: number;
  readonly extentSize: number;
  /** What an arbiter has granted, or 0n. */
  readonly term: bigint;
}

type State = "idle" | "connecting" | "hello" | "counters" | "second" | "answer" | "leave" | "up";

export class PeerLink {
  readonly #options: PeerLinkOptions;
  readonly #handler: PeerLinkHandler;
  #state: State = "idle";
  #stopped = false;
  /** An operator wants no connection. */
  #suspended = false;
  #timer: Timer | null = null;
  #abandon: (() => void) | null = null;
  #retryMs = RETRY_FIRST_MS;
  #upSince = 0;
  /** The last refusal, so that it is reported once and not at every retry. */
  #lastFailure = "";
  /** Why the last connection ended. */
  #lostReason = "";
  #latchedMs = 0;
  /** The answer to whether this node's copy may be overwritten: awaited, or not used yet. */
  #leave: Promise<string | null> | null = null;
  #leaveUntilMs = 0;

  #a: Stream | null = null;
  #b: Stream | null = null;
  #aReader: HandshakeReader | null = null;
  #bInbox: Inbox | null = null;
  #bReader: ReplyReader | null = null;
  #outgoing: Outgoing | null = null;
  #version = 1;
  #extensions = 0n;
  #token: Uint8Array = new Uint8Array(0);
  /** What this handshake has told the peer, or null. */
  #life: PrimaryLife | null = null;
  /** What this connection's peer believes of our own copy. */
  #toldWhole = false;
  /** We made up the resource id in this very handshake. */
  #virgin = false;
  /** Which connection attempt callbacks belong to. */
  #attempt = 0;

  /** Replies on this connection that answered nothing. */
  #strayReplies = 0;
  readonly #reply = new ReplyHeader();
  readonly #payload = new OutgoingPayload();
  readonly #encoder: PayloadEncoder;
  #settings: WorkerSettings;
  #checksum = 0;
  #compression = 0;
  /** The application data of a legacy TRIM: zeroes, sent as a hole. */
  readonly #zeroes: Uint8Array = new Uint8Array(IO_MAX);

  constructor(options: PeerLinkOptions, handler: PeerLinkHandler) {
    this.#options = options;
    this.#handler = handler;
    this.#encoder = new PayloadEncoder(options.hashes);
    this.#settings = options.settings;
    this.#chooseCodes();
  }

  /**
   * Other settings: checksum and compression from the next payload on, the rest from the next step that
   * needs it. Where `remote`, `source` or `tlspeer` change, an attempt that waits for its time begins at once; a
   * connection stays until disconnect(). `remote` is not "none".
   */
  reconfigure(settings: WorkerSettings): void {
    const { remote, source, tlspeer } = this.#settings;
    this.#settings = settings;
    this.#chooseCodes();
    const same = remote === settings.remote && source === settings.source;
    if (same && tlspeer === settings.tlspeer) return;
    this.#retryMs = RETRY_FIRST_MS;
    if (this.#state === "idle" && this.#timer !== null) this.connect();
  }

  #chooseCodes(): void {
    this.#checksum = CHECKSUM_CODE[this.#settings.checksum];
    this.#compression = COMPRESSION_CODE[this.#settings.compression];
  }

  get up(): boolean {
    return this.#state === "up";
  }

  /** Whether the peer has been told that this primary is async; null where nothing has been said of it. */
  get toldEarly(): boolean | null {
    return this.#state === "idle" ? null : (this.#life?.early ?? null);
  }

  /** Why there is no connection, for status; "" before the first attempt has ended. */
  get lastFailure(): string {
    return this.#lastFailure === "" ? this.#lostReason : this.#lastFailure;
  }

  /** How long until the next attempt, at most, where that is longer than anybody would wait; else 0. */
  get patienceMs(): number {
    return this.#latchedMs;
  }

  /** Begins an attempt, if none is under way, and unless suspended. */
  connect(): void {
    if (this.#stopped || this.#suspended || this.#state !== "idle") return;
    this.#cancelTimer();
    const { net } = this.#options;
    this.#attempt++;
    this.#virgin = false;
    this.#life = null;
    this.#state = "connecting";
    this.#abandon = net.connect(this.#settings.remote, this.#connectOptions, (result) =>
      this.#connectedA(result),
    );
  }

  get #connectOptions(): ConnectOptions {
    const { resource, source, timeout, tlspeer } = this.#settings;
    return { source, timeoutMs: timeout * 1000, expected: { resource, pin: tlspeer } };
  }

  /** No attempts until resume(); closes what is open. */
  suspend(reason: string): void {
    if (this.#suspended) return;
    this.#suspended = true;
    this.#leave = null;
    this.disconnect(reason);
    this.#cancelTimer();
  }

  /** Ends suspend(); connect() may follow. */
  resume(): void {
    if (this.#suspended) this.#lastFailure = this.#lostReason = "";
    this.#suspended = false;
    this.#retryMs = RETRY_FIRST_MS;
  }

  /** No further attempts; closes what is open. */
  stop(): void {
    this.#stopped = true;
    if (this.#state === "idle") this.#cancelTimer();
    else this.#close("stopping", RETRY_MAX_MS, false);
    this.#cancelTimer();
  }

  /** Closes the connection because of what was seen on it. */
  disconnect(reason: string): void {
    if (this.#state !== "idle") this.#close(reason, this.#backoff(), false);
  }

  // ---- handshake ------------------------------------------------------------------------------

  #connectedA(result: Stream | NetFailure): void {
    this.#abandon = null;
    if ("failure" in result) {
      this.#close(result.failure, this.#backoff(RETRY_ABSENT_MAX_MS), false);
      return;
    }
    this.#a = result;
    this.#state = "hello";
    this.#aReader = new HandshakeReader(
      () => this.#heardA(),
      (reason) => {
        const when = this.#state === "hello" ? " before it answered" : words(reason);
        this.#close(`the peer closed the connection${when}`, this.#backoff(), false);
      },
    );
    result.start(this.#aReader);
    result.write(
      encodeP1({
        resource: this.#settings.resource,
        version: 2,
        extensions: EXTENSIONS,
        term: this.#options.term,
      }),
    );
    this.#startTimer("the peer does not answer the handshake");
    this.#handler.reached();
  }

  #startTimer(what: string): void {
    this.#cancelTimer();
    const seconds = this.#settings.timeout;
    this.#timer = this.#options.clock.after(seconds * 1000, () =>
      this.#close(`${what} (${seconds} s)`, this.#backoff(), false),
    );
  }

  #cancelTimer(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  #heardA(): void {
    const attempt = this.#attempt;
    try {
      if (this.#state === "hello") this.#heardS1();
      else if (this.#state === "answer") this.#heardS2();
      else if (this.#state === "counters" || this.#state === "second") this.#heardBeforeP2();
      else
        this.#close(
          "the peer sent data where none is due (on connection A)",
          this.#backoff(),
          false,
        );
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      if (attempt === this.#attempt) {
        this.#close(`the peer's handshake is broken: ${error.message}`, this.#backoff(), false);
      }
    }
  }

  #heardS1(): void {
    const nv = this.#aReader!.takeNv();
    if (nv === null) return;
    const answer = decodeS1(nv);
    if (answer.kind === "refused") {
      this.#refused(answer.errmsg, answer.wait, null);
      return;
    }
    this.#version = answer.version;
    this.#extensions = answer.extensions & EXTENSIONS;
    this.#token = answer.token;
    this.#cancelTimer();
    this.#state = "counters";
    this.#handler.begun();
    if (this.#aReader!.pending > 0) this.#heardBeforeP2();
    this.metadataIdle();
  }

  /** The peer's role has changed since its first answer: it refuses now. Nothing else may come here. */
  #heardBeforeP2(): void {
    const nv = this.#aReader!.takeNv();
    if (nv === null) return; // not whole yet; if P2 goes out before, this is the answer to it
    const answer = decodeS1(nv);
    if (answer.kind !== "refused") {
      throw new WireError("handshake-invalid", "bytes follow the first answer");
    }
    this.#refused(answer.errmsg, answer.wait, null);
  }

  /**
   * Goes on with the handshake once no metadata write is under way: the counters we send must be
   * the ones on our disk. The engine calls this after every such write.
   */
  metadataIdle(): void {
    if (this.#state !== "counters") return;
    const { core, out, entropy, net } = this.#options;
    if (core.recordPending) return;
    if (core.record.resuid === 0n) {
      this.#virgin = true;
      core.adoptResuid(newResourceId(entropy), out);
      this.#handler.turn();
      return;
    }
    this.#state = "second";
    this.#abandon = net.connect(this.#settings.remote, this.#connectOptions, (result) =>
      this.#connectedB(result),
    );
  }

  #connectedB(result: Stream | NetFailure): void {
    this.#abandon = null;
    if ("failure" in result) {
      this.#close(`the second connection failed: ${result.failure}`, this.#backoff(), false);
      return;
    }
    this.#b = result;
    this.#bInbox = new Inbox(this.#options.memory);
    if (!this.#bInbox.makeRoom(1)) {
      this.#close(
        "no memory for the peer's replies while NBD clients hold all of it",
        this.#backoff(),
        false,
      );
      return;
    }
    this.#bReader = new ReplyReader(this, this.#bInbox);
    result.start(this.#bReader);
    this.#sendP2();
  }

  #sendP2(): void {
    const record = this.#options.core.handshakeBegin();
    if (record === null) {
      // A metadata write began meanwhile; it is over within one disk write and flush.
      this.#timer = this.#options.clock.after(1, () => this.#sendP2());
      return;
    }
    this.#state = "answer";
    this.#life = (this.#extensions & EXT_KEPT) !== 0n ? this.#handler.life() : null;
    this.#toldWhole = (this.#extensions & EXT_WHOLE) !== 0n && this.#options.core.whole;
    this.#b!.write(
      encodeP2(this.#version, {
        resource: this.#settings.resource,
        token: this.#token,
        virgin: this.#virgin,
        resuid: record.resuid,
        localcnt: record.localcnt,
        remotecnt: record.remotecnt,
        remarks: (this.#extensions & EXT_STATE) !== 0n ? this.#handler.remarks() : null,
        life: this.#life,
        whole: this.#toldWhole,
      }),
    );
    this.#startTimer("the peer does not answer the second handshake message");
  }

  #heardS2(): void {
    const reader = this.#aReader!;
    const frame = reader.peekNv();
    if (frame === null) return;
    const { answer, payload } = decodeS2(frame);
    const { dataSize, extentSize } = this.#options;
    if (answer.kind === "refused") {
      this.#refused(answer.errmsg, answer.wait, answer);
      return;
    }
    if (answer.datasize !== dataSize || answer.extentsize !== extentSize) {
      const what =
        answer.datasize !== dataSize
          ? `data sizes differ: ${dataSize} bytes here, ${answer.datasize} at the peer`
          : `extent sizes differ: ${extentSize} bytes here, ${answer.extentsize} at the peer`;
      const { resource } = this.#settings;
      const anew = (size: number, extent: number) =>
        `hastctl role init ${resource} && hastctl create --force --datasize ${size} -e ${extent} ${resource}`;
      // As a rule this copy is in use, and the peer's was made with a wrong size: that one comes first.
      this.#close(
        `${what}. One of the two has to be made anew, and loses its data. If you do not want the PEER's data, since ` +
          `that node is new, say, there: ${anew(dataSize, extentSize)}. Only if you do not want the data of THIS node, ` +
          `with which applications work now, here: ${anew(answer.datasize, answer.extentsize)}`,
        RETRY_LATCHED_MS,
        false,
      );
      return;
    }
    const map = this.#receiveMap(answer, payload);
    if (map === "incomplete") return;
    if (reader.pending > 0) {
      throw new WireError("handshake-invalid", "bytes follow the second answer");
    }
    if (answer.virgin && (answer.syncsrc !== "primary" || answer.localcnt !== 0n)) {
      throw new WireError("handshake-invalid", "a virgin peer claims to hold newer data");
    }
    const doubt = this.#doubt(answer);
    if (doubt !== null) {
      const { localcnt, remotecnt } = answer;
      const { resuid } = this.#options.core.record;
      this.#close(doubt, RETRY_DIVERGED_MS, false);
      if (/ran backwards/.test(doubt)) {
        this.#handler.diverged(false, doubt, { resuid, localcnt, remotecnt, remarks: null });
      }
      return;
    }
    this.#cancelTimer();
    const { core } = this.#options;
    const target = answer.syncsrc === "secondary";
    if (target && core.clashes(answer.localcnt)) this.#refuseTarget(this.#clash);
    // A copy that is being overwritten already is not worth a question.
    else if (target && core.record.state !== "inconsistent") this.#askLeave(answer, map);
    else this.#begin(answer, map);
  }

  /**
   * Asks whether this node's copy may be overwritten. A peer that finds the wait too long closes the
   * connection; the answer then counts for the next one.
   */
  #askLeave(answer: S2Accepted, map: Uint8Array | null): void {
    this.#state = "leave";
    const attempt = this.#attempt;
    if (!this.awaitsLeave) {
      this.#leaveUntilMs = Number.POSITIVE_INFINITY;
      this.#leave = this.#handler.mayResync().finally(() => {
        this.#leaveUntilMs = this.#options.clock.now() + LEAVE_KEPT_MS;
      });
    }
    void this.#leave!.then((refusal) => {
      if (attempt !== this.#attempt) return;
      this.#leave = null;
      if (refusal === null) this.#begin(answer, map);
      else this.#refuseTarget(refusal);
    });
  }

  /** A connection is to follow, as soon as the answer is there, that makes this copy the peer's. */
  get awaitsLeave(): boolean {
    return this.#leave !== null && this.#options.clock.now() < this.#leaveUntilMs;
  }

  #refuseTarget(why: string): void {
    this.#close(`${RESYNC_REFUSED} on this node: ${why}`, RETRY_LATCHED_MS, false);
  }

  /** Applications remember what they have read: newer blocks beside it would be a mix of two copies. */
  get #clash(): string {
    const { resource } = this.#options.settings;
    return (
      "the other node went on without this one, and its newer data must not appear under applications that have " +
      "been served the older; once something is written here alone, it is a split-brain. To go on with the other " +
      `node's data, end what uses the resource; then here: hastctl role init ${resource} && hastctl role primary ${resource}`
    );
  }

  /** Puts the connection in use. */
  #begin(answer: S2Accepted, map: Uint8Array | null): void {
    this.#state = "up";
    this.#upSince = this.#options.clock.now();
    this.#lastFailure = "";
    this.#lostReason = "";
    this.#outgoing = new Outgoing(this.#a!, this.#options.memory);
    this.#aReader!.up(this.#outgoing);
    this.#handler.accepted({
      version: this.#version,
      localcnt: answer.localcnt,
      remotecnt: answer.remotecnt,
      virgin: answer.virgin,
      source: answer.syncsrc,
      map,
      zeroes: (this.#extensions & EXT_ZERO) !== 0n,
      states: (this.#extensions & EXT_STATE) !== 0n,
      keeps: (this.#extensions & EXT_STATE) !== 0n && (this.#extensions & EXT_SOLE) !== 0n,
      alive: (this.#extensions & EXT_ALIVE) !== 0n,
      synced: answer.synced,
      cache: answer.cache,
      outdated: answer.outdated && (this.#extensions & EXT_WHOLE) !== 0n,
    });
    this.#handler.turn();
  }

  /**
   * Why the peer's verdict does not follow from the four counters, or null. A wrong one would have the
   * older copy written over the newer one (safety case S-12).
   */
  #doubt(answer: S2Accepted): string | null {
    const { core } = this.#options;
    const { localcnt, remotecnt } = core.record;
    if (answer.virgin) {
      if (!core.stale) return null;
      return (
        "the peer's component was created anew, and this node has no whole copy of its own: nothing is copied. " +
        "If the peer's old component is lost, what this node has is all there is; it is part old, part new"
      );
    }
    const verdict = syncVerdict(
      { local: localcnt, remote: remotecnt },
      { local: answer.localcnt, remote: answer.remotecnt },
    );
    if (verdict.kind === "regular" && verdict.from === answer.syncsrc) return null;
    // It has kept what may have gone with our cache, and we offered to take it (S-9).
    if (this.#life?.fresh && core.fresh && equal(core.record, answer)) return null;
    const counters =
      `${localcnt}/${remotecnt} here, ${answer.localcnt}/${answer.remotecnt} at the peer ` +
      "(modification counters: own/other)";
    if (verdict.kind === "impossible") {
      return `counters ran backwards: ${counters}. One node's metadata was lost or rolled back`;
    }
    return `the peer wants to synchronize from the ${answer.syncsrc}, which the counters contradict: ${counters}`;
  }

  /** The map behind S2, verified and unpacked; null if there is none. */
  #receiveMap(answer: S2Accepted, payload: PayloadHeader): Uint8Array | null | "incomplete" {
    const reader = this.#aReader!;
    const { dataSize, extentSize, hashes } = this.#options;
    if (answer.mapsize === 0) {
      if (payload.size !== 0)
        throw new WireError("handshake-invalid", "a map follows an answer without map");
      reader.takeNv();
      return null;
    }
    const least = mapBytes(Math.floor((dataSize - 1) / extentSize) + 1);
    if (answer.mapsize < least || answer.mapsize > MAP_SIZE_MAX) {
      throw new WireError(
        "handshake-invalid",
        `the peer's map has ${answer.mapsize} bytes; at least ${least} are needed`,
      );
    }
    if (payload.size > answer.mapsize) {
      throw new WireError(
        "handshake-invalid",
        `${payload.size} bytes sent for a map of ${answer.mapsize}`,
      );
    }
    const bytes = reader.peekPayload(payload.size);
    if (bytes === null) return "incomplete";
    const map = new Uint8Array(answer.mapsize);
    if (decodePayload(hashes, payload, bytes, 0, answer.mapsize, map, 0) === "in-place") {
      map.set(bytes.subarray(0, answer.mapsize));
    }
    reader.takeNv();
    reader.takePayload(payload.size);
    return map;
  }

  /** @param facts what a secondary's worker sends with its refusal; null from anybody else */
  #refused(text: string, wait: boolean, facts: S2Refused | null): void {
    const errmsg = printable(text);
    const splitBrain = errmsg === SPLIT_BRAIN_ERRMSG;
    if (splitBrain || /unique ID mismatch|ran backwards/.test(errmsg)) {
      this.#close(errmsg, RETRY_DIVERGED_MS, false);
      const { localcnt, remotecnt, remarks } = facts ?? NOT_KNOWN;
      // A FreeBSD node says "split-brain" of a copy with our id only.
      const ours = facts !== null && splitBrain ? this.#options.core.record.resuid : null;
      const resuid = facts?.resuid ?? ours;
      this.#handler.diverged(splitBrain, null, { resuid, localcnt, remotecnt, remarks });
      return;
    }
    const latched = /not configured|No access|Synchronization refused/.test(errmsg);
    const absent = /acts as init|disconnected by/.test(errmsg);
    const retryMs = this.#backoff(absent ? RETRY_ABSENT_MAX_MS : RETRY_MAX_MS);
    this.#close(errmsg, wait ? RETRY_WAIT_MS : latched ? RETRY_LATCHED_MS : retryMs, wait);
  }

  /** The next delay: doubled each time, with a quarter of jitter. */
  #backoff(maxMs: number = RETRY_MAX_MS): number {
    const delay = Math.min(this.#retryMs, maxMs);
    this.#retryMs = Math.min(maxMs, delay * 2);
    const byte = new Uint8Array(1);
    this.#options.entropy.fill(byte);
    return delay * (1 + byte[0]! / 1024);
  }

  // ---- the end of a connection ----------------------------------------------------------------

  /** Ends the attempt or the connection, and plans the next attempt. */
  #close(reason: string, retryMs: number, wait: boolean): void {
    const before = this.#state;
    if (before === "idle") return;
    this.#state = "idle";
    this.#latchedMs = retryMs >= RETRY_DIVERGED_MS ? retryMs : 0;
    let delayMs = retryMs;
    if (before === "up") {
      this.#lostReason = reason;
      // A connection that did not last is no reason to try faster.
      const lastedMs = this.#options.clock.now() - this.#upSince;
      if (lastedMs >= RETRY_MAX_MS) this.#retryMs = RETRY_FIRST_MS;
      delayMs = this.#backoff();
    }
    this.#strayReplies = 0;
    this.#attempt++;
    this.#cancelTimer();
    this.#abandon?.();
    this.#abandon = null;
    const { core, out } = this.#options;
    if (this.#aReader !== null) this.#aReader.silent = true;
    if (this.#bReader !== null) this.#bReader.silent = true;
    this.#bReader = null;
    this.#a?.destroy();
    this.#b?.destroy();
    this.#a = this.#b = null;
    this.#aReader = null;
    this.#bInbox?.close();
    this.#bInbox = null;
    this.#outgoing?.close();
    this.#outgoing = null;
    if (!this.#stopped && !this.#suspended) {
      this.#timer = this.#options.clock.after(delayMs, () => this.connect());
    }
    if (before === "up") {
      this.#handler.lost(reason);
    } else {
      core.handshakeFailed(out);
      const repeated = reason === this.#lastFailure;
      this.#lastFailure = reason;
      if (!this.#stopped) this.#handler.attemptFailed(reason, wait, repeated);
    }
    this.#handler.turn();
  }

  // ---- requests -------------------------------------------------------------------------------

  /** Queues a slot's request; flush() sends it. */
  sendRequest(slot: number, kind: Kind): void {
    assert(this.#state === "up" && this.#outgoing !== null);
    const { core, memory } = this.#options;
    const seq = core.seq[slot]!;
    const offset = core.offset[slot]!;
    const length = core.length[slot]!;
    if (kind === READ) {
      this.#sendHeader(CMD_READ, seq, offset, length, false, null);
    } else if (kind === WRITE) {
      this.#encoder.encode(
        this.#compression,
        this.#checksum,
        memory.bytes,
        core.memory[slot]!,
        length,
        this.#payload,
      );
      this.#sendHeader(CMD_WRITE, seq, offset, length, core.memsync[slot] === 1, this.#payload);
      // The slot's memory stays until the peer has answered or the stream is destroyed.
      const inPlace = this.#payload.bytes === memory.bytes;
      this.#outgoing.payload(
        this.#payload.bytes,
        this.#payload.at,
        this.#payload.size,
        inPlace ? PINNED : NOBODY,
      );
    } else if (core.peerZeroes) {
      this.#sendHeader(CMD_DELETE, seq, offset, length, false, null);
    } else {
      // A FreeBSD peer promises nothing of what a DELETE leaves behind: zeroes, as a hole (S-20).
      this.#encoder.encode(COMPRESSION_HOLE, CHECKSUM_NONE, this.#zeroes, 0, length, this.#payload);
      this.#sendHeader(CMD_WRITE, seq, offset, length, false, this.#payload);
      this.#outgoing.payload(this.#payload.bytes, this.#payload.at, this.#payload.size, NOBODY);
    }
  }

  sendFlush(seq: number): void {
    this.#sendHeader(CMD_FLUSH, seq, 0, 0, false, null);
  }

  sendKeepalive(): void {
    this.#sendHeader(CMD_KEEPALIVE, 0, 0, 0, false, null);
  }

  sendState(
    seq: number,
    state: ToldState,
    localcnt: bigint,
    remotecnt: bigint,
    synced: Synced | null,
  ): void {
    const message = encodeState(this.#version, seq, state, localcnt, remotecnt, synced);
    this.#outgoing!.payload(message, 0, message.length, NOBODY);
  }

  #sendHeader(
    cmd: number,
    seq: number,
    offset: number,
    length: number,
    memsync: boolean,
    payload: OutgoingPayload | null,
  ): void {
    const outgoing = this.#outgoing!;
    const chunk = outgoing.reserve(REQUEST_HEADER_MAX);
    const hi = Math.floor(seq / 4294967296);
    outgoing.advance(
      encodeRequest(
        chunk,
        outgoing.at,
        this.#version,
        cmd,
        hi,
        seq >>> 0,
        offset,
        length,
        memsync,
        payload,
      ),
    );
  }

  /** Sends what has been queued in this batch, and what has become of our own copy. */
  flush(): void {
    const { whole } = this.#options.core;
    if (
      whole !== this.#toldWhole &&
      this.#state === "up" &&
      (this.#extensions & EXT_WHOLE) !== 0n
    ) {
      this.#toldWhole = whole;
      const message = encodeWhole(this.#version, whole);
      this.#outgoing!.payload(message, 0, message.length, NOBODY);
    }
    this.#outgoing?.flush();
  }

  // ---- replies, from channel B ----------------------------------------------------------------

  repliesReceived(length: number): void {
    const inbox = this.#bInbox;
    if (inbox === null) return;
    inbox.end += length;
    try {
      if (this.#state === "up") {
        this.#parseReplies(inbox);
      } else {
        this.#parseEarlyRefusal(inbox);
      }
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.disconnect(`broken message from the peer: ${error.message}`);
      return;
    }
    this.#handler.turn();
  }

  /** The reference sends the refusal of P2 on B, and some wait for it on A for ever (BD-33). */
  #parseEarlyRefusal(inbox: Inbox): void {
    const bytes = this.#options.memory.bytes;
    const size = peekFrame(bytes, inbox.start, inbox.end, NV_SIZE_MAX);
    if (size === "incomplete" || inbox.end - inbox.start < FRAME_HEADER_SIZE + size) {
      inbox.makeRoom(FRAME_HEADER_SIZE + NV_SIZE_MAX);
      return;
    }
    const from = inbox.start + FRAME_HEADER_SIZE;
    const answer = decodeS1(bytes.slice(from, from + size));
    if (answer.kind !== "refused")
      throw new WireError("handshake-invalid", "a reply before the handshake ended");
    this.#refused(answer.errmsg, answer.wait, null);
  }

  #parseReplies(inbox: Inbox): void {
    const { memory, core, hashes, out } = this.#options;
    const header = this.#reply;
    for (;;) {
      if (!decodeReply(memory.bytes, inbox.start, inbox.end, header)) {
        this.#roomForReplies(inbox, FRAME_HEADER_SIZE + REPLY_HEADER_MAX);
        return;
      }
      // hole and lzf are shorter than the data, which is at most IO_MAX.
      if (header.size > IO_MAX) {
        throw new WireError("reply-invalid", `a reply claims ${header.size} bytes of data`);
      }
      const total = header.headerEnd - inbox.start + header.size;
      if (inbox.end - inbox.start < total) {
        this.#roomForReplies(inbox, total);
        return;
      }
      const seq = header.seqHi * 4294967296 + header.seqLo;
      const slot = header.hasSeq ? core.slotOfReply(seq) : -1;
      if (header.hasSeq && seq === 0 && (this.#extensions & EXT_ALIVE) !== 0n) {
        if (header.size > 0) throw new WireError("reply-invalid", "data with a keepalive's answer");
        core.keepaliveAnswered();
      } else if (slot < 0) {
        const text = `the peer answered a request that is not outstanding (number ${seq})`;
        if (this.#strayReplies++ === 0) this.#handler.notice(text);
        else this.#handler.debug(1, text);
      } else {
        const wantsData = core.awaitsData(slot) && header.error === 0;
        if (wantsData !== header.size > 0) {
          throw new WireError(
            "reply-invalid",
            wantsData ? "a READ was answered without data" : "data with a reply that has none",
          );
        }
        if (wantsData) {
          const at = core.memory[slot]!;
          const length = core.length[slot]!;
          const where = decodePayload(
            hashes,
            header,
            memory.bytes,
            header.headerEnd,
            length,
            memory.bytes,
            at,
          );
          if (where === "in-place") {
            memory.bytes.copyWithin(at, header.headerEnd, header.headerEnd + length);
          }
        }
        const errno = errnoFromWire(header.error);
        if (errno !== 0) this.#handler.requestFailed(slot, errno);
        const wrong = core.replied(slot, header.received, errno, out);
        if (wrong !== null) throw new WireError("reply-invalid", wrong);
      }
      inbox.start += total;
      if (this.#state !== "up") return;
    }
  }

  #roomForReplies(inbox: Inbox, wanted: number): void {
    const kept = inbox.end - inbox.start;
    // Replies are consumed at once, so the inbox's own slab is never held by others.
    const room = inbox.makeRoom(Math.max(wanted, kept + 1));
    assert(room, "no memory for replies");
  }
}

/** Reads handshake messages from connection A: they are few, and a map may be long. */
class HandshakeReader implements StreamReader {
  readonly #heard: () => void;
  readonly #gone: (reason: string | null) => void;
  #space: Uint8Array = new Uint8Array(65536);
  /** What has arrived and not been taken is [start, end). */
  #bytes: Uint8Array = new Uint8Array(65536);
  #start = 0;
  #end = 0;
  silent = false;
  #outgoing: Outgoing | null = null;
  /** Writes of the handshake not yet reported sent: P1. */
  #unreported = 1;

  constructor(heard: () => void, gone: (reason: string | null) => void) {
    this.#heard = heard;
    this.#gone = gone;
  }

  /** The handshake is over: `sent` reports belong to the data path, less what was written before. */
  up(outgoing: Outgoing): void {
    this.#outgoing = outgoing;
    this.#space = new Uint8Array(16);
    this.#bytes = new Uint8Array(16);
    this.#start = this.#end = 0;
  }

  get pending(): number {
    return this.#end - this.#start;
  }

  /** The next message's nv block, or null while it is incomplete. @throws WireError */
  peekNv(): Uint8Array | null {
    const size = peekFrame(this.#bytes, this.#start, this.#end, NV_SIZE_MAX);
    if (size === "incomplete" || this.pending < FRAME_HEADER_SIZE + size) return null;
    const from = this.#start + FRAME_HEADER_SIZE;
    return this.#bytes.subarray(from, from + size);
  }

  takeNv(): Uint8Array | null {
    const nv = this.peekNv();
    if (nv !== null) this.#start += FRAME_HEADER_SIZE + nv.length;
    return nv;
  }

  /** `size` bytes behind the message that peekNv() returned, or null while they are incomplete. */
  peekPayload(size: number): Uint8Array | null {
    const from = this.#start + FRAME_HEADER_SIZE + this.peekNv()!.length;
    if (this.#end < from + size) return null;
    return this.#bytes.subarray(from, from + size);
  }

  takePayload(size: number): void {
    this.#start += size;
  }

  space(): Uint8Array {
    return this.#space;
  }

  received(length: number): void {
    if (this.silent) return;
    if (this.#end + length > this.#bytes.length) {
      // Doubled, so that a long map is not copied once for each piece.
      const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.#end + length));
      larger.set(this.#bytes.subarray(0, this.#end));
      this.#bytes = larger;
    }
    this.#bytes.set(this.#space.subarray(0, length), this.#end);
    this.#end += length;
    this.#heard();
  }

  sent(count: number): void {
    const own = Math.min(count, this.#unreported);
    this.#unreported -= own;
    if (count > own) this.#outgoing?.sent(count - own);
  }

  closed(reason: string | null): void {
    if (!this.silent) this.#gone(reason);
  }
}

/** Channel B: replies straight into the arena. */
class ReplyReader implements StreamReader {
  readonly #link: PeerLink;
  readonly #inbox: Inbox;
  silent = false;

  constructor(link: PeerLink, inbox: Inbox) {
    this.#link = link;
    this.#inbox = inbox;
  }

  space(): Uint8Array {
    return this.silent ? NOWHERE : this.#inbox.space();
  }

  received(length: number): void {
    if (!this.silent) this.#link.repliesReceived(length);
  }

  sent(): void {}

  closed(reason: string | null): void {
    if (!this.silent) this.#link.disconnect(`the peer closed the connection${words(reason)}`);
  }
}

const NOT_KNOWN = { localcnt: 0n, remotecnt: 0n, remarks: null };

/** For a stream that has been destroyed. */
const NOWHERE: Uint8Array = new Uint8Array(1);

function words(reason: string | null): string {
  return reason === null ? "" : `: ${reason}`;
}

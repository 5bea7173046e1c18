// SPDX-License-Identifier: BSD-2-Clause
/**
 * Runs one resource as secondary for one connected primary: judges its counters, answers S2 on
 * channel A, then executes its requests from A and replies on B.
 *
 * What was received whole is executed before the engine ends, whoever closes the connection
 * (safety case S-5); a message that is incomplete then is dropped whole.
 * Source: behaviour §6, wire protocol §6.5, §8–§10.
 */

import { assert } from "../base/assert.ts";
import { printable } from "../base/printable.ts";
import {
  copyWorth,
  METADATA_SIZE,
  type Metadata,
  type Synced,
  stateOf,
} from "../metadata/block.ts";
import type { Timer } from "../platform/clock.ts";
import type { Disk } from "../platform/disk.ts";
import type { Entropy } from "../platform/entropy.ts";
import type { Stream, StreamReader } from "../platform/net.ts";
import { Activemap } from "../replication/activemap.ts";
import {
  type DataState,
  ERR_AGAIN,
  FLUSH,
  READ,
  type ToldState,
  WRITE,
  ZERO,
} from "../replication/requests.ts";
import {
  equal,
  type Judgement,
  judge,
  Secondary,
  type SecondaryOutbox,
  soleRecord,
  thrownAway,
} from "../replication/secondary.ts";
import type { Side } from "../replication/sync-verdict.ts";
import { errnoText, errnoToWire } from "../wire/errno.ts";
import { WireError } from "../wire/error.ts";
import {
  CMD_STATE,
  CMD_WHOLE,
  EXT_ALIVE,
  EXT_KEPT,
  EXT_SOLE,
  EXT_STATE,
  EXT_WHOLE,
} from "../wire/extensions.ts";
import { FRAME_HEADER_SIZE } from "../wire/frame.ts";
import { encodeS2, type S2Refused, syncedOf } from "../wire/handshake.ts";
import { decodeNv } from "../wire/nv.ts";
import { decodePayload, OutgoingPayload, PayloadEncoder } from "../wire/payload.ts";
import { encodeReply, REPLY_HEADER_MAX } from "../wire/reply.ts";
import {
  CMD_DELETE,
  CMD_FLUSH,
  CMD_KEEPALIVE,
  CMD_READ,
  CMD_WRITE,
  decodeRequest,
  RequestHeader,
} from "../wire/request.ts";
import { CHECKSUM_CODE, COMPRESSION_CODE } from "./codes.ts";
import { Component, type ComponentHandler, type MapChanges } from "./component.ts";
import { ownFacts } from "./divergence.ts";
import { Inbox, Memory, NOBODY, SLAB_SIZE } from "./memory.ts";
import { Outgoing } from "./outgoing.ts";
import { RESYNC_REFUSED } from "./peer-link.ts";
import type { EngineEnvironment, EngineHost } from "./primary-engine.ts";
import { size } from "./quantities.ts";
import { RequestFailures } from "./request-failures.ts";
import type {
  Held,
  PeerHello,
  Resolution,
  WorkerReport,
  WorkerSettings,
} from "./worker-messages.ts";

/** A FreeBSD primary sends at least a keepalive every 10 s (wire protocol §10). */
const SILENCE_MAX_MS = 20_000;
/** Less than this is no silence, however short `timeout` is: one of ours sends every 2 or 3 s (§15). */
const SILENCE_MIN_MS = 6_000;
/** The longest READ or WRITE we execute: 64-bit FreeBSD 13 and later send 1 MiB. */
const REQUEST_MAX: number = 1024 * 1024;
/**
 * A FreeBSD primary does not say when a synchronization has ended. Its copies follow one another, so one
 * that is heard, and for so long has sent none, has no more (S-13).
 */
const SYNC_SILENCE_MS = 20_000;
const ALREADY_THROWN_AWAY = "already thrown away: everything is being copied here from the primary";
/** Replies that the primary does not take: stop reading its requests beyond this, bytes. */
const UNSENT_MAX: number = 8 * 1024 * 1024;

const ERR_IO = 5;
const ERR_INVAL = 22;

/** In place of where a request's data lies: it is refused, and only its failure goes the way of a request. */
const REFUSED = -2;

const EXIT_OK = 0;
const EXIT_LOST = 75;
const EXIT_REFUSED = 78;
const EXIT_DISK = 74;

export class SecondaryEngine implements SecondaryOutbox, ComponentHandler {
  readonly #settings: WorkerSettings;
  readonly #environment: EngineEnvironment;
  readonly #host: EngineHost;
  readonly #memory: Memory;
  readonly #component: Component;
  readonly #core: Secondary = new Secondary();
  readonly #hello: PeerHello;
  readonly #a: Stream;
  readonly #b: Stream;
  readonly #inbox: Inbox;
  /** Replies on B; S2 goes out on A by itself. */
  readonly #outgoing: Outgoing;
  readonly #encoder: PayloadEncoder;
  readonly #payload = new OutgoingPayload();
  readonly #header = new RequestHeader();
  readonly #slotHolder: Int32Array;
  readonly #version: number;
  readonly #diskFailures: RequestFailures;
  #readSlab: number = NOBODY;
  #readAt = 0;
  #state: "starting" | "serving" | "draining" | "ended" = "starting";
  #recordDone: ((errno: number) => void) | null = null;
  /** Settled when the last record asked for is stored. */
  #lastRecord: Promise<unknown> = Promise.resolve();
  /** A map of one value on its way to the disk, whether it is flushed, and who waits for it. */
  #filling: UniformMap | null = null;
  #fillFlush = false;
  #filled: (errno: number) => void = () => {};
  /**
   * Failed requests, and the flushes that succeeded after them: answered, in this order, once our metadata says
   * that this copy lacks something.
   */
  readonly #failures: { readonly slot: number; readonly errno: number }[] = [];
  /** Refused requests whose turn it is to fail; how many there were, and why the first was. */
  readonly #refusedNow: number[] = [];
  #refusedCount = 0;
  #refusedWhy = "";
  /** The primary is one of ours, and tells what our copy is worth. */
  readonly #states: boolean;
  #exitCode = EXIT_LOST;
  #exitReason = "";
  #lastHeardAt: number;
  /** The primary says so before it acknowledges what we do not have. */
  readonly #together: boolean;
  /** Names this copy's cache (Left). */
  readonly #cache: bigint;
  /** What is on record here, with all that was acknowledged since, is in this machine's cache at least (S-9). */
  #whole: boolean;
  /** The primary is one of ours: it sends often, and wants its keepalives answered. */
  readonly #answersKeepalives: boolean;
  readonly #silenceOnceHeardMs: number;
  /** Until the first request the primary may be busy with our map, or with a gate. */
  #silenceMaxMs = SILENCE_MAX_MS;
  /** When replies last left, or there were none to send. */
  #lastSentAt: number;
  #tick: Timer | null = null;
  #paused = false;
  /** No whole request is left in the inbox. */
  #nothingWhole = true;
  #inTurn = false;
  #events = 0;
  /** A STATE request that waits until everything before it has been executed, then until it is stored. */
  #stateWaiting: StateRequest | null = null;
  /** Our own map while we keep the record for a primary without a disk. */
  #kept: Activemap | null = null;
  #storingState = false;
  /** Whose copy is copied on this connection, and whether all of it is. */
  #source: Side = "primary";
  #everything = false;
  /** What the primary says of its own copy (EXT_WHOLE). */
  #primaryWhole: boolean;
  /** When a request last came that may have been part of a synchronization; FreeBSD's all have number 1. */
  #copyAt: number;
  #numberOnes = 0;
  #inference: "none" | "flushing" | "made" = "none";
  /** At the end, what the kept map says of this copy becomes exact, unless that cannot be known. */
  #mapEnd: "open" | "flushing" | "writing" | "done" | "unknown" = "open";

  /**
   * Reads the metadata of `disk`.
   * @throws MetadataError, or Error with what could not be read
   */
  static async open(
    settings: WorkerSettings,
    hello: PeerHello,
    disk: Disk,
    a: Stream,
    b: Stream,
    environment: EngineEnvironment,
    host: EngineHost,
  ): Promise<SecondaryEngine> {
    const memory = new Memory(environment.arena);
    const component = new Component(disk, memory);
    await component.load(settings.resource, (text) => host.warning(text));
    return new SecondaryEngine(settings, hello, component, a, b, memory, environment, host);
  }

  private constructor(
    settings: WorkerSettings,
    hello: PeerHello,
    component: Component,
    a: Stream,
    b: Stream,
    memory: Memory,
    environment: EngineEnvironment,
    host: EngineHost,
  ) {
    this.#settings = settings;
    this.#hello = hello;
    this.#primaryWhole = hello.whole;
    this.#component = component;
    this.#a = a;
    this.#b = b;
    this.#memory = memory;
    this.#environment = environment;
    this.#host = host;
    this.#version = hello.version;
    this.#states = (hello.extensions & EXT_STATE) !== 0n;
    this.#together =
      this.#states && (hello.extensions & EXT_KEPT) !== 0n && hello.life?.early === false;
    this.#whole = heldOf(component.metadata, hello.left?.held ?? null);
    this.#cache = hello.left?.cache ?? anyNumber(environment.entropy);
    this.#answersKeepalives = (hello.extensions & EXT_ALIVE) !== 0n;
    this.#silenceOnceHeardMs = this.#answersKeepalives
      ? Math.max(settings.timeout * 1000, SILENCE_MIN_MS)
      : SILENCE_MAX_MS;
    this.#inbox = new Inbox(memory);
    this.#outgoing = new Outgoing(b, memory);
    this.#encoder = new PayloadEncoder(environment.hashes);
    this.#slotHolder = new Int32Array(this.#core.kind.length).fill(NOBODY);
    this.#diskFailures = new RequestFailures(
      `the local component ${settings.local}`,
      environment.clock,
      (text) => host.warning(text),
    );
    this.#lastHeardAt = this.#lastSentAt = this.#copyAt = environment.clock.now();
    component.attach(this);
    memory.onFree = () => {
      this.#events++;
    };
    assert(this.#inbox.makeRoom(1));
  }

  /** For who checks invariants from outside: tests and simulation. */
  get memory(): Memory {
    return this.#memory;
  }

  /** Answers the handshake and begins to serve. */
  async start(): Promise<void> {
    const { metadata } = this.#component;
    const own = {
      resuid: metadata.resuid,
      localcnt: metadata.localcnt,
      remotecnt: metadata.remotecnt,
      state: stateOf(metadata),
      synced: metadata.synced,
    };
    const { virgin, resuid, localcnt, remotecnt, remarks } = this.#hello;
    this.#tellCopy();
    const map = await this.#component.loadMap();
    if (this.#state !== "starting") return; // the primary did not wait
    // With nothing in either map there is nothing to choose.
    const marked = remarks === null || remarks.dirtyExtents > 0 || map.some((byte) => byte !== 0);
    const judged = judge(own, {
      states: this.#states,
      virgin,
      resuid,
      localcnt,
      remotecnt,
      synced: remarks === null ? "unknown" : remarks.synced,
      keptHere: this.#whole && this.#together && marked && this.#hello.life!.fresh,
    });
    if (judged.kind === "refuse") {
      this.#refuse(judged, map);
      return;
    }
    // That this copy is behind is true whatever the gate will say, and if this primary does not wait for it (S-2).
    const behind = judged.map === "own" && localcnt > own.remotecnt;
    if (behind && own.state !== "outdated" && own.state !== "inconsistent") {
      if (!(await this.#storeRecord({ ...own, state: "outdated" }))) return;
      if (this.#state !== "starting") return; // the primary did not wait
    }
    let judgement = judged;
    if (this.#hello.invalidate) {
      const reason = this.#indispensable(judgement);
      if (reason !== null) this.#host.invalidated({ kind: "failed", reason });
      else judgement = thrownAway(judgement, own);
    }
    if (this.#overwrites(judgement, map)) {
      const refusal = await this.#host.mayResync();
      if (this.#state !== "starting") return; // the primary did not wait
      if (refusal !== null) {
        this.#refuseResync(refusal);
        return;
      }
    }
    if (judgement.map === "full") {
      const errno = await this.#storeFullMap();
      if (errno !== 0) {
        this.#finish(EXIT_DISK, `the activemap could not be written: ${errnoText(errno)}`);
        return;
      }
    }
    // A FreeBSD primary never says when both are in step, so what was noted for that day is void.
    const aloneSince = this.#states ? metadata.aloneSince : null;
    const { term } = this.#hello;
    // A primary of an earlier term is not accepted any more, whatever becomes of this hastd.
    const newTerm = term !== undefined && term > (metadata.term ?? 0n) ? { term } : null;
    if (judgement.record !== null || aloneSince !== metadata.aloneSince || newTerm !== null) {
      const record = { ...own, ...judgement.record, ...newTerm, aloneSince };
      if (!(await this.#storeRecord(record))) return;
    }
    const level = equal(own, { localcnt, remotecnt }) && own.resuid === resuid;
    const whole = judgement.source === "secondary" ? this.#whole : !marked;
    this.#whole = this.#together && level && own.state === "uptodate" && whole;
    this.#source = judgement.source;
    this.#everything = judgement.map === "full";
    if (this.#everything && this.#hello.invalidate) {
      const all = size(metadata.datasize);
      this.#host.notice(`This copy is thrown away by an operator: ${all} come from the primary.`);
      this.#host.invalidated({
        kind: "done",
        lines: [
          `this node's copy is thrown away; ${all} are copied here from the primary. It survives restarts. ` +
            `To watch, on that node: hastctl status ${this.#settings.resource}`,
        ],
      });
    }
    this.#answer(judgement, map);
  }

  // ---- throwing this copy away ------------------------------------------------------------------

  /** Whether an operator may throw this copy away. Nothing is done: the next connection does it. */
  invalidate(_dryRun: boolean, asked: (resolution: Resolution) => void): void {
    const { metadata } = this.#component;
    const { resource, local } = this.#settings;
    if (this.#everything && metadata.state === "inconsistent") {
      asked({ kind: "done", lines: [ALREADY_THROWN_AWAY], before: true });
      return;
    }
    const reason =
      this.#state === "serving"
        ? this.#indispensable({ source: this.#source })
        : `no primary is connected. See: hastctl status ${resource}`;
    if (reason !== null) {
      asked({ kind: "failed", reason });
      return;
    }
    const all = size(metadata.datasize);
    asked({
      kind: "done",
      lines: [
        `to be thrown away: this node's copy, ${all} on ${local}`,
        `to be copied here from the primary, whose copy is whole: all of it, ${all}`,
        "until that has ended the primary has the only copy, and this node cannot take over",
      ],
    });
  }

  /** Why this copy is not to be thrown away, or null. */
  #indispensable({ source }: { readonly source: Side }): string | null {
    const { resource } = this.#settings;
    if (this.#core.keeping) {
      return (
        "the primary has lost its disk, and this copy is the only one. To give that node a disk again, there: " +
        `hastctl status ${resource}`
      );
    }
    if ((this.#hello.extensions & EXT_WHOLE) === 0n) {
      return (
        "the primary runs FreeBSD's hastd, or an older one of ours, and does not say whether its copy is " +
        `whole. If you know that it is, here: hastctl role init ${resource} && hastctl create --force ` +
        `--datasize ${this.#component.metadata.datasize} -e ${this.#component.metadata.extentsize} ` +
        `${resource} && hastctl role secondary ${resource}`
      );
    }
    if (source === "secondary" || !this.#primaryWhole) {
      return (
        "the primary's own copy is not whole: it is being synchronized from this one, which it needs. " +
        `When that has ended, type this again; to watch, on that node: hastctl status ${resource}`
      );
    }
    return null;
  }

  /**
   * Whether this copy lacks what the primary has, or may have what it lacks: then a resync overwrites it.
   * One that is being overwritten already does not count.
   */
  #overwrites(judgement: Judgement & { kind: "accept" }, map: Uint8Array): boolean {
    const { metadata } = this.#component;
    if (judgement.source !== "primary" || metadata.state === "inconsistent") return false;
    if (judgement.map === "full" || this.#hello.localcnt > metadata.remotecnt) return true;
    return map.some((byte) => byte !== 0);
  }

  #storeFullMap(): Promise<number> {
    return new Promise((resolve) => {
      this.#fillMap(0xff, true, resolve);
      this.#component.disk.submit();
    });
  }

  /**
   * One after the other.
   * @returns false if that failed, and this worker has ended: a flush that fails may have dropped what was
   * written before it, and only the primary, once it connects anew, copies that again
   */
  #storeRecord(record: Partial<Metadata> & { readonly state: DataState }): Promise<boolean> {
    const stored = this.#lastRecord.then(() => !this.#isEnded() && this.#writeRecord(record));
    this.#lastRecord = stored;
    return stored;
  }

  #writeRecord(record: Partial<Metadata> & { readonly state: DataState }): Promise<boolean> {
    return new Promise((resolve) => {
      this.#recordDone = (errno) => {
        if (errno === 0) this.#tellCopy();
        else this.#finish(EXIT_DISK, `the metadata could not be written: ${errnoText(errno)}`);
        resolve(errno === 0);
      };
      const settled = record.state === "uptodate" ? { forced: undefined } : {};
      this.#component.writeRecord({ ...record, ...settled, prevrole: "secondary" });
      this.#component.disk.submit();
    });
  }

  #tellCopy(): void {
    const { metadata } = this.#component;
    this.#host.copy(copyWorth(metadata));
  }

  /** The gate has said no: nothing is wrong with either copy. */
  #refuseResync(reason: string): void {
    const { metadata } = this.#component;
    this.#host.error(`${RESYNC_REFUSED}: ${reason}.`);
    this.#a.start(new Quiet());
    this.#b.start(new Quiet());
    const refusal: S2Refused = {
      kind: "refused",
      datasize: metadata.datasize,
      extentsize: metadata.extentsize,
      localcnt: metadata.localcnt,
      remotecnt: metadata.remotecnt,
      errmsg: `${RESYNC_REFUSED} on the other node: ${reason}`,
      wait: false,
      resuid: null,
      remarks: null,
    };
    this.#a.write(encodeS2(this.#version, refusal, null));
    this.#a.end();
    this.#finish(EXIT_REFUSED, `${RESYNC_REFUSED.toLowerCase()}: ${reason}`);
  }

  #refuse(judgement: Judgement & { kind: "refuse" }, map: Uint8Array): void {
    const { metadata } = this.#component;
    const { resuid, localcnt, remotecnt, remarks } = this.#hello;
    const own = ownFacts(metadata, map);
    const refusal: S2Refused = {
      kind: "refused",
      datasize: metadata.datasize,
      extentsize: metadata.extentsize,
      localcnt: metadata.localcnt,
      remotecnt: metadata.remotecnt,
      errmsg: judgement.message,
      wait: false,
      resuid: this.#states ? own.resuid : null,
      remarks: this.#states ? own.remarks : null,
    };
    this.#a.start(new Quiet());
    this.#b.start(new Quiet());
    this.#a.write(encodeS2(this.#version, refusal, null));
    this.#a.end();
    this.#host.diverged({
      splitBrain: judgement.splitBrain,
      reason: judgement.reason,
      extentSize: metadata.extentsize,
      dataSize: metadata.datasize,
      own,
      peer: { resuid, localcnt, remotecnt, remarks },
      refusal,
    });
    if (judgement.splitBrain) this.#host.event("split-brain");
    this.#finish(EXIT_REFUSED, judgement.reason);
  }

  /** @param own the map on our disk as it was before the handshake */
  #answer(judgement: Judgement & { kind: "accept" }, own: Uint8Array): void {
    const { metadata } = this.#component;
    let map: Uint8Array | null = own;
    if (judgement.map === "full") map = new Uint8Array(own.length).fill(0xff);
    if (judgement.map === "own-unless-empty" && map.every((byte) => byte === 0)) map = null;
    if (this.#state !== "starting") return;
    if (!this.#states) {
      this.#kept = this.#emptyMap();
      this.#core.keepLacking(this.#kept);
    }
    if (map !== null) {
      const { compression, checksum } = this.#settings;
      this.#encoder.encode(
        COMPRESSION_CODE[compression],
        CHECKSUM_CODE[checksum],
        map,
        0,
        map.length,
        this.#payload,
      );
    }
    this.#state = "serving";
    this.#a.start(new RequestReader(this));
    this.#b.start(new ReplyWatcher(this));
    this.#a.write(
      encodeS2(
        this.#version,
        {
          kind: "accepted",
          datasize: metadata.datasize,
          extentsize: metadata.extentsize,
          localcnt: metadata.localcnt,
          remotecnt: metadata.remotecnt,
          virgin: judgement.virgin,
          syncsrc: judgement.source,
          mapsize: map === null ? 0 : map.length,
          synced: this.#states ? metadata.synced : null,
          cache: this.#states ? this.#cache : null,
          outdated: (this.#hello.extensions & EXT_WHOLE) !== 0n && marred(metadata),
        },
        map === null ? null : this.#payload,
      ),
    );
    this.#host.event("connect");
    this.#scheduleTick();
  }

  #scheduleTick(): void {
    this.#tick = this.#environment.clock.after(1_000, () => {
      const now = this.#environment.clock.now();
      // While it waits for room in here, the primary cannot be heard.
      if (this.#paused) this.#lastHeardAt = now;
      if (this.#outgoing.unsent === 0) this.#lastSentAt = now;
      const { timeout } = this.#settings;
      if (now - this.#lastHeardAt >= this.#silenceMaxMs) {
        this.lost(
          `the primary has been silent for ${this.#silenceMaxMs / 1000} s. If that node is dead, ` +
            `to go on here: hastctl role primary ${this.#settings.resource}`,
        );
      } else if (now - this.#lastSentAt >= timeout * 1000) {
        this.lost(`the primary has not taken a reply for ${timeout} s`);
      } else {
        this.#scheduleTick();
      }
    });
  }

  // ---- the connection -------------------------------------------------------------------------

  requestSpace(): Uint8Array {
    return this.#inbox.space();
  }

  requestsReceived(length: number): void {
    if (this.#state !== "serving") return;
    this.#lastHeardAt = this.#environment.clock.now();
    this.#inbox.end += length;
    this.#parse();
    this.turn();
  }

  repliesSent(count: number): void {
    this.#lastSentAt = this.#environment.clock.now();
    this.#outgoing.sent(count);
    if (this.#paused) this.turn();
  }

  /** The connection is gone or cannot be believed: what came whole is executed, then the worker ends. */
  lost(reason: string): void {
    if (this.#state !== "serving") return;
    this.#host.warning(`Disconnected from ${this.#settings.remote}: ${reason}`);
    this.#host.event("disconnect");
    this.#drain(EXIT_LOST, reason);
  }

  /** Stops serving: executes what came whole, then ends with code 0. */
  stop(): void {
    if (this.#state === "starting") this.#finish(EXIT_OK, "stopped");
    else if (this.#state === "serving") this.#drain(EXIT_OK, "stopped");
  }

  #drain(exitCode: number, reason: string): void {
    this.#state = "draining";
    this.#exitCode = exitCode;
    this.#exitReason = reason;
    this.#tick?.cancel();
    this.#a.destroy();
    this.turn();
  }

  get #idle(): boolean {
    return this.#core.active === 0 && this.#stateWaiting === null && this.#filling === null;
  }

  #finish(exitCode: number, reason: string): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    this.#tick?.cancel();
    // After a failed flush the next one succeeds without what the cache has dropped.
    const intact = exitCode !== EXIT_DISK && !this.#core.lacks;
    const left = intact ? { cache: this.#cache, held: this.#held } : null;
    this.#component.close(() => {
      this.#b.destroy();
      this.#host.ended(exitCode, reason, left);
    });
  }

  /** Everything that came whole has been executed, and nothing is missing: so may the next worker say. */
  get #held(): Held | null {
    const { resuid, localcnt, remotecnt } = this.#component.metadata;
    return this.#whole && this.#core.readErrors === 0 ? { resuid, localcnt, remotecnt } : null;
  }

  // ---- requests -------------------------------------------------------------------------------

  /** Takes every request that has arrived whole and for which there is room. */
  #parse(): void {
    let wanted = 1;
    let stuck = false;
    this.#nothingWhole = true;
    try {
      for (;;) {
        const taken = this.#parseOne();
        if (taken === TAKEN) continue;
        stuck = taken === NO_ROOM;
        this.#nothingWhole = !stuck;
        wanted = taken;
        break;
      }
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      if (this.#state === "serving") this.lost(`broken message from the primary: ${error.message}`);
      return;
    }
    if (this.#state !== "serving") return;
    if (!stuck) stuck = !this.#inbox.makeRoom(Math.max(wanted, this.#pendingBytes + 1));
    if (stuck && !this.#paused) this.#a.pause();
    if (!stuck && this.#paused) this.#a.resume();
    this.#paused = stuck;
  }

  get #pendingBytes(): number {
    return this.#inbox.end - this.#inbox.start;
  }

  /** @returns TAKEN, NO_ROOM, or how many bytes the message at the front needs */
  #parseOne(): number {
    const inbox = this.#inbox;
    const header = this.#header;
    const bytes = this.#memory.bytes;
    if (this.#stateWaiting !== null || this.#core.room === 0) return NO_ROOM;
    if (!decodeRequest(bytes, inbox.start, inbox.end, header)) {
      return Math.min(SLAB_SIZE, this.#pendingBytes + 65536);
    }
    if (header.cmd !== CMD_WRITE && header.size !== 0) {
      throw new WireError("request-invalid", "data behind a request that has none");
    }
    if (header.size > REQUEST_MAX) {
      throw new WireError("request-invalid", `a WRITE claims ${header.size} bytes of data`);
    }
    const total = header.headerEnd - inbox.start + header.size;
    if (this.#pendingBytes < total) return total;
    if (this.#state === "serving" && this.#outgoing.unsent > UNSENT_MAX) return NO_ROOM;
    if (!this.#execute(header)) return NO_ROOM;
    inbox.start += total;
    return TAKEN;
  }

  /** One whole request. @returns false if there is no memory for it now */
  #execute(header: RequestHeader): boolean {
    const bytes = this.#memory.bytes;
    if (header.cmd === CMD_WRITE || header.cmd === CMD_DELETE) this.#mayBeCopy(header);
    this.#inferEnd();
    this.#silenceMaxMs = this.#silenceOnceHeardMs;
    switch (header.cmd) {
      case CMD_KEEPALIVE:
        if (this.#answersKeepalives) this.#sendReply(0, 0, false, 0, -1, 0, NOBODY);
        return true;
      case CMD_FLUSH:
        if (header.hasSeq) this.#submit(FLUSH, header, 0, 0, -1, NOBODY);
        else this.#refuseRequest(header);
        return true;
      case CMD_STATE:
        this.#takeState(header);
        return true;
      case CMD_WHOLE:
        this.#takeWhole(header);
        return true;
      case CMD_READ: {
        if (!this.#valid(header, REQUEST_MAX)) return true;
        const at = this.#readMemory(header.length);
        if (at < 0) return false;
        this.#submit(READ, header, header.offset, header.length, at, this.#readSlab);
        return true;
      }
      case CMD_DELETE:
        if (this.#valid(header, Number.MAX_SAFE_INTEGER)) {
          this.#submit(ZERO, header, header.offset, header.length, -1, NOBODY);
        }
        return true;
      case CMD_WRITE: {
        // The data has arrived: a refusal leaves nothing of it in the stream (BD-7).
        if (!this.#valid(header, REQUEST_MAX)) return true;
        return this.#takeWrite(header, bytes);
      }
      default:
        throw new WireError("request-invalid", `unknown request ${header.cmd}`);
    }
  }

  #takeWrite(header: RequestHeader, bytes: Uint8Array): boolean {
    // A hole or compressed data needs a place to be unpacked to.
    const plain = header.compression === 0;
    const at = plain ? header.headerEnd : this.#readMemory(header.length);
    if (at < 0) return false;
    decodePayload(
      this.#environment.hashes,
      header,
      bytes,
      header.headerEnd,
      header.length,
      bytes,
      at,
    );
    const holder = plain ? this.#inbox.holder : this.#readSlab;
    this.#submit(WRITE, header, header.offset, header.length, at, holder);
    return true;
  }

  /** Range and alignment, overflow-safe (BD-39); a violation is answered with EINVAL. */
  #valid(header: RequestHeader, lengthMax: number): boolean {
    const { datasize } = this.#component.metadata;
    const { sectorSize } = this.#component.disk;
    const { offset, length } = header;
    const valid =
      header.hasSeq &&
      offset >= 0 &&
      length > 0 &&
      length <= lengthMax &&
      length <= datasize &&
      offset <= datasize - length &&
      offset % sectorSize === 0 &&
      length % sectorSize === 0;
    if (!valid) this.#refuseRequest(header);
    return valid;
  }

  /** What was to change this copy, and does not, is a request that failed: in its turn, and on record (S-16). */
  #refuseRequest(header: RequestHeader): void {
    const { cmd, seqHi, seqLo, offset, length } = header;
    const { datasize } = this.#component.metadata;
    this.#whole = false;
    const changes = cmd === CMD_WRITE || cmd === CMD_DELETE;
    if (changes && offset >= 0 && offset < datasize && length > 0) {
      this.#tellRefused(header);
      const kind = cmd === CMD_WRITE ? WRITE : ZERO;
      this.#submit(kind, header, offset, Math.min(length, datasize - offset), REFUSED, NOBODY);
    } else {
      this.#sendReply(seqHi, seqLo, false, ERR_INVAL, -1, 0, NOBODY);
    }
  }

  #tellRefused({ offset, length }: RequestHeader): void {
    if (++this.#refusedCount > 1) return;
    const { resource, local } = this.#settings;
    const { datasize, extentsize } = this.#component.metadata;
    const { sectorSize } = this.#component.disk;
    this.#refusedWhy =
      offset % sectorSize !== 0 || length % sectorSize !== 0
        ? `${local} has sectors of ${sectorSize} bytes, the primary's disk has smaller ones. To take such ` +
          "requests, put a disk with sectors as small, or a file, in its place (local in hast.conf; " +
          `hastctl reload); then, here: hastctl role init ${resource} && hastctl create --datasize ` +
          `${datasize} -e ${extentsize} ${resource} && hastctl role secondary ${resource}`
        : `this copy has ${datasize} bytes, and takes at most ${REQUEST_MAX} with one WRITE. Do both nodes ` +
          `run the same hastd? On each: hastctl status ${resource}`;
    this.#host.warning(
      `A request to write ${length} bytes at ${offset} is refused, and this copy is not whole until they ` +
        `are copied here: ${this.#refusedWhy}`,
    );
  }

  #submit(
    kind: typeof READ | typeof WRITE | typeof ZERO | typeof FLUSH,
    header: RequestHeader,
    offset: number,
    length: number,
    memory: number,
    holder: number,
  ): void {
    // Not before: one that there is no memory for now comes here once, however often it is tried.
    if ((kind === WRITE || kind === ZERO) && isOne(header.seqHi, header.seqLo)) this.#numberOnes++;
    if (holder !== NOBODY) this.#memory.hold(holder);
    const slot = this.#core.submit(
      kind,
      header.seqHi,
      header.seqLo,
      offset,
      length,
      memory,
      kind === WRITE && header.memsync && memory !== REFUSED,
      this,
    );
    this.#slotHolder[slot] = holder;
  }

  /** Room for data that is not in the inbox, held by #readSlab; or -1. */
  #readMemory(length: number): number {
    const memory = this.#memory;
    if (this.#readSlab !== NOBODY && memory.holders(this.#readSlab) === 1) {
      this.#readAt = memory.start(this.#readSlab);
    }
    if (
      this.#readSlab === NOBODY ||
      this.#readAt + length > memory.start(this.#readSlab) + SLAB_SIZE
    ) {
      const next = memory.takeSlab();
      if (next === NOBODY) return -1;
      if (this.#readSlab !== NOBODY) memory.letGo(this.#readSlab);
      this.#readSlab = next;
      this.#readAt = memory.start(next);
    }
    const at = this.#readAt;
    this.#readAt += length;
    return at;
  }

  /** Our own primaries say what our copy is worth (extensions.ts). */
  #takeState(header: RequestHeader): void {
    const nv = decodeNv(
      this.#memory.bytes.slice(this.#inbox.start + FRAME_HEADER_SIZE, header.headerEnd),
    );
    const state = nv.string("state");
    const localcnt = nv.u64("localcnt");
    const remotecnt = nv.u64("remotecnt") ?? 0n;
    const known =
      state === "inconsistent" ||
      state === "uptodate" ||
      (state === "sole" && (this.#hello.extensions & EXT_SOLE) !== 0n);
    if (!this.#states || localcnt === null || !known) {
      throw new WireError(
        "request-invalid",
        `a state that was not agreed upon: ${printable(String(state))}`,
      );
    }
    const { seqHi, seqLo } = header;
    this.#stateWaiting = { seqHi, seqLo, state, localcnt, remotecnt, synced: syncedOf(nv) };
  }

  /** Our own primaries say when their own copy is not whole any more, or is again. */
  #takeWhole(header: RequestHeader): void {
    const nv = decodeNv(
      this.#memory.bytes.slice(this.#inbox.start + FRAME_HEADER_SIZE, header.headerEnd),
    );
    const whole = nv.u8("whole");
    if ((this.#hello.extensions & EXT_WHOLE) === 0n || (whole !== 0 && whole !== 1)) {
      throw new WireError("request-invalid", "a word about the primary's copy that makes no sense");
    }
    this.#primaryWhole = whole === 1;
  }

  /** Once everything before it has been executed. */
  #storeState(): void {
    const waiting = this.#stateWaiting;
    if (waiting === null || this.#storingState || this.#core.active > 0) return;
    if (this.#filling !== null) return;
    this.#storingState = true;
    void this.#store(waiting).then((errno) => {
      if (this.#isEnded()) return;
      this.#storingState = false;
      this.#stateWaiting = null;
      this.#sendReply(waiting.seqHi, waiting.seqLo, false, errno, -1, 0, NOBODY);
      this.#parse();
      this.turn();
    });
  }

  /** @returns an errno, unless the worker has ended */
  async #store({ state, localcnt, remotecnt, synced }: StateRequest): Promise<number> {
    const { metadata } = this.#component;
    const own = {
      resuid: metadata.resuid,
      localcnt: metadata.localcnt,
      remotecnt: metadata.remotecnt,
      state: stateOf(metadata),
      synced: metadata.synced,
    };
    this.#whole = false;
    if (state === "uptodate" && !this.#core.mayBeWhole) return ERR_AGAIN;
    if (state === "uptodate") {
      this.#core.madeGood();
      this.#source = "primary";
    }
    if (state !== "sole") {
      const whole = { remotecnt: localcnt, synced, aloneSince: null };
      const told = { ...own, state, ...(state === "uptodate" ? whole : {}) };
      await this.#storeRecord(told);
      this.#whole = state === "uptodate" && this.#together;
      return 0;
    }
    const record = soleRecord(own, localcnt, remotecnt);
    if (record === null) return ERR_INVAL;
    const errno = await this.#keepMap();
    if (errno !== 0) return errno;
    const aloneSince = metadata.aloneSince ?? Math.floor(this.#environment.clock.wallTime());
    await this.#storeRecord({ ...record, aloneSince });
    return 0;
  }

  /** The primary has no map any more: from here on ours is kept (S-1). */
  async #keepMap(): Promise<number> {
    if (this.#kept !== null) return 0;
    let onDisk: Uint8Array;
    try {
      onDisk = await this.#component.loadMap();
    } catch (error) {
      this.#host.warning(`The activemap: ${(error as Error).message}.`);
      return ERR_IO;
    }
    this.#kept = this.#emptyMap();
    this.#kept.load(onDisk);
    this.#core.keep(this.#kept);
    this.#host.warning(
      "The primary has lost its disk and works over this copy, which is the only one now.",
    );
    return 0;
  }

  #emptyMap(): Activemap {
    const { metadata, layout, disk } = this.#component;
    return new Activemap({
      dataSize: metadata.datasize,
      extentSize: metadata.extentsize,
      keepdirty: metadata.keepdirty,
      regionSize: layout.mapSize,
      sectorSize: disk.sectorSize,
    });
  }

  // ---- what a FreeBSD primary does not say ------------------------------------------------------

  /** A WRITE or DELETE: part of a synchronization, for all we know? */
  #mayBeCopy({ seqHi, seqLo }: RequestHeader): void {
    // Numbers are used once but for FreeBSD's copies, so the second such one tells them apart.
    if (isOne(seqHi, seqLo) || this.#numberOnes < 2) this.#copyAt = this.#environment.clock.now();
  }

  /** Has a synchronization of this copy ended? Asked at every keepalive and request. */
  #inferEnd(): void {
    if (this.#states || this.#inference === "flushing") return;
    const { metadata } = this.#component;
    const settles = marred(metadata) && this.#source === "primary";
    if (stateOf(metadata) !== "inconsistent" && !settles) return;
    if (this.#environment.clock.now() - this.#copyAt < SYNC_SILENCE_MS) return;
    if (this.#numberOnes < 2 ? this.#core.active > 0 : this.#core.executes(0, 1)) return;
    this.#inference = "flushing";
    this.#component.flush();
  }

  /** Nothing is left to execute: the kept map shall say no more than it must. */
  #endMap(): void {
    if (this.#mapEnd !== "open" || this.#inference === "flushing") return;
    if (this.#core.lastFlush()) {
      this.#mapEnd = "flushing";
      this.#component.flush();
    } else {
      this.#mapEnd = "done";
    }
  }

  /**
   * A flush has failed, and may have taken along what was written before it. The primary hears nothing any more,
   * and that this copy lacks something is on record before the worker ends: unless it is the only one.
   */
  async #giveUp(reason: string): Promise<void> {
    this.#mapEnd = "unknown"; // the next flush succeeds without it
    this.#drain(EXIT_DISK, reason);
    const noted = this.#core.keeping || this.#lacksOnRecord;
    if (noted || (await this.#storeRecord({ state: "inconsistent" }))) {
      this.#finish(EXIT_DISK, reason);
    }
  }

  /** What has failed is on record before this worker ends: the next flush succeeds without it (invariant 6). */
  async #lastFlushed(errno: number): Promise<void> {
    this.#core.lastFlushed(errno);
    if (errno !== 0) {
      this.#diskFailures.failed("flushing", errno);
      if (!(await this.#storeRecord({ state: "inconsistent" }))) return;
    }
    this.#writeLastMap();
    this.turn();
  }

  #writeLastMap(): void {
    if (this.#kept!.hasChanges) {
      this.#mapEnd = "writing";
      this.writeMap();
    } else {
      this.#mapEnd = "done";
    }
  }

  flushed(errno: number): void {
    this.#events++;
    if (this.#mapEnd === "flushing") {
      void this.#lastFlushed(errno);
      return;
    }
    assert(this.#inference === "flushing");
    this.#inference = "none";
    if (errno !== 0) {
      void this.#giveUp(`flushing failed: ${errnoText(errno)}`);
    } else if (this.#core.lacks || this.#failures.length > 0) {
      this.#copyAt = this.#environment.clock.now();
    } else {
      this.#inference = "made";
      void this.#storeRecord({ state: "uptodate" });
    }
  }

  // ---- SecondaryOutbox ------------------------------------------------------------------------

  localRead(slot: number): void {
    const core = this.#core;
    this.#component.read(slot, core.memory[slot]!, core.length[slot]!, core.offset[slot]!);
  }

  localWrite(slot: number): void {
    const core = this.#core;
    if (core.memory[slot] === REFUSED) {
      this.#failRefused(slot);
      return;
    }
    this.#component.write(slot, core.memory[slot]!, core.length[slot]!, core.offset[slot]!);
  }

  localZero(slot: number): void {
    if (this.#core.memory[slot] === REFUSED) {
      this.#failRefused(slot);
      return;
    }
    this.#component.zero(slot, this.#core.offset[slot]!, this.#core.length[slot]!, true);
  }

  /** Not at once: the core is in the middle of starting it. */
  #failRefused(slot: number): void {
    this.#events++;
    this.#refusedNow.push(slot);
  }

  localFlush(slot: number): void {
    this.#component.flushSlot(slot);
  }

  reply(slot: number, received: boolean, errno: number): void {
    const core = this.#core;
    const data = core.kind[slot] === READ && errno === 0;
    this.#sendReply(
      core.seqHi[slot]!,
      core.seqLo[slot]!,
      received,
      errno,
      data ? core.memory[slot]! : -1,
      data ? core.length[slot]! : 0,
      this.#slotHolder[slot]!,
    );
  }

  #sendReply(
    seqHi: number,
    seqLo: number,
    received: boolean,
    errno: number,
    memory: number,
    length: number,
    holder: number,
  ): void {
    if (this.#state !== "serving") return;
    const payload = memory < 0 ? null : this.#payload;
    if (payload !== null) {
      const { compression, checksum } = this.#settings;
      this.#encoder.encode(
        COMPRESSION_CODE[compression],
        CHECKSUM_CODE[checksum],
        this.#memory.bytes,
        memory,
        length,
        payload,
      );
    }
    const chunk = this.#outgoing.reserve(REPLY_HEADER_MAX);
    this.#outgoing.advance(
      encodeReply(
        chunk,
        this.#outgoing.at,
        this.#version,
        seqHi,
        seqLo,
        received,
        errno === 0 ? 0 : errnoToWire(errno),
        payload,
      ),
    );
    if (payload !== null) {
      const inPlace = payload.bytes === this.#memory.bytes;
      this.#outgoing.payload(payload.bytes, payload.at, payload.size, inPlace ? holder : NOBODY);
    }
  }

  release(slot: number): void {
    const holder = this.#slotHolder[slot]!;
    this.#slotHolder[slot] = NOBODY;
    if (holder !== NOBODY) this.#memory.letGo(holder);
    this.#events++;
  }

  clearMap(): void {
    if (this.#filling !== null) return;
    this.#fillMap(0, false, (errno) => {
      if (errno === 0) return;
      this.#host.warning(`The activemap could not be cleared: ${errnoText(errno)}.`);
      this.#core.mapClearFailed();
    });
  }

  writeMap(): void {
    // Flushed even with `metaflush off`: nobody else marks these extents, and no note says that we might not.
    this.#component.writeMap(this.#kept!, true);
  }

  #fillMap(byte: number, flush: boolean, filled: (errno: number) => void): void {
    this.#filling = new UniformMap(this.#component.layout.mapSize, byte);
    this.#fillFlush = flush;
    this.#filled = filled;
    this.#component.writeMap(this.#filling, flush);
  }

  // ---- ComponentHandler -----------------------------------------------------------------------

  slotDone(slot: number, errno: number): void {
    this.#events++;
    const kind = this.#core.kind[slot];
    if (errno !== 0 && this.#core.memory[slot] !== REFUSED) {
      const deed = kind === READ ? "reading" : kind === FLUSH ? "flushing" : "writing";
      this.#diskFailures.failed(deed, errno);
    }
    // While the primary relies on this copy alone, there is none that it could be copied from.
    if (errno !== 0 && kind !== READ && !this.#core.keeping) this.#failed(slot, errno);
    // It succeeded without what an earlier one has lost: that is marked, and told, first.
    else if (kind === FLUSH && this.#failures.length > 0) this.#failures.push({ slot, errno });
    else this.#core.localDone(slot, errno, this);
  }

  /**
   * This copy lacks something from here on. That is stable before the primary learns of it, and
   * perhaps goes on without us (S-16); the primary says when it is whole again, or, if it is FreeBSD's, that is
   * inferred on a later connection, which our map has told what to copy.
   */
  #failed(slot: number, errno: number): void {
    const { metadata } = this.#component;
    if (this.#lacksOnRecord && this.#failures.length === 0) {
      this.#core.localDone(slot, errno, this);
      return;
    }
    this.#failures.push({ slot, errno });
    if (this.#failures.length > 1) return;
    const { resuid, localcnt, remotecnt } = metadata;
    const record = { resuid, localcnt, remotecnt, state: "inconsistent" } as const;
    void this.#storeRecord(record).then((stored) => {
      if (!stored) return;
      if (this.#inference === "made") this.#inference = "none";
      for (const failure of this.#failures.splice(0)) {
        this.#core.localDone(failure.slot, failure.errno, this);
      }
      this.turn();
    });
  }

  get #lacksOnRecord(): boolean {
    return this.#component.metadata.state === "inconsistent" && this.#inference !== "made";
  }

  recordWritten(errno: number): void {
    this.#events++;
    const done = this.#recordDone;
    this.#recordDone = null;
    done?.(errno);
  }

  mapWritten(errno: number): void {
    this.#events++;
    if (this.#mapEnd === "writing") {
      if (errno === 0) this.#writeLastMap();
      else this.#mapEnd = "done"; // it says too much, which costs copies and nothing else
      return;
    }
    if (this.#filling === null) {
      if (errno === 0) this.#core.mapWritten(this);
      else void this.#giveUp(`the activemap could not be written: ${errnoText(errno)}`);
      return;
    }
    if (errno === 0 && !this.#filling.done) {
      this.#component.writeMap(this.#filling, this.#fillFlush); // there is more than one round takes
      return;
    }
    this.#filling = null;
    this.#filled(errno);
  }

  batchEnd(): void {
    this.turn();
  }

  turn(): void {
    if (this.#inTurn || this.#state === "ended") {
      this.#events++;
      return;
    }
    this.#inTurn = true;
    let seen: number;
    do {
      seen = ++this.#events;
      if (this.#paused || this.#state === "draining") this.#parse();
      this.#core.pump(this);
      while (this.#refusedNow.length > 0) this.slotDone(this.#refusedNow.shift()!, ERR_INVAL);
      this.#storeState();
      if (this.#state === "draining" && this.#nothingWhole && this.#idle) this.#endMap();
      this.#component.disk.submit();
      if (this.#state === "draining" && this.#idle && !this.#nothingWhole) this.#dropReplies();
    } while (seen !== this.#events && !this.#isEnded());
    // Whole requests that waited for room have been executed too (S-5).
    if (this.#state === "draining" && this.#mapEnd === "done") {
      this.#finish(this.#exitCode, this.#exitReason);
    }
    this.#outgoing.flush();
    this.#inTurn = false;
  }

  /** What is left lacks memory, and only replies can hold it: nobody takes them any more. */
  #dropReplies(): void {
    this.#b.destroy();
    this.#outgoing.close();
  }

  #isEnded(): boolean {
    return this.#state === "ended";
  }

  // ---- status ---------------------------------------------------------------------------------

  report(): WorkerReport {
    const core = this.#core;
    return {
      status: this.#state === "serving" ? "complete" : "degraded",
      dirty: 0,
      extentsize: this.#component.metadata.extentsize,
      keepdirty: 0,
      reads: core.reads,
      writes: core.writes,
      deletes: core.deletes,
      flushes: core.flushes,
      activemapUpdates: 0,
      readErrors: core.readErrors,
      writeErrors: core.writeErrors,
      deleteErrors: core.deleteErrors,
      flushErrors: core.flushErrors,
      idleQueue: core.room,
      localQueue: core.active,
      sendQueue: 0,
      recvQueue: 0,
      doneQueue: 0,
      connected: this.#state === "serving",
      bound: this.#bound,
      silentMs: this.#environment.clock.now() - this.#lastHeardAt,
      notes: this.#notes(),
    };
  }

  /** Does the primary need this copy? */
  get #bound(): boolean {
    if (this.#core.keeping || this.#source === "secondary") return true;
    return (this.#hello.extensions & EXT_WHOLE) !== 0n && !this.#primaryWhole;
  }

  #notes(): string[] {
    const notes: string[] = [];
    if (this.#core.keeping) {
      notes.push(
        "the primary has lost its disk: this copy is the only one. To work here: " +
          `hastctl role init ${this.#settings.resource} on that node, then ` +
          `hastctl role primary ${this.#settings.resource} on this one`,
      );
    }
    if (this.#inference === "made") {
      notes.push(
        "that the synchronization of this copy has ended is inferred: the primary does not say, " +
          `and has sent no copy for ${SYNC_SILENCE_MS / 1000} s`,
      );
    }
    if (this.#component.metadata.state === "inconsistent") {
      notes.push("this copy is being synchronized and cannot be promoted before that has ended");
    }
    if (this.#refusedCount > 0) {
      const requests = this.#refusedCount === 1 ? "1 request" : `${this.#refusedCount} requests`;
      notes.push(`${requests} of the primary to write here refused: ${this.#refusedWhy}`);
    }
    const { note } = this.#diskFailures;
    if (note !== null) notes.push(note);
    return notes;
  }
}

function isOne(seqHi: number, seqLo: number): boolean {
  return seqHi === 0 && seqLo === 1;
}

/** 64 bits that nobody has had before. */
function anyNumber(entropy: Entropy): bigint {
  const bytes = new Uint8Array(8);
  entropy.fill(bytes);
  return new DataView(bytes.buffer).getBigUint64(0);
}

/** Is on record what only the end of a synchronization takes back, be it one with nothing to copy? */
function marred({ state, forced }: Metadata): boolean {
  return state === "outdated" || state === "inconsistent" || forced !== undefined;
}

/** Is this still the copy that an earlier worker vouched for? */
function heldOf(metadata: Metadata, held: Held | null): boolean {
  if (held === null || stateOf(metadata) !== "uptodate") return false;
  const { resuid, localcnt, remotecnt } = metadata;
  return resuid === held.resuid && localcnt === held.localcnt && remotecnt === held.remotecnt;
}

/** A STATE request (wire/extensions.ts). */
interface StateRequest {
  readonly seqHi: number;
  readonly seqLo: number;
  readonly state: ToldState;
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  readonly synced: Synced | null;
}

const TAKEN = -1;
const NO_ROOM = -2;

/** A whole map of zeroes or ones, in pieces. */
class UniformMap implements MapChanges {
  readonly #size: number;
  readonly #byte: number;
  #done = 0;
  takenLength = 0;

  constructor(size: number, byte: number) {
    this.#size = size;
    this.#byte = byte;
  }

  get done(): boolean {
    return this.#done === this.#size;
  }

  takeChanges(staging: Uint8Array): number {
    if (this.done) return -1;
    const offset = this.#done;
    this.takenLength = Math.min(
      staging.length - (staging.length % METADATA_SIZE),
      this.#size - offset,
    );
    staging.fill(this.#byte, 0, this.takenLength);
    this.#done += this.takenLength;
    return offset;
  }

  changesPersisted(): void {}
}

/** Channel A: requests. */
class RequestReader implements StreamReader {
  readonly #engine: SecondaryEngine;
  /** S2. */
  constructor(engine: SecondaryEngine) {
    this.#engine = engine;
  }
  space(): Uint8Array {
    return this.#engine.requestSpace();
  }
  received(length: number): void {
    this.#engine.requestsReceived(length);
  }
  sent(): void {}
  closed(reason: string | null): void {
    this.#engine.lost(
      reason === null ? "the primary closed the connection" : `connection failed: ${reason}`,
    );
  }
}

/** Channel B: replies go out; nothing may come in. */
class ReplyWatcher implements StreamReader {
  readonly #engine: SecondaryEngine;
  readonly #space: Uint8Array = new Uint8Array(16);
  constructor(engine: SecondaryEngine) {
    this.#engine = engine;
  }
  space(): Uint8Array {
    return this.#space;
  }
  received(): void {
    this.#engine.lost("the primary sent data on the reply channel");
  }
  sent(count: number): void {
    this.#engine.repliesSent(count);
  }
  closed(reason: string | null): void {
    this.#engine.lost(
      reason === null ? "the primary closed the connection" : `connection failed: ${reason}`,
    );
  }
}

/** A refused primary has nothing to say. */
class Quiet implements StreamReader {
  space(): Uint8Array {
    return new Uint8Array(16);
  }
  received(): void {}
  sent(): void {}
  closed(): void {}
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * Runs one resource as primary: NBD clients, the peer and the disk around the core.
 *
 * A batch is everything that one event delivers. turn() ends it: the core starts what has become
 * possible, the peer gets its part first, the disk its part in one submission, clients their
 * replies in one write.
 */

import { assert } from "../base/assert.ts";
import { copyWorth, type Metadata, type Synced, stateOf } from "../metadata/block.ts";
import { EXTENT_SIZE_DEFAULT } from "../metadata/layout.ts";
import type { Clock, Timer } from "../platform/clock.ts";
import type { Disk } from "../platform/disk.ts";
import type { Entropy } from "../platform/entropy.ts";
import type { Listener, Net } from "../platform/net.ts";
import { Activemap } from "../replication/activemap.ts";
import { Primary } from "../replication/primary.ts";
import type { PeerState, PrimaryOutbox, PrimaryRecord } from "../replication/primary-io.ts";
import { type Admission, admission, type Trust } from "../replication/promotion.ts";
import {
  ERR_AGAIN,
  IO_MAX,
  type Kind,
  READ,
  SLOT_COUNT,
  SYNC,
  type ToldState,
} from "../replication/requests.ts";
import type { Lease, Wish } from "../wire/control.ts";
import { errnoText } from "../wire/errno.ts";
import { type CopyRemarks, type PrimaryLife, SPLIT_BRAIN_ERRMSG } from "../wire/handshake.ts";
import type { Hashes } from "../wire/payload.ts";
import { Arbitration } from "./arbitration.ts";
import { Component, type ComponentHandler } from "./component.ts";
import { divergenceNotes, lackingOf } from "./divergence.ts";
import { LARGE_PAYLOAD, Memory, NOBODY } from "./memory.ts";
import { type NbdBackend, NbdServer } from "./nbd-server.ts";
import { PeerLink, type PeerLinkHandler } from "./peer-link.ts";
import { doubtOf, type Peering, refusalOf, saveDiskAdvice, withAdvice } from "./peer-trouble.ts";
import { duration, extents, rate, size } from "./quantities.ts";
import { RequestFailures } from "./request-failures.ts";
import { newResourceId } from "./resource-id.ts";
import {
  type CopyFacts,
  type CopyWorth,
  type Divergence,
  EXIT_PROMOTION_REFUSED,
  type Left,
  type Orders,
  type PeerLacks,
  type Resolution,
  type WorkerEvent,
  type WorkerReport,
  type WorkerSettings,
} from "./worker-messages.ts";

const TICK_MS = 1_000;
/** How long requests may wait for the first connection attempt, unless the peer says "wait". */
const GATE_MS = 2_000;
/** How long status tells of a synchronization that has ended. */
const SYNC_REMEMBERED_MS = 3_600_000;
/** And of acknowledged writes that are gone. */
const LOSS_REMEMBERED_MS = 86_400_000;
/** Extents whose state is looked at for one BLOCK_STATUS. */
const DIRTY_EXTENTS_MAX = 65_536;
/** A ZERO piece where the peer takes ranges of any length, bytes. */
const ZERO_MAX: number = 32 * 1024 * 1024;

interface LastSync {
  readonly at: number;
  /** "to the peer, 64MB in 32 extents copied in 1.2 s" */
  readonly text: string;
}

/** What admit() waits for. */
interface Question {
  needs: Extract<Admission, { readonly kind: "ask" }>["needs"];
  deadline: Timer;
  /** The other node has said that it is primary. */
  primarySeen: boolean;
  /** It has said so on a connection of its own: that ours fail means nothing. */
  knocked: boolean;
  /** It has shown that its data is newer, or may be. */
  newer: boolean;
  /** Once a primary was seen: by chance, or in an order that both nodes know. */
  patience: "none" | "drawn" | "agreed";
  /** This node was primary last, as its metadata say. */
  readonly wasPrimary: boolean;
  /** This copy is inconsistent, and only the other node's has what it lacks. */
  readonly lacking: boolean;
  /** As they were before: an id is made up to ask, where there is none. */
  readonly before: Pick<Metadata, "resuid" | "localcnt" | "remotecnt">;
  readonly resolve: (go: boolean) => void;
}

/** What another node says that lives, and holds data of its own (wire protocol §6.5). */
const HOLDS_DATA = /unique ID mismatch|counters ran backwards|^Split-brain/;
/** Of one that lives, and may hold some. */
const MAY_HOLD_DATA = /disconnected by an operator/;

/** The world an engine lives in. */
export interface EngineEnvironment {
  readonly arena: Uint8Array;
  readonly net: Net;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly hashes: Hashes;
}

/** Whom an engine tells what happens. */
export interface EngineHost {
  event(event: WorkerEvent): void;
  /** The two copies do not fit together. */
  diverged(divergence: Divergence): void;
  /** Asks whether a resync may overwrite this node's copy. Resolves with null or why not, perhaps minutes later. */
  mayResync(): Promise<string | null>;
  /** What has become of PeerHello.invalidate. */
  invalidated(resolution: Resolution): void;
  /** The device's users must get errors, which the tools below it would keep from them. */
  deviceMisled(): void;
  /** A primary's: whose data count is decided, since its clients are served. */
  settled(): void;
  notice(text: string): void;
  warning(text: string): void;
  error(text: string): void;
  debug(level: number, text: string): void;
  /** What the arbiter is to put on record. */
  wish(wish: Wish): void;
  /** What the local copy is worth, whenever that changes. */
  copy(copy: CopyWorth): void;
  /**
   * The engine has ended; `exitCode` as in behaviour §2.1, `reason` for the log.
   * @param left what the next secondary may rely on, as long as this machine keeps its memory
   * @param peerLacks the disk has failed, and this is why the other node's copy is no substitute
   */
  ended(exitCode: number, reason: string, left: Left | null, peerLacks?: PeerLacks | null): void;
}

export class PrimaryEngine implements PrimaryOutbox, ComponentHandler, NbdBackend, PeerLinkHandler {
  #settings: WorkerSettings;
  readonly #environment: EngineEnvironment;
  readonly #host: EngineHost;
  readonly #trust: Trust;
  /** Null where no arbiter has chosen this primary. */
  readonly #arbitration: Arbitration | null;
  readonly #memory: Memory;
  readonly #component: Component;
  readonly #core: Primary;
  readonly #nbd: NbdServer;
  readonly #link: PeerLink | null;
  readonly #slotHolder: Int32Array = new Int32Array(SLOT_COUNT).fill(NOBODY);
  /** Of the export, and of the device. */
  readonly #listeners: Listener[] = [];
  #tick: Timer | null = null;
  #gate: Timer | null = null;
  /** A handshake is under way that decides whose data are served. */
  #settling = false;
  /** That is decided, and hastd knows. */
  #settled = false;
  #stopTimer: Timer | null = null;
  #breath: Timer | null = null;
  #inTurn = false;
  #events = 0;
  #ended = false;
  #stopping = false;
  /** Stopping, and the peer is not waited for any more. */
  #graceOver = false;
  /** The last step of the end. */
  #close: () => void = () => {};
  /** What a question has changed is undone once the write of the metadata that is under way has ended. */
  #undo: (() => void) | null = null;
  /** How to end once the metadata are written. */
  #lastWords: { readonly exitCode: number; readonly reason: string } | null = null;
  /** admit() waits for the other node's answer. */
  #question: Question | null = null;
  #asked = false;
  #disconnectReason: string | null = null;
  #peering: Peering;
  readonly #localFailures: RequestFailures;
  readonly #peerFailures: RequestFailures;
  /** The last synchronization that ended well, while this engine has lived. */
  #lastSync: LastSync | null = null;
  /** A device of this machine is served. */
  #hasDevice = false;
  /** When applications were last told that something acknowledged is gone, or null. */
  #lossAt: number | null = null;
  #syncSource: "from" | "to" = "to";
  /** What failed when the local component was given up, or "". */
  #disklessWhy = "";
  /** The peer's copy and ours do not fit together, and what the link said then. */
  #divergence: Divergence | null = null;
  #divergedAs = "";
  #syncAsked: ((resolution: Resolution) => void) | null = null;
  #invalidateAsked: ((resolution: Resolution) => void) | null = null;
  #orders: Orders = { connected: true, resyncPaused: false, resyncRate: 0 };
  /** Until copies may go on that are limited. */
  #pace: Timer | null = null;
  /** "Went on alone" is not put on record before the arbiter agrees: it may choose the other node instead. */
  #markHeld: Partial<Metadata> | null = null;

  /**
   * Opens the metadata and the map of `disk`.
   * @param trust "forced": leaves a mark that says so, and takes the copy for whole
   * @param lease what an arbiter has granted: nothing is answered when that has run out
   * @throws MetadataError, or Error with what could not be read
   */
  static async open(
    settings: WorkerSettings,
    disk: Disk,
    environment: EngineEnvironment,
    host: EngineHost,
    trust: Trust = "resumed",
    lease: Lease | null = null,
  ): Promise<PrimaryEngine> {
    const memory = new Memory(environment.arena);
    const component = new Component(disk, memory);
    await component.load(settings.resource, (text) => host.warning(text));
    if (trust === "forced" && overrules(component.metadata, settings)) {
      const state = stateOf(component.metadata);
      const at = Math.floor(environment.clock.wallTime() / 1000);
      host.warning(
        `Promoted by force, while this copy was ${state}: that stays on record until a synchronization has ended`,
      );
      // A mix of old and new is no point of the history that the other node knows. It may have there what it
      // lacks here, and the counters do not say so: under an id of its own neither overwrites the other.
      const stranger =
        state === "inconsistent" ? { resuid: newResourceId(environment.entropy) } : {};
      await component.storeRecord({
        state: state === "new" ? "new" : "consistent",
        prevrole: "primary",
        forced: { state, at },
        ...stranger,
      });
    }
    const onDisk = await component.loadMap();
    return new PrimaryEngine(settings, component, onDisk, memory, environment, host, trust, lease);
  }

  private constructor(
    settings: WorkerSettings,
    component: Component,
    onDisk: Uint8Array,
    memory: Memory,
    environment: EngineEnvironment,
    host: EngineHost,
    trust: Trust,
    lease: Lease | null,
  ) {
    this.#settings = settings;
    this.#trust = trust;
    this.#arbitration = lease === null ? null : new Arbitration(lease, (wish) => host.wish(wish));
    this.#environment = environment;
    this.#host = host;
    this.#memory = memory;
    this.#component = component;
    const { metadata, layout, disk } = component;
    this.#peering = {
      resource: settings.resource,
      source: settings.source,
    };
    const warn = (text: string) => host.warning(text);
    const local = `the local component ${settings.local}`;
    this.#localFailures = new RequestFailures(local, environment.clock, warn);
    this.#peerFailures = new RequestFailures("the peer's component", environment.clock, warn);
    const map = new Activemap({
      dataSize: metadata.datasize,
      extentSize: metadata.extentsize,
      keepdirty: metadata.keepdirty,
      regionSize: layout.mapSize,
      sectorSize: disk.sectorSize,
    });
    map.load(onDisk);
    this.#core = new Primary({
      mode: settings.replication,
      timeoutMs: settings.timeout * 1000,
      map,
      record: {
        resuid: metadata.resuid,
        localcnt: metadata.localcnt,
        remotecnt: metadata.remotecnt,
        state: stateOf(metadata),
        synced: metadata.synced,
        alone: metadata.aloneSince !== null,
      },
      hasRemote: settings.remote !== "none",
    });
    this.#nbd = new NbdServer(this, memory, [
      {
        name: settings.provname,
        description: `HAST resource ${settings.resource}`,
        size: metadata.datasize,
        blockMinimum: disk.sectorSize,
        blockPreferred: 4096,
        payloadMaximum: LARGE_PAYLOAD,
        // One core answers all connections, and a FLUSH covers what any of them was told.
        multiConn: true,
        contexts: ["base:allocation", "hast:dirty"],
      },
    ]);
    this.#link =
      settings.remote === "none"
        ? null
        : new PeerLink(
            {
              settings,
              core: this.#core,
              out: this,
              memory,
              net: environment.net,
              clock: environment.clock,
              entropy: environment.entropy,
              hashes: environment.hashes,
              dataSize: metadata.datasize,
              extentSize: metadata.extentsize,
              term: lease?.term ?? 0n,
            },
            this,
          );
    component.attach(this);
    memory.onFree = () => {
      this.#events++;
    };
  }

  /** For who checks invariants from outside: tests and simulation. */
  get core(): Primary {
    return this.#core;
  }

  get memory(): Memory {
    return this.#memory;
  }

  /**
   * Whether this copy may be served (replication/promotion.ts), asking the other node if need be: for one
   * connection attempt, or while it is primary itself for `timeout`, or so. Before start().
   * @returns false where the engine has ended instead
   * @throws Error with the errno of a failed write
   */
  async admit(): Promise<boolean> {
    const { metadata } = this.#component;
    const { prevrole } = metadata;
    this.#tellCopy();
    const link = this.#link;
    const verdict = admission({
      state: stateOf(metadata),
      wasPrimary: prevrole === "primary",
      unused: prevrole === "init",
      // A FreeBSD primary leaves no other trace.
      met: metadata.synced !== null || (prevrole === "secondary" && metadata.resuid !== 0n),
      // A secondary notes that its copy has been written without the other for this one reason.
      sole: prevrole === "secondary" && metadata.aloneSince !== null,
      trust: this.#trust,
      hasRemote: link !== null,
    });
    if (verdict.kind === "refuse") {
      this.#end(EXIT_PROMOTION_REFUSED, refusalOf(verdict.because, this.#peering));
      return false;
    }
    if (!(await this.#noteTerm())) return false;
    if (verdict.kind === "go" || link === null) return true;
    if (!this.#orders.connected) {
      this.#end(
        EXIT_PROMOTION_REFUSED,
        `the other node has to be asked first, and is disconnected by an operator. Here: hastctl connect ${this.#settings.resource}`,
      );
      return false;
    }
    await this.#noteUnflushed();
    if (this.#ended) return false; // stopped meanwhile
    const { clock } = this.#environment;
    this.#core.onTick(clock.now(), this);
    const { needs } = verdict;
    return await new Promise((resolve) => {
      this.#asked = true;
      this.#question = {
        needs,
        deadline: this.#deadline(needs === "no-rival" ? GATE_MS : this.#settings.timeout * 1000),
        primarySeen: false,
        knocked: false,
        newer: false,
        patience: "none",
        lacking: stateOf(metadata) === "inconsistent",
        wasPrimary: metadata.prevrole === "primary",
        before: metadata,
        resolve,
      };
      link.connect();
    });
  }

  /** For the answer to the question. */
  #deadline(ms: number): Timer {
    const seconds = Math.round(ms / 1000);
    return this.#environment.clock.after(ms, () => {
      const whose = this.#question?.newer ? " of this node's gate" : "";
      this.#answered(`no answer${whose} within ${seconds} s`);
    });
  }

  /**
   * The other node says that it is primary. It may be on its way down: the link asks again. Or it is on its way up,
   * and asks the same of us: whose patience ends first makes way for the other.
   * @param isFirst in the order that both nodes know; null where none is known
   */
  #sawPrimary(question: Question, isFirst: boolean | null): void {
    question.primarySeen = true;
    if (question.patience === "agreed" || (question.patience === "drawn" && isFirst === null))
      return;
    question.patience = isFirst === null ? "drawn" : "agreed";
    const byte = new Uint8Array(1);
    this.#environment.entropy.fill(byte);
    const chance = byte[0]! / 256;
    // A bit of chance all the same: behind address translation, each could be first.
    const share = isFirst === null ? chance : isFirst ? 1 - chance / 4 : chance / 4;
    const timeoutMs = this.#settings.timeout * 1000;
    const leastMs = question.needs === "no-rival" ? GATE_MS : timeoutMs;
    question.deadline.cancel();
    question.deadline = this.#deadline(leastMs + share * timeoutMs);
  }

  /** The other node has come as primary, while we may still ask. @see #sawPrimary() */
  meetRival(isFirst: boolean | null): void {
    const question = this.#question;
    if (question === null) return;
    question.knocked = true;
    this.#sawPrimary(question, isFirst);
  }

  /** The other node has accepted us (null), or has not, for this reason. */
  #answered(reason: string | null): void {
    const question = this.#question;
    if (question === null) return;
    this.#question = null;
    question.deadline.cancel();
    const { needs, primarySeen, wasPrimary } = question;
    // Who was primary last parts nothing that is not parted already: it served when that was found out, and goes on.
    const parts = needs !== "no-rival" || !wasPrimary;
    const objection =
      primarySeen ||
      (reason !== null &&
        ((parts && HOLDS_DATA.test(reason)) ||
          (needs !== "no-rival" && MAY_HOLD_DATA.test(reason))));
    if (reason === null || (needs !== "agreement" && !objection)) {
      if (reason !== null) this.#openGate();
      question.resolve(true);
      return;
    }
    const text = doubtOf(reason, question, this.#peering);
    this.#host.warning(`Not promoted: ${text}`);
    this.#giveUp(question, EXIT_PROMOTION_REFUSED, text);
  }

  /** Ends, and leaves the metadata as they were before the question. */
  #giveUp(question: Question, exitCode: number, reason: string): void {
    this.#question = null;
    question.deadline.cancel();
    this.#link?.stop();
    this.#lastWords = { exitCode, reason };
    question.resolve(false);
    this.#undo = () => {
      this.#undo = null;
      const { metadata } = this.#component;
      // Made up for a pair that is none: with an id of its own this copy could not join the other one. What it
      // was written before the two ever met still counts (S-18).
      const { resuid, localcnt, remotecnt } = question.before;
      const madeUp = resuid === 0n && metadata.resuid !== 0n;
      if (madeUp || metadata.unflushed === true) {
        const id = madeUp ? { resuid, localcnt, remotecnt } : {};
        this.#component.writeRecord({ ...id, unflushed: undefined }); // nor was the map written
        this.#component.disk.submit();
      } else {
        this.#end(exitCode, reason);
      }
    };
    if (!this.#core.recordPending) this.#undo();
  }

  /**
   * Before anything is served: a primary of an earlier term is refused from here on.
   * @returns false where the engine has ended instead
   * @throws Error with the errno of a failed write
   */
  async #noteTerm(): Promise<boolean> {
    if (this.#arbitration === null) return true;
    const { term } = this.#arbitration;
    const known = this.#component.metadata.term ?? 0n;
    if (known > term) {
      this.#end(
        EXIT_PROMOTION_REFUSED,
        `the arbiter's term is ${term}, and this copy has seen ${known}: the arbiter's memory has gone back in ` +
          "time. To count on from there, once you know which node has the newest data: hast-failover seed --force",
      );
      return false;
    }
    if (known < term) {
      await this.#component.storeRecord({ term });
      this.#tellCopy();
    }
    return !this.#ended;
  }

  /** Before the map is written for the first time, which follows from a connection or a request (S-21). */
  async #noteUnflushed(): Promise<void> {
    if (!this.#settings.metaflush) await this.#component.storeRecord({ unflushed: true });
  }

  get startTls(): NbdBackend["startTls"] {
    if (!this.#settings.exportTls) return null;
    const { startTls } = this.#environment.net;
    assert(startTls !== undefined);
    return startTls;
  }

  /**
   * Starts to serve.
   * @param attach another address to serve at, for a device of this machine; or null
   * @throws NetError if an NBD address cannot be bound
   */
  async start(attach: string | null = null): Promise<void> {
    const { clock, net } = this.#environment;
    this.#hasDevice = attach !== null;
    this.#core.onTick(clock.now(), this);
    this.#nbd.onTick(clock.now());
    if (!this.#asked) await this.#noteUnflushed();
    for (const address of attach === null
      ? [this.#settings.export]
      : [this.#settings.export, attach]) {
      const listener = await net.listen(
        address,
        (stream) => this.#nbd.accept(stream, address === attach ? "device" : "client"),
        (reason) => this.#host.warning(`an NBD client could not be accepted: ${reason}`),
      );
      this.#listeners.push(listener);
      if (this.#stopping) listener.close();
      if (this.#ended) return; // stopped meanwhile
      this.#host.debug(1, `NBD server listens at ${listener.address}`);
    }
    this.#scheduleTick();
    // Already on its way, or connected, where admit() has asked.
    if (!this.#orders.connected) this.#openGate();
    else if (this.#link !== null && !this.#asked) {
      this.#openGateAfter(GATE_MS);
      this.#link.connect();
    }
    this.turn();
  }

  #scheduleTick(): void {
    this.#tick = this.#environment.clock.after(TICK_MS, () => {
      this.#scheduleTick();
      const now = this.#environment.clock.now();
      this.#core.onTick(now, this);
      if (this.#graceOver) this.#core.stopWaiting(this);
      this.#nbd.onTick(now);
      this.turn();
    });
  }

  #openGateAfter(ms: number): void {
    this.#gate?.cancel();
    this.#gate = this.#environment.clock.after(ms, () => {
      this.#gate = null;
      this.#openGateUnlessSettling();
    });
  }

  /** Else attemptFailed() follows. */
  #openGateUnlessSettling(): void {
    if (!this.#isSettling) this.#openGate();
  }

  get #isSettling(): boolean {
    return this.#settling || this.#link?.awaitsLeave === true;
  }

  #openGate(): void {
    this.#gate?.cancel();
    this.#gate = null;
    this.#core.openGate(this);
    this.turn();
  }

  /** Ends a batch: see the file comment. Everything that delivers events calls it last. */
  turn(): void {
    if (this.#inTurn || this.#ended) {
      this.#events++;
      return;
    }
    this.#inTurn = true;
    let seen: number;
    do {
      seen = ++this.#events;
      this.#nbd.pump();
      this.#core.pump(this);
      if (!this.#settled && !this.#core.fresh) {
        this.#settled = true;
        this.#host.settled();
      }
      this.#releaseMark();
      this.#link?.flush();
      this.#component.disk.submit();
      if (this.#disconnectReason !== null) {
        const reason = this.#disconnectReason;
        this.#disconnectReason = null;
        this.#link?.disconnect(reason);
      }
    } while (seen !== this.#events && !this.#ended);
    this.#sendAnswers();
    this.#link?.flush();
    this.#inTurn = false;
    this.#answerInvalidate();
    this.#keepPace();
  }

  /** To the clients: what is in line for them, if it may leave. */
  #sendAnswers(): void {
    if (this.#arbitration !== null) {
      const now = this.#environment.clock.now();
      this.#nbd.holding = !this.#arbitration.allows(this.#core.holders, now);
    }
    this.#nbd.flush();
  }

  /** An arbiter's lease goes on. @see Arbitration.renew() */
  renewLease(deadlineMs: number, confirmed: number): void {
    this.#arbitration?.renew(deadlineMs, confirmed);
    this.turn();
  }

  /** Copies that are limited go on when there is credit for them. */
  #keepPace(): void {
    const { syncPauseMs } = this.#core;
    if (syncPauseMs === 0 || this.#pace !== null || this.#ended) return;
    const { clock } = this.#environment;
    this.#pace = clock.after(syncPauseMs, () => {
      this.#pace = null;
      this.#core.onSyncTime(clock.now());
      this.turn();
    });
  }

  // ---- other settings ------------------------------------------------------------------------

  /**
   * Takes over what may change while it works (config/changes.ts); the rest of `settings` is as before.
   * The connection stays, unless `remote` or `source` is another.
   */
  reconfigure(settings: WorkerSettings): void {
    if (this.#ended) return;
    const before = this.#settings;
    assert((settings.remote === "none") === (before.remote === "none"));
    // A map that may not be stable is announced in the metadata, at the start (S-21).
    assert(settings.metaflush || !before.metaflush);
    this.#settings = settings;
    this.#peering = { resource: settings.resource, source: settings.source };
    // The peer must know before the first write is acknowledged that it may never see; and, or it would not
    // answer for what it has kept, that there will be none any more (S-9).
    const told = this.#link?.toldEarly ?? null;
    const isAsync = settings.replication === "async";
    if (told !== null && told !== isAsync) {
      const now = isAsync ? "async from now on" : "not async any more";
      this.#link!.disconnect(`replication is ${now}, which the peer has to be told`);
    }
    this.#core.reconfigure(settings.replication, settings.timeout * 1000);
    const moved = settings.remote !== before.remote || settings.source !== before.source;
    if (moved) this.disconnect(`hast.conf has other addresses now: ${settings.remote}`);
    else if (settings.tlspeer !== before.tlspeer) {
      this.disconnect("hast.conf has another tlspeer now");
    }
    this.#link?.reconfigure(settings);
    this.turn();
  }

  // ---- a full copy, asked for -----------------------------------------------------------------

  /** Copies every extent to the peer, now or when there is one. @param asked called when that is on disk */
  fullSync(asked: (resolution: Resolution) => void): void {
    if (this.#leaving) {
      asked(this.#tooLate);
    } else if (this.#settings.remote === "none") {
      asked(failed("hast.conf names no other node (remote none), so there is nobody to copy to"));
    } else if (!this.#core.fullSync(this)) {
      asked(
        failed(
          "this copy is itself not whole: it is being synchronized from the other node, or its disk fails. " +
            `See: hastctl status ${this.#settings.resource}`,
        ),
      );
    } else {
      this.#syncAsked = asked;
      this.#answerSync();
    }
    this.turn();
  }

  /** The last record is written, or about to be, or the disk is closed: nothing may change any more. */
  get #leaving(): boolean {
    return this.#stopping || this.#ended || this.#lastWords !== null;
  }

  get #tooLate(): Resolution {
    const status = `hastctl status ${this.#settings.resource}`;
    return failed(`this primary is being stopped, or restarted, at this moment. See: ${status}`);
  }

  #answerSync(): void {
    if (this.#syncAsked === null || this.#core.fillPending) return;
    this.#syncAsked({
      kind: "done",
      lines: [
        "every extent is in line to be copied to the other node; blocks of zeroes travel as a few bytes " +
          `(compression hole). It survives restarts. To watch: hastctl status ${this.#settings.resource}`,
      ],
    });
    this.#syncAsked = null;
  }

  // ---- orders ---------------------------------------------------------------------------------

  /** What operators have ordered; before admit() as well. */
  obey(orders: Orders): void {
    if (this.#ended) return;
    this.#orders = orders;
    this.#core.orderSync({ held: orders.resyncPaused, rate: orders.resyncRate });
    if (!orders.connected) this.#link?.suspend("hastctl disconnect was typed on this node");
    else this.#link?.resume();
    // Before start() that is the start's business.
    if (this.#listeners.length > 0) {
      this.#link?.connect();
      if (!orders.connected) this.#openGate();
    }
    this.turn();
  }

  /** Throws this copy away, and serves the peer's. @param asked called when that is on disk, or with why not */
  invalidate(dryRun: boolean, asked: (resolution: Resolution) => void): void {
    const core = this.#core;
    const { resource, local } = this.#settings;
    const { dataSize } = core.map;
    const there = `hastctl role primary ${resource}`;
    if (this.#leaving) {
      asked(this.#tooLate);
      return;
    }
    if (core.stale && core.record.synced === "filling" && !core.diskless) {
      const left = size(core.map.resyncCount * core.map.extentSize);
      asked({
        kind: "done",
        before: true,
        lines: [`already thrown away: ${left} of ${size(dataSize)} still come from the other node`],
      });
      return;
    }
    switch (core.indispensable) {
      case "alone":
        asked(
          failed(
            "the other node is not connected, so this copy is the only one that can be served. " +
              `Why it is not: hastctl status ${resource}`,
          ),
        );
        return;
      case "peer-legacy":
        asked(
          failed(
            "the other node runs FreeBSD's hastd, which cannot serve for a primary that has no copy of its own. " +
              `Change roles first: here hastctl role secondary ${resource}, there ${there}; then here: ` +
              `hastctl role init ${resource} && hastctl create --force ${this.#sizes} ${resource} && ` +
              `hastctl role secondary ${resource}`,
          ),
        );
        return;
      case "peer-lacks":
        asked(
          failed(
            "the other node's copy is not whole: it lacks what this one has, and is being synchronized. " +
              `When that has ended, type this again; to watch: hastctl status ${resource}`,
          ),
        );
        return;
      case "disk":
        asked(
          failed(`${local} has failed and its copy is in use no more. ${this.#disklessAdvice}`),
        );
        return;
      case null:
    }
    if (dryRun) {
      asked({
        kind: "done",
        lines: [
          `to be thrown away: this node's copy, ${size(dataSize)} on ${local}`,
          `to be copied here from the other node, whose copy is whole: all of it, ${size(dataSize)}`,
          "until that has ended, applications are served from there, and cannot go on if that node goes away",
        ],
      });
      return;
    }
    if (this.#invalidateAsked !== null) {
      asked(failed(`this is under way. See: hastctl status ${resource}`));
      return;
    }
    this.#invalidateAsked = asked;
    this.#core.invalidate();
    this.turn();
  }

  #answerInvalidate(): void {
    const asked = this.#invalidateAsked;
    if (asked === null || this.#core.invalidating) return;
    this.#invalidateAsked = null;
    const { resource } = this.#settings;
    if (this.#core.indispensable === "disk") {
      const { local } = this.#settings;
      asked(
        failed(
          `${local} failed while that was put on record, and its copy is in use no more. ${this.#disklessAdvice}`,
        ),
      );
      return;
    }
    if (!this.#core.stale || this.#core.record.synced !== "filling") {
      asked(
        failed(
          "the connection was lost, or requests did not end in time: nothing was thrown away. " +
            `See: hastctl status ${resource}`,
        ),
      );
      return;
    }
    const all = size(this.#core.map.dataSize);
    this.#host.notice(`This copy is thrown away by an operator: ${all} come from the peer.`);
    asked({
      kind: "done",
      lines: [
        `this node's copy is thrown away; ${all} are copied here from the other node, which serves meanwhile. ` +
          `It survives restarts. To watch: hastctl status ${resource}`,
      ],
    });
  }

  // ---- stopping -------------------------------------------------------------------------------

  /**
   * Answers what was accepted, flushes, and ends with code 0.
   * @param graceMs after this long the peer is no longer waited for
   */
  stop(graceMs: number): void {
    if (this.#leaving) return;
    this.#stopping = true;
    if (this.#question !== null) {
      // Nothing has been accepted.
      this.#giveUp(this.#question, 0, "stopped");
      return;
    }
    for (const listener of this.#listeners) listener.close();
    if (this.#isSettling && this.#core.fresh && !this.#core.recordPending) {
      // Nor has anything been served, and it stays open whose data that would be (S-9).
      this.#link!.stop();
      this.stopped();
      this.turn();
      return;
    }
    this.#nbd.stop();
    this.#gate?.cancel();
    if (this.#link !== null && !this.#link.up) this.#link.stop();
    this.#stopTimer = this.#environment.clock.after(graceMs, () => {
      this.#host.warning(
        `the peer does not confirm within ${graceMs / 1000} s; what it may lack is on record`,
      );
      this.#graceOver = true;
      this.#link?.stop();
      this.#core.stopWaiting(this);
      this.turn();
    });
    this.#core.stop(this);
    this.turn();
  }

  stopped(): void {
    const { metadata } = this.#component;
    // A disk that has failed may lack marks that it was given without a flush.
    if (metadata.unflushed !== true || this.#core.diskless) {
      this.#end(0, "stopped");
      return;
    }
    // The map is written, and becomes stable with the metadata: it can be relied upon again (S-21).
    this.#lastWords = { exitCode: 0, reason: "stopped" };
    this.#component.writeRecord({ unflushed: undefined });
  }

  diskFailed(what: string, errno: number): void {
    const { local } = this.#settings;
    const lacks = this.#peerLacks;
    this.#host.error(
      `the local component ${local} failed: writing ${what}: ${errnoText(errno)}. ` +
        `The resource stops here so that nothing is acknowledged that is not recorded; ${this.#whyNotDiskless()}. ` +
        this.#failedDiskAdvice(lacks).join(". "),
    );
    this.#end(74, `local component failed (${errnoText(errno)})`, lacks);
  }

  get #peerLacks(): PeerLacks | null {
    if (this.#link === null || !this.#core.peerLacks) return null;
    return { since: this.#core.wentAlone ? this.#component.metadata.aloneSince : null };
  }

  #whyNotDiskless(): string {
    if (this.#link === null) return "there is no other node (remote none)";
    if (!this.#core.connected) return "without a peer there is nothing to go on over";
    if (this.#core.peerLacks)
      return "the peer does not have everything that it would have to serve";
    if (this.#core.peerKeeps) return "the peer cannot serve alone at this moment";
    return "the peer runs FreeBSD's hastd, which cannot serve alone for a primary without a disk";
  }

  /** Sentences without full stops. */
  #failedDiskAdvice(lacks: PeerLacks | null): readonly string[] {
    const { resource } = this.#settings;
    if (this.#link === null)
      return [`When the cause is gone, here: hastctl role primary ${resource}`];
    const advice =
      lacks === null
        ? [`To go on with the other node's copy, there: hastctl role primary ${resource}`]
        : saveDiskAdvice(lacks, resource);
    return [
      ...advice,
      `If the disk is replaced, here: hastctl create --force ${this.#sizes} ${resource}`,
    ];
  }

  diskless(what: string, errno: number): void {
    this.#disklessWhy = `writing ${what}: ${errnoText(errno)}`;
    // The disk may not have taken it: hastd must know in any case, should this worker die (S-1).
    this.#host.copy({ ...copyWorth(this.#component.metadata), state: "inconsistent" });
    const { local } = this.#settings;
    this.#host.error(
      `the local component ${local} failed: ${this.#disklessWhy}. The resource goes on over the ` +
        `peer alone. ${this.#disklessAdvice}`,
    );
  }

  get #disklessAdvice(): string {
    const { resource } = this.#settings;
    return (
      `To work there, here: hastctl role init ${resource}; then on the other node: ` +
      `hastctl role primary ${resource}. To come back with a new disk, first of all here: ` +
      `hastctl role init ${resource} && hastctl create --force ${this.#sizes} ${resource}`
    );
  }

  get #sizes(): string {
    const { datasize, extentsize } = this.#component.metadata;
    return `--datasize ${datasize}${extentsize === EXTENT_SIZE_DEFAULT ? "" : ` -e ${extentsize}`}`;
  }

  #end(exitCode: number, reason: string, peerLacks: PeerLacks | null = null): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#question?.deadline.cancel();
    this.#question?.resolve(false);
    this.#question = null;
    this.#tick?.cancel();
    this.#gate?.cancel();
    this.#stopTimer?.cancel();
    this.#breath?.cancel();
    this.#pace?.cancel();
    for (const listener of this.#listeners) listener.close();
    this.#sendAnswers();
    this.#nbd.destroy();
    this.#link?.stop();
    const ended = () => this.#host.ended(exitCode, reason, null, peerLacks);
    this.#close = () => this.#component.close(ended);
    this.#maybeClose();
  }

  /** A mark under way is finished first: what async has acknowledged may be here only (S-4). */
  #maybeClose(): void {
    if (this.#markHeld !== null && this.#core.owesMark) this.#writeMarkHeld();
    if (this.#core.lastRecordPending && this.#markHeld === null) this.#component.disk.submit();
    else this.#close();
  }

  // ---- PrimaryOutbox --------------------------------------------------------------------------

  localRead(slot: number): void {
    const core = this.#core;
    this.#ensureMemory(slot);
    this.#component.read(slot, core.memory[slot]!, core.length[slot]!, core.offset[slot]!);
  }

  localWrite(slot: number): void {
    const core = this.#core;
    this.#component.write(slot, core.memory[slot]!, core.length[slot]!, core.offset[slot]!);
  }

  localZero(slot: number): void {
    const core = this.#core;
    this.#component.zero(slot, core.offset[slot]!, core.length[slot]!, core.punch[slot] === 1);
  }

  localFlush(): void {
    this.#component.flush();
  }

  /** A copy brings no memory of its own. */
  #ensureMemory(slot: number): void {
    if (this.#core.kind[slot] === SYNC && this.#core.memory[slot] === -1) {
      this.#core.memory[slot] = this.#memory.takeCopy();
    }
  }

  sendRequest(slot: number, kind: Kind): void {
    this.#ensureMemory(slot);
    this.#link!.sendRequest(slot, kind);
  }

  sendFlush(seq: number): void {
    this.#link!.sendFlush(seq);
  }

  sendKeepalive(): void {
    this.#link!.sendKeepalive();
  }

  sendState(
    seq: number,
    state: ToldState,
    localcnt: bigint,
    remotecnt: bigint,
    synced: Synced | null,
  ): void {
    this.#link!.sendState(seq, state, localcnt, remotecnt, synced);
  }

  /**
   * Not to a device's users, though: nbdkit sends a FLUSH that failed again, and the next one succeeds. So nbdkit
   * hears nothing, and hastd takes the device away from under it.
   */
  lossTold(): void {
    this.#lossAt = this.#environment.clock.now();
    const { resource } = this.#settings;
    this.#host.error(
      "Writes that were acknowledged, and not flushed yet, are lost: this copy did not have them, and the peer " +
        `has lost its cache, or could not store them. ${this.#lossHeard} See: hastctl status ${resource}`,
    );
    this.#nbd.failBegun();
    if (!this.#hasDevice) return;
    this.#nbd.muteDevice();
    this.#host.deviceMisled();
  }

  get #lossHeard(): string {
    return this.#hasDevice
      ? "The device is taken from its users, who get errors, and is made anew: end them, and mount it again."
      : "Whoever flushed got an error: see what it did with that, and check its data.";
  }

  hears(slot: number): boolean {
    return this.#nbd.hears(slot);
  }

  answer(slot: number, errno: number): void {
    this.#nbd.answered(slot, errno);
  }

  release(slot: number): void {
    const holder = this.#slotHolder[slot]!;
    if (holder !== NOBODY) {
      this.#slotHolder[slot] = NOBODY;
      this.#memory.letGo(holder);
    } else if (this.#core.kind[slot] === SYNC && this.#core.memory[slot] !== -1) {
      this.#memory.returnCopy(this.#core.memory[slot]!);
    }
    this.#events++;
  }

  writeMap(): void {
    this.#component.writeMap(this.#core.map, this.#settings.metaflush);
  }

  writeRecord({ alone, ...record }: PrimaryRecord): void {
    const { aloneSince: before } = this.#component.metadata;
    const aloneSince = alone ? (before ?? Math.floor(this.#environment.clock.wallTime())) : null;
    // A copy that was promoted by force turns "uptodate" only at the end of a synchronization.
    const settled = record.state === "uptodate" ? { forced: undefined } : {};
    const changes = { ...record, ...settled, aloneSince, prevrole: "primary" } as const;
    const agreed = !alone || before !== null || this.#arbitration?.agrees("local") !== false;
    if (agreed) this.#component.writeRecord(changes);
    else this.#markHeld = changes;
  }

  /** The arbiter may have agreed by now. */
  #releaseMark(): void {
    if (this.#markHeld === null) return;
    if (this.#arbitration!.agrees("local")) {
      this.#writeMarkHeld();
    } else if (this.#stopping) {
      // What async has answered is on record, whatever the arbiter says: two histories are to be found out (S-4).
      if (this.#core.owesMark) this.#writeMarkHeld();
      // Else what waits for the mark was never answered, and never will be.
      else this.#end(0, "stopped, without the arbiter's leave to go on alone");
    }
  }

  #writeMarkHeld(): void {
    this.#component.writeRecord(this.#markHeld!);
    this.#markHeld = null;
    this.#events++;
  }

  #tellCopy(): void {
    const { metadata } = this.#component;
    // A disk that has failed does not say itself what it is worth.
    const worth = copyWorth(metadata);
    this.#host.copy(this.#core.diskless ? { ...worth, state: "inconsistent" } : worth);
  }

  /** At the end of the batch, so that nothing is torn down under the core's feet. */
  disconnect(reason: string): void {
    this.#disconnectReason = reason;
    this.#events++;
  }

  event(event: WorkerEvent): void {
    if (event === "syncstart") {
      const { resyncCount, extentSize } = this.#core.map;
      this.#syncSource = this.#core.stale ? "from" : "to";
      this.#host.notice(
        `Synchronization started ${this.#syncSource} the peer: ` +
          `${size(resyncCount * extentSize)} in ${extents(resyncCount)}.`,
      );
    } else if (event === "syncdone") {
      const { syncCopied, syncExtents, syncStartedAt } = this.#core.statistics;
      const now = this.#environment.clock.now();
      const figures = `${size(syncCopied)} in ${extents(syncExtents)} copied in ${duration(now - syncStartedAt)}`;
      this.#lastSync = { at: now, text: `${this.#syncSource} the peer, ${figures}` };
      this.#host.notice(`Synchronization complete: ${figures}.`);
    } else if (event === "syncintr") {
      this.#host.warning("Synchronization interrupted; it goes on when the peer is back.");
    }
    this.#host.event(event);
  }

  notice(text: string): void {
    this.#host.notice(text);
  }

  debug(level: number, text: string): void {
    this.#host.debug(level, text);
  }

  // ---- ComponentHandler -----------------------------------------------------------------------

  slotDone(slot: number, errno: number): void {
    this.#events++;
    if (this.#ended) return;
    if (errno !== 0) this.#localFailures.failed(this.#deed(slot, "local"), errno);
    this.#core.localDone(slot, errno, this);
  }

  /** What a slot's request was about to do on one of the nodes. */
  #deed(slot: number, where: "local" | "peer"): string {
    if (slot >= SLOT_COUNT) return "flushing";
    switch (this.#core.kind[slot]) {
      case READ:
        return "reading";
      case SYNC:
        // A copy reads on one node, then writes on the other.
        return (where === "peer") === this.#core.copiesFromPeer(slot)
          ? "reading a copy"
          : "writing a copy";
      default:
        return "writing";
    }
  }

  recordWritten(errno: number): void {
    this.#events++;
    if (this.#ended) {
      this.#core.recordWritten(errno, this);
      this.#maybeClose();
      return;
    }
    if (this.#undo !== null) {
      this.#undo();
      return;
    }
    if (this.#lastWords !== null) {
      this.#end(this.#lastWords.exitCode, this.#lastWords.reason);
      return;
    }
    if (errno === 0) this.#tellCopy();
    this.#core.recordWritten(errno, this);
    this.#answerSync();
    this.#link?.metadataIdle();
  }

  mapWritten(errno: number): void {
    this.#events++;
    if (!this.#ended) this.#core.mapWritten(errno, this);
  }

  flushed(errno: number): void {
    this.#events++;
    if (!this.#ended) this.#core.localFlushed(errno, this);
  }

  batchEnd(): void {
    this.turn();
  }

  // ---- NbdBackend -----------------------------------------------------------------------------

  get room(): number {
    return this.#ended ? 0 : this.#core.room;
  }

  get zeroMax(): number {
    return this.#core.connected && !this.#core.peerZeroes ? IO_MAX : ZERO_MAX;
  }

  submit(
    kind: Kind,
    offset: number,
    length: number,
    memory: number,
    holder: number,
    punch: boolean,
  ): number {
    const slot = this.#core.submit(kind, offset, length, memory, punch, this);
    if (holder !== NOBODY) this.#memory.hold(holder);
    this.#slotHolder[slot] = holder;
    this.#events++;
    return slot;
  }

  allocation(
    offset: number,
    length: number,
    maxRanges: number,
    each: (length: number, hole: boolean) => void,
  ): number {
    const { localoff } = this.#component.layout;
    if (this.#core.stale) {
      each(length, false); // part of the data is at the peer only
      return length;
    }
    return this.#component.disk.allocation(localoff + offset, length, maxRanges, each);
  }

  breathe(): void {
    if (this.#ended) return;
    this.#breath = this.#environment.clock.after(0, () => this.#nbd.breathed());
  }

  get dirtySpan(): number {
    return DIRTY_EXTENTS_MAX * this.#core.map.extentSize;
  }

  dirtyRun(offset: number, length: number): number {
    return this.#core.map.uniformLength(offset, length);
  }

  isDirty(offset: number): boolean {
    return this.#core.map.awaitsResync(offset, 1);
  }

  // ---- PeerLinkHandler ------------------------------------------------------------------------

  mayResync(): Promise<string | null> {
    const question = this.#question;
    if (question !== null) {
      // The other node lives, and holds what this copy lacks, or may: nothing is served without that (S-2).
      question.newer = true;
      question.needs = "agreement";
    }
    return this.#host.mayResync();
  }

  reached(): void {
    // It will say whether it is primary, however busy it is. Only of a dead machine nothing is heard.
    if (this.#question?.patience === "none") this.#extend(this.#question);
    // It may have kept what our power cut has lost, and gives that to a primary only that has served nothing (S-9).
    if (this.life().fresh) this.#settling = true;
  }

  begun(): void {
    const question = this.#question;
    if (question === null) return;
    // No rival; and it may have gone on without us, so its counters are worth as much patience as a doubt.
    question.primarySeen = question.knocked = false;
    this.#extend(question);
  }

  #extend(question: Question): void {
    if (question.needs !== "no-rival") return;
    question.deadline.cancel();
    question.deadline = this.#deadline(this.#settings.timeout * 1000);
  }

  accepted(peer: PeerState): void {
    this.#divergence = null;
    this.#settling = false;
    this.#gate?.cancel();
    this.#gate = null;
    // Before the connection is put in use: a pass may start in linkUp() (behaviour §11).
    this.#host.notice(`Connected to ${this.#settings.remote}.`);
    this.#host.event("connect");
    if (peer.source === "secondary" && peer.localcnt === this.#core.record.remotecnt) {
      this.#host.notice(
        "The peer has everything that was acknowledged, and this node may have lost what was not flushed: " +
          "what either map marks is copied from there.",
      );
    }
    this.#core.linkUp(peer, this);
    this.#answered(null);
  }

  attemptFailed(reason: string, wait: boolean, repeated: boolean): void {
    if (repeated) this.#host.debug(1, reason);
    else {
      // A split-brain is told with what to do: diverged() follows.
      const text = reason === SPLIT_BRAIN_ERRMSG ? reason : withAdvice(reason, this.#peering);
      this.#host.warning(`Not connected to ${this.#settings.remote}: ${text}`);
    }
    this.#settling = false;
    const question = this.#question;
    if (question !== null) {
      if (wait) this.#sawPrimary(question, null);
      else {
        // A rival that has gone is none.
        if (question.needs === "no-rival") question.primarySeen = question.knocked;
        this.#answered(reason);
      }
      return;
    }
    if (!wait || (repeated && this.#gate === null)) {
      this.#openGateUnlessSettling();
    } else if (!repeated) {
      // The other node is on its way down, perhaps: hold requests for as long as a peer may take.
      this.#openGateAfter(this.#settings.timeout * 1000);
    }
  }

  diverged(splitBrain: boolean, reason: string | null, peer: CopyFacts): void {
    const before = this.#divergence;
    const { datasize, extentsize } = this.#component.metadata;
    this.#divergence = {
      splitBrain,
      reason: reason ?? reasonOf(this.#link!.lastFailure),
      extentSize: extentsize,
      dataSize: datasize,
      own: this.#ownFacts(),
      peer,
      refusal: null,
    };
    this.#divergedAs = this.#link!.lastFailure;
    this.#host.diverged(this.#divergence);
    // Once, and not at every attempt (BD-34). Of the rest, attemptFailed() has told.
    if (!splitBrain || before?.splitBrain) return;
    this.#host.error(divergenceNotes(this.#divergence, this.#settings.resource).join(". "));
    this.#host.event("split-brain");
  }

  #ownFacts(): CopyFacts {
    const { resuid, localcnt, remotecnt } = this.#core.record;
    return { resuid, localcnt, remotecnt, remarks: this.remarks() };
  }

  life(): PrimaryLife {
    // A hastd that was there all the time answers for this machine's cache; an operator, by force, for the copy.
    const anew = this.#trust === "unknown" || this.#trust.endsWith(" anew");
    const fresh = this.#core.fresh && anew;
    return { fresh, early: this.#settings.replication === "async" };
  }

  remarks(): CopyRemarks {
    const { record, map } = this.#core;
    const { aloneSince } = this.#component.metadata;
    const lacking = lackingOf(record.state);
    return { dirtyExtents: map.resyncCount, synced: record.synced, aloneSince, lacking };
  }

  lost(reason: string): void {
    if (this.#ended) return; // nothing that follows could be put on disk any more
    this.#core.linkDown(this);
    if (this.#stopping) return;
    this.#host.warning(`Disconnected from ${this.#settings.remote}: ${reason}`);
    this.#host.event("disconnect");
  }

  requestFailed(slot: number, errno: number): void {
    if (errno === ERR_AGAIN) return; // it has told of what failed
    this.#peerFailures.failed(this.#deed(slot, "peer"), errno);
  }

  // ---- status ---------------------------------------------------------------------------------

  report(): WorkerReport {
    const core = this.#core;
    const { statistics } = core;
    const queues = core.queues();
    return {
      status: core.connected && !core.diskless ? "complete" : "degraded",
      dirty: core.map.dirtyBytes,
      extentsize: core.map.extentSize,
      keepdirty: core.map.keepdirty,
      reads: statistics.reads,
      writes: statistics.writes,
      deletes: statistics.deletes,
      flushes: statistics.flushes,
      activemapUpdates: statistics.activemapUpdates,
      readErrors: statistics.readErrors,
      writeErrors: statistics.writeErrors,
      deleteErrors: statistics.deleteErrors,
      flushErrors: statistics.flushErrors,
      idleQueue: queues.idle,
      localQueue: queues.local,
      sendQueue: queues.send,
      recvQueue: queues.recv,
      doneQueue: queues.done,
      connected: core.connected,
      bound: core.stale || core.diskless,
      silentMs: 0,
      notes: this.#notes(),
    };
  }

  #notes(): string[] {
    const core = this.#core;
    const notes: string[] = [];
    if (core.diskless) {
      notes.push(
        `diskless: ${this.#settings.local} failed (${this.#disklessWhy}), and every request goes to ` +
          `the peer. ${this.#disklessAdvice}`,
      );
    }
    if (core.connected && core.resyncing && core.map.resyncCount > 0) {
      const { syncCopied, syncStartedAt } = core.statistics;
      const left = core.map.resyncCount * core.map.extentSize;
      const seconds = Math.max(0.001, (this.#environment.clock.now() - syncStartedAt) / 1000);
      const speed = syncCopied / seconds;
      const eta = speed > 0 ? `, about ${duration((left / speed) * 1000)} to go` : "";
      const { resyncRate } = this.#orders;
      const limit =
        resyncRate > 0 ? ` (limited to ${rate(resyncRate)} by hastctl resync-rate)` : "";
      const figures = `${size(syncCopied)} copied, ${size(left)} left`;
      notes.push(
        core.syncHeld
          ? `synchronization ${core.stale ? "from" : "to"} the peer is paused: ${figures}. To go on, ` +
              `here: hastctl resume-resync ${this.#settings.resource}`
          : `synchronizing ${core.stale ? "from" : "to"} the peer: ${figures}, ${rate(speed)}${limit}${eta}`,
      );
      if (core.stale) {
        notes.push(
          "this copy is not complete: what it lacks is read from the peer, and nothing goes on without it",
        );
      }
    } else if (!core.connected && this.#link !== null && this.#orders.connected) {
      const { lastFailure, patienceMs } = this.#link;
      if (this.#divergence !== null) {
        const now = { ...this.#divergence, own: this.#ownFacts() };
        notes.push(...divergenceNotes(now, this.#settings.resource));
      }
      const again = patienceMs === 0 ? "" : `. It is tried again every ${patienceMs / 1000} s`;
      if (this.#divergence === null || lastFailure !== this.#divergedAs) {
        notes.push(
          lastFailure === ""
            ? `connecting to ${this.#settings.remote}`
            : `not connected: ${withAdvice(lastFailure, this.#peering)}${again}`,
        );
      }
      if (core.stale) {
        notes.push(
          core.diskless
            ? `${core.waitingForPeer} requests wait for the peer, the only copy; start hastd there and make it secondary`
            : `this copy is not complete: ${core.waitingForPeer} requests wait for the peer; start hastd there and make it secondary`,
        );
      }
    }
    const last = this.#lastSync;
    const sinceMs = last === null ? 0 : this.#environment.clock.now() - last.at;
    if (last !== null && core.connected && !core.resyncing && sinceMs <= SYNC_REMEMBERED_MS) {
      notes.push(`synchronized ${last.text}, ${duration(sinceMs)} ago`);
    }
    if (core.connected && core.record.synced !== "all" && core.record.synced !== "filling") {
      notes.push(
        "areas that were never written have not been compared and may differ between the nodes; " +
          `to make them equal: hastctl sync --full ${this.#settings.resource}`,
      );
    }
    const lossMs = this.#lossAt === null ? 0 : this.#environment.clock.now() - this.#lossAt;
    if (this.#lossAt !== null && lossMs <= LOSS_REMEMBERED_MS) {
      notes.push(
        `writes that were acknowledged, and not flushed yet, were lost ${duration(lossMs)} ago, with the peer's ` +
          `cache. ${this.#lossHeard.replace(/\.$/, "")}`,
      );
    }
    for (const { note } of [this.#localFailures, this.#peerFailures]) {
      if (note !== null) notes.push(note);
    }
    if (core.connected && core.peerCannotFlush) {
      notes.push("the peer's device cannot flush: what it has written counts as stable");
    }
    return notes;
  }
}

/** Does --force overrule anything? Without a remote nobody would ever take back that it did. */
function overrules({ state }: Metadata, { remote }: WorkerSettings): boolean {
  return remote !== "none" || state === "outdated" || state === "inconsistent";
}

/** In our words what a secondary says in the original's; without a full stop. */
function reasonOf(errmsg: string): string {
  return errmsg === SPLIT_BRAIN_ERRMSG
    ? "both nodes took writes while they were apart"
    : errmsg.replace(/\.$/, "");
}

function failed(reason: string): Resolution {
  return { kind: "failed", reason };
}

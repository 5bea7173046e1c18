// SPDX-License-Identifier: BSD-2-Clause
/**
 * One resource in the main daemon: its role, its worker, and what operators order.
 *
 *   init ──► primary     a worker at once, and again when it dies of a signal or of code 75
 *   init ──► secondary   no worker, until a primary has made both connections
 *
 *   P1 on A ─► the old worker stops ─► S1, half-open (20 s) ─► P2 on B ─► worker gets A and B
 *
 * Role changes of one resource happen one after the other; nothing here waits without a deadline.
 * It asks and tells its parts, of which each has one subject: worker.ts, handshake.ts (A and B), lease.ts (an
 * arbiter's), known-divergence.ts, hooks.ts, attach/attachment.ts (its device). What they need to know of each
 * other passes through here.
 * Source: FreeBSD sbin/hastd/hastd.c, control.c; behaviour §2.2, §3; wire protocol §6.3.
 */

import {
  Attachment,
  type AttachmentOwner,
  type AttachmentParts,
  RENEW_DELAY_MS,
  type Wanted,
} from "../attach/attachment.ts";
import { assert, unreachable } from "../base/assert.ts";
import { divergenceNotes } from "../engine/divergence.ts";
import { OTHER_IS_PRIMARY, saveDiskAdvice } from "../engine/peer-trouble.ts";
import { rate as speed } from "../engine/quantities.ts";
import {
  type CopyState,
  type CopyWorth,
  type Divergence,
  EXIT_PROMOTION_REFUSED,
  type Left,
  type Orders,
  type PeerHello,
  type PeerLacks,
  type Resolution,
  type Trust,
  type WorkerEvent,
  type WorkerSettings,
} from "../engine/worker-messages.ts";
import type { Clock, Timer } from "../platform/clock.ts";
import type { Entropy } from "../platform/entropy.ts";
import type { HandshakeSocket } from "../platform/handshake-socket.ts";
import type { Log, LogDestination } from "../platform/log.ts";
import type { Processes } from "../platform/process.ts";
import { isTls, remoteHost } from "../wire/address.ts";
import type {
  Lease,
  LeaseEntry,
  Order,
  ResourceStatus,
  Role,
  StatusEntry,
  Wish,
} from "../wire/control.ts";
import { encodeS1, encodeS2, type P1, type P2, type Refusal } from "../wire/handshake.ts";
import { HALF_OPEN_TIMEOUT_MS, Handshake, refuse, roleRefusal } from "./handshake.ts";
import { type HookParts, Hooks } from "./hooks.ts";
import { KnownDivergence } from "./known-divergence.ts";
import { LeaseHolder } from "./lease.ts";
import { describeEnd, Worker, type WorkerEnd, type WorkerOwner } from "./worker.ts";

/** How long a worker may take to finish what it accepted, in a role change or for a new connection. */
export const STOP_GRACE_MS = 30_000;
/** How long a new worker may take to open its disk, and to listen (primary) or to answer (secondary). */
export const READY_TIMEOUT_MS = 60_000;
/** How long a local component may take to be read when a resource becomes secondary. */
export const PROBE_TIMEOUT_MS = 20_000;
/** Pause before a dead primary worker is started again; doubles while it keeps dying. */
export const RESTART_DELAY_MIN_MS = 1000;
export const RESTART_DELAY_MAX_MS = 10_000;
/** A worker that lived this long did not die of its start. */
export const RESTART_FORGIVEN_MS = 60_000;
/** A worker that has not answered so many questions in a row, some 6 s apart, is killed. */
export const SILENT_ROUNDS_MAX = 10;
const EX_OK = 0;
/** A worker that dies of this exit code is started again: lost contact, no memory. */
const EX_TEMPFAIL = 75;
/** Its disk, or what is on it, cannot be used; or a flush of what was written before has failed. */
const EX_NOINPUT = 66;
/** Its disk failed: what was written, and not flushed before, may be missing there. */
const EX_IOERR = 74;

/** A primary that has been silent for so long is not alive (keepalives come every 10 s). */
const PRIMARY_SILENCE_MS = 12_000;
/** How long a primary may take to close its connection when both nodes change roles at once. */
const PRIMARY_LEAVES_MS = 3_000;
const PRIMARY_POLL_MS = 100;

const STOPPING = "hastd is stopping.";
/** What the primary says of it is in engine/peer-trouble.ts. */
const DISCONNECTED = "Remote node was disconnected by an operator.";

export interface ResourceSurroundings {
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly processes: Processes;
  readonly probe: (settings: WorkerSettings) => Promise<Probed>;
  /** Where log lines of this resource go; its prefix is replaced as the role changes. */
  readonly log: Log;
  readonly workerLog: LogDestination;
  /** Where events of workers go: connect, disconnect, … */
  readonly event: (resource: Resource, event: WorkerEvent) => void;
  readonly hooks: HookParts;
  readonly devices: Pick<AttachmentParts, "system" | "directory">;
}

/** What reading a local component's metadata gave: the worth of its copy, or why it cannot be used. */
export type Probed =
  | { readonly kind: "usable"; readonly copy: CopyWorth }
  | { readonly kind: "unusable"; readonly reason: string };

export type RoleChange =
  | { readonly kind: "done"; readonly previousRole: Role }
  /**
   * The role asked for does not work. It is now init, or as before: where the rules forbid another one, and of a
   * secondary that could not be promoted. Or it is as asked, and the way there cost something.
   */
  | { readonly kind: "failed"; readonly previousRole: Role; readonly reason: string };

export class Resource implements WorkerOwner, AttachmentOwner {
  #settings: WorkerSettings;
  readonly #surroundings: ResourceSurroundings;
  readonly #hooks: Hooks;
  readonly #attachment: Attachment;
  /** Where the primary's workers serve the device, for as long as the role lasts. */
  #attachSocket: string | null = null;
  #log: Log;
  #role: Role = "init";
  /** Where a role change under way leads. */
  #target: Role | null = null;
  #worker: Worker | null = null;
  /** What status says about how we got here, and, in a line of its own, what to type. */
  #note: string | null = null;
  /** What the last primary's end cost: for status, whatever the role, until a worker has begun again. */
  #loss: string | null = null;
  /** What a primary whose disk failed said last, until a worker has begun again. */
  #peerLacks: PeerLacks | null = null;
  /** As the metadata said last; null before anybody read them. */
  #copy: CopyWorth | null = null;
  /**
   * This hastd was there when the copy was last complete: as its primary, or as secondary until the link
   * was lost, and not in role init since. Another one, started since, does not know what it has missed (S-2).
   */
  #vouched = false;
  /**
   * Nobody has heard how the disk's last flush went: a primary's worker did not answer and was killed, or was told
   * to go before its first flush had ended; or that was before our time. The next flush succeeds in any case, so
   * until a primary has served its clients, what its peer has kept since counts, where it differs (S-9).
   */
  #flushUnheard = false;
  /** What the last worker of a secondary left to the next one (S-9). */
  #left: Left | null = null;
  readonly #divergence: KnownDivergence;
  readonly #handshake: Handshake;
  #restart: Timer | null = null;
  #restartDelayMs = RESTART_DELAY_MIN_MS;
  /** Questions of watch() in a row that the worker has not answered. */
  #silentRounds = 0;
  #stopping = false;
  /** What operators have ordered. */
  #orders: Orders = { connected: true, resyncPaused: false, resyncRate: 0 };
  /** When the nodes were disconnected by an operator, in ms since the Unix epoch. */
  #disconnectedAt = 0;
  /** The next worker of a secondary throws this copy away, and this hears of it. */
  #invalidation: ((resolution: Resolution) => void) | null = null;
  /** This node, as holder of an arbiter's lease. */
  readonly #holder: LeaseHolder;
  /** hastd itself is about to take the role away. */
  #deposing = false;
  /** Events raised while a role is being entered, for its hooks. */
  readonly #heldEvents: WorkerEvent[] = [];
  /** Resolves when every role change asked for so far has ended. */
  #changes: Promise<unknown> = Promise.resolve();

  constructor(settings: WorkerSettings, surroundings: ResourceSurroundings) {
    this.#settings = settings;
    this.#surroundings = surroundings;
    this.#log = surroundings.log;
    this.#holder = new LeaseHolder(surroundings.clock, (why) => this.#deposed(why));
    this.#divergence = new KnownDivergence(surroundings.clock);
    this.#handshake = new Handshake(this, surroundings.clock, surroundings.entropy);
    this.#hooks = new Hooks(this, surroundings.clock, surroundings.hooks);
    this.#attachment = new Attachment(this, surroundings.clock, {
      ...surroundings.devices,
      programs: surroundings.hooks.programs,
      entropy: surroundings.entropy,
    });
    this.#setRole("init");
    // What an earlier hastd left is gone before anybody can have a role. What cannot be cleared now stands
    // in the way of a promotion, which says so.
    this.#changes = this.#attachment.clearLeftovers(settings.provname);
  }

  get settings(): WorkerSettings {
    return this.#settings;
  }

  get name(): string {
    return this.#settings.resource;
  }

  get role(): Role {
    return this.#role;
  }

  /**
   * What a peer that wants to connect is told. A node on its way to or from primary counts as
   * primary, since then the peer keeps waiting for it.
   */
  get announcedRole(): Role {
    if (this.#target === null) return this.#role;
    if (this.#role === "primary" || this.#target === "primary") return "primary";
    return "init";
  }

  get log(): Log {
    return this.#log;
  }

  /** What a peer is told that may not connect, since an operator wants it so; else null. */
  get disconnection(): Refusal | null {
    return this.#orders.connected ? null : refuse(DISCONNECTED);
  }

  /** Who uses the primary's device, for people; or null. */
  get held(): string | null {
    return this.#attachment.held();
  }

  // --- Roles.

  /**
   * Resolves when the role works, or with the reason why not.
   * @param how "by force": to primary, an operator knows that this copy is the one to serve, whatever the
   *   rules say; from primary, the device is detached although it is used
   * @param lease to primary, an arbiter has chosen this node
   */
  async changeRole(
    wanted: Role,
    how: "by the rules" | "by force" = "by the rules",
    lease: Lease | null = null,
  ): Promise<RoleChange> {
    const change = this.#changes.then(() => this.#changeRole(wanted, how === "by force", lease));
    // A failure is this caller's to hear; the next change only waits for the end.
    this.#changes = change.catch(() => undefined);
    return await change;
  }

  /**
   * Other settings, as a reload brings them, when the role changes asked for so far have ended.
   *
   * @param wayFor what the role of that moment makes of it; null = nothing differs
   * @param swapped called at the moment when the new settings count: hooks after it are the new ones
   * @returns the way it went, and why the role could not be given back, or null
   */
  async reconfigure<Way extends { readonly kind: string }>(
    settings: WorkerSettings,
    wayFor: (role: Role) => Way | null,
    swapped: () => void,
  ): Promise<{ readonly role: Role; readonly way: Way | null; readonly failure: string | null }> {
    const done = this.#changes.then(async () => {
      const role = this.#role;
      const way = wayFor(role);
      const swap = () => {
        this.#settings = settings;
        swapped();
      };
      if (way?.kind === "restarted" && role !== "init") {
        return { role, way, failure: await this.#restartRole(role, swap) };
      }
      swap();
      const worker = this.#worker;
      if (way !== null && worker?.wanted && worker.identity.role === "primary") {
        worker.configure(settings);
      }
      return { role, way, failure: null };
    });
    this.#changes = done.catch(() => undefined);
    return await done;
  }

  /** Role init, the new settings, and the role again: no promotion, so no gate is asked. */
  async #restartRole(role: "primary" | "secondary", swap: () => void): Promise<string | null> {
    if (this.#stopping) return STOPPING;
    this.#log.info("Restarting, for settings that cannot change while it works.");
    // The reload has looked: whoever uses it has come just now.
    await this.#attachment.detach("by force");
    this.#target = role;
    this.#cancelRestart();
    // Whoever is connected, or about to be, is sent away, and may go on alone.
    const unheard = this.#worker === null && this.#handshake.attempt === null;
    this.#handshake.refuse(roleRefusal(this.announcedRole));
    let failure: string | Refused | null;
    try {
      const worker = this.#worker;
      failure = (await this.#retireWorker()) ?? this.#lossOf(worker);
      const left = this.#left;
      const vouched = this.#vouched;
      const orders = this.#orders;
      const { lease } = this.#holder;
      const { local } = this.#settings;
      failure ??= await this.#enterRole("init", false);
      this.#setRole("init");
      this.#hooks.roleChanged(role, "init");
      swap();
      this.#orders = orders;
      // A primary has heard all there was to hear of its copy, and its peer may be away; a secondary whose
      // primary is away has heard nothing new (S-2).
      const asBefore = role === "primary" || unheard;
      if (asBefore && local === this.#settings.local) this.#vouched = vouched;
      if (failure === null) failure = await this.#enterRole(role, false, lease, "resumed");
      // The same disk, and nobody else has had it: what is known of its cache still is (S-9).
      const known = failure === null && role === "secondary" && local === this.#settings.local;
      if (known && this.#worker === null) this.#left = left;
    } finally {
      this.#target = null;
    }
    if (failure === null) {
      this.#note = null;
      this.#hooks.roleChanged("init", role);
      return null;
    }
    const reason = typeof failure === "string" ? failure : failure.refusal;
    this.#setRole("init");
    this.#sayError(
      `After a reload the role ${role} could not be taken again, and is now init: ${sentence(reason)}`,
      ...(role === "primary"
        ? this.#wayBack()
        : [`When the cause is gone, here: hastctl role ${role} ${this.name}`]),
    );
    return reason;
  }

  async #changeRole(wanted: Role, forced: boolean, lease: Lease | null): Promise<RoleChange> {
    const previousRole = this.#role;
    if (this.#stopping) return { kind: "failed", previousRole, reason: STOPPING };
    if (wanted === previousRole) return await this.#keepRole(wanted, forced, lease);

    this.#log.debug(1, `Role changes from ${previousRole} to ${wanted}.`);
    if (wanted === "primary" && !forced) {
      const reason =
        this.#holder.refusal(this.settings, lease) ??
        (await this.#promotionRefusal(lease !== null));
      if (reason !== null) {
        this.#log.error(`Role primary refused: ${reason}`);
        return { kind: "failed", previousRole, reason };
      }
    }
    const without = await this.#giveUpDevice(wanted, forced);
    if (without !== null) {
      this.#log.error(`Role ${wanted} refused: ${without}`);
      return { kind: "failed", previousRole, reason: without };
    }
    if (wanted === "primary" && forced) this.#sayForced();
    this.#target = wanted;
    this.#cancelRestart();
    this.#handshake.refuse(roleRefusal(this.announcedRole));
    const orders = this.#orders;
    this.#forgetOrders();
    let failure: string | Refused | null;
    try {
      failure = await this.#enterRole(wanted, forced, lease);
    } finally {
      this.#target = null;
    }
    if (failure === null) {
      this.#note = this.#loss;
      this.#log.info(`Role changed from ${previousRole} to ${wanted}.`);
      this.#hooks.roleChanged(previousRole, wanted);
      for (const event of this.#heldEvents.splice(0)) this.#hooks.workerEvent(event);
      return { kind: "done", previousRole };
    }
    const reason = typeof failure === "string" ? failure : failure.refusal;
    // A secondary that a trifle keeps from promotion, an address in use, say, is needed all the same when that is
    // gone; in role init it would be deaf, and would know nothing of its copy any more. By force, though, it has
    // become another copy than the primary's.
    const stays = wanted === "primary" && previousRole === "secondary" && !forced;
    const back = typeof failure !== "string" || (stays && this.#worker === null);
    const role = back ? previousRole : "init";
    // Where nothing was begun, what the last worker left is still so.
    if (role !== this.#role) this.#setRole(role);
    if (role === previousRole) this.#orders = orders;
    if (role === wanted) {
      this.#sayError(sentence(`the role is ${role}, but ${reason}`));
    } else {
      this.#log.error(
        `Role ${wanted} refused; the role is ${role === previousRole ? "still" : "now"} ${role}: ${reason}`,
      );
      this.#note = `Role ${wanted} was refused: ${sentence(reason)}`;
    }
    if (role !== previousRole) this.#hooks.roleChanged(previousRole, role);
    // A connection that came and went with the attempt is no news; a split-brain is.
    for (const event of this.#heldEvents.splice(0)) {
      if (event === "split-brain") this.#hooks.workerEvent(event);
    }
    return { kind: "failed", previousRole, reason };
  }

  #sayForced(): void {
    this.#log.warning(
      "Role primary is forced by an operator: nothing is asked, of this copy or of the other node.",
    );
  }

  /**
   * Why this node must not become primary, or null. The role stays as it is.
   * @param granted an arbiter has chosen it, and tells the other one so
   */
  async #promotionRefusal(granted: boolean): Promise<string | null> {
    const alive =
      `the primary at ${this.settings.remote} is connected and alive, so this node stays secondary. ` +
      `Demote that one first; there: hastctl role secondary ${this.name}`;
    if (!granted && (await this.#hasLivePrimary())) return alive;
    if (!this.#hooks.hasGate) return null;
    const refusal = await this.#hooks.mayPromote(this.#role);
    if (refusal !== null) {
      return `${refusal}. When it would agree: hastctl role primary ${this.name}`;
    }
    // The gate may have taken long enough for the other node to come back.
    return !granted && (await this.#hasLivePrimary()) ? alive : null;
  }

  /**
   * Is a primary connected that says something while we wait? Two primaries are a split-brain in
   * the making (S-11). One whose machine has died says nothing, although its connection may look
   * sound: a primary with nothing to do sends a keepalive every 10 s.
   */
  async #hasLivePrimary(): Promise<boolean> {
    const { clock } = this.#surroundings;
    const askedAt = clock.now();
    for (;;) {
      const worker = this.#worker;
      const { attempt } = this.#handshake;
      if (this.#stopping) return false;
      // While a primary connects, its old worker says nothing of it: the P1 in hand does.
      if (attempt === null && worker?.identity.role !== "secondary") return false;
      // One that opens its disk does not answer yet.
      const report = attempt === null && worker!.ready ? await worker!.report() : null;
      const now = clock.now();
      const waitedMs = now - askedAt;
      const silentMs = attempt === null ? report?.silentMs : now - attempt.at;
      if (silentMs !== undefined) {
        // It may be on its way down at this very moment, as in a planned switch-over.
        if (silentMs < waitedMs && waitedMs >= PRIMARY_LEAVES_MS) return true;
        if (silentMs >= PRIMARY_SILENCE_MS) return false;
      }
      if (waitedMs >= PRIMARY_SILENCE_MS) return false;
      await new Promise<void>((resolve) => {
        clock.after(PRIMARY_POLL_MS, resolve);
      });
    }
  }

  /** Before the role is left: the device goes while there is a worker for what is cached. @returns null, or why it stays */
  async #giveUpDevice(wanted: Role, forced: boolean): Promise<string | null> {
    if (wanted === "primary") {
      return this.#attachment.impossible(this.#deviceWanted);
    }
    const held = await this.#attachment.detach(forced ? "by force" : "unless used");
    if (held === null) return null;
    return (
      `${held}. Stop what uses it, and unmount; then: hastctl role ${wanted} ${this.name}. With errors for ` +
      `its users, and without what they have not written: hastctl role --force ${wanted} ${this.name}`
    );
  }

  get #deviceWanted(): Wanted {
    return { provname: this.#settings.provname, device: this.#settings.device ?? "none" };
  }

  /** Takes the resource there, or says why that cannot be. */
  async #enterRole(
    wanted: Role,
    forced: boolean,
    lease: Lease | null = null,
    known: "known" | "resumed" = "known",
  ): Promise<string | Refused | null> {
    if (wanted === "primary") {
      const prepared = await this.#attachment.prepare(this.#deviceWanted);
      if (prepared.kind === "failed") return { refusal: prepared.reason };
      this.#attachSocket = prepared.socket;
    }
    const failure = await this.#enterPreparedRole(wanted, forced, lease, known);
    // A worker may still be there, where the device is what failed.
    if (failure !== null && wanted === "primary") {
      await this.#attachment.detach("at once");
      return (await this.#retireWorker()) ?? failure;
    }
    return failure;
  }

  async #enterPreparedRole(
    wanted: Role,
    forced: boolean,
    lease: Lease | null,
    known: "known" | "resumed",
  ): Promise<string | Refused | null> {
    const worker = this.#worker;
    const stuck = await this.#retireWorker();
    if (stuck !== null) return stuck;
    const lost = this.#lossOf(worker);
    const loss = lost === null ? null : [lost, ...this.#wayBack()].join(". ");
    if (loss !== null) this.#loss = sentence(loss);
    switch (wanted) {
      case "init":
        this.#setRole("init");
        this.#divergence.forget();
        return loss;
      case "secondary": {
        if (loss !== null) return loss;
        const probed = await this.#probe();
        if (probed.kind === "unusable") return probed.reason;
        this.#copy = probed.copy;
        this.#holder.heard(probed.copy.term);
        if (this.#stopping) return STOPPING;
        this.#setRole("secondary");
        return null;
      }
      case "primary": {
        const refusal = lease === null ? null : await this.#exchangedDisk();
        if (refusal !== null) return { refusal };
        if (this.#stopping) return STOPPING;
        this.#setRole("primary");
        this.#restartDelayMs = RESTART_DELAY_MIN_MS;
        if (lease !== null) this.#holder.take(lease);
        const granted = this.#vouched && !this.#flushUnheard ? "granted" : "granted anew";
        // What an arbiter has on record was said of the disk as it was when it chose.
        const isGranted = lease !== null && known !== "resumed";
        const trust = isGranted ? granted : this.#trust(known);
        const worker = this.#startPrimary(forced ? "forced" : trust);
        const failure = await this.#awaitReady(worker);
        if (failure !== null) return failure;
        const detached = await this.#attachment.attach(worker.sectorSize);
        if (detached !== null) return detached;
        return worker.end === null ? null : describeEnd(worker.end);
      }
      default:
        return unreachable(wanted);
    }
  }

  /** Asked for the role it has: true already, unless a primary is between two workers. */
  async #keepRole(role: Role, forced: boolean, lease: Lease | null): Promise<RoleChange> {
    if (role === "primary") {
      const refused = lease === null ? null : await this.#underLease(lease);
      if (refused !== null) return { kind: "failed", previousRole: role, reason: refused };
      // One that asks, or waits to ask again, makes way for one that does not.
      const insists = forced && this.#worker?.ready !== true;
      if (insists) {
        this.#sayForced();
        const stuck = await this.#retireWorker();
        if (stuck !== null) return { kind: "failed", previousRole: role, reason: stuck };
      }
      if (this.#worker === null) {
        this.#cancelRestart();
        this.#startPrimary(insists ? "forced" : this.#trust("resumed"));
      }
      const worker = this.#worker;
      assert(worker !== null);
      const failure = await this.#awaitReady(worker);
      if (failure !== null) {
        const reason = typeof failure === "string" ? failure : failure.refusal;
        return { kind: "failed", previousRole: role, reason };
      }
      const lost = await this.#attachment.renew(0);
      if (lost !== null) return { kind: "failed", previousRole: role, reason: lost };
    }
    return { kind: "done", previousRole: role };
  }

  /** A primary that was none of the arbiter's, or of an earlier term: its next worker is. @returns why not, or null */
  async #underLease(lease: Lease): Promise<string | null> {
    const refused = this.#holder.refusal(this.settings, lease);
    if (refused !== null || this.#holder.lease?.term === lease.term) return refused;
    this.#target = "primary";
    try {
      const worker = this.#worker;
      const stuck = await this.#retireWorker();
      if (stuck !== null) return stuck;
      const loss = this.#lossOf(worker);
      if (loss === null) this.#holder.take(lease);
      else this.#primaryDied(worker!.end!);
      return loss;
    } finally {
      this.#target = null;
    }
  }

  /** Why a primary's worker that we told to go did not end well; or null. */
  #lossOf(worker: Worker | null): string | null {
    const end = worker?.end ?? null;
    if (end === null || worker!.identity.role !== "primary" || !isDiskFailure(end)) return null;
    const elsewhere =
      end.failure?.peerLacks === undefined
        ? "; the other node's copy has that, if the two were in step"
        : "";
    return (
      `the disk failed as the primary stopped (${describeEnd(end)}), and may lack what was written last and not ` +
      `flushed before${elsewhere}`
    );
  }

  async #retireWorker(): Promise<string | null> {
    const worker = this.#worker;
    if (worker === null) return null;
    if ((await worker.stop(STOP_GRACE_MS)) === "gone") return null;
    return (
      `the old worker (pid ${worker.pid}) cannot be killed; it probably waits for a disk that ` +
      "does not answer. Try again when that process has gone."
    );
  }

  /** An arbiter has chosen, or believed of its primary, the copy that hastd had seen here. @returns why it is another */
  async #exchangedDisk(): Promise<string | null> {
    const before = this.#copy;
    const probed = await this.#probe();
    if (probed.kind === "unusable") return null; // its worker says why
    if (!isUntouched(probed.copy) || (before !== null && isUntouched(before))) return null;
    // So that status says it from now on, and nobody chooses it.
    this.#copy = probed.copy;
    return (
      `the copy on ${this.settings.local} was created anew, and is not the one that has everything, says the arbiter. ` +
      "Who has, and what to do: hast-failover status"
    );
  }

  async #probe(): Promise<Probed> {
    const { clock, probe } = this.#surroundings;
    return await new Promise((resolve, reject) => {
      const timer = clock.after(PROBE_TIMEOUT_MS, () => {
        const reason = `${this.settings.local} could not be read within ${PROBE_TIMEOUT_MS / 1000} s.`;
        resolve({ kind: "unusable", reason });
      });
      probe(this.settings).then(
        (probed) => {
          timer.cancel();
          resolve(probed);
        },
        (error) => {
          timer.cancel();
          reject(error);
        },
      );
    });
  }

  async #awaitReady(worker: Worker): Promise<string | Refused | null> {
    // A primary may have to ask the other node first, for as long as a peer may take, and a rival.
    const outcome = await worker.started(READY_TIMEOUT_MS + 2 * this.settings.timeout * 1000);
    if (outcome === "ready") return null;
    const { failure } = outcome;
    return failure?.exitCode === EXIT_PROMOTION_REFUSED
      ? { refusal: failure.message }
      : describeEnd(outcome);
  }

  #setRole(role: Role): void {
    this.#role = role;
    if (role !== "primary") this.#holder.end();
    // Deaf from now on: whoever goes on without us, or is promoted, cannot tell; and disks are swapped.
    if (role === "init") this.#vouched = false;
    // From here on the copy may change by other hands than a secondary's worker.
    this.#left = null;
    if (role === "init") this.#forgetOrders();
    this.#log = this.#surroundings.log.withPrefix(`[${this.name}] (${role}) `);
  }

  /** They were given in another role, and for the time before; a rate is given to this node. */
  #forgetOrders(): void {
    this.#orders = { ...this.#orders, connected: true, resyncPaused: false };
  }

  // --- An arbiter's lease.

  /** Programs that use it have got no answer for a while; now they get errors. */
  #deposed(why: string): void {
    this.#deposing = true;
    this.#log.error(`${why}: this node gives up the role.`);
    void this.changeRole("secondary", "by force").then(() => {
      this.#deposing = false;
      if (this.#role !== "primary") {
        this.#note = `${sentence(why)}\nWho is primary now, and why: hast-failover status`;
      }
    });
  }

  /** The lease goes on. @param confirmed the number of the last wish that the arbiter has on record; 0 = none */
  renewLease(lease: Lease, confirmed: number): LeaseEntry["outcome"] | { readonly reason: string } {
    if (this.#role !== "primary") {
      // A reload takes the role for a moment, and gives it back: that is no end of it.
      const role = this.#target === "primary" ? this.#target : this.#role;
      return { kind: "known", role, wish: null };
    }
    const renewed = this.#holder.renew(lease, confirmed);
    if ("reason" in renewed) return renewed;
    if (this.#worker?.wanted) this.#worker.renewLease(renewed.deadlineMs, renewed.confirmed);
    return { kind: "known", role: "primary", wish: this.#holder.wish };
  }

  /** Calls `told` at every change of the role, and of what the arbiter is to put on record. @returns ends that */
  watchLease(told: () => void): () => void {
    return this.#holder.watch(told);
  }

  workerWishes(worker: Worker, wish: Wish): void {
    assert(worker === this.#worker);
    this.#holder.workerWishes(wish);
  }

  /** A primary has said P1 to us, who are one, or about to be: then our worker may still have to make way. */
  meetRival({ localHost, peerHost }: HandshakeSocket): void {
    const worker = this.#worker;
    if (worker?.identity.role !== "primary" || worker.ready || !worker.wanted) return;
    // Both nodes come to the same order, and for all resources that are promoted together.
    worker.meetRival(localHost === peerHost ? null : localHost < peerHost);
  }

  /** A primary has said P1. One of a later term than ours means that ours is over. */
  heardTerm(term: bigint): void {
    // On its way down it hears so again and again.
    if (this.#role !== "primary" || this.#target !== null || this.#deposing) return;
    const { lease } = this.#holder;
    if (lease === null || term <= lease.term) return;
    this.#deposed(
      `The other node is primary in the arbiter's term ${term}, and this one's is ${lease.term}`,
    );
  }

  // --- Workers.

  #trust(known: "known" | "resumed"): Trust {
    if (!this.#vouched) return "unknown";
    if (!this.#flushUnheard) return known;
    // Its peer may be away, and then nobody has what it lacks.
    return known === "resumed" ? "resumed anew" : "unknown";
  }

  #startPrimary(trust: Trust): Worker {
    assert(this.#worker === null);
    if (trust === "unknown" || trust === "granted anew") this.#flushUnheard = true;
    return this.#startWorker("primary", null, trust);
  }

  #startWorker(role: "primary" | "secondary", hello: PeerHello | null, trust: Trust): Worker {
    this.#worker = new Worker(
      { resource: this.name, role },
      {
        kind: "start",
        role,
        settings: this.settings,
        debug: this.#log.debugLevel,
        log: this.#surroundings.workerLog,
        hello,
        trust,
        orders: this.#orders,
        ...(role === "primary" && this.#attachSocket !== null
          ? { attach: this.#attachSocket }
          : {}),
        ...(role === "primary" && this.#holder.lease !== null ? { lease: this.#holder.lease } : {}),
      },
      this,
      { clock: this.#surroundings.clock, processes: this.#surroundings.processes, log: this.#log },
    );
    return this.#worker;
  }

  workerReady(worker: Worker): void {
    assert(worker === this.#worker);
    this.#note = this.#loss = null;
    this.#peerLacks = null;
    // One that was told to go meanwhile says it too late: why it had to go is what counts.
    if (worker.wanted) {
      this.#vouched = !this.#leansOnPeer(worker);
      if (worker.identity.role === "secondary") this.#flushUnheard = false;
    }
    this.#log.debug(1, `The worker (pid ${worker.pid}) is ready.`);
    // The device rides over a worker's death, unless its tools have died, too.
    if (worker.identity.role === "primary") this.deviceLost();
  }

  /** Makes it anew, if it is lost; when the role changes under way have ended. */
  deviceLost(): void {
    this.#afterChanges(async () => {
      if (this.#role === "primary" && this.#worker?.ready) {
        await this.#attachment.renew(RENEW_DELAY_MS);
      }
    });
  }

  #afterChanges(work: () => Promise<unknown>): void {
    const done = this.#changes.then(async () => {
      if (!this.#stopping) await work();
    });
    this.#changes = done;
  }

  workerCopy(worker: Worker, copy: CopyWorth): void {
    assert(worker === this.#worker);
    this.#copy = copy;
    this.#holder.heard(copy.term);
    if (worker.ready && worker.identity.role === "primary") {
      this.#vouched = !this.#leansOnPeer(worker);
    }
  }

  /**
   * A primary whose copy is not whole, perhaps for want of a disk: its metadata may not even say so, so its
   * successor serves nothing before it has heard the peer (S-1).
   */
  #leansOnPeer(worker: Worker): boolean {
    return worker.identity.role === "primary" && this.#copy?.state === "inconsistent";
  }

  workerEvent(worker: Worker, event: WorkerEvent): void {
    assert(worker === this.#worker);
    if (event === "split-brain") {
      if (this.#divergence.tellSplitBrain() === "told") return;
    } else if (event === "connect") {
      this.#divergence.forget();
    }
    this.#surroundings.event(this, event);
    // The hook hears of the role first, then of what the new worker found.
    if (this.#target === null) this.#hooks.workerEvent(event);
    else this.#heldEvents.push(event);
  }

  workerAsks(worker: Worker): void {
    void this.#hooks
      .mayResync(() => worker.wanted)
      .then((refusal) => {
        if (worker.wanted) worker.answerResync(refusal);
      });
  }

  workerDiverged(worker: Worker, divergence: Divergence): void {
    assert(worker === this.#worker);
    const news = this.#divergence.judged(divergence);
    this.#note = null;
    // A primary's worker has said so itself.
    if (worker.identity.role === "primary" || news === "known") return;
    for (const note of divergenceNotes(divergence, this.name)) this.#log.error(note);
  }

  workerSettled(worker: Worker): void {
    assert(worker === this.#worker);
    this.#flushUnheard = false;
  }

  workerMisledDevice(_worker: Worker): void {
    this.#attachment.lose("writes that were acknowledged, and not flushed yet, are gone");
  }

  workerInvalidated(_worker: Worker, resolution: Resolution): void {
    this.#invalidation?.(resolution);
  }

  workerGone(worker: Worker, end: WorkerEnd): void {
    assert(worker === this.#worker);
    this.#worker = null;
    this.#holder.workerGone();
    const { role } = worker.identity;
    // It had no primary, and ends by itself: where that goes well, nothing follows from it.
    const errand = role === "secondary" && this.#target === this.#role && !end.requested;
    const usual = errand ? isDone(end) : isUsual(end);
    // An errand that changed the copy is known to whoever asked for it.
    if (role === "secondary" && !(errand && usual)) this.#left = end.left;
    if (role === "primary" ? isNews(end) : !usual) this.#vouched = false;
    if (end.failure?.peerLacks !== undefined) this.#peerLacks = end.failure.peerLacks;
    if (role === "primary" && (end.killed || (end.requested && !end.hadOpened))) {
      this.#flushUnheard = true;
    }
    if (end.requested || this.#stopping || role !== this.#role) {
      this.#log.debug(1, `The worker has gone: ${describeEnd(end)}.`);
      return;
    }
    if (role === "secondary") {
      // Usual when the link is lost. What it said is worth keeping: split-brain, another disk, …
      if (end.failure !== null && this.#divergence.facts === null) {
        this.#note = sentence(end.failure.message);
        // The link, or the other machine: only a person can tell.
        const { exitCode, message } = end.failure;
        if (!errand && exitCode === EX_TEMPFAIL && !message.includes("hastctl")) {
          this.#note += `\nwaiting for the primary. If it is gone, to go on here: hastctl role primary ${this.name}`;
        } else if (!errand && exitCode === EX_NOINPUT) {
          this.#note +=
            "\nthe primary goes on alone, and tries again by itself: when the cause is gone, nothing is to be typed";
        }
      }
      const text = `The worker has gone: ${describeEnd(end)}. Waiting for a connection.`;
      // A signal is no usual end: the kernel was out of memory, say.
      if (end.exit.kind === "signal") this.#log.warning(text);
      else this.#log.debug(1, text);
      return;
    }
    // While the role is being entered, whoever asked for it hears the reason and decides.
    if (this.#target === "primary") return;
    this.#primaryDied(end);
  }

  #primaryDied(end: WorkerEnd): void {
    const { exit } = end;
    // Refused: its copy is not whole, and the other node did not answer. It may, later.
    const again =
      exit.kind !== "code" || exit.code === EX_TEMPFAIL || exit.code === EXIT_PROMOTION_REFUSED;
    if (!again) {
      this.#setRole("init");
      this.#sayError(
        `The primary worker gave up, and this node's role fell back to init: ${sentence(describeEnd(end))}`,
        ...this.#wayBack(),
      );
      this.#afterChanges(async () => {
        if (this.#role !== "primary") await this.#attachment.detach("at once");
      });
      return;
    }
    if (end.wasReady && end.lifetimeMs >= RESTART_FORGIVEN_MS) {
      this.#restartDelayMs = RESTART_DELAY_MIN_MS;
    }
    const delayMs = this.#restartDelayMs;
    this.#restartDelayMs = Math.min(delayMs * 2, RESTART_DELAY_MAX_MS);
    this.#note = `The primary worker died and is started again in ${delayMs / 1000} s: ${sentence(describeEnd(end))}`;
    this.#log.error(this.#note);
    this.#restart = this.#surroundings.clock.after(delayMs, () => {
      this.#restart = null;
      const worker = this.#startPrimary(this.#trust("resumed"));
      // Only the deadline matters here: how it ends is workerGone()'s business.
      void worker.started(READY_TIMEOUT_MS + 2 * this.settings.timeout * 1000);
    });
  }

  /** Each line apart, since a command may end one: what follows would be typed along with it. */
  #sayError(...lines: readonly string[]): void {
    this.#note = lines.join("\n");
    for (const line of lines) this.#log.error(line);
  }

  /** What to type after a primary had to give up: a line each, without full stops. */
  #wayBack(): readonly string[] {
    const back = `hastctl role primary ${this.name}`;
    if (this.settings.remote === "none") return [`When the cause is gone: ${back}`];
    if (this.#peerLacks !== null) return saveDiskAdvice(this.#peerLacks, this.name);
    return [
      `To go on with the other node's copy, there: ${back}. When the cause is gone, here: hastctl role ` +
        `secondary ${this.name}, or, if the other node did not take over, ${back}`,
    ];
  }

  #cancelRestart(): void {
    this.#restart?.cancel();
    this.#restart = null;
  }

  /** Ends the worker and all that is pending; no role change succeeds any more. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    this.#invalidation?.({ kind: "failed", reason: STOPPING });
    this.#cancelRestart();
    this.#handshake.drop("hastd is stopping");
    const workerAndDevice = async () => {
      await this.#attachment.detach("by force");
      await this.#stopWorker(graceMs);
    };
    await Promise.all([this.#hooks.close(graceMs), workerAndDevice()]);
  }

  async #stopWorker(graceMs: number): Promise<void> {
    const worker = this.#worker;
    if (worker === null) return;
    if ((await worker.stop(graceMs)) === "stuck") {
      this.#log.error(`The worker (pid ${worker.pid}) cannot be killed and is left behind.`);
    }
  }

  /**
   * Asked every few seconds: does the worker live? One that has been silent for {@link SILENT_ROUNDS_MAX}
   * rounds serves nobody and is in the way of its successor, so it is killed, and no other resource hears of
   * it. Rounds are counted, not seconds: after a pause of the whole machine, all have been silent for long.
   * @returns a word for the service manager's status, or ""
   */
  async watch(): Promise<"" | "degraded" | "does not answer"> {
    const worker = this.#worker;
    const isWatched = () => worker === this.#worker && !this.#stopping && worker?.wanted;
    const report = worker?.ready && isWatched() ? await worker.report() : null;
    if (worker === null || report !== null || !worker.ready || !isWatched()) {
      this.#silentRounds = 0;
      return report?.status === "degraded" ? "degraded" : "";
    }
    this.#silentRounds++;
    if (this.#silentRounds === SILENT_ROUNDS_MAX) {
      this.#log.error(
        `The worker (pid ${worker.pid}) has not answered for a minute and is killed; ` +
          "applications get their answers from the next one.",
      );
      worker.kill();
    } else if (this.#silentRounds === SILENT_ROUNDS_MAX + 1) {
      this.#log.error(
        `The worker (pid ${worker.pid}) cannot be killed; it probably waits for a disk that does not answer. ` +
          `Look: cat /proc/${worker.pid}/wchan; dmesg`,
      );
    }
    return "does not answer";
  }

  // --- Handshake.

  /**
   * P1 has come on `socket`, the peer may use this resource, and we are secondary: the newest
   * attempt counts. Answers when the old worker has applied what it received and has gone.
   */
  async firstStep(socket: HandshakeSocket, p1: P1): Promise<void> {
    assert(this.announcedRole === "secondary");
    if (p1.term !== 0n && p1.term < this.#holder.termHeard) {
      const errmsg = `A primary of the arbiter's term ${this.#holder.termHeard} has been here, and this one's is ${p1.term}.`;
      this.#log.warning(`Connection from ${socket.peer} refused: ${errmsg}`);
      socket.write(encodeS1(refuse(errmsg)));
      socket.end();
      return;
    }
    const attempt = this.#handshake.begin(socket, p1);
    const stuck = await this.#retireWorker();
    // Closed, replaced, or not wanted any more.
    if (this.#handshake.attempt !== attempt) return;
    if (stuck !== null) {
      this.#log.error(`Connection from ${socket.peer} refused: ${stuck}`);
      this.#handshake.drop(stuck);
      return;
    }
    this.#handshake.accept();
  }

  /**
   * P2 has come on `socket`; the rest as for firstStep().
   *
   * @returns null, and the sockets are a worker's; or why not, and connection A, if there was one, has
   *   been told and closed, while B is still the caller's
   */
  secondStep(socket: HandshakeSocket, p2: P2): Refusal | null {
    assert(this.announcedRole === "secondary");
    const attempt = this.#handshake.complete(socket, p2);
    if ("errmsg" in attempt) return attempt;
    const again = this.#divergence.answerTo(p2);
    if (again !== null) {
      this.#log.debug(1, `Refused as before: ${attempt.socket.peer}: ${again.errmsg}`);
      attempt.socket.write(encodeS2(attempt.version, again, null));
      attempt.socket.end();
      socket.end();
      return null;
    }
    // S1 was sent when the old worker had gone, and only a second step makes a new one.
    assert(this.#worker === null);
    this.#log.debug(1, `Connected from ${attempt.socket.peer} and ${socket.peer}.`);
    const worker = this.#startWorker(
      "secondary",
      {
        version: attempt.version,
        extensions: attempt.extensions,
        virgin: p2.virgin,
        resuid: p2.resuid,
        localcnt: p2.localcnt,
        remotecnt: p2.remotecnt,
        remarks: p2.remarks,
        life: p2.life,
        left: this.#left,
        whole: p2.whole,
        invalidate: this.#invalidation !== null,
        ...(attempt.term === 0n ? {} : { term: attempt.term }),
      },
      "unknown",
    );
    this.#holder.heard(attempt.term);
    // One that ends without a word, as when it is killed, leaves nothing.
    this.#left = null;
    worker.handOver("a", attempt.socket);
    worker.handOver("b", socket);
    // Only the deadline matters here: a socket may break on its way, and the worker wait for it.
    void worker.started(READY_TIMEOUT_MS);
    return null;
  }

  // --- Commands of `hastctl` about the two copies.

  /** `hastctl resolve --discard-local`. */
  async discardLocal(dryRun: boolean): Promise<Resolution> {
    return await this.#inTurn(() => this.#discardLocal(dryRun));
  }

  /** After the role changes and commands asked for so far. */
  async #inTurn(run: () => Promise<Resolution>): Promise<Resolution> {
    const resolution = this.#changes.then(run);
    this.#changes = resolution.catch(() => undefined);
    return await resolution;
  }

  async #discardLocal(dryRun: boolean): Promise<Resolution> {
    const { name } = this;
    if (this.#stopping) return failed(STOPPING);
    if (this.#role === "primary") {
      return failed(
        "this node is primary, so its changes are in use and are not thrown away. If they shall be: " +
          `hastctl role secondary ${name} here, then the same command again. If the other node's changes ` +
          `shall be thrown away, type it there: hastctl resolve --discard-local ${name}`,
      );
    }
    const divergence = this.#divergence.facts;
    if (divergence === null) {
      if (this.#worker?.ready) {
        const lines = [
          "the two nodes are connected and their copies fit together: nothing to discard",
        ];
        return { kind: "done", lines };
      }
      return failed(
        "no split-brain is known here: since hastd started, no primary has been refused. If there is one, " +
          `let the nodes meet: on the other node hastctl role primary ${name}, here hastctl role secondary ` +
          `${name}. Once hastctl status ${name} shows it, type this again`,
      );
    }
    const keeper = divergence.peer;
    if (keeper.resuid === null || keeper.resuid === 0n) {
      return failed(
        "the other node's resource id is not known, since it has not been primary. " +
          `On that node: hastctl role primary ${name}; then type this again`,
      );
    }
    return await this.#errand(async (worker) => {
      const outcome = await worker.discard(keeper, dryRun);
      if ("exit" in outcome) return failed(describeEnd(outcome));
      if (outcome.plan === "refuse") return failed(outcome.lines.join(" "));
      if (!dryRun && outcome.plan === "discard") {
        this.#divergence.forgetAnswer();
        this.#giveWay();
        this.#note =
          "the changes of this node were thrown away; the other one's are copied here when it connects as " +
          `primary. If it is not: hastctl role primary ${name} on that node`;
      }
      return { kind: "done", lines: outcome.lines };
    });
  }

  /** Has it done by a worker that serves no primary, while none may come. */
  async #errand(run: (worker: Worker) => Promise<Resolution>): Promise<Resolution> {
    this.#handshake.refuse(roleRefusal("init"));
    this.#target = this.#role;
    try {
      const stuck = await this.#retireWorker();
      if (stuck !== null) return failed(stuck);
      return await run(this.#startWorker("secondary", null, "unknown"));
    } finally {
      this.#target = null;
    }
  }

  /** Its metadata say so now: this copy is to be made like the other one. */
  #giveWay(): void {
    this.#copy = { state: "outdated", forced: this.#copy?.forced ?? null };
    this.#vouched = false;
    this.#left = null;
  }

  /** `hastctl sync --full`. */
  async fullSync(): Promise<Resolution> {
    const { name } = this;
    if (this.#role !== "primary") {
      return {
        kind: "failed",
        reason:
          `this node is ${this.#role}, and a full synchronization copies from the primary to the other node. ` +
          `On the primary: hastctl sync --full ${name}`,
      };
    }
    const worker = this.#worker;
    if (worker === null || !worker.ready) {
      return {
        kind: "failed",
        reason: `the worker of this resource is not ready. See: hastctl status ${name}`,
      };
    }
    return await worker.command({ kind: "sync" });
  }

  // --- Orders.

  /** `hastctl connect` and the like. */
  async obey(order: Order): Promise<Resolution> {
    return await this.#inTurn(async () => {
      if (this.#stopping) return failed(STOPPING);
      const resolution = await this.#obey(order);
      const dryRun = "dryRun" in order && order.dryRun;
      if (resolution.kind === "done" && !resolution.before && !dryRun) {
        const rate = order.kind === "resync-rate" ? ` ${order.rate}` : "";
        this.#log.info(`Ordered by an operator: ${order.kind}${rate}.`);
      }
      return resolution;
    });
  }

  async #obey(order: Order): Promise<Resolution> {
    switch (order.kind) {
      case "connect":
        return await this.#connect();
      case "disconnect":
        return await this.#disconnect();
      case "pause-resync":
        return this.#pauseResync(true);
      case "resume-resync":
        return this.#pauseResync(false);
      case "resync-rate":
        return this.#limitResync(order.rate);
      case "invalidate":
        return await this.#invalidate(order.dryRun);
      case "outdate":
        return await this.#outdate(order.dryRun);
      default:
        return unreachable(order);
    }
  }

  #order(orders: Partial<Orders>): void {
    this.#orders = { ...this.#orders, ...orders };
    const worker = this.#worker;
    if (worker?.wanted && worker.identity.role === "primary") worker.order(this.#orders);
  }

  /** Why there is nothing to connect, or null. */
  #unconnectable(): string | null {
    if (this.settings.remote === "none") return "hast.conf names no other node (remote none)";
    if (this.#role !== "init") return null;
    return (
      "the role here is init, so there is no connection. To take part as secondary, here: hastctl role " +
      `secondary ${this.name}`
    );
  }

  async #connect(): Promise<Resolution> {
    const { name, settings } = this;
    const reason = this.#unconnectable();
    if (reason !== null) return failed(reason);
    if (!this.#orders.connected) {
      this.#order({ connected: true });
      return done(
        this.#role === "primary"
          ? `connecting to ${settings.remote}; what differs is then copied. To watch: hastctl status ${name}`
          : `the primary may connect again, and does so within seconds. To watch: hastctl status ${name}`,
      );
    }
    const report = this.#worker?.ready ? await this.#worker.report() : null;
    if (report?.connected) return already("already connected");
    this.#order({}); // a primary tries at once
    return already(
      "already allowed to connect: hastctl disconnect was not typed here. If it was on the other node, there: " +
        `hastctl connect ${name}. Why there is no connection: hastctl status ${name}`,
    );
  }

  async #disconnect(): Promise<Resolution> {
    const { name, settings } = this;
    const reason = this.#unconnectable();
    if (reason !== null) return failed(reason);
    if (!this.#orders.connected) return already(`already ${this.#standalone()}`);
    const worker = this.#worker;
    const report = worker?.ready ? await worker.report() : null;
    if (report?.bound || (worker !== null && this.#leansOnPeer(worker))) {
      return failed(
        this.#role === "primary"
          ? "this node's own copy is not whole, and the other node's serves what it lacks: without a " +
              `connection, applications would stop. When that has ended, type this again; to watch: hastctl status ${name}`
          : "the primary's own copy is not whole, and this one serves what that lacks: without a connection, " +
              `applications there would stop. To work here instead: hastctl status ${name}, on the primary, says how`,
      );
    }
    this.#disconnectedAt = this.#surroundings.clock.wallTime();
    this.#order({ connected: false });
    if (this.#role === "primary") {
      return done(
        `disconnected from ${settings.remote}. This node goes on alone; what is written is marked, and copied ` +
          `when they connect again. To end it, here: hastctl connect ${name}`,
      );
    }
    // The primary goes on without us, as we know from now on; one that is connecting again, or away, as well.
    this.#vouched = false;
    this.#handshake.refuse(refuse(DISCONNECTED));
    const stuck = await this.#retireWorker();
    if (stuck !== null) return failed(stuck);
    return done(
      "disconnected from the primary, which goes on alone; what is written there is copied here when they " +
        `connect again. To end it, here: hastctl connect ${name}`,
    );
  }

  /** "disconnected by an operator since …" */
  #standalone(): string {
    return (
      `disconnected by an operator since ${utc(this.#disconnectedAt)}, so nothing is replicated. ` +
      `To end it, here: hastctl connect ${this.name}`
    );
  }

  #pauseResync(paused: boolean): Resolution {
    const { name } = this;
    const command = paused ? "pause-resync" : "resume-resync";
    if (this.#role !== "primary") return failed(this.#primarysTask(command));
    if (this.#orders.resyncPaused === paused) {
      return already(paused ? "already paused" : "not paused: nothing to do");
    }
    this.#order({ resyncPaused: paused });
    return done(
      paused
        ? "no more is copied by a synchronization, now or later; what applications write goes to both nodes. " +
            `To go on, here: hastctl resume-resync ${name}`
        : `synchronizations go on. To watch: hastctl status ${name}`,
    );
  }

  #limitResync(rate: number): Resolution {
    const limit =
      rate === 0
        ? "synchronizations copy as fast as it goes"
        : `synchronizations copy at most ${speed(rate)}`;
    const where =
      this.#role === "primary"
        ? ""
        : `. That counts where this node is primary; it is ${this.#role}, so type it on the primary, too`;
    if (this.#orders.resyncRate === rate) return already(`already so: ${limit}${where}`);
    this.#order({ resyncRate: rate });
    return done(`${limit}, until hastd ends${where}`);
  }

  #primarysTask(command: string): string {
    return (
      `this node is ${this.#role}, and the primary does the copying. On the primary: hastctl ` +
      `${command} ${this.name}`
    );
  }

  async #invalidate(dryRun: boolean): Promise<Resolution> {
    const { name } = this;
    if (this.#role === "init") {
      return failed(
        `the role here is init, so no other copy is known. To have this one compared and copied: hastctl role ` +
          `secondary ${name}, and once the primary is connected this again`,
      );
    }
    const worker = this.#worker;
    if (worker === null || !worker.ready) {
      return failed(`${this.#whyAlone()}; without it this may be the only good copy`);
    }
    const plan = await worker.command({ kind: "invalidate", dryRun: true });
    if (dryRun || plan.kind === "failed" || plan.before) return plan;
    // A secondary's next worker asks again, and this answer is kept for it.
    const primary = this.#role === "primary";
    if (this.#copy?.state !== "inconsistent") {
      const refusal = await this.#hooks.mayResync(() => primary);
      if (refusal !== null) return failed(refusal);
    }
    if (this.#worker !== worker || !worker.wanted) {
      return failed(
        `the connection was lost, and nothing was thrown away. See: hastctl status ${name}`,
      );
    }
    return primary
      ? await worker.command({ kind: "invalidate", dryRun: false })
      : await this.#invalidateSecondary();
  }

  /** Why nobody has told of another whole copy. */
  #whyAlone(): string {
    const { name } = this;
    if (!this.#orders.connected) return this.#standalone();
    if (this.#divergence.facts !== null) {
      return `the two copies do not fit together, and one must be chosen: hastctl status ${name}`;
    }
    return this.#role === "primary"
      ? `the worker of this resource is not ready: hastctl status ${name}`
      : `no primary is connected: hastctl status ${name}`;
  }

  /** At the next connection, when the primary says whether its own copy is whole. */
  async #invalidateSecondary(): Promise<Resolution> {
    const waitMs = this.settings.timeout * 1000 + HALF_OPEN_TIMEOUT_MS;
    const { clock } = this.#surroundings;
    const answer = new Promise<Resolution>((resolve) => {
      this.#invalidation = resolve;
    });
    const stuck = await this.#retireWorker();
    const timer = clock.after(waitMs, () =>
      this.#invalidation?.(
        failed(
          this.#worker?.wanted
            ? `it is not known whether this copy is thrown away: the worker (pid ${this.#worker.pid}) has not said so within ` +
                `${waitMs / 1000} s, and it may still be. See: hastctl status ${this.name}`
            : `the primary has not connected again within ${waitMs / 1000} s. Look: hastctl status ${this.name}; ` +
                "typing this again does no harm",
        ),
      ),
    );
    if (stuck !== null) this.#invalidation?.(failed(stuck));
    const resolution = await answer;
    timer.cancel();
    this.#invalidation = null;
    return resolution;
  }

  async #outdate(dryRun: boolean): Promise<Resolution> {
    const { name } = this;
    if (this.settings.remote === "none") {
      return failed("hast.conf names no other node (remote none), so none can have gone on");
    }
    if (this.#role === "primary") {
      return failed(
        "this node is primary, so its copy is in use. If the other node has the newer data, stop what uses this " +
          `one, then here: hastctl role secondary ${name}, and this again`,
      );
    }
    if (this.#worker?.ready) {
      const state = this.#copy?.state;
      if (state === "outdated" || state === "inconsistent") {
        return already(`already ${state}, and being synchronized: nothing to do`);
      }
      return failed(
        "a primary is connected, and this copy is in step with it: it is not outdated. To part them first, here: " +
          `hastctl disconnect ${name}`,
      );
    }
    return await this.#errand(async (worker) => {
      const resolution = await worker.command({ kind: "outdate", dryRun });
      const end = await worker.started(READY_TIMEOUT_MS);
      assert(end !== "ready");
      if (resolution.kind === "done" && !dryRun && !resolution.before) this.#giveWay();
      return resolution;
    });
  }

  // --- Status.

  /** "uptodate" is what this hastd knows now; of a copy that is on its own again, it knows less. */
  #copyState(): CopyState | null {
    const state = this.#copy?.state ?? null;
    if (this.#worker?.ready && this.#role === "primary" && state === "consistent")
      return "uptodate";
    return state === "uptodate" && !this.#worker?.ready ? "consistent" : state;
  }

  #copyNotes(state: CopyState | null): string[] {
    const notes: string[] = [];
    const elsewhere = `on the other node: hastctl role primary ${this.name}`;
    if (this.#role !== "primary" && state === "outdated") {
      notes.push(`this copy is outdated: the other node has gone on without it; ${elsewhere}`);
    } else if (state === "inconsistent" && this.#worker === null) {
      notes.push(`this copy is the target of an unfinished synchronization; ${elsewhere}`);
    }
    const forced = this.#copy?.forced ?? null;
    if (forced !== null) {
      const since = new Date(forced.at * 1000).toISOString().replace(/\.\d+/, "");
      notes.push(
        `promoted by force at ${since}, while this copy was ${forced.state}: so on record until a synchronization has ended`,
      );
    }
    return notes;
  }

  async statusEntry(): Promise<StatusEntry> {
    const worker = this.#worker;
    // One that still starts has nothing to report, and may be too busy to say so.
    const report = worker?.ready ? await worker.report() : null;
    const { settings } = this;
    const copy = this.#copyState();
    const divergence = this.#divergence.facts;
    const notes: string[] = [];
    if (!this.#orders.connected) notes.push(this.#standalone());
    if (this.#note !== null) notes.push(...this.#note.split("\n"));
    else if (divergence !== null && this.#role !== "primary") {
      notes.push(...divergenceNotes(divergence, this.name));
    }
    notes.push(...this.#holder.notes(), ...this.#copyNotes(copy));
    notes.push(...this.#attachment.notes());
    const device = this.#attachment.status;
    if (report !== null) notes.push(...report.notes);
    else if (worker !== null && worker.pid !== 0) {
      notes.push(
        worker.ready
          ? `The worker (pid ${worker.pid}) does not answer.`
          : `The worker (pid ${worker.pid}) is still starting.`,
      );
    }
    const status: ResourceStatus = {
      provname: settings.provname,
      localpath: settings.local,
      remoteaddr: settings.remote,
      sourceaddr: settings.source,
      replication: settings.replication,
      checksum: settings.checksum,
      compression: settings.compression,
      role: this.#role,
      workerpid: this.#worker?.pid ?? 0,
      worker: report,
      ...(copy === null ? {} : { copy }),
      ...(this.#copy?.term === undefined ? {} : { term: this.#copy.term }),
      ...(report?.connected ? { connected: true } : {}),
      ...(this.#vouched && !this.#flushUnheard ? { vouched: true } : {}),
      resyncrate: this.#orders.resyncRate,
      ...(settings.remote === "none" ? {} : { transport: transportOf(settings) }),
      ...(device === null ? {} : { device }),
    };
    return { resource: this.name, outcome: { kind: "known", status }, errmsg: null, notes };
  }
}

/** For `list`. */
function transportOf({ remote, tlspeer }: WorkerSettings): string {
  if (!isTls(remote)) return "plain TCP, neither encrypted nor authenticated";
  return `TLS 1.3, peer ${tlspeer === null ? `${remoteHost(remote)} vouched for by ca.pem` : tlspeer}`;
}

/** Nobody has led over it yet. */
function isUntouched({ state, term }: CopyWorth): boolean {
  return state === "new" && term === undefined;
}

/** The rules of promotion stand in the way, and nothing else. */
interface Refused {
  readonly refusal: string;
}

/** The next flush would succeed, without what this one has dropped. */
function isDiskFailure({ exit }: WorkerEnd): boolean {
  return exit.kind === "code" && exit.code === EX_IOERR;
}

/** An errand was done, or could not begin since the disk was busy: what was known of the copy is as true as before. */
function isDone({ exit }: WorkerEnd): boolean {
  return exit.kind === "code" && (exit.code === EX_OK || exit.code === EX_TEMPFAIL);
}

/**
 * A secondary's worker ended for the link, or for us. Otherwise its primary goes on without this node, and what was
 * known of its copy counts no more: one that is killed may even have lost what it had received. Nor does that count
 * where it was not ready yet: its primary lived, and what that one's P2 shows, that it went on alone, say, has
 * perhaps not been judged.
 */
function isUsual({ exit, requested, wasReady }: WorkerEnd): boolean {
  if (exit.kind !== "code" || !wasReady) return false;
  return exit.code === EX_TEMPFAIL || (exit.code === EX_OK && requested);
}

/**
 * What was known of a primary's copy counts no more: its disk has failed, perhaps before it was of any use, or
 * the other node has shown data of its own (S-2). That it is primary was to be expected; should it die now, that is
 * failover. A disk that is only busy is worth another attempt (EX_TEMPFAIL), and nothing was asked of it.
 */
function isNews(end: WorkerEnd): boolean {
  const { exit, failure } = end;
  const unusable = exit.kind === "code" && exit.code === EX_NOINPUT;
  const refusal = failure?.exitCode === EXIT_PROMOTION_REFUSED ? failure.message : null;
  return (
    unusable || isDiskFailure(end) || (refusal !== null && !refusal.startsWith(OTHER_IS_PRIMARY))
  );
}

function done(...lines: readonly string[]): Resolution {
  return { kind: "done", lines };
}

function already(line: string): Resolution {
  return { kind: "done", lines: [line], before: true };
}

function failed(reason: string): Resolution {
  return { kind: "failed", reason };
}

/** "2026-11-21 05:59:34 UTC" @param ms since the Unix epoch */
function utc(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** A command at the end of a message: a full stop would be typed along with it. */
const COMMAND_LAST = /[:;] (?:fuser|hastctl|hastd|ip|lsblk|mkdir|ss|truncate) [^:;]*$/;

function sentence(text: string): string {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) || COMMAND_LAST.test(first) ? first : `${first}.`;
}

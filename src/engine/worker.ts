// SPDX-License-Identifier: BSD-2-Clause
/**
 * What a worker process does: one resource in one role, from the daemon's first message to the exit.
 *
 *   start ─► primary: disk, engine ─► ready
 *         ├► secondary: sockets A and B ─► disk, engine ─► ready
 *         └► secondary: discard or outdate ─► disk, no engine ─► exit
 *   stop, or the engine's end ─► exit
 *
 * Source: behaviour §2.1, §2.2.
 */

import { AssertionError } from "../base/assert.ts";
import { explainMetadata, MetadataError } from "../metadata/block.ts";
import { type Disk, DiskError } from "../platform/disk.ts";
import type { Log } from "../platform/log.ts";
import type { Stream } from "../platform/net.ts";
import { discardLocal } from "./discard.ts";
import { Memory } from "./memory.ts";
import { outdate } from "./outdate.ts";
import { type EngineEnvironment, type EngineHost, PrimaryEngine } from "./primary-engine.ts";
import { SecondaryEngine } from "./secondary-engine.ts";
import type { CopyFacts, FromWorker, ToWorker, WorkerSettings } from "./worker-messages.ts";

export type Start = Extract<ToWorker, { kind: "start" }>;

const EXIT_OK = 0;
/** The component, its metadata or its map cannot be used (behaviour §2.1). */
const EXIT_COMPONENT = 66;
const EXIT_EXPORT = 71;
const EXIT_PRIVILEGES = 78;
/** Worth another attempt: the connection went, or another process has the disk that a primary or an errand needs. */
const EXIT_AGAIN = 75;
/** How long a stopping primary waits for its peer. */
export const STOP_GRACE_MS = 10_000;
/** The same where hastd is gone: its successor waits for the disk, see LOCK_WAIT_MS. */
export const ORPHAN_GRACE_MS = 3_000;
/**
 * How long to wait for a disk that is in use. A killed worker holds its lock until the kernel has
 * finished what it began (S-8), and an orphaned one until its peer has answered.
 */
const LOCK_WAIT_MS = 5_000;
const LOCK_RETRY_MS = 100;

/** The process around a worker. */
export interface WorkerHost {
  readonly environment: EngineEnvironment;
  /** @throws DiskError */
  openDisk(settings: WorkerSettings, warn: (text: string) => void): Disk;
  /** Called once, with the first message. */
  openLog(start: Start): Log;
  /** Gives up what only root may do. @throws Error if that fails */
  dropPrivileges(): void;
  /** To the daemon. */
  tell(message: FromWorker): void;
  /** Ends the process, after everything told has been delivered. */
  exit(code: number): void;
}

export class ResourceWorker {
  readonly #host: WorkerHost;
  #log: Log | null = null;
  #start: Start | null = null;
  #engine: PrimaryEngine | SecondaryEngine | null = null;
  #a: Stream | null = null;
  #b: Stream | null = null;
  #stopping = false;
  /** Waits for the daemon's answer to "may-resync". */
  #answered: ((refusal: string | null) => void) | null = null;

  constructor(host: WorkerHost) {
    this.#host = host;
  }

  get engine(): PrimaryEngine | SecondaryEngine | null {
    return this.#engine;
  }

  /** From the daemon. @param socket what came with a "socket" message, or null if it closed on its way */
  message(message: ToWorker, socket: Stream | null): void {
    switch (message.kind) {
      case "start":
        this.#start = message;
        this.#log = this.#host.openLog(message);
        if (message.role === "primary") void this.#lead(message);
        return;
      case "socket":
        if (socket === null) {
          // Nobody has touched the disk since.
          const left = this.#start?.hello?.left ?? null;
          if (left !== null) this.#host.tell({ kind: "left", left });
          this.#fail(EXIT_AGAIN, "the primary closed the connection before it was handed over");
          return;
        }
        if (message.channel === "a") this.#a = socket;
        else this.#b = socket;
        if (this.#a !== null && this.#b !== null) void this.#serve(this.#a, this.#b);
        return;
      case "discard":
        void this.#discard(message.keeper, message.dryRun);
        return;
      case "settings":
        if (this.#start === null) return;
        this.#start = { ...this.#start, settings: message.settings };
        // One that is still being opened gets them then.
        if (this.#engine instanceof PrimaryEngine) this.#engine.reconfigure(message.settings);
        return;
      case "orders":
        if (this.#start === null) return;
        this.#start = { ...this.#start, orders: message.orders };
        if (this.#engine instanceof PrimaryEngine) this.#engine.obey(message.orders);
        return;
      case "lease":
        if (this.#engine instanceof PrimaryEngine) {
          this.#engine.renewLease(message.deadlineMs, message.confirmed);
        }
        return;
      case "rival":
        if (this.#engine instanceof PrimaryEngine) this.#engine.meetRival(message.isFirst);
        return;
      case "sync":
        if (this.#engine instanceof PrimaryEngine) {
          this.#engine.fullSync((resolution) => this.#host.tell({ kind: "answer", resolution }));
        }
        return;
      case "invalidate":
        this.#engine?.invalidate(message.dryRun, (resolution) =>
          this.#host.tell({ kind: "answer", resolution }),
        );
        return;
      case "outdate":
        void this.#outdate(message.dryRun);
        return;
      case "status":
        if (this.#engine !== null) {
          this.#host.tell({ kind: "status", id: message.id, report: this.#engine.report() });
        }
        return;
      case "resync-answer": {
        const answered = this.#answered;
        this.#answered = null;
        answered?.(message.refusal);
        return;
      }
      case "stop":
        this.stop(STOP_GRACE_MS);
        return;
    }
  }

  /** On request, on SIGTERM, or because hastd is gone. */
  stop(graceMs: number): void {
    this.#stopping = true;
    if (this.#engine instanceof PrimaryEngine) this.#engine.stop(graceMs);
    else if (this.#engine !== null) this.#engine.stop();
    else this.#host.exit(EXIT_OK);
  }

  async #lead(start: Start): Promise<void> {
    const disk = await this.#open(start);
    if (disk === null) return;
    let engine: PrimaryEngine;
    try {
      const { environment } = this.#host;
      const host = this.#engineHost();
      const { settings, trust, lease } = start;
      engine = await PrimaryEngine.open(settings, disk, environment, host, trust, lease ?? null);
      engine.obey(this.#start?.orders ?? start.orders);
    } catch (error) {
      this.#fail(EXIT_COMPONENT, textOf(error, start.settings));
      return;
    }
    this.#engine = engine;
    const settings = this.#start?.settings ?? start.settings;
    if (settings !== start.settings) engine.reconfigure(settings);
    if (this.#stopping) this.stop(STOP_GRACE_MS);
    try {
      if (!(await engine.admit())) return;
    } catch (error) {
      this.#fail(EXIT_COMPONENT, textOf(error, start.settings));
      return;
    }
    try {
      await engine.start(start.attach ?? null);
    } catch (error) {
      this.#fail(EXIT_EXPORT, `NBD server: ${textOf(error, start.settings)}`);
      return;
    }
    // The disk is open, and clients have a place to connect to; a peer needs no privileges.
    if (!this.#dropPrivileges()) return;
    this.#host.tell({ kind: "ready", sectorSize: disk.sectorSize });
    if (this.#stopping) this.stop(STOP_GRACE_MS);
  }

  async #serve(a: Stream, b: Stream): Promise<void> {
    const start = this.#start;
    if (start === null || start.hello === null) return;
    const { settings, hello } = start;
    const disk = await this.#open(start);
    if (disk === null) return;
    let engine: SecondaryEngine;
    try {
      const { environment } = this.#host;
      const host = this.#engineHost();
      engine = await SecondaryEngine.open(settings, hello, disk, a, b, environment, host);
      this.#engine = engine;
      if (!this.#dropPrivileges()) return;
      await engine.start();
    } catch (error) {
      this.#fail(EXIT_COMPONENT, textOf(error, settings));
      return;
    }
    // One that has refused its primary, or has lost it meanwhile, is about to end.
    if (!engine.report().connected) return;
    this.#host.tell({ kind: "ready" });
    if (this.#stopping) this.stop(STOP_GRACE_MS);
  }

  async #discard(keeper: CopyFacts, dryRun: boolean): Promise<void> {
    const start = this.#start;
    if (start === null) return;
    const { settings } = start;
    const disk = await this.#open(start);
    if (disk === null || !this.#dropPrivileges()) return;
    const { arena } = this.#host.environment;
    const { resource } = settings;
    try {
      const warn = (text: string) => this.#log?.warning(text);
      const discard = { resource, keeper, dryRun, warn };
      const done = await discardLocal(disk, new Memory(arena), discard);
      if (!dryRun) for (const line of done.lines) this.#log?.notice(`resolve: ${line}`);
      this.#host.tell({ kind: "discarded", ...done });
    } catch (error) {
      this.#fail(EXIT_COMPONENT, textOf(error, settings));
      return;
    }
    disk.close(() => this.#host.exit(EXIT_OK));
  }

  async #outdate(dryRun: boolean): Promise<void> {
    const start = this.#start;
    if (start === null) return;
    const { settings } = start;
    const disk = await this.#open(start);
    if (disk === null || !this.#dropPrivileges()) return;
    try {
      const warn = (text: string) => this.#log?.warning(text);
      const { resource } = settings;
      const memory = new Memory(this.#host.environment.arena);
      const resolution = await outdate(disk, memory, { resource, dryRun, warn });
      this.#host.tell({ kind: "answer", resolution });
    } catch (error) {
      this.#fail(EXIT_COMPONENT, textOf(error, settings));
      return;
    }
    disk.close(() => this.#host.exit(EXIT_OK));
  }

  /** @returns whether that succeeded; if not, the worker ends */
  #dropPrivileges(): boolean {
    try {
      this.#host.dropPrivileges();
      return true;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#fail(EXIT_PRIVILEGES, `the worker's privileges could not be dropped: ${reason}`);
      return false;
    }
  }

  /** Null if the worker ends instead. */
  async #open({ role, settings, hello }: Start): Promise<Disk | null> {
    const { clock } = this.#host.environment;
    const deadline = clock.now() + LOCK_WAIT_MS;
    while (!this.#stopping) {
      try {
        return this.#host.openDisk(settings, (text) => this.#log?.warning(text));
      } catch (error) {
        const inUse = error instanceof DiskError && error.code === "EBUSY";
        if (!inUse || clock.now() >= deadline) {
          // To a secondary's primary this is no lost link: it goes on alone, and hastd must know (S-2).
          const again = inUse && (role === "primary" || hello === null);
          this.#fail(again ? EXIT_AGAIN : EXIT_COMPONENT, textOf(error, settings));
          return null;
        }
      }
      await new Promise<void>((resolve) => {
        clock.after(LOCK_RETRY_MS, resolve);
      });
    }
    return null;
  }

  #engineHost(): EngineHost {
    const host = this.#host;
    const log = this.#log!;
    return {
      event: (event) => host.tell({ kind: "event", event }),
      wish: (wish) => host.tell({ kind: "wish", wish }),
      copy: (copy) => host.tell({ kind: "copy", copy }),
      diverged: (divergence) => host.tell({ kind: "diverged", divergence }),
      invalidated: (resolution) => host.tell({ kind: "invalidated", resolution }),
      deviceMisled: () => host.tell({ kind: "device-misled" }),
      settled: () => host.tell({ kind: "settled" }),
      mayResync: () =>
        new Promise((resolve) => {
          // Asked again only on a new connection: nobody waits for the earlier answer any more.
          this.#answered = resolve;
          host.tell({ kind: "may-resync" });
        }),
      notice: (text) => log.notice(text),
      warning: (text) => log.warning(text),
      error: (text) => log.error(text),
      debug: (level, text) => log.debug(level, text),
      ended: (exitCode, reason, left, lacks = null) => {
        log.debug(1, `Exiting (${exitCode}): ${reason}.`);
        if (left !== null) host.tell({ kind: "left", left });
        const peerLacks = lacks === null ? {} : { peerLacks: lacks };
        if (exitCode !== EXIT_OK) {
          host.tell({ kind: "failed", exitCode, message: reason, ...peerLacks });
        }
        host.exit(exitCode);
      },
    };
  }

  /**
   * Our own mistake: a stopped resource is an incident, a wrong map is corruption. The caller ends
   * the process after this; nothing else runs, not even what is on its way to the disk.
   * @param earlyLog for the time before the first message
   */
  dying(error: Error, exitCode: number, earlyLog: Log): void {
    (this.#log ?? earlyLog).error(`Internal error: ${error.stack ?? error.message}`);
    this.#host.tell({ kind: "failed", exitCode, message: `internal error: ${error.message}` });
  }

  #fail(exitCode: number, message: string): void {
    this.#log?.error(message);
    this.#host.tell({ kind: "failed", exitCode, message });
    this.#host.exit(exitCode);
  }
}

/** What an operator can act on. Our own mistakes are thrown on, and end the process. */
function textOf(error: unknown, { local, resource }: WorkerSettings): string {
  if (error instanceof AssertionError) throw error;
  if (error instanceof MetadataError) return explainMetadata(error, local, resource);
  return error instanceof Error ? error.message : String(error);
}

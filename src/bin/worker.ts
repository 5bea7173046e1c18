// SPDX-License-Identifier: BSD-2-Clause
/**
 * The worker process of one resource in one role. Started by hastd, never by hand; it ends itself
 * when hastd is gone.
 */

import type { Socket } from "node:net";
import { ARENA_SIZE } from "../engine/memory.ts";
import {
  type EngineEnvironment,
  type EngineHost,
  PrimaryEngine,
} from "../engine/primary-engine.ts";
import { SecondaryEngine } from "../engine/secondary-engine.ts";
import type { FromWorker, ToWorker } from "../engine/worker-messages.ts";
import { type Disk, DiskError } from "../platform/disk.ts";
import type { Log } from "../platform/log.ts";
import type { Stream } from "../platform/net.ts";
import { createArena } from "../platform/node/arena.ts";
import { nodeClock } from "../platform/node/clock.ts";
import { openDisk } from "../platform/node/disk.ts";
import { nodeEntropy } from "../platform/node/entropy.ts";
import { nodeHashes } from "../platform/node/hashes.ts";
import { createStdioLog, createSyslogLog } from "../platform/node/log.ts";
import { nodeNet } from "../platform/node/net.ts";
import { adoptSocket } from "../platform/node/socket-stream.ts";
import { workerTitle } from "../platform/process.ts";

type Start = Extract<ToWorker, { kind: "start" }>;

const EXIT_OK = 0;
/** The component, its metadata or its map cannot be used (behaviour §2.1). */
const EXIT_COMPONENT = 66;
const EXIT_EXPORT = 71;
const EXIT_ASSERTION = 70;
/** Worth another attempt: the connection went, or another process has the disk. */
const EXIT_AGAIN = 75;
/** How long a stopping primary waits for its peer. */
const STOP_GRACE_MS = 10_000;
/** The same where hastd is gone: its successor waits for the disk, see LOCK_WAIT_MS. */
const ORPHAN_GRACE_MS = 3_000;
/**
 * How long to wait for a disk that is in use. A killed worker holds its lock until the kernel has
 * finished what it began (S-8), and an orphaned one until its peer has answered.
 */
const LOCK_WAIT_MS = 5_000;
const LOCK_RETRY_MS = 100;

/** Messages on their way to the daemon. */
let unsent = 0;

function tell(message: FromWorker): void {
  if (!process.connected) return;
  unsent++;
  // Fails only when the daemon is gone, which "disconnect" tells.
  process.send?.(message, undefined, undefined, () => {
    unsent--;
  });
}

/** Ends the process once the daemon has been told everything; it may be too busy to listen. */
function exit(code: number, patience = 100): void {
  if (unsent === 0 || patience === 0) process.exit(code);
  nodeClock.after(10, () => exit(code, patience - 1));
}

class Worker {
  #log: Log = createStdioLog({ prefix: "", debugLevel: 0 });
  #start: Start | null = null;
  #engine: PrimaryEngine | SecondaryEngine | null = null;
  #a: Stream | null = null;
  #b: Stream | null = null;
  #stopping = false;

  message(message: ToWorker, socket: Socket | undefined): void {
    switch (message.kind) {
      case "start":
        this.#begin(message);
        return;
      case "socket":
        if (socket === undefined) {
          this.#fail(EXIT_AGAIN, "the primary closed the connection before it was handed over");
          return;
        }
        if (message.channel === "a") this.#a = adoptSocket(socket, message.peer);
        else this.#b = adoptSocket(socket, message.peer);
        if (this.#a !== null && this.#b !== null) void this.#serve(this.#a, this.#b);
        return;
      case "status":
        if (this.#engine !== null) {
          tell({ kind: "status", id: message.id, report: this.#engine.report() });
        }
        return;
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
    else exit(EXIT_OK);
  }

  #begin(start: Start): void {
    this.#start = start;
    const { role, settings } = start;
    process.title = workerTitle({ resource: settings.resource, role });
    const options = { prefix: `[${settings.resource}] (${role}) `, debugLevel: start.debug };
    this.#log = start.log === "stdio" ? createStdioLog(options) : createSyslogLog("hastd", options);
    if (role === "primary") void this.#lead(start);
  }

  async #lead(start: Start): Promise<void> {
    const opened = await this.#open(start);
    if (opened === null) return;
    const { disk, environment } = opened;
    try {
      const engine = await PrimaryEngine.open(start.settings, disk, environment, this.#host());
      if (engine.refusal !== null) {
        this.#fail(EXIT_COMPONENT, engine.refusal);
        return;
      }
      this.#engine = engine;
    } catch (error) {
      this.#fail(EXIT_COMPONENT, textOf(error));
      return;
    }
    try {
      await this.#engine.start();
    } catch (error) {
      this.#fail(EXIT_EXPORT, `NBD server: ${textOf(error)}`);
      return;
    }
    tell({ kind: "ready" });
    if (this.#stopping) this.stop(STOP_GRACE_MS);
  }

  async #serve(a: Stream, b: Stream): Promise<void> {
    const start = this.#start;
    if (start === null || start.hello === null) return;
    const opened = await this.#open(start);
    if (opened === null) return;
    const { disk, environment } = opened;
    try {
      const { settings, hello } = start;
      this.#engine = await SecondaryEngine.open(
        settings,
        hello,
        disk,
        a,
        b,
        environment,
        this.#host(),
      );
      await this.#engine.start();
    } catch (error) {
      this.#fail(EXIT_COMPONENT, textOf(error));
      return;
    }
    tell({ kind: "ready" });
    if (this.#stopping) this.stop(STOP_GRACE_MS);
  }

  async #open(start: Start): Promise<{ disk: Disk; environment: EngineEnvironment } | null> {
    const arena = createArena(ARENA_SIZE);
    const disk = await this.#openDisk(start.settings.local, arena);
    if (disk === null) return null;
    return {
      disk,
      environment: {
        arena,
        net: nodeNet,
        clock: nodeClock,
        entropy: nodeEntropy,
        hashes: nodeHashes,
      },
    };
  }

  /** Null if the worker ends instead. */
  async #openDisk(path: string, arena: Buffer): Promise<Disk | null> {
    const deadline = nodeClock.now() + LOCK_WAIT_MS;
    while (!this.#stopping) {
      try {
        return openDisk(path, { arena, lock: true, warn: (text) => this.#log.warning(text) });
      } catch (error) {
        const inUse = error instanceof DiskError && error.code === "EBUSY";
        if (!inUse || nodeClock.now() >= deadline) {
          this.#fail(inUse ? EXIT_AGAIN : EXIT_COMPONENT, textOf(error));
          return null;
        }
      }
      await new Promise<void>((resolve) => nodeClock.after(LOCK_RETRY_MS, resolve));
    }
    return null;
  }

  #host(): EngineHost {
    const log = this.#log;
    return {
      event: (event) => tell({ kind: "event", event }),
      notice: (text) => log.notice(text),
      warning: (text) => log.warning(text),
      error: (text) => log.error(text),
      debug: (level, text) => log.debug(level, text),
      ended: (exitCode, reason) => {
        log.debug(1, `Exiting (${exitCode}): ${reason}.`);
        if (exitCode !== EXIT_OK) tell({ kind: "failed", exitCode, message: reason });
        exit(exitCode);
      },
    };
  }

  /**
   * Our own mistake: a stopped resource is an incident, a wrong map is corruption. Nothing runs after
   * this, not even what is on its way to the disk.
   */
  die(error: Error): void {
    try {
      this.#log.error(`Internal error: ${error.stack ?? error.message}`);
      tell({
        kind: "failed",
        exitCode: EXIT_ASSERTION,
        message: `internal error: ${error.message}`,
      });
    } finally {
      process.exit(EXIT_ASSERTION);
    }
  }

  #fail(exitCode: number, message: string): void {
    this.#log.error(message);
    tell({ kind: "failed", exitCode, message });
    exit(exitCode);
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

const worker = new Worker();
process.on("message", (message, socket) => worker.message(message as ToWorker, socket as Socket));
process.on("disconnect", () => worker.stop(ORPHAN_GRACE_MS));
process.on("SIGTERM", () => worker.stop(STOP_GRACE_MS));
process.on("SIGINT", () => worker.stop(STOP_GRACE_MS));
process.on("uncaughtException", (error) => worker.die(error));

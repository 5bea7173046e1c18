// SPDX-License-Identifier: BSD-2-Clause
/**
 * The main daemon: resources, the control socket and the listeners.
 *
 *   hastctl ──► control socket ──►┐
 *                                 ├─► Resource ──► worker process
 *   primary ──► listeners ──►─────┘
 *
 * It never decides a role by itself: after a start every resource is in role init.
 * Source: FreeBSD sbin/hastd/hastd.c; behaviour §1, §2.
 */

import { assert } from "../base/assert.ts";
import type { WorkerEvent, WorkerSettings } from "../engine/worker-messages.ts";
import type { Clock } from "../platform/clock.ts";
import type { Entropy } from "../platform/entropy.ts";
import type { HandshakeListener, HandshakeNet, Resolver } from "../platform/handshake-socket.ts";
import type { Log, LogDestination } from "../platform/log.ts";
import { type Listener, type Net, NetError, type SocketAccess } from "../platform/net.ts";
import type { Processes } from "../platform/process.ts";
import { DEFAULT_PORT, formatAddress, parseAddress } from "../wire/address.ts";
import { Access } from "./access.ts";
import { ControlServer } from "./control-server.ts";
import { HandshakeServer } from "./handshake-server.ts";
import type { HookParts, HookSettings } from "./hooks.ts";
import { type Probed, Resource } from "./resource.ts";

/** How long the workers may take to finish when the daemon is told to stop. */
export const SHUTDOWN_GRACE_MS = 10_000;

const EX_OSERR = 71;
const EX_TEMPFAIL = 75;

/** The daemon cannot start: what to say, and the exit code (behaviour §2.1). */
export class StartError extends Error {
  override readonly name = "StartError";
  readonly exitCode: number;
  constructor(exitCode: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
  }
}

/** What hast.conf says to the main daemon. */
export interface DaemonSettings {
  /** UNIX address of the control socket. */
  readonly control: string;
  readonly listen: readonly string[];
  /** Nobody asked for these addresses: a missing address family is no error. */
  readonly listenByDefault: boolean;
  readonly resources: readonly WorkerSettings[];
  readonly hooks: (resource: string) => HookSettings;
}

export interface DaemonParts {
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly processes: Processes;
  readonly net: Net;
  readonly handshakeNet: HandshakeNet;
  readonly resolver: Resolver;
  readonly probe: (settings: WorkerSettings) => Promise<Probed>;
  readonly log: Log;
  readonly workerLog: LogDestination;
  readonly hooks: Omit<HookParts, "settings">;
  readonly controlAccess: SocketAccess;
  /** Ids of the users who may do everything through the control socket; others may ask for status. */
  readonly administrators: readonly number[];
}

export class Daemon {
  readonly #settings: DaemonSettings;
  readonly #parts: DaemonParts;
  readonly #resources: ReadonlyMap<string, Resource>;
  readonly #access: Access;
  readonly #controlServer: ControlServer;
  readonly #handshakeServer: HandshakeServer;
  #control: Listener | null = null;
  readonly #listeners: HandshakeListener[] = [];

  constructor(settings: DaemonSettings, parts: DaemonParts) {
    this.#settings = settings;
    this.#parts = parts;
    const { clock, log } = parts;
    const surroundings = {
      clock,
      entropy: parts.entropy,
      processes: parts.processes,
      probe: parts.probe,
      log,
      workerLog: parts.workerLog,
      event: (resource: Resource, event: WorkerEvent) => this.#workerEvent(resource, event),
      hooks: { ...parts.hooks, settings: settings.hooks },
    };
    this.#resources = new Map(
      settings.resources.map((each) => [each.resource, new Resource(each, surroundings)]),
    );
    this.#access = new Access(clock, parts.resolver);
    const resources = () => this.#resources;
    this.#controlServer = new ControlServer({ clock, log, resources });
    this.#handshakeServer = new HandshakeServer({ clock, log, access: this.#access, resources });
  }

  /**
   * Opens the control socket, then the listeners.
   * @throws StartError, after closing what had been opened
   */
  async open(): Promise<void> {
    try {
      await this.#openControl();
      await this.#openListeners();
    } catch (error) {
      this.#closeSockets();
      throw error;
    }
    this.#access.prepare(this.#settings.resources.map(({ remote }) => remote));
  }

  /** Addresses on which primaries are awaited, with their real ports. */
  get listening(): readonly string[] {
    return this.#listeners.map(({ address }) => address);
  }

  resource(name: string): Resource | undefined {
    return this.#resources.get(name);
  }

  /** Closes the sockets, then ends every worker; within {@link SHUTDOWN_GRACE_MS} and a little more. */
  async stop(): Promise<void> {
    this.#closeSockets();
    await Promise.all([...this.#resources.values()].map((each) => each.stop(SHUTDOWN_GRACE_MS)));
  }

  async #openControl(): Promise<void> {
    const address = formatAddress(parseAddress(this.#settings.control));
    try {
      this.#control = await this.#parts.net.listen(
        address,
        (stream, user) => {
          // Where there are no users, there is no one to keep out.
          const trusted = user === null || this.#parts.administrators.includes(user);
          this.#controlServer.accept(stream, trusted ? "everything" : "status only");
        },
        (reason) => this.#parts.log.warning(`Cannot accept a control connection: ${reason}.`),
        this.#parts.controlAccess,
      );
    } catch (error) {
      if (!(error instanceof NetError)) throw error;
      throw new StartError(EX_OSERR, `Control socket: ${error.message}`, { cause: error });
    }
  }

  async #openListeners(): Promise<void> {
    const { handshakeNet, log } = this.#parts;
    for (const address of this.#settings.listen) {
      const parsed = parseAddress(address);
      // hast.conf was checked for this.
      assert(parsed.kind === "tcp");
      const at = { host: parsed.host, port: parsed.port ?? DEFAULT_PORT };
      try {
        const listener = await handshakeNet.listenHandshake(
          at,
          (socket) => void this.#handshakeServer.accept(socket),
          (reason) => log.warning(`Cannot accept a connection on ${address}: ${reason}.`),
        );
        log.debug(1, `Listening on ${listener.address}.`);
        this.#listeners.push(listener);
      } catch (error) {
        if (!(error instanceof NetError)) throw error;
        if (this.#settings.listenByDefault && isMissingFamily(error)) {
          log.debug(1, error.message);
          continue;
        }
        throw new StartError(EX_OSERR, error.message, { cause: error });
      }
    }
    if (this.#listeners.length === 0) {
      throw new StartError(
        EX_TEMPFAIL,
        "Cannot listen: this machine has neither IPv4 nor IPv6. Name an address with listen in hast.conf.",
      );
    }
  }

  #closeSockets(): void {
    this.#control?.close();
    this.#control = null;
    this.#controlServer.close();
    for (const listener of this.#listeners.splice(0)) listener.close();
    this.#handshakeServer.close();
  }

  /** Every event of every worker comes through here. */
  #workerEvent(resource: Resource, event: WorkerEvent): void {
    resource.log.info(`Event: ${event}.`);
  }
}

/** The kernel has no such family, or no address of it: IPv6 switched off. */
function isMissingFamily(error: NetError): boolean {
  return error.code === "EAFNOSUPPORT" || error.code === "EADDRNOTAVAIL";
}

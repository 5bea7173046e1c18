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
import type { TlsTerminator } from "../platform/tls.ts";
import { DEFAULT_PORT, formatAddress, parseAddress, plainHost } from "../wire/address.ts";
import { Access } from "./access.ts";
import { type Configuration, ControlServer } from "./control-server.ts";
import { HandshakeServer } from "./handshake-server.ts";
import type { HookParts, HookSettings } from "./hooks.ts";
import { type Probed, Resource, type ResourceSurroundings } from "./resource.ts";

/** How long the workers may take to finish when the daemon is told to stop. */
export const SHUTDOWN_GRACE_MS = 10_000;
/** How long the hooks of a resource that is taken out of hast.conf may take. */
const REMOVAL_GRACE_MS = 30_000;

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

/** Where the daemon is to be reached. */
export interface Doors {
  /** UNIX address of the control socket. */
  readonly control: string;
  readonly controlAccess: SocketAccess;
  /** Ids of the users who may do everything through the control socket; others may ask for status. */
  readonly administrators: readonly number[];
  readonly listen: readonly string[];
  /** Nobody asked for these addresses: a missing address family is no error. */
  readonly listenByDefault: boolean;
}

/** What hast.conf says to the main daemon. */
export interface DaemonSettings extends Doors {
  readonly resources: readonly WorkerSettings[];
  readonly hooks: (resource: string) => HookSettings;
}

export interface DaemonParts {
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly processes: Processes;
  readonly net: Net;
  readonly handshakeNet: HandshakeNet;
  readonly tls: TlsTerminator;
  readonly resolver: Resolver;
  readonly probe: (settings: WorkerSettings) => Promise<Probed>;
  readonly log: Log;
  readonly workerLog: LogDestination;
  readonly hooks: Omit<HookParts, "settings">;
  readonly devices: ResourceSurroundings["devices"];
  readonly configuration: Configuration;
}

export class Daemon {
  #doors: Doors;
  readonly #parts: DaemonParts;
  readonly #surroundings: ResourceSurroundings;
  #resources: Map<string, Resource>;
  readonly #hookSettings = new Map<string, HookSettings>();
  #stopping = false;
  readonly #access: Access;
  readonly #controlServer: ControlServer;
  readonly #handshakeServer: HandshakeServer;
  #control: Listener | null = null;
  /** By address as written. */
  #listeners = new Map<string, HandshakeListener>();
  /** Ends with open(), well or not. */
  #opening: Promise<unknown> = Promise.resolve();

  constructor(settings: DaemonSettings, parts: DaemonParts) {
    this.#doors = settings;
    this.#parts = parts;
    const { clock, log, configuration } = parts;
    this.#surroundings = {
      clock,
      entropy: parts.entropy,
      processes: parts.processes,
      probe: parts.probe,
      log,
      workerLog: parts.workerLog,
      event: (resource: Resource, event: WorkerEvent) => this.#workerEvent(resource, event),
      devices: parts.devices,
      hooks: { ...parts.hooks, settings: (name) => this.#hookSettings.get(name)! },
    };
    this.#resources = new Map();
    for (const each of settings.resources) this.add(each, settings.hooks(each.resource));
    this.#access = new Access(clock, parts.resolver);
    const resources = () => this.#resources;
    this.#controlServer = new ControlServer({ clock, log, resources, configuration });
    const access = this.#access;
    this.#handshakeServer = new HandshakeServer({ clock, log, access, tls: parts.tls, resources });
  }

  /**
   * Opens the control socket, then the listeners.
   * @throws StartError, after closing what had been opened
   */
  async open(): Promise<void> {
    const opening = this.#open();
    // A failure is the caller's to hear; who reloads only waits for the end.
    this.#opening = opening.catch(() => undefined);
    await opening;
  }

  /** Resolves when open() has ended, well or not: SIGHUP may come early. */
  async opened(): Promise<void> {
    await this.#opening;
  }

  async #open(): Promise<void> {
    try {
      this.#control = await this.#openControl(this.#doors);
      this.#listeners = await this.#openListeners(this.#doors, new Map());
    } catch (error) {
      this.#closeSockets();
      throw error;
    }
    this.#resolveRemotes();
  }

  /**
   * Other doors: the new ones are opened before the old ones are closed, and whoever is inside stays.
   * @throws StartError, and the doors are as before
   */
  async moveDoors(next: Doors): Promise<void> {
    const before = this.#doors;
    const listeners = await this.#openListeners(next, this.#listeners);
    try {
      if (!sameControl(before, next)) await this.#moveControl(before, next);
    } catch (error) {
      for (const [address, listener] of listeners) {
        if (!this.#listeners.has(address)) listener.close();
      }
      throw error;
    }
    for (const [address, listener] of this.#listeners) {
      if (!listeners.has(address)) listener.close();
    }
    this.#listeners = listeners;
    this.#doors = next;
    if (this.#stopping) this.#closeSockets();
  }

  /** A resource in role init. */
  add(settings: WorkerSettings, hooks: HookSettings): void {
    assert(!this.#resources.has(settings.resource));
    this.#hookSettings.set(settings.resource, hooks);
    this.#resources.set(settings.resource, new Resource(settings, this.#surroundings));
  }

  /** Takes a resource to role init and forgets it. @returns null, or what it leaves behind */
  async remove(name: string): Promise<string | null> {
    const resource = this.#resources.get(name);
    assert(resource !== undefined);
    // The reload has looked whether anybody uses its device.
    const change = await resource.changeRole("init", "by force");
    await resource.stop(REMOVAL_GRACE_MS);
    this.#resources.delete(name);
    this.#hookSettings.delete(name);
    return change.kind === "failed" ? change.reason : null;
  }

  setHooks(resource: string, hooks: HookSettings): void {
    this.#hookSettings.set(resource, hooks);
  }

  /** The order of hast.conf, in which "all" names them. @param names of all resources */
  arrange(names: readonly string[]): void {
    assert(names.length === this.#resources.size);
    this.#resources = new Map(names.map((name) => [name, this.#resources.get(name)!]));
    this.#resolveRemotes();
  }

  #resolveRemotes(): void {
    this.#access.prepare([...this.#resources.values()].map(({ settings }) => settings.remote));
  }

  /** Addresses on which primaries are awaited, with their real ports. */
  get listening(): readonly string[] {
    return [...this.#listeners.values()].map(({ address }) => address);
  }

  resource(name: string): Resource | undefined {
    return this.#resources.get(name);
  }

  /**
   * Looks after the workers. To be called every few seconds, when the last call has ended.
   * @returns roles and names, in one line: "primary: disk1 disk2 (degraded); init: disk3"
   */
  async watch(): Promise<string> {
    const words = await Promise.all(
      [...this.#resources.values()].map(async (resource) => {
        const trouble = await resource.watch();
        const name = trouble === "" ? resource.name : `${resource.name} (${trouble})`;
        return { role: resource.role, name };
      }),
    );
    const roles = (["primary", "secondary", "init"] as const).flatMap((role) => {
      const names = words.filter((each) => each.role === role).map(({ name }) => name);
      return names.length === 0 ? [] : [`${role}: ${names.join(" ")}`];
    });
    return roles.length === 0 ? "no resources" : roles.join("; ");
  }

  /** Closes the sockets, then ends every worker; within {@link SHUTDOWN_GRACE_MS} and a little more. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#closeSockets();
    await Promise.all([...this.#resources.values()].map((each) => each.stop(SHUTDOWN_GRACE_MS)));
  }

  /** Two sockets cannot have one path: there the old one goes first, and comes back if need be. */
  async #moveControl(before: Doors, next: Doors): Promise<void> {
    const old = this.#control;
    if (pathOf(before.control) !== pathOf(next.control)) {
      this.#control = await this.#openControl(next);
      old?.close();
      return;
    }
    old?.close();
    try {
      this.#control = await this.#openControl(next);
    } catch (error) {
      this.#control = await this.#openControl(before);
      throw error;
    }
  }

  async #openControl({ control, controlAccess, administrators }: Doors): Promise<Listener> {
    const address = pathOf(control);
    try {
      return await this.#parts.net.listen(
        address,
        (stream, user) => {
          // Where there are no users, there is no one to keep out.
          const trusted = user === null || administrators.includes(user);
          this.#controlServer.accept(stream, trusted ? "everything" : "status only");
        },
        (reason) => this.#parts.log.warning(`Cannot accept a control connection: ${reason}.`),
        controlAccess,
      );
    } catch (error) {
      if (!(error instanceof NetError)) throw error;
      throw new StartError(EX_OSERR, `Control socket: ${error.message}`, { cause: error });
    }
  }

  /**
   * @param open by address as written: these are taken as they are, where they are wanted
   * @throws StartError, after closing what it opened
   */
  async #openListeners(
    { listen, listenByDefault }: Doors,
    open: ReadonlyMap<string, HandshakeListener>,
  ): Promise<Map<string, HandshakeListener>> {
    const listeners = new Map<string, HandshakeListener>();
    try {
      for (const address of listen) {
        const listener = open.get(address) ?? (await this.#listen(address, listenByDefault));
        if (listener !== null) listeners.set(address, listener);
      }
      if (listeners.size === 0) {
        throw new StartError(
          EX_TEMPFAIL,
          "Cannot listen: this machine has neither IPv4 nor IPv6. Name an address with listen in hast.conf.",
        );
      }
      return listeners;
    } catch (error) {
      for (const [address, listener] of listeners) if (!open.has(address)) listener.close();
      throw error;
    }
  }

  /** @returns null where nobody asked for this address, and its family is missing @throws StartError */
  async #listen(address: string, byDefault: boolean): Promise<HandshakeListener | null> {
    const { handshakeNet, log } = this.#parts;
    const parsed = parseAddress(address);
    // hast.conf was checked for this.
    assert(parsed.kind === "tcp");
    const at = { host: plainHost(parsed.host), port: parsed.port ?? DEFAULT_PORT };
    try {
      const listener = await handshakeNet.listenHandshake(
        at,
        (socket) => void this.#handshakeServer.accept(socket),
        (reason) => log.warning(`Cannot accept a connection on ${address}: ${reason}.`),
      );
      log.debug(1, `Listening on ${listener.address}.`);
      return listener;
    } catch (error) {
      if (!(error instanceof NetError)) throw error;
      if (byDefault && isMissingFamily(error)) {
        log.debug(1, error.message);
        return null;
      }
      throw new StartError(EX_OSERR, error.message, { cause: error });
    }
  }

  #closeSockets(): void {
    this.#control?.close();
    this.#control = null;
    this.#controlServer.close();
    for (const listener of this.#listeners.values()) listener.close();
    this.#listeners.clear();
    this.#handshakeServer.close();
  }

  /** Every event of every worker comes through here. */
  #workerEvent(resource: Resource, event: WorkerEvent): void {
    resource.log.info(`Event: ${event}.`);
  }
}

function pathOf(control: string): string {
  return formatAddress(parseAddress(control));
}

function sameControl(one: Doors, other: Doors): boolean {
  return (
    pathOf(one.control) === pathOf(other.control) &&
    one.controlAccess.mode === other.controlAccess.mode &&
    one.controlAccess.user === other.controlAccess.user &&
    one.controlAccess.group === other.controlAccess.group
  );
}

/** The kernel has no such family, or no address of it: IPv6 switched off. */
function isMissingFamily(error: NetError): boolean {
  return error.code === "EAFNOSUPPORT" || error.code === "EADDRNOTAVAIL";
}

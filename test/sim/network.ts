// SPDX-License-Identifier: BSD-2-Clause
/**
 * The network between the machines, and the unix sockets within each.
 *
 *   process ─ End ══ Pipe, one each way: delayed, stalled, broken ══ End ─ process
 *
 * Processes own ends; when one dies, the kernel closes its ends, or the machine takes them along.
 */

import { assert } from "../../src/base/assert.ts";
import type { Clock } from "../../src/platform/clock.ts";
import {
  type HandshakeListener,
  type HandshakeNet,
  type HandshakeSocket,
  HandshakeSocketError,
} from "../../src/platform/handshake-socket.ts";
import {
  type ConnectOptions,
  type Listener,
  type Net,
  NetError,
  type NetFailure,
  type Stream,
  type StreamReader,
} from "../../src/platform/net.ts";
import { parseAddress } from "../../src/wire/address.ts";
import { FRAME_HEADER_SIZE } from "../../src/wire/frame.ts";
import { decodeHello, encodeP1 } from "../../src/wire/handshake.ts";
import type { Random } from "../model/disk.ts";
import { End, Pipe } from "../pretend/net.ts";
import type { Stopper } from "./stopper.ts";
import type { Timeline } from "./timeline.ts";

/** A machine, as the network sees it. */
export interface Host {
  readonly name: string;
  /** Its address: "10.0.0.1". */
  readonly ip: string;
  readonly on: boolean;
}

/** Whoever owns ends: a process, or the application. */
export interface Owner {
  readonly host: Host;
  readonly alive: boolean;
  readonly ends: Set<End>;
  readonly stopper: Stopper;
}

interface Listening {
  readonly owner: Owner;
  readonly accept: (end: End) => void;
}

/** Both ends, and whose. */
class Connection {
  readonly client: End;
  readonly server: End;
  readonly up: Pipe;
  readonly down: Pipe;
  readonly from: Host;
  readonly to: Host;
  /** A reset that cannot get through yet, for one of the ends. */
  resetDue: End | null = null;

  constructor(
    network: SimNetwork,
    from: Host,
    to: Host,
    names: { readonly client: string; readonly server: string },
  ) {
    const remote = from !== to;
    const poster = network.poster(remote);
    this.up = new Pipe(poster);
    this.down = new Pipe(poster);
    this.client = new End(poster, names.server, { out: this.up, in: this.down });
    this.server = new End(poster, names.client, { out: this.down, in: this.up });
    this.from = from;
    this.to = to;
    for (const pipe of [this.up, this.down]) {
      pipe.capacity = remote ? 128 * 1024 : 64 * 1024;
      pipe.chunk = (available) => network.chunk(available, remote);
    }
  }
}

export interface NetworkManners {
  /** Mean one-way delay between the machines, ms. */
  readonly delayMs: number;
  /** Bytes that arrive within such a delay, at most. */
  readonly burst: number;
  /** How often bytes arrive in small pieces. */
  readonly pieces: number;
  /** No offer of extensions reaches the other node: each takes its peer for FreeBSD's. */
  readonly legacy: boolean;
}

export class SimNetwork {
  readonly #timeline: Timeline;
  readonly #random: Random;
  readonly manners: NetworkManners;
  /** "A→B": packets that way are lost. */
  readonly #blocked: Set<string> = new Set();
  readonly #refusing: Set<Host> = new Set();
  /** Congestion: how many times longer everything takes. */
  slowness = 1;
  readonly #listening: Map<string, Listening> = new Map();
  #connections: Connection[] = [];
  #port = 40_000;

  constructor(timeline: Timeline, random: Random, manners: NetworkManners) {
    this.#timeline = timeline;
    this.#random = random;
    this.manners = manners;
  }

  poster(remote: boolean): { post(run: () => void): void } {
    return this.#timeline.poster(() => this.#delay(remote));
  }

  #delay(remote: boolean): number {
    const mean = remote ? this.manners.delayMs * this.slowness : 0.02;
    const random = this.#random;
    return random.chance(0.02) ? mean * 20 * random.next() : mean * 2 * random.next();
  }

  chunk(available: number, remote: boolean): number {
    const most = remote ? Math.min(available, this.manners.burst) : available;
    return this.#random.chance(this.manners.pieces) ? 1 + this.#random.below(most) : most;
  }

  // ---- faults ---------------------------------------------------------------------------------

  passes(from: Host, to: Host): boolean {
    return from === to || !this.#blocked.has(`${from.name}→${to.name}`);
  }

  get whole(): boolean {
    return this.#blocked.size === 0;
  }

  block(from: Host, to: Host): void {
    this.#blocked.add(`${from.name}→${to.name}`);
    this.#stall();
  }

  unblock(): void {
    this.#blocked.clear();
    this.#stall();
  }

  #stall(): void {
    this.#forget();
    for (const connection of this.#connections) {
      const { from, to, up, down } = connection;
      up.stalled = !this.passes(from, to) || !to.on;
      down.stalled = !this.passes(to, from) || !from.on;
      up.kick();
      down.kick();
      this.#resetIfDue(connection);
    }
  }

  #forget(): void {
    this.#connections = this.#connections.filter(
      ({ client, server }) => !client.closed || !server.closed,
    );
  }

  /** Connections between two machines that both ends believe in. */
  get remoteCount(): number {
    return this.#remote().length;
  }

  #remote(): Connection[] {
    return this.#connections.filter(
      ({ from, to, client, server }) => from !== to && !client.closed && !server.closed,
    );
  }

  /** New connections to a machine from outside are refused, as by a firewall. */
  refuse(host: Host, refuses: boolean): void {
    if (refuses) this.#refusing.add(host);
    else this.#refusing.delete(host);
  }

  /** No more faults. */
  heal(): void {
    this.slowness = 1;
    this.#refusing.clear();
    this.unblock();
  }

  /** One connection between the machines breaks, whatever it carries at the moment. */
  resetOne(): void {
    const remote = this.#remote();
    if (remote.length === 0) return;
    const { client, server } = this.#random.pick(remote);
    this.#timeline.after(this.#delay(true), () => client.reset());
    this.#timeline.after(this.#delay(true), () => server.reset());
  }

  // ---- the ends of processes ------------------------------------------------------------------

  /** The process is gone; the kernel of its machine goes on. */
  abandon(owner: Owner): void {
    for (const end of owner.ends) {
      const connection = this.#connectionOf(end);
      if (connection === null || end.closed) {
        end.detach(); // what it would still have been told
        continue;
      }
      if (this.#random.chance(0.7)) {
        end.abandon();
      } else {
        // Unread data: the kernel sends a reset, and what is under way is lost.
        end.vanish();
        connection.resetDue = connection.client === end ? connection.server : connection.client;
        this.#resetIfDue(connection);
      }
    }
    owner.ends.clear();
    for (const [address, listening] of this.#listening) {
      if (listening.owner === owner) this.#listening.delete(address);
    }
  }

  /** The machine has lost its power; owners on it are dead. Nobody is told. */
  vanish(host: Host, owners: Iterable<Owner>): void {
    for (const owner of owners) {
      for (const end of owner.ends) {
        if (end.closed) {
          end.detach();
          continue;
        }
        const connection = this.#connectionOf(end);
        end.vanish();
        if (connection === null) continue;
        connection.resetDue = connection.client === end ? connection.server : connection.client;
      }
      owner.ends.clear();
    }
    for (const [address, { owner }] of this.#listening) {
      if (owner.host === host) this.#listening.delete(address);
    }
    this.#stall();
  }

  /** The machine is back, and knows nothing of its connections: whoever sends to it is told. */
  returned(): void {
    this.#stall();
  }

  #connectionOf(end: End): Connection | null {
    return this.#connections.find(({ client, server }) => client === end || server === end) ?? null;
  }

  /** The surviving end learns of the reset when it next says something; that takes up to 10 s. */
  #resetIfDue(connection: Connection): void {
    const end = connection.resetDue;
    if (end === null) return;
    const { from, to } = connection;
    if (!from.on || !to.on || !this.passes(from, to) || !this.passes(to, from)) return;
    connection.resetDue = null;
    const delay = this.#random.chance(0.7) ? this.#delay(from !== to) : this.#random.below(10_000);
    this.#timeline.after(delay, () => end.reset());
  }

  // ---- connecting -----------------------------------------------------------------------------

  connect(
    owner: Owner,
    clock: Clock,
    address: string,
    timeoutMs: number,
    done: (result: End | NetFailure) => void,
  ): () => void {
    let over = false;
    let abandoned = false;
    const finish = (result: End | NetFailure): void => {
      if (over || !owner.alive) return;
      over = true;
      timer.cancel();
      owner.stopper.reach(() => {
        if (owner.alive && !abandoned) done(result);
        else if (!("failure" in result)) result.destroy();
      });
    };
    const timer = clock.after(timeoutMs, () => finish({ failure: "connection timed out" }));
    const target = this.#hostOf(address);
    const { host } = owner;
    const key = keyOf(address, host);
    this.#timeline.after(this.#delay(true), () => {
      if (over || !owner.alive) return;
      const to = target ?? host;
      if (!to.on || !this.passes(host, to) || !this.passes(to, host)) return; // silence
      const listening = this.#listening.get(key);
      this.#timeline.after(this.#delay(true), () => {
        if (over || !owner.alive || !to.on) return;
        const refused = to !== host && this.#refusing.has(to);
        if (refused || listening === undefined || !listening.owner.alive) {
          finish({ failure: "connection refused" });
          return;
        }
        const end = this.#join(owner, to, address, listening);
        finish(end);
      });
    });
    return () => {
      over = true;
      abandoned = true;
      timer.cancel();
    };
  }

  #join(owner: Owner, to: Host, address: string, listening: Listening): End {
    this.#forget();
    const client = address.startsWith("unix:") ? address : `tcp://${owner.host.ip}:${++this.#port}`;
    const names = { client, server: address };
    const connection = new Connection(this, owner.host, to, names);
    this.#connections.push(connection);
    connection.up.stalled = !this.passes(owner.host, to);
    connection.down.stalled = !this.passes(to, owner.host);
    owner.ends.add(connection.client);
    listening.owner.ends.add(connection.server);
    this.#timeline.after(this.#delay(owner.host !== to), () => {
      listening.owner.stopper.reach(() => {
        if (listening.owner.alive) listening.accept(connection.server);
      });
    });
    return connection.client;
  }

  #hosts: readonly Host[] = [];

  /** Who can be reached by address. */
  attach(hosts: readonly Host[]): void {
    this.#hosts = hosts;
  }

  /** Null: this very machine. */
  #hostOf(address: string): Host | null {
    const parsed = parseAddress(address);
    if (parsed.kind === "unix") return null;
    const host = this.#hosts.find(({ ip }) => ip === parsed.host);
    assert(host !== undefined, `nobody has the address ${address}`);
    return host;
  }

  listen(owner: Owner, address: string, accept: (end: End) => void): () => void {
    const key = keyOf(address, owner.host);
    const old = this.#listening.get(key);
    if (old?.owner.alive) {
      throw new NetError("EADDRINUSE", `Cannot listen on ${address}: address already in use.`);
    }
    const listening = { owner, accept };
    this.#listening.set(key, listening);
    return () => {
      if (this.#listening.get(key) === listening) this.#listening.delete(key);
    };
  }
}

function keyOf(address: string, host: Host): string {
  return address.startsWith("unix:") ? `${host.name}:${address}` : address;
}

/** The network as one process has it. */
export class ProcessNet implements Net, HandshakeNet {
  readonly #network: SimNetwork;
  readonly #owner: Owner;
  readonly #clock: Clock;

  constructor(network: SimNetwork, owner: Owner, clock: Clock) {
    this.#network = network;
    this.#owner = owner;
    this.#clock = clock;
  }

  connect(
    address: string,
    options: ConnectOptions,
    done: (result: Stream | NetFailure) => void,
  ): () => void {
    return this.#network.connect(this.#owner, this.#clock, address, options.timeoutMs, done);
  }

  listen(
    address: string,
    accepted: (stream: Stream, user: number | null) => void,
  ): Promise<Listener> {
    try {
      const close = this.#network.listen(this.#owner, address, (end) => accepted(end, 0));
      return Promise.resolve({ address, close });
    } catch (error) {
      return Promise.reject(error);
    }
  }

  listenHandshake(
    at: { readonly host: string; readonly port: number },
    accepted: (socket: HandshakeSocket) => void,
  ): Promise<HandshakeListener> {
    const address = `tcp://${at.host}:${at.port}`;
    const close = this.#network.listen(this.#owner, address, (end) =>
      accepted(new SimHandshakeSocket(end, at.host, this.#network.manners.legacy)),
    );
    return Promise.resolve({ address, close });
  }
}

/** Reads exactly one message; what follows it stays for the worker, or gives the peer away. */
export class SimHandshakeSocket implements HandshakeSocket, StreamReader {
  readonly stream: End;
  readonly peerHost: string;
  readonly localHost: string;
  readonly #legacy: boolean;
  #phase: "fresh" | "head" | "body" | "after" | "released" | "over" = "fresh";
  #bytes: Uint8Array = new Uint8Array(0);
  #filled = 0;
  #bodyLength: (head: Uint8Array) => number = () => 0;
  #settle: { resolve(bytes: Uint8Array): void; reject(error: unknown): void } | null = null;
  #broken: string | null = null;
  #whenBroken: ((reason: string) => void) | null = null;

  constructor(end: End, localHost: string, legacy: boolean) {
    this.stream = end;
    this.localHost = localHost;
    this.#legacy = legacy;
    const address = parseAddress(end.peer);
    assert(address.kind === "tcp");
    this.peerHost = address.host;
  }

  get peer(): string {
    return this.stream.peer;
  }

  async receive(headLength: number, bodyLength: (head: Uint8Array) => number): Promise<Uint8Array> {
    if (this.#phase === "over") throw new HandshakeSocketError("the connection is closed");
    assert(this.#phase === "fresh");
    this.#phase = "head";
    this.#bytes = new Uint8Array(headLength);
    this.#bodyLength = bodyLength;
    const message = await new Promise<Uint8Array>((resolve, reject) => {
      this.#settle = { resolve, reject };
      this.stream.start(this);
    });
    return this.#legacy ? withoutExtensions(message) : message;
  }

  space(): Uint8Array {
    return this.#filled < this.#bytes.length
      ? this.#bytes.subarray(this.#filled)
      : new Uint8Array(1);
  }

  received(length: number): void {
    if (this.#phase === "after") {
      this.#fail("the peer sent more than its handshake message");
      return;
    }
    if (this.#phase !== "head" && this.#phase !== "body") return;
    this.#filled += length;
    if (this.#filled < this.#bytes.length) return;
    if (this.#phase === "head") {
      this.#phase = "body";
      let bodyLength: number;
      try {
        bodyLength = this.#bodyLength(this.#bytes);
      } catch (error) {
        this.#settle?.reject(error);
        this.#settle = null;
        return;
      }
      if (bodyLength > 0) {
        const whole = new Uint8Array(this.#bytes.length + bodyLength);
        whole.set(this.#bytes);
        this.#bytes = whole;
        return;
      }
    }
    this.#phase = "after";
    this.#settle?.resolve(this.#bytes);
    this.#settle = null;
  }

  sent(): void {}

  closed(reason: string | null): void {
    this.#fail(reason ?? "the peer closed the connection");
  }

  whenBroken(run: (reason: string) => void): void {
    if (this.#phase === "over") {
      if (this.#broken !== null) run(this.#broken);
      return;
    }
    this.#whenBroken = run;
  }

  write(bytes: Uint8Array): void {
    if (this.#phase !== "over") this.stream.write(bytes);
  }

  end(): void {
    if (this.#phase === "over") return;
    this.#over("the connection was closed here");
    this.stream.end();
  }

  destroy(): void {
    if (this.#phase === "over" || this.#phase === "released") return;
    this.#over("the connection was closed here");
    this.stream.destroy();
  }

  /** For another process; null if it is closed. */
  release(): End | null {
    if (this.#phase === "over") return null;
    assert(this.#phase === "after");
    this.#phase = "released";
    this.#whenBroken = null;
    this.stream.detach();
    return this.stream;
  }

  #fail(reason: string): void {
    if (this.#phase === "over" || this.#phase === "released") return;
    const run = this.#whenBroken;
    this.#broken = reason;
    this.#over(reason);
    this.stream.destroy();
    run?.(reason);
  }

  #over(reason: string): void {
    this.#phase = "over";
    this.#whenBroken = null;
    this.#settle?.reject(new HandshakeSocketError(reason));
    this.#settle = null;
  }
}

function withoutExtensions(message: Uint8Array): Uint8Array {
  const hello = decodeHello(message.subarray(FRAME_HEADER_SIZE));
  return hello.kind === "p1" ? encodeP1({ ...hello, extensions: 0n }) : message;
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * A TCP link that can be cut: forwards connections to one target, until told otherwise.
 *
 *   client ──► listen ┊ proxy ┊ source ──► target
 *           upstream ─────────────────►
 *           ◄───────────────── downstream
 */

import { createConnection, createServer, type Server, type Socket } from "node:net";

export interface TcpProxyOptions {
  /** Where it listens; port 0 for any. */
  readonly listen: { readonly host: string; readonly port: number };
  readonly target: { readonly host: string; readonly port: number };
  /** The address the target shall see. */
  readonly source?: string;
}

export type Direction = "upstream" | "downstream";

interface Lane {
  readonly direction: Direction;
  readonly from: Socket;
  readonly to: Socket;
  /** On their way: chunks, or null for the end of the stream, and when each is due. */
  readonly queue: { readonly dueMs: number; readonly chunk: Buffer | null }[];
}

interface Link {
  readonly client: Socket;
  readonly target: Socket;
}

export class TcpProxy {
  readonly host: string;
  readonly port: number;
  readonly #server: Server;
  readonly #options: TcpProxyOptions;
  readonly #links = new Set<Link>();
  readonly #lost = new Set<Socket>();
  readonly #forwarded: Record<Direction, number> = { upstream: 0, downstream: 0 };
  #delayMs = 0;
  #down = false;
  #silent = false;
  readonly #lanes = new Set<Lane>();
  #cutAt: { direction: Direction; count: number; done: () => void } | null = null;

  private constructor(server: Server, options: TcpProxyOptions) {
    const bound = server.address();
    if (bound === null || typeof bound === "string") throw new Error("not a TCP listener");
    this.host = options.listen.host;
    this.port = bound.port;
    this.#server = server;
    this.#options = options;
    server.on("connection", (client) => this.#accepted(client));
  }

  static listen(options: TcpProxyOptions): Promise<TcpProxy> {
    const server = createServer({ allowHalfOpen: true, noDelay: true });
    return new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen(options.listen, () => resolve(new TcpProxy(server, options)));
    });
  }

  /** Connections that are open now. */
  get linkCount(): number {
    return this.#links.size;
  }

  /** Bytes carried so far, all connections together. */
  forwarded(direction: Direction): number {
    return this.#forwarded[direction];
  }

  /** Resets every connection, and every new one until {@link heal}. */
  cut(): void {
    this.#down = true;
    for (const link of this.#links) {
      link.client.resetAndDestroy();
      link.target.resetAndDestroy();
    }
    for (const socket of this.#lost) socket.destroy();
  }

  /** Cuts the link when `count` more bytes have gone that way: both ends see the stream end just there. */
  cutAfter(direction: Direction, count: number): Promise<void> {
    return new Promise((resolve) => {
      this.#cutAt = { direction, count, done: resolve };
    });
  }

  /** Delivers nothing more, in either direction, and says nothing: a pulled cable. */
  silence(): void {
    this.#silent = true;
    for (const link of this.#links) {
      link.client.pause();
      link.target.pause();
    }
  }

  /** The target's end of every connection closes; the client is not told and waits for ever. */
  halfOpen(): void {
    for (const link of this.#links) {
      this.#links.delete(link);
      this.#lost.add(link.client);
      link.target.removeAllListeners("close");
      link.target.resetAndDestroy();
    }
  }

  /** Carries bytes again: what was silenced goes on, new connections are accepted. */
  heal(): void {
    this.#down = false;
    this.#silent = false;
    for (const lane of this.#lanes) this.#advance(lane);
    for (const link of this.#links) {
      link.client.resume();
      link.target.resume();
    }
  }

  /** Everything takes `ms` longer, each way; the rate is not limited. */
  delay(ms: number): void {
    this.#delayMs = ms;
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
  }

  #accepted(client: Socket): void {
    client.on("error", () => {}); // "close" follows, and is what counts
    if (this.#down) {
      client.resetAndDestroy();
      return;
    }
    const { host, port } = this.#options.target;
    const local = this.#options.source === undefined ? {} : { localAddress: this.#options.source };
    const target = createConnection({ host, port, allowHalfOpen: true, noDelay: true, ...local });
    target.on("error", () => {});
    const link: Link = { client, target };
    this.#links.add(link);
    client.on("close", () => this.#closed(link));
    target.on("close", () => this.#closed(link));
    this.#forward({ direction: "upstream", from: client, to: target, queue: [] });
    this.#forward({ direction: "downstream", from: target, to: client, queue: [] });
    if (this.#silent) {
      client.pause();
      target.pause();
    }
  }

  #closed(link: Link): void {
    this.#lost.delete(link.client);
    if (!this.#links.delete(link)) return;
    link.client.resetAndDestroy();
    link.target.resetAndDestroy();
  }

  #forward(lane: Lane): void {
    this.#lanes.add(lane);
    const add = (chunk: Buffer | null): void => {
      if (this.#lost.has(lane.from)) return;
      lane.queue.push({ dueMs: performance.now() + this.#delayMs, chunk });
      if (lane.queue.length === 1) this.#advance(lane);
    };
    lane.from.on("data", add);
    lane.from.on("end", () => add(null));
    lane.from.on("close", () => this.#lanes.delete(lane));
  }

  /** Delivers what is due, in order, and comes back for the rest. */
  #advance(lane: Lane): void {
    while (!this.#silent) {
      const next = lane.queue[0];
      if (next === undefined) return;
      const waitMs = next.dueMs - performance.now();
      if (waitMs > 0) {
        setTimeout(() => this.#advance(lane), waitMs);
        return;
      }
      lane.queue.shift();
      if (next.chunk === null) lane.to.end();
      else this.#deliver(lane, next.chunk);
    }
  }

  #deliver(lane: Lane, chunk: Buffer): void {
    if (lane.to.destroyed || !lane.to.writable) return;
    const cut = this.#cutAt;
    if (cut !== null && cut.direction === lane.direction) {
      if (chunk.length >= cut.count) {
        this.#cutAt = null;
        this.#down = true;
        this.#forwarded[lane.direction] += cut.count;
        lane.to.end(chunk.subarray(0, cut.count), () => {
          // A reset at once could overtake the last bytes.
          setTimeout(() => {
            for (const link of this.#links) {
              link.client.destroy();
              link.target.destroy();
            }
            cut.done();
          }, 20);
        });
        return;
      }
      cut.count -= chunk.length;
    }
    if (this.#down) return;
    this.#forwarded[lane.direction] += chunk.length;
    if (!lane.to.write(chunk)) {
      lane.from.pause();
      lane.to.once("drain", () => {
        if (!this.#silent) lane.from.resume();
      });
    }
  }
}

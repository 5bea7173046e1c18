// SPDX-License-Identifier: BSD-2-Clause
/**
 * Fresh TCP connections, read to the byte.
 *
 * A net.Socket reads ahead, and what it has read is lost when the socket goes to another process.
 * So an accepted socket is left paused, and wrapped anew with a buffer of our own that has exactly
 * the size of what comes next: head, body, and then the single byte that nobody should send.
 */

import { lookup } from "node:dns/promises";
import { createServer, type Server, Socket } from "node:net";
import { assert } from "../../base/assert.ts";
import {
  type HandshakeListener,
  type HandshakeNet,
  type HandshakeSocket,
  HandshakeSocketError,
  type Resolver,
} from "../handshake-socket.ts";
import { canOpen, SPARE_FOR_PEERS, TOO_FEW_DESCRIPTORS } from "./descriptors.ts";
import { bind } from "./net.ts";
import { failureText } from "./net-failure.ts";

/** Connections the kernel may hold for us to accept; more are peers' retries. */
const BACKLOG = 128;

/** Node's wrapper of the descriptor, which net.Socket does not publish. */
interface HandleOwner {
  _handle: Handle | null;
}

interface Handle {
  /** Idempotent. */
  close(): void;
}

export interface ReleasedSocket {
  /** Paused; to be sent. */
  readonly socket: Socket;
  /** Closes this process's descriptor, whether Node has taken it out of the socket or not. */
  readonly close: () => void;
}

export class NodeHandshakeNet implements HandshakeNet {
  async listenHandshake(
    at: { readonly host: string; readonly port: number },
    accepted: (socket: HandshakeSocket) => void,
    failed: (reason: string) => void,
  ): Promise<HandshakeListener> {
    const server = createServer({ pauseOnConnect: true, noDelay: true }, (socket) => {
      if (!canOpen(SPARE_FOR_PEERS)) {
        socket.destroy();
        failed(TOO_FEW_DESCRIPTORS);
        return;
      }
      const wrapped = NodeHandshakeSocket.adopt(socket);
      if (wrapped !== null) accepted(wrapped);
    });
    // Each family has its own socket: one for both would show IPv4 peers as ::ffff:a.b.c.d, and
    // would clash with the IPv4 listener.
    const options = { ...at, ipv6Only: true, backlog: BACKLOG };
    await bind(server, options, tcpText(at.host, at.port));
    server.on("error", (error: NodeJS.ErrnoException) => failed(failureText(error)));
    return { address: boundAddress(server), close: () => server.close() };
  }
}

function boundAddress(server: Server): string {
  const bound = server.address();
  assert(bound !== null && typeof bound === "object");
  return tcpText(bound.address, bound.port);
}

function tcpText(host: string, port: number): string {
  return host.includes(":") ? `tcp://[${host}]:${port}` : `tcp://${host}:${port}`;
}

/**
 *   fresh ─► head ─► body ─► after ─► released (to a worker)
 *     └────────┴───────┴───────┴────► over
 */
type Phase = "fresh" | "head" | "body" | "after" | "released" | "over";

type Ends = Pick<HandshakeSocket, "peer" | "peerHost" | "localHost">;

/** An IPv4-mapped address as IPv4. */
function canonical(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, "");
}

export class NodeHandshakeSocket implements HandshakeSocket {
  readonly peer: string;
  readonly peerHost: string;
  readonly localHost: string;
  /** As accepted, until receive() wraps its handle anew. */
  #socket: Socket;
  #phase: Phase = "fresh";
  #bytes = new Uint8Array(0);
  #filled = 0;
  #bodyLength: (head: Uint8Array) => number = () => 0;
  #settle: { resolve(bytes: Uint8Array): void; reject(error: unknown): void } | null = null;
  #broken: string | null = null;
  #whenBroken: ((reason: string) => void) | null = null;

  /** @param accepted paused, nothing read; @returns null if the peer has already gone */
  static adopt(accepted: Socket): NodeHandshakeSocket | null {
    const { localAddress, remoteAddress, remotePort } = accepted;
    if (localAddress === undefined || remoteAddress === undefined || remotePort === undefined) {
      accepted.destroy();
      return null;
    }
    const peerHost = canonical(remoteAddress);
    const peer = tcpText(peerHost, remotePort);
    return new NodeHandshakeSocket(accepted, {
      peer,
      peerHost,
      localHost: canonical(localAddress),
    });
  }

  /** The plain text of a connection whose TLS ends in another process. @param plain paused, nothing read */
  static behindTls(plain: Socket, ends: Ends): NodeHandshakeSocket {
    return new NodeHandshakeSocket(plain, { ...ends, peer: ends.peer.replace(/^tcp/, "tls") });
  }

  private constructor(accepted: Socket, { peer, peerHost, localHost }: Ends) {
    this.#socket = accepted;
    this.peerHost = peerHost;
    this.localHost = localHost;
    this.peer = peer;
    accepted.on("error", (error: NodeJS.ErrnoException) => this.#fail(failureText(error)));
  }

  async receive(headLength: number, bodyLength: (head: Uint8Array) => number): Promise<Uint8Array> {
    assert(headLength > 0);
    if (this.#phase === "over") throw new HandshakeSocketError("the connection is closed");
    assert(this.#phase === "fresh");
    this.#phase = "head";
    this.#bytes = new Uint8Array(headLength);
    this.#bodyLength = bodyLength;
    return await new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
      this.#rewrap();
    });
  }

  whenBroken(run: (reason: string) => void): void {
    if (this.#phase === "over") {
      if (this.#broken !== null) run(this.#broken);
      return;
    }
    this.#whenBroken = run;
  }

  write(bytes: Uint8Array): void {
    if (this.#phase !== "over") this.#socket.write(bytes);
  }

  end(): void {
    if (this.#phase === "over") return;
    this.#close("the connection was closed here");
    this.#socket.destroySoon();
  }

  destroy(): void {
    if (this.#phase === "over" || this.#phase === "released") return;
    this.#close("the connection was closed here");
    this.#socket.destroy();
  }

  /** The socket to send to another process; nothing of it is read any more. Null if it is closed. */
  release(): ReleasedSocket | null {
    if (this.#phase === "over") return null;
    assert(this.#phase === "after");
    this.#phase = "released";
    this.#whenBroken = null;
    const socket = this.#socket;
    socket.pause();
    const handle = (socket as unknown as HandleOwner)._handle;
    const close = () => {
      socket.destroy();
      handle?.close();
    };
    return { socket, close };
  }

  #rewrap(): void {
    const accepted = this.#socket as unknown as HandleOwner;
    const handle = accepted._handle;
    assert(handle !== null);
    accepted._handle = null;
    this.#socket.destroy();
    this.#socket = new Socket({
      // The published options know a descriptor only, which would have to be duplicated first.
      ...({ handle, pauseOnCreate: true } as object),
      allowHalfOpen: true,
      onread: {
        buffer: () => this.#space(),
        callback: (length) => this.#received(length),
      },
    });
    this.#socket.on("error", (error: NodeJS.ErrnoException) => this.#fail(failureText(error)));
    this.#socket.on("end", () => this.#fail("the peer closed the connection"));
    this.#socket.on("close", () => this.#fail("the connection was lost"));
    this.#socket.resume();
  }

  #space(): Uint8Array {
    return this.#filled < this.#bytes.length
      ? this.#bytes.subarray(this.#filled)
      : // What comes now belongs to nobody.
        new Uint8Array(1);
  }

  /** @returns whether to go on reading */
  #received(length: number): boolean {
    if (this.#phase === "after") {
      this.#fail("the peer sent more than its handshake message");
      return false;
    }
    if (this.#phase !== "head" && this.#phase !== "body") return false;
    this.#filled += length;
    if (this.#filled < this.#bytes.length) return true;
    if (this.#phase === "head") {
      this.#phase = "body";
      let bodyLength: number;
      try {
        bodyLength = this.#bodyLength(this.#bytes);
      } catch (error) {
        this.#settle?.reject(error);
        this.#settle = null;
        return false;
      }
      if (bodyLength > 0) {
        const whole = new Uint8Array(this.#bytes.length + bodyLength);
        whole.set(this.#bytes);
        this.#bytes = whole;
        return true;
      }
    }
    this.#phase = "after";
    this.#settle?.resolve(this.#bytes);
    this.#settle = null;
    return true;
  }

  /** The connection is of no use any more, and not by our will. */
  #fail(reason: string): void {
    if (this.#phase === "over" || this.#phase === "released") return;
    const run = this.#whenBroken;
    this.#broken = reason;
    this.#close(reason);
    this.#socket.destroy();
    run?.(reason);
  }

  #close(reason: string): void {
    this.#phase = "over";
    this.#whenBroken = null;
    this.#settle?.reject(new HandshakeSocketError(reason));
    this.#settle = null;
  }
}

export class NodeResolver implements Resolver {
  async lookup(host: string): Promise<readonly string[]> {
    try {
      const addresses = await lookup(host, { all: true });
      return addresses.map(({ address }) => address);
    } catch {
      // Unknown name, silent server: in either case nobody can be recognised by it now.
      return [];
    }
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * A Stream over an established TLS connection.
 *
 *   kernel ─► OpenSSL ─► chunk ─copied─► reader.space() ─► reader.received()
 *
 * Node decrypts into buffers of its own, 16 KiB at a time. What a paused reader does not take waits here,
 * one chunk at most; behind it Node stops reading.
 */

import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { assert } from "../../base/assert.ts";
import type { Stream, StreamReader } from "../net.ts";
import { failureText } from "./net-failure.ts";
import { SentReports } from "./sent-reports.ts";

export class TlsStream implements Stream {
  readonly peer: string;
  readonly #socket: TLSSocket;
  readonly #sent: SentReports = new SentReports();
  #reader: StreamReader | null = null;
  /** Decrypted, and not yet taken. */
  #left: Uint8Array = NOTHING;
  #paused = false;
  #delivering = false;
  /** end() was called: what still comes is thrown away. */
  #lingering = false;
  /** No more writes: ended here, ended by the peer, or closed. */
  #ended = false;
  #destroyed = false;
  /** The socket has closed; the reader hears of it once it has taken everything. */
  #gone = false;
  #closed = false;
  #failure: string | null = null;

  /** @param socket established and paused: the reader's memory is not known yet */
  constructor(socket: TLSSocket, peer: string) {
    this.peer = peer;
    this.#socket = socket;
    socket.on("end", () => {
      this.#ended = true;
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.#ended = true;
      this.#failure ??= failureText(error);
    });
    socket.on("close", () => {
      this.#ended = true;
      this.#gone = true;
      this.#maybeClosed();
    });
  }

  start(reader: StreamReader): void {
    assert(this.#reader === null);
    this.#reader = reader;
    this.#socket.on("data", (chunk: Uint8Array) => {
      if (this.#lingering) return;
      assert(this.#left.length === 0);
      this.#left = chunk;
      this.#deliver();
    });
    if (!this.#paused) this.#socket.resume();
    this.#sent.start(reader);
    if (this.#gone) process.nextTick(() => this.#maybeClosed());
  }

  #deliver(): void {
    if (this.#delivering) return;
    this.#delivering = true;
    while (this.#left.length > 0 && !this.#paused && !this.#destroyed) {
      const space = this.#reader!.space();
      const length = Math.min(space.length, this.#left.length);
      space.set(this.#left.subarray(0, length));
      this.#left = this.#left.subarray(length);
      this.#reader!.received(length);
    }
    this.#delivering = false;
    if (this.#left.length > 0) this.#socket.pause();
    else if (!this.#paused && !this.#destroyed) this.#socket.resume();
    this.#maybeClosed();
  }

  write(bytes: Uint8Array): void {
    if (this.#ended) return;
    this.#socket.write(bytes, this.#sent.written);
  }

  writeAll(pieces: readonly Uint8Array[]): void {
    if (this.#ended) return;
    this.#socket.cork();
    for (const piece of pieces) this.#socket.write(piece, this.#sent.written);
    this.#socket.uncork();
  }

  pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    if (this.#reader !== null) this.#socket.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (this.#reader === null || this.#destroyed) return;
    process.nextTick(() => {
      if (!this.#paused && !this.#destroyed) this.#deliver();
    });
  }

  /**
   * Not destroySoon(): bytes that nobody has read, if only the session tickets that a server of TLS 1.3
   * sends unasked, would make the kernel reset the connection, and what was sent be lost.
   */
  end(): void {
    if (this.#destroyed || this.#lingering) return;
    this.#lingering = true;
    this.#paused = true;
    this.#left = NOTHING;
    this.#ended = true;
    linger(this.#socket);
  }

  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#ended = true;
    this.#sent.stop();
    this.#left = NOTHING;
    this.#failure ??= "closed by this side";
    this.#socket.destroy();
  }

  #maybeClosed(): void {
    if (!this.#gone || this.#closed || this.#reader === null || this.#delivering) return;
    // A paused reader takes the rest first: what was received whole is applied.
    if (this.#left.length > 0) return;
    this.#closed = true;
    this.#sent.stop();
    this.#reader.closed(this.#failure);
  }
}

/** How long the peer may take to close after it has everything. */
const LINGER_MS = 5_000;

/** Ends a connection whose peer shall get all of it: reads, and throws away, until that has closed, too. */
export function linger(socket: Socket): void {
  const wait = () => void setTimeout(() => socket.destroy(), LINGER_MS).unref();
  socket.end(wait); // a peer that does not read may delay that
  socket.on("end", () => socket.destroySoon());
  socket.resume();
}

const NOTHING: Uint8Array = new Uint8Array(0);

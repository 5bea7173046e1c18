// SPDX-License-Identifier: BSD-2-Clause
/**
 * A Stream over one of Node's sockets, TCP or unix, whose bytes land where the reader wants them.
 *
 *   kernel ─► reader.space() ─► reader.received()       no buffer of Node's in between
 *
 * Node reads into the caller's memory (`onread`) only on sockets that it makes itself, and asks for it
 * when it makes them. So the socket's handle is moved into a new Socket. And Node asks for the next
 * buffer right after each read, paused or not; where there is no reader to ask, or it has paused, one
 * byte of our own stands in, so that nothing is read beyond what space() has room for.
 */
import net from "node:net";
import { assert } from "../../base/assert.ts";
import type { Stream, StreamReader } from "../net.ts";
import { failureText } from "./net-failure.ts";
import { SentReports } from "./sent-reports.ts";

/**
 * A TCP peer that has been silent for so long is asked whether it is there, and so often before it is
 * given up: a machine that lost its power never says goodbye, and there is room for few NBD clients.
 */
const KEEPALIVE_AFTER_MS = 60_000;
const KEEPALIVE_INTERVAL_MS = 10_000;
const KEEPALIVE_COUNT = 6;

/** A socket's handle: Node's internal, and what its own child_process moves between sockets too. */
interface HandleOwner {
  _handle: object | null;
}

/**
 * Makes a stream of a connected socket that has not been read from: one just accepted (with
 * `pauseOnConnect`) or connected (after pause()), or one received from the parent process, in the
 * very callback that brought it. The socket is empty afterwards.
 */
export function adoptSocket(socket: net.Socket, peer: string): Stream {
  assert(socket.readableLength === 0, "bytes have been read from the socket already");
  const handle = takeHandle(socket);
  assert(
    handle !== null,
    "the socket has no handle: it is closed, or this Node keeps it elsewhere",
  );
  return new SocketStream(handle, peer);
}

function ignoreError(): void {}

/**
 * The opposite: a socket again, paused, for whoever goes on with it. The stream must have paused, and its
 * writes been reported sent; it is empty afterwards. Null where the connection has closed.
 */
export function releaseSocket(stream: Stream): net.Socket | null {
  assert(stream instanceof SocketStream);
  const handle = stream.release();
  return handle === null ? null : socketOf(handle);
}

/** A socket with another one's handle, of which nothing is read before somebody asks. */
export function socketOf(handle: object): net.Socket {
  // The published options know a descriptor only, which would have to be duplicated first.
  return new net.Socket({ handle, pauseOnCreate: true } as net.SocketConstructorOpts);
}

/** Takes the handle out of a socket; null where it has closed. */
export function takeHandle(socket: net.Socket): object | null {
  const owner = socket as unknown as HandleOwner;
  const handle = owner._handle;
  if (handle === null) return null;
  owner._handle = null;
  socket.on("error", ignoreError); // it has nothing left to fail
  socket.destroy(); // so that its server, if any, counts it out
  return handle;
}

class SocketStream implements Stream {
  readonly peer: string;
  readonly #socket: net.Socket;
  /** Where Node reads while nobody can be asked for space. */
  readonly #oneByte = new Uint8Array(1);
  readonly #sent: SentReports = new SentReports();
  #reader: StreamReader | null = null;
  #paused = false;
  /** No more writes: ended here, ended by the peer, or closed. */
  #ended = false;
  #destroyed = false;
  #failure: string | null = null;
  #closed = false;

  constructor(handle: object, peer: string) {
    this.peer = peer;
    this.#socket = new net.Socket({
      handle,
      readable: true,
      writable: true,
      pauseOnCreate: true,
      onread: {
        buffer: () => this.#nextSpace(),
        callback: (length: number, bytes: Uint8Array) => this.#onRead(length, bytes),
      },
    } as net.SocketConstructorOpts);
    this.#socket.setNoDelay(true);
    this.#socket.setKeepAlive(true, KEEPALIVE_AFTER_MS, KEEPALIVE_INTERVAL_MS, KEEPALIVE_COUNT);
    this.#socket.on("end", () => {
      this.#ended = true;
    });
    this.#socket.on("error", (error: NodeJS.ErrnoException) => {
      this.#ended = true;
      this.#failure ??= failureText(error);
    });
    this.#socket.on("close", () => this.#onClose());
  }

  start(reader: StreamReader): void {
    assert(this.#reader === null);
    this.#reader = reader;
    if (this.#closed) {
      process.nextTick(() => reader.closed(this.#failure));
      return;
    }
    this.#sent.start(reader);
    if (!this.#paused && !this.#destroyed) this.#socket.resume();
  }

  #nextSpace(): Uint8Array {
    if (this.#reader === null || this.#paused || this.#destroyed) return this.#oneByte;
    return this.#reader.space();
  }

  #onRead(length: number, bytes: Uint8Array): boolean {
    if (this.#destroyed) return false;
    const reader = this.#reader!;
    if (bytes === this.#oneByte) reader.space()[0] = bytes[0]!;
    reader.received(length);
    return !this.#paused;
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
    if (this.#reader !== null && !this.#destroyed) this.#socket.resume();
  }

  end(): void {
    if (this.#destroyed) return;
    this.pause();
    this.#ended = true;
    this.#socket.destroySoon();
  }

  /** See releaseSocket(). */
  release(): object | null {
    assert(this.#paused);
    const gone = this.#destroyed || this.#closed;
    this.#destroyed = this.#ended = this.#closed = true;
    this.#sent.stop();
    return gone ? null : takeHandle(this.#socket);
  }

  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#ended = true;
    this.#sent.stop();
    this.#failure ??= "closed by this side";
    this.#socket.destroy();
  }

  #onClose(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#ended = true;
    this.#sent.stop();
    this.#reader?.closed(this.#failure);
  }
}

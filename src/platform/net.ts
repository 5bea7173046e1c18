// SPDX-License-Identifier: BSD-2-Clause
/** Byte streams between machines, and on one machine. */

import type { ExpectedPeer } from "./tls.ts";

export interface StreamReader {
  /**
   * Where the next bytes shall go: at least one byte of room, untouched until received() or closed().
   * Asked for when reading starts or resumes, and right after received(), unless that paused.
   * Not a byte more than fits is taken from the connection.
   */
  space(): Uint8Array;
  /** `length` bytes now lie at the beginning of what space() last returned. */
  received(length: number): void;
  /** `count` more write() calls, oldest first, have left our memory: their bytes may be reused. */
  sent(count: number): void;
  /**
   * The last call, whoever closed, and never from inside a call of ours: null after an orderly end, else
   * why ("connection reset by peer", "closed by this side"). Writes not reported sent are void.
   */
  closed(reason: string | null): void;
}

export interface Stream {
  /** For messages: "tcp://10.0.0.1:8457", "unix:///run/hast/r0.sock". */
  readonly peer: string;
  /** Begins to read. Called once; streams arrive paused. */
  start(reader: StreamReader): void;
  /**
   * Sends `bytes`, which must not change until reported sent. Never reports from inside this call.
   * After end() or the peer's end, before closed(), it does nothing.
   */
  write(bytes: Uint8Array): void;
  /** Sends several pieces with one system call; counts as `pieces.length` writes. */
  writeAll(pieces: readonly Uint8Array[]): void;
  /**
   * Stops reading at once: no received() follows until resume(), which asks for space() anew, so
   * that a paused reader may move its buffer. Both idempotent.
   */
  pause(): void;
  resume(): void;
  /** Stops received() calls, sends what is queued, then closes; a peer that does not read delays that for ever. */
  end(): void;
  /** Closes at once: of the reader's calls only closed() still comes, later. Idempotent. */
  destroy(): void;
}

export interface Listener {
  /** The address as bound, with its real port. */
  readonly address: string;
  close(): void;
}

/** Who may use a UNIX socket. */
export interface SocketAccess {
  /** Permission bits. */
  readonly mode: number;
  /** Ids of its owner and its group; null for our own. */
  readonly user: number | null;
  readonly group: number | null;
}

export interface ConnectOptions {
  /** Local address to connect from, as in hast.conf `source`, or null. */
  readonly source: string | null;
  readonly timeoutMs: number;
  /** Whom a tls:// address has to lead to. */
  readonly expected?: ExpectedPeer;
}

/** A client's connection after STARTTLS. */
export interface SecuredClient {
  readonly stream: Stream;
  /** Why its certificate will not do, for people, without a full stop; null = it does. */
  readonly refusal: string | null;
}

export interface Net {
  /**
   * Connects to a HAST address ("tcp://host:port", "unix:///path"; see wire/address.ts).
   * `done` is called once, later; the result is a stream, or the reason in words ("connection refused").
   * @returns a function that abandons the attempt; `done` is then not called
   */
  connect(
    address: string,
    options: ConnectOptions,
    done: (result: Stream | NetFailure) => void,
  ): () => void;
  /**
   * Listens; rejects with {@link NetError} when the address cannot be bound. A stale unix socket is
   * replaced; its directory is made if only that is missing.
   *
   * @param accepted `user` is the id of the user who connected to a UNIX socket, -1 if the kernel does
   *   not say; null for TCP
   * @param failed a connection could not be accepted (no descriptors left, …); listening goes on
   * @param access of a UNIX socket; left out, it is our own user's alone
   */
  listen(
    address: string,
    accepted: (stream: Stream, user: number | null) => void,
    failed: (reason: string) => void,
    access?: SocketAccess,
  ): Promise<Listener>;
  /**
   * Goes on with TLS on an accepted TCP stream: started, paused, everything written reported sent. The
   * stream is no longer the caller's; its reader hears nothing more. `done` is called once, later.
   * Absent where nobody is configured to ask for it.
   * @returns a function that ends it; `done` then hears of a failure
   */
  startTls?(
    stream: Stream,
    timeoutMs: number,
    done: (result: SecuredClient | NetFailure) => void,
  ): () => void;
}

export interface NetFailure {
  readonly failure: string;
}

export class NetError extends Error {
  override readonly name = "NetError";
  /** "EADDRINUSE", "EACCES", …, or "EINVAL" for an address that cannot be parsed or resolved. */
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

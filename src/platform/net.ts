// SPDX-License-Identifier: BSD-2-Clause
/** Byte streams between machines, and on one machine. */

export interface StreamReader {
  /**
   * Where the next bytes shall go, left alone until received(), pause() or closed(). May be empty
   * if the stream has been paused.
   */
  space(): Uint8Array;
  /** `length` bytes now lie at the beginning of what space() last returned. */
  received(length: number): void;
  /** `count` more write() calls, oldest first, have left our memory: their bytes may be reused. */
  sent(count: number): void;
  /** The last call, whoever closed: null after an orderly end, else why. Writes not reported sent are void. */
  closed(reason: string | null): void;
}

export interface Stream {
  /** For messages: "tcp://10.0.0.1:8457", "unix:///run/hast/r0.sock". */
  readonly peer: string;
  /** Begins to read. Called once; streams arrive paused. */
  start(reader: StreamReader): void;
  /** Sends `bytes`, which must not change until reported sent. Never reports from inside this call. */
  write(bytes: Uint8Array): void;
  /** Sends several pieces with one system call; counts as `pieces.length` writes. */
  writeAll(pieces: readonly Uint8Array[]): void;
  /**
   * Stops reading at once: no received() follows until resume(), which asks for space() anew, so
   * that a paused reader may move its buffer. Both idempotent.
   */
  pause(): void;
  resume(): void;
  /** Sends what is queued, then closes. */
  end(): void;
  /** Closes at once. */
  destroy(): void;
}

export interface Listener {
  /** The address as bound, with its real port. */
  readonly address: string;
  close(): void;
}

export interface ConnectOptions {
  /** Local address to connect from, as in hast.conf `source`, or null. */
  readonly source: string | null;
  readonly timeoutMs: number;
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
  /** Listens; rejects with {@link NetError} when the address cannot be bound. A stale unix socket is replaced. */
  listen(address: string, accepted: (stream: Stream) => void): Promise<Listener>;
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

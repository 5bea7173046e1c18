// SPDX-License-Identifier: BSD-2-Clause
/**
 * A TCP connection on its way from the listener to a worker.
 *
 * The main daemon reads exactly one message from it and writes at most one. Bytes that follow the
 * message stay in the kernel, where the worker will find them, or reveal a peer that does not
 * keep to the protocol: whoever holds the socket is told of the first such byte.
 */

export interface HandshakeSocket {
  /** For messages: "tcp://10.0.0.2:40112". */
  readonly peer: string;
  /** The peer's address in canonical form, an IPv4-mapped one as IPv4: "10.0.0.2", "2001:db8::1". */
  readonly peerHost: string;
  /** This node's address that the peer has reached, likewise. */
  readonly localHost: string;
  /**
   * Receives the one message: `headLength` (> 0) bytes, then as many as `bodyLength` says (≥ 0) when
   * it is given the head, and not a byte more. Called once.
   *
   * @returns head and body in one array
   * @throws HandshakeSocketError when the connection ends or is destroyed before that, or whatever
   *   `bodyLength` threw; the caller destroys the socket
   */
  receive(headLength: number, bodyLength: (head: Uint8Array) => number): Promise<Uint8Array>;
  /**
   * Calls `run` once if, after the message, the peer closes, the connection fails or a byte arrives;
   * at once if that has already happened. Not after destroy(), end() or being sent to a worker.
   */
  whenBroken(run: (reason: string) => void): void;
  write(bytes: Uint8Array): void;
  /** Sends what is queued, then closes without waiting for the peer. */
  end(): void;
  /** Closes at once. Idempotent. */
  destroy(): void;
}

export class HandshakeSocketError extends Error {
  override readonly name = "HandshakeSocketError";
}

export interface HandshakeListener {
  /** The address as bound, with its real port. */
  readonly address: string;
  close(): void;
}

export interface HandshakeNet {
  /**
   * Listens on one address of one family.
   *
   * @param host an IP address, or a name whose first address counts
   * @param port 0 for one of the kernel's choice
   * @param failed called when a connection could not be accepted; listening goes on
   * @throws NetError when it cannot be bound: "EADDRINUSE", "EAFNOSUPPORT", …
   */
  listenHandshake(
    at: { readonly host: string; readonly port: number },
    accepted: (socket: HandshakeSocket) => void,
    failed: (reason: string) => void,
  ): Promise<HandshakeListener>;
}

export interface Resolver {
  /**
   * Every address of a host name; of a literal address, its canonical form.
   * @returns an empty list when the name has none, or cannot be resolved now
   */
  lookup(host: string): Promise<readonly string[]>;
}

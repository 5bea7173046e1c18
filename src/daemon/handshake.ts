// SPDX-License-Identifier: BSD-2-Clause
/**
 * One resource's two connections from its primary: A, from its P1 until B's P2 shows that both are one's.
 *
 *   P1 on A ─► begin ─► the old worker stops ─► accept: S1 on A, half-open (20 s) ─► P2 on B ─► complete
 *                └────────────────────────────────────┴─► refuse, drop: nothing is left of it
 *
 * The newest attempt counts. Before it comes here, handshake-server.ts has asked whose connection it is.
 * Source: FreeBSD sbin/hastd/hastd.c, listen_accept(); wire protocol §6.3.
 */

import { assert } from "../base/assert.ts";
import type { Clock, Timer } from "../platform/clock.ts";
import type { Entropy } from "../platform/entropy.ts";
import type { HandshakeSocket } from "../platform/handshake-socket.ts";
import type { Log } from "../platform/log.ts";
import type { Role } from "../wire/control.ts";
import { EXTENSIONS } from "../wire/extensions.ts";
import { encodeS1, type P1, type P2, type Refusal, TOKEN_SIZE } from "../wire/handshake.ts";

/** How long a half-open connection A waits for its P2. */
export const HALF_OPEN_TIMEOUT_MS = 20_000;

const VERSION_MIN = 1;
const VERSION_MAX = 2;

/** Connection A, and what was agreed upon on it. */
export interface Attempt {
  readonly socket: HandshakeSocket;
  readonly version: number;
  readonly extensions: bigint;
  readonly term: bigint;
  /** When its P1 came, by the monotonic clock. */
  readonly at: number;
}

export class Handshake {
  readonly #subject: { readonly log: Log };
  readonly #clock: Clock;
  readonly #entropy: Entropy;
  #attempt: Attempt | null = null;
  /** Null until S1 has been sent: the old worker still lives. */
  #token: Uint8Array | null = null;
  #expiry: Timer | null = null;

  /** @param subject whose log it is, asked each time: it changes with the role */
  constructor(subject: { readonly log: Log }, clock: Clock, entropy: Entropy) {
    this.#subject = subject;
    this.#clock = clock;
    this.#entropy = entropy;
  }

  /** The one under way, or null. */
  get attempt(): Attempt | null {
    return this.#attempt;
  }

  /** P1 has come on `socket`. Nothing is answered yet; an earlier attempt is over. */
  begin(socket: HandshakeSocket, p1: P1): Attempt {
    this.drop(`replaced by ${socket.peer}`);
    const attempt: Attempt = {
      socket,
      version: Math.min(p1.version === 0 ? VERSION_MIN : p1.version, VERSION_MAX),
      extensions: p1.extensions & EXTENSIONS,
      term: p1.term,
      at: this.#clock.now(),
    };
    this.#attempt = attempt;
    socket.whenBroken((reason) => {
      if (this.#attempt === attempt) this.drop(reason);
    });
    return attempt;
  }

  /** The resource has room for it: S1. */
  accept(): void {
    const attempt = this.#attempt;
    assert(attempt !== null);
    const { socket, version, extensions } = attempt;
    const token = new Uint8Array(TOKEN_SIZE);
    this.#entropy.fill(token);
    this.#token = token;
    this.#expiry = this.#clock.after(HALF_OPEN_TIMEOUT_MS, () =>
      this.drop(`no second connection within ${HALF_OPEN_TIMEOUT_MS / 1000} s`),
    );
    socket.write(encodeS1({ kind: "accepted", version, token, extensions }));
    this.#subject.log.debug(1, `Half-open connection from ${socket.peer}, version ${version}.`);
  }

  /**
   * P2 has come on `socket`.
   *
   * @returns the attempt that it completes, whose connection is the caller's from now on; or why it
   *   completes none, and connection A, if that is its own, has been told and closed
   */
  complete(socket: HandshakeSocket, p2: P2): Attempt | Refusal {
    const attempt = this.#attempt;
    const token = this.#token;
    if (attempt === null || token === null || !equalBytes(token, p2.token)) {
      const refusal = refuse("Token doesn't match.");
      // The primary waits for its answer on A. Only its own host may spoil its attempt.
      if (token !== null && attempt?.socket.peerHost === socket.peerHost) this.refuse(refusal);
      return refusal;
    }
    if (p2.resuid === 0n) {
      const refusal = refuse("Resource unique ID is missing.");
      this.refuse(refusal);
      return refusal;
    }
    this.#forget();
    return attempt;
  }

  /** Tells the peer on A why, and closes it. */
  refuse(refusal: Refusal): void {
    const attempt = this.#attempt;
    if (attempt === null) return;
    this.#forget();
    const { socket } = attempt;
    this.#subject.log.debug(1, `Connection from ${socket.peer} refused: ${refusal.errmsg}`);
    socket.write(encodeS1(refusal));
    socket.end();
  }

  /** Closes A without a word. */
  drop(reason: string): void {
    const attempt = this.#attempt;
    if (attempt === null) return;
    this.#forget();
    const { socket } = attempt;
    this.#subject.log.debug(1, `Half-open connection from ${socket.peer} closed: ${reason}`);
    socket.destroy();
  }

  #forget(): void {
    this.#attempt = null;
    this.#token = null;
    this.#expiry?.cancel();
    this.#expiry = null;
  }
}

/** An answer to P1 or P2 other than the one hoped for. */
export function refuse(errmsg: string): Refusal {
  return { kind: "refused", errmsg, wait: false };
}

/** Source: FreeBSD sbin/hastd/hastd.c, listen_accept(). */
export function roleRefusal(role: Role): Refusal {
  const errmsg = `Remote node acts as ${role} for the resource and not as secondary.`;
  return { kind: "refused", errmsg, wait: role === "primary" };
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let index = 0; index < a.length; index++) difference |= a[index]! ^ b[index]!;
  return difference === 0;
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * Where incoming TLS ends: between the kernel and whoever speaks HAST, in a process of its own.
 *
 *   peer ══TLS══ relay ──socket pair── hastd (first message), then the resource's worker
 *
 * The plain end is a socket like any other, so the daemon and the worker deal with it as with plain TCP.
 * A connection ends here as soon as either side of it does: HAST knows no half-closed ones.
 */

import { Socket } from "node:net";
import { getSystemErrorMessage } from "node:util";
import type { Credentials, ExpectedPeer } from "../tls.ts";
import { tlsOptions } from "./certificate.ts";
import { socketPair } from "./libc.ts";
import { peerRefusal, serveTls, setUp } from "./net.ts";
import { linger } from "./tls-stream.ts";

/** From hastd, with the connection: its ClientHello has been read. */
export interface Terminate {
  readonly kind: "terminate";
  readonly id: number;
  readonly hello: Uint8Array;
  readonly expected: ExpectedPeer & { readonly host: string };
  readonly credentials: Credentials;
  readonly timeoutMs: number;
}

/** To hastd; the first comes with the plain end. */
export type FromRelay =
  | { readonly kind: "terminated"; readonly id: number; readonly refusal: string | null }
  | { readonly kind: "failed"; readonly id: number; readonly reason: string };

export class TlsRelay {
  readonly #tell: (message: FromRelay, plain?: Socket) => void;
  readonly #idle: () => void;
  #count = 0;

  /** @param idle called whenever the last connection has gone */
  constructor(tell: (message: FromRelay, plain?: Socket) => void, idle: () => void) {
    this.#tell = tell;
    this.#idle = idle;
  }

  get count(): number {
    return this.#count;
  }

  /** @param raw nothing has been read from it since the ClientHello */
  terminate(message: Terminate, raw: Socket): void {
    const { id, hello, expected, credentials, timeoutMs } = message;
    this.#count += 1;
    setUp(raw);
    raw.unshift(hello);
    serveTls(raw, tlsOptions(credentials, credentials.authorities), timeoutMs, (secured) => {
      if ("failure" in secured) {
        this.#tell({ kind: "failed", id, reason: secured.failure });
        this.#gone();
        return;
      }
      const ends = socketPair();
      if (typeof ends === "number") {
        secured.destroy();
        this.#tell({ kind: "failed", id, reason: getSystemErrorMessage(ends) });
        this.#gone();
        return;
      }
      const refusal = peerRefusal(secured, credentials, expected, expected.host);
      const [near, far] = ends;
      couple(secured, new Socket({ fd: near, allowHalfOpen: true }), () => this.#gone());
      this.#tell(
        { kind: "terminated", id, refusal },
        // Not to be read here: hastd gets it as it is.
        new Socket({ fd: far, readable: false }),
      );
    });
  }

  #gone(): void {
    this.#count -= 1;
    if (this.#count === 0) this.#idle();
  }
}

/** How long what one side has sent may take to leave after it has closed. */
const DRAIN_MS = 20_000;

/** Passes bytes both ways until either side has ended and what it sent has left. */
function couple(one: Socket, other: Socket, gone: () => void): void {
  let open = 2;
  let ending = false;
  const pass = (from: Socket, to: Socket) => {
    from.on("error", () => undefined); // "close" follows
    from.pipe(to, { end: false });
    const finish = () => {
      if (ending) return;
      ending = true;
      // Nobody wants what still comes from there.
      to.unpipe(from);
      linger(to);
      from.destroySoon();
      setTimeout(() => to.destroy(), DRAIN_MS).unref();
    };
    from.on("end", finish);
    from.on("close", () => {
      finish();
      open -= 1;
      if (open === 0) gone();
    });
  };
  pass(one, other);
  pass(other, one);
}

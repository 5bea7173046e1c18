// SPDX-License-Identifier: BSD-2-Clause
/**
 * The relays of a daemon: a process for each resource that has incoming TLS, started when needed.
 *
 *   connection, ClientHello ──► relay ──► plain end, verdict
 *
 * One that is stuck, slow or dead concerns its own resource: a connection that it does not answer for in
 * time has failed.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { Socket } from "node:net";
import { assert } from "../../base/assert.ts";
import { type HandshakeSocket, HandshakeSocketError } from "../handshake-socket.ts";
import type { ExpectedPeer, Terminated, TlsTerminator } from "../tls.ts";
import { NodeHandshakeSocket } from "./handshake-socket.ts";
import { workerUserVariable } from "./privileges.ts";
import type { NodeProcessesOptions } from "./process.ts";
import { socketOf, takeHandle } from "./socket-stream.ts";
import type { FromRelay, Terminate } from "./tls-relay.ts";

/** How long the handshake may take, and how much longer its process may be silent about it. */
const TIMEOUT_MS = 15_000;
const SILENCE_MS = 2_000;

export class NodeTlsTerminator implements TlsTerminator {
  readonly #options: NodeProcessesOptions;
  readonly #relays = new Map<string, Relay>();

  /** @param options `script` is the relay's program */
  constructor(options: NodeProcessesOptions) {
    this.#options = options;
  }

  async terminate(
    socket: HandshakeSocket,
    hello: Uint8Array,
    expected: ExpectedPeer & { readonly host: string },
  ): Promise<Terminated> {
    const { resource } = expected;
    let relay = this.#relays.get(resource);
    if (relay === undefined) {
      try {
        relay = new Relay(resource, this.#options, () => this.#relays.delete(resource));
      } catch (error) {
        // Some shortages are thrown, others are events.
        throw new HandshakeSocketError(error instanceof Error ? error.message : String(error));
      }
      this.#relays.set(resource, relay);
    }
    return await relay.terminate(socket, hello, expected);
  }
}

interface Waiting {
  readonly socket: HandshakeSocket;
  readonly settle: (result: Terminated | HandshakeSocketError) => void;
}

class Relay {
  readonly #options: NodeProcessesOptions;
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, Waiting>();
  readonly #forget: () => void;
  #lastId = 0;
  #gone = false;

  constructor(resource: string, options: NodeProcessesOptions, forget: () => void) {
    const { script, output, user } = options;
    this.#options = options;
    this.#forget = forget;
    this.#child = spawn(
      process.execPath,
      ["--disable-sigusr1", script, `hastd: ${resource} (tls)`],
      {
        stdio: ["ignore", output, output, "ipc"],
        env: user === null ? process.env : { ...process.env, ...workerUserVariable(user) },
        serialization: "advanced",
        detached: true,
      },
    );
    // An idle relay is no reason to stay; it goes when we do.
    this.#child.unref();
    this.#child.channel?.unref();
    this.#child.on("message", (message: FromRelay, plain) =>
      this.#heard(message, plain instanceof Socket ? plain : null),
    );
    this.#child.on("error", (error) => this.#end(error.message));
    this.#child.on("close", () => this.#end("the process that ends TLS has died"));
  }

  async terminate(
    socket: HandshakeSocket,
    hello: Uint8Array,
    expected: Terminate["expected"],
  ): Promise<Terminated> {
    assert(socket instanceof NodeHandshakeSocket);
    const { credentials } = this.#options;
    // hastd has them as long as a resource has a tls:// remote.
    assert(credentials !== null);
    const released = socket.release();
    if (released === null) throw new HandshakeSocketError("the connection is closed");
    if (this.#gone || !this.#child.connected) {
      released.close();
      throw new HandshakeSocketError("the process that ends TLS has gone");
    }
    const id = ++this.#lastId;
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        const reason = "the process that ends TLS does not answer, and is killed";
        settle(new HandshakeSocketError(reason));
        // Stopped, or looping: what else goes through it is stuck as well, and the next would be.
        this.#child.kill("SIGKILL");
        this.#end(reason);
      }, TIMEOUT_MS + SILENCE_MS);
      const settle = (result: Terminated | HandshakeSocketError) => {
        clearTimeout(timer);
        this.#waiting.delete(id);
        released.close();
        if (result instanceof HandshakeSocketError) reject(result);
        else resolve(result);
      };
      this.#waiting.set(id, { socket, settle });
      const message: Terminate = {
        kind: "terminate",
        id,
        hello,
        expected,
        credentials,
        timeoutMs: TIMEOUT_MS,
      };
      this.#child.send(message, released.socket, (error) => {
        if (error !== null) settle(new HandshakeSocketError(error.message));
      });
    });
  }

  #heard(message: FromRelay, plain: Socket | null): void {
    // At once: what is read before is lost.
    const handle = plain === null ? null : takeHandle(plain);
    const waiting = this.#waiting.get(message.id);
    if (message.kind === "failed") {
      waiting?.settle(new HandshakeSocketError(message.reason));
      return;
    }
    const socket = handle === null ? null : socketOf(handle);
    if (waiting === undefined) {
      socket?.destroy();
    } else if (socket === null) {
      waiting.settle(new HandshakeSocketError("the connection was lost"));
    } else {
      const { refusal } = message;
      waiting.settle({ socket: NodeHandshakeSocket.behindTls(socket, waiting.socket), refusal });
    }
  }

  #end(reason: string): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#forget();
    if (this.#child.connected) this.#child.disconnect();
    for (const { settle } of [...this.#waiting.values()]) settle(new HandshakeSocketError(reason));
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * Workers as child processes of this one, which talk over Node's IPC channel.
 *
 * When this process goes, whatever the cause, the channel closes and the worker ends itself.
 */

import { type ChildProcess, spawn } from "node:child_process";
import type { HandshakeSocket } from "../handshake-socket.ts";
import {
  type ProcessExit,
  type Processes,
  type ProcessHandler,
  type WorkerIdentity,
  type WorkerProcess,
  workerTitle,
} from "../process.ts";
import type { Credentials } from "../tls.ts";
import { NodeHandshakeSocket, type ReleasedSocket } from "./handshake-socket.ts";
import { type WorkerUser, workerUserVariable } from "./privileges.ts";

export interface NodeProcessesOptions {
  /** Absolute path of the program the worker runs. */
  readonly script: string;
  /** Whether its stdout and stderr are ours; else /dev/null. */
  readonly output: "inherit" | "ignore";
  /** Who they are to become once they have opened what they need; null: nobody else. */
  readonly user: WorkerUser | null;
  /** For TLS; null where no resource wants any. */
  readonly credentials: Credentials | null;
}

/** What each process is told before anything else, and again when they change. */
export interface CredentialsMessage {
  readonly kind: "credentials";
  readonly credentials: Credentials | null;
}

export class NodeProcesses implements Processes {
  readonly #options: NodeProcessesOptions;
  readonly #children = new Set<ChildProcess>();

  constructor(options: NodeProcessesOptions) {
    this.#options = options;
  }

  /** Tells every process the options' credentials. */
  tellCredentials(): void {
    for (const child of this.#children) this.#tellCredentials(child);
  }

  #tellCredentials(child: ChildProcess): void {
    const { credentials } = this.#options;
    const message: CredentialsMessage = { kind: "credentials", credentials };
    if (child.connected) child.send(message, ignoreSendError);
  }

  spawn(identity: WorkerIdentity, handler: ProcessHandler): WorkerProcess {
    const { script, output, user } = this.#options;
    let child: ChildProcess;
    try {
      child = spawn(
        process.execPath,
        // A title may be as long as the arguments were, so the title itself is one. The worker
        // sets it; until then ps(1) shows it at the end of the line.
        ["--disable-sigusr1", script, workerTitle(identity)],
        {
          stdio: ["ignore", output, output, "ipc"],
          env: user === null ? process.env : { ...process.env, ...workerUserVariable(user) },
          serialization: "advanced",
          // A session of its own: Ctrl-C reaches us alone, and we stop the workers in good order.
          detached: true,
        },
      );
    } catch (error) {
      // Some shortages are thrown, others are events.
      const reason = reasonOf(error);
      queueMicrotask(() => handler.exited({ kind: "not-started", reason }));
      return NO_PROCESS;
    }
    this.#children.add(child);
    child.on("close", () => this.#children.delete(child));
    if (this.#options.credentials !== null) this.#tellCredentials(child);
    return new NodeWorkerProcess(child, handler);
  }
}

class NodeWorkerProcess implements WorkerProcess {
  readonly pid: number;
  readonly #child: ChildProcess;
  /**
   * Sockets that were sent. Node closes its copy of each once the worker has confirmed it, but keeps
   * the one that a dying worker did not confirm.
   */
  readonly #sent: ReleasedSocket[] = [];
  #exited = false;

  constructor(child: ChildProcess, handler: ProcessHandler) {
    this.#child = child;
    this.pid = child.pid ?? 0;
    child.on("message", (message) => handler.message(message));
    child.on("error", (error) => {
      // Also raised for a message or a signal that could not be delivered: then the end follows.
      if (this.pid === 0) this.#end(handler, { kind: "not-started", reason: reasonOf(error) });
    });
    // Not "exit", which may come before the last message has been read.
    child.on("close", (code, signal) => {
      this.#end(
        handler,
        signal !== null ? { kind: "signal", signal } : { kind: "code", code: code ?? 0 },
      );
    });
  }

  send(message: object, socket?: HandshakeSocket): void {
    if (socket === undefined) {
      if (this.#child.connected) this.#child.send(message, ignoreSendError);
      return;
    }
    if (!(socket instanceof NodeHandshakeSocket)) throw new TypeError("not a socket of this net");
    const released = socket.release();
    if (released === null) return;
    if (this.#exited || !this.#child.connected) {
      released.close();
      return;
    }
    this.#sent.push(released);
    this.#child.send(message, released.socket, (error) => {
      if (error !== null) released.close();
    });
  }

  kill(signal: "SIGTERM" | "SIGKILL"): void {
    this.#child.kill(signal);
  }

  #end(handler: ProcessHandler, exit: ProcessExit): void {
    if (this.#exited) return;
    this.#exited = true;
    for (const { close } of this.#sent) close();
    this.#sent.length = 0;
    handler.exited(exit);
  }
}

const NO_PROCESS: WorkerProcess = {
  pid: 0,
  send: (_message, socket) => socket?.destroy(),
  kill: () => undefined,
};

/** A message fails when the worker is gone, of which exited() tells. */
function ignoreSendError(): void {}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

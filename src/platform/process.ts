// SPDX-License-Identifier: BSD-2-Clause
/** Worker processes: children of the main daemon, each with a message channel that can also carry a socket. */

import type { HandshakeSocket } from "./handshake-socket.ts";

export type ProcessExit =
  | { readonly kind: "code"; readonly code: number }
  /** "SIGKILL", "SIGSEGV", … */
  | { readonly kind: "signal"; readonly signal: string }
  /** No process came to be: no memory, no descriptors, no such file. */
  | { readonly kind: "not-started"; readonly reason: string };

export interface ProcessHandler {
  /** Something the process sent; its shape has not been checked. */
  message(message: unknown): void;
  /** The last call, exactly once, never from inside spawn(). */
  exited(exit: ProcessExit): void;
}

export interface WorkerProcess {
  /** 0 if the process could not be started; exited() then says why. */
  readonly pid: number;
  /**
   * Sends a message, in order, and with it, if given, a socket, which is no longer ours afterwards:
   * it is closed here once the worker has it, or if the worker is gone.
   */
  send(message: object, socket?: HandshakeSocket): void;
  /** A process that has already gone is not an error. */
  kill(signal: "SIGTERM" | "SIGKILL"): void;
}

export interface WorkerIdentity {
  readonly resource: string;
  readonly role: "primary" | "secondary";
}

export interface Processes {
  /** Never throws: a failure to start is reported by exited(), and concerns this worker only. */
  spawn(identity: WorkerIdentity, handler: ProcessHandler): WorkerProcess;
}

/** What ps(1), pgrep(1) and failover scripts see: behaviour §1. */
export function workerTitle(identity: WorkerIdentity): string {
  return `hastd: ${identity.resource} (${identity.role})`;
}

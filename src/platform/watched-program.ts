// SPDX-License-Identifier: BSD-2-Clause
/** Programs of the operator's: started with an environment of ours, listened to, and ended if need be. */

import type { ProcessExit } from "./process.ts";

export interface ProgramHandler {
  /** One line of its output, without the line feed; a very long one comes in pieces. Also after exited(). */
  line(stream: "stdout" | "stderr", text: string): void;
  /** Once, never from inside start(); what it had printed by then has come before. */
  exited(exit: ProcessExit): void;
}

export interface RunningProgram {
  /** 0 if it could not be started; exited() then says why. */
  readonly pid: number;
  /** Signals the program and all it started, as far as that stayed in its session. */
  kill(signal: "SIGTERM" | "SIGKILL"): void;
}

export interface Programs {
  /**
   * Starts a program in a session of its own, in the directory /, with nothing to read and no
   * descriptor of ours. Never throws: see exited().
   *
   * @param argv its absolute path, then its arguments
   * @param environment added to ours
   */
  start(
    argv: readonly string[],
    environment: Readonly<Record<string, string>>,
    handler: ProgramHandler,
  ): RunningProgram;
}

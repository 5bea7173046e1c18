// SPDX-License-Identifier: BSD-2-Clause
/** Tools that do one thing and end: losetup, umount, … None is waited for without a deadline. */

import { unreachable } from "../base/assert.ts";
import type { Clock } from "../platform/clock.ts";
import type { ProcessExit } from "../platform/process.ts";
import type { Programs } from "../platform/watched-program.ts";

export type Ran =
  | { readonly kind: "done"; readonly output: string }
  /** For people, without a full stop: what it said, or how it ended. */
  | { readonly kind: "failed"; readonly reason: string };

/** Lines of a tool's complaint that are worth repeating. */
const LINES_KEPT = 3;

/**
 * Runs a tool to its end. One that takes too long is killed; in the kernel it may stay for longer, and is
 * not waited for.
 *
 * @param argv the program's absolute path, then its arguments
 * @param timeoutMs > 0
 */
export async function run(
  { programs, clock }: { readonly programs: Programs; readonly clock: Clock },
  argv: readonly string[],
  timeoutMs: number,
): Promise<Ran> {
  const said: string[] = [];
  const output: string[] = [];
  return await new Promise((resolve) => {
    const program = programs.start(
      argv,
      {},
      {
        line: (stream, text) => {
          if (stream === "stdout") output.push(text);
          if (text.trim() !== "") said.push(text.trim());
          if (said.length > LINES_KEPT) said.shift();
        },
        exited: (exit) => {
          timer.cancel();
          if (exit.kind === "code" && exit.code === 0) {
            resolve({ kind: "done", output: output.join("\n") });
          } else {
            resolve({ kind: "failed", reason: `${describeExit(exit)}${quote(said)}` });
          }
        },
      },
    );
    const timer = clock.after(timeoutMs, () => {
      program.kill("SIGKILL");
      const reason = `not finished after ${timeoutMs / 1000} s (pid ${program.pid})${quote(said)}`;
      resolve({ kind: "failed", reason });
    });
  });
}

/** "exit code 1", "killed by SIGKILL", … */
export function describeExit(exit: ProcessExit): string {
  switch (exit.kind) {
    case "code":
      return `exit code ${exit.code}`;
    case "signal":
      return `killed by ${exit.signal}`;
    case "not-started":
      return `it could not be started: ${exit.reason}`;
    default:
      return unreachable(exit);
  }
}

/** What a program said last, to stand behind how it ended. */
export function quote(said: readonly string[]): string {
  return said.length === 0 ? "" : `: ${said.join("; ")}`;
}

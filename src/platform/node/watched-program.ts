// SPDX-License-Identifier: BSD-2-Clause
/** Programs as child processes, with a pipe each for stdout and stderr. */

import { type ChildProcess, spawn } from "node:child_process";
import type { Readable } from "node:stream";
import { StringDecoder } from "node:string_decoder";
import type { ProcessExit } from "../process.ts";
import type { ProgramHandler, Programs, RunningProgram } from "../watched-program.ts";

/** Characters of a line that come in one piece. */
const LINE_MAX = 1000;
/**
 * How long after its end a program's output may take to be read. What it leaves in the background
 * may keep the pipes for ever, and is listened to for as long.
 */
const OUTPUT_WAIT_MS = 500;

export const nodePrograms: Programs = { start };

function start(
  argv: readonly string[],
  environment: Readonly<Record<string, string>>,
  handler: ProgramHandler,
): RunningProgram {
  let child: ChildProcess;
  try {
    child = spawn(argv[0]!, argv.slice(1), {
      cwd: "/",
      env: { ...process.env, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
  } catch (error) {
    // Some shortages are thrown, others are events.
    const reason = error instanceof Error ? error.message : String(error);
    queueMicrotask(() => handler.exited({ kind: "not-started", reason }));
    return { pid: 0, kill: () => undefined };
  }
  const pid = child.pid ?? 0;
  let over = false;
  let timer: NodeJS.Timeout | undefined;
  const end = (exit: ProcessExit) => {
    if (over) return;
    over = true;
    clearTimeout(timer);
    handler.exited(exit);
  };
  child.on("error", (error) => {
    // Also raised for a signal that could not be delivered.
    if (pid === 0) end({ kind: "not-started", reason: error.message });
  });
  child.on("exit", (code, signal) => {
    timer = setTimeout(end, OUTPUT_WAIT_MS, exitOf(code, signal));
  });
  child.on("close", (code, signal) => end(exitOf(code, signal)));
  if (child.stdout !== null) readLines(child.stdout, (text) => handler.line("stdout", text));
  if (child.stderr !== null) readLines(child.stderr, (text) => handler.line("stderr", text));
  return { pid, kill: (signal) => killSession(pid, signal) };
}

function exitOf(code: number | null, signal: string | null): ProcessExit {
  return signal !== null ? { kind: "signal", signal } : { kind: "code", code: code ?? 0 };
}

function readLines(from: Readable, line: (text: string) => void): void {
  const decoder = new StringDecoder("utf8");
  let rest = "";
  from.on("data", (bytes: Buffer) => {
    const lines = (rest + decoder.write(bytes)).split("\n");
    rest = lines.pop()!;
    for (const text of lines) inPieces(text, line);
    while (rest.length >= LINE_MAX) {
      line(rest.slice(0, LINE_MAX));
      rest = rest.slice(LINE_MAX);
    }
  });
  from.on("end", () => {
    if (rest !== "") line(rest);
  });
  // A pipe that breaks says no more; how the program ended is told by other means.
  from.on("error", () => undefined);
}

function inPieces(text: string, line: (text: string) => void): void {
  let at = 0;
  do {
    line(text.slice(at, at + LINE_MAX));
    at += LINE_MAX;
  } while (at < text.length);
}

function killSession(pid: number, signal: "SIGTERM" | "SIGKILL"): void {
  if (pid === 0) return;
  try {
    process.kill(-pid, signal);
  } catch (error) {
    // It went by itself.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

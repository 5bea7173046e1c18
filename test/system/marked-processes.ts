// SPDX-License-Identifier: BSD-2-Clause
/**
 * Finding one's own processes again: a variable in their environment marks them and their children.
 *
 * A daemon that is killed leaves its workers behind, whose ids nobody was told. No process that does
 * not carry the mark is ever signalled.
 */

import { readdirSync, readFileSync } from "node:fs";

const VARIABLE = "HAST_TEST_MARK";

/** Add this to the environment of whatever shall be found. */
export function markedEnvironment(mark: string): NodeJS.ProcessEnv {
  return { ...process.env, [VARIABLE]: mark };
}

/** Ids of living processes (not zombies) whose mark is `mark`, or begins with it and a slash. */
export function markedProcesses(mark: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      const found = markOf(pid);
      return found === mark || found?.startsWith(`${mark}/`);
    });
}

/** SIGKILLs every marked process, until none is left. */
export function killMarked(mark: string): void {
  // A killed parent has no more children; what it forked just before is found by the next look.
  for (let pids = markedProcesses(mark); pids.length > 0; pids = markedProcesses(mark)) {
    for (const pid of pids) signal(pid, "SIGKILL");
  }
}

/** @returns false if there is no such process any more */
export function signal(pid: number, name: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
    throw error;
  }
}

/** What `ps` shows: the command line, or the title that a process gave itself. */
export function titleOf(pid: number): string {
  return readProc(pid, "cmdline")?.replaceAll("\0", " ").trim() ?? "";
}

function markOf(pid: number): string | null {
  const environment = readProc(pid, "environ"); // empty for a zombie
  const entry = environment?.split("\0").find((line) => line.startsWith(`${VARIABLE}=`));
  return entry === undefined ? null : entry.slice(VARIABLE.length + 1);
}

function readProc(pid: number, file: string): string | null {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "latin1");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    if (["ENOENT", "ESRCH", "EACCES"].includes(code)) return null; // gone, or somebody else's
    throw error;
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * Becoming a daemon, for a program that cannot fork.
 *
 *   hastd ──spawns──► hastd, session leader ──"up"──► (parent exits 0) ──► /, /dev/null, syslog
 *                              └─ exits with N ─────► (parent exits N)
 *
 * Until it is up, the child complains to the parent's terminal. Source: daemon(3).
 */

import { spawn } from "node:child_process";
import fs from "node:fs";
import { assert } from "../../base/assert.ts";
import { setCloseOnExec } from "./libc.ts";

/** Tells the child what it is. An option would show in ps(1), and be something to document. */
const MARK = "HASTD_DETACHED";
const UP = "up";
const EX_OSERR = 71;

/**
 * Keeps what we inherited beyond stdio from our children. A script's lock, say, would otherwise be
 * held for as long as any of them lives.
 */
export function keepInheritedDescriptors(): void {
  for (const name of fs.readdirSync("/proc/self/fd")) {
    const fd = Number(name);
    // The directory just read is among them, and closed by now.
    if (fd > 2) setCloseOnExec(fd);
  }
}

/** Starts this program again, detached. @returns the exit code to end with, when the child is up or has failed */
export async function startDetached(): Promise<number> {
  return await new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
      detached: true,
      env: { ...process.env, [MARK]: "1" },
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    child.on("error", reject);
    child.on("message", (message) => {
      if (message !== UP) return;
      child.unref();
      child.disconnect();
      resolve(0);
    });
    child.on("exit", (code) => resolve(code ?? EX_OSERR));
  });
}

/** Whether startDetached() has started us. Answers once: our own children are not meant. */
export function isDetached(): boolean {
  const marked = process.env[MARK] !== undefined && process.connected === true;
  delete process.env[MARK];
  return marked;
}

/**
 * Calls `run` if the parent goes before we are up: somebody pressed Ctrl-C.
 * @returns a function that leaves the terminal, and lets the parent go
 */
export function beginDetach(run: () => void): () => void {
  process.once("disconnect", run);
  return () => {
    process.off("disconnect", run);
    completeDetach();
  };
}

function completeDetach(): void {
  process.chdir("/");
  // stdin is /dev/null already. Lowest free descriptor: the one just closed.
  for (const fd of [1, 2]) {
    fs.closeSync(fd);
    assert(fs.openSync("/dev/null", "w") === fd);
  }
  process.send?.(UP, undefined, {}, () => {
    if (process.connected) process.disconnect?.();
  });
}

// SPDX-License-Identifier: BSD-2-Clause
/** Runs a program to its end and keeps what it said. */

import { spawn } from "node:child_process";
import { constants } from "node:os";

export interface Outcome {
  /** Exit code, or 128 + n where signal n ended it, as a shell has it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  readonly stdin?: string;
  /** Ids of the user and the group it runs as; left out, ours. */
  readonly uid?: number;
  readonly gid?: number;
  /** Then it is killed, and that is an error; default 60 s. */
  readonly withinMs?: number;
}

/** @throws Error when the program cannot be started, or does not end in time */
export function runCommand(
  program: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<Outcome> {
  const withinMs = options.withinMs ?? 60_000;
  const line = [program, ...args].join(" ");
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      env: options.env ?? process.env,
      cwd: options.cwd,
      ...(options.uid === undefined ? {} : { uid: options.uid }),
      ...(options.gid === undefined ? {} : { gid: options.gid }),
      stdio: ["pipe", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    let late = false;
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    const timer = setTimeout(() => {
      late = true;
      child.kill("SIGKILL");
    }, withinMs);
    child.on("error", (error) => {
      clearTimeout(timer);
      reject(new Error(`${line}: ${error.message}`, { cause: error }));
    });
    child.on("close", (code, name) => {
      clearTimeout(timer);
      if (late) {
        reject(new Error(`${line}: not finished after ${withinMs / 1000} s\n${stdout}${stderr}`));
      } else {
        resolve({ code: code ?? 128 + signalNumber(name), stdout, stderr });
      }
    });
    child.stdin.on("error", () => {}); // the program need not read it
    child.stdin.end(options.stdin ?? "");
  });
}

/** Like {@link runCommand}, where anything but exit code 0 is an error. @returns standard output */
export async function expectCommand(
  program: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  const { code, stdout, stderr } = await runCommand(program, args, options);
  if (code !== 0) {
    throw new Error(`${[program, ...args].join(" ")}: exit code ${code}\n${stdout}${stderr}`);
  }
  return stdout;
}

function signalNumber(name: NodeJS.Signals | null): number {
  return name === null ? 0 : constants.signals[name];
}

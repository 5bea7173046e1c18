// SPDX-License-Identifier: BSD-2-Clause
/** Programs as child processes. */

import { spawn } from "node:child_process";
import os from "node:os";
import { getSystemErrorMessage } from "node:util";
import type { RunProgram } from "../program.ts";

export const runProgram: RunProgram = ([program, ...args], input) =>
  new Promise((resolve) => {
    const child = spawn(program!, args, { stdio: ["pipe", "inherit", "inherit"] });
    child.on("error", (error: NodeJS.ErrnoException) => {
      resolve({ failure: getSystemErrorMessage(error.errno ?? 0) });
    });
    child.on("close", (code, signal) => {
      resolve({ exitCode: code ?? 128 + os.constants.signals[signal!] });
    });
    // A program that ends before it has read everything says why in its exit code.
    child.stdin.on("error", () => undefined);
    child.stdin.end(input);
  });

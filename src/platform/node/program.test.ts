// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { runProgram } from "./program.ts";

test("a program gets its input, and its exit code is told", async () => {
  assert.deepEqual(await runProgram(["sh"], "exit 7\n"), { exitCode: 7 });
  assert.deepEqual(await runProgram(["sh", "-c", 'read -r x; exit "$x"'], "8\n"), { exitCode: 8 });
  assert.deepEqual(await runProgram(["true"], ""), { exitCode: 0 });
});

test("a program ended by a signal has 128 and the signal for a code, as in a shell", async () => {
  assert.deepEqual(await runProgram(["sh", "-c", "kill -TERM $$"], ""), { exitCode: 143 });
});

test("a program that does not read is no error, one that does not exist is", async () => {
  assert.deepEqual(await runProgram(["true"], "x".repeat(1 << 20)), { exitCode: 0 });
  assert.deepEqual(await runProgram(["/no/such/program"], ""), {
    failure: "no such file or directory",
  });
});

// SPDX-License-Identifier: BSD-2-Clause
/** The worker program by itself: what becomes of it when something is wrong with it. */

import { strict as assert } from "node:assert";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { test } from "node:test";

test("a worker that fails by its own mistake tells the log where, and the daemon what", async () => {
  const script = join(import.meta.dirname, "../../src/bin/worker.ts");
  const child = spawn(process.execPath, [script, "hastd: r0 (primary)"], {
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    serialization: "advanced",
  });
  const told: unknown[] = [];
  child.on("message", (message) => told.push(message));
  let log = "";
  child.stderr!.on("data", (text) => {
    log += text;
  });
  child.send({ kind: "start", role: "primary" });
  const [code] = await once(child, "close");
  assert.equal(code, 70);
  assert.match(log, /^\[ERROR\] Internal error: TypeError: .*\n +at .*worker\.ts/);
  assert.deepEqual(
    told.map((message) => ({ ...(message as object), message: "" })),
    [{ kind: "failed", exitCode: 70, message: "" }],
  );
});

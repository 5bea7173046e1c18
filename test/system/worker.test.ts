// SPDX-License-Identifier: BSD-2-Clause
/** The worker program by itself: what becomes of it when something is wrong with it. */

import { strict as assert } from "node:assert";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { test } from "node:test";
import { titleOf } from "./marked-processes.ts";
import { until } from "./until.ts";

const SCRIPT = join(import.meta.dirname, "../../src/bin/worker.ts");

function spawnWorker(): ChildProcess {
  return spawn(process.execPath, [SCRIPT, "hastd: r0 (primary)"], {
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    serialization: "advanced",
  });
}

test("SIGHUP for all of hastd does not end its workers", async () => {
  const child = spawnWorker();
  // It listens once it can answer.
  child.send({ kind: "start", role: "secondary", settings: { resource: "r0" }, log: "stdio" });
  await until("the worker has its title", () => titleOf(child.pid!) === "hastd: r0 (secondary)");
  child.kill("SIGHUP");
  child.send({ kind: "stop" });
  assert.deepEqual(await once(child, "close"), [0, null]);
});

test("a worker that fails by its own mistake tells the log where, and the daemon what", async () => {
  const child = spawnWorker();
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

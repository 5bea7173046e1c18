// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { ProcessExit, WorkerIdentity } from "../process.ts";
import { NodeProcesses } from "./process.ts";

const STUB = path.resolve(import.meta.dirname, "../../../test/daemon/stub-worker.ts");

function spawn(t: TestContext, identity: WorkerIdentity, script = STUB) {
  const processes = new NodeProcesses({ script, output: "ignore", user: null, credentials: null });
  const messages: unknown[] = [];
  const ended = Promise.withResolvers<ProcessExit>();
  let arrived: () => void = () => undefined;
  const worker = processes.spawn(identity, {
    message: (message) => {
      messages.push(message);
      arrived();
    },
    exited: ended.resolve,
  });
  t.after(async () => {
    worker.kill("SIGKILL");
    await ended.promise;
  });
  const heard = () =>
    new Promise<void>((resolve) => {
      arrived = resolve;
    });
  return { worker, messages, heard, ended: ended.promise };
}

function commandLine(pid: number): string {
  return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
}

test("a worker's title is what failover scripts look for, however long the name", async (t) => {
  for (const resource of ["r0", "x".repeat(254)]) {
    const identity = { resource, role: "primary" } as const;
    const { worker, heard } = spawn(t, identity);
    assert.match(commandLine(worker.pid), new RegExp(`hastd: ${resource} \\(primary\\)$`));
    const ready = heard();
    worker.send({ kind: "start", role: "primary", settings: { resource } });
    await ready;
    assert.equal(commandLine(worker.pid), `hastd: ${resource} (primary)`);
  }
});

test("BD-44: what a worker tells and answers at the same time arrives whole, and in its order", async (t) => {
  const { worker, messages, heard } = spawn(t, { resource: "chatty", role: "primary" });
  const ready = heard();
  worker.send({ kind: "start", role: "primary", settings: { resource: "chatty" } });
  await ready;
  messages.length = 0;
  const count = 1000;
  for (let id = 0; id < count; id++) worker.send({ kind: "status", id });
  while (messages.length < 3 * count) await heard();
  const told = messages.map((message) => message as { kind: string; id?: number; event?: string });
  const expected = Array.from({ length: count }, (_, id) => ["syncstart", id, "syncdone"]).flat();
  assert.deepEqual(
    told.map(({ event, id }) => event ?? id),
    expected,
  );
});

test("a worker is our child, in a session of its own, and cannot be made to open its inspector", async (t) => {
  const { worker, heard } = spawn(t, { resource: "r0", role: "primary" });
  const ready = heard();
  worker.send({ kind: "start", role: "primary", settings: { resource: "r0" } });
  await ready;
  const [, fields] = /\) (.*)/.exec(readFileSync(`/proc/${worker.pid}/stat`, "utf8"))!;
  const [, parent, group, session] = fields!.split(" ").map(Number);
  assert.equal(parent, process.pid);
  assert.equal(group, worker.pid);
  assert.equal(session, worker.pid);
  assert.equal(process.kill(worker.pid, 0), true);
});

test("the last message is heard before the end is", async (t) => {
  for (let round = 0; round < 3; round++) {
    const { worker, messages, ended } = spawn(t, { resource: "refused", role: "primary" });
    worker.send({
      kind: "start",
      role: "primary",
      settings: { resource: "refused", local: "/disks/x" },
    });
    // We look away until it is dead, so that message and end wait for us together.
    const nap = new Int32Array(new SharedArrayBuffer(4));
    while (!/\) Z /.test(readFileSync(`/proc/${worker.pid}/stat`, "utf8")))
      Atomics.wait(nap, 0, 0, 5);
    assert.deepEqual(await ended, { kind: "code", code: 66 });
    assert.deepEqual(messages, [
      { kind: "failed", exitCode: 66, message: "/disks/x holds no HAST metadata" },
    ]);
  }
});

test("the end by a signal is told as such, and messages to the dead are no error", async (t) => {
  const { worker, ended } = spawn(t, { resource: "r0", role: "primary" });
  worker.kill("SIGKILL");
  assert.deepEqual(await ended, { kind: "signal", signal: "SIGKILL" });
  worker.send({ kind: "stop" });
  worker.kill("SIGTERM");
  await delay(5);
});

test("a program that does not exist ends with a code, and nothing is thrown", async (t) => {
  const { ended } = spawn(t, { resource: "r0", role: "primary" }, "/nonexistent/worker.ts");
  assert.deepEqual(await ended, { kind: "code", code: 1 });
});

test("values that JSON cannot hold reach the worker: bigint in a peer's hello", async (t) => {
  const { worker, heard, messages } = spawn(t, { resource: "r0", role: "primary" });
  const ready = heard();
  worker.send({
    kind: "start",
    role: "primary",
    settings: { resource: "r0" },
    hello: { resuid: 2n ** 64n - 1n },
  });
  await ready;
  assert.deepEqual(messages, [{ kind: "ready" }]);
});

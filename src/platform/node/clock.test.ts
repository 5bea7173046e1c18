// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { nodeClock } from "./clock.ts";

test("after() calls once, not before its delay", async () => {
  const start = nodeClock.now();
  await new Promise<void>((resolve) => nodeClock.after(20, resolve));
  // Timers count whole milliseconds.
  assert.ok(nodeClock.now() - start >= 19);
});

test("cancel() prevents the call, and may be repeated", async () => {
  let called = false;
  const timer = nodeClock.after(1, () => {
    called = true;
  });
  timer.cancel();
  timer.cancel();
  await new Promise<void>((resolve) => nodeClock.after(10, resolve));
  assert.equal(called, false);
});

test("after() waits, rather than firing at once, when the delay exceeds Node's limit", async () => {
  let called = false;
  const timer = nodeClock.after(2 ** 40, () => {
    called = true;
  });
  await new Promise<void>((resolve) => nodeClock.after(10, resolve));
  assert.equal(called, false);
  timer.cancel();
});

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Asked, runCommand } from "../../test/cli/surroundings.ts";
import type { DeedEntry, Order } from "../wire/control.ts";
import { disconnect, invalidate, outdate, resyncRate } from "./orders.ts";

const done = (resource: string, note: string): DeedEntry => ({
  resource,
  outcome: { kind: "done" },
  errmsg: null,
  notes: [note],
});
const failed = (resource: string): DeedEntry => ({
  resource,
  outcome: { kind: "failed", error: 2 },
  errmsg: "it cannot be",
  notes: [],
});

test("each resource is told of, also after a failure", async () => {
  const asked: Asked = { requests: [], opened: [] };
  const entries = [failed("a"), done("b", "disconnected")];
  const given = { order: () => ({ kind: "answered", entries }) as const };
  const { exitCode, out, err } = await runCommand(disconnect, ["a", "b"], given, asked);
  assert.equal(exitCode, 2);
  assert.equal(out, "b: done\n  disconnected\n");
  assert.match(err, /\[a\] it cannot be/);
  assert.deepEqual(asked.requests, [{ order: { kind: "disconnect" }, names: ["a", "b"] }]);
});

test("what would be thrown away is said first; with --dry-run that is all", async () => {
  for (const command of [invalidate, outdate]) {
    const order = (order: Order) => {
      assert("dryRun" in order);
      const note = order.dryRun ? "would be" : "is";
      return { kind: "answered", entries: [done("a", note)] } as const;
    };
    const dry = await runCommand(command, ["--dry-run", "a"], { order });
    assert.match(dry.out, /^a: if this copy is .*\n {2}would be\n$/);
    const real = await runCommand(command, ["a"], { order });
    assert.match(real.out, /^a: if this copy is .*\n {2}would be\na: done\n {2}is\n$/);
    assert.equal(real.exitCode, 0);
  }
});

test("where one copy cannot be thrown away the others are, and the failure is the exit code", async () => {
  const asked: Asked = { requests: [], opened: [] };
  const order = (order: Order) => {
    assert("dryRun" in order);
    const entries = order.dryRun ? [failed("a"), done("b", "plan")] : [done("b", "is")];
    return { kind: "answered", entries } as const;
  };
  const { exitCode, out } = await runCommand(invalidate, ["all"], { order }, asked);
  assert.equal(exitCode, 2);
  assert.match(out, /b: done\n {2}is\n$/);
  assert.deepEqual(asked.requests[1], {
    order: { kind: "invalidate", dryRun: false },
    names: ["b"],
  });
  const none = await runCommand(invalidate, ["a"], {
    order: () => ({ kind: "answered", entries: [failed("a")] }),
  });
  assert.equal(none.exitCode, 2);
});

test("a rate is a size, and stands before the names", async () => {
  const asked: Asked = { requests: [], opened: [] };
  const given = { order: () => ({ kind: "answered", entries: [done("a", "so")] }) as const };
  await runCommand(resyncRate, ["20m", "a"], given, asked);
  assert.deepEqual(asked.requests, [
    { order: { kind: "resync-rate", rate: 20 * 1024 * 1024 }, names: ["a"] },
  ]);
  const none = new Map();
  assert.match(resyncRate.refuse(["a", "b"], none) ?? "", /"a" is no rate/);
  assert.match(resyncRate.refuse(["1m"], none) ?? "", /name the resource, or all/);
  assert.match(resyncRate.refuse([], none) ?? "", /bytes per second/);
});

// SPDX-License-Identifier: BSD-2-Clause
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { until, withDeadline } from "./until.ts";

test("until() returns what the first successful look found", async () => {
  let looks = 0;
  const found = await until("it is there", () => (++looks === 3 ? "it" : null), { everyMs: 1 });
  assert.equal(found, "it");
  assert.equal(looks, 3);
});

test("until() takes 0 and the empty string for findings", async () => {
  assert.equal(await until("zero", () => 0), 0);
  assert.equal(await until("nothing", () => ""), "");
});

test("until() gives up at the deadline and says what it waited for", async () => {
  const waiting = until("pigs fly", () => false, { withinMs: 20, everyMs: 1 });
  await assert.rejects(waiting, { message: "waited 0.02 s in vain until pigs fly" });
});

test("until() passes an error on at once", async () => {
  const look = (): never => {
    throw new Error("no such daemon");
  };
  await assert.rejects(until("it answers", look), { message: "no such daemon" });
});

test("withDeadline() gives up on a promise that does not settle", async () => {
  const never = new Promise<void>(() => {});
  await assert.rejects(withDeadline("it ends", 10, never), { message: /in vain until it ends/ });
  assert.equal(await withDeadline("it ends", 1000, Promise.resolve(7)), 7);
});

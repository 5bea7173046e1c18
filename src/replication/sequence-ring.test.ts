// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { SequenceRing } from "./sequence-ring.ts";

const ROUND = 4096;

test("BD-31: a number leads to its slot until it is forgotten, and is never given again", () => {
  const ring = new SequenceRing();
  const lasting = ring.allocate(7);
  const given = new Set([lasting]);
  for (let index = 0; index < 3 * ROUND; index++) {
    const slot = index % 5;
    const seq = ring.allocate(slot);
    expect.ok(!given.has(seq));
    given.add(seq);
    expect.equal(ring.slotOf(seq), slot);
    ring.forget(seq);
    expect.equal(ring.slotOf(seq), -1);
  }
  expect.equal(ring.slotOf(lasting), 7, "however many came after it");
});

test("BD-31: a number of a lost connection leads nowhere, nor does one that was never given", () => {
  const ring = new SequenceRing();
  const seq = ring.allocate(7);
  ring.forgetAll();
  expect.equal(ring.slotOf(seq), -1);
  const next = ring.allocate(8);
  expect.notEqual(next, seq);
  for (const other of [0, -next, next + 1, next + ROUND, next + 0.5, 2 ** 63, Number.NaN]) {
    expect.equal(ring.slotOf(other), -1, String(other));
  }
  expect.equal(ring.slotOf(next), 8);
});

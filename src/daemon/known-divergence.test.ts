// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { DIVERGENCE, FakeClock } from "../../test/daemon/fakes.ts";
import type { Divergence } from "../engine/worker-messages.ts";
import { KnownDivergence } from "./known-divergence.ts";

const { peer: PRIMARY, refusal: REFUSAL } = DIVERGENCE;

function judged(facts: Divergence = DIVERGENCE): { clock: FakeClock; known: KnownDivergence } {
  const clock = new FakeClock();
  const known = new KnownDivergence(clock);
  assert.equal(known.judged(facts), "new");
  return { clock, known };
}

test("BD-34: a primary with the same counters is answered for a minute", async () => {
  const { clock, known } = judged();
  await clock.advance(59_999);
  assert.equal(known.answerTo(PRIMARY), REFUSAL);
  await clock.advance(1);
  assert.equal(known.answerTo(PRIMARY), null);
});

test("BD-34: a primary with another counter or id is to be judged anew", () => {
  const { known } = judged();
  for (const other of [{ resuid: 8n }, { localcnt: 3n }, { remotecnt: 2n }]) {
    assert.equal(known.answerTo({ ...PRIMARY, ...other }), null);
  }
});

test("what the primary says of its changes meanwhile is kept, for people", () => {
  const { known } = judged();
  const remarks = { dirtyExtents: 5, synced: null, aloneSince: null, lacking: null };
  assert.equal(known.answerTo({ ...PRIMARY, remarks }), REFUSAL);
  assert.deepEqual(known.facts?.peer.remarks, remarks);
});

test("nothing is answered on a primary, nor when a person has decided, nor when it is forgotten", () => {
  assert.equal(judged({ ...DIVERGENCE, refusal: null }).known.answerTo(PRIMARY), null);
  const { known } = judged();
  known.forgetAnswer();
  assert.equal(known.answerTo(PRIMARY), null);
  assert.notEqual(known.facts, null);
  known.forget();
  assert.equal(known.facts, null);
});

test("BD-34: a split-brain is told once, until the nodes have met; a reason is news when it differs", () => {
  const { known } = judged();
  assert.equal(known.tellSplitBrain(), "tell");
  assert.equal(known.judged(DIVERGENCE), "known");
  assert.equal(known.tellSplitBrain(), "told");
  assert.equal(known.judged({ ...DIVERGENCE, reason: "another resource" }), "new");
  known.forget();
  assert.equal(known.tellSplitBrain(), "tell");
  assert.equal(known.judged(DIVERGENCE), "new");
});

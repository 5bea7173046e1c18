// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { discardPlan, type Keeper } from "./discard.ts";
import { judge, type SecondaryRecord } from "./secondary.ts";

const OWN: SecondaryRecord = {
  resuid: 7n,
  localcnt: 2n,
  remotecnt: 0n,
  state: "consistent",
  synced: "written",
};
const KEEPER: Keeper = {
  resuid: 7n,
  localcnt: 3n,
  remotecnt: 0n,
  synced: "written",
  lacking: null,
};

test("S-10: the counter that the peer expects is taken, and the maps' union is enough", () => {
  expect.deepEqual(discardPlan(OWN, KEEPER), {
    kind: "discard",
    record: { ...OWN, localcnt: 0n, state: "outdated" },
    fullBecause: null,
  });
});

test("S-10: typed again, there is nothing left to discard, and nothing that waits to be discarded", () => {
  const first = discardPlan(OWN, KEEPER);
  expect.ok(first.kind === "discard");
  expect.equal(discardPlan(first.record, KEEPER).kind, "nothing");
  // Written again alone, by force: that is a new divergence, and nothing decides it beforehand.
  const later = { ...first.record, localcnt: first.record.localcnt + 1n };
  const judgement = judge(later, { ...KEEPER, states: true, virgin: false, keptHere: false });
  expect.ok(judgement.kind === "refuse" && judgement.splitBrain);
});

test("S-10: a good copy is not thrown away for one that has itself been, or is a mix", () => {
  for (const lacking of ["outdated", "inconsistent"] as const) {
    const keeper = { ...KEEPER, lacking };
    expect.deepEqual(discardPlan(OWN, keeper), { kind: "refuse", keeperIs: lacking });
    for (const state of ["outdated", "inconsistent"] as const) {
      expect.equal(discardPlan({ ...OWN, state }, keeper).kind, "discard", "neither is good");
    }
  }
});

test("S-10: a mix of old and new, thrown away, is one until it has been synchronized", () => {
  // Promoted by force before that it must get an id of its own, as "outdated" would not.
  for (const changes of [{}, { resuid: 8n }, { remotecnt: 4n }]) {
    const plan = discardPlan({ ...OWN, ...changes, state: "inconsistent" }, KEEPER);
    expect.ok(plan.kind === "discard");
    expect.equal(plan.record.state, "inconsistent");
  }
});

test("the union is not relied on where one of the nodes has no record that it is complete", () => {
  const full = (own: Partial<SecondaryRecord>, keeper: Partial<Keeper> = {}): string => {
    const plan = discardPlan({ ...OWN, ...own }, { ...KEEPER, ...keeper });
    expect.ok(plan.kind === "discard");
    expect.equal(plan.record.synced, null);
    return plan.fullBecause ?? "the union is enough";
  };
  expect.match(full({ synced: null }), /this node has no record.*FreeBSD/);
  expect.match(full({}, { synced: null }), /the other node has no record/);
  expect.match(full({ resuid: 8n }), /no history in common/);
  expect.match(full({ resuid: 0n, synced: null }), /no history in common/);
  expect.match(full({ remotecnt: 4n }), /lost or rolled back/);
});

test("a FreeBSD primary that was never connected to this node tracks what it writes alone", () => {
  const plan = discardPlan(OWN, { ...KEEPER, synced: "unknown" });
  expect.ok(plan.kind === "discard" && plan.fullBecause === null);
});

const count = fc.bigInt({ min: 0n, max: 4n });
const synced = fc.constantFrom("written" as const, "filling" as const, "all" as const, null);
const states = ["new", "uptodate", "consistent", "outdated", "inconsistent"] as const;
const copy = fc.record({
  resuid: fc.constantFrom(0n, 7n, 8n),
  localcnt: count,
  remotecnt: count,
  state: fc.constantFrom(...states),
  synced,
});
const keeper = fc.record({
  resuid: fc.constant(7n),
  localcnt: count,
  remotecnt: count,
  synced: fc.oneof(synced, fc.constant("unknown" as const)),
  lacking: fc.constantFrom("outdated" as const, "inconsistent" as const, null),
});

test("whatever the counters: afterwards the ordinary table makes this copy the target", () => {
  fc.assert(
    fc.property(copy, keeper, fc.boolean(), (own, other, virgin) => {
      const plan = discardPlan(own, other);
      const good = own.state !== "outdated" && own.state !== "inconsistent";
      if (plan.kind === "refuse") {
        expect.ok(good && other.lacking !== null);
        return;
      }
      expect.ok(plan.kind === "nothing" || !good || other.lacking === null);
      const after = plan.kind === "nothing" ? own : plan.record;
      const states = other.synced !== "unknown";
      // With no history in common: a primary that was refused makes up another id the next time.
      const strangers = plan.kind === "discard" && own.resuid !== other.resuid;
      const back = strangers ? { ...other, resuid: 9n, virgin } : { ...other, virgin: false };
      const judgement = judge(after, { ...back, states, keptHere: false });
      expect.ok(judgement.kind === "accept", `${judgement.kind}`);
      expect.equal(judgement.source, "primary");
      if (plan.kind === "discard") {
        expect.equal(judgement.map, strangers ? "full" : "own");
        expect.equal(after.state, own.state === "inconsistent" ? own.state : "outdated");
      }
    }),
    { numRuns: 5000 },
  );
});

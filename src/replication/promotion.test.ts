// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { admission, type Candidate } from "./promotion.ts";
import type { DataState } from "./requests.ts";

const STATES: readonly DataState[] = ["new", "uptodate", "consistent", "outdated", "inconsistent"];

function word(state: DataState, changes: Partial<Candidate> = {}): string {
  const candidate = {
    state,
    wasPrimary: false,
    unused: false,
    met: false,
    sole: false,
    trust: "unknown",
    hasRemote: true,
  } as const;
  const verdict = admission({ ...candidate, ...changes });
  return verdict.kind === "ask" ? verdict.needs : verdict.kind;
}

test("S-2: what another instance of hastd left behind needs the other node's word", () => {
  expect.deepEqual(
    STATES.map((state) => word(state)),
    ["no-objection", "agreement", "agreement", "refuse", "refuse"],
  );
});

test("S-2: a copy that has been in step, if only over nothing, is not new: the other node may have gone on", () => {
  expect.equal(word("new", { met: true }), "agreement");
});

test("S-2, S-11: who was there when the link was lost goes on, unless the other node is primary, or asks the same", () => {
  expect.deepEqual(
    STATES.map((state) => word(state, { trust: "known" })),
    ["no-rival", "no-rival", "no-rival", "refuse", "refuse"],
  );
});

test("a primary whose worker is started again asks nobody, but never goes on over a copy known to be old", () => {
  for (const trust of ["resumed", "resumed anew"] as const) {
    expect.deepEqual(
      STATES.map((state) => word(state, { trust })),
      ["go", "go", "go", "refuse", "refuse"],
    );
  }
});

test("a node without a remote needs nobody", () => {
  expect.deepEqual(
    STATES.map((state) => word(state, { hasRemote: false })),
    ["go", "go", "go", "refuse", "refuse"],
  );
  expect.equal(word("inconsistent", { hasRemote: false, wasPrimary: true }), "refuse");
});

test("a primary that was being filled from its peer goes on only with it", () => {
  expect.equal(word("inconsistent", { wasPrimary: true }), "agreement");
  expect.equal(word("inconsistent", { wasPrimary: true, trust: "resumed" }), "go");
});

test("S-1, S-2: the only copy there is goes on unless the other node is primary", () => {
  expect.deepEqual(
    STATES.map((state) => word(state, { sole: true })),
    ["no-objection", "no-primary", "agreement", "refuse", "refuse"],
  );
});

test("force overrules everything", () => {
  for (const state of STATES) expect.equal(word(state, { trust: "forced" }), "go");
});

test("what this hastd knows is not about a component that was created since", () => {
  expect.equal(word("new", { trust: "known", unused: true }), "no-objection");
  expect.equal(word("new", { trust: "resumed", unused: true }), "no-objection");
  expect.equal(word("new", { trust: "known", unused: true, hasRemote: false }), "go");
});

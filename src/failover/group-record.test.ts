// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import type { KeyValue } from "./etcd.ts";
import { groupRecord, termOf } from "./group-record.ts";

function entry(name: string, value: string, revision = 5): KeyValue {
  const key = `/hast/g/${name}`;
  return { key, value, createRevision: revision, modRevision: revision, lease: "7" };
}

test("groupRecord() reads what the agents put", () => {
  const leader = { node: "alpha", boot: "b", since: "s", serves: true };
  const entries = [
    entry("base", "1000"),
    entry("insync/r0", '["alpha","beta"]', 8),
    entry("insync/r1", '["alpha"]', 9),
    entry("leader", JSON.stringify(leader), 12),
    entry("move", '{"to":"beta"}', 13),
  ];
  const record = groupRecord("g", { revision: 20, entries });
  expect.deepEqual(record, {
    base: { value: 1000, modRevision: 5 },
    insync: new Map([
      ["r0", { nodes: ["alpha", "beta"], modRevision: 8 }],
      ["r1", { nodes: ["alpha"], modRevision: 9 }],
    ]),
    changed: 9,
    leader: { ...leader, lease: "7", createRevision: 12 },
    move: { to: "beta", ready: false, lease: "7", modRevision: 13 },
  });
  expect.equal(termOf(1000, 12), 1012n);
});

test("S-17b: a value that makes no sense counts for the worst", () => {
  for (const nonsense of ["", "x", "null", "7", '{"a":1}', '[1,"beta"]', "-5"]) {
    const names = ["base", "insync/r0", "leader", "move"];
    const entries = names.map((name) => entry(name, name === "base" ? `${nonsense}.` : nonsense));
    const { base, insync, leader, move } = groupRecord("g", { revision: 20, entries });
    expect.equal(base, null, nonsense);
    expect.deepEqual(insync.get("r0")?.nodes, [], nonsense);
    expect.equal(leader?.node, "?", nonsense);
    expect.equal(move?.to, "?", nonsense);
  }
  const nothing = groupRecord("g", { revision: 20, entries: [] });
  expect.deepEqual(nothing, {
    base: null,
    insync: new Map(),
    changed: 0,
    leader: null,
    move: null,
  });
});

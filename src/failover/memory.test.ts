// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { FakeLog } from "../../test/daemon/fakes.ts";
import type { System } from "../platform/system.ts";
import type { GroupRecord } from "./group-record.ts";
import { FileMemory, ranBackwards } from "./memory.ts";

function record(base: number | null, changed: number): GroupRecord {
  return {
    base: base === null ? null : { value: base, modRevision: 1 },
    changed,
    leader: null,
    insync: new Map(),
    move: null,
  };
}

/** Files that live in a map; writing fails where `broken` says why. */
function files(content: Map<string, string>, broken: string | null = null): System {
  const write = (path: string, text: string): void => {
    if (broken !== null) throw new Error(broken);
    content.set(path, text);
  };
  const text = (path: string): string | null => content.get(path) ?? null;
  return { text, write } as unknown as System;
}

test("what was seen is remembered, and outlives the agent", () => {
  const content = new Map<string, string>();
  const memory = new FileMemory(files(content), "/m", "g", new FakeLog());
  expect.equal(memory.latest(), null);
  memory.saw(record(null, 3));
  expect.equal(memory.latest(), null);
  memory.saw(record(100, 7));
  memory.saw(record(100, 5));
  expect.deepEqual(memory.latest(), { base: 100, changed: 7 });
  memory.saw(record(101, 2));
  memory.saw(record(100, 9));
  const next = new FileMemory(files(content), "/m", "g", new FakeLog());
  expect.deepEqual(next.latest(), { base: 101, changed: 2 });
});

test("a file that makes no sense is none; one that cannot be written is told of, and no more", () => {
  const log = new FakeLog();
  const content = new Map([["/m/g", "100 7"]]);
  const memory = new FileMemory(files(content, "no space left"), "/m", "g", log);
  expect.equal(memory.latest(), null);
  memory.saw(record(100, 7));
  expect.deepEqual(memory.latest(), { base: 100, changed: 7 });
  expect.ok(log.says("/m/g cannot be written: no space left"));
});

test("S-17b: an etcd that says less than it did ran backwards, unless it was seeded anew", () => {
  const before = { base: 100, changed: 7 };
  expect.ok(ranBackwards(record(100, 6), before));
  expect.ok(ranBackwards(record(99, 900), before));
  expect.ok(!ranBackwards(record(100, 7), before));
  expect.ok(!ranBackwards(record(101, 1), before));
  expect.ok(!ranBackwards(record(null, 0), before), "nobody is in a set that is not there");
  expect.ok(!ranBackwards(record(100, 1), null));
});

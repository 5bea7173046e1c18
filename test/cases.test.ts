// SPDX-License-Identifier: BSD-2-Clause
/** docs/cases.md against the tests: what it says is guarded is, and what it calls open is open. */

import { strict as expect } from "node:assert";
import { globSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test } from "node:test";

const ROOT = join(import.meta.dirname, "..");
const DEFECTS = 48;
const SEQUENCES = 21;

/** "BD-1: …", "S-3, BD-10: …" at the beginning of a string, or "… (S-5)" at its end. */
const BEGINNING = /["'`]((?:(?:BD|S)-\d+[a-z]?(?:, )?)+): /g;
const ENDING = /\(([^()"'`\n]*\b(?:BD|S)-\d+[^()"'`\n]*)\)["'`]/g;

/** The ids that names of tests carry, in a test file's text. */
function idsIn(text: string): string[] {
  return [...text.matchAll(BEGINNING), ...text.matchAll(ENDING)].flatMap(([, ids]) =>
    [...ids!.matchAll(/\b(BD|S)-(\d+)/g)].map(([id]) => id),
  );
}

/** Base names of test files, by id. */
function guards(): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>();
  const not = ["test/cases.test.ts", "test/mutations.test.ts"];
  for (const file of globSync("{src,test,bench}/**/*.test.ts", { cwd: ROOT })) {
    if (not.includes(file)) continue;
    for (const id of idsIn(readFileSync(join(ROOT, file), "utf8"))) {
      const files = found.get(id) ?? new Set();
      found.set(id, files.add(basename(file)));
    }
  }
  return found;
}

/** The last column of docs/cases.md, by id. */
function rows(): Map<string, string> {
  const text = readFileSync(join(ROOT, "docs/cases.md"), "utf8");
  const table = new Map<string, string>();
  for (const [, id, guard] of text.matchAll(/^\| ((?:BD|S)-\d+) \| .* \| ([^|]+) \|$/gm)) {
    expect.ok(!table.has(id!), `${id} has two rows`);
    table.set(id!, guard!);
  }
  return table;
}

const EVERY = [
  ...Array.from({ length: DEFECTS }, (_, index) => `BD-${index + 1}`),
  ...Array.from({ length: SEQUENCES }, (_, index) => `S-${index + 1}`),
];

test("docs/cases.md has a row for each case, in order, and for no other", () => {
  expect.deepEqual([...rows().keys()], EVERY);
});

test("each case that docs/cases.md calls guarded has such tests, and one it calls open has none", () => {
  const found = guards();
  const complaints: string[] = [];
  for (const [id, guard] of rows()) {
    const files = found.get(id) ?? new Set();
    if (guard === "not yet") {
      if (files.size > 0)
        complaints.push(`${id}: "not yet", but there is ${[...files].join(", ")}`);
      continue;
    }
    for (const file of guard.split(", ")) {
      if (!files.has(file)) complaints.push(`${id}: no test in ${file} has it in its name`);
    }
  }
  expect.deepEqual(complaints, []);
});

test("no test names a case that does not exist", () => {
  expect.deepEqual(
    [...guards().keys()].filter((id) => !EVERY.includes(id)),
    [],
  );
});

test("an id counts at the beginning of a name or in parentheses at its end, nowhere else", () => {
  expect.deepEqual(idsIn('test("BD-1: a") test("S-3, BD-10: b") test(`S-4d: c`)'), [
    "BD-1",
    "S-3",
    "BD-10",
    "S-4",
  ]);
  expect.deepEqual(idsIn('test("a (BD-5, S-5)") test("b (invariant 4, BD-26)")'), [
    "BD-5",
    "S-5",
    "BD-26",
  ]);
  expect.deepEqual(idsIn('// BD-1: a comment\n test("as BD-2 has it") // (BD-3)'), []);
});

// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { readFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import {
  MUTATIONS,
  type Mutation,
  mutate,
  mutateFile,
  NOT_EXPRESSED,
  namesOf,
  selects,
  suiteFiles,
} from "./mutations.ts";

const ROOT = join(import.meta.dirname, "..");

const INTEGRITY_DEFECTS = [
  ...Array.from({ length: 21 }, (_, index) => `BD-${index + 1}`),
  "BD-31",
  "BD-34",
];

const sample: Mutation = {
  name: "a sample",
  defect: "BD-1",
  file: "src/a.ts",
  find: "one",
  replace: "$& $1",
  suite: "wire",
};

test("mutate() replaces the one place, to the letter", () => {
  expect.equal(mutate(sample, "zero one two"), "zero $& $1 two");
});

test("mutate() refuses a search text that occurs never or twice", () => {
  expect.throws(() => mutate(sample, "two"), /"a sample".* occurs 0 times in src\/a\.ts/);
  expect.throws(() => mutate(sample, "one one"), /occurs 2 times/);
});

test("selects() takes the beginning of a defect, and any part of a name", () => {
  const mutation = { ...sample, defect: "BD-21, S-4d" };
  const taken = ["BD-21", "BD-", "S-4", "S-4d", "S-", "a s", "ample"];
  const left = ["BD-2", "BD-1", "S-4e", "S-40", "D-21", "other"];
  expect.deepEqual(
    [...taken, ...left].filter((word) => selects(word, mutation)),
    taken,
  );
});

test("namesOf() finds the tests that carry the defect's number", () => {
  const names = namesOf({ ...sample, defect: "BD-21, S-4d" })!;
  for (const name of ["BD-21: x", "S-4a: x", "x (S-4, BD-3)"]) expect.match(name, names);
  for (const name of ["BD-2: x", "BD-210", "x (S-40)"]) expect.doesNotMatch(name, names);
  expect.equal(namesOf({ ...sample, defect: "slot reuse" }), null);
});

for (const mutation of MUTATIONS) {
  test(`mutation applies: ${mutation.defect}: ${mutation.name}`, () => {
    const text = mutateFile(mutation, ROOT);
    expect.notEqual(text, readFileSync(join(ROOT, mutation.file), "utf8"));
    stripTypeScriptTypes(text); // throws where it is no TypeScript any more
    expect.ok(suiteFiles(mutation.suite, ROOT).length > 0, "its suite has no files");
  });
}

test("each mutation has a name of its own, and does something of its own", () => {
  const names = MUTATIONS.map(({ name }) => name);
  expect.equal(new Set(names).size, names.length);
  const changes = MUTATIONS.map(({ file, find, replace }) => JSON.stringify([file, find, replace]));
  expect.equal(new Set(changes).size, changes.length);
});

test("BD-1 to BD-21, BD-31 and BD-34 are each brought back by a mutation; what is left out has its reason", () => {
  const bringsBack = (defect: string) => (mutation: Mutation) =>
    new RegExp(`\\b${defect}(?!\\d)`).test(mutation.defect);
  const missing = INTEGRITY_DEFECTS.filter((defect) => !MUTATIONS.some(bringsBack(defect)));
  expect.deepEqual(missing, []);
  for (const [defect, reason] of Object.entries(NOT_EXPRESSED)) {
    expect.ok(INTEGRITY_DEFECTS.includes(defect) && reason !== "", defect);
  }
});

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { TARGETS } from "../scripts/fuzz-targets.ts";
import { mutated } from "./fuzz.ts";

test("each target of npm run fuzz is a test that takes its time from it, and there is no other", () => {
  const files = [...new Set(TARGETS.map(({ file }) => file))];
  for (const file of files) {
    const text = readFileSync(join(import.meta.dirname, "..", file), "utf8");
    const tests = text.split(/^test\(\s*"/m).slice(1);
    const fuzzed = tests.filter((each) => each.includes("await fuzz("));
    assert.deepEqual(
      fuzzed.map((each) => each.split('"', 1)[0]),
      TARGETS.filter((each) => each.file === file).map((each) => each.test),
      file,
    );
  }
});

test("mistakes leave a stream the same rarely, and reach each of its bytes", () => {
  const stream = Uint8Array.from({ length: 50 }, (_, index) => index);
  const samples = fc.sample(mutated(stream), 2000).map((bytes) => [...bytes].join());
  const same = samples.filter((each) => each === [...stream].join()).length;
  assert.ok(same < 200, `${same} of 2000 are unchanged`);
  const firstDifferences = new Set(
    samples.map((each) => each.split(",").findIndex((value, index) => value !== `${index}`)),
  );
  for (let index = 0; index < 50; index++) assert.ok(firstDifferences.has(index), `byte ${index}`);
});

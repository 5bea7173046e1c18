// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { measureAll } from "./nbd-parse.ts";

test("the NBD parsing benchmark runs", () => {
  const results = measureAll({ depth: 4, batches: 3, rounds: 2 });
  expect.equal(results.length, 4);
  for (const result of results) expect.ok(result.nsPerCommand[0]! > 0);
});

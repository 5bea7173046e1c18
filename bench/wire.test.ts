// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { measureAll } from "./wire.ts";

test("the wire benchmark runs", () => {
  const results = measureAll({ rounds: 2, batches: 2, payloads: 1 });
  expect.equal(results.length, 8);
  for (const result of results) expect.ok(result.nsPerOperation[0]! > 0);
});

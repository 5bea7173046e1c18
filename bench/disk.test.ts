// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { measure, measureAll } from "./disk.ts";

test("the disk benchmark runs every engine", async () => {
  const shape = { fileSize: 1 << 20, depth: 4, requests: 50, rounds: 1 };
  const results = await measureAll(null, shape);
  expect.equal(results.length, 6);
  for (const { rates } of results) expect.ok(rates[0]! > 0);
  await expect.rejects(measure("/nonexistent/disk", "sync", shape), { code: "ENOENT" });
});

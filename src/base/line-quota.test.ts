// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { LineQuota } from "./line-quota.ts";

test("take() lets twenty lines pass at once, then one per ten seconds, and counts the rest", () => {
  const quota = new LineQuota();
  for (let line = 0; line < 20; line++) expect.equal(quota.take(5, "line"), "line");
  for (let line = 0; line < 1000; line++) expect.equal(quota.take(6, "line"), null);
  expect.equal(quota.take(10_005, "line"), "line (left out before this one: 1000 such lines)");
  expect.equal(quota.take(10_006, "line"), null);
  expect.equal(quota.take(20_010, "line"), "line (left out before this one: 1 such lines)");
});

test("take() forgives after a time of silence, up to the twenty", () => {
  const quota = new LineQuota();
  for (let line = 0; line < 30; line++) quota.take(0, "line");
  let passed = 0;
  for (let line = 0; line < 100; line++) if (quota.take(1e9, "line") !== null) passed++;
  expect.equal(passed, 20);
});

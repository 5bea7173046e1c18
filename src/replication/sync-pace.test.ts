// SPDX-License-Identifier: BSD-2-Clause
/** With a whole primary around it: resync-orders.test.ts. */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import { SyncPace, syncBurst } from "./sync-pace.ts";

test("without orders copies begin as they please", () => {
  const pace = new SyncPace();
  pace.spend(1e12);
  expect.deepEqual([pace.mayBegin, pace.pauseMs, pace.held], [true, 0, false]);
});

test("what is held waits for an order, and not for time", () => {
  const pace = new SyncPace();
  pace.order(true, 1_000_000, 0);
  pace.earn(60_000);
  expect.deepEqual([pace.mayBegin, pace.pauseMs, pace.held], [false, 0, true]);
  pace.order(false, 1_000_000, 60_000);
  expect.equal(pace.mayBegin, true, "the credit is as it was");
});

test("a rate: one copy may exceed the credit, and the next one waits until that is earned", () => {
  const pace = new SyncPace();
  pace.order(false, 1_000_000, 1_000);
  expect.equal(pace.mayBegin, false);
  expect.equal(pace.pauseMs, 10, "not for each byte");
  pace.earn(1_010);
  pace.spend(131_072);
  expect.deepEqual([pace.mayBegin, pace.pauseMs], [false, 122]);
  pace.earn(1_010 + 121);
  expect.equal(pace.mayBegin, false);
  pace.earn(1_010 + 122);
  expect.equal(pace.mayBegin, true);
});

test("a pause earns no more than a burst; another rate begins without credit", () => {
  const pace = new SyncPace();
  const rate = 10_000_000;
  pace.order(false, rate, 0);
  pace.earn(3_600_000);
  pace.spend(syncBurst(rate));
  expect.equal(pace.mayBegin, false);
  pace.earn(3_601_000);
  pace.order(false, 2 * rate, 3_601_000);
  expect.equal(pace.mayBegin, false);
});

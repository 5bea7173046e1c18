// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import type { Wish } from "../wire/control.ts";
import { Arbitration } from "./arbitration.ts";

function arbitrated(deadlineMs = 1000): { arbitration: Arbitration; wishes: Wish[] } {
  const wishes: Wish[] = [];
  const arbitration = new Arbitration({ term: 7n, deadlineMs }, (wish) => wishes.push(wish));
  return { arbitration, wishes };
}

test("S-17: nothing is answered alone before exactly that is on record", () => {
  const { arbitration, wishes } = arbitrated();
  expect.equal(arbitration.allows("local", 0), false);
  arbitration.renew(1000, 0);
  expect.equal(arbitration.allows("local", 1), false);
  expect.deepEqual(wishes, [{ number: 1, whole: "local" }]);
  arbitration.renew(1000, 1);
  expect.equal(arbitration.allows("local", 2), true);
});

test("what both nodes have needs nobody's leave", () => {
  const { arbitration } = arbitrated();
  expect.equal(arbitration.allows("both", 0), true);
});

test("S-17: once the peer's return may be on record, the old consent to go on alone is void", () => {
  const { arbitration, wishes } = arbitrated();
  arbitration.allows("local", 0);
  arbitration.renew(1000, 1);
  expect.equal(arbitration.allows("both", 1), true);
  // Alone again: the arbiter may be about to put "both" on record.
  expect.equal(arbitration.allows("local", 2), false);
  arbitration.renew(1000, 1);
  expect.equal(arbitration.allows("local", 3), false, "that was the consent of before");
  arbitration.renew(1000, 2);
  expect.equal(arbitration.allows("local", 3), false, "and that one is what it must not be");
  arbitration.renew(1000, 3);
  expect.equal(arbitration.allows("local", 4), true);
  expect.deepEqual(
    wishes.map(({ whole }) => whole),
    ["local", "both", "local"],
  );
});

test("a primary without a copy of its own leaves the record first", () => {
  const { arbitration } = arbitrated();
  arbitration.allows("both", 0);
  arbitration.renew(1000, 1);
  expect.equal(arbitration.allows("remote", 1), false);
  arbitration.renew(1000, 2);
  expect.equal(arbitration.allows("remote", 2), true);
  expect.equal(arbitration.allows("both", 3), true);
});

test("S-17: when the lease has run out nothing is answered, reads neither, until it is renewed", () => {
  const { arbitration } = arbitrated(1000);
  expect.equal(arbitration.allows("both", 999), true);
  expect.equal(arbitration.allows("both", 1000), false);
  arbitration.renew(2000, 0);
  expect.equal(arbitration.allows("both", 1000), true);
  arbitration.renew(1500, 0); // overtaken on its way
  expect.equal(arbitration.allows("both", 1999), true);
});

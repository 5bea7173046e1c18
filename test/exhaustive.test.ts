// SPDX-License-Identifier: BSD-2-Clause
/**
 * Every sequence of up to three events, with an accident at every disk operation; see
 * model/explore.ts. `npm run worlds` goes to four.
 */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import { explore } from "./model/explore.ts";
import type { Beginning } from "./model/small-world.ts";

function check(length: number, beginnings: readonly Beginning[]): void {
  const tally = explore({ length, beginnings, everyKind: false });
  console.log(`${tally.sequences} sequences, ${tally.worlds} worlds: ${JSON.stringify(tally)}`);
  // A world in which nothing happens would prove nothing.
  expect.ok(tally.accidents > tally.sequences);
  const { answers, promotions, failovers, splitBrains, resyncs } = tally.events;
  const events = { answers, promotions, failovers, splitBrains, resyncs };
  for (const [what, count] of Object.entries(events)) expect.ok(count > 0, `no ${what}`);
}

test("no three events after a pair is whole, with any accident, lose what was acknowledged", () => {
  check(3, ["paired"]);
});

test("no two events from any other beginning, with any accident, lose what was acknowledged", () => {
  check(2, ["fresh", "A alone", "B took over"]);
});

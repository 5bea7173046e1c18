// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { syncVerdict } from "./sync-verdict.ts";

/** Counts as the documents write them: own/other. */
function verdict(primary: string, secondary: string): string {
  const [pl, pr] = primary.split("/").map(BigInt);
  const [sl, sr] = secondary.split("/").map(BigInt);
  const result = syncVerdict({ local: pl!, remote: pr! }, { local: sl!, remote: sr! });
  return result.kind === "regular" ? `from ${result.from}` : result.kind;
}

// Wire protocol §6.5. Rows 1 and 2, which depend on the resource's id, are judge()'s.
const TABLE = [
  ["row 3: the secondary was written alone", "0/0", "1/0", "from secondary"],
  ["row 3, after some history", "3/5", "6/3", "from secondary"],
  ["row 4: both in step", "0/0", "0/0", "from primary"],
  ["row 4, after some history", "4/2", "2/4", "from primary"],
  ["row 5: the primary was written alone", "1/0", "0/0", "from primary"],
  ["row 5, after more than one outage", "4/2", "2/1", "from primary"],
  ["row 6: both were written alone", "1/0", "1/0", "split-brain"],
  ["row 6, the example of the house style", "4/2", "3/3", "split-brain"],
  ["row 7: secondary ahead, primary rolled back", "0/0", "1/1", "impossible"],
  ["row 8: the secondary was rolled back", "0/1", "0/0", "impossible"],
  ["row 8: the secondary was rolled back, the primary wrote", "1/1", "0/0", "impossible"],
  ["row 8: the primary was rolled back (S-12)", "0/0", "0/1", "impossible"],
] as const;

for (const [row, primary, secondary, expected] of TABLE) {
  test(`syncVerdict() knows ${row}`, () => {
    expect.equal(verdict(primary, secondary), expected);
  });
}

test("syncVerdict() follows the table of behaviour §10 for all small counters", () => {
  // Rows by sl against pr, columns by sr against pl: greater, equal, less.
  const table = [
    ["impossible", "from secondary", "split-brain"],
    ["impossible", "from primary", "from primary"],
    ["impossible", "impossible", "impossible"],
  ];
  const relation = (a: number, b: number): number => (a > b ? 0 : a === b ? 1 : 2);
  for (let pl = 0; pl <= 3; pl++) {
    for (let pr = 0; pr <= 3; pr++) {
      for (let sl = 0; sl <= 3; sl++) {
        for (let sr = 0; sr <= 3; sr++) {
          const expected = table[relation(sl, pr)]![relation(sr, pl)]!;
          expect.equal(verdict(`${pl}/${pr}`, `${sl}/${sr}`), expected, `${pl}/${pr} ${sl}/${sr}`);
        }
      }
    }
  }
});

test("syncVerdict() does not depend on which node is primary, save for who is named", () => {
  const other = { "from primary": "from secondary", "from secondary": "from primary" };
  for (let index = 0; index < 256; index++) {
    const [a, b, c, d] = [index & 3, (index >> 2) & 3, (index >> 4) & 3, index >> 6];
    const here = verdict(`${a}/${b}`, `${c}/${d}`);
    const there = verdict(`${c}/${d}`, `${a}/${b}`);
    const inStep = a === d && b === c;
    if (inStep) expect.equal(there, here);
    else expect.equal(there, other[here as keyof typeof other] ?? here, `${a}/${b} ${c}/${d}`);
  }
});

test("syncVerdict() compares counters beyond 2^53 exactly", () => {
  const large = 2n ** 63n;
  const result = syncVerdict({ local: large + 1n, remote: 0n }, { local: 0n, remote: large });
  expect.deepEqual(result, { kind: "regular", from: "primary" });
});

// SPDX-License-Identifier: BSD-2-Clause
/**
 * The handshake's judgement for every small value of everything it looks at, against the table of
 * wire protocol §6.5 as its authors wrote it: rows, the first that matches wins. What we do
 * otherwise is a row of its own, or says so.
 */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import type { DataState } from "../src/replication/requests.ts";
import { type Hello, judge, type SecondaryRecord } from "../src/replication/secondary.ts";

const COUNTS = [0n, 1n, 2n, 3n] as const;
const STATES: readonly DataState[] = ["new", "uptodate", "consistent", "outdated", "inconsistent"];

/** sl, sr: the secondary's own counter, and the primary's as it recorded it; pl, pr: of P2. */
interface Case {
  readonly id: "none" | "same" | "other";
  readonly state: DataState;
  readonly virgin: boolean;
  readonly states: boolean;
  readonly sl: bigint;
  readonly sr: bigint;
  readonly pl: bigint;
  readonly pr: bigint;
  /** Our cache has what a fresh primary's may have lost. */
  readonly kept: boolean;
}

interface Row {
  readonly name: string;
  readonly when: (at: Case) => boolean;
  /** The source and the map sent, and what becomes of our own record; or why not. */
  readonly verdict: string;
}

const unwritten = ({ sl, sr, state }: Case): boolean =>
  sl === 0n && sr === 0n && (state === "new" || state === "inconsistent");

const TABLE: readonly Row[] = [
  // The reference calls it virgin, and copies the primary over it (S-18, BD-14a).
  {
    name: "written, unmet",
    when: ({ id, sl }) => id === "none" && sl > 0n,
    verdict: "split-brain",
  },
  // From here on it may hold data, and nobody will say so (invariant 7).
  {
    name: "1a, a new copy of a primary that does not tell",
    when: ({ id, virgin, states, state }) => id === "none" && virgin && !states && state === "new",
    verdict: "virgin, from primary, own map unless empty, adopts the id, inconsistent",
  },
  {
    // Ours: a copy that an operator gave up for this one, which it never met (S-10).
    name: "1a, a copy that was thrown away",
    when: ({ id, virgin, state }) =>
      id === "none" && virgin && (state === "outdated" || state === "inconsistent"),
    verdict: "virgin, from primary, all ones, adopts the id, inconsistent",
  },
  {
    name: "1a",
    when: ({ id, virgin }) => id === "none" && virgin,
    // The reference sends none, and so forgets a write that had begun when it died.
    verdict: "virgin, from primary, own map unless empty, adopts the id",
  },
  {
    name: "1b",
    when: ({ id }) => id === "none",
    verdict: "virgin, from primary, all ones, adopts the id, inconsistent",
  },
  // The reference refuses, but there is nothing to lose: no write, and no copy that ever began.
  {
    name: "2 at a node that is new",
    when: (at) => at.id === "other" && unwritten(at) && at.state === "new",
    verdict: "virgin, from primary, all ones, inconsistent",
  },
  { name: "2", when: ({ id }) => id === "other", verdict: "another resource" },
  {
    // The reference copies it over the primary: against the word of who called it that.
    name: "3, of a copy that was called outdated",
    when: ({ sl, sr, pl, pr, state }) => sl > pr && sr === pl && state === "outdated",
    verdict: "split-brain",
  },
  {
    name: "3, of a new copy, by a primary that does not tell",
    when: ({ sl, sr, pl, pr, states, state }) => sl > pr && sr === pl && !states && state === "new",
    verdict: "from secondary, own map, uptodate",
  },
  {
    name: "3",
    when: ({ sl, sr, pl, pr }) => sl > pr && sr === pl,
    verdict: "from secondary, own map",
  },
  // The reference lets the primary's older blocks win (S-9).
  {
    name: "4, kept by the secondary",
    // Only one of ours says that its cache may be lost.
    when: ({ sl, sr, pl, pr, kept, states }) => sl === pr && sr === pl && kept && states,
    verdict: "from secondary, own map",
  },
  {
    name: "4, a new copy of a primary that does not tell",
    when: ({ sl, sr, pl, pr, states, state }) =>
      sl === pr && sr === pl && !states && state === "new",
    verdict: "from primary, own map, inconsistent",
  },
  {
    name: "4",
    when: ({ sl, sr, pl, pr }) => sl === pr && sr === pl,
    verdict: "from primary, own map",
  },
  {
    // The reference notes nothing; a copy of ours knows that the other node has gone on without it.
    name: "5, a primary that tells when the copy is whole",
    when: ({ sl, sr, pl, pr, states, state }) =>
      sl === pr && sr < pl && states && state !== "inconsistent",
    verdict: "from primary, own map, outdated",
  },
  {
    // What is half filled is not to be promoted; nor does such a primary say when that is over (S-13).
    name: "5, a primary that does not tell",
    when: ({ sl, sr, pl, pr, states, state }) =>
      sl === pr && sr < pl && !states && state !== "inconsistent",
    verdict: "from primary, own map, inconsistent",
  },
  {
    name: "5",
    when: ({ sl, sr, pl, pr }) => sl === pr && sr < pl,
    verdict: "from primary, own map",
  },
  { name: "6", when: ({ sl, sr, pl, pr }) => sl > pr && pl > sr, verdict: "split-brain" },
  // 7 and 8, which no history leads to, the reference answers with a full copy one way or the other.
  // We refuse (S-12), unless this is a node created anew whose first copy was cut short.
  {
    name: "8 at a node that never was whole",
    when: (at) => at.sl < at.pr && unwritten(at),
    verdict: "virgin, from primary, all ones, inconsistent",
  },
  { name: "7", when: ({ sl, sr, pl, pr }) => sl > pr && sr > pl, verdict: "ran backwards" },
  { name: "8", when: () => true, verdict: "ran backwards" },
];

const OWN_ID = 7n;
const OTHER_ID = 8n;

/** What judge() says, in the words of the table. */
function said(at: Case): string {
  const own: SecondaryRecord = {
    resuid: at.id === "none" ? 0n : OWN_ID,
    localcnt: at.sl,
    remotecnt: at.sr,
    state: at.state,
    synced: "written",
  };
  const hello: Hello = {
    states: at.states,
    virgin: at.virgin,
    resuid: at.id === "same" ? OWN_ID : OTHER_ID,
    localcnt: at.pl,
    remotecnt: at.pr,
    synced: at.states ? "written" : "unknown",
    keptHere: at.kept && at.states,
  };
  const judgement = judge(own, hello);
  if (judgement.kind === "refuse") {
    const { message, splitBrain } = judgement;
    if (splitBrain) {
      expect.equal(message, "Split-brain condition!");
      return "split-brain";
    }
    if (/^Resource unique ID mismatch \(primary=8, secondary=7\)\.$/.test(message)) {
      return "another resource";
    }
    expect.match(message, /ran backwards/);
    return "ran backwards";
  }
  const words = [judgement.virgin ? "virgin, " : "", `from ${judgement.source}, `];
  words.push(
    { own: "own map", "own-unless-empty": "own map unless empty", full: "all ones" }[judgement.map],
  );
  const { record } = judgement;
  if (record !== null) {
    expect.equal(record.localcnt, own.localcnt);
    expect.equal(record.remotecnt, own.remotecnt);
    expect.equal(record.resuid, hello.resuid);
    if (own.resuid === 0n) words.push(", adopts the id");
    if (judgement.map === "full" || record.state !== own.state || at.states)
      words.push(expectState(record, own, judgement.map));
  }
  return words.join("");
}

/** A record changes the state to `inconsistent`, to `outdated`, from `new` to `uptodate`, or not at all. */
function expectState(record: SecondaryRecord, own: SecondaryRecord, map: string): string {
  if (map === "full") {
    expect.equal(record.state, "inconsistent");
    return ", inconsistent";
  }
  if (record.state === "outdated" && own.resuid !== 0n) return ", outdated";
  if (record.state === "inconsistent" && own.state !== "inconsistent") return ", inconsistent";
  if (record.state === "uptodate" && own.state === "new") return ", uptodate";
  expect.equal(record.state, own.state);
  return "";
}

function* everyCase(): Generator<Case> {
  for (const id of ["none", "same", "other"] as const)
    for (const state of STATES)
      for (const virgin of [false, true])
        for (const states of [false, true])
          for (const sl of COUNTS)
            for (const sr of COUNTS)
              for (const pl of COUNTS)
                for (const pr of COUNTS)
                  for (const kept of [false, true])
                    yield { id, state, virgin, states, sl, sr, pl, pr, kept };
}

test("every small value of counters, ids, states and flags is judged by the table's first matching row", () => {
  const met = new Map<string, number>();
  for (const at of everyCase()) {
    const row = TABLE.find(({ when }) => when(at))!;
    met.set(row.name, (met.get(row.name) ?? 0) + 1);
    const { id, state, virgin, states, sl, sr, pl, pr } = at;
    expect.equal(
      said(at),
      row.verdict,
      `row ${row.name}: id ${id}, ${state}, virgin ${virgin}, states ${states}, ` +
        `primary ${pl}/${pr}, secondary ${sl}/${sr}`,
    );
  }
  // A row that nothing meets would be a word without a meaning.
  expect.deepEqual([...met.keys()].sort(), TABLE.map(({ name }) => name).sort());
});

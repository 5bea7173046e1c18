// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { EXTENT_CELLS, SecondaryBench } from "../../test/replication-harness.ts";
import { Activemap } from "./activemap.ts";
import { discardPlan } from "./discard.ts";
import { FLUSH, READ, SLOT_COUNT, WRITE, ZERO } from "./requests.ts";
import { type Hello, judge, type SecondaryRecord, SPLIT_BRAIN } from "./secondary.ts";

const OWN: SecondaryRecord = {
  resuid: 7n,
  localcnt: 0n,
  remotecnt: 0n,
  state: "uptodate",
  synced: "written",
};
const FRESH: SecondaryRecord = {
  resuid: 0n,
  localcnt: 0n,
  remotecnt: 0n,
  state: "new",
  synced: null,
};
const PEER: Hello = {
  states: true,
  virgin: false,
  resuid: 7n,
  localcnt: 0n,
  remotecnt: 0n,
  synced: "written",
  keptHere: false,
};

// ---- judge(): rows 1 and 2 of wire protocol §6.5, and what it makes of the others

test("row 1a: two virgin nodes need no copy, and the id is adopted", () => {
  expect.deepEqual(judge(FRESH, { ...PEER, virgin: true }), {
    kind: "accept",
    source: "primary",
    virgin: true,
    map: "own-unless-empty",
    record: { ...FRESH, resuid: 7n, synced: "written" },
  });
});

test("row 1b: a fresh node gets everything from a primary that has a history", () => {
  const judgement = judge(FRESH, { ...PEER, localcnt: 3n, remotecnt: 2n });
  expect.deepEqual(judgement, {
    kind: "accept",
    source: "primary",
    virgin: true,
    map: "full",
    record: { ...FRESH, resuid: 7n, state: "inconsistent" },
  });
});

test("BD-15: a first copy from a FreeBSD primary is inconsistent, too, until its end is inferred", () => {
  const judgement = judge(FRESH, { ...PEER, states: false, localcnt: 3n });
  expect.ok(judgement.kind === "accept");
  expect.equal(judgement.record?.state, "inconsistent");
});

test("S-9: what is kept here counts where neither has gone on alone, and nowhere else", () => {
  const source = (peer: Partial<Hello>): string => {
    const judgement = judge(OWN, {
      ...PEER,
      localcnt: OWN.remotecnt,
      remotecnt: OWN.localcnt,
      ...peer,
    });
    return judgement.kind === "accept" ? judgement.source : "refused";
  };
  expect.equal(source({}), "primary");
  expect.equal(source({ keptHere: true }), "secondary");
  expect.equal(source({ keptHere: true, localcnt: OWN.remotecnt + 1n }), "primary");
});

test("S-2: a copy that was called outdated does not overwrite a primary that does not count", () => {
  // It went on alone; a FreeBSD node was promoted since, and has written without a word (BD-14).
  const own = { ...OWN, localcnt: 1n, state: "outdated" as const };
  const judgement = judge(own, { ...PEER, states: false, synced: "unknown" });
  expect.ok(judgement.kind === "refuse" && judgement.splitBrain);
  expect.equal(judgement.message, SPLIT_BRAIN);
  const counts = { resuid: 7n, localcnt: 0n, remotecnt: 0n } as const;
  const keeper = { ...counts, synced: "unknown", lacking: null } as const;
  expect.equal(discardPlan(own, keeper).kind, "discard", "so it can be thrown away");
});

test("a fresh node whose first copy was cut short before the primary noted it gets everything again", () => {
  // The primary still remembers the counter of the copy that was replaced: 1/3 against 0/0.
  for (const state of ["new", "inconsistent"] as const) {
    const judgement = judge({ ...OWN, state }, { ...PEER, localcnt: 1n, remotecnt: 3n });
    expect.ok(judgement.kind === "accept");
    expect.equal(judgement.map, "full");
    expect.equal(judgement.virgin, true);
    expect.equal(judgement.source, "primary");
  }
});

test("a copy that was whole once is refused when its counters ran backwards (S-12)", () => {
  const rolledBack = [
    [OWN, { localcnt: 1n, remotecnt: 3n }],
    [
      { ...OWN, state: "consistent" as const },
      { localcnt: 0n, remotecnt: 1n },
    ],
    [
      { ...OWN, state: "new" as const, remotecnt: 1n },
      { localcnt: 0n, remotecnt: 0n },
    ],
  ] as const;
  for (const [own, counts] of rolledBack) {
    const judgement = judge(own, { ...PEER, ...counts });
    expect.ok(judgement.kind === "refuse");
    expect.match(judgement.message, /ran backwards/);
    expect.equal(judgement.splitBrain, false);
  }
});

test("two nodes that were written before they ever met are a split-brain (S-18, BD-14a)", () => {
  const judgement = judge({ ...FRESH, localcnt: 1n }, { ...PEER, virgin: true, localcnt: 1n });
  expect.ok(judgement.kind === "refuse");
  expect.equal(judgement.message, SPLIT_BRAIN);
  expect.equal(judgement.splitBrain, true);
});

test("row 2: another resource's id is refused in the reference's words", () => {
  const judgement = judge(OWN, { ...PEER, resuid: 8n });
  expect.ok(judgement.kind === "refuse");
  expect.equal(judgement.message, "Resource unique ID mismatch (primary=8, secondary=7).");
  expect.equal(judgement.splitBrain, false);
});

test("rows 3 to 5 send our own map and name the source; who is behind one of ours notes it (S-2)", () => {
  const rows = [
    [{ ...OWN, localcnt: 1n }, PEER, "secondary", null],
    [OWN, PEER, "primary", null],
    [OWN, { ...PEER, localcnt: 1n }, "primary", { ...OWN, state: "outdated" }],
    [{ ...OWN, state: "inconsistent" }, { ...PEER, localcnt: 1n }, "primary", null],
    // A FreeBSD primary forgets what differs, so that no map is believed whole any more; and does not say
    // when its copies begin and end.
    [OWN, { ...PEER, states: false }, "primary", { ...OWN, synced: null }],
    [
      OWN,
      { ...PEER, localcnt: 1n, states: false },
      "primary",
      { ...OWN, state: "inconsistent", synced: null },
    ],
  ] as const;
  for (const [own, peer, source, record] of rows) {
    expect.deepEqual(judge(own, peer), {
      kind: "accept",
      source,
      virgin: false,
      map: "own",
      record,
    });
  }
});

test("invariant 7: what a FreeBSD primary may have filled is not overwritten by a disk created anew", () => {
  const freebsd = { ...PEER, states: false, synced: "unknown" } as const;
  const anew = { ...freebsd, resuid: 8n };
  const first = judge(FRESH, { ...freebsd, virgin: true });
  // A primary before, but never written; or met by a build that left it so.
  const later = judge({ ...FRESH, resuid: 7n }, freebsd);
  for (const judgement of [first, later]) {
    expect.ok(judgement.kind === "accept" && judgement.record !== null);
    expect.equal(judgement.record.state, "inconsistent", "it may be filled from now on");
    for (const state of ["uptodate", "inconsistent"] as const) {
      const lost = judge({ ...judgement.record, state }, anew);
      expect.ok(lost.kind === "refuse", state);
      expect.match(lost.message, /^Resource unique ID mismatch/);
    }
  }
  const unfit = judge({ ...FRESH, state: "inconsistent" }, { ...freebsd, virgin: true });
  expect.ok(unfit.kind === "accept");
  expect.equal(unfit.record?.state, "inconsistent", "who lacks something goes on lacking it");
});

test("S-10: a FreeBSD primary's new copy is not on record as in step, which nobody would take back", () => {
  for (const states of [true, false]) {
    const judgement = judge(FRESH, { ...PEER, virgin: true, states });
    expect.ok(judgement.kind === "accept");
    expect.equal(judgement.record?.synced, states ? "written" : null);
  }
});

test("row 6 is refused as a split-brain, in the words that the reference compares", () => {
  const judgement = judge({ ...OWN, localcnt: 1n }, { ...PEER, localcnt: 1n });
  expect.ok(judgement.kind === "refuse");
  expect.equal(judgement.message, "Split-brain condition!");
  expect.equal(judgement.splitBrain, true);
});

// ---- Secondary: order

test("the first request of a connection clears the map, once", () => {
  const secondary = new SecondaryBench();
  secondary.submit(READ, 0, 1);
  secondary.submit(READ, 1, 1);
  expect.deepEqual(secondary.take(), ["clear map", "read 0", "read 1"]);
});

test("a map that could not be cleared is tried again with the next request", () => {
  const secondary = new SecondaryBench();
  secondary.submit(READ, 0, 1);
  secondary.core.mapClearFailed();
  secondary.submit(READ, 1, 1);
  expect.deepEqual(secondary.take(), ["clear map", "read 0", "clear map", "read 1"]);
});

test("requests that do not overlap run side by side (BD-28)", () => {
  const secondary = new SecondaryBench();
  secondary.submit(WRITE, 0, 2);
  secondary.submit(WRITE, 2, 2);
  secondary.submit(ZERO, 4, 4);
  secondary.submit(READ, 8, 1);
  expect.deepEqual(secondary.take(), ["clear map", "write 0", "write 1", "zero 2", "read 3"]);
});

test("a memsync write is answered `received` before the disk and once more after it", () => {
  const secondary = new SecondaryBench();
  const slot = secondary.submit(WRITE, 0, 1, true);
  expect.deepEqual(secondary.take(), ["reply 0 received", "clear map", "write 0"]);
  secondary.local(slot);
  expect.deepEqual(secondary.take(), ["reply 0", "release 0"]);
});

test("a memsync write that has to wait is still `received` at once", () => {
  const secondary = new SecondaryBench();
  secondary.submit(WRITE, 0, 1);
  secondary.take();
  secondary.submit(WRITE, 0, 1, true);
  expect.deepEqual(secondary.take(), ["reply 1 received"]);
});

for (const [first, second, waits] of [
  [WRITE, WRITE, true],
  [WRITE, ZERO, true],
  [ZERO, WRITE, true],
  [WRITE, READ, true],
  [ZERO, READ, true],
  [READ, WRITE, true],
  [READ, ZERO, true],
  [READ, READ, false],
] as const) {
  const names = ["", "READ", "WRITE", "ZERO"];
  test(`a ${names[second]} ${waits ? "waits for" : "does not wait for"} an overlapping ${names[first]} (invariant 4)`, () => {
    const secondary = new SecondaryBench();
    const earlier = secondary.submit(first, 0, 2);
    secondary.take();
    const later = secondary.submit(second, 1, 2);
    expect.equal(secondary.take().length, waits ? 0 : 1);
    secondary.local(earlier);
    const done = secondary.take();
    expect.equal(
      done.some((line) => line.endsWith(`${later}`) && !/reply|release/.test(line)),
      waits,
    );
  });
}

test("overlapping writes take effect in the order of arrival, in a chain", () => {
  const secondary = new SecondaryBench();
  const slots = [0, 1, 2].map((cell) => secondary.submit(WRITE, cell, 2));
  secondary.take();
  secondary.local(slots[0]!);
  expect.deepEqual(secondary.take(), ["reply 0", "release 0", "write 1"]);
  secondary.local(slots[1]!);
  expect.deepEqual(secondary.take(), ["reply 1", "release 1", "write 2"]);
});

test("a FLUSH waits for every WRITE and ZERO before it, running or waiting, and for nothing else", () => {
  const secondary = new SecondaryBench();
  const a = secondary.submit(WRITE, 0, 1);
  const b = secondary.submit(ZERO, 0, 1);
  const read = secondary.submit(READ, 8, 1);
  const flush = secondary.submit(FLUSH, 0, 0);
  const after = secondary.submit(WRITE, 4 * EXTENT_CELLS, 1);
  expect.deepEqual(secondary.take(), ["clear map", `write ${a}`, `read ${read}`, `write ${after}`]);
  secondary.local(after);
  secondary.local(a);
  expect.ok(!secondary.take().includes(`flush ${flush}`));
  secondary.local(b);
  expect.ok(secondary.take().includes(`flush ${flush}`));
});

test("a second FLUSH does not wait for the first", () => {
  const secondary = new SecondaryBench();
  secondary.submit(FLUSH, 0, 0);
  secondary.submit(FLUSH, 0, 0);
  expect.deepEqual(secondary.take(), ["clear map", "flush 0", "flush 1"]);
});

test("a failed request is answered with its error and counted, and lets the next one go", () => {
  const secondary = new SecondaryBench();
  const a = secondary.submit(WRITE, 0, 1);
  secondary.submit(WRITE, 0, 1);
  secondary.take();
  secondary.local(a, 5);
  expect.deepEqual(secondary.take(), ["reply 0 errno 5", "release 0", "write 1"]);
  expect.equal(secondary.core.writeErrors, 1);
  for (const [kind, count] of [
    [READ, "readErrors"],
    [ZERO, "deleteErrors"],
    [FLUSH, "flushErrors"],
  ] as const) {
    const bench = new SecondaryBench();
    bench.local(bench.submit(kind, 0, 1), 5);
    expect.equal(bench.core[count], 1);
  }
});

test("every slot can be in use, and each comes back", () => {
  const secondary = new SecondaryBench();
  const slots: number[] = [];
  while (secondary.core.room > 0) slots.push(secondary.submit(WRITE, 0, 1));
  expect.equal(slots.length, SLOT_COUNT);
  expect.equal(secondary.core.active, SLOT_COUNT);
  for (const slot of slots) secondary.local(slot);
  expect.equal(secondary.core.active, 0);
  expect.equal(secondary.core.room, SLOT_COUNT);
  const order = secondary.take().filter((line) => line.startsWith("write"));
  expect.deepEqual(
    order,
    slots.map((slot) => `write ${slot}`),
  );
});

test("S-16: a flush under a FreeBSD primary unmarks what it covers only, and a failed one nothing at all", () => {
  for (const errno of [0, 5]) {
    const map = new Activemap({
      dataSize: 16 * EXTENT_CELLS * 65536,
      extentSize: EXTENT_CELLS * 65536,
      keepdirty: 2,
      regionSize: 512,
      sectorSize: 512,
    });
    const bench = new SecondaryBench();
    bench.core.keepLacking(map);
    const write = (extent: number): number => {
      const slot = bench.submit(WRITE, extent * EXTENT_CELLS, 1);
      const staging = new Uint8Array(512);
      expect.equal(map.takeChanges(staging), 0);
      map.changesPersisted(0, staging, 512);
      bench.core.mapWritten(bench);
      return slot;
    };
    bench.local(write(1));
    const flush = bench.submit(FLUSH, 0, 0);
    const ended = write(2);
    bench.local(ended);
    const running = write(3);
    bench.local(flush, errno);
    expect.equal(map.unflushedCount, errno === 0 ? 1 : 0, "the one that ended meanwhile");
    bench.local(running);
    bench.local(bench.submit(FLUSH, 0, 0));
    const marked = [1, 2, 3].map((extent) => map.isScheduled(extent));
    expect.deepEqual(marked, errno === 0 ? [false, false, false] : [true, true, true]);
  }
});

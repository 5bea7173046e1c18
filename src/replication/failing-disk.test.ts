// SPDX-License-Identifier: BSD-2-Clause
/** A primary whose own disk fails, over a peer that has everything. */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import {
  EXTENT_CELLS,
  mapOf,
  PrimaryBench,
  SecondaryBench,
  TIMEOUT_MS,
} from "../../test/replication-harness.ts";
import { Activemap } from "./activemap.ts";
import type { PrimaryRecord } from "./primary-io.ts";
import { FLUSH, type Mode, WRITE } from "./requests.ts";
import { soleRecord } from "./secondary.ts";

const EIO = 5;
const OURS = { states: true, keeps: true } as const;

/** Connected to a peer of ours, in step. */
function pair(mode: Mode = "fullsync"): PrimaryBench {
  const bench = new PrimaryBench({ mode });
  bench.settle(OURS);
  return bench;
}

/** A write whose extent could not be marked: the disk is given up, and the peer has been asked. */
function leaving(bench: PrimaryBench): number {
  bench.promptMap = false;
  const slot = bench.write(0);
  bench.mapDone(EIO);
  return slot;
}

function diskless(mode: Mode = "fullsync"): PrimaryBench {
  const bench = pair(mode);
  const slot = leaving(bench);
  bench.peerStored();
  bench.reply(slot);
  expect.equal(bench.core.diskless, true);
  bench.takeAll();
  return bench;
}

// ---- reads

test("a range that could not be read here is written again, as the peer has it", () => {
  const bench = pair();
  const read = bench.read(0);
  bench.local(read, EIO);
  bench.reply(read);
  // The client is not kept waiting; the range is marked and locked like any write.
  expect.deepEqual(bench.takeAll(), [
    "local read 0",
    "send read 0",
    "answer 0",
    "release 0",
    "map",
    "send read 0",
  ]);
  expect.equal(bench.map.isPersisted(0, 1), true);
  const write = bench.write(0);
  expect.deepEqual(bench.take(), [], "waits for the copy");
  bench.reply(read);
  expect.deepEqual(bench.take(), ["local write 0"]);
  bench.local(read);
  expect.deepEqual(bench.take(), [`send write ${write}`, `local write ${write}`]);
  expect.equal(bench.map.resyncCount, 0);
});

test("S-19: a repair waits until earlier writes have ended on both nodes", () => {
  const bench = pair("async");
  const read = bench.read(0);
  bench.local(read, EIO);
  const write = bench.write(0);
  bench.take();
  bench.reply(read);
  expect.deepEqual(bench.take(), ["answer 0", "send write 1", "local write 1"]);
  bench.local(write);
  expect.deepEqual(bench.take(), ["answer 1"]);
  bench.reply(write);
  expect.deepEqual(bench.take(), ["send read 0"]);
});

test("invariant 5: what is read from the peer, since it cannot be read here, is not taken back by a later read", () => {
  for (const order of ["the write first", "the read first"] as const) {
    const bench = pair();
    const slots =
      order === "the write first"
        ? [bench.write(0), bench.read(0)]
        : [bench.read(0), bench.write(0)];
    const [write, read] = order === "the write first" ? slots : slots.toReversed();
    bench.take();
    bench.local(read!, EIO);
    const next = bench.write(0);
    expect.deepEqual(
      bench.take(),
      [],
      `${order}: only one node may have it yet, and the next waits`,
    );
    bench.local(write!);
    expect.deepEqual(bench.take(), [], order);
    bench.reply(write!);
    expect.deepEqual(bench.take(), [`answer ${write}`, `send read ${read}`], order);
    bench.reply(read!);
    expect.deepEqual(
      bench.take(),
      [`answer ${read}`, `send write ${next}`, `local write ${next}`],
      order,
    );
  }
});

test("no repair from a peer that has failed a write of the range meanwhile", () => {
  const bench = pair("async");
  const read = bench.read(0);
  bench.local(read, EIO);
  const write = bench.write(0);
  bench.reply(read);
  bench.local(write);
  bench.take();
  bench.reply(write, EIO);
  expect.deepEqual(
    bench.take().filter((line) => line.startsWith("send read")),
    [],
  );
});

test("a read of the peer that a failed write of the peer overtook is an error, not old data", () => {
  const bench = pair("async");
  const write = bench.write(0);
  bench.local(write);
  const read = bench.read(0);
  bench.local(read, EIO);
  bench.take();
  bench.reply(write, EIO);
  expect.deepEqual(
    bench.take().filter((line) => line.startsWith("answer")),
    [`answer ${read} errno 5`],
  );
});

test("a repair that fails, or whose link goes, leaves nothing behind", () => {
  for (const end of ["peer fails", "disk fails", "link goes", "link goes while writing"] as const) {
    const bench = pair();
    const read = bench.read(0);
    bench.local(read, EIO);
    bench.reply(read);
    if (end === "peer fails") bench.reply(read, EIO);
    else if (end === "link goes") bench.cut();
    else {
      bench.reply(read);
      if (end === "link goes while writing") bench.cut();
      bench.local(read, end === "disk fails" ? EIO : 0);
    }
    expect.equal(bench.map.dirtyCount, 0, end);
    expect.equal(bench.core.queues().idle, 256, end);
    expect.equal(bench.core.stale, false, end);
  }
});

// ---- writes

test("S-7: a write that failed here is acknowledged on the peer's word once it is on record", () => {
  for (const mode of ["fullsync", "memsync", "async"] as const) {
    const bench = pair(mode);
    bench.promptRecord = false;
    const slot = bench.write(0);
    if (mode === "memsync") bench.received(slot);
    bench.local(slot, EIO);
    bench.reply(slot);
    const done = bench.take();
    expect.ok(done.includes("record 0/0 inconsistent"), mode);
    expect.ok(!done.some((line) => line.startsWith("answer")), mode);
    bench.recordDone();
    expect.deepEqual(bench.take(), ["answer 0"], mode);
    expect.equal(bench.core.stale, true);
    // Read there, and copied back from there.
    bench.read(0);
    expect.deepEqual(bench.take(), ["send read 0"]);
    bench.tick(5_000);
    expect.deepEqual(bench.take(), ["send read 1", "send read 2"]);
  }
});

test("S-7: a write that failed here is not masked by a FreeBSD peer, which knows nothing of states", () => {
  const bench = new PrimaryBench();
  bench.settle();
  const slot = bench.write(0);
  bench.local(slot, EIO);
  bench.reply(slot);
  expect.ok(bench.take().includes(`answer ${slot} errno 5`));
});

test("S-7: a write that failed here is not masked while the peer lacks an answered one", () => {
  for (const mode of ["memsync", "async"] as const) {
    for (const end of ["arrives", "fails", "link goes"] as const) {
      const bench = pair(mode);
      const older = bench.write(8);
      if (mode === "memsync") bench.received(older);
      bench.local(older);
      const failed = bench.write(0);
      if (mode === "memsync") bench.received(failed);
      bench.local(failed, EIO);
      bench.reply(failed);
      expect.ok(!bench.take().includes(`answer ${failed}`));
      // Nothing more piles up meanwhile.
      const newer = bench.write(16);
      if (mode === "memsync") bench.received(newer);
      bench.local(newer);
      expect.ok(!bench.take().includes(`answer ${newer}`));
      bench.reply(newer);
      expect.equal(bench.core.stale, false);
      bench.take();
      if (end === "arrives") bench.reply(older);
      else if (end === "fails") bench.reply(older, EIO);
      else bench.cut();
      const done = bench.take();
      if (end === "arrives")
        expect.deepEqual(done, ["record 0/0 inconsistent", `answer ${failed}`]);
      else expect.ok(done.includes(`answer ${failed} errno 5`));
      expect.equal(bench.core.stale, end === "arrives");
    }
  }
});

test("S-7: while it is not whole, a primary acknowledges nothing early, and nothing alone", () => {
  const bench = pair("async");
  const failed = bench.write(0);
  bench.local(failed, EIO);
  bench.reply(failed);
  bench.take();
  const write = bench.write(32);
  bench.local(write);
  expect.ok(!bench.take().includes(`answer ${write}`));
  bench.cut();
  bench.tick(1_000);
  expect.ok(!bench.take().some((line) => line.startsWith("answer")));
  bench.tick(TIMEOUT_MS);
  expect.deepEqual(bench.take(), [`answer ${write} errno 5`]);
});

test("a copy from the peer makes a failed write good, and the record says so", () => {
  const bench = pair();
  const failed = bench.write(0);
  bench.finish(bench.write(8));
  bench.local(failed, EIO);
  bench.reply(failed);
  bench.take();
  bench.tick(5_000);
  for (const step of ["send read", "local write"]) {
    for (const line of bench.take()) {
      if (line === "local flush") bench.finishFlush(); // the daemon's own
      if (!line.startsWith(step)) continue;
      const slot = Number(/ (\d+)$/.exec(line)?.[1]);
      if (step === "send read") bench.reply(slot);
      else bench.local(slot);
    }
  }
  bench.finishFlush();
  expect.ok(bench.take().includes("send state uptodate 0"), "the peer may have failed one, too");
  bench.peerStored();
  expect.equal(bench.core.stale, false);
  expect.equal(bench.core.record.state, "uptodate");
  expect.equal(bench.core.record.localcnt, 0n);
});

test("a disk that fails three rounds of copies is given up", () => {
  const bench = pair();
  const failed = bench.write(0);
  bench.local(failed, EIO);
  bench.reply(failed);
  bench.take();
  for (let round = 0; round < 3; round++) {
    bench.tick(5_000);
    bench.take();
    bench.reply(0);
    bench.reply(1);
    bench.local(0, EIO);
    bench.local(1, EIO);
  }
  expect.ok(bench.take().includes("send state sole 0/0"));
  bench.peerStored();
  expect.equal(bench.core.diskless, true);
});

// ---- diskless

test("S-1: nothing is acknowledged without the disk before the peer keeps the record", () => {
  const bench = pair();
  const slot = leaving(bench);
  expect.deepEqual(bench.take(), ["record 0/0 inconsistent", "send state sole 0/0"]);
  bench.read(8);
  bench.write(12);
  bench.flush();
  expect.deepEqual(bench.take(), []);
  bench.peerStored();
  expect.deepEqual(bench.take(), [
    "diskless: the activemap errno 5",
    "send write 0",
    "send read 1",
    "send write 2",
    "send flush",
  ]);
  bench.reply(slot);
  bench.reply(1);
  bench.peerFlushed();
  bench.reply(2);
  expect.deepEqual(bench.take(), ["answer 0", "answer 1", "answer 3", "answer 2"]);
});

test("S-1: a flush or a record that fails costs the disk, too, and no FLUSH fails for it", () => {
  const flush = pair();
  flush.finish(flush.write(0));
  const slot = flush.flush();
  flush.take();
  flush.flushed(EIO);
  flush.peerFlushed();
  expect.deepEqual(flush.take(), ["record 0/0 inconsistent", "send state sole 0/0"]);
  flush.peerStored();
  flush.peerFlushed();
  expect.deepEqual(flush.take(), [
    "diskless: a cache flush errno 5",
    "send flush",
    `answer ${slot}`,
  ]);

  const record = pair();
  record.promptRecord = false;
  const write = record.write(0);
  record.local(write, EIO);
  record.reply(write);
  record.recordDone(EIO);
  record.peerStored();
  expect.deepEqual(record.take().slice(-3), [
    "send state sole 0/0",
    "diskless: the metadata block errno 5",
    "answer 0",
  ]);
});

test("a flush that succeeds after another has failed on the same disk says nothing: FLUSH asks the peer anew", () => {
  const bench = pair();
  bench.finish(bench.write(0));
  const slot = bench.flush();
  // Its own local flush is under way when that of the map fails, which takes the kernel's report along.
  bench.promptMap = false;
  bench.write(8);
  bench.mapDone(EIO);
  bench.take();
  bench.flushed();
  bench.peerFlushed();
  expect.ok(!bench.take().includes(`answer ${slot}`), "not while this copy is on record as whole");
  bench.peerStored();
  bench.peerFlushed();
  expect.ok(bench.take().includes(`answer ${slot}`));
  expect.equal(bench.core.diskless, true);
});

test("a flush that failed here has cleaned nothing, whatever the peer's did (invariant 2)", () => {
  const bench = pair();
  bench.finish(bench.write(0));
  bench.flush();
  bench.flushed(EIO);
  bench.peerFlushed();
  expect.equal(bench.map.unflushedCount, 1);
});

test("S-1: a disk that is given up takes no write alone when the link goes, too", () => {
  const bench = pair("memsync");
  const answered = bench.write(0);
  bench.local(answered);
  bench.received(answered);
  const unanswered = bench.write(8);
  bench.local(unanswered);
  const flush = bench.flush();
  bench.flushed(EIO);
  bench.peerFlushed();
  bench.take();
  bench.cut();
  expect.deepEqual(bench.take(), [
    "record 1/0 uptodate",
    `answer ${unanswered} errno 5`,
    `answer ${flush} errno 5`,
    "disk failed: a cache flush errno 5",
  ]);
});

test("S-1: a write that waited for the map goes to the peer only, once the disk is given up", () => {
  const bench = pair();
  bench.finish(bench.write(0));
  bench.promptMap = false;
  bench.flush();
  const waiting = bench.write(8);
  bench.flushed(EIO);
  bench.peerFlushed();
  bench.take();
  bench.mapDone();
  expect.deepEqual(bench.take(), [], "the map lies on that disk");
  bench.peerStored();
  expect.ok(bench.take().includes(`send write ${waiting}`));
});

test("S-1: without a peer that keeps the record, or with one that has not everything, the resource stops", () => {
  const cases: [string, PrimaryBench][] = [
    ["FreeBSD", new PrimaryBench()],
    ["in the middle of a copy", new PrimaryBench({ dirty: [5] })],
    ["alone", new PrimaryBench()],
  ];
  cases[0]![1].settle();
  cases[1]![1].connect(OURS);
  cases[2]![1].settle(OURS);
  cases[2]![1].cut();
  for (const [what, bench] of cases) {
    bench.takeAll();
    leaving(bench);
    expect.ok(bench.take().includes("disk failed: the activemap errno 5"), what);
  }
});

test("what was acknowledged without the peer, or not copied to it yet, it lacks; what it has not flushed, it has", () => {
  const inStep = pair();
  inStep.finish(inStep.write(0));
  inStep.cut();
  expect.equal(inStep.core.peerLacks, false, "not flushed");
  inStep.promptRecord = false;
  const alone = inStep.write(8);
  expect.equal(inStep.core.peerLacks, false, "not acknowledged");
  inStep.local(alone);
  inStep.recordDone();
  expect.equal(inStep.core.wentAlone, true);
  expect.equal(inStep.core.peerLacks, true, "alone");

  const filling = new PrimaryBench({ dirty: [5] });
  filling.connect(OURS);
  expect.equal(filling.core.peerLacks, true, "in the middle of a copy");
  filling.cut();
  expect.equal(filling.core.peerLacks, true, "cut in the middle of a copy");
  expect.equal(filling.core.wentAlone, false);
  const merging = new PrimaryBench();
  merging.promptMap = false;
  merging.connect({ ...OURS, map: mapOf([5]) });
  expect.equal(merging.core.peerLacks, true, "its map is not on disk yet");
  merging.cut();
  expect.equal(merging.core.peerLacks, true, "nor was it when the link went");

  const comparing = pair();
  expect.equal(comparing.core.fullSync(comparing), true);
  expect.equal(comparing.core.peerLacks, false, "compared only");
  comparing.cut();
  expect.equal(comparing.core.peerLacks, false, "compared only, until the link went");

  const later = (record: Partial<PrimaryRecord>) =>
    new PrimaryBench({ dirty: [5], record }).core.peerLacks;
  expect.equal(later({}), false, "a killed predecessor's map");
  expect.equal(later({ alone: true }), true, "a predecessor was alone");
  expect.equal(later({ synced: "filling" }), true, "a predecessor had not filled it");
});

test("what an answered write of async may not have reached, the peer lacks", () => {
  const bench = pair("async");
  bench.local(bench.write(0));
  bench.cut();
  expect.equal(bench.core.peerLacks, true);
});

test("S-1: the resource stops if the peer goes, refuses, or is silent before it keeps the record", () => {
  for (const end of ["goes", "refuses", "is silent"] as const) {
    const bench = pair();
    leaving(bench);
    bench.take();
    if (end === "goes") bench.cut();
    else if (end === "refuses") bench.peerStored(22);
    else bench.tick(TIMEOUT_MS);
    const done = bench.take();
    expect.ok(done.includes("disk failed: the activemap errno 5"), end);
    expect.ok(done.includes("answer 0 errno 5"), end);
  }
});

test("S-4: async: a disk that fails with answered writes on their way leaves a mark if the link goes", () => {
  const bench = pair("async");
  const answered = bench.write(8);
  bench.local(answered);
  bench.take();
  leaving(bench);
  expect.deepEqual(bench.take(), [], "the peer is asked once it has everything");
  bench.cut();
  expect.deepEqual(bench.take(), [
    "record 1/0 uptodate",
    "answer 1 errno 5",
    "disk failed: the activemap errno 5",
  ]);
});

test("async: the disk is given up once the peer has every answered write", () => {
  const bench = pair("async");
  const answered = bench.write(8);
  bench.local(answered);
  leaving(bench);
  bench.take();
  bench.reply(answered);
  expect.deepEqual(bench.take(), ["record 0/0 inconsistent", "send state sole 0/0"]);
});

test("S-6: without disk and without peer, requests wait up to the timeout, and go to it when it is back", () => {
  const bench = diskless();
  bench.flush();
  bench.peerFlushed();
  bench.cut();
  bench.take();
  const read = bench.read(0);
  const write = bench.write(4);
  const flush = bench.flush();
  bench.tick(1_000);
  expect.deepEqual(bench.take(), []);
  bench.connect({ ...OURS, source: "secondary", localcnt: 1n, map: mapOf([0]) });
  expect.deepEqual(bench.take(), ["send state sole 0/0"], "before anything else");
  bench.peerStored();
  expect.deepEqual(bench.take(), [`send write ${write}`, `send read ${read}`, "send flush"]);
  bench.reply(read);
  bench.reply(write);
  bench.peerFlushed();
  expect.deepEqual(bench.take(), [`answer ${read}`, `answer ${write}`, `answer ${flush}`]);

  bench.cut();
  const late = bench.read(0);
  const unflushed = bench.flush();
  bench.tick(TIMEOUT_MS);
  expect.deepEqual(bench.take(), [`answer ${late} errno 5`, `answer ${unflushed} errno 5`]);
  expect.equal(bench.lossesTold, 0, "nothing is lost: it may be asked again");
});

test("S-1: without disk, what the peer had not flushed when it went is not called stable", () => {
  const bench = diskless();
  bench.reply(bench.write(4));
  bench.cut();
  bench.connect({ ...OURS, source: "secondary", localcnt: 1n });
  bench.peerStored();
  bench.take();
  const doubtful = bench.flush();
  bench.peerFlushed();
  expect.deepEqual(bench.take(), ["send flush", `answer ${doubtful} errno 5`]);
  const next = bench.flush();
  bench.peerFlushed();
  expect.deepEqual(bench.take(), ["send flush", `answer ${next}`]);
});

test("S-1: of the FLUSHes in line when the only copy has lost something, each is told", () => {
  for (const loss of ["another cache", "a failed flush"] as const) {
    const bench = diskless();
    bench.reply(bench.write(4));
    if (loss === "another cache") {
      bench.cut();
      bench.connect({ ...OURS, source: "secondary", localcnt: 1n });
      bench.peerStored();
    }
    bench.take();
    // The third comes too late for the round, and before anybody was told.
    const flushes = [bench.flush(), bench.flush(), bench.flush()];
    bench.peerFlushed(loss === "a failed flush" ? EIO : 0);
    const answers = bench.take().filter((line) => line.startsWith("answer"));
    expect.deepEqual(
      answers,
      flushes.map((slot) => `answer ${slot} errno 5`),
      loss,
    );
    expect.equal(bench.lossesTold, 1, `${loss}: who hides errors from others must know`);
    bench.peerFlushed(); // the round that they had asked for
    const next = bench.flush();
    bench.peerFlushed();
    expect.deepEqual(bench.take(), ["send flush", `answer ${next}`]);
  }
});

test("S-1: a loss that only clients who have gone were told is told to the next one", () => {
  const bench = diskless();
  bench.reply(bench.write(4));
  bench.take();
  bench.clientsStay = false;
  const gone = [bench.flush(), bench.flush()];
  bench.peerFlushed(EIO);
  expect.deepEqual(
    bench.take().filter((line) => line.startsWith("answer")),
    gone.map((slot) => `answer ${slot} errno 5`),
  );
  expect.equal(bench.lossesTold, 0);
  bench.peerFlushed(); // the round that the second one had asked for
  bench.clientsStay = true;
  for (const errno of [5, 0]) {
    const flush = bench.flush();
    bench.peerFlushed();
    expect.equal(bench.take().at(-1), `answer ${flush}${errno === 5 ? " errno 5" : ""}`);
    expect.equal(bench.lossesTold, 1);
  }
});

test("S-1: without disk, a peer that has merely been out of reach has lost nothing", () => {
  const back = { ...OURS, source: "secondary", localcnt: 1n } as const;
  const meet = (bench: PrimaryBench, cache: bigint | null): void => {
    bench.cut();
    bench.connect({ ...back, cache });
    bench.peerStored();
    bench.take();
  };
  const flushes = (bench: PrimaryBench): string[] => {
    bench.flush();
    bench.peerFlushed();
    return bench.take().filter((line) => line.startsWith("answer"));
  };
  const lost = (line: string[]): boolean => / errno 5$/.test(line.join());
  for (const [caches, doubt] of [
    [[8n, 8n], false],
    [[8n, 9n], true],
    [[8n, null], true],
    [[null, null], true],
    // What it had not flushed the first time is in doubt until it has been.
    [[8n, 8n, 9n], true],
  ] as const) {
    const bench = diskless();
    meet(bench, caches[0]);
    flushes(bench); // whatever was in doubt before
    bench.reply(bench.write(4));
    for (const cache of caches.slice(1)) meet(bench, cache);
    expect.equal(lost(flushes(bench)), doubt, `${caches}`);
    expect.equal(lost(flushes(bench)), false, `${caches}: once is enough`);
    // A flush that has ended leaves no doubt.
    meet(bench, 10n);
    expect.equal(lost(flushes(bench)), false, `${caches}: nothing was written since`);
  }
});

test("S-11: without disk, a peer that went on by itself is not what clients were served from; the one that keeps the record is", () => {
  const bench = diskless();
  expect.equal(bench.core.clashes(1n), false, "it counts the time without this disk");
  expect.equal(bench.core.clashes(2n), true);
  bench.cut();
  bench.connect({ ...OURS, source: "secondary", localcnt: 1n });
  bench.peerStored();
  bench.cut();
  expect.equal(bench.core.clashes(1n), false);
  expect.equal(bench.core.clashes(2n), true);
});

test("invariant 6: nothing is read from a disk that is being given up, not even by who stops meanwhile", () => {
  const bench = pair();
  leaving(bench);
  bench.read(4);
  bench.core.stop(bench);
  expect.equal(bench.takeAll().includes("local read 1"), false);
});

test("S-1: what only the peer has of a predecessor's time is in doubt until both have flushed", () => {
  const behind = { ...OURS, source: "secondary", localcnt: 1n, map: mapOf([1]) } as const;
  /** @returns whether a FLUSH fails once the peer is there, the first time and the second */
  const told = (bench: PrimaryBench): boolean[] =>
    [1, 2].map(() => {
      const flush = bench.flush();
      bench.finishFlush();
      return bench.take().includes(`answer ${flush} errno 5`);
    });
  for (const record of [{ state: "inconsistent" }, { state: "uptodate" }] as const) {
    for (const [caches, expected] of [
      [[8n, 9n], true],
      [[8n, 8n, 9n], true],
      [[8n, null], true],
      [[null, null], true],
      [[8n, 8n], false],
      [[8n, "flushed", 9n], false],
      [[8n, "flushed", 8n, 9n], false],
      [[8n, "a while", 9n], false],
      [[null, "a while", null], false],
      // Which cache it was in the predecessor's time nobody knows.
      [[9n], false],
    ] as const) {
      const bench = new PrimaryBench({ record });
      for (const step of caches) {
        if (step === "flushed") bench.flush();
        if (step === "a while") bench.tick(5_000);
        if (typeof step === "string") bench.finishFlush();
        else {
          if (bench.core.connected) bench.cut();
          bench.connect({ ...behind, cache: step });
        }
      }
      bench.take();
      expect.deepEqual(told(bench), [expected, false], `${record.state}: ${caches}`);
      bench.cut();
      bench.connect({ ...behind, cache: 10n });
      bench.take();
      expect.deepEqual(told(bench), [false, false], `${record.state}: ${caches}: once is enough`);
    }
  }
  const whole = new PrimaryBench();
  for (const cache of [8n, 9n]) {
    if (whole.core.connected) whole.cut();
    whole.connect({ ...OURS, cache });
  }
  whole.take();
  expect.deepEqual(told(whole), [false, false], "this copy has it, too");
});

test("without a disk nothing is copied, marked or written here, and stop() ends at once", () => {
  const bench = diskless();
  bench.reply(bench.write(8));
  bench.reply(bench.zero(12, 8));
  bench.tick(60_000);
  bench.peerFlushed();
  bench.cut();
  bench.connect({ ...OURS, source: "secondary", localcnt: 1n, map: mapOf([0, 1, 2]) });
  bench.peerStored();
  bench.tick(5_000);
  bench.core.stop(bench);
  bench.pump();
  bench.peerFlushed();
  const done = bench.takeAll();
  expect.ok(done.includes("stopped"));
  expect.deepEqual(
    done.filter((line) => /^(local|map|record|send read)/.test(line)),
    [],
  );
});

test("a peer's error is the client's where there is no other copy", () => {
  const bench = diskless();
  const write = bench.write(8);
  bench.reply(write, EIO);
  const flush = bench.flush();
  bench.peerFlushed(EIO);
  const done = bench.take();
  expect.ok(done.includes(`answer ${write} errno 5`));
  expect.ok(done.includes(`answer ${flush} errno 5`));
});

test("a flush of our own that the only copy fails is told to the next FLUSH", () => {
  const bench = diskless();
  bench.reply(bench.write(8));
  bench.tick(30_000);
  expect.ok(bench.take().includes("send flush"));
  bench.peerFlushed(EIO);
  const first = bench.flush();
  bench.peerFlushed();
  expect.ok(bench.take().includes(`answer ${first} errno 5`));
  const second = bench.flush();
  bench.peerFlushed();
  expect.ok(bench.take().includes(`answer ${second}`));
});

test("a peer that cannot keep the record is no peer for a primary without disk", () => {
  const bench = diskless();
  bench.cut();
  bench.connect({ source: "secondary", localcnt: 1n });
  expect.match(bench.take().join(), /disconnect: this node has lost its disk/);
  bench.cut();
  bench.connect({ ...OURS, source: "secondary", localcnt: 1n });
  bench.peerStored(22);
  expect.match(bench.take().join(), /disconnect: the peer cannot keep the record/);
});

test("S-1, S-12: without disk, a peer whose record was rolled back is no peer, however often it comes", () => {
  const keeper = { ...OURS, source: "secondary" } as const;
  const refused = (bench: PrimaryBench): void => {
    expect.match(bench.take().join(), /^disconnect: .*older than the one that it has worked over/);
    expect.equal(bench.core.connected, false);
    bench.cut();
  };
  const bench = diskless();
  bench.cut();
  // As before it was told that it is the only copy: the counters are equal.
  bench.connect(OURS);
  refused(bench);
  bench.connect({ ...keeper, localcnt: 3n });
  bench.peerStored();
  bench.cut();
  bench.take();
  for (let attempt = 0; attempt < 2; attempt++) {
    bench.connect({ ...keeper, localcnt: 2n });
    refused(bench);
  }
  // Whatever it counts, it does not say that the data are there.
  bench.connect({ ...OURS, localcnt: 3n });
  refused(bench);
  bench.connect({ ...keeper, localcnt: 3n });
  expect.deepEqual(bench.take(), ["send state sole 0/0"]);
});

test("S-1: a primary that finds itself inconsistent reads nothing here before it has the peer's map", () => {
  // Its predecessor went on without a disk: what was written then is marked at the peer only.
  const bench = new PrimaryBench({ record: { state: "inconsistent" } });
  bench.core.openGate(bench);
  const read = bench.read(0);
  const clean = bench.read(32);
  expect.deepEqual(bench.take(), []);
  bench.connect({ ...OURS, source: "secondary", localcnt: 1n, map: mapOf([0]) });
  const done = bench.take();
  expect.ok(done.includes(`send read ${read}`));
  expect.ok(done.includes(`local read ${clean}`));
  // From here on our own map says everything, with or without the peer.
  bench.cut();
  bench.local(clean);
  bench.read(36);
  expect.ok(bench.take().includes("local read 1"), "answered here");
});

// ---- the other side

test("S-1: the peer counts one further than the primary can have on record, once", () => {
  const own = {
    resuid: 7n,
    localcnt: 3n,
    remotecnt: 5n,
    state: "consistent",
    synced: "written",
  } as const;
  expect.deepEqual(soleRecord(own, 5n, 3n), { ...own, localcnt: 4n, state: "uptodate" });
  expect.deepEqual(soleRecord(own, 5n, 2n), { ...own, localcnt: 3n, state: "uptodate" });
  // A primary with another count than the one we know is not in step with us.
  expect.equal(soleRecord(own, 6n, 3n), null);
  expect.equal(soleRecord(own, 4n, 3n), null);
  expect.equal(soleRecord(own, 5n, 4n), null);
});

test("S-1: while it keeps the record, a secondary marks an extent stably before it writes there", () => {
  const map = new Activemap({
    dataSize: 16 * EXTENT_CELLS * 65536,
    extentSize: EXTENT_CELLS * 65536,
    keepdirty: 2,
    regionSize: 512,
    sectorSize: 512,
  });
  map.load(mapOf([3]));
  const bench = new SecondaryBench();
  bench.core.keep(map);
  const first = bench.submit(WRITE, 0, 1);
  const behind = bench.submit(WRITE, 0, 1);
  const marked = bench.submit(WRITE, 3 * EXTENT_CELLS, 1);
  bench.submit(FLUSH, 0, 0);
  expect.deepEqual(bench.take(), ["map", `write ${marked}`], "and nothing clears the map");
  const staging = new Uint8Array(512);
  map.takeChanges(staging);
  expect.deepEqual([...staging.subarray(0, 1)], [0b1001]);
  map.changesPersisted(0, staging, 512);
  bench.core.mapWritten(bench);
  expect.deepEqual(bench.take(), [`write ${first}`]);
  bench.local(first);
  bench.local(behind);
  bench.local(marked);
  expect.equal(map.isPersisted(0, 1), true, "its bits stay until the primary has stored them");
  map.assertInvariants();
});

// ---- the peer's flush fails

/** Copies what the core asks for, until nothing more comes. @returns what was asked */
function copyAll(bench: PrimaryBench): string[] {
  const story: string[] = [];
  for (let lines = bench.take(); lines.length > 0; lines = bench.take()) {
    story.push(...lines);
    for (const line of lines) {
      const slot = Number(/\d+$/.exec(line.replace(" memsync", ""))?.[0]);
      if (line.startsWith("local ") && line !== "local flush") bench.local(slot);
      else if (/^send (read|write)/.test(line)) bench.reply(slot);
      else if (line === "send flush") bench.finishFlush();
      else if (line.startsWith("send state")) bench.peerStored();
    }
  }
  return story;
}

test("S-3: a write that the peer had when it failed a flush is copied there, whether or not it was answered", () => {
  for (const late of [false, true]) {
    const bench = pair();
    const write = bench.write(0);
    if (!late) bench.reply(write);
    bench.flush();
    bench.flushed();
    bench.peerFlushed(EIO);
    if (late) bench.reply(write);
    expect.ok(bench.take().includes("record 1/0 uptodate"), "for the FLUSH is answered alone");
    bench.local(write);
    expect.ok(bench.take().includes(`answer ${write}`));
    expect.equal(bench.map.resyncCount, 1);
    bench.peerStored(); // that it is inconsistent
    bench.tick(5_000);
    const story = copyAll(bench);
    expect.ok(story.some((line) => line.startsWith("send write")));
    expect.ok(story.some((line) => line.startsWith("send state uptodate")));
  }
});

test("BD-8, S-3: a copy that was under way when the peer failed a flush is made once more, all of it", () => {
  const bench = new PrimaryBench({ dirty: [1], record: { localcnt: 1n } });
  bench.connect({ ...OURS, remotecnt: 0n });
  bench.peerStored();
  const [first, second] = bench
    .take()
    .filter((line) => line.startsWith("local read"))
    .map((line) => Number(/\d+$/.exec(line)![0]));
  bench.local(first!);
  bench.reply(first!);
  bench.flush();
  bench.flushed();
  bench.peerFlushed(EIO);
  bench.local(second!);
  bench.reply(second!);
  bench.take();
  bench.tick(5_000);
  const story = copyAll(bench);
  expect.equal(story.filter((line) => line.startsWith("send write")).length, 2);
  expect.ok(story.some((line) => line.startsWith("send state uptodate")));
});

test("S-3: what a stale primary wrote on both goes to the peer again, and is not taken from there", () => {
  const bench = new PrimaryBench({ dirty: [1], record: { state: "inconsistent" } });
  bench.connect({ ...OURS, source: "secondary", localcnt: 1n });
  bench.take();
  const write = bench.write(0);
  bench.reply(write);
  const flush = bench.flush();
  bench.flushed();
  bench.peerFlushed(EIO);
  bench.local(write);
  const lines = bench.take();
  expect.ok(lines.includes(`answer ${flush} errno 5`));
  expect.ok(lines.includes(`answer ${write} errno 5`), "nobody may have it");
  expect.equal(bench.map.isGoodHere(0, 1), true);
});

test("S-1: without disk, a write that was under way when the peer failed a flush is not called written", () => {
  const bench = diskless();
  const before = bench.write(8);
  const flush = bench.flush();
  bench.peerFlushed(EIO);
  bench.reply(before);
  const after = bench.write(16);
  bench.reply(after);
  expect.deepEqual(
    bench.take().filter((line) => line.startsWith("answer")),
    [`answer ${flush} errno 5`, `answer ${before} errno 5`, `answer ${after}`],
  );
});

test("a peer that failed a flush while nothing was to be copied is told when it is whole again", () => {
  const bench = pair();
  bench.flush();
  bench.finishFlush();
  bench.flush();
  bench.flushed();
  bench.peerFlushed(EIO);
  expect.ok(!bench.take().some((line) => line.startsWith("record")), "it had everything");
  bench.tick(5_000);
  expect.ok(copyAll(bench).some((line) => line.startsWith("send state uptodate")));
});

test("S-16: so is one that failed it while the end of a pass was put on record", () => {
  const bench = new PrimaryBench({ dirty: [1], record: { localcnt: 1n } });
  bench.connect({ ...OURS, remotecnt: 0n });
  bench.promptRecord = false;
  copyAll(bench);
  bench.flush();
  bench.flushed();
  bench.peerFlushed(EIO);
  bench.take();
  bench.recordDone();
  bench.promptRecord = true;
  bench.pump();
  bench.tick(5_000);
  expect.ok(copyAll(bench).some((line) => line.startsWith("send state uptodate")));
});

test("BD-9: a mark for a FreeBSD peer that failed a flush is taken back when both have flushed", () => {
  const bench = new PrimaryBench();
  bench.settle();
  bench.flush();
  bench.flushed();
  bench.peerFlushed(EIO);
  expect.ok(bench.take().includes("record 1/0 uptodate"));
  bench.tick(5_000);
  expect.ok(copyAll(bench).includes("record 0/0 uptodate"));
});

test("a range that cannot be read here is not read, either, from a peer that has failed a flush before", () => {
  const bench = pair();
  bench.finish(bench.write(0));
  bench.flush();
  bench.peerFlushed(EIO); // and our own flush goes on
  bench.take();
  const read = bench.read(0);
  bench.local(read, EIO);
  expect.deepEqual(bench.take(), [`local read ${read}`, `answer ${read} errno 5`]);
});

test("a range that cannot be read here is not repaired from a peer that has failed a flush meanwhile", () => {
  const bench = pair();
  const read = bench.read(0);
  bench.local(read, EIO);
  bench.flush();
  bench.flushed();
  bench.peerFlushed(EIO);
  bench.reply(read);
  const lines = bench.take();
  expect.ok(lines.includes(`answer ${read} errno 5`));
  expect.ok(!lines.some((line) => line.startsWith("local write")));
});

test("BD-13: in the middle of a full copy that only compares, an unreadable range is read from the peer", () => {
  const bench = pair();
  bench.core.fullSync(bench);
  const read = bench.read(0);
  bench.local(read, EIO);
  bench.reply(read);
  expect.ok(bench.take().includes(`answer ${read}`));
});

test("S-13: what failed at the peer while the end of a pass was put on record keeps the pass going", () => {
  const bench = new PrimaryBench({ dirty: [1], record: { localcnt: 1n } });
  bench.connect({ ...OURS, remotecnt: 0n });
  bench.promptRecord = false;
  copyAll(bench);
  const write = bench.write(0);
  bench.local(write);
  bench.reply(write, EIO);
  expect.ok(bench.take().some((line) => line.startsWith("send state inconsistent")));
  bench.peerStored();
  bench.tick(5_000);
  copyAll(bench);
  bench.recordDone();
  bench.recordDone();
  bench.promptRecord = true;
  bench.pump();
  expect.ok(copyAll(bench).some((line) => line.startsWith("send state uptodate")));
});

test("invariant 5: while the disk here is given up, nothing is read from a peer that lacks an answered write", () => {
  const bench = new PrimaryBench({ mode: "async" });
  bench.settle(OURS);
  const write = bench.write(0);
  bench.local(write);
  bench.flush();
  const read = bench.read(0);
  bench.promptRecord = false;
  bench.flushed(EIO);
  bench.peerFlushed();
  bench.reply(write, EIO);
  bench.local(read);
  const lines = bench.take();
  expect.ok(lines.includes(`answer ${read} errno 5`));
  expect.ok(!lines.includes(`send read ${read}`));
});

test("invariant 5: a read that waited for a copy also waits for a write that both have begun meanwhile", () => {
  const bench = new PrimaryBench({ record: { state: "inconsistent" } });
  const peer = { ...OURS, source: "secondary", map: mapOf([1]), cache: 8n } as const;
  bench.core.orderSync({ held: true, rate: 0 });
  bench.connect(peer);
  bench.finish(bench.write(3));
  bench.cut();
  bench.connect(peer);
  bench.take();
  const read = bench.read(3, 2);
  bench.local(1);
  bench.reply(1);
  const write = bench.write(3);
  bench.take();
  bench.local(0);
  bench.reply(0);
  expect.ok(!bench.take().includes(`send read ${read}`));
  bench.local(write);
  bench.reply(write);
  expect.ok(bench.take().includes(`send read ${read}`));
});

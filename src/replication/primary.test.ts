// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import {
  CELL,
  EXTENT_CELLS,
  IN_STEP,
  mapOf,
  PrimaryBench,
  TIMEOUT_MS,
} from "../../test/replication-harness.ts";
import type { PeerState } from "./primary-io.ts";
import { ERR_AGAIN, FLUSH, SLOT_COUNT, WRITE } from "./requests.ts";

const EIO = 5;
const ENOSPC = 28;
/** A cell in the extent with this index. */
function inExtent(extent: number): number {
  return extent * EXTENT_CELLS;
}

/** One write has gone alone, so the mark is made: 1/0. */
function alone(bench: PrimaryBench): void {
  const slot = bench.write(0);
  bench.local(slot);
  bench.take();
}

/**
 * Lets a pass finish: every copy, the flush, the state message. Returns what was asked for.
 * @param begun what has been taken already, and nobody has answered
 */
function finishPass(bench: PrimaryBench, begun: readonly string[] = []): string[] {
  const story: string[] = [];
  for (let round = 0; round < 200; round++) {
    const done = [...(round === 0 ? begun : []), ...bench.takeAll()];
    if (done.length === 0) return story;
    story.push(...done);
    for (const line of done) {
      const slot = Number(/ (\d+)/.exec(line)?.[1]);
      if (line.startsWith("local read") || line.startsWith("local write")) bench.local(slot);
      else if (line.startsWith("send read") || line.startsWith("send write")) bench.reply(slot);
      else if (line === "local flush") bench.flushed();
      else if (line === "send flush") bench.peerFlushed();
      else if (line.startsWith("send state")) bench.peerStored();
    }
  }
  throw new Error(`the pass does not end: ${story.slice(-10)}`);
}

// ---- when a write is answered, by mode

test("fullsync: a write is answered when both nodes have written it, whoever is first", () => {
  for (const order of ["local first", "peer first"] as const) {
    const bench = new PrimaryBench({ mode: "fullsync" });
    bench.settle();
    const slot = bench.write(0);
    expect.deepEqual(bench.take(), ["send write 0", "local write 0"]);
    if (order === "local first") bench.local(slot);
    else bench.reply(slot);
    expect.deepEqual(bench.take(), []);
    if (order === "local first") bench.reply(slot);
    else bench.local(slot);
    expect.deepEqual(bench.takeAll(), ["answer 0", "release 0"]);
  }
});

test("memsync: a write is answered when it is written here and received there", () => {
  const bench = new PrimaryBench({ mode: "memsync" });
  bench.settle();
  const slot = bench.write(0);
  expect.deepEqual(bench.take(), ["send write 0 memsync", "local write 0"]);
  bench.received(slot);
  expect.deepEqual(bench.take(), []);
  bench.local(slot);
  expect.deepEqual(bench.takeAll(), ["answer 0"]);
  bench.reply(slot);
  expect.deepEqual(bench.takeAll(), ["release 0"]);
});

test("memsync: `received` alone answers nothing while our own disk is busy, nor does the final reply", () => {
  const bench = new PrimaryBench({ mode: "memsync" });
  bench.settle();
  const slot = bench.write(0);
  bench.received(slot);
  bench.reply(slot);
  expect.ok(!bench.take().includes("answer 0"));
  bench.local(slot);
  expect.deepEqual(bench.take(), ["answer 0"]);
});

test("memsync falls back to fullsync with a peer of version 1, for that connection only (BD-32)", () => {
  const bench = new PrimaryBench({ mode: "memsync" });
  bench.settle({ version: 1 });
  bench.finish(bench.write(0));
  expect.deepEqual(bench.take(), ["send write 0", "local write 0", "answer 0"]);
  bench.cut();
  bench.connect({ version: 2 });
  bench.take();
  bench.write(8);
  expect.match(bench.take().join(), /memsync/);
});

test("BD-32: another mode counts from the next answer on, and at the next connection too", () => {
  const bench = new PrimaryBench({ mode: "async" });
  bench.settle();
  const early = bench.write(0);
  bench.take();
  bench.local(early);
  expect.deepEqual(bench.takeAll(), ["answer 0"]);
  const slot = bench.write(8);
  bench.take();
  bench.core.reconfigure("fullsync", TIMEOUT_MS);
  // Issued under async, not answered yet: the peer has to have it now.
  bench.local(slot);
  expect.deepEqual(bench.takeAll(), []);
  bench.reply(early);
  bench.reply(slot);
  expect.deepEqual(bench.takeAll(), ["release 0", "answer 1", "release 1"]);
  bench.cut();
  bench.connect({ version: 2 });
  bench.take();
  const later = bench.write(16);
  bench.take();
  bench.local(later);
  expect.ok(!bench.takeAll().some((effect) => effect.startsWith("answer")));
});

test("BD-32: memsync, switched on while it works, is not spoken to a peer of version 1", () => {
  const bench = new PrimaryBench({ mode: "fullsync" });
  bench.settle({ version: 1 });
  bench.core.reconfigure("memsync", TIMEOUT_MS);
  bench.finish(bench.write(0));
  expect.deepEqual(bench.take(), ["send write 0", "local write 0", "answer 0"]);
  bench.cut();
  bench.connect({ version: 2 });
  bench.take();
  bench.write(8);
  expect.match(bench.take().join(), /memsync/);
});

test("BD-32: another timeout counts for what has been sent already", () => {
  const bench = new PrimaryBench({ mode: "fullsync" });
  bench.settle();
  bench.write(0);
  bench.tick(3_000);
  expect.doesNotMatch(bench.takeAll().join(), /disconnect/);
  bench.core.reconfigure("fullsync", 2_000);
  bench.tick(1_000);
  expect.match(bench.takeAll().join(), /disconnect: no answer from the peer for 2 s/);
});

test("async: a write is answered when it is written here", () => {
  const bench = new PrimaryBench({ mode: "async" });
  bench.settle();
  const slot = bench.write(0);
  bench.take();
  bench.local(slot);
  expect.deepEqual(bench.takeAll(), ["answer 0"]);
  bench.reply(slot);
  expect.deepEqual(bench.takeAll(), ["release 0"]);
});

test("ZERO is answered when both have done it, in memsync too, and tracked like a write (BD-20)", () => {
  for (const mode of ["fullsync", "memsync"] as const) {
    const bench = new PrimaryBench({ mode });
    bench.settle();
    const slot = bench.zero(0, 8);
    expect.deepEqual(bench.takeAll(), ["map", "send zero 0", "local zero 0"]);
    expect.equal(bench.map.dirtyCount, 2);
    bench.local(slot);
    expect.deepEqual(bench.take(), []);
    bench.reply(slot);
    expect.deepEqual(bench.take(), ["answer 0"]);
  }
});

test("BD-20: a TRIM that failed here is an error, whatever the peer said", () => {
  for (const errno of [0, EIO]) {
    const bench = new PrimaryBench();
    bench.settle();
    const slot = bench.zero(0);
    bench.reply(slot, errno);
    bench.take();
    bench.local(slot, EIO);
    expect.ok(bench.take().includes("answer 0 errno 5"));
    expect.equal(bench.map.resyncCount, 1);
  }
});

test("BD-20: a write waits for an overlapping TRIM to leave our own disk", () => {
  const bench = new PrimaryBench();
  bench.settle();
  const trim = bench.zero(0, 2);
  bench.take();
  bench.write(1);
  expect.deepEqual(bench.take(), []);
  bench.local(trim);
  expect.deepEqual(bench.take(), ["send write 1", "local write 1"]);
});

test("a failed TRIM of the peer is made good by a copy (BD-20)", () => {
  const bench = new PrimaryBench();
  bench.settle();
  const slot = bench.zero(0);
  bench.local(slot);
  bench.reply(slot, EIO);
  expect.deepEqual(bench.take().slice(-2), ["record 1/0 uptodate", "answer 0"]);
  expect.equal(bench.map.resyncCount, 1);
});

// ---- alone

test("without a peer a write is answered once the alone mark is stable, and the mark is made once", () => {
  for (const mode of ["fullsync", "memsync", "async"] as const) {
    const bench = new PrimaryBench({ mode });
    bench.core.openGate(bench);
    bench.promptRecord = false;
    const slot = bench.write(0);
    bench.local(slot);
    expect.deepEqual(bench.take(), ["local write 0", "record 1/0 uptodate"]);
    bench.recordDone();
    expect.deepEqual(bench.takeAll(), ["answer 0", "release 0"]);
    expect.equal(bench.map.awaitsResync(0, 1), true);
    bench.local(bench.write(8));
    expect.deepEqual(bench.take(), ["local write 0", "answer 0"]);
  }
});

test("with `remote none` nothing waits for a first connection attempt", () => {
  const bench = new PrimaryBench({ hasRemote: false });
  bench.local(bench.write(0));
  expect.deepEqual(bench.take(), ["local write 0", "record 1/0 uptodate", "answer 0"]);
});

test("requests are held until the first connection attempt has ended", () => {
  const bench = new PrimaryBench();
  bench.write(0);
  bench.read(8);
  bench.flush();
  expect.deepEqual(bench.take(), []);
  bench.core.openGate(bench);
  bench.pump();
  expect.deepEqual(bench.take(), ["local read 1", "local flush", "local write 0"]);
});

test("each instance marks again, even when the last one left a mark (BD-14b)", () => {
  const bench = new PrimaryBench({ record: { localcnt: 3n, remotecnt: 1n } });
  bench.core.openGate(bench);
  bench.local(bench.write(0));
  expect.match(bench.take().join(), /record 4\/1/);
});

test("a write before the nodes ever met is marked on disk (BD-14a)", () => {
  const bench = new PrimaryBench({ record: { resuid: 0n, state: "new" } });
  bench.core.openGate(bench);
  bench.local(bench.write(0));
  expect.deepEqual(bench.take(), ["local write 0", "record 1/0 new", "answer 0"]);
});

test("no mark is made while the counters are on the wire; it follows when the handshake fails", () => {
  const bench = new PrimaryBench();
  bench.core.openGate(bench);
  bench.core.handshakeBegin();
  bench.local(bench.write(0));
  expect.deepEqual(bench.take(), ["local write 0"]);
  bench.core.handshakeFailed(bench);
  bench.pump();
  expect.deepEqual(bench.take(), ["record 1/0 uptodate", "answer 0"]);
});

test("a write that waited for the mark during a handshake goes to the peer instead", () => {
  const bench = new PrimaryBench();
  bench.core.openGate(bench);
  bench.core.handshakeBegin();
  const slot = bench.write(0);
  bench.local(slot);
  bench.accept();
  expect.deepEqual(bench.take().slice(0, 2), ["local write 0", "send write 0"]);
  bench.reply(slot);
  expect.equal(bench.take().includes("answer 0"), true);
  expect.equal(bench.core.record.localcnt, 0n);
});

test("a write that waited for the mark is not forgotten when the link goes while merging", () => {
  const bench = new PrimaryBench();
  bench.core.openGate(bench);
  bench.core.handshakeBegin();
  bench.local(bench.write(0));
  bench.promptMap = false;
  bench.accept({ map: mapOf([5]) });
  expect.equal(bench.core.connected, false);
  bench.cut();
  bench.mapDone();
  expect.deepEqual(bench.take(), ["local write 0", "record 1/0 uptodate", "answer 0"]);
});

test("the counters are not sent while a record is being written", () => {
  const bench = new PrimaryBench();
  bench.core.openGate(bench);
  bench.promptRecord = false;
  bench.local(bench.write(0));
  expect.equal(bench.core.handshakeBegin(), null);
  bench.recordDone();
  expect.equal(bench.core.handshakeBegin()?.localcnt, 1n);
});

test("a record that cannot be written stops the resource, and nobody is told that it worked (BD-17)", () => {
  const bench = new PrimaryBench();
  bench.core.openGate(bench);
  bench.promptRecord = false;
  bench.local(bench.write(0));
  bench.recordDone(EIO);
  expect.deepEqual(bench.take().slice(-2), [
    "answer 0 errno 5",
    "disk failed: the metadata block errno 5",
  ]);
  expect.equal(bench.core.room, 0);
});

// ---- persist first

test("data is issued to neither node before its bit is on disk (invariant 1)", () => {
  const bench = new PrimaryBench();
  bench.settle();
  bench.promptMap = false;
  bench.write(0);
  expect.deepEqual(bench.takeAll(), ["map"]);
  bench.mapDone();
  expect.deepEqual(bench.take(), ["send write 0", "local write 0"]);
});

test("a write behind a map write under way waits for the next one", () => {
  const bench = new PrimaryBench();
  bench.settle();
  bench.promptMap = false;
  bench.write(inExtent(1));
  bench.write(inExtent(2));
  bench.mapDone();
  expect.deepEqual(bench.takeAll(), ["map", "send write 0", "local write 0", "map"]);
  bench.mapDone();
  expect.deepEqual(bench.take(), ["send write 1", "local write 1"]);
});

test("a map that cannot be written stops the resource before any data is written (BD-17)", () => {
  const bench = new PrimaryBench();
  bench.settle();
  bench.promptMap = false;
  bench.write(0);
  bench.mapDone(EIO);
  expect.deepEqual(bench.take(), ["answer 0 errno 5", "disk failed: the activemap errno 5"]);
});

// ---- one order

test("an overlapping write waits for our own disk, and only the overlapping one (invariant 4, BD-26)", () => {
  const bench = new PrimaryBench({ dirty: [] });
  bench.settle();
  const first = bench.write(0, 2);
  bench.take();
  bench.write(1, 2);
  bench.write(3);
  expect.deepEqual(bench.take(), ["send write 2", "local write 2"]);
  bench.local(first);
  // The connection keeps the order on the peer: its answer to the first need not be waited for.
  expect.deepEqual(bench.take(), ["send write 1", "local write 1"]);
});

test("overlapping writes keep their order through the map and the gate", () => {
  const bench = new PrimaryBench();
  bench.promptMap = false;
  bench.write(0, 2);
  bench.write(1, 1);
  bench.zero(0, 8);
  bench.core.openGate(bench);
  bench.pump();
  bench.mapDone();
  expect.deepEqual(bench.take(), ["local write 0"]);
  bench.promptMap = true;
  bench.local(0);
  bench.local(1);
  expect.deepEqual(
    bench.take().filter((line) => line.startsWith("local")),
    ["local write 1", "local zero 2"],
  );
});

test("a read waits for nothing", () => {
  const bench = new PrimaryBench();
  bench.settle();
  bench.write(0);
  bench.take();
  bench.read(0);
  expect.deepEqual(bench.take(), ["local read 1"]);
});

// ---- errors

test("BD-2: an error reply to a write marks, schedules and copies again", () => {
  const bench = new PrimaryBench();
  bench.settle();
  const slot = bench.write(0);
  bench.local(slot);
  bench.reply(slot, ENOSPC);
  const done = bench.takeAll();
  expect.ok(done.indexOf("record 1/0 uptodate") < done.indexOf("answer 0"));
  expect.ok(done.includes("event syncstart"));
  expect.ok(!done.some((line) => line.startsWith("local read")), "not at once");
  expect.equal(bench.map.dirtyCount, 1);
  bench.tick(5_000);
  const story = finishPass(bench);
  expect.equal(story.filter((line) => line.startsWith("send write")).length, 2);
  expect.equal(bench.map.dirtyCount, 0);
  expect.equal(bench.core.record.localcnt, 0n, "equalised as the reference does");
});

test("BD-2: a peer that refuses one write after the other hears what its copy is worth, and gets the rest", () => {
  const bench = new PrimaryBench();
  bench.settle({ states: true });
  const told: string[] = [];
  const refused = (): void => {
    const slot = bench.write(0);
    bench.local(slot);
    bench.reply(slot, EIO);
    told.push(...bench.takeAll());
  };
  refused();
  expect.equal(told.filter((line) => line.startsWith("send state inconsistent")).length, 1);
  bench.peerStored();
  expect.ok(!told.some((line) => line.startsWith("local read")), "not copied at once");
  for (let second = 1; second < 5; second++) {
    bench.tick(1_000);
    refused();
  }
  expect.ok(!told.some((line) => line.startsWith("local read")), "not before 5 s have passed");
  bench.tick(1_000);
  const begun = bench.takeAll();
  expect.equal(begun.filter((line) => line.startsWith("local read")).length, 2);
  // What is in line already does not wait for what is refused beside it.
  const elsewhere = bench.write(inExtent(3));
  bench.local(elsewhere);
  bench.reply(elsewhere, EIO);
  expect.ok(bench.takeAll().some((line) => line.startsWith("local read")));
});

test("BD-2: an error that comes after the answer still leaves a mark (memsync, async)", () => {
  for (const mode of ["memsync", "async"] as const) {
    const bench = new PrimaryBench({ mode });
    bench.settle();
    const slot = bench.write(0);
    if (mode === "memsync") bench.received(slot);
    bench.local(slot);
    expect.ok(bench.take().includes("answer 0"));
    bench.reply(slot, EIO);
    expect.deepEqual(bench.take(), ["record 1/0 uptodate"]);
    expect.equal(bench.map.resyncCount, 1);
  }
});

test("BD-3, BD-4: a write that failed here is an error where the peer has not everything else", () => {
  for (const mode of ["fullsync", "memsync", "async"] as const) {
    for (const order of ["local first", "peer first"] as const) {
      const bench = new PrimaryBench({ mode, dirty: [5] });
      bench.connect();
      const slot = bench.write(0);
      bench.takeAll();
      if (mode === "memsync") bench.received(slot);
      if (order === "local first") {
        bench.local(slot, EIO);
        expect.deepEqual(bench.take(), [], "nothing of it may come later");
        bench.reply(slot);
      } else {
        bench.reply(slot);
        bench.local(slot, EIO);
      }
      expect.equal(bench.take()[0], `answer ${slot} errno 5`);
      expect.equal(bench.map.isScheduled(0) || bench.map.isSyncing(0), true);
      expect.equal(bench.core.statistics.writeErrors, 1);
      expect.equal(bench.core.stale, false, "copied from here to the peer");
    }
  }
});

test("BD-4: a write that failed here is an error without a peer", () => {
  const lonely = new PrimaryBench({ mode: "memsync" });
  lonely.core.openGate(lonely);
  lonely.local(lonely.write(0), EIO);
  expect.deepEqual(lonely.take(), ["local write 0", "answer 0 errno 5"]);
});

test("BD-19: a write that failed on both nodes is scheduled, and its count released", () => {
  const bench = new PrimaryBench();
  bench.settle();
  const slot = bench.write(0);
  bench.local(slot, EIO);
  bench.reply(slot, EIO);
  expect.ok(bench.take().includes("answer 0 errno 5"));
  expect.equal(bench.map.resyncCount, 1);
  bench.tick(5_000);
  finishPass(bench);
  expect.equal(bench.map.dirtyCount, 0);
});

// ---- reads

test("a read comes from here, and is answered with its error when no peer can help", () => {
  const bench = new PrimaryBench();
  bench.core.openGate(bench);
  const slot = bench.read(0);
  bench.local(slot, EIO);
  expect.deepEqual(bench.take(), ["local read 0", "answer 0 errno 5"]);
  expect.equal(bench.core.statistics.readErrors, 1);
});

test("a read that failed here is served by the peer", () => {
  const bench = new PrimaryBench();
  bench.settle();
  const slot = bench.read(0);
  bench.local(slot, EIO);
  expect.deepEqual(bench.take(), ["local read 0", "send read 0"]);
  expect.equal(bench.core.awaitsData(slot), true);
  bench.reply(slot);
  expect.equal(bench.take()[0], "answer 0");
});

test("a read that failed here is not served by a peer that awaits a copy of the range", () => {
  const bench = new PrimaryBench({ dirty: [0] });
  bench.connect({ states: true });
  bench.take();
  const slot = bench.read(0);
  bench.local(slot, EIO);
  expect.ok(bench.take().includes(`answer ${slot} errno 5`));
});

test("a read that the peer cannot serve either ends with the peer's error, or ours if the link goes", () => {
  const bench = new PrimaryBench();
  bench.settle();
  const first = bench.read(0);
  bench.local(first, EIO);
  bench.reply(first, ENOSPC);
  expect.ok(bench.take().includes("answer 0 errno 28"));
  const second = bench.read(0);
  bench.local(second, EIO);
  bench.cut();
  expect.ok(bench.take().includes("answer 0 errno 5"));
});

/** Connected to a peer with newer data: extents 1 and 2 are stale here. */
function outdated(
  options: ConstructorParameters<typeof PrimaryBench>[0] = {},
  peer: Partial<PeerState> = {},
): PrimaryBench {
  const bench = new PrimaryBench(options);
  bench.connect({ source: "secondary", localcnt: 1n, map: mapOf([1, 2]), cache: 8n, ...peer });
  return bench;
}

test("BD-13: while the peer is the source, stale ranges are read there and clean ones here", () => {
  const bench = outdated();
  bench.take();
  const stale = bench.read(inExtent(1), 2);
  const clean = bench.read(0, 2);
  const both = bench.read(inExtent(1) - 1, 2);
  expect.deepEqual(bench.take(), [
    `send read ${stale}`,
    `local read ${clean}`,
    `send read ${both}`,
  ]);
  bench.reply(stale);
  expect.deepEqual(bench.take(), [`answer ${stale}`]);
});

test("BD-13: what one READ has seen at the peer, the next one does not miss here", () => {
  const both = [inExtent(1) - 1, 2] as const; // clean here, and stale
  const bench = outdated();
  bench.take();
  // The peer may have the write before this disk has it.
  const write = bench.write(both[0]);
  const read = bench.read(...both);
  expect.deepEqual(bench.take(), [`send write ${write}`, `local write ${write}`]);
  bench.local(write);
  expect.deepEqual(bench.take(), [], "it has not gone through on both");
  bench.reply(write);
  expect.deepEqual(bench.take(), [`answer ${write}`, `send read ${read}`]);
  // And one that comes while the peer reads.
  const next = bench.write(both[0]);
  expect.deepEqual(bench.take(), []);
  bench.reply(read);
  expect.deepEqual(bench.take(), [`answer ${read}`, `send write ${next}`, `local write ${next}`]);
});

test("BD-15: before the first copy from the peer, our own metadata says inconsistent", () => {
  const bench = new PrimaryBench();
  bench.promptRecord = false;
  bench.promptMap = false;
  bench.connect({ source: "secondary", localcnt: 1n, map: mapOf([1]) });
  expect.deepEqual(bench.takeAll(), ["record 0/0 inconsistent", "map"]);
  bench.mapDone();
  expect.deepEqual(bench.take(), []);
  bench.recordDone();
  expect.match(bench.take()[0]!, /send read/);
});

test("S-9: whose data it will be is open until something can have been served", () => {
  const alone = new PrimaryBench();
  expect.equal(alone.core.fresh, true);
  alone.core.openGate(alone);
  expect.equal(alone.core.fresh, false);

  // Equal counters, and the peer is the source all the same: nothing stale is served, or copied there.
  const back = new PrimaryBench({ dirty: [1] });
  expect.equal(back.core.handshakeBegin() !== null, true);
  back.accept({ source: "secondary", map: mapOf([]) });
  expect.equal(back.core.fresh, false);
  expect.equal(back.core.stale, true);
  expect.equal(back.core.record.state, "inconsistent");
  expect.match(back.take().join(), /send read/);
  // The connection goes before all is copied: with equal counters the next one says "primary".
  back.cut();
  back.connect({ source: "primary", map: mapOf([]) });
  expect.match(back.take().join(), /send read/, "still from there");
});

test("a read that our own disk finished after the peer turned out newer is read again there", () => {
  const bench = new PrimaryBench();
  bench.core.openGate(bench);
  const slot = bench.read(inExtent(1));
  bench.connect({ source: "secondary", localcnt: 1n, map: mapOf([1]) });
  bench.take();
  bench.local(slot);
  expect.deepEqual(bench.take(), [`send read ${slot}`]);
});

test("a stale read waits for a lost peer, and is sent when it is back", () => {
  const bench = outdated();
  bench.take();
  const slot = bench.read(inExtent(1));
  bench.cut();
  expect.equal(bench.core.waitingForPeer, 1);
  bench.take();
  bench.connect({ source: "secondary", localcnt: 1n });
  expect.ok(bench.take().includes(`send read ${slot}`));
});

// ---- a peer that may have lost its power

/** Stale in extents 1 and 2; extent 0 was written on both nodes, not flushed, and the link was lost. */
function goodHere(): PrimaryBench {
  const bench = outdated();
  bench.finish(bench.write(0));
  bench.cut();
  bench.connect({ source: "secondary", localcnt: 1n, cache: 8n });
  return bench;
}

/** The slots of lines that begin so. */
function slotsOf(lines: string[], start: string): number[] {
  return lines
    .filter((line) => line.startsWith(start))
    .map((line) => Number(line.split(" ").at(-1)));
}

test("S-3: what a stale primary alone may still have goes to the peer first, and FLUSH waits for it", () => {
  const bench = goodHere();
  const copies = slotsOf(bench.take(), "local read");
  expect.equal(copies.length, 2, "extent 0, in two pieces");
  const read = bench.read(0);
  const flush = bench.flush();
  expect.deepEqual(bench.take(), [`local read ${read}`]);
  bench.local(copies[0]!);
  bench.local(copies[1]!);
  expect.deepEqual(
    bench.take(),
    copies.map((slot) => `send write ${slot}`),
  );
  bench.reply(copies[0]!);
  expect.deepEqual(bench.take(), []);
  bench.reply(copies[1]!);
  expect.deepEqual(bench.take(), ["send flush", "local flush"]);
  bench.finishFlush();
  expect.deepEqual(bench.take(), [`answer ${flush}`]);
});

test("a read of ranges that are good on one node each waits until one has both", () => {
  const bench = goodHere();
  const copies = slotsOf(bench.take(), "local read");
  const read = bench.read(inExtent(1) - 1, 2);
  expect.deepEqual(bench.take(), []);
  for (const slot of copies) bench.local(slot);
  for (const slot of copies) bench.reply(slot);
  expect.ok(bench.take().includes(`send read ${read}`));
});

test("what was good here only and cannot be read is lost: one FLUSH says so, and the peer's copy counts", () => {
  const bench = goodHere();
  const copies = slotsOf(bench.take(), "local read");
  const flush = bench.flush();
  for (const slot of copies) bench.local(slot, 5);
  expect.deepEqual(slotsOf(bench.take(), "send flush").length, 1);
  bench.finishFlush();
  expect.ok(bench.take().includes(`answer ${flush} errno 5`));
  const read = bench.read(0);
  expect.deepEqual(bench.take(), [`send read ${read}`]);
});

test("S-7: a write that fails where this copy is the good one is an error, whatever the peer says", () => {
  const bench = outdated({ record: { state: "inconsistent" } }, { states: true });
  bench.finish(bench.write(0));
  // Its own write has failed when the link goes, and the peer takes it afterwards.
  const before = bench.write(1);
  bench.local(before, EIO);
  bench.cut();
  bench.connect({ source: "secondary", localcnt: 1n, cache: 8n, states: true });
  const copies = slotsOf(bench.take(), "local read");
  bench.reply(before);
  const done = bench.take();
  expect.equal(done[0], `answer ${before} errno 5`);
  copies.push(...slotsOf(done, "local read")); // what waited for that write
  expect.equal(copies.length, 2);
  // Or it fails only now, after the copy that it waited for: that has to be made again.
  const after = bench.write(2);
  expect.deepEqual(bench.take(), [], "waits for the copy");
  for (const slot of copies) bench.local(slot);
  expect.deepEqual(slotsOf(bench.take(), "send write"), copies, "from here to the peer");
  for (const slot of copies) bench.reply(slot);
  bench.local(after, EIO);
  bench.reply(after);
  const begun = bench.take();
  expect.ok(begun.includes(`answer ${after} errno 5`));
  finishPass(
    bench,
    begun.filter((line) => !line.endsWith(`write ${after}`)),
  );
  expect.equal(bench.map.goodHereCount, 0);
  const flush = bench.flush();
  bench.finishFlush();
  expect.ok(bench.take().includes(`answer ${flush}`), "and nothing is lost");
});

test("a peer that has been primary meanwhile is not overwritten with what was good here", () => {
  const bench = outdated();
  bench.finish(bench.write(0));
  bench.cut();
  bench.take();
  bench.connect({ source: "secondary", localcnt: 2n, map: mapOf([0]), cache: 8n });
  expect.deepEqual(slotsOf(bench.take(), "local read"), []);
  const flush = bench.flush();
  bench.finishFlush();
  expect.ok(bench.take().includes(`answer ${flush} errno 5`));
});

// ---- S-6: a stale primary

test("S-6: a stale primary acknowledges no write, trim or flush alone; a deadline ends the wait", () => {
  const bench = outdated();
  bench.cut();
  bench.take();
  const write = bench.write(0);
  const zero = bench.zero(inExtent(5));
  const flush = bench.flush();
  const read = bench.read(inExtent(2));
  bench.local(write);
  bench.local(zero);
  bench.flushed();
  expect.ok(!bench.take().some((line) => /answer|record/.test(line)));
  expect.equal(bench.core.waitingForPeer, 4);
  bench.tick(TIMEOUT_MS - 1);
  expect.deepEqual(bench.take(), []);
  bench.tick(1);
  expect.deepEqual(
    bench.take(),
    [write, zero, flush, read].map((slot) => `answer ${slot} errno 5`),
  );
  expect.equal(bench.core.record.localcnt, 0n, "or it would be a self-made split-brain");
  expect.equal(bench.core.waitingForPeer, 0);
});

test("S-6: what waited for the peer goes to it, in order", () => {
  const bench = outdated();
  bench.cut();
  bench.take();
  const first = bench.write(0);
  bench.local(first);
  const second = bench.write(0);
  bench.local(second);
  bench.connect({ source: "secondary", localcnt: 1n });
  expect.deepEqual(
    bench.take().filter((line) => line.startsWith("send write")),
    [`send write ${first}`, `send write ${second}`],
  );
  bench.reply(first);
  bench.reply(second);
  expect.deepEqual(
    bench.take().filter((line) => line.startsWith("answer")),
    [`answer ${first}`, `answer ${second}`],
  );
});

test("S-6: a node that was the target of an unfinished resync starts as a stale primary", () => {
  const bench = new PrimaryBench({ record: { state: "inconsistent" }, dirty: [1] });
  bench.core.openGate(bench);
  const slot = bench.write(0);
  bench.read(inExtent(1));
  bench.read(inExtent(5));
  bench.local(slot);
  // The peer's map may mark extent 5, too.
  expect.deepEqual(bench.take(), ["local write 0"]);
  expect.equal(bench.core.waitingForPeer, 3);
});

test("S-6: what waited for a mark while the peer turned out newer waits for the peer instead", () => {
  const bench = new PrimaryBench();
  bench.core.openGate(bench);
  bench.core.handshakeBegin();
  bench.local(bench.write(0));
  bench.promptMap = false;
  bench.accept({ source: "secondary", localcnt: 1n, map: mapOf([1]) });
  bench.cut();
  bench.mapDone();
  bench.core.handshakeBegin();
  bench.core.handshakeFailed(bench);
  bench.pump();
  expect.deepEqual(bench.take(), ["local write 0", "record 0/0 inconsistent"]);
  expect.equal(bench.core.waitingForPeer, 1);
});

test("a stale primary trusts no `received` and no local write: only the peer's disk counts", () => {
  for (const mode of ["memsync", "async"] as const) {
    const bench = outdated({ mode });
    bench.take();
    const slot = bench.write(0);
    bench.local(slot);
    if (mode === "memsync") bench.received(slot);
    expect.ok(!bench.take().includes(`answer ${slot}`));
    bench.reply(slot);
    expect.ok(bench.take().includes(`answer ${slot}`));
  }
});

test("a stale primary passes on the peer's refusal of a write, and makes no mark", () => {
  const bench = outdated({ mode: "memsync" });
  bench.take();
  const slot = bench.write(0);
  bench.local(slot);
  bench.received(slot);
  bench.reply(slot, ENOSPC);
  expect.ok(bench.take().includes(`answer ${slot} errno 28`));
  expect.equal(bench.core.record.localcnt, 0n);
});

// ---- the loss of the link, in every state of a write

test("link lost before a write went out: it is answered alone", () => {
  const bench = new PrimaryBench();
  bench.settle();
  bench.promptMap = false;
  const slot = bench.write(0);
  bench.cut();
  bench.mapDone();
  bench.local(slot);
  expect.deepEqual(bench.take(), ["local write 0", "record 1/0 uptodate", "answer 0"]);
});

test("BD-1: link lost with a write sent: marked before it is answered, and scheduled", () => {
  for (const mode of ["fullsync", "memsync"] as const) {
    const bench = new PrimaryBench({ mode });
    bench.settle();
    bench.promptRecord = false;
    const slot = bench.write(0);
    bench.local(slot);
    bench.take();
    bench.cut();
    expect.deepEqual(bench.take(), ["record 1/0 uptodate"]);
    bench.recordDone();
    expect.deepEqual(bench.take(), ["answer 0"]);
    expect.equal(bench.map.awaitsResync(0, 1), true);
  }
});

test("link lost after `received`, our own disk busy: the write is not answered without the mark", () => {
  const bench = new PrimaryBench({ mode: "memsync" });
  bench.settle();
  bench.promptRecord = false;
  const slot = bench.write(0);
  bench.received(slot);
  bench.cut();
  bench.take();
  bench.local(slot);
  expect.deepEqual(bench.take(), ["record 1/0 uptodate"]);
});

test("S-4d: link lost with an answered write unfinished: the mark follows at once (memsync, async)", () => {
  for (const mode of ["memsync", "async"] as const) {
    const bench = new PrimaryBench({ mode });
    bench.settle();
    const slot = bench.write(0);
    if (mode === "memsync") bench.received(slot);
    bench.local(slot);
    bench.take();
    bench.cut();
    expect.deepEqual(bench.take(), ["record 1/0 uptodate"]);
    expect.equal(bench.map.awaitsResync(0, 1), true);
  }
});

test("S-3: link lost after the peer wrote and while our own disk is busy: sent again, not taken as done", () => {
  const bench = new PrimaryBench();
  bench.settle();
  const slot = bench.write(0);
  bench.reply(slot);
  bench.cut();
  expect.equal(bench.map.awaitsResync(0, 1), true);
  bench.connect();
  expect.ok(bench.take().includes("send write 0"));
  bench.local(slot);
  expect.ok(!bench.take().includes("answer 0"));
  bench.reply(slot);
  expect.ok(bench.take().includes("answer 0"));
});

test("S-3: link lost after both wrote and before both flushed: the extent is copied again, without a mark", () => {
  const bench = new PrimaryBench();
  bench.settle();
  bench.finish(bench.write(0));
  bench.take();
  bench.cut();
  expect.deepEqual(bench.take(), []);
  expect.equal(bench.map.resyncCount, 1);
  bench.connect();
  const story = finishPass(bench);
  expect.equal(story.filter((line) => line.startsWith("send write")).length, 2);
  expect.equal(bench.core.record.localcnt, 0n);
});

test("link lost after both wrote and both flushed: nothing is to be copied", () => {
  const bench = new PrimaryBench();
  bench.settle();
  bench.finish(bench.write(0));
  bench.flush();
  bench.finishFlush();
  bench.cut();
  expect.equal(bench.map.resyncCount, 0);
});

test("writes that nobody has answered are sent again at link up, oldest first; answered ones are not", () => {
  const bench = new PrimaryBench({ mode: "async" });
  bench.settle();
  const answered = bench.write(0);
  bench.local(answered);
  const [a, b] = [bench.write(inExtent(1)), bench.write(inExtent(2))];
  bench.cut();
  bench.take();
  bench.connect({ remotecnt: 0n });
  expect.deepEqual(
    bench.take().filter((line) => line.startsWith("send write")),
    [`send write ${a}`, `send write ${b}`],
  );
  expect.equal(bench.map.awaitsResync(0, 1), true);
});

test("a second link loss finds the writes sent again, once more unanswered", () => {
  const bench = new PrimaryBench();
  bench.settle();
  const slot = bench.write(0);
  for (let round = 0; round < 3; round++) {
    bench.cut();
    bench.connect();
  }
  bench.take();
  bench.finish(slot);
  expect.ok(bench.take().includes("answer 0"));
});

test("a ZERO too long for a FreeBSD peer is answered alone, and copied", () => {
  const bench = new PrimaryBench();
  bench.core.openGate(bench);
  bench.core.handshakeBegin();
  const slot = bench.zero(0, 6);
  bench.local(slot); // waits for the mark, which waits for the handshake
  bench.accept({ zeroes: false });
  const done = bench.take();
  expect.ok(!done.includes("send zero 0"));
  expect.ok(done.includes("record 1/0 uptodate"));
  expect.ok(done.includes("answer 0"));
  expect.equal(bench.map.resyncCount, 2);
});

test("a ZERO held for a FreeBSD peer that is too long is copied even when the pass is over", () => {
  const bench = new PrimaryBench();
  bench.settle({ zeroes: false });
  const slot = bench.zero(0, 6);
  const begun = bench.take().filter((line) => line !== "local zero 0");
  expect.ok(!begun.includes("send zero 0"));
  bench.local(slot);
  const story = finishPass(bench, begun);
  expect.ok(story.includes("answer 0"));
  expect.equal(bench.map.resyncCount, 0);
});

test("replies of a lost connection find nobody, and numbers are never used twice (BD-31)", () => {
  const bench = new PrimaryBench();
  bench.settle();
  const slot = bench.write(0);
  const before = bench.core.seq[slot]!;
  bench.cut();
  bench.connect();
  const after = bench.core.seq[slot]!;
  expect.ok(after > before);
  expect.equal(bench.core.slotOfReply(before), -1);
  expect.equal(bench.core.slotOfReply(after), slot);
  expect.equal(bench.core.slotOfReply(after + 1), -1);
  expect.equal(bench.core.slotOfReply(0), -1);
  bench.finish(slot);
  expect.equal(bench.core.slotOfReply(after), -1);
});

test("BD-31: once the connection is lost, nothing that was sent on it can be answered", () => {
  const bench = new PrimaryBench();
  bench.settle();
  const write = bench.write(0);
  bench.flush();
  const sent = [bench.core.seq[write]!, bench.core.seq[write]! + 1];
  for (const seq of sent) expect.notEqual(bench.core.slotOfReply(seq), -1);
  bench.cut();
  for (const seq of sent) expect.equal(bench.core.slotOfReply(seq), -1);
});

test("numbers stay unique over more requests than the ring has places (BD-31)", () => {
  const bench = new PrimaryBench();
  bench.settle();
  const old = bench.write(inExtent(8)); // stays outstanding
  const seen = new Set([bench.core.seq[old]]);
  for (let count = 0; count < 10_000; count++) {
    const slot = bench.write(0);
    const seq = bench.core.seq[slot]!;
    expect.ok(!seen.has(seq));
    seen.add(seq);
    bench.finish(slot);
  }
  expect.equal(bench.core.slotOfReply(bench.core.seq[old]!), old);
});

test("replies that make no sense are named, and change nothing", () => {
  const bench = new PrimaryBench({ mode: "memsync" });
  bench.settle();
  const write = bench.write(0);
  const zero = bench.zero(inExtent(3));
  const replied = (slot: number, received: boolean): string | null =>
    bench.core.replied(slot, received, 0, bench);
  expect.match(replied(write, false) ?? "", /without `received`/);
  expect.match(replied(zero, true) ?? "", /no memsync write/);
  bench.received(write);
  expect.match(replied(write, true) ?? "", /twice/);
  bench.flush();
  const flush = bench.core.slotOfReply(bench.core.seq[zero]! + 1);
  expect.match(replied(flush, true) ?? "", /FLUSH/);
});

test("a memsync write that the reference refuses, with `received` and an error, is refused", () => {
  const bench = new PrimaryBench({ mode: "memsync" });
  bench.settle();
  const slot = bench.write(0);
  bench.local(slot);
  bench.take();
  expect.equal(bench.core.replied(slot, true, 22, bench), null);
  bench.pump();
  expect.deepEqual(bench.take(), ["record 1/0 uptodate", "answer 0"]);
});

// ---- FLUSH

test("BD-21: FLUSH is answered when both nodes have flushed, whoever is first", () => {
  for (const mode of ["fullsync", "memsync"] as const) {
    for (const order of ["local first", "peer first"] as const) {
      const bench = new PrimaryBench({ mode });
      bench.settle();
      bench.flush();
      expect.deepEqual(bench.take(), ["send flush", "local flush"]);
      if (order === "local first") bench.flushed();
      else bench.peerFlushed();
      expect.deepEqual(bench.take(), []);
      if (order === "local first") bench.peerFlushed();
      else bench.flushed();
      expect.deepEqual(bench.takeAll(), ["answer 0", "release 0"]);
    }
  }
});

test("async: FLUSH is forwarded, and answered when our own disk has flushed", () => {
  const bench = new PrimaryBench({ mode: "async" });
  bench.settle();
  bench.flush();
  expect.deepEqual(bench.take(), ["send flush", "local flush"]);
  bench.flushed();
  expect.deepEqual(bench.take(), ["answer 0"]);
});

test("async: a FLUSH answered here whose peer then goes, leaves a mark (S-4)", () => {
  const bench = new PrimaryBench({ mode: "async" });
  bench.settle();
  bench.finish(bench.write(0));
  bench.flush();
  bench.flushed();
  bench.take();
  bench.cut();
  expect.deepEqual(bench.take(), ["record 1/0 uptodate"]);
});

test("FLUSHes that arrive during a round share the next one", () => {
  const bench = new PrimaryBench();
  bench.settle();
  bench.flush();
  bench.take();
  bench.flush();
  bench.flush();
  expect.deepEqual(bench.take(), []);
  bench.finishFlush();
  expect.deepEqual(bench.take(), ["answer 0", "send flush", "local flush"]);
  bench.finishFlush();
  expect.deepEqual(bench.take(), ["answer 1", "answer 2"]);
});

test("a local flush that fails is an error for the client and stops the resource (invariant 6)", () => {
  const bench = new PrimaryBench();
  bench.settle();
  const write = bench.write(0);
  bench.flush();
  bench.take();
  bench.flushed(EIO);
  bench.peerFlushed();
  expect.deepEqual(bench.take(), [
    `answer ${write} errno 5`,
    "answer 1 errno 5",
    "disk failed: a cache flush errno 5",
  ]);
});

test("S-4: async: the disk fails, and answered writes may not be at the peer: that is on record if it can be", () => {
  for (const [end, mark] of [
    ["link lost", true],
    ["link lost, all arrived", false],
    ["peer silent", true],
  ] as const) {
    const bench = new PrimaryBench({ mode: "async" });
    bench.promptRecord = false;
    bench.settle();
    const answered = bench.write(0);
    bench.local(answered);
    const unanswered = bench.write(4);
    bench.flush();
    if (end === "link lost, all arrived") bench.reply(answered);
    bench.flushed(EIO);
    bench.take();
    if (end === "peer silent") bench.peerFlushed();
    else bench.cut();
    expect.deepEqual(
      bench.take(),
      [
        `answer ${unanswered} errno 5`,
        "answer 2 errno 5",
        mark ? "record 1/0 uptodate" : "",
        "disk failed: a cache flush errno 5",
      ].filter((line) => line !== ""),
      end,
    );
    expect.equal(bench.core.lastRecordPending, mark, end);
    if (!mark) continue;
    bench.recordDone();
    expect.equal(bench.core.lastRecordPending, false, end);
    expect.deepEqual(
      bench.takeAll().filter((line) => !line.startsWith("release")),
      [],
      end,
    );
  }
});

test("S-4: what is being written when the disk fails does not take the place of the mark", () => {
  const bench = new PrimaryBench({ mode: "async", record: { state: "consistent" } });
  bench.promptRecord = false;
  bench.connect();
  const answered = bench.write(0);
  bench.local(answered);
  bench.flush();
  bench.finishFlush(); // the end of the pass: both are in step, and a record says so
  expect.ok(bench.take().includes("record 0/0 uptodate"));
  bench.flushed(EIO);
  bench.cut();
  expect.ok(bench.take().includes("disk failed: a cache flush errno 5"));
  bench.recordDone();
  expect.deepEqual(bench.take(), ["record 1/0 uptodate"]);
  bench.recordDone();
  expect.equal(bench.core.lastRecordPending, false);
});

test("S-15: a peer that cannot flush counts what is written as stable", () => {
  for (const errno of [25, 95]) {
    const bench = new PrimaryBench();
    bench.settle();
    bench.finish(bench.write(0));
    bench.flush();
    bench.take();
    bench.flushed();
    bench.peerFlushed(errno);
    expect.deepEqual(bench.take(), ["answer 0"]);
    expect.equal(bench.core.peerCannotFlush, true);
    expect.equal(bench.map.unflushedCount, 0);
  }
});

test("a flush that fails at the peer leaves a mark before the answer, and schedules what it covered", () => {
  const bench = new PrimaryBench();
  bench.settle();
  bench.finish(bench.write(0));
  bench.flush();
  bench.take();
  bench.flushed();
  bench.peerFlushed(EIO);
  expect.deepEqual(bench.take(), ["record 1/0 uptodate", "answer 0"]);
  expect.equal(bench.map.resyncCount, 1);
});

test("a FLUSH whose peer goes is answered alone, after the mark, if the peer may lack anything", () => {
  const bench = new PrimaryBench();
  bench.settle();
  bench.promptRecord = false;
  bench.finish(bench.write(0));
  bench.flush();
  bench.take();
  bench.flushed();
  bench.cut();
  expect.deepEqual(bench.take(), ["record 1/0 uptodate"]);
  bench.recordDone();
  expect.deepEqual(bench.take(), ["answer 0"]);
});

test("a FLUSH counts a write that memsync answered on `received` as something the peer may lack", () => {
  const bench = new PrimaryBench({ mode: "memsync" });
  bench.settle();
  bench.flush();
  bench.finishFlush();
  bench.promptRecord = false;
  const slot = bench.write(0);
  bench.received(slot);
  bench.local(slot);
  bench.flush();
  bench.flushed();
  bench.take();
  bench.cut();
  expect.deepEqual(bench.take(), ["record 1/0 uptodate"]);
  bench.recordDone();
  expect.deepEqual(bench.take(), ["answer 1"]);
});

test("S-4a: alone, with something unflushed on the peer, a FLUSH needs the mark", () => {
  const bench = new PrimaryBench();
  bench.settle();
  // Both have flushed once, so that it is this write that makes the difference.
  bench.finish(bench.write(0));
  bench.flush();
  bench.finishFlush();
  bench.finish(bench.write(0));
  bench.cut();
  bench.take();
  bench.flush();
  bench.flushed();
  expect.deepEqual(bench.take(), ["local flush", "record 1/0 uptodate", "answer 0"]);
});

test("alone, after a flush together and no write since, a FLUSH needs no mark", () => {
  const bench = new PrimaryBench();
  bench.settle();
  bench.finish(bench.write(0));
  bench.flush();
  bench.finishFlush();
  bench.cut();
  bench.take();
  bench.flush();
  bench.flushed();
  expect.deepEqual(bench.take(), ["local flush", "answer 0"]);
});

test("S-4b: a promoted node does not know what its peer has flushed, so its first FLUSH alone is marked", () => {
  const bench = new PrimaryBench();
  bench.core.openGate(bench);
  bench.flush();
  bench.flushed();
  expect.deepEqual(bench.take(), ["local flush", "record 1/0 uptodate", "answer 0"]);
});

test("a FLUSH over an unfinished resync is not acknowledged without the mark", () => {
  for (const mode of ["fullsync", "memsync", "async"] as const) {
    const bench = new PrimaryBench({ mode, dirty: [3] });
    bench.promptRecord = false;
    bench.connect();
    bench.take();
    const slot = bench.flush();
    bench.finishFlush();
    expect.deepEqual(
      bench.take().filter((line) => /record|answer/.test(line)),
      ["record 1/0 uptodate"],
    );
    bench.recordDone();
    expect.ok(bench.take().includes(`answer ${slot}`));
  }
});

test("S-4: a FLUSH covers no copy that ended while it was under way: another round does", () => {
  for (const mode of ["fullsync", "memsync", "async"] as const) {
    const bench = new PrimaryBench({ mode, dirty: [3] });
    bench.connect();
    const copies = slotsOf(bench.take(), "local read");
    const slot = bench.flush();
    for (const copy of copies) bench.local(copy);
    for (const copy of copies) bench.reply(copy);
    expect.equal(bench.map.resyncCount, 0);
    bench.take();
    bench.finishFlush();
    const again = ["send flush", "local flush"];
    expect.deepEqual(bench.take(), again, "no answer, and no mark");
    bench.finishFlush();
    expect.ok(bench.take().includes(`answer ${slot}`));
    expect.equal(bench.core.record.localcnt, 0n, "nothing was acknowledged alone");
  }
});

test("a FLUSH under way when a new peer comes rides again, with it", () => {
  const bench = new PrimaryBench();
  bench.core.openGate(bench);
  bench.core.handshakeBegin();
  bench.flush();
  bench.accept();
  bench.take();
  bench.flushed(); // of the round without the peer
  expect.deepEqual(bench.take(), ["send flush", "local flush"]);
  bench.finishFlush();
  expect.deepEqual(bench.take(), ["answer 0"]);
});

test("a FLUSH that waited for the mark during a handshake rides with the new peer", () => {
  const bench = new PrimaryBench();
  bench.core.openGate(bench);
  bench.core.handshakeBegin();
  bench.flush();
  bench.flushed();
  bench.accept();
  expect.deepEqual(bench.take(), ["local flush", "send flush", "local flush"]);
  bench.finishFlush();
  expect.deepEqual(bench.take(), ["answer 0"]);
  expect.equal(bench.core.record.localcnt, 0n);
});

test("a round that began before the link was lost and found again cleans nothing of the new epoch", () => {
  const bench = new PrimaryBench();
  bench.settle();
  bench.flush();
  bench.peerFlushed();
  bench.cut();
  bench.connect();
  const slot = bench.write(0);
  bench.finish(slot);
  expect.equal(bench.map.unflushedCount, 1);
  bench.flushed();
  expect.equal(bench.map.unflushedCount, 1);
});

test("with no FLUSH from the application the daemon issues its own, seldom (BD-9)", () => {
  const bench = new PrimaryBench();
  bench.settle();
  bench.finish(bench.write(0));
  bench.take();
  bench.tick(3_000);
  expect.deepEqual(bench.take(), []);
  bench.tick(2_000);
  expect.deepEqual(bench.take(), ["send flush", "local flush"]);
  bench.finishFlush();
  expect.equal(bench.map.unflushedCount, 0);
  bench.tick(9_000);
  expect.ok(!bench.take().includes("send flush"));
});

// ---- resync

test("dirty extents are copied to the peer in pieces, then both flush, then the counters are equal", () => {
  const bench = new PrimaryBench({ dirty: [1, 3], record: { localcnt: 1n } });
  bench.connect({ remotecnt: 0n });
  const story = finishPass(bench);
  expect.equal(story.filter((line) => line.startsWith("local read")).length, 4);
  expect.equal(story.filter((line) => line.startsWith("send write")).length, 4);
  expect.ok(story.every((line) => !line.includes("memsync")));
  expect.deepEqual(story.slice(-4), [
    "send flush",
    "local flush",
    "record 0/0 uptodate",
    "event syncdone",
  ]);
  expect.equal(bench.map.dirtyCount, 0);
  expect.equal(bench.core.resyncing, false);
});

test("from the peer: read there, write here, flush, and one record says whole and equal (S-13)", () => {
  const bench = outdated();
  const story = finishPass(bench);
  expect.equal(story[1], "map");
  expect.equal(story.filter((line) => line.startsWith("send read")).length, 4);
  expect.equal(story.filter((line) => line.startsWith("local write")).length, 4);
  expect.deepEqual(story.slice(-4), [
    "send flush",
    "local flush",
    "record 0/1 uptodate",
    "event syncdone",
  ]);
  expect.equal(bench.core.stale, false);
});

test("nothing to copy, equal counters, and a copy known to be whole: a pass ends before it begins", () => {
  const bench = new PrimaryBench();
  bench.connect();
  expect.deepEqual(bench.takeAll(), []);
  expect.equal(bench.core.resyncing, false);
});

test("the peer's map is merged and stored before the first request goes out", () => {
  const bench = new PrimaryBench();
  bench.promptMap = false;
  bench.connect({ map: mapOf([5]) });
  expect.equal(bench.core.connected, false);
  bench.write(0);
  expect.deepEqual(bench.take(), [], "held");
  bench.mapDone();
  expect.equal(bench.core.connected, true);
  expect.match(bench.take().join(), /local read/);
});

test("S-13: the target is told before its first copy, and again, with the counter, after both flushed", () => {
  const bench = new PrimaryBench({ dirty: [1], record: { localcnt: 1n } });
  bench.connect({ remotecnt: 0n, states: true });
  expect.deepEqual(bench.take(), ["send state inconsistent 1"]);
  bench.pump();
  bench.tick(1_000);
  expect.deepEqual(bench.take(), []);
  bench.peerStored();
  for (const line of bench.take()) bench.local(Number(line.slice("local read ".length)));
  for (const line of bench.take()) bench.reply(Number(line.slice("send write ".length)));
  expect.deepEqual(bench.take(), ["send flush", "local flush"]);
  bench.finishFlush();
  expect.deepEqual(bench.take(), ["send state uptodate 1"]);
  bench.peerStored();
  expect.deepEqual(bench.takeAll(), ["record 1/0 uptodate", "event syncdone"]);
});

test("BD-15: before any other request the peer hears that it is to be synchronized, even from one that stops", () => {
  const bench = new PrimaryBench({ dirty: [1] });
  const slot = bench.write(inExtent(5));
  bench.core.stop(bench);
  bench.connect({ states: true });
  const sent = bench.take().filter((line) => line.startsWith("send"));
  expect.deepEqual(sent.slice(0, 2), ["send state inconsistent 0", `send write ${slot}`]);
});

test("S-16: a peer in which something has failed since its last flush does not believe that it is whole", () => {
  const bench = new PrimaryBench({ record: { state: "consistent" } });
  bench.connect({ states: true });
  bench.finishFlush();
  expect.deepEqual(bench.take().at(-1), "send state uptodate 0");
  const slot = bench.write(0);
  bench.local(slot);
  bench.reply(slot, EIO);
  bench.takeAll();
  bench.peerStored(ERR_AGAIN);
  expect.ok(!bench.takeAll().some((line) => line.startsWith("notice")), "it has told what failed");
  bench.tick(5_000);
  expect.ok(bench.take().includes("send state inconsistent 1"));
});

test("S-13: the mark is spent once the target has been told our counter, answer or no answer", () => {
  const bench = new PrimaryBench();
  bench.core.openGate(bench);
  alone(bench);
  bench.connect({ remotecnt: 0n, states: true });
  bench.take();
  bench.peerStored();
  while (bench.map.resyncCount > 0) {
    for (const line of bench.take()) {
      const slot = Number(/\d+$/.exec(line)?.[0]);
      if (line.startsWith("local read")) bench.local(slot);
      else if (line.startsWith("send write")) bench.reply(slot);
    }
  }
  bench.finishFlush();
  expect.deepEqual(bench.take().at(-1), "send state uptodate 1");
  bench.cut(); // the peer may have stored it
  bench.take();
  const slot = bench.write(0);
  bench.local(slot);
  expect.deepEqual(bench.take(), [`local write ${slot}`, "record 2/0 uptodate", `answer ${slot}`]);
});

test("S-13: a counter that is not stable here is not told to the peer", () => {
  const bench = new PrimaryBench({ record: { state: "consistent" } });
  bench.connect({ states: true });
  bench.promptRecord = false;
  expect.deepEqual(bench.take(), ["send flush", "local flush"]);
  const slot = bench.write(0);
  bench.local(slot);
  bench.reply(slot, EIO); // marks: 1/0 is on its way to the disk
  expect.ok(bench.take().includes("record 1/0 consistent"));
  bench.tick(5_000);
  bench.finishFlush();
  bench.peerStored();
  for (let round = 0; round < 20; round++) {
    const lines = bench.take();
    expect.ok(!lines.some((line) => line.startsWith("send state uptodate")));
    for (const line of lines) {
      const at = Number(/\d+$/.exec(line)?.[0]);
      if (line.startsWith("local read")) bench.local(at);
      else if (line.startsWith("send write")) bench.reply(at);
      else if (line === "local flush") bench.finishFlush();
    }
  }
  bench.recordDone();
  bench.promptRecord = true;
  expect.ok(finishPass(bench).includes("send state uptodate 1"));
});

test("S-13: a write that failed at the peer while `uptodate` travelled keeps the pass open", () => {
  const bench = new PrimaryBench({ record: { state: "consistent" } });
  bench.connect({ states: true });
  bench.finishFlush();
  expect.deepEqual(bench.take().at(-1), "send state uptodate 0");
  const slot = bench.write(0);
  bench.local(slot);
  bench.reply(slot, EIO);
  bench.tick(5_000);
  const begun = bench.take().slice(-2); // a flush of the daemon's own
  expect.ok(!begun.some((line) => line.startsWith("send state")), "one at a time");
  bench.peerStored();
  expect.deepEqual(bench.take(), ["send state inconsistent 1"]);
  bench.peerStored();
  const story = finishPass(bench, begun);
  expect.ok(story.includes("send state uptodate 1"));
  expect.equal(story.at(-2), "record 1/0 uptodate");
});

test("a peer that cannot store its state is asked again later, and no copy begins before", () => {
  const bench = new PrimaryBench({ dirty: [1] });
  bench.connect({ states: true });
  bench.take();
  bench.peerStored(EIO);
  expect.deepEqual(bench.take(), []);
  bench.tick(5_000);
  expect.deepEqual(bench.take(), ["send state inconsistent 0"]);
});

test("copies and writes exclude each other; other ranges go on (S-19, BD-26)", () => {
  const bench = new PrimaryBench({ dirty: [1] });
  bench.settle();
  // Two copies are under way: cells 4-5 and 6-7.
  const inside = bench.write(inExtent(1) + 1);
  const outside = bench.write(0);
  expect.deepEqual(bench.take(), [`send write ${outside}`, `local write ${outside}`]);
  const [first] = [0, 1].filter((slot) => bench.core.offset[slot] === inExtent(1) * CELL);
  bench.local(first!);
  bench.reply(first!);
  expect.deepEqual(bench.take(), [
    `send write ${first}`,
    `send write ${inside}`,
    `local write ${inside}`,
  ]);
});

test("a copy waits until an earlier write has ended on both nodes", () => {
  const bench = new PrimaryBench();
  bench.core.openGate(bench);
  alone(bench);
  const write = bench.write(0);
  bench.connect({ remotecnt: 0n });
  const done = bench.take();
  expect.ok(done.includes(`send write ${write}`));
  // The other half of the extent is free.
  expect.equal(done.filter((line) => line.startsWith("local read")).length, 1);
  bench.local(write);
  expect.deepEqual(bench.take(), []);
  bench.reply(write);
  expect.match(bench.take().join(), /^answer \d+,local read \d+$/);
});

test("BD-8: a copy that failed keeps its extent in line and is tried again after a pause", () => {
  for (const where of ["our disk", "the peer's disk"] as const) {
    const bench = new PrimaryBench({ dirty: [1], record: { localcnt: 1n } });
    bench.connect({ remotecnt: 0n });
    const [first, second] = bench.take().map((line) => Number(line.slice("local read ".length)));
    bench.local(second!);
    bench.reply(second!);
    if (where === "our disk") bench.local(first!, EIO);
    else {
      bench.local(first!);
      bench.reply(first!, EIO);
    }
    expect.match(bench.takeAll().join(), /notice .*could not be copied/);
    expect.equal(bench.map.scheduledCount, 1);
    bench.tick(4_999);
    expect.deepEqual(bench.take(), []);
    bench.tick(1);
    const story = finishPass(bench);
    expect.equal(story.filter((line) => line.startsWith("local read")).length, 2);
    expect.ok(story.includes("record 0/0 uptodate"));
  }
});

test("BD-9: the counters are not equalised when the flush at the end fails at the peer", () => {
  const bench = new PrimaryBench({ dirty: [1], record: { localcnt: 1n } });
  bench.connect({ remotecnt: 0n });
  for (const line of bench.take()) bench.local(Number(line.slice("local read ".length)));
  for (const line of bench.take()) bench.reply(Number(line.slice("send write ".length)));
  bench.flushed();
  bench.peerFlushed(EIO);
  const records = bench.take().filter((line) => line.startsWith("record"));
  expect.deepEqual(records, ["record 2/0 uptodate"], "what it lacks, nobody but this node may say");
  expect.equal(bench.map.resyncCount, 1);
  bench.tick(5_000);
  expect.ok(finishPass(bench).includes("record 0/0 uptodate"));
});

test("S-3: a flush that began before the last copy ended does not end the pass", () => {
  const bench = new PrimaryBench({ dirty: [1], record: { localcnt: 1n } });
  bench.connect({ remotecnt: 0n });
  const copies = bench.take().map((line) => Number(line.slice("local read ".length)));
  bench.flush();
  for (const slot of copies) bench.finish(slot);
  bench.take();
  bench.finishFlush();
  expect.deepEqual(
    bench.take().filter((line) => /flush|0\/0/.test(line)),
    ["send flush", "local flush"],
  );
  bench.finishFlush();
  expect.ok(bench.take().includes("record 0/0 uptodate"));
});

test("a pass cut short begins again with what was not flushed, and says syncintr", () => {
  const bench = new PrimaryBench({ dirty: [1, 2] });
  bench.connect();
  const copies = bench.take().map((line) => Number(line.slice("local read ".length)));
  bench.local(copies[0]!);
  bench.cut();
  expect.ok(bench.takeAll().includes("event syncintr"));
  expect.equal(bench.map.scheduledCount, 2);
  bench.connect();
  const begun = bench.take();
  // The reads of the first pass end late: until then they are in the way of the second.
  for (const slot of copies.slice(1)) bench.local(slot);
  finishPass(bench, begun);
  expect.equal(bench.map.dirtyCount, 0);
  expect.equal(bench.core.queues().idle, SLOT_COUNT);
});

test("a copy that waits behind a write is given up when the link goes", () => {
  const bench = new PrimaryBench();
  bench.core.openGate(bench);
  alone(bench);
  const write = bench.write(0);
  bench.connect({ remotecnt: 0n });
  bench.cut();
  bench.take();
  bench.local(write);
  expect.ok(bench.take().includes(`answer ${write}`));
});

test("a write that fails in an extent being copied is not covered by that copy", () => {
  const bench = new PrimaryBench({ dirty: [1] });
  bench.settle();
  const [first, second] = [0, 1];
  bench.finish(first!);
  const write = bench.write(bench.core.offset[first!]! / CELL);
  bench.local(write);
  bench.reply(write, EIO);
  bench.local(second!);
  bench.takeAll();
  bench.reply(second!);
  expect.equal(bench.map.resyncCount, 1);
  const story = finishPass(bench, bench.takeAll());
  expect.equal(story.filter((line) => line.startsWith("send write")).length, 2);
  expect.equal(bench.map.dirtyCount, 0);
});

test("an idle pass leaves room for the application, and a busy application for the pass", () => {
  const bench = new PrimaryBench({ dirty: [...Array(16).keys()] });
  bench.settle();
  let taken = 0;
  while (bench.core.room > 0) {
    bench.core.submit(WRITE, 0, 512, 0, false, bench);
    taken++;
  }
  const { idle } = bench.core.queues();
  expect.ok(taken >= SLOT_COUNT - 32 - 16);
  expect.equal(idle, 16);
});

test("a virgin peer makes the primary count from 1, and forget the copy that was replaced", () => {
  const fresh = new PrimaryBench({ record: { resuid: 0n, state: "new" } });
  fresh.core.adoptResuid(9n, fresh);
  fresh.pump();
  fresh.connect({ virgin: true, localcnt: 0n, remotecnt: 0n });
  expect.equal(fresh.take()[1], "record 1/0 new");

  const old = new PrimaryBench({ record: { localcnt: 2n, remotecnt: 5n } });
  old.connect({ virgin: true, localcnt: 0n, remotecnt: 0n, map: mapOf([1]), states: true });
  expect.equal(old.take()[0], "record 2/0 uptodate");
});

// ---- time

test("a keepalive goes out after ten seconds without traffic", () => {
  const bench = new PrimaryBench();
  bench.settle();
  bench.tick(9_999);
  expect.deepEqual(bench.take(), []);
  bench.tick(1);
  expect.deepEqual(bench.take(), ["send keepalive"]);
  bench.read(0);
  bench.tick(10_000);
  expect.ok(bench.take().includes("send keepalive"));
});

test("a silent peer that owes an answer is given up, whatever it owes (BD-30)", () => {
  const owing: [string, (bench: PrimaryBench) => void][] = [
    ["a write", (bench) => bench.write(0)],
    ["the second reply to a memsync write", (bench) => bench.received(bench.write(0))],
    ["a flush", (bench) => bench.flush()],
    ["a read", (bench) => bench.local(bench.read(0), EIO)],
  ];
  for (const [what, owe] of owing) {
    const bench = new PrimaryBench({ mode: "memsync" });
    bench.settle();
    owe(bench);
    bench.take();
    bench.tick(TIMEOUT_MS - 1);
    expect.ok(!bench.take().join().includes("disconnect"), what);
    bench.tick(1);
    expect.match(bench.take().join(), /disconnect: no answer from the peer for 20 s/, what);
  }
  const state = new PrimaryBench({ dirty: [1] });
  state.settle({ states: true });
  state.tick(TIMEOUT_MS);
  expect.match(state.take().join(), /disconnect/);
});

test("BD-30: an idle primary asks a peer of ours every 2 s, and gives up a silent one within the timeout", () => {
  const bench = new PrimaryBench();
  bench.settle({ alive: true });
  for (let asked = 0; asked < 20; asked++) {
    bench.tick(1_999);
    expect.deepEqual(bench.take(), []);
    bench.tick(1);
    expect.deepEqual(bench.take(), ["send keepalive"]);
    bench.core.keepaliveAnswered();
  }
  // Dead from here on, with nothing outstanding.
  bench.tick(2_000);
  bench.tick(TIMEOUT_MS - 2_001);
  expect.ok(!bench.take().join().includes("disconnect"));
  bench.tick(1);
  expect.match(bench.take().join(), /disconnect: no answer from the peer for 20 s/);
});

test("BD-30: a peer whose disk hangs is given up in time, although it answers keepalives", () => {
  const bench = new PrimaryBench();
  bench.settle({ alive: true });
  bench.write(0);
  for (let passed = 0; passed < TIMEOUT_MS; passed += 1_000) {
    expect.ok(!bench.take().join().includes("disconnect"));
    bench.tick(1_000);
    bench.core.keepaliveAnswered();
  }
  expect.match(bench.take().join(), /disconnect/);
});

test("BD-30: what a FreeBSD peer cannot answer, it is not asked for", () => {
  const bench = new PrimaryBench();
  bench.settle();
  bench.tick(10_000);
  bench.tick(10_000 * TIMEOUT_MS);
  expect.ok(!bench.take().join().includes("disconnect"));
});

test("a peer that answers others may be slow with one, but not for ever", () => {
  const bench = new PrimaryBench();
  bench.settle();
  bench.write(0);
  for (let second = 0; second < 100; second += 10) {
    const other = bench.write(inExtent(3));
    bench.finish(other);
    bench.tick(10_000);
    expect.ok(!bench.take().join().includes("disconnect"));
  }
  bench.finish(bench.write(inExtent(3)));
  bench.tick(19_000);
  bench.finish(bench.write(inExtent(3)));
  bench.tick(1_000);
  expect.match(bench.take().join(), /disconnect/);
});

test("extents that have rested are cleared on disk in time, without anybody waiting", () => {
  const bench = new PrimaryBench();
  bench.settle();
  for (const extent of [1, 2, 3]) bench.finish(bench.write(inExtent(extent)));
  bench.flush();
  bench.finishFlush();
  bench.takeAll();
  for (let age = 0; age < 3; age++) bench.tick(30_000);
  expect.ok(bench.takeAll().includes("map"));
  expect.deepEqual(bench.map.image[0], 0b1100);
});

// ---- stop

test("stop() finishes what was accepted, flushes both, cleans the map, then says stopped", () => {
  const bench = new PrimaryBench();
  bench.settle();
  const write = bench.write(0);
  bench.take();
  bench.core.stop(bench);
  expect.deepEqual(bench.take(), []);
  bench.finish(write);
  expect.deepEqual(bench.take(), ["answer 0", "send flush", "local flush"]);
  bench.flushed();
  expect.deepEqual(bench.take(), []);
  bench.peerFlushed();
  expect.deepEqual(bench.takeAll(), ["map", "stopped"]);
  expect.equal(bench.map.image[0], 0);
});

test("stop() with a pass under way ends its copies, begins no new one, and keeps the marks", () => {
  const bench = new PrimaryBench({ dirty: [...Array(16).keys()] });
  bench.settle();
  bench.core.stop(bench);
  for (let slot = 0; slot < 32; slot++) bench.local(slot);
  const sent = bench.take();
  expect.equal(sent.length, 32);
  for (let slot = 0; slot < 32; slot++) bench.reply(slot);
  expect.deepEqual(bench.take(), ["send flush", "local flush"]);
  bench.finishFlush();
  expect.equal(bench.take().at(-1), "stopped");
});

test("stop() without a peer marks what is answered alone and keeps its bits", () => {
  const bench = new PrimaryBench();
  bench.core.openGate(bench);
  const write = bench.write(0);
  bench.core.stop(bench);
  bench.local(write);
  bench.flushed();
  expect.deepEqual(bench.take(), [
    "local write 0",
    "record 1/0 uptodate",
    "answer 0",
    "local flush",
    "stopped",
  ]);
  expect.equal(bench.map.image[0], 1);
});

test("S-4e: a stop that gives the peer up leaves a mark for what it had not confirmed", () => {
  const bench = new PrimaryBench({ mode: "async" });
  bench.settle();
  bench.local(bench.write(0));
  bench.core.stop(bench);
  bench.take();
  bench.cut();
  expect.deepEqual(bench.take(), ["record 1/0 uptodate", "local flush"]);
  bench.flushed();
  expect.deepEqual(bench.take(), ["stopped"]);
});

test("S-4e: async: a stop with extents still in line marks them, for they may be a predecessor's backlog", () => {
  const bench = new PrimaryBench({ mode: "async", dirty: [3] });
  bench.core.openGate(bench);
  bench.core.stop(bench);
  bench.pump();
  bench.flushed();
  expect.deepEqual(bench.take(), ["record 1/0 uptodate", "local flush", "stopped"]);

  const fullsync = new PrimaryBench({ mode: "fullsync", dirty: [3] });
  fullsync.core.openGate(fullsync);
  fullsync.core.stop(fullsync);
  fullsync.flushed();
  expect.deepEqual(
    fullsync.take(),
    ["local flush", "stopped"],
    "the peer has what was acknowledged",
  );
});

test("stop() before the first connection attempt has ended does not hold requests for ever", () => {
  const bench = new PrimaryBench();
  const write = bench.write(0);
  bench.core.stop(bench);
  bench.pump();
  bench.local(write);
  bench.flushed();
  expect.equal(bench.take().at(-1), "stopped");
});

test("stop() waits for the record that the peer's last answer causes", () => {
  const bench = new PrimaryBench({ record: { state: "consistent" } });
  bench.connect({ states: true });
  bench.take();
  bench.core.stop(bench);
  bench.finishFlush(); // the pass's own
  expect.deepEqual(bench.take(), ["send state uptodate 0", "send flush", "local flush"]);
  bench.promptRecord = false;
  bench.promptMap = false;
  bench.peerFlushed();
  bench.core.localFlushed(0, bench); // no pump: the peer's answer arrives in the same batch
  bench.peerStored();
  expect.ok(!bench.take().includes("stopped"));
  bench.recordDone();
  expect.equal(bench.take().at(-1), "stopped");
});

test("status counts slots by where they are", () => {
  const bench = new PrimaryBench({ mode: "fullsync" });
  bench.settle();
  bench.promptMap = false;
  bench.write(0);
  expect.deepEqual(bench.core.queues(), { idle: 255, local: 0, send: 1, recv: 0, done: 0 });
  bench.mapDone();
  expect.deepEqual(bench.core.queues(), { idle: 255, local: 1, send: 0, recv: 0, done: 0 });
  bench.local(0);
  expect.deepEqual(bench.core.queues(), { idle: 255, local: 0, send: 0, recv: 1, done: 0 });
});

// ---- a full copy, asked for ---------------------------------------------------------------------

test("BD-16: a full copy puts every extent in line, is on record once the map is, and ends as `all`", () => {
  const bench = new PrimaryBench();
  bench.settle({ states: true });
  bench.take();
  expect.ok(bench.core.fullSync(bench));
  expect.equal(bench.map.resyncCount, bench.map.extentCount);
  expect.equal(bench.core.record.synced, "written", "not before the map on disk holds all of it");
  bench.pump();
  expect.equal(bench.core.record.synced, "filling");
  const begun = bench.take();
  expect.ok(!begun.some((line) => /send state/.test(line)), "the peer stays as good as it was");
  // FLUSHes of the application need no mark: the peer has everything.
  const flush = bench.submit(FLUSH, 0, 0);
  bench.pump();
  finishPass(bench, [...begun, ...bench.take()]);
  expect.equal(bench.core.record.synced, "all");
  expect.equal(bench.core.record.localcnt, IN_STEP.localcnt);
  expect.ok(flush >= 0);
});

test("BD-16: a full copy on one node's record only is none of both", () => {
  for (const [own, peer] of [
    ["all", "written"],
    ["written", "all"],
  ] as const) {
    const bench = new PrimaryBench({ record: { synced: own } });
    bench.connect({ states: true, synced: peer });
    finishPass(bench, bench.take());
    expect.equal(bench.core.record.synced, "written");
  }
});

test("BD-16: a full copy does not hide what the peer comes to lack meanwhile", () => {
  const hidden: [string, (bench: PrimaryBench) => void][] = [
    [
      "refused",
      (bench) => {
        const slot = bench.write(inExtent(3));
        bench.local(slot);
        bench.reply(slot, 5);
      },
    ],
    [
      "begun over a difference",
      (bench) => {
        expect.ok(bench.core.fullSync(bench));
      },
    ],
  ];
  for (const [what, happen] of hidden) {
    const over = what !== "refused";
    const bench = new PrimaryBench({ dirty: over ? [3] : [] });
    bench.connect({ states: true });
    if (!over) expect.ok(bench.core.fullSync(bench));
    happen(bench);
    bench.pump();
    bench.take();
    const flush = bench.flush();
    bench.flushed();
    bench.peerFlushed();
    expect.ok(bench.take().includes(`answer ${flush}`), what);
    expect.ok(bench.core.record.alone, `${what}: only with a mark`);
  }
});

test("BD-16: what the peer lacks since a full copy began is not read from there", () => {
  const lost: readonly [string, (bench: PrimaryBench) => void][] = [
    [
      "refused",
      (bench) => {
        const slot = bench.write(inExtent(3));
        bench.local(slot);
        bench.reply(slot, 5);
      },
    ],
    [
      "away",
      (bench) => {
        const slot = bench.write(inExtent(3));
        bench.cut();
        bench.local(slot);
        bench.connect({ states: true });
      },
    ],
    [
      "a chunk of it could not be copied",
      (bench) => {
        bench.pump();
        const read = /local read (\d+)/g;
        const slots = [...bench.take().join().matchAll(read)].map(([, slot]) => Number(slot));
        const slot = slots.find((each) => bench.core.offset[each] === inExtent(3) * CELL)!;
        bench.local(slot);
        bench.reply(slot, 5);
      },
    ],
    [
      "a flush failed",
      (bench) => {
        const slot = bench.write(inExtent(3));
        bench.local(slot);
        bench.reply(slot);
        bench.flush();
        bench.flushed();
        bench.peerFlushed(5);
      },
    ],
  ];
  for (const [what, happen] of lost) {
    const bench = new PrimaryBench();
    bench.connect({ states: true });
    expect.ok(bench.core.fullSync(bench));
    happen(bench);
    bench.take();
    const read = bench.read(inExtent(3));
    bench.local(read, 5);
    expect.ok(bench.take().includes(`answer ${read} errno 5`), what);
  }
});

test("BD-16: a stale copy is not copied to the peer", () => {
  const bench = new PrimaryBench({ dirty: [1], record: { state: "inconsistent" } });
  bench.connect({ source: "secondary", localcnt: 1n });
  expect.equal(bench.core.fullSync(bench), false);
  expect.ok(bench.map.resyncCount < bench.map.extentCount);
});

test("a flush that began before the peer came does not hold up the copies for it", () => {
  const bench = new PrimaryBench({ dirty: [3] });
  bench.core.openGate(bench);
  bench.flush();
  expect.deepEqual(bench.take(), ["local flush"]);
  bench.connect({ states: true });
  expect.deepEqual(bench.take(), ["send state inconsistent 0"]);
  bench.flushed();
  bench.take();
  bench.peerStored();
  expect.equal(bench.take().filter((line) => line.startsWith("local read")).length, 2);
});

test("S-11: clients are not led over to a history that is not theirs, be this copy served or the peer's", () => {
  const bench = new PrimaryBench({ mode: "fullsync" });
  expect.equal(bench.core.clashes(1n), false, "nobody has been served yet");
  bench.connect({ states: true, source: "secondary", localcnt: 1n, map: mapOf([0, 5]) });
  expect.equal(bench.core.stale, true);
  bench.cut();
  expect.equal(bench.core.clashes(1n), false, "it is as it was");
  expect.equal(bench.core.clashes(2n), true, "it has gone on without us");

  const whole = new PrimaryBench({ mode: "fullsync" });
  whole.core.openGate(whole);
  expect.equal(whole.core.clashes(0n), true);
});

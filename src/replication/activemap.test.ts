// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { AssertionError } from "../base/assert.ts";
import { testBit } from "../base/bitmap.ts";
import { Activemap } from "./activemap.ts";

const EXTENT = 65536;
const SECTOR = 512;

function create(
  options: { extents?: number; keepdirty?: number; sectors?: number } = {},
): Activemap {
  return new Activemap({
    dataSize: (options.extents ?? 20) * EXTENT - 4096, // the last extent is shorter
    extentSize: EXTENT,
    keepdirty: options.keepdirty ?? 2,
    regionSize: (options.sectors ?? 1) * SECTOR,
    sectorSize: SECTOR,
  });
}

/** Writes the map to a pretended disk and returns what is there then. */
function persist(map: Activemap, disk = new Uint8Array(map.regionSize)): Uint8Array {
  const staging = new Uint8Array(map.regionSize);
  for (;;) {
    const offset = map.takeChanges(staging);
    if (offset < 0) return disk;
    disk.set(staging.subarray(0, map.takenLength), offset);
    map.changesPersisted(offset, staging.slice(0, map.takenLength), map.takenLength);
  }
}

function marked(disk: Uint8Array): number[] {
  const extents: number[] = [];
  for (let extent = 0; extent < disk.length * 8; extent++) {
    if (testBit(disk, extent)) extents.push(extent);
  }
  return extents;
}

function write(map: Activemap, extent: number): void {
  map.writeStart(extent * EXTENT, 4096);
  persist(map);
  map.writeDone(extent * EXTENT, 4096);
}

/** Both nodes flush. */
function flush(map: Activemap): void {
  map.flushStart();
  map.flushDone();
}

test("writeStart() asks to persist the map when an extent turns dirty, and only then", () => {
  const map = create();
  expect.equal(map.writeStart(0, 4096), "persist-first");
  expect.equal(map.mustWrite, true);
  expect.equal(map.isPersisted(0, 4096), false);
  persist(map);
  expect.equal(map.mustWrite, false);
  expect.equal(map.isPersisted(0, 4096), true);
  expect.equal(map.writeStart(8192, 4096), "covered");
  map.assertInvariants();
});

test("writeStart() looks at every extent of the range", () => {
  const map = create();
  map.writeStart(0, 4096);
  persist(map);
  expect.equal(map.writeStart(EXTENT - 4096, 8192), "persist-first");
  expect.deepEqual(marked(persist(map)), [0, 1]);
});

test("a bit set while a map write is under way is not taken for persisted", () => {
  const map = create();
  const staging = new Uint8Array(SECTOR);
  map.writeStart(0, 4096);
  expect.equal(map.takeChanges(staging), 0);
  expect.equal(map.writeStart(EXTENT, 4096), "persist-first");
  map.changesPersisted(0, staging, map.takenLength);
  expect.equal(map.isPersisted(0, 4096), true);
  expect.equal(map.isPersisted(EXTENT, 4096), false);
  expect.equal(map.mustWrite, true, "or the second write would wait for ever");
});

test("a bit cleared while a map write is under way is not taken for persisted", () => {
  const map = create({ keepdirty: 0 });
  write(map, 0);
  flush(map);
  map.writeStart(EXTENT, 4096);
  const staging = new Uint8Array(SECTOR);
  map.takeChanges(staging);
  map.coolAll();
  map.changesPersisted(0, staging, map.takenLength);
  expect.equal(map.isPersisted(0, 4096), false);
  map.assertInvariants();
});

test("an extent written on both nodes stays marked until both have flushed (BD-9)", () => {
  const map = create({ keepdirty: 0 });
  write(map, 3);
  expect.equal(map.dirtyCount, 0);
  expect.equal(map.unflushedCount, 1);
  map.ageWarm();
  map.ageWarm();
  map.coolAll();
  expect.deepEqual(marked(map.image), [3]);
  flush(map);
  map.coolAll();
  expect.deepEqual(marked(map.image), []);
});

test("a flush covers what had settled when it began, not what settles during it", () => {
  const map = create({ keepdirty: 0 });
  write(map, 1);
  map.flushStart();
  write(map, 2);
  write(map, 1);
  map.flushDone();
  map.coolAll();
  expect.deepEqual(marked(map.image), [1, 2]);
  flush(map);
  map.coolAll();
  expect.deepEqual(marked(map.image), []);
});

test("a write under way when a flush ends keeps its extent marked", () => {
  const map = create({ keepdirty: 0 });
  write(map, 1);
  map.writeStart(EXTENT, 4096);
  flush(map);
  map.coolAll();
  expect.deepEqual(marked(map.image), [1]);
  map.writeDone(EXTENT, 4096);
  map.coolAll();
  expect.deepEqual(marked(map.image), [1]);
});

test("a failed flush covers nothing", () => {
  const map = create({ keepdirty: 0 });
  write(map, 1);
  map.flushStart();
  map.flushFailed();
  expect.equal(map.unflushedCount, 1);
  map.coolAll();
  expect.deepEqual(marked(map.image), [1]);
});

test("a lost connection schedules what had settled and what a flush was about to cover (S-3, BD-10)", () => {
  const map = create();
  write(map, 1);
  map.flushStart();
  write(map, 2);
  map.scheduleUnflushed();
  expect.equal(map.unflushedCount, 0);
  expect.equal(map.scheduledCount, 2);
  map.flushDone(); // of the local disk only: there is nothing left to clean
  expect.equal(map.awaitsResync(EXTENT, 4096), true);
  expect.equal(map.awaitsResync(2 * EXTENT, 4096), true);
  map.assertInvariants();
});

test("warm extents stay marked: rewriting one costs no map write (keepdirty)", () => {
  const map = create({ keepdirty: 2 });
  for (const extent of [1, 2, 3]) write(map, extent);
  flush(map);
  for (let age = 0; age < 5; age++) map.ageWarm();
  expect.deepEqual(marked(map.image), [2, 3]);
  expect.equal(map.writeStart(3 * EXTENT, 4096), "covered");
});

test("an extent beyond keepdirty stays warm for two ages", () => {
  const map = create({ keepdirty: 0 });
  write(map, 1);
  flush(map);
  map.ageWarm();
  expect.deepEqual(marked(map.image), [1]);
  map.ageWarm();
  expect.deepEqual(marked(map.image), []);
  expect.equal(map.hasChanges, true);
  expect.equal(map.mustWrite, false, "nobody waits for a cleared bit");
});

test("an extent cooled in memory must be persisted again before it is written", () => {
  const map = create({ keepdirty: 0 });
  write(map, 1);
  flush(map);
  map.coolAll(); // not on disk yet: a power cut may leave either
  expect.equal(map.writeStart(EXTENT, 4096), "persist-first");
});

test("more warm extents than there is room for cool the oldest, never a dirty one", () => {
  const extents = 9000;
  const map = create({ extents, keepdirty: 1 << 20, sectors: 3 });
  for (let extent = 0; extent < extents; extent++) map.writeStart(extent * EXTENT, 4096);
  for (let extent = 0; extent < extents; extent++) map.writeDone(extent * EXTENT, 4096);
  map.writeStart(0, 4096);
  flush(map);
  map.assertInvariants();
  expect.equal(testBit(map.image, 0), true, "being written");
  expect.equal(marked(map.image).length, 1 + 8192);
  map.writeDone(0, 4096);
  flush(map);
  map.coolAll();
  expect.deepEqual(marked(map.image), [], "or it would stay marked for ever");
});

test("an extent that is written and flushed for ever is no more than one warm extent", () => {
  const map = create({ extents: 20, keepdirty: 4 });
  for (let round = 0; round < 20_000; round++) {
    const extent = round % 10;
    // Every hundred rounds time passes, and what is not written cools.
    const verdict = map.writeStart(extent * EXTENT, 4096);
    expect.equal(verdict, round < 10 ? "persist-first" : "covered", `round ${round}`);
    map.writeDone(extent * EXTENT, 4096);
    if (verdict === "persist-first") persist(map);
    flush(map);
    if (round % 100 === 0) map.ageWarm();
    if (round % 1000 === 0) map.assertInvariants();
  }
  map.coolAll();
  expect.deepEqual(marked(map.image), [], "or a clean stop leaves marks behind");
});

test("merging a map leaves the counts of writes in flight alone (BD-18)", () => {
  const map = create();
  map.writeStart(0, 4096);
  map.writeStart(0, 4096);
  map.merge(new Uint8Array([0b1]));
  const extent = map.takeScheduled(0);
  map.extentCopied(extent);
  map.writeDone(0, 4096);
  expect.equal(map.dirtyCount, 1);
  map.writeDone(0, 4096);
  expect.equal(map.dirtyCount, 0);
  expect.throws(() => map.writeDone(0, 4096), AssertionError);
  map.assertInvariants();
});

test("merge() asks to be written, and ignores bits beyond the last extent", () => {
  const map = create();
  map.merge(new Uint8Array(SECTOR).fill(0xff));
  expect.equal(map.mustWrite, true);
  expect.equal(map.scheduledCount, 20);
  expect.deepEqual(marked(map.image), [...Array(20).keys()]);
});

test("merge() takes a map that is shorter or longer than its own", () => {
  const map = create();
  map.merge(new Uint8Array([0b10]));
  map.merge(new Uint8Array(4 * SECTOR));
  expect.equal(map.scheduledCount, 1);
});

test("load() schedules what the disk marks, and counts it as persisted", () => {
  const map = create();
  map.load(new Uint8Array([0b101]));
  expect.equal(map.scheduledCount, 2);
  expect.equal(map.dirtyBytes, 2 * EXTENT);
  expect.equal(map.hasChanges, false);
  expect.equal(map.writeStart(2 * EXTENT, 4096), "covered");
  expect.equal(map.writeStart(EXTENT, 4096), "persist-first");
});

test("takeScheduled() goes on from where it was and begins again at the end", () => {
  const map = create();
  map.load(new Uint8Array([0b1001_0010]));
  expect.deepEqual([map.takeScheduled(2), map.takeScheduled(5), map.takeScheduled(8)], [4, 7, 1]);
  expect.equal(map.takeScheduled(0), -1);
  expect.equal(map.resyncCount, 3);
  map.assertInvariants();
});

test("takeScheduled() does not take an extent again while its copy is under way", () => {
  const map = create();
  map.load(new Uint8Array([0b10]));
  expect.equal(map.takeScheduled(0), 1);
  map.schedule(EXTENT, 4096); // a write in it failed on one node
  expect.equal(map.takeScheduled(0), -1);
  expect.equal(map.resyncCount, 2);
  map.extentCopied(1);
  expect.equal(map.takeScheduled(0), 1, "the copy may have missed what failed");
  map.assertInvariants();
});

test("an extent whose copy failed is in line again (BD-8)", () => {
  const map = create();
  map.load(new Uint8Array([0b10]));
  map.extentFailed(map.takeScheduled(0));
  expect.equal(map.isSyncing(1), false);
  expect.equal(map.isScheduled(1), true);
  expect.equal(map.dirtyCount, 1);
  map.assertInvariants();
});

test("abandonSyncing() puts every copy under way back in line", () => {
  const map = create();
  map.load(new Uint8Array([0b111]));
  map.takeScheduled(0);
  map.takeScheduled(1);
  map.abandonSyncing();
  expect.equal(map.scheduledCount, 3);
  map.assertInvariants();
});

test("a copied extent is clean only after a flush: a copy is a write (S-19)", () => {
  const map = create({ keepdirty: 0 });
  map.load(new Uint8Array([0b10]));
  map.extentCopied(map.takeScheduled(0));
  expect.equal(map.resyncCount, 0);
  map.coolAll();
  expect.deepEqual(marked(map.image), [1]);
  flush(map);
  map.coolAll();
  expect.deepEqual(marked(map.image), []);
});

test("only changed sectors are written, in runs that fit the staging memory (BD-29)", () => {
  const map = create({ extents: 4 * SECTOR * 8, sectors: 4 });
  const staging = new Uint8Array(2 * SECTOR);
  const at = (sector: number): number => sector * SECTOR * 8 * EXTENT;
  for (const sector of [0, 1, 2]) map.writeStart(at(sector), 4096);
  const runs: number[][] = [];
  for (let offset = map.takeChanges(staging); offset >= 0; offset = map.takeChanges(staging)) {
    runs.push([offset, map.takenLength]);
  }
  expect.deepEqual(runs, [
    [0, 2 * SECTOR],
    [2 * SECTOR, SECTOR],
  ]);
});

test("uniformLength() ends where the answer of awaitsResync() changes", () => {
  const map = create();
  map.load(new Uint8Array([0b0110]));
  expect.equal(map.uniformLength(0, 20 * EXTENT - 4096), EXTENT);
  expect.equal(map.uniformLength(EXTENT + 512, 10 * EXTENT), 2 * EXTENT - 512);
  expect.equal(map.uniformLength(EXTENT, 512), 512);
  expect.equal(map.uniformLength(3 * EXTENT, 17 * EXTENT - 4096), 17 * EXTENT - 4096);
});

test("extentOf() is exact beyond 2^31 bytes", () => {
  const map = new Activemap({
    dataSize: 2 ** 40,
    extentSize: 2 ** 21,
    keepdirty: 2,
    regionSize: 2 ** 16,
    sectorSize: SECTOR,
  });
  for (const offset of [0, 2 ** 21 - 1, 2 ** 21, 2 ** 31 - 1, 2 ** 31, 2 ** 40 - 1]) {
    expect.equal(map.extentOf(offset), Math.floor(offset / 2 ** 21));
  }
  expect.throws(() => map.extentOf(2 ** 40), AssertionError);
});

test("a range beyond the data area is our own mistake", () => {
  const map = create();
  expect.throws(() => map.writeStart(20 * EXTENT - 8192, 8192), AssertionError);
  expect.throws(() => map.writeStart(0, 0), AssertionError);
});

// ---- any history

/** The map's promises, kept by somebody who only knows what happened. */
class Ledger {
  readonly writing: number[] = new Array(20).fill(0);
  readonly dirty: Set<number> = new Set(); // must be marked
  readonly disk = new Uint8Array(SECTOR);
}

test("whatever happens, an extent that may differ is marked, and what is called persisted is on disk", () => {
  const extent = fc.nat(19);
  const step = fc.oneof(
    fc.record({ act: fc.constant("write" as const), extent }),
    fc.record({ act: fc.constant("done" as const), extent }),
    fc.record({ act: fc.constant("fail" as const), extent }),
    fc.record({ act: fc.constant("copy" as const), extent }),
    fc.record({
      act: fc.constantFrom("flush", "cut", "age", "cool", "map", "take", "fails"),
      extent,
    }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const map = create({ keepdirty: 1 });
      const ledger = new Ledger();
      const copying: number[] = [];
      for (const { act, extent: at } of steps) {
        if (act === "write") {
          const verdict = map.writeStart(at * EXTENT, 512);
          if (verdict === "covered") expect.ok(testBit(ledger.disk, at), `${at} is not on disk`);
          ledger.writing[at]! += 1;
          ledger.dirty.add(at);
        } else if ((act === "done" || act === "fail") && ledger.writing[at]! > 0) {
          if (act === "fail") map.schedule(at * EXTENT, 512);
          map.writeDone(at * EXTENT, 512);
          ledger.writing[at]! -= 1;
        } else if (act === "copy" && copying.length > 0) {
          map.extentCopied(copying.shift()!);
        } else if (act === "take") {
          const taken = map.takeScheduled(at);
          if (taken >= 0) copying.push(taken);
        } else if (act === "fails" && copying.length > 0) {
          map.extentFailed(copying.shift()!);
        } else if (act === "flush") {
          flush(map);
          // Only an extent at rest on both nodes may have become clean.
          for (const each of [...ledger.dirty]) {
            const rests = ledger.writing[each] === 0 && !map.awaitsResync(each * EXTENT, 512);
            if (rests) ledger.dirty.delete(each);
          }
        } else if (act === "cut") {
          map.scheduleUnflushed();
          map.abandonSyncing();
          copying.length = 0;
        } else if (act === "age") map.ageWarm();
        else if (act === "cool") map.coolAll();
        else if (act === "map") persist(map, ledger.disk);
        map.assertInvariants();
        for (const each of ledger.dirty) {
          expect.ok(testBit(map.image, each), `${each} may differ, and is not marked`);
        }
        for (let each = 0; each < 20; each++) {
          const start = each * EXTENT;
          if (map.isPersisted(start, 512)) expect.ok(testBit(ledger.disk, each), `${each}`);
        }
      }
    }),
    { numRuns: 500 },
  );
});

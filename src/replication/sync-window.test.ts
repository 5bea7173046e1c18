// SPDX-License-Identifier: BSD-2-Clause
/** With a whole primary around it: primary.test.ts, resync-orders.test.ts. */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import { Activemap } from "./activemap.ts";
import { IO_MAX } from "./requests.ts";
import { SYNC_WINDOW, SyncWindow } from "./sync-window.ts";

/** 64 extents of four chunks; the last one ends early. */
const EXTENT = 4 * IO_MAX;
const DATA = 63 * EXTENT + IO_MAX + 4096;

function windowOver(extents: readonly number[]): { map: Activemap; window: SyncWindow } {
  const map = new Activemap({
    dataSize: DATA,
    extentSize: EXTENT,
    keepdirty: 0,
    regionSize: 512,
    sectorSize: 512,
  });
  for (const extent of extents) map.schedule(extent * EXTENT, 1);
  return { map, window: new SyncWindow(map) };
}

/** Begins all that there is. */
function beginAll(window: SyncWindow): { index: number; offset: number; length: number }[] {
  const begun = [];
  for (let index = window.find(false); index >= 0; index = window.find(false)) {
    const offset = window.nextOffset(index);
    begun.push({ index, offset, length: window.beginChunk(index) });
  }
  return begun;
}

test("an extent is begun in chunks, and copied when the last of them has ended", () => {
  const { map, window } = windowOver([3, 63]);
  const begun = beginAll(window);
  expect.deepEqual(
    begun.map(({ offset, length }) => [offset, length]),
    [
      [3 * EXTENT, IO_MAX],
      [3 * EXTENT + IO_MAX, IO_MAX],
      [3 * EXTENT + 2 * IO_MAX, IO_MAX],
      [3 * EXTENT + 3 * IO_MAX, IO_MAX],
      [63 * EXTENT, IO_MAX],
      [63 * EXTENT + IO_MAX, 4096],
    ],
  );
  expect.equal(window.start(begun[1]!.index), 3 * EXTENT);
  const ends = begun.map(({ index }) => window.chunkDone(index, true));
  expect.deepEqual(ends, ["under way", "under way", "under way", "copied", "under way", "copied"]);
  expect.equal(map.resyncCount, 0);
});

test("BD-8: an extent of which a chunk failed ends without the rest, and stays in line", () => {
  const { map, window } = windowOver([5]);
  const index = window.find(false);
  window.beginChunk(index);
  window.beginChunk(index);
  expect.equal(window.chunkDone(index, false), "under way");
  expect.equal(window.chunkDone(index, true), "failed");
  expect.equal(map.resyncCount, 1);
  expect.equal(beginAll(window).length, 4, "all of it again");
});

test("a chunk that ended while others are still to begin does not end its extent", () => {
  const { window } = windowOver([5]);
  const index = window.find(false);
  window.beginChunk(index);
  expect.equal(window.chunkDone(index, true), "under way");
  expect.equal(window.find(false), index);
});

test("no more extents at a time than the window holds; at link loss all are in line again", () => {
  const { map, window } = windowOver(Array.from({ length: 40 }, (_, extent) => extent));
  const begun = beginAll(window);
  expect.equal(new Set(begun.map(({ index }) => index)).size, SYNC_WINDOW);
  expect.equal(map.scheduledCount, 40 - SYNC_WINDOW);
  window.abandon();
  expect.equal(map.scheduledCount, 40);
  expect.equal(beginAll(window).length, begun.length);
});

test("what is urgent is only what the peer lacks that somebody waits for", () => {
  const { map, window } = windowOver([5]);
  expect.equal(window.find(true), -1);
  expect.equal(map.goodHereCount, 0);
  expect.notEqual(window.find(false), -1);
});

// SPDX-License-Identifier: BSD-2-Clause
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { SECTOR_SIZE, VolatileDisk } from "./volatile-disk.ts";

/** A disk of four sectors; each write fills whole sectors with one byte. */
function diskOf(...writes: readonly (readonly [sector: number, byte: number] | "flush")[]) {
  const disk = new VolatileDisk(4 * SECTOR_SIZE);
  for (const step of writes) {
    if (step === "flush") disk.flush();
    else disk.write(step[0] * SECTOR_SIZE, Buffer.alloc(SECTOR_SIZE, step[1]));
  }
  return disk;
}

function bytesOf(disk: VolatileDisk): number[] {
  return [0, 1, 2, 3].map((sector) => disk.image[sector * SECTOR_SIZE]!);
}

/** Plays back what a source of chance shall say. */
function chances(...values: number[]): () => number {
  return () => values.shift()!;
}

test("a power cut takes back what was not flushed, sector by sector", () => {
  const disk = diskOf([0, 1], "flush", [0, 2], [1, 3]);
  assert.deepEqual(bytesOf(disk), [2, 3, 0, 0]);
  assert.deepEqual(disk.powerCut(chances(0.9, 0, 0.1)), { unflushed: 2, lost: 1 });
  assert.deepEqual(bytesOf(disk), [1, 3, 0, 0]);
});

test("a power cut may leave a version that was overwritten in the cache", () => {
  const disk = diskOf([2, 1], [2, 2], [2, 3]);
  disk.powerCut(chances(0.9, 0.5));
  assert.deepEqual(bytesOf(disk), [0, 0, 1, 0]);
});

test("a write of several sectors can be torn", () => {
  const disk = new VolatileDisk(4 * SECTOR_SIZE);
  disk.write(0, Buffer.alloc(4 * SECTOR_SIZE, 7));
  disk.powerCut(chances(0.1, 0.9, 0, 0.1, 0.9, 0));
  assert.deepEqual(bytesOf(disk), [7, 0, 7, 0]);
});

test("what was flushed, or written with FUA, stays", () => {
  const disk = diskOf([0, 1], [1, 2], "flush", [2, 3], [3, 4]);
  disk.flushRange(2 * SECTOR_SIZE, SECTOR_SIZE);
  assert.deepEqual(disk.powerCut(chances(0.9, 0)), { unflushed: 1, lost: 1 });
  assert.deepEqual(bytesOf(disk), [1, 2, 3, 0]);
});

test("zeroes are writes", () => {
  const disk = diskOf([0, 1], [1, 1], "flush");
  disk.zero(0, 2 * SECTOR_SIZE);
  disk.powerCut(chances(0.9, 0, 0.1));
  assert.deepEqual(bytesOf(disk), [1, 0, 0, 0]);
});

test("a disk that lies loses what it said was flushed", () => {
  const disk = diskOf([0, 1], "flush");
  disk.lying = true;
  disk.write(0, Buffer.alloc(SECTOR_SIZE, 2));
  disk.flush();
  disk.flushRange(0, SECTOR_SIZE);
  disk.powerCut(chances(0.9, 0));
  assert.deepEqual(bytesOf(disk), [1, 0, 0, 0]);
});

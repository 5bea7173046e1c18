// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { clearBit, countBits, nextSetBit, setBit, testBit } from "./bitmap.ts";

test("extents 0 and 9 are the bytes 01 02, as the disk has them", () => {
  const map = new Uint8Array(2);
  setBit(map, 0);
  setBit(map, 9);
  expect.deepEqual([...map], [0x01, 0x02]);
});

test("clearBit() clears one bit and leaves its neighbours", () => {
  const map = new Uint8Array([0xff, 0xff]);
  clearBit(map, 7);
  clearBit(map, 7);
  clearBit(map, 8);
  expect.deepEqual([...map], [0x7f, 0xfe]);
});

test("nextSetBit() ignores set bits at and above the count", () => {
  const map = new Uint8Array([0x00, 0x00, 0xf0]);
  expect.equal(nextSetBit(map, 0, 20), -1);
  expect.equal(nextSetBit(map, 0, 21), 20);
  expect.equal(nextSetBit(map, 21, 21), -1);
  expect.equal(nextSetBit(map, 24, 24), -1);
  expect.equal(nextSetBit(new Uint8Array(0), 0, 0), -1);
});

test("countBits() ignores set bits at and above the count", () => {
  const map = new Uint8Array([0xff, 0xff]);
  expect.equal(countBits(map, 0), 0);
  expect.equal(countBits(map, 3), 3);
  expect.equal(countBits(map, 9), 9);
  expect.equal(countBits(map, 16), 16);
});

test("the map behaves like a set of numbers", () => {
  const step = fc.record({ set: fc.boolean(), index: fc.nat(199) });
  fc.assert(
    fc.property(fc.array(step), fc.integer({ min: 0, max: 200 }), (steps, count) => {
      const map = new Uint8Array(25);
      const model = new Set<number>();
      for (const { set, index } of steps) {
        if (set) setBit(map, index);
        else clearBit(map, index);
        if (set) model.add(index);
        else model.delete(index);
      }
      for (let index = 0; index < 200; index++) {
        expect.equal(testBit(map, index), model.has(index), `bit ${index}`);
      }
      const below = [...model].filter((index) => index < count).sort((a, b) => a - b);
      expect.equal(countBits(map, count), below.length);
      const walked: number[] = [];
      for (let at = nextSetBit(map, 0, count); at !== -1; at = nextSetBit(map, at + 1, count)) {
        walked.push(at);
      }
      expect.deepEqual(walked, below);
    }),
  );
});

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import koffi from "koffi";
import { createArena } from "./arena.ts";

test("an arena has its size, zeroes, and an address that is a multiple of the page", () => {
  const arena = createArena(100_000);
  assert.equal(arena.length, 100_000);
  assert.equal(arena.byteOffset, 0);
  assert.ok(arena.every((byte) => byte === 0));
  assert.equal(koffi.address(arena) % 4096n, 0n);
});

test("arenas share nothing", () => {
  const first = createArena(65536);
  const second = createArena(65536);
  first.fill(1);
  assert.ok(second.every((byte) => byte === 0));
});

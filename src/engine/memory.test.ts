// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { ARENA_SIZE, Inbox, LARGE, LARGE_PAYLOAD, Memory, NOBODY, SLAB_SIZE } from "./memory.ts";

const ARENA = new Uint8Array(ARENA_SIZE);
const SLAB_COUNT = new Memory(ARENA).freeSlabs;

function slabs(memory: Memory): number[] {
  const taken: number[] = [];
  for (let slab = memory.takeSlab(); slab !== NOBODY; slab = memory.takeSlab()) taken.push(slab);
  return taken;
}

test("slabs, copies and the large buffer do not overlap", () => {
  const memory = new Memory(ARENA);
  const ranges: [number, number][] = [];
  for (const slab of [...slabs(memory), memory.takeLarge()]) {
    ranges.push([memory.start(slab), memory.start(slab) + memory.size(slab)]);
  }
  for (let count = 0; count < 32; count++) {
    const at = memory.takeCopy();
    ranges.push([at, at + 131072]);
  }
  ranges.sort(([a], [b]) => a - b);
  for (const [index, [start, end]] of ranges.entries()) {
    expect.ok(end <= (ranges[index + 1]?.[0] ?? ARENA_SIZE));
    expect.ok(start >= 512 * 1024, "the staging area is not anybody's");
  }
});

test("a slab is free when its last holder has let go, and somebody is told", () => {
  const memory = new Memory(ARENA);
  const taken = slabs(memory);
  expect.equal(memory.freeSlabs, 0);
  let told = 0;
  memory.onFree = () => told++;
  memory.hold(taken[5]!);
  memory.letGo(taken[5]!);
  expect.equal(told, 0);
  expect.equal(memory.takeSlab(), NOBODY);
  memory.letGo(taken[5]!);
  expect.equal(told, 1);
  expect.equal(memory.takeSlab(), taken[5]);
  expect.equal(memory.takeLarge(), LARGE);
  expect.equal(memory.takeLarge(), NOBODY);
  memory.letGo(LARGE);
  expect.equal(memory.takeLarge(), LARGE);
});

test("letting go of what nobody holds is our own mistake, and stops us", () => {
  const memory = new Memory(ARENA);
  const slab = memory.takeSlab();
  memory.letGo(slab);
  expect.throws(() => memory.letGo(slab), { name: "AssertionError" });
  expect.throws(() => memory.hold(slab), { name: "AssertionError" });
});

/** Puts `bytes` where a stream would. @returns how many had room */
function arrive(inbox: Inbox, bytes: Uint8Array): number {
  const space = inbox.space();
  const length = Math.min(space.length, bytes.length);
  space.set(bytes.subarray(0, length));
  inbox.end += length;
  return length;
}

test("an inbox moves what is kept to where the whole message has room", () => {
  const memory = new Memory(ARENA);
  const inbox = new Inbox(memory);
  expect.ok(inbox.makeRoom(1));
  const filler = new Uint8Array(SLAB_SIZE - 100).fill(1);
  expect.equal(arrive(inbox, filler), filler.length);
  inbox.start = inbox.end;
  expect.equal(arrive(inbox, new Uint8Array(100).fill(2)), 100);
  expect.equal(inbox.space().length, 0);
  expect.ok(inbox.makeRoom(1000));
  expect.ok(inbox.space().length >= 900);
  expect.ok(ARENA.subarray(inbox.start, inbox.end).every((byte) => byte === 2));
  expect.equal(memory.freeSlabs, SLAB_COUNT - 1, "the same slab: nobody else held it");
});

test("an inbox leaves a slab that somebody's data lies in", () => {
  const memory = new Memory(ARENA);
  const inbox = new Inbox(memory);
  inbox.makeRoom(1);
  arrive(inbox, new Uint8Array(SLAB_SIZE).fill(3));
  const held = inbox.holder;
  memory.hold(held);
  inbox.start = inbox.end - 10;
  expect.ok(inbox.makeRoom(20));
  expect.notEqual(inbox.holder, held);
  expect.equal(memory.holders(held), 1);
  expect.ok(
    ARENA.subarray(memory.start(held), memory.start(held) + SLAB_SIZE).every((b) => b === 3),
  );
  expect.ok(ARENA.subarray(inbox.start, inbox.end).every((byte) => byte === 3));
});

test("the large buffer takes one message and nothing behind it", () => {
  const memory = new Memory(ARENA);
  const inbox = new Inbox(memory);
  inbox.makeRoom(1);
  arrive(inbox, new Uint8Array(28).fill(4));
  const wanted = 28 + LARGE_PAYLOAD;
  expect.ok(inbox.makeRoom(wanted));
  expect.equal(inbox.holder, LARGE);
  expect.equal(inbox.space().length, LARGE_PAYLOAD);
  arrive(inbox, new Uint8Array(1000));
  expect.ok(inbox.makeRoom(wanted), "asked again while it arrives");
  expect.equal(inbox.space().length, LARGE_PAYLOAD - 1000);

  const other = new Inbox(memory);
  other.makeRoom(1);
  arrive(other, new Uint8Array(28));
  expect.equal(other.makeRoom(wanted), false, "there is one");
  inbox.start = inbox.end;
  expect.ok(inbox.makeRoom(28));
  expect.notEqual(inbox.holder, LARGE);
  expect.ok(other.makeRoom(wanted));
});

test("an inbox that finds no slab keeps what it has", () => {
  const memory = new Memory(ARENA);
  const inbox = new Inbox(memory);
  inbox.makeRoom(1);
  memory.hold(inbox.holder);
  arrive(inbox, new Uint8Array(SLAB_SIZE).fill(5));
  const taken = slabs(memory);
  inbox.start = inbox.end - 50;
  const { start, end } = inbox;
  expect.equal(inbox.makeRoom(100), false);
  expect.deepEqual([inbox.start, inbox.end], [start, end]);
  memory.letGo(taken[0]!);
  expect.ok(inbox.makeRoom(100));
});

test("whatever arrives, in whatever pieces, an inbox hands on every byte in order", () => {
  const message = fc.record({
    size: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 1_500_000 })),
    hold: fc.boolean(),
  });
  fc.assert(
    fc.property(
      fc.array(message, { minLength: 1, maxLength: 12 }),
      fc.integer({ min: 1, max: 700_000 }),
      (messages, piece) => {
        const memory = new Memory(ARENA);
        const inbox = new Inbox(memory);
        const stream = Buffer.concat(
          messages.map(({ size }, index) => Buffer.alloc(size, index + 1)),
        );
        const held: { holder: number; at: number; size: number; value: number }[] = [];
        let arrived = 0;
        expect.ok(inbox.makeRoom(1));
        for (const [index, { size, hold }] of messages.entries()) {
          while (inbox.end - inbox.start < size) {
            if (inbox.space().length === 0) expect.ok(inbox.makeRoom(size));
            expect.ok(inbox.makeRoom(Math.max(size, inbox.end - inbox.start + 1)));
            const part = stream.subarray(arrived, arrived + piece);
            arrived += arrive(inbox, part);
          }
          if (hold) {
            memory.hold(inbox.holder);
            held.push({ holder: inbox.holder, at: inbox.start, size, value: index + 1 });
          }
          const part = ARENA.subarray(inbox.start, inbox.start + size);
          expect.equal(part[0], index + 1);
          expect.equal(part[size - 1], index + 1);
          inbox.start += size;
          if (inbox.space().length === 0) expect.ok(inbox.makeRoom(inbox.end - inbox.start + 1));
        }
        for (const { holder, at, size, value } of held) {
          expect.ok(ARENA.subarray(at, at + size).every((byte) => byte === value));
          memory.letGo(holder);
        }
        inbox.close();
        expect.equal(memory.freeSlabs, SLAB_COUNT, "nothing leaks");
      },
    ),
    { numRuns: 20 },
  );
});

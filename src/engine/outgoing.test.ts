// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import type { Stream } from "../platform/net.ts";
import { ARENA_SIZE, Memory, NOBODY, PINNED } from "./memory.ts";
import { Outgoing } from "./outgoing.ts";

const ARENA = new Uint8Array(ARENA_SIZE);

/** Remembers what it was given; a test says what has left. */
class HeldStream implements Stream {
  readonly peer = "test";
  readonly pieces: Uint8Array[] = [];
  calls = 0;
  start(): void {}
  write(bytes: Uint8Array): void {
    this.calls++;
    this.pieces.push(bytes);
  }
  writeAll(pieces: readonly Uint8Array[]): void {
    this.calls++;
    this.pieces.push(...pieces);
  }
  pause(): void {}
  resume(): void {}
  end(): void {}
  destroy(): void {}
  get text(): string {
    return Buffer.concat(this.pieces).toString("latin1");
  }
}

function header(outgoing: Outgoing, text: string): void {
  const chunk = outgoing.reserve(64);
  outgoing.advance(outgoing.at + Buffer.from(chunk.buffer).write(text, outgoing.at));
}

function start(): { outgoing: Outgoing; stream: HeldStream; memory: Memory } {
  const stream = new HeldStream();
  const memory = new Memory(ARENA);
  return { outgoing: new Outgoing(stream, memory), stream, memory };
}

test("a batch of headers and small payloads leaves as one piece", () => {
  const { outgoing, stream } = start();
  header(outgoing, "one,");
  ARENA.set(Buffer.from("small"), 1000);
  outgoing.payload(ARENA, 1000, 5, PINNED);
  header(outgoing, ",two");
  ARENA.fill(0x2e, 1000, 1005); // copied by then
  expect.equal(stream.calls, 0);
  outgoing.flush();
  expect.equal(stream.calls, 1);
  expect.equal(stream.pieces.length, 1);
  expect.equal(stream.text, "one,small,two");
  outgoing.flush();
  expect.equal(stream.calls, 1, "nothing to send, nothing sent");
});

test("a large payload is sent from where it lies, and held until it has left", () => {
  const { outgoing, stream, memory } = start();
  const slab = memory.takeSlab();
  const at = memory.start(slab);
  ARENA.fill(0x61, at, at + 100_000);
  header(outgoing, "[");
  outgoing.payload(ARENA, at, 100_000, slab);
  header(outgoing, "]");
  outgoing.flush();
  expect.equal(stream.calls, 1);
  expect.equal(stream.pieces.length, 3);
  expect.equal(stream.pieces[1]!.byteOffset, at);
  memory.letGo(slab);
  expect.equal(memory.holders(slab), 1);
  outgoing.sent(1);
  expect.equal(memory.holders(slab), 1);
  outgoing.sent(1);
  expect.equal(memory.holders(slab), 0);
  outgoing.sent(1);
});

test("a large payload without a holder is copied, however large", () => {
  const { outgoing, stream } = start();
  const bytes = new Uint8Array(900_000).map((_byte, index) => index % 251);
  outgoing.payload(bytes, 0, bytes.length, NOBODY);
  const expected = bytes.slice();
  bytes.fill(0);
  outgoing.flush();
  expect.equal(Buffer.compare(Buffer.concat(stream.pieces), expected), 0);
});

test("what has been handed over is not overwritten before it has left", () => {
  const { outgoing, stream } = start();
  header(outgoing, "first");
  outgoing.flush();
  header(outgoing, "second");
  outgoing.flush();
  expect.equal(stream.text, "firstsecond");
  outgoing.sent(1);
  header(outgoing, "third");
  expect.equal(stream.text, "firstsecond");
  outgoing.flush();
  outgoing.sent(2);
  header(outgoing, "fourth");
  outgoing.flush();
  expect.equal(Buffer.from(stream.pieces.at(-1)!).toString(), "fourth");
});

test("unsent counts what has not left, to the byte", () => {
  const { outgoing, memory } = start();
  expect.equal(outgoing.unsent, 0);
  header(outgoing, "12345");
  expect.equal(outgoing.unsent, 5);
  outgoing.flush();
  const slab = memory.takeSlab();
  outgoing.payload(ARENA, memory.start(slab), 50_000, slab);
  outgoing.flush();
  expect.equal(outgoing.unsent, 50_005);
  outgoing.sent(1);
  expect.equal(outgoing.unsent, 50_000, "although something is always under way");
  header(outgoing, "123");
  expect.equal(outgoing.unsent, 50_003);
  outgoing.flush();
  outgoing.sent(1);
  expect.equal(outgoing.unsent, 3);
  outgoing.sent(1);
  expect.equal(outgoing.unsent, 0);
});

test("close() lets go of everything, and holds nothing any more", () => {
  const { outgoing, stream, memory } = start();
  const slab = memory.takeSlab();
  outgoing.payload(ARENA, memory.start(slab), 50_000, slab);
  outgoing.flush();
  outgoing.payload(ARENA, memory.start(slab), 50_000, slab);
  outgoing.close();
  expect.equal(memory.holders(slab), 1);
  outgoing.payload(ARENA, memory.start(slab), 50_000, slab);
  header(outgoing, "late");
  outgoing.flush();
  expect.equal(stream.calls, 1);
  expect.equal(memory.holders(slab), 1);
  expect.equal(outgoing.unsent, 0);
});

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock, FakeLog, FakeSocket } from "../../test/daemon/fakes.ts";
import { FRAME_HEADER_SIZE } from "../wire/frame.ts";
import { decodeS1, type P2, type Refusal, type S1 } from "../wire/handshake.ts";
import { type Attempt, HALF_OPEN_TIMEOUT_MS, Handshake } from "./handshake.ts";

class World {
  readonly clock = new FakeClock();
  tokenCount = 0;
  readonly handshake = new Handshake({ log: new FakeLog() }, this.clock, {
    fill: (bytes) => bytes.fill(++this.tokenCount),
  });

  /** Connection A, with its S1. */
  halfOpen(version = 2): { a: FakeSocket; token: Uint8Array; version: number } {
    const a = new FakeSocket("10.0.0.2");
    this.handshake.begin(a, { kind: "p1", resource: "r0", version, extensions: 0n, term: 0n });
    assert.equal(a.written.length, 0);
    this.handshake.accept();
    const answer = s1(a);
    assert(answer.kind === "accepted");
    return { a, token: answer.token, version: answer.version };
  }

  /** P2 comes on connection B. */
  complete(token: Uint8Array, { host = "10.0.0.2", resuid = 7n } = {}): Attempt | Refusal {
    const p2: P2 = {
      kind: "p2",
      resource: "r0",
      token,
      virgin: false,
      resuid,
      localcnt: 2n,
      remotecnt: 1n,
      remarks: null,
      life: null,
      whole: false,
    };
    return this.handshake.complete(new FakeSocket(host, 40001), p2);
  }
}

const WRONG_TOKEN: Refusal = { kind: "refused", errmsg: "Token doesn't match.", wait: false };

/** @param from bytes that were written before it */
function s1(socket: FakeSocket, from = 0): S1 {
  return decodeS1(socket.written.subarray(from + FRAME_HEADER_SIZE));
}

test("a P2 with the token of S1 completes the attempt, whose connection stays open", async () => {
  const world = new World();
  const { a, token } = world.halfOpen();
  const attempt = world.complete(token);
  assert("socket" in attempt);
  assert.equal(attempt.socket, a);
  await world.clock.advance(HALF_OPEN_TIMEOUT_MS);
  assert.equal(a.state, "open");
});

test("a missing version counts as 1, a newer one is answered with 2", () => {
  for (const [offered, answered] of [
    [0, 1],
    [1, 1],
    [2, 2],
    [9, 2],
  ]) {
    assert.equal(new World().halfOpen(offered).version, answered);
  }
});

test("the newest P1 counts, and the token of the one before is worth nothing (BD-40)", () => {
  const world = new World();
  const first = world.halfOpen();
  const second = world.halfOpen();
  assert.equal(first.a.state, "destroyed");
  assert.notDeepEqual(second.token, first.token);
  assert.deepEqual(world.complete(first.token), WRONG_TOKEN);
});

test("a half-open connection expires after 20 s, and its token with it (BD-40)", async () => {
  const world = new World();
  const { a, token } = world.halfOpen();
  await world.clock.advance(20_000);
  assert.equal(a.state, "destroyed");
  assert.deepEqual(world.complete(token), WRONG_TOKEN);
});

test("a half-open connection whose peer closes, or sends more, is dropped (BD-40)", () => {
  const world = new World();
  const { a, token } = world.halfOpen();
  a.break("the peer sent more than its handshake message");
  assert.deepEqual(world.complete(token), WRONG_TOKEN);
  assert.equal(world.clock.timerCount, 0);
});

test("no token is accepted before S1, not even zeros (BD-40)", () => {
  const world = new World();
  assert.deepEqual(world.complete(new Uint8Array(16)), WRONG_TOKEN);
  const a = new FakeSocket("10.0.0.2");
  world.handshake.begin(a, {
    kind: "p1",
    resource: "r0",
    version: 2,
    extensions: 0n,
    term: 0n,
  });
  assert.deepEqual(world.complete(new Uint8Array(16)), WRONG_TOKEN);
  assert.equal(a.state, "open");
});

test("a token is good for one second connection (BD-40)", () => {
  const world = new World();
  const { token } = world.halfOpen();
  assert("socket" in world.complete(token));
  assert.deepEqual(world.complete(token), WRONG_TOKEN);
});

test("a refused second step is told on connection A as well, which is then closed (BD-33)", () => {
  const world = new World();
  const { a } = world.halfOpen();
  const { length } = a.written;
  assert.deepEqual(world.complete(new Uint8Array(16).fill(99)), WRONG_TOKEN);
  assert.equal(a.state, "ended");
  assert.deepEqual(s1(a, length), WRONG_TOKEN);
});

test("a wrong token from another host does not disturb the attempt under way", () => {
  const world = new World();
  const { a, token } = world.halfOpen();
  assert.deepEqual(world.complete(new Uint8Array(16).fill(99), { host: "10.0.0.3" }), WRONG_TOKEN);
  assert.equal(a.state, "open");
  assert("socket" in world.complete(token));
});

test("a second step without a resource id is refused on both connections", () => {
  const world = new World();
  const { a, token } = world.halfOpen();
  const { length } = a.written;
  const refusal = world.complete(token, { resuid: 0n });
  assert("errmsg" in refusal);
  assert.equal(a.state, "ended");
  assert.deepEqual(s1(a, length), refusal);
});

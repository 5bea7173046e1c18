// SPDX-License-Identifier: BSD-2-Clause
/** Defects of the original that show in an engine between its client, its disk and its peer (docs/cases.md). */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import { NBD_FLUSH, NBD_READ, NBD_WRITE, NbdClient } from "../../test/pretend/nbd-client.ts";
import { pretendConnection } from "../../test/pretend/net.ts";
import { writeRequest } from "../../test/pretend/requests.ts";
import { sameBytes } from "../../test/pretend/same-bytes.ts";
import { PretendSecondary } from "../../test/pretend/secondary.ts";
import { createComponent, dirtyArena, World, type WorldOptions } from "../../test/pretend/world.ts";
import { CHECKSUM_CRC32, CHECKSUM_SHA256 } from "../wire/payload.ts";
import { CMD_READ } from "../wire/request.ts";
import { PrimaryEngine } from "./primary-engine.ts";
import { SecondaryEngine } from "./secondary-engine.ts";

const ARENA = dirtyArena();
const LOCALOFF = 4608;
const EIO = 5;

function bytes(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

/** A primary in step with its peer, and a client. */
async function primary(options: WorldOptions = {}) {
  const world = new World({ arena: ARENA, mediaSize: 4 * 1024 * 1024, ...options });
  const { datasize } = createComponent(world.disk, {
    resuid: 77n,
    state: "uptodate",
    sequence: 1n,
    synced: "all",
  });
  const peer = new PretendSecondary(world.events, { datasize });
  let connections = 0;
  world.net.onConnect = () => (connections++ < 2 ? peer.connect() : "connection refused");
  const { settings, disk, environment, host } = world;
  const engine = await world.until(PrimaryEngine.open(settings, disk, environment, host));
  await world.until(engine.start());
  const nbd = new NbdClient(world.events, world.net.dial(settings.export));
  expect.ok(await nbd.begin());
  const stop = async () => {
    engine.stop(1_000);
    for (let second = 0; second < 5; second++) await world.clock.pass(1_000);
    expect.equal(host.exit?.code, 0);
  };
  return { world, peer, engine, nbd, host, stop };
}

test("BD-27: async answers wait neither for a peer that says nothing nor for the end of its connection", async () => {
  const { world, peer, nbd, engine, stop } = await primary({
    settings: { replication: "async", timeout: 20 },
  });
  peer.automatic = false;
  const began = world.clock.now();
  // It reads what comes and answers nothing; then it does not even read.
  for (let index = 0; index < 200; index++) {
    if (index === 100) peer.a.stopListening();
    const cookie = nbd.send({ type: NBD_WRITE, offset: 4096 * index, payload: bytes(4096, index) });
    await world.events.settle();
    expect.equal(nbd.answer(cookie)?.error, 0, `write ${index}`);
  }
  expect.equal(world.clock.now(), began, "no time has passed");
  // The peer is given up after `timeout`; whoever writes meanwhile does not notice.
  let last = began;
  while (engine.report().status === "complete") {
    await world.clock.pass(1_000);
    const before = world.clock.now();
    expect.ok(before - began < 60_000, "the peer is given up");
    const cookie = nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(4096, 1) });
    await world.events.settle();
    const answered = nbd.answer(cookie) !== null;
    expect.ok(answered || engine.report().idleQueue === 0, "held up by nothing but 256 in flight");
    last = before;
  }
  expect.ok(last - began >= 15_000);
  expect.equal((await nbd.done({ type: NBD_FLUSH })).error, 0);
  await stop();
});

for (const [name, checksum] of [
  ["crc32", CHECKSUM_CRC32],
  ["sha256", CHECKSUM_SHA256],
] as const) {
  test(`BD-42: with ${name} no damaged byte of a write's data reaches the disk, whichever it is`, async () => {
    const request = writeRequest(1, 8192, bytes(512, 7), { checksum });
    for (let at = request.length - 512; at < request.length; at += 37) {
      const { world, a } = await secondary();
      const before = world.disk.peek(LOCALOFF, 65536);
      a.send(request.with(at, request[at]! ^ 0x10));
      await world.events.settle();
      expect.equal(world.host.exit?.code, 75, `byte ${at}`);
      expect.match(world.host.exit?.reason ?? "", /does not match its checksum/);
      sameBytes(world.disk.peek(LOCALOFF, 65536), before);
    }
  });
}

test("BD-42: where data belong no checksum of hast.conf covers, as protocol.md says: a damaged offset is obeyed", async () => {
  const { world, a } = await secondary();
  const request = writeRequest(1, 8192, bytes(512, 7), { checksum: CHECKSUM_SHA256 });
  const wrong = writeRequest(1, 16384, bytes(512, 7), { checksum: CHECKSUM_SHA256 });
  const differing = [...request.keys()].filter((at) => request[at] !== wrong[at]);
  expect.equal(differing.length, 1, "one byte of the header makes the difference");
  a.send(wrong);
  await world.events.settle();
  expect.equal(world.host.exit, null);
  sameBytes(world.disk.peek(LOCALOFF + 16384, 512), bytes(512, 7));
});

/** A secondary in step with its primary. */
async function secondary() {
  const world = new World({ arena: ARENA, mediaSize: 128 * 1024 });
  createComponent(world.disk, { resuid: 77n });
  const a = pretendConnection(world.events, "tcp://primary (a)");
  const b = pretendConnection(world.events, "tcp://primary (b)");
  const hello = {
    version: 2,
    extensions: 0n,
    virgin: false,
    resuid: 77n,
    localcnt: 0n,
    remotecnt: 0n,
    remarks: null,
    life: null,
    whole: false,
    invalidate: false,
    left: null,
  };
  const { settings, disk, environment, host } = world;
  const opening = SecondaryEngine.open(settings, hello, disk, a.near, b.near, environment, host);
  const engine = await world.until(opening);
  await world.until(engine.start());
  return { world, a, b };
}

test("BD-46: an unreadable range is read from the peer once, and written over here, which mends it", async () => {
  const { world, peer, nbd, engine, stop } = await primary();
  const data = bytes(4096, 9);
  expect.equal((await nbd.done({ type: NBD_WRITE, offset: 65536, payload: data })).error, 0);
  expect.equal((await nbd.done({ type: NBD_FLUSH })).error, 0);
  // As disks do it: the sector cannot be read until it has been written again.
  let broken = true;
  world.disk.fail = ({ op, offset }) => {
    if (offset !== LOCALOFF + 65536) return 0;
    if (op === "write") broken = false;
    return op === "read" && broken ? EIO : 0;
  };
  const reads = () => peer.heard.filter(({ header }) => header.cmd === CMD_READ).length;
  sameBytes((await nbd.done({ type: NBD_READ, offset: 65536, length: 4096 })).data, data);
  await world.events.settle();
  expect.equal(broken, false, "it was written again");
  sameBytes(world.disk.peek(LOCALOFF + 65536, 4096), data);
  const asked = reads();
  expect.ok(asked > 0);
  sameBytes((await nbd.done({ type: NBD_READ, offset: 65536, length: 4096 })).data, data);
  expect.equal(reads(), asked, "and is read here again");
  expect.equal(engine.report().readErrors, 1, "the error counts");
  await stop();
});

test("BD-46: what neither node can read fails with the disk's own error", async () => {
  const { world, peer, nbd, stop } = await primary();
  world.disk.fail = ({ op, offset }) => (op === "read" && offset >= LOCALOFF ? EIO : 0);
  peer.leave();
  await world.events.settle();
  const cookie = nbd.send({ type: NBD_READ, offset: 0, length: 4096 });
  await world.events.settle();
  expect.equal(nbd.answer(cookie)?.error, EIO);
  world.disk.fail = () => 0;
  await stop();
});

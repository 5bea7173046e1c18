// SPDX-License-Identifier: BSD-2-Clause
/** Peers of protocol 0 and 1: hastd before FreeBSD 10. Source: wire protocol §1, §6.6. */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import { messagesOf } from "../../test/golden/vectors.ts";
import { NBD_FLUSH, NBD_WRITE, NbdClient } from "../../test/pretend/nbd-client.ts";
import { pretendConnection } from "../../test/pretend/net.ts";
import { writeRequest } from "../../test/pretend/requests.ts";
import { sameBytes } from "../../test/pretend/same-bytes.ts";
import { PretendSecondary } from "../../test/pretend/secondary.ts";
import { createComponent, dirtyArena, World } from "../../test/pretend/world.ts";
import { encodeFrame } from "../wire/frame.ts";
import { NvWriter } from "../wire/nv.ts";
import { PrimaryEngine } from "./primary-engine.ts";
import { SecondaryEngine } from "./secondary-engine.ts";

const ARENA = dirtyArena();
const DATA = new Uint8Array(4096).fill(3);

/** A first answer from before there were versions. */
const UNNUMBERED = encodeFrame(
  1,
  new NvWriter().bytes("token", new Uint8Array(16).fill(7)).finish(),
);

for (const [what, answer] of [
  ["says version 1", { version: 1 }],
  ["says no version", { version: 1, s1: UNNUMBERED }],
] as const) {
  test(`a memsync primary speaks fullsync to a secondary that ${what}, and the data arrive`, async () => {
    const world = new World({ arena: ARENA, settings: { replication: "memsync" } });
    const { datasize } = createComponent(world.disk, { resuid: 77n });
    const peer = new PretendSecondary(world.events, { datasize, ...answer });
    peer.automatic = false;
    world.net.onConnect = () => peer.connect();
    const { settings, disk, environment, host } = world;
    const engine = await world.until(PrimaryEngine.open(settings, disk, environment, host));
    await world.until(engine.start());
    const nbd = new NbdClient(world.events, world.net.dial(settings.export));
    expect.ok(await nbd.begin());

    const cookie = nbd.send({ type: NBD_WRITE, offset: 8192, payload: DATA });
    await world.events.settle();
    const [write] = peer.waiting;
    expect.equal(write!.header.version, 1, "every header says what was agreed upon");
    expect.equal(write!.header.memsync, false);
    expect.equal(nbd.answer(cookie), null, "nothing promises that the data are there");
    // One reply: `received` does not exist.
    peer.answerAll();
    await world.events.settle();
    expect.equal(nbd.answer(cookie)?.error, 0);
    sameBytes(peer.data.subarray(8192, 12288), DATA);
    peer.automatic = true;
    expect.equal((await nbd.done({ type: NBD_FLUSH })).error, 0);
    expect.equal(engine.report().status, "complete");
    // It keeps the connection alive as any primary does: version 1 knows KEEPALIVE.
    await world.clock.pass(25_000);
    expect.ok(peer.keepalives >= 2);
    expect.deepEqual(host.warnings, []);
    engine.stop(1_000);
    await world.clock.pass(2_000);
    expect.equal(host.exit?.code, 0);
  });
}

test("a secondary answers a primary of protocol 1 in protocol 1, with one reply to a write", async () => {
  const world = new World({ arena: ARENA });
  const { localoff } = createComponent(world.disk, { resuid: 77n });
  const a = pretendConnection(world.events, "tcp://primary (a)");
  const b = pretendConnection(world.events, "tcp://primary (b)");
  const hello = { version: 1, extensions: 0n, virgin: false, resuid: 77n } as const;
  const none = {
    localcnt: 0n,
    remotecnt: 0n,
    remarks: null,
    life: null,
    left: null,
    whole: false,
    invalidate: false,
  };
  const { settings, disk, environment, host } = world;
  const engine = await world.until(
    SecondaryEngine.open(settings, { ...hello, ...none }, disk, a.near, b.near, environment, host),
  );
  await world.until(engine.start());
  const request = writeRequest(1, 8192, DATA);
  request[0] = 1;
  a.send(request);
  await world.events.settle();
  expect.deepEqual(
    [...messagesOf(a.takeHeard()), ...messagesOf(b.takeHeard())].map(({ version }) => version),
    [1, 1],
  );
  sameBytes(disk.peek(localoff + 8192, 4096), DATA);
  expect.equal(host.exit, null);
  a.end();
  await world.events.settle();
});

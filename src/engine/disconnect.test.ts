// SPDX-License-Identifier: BSD-2-Clause
/** A primary that operators disconnect and connect, and whose copies they hold. */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import { PretendSecondary } from "../../test/pretend/secondary.ts";
import { createComponent, dirtyArena, World } from "../../test/pretend/world.ts";
import { EXT_STATE } from "../wire/extensions.ts";
import { PrimaryEngine } from "./primary-engine.ts";
import type { Orders } from "./worker-messages.ts";

const ARENA = dirtyArena();
const STANDING: Orders = { connected: true, resyncPaused: false, resyncRate: 0 };
const PARTED: Orders = { ...STANDING, connected: false };

interface Led {
  readonly world: World;
  readonly engine: PrimaryEngine;
  readonly peers: PretendSecondary[];
}

/** @param orders before it starts, in this order */
async function lead(...orders: readonly Orders[]): Promise<Led> {
  const world = new World({ arena: ARENA });
  const { datasize } = createComponent(world.disk, {
    resuid: 77n,
    state: "uptodate",
    sequence: 1n,
    synced: "written",
  });
  const peers: PretendSecondary[] = [];
  world.net.onConnect = () => {
    const last = peers.at(-1);
    if (last?.wantsSecond) return last.connect();
    const peer = new PretendSecondary(world.events, { datasize, extensions: EXT_STATE });
    peers.push(peer);
    return peer.connect();
  };
  const { settings, disk, environment, host } = world;
  const engine = await world.until(PrimaryEngine.open(settings, disk, environment, host));
  for (const each of orders) engine.obey(each);
  await world.until(engine.start());
  await world.events.settle();
  return { world, engine, peers };
}

test("a primary that is disconnected makes no attempt until it is connected, and then at once", async () => {
  const { world, engine, peers } = await lead();
  expect.equal(engine.report().status, "complete");
  engine.obey(PARTED);
  await world.events.settle();
  expect.equal(engine.report().status, "degraded");
  expect.deepEqual(world.host.events.slice(-1), ["disconnect"]);
  expect.match(world.host.warnings.splice(0).join(), /hastctl disconnect was typed on this node/);
  await world.clock.pass(60_000);
  expect.equal(peers.length, 1);
  expect.doesNotMatch(engine.report().notes.join(), /connect/, "hastd says it for both roles");
  engine.obey(STANDING);
  await world.events.settle();
  expect.equal(peers.length, 2);
  expect.equal(engine.report().status, "complete");
});

test("a primary that starts disconnected serves at once, and asks nobody", async () => {
  const { world, engine, peers } = await lead(PARTED);
  await world.clock.pass(30_000);
  expect.equal(peers.length, 0);
  engine.obey(STANDING);
  await world.events.settle();
  expect.equal(engine.report().status, "complete");
});

test("what is ordered before the start counts at the start: the last word", async () => {
  const { engine, peers } = await lead(PARTED, STANDING);
  expect.equal(peers.length, 1);
  expect.equal(engine.report().status, "complete");
});

test("a primary that has to ask its peer first does not serve while they are parted, and says why", async () => {
  const world = new World({ arena: ARENA });
  createComponent(world.disk, { resuid: 77n, state: "consistent", sequence: 1n });
  const { settings, disk, environment, host } = world;
  const engine = await world.until(
    PrimaryEngine.open(settings, disk, environment, host, "unknown"),
  );
  engine.obey(PARTED);
  expect.equal(await world.until(engine.admit()), false);
  await world.events.settle();
  expect.equal(world.host.exit?.code, 77);
  expect.match(
    world.host.exit?.reason ?? "",
    /disconnected by an operator. Here: hastctl connect r0/,
  );
});

// SPDX-License-Identifier: BSD-2-Clause
/** A secondary whose copy an operator throws away or calls outdated: when it may be, and what is stored first. */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import { messageAt } from "../../test/golden/vectors.ts";
import { type FarEnd, pretendConnection } from "../../test/pretend/net.ts";
import { createComponent, dirtyArena, World } from "../../test/pretend/world.ts";
import { decodeMetadata, METADATA_SIZE, type Metadata, stateOf } from "../metadata/block.ts";
import { EXT_STATE, EXT_WHOLE, encodeState, encodeWhole } from "../wire/extensions.ts";
import { decodeS2, type S2Accepted } from "../wire/handshake.ts";
import { Memory } from "./memory.ts";
import { outdate } from "./outdate.ts";
import { SecondaryEngine } from "./secondary-engine.ts";
import type { PeerHello, Resolution } from "./worker-messages.ts";

const ARENA = dirtyArena();
const RESUID = 77n;
const MAP_AT = 4096;
const MAP_SIZE = 512;
const OURS = EXT_STATE | EXT_WHOLE;

function component(metadata: Partial<Metadata> = {}): World {
  const world = new World({ arena: ARENA });
  createComponent(world.disk, {
    resuid: RESUID,
    localcnt: 1n,
    state: "uptodate",
    synced: "written",
    sequence: 1n,
    ...metadata,
  });
  return world;
}

function metadataOf(world: World): Metadata {
  return decodeMetadata(world.disk.peek(0, METADATA_SIZE), "r0");
}

function mapIsFull(world: World): boolean {
  return world.disk.peek(MAP_AT, MAP_SIZE).every((byte) => byte === 0xff);
}

/** A primary with equal counters connects. */
async function meet(
  hello: Partial<PeerHello>,
  metadata: Partial<Metadata> = {},
): Promise<{ world: World; engine: SecondaryEngine; a: FarEnd; answer: S2Accepted | null }> {
  const world = component(metadata);
  const a = pretendConnection(world.events, "tcp://primary (a)");
  const b = pretendConnection(world.events, "tcp://primary (b)");
  const whole: PeerHello = {
    version: 2,
    extensions: OURS,
    virgin: false,
    resuid: RESUID,
    localcnt: 0n,
    remotecnt: 1n,
    remarks: null,
    life: null,
    left: null,
    whole: true,
    invalidate: false,
    ...hello,
  };
  const { settings, disk, environment, host } = world;
  const engine = await world.until(
    SecondaryEngine.open(settings, whole, disk, a.near, b.near, environment, host),
  );
  void engine.start();
  await world.events.settle();
  const heard = a.takeHeard();
  const answer = heard.length === 0 ? null : decodeS2(messageAt(heard, 0)!.nv).answer;
  return { world, engine, a, answer: answer?.kind === "accepted" ? answer : null };
}

/** What it says when it is asked in advance. */
function asked(engine: SecondaryEngine): Resolution {
  let said: Resolution | null = null;
  engine.invalidate(true, (resolution) => {
    said = resolution;
  });
  expect.ok(said !== null);
  return said;
}

function reasonOf(resolution: Resolution | undefined): string {
  return resolution?.kind === "failed" ? resolution.reason : "";
}

test("BD-15, S-10: a copy is thrown away with a map of ones and `inconsistent`, both stored, and one handshake", async () => {
  const { world, answer, engine } = await meet({ invalidate: true });
  expect.equal(answer?.syncsrc, "primary");
  expect.equal(answer?.mapsize, MAP_SIZE);
  expect.equal(mapIsFull(world), true);
  expect.equal(stateOf(metadataOf(world)), "inconsistent");
  expect.equal(metadataOf(world).synced, null);
  expect.equal(metadataOf(world).localcnt, 1n, "the two go on counting");
  expect.equal(world.host.resyncAsked, 1, "the gate is asked");
  expect.equal(world.host.invalidations[0]?.kind, "done");
  expect.match(JSON.stringify(asked(engine)), /already thrown away.*"before":true/);
});

test("nothing is thrown away before the gate agrees, nor if it does not", async () => {
  const world = component();
  world.host.resyncRefusal = Promise.resolve("the gate /g refuses it");
  const a = pretendConnection(world.events, "tcp://primary (a)");
  const b = pretendConnection(world.events, "tcp://primary (b)");
  const hello: PeerHello = {
    version: 2,
    extensions: OURS,
    virgin: false,
    resuid: RESUID,
    localcnt: 0n,
    remotecnt: 1n,
    remarks: null,
    life: null,
    left: null,
    whole: true,
    invalidate: true,
  };
  const { settings, disk, environment, host } = world;
  const engine = await world.until(
    SecondaryEngine.open(settings, hello, disk, a.near, b.near, environment, host),
  );
  void engine.start();
  await world.events.settle();
  expect.equal(stateOf(metadataOf(world)), "uptodate");
  expect.equal(mapIsFull(world), false);
  expect.match(world.host.exit?.reason ?? "", /the gate \/g refuses it/);
});

test("the only good copy is not thrown away: of a primary that is stale, says nothing, or is FreeBSD's", async () => {
  const cases: readonly (readonly [Partial<PeerHello>, Partial<Metadata>, RegExp])[] = [
    [{ whole: false }, {}, /the primary's own copy is not whole/],
    [{ whole: true }, { localcnt: 2n }, /the primary's own copy is not whole/],
    [{ extensions: EXT_STATE, whole: true }, {}, /FreeBSD's hastd, or an older one/],
    [{ extensions: 0n, whole: false }, {}, /hastctl create --force --datasize \d+/],
  ];
  for (const [hello, metadata, reason] of cases) {
    const { world, answer, engine } = await meet({ invalidate: true, ...hello }, metadata);
    expect.match(reasonOf(world.host.invalidations[0]), reason);
    expect.notEqual(answer, null, "and the connection is as good as any other");
    expect.equal(mapIsFull(world), false);
    expect.notEqual(stateOf(metadataOf(world)), "inconsistent");
    expect.match(reasonOf(asked(engine)), reason);
  }
});

test("a primary that says later that its copy is not whole is believed, and again when it is", async () => {
  const { world, engine, a } = await meet({});
  expect.equal(asked(engine).kind, "done");
  expect.equal(engine.report().bound, false);
  a.send(encodeWhole(2, false));
  await world.events.settle();
  expect.match(reasonOf(asked(engine)), /not whole/);
  expect.equal(engine.report().bound, true);
  a.send(encodeWhole(2, true));
  await world.events.settle();
  expect.equal(asked(engine).kind, "done");
});

test("S-13: S2 says whether this copy is called outdated, a mix, or promoted by force, if that is understood", async () => {
  expect.equal((await meet({}, { state: "outdated" })).answer?.outdated, true);
  // Its first flush failed, say, when nothing was marked any more.
  expect.equal((await meet({}, { state: "inconsistent" })).answer?.outdated, true);
  const forced = { state: "consistent", forced: { state: "outdated", at: 1 } } as const;
  const { answer, world, a } = await meet({}, forced);
  expect.equal(answer?.outdated, true);
  a.send(encodeState(2, 1, "uptodate", 0n, 0n, "written"));
  await world.events.settle();
  expect.equal(metadataOf(world).forced, undefined);
  expect.equal((await meet({}, {})).answer?.outdated, false);
  const older = await meet({ extensions: EXT_STATE }, { state: "outdated" });
  expect.equal(older.answer?.outdated, false);
});

/** Carried out on a component whose copy has this word. */
async function outdated(
  state: Metadata["state"],
  dryRun = false,
): Promise<{ world: World; before: Metadata; said: Resolution }> {
  const fresh = state === "new" ? { resuid: 0n, localcnt: 0n } : {};
  const world = component({ state, ...fresh });
  const before = metadataOf(world);
  const options = { resource: "r0", dryRun, warn: () => {} };
  const said = await world.until(outdate(world.disk, new Memory(ARENA), options));
  return { world, before, said };
}

test("S-2: outdate stores one word, and only where there is something to fall behind", async () => {
  for (const state of ["uptodate", "consistent"] as const) {
    const dry = await outdated(state, true);
    expect.match(JSON.stringify(dry.said), /would be outdated/);
    expect.equal(metadataOf(dry.world).state, state);
    const { world, before, said } = await outdated(state);
    expect.match(JSON.stringify(said), /is outdated/);
    const after = metadataOf(world);
    expect.equal(after.state, "outdated");
    expect.deepEqual({ ...after, state, sequence: before.sequence }, before);
  }
  for (const state of ["outdated", "inconsistent"] as const) {
    const { world, before, said } = await outdated(state);
    expect.match(JSON.stringify(said), /already .*"before":true/);
    expect.equal(metadataOf(world).state, before.state);
  }
  expect.match(reasonOf((await outdated("new")).said), /hastctl role secondary r0/);
});

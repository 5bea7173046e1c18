// SPDX-License-Identifier: BSD-2-Clause
/** The question before a resync overwrites this node's copy, in both roles. */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import { messageAt } from "../../test/golden/vectors.ts";
import { NBD_READ, NbdClient } from "../../test/pretend/nbd-client.ts";
import { type FarEnd, pretendConnection } from "../../test/pretend/net.ts";
import { sameBytes } from "../../test/pretend/same-bytes.ts";
import { PretendSecondary } from "../../test/pretend/secondary.ts";
import { createComponent, dirtyArena, World } from "../../test/pretend/world.ts";
import { decodeMetadata, METADATA_SIZE, type Metadata } from "../metadata/block.ts";
import { EXT_STATE, EXT_WHOLE, encodeState } from "../wire/extensions.ts";
import { decodeS2, type S2 } from "../wire/handshake.ts";
import { PrimaryEngine } from "./primary-engine.ts";
import { SecondaryEngine } from "./secondary-engine.ts";
import type { PeerHello } from "./worker-messages.ts";

const ARENA = dirtyArena();
const RESUID = 77n;
const MAP_AT = 4096;

// ---- as secondary -------------------------------------------------------------------------------

interface Met {
  readonly world: World;
  readonly engine: SecondaryEngine;
  readonly a: FarEnd;
  readonly before: Uint8Array;
  /** What was answered, or null so far. */
  answer(): S2 | null;
}

async function meet(
  hello: Partial<PeerHello>,
  metadata: Partial<Metadata> = {},
  prepare: (world: World) => void = () => undefined,
): Promise<Met> {
  const world = new World({ arena: ARENA });
  createComponent(world.disk, { resuid: RESUID, state: "consistent", sequence: 1n, ...metadata });
  prepare(world);
  return await reconnect(world, hello);
}

/** A primary connects to the component as it is now. */
async function reconnect(world: World, hello: Partial<PeerHello>): Promise<Met> {
  const before = contentOf(world);
  const a = pretendConnection(world.events, "tcp://primary (a)");
  const b = pretendConnection(world.events, "tcp://primary (b)");
  const whole: PeerHello = {
    version: 2,
    extensions: EXT_STATE,
    virgin: false,
    resuid: RESUID,
    localcnt: 0n,
    remotecnt: 0n,
    remarks: null,
    life: null,
    left: null,
    whole: false,
    invalidate: false,
    ...hello,
  };
  const { settings, disk, environment, host } = world;
  const engine = await world.until(
    SecondaryEngine.open(settings, whole, disk, a.near, b.near, environment, host),
  );
  void engine.start();
  await world.events.settle();
  let answer: S2 | null = null;
  return {
    world,
    engine,
    a,
    before,
    answer: () => {
      const heard = a.takeHeard();
      if (heard.length > 0) answer = decodeS2(messageAt(heard, 0)!.nv).answer;
      return answer;
    },
  };
}

/** The next worker finds what is on that disk now. */
function later({ disk }: World): World {
  const world = new World({ arena: ARENA });
  world.disk.poke(0, disk.peek(0, disk.mediaSize));
  return world;
}

/** The map and the data. */
function contentOf({ disk }: World): Uint8Array {
  return disk.peek(METADATA_SIZE, disk.mediaSize - METADATA_SIZE).slice();
}

function metadataOf({ disk }: World): Metadata {
  return decodeMetadata(disk.peek(0, METADATA_SIZE), "r0");
}

/** When this copy is the target, and when it is not: what the primary says, what we say, asked? */
const CASES: readonly (readonly [
  string,
  Partial<PeerHello>,
  Partial<Metadata>,
  (world: World) => void,
  boolean,
])[] = [
  ["a primary in step", {}, {}, () => undefined, false],
  ["a primary that wrote alone", { localcnt: 1n }, {}, () => undefined, true],
  ["a map of our own", {}, {}, (world) => world.disk.poke(MAP_AT, Uint8Array.of(1)), true],
  ["we wrote alone", {}, { localcnt: 1n }, () => undefined, false],
  ["a component created anew", {}, { resuid: 0n, state: "new" }, () => undefined, true],
  [
    "a copy that is a mixture already",
    { localcnt: 1n },
    { state: "inconsistent" },
    () => undefined,
    false,
  ],
];

for (const [what, hello, metadata, prepare, asked] of CASES) {
  test(`${what}: the gate is ${asked ? "" : "not "}asked before this copy is overwritten`, async () => {
    const { world, answer } = await meet(hello, metadata, prepare);
    expect.equal(world.host.resyncAsked, asked ? 1 : 0);
    expect.equal(answer()?.kind, "accepted");
  });
}

test("nothing is written and nothing answered before the gate has agreed to fill a new copy", async () => {
  const said = Promise.withResolvers<string | null>();
  const { world, answer, before } = await meet({}, { resuid: 0n, state: "new" }, (it) => {
    it.host.resyncRefusal = said.promise;
  });
  expect.equal(answer(), null);
  sameBytes(contentOf(world), before);
  const { resuid, state } = metadataOf(world);
  expect.deepEqual({ resuid, state }, { resuid: 0n, state: "new" });
  said.resolve(null);
  await world.events.settle();
  expect.equal(answer()?.kind, "accepted");
});

test("a gate that refuses: the primary hears why, this node's operator too, and no data is written", async () => {
  const { world, answer, before } = await meet({ localcnt: 1n }, {}, (it) => {
    it.host.resyncRefusal = Promise.resolve("the gate /g refuses it (exit code 1): no space");
  });
  const heard = answer();
  expect.ok(heard?.kind === "refused");
  expect.equal(
    heard.errmsg,
    "Synchronization refused on the other node: the gate /g refuses it (exit code 1): no space",
  );
  expect.equal(world.host.exit?.code, 78);
  expect.match(world.host.exit.reason, /no space/);
  expect.match(world.host.errors.join(), /no space/);
  sameBytes(contentOf(world), before);
});

test("a secondary that is stopped while the gate thinks ends at once, and the answer changes nothing", async () => {
  const said = Promise.withResolvers<string | null>();
  const { world, engine, before } = await meet({ localcnt: 1n }, {}, (it) => {
    it.host.resyncRefusal = said.promise;
  });
  engine.stop();
  await world.events.settle();
  expect.equal(world.host.exit?.code, 0);
  said.resolve(null);
  await world.events.settle();
  sameBytes(contentOf(world), before);
});

test("S-2: a secondary that has heard that the primary went on alone keeps that, whatever its gate says, and when", async () => {
  for (const [who, extensions] of [
    ["ours", EXT_STATE],
    ["FreeBSD", 0n],
  ] as const) {
    for (const state of ["consistent", "uptodate"] as const) {
      const said = Promise.withResolvers<string | null>();
      const { world, engine, before } = await meet(
        { extensions, localcnt: 1n },
        { state },
        (it) => {
          it.host.resyncRefusal = said.promise;
        },
      );
      expect.equal(world.host.resyncAsked, 1);
      expect.equal(world.host.copies.at(-1)?.state, "outdated", `${who}, ${state}`);
      engine.stop(); // the primary has gone, and this node is to take over
      await world.events.settle();
      expect.equal(world.host.exit?.code, 0);
      sameBytes(contentOf(world), before);
      const { resuid, localcnt, remotecnt } = metadataOf(world);
      expect.deepEqual([resuid, localcnt, remotecnt], [RESUID, 0n, 0n]);

      const next = later(world);
      const { settings, disk, environment, host } = next;
      next.net.onConnect = () => "connection refused";
      const opened = PrimaryEngine.open(settings, disk, environment, host, "known");
      expect.equal(await next.until((await next.until(opened)).admit()), false);
      expect.equal(host.exit?.code, 77);
      expect.match(host.exit.reason, /this copy is outdated.*hastctl role --force primary r0$/);
    }
  }
});

test("S-2: that is on disk before the gate is asked, and one that cannot store it answers nothing", async () => {
  let isOpen = false;
  const failing = await meet({ localcnt: 1n }, {}, ({ disk }) => {
    disk.fail = ({ op, offset }) => {
      if (op === "read" && offset === MAP_AT) isOpen = true;
      return isOpen && op === "write" ? 5 : 0;
    };
  });
  expect.equal(failing.world.host.resyncAsked, 0);
  expect.equal(failing.world.host.exit?.code, 74);
  expect.equal(failing.answer(), null);
});

test("S-2: one whose gate has said no, and later yes, is told when it is whole again", async () => {
  const said = Promise.resolve("the gate /g refuses it");
  const { world } = await meet({ localcnt: 1n }, { state: "uptodate" }, (it) => {
    it.host.resyncRefusal = said;
  });
  expect.equal(world.host.exit?.code, 78);
  expect.equal(metadataOf(world).state, "outdated");
  const again = await reconnect(later(world), { localcnt: 1n, extensions: EXT_STATE | EXT_WHOLE });
  const answer = again.answer();
  expect.ok(answer?.kind === "accepted");
  expect.equal(answer.outdated, true, "so that the primary says so even if nothing was copied");
  expect.deepEqual([answer.syncsrc, answer.localcnt, answer.remotecnt], ["primary", 0n, 0n]);
  again.a.send(encodeState(2, 1, "uptodate", 1n));
  await again.world.events.settle();
  const { state, remotecnt } = metadataOf(again.world);
  expect.deepEqual({ state, remotecnt }, { state: "uptodate", remotecnt: 1n });
});

// ---- as primary ---------------------------------------------------------------------------------

/** The first byte of each copy. */
const OLDER = 0x11;
const NEWER = 0x99;

interface Led {
  readonly world: World;
  readonly engine: PrimaryEngine;
  readonly peers: PretendSecondary[];
  /** Whether the peer can be reached from now on. */
  readonly reach: (reachable: boolean) => void;
  /** What a client's READ has got, or null so far. */
  readonly first: () => number | null;
}

/** A primary whose peer wrote alone: what the peer has is newer. */
async function lead(
  refusal: Promise<string | null>,
  metadata: Partial<Metadata> = {},
  reachable = true,
): Promise<Led> {
  const world = new World({ arena: ARENA });
  world.host.resyncRefusal = refusal;
  const { datasize, localoff } = createComponent(world.disk, {
    resuid: RESUID,
    state: "uptodate",
    sequence: 1n,
    ...metadata,
  });
  world.disk.poke(localoff, new Uint8Array(datasize).fill(OLDER));
  const peers: PretendSecondary[] = [];
  world.net.onConnect = () => {
    if (!reachable) return "connection refused";
    const last = peers.at(-1);
    if (last?.wantsSecond) return last.connect();
    const map = new Uint8Array(512).fill(1, 0, 1);
    const options = { datasize, localcnt: 1n, syncsrc: "secondary", map } as const;
    const peer = new PretendSecondary(world.events, { ...options, extensions: EXT_STATE });
    peer.data.fill(NEWER);
    peers.push(peer);
    return peer.connect();
  };
  const { settings, disk, environment, host } = world;
  const engine = await world.until(PrimaryEngine.open(settings, disk, environment, host));
  await world.until(engine.start());
  const client = new NbdClient(world.events, world.net.dial(settings.export));
  await client.begin();
  const read = client.send({ type: NBD_READ, offset: 0, length: 512 });
  await world.events.settle();
  return {
    world,
    engine,
    peers,
    reach: (now) => {
      reachable = now;
    },
    first: () => client.answer(read)?.data[0] ?? null,
  };
}

test("a primary asks before it takes the peer's newer data", async () => {
  const said = Promise.withResolvers<string | null>();
  const { world, engine, peers } = await lead(said.promise);
  expect.equal(world.host.resyncAsked, 1);
  expect.equal(engine.report().status, "degraded");
  expect.equal(peers[0]!.heard.length, 0);
  said.resolve(null);
  await world.events.settle();
  expect.equal(engine.report().status, "complete");
  expect.ok(world.host.events.includes("connect"));
});

test("a primary whose gate refuses does not connect, and says why", async () => {
  const { world, engine, peers } = await lead(Promise.resolve("the gate /g refuses it"));
  expect.equal(engine.report().status, "degraded");
  expect.match(
    engine.report().notes.join("\n"),
    /not connected: Synchronization refused on this node: the gate \/g refuses it/,
  );
  await world.clock.pass(29_000);
  expect.equal(peers.length, 1);
});

test("a primary that serves its own copy does not have it replaced under its clients, and tries again seldom", async () => {
  const { world, engine, peers, reach, first } = await lead(Promise.resolve(null), {}, false);
  expect.equal(first(), OLDER);
  reach(true);
  await world.clock.pass(4_000);
  expect.equal(peers.length, 1);
  const before = metadataOf(world);
  expect.equal(engine.core.connected, false);
  expect.equal(engine.core.stale, false);
  expect.match(
    engine.report().notes.join("\n"),
    /refused on this node: the other node went on without this one.*here: hastctl role init (\S+) && hastctl role primary \1/,
  );
  await world.clock.pass(26_000);
  expect.equal(peers.length, 1);
  await world.clock.pass(5_000);
  expect.equal(peers.length, 2);
  expect.equal(world.host.resyncAsked, 0, "no gate can allow it");
  expect.deepEqual(metadataOf(world), before);
});

test("leave that comes after the peer has lost patience is for the next connection, and nothing is served before", async () => {
  const said = Promise.withResolvers<string | null>();
  const { world, engine, peers, first } = await lead(said.promise);
  await world.clock.pass(10_000);
  peers[0]!.leave();
  await world.clock.pass(1_000);
  expect.equal(first(), null);
  said.resolve(null);
  await world.clock.pass(3_000);
  expect.equal(peers.length, 2);
  expect.equal(world.host.resyncAsked, 1);
  expect.equal(engine.report().status, "complete");
  expect.equal(first(), NEWER);
});

test("leave that nobody has used for a minute is none any more, and clients wait no longer", async () => {
  const said = Promise.withResolvers<string | null>();
  const { world, engine, peers, reach, first } = await lead(said.promise);
  peers[0]!.leave();
  await world.events.settle();
  reach(false);
  said.resolve(null);
  await world.clock.pass(59_000);
  expect.equal(first(), null);
  await world.clock.pass(12_000);
  expect.equal(first(), OLDER);
  reach(true);
  await world.clock.pass(12_000);
  expect.equal(peers.length, 2);
  expect.equal(engine.core.connected, false);
});

test("a primary that is disconnected by its operator while the gate thinks serves its own copy", async () => {
  const { world, engine, first } = await lead(new Promise(() => undefined));
  await world.clock.pass(10_000);
  expect.equal(first(), null);
  engine.obey({ connected: false, resyncPaused: false, resyncRate: 0 });
  await world.events.settle();
  expect.equal(first(), OLDER);
});

test("a primary whose copy is a mixture already goes on without asking", async () => {
  const { world, engine } = await lead(Promise.resolve("no"), {
    state: "inconsistent",
    prevrole: "primary",
  });
  expect.equal(world.host.resyncAsked, 0);
  expect.equal(engine.report().status, "complete");
});

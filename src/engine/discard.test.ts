// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { createComponent, dirtyArena, World } from "../../test/pretend/world.ts";
import { decodeMetadata, METADATA_SIZE, type Metadata } from "../metadata/block.ts";
import { discardLocal } from "./discard.ts";
import { Memory } from "./memory.ts";
import type { CopyFacts } from "./worker-messages.ts";

const ARENA = dirtyArena();
const MAP_AT = 4096;
const MAP_SIZE = 512;
const KEEPER: CopyFacts = {
  resuid: 77n,
  localcnt: 3n,
  remotecnt: 0n,
  remarks: { dirtyExtents: 2, synced: "written", aloneSince: null, lacking: null },
};

/** A node that went on alone, two extents marked. */
function divergedNode(changes: Partial<Metadata> = {}): World {
  const world = new World({ arena: ARENA });
  createComponent(world.disk, {
    resuid: 77n,
    localcnt: 2n,
    state: "consistent",
    synced: "written",
    sequence: 5n,
    aloneSince: 1_700_000_000_000,
    ...changes,
  });
  world.disk.poke(MAP_AT, Uint8Array.of(0b101));
  return world;
}

function discard(world: World, dryRun = false, keeper = KEEPER): ReturnType<typeof discardLocal> {
  const options = { resource: "r0", keeper, dryRun, warn: () => {} };
  return world.until(discardLocal(world.disk, new Memory(ARENA), options));
}

function metadataOf(world: World): Metadata {
  return decodeMetadata(world.disk.peek(0, METADATA_SIZE), "r0");
}

function mapOf(world: World): Uint8Array {
  return world.disk.peek(MAP_AT, MAP_SIZE);
}

test("S-10: the counter that the other node expects is stored, and the map stays as it is", async () => {
  const world = divergedNode();
  const map = mapOf(world);
  expect.equal((await discard(world)).plan, "discard");
  const { localcnt, state, synced, aloneSince } = metadataOf(world);
  expect.deepEqual(
    { localcnt, state, synced, aloneSince },
    { localcnt: 0n, state: "outdated", synced: "written", aloneSince: null },
  );
  expect.deepEqual(mapOf(world), map);
});

test("S-10: where the maps' union is not enough, every extent is marked", async () => {
  const world = divergedNode({ synced: null });
  const { lines } = await discard(world);
  expect.match(lines.join("\n"), /everything, .*because this node has no record/);
  expect.ok(mapOf(world).every((byte) => byte === 0xff));
  expect.equal(metadataOf(world).localcnt, 0n);
});

test("S-10: a dry run says the same and writes neither metadata nor map", async () => {
  for (const synced of ["written", null] as const) {
    const world = divergedNode({ synced });
    const map = mapOf(world);
    const { plan, lines } = await discard(world, true);
    expect.equal(plan, "discard");
    expect.match(lines.join("\n"), /to be thrown away, the changes of this node: 2 extents/);
    const { localcnt, state, aloneSince } = metadataOf(world);
    expect.deepEqual([localcnt, state, aloneSince], [2n, "consistent", 1_700_000_000_000]);
    expect.deepEqual(mapOf(world), map);
  }
});

test("S-10: cut short at any of its steps, it has not begun, or the map holds all of it", async () => {
  for (const synced of ["written", null] as const) {
    let reached = false;
    for (let cut = 0; !reached; cut++) {
      expect.ok(cut < 20);
      const world = divergedNode({ synced });
      let steps = 0;
      world.disk.fail = ({ op }) => (op !== "read" && steps++ >= cut ? 5 : 0);
      await discard(world).then(
        () => {
          reached = true;
        },
        (error: Error) => expect.match(error.message, /Input\/output error/),
      );
      const { localcnt, state } = metadataOf(world);
      if (localcnt === 2n) {
        expect.equal(state, "consistent");
        continue;
      }
      expect.deepEqual([localcnt, state], [0n, "outdated"]);
      if (synced === null) expect.ok(mapOf(world).every((byte) => byte === 0xff));
    }
  }
});

test("S-10: the only good copy is not thrown away, and the operator hears which one that is", async () => {
  const keeper: CopyFacts = { ...KEEPER, remarks: { ...KEEPER.remarks!, lacking: "outdated" } };
  for (const dryRun of [true, false]) {
    const world = divergedNode({ synced: null });
    const map = mapOf(world);
    const { plan, lines } = await discard(world, dryRun, keeper);
    expect.equal(plan, "refuse");
    expect.match(lines.join(), /other node's copy is outdated.* here: hastctl role primary r0/);
    expect.deepEqual([metadataOf(world).state, mapOf(world)], ["consistent", map]);
  }
});

test("a copy that lacks nothing but what the other has discards nothing", async () => {
  const world = divergedNode({ localcnt: 0n });
  const { plan, lines } = await discard(world);
  expect.equal(plan, "nothing");
  expect.match(lines.join(), /there is nothing to discard/);
  expect.equal(metadataOf(world).state, "consistent");
});

// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import type { PretendDisk } from "../../test/pretend/disk.ts";
import { createComponent, dirtyArena, World } from "../../test/pretend/world.ts";
import { type CopyState, decodeMetadata, METADATA_SIZE, type Metadata } from "../metadata/block.ts";
import {
  Component,
  type ComponentHandler,
  MAP_STAGING_SIZE,
  type MapChanges,
} from "./component.ts";
import { Memory } from "./memory.ts";

const ARENA = dirtyArena();

class Handler implements ComponentHandler {
  readonly calls: string[] = [];
  slotDone(slot: number, errno: number): void {
    this.calls.push(`slot ${slot}: ${errno}`);
  }
  recordWritten(errno: number): void {
    this.calls.push(`record: ${errno}`);
  }
  mapWritten(errno: number): void {
    this.calls.push(`map: ${errno}`);
  }
  flushed(errno: number): void {
    this.calls.push(`flushed: ${errno}`);
  }
  batchEnd(): void {
    this.calls.push("batch end");
  }
}

/** Runs of a map that hold one byte each, repeated. */
class Runs implements MapChanges {
  readonly #runs: readonly { readonly offset: number; readonly length: number }[];
  #next = 0;
  takenLength = 0;
  readonly persisted: number[] = [];

  constructor(...runs: readonly { readonly offset: number; readonly length: number }[]) {
    this.#runs = runs;
  }

  takeChanges(staging: Uint8Array): number {
    const run = this.#runs[this.#next];
    if (run === undefined) return -1;
    this.#next++;
    this.takenLength = Math.min(run.length, staging.length);
    staging.fill(this.#next, 0, this.takenLength);
    return run.offset;
  }

  changesPersisted(offset: number, staging: Uint8Array, length: number): void {
    expect.ok(staging.every((byte) => byte === staging[0]));
    expect.equal(staging.length, length);
    this.persisted.push(offset);
  }
}

async function open(
  options: ConstructorParameters<typeof World>[0] & { readonly flushErrno?: number } = {},
): Promise<{ component: Component; handler: Handler; world: World; disk: PretendDisk }> {
  const world = new World({ arena: ARENA, ...options, completion: "later" });
  createComponent(world.disk, { extentsize: 4096 });
  const component = new Component(world.disk, new Memory(ARENA));
  world.disk.fail = ({ op }) => (op === "flush" ? (options.flushErrno ?? 0) : 0);
  await world.until(component.load("r0", () => {}));
  const handler = new Handler();
  component.attach(handler);
  world.disk.history.length = 0;
  world.disk.completion = options.completion ?? "inside";
  return { component, handler, world, disk: world.disk };
}

test("load() reads the metadata, and where map and data lie", async () => {
  const { component } = await open({ completion: "later" });
  expect.equal(component.metadata.resource, "r0");
  expect.equal(component.layout.mapOffset, 4096);
  expect.equal(component.layout.localoff, 4608);
});

test("load() says what is wrong with media that is too small for metadata", async () => {
  const world = new World({ arena: ARENA, mediaSize: 2048 });
  const component = new Component(world.disk, new Memory(ARENA));
  await expect.rejects(world.until(component.load("r0", () => {})), { code: "does-not-fit" });
});

test("load() names the place and the reason of a failed read", async () => {
  const world = new World({ arena: ARENA });
  createComponent(world.disk);
  world.disk.fail = ({ op }) => (op === "read" ? 5 : 0);
  const component = new Component(world.disk, new Memory(ARENA));
  await expect.rejects(
    world.until(component.load("r0", () => {})),
    /offset 0 .*Input\/output error/,
  );
  world.disk.fail = ({ op }) => (op === "flush" ? 5 : 0);
  await expect.rejects(
    world.until(component.load("r0", () => {})),
    /flushing .*Input\/output error/,
  );
});

test("loadMap() reads a map that is longer than its staging memory", async () => {
  const mediaSize = 24 * 1024 * 1024 * 1024;
  const { component, disk, world } = await open({ mediaSize, completion: "later" });
  const { mapSize, mapOffset } = component.layout;
  expect.ok(mapSize > 2 * MAP_STAGING_SIZE);
  disk.poke(
    mapOffset,
    new Uint8Array(mapSize).map((_byte, index) => index >> 9),
  );
  const map = await world.until(component.loadMap());
  expect.equal(map.length, mapSize);
  expect.ok(map.every((byte, index) => byte === ((index >> 9) & 0xff)));
});

test("writeRecord() has both copies stable, one after the other, before recordWritten()", async () => {
  const { component, handler, disk, world } = await open({ completion: "held" });
  component.writeRecord({ localcnt: 7n, state: "uptodate" });
  disk.submit();
  for (const step of ["write 2048", "flush 0", "write 0", "flush 0"]) {
    expect.deepEqual(
      disk.running.map(({ op, offset }) => `${op} ${offset}`),
      [step],
    );
    expect.deepEqual(handler.calls, []);
    disk.release();
  }
  expect.deepEqual(handler.calls, ["record: 0"]);
  await world.events.settle();
  const stored = decodeMetadata(disk.peek(0, METADATA_SIZE), "r0");
  expect.equal(stored.localcnt, 7n);
  expect.equal(stored.sequence, 1n);
  component.writeRecord({ localcnt: 8n });
  disk.submit();
  for (let step = 0; step < 3; step++) disk.release();
  expect.equal(decodeMetadata(disk.peek(0, METADATA_SIZE), "r0").sequence, 2n);
});

test("BD-17: a metadata block whose write or flush failed is not called stable", async () => {
  for (const failing of ["write", "flush"]) {
    const { component, handler, disk } = await open();
    disk.fail = ({ op }) => (op === failing ? 5 : 0);
    component.writeRecord({ localcnt: 7n, state: "uptodate" });
    disk.submit();
    expect.deepEqual(handler.calls, ["record: 5"]);
  }
});

test("writeMap() writes every run, flushes once, and only then says what is stable", async () => {
  const { component, handler, disk } = await open();
  const runs = new Runs({ offset: 0, length: 512 }, { offset: 0, length: 512 });
  disk.fail = ({ op }) => {
    if (op === "flush") expect.deepEqual(runs.persisted, []);
    return 0;
  };
  component.writeMap(runs, true);
  disk.submit();
  expect.deepEqual(handler.calls, ["map: 0"]);
  expect.deepEqual(runs.persisted, [0, 0]);
  expect.deepEqual(
    disk.history.map(({ op }) => op),
    ["write", "write", "flush"],
  );
  component.writeMap(new Runs({ offset: 0, length: 512 }), false);
  disk.submit();
  expect.deepEqual(
    disk.history.slice(3).map(({ op }) => op),
    ["write"],
    "metaflush off",
  );
});

test("BD-11: changes of the map are written where the map lies, and nowhere else", async () => {
  const { component, disk } = await open({ mediaSize: 64 * 1024 * 1024 });
  const { mapOffset, mapSize, localoff } = component.layout;
  expect.ok(mapSize >= 1024);
  const before = disk.peek(0, mapOffset);
  disk.poke(mapOffset, new Uint8Array(localoff - mapOffset));
  component.writeMap(
    new Runs({ offset: 0, length: 512 }, { offset: mapSize - 512, length: 512 }),
    true,
  );
  disk.submit();
  const map = new Uint8Array(mapSize).fill(1, 0, 512).fill(2, mapSize - 512);
  expect.deepEqual(disk.peek(mapOffset, mapSize), map);
  expect.deepEqual(disk.peek(0, mapOffset), before, "the metadata");
});

test("a map write or flush that fails makes nothing stable", async () => {
  for (const failing of ["write", "flush"]) {
    const { component, handler, disk } = await open();
    const runs = new Runs({ offset: 0, length: 512 });
    disk.fail = ({ op }) => (op === failing ? 5 : 0);
    component.writeMap(runs, true);
    disk.submit();
    expect.deepEqual(handler.calls, ["map: 5"]);
    expect.deepEqual(runs.persisted, []);
  }
});

test("S-1: one flush at a time: the next one begins when it is known how the one before has ended", async () => {
  const { component, handler, disk } = await open({ completion: "held" });
  const running = (): string[] => disk.running.map(({ op }) => op);
  component.writeMap(new Runs(), true);
  component.flush();
  component.flushSlot(3);
  disk.submit();
  disk.fail = () => 5;
  expect.deepEqual(running(), ["flush"]);
  disk.release();
  expect.deepEqual(handler.calls, ["map: 5"]);
  disk.fail = () => 0;
  for (const call of ["flushed: 0", "slot 3: 0"]) {
    expect.deepEqual(running(), ["flush"]);
    disk.release();
    expect.equal(handler.calls.at(-1), call);
  }
  expect.deepEqual(running(), []);
});

test("S-15: a device without a cache flushes by doing nothing; one that has flushed before fails", async () => {
  for (const errno of [25, 95, 22]) {
    for (const has of [false, true]) {
      const { component, handler, disk } = await open({
        ...(has ? {} : { flushErrno: errno }),
      });
      disk.fail = ({ op }) => (op === "flush" ? errno : 0);
      component.writeMap(new Runs({ offset: 0, length: 512 }), true);
      disk.submit();
      component.writeRecord({ state: "uptodate" });
      disk.submit();
      component.flushSlot(3);
      disk.submit();
      const ended = has ? 5 : 0;
      expect.deepEqual(handler.calls, [`map: ${ended}`, `record: ${ended}`, `slot 3: ${ended}`]);
    }
  }
});

test("S-1: what was written before a flush failed is not called stable by the next one", async () => {
  for (const what of ["map", "record"]) {
    const { component, handler, disk } = await open({ completion: "held" });
    const runs = new Runs({ offset: 0, length: 512 });
    component.flushSlot(3);
    if (what === "map") component.writeMap(runs, true);
    else component.writeRecord({ state: "uptodate" });
    disk.submit();
    disk.release(({ op }) => op === "write");
    disk.fail = () => 5;
    disk.release();
    disk.fail = () => 0;
    while (handler.calls.length < 2 && disk.release() > 0);
    expect.deepEqual(handler.calls, ["slot 3: 5", `${what}: 5`]);
    expect.deepEqual(runs.persisted, []);
  }
});

test("requests of slots lie behind localoff", async () => {
  const { component, handler, disk } = await open();
  ARENA.fill(0x77, 600_000, 600_512);
  component.write(3, 600_000, 512, 1024);
  component.read(4, 700_000, 512, 1024);
  component.zero(5, 4096, 8192, true);
  component.flush();
  disk.submit();
  expect.deepEqual(handler.calls, ["slot 3: 0", "slot 4: 0", "slot 5: 0", "flushed: 0"]);
  expect.equal(disk.peek(4608 + 1024, 1)[0], 0x77);
  expect.equal(ARENA[700_511], 0x77);
  expect.deepEqual(
    disk.history.map(({ offset }) => offset),
    [5632, 5632, 8704, 0],
  );
});

test("close() waits for what is under way and starts nothing that would follow from it", async () => {
  const { component, handler, disk, world } = await open({ completion: "held" });
  component.writeMap(new Runs({ offset: 0, length: 512 }, { offset: 0, length: 512 }), true);
  component.writeRecord({ state: "uptodate" });
  component.write(1, 600_000, 512, 0);
  disk.submit();
  let closed = false;
  component.close(() => {
    closed = true;
  });
  await world.events.settle();
  expect.equal(closed, false);
  expect.equal(disk.release(), 3);
  await world.events.settle();
  expect.equal(closed, true);
  expect.deepEqual(handler.calls, [], "nobody is told any more");
});

test("BD-17: a damaged block is used from its copy, repaired, and told of", async () => {
  const { component, disk } = await open({ completion: "inside" });
  component.writeRecord({ localcnt: 7n, state: "uptodate" });
  disk.submit();
  const whole = disk.peek(0, METADATA_SIZE);
  const broken = whole.slice();
  broken[100]! ^= 1;
  disk.poke(0, broken);
  disk.abandon(ARENA);
  const told: string[] = [];
  const next = new Component(disk, new Memory(ARENA));
  await next.load("r0", (text) => told.push(text));
  expect.equal(next.metadata.localcnt, 7n);
  expect.match(told.join(), /\/pretend\/disk: the metadata block is damaged .*its copy is used/);
  expect.deepEqual(disk.peek(0, METADATA_SIZE), whole);
});

test("S-21: after an unclean stop without metaflush every extent is marked, and that is said", async () => {
  const { component, disk } = await open({ completion: "inside" });
  component.writeRecord({ state: "uptodate", unflushed: true });
  disk.submit();
  disk.abandon(ARENA);
  const told: string[] = [];
  const next = new Component(disk, new Memory(ARENA));
  await next.load("r0", (text) => told.push(text));
  expect.match(
    told.join(),
    /metaflush off.*did not end in good order.*all of them are synchronized/,
  );
  expect.ok((await next.loadMap()).every((byte) => byte === 0xff));
  expect.equal(next.metadata.unflushed, undefined);
  expect.equal(decodeMetadata(disk.peek(0, METADATA_SIZE), "r0").unflushed, undefined);
  const flush = disk.history.findLastIndex(({ op, offset }) => op === "write" && offset === 4096);
  const mark = disk.history.findLastIndex(({ op, offset }) => op === "write" && offset === 0);
  expect.ok(flush < mark, "the map of ones comes first");
});

test("load() believes the disk, not what a failed flush has left in the page cache", async () => {
  const { component, disk } = await open({ completion: "inside" });
  const before = disk.peek(0, METADATA_SIZE);
  component.writeRecord({ localcnt: 7n, state: "uptodate" });
  disk.submit();
  disk.abandon(ARENA);
  disk.history.length = 0;
  disk.forgetCached = () => {
    const flushed = disk.history.map(({ op }) => op);
    expect.deepEqual(flushed, ["flush"], "what can still be written is, first");
    disk.poke(0, before);
    return 0;
  };
  const next = new Component(disk, new Memory(ARENA));
  await next.load("r0", () => {});
  expect.equal(next.metadata.localcnt, 0n);

  disk.abandon(ARENA);
  disk.forgetCached = () => 5;
  const last = new Component(disk, new Memory(ARENA));
  await expect.rejects(
    last.load("r0", () => {}),
    /forgetting what is cached of .*Input\/output error/,
  );
});

test("S-16: load() puts on record what a failed flush of a secondary's copy has lost, and only that", async () => {
  const cases: readonly (readonly [Partial<Metadata>, CopyState])[] = [
    [{ prevrole: "secondary", state: "uptodate" }, "inconsistent"],
    [{ prevrole: "secondary", state: "consistent" }, "inconsistent"],
    [{ prevrole: "secondary", state: "new" }, "inconsistent"],
    [{ prevrole: "secondary", state: "outdated" }, "outdated"],
    [{ prevrole: "secondary", state: "uptodate", aloneSince: 9 }, "uptodate"],
    [{ prevrole: "primary", state: "uptodate" }, "uptodate"],
    [{ prevrole: "init", state: "new" }, "new"],
  ];
  for (const [metadata, after] of cases) {
    const world = new World({ arena: ARENA });
    createComponent(world.disk, { resuid: 7n, localcnt: 3n, sequence: 1n, ...metadata });
    let failures = 1;
    world.disk.fail = ({ op }) => (op === "flush" && failures-- > 0 ? 5 : 0);
    const component = new Component(world.disk, new Memory(ARENA));
    const said =
      after === "inconsistent"
        ? /^flushing \/pretend\/disk failed: Input\/output error\. .*inconsistent.*hastctl role primary r0$/
        : /^flushing \/pretend\/disk failed: Input\/output error$/;
    await expect.rejects(world.until(component.load("r0", () => {})), { message: said });
    const stored = decodeMetadata(world.disk.peek(0, METADATA_SIZE), "r0");
    expect.equal(stored.state, after);
    expect.equal(stored.prevrole, metadata.prevrole);
    expect.equal(stored.localcnt, 3n);
  }
});

test("S-16: load() says so where what a failed flush has lost cannot be put on record", async () => {
  const world = new World({ arena: ARENA });
  createComponent(world.disk, { prevrole: "secondary", state: "uptodate", sequence: 1n });
  world.disk.fail = ({ op }) => (op === "flush" ? 5 : 0);
  const component = new Component(world.disk, new Memory(ARENA));
  await expect.rejects(
    world.until(component.load("r0", () => {})),
    /^Error: flushing .*Input\/output error; nor can be put on record what that lost: flushing/,
  );
});

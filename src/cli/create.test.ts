// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { MemoryComponent } from "../../test/cli/memory-component.ts";
import { type Run, runCommand } from "../../test/cli/surroundings.ts";
import { testBit } from "../base/bitmap.ts";
import { encodeMetadata, type Metadata, MetadataError } from "../metadata/block.ts";
import { extentCount, type Layout, locate, trailerMetadataOffset } from "../metadata/layout.ts";
import { ComponentError } from "../platform/component.ts";
import { create } from "./create.ts";
import { parseOptions } from "./options.ts";

const MIB = 1024 * 1024;

async function run(component: MemoryComponent | Error, words: string): Promise<Run> {
  return await runCommand(create, words.split(" "), {
    components: new Map([["/disk/r0", component]]),
  });
}

async function succeed(component: MemoryComponent, words: string): Promise<Run> {
  const result = await run(component, words);
  assert.equal(result.err, "");
  assert.equal(result.exitCode, 0);
  assert.ok(component.closed);
  return result;
}

/** The command must refuse, and touch nothing. */
async function refuse(component: MemoryComponent | Error, words: string): Promise<Run> {
  const result = await run(component, words);
  assert.notEqual(result.exitCode, 0);
  assert.equal(result.out, "");
  assert.match(result.err, /^\[ERROR\] \[r0\] /);
  if (component instanceof MemoryComponent) {
    assert.deepEqual(component.steps, []);
    assert.ok(component.closed);
  }
  return result;
}

function found(
  component: MemoryComponent,
  resource = "r0",
): { metadata: Metadata; layout: Layout } {
  const last = trailerMetadataOffset(component.size);
  return locate(
    resource,
    { mediaSize: component.size, sectorSize: component.sectorSize },
    {
      first: component.get(0, 4096),
      last: last === null ? null : component.get(last, 4096),
    },
  );
}

function dirtyExtents(component: MemoryComponent): { dirty: number; all: number } {
  const { metadata, layout } = found(component);
  const map = component.get(layout.mapOffset, layout.mapSize);
  const all = extentCount(metadata.datasize, metadata.extentsize);
  let dirty = 0;
  for (let extent = 0; extent < map.length * 8; extent++) {
    if (!testBit(map, extent)) continue;
    assert.ok(extent < all, `bit ${extent} of ${all} is set`);
    dirty += 1;
  }
  return { dirty, all };
}

/** The magic number of an ext4 file system of `size` bytes. */
function putExt4(component: MemoryComponent, size: number): void {
  const superblock = new Uint8Array(1024);
  const view = new DataView(superblock.buffer);
  view.setUint32(4, size / 4096, true); // blocks
  view.setUint32(24, 2, true); // 1024 << 2
  view.setUint16(56, 0xef53, true);
  view.setUint32(96, 0x40, true); // extents
  component.put(1024, superblock);
}

function putMetadata(component: MemoryComponent, resource: string): void {
  const block = encodeMetadata({
    resource,
    datasize: 2 * MIB,
    extentsize: 65536,
    keepdirty: 64,
    localoff: MIB,
    resuid: 77n,
    localcnt: 3n,
    remotecnt: 2n,
    prevrole: "primary",
    state: "uptodate",
    sequence: 500n,
    synced: null,
    aloneSince: null,
  });
  component.put(0, block);
  component.put(4096, new Uint8Array(512).fill(0x0f));
}

test("create makes a component that was never paired, with nothing dirty", async () => {
  const component = new MemoryComponent(64 * MIB);
  const { out } = await succeed(component, "r0");
  assert.equal(out, "");
  assert.deepEqual(found(component).metadata, {
    resource: "r0",
    datasize: 63 * MIB,
    extentsize: 2 * MIB,
    keepdirty: 64,
    localoff: MIB,
    resuid: 0n,
    localcnt: 0n,
    remotecnt: 0n,
    prevrole: "init",
    state: "new",
    sequence: 1n,
    synced: null,
    aloneSince: null,
  });
  assert.deepEqual(dirtyExtents(component), { dirty: 0, all: 32 });
});

test("create takes extent size, keepdirty, media size and data size, with suffixes", async () => {
  const component = new MemoryComponent(64 * MIB);
  await succeed(component, "-e 128K -k 16 -m 32m r0");
  const { metadata } = found(component);
  assert.equal(metadata.extentsize, 131072);
  assert.equal(metadata.keepdirty, 16);
  assert.equal(metadata.datasize, 31 * MIB);

  // What FreeBSD makes of 64 MiB; no multiple of 4096.
  const small = new MemoryComponent(80 * MIB);
  await succeed(small, "--datasize 67104256 r0");
  assert.equal(found(small).metadata.datasize, 67104256);
});

test("create takes 0 for the default, as the original does", async () => {
  const component = new MemoryComponent(64 * MIB);
  await succeed(component, "-e 0 -k 0 -m 0 r0");
  assert.equal(found(component).metadata.extentsize, 2 * MIB);
  assert.equal(found(component).metadata.keepdirty, 64);
});

test("create makes data of whole blocks from a file of ragged size (BD-43)", async () => {
  const component = new MemoryComponent(10 * MIB + 12345);
  await succeed(component, "r0");
  assert.equal(found(component).metadata.datasize % 4096, 0);
});

test("create refuses parameters that would crash or corrupt later, and says which (BD-43)", async () => {
  const cases: [string, RegExp][] = [
    ["-k 1 r0", /keepdirty is 1; at least 2/],
    ["-k 100 r0", /-k asks to keep 100 extents dirty, but \d+ bytes have 32\./],
    ["-e 1000 r0", /extent size is 1000; a power of two/],
    ["-e 3m r0", /extent size is 3145728; a power of two/],
    ["-e 256 r0", /extent size is 256; a power of two from 512/],
    ["-e 2g r0", /extent size is 2147483648; .* to 1073741824/],
    ["-m 65m r0", /-m asks for 68157440 bytes, but \/disk has 67108864/],
    ["-m 4096 r0", /4096 bytes are too few/],
    ["--datasize 64m r0", /do not fit 67108864 bytes/],
    ["--datasize 1000 r0", /data size is 1000; whole sectors of 512/],
  ];
  for (const [words, message] of cases) {
    const { exitCode, err } = await refuse(new MemoryComponent(64 * MIB), words);
    assert.equal(exitCode, 65, words);
    assert.match(err, message);
  }
  assert.equal((await refuse(new MemoryComponent(0), "r0")).exitCode, 65);
  const large = new MemoryComponent(64 * MIB, { kind: "block", sectorSize: 4096 });
  assert.match((await refuse(large, "-e 512 r0")).err, /a power of two from 4096 \(a sector\)/);
});

test("create refuses numbers that are none before it opens anything", () => {
  for (const words of ["-e 2x r0", "-k two r0", "-m -1 r0", "--datasize=1.5g r0"]) {
    const parsed = parseOptions(words.split(" "), create.options);
    assert.ok(parsed.kind === "parsed");
    assert.match(
      create.refuse(parsed.args, parsed.options) ?? "",
      /^".*" is no \w+: write a number/,
    );
  }
});

test("create needs a name, and there is no create of all", async () => {
  assert.equal(
    create.refuse([], new Map()),
    "name the resource whose local component shall be made",
  );
  const { exitCode, err } = await runCommand(create, ["all"], {});
  assert.equal(exitCode, 65);
  assert.match(err, /There is no resource "all"/);
});

test("create refuses HAST metadata, names its resource, and --force overrides", async () => {
  for (const [resource, owner] of [
    ["r0", "of this very resource"],
    ["other", "of resource other"],
  ] as const) {
    const component = new MemoryComponent(64 * MIB);
    putMetadata(component, resource);
    const { exitCode, err } = await refuse(component, "r0");
    assert.equal(exitCode, 65);
    assert.match(err, new RegExp(`already holds HAST metadata, ${owner}\\.`));
    assert.match(err, /hastctl create --force .*r0/);
    await succeed(component, "--force r0");
    assert.equal(found(component).metadata.resuid, 0n);
    assert.deepEqual(dirtyExtents(component), { dirty: 0, all: 32 });
  }
});

test("create refuses damaged HAST metadata too", async () => {
  const component = new MemoryComponent(64 * MIB);
  putMetadata(component, "r0");
  component.put(60, new Uint8Array([0xff, 0xff]));
  assert.match((await refuse(component, "r0")).err, /already holds HAST metadata, though damaged/);
});

test("create refuses a file system by name, offers adoption, and --force overrides", async () => {
  const component = new MemoryComponent(64 * MIB);
  putExt4(component, 64 * MIB);
  const { exitCode, err } = await refuse(component, "r0");
  assert.equal(exitCode, 65);
  assert.match(err, /^\[ERROR\] \[r0\] \/disk holds an ext4 file system\.\n/);
  assert.match(err, /hastctl create --adopt r0/);
  await succeed(component, "--force r0");
  assert.equal(found(component).metadata.state, "new");
});

test("create --force erases what an earlier adoption left at the end", async () => {
  const component = new MemoryComponent(64 * MIB);
  putExt4(component, 64 * MIB);
  await succeed(component, "--adopt r0");
  component.steps.length = 0;
  assert.match((await refuse(component, "r0")).err, /already holds HAST metadata/);
  await succeed(component, "--force r0");
  assert.equal(found(component).layout.kind, "header");
});

test("create's suggestions repeat the sizes asked for, or the size the component had", async () => {
  const component = new MemoryComponent(64 * MIB);
  await succeed(component, "--datasize 32m r0");
  component.steps.length = 0;
  const suggested = async (words: string): Promise<string | undefined> =>
    /\n {4}(hastctl create --force .*)\n$/.exec((await refuse(component, words)).err)?.[1];
  assert.equal(await suggested("r0"), "hastctl create --force --datasize 33554432 r0");
  assert.equal(
    await suggested("-e 1m --datasize 16m r0"),
    "hastctl create --force -e 1m --datasize 16m r0",
  );
  await succeed(component, "--force r0");
  component.steps.length = 0;
  assert.equal(await suggested("r0"), "hastctl create --force r0");
});

test("create says what is wrong with a component that cannot be opened, and what to do", async () => {
  const cases: [ComponentError, RegExp][] = [
    [
      new ComponentError("component-missing", "/disk/r0 does not exist"),
      /\n {2}Correct "local".* truncate -s 10G \/disk\/r0\n$/,
    ],
    [new ComponentError("component-locked", "/disk/r0 is in use"), /\n {4}hastctl role init r0\n$/],
    [new ComponentError("component-in-use", "/disk/r0 is mounted"), /lsblk \/disk\/r0/],
    [new ComponentError("component-no-permission", "/disk/r0: permission denied"), /Run as root/],
    [new ComponentError("component-not-a-disk", "/disk/r0 is a directory"), /Correct "local"/],
    [
      new ComponentError("component-read-only", "/disk/r0 is read-only"),
      /is read-only\.\n {2}Remount/,
    ],
  ];
  for (const [error, message] of cases) {
    for (const words of ["r0", "--force r0", "--adopt r0"]) {
      const { exitCode, err } = await refuse(error, words);
      assert.equal(exitCode, 66);
      assert.match(err, message);
    }
  }
});

test("create goes on with the next name after a failure, and exits with the first code", async () => {
  const r1 = new MemoryComponent(64 * MIB);
  const components = new Map<string, MemoryComponent | Error>([
    ["/disk/r0", new ComponentError("component-missing", "/disk/r0 does not exist")],
    ["/disk/r1", r1],
  ]);
  const given = { components, resources: ["r0", "r1"] };
  const { exitCode } = await runCommand(create, ["r0", "nope", "r1"], given);
  assert.equal(exitCode, 66);
  assert.equal(found(r1, "r1").metadata.resource, "r1");
});

test("create exits 74 when writing fails, and leaves no component", async () => {
  for (let failAt = 0; failAt < 5; failAt++) {
    const component = new MemoryComponent(64 * MIB);
    component.failAt = failAt;
    const { exitCode, err } = await run(component, "r0");
    assert.equal(exitCode, 74, `step ${failAt}`);
    assert.match(err, /ENOSPC/);
    assert.match(err, /run the command again with --force/);
    assert.ok(component.closed);
  }
});

test("a power cut during create leaves no component, the old one, or the new one whole", async () => {
  const blank = new MemoryComponent(64 * MIB);
  const used = new MemoryComponent(64 * MIB);
  putMetadata(used, "r0");
  for (const [before, words] of [
    [blank, "r0"],
    [used, "--force r0"],
  ] as const) {
    const component = before.copy();
    await succeed(component, words);
    const outcomes = new Set<string>();
    fc.assert(
      fc.property(
        fc.nat(component.steps.length),
        fc.infiniteStream(fc.boolean()),
        (count, survivors) => {
          const steps = component.steps.slice(0, count);
          const after = MemoryComponent.afterPowerCut(before, steps, () => survivors.next().value);
          outcomes.add(outcomeOf(after, before));
        },
      ),
      { numRuns: 300 },
    );
    const expected = before === blank ? ["new", "none"] : ["new", "none", "old"];
    assert.deepEqual([...outcomes].sort(), expected);
  }
});

test("create --force after one whose flush failed does not believe the zeroes that it reads", async () => {
  const before = new MemoryComponent(64 * MIB);
  putMetadata(before, "r0");
  const component = before.copy();
  component.failAt = 1; // the flush: the disk may not have taken what the cache shows
  assert.equal((await run(component, "--force r0")).exitCode, 74);
  component.steps.length = 0;
  await succeed(component, "--force r0");
  for (let count = 0; count <= component.steps.length; count++) {
    const steps = component.steps.slice(0, count);
    for (const survives of [false, true]) {
      outcomeOf(
        MemoryComponent.afterPowerCut(before, steps, () => survives),
        before,
      );
    }
  }
});

function outcomeOf(after: MemoryComponent, before: MemoryComponent): string {
  let metadata: Metadata;
  try {
    ({ metadata } = found(after));
  } catch (error) {
    if (!(error instanceof MetadataError)) throw error;
    return "none";
  }
  if (metadata.sequence === 500n) {
    assert.deepEqual(after.get(4096, 8192), before.get(4096, 8192), "the old map lost its bits");
    return "old";
  }
  assert.equal(metadata.sequence, 1n);
  assert.equal(dirtyExtents(after).dirty, 0, "the new metadata vouches for an old map");
  return "new";
}

test("create --adopt leaves every byte of data, and makes all of it dirty", async () => {
  const before = new MemoryComponent(64 * MIB);
  putExt4(before, 64 * MIB);
  before.put(64 * MIB - 512, new Uint8Array(512).fill(0xa5));
  const component = before.copy();
  const { out } = await succeed(component, "--adopt r0");
  const { metadata, layout } = found(component);
  assert.deepEqual(layout.kind, "trailer");
  assert.deepEqual(metadata, {
    resource: "r0",
    datasize: 64 * MIB,
    extentsize: 2 * MIB,
    keepdirty: 64,
    localoff: 0,
    resuid: 0x0707070707070707n, // what the test's entropy gives: an id of its own
    localcnt: 1n,
    remotecnt: 0n,
    prevrole: "init",
    state: "new",
    sequence: 1n,
    synced: null,
    aloneSince: null,
  });
  assert.deepEqual(dirtyExtents(component), { dirty: 32, all: 32 });
  assert.deepEqual(component.get(0, 8192), before.get(0, 8192));
  assert.deepEqual(component.get(64 * MIB - 8192, 8192), before.get(64 * MIB - 8192, 8192));
  for (const step of component.steps) {
    if (step.kind === "write") assert.ok(step.offset >= 64 * MIB, "wrote into the data");
  }
  assert.equal(component.size, 64 * MIB + 8192);
  assert.match(out, /\n {4}hastctl create --datasize 67108864 r0\n/);
});

test("create --adopt marks every extent of any size dirty, and no bit more", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 5000 }),
      fc.constantFrom(512, 4096, 65536),
      async (sectors, extentsize) => {
        const component = new MemoryComponent(8192 + sectors * 512);
        await succeed(component, `--adopt --force -e ${extentsize} r0`);
        const { dirty, all } = dirtyExtents(component);
        assert.equal(dirty, all);
        const { datasize } = found(component).metadata;
        assert.ok(datasize >= 8192 + sectors * 512 && datasize < 12288 + sectors * 512);
      },
    ),
    { numRuns: 60 },
  );
});

test("create --adopt tells the peer's extent size where it is not the default", async () => {
  const component = new MemoryComponent(64 * MIB);
  putExt4(component, 64 * MIB);
  const { out } = await succeed(component, "--adopt -e 64k r0");
  assert.match(out, /hastctl create --datasize 67108864 -e 65536 r0\n/);
});

test("create --adopt of a device needs the size of its data, and room behind it", async () => {
  const device = (): MemoryComponent => {
    const component = new MemoryComponent(68 * MIB, { kind: "block", sectorSize: 4096 });
    putExt4(component, 64 * MIB);
    return component;
  };
  assert.match(
    (await refuse(device(), "--adopt r0")).err,
    /--datasize BYTES\. See docs\/adopt\.md/,
  );
  assert.match(
    (await refuse(device(), "--adopt --datasize 68m r0")).err,
    /more bytes are needed, and there are 0/,
  );
  assert.match(
    (await refuse(device(), "--adopt --datasize 32m r0")).err,
    /holds an ext4 file system of 67108864 bytes; a data size of 33554432 would cut it off/,
  );
  assert.match(
    (await refuse(device(), "--adopt --datasize 67108865 r0")).err,
    /whole sectors of 4096/,
  );
  const component = device();
  await succeed(component, "--adopt --datasize 64m r0");
  assert.equal(found(component).metadata.datasize, 64 * MIB);
  assert.equal(component.size, 68 * MIB);
});

test("create --adopt refuses to write over what lies behind the data", async () => {
  const component = new MemoryComponent(68 * MIB, { kind: "block" });
  putExt4(component, 64 * MIB);
  component.put(68 * MIB - 512, new TextEncoder().encode("EFI PART"));
  const { err } = await refuse(component, "--adopt --datasize 64m r0");
  assert.match(err, /The end of \/disk, where the metadata would go, holds a GPT partition table/);
});

test("create --adopt refuses what is empty, unless forced", async () => {
  const component = new MemoryComponent(64 * MIB);
  const { exitCode, err } = await refuse(component, "--adopt r0");
  assert.equal(exitCode, 65);
  assert.match(
    err,
    /holds nothing that is known.*\n {2}For an empty component: hastctl create r0\n/,
  );
  await succeed(component, "--adopt --force r0");
});

test("create --adopt refuses a component, even when forced", async () => {
  for (const words of ["--adopt r0", "--adopt --force r0"]) {
    const component = new MemoryComponent(64 * MIB);
    putMetadata(component, "r0");
    assert.match((await refuse(component, words)).err, /it needs no adoption/);
    const adopted = new MemoryComponent(64 * MIB);
    await succeed(adopted, "--adopt --force r0");
    adopted.steps.length = 0;
    assert.match(
      (await refuse(adopted, words)).err,
      /To adopt it anew, cut the metadata off first/,
    );
  }
});

test("create --adopt and -m exclude each other", () => {
  const options = new Map([
    ["--adopt", ""],
    ["-m", "1g"],
  ]);
  assert.match(create.refuse(["r0"], options) ?? "", /exclude each other/);
});

test("create --adopt gives a file its old size back when writing fails", async () => {
  for (let failAt = 0; failAt < 6; failAt++) {
    const component = new MemoryComponent(64 * MIB);
    putExt4(component, 64 * MIB);
    component.failAt = failAt;
    const { exitCode, err } = await run(component, "--adopt r0");
    assert.equal(exitCode, 74, `step ${failAt}`);
    assert.equal(component.size, 64 * MIB);
    assert.match(err, /ENOSPC.*\n {2}Its data is untouched\./);
  }
});

test("a power cut during create --adopt leaves all data, and no component or the whole one", async () => {
  const before = new MemoryComponent(8 * MIB);
  putExt4(before, 8 * MIB);
  const component = before.copy();
  await succeed(component, "--adopt r0");
  const outcomes = new Set<string>();
  fc.assert(
    fc.property(
      fc.nat(component.steps.length),
      fc.infiniteStream(fc.boolean()),
      (count, survivors) => {
        const steps = component.steps.slice(0, count);
        const after = MemoryComponent.afterPowerCut(before, steps, () => survivors.next().value);
        assert.deepEqual(after.get(0, 8192), before.get(0, 8192));
        try {
          const { dirty, all } = dirtyExtents(after);
          assert.equal(dirty, all);
          outcomes.add("new");
        } catch (error) {
          if (!(error instanceof MetadataError)) throw error;
          outcomes.add("none");
        }
      },
    ),
    { numRuns: 300 },
  );
  assert.deepEqual([...outcomes].sort(), ["new", "none"]);
});

// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { crc32 } from "../base/crc32.ts";
import { decodeNv, NvWriter } from "../wire/nv.ts";
import { encodeMetadata, METADATA_SIZE, type Metadata } from "./block.ts";
import { copyOffset, copyWrites, findMetadata } from "./copies.ts";
import { createLayout, extentCount, freebsdLayout, type Layout, trailerLayout } from "./layout.ts";

const MIB = 1024 * 1024;
const EXTENT = 65536;

interface Shape {
  readonly name: string;
  readonly layout: Layout;
  readonly sectorSize: number;
  readonly mediaSize: number;
}

const SHAPES: readonly Shape[] = [512, 2048, 4096].flatMap((sectorSize) => {
  const media = { mediaSize: 4 * MIB, sectorSize, extentsize: EXTENT };
  const layouts = {
    ours: createLayout({ ...media, kind: "block", datasize: null }),
    "close to the data": createLayout({
      ...media,
      kind: "block",
      datasize: media.mediaSize - 2 * METADATA_SIZE,
    }),
    FreeBSD: freebsdLayout(media),
    trailer: trailerLayout({ ...media, datasize: 3 * MIB }),
  };
  return Object.entries(layouts).map(([name, layout]) => ({
    name: `${name}, sectors of ${sectorSize}`,
    layout,
    sectorSize,
    mediaSize: media.mediaSize,
  }));
});

function metadataOf(layout: Layout, changes: Partial<Metadata>): Metadata {
  return {
    resource: "r0",
    datasize: layout.datasize,
    extentsize: EXTENT,
    keepdirty: 64,
    localoff: layout.localoff,
    resuid: 77n,
    localcnt: 0n,
    remotecnt: 0n,
    prevrole: "primary",
    state: "uptodate",
    sequence: 1n,
    synced: null,
    aloneSince: null,
    ...changes,
  };
}

/** A disk of one of the shapes, all its bytes. */
class Media {
  readonly shape: Shape;
  readonly bytes: Uint8Array;
  constructor(shape: Shape, bytes: Uint8Array = new Uint8Array(shape.mediaSize).fill(0x5a)) {
    this.shape = shape;
    this.bytes = bytes;
  }
  store(metadata: Metadata): this {
    const { layout, sectorSize } = this.shape;
    for (const { offset, bytes } of copyWrites(metadata, layout, sectorSize)) {
      expect.equal(offset % sectorSize, 0);
      expect.equal(bytes.length % sectorSize, 0);
      this.bytes.set(bytes, offset);
    }
    return this;
  }
  async find() {
    return await findMetadata("r0", this.shape, async (offset, length) => {
      expect.equal(offset % this.shape.sectorSize, 0);
      expect.ok(offset + length <= this.bytes.length);
      return this.bytes.slice(offset, offset + length);
    });
  }
}

/**
 * Whatever a power cut in the middle of write number `written` may leave: any of its sectors. It is the same
 * `media` each time, of which nothing but those writes' places may be changed meanwhile.
 */
function* cuts(before: Media, metadata: Metadata): Generator<{ media: Media; written: number }> {
  const { layout, sectorSize } = before.shape;
  const writes = copyWrites(metadata, layout, sectorSize);
  const media = new Media(before.shape, before.bytes.slice());
  for (const [written, { offset, bytes }] of writes.entries()) {
    const sectors = bytes.length / sectorSize;
    for (let subset = 0; subset < 2 ** sectors; subset++) {
      for (const place of writes) {
        const end = place.offset + place.bytes.length;
        media.bytes.set(before.bytes.subarray(place.offset, end), place.offset);
      }
      for (const done of writes.slice(0, written)) media.bytes.set(done.bytes, done.offset);
      for (let sector = 0; sector < sectors; sector++) {
        if ((subset & (1 << sector)) === 0) continue;
        const from = sector * sectorSize;
        media.bytes.set(bytes.subarray(from, from + sectorSize), offset + from);
      }
      yield { media, written };
    }
  }
}

test("BD-17: a metadata write cut at any of its sectors leaves the old block or the new one", async () => {
  // A name that makes the list longer than a sector: its halves can be of different age.
  for (const resource of ["r0", "r".repeat(250)]) {
    for (const shape of SHAPES) {
      const old = metadataOf(shape.layout, { resource, localcnt: 3n, sequence: 8n });
      const next = { ...old, localcnt: 4n, sequence: 9n, state: "inconsistent" } as const;
      const before = new Media(shape).store(old);
      for (const { media, written } of cuts(before, next)) {
        const read = async (offset: number, length: number) =>
          media.bytes.slice(offset, offset + length);
        const found = await findMetadata(resource, shape, read);
        expect.deepEqual(found.layout, shape.layout, shape.name);
        const { metadata } = found;
        expect.deepEqual(metadata, metadata.sequence === 9n ? next : old, shape.name);
        if (written > 0) expect.equal(metadata.sequence, 9n, "the copy was stable by then");
        // What is found is stored again, and then stands whatever is cut off next.
        media.store(metadata);
        expect.deepEqual((await findMetadata(resource, shape, read)).rewrite, false);
      }
      const after = new Media(shape, before.bytes.slice()).store(next);
      const found = await findMetadata(resource, shape, async (offset, length) =>
        after.bytes.slice(offset, offset + length),
      );
      expect.deepEqual(found, {
        metadata: next,
        layout: shape.layout,
        damage: null,
        rewrite: false,
      });
    }
  }
});

test("BD-17: a damaged block is read from its copy, wherever that is", async () => {
  for (const shape of SHAPES) {
    const metadata = metadataOf(shape.layout, { localcnt: 4n });
    for (const bit of [200, 800, 1200]) {
      const media = new Media(shape).store(metadata);
      media.bytes[shape.layout.metadataOffset + (bit >> 3)]! ^= 1 << (bit & 7);
      const found = await media.find();
      expect.deepEqual(found.metadata, metadata, shape.name);
      expect.match(found.damage ?? "", /damaged .* copy is used/);
      expect.equal(found.rewrite, true);
    }
  }
});

test("BD-17: a damaged copy is noticed while the block is sound", async () => {
  for (const shape of SHAPES) {
    const metadata = metadataOf(shape.layout, {});
    const media = new Media(shape).store(metadata);
    media.bytes[copyOffset(shape.layout, extentCount(metadata.datasize, EXTENT)) + 30]! ^= 1;
    const found = await media.find();
    expect.deepEqual(found.metadata, metadata);
    expect.equal(found.rewrite, true);
  }
});

test("S-14: a block that FreeBSD wrote wins over a copy of ours, and nothing stands in for it", async () => {
  for (const shape of SHAPES) {
    const ours = metadataOf(shape.layout, { localcnt: 3n, sequence: 40n });
    const media = new Media(shape).store(ours);
    const freebsd = { ...ours, localcnt: 5n, state: null, sequence: null };
    media.bytes.set(encodeMetadata(freebsd), shape.layout.metadataOffset);
    expect.deepEqual((await media.find()).metadata, freebsd, shape.name);
    // Damaged after that, it may have been newer than the copy: better no metadata than old ones.
    media.bytes[shape.layout.metadataOffset + 70]! ^= 0xff;
    await expect.rejects(media.find(), { name: "MetadataError" });
    // And the first write of ours after it counts again, whatever the copy's number was.
    media.bytes.set(encodeMetadata(freebsd), shape.layout.metadataOffset);
    const next = { ...ours, localcnt: 6n, sequence: 1n };
    for (const { media: cut } of cuts(media, next)) {
      const { metadata } = await cut.find();
      expect.deepEqual(metadata, metadata.sequence === null ? freebsd : next, shape.name);
    }
  }
});

test("S-14: a copy more than one write ahead is of another time, and the block wins", async () => {
  for (const shape of SHAPES) {
    const media = new Media(shape).store(metadataOf(shape.layout, { sequence: 40n, localcnt: 3n }));
    // FreeBSD had the disk in between, so a build that kept one copy counted from the beginning again.
    for (const sequence of [1n, 38n]) {
      const metadata = metadataOf(shape.layout, { sequence, localcnt: 9n });
      // What is behind the list's end is the copy's where both lie in one block.
      media.bytes.set(encodeMetadata(metadata).subarray(0, 2048), shape.layout.metadataOffset);
      const found = await media.find();
      expect.deepEqual(found.metadata, metadata, shape.name);
      expect.equal(found.rewrite, true);
    }
  }
});

test("a block that needs a newer version is refused, though the second copy is an older one's", async () => {
  for (const shape of SHAPES) {
    const metadata = metadataOf(shape.layout, { sequence: 7n });
    const media = new Media(shape).store(metadata);
    const { entries } = decodeNv(encodeMetadata(metadata));
    const nv = new NvWriter();
    for (const { type, name, data } of entries) if (name !== "crc") nv.add(type, name, data);
    nv.string("features", "wide-extents");
    media.bytes.set(nv.u32("crc", crc32(nv.finish())).finish(), shape.layout.metadataOffset);
    await expect.rejects(media.find(), { code: "newer-version" }, shape.name);
  }
});

test("BD-17: what lies in the data is no copy, even if it was one elsewhere", async () => {
  for (const shape of SHAPES) {
    const { metadataOffset, localoff } = shape.layout;
    if (metadataOffset !== 0) continue; // nobody searches in front of a trailer
    const copy = encodeMetadata(metadataOf(shape.layout, {}));
    const media = new Media(shape).store(metadataOf(shape.layout, {}));
    const at = copyOffset(shape.layout, extentCount(shape.layout.datasize, EXTENT));
    // An image of the component's beginning, kept on the component itself.
    for (let end = 64 * 1024; end < shape.mediaSize; end += 64 * 1024) {
      if (end - METADATA_SIZE > localoff) media.bytes.set(copy, end - METADATA_SIZE);
    }
    media.bytes[metadataOffset + 30]! ^= 1;
    expect.deepEqual((await media.find()).layout, shape.layout);
    media.bytes[at + 30]! ^= 1;
    await expect.rejects(media.find(), { name: "MetadataError" }, shape.name);
  }
});

test("a disk of a build that kept one copy is read as it is, and gets its second one", async () => {
  for (const shape of SHAPES) {
    const metadata = metadataOf(shape.layout, { sequence: 5n });
    const media = new Media(shape);
    media.bytes.set(encodeMetadata(metadata), shape.layout.metadataOffset);
    const found = await media.find();
    expect.deepEqual(found, { metadata, layout: shape.layout, damage: null, rewrite: true });
    // That build knows nothing of the copy, and leaves it behind.
    media.store(metadata);
    const later = { ...metadata, localcnt: 9n, sequence: 6n };
    media.bytes.set(encodeMetadata(later), shape.layout.metadataOffset);
    expect.deepEqual((await media.find()).metadata, later);
  }
});

test("a wiped block is no metadata, although the copy is still there", async () => {
  const shape = SHAPES[0]!;
  const media = new Media(shape).store(metadataOf(shape.layout, {}));
  media.bytes.fill(0, 0, 512);
  await expect.rejects(media.find(), { code: "not-metadata" });
});

test("the copy lies out of the way of map and data", () => {
  for (const { name, layout } of SHAPES) {
    const at = copyOffset(layout, extentCount(layout.datasize, EXTENT));
    const end = at + 2048;
    const inBlock = at >= layout.metadataOffset && end <= layout.metadataOffset + METADATA_SIZE;
    const inGap = at >= layout.mapOffset + layout.mapSize && at + METADATA_SIZE <= layout.localoff;
    expect.ok(inBlock || inGap, name);
    if (name.startsWith("ours")) expect.ok(inGap);
  }
});

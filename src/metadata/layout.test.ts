// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { encodeMetadata, METADATA_SIZE, type Metadata } from "./block.ts";
import {
  checkParameters,
  createLayout,
  extentCount,
  freebsdLayout,
  type Layout,
  layoutOf,
  locate,
  mapBytes,
  trailerLayout,
  trailerMetadataOffset,
  trailerSize,
} from "./layout.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const TIB = 1024 * GIB;
const EXTENT = 2 * MIB;

function describes(layout: Layout, changes: Partial<Metadata> = {}): Metadata {
  return {
    resource: "r0",
    datasize: layout.datasize,
    extentsize: EXTENT,
    keepdirty: 64,
    localoff: layout.localoff,
    resuid: 0n,
    localcnt: 0n,
    remotecnt: 0n,
    prevrole: "init",
    state: "new",
    sequence: 1n,
    synced: null,
    aloneSince: null,
    ...changes,
  };
}

test("extents and map sizes are those of the disk format's examples", () => {
  const examples: [number, number, number, number, number, number][] = [
    [GIB, 512, 512, 512, 4608, 1073737216],
    [TIB, 512, 524288, 65536, 69632, 1099511558144],
    [10 * TIB, 4096, 5242880, 655360, 659456, 10995115618304],
  ];
  for (const [mediaSize, sectorSize, extents, mapSize, localoff, datasize] of examples) {
    const layout = freebsdLayout({ mediaSize, sectorSize, extentsize: EXTENT });
    expect.deepEqual(layout, {
      kind: "header",
      metadataOffset: 0,
      mapOffset: 4096,
      mapSize,
      localoff,
      datasize,
    });
    expect.equal(extentCount(mediaSize - 4096, EXTENT), extents);
  }
  expect.equal(extentCount(1, EXTENT), 1);
  expect.equal(extentCount(EXTENT, EXTENT), 1);
  expect.equal(extentCount(EXTENT + 1, EXTENT), 2);
  expect.deepEqual([1, 64, 65].map(mapBytes), [8, 8, 16]);
});

test("createLayout() lets data begin at 1 MiB and end with the media, in whole blocks", () => {
  const layout = createLayout({
    mediaSize: GIB + 700,
    sectorSize: 512,
    extentsize: EXTENT,
    kind: "file",
    datasize: null,
  });
  expect.equal(layout.localoff, MIB);
  expect.equal(layout.datasize, GIB - MIB);
  expect.equal(layout.mapSize, 512);
});

test("createLayout() aligns less rather than offer less than was asked for", () => {
  const mediaSize = GIB;
  const asked = (datasize: number): number =>
    createLayout({ mediaSize, sectorSize: 512, extentsize: EXTENT, kind: "file", datasize })
      .localoff;
  expect.equal(asked(GIB - MIB), MIB);
  expect.equal(asked(GIB - MIB + 512), 64 * KIB);
  expect.equal(asked(GIB - 64 * KIB + 512), 8 * KIB);
  // All that FreeBSD makes of the same size: only its own layout has room for that.
  expect.equal(asked(1073737216), 4608);
  expect.throws(() => asked(1073737216 + 512), { code: "does-not-fit" });
});

test("createLayout() keeps a large map out of the data", () => {
  const media = { mediaSize: 64 * TIB, sectorSize: 4096, kind: "block" as const, datasize: null };
  const layout = createLayout({ ...media, extentsize: EXTENT });
  expect.ok(layout.mapOffset + layout.mapSize <= layout.localoff);
  expect.equal(layout.localoff, 5 * MIB);
});

test("createLayout() gives small media a small header", () => {
  const layout = createLayout({
    mediaSize: 300 * KIB,
    sectorSize: 512,
    extentsize: 64 * KIB,
    kind: "file",
    datasize: null,
  });
  expect.deepEqual([layout.localoff, layout.datasize], [64 * KIB, 236 * KIB]);
  for (const mediaSize of [0, 4096, 4608]) {
    const media = { mediaSize, sectorSize: 512, extentsize: EXTENT, kind: "file" as const };
    expect.throws(() => createLayout({ ...media, datasize: null }), { code: "does-not-fit" });
    expect.throws(() => freebsdLayout(media), { code: "does-not-fit" });
  }
});

const sectorSize = fc.constantFrom(512, 1024, 4096);
const extentsize = fc.integer({ min: 12, max: 30 }).map((shift) => 2 ** shift);

/** What must hold of any layout: nothing overlaps, nothing sticks out, everything is aligned. */
function expectSound(layout: Layout, mediaSize: number, sector: number, extent: number): void {
  const regions = [
    [layout.metadataOffset, METADATA_SIZE],
    [layout.mapOffset, layout.mapSize],
    [layout.localoff, layout.datasize],
  ] as [number, number][];
  regions.sort(([left], [right]) => left - right);
  let end = 0;
  for (const [offset, size] of regions) {
    expect.ok(size > 0);
    expect.ok(offset >= end, "two regions overlap");
    expect.equal(offset % sector, 0);
    end = offset + size;
  }
  expect.ok(end <= mediaSize, "a region ends behind the media");
  expect.equal(layout.mapSize % sector, 0);
  expect.equal(layout.datasize % sector, 0);
  expect.ok(layout.mapSize >= mapBytes(extentCount(layout.datasize, extent)));
}

test("whatever is created is sound, is found again, and is what it was", () => {
  const asked = fc.option(fc.nat({ max: 2 ** 34 }));
  fc.assert(
    fc.property(
      fc.oneof(fc.nat({ max: 4 * MIB }), fc.nat({ max: 2 ** 44 })),
      sectorSize,
      extentsize,
      fc.constantFrom("file" as const, "block" as const),
      asked,
      (mediaSize, sector, extent, kind, sectors) => {
        const datasize = sectors === null ? null : sectors * sector;
        let layout: Layout;
        try {
          layout = createLayout({
            mediaSize,
            sectorSize: sector,
            extentsize: extent,
            kind,
            datasize,
          });
        } catch (error) {
          expect.match((error as { code: string }).code, /^(does-not-fit|bad-value)$/);
          return;
        }
        expectSound(layout, mediaSize, sector, extent);
        if (datasize !== null) expect.equal(layout.datasize, datasize);
        const metadata = describes(layout, { extentsize: extent });
        const media = { mediaSize, sectorSize: sector };
        const first = encodeMetadata(metadata);
        expect.deepEqual(locate("r0", media, { first, last: null }), { metadata, layout });
      },
    ),
    { numRuns: 500 },
  );
});

test("whatever is adopted is sound, keeps data at 0, is found again, and is what it was", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 2 ** 31 }),
      sectorSize,
      extentsize,
      fc.nat({ max: 9000 }),
      (sectors, sector, extent, extra) => {
        const datasize = sectors * sector;
        const parameters = { datasize, sectorSize: sector, extentsize: extent };
        const enough =
          METADATA_SIZE * Math.ceil(datasize / METADATA_SIZE) + trailerSize(parameters);
        const mediaSize = enough + extra;
        const layout = trailerLayout({ mediaSize, ...parameters });
        expect.deepEqual([layout.kind, layout.localoff, layout.datasize], ["trailer", 0, datasize]);
        expect.equal(layout.metadataOffset, trailerMetadataOffset(mediaSize));
        expectSound(layout, mediaSize, sector, extent);
        expect.throws(() => trailerLayout({ mediaSize: enough - 1, ...parameters }), {
          code: "does-not-fit",
        });

        const metadata = describes(layout, { extentsize: extent });
        const blocks = {
          first: new Uint8Array(METADATA_SIZE).fill(7),
          last: encodeMetadata(metadata),
        };
        const media = { mediaSize, sectorSize: sector };
        expect.deepEqual(locate("r0", media, blocks), { metadata, layout });
      },
    ),
    { numRuns: 300 },
  );
});

const MEDIA = { mediaSize: GIB, sectorSize: 512 };
const HEADER = createLayout({ ...MEDIA, extentsize: EXTENT, kind: "file", datasize: null });
const TRAILER = trailerLayout({ ...MEDIA, extentsize: EXTENT, datasize: GIB - MIB });
const HEADER_BLOCK = encodeMetadata(describes(HEADER));
const TRAILER_BLOCK = encodeMetadata(describes(TRAILER));
const USER_DATA: Uint8Array = new Uint8Array(METADATA_SIZE).fill(0xeb);

test("locate() reads the name from either place, if none is asked for", () => {
  const header = locate(null, MEDIA, { first: HEADER_BLOCK, last: USER_DATA });
  expect.equal(header.layout.kind, "header");
  const trailer = locate(null, MEDIA, { first: USER_DATA, last: TRAILER_BLOCK });
  expect.equal(trailer.layout.kind, "trailer");
});

test("locate() refuses to choose where both places claim the resource", () => {
  const ambiguous = { code: "ambiguous-layout", message: /byte 0 and at byte 1073737728/ };
  expect.throws(() => locate("r0", MEDIA, { first: HEADER_BLOCK, last: TRAILER_BLOCK }), ambiguous);
  const damaged = HEADER_BLOCK.slice();
  damaged[100]! ^= 1;
  expect.throws(() => locate("r0", MEDIA, { first: damaged, last: TRAILER_BLOCK }), ambiguous);
  expect.throws(() => locate("r0", MEDIA, { first: HEADER_BLOCK, last: damaged }), ambiguous);
});

test("locate() is not misled by another resource's metadata inside the data", () => {
  const other = encodeMetadata(describes(HEADER, { resource: "other" }));
  expect.equal(locate("r0", MEDIA, { first: other, last: TRAILER_BLOCK }).layout.kind, "trailer");
  expect.equal(locate("r0", MEDIA, { first: HEADER_BLOCK, last: other }).layout.kind, "header");
});

test("locate() says what is wrong with the block it would have used", () => {
  const nothing = { first: USER_DATA, last: new Uint8Array(METADATA_SIZE) };
  expect.throws(() => locate("r0", MEDIA, nothing), { code: "not-metadata" });
  const foreign = { first: HEADER_BLOCK, last: null };
  expect.throws(() => locate("other", MEDIA, foreign), { code: "foreign-resource" });
  const damaged = TRAILER_BLOCK.slice();
  damaged[100]! ^= 1;
  expect.throws(() => locate("r0", MEDIA, { first: USER_DATA, last: damaged }), {
    code: "bad-checksum",
  });
});

test("media too small for a trailer has none", () => {
  expect.equal(trailerMetadataOffset(8191), null);
  expect.equal(trailerMetadataOffset(8192), 4096);
  expect.equal(trailerMetadataOffset(12287), 4096);
});

const REFUSED: readonly [why: string, changes: Partial<Metadata>, code: string, message: RegExp][] =
  [
    ["extent size 0", { extentsize: 0 }, "bad-value", /extent size is 0/],
    ["an extent size of three sectors", { extentsize: 1536 }, "bad-value", /power of two/],
    ["an extent size below a sector", { extentsize: 256 }, "bad-value", /power of two/],
    ["an extent size of 2 GiB", { extentsize: 2 ** 31 }, "bad-value", /power of two/],
    ["keepdirty 1", { keepdirty: 1 }, "bad-value", /keepdirty is 1/],
    ["data size 0", { datasize: 0 }, "bad-value", /data size is 0/],
    ["a ragged data size", { datasize: 1000 }, "bad-value", /whole sectors/],
    ["data beyond the media", { datasize: GIB }, "does-not-fit", /was it shrunk/],
    ["data in the metadata", { localoff: 512 }, "does-not-fit", /activemap needs 512/],
    ["data in the map", { localoff: 4096 }, "does-not-fit", /activemap needs 512/],
    ["data within a sector", { localoff: 4700 }, "does-not-fit", /within a sector/],
    [
      "a map that would not end",
      { datasize: 2 ** 50, extentsize: 512 },
      "bad-value",
      /larger extent size/,
    ],
  ];

for (const [why, changes, code, message] of REFUSED) {
  test(`layoutOf() refuses ${why}`, () => {
    expect.throws(() => layoutOf(describes(HEADER, changes), 0, MEDIA), { code, message });
  });
}

test("a disk made with 512-byte sectors is refused on one with larger sectors (BD-12)", () => {
  const layout = freebsdLayout({ ...MEDIA, extentsize: EXTENT });
  const metadata = describes(layout);
  expect.equal(layoutOf(metadata, 0, MEDIA).mapSize, 512);
  const moved = { mediaSize: GIB, sectorSize: 4096 };
  expect.throws(() => layoutOf(metadata, 0, moved), { name: "MetadataError" });
});

test("data that would begin within a larger sector is refused, although the map has room (BD-12)", () => {
  const metadata = describes(HEADER, { localoff: 64 * KIB + 512, datasize: 512 * MIB });
  expect.equal(layoutOf(metadata, 0, MEDIA).localoff, 64 * KIB + 512);
  expect.throws(() => layoutOf(metadata, 0, { mediaSize: GIB, sectorSize: 4096 }), {
    code: "does-not-fit",
    message: /within a sector/,
  });
});

test("a grown disk has the map it was made with, not one for its new size (BD-11)", () => {
  const made = freebsdLayout({ mediaSize: 10 * GIB, sectorSize: 512, extentsize: EXTENT });
  const grown = layoutOf(describes(made), 0, { mediaSize: TIB, sectorSize: 512 });
  expect.deepEqual([grown.mapSize, grown.datasize], [1024, made.datasize]);
  expect.ok(grown.mapOffset + grown.mapSize <= grown.localoff);
});

test("metadata behind the data must not claim that data begins elsewhere", () => {
  const metadata = describes(TRAILER, { localoff: 4608 });
  expect.throws(() => layoutOf(metadata, TRAILER.metadataOffset, MEDIA), { code: "bad-value" });
});

test("data that leaves no room for the trailer is refused, saying how much is needed", () => {
  const full = { ...MEDIA, extentsize: EXTENT, datasize: GIB };
  expect.throws(() => trailerLayout(full), { message: /8192 more bytes are needed.*there are 0/ });
});

test("create's parameters are checked as metadata's are (BD-43)", () => {
  checkParameters({ extentsize: EXTENT, keepdirty: 2, sectorSize: 512 });
  for (const keepdirty of [0, 1, 1.5, Number.NaN, 2 ** 32]) {
    expect.throws(() => checkParameters({ extentsize: EXTENT, keepdirty, sectorSize: 512 }), {
      code: "bad-value",
    });
  }
  for (const sector of [0, 520, 8192]) {
    expect.throws(
      () => checkParameters({ extentsize: EXTENT, keepdirty: 64, sectorSize: sector }),
      {
        code: "bad-value",
        message: /sector size/,
      },
    );
  }
});

test("BD-11: what create lays out over a whole medium ends its map where a FreeBSD secondary's still fits", () => {
  const medium = fc.record({
    blocks: fc.integer({ min: 1024, max: 2 ** 33 }), // 4 MiB to 32 TiB
    sectorSize: fc.constantFrom(512, 4096),
    extentsize: fc.constantFrom(65536, 2 ** 20, 2 ** 21, 2 ** 24),
  });
  fc.assert(
    fc.property(medium, ({ blocks, sectorSize, extentsize }) => {
      const mediaSize = blocks * 4096;
      fc.pre(mediaSize / extentsize < 2 ** 30);
      const { localoff } = createLayout({
        kind: "block",
        mediaSize,
        sectorSize,
        extentsize,
        datasize: null,
      });
      // It measures the map by the medium, not by the data (disk format §4).
      const extents = Math.floor((mediaSize - 4096 - 1) / extentsize) + 1;
      const map = sectorSize * Math.ceil((8 * Math.ceil(extents / 64)) / sectorSize);
      expect.ok(4096 + map <= localoff, `${4096 + map} > ${localoff}`);
    }),
    { numRuns: 2000 },
  );
});

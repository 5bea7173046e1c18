// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { countBits, nextSetBit } from "../../src/base/bitmap.ts";
import {
  decodeMetadata,
  encodeMetadata,
  looksLikeMetadata,
  METADATA_SIZE,
} from "../../src/metadata/block.ts";
import { extentCount, freebsdLayout, locate } from "../../src/metadata/layout.ts";
import {
  type Field,
  field,
  golden,
  goldenExists,
  goldenJson,
  goldenPaths,
  zeroNamePadding,
} from "./vectors.ts";

interface Capture {
  readonly fields: readonly Field[];
  readonly nv_bytes_used: number;
  readonly map_offset: number;
  readonly map_bytes: number;
  readonly dirty_extents: readonly number[];
  readonly media_bytes: number;
}

const PATHS = goldenPaths("{metadata,wire/*}/*.json")
  .filter((path) => !path.endsWith("decoded.json"))
  .map((path) => path.slice(0, -".json".length));

test("metadata was captured after create, and at every step of a life", () => {
  expect.equal(PATHS.filter((path) => path.startsWith("metadata/create")).length, 7);
  expect.equal(PATHS.filter((path) => path.startsWith("metadata/life")).length, 30);
  expect.equal(PATHS.filter((path) => path.startsWith("wire/")).length, 6);
});

for (const path of PATHS) {
  const bytes = golden(`${path}.bin`);
  const block = bytes.subarray(0, METADATA_SIZE);
  const capture: Capture = goldenJson(`${path}.json`);
  const big = (name: string): bigint => BigInt(field(capture.fields, name) as number | bigint);

  test(`${path}: the block is read, and written to the byte`, () => {
    expect.ok(looksLikeMetadata(block));
    const metadata = decodeMetadata(block, "r0");
    expect.deepEqual(metadata, {
      resource: field(capture.fields, "resource"),
      datasize: field(capture.fields, "datasize"),
      extentsize: field(capture.fields, "extentsize"),
      keepdirty: field(capture.fields, "keepdirty"),
      localoff: field(capture.fields, "offset"),
      resuid: big("resuid"),
      localcnt: big("localcnt"),
      remotecnt: big("remotecnt"),
      prevrole: field(capture.fields, "prevrole"),
      state: null,
      sequence: null,
      synced: null,
      aloneSince: null,
    });
    expect.deepEqual(encodeMetadata(metadata), zeroNamePadding(block));
  });

  test(`${path}: the activemap is found, with its dirty extents`, () => {
    const media = { mediaSize: capture.media_bytes, sectorSize: 512 };
    if (path.endsWith("create-odd")) {
      // Its last sector is ragged: FreeBSD creates what its own block layer then refuses.
      expect.throws(() => locate("r0", media, { first: block, last: null }), /whole sectors/);
      return;
    }
    const { metadata, layout } = locate("r0", media, { first: block, last: null });
    expect.equal(layout.mapOffset, capture.map_offset);
    expect.equal(layout.mapSize, capture.map_bytes);
    const map = bytes.subarray(layout.mapOffset, layout.mapOffset + layout.mapSize);
    const extents = extentCount(metadata.datasize, metadata.extentsize);
    const dirty: number[] = [];
    for (let extent = nextSetBit(map, 0, extents); extent !== -1; ) {
      dirty.push(extent);
      extent = nextSetBit(map, extent + 1, extents);
    }
    expect.deepEqual(dirty, capture.dirty_extents);
    expect.equal(countBits(map, extents), dirty.length);
  });

  if (!path.startsWith("metadata/create")) continue;

  test(`${path}: freebsdLayout() lays out what the original did`, () => {
    const asked = /-m(\d+)m/.exec(path); // hastctl create -m
    const mediaSize = asked === null ? capture.media_bytes : Number(asked[1]) * 1024 * 1024;
    const extentsize = field(capture.fields, "extentsize") as number;
    const layout = freebsdLayout({ mediaSize, sectorSize: 512, extentsize });
    expect.equal(layout.localoff, field(capture.fields, "offset"));
    expect.equal(layout.datasize, field(capture.fields, "datasize"));
    expect.equal(layout.mapSize, capture.map_bytes);
    expect.ok(goldenExists(`${path}.dump.txt`));
  });
}

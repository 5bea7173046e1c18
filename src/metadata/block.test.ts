// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { crc32 } from "../base/crc32.ts";
import { decodeNv, NvWriter } from "../wire/nv.ts";
import {
  decodeMetadata,
  encodeMetadata,
  explainMetadata,
  looksLikeMetadata,
  METADATA_ERROR_CODES,
  METADATA_SIZE,
  type Metadata,
  MetadataError,
} from "./block.ts";

const FRESH: Metadata = {
  resource: "shared",
  datasize: 1073737216,
  extentsize: 2097152,
  keepdirty: 64,
  localoff: 4608,
  resuid: 0n,
  localcnt: 0n,
  remotecnt: 0n,
  prevrole: "init",
  state: null,
  sequence: null,
  synced: null,
  aloneSince: null,
};

const OURS: Metadata = {
  ...FRESH,
  state: "uptodate",
  sequence: 17n,
  synced: "written",
  aloneSince: 1_700_000_000_000,
};

/** The block with one key left out, or replaced by what `instead` writes. */
function blockWithout(
  metadata: Metadata,
  without: string,
  instead: (nv: NvWriter) => void = () => {},
): Uint8Array {
  const nv = new NvWriter();
  for (const { type, name, data } of decodeNv(encodeMetadata(metadata)).entries) {
    if (name === without) instead(nv);
    else if (name !== "crc") nv.add(type, name, data);
  }
  return padded(nv.finish());
}

function padded(nv: Uint8Array): Uint8Array {
  const block = new Uint8Array(METADATA_SIZE);
  block.set(nv);
  return block;
}

test("the example of the disk format is written to the byte", () => {
  const expected = `
    11 09 07 00 00 00 72 65 73 6f 75 72 63 65 00 00 00 00 00 00 00 00 73 68 61 72 65 64 00 00
    08 09 08 00 00 00 64 61 74 61 73 69 7a 65 00 00 00 00 00 00 00 00 00 ee ff 3f 00 00 00 00
    06 0b 04 00 00 00 65 78 74 65 6e 74 73 69 7a 65 00 00 00 00 00 00 00 00 20 00 00 00 00 00
    06 0a 04 00 00 00 6b 65 65 70 64 69 72 74 79 00 00 00 00 00 00 00 40 00 00 00 00 00 00 00
    08 07 08 00 00 00 6f 66 66 73 65 74 00 00 00 12 00 00 00 00 00 00
    08 07 08 00 00 00 72 65 73 75 69 64 00 00 00 00 00 00 00 00 00 00
    08 09 08 00 00 00 6c 6f 63 61 6c 63 6e 74 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
    08 0a 08 00 00 00 72 65 6d 6f 74 65 63 6e 74 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
    11 09 05 00 00 00 70 72 65 76 72 6f 6c 65 00 00 00 00 00 00 00 00 69 6e 69 74 00 00 00 00`;
  const block = encodeMetadata(FRESH);
  const hex = Buffer.from(block.subarray(0, 254)).toString("hex");
  expect.equal(hex, expected.replace(/\s/g, ""));
  expect.equal(block.length, METADATA_SIZE);
  expect.ok(block.subarray(254).every((byte) => byte === 0));
});

test("our own keys come last, with the checksum after them, so that FreeBSD reads the rest", () => {
  const names = decodeNv(encodeMetadata(OURS)).entries.map(({ name }) => name);
  expect.deepEqual(names.slice(8), ["prevrole", "state", "sequence", "synced", "alone", "crc"]);
});

test("with a name of up to 127 characters everything fits one sector of 512 bytes", () => {
  const size = (length: number): number =>
    decodeNv(
      encodeMetadata({
        ...OURS,
        resource: "r".repeat(length),
        state: "inconsistent",
        prevrole: "secondary",
        synced: "filling",
      }),
    ).size;
  expect.ok(size(127) <= 512);
  expect.ok(size(128) > 512);
});

const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const name = fc
  .string({ minLength: 1, maxLength: 127, unit: "grapheme" })
  .filter((text) => !text.includes("\0"));
const u53 = fc.nat({ max: Number.MAX_SAFE_INTEGER });
const own = fc.oneof(
  fc.constant({ state: null, sequence: null, synced: null, aloneSince: null }),
  fc.record({
    state: fc.constantFrom("new", "uptodate", "consistent", "outdated", "inconsistent"),
    sequence: u64,
    synced: fc.constantFrom("written", "filling", "all", null),
    aloneSince: fc.option(u53),
  }),
);
const metadata = fc
  .tuple(
    fc.record({
      resource: name,
      datasize: u53,
      extentsize: fc.nat({ max: 0xffff_ffff }),
      keepdirty: fc.nat({ max: 0xffff_ffff }),
      localoff: u53,
      resuid: u64,
      localcnt: u64,
      remotecnt: u64,
      prevrole: fc.constantFrom("init", "primary", "secondary"),
    }),
    own,
  )
  .map(([common, ours]) => ({ ...common, ...ours }) as Metadata);

test("metadata survives encoding and decoding", () => {
  fc.assert(
    fc.property(metadata, (each) => {
      const block = encodeMetadata(each);
      expect.ok(looksLikeMetadata(block));
      expect.deepEqual(decodeMetadata(block, each.resource), each);
      expect.deepEqual(decodeMetadata(block, null), each);
    }),
  );
});

test("a block of another resource is refused, naming both", () => {
  expect.throws(() => decodeMetadata(encodeMetadata(OURS), "other"), {
    name: "MetadataError",
    code: "foreign-resource",
    message: /"shared".*"other"/,
  });
});

for (const { name: key } of decodeNv(encodeMetadata(OURS)).entries) {
  test(`a block without ${key} is refused, naming it`, () => {
    const block = blockWithout(OURS, key);
    // Without its own checksum the block is only incomplete: crc itself is then the missing key.
    const message = key === "crc" ? /"crc"/ : new RegExp(`"(${key}|crc)"`);
    expect.throws(() => decodeMetadata(block, "shared"), { code: "missing-key", message });
  });
}

for (const { name: key } of decodeNv(encodeMetadata(FRESH)).entries) {
  test(`a FreeBSD block without ${key}, or with it as another type, is refused, naming it`, () => {
    const expected = { code: "missing-key", message: new RegExp(`"${key}"`) };
    expect.throws(() => decodeMetadata(blockWithout(FRESH, key), "shared"), expected);
    const mistyped = blockWithout(FRESH, key, (nv) => nv.i16(key, 1));
    expect.throws(() => decodeMetadata(mistyped, "shared"), expected);
  });
}

test("an unknown previous role is ignored; it decides nothing", () => {
  const block = blockWithout(FRESH, "prevrole", (nv) => nv.string("prevrole", "king"));
  expect.equal(decodeMetadata(block, "shared").prevrole, "init");
});

test("a copy state that this version does not know is refused, not guessed at", () => {
  const block = blockWithout(OURS, "state", (nv) => nv.string("state", "quantum"));
  expect.throws(() => decodeMetadata(block, "shared"), {
    code: "newer-version",
    message: /quantum/,
  });
});

test("a feature that this version does not know is refused, and so is one that is no word", () => {
  const withFeature = (add: (nv: NvWriter) => NvWriter): Uint8Array =>
    blockWithout(OURS, "crc", (nv) => nv.u32("crc", crc32(add(nv).finish())));
  for (const [add, said] of [
    [(nv: NvWriter) => nv.string("features", "wide-extents"), "wide-extents"],
    [(nv: NvWriter) => nv.string("features", "wide-extents other"), "wide-extents"],
    [(nv: NvWriter) => nv.string("features", ""), ""],
    [(nv: NvWriter) => nv.u8("features", 1), ""],
  ] as const) {
    expect.throws(() => decodeMetadata(withFeature(add), "shared"), {
      code: "newer-version",
      message: new RegExp(`newer version of hast .* "features" says "${said}"`),
    });
  }
  // A key that asks for nothing is no obstacle.
  expect.deepEqual(
    decodeMetadata(
      withFeature((nv) => nv.u8("colour", 7)),
      "shared",
    ),
    OURS,
  );
});

test("sizes beyond 8 PiB are refused", () => {
  for (const key of ["datasize", "offset"]) {
    const block = blockWithout(FRESH, key, (nv) => nv.u64(key, 1n << 53n));
    expect.throws(() => decodeMetadata(block, "shared"), { code: "bad-value" });
  }
});

test("any flipped bit in a block of ours is noticed, or lies where nobody reads", () => {
  const block = encodeMetadata(OURS);
  const { size, entries } = decodeNv(block);
  const crc = entries.find(({ name: key }) => key === "crc")!;
  for (let bit = 0; bit < size * 8; bit++) {
    const damaged = block.slice();
    damaged[bit >> 3]! ^= 1 << (bit & 7);
    let decoded: Metadata;
    try {
      decoded = decodeMetadata(damaged, "shared");
    } catch (error) {
      expect.ok(error instanceof MetadataError, String(error));
      continue;
    }
    expect.ok(bit >> 3 >= crc.start, `byte ${bit >> 3} is not covered`);
    expect.deepEqual(decoded, OURS);
  }
});

test("a block FreeBSD has written over ours is FreeBSD's", () => {
  const block = encodeMetadata({ ...OURS, localcnt: 3n });
  block.set(encodeMetadata({ ...FRESH, localcnt: 4n }));
  const decoded = decodeMetadata(block, "shared");
  expect.deepEqual([decoded.localcnt, decoded.state, decoded.sequence], [4n, null, null]);
});

test("what is not metadata is told from what is damaged", () => {
  const zeroes = new Uint8Array(METADATA_SIZE);
  expect.throws(() => decodeMetadata(zeroes, "r"), {
    code: "not-metadata",
    message: /begins with a zero/,
  });
  const noise = new Uint8Array(METADATA_SIZE).fill(0x55);
  expect.throws(() => decodeMetadata(noise, "r"), { code: "not-metadata", message: /byte 0/ });
  expect.ok(!looksLikeMetadata(zeroes));
  expect.ok(!looksLikeMetadata(noise));
  const damaged = encodeMetadata(FRESH);
  damaged[30] = 0x77;
  expect.ok(looksLikeMetadata(damaged));
  expect.throws(() => decodeMetadata(damaged, "shared"), { message: /byte 30/ });
});

test("arbitrary bytes give metadata or a MetadataError", () => {
  const good = encodeMetadata(OURS).subarray(0, 400);
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc
      .array(fc.tuple(fc.nat({ max: 399 }), fc.nat({ max: 255 })), { maxLength: 4 })
      .map((changes) => {
        const damaged = good.slice();
        for (const [place, value] of changes) damaged[place] = value;
        return damaged;
      }),
  );
  fc.assert(
    fc.property(bytes, (each) => {
      const block = padded(each);
      looksLikeMetadata(block);
      try {
        decodeMetadata(block, null);
      } catch (error) {
        expect.ok(error instanceof MetadataError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

test("explainMetadata() names the disk, what is true, and what to do, for every error", () => {
  for (const code of METADATA_ERROR_CODES) {
    const text = explainMetadata(new MetadataError(code, "it is so"), "/dev/sdb", "shared");
    expect.match(text, /^\/dev\/sdb: it is so\. [A-Z].*[^.]$/);
  }
  const none = explainMetadata(new MetadataError("not-metadata", "none"), "/d", "shared");
  expect.match(none, /lost\): hastctl create shared$/);
});

// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { WireError } from "./error.ts";
import {
  decodeNv,
  NV_INT32,
  NV_STRING,
  NV_UINT8,
  NV_UINT8_ARRAY,
  NV_UINT16_ARRAY,
  NV_UINT32,
  NvWriter,
} from "./nv.ts";

/** One entry, with any header. `name` includes its NUL, if it shall have one. */
function entry(type: number, name: string, dataSize: number, data: readonly number[]): Uint8Array {
  const nameBytes = new TextEncoder().encode(name);
  const nameRoom = 8 * Math.ceil(nameBytes.length / 8);
  const bytes = new Uint8Array(6 + nameRoom + 8 * Math.ceil(data.length / 8));
  bytes[0] = type;
  bytes[1] = nameBytes.length;
  new DataView(bytes.buffer).setUint32(2, dataSize, true);
  bytes.set(nameBytes, 6);
  bytes.set(data, 6 + nameRoom);
  return bytes;
}

function join(...pieces: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(pieces));
}

test("an empty block is an empty list", () => {
  expect.equal(decodeNv(new Uint8Array(0)).entries.length, 0);
});

test("decodeNv() stops at a zero type byte, whatever follows", () => {
  const list = decodeNv(
    join(new NvWriter().u8("a", 7).finish(), Uint8Array.of(0, 0xff, 0xff, 0xff)),
  );
  expect.equal(list.entries.length, 1);
  expect.equal(list.size, 22);
  expect.equal(list.u8("a"), 7);
});

test("decodeNv() takes the host-order flag for what it says on a little-endian host", () => {
  const list = decodeNv(entry(NV_UINT32 | 0x80, "n\0", 4, [1, 2, 0, 0]));
  expect.equal(list.u32("n"), 0x201);
});

test("decodeNv() ignores what lies in the padding", () => {
  const bytes = entry(NV_UINT8, "n\0", 1, [5, 0xee, 0xee, 0xee]);
  bytes.fill(0xdd, 8, 14);
  expect.equal(decodeNv(bytes).u8("n"), 5);
});

test("BD-41: nothing but zeroes lies behind a name or a value", () => {
  for (let length = 1; length <= 9; length++) {
    const list = new NvWriter().string("n".repeat(length), "v".repeat(length)).finish();
    const room = 8 * Math.ceil((length + 1) / 8);
    expect.deepEqual([...list.subarray(6 + length, 6 + room)], new Array(room - length).fill(0));
    expect.deepEqual([...list.subarray(6 + room + length)], new Array(room - length).fill(0));
  }
});

const REJECTED: readonly [why: string, bytes: Uint8Array, code: string][] = [
  ["seven bytes", entry(NV_UINT8, "n\0", 1, [1]).subarray(0, 7), "nv-truncated"],
  [
    "a name that is cut off",
    entry(NV_UINT8, "0123456789\0", 1, []).subarray(0, 20),
    "nv-truncated",
  ],
  ["a name without NUL", entry(NV_UINT8, "name", 1, [1]), "nv-invalid"],
  ["a name of no bytes", entry(NV_UINT8, "", 1, [1]), "nv-invalid"],
  ["a NUL within the name", entry(NV_UINT8, "a\0b\0", 1, [1]), "nv-invalid"],
  ["type 18", entry(18, "n\0", 1, [1]), "nv-invalid"],
  ["type 0 behind the host-order flag", entry(0x80, "n\0", 1, [1]), "nv-invalid"],
  ["a value of no bytes", entry(NV_UINT8_ARRAY, "n\0", 0, []), "nv-invalid"],
  ["a value that is cut off", entry(NV_UINT8_ARRAY, "n\0", 9, [1]), "nv-truncated"],
  ["padding that is cut off", entry(NV_UINT8, "n\0", 1, [1]).subarray(0, 21), "nv-truncated"],
  ["a size that 32 bits round to 0", entry(NV_UINT8_ARRAY, "n\0", 0xfffffff9, [1]), "nv-truncated"],
  ["the largest size", entry(NV_STRING, "n\0", 0xffffffff, [1]), "nv-truncated"],
  ["a uint8 of two bytes", entry(NV_UINT8, "n\0", 2, [1, 1]), "nv-invalid"],
  ["a uint32 of eight bytes", entry(NV_UINT32, "n\0", 8, [1, 1, 1, 1, 1, 1, 1, 1]), "nv-invalid"],
  ["a ragged uint16 array", entry(NV_UINT16_ARRAY, "n\0", 3, [1, 2, 3]), "nv-invalid"],
  ["a ragged int64 array", entry(15, "n\0", 4, [1, 2, 3, 4]), "nv-invalid"],
  ["a string without NUL", entry(NV_STRING, "n\0", 2, [65, 66]), "nv-invalid"],
  ["a NUL within the string", entry(NV_STRING, "n\0", 3, [65, 0, 0]), "nv-invalid"],
];

for (const [why, bytes, code] of REJECTED) {
  test(`decodeNv() rejects ${why}`, () => {
    expect.throws(() => decodeNv(bytes), { name: "WireError", code });
    // Also where the damage comes second, and then it says where.
    const behind = join(new NvWriter().u8("a", 7).finish(), bytes);
    expect.throws(() => decodeNv(behind), { name: "WireError", code, message: /byte 22/ });
  });
}

test("a lookup takes the first entry of that name, and gives up if its type is another", () => {
  const list = decodeNv(
    new NvWriter().i32("n", -1).u32("n", 5).u8("m", 1).u8("m", 2).string("s", "x").finish(),
  );
  expect.equal(list.u32("n"), null);
  expect.equal(list.i32("n"), -1);
  expect.equal(list.u8("m"), 1);
  expect.equal(list.string("m"), null);
  expect.equal(list.bytes("s"), null);
  expect.equal(list.u64("absent"), null);
  expect.ok(list.exists("n") && list.exists("s") && !list.exists("absent"));
});

test("names that differ in bytes are different names", () => {
  const wrong = entry(NV_UINT8, "nXX\0", 1, [9]);
  wrong.set([0xff, 0xfe], 7);
  const list = decodeNv(wrong);
  expect.equal(list.u8("n\ufffd\ufffd"), null);
  expect.equal(list.u8("n\xff\xfe"), 9);
});

test("a list survives encoding and decoding, whatever its values", () => {
  const name = fc.stringMatching(/^[a-z_]{1,40}$/);
  const value = fc.oneof(
    fc.record({ kind: fc.constant("u8" as const), value: fc.nat({ max: 255 }) }),
    fc.record({ kind: fc.constant("i8" as const), value: fc.integer({ min: -128, max: 127 }) }),
    fc.record({
      kind: fc.constant("i16" as const),
      value: fc.integer({ min: -32768, max: 32767 }),
    }),
    fc.record({ kind: fc.constant("i32" as const), value: fc.integer() }),
    fc.record({ kind: fc.constant("u32" as const), value: fc.nat({ max: 0xffff_ffff }) }),
    fc.record({
      kind: fc.constant("u64" as const),
      value: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
    }),
    fc.record({
      kind: fc.constant("i64" as const),
      value: fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n }),
    }),
    fc.record({
      kind: fc.constant("string" as const),
      value: fc.string({ unit: "grapheme" }).filter((text) => !text.includes("\0")),
    }),
    fc.record({
      kind: fc.constant("bytes" as const),
      value: fc.uint8Array({ minLength: 1, maxLength: 40 }),
    }),
  );
  fc.assert(
    fc.property(fc.uniqueArray(fc.tuple(name, value), { selector: ([key]) => key }), (pairs) => {
      const writer = new NvWriter();
      for (const [key, { kind, value: given }] of pairs) {
        if (kind === "u64" || kind === "i64") writer[kind](key, given);
        else if (kind === "string") writer.string(key, given);
        else if (kind === "bytes") writer.bytes(key, given);
        else writer[kind](key, given);
      }
      const list = decodeNv(writer.finish());
      expect.equal(list.entries.length, pairs.length);
      for (const [key, { kind, value: given }] of pairs) {
        if (kind === "i8") expect.equal(list.exists(key), true);
        else expect.deepEqual(list[kind](key), given);
      }
    }),
  );
});

test("arbitrary bytes give a list or a WireError", () => {
  const plausible = fc
    .array(
      fc.tuple(
        fc.nat({ max: 255 }),
        fc.constantFrom("cmd\0", "a\0b\0", "seq", "resource\0", ""),
        fc.oneof(fc.nat({ max: 20 }), fc.nat({ max: 0xffff_ffff })),
        fc.array(fc.nat({ max: 255 }), { maxLength: 20 }),
      ),
      { maxLength: 4 },
    )
    .map((entries) => join(...entries.map((each) => entry(...each))));
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), plausible), (bytes) => {
      try {
        const list = decodeNv(bytes);
        expect.ok(list.size <= bytes.length);
      } catch (error) {
        expect.ok(error instanceof WireError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

test("NvWriter takes our own mistakes for what they are", () => {
  const mistakes: ((writer: NvWriter) => unknown)[] = [
    (writer) => writer.u8("n", 256),
    (writer) => writer.u32("n", -1),
    (writer) => writer.i16("n", 32768),
    (writer) => writer.u64("n", -1n),
    (writer) => writer.i64("n", 1n << 63n),
    (writer) => writer.string("n", "a\0b"),
    (writer) => writer.bytes("n", new Uint8Array(0)),
    (writer) => writer.u8("", 1),
    (writer) => writer.u8("n".repeat(255), 1),
  ];
  for (const mistake of mistakes) {
    expect.throws(() => mistake(new NvWriter()), { name: "AssertionError" });
  }
  expect.equal(
    decodeNv(new NvWriter().i32("n".repeat(254), 1).finish()).entries[0]!.type,
    NV_INT32,
  );
});

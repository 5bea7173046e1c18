// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { WireError } from "./error.ts";
import { LzfCompressor, lzfDecompress } from "./lzf.ts";

/** Decompresses into the middle of more memory, of which nothing else may change. */
function unpack(hex: string, length: number): string {
  const bytes = new Uint8Array(Buffer.from(hex.replaceAll(" ", ""), "hex"));
  const out = new Uint8Array(length + 600).fill(0xaa);
  try {
    lzfDecompress(bytes, 0, bytes.length, out, 300, 300 + length);
  } finally {
    expect.ok(out.subarray(0, 300).every((byte) => byte === 0xaa));
    expect.ok(out.subarray(300 + length).every((byte) => byte === 0xaa));
  }
  return Buffer.from(out.subarray(300, 300 + length)).toString();
}

test("the stream of wire protocol §13 is abcdefgh, 512 times", () => {
  const stream =
    "08616263646566676861 e0ff07 e1ff07e1ff07e1ff07e1ff07e1ff07e1ff07e1ff07" +
    "e1ff07e1ff07e1ff07e1ff07e1ff07e1ff07e1ff07 e17407 016768";
  expect.equal(unpack(stream, 4096), "abcdefgh".repeat(512));
});

test("a copy may overlap what it produces", () => {
  expect.equal(unpack("0061 e00000", 10), "aaaaaaaaaa");
});

const DAMAGED: readonly [why: string, hex: string, length: number][] = [
  ["literals past the end of the stream", "0361", 4],
  ["literals past the announced length", "026162 63", 2],
  ["a copy length that is missing", "0061 e0", 300],
  ["a copy distance that is missing", "0061 20", 4],
  ["a long copy's distance that is missing", "0061 e001", 11],
  ["a copy from before the beginning", "0061 2001", 4],
  ["a copy as the first thing", "2000", 3],
  ["a copy past the announced length", "0061 2000", 3],
  ["fewer bytes than announced", "0061", 2],
  ["an empty stream", "", 1],
];

for (const [why, hex, length] of DAMAGED) {
  test(`lzfDecompress() rejects ${why}`, () => {
    expect.throws(() => unpack(hex, length), { name: "WireError", code: "lzf-damaged" });
  });
}

/** Data in which something repeats, near and far. */
const compressible = fc
  .array(
    fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc
        .tuple(fc.uint8Array({ minLength: 1, maxLength: 9 }), fc.nat({ max: 300 }))
        .map(([piece, count]) =>
          Uint8Array.from({ length: count }, (_, index) => piece[index % piece.length]!),
        ),
      fc.constant(new TextEncoder().encode("hast-0123456789")),
      fc.nat({ max: 9000 }).map((length) => new Uint8Array(length)),
    ),
    { minLength: 1, maxLength: 12 },
  )
  .map((pieces) => new Uint8Array(Buffer.concat(pieces)))
  .filter((bytes) => bytes.length > 0);

test("what is compressed comes out as it went in, call after call, and touches nothing else", () => {
  const compressor = new LzfCompressor(); // one for all: stale table entries must not matter
  fc.assert(
    fc.property(compressible, fc.nat({ max: 9 }), (data, shift) => {
      const input = new Uint8Array(data.length + 2 * shift).fill(0xcc);
      input.set(data, shift);
      const room = 2 * data.length + 8;
      const packed = new Uint8Array(shift + room + 1).fill(0xbb);
      const size = compressor.compress(input, shift, data.length, packed, shift, shift + room);
      expect.ok(size > 0);
      expect.ok(packed.subarray(0, shift).every((byte) => byte === 0xbb));
      expect.equal(packed[shift + room], 0xbb);

      const out = new Uint8Array(shift + data.length + 1).fill(0xaa);
      lzfDecompress(packed, shift, shift + size, out, shift, shift + data.length);
      expect.deepEqual(out.subarray(shift, shift + data.length), data);
      expect.equal(out[shift + data.length], 0xaa);
      expect.ok(out.subarray(0, shift).every((byte) => byte === 0xaa));
    }),
  );
});

test("compress() says 0 and stays within its bounds where the result does not fit", () => {
  const compressor = new LzfCompressor();
  fc.assert(
    fc.property(compressible, fc.nat({ max: 1000 }), (data, cut) => {
      const whole = new Uint8Array(2 * data.length + 8);
      const size = compressor.compress(data, 0, data.length, whole, 0, whole.length);
      const room = Math.max(0, size - 1 - cut);
      const out = new Uint8Array(room + 300).fill(0xbb);
      expect.equal(compressor.compress(data, 0, data.length, out, 0, room), 0);
      expect.ok(out.subarray(room).every((byte) => byte === 0xbb));
    }),
  );
});

test("compress() never refers to what lies before its input, though it has seen it", () => {
  const compressor = new LzfCompressor();
  const piece = new TextEncoder().encode("abcdefghijklmnopqrstuvwxyz0123456789");
  const twice = Uint8Array.of(...piece, ...piece);
  const packed = new Uint8Array(100);
  const out = new Uint8Array(piece.length);
  for (const at of [0, piece.length]) {
    const size = compressor.compress(twice, at, piece.length, packed, 0, packed.length);
    lzfDecompress(packed, 0, size, out, 0, out.length);
    expect.deepEqual(out, piece);
  }
});

test("the table survives running out of positions", () => {
  const compressor = new LzfCompressor();
  const data = new TextEncoder().encode("abcabcabcabc".repeat(1000));
  const big = new Uint8Array(20 * 1024 * 1024); // four of these pass the highest position
  const scratch = new Uint8Array(1024 * 1024);
  const out = new Uint8Array(data.length);
  for (let round = 0; round < 8; round++) {
    compressor.compress(big, 0, big.length, scratch, 0, scratch.length);
    const size = compressor.compress(data, 0, data.length, scratch, 0, scratch.length);
    lzfDecompress(scratch, 0, size, out, 0, out.length);
    expect.deepEqual(out, data);
  }
});

test("arbitrary bytes decompress or give a WireError, and nothing beyond the bounds is touched", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat({ max: 600 }), (bytes, length) => {
      const out = new Uint8Array(7 + length + 300).fill(0xaa);
      try {
        lzfDecompress(bytes, 0, bytes.length, out, 7, 7 + length);
      } catch (error) {
        expect.ok(error instanceof WireError, String(error));
      }
      expect.ok(out.subarray(0, 7).every((byte) => byte === 0xaa));
      expect.ok(out.subarray(7 + length).every((byte) => byte === 0xaa));
    }),
    { numRuns: 1000 },
  );
});

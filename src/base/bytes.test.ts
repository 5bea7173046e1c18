// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import {
  getI16,
  getI32,
  getU16,
  getU16BE,
  getU32,
  getU32BE,
  getU64,
  getU64BE,
  getU64Big,
  putU16,
  putU16BE,
  putU32,
  putU32BE,
  putU64,
  putU64BE,
  putU64Big,
  putU64Halves,
  putU64HalvesBE,
} from "./bytes.ts";

const at = fc.nat({ max: 5 });
const u16 = fc.nat({ max: 0xffff });
const u32 = fc.nat({ max: 0xffff_ffff });
const u53 = fc.nat({ max: Number.MAX_SAFE_INTEGER });
const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });

/** An array, a DataView of it, and sentinels around the place written to. */
function place(): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(16).fill(0x5a);
  return { bytes, view: new DataView(bytes.buffer) };
}

test("16 and 32 bit integers are those of DataView, in both byte orders", () => {
  fc.assert(
    fc.property(at, u16, u32, (start, short, long) => {
      const { bytes, view } = place();
      putU16(bytes, start, short);
      expect.equal(view.getUint16(start, true), short);
      expect.equal(getU16(bytes, start), short);
      expect.equal(getI16(bytes, start), view.getInt16(start, true));
      expect.equal(bytes[start + 2], 0x5a);
      putU16BE(bytes, start, short);
      expect.equal(view.getUint16(start), short);
      expect.equal(getU16BE(bytes, start), short);

      putU32(bytes, start, long);
      expect.equal(view.getUint32(start, true), long);
      expect.equal(getU32(bytes, start), long);
      expect.equal(getI32(bytes, start), view.getInt32(start, true));
      expect.equal(bytes[start + 4], 0x5a);
      putU32BE(bytes, start, long);
      expect.equal(view.getUint32(start), long);
      expect.equal(getU32BE(bytes, start), long);
    }),
  );
});

test("64 bit integers up to 2^53 - 1 are those of DataView, in both byte orders", () => {
  fc.assert(
    fc.property(at, u53, (start, value) => {
      const { bytes, view } = place();
      putU64(bytes, start, value);
      expect.equal(view.getBigUint64(start, true), BigInt(value));
      expect.equal(getU64(bytes, start), value);
      expect.equal(bytes[start + 8], 0x5a);
      putU64BE(bytes, start, value);
      expect.equal(view.getBigUint64(start), BigInt(value));
      expect.equal(getU64BE(bytes, start), value);
    }),
    {
      examples: [
        [0, Number.MAX_SAFE_INTEGER],
        [3, 2 ** 32],
        [1, 2 ** 32 - 1],
        [0, 2 ** 52 + 1],
      ],
    },
  );
});

test("getU64() says -1 where a number could not hold the value", () => {
  fc.assert(
    fc.property(u64, (value) => {
      const { bytes, view } = place();
      const expected = value > Number.MAX_SAFE_INTEGER ? -1 : Number(value);
      view.setBigUint64(4, value, true);
      expect.equal(getU64(bytes, 4), expected);
      expect.equal(getU64Big(bytes, 4), value);
      view.setBigUint64(4, value);
      expect.equal(getU64BE(bytes, 4), expected);
    }),
    { examples: [[(1n << 53n) - 1n], [1n << 53n], [(1n << 64n) - 1n]] },
  );
});

test("halves and BigInts write all 64 bits", () => {
  const { bytes, view } = place();
  putU64Halves(bytes, 3, 0x01234567, 0x89abcdef);
  expect.equal(view.getBigUint64(3, true), 0x0123456789abcdefn);
  putU64HalvesBE(bytes, 3, 0x01234567, 0x89abcdef);
  expect.equal(view.getBigUint64(3), 0x0123456789abcdefn);
  putU64Big(bytes, 3, 0xfedcba9876543210n);
  expect.equal(view.getBigUint64(3, true), 0xfedcba9876543210n);
});

test("a value that does not fit is our mistake", () => {
  const { bytes } = place();
  for (const value of [-1, 0.5, 2 ** 53, Number.NaN]) {
    expect.throws(() => putU64(bytes, 0, value), { name: "AssertionError" });
    expect.throws(() => putU64BE(bytes, 0, value), { name: "AssertionError" });
  }
  expect.throws(() => putU64Big(bytes, 0, -1n), { name: "AssertionError" });
  expect.throws(() => putU64Big(bytes, 0, 1n << 64n), { name: "AssertionError" });
});

// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { crc32 as zlibCrc32 } from "node:zlib";
import fc from "fast-check";
import { crc32 } from "./crc32.ts";

test("crc32() has the check value of CRC-32/ISO-HDLC", () => {
  expect.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
  expect.equal(crc32(new Uint8Array(0)), 0);
});

test("crc32() agrees with zlib", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      expect.equal(crc32(bytes), zlibCrc32(bytes));
    }),
  );
});

// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { WireError } from "./error.ts";
import { encodeFrame, NV_SIZE_MAX, peekFrame } from "./frame.ts";

function header(version: number, nvSize: number): Uint8Array {
  const bytes = new Uint8Array(5);
  bytes[0] = version;
  new DataView(bytes.buffer).setUint32(1, nvSize, true);
  return bytes;
}

test("peekFrame() reads what encodeFrame() wrote, wherever it lies", () => {
  const message = encodeFrame(2, new Uint8Array(52).fill(9));
  expect.deepEqual(message.subarray(0, 5), header(2, 52));
  expect.equal(message.length, 57);
  const shifted = new Uint8Array(100);
  shifted.set(message, 11);
  expect.equal(peekFrame(shifted, 11, 68), 52);
});

test("peekFrame() waits for five bytes, and for no more", () => {
  const bytes = header(1, 1000);
  for (let end = 0; end < 5; end++) expect.equal(peekFrame(bytes, 0, end), "incomplete");
  expect.equal(peekFrame(bytes, 0, 5), 1000);
});

test("peekFrame() accepts versions 0 to 2 and drops any other", () => {
  for (const version of [0, 1, 2]) expect.equal(peekFrame(header(version, 8), 0, 5), 8);
  for (const version of [3, 255]) {
    expect.throws(() => peekFrame(header(version, 8), 0, 5), { code: "frame-version" });
  }
});

test("peekFrame() believes no size but a reasonable one", () => {
  expect.equal(peekFrame(header(2, NV_SIZE_MAX), 0, 5), NV_SIZE_MAX);
  expect.throws(() => peekFrame(header(2, 0), 0, 5), { code: "frame-empty" });
  expect.throws(() => peekFrame(header(2, NV_SIZE_MAX + 1), 0, 5), { code: "frame-too-large" });
  expect.throws(() => peekFrame(header(2, 0xffff_ffff), 0, 5), { code: "frame-too-large" });
  expect.equal(peekFrame(header(2, NV_SIZE_MAX + 1), 0, 5, NV_SIZE_MAX + 1), NV_SIZE_MAX + 1);
});

test("arbitrary bytes give a size, a wait or a WireError", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 12 }), (bytes) => {
      try {
        const size = peekFrame(bytes, 0, bytes.length);
        expect.ok(size === "incomplete" ? bytes.length < 5 : size >= 1 && size <= NV_SIZE_MAX);
      } catch (error) {
        expect.ok(error instanceof WireError, String(error));
      }
    }),
  );
});

// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { putBlockStatus, putError, putNone, putOffsetData, putSimpleReply } from "./reply.ts";

const HI = 0x8123_4567;
const LO = 0x89ab_cdef;

/** What `put` writes at byte 3, in hexadecimal; nothing else may be touched. */
function written(put: (out: Uint8Array, at: number) => number): string {
  const out = Buffer.alloc(80, 0xee);
  const end = put(out, 3);
  const rest = Buffer.concat([out.subarray(0, 3), out.subarray(end)]);
  expect.ok(
    rest.every((byte) => byte === 0xee),
    "a byte outside was changed",
  );
  return out.subarray(3, end).toString("hex");
}

test("putSimpleReply() writes magic, error and cookie", () => {
  expect.equal(
    written((out, at) => putSimpleReply(out, at, HI, LO, 28)),
    "67446698" + "0000001c" + "8123456789abcdef",
  );
});

test("putNone() writes an empty last chunk", () => {
  expect.equal(
    written((out, at) => putNone(out, at, HI, LO)),
    "668e33ef" + "0001" + "0000" + "8123456789abcdef" + "00000000",
  );
});

test("putError() writes a last chunk with the error and no message", () => {
  expect.equal(
    written((out, at) => putError(out, at, HI, LO, 5)),
    "668e33ef" + "0001" + "8001" + "8123456789abcdef" + "00000006" + "00000005" + "0000",
  );
});

test("putError() is not for successes", () => {
  expect.throws(() => putError(Buffer.alloc(80), 0, HI, LO, 0), { name: "AssertionError" });
});

test("putOffsetData() writes a last chunk whose length counts the offset and the data", () => {
  const offset = 0x12_3456_789a_bcde;
  expect.equal(
    written((out, at) => putOffsetData(out, at, HI, LO, offset, 0x1000)),
    "668e33ef" + "0001" + "0001" + "8123456789abcdef" + "00001008" + "00123456789abcde",
  );
});

test("putOffsetData() refuses an empty chunk, which the protocol forbids", () => {
  expect.throws(() => putOffsetData(Buffer.alloc(80), 0, HI, LO, 0, 0), { name: "AssertionError" });
});

test("putBlockStatus() writes a context's extents, and DONE on the last context", () => {
  const extents = Uint32Array.of(0x200, 3, 0xffff_fe00, 0, 9, 9);
  const body = "00000007" + "00000200" + "00000003" + "fffffe00" + "00000000";
  for (const [last, flags] of [
    [false, "0000"],
    [true, "0001"],
  ] as const) {
    expect.equal(
      written((out, at) => putBlockStatus(out, at, HI, LO, 7, extents, 2, last)),
      `668e33ef${flags}00058123456789abcdef00000014${body}`,
    );
  }
});

test("putBlockStatus() refuses no extents, empty extents and a count beyond the array", () => {
  const out = Buffer.alloc(80);
  for (const [extents, count] of [
    [Uint32Array.of(1, 0), 0],
    [Uint32Array.of(0, 0), 1],
    [Uint32Array.of(1, 0), 2],
  ] as const) {
    expect.throws(() => putBlockStatus(out, 0, HI, LO, 1, extents, count, true), {
      name: "AssertionError",
    });
  }
});

test("every answer is refused where it does not fit, instead of being cut", () => {
  const one = Uint32Array.of(512, 0);
  const puts: readonly ((out: Uint8Array) => number)[] = [
    (out) => putSimpleReply(out, 0, HI, LO, 0),
    (out) => putNone(out, 0, HI, LO),
    (out) => putError(out, 0, HI, LO, 5),
    (out) => putOffsetData(out, 0, HI, LO, 0, 1),
    (out) => putBlockStatus(out, 0, HI, LO, 1, one, 1, true),
  ];
  for (const put of puts) {
    const size = put(Buffer.alloc(100));
    put(Buffer.alloc(size));
    expect.throws(() => put(Buffer.alloc(size - 1)), { name: "AssertionError" });
  }
});

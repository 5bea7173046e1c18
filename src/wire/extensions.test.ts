// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import {
  CMD_STATE,
  EXT_ALIVE,
  EXT_KEPT,
  EXT_SOLE,
  EXT_STATE,
  EXT_WHOLE,
  EXT_ZERO,
  EXTENSIONS,
  encodeState,
} from "./extensions.ts";
import { FRAME_HEADER_SIZE } from "./frame.ts";
import { decodeNv } from "./nv.ts";
import { decodeRequest, RequestHeader } from "./request.ts";

test("STATE is a request like the others, with its seq and no payload", () => {
  const message = encodeState(2, 2 ** 40 + 7, "inconsistent", (1n << 64n) - 1n, 0n, "written");
  const header = new RequestHeader();
  expect.ok(decodeRequest(message, 0, message.length, header));
  expect.deepEqual([header.version, header.cmd, header.size], [2, CMD_STATE, 0]);
  expect.deepEqual([header.seqHi, header.seqLo, header.hasSeq], [256, 7, true]);
  expect.equal(header.headerEnd, message.length);

  const nv = decodeNv(message.subarray(FRAME_HEADER_SIZE));
  expect.equal(nv.string("state"), "inconsistent");
  expect.equal(nv.u64("localcnt"), (1n << 64n) - 1n);
  expect.equal(nv.string("synced"), "written");
});

test("only `sole` carries what the primary remembers of its peer's count", () => {
  const remotecnt = (state: "uptodate" | "sole") =>
    decodeNv(encodeState(2, 1, state, 5n, 6n).subarray(FRAME_HEADER_SIZE)).u64("remotecnt");
  expect.deepEqual([remotecnt("uptodate"), remotecnt("sole")], [null, 6n]);
});

test("extensions are bits of their own", () => {
  const bits = [EXT_STATE, EXT_ZERO, EXT_SOLE, EXT_WHOLE, EXT_ALIVE, EXT_KEPT];
  expect.deepEqual(bits, [1n, 2n, 4n, 16n, 64n, 128n]);
  expect.equal(EXTENSIONS, 215n);
});

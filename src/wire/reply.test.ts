// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { WireError } from "./error.ts";
import { encodeFrame } from "./frame.ts";
import { NvWriter } from "./nv.ts";
import {
  CHECKSUM_CRC32,
  CHECKSUM_NONE,
  CHECKSUM_SHA256,
  COMPRESSION_HOLE,
  COMPRESSION_LZF,
  COMPRESSION_NONE,
  OutgoingPayload,
} from "./payload.ts";
import { decodeReply, encodeReply, REPLY_HEADER_MAX, ReplyHeader } from "./reply.ts";

const SEQ_8 = "08040800000073657100000000000800000000000000";
const EXAMPLES: readonly [what: string, received: boolean, error: number, hex: string][] = [
  [
    "first reply to a memsync WRITE",
    true,
    0,
    `0234000000${SEQ_8}010901000000726563656976656400000000000000000100000000000000`,
  ],
  ["plain success", false, 0, `0216000000${SEQ_8}`],
  ["failure", false, 5, `022c000000${SEQ_8}0306020000006572726f7200000005000000 00000000`],
];

for (const [what, received, error, hex] of EXAMPLES) {
  test(`the ${what} of wire protocol §13 is written to the byte`, () => {
    const out = new Uint8Array(REPLY_HEADER_MAX);
    const end = encodeReply(out, 0, 2, 0, 8, received, error, null);
    expect.equal(Buffer.from(out.subarray(0, end)).toString("hex"), hex.replaceAll(" ", ""));
  });
}

test("a reply survives encoding and decoding", () => {
  const u32 = fc.nat({ max: 0xffff_ffff });
  const payload = fc.option(
    fc
      .tuple(
        fc.constantFrom(COMPRESSION_NONE, COMPRESSION_HOLE, COMPRESSION_LZF),
        fc.constantFrom(CHECKSUM_NONE, CHECKSUM_CRC32, CHECKSUM_SHA256),
        u32,
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
      )
      .map(([compression, checksum, size, hash]) => {
        const each = new OutgoingPayload();
        each.compression = compression;
        each.checksum = checksum;
        each.size = size;
        each.hash.set(hash);
        each.hashLength = checksum === CHECKSUM_NONE ? 0 : checksum === CHECKSUM_CRC32 ? 4 : 32;
        return each;
      }),
  );
  const error = fc.integer({ min: -32768, max: 32767 });
  const header = new ReplyHeader(); // one for all: nothing of an earlier reply may remain
  fc.assert(
    fc.property(
      u32,
      u32,
      fc.boolean(),
      error,
      payload,
      fc.nat({ max: 9 }),
      (seqHi, seqLo, received, errno, data, at) => {
        const out = new Uint8Array(at + REPLY_HEADER_MAX + 4).fill(0xaa);
        const end = encodeReply(out, at, 2, seqHi, seqLo, received, errno, data);
        expect.ok(end <= at + REPLY_HEADER_MAX);
        expect.ok(out.subarray(0, at).every((byte) => byte === 0xaa));
        expect.ok(out.subarray(end).every((byte) => byte === 0xaa));

        for (let cut = at; cut < end; cut++) {
          expect.equal(decodeReply(out, at, cut, header), false);
        }
        expect.ok(decodeReply(out, at, end, header));
        const hashLength = data?.hashLength ?? 0;
        expect.deepEqual(
          { ...header, hash: header.hash.slice(0, hashLength) },
          {
            version: 2,
            seqHi,
            seqLo,
            hasSeq: true,
            received,
            error: errno,
            compression: data?.compression ?? COMPRESSION_NONE,
            checksum: data?.checksum ?? CHECKSUM_NONE,
            hash: data?.hash.slice(0, hashLength) ?? new Uint8Array(0),
            hashLength,
            size: data?.size ?? 0,
            headerEnd: end,
          },
        );
      },
    ),
  );
});

test("the longest reply header has REPLY_HEADER_MAX bytes", () => {
  const payload = new OutgoingPayload();
  payload.compression = COMPRESSION_HOLE;
  payload.checksum = CHECKSUM_SHA256;
  payload.hashLength = 32;
  const out = new Uint8Array(REPLY_HEADER_MAX);
  expect.equal(encodeReply(out, 0, 2, 0, 1, true, 5, payload), REPLY_HEADER_MAX);
});

test("a missing error is success, a missing seq is told from seq 0, and the first entry counts", () => {
  const nv = new NvWriter().i32("error", 5).i16("error", 6).string("received", "");
  const bytes = encodeFrame(2, nv.finish());
  const header = new ReplyHeader();
  expect.ok(decodeReply(bytes, 0, bytes.length, header));
  expect.deepEqual([header.error, header.hasSeq, header.received], [0, false, true]);
});

test("arbitrary bytes, and damaged replies, give a header, a wait or a WireError", () => {
  const good = new Uint8Array(REPLY_HEADER_MAX);
  const payload = new OutgoingPayload();
  payload.checksum = CHECKSUM_SHA256;
  payload.hashLength = 32;
  payload.size = 512;
  const end = encodeReply(good, 0, 2, 0, 1, true, 5, payload);
  const damaged = fc
    .array(fc.tuple(fc.nat({ max: end - 1 }), fc.nat({ max: 255 })), { maxLength: 5 })
    .map((changes) => {
      const bytes = good.slice(0, end);
      for (const [place, value] of changes) bytes[place] = value;
      return bytes;
    });
  const framed = fc.uint8Array({ minLength: 1, maxLength: 200 }).map((nv) => encodeFrame(2, nv));
  const header = new ReplyHeader();
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 100 }), framed, damaged), (bytes) => {
      try {
        if (!decodeReply(bytes, 0, bytes.length, header)) return;
        expect.ok(header.headerEnd <= bytes.length);
        expect.ok(header.size >= 0 && header.size <= 0xffff_ffff);
      } catch (error) {
        expect.ok(error instanceof WireError, String(error));
      }
    }),
    { numRuns: 3000 },
  );
});

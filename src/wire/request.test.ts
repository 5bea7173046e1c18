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
  type PayloadHeader,
  UNKNOWN_ALGORITHM,
} from "./payload.ts";
import {
  CMD_DELETE,
  CMD_FLUSH,
  CMD_KEEPALIVE,
  CMD_READ,
  CMD_WRITE,
  decodeRequest,
  encodeRequest,
  REQUEST_HEADER_MAX,
  RequestHeader,
} from "./request.ts";

interface Request {
  readonly cmd: number;
  readonly seqHi?: number;
  readonly seqLo?: number;
  readonly offset?: number;
  readonly length?: number;
  readonly memsync?: boolean;
  readonly payload?: PayloadHeader;
}

function encode(request: Request): Uint8Array {
  const out = new Uint8Array(REQUEST_HEADER_MAX);
  const end = encodeRequest(
    out,
    0,
    2,
    request.cmd,
    request.seqHi ?? 0,
    request.seqLo ?? 0,
    request.offset ?? 0,
    request.length ?? 0,
    request.memsync ?? false,
    request.payload ?? null,
  );
  return out.subarray(0, end);
}

function decode(bytes: Uint8Array): RequestHeader {
  const header = new RequestHeader();
  expect.ok(decodeRequest(bytes, 0, bytes.length, header));
  return header;
}

function payloadOf(compression: number, checksum: number, size: number): OutgoingPayload {
  const payload = new OutgoingPayload();
  payload.compression = compression;
  payload.checksum = checksum;
  payload.size = size;
  payload.hashLength = checksum === CHECKSUM_NONE ? 0 : checksum === CHECKSUM_CRC32 ? 4 : 32;
  payload.hash.forEach((_, index) => {
    payload.hash[index] = index + 1;
  });
  return payload;
}

function withHash(payload: OutgoingPayload, hex: string): OutgoingPayload {
  payload.hash.set(Buffer.from(hex, "hex"));
  return payload;
}

const CMD_SEQ = "0204010000 00636d64000000000";
const EXAMPLES: readonly [what: string, request: Request, hex: string][] = [
  [
    "READ",
    { cmd: CMD_READ, seqLo: 7, offset: 4096, length: 512 },
    `02 58000000 ${CMD_SEQ}0 0100000000000000 08040800000073657100000000000700000000000000
     0807080000006f6666736574000000100000000000000807080000006c656e67746800000002000000000000`,
  ],
  [
    "FLUSH",
    { cmd: CMD_FLUSH, seqLo: 9 },
    `02 58000000 ${CMD_SEQ}0 0400000000000000 08040800000073657100000000000900000000000000
     0807080000006f6666736574000000000000000000000807080000006c656e67746800000000000000000000`,
  ],
  ["KEEPALIVE", { cmd: CMD_KEEPALIVE }, `02 16000000 ${CMD_SEQ}0 0500000000000000`],
  [
    "memsync WRITE with crc32",
    {
      cmd: CMD_WRITE,
      seqLo: 8,
      offset: 1048576,
      length: 512,
      memsync: true,
      payload: withHash(payloadOf(COMPRESSION_NONE, CHECKSUM_CRC32, 512), "7635611c"),
    },
    `02 b8000000 ${CMD_SEQ}0 0200000000000000 08040800000073657100000000000800000000000000
     0807080000006f6666736574000000001000000000000807080000006c656e67746800000002000000000000
     0208010000006d656d73796e63000100000000000000110906000000636865636b73756d0000000000000000
     63726333320000000a050400000068617368000000007635611c0000000006050400000073697a6500000000
     0002000000000000`,
  ],
  [
    "WRITE of a hole with crc32",
    {
      cmd: CMD_WRITE,
      seqLo: 8,
      offset: 1048576,
      length: 4096,
      payload: withHash(payloadOf(COMPRESSION_HOLE, CHECKSUM_CRC32, 4), "6c7c623d"),
    },
    `02 c0000000 ${CMD_SEQ}0 0200000000000000 08040800000073657100000000000800000000000000
     0807080000006f6666736574000000001000000000000807080000006c656e67746800000010000000000000
     110c05000000636f6d7072657373696f6e0000000000686f6c6500000000110906000000636865636b73756d
     000000000000000063726333320000000a050400000068617368000000006c7c623d00000000060504000000
     73697a65000000000400000000000000`,
  ],
];

for (const [what, request, hex] of EXAMPLES) {
  test(`the ${what} of wire protocol §13 is written to the byte`, () => {
    expect.equal(Buffer.from(encode(request)).toString("hex"), hex.replace(/\s/g, ""));
  });
}

test("a request survives encoding and decoding", () => {
  const u32 = fc.nat({ max: 0xffff_ffff });
  const u53 = fc.nat({ max: Number.MAX_SAFE_INTEGER });
  const payload = fc.option(
    fc
      .tuple(
        fc.constantFrom(COMPRESSION_NONE, COMPRESSION_HOLE, COMPRESSION_LZF),
        fc.constantFrom(CHECKSUM_NONE, CHECKSUM_CRC32, CHECKSUM_SHA256),
        u32,
      )
      .map((each) => payloadOf(...each)),
  );
  const cmd = fc.constantFrom(CMD_READ, CMD_WRITE, CMD_DELETE, CMD_FLUSH);
  const header = new RequestHeader(); // one for all: nothing of an earlier request may remain
  fc.assert(
    fc.property(
      cmd,
      u32,
      u32,
      u53,
      u53,
      fc.boolean(),
      payload,
      fc.nat({ max: 9 }),
      (command, seqHi, seqLo, offset, length, memsync, data, at) => {
        const out = new Uint8Array(at + REQUEST_HEADER_MAX + 4).fill(0xaa);
        const end = encodeRequest(out, at, 2, command, seqHi, seqLo, offset, length, memsync, data);
        expect.ok(end <= at + REQUEST_HEADER_MAX);
        expect.ok(out.subarray(0, at).every((byte) => byte === 0xaa));
        expect.ok(out.subarray(end).every((byte) => byte === 0xaa));

        for (let cut = at; cut < end; cut++) {
          expect.equal(decodeRequest(out, at, cut, header), false);
        }
        expect.ok(decodeRequest(out, at, end, header));
        const hashLength = data?.hashLength ?? 0;
        expect.deepEqual(
          { ...header, hash: header.hash.slice(0, hashLength) },
          {
            version: 2,
            cmd: command,
            seqHi,
            seqLo,
            hasSeq: true,
            offset,
            length,
            memsync,
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

test("the longest request header has REQUEST_HEADER_MAX bytes", () => {
  const payload = payloadOf(COMPRESSION_HOLE, CHECKSUM_SHA256, 4);
  expect.equal(encode({ cmd: CMD_WRITE, memsync: true, payload }).length, REQUEST_HEADER_MAX);
});

test("what is missing, mistyped or out of reach can be told from zero", () => {
  const header = decode(encodeFrame(2, new NvWriter().u8("other", 1).finish()));
  expect.equal(header.cmd, 0);
  expect.equal(header.hasSeq, false);
  expect.equal(header.offset, -1);
  expect.equal(header.length, -1);

  const mistyped = new NvWriter().u32("cmd", 2).i64("seq", 1).i64("offset", 0).u32("length", 512);
  const strange = decode(encodeFrame(2, mistyped.finish()));
  expect.deepEqual(
    [strange.cmd, strange.hasSeq, strange.offset, strange.length],
    [0, false, -1, -1],
  );

  const huge = new NvWriter().u8("cmd", 1).u64("seq", (1n << 64n) - 1n);
  const far = decode(
    encodeFrame(
      2,
      huge
        .u64("offset", (1n << 64n) - 512n)
        .u64("length", 1n << 53n)
        .finish(),
    ),
  );
  expect.deepEqual(
    [far.seqHi, far.seqLo, far.offset, far.length],
    [0xffff_ffff, 0xffff_ffff, -1, -1],
  );
});

test("of two entries with one name the first counts, even with the wrong type", () => {
  const nv = new NvWriter()
    .u8("cmd", 1)
    .u8("cmd", 2)
    .u32("offset", 5)
    .u64("offset", 6)
    .u64("seq", 1)
    .u64("seq", 2)
    .u64("length", 1)
    .u64("length", 2)
    .u32("size", 1)
    .u32("size", 2)
    .bytes("checksum", Uint8Array.of(1))
    .string("checksum", "crc32")
    .string("compression", "hole")
    .string("compression", "lzf")
    .bytes("hash", Uint8Array.of(1, 2))
    .bytes("hash", Uint8Array.of(3));
  const header = decode(encodeFrame(2, nv.finish()));
  expect.deepEqual(
    [header.cmd, header.offset, header.seqLo, header.length, header.size],
    [1, -1, 1, 1, 1],
  );
  expect.deepEqual([header.checksum, header.compression], [CHECKSUM_NONE, COMPRESSION_HOLE]);
  expect.deepEqual([header.hashLength, header.hash[0]], [2, 1]);
});

test("an entry that comes again behind the usual four does not count, either", () => {
  const nv = new NvWriter().u8("cmd", 1).u64("seq", 2).u64("offset", 512).u64("length", 4096);
  nv.u8("cmd", 2).u64("seq", 9).u64("offset", 9).u64("length", 9);
  const header = decode(encodeFrame(2, nv.finish()));
  expect.deepEqual(
    [header.cmd, header.seqLo, header.offset, header.length],
    [CMD_READ, 2, 512, 4096],
  );
});

test("the usual four are not mistaken where one of them is of another type or order", () => {
  const other = new NvWriter().u8("cmd", 1).u64("seq", 2).i64("offset", 512).u64("length", 4096);
  const header = decode(encodeFrame(2, other.finish()));
  expect.deepEqual([header.cmd, header.seqLo, header.offset, header.length], [1, 2, -1, 4096]);
  const turned = new NvWriter().u8("cmd", 1).u64("seq", 2).u64("length", 4096).u64("offset", 512);
  const same = decode(encodeFrame(2, turned.finish()));
  expect.deepEqual([same.cmd, same.seqLo, same.offset, same.length], [1, 2, 512, 4096]);
});

test("bytes behind the header are not taken for a part of it", () => {
  const bytes = encode({ cmd: CMD_READ, seqLo: 1, offset: 512, length: 4096 }).slice();
  bytes[1] = 66; // of 88: the length entry lies behind the end
  const header = decode(bytes);
  expect.deepEqual([header.offset, header.length, header.headerEnd], [512, -1, 5 + 66]);
});

test("memsync counts by being there", () => {
  expect.ok(decode(encodeFrame(2, new NvWriter().string("memsync", "no").finish())).memsync);
});

test("algorithms we do not know are told from none", () => {
  const nv = new NvWriter().string("checksum", "md5").string("compression", "zstd");
  const header = decode(encodeFrame(2, nv.bytes("hash", new Uint8Array(64)).finish()));
  expect.equal(header.checksum, UNKNOWN_ALGORITHM);
  expect.equal(header.compression, UNKNOWN_ALGORITHM);
  expect.equal(header.hashLength, 64);
});

test("keys nobody knows are skipped", () => {
  const nv = new NvWriter().string("later", "x").u8("cmd", 4).u64("seqq", 1).u64("seq", 3);
  const header = decode(encodeFrame(2, nv.finish()));
  expect.deepEqual([header.cmd, header.seqLo, header.hasSeq], [4, 3, true]);
});

test("a broken entry is refused as soon as the header is whole", () => {
  const bytes = encode({ cmd: CMD_READ, seqLo: 1, length: 512 }).slice();
  bytes[5] = 0x7f; // a type that does not exist
  const header = new RequestHeader();
  expect.equal(decodeRequest(bytes, 0, bytes.length - 1, header), false);
  expect.throws(() => decodeRequest(bytes, 0, bytes.length, header), { code: "nv-invalid" });
});

test("arbitrary bytes, and damaged requests, give a header, a wait or a WireError", () => {
  const good = encode({
    cmd: CMD_WRITE,
    seqLo: 5,
    length: 4096,
    memsync: true,
    payload: payloadOf(COMPRESSION_LZF, CHECKSUM_SHA256, 1000),
  });
  const damaged = fc
    .array(fc.tuple(fc.nat({ max: good.length - 1 }), fc.nat({ max: 255 })), { maxLength: 5 })
    .map((changes) => {
      const bytes = good.slice();
      for (const [place, value] of changes) bytes[place] = value;
      return bytes;
    });
  const framed = fc.uint8Array({ minLength: 1, maxLength: 200 }).map((nv) => encodeFrame(2, nv));
  const header = new RequestHeader();
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 100 }), framed, damaged), (bytes) => {
      try {
        if (!decodeRequest(bytes, 0, bytes.length, header)) return;
        expect.ok(header.headerEnd <= bytes.length);
        expect.ok(header.size >= 0 && header.size <= 0xffff_ffff);
        expect.ok(header.offset >= -1 && Number.isSafeInteger(header.offset));
      } catch (error) {
        expect.ok(error instanceof WireError, String(error));
      }
    }),
    { numRuns: 3000 },
  );
});

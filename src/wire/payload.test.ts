// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { WireError } from "./error.ts";
import {
  CHECKSUM_CRC32,
  CHECKSUM_NONE,
  CHECKSUM_SHA256,
  COMPRESSION_HOLE,
  COMPRESSION_LZF,
  COMPRESSION_NONE,
  decodePayload,
  type Hashes,
  OutgoingPayload,
  PayloadEncoder,
  UNKNOWN_ALGORITHM,
} from "./payload.ts";

const hashes: Hashes = {
  crc32: (bytes) => crc32(bytes),
  sha256: (bytes) => createHash("sha256").update(bytes).digest(),
};

function encode(
  compression: number,
  checksum: number,
  data: Uint8Array,
  at = 0,
  length: number = data.length - at,
): OutgoingPayload {
  const payload = new OutgoingPayload();
  new PayloadEncoder(hashes).encode(compression, checksum, data, at, length, payload);
  return payload;
}

function sent(payload: OutgoingPayload): Uint8Array {
  return payload.bytes.subarray(payload.at, payload.at + payload.size);
}

const compression = fc.constantFrom(COMPRESSION_NONE, COMPRESSION_HOLE, COMPRESSION_LZF);
const checksum = fc.constantFrom(CHECKSUM_NONE, CHECKSUM_CRC32, CHECKSUM_SHA256);
const data = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 3000 }),
  fc.integer({ min: 1, max: 9000 }).map((length) => new Uint8Array(length)),
  fc
    .tuple(fc.uint8Array({ minLength: 1, maxLength: 9 }), fc.integer({ min: 1, max: 9000 }))
    .map(([piece, length]) =>
      Uint8Array.from({ length }, (_, index) => piece[index % piece.length]!),
    ),
);

test("data survives encoding and decoding, whatever the algorithms", () => {
  const encoder = new PayloadEncoder(hashes); // one for all, as a sender has
  fc.assert(
    fc.property(compression, checksum, data, fc.nat({ max: 9 }), (packing, hashing, raw, shift) => {
      const memory = new Uint8Array(raw.length + 2 * shift).fill(0xcc);
      memory.set(raw, shift);
      const payload = new OutgoingPayload();
      encoder.encode(packing, hashing, memory, shift, raw.length, payload);

      const arrived = new Uint8Array(shift + payload.size + 3).fill(0xdd);
      arrived.set(sent(payload), shift);
      const out = new Uint8Array(shift + raw.length + 3).fill(0xaa);
      const where = decodePayload(hashes, payload, arrived, shift, raw.length, out, shift);
      expect.equal(where, payload.compression === COMPRESSION_NONE ? "in-place" : "decoded");
      const from = where === "in-place" ? arrived : out;
      expect.deepEqual(from.subarray(shift, shift + raw.length), raw);
      expect.ok(out.subarray(0, shift).every((byte) => byte === 0xaa));
      expect.ok(out.subarray(shift + raw.length).every((byte) => byte === 0xaa));
    }),
  );
});

test("a hole is found at any alignment, and one set bit anywhere undoes it", () => {
  fc.assert(
    fc.property(
      fc.nat({ max: 9 }),
      fc.integer({ min: 1, max: 200 }),
      fc.nat({ max: 9 }),
      fc.nat({ max: 199 }),
      (offset, length, view, place) => {
        // Set bits before and behind, and a view that does not begin where its memory does.
        const memory = new Uint8Array(view + offset + length + 9).fill(0xff);
        const bytes = memory.subarray(view);
        bytes.fill(0, offset, offset + length);
        const hole = encode(COMPRESSION_HOLE, CHECKSUM_NONE, bytes, offset, length);
        expect.equal(hole.compression, COMPRESSION_HOLE);
        expect.deepEqual([...sent(hole)], [length, 0, 0, 0]);

        bytes[offset + (place % length)] = 1 << (place & 7);
        const data = encode(COMPRESSION_HOLE, CHECKSUM_NONE, bytes, offset, length);
        expect.equal(data.compression, COMPRESSION_NONE);
        expect.equal(data.bytes, bytes);
        expect.equal(data.at, offset);
        expect.equal(data.size, length);
      },
    ),
    { numRuns: 2000 },
  );
});

test("without compression, zeroes are sent as they are", () => {
  expect.equal(encode(COMPRESSION_NONE, CHECKSUM_NONE, new Uint8Array(4096)).size, 4096);
});

test("LZF is not tried up to 1024 bytes, and must save as many", () => {
  const ones = (length: number): Uint8Array => new Uint8Array(length).fill(1);
  expect.equal(encode(COMPRESSION_LZF, CHECKSUM_NONE, ones(1024)).compression, COMPRESSION_NONE);
  expect.equal(encode(COMPRESSION_LZF, CHECKSUM_NONE, ones(1025)).compression, COMPRESSION_NONE);
  expect.equal(encode(COMPRESSION_LZF, CHECKSUM_NONE, ones(1536)).compression, COMPRESSION_LZF);
  const payload = encode(COMPRESSION_LZF, CHECKSUM_NONE, ones(4096));
  expect.deepEqual([...sent(payload).subarray(0, 4)], [0, 16, 0, 0]);
});

test("the checksum covers what is sent, not what is meant", () => {
  const payload = encode(COMPRESSION_HOLE, CHECKSUM_CRC32, new Uint8Array(4096));
  expect.equal(Buffer.from(payload.hash.subarray(0, 4)).toString("hex"), "6c7c623d");
});

test("one flipped bit is noticed, in the data and in the hash", () => {
  fc.assert(
    fc.property(
      compression,
      fc.constantFrom(CHECKSUM_CRC32, CHECKSUM_SHA256),
      data,
      fc.nat(),
      fc.boolean(),
      (packing, hashing, raw, place, inHash) => {
        const payload = encode(packing, hashing, raw);
        const arrived = sent(payload).slice();
        if (inHash) payload.hash[place % payload.hashLength]! ^= 1 << (place & 7);
        else arrived[place % arrived.length]! ^= 1 << (place & 7);
        const out = new Uint8Array(raw.length);
        expect.throws(() => decodePayload(hashes, payload, arrived, 0, raw.length, out, 0), {
          code: "payload-checksum",
        });
      },
    ),
  );
});

/** A header and its payload that decodePayload() must refuse, all expecting 4096 bytes. */
const REFUSED: readonly [why: string, change: (payload: OutgoingPayload) => void, code: string][] =
  [
    ["an unknown compression", (it) => (it.compression = UNKNOWN_ALGORITHM), "payload-compression"],
    ["an unknown checksum", (it) => (it.checksum = UNKNOWN_ALGORITHM), "payload-checksum"],
    ["a checksum without hash", (it) => (it.checksum = CHECKSUM_CRC32), "payload-checksum"],
    [
      "a hash of the wrong length",
      (it) => {
        it.checksum = CHECKSUM_CRC32;
        it.hashLength = 32;
      },
      "payload-checksum",
    ],
    ["too little data", (it) => (it.size = 4095), "payload-length"],
    ["no data", (it) => (it.size = 0), "payload-length"],
    ["too much data", (it) => (it.size = 4097), "payload-length"],
    ["a hole of 4096 bytes", (it) => (it.compression = COMPRESSION_HOLE), "payload-length"],
    [
      "a hole of three bytes",
      (it) => {
        it.compression = COMPRESSION_HOLE;
        it.size = 3;
      },
      "payload-length",
    ],
    [
      "a hole of another length",
      (it) => {
        it.compression = COMPRESSION_HOLE;
        it.size = 4;
        it.bytes[1] = 0x20; // 8192
      },
      "payload-length",
    ],
    [
      "a hole of 4 GiB",
      (it) => {
        it.compression = COMPRESSION_HOLE;
        it.size = 4;
        it.bytes.fill(0xff, 0, 4);
      },
      "payload-length",
    ],
    [
      "LZF of four bytes",
      (it) => {
        it.compression = COMPRESSION_LZF;
        it.size = 4;
      },
      "payload-length",
    ],
    [
      "LZF that announces 4 GiB",
      (it) => {
        it.compression = COMPRESSION_LZF;
        it.bytes.fill(0xff, 0, 4);
      },
      "payload-length",
    ],
    [
      "LZF that does not decode",
      (it) => {
        it.compression = COMPRESSION_LZF;
        it.bytes.set([0x00, 0x10, 0, 0, 0xff, 0xff, 0xff]);
      },
      "lzf-damaged",
    ],
  ];

for (const [why, change, code] of REFUSED) {
  test(`decodePayload() refuses ${why}`, () => {
    const payload = encode(COMPRESSION_NONE, CHECKSUM_NONE, new Uint8Array(4100).fill(7), 0, 4096);
    change(payload);
    const out = new Uint8Array(4096 + 8).fill(0xaa);
    expect.throws(() => decodePayload(hashes, payload, payload.bytes, 0, 4096, out, 0), { code });
    expect.ok(out.subarray(4096).every((byte) => byte === 0xaa));
  });
}

test("LZF of up to 1024 bytes is refused, even where that is what was asked for", () => {
  const payload = new OutgoingPayload();
  payload.compression = COMPRESSION_LZF;
  payload.bytes = Uint8Array.of(2, 0, 0, 0, 1, 65, 66);
  payload.size = 7;
  const out = new Uint8Array(2);
  expect.throws(() => decodePayload(hashes, payload, payload.bytes, 0, 2, out, 0), {
    code: "payload-length",
  });
});

test("arbitrary payloads give data or a WireError, and touch nothing but their place", () => {
  const algorithm = fc.constantFrom(0, 1, 2, UNKNOWN_ALGORITHM);
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 100 }),
    fc.uint8Array({ maxLength: 100 }).map((tail) => Uint8Array.of(0, 8, 0, 0, ...tail)),
  );
  fc.assert(
    fc.property(algorithm, algorithm, bytes, fc.nat({ max: 40 }), (packing, hashing, raw, hash) => {
      const payload = new OutgoingPayload();
      payload.compression = packing;
      payload.checksum = hashing;
      payload.hashLength = hash;
      payload.size = raw.length;
      const out = new Uint8Array(2048 + 64).fill(0xaa);
      try {
        decodePayload(hashes, payload, raw, 0, 2048, out, 8);
      } catch (error) {
        expect.ok(error instanceof WireError, String(error));
      }
      expect.ok(out.subarray(0, 8).every((byte) => byte === 0xaa));
      expect.ok(out.subarray(8 + 2048).every((byte) => byte === 0xaa));
    }),
    { numRuns: 1000 },
  );
});

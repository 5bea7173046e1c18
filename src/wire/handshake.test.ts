// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { WireError } from "./error.ts";
import { FRAME_HEADER_SIZE } from "./frame.ts";
import {
  decodeHello,
  decodeS1,
  decodeS2,
  encodeP1,
  encodeP2,
  encodeS1,
  encodeS2,
  type S1,
  type S2,
  type S2Accepted,
  TOKEN_SIZE,
} from "./handshake.ts";
import { NvWriter } from "./nv.ts";
import {
  CHECKSUM_NONE,
  COMPRESSION_HOLE,
  decodePayload,
  type Hashes,
  OutgoingPayload,
  PayloadEncoder,
} from "./payload.ts";

const hashes: Hashes = {
  crc32: (bytes) => crc32(bytes),
  sha256: (bytes) => createHash("sha256").update(bytes).digest(),
};

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** The nv block of a whole message without payload. */
function nvOf(message: Uint8Array): Uint8Array {
  return message.subarray(FRAME_HEADER_SIZE);
}

const TOKEN = Uint8Array.from({ length: TOKEN_SIZE }, (_, index) => index);
const REFUSAL: S1 = {
  kind: "refused",
  errmsg: "Remote node acts as primary for the resource and not as secondary.",
  wait: true,
};
const VIRGIN: S2Accepted = {
  kind: "accepted",
  datasize: 1073737216,
  extentsize: 2097152,
  localcnt: 0n,
  remotecnt: 0n,
  virgin: true,
  syncsrc: "primary",
  mapsize: 0,
  synced: null,
  cache: null,
  outdated: false,
};

function hole(): OutgoingPayload {
  const payload = new OutgoingPayload();
  const map = new Uint8Array(512);
  new PayloadEncoder(hashes).encode(COMPRESSION_HOLE, CHECKSUM_NONE, map, 0, 512, payload);
  return payload;
}

const EXAMPLES: readonly [what: string, message: Uint8Array, hex: string][] = [
  [
    "P1",
    encodeP1({ resource: "shared", version: 2, extensions: 0n, term: 0n }),
    `01340000001109070000007265736f757263650000000000000000736861726564000002080100000076657273
     696f6e000200000000000000`,
  ],
  [
    "S1",
    encodeS1({ kind: "accepted", version: 2, token: TOKEN, extensions: 0n }),
    `023400000002080100000076657273696f6e0002000000000000000a0610000000746f6b656e00000000010203
     0405060708090a0b0c0d0e0f`,
  ],
  [
    "refusal by a primary",
    encodeS1(REFUSAL),
    `026c0000001107430000006572726d7367000052656d6f7465206e6f64652061637473206173207072696d6172
     7920666f7220746865207265736f7572636520616e64206e6f74206173207365636f6e646172792e0000000000
     0002050100000077616974000000000100000000000000`,
  ],
  [
    "P2",
    encodeP2(2, {
      resource: "shared",
      token: TOKEN,
      virgin: true,
      resuid: 0x0123456789abcdefn,
      localcnt: 0n,
      remotecnt: 0n,
      remarks: null,
      life: null,
      whole: false,
    }),
    `02a40000001109070000007265736f75726365000000000000000073686172656400000a0610000000746f6b65
     6e000000000102030405060708090a0b0c0d0e0f01070100000076697267696e00000100000000000000080708
     0000007265737569640000efcdab89674523010809080000006c6f63616c636e74000000000000000000000000
     00000000080a0800000072656d6f7465636e74000000000000000000000000000000`,
  ],
  [
    "S2 between virgins",
    encodeS2(2, VIRGIN, null),
    `02ba0000000709080000006461746173697a65000000000000000000eeff3f00000000050b04000000657874656e
     7473697a6500000000000000002000000000000809080000006c6f63616c636e74000000000000000000000000
     00000000080a0800000072656d6f7465636e740000000000000000000000000000000107010000007669726769
     6e0000010000000000000002080100000073796e637372630001000000000000000608040000006d617073697a
     65000000000000000000`,
  ],
  [
    "S2 with an all-zero map",
    encodeS2(2, { ...VIRGIN, virgin: false, mapsize: 512 }, hole()),
    `02d80000000709080000006461746173697a65000000000000000000eeff3f00000000050b04000000657874656e
     7473697a6500000000000000002000000000000809080000006c6f63616c636e74000000000000000000000000
     00000000080a0800000072656d6f7465636e7400000000000000000000000000000002080100000073796e6373
     72630001000000000000000608040000006d617073697a65000002000000000000110c05000000636f6d707265
     7373696f6e0000000000686f6c6500000000060504000000 73697a6500000000040000000000000000020000`,
  ],
];

for (const [what, message, expected] of EXAMPLES) {
  test(`the ${what} of wire protocol §13 is written to the byte`, () => {
    expect.equal(hex(message), expected.replace(/\s/g, ""));
  });
}

const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const text = fc.string({ minLength: 1 }).filter((each) => !each.includes("\0"));
const token = fc.uint8Array({ minLength: TOKEN_SIZE, maxLength: TOKEN_SIZE });
const synced = fc.constantFrom("written" as const, "filling" as const, "all" as const, null);
const remarks = fc.option(
  fc.record({
    dirtyExtents: fc.maxSafeNat(),
    synced,
    aloneSince: fc.option(fc.maxSafeNat()),
    lacking: fc.constantFrom("outdated" as const, "inconsistent" as const, null),
  }),
);

test("P1 and P2 survive encoding and decoding", () => {
  fc.assert(
    fc.property(text, fc.nat({ max: 255 }), u64, u64, (resource, version, extensions, term) => {
      const message = encodeP1({ resource, version, extensions, term });
      expect.equal(message[0], 1); // so that a version 1 peer reads on
      const p1 = { kind: "p1", resource, version, extensions, term };
      expect.deepEqual(decodeHello(nvOf(message)), p1);
    }),
  );
  const record = fc.record({
    resource: text,
    token,
    virgin: fc.boolean(),
    resuid: u64.filter((each) => each !== 0n),
    localcnt: u64,
    remotecnt: u64,
    remarks,
    life: fc.option(fc.record({ fresh: fc.boolean(), early: fc.boolean() })),
    whole: fc.boolean(),
  });
  fc.assert(
    fc.property(record, fc.constantFrom(1, 2), (hello, version) => {
      const message = encodeP2(version, hello);
      expect.equal(message[0], version);
      expect.deepEqual(decodeHello(nvOf(message)), { kind: "p2", ...structuredClone(hello) });
    }),
  );
});

test("S1 survives encoding and decoding, accepted or refused", () => {
  const answer: fc.Arbitrary<S1> = fc.oneof(
    fc.record({
      kind: fc.constant("accepted" as const),
      version: fc.constantFrom(1, 2),
      token,
      extensions: u64,
    }),
    fc.record({ kind: fc.constant("refused" as const), errmsg: text, wait: fc.boolean() }),
  );
  fc.assert(
    fc.property(answer, (each) => {
      expect.deepEqual(decodeS1(nvOf(encodeS1(each))), structuredClone(each));
    }),
  );
});

const counts = {
  datasize: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  extentsize: fc.integer({ min: 1, max: 0x7fff_ffff }),
  localcnt: u64,
  remotecnt: u64,
};

test("S2 survives encoding and decoding, with its map", () => {
  const accepted = fc.record({
    kind: fc.constant("accepted" as const),
    ...counts,
    virgin: fc.boolean(),
    syncsrc: fc.constantFrom("primary" as const, "secondary" as const),
    synced,
    cache: fc.option(u64),
    outdated: fc.boolean(),
  });
  const algorithms = fc.tuple(fc.constantFrom(0, 1, 2), fc.constantFrom(0, 1, 2));
  const map = fc.oneof(fc.uint8Array({ maxLength: 600 }), fc.constant(new Uint8Array(512)));
  fc.assert(
    fc.property(accepted, map, algorithms, (partial, bytes, [compression, checksum]) => {
      const each: S2 = { ...partial, mapsize: bytes.length };
      const outgoing = new OutgoingPayload();
      const hasMap = bytes.length > 0;
      if (hasMap) {
        const encoder = new PayloadEncoder(hashes);
        encoder.encode(compression, checksum, bytes, 0, bytes.length, outgoing);
      }
      const message = encodeS2(2, each, hasMap ? outgoing : null);
      const nvEnd = message.length - (hasMap ? outgoing.size : 0);
      const { answer, payload } = decodeS2(message.subarray(FRAME_HEADER_SIZE, nvEnd));
      expect.deepEqual(answer, each);
      expect.equal(payload.size, hasMap ? outgoing.size : 0);
      if (!hasMap) return;
      const out = new Uint8Array(bytes.length);
      const where = decodePayload(hashes, payload, message, nvEnd, bytes.length, out, 0);
      expect.deepEqual(where === "decoded" ? out : message.subarray(nvEnd), bytes);
    }),
  );
});

test("a refusal of P2 is read whether the worker or the daemon sent it", () => {
  const refusal = fc.record({
    kind: fc.constant("refused" as const),
    ...counts,
    errmsg: text,
    wait: fc.boolean(),
    resuid: fc.option(u64),
    remarks,
  });
  fc.assert(
    fc.property(refusal, (each) => {
      expect.deepEqual(decodeS2(nvOf(encodeS2(2, each, null))).answer, structuredClone(each));
    }),
  );
  const { answer } = decodeS2(nvOf(encodeS1(REFUSAL)));
  expect.equal(answer.kind === "refused" && answer.wait && answer.errmsg, REFUSAL.errmsg);
});

const invalid = { name: "WireError", code: "handshake-invalid" };

test("a hello without resource, or with a token of another size, is refused", () => {
  expect.throws(() => decodeHello(new NvWriter().u8("version", 2).finish()), invalid);
  const short = new NvWriter().string("resource", "r").bytes("token", new Uint8Array(8));
  expect.throws(() => decodeHello(short.finish()), invalid);
});

test("a token of another type counts as none, as the original has it", () => {
  const nv = new NvWriter().string("resource", "r").string("token", "0123456789abcdef");
  expect.equal(decodeHello(nv.finish()).kind, "p1");
});

test("an S1 without version means 1, and one above what was offered is refused", () => {
  const old = decodeS1(new NvWriter().bytes("token", TOKEN).finish());
  expect.equal(old.kind === "accepted" && old.version, 1);
  const later = new NvWriter().u8("version", 3).bytes("token", TOKEN);
  expect.throws(() => decodeS1(later.finish()), invalid);
  expect.throws(() => decodeS1(new NvWriter().u8("version", 2).finish()), invalid);
});

test("the token is a copy, because the receive buffer is used again", () => {
  const nv = nvOf(encodeS1({ kind: "accepted", version: 2, token: TOKEN, extensions: 0n }));
  const answer = decodeS1(nv);
  nv.fill(0);
  expect.deepEqual(answer.kind === "accepted" && answer.token, TOKEN);
});

function s2(change: (nv: NvWriter) => NvWriter, without: string): Uint8Array {
  const nv = new NvWriter();
  if (without !== "datasize") nv.i64("datasize", 1 << 20);
  if (without !== "extentsize") nv.i32("extentsize", 1 << 16);
  if (without !== "syncsrc") nv.u8("syncsrc", 1);
  if (without !== "mapsize") nv.u32("mapsize", 512);
  return change(nv).finish();
}

const BAD_S2: readonly [why: string, nv: Uint8Array, code: string][] = [
  ["no datasize", s2((nv) => nv, "datasize"), "handshake-invalid"],
  ["a negative datasize", s2((nv) => nv.i64("datasize", -512), "datasize"), "handshake-invalid"],
  [
    "a datasize beyond 8 PiB",
    s2((nv) => nv.i64("datasize", 1n << 60n), "datasize"),
    "handshake-invalid",
  ],
  ["a uint64 datasize", s2((nv) => nv.u64("datasize", 512), "datasize"), "handshake-invalid"],
  [
    "a negative extentsize",
    s2((nv) => nv.i32("extentsize", -1), "extentsize"),
    "handshake-invalid",
  ],
  ["no syncsrc", s2((nv) => nv, "syncsrc"), "handshake-invalid"],
  ["syncsrc 0", s2((nv) => nv.u8("syncsrc", 0), "syncsrc"), "handshake-invalid"],
  ["no mapsize", s2((nv) => nv, "mapsize"), "handshake-invalid"],
  ["a map that does not come", s2((nv) => nv, ""), "payload-length"],
  ["a payload larger than the map", s2((nv) => nv.u32("size", 513), ""), "payload-length"],
  [
    "a payload without map",
    s2((nv) => nv.u32("mapsize", 0).u32("size", 4), "mapsize"),
    "payload-length",
  ],
];

for (const [why, nv, code] of BAD_S2) {
  test(`decodeS2() refuses ${why}`, () => {
    expect.throws(() => decodeS2(nv), { name: "WireError", code });
  });
}

test("arbitrary bytes give a value or a WireError, in each of the four messages", () => {
  const keys = fc.constantFrom(
    "resource",
    "version",
    "token",
    "virgin",
    "resuid",
    "datasize",
    "extentsize",
    "syncsrc",
    "mapsize",
    "errmsg",
    "size",
    "hash",
  );
  const types = fc.constantFrom(1, 2, 5, 6, 7, 8, 10, 17);
  const data = fc.uint8Array({ minLength: 1, maxLength: 17 });
  const plausible = fc.array(fc.tuple(types, keys, data), { maxLength: 8 }).map((entries) => {
    const nv = new NvWriter();
    for (const entry of entries) nv.add(...entry);
    return nv.finish();
  });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), plausible), (bytes) => {
      for (const decode of [decodeHello, decodeS1, decodeS2]) {
        try {
          decode(bytes);
        } catch (error) {
          expect.ok(error instanceof WireError, String(error));
        }
      }
    }),
    { numRuns: 2000 },
  );
});

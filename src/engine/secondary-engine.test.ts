// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { fuzz } from "../../test/fuzz.ts";
import { repliesOf } from "../../test/golden/conversation.ts";
import { messageAt } from "../../test/golden/vectors.ts";
import { type FarEnd, pretendConnection } from "../../test/pretend/net.ts";
import {
  deleteRequest,
  flushRequest,
  keepalive,
  readRequest,
  writeRequest,
} from "../../test/pretend/requests.ts";
import { sameBytes } from "../../test/pretend/same-bytes.ts";
import { createComponent, dirtyArena, World, type WorldOptions } from "../../test/pretend/world.ts";
import { obey } from "../../test/request-oracle.ts";
import { crc32 } from "../base/crc32.ts";
import { decodeMetadata, METADATA_SIZE, type Metadata } from "../metadata/block.ts";
import { EXT_ALIVE, EXT_KEPT, EXT_SOLE, EXT_STATE, encodeState } from "../wire/extensions.ts";
import { encodeFrame } from "../wire/frame.ts";
import { decodeS2, type S2Accepted } from "../wire/handshake.ts";
import { NvWriter } from "../wire/nv.ts";
import {
  CHECKSUM_CRC32,
  CHECKSUM_SHA256,
  COMPRESSION_HOLE,
  COMPRESSION_LZF,
} from "../wire/payload.ts";
import { SecondaryEngine } from "./secondary-engine.ts";
import type { Held, Left, PeerHello } from "./worker-messages.ts";

const ARENA = dirtyArena();
const RESUID = 77n;
const LOCALOFF = 4608;
const OLD = 0x5a;
/** Bytes of media, where it is made thousands of times. */
const SMALL: number = 128 * 1024;

interface Setup extends WorldOptions {
  readonly hello?: Partial<PeerHello>;
  readonly metadata?: Partial<Metadata>;
  /** Begins the activemap on disk; the rest is zeroes. */
  readonly map?: Uint8Array;
  /** Chunks in which requests arrive. */
  readonly chunk?: (available: number) => number;
}

class Served {
  readonly world: World;
  readonly engine: SecondaryEngine;
  readonly a: FarEnd;
  readonly b: FarEnd;
  readonly dataSize: number;
  /** What the handshake was answered. */
  readonly s2: S2Accepted;

  private constructor(
    world: World,
    engine: SecondaryEngine,
    a: FarEnd,
    b: FarEnd,
    size: number,
    s2: S2Accepted,
  ) {
    this.s2 = s2;
    this.world = world;
    this.engine = engine;
    this.a = a;
    this.b = b;
    this.dataSize = size;
  }

  /** A secondary that has been in touch with this primary before, and is in step with it. */
  static async start(setup: Setup = {}): Promise<Served> {
    const world = new World({ arena: ARENA, ...setup, completion: "inside" });
    const { datasize } = createComponent(world.disk, { resuid: RESUID, ...setup.metadata });
    if (datasize < 1 << 24) world.disk.poke(LOCALOFF, new Uint8Array(datasize).fill(OLD));
    if (setup.map !== undefined) world.disk.poke(METADATA_SIZE, setup.map);
    const a = pretendConnection(world.events, "tcp://primary (a)");
    const b = pretendConnection(world.events, "tcp://primary (b)");
    if (setup.chunk !== undefined) a.chunk = setup.chunk;
    const hello: PeerHello = {
      version: 2,
      extensions: 0n,
      virgin: false,
      resuid: RESUID,
      localcnt: 0n,
      remotecnt: 0n,
      remarks: null,
      life: null,
      left: null,
      whole: false,
      invalidate: false,
      ...setup.hello,
    };
    const { settings, disk, environment, host } = world;
    const engine = await world.until(
      SecondaryEngine.open(settings, hello, disk, a.near, b.near, environment, host),
    );
    await world.until(engine.start());
    const { answer } = decodeS2(messageAt(a.takeHeard(), 0)!.nv);
    expect.ok(answer.kind === "accepted");
    world.disk.completion = setup.completion ?? "inside";
    return new Served(world, engine, a, b, datasize, answer);
  }

  data(offset = 0, length: number = this.dataSize): Uint8Array {
    return this.world.disk.peek(LOCALOFF + offset, length);
  }

  /** Sends requests and lets the world go on. */
  async send(...requests: readonly Uint8Array[]): Promise<void> {
    this.a.send(...requests);
    await this.world.events.settle();
  }

  /** Replies since the last time, as "7", "7 received", "7 error 22", "7 data". */
  replies(): string[] {
    return repliesOf(this.b.takeHeard()).map(({ header, bytes }) => {
      const seq = header.seqHi * 4294967296 + header.seqLo;
      if (header.received) return `${seq} received`;
      if (header.error !== 0) return `${seq} error ${header.error}`;
      return bytes.length > header.headerEnd ? `${seq} data` : `${seq}`;
    });
  }

  /** Lets everything finish; the primary has gone or is not wanted any more. */
  async ended(exitCode: number): Promise<void> {
    await this.world.events.settle();
    while (this.world.disk.running.length > 0) {
      this.world.disk.release();
      await this.world.events.settle();
    }
    expect.equal(this.world.host.exit?.code, exitCode);
    expect.equal(this.world.disk.closed, true);
    expect.equal(this.a.closedByPeer, true);
    expect.equal(this.b.closedByPeer, true);
    expect.equal(this.engine.report().idleQueue, 256);
  }

  alive(): void {
    expect.equal(this.world.host.exit, null);
  }

  get metadata(): Metadata {
    return decodeMetadata(this.world.disk.peek(0, METADATA_SIZE), "r0");
  }
}

function bytes(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

function pattern(length: number, seed: number): Uint8Array {
  return new Uint8Array(length).map((_byte, index) => (index * 7 + seed * 31) & 0xff);
}

interface Sample {
  readonly request: Uint8Array;
  readonly apply: (data: Uint8Array) => void;
  /** Replies as Served.replies() has them. */
  readonly replies: readonly string[];
}

function write(
  seq: number,
  offset: number,
  data: Uint8Array,
  options: Parameters<typeof writeRequest>[3] = {},
): Sample {
  return {
    request: writeRequest(seq, offset, data, options),
    apply: (disk) => disk.set(data, offset),
    replies: options.memsync ? [`${seq} received`, `${seq}`] : [`${seq}`],
  };
}

function nothing(): void {}

/** One of everything, small. */
const SAMPLES: readonly Sample[] = [
  write(1, 512, pattern(512, 1)),
  write(2, 1024, pattern(512, 2), { memsync: true, checksum: CHECKSUM_CRC32 }),
  write(3, 65536, new Uint8Array(8192), { compression: COMPRESSION_HOLE }),
  { request: keepalive(), apply: nothing, replies: [] },
  write(4, 8192, bytes(4096, 9), { compression: COMPRESSION_LZF, checksum: CHECKSUM_SHA256 }),
  { request: readRequest(5, 512, 512), apply: nothing, replies: ["5 data"] },
  { request: readRequest(6, 100, 512), apply: nothing, replies: ["6 error 22"] },
  {
    request: deleteRequest(7, 512, 512),
    apply: (disk) => disk.fill(0, 512, 1024),
    replies: ["7"],
  },
  { request: writeRequest(8, 100, bytes(512, 1)), apply: nothing, replies: ["8 error 22"] },
  { request: flushRequest(9), apply: nothing, replies: ["9"] },
  write(10, 512, pattern(1024, 3), { memsync: true }),
];
const STREAM = new Uint8Array(Buffer.concat(SAMPLES.map(({ request }) => request)));

/** What the first `length` bytes of STREAM amount to. */
function wholeSamples(length: number): Sample[] {
  let end = 0;
  return SAMPLES.filter(({ request }) => {
    end += request.length;
    return end <= length;
  });
}

// ---- cut, damaged, random -----------------------------------------------------------------------

test("wherever the connection is cut, what came whole is applied and nothing else (BD-5, S-5)", async () => {
  const completions = ["inside", "later", "held"] as const;
  for (let cut = 0; cut <= STREAM.length; cut++) {
    const completion = completions[cut % 3]!;
    const served = await Served.start({
      mediaSize: SMALL,
      completion,
      chunk: (n) => Math.min(n, 1 + (cut % 977)),
    });
    served.a.send(STREAM.subarray(0, cut));
    served.a.end();
    await served.ended(75);
    const expected = bytes(served.dataSize, OLD);
    for (const sample of wholeSamples(cut)) sample.apply(expected);
    sameBytes(served.data(), expected, `cut at byte ${cut}, disk ${completion}`);
  }
});

test("every request of a whole stream is answered, whatever its pieces", async () => {
  const expected = SAMPLES.flatMap(({ replies }) => replies).sort();
  for (const size of [1, 2, 3, 5, 64, 999, 100_000]) {
    const served = await Served.start({ chunk: () => size, completion: "later" });
    await served.send(STREAM);
    expect.deepEqual(served.replies().sort(), expected);
    served.a.end();
    await served.ended(75);
  }
});

test("mutated and random streams end the connection or are answered: nothing else", async () => {
  const chunk = fc.integer({ min: 1, max: 4000 });
  const noise = fc.uint8Array({ minLength: 1, maxLength: 300 });
  const mutation = fc.record({ at: fc.nat(STREAM.length - 1), bytes: noise, drop: fc.nat(20) });
  const mutated = fc.array(mutation, { minLength: 1, maxLength: 4 }).map((mutations) => {
    let stream = Buffer.from(STREAM);
    for (const { at, bytes: inserted, drop } of mutations) {
      const from = Math.min(at, stream.length);
      stream = Buffer.concat([
        stream.subarray(0, from),
        inserted.subarray(0, drop === 0 ? 300 : drop),
        stream.subarray(from + drop),
      ]);
    }
    return new Uint8Array(stream);
  });
  /** One byte of a header changed: the likeliest way to something half valid. */
  const flipped = fc
    .tuple(fc.nat(STREAM.length - 1), fc.integer({ min: 1, max: 255 }))
    .map(([at, change]) => STREAM.map((byte, index) => (index === at ? byte ^ change : byte)));
  const random = fc.uint8Array({ maxLength: 2000 });
  /** With a header like a WRITE's in front, so that it gets farther. */
  const half = fc
    .tuple(fc.nat(SAMPLES.length - 1), fc.nat(140), random)
    .map(([index, length, rest]) =>
      Buffer.concat([SAMPLES[index]!.request.subarray(0, length), rest]),
    );
  const states = [
    encodeState(2, 11, "inconsistent", 0n),
    encodeState(2, 12, "uptodate", 4n, 0n, "written"),
  ];
  const withStates = fc
    .tuple(fc.shuffledSubarray([...SAMPLES.map(({ request }) => request), ...states]), fc.nat(255))
    .chain(([messages, change]) => {
      const stream = Buffer.concat([...messages, keepalive()]);
      return fc.nat(stream.length - 1).map((at) => {
        const bent = new Uint8Array(stream);
        bent[at]! ^= change;
        return bent;
      });
    });
  /** Well-formed messages that lie about anything. */
  const edges = [0n, 511n, 512n, 1024n, 4096n, 125_952n, 126_464n, 2n ** 63n, 2n ** 64n - 512n];
  const claim = fc.record({
    cmd: fc.constantFrom(1, 2, 2, 2, 2, 3, 4, 5, 7),
    offset: fc.constantFrom(...edges),
    length: fc.constantFrom(...edges),
    data: fc.constantFrom(0, 4, 5, 512, 1024, 4096),
    compression: fc.constantFrom(null, null, "hole", "lzf", "zip"),
    says: fc.constantFrom(512, 1024, 4096, 2 ** 32 - 1),
    checksum: fc.constantFrom(null, "right", "wrong", "md5"),
  });
  const lies = fc
    .array(claim, { minLength: 1, maxLength: 6 })
    .map((claims) => Buffer.concat(claims.map((each, index) => lie(index + 1, each))));
  const completion = fc.constantFrom("inside" as const, "later" as const);
  const bystander = await Served.start({ mediaSize: SMALL, completion: "later" });
  const untouched = bytes(bystander.dataSize, OLD);
  let turn = 0;
  await fuzz(
    fc.asyncProperty(
      fc.oneof(mutated, flipped, flipped, half, withStates, lies, lies, random),
      chunk,
      completion,
      fc.boolean(),
      async (stream, size, when, agreed) => {
        const served = await Served.start({
          mediaSize: SMALL,
          chunk: () => size,
          completion: when,
          hello: { extensions: agreed ? EXT_STATE : 0n },
        });
        const before = served.metadata;
        served.a.send(stream);
        // The other resource is in the middle of a request meanwhile.
        turn = (turn + 1) % 200;
        const mine = bytes(512, turn);
        bystander.a.send(writeRequest(turn + 1, 512 * turn, mine));
        await served.world.events.settle();
        await bystander.world.events.settle();
        expect.deepEqual(bystander.replies(), [`${turn + 1}`]);
        untouched.set(mine, 512 * turn);
        sameBytes(bystander.data(), untouched, "another resource");
        bystander.alive();

        const replies = repliesOf(served.b.takeHeard());
        const expected = bytes(served.dataSize, OLD);
        const rules = { dataSize: served.dataSize, sectorSize: 512, states: agreed };
        const verdict = obey(stream, rules, expected);
        expect.equal(served.world.host.exit !== null, verdict.broken);
        expect.ok(replies.length <= 2 * verdict.requests);
        if (!verdict.broken) served.a.end();
        await served.ended(75);
        sameBytes(served.data(), expected, "what whole requests have written, and nothing else");

        const { resuid, localcnt, datasize, extentsize, localoff } = served.metadata;
        expect.deepEqual({ ...before, resuid, localcnt, datasize, extentsize, localoff }, before);
        // Only a state that was agreed upon, and said whole, is recorded, and what this copy lacks.
        const { state, sequence } = served.metadata;
        const lacks = { ...before, prevrole: "secondary", state: "inconsistent", sequence };
        if (!agreed) expect.deepEqual(served.metadata, verdict.lacks ? lacks : before);
        else if (verdict.lacks) expect.notEqual(state, before.state);
      },
    ),
  );
  bystander.a.end();
  await bystander.ended(75);
});

interface Claim {
  readonly cmd: number;
  readonly offset: bigint;
  readonly length: bigint;
  /** Bytes behind the header. */
  readonly data: number;
  readonly compression: string | null;
  /** What packed data claim to come to. */
  readonly says: number;
  readonly checksum: "right" | "wrong" | "md5" | null;
}

function lie(seq: number, claim: Claim): Uint8Array {
  const payload = Buffer.from(pattern(claim.data, seq));
  if (claim.compression !== null && payload.length >= 4) payload.writeUInt32LE(claim.says);
  const hash = Buffer.alloc(4);
  hash.writeUInt32LE((crc32(payload) ^ (claim.checksum === "wrong" ? 1 : 0)) >>> 0);
  const message = nv((writer) => {
    const { cmd, offset, length, compression, checksum } = claim;
    writer.u8("cmd", cmd).u64("seq", seq).u64("offset", offset).u64("length", length);
    if (compression !== null) writer.string("compression", compression);
    if (checksum !== null) {
      writer.string("checksum", checksum === "md5" ? checksum : "crc32").bytes("hash", hash);
    }
    if (payload.length > 0) writer.u32("size", payload.length);
  });
  return Buffer.concat([message, payload]);
}

// ---- one lie at a time --------------------------------------------------------------------------

function nv(fill: (writer: NvWriter) => void): Uint8Array {
  const writer = new NvWriter();
  fill(writer);
  return encodeFrame(2, writer.finish());
}

function header(cmd: number, seq: number, offset: bigint, length: bigint, size = 0): Uint8Array {
  return nv((writer) => {
    writer.u8("cmd", cmd).u64("seq", seq).u64("offset", offset).u64("length", length);
    if (size > 0) writer.u32("size", size);
  });
}

const DEADLY: readonly (readonly [string, Uint8Array])[] = [
  [
    "a WRITE whose data is shorter than its length (BD-6)",
    writeRequest(1, 0, bytes(512, 1), { length: 1024 }),
  ],
  [
    "a WRITE whose data is longer than its length",
    writeRequest(1, 0, bytes(1024, 1), { length: 512 }),
  ],
  ["a WRITE without data", header(2, 1, 0n, 512n)],
  ["a WRITE of more data than we would ever take", header(2, 1, 0n, 512n, 0xffffffff)],
  ["a READ with data", Buffer.concat([header(1, 1, 0n, 512n, 512), bytes(512, 1)])],
  ["a FLUSH with data", Buffer.concat([header(4, 1, 0n, 0n, 512), bytes(512, 1)])],
  ["an unknown command", header(99, 1, 0n, 512n)],
  ["no command", nv((writer) => writer.u64("seq", 1))],
  ["a state nobody agreed upon", encodeState(2, 1, "uptodate", 5n)],
  ["a primary without disk that nobody agreed upon", encodeState(2, 1, "sole", 5n)],
  ["a message of version 3", header(1, 1, 0n, 512n).with(0, 3)],
  ["an empty nv block (BD-38)", Uint8Array.of(2, 0, 0, 0, 0)],
  ["an nv block of 4 GiB (BD-38)", Uint8Array.of(2, 0xff, 0xff, 0xff, 0xff)],
  [
    "an nv value whose size wraps around (BD-38)",
    (() => {
      const message = header(1, 1, 0n, 512n);
      message.fill(0xff, 5 + 2, 5 + 6);
      return message;
    })(),
  ],
  [
    "a hole of 4 GiB (BD-38)",
    Buffer.concat([
      nv((writer) =>
        writer
          .u8("cmd", 2)
          .u64("seq", 1)
          .u64("offset", 0)
          .u64("length", 512)
          .string("compression", "hole")
          .u32("size", 4),
      ),
      Uint8Array.of(0xff, 0xff, 0xff, 0xff),
    ]),
  ],
  [
    "LZF data of 4 GiB (BD-38)",
    Buffer.concat([
      nv((writer) =>
        writer
          .u8("cmd", 2)
          .u64("seq", 1)
          .u64("offset", 0)
          .u64("length", 4096)
          .string("compression", "lzf")
          .u32("size", 8),
      ),
      Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0, 0x61, 0, 0x61),
    ]),
  ],
  [
    "an unknown compression",
    Buffer.concat([
      nv((writer) =>
        writer
          .u8("cmd", 2)
          .u64("seq", 1)
          .u64("offset", 0)
          .u64("length", 512)
          .string("compression", "zstd")
          .u32("size", 512),
      ),
      bytes(512, 1),
    ]),
  ],
  [
    "a checksum that does not match",
    writeRequest(1, 0, bytes(512, 1), { checksum: CHECKSUM_CRC32 }).map((byte, index, all) =>
      index === all.length - 1 ? byte ^ 1 : byte,
    ),
  ],
];

for (const [what, message] of DEADLY) {
  test(`${what} ends the connection, and nothing of it is applied`, async () => {
    const served = await Served.start();
    const good = writeRequest(40, 4096, bytes(512, 8));
    await served.send(good, message, writeRequest(41, 8192, bytes(512, 9)));
    await served.ended(75);
    const expected = bytes(served.dataSize, OLD).fill(8, 4096, 4608);
    sameBytes(served.data(), expected);
    expect.deepEqual(served.world.host.events, ["connect", "disconnect"]);
  });
}

const REFUSED: readonly (readonly [string, Uint8Array])[] = [
  ["offset + length beyond 2^64 (BD-39)", header(1, 1, 0xfffffffffffffe00n, 512n)],
  ["a length beyond 2^53", header(3, 1, 0n, 0xfffffffffffffe00n)],
  ["a range past the end", header(1, 1, 1043968n, 512n)],
  ["an empty range", header(1, 1, 0n, 0n)],
  ["an offset within a sector", header(3, 1, 100n, 512n)],
  ["a length within a sector", header(1, 1, 0n, 100n)],
  ["a READ of more than 1 MiB", header(1, 1, 0n, 1049088n)],
  ["no offset", nv((writer) => writer.u8("cmd", 1).u64("seq", 1).u64("length", 512))],
  [
    "an offset of another type",
    nv((writer) => writer.u8("cmd", 1).u64("seq", 1).u32("offset", 0).u64("length", 512)),
  ],
];

for (const [what, message] of REFUSED) {
  test(`${what} is answered with EINVAL, and the link lives on`, async () => {
    const served = await Served.start();
    await served.send(message, writeRequest(41, 8192, bytes(512, 9)));
    expect.deepEqual(served.replies().sort(), ["1 error 22", "41"]);
    expect.equal(served.world.host.exit, null);
  });
}

test("a request without a number is answered with number 0 and EINVAL", async () => {
  const served = await Served.start();
  await served.send(nv((writer) => writer.u8("cmd", 1).u64("offset", 0).u64("length", 512)));
  await served.send(nv((writer) => writer.u8("cmd", 4).u64("offset", 0).u64("length", 0)));
  expect.deepEqual(served.replies(), ["0 error 22", "0 error 22"]);
});

test("a refused WRITE leaves none of its data in the stream (BD-7)", async () => {
  const served = await Served.start({ chunk: () => 300 });
  await served.send(
    writeRequest(1, 100, bytes(65536, 1)),
    writeRequest(2, 1043968, bytes(512, 1)),
    writeRequest(3, 0, bytes(512, 1), { length: 1049088 }),
    writeRequest(4, 0, bytes(512, 4)),
  );
  expect.deepEqual(served.replies().sort(), ["1 error 22", "2 error 22", "3 error 22", "4"]);
  sameBytes(served.data(), bytes(served.dataSize, OLD).fill(4, 0, 512));
});

test("64-bit numbers come back as they were sent", async () => {
  const served = await Served.start();
  await served.send(
    nv((writer) =>
      writer.u8("cmd", 4).u64("seq", 0xfedcba9876543210n).u64("offset", 0).u64("length", 0),
    ),
  );
  const [answer] = repliesOf(served.b.takeHeard());
  expect.equal(answer!.header.seqHi, 0xfedcba98);
  expect.equal(answer!.header.seqLo, 0x76543210);
});

test("data on the reply channel ends the connection", async () => {
  const served = await Served.start();
  await served.send(writeRequest(1, 0, bytes(512, 1)));
  served.b.send(Uint8Array.of(1));
  await served.ended(75);
  sameBytes(served.data(0, 512), bytes(512, 1));
});

// ---- what was received is kept ------------------------------------------------------------------

for (const end of ["the primary's end", "a reset", "stop()"] as const) {
  test(`what was answered \`received\` is on disk after ${end}, however slow the disk (S-5)`, async () => {
    const served = await Served.start({ completion: "held" });
    await served.send(
      writeRequest(1, 0, bytes(131072, 1), { memsync: true }),
      writeRequest(2, 0, bytes(512, 2), { memsync: true }),
      writeRequest(3, 200_192, bytes(512, 3), { memsync: true }).subarray(0, 600),
    );
    expect.deepEqual(served.replies(), ["1 received", "2 received"]);
    if (end === "stop()") served.engine.stop();
    else if (end === "a reset") served.a.reset();
    else served.a.end();
    await served.world.events.settle();
    expect.equal(served.world.host.exit, null, "it waits for its disk");
    await served.ended(end === "stop()" ? 0 : 75);
    const expected = bytes(served.dataSize, OLD).fill(1, 0, 131072).fill(2, 0, 512);
    sameBytes(served.data(), expected);
  });
}

test("S-5: a WRITE whose checksum is wrong is neither received nor applied", async () => {
  const served = await Served.start();
  const options = { checksum: CHECKSUM_CRC32, memsync: true };
  const request = writeRequest(1, 512, bytes(512, 1), options);
  request[request.length - 1]! ^= 1;
  await served.send(request);
  expect.deepEqual(served.replies(), []);
  await served.ended(75);
  sameBytes(served.data(512, 512), bytes(512, OLD));
});

test("more requests than slots wait in the stream; all that were taken are applied", async () => {
  const served = await Served.start({ completion: "held" });
  const requests: Uint8Array[] = [];
  for (let index = 0; index < 1000; index++) {
    requests.push(writeRequest(index + 1, index * 512, bytes(512, index % 250), { memsync: true }));
  }
  await served.send(...requests);
  const received = served.replies().filter((reply) => reply.endsWith("received"));
  expect.equal(received.length, 256);
  served.a.end();
  served.b.end();
  await served.ended(75);
  for (let index = 0; index < received.length; index++) {
    sameBytes(served.data(index * 512, 512), bytes(512, index % 250), `write ${index}`);
  }
});

test("a slow disk only slows the primary down", async () => {
  const served = await Served.start({ completion: "held" });
  const requests: Uint8Array[] = [];
  for (let index = 0; index < 700; index++) {
    requests.push(writeRequest(index + 1, (index % 200) * 4096, bytes(4096, index & 0xff)));
  }
  served.a.send(...requests);
  let answered = 0;
  for (let round = 0; round < 2000 && answered < 700; round++) {
    await served.world.events.settle();
    served.world.disk.release((request) => request === served.world.disk.running[0]);
    await served.world.events.settle();
    answered += served.replies().length;
  }
  expect.equal(answered, 700);
  for (let index = 500; index < 700; index++) {
    sameBytes(served.data((index % 200) * 4096, 4096), bytes(4096, index & 0xff), `${index}`);
  }
});

test("a primary that takes no replies is not listened to any more, then given up", async () => {
  const served = await Served.start({ mediaSize: 4 * 1024 * 1024 });
  served.b.stopListening();
  for (let index = 0; index < 30_000; index++) served.a.send(readRequest(index + 1, 0, 131072));
  await served.world.events.settle();
  expect.ok(served.b.stuck < 40 * 1024 * 1024, `${served.b.stuck} bytes wait`);
  expect.ok(served.a.unread > 0, "the rest waits at the primary");
  await served.world.clock.pass(15_000);
  served.alive();
  await served.world.clock.pass(10_000);
  expect.equal(served.world.host.exit?.code, 75);
});

test("a primary that begins to take its replies again gets all of them, as they were read", async () => {
  const served = await Served.start({ mediaSize: 4 * 1024 * 1024 });
  const areas = Array.from({ length: 30 }, (_, index) => pattern(131072, index));
  for (const [index, area] of areas.entries()) {
    served.world.disk.poke(LOCALOFF + index * 131072, area);
  }
  served.b.stopListening();
  for (let index = 0; index < 400; index++) {
    served.a.send(readRequest(index + 1, (index % areas.length) * 131072, 131072));
  }
  await served.world.events.settle();
  served.b.listenAgain();
  await served.world.events.settle();
  const replies = repliesOf(served.b.takeHeard());
  expect.equal(replies.length, 400);
  for (const { header, bytes } of replies) {
    sameBytes(bytes.subarray(header.headerEnd), areas[(header.seqLo - 1) % areas.length]!);
  }
  expect.equal(served.a.unread, 0);
});

for (const how of ["is cut off", "is replaced (stop)"] as const) {
  test(`a primary that has taken no replies ${how}: what came whole is applied all the same (S-5)`, async () => {
    const served = await Served.start({ mediaSize: 4 * 1024 * 1024 });
    served.b.stopListening();
    const requests: Uint8Array[] = [];
    // More replies than there is memory for; then a write that needs some to be unpacked.
    for (let index = 0; index < 250; index++) requests.push(readRequest(index + 1, 0, 1024 * 1024));
    const options = { compression: COMPRESSION_HOLE, memsync: true };
    requests.push(writeRequest(300, 4096, bytes(512, 0), options));
    await served.send(...requests);
    if (how === "is cut off") served.a.reset();
    else served.engine.stop();
    await served.world.clock.pass(1_000);
    expect.equal(served.world.host.exit?.code, how === "is cut off" ? 75 : 0);
    expect.equal(served.engine.report().idleQueue, 256);
    sameBytes(served.data(4096, 512), bytes(512, 0));
  });
}

// ---- silence ------------------------------------------------------------------------------------

test("20 s without a message end the connection; a keepalive counts", async () => {
  const served = await Served.start();
  await served.world.clock.pass(15_000);
  await served.send(keepalive());
  await served.world.clock.pass(15_000);
  served.alive();
  await served.world.clock.pass(6_000);
  expect.equal(served.world.host.exit?.code, 75);
  expect.match(served.world.host.warnings.at(-1)!, /silent for 20 s/);
});

test("BD-30: a primary of ours is answered, and its silence lasts `timeout`, not 20 s", async () => {
  const served = await Served.start({ settings: { timeout: 8 }, hello: { extensions: EXT_ALIVE } });
  // It may still be storing our map, or asking a gate.
  await served.world.clock.pass(19_000);
  await served.send(keepalive());
  expect.deepEqual(served.replies(), ["0"]);
  await served.world.clock.pass(7_000);
  await served.send(keepalive());
  await served.world.clock.pass(7_000);
  served.alive();
  await served.world.clock.pass(1_000);
  expect.equal(served.world.host.exit?.code, 75);
  expect.match(
    served.world.host.exit!.reason,
    /silent for 8 s\. If that node is dead, to go on here: hastctl role primary \w+$/,
  );
});

test("BD-30: no timeout is so short that the pause between two keepalives counts as silence", async () => {
  const served = await Served.start({ settings: { timeout: 1 }, hello: { extensions: EXT_ALIVE } });
  await served.send(keepalive());
  await served.world.clock.pass(5_000);
  served.alive();
  await served.world.clock.pass(1_000);
  expect.match(served.world.host.warnings.at(-1)!, /silent for 6 s/);
});

test("while our own disk is slow, the primary is not called silent", async () => {
  const served = await Served.start({ completion: "held" });
  const requests: Uint8Array[] = [];
  for (let index = 0; index < 300; index++) {
    requests.push(writeRequest(index + 1, index * 512, bytes(512, 1)));
  }
  await served.send(...requests);
  await served.world.clock.pass(60_000);
  expect.equal(served.world.host.exit, null);
  served.world.disk.completion = "inside";
  served.world.disk.release();
  await served.world.clock.pass(1_000);
  expect.equal(served.replies().length, 300);
});

// ---- metadata and map ---------------------------------------------------------------------------

test("the first request clears the whole map, however long", async () => {
  const mediaSize = 8 * 1024 * 1024 * 1024;
  const metadata = { extentsize: 512 };
  const served = await Served.start({
    mediaSize,
    metadata: { ...metadata, resuid: 0n },
    hello: { virgin: true, extensions: EXT_STATE },
    completion: "later",
  });
  const mapSize = served.dataSize / 512 / 8 - ((served.dataSize / 512 / 8) % 512);
  expect.ok(mapSize > 1024 * 1024);
  served.world.disk.poke(4096, bytes(mapSize, 0xff));
  await served.send(keepalive());
  expect.equal(served.world.disk.peek(4096, 1)[0], 0xff, "a keepalive does not count");
  await served.send(flushRequest(1));
  expect.ok(served.world.disk.peek(4096, mapSize).every((byte) => byte === 0));
});

test("a map that could not be cleared is tried again with the next request", async () => {
  const served = await Served.start({ hello: { extensions: EXT_STATE } });
  served.world.disk.poke(4096, bytes(512, 1));
  served.world.disk.fail = ({ op, offset }) => (op === "write" && offset === 4096 ? 5 : 0);
  await served.send(flushRequest(1));
  expect.match(served.world.host.warnings[0]!, /activemap could not be cleared/);
  served.world.disk.fail = () => 0;
  await served.send(flushRequest(2));
  expect.equal(served.world.disk.peek(4096, 1)[0], 0);
  expect.deepEqual(served.replies(), ["1", "2"]);
});

test("a secondary that cannot store the resource's id does not answer", async () => {
  const world = new World({ arena: ARENA });
  createComponent(world.disk);
  world.disk.fail = ({ op }) => (op === "write" ? 5 : 0);
  const a = pretendConnection(world.events, "a");
  const b = pretendConnection(world.events, "b");
  const hello: PeerHello = {
    version: 2,
    extensions: 0n,
    virgin: true,
    resuid: RESUID,
    localcnt: 0n,
    remotecnt: 0n,
    remarks: null,
    life: null,
    left: null,
    whole: false,
    invalidate: false,
  };
  const { settings, disk, environment, host } = world;
  const engine = await world.until(
    SecondaryEngine.open(settings, hello, disk, a.near, b.near, environment, host),
  );
  await world.until(engine.start());
  await world.events.settle();
  expect.equal(a.takeHeard().length, 0);
  expect.equal(host.exit?.code, 74);
});

test("stop() before the handshake is answered ends in peace", async () => {
  for (const moment of ["record", "map"]) {
    const world = new World({ arena: ARENA });
    createComponent(world.disk, { resuid: moment === "record" ? 0n : RESUID });
    const a = pretendConnection(world.events, "a");
    const b = pretendConnection(world.events, "b");
    const hello: PeerHello = {
      version: 2,
      extensions: 0n,
      virgin: true,
      resuid: RESUID,
      localcnt: 0n,
      remotecnt: 0n,
      remarks: null,
      life: null,
      left: null,
      whole: false,
      invalidate: false,
    };
    const { settings, disk, environment, host } = world;
    const engine = await world.until(
      SecondaryEngine.open(settings, hello, disk, a.near, b.near, environment, host),
    );
    disk.completion = "held";
    void engine.start();
    await world.events.settle();
    engine.stop();
    await world.events.settle();
    disk.release();
    await world.events.settle();
    expect.equal(host.exit?.code, 0);
    expect.equal(disk.closed, true);
    expect.equal(a.takeHeard().length, 0);
  }
});

test("what fails is reported", async () => {
  const served = await Served.start();
  let failures = 1;
  served.world.disk.fail = ({ op }) => (op === "flush" && failures-- > 0 ? 5 : 0);
  await served.send(flushRequest(2));
  expect.equal(served.metadata.state, "inconsistent");
  served.world.disk.fail = ({ op }) => (op === "read" ? 5 : 0);
  await served.send(readRequest(3, 0, 512));
  served.world.disk.fail = ({ op, offset }) => (op === "write" && offset >= LOCALOFF ? 28 : 0);
  await served.send(writeRequest(4, 0, bytes(512, 1), { memsync: true }));
  expect.deepEqual(served.replies(), ["2 error 5", "3 error 5", "4 received", "4 error 28"]);
});

test("a disk that fails requests is warned of once, and status says so", async () => {
  const served = await Served.start();
  served.world.disk.fail = ({ op, offset }) => (op === "write" && offset >= LOCALOFF ? 28 : 0);
  await served.send(
    writeRequest(1, 0, new Uint8Array(512)),
    writeRequest(2, 0, new Uint8Array(512)),
  );
  expect.deepEqual(served.replies(), ["1 error 28", "2 error 28"]);
  expect.equal(served.world.host.warnings.length, 1);
  expect.match(served.world.host.warnings[0]!, /\/pretend\/disk .*No space left.*Make room/);
  expect.match(served.engine.report().notes.join(), /\/pretend\/disk failed 2 requests/);
});

// ---- our own primaries --------------------------------------------------------------------------

test("S-13: a state is stored once everything before it has been executed, and before the answer", async () => {
  const served = await Served.start({
    hello: { extensions: EXT_STATE },
    metadata: { state: "uptodate", sequence: 1n },
    completion: "held",
  });
  await served.send(
    writeRequest(1, 0, bytes(512, 1)),
    encodeState(2, 2, "inconsistent", 4n),
    writeRequest(3, 512, bytes(512, 3)),
  );
  expect.deepEqual(served.replies(), []);
  const { disk } = served.world;
  const running = (): string[] => disk.running.map(({ op, offset }) => `${op} ${offset}`);
  expect.deepEqual(running(), ["write 4096", `write ${LOCALOFF}`]);
  disk.release(({ offset }) => offset === 4096);
  await served.world.events.settle();
  expect.deepEqual(running(), [`write ${LOCALOFF}`], "the copies that it speaks of come first");
  disk.release();
  await served.world.events.settle();
  expect.deepEqual(served.replies(), ["1"]);
  for (const step of ["write 2048", "flush 0", "write 0", "flush 0"]) {
    expect.deepEqual(running(), [step]);
    expect.deepEqual(served.replies(), []);
    disk.release();
    await served.world.events.settle();
  }
  expect.deepEqual(served.replies(), ["2"]);
  expect.deepEqual([served.metadata.state, served.metadata.remotecnt], ["inconsistent", 0n]);
  expect.match(served.engine.report().notes.join(), /cannot be promoted/);
  disk.release();
  disk.completion = "later";
  await served.send(encodeState(2, 4, "uptodate", 4n));
  expect.deepEqual(served.replies(), ["3", "4"]);
  expect.deepEqual([served.metadata.state, served.metadata.remotecnt], ["uptodate", 4n]);
});

test("a state received whole is stored although the primary is gone by then", async () => {
  const served = await Served.start({
    hello: { extensions: EXT_STATE },
    metadata: { state: "inconsistent", sequence: 1n },
    completion: "held",
  });
  await served.send(writeRequest(1, 0, bytes(512, 1)), encodeState(2, 2, "uptodate", 4n));
  served.a.end();
  await served.ended(75);
  expect.deepEqual([served.metadata.state, served.metadata.remotecnt], ["uptodate", 4n]);
});

/** A primary of ours that says what it acknowledges; its counters are 0/0. */
const TOGETHER: Partial<PeerHello> = {
  extensions: EXT_STATE | EXT_KEPT,
  remarks: { dirtyExtents: 0, synced: "all", aloneSince: null, lacking: null },
  life: { fresh: false, early: false },
};
const HELD: Held = { resuid: RESUID, localcnt: 0n, remotecnt: 0n };
const LEFT: Left = { cache: 8n, held: HELD };
const IN_STEP: Partial<Metadata> = { state: "uptodate", sequence: 1n };

/** What is left to the next worker after one connection. */
async function leaves(
  setup: Setup,
  act: (served: Served) => Promise<void> = async () => {},
): Promise<Held | null> {
  const served = await Served.start({ metadata: IN_STEP, ...setup });
  await act(served);
  served.a.end();
  await served.ended(75);
  return served.world.host.left?.held ?? null;
}

test("S-1: a copy's cache keeps its name from one worker to the next, until something fails that was to change it", async () => {
  const named = async (
    left: Left | null,
    fail?: "write" | "flush" | "read",
  ): Promise<Left | null> => {
    const served = await Served.start({ metadata: IN_STEP, hello: { ...TOGETHER, left } });
    if (left !== null) expect.equal(served.s2.cache, left.cache);
    let failures = fail === undefined ? 0 : 1;
    served.world.disk.fail = ({ op, offset }) =>
      op === fail && (op !== "write" || offset >= LOCALOFF) && failures-- > 0 ? 5 : 0;
    await served.send(writeRequest(1, 0, bytes(512, 1)), readRequest(2, 0, 512), flushRequest(3));
    served.world.disk.fail = () => 0;
    served.a.end();
    await served.ended(75);
    const after = served.world.host.left;
    expect.ok(after === null || after.cache === served.s2.cache);
    return after;
  };
  expect.notEqual(await named(null), null, "a name of its own");
  expect.equal((await named(LEFT))?.cache, LEFT.cache);
  expect.equal((await named(LEFT, "read"))?.cache, LEFT.cache, "nothing was to be changed");
  expect.equal(await named(LEFT, "write"), null);
  expect.equal(await named(LEFT, "flush"), null);
});

test("S-9: in step, and with nothing failed, a worker leaves word that everything acknowledged is here", async () => {
  const act = async (served: Served): Promise<void> =>
    served.send(writeRequest(1, 0, bytes(512, 1), { memsync: true }));
  // What it has answered with `received` is written before the word is given (S-5).
  expect.deepEqual(await leaves({ hello: TOGETHER, completion: "held" }, act), HELD);
  expect.deepEqual(
    await leaves({ hello: TOGETHER }, (served) => served.send(encodeState(2, 1, "uptodate", 4n))),
    { ...HELD, remotecnt: 4n },
  );
});

test("S-9: so it does after failures that were made good, and not after later ones", async () => {
  for (const op of ["write", "flush"] as const) {
    for (const again of [false, true]) {
      let failing = false;
      const failOnce = async (served: Served, seq: number): Promise<void> => {
        served.world.disk.fail = (io) => {
          if (!failing || io.op !== op || (op !== "flush" && io.offset < LOCALOFF)) return 0;
          failing = false;
          return 5;
        };
        failing = true;
        await served.send(writeRequest(seq, 0, bytes(512, 1)), flushRequest(seq + 1));
        expect.equal(failing, false);
      };
      const setup = { metadata: IN_STEP, hello: { ...TOGETHER, left: LEFT } };
      const served = await Served.start(setup);
      await failOnce(served, 1);
      await served.send(encodeState(2, 3, "inconsistent", 0n));
      await served.send(writeRequest(4, 0, bytes(512, 1)), flushRequest(5));
      await served.send(encodeState(2, 6, "uptodate", 4n));
      expect.equal(served.metadata.state, "uptodate");
      if (again) await failOnce(served, 7);
      served.a.end();
      await served.ended(75);
      const left = again ? null : { ...LEFT, held: { ...HELD, remotecnt: 4n } };
      expect.deepEqual(served.world.host.left, left, `${op} failed ${again ? "twice" : "once"}`);
    }
  }
});

test("S-9: no such word where the primary may have acknowledged what never came, or where something is missing", async () => {
  const dirty = { dirtyExtents: 1, synced: "all", aloneSince: null, lacking: null } as const;
  const cases: readonly (readonly [string, Setup])[] = [
    ["async", { hello: { ...TOGETHER, life: { fresh: false, early: true } } }],
    ["does not say", { hello: { ...TOGETHER, extensions: EXT_STATE, life: null } }],
    ["FreeBSD", { hello: { remarks: null } }],
    ["the primary's map marks something", { hello: { ...TOGETHER, remarks: dirty } }],
    ["our map marks something", { hello: TOGETHER, map: Uint8Array.of(1) }],
    ["the primary went on alone", { hello: { ...TOGETHER, localcnt: 1n } }],
    ["not whole", { hello: TOGETHER, metadata: { state: "inconsistent", sequence: 1n } }],
    [
      "promoted by force once",
      { hello: TOGETHER, metadata: { state: "consistent", sequence: 1n } },
    ],
  ];
  for (const [what, setup] of cases) expect.equal(await leaves(setup), null, what);
  const held = { hello: { ...TOGETHER, left: LEFT } };
  expect.equal(
    await leaves(held, (served) => served.send(encodeState(2, 1, "inconsistent", 0n))),
    null,
    "a synchronization has begun",
  );
  for (const op of ["write", "flush", "read"] as const) {
    const act = async (served: Served): Promise<void> => {
      let failing = true;
      served.world.disk.fail = (io) => {
        if (!failing || io.op !== op || (op !== "flush" && io.offset < LOCALOFF)) return 0;
        failing = false;
        return 5;
      };
      await served.send(
        op === "write"
          ? writeRequest(1, 0, bytes(512, 1), { memsync: true })
          : op === "flush"
            ? flushRequest(1)
            : readRequest(1, 0, 512),
      );
      expect.equal(failing, false);
    };
    expect.equal(await leaves({ hello: TOGETHER }, act), null, `a ${op} failed`);
  }
});

test("S-9: a primary that has lost its cache finds the copy that kept its own the source, and only then", async () => {
  const life = { fresh: true, early: false };
  const remarks = { dirtyExtents: 1, synced: "all", aloneSince: null, lacking: null } as const;
  const back: Partial<PeerHello> = { ...TOGETHER, life, remarks, left: LEFT };
  const source = async (hello: Partial<PeerHello>, metadata = IN_STEP): Promise<string> =>
    (await Served.start({ hello, metadata })).s2.syncsrc;
  expect.equal(await source(back), "secondary");
  expect.equal(await source({ ...back, left: null }), "primary", "hastd here is another one");
  expect.equal(
    await source({ ...back, left: { cache: 8n, held: { ...HELD, remotecnt: 1n } } }),
    "primary",
  );
  expect.equal(
    await source({ ...back, left: { cache: 8n, held: { ...HELD, resuid: 1n } } }),
    "primary",
  );
  expect.equal(await source({ ...back, life: { ...life, fresh: false } }), "primary");
  expect.equal(await source({ ...back, life: { ...life, early: true } }), "primary");
  expect.equal(await source({ ...back, localcnt: 1n }), "primary", "it went on alone");
  expect.equal(
    await source({ ...back, remarks: TOGETHER.remarks! }),
    "primary",
    "no map marks anything",
  );
  expect.equal(await source(back, { ...IN_STEP, state: "outdated" }), "primary");
  // The word holds through as many interrupted attempts as it takes.
  expect.deepEqual(await leaves({ hello: back }), HELD);
});

test("S-16: a write that failed is on record before the primary learns of it", async () => {
  const served = await Served.start({
    hello: { extensions: EXT_STATE },
    metadata: { state: "uptodate", sequence: 1n },
    completion: "held",
  });
  const { disk, events } = served.world;
  disk.fail = ({ op, offset }) => (op === "write" && offset >= LOCALOFF ? 28 : 0);
  const step = async (): Promise<string[]> => {
    disk.release();
    await events.settle();
    return disk.running.map(({ op, offset }) => `${op} ${offset}`);
  };
  await served.send(writeRequest(1, 0, bytes(512, 1)), writeRequest(2, 512, bytes(512, 2)));
  await step(); // the map is cleared, and both writes fail
  expect.deepEqual(await step(), ["flush 0"]);
  expect.deepEqual(await step(), ["write 0"]);
  expect.deepEqual(await step(), ["flush 0"]);
  expect.deepEqual(served.replies(), []);
  await step();
  expect.deepEqual(served.replies(), ["1 error 28", "2 error 28"]);
  expect.equal(served.metadata.state, "inconsistent");
  disk.completion = "later";
  await served.send(writeRequest(3, 0, bytes(512, 1)));
  expect.deepEqual(served.replies(), ["3 error 28"], "once is enough");
});

test("S-16: a write that is refused, since our sectors are larger, is as good as failed", async () => {
  const served = await Served.start({
    hello: { extensions: EXT_STATE },
    metadata: { state: "uptodate", sequence: 1n },
    completion: "held",
  });
  const { disk, events, host } = served.world;
  const step = async (): Promise<string[]> => {
    disk.release();
    await events.settle();
    return disk.running.map(({ op, offset }) => `${op} ${offset}`);
  };
  await served.send(
    writeRequest(1, 768, bytes(256, 1), { memsync: true }),
    deleteRequest(2, 1024, 256),
    readRequest(3, 768, 256),
  );
  expect.deepEqual(served.replies(), ["3 error 22"], "nor is anything promised");
  expect.deepEqual(await step(), ["flush 0"]);
  expect.deepEqual(await step(), ["write 0"]);
  expect.deepEqual(await step(), ["flush 0"]);
  expect.deepEqual(served.replies(), []);
  await step();
  expect.deepEqual(served.replies(), ["1 error 22", "2 error 22"]);
  expect.equal(served.metadata.state, "inconsistent");
  disk.completion = "inside";
  // The primary says so before it has heard of the refusal.
  await served.send(encodeState(2, 4, "uptodate", 4n));
  expect.deepEqual(served.replies(), ["4 error 35"]);
  const told = host.warnings.filter((text) => /sectors of 512 bytes/.test(text));
  expect.equal(told.length, 1, "once, and nothing of a disk that fails");
  expect.equal(host.warnings.length, 1);
  expect.match(told[0]!, /256 bytes at 768.*hastctl create .*r0/);
  expect.match(served.engine.report().notes.join(), /2 requests.*sectors of 512 bytes/);
  expect.equal(served.engine.report().writeErrors, 1);
  await served.send(writeRequest(5, 0, bytes(65536, 1)), flushRequest(6));
  await served.send(encodeState(2, 7, "uptodate", 4n));
  expect.equal(served.metadata.state, "uptodate");
  sameBytes(served.data(0, 65536), bytes(65536, 1));
});

test("S-16: under a FreeBSD primary a refused write is marked here, as far as this disk goes", async () => {
  const served = await Served.start({ metadata: { extentsize: 65536 }, completion: "held" });
  const { disk, events } = served.world;
  const end = served.dataSize;
  const last = Math.floor((end - 1) / 65536);
  await served.send(
    writeRequest(1, 65536 - 256, bytes(512, 1)),
    header(3, 2, BigInt(end - 512), 1n << 40n),
    header(3, 3, BigInt(end), 512n),
    header(3, 4, 512n, 0n),
  );
  expect.deepEqual(served.replies(), ["3 error 22", "4 error 22"], "nothing of this copy");
  disk.completion = "inside";
  const marked = (): number[] =>
    [...Array(last + 1).keys()].filter((extent) => {
      return (disk.peek(METADATA_SIZE, 8)[extent >> 3]! & (1 << (extent & 7))) !== 0;
    });
  disk.release();
  await events.settle();
  expect.deepEqual(served.replies(), ["1 error 22", "2 error 22"]);
  expect.deepEqual(marked(), [0, 1, last]);
  expect.equal(served.metadata.state, "inconsistent");
  await served.send(flushRequest(5), flushRequest(6));
  served.engine.stop();
  await served.ended(0);
  expect.deepEqual(marked(), [0, 1, last], "the next handshake carries it");
});

test("S-16: that the copy is whole is not believed while something has failed since the last flush", async () => {
  for (const what of ["write", "flush"] as const) {
    const served = await Served.start({
      hello: { extensions: EXT_STATE },
      metadata: { state: "inconsistent", sequence: 1n },
    });
    const { disk } = served.world;
    await served.send(flushRequest(1));
    disk.fail = ({ op, offset }) =>
      op === what && (what === "flush" || offset >= LOCALOFF) ? 5 : 0;
    const request = what === "write" ? writeRequest(2, 0, bytes(512, 1)) : flushRequest(2);
    // The primary says so before it has heard of the failure.
    await served.send(request, encodeState(2, 3, "uptodate", 4n));
    expect.deepEqual(served.replies(), ["1", "2 error 5", "3 error 35"]);
    expect.equal(served.metadata.state, "inconsistent");
    disk.fail = () => 0;
    await served.send(writeRequest(4, 0, bytes(512, 1)), flushRequest(5));
    await served.send(encodeState(2, 6, "uptodate", 4n));
    expect.deepEqual(served.replies(), ["4", "5", "6"]);
    expect.equal(served.metadata.state, "uptodate");
  }
});

test("S-16: a secondary that cannot put its failure on record does not answer at all", async () => {
  const served = await Served.start({
    hello: { extensions: EXT_STATE },
    metadata: { state: "uptodate", sequence: 1n },
  });
  served.world.disk.fail = ({ op, offset }) => (op === "write" && offset !== 4096 ? 5 : 0);
  await served.send(writeRequest(1, 0, bytes(512, 1)));
  await served.world.events.settle();
  expect.equal(served.world.host.exit?.code, 74);
  expect.deepEqual(served.replies(), []);
});

test("S-1: a flush of the record that fails took data along: the primary is not left to ask again", async () => {
  const served = await Served.start({
    hello: { extensions: EXT_STATE | EXT_SOLE },
    metadata: { state: "uptodate", sequence: 1n },
  });
  const { disk, host } = served.world;
  await served.send(writeRequest(1, 0, bytes(512, 1)));
  disk.fail = ({ op }) => (op === "flush" ? 5 : 0);
  await served.send(encodeState(2, 2, "inconsistent", 4n), flushRequest(3));
  await served.world.events.settle();
  disk.fail = () => 0;
  expect.equal(host.exit?.code, 74);
  expect.equal(host.left, null, "nor is the cache what it was");
  expect.deepEqual(served.replies(), ["1"]);
});

test("S-1: a secondary that keeps the record counts on, and marks before it writes", async () => {
  const served = await Served.start({
    hello: { extensions: EXT_STATE | EXT_SOLE },
    metadata: { state: "consistent", sequence: 1n, localcnt: 0n },
    settings: { metaflush: false },
  });
  const { disk } = served.world;
  disk.poke(4096, Uint8Array.of(0b100)); // what the primary has not stored anywhere
  await served.send(encodeState(2, 1, "sole", 0n, 0n));
  expect.deepEqual(served.replies(), ["1"]);
  expect.deepEqual([served.metadata.localcnt, served.metadata.state], [1n, "uptodate"]);
  expect.match(served.engine.report().notes.join(), /the only one/);
  const before = disk.history.length;
  await served.send(writeRequest(2, 0, bytes(512, 1)), flushRequest(3));
  expect.deepEqual(served.replies(), ["2", "3"]);
  expect.deepEqual(
    disk.history.slice(before).map(({ op, offset }) => `${op} ${offset}`),
    ["write 4096", "flush 0", `write ${LOCALOFF}`, "flush 0"],
  );
  expect.deepEqual(disk.peek(4096, 1), Uint8Array.of(0b101));
  // An error is the client's; there is no other copy that this one could lack something of.
  disk.fail = ({ op, offset }) => (op === "write" && offset >= LOCALOFF ? 5 : 0);
  await served.send(writeRequest(4, 0, bytes(512, 1)));
  expect.deepEqual(served.replies(), ["4 error 5"]);
  expect.equal(served.metadata.state, "uptodate");
});

test("S-1: a secondary keeps no record for a primary that counts differently, or whose map it cannot read", async () => {
  for (const bad of ["counter", "map"] as const) {
    const served = await Served.start({
      hello: { extensions: EXT_STATE | EXT_SOLE },
      metadata: { state: "uptodate", sequence: 1n },
    });
    if (bad === "map") served.world.disk.fail = ({ op }) => (op === "read" ? 5 : 0);
    await served.send(encodeState(2, 1, "sole", bad === "counter" ? 1n : 0n, 0n));
    expect.deepEqual(served.replies(), [bad === "counter" ? "1 error 22" : "1 error 5"]);
    expect.equal(served.metadata.localcnt, 0n);
  }
});

test("S-1: a secondary that cannot mark while it keeps the record ends, and has written nothing", async () => {
  const served = await Served.start({
    hello: { extensions: EXT_STATE | EXT_SOLE },
    metadata: { state: "uptodate", sequence: 1n },
  });
  await served.send(encodeState(2, 1, "sole", 0n, 0n));
  served.world.disk.fail = ({ op, offset }) => (op === "write" && offset === 4096 ? 5 : 0);
  await served.send(writeRequest(2, 0, bytes(512, 1)));
  expect.equal(served.world.host.exit?.code, 74);
  sameBytes(served.data(0, 512), bytes(512, OLD));
});

test("a fresh node has the map of ones on its disk before the resource's id, until a request comes", async () => {
  const served = await Served.start({
    metadata: { resuid: 0n },
    hello: { localcnt: 3n, remotecnt: 2n },
  });
  const { disk } = served.world;
  const writes = disk.history
    .filter(({ op }) => op !== "read")
    .map(({ op, offset }) => [op, offset]);
  expect.deepEqual(writes.slice(-6), [
    ["write", 4096],
    ["flush", 0],
    ["write", 2048],
    ["flush", 0],
    ["write", 0],
    ["flush", 0],
  ]);
  expect.equal(served.metadata.resuid, RESUID);
  expect.deepEqual(disk.peek(4096, 8), bytes(8, 0xff));
  await served.send(keepalive());
  expect.deepEqual(disk.peek(4096, 8), bytes(8, 0xff), "a keepalive proves nothing");
  expect.equal(served.metadata.state, "inconsistent", "nothing of it can be believed yet");
  await served.send(writeRequest(1, 0, bytes(512, 1)));
  expect.deepEqual(disk.peek(4096, 8), Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0), "that extent's own");
});

test("S-16: under a FreeBSD primary what was not flushed, or failed, is marked here before it is written", async () => {
  const served = await Served.start({
    metadata: { extentsize: 4096, keepdirty: 2 },
    map: bytes(1, 0x80),
    completion: "held",
  });
  const { disk, events } = served.world;
  const step = async (): Promise<string[]> => {
    disk.release();
    await events.settle();
    return disk.running.map(({ op, offset }) => `${op} ${offset}`);
  };
  const map = (): number => disk.peek(4096, 1)[0]!;
  await served.send(writeRequest(1, 0, bytes(512, 1)));
  expect.equal(map(), 0x80, "what the primary may not have merged yet");
  expect.deepEqual(await step(), ["flush 0"]);
  expect.equal(map(), 0x01);
  expect.deepEqual(await step(), [`write ${LOCALOFF}`]);
  await step();
  disk.completion = "inside";
  disk.fail = ({ op, offset }) => (op === "write" && offset >= LOCALOFF ? 28 : 0);
  await served.send(writeRequest(2, 4096, bytes(512, 1)));
  expect.equal(served.metadata.state, "inconsistent", "the primary will not say so");
  disk.fail = () => 0;
  await served.send(writeRequest(3, 8192, bytes(1024 * 8, 1)));
  expect.deepEqual(served.replies(), ["1", "2 error 28", "3"]);
  for (let seq = 4; seq < 8; seq++) await served.send(flushRequest(seq));
  await served.send(writeRequest(8, 16384, bytes(512, 1)));
  expect.equal(map(), 0x02 + 0x04 + 0x08 + 0x10, "failed, kept dirty twice, unflushed");
  disk.fail = ({ op }) => (op === "flush" ? 5 : 0);
  await served.send(flushRequest(9));
  disk.fail = () => 0;
  for (let seq = 10; seq < 14; seq++) await served.send(flushRequest(seq));
  await served.send(writeRequest(14, 20480, bytes(512, 1)));
  expect.equal(map() & 0x12, 0x12, "no later flush covers what one has failed to write");
  served.engine.stop();
  await served.ended(0);
  expect.equal(map(), 0x12, "an end in good order leaves what failed");
});

test("S-16: a FreeBSD primary that goes before its first request leaves our map as it was", async () => {
  for (const asked of [false, true]) {
    const served = await Served.start({
      metadata: { extentsize: 4096, keepdirty: 2 },
      map: bytes(1, 0x81),
    });
    if (asked) await served.send(flushRequest(1));
    served.a.end();
    await served.ended(75);
    const left = served.world.disk.peek(4096, 1)[0];
    expect.equal(left, asked ? 0 : 0x81, "only a request proves that the primary has merged it");
  }
});

test("invariant 6: what the last flush under a FreeBSD primary has lost is on record when the worker ends", async () => {
  for (const end of ["its primary goes", "stopped"] as const) {
    const served = await Served.start({
      metadata: { extentsize: 4096, keepdirty: 2, state: "uptodate", sequence: 1n },
    });
    const { disk, host } = served.world;
    await served.send(writeRequest(1, 0, bytes(512, 1)));
    // The one that fails uses the error up.
    disk.fail = ({ op }) => {
      if (op !== "flush") return 0;
      disk.fail = () => 0;
      return 5;
    };
    if (end === "stopped") served.engine.stop();
    else served.a.end();
    await served.ended(end === "stopped" ? 0 : 75);
    expect.equal(served.metadata.state, "inconsistent", end);
    expect.equal(host.copies.at(-1)?.state, "inconsistent", "hastd knows it, too");
    expect.equal(host.left, null);
    expect.equal(disk.peek(4096, 1)[0], 0x01, "the next handshake carries it");
    expect.match(host.warnings.join(), /flushing/);
  }
});

test("invariant 6: what a flush of the map under a FreeBSD primary has lost is on record when the worker ends", async () => {
  const served = await Served.start({
    metadata: { extentsize: 4096, keepdirty: 2, state: "uptodate", sequence: 1n },
  });
  const { disk, host } = served.world;
  await served.send(writeRequest(1, 0, bytes(512, 1)));
  const answered = served.replies();
  // The one that fails uses the error up: those behind it succeed.
  disk.fail = ({ op }) => {
    if (op !== "flush") return 0;
    disk.fail = () => 0;
    return 5;
  };
  await served.send(writeRequest(2, 8192, bytes(512, 2)), flushRequest(3));
  expect.equal(host.exit?.code, 74);
  expect.deepEqual(served.replies(), [], "not that anything is stable");
  expect.deepEqual(answered, ["1"]);
  expect.equal(served.metadata.state, "inconsistent");
  expect.equal(host.copies.at(-1)?.state, "inconsistent", "hastd knows it, too");
  expect.equal(host.left, null);
  expect.equal(disk.peek(4096, 1)[0]! & 0x01, 0x01, "the next handshake carries it");
});

test("invariant 6: a flush that fails while the end of a synchronization is inferred unmarks nothing", async () => {
  const forced = { state: "outdated", at: 1 } as const;
  const served = await Served.start({
    metadata: { extentsize: 4096, keepdirty: 2, state: "consistent", forced, sequence: 1n },
  });
  const { clock, disk, host } = served.world;
  await served.send(writeRequest(7, 0, bytes(512, 1)));
  disk.fail = ({ op }) => {
    if (op !== "flush") return 0;
    disk.fail = () => 0;
    return 5;
  };
  for (const ms of [15_000, 10_000]) {
    await clock.pass(ms);
    await served.send(keepalive());
  }
  expect.match(host.exit?.reason ?? "", /^flushing failed/);
  expect.equal(served.metadata.state, "inconsistent");
  expect.equal(host.left, null);
  expect.equal(disk.peek(4096, 1)[0], 0x01, "the next handshake carries it");
});

test("invariant 6: nor does it end in good order where that cannot be put on record", async () => {
  const served = await Served.start({ metadata: { state: "uptodate", sequence: 1n } });
  const { disk } = served.world;
  await served.send(writeRequest(1, 0, bytes(512, 1)));
  disk.fail = ({ op }) => (op === "flush" ? 5 : 0);
  served.a.end();
  await served.ended(74);
});

test("S-16: a flush that succeeded after one that failed is answered after it, and unmarks nothing of it", async () => {
  const served = await Served.start({
    metadata: { extentsize: 4096, keepdirty: 2, state: "uptodate", sequence: 1n },
  });
  const { disk, events } = served.world;
  const release = async (op: "write" | "flush"): Promise<void> => {
    disk.release((request) => request.op === op);
    await events.settle();
  };
  await served.send(writeRequest(1, 0, bytes(512, 1)));
  disk.completion = "held";
  await served.send(flushRequest(2), flushRequest(3), writeRequest(4, 512, bytes(512, 2)));
  await release("write");
  await release("flush");
  expect.deepEqual(served.replies(), ["1", "4", "2"]);
  await served.send(flushRequest(5));
  disk.fail = ({ op }) => (op === "flush" ? 5 : 0);
  await release("flush");
  disk.fail = () => 0;
  // The one that succeeds, before the first block of the record is written.
  await release("flush");
  expect.deepEqual(served.replies(), [], "neither is answered yet");
  disk.completion = "inside";
  disk.release();
  await events.settle();
  expect.deepEqual(served.replies(), ["3 error 5", "5"]);
  expect.equal(served.metadata.state, "inconsistent");
  for (let seq = 6; seq < 10; seq++) await served.send(flushRequest(seq));
  served.engine.stop();
  await served.ended(0);
  expect.equal(disk.peek(4096, 1)[0], 0x01, "what the failed one was to write");
});

test("S-13: a WRITE that waits for memory is one, however often it is tried", async () => {
  const served = await Served.start({
    metadata: { resuid: 0n },
    hello: { localcnt: 3n },
    mediaSize: 4 * 1024 * 1024,
  });
  const { clock } = served.world;
  served.b.stopListening();
  const reads = Array.from({ length: 250 }, (_, index) => readRequest(index + 2, 0, 1024 * 1024));
  // Nothing else has its number: who can tell a copy from another WRITE?
  const hole = writeRequest(1, 0, bytes(512, 0), { compression: COMPRESSION_HOLE });
  await served.send(...reads, hole);
  served.b.listenAgain();
  await served.world.events.settle();
  expect.ok(served.replies().includes("1"));
  const wait = async (...requests: Uint8Array[]): Promise<void> => {
    for (let passed = 0; passed < 25_000; passed += 5_000) {
      await clock.pass(5_000);
      await served.send(...requests);
    }
  };
  await wait(writeRequest(300, 4096, bytes(512, 1)));
  expect.equal(served.metadata.state, "inconsistent");
  await wait(keepalive());
  expect.equal(served.metadata.state, "uptodate");
});

test("S-13: under a FreeBSD primary the end of a synchronization is inferred, and called so", async () => {
  for (const freebsd of [true, false]) {
    const served = await Served.start({ metadata: { resuid: 0n }, hello: { localcnt: 3n } });
    const { clock } = served.world;
    const state = (): string => served.metadata.state!;
    const wait = async (ms: number, ...requests: Uint8Array[]): Promise<void> => {
      for (let passed = 0; passed < ms; passed += 5_000) {
        await clock.pass(5_000);
        await served.send(...requests);
      }
    };
    const copy = writeRequest(1, 0, bytes(512, 1));
    await served.send(copy, copy);
    const work = writeRequest(freebsd ? 77 : 1, 4096, bytes(512, 2));
    await wait(15_000, copy, keepalive());
    expect.equal(state(), "inconsistent", "copies still come");
    await wait(15_000, keepalive());
    expect.equal(state(), "inconsistent", "not for long enough");
    if (!freebsd) {
      await wait(25_000, work);
      expect.equal(state(), "inconsistent", "who can tell it from a copy?");
      await wait(20_000, keepalive());
    }
    await wait(5_000, work);
    if (freebsd) expect.equal(state(), "uptodate");
    await wait(25_000, keepalive());
    expect.equal(state(), "uptodate");
    expect.match(served.engine.report().notes.join(), /has ended is inferred/);
  }
});

test("S-13, S-16, S-19: no copy is inferred to be whole that failed, or is not written, or not flushed", async () => {
  const copied = writeRequest(1, 0, bytes(512, 1));
  for (const what of [
    "a part failed",
    "a flush fails",
    "the last piece is being written",
  ] as const) {
    const served = await Served.start({ metadata: { resuid: 0n }, hello: { localcnt: 3n } });
    const { clock, disk, events, host } = served.world;
    if (what === "a part failed") {
      disk.fail = ({ op, offset }) => (op === "write" && offset >= LOCALOFF ? 5 : 0);
    }
    await served.send(copied, copied);
    disk.fail = ({ op }) => (op === "flush" && what === "a flush fails" ? 5 : 0);
    if (what === "the last piece is being written") {
      disk.completion = "held";
      await served.send(copied);
      while (!disk.running.some(({ offset }) => offset === LOCALOFF)) {
        disk.release();
        await events.settle();
      }
    }
    for (let passed = 0; passed < 30_000; passed += 15_000) {
      await clock.pass(15_000);
      await served.send(keepalive());
    }
    expect.equal(served.metadata.state, "inconsistent", what);
    // What it has dropped is marked in our map, which the primary is handed when it connects anew.
    if (what === "a flush fails") expect.match(host.exit?.reason ?? "", /^flushing failed/);
    else expect.equal(host.exit, null, what);
    expect.ok(
      disk.running.every(({ op }) => op === "write"),
      `${what}: not flushed before`,
    );
  }
});

test("S-13, S-16: what fails while the end of a synchronization is inferred is on record last", async () => {
  for (const [state, during] of [
    ["inconsistent", "record"],
    ["inconsistent", "one batch"],
    ["outdated", "flush"],
  ] as const) {
    const served = await Served.start({ metadata: { sequence: 1n, state } });
    const { clock, disk, events } = served.world;
    const release = async (which: (op: string, offset: number) => boolean): Promise<void> => {
      disk.release(({ op, offset }) => which(op, offset));
      await events.settle();
    };
    await served.send(writeRequest(7, 0, bytes(512, 1)));
    await clock.pass(15_000);
    disk.completion = "held";
    await served.send(keepalive());
    await clock.pass(10_000);
    await served.send(keepalive());
    if (during === "record") await release((op) => op === "flush");
    await served.send(writeRequest(8, 0, bytes(512, 2)));
    disk.fail = ({ op, offset }) => (op === "write" && offset >= LOCALOFF ? 5 : 0);
    await release((op, offset) =>
      op === "flush" ? during === "one batch" : op === "write" && offset >= LOCALOFF,
    );
    disk.fail = () => 0;
    while (disk.running.length > 0) await release(() => true);
    expect.equal(served.metadata.state, "inconsistent", during);
    expect.equal(served.world.host.exit, null, during);
    expect.ok(served.replies().includes("8 error 5"), during);
  }
});

test("S-2: what is on record until a synchronization ends, ends with one that is inferred", async () => {
  const forced = { state: "consistent", forced: { state: "outdated", at: 1 } } as const;
  for (const [metadata, ends] of [
    [forced, true],
    [{ state: "outdated" }, true],
    // The primary copies what it lacks from here, and does not say when it has everything.
    [{ ...forced, localcnt: 1n }, false],
  ] as const) {
    const served = await Served.start({ metadata: { sequence: 1n, ...metadata } });
    await served.send(writeRequest(7, 0, bytes(512, 1)));
    for (const ms of [15_000, 10_000]) {
      await served.world.clock.pass(ms);
      await served.send(keepalive());
      if (ms === 15_000) expect.notEqual(served.metadata.state, "uptodate", "not for long enough");
    }
    expect.equal(served.metadata.state === "uptodate", ends);
    expect.equal(served.metadata.forced === undefined, ends);
    expect.equal(served.world.host.copies.at(-1)?.forced === null, ends);
  }
});

test("a fresh node that has begun to write before it met its primary sends its marks", async () => {
  const virgin = { metadata: { resuid: 0n }, hello: { virgin: true } };
  const untouched = await Served.start(virgin);
  expect.equal(untouched.s2.mapsize, 0, "as the original has it");
  expect.equal(
    untouched.metadata.state,
    "inconsistent",
    "it may be filled without a word from now on",
  );
  const begun = await Served.start({ ...virgin, map: Uint8Array.of(0b100) });
  expect.equal(begun.s2.virgin, true);
  expect.ok(begun.s2.mapsize > 0);
});

test("what a killed worker left in the page cache is flushed before it is read (S-8)", async () => {
  const served = await Served.start();
  expect.equal(served.world.disk.history[0]!.op, "flush");
});

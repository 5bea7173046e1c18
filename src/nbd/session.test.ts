// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import {
  contextRequest,
  exportOf,
  infoRequest,
  option,
  RecordingSink,
  type Request,
  request,
  string,
  u16,
  u32,
} from "../../test/nbd-peer.ts";
import type { NbdExport } from "./export.ts";
import { NbdSession } from "./session.ts";

// Numbers as the specification prints them, not our constants.
const READ = 0;
const WRITE = 1;
const DISC = 2;
const FLUSH = 3;
const TRIM = 4;
const CACHE = 5;
const WRITE_ZEROES = 6;
const BLOCK_STATUS = 7;
const FUA = 1;
const NO_HOLE = 2;
const DF = 4;
const REQ_ONE = 8;
const FAST_ZERO = 16;
const PAYLOAD_LEN = 32;
const EINVAL = 22;
const ENOSPC = 28;
const EOVERFLOW = 75;

const SIZE = 1 << 20;
const PAYLOAD_MAX = 1 << 16;
const ALL = [READ, WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS] as const;

const HELLO = Buffer.concat([u32(3), option(7, infoRequest(""))]);
const HELLO_STRUCTURED = Buffer.concat([
  u32(3),
  option(8),
  option(10, contextRequest("", "base:allocation", "hast:dirty")),
  option(7, infoRequest("")),
]);

interface Talk {
  readonly session: NbdSession;
  readonly sink: RecordingSink;
}

/** A session in which `hello` has been said. */
function talk(hello: Buffer = HELLO, change: Partial<NbdExport> = {}): Talk {
  const sink = new RecordingSink();
  const session = new NbdSession([exportOf(change)], sink);
  session.begin();
  expect.equal(session.feed(hello, 0, hello.length), hello.length);
  expect.equal(session.state, "transmission");
  sink.takeSent();
  return { session, sink };
}

function feed({ session, sink }: Talk, bytes: Buffer): number {
  sink.feeding = bytes;
  return session.feed(bytes, 0, bytes.length);
}

/** What becomes of one request in a session of its own: "command", an error number, or "finish". */
function fate(
  wanted: Request,
  hello: Buffer = HELLO,
  change: Partial<NbdExport> = {},
): string | number {
  const here = talk(hello, change);
  const bytes = request(wanted);
  expect.equal(feed(here, bytes), bytes.length);
  expect.equal(here.sink.calls.length, 1);
  const call = here.sink.calls[0]!;
  return call.call === "refuse" ? call.nbdErrno : call.call;
}

/** A request of a type, with the payload that its length announces if it is a WRITE. */
function ranged(type: number, offset: number | bigint, length: number, flags = 0): Request {
  return type === WRITE
    ? { type, offset, flags, payload: Buffer.alloc(length, 0xa5) }
    : { type, offset, flags, length };
}

test("every command arrives with its type, flags, cookie and range", () => {
  const here = talk(HELLO_STRUCTURED);
  for (const [index, type] of ALL.entries()) {
    const cookie = 0xfedc_ba98_7654_3210n + BigInt(index);
    const wanted =
      type === FLUSH ? { type, cookie } : { ...ranged(type, 4096, 1024), cookie, type };
    const bytes = request(wanted);
    expect.equal(feed(here, bytes), bytes.length);
    expect.deepEqual(here.sink.calls.at(-1), {
      call: "command",
      type,
      flags: 0,
      cookie,
      offset: type === FLUSH ? 0 : 4096,
      length: type === FLUSH ? 0 : 1024,
      payload: type === WRITE ? "a5".repeat(1024) : "",
    });
  }
});

test("FUA is accepted on every command and kept where it means something", () => {
  for (const type of ALL) {
    const here = talk(HELLO_STRUCTURED);
    feed(here, request(type === FLUSH ? { type, flags: FUA } : ranged(type, 0, 512, FUA)));
    const call = here.sink.calls[0]!;
    const kept = type === WRITE || type === TRIM || type === WRITE_ZEROES;
    expect.equal(call.call === "command" && call.flags, kept ? FUA : 0, `type ${type}`);
  }
});

test("a flag is accepted only on the command that it belongs to", () => {
  const legal = new Map([
    [READ, DF],
    [WRITE_ZEROES, NO_HOLE],
    [BLOCK_STATUS, REQ_ONE],
  ]);
  for (const type of ALL) {
    for (let bit = 1; bit < 16; bit++) {
      const flags = 1 << bit;
      const wanted = type === FLUSH ? { type, flags } : ranged(type, 0, 512, flags);
      const expected = legal.get(type) === flags ? "command" : EINVAL;
      expect.equal(fate(wanted, HELLO_STRUCTURED), expected, `type ${type} flags ${flags}`);
    }
  }
  expect.equal(fate(ranged(WRITE_ZEROES, 0, 512, FAST_ZERO)), EINVAL);
  expect.equal(fate(ranged(WRITE, 0, 512, PAYLOAD_LEN)), EINVAL);
});

test("DF needs structured replies", () => {
  expect.equal(fate(ranged(READ, 0, 512, DF)), EINVAL);
});

test("BLOCK_STATUS needs a selected context", () => {
  expect.equal(fate(ranged(BLOCK_STATUS, 0, 512)), EINVAL);
  const structuredOnly = Buffer.concat([u32(3), option(8), option(7, infoRequest(""))]);
  expect.equal(fate(ranged(BLOCK_STATUS, 0, 512), structuredOnly), EINVAL);
  expect.equal(fate(ranged(BLOCK_STATUS, 0, 512), HELLO_STRUCTURED), "command");
});

test("a range may end where the export ends, and not one block later", () => {
  for (const type of [READ, WRITE, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS]) {
    const beyond = type === WRITE || type === WRITE_ZEROES ? ENOSPC : EINVAL;
    expect.equal(fate(ranged(type, SIZE - 512, 512), HELLO_STRUCTURED), "command", `${type}`);
    expect.equal(fate(ranged(type, SIZE - 512, 1024), HELLO_STRUCTURED), beyond, `${type}`);
    expect.equal(fate(ranged(type, SIZE, 512), HELLO_STRUCTURED), beyond, `${type}`);
  }
});

test("offsets and lengths that overflow 32, 53 or 64 bits are beyond the end", () => {
  const offsets = [2n ** 32n, 2n ** 53n - 512n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 512n];
  for (const type of [READ, WRITE, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS]) {
    const beyond = type === WRITE || type === WRITE_ZEROES ? ENOSPC : EINVAL;
    for (const offset of offsets) {
      expect.equal(fate(ranged(type, offset, 512), HELLO_STRUCTURED), beyond, `${type} ${offset}`);
      expect.equal(fate(ranged(type, offset, 0), HELLO_STRUCTURED), beyond, `${type} ${offset}`);
    }
    if (type === WRITE) continue;
    expect.equal(fate(ranged(type, 512, 0xffff_fe00), HELLO_STRUCTURED), beyond, `type ${type}`);
  }
});

test("offsets beyond 32 bits are exact", () => {
  const size = 2 ** 52;
  for (const offset of [2 ** 32, 2 ** 40 + 512, size - 512]) {
    const here = talk(HELLO, { size });
    feed(here, request(ranged(READ, offset, 512)));
    const call = here.sink.calls[0]!;
    expect.equal(call.call === "command" && call.offset, offset);
  }
  expect.equal(fate(ranged(READ, size, 512), HELLO, { size }), EINVAL);
});

test("ranges that are not aligned to the minimum block are refused", () => {
  for (const type of [READ, WRITE, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS]) {
    for (const blockMinimum of [512, 4096]) {
      const half = blockMinimum / 2;
      expect.equal(
        fate(ranged(type, half, blockMinimum), HELLO_STRUCTURED, { blockMinimum }),
        EINVAL,
      );
      expect.equal(
        fate(ranged(type, blockMinimum, half), HELLO_STRUCTURED, { blockMinimum }),
        EINVAL,
      );
      expect.equal(fate(ranged(type, half, half), HELLO_STRUCTURED, { blockMinimum }), EINVAL);
    }
    expect.equal(fate(ranged(type, 511, 513), HELLO_STRUCTURED, { blockMinimum: 1 }), "command");
  }
  const high = 2 ** 40 + 256;
  expect.equal(fate(ranged(READ, high, 512), HELLO, { size: 2 ** 41 }), EINVAL);
});

test("length zero succeeds without bothering anyone, if the offset is in range", () => {
  for (const type of [READ, WRITE, TRIM, CACHE, WRITE_ZEROES]) {
    expect.equal(fate(ranged(type, 0, 0), HELLO_STRUCTURED), 0, `type ${type}`);
    expect.equal(fate(ranged(type, SIZE, 0), HELLO_STRUCTURED), 0, `type ${type}`);
    expect.notEqual(fate(ranged(type, SIZE + 512, 0), HELLO_STRUCTURED), 0, `type ${type}`);
  }
  // There is no extent to tell of, and an answer without one is not legal.
  expect.equal(fate(ranged(BLOCK_STATUS, 0, 0), HELLO_STRUCTURED), EINVAL);
});

test("FLUSH takes no range", () => {
  expect.equal(fate({ type: FLUSH, offset: 512 }), EINVAL);
  expect.equal(fate({ type: FLUSH, length: 512 }), EINVAL);
  expect.equal(fate({ type: FLUSH, offset: 2n ** 63n }), EINVAL);
});

test("unknown commands are refused, and announce no payload", () => {
  for (const type of [8, 9, 255, 0xffff]) expect.equal(fate({ type, length: 512 }), EINVAL);
});

test("a READ longer than the maximum payload is refused; with DF it overflows", () => {
  const length = PAYLOAD_MAX + 512;
  expect.equal(fate(ranged(READ, 0, PAYLOAD_MAX), HELLO_STRUCTURED), "command");
  expect.equal(fate(ranged(READ, 0, length), HELLO_STRUCTURED), EINVAL);
  expect.equal(fate(ranged(READ, 0, length, DF), HELLO_STRUCTURED), EOVERFLOW);
});

test("commands without payload may be longer than the maximum payload", () => {
  for (const type of [TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS]) {
    expect.equal(fate(ranged(type, 0, SIZE), HELLO_STRUCTURED), "command", `type ${type}`);
    const size = 2 ** 33;
    expect.equal(fate(ranged(type, 0, 0xffff_fe00), HELLO_STRUCTURED, { size }), "command");
  }
});

test("a WRITE longer than the maximum payload ends the session at its header", () => {
  for (const length of [PAYLOAD_MAX + 1, 0x8000_0000, 0xffff_ffff]) {
    const here = talk();
    const header = request({ type: WRITE, length });
    expect.equal(feed(here, header), header.length);
    const call = here.sink.calls[0]!;
    expect.match(call.call === "finish" ? `${call.reason}` : "", /a WRITE of \d+ bytes/);
    expect.equal(here.session.state, "finished");
    expect.equal(feed(here, Buffer.alloc(100)), 100);
    expect.equal(here.sink.calls.length, 1);
  }
});

test("the payload of a refused WRITE is passed over as it arrives, and then answered", () => {
  const here = talk();
  const bytes = request({
    type: WRITE,
    offset: SIZE,
    payload: Buffer.alloc(PAYLOAD_MAX, u32(0x25609513)), // looks like requests
  });
  for (let at = 0; at < bytes.length; at += 28) {
    expect.ok(here.session.wanted <= 28);
    expect.equal(here.sink.calls.length, 0);
    const piece = bytes.subarray(at, at + 28);
    expect.equal(feed(here, piece), piece.length);
  }
  feed(here, request({ type: FLUSH }));
  expect.deepEqual(
    here.sink.calls.map((call) => call.call),
    ["refuse", "command"],
  );
});

test("DISC ends the session without blame, and nothing after it is listened to", () => {
  const here = talk();
  const bytes = Buffer.concat([
    request({ type: FLUSH }),
    request({ type: DISC }),
    request({ type: FLUSH }),
  ]);
  expect.equal(feed(here, bytes), bytes.length);
  expect.deepEqual(here.sink.calls.slice(1), [{ call: "finish", reason: null }]);
  expect.equal(here.sink.calls.length, 2);
});

test("a wrong magic number ends the session", () => {
  const here = talk();
  const bytes = request({ type: FLUSH });
  bytes[0] = 0;
  feed(here, bytes);
  const call = here.sink.calls[0]!;
  expect.match(call.call === "finish" ? `${call.reason}` : "", /magic/);
});

test("what breaks the negotiation ends the session", () => {
  const sink = new RecordingSink();
  const session = new NbdSession([exportOf()], sink);
  session.begin();
  const bytes = Buffer.concat([u32(3), option(1, Buffer.from("nosuch"))]);
  expect.equal(session.feed(bytes, 0, bytes.length), bytes.length);
  expect.equal(session.state, "finished");
  expect.equal(session.export, null);
  expect.equal(sink.calls.length, 1);
});

test("commands may follow GO in the same bytes", () => {
  const sink = new RecordingSink();
  const session = new NbdSession([exportOf()], sink);
  session.begin();
  const bytes = Buffer.concat([HELLO, request({ type: FLUSH, cookie: 9n })]);
  expect.equal(session.feed(bytes, 0, bytes.length), bytes.length);
  expect.equal(sink.calls.length, 1);
});

test("without room, feed() stops before the command and takes it up again", () => {
  const first = request({ type: FLUSH, cookie: 1n });
  for (const second of [
    request({ type: WRITE, cookie: 2n, payload: Buffer.alloc(512, 1) }),
    request({ type: READ, cookie: 2n, offset: SIZE, length: 512 }),
  ]) {
    const here = talk();
    const bytes = Buffer.concat([first, second, first]);
    here.sink.feeding = bytes;
    here.sink.room = 1;
    expect.equal(here.session.feed(bytes, 0, bytes.length), 28);
    expect.equal(here.sink.calls.length, 1);
    expect.ok(here.session.wanted <= second.length);
    expect.equal(here.session.feed(bytes, 28, bytes.length), 28);
    here.sink.room = 2;
    expect.equal(here.session.feed(bytes, 28, bytes.length), bytes.length);
    expect.equal(here.sink.calls.length, 3);
    expect.equal(here.session.wanted, 28);
  }
});

test("without room for its answer, a refused WRITE leaves its last byte to feed again", () => {
  const here = talk();
  const bytes = request({ type: WRITE, cookie: 2n, offset: SIZE, payload: Buffer.alloc(512) });
  here.sink.room = 0;
  for (let again = 0; again < 2; again++) {
    expect.equal(here.session.feed(bytes, again * 539, bytes.length), 539);
    expect.equal(here.session.wanted, 1);
  }
  here.sink.room = 1;
  expect.equal(here.session.feed(bytes, 539, bytes.length), 540);
  expect.deepEqual(here.sink.calls, [
    { call: "refuse", type: WRITE, cookie: 2n, nbdErrno: ENOSPC },
  ]);
  expect.equal(here.session.wanted, 28);
});

test("a payload is found where it lies in the buffer", () => {
  const here = talk();
  const payload = Buffer.from("0123456789abcdef".repeat(32));
  const bytes = Buffer.concat([Buffer.alloc(77), request({ type: WRITE, payload })]);
  here.sink.feeding = bytes;
  expect.equal(here.session.feed(bytes, 77, bytes.length), bytes.length);
  const call = here.sink.calls[0]!;
  expect.equal(call.call === "command" && call.payload, payload.toString("hex"));
});

test("wanted is enough for the next command, and no more than a whole WRITE", () => {
  const here = talk();
  const bytes = request({ type: WRITE, payload: Buffer.alloc(PAYLOAD_MAX) });
  expect.equal(here.session.wanted, 28);
  expect.equal(here.session.feed(bytes, 0, 27), 0);
  expect.equal(here.session.wanted, 28);
  expect.equal(here.session.feed(bytes, 0, 28), 0);
  expect.equal(here.session.wanted, 28 + PAYLOAD_MAX);
  expect.equal(here.session.feed(bytes, 0, bytes.length - 1), 0);
  expect.equal(here.session.feed(bytes, 0, bytes.length), bytes.length);
});

test("putReply() is simple, but for READ and BLOCK_STATUS with structured replies", () => {
  const out = Buffer.alloc(64);
  const plain = talk();
  const structured = talk(HELLO_STRUCTURED);
  for (const type of ALL) {
    for (const errno of [0, EINVAL]) {
      expect.equal(plain.session.putReply(out, 0, type, 1, 2, errno), 16);
      expect.equal(out.readUInt32BE(0), 0x67446698);
      expect.equal(out.readUInt32BE(4), errno);

      const end = structured.session.putReply(out, 0, type, 1, 2, errno);
      if (type === READ || type === BLOCK_STATUS) {
        expect.equal(out.readUInt32BE(0), 0x668e33ef);
        expect.equal(end, errno === 0 ? 20 : 26);
      } else {
        expect.equal(out.readUInt32BE(0), 0x67446698);
        expect.equal(end, 16);
      }
    }
  }
});

test("putReadHeader() is simple without structured replies, one last chunk with them", () => {
  const out = Buffer.alloc(64);
  expect.equal(talk().session.putReadHeader(out, 0, 1, 2, 4096, 512), 16);
  expect.equal(out.toString("hex", 0, 16), "67446698000000000000000100000002");
  expect.equal(talk(HELLO_STRUCTURED).session.putReadHeader(out, 0, 1, 2, 4096, 512), 28);
  expect.equal(
    out.toString("hex", 0, 28),
    "668e33ef" + "0001" + "0001" + "0000000100000002" + "00000208" + "0000000000001000",
  );
});

test("putBlockStatus() is only for clients with structured replies", () => {
  const out = Buffer.alloc(64);
  const extents = Uint32Array.of(512, 3);
  const { session } = talk(HELLO_STRUCTURED);
  expect.deepEqual(session.contexts, [
    { name: "base:allocation", id: 1 },
    { name: "hast:dirty", id: 2 },
  ]);
  expect.equal(session.putBlockStatus(out, 0, 1, 2, 1, extents, 1, true), 32);
  expect.throws(() => talk().session.putBlockStatus(out, 0, 1, 2, 1, extents, 1, true), {
    name: "AssertionError",
  });
});

// Properties.

/** Feeds `bytes` as they would arrive: at most `next()` at a time, the unconsumed part again each time. */
function arrive(bytes: Buffer, next: () => number): RecordingSink {
  const sink = new RecordingSink();
  const session = new NbdSession([exportOf()], sink);
  session.begin();
  let at = 0;
  let arrived = 0;
  while (arrived < bytes.length) {
    arrived = Math.min(bytes.length, arrived + next());
    sink.feeding = bytes;
    const end = session.feed(bytes, at, arrived);
    expect.ok(end >= at && end <= arrived, "consumed what was not there");
    expect.ok(session.wanted >= 1 && session.wanted <= 28 + PAYLOAD_MAX, `${session.wanted}`);
    if (end < arrived) expect.ok(arrived - end < session.wanted, "did not do what it could");
    at = end;
  }
  return sink;
}

function same(one: RecordingSink, other: RecordingSink): void {
  expect.deepEqual(one.calls, other.calls);
  expect.equal(one.sent.toString("hex"), other.sent.toString("hex"));
}

/** Mostly valid options and commands, some slightly wrong. */
const anyOption = fc.oneof(
  fc.constantFrom(
    option(3),
    option(8),
    option(5),
    option(6, infoRequest("shared", 3, 1)),
    option(6, infoRequest("nosuch")),
    option(9, contextRequest("shared")),
    option(10, contextRequest("shared", "base:allocation")),
    option(99, Buffer.alloc(20000)),
    option(10, Buffer.concat([string("shared"), u32(7)])),
  ),
  fc
    .tuple(fc.integer({ min: 0, max: 12 }), fc.uint8Array({ maxLength: 40 }))
    .map(([type, data]) => option(type, data)),
);
const anyCommand = fc
  .record({
    type: fc.integer({ min: 0, max: 9 }),
    flags: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 31 })),
    cookie: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    blockOffset: fc.integer({ min: 0, max: 2100 }),
    blockCount: fc.integer({ min: 0, max: 4 }),
    odd: fc.boolean(),
  })
  .map(({ type, flags, cookie, blockOffset, blockCount, odd }) => {
    const length = blockCount * 512 + (odd ? 1 : 0);
    const range = ranged(type, type === FLUSH ? 0 : blockOffset * 512, length, flags);
    return request({ ...range, cookie });
  });
const anyConversation = fc
  .tuple(
    fc.constantFrom(u32(3), u32(3), u32(3), u32(1), u32(0), u32(9)),
    fc.array(anyOption, { maxLength: 4 }),
    fc.constantFrom(option(7, infoRequest("shared", 3)), option(1), option(7, infoRequest("x"))),
    fc.array(anyCommand, { maxLength: 8 }),
    fc.uint8Array({ maxLength: 60 }),
  )
  .map(([hello, options, go, commands, garbage]) =>
    Buffer.concat([hello, ...options, go, ...commands, garbage]),
  );

const validCommand = fc
  .record({
    type: fc.constantFrom(READ, WRITE, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS),
    cookie: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    first: fc.integer({ min: 0, max: SIZE / 512 - 8 }),
    count: fc.integer({ min: 1, max: 8 }),
  })
  .map(({ type, cookie, first, count }) => ({
    ...ranged(type, first * 512, count * 512),
    cookie,
  }));

test("valid commands arrive as they were sent, one after another", () => {
  fc.assert(
    fc.property(fc.array(validCommand, { maxLength: 20 }), (commands) => {
      const here = talk(HELLO_STRUCTURED);
      feed(here, Buffer.concat(commands.map(request)));
      const expected = commands.map(({ type, cookie, offset, length, payload }) => ({
        call: "command",
        type,
        flags: 0,
        cookie,
        offset,
        length: payload?.length ?? length,
        payload: Buffer.from(payload ?? []).toString("hex"),
      }));
      expect.deepEqual(here.sink.calls, expected);
    }),
  );
});

test("a conversation cut at any byte gives the same calls and the same answers", () => {
  fc.assert(
    fc.property(anyConversation, fc.array(fc.integer({ min: 1, max: 700 })), (bytes, cuts) => {
      const whole = arrive(bytes, () => bytes.length);
      let index = 0;
      same(
        arrive(bytes, () => (cuts.length === 0 ? 13 : cuts[index++ % cuts.length]!)),
        whole,
      );
    }),
    { numRuns: 300 },
  );
});

test("a conversation that arrives byte by byte gives the same calls and the same answers", () => {
  const bytes = Buffer.concat([
    HELLO_STRUCTURED.subarray(0, 4),
    option(3),
    option(77, Buffer.alloc(17000, 1)),
    HELLO_STRUCTURED.subarray(4),
    request({ type: WRITE, cookie: 1n, payload: Buffer.alloc(1024, 7) }),
    request({ type: WRITE, cookie: 2n, offset: SIZE, payload: Buffer.alloc(1024, 8) }),
    request({ type: READ, cookie: 3n, length: 4096 }),
    request({ type: 42, cookie: 4n }),
    request({ type: BLOCK_STATUS, cookie: 5n, length: SIZE }),
    request({ type: DISC }),
  ]);
  const whole = arrive(bytes, () => bytes.length);
  expect.deepEqual(
    whole.calls.map((call) => call.call),
    ["command", "refuse", "command", "refuse", "command", "finish"],
  );
  same(
    arrive(bytes, () => 1),
    whole,
  );
});

test("arbitrary bytes, at any point of a conversation, never throw", () => {
  const openings = [
    Buffer.alloc(0),
    u32(3),
    Buffer.concat([u32(3), Buffer.from("IHAVEOPT")]),
    HELLO,
    HELLO_STRUCTURED,
    Buffer.concat([HELLO, u32(0x25609513)]),
    Buffer.concat([HELLO_STRUCTURED, u32(0x25609513), u16(0)]),
  ];
  fc.assert(
    fc.property(
      fc.constantFrom(...openings),
      fc.uint8Array({ maxLength: 300 }),
      (opening, tail) => {
        const bytes = Buffer.concat([opening, tail]);
        const sink = arrive(bytes, () => bytes.length);
        for (const call of sink.calls) {
          if (call.call !== "command") continue;
          expect.ok(call.offset + call.length <= SIZE);
          expect.equal(call.offset % 512, 0);
          expect.equal(call.length % 512, 0);
        }
      },
    ),
    { numRuns: 2000 },
  );
});

// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { fuzz } from "../../test/fuzz.ts";
import type { CapturedRequest } from "../../test/golden/conversation.ts";
import { request } from "../../test/nbd-peer.ts";
import {
  NBD_CACHE,
  NBD_DISC,
  NBD_FLUSH,
  NBD_FUA,
  NBD_READ,
  NBD_WRITE,
  NbdClient,
} from "../../test/pretend/nbd-client.ts";
import { reply } from "../../test/pretend/requests.ts";
import { sameBytes } from "../../test/pretend/same-bytes.ts";
import {
  handshakeOf,
  PretendSecondary,
  type SecondaryOptions,
} from "../../test/pretend/secondary.ts";
import { createComponent, dirtyArena, World, type WorldOptions } from "../../test/pretend/world.ts";
import { decodeMetadata, METADATA_SIZE, type Metadata } from "../metadata/block.ts";
import type { Trust } from "../replication/promotion.ts";
import { IO_MAX } from "../replication/requests.ts";
import type { Lease } from "../wire/control.ts";
import {
  CMD_STATE,
  EXT_ALIVE,
  EXT_KEPT,
  EXT_SOLE,
  EXT_STATE,
  EXT_WHOLE,
  EXT_ZERO,
} from "../wire/extensions.ts";
import { encodeFrame, FRAME_HEADER_SIZE } from "../wire/frame.ts";
import { encodeS1, encodeS2, SPLIT_BRAIN_ERRMSG } from "../wire/handshake.ts";
import { decodeNv, NvWriter } from "../wire/nv.ts";
import { CHECKSUM_CRC32, COMPRESSION_LZF } from "../wire/payload.ts";
import { CMD_FLUSH, CMD_READ, CMD_WRITE } from "../wire/request.ts";
import { PrimaryEngine } from "./primary-engine.ts";
import type { Resolution, WorkerSettings } from "./worker-messages.ts";

const ARENA = dirtyArena();
const RESUID = 77n;
const LOCALOFF = 4608;
const OLD = 0x5a;

interface Setup extends WorldOptions {
  readonly metadata?: Partial<Metadata>;
  readonly peer?: Partial<SecondaryOptions>;
  /** What the n-th life of the peer (from 0) does otherwise. */
  readonly lives?: (life: number) => Partial<SecondaryOptions>;
  /** Nobody answers connection attempts. */
  readonly alone?: boolean;
  /** From an arbiter. */
  readonly lease?: Lease;
  /** Where a device is served. */
  readonly attach?: string;
}

class Led {
  readonly world: World;
  readonly engine: PrimaryEngine;
  readonly nbd: NbdClient;
  readonly dataSize: number;
  /** Lives of the peer, oldest first. */
  readonly peers: PretendSecondary[];

  private constructor(
    world: World,
    engine: PrimaryEngine,
    nbd: NbdClient,
    size: number,
    peers: PretendSecondary[],
  ) {
    this.world = world;
    this.engine = engine;
    this.nbd = nbd;
    this.dataSize = size;
    this.peers = peers;
  }

  /** A primary in step with its peer, and one NBD client. */
  static async start(setup: Setup = {}): Promise<Led> {
    const world = new World({ arena: ARENA, ...setup, completion: "inside" });
    const { datasize } = createComponent(world.disk, {
      resuid: RESUID,
      state: "uptodate",
      sequence: 1n,
      synced: "all",
      ...setup.metadata,
    });
    if (datasize < 1 << 24) world.disk.poke(LOCALOFF, new Uint8Array(datasize).fill(OLD));
    const peers: PretendSecondary[] = [];
    const options = { datasize, ...setup.peer };
    world.net.onConnect = () => {
      if (setup.alone) return "connection refused";
      const last = peers.at(-1);
      if (last?.wantsSecond) return last.connect();
      const other = setup.lives?.(peers.length) ?? {};
      const peer = new PretendSecondary(world.events, { ...options, ...other });
      peer.data.fill(OLD);
      peers.push(peer);
      return peer.connect();
    };
    const { settings, disk, environment, host } = world;
    const lease = setup.lease ?? null;
    const opened = PrimaryEngine.open(
      settings,
      disk,
      environment,
      host,
      lease === null ? "known" : "granted",
      lease,
    );
    const engine = await world.until(opened);
    if (lease !== null) expect.equal(await world.until(engine.admit()), true);
    await world.until(engine.start(setup.attach ?? null));
    const nbd = new NbdClient(world.events, world.net.dial(settings.export));
    expect.ok(await nbd.begin());
    disk.completion = setup.completion ?? "inside";
    return new Led(world, engine, nbd, datasize, peers);
  }

  get peer(): PretendSecondary {
    return this.peers.at(-1)!;
  }

  get metadata(): Metadata {
    return decodeMetadata(this.world.disk.peek(0, METADATA_SIZE), "r0");
  }

  get connected(): boolean {
    return this.engine.report().status === "complete";
  }

  data(offset: number, length: number): Uint8Array {
    return this.world.disk.peek(LOCALOFF + offset, length);
  }

  async settle(): Promise<void> {
    await this.world.events.settle();
  }

  /** Was such a thing told as a warning? */
  warned(what: RegExp): boolean {
    return this.world.host.warnings.some((text) => what.test(text));
  }

  exited(code: number | null): void {
    expect.equal(this.world.host.exit?.code ?? null, code);
  }

  /** Nobody answers connection attempts any more. */
  isolate(): void {
    this.world.net.onConnect = () => "connection refused";
  }

  /** Stops; whatever happened before, that must work. */
  async stop(): Promise<void> {
    this.engine.stop(10_000);
    for (let second = 0; second < 12 && this.world.host.exit === null; second++) {
      await this.world.clock.pass(1_000);
    }
    expect.equal(this.world.host.exit?.code, 0);
    expect.equal(this.world.disk.closed, true);
    expect.deepEqual(this.world.host.errors, []);
  }
}

function bytes(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

function nv(fill: (writer: NvWriter) => void): Uint8Array {
  const writer = new NvWriter();
  fill(writer);
  return encodeFrame(2, writer.finish());
}

test("a primary and its peer, in step: everything is done twice", async () => {
  const led = await Led.start();
  expect.equal(led.connected, true);
  await led.nbd.done({ type: NBD_WRITE, offset: 512, payload: bytes(1024, 1) });
  await led.nbd.done({ type: NBD_FLUSH });
  sameBytes(led.data(512, 1024), bytes(1024, 1));
  sameBytes(led.peer.data.subarray(512, 1536), bytes(1024, 1));
  expect.deepEqual(
    led.peer.heard.map(({ header }) => header.cmd),
    [CMD_WRITE, CMD_FLUSH],
  );
  await led.stop();
});

// ---- the handshake ------------------------------------------------------------------------------

const MAP = bytes(512, 0).fill(0b101, 0, 1);
const DATASIZE = 1043968;

test("a handshake that is cut at any byte leaves a primary that serves, and tries again", async () => {
  const { s1, s2 } = handshakeOf({ datasize: DATASIZE, map: MAP });
  for (let cut = 0; cut < s1.length + s2.length; cut++) {
    const part =
      cut < s1.length ? { s1: s1.subarray(0, cut) } : { s2: s2.subarray(0, cut - s1.length) };
    const led = await Led.start({ lives: (life) => (life === 0 ? { map: MAP, ...part } : {}) });
    expect.equal(led.connected, false, `cut at byte ${cut}`);
    led.peer.leave();
    await led.settle();
    if (cut % 16 === 0) {
      // Alone meanwhile: nothing of half a map was believed.
      await led.nbd.done({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
      expect.equal(led.engine.report().dirty, 65536);
    }
    await led.world.clock.pass(1_000);
    expect.equal(led.connected, true, `cut at byte ${cut}`);
    expect.equal(led.peers.length, 2);
    await led.stop();
  }
});

test("a mutated or random handshake connects or is tried again: nothing else", async () => {
  const { s1, s2 } = handshakeOf({ datasize: DATASIZE, map: MAP });
  const piece = fc.uint8Array({ maxLength: 60 });
  const mutate = (whole: Uint8Array): fc.Arbitrary<Uint8Array> =>
    fc
      .record({ at: fc.nat(whole.length - 1), insert: piece, drop: fc.nat(12) })
      .map(
        ({ at, insert, drop }) =>
          new Uint8Array(Buffer.concat([whole.subarray(0, at), insert, whole.subarray(at + drop)])),
      );
  const flip = (whole: Uint8Array): fc.Arbitrary<Uint8Array> =>
    fc
      .record({ at: fc.nat(whole.length - 1), change: fc.integer({ min: 1, max: 255 }) })
      .map(({ at, change }) => whole.with(at, whole[at]! ^ change));
  const answer = fc.oneof(
    fc.record({ s1: fc.oneof(mutate(s1), flip(s1), piece) }),
    fc.record({ s2: fc.oneof(mutate(s2), flip(s2), flip(s2), piece) }),
  );
  await fuzz(
    fc.asyncProperty(answer, async (said) => {
      const led = await Led.start({ lives: (life) => (life === 0 ? said : {}) });
      const written = led.nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
      // Any step may take its `timeout`, 20 s; one with a lie for an answer is retried after 30 s.
      await led.world.clock.pass(120_000);
      expect.equal(led.connected, true);
      expect.equal(led.nbd.answer(written)?.error, 0);
      sameBytes(led.peer.data.subarray(0, 512), bytes(512, 1));
      await led.stop();
    }),
  );
});

const ACCEPTED = { kind: "accepted", version: 2, token: bytes(16, 1), extensions: 0n } as const;

function s2With(change: (writer: NvWriter) => void): Uint8Array {
  return nv((writer) => {
    writer
      .i64("datasize", DATASIZE)
      .i32("extentsize", 65536)
      .u64("localcnt", 0)
      .u64("remotecnt", 0);
    change(writer);
  });
}

const LIES: readonly (readonly [string, Partial<SecondaryOptions>, RegExp])[] = [
  ["a first answer without token", { s1: nv((writer) => writer.u8("version", 2)) }, /no token/],
  [
    "a token of 15 bytes",
    { s1: nv((writer) => writer.u8("version", 2).bytes("token", bytes(15, 1))) },
    /15 bytes/,
  ],
  [
    "a version that was not offered",
    { s1: nv((writer) => writer.u8("version", 3).bytes("token", bytes(16, 1))) },
    /version 3/,
  ],
  [
    "more than a first answer",
    { s1: Buffer.concat([encodeS1(ACCEPTED), encodeS1(ACCEPTED)]) },
    /bytes follow/,
  ],
  ["an nv block of 4 GiB", { s1: Uint8Array.of(2, 255, 255, 255, 255) }, /4294967295 bytes/],
  [
    "a second answer without syncsrc",
    { s2: s2With((writer) => writer.u32("mapsize", 0)) },
    /syncsrc/,
  ],
  [
    "more than a second answer",
    { s2: Buffer.concat([handshakeOf({ datasize: DATASIZE }).s2, bytes(30, 0)]) },
    /bytes follow/,
  ],
  ["a map that is too short", { map: bytes(1, 0xff) }, /at least 8/],
  [
    "a map of 4 GiB in four bytes",
    {
      s2: Buffer.concat([
        s2With((writer) =>
          writer
            .u8("syncsrc", 1)
            .u32("mapsize", 0xfffffff8)
            .string("compression", "hole")
            .u32("size", 4),
        ),
        Uint8Array.of(0xf8, 0xff, 0xff, 0xff),
      ]),
    },
    /map has 4294967288 bytes/,
  ],
  [
    "a map that is announced and not sent",
    { s2: s2With((w) => w.u8("syncsrc", 1).u32("mapsize", 512)) },
    /0 bytes/,
  ],
  ["a virgin that holds newer data", { virgin: true, localcnt: 1n }, /virgin/],
  ["a virgin that wants to be the source", { virgin: true, syncsrc: "secondary" }, /virgin/],
  [
    "a peer that wants to be the source although it is not ahead",
    { syncsrc: "secondary", map: bytes(512, 0xff) },
    /counters/,
  ],
  [
    "a peer that is ahead and does not want to be the source",
    { localcnt: 1n, syncsrc: "primary", map: bytes(512, 0xff) },
    /counters/,
  ],
  [
    "counters that ran backwards (S-12)",
    { remotecnt: 5n, syncsrc: "primary", map: bytes(512, 0xff) },
    /counters/i,
  ],
];

test("where sizes differ, each command is said to be for the node that loses its data, the peer's first", async () => {
  const led = await Led.start({ peer: { datasize: DATASIZE / 2 } });
  const { extentsize } = led.metadata;
  const anew = (size: number) =>
    `hastctl role init r0 && hastctl create --force --datasize ${size} -e ${extentsize} r0`;
  const [, , peers, ours] = led.world.host.warnings[0]!.split(". ");
  expect.equal(
    peers,
    `If you do not want the PEER's data, since that node is new, say, there: ${anew(led.dataSize)}`,
  );
  expect.equal(
    ours,
    `Only if you do not want the data of THIS node, with which applications work now, here: ${anew(DATASIZE / 2)}`,
  );
  await led.stop();
});

for (const [what, lie, complaint] of LIES) {
  test(`${what}: nothing is believed, and the attempt is over`, async () => {
    const led = await Led.start({ lives: () => lie });
    await led.settle();
    expect.equal(led.connected, false);
    expect.equal(led.peers[0]!.a.closedByPeer, true);
    expect.match(led.world.host.warnings.join("\n"), complaint);
    await led.nbd.done({ type: NBD_WRITE, offset: 65536, payload: bytes(512, 1) });
    expect.equal(led.engine.report().dirty, 65536, "no extent was scheduled");
    expect.equal(led.metadata.state, "uptodate");
    await led.stop();
  });
}

test("a refusal of the second message that comes on connection B is heard at once (BD-33)", async () => {
  const refusal = encodeS1({ kind: "refused", errmsg: "Token doesn't match.", wait: false });
  const led = await Led.start({ lives: () => ({ s2: new Uint8Array(0) }) });
  led.peer.b.send(refusal);
  await led.settle();
  expect.ok(led.warned(/Token doesn't match/));
  expect.equal(led.peer.a.closedByPeer, true);
  await led.stop();
});

for (const [how, arrived] of [
  ["in one piece", Number.MAX_SAFE_INTEGER],
  ["in pieces", 20],
] as const) {
  test(`a peer whose role changes right after its first answer is heard (${how}), and asked again soon`, async () => {
    const errmsg = "Remote node acts as primary for the resource and not as secondary.";
    const refusal = encodeS1({ kind: "refused", errmsg, wait: true });
    const { s1 } = handshakeOf({ datasize: 0 });
    const [first, rest] = [refusal.subarray(0, arrived), refusal.subarray(arrived)];
    const life = { s1: new Uint8Array(Buffer.concat([s1, first])), s2: new Uint8Array(0) };
    const led = await Led.start({ lives: (n) => (n === 0 ? life : {}) });
    if (rest.length > 0) led.peers[0]!.a.send(rest);
    await led.settle();
    expect.ok(led.warned(/: Remote node acts as primary/), led.world.host.warnings.join());
    expect.equal(led.peers[0]!.a.closedByPeer, true);
    await led.world.clock.pass(600);
    expect.equal(led.connected, true);
    await led.stop();
  });
}

test("a refusal's text cannot write lines of its own into our log", async () => {
  const errmsg = `no\n[ERROR] all is lost\u001b[2J${"x".repeat(5000)}`;
  const s1 = encodeS1({ kind: "refused", errmsg, wait: false });
  const led = await Led.start({ lives: () => ({ s1 }) });
  const [warning] = led.world.host.warnings;
  expect.match(warning!, /no\?\[ERROR\] all is lost/);
  expect.ok(warning!.length < 400);
  expect.ok(led.engine.report().notes.every((note) => note.length < 400));
  await led.stop();
});

test("every step of the handshake has a deadline", async () => {
  const silent = new Uint8Array(0);
  for (const life of [{ s1: silent }, { s2: silent }]) {
    const led = await Led.start({ lives: (n) => (n === 0 ? life : {}) });
    await led.world.clock.pass(19_000);
    expect.equal(led.connected, false);
    expect.equal(led.world.host.warnings.length, 0);
    await led.world.clock.pass(3_000);
    expect.equal(led.connected, true);
    expect.ok(led.warned(/does not answer/));
    await led.stop();
  }
  const led = await Led.start();
  led.world.net.onConnect = () => "silence";
  led.peer.leave();
  await led.world.clock.pass(25_000);
  expect.ok(led.warned(/timed out/));
  await led.stop();
});

test("BD-30: an idle primary notices that its peer is dead, within the timeout, and says so", async () => {
  const led = await Led.start({ peer: { extensions: EXT_ALIVE } });
  led.peer.answersKeepalives = true;
  await led.world.clock.pass(60_000);
  expect.equal(led.connected, true);
  expect.ok(led.peer.keepalives >= 15);
  led.peer.answersKeepalives = false;
  led.world.net.onConnect = () => "silence";
  await led.world.clock.pass(22_000);
  expect.equal(led.connected, false);
  expect.equal(led.engine.report().status, "degraded");
  expect.match(notes(led), /no answer from the peer for/);
  expect.ok(led.warned(/no answer from the peer for/));
  await led.stop();
});

test("a peer that was away for long is connected to within 1.25 s of its return", async () => {
  for (const away of ["connection refused", "init"] as const) {
    const errmsg = "Remote node acts as init for the resource and not as secondary.";
    const init = { s1: encodeS1({ kind: "refused", errmsg, wait: false }) };
    let back = false;
    const led = await Led.start({ lives: (life) => (life === 0 || back ? {} : init) });
    const reachable = led.world.net.onConnect;
    if (away === "connection refused") led.world.net.onConnect = () => away;
    led.peer.leave();
    const before = led.world.net.connectCount;
    await led.world.clock.pass(60_000);
    const attempts = led.world.net.connectCount - before;
    expect.ok(attempts >= 45 && attempts <= 70, `${attempts} attempts in a minute`);
    led.world.net.onConnect = reachable;
    back = true;
    await led.world.clock.pass(1_300);
    expect.equal(led.connected, true, away);
    await led.stop();
  }
});

test("requests wait up to 2 s for the first connection, then are served alone", async () => {
  const led = await Led.start({ lives: () => ({ s1: new Uint8Array(0) }) });
  const cookie = led.nbd.send({ type: NBD_READ, offset: 0, length: 512 });
  await led.world.clock.pass(1_500);
  expect.equal(led.nbd.answer(cookie), null);
  await led.world.clock.pass(1_000);
  expect.equal(led.nbd.answer(cookie)?.error, 0);
  await led.stop();
});

test("a map that arrives in many pieces is put together in time", async () => {
  // 128 GiB in extents of 4 KiB: a map of 4 MiB.
  const mediaSize = 128 * 1024 ** 3;
  const metadata = { extentsize: 4096 };
  const world = new World({ mediaSize, arena: ARENA });
  const { datasize } = createComponent(world.disk, metadata);
  const map = bytes(4 * 1024 * 1024, 0).fill(1, 100, 101);
  const led = await Led.start({ mediaSize, metadata, peer: { datasize, extentsize: 4096, map } });
  expect.equal(led.connected, true);
  expect.equal(led.peer.heard[0]!.header.offset, 800 * 4096);
  await led.stop();
});

test("a peer that hangs up after each handshake is not called four times a second", async () => {
  const led = await Led.start();
  const count = led.world.net.connectCount;
  for (let ms = 0; ms < 60_000; ms += 100) {
    if (led.connected) led.peer.leave();
    await led.world.clock.pass(100);
  }
  // Two connections for each attempt.
  expect.ok(
    led.world.net.connectCount - count < 2 * 25,
    `${led.world.net.connectCount} connections`,
  );
  await led.stop();
});

// ---- replies ------------------------------------------------------------------------------------

/** Two writes, a read that only the peer can serve, and a flush: all with the peer. */
async function outstanding(replication: "memsync" | "fullsync" = "memsync"): Promise<{
  led: Led;
  cookies: bigint[];
  seqs: { first: number; second: number; read: number; flush: number };
}> {
  const led = await Led.start({ settings: { replication } });
  led.peer.automatic = false;
  led.world.disk.fail = ({ op, offset }) => (op === "read" && offset >= LOCALOFF ? 5 : 0);
  const cookies = [
    led.nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) }),
    led.nbd.send({ type: NBD_WRITE, offset: 4096, payload: bytes(4096, 2) }),
    led.nbd.send({ type: NBD_READ, offset: 131072, length: 4096 }),
    led.nbd.send({ type: NBD_FLUSH }),
  ];
  await led.settle();
  const seqOf = (cmd: number, offset: number): number =>
    led.peer.waiting.find(({ header }) => header.cmd === cmd && header.offset === offset)!.header
      .seqLo;
  const seqs = {
    first: seqOf(CMD_WRITE, 0),
    second: seqOf(CMD_WRITE, 4096),
    read: seqOf(CMD_READ, 131072),
    flush: seqOf(CMD_FLUSH, 0),
  };
  return { led, cookies, seqs };
}

function goodReplies({
  first,
  second,
  read,
  flush,
}: Awaited<ReturnType<typeof outstanding>>["seqs"]): Uint8Array[] {
  return [
    reply(first, { received: true }),
    reply(first),
    reply(read, { data: bytes(4096, 3), compression: COMPRESSION_LZF, checksum: CHECKSUM_CRC32 }),
    reply(flush),
    reply(second, { received: true }),
    reply(second),
  ];
}

test("BD-32: other settings count from the next request on, over the same connection", async () => {
  const led = await Led.start();
  const { settings } = led.world;
  const more = {
    replication: "memsync",
    checksum: "crc32",
    compression: "lzf",
    timeout: 3,
    metaflush: true,
  } as const;
  led.engine.reconfigure({ ...settings, ...more });
  led.nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(4096, 1) });
  await led.settle();
  const write = led.peer.heard.findLast(({ header }) => header.cmd === CMD_WRITE)!;
  expect.equal(write.header.memsync, true);
  expect.equal(write.header.checksum, CHECKSUM_CRC32);
  expect.equal(led.peers.length, 1);
  expect.equal(led.connected, true);
  expect.ok(!led.warned(/Disconnected/));
});

test("S-9: a primary that turns async, or is so no more, tells its peer by a handshake", async () => {
  const led = await Led.start({ peer: { extensions: EXT_STATE | EXT_KEPT } });
  expect.deepEqual(led.peer.p2?.life?.early, false);
  led.engine.reconfigure({ ...led.world.settings, replication: "async" });
  expect.ok(led.warned(/async from now on, which the peer has to be told/));
  await led.world.clock.pass(2_000);
  expect.equal(led.connected, true);
  expect.equal(led.peers.length, 2);
  expect.deepEqual(led.peer.p2?.life?.early, true);
  led.engine.reconfigure({ ...led.world.settings, replication: "fullsync" });
  expect.ok(led.warned(/not async any more, which the peer has to be told/));
  await led.world.clock.pass(2_000);
  expect.equal(led.connected, true);
  expect.equal(led.peers.length, 3);
  expect.deepEqual(led.peer.p2?.life?.early, false);
  led.engine.reconfigure({ ...led.world.settings, replication: "memsync" });
  await led.settle();
  expect.equal(led.peers.length, 3, "nothing to tell");
});

test("BD-24: another `remote` is connected to at once, in place of the old one", async () => {
  const led = await Led.start();
  led.engine.reconfigure({ ...led.world.settings, remote: "tcp://other", timeout: 3 });
  await led.settle();
  expect.ok(led.warned(/hast\.conf has other addresses now: tcp:\/\/other/));
  await led.world.clock.pass(1_000);
  await led.settle();
  expect.equal(led.peers.length, 2);
  expect.equal(led.connected, true);
});

test("replies cut at any byte: none is half believed, everything is answered, the mark is stable", async () => {
  const { seqs } = await outstanding();
  const stream = Buffer.concat(goodReplies(seqs));
  const readEnd = Buffer.concat(goodReplies(seqs).slice(0, 3)).length;
  for (let cut = 0; cut <= stream.length; cut++) {
    const { led, cookies } = await outstanding();
    led.isolate();
    if (cut % 2 === 1) led.peer.b.chunk = () => 1 + (cut % 13);
    led.peer.b.send(stream.subarray(0, cut));
    led.peer.b.end();
    await led.settle();
    const what = `cut at byte ${cut}`;
    const [first, second, read, flush] = cookies.map((cookie) => led.nbd.answer(cookie));
    expect.equal(first?.error, 0, what);
    expect.equal(second?.error, 0, what);
    expect.equal(flush?.error, 0, what);
    expect.equal(read?.error, cut >= readEnd ? 0 : 5, what);
    if (read?.error === 0) sameBytes(read.data, bytes(4096, 3));
    expect.equal(led.metadata.localcnt, cut < stream.length ? 1n : 0n, what);
    expect.equal(led.connected, false);
    await led.stop();
  }
});

const REPLY_LIES: readonly (readonly [
  string,
  (seqs: Awaited<ReturnType<typeof outstanding>>["seqs"]) => Uint8Array,
  RegExp,
])[] = [
  [
    "`received` twice",
    ({ first }) =>
      Buffer.concat([reply(first, { received: true }), reply(first, { received: true })]),
    /`received` twice/,
  ],
  ["`received` for a FLUSH", ({ flush }) => reply(flush, { received: true }), /FLUSH/],
  [
    "`received` for a READ",
    ({ read }) => reply(read, { received: true, data: bytes(4096, 1) }),
    /received/,
  ],
  ["a memsync write without `received`", ({ first }) => reply(first), /without `received`/],
  ["a READ without data", ({ read }) => reply(read), /without data/],
  [
    "a READ with too little data (BD-6)",
    ({ read }) => reply(read, { data: bytes(512, 1) }),
    /512 bytes/,
  ],
  ["a READ with too much data", ({ read }) => reply(read, { data: bytes(8192, 1) }), /8192 bytes/],
  ["a WRITE with data", ({ first }) => reply(first, { data: bytes(512, 1) }), /data/],
  [
    "a failed READ with data",
    ({ read }) => reply(read, { error: 5, data: bytes(4096, 1) }),
    /data/,
  ],
  [
    "a hole of 4 GiB",
    ({ read }) =>
      Buffer.concat([
        nv((writer) => writer.u64("seq", read).string("compression", "hole").u32("size", 4)),
        bytes(4, 255),
      ]),
    /4294967295 bytes/,
  ],
  [
    "data of 4 GiB",
    ({ read }) => nv((writer) => writer.u64("seq", read).u32("size", 0xffffffff)),
    /4294967295/,
  ],
  ["an nv block of 4 GiB", () => Uint8Array.of(2, 255, 255, 255, 255), /4294967295/],
  [
    "a checksum that does not match",
    ({ read }) => {
      const message = reply(read, { data: bytes(4096, 3), checksum: CHECKSUM_CRC32 });
      return message.with(message.length - 1, 0);
    },
    /checksum/,
  ],
];

for (const [what, lie, complaint] of REPLY_LIES) {
  test(`${what}: the connection is over, and what waited is answered`, async () => {
    const { led, cookies, seqs } = await outstanding();
    led.isolate();
    led.peer.b.send(lie(seqs));
    await led.settle();
    expect.equal(led.connected, false);
    expect.ok(led.warned(complaint), led.world.host.warnings.join());
    expect.equal(led.peer.a.closedByPeer, true);
    expect.deepEqual(
      cookies.map((cookie) => led.nbd.answer(cookie)?.error),
      [0, 0, 5, 0],
    );
    expect.equal(led.metadata.localcnt, 1n);
    await led.stop();
  });
}

test("answers to nothing are dropped with their data, and told once", async () => {
  const { led, cookies, seqs } = await outstanding();
  const strays: Uint8Array[] = [];
  for (let index = 0; index < 50; index++)
    strays.push(reply(9000 + index, { data: bytes(4096, 9) }));
  strays.push(nv((writer) => writer.u8("seq", 1)));
  strays.push(nv((writer) => writer.u64("seq", 0xffffffffffffffffn)));
  led.peer.b.send(...strays, ...goodReplies(seqs));
  await led.settle();
  expect.equal(led.connected, true);
  expect.deepEqual(
    cookies.map((cookie) => led.nbd.answer(cookie)?.error),
    [0, 0, 0, 0],
  );
  const told = led.world.host.notices.filter((text) => /not outstanding/.test(text));
  expect.equal(told.length, 1);
  await led.stop();
});

test("mutated and random replies: every request is answered, and the primary goes on", async () => {
  const { seqs } = await outstanding();
  const stream = Buffer.concat(goodReplies(seqs));
  const piece = fc.uint8Array({ maxLength: 80 });
  const mutated = fc
    .record({ at: fc.nat(stream.length - 1), insert: piece, drop: fc.nat(30) })
    .map(
      ({ at, insert, drop }) =>
        new Uint8Array(Buffer.concat([stream.subarray(0, at), insert, stream.subarray(at + drop)])),
    );
  const flipped = fc
    .record({ at: fc.nat(stream.length - 1), change: fc.integer({ min: 1, max: 255 }) })
    .map(({ at, change }) => new Uint8Array(stream).with(at, stream[at]! ^ change));
  await fuzz(
    fc.asyncProperty(
      fc.oneof(mutated, flipped, flipped, piece),
      fc.integer({ min: 1, max: 200 }),
      async (said, size) => {
        const { led, cookies } = await outstanding();
        led.isolate();
        led.peer.b.chunk = () => size;
        led.peer.b.send(said);
        await led.world.clock.pass(25_000);
        const answers = cookies.map((cookie) => led.nbd.answer(cookie));
        expect.ok(answers.every((answer) => answer !== null));
        // The read's data is under a checksum: right, or refused.
        if (answers[2]!.error === 0) sameBytes(answers[2]!.data, bytes(4096, 3));
        led.world.disk.fail = () => 0;
        sameBytes(
          (await led.nbd.done({ type: NBD_READ, offset: 0, length: 512 })).data,
          bytes(512, 1),
        );
        await led.stop();
        // Of the peer's bytes only that data may have come to this disk: to mend what could not be read.
        const own = bytes(led.dataSize, OLD);
        own.fill(1, 0, 512).fill(2, 4096, 8192);
        const mended = led.data(131072, 4096);
        if (mended[0] !== OLD) own.fill(3, 131072, 135168);
        sameBytes(led.data(0, led.dataSize), own, "the primary's disk");
      },
    ),
  );
});

test("a peer that answers nothing for `timeout` is given up", async () => {
  const { led, cookies } = await outstanding("fullsync");
  led.isolate();
  await led.world.clock.pass(18_000);
  expect.equal(led.nbd.answer(cookies[0]!), null);
  await led.world.clock.pass(4_000);
  expect.deepEqual(
    cookies.map((cookie) => led.nbd.answer(cookie)?.error),
    [0, 0, 5, 0],
  );
  expect.ok(led.warned(/no answer from the peer for 20 s/));
  await led.stop();
});

test("data on the request channel ends the connection", async () => {
  const led = await Led.start();
  led.isolate();
  led.peer.a.send(bytes(5, 2));
  await led.settle();
  expect.equal(led.connected, false);
  expect.ok(led.warned(/where none is due/));
  await led.stop();
});

test("a write that the peer could not do is copied again, not forgotten (BD-2)", async () => {
  const led = await Led.start({ peer: { localcnt: 0n } });
  led.peer.automatic = false;
  const cookie = led.nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  await led.settle();
  const { seqLo } = led.peer.waiting.shift()!.header;
  led.peer.b.send(reply(seqLo, { error: 5 }));
  await led.settle();
  expect.equal(led.nbd.answer(cookie)?.error, 0, "alone, with the mark");
  expect.equal(led.metadata.localcnt, 1n);
  led.peer.automatic = true;
  await led.world.clock.pass(7_000);
  sameBytes(led.peer.data.subarray(0, 65536), led.data(0, 65536));
  expect.equal(led.metadata.localcnt, 0n);
  await led.stop();
});

// ---- what the operator is told ------------------------------------------------------------------

const notes = (led: Led): string => led.engine.report().notes.join("\n");

test("a disk that fails requests is warned of once, and status says so although the peer is there", async () => {
  const led = await Led.start();
  expect.equal(notes(led), "");
  led.world.disk.fail = ({ op, offset }) => (op === "write" && offset >= LOCALOFF ? 28 : 0);
  for (let at = 0; at < 20; at++) {
    const request = led.nbd.send({ type: NBD_WRITE, offset: at * 4096, payload: bytes(512, 1) });
    await led.settle();
    expect.notEqual(led.nbd.answer(request)?.error, 0);
  }
  const told = led.world.host.warnings.filter((text) => /No space left on device/.test(text));
  expect.equal(told.length, 1);
  expect.match(told[0]!, /component \/pretend\/disk .*writing.*Make room/);
  expect.equal(led.connected, true);
  expect.match(notes(led), /\/pretend\/disk failed 20 requests.*No space left/);
  led.world.disk.fail = () => 0;
  await led.world.clock.pass(60_000);
  await led.stop();
});

test("a peer whose disk fails is warned of with its errno, and status says so", async () => {
  const led = await Led.start();
  led.peer.automatic = false;
  const cookie = led.nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(512, 3) });
  await led.settle();
  led.peer.b.send(reply(led.peer.waiting[0]!.header.seqLo, { error: 28 }));
  await led.settle();
  led.peer.automatic = true;
  expect.equal(led.nbd.answer(cookie)?.error, 0);
  expect.ok(led.warned(/the peer's component.*No space left on device/));
  expect.match(notes(led), /the peer's component failed 1 request/);
  await led.world.clock.pass(60_000);
  await led.stop();
});

test("status tells of the last synchronization in figures, for an hour", async () => {
  const led = await Led.start({ metadata: { localcnt: 1n }, peer: { map: MAP } });
  await led.world.clock.pass(10_000);
  expect.match(notes(led), /^synchronized to the peer, 128KB in 2 extents copied in .*ago$/);
  await led.world.clock.pass(3_600_000);
  expect.equal(notes(led), "");
  await led.stop();
});

test("without a peer, status says why not and what to do, from the first moment on", async () => {
  const connecting = await Led.start({ lives: () => ({ s1: new Uint8Array(0) }) });
  expect.equal(notes(connecting), "connecting to tcp://peer");
  await connecting.stop();

  const led = await Led.start();
  led.isolate();
  led.peer.leave();
  await led.settle();
  expect.match(notes(led), /^not connected: the peer closed the connection/);
  await led.world.clock.pass(5_000);
  expect.match(notes(led), /^not connected: connection refused\. Is hastd running there\?$/);
  await led.stop();
});

test("BD-34: a split-brain is told once and tried again seldom, and status goes on saying how to end it, for either choice", async () => {
  const s2 = encodeS2(
    2,
    {
      kind: "refused",
      datasize: 1,
      extentsize: 65536,
      localcnt: 3n,
      remotecnt: 0n,
      errmsg: "Split-brain condition!",
      wait: false,
      resuid: RESUID,
      remarks: { dirtyExtents: 2, synced: "written", aloneSince: 1_700_000_000_000, lacking: null },
    },
    null,
  );
  const led = await Led.start({ lives: () => ({ s2 }) });
  await led.world.clock.pass(100_000);
  expect.ok(led.peers.length >= 8, "the repair on the other node must show");
  expect.ok(led.peers.length <= 12, "and nobody is to be deafened");
  expect.deepEqual(led.world.host.events, ["split-brain"]);
  expect.equal(led.world.host.errors.length, 1);
  for (const text of [led.world.host.errors[0]!, notes(led)]) {
    expect.match(text, /both nodes took writes while they were apart/);
    expect.match(text, /other node: 2 extents \(128KB\), alone since 2023-11-14 22:13:20 UTC/);
    expect.match(text, /On THAT node.*hastctl resolve --discard-local --dry-run r0/);
    expect.match(text, /or becomes it: hastctl role primary r0/);
  }
  const { peer } = led.world.host.divergences.at(-1)!;
  expect.deepEqual([peer.resuid, peer.localcnt, peer.remotecnt], [RESUID, 3n, 0n]);
  led.world.host.errors.length = 0;
  await led.stop();
});

// ---- the end ------------------------------------------------------------------------------------

test("a disk that fails while writes wait for the peer ends the resource with code 74", async () => {
  for (const replication of ["fullsync", "memsync", "async"] as const) {
    const led = await Led.start({ settings: { replication } });
    led.peer.automatic = false;
    const first = led.nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
    await led.settle();
    led.world.disk.fail = ({ op, offset }) => (op === "write" && offset < LOCALOFF ? 5 : 0);
    led.nbd.send({ type: NBD_WRITE, offset: 262144, payload: bytes(512, 2) });
    await led.settle();
    led.exited(74);
    expect.equal(led.world.disk.closed, true);
    expect.equal(led.peer.a.closedByPeer, true);
    expect.equal(led.nbd.connection.closedByPeer, true);
    expect.equal(led.nbd.answer(first)?.error, replication === "async" ? 0 : 5);
    expect.match(
      led.world.host.errors[0]!,
      replication === "async"
        ? /does not have everything .* lacks writes that were acknowledged here, or may\. First/
        : /FreeBSD.*without a disk\. To go on with the other node's copy, there: hastctl role primary r0/,
    );
    expect.deepEqual(
      led.world.host.peerLacks,
      replication === "async" ? { since: null } : null,
      replication,
    );
  }
});

/** A primary whose disk fails after `before`. @returns what it said */
async function stopOf(led: Led, before: () => Promise<unknown>): Promise<string> {
  await before();
  led.world.disk.fail = ({ op }) => (op === "flush" ? 5 : 0);
  led.nbd.send({ type: NBD_FLUSH });
  await led.settle();
  led.exited(74);
  expect.equal(led.world.host.errors.length, 1);
  return led.world.host.errors[0]!;
}

test("a disk that fails with what the peer lacks is to be saved before anybody is promoted there", async () => {
  const led = await Led.start({ peer: OURS });
  const text = await stopOf(led, async () => {
    led.isolate();
    led.peer.leave();
    await led.settle();
    await led.nbd.done({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  });
  const { aloneSince } = led.metadata;
  const since = new Date(aloneSince!).toISOString().slice(0, 19).replace("T", " ");
  const sentences = text.split(". ");
  expect.match(sentences[1]!, /without a peer there is nothing to go on over$/);
  expect.deepEqual(sentences.slice(2), [
    `The other node lacks what was acknowledged here since ${since} UTC`,
    "First try to save this disk (cables, controller, ddrescue to another one; runbook failed-disk.md, case B); then " +
      "here: hastctl role primary r0",
    "Only if it cannot be saved, to go on without those writes, there: hastctl role primary r0",
    `If the disk is replaced, here: hastctl create --force --datasize ${led.dataSize} -e 65536 r0`,
  ]);
  expect.deepEqual(led.world.host.peerLacks, { since: aloneSince });
});

test("a disk that fails when the peer has just gone, with everything, has nothing that is to be saved first", async () => {
  const led = await Led.start({ peer: OURS });
  const text = await stopOf(led, async () => {
    await led.nbd.done({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
    led.isolate();
    led.peer.leave();
    await led.settle();
  });
  expect.match(
    text,
    /go on over\. To go on with the other node's copy, there: hastctl role primary r0\. If/,
  );
  expect.equal(led.world.host.peerLacks, null);
});

test("of another node there is no word where there is none", async () => {
  const led = await Led.start({ settings: { remote: "none" } });
  const text = await stopOf(led, async () => {
    await led.nbd.done({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  });
  expect.match(text, /\(remote none\)\. When the cause is gone, here: hastctl role primary r0$/);
});

test("S-4: async: what was acknowledged and not sent is on record before a failed disk ends the resource", async () => {
  const led = await Led.start({ settings: { replication: "async" } });
  led.peer.automatic = false;
  const write = led.nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  await led.settle();
  expect.equal(led.nbd.answer(write)?.error, 0);
  led.world.disk.fail = ({ op }) => (op === "flush" ? 5 : 0);
  led.nbd.send({ type: NBD_FLUSH });
  await led.settle();
  led.world.disk.completion = "held";
  led.world.disk.fail = () => 0;
  const { localcnt } = led.metadata;
  led.peer.leave();
  await led.settle();
  expect.equal(led.nbd.connection.closedByPeer, true);
  for (const step of ["write 2048", "flush 0", "write 0", "flush 0"]) {
    led.exited(null);
    expect.deepEqual(
      led.world.disk.running.map(({ op, offset }) => `${op} ${offset}`),
      [step],
    );
    led.world.disk.release();
    await led.settle();
  }
  led.exited(74);
  expect.equal(led.metadata.localcnt, localcnt + 1n);
});

test("the metadata fails while the map is being written: one end, one story", async () => {
  const led = await Led.start({ completion: "held" });
  led.isolate();
  led.peer.automatic = false;
  led.nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  await led.settle();
  led.world.disk.release();
  await led.settle();
  led.world.disk.release();
  await led.settle();
  led.peer.leave(); // the write is answered alone: the metadata is written
  await led.settle();
  led.nbd.send({ type: NBD_WRITE, offset: 262144, payload: bytes(512, 1) });
  await led.settle();
  led.world.disk.fail = ({ op, offset }) => (op === "write" && offset === 2048 ? 5 : 0);
  led.world.disk.release(({ offset }) => offset === LOCALOFF);
  await led.settle();
  const running = led.world.disk.running.map(({ op, offset }) => `${op} ${offset}`).sort();
  expect.deepEqual(running, ["write 2048", "write 4096"]);
  led.world.disk.release(({ offset }) => offset === 2048);
  await led.settle();
  led.exited(null);
  const said: Resolution[] = [];
  led.engine.fullSync((resolution) => said.push(resolution));
  led.engine.invalidate(false, (resolution) => said.push(resolution));
  expect.ok(
    said.length === 2 && said.every((each) => each.kind === "failed"),
    "it takes no orders",
  );
  led.world.disk.release();
  await led.settle();
  led.exited(74);
});

test("S-21: without metaflush the metadata says so, from before the first client to a clean end", async () => {
  const led = await Led.start({ settings: { metaflush: false } });
  expect.equal(led.metadata.unflushed, true);
  await led.stop();
  expect.equal(led.metadata.unflushed, undefined);
});

test("stop() while the peer does not answer ends in time, with what it may lack on record", async () => {
  const { led, cookies } = await outstanding();
  led.engine.stop(10_000);
  await led.world.clock.pass(9_000);
  led.exited(null);
  await led.world.clock.pass(3_000);
  led.exited(0);
  expect.deepEqual(
    cookies.map((cookie) => led.nbd.answer(cookie)?.error),
    [0, 0, 5, 0],
  );
  expect.equal(led.metadata.localcnt, 1n);
  expect.equal(led.world.disk.peek(4096, 1)[0]! & 1, 1, "the extent stays marked");
});

test("stop() leaves a clean map where both nodes have everything", async () => {
  const led = await Led.start();
  await led.nbd.done({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  await led.stop();
  sameBytes(led.world.disk.peek(4096, 512), bytes(512, 0));
  expect.deepEqual([led.metadata.localcnt, led.metadata.remotecnt], [0n, 0n]);
  expect.equal(led.nbd.connection.closedByPeer, true);
  expect.equal(led.peer.a.closedByPeer, true);
});

test("stop() at any moment of the handshake ends in peace (BD-23, BD-25)", async () => {
  for (const life of [{ s1: new Uint8Array(0) }, { s2: new Uint8Array(0) }, { map: MAP }]) {
    const led = await Led.start({ lives: () => life, completion: "later" });
    await led.stop();
  }
  const led = await Led.start({ alone: true });
  await led.stop();
  expect.equal(led.world.clock.waiting, 0, "no timer is left");
});

test("stop() while the NBD address is being bound leaves nobody listening, and no timer", async () => {
  const world = new World({ arena: ARENA });
  createComponent(world.disk, { resuid: RESUID, state: "uptodate", sequence: 1n });
  const { settings, disk, environment, host } = world;
  const engine = await world.until(PrimaryEngine.open(settings, disk, environment, host));
  const started = engine.start();
  engine.stop(10_000);
  await world.until(started);
  await world.clock.pass(3_000);
  expect.equal(host.exit?.code, 0);
  expect.equal(world.net.isListening(settings.export), false);
  expect.equal(world.clock.waiting, 0);
});

test("a peer whose disk is bad fills no log: one line for each attempt, not for each extent", async () => {
  const led = await Led.start();
  led.peer.automatic = false;
  for (let extent = 0; extent < 15; extent++) {
    led.nbd.send({ type: NBD_WRITE, offset: extent * 65536, payload: bytes(512, 1) });
  }
  await led.settle();
  for (let second = 0; second < 17; second++) {
    for (const { header } of led.peer.waiting.splice(0)) {
      led.peer.b.send(reply(header.seqLo, header.cmd === CMD_WRITE ? { error: 5 } : {}));
    }
    await led.world.clock.pass(1_000);
  }
  const lines = led.world.host.notices.filter((text) => /could not be copied/.test(text));
  expect.ok(lines.length >= 1 && lines.length <= 3, lines.join("\n"));
  led.peer.automatic = true;
  led.peer.answerAll();
  await led.stop();
});

test("stop() waits for a peer that has the good copy no longer than it was told", async () => {
  const led = await Led.start({
    alone: true,
    metadata: { state: "inconsistent" },
    settings: { timeout: 86_400 },
  });
  const write = led.nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  const flush = led.nbd.send({ type: NBD_FLUSH });
  await led.world.clock.pass(60_000);
  expect.deepEqual([led.nbd.answer(write), led.nbd.answer(flush)], [null, null]);
  led.engine.stop(10_000);
  await led.world.clock.pass(12_000);
  led.exited(0);
  expect.deepEqual([led.nbd.answer(write)?.error, led.nbd.answer(flush)?.error], [5, 5]);
});

// ---- a failing disk -----------------------------------------------------------------------------

/** A peer of ours: it stores states, zeroes, and can keep the record for us. */
const OURS = { extensions: EXT_STATE | EXT_ZERO | EXT_SOLE };

function stateOf(request: CapturedRequest): string | null {
  return request.header.cmd === CMD_STATE
    ? decodeNv(request.bytes.subarray(FRAME_HEADER_SIZE)).string("state")
    : null;
}

test("S-1: a disk that cannot be marked any more is given up, and the peer serves everything", async () => {
  const led = await Led.start({ peer: OURS });
  await led.nbd.done({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  led.world.disk.fail = () => 5;
  await led.nbd.done({ type: NBD_WRITE, offset: 131072, payload: bytes(512, 2) });
  expect.deepEqual(
    led.peer.heard.map(stateOf).filter((state) => state !== null),
    ["sole"],
  );
  const before = led.world.disk.history.length;
  const read = await led.nbd.done({ type: NBD_READ, offset: 131072, length: 512 });
  sameBytes(read.data, bytes(512, 2));
  sameBytes((await led.nbd.done({ type: NBD_READ, offset: 0, length: 512 })).data, bytes(512, 1));
  await led.nbd.done({ type: NBD_WRITE, offset: 512, payload: bytes(512, 3) });
  await led.nbd.done({ type: NBD_FLUSH });
  sameBytes(led.peer.data.subarray(512, 1024), bytes(512, 3));
  expect.equal(led.world.disk.history.length, before, "our own disk is left alone");
  expect.equal(led.engine.report().status, "degraded");
  expect.match(
    notes(led),
    /^diskless: \/pretend\/disk failed .*here: hastctl role init r0; then on the other node: hastctl role primary r0/,
  );
  expect.equal(
    led.world.host.copies.at(-1)?.state,
    "inconsistent",
    "hastd knows, whatever the disk has",
  );
  expect.match(led.world.host.errors.splice(0).join(), /goes on over the peer alone/);
  await led.stop();
});

/** A peer that keeps the record, and comes back with another cache. */
const DISKLESS_TWICE = {
  peer: OURS,
  lives: (life: number) =>
    life === 0 ? { cache: 8n } : ({ cache: 9n, syncsrc: "secondary", localcnt: 1n } as const),
};

/** The peer's is the only copy from here on. */
async function loseDisk(led: Led): Promise<void> {
  led.world.disk.fail = () => 5;
  await led.nbd.done({ type: NBD_WRITE, offset: 131072, payload: bytes(512, 2) });
  expect.match(led.world.host.errors.splice(0).join(), /goes on over the peer alone/);
}

test("S-1: a loss is told to a device's users by taking the device away: nbdkit hears nothing that it could hide", async () => {
  const attach = "unix:///pretend/device.sock";
  const led = await Led.start({ attach, ...DISKLESS_TWICE });
  await loseDisk(led);
  const dial = async (): Promise<NbdClient> => {
    const client = new NbdClient(led.world.events, led.world.net.dial(attach));
    expect.ok(await client.begin());
    return client;
  };
  const loop = await dial();
  const idle = await dial();
  await led.nbd.done({ type: NBD_FLUSH });
  await loop.done({ type: NBD_WRITE, offset: 4096, payload: bytes(512, 3) });
  led.peer.leave();
  await led.world.clock.pass(6_000);
  expect.equal(led.peers.length, 2, "with another cache");
  expect.equal(led.world.host.devicesMisled, 0);

  const flush = loop.send({
    type: NBD_WRITE,
    offset: 8192,
    payload: bytes(512, 4),
    flags: NBD_FUA,
  });
  await led.settle();
  expect.equal(loop.answer(flush), null);
  expect.equal(led.world.host.devicesMisled, 1);
  expect.match(led.world.host.errors.splice(0).join(), /are lost: .*end them, and mount it again/);
  expect.match(notes(led), /were lost .* ago, .*end them, and mount it again/);
  // Nor on another connection or on a new one, however long it waits.
  const again = await dial();
  const flushes = [loop, idle, again].map((client) => client.send({ type: NBD_FLUSH }));
  await led.world.clock.pass(100_000);
  expect.deepEqual(
    flushes.map((cookie, index) => [loop, idle, again][index]!.answer(cookie)),
    [null, null, null],
  );
  await led.nbd.done({ type: NBD_FLUSH });
  // It has gone, and the next one comes.
  for (const client of [loop, idle, again]) {
    expect.equal(client.connection.closedByPeer, false, "it would try again");
    client.connection.reset();
  }
  await led.settle();
  await (await dial()).done({ type: NBD_FLUSH });
  expect.equal(led.world.host.devicesMisled, 1);
  await led.stop();
});

test("S-1: without a device, whoever flushes hears of a loss", async () => {
  const led = await Led.start(DISKLESS_TWICE);
  await loseDisk(led);
  await led.nbd.done({ type: NBD_FLUSH });
  await led.nbd.done({ type: NBD_WRITE, offset: 4096, payload: bytes(512, 3) });
  led.peer.leave();
  await led.world.clock.pass(6_000);
  const flush = led.nbd.send({ type: NBD_FLUSH });
  await led.settle();
  expect.equal(led.nbd.answer(flush)?.error, 5);
  expect.equal(led.world.host.devicesMisled, 0);
  expect.match(led.world.host.errors.splice(0).join(), /are lost: .*Whoever flushed got an error/);
  await led.nbd.done({ type: NBD_FLUSH });
  await led.stop();
});

test("S-1: who asked, went, and comes back to ask again hears of a loss, too", async () => {
  const led = await Led.start(DISKLESS_TWICE);
  await loseDisk(led);
  const visitor = new NbdClient(led.world.events, led.world.net.dial(led.world.settings.export));
  expect.ok(await visitor.begin());
  await led.nbd.done({ type: NBD_WRITE, offset: 4096, payload: bytes(512, 3) });
  led.peer.leave();
  visitor.send({ type: NBD_FLUSH });
  await led.settle();
  visitor.connection.reset();
  await led.world.clock.pass(6_000);
  expect.equal(led.peers.length, 2, "with another cache");
  expect.deepEqual(led.world.host.errors, [], "nobody was told yet");
  const flush = led.nbd.send({ type: NBD_FLUSH });
  await led.settle();
  expect.equal(led.nbd.answer(flush)?.error, 5);
  expect.match(led.world.host.errors.splice(0).join(), /are lost: .*Whoever flushed got an error/);
  await led.nbd.done({ type: NBD_FLUSH });
  await led.stop();
});

test("S-1: a WRITE that had lost a piece when the loss was told does not succeed afterwards", async () => {
  const led = await Led.start(DISKLESS_TWICE);
  await loseDisk(led);
  led.peer.automatic = false;
  const write = led.nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(2 * IO_MAX, 3) });
  const read = led.nbd.send({ type: NBD_READ, offset: 5 * IO_MAX, length: 2 * IO_MAX });
  const later = led.nbd.send({ type: NBD_WRITE, offset: 4 * IO_MAX, payload: bytes(512, 4) });
  await led.settle();
  led.peer.answerNext();
  led.peer.waiting.shift(); // the second piece
  led.peer.answerNext();
  await led.settle();
  led.peer.leave();
  const dial = led.world.net.onConnect;
  led.world.net.onConnect = (address, count) => {
    const end = dial(address, count);
    led.peer.automatic = false;
    return end;
  };
  await led.world.clock.pass(6_000);
  expect.equal(led.peers.length, 2, "with another cache");
  led.peer.answerNext(); // that it keeps the record
  await led.settle();
  const flush = led.nbd.send({ type: NBD_FLUSH });
  await led.settle();
  led.peer.waiting.unshift(led.peer.waiting.pop()!);
  led.peer.answerNext();
  await led.settle();
  expect.equal(led.nbd.answer(flush)?.error, 5);
  led.peer.answerAll();
  await led.settle();
  expect.equal(led.nbd.answer(write)?.error, 5, "half of it is lost");
  expect.equal(led.nbd.answer(later)?.error, 0, "this one was sent again");
  expect.equal(led.nbd.answer(read)?.error, 0);
  expect.match(led.world.host.errors.splice(0).join(), /are lost/);
  led.peer.automatic = true;
  await led.stop();
});

test("BD-15: a copy whose disk fails while it is thrown away is not said to be as it was", async () => {
  const led = await Led.start({ peer: OURS });
  await led.nbd.done({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  led.world.disk.fail = ({ op, offset }) => (op === "write" && offset === 4096 ? 5 : 0);
  const said: string[] = [];
  led.engine.invalidate(false, (resolution) => said.push(JSON.stringify(resolution)));
  await led.settle();
  expect.equal(led.metadata.state, "inconsistent");
  expect.match(
    said.join(),
    /^{"kind":"failed".*\/pretend\/disk failed.*in use no more.*hastctl role init r0/,
  );
  led.world.host.errors.length = 0;
  await led.stop();
});

test("S-21, S-1: a disk that failed without metaflush is not closed in good order, were it to work again", async () => {
  const led = await Led.start({ peer: OURS, settings: { metaflush: false } });
  led.world.disk.fail = () => 5;
  await led.nbd.done({ type: NBD_WRITE, offset: 131072, payload: bytes(512, 2) });
  expect.match(led.world.host.errors.splice(0).join(), /goes on over the peer alone/);
  led.world.disk.fail = () => 0;
  await led.stop();
  expect.equal(led.metadata.unflushed, true, "its map may lack marks");
});

test("S-6: without disk and peer, requests wait; with the peer back it is told first", async () => {
  const led = await Led.start({
    peer: OURS,
    lives: (life) => (life === 0 ? {} : { localcnt: 1n, syncsrc: "secondary" }),
  });
  led.world.disk.fail = () => 5;
  await led.nbd.done({ type: NBD_WRITE, offset: 131072, payload: bytes(512, 2) });
  led.world.host.errors.length = 0;
  led.peer.leave();
  await led.settle();
  const waiting = led.nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(512, 4) });
  await led.settle();
  expect.equal(led.nbd.answer(waiting), null);
  expect.match(notes(led), /1 requests wait for the peer, the only copy/);
  await led.world.clock.pass(5_000);
  expect.equal(led.nbd.answer(waiting)?.error, 0);
  expect.deepEqual(led.peer.heard.map(stateOf).slice(0, 2), ["sole", null]);
  await led.stop();
});

test("S-1: a peer that was created anew is no peer for a primary without disk", async () => {
  const led = await Led.start({
    peer: OURS,
    lives: (life) => (life === 0 ? {} : { virgin: true, map: bytes(512, 0xff) }),
  });
  led.world.disk.fail = () => 5;
  await led.nbd.done({ type: NBD_WRITE, offset: 131072, payload: bytes(512, 2) });
  led.world.host.errors.length = 0;
  led.peer.leave();
  await led.world.clock.pass(5_000);
  expect.equal(led.engine.core.connected, false);
  expect.ok(led.warned(/created anew/));
  await led.stop();
});

test("what could not be read here is written again, as the peer has it", async () => {
  const led = await Led.start();
  led.world.disk.fail = ({ op, offset }) => (op === "read" && offset >= LOCALOFF ? 5 : 0);
  led.peer.data.fill(9, 0, 4096);
  sameBytes((await led.nbd.done({ type: NBD_READ, offset: 0, length: 4096 })).data, bytes(4096, 9));
  await led.settle();
  sameBytes(led.data(0, 4096), bytes(4096, 9));
  await led.stop();
});

/** A copy that wants to be primary, and what the other node says to it. */
class Aspirant {
  readonly world: World;
  readonly engine: PrimaryEngine;
  admitted: boolean | null = null;
  datasize = 0;
  readonly #peer: () => PretendSecondary | null;

  private constructor(world: World, engine: PrimaryEngine, peer: () => PretendSecondary | null) {
    this.world = world;
    this.engine = engine;
    this.#peer = peer;
    void engine.admit().then((admitted) => {
      this.admitted = admitted;
    });
  }

  static async start(
    trust: Trust,
    metadata: Partial<Metadata>,
    peer: Partial<SecondaryOptions> | string,
    settings: Partial<WorkerSettings> = {},
    lease: Lease | null = null,
    chance: readonly Uint8Array[] = [new Uint8Array(8).fill(9), new Uint8Array(1)],
    gate: Promise<string | null> = Promise.resolve(null),
  ): Promise<Aspirant> {
    const world = new World({ arena: ARENA, settings, entropy: chance });
    world.host.resyncRefusal = gate;
    const { datasize } = createComponent(world.disk, {
      resuid: RESUID,
      state: "uptodate",
      sequence: 1n,
      prevrole: "secondary",
      ...metadata,
    });
    let last: PretendSecondary | null = null;
    world.net.onConnect = () => {
      if (typeof peer === "string") return peer;
      if (last?.wantsSecond) return last.connect();
      last = new PretendSecondary(world.events, { datasize, ...peer });
      return last.connect();
    };
    const { disk, environment, host } = world;
    const opened = PrimaryEngine.open(world.settings, disk, environment, host, trust, lease);
    const aspirant = new Aspirant(world, await world.until(opened), () => last);
    aspirant.datasize = datasize;
    await world.events.settle();
    return aspirant;
  }

  get metadata(): Metadata {
    return decodeMetadata(this.world.disk.peek(0, METADATA_SIZE), "r0");
  }

  /** The peer's last life. */
  get peer(): PretendSecondary | null {
    return this.#peer();
  }

  refused(reason: RegExp): void {
    expect.equal(this.admitted, false);
    expect.equal(this.world.host.exit?.code, 77);
    expect.match(this.world.host.exit?.reason ?? "", reason);
  }

  async serves(): Promise<void> {
    expect.equal(this.admitted, true);
    await this.world.until(this.engine.start());
    const nbd = new NbdClient(this.world.events, this.world.net.dial(this.world.settings.export));
    expect.ok(await nbd.begin());
    const cookie = nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
    await this.world.events.settle();
    expect.equal(nbd.answer(cookie)?.error, 0);
  }
}

function s1Refusal(errmsg: string, wait: boolean): Partial<SecondaryOptions> {
  return { s1: encodeS1({ kind: "refused", errmsg, wait }) };
}

const ACTS_AS_PRIMARY = s1Refusal(
  "Remote node acts as primary for the resource and not as secondary.",
  true,
);
const ACTS_AS_INIT = s1Refusal(
  "Remote node acts as init for the resource and not as secondary.",
  false,
);

/** What the metadata say of an ordinary copy, and a peer's map that marks its first extent. */
const ORDINARY: Partial<Metadata> = { synced: "all", prevrole: "primary" };
const MARKED: Uint8Array = new Uint8Array(512).fill(1, 0, 1);

test("S-2: a copy that may have been left behind is served when the other node agrees, and not before", async () => {
  for (const peer of [
    {},
    { remotecnt: 1n, localcnt: 0n },
    { localcnt: 1n, syncsrc: "secondary" as const },
  ]) {
    const local = peer.remotecnt === undefined ? 0n : 1n;
    const aspirant = await Aspirant.start("unknown", { localcnt: local }, peer);
    await aspirant.serves();
  }
});

test("S-21: without metaflush the metadata say so before the other node's map is merged, and not after a refusal", async () => {
  const off = { metaflush: false };
  const map = bytes(512, 0);
  map[0] = 0b100;
  const aspirant = await Aspirant.start("unknown", {}, { map }, off);
  expect.equal(aspirant.admitted, true);
  const { history } = aspirant.world.disk;
  const merged = history.findIndex(({ op, offset }) => op === "write" && offset === 4096);
  const noted = history.findIndex(({ op, offset }) => op === "write" && offset === 0);
  expect.ok(noted >= 0 && noted < merged, `noted ${noted}, merged ${merged}`);
  await aspirant.serves();
  expect.equal(aspirant.metadata.unflushed, true);
  sameBytes(aspirant.world.disk.peek(4096, 1), Uint8Array.of(0b101));

  const silent = await Aspirant.start("unknown", {}, "connection refused", off);
  silent.refused(/connection refused/);
  expect.equal(silent.metadata.unflushed, undefined);
});

test("S-9: a primary that may have lost its cache says so, and takes what the other node has kept", async () => {
  const peer = { extensions: EXT_STATE | EXT_KEPT, syncsrc: "secondary" as const, map: MARKED };
  const back = await Aspirant.start("unknown", ORDINARY, peer);
  expect.deepEqual(back.peer?.p2?.life, { fresh: true, early: false });
  expect.equal(back.admitted, true);
  expect.ok(back.world.host.notices.some((text) => /everything that was acknowledged/.test(text)));
  expect.equal(back.metadata.state, "uptodate", "what was marked has been copied");
  expect.deepEqual(
    back.world.disk.peek(LOCALOFF, 65536),
    back.peer!.data.slice(0, 65536),
    "from there",
  );
});

test("S-9: nor does one that an arbiter has chosen know better than the node that kept its cache", async () => {
  const peer = { extensions: EXT_STATE | EXT_KEPT, syncsrc: "secondary" as const, map: MARKED };
  const back = await Aspirant.start("granted anew", ORDINARY, peer, {}, LEASE);
  expect.equal(back.admitted, true);
  await back.world.until(back.engine.start());
  await back.world.events.settle();
  expect.deepEqual(back.peer?.p2?.life, { fresh: true, early: false });
  expect.ok(back.world.host.notices.some((text) => /everything that was acknowledged/.test(text)));
});

test("S-9: nothing is served while the other node makes up its mind, or its copy waits to be let in", async () => {
  for (const slow of ["s1", "s2", "the gate"] as const) {
    const later = Promise.withResolvers<null>();
    const back = await Aspirant.start(
      "granted anew",
      ORDINARY,
      {
        extensions: EXT_STATE | EXT_KEPT,
        syncsrc: "secondary",
        map: MARKED,
        ...(slow === "the gate"
          ? {}
          : { holds: { message: slow, until: (send) => void later.promise.then(send) } }),
      },
      {},
      LEASE,
      undefined,
      slow === "the gate" ? later.promise : Promise.resolve(null),
    );
    const { world, engine } = back;
    await world.until(engine.start());
    await world.events.settle();
    back.peer!.data.fill(0x99);
    const nbd = new NbdClient(world.events, world.net.dial(world.settings.export));
    await nbd.begin();
    const cookie = nbd.send({ type: NBD_READ, offset: 0, length: 512 });
    await world.clock.pass(10_000);
    engine.renewLease(world.clock.now() + 60_000, 0);
    expect.equal(nbd.answer(cookie), null, slow);
    expect.ok(!world.host.hasSettled, slow);
    later.resolve(null);
    await world.clock.pass(1_000);
    expect.equal(nbd.answer(cookie)?.data[0], 0x99, slow);
    expect.ok(world.host.hasSettled, slow);
  }
});

test("S-9: one that stops while the other node makes up its mind leaves what its clients asked for undone", async () => {
  const peer: Partial<SecondaryOptions> = {
    extensions: EXT_STATE | EXT_KEPT,
    syncsrc: "secondary",
    map: MARKED,
    holds: { message: "s2", until: () => undefined },
  };
  const back = await Aspirant.start("resumed anew", ORDINARY, peer, { metaflush: false });
  const { world, engine } = back;
  await world.until(engine.start());
  const nbd = new NbdClient(world.events, world.net.dial(world.settings.export));
  await nbd.begin();
  const cookie = nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  await world.clock.pass(5_000);
  engine.stop(10_000);
  await world.clock.pass(1_000);
  expect.equal(world.host.exit?.code, 0);
  expect.ok(!world.host.hasSettled, "nor is it decided whose data count");
  expect.equal(nbd.answer(cookie), null);
  const { localcnt, aloneSince, unflushed } = back.metadata;
  expect.deepEqual(
    { localcnt, aloneSince, unflushed },
    { localcnt: 0n, aloneSince: null, unflushed: undefined },
  );
});

test("S-9: nor does one whose worker hung until hastd killed it; where nobody can be asked, it goes on", async () => {
  const peer = { extensions: EXT_STATE | EXT_KEPT, syncsrc: "secondary" as const, map: MARKED };
  const back = await Aspirant.start("resumed anew", ORDINARY, peer);
  await back.serves();
  expect.deepEqual(back.peer?.p2?.life, { fresh: true, early: false });
  expect.ok(back.world.host.notices.some((text) => /everything that was acknowledged/.test(text)));

  const alone = await Aspirant.start("resumed anew", ORDINARY, "connection refused");
  await alone.serves();
  expect.ok(alone.world.host.hasSettled);
});

test("S-9: one whose hastd was there all the time, or that was forced, does not offer it, and does not take it", async () => {
  const peer = { extensions: EXT_STATE | EXT_KEPT, syncsrc: "secondary" as const, map: MARKED };
  for (const trust of ["known", "forced"] as const) {
    const back = await Aspirant.start(trust, ORDINARY, peer);
    await back.world.until(back.engine.start());
    await back.world.events.settle();
    expect.equal(back.peer?.p2?.life?.fresh, false, trust);
    expect.match(back.engine.report().notes.join(), /which the counters contradict/);
  }
});

test("S-10: a primary says of its own copy that it is not whole", async () => {
  const whole = await Led.start({ peer: { extensions: EXT_STATE } });
  expect.equal(whole.peer.p2?.remarks?.lacking, null);
  const stale = await Led.start({
    peer: { extensions: EXT_STATE, localcnt: 1n, syncsrc: "secondary" },
    metadata: { state: "inconsistent", prevrole: "primary", sequence: 1n },
  });
  expect.equal(stale.peer.p2?.remarks?.lacking, "inconsistent");
});

test("S-9: one that has served without the other node keeps its own data", async () => {
  const led = await Led.start({ alone: true, peer: { extensions: EXT_STATE | EXT_KEPT } });
  await led.world.clock.pass(3_000);
  expect.equal(led.engine.life().fresh, false);
});

test("S-2: where the other node is silent or cannot judge, it is refused at once, and says what to type", async () => {
  const silent = await Aspirant.start("unknown", {}, "connection refused");
  silent.refused(
    /may have gone on without it.*\(connection refused\).*hastctl role secondary r0;.*hastctl role --force primary r0$/,
  );
  const init = await Aspirant.start("unknown", {}, ACTS_AS_INIT);
  init.refused(/acts as init.*hastctl role secondary r0/);
  const split = await Aspirant.start(
    "unknown",
    { localcnt: 1n },
    { s2: handshakeRefusal("Split-brain condition!") },
  );
  split.refused(/Split-brain.*Decide.*hastctl role --force primary r0$/);
  expect.deepEqual(split.metadata.localcnt, 1n);
});

test("a refused promotion that is stopped while its end is put on record ends as refused", async () => {
  const world = new World({ arena: ARENA, settings: { metaflush: false } });
  const { settings, disk, environment, host } = world;
  createComponent(disk, { resuid: RESUID, state: "uptodate", sequence: 1n });
  world.net.onConnect = () => {
    disk.completion = "held";
    return "connection refused";
  };
  const opened = PrimaryEngine.open(settings, disk, environment, host, "unknown");
  const engine = await world.until(opened);
  expect.equal(await world.until(engine.admit()), false);
  expect.equal(host.exit === null, true, "the mark of metaflush off is being taken back");
  engine.stop(10_000);
  while (disk.release() > 0) await world.events.settle();
  expect.equal(host.exit?.code, 77);
});

test("a promotion that is stopped while it asks ends at once, and leaves the metadata as they were", async () => {
  const entropy = [new Uint8Array(8).fill(9)];
  const world = new World({ arena: ARENA, settings: { timeout: 5 }, entropy });
  const { settings, disk, environment, host } = world;
  const { datasize } = createComponent(disk, { resuid: 0n, state: "new", sequence: 1n });
  // S1 makes it take an id, to ask with.
  world.net.onConnect = () => {
    disk.completion = "held";
    return new PretendSecondary(world.events, { datasize }).connect();
  };
  const opened = PrimaryEngine.open(settings, disk, environment, host, "unknown");
  const engine = await world.until(opened);
  const admitted = engine.admit();
  await world.events.settle();
  expect.ok(engine.core.recordPending);
  engine.stop(10_000);
  expect.equal(host.exit === null, true);
  while (disk.release() > 0) await world.events.settle();
  expect.equal(await world.until(admitted), false);
  expect.equal(host.exit?.code, 0);
  await world.clock.pass(6_000);
  const { resuid, state } = decodeMetadata(disk.peek(0, METADATA_SIZE), "r0");
  expect.deepEqual({ resuid, state }, { resuid: 0n, state: "new" });

  const asking = await Aspirant.start("unknown", {}, "silence");
  asking.engine.stop(10_000);
  await asking.world.events.settle();
  expect.equal(asking.world.host.exit?.code, 0);
  await asking.world.clock.pass(30_000);
  expect.equal(asking.admitted, false);
});

// ---- an arbiter -----------------------------------------------------------------------------------

/** The pretended clock begins at 1,000,000. */
const LEASE: Lease = { term: 7n, deadlineMs: 1_010_000 };
const CHOSEN = { peer: { extensions: EXT_STATE }, lease: LEASE } as const;

/** Puts what the engine wants on record, as an arbiter does. */
function grant(led: Led): void {
  const { number } = led.world.host.wishes.at(-1)!;
  led.engine.renewLease(LEASE.deadlineMs, number);
}

/** A chosen primary whose peer, in step on record, has left, and a write that it may not answer yet. */
async function deserted(): Promise<{ led: Led; before: bigint; write: bigint }> {
  const led = await Led.start(CHOSEN);
  await led.settle();
  grant(led);
  led.isolate();
  led.peer.leave();
  await led.settle();
  const before = led.metadata.localcnt;
  const write = led.nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  return { led, before, write };
}

test("S-17: with both nodes in step the arbiter hears so, and nothing waits for it", async () => {
  const led = await Led.start(CHOSEN);
  await led.settle();
  expect.equal(led.world.host.wishes.at(-1)?.whole, "both");
  await led.nbd.done({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  expect.equal(led.metadata.term, 7n);
  await led.stop();
});

test("S-17: going on alone is on the arbiter's record before it is on this disk, and before any answer", async () => {
  const { led, before, write } = await deserted();
  await led.world.clock.pass(4_000);
  expect.equal(led.nbd.answer(write), null);
  expect.equal(led.world.host.wishes.at(-1)?.whole, "local");
  expect.equal(led.metadata.localcnt, before, "the other node may be chosen: no split-brain then");
  grant(led);
  await led.settle();
  expect.equal(led.nbd.answer(write)?.error, 0);
  expect.equal(led.metadata.localcnt, before + 1n);
  await led.stop();
});

test("S-17: a demotion that nobody agrees to ends without an answer and without a mark", async () => {
  const { led, before, write } = await deserted();
  await led.settle();
  led.engine.stop(10_000);
  await led.world.clock.pass(1_000);
  led.exited(0);
  expect.equal(led.nbd.answer(write), null);
  expect.equal(led.metadata.localcnt, before);
});

test("S-17: without a lease nothing is answered, reads neither; with the next one all is", async () => {
  const led = await Led.start(CHOSEN);
  await led.settle();
  await led.world.clock.pass(10_000);
  const write = led.nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  const read = led.nbd.send({ type: NBD_READ, offset: 4096, length: 512 });
  await led.settle();
  expect.equal(led.nbd.answer(write), null);
  expect.equal(led.nbd.answer(read), null);
  led.engine.renewLease(LEASE.deadlineMs + 10_000, 0);
  await led.settle();
  expect.equal(led.nbd.answer(write)?.error, 0);
  expect.equal(led.nbd.answer(read)?.error, 0);
  await led.stop();
});

test("S-17: nor does a client hear anything that takes its leave when the lease has just run out", async () => {
  // Between two ticks.
  const led = await Led.start({ ...CHOSEN, lease: { ...LEASE, deadlineMs: 1_001_500 } });
  await led.world.clock.pass(1_600);
  const asked = request({ type: NBD_CACHE, length: 512 });
  led.nbd.connection.send(Buffer.concat([asked, request({ type: NBD_DISC })]));
  await led.settle();
  expect.equal(led.nbd.connection.takeHeard().length, 0);
  expect.equal(led.nbd.connection.closedByPeer, false);
  led.engine.renewLease(LEASE.deadlineMs, 0);
  await led.settle();
  expect.ok(led.nbd.connection.takeHeard().length > 0);
  expect.equal(led.nbd.connection.closedByPeer, true);
  await led.stop();
});

test("S-17: what is not answered when the lease has run out never is, if the role goes", async () => {
  const led = await Led.start(CHOSEN);
  await led.settle();
  await led.world.clock.pass(10_000);
  const write = led.nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  await led.settle();
  await led.stop();
  expect.equal(led.nbd.answer(write), null);
});

test("S-4, S-17: what async has answered is on record when a primary stops, whatever the arbiter says", async () => {
  for (const agreed of [true, false]) {
    const led = await Led.start({ ...CHOSEN, settings: { replication: "async" } });
    await led.settle();
    grant(led);
    await led.settle();
    led.peer.automatic = false;
    const write = led.nbd.send({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
    await led.settle();
    expect.equal(led.nbd.answer(write)?.error, 0);
    led.engine.stop(3_000);
    await led.world.clock.pass(3_000);
    if (agreed) grant(led);
    await led.world.clock.pass(5_000);
    expect.equal(led.world.host.exit?.code, 0);
    expect.equal(led.metadata.localcnt, 1n, "the other node, if promoted, will find a split-brain");
    expect.notEqual(led.metadata.aloneSince, null);
  }
});

test("S-4, S-17: nor is that lost where its disk fails while the arbiter is silent", async () => {
  const led = await Led.start({ ...CHOSEN, settings: { replication: "async" } });
  await led.settle();
  grant(led);
  await led.settle();
  led.peer.automatic = false;
  await led.nbd.done({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  led.peer.leave();
  await led.settle();
  let failed = false;
  led.world.disk.fail = ({ op }) => {
    if (op !== "flush" || failed) return 0;
    failed = true;
    return 5;
  };
  led.nbd.send({ type: NBD_FLUSH });
  await led.world.clock.pass(1_000);
  expect.equal(led.world.host.exit?.code, 74);
  expect.equal(led.metadata.localcnt, 1n);
});

test("S-11: clients of a copy that lacks something are not led over to what its peer wrote as primary", async () => {
  const led = await Led.start({
    peer: { extensions: EXT_STATE },
    lives: (life) => (life === 0 ? {} : { syncsrc: "secondary", localcnt: 1n }),
  });
  await led.settle();
  led.world.disk.fail = ({ op, offset }) => (op === "write" && offset >= LOCALOFF ? 5 : 0);
  await led.nbd.done({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  expect.equal(led.engine.core.stale, true);
  led.peer.leave();
  await led.settle();
  const waits = led.nbd.send({ type: NBD_WRITE, offset: 65_536, payload: bytes(512, 2) });
  await led.world.clock.pass(3_000);
  expect.equal(led.connected, false);
  expect.equal(led.nbd.answer(waits), null);
  expect.match(
    led.engine.report().notes.join(),
    /went on without this one.*role init r0 && hastctl role primary r0/,
  );
  await led.stop();
});

test("S-17: one whose peer is away serves when it alone is on record, and not before", async () => {
  const led = await Led.start({ lease: LEASE, alone: true });
  const read = led.nbd.send({ type: NBD_READ, offset: 0, length: 512 });
  await led.world.clock.pass(5_000);
  expect.equal(led.nbd.answer(read), null);
  grant(led);
  await led.settle();
  expect.equal(led.nbd.answer(read)?.error, 0);
  await led.stop();
});

test("S-17: a copy that has seen a later term is not served under an earlier one", async () => {
  const aspirant = await Aspirant.start("granted", { term: 8n }, "connection refused", {}, LEASE);
  aspirant.refused(/term is 7, and this copy has seen 8.*hast-failover seed --force$/);
});

test("an arbiter's word stands for the other node's, but not for a copy that is not whole", async () => {
  const chosen = await Aspirant.start("granted", {}, "connection refused", {}, LEASE);
  expect.equal(chosen.admitted, true);
  expect.equal(chosen.world.host.copies.at(-1)?.term, LEASE.term);
  for (const state of ["outdated", "inconsistent"] as const) {
    for (const prevrole of ["primary", "secondary"] as const) {
      const refused = await Aspirant.start(
        "granted",
        { state, prevrole },
        "connection refused",
        {},
        LEASE,
      );
      refused.refused(new RegExp(state));
    }
  }
});

test("S-2: a host that does not answer holds a promotion up for one timeout, and no longer", async () => {
  const mute = await Aspirant.start("unknown", {}, { s1: new Uint8Array(0) }, { timeout: 7 });
  expect.equal(mute.admitted, null);
  await mute.world.clock.pass(6_000);
  expect.equal(mute.admitted, null);
  await mute.world.clock.pass(1_100);
  mute.refused(/7 s/);
});

test("S-11: a node whose peer is primary waits for it to step down, then is refused", async () => {
  const aspirant = await Aspirant.start("unknown", {}, ACTS_AS_PRIMARY, { timeout: 5 });
  await aspirant.world.clock.pass(4_500);
  expect.equal(aspirant.admitted, null);
  await aspirant.world.clock.pass(1_000);
  // It may be asked for the same at the same moment, and then both are refused: each says how to go on.
  aspirant.refused(
    /the other node is primary, or .*there: hastctl status r0.*there: hastctl role secondary r0.*here: hastctl role primary r0$/,
  );
});

test("S-1, S-2: the only copy there is needs no --force where the primary that lost its disk is dead", async () => {
  const sole = { localcnt: 1n, aloneSince: 1, prevrole: "secondary" } as const;
  await (await Aspirant.start("unknown", sole, "connection refused")).serves();
  const live = await Aspirant.start("unknown", sole, ACTS_AS_PRIMARY, { timeout: 5 });
  await live.world.clock.pass(6_000);
  live.refused(/the other node is primary/);
  // With a disk it could have gone on.
  const was = { ...sole, prevrole: "primary" } as const;
  (await Aspirant.start("unknown", was, "connection refused")).refused(/may have gone on/);
});

test("S-2: one that knows its copy needs nobody's word, and one without a remote has nobody to ask", async () => {
  await (await Aspirant.start("known", {}, "connection refused")).serves();
  await (await Aspirant.start("known", {}, ACTS_AS_INIT)).serves();
  await (await Aspirant.start("unknown", {}, "?", { remote: "none" })).serves();
  const dead = await Aspirant.start("known", {}, "silence");
  expect.equal(dead.admitted, null);
  await dead.world.clock.pass(2_000);
  await dead.serves();
  // One whose machine lives may be busy.
  const silent = await Aspirant.start("known", {}, { s1: new Uint8Array() }, { timeout: 5 });
  await silent.world.clock.pass(4_900);
  expect.equal(silent.admitted, null);
  await silent.world.clock.pass(200);
  await silent.serves();
  expect.equal((await Aspirant.start("resumed", {}, ACTS_AS_PRIMARY)).admitted, true);
});

test("S-11: of two that know their copy, and are promoted together, the one with less patience makes way", async () => {
  const hasty = await Aspirant.start("known", {}, ACTS_AS_PRIMARY, { timeout: 5 });
  await hasty.world.clock.pass(1_900);
  expect.equal(hasty.admitted, null);
  await hasty.world.clock.pass(200);
  hasty.refused(/is being promoted at this very moment, too/);

  const peer = { ...ACTS_AS_PRIMARY };
  const chance = [0, 255, 0, 255].map((byte) => Uint8Array.of(byte)); // every other one is the link's
  const patient = await Aspirant.start("known", {}, peer, { timeout: 5 }, null, chance);
  await patient.world.clock.pass(6_300);
  expect.equal(patient.admitted, null);
  Object.assign(peer, { s1: undefined }); // it is secondary now
  await patient.world.clock.pass(500);
  await patient.serves();

  const rival = { ...ACTS_AS_PRIMARY };
  const left = await Aspirant.start("known", {}, rival, { timeout: 5 }, null, chance);
  Object.assign(rival, ACTS_AS_INIT);
  await left.world.clock.pass(500);
  await left.serves();
});

test("S-11: one that the other node has begun to accept waits for the end of it, and is not refused", async () => {
  const peer: Partial<SecondaryOptions> = { ...ACTS_AS_PRIMARY };
  const chance = [0, 255, 0, 255].map((byte) => Uint8Array.of(byte)); // every other one is the link's
  const patient = await Aspirant.start("known", {}, peer, { timeout: 5 }, null, chance);
  await patient.world.clock.pass(6_400);
  Object.assign(peer, { s1: undefined, s2: new Uint8Array() }); // secondary now; its worker starts
  await patient.world.clock.pass(500);
  expect.ok(patient.peer?.p2, "it has been accepted");
  await patient.world.clock.pass(500);
  expect.equal(patient.admitted, null);
  patient.peer?.a.send(handshakeOf({ datasize: patient.datasize }).s2);
  await patient.world.events.settle();
  await patient.serves();
});

test("S-11: a rival that knocks is heard where it cannot be asked, and both nodes know who is first", async () => {
  for (const trust of ["known", "unknown"] as const) {
    const leastMs = trust === "known" ? 2_000 : 5_000;
    const unheard = { s1: new Uint8Array() };
    const second = await Aspirant.start(trust, {}, unheard, { timeout: 5 });
    await second.world.clock.pass(1_500);
    second.engine.meetRival(false);
    await second.world.clock.pass(leastMs + 100);
    second.refused(/the other node is primary/);

    const peer: Partial<SecondaryOptions> = { ...ACTS_AS_PRIMARY };
    const first = await Aspirant.start(trust, {}, peer, { timeout: 5 });
    first.engine.meetRival(true);
    await first.world.clock.pass(leastMs + 4_000);
    expect.equal(first.admitted, null);
    Object.assign(peer, { s1: undefined }); // the other one has made way
    await first.world.clock.pass(900);
    await first.serves();
  }
  const cutOff = await Aspirant.start("known", {}, { s1: new Uint8Array() }, { timeout: 2 });
  await cutOff.world.clock.pass(1_500);
  cutOff.engine.meetRival(true);
  await cutOff.world.clock.pass(600);
  cutOff.refused(/the other node is primary/);
});

test("S-11: one that is refused in the middle of being accepted, by a node that is primary again, hears that", async () => {
  const peer: Partial<SecondaryOptions> = { ...ACTS_AS_PRIMARY };
  const aspirant = await Aspirant.start("known", {}, peer, { timeout: 5 });
  const { s1 } = peer;
  Object.assign(peer, { s1: undefined, s2: new Uint8Array() });
  await aspirant.world.clock.pass(600);
  expect.ok(aspirant.peer?.p2, "it has been accepted");
  Object.assign(peer, { s1 });
  aspirant.peer?.a.send(s1!);
  await aspirant.world.clock.pass(5_000);
  aspirant.refused(/the other node is primary/);
});

test("S-2: one that knows its copy serves nothing while a secondary, which answers, may have newer data", async () => {
  const peer = { localcnt: 1n, syncsrc: "secondary" as const };
  const stale = await Aspirant.start("known", {}, { ...peer, s2: new Uint8Array() });
  expect.ok(stale.peer?.p2, "it has been accepted");
  await stale.world.clock.pass(2_100); // its worker still starts
  expect.equal(stale.admitted, null);
  stale.peer?.a.send(handshakeOf({ datasize: stale.datasize, ...peer }).s2);
  await stale.world.events.settle();
  expect.equal(stale.admitted, true);
  expect.ok(stale.engine.core.connected);
});

/** The other node wrote alone, and is a secondary now. */
const AHEAD = { localcnt: 1n, syncsrc: "secondary", map: MARKED } as const;

/** Wants to be primary while the other node's data is newer, and this one's gate is asked about it. */
async function outdone(
  gate: Promise<string | null>,
  trust: Trust,
  metadata: Partial<Metadata> = {},
  extensions = EXT_STATE,
): Promise<Aspirant> {
  const peer = { ...AHEAD, extensions };
  const settings = { timeout: 5 };
  return await Aspirant.start(trust, metadata, peer, settings, null, undefined, gate);
}

/** Whose word each would need, were it not for the newer data: nobody's, nor an objection's, but for the last. */
const DOUBTS: readonly (readonly [Trust, Partial<Metadata>])[] = [
  ["known", {}],
  ["unknown", { state: "new", prevrole: "primary" }],
  ["unknown", { aloneSince: 1, prevrole: "secondary" }],
  ["unknown", {}],
];

test("S-2: nobody is promoted whose gate keeps out the newer data that the other node has shown", async () => {
  for (const [trust, metadata] of DOUBTS) {
    for (const extensions of [EXT_STATE, 0n]) {
      const gate = Promise.resolve("the gate /g refuses it (exit code 1): no space");
      const kept = await outdone(gate, trust, metadata, extensions);
      kept.refused(
        /has data that this copy lacks.*\(Synchronization refused on this node: the gate \/g.*no space\)\..*there: hastctl role primary r0.*--force primary r0$/,
      );
      expect.equal(kept.world.host.resyncAsked, 1);
      expect.equal(kept.engine.core.connected, false);
    }
  }
});

test("S-2: nor one whose gate still thinks when its time is over, or when the other node has lost patience", async () => {
  for (const [trust, metadata] of DOUBTS) {
    const said = Promise.withResolvers<string | null>();
    const waiting = await outdone(said.promise, trust, metadata);
    await waiting.world.clock.pass(4_900);
    expect.equal(waiting.admitted, null);
    await waiting.world.clock.pass(200);
    waiting.refused(/no answer of this node's gate within 5 s/);
    said.resolve(null);
    await waiting.world.clock.pass(1_000);
    expect.equal(waiting.engine.core.connected, false, "nothing is merged any more");

    const alone = await outdone(new Promise(() => undefined), trust, metadata);
    alone.peer?.leave();
    await alone.world.events.settle();
    alone.refused(/has data that this copy lacks.*the peer closed the connection/);
  }
});

test("S-2: with the gate's yes in time the newer data is served, and nothing older before", async () => {
  const said = Promise.withResolvers<string | null>();
  const waiting = await outdone(said.promise, "known");
  await waiting.world.clock.pass(3_000);
  expect.equal(waiting.admitted, null);
  said.resolve(null);
  await waiting.world.events.settle();
  expect.equal(waiting.admitted, true);
  expect.ok(waiting.engine.core.connected);
  await waiting.serves();
});

test("S-2: one that knows its copy, too, is refused by a node that holds data of its own", async () => {
  const own = { localcnt: 1n } as const;
  for (const [errmsg, wanted] of [
    [SPLIT_BRAIN_ERRMSG, /Split-brain.*Decide.*--force primary r0$/],
    ["Resource unique ID mismatch (primary=1, secondary=2).", /mismatch.*--force primary r0$/],
    [
      "Modification counters ran backwards (primary=1/0, secondary=0/0): metadata of one node was lost or rolled back.",
      /ran backwards.*--force primary r0$/,
    ],
  ] as const) {
    const late = await Aspirant.start("known", own, { s2: handshakeRefusal(errmsg) });
    late.refused(wanted);
    const forced = await Aspirant.start("forced", own, { s2: handshakeRefusal(errmsg) });
    await forced.serves();
  }
  // It has served with the same data already: it is parted from the other's, and goes on (S-2, S-11).
  const served = { localcnt: 1n, prevrole: "primary" } as const;
  const again = await Aspirant.start("known", served, {
    s2: handshakeRefusal(SPLIT_BRAIN_ERRMSG),
  });
  await again.serves();
  // As a FreeBSD node that copies one disk over the other in such a case.
  const back = { localcnt: 0n, remotecnt: 5n } as const;
  const freebsd = await Aspirant.start("known", own, back);
  freebsd.refused(/counters ran backwards.*--force primary r0$/);
});

test("S-2: what another node says that does not speak of its data stops nobody who knows its copy", async () => {
  for (const errmsg of [
    "Remote node was disconnected by an operator.",
    "Resource not configured.",
    "No access to the resource.",
  ]) {
    await (await Aspirant.start("known", {}, s1Refusal(errmsg, false))).serves();
  }
  const theirs = handshakeRefusal("Synchronization refused on the other node: no space");
  await (await Aspirant.start("known", { localcnt: 1n }, { s2: theirs })).serves();
});

test("S-2: a copy that has been in step is not new, even if it never was on record as whole", async () => {
  for (const traces of [{ synced: "written" }, { prevrole: "secondary" }] as const) {
    const metadata = { state: "new", prevrole: "primary", ...traces } as const;
    const aspirant = await Aspirant.start("unknown", metadata, ACTS_AS_INIT);
    aspirant.refused(/may have gone on without it/);
  }
});

test("BD-15: a copy that is known to lack something is not promoted, even by a hastd that knows it", async () => {
  for (const state of ["outdated", "inconsistent"] as const) {
    const aspirant = await Aspirant.start("known", { state }, {});
    const what = state === "outdated" ? /is outdated/ : /mix of old and new blocks/;
    aspirant.refused(what);
    aspirant.refused(/hastctl role primary r0;.*hastctl role secondary r0.*--force primary r0$/);
  }
});

test("S-6: a primary that was being filled is not called complete where its peer does not answer", async () => {
  const metadata = { state: "inconsistent", prevrole: "primary" } as const;
  const aspirant = await Aspirant.start("unknown", metadata, "connection refused");
  aspirant.refused(/copy is inconsistent.*lost for good.*hastctl role --force primary r0$/);
});

test("a new copy is promoted if nobody answers, but not over a node that holds data", async () => {
  const fresh = { resuid: 0n, state: "new", prevrole: "init" } as const;
  await (await Aspirant.start("unknown", fresh, "connection refused")).serves();
  await (await Aspirant.start("unknown", fresh, ACTS_AS_INIT)).serves();
  await (await Aspirant.start("unknown", fresh, { virgin: true })).serves();
  const mismatch = "Resource unique ID mismatch (primary=1, secondary=2).";
  const late = await Aspirant.start("unknown", fresh, { s2: handshakeRefusal(mismatch) });
  late.refused(
    /this copy is new, and the other node holds data.*here: hastctl role secondary r0; then on the other node: hastctl role primary r0/,
  );
  const parted = s1Refusal("Remote node was disconnected by an operator.", false);
  const unheard = await Aspirant.start("unknown", fresh, parted);
  unheard.refused(
    /this copy is new, and the other node, which may hold data.*there: hastctl connect r0;/,
  );
  // An id of its own would keep it from ever joining the other node.
  expect.equal(late.metadata.resuid, 0n);
  expect.equal(late.metadata.state, "new");
});

test("S-18: a copy that was written before the two ever met says so after a promotion that was refused, too", async () => {
  const written = { resuid: 0n, localcnt: 1n, state: "new" } as const;
  const refusal = { s2: handshakeRefusal(SPLIT_BRAIN_ERRMSG) };
  const aspirant = await Aspirant.start("unknown", written, refusal);
  aspirant.refused(/Split-brain/);
  expect.deepEqual([aspirant.metadata.resuid, aspirant.metadata.localcnt], [0n, 1n]);
});

test("--force: served whatever its metadata say, with a mark that a synchronization clears", async () => {
  const metadata = { state: "inconsistent", localcnt: 0n } as const;
  const aspirant = await Aspirant.start("forced", metadata, "connection refused");
  const { forced, state } = aspirant.metadata;
  expect.deepEqual([forced?.state, state], ["inconsistent", "consistent"]);
  expect.equal(forced?.at, Math.floor(aspirant.world.clock.wallTime() / 1000));
  expect.ok(
    aspirant.world.host.warnings.some((text) => /Promoted by force.*inconsistent/.test(text)),
  );
  expect.equal(aspirant.world.host.copies.at(-1)?.forced?.state, "inconsistent");
  await aspirant.serves();
  expect.equal(aspirant.metadata.forced?.state, "inconsistent", "writing does not clear it");

  const synced = await Aspirant.start("forced", metadata, {});
  await synced.serves();
  await synced.world.clock.pass(20_000);
  expect.equal(synced.metadata.forced, undefined);
  expect.equal(synced.metadata.state, "uptodate");
  expect.equal(synced.world.host.copies.at(-1)?.forced, null);
});

test("--force leaves no mark where it overrules nothing, and nobody could take it back", async () => {
  const remote = "none";
  const whole = await Aspirant.start("forced", { state: "consistent" }, "?", { remote });
  await whole.serves();
  expect.equal(whole.metadata.forced, undefined);
  const old = await Aspirant.start("forced", { state: "outdated" }, "?", { remote });
  await old.serves();
  expect.equal(old.metadata.forced?.state, "outdated");
});

test("--force: a copy that is a mix of old and new takes an id of its own, so that nothing overwrites the other", async () => {
  for (const [state, kept] of [
    ["inconsistent", false],
    ["outdated", true],
    ["consistent", true],
  ] as const) {
    const forced = await Aspirant.start("forced", { state, resuid: 7n }, "connection refused");
    await forced.serves();
    expect.equal(forced.metadata.resuid === 7n, kept, state);
    expect.notEqual(forced.metadata.resuid, 0n);
  }
});

/** A second answer that is none. */
function handshakeRefusal(errmsg: string): Uint8Array {
  return encodeS2(
    2,
    {
      kind: "refused",
      datasize: 1024 * 1024 - LOCALOFF,
      extentsize: 65536,
      localcnt: 1n,
      remotecnt: 0n,
      errmsg,
      wait: false,
      resuid: null,
      remarks: null,
    },
    null,
  );
}

test("a primary that is being stopped takes no orders: its last record is on its way", async () => {
  const led = await Led.start({
    peer: { extensions: EXT_STATE | EXT_WHOLE },
    settings: { metaflush: false },
  });
  await led.nbd.done({ type: NBD_WRITE, offset: 0, payload: bytes(512, 1) });
  led.engine.stop(10_000);
  const said: Resolution[] = [];
  for (let turns = 0; led.world.host.exit === null; turns++) {
    expect.ok(turns < 1000);
    led.engine.fullSync((resolution) => said.push(resolution));
    led.engine.invalidate(false, (resolution) => said.push(resolution));
    await led.world.clock.pass(1);
  }
  expect.equal(led.world.host.exit.code, 0);
  expect.ok(said.every((each) => each.kind === "failed" && /being stopped/.test(each.reason)));
});

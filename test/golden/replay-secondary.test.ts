// SPDX-License-Identifier: BSD-2-Clause
/**
 * Our secondary takes the place of the captured one: it hears what FreeBSD's primary said, in the
 * captured order, and has to say what FreeBSD's secondary said, to the byte. What differs on purpose
 * is in docs/compatibility.md, "Compared with the recordings", by the numbers used here.
 */
import { strict as expect } from "node:assert";
import { basename, dirname } from "node:path";
import { test } from "node:test";
import { SecondaryEngine } from "../../src/engine/secondary-engine.ts";
import type { PeerHello } from "../../src/engine/worker-messages.ts";
import { decodeMetadata, METADATA_SIZE } from "../../src/metadata/block.ts";
import { COMPRESSION_LZF } from "../../src/wire/payload.ts";
import { CMD_DELETE, CMD_KEEPALIVE, CMD_READ, CMD_WRITE } from "../../src/wire/request.ts";
import type { PretendDisk } from "../pretend/disk.ts";
import { type FarEnd, pretendConnection } from "../pretend/net.ts";
import { sameBytes } from "../pretend/same-bytes.ts";
import { createComponent, dirtyArena, RecordingHost, World } from "../pretend/world.ts";
import {
  type CapturedReply,
  type Conversation,
  conversation,
  type Pair,
  probe,
  repliesOf,
} from "./conversation.ts";
import { goldenPaths, zeroStreamPadding } from "./vectors.ts";

const ARENA = dirtyArena();
/** What lies on the disk where nothing has been written. */
const OLD = 0x5a;
const MAP_OFFSET = 4096;

function helloOf({ version, hello }: Pair): PeerHello {
  const { virgin, resuid, localcnt, remotecnt } = hello;
  return {
    version,
    extensions: 0n,
    virgin,
    resuid,
    localcnt,
    remotecnt,
    remarks: null,
    life: null,
    left: null,
    whole: false,
    invalidate: false,
  };
}

/** The id of a secondary that gave this answer. */
function resuidOf({ hello, answer }: Pair): bigint {
  if (answer.kind === "refused") {
    const named = /secondary=(\d+)/.exec(answer.errmsg);
    return named === null ? hello.resuid : BigInt(named[1]!);
  }
  return answer.virgin ? 0n : hello.resuid;
}

/** The bytes that READs of this conversation find, as far as no WRITE before them brings them. */
function readable(pair: Pair): { readonly offset: number; readonly data: Uint8Array }[] {
  const found: { offset: number; data: Uint8Array }[] = [];
  const answers = [...pair.replies];
  for (const { header } of pair.requests) {
    if (header.cmd !== CMD_READ) continue;
    const index = answers.findIndex((each) => each.header.seqLo === header.seqLo);
    const [reply] = answers.splice(index, 1);
    if (reply!.header.error !== 0) continue;
    found.push({ offset: header.offset, data: reply!.unpack(header.length) });
  }
  return found;
}

/** A component as the captured secondary's was before this answer. */
function prepareComponent(world: World, pair: Pair): number {
  const { answer, map } = pair;
  const { disk } = world;
  const { localoff } = createComponent(disk, {
    datasize: answer.datasize,
    extentsize: answer.extentsize,
    resuid: resuidOf(pair),
    localcnt: answer.localcnt,
    remotecnt: answer.remotecnt,
  });
  if (map !== null && answer.kind === "accepted" && !answer.virgin) disk.poke(MAP_OFFSET, map);
  disk.poke(localoff, new Uint8Array(answer.datasize).fill(OLD));
  for (const { offset, data } of readable(pair)) disk.poke(localoff + offset, data);
  return localoff;
}

interface Served {
  readonly engine: SecondaryEngine;
  readonly host: RecordingHost;
  readonly a: FarEnd;
  readonly b: FarEnd;
}

async function serve(world: World, hello: PeerHello): Promise<Served> {
  const a = pretendConnection(world.events, "tcp://primary (a)");
  const b = pretendConnection(world.events, "tcp://primary (b)");
  const host = new RecordingHost();
  const engine = await world.until(
    SecondaryEngine.open(
      world.settings,
      hello,
      world.disk,
      a.near,
      b.near,
      world.environment,
      host,
    ),
  );
  await world.until(engine.start());
  return { engine, host, a, b };
}

/** The data area after those of the captured requests that were answered with success. */
function expectedData(
  before: Uint8Array,
  pair: Pair,
  replies: readonly CapturedReply[] = pair.replies,
): Uint8Array {
  const data = before.slice();
  for (const { header, data: written } of pair.requests) {
    const answers = replies.filter((reply) => reply.header.seqLo === header.seqLo);
    if (answers.some((reply) => reply.header.error !== 0)) continue;
    if (header.cmd === CMD_WRITE) data.set(written, header.offset);
    // D14: ours makes what was deleted read as zeroes; FreeBSD leaves it to the disk.
    if (header.cmd === CMD_DELETE) data.fill(0, header.offset, header.offset + header.length);
  }
  return data;
}

/** D7: LZF leaves the encoder its choices. Everything else is compared to the byte. */
function expectReplies(ours: Uint8Array, pair: Pair): void {
  // D13: a write that waits for its mark may be overtaken by what does not overlap it.
  const left = repliesOf(ours);
  const mine: CapturedReply[] = [];
  for (const { header } of pair.replies) {
    const at = left.findIndex(
      (my) => my.header.seqLo === header.seqLo && my.header.received === header.received,
    );
    if (at >= 0) mine.push(...left.splice(at, 1));
  }
  mine.push(...left);
  if (!pair.replies.some(({ header }) => header.compression === COMPRESSION_LZF)) {
    sameBytes(Buffer.concat(mine.map(({ bytes }) => bytes)), zeroStreamPadding(pair.replyBytes));
    return;
  }
  expect.equal(mine.length, pair.replies.length);
  const reads = pair.requests.filter(({ header }) => header.cmd === CMD_READ);
  for (const [index, { header, unpack, bytes }] of pair.replies.entries()) {
    const my: CapturedReply = mine[index]!;
    if (header.compression !== COMPRESSION_LZF) {
      sameBytes(my.bytes, zeroStreamPadding(bytes));
      continue;
    }
    const at = reads.findIndex((read) => read.header.seqLo === header.seqLo);
    const [{ header: read }] = reads.splice(at, 1) as [(typeof reads)[0]];
    expect.equal(my.header.seqLo, header.seqLo);
    expect.equal(my.header.compression, COMPRESSION_LZF);
    expect.equal(my.header.checksum, header.checksum);
    expect.equal(my.header.received, header.received);
    sameBytes(my.unpack(read.length), unpack(read.length));
  }
}

function mapIsEmpty(disk: PretendDisk, mapSize: number): boolean {
  return disk.peek(MAP_OFFSET, mapSize).every((byte) => byte === 0);
}

async function replayPair(world: World, pair: Pair, chunk: (n: number) => number): Promise<void> {
  const { answer, hello } = pair;
  const localoff = decodeMetadata(world.disk.peek(0, METADATA_SIZE), "r0").localoff;
  const before = world.disk.peek(localoff, answer.datasize);
  const { engine, host, a, b } = await serve(world, helloOf(pair));
  a.chunk = chunk;
  sameBytes(a.takeHeard(), zeroStreamPadding(pair.s2));
  if (answer.kind === "refused") {
    expect.deepEqual(host.exit?.code, 78);
    expect.equal(a.closedByPeer, true);
    expect.equal(host.events.includes("split-brain"), /Split-brain/.test(answer.errmsg));
    sameBytes(world.disk.peek(localoff, answer.datasize), before);
    return;
  }
  expect.deepEqual(host.events, ["connect"]);

  let closed = false;
  for (const step of pair.steps) {
    if (closed) break;
    if (step === "closed by secondary") {
      engine.stop();
      closed = true;
    } else if (step === "closed by primary") {
      a.end();
      b.end();
      closed = true;
    } else {
      a.send(step);
    }
    await world.events.settle();
  }
  expect.ok(closed, "the capture does not say how it ended");
  expect.equal(host.exit?.code, pair.steps.includes("closed by secondary") ? 0 : 75);
  expect.equal(a.closedByPeer, true);
  expect.equal(b.closedByPeer, true);
  expect.equal(world.disk.closed, true);

  expectReplies(b.takeHeard(), pair);
  sameBytes(world.disk.peek(localoff, answer.datasize), expectedData(before, pair));
  const after = decodeMetadata(world.disk.peek(0, METADATA_SIZE), "r0");
  expect.equal(after.resuid, hello.resuid);
  expect.equal(after.localcnt, answer.localcnt, "a secondary's counters stand");
  expect.equal(after.remotecnt, answer.remotecnt, "a secondary's counters stand");
  if (pair.requests.some(({ header }) => header.cmd <= 4)) {
    expect.ok(mapIsEmpty(world.disk, localoff - MAP_OFFSET), "the first request clears the map");
  }
}

/** Picks among waiting events; the same each time. */
function inAnotherOrder(): (count: number) => number {
  let state = 1;
  return (count) => {
    state = (state * 48271) % 2147483647;
    return state % count;
  };
}

/** The worlds in which every conversation takes place. */
const MANNERS: readonly {
  readonly name: string;
  readonly completion: "inside" | "later";
  readonly chunk: (available: number) => number;
  readonly pick?: (count: number) => number;
}[] = [
  { name: "disk answers at once, bytes as captured", completion: "inside", chunk: (n) => n },
  { name: "disk answers later, bytes one by one", completion: "later", chunk: () => 1 },
  {
    name: "disk answers later, bytes in sevens, events in another order",
    completion: "later",
    chunk: () => 7,
    pick: inAnotherOrder(),
  },
];

async function replay(captured: Conversation, manner: (typeof MANNERS)[0]): Promise<void> {
  const first = captured.pairs[0]!;
  const world = new World({
    settings: { checksum: captured.checksum, compression: captured.compression },
    mediaSize: first.answer.datasize + 4608,
    completion: manner.completion,
    arena: ARENA,
    ...(manner.pick === undefined ? {} : { pick: manner.pick }),
  });
  prepareComponent(world, first);
  for (const [index, pair] of captured.pairs.entries()) {
    if (index > 0) world.disk.abandon(ARENA); // the next worker opens the same component
    await replayPair(world, pair, manner.chunk);
  }
}

const CONVERSATIONS = goldenPaths("wire/*/decoded.json").map((path) =>
  conversation(basename(dirname(path))),
);

test("most captured conversations get as far as a secondary's worker", () => {
  // Four are refused by the daemon, in the first answer.
  expect.equal(CONVERSATIONS.length, 28);
  expect.equal(CONVERSATIONS.filter(({ pairs }) => pairs.length > 0).length, 24);
});

for (const captured of CONVERSATIONS) {
  if (captured.pairs.length === 0) continue;
  for (const manner of MANNERS) {
    test(`${captured.directory}: our secondary answers as the captured one (${manner.name})`, () =>
      replay(captured, manner));
  }
}

/**
 * probes/manual-errors: a hand-made client's requests, good and bad.
 *
 * D12: a READ of more than 128 KiB is served. D13: replies to requests that do not overlap may come in
 * another order, so they are compared request by request.
 */
test("probes/manual-errors: our secondary answers each request as the captured one", async () => {
  const pair = probe("manual-errors");
  const world = new World({ mediaSize: pair.answer.datasize + 4608, arena: ARENA });
  const localoff = prepareComponent(world, pair);
  const before = world.disk.peek(localoff, pair.answer.datasize);
  const { a, b, host } = await serve(world, helloOf(pair));
  sameBytes(a.takeHeard(), zeroStreamPadding(pair.s2));
  a.send(...pair.requests.map(({ bytes }) => bytes));
  await world.events.settle();

  const mine = repliesOf(b.takeHeard());
  for (const { header } of pair.requests) {
    const length = Math.max(0, header.length);
    const captured = pair.replies.filter((reply) => reply.header.seqLo === header.seqLo);
    const ours = mine.filter((reply) => reply.header.seqLo === header.seqLo);
    if (header.cmd === CMD_KEEPALIVE) continue;
    expect.ok(captured.length > 0);
    if (header.cmd === CMD_READ && header.length > 131072 && header.length % 512 === 0) {
      expect.deepEqual(
        captured.map((reply) => reply.header.error),
        [22],
      );
      expect.equal(ours.length, 1);
      expect.equal(ours[0]!.header.error, 0);
      expect.deepEqual(
        ours[0]!.unpack(length),
        before.slice(header.offset, header.offset + length),
      );
      continue;
    }
    expect.deepEqual(
      ours.map((reply) => reply.bytes),
      captured.map((reply) => zeroStreamPadding(reply.bytes)),
      `request ${header.seqLo}`,
    );
  }
  expect.equal(mine.length, pair.replies.length);
  expect.deepEqual(
    world.disk.peek(localoff, pair.answer.datasize),
    expectedData(before, pair, mine),
  );
  expect.equal(host.exit, null, "the link lives on");
});

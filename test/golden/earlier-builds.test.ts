// SPDX-License-Identifier: BSD-2-Clause
/**
 * Disks and conversations of earlier builds of ours (earlier/README.md): today's build reads them, and
 * writes what they can read. docs/compatibility.md, "Between versions of hast", says so to the operator.
 */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import { crc32 } from "node:zlib";
import { SecondaryEngine } from "../../src/engine/secondary-engine.ts";
import type { PeerHello } from "../../src/engine/worker-messages.ts";
import { encodeMetadata, METADATA_SIZE, type Metadata } from "../../src/metadata/block.ts";
import { findMetadata } from "../../src/metadata/copies.ts";
import { EXT_STATE, EXT_ZERO, EXTENSIONS } from "../../src/wire/extensions.ts";
import { decodeHello, decodeS1, decodeS2, type P2 } from "../../src/wire/handshake.ts";
import { decodeNv } from "../../src/wire/nv.ts";
import { pretendConnection } from "../pretend/net.ts";
import { sameBytes } from "../pretend/same-bytes.ts";
import { dirtyArena, World } from "../pretend/world.ts";
import { repliesOf } from "./conversation.ts";
import { golden, messagesOf } from "./vectors.ts";

const MEDIA = { mediaSize: 8 * 1024 * 1024, sectorSize: 512 };
const LOCALOFF = 1024 * 1024;
const DATASIZE = MEDIA.mediaSize - LOCALOFF;
const RESUID = 10681406477387793415n;
const ARENA = dirtyArena();

/** What the build itself said of each disk: localcnt, remotecnt, prevrole, state. */
const DISKS: readonly (readonly [string, bigint, bigint, string, string])[] = [
  ["1-created-alpha", 0n, 0n, "init", "new"],
  ["1-created-beta", 0n, 0n, "init", "new"],
  ["2-paired-alpha", 1n, 0n, "primary", "uptodate"],
  ["2-paired-beta", 0n, 1n, "secondary", "uptodate"],
  ["3-alone-alpha", 2n, 0n, "primary", "uptodate"],
  ["3-alone-beta", 0n, 1n, "secondary", "uptodate"],
  ["4-resynced-alpha", 2n, 0n, "primary", "uptodate"],
  ["4-resynced-beta", 0n, 2n, "secondary", "uptodate"],
  ["5-stopped-alpha", 2n, 0n, "primary", "uptodate"],
  ["5-stopped-beta", 0n, 2n, "secondary", "uptodate"],
];

function earlier(name: string): Uint8Array {
  return golden(`earlier/4eeb8591/${name}.bin`);
}

/** A disk that begins as recorded. */
function reader(beginning: Uint8Array) {
  return async (offset: number, length: number): Promise<Uint8Array> => {
    const bytes = new Uint8Array(length);
    bytes.set(beginning.subarray(offset, offset + length));
    return bytes;
  };
}

for (const [name, localcnt, remotecnt, prevrole, state] of DISKS) {
  test(`${name}: a disk of an earlier build is read, and its second copy will be made`, async () => {
    const { metadata, damage, rewrite } = await findMetadata(
      "shared",
      MEDIA,
      reader(earlier(name)),
    );
    expect.equal(damage, null);
    expect.equal(rewrite, true, "that build kept one copy");
    const { sequence, ...rest } = metadata;
    expect.ok(sequence !== null && sequence > 0n);
    expect.deepEqual(rest, {
      resource: "shared",
      datasize: DATASIZE,
      extentsize: 65536,
      keepdirty: 64,
      localoff: LOCALOFF,
      resuid: state === "new" ? 0n : RESUID,
      localcnt,
      remotecnt,
      prevrole,
      state,
      synced: null,
      aloneSince: null,
    });
  });
}

/** The rules by which the build at 4eeb8591 read a block: what it knew, and what it let pass. */
function readAsEarlierBuild(block: Uint8Array): Record<string, unknown> {
  const list = decodeNv(block);
  const crc = list.entries.find(({ name }) => name === "crc");
  expect.equal(crc32(block.subarray(0, crc!.start)), list.u32("crc"));
  const state = list.string("state");
  const states = ["new", "uptodate", "consistent", "outdated", "inconsistent"];
  expect.ok(state !== null && states.includes(state), `state ${state}`);
  return {
    resource: list.string("resource"),
    datasize: Number(list.u64("datasize")),
    extentsize: list.u32("extentsize"),
    keepdirty: list.u32("keepdirty"),
    localoff: Number(list.u64("offset")),
    resuid: list.u64("resuid"),
    localcnt: list.u64("localcnt"),
    remotecnt: list.u64("remotecnt"),
    prevrole: list.string("prevrole"),
    state,
    sequence: list.u64("sequence"),
  };
}

test("an earlier build reads what today's writes, whatever else it says", () => {
  const known = {
    resource: "shared",
    datasize: DATASIZE,
    extentsize: 65536,
    keepdirty: 64,
    localoff: LOCALOFF,
    resuid: RESUID,
    localcnt: 3n,
    remotecnt: 4n,
    prevrole: "primary",
    sequence: 18n,
  } as const;
  for (const state of ["new", "uptodate", "consistent", "outdated", "inconsistent"] as const) {
    const everything: Metadata = {
      ...known,
      state,
      synced: "filling",
      aloneSince: 1_795_000_000_000,
      forced: { state: "outdated", at: 1_795_000_000 },
      unflushed: true,
    };
    expect.deepEqual(readAsEarlierBuild(encodeMetadata(everything)), { ...known, state });
  }
});

test("an earlier build's own disks are what its rules say", () => {
  for (const [name, localcnt, remotecnt, prevrole, state] of DISKS) {
    const read = readAsEarlierBuild(earlier(name).subarray(0, METADATA_SIZE));
    const { localcnt: mine, remotecnt: theirs, prevrole: role, state: worth } = read;
    expect.deepEqual([mine, theirs, role, worth], [localcnt, remotecnt, prevrole, state]);
  }
});

test("the handshakes of an earlier build are understood, and only what it knew is agreed upon", () => {
  for (const [first, virgin, localcnt] of [
    [1, true, 0n],
    [5, false, 2n],
  ] as const) {
    const [p1] = messagesOf(earlier(`conn${first}.c2s`));
    const hello = decodeHello(p1!.nv);
    expect.equal(hello.kind === "p1" && hello.extensions & EXTENSIONS, EXT_STATE | EXT_ZERO);
    const answers = messagesOf(earlier(`conn${first}.s2c`));
    const s1 = decodeS1(answers[0]!.nv);
    expect.equal(s1.kind === "accepted" && s1.extensions & EXTENSIONS, EXT_STATE | EXT_ZERO);
    const p2 = secondHello(first);
    expect.deepEqual(
      [p2.virgin, p2.resuid, p2.localcnt, p2.remotecnt, p2.remarks, p2.life],
      [virgin, RESUID, localcnt, 0n, null, null],
    );
    const { answer } = decodeS2(answers[1]!.nv);
    expect.ok(answer.kind === "accepted");
    expect.deepEqual(
      [answer.datasize, answer.extentsize, answer.virgin, answer.syncsrc, answer.synced],
      [DATASIZE, 65536, virgin, "primary", null],
    );
  }
});

function secondHello(first: number): P2 {
  const [message] = messagesOf(earlier(`conn${first + 1}.c2s`));
  const hello = decodeHello(message!.nv);
  expect.ok(hello.kind === "p2");
  return hello;
}

for (const { first, disk, offset, byte } of [
  { first: 1, disk: "1-created-beta", offset: 0, byte: 0x11 },
  { first: 5, disk: "3-alone-beta", offset: 1024 * 1024, byte: 0x22 },
]) {
  test(`connections ${first} and ${first + 1}: an earlier primary finds today's secondary as it found its own`, async () => {
    const world = new World({
      settings: { resource: "shared", compression: "hole" },
      mediaSize: MEDIA.mediaSize,
      arena: ARENA,
    });
    world.disk.poke(0, earlier(disk));
    const { virgin, resuid, localcnt, remotecnt } = secondHello(first);
    const hello: PeerHello = {
      version: 2,
      extensions: EXT_STATE | EXT_ZERO,
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
    const a = pretendConnection(world.events, "tcp://primary (a)");
    const b = pretendConnection(world.events, "tcp://primary (b)");
    const engine = await world.until(
      SecondaryEngine.open(
        world.settings,
        hello,
        world.disk,
        a.near,
        b.near,
        world.environment,
        world.host,
      ),
    );
    await world.until(engine.start());
    // S1 is the main daemon's.
    const said = earlier(`conn${first}.s2c`);
    const s1Size = 5 + messagesOf(said)[0]!.nv.length;
    expect.equal(decodeS2(messagesOf(a.takeHeard())[0]!.nv).answer.kind, "accepted");
    expect.equal(decodeS2(messagesOf(said.subarray(s1Size))[0]!.nv).answer.kind, "accepted");

    const stream = earlier(`conn${first}.c2s`);
    a.send(stream.slice(5 + messagesOf(stream)[0]!.nv.length));
    await world.events.settle();
    expect.equal(world.host.exit?.code, undefined);
    expect.deepEqual(
      sorted(repliesOf(b.takeHeard())),
      sorted(repliesOf(earlier(`conn${first + 1}.s2c`))),
    );
    sameBytes(
      world.disk.peek(LOCALOFF + offset, 65536),
      new Uint8Array(65536).fill(byte),
      "what the primary wrote",
    );
    // Its last word was that both are in step.
    const after = decodeNv(world.disk.peek(0, METADATA_SIZE));
    expect.equal(after.string("state"), "uptodate");
    expect.equal(after.u64("remotecnt"), first === 1 ? 1n : 2n);
    a.end();
    b.end();
    await world.events.settle();
    expect.equal(world.host.exit?.code, 75);
  });
}

/** Replies overtake each other where requests do not overlap. */
function sorted(replies: ReturnType<typeof repliesOf>): string[] {
  return replies.map(({ bytes }) => Buffer.from(bytes).toString("hex")).toSorted();
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * Every captured conversation between two nodes: decoded, held against the decoding made independently, and
 * put together again to the byte, as the sender would have.
 */
import { strict as expect } from "node:assert";
import { dirname } from "node:path";
import { test } from "node:test";
import {
  decodeHello,
  decodeS1,
  decodeS2,
  encodeP1,
  encodeP2,
  encodeS1,
  encodeS2,
  type P1,
  type P2,
  type S2,
} from "../../src/wire/handshake.ts";
import { decodeNv } from "../../src/wire/nv.ts";
import {
  CHECKSUM_NONE,
  COMPRESSION_LZF,
  COMPRESSION_NONE,
  decodePayload,
  OutgoingPayload,
  PayloadEncoder,
  type PayloadHeader,
} from "../../src/wire/payload.ts";
import { decodeReply, encodeReply, REPLY_HEADER_MAX, ReplyHeader } from "../../src/wire/reply.ts";
import {
  CMD_KEEPALIVE,
  CMD_READ,
  CMD_WRITE,
  decodeRequest,
  encodeRequest,
  REQUEST_HEADER_MAX,
  RequestHeader,
} from "../../src/wire/request.ts";
import {
  type DecodedMessage,
  type Field,
  field,
  golden,
  goldenExists,
  goldenJson,
  goldenPaths,
  type Message,
  messagesOf,
  nodeHashes,
  zeroNamePadding,
} from "./vectors.ts";

/** The message as captured, the names' padding zero. */
function asCaptured(message: Message): Uint8Array {
  const nv = zeroNamePadding(message.nv);
  const bytes = new Uint8Array(5 + nv.length + message.payload.length);
  bytes[0] = message.version;
  new DataView(bytes.buffer).setUint32(1, nv.length, true);
  bytes.set(nv, 5);
  bytes.set(message.payload, 5 + nv.length);
  return bytes;
}

function big(fields: readonly Field[], name: string): bigint {
  return BigInt((field(fields, name) ?? 0) as number | bigint);
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

function expectHello(message: Message, fields: readonly Field[]): P1 | P2 {
  const hello = decodeHello(message.nv);
  expect.equal(hello.resource, field(fields, "resource"));
  const token = field(fields, "token");
  expect.equal(hello.kind, token === undefined ? "p1" : "p2");
  if (hello.kind === "p1") {
    expect.equal(hello.version, field(fields, "version") ?? 0);
    expect.equal(hello.extensions, 0n);
    return hello;
  }
  expect.equal(hex(hello.token), token);
  expect.equal(hello.virgin, field(fields, "virgin") !== undefined);
  for (const name of ["resuid", "localcnt", "remotecnt"] as const) {
    expect.equal(hello[name], big(fields, name));
  }
  return hello;
}

/** Ours says version 1 in the first message of every connection; the original only of a worker's first (BD-35). */
function expectHelloEncoded(message: Message, hello: P1 | P2): void {
  const captured = asCaptured(message);
  if (hello.kind === "p1") captured[0] = 1;
  const ours = hello.kind === "p1" ? encodeP1(hello) : encodeP2(message.version, hello);
  expect.deepEqual(ours, captured);
}

function expectS1(message: Message, fields: readonly Field[]): void {
  const answer = decodeS1(message.nv);
  if (answer.kind === "refused") {
    expect.equal(answer.errmsg, field(fields, "errmsg"));
    expect.equal(answer.wait, field(fields, "wait") !== undefined);
  } else {
    expect.equal(answer.version, field(fields, "version"));
    expect.equal(hex(answer.token), field(fields, "token"));
    expect.equal(answer.extensions, 0n);
  }
  expect.deepEqual(encodeS1(answer), asCaptured(message));
}

function expectS2(message: Message, fields: readonly Field[]): S2 {
  const { answer, payload } = decodeS2(message.nv);
  expect.equal(answer.datasize, field(fields, "datasize"));
  expect.equal(answer.extentsize, field(fields, "extentsize"));
  expect.equal(answer.localcnt, big(fields, "localcnt"));
  expect.equal(answer.remotecnt, big(fields, "remotecnt"));
  expect.equal(payload.size, message.payload.length);
  if (answer.kind === "refused") {
    expect.equal(answer.errmsg, field(fields, "errmsg"));
    expect.deepEqual(encodeS2(message.version, answer, null), asCaptured(message));
    return answer;
  }
  expect.equal(answer.virgin, field(fields, "virgin") !== undefined);
  expect.equal(answer.syncsrc, field(fields, "syncsrc") === 1 ? "primary" : "secondary");
  expect.equal(answer.mapsize, field(fields, "mapsize"));
  const outgoing = payload.size === 0 ? null : sameAgain(payload, message.payload, answer.mapsize);
  expect.deepEqual(encodeS2(message.version, answer, outgoing), asCaptured(message));
  return answer;
}

/** Verifies and unpacks a payload, and packs it again; LZF streams may differ, so those are sent as captured. */
function sameAgain(header: PayloadHeader, sent: Uint8Array, length: number): OutgoingPayload {
  const out = new Uint8Array(length);
  const where = decodePayload(nodeHashes, header, sent, 0, length, out, 0);
  const data = where === "in-place" ? sent : out;

  const again = new OutgoingPayload();
  const encoder = new PayloadEncoder(nodeHashes);
  encoder.encode(header.compression, header.checksum, data, 0, length, again);
  expect.equal(again.compression, header.compression);
  expect.equal(again.checksum, header.checksum);
  if (header.compression !== COMPRESSION_LZF) {
    expect.deepEqual(again.bytes.subarray(again.at, again.at + again.size), sent);
    expect.deepEqual(again.hash.subarray(0, again.hashLength), usedHash(header));
    return again;
  }
  const unpacked = new Uint8Array(length);
  decodePayload(nodeHashes, again, again.bytes, again.at, length, unpacked, 0);
  expect.deepEqual(unpacked, out);
  again.size = sent.length;
  again.bytes = sent;
  again.at = 0;
  again.hash.set(header.hash);
  return again;
}

function usedHash(header: PayloadHeader): Uint8Array {
  return header.hash.subarray(0, header.hashLength);
}

function expectPayloadFields(header: PayloadHeader, fields: readonly Field[]): void {
  expect.equal(header.size, field(fields, "size") ?? 0);
  expect.equal(["none", "hole", "lzf"][header.compression], field(fields, "compression") ?? "none");
  expect.equal(["none", "crc32", "sha256"][header.checksum], field(fields, "checksum") ?? "none");
  expect.equal(hex(usedHash(header)), field(fields, "hash") ?? "");
}

/** @returns bytes asked for, if it is a READ: what the reply's payload must come to */
function expectRequest(stream: Uint8Array, message: Message, fields: readonly Field[]): number {
  const header = new RequestHeader();
  expect.ok(decodeRequest(stream, message.start, stream.length, header));
  expect.equal(header.version, message.version);
  expect.equal(header.cmd, field(fields, "cmd"));
  expect.equal(header.headerEnd, message.start + 5 + message.nv.length);
  expectPayloadFields(header, fields);
  const keepalive = header.cmd === CMD_KEEPALIVE;
  expect.equal(header.hasSeq, !keepalive);
  expect.equal((BigInt(header.seqHi) << 32n) | BigInt(header.seqLo), big(fields, "seq"));
  expect.equal(header.offset, field(fields, "offset") ?? -1);
  expect.equal(header.length, field(fields, "length") ?? -1);
  expect.equal(header.memsync, field(fields, "memsync") !== undefined);

  const isWrite = header.cmd === CMD_WRITE;
  expect.equal(message.payload.length > 0, isWrite);
  const payload = isWrite ? sameAgain(header, message.payload, header.length) : null;
  const out = new Uint8Array(3 + REQUEST_HEADER_MAX).fill(0xaa);
  const end = encodeRequest(
    out,
    3,
    message.version,
    header.cmd,
    header.seqHi,
    header.seqLo,
    keepalive ? 0 : header.offset,
    keepalive ? 0 : header.length,
    header.memsync,
    payload,
  );
  expect.equal(hex(out.subarray(3, end)) + hex(message.payload), hex(asCaptured(message)));
  return header.cmd === CMD_READ ? header.length : 0;
}

function expectReply(
  stream: Uint8Array,
  message: Message,
  fields: readonly Field[],
  readLength: number,
): void {
  const header = new ReplyHeader();
  expect.ok(decodeReply(stream, message.start, stream.length, header));
  expect.equal(header.version, message.version);
  expect.equal(header.headerEnd, message.start + 5 + message.nv.length);
  expect.ok(header.hasSeq);
  expect.equal((BigInt(header.seqHi) << 32n) | BigInt(header.seqLo), big(fields, "seq"));
  expect.equal(header.received, field(fields, "received") !== undefined);
  expect.equal(header.error, field(fields, "error") ?? 0);
  expectPayloadFields(header, fields);

  const payload = header.size === 0 ? null : sameAgain(header, message.payload, readLength);
  const out = new Uint8Array(3 + REPLY_HEADER_MAX).fill(0xaa);
  const { version } = message;
  const { seqHi, seqLo, received, error } = header;
  const end = encodeReply(out, 3, version, seqHi, seqLo, received, error, payload);
  expect.equal(hex(out.subarray(3, end)) + hex(message.payload), hex(asCaptured(message)));
}

/** Both directions of connections 1 and up, as one scenario has them. */
function expectConversation(
  directory: string,
  prefix: string,
  decoded: Readonly<Record<string, readonly DecodedMessage[]>>,
  helloIsOurs: boolean,
): number {
  let count = 0;
  // Lengths of READs by seq, oldest first: synchronisation uses seq 1 again and again.
  const reads = new Map<string, number[]>();
  for (let connection = 1; ; connection++) {
    const path = `${directory}/${prefix}conn${connection}`;
    if (!goldenExists(`${path}.c2s.bin`)) break;
    const said = golden(`${path}.c2s.bin`);
    const heard = golden(`${path}.s2c.bin`);
    const saidDecoded = decoded[`conn${connection}.c2s`]!;
    const heardDecoded = decoded[`conn${connection}.s2c`]!;
    const saidMessages = messagesOf(said);
    const heardMessages = messagesOf(heard);
    expect.equal(saidMessages.length, saidDecoded.length);
    expect.equal(heardMessages.length, heardDecoded.length);
    count += saidMessages.length + heardMessages.length;

    let hello: P1 | P2 | null = null;
    for (const [index, message] of saidMessages.entries()) {
      const { fields, offset, version } = saidDecoded[index]!;
      expect.equal(message.start, offset);
      expect.equal(message.version, version);
      expect.deepEqual(
        decodeNv(message.nv).entries.map((entry) => entry.name),
        fields.map((each) => each.name),
      );
      if (index === 0) {
        hello = expectHello(message, fields);
        if (helloIsOurs) expectHelloEncoded(message, hello);
        continue;
      }
      const readLength = expectRequest(said, message, fields);
      if (readLength > 0) {
        const seq = String(field(fields, "seq"));
        reads.set(seq, [...(reads.get(seq) ?? []), readLength]);
      }
    }
    for (const [index, message] of heardMessages.entries()) {
      const { fields, offset, version } = heardDecoded[index]!;
      expect.equal(message.start, offset);
      expect.equal(message.version, version);
      if (hello?.kind === "p1") {
        if (index === 0) expectS1(message, fields);
        else expectS2(message, fields);
        continue;
      }
      const hasData = message.payload.length > 0;
      const readLength = hasData ? reads.get(String(field(fields, "seq")))!.shift()! : 0;
      expectReply(heard, message, fields, readLength);
    }
  }
  return count;
}

const DIRECTORIES = goldenPaths("wire/*/decoded.json").map(dirname);

test("conversations of all kinds were captured", () => {
  expect.equal(DIRECTORIES.length, 28);
});

for (const directory of DIRECTORIES) {
  test(`${directory}: every message is read, and written to the byte`, () => {
    const decoded = goldenJson(`${directory}/decoded.json`);
    const count = expectConversation(directory, "", decoded, true);
    expect.ok(count >= 2);
  });
}

interface Probe {
  readonly probe: string;
  readonly connection_after?: string;
  readonly request?: readonly DecodedMessage[] | null;
  readonly answer?: readonly DecodedMessage[];
}

const PROBES: readonly Probe[] = goldenJson("probes/decoded.json");

test("every probe was captured", () => {
  expect.equal(PROBES.length, 12);
});

for (const probe of PROBES) {
  if (probe.request === undefined) {
    test(`probes/${probe.probe}: every message is read, and written to the byte`, () => {
      const decoded = probe as unknown as Record<string, readonly DecodedMessage[]>;
      const prefix = `${probe.probe}.`;
      expect.equal(expectConversation("probes", prefix, decoded, true), 12 + 2 + 1 + 13);
    });
    continue;
  }
  const { request, answer } = probe;
  test(`probes/${probe.probe}: the first message is judged as the original judges it`, () => {
    const said = golden(`probes/${probe.probe}.c2s.bin`);
    if (answer!.length > 0) {
      expectHello(messagesOf(said)[0]!, request![0]!.fields);
      const heard = messagesOf(golden(`probes/${probe.probe}.s2c.bin`));
      expect.equal(heard.length, 1);
      expectS1(heard[0]!, answer![0]!.fields);
      return;
    }
    if (request === null) {
      const header = new RequestHeader();
      expect.throws(() => decodeRequest(said, 0, said.length, header), { code: "frame-version" });
      return;
    }
    expect.throws(() => decodeHello(messagesOf(said)[0]!.nv), { code: "handshake-invalid" });
  });
}

test("a captured stream of requests decodes the same wherever it is cut", () => {
  const stream = golden("wire/02-io-memsync-sha256-lzf/conn1.c2s.bin");
  const messages = messagesOf(stream).slice(1);
  const whole = new RequestHeader();
  const part = new RequestHeader();
  for (const { start, nv } of messages) {
    expect.ok(decodeRequest(stream, start, stream.length, whole));
    const headerEnd = start + 5 + nv.length;
    for (let cut = start; cut < headerEnd; cut++) {
      expect.equal(decodeRequest(stream, start, cut, part), false);
    }
    expect.ok(decodeRequest(stream, start, headerEnd, part));
    expect.deepEqual(part, whole);
  }
});

test("a captured stream of replies decodes the same wherever it is cut", () => {
  const stream = golden("wire/08-local-read-failure-crc32-lzf/conn2.s2c.bin");
  const whole = new ReplyHeader();
  const part = new ReplyHeader();
  for (const { start, nv } of messagesOf(stream)) {
    expect.ok(decodeReply(stream, start, stream.length, whole));
    const headerEnd = start + 5 + nv.length;
    for (let cut = start; cut < headerEnd; cut++) {
      expect.equal(decodeReply(stream, start, cut, part), false);
    }
    expect.ok(decodeReply(stream, start, headerEnd, part));
    expect.deepEqual(part, whole);
  }
});

test("one changed byte of a captured payload is noticed by its checksum", () => {
  for (const name of ["crc32-none", "sha256-none"]) {
    const stream = golden(`wire/02-io-fullsync-${name}/conn1.c2s.bin`);
    const write = messagesOf(stream)[2]!;
    const header = new RequestHeader();
    decodeRequest(stream, write.start, stream.length, header);
    expect.notEqual(header.checksum, CHECKSUM_NONE);
    expect.equal(header.compression, COMPRESSION_NONE);
    stream[header.headerEnd + 77]! ^= 0x10;
    const out = new Uint8Array(header.length);
    expect.throws(
      () => decodePayload(nodeHashes, header, stream, header.headerEnd, header.length, out, 0),
      { code: "payload-checksum" },
    );
  }
});

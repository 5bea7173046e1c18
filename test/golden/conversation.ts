// SPDX-License-Identifier: BSD-2-Clause
/** A captured conversation (wire/NN-*), cut into what one engine sees of it. */

import { strict as expect } from "node:assert";
import type { Checksum, Compression, Replication } from "../../src/engine/worker-messages.ts";
import { decodeHello, decodeS1, decodeS2, type P2, type S2 } from "../../src/wire/handshake.ts";
import { decodePayload, type PayloadHeader } from "../../src/wire/payload.ts";
import { decodeReply, ReplyHeader } from "../../src/wire/reply.ts";
import { decodeRequest, RequestHeader } from "../../src/wire/request.ts";
import { golden, goldenExists, type Message, messagesOf, nodeHashes } from "./vectors.ts";

/** A line of order.jsonl. */
type Step =
  | { readonly conn: number; readonly event: "open" }
  | { readonly conn: number; readonly dir: "c2s" | "s2c"; readonly event: "eof" }
  | {
      readonly conn: number;
      readonly dir: "c2s" | "s2c";
      readonly offset: number;
      readonly len: number;
    };

/** A captured request, its data unpacked. */
export interface CapturedRequest {
  /** As captured, header and payload. */
  readonly bytes: Uint8Array;
  readonly header: RequestHeader;
  /** A WRITE's; empty for the others. */
  readonly data: Uint8Array;
}

export interface CapturedReply {
  readonly bytes: Uint8Array;
  readonly header: ReplyHeader;
  /** What answers a READ of this many bytes. */
  unpack(length: number): Uint8Array;
}

/** One pair of connections, whose handshake got as far as the second answer. */
export interface Pair {
  /** First message of A, and of B. */
  readonly p1: Uint8Array;
  readonly p2: Uint8Array;
  readonly s1: Uint8Array;
  /** With its map. */
  readonly s2: Uint8Array;
  readonly version: number;
  readonly hello: P2;
  readonly answer: S2;
  /** Unpacked; null where the answer carries none. */
  readonly map: Uint8Array | null;
  readonly requests: readonly CapturedRequest[];
  readonly replies: readonly CapturedReply[];
  /** Everything on B towards the primary. */
  readonly replyBytes: Uint8Array;
  /** What passed after the handshake, in order: bytes of requests, or the end of the connection. */
  readonly steps: readonly (Uint8Array | "closed by primary" | "closed by secondary")[];
}

/** One pair of connections that ended with the first answer. */
export interface Refused {
  readonly p1: Uint8Array;
  readonly s1: Uint8Array;
}

export interface Conversation {
  readonly directory: string;
  readonly replication: Replication;
  readonly checksum: Checksum;
  readonly compression: Compression;
  readonly pairs: readonly Pair[];
  readonly refusals: readonly Refused[];
}

/** @param name a directory of wire/ */
export function conversation(name: string): Conversation {
  const directory = `wire/${name}`;
  const steps = readSteps(`${directory}/order.jsonl`);
  const pairs: Pair[] = [];
  const refusals: Refused[] = [];
  let connection = 1;
  while (goldenExists(`${directory}/conn${connection}.c2s.bin`)) {
    const first = connectionOf(`${directory}/`, connection);
    if (decodeS1(first.heard[0]!.nv).kind === "refused") {
      refusals.push({ p1: wholeOf(first.said[0]!), s1: wholeOf(first.heard[0]!) });
      connection += 1;
    } else {
      pairs.push(pairOf(`${directory}/`, connection, steps));
      connection += 2;
    }
  }
  return { directory, ...algorithms(name), pairs, refusals };
}

/** @param name of a hand-made exchange in probes/ that got as far as requests */
export function probe(name: string): Pair {
  return pairOf(`probes/${name}.`, 1, []);
}

function readSteps(path: string): Step[] {
  const lines = Buffer.from(golden(path)).toString("utf8").trim().split("\n");
  return lines.map((line) => JSON.parse(line) as Step);
}

/** Configured as the directory's name says, or, where it does not, as index.json does. */
function algorithms(name: string): Pick<Conversation, "replication" | "checksum" | "compression"> {
  const replication =
    /-(async|memsync)/.exec(name)?.[1] ?? (/^03/.test(name) ? "memsync" : "fullsync");
  const named = /-(none|crc32|sha256)-(none|hole|lzf)$/.exec(name);
  return {
    replication: replication as Replication,
    checksum: (named?.[1] ?? "none") as Checksum,
    compression: (named?.[2] ?? (/^04/.test(name) ? "hole" : "none")) as Compression,
  };
}

interface Connection {
  readonly said: readonly Message[];
  readonly heard: readonly Message[];
  readonly c2s: Uint8Array;
  readonly s2c: Uint8Array;
}

function connectionOf(prefix: string, connection: number): Connection {
  const c2s = golden(`${prefix}conn${connection}.c2s.bin`);
  const s2c = golden(`${prefix}conn${connection}.s2c.bin`);
  return { c2s, s2c, said: messagesOf(c2s), heard: messagesOf(s2c) };
}

function wholeOf({ version, nv, payload }: Message): Uint8Array {
  const bytes = new Uint8Array(5 + nv.length + payload.length);
  bytes[0] = version;
  new DataView(bytes.buffer).setUint32(1, nv.length, true);
  bytes.set(nv, 5);
  bytes.set(payload, 5 + nv.length);
  return bytes;
}

function pairOf(prefix: string, first: number, steps: readonly Step[]): Pair {
  const a = connectionOf(prefix, first);
  const b = connectionOf(prefix, first + 1);
  const p1 = wholeOf(a.said[0]!);
  const hello = decodeHello(b.said[0]!.nv);
  expect.ok(hello.kind === "p2");
  const s1 = decodeS1(a.heard[0]!.nv);
  expect.ok(s1.kind === "accepted");
  const second = a.heard[1]!;
  const { answer, payload } = decodeS2(second.nv);
  const map =
    answer.kind === "refused" || answer.mapsize === 0
      ? null
      : unpack(payload, second.payload, answer.mapsize);
  return {
    p1,
    p2: wholeOf(b.said[0]!),
    s1: wholeOf(a.heard[0]!),
    s2: wholeOf(second),
    version: s1.version,
    hello,
    answer,
    map,
    requests: a.said.slice(1).map(requestOf),
    replies: b.heard.map(replyOf),
    replyBytes: b.s2c,
    steps: stepsOf(first, p1.length, a.c2s, steps),
  };
}

function stepsOf(
  first: number,
  helloSize: number,
  c2s: Uint8Array,
  steps: readonly Step[],
): Pair["steps"] {
  const result: Pair["steps"][number][] = [];
  for (const step of steps) {
    if (step.conn !== first && step.conn !== first + 1) continue;
    if ("len" in step) {
      if (step.conn !== first || step.dir !== "c2s" || step.offset < helloSize) continue;
      result.push(c2s.slice(step.offset, step.offset + step.len));
    } else if (step.event === "eof") {
      result.push(step.dir === "c2s" ? "closed by primary" : "closed by secondary");
      break;
    }
  }
  return result;
}

function requestOf(message: Message): CapturedRequest {
  const bytes = wholeOf(message);
  const header = new RequestHeader();
  expect.ok(decodeRequest(bytes, 0, bytes.length, header));
  return {
    bytes,
    header,
    get data() {
      if (header.size === 0) return new Uint8Array(0);
      return unpack(header, message.payload, header.length);
    },
  };
}

function replyOf(message: Message): CapturedReply {
  const bytes = wholeOf(message);
  const header = new ReplyHeader();
  expect.ok(decodeReply(bytes, 0, bytes.length, header));
  return { bytes, header, unpack: (length) => unpack(header, message.payload, length) };
}

/** The replies of a whole stream. */
export function repliesOf(stream: Uint8Array): CapturedReply[] {
  return messagesOf(stream).map(replyOf);
}

/** The requests of a whole stream; it must not begin with a handshake message. */
export function requestsOf(stream: Uint8Array): CapturedRequest[] {
  return messagesOf(stream).map(requestOf);
}

function unpack(header: PayloadHeader, sent: Uint8Array, length: number): Uint8Array {
  const out = new Uint8Array(length);
  const where = decodePayload(nodeHashes, header, sent, 0, length, out, 0);
  return where === "in-place" ? sent.slice(0, length) : out;
}

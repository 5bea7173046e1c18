// SPDX-License-Identifier: BSD-2-Clause
/**
 * What do hastd's messages cost per request: the header written by one node and read by the other?
 *
 * Expected: some 115 bytes and five entries to write from a template and to check byte by byte, so 100 to
 * 200 ns for a request and less for its reply; a replicated write costs 8 us. No allocation. On payloads:
 * looking for a hole in 128 KiB of zeroes runs at memory speed, 10 us; LZF at some 200 MB/s each way.
 *
 *   npm run bench -- wire
 */

import {
  CHECKSUM_NONE,
  COMPRESSION_HOLE,
  COMPRESSION_LZF,
  decodePayload,
  type Hashes,
  OutgoingPayload,
  PayloadEncoder,
} from "../src/wire/payload.ts";
import { decodeReply, encodeReply, REPLY_HEADER_MAX, ReplyHeader } from "../src/wire/reply.ts";
import {
  CMD_READ,
  CMD_WRITE,
  decodeRequest,
  encodeRequest,
  REQUEST_HEADER_MAX,
  RequestHeader,
} from "../src/wire/request.ts";

const FAR = 2 ** 33; // offsets beyond it are what V8 might box
const PAYLOAD = 131072;

export interface Result {
  readonly name: string;
  /** Nanoseconds per operation, one per round, ascending. */
  readonly nsPerOperation: readonly number[];
  /** Bytes of heap per operation: the median round, for in some of them the garbage is collected. */
  readonly heapPerOperation: number;
}

/** Times `run`, which performs `count` operations. */
function measure(name: string, rounds: number, count: number, run: () => void): Result {
  const ns: number[] = [];
  const heap: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const heapBefore = process.memoryUsage().heapUsed;
    const start = process.hrtime.bigint();
    run();
    ns.push(Number(process.hrtime.bigint() - start) / count);
    heap.push((process.memoryUsage().heapUsed - heapBefore) / count);
  }
  const warm = rounds > 4 ? Math.ceil(rounds / 5) : 0;
  const ascending = (one: number, other: number): number => one - other;
  const heapWarm = heap.slice(warm).sort(ascending);
  return {
    name,
    nsPerOperation: ns.slice(warm).sort(ascending),
    heapPerOperation: heapWarm[heapWarm.length >> 1]!,
  };
}

/** Writes 32 headers into one buffer, then reads them back, as a batch does. */
function requests(
  name: string,
  cmd: number,
  memsync: boolean,
  checksum: boolean,
  shape: Shape,
): Result {
  const header = new RequestHeader();
  const payload = new OutgoingPayload();
  payload.size = 4096;
  payload.checksum = checksum ? 2 : 0;
  payload.hashLength = checksum ? 32 : 0;
  const out = new Uint8Array(32 * REQUEST_HEADER_MAX);
  const attached = cmd === CMD_WRITE ? payload : null;
  let sequence = 1;
  return measure(name, shape.rounds, shape.batches * 32, () => {
    for (let batch = 0; batch < shape.batches; batch++) {
      let end = 0;
      for (let index = 0; index < 32; index++) {
        sequence = (sequence + 1) >>> 0;
        const offset = FAR + index * 4096;
        end = encodeRequest(out, end, 2, cmd, 0, sequence, offset, 4096, memsync, attached);
      }
      for (let at = 0; at < end; at = header.headerEnd) {
        if (!decodeRequest(out, at, end, header)) throw new Error("incomplete");
      }
      if (header.seqLo !== sequence || header.offset !== FAR + 31 * 4096) throw new Error("wrong");
    }
  });
}

function replies(shape: Shape): Result {
  const header = new ReplyHeader();
  const out = new Uint8Array(32 * REPLY_HEADER_MAX);
  let sequence = 1;
  return measure("reply: write and read", shape.rounds, shape.batches * 32, () => {
    for (let batch = 0; batch < shape.batches; batch++) {
      let end = 0;
      for (let index = 0; index < 32; index++) {
        sequence = (sequence + 1) >>> 0;
        end = encodeReply(out, end, 2, 0, sequence, (index & 1) === 0, 0, null);
      }
      for (let at = 0; at < end; at = header.headerEnd) {
        if (!decodeReply(out, at, end, header)) throw new Error("incomplete");
      }
      if (header.seqLo !== sequence) throw new Error("wrong");
    }
  });
}

const NO_HASHES: Hashes = {
  crc32: () => 0,
  sha256: () => new Uint8Array(32),
};

function packing(name: string, compression: number, data: Uint8Array, shape: Shape): Result {
  const encoder = new PayloadEncoder(NO_HASHES);
  const payload = new OutgoingPayload();
  return measure(name, shape.rounds, shape.payloads, () => {
    for (let index = 0; index < shape.payloads; index++) {
      encoder.encode(compression, CHECKSUM_NONE, data, 0, data.length, payload);
    }
  });
}

function unpacking(data: Uint8Array, shape: Shape): Result {
  const payload = new OutgoingPayload();
  const encoder = new PayloadEncoder(NO_HASHES);
  encoder.encode(COMPRESSION_LZF, CHECKSUM_NONE, data, 0, data.length, payload);
  const out = new Uint8Array(data.length);
  return measure("128 KiB: LZF, unpack", shape.rounds, shape.payloads, () => {
    for (let index = 0; index < shape.payloads; index++) {
      decodePayload(NO_HASHES, payload, payload.bytes, payload.at, data.length, out, 0);
    }
  });
}

/** Words and numbers, as logs have them. */
function text(): Uint8Array {
  const words = ["hastd", "resource", "primary", "connected", "extent", "dirty", "flush", "peer"];
  let state = 1;
  let line = "";
  while (line.length < PAYLOAD) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    line += `${words[state >>> 29]} ${state >>> 16} `;
  }
  return new TextEncoder().encode(line.slice(0, PAYLOAD));
}

export interface Shape {
  readonly rounds: number;
  readonly batches: number; // of 32 messages, per round
  readonly payloads: number; // per round
}

export function measureAll(shape: Shape): Result[] {
  const log = text();
  return [
    requests("READ: write and read", CMD_READ, false, false, shape),
    requests("WRITE: write and read", CMD_WRITE, false, false, shape),
    requests("memsync WRITE with sha256", CMD_WRITE, true, true, shape),
    replies(shape),
    packing("128 KiB: hole, found", COMPRESSION_HOLE, new Uint8Array(PAYLOAD), shape),
    packing("128 KiB: hole, none", COMPRESSION_HOLE, log, shape),
    packing("128 KiB: LZF, pack", COMPRESSION_LZF, log, shape),
    unpacking(log, shape),
  ];
}

if (import.meta.main) {
  console.log("ns per message: median (fastest to slowest round); heap bytes per message");
  for (const result of measureAll({ rounds: 40, batches: 2000, payloads: 40 })) {
    const [first, middle, last] = [0, 0.5, 1].map((part) =>
      result.nsPerOperation[Math.round((result.nsPerOperation.length - 1) * part)]!.toFixed(0),
    );
    const heap = result.heapPerOperation.toFixed(2);
    console.log(`  ${result.name.padEnd(27)} ${middle} (${first} to ${last}); ${heap}`);
  }
}

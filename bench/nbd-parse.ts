// SPDX-License-Identifier: BSD-2-Clause
/**
 * What does NBD itself cost per 4 KiB command: parsing the request and writing the answer's header?
 *
 * Expected: 28 bytes in and 16 or 28 out, byte by byte, are some 100 loads and stores: 50 to 100 ns, one
 * hundredth of the 8 us that a replicated write costs. No allocation, save 16 bytes for every call that
 * passes an offset beyond 2^31: V8 boxes it.
 *
 *   npm run bench -- nbd-parse
 */

import type { NbdExport } from "../src/nbd/export.ts";
import * as nbd from "../src/nbd/protocol.ts";
import { NbdSession, type NbdSink } from "../src/nbd/session.ts";
import { contextRequest, infoRequest, option, request, u32 } from "../test/nbd-peer.ts";

const BLOCK = 4096;
const DISK: NbdExport = {
  name: "bench",
  description: "",
  size: 2 ** 40,
  blockMinimum: 512,
  blockPreferred: 4096,
  payloadMaximum: 32 << 20,
  multiConn: true,
  contexts: ["base:allocation"],
};

/** Takes commands like an engine: into tables, a batch at a time. */
class TableSink implements NbdSink {
  readonly type: Int32Array;
  readonly cookieHi: Uint32Array;
  readonly cookieLo: Uint32Array;
  readonly offset: Float64Array;
  readonly length: Uint32Array;
  count = 0;

  constructor(depth: number) {
    this.type = new Int32Array(depth);
    this.cookieHi = new Uint32Array(depth);
    this.cookieLo = new Uint32Array(depth);
    this.offset = new Float64Array(depth);
    this.length = new Uint32Array(depth);
  }

  send(): void {}

  command(
    type: number,
    _flags: number,
    cookieHi: number,
    cookieLo: number,
    offset: number,
    length: number,
  ): boolean {
    const slot = this.count;
    if (slot === this.type.length) return false;
    this.type[slot] = type;
    this.cookieHi[slot] = cookieHi;
    this.cookieLo[slot] = cookieLo;
    this.offset[slot] = offset;
    this.length[slot] = length;
    this.count = slot + 1;
    return true;
  }

  refuse(): boolean {
    throw new Error("a command was refused");
  }

  finish(reason: string | null): void {
    throw new Error(`the session ended: ${reason}`);
  }
}

export interface Result {
  readonly name: string;
  /** Nanoseconds per command, one per round, ascending. */
  readonly nsPerCommand: readonly number[];
  /** Bytes of heap per command: the median round, for in some of them the garbage is collected. */
  readonly heapPerCommand: number;
}

/** Runs one kind of command, `depth` at a time, through a session. */
export function measure(
  name: string,
  type: number,
  structured: boolean,
  shape: { readonly depth: number; readonly batches: number; readonly rounds: number },
): Result {
  const { depth, batches, rounds } = shape;
  const sink = new TableSink(depth);
  const session = new NbdSession([DISK], sink);
  session.begin();
  const manners = [option(8), option(10, contextRequest("", "base:allocation"))];
  const hello = Buffer.concat([
    u32(3),
    ...(structured ? manners : []),
    option(7, infoRequest("bench")),
  ]);
  session.feed(hello, 0, hello.length);

  const payload = type === nbd.NBD_CMD_WRITE ? Buffer.alloc(BLOCK, 0x5a) : Buffer.alloc(0);
  const bytes = Buffer.concat(
    Array.from({ length: depth }, (_, index) => {
      const offset = index * 7 * BLOCK + 2 ** 33;
      return request({ type, cookie: BigInt(index), offset, length: BLOCK, payload });
    }),
  );
  const answers = Buffer.alloc(depth * 28);

  const nsPerCommand: number[] = [];
  const heapGrowth: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const heapBefore = process.memoryUsage().heapUsed;
    const start = process.hrtime.bigint();
    for (let batch = 0; batch < batches; batch++) {
      if (session.feed(bytes, 0, bytes.length) !== bytes.length) throw new Error("not consumed");
      answer(session, sink, answers);
    }
    const ns = Number(process.hrtime.bigint() - start);
    if (round < rounds / 5) continue; // warm-up
    heapGrowth.push((process.memoryUsage().heapUsed - heapBefore) / (batches * depth));
    nsPerCommand.push(ns / (batches * depth));
  }
  nsPerCommand.sort((one, other) => one - other);
  heapGrowth.sort((one, other) => one - other);
  return { name, nsPerCommand, heapPerCommand: heapGrowth[heapGrowth.length >> 1]! };
}

function answer(session: NbdSession, sink: TableSink, answers: Uint8Array): void {
  let at = 0;
  for (let slot = 0; slot < sink.count; slot++) {
    const type = sink.type[slot]!;
    const hi = sink.cookieHi[slot]!;
    const lo = sink.cookieLo[slot]!;
    at =
      type === nbd.NBD_CMD_READ
        ? session.putReadHeader(answers, at, hi, lo, sink.offset[slot]!, sink.length[slot]!)
        : session.putReply(answers, at, type, hi, lo, 0);
  }
  sink.count = 0;
}

export function measureAll(shape: Parameters<typeof measure>[3]): Result[] {
  return [
    measure("READ, simple reply", nbd.NBD_CMD_READ, false, shape),
    measure("READ, structured reply", nbd.NBD_CMD_READ, true, shape),
    measure("WRITE", nbd.NBD_CMD_WRITE, true, shape),
    measure("TRIM", nbd.NBD_CMD_TRIM, true, shape),
  ];
}

if (import.meta.main) {
  console.log("ns per command: median (fastest to slowest round); heap bytes per command");
  for (const result of measureAll({ depth: 32, batches: 200, rounds: 1_500 })) {
    const [first, middle, last] = [0, 0.5, 1].map((part) =>
      result.nsPerCommand[Math.round((result.nsPerCommand.length - 1) * part)]!.toFixed(1),
    );
    const heap = result.heapPerCommand.toFixed(2);
    console.log(`  ${result.name.padEnd(24)} ${middle} (${first} to ${last}); ${heap}`);
  }
}

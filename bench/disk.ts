// SPDX-License-Identifier: BSD-2-Clause
/**
 * What does a disk engine cost by itself: random 4 KiB requests, 32 in flight, on a file of 1 GiB?
 *
 * Expected: "sync" on warm pages is a system call and a copy, 4 to 5 us each, on one core. "threadpool" adds
 * a hand-over between threads, two or three times that. "io_uring" goes past the page cache, so the device
 * sets its pace; it should need no more processor time per request than "sync" does.
 *
 *   npm run bench -- disk [PATH]      PATH: a block device or file to OVERWRITE; else a temporary file
 */

import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Disk } from "../src/platform/disk.ts";
import { createArena } from "../src/platform/node/arena.ts";
import { type DiskEngine, openDisk } from "../src/platform/node/disk.ts";

const BLOCK = 4096;
/** Where a write's payload begins in memory: behind a request header. */
const HEADER = 28;

export interface Shape {
  readonly fileSize: number; // bytes
  readonly depth: number;
  readonly requests: number; // per round
  readonly rounds: number;
}

export interface Result {
  readonly name: string;
  /** Requests per second, one per round, ascending. */
  readonly rates: readonly number[];
  /** User and system time of all threads, median round. */
  readonly cpuUsPerRequest: number;
}

export async function measure(path: string, engine: DiskEngine, shape: Shape): Promise<Result[]> {
  const stride = BLOCK + 64;
  const arena = createArena(shape.depth * stride);
  const warn = (text: string) => {
    throw new Error(text);
  };
  const disk = openDisk(path, { arena, lock: true, engine, warn });
  const ready: number[] = [];
  let left = 0;
  let running = 0;
  let writes = false;
  let finished: () => void = () => {};
  let scheduled = false;

  const refill = () => {
    scheduled = false;
    while (ready.length > 0 && left > 0) {
      const token = ready.pop()!;
      const block = Math.floor(Math.random() * (Math.min(disk.mediaSize, shape.fileSize) / BLOCK));
      left -= 1;
      running += 1;
      if (writes) disk.write(token, token * stride + HEADER, BLOCK, block * BLOCK);
      else disk.read(token, token * stride + HEADER, BLOCK, block * BLOCK);
    }
    disk.submit();
    if (left === 0 && running === 0) finished();
  };
  const refillLater = () => {
    if (scheduled) return;
    scheduled = true;
    setImmediate(refill);
  };
  disk.attach({
    diskDone(token, errno) {
      if (errno !== 0) throw new Error(`errno ${errno}`);
      running -= 1;
      ready.push(token);
      if (disk.engine === "sync") refillLater(); // it ends inside submit(), so diskIdle() is not called
    },
    diskIdle: refill,
  });

  const results: Result[] = [];
  for (const kind of ["read", "write"]) {
    writes = kind === "write";
    const rates: number[] = [];
    const cpu: number[] = [];
    for (let round = 0; round < shape.rounds; round++) {
      ready.length = 0;
      for (let token = 0; token < shape.depth; token++) ready.push(token);
      left = shape.requests;
      const cpuBefore = process.cpuUsage();
      const start = performance.now();
      await new Promise<void>((resolve) => {
        finished = resolve;
        refill();
      });
      const seconds = (performance.now() - start) / 1000;
      const used = process.cpuUsage(cpuBefore);
      rates.push(shape.requests / seconds);
      cpu.push((used.user + used.system) / shape.requests);
    }
    rates.sort((one, other) => one - other);
    cpu.sort((one, other) => one - other);
    const cpuUsPerRequest = cpu[cpu.length >> 1]!;
    results.push({ name: `${engine} ${kind}`, rates, cpuUsPerRequest });
  }
  await close(disk);
  return results;
}

function close(disk: Disk): Promise<void> {
  return new Promise((resolve) => disk.close(resolve));
}

/** Every engine on one file, which is written once from end to end before. */
export async function measureAll(path: string | null, shape: Shape): Promise<Result[]> {
  const directory = path === null ? mkdtempSync(join(tmpdir(), "hast-bench-")) : null;
  const target = path ?? join(directory!, "disk");
  try {
    if (path === null) {
      const fd = openSync(target, "w");
      const chunk = Buffer.alloc(Math.min(1 << 20, shape.fileSize), 0x5a);
      for (let at = 0; at < shape.fileSize; at += chunk.length) writeSync(fd, chunk);
      closeSync(fd);
    }
    const results: Result[] = [];
    for (const engine of ["sync", "threadpool", "io_uring"] as const) {
      results.push(...(await measure(target, engine, shape)));
    }
    return results;
  } finally {
    if (directory !== null) rmSync(directory, { recursive: true });
  }
}

if (import.meta.main) {
  const shape = { fileSize: 2 ** 30, depth: 32, requests: 100_000, rounds: 5 };
  console.log("requests per second: median (slowest to fastest round); CPU us per request");
  for (const result of await measureAll(process.argv[2] ?? null, shape)) {
    const [slowest, median, fastest] = [0, 0.5, 1].map((part) =>
      Math.round(result.rates[Math.round((result.rates.length - 1) * part)]!),
    );
    const cpu = result.cpuUsPerRequest.toFixed(1);
    console.log(`  ${result.name.padEnd(18)} ${median} (${slowest} to ${fastest}); ${cpu}`);
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/** What operators order of a synchronization: to wait, to go slowly, and to begin, for a copy that is thrown away. */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import {
  CELL,
  EXTENT_CELLS,
  mapOf,
  PrimaryBench,
  TIMEOUT_MS,
} from "../../test/replication-harness.ts";
import { IO_MAX } from "./requests.ts";
import { syncBurst } from "./sync-pace.ts";

const KIB = 1024;
const EXTENT = EXTENT_CELLS * CELL;
const EVERY = Array.from({ length: 16 }, (_, extent) => extent);
const OURS = { states: true, keeps: true } as const;

/** Plays both disks for what was asked so far, and what follows from that. @returns what was asked */
function serve(bench: PrimaryBench): string[] {
  const seen: string[] = [];
  for (let lines = bench.take(); lines.length > 0; lines = bench.take()) {
    for (const line of lines) {
      seen.push(line);
      const [, where, , word] = /^(local|send) (read|write) (\d+)/.exec(line) ?? [];
      const slot = Number(/\d+$/.exec(line.replace(" memsync", ""))?.[0]);
      if (word === undefined || Number.isNaN(slot)) continue;
      if (where === "local") bench.local(slot);
      else bench.reply(slot);
    }
  }
  return seen;
}

/** Copies, as asked of the source's disk. */
function copiesOf(lines: readonly string[], source: "local" | "send" = "local"): number {
  return lines.filter((line) => line.startsWith(`${source} read`)).length;
}

test("a limit on copies is kept at every moment, and used", () => {
  for (const rate of [100 * KIB, 512 * KIB, 3000 * KIB]) {
    const bench = new PrimaryBench({ dirty: EVERY });
    bench.core.orderSync({ held: false, rate });
    bench.connect();
    const startedAt = bench.nowMs;
    let begun = 0;
    const total = EVERY.length * EXTENT;
    while (begun * IO_MAX < total) {
      begun += copiesOf(serve(bench));
      const ms = bench.nowMs - startedAt;
      const most = (rate * ms) / 1000 + syncBurst(rate) + IO_MAX;
      expect.ok(begun * IO_MAX <= most, `${rate}: ${begun * IO_MAX} bytes after ${ms} ms`);
      if (begun * IO_MAX === total) break;
      const { syncPauseMs } = bench.core;
      expect.ok(syncPauseMs > 0, "it says when to call again");
      bench.nowMs += syncPauseMs;
      bench.core.onSyncTime(bench.nowMs);
      bench.pump();
      // A tick of its own may come in between.
      if (begun % 3 === 0) bench.tick(0);
    }
    const tookMs = bench.nowMs - startedAt;
    expect.ok(tookMs <= (total / rate) * 1000 * 1.05 + 100, `${rate}: ${tookMs} ms`);
    expect.equal(bench.core.statistics.syncCopied, total);
    expect.equal(bench.core.syncPauseMs, 0, "and then nobody is waited for");
  }
});

test("a limit may be changed or lifted while copies are under way", () => {
  const bench = new PrimaryBench({ dirty: EVERY });
  bench.core.orderSync({ held: false, rate: 1 });
  bench.connect();
  bench.tick(1);
  expect.equal(copiesOf(serve(bench)), 1, "the first begins on credit");
  bench.tick(1000);
  expect.equal(copiesOf(serve(bench)), 0);
  bench.core.orderSync({ held: false, rate: 0 });
  bench.pump();
  expect.equal(copiesOf(serve(bench)), EVERY.length * 2 - 1);
});

test("held copies end where they are; writes go to both nodes, and a new pass waits as well", () => {
  const bench = new PrimaryBench({ dirty: [1, 2] });
  bench.connect();
  const begun = bench.take();
  expect.equal(copiesOf(begun), 4);
  bench.core.orderSync({ held: true, rate: 0 });
  for (const line of begun) bench.local(Number(/\d+$/.exec(line)![0]));
  serve(bench);
  expect.equal(bench.core.statistics.syncCopied, 4 * IO_MAX, "what was under way ends");

  bench.cut();
  const write = bench.write(20);
  expect.ok(serve(bench).includes(`local write ${write}`));
  bench.connect();
  expect.equal(copiesOf(serve(bench)), 0);
  const both = bench.write(0);
  expect.ok(serve(bench).includes(`send write ${both}`));
  for (let second = 0; second < 60; second++) bench.tick(1000);
  expect.equal(copiesOf(bench.take()), 0);
  expect.equal(bench.core.map.resyncCount > 0, true);
  bench.core.orderSync({ held: false, rate: 0 });
  bench.pump();
  expect.ok(copiesOf(serve(bench)) > 0);
  expect.equal(bench.core.map.resyncCount, 0);
});

test("held or limited, what a FLUSH waits for is copied all the same", () => {
  for (const orders of [
    { held: true, rate: 0 },
    { held: false, rate: 1 },
  ]) {
    const bench = new PrimaryBench({ record: { state: "inconsistent" } });
    const behind = { ...OURS, source: "secondary", map: mapOf([0, 1]), cache: 8n } as const;
    bench.core.orderSync(orders);
    bench.connect(behind);
    // The application reads what is stale here from the peer.
    bench.read(0);
    expect.ok(bench.take().filter((line) => line.startsWith("send read")).length >= 1);
    const write = bench.write(5 * EXTENT_CELLS);
    bench.finish(write);
    bench.cut(); // the peer may lose it with its power
    bench.takeAll();
    bench.connect(behind);
    const flush = bench.flush();
    const seen = serve(bench);
    expect.equal(copiesOf(seen), 2, "both halves of that extent, from here");
    bench.finishFlush();
    expect.ok(bench.takeAll().includes(`answer ${flush}`));
    expect.ok(bench.core.map.resyncCount > 0);
  }
});

test("S-10, BD-15: a copy is thrown away only after that is on record, and nothing is copied before its map says all", () => {
  const bench = new PrimaryBench();
  bench.settle(OURS);
  bench.promptRecord = false;
  bench.promptMap = false;
  expect.equal(bench.core.indispensable, null);
  bench.core.invalidate();
  bench.pump();
  expect.deepEqual(bench.takeAll(), ["record 0/0 inconsistent"]);
  bench.read(0);
  expect.deepEqual(bench.take(), ["local read 0"], "nothing is lost yet");
  bench.local(0);
  bench.take();
  bench.recordDone();
  expect.deepEqual(bench.takeAll(), ["event syncstart", "map"]);
  expect.equal(bench.core.map.resyncCount, EVERY.length);
  expect.equal(bench.core.whole, false);
  expect.equal(bench.core.invalidating, true);
  bench.read(0);
  expect.deepEqual(bench.takeAll(), ["send read 0"], "from here on the peer serves");
  bench.reply(0);
  bench.takeAll();
  bench.mapDone();
  expect.deepEqual(bench.takeAll(), ["record 0/0 inconsistent"], "all of it is in line");
  bench.recordDone();
  expect.equal(bench.core.invalidating, false);
  expect.equal(bench.core.record.synced, "filling");
  bench.promptRecord = bench.promptMap = true;
  expect.equal(copiesOf(serve(bench), "send"), 2 * EVERY.length, "from the peer");
  bench.finishFlush();
  bench.peerStored();
  expect.equal(bench.core.stale, false);
  expect.equal(bench.core.record.state, "uptodate");
  expect.equal(bench.core.record.synced, "all");
});

test("a copy is not thrown away while an answered write is on its way to the peer, nor once that is lost", () => {
  const bench = new PrimaryBench({ mode: "async" });
  bench.settle(OURS);
  const early = bench.write(0);
  bench.local(early);
  expect.ok(bench.take().includes(`answer ${early}`));
  bench.core.invalidate();
  bench.pump();
  expect.equal(bench.core.record.state, "uptodate");
  const late = bench.write(8);
  bench.local(late);
  expect.ok(!bench.take().includes(`answer ${late}`), "no more of them");
  bench.cut();
  expect.equal(bench.core.invalidating, false);
  expect.equal(bench.core.stale, false);
  expect.equal(bench.core.record.state, "uptodate");
  expect.equal(bench.core.record.localcnt, 1n, "it went on alone");
  expect.equal(bench.core.indispensable, "alone");

  const other = new PrimaryBench({ mode: "async" });
  other.settle(OURS);
  const slot = other.write(0);
  other.local(slot);
  other.core.invalidate();
  other.pump();
  other.reply(slot);
  expect.equal(other.core.record.state, "uptodate", "the peer has it in its cache only");
  other.finishFlush();
  expect.equal(other.core.record.state, "inconsistent", "now the peer has it");
});

test("S-3: on a busy resource nothing new begins before the peer has flushed what is thrown away here", () => {
  for (const end of ["the peer flushes", "the peer goes", "nobody answers"] as const) {
    const bench = new PrimaryBench();
    bench.settle(OURS);
    bench.finish(bench.write(0));
    bench.core.invalidate();
    bench.pump();
    bench.takeAll();
    const next = bench.write(8);
    expect.ok(!bench.takeAll().includes(`send write ${next}`), end);
    if (end === "the peer flushes") bench.finishFlush();
    else if (end === "the peer goes") bench.cut();
    else bench.tick(TIMEOUT_MS);
    expect.equal(bench.core.stale, end === "the peer flushes", end);
    expect.ok(bench.takeAll().includes(`local write ${next}`), end);
  }
});

test("a copy that is thrown away while the peer fills it ends as the target, never as the source", () => {
  for (const step of ["flush", "peer's record"] as const) {
    const bench = new PrimaryBench({ record: { state: "inconsistent" } });
    bench.connect({ ...OURS, source: "secondary", map: mapOf([0]), cache: 8n, localcnt: 1n });
    serve(bench);
    if (step !== "flush") bench.finishFlush();
    bench.core.invalidate();
    bench.pump();
    if (step === "flush") bench.finishFlush();
    bench.peerStored();
    const lines = serve(bench);
    expect.ok(bench.core.stale, step);
    expect.ok(!lines.some((line) => /^local read|^send state inconsistent/.test(line)), step);
    expect.ok(lines.join().includes("send read"), step);
  }
});

test("S-3: nor is it thrown away early because a write that failed here is put on record meanwhile", () => {
  const bench = new PrimaryBench();
  bench.settle(OURS);
  bench.finish(bench.write(8));
  bench.promptRecord = false;
  const write = bench.write(0);
  bench.reply(write);
  bench.local(write, 5);
  bench.core.invalidate();
  bench.pump();
  bench.promptRecord = true;
  bench.recordDone();
  expect.equal(bench.map.resyncCount, 1, "the peer has the rest in its cache only");
  bench.finishFlush();
  bench.finishFlush();
  expect.equal(bench.map.resyncCount, EVERY.length);
});

test("a copy is indispensable without a peer, before one that lacks something, and before FreeBSD's", () => {
  const bench = new PrimaryBench();
  expect.equal(bench.core.indispensable, "alone");
  bench.connect();
  expect.equal(bench.core.indispensable, "peer-legacy");
  bench.cut();
  bench.local(bench.write(0));
  bench.connect({ ...OURS });
  expect.equal(bench.core.indispensable, "peer-lacks");
  const telling = new PrimaryBench();
  telling.connect({ ...OURS, outdated: true });
  expect.equal(telling.core.indispensable, "peer-lacks", "as it believes");
  telling.finishFlush();
  telling.peerStored();
  expect.equal(telling.core.indispensable, null);
});

test("a peer that calls its copy outdated is told when both are in step, even with nothing to copy", () => {
  for (const outdated of [true, false]) {
    const bench = new PrimaryBench();
    bench.connect({ ...OURS, outdated });
    if (outdated) bench.finishFlush();
    expect.equal(bench.takeAll().includes("send state uptodate 0"), outdated);
  }
});

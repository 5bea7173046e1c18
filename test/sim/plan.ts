// SPDX-License-Identifier: BSD-2-Clause
/**
 * What a seed makes of the world before anything happens, and the faults that will befall it.
 *
 *   seed ─▶ Plan:  knobs │ faults: (when, what, a seed of its own) …
 *              └─ with changes on top: what a minimiser leaves of it
 *
 * Everybody in the world draws from a stream of its own, so that a plan with one fault less is still
 * much the same story.
 */

import type { Checksum, Compression, Replication } from "../../src/engine/worker-messages.ts";
import { Random } from "../model/disk.ts";

/** Faults, and how often each is chosen where a seed has it at all. */
const FAULTS = {
  partition: 2,
  "one-way partition": 1,
  reset: 4,
  refusal: 1,
  congestion: 1,
  "kill worker": 3,
  "kill daemon": 1,
  "stop daemon": 1,
  "stopped process": 1,
  "power cut": 3,
  "power cut of both": 0.5,
  "lagging secondary": 2,
  "read errors": 1,
  "write errors": 1,
  "flush errors": 1,
  "bad sectors": 1,
  "disk full": 0.5,
  "disk stuck": 1,
  "disk slow": 1,
  "planned switch": 3,
  "wrong promotion": 0.5,
  failover: 3,
  "new disk": 0.3,
  "mode change": 0.5,
  reload: 1,
  "full sync": 0.3,
} as const;

/** What operators order meanwhile, in some worlds: drawn apart, so that the others are what they were. */
const ORDERS = {
  disconnect: 3,
  "pause resync": 2,
  "limit resync": 1,
  invalidate: 2,
  outdate: 0.5,
} as const;

export type FaultKind = keyof typeof FAULTS | keyof typeof ORDERS;

/** An order's number: beyond those of all faults. */
const FIRST_ORDER = 100_000;

export interface PlannedFault {
  /** Among all that the seed has planned, whatever was left out since. */
  readonly number: number;
  /** Since the beginning. */
  readonly atMs: number;
  readonly kind: FaultKind;
  /** Of all that is left to chance in it. */
  readonly seed: number;
}

/** Nobody writes for a while, so that extents become clean. Times are since the beginning. */
export interface Rest {
  readonly atMs: number;
  readonly untilMs: number;
  /** No fault begins. */
  readonly calmFromMs: number;
  readonly calmUntilMs: number;
}

export interface Shape {
  readonly sectorSize: number;
  readonly cellCount: number;
  readonly extentSize: number; // bytes
  readonly keepdirty: number;
  /** Room before the data, where the second copy of the metadata lies; else it is in the block's tail. */
  readonly gap: boolean;
}

export interface Plan {
  readonly modes: readonly [Replication, Replication];
  readonly checksum: Checksum;
  readonly compression: Compression;
  readonly timeout: number; // seconds
  readonly shape: Shape;
  /** The nodes agree on no extension, as if one were FreeBSD's. */
  readonly legacy: boolean;
  readonly metaflush: readonly [boolean, boolean];
  /** The nodes cannot meet before; both are promoted meanwhile, or one. */
  readonly apartMs: number;
  readonly apartBoth: boolean;
  /** How fast each machine's clock runs. */
  readonly clockRates: readonly [number, number];
  /** Until the last fault. */
  readonly chaosMs: number;
  readonly rests: readonly Rest[];
  readonly networkDelayMs: number;
  /** Bytes that arrive within such a delay, at most. */
  readonly burst: number;
  readonly diskDelayMs: number;
  /** A failed flush loses part of what was in the cache, although reads still show it. */
  readonly flushLoses: boolean;
  /** Flushes succeed and do nothing: no node can keep its promises on such disks. */
  readonly flushLies: boolean;
  /** How often bytes arrive in small pieces. */
  readonly pieces: number;
  readonly connections: number;
  readonly depth: number;
  readonly thinkMs: number;
  readonly faults: readonly PlannedFault[];
}

/** What to leave of a seed's plan; `keep`: of its faults, those with these numbers. */
export type Changes = Partial<Omit<Plan, "faults">> & { readonly keep?: readonly number[] };

export function planOf(seed: number, changes: Changes = {}): Plan {
  const random = stream(seed, "plan");
  const sectorSize = random.pick([512, 512, 4096]);
  const cellCount = random.pick(sectorSize === 512 ? [64, 256, 640] : [16, 48, 96]);
  const small = Math.max(sectorSize, random.pick([4096, 16384, 65536]));
  // Some are longer than what is copied at once, over a line that carries such a piece in time.
  const long = stream(seed, "extents").chance(0.1);
  const extentSize = long ? 262_144 : small;
  const keepdirty = random.pick([2, 2, 4, 64]);
  const connections = random.pick([1, 2, 4]);
  const chaosMs = random.pick([10_000, 40_000, 120_000]);
  const mode = random.pick(["fullsync", "memsync", "async"] as const);
  const rate = (): number => (random.chance(0.8) ? 1 : random.pick([0.7, 0.9, 1.1, 1.3]));
  const { keep, ...knobs } = changes;
  const rests = changes.rests ?? (long ? [] : restsOf(stream(seed, "rests"), chaosMs));
  const calmMs = rests.reduce((sum, rest) => sum + calmOf(rest), 0);
  const drawn = {
    modes: [mode, mode] as const,
    checksum: random.pick(["none", "none", "crc32", "sha256"] as const),
    compression: random.pick(["none", "none", "hole", "lzf"] as const),
    timeout: random.pick([5, 20]),
    shape: shapeOf(
      { sectorSize, cellCount, extentSize, keepdirty, gap: random.chance(0.5) },
      rests.length > 0,
    ),
    legacy: random.chance(0.15),
    metaflush: [random.chance(0.85), random.chance(0.85)] as const,
    apartMs: random.pick([0, 0, 0, 0, 3_000, 15_000]),
    apartBoth: random.chance(0.5),
    clockRates: [rate(), rate()] as const,
    chaosMs: chaosMs + calmMs,
    rests,
    networkDelayMs: random.pick([0.1, 0.5, 5, 40]),
    burst: Math.max(random.pick([131_072, 131_072, 16_384, 2_048]), long ? 131_072 : 0),
    diskDelayMs: random.pick([0.1, 0.5, 4]),
    flushLies: false,
    pieces: random.pick([0, 0.05, 0.5]),
    connections,
    depth: random.pick([1, 3, 8]),
    // Some thousands of requests.
    thinkMs: Math.max(random.pick([3, 20, 200]), (connections * chaosMs) / 6_000),
    flushLoses: random.chance(0.5),
  };
  // A copy of everything is under way at once here, and its last piece is to arrive in time (docs/hast.conf.md).
  const copyMs = ((cellCount * sectorSize) / drawn.burst) * drawn.networkDelayMs;
  const burst = copyMs > drawn.timeout * 500 ? 16_384 : drawn.burst;
  const plan = { ...drawn, burst, ...knobs };
  const orders = stream(seed, "commands");
  const faults = [
    ...faultsOf(stream(seed, "faults"), FAULTS, [500, 2_000, 8_000], 0, chaosMs),
    ...(orders.chance(0.4) ? faultsOf(orders, ORDERS, [2_000, 8_000], FIRST_ORDER, chaosMs) : []),
  ]
    .map((fault) => ({ ...fault, atMs: outsideOf(rests, fault.atMs) }))
    .filter(
      ({ atMs, number }) => atMs < plan.chaosMs && (keep === undefined || keep.includes(number)),
    );
  return { ...plan, faults };
}

/**
 * In half of all worlds; some rest before the first fault. An extent becomes clean once it has aged twice, 30 s
 * each by the clock of its machine; some faults come at about that time.
 */
function restsOf(random: Random, chaosMs: number): Rest[] {
  if (random.chance(0.5)) return [];
  const rests: Rest[] = [];
  const count = random.pick([1, 2, 2, 4]);
  const soon = random.chance(0.7);
  let atMs = soon ? 2_000 + random.below(6_000) : 0;
  for (let index = 0; index < count; index++) {
    const first = soon && index === 0;
    if (!first) atMs += random.next() * (chaosMs / count);
    const untilMs = atMs + random.pick([100_000, 120_000, 150_000]);
    const calmUntilMs = untilMs - random.pick([0, 0, 5_000, 30_000]) * random.next();
    rests.push({ atMs, untilMs, calmFromMs: first ? 0 : atMs, calmUntilMs });
    atMs = untilMs;
  }
  return rests;
}

function calmOf({ calmFromMs, calmUntilMs }: Rest): number {
  return calmUntilMs - calmFromMs;
}

/** When something happens that would happen at `atMs` if nobody rested. */
function outsideOf(rests: readonly Rest[], atMs: number): number {
  let ms = atMs;
  for (const rest of rests) if (ms >= rest.calmFromMs) ms += calmOf(rest);
  return ms;
}

/** @param cleans extents shall become clean: so there are enough that may */
function shapeOf(shape: Shape, cleans: boolean): Shape {
  if (!cleans) return shape;
  const { sectorSize, cellCount, extentSize, keepdirty } = shape;
  const small = Math.max(sectorSize, 4096);
  const many = (sectorSize * cellCount) / extentSize >= 8;
  return { ...shape, extentSize: many ? extentSize : small, keepdirty: Math.min(keepdirty, 2) };
}

function faultsOf(
  random: Random,
  weights: Readonly<Partial<Record<FaultKind, number>>>,
  intervals: readonly number[],
  firstNumber: number,
  chaosMs: number,
): PlannedFault[] {
  const able = Object.entries(weights).filter(() => random.chance(0.5)) as [FaultKind, number][];
  if (able.length === 0) return [];
  const everyMs = random.pick(intervals);
  const faults: PlannedFault[] = [];
  for (let atMs = 0; ; ) {
    atMs += -Math.log(1 - random.next()) * everyMs;
    if (atMs >= chaosMs) return faults;
    faults.push({
      number: firstNumber + faults.length,
      atMs,
      kind: pickFault(random, able),
      seed: random.below(0x7fffffff),
    });
  }
}

function pickFault(random: Random, able: readonly [FaultKind, number][]): FaultKind {
  let at = random.next() * able.reduce((sum, [, weight]) => sum + weight, 0);
  for (const [kind, weight] of able) {
    at -= weight;
    if (at < 0) return kind;
  }
  return able.at(-1)![0];
}

/** Somebody's own chance in a world. */
export function stream(seed: number, name: string): Random {
  let hash = 0x811c9dc5;
  for (const char of `${seed} ${name}`) hash = Math.imul(hash ^ char.charCodeAt(0), 0x01000193);
  return new Random(hash);
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * A disk that knows, for each place, every value that a power cut could leave behind.
 *
 *   stable │ written │ written      the last one is what reads see; a flush drops those before it
 *
 * Places are the cells of the data area, 64 KiB each, which hold the number of the write that filled
 * them; then the metadata record and the activemap.
 */

import type { PrimaryRecord } from "../../src/replication/primary-io.ts";

/** Bytes. */
export const CELL = 65536;
export const EXTENT_CELLS = 4;
const EXTENTS = 4;
export const CELLS: number = EXTENTS * EXTENT_CELLS;
// Places behind the cells.
export const RECORD: number = CELLS;
export const MAP: number = CELLS + 1;
const PLACES = CELLS + 2;
/** Bytes of the map on disk; one sector, of which the first byte is used. */
export const REGION = 512;
export const ALL_ONES: number = (1 << EXTENTS) - 1;

/** What must hold does not. The message carries the story so far. */
export class Violation extends Error {
  override readonly name = "Violation";
}

/** mulberry32: small, and the same everywhere. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }
  chance(probability: number): boolean {
    return this.next() < probability;
  }
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }
}

/** The metadata block, as far as the cores have a say in it. */
export type Stored = PrimaryRecord & { readonly prevrole: "init" | "primary" | "secondary" };

/** As `hastctl create` leaves it. */
const BLANK: Stored = {
  resuid: 0n,
  localcnt: 0n,
  remotecnt: 0n,
  state: "new",
  synced: null,
  alone: false,
  prevrole: "init",
};

/** localcnt/remotecnt and state. */
export function words(record: Stored): string {
  return `${record.localcnt}/${record.remotecnt} ${record.state}${record.resuid === 0n ? " no id" : ""}`;
}

export const SOUND = { reads: false, writes: false, flushes: false } as const;

/** A request that has been submitted and may end, or not, at any time. */
export interface Op {
  readonly what: string;
  readonly writes: readonly { readonly place: number; readonly value: unknown }[];
  /** A flush: what was complete when it was submitted, per place. */
  readonly covers: readonly number[] | null;
  /** Whether a pretended failure may hit it. */
  readonly fallible: boolean;
  readonly done: (errno: number) => void;
}

export class PretendDisk {
  readonly #random: Random;
  #versions: unknown[][];
  readonly #dropped: number[] = new Array(PLACES).fill(0);
  ops: Op[] = [];
  /** What fails until the disk is mended: reads, writes, flushes. */
  broken: { readonly reads: boolean; readonly writes: boolean; readonly flushes: boolean } = SOUND;

  constructor(random: Random) {
    this.#random = random;
    this.#versions = [];
    this.wipe();
  }

  wipe(): void {
    this.#versions = Array.from({ length: PLACES }, (_, place) => [place === RECORD ? BLANK : 0]);
    this.#dropped.fill(0);
  }

  versions<T>(place: number): readonly T[] {
    return this.#versions[place] as T[];
  }

  cell(place: number): number {
    return this.#versions[place]!.at(-1) as number;
  }

  /** Is this the only value that a power cut could leave? */
  isSurely(place: number, value: unknown): boolean {
    const list = this.#versions[place]!;
    for (let index = 0; index < list.length; index++) if (list[index] !== value) return false;
    return true;
  }

  get record(): Stored {
    return this.#versions[RECORD]!.at(-1) as Stored;
  }

  write(what: string, writes: Op["writes"], fallible: boolean, done: Op["done"]): void {
    this.ops.push({ what, writes, covers: null, fallible, done });
  }

  read(what: string, done: Op["done"]): void {
    this.ops.push({ what, writes: [], covers: null, fallible: true, done });
  }

  flush(what: string, fallible: boolean, done: Op["done"]): void {
    const covers = this.#versions.map((list, place) => this.#dropped[place]! + list.length - 1);
    this.ops.push({ what, writes: [], covers, fallible, done });
  }

  fails(op: Op): boolean {
    const { reads, writes, flushes } = this.broken;
    if (op.covers !== null) return flushes;
    return op.writes.length > 0 ? writes : reads;
  }

  complete(op: Op, errno: number): void {
    this.ops.splice(this.ops.indexOf(op), 1);
    this.#apply(op, errno === 0 ? 1 : 0.5);
    if (op.covers !== null && errno === 0) {
      for (let place = 0; place < PLACES; place++) {
        const drop = op.covers[place]! - this.#dropped[place]!;
        if (drop <= 0) continue;
        this.#versions[place]!.splice(0, drop);
        this.#dropped[place]! += drop;
      }
    }
    op.done(errno);
  }

  #apply(op: Op, probability: number): void {
    for (const { place, value } of op.writes) {
      if (probability < 1 && !this.#random.chance(probability)) continue;
      this.#versions[place]!.push(value);
    }
  }

  /** The process is gone: what it had submitted ends, one way or the other (S-8). */
  orphan(): void {
    for (const op of this.ops) this.#apply(op, 0.5);
    this.ops = [];
  }

  /** A flush that is over before anything else happens, as an engine does when it opens a disk. */
  settle(): void {
    for (let place = 0; place < PLACES; place++) {
      const list = this.#versions[place]!;
      this.#dropped[place]! += list.length - 1;
      this.#versions[place] = [list.at(-1)];
    }
  }

  powerCut(): void {
    this.orphan();
    for (let place = 0; place < PLACES; place++) this.#lose(place);
  }

  /** A flush has failed: some of the data that were not stable are gone, and no later flush tells. */
  dropSome(): void {
    for (let cell = 0; cell < CELLS; cell++) if (this.#random.chance(0.5)) this.#lose(cell);
  }

  #lose(place: number): void {
    const list = this.#versions[place]!;
    this.#dropped[place]! += list.length - 1;
    this.#versions[place] = [this.#random.pick(list)];
  }
}

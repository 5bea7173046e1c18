// SPDX-License-Identifier: BSD-2-Clause
/**
 * A machine's disk with a volatile cache.
 *
 *   sector: stable, or what the last writes made of it:  v0 ─ v1 ─ v2     reads see the last;
 *                                                        └── a power cut leaves any of them
 *
 * A flush that succeeds makes stable what was written before it began. Sectors fail one by one, so that
 * a write of several may be torn. The data area holds cells (see pattern.ts), remembered as numbers.
 */

import type { Random } from "../model/disk.ts";
import type { Medium } from "../pretend/disk.ts";
import { cellContent, fillCells } from "./pattern.ts";
import { Violation } from "./violation.ts";

interface Versions<T> {
  readonly values: T[];
  /** When each was written, on the medium's own count; ascending. */
  readonly written: number[];
  /** A flush has failed: what was written up to then is in the cache, and no later flush takes it along. */
  lost: number;
}

export interface MediumShape {
  readonly sectorSize: number;
  /** Where the data area begins, and how many sectors it has. */
  readonly dataStart: number;
  readonly cellCount: number;
}

export class SimMedium implements Medium {
  readonly size: number;
  readonly sectorSize: number;
  readonly dataStart: number;
  readonly cellCount: number;
  readonly #name: string;
  readonly #random: Random;
  /** What the cells hold now, as reads see it. */
  readonly cells: Int32Array;
  readonly #raw: Uint8Array;
  /** Cells, then sectors before the data area, that a power cut may change. */
  readonly #unstable: Map<number, Versions<number>> = new Map();
  readonly #unstableRaw: Map<number, Versions<Uint8Array>> = new Map();
  #count = 0;
  /** Cells that have changed since somebody emptied this; may repeat. */
  readonly touched: number[] = [];
  /** Told what becomes of each cell. */
  onCell: ((cell: number, what: string) => void) | null = null;
  /** Told which cells forgetCached() has changed, or could have. */
  onForgotten: ((cells: readonly number[]) => void) | null = null;
  flushLies = false;
  /** Grows when something before the data area changes, or becomes stable. */
  rawChanges = 0;

  constructor(name: string, shape: MediumShape, random: Random) {
    this.#name = name;
    this.#random = random;
    this.sectorSize = shape.sectorSize;
    this.dataStart = shape.dataStart;
    this.cellCount = shape.cellCount;
    this.size = shape.dataStart + shape.cellCount * shape.sectorSize;
    this.cells = new Int32Array(shape.cellCount);
    this.#raw = new Uint8Array(shape.dataStart);
  }

  /** What a power cut could leave in a cell. */
  cellVersions(cell: number): readonly number[] {
    return this.#unstable.get(cell)?.values ?? [this.cells[cell]!];
  }

  isStable(cell: number): boolean {
    return !this.#unstable.has(cell);
  }

  /** What a power cut could leave in a sector before the data area. */
  rawVersions(sector: number): readonly Uint8Array[] {
    return this.#unstableRaw.get(sector)?.values ?? [this.#rawSector(sector)];
  }

  #rawSector(sector: number): Uint8Array {
    return this.#raw.subarray(sector * this.sectorSize, (sector + 1) * this.sectorSize);
  }

  peek(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    const { sectorSize } = this;
    for (let at = 0; at < length; at += sectorSize) {
      const cell = this.#cellAt(offset + at);
      if (cell < 0) {
        bytes.set(this.#raw.subarray(offset + at, offset + at + sectorSize), at);
      } else if (this.cells[cell] !== 0) {
        fillCells(bytes.subarray(at, at + sectorSize), cell, sectorSize, this.cells[cell]!);
      }
    }
    return bytes;
  }

  #cellAt(offset: number): number {
    return offset < this.dataStart ? -1 : (offset - this.dataStart) / this.sectorSize;
  }

  poke(offset: number, bytes: Uint8Array): void {
    this.pokeSome(offset, bytes, () => true);
  }

  /** A write of which only some sectors arrive. */
  pokeSome(offset: number, bytes: Uint8Array, arrives: () => boolean): void {
    const { sectorSize } = this;
    for (let at = 0; at < bytes.length; at += sectorSize) {
      const cell = this.#cellAt(offset + at);
      if (!arrives()) continue;
      if (cell < 0) {
        this.#putRaw((offset + at) / sectorSize, bytes.slice(at, at + sectorSize));
        continue;
      }
      const content = cellContent(bytes, at, cell, sectorSize);
      if (content < 0) {
        const head = Buffer.from(bytes.subarray(at, at + 16)).toString("hex");
        throw new Violation(`${this.#name}: bytes that nobody wrote go to cell ${cell}: ${head}…`);
      }
      this.#put(cell, content);
    }
  }

  zero(offset: number, length: number): void {
    this.zeroSome(offset, length, () => true);
  }

  zeroSome(offset: number, length: number, arrives: () => boolean): void {
    for (let at = 0; at < length; at += this.sectorSize) {
      if (arrives()) this.#put(this.#cellAt(offset + at), 0);
    }
  }

  #put(cell: number, value: number): void {
    let versions = this.#unstable.get(cell);
    if (versions === undefined) {
      versions = { values: [this.cells[cell]!], written: [0], lost: 0 };
      this.#unstable.set(cell, versions);
    }
    versions.values.push(value);
    versions.written.push(++this.#count);
    this.cells[cell] = value;
    this.touched.push(cell);
    this.onCell?.(cell, `${value} is in the cache`);
  }

  #putRaw(sector: number, value: Uint8Array): void {
    let versions = this.#unstableRaw.get(sector);
    if (versions === undefined) {
      versions = { values: [this.#rawSector(sector).slice()], written: [0], lost: 0 };
      this.#unstableRaw.set(sector, versions);
    }
    versions.values.push(value);
    versions.written.push(++this.#count);
    this.#raw.set(value, sector * this.sectorSize);
    this.rawChanges++;
  }

  flush(): () => void {
    if (this.flushLies) return () => {};
    const begun = this.#count;
    return () => {
      for (const cell of settle(this.#unstable, begun)) {
        this.onCell?.(cell, `stable: ${this.cellVersions(cell)[0]}`);
      }
      settle(this.#unstableRaw, begun);
      this.rawChanges++;
    };
  }

  /** A flush fails: as with Linux, sectors that it could not write count as written from then on. */
  loseSome(loses: () => boolean): void {
    for (const versions of this.#unstable.values()) if (loses()) versions.lost = this.#count;
    for (const versions of this.#unstableRaw.values()) if (loses()) versions.lost = this.#count;
  }

  /** What failed flushes left in the cache is gone: of such a sector, any version is what the disk holds. */
  forgetCached(): void {
    const forgotten: number[] = [];
    for (const [cell, { values, written, lost }] of this.#unstable) {
      if (written.at(-1)! > lost) continue;
      this.cells[cell] = this.#random.pick(values);
      this.touched.push(cell);
      forgotten.push(cell);
      this.#unstable.delete(cell);
      this.onCell?.(cell, `${this.cells[cell]} is on the disk, of ${values.join(", ")}`);
    }
    for (const [sector, { values, written, lost }] of this.#unstableRaw) {
      if (written.at(-1)! > lost) continue;
      this.#raw.set(this.#random.pick(values), sector * this.sectorSize);
      this.#unstableRaw.delete(sector);
    }
    this.rawChanges++;
    if (forgotten.length > 0) this.onForgotten?.(forgotten);
  }

  /** Of each sector, any version stays. */
  powerCut(): void {
    for (const [cell, { values }] of this.#unstable) {
      this.cells[cell] = this.#random.pick(values);
      this.touched.push(cell);
      this.onCell?.(cell, `${this.cells[cell]} is left, of ${values.join(", ")}`);
    }
    for (const [sector, { values }] of this.#unstableRaw) {
      this.#raw.set(this.#random.pick(values), sector * this.sectorSize);
    }
    this.#unstable.clear();
    this.#unstableRaw.clear();
    this.rawChanges++;
  }

  /** A stable cell has lost what it held. */
  spoil(cell: number): void {
    this.cells[cell] = 0;
    this.touched.push(cell);
    this.onCell?.(cell, "spoilt");
  }

  /** The operator writes, and flushes. @param wipe whether the data area becomes zeroes, too */
  format(head: Uint8Array, wipe: boolean): void {
    this.#raw.fill(0);
    this.#raw.set(head);
    this.#unstableRaw.clear();
    this.#unstable.clear();
    if (wipe) this.cells.fill(0);
    for (let cell = 0; cell < this.cellCount; cell++) this.touched.push(cell);
    this.rawChanges++;
  }

  allocation(
    _offset: number,
    length: number,
    _maxRanges: number,
    each: (length: number, hole: boolean) => void,
  ): number {
    each(length, false);
    return length;
  }
}

/**
 * What was written up to `begun` is stable: of it, only the last version can still be found.
 * @returns the sectors of which that is news
 */
function settle<T>(unstable: Map<number, Versions<T>>, begun: number): number[] {
  const settled: number[] = [];
  for (const [sector, { values, written, lost }] of unstable) {
    let last = 0;
    while (last + 1 < written.length && written[last + 1]! <= begun) last++;
    if (last === 0 || written[last]! <= lost) continue;
    settled.push(sector);
    if (last === values.length - 1) {
      unstable.delete(sector);
    } else {
      values.splice(0, last);
      written.splice(0, last);
    }
  }
  return settled;
}

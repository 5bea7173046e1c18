// SPDX-License-Identifier: BSD-2-Clause
/**
 * A disk with a volatile cache, in memory.
 *
 *   sector: stable │ written │ written      reads see the last one; a flush leaves only that;
 *                                           a power cut leaves any of them
 *
 * Sectors live and die alone, so a write of several can be torn. A disk that lies answers flushes and does
 * nothing about them.
 */

/** Bytes. A drive promises not to tear one. */
export const SECTOR_SIZE = 512;

export interface PowerCut {
  /** Sectors that had been written since the last flush. */
  readonly unflushed: number;
  /** Of those, the ones that now hold something older. */
  readonly lost: number;
}

export class VolatileDisk {
  /** What reads see. */
  readonly image: Buffer;
  /** From now on flushes succeed without making anything stable. */
  lying = false;
  /** By sector: what a power cut could leave, the stable content first. */
  readonly #versions = new Map<number, Buffer[]>();

  /** @param size bytes, a multiple of {@link SECTOR_SIZE}; all zeroes, and stable */
  constructor(size: number) {
    this.image = Buffer.alloc(size);
  }

  /** Sectors that have been written since the last flush. */
  get unflushed(): number {
    return this.#versions.size;
  }

  /** @param offset in bytes, like the length a multiple of {@link SECTOR_SIZE} */
  write(offset: number, bytes: Uint8Array): void {
    this.#remember(offset, bytes.length);
    this.image.set(bytes, offset);
    this.#record(offset, bytes.length);
  }

  zero(offset: number, length: number): void {
    this.#remember(offset, length);
    this.image.fill(0, offset, offset + length);
    this.#record(offset, length);
  }

  flush(): void {
    if (!this.lying) this.#versions.clear();
  }

  /** As FUA does it: this range alone becomes stable. */
  flushRange(offset: number, length: number): void {
    if (this.lying) return;
    for (let at = offset; at < offset + length; at += SECTOR_SIZE) {
      this.#versions.delete(at / SECTOR_SIZE);
    }
  }

  /**
   * @param chance a number from [0, 1), as Math.random() gives it: half of the unflushed sectors keep
   *   their last content, the others get one of those before
   */
  powerCut(chance: () => number): PowerCut {
    let lost = 0;
    for (const [sector, versions] of this.#versions) {
      const last = versions.length - 1;
      const kept = chance() < 0.5 ? last : Math.floor(chance() * last);
      if (!versions[kept]!.equals(versions[last]!)) lost++;
      this.image.set(versions[kept]!, sector * SECTOR_SIZE);
    }
    const { unflushed } = this;
    this.#versions.clear();
    return { unflushed, lost };
  }

  #remember(offset: number, length: number): void {
    for (let at = offset; at < offset + length; at += SECTOR_SIZE) {
      const sector = at / SECTOR_SIZE;
      if (!this.#versions.has(sector)) this.#versions.set(sector, [this.#content(at)]);
    }
  }

  #record(offset: number, length: number): void {
    for (let at = offset; at < offset + length; at += SECTOR_SIZE) {
      this.#versions.get(at / SECTOR_SIZE)!.push(this.#content(at));
    }
  }

  #content(at: number): Buffer {
    return Buffer.from(this.image.subarray(at, at + SECTOR_SIZE));
  }
}

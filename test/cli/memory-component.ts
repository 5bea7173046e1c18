// SPDX-License-Identifier: BSD-2-Clause
/** A component in memory that remembers what was done to it, so that its power can be cut afterwards. */

import { type Component, ComponentError } from "../../src/platform/component.ts";

const BLOCK = 4096;
const SECTOR = 512;

type Step =
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "resize"; readonly size: number }
  | { readonly kind: "flush" };

export class MemoryComponent implements Component {
  readonly path: string = "/disk";
  readonly kind: "file" | "block";
  readonly sectorSize: number;
  size: number;
  /** What was done, in order. */
  readonly steps: Step[] = [];
  closed = false;
  /** Fails the step of this number with ENOSPC, from 0. */
  failAt: number = Number.POSITIVE_INFINITY;
  readonly #blocks: Map<number, Uint8Array>;

  constructor(
    size: number,
    { kind = "file", sectorSize = 512 }: { kind?: "file" | "block"; sectorSize?: number } = {},
    blocks: Map<number, Uint8Array> = new Map(),
  ) {
    this.size = size;
    this.kind = kind;
    this.sectorSize = sectorSize;
    this.#blocks = blocks;
  }

  /** What the disk holds after the first `count` steps: all that was flushed, and what `survives` keeps of the rest. */
  static afterPowerCut(
    before: MemoryComponent,
    steps: readonly Step[],
    survives: () => boolean,
  ): MemoryComponent {
    const after = before.copy();
    const flushed = steps.findLastIndex((step) => step.kind === "flush");
    for (const [index, step] of steps.entries()) {
      if (step.kind === "resize") after.size = step.size;
      if (step.kind !== "write") continue;
      for (let at = 0; at < step.bytes.length; at += SECTOR) {
        if (index > flushed && !survives()) continue;
        after.put(step.offset + at, step.bytes.subarray(at, at + SECTOR));
      }
    }
    return after;
  }

  copy(): MemoryComponent {
    const blocks = new Map([...this.#blocks].map(([index, bytes]) => [index, bytes.slice()]));
    return new MemoryComponent(this.size, this, blocks);
  }

  /** Writes without a trace in `steps`. */
  put(offset: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const index = Math.floor((offset + at) / BLOCK);
      const within = (offset + at) % BLOCK;
      const part = bytes.subarray(at, at + BLOCK - within);
      const block = this.#blocks.get(index) ?? new Uint8Array(BLOCK);
      this.#blocks.set(index, block);
      block.set(part, within);
      at += part.length;
    }
  }

  get(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; ) {
      const within = (offset + at) % BLOCK;
      const count = Math.min(BLOCK - within, length - at);
      const block = this.#blocks.get(Math.floor((offset + at) / BLOCK));
      if (block !== undefined) bytes.set(block.subarray(within, within + count), at);
      at += count;
    }
    return bytes;
  }

  async readAt(offset: number, length: number): Promise<Uint8Array> {
    if (offset + length > this.size) throw new ComponentError("component-io", "past the end");
    return this.get(offset, length);
  }

  async writeAt(offset: number, bytes: Uint8Array): Promise<void> {
    if (offset + bytes.length > this.size) throw new ComponentError("component-io", "past the end");
    this.#step({ kind: "write", offset, bytes: bytes.slice() });
    this.put(offset, bytes);
  }

  async resize(size: number): Promise<void> {
    this.#step({ kind: "resize", size });
    this.size = size;
  }

  async flush(): Promise<void> {
    this.#step({ kind: "flush" });
  }

  async close(): Promise<void> {
    this.closed = true;
  }

  #step(step: Step): void {
    if (this.steps.length === this.failAt) {
      this.failAt = Number.POSITIVE_INFINITY;
      throw new ComponentError("component-io", "/disk: write at byte 0 failed (ENOSPC)");
    }
    this.steps.push(step);
  }
}

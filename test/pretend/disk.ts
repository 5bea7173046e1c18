// SPDX-License-Identifier: BSD-2-Clause
/**
 * A local component in memory.
 *
 *   medium: 64 KiB chunks, made when written; what is not there is a hole, and reads as zeroes
 *
 * Requests take effect when they complete: inside submit(), later, or when the test releases them.
 * A write's memory is looked at only then, so whoever changes it too early is found out. What a real
 * disk would assert is asserted here too.
 */

import { assert } from "../../src/base/assert.ts";
import type { Disk, DiskHandler } from "../../src/platform/disk.ts";
import type { Events } from "./events.ts";

const CHUNK = 65536;

export type DiskOp = "read" | "write" | "zero" | "flush";

export interface DiskRequest {
  readonly op: DiskOp;
  readonly token: number;
  readonly memory: number;
  readonly offset: number;
  readonly length: number;
}

export interface PretendDiskOptions {
  readonly events: Events;
  readonly arena: Uint8Array;
  /** Bytes. */
  readonly size: number;
  readonly sectorSize?: number;
  /** When requests complete: from inside submit(), from an event of their own, or by release(). */
  readonly completion?: "inside" | "later" | "held";
}

export class PretendDisk implements Disk {
  readonly path = "/pretend/disk";
  readonly kind = "file";
  readonly mediaSize: number;
  readonly sectorSize: number;
  readonly engine = "pretend";
  completion: "inside" | "later" | "held";
  /** Requests completed, oldest first. */
  readonly history: DiskRequest[] = [];
  /** Decides which requests fail: 0, or an errno. Asked when the request completes. */
  fail: (request: DiskRequest) => number = () => 0;
  closed = false;

  readonly #events: Events;
  #arena: Uint8Array;
  readonly #chunks: Map<number, Uint8Array> = new Map();
  #handler: DiskHandler | null = null;
  #queue: DiskRequest[] = [];
  readonly #running: Set<DiskRequest> = new Set();
  readonly #tokens: Set<number> = new Set();
  #submitting = false;
  #submitAgain = false;
  #idleQueued = false;
  #whenClosed: (() => void) | null = null;

  constructor(options: PretendDiskOptions) {
    this.#events = options.events;
    this.#arena = options.arena;
    this.mediaSize = options.size;
    this.sectorSize = options.sectorSize ?? 512;
    this.completion = options.completion ?? "inside";
  }

  // ---- the test's side ------------------------------------------------------------------------

  /** What the medium holds. */
  peek(offset: number, length: number): Uint8Array {
    assert(offset + length <= this.mediaSize);
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; ) {
      const chunk = this.#chunks.get(Math.floor((offset + at) / CHUNK));
      const within = (offset + at) % CHUNK;
      const part = Math.min(CHUNK - within, length - at);
      if (chunk !== undefined) bytes.set(chunk.subarray(within, within + part), at);
      at += part;
    }
    return bytes;
  }

  poke(offset: number, bytes: Uint8Array): void {
    assert(offset + bytes.length <= this.mediaSize);
    for (let at = 0; at < bytes.length; ) {
      const index = Math.floor((offset + at) / CHUNK);
      const within = (offset + at) % CHUNK;
      const part = Math.min(CHUNK - within, bytes.length - at);
      let chunk = this.#chunks.get(index);
      if (chunk === undefined) {
        chunk = new Uint8Array(CHUNK);
        this.#chunks.set(index, chunk);
      }
      chunk.set(bytes.subarray(at, at + part), within);
      at += part;
    }
  }

  /** Requests that have been submitted and are not complete. */
  get running(): readonly DiskRequest[] {
    return [...this.#running];
  }

  /** Completes held requests that match, oldest first. @returns how many */
  release(matches: (request: DiskRequest) => boolean = () => true): number {
    const matching = this.running.filter(matches);
    for (const request of matching) this.#complete(request);
    return matching.length;
  }

  /** The process is gone: what was under way never happens, and another one may open the disk. */
  abandon(arena: Uint8Array): void {
    this.#queue = [];
    this.#running.clear();
    this.#tokens.clear();
    this.#handler = null;
    this.#whenClosed = null;
    this.#arena = arena;
    this.closed = false;
  }

  // ---- Disk -----------------------------------------------------------------------------------

  attach(handler: DiskHandler): void {
    assert(this.#handler === null);
    this.#handler = handler;
  }

  read(token: number, memory: number, length: number, offset: number): void {
    assert(memory >= 0 && length > 0 && memory + length <= this.#arena.length);
    this.#enqueue({ op: "read", token, memory, offset, length });
  }

  write(token: number, memory: number, length: number, offset: number): void {
    assert(memory >= 0 && length > 0 && memory + length <= this.#arena.length);
    this.#enqueue({ op: "write", token, memory, offset, length });
  }

  zero(token: number, offset: number, length: number): void {
    this.#enqueue({ op: "zero", token, memory: -1, offset, length });
  }

  flush(token: number): void {
    this.#enqueue({ op: "flush", token, memory: -1, offset: 0, length: 0 });
  }

  #enqueue(request: DiskRequest): void {
    assert(this.#handler !== null);
    assert(this.#whenClosed === null && !this.closed, "a request after close()");
    assert(!this.#tokens.has(request.token), "a token is used for two requests at once");
    assert(request.offset >= 0);
    assert(request.offset + request.length <= this.mediaSize, "past the end of the disk");
    assert(request.offset % this.sectorSize === 0);
    assert(request.length % this.sectorSize === 0);
    this.#tokens.add(request.token);
    this.#queue.push(request);
  }

  submit(): void {
    if (this.#submitting) {
      this.#submitAgain = true;
      return;
    }
    this.#submitting = true;
    do {
      this.#submitAgain = false;
      for (const request of this.#queue.splice(0)) this.#start(request);
    } while (this.#submitAgain);
    this.#submitting = false;
    this.#closeWhenDone();
  }

  #start(request: DiskRequest): void {
    this.#running.add(request);
    if (this.completion === "inside") this.#complete(request);
    else if (this.completion === "later") this.#events.post(() => this.#complete(request));
  }

  #complete(request: DiskRequest): void {
    if (!this.#running.delete(request)) return; // abandoned
    this.#tokens.delete(request.token);
    const errno = this.fail(request);
    if (errno === 0) this.#carryOut(request);
    this.history.push(request);
    if (!this.#submitting && !this.#idleQueued) {
      this.#idleQueued = true;
      this.#events.post(() => {
        this.#idleQueued = false;
        this.#handler?.diskIdle();
      });
    }
    this.#handler!.diskDone(request.token, errno);
    if (!this.#submitting) this.#closeWhenDone();
  }

  #carryOut({ op, memory, offset, length }: DiskRequest): void {
    if (op === "read") this.#arena.set(this.peek(offset, length), memory);
    else if (op === "write") this.poke(offset, this.#arena.subarray(memory, memory + length));
    else if (op === "zero") this.#zero(offset, length);
  }

  #zero(offset: number, length: number): void {
    const end = offset + length;
    for (const [index, chunk] of this.#chunks) {
      const start = index * CHUNK;
      if (start >= end || start + CHUNK <= offset) continue;
      if (start >= offset && start + CHUNK <= end) this.#chunks.delete(index);
      else chunk.fill(0, Math.max(0, offset - start), Math.min(CHUNK, end - start));
    }
  }

  allocation(
    offset: number,
    length: number,
    maxRanges: number,
    each: (length: number, hole: boolean) => void,
  ): number {
    assert(length > 0 && maxRanges > 0 && offset + length <= this.mediaSize);
    const end = offset + length;
    let at = offset;
    for (let count = 0; count < maxRanges && at < end; count++) {
      const hole = !this.#chunks.has(Math.floor(at / CHUNK));
      let next = at;
      do next = Math.min(end, (Math.floor(next / CHUNK) + 1) * CHUNK);
      while (next < end && this.#chunks.has(Math.floor(next / CHUNK)) !== hole);
      each(next - at, hole);
      at = next;
    }
    return at - offset;
  }

  close(done: () => void): void {
    assert(this.#whenClosed === null && !this.closed);
    this.#whenClosed = done;
    this.submit();
  }

  #closeWhenDone(): void {
    const done = this.#whenClosed;
    if (done === null || this.#running.size > 0 || this.#queue.length > 0) return;
    this.#whenClosed = null;
    this.closed = true;
    this.#events.post(done);
  }
}

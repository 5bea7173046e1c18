// SPDX-License-Identifier: BSD-2-Clause
/**
 * A local component in memory: a process's way to a medium.
 *
 *   medium: 64 KiB chunks, made when written; what is not there is a hole, and reads as zeroes
 *
 * Requests take effect when they complete: inside submit(), later, or when the test releases them.
 * A write's memory is looked at when it starts and again then, so whoever fills it too late or changes it
 * too early is found out. What a real disk would assert is asserted here too.
 */

import { assert } from "../../src/base/assert.ts";
import type { Disk, DiskHandler } from "../../src/platform/disk.ts";
import type { Poster } from "./events.ts";

const CHUNK = 65536;

export type DiskOp = "read" | "write" | "zero" | "flush";

export interface DiskRequest {
  readonly op: DiskOp;
  readonly token: number;
  readonly memory: number;
  readonly offset: number;
  readonly length: number;
}

/** What keeps the bytes, whichever process uses it. */
export interface Medium {
  /** Bytes. */
  readonly size: number;
  /** What a process reads now. */
  peek(offset: number, length: number): Uint8Array;
  poke(offset: number, bytes: Uint8Array): void;
  zero(offset: number, length: number): void;
  /** A flush starts. @returns what to call if it succeeds: all that was there now survives a power cut */
  flush(): () => void;
  /** Reads show what the disk holds from now on, where its cache said otherwise. */
  forgetCached(): void;
  allocation(
    offset: number,
    length: number,
    maxRanges: number,
    each: (length: number, hole: boolean) => void,
  ): number;
}

/** A request that the disk works on. */
export interface RunningRequest extends DiskRequest {
  /** What a write writes. */
  readonly bytes: Uint8Array | null;
}

interface Running extends RunningRequest {
  readonly flushed: (() => void) | null;
}

export interface PretendDiskOptions {
  readonly events: Poster;
  readonly arena: Uint8Array;
  /** Bytes of a new medium. */
  readonly size: number;
  /** Instead of a new one. */
  readonly medium?: Medium;
  /** When "later" is, if it is not just another event. */
  readonly completions?: Poster;
  readonly sectorSize?: number;
  /** When requests complete: from inside submit(), from an event of their own, or by release(). */
  readonly completion?: "inside" | "later" | "held";
}

/** 64 KiB chunks, made when written; what is written is safe. */
class ChunkMedium implements Medium {
  readonly size: number;
  readonly #chunks: Map<number, Uint8Array> = new Map();

  constructor(size: number) {
    this.size = size;
  }

  peek(offset: number, length: number): Uint8Array {
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

  zero(offset: number, length: number): void {
    const end = offset + length;
    for (const [index, chunk] of this.#chunks) {
      const start = index * CHUNK;
      if (start >= end || start + CHUNK <= offset) continue;
      if (start >= offset && start + CHUNK <= end) this.#chunks.delete(index);
      else chunk.fill(0, Math.max(0, offset - start), Math.min(CHUNK, end - start));
    }
  }

  flush(): () => void {
    return () => {};
  }

  forgetCached(): void {}

  allocation(
    offset: number,
    length: number,
    maxRanges: number,
    each: (length: number, hole: boolean) => void,
  ): number {
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
  fail: (request: RunningRequest) => number = () => 0;
  closed = false;

  readonly #events: Poster;
  readonly #completions: Poster;
  readonly #medium: Medium;
  #arena: Uint8Array;
  #handler: DiskHandler | null = null;
  #queue: DiskRequest[] = [];
  readonly #running: Set<Running> = new Set();
  readonly #tokens: Set<number> = new Set();
  #submitting = false;
  #submitAgain = false;
  #idleQueued = false;
  #whenClosed: (() => void) | null = null;

  constructor(options: PretendDiskOptions) {
    this.#events = options.events;
    this.#completions = options.completions ?? options.events;
    this.#medium = options.medium ?? new ChunkMedium(options.size);
    this.#arena = options.arena;
    this.mediaSize = this.#medium.size;
    this.sectorSize = options.sectorSize ?? 512;
    this.completion = options.completion ?? "inside";
  }

  // ---- the test's side ------------------------------------------------------------------------

  /** What the medium holds. */
  peek(offset: number, length: number): Uint8Array {
    assert(offset + length <= this.mediaSize);
    return this.#medium.peek(offset, length);
  }

  poke(offset: number, bytes: Uint8Array): void {
    assert(offset + bytes.length <= this.mediaSize);
    this.#medium.poke(offset, bytes);
  }

  /** Requests that have been submitted and are not complete. */
  get running(): readonly RunningRequest[] {
    return [...this.#running];
  }

  /** Completes held requests that match, oldest first. @returns how many */
  release(matches: (request: DiskRequest) => boolean = () => true): number {
    const matching = [...this.#running].filter(matches);
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

  forgetCached(): number {
    assert(this.#running.size === 0 && this.#queue.length === 0);
    this.#medium.forgetCached();
    return 0;
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
    const { op, memory, length } = request;
    const bytes = op === "write" ? this.#arena.slice(memory, memory + length) : null;
    const running = { ...request, bytes, flushed: op === "flush" ? this.#medium.flush() : null };
    this.#running.add(running);
    if (this.completion === "inside") this.#complete(running);
    else if (this.completion === "later") this.#completions.post(() => this.#complete(running));
  }

  #complete(request: Running): void {
    if (!this.#running.delete(request)) return; // abandoned
    this.#tokens.delete(request.token);
    const errno = this.fail(request);
    if (errno === 0) this.#carryOut(request);
    const { op, token, memory, offset, length } = request;
    this.history.push({ op, token, memory, offset, length });
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

  #carryOut({ op, memory, offset, length, bytes, flushed }: Running): void {
    switch (op) {
      case "read":
        this.#arena.set(this.peek(offset, length), memory);
        return;
      case "write": {
        const now = this.#arena.subarray(memory, memory + length);
        assert(Buffer.compare(bytes!, now) === 0, "memory changed while it was being written");
        this.poke(offset, bytes!);
        return;
      }
      case "zero":
        this.#medium.zero(offset, length);
        return;
      case "flush":
        flushed!();
    }
  }

  allocation(
    offset: number,
    length: number,
    maxRanges: number,
    each: (length: number, hole: boolean) => void,
  ): number {
    assert(length > 0 && maxRanges > 0 && offset + length <= this.mediaSize);
    return this.#medium.allocation(offset, length, maxRanges, each);
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

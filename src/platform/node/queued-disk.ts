// SPDX-License-Identifier: BSD-2-Clause
/**
 * What every disk engine shares: the table of requests, their queue, and who is told when.
 *
 *   read(), write(), … ─► queue ─► submit() ─► startTransfer(token), … then started()
 *                                                  │
 *        diskDone(token) ◄─ complete(token) ◄──────┘  at once, or from the event loop
 */
import fs from "node:fs";
import { assert, unreachable } from "../../base/assert.ts";
import type { Disk, DiskHandler } from "../disk.ts";
import {
  EINTR,
  EINVAL,
  ENODEV,
  ENXIO,
  EOPNOTSUPP,
  FALLOC_KEEP_SIZE,
  FALLOC_PUNCH_HOLE,
  FALLOC_ZERO_RANGE,
  seekData,
  seekHole,
} from "./libc.ts";
import { TOKEN_COUNT, TokenQueue } from "./token-queue.ts";

export const OP_FREE = 0;
export const OP_READ = 1;
export const OP_WRITE = 2;
export const OP_ZERO = 3;
export const OP_FLUSH = 4;

/** How a zero() is being carried out; each way that the disk lacks leads to the next. */
const ZERO_BY_PUNCH = 0;
const ZERO_BY_RANGE = 1;
const ZERO_BY_WRITE = 2;

/** An opened local component, before an engine is chosen. */
export interface OpenedDisk {
  readonly path: string;
  readonly fd: number;
  readonly kind: "file" | "block";
  readonly mediaSize: number; // bytes
  readonly sectorSize: number; // bytes
  readonly arena: Buffer;
}

export abstract class QueuedDisk implements Disk {
  readonly path: string;
  readonly kind: "file" | "block";
  readonly mediaSize: number;
  readonly sectorSize: number;
  abstract readonly engine: string;

  protected readonly fd: number;
  protected readonly arena: Buffer;

  // One row per token, valid while op[token] is not OP_FREE.
  protected readonly op: Uint8Array = new Uint8Array(TOKEN_COUNT);
  protected readonly memory: Uint32Array = new Uint32Array(TOKEN_COUNT); // offset into the arena
  protected readonly length: Float64Array = new Float64Array(TOKEN_COUNT); // bytes
  protected readonly offset: Float64Array = new Float64Array(TOKEN_COUNT); // bytes into the disk
  protected readonly punch: Uint8Array = new Uint8Array(TOKEN_COUNT); // 1: a zero() that may give space back
  /** Bytes already transferred: the kernel may do less than it was asked to. */
  protected readonly progress: Float64Array = new Float64Array(TOKEN_COUNT);

  readonly #zeroStage = new Uint8Array(TOKEN_COUNT);
  #canPunch = true;
  #canZeroRange = true;

  readonly #queue = new TokenQueue();
  #handler: DiskHandler | null = null;
  #inFlight = 0;
  #submitting = false;
  #submitAgain = false;
  #grouping = false;
  #idleScheduled = false;
  #shut = false;
  #whenClosed: (() => void) | null = null;
  readonly #reportIdle = () => {
    this.#idleScheduled = false;
    this.#handler!.diskIdle();
  };

  constructor(opened: OpenedDisk) {
    this.path = opened.path;
    this.kind = opened.kind;
    this.mediaSize = opened.mediaSize;
    this.sectorSize = opened.sectorSize;
    this.fd = opened.fd;
    this.arena = opened.arena;
  }

  /** Begins to read or write; complete() may be called from inside. */
  protected abstract startTransfer(token: number): void;
  protected abstract startFlush(token: number): void;
  /** Begins fallocate(2) of the whole range; fallocated() is called later. */
  protected abstract startFallocate(token: number, mode: number): void;
  /** Begins to write zeroes over the range; complete() is called later. */
  protected abstract startZeroWrites(token: number): void;
  /** After the last start of a group. */
  protected abstract started(): void;
  /** Lets go of what the engine holds besides the descriptor. Nothing is in flight. */
  protected abstract release(): void;

  attach(handler: DiskHandler): void {
    assert(this.#handler === null);
    this.#handler = handler;
  }

  read(token: number, memory: number, length: number, offset: number): void {
    this.#enqueueTransfer(OP_READ, token, memory, length, offset);
  }

  write(token: number, memory: number, length: number, offset: number): void {
    this.#enqueueTransfer(OP_WRITE, token, memory, length, offset);
  }

  zero(token: number, offset: number, length: number, punch: boolean): void {
    assert(length > 0);
    this.#enqueue(OP_ZERO, token, length, offset);
    this.punch[token] = punch ? 1 : 0;
  }

  flush(token: number): void {
    this.#enqueue(OP_FLUSH, token, 0, 0);
  }

  #enqueueTransfer(
    op: number,
    token: number,
    memory: number,
    length: number,
    offset: number,
  ): void {
    assert(memory >= 0);
    assert(length > 0);
    assert(memory + length <= this.arena.length);
    this.#enqueue(op, token, length, offset);
    this.memory[token] = memory;
  }

  #enqueue(op: number, token: number, length: number, offset: number): void {
    assert(this.#handler !== null);
    assert(!this.#shut, "a request after close()");
    assert(token >= 0);
    assert(token < TOKEN_COUNT);
    assert(this.op[token] === OP_FREE, "a token is used for two requests at once");
    assert(offset >= 0);
    assert(offset + length <= this.mediaSize, "a request reaches past the end of the disk");
    assert(offset % this.sectorSize === 0);
    assert(length % this.sectorSize === 0);
    this.op[token] = op;
    this.length[token] = length;
    this.offset[token] = offset;
    this.progress[token] = 0;
    this.#queue.push(token);
    this.#inFlight += 1;
  }

  submit(): void {
    if (this.#submitting) {
      // From inside diskDone(): the loop below goes round once more.
      this.#submitAgain = true;
      return;
    }
    this.#submitting = true;
    do {
      this.#submitAgain = false;
      for (let count = this.#queue.length; count > 0; count--) this.#start(this.#queue.shift());
      this.started();
    } while (this.#submitAgain);
    this.#submitting = false;
    this.#closeWhenDrained();
  }

  #start(token: number): void {
    const op = this.op[token]!;
    switch (op) {
      case OP_READ:
      case OP_WRITE:
        this.startTransfer(token);
        break;
      case OP_ZERO:
        this.#zeroStage[token] = this.punch[token] === 1 ? ZERO_BY_PUNCH : ZERO_BY_RANGE;
        this.#zero(token);
        break;
      case OP_FLUSH:
        this.startFlush(token);
        break;
      default:
        unreachable(op as never);
    }
  }

  #zero(token: number): void {
    if (this.#zeroStage[token] === ZERO_BY_PUNCH && !this.#canPunch) {
      this.#zeroStage[token] = ZERO_BY_RANGE;
    }
    if (this.#zeroStage[token] === ZERO_BY_RANGE && !this.#canZeroRange) {
      this.#zeroStage[token] = ZERO_BY_WRITE;
    }
    if (this.#zeroStage[token] === ZERO_BY_WRITE) {
      this.startZeroWrites(token);
    } else {
      const way = this.#zeroStage[token] === ZERO_BY_PUNCH ? FALLOC_PUNCH_HOLE : FALLOC_ZERO_RANGE;
      this.startFallocate(token, way | FALLOC_KEEP_SIZE);
    }
  }

  /** What came of startFallocate(). */
  protected fallocated(token: number, errno: number): void {
    const stage = this.#zeroStage[token]!;
    if (errno === EINTR) {
      this.#zero(token);
    } else if (errno === EOPNOTSUPP || errno === ENODEV || errno === EINVAL) {
      // EINVAL may be this range's fault; the others are the disk's, for good.
      if (errno !== EINVAL) {
        if (stage === ZERO_BY_PUNCH) this.#canPunch = false;
        else this.#canZeroRange = false;
      }
      this.#zeroStage[token] = stage + 1;
      this.#zero(token);
    } else {
      this.complete(token, errno);
    }
  }

  /** Runs `completions`, which may call complete() many times, and tells the handler after the last. */
  protected group(completions: () => void): void {
    this.#grouping = true;
    completions();
    this.#grouping = false;
    this.#handler!.diskIdle();
  }

  /** The request is over, and its token free again. */
  protected complete(token: number, errno: number): void {
    assert(this.op[token] !== OP_FREE);
    this.op[token] = OP_FREE;
    this.#inFlight -= 1;
    if (!this.#submitting && !this.#grouping && !this.#idleScheduled) {
      // An immediate runs after everything the event loop has ready now, so that one
      // diskIdle() answers for a whole group.
      this.#idleScheduled = true;
      setImmediate(this.#reportIdle);
    }
    this.#handler!.diskDone(token, errno);
    if (!this.#submitting) this.#closeWhenDrained();
  }

  abstract forgetCached(): number;

  allocation(
    offset: number,
    length: number,
    maxRanges: number,
    each: (length: number, hole: boolean) => void,
  ): number {
    assert(length > 0);
    assert(maxRanges > 0);
    assert(offset + length <= this.mediaSize);
    const end = offset + length;
    let at = offset;
    for (let count = 0; count < maxRanges && at < end; count++) {
      const data = seekData(this.fd, at);
      let next = end;
      let hole = false;
      if (data < 0) {
        // ENXIO: only a hole is left. Anything else: this file system, or device, cannot tell.
        hole = data === -ENXIO;
      } else if (data > at) {
        hole = true;
        next = Math.min(data, end);
      } else {
        const after = seekHole(this.fd, at);
        if (after > at) next = Math.min(after, end);
      }
      each(next - at, hole);
      at = next;
    }
    return at - offset;
  }

  close(done: () => void): void {
    assert(!this.#shut);
    this.#shut = true;
    this.#whenClosed = done;
    this.submit();
  }

  #closeWhenDrained(): void {
    const done = this.#whenClosed;
    if (done === null || this.#inFlight > 0) return;
    this.#whenClosed = null;
    this.release();
    // An error of close(2) tells nothing: who needed data on the disk has flushed, and heard how that went.
    fs.close(this.fd, () => done());
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * A disk through the page cache.
 *
 *   "sync"        reads and writes are system calls inside submit(), in the order they were queued:
 *                 the cheapest way where pages are warm
 *   "threadpool"  reads and writes run on libuv's pool, in no order
 *
 * With either, zero() and flush(), which can take long, run on the pool, beside later requests.
 */
import fs from "node:fs";
import { assert } from "../../base/assert.ts";
import { dropCleanPages, EINTR, EIO, fallocateAsync, lastErrno } from "./libc.ts";
import { OP_READ, type OpenedDisk, QueuedDisk } from "./queued-disk.ts";
import { TOKEN_COUNT, TokenQueue } from "./token-queue.ts";

/** Bytes of zeroes written at once where fallocate() is not to be had. */
const ZERO_PIECE_SIZE = 1 << 20;

/** fallocate() calls under way at once: libuv's pool has four threads, koffi a limit of 256 calls. */
const FALLOCATE_MAX = 16;

type TransferDone = (error: NodeJS.ErrnoException | null, count: number) => void;

/** What the pool calls back, made once per token, at its first use. */
interface Callbacks {
  readonly transferred: TransferDone;
  readonly flushed: (error: NodeJS.ErrnoException | null) => void;
  readonly fallocated: (error: Error | null, result: number) => void;
  readonly zeroesWritten: TransferDone;
}

export class BufferedDisk extends QueuedDisk {
  readonly engine: "sync" | "threadpool";
  readonly #callbacks: (Callbacks | undefined)[] = new Array(TOKEN_COUNT).fill(undefined);
  readonly #fallocateMode = new Uint8Array(TOKEN_COUNT);
  readonly #fallocateWaiting = new TokenQueue();
  #fallocateCount = 0;
  #zeroes: Buffer | null = null;

  constructor(opened: OpenedDisk, engine: "sync" | "threadpool") {
    super(opened);
    this.engine = engine;
  }

  override forgetCached(): number {
    return dropCleanPages(this.fd);
  }

  protected override startTransfer(token: number): void {
    if (this.engine === "sync") this.complete(token, this.#transferNow(token));
    else this.#transferLater(token);
  }

  protected override startFlush(token: number): void {
    fs.fdatasync(this.fd, this.#callbacksOf(token).flushed);
  }

  protected override startFallocate(token: number, mode: number): void {
    this.#fallocateMode[token] = mode;
    if (this.#fallocateCount === FALLOCATE_MAX) this.#fallocateWaiting.push(token);
    else this.#fallocate(token);
  }

  protected override startZeroWrites(token: number): void {
    this.#writeZeroes(token);
  }

  protected override started(): void {}

  protected override release(): void {}

  /** @returns errno */
  #transferNow(token: number): number {
    const isRead = this.op[token] === OP_READ;
    let memory = this.memory[token]!;
    let offset = this.offset[token]!;
    let remaining = this.length[token]!;
    while (remaining > 0) {
      let count: number;
      try {
        count = isRead
          ? fs.readSync(this.fd, this.arena, memory, remaining, offset)
          : fs.writeSync(this.fd, this.arena, memory, remaining, offset);
      } catch (error) {
        const errno = errnoOf(error as NodeJS.ErrnoException);
        if (errno === EINTR) continue;
        return errno;
      }
      if (count === 0) return EIO; // the file has become shorter than it was
      memory += count;
      offset += count;
      remaining -= count;
    }
    return 0;
  }

  #transferLater(token: number): void {
    const progress = this.progress[token]!;
    const memory = this.memory[token]! + progress;
    const length = this.length[token]! - progress;
    const offset = this.offset[token]! + progress;
    const done = this.#callbacksOf(token).transferred;
    if (this.op[token] === OP_READ) fs.read(this.fd, this.arena, memory, length, offset, done);
    else fs.write(this.fd, this.arena, memory, length, offset, done);
  }

  #fallocate(token: number): void {
    this.#fallocateCount += 1;
    fallocateAsync(
      this.fd,
      this.#fallocateMode[token]!,
      this.offset[token]!,
      this.length[token]!,
      this.#callbacksOf(token).fallocated,
    );
  }

  #writeZeroes(token: number): void {
    this.#zeroes ??= Buffer.alloc(ZERO_PIECE_SIZE);
    const progress = this.progress[token]!;
    fs.write(
      this.fd,
      this.#zeroes,
      0,
      Math.min(this.length[token]! - progress, ZERO_PIECE_SIZE),
      this.offset[token]! + progress,
      this.#callbacksOf(token).zeroesWritten,
    );
  }

  #callbacksOf(token: number): Callbacks {
    let callbacks = this.#callbacks[token];
    if (callbacks === undefined) {
      callbacks = {
        transferred: (error, count) => {
          if (this.#advance(token, error, count)) this.#transferLater(token);
        },
        flushed: (error) => this.complete(token, error === null ? 0 : errnoOf(error)),
        fallocated: (error, result) => {
          const errno = result < 0 ? lastErrno() : 0;
          assert(error === null);
          this.#fallocateCount -= 1;
          this.fallocated(token, errno);
          if (this.#fallocateCount < FALLOCATE_MAX && this.#fallocateWaiting.length > 0) {
            this.#fallocate(this.#fallocateWaiting.shift());
          }
        },
        zeroesWritten: (error, count) => {
          if (this.#advance(token, error, count)) this.#writeZeroes(token);
        },
      };
      this.#callbacks[token] = callbacks;
    }
    return callbacks;
  }

  /** Books what a call on the pool has done. @returns whether the request needs another one */
  #advance(token: number, error: NodeJS.ErrnoException | null, count: number): boolean {
    if (error !== null) {
      const errno = errnoOf(error);
      if (errno === EINTR) return true;
      this.complete(token, errno);
      return false;
    }
    if (count === 0) {
      this.complete(token, EIO);
      return false;
    }
    this.progress[token]! += count;
    if (this.progress[token]! < this.length[token]!) return true;
    this.complete(token, 0);
    return false;
  }
}

function errnoOf(error: NodeJS.ErrnoException): number {
  // Node's own complaints have no errno; they are our misuse.
  if (error.errno === undefined) throw error;
  return -error.errno;
}

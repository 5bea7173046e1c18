// SPDX-License-Identifier: BSD-2-Clause
/**
 * One local component: a regular file or a block device, opened read/write and locked.
 *
 * Requests are queued with read(), write(), zero() and flush(), and start at submit(). Each
 * ends with exactly one call of handler.diskDone(), from inside submit() or later, in any order:
 * the caller orders what overlaps. Memory is named by its offset into the arena given at opening.
 */

export interface DiskHandler {
  /**
   * @param token as given with the request
   * @param errno 0, or a positive Linux errno; a short transfer is reported as EIO (5)
   */
  diskDone(token: number, errno: number): void;
  /** After the last of a group of diskDone() calls made outside submit(): the time to act on them. */
  diskIdle(): void;
}

export interface Disk {
  readonly path: string;
  readonly kind: "file" | "block";
  /** Bytes, when it was opened. */
  readonly mediaSize: number;
  /** Bytes; offsets and lengths are multiples of it, memory may lie anywhere. 512 for a file. */
  readonly sectorSize: number;
  /** What carries the data, for status: "sync", "threadpool" or "io_uring". */
  readonly engine: string;

  /** Set once, before the first request. */
  attach(handler: DiskHandler): void;

  /** Reads `length` bytes at `offset` of the disk into the arena at `memory`. */
  read(token: number, memory: number, length: number, offset: number): void;
  /** Writes; the memory must not change before diskDone(). */
  write(token: number, memory: number, length: number, offset: number): void;
  /**
   * Makes the range read as zeroes.
   * @param punch true where the space may be given back (TRIM), false where it stays allocated
   */
  zero(token: number, offset: number, length: number, punch: boolean): void;
  /** Everything completed before this call survives a power cut afterwards. */
  flush(token: number): void;
  /**
   * Forgets what is cached of the disk and needs no writing, so that reads show what the disk holds: what
   * a flush has failed to write counts as written in Linux's page cache, and stays there. Synchronous;
   * nothing is in flight.
   * @returns 0 or a positive Linux errno
   */
  forgetCached(): number;
  /** Starts what has been queued since the last call. */
  submit(): void;

  /**
   * The allocation of [offset, offset + length): calls `each` for consecutive ranges that cover it.
   * Where the file system cannot tell, one range, allocated. Synchronous, bounded by `maxRanges`.
   * @returns bytes covered, > 0
   */
  allocation(
    offset: number,
    length: number,
    maxRanges: number,
    each: (length: number, hole: boolean) => void,
  ): number;

  /** Waits for requests in flight, then closes (which unlocks). `done` is called once. */
  close(done: () => void): void;
}

/** A component that cannot be used. The message names the path, what is true and what to do next. */
export class DiskError extends Error {
  override readonly name = "DiskError";
  /** An errno name: "ENOENT", "EACCES", "EBUSY" (in use), "EFTYPE" (neither file nor block device), … */
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

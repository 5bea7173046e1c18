// SPDX-License-Identifier: BSD-2-Clause
/**
 * A disk through io_uring, past the page cache (O_DIRECT).
 *
 * The device wants memory aligned to its sectors, and a payload lies wherever the socket's read put it:
 * then the bytes go through a bounce slot, which costs less than a tenth of a microsecond per 4 KiB.
 *
 *   aligned:     arena ◄────────────────► device
 *   otherwise:   arena ◄─► bounce slot ◄─► device      one slot at a time per request, piece by piece
 */

import { assert } from "../../base/assert.ts";
import { createArena } from "./arena.ts";
import { addressOf, EINTR, EIO } from "./libc.ts";
import {
  OP_FLUSH,
  OP_READ,
  OP_WRITE,
  OP_ZERO,
  type OpenedDisk,
  QueuedDisk,
} from "./queued-disk.ts";
import {
  IORING_FSYNC_DATASYNC,
  IORING_OP_FALLOCATE,
  IORING_OP_FSYNC,
  IORING_OP_READ,
  IORING_OP_WRITE,
  Ring,
} from "./ring.ts";
import { TOKEN_COUNT, TokenQueue } from "./token-queue.ts";

/** The largest request between two HAST nodes (MAXPHYS of FreeBSD 12), so that it fits one slot. */
const SLOT_SIZE = 128 * 1024;
/** HAST_HIO_MAX requests. Pages are real only once used, and slots are reused last in, first out. */
const SLOT_COUNT = 256;
const NO_SLOT = -1;

/** The kernel moves at most 2 GiB less a page at once. */
const TRANSFER_MAX = 1 << 30;
const ZERO_PIECE_SIZE = 1 << 20;

export class UringDisk extends QueuedDisk {
  readonly engine = "io_uring";
  readonly #ring: Ring;
  readonly #arenaAddress: number;
  readonly #bounce: Buffer;
  readonly #bounceAddress: number;
  readonly #freeSlots = new Int16Array(SLOT_COUNT);
  #freeSlotCount = SLOT_COUNT;
  /** Requests that wait for a slot. */
  readonly #waiting = new TokenQueue();
  readonly #slot = new Int16Array(TOKEN_COUNT).fill(NO_SLOT);
  /** 1: this zero() is being written, rather than allocated. */
  readonly #writesZeroes = new Uint8Array(TOKEN_COUNT);
  #zeroes: { readonly bytes: Buffer; readonly address: number } | null = null;

  /**
   * Tries io_uring on a descriptor that has O_DIRECT: reads its first sector.
   *
   * @returns -errno where the kernel forbids it, or the disk cannot be read like that
   */
  static open(opened: OpenedDisk): UringDisk | number {
    const ring = Ring.open(TOKEN_COUNT);
    if (typeof ring === "number") return ring;
    const disk = new UringDisk(opened, ring);
    const result = disk.#probe();
    if (result !== opened.sectorSize) {
      ring.close();
      return result < 0 ? result : -EIO;
    }
    ring.watch(disk.#ready);
    return disk;
  }

  private constructor(opened: OpenedDisk, ring: Ring) {
    super(opened);
    this.#ring = ring;
    this.#arenaAddress = addressOf(opened.arena);
    this.#bounce = createArena(SLOT_SIZE * SLOT_COUNT);
    this.#bounceAddress = addressOf(this.#bounce);
    for (let index = 0; index < SLOT_COUNT; index++) {
      this.#freeSlots[index] = SLOT_COUNT - 1 - index;
    }
  }

  #probe(): number {
    let result = 0;
    this.#ring.prepare(IORING_OP_READ, this.fd, this.#bounceAddress, this.sectorSize, 0, 0, 0);
    this.#ring.submitAndWait();
    this.#ring.reap((_tag, value) => {
      result = value;
    });
    return result;
  }

  override forgetCached(): number {
    return 0; // O_DIRECT: nothing is cached here
  }

  protected override startTransfer(token: number): void {
    const progress = this.progress[token]!;
    const memory = this.memory[token]! + progress;
    const remaining = this.length[token]! - progress;
    const address = this.#arenaAddress + memory;
    if (address % this.sectorSize === 0) {
      this.#prepareTransfer(token, address, Math.min(remaining, TRANSFER_MAX));
      return;
    }
    if (this.#freeSlotCount === 0) {
      this.#waiting.push(token);
      return;
    }
    this.#freeSlotCount -= 1;
    const slot = this.#freeSlots[this.#freeSlotCount]!;
    this.#slot[token] = slot;
    const length = Math.min(remaining, SLOT_SIZE);
    if (this.op[token] === OP_WRITE) {
      this.arena.copy(this.#bounce, slot * SLOT_SIZE, memory, memory + length);
    }
    this.#prepareTransfer(token, this.#bounceAddress + slot * SLOT_SIZE, length);
  }

  #prepareTransfer(token: number, address: number, length: number): void {
    const opcode = this.op[token] === OP_READ ? IORING_OP_READ : IORING_OP_WRITE;
    const offset = this.offset[token]! + this.progress[token]!;
    this.#ring.prepare(opcode, this.fd, address, length, offset, 0, token);
  }

  protected override startFlush(token: number): void {
    this.#ring.prepare(IORING_OP_FSYNC, this.fd, 0, 0, 0, IORING_FSYNC_DATASYNC, token);
  }

  protected override startFallocate(token: number, mode: number): void {
    const [offset, length] = [this.offset[token]!, this.length[token]!];
    this.#writesZeroes[token] = 0;
    this.#ring.prepare(IORING_OP_FALLOCATE, this.fd, length, mode, offset, 0, token);
  }

  protected override startZeroWrites(token: number): void {
    if (this.#zeroes === null) {
      const bytes = createArena(ZERO_PIECE_SIZE);
      this.#zeroes = { bytes, address: addressOf(bytes) };
    }
    this.#writesZeroes[token] = 1;
    const remaining = this.length[token]! - this.progress[token]!;
    this.#prepareTransfer(token, this.#zeroes.address, Math.min(remaining, ZERO_PIECE_SIZE));
  }

  protected override started(): void {
    this.#ring.submit();
  }

  protected override release(): void {
    assert(this.#freeSlotCount === SLOT_COUNT);
    this.#ring.close();
  }

  readonly #ready = (): void => this.group(this.#reap);

  readonly #reap = (): void => {
    this.#ring.reap(this.#completed);
    this.#ring.submit();
  };

  readonly #completed = (token: number, result: number): void => {
    const op = this.op[token];
    if (op === OP_FLUSH) {
      if (result === -EINTR) this.startFlush(token);
      else this.complete(token, result < 0 ? -result : 0);
    } else if (op === OP_ZERO && this.#writesZeroes[token] === 0) {
      this.fallocated(token, result < 0 ? -result : 0);
    } else {
      this.#transferred(token, result);
    }
  };

  #transferred(token: number, result: number): void {
    const slot = this.#slot[token]!;
    if (slot !== NO_SLOT) {
      if (this.op[token] === OP_READ && result > 0) {
        const memory = this.memory[token]! + this.progress[token]!;
        this.#bounce.copy(this.arena, memory, slot * SLOT_SIZE, slot * SLOT_SIZE + result);
      }
      this.#slot[token] = NO_SLOT;
      this.#freeSlots[this.#freeSlotCount] = slot;
      this.#freeSlotCount += 1;
    }
    if (result > 0) this.progress[token]! += result;
    const progress = this.progress[token]!;
    if (result < 0 && result !== -EINTR) {
      this.complete(token, -result);
    } else if (progress === this.length[token]!) {
      this.complete(token, 0);
    } else if (result === 0 || progress % this.sectorSize !== 0) {
      this.complete(token, EIO); // the device ends here, or in the middle of a sector
    } else if (this.op[token] === OP_ZERO) {
      this.startZeroWrites(token);
    } else {
      this.startTransfer(token);
    }
    while (this.#freeSlotCount > 0 && this.#waiting.length > 0) {
      this.startTransfer(this.#waiting.shift());
    }
  }
}

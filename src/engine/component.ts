// SPDX-License-Identifier: BSD-2-Clause
/** A resource's local component as a worker uses it: its metadata, its map, and the data behind them. */

import { assert } from "../base/assert.ts";
import { METADATA_SIZE, type Metadata, stateOf } from "../metadata/block.ts";
import { type CopyWrite, copyWrites, type Found, findMetadata } from "../metadata/copies.ts";
import type { Layout } from "../metadata/layout.ts";
import type { Disk, DiskHandler } from "../platform/disk.ts";
import { SLOT_COUNT } from "../replication/requests.ts";
import { errnoText } from "../wire/errno.ts";
import type { Memory } from "./memory.ts";

// Disk tokens above the slots.
const LOAD: number = SLOT_COUNT;
const MAP_WRITE: number = SLOT_COUNT + 1;
const MAP_FLUSH: number = SLOT_COUNT + 2;
const RECORD_WRITE: number = SLOT_COUNT + 3;
const RECORD_FLUSH: number = SLOT_COUNT + 4;
const FLUSH: number = SLOT_COUNT + 5;

const ERR_IO = 5;

/** Where in the arena: the metadata block, then a run of the map. */
const RECORD_AT = 0;
const MAP_AT = METADATA_SIZE;
export const MAP_STAGING_SIZE: number = 256 * 1024;

export interface ComponentHandler {
  /** A slot's read, write or zero has ended. */
  slotDone(slot: number, errno: number): void;
  recordWritten(errno: number): void;
  mapWritten(errno: number): void;
  flushed(errno: number): void;
  /** After completions that came by themselves. */
  batchEnd(): void;
}

/** Where map changes come from: the activemap, or a secondary's all-zero map. */
export interface MapChanges {
  takeChanges(staging: Uint8Array): number;
  readonly takenLength: number;
  changesPersisted(offset: number, staging: Uint8Array, length: number): void;
}

export class Component implements DiskHandler {
  readonly disk: Disk;
  readonly #memory: Memory;
  #metadata: Metadata | null = null;
  #layout: Layout | null = null;
  #handler: ComponentHandler | null = null;
  #loaded: ((errno: number) => void) | null = null;
  #closing = false;

  /** The tokens of the flushes that are asked for, the one on its way first. */
  readonly #flushes: number[] = [];
  #flushesFailed = 0;
  #hasFlushed = false;

  /** The copies of the metadata that are still to be written, the one on its way first. */
  readonly #recordWrites: CopyWrite[] = [];
  /** #flushesFailed when the write on its way began; the same of a round of the map. */
  #recordFailures = 0;

  #mapSource: MapChanges | null = null;
  #mapFlush = true;
  #mapFailures = 0;
  /** The runs of this round, kept in staging until they are stable. */
  readonly #mapRuns: { offset: number; at: number; length: number }[] = [];
  #mapStaged = 0;

  /** The disk must not have been attached to anything else. */
  constructor(disk: Disk, memory: Memory) {
    this.disk = disk;
    this.#memory = memory;
    disk.attach(this);
  }

  get metadata(): Metadata {
    assert(this.#metadata !== null);
    return this.#metadata;
  }

  get layout(): Layout {
    assert(this.#layout !== null);
    return this.#layout;
  }

  /**
   * Reads and checks the metadata. What a killed worker wrote may lie in the page cache only, so it is
   * flushed before anybody relies on it, the map included; and what an earlier flush failed to write is
   * there as well, counts as written and never will be, so the cache is not believed (invariant 6). Where one of the two copies of the metadata is
   * missing or damaged, it is written again; where the map was kept without flushes and not closed in
   * good order, every extent is marked (S-21). Where that flush fails, the copy of a secondary is called
   * inconsistent, before it throws.
   * @param warn hears of either
   * @throws MetadataError, or an Error with the errno of a failed read or write
   */
  async load(resource: string, warn: (text: string) => void): Promise<void> {
    const { path } = this.disk;
    try {
      await this.#flushNow();
    } catch (error) {
      throw await this.#lost(resource, error as Error);
    }
    const found = await this.#find(resource);
    if (found.damage !== null) warn(`${path}: ${found.damage}; it is written again`);
    if (found.rewrite) await this.#store(found.metadata);
    if (found.metadata.unflushed === true) {
      warn(
        `${path}: the last worker ran with "metaflush off" and did not end in good order, so its map of ` +
          "dirty extents cannot be relied upon: all of them are synchronized",
      );
      await this.markAll();
      await this.storeRecord({ unflushed: undefined });
    }
  }

  /** Reads the metadata from the disk itself. */
  async #find(resource: string): Promise<Found> {
    const { path, mediaSize, sectorSize } = this.disk;
    const errno = this.disk.forgetCached();
    if (errno !== 0) throw new Error(`forgetting what is cached of ${path}: ${errnoText(errno)}`);
    const media = { mediaSize, sectorSize };
    const found = await findMetadata(resource, media, (offset, length) =>
      this.#read(offset, length),
    );
    this.#metadata = found.metadata;
    this.#layout = found.layout;
    return found;
  }

  /**
   * What a worker before this one wrote is lost, and the next flush succeeds without it. A secondary's copy has
   * no bit for that: it is put on record that it lacks something, as when a request fails (S-16). Not so of a
   * primary's: what its peer has is marked in the map, and what it acknowledged alone nobody else has. Nor of the
   * only copy, since there is none that it could be made like.
   * @returns what load() throws
   */
  async #lost(resource: string, failure: Error): Promise<Error> {
    try {
      const { metadata } = await this.#find(resource);
      const state = stateOf(metadata);
      const known = state === "outdated" || state === "inconsistent";
      if (known || metadata.prevrole !== "secondary" || metadata.aloneSince !== null) {
        return failure;
      }
      await this.storeRecord({ state: "inconsistent" });
    } catch (error) {
      const { message } = error as Error;
      return new Error(`${failure.message}; nor can be put on record what that lost: ${message}`);
    }
    return new Error(
      `${failure.message}. What was written last may be missing there, so this copy is inconsistent until the ` +
        `other node has synchronized it; there: hastctl role primary ${resource}`,
    );
  }

  async #flushNow(): Promise<void> {
    const errno = await this.#settled(() => this.#flush(LOAD));
    if (errno !== 0) {
      throw new Error(`flushing ${this.disk.path} failed: ${errnoText(errno)}`);
    }
  }

  /** As writeRecord(), before the first request. @throws Error with the errno of a failed write */
  async storeRecord(changes: Partial<Metadata>): Promise<void> {
    const sequence = (this.metadata.sequence ?? 0n) + 1n;
    const state = stateOf(this.metadata);
    await this.#store({ ...this.metadata, state, ...changes, sequence });
  }

  async #store(metadata: Metadata): Promise<void> {
    for (const { offset, bytes } of copyWrites(metadata, this.layout, this.disk.sectorSize)) {
      await this.#write(bytes, offset);
      await this.#flushNow();
    }
    this.#metadata = metadata;
  }

  /** Marks every extent, stably, before the first request. @throws Error with the errno of a failed write */
  async markAll(): Promise<void> {
    const { mapOffset, mapSize } = this.layout;
    for (let done = 0; done < mapSize; done += MAP_STAGING_SIZE) {
      const ones = new Uint8Array(Math.min(mapSize - done, MAP_STAGING_SIZE)).fill(0xff);
      await this.#write(ones, mapOffset + done);
    }
    await this.#flushNow();
  }

  async #write(bytes: Uint8Array, offset: number): Promise<void> {
    this.#memory.bytes.set(bytes, MAP_AT);
    const { length } = bytes;
    const errno = await this.#settled(() => this.disk.write(LOAD, MAP_AT, length, offset));
    if (errno !== 0) {
      throw new Error(`writing ${length} bytes at offset ${offset} failed: ${errnoText(errno)}`);
    }
  }

  /** Our own map as it is on disk. */
  async loadMap(): Promise<Uint8Array> {
    return await this.#read(this.layout.mapOffset, this.layout.mapSize);
  }

  async #read(offset: number, length: number): Promise<Uint8Array> {
    const result = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const part = Math.min(length - done, MAP_STAGING_SIZE);
      const errno = await this.#settled(() => this.disk.read(LOAD, MAP_AT, part, offset + done));
      if (errno !== 0) {
        throw new Error(
          `reading ${part} bytes at offset ${offset + done} failed: ${errnoText(errno)}`,
        );
      }
      result.set(this.#memory.bytes.subarray(MAP_AT, MAP_AT + part), done);
      done += part;
    }
    return result;
  }

  async #settled(request: () => void): Promise<number> {
    return await new Promise<number>((resolve) => {
      this.#loaded = resolve;
      request();
      this.disk.submit();
    });
  }

  attach(handler: ComponentHandler): void {
    assert(this.#handler === null);
    this.#handler = handler;
  }

  /** @param offset bytes into the data area */
  read(slot: number, memory: number, length: number, offset: number): void {
    this.disk.read(slot, memory, length, this.layout.localoff + offset);
  }

  write(slot: number, memory: number, length: number, offset: number): void {
    this.disk.write(slot, memory, length, this.layout.localoff + offset);
  }

  zero(slot: number, offset: number, length: number, punch: boolean): void {
    this.disk.zero(slot, this.layout.localoff + offset, length, punch);
  }

  flush(): void {
    this.#flush(FLUSH);
  }

  /** A flush on behalf of one slot. */
  flushSlot(slot: number): void {
    this.#flush(slot);
  }

  /**
   * One at a time: of two at once, one may hear that something was lost and the other, whose answer may
   * come first, that all is stable. One that fails takes along whatever was written before it, and the
   * next one succeeds without that.
   */
  #flush(token: number): void {
    if (this.#flushes.push(token) === 1) this.disk.flush(token);
  }

  /**
   * Writes both copies of the metadata, each flushed before the next; recordWritten() follows, once both
   * are stable. One at a time.
   */
  writeRecord(changes: Partial<Metadata>): void {
    assert(this.#recordWrites.length === 0);
    const metadata: Metadata = {
      ...this.metadata,
      ...changes,
      sequence: (this.metadata.sequence ?? 0n) + 1n,
    };
    this.#metadata = metadata;
    this.#recordWrites.push(...copyWrites(metadata, this.layout, this.disk.sectorSize));
    this.#nextRecordWrite();
  }

  #nextRecordWrite(): void {
    const { offset, bytes } = this.#recordWrites[0]!;
    this.#memory.bytes.set(bytes, RECORD_AT);
    this.#recordFailures = this.#flushesFailed;
    this.disk.write(RECORD_WRITE, RECORD_AT, bytes.length, offset);
  }

  #recordWriteDone(errno: number): void {
    this.#recordWrites.shift();
    if (errno === 0 && this.#recordWrites.length > 0) {
      this.#nextRecordWrite();
      return;
    }
    this.#recordWrites.length = 0;
    this.#handler!.recordWritten(errno);
  }

  /** Writes every change of `source`, then flushes if `flush`; mapWritten() follows. One at a time. */
  writeMap(source: MapChanges, flush: boolean): void {
    assert(this.#mapSource === null);
    this.#mapSource = source;
    this.#mapFlush = flush;
    this.#mapFailures = this.#flushesFailed;
    this.#nextMapRun();
  }

  /** Starts the write of the next run of changes, or ends the round when staging is full. */
  #nextMapRun(): void {
    const source = this.#mapSource!;
    const at = MAP_AT + this.#mapStaged;
    const room = MAP_STAGING_SIZE - this.#mapStaged;
    const offset =
      room < this.disk.sectorSize
        ? -1
        : source.takeChanges(this.#memory.bytes.subarray(at, at + room));
    if (offset >= 0) {
      const length = source.takenLength;
      this.#mapRuns.push({ offset, at, length });
      this.#mapStaged += length;
      this.disk.write(MAP_WRITE, at, length, this.layout.mapOffset + offset);
    } else if (this.#mapFlush) {
      this.#flush(MAP_FLUSH);
    } else {
      this.#endMap(0);
    }
  }

  #endMap(errno: number): void {
    const source = this.#mapSource!;
    if (errno === 0) {
      for (const { offset, at, length } of this.#mapRuns) {
        source.changesPersisted(offset, this.#memory.bytes.subarray(at, at + length), length);
      }
    }
    this.#mapSource = null;
    this.#mapRuns.length = 0;
    this.#mapStaged = 0;
    this.#handler!.mapWritten(errno);
  }

  /** Waits for what is under way; nobody is told of it any more, and nothing follows from it. */
  close(done: () => void): void {
    this.#closing = true;
    this.disk.close(done);
  }

  diskDone(token: number, errno: number): void {
    if (this.#closing) return;
    const flushed = token === this.#flushes[0];
    if (flushed) this.#flushes.shift();
    const next = flushed ? this.#flushes[0] : undefined;
    this.#done(token, flushed ? this.#flushErrno(errno) : errno);
    if (next === undefined || this.#closing) return;
    this.disk.flush(next);
    this.disk.submit();
  }

  /**
   * ENOTTY, EOPNOTSUPP, EINVAL: the device has no cache to flush, so what is written is stable (S-15), unless
   * it has been flushed before. Then they are what the kernel says of a write that it had put off.
   */
  #flushErrno(errno: number): number {
    const unsupported = errno === 25 || errno === 95 || errno === 22;
    if (unsupported && !this.#hasFlushed) return 0;
    if (errno === 0) this.#hasFlushed = true;
    else this.#flushesFailed++;
    return unsupported ? ERR_IO : errno;
  }

  /** @returns how a flush has ended for what was written when so many had failed */
  #stableSince(failures: number, errno: number): number {
    return errno === 0 && failures !== this.#flushesFailed ? ERR_IO : errno;
  }

  #done(token: number, errno: number): void {
    if (token < SLOT_COUNT) {
      this.#handler!.slotDone(token, errno);
      return;
    }
    switch (token) {
      case LOAD:
        this.#loaded!(errno);
        break;
      case MAP_WRITE:
        if (errno === 0) this.#nextMapRun();
        else this.#endMap(errno);
        this.disk.submit();
        break;
      case MAP_FLUSH:
        this.#endMap(this.#stableSince(this.#mapFailures, errno));
        break;
      case RECORD_WRITE:
        if (errno === 0) this.#flush(RECORD_FLUSH);
        else this.#recordWriteDone(errno);
        this.disk.submit();
        break;
      case RECORD_FLUSH:
        this.#recordWriteDone(this.#stableSince(this.#recordFailures, errno));
        this.disk.submit();
        break;
      case FLUSH:
        this.#handler!.flushed(errno);
        break;
      default:
        assert(false, `unknown disk token ${token}`);
    }
  }

  diskIdle(): void {
    if (!this.#closing) this.#handler?.batchEnd();
  }
}

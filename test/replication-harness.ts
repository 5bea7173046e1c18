// SPDX-License-Identifier: BSD-2-Clause
/**
 * A Primary or Secondary on the bench: a test plays its disk, its peer and its clock, and reads
 * from a list what the core asked for.
 *
 *   const primary = new PrimaryBench({ mode: "fullsync" });
 *   primary.connect();
 *   const slot = primary.write(0);
 *   expect.deepEqual(primary.take(), ["send write 0", "local write 0"]);
 *
 * Requests are measured in cells of 64 KiB, half the longest write; an extent has four.
 */

import { strict as expect } from "node:assert";
import { Activemap } from "../src/replication/activemap.ts";
import { Primary } from "../src/replication/primary.ts";
import type { PeerState, PrimaryOutbox, PrimaryRecord } from "../src/replication/primary-io.ts";
import {
  FLUSH,
  type Kind,
  type Mode,
  READ,
  type ToldState,
  WRITE,
  ZERO,
} from "../src/replication/requests.ts";
import { Secondary, type SecondaryOutbox } from "../src/replication/secondary.ts";

export const CELL = 65536;
export const EXTENT_CELLS = 4;
const EXTENTS = 16;
const REGION = 512;
export const TIMEOUT_MS = 20_000;

/** In step with its peer, which has the same counters the other way round. */
export const IN_STEP: PrimaryRecord = {
  resuid: 7n,
  localcnt: 0n,
  remotecnt: 0n,
  state: "uptodate",
  synced: "written",
  alone: false,
};

const NAMES = ["", "read", "write", "zero", "flush", "copy"];

export interface PrimaryBenchOptions {
  readonly mode?: Mode;
  readonly record?: Partial<PrimaryRecord>;
  readonly hasRemote?: boolean;
  /** Extents that the map on disk marks at the start. */
  readonly dirty?: readonly number[];
}

export class PrimaryBench implements PrimaryOutbox {
  readonly map: Activemap;
  readonly core: Primary;
  nowMs = 1_000;
  /** Do map writes end at once, successfully? */
  promptMap = true;
  promptRecord = true;
  /** Those who have sent requests are still there. */
  clientsStay = true;
  /** How often a loss was told. */
  lossesTold = 0;
  #done: string[] = [];
  #staging = new Uint8Array(REGION);
  #staged = 0;
  #flushSeq = 0;
  #stateSeq = 0;
  #mapWriting = false;
  #recordWriting = false;

  constructor(options: PrimaryBenchOptions = {}) {
    this.map = new Activemap({
      dataSize: EXTENTS * EXTENT_CELLS * CELL,
      extentSize: EXTENT_CELLS * CELL,
      keepdirty: 2,
      regionSize: REGION,
      sectorSize: REGION,
    });
    this.map.load(mapOf(options.dirty ?? []));
    this.core = new Primary({
      mode: options.mode ?? "fullsync",
      timeoutMs: TIMEOUT_MS,
      map: this.map,
      record: { ...IN_STEP, ...options.record },
      hasRemote: options.hasRemote ?? true,
    });
    this.core.onTick(this.nowMs, this);
  }

  /** What the core has asked for since the last call, save for what takeAll() is there for. */
  take(): string[] {
    return this.#done.splice(0).filter((line) => !/^(release|event|notice|map)/.test(line));
  }

  /** Everything since the last call. */
  takeAll(): string[] {
    return this.#done.splice(0);
  }

  // ---- the application

  submit(kind: Kind, cell: number, count: number): number {
    const slot = this.core.submit(kind, cell * CELL, count * CELL, 0, false, this);
    expect.ok(slot >= 0);
    this.pump();
    return slot;
  }

  write(cell: number, count = 1): number {
    return this.submit(WRITE, cell, count);
  }

  zero(cell: number, count = 1): number {
    return this.submit(ZERO, cell, count);
  }

  read(cell: number, count = 1): number {
    return this.submit(READ, cell, count);
  }

  flush(): number {
    return this.submit(FLUSH, 0, 0);
  }

  // ---- the disk

  local(slot: number, errno = 0): void {
    this.core.localDone(slot, errno, this);
    this.pump();
  }

  flushed(errno = 0): void {
    this.core.localFlushed(errno, this);
    this.pump();
  }

  mapDone(errno = 0): void {
    expect.ok(this.#mapWriting, "no map is being written");
    this.#mapWriting = false;
    if (errno === 0) this.map.changesPersisted(0, this.#staging, this.#staged);
    this.core.mapWritten(errno, this);
    this.pump();
  }

  recordDone(errno = 0): void {
    expect.ok(this.#recordWriting, "no record is being written");
    this.#recordWriting = false;
    this.core.recordWritten(errno, this);
    this.pump();
  }

  // ---- the peer

  /** A handshake, up to the point where the peer's answer is merged and stored. */
  connect(peer: Partial<PeerState> = {}): void {
    this.core.openGate(this);
    const record = this.core.handshakeBegin();
    expect.ok(record !== null, "a record is being written");
    this.accept(peer);
  }

  accept(peer: Partial<PeerState> = {}): void {
    const { localcnt, remotecnt } = this.core.record;
    this.core.linkUp(
      {
        version: 2,
        localcnt: remotecnt,
        remotecnt: localcnt,
        virgin: false,
        source: "primary",
        map: null,
        zeroes: true,
        states: false,
        keeps: false,
        alive: false,
        synced: "written",
        cache: null,
        outdated: false,
        ...peer,
      },
      this,
    );
    this.pump();
  }

  /** Connected, in step, and nothing left to do. */
  settle(peer: Partial<PeerState> = {}): void {
    this.connect(peer);
    expect.equal(this.core.connected, true);
    this.take();
  }

  cut(): void {
    this.core.linkDown(this);
    this.pump();
  }

  reply(slot: number, errno = 0): void {
    this.#replied(this.core.seq[slot]!, false, errno);
  }

  received(slot: number): void {
    this.#replied(this.core.seq[slot]!, true, 0);
  }

  /** The peer answers the last FLUSH. */
  peerFlushed(errno = 0): void {
    this.#replied(this.#flushSeq, false, errno);
  }

  /** The peer answers the last state message. */
  peerStored(errno = 0): void {
    this.#replied(this.#stateSeq, false, errno);
  }

  #replied(seq: number, received: boolean, errno: number): void {
    const slot = this.core.slotOfReply(seq);
    expect.ok(slot >= 0, `${seq} is not outstanding`);
    expect.equal(this.core.replied(slot, received, errno, this), null);
    this.pump();
  }

  /** Both legs of a write end well. */
  finish(slot: number): void {
    this.local(slot);
    this.reply(slot);
  }

  /** Both legs of the flush under way end well. */
  finishFlush(): void {
    this.flushed();
    this.peerFlushed();
  }

  // ---- time

  tick(ms: number): void {
    this.nowMs += ms;
    this.core.onTick(this.nowMs, this);
    this.pump();
  }

  pump(): void {
    this.core.pump(this);
    if (this.#mapWriting && this.promptMap) this.mapDone();
    else if (this.#recordWriting && this.promptRecord) this.recordDone();
    this.map.assertInvariants();
  }

  // ---- PrimaryOutbox

  #log(line: string): void {
    this.#done.push(line);
  }

  localRead(slot: number): void {
    this.#log(`local read ${slot}`);
  }

  localWrite(slot: number): void {
    this.#log(`local write ${slot}`);
  }

  localZero(slot: number): void {
    this.#log(`local zero ${slot}`);
  }

  localFlush(): void {
    this.#log("local flush");
  }

  sendRequest(slot: number, kind: Kind): void {
    this.#log(`send ${NAMES[kind]} ${slot}${this.core.memsync[slot] === 1 ? " memsync" : ""}`);
  }

  sendFlush(seq: number): void {
    this.#flushSeq = seq;
    this.#log("send flush");
  }

  sendKeepalive(): void {
    this.#log("send keepalive");
  }

  sendState(seq: number, state: ToldState, localcnt: bigint, remotecnt: bigint): void {
    this.#stateSeq = seq;
    this.#log(`send state ${state} ${localcnt}${state === "sole" ? `/${remotecnt}` : ""}`);
  }

  hears(): boolean {
    return this.clientsStay;
  }

  answer(slot: number, errno: number): void {
    this.#log(errno === 0 ? `answer ${slot}` : `answer ${slot} errno ${errno}`);
  }

  release(slot: number): void {
    this.#log(`release ${slot}`);
  }

  writeMap(): void {
    this.#log("map");
    this.#mapWriting = true;
    const offset = this.map.takeChanges(this.#staging);
    this.#staged = offset < 0 ? 0 : this.map.takenLength;
  }

  writeRecord(record: PrimaryRecord): void {
    this.#log(`record ${record.localcnt}/${record.remotecnt} ${record.state}`);
    this.#recordWriting = true;
  }

  disconnect(reason: string): void {
    this.#log(`disconnect: ${reason}`);
  }

  event(event: string): void {
    this.#log(`event ${event}`);
  }

  notice(text: string): void {
    this.#log(`notice ${text}`);
  }

  diskFailed(what: string, errno: number): void {
    this.#log(`disk failed: ${what} errno ${errno}`);
  }

  lossTold(): void {
    this.lossesTold++;
  }

  diskless(what: string, errno: number): void {
    this.#log(`diskless: ${what} errno ${errno}`);
  }

  stopped(): void {
    this.#log("stopped");
  }
}

/** A map that marks these extents. */
export function mapOf(extents: readonly number[]): Uint8Array {
  const map = new Uint8Array(REGION);
  for (const extent of extents) map[extent >> 3]! |= 1 << (extent & 7);
  return map;
}

export class SecondaryBench implements SecondaryOutbox {
  readonly core: Secondary = new Secondary();
  #done: string[] = [];
  #seq = 0;

  take(): string[] {
    return this.#done.splice(0);
  }

  submit(kind: Kind, cell: number, count: number, memsync = false): number {
    this.#seq++;
    const slot = this.core.submit(kind, 0, this.#seq, cell * CELL, count * CELL, 0, memsync, this);
    this.core.pump(this);
    return slot;
  }

  local(slot: number, errno = 0): void {
    this.core.localDone(slot, errno, this);
    this.core.pump(this);
  }

  localRead(slot: number): void {
    this.#done.push(`read ${slot}`);
  }

  localWrite(slot: number): void {
    this.#done.push(`write ${slot}`);
  }

  localZero(slot: number): void {
    this.#done.push(`zero ${slot}`);
  }

  localFlush(slot: number): void {
    this.#done.push(`flush ${slot}`);
  }

  reply(slot: number, received: boolean, errno: number): void {
    const how = received ? " received" : errno === 0 ? "" : ` errno ${errno}`;
    this.#done.push(`reply ${slot}${how}`);
  }

  release(slot: number): void {
    this.#done.push(`release ${slot}`);
  }

  clearMap(): void {
    this.#done.push("clear map");
  }

  writeMap(): void {
    this.#done.push("map");
  }
}

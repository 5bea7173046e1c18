// SPDX-License-Identifier: BSD-2-Clause
/** Stand-in for the primary's engine, around the real core. */

import { Arbitration } from "../../src/engine/arbitration.ts";
import type { Synced } from "../../src/metadata/block.ts";
import { Activemap } from "../../src/replication/activemap.ts";
import { Primary } from "../../src/replication/primary.ts";
import type { PrimaryOutbox, PrimaryRecord } from "../../src/replication/primary-io.ts";
import {
  FLUSH,
  type Kind,
  READ,
  SLOT_COUNT,
  SYNC,
  type ToldState,
  WRITE,
} from "../../src/replication/requests.ts";
import { CELL, CELLS, EXTENT_CELLS, MAP, RECORD, REGION, type Stored, words } from "./disk.ts";
import type { Node } from "./node.ts";
import { type ToPrimary, type ToSecondary, Wire } from "./wire.ts";
import type { World } from "./world.ts";

const TIMEOUT_MS = 20_000;
const EIO = 5;

export interface ClientOp {
  readonly kind: Kind;
  readonly from: number;
  readonly count: number;
  readonly id: number;
  /** READ: the oldest value allowed, per cell. FLUSH: what it promises, per cell. */
  readonly floor: number[];
}

export function describe(op: ClientOp): string {
  const range = op.count === 1 ? `${op.from}` : `${op.from}-${op.from + op.count - 1}`;
  if (op.kind === READ) return `READ ${range}`;
  if (op.kind === FLUSH) return "FLUSH";
  return `${op.kind === WRITE ? "WRITE" : "ZERO"} ${op.id}@${range}`;
}

export class Leader implements PrimaryOutbox {
  readonly world: World;
  readonly node: Node;
  readonly map: Activemap;
  readonly core: Primary;
  /** What lies in memory, by the address that the core knows. */
  readonly data: Map<number, number[]> = new Map();
  #memoryTop = 0;
  readonly client: Map<number, ClientOp> = new Map();
  /** Answers that wait for the arbiter. */
  readonly held: ClientOp[] = [];
  readonly arbitration: Arbitration | null;
  /** A record that says "went on alone", which waits for it as well. */
  #markHeld: Stored | null = null;
  wire: Wire | null = null;
  phase: "idle" | "counters" | "answer" | "up" = "idle";
  virgin = false;
  stopping = false;
  done = false;
  /** Done, and not in good order. */
  failed = false;
  needsPump = true;
  /** Its daemon answers for this machine's cache. */
  readonly vouched: boolean;
  /** The peer has accepted it, or it serves without having heard it. */
  decided = false;
  met = false;
  disconnectWanted = false;
  #staging = new Uint8Array(REGION);

  constructor(world: World, node: Node) {
    this.world = world;
    this.node = node;
    node.disk.settle();
    this.vouched = node.vouched;
    node.held = null;
    node.cache = null;
    const bytes = new Uint8Array(REGION);
    bytes[0] = node.disk.cell(MAP);
    this.map = new Activemap({
      dataSize: CELLS * CELL,
      extentSize: EXTENT_CELLS * CELL,
      keepdirty: 1,
      regionSize: REGION,
      sectorSize: REGION,
    });
    this.map.load(bytes);
    const { resuid, localcnt, remotecnt, state, synced, alone } = node.disk.record;
    this.core = new Primary({
      mode: world.mode,
      timeoutMs: TIMEOUT_MS,
      map: this.map,
      record: { resuid, localcnt, remotecnt, state, synced, alone },
      hasRemote: true,
    });
    const { arbiter } = world;
    const forever = { term: 1n, deadlineMs: Number.POSITIVE_INFINITY };
    this.arbitration =
      arbiter === null ? null : new Arbitration(forever, (wish) => arbiter.wished(this, wish));
    this.core.onTick(world.nowMs, this);
  }

  pump(): void {
    this.needsPump = false;
    if (this.done) return;
    this.core.pump(this);
    this.#askArbiter();
    if (this.done) return;
    if (this.disconnectWanted) {
      this.disconnectWanted = false;
      const wire = this.wire;
      if (wire !== null) {
        wire.cut(this.world.random, "to-secondary");
        this.lost();
      }
    }
  }

  /** As the engine does. */
  #askArbiter(): void {
    if (this.arbitration === null) return;
    if (this.#markHeld !== null && this.arbitration.agrees("local")) {
      const record = this.#markHeld;
      this.#markHeld = null;
      this.#storeRecord(record);
    } else if (this.#markHeld !== null && this.stopping) {
      this.world.note(`${this.node.name}: ends without leave`);
      this.done = true;
      return;
    }
    if (!this.arbitration.agrees(this.core.holders)) return;
    for (const op of this.held.splice(0)) this.world.told(op);
  }

  decide(): void {
    this.decided = true;
    this.node.vouched = true;
  }

  // ---- the client

  submit(op: ClientOp): void {
    const at = this.#allocate(op.count, op.kind === READ ? -1 : op.id);
    const slot = this.core.submit(op.kind, op.from * CELL, op.count * CELL, at, false, this);
    this.world.must(slot >= 0, "no room");
    this.client.set(slot, op);
  }

  #allocate(count: number, value: number): number {
    this.data.set(++this.#memoryTop, new Array(count).fill(value));
    return this.#memoryTop;
  }

  #dataOf(slot: number): number[] {
    // A copy brings no memory of its own.
    if (this.core.memory[slot] === -1) {
      this.core.memory[slot] = this.#allocate(this.#count(slot), -1);
    }
    const data = this.data.get(this.core.memory[slot]!);
    this.world.must(data !== undefined, "uses memory that it has released");
    return data!;
  }

  #fill(slot: number, values: readonly number[]): void {
    const data = this.#dataOf(slot);
    for (let index = 0; index < data.length; index++) data[index] = values[index]!;
  }

  hears(): boolean {
    return true;
  }

  answer(slot: number, errno: number): void {
    const op = this.client.get(slot);
    this.world.must(op !== undefined, `slot ${slot} is answered twice or never was the client's`);
    this.client.delete(slot);
    this.world.answered(this, op!, errno, this.#dataOf(slot));
    if (this.arbitration === null || errno !== 0) return;
    this.held.push(op!);
    this.needsPump = true;
  }

  release(slot: number): void {
    this.world.must(!this.client.has(slot), `slot ${slot} is released without an answer`);
    this.data.delete(this.core.memory[slot]!);
  }

  // ---- the disk

  #from(slot: number): number {
    return this.core.offset[slot]! / CELL;
  }

  #count(slot: number): number {
    return this.core.length[slot]! / CELL;
  }

  #mustHaveDisk(): void {
    this.world.must(!this.core.diskless, "uses the disk that it has given up");
  }

  localRead(slot: number): void {
    this.#mustHaveDisk();
    const { disk } = this.node;
    const from = this.#from(slot);
    const count = this.#count(slot);
    const values = (): number[] =>
      Array.from({ length: count }, (_, index) => disk.cell(from + index));
    const early = this.world.random.chance(0.5) ? values() : null;
    disk.read(`read #${slot}`, (errno) => {
      if (errno === 0) this.#fill(slot, early ?? values());
      else if (this.core.kind[slot] === SYNC) this.world.failedHere(this, from, count);
      this.core.localDone(slot, errno, this);
    });
  }

  localWrite(slot: number): void {
    this.#mustHaveDisk();
    this.world.mustBeCovered(this.node, this.core, slot);
    const data = this.#dataOf(slot);
    this.world.must(!data.includes(-1), "writes what it has not got");
    const from = this.#from(slot);
    const writes = data.map((value, index) => ({ place: from + index, value }));
    this.node.disk.write(`write #${slot} ${data}@${from}`, writes, true, (errno) =>
      this.core.localDone(slot, errno, this),
    );
  }

  localZero(slot: number): void {
    this.localWrite(slot);
  }

  localFlush(): void {
    this.#mustHaveDisk();
    this.node.disk.flush("flush", true, (errno) => this.core.localFlushed(errno, this));
  }

  writeMap(): void {
    const { disk } = this.node;
    const offset = this.map.takeChanges(this.#staging);
    if (offset < 0) {
      disk.flush("flush map", true, (errno) => {
        if (errno === 0) this.map.changesPersisted(0, this.#staging, REGION);
        this.core.mapWritten(errno, this);
      });
      return;
    }
    const value = this.#staging[0]!;
    disk.write(`map ${value.toString(2)}`, [{ place: MAP, value }], true, (errno) => {
      if (errno === 0) this.writeMap();
      else this.core.mapWritten(errno, this);
    });
  }

  writeRecord(record: PrimaryRecord): void {
    this.#mustHaveDisk();
    const stored: Stored = { ...record, prevrole: "primary" };
    const fresh = record.alone && !this.node.disk.record.alone;
    if (fresh && this.arbitration?.agrees("local") === false) this.#markHeld = stored;
    else this.#storeRecord(stored);
  }

  #storeRecord(record: Stored): void {
    this.#store(record, (errno) => {
      this.core.recordWritten(errno, this);
      if (this.phase === "counters") this.greet();
    });
  }

  #store(value: Stored, done: (errno: number) => void): void {
    const { disk } = this.node;
    disk.write(`record ${words(value)}`, [{ place: RECORD, value }], true, (errno) => {
      if (errno === 0) disk.flush("flush record", true, done);
      else done(errno);
    });
  }

  lossTold(): void {}

  diskless(what: string): void {
    this.world.note(`${this.node.name}: goes on without its disk: ${what}`);
    this.world.counts.diskless++;
  }

  diskFailed(what: string): void {
    this.world.note(`${this.node.name}: disk failed: ${what}`);
    this.failed = true;
    this.done = true;
  }

  /** The engine finishes a record that is under way, unless something cuts it short. */
  finishRecord(): void {
    const { disk } = this.node;
    while (
      this.core.lastRecordPending &&
      this.#markHeld === null &&
      this.world.random.chance(0.9)
    ) {
      const op = disk.ops.find(({ what }) => /record/.test(what))!;
      disk.complete(op, disk.fails(op) ? EIO : 0);
    }
  }

  // ---- the peer

  connect(): void {
    this.world.must(this.phase === "idle", "connects twice");
    this.phase = "counters";
    this.virgin = false;
    this.greet();
  }

  /** Sends our counters once no metadata write is under way. */
  greet(): void {
    if (this.core.recordPending || this.done) return;
    if (this.core.record.resuid === 0n) {
      this.virgin = true;
      this.core.adoptResuid(BigInt(1 + this.world.random.below(1e6)), this);
      return;
    }
    const record = this.core.handshakeBegin();
    if (record === null) return;
    this.phase = "answer";
    this.wire = new Wire(this, this.world.other(this.node));
    this.world.wires.push(this.wire);
    const { resuid, localcnt, remotecnt, synced } = record;
    const states = this.world.states;
    this.wire.tellSecondary({
      kind: "hello",
      hello: {
        states,
        virgin: this.virgin,
        resuid,
        localcnt,
        remotecnt,
        synced: states ? synced : "unknown",
      },
      life: states
        ? { fresh: this.core.fresh && !this.vouched, early: this.world.mode === "async" }
        : null,
      dirty: this.map.resyncCount,
    });
  }

  hear(message: ToPrimary): void {
    const { world, core } = this;
    switch (message.kind) {
      case "eof":
        this.lost();
        return;
      case "refused":
        this.lost();
        world.refused(this, message.reason, message.splitBrain);
        return;
      case "accepted": {
        this.phase = "up";
        this.met = true;
        const { judgement, own } = message;
        world.accepted(this, judgement.source);
        let map: Uint8Array | null = null;
        if (message.map !== null) {
          map = new Uint8Array(REGION);
          map[0] = message.map;
        }
        core.linkUp(
          {
            version: world.version,
            localcnt: own.localcnt,
            remotecnt: own.remotecnt,
            virgin: judgement.virgin,
            source: judgement.source,
            map,
            zeroes: world.zeroes,
            states: world.states,
            keeps: world.keeps,
            alive: world.keeps,
            synced: world.states ? own.synced : null,
            cache: message.cache,
            outdated: false,
          },
          this,
        );
        return;
      }
      case "reply": {
        if (message.seq === 0) {
          core.keepaliveAnswered();
          return;
        }
        const slot = core.slotOfReply(message.seq);
        world.must(slot >= 0, `reply to ${message.seq}, which is not outstanding`);
        const wants = core.awaitsData(slot) && message.errno === 0;
        world.must(wants === (message.data !== null), `data where none is due, or none`);
        if (wants) this.#fill(slot, message.data!);
        if (slot === SLOT_COUNT && message.errno !== 0) world.flushFailureHeard();
        const wrong = core.replied(slot, message.received, message.errno, this);
        world.must(wrong === null, `reply refused: ${wrong}`);
      }
    }
  }

  /** The connection or the attempt is over. */
  lost(): void {
    const { phase } = this;
    this.phase = "idle";
    this.wire = null;
    if (phase === "up") {
      this.core.linkDown(this);
      this.world.linkLost(this);
    } else {
      this.core.handshakeFailed(this);
    }
    this.core.openGate(this);
  }

  #send(message: ToSecondary): void {
    this.world.must(this.phase === "up" && this.wire !== null, "sends without a connection");
    this.wire!.tellSecondary(message);
  }

  sendRequest(slot: number, command: Kind): void {
    const data = command === READ ? null : [...this.#dataOf(slot)];
    if (command !== READ && !this.core.diskless) {
      this.world.mustBeCovered(this.node, this.core, slot);
    }
    this.#send({
      kind: "request",
      command,
      seq: this.core.seq[slot]!,
      from: this.#from(slot),
      count: this.#count(slot),
      memsync: this.core.memsync[slot] === 1,
      data,
    });
  }

  sendFlush(seq: number): void {
    this.#send({
      kind: "request",
      command: FLUSH,
      seq,
      from: 0,
      count: 0,
      memsync: false,
      data: null,
    });
  }

  sendKeepalive(): void {
    this.#send({ kind: "keepalive" });
  }

  sendState(
    seq: number,
    state: ToldState,
    localcnt: bigint,
    remotecnt: bigint,
    synced: Synced | null,
  ): void {
    this.#send({ kind: "state", seq, state, localcnt, remotecnt, synced });
  }

  disconnect(reason: string): void {
    this.world.note(`${this.node.name}: disconnects: ${reason}`);
    this.disconnectWanted = true;
    this.needsPump = true;
  }

  event(): void {}
  notice(): void {}

  stopped(): void {
    this.world.note(`${this.node.name}: stopped`);
    this.done = true;
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * Two nodes, a network and two disks, all pretended, around the real replication cores.
 *
 *   client ─▶ Leader (Primary) ══ Wire, cut anywhere ══▶ Follower (judge, Secondary)
 *               └─ PretendDisk                             └─ PretendDisk
 *
 * One seed decides everything. A cell is 64 KiB and holds the number of the write that filled it;
 * a disk knows, for each cell, every value that a power cut could leave behind. After each step
 * the world checks what docs/architecture.md promises: see check…() below.
 */

import { Activemap } from "../src/replication/activemap.ts";
import {
  FLUSH,
  type Kind,
  type Mode,
  Primary,
  type PrimaryOutbox,
  type PrimaryRecord,
  READ,
  WRITE,
  ZERO,
} from "../src/replication/primary.ts";
import {
  type Hello,
  type Judgement,
  judge,
  Secondary,
  type SecondaryOutbox,
  type SecondaryRecord,
} from "../src/replication/secondary.ts";

const CELL = 65536; // bytes
const EXTENT_CELLS = 4;
const EXTENTS = 4;
export const CELLS: number = EXTENTS * EXTENT_CELLS;
const RECORD = CELLS;
const MAP = CELLS + 1;
const PLACES = CELLS + 2;
const REGION = 512; // bytes
const ALL_ONES = (1 << EXTENTS) - 1;
const OUTSTANDING_MAX = 6;
const TIMEOUT_MS = 20_000;
const EIO = 5;

/** What must hold does not. The message carries the story so far. */
export class Violation extends Error {
  override readonly name = "Violation";
}

/** mulberry32: small, and the same everywhere. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }
  chance(probability: number): boolean {
    return this.next() < probability;
  }
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }
}

type Stored = PrimaryRecord & { readonly prevrole: "init" | "primary" | "secondary" };

const BLANK: Stored = {
  resuid: 0n,
  localcnt: 0n,
  remotecnt: 0n,
  state: "new",
  prevrole: "init",
};

interface Op {
  readonly what: string;
  readonly writes: readonly { readonly place: number; readonly value: unknown }[];
  /** A flush: what was complete when it was submitted, per place. */
  readonly covers: readonly number[] | null;
  /** Whether a pretended failure may hit it. */
  readonly fallible: boolean;
  readonly done: (errno: number) => void;
}

/** The last version of a place is what reads see; any version may be what a power cut leaves. */
class PretendDisk {
  readonly #random: Random;
  #versions: unknown[][];
  readonly #dropped: number[] = new Array(PLACES).fill(0);
  ops: Op[] = [];

  constructor(random: Random) {
    this.#random = random;
    this.#versions = [];
    this.wipe();
  }

  wipe(): void {
    this.#versions = Array.from({ length: PLACES }, (_, place) => [place === RECORD ? BLANK : 0]);
    this.#dropped.fill(0);
  }

  versions<T>(place: number): readonly T[] {
    return this.#versions[place] as T[];
  }

  cell(place: number): number {
    return this.#versions[place]!.at(-1) as number;
  }

  get record(): Stored {
    return this.#versions[RECORD]!.at(-1) as Stored;
  }

  write(what: string, writes: Op["writes"], fallible: boolean, done: Op["done"]): void {
    this.ops.push({ what, writes, covers: null, fallible, done });
  }

  read(what: string, done: Op["done"]): void {
    this.ops.push({ what, writes: [], covers: null, fallible: true, done });
  }

  flush(what: string, fallible: boolean, done: Op["done"]): void {
    const covers = this.#versions.map((list, place) => this.#dropped[place]! + list.length - 1);
    this.ops.push({ what, writes: [], covers, fallible, done });
  }

  complete(op: Op, errno: number): void {
    this.ops.splice(this.ops.indexOf(op), 1);
    this.#apply(op, errno === 0 ? 1 : 0.5);
    if (op.covers !== null && errno === 0) {
      for (let place = 0; place < PLACES; place++) {
        const drop = op.covers[place]! - this.#dropped[place]!;
        if (drop <= 0) continue;
        this.#versions[place]!.splice(0, drop);
        this.#dropped[place]! += drop;
      }
    }
    op.done(errno);
  }

  #apply(op: Op, probability: number): void {
    for (const { place, value } of op.writes) {
      if (probability < 1 && !this.#random.chance(probability)) continue;
      this.#versions[place]!.push(value);
    }
  }

  /** The process is gone: what it had submitted ends, one way or the other (S-8). */
  orphan(): void {
    for (const op of this.ops) this.#apply(op, 0.5);
    this.ops = [];
  }

  /** A flush that is over before anything else happens, as an engine does when it opens a disk. */
  settle(): void {
    for (let place = 0; place < PLACES; place++) {
      const list = this.#versions[place]!;
      this.#dropped[place]! += list.length - 1;
      this.#versions[place] = [list.at(-1)];
    }
  }

  powerCut(): void {
    this.orphan();
    for (let place = 0; place < PLACES; place++) {
      const list = this.#versions[place]!;
      this.#dropped[place]! += list.length - 1;
      this.#versions[place] = [this.#random.pick(list)];
    }
  }
}

type ToSecondary =
  | { readonly kind: "hello"; readonly hello: Hello }
  | {
      readonly kind: "request";
      readonly command: Kind;
      readonly seq: number;
      readonly from: number;
      readonly count: number;
      readonly memsync: boolean;
      readonly data: readonly number[] | null;
    }
  | {
      readonly kind: "state";
      readonly seq: number;
      readonly state: "inconsistent" | "uptodate";
      readonly localcnt: bigint;
    }
  | { readonly kind: "keepalive" }
  | { readonly kind: "eof" };

type ToPrimary =
  | {
      readonly kind: "accepted";
      readonly judgement: Judgement & { kind: "accept" };
      readonly map: number | null;
      readonly own: SecondaryRecord;
    }
  | { readonly kind: "refused"; readonly reason: string; readonly splitBrain: boolean }
  | {
      readonly kind: "reply";
      readonly seq: number;
      readonly received: boolean;
      readonly errno: number;
      readonly data: readonly number[] | null;
    }
  | { readonly kind: "eof" };

/** Both connections of one handshake: what is in flight either way. */
class Wire {
  readonly leader: Leader;
  readonly node: Node;
  follower: Follower | null = null;
  toSecondary: ToSecondary[] = [];
  toPrimary: ToPrimary[] = [];

  constructor(leader: Leader, node: Node) {
    this.leader = leader;
    this.node = node;
  }

  /** Some of what is in flight still arrives, then nothing; what is sent later is lost. */
  cut(random: Random, ends: "both" | "to-secondary" | "to-primary"): void {
    if (ends === "to-primary") this.toSecondary = [];
    else if (this.toSecondary.at(-1)?.kind !== "eof") {
      this.toSecondary.length = random.below(this.toSecondary.length + 1);
      this.toSecondary.push({ kind: "eof" });
    }
    if (ends === "to-secondary") this.toPrimary = [];
    else if (this.toPrimary.at(-1)?.kind !== "eof") {
      this.toPrimary.length = random.below(this.toPrimary.length + 1);
      this.toPrimary.push({ kind: "eof" });
    }
    this.#broken = true;
  }

  #broken = false;

  tellSecondary(message: ToSecondary): void {
    if (!this.#broken) this.toSecondary.push(message);
  }

  tellPrimary(message: ToPrimary): void {
    if (!this.#broken) this.toPrimary.push(message);
  }
}

class Node {
  readonly name: string;
  readonly disk: PretendDisk;
  role: "down" | "secondary" | "primary" = "down";
  leader: Leader | null = null;
  follower: Follower | null = null;
  /** Writes that this node, as secondary, has told its primary to rely on. */
  readonly received: Set<number> = new Set();

  constructor(name: string, disk: PretendDisk) {
    this.name = name;
    this.disk = disk;
  }

  /** As the engine refuses (an unfinished synchronization's target). */
  get promotable(): boolean {
    const { state, prevrole } = this.disk.record;
    return !(state === "inconsistent" && prevrole === "secondary");
  }
}

interface ClientOp {
  readonly kind: Kind;
  readonly from: number;
  readonly count: number;
  readonly id: number;
  /** READ: the oldest value allowed, per cell. FLUSH: what it promises, per cell. */
  readonly floor: number[];
}

/** Stand-in for the primary's engine. */
class Leader implements PrimaryOutbox {
  readonly world: World;
  readonly node: Node;
  readonly map: Activemap;
  readonly core: Primary;
  /** What lies in memory, by the address that the core knows. */
  readonly data: Map<number, number[]> = new Map();
  #memoryTop = 0;
  readonly client: Map<number, ClientOp> = new Map();
  wire: Wire | null = null;
  phase: "idle" | "counters" | "answer" | "up" = "idle";
  virgin = false;
  stopping = false;
  done = false;
  needsPump = true;
  disconnectWanted = false;
  #staging = new Uint8Array(REGION);

  constructor(world: World, node: Node) {
    this.world = world;
    this.node = node;
    node.disk.settle();
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
    const { resuid, localcnt, remotecnt, state } = node.disk.record;
    this.core = new Primary({
      mode: world.mode,
      timeoutMs: TIMEOUT_MS,
      map: this.map,
      record: { resuid, localcnt, remotecnt, state },
      hasRemote: true,
    });
    this.core.onTick(world.nowMs, this);
  }

  pump(): void {
    this.needsPump = false;
    if (this.done) return;
    this.core.pump(this);
    if (this.disconnectWanted) {
      this.disconnectWanted = false;
      const wire = this.wire;
      if (wire !== null) {
        wire.cut(this.world.random, "to-secondary");
        this.lost();
      }
    }
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

  answer(slot: number, errno: number): void {
    const op = this.client.get(slot);
    this.world.must(op !== undefined, `slot ${slot} is answered twice or never was the client's`);
    this.client.delete(slot);
    this.world.answered(this, op!, errno, this.#dataOf(slot));
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

  localRead(slot: number): void {
    const { disk } = this.node;
    const from = this.#from(slot);
    const count = this.#count(slot);
    const values = (): number[] =>
      Array.from({ length: count }, (_, index) => disk.cell(from + index));
    const early = this.world.random.chance(0.5) ? values() : null;
    disk.read(`read #${slot}`, (errno) => {
      if (errno === 0) this.#fill(slot, early ?? values());
      this.core.localDone(slot, errno, this);
    });
  }

  localWrite(slot: number): void {
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
    this.node.disk.flush("flush", true, (errno) => this.core.localFlushed(errno, this));
  }

  writeMap(): void {
    const { disk } = this.node;
    const offset = this.map.takeChanges(this.#staging);
    if (offset < 0) {
      disk.flush("flush map", false, () => {
        this.map.changesPersisted(0, this.#staging, REGION);
        this.core.mapWritten(0, this);
      });
      return;
    }
    const value = this.#staging[0]!;
    disk.write(`map ${value.toString(2)}`, [{ place: MAP, value }], false, () => this.writeMap());
  }

  writeRecord(record: PrimaryRecord): void {
    this.#store({ ...record, prevrole: "primary" }, () => {
      this.core.recordWritten(0, this);
      if (this.phase === "counters") this.greet();
    });
  }

  #store(value: Stored, done: () => void): void {
    const { disk } = this.node;
    disk.write(`record ${words(value)}`, [{ place: RECORD, value }], false, () =>
      disk.flush("flush record", false, done),
    );
  }

  diskFailed(what: string): void {
    this.world.note(`${this.node.name}: disk failed: ${what}`);
    this.done = true;
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
    if (this.core.recordPending) return;
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
    const { resuid, localcnt, remotecnt } = record;
    const states = this.world.states;
    this.wire.tellSecondary({
      kind: "hello",
      hello: { states, virgin: this.virgin, resuid, localcnt, remotecnt },
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
          },
          this,
        );
        return;
      }
      case "reply": {
        const slot = core.slotOfReply(message.seq);
        world.must(slot >= 0, `reply to ${message.seq}, which is not outstanding`);
        const wants = core.awaitsData(slot) && message.errno === 0;
        world.must(wants === (message.data !== null), `data where none is due, or none`);
        if (wants) this.#fill(slot, message.data!);
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
    if (command !== READ) this.world.mustBeCovered(this.node, this.core, slot);
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

  sendState(seq: number, state: "inconsistent" | "uptodate", localcnt: bigint): void {
    this.#send({ kind: "state", seq, state, localcnt });
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

/** Stand-in for the secondary's engine: one connection. */
class Follower implements SecondaryOutbox {
  readonly world: World;
  readonly node: Node;
  readonly wire: Wire;
  readonly core: Secondary = new Secondary();
  /** What lies in memory, by sequence number. */
  readonly data: Map<number, number[]> = new Map();
  phase: "starting" | "serving" | "draining" = "starting";
  #stateWaiting: (ToSecondary & { kind: "state" }) | null = null;
  #storing = false;
  #clearing = false;

  constructor(world: World, node: Node, wire: Wire, hello: Hello) {
    this.world = world;
    this.node = node;
    this.wire = wire;
    node.follower = this;
    wire.follower = this;
    node.disk.settle();
    const { resuid, localcnt, remotecnt, state } = node.disk.record;
    const counts = { resuid, localcnt, remotecnt, state };
    const judgement = judge(counts, hello);
    world.note(
      `${node.name}: judges ${words(node.disk.record)} for ${hello.localcnt}/${hello.remotecnt}: ${
        judgement.kind === "accept"
          ? `${judgement.map} map, from ${judgement.source}`
          : judgement.message
      }`,
    );
    if (judgement.kind === "refuse") {
      wire.tellPrimary({
        kind: "refused",
        reason: judgement.reason,
        splitBrain: judgement.splitBrain,
      });
      node.follower = null;
      return;
    }
    const answer = (): void => {
      this.phase = "serving";
      const own = node.disk.cell(MAP);
      const map = judgement.map === "own-unless-empty" && own === 0 ? null : own;
      wire.tellPrimary({ kind: "accepted", judgement, map, own: counts });
    };
    const storeRecord = (): void => {
      if (judgement.record === null) answer();
      else this.#store({ ...judgement.record, prevrole: "secondary" }, answer);
    };
    if (judgement.map !== "full") storeRecord();
    else {
      // All ones must outlive this connection: they are what makes the copy a whole one.
      this.#storing = true;
      node.disk.write("map of ones", [{ place: MAP, value: ALL_ONES }], false, () =>
        node.disk.flush("flush map", false, () => {
          this.#storing = false;
          storeRecord();
        }),
      );
    }
  }

  #store(value: Stored, done: () => void): void {
    const { disk } = this.node;
    this.#storing = true;
    disk.write(`record ${words(value)}`, [{ place: RECORD, value }], false, () =>
      disk.flush("flush record", false, () => {
        this.#storing = false;
        done();
        this.#settle();
      }),
    );
  }

  get canTake(): boolean {
    return this.phase !== "starting" && this.#stateWaiting === null && this.core.room > 0;
  }

  hear(message: ToSecondary): void {
    switch (message.kind) {
      case "eof":
        this.phase = "draining";
        break;
      case "request": {
        const { command, seq, from, count, memsync } = message;
        if (message.data !== null) this.data.set(seq, [...message.data]);
        if (memsync) this.node.received.add(message.data![0]!);
        this.core.submit(command, 0, seq, from * CELL, count * CELL, seq, memsync, this);
        break;
      }
      case "state":
        this.#stateWaiting = message;
        break;
      case "hello":
      case "keepalive":
        break;
    }
    this.turn();
  }

  turn(): void {
    this.core.pump(this);
    const waiting = this.#stateWaiting;
    if (waiting !== null && this.core.active === 0 && !this.#storing) {
      const { record } = this.node.disk;
      const remotecnt = waiting.state === "uptodate" ? waiting.localcnt : record.remotecnt;
      this.#store({ ...record, prevrole: "secondary", remotecnt, state: waiting.state }, () => {
        this.#stateWaiting = null;
        this.#reply(waiting.seq, false, 0, null);
      });
    }
    this.#settle();
  }

  #settle(): void {
    if (this.phase !== "draining" || this.core.active > 0) return;
    if (this.#stateWaiting !== null || this.#storing || this.#clearing) return;
    if (this.node.follower === this) this.node.follower = null;
  }

  #reply(seq: number, received: boolean, errno: number, data: number[] | null): void {
    if (this.phase !== "serving") return;
    this.wire.tellPrimary({ kind: "reply", seq, received, errno, data });
  }

  /** Does this node hold `value`, or something newer, in this cell, written or in memory? */
  holds(cell: number, value: number): boolean {
    if (this.node.disk.cell(cell) >= value) return true;
    for (const [slot, seq] of this.core.memory.entries()) {
      const index = cell - this.core.offset[slot]! / CELL;
      if (this.core.kind[slot] !== READ && this.data.get(seq)?.[index]! >= value) return true;
    }
    return false;
  }

  reply(slot: number, received: boolean, errno: number): void {
    const data =
      this.core.kind[slot] === READ && errno === 0 ? this.data.get(this.core.memory[slot]!)! : null;
    this.#reply(this.core.seqLo[slot]!, received, errno, data);
  }

  release(slot: number): void {
    this.data.delete(this.core.memory[slot]!);
  }

  clearMap(): void {
    this.#clearing = true;
    this.node.disk.write("clear map", [{ place: MAP, value: 0 }], false, () => {
      this.#clearing = false;
      this.#settle();
    });
  }

  #end(slot: number, errno: number): void {
    const kind = this.core.kind[slot];
    const failed = errno !== 0 && kind !== READ;
    if (failed) this.world.entitled.delete(this.node);
    if (failed && this.world.states && this.node.disk.record.state !== "inconsistent") {
      // Stable before the error reply: this copy lacks something (S-16).
      this.#whenIdle(() =>
        this.#store(
          { ...this.node.disk.record, state: "inconsistent", prevrole: "secondary" },
          () => {
            this.core.localDone(slot, errno, this);
            this.turn();
          },
        ),
      );
      return;
    }
    this.core.localDone(slot, errno, this);
    this.turn();
  }

  #whenIdle(act: () => void): void {
    if (this.#storing) this.node.disk.flush("wait", false, () => this.#whenIdle(act));
    else act();
  }

  #cells(slot: number): { from: number; count: number } {
    return { from: this.core.offset[slot]! / CELL, count: this.core.length[slot]! / CELL };
  }

  localRead(slot: number): void {
    const { from, count } = this.#cells(slot);
    const { disk } = this.node;
    disk.read(`read #${slot}`, (errno) => {
      const values = Array.from({ length: count }, (_, index) => disk.cell(from + index));
      this.data.set(this.core.memory[slot]!, values);
      this.#end(slot, errno);
    });
  }

  localWrite(slot: number): void {
    const { from } = this.#cells(slot);
    const data = this.data.get(this.core.memory[slot]!)!;
    const writes = data.map((value, index) => ({ place: from + index, value }));
    this.node.disk.write(`write #${slot} ${data}@${from}`, writes, true, (errno) =>
      this.#end(slot, errno),
    );
  }

  localZero(slot: number): void {
    this.localWrite(slot);
  }

  localFlush(slot: number): void {
    this.node.disk.flush("flush", true, (errno) => this.#end(slot, errno));
  }
}

function words(record: Stored): string {
  return `${record.localcnt}/${record.remotecnt} ${record.state}${record.resuid === 0n ? " no id" : ""}`;
}

export interface WorldOptions {
  readonly seed: number;
  readonly steps: number;
}

export class World {
  readonly random: Random;
  readonly seed: number;
  readonly mode: Mode;
  readonly states: boolean;
  readonly zeroes: boolean;
  readonly version: number;
  readonly faultRate: number;
  readonly nodes: readonly [Node, Node];
  wires: Wire[] = [];
  nowMs = 1000;
  faults = true;
  readonly story: string[] = [];
  /** What happened, for the reader who wonders whether anything did. */
  readonly counts = { answers: 0, promotions: 0, splitBrains: 0, resyncs: 0, faults: 0 };

  // What the client knows. Writes are numbered from 1 in the order of submission.
  #writes: { readonly from: number; readonly count: number }[] = [{ from: 0, count: CELLS }];
  /** Reads by the present primary's client must not see anything older. */
  #view: number[] = new Array(CELLS).fill(0);
  /** Acknowledged, and no power cut since could have taken it. */
  #acked: number[] = new Array(CELLS).fill(0);
  /** Acknowledged before a FLUSH that was acknowledged. */
  #flushed: number[] = new Array(CELLS).fill(0);
  /** Nodes that must hold everything that is required. */
  readonly entitled: Set<Node>;
  #lastLeader: Node | null = null;
  #lastDied = false;
  /** The secondary failed, and its primary has not noticed. */
  #peerFault = false;

  constructor(options: WorldOptions) {
    this.seed = options.seed;
    this.random = new Random(options.seed);
    const { random } = this;
    this.mode = random.pick(["fullsync", "memsync", "async"] as const);
    this.states = random.chance(0.6);
    this.zeroes = this.states || random.chance(0.3);
    this.version = this.states || random.chance(0.7) ? 2 : 1;
    this.faultRate = random.pick([0.002, 0.01, 0.03]);
    this.nodes = [new Node("A", new PretendDisk(random)), new Node("B", new PretendDisk(random))];
    this.entitled = new Set(this.nodes);
    this.note(
      `${this.mode}, states ${this.states}, zeroes ${this.zeroes}, version ${this.version}`,
    );
  }

  note(text: string): void {
    this.story.push(text);
  }

  must(condition: boolean, text: string): void {
    if (!condition) throw new Violation(text);
  }

  other(node: Node): Node {
    return node === this.nodes[0] ? this.nodes[1] : this.nodes[0];
  }

  get leader(): Leader | null {
    return this.nodes[0].leader ?? this.nodes[1].leader;
  }

  #required(cell: number): number {
    return Math.max(this.#acked[cell]!, this.#flushed[cell]!);
  }

  #lacks(node: Node): number {
    for (let cell = 0; cell < CELLS; cell++) {
      if (node.disk.cell(cell) < this.#required(cell)) return cell;
    }
    return -1;
  }

  // ---- what the leader tells ---------------------------------------------------------------------

  answered(leader: Leader, op: ClientOp, errno: number, data: number[] | null): void {
    this.counts.answers++;
    this.note(`${leader.node.name}: answers ${describe(op)}: ${errno === 0 ? "ok" : errno}`);
    if (errno !== 0) return;
    const other = this.other(leader.node);
    if (op.kind === READ) {
      for (let index = 0; index < op.count; index++) {
        const cell = op.from + index;
        const value = data![index]!;
        const write = this.#writes[value];
        this.must(
          write !== undefined && cell >= write.from && cell < write.from + write.count,
          `cell ${cell} reads as ${value}, which was never written there`,
        );
        this.must(
          value >= op.floor[cell]!,
          `cell ${cell} reads as ${value}, older than ${op.floor[cell]}`,
        );
      }
      return;
    }
    if (op.kind === FLUSH) {
      let alone = false;
      for (let cell = 0; cell < CELLS; cell++) {
        const floor = op.floor[cell]!;
        const here = leader.node.disk.versions<number>(cell).every((value) => value >= floor);
        const there = other.disk.versions<number>(cell).every((value) => value >= floor);
        this.must(
          here || leader.core.stale,
          `FLUSH is acknowledged, but cell ${cell} is not stable here`,
        );
        this.must(
          there || !leader.core.stale || this.#peerFault,
          `a stale primary acknowledges FLUSH, but cell ${cell} is not stable at the peer`,
        );
        if (!there) alone = true;
        this.#flushed[cell] = Math.max(this.#flushed[cell]!, floor);
      }
      const excused = this.mode === "async" && leader.core.connected;
      if (alone && !excused) this.#mustBeMarked(leader, describe(op));
      return;
    }
    let alone = false;
    for (let index = 0; index < op.count; index++) {
      const cell = op.from + index;
      this.#view[cell] = Math.max(this.#view[cell]!, op.id);
      if (!this.#peerFault) this.#acked[cell] = Math.max(this.#acked[cell]!, op.id);
      this.must(
        leader.node.disk.cell(cell) >= op.id,
        `${describe(op)} is acknowledged without being written here`,
      );
      if (!this.#holds(other, cell, op.id)) alone = true;
    }
    if (alone) {
      this.must(
        !leader.core.stale || this.#peerFault,
        `a stale primary acknowledges ${describe(op)} alone`,
      );
      const backlog = this.mode === "async" && leader.core.connected;
      // memsync relied on the peer's memory, and the peer's disk failed after that.
      const promised = other.received.has(op.id);
      if (!backlog && !promised) this.#mustBeMarked(leader, describe(op));
      if (!backlog || this.#marked(leader.node)) this.entitled.delete(other);
    }
  }

  #holds(node: Node, cell: number, value: number): boolean {
    return node.follower?.holds(cell, value) ?? node.disk.cell(cell) >= value;
  }

  #mustBeMarked(leader: Leader, what: string): void {
    if (this.#peerFault) return; // a promise that the peer broke; the link tells, and the mark follows
    this.entitled.delete(this.other(leader.node));
    this.must(this.#marked(leader.node), `${what} is acknowledged alone, without a stable mark`);
  }

  /** Will the other node learn, whatever happens, that this one went on alone? */
  #marked(node: Node): boolean {
    const other = this.other(node).disk.versions<Stored>(RECORD);
    return node.disk
      .versions<Stored>(RECORD)
      .every((own) => other.every((its) => own.localcnt > its.remotecnt));
  }

  mustBeCovered(node: Node, core: Primary, slot: number): void {
    const start = core.offset[slot]! / CELL;
    const end = start + core.length[slot]! / CELL;
    for (let cell = start; cell < end; cell++) {
      this.must(hasBit(node, cell), `cell ${cell} is written before its extent is marked on disk`);
    }
  }

  accepted(leader: Leader, source: "primary" | "secondary"): void {
    this.#peerFault = false;
    this.counts.resyncs++;
    const from = source === "primary" && !leader.core.stale ? leader.node : this.other(leader.node);
    const cell = this.#lacks(from);
    this.must(
      cell < 0,
      `${from.name} is the source, but its cell ${cell} is ${cell < 0 ? 0 : from.disk.cell(cell)} where ` +
        `${cell < 0 ? 0 : this.#required(cell)} was acknowledged`,
    );
    this.entitled.add(from);
    for (let at = 0; at < CELLS; at++) {
      // What the peer, as the source, lost with its power before any FLUSH is gone.
      const seen = from === leader.node ? this.#view[at]! : 0;
      this.#view[at] = Math.max(seen, this.#required(at));
      for (const op of leader.client.values())
        op.floor[at] = Math.min(op.floor[at]!, this.#view[at]!);
    }
  }

  linkLost(leader: Leader): void {
    const other = this.other(leader.node);
    this.#peerFault = false;
    for (let cell = 0; cell < CELLS; cell++) {
      if (!this.#holds(other, cell, this.#required(cell))) this.entitled.delete(other);
    }
  }

  refused(leader: Leader, reason: string, splitBrain: boolean): void {
    this.must(splitBrain || /not secondary/.test(reason), `refused: ${reason}`);
    if (!splitBrain) return;
    this.counts.splitBrains++;
    this.must(!leader.core.stale, "split-brain with a primary that is not whole");
    // The operator keeps the primary's copy, and creates the other one anew.
    const other = this.other(leader.node);
    this.note(`split-brain: ${other.name} is created anew`);
    other.disk.orphan();
    other.disk.wipe();
    this.#acked = [...this.#view];
    this.#flushed = this.#view.map((value, cell) =>
      Math.min(value, ...leader.node.disk.versions<number>(cell)),
    );
    this.entitled.clear();
    this.entitled.add(leader.node);
  }

  // ---- roles --------------------------------------------------------------------------------------

  #promote(node: Node): void {
    this.counts.promotions++;
    const { disk } = node;
    const last = this.#lastLeader;
    if (
      this.mode === "async" &&
      last !== null &&
      last !== node &&
      this.#lastDied &&
      !this.#marked(last)
    ) {
      // What async had not sent yet is gone: nothing promised it.
      for (let cell = 0; cell < CELLS; cell++) {
        this.#acked[cell] = Math.min(this.#acked[cell]!, disk.cell(cell));
        this.#flushed[cell] = Math.min(this.#flushed[cell]!, disk.cell(cell));
      }
    }
    const entitled = this.entitled.has(node);
    this.note(
      `${node.name}: primary${entitled ? "" : ", a bet"} ${words(disk.record)}, map ${disk.cell(MAP).toString(2)}`,
    );
    const cell = this.#lacks(node);
    this.must(
      !entitled || cell < 0,
      `${node.name} is promoted, but its cell ${cell} is ${cell < 0 ? 0 : disk.cell(cell)} where ` +
        `${cell < 0 ? 0 : this.#required(cell)} was acknowledged`,
    );
    for (let at = 0; at < CELLS; at++) {
      this.#view[at] = entitled ? this.#required(at) : Math.min(this.#required(at), disk.cell(at));
    }
    node.role = "primary";
    node.leader = new Leader(this, node);
    this.#lastLeader = node;
    this.#lastDied = false;
  }

  /** Who may become primary, the likeliest first. */
  #candidates(): Node[] {
    const fresh = this.nodes.every((node) => node.disk.record.resuid === 0n);
    const able = this.nodes.filter((node) => {
      const { record } = node.disk;
      // A component that has never been paired, or never got its first copy, is nobody's choice.
      return node.promotable && (fresh || (record.resuid !== 0n && !this.#neverWhole(node)));
    });
    return able.sort((a, b) => Number(this.entitled.has(b)) - Number(this.entitled.has(a)));
  }

  #neverWhole(node: Node): boolean {
    return node.disk.record.state === "new" && this.#lacks(node) >= 0 && !this.entitled.has(node);
  }

  /** The worker of a node ends as if killed. */
  #kill(node: Node): void {
    const { leader, follower } = node;
    node.leader = null;
    node.follower = null;
    node.role = "down";
    node.disk.orphan();
    for (const wire of this.wires) {
      if (leader !== null && wire.leader === leader) wire.cut(this.random, "to-secondary");
      if (follower !== null && wire.follower === follower) wire.cut(this.random, "to-primary");
      if (wire.node === node && wire.follower === null) wire.cut(this.random, "to-primary");
    }
    if (leader !== null) this.#lastDied = true;
    if (follower !== null) this.entitled.delete(node);
    if (leader === null && this.leader?.phase === "up") this.#peerFault = true;
  }

  #powerCut(node: Node): void {
    this.#kill(node);
    node.disk.powerCut();
    this.#acked = [...this.#flushed];
  }

  // ---- one step ------------------------------------------------------------------------------------

  step(): void {
    const { random } = this;
    const actions: [weight: number, act: () => void][] = [];
    const leader = this.leader;
    for (const node of this.nodes) {
      const { ops } = node.disk;
      if (ops.length > 0) actions.push([3 + ops.length, () => this.#completeOne(node)]);
      if (node.role === "down" && this.#mayStart(node)) {
        actions.push([this.faults ? 0.3 : 5, () => this.#becomeSecondary(node)]);
      }
    }
    for (const wire of this.wires) {
      if (wire.toPrimary.length > 0) actions.push([5, () => this.#deliverToPrimary(wire)]);
      if (wire.toSecondary.length > 0 && this.#deliverable(wire)) {
        actions.push([5, () => this.#deliverToSecondary(wire)]);
      }
    }
    if (leader !== null) {
      if (leader.needsPump) actions.push([8, () => leader.pump()]);
      if (
        this.faults &&
        !leader.stopping &&
        leader.client.size < OUTSTANDING_MAX &&
        leader.core.room > 0
      ) {
        actions.push([3, () => this.#submit(leader)]);
      }
      if (leader.phase === "idle" && !leader.stopping) actions.push([1, () => leader.connect()]);
      if (this.faults) {
        actions.push([0.3, () => this.#tick(random.pick([200, 1000, 5000]))]);
        if (!leader.stopping) actions.push([0.05, () => this.#stop(leader)]);
        actions.push([0.1, () => leader.core.openGate(leader)]);
      }
    } else {
      const candidates = this.#candidates();
      if (candidates.length > 0) {
        const node = this.faults && random.chance(0.3) ? random.pick(candidates) : candidates[0]!;
        actions.push([this.faults ? 0.5 : 5, () => this.#wantPrimary(node)]);
      }
    }
    if (this.faults) actions.push([this.faultRate * 20, () => this.#fault()]);
    if (actions.length === 0 || (!this.faults && actions.length === 0)) this.#tick(1000);
    else this.#choose(actions);
    this.#afterwards();
  }

  #choose(actions: readonly [weight: number, act: () => void][]): void {
    let at = this.random.next() * actions.reduce((sum, [weight]) => sum + weight, 0);
    for (const [weight, act] of actions) {
      at -= weight;
      if (at < 0) {
        act();
        return;
      }
    }
    this.#tick(1000);
  }

  #completeOne(node: Node): void {
    const op = this.random.pick(node.disk.ops);
    const errno = this.faults && op.fallible && this.random.chance(this.faultRate / 3) ? EIO : 0;
    this.note(`${node.name}: ${op.what} ${errno === 0 ? "done" : "fails"}`);
    if (node.leader !== null) node.leader.needsPump = true;
    node.disk.complete(op, errno);
  }

  #deliverToPrimary(wire: Wire): void {
    const message = wire.toPrimary.shift()!;
    if (wire.leader.node.leader !== wire.leader || wire.leader.wire !== wire) return;
    this.note(`${wire.leader.node.name}: hears ${spell(message)}`);
    wire.leader.needsPump = true;
    wire.leader.hear(message);
  }

  #deliverable(wire: Wire): boolean {
    const message = wire.toSecondary[0]!;
    if (message.kind !== "hello") return wire.follower === null || wire.follower.canTake;
    const { node } = wire;
    if (node.role === "down") return false;
    if (node.role !== "secondary" || node.follower === null) return true;
    // A new primary connection ends the old one, which first does what it has received.
    const old = node.follower.wire;
    if (old.toSecondary.at(-1)?.kind !== "eof" && node.follower.phase !== "draining") {
      old.cut(this.random, "both");
    }
    return false;
  }

  #deliverToSecondary(wire: Wire): void {
    const message = wire.toSecondary.shift()!;
    const { node, follower } = wire;
    if (message.kind === "hello") {
      if (node.role === "secondary") {
        wire.follower = new Follower(this, node, wire, message.hello);
      } else {
        wire.tellPrimary({ kind: "refused", reason: "not secondary", splitBrain: false });
      }
      return;
    }
    if (follower === null || node.follower !== follower) return;
    if (message.kind !== "keepalive") this.note(`${node.name}: hears ${spell(message)}`);
    follower.hear(message);
  }

  #submit(leader: Leader): void {
    const { random } = this;
    const kind = random.pick([READ, READ, WRITE, WRITE, WRITE, WRITE, ZERO, FLUSH] as const);
    const limited = leader.core.connected && !leader.core.peerZeroes;
    const most = kind === ZERO && !limited ? 6 : 2;
    const count = kind === FLUSH ? 0 : 1 + random.below(most);
    const from = kind === FLUSH ? 0 : random.below(CELLS - count + 1);
    let id = 0;
    if (kind === WRITE || kind === ZERO) id = this.#writes.push({ from, count }) - 1;
    const op: ClientOp = { kind, from, count, id, floor: [...this.#view] };
    this.note(`${leader.node.name}: ${describe(op)}`);
    leader.needsPump = true;
    leader.submit(op);
  }

  #tick(ms: number): void {
    this.nowMs += ms;
    const leader = this.leader;
    if (leader === null) return;
    leader.needsPump = true;
    leader.core.onTick(this.nowMs, leader);
  }

  #stop(leader: Leader): void {
    this.note(`${leader.node.name}: stop`);
    leader.stopping = true;
    leader.needsPump = true;
    leader.core.stop(leader);
  }

  #mayStart(node: Node): boolean {
    return this.leader !== null || this.faults || this.other(node).role !== "down";
  }

  #becomeSecondary(node: Node): void {
    this.note(`${node.name}: secondary`);
    node.role = "secondary";
  }

  #wantPrimary(node: Node): void {
    const { follower } = node;
    if (follower !== null) {
      // Its worker stops first, which takes until everything received has been done.
      if (follower.phase === "starting") this.#kill(node);
      else if (follower.phase === "serving" && follower.wire.toSecondary.at(-1)?.kind !== "eof") {
        follower.wire.cut(this.random, "both");
      }
      return;
    }
    this.#promote(node);
  }

  #fault(): void {
    this.counts.faults++;
    const { random } = this;
    const node = random.pick(this.nodes);
    switch (random.below(4)) {
      case 0:
      case 1: {
        const wire = this.leader?.wire ?? null;
        if (wire === null) return;
        this.note("the link is cut");
        wire.cut(random, "both");
        return;
      }
      case 2:
        if (node.role === "down") return;
        this.note(`${node.name}: killed`);
        this.#kill(node);
        return;
      default:
        this.note(`${node.name}: power cut`);
        this.#powerCut(node);
    }
  }

  #afterwards(): void {
    this.wires = this.wires.filter(
      (wire) =>
        wire.toPrimary.length + wire.toSecondary.length > 0 ||
        wire.leader.wire === wire ||
        wire.node.follower === wire.follower,
    );
    for (const node of this.nodes) {
      const { leader } = node;
      if (leader === null) continue;
      if (leader.needsPump && this.random.chance(0.7)) leader.pump();
      if (leader.done) {
        node.leader = null;
        node.role = "down";
        node.disk.orphan();
        if (leader.wire !== null) leader.wire.cut(this.random, "to-secondary");
        if (!leader.stopping) this.#lastDied = true;
        continue;
      }
      leader.map.assertInvariants();
      const { core } = leader;
      if (core.connected && !core.resyncing && core.map.resyncCount === 0 && !this.#peerFault) {
        for (const each of this.nodes) if (this.#lacks(each) < 0) this.entitled.add(each);
      }
    }
    this.#checkCoverage();
  }

  /** Whatever may differ between the nodes, now or after power cuts, is marked on a disk. */
  #checkCoverage(): void {
    const [a, b] = this.nodes;
    if (isUnpaired(a) || isUnpaired(b)) return;
    for (let cell = 0; cell < CELLS; cell++) {
      const values = new Set([...a.disk.versions<number>(cell), ...b.disk.versions<number>(cell)]);
      if (values.size === 1 || hasBit(a, cell) || hasBit(b, cell)) continue;
      throw new Violation(
        `cell ${cell} may be ${[...a.disk.versions(cell)]} on A and ${[...b.disk.versions(cell)]} ` +
          "on B, and neither map says so",
      );
    }
  }

  // ---- a whole run ----------------------------------------------------------------------------------

  run(steps: number): void {
    for (let index = 0; index < steps; index++) this.step();
    this.faults = false;
    this.note("---- no more faults");
    // Whatever was under way must end, and the nodes become equal, in bounded time.
    for (let index = 0; index < 6000; index++) {
      if (this.#converged()) {
        this.#checkEnd();
        return;
      }
      this.step();
    }
    throw new Violation(`the nodes do not converge: ${this.#why()}`);
  }

  #converged(): boolean {
    return this.#why() === "";
  }

  #why(): string {
    const leader = this.leader;
    if (leader === null) return "no primary";
    if (leader.client.size > 0)
      return `${leader.client.size} requests are not answered: ${[...leader.client.values()].map(describe)}`;
    if (!leader.core.connected) return "not connected";
    if (leader.core.resyncing) return "still synchronizing";
    if (leader.map.dirtyCount > 0) return `${leader.map.dirtyCount} extents are dirty`;
    if (leader.core.recordPending) return "a record is being written";
    return "";
  }

  #checkEnd(): void {
    const [a, b] = this.nodes;
    for (let cell = 0; cell < CELLS; cell++) {
      this.must(
        a.disk.cell(cell) === b.disk.cell(cell),
        `at the end cell ${cell} is ${a.disk.cell(cell)} on A and ${b.disk.cell(cell)} on B`,
      );
      this.must(
        a.disk.cell(cell) >= this.#required(cell),
        `at the end cell ${cell} is ${a.disk.cell(cell)} where ${this.#required(cell)} was acknowledged`,
      );
    }
  }
}

function isUnpaired(node: Node): boolean {
  return node.disk.versions<Stored>(RECORD).every((record) => record.resuid === 0n);
}

/** Is the cell's extent marked on disk, whatever a power cut leaves? */
function hasBit(node: Node, cell: number): boolean {
  const mask = 1 << Math.floor(cell / EXTENT_CELLS);
  return node.disk.versions<number>(MAP).every((bits) => (bits & mask) !== 0);
}

function describe(op: ClientOp): string {
  const range = op.count === 1 ? `${op.from}` : `${op.from}-${op.from + op.count - 1}`;
  if (op.kind === READ) return `READ ${range}`;
  if (op.kind === FLUSH) return "FLUSH";
  return `${op.kind === WRITE ? "WRITE" : "ZERO"} ${op.id}@${range}`;
}

function spell(message: ToPrimary | ToSecondary): string {
  switch (message.kind) {
    case "request":
      return `${["", "READ", "WRITE", "ZERO", "FLUSH"][message.command]} seq ${message.seq} ${message.data ?? ""}@${message.from}`;
    case "reply":
      return `reply to ${message.seq}${message.received ? " received" : ""}${message.errno === 0 ? "" : ` error ${message.errno}`}`;
    case "state":
      return `${message.state} ${message.localcnt}`;
    default:
      return message.kind;
  }
}

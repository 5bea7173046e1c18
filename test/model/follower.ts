// SPDX-License-Identifier: BSD-2-Clause
/** Stand-in for the secondary's engine, around the real core: one connection. */

import { Activemap } from "../../src/replication/activemap.ts";
import { ERR_AGAIN, READ } from "../../src/replication/requests.ts";
import {
  equal,
  judge,
  Secondary,
  type SecondaryOutbox,
  soleRecord,
} from "../../src/replication/secondary.ts";
import {
  ALL_ONES,
  CELL,
  CELLS,
  EXTENT_CELLS,
  MAP,
  RECORD,
  REGION,
  type Stored,
  words,
} from "./disk.ts";
import { hasBit, type Node } from "./node.ts";
import type { ToSecondary, Wire } from "./wire.ts";
import type { World } from "./world.ts";

const EINVAL = 22;

export class Follower implements SecondaryOutbox {
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
  readonly #together: boolean;
  readonly #cache: bigint;
  /** Everything acknowledged under our counters is in this machine's cache at least. */
  #whole: boolean;
  #kept: Activemap | null = null;
  #staging = new Uint8Array(REGION);

  constructor(
    world: World,
    node: Node,
    wire: Wire,
    { hello, life, dirty }: ToSecondary & { kind: "hello" },
  ) {
    this.world = world;
    this.node = node;
    this.wire = wire;
    node.follower = this;
    wire.follower = this;
    node.disk.settle();
    const { resuid, localcnt, remotecnt, state, synced, alone } = node.disk.record;
    const counts = { resuid, localcnt, remotecnt, state, synced };
    const marked = dirty > 0 || node.disk.cell(MAP) !== 0;
    const held = node.held;
    node.held = null;
    this.#cache = node.cache ?? world.anyCache();
    node.cache = null;
    node.vouched = true;
    this.#together = life?.early === false;
    this.#whole =
      held !== null &&
      state === "uptodate" &&
      held.resuid === resuid &&
      held.localcnt === localcnt &&
      held.remotecnt === remotecnt;
    const keptHere = this.#whole && life?.early === false && life.fresh && marked;
    const judgement = judge(counts, { ...hello, keptHere });
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
      if (this.vouches) node.held = { resuid, localcnt, remotecnt };
      node.cache = this.#cache;
      node.follower = null;
      return;
    }
    if (judgement.source !== "secondary") this.#whole = !marked;
    const level = equal(counts, hello) && resuid === hello.resuid;
    if (!this.#together || !level || state !== "uptodate") this.#whole = false;
    const answer = (): void => {
      this.phase = "serving";
      const own = node.disk.cell(MAP);
      const map = judgement.map === "own-unless-empty" && own === 0 ? null : own;
      const cache = world.states ? this.#cache : null;
      wire.tellPrimary({ kind: "accepted", judgement, map, own: counts, cache });
    };
    const storeRecord = (): void => {
      if (judgement.record === null) answer();
      else this.#store({ ...judgement.record, alone, prevrole: "secondary" }, answer);
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

  get vouches(): boolean {
    return this.#whole && !this.core.lacks && this.core.readErrors === 0;
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
      case "keepalive":
        if (this.world.keeps) this.#reply(0, false, 0, null);
        break;
      case "hello":
        break;
    }
    this.turn();
  }

  turn(): void {
    this.core.pump(this);
    const waiting = this.#stateWaiting;
    if (waiting !== null && this.core.active === 0 && !this.#storing && !this.#clearing) {
      const answer = (errno: number): void => {
        this.#stateWaiting = null;
        this.#reply(waiting.seq, false, errno, null);
      };
      const value = this.#told(waiting);
      if (waiting.state === "uptodate" && !this.core.mayBeWhole) {
        this.#whole = false;
        answer(ERR_AGAIN);
      } else if (value === null) answer(EINVAL);
      else {
        this.#whole = false;
        this.#store({ ...value, prevrole: "secondary" }, () => {
          this.#whole = waiting.state === "uptodate" && this.#together;
          answer(0);
        });
      }
    }
    this.#settle();
  }

  /** A FreeBSD primary has sent no copy for so long that there are none to come (protocol.md §7). */
  inferEnd(): void {
    const { disk } = this.node;
    if (this.phase !== "serving" || this.#storing || this.core.active > 0) return;
    if (disk.record.state !== "inconsistent" || this.core.lacks) return;
    disk.flush("flush", false, () => {
      this.#store({ ...disk.record, state: "uptodate", prevrole: "secondary" }, () => {});
    });
  }

  #told({
    state,
    localcnt,
    remotecnt,
    synced,
  }: ToSecondary & { kind: "state" }): Omit<Stored, "prevrole"> | null {
    const { record } = this.node.disk;
    if (state === "inconsistent") return { ...record, state };
    if (state === "uptodate") {
      return { ...record, remotecnt: localcnt, state, synced, alone: false };
    }
    const sole = soleRecord(record, localcnt, remotecnt);
    if (sole !== null && this.#kept === null) this.#keep();
    return sole === null ? null : { ...record, ...sole };
  }

  #keep(): void {
    this.#kept = new Activemap({
      dataSize: CELLS * CELL,
      extentSize: EXTENT_CELLS * CELL,
      keepdirty: 1,
      regionSize: REGION,
      sectorSize: REGION,
    });
    const bytes = new Uint8Array(REGION);
    bytes[0] = this.node.disk.cell(MAP);
    this.#kept.load(bytes);
    this.core.keep(this.#kept);
  }

  writeMap(): void {
    const { disk } = this.node;
    if (this.#kept!.takeChanges(this.#staging) < 0) {
      disk.flush("flush kept map", false, () => {
        this.#kept!.changesPersisted(0, this.#staging, REGION);
        this.core.mapWritten(this);
        this.turn();
      });
      return;
    }
    const value = this.#staging[0]!;
    disk.write(`kept map ${value.toString(2)}`, [{ place: MAP, value }], false, () =>
      this.writeMap(),
    );
  }

  #settle(): void {
    if (this.phase !== "draining" || this.core.active > 0) return;
    if (this.#stateWaiting !== null || this.#storing || this.#clearing) return;
    if (this.node.follower !== this) return;
    this.node.follower = null;
    const { resuid, localcnt, remotecnt } = this.node.disk.record;
    if (this.vouches) this.node.held = { resuid, localcnt, remotecnt };
    if (!this.core.lacks) this.node.cache = this.#cache;
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
      const held = this.data.get(seq)?.[index] ?? -1;
      if (this.core.kind[slot] !== READ && held >= value) return true;
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
      this.turn();
    });
  }

  #end(slot: number, errno: number): void {
    const kind = this.core.kind[slot];
    const failed = errno !== 0 && kind !== READ;
    if (errno !== 0) this.world.disclaim(this.node);
    if (failed) this.world.entitled.delete(this.node);
    if (
      failed &&
      !this.core.keeping &&
      this.world.states &&
      this.node.disk.record.state !== "inconsistent"
    ) {
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
    const { from, count } = this.#cells(slot);
    for (let cell = from; this.core.keeping && cell < from + count; cell++) {
      this.world.must(hasBit(this.node, cell), `cell ${cell} is written before it is marked here`);
    }
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
    this.node.disk.flush("flush", true, (errno) => {
      if (errno !== 0) this.world.flushFailed(this.node, this.phase === "serving");
      this.#end(slot, errno);
    });
  }
}

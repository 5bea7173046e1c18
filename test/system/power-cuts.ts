// SPDX-License-Identifier: BSD-2-Clause
/**
 * Rounds of load and power cuts on a {@link PoweredPair}, and what must be true after each.
 *
 *   load: a RecordedWriter over NBD, in blocks of a sector; beside it a log and SQLite on ext4
 *
 *   primary            cut the primary; promote the other one; the first returns as secondary
 *   primary-again      cut the primary; it returns and is promoted again
 *   secondary          cut the secondary under load; it returns; then the roles are switched
 *   both               cut both at the same moment; promote either
 *   idle               cut both when they are in sync and nothing is going on; promote either
 *   secondary-primary  cut the secondary, go on alone, cut the primary; both return, promote either
 *   successor          cut the primary, promote the other one, cut that; both return, promote either
 *   resync             cut the secondary, go on alone; it returns and is cut again at once, or the primary
 *                      is, or both are; the primary is promoted again
 *
 * After each, what the mode promises is read back, both nodes come in sync and their bytes are equal. With
 * both nodes down, every extent in which they differ is marked on the disk of one of them.
 */

import { closeSync, openSync, readSync } from "node:fs";
import { Random } from "../model/disk.ts";
import { type Acknowledged, MountedLoad } from "./mounted-load.ts";
import type { NbdClient } from "./nbd-client.ts";
import { PoweredPair } from "./power.ts";
import { type Promised, RecordedWriter } from "./recorded-writer.ts";
import { type Node, RESOURCE, type TwoNodes } from "./two-nodes.ts";
import { pause, until } from "./until.ts";

export const ROUND_KINDS = [
  "primary",
  "primary-again",
  "secondary",
  "both",
  "idle",
  "secondary-primary",
  "successor",
  "resync",
] as const;

export type RoundKind = (typeof ROUND_KINDS)[number];

export type Mode = "fullsync" | "memsync" | "async";

const MIB = 1024 * 1024;
const MEDIA_SIZE = 48 * MIB;
/** The file system has the first part of the export, the writer another one. */
const FILE_SYSTEM_SIZE = 24 * MIB;
const WRITER_OFFSET = 32 * MIB;
/** Spread over a dozen extents, and rewritten often enough that flushes and overwrites mix. */
const WRITER_BLOCKS = 4096;
/** Bytes. Small, so that bits are set and cleared all the time. */
const EXTENT_SIZE = 256 * 1024;
/** Where FreeBSD's layout has the activemap, in bytes. */
const MAP_OFFSET = 4096;

export interface Tally {
  rounds: number;
  cuts: number;
  /** Sectors that were not flushed when the power went, and those that then went back in time. */
  unflushed: number;
  lost: number;
  /** Writes over NBD, log records and database transactions, acknowledged and checked. */
  writes: number;
  records: number;
  transactions: number;
}

export class PowerCuts {
  readonly tally: Tally = {
    rounds: 0,
    cuts: 0,
    unflushed: 0,
    lost: 0,
    writes: 0,
    records: 0,
    transactions: 0,
  };
  /** What was done, for whoever reads of a failure. */
  readonly history: string[] = [];
  readonly mode: Mode;
  readonly seed: number;
  readonly powered: PoweredPair;
  readonly #random: Random;
  readonly #writer: RecordedWriter;
  readonly #files: MountedLoad;
  readonly #down = new Set<Node>();
  #client: NbdClient | null = null;
  #loaded = false;
  #settledFiles: Acknowledged = { anchor: 0, log: 0, sql: 0 };
  #primary: Node;

  private constructor(powered: PoweredPair, mode: Mode, seed: number) {
    this.powered = powered;
    this.mode = mode;
    this.seed = seed;
    this.#random = new Random(seed);
    this.#primary = powered.pair.alpha;
    this.#writer = new RecordedWriter({
      offset: WRITER_OFFSET,
      blockSize: 512,
      blockCount: WRITER_BLOCKS,
      flushEvery: 20,
      seed: seed | 1,
    });
    this.#files = new MountedLoad(powered.pair.directory);
  }

  /** Two nodes in sync, an empty file system, nothing going on. */
  static async start(mode: Mode, seed: number): Promise<PowerCuts> {
    const powered = await PoweredPair.startReplicating({
      replication: mode,
      mediaSize: MEDIA_SIZE,
      // One through io_uring past the page cache, one through it: each engine meets each role.
      kinds: ["block", "file"],
      seed,
      create: ["-e", String(EXTENT_SIZE)],
    });
    const cuts = new PowerCuts(powered, mode, seed);
    try {
      await cuts.#files.make(powered.pair.alpha, FILE_SYSTEM_SIZE);
      await cuts.#files.appear(powered.pair.alpha);
    } catch (error) {
      throw await cuts.failed(error);
    }
    return cuts;
  }

  get #pair(): TwoNodes {
    return this.powered.pair;
  }

  get #secondary(): Node {
    return this.#pair.other(this.#primary);
  }

  /** A part of a second that is different each time. */
  #moment(atMostMs: number): Promise<void> {
    return pause(this.#random.below(atMostMs));
  }

  /** One load, one or more power cuts, and the proof that nothing promised is lost. Ends in sync. */
  async round(kind: RoundKind): Promise<void> {
    this.history.push(`${kind}:`);
    await this.#startLoad();
    await this.#moment(600);
    switch (kind) {
      case "primary":
        await this.#cut(this.#primary);
        await this.#failOver();
        break;
      case "primary-again":
        await this.#cut(this.#primary);
        await this.#restore(this.#primary);
        await this.#promote(this.#primary, "flushed");
        break;
      case "secondary":
        await this.#cut(this.#secondary);
        await this.#moment(300);
        break;
      case "both":
        await this.#cut(this.#primary, this.#secondary);
        await this.#returnBoth("flushed");
        break;
      case "idle":
        await this.#settle();
        await this.#cut(this.#primary, this.#secondary);
        await this.powered.plug(...this.#pair.nodes);
        await this.#requireEqual();
        await this.#returnBoth("settled");
        break;
      case "secondary-primary":
        await this.#cut(this.#secondary);
        await this.#moment(300);
        await this.#cut(this.#primary);
        await this.#returnBoth("flushed");
        break;
      case "successor":
        await this.#cut(this.#primary);
        await this.#failOver();
        await this.#startLoad();
        await this.#moment(300);
        await this.#cut(this.#primary);
        await this.#returnBoth("flushed");
        break;
      case "resync":
        await this.#cut(this.#secondary);
        await this.#moment(500);
        await this.#restore(this.#secondary);
        await this.#secondary.role("secondary");
        await this.#moment(200);
        await this.#cutInResync();
        break;
    }
    await this.#converge(kind === "secondary");
    this.tally.rounds++;
  }

  /**
   * Both disks lie about flushes from now on, under load; then the power of both goes.
   *
   * @returns what the writer and the file system's auditor say then, null where they saw nothing wrong
   */
  async cutWithLies(): Promise<{ writer: string | null; files: string | null }> {
    this.history.push("lies:");
    await this.#startLoad();
    for (const node of this.#pair.nodes) await this.powered.setLying(node, true);
    const { sql } = this.#files.acknowledged;
    await until("much was acknowledged", () => this.#files.acknowledged.sql > sql + 20);
    const primary = this.#primary;
    await this.#cut(primary, this.#secondary);
    await this.#restore(primary, this.#secondary);
    await this.#secondary.role("secondary");
    await primary.role("primary");
    this.#client = await primary.connect();
    return {
      writer: await complaintOf(this.#writer.verify(this.#client, "flushed")),
      files: await complaintOf(this.#files.appear(primary)),
    };
  }

  async #cutInResync(): Promise<void> {
    const primary = this.#primary;
    const which = this.#random.pick(["primary", "secondary", "both"] as const);
    if (which === "secondary") {
      await this.#cut(this.#secondary);
    } else if (which === "both") {
      await this.#cut(primary, this.#secondary);
      await this.#returnBoth("flushed");
    } else {
      // The other one may be a mix of old and new: only this one has everything.
      await this.#cut(primary);
      await this.#restore(primary);
      await this.#promote(primary, "flushed");
    }
  }

  /** The primary has gone. The secondary had everything that was acknowledged; async: all but the last moments. */
  async #failOver(): Promise<void> {
    await this.#promote(this.#secondary, this.mode === "async" ? "settled" : "acknowledged");
  }

  /** Both are without power. What they disagree about is on record; then either is promoted. */
  async #returnBoth(promised: Promised): Promise<void> {
    const { alpha, beta } = this.#pair;
    await this.powered.plug(...this.#pair.nodes);
    const unmarked = await this.#unmarkedDifferences();
    if (unmarked.length > 0) {
      throw new Error(`extents differ, and neither node has them marked: ${unmarked.join(" ")}`);
    }
    await this.#restore(alpha, beta);
    // async: what the last primary had flushed is nowhere else.
    const same = this.mode === "async" || this.#random.chance(0.25);
    const wanted = same ? this.#primary : this.#secondary;
    const other = this.#pair.other(wanted);
    await other.role("secondary");
    const { code, stderr } = await wanted.hastctl("role", "primary", RESOURCE);
    if (code === 0) {
      await this.#promote(wanted, promised);
      return;
    }
    // A node whose copy is not whole says so; the other one's then is.
    this.history.push(`${wanted.name} refused`);
    if (!/outdated|unfinished synchronization/.test(stderr)) throw new Error(stderr);
    await wanted.role("secondary");
    await this.#promote(other, promised);
  }

  async #promote(node: Node, promised: Promised): Promise<void> {
    this.history.push(`${node.name} primary`);
    await node.role("primary");
    this.#primary = node;
    const client = await node.connect();
    this.#client = client;
    await this.#writer.verify(client, promised);
    const files = promised === "settled" ? this.#settledFiles : this.#files.acknowledged;
    await this.#files.appear(node, { ...files });
    this.#tallyLoad();
  }

  async #startLoad(): Promise<void> {
    this.#client ??= await this.#primary.connect();
    if (!this.#files.mounted) await this.#files.appear(this.#primary);
    this.#writer.start(this.#client);
    this.#files.start();
    // The run begins by removing what the last one left.
    this.#settledFiles = { anchor: this.#settledFiles.anchor, log: 0, sql: 0 };
    this.#loaded = true;
    await until("the load is on", () => this.#files.acknowledged.sql > 0);
  }

  /** No request may have failed. */
  async #stopLoad(): Promise<void> {
    if (!this.#loaded) return;
    this.#loaded = false;
    const failure = await this.#writer.stop();
    if (failure !== null) throw new Error(`the writer: ${failure}`);
    await this.#files.leave();
  }

  async #cut(...nodes: readonly Node[]): Promise<void> {
    this.history.push(`cut ${nodes.map((node) => node.name).join("+")}`);
    for (const { unflushed, lost } of await this.powered.cut(...nodes)) {
      this.tally.cuts++;
      this.tally.unflushed += unflushed;
      this.tally.lost += lost;
    }
    for (const node of nodes) this.#down.add(node);
    if (!nodes.includes(this.#primary)) return;
    if (this.#loaded) await this.#writer.ended();
    this.#loaded = false;
    this.#client?.destroy();
    this.#client = null;
    await this.#files.die();
  }

  async #restore(...nodes: readonly Node[]): Promise<void> {
    await this.powered.restore(...nodes);
    for (const node of nodes) this.#down.delete(node);
  }

  /** Nothing goes on any more, and both nodes have everything. */
  async #settle(): Promise<void> {
    await this.#stopLoad();
    await this.#files.leave();
    // Without it the daemon flushes by itself, some seconds later.
    if (this.#random.chance(0.8)) await this.#writer.flush(this.#client!);
    await this.#pair.inSync(this.#primary);
    await this.#writer.verify(this.#client!);
    this.#writer.settle();
    this.#settledFiles = { ...this.#files.acknowledged };
  }

  /** Whoever is down returns as secondary, under load; at the end both nodes are equal. */
  async #converge(switchRoles: boolean): Promise<void> {
    if (!this.#loaded) await this.#startLoad();
    const secondary = this.#secondary;
    if (this.#down.has(secondary)) {
      await this.#restore(secondary);
      await secondary.role("secondary");
    }
    await this.#moment(500);
    await this.#settle();
    if (switchRoles) {
      await this.#client!.disconnect();
      await this.#primary.role("secondary");
      await this.#promote(secondary, "acknowledged");
      await this.#settle();
    }
    await this.#requireEqual();
    this.#tallyLoad();
  }

  async #requireEqual(): Promise<void> {
    const different = await this.#pair.differences();
    if (different.length > 0) throw new Error(`extents differ: ${different.join(" ")}`);
  }

  #tallyLoad(): void {
    this.tally.writes = this.#writer.acknowledgedCount;
    this.tally.records += this.#files.acknowledged.log;
    this.tally.transactions += this.#files.acknowledged.sql;
  }

  /** Offsets of extents that differ and are marked in neither node's map. Both hastds are down. */
  async #unmarkedDifferences(): Promise<number[]> {
    const different = await this.#pair.differences();
    if (different.length === 0) return [];
    const maps = this.#pair.nodes.map((node) => {
      const map = Buffer.alloc(4096);
      const file = openSync(node.local, "r");
      readSync(file, map, 0, map.length, MAP_OFFSET);
      closeSync(file);
      return map;
    });
    return different.filter((offset) => {
      const extent = offset / EXTENT_SIZE;
      return maps.every((map) => (map[extent >> 3]! & (1 << (extent & 7))) === 0);
    });
  }

  /** The file system is whole after all that. Stops everything. */
  async end(): Promise<void> {
    this.#client?.destroy();
    await this.#files.leave();
    await this.#files.inspect(this.#primary);
    await this.powered.stop();
  }

  /** Stops everything, whatever state it is in. */
  async abandon(): Promise<void> {
    this.#client?.destroy();
    await this.powered.unplug();
    await this.#files.die();
    await this.powered.stop();
  }

  /** Stops everything. @returns `error` with what was done and the daemons' logs */
  async failed(error: unknown): Promise<Error> {
    const known = error instanceof Error ? error : new Error(String(error));
    const where = `${this.mode}, seed ${this.seed}, ${this.history.join(" ")}`;
    known.stack = `${where}\n${known.stack}`;
    this.#client?.destroy();
    await this.powered.unplug();
    await this.#files.die();
    return await this.powered.failed(known);
  }
}

async function complaintOf(verdict: Promise<unknown>): Promise<string | null> {
  try {
    await verdict;
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

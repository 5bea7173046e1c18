// SPDX-License-Identifier: BSD-2-Clause
/** One of the two machines: its disk, and the worker that runs on it, if any. */

import type { Held } from "../../src/engine/worker-messages.ts";
import { EXTENT_CELLS, MAP, type PretendDisk, RECORD, type Stored } from "./disk.ts";
import type { Follower } from "./follower.ts";
import type { Leader } from "./leader.ts";

export class Node {
  readonly name: string;
  readonly disk: PretendDisk;
  role: "down" | "secondary" | "primary" = "down";
  leader: Leader | null = null;
  follower: Follower | null = null;
  /** Its daemon has lived, and the machine kept its cache, since its copy was last in use. */
  vouched = false;
  /** What the last follower left to the next one, for as long as the daemon lives. */
  held: Held | null = null;
  /** The name of this node's cache, where its daemon can vouch that it has lost nothing. */
  cache: bigint | null = null;
  /** It has lost its memory or its cache since it was last in step. */
  lossy = false;
  /** Writes that this node, as secondary, has told its primary to rely on. */
  readonly received: Set<number> = new Set();

  constructor(name: string, disk: PretendDisk) {
    this.name = name;
    this.disk = disk;
  }

  /** As the engine refuses: what is outdated, and an unfinished synchronization's target. */
  get promotable(): boolean {
    const { state, prevrole } = this.disk.record;
    return state !== "outdated" && !(state === "inconsistent" && prevrole === "secondary");
  }
}

export function isUnpaired(node: Node): boolean {
  return node.disk.versions<Stored>(RECORD).every((record) => record.resuid === 0n);
}

/** Is the cell's extent marked on disk, whatever a power cut leaves? */
export function hasBit(node: Node, cell: number): boolean {
  const mask = 1 << Math.floor(cell / EXTENT_CELLS);
  return node.disk.versions<number>(MAP).every((bits) => (bits & mask) !== 0);
}

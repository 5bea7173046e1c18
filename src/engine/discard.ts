// SPDX-License-Identifier: BSD-2-Clause
/**
 * Carries out `hastctl resolve --discard-local` on this node's component.
 *
 *   read metadata and map ─▶ plan ─▶ [map of ones, flushed] ─▶ one metadata write, flushed
 *
 * Interrupted before that last write, nothing has changed but bits that may be set in vain; after it
 * the ordinary handshake does the rest, however often that is interrupted (S-10).
 */

import { assert } from "../base/assert.ts";
import { stateOf } from "../metadata/block.ts";
import type { Disk } from "../platform/disk.ts";
import { type DiscardPlan, discardPlan } from "../replication/discard.ts";
import { Component } from "./component.ts";
import { discardLines, ownFacts } from "./divergence.ts";
import type { Memory } from "./memory.ts";
import type { CopyFacts } from "./worker-messages.ts";

export interface Discard {
  readonly resource: string;
  /** What is known of the copy whose changes win; its id is known, and not 0n. */
  readonly keeper: CopyFacts;
  /** Change nothing. */
  readonly dryRun: boolean;
  readonly warn: (text: string) => void;
}

export interface Discarded {
  readonly plan: DiscardPlan["kind"];
  /** What is thrown away and what is copied, or why nothing is; for people. */
  readonly lines: readonly string[];
}

/**
 * @throws MetadataError, or Error with what could not be read or written
 */
export async function discardLocal(
  disk: Disk,
  memory: Memory,
  { resource, keeper, dryRun, warn }: Discard,
): Promise<Discarded> {
  const { resuid } = keeper;
  assert(resuid !== null && resuid !== 0n);
  const component = new Component(disk, memory);
  await component.load(resource, warn);
  const { metadata } = component;
  const map = await component.loadMap();
  const own = ownFacts(metadata, map);
  const plan = discardPlan(
    {
      resuid: metadata.resuid,
      localcnt: metadata.localcnt,
      remotecnt: metadata.remotecnt,
      state: stateOf(metadata),
      synced: metadata.synced,
    },
    {
      resuid,
      localcnt: keeper.localcnt,
      remotecnt: keeper.remotecnt,
      synced: keeper.remarks === null ? "unknown" : keeper.remarks.synced,
      lacking: keeper.remarks?.lacking ?? null,
    },
  );
  const sizes = { dataSize: metadata.datasize, extentSize: metadata.extentsize };
  const lines = discardLines(plan, own, keeper, sizes, resource, dryRun);
  const result = { plan: plan.kind, lines };
  if (plan.kind !== "discard" || dryRun) return result;

  if (plan.fullBecause !== null) await component.markAll();
  await component.storeRecord({ ...plan.record, aloneSince: null });
  return result;
}

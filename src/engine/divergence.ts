// SPDX-License-Identifier: BSD-2-Clause
/**
 * Two copies of which one must give way: what is known of each, and what people are told of it.
 *
 * Both nodes say the same: who changed how much, since when, and what to type where. Nothing here may
 * sound as if it were decided already: only a person can tell which copy to keep.
 */

import { countBits } from "../base/bitmap.ts";
import { type CopyState, type Metadata, stateOf } from "../metadata/block.ts";
import type { DiscardPlan } from "../replication/discard.ts";
import type { LackingWord } from "../wire/handshake.ts";
import { extents, size } from "./quantities.ts";
import type { CopyFacts, Divergence } from "./worker-messages.ts";

/** @param map the component's own, as on its disk */
export function ownFacts(metadata: Metadata, map: Uint8Array): CopyFacts {
  const { resuid, localcnt, remotecnt, synced, aloneSince, datasize, extentsize } = metadata;
  const lacking = lackingOf(stateOf(metadata));
  const extentCount = Math.floor((datasize - 1) / extentsize) + 1;
  const dirtyExtents = countBits(map, Math.min(extentCount, map.length * 8));
  return { resuid, localcnt, remotecnt, remarks: { dirtyExtents, synced, aloneSince, lacking } };
}

/** What a node says against its own copy (CopyRemarks.lacking). */
export function lackingOf(state: CopyState): LackingWord | null {
  return state === "outdated" || state === "inconsistent" ? state : null;
}

/** For status: what is true, who changed what, what to type. */
export function divergenceNotes(divergence: Divergence, resource: string): string[] {
  const { splitBrain, reason, own, peer } = divergence;
  return [
    `${splitBrain ? "split-brain: " : ""}${reason}; nothing is synchronized, and nothing overwritten`,
    `changed here: ${changes(own, divergence)}; on the other node: ${changes(peer, divergence)}`,
    discardAdvice(resource),
  ];
}

/** For two copies of which one must go. */
export function discardAdvice(resource: string): string {
  return (
    "Decide whose changes are thrown away. On THAT node, which must not be primary " +
    `(hastctl role secondary ${resource}), look: hastctl resolve --discard-local --dry-run ${resource}; ` +
    "then type the same without --dry-run. The node to keep goes on as primary, or becomes it: " +
    `hastctl role primary ${resource}`
  );
}

interface Sizes {
  readonly dataSize: number;
  readonly extentSize: number;
}

/** "12 extents (24MB), alone since 2026-11-21 05:59:34 UTC" */
function changes({ remarks }: CopyFacts, sizes: Sizes): string {
  if (remarks === null) return "not known (a FreeBSD node does not tell)";
  const { dirtyExtents, aloneSince, lacking } = remarks;
  const since = aloneSince === null ? "" : `, alone since ${time(aloneSince)}`;
  const against = lacking === null ? "" : `, in a copy that is ${lacking}`;
  return `${extents(dirtyExtents)} (${bytesIn(dirtyExtents, sizes)})${since}${against}`;
}

/**
 * For `hastctl resolve`: what is thrown away and what is copied, or why nothing is.
 * @param dryRun nothing was changed, and the words must not say otherwise
 */
export function discardLines(
  plan: DiscardPlan,
  own: CopyFacts,
  keeper: CopyFacts,
  sizes: Sizes,
  resource: string,
  dryRun: boolean,
): string[] {
  if (plan.kind === "nothing") {
    return ["this node has no changes that the other one lacks: there is nothing to discard"];
  }
  if (plan.kind === "refuse") {
    return [
      `the other node's copy is ${plan.keeperIs}, and this one is not: of the two this is the one to keep, so ` +
        `nothing is thrown away. To go on with it, here: hastctl role primary ${resource}; where the two still ` +
        `do not fit together then, there: hastctl resolve --discard-local ${resource}. If the other one is to ` +
        `be kept all the same, there: hastctl role --force primary ${resource}; then type this again`,
    ];
  }
  const total = Math.floor((sizes.dataSize - 1) / sizes.extentSize) + 1;
  const { fullBecause } = plan;
  let copied: string;
  if (fullBecause !== null) {
    copied = `everything, ${size(sizes.dataSize)}, because ${fullBecause}`;
  } else if (keeper.remarks === null) {
    copied = "what either node's map marks; FreeBSD does not tell how much its own does";
  } else {
    const most = Math.min(total, own.remarks!.dirtyExtents + keeper.remarks.dirtyExtents);
    copied = `at most ${extents(most)} of ${total} (${bytesIn(most, sizes)})`;
  }
  return [
    `${dryRun ? "to be thrown away" : "thrown away"}, the changes of this node: ${changes(own, sizes)}`,
    `to be kept, the changes of the other node: ${changes(keeper, sizes)}`,
    `to be copied here from the other node: ${copied}`,
  ];
}

function bytesIn(extentCount: number, { dataSize, extentSize }: Sizes): string {
  return size(Math.min(extentCount * extentSize, dataSize));
}

/** "2026-11-21 05:59:34 UTC" @param ms since the Unix epoch */
export function time(ms: number): string {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return "a time that makes no sense";
  return `${date.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

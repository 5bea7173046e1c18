// SPDX-License-Identifier: BSD-2-Clause
/**
 * Giving up one copy's changes, so that the other one's win (`hastctl resolve --discard-local`).
 *
 * No flag says "discard": the node takes the counter that its peer expects of it, stably, and from
 * then on the ordinary table makes it the target, with its own map in S2 (S-10). A crash before that
 * one metadata write changes nothing, and later divergence is judged like any other. Two copies without
 * a common history expect no counter of each other: there the node becomes as if created anew.
 *
 * Source: design of this project; wire protocol §6.5, rows 4 and 5.
 */

import { assert } from "../base/assert.ts";
import type { Synced } from "../metadata/block.ts";
import type { SecondaryRecord } from "./secondary.ts";
import { syncVerdict } from "./sync-verdict.ts";

/** The copy whose changes win. */
export interface Keeper {
  readonly resuid: bigint; // not 0n
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  /** "unknown" of a FreeBSD node, which records no such thing. */
  readonly synced: Synced | null | "unknown";
  /** What its node says against it; null where nothing is known. */
  readonly lacking: "outdated" | "inconsistent" | null;
}

export type DiscardPlan =
  /** This copy has nothing that the other lacks. */
  | { readonly kind: "nothing" }
  /** Nobody can want that: the keeper is no good copy, and this one is. */
  | { readonly kind: "refuse"; readonly keeperIs: "outdated" | "inconsistent" }
  | {
      readonly kind: "discard";
      /** To be stored in one metadata write; for a full copy after a map of ones. */
      readonly record: SecondaryRecord;
      /** Why the union of both maps is not enough and everything is copied; or null. */
      readonly fullBecause: string | null;
    };

/**
 * As if created anew, so that whatever primary comes fills it. The keeper's id would not do: it may have been
 * made up for a promotion that was refused since, and the next one makes up another.
 */
const UNPAIRED = { resuid: 0n, localcnt: 0n, remotecnt: 0n, synced: null } as const;

export function discardPlan(own: SecondaryRecord, keeper: Keeper): DiscardPlan {
  assert(keeper.resuid !== 0n);
  if (own.resuid === 0n && own.localcnt === 0n) return { kind: "nothing" };
  const verdict = syncVerdict(
    { local: keeper.localcnt, remote: keeper.remotecnt },
    { local: own.localcnt, remote: own.remotecnt },
  );
  const sameId = own.resuid === keeper.resuid;
  if (sameId && verdict.kind === "regular" && verdict.from === "primary") {
    return { kind: "nothing" };
  }
  const good = own.state !== "outdated" && own.state !== "inconsistent";
  if (keeper.lacking !== null && good) return { kind: "refuse", keeperIs: keeper.lacking };
  const fullBecause = incomplete(own, keeper, sameId, verdict.kind === "impossible");
  // A mix of old and new is no point of the history, and stays one until a synchronization has ended.
  const state = own.state === "inconsistent" ? own.state : "outdated";
  if (!sameId) return { kind: "discard", record: { ...UNPAIRED, state }, fullBecause };
  return {
    kind: "discard",
    record: {
      resuid: keeper.resuid,
      localcnt: keeper.remotecnt,
      // Ours of the other node's may not be ahead of its own: after a count ran backwards it says nothing.
      remotecnt: own.remotecnt <= keeper.localcnt ? own.remotecnt : 0n,
      state,
      synced: fullBecause === null ? own.synced : null,
    },
    fullBecause,
  };
}

/** Why the two maps may lack an extent that differs, or null. */
function incomplete(
  own: SecondaryRecord,
  keeper: Keeper,
  sameId: boolean,
  impossible: boolean,
): string | null {
  if (!sameId) {
    return "the two copies have no history in common: they were written before the nodes met, or one was created anew, or promoted by force while it was inconsistent";
  }
  if (impossible)
    return "metadata of one node was lost or rolled back, so its map is not to be trusted";
  if (own.synced === null) {
    return (
      "this node has no record of ever having been in step with the other one, " +
      "or a FreeBSD primary was connected to it since, which forgets what differs"
    );
  }
  if (keeper.synced === null) {
    return (
      "the other node has no record of ever having been in step with this one, " +
      "or a FreeBSD primary was connected to it since, which forgets what differs"
    );
  }
  return null;
}

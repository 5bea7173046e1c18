// SPDX-License-Identifier: BSD-2-Clause
/**
 * Who has the newer data, judged by modification counts.
 * Source: wire protocol §6.5 (the reference's init_remote()), behaviour §10.
 */

/** A node's two counters: its own, and its peer's as it last recorded it. */
export interface Counts {
  readonly local: bigint;
  readonly remote: bigint;
}

export type Side = "primary" | "secondary";

export type SyncVerdict =
  /** Copy what either map marks. */
  | { readonly kind: "regular"; readonly from: Side }
  /** Both have taken writes that the other lacks. */
  | { readonly kind: "split-brain" }
  /** A count ran backwards: metadata was lost or rolled back, and no map can be trusted. */
  | { readonly kind: "impossible" };

/**
 * Rows 3 to 8 of the table: both nodes know the same resource id.
 *
 * Rows 7 and 8 are refused where the reference copies one disk over the other (S-12).
 */
export function syncVerdict(primary: Counts, secondary: Counts): SyncVerdict {
  if (secondary.local < primary.remote) return { kind: "impossible" };
  const secondaryAhead = secondary.local > primary.remote;
  const primaryAhead = primary.local > secondary.remote;
  if (primaryAhead && secondaryAhead) return { kind: "split-brain" };
  if (primary.local < secondary.remote) return { kind: "impossible" };
  return { kind: "regular", from: secondaryAhead ? "secondary" : "primary" };
}

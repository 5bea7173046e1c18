// SPDX-License-Identifier: BSD-2-Clause
/**
 * May a node become primary, judged by what it knows of its own copy?
 *
 *   stored         this hastd knows more   it does not              on the other node's word
 *   new            go, if it was in use    go, unless it has data   ask
 *   uptodate       go                      it may have gone on      ask
 *   consistent     go                      it may have gone on      ask
 *   the only one   go                      it had no disk           ask, and go if nobody is primary
 *   outdated       refuse                  refuse                   –
 *   inconsistent   a target: refuse; a primary that is filled from its peer: go on, or ask
 *
 * "Go" in the second column is after a look whether the other node is primary, or about to be: both may know.
 *
 * Losing this bet is split-brain: detected, and nothing is overwritten.
 * Source: invariant 7 of docs/architecture.md; safety cases S-2, S-11; behaviour BD-15.
 */

import type { DataState } from "./requests.ts";

/**
 * What hastd adds to the metadata: "known", this very instance of it was primary, or was secondary
 * when the link was lost; "resumed", the same, and it is primary: only its worker is another; "granted", an
 * arbiter has it on record that this copy has everything; "resumed anew" and "granted anew", if only in a cache
 * that may be gone; "forced", an operator knows better.
 */
export type Trust =
  | "known"
  | "resumed"
  | "resumed anew"
  | "unknown"
  | "granted"
  | "granted anew"
  | "forced";

export type Admission =
  | { readonly kind: "go" }
  /**
   * The other node decides: by its word; or, where it can be reached, by not objecting, or just by not being
   * primary. "no-rival": the same, and who does not answer at once is taken for gone.
   */
  | {
      readonly kind: "ask";
      readonly needs: "agreement" | "no-objection" | "no-primary" | "no-rival";
    }
  | { readonly kind: "refuse"; readonly because: "outdated" | "inconsistent" };

export interface Candidate {
  readonly state: DataState;
  /** The metadata was last written by a primary. */
  readonly wasPrimary: boolean;
  /** No worker has written the metadata since the component was created. */
  readonly unused: boolean;
  /** The two nodes have been in step since, if only over nothing: the other one may have gone on. */
  readonly met: boolean;
  /** As secondary it was told that its copy is the only one (S-1), and has not heard since that there is another. */
  readonly sole: boolean;
  readonly trust: Trust;
  /** False where hast.conf says `remote none`: nobody can have gone on. */
  readonly hasRemote: boolean;
}

export function admission(candidate: Candidate): Admission {
  const { state, wasPrimary, unused, met, sole, trust, hasRemote } = candidate;
  const isGranted = trust === "granted" || trust === "granted anew";
  const isResumed = trust === "resumed" || trust === "resumed anew";
  if (trust === "forced") return { kind: "go" };
  if (state === "outdated") return { kind: "refuse", because: state };
  if (state === "inconsistent") {
    // Nobody has everything by halves; what an arbiter has on record is of before.
    if (isGranted) return { kind: "refuse", because: state };
    // What is missing is read from the peer, and nothing goes on without it (S-6).
    if (!wasPrimary || !hasRemote) return { kind: "refuse", because: state };
    return isResumed ? { kind: "go" } : { kind: "ask", needs: "agreement" };
  }
  if (isGranted || !hasRemote) return { kind: "go" };
  // What this hastd knows is of another component, if this one was created meanwhile.
  if (isResumed && !unused) return { kind: "go" };
  if (trust === "known" && !unused) return { kind: "ask", needs: "no-rival" };
  // A primary without a disk can go on over this copy only.
  if (sole && state === "uptodate") return { kind: "ask", needs: "no-primary" };
  return { kind: "ask", needs: state === "new" && !met ? "no-objection" : "agreement" };
}

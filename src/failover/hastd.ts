// SPDX-License-Identifier: BSD-2-Clause
/** What the agent asks of the hastd of its own node, and of the operator's script. */

import type { Lease, LeaseEntry, SetRoleEntry, StatusEntry } from "../wire/control.ts";

export type Answer<Entry> =
  | { readonly kind: "answered"; readonly entries: readonly Entry[] }
  /** `lines`: what is true, then what to do. */
  | { readonly kind: "failed"; readonly lines: readonly string[] };

export interface Hastd {
  status(names: readonly string[]): Promise<Answer<StatusEntry>>;
  /** Primary by the word of etcd, without asking the peer. @param lease its deadline on the clock's scale */
  promote(names: readonly string[], lease: Lease): Promise<Answer<SetRoleEntry>>;
  /** @param force although a device is in use */
  demote(names: readonly string[], force: boolean): Promise<Answer<SetRoleEntry>>;
  /**
   * Lets the workers answer until the deadline, and tells what is on record in etcd.
   *
   * @param lease its deadline on the clock's scale
   * @param confirmed in the order of the names, the number of the last wish that is on record; 0 for none
   * @param waitMs the answer comes when there is another wish, or a role changed, or after this time
   */
  lease(
    names: readonly string[],
    lease: Lease,
    confirmed: readonly number[],
    waitMs: number,
  ): Promise<Answer<LeaseEntry>>;
}

export type Verb = "start" | "stop";

export interface RunningScript {
  /** Null where it ended well; else what is true. Never rejects. */
  readonly ended: Promise<string | null>;
  /** Ends it, and what it started. */
  kill(): void;
}

/** Starts or stops what uses the resources: contrib/failover/failover. */
export type StartScript = (verb: Verb) => RunningScript;

// SPDX-License-Identifier: BSD-2-Clause
/**
 * What an arbiter has granted this node for one resource, and what its primary wants on record in return.
 *
 *   take ─► renew … renew ─► end, as the role is left
 *      └─────────┴─► it has run out, and LEASE_LOST_MS have passed ─► lost
 *
 *   a worker's wish n ─► n + what earlier workers came to ─► on record, confirmed ─► n, to the worker
 *
 * Source: docs/decisions/0009-who-may-lead-is-written-down.md; safety case S-17.
 */

import type { WorkerSettings } from "../engine/worker-messages.ts";
import type { Clock, Timer } from "../platform/clock.ts";
import type { Lease, Wish } from "../wire/control.ts";

/**
 * A primary that an arbiter has chosen answers nothing once its lease has run out. So long after that hastd
 * itself takes the role away: nobody is left to do it, and programs hang.
 */
export const LEASE_LOST_MS = 20_000;

/** This node, as one that an arbiter may choose as primary of one resource. */
export class LeaseHolder {
  readonly #clock: Clock;
  readonly #lost: (why: string) => void;
  #lease: Lease | null = null;
  #end: Timer | null = null;
  #termHeard = 0n;
  #wish: Wish | null = null;
  /** What the present worker's own numbers begin after. */
  #wishBase: number;
  readonly #watchers = new Set<() => void>();

  /** @param lost called when the lease has not been renewed for too long; the role is to be given up */
  constructor(clock: Clock, lost: (why: string) => void) {
    this.#clock = clock;
    this.#lost = lost;
    // Nothing that was confirmed to an earlier hastd counts for this one.
    this.#wishBase = Math.floor(clock.wallTime());
  }

  /** The primary's; null = nobody has chosen it, or it is none. */
  get lease(): Lease | null {
    return this.#lease;
  }

  /** The highest term that this node has heard of; 0n = none. */
  get termHeard(): bigint {
    return this.#termHeard;
  }

  /** What the arbiter is to put on record for the present worker, in numbers that go on from worker to worker. */
  get wish(): Wish | null {
    return this.#wish;
  }

  /** A term has come up, in a P1 or in the metadata; undefined = none. */
  heard(term: bigint | undefined): void {
    if (term !== undefined && term > this.#termHeard) this.#termHeard = term;
  }

  /** Why this node is not to be primary in the arbiter's name, or without (`lease` is null); or null. */
  refusal({ resource, arbiter }: WorkerSettings, lease: Lease | null): string | null {
    if (arbiter !== true) {
      return lease === null
        ? null
        : `hast.conf does not say \`arbiter on\` for ${resource}. Say so on both nodes; then: hastctl reload`;
    }
    if (lease === null) {
      return (
        "hast.conf says `arbiter on`: hast-failover decides who is primary. To see why it is not this node: " +
        `hast-failover status. To go on without it, in spite of all rules: hastctl role --force primary ${resource}`
      );
    }
    if (lease.term >= this.#termHeard) return null;
    return `the arbiter's term is ${lease.term}, and this node has heard of ${this.#termHeard}: another node leads, or etcd has gone back in time. See: hast-failover status. If etcd was restored, or wiped, on the node with the newest data: hast-failover seed --force`;
  }

  take(lease: Lease): void {
    this.#lease = lease;
    this.#termHeard = lease.term;
    this.#awaitEnd();
  }

  /**
   * @param confirmed the number of the last wish that the arbiter has on record; 0 = none
   * @returns what to tell the worker, whose own numbers it understands; or why this is not its lease
   */
  renew(
    lease: Lease,
    confirmed: number,
  ): { readonly deadlineMs: number; readonly confirmed: number } | { readonly reason: string } {
    const known = this.#lease;
    if (known?.term !== lease.term) {
      const own = known === null ? "no lease" : `the lease of term ${known.term}`;
      return { reason: `this primary has ${own}, not that of term ${lease.term}` };
    }
    const deadlineMs = Math.max(known.deadlineMs, lease.deadlineMs);
    this.#lease = { term: lease.term, deadlineMs };
    return { deadlineMs, confirmed: Math.max(0, confirmed - this.#wishBase) };
  }

  #awaitEnd(): void {
    const lease = this.#lease;
    if (this.#end !== null || lease === null) return;
    const leftMs = Math.max(0, lease.deadlineMs + LEASE_LOST_MS - this.#clock.now());
    this.#end = this.#clock.after(leftMs, () => {
      this.#end = null;
      const now = this.#lease;
      if (now === null) return;
      if (this.#clock.now() < now.deadlineMs + LEASE_LOST_MS) this.#awaitEnd();
      else {
        this.#lost(
          `The lease of term ${now.term} ran out ${LEASE_LOST_MS / 1000} s ago, and hast-failover has not renewed it`,
        );
      }
    });
  }

  /** The role is left. */
  end(): void {
    this.#lease = null;
    this.#end?.cancel();
    this.#end = null;
    this.#tell();
  }

  /** @param wish in the present worker's own numbers */
  workerWishes({ number, whole }: Wish): void {
    this.#wish = { number: this.#wishBase + number, whole };
    this.#tell();
  }

  workerGone(): void {
    if (this.#wish !== null) this.#wishBase = this.#wish.number;
    this.#wish = null;
  }

  /** Calls `told` at every wish, and when the lease has ended. @returns ends that */
  watch(told: () => void): () => void {
    this.#watchers.add(told);
    return () => this.#watchers.delete(told);
  }

  #tell(): void {
    for (const told of [...this.#watchers]) told();
  }

  /** For status. */
  notes(): string[] {
    const lease = this.#lease;
    if (lease === null) return [];
    const overMs = this.#clock.now() - lease.deadlineMs;
    if (overMs < 0) return [];
    return [
      `the lease of term ${lease.term} ran out ${Math.round(overMs / 1000)} s ago: until hast-failover renews it nothing ` +
        "is answered here. Why it does not: hast-failover status",
    ];
  }
}

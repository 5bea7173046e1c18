// SPDX-License-Identifier: BSD-2-Clause
/**
 * One time of being leader: until when, and how it ends.
 *
 *   sent ──────────── 0.75·TTL ───── TTL
 *        workers may answer │ nobody │ the next leader
 *
 * Both times count from when the last renewal that succeeded was sent, on our clock.
 */

import type { Clock, Timer } from "../platform/clock.ts";
import type { GroupRecord } from "./group-record.ts";

const ANSWERING_SHARE = 0.75;

export interface LeadershipOptions {
  readonly clock: Clock;
  readonly term: bigint;
  readonly lease: string;
  readonly createRevision: number;
  /** As read last. */
  readonly record: GroupRecord;
  /** Of each resource, the number of the last wish that is stable in etcd; 0 for none. */
  readonly confirmed: readonly number[];
}

export class Leadership {
  readonly term: bigint;
  readonly lease: string;
  readonly createRevision: number;
  /** As read or written last: what the next change of the sets is compared with. */
  record: GroupRecord;
  confirmed: readonly number[];
  /** When a change of the sets had an unknown outcome, they have to be read first. */
  mustRead = false;
  /** All resources are primary, until this node itself makes them secondary; one that is not is a reason to end it. */
  promoted = false;
  /** Everything is started. */
  serves = false;
  /** Why it ends, once it is to end. */
  readonly ending: Once<string> = new Once();
  /** Set, too, where the right to lead is gone already: nothing of it may be waited for. */
  readonly lost: Once<string> = new Once();
  readonly #clock: Clock;
  #deadlineMs = 0;
  #endMs = 0;
  #over = false;
  #expiry: Timer | null = null;

  constructor(options: LeadershipOptions) {
    const { clock, term, lease, createRevision, record, confirmed } = options;
    this.#clock = clock;
    this.term = term;
    this.lease = lease;
    this.createRevision = createRevision;
    this.record = record;
    this.confirmed = confirmed;
  }

  /** Until when the workers may answer, on the clock's scale. */
  get deadlineMs(): number {
    return this.#deadlineMs;
  }

  /** The lease lives for `ttlS` from `sentAtMs`, or longer. */
  renewed(sentAtMs: number, ttlS: number): void {
    const deadlineMs = sentAtMs + ANSWERING_SHARE * ttlS * 1000;
    if (this.#over || deadlineMs <= this.#deadlineMs) return;
    this.#deadlineMs = deadlineMs;
    this.#endMs = sentAtMs + ttlS * 1000;
    this.#expiry?.cancel();
    const leftMs = this.#endMs - this.#clock.now();
    this.#expiry = this.#clock.after(Math.max(0, leftMs), () => this.checkTime());
  }

  /** Whoever was frozen notices so before he draws other conclusions. */
  checkTime(): void {
    if (!this.#over && this.#clock.now() >= this.#endMs) {
      this.lose("its lease was not renewed in time");
    }
  }

  /** It shall end in good order, with the lease kept until then. */
  end(why: string): void {
    this.ending.set(why);
  }

  /** It has ended already. */
  lose(why: string): void {
    this.lost.set(why);
    this.ending.set(why);
    this.dispose();
  }

  /** Nothing comes of it any more. */
  dispose(): void {
    this.#over = true;
    this.#expiry?.cancel();
  }
}

/** Something that is said once; who waits for it hears it, earlier or later. */
export class Once<T> {
  readonly said: Promise<T>;
  value: T | null = null;
  readonly #say: (value: T) => void;

  constructor() {
    const { promise, resolve } = Promise.withResolvers<T>();
    this.said = promise;
    this.#say = resolve;
  }

  set(value: T): void {
    this.value ??= value;
    this.#say(value);
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * Stand-in for an arbiter and its agents: a register that says who has every byte that was acknowledged, and
 * the time that passes before it is written, and before its primary hears so.
 *
 *   wish of the primary ─▶ taken by its agent ─▶ on record ─▶ confirmed
 *
 * The agent takes the last wish only. A write of the register that is under way when somebody else is promoted
 * fails, as a transaction does that compares the leader key (S-17).
 */

import type { Wish } from "../../src/wire/control.ts";
import type { Random } from "./disk.ts";
import type { Leader } from "./leader.ts";
import type { Node } from "./node.ts";

export class Arbiter {
  /** Who has everything: nobody else is promoted. */
  record: ReadonlySet<Node>;
  readonly #nodes: readonly [Node, Node];
  #leader: Leader | null = null;
  #wish: Wish | null = null;
  /** Under way to the register. */
  #taken: Wish | null = null;
  /** Under way to the primary. */
  #confirmed = 0;

  constructor(nodes: readonly [Node, Node]) {
    this.#nodes = nodes;
    this.record = new Set(nodes);
  }

  promoted(leader: Leader): void {
    this.#leader = leader;
    // Where nobody of them could be, an operator has said so.
    if (!this.record.has(leader.node)) this.record = new Set([leader.node]);
    this.#wish = this.#taken = null;
    this.#confirmed = 0;
  }

  wished(leader: Leader, wish: Wish): void {
    if (leader === this.#leader) this.#wish = wish;
  }

  /** What can happen next. */
  actions(random: Random): [weight: number, act: () => void][] {
    const found: [weight: number, act: () => void][] = [];
    const leader = this.#leader;
    if (leader === null) return found;
    const wish = this.#wish;
    if (this.#taken !== null) {
      found.push([1, () => this.#put(this.#taken!, leader, random)]);
    } else if (wish !== null && wish.number !== this.#confirmed && leader.node.leader === leader) {
      found.push([
        1,
        () => {
          this.#taken = wish;
        },
      ]);
    }
    return found;
  }

  #put({ number, whole }: Wish, leader: Leader, random: Random): void {
    this.#taken = null;
    const [a, b] = this.#nodes;
    const other = leader.node === a ? b : a;
    if (whole === "both") this.record = new Set(this.#nodes);
    else this.record = new Set([whole === "local" ? leader.node : other]);
    leader.world.note(`on record: ${[...this.record].map(({ name }) => name)}`);
    // The answer may be lost: then the agent does it again.
    if (leader.node.leader !== leader || random.chance(0.2)) return;
    this.#confirmed = number;
    leader.arbitration!.renew(Number.POSITIVE_INFINITY, number);
    leader.needsPump = true;
  }
}

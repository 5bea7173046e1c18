// SPDX-License-Identifier: BSD-2-Clause
/**
 * Both connections of one handshake: what is in flight either way, as messages, not bytes. A cut lets
 * some of it arrive still, and loses the rest.
 */

import type { Synced } from "../../src/metadata/block.ts";
import type { Kind, ToldState } from "../../src/replication/requests.ts";
import type { Hello, Judgement, SecondaryRecord } from "../../src/replication/secondary.ts";
import type { PrimaryLife } from "../../src/wire/handshake.ts";
import type { Random } from "./disk.ts";
import type { Follower } from "./follower.ts";
import type { Leader } from "./leader.ts";
import type { Node } from "./node.ts";

export type ToSecondary =
  | {
      readonly kind: "hello";
      readonly hello: Omit<Hello, "keptHere">;
      readonly life: PrimaryLife | null;
      /** Extents that the primary's map marks. */
      readonly dirty: number;
    }
  | {
      readonly kind: "request";
      readonly command: Kind;
      readonly seq: number;
      readonly from: number;
      readonly count: number;
      readonly memsync: boolean;
      readonly data: readonly number[] | null;
    }
  | {
      readonly kind: "state";
      readonly seq: number;
      readonly state: ToldState;
      readonly localcnt: bigint;
      readonly remotecnt: bigint;
      readonly synced: Synced | null;
    }
  | { readonly kind: "keepalive" }
  | { readonly kind: "eof" };

export type ToPrimary =
  | {
      readonly kind: "accepted";
      readonly judgement: Judgement & { kind: "accept" };
      readonly map: number | null;
      readonly own: SecondaryRecord;
      readonly cache: bigint | null;
    }
  | { readonly kind: "refused"; readonly reason: string; readonly splitBrain: boolean }
  | {
      readonly kind: "reply";
      readonly seq: number;
      readonly received: boolean;
      readonly errno: number;
      readonly data: readonly number[] | null;
    }
  | { readonly kind: "eof" };

/** Both connections of one handshake: what is in flight either way. */
export class Wire {
  readonly leader: Leader;
  readonly node: Node;
  follower: Follower | null = null;
  toSecondary: ToSecondary[] = [];
  toPrimary: ToPrimary[] = [];

  constructor(leader: Leader, node: Node) {
    this.leader = leader;
    this.node = node;
  }

  /** Some of what is in flight still arrives, then nothing; what is sent later is lost. */
  cut(random: Random, ends: "both" | "to-secondary" | "to-primary"): void {
    if (ends === "to-primary") this.toSecondary = [];
    else if (this.toSecondary.at(-1)?.kind !== "eof") {
      this.toSecondary.length = random.below(this.toSecondary.length + 1);
      this.toSecondary.push({ kind: "eof" });
    }
    if (ends === "to-secondary") this.toPrimary = [];
    else if (this.toPrimary.at(-1)?.kind !== "eof") {
      this.toPrimary.length = random.below(this.toPrimary.length + 1);
      this.toPrimary.push({ kind: "eof" });
    }
    this.#broken = true;
  }

  #broken = false;

  tellSecondary(message: ToSecondary): void {
    if (!this.#broken) this.toSecondary.push(message);
  }

  tellPrimary(message: ToPrimary): void {
    if (!this.#broken) this.toPrimary.push(message);
  }
}

export function spell(message: ToPrimary | ToSecondary): string {
  switch (message.kind) {
    case "request":
      return `${["", "READ", "WRITE", "ZERO", "FLUSH"][message.command]} seq ${message.seq} ${message.data ?? ""}@${message.from}`;
    case "reply":
      return `reply to ${message.seq}${message.received ? " received" : ""}${message.errno === 0 ? "" : ` error ${message.errno}`}`;
    case "state":
      return `${message.state} ${message.localcnt}`;
    default:
      return message.kind;
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * Every small world up to a length: all sequences of events, each with an accident at each disk
 * operation that it causes.
 *
 * Sequences in which an event cannot happen (a crash of a node that is down, a cut of a cut link, a
 * promotion that is refused) are cut: a shorter one says the same. The nodes are the same, so A is
 * primary at the beginning. What differs by kind only (whose disk is faster, what a power cut keeps,
 * whether time passes, whose nodes they are) goes round from one sequence to the next, or, with
 * `everyKind`, is played through for each.
 */

import type { Mode } from "../../src/replication/requests.ts";
import {
  ACCIDENTS,
  type Beginning,
  EVENTS,
  type Event,
  FATES,
  type Fate,
  PACES,
  type Pace,
  type Plan,
  SmallWorld,
} from "./small-world.ts";
import type { World } from "./world.ts";

const MODES: readonly Mode[] = ["fullsync", "memsync", "async"];

export interface Extent {
  /** Events in a sequence, at most. */
  readonly length: number;
  readonly beginnings: readonly Beginning[];
  readonly everyKind: boolean;
}

export interface Tally {
  sequences: number;
  worlds: number;
  accidents: number;
  events: World["counts"];
}

interface Kind {
  readonly pace: Pace;
  readonly fate: Fate;
  readonly slow: boolean;
  readonly ours: boolean;
}

const KINDS: readonly Kind[] = PACES.flatMap((pace) =>
  FATES.flatMap((fate) =>
    [false, true].flatMap((slow) => [true, false].map((ours) => ({ pace, fate, slow, ours }))),
  ),
);
/** Leads through all kinds, neighbours unlike each other: no common divisor with their number. */
const KIND_STEP = 7;

/** @throws Violation at the first world that breaks a promise */
export function explore(extent: Extent): Tally {
  const tally: Tally = {
    sequences: 0,
    worlds: 0,
    accidents: 0,
    events: {
      answers: 0,
      promotions: 0,
      failovers: 0,
      splitBrains: 0,
      resyncs: 0,
      diskless: 0,
      masked: 0,
      kept: 0,
      seeds: 0,
      faults: 0,
    },
  };
  for (const mode of MODES) {
    for (const beginning of extent.beginnings) {
      if (!extent.everyKind) {
        exploreFrom({ mode, beginning, events: [] }, null, extent.length, tally);
        continue;
      }
      for (const kind of KINDS) {
        exploreFrom({ mode, beginning, events: [] }, kind, extent.length, tally);
      }
    }
  }
  return tally;
}

type Sequence = Pick<Plan, "mode" | "beginning" | "events">;

function exploreFrom(sequence: Sequence, wanted: Kind | null, length: number, tally: Tally): void {
  const kind = wanted ?? KINDS[(tally.sequences * KIND_STEP) % KINDS.length]!;
  const whole = { ...sequence, ...kind };
  const operations = play({ ...whole, accident: null }, tally);
  if (operations < 0) return;
  tally.sequences++;
  for (const what of ACCIDENTS) {
    // A cut is between messages, not at a disk: there are fewer of those.
    const step = what === "cut" ? 2 : 1;
    for (let at = 0; at < operations; at += step) {
      const fate = wanted?.fate ?? FATES[at % FATES.length]!;
      if (play({ ...whole, fate, accident: { what, at } }, tally) >= 0) tally.accidents++;
    }
  }
  if (sequence.events.length === length) return;
  for (const event of EVENTS as readonly Event[]) {
    exploreFrom({ ...sequence, events: [...sequence.events, event] }, wanted, length, tally);
  }
}

/** @returns the disk operations that the events caused, or -1 if one of them could not happen */
export function play(plan: Plan, tally: Tally): number {
  const small = new SmallWorld(plan);
  tally.worlds++;
  if (!small.run()) return -1;
  const { counts } = small.world;
  for (const key of Object.keys(counts) as (keyof typeof counts)[]) {
    tally.events[key] += counts[key];
  }
  return small.operations;
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * A failing seed with as little as possible left in it: fewer faults, a shorter run, plainer manners, as
 * long as what goes wrong is of the same kind.
 *
 *   all faults ─▶ without this half? ─▶ without that quarter? ─▶ … ─▶ without this one?
 */

import type { Arenas } from "./machine.ts";
import { type Changes, type Plan, planOf } from "./plan.ts";
import { kindOf } from "./violation.ts";
import { type Outcome, World } from "./world.ts";

export interface Minimised {
  readonly changes: Changes;
  readonly outcome: Outcome;
  /** Runs that it took. */
  readonly runs: number;
}

export interface MinimiseOptions {
  readonly arenas: Arenas;
  /** No more runs once this is true. */
  readonly enough: () => boolean;
  /** Hears of each step. */
  readonly progress: (text: string) => void;
}

/** @returns null if the seed, so changed, does not fail */
export async function minimise(
  seed: number,
  begin: Changes,
  { arenas, enough, progress }: MinimiseOptions,
): Promise<Minimised | null> {
  let runs = 1;
  let outcome = await new World(seed, arenas, { changes: begin }).run();
  if (outcome.failure === null) return null;
  const kind = kindOf(outcome.failure);
  let changes = begin;

  /** Keeps the change if the same still goes wrong. */
  const attempt = async (candidate: Changes): Promise<boolean> => {
    if (enough()) return false;
    runs++;
    const result = await new World(seed, arenas, { changes: candidate }).run();
    if (result.failure === null || kindOf(result.failure) !== kind) return false;
    outcome = result;
    changes = candidate;
    const { faults } = planOf(seed, changes);
    progress(`${faults.length} faults, ${(result.simulatedMs / 1000).toFixed(1)} s`);
    return true;
  };

  const failedMs = outcome.simulatedMs;
  if (failedMs < planOf(seed, changes).chaosMs) {
    await attempt({ ...changes, chaosMs: Math.ceil(failedMs) + 1 });
  }
  const numbers = (): number[] => planOf(seed, changes).faults.map(({ number }) => number);
  for (let size = Math.ceil(numbers().length / 2); size >= 1; ) {
    let dropped = false;
    // The last ones first: what came after the failure had no part in it.
    for (let at = numbers().length - size; at > -size; at -= size) {
      const keep = numbers();
      keep.splice(Math.max(0, at), at < 0 ? size + at : size);
      if (keep.length < numbers().length && (await attempt({ ...changes, keep }))) dropped = true;
    }
    if (size === 1 && !dropped) break;
    if (size > 1) size = Math.ceil(size / 2);
  }
  for (const simpler of SIMPLER) {
    const [name, value] = Object.entries(simpler)[0]!;
    const now = planOf(seed, changes)[name as keyof Plan];
    if (JSON.stringify(now) !== JSON.stringify(value)) await attempt({ ...changes, ...simpler });
  }
  const endMs = Math.ceil(outcome.simulatedMs) + 1;
  if (endMs < planOf(seed, changes).chaosMs) await attempt({ ...changes, chaosMs: endMs });
  return { changes, outcome, runs };
}

const SIMPLER: readonly Changes[] = [
  { connections: 1 },
  { depth: 1 },
  { clockRates: [1, 1] },
  { pieces: 0 },
  { apartMs: 0 },
  { rests: [] },
  { metaflush: [true, true] },
  { burst: 131_072 },
  { checksum: "none" },
  { compression: "none" },
  { networkDelayMs: 0.5 },
  { diskDelayMs: 0.5 },
  { thinkMs: 200 },
];

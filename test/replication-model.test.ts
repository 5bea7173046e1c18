// SPDX-License-Identifier: BSD-2-Clause
/**
 * Random histories of two nodes, checked at every step; see model/world.ts.
 *
 *   HAST_MODEL_SEED=n      one seed, with its whole story
 *   HAST_MODEL_SECONDS=n   how long to try new seeds (default 10)
 *   HAST_MODEL_FIRST=n     the first of them (default 1)
 */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import { anySetting, World } from "./model/world.ts";

const STEPS = 600;
const SECONDS = Number(process.env["HAST_MODEL_SECONDS"] ?? 10);
const SEED = process.env["HAST_MODEL_SEED"];
/** So many even on a slow machine: in fewer, the rarest events need not occur. */
const RUNS_MIN = 200;
/** Each has failed once. A change of the model makes other histories of them, as good as any. */
const ONCE_FAILED: readonly number[] = [
  799, 1363, 4800, 200141, 200360, 201091, 204665, 209777, 300743, 402581, 408169, 408797, 410558,
];
const FIRST = Number(process.env["HAST_MODEL_FIRST"] ?? 1);

function play(seed: number, lines: number, arbiter = false): World {
  const setting = anySetting(seed);
  // async promises a failover less than an arbiter does.
  const mode = setting.mode === "async" ? "memsync" : setting.mode;
  const world = new World(
    arbiter ? { ...setting, mode, states: true, zeroes: true, version: 2, arbiter } : setting,
  );
  try {
    world.run(STEPS);
  } catch (error) {
    const story = world.story.slice(-lines).join("\n  ");
    throw new Error(`seed ${seed}: ${(error as Error).message}\n  ${story}`, { cause: error });
  }
  return world;
}

test("no history of faults loses an acknowledged write, goes back in time or gets stuck", () => {
  if (SEED !== undefined) {
    const world = play(Number(SEED), Number.POSITIVE_INFINITY);
    console.log(world.story.join("\n"));
    return;
  }
  const until = performance.now() + SECONDS * 1000;
  const total: Record<string, number> = {};
  let runs = 0;
  for (const seed of ONCE_FAILED) play(seed, 60);
  for (let seed = FIRST; performance.now() < until || runs < RUNS_MIN; seed++) {
    const { counts } = play(seed, 60);
    for (const [key, count] of Object.entries(counts)) total[key] = (total[key] ?? 0) + count;
    runs++;
  }
  console.log(`${runs} histories: ${JSON.stringify(total)}`);
  // A world in which nothing happens would prove nothing.
  delete total["seeds"];
  for (const [what, count] of Object.entries(total)) expect.ok(count > 0, `no ${what}`);
});

test("S-17: whom an arbiter has on record lacks nothing that was answered, and no pair gets stuck", () => {
  if (SEED !== undefined) {
    console.log(play(Number(SEED), Number.POSITIVE_INFINITY, true).story.join("\n"));
    return;
  }
  const until = performance.now() + (SECONDS * 1000) / 2;
  let runs = 0;
  let promotions = 0;
  let seeds = 0;
  for (let seed = FIRST; performance.now() < until || runs < RUNS_MIN / 2; seed++, runs++) {
    const { counts } = play(seed, 60, true);
    promotions += counts.promotions;
    seeds += counts.seeds;
  }
  console.log(
    `${runs} histories with an arbiter: ${promotions} promotions, ${seeds} by an operator`,
  );
  expect.ok(promotions > runs);
});

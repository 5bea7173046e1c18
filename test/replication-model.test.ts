// SPDX-License-Identifier: BSD-2-Clause
/**
 * Random histories of two nodes, checked at every step; see replication-world.ts.
 *
 *   HAST_MODEL_SEED=n      one seed, with its whole story
 *   HAST_MODEL_SECONDS=n   how long to try new seeds (default 10)
 */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import { World } from "./replication-world.ts";

const STEPS = 600;
const SECONDS = Number(process.env["HAST_MODEL_SECONDS"] ?? 10);
const SEED = process.env["HAST_MODEL_SEED"];
/** Where to begin: the same seeds each time, unless told otherwise. */
const FIRST = Number(process.env["HAST_MODEL_FIRST"] ?? 1);

function play(seed: number, lines: number): World {
  const world = new World({ seed, steps: STEPS });
  try {
    world.run(STEPS);
  } catch (error) {
    const story = world.story.slice(-lines).join("\n  ");
    throw new Error(
      `seed ${seed} (HAST_MODEL_SEED=${seed}): ${(error as Error).message}\n  ${story}\n${(error as Error).stack}`,
      { cause: error },
    );
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
  const total = { answers: 0, promotions: 0, splitBrains: 0, resyncs: 0, faults: 0 };
  let runs = 0;
  for (let seed = FIRST; performance.now() < until; seed++) {
    const { counts } = play(seed, 60);
    for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += counts[key];
    runs++;
  }
  console.log(`${runs} histories: ${JSON.stringify(total)}`);
  expect.ok(runs > 10 && total.answers > 1000 && total.splitBrains > 0 && total.promotions > runs);
});

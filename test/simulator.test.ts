// SPDX-License-Identifier: BSD-2-Clause
/**
 * Two nodes in simulated time, under faults; see sim/world.ts. Fresh seeds for HAST_SIM_SECONDS (20), other
 * ones in each run, and each seed of sim/seeds.txt. A failure says how to see it again. In continuous
 * integration the same seeds each time, so that a failure is the change's.
 */

import { strict as assert } from "node:assert";
import { randomInt } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Arenas } from "./sim/machine.ts";
import { minimise } from "./sim/minimise.ts";
import { type Changes, planOf } from "./sim/plan.ts";
import { addOutcome, failureOf, failureText, noSums, sumsText } from "./sim/report.ts";
import { kindOf } from "./sim/violation.ts";
import { type Outcome, World } from "./sim/world.ts";

const SECONDS = Number(process.env["HAST_SIM_SECONDS"] ?? 20);
const arenas = new Arenas();

async function mustHold(outcome: Outcome, changes: Changes = {}): Promise<void> {
  const failure = failureOf(outcome, changes);
  if (failure !== null) assert.fail(`\n${await failureText(failure)}`);
}

interface KnownSeed {
  readonly seed: number;
  readonly changes: Changes;
  readonly why: string;
}

function knownSeeds(): KnownSeed[] {
  const lines = readFileSync(join(import.meta.dirname, "sim/seeds.txt"), "utf8").split("\n");
  return lines
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => {
      const [, seed, changes, why] =
        /^(\d+)(?: (\{\S*\}))? {2}(\S.*)$/.exec(line) ?? assert.fail(`seeds.txt: ${line}`);
      return { seed: Number(seed), changes: JSON.parse(changes ?? "{}") as Changes, why: why! };
    });
}

for (const { seed, changes, why } of knownSeeds()) {
  test(`seed ${seed} holds: ${why}`, async () => {
    await mustHold(await new World(seed, arenas, { changes }).run(), changes);
  });
}

test("one seed decides everything: the same story twice", async () => {
  const runs = [await new World(2, arenas).run(), await new World(2, new Arenas()).run()];
  assert.ok(runs[0]!.trace.count > 1_000, "hardly anything has happened");
  assert.equal(runs[0]!.trace.hash, runs[1]!.trace.hash);
  assert.equal(runs[0]!.events, runs[1]!.events);
  const other = await new World(3, arenas).run();
  assert.notEqual(runs[0]!.trace.hash, other.trace.hash);
});

test("disks that lie about flushes are found out, and little is left of the seed that shows it", async () => {
  const seed = 5;
  const outcome = await new World(seed, arenas, { changes: { flushLies: true } }).run();
  assert.ok(outcome.failure !== null, "nothing was noticed");
  const minimised = await minimise(
    seed,
    { flushLies: true },
    { arenas, enough: () => false, progress: () => {} },
  );
  assert.ok(minimised !== null);
  assert.equal(kindOf(minimised.outcome.failure!), kindOf(outcome.failure));
  const plan = planOf(seed, minimised.changes);
  assert.ok(plan.faults.length <= 2, `${plan.faults.length} faults are left`);
  assert.equal(plan.connections, 1);
  const text = await failureText(failureOf(minimised.outcome, minimised.changes)!);
  assert.match(text, /^again: npm run sim -- --seed 5 --changes '\{"flushLies":true,/m);
  assert.doesNotMatch(text, /not deterministic/);
});

test("seeds that nobody has chosen hold", async () => {
  assert.ok(SECONDS > 0, "HAST_SIM_SECONDS is no number of seconds");
  const base = process.env["CI"] === "true" ? 1 : randomInt(1, 2 ** 31);
  console.log(`seeds from ${base} on, for ${SECONDS} s`);
  const until = performance.now() + SECONDS * 1000;
  const sums = noSums();
  for (let seed = base; performance.now() < until; seed++) {
    const outcome = await new World(seed, arenas).run();
    await mustHold(outcome);
    addOutcome(sums, outcome);
  }
  console.log(sumsText(sums));
  assert.ok((sums.counts["writes"] ?? 0) > 0, "nothing was written");
});

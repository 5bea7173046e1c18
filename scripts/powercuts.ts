// SPDX-License-Identifier: BSD-2-Clause
/**
 * `npm run powercuts`: rounds of load and power cuts on real nodes; see test/system/power-cuts.ts.
 *
 * A seed chooses what is done; what the processes are doing at that moment is up to the machine.
 */

import { randomInt } from "node:crypto";
import { parseArgs } from "node:util";
import { Random } from "../test/model/disk.ts";
import { type Mode, PowerCuts, ROUND_KINDS, type RoundKind } from "../test/system/power-cuts.ts";

const MODES: readonly Mode[] = ["fullsync", "memsync", "async"];
/** Then the next mode gets a new pair of nodes. */
const ROUNDS_PER_PAIR = 12;

const USAGE = `usage: npm run powercuts -- [--rounds N] [--mode ${MODES.join("|")}] [--seed N]
       [--kind ${ROUND_KINDS.join("|")}]`;

function usage(problem: string): never {
  console.error(`hast: ${problem}\n${USAGE}`);
  process.exit(64);
}

function oneOf<T extends string>(what: string, value: string, known: readonly T[]): T {
  return known.find((name) => name === value) ?? usage(`no such ${what}: ${value}`);
}

function numberOf(what: string, text: string): number {
  return /^[1-9]\d{0,8}$/.test(text) ? Number(text) : usage(`${what} ${text}: not a number`);
}

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "24" },
    mode: { type: "string" },
    kind: { type: "string" },
    seed: { type: "string" },
  },
});
const rounds = numberOf("--rounds", values.rounds);
const modes = values.mode === undefined ? MODES : [oneOf("mode", values.mode, MODES)];
const kinds: readonly RoundKind[] =
  values.kind === undefined ? ROUND_KINDS : [oneOf("kind", values.kind, ROUND_KINDS)];
const seed = values.seed === undefined ? randomInt(1, 1e9) : numberOf("--seed", values.seed);
if (process.getuid?.() !== 0) usage("this needs root: nbdfuse, losetup and mount");

const random = new Random(seed);
const began = performance.now();
const total = { cuts: 0, lost: 0, writes: 0, records: 0, transactions: 0 };
console.log(`seed ${seed}: ${rounds} rounds`);

for (let done = 0, pairs = 0; done < rounds; pairs++) {
  const mode = modes[pairs % modes.length]!;
  const cuts = await PowerCuts.start(mode, random.below(2 ** 31) + 1);
  try {
    const count = Math.min(ROUNDS_PER_PAIR, rounds - done);
    for (let round = 0; round < count; round++) {
      // Each kind once, then at random.
      await cuts.round(round < kinds.length ? kinds[round]! : random.pick(kinds));
      done++;
      const seconds = ((performance.now() - began) / 1000).toFixed(0).padStart(5);
      const story = cuts.history.slice(cuts.history.findLastIndex((step) => step.endsWith(":")));
      console.log(`${seconds} s  ${String(done).padStart(4)}  ${mode}  ${story.join(" ")}`);
    }
    await cuts.end();
  } catch (error) {
    console.error(`npm run powercuts -- --rounds ${rounds} --seed ${seed}   (round ${done + 1})`);
    throw await cuts.failed(error);
  }
  for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += cuts.tally[key];
}
console.log(
  `${rounds} rounds, ${total.cuts} power cuts that took back ${total.lost} sectors: nothing promised is lost; ` +
    `${total.writes} writes, ${total.records} log records and ${total.transactions} transactions acknowledged`,
);

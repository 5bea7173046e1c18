// SPDX-License-Identifier: BSD-2-Clause
/**
 * npm run sim: many worlds, one after the other.
 *
 *   npm run sim -- --seed N       one world, with its whole story
 *   npm run sim -- --minutes N    fresh seeds for so long (default 1), stopping at the first failure
 */

import { execFileSync } from "node:child_process";
import { parseArgs } from "node:util";
import { Arenas } from "./machine.ts";
import { type Outcome, World } from "./world.ts";

/** Sums over many worlds. */
export class Totals {
  worlds = 0;
  simulatedMs = 0;
  events = 0;
  readonly counts: Map<string, number> = new Map();
  readonly faults: Map<string, number> = new Map();

  add(outcome: Outcome): void {
    this.worlds++;
    this.simulatedMs += outcome.simulatedMs;
    this.events += outcome.events;
    for (const [kind, count] of Object.entries(outcome.counts)) {
      this.counts.set(kind, (this.counts.get(kind) ?? 0) + (count as number));
    }
    for (const [kind, count] of outcome.faults) {
      this.faults.set(kind, (this.faults.get(kind) ?? 0) + count);
    }
  }

  toString(): string {
    const hours = (this.simulatedMs / 3_600_000).toFixed(1);
    const list = (map: ReadonlyMap<string, number>): string =>
      [...map].map(([kind, count]) => `${count} ${kind}`).join(", ");
    return [
      `${this.worlds} worlds, ${hours} simulated hours, ${this.events} events`,
      `checked: ${list(this.counts)}`,
      `faults: ${list(this.faults)}`,
    ].join("\n");
  }
}

/** What reproduces a failure, and how it came to it. */
export function failureText(outcome: Outcome): string {
  return [
    ...outcome.trace.lines,
    "",
    `seed ${outcome.seed} at commit ${commit()}: ${outcome.failure?.stack ?? outcome.failure}`,
    `again: npm run sim -- --seed ${outcome.seed}`,
  ].join("\n");
}

function commit(): string {
  try {
    const options = { cwd: import.meta.dirname, encoding: "utf8", stdio: "pipe" } as const;
    const name = execFileSync("git", ["rev-parse", "--short", "HEAD"], options).trim();
    const changed = execFileSync("git", ["status", "--porcelain"], options) !== "";
    return changed ? `${name}, changed` : name;
  } catch {
    return "unknown";
  }
}

export function freshSeed(): number {
  return 1 + Math.floor(Math.random() * 0x7fff_fffe);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { seed: { type: "string" }, minutes: { type: "string" }, from: { type: "string" } },
  });
  const arenas = new Arenas();
  if (values.seed !== undefined) {
    const outcome = await new World(Number(values.seed), arenas, {
      keepLines: Number.MAX_SAFE_INTEGER / 2,
    }).run();
    if (outcome.failure !== null) {
      console.log(failureText(outcome));
      process.exitCode = 1;
      return;
    }
    console.log(outcome.trace.lines.join("\n"));
    const totals = new Totals();
    totals.add(outcome);
    console.log(`${totals}\nseed ${values.seed} holds; trace ${outcome.trace.hash}`);
    return;
  }
  const until = performance.now() + Number(values.minutes ?? 1) * 60_000;
  const totals = new Totals();
  let next = values.from === undefined ? null : Number(values.from);
  while (performance.now() < until) {
    const seed = next === null ? freshSeed() : next++;
    const outcome = await new World(seed, arenas).run();
    totals.add(outcome);
    if (outcome.failure !== null) {
      console.log(failureText(outcome));
      console.log(`${totals}`);
      process.exitCode = 1;
      return;
    }
  }
  console.log(`${totals}`);
}

if (import.meta.main) await main();

// SPDX-License-Identifier: BSD-2-Clause
/** What many runs add up to, and what is said about one that failed. */

import { execFileSync } from "node:child_process";
import { Arenas } from "./machine.ts";
import type { Changes } from "./plan.ts";
import { cellsOf, kindOf } from "./violation.ts";
import { type Outcome, World } from "./world.ts";

const STORY_LINES = 160;

/** Sums over many worlds; plain, so that one process can tell another. */
export interface Sums {
  worlds: number;
  simulatedMs: number;
  events: number;
  cpuMs: number;
  readonly counts: Record<string, number>;
  readonly faults: Record<string, number>;
}

export function noSums(): Sums {
  return { worlds: 0, simulatedMs: 0, events: 0, cpuMs: 0, counts: {}, faults: {} };
}

export function addOutcome(sums: Sums, { simulatedMs, events, counts, faults }: Outcome): void {
  addSums(sums, {
    worlds: 1,
    simulatedMs,
    events,
    cpuMs: 0,
    counts: { ...counts },
    faults: Object.fromEntries(faults),
  });
}

export function addSums(sums: Sums, more: Sums): void {
  sums.worlds += more.worlds;
  sums.simulatedMs += more.simulatedMs;
  sums.events += more.events;
  sums.cpuMs += more.cpuMs;
  for (const key of ["counts", "faults"] as const) {
    for (const [kind, count] of Object.entries(more[key])) {
      sums[key][kind] = (sums[key][kind] ?? 0) + count;
    }
  }
}

export function sumsText({ worlds, simulatedMs, events, cpuMs, counts, faults }: Sums): string {
  const list = (record: Readonly<Record<string, number>>): string =>
    Object.entries(record)
      .sort(([, one], [, another]) => another - one)
      .map(([kind, count]) => `${count} ${kind}`)
      .join(", ");
  const of = (kind: string): number => counts[kind] ?? 0;
  const all = Object.values(faults).reduce((sum, count) => sum + count, 0);
  const checked = of("writes") + of("zeroes");
  return [
    `${worlds} seeds, ${(simulatedMs / 3_600_000).toFixed(1)} simulated hours, ${all} faults, ` +
      `${checked} acknowledged writes checked; ${(cpuMs / 1000).toFixed(0)} CPU seconds, ${events} events`,
    `checked: ${list(counts)}`,
    `faults by kind: ${list(faults)}`,
  ].join("\n");
}

/** A failure that another process can be told of. */
export interface Failure {
  readonly seed: number;
  readonly changes: Changes;
  readonly kind: string;
  readonly message: string;
}

export function failureOf(outcome: Outcome, changes: Changes = {}): Failure | null {
  const { seed, failure } = outcome;
  if (failure === null) return null;
  // An assertion's place says more than its message.
  const message = failure.name === "Violation" ? failure.message : String(failure.stack);
  return { seed, changes, kind: kindOf(failure), message };
}

/**
 * Runs it once more, and tells the story: what happened to the nodes, and to the cells concerned.
 * @param whole every line, whatever it is about
 */
export async function failureText(failure: Failure, whole = false): Promise<string> {
  const { seed, changes, kind, message } = failure;
  const watch = cellsOf(new Error(message));
  const keepLines = Number.MAX_SAFE_INTEGER / 2;
  const again = await new World(seed, new Arenas(), { changes, keepLines, watch }).run();
  const lines = whole ? again.trace.lines : again.trace.linesAbout(watch);
  const omitted = whole ? 0 : Math.max(0, lines.length - STORY_LINES);
  const same = again.failure !== null && kindOf(again.failure) === kind;
  return [
    ...lines.slice(0, omitted > 0 ? 1 : 0), // the plan
    ...(omitted > 0 ? [`… ${omitted} lines …`] : []),
    ...lines.slice(omitted > 0 ? omitted + 1 : 0),
    "",
    `seed ${seed} at commit ${commit()}: ${message}`,
    ...(same ? [] : ["THE SAME SEED DOES NOT FAIL SO AGAIN: the simulator is not deterministic."]),
    `again: npm run sim -- --seed ${seed}${changesText(changes)}`,
  ].join("\n");
}

/** As arguments for a shell. */
export function changesText(changes: Changes): string {
  return Object.keys(changes).length === 0 ? "" : ` --changes '${JSON.stringify(changes)}'`;
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

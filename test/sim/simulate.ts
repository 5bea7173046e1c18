// SPDX-License-Identifier: BSD-2-Clause
/**
 * npm run sim: many worlds, one after the other.
 *
 *   npm run sim -- --minutes N --workers W    fresh seeds for so long, in so many processes
 *   npm run sim -- --seed N                   one world again, and its story; --whole: all of it
 *   npm run sim -- --minimise N               what is left of a failing seed without what it does not need
 *
 * The first failure ends it, with the story and exit code 1. SIGINT and SIGTERM end it, too, with the sums so
 * far. The processes share out the seeds: worker w of W has base + w, base + w + W, …
 */

import { type ChildProcess, fork } from "node:child_process";
import { randomInt } from "node:crypto";
import { constants } from "node:os";
import { parseArgs } from "node:util";
import { Arenas } from "./machine.ts";
import { minimise } from "./minimise.ts";
import { type Changes, planOf } from "./plan.ts";
import {
  addOutcome,
  addSums,
  changesText,
  type Failure,
  failureOf,
  failureText,
  noSums,
  type Sums,
  sumsText,
} from "./report.ts";
import { World } from "./world.ts";

const USAGE = `usage: npm run sim -- [--minutes N] [--workers N] [--base SEED]
       npm run sim -- --seed N [--changes JSON] [--whole]
       npm run sim -- --minimise N [--changes JSON] [--minutes N]`;

/** A world that takes longer hangs: the longest take some ten seconds. */
const HANGS_MS = 10 * 60_000;
const SEED_MAX = 2 ** 31;

const PROGRESS_MS = 5 * 60_000;
const INTERRUPTIONS = ["SIGINT", "SIGTERM"] as const;

/** From a worker's process: what it begins, or that it ends, and what everything so far adds up to. */
type Told =
  | { readonly kind: "begins"; readonly seed: number; readonly sums: Sums }
  | { readonly kind: "ended"; readonly failure: Failure | null; readonly sums: Sums };

// ---- a worker's process -------------------------------------------------------------------------

async function work(base: number, step: number, untilMs: number): Promise<void> {
  const tell = (told: Told): Promise<void> =>
    new Promise((resolve, reject) => {
      const sent = (error: Error | null): void => (error === null ? resolve() : reject(error));
      if (process.send === undefined) reject(new Error("--work: there is no process in front"));
      else process.send(told, undefined, undefined, sent);
    });
  // A terminal interrupts all of its processes; the one in front decides.
  for (const signal of INTERRUPTIONS) process.on(signal, () => undefined);
  const arenas = new Arenas();
  const sums = noSums();
  let failure: Failure | null = null;
  for (let seed = base; failure === null && Date.now() < untilMs; seed += step) {
    await tell({ kind: "begins", seed, sums });
    const outcome = await new World(seed, arenas).run();
    addOutcome(sums, outcome);
    failure = failureOf(outcome);
    const { user, system } = process.cpuUsage();
    sums.cpuMs = (user + system) / 1000;
  }
  await tell({ kind: "ended", failure, sums });
  process.disconnect?.();
}

// ---- the process in front -----------------------------------------------------------------------

class WorkerProcess {
  /** What it says at its end: null if everything held. */
  readonly ended: Promise<Failure | null>;
  /** As it told last. */
  sums: Sums = noSums();
  readonly #child: ChildProcess;
  #seed = 0;

  constructor(base: number, step: number, untilMs: number) {
    const child = fork(import.meta.filename, ["--work", JSON.stringify([base, step, untilMs])]);
    this.#child = child;
    this.ended = new Promise((resolve, reject) => {
      const hangs = (): void => {
        reject(new Error(`seed ${this.#seed} has taken more than ${HANGS_MS / 60_000} minutes`));
      };
      let timer = setTimeout(hangs, HANGS_MS);
      child.on("message", (told: Told) => {
        clearTimeout(timer);
        this.sums = told.sums;
        if (told.kind === "begins") {
          this.#seed = told.seed;
          timer = setTimeout(hangs, HANGS_MS);
        } else {
          resolve(told.failure);
        }
      });
      child.on("error", reject);
      child.on("exit", (code, signal) => {
        clearTimeout(timer);
        reject(new Error(`its process ended with ${signal ?? code} in seed ${this.#seed}`));
      });
    });
  }

  kill(): void {
    if (this.#child.exitCode === null) this.#child.kill("SIGKILL");
  }
}

async function runMany(minutes: number, workers: number, base: number): Promise<number> {
  const untilMs = Date.now() + minutes * 60_000;
  console.log(`seeds from ${base} on, ${workers} at once`);
  const processes = Array.from(
    { length: workers },
    (_, index) => new WorkerProcess(base + index, workers, untilMs),
  );
  const sumsSoFar = (): Sums => {
    const sums = noSums();
    for (const each of processes) addSums(sums, each.sums);
    return sums;
  };
  const progress = setInterval(() => {
    console.log(sumsText(sumsSoFar()).split("\n", 1)[0]);
  }, PROGRESS_MS);
  const failures: Failure[] = [];
  let broken = false;
  let interrupted: NodeJS.Signals | null = null;
  for (const signal of INTERRUPTIONS) {
    process.on(signal, () => {
      interrupted = signal;
      for (const each of processes) each.kill();
    });
  }
  await Promise.all(
    processes.map(async (each) => {
      try {
        const failure = await each.ended;
        if (failure === null) return;
        failures.push(failure);
      } catch (error) {
        if (interrupted !== null) return;
        // The others end because of the first.
        if (failures.length === 0 && !broken) console.error(`hast: ${(error as Error).message}`);
        broken = true;
      }
      // The first failure ends it for all.
      for (const other of processes) other.kill();
    }),
  );
  clearInterval(progress);
  const [failure] = failures;
  if (failure !== undefined) {
    console.log(await failureText(failure));
    console.log(`shorter: npm run sim -- --minimise ${failure.seed}`);
  }
  const sums = sumsSoFar();
  console.log(sumsText(sums));
  if (failure !== undefined || broken) return 1;
  if (sums.worlds === 0) {
    console.error("hast: there was no time for a single seed");
    return 1;
  }
  console.log(`no violation${interrupted === null ? "" : ` until ${interrupted}`}`);
  return interrupted === null ? 0 : 128 + constants.signals[interrupted];
}

async function runOne(seed: number, changes: Changes, whole: boolean): Promise<number> {
  const outcome = await new World(seed, new Arenas(), { changes, keepLines: SEED_MAX }).run();
  const failure = failureOf(outcome, changes);
  if (failure !== null) {
    console.log(await failureText(failure, whole));
    return 1;
  }
  const { trace } = outcome;
  console.log((whole ? trace.lines : trace.linesAbout(new Set())).join("\n"));
  const sums = noSums();
  addOutcome(sums, outcome);
  console.log(`${sumsText(sums)}\nseed ${seed} holds; trace ${trace.hash}`);
  return 0;
}

async function runMinimise(seed: number, changes: Changes, minutes: number): Promise<number> {
  const untilMs = Date.now() + minutes * 60_000;
  const minimised = await minimise(seed, changes, {
    arenas: new Arenas(),
    enough: () => Date.now() >= untilMs,
    progress: (text) => console.error(text),
  });
  if (minimised === null) {
    console.log(`seed ${seed} holds: there is nothing to minimise`);
    return 0;
  }
  const { outcome, runs } = minimised;
  console.log(await failureText(failureOf(outcome, minimised.changes)!));
  const plan = planOf(seed, minimised.changes);
  console.log(`\n${runs} runs; what is left: ${JSON.stringify({ ...plan, faults: undefined })}`);
  for (const { number, atMs, kind } of plan.faults) {
    console.log(`  fault ${number}: ${(atMs / 1000).toFixed(4)}  ${kind}`);
  }
  console.log(`again: npm run sim -- --seed ${seed}${changesText(minimised.changes)}`);
  return 1;
}

function usage(problem: string): never {
  console.error(`hast: ${problem}\n${USAGE}`);
  process.exit(64);
}

function numberOf(what: string, text: string, most: number): number {
  const value = Number(text);
  return value > 0 && value <= most ? value : usage(`--${what} ${text}: not a number that will do`);
}

function wholeOf(what: string, text: string, most: number): number {
  const value = numberOf(what, text, most);
  return Number.isInteger(value) ? value : usage(`--${what} ${text}: not a whole number`);
}

function changesOf(text: string | undefined): Changes {
  if (text === undefined) return {};
  try {
    return JSON.parse(text) as Changes;
  } catch {
    return usage(`--changes ${text}: not JSON`);
  }
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      minutes: { type: "string", default: "1" },
      workers: { type: "string", default: "1" },
      base: { type: "string" },
      seed: { type: "string" },
      minimise: { type: "string" },
      changes: { type: "string" },
      whole: { type: "boolean", default: false },
    },
  });
  const minutes = numberOf("minutes", values.minutes, 1e5);
  const changes = changesOf(values.changes);
  if (values.seed !== undefined) {
    return await runOne(wholeOf("seed", values.seed, 2 ** 40), changes, values.whole);
  }
  if (values.minimise !== undefined) {
    return await runMinimise(wholeOf("minimise", values.minimise, 2 ** 40), changes, minutes);
  }
  const workers = wholeOf("workers", values.workers, 64);
  const base =
    values.base === undefined ? randomInt(1, SEED_MAX) : wholeOf("base", values.base, SEED_MAX);
  return await runMany(minutes, workers, base);
}

if (process.argv[2] === "--work") {
  const [base, step, untilMs] = JSON.parse(process.argv[3]!) as [number, number, number];
  await work(base, step, untilMs);
} else {
  process.exitCode = await main();
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * Makes the mutations of test/mutations.ts, one at a time in each of two copies of the tree, and runs
 * each one's suite there until a test fails: first the tests that carry the defect's number in their
 * names, then the files in the suite's order. Prints a line as each is decided, and at the end the table.
 *
 * A death is worth something only if the test passes without the mutation and the mutant is a program:
 * so each test that kills also runs unmutated, in a third copy, and each mutant must pass the type check.
 * A mutant whose suite is not over after a minute, nor after three times what it takes unmutated, is dead,
 * too: the table says so.
 * Fails if a mutation survives, does not apply exactly once, or does not type-check.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { run } from "node:test";
import { setTimeout } from "node:timers/promises";
import {
  MUTATIONS,
  type Mutation,
  mutate,
  namesOf,
  type Suite,
  selects,
  suiteFiles,
} from "../test/mutations.ts";

/** A mutant's suite may take this long, or {@link SLOWER} times what it takes without the mutation. */
const SUITE_MS = 60_000;
const SLOWER = 3;
/** One unmutated test file may take this long: many times what it does on an idle machine. */
const FILE_MS = 180_000;
/** More would make tests with real time in them wait for a processor. */
const COPIES = 2;

/** What tests read besides their imports. */
const COPIED = ["src", "test", "docs", "package.json", "tsconfig.json"];

const root = resolve(import.meta.dirname, "..");

function makeCopy(): string {
  const copy = mkdtempSync(join(tmpdir(), "hast-mutate-"));
  for (const path of COPIED) cpSync(join(root, path), join(copy, path), { recursive: true });
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
  return copy;
}

/** In place of a test's name. */
const WHOLE_FILE = "(the file as a whole)";

interface Failure {
  readonly test: string;
  readonly reason: string;
}

/**
 * Runs one test file of a copy, or those of its tests whose names match.
 *
 * @param late ends it, in place of {@link FILE_MS}
 * @returns its first failure, or null
 */
async function firstFailure(
  copy: string,
  file: string,
  names: RegExp = /^/,
  late: AbortSignal | null = null,
): Promise<Failure | null> {
  const path = join(copy, file);
  const stop = new AbortController();
  const events = run({
    files: [path],
    cwd: copy,
    timeout: late === null ? FILE_MS : Number.POSITIVE_INFINITY,
    signal: late === null ? stop.signal : AbortSignal.any([stop.signal, late]),
    testNamePatterns: names,
  });
  let failure: Failure | null = null;
  let passed = 0;
  events.on("test:pass", (event) => {
    if (event.name !== path && event.name !== file) passed++;
  });
  events.on("test:fail", (event) => {
    if (late?.aborted) return;
    const whole = event.name === path || event.name === file;
    const { error } = event.details;
    const cause = error.cause instanceof Error ? error.cause.message : String(error.cause);
    // The end of the file repeats what a test of it has told.
    failure ??= {
      test: whole ? WHOLE_FILE : event.name,
      reason: cause.split("\n", 1)[0]!,
    };
    stop.abort();
  });
  events.resume();
  await new Promise<void>((done) => events.on("close", done).on("end", done));
  if (failure === null && passed === 0 && !late?.aborted)
    throw new Error(`${file} contains no test that ran`);
  return failure;
}

/** Does the mutated file still fit the rest? What the compiler refuses needs no test. */
async function typeErrors(copy: string, file: string): Promise<string> {
  const project = join(copy, "tsconfig.mutant.json");
  writeFileSync(project, JSON.stringify({ extends: "./tsconfig.json", include: [file] }));
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  const compiler = spawn(process.execPath, [tsc, "-p", project], { cwd: copy });
  let said = "";
  for (const stream of [compiler.stdout, compiler.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
  }
  const [status] = (await once(compiler, "close")) as [number | null];
  return status === 0 ? "" : said.trim() || `tsc ended with ${status}`;
}

type Verdict =
  | { readonly kind: "killed"; readonly file: string; readonly test: string }
  | { readonly kind: "survived" }
  /** It does not apply, or is no program, or the test fails anyway: this proves nothing. */
  | { readonly kind: "invalid"; readonly reason: string };

/** What a suite does without a mutation. */
interface Usual {
  readonly ms: number;
  /** "FILE: TEST: reason" of the first failure, or null. */
  readonly fails: string | null;
}

/** Runs tests without a mutation, in a copy of their own, each once: those that have failed, and suites. */
class Control {
  readonly #copy: string;
  readonly #runs = new Map<string, Promise<Failure | null>>();
  readonly #suites = new Map<Suite, Promise<Usual>>();

  constructor(copy: string) {
    this.#copy = copy;
  }

  /** @returns what fails without a mutation, or null */
  async failure(file: string, { test }: Failure): Promise<Failure | null> {
    const key = `${file}: ${test}`;
    let run = this.#runs.get(key);
    if (run === undefined) {
      run = firstFailure(this.#copy, file, test === WHOLE_FILE ? undefined : exactly(test));
      this.#runs.set(key, run);
    }
    return await run;
  }

  async usual(suite: Suite): Promise<Usual> {
    let run = this.#suites.get(suite);
    if (run === undefined) {
      run = this.#runSuite(suite);
      this.#suites.set(suite, run);
    }
    return await run;
  }

  async #runSuite(suite: Suite): Promise<Usual> {
    const began = performance.now();
    let fails: string | null = null;
    for (const file of suiteFiles(suite, this.#copy)) {
      const failure = await firstFailure(this.#copy, file);
      if (failure !== null) fails ??= `${file}: ${failure.test}: ${failure.reason}`;
    }
    return { ms: performance.now() - began, fails };
  }
}

/** A mutant's time: `signal` when it is up, unless end() comes before. */
class Limit {
  readonly signal: AbortSignal;
  readonly #late = new AbortController();
  readonly #over = new AbortController();

  constructor(usual: () => Promise<Usual>) {
    this.signal = this.#late.signal;
    this.#wait(usual).catch((error: Error) => {
      if (!this.#over.signal.aborted) throw error;
    });
  }

  async #wait(usual: () => Promise<Usual>): Promise<void> {
    const began = performance.now();
    const { signal } = this.#over;
    await setTimeout(SUITE_MS, undefined, { signal });
    // Measured only now, and beside the mutant: few suites come to this, and so it is as busy for both.
    const allowed = SLOWER * (await usual()).ms;
    await setTimeout(Math.max(0, allowed - (performance.now() - began)), undefined, { signal });
    this.#late.abort();
  }

  end(): void {
    this.#over.abort();
  }
}

function exactly(name: string): RegExp {
  return new RegExp(RegExp.escape(name));
}

async function tryMutation(copy: string, mutation: Mutation, control: Control): Promise<Verdict> {
  const target = join(copy, mutation.file);
  const original = readFileSync(target, "utf8");
  let text: string;
  try {
    text = mutate(mutation, original);
  } catch (error) {
    return { kind: "invalid", reason: (error as Error).message };
  }
  writeFileSync(target, text);
  let limit: Limit | null = null;
  try {
    const errors = await typeErrors(copy, mutation.file);
    if (errors !== "") return { kind: "invalid", reason: `does not type-check: ${errors}` };
    const began = performance.now();
    limit = new Limit(() => control.usual(mutation.suite));
    const files = suiteFiles(mutation.suite, copy);
    const names = namesOf(mutation);
    for (const named of [true, false]) {
      for (const file of files) {
        if (named && (names === null || !names.test(readFileSync(join(copy, file), "utf8")))) {
          continue;
        }
        const failure = await firstFailure(copy, file, named ? names! : undefined, limit.signal);
        if (failure === null) {
          if (!limit.signal.aborted) continue;
          const { ms, fails } = await control.usual(mutation.suite);
          if (fails !== null)
            return { kind: "invalid", reason: `fails without a mutation: ${fails}` };
          const [took, usual] = [performance.now() - began, ms].map(inSeconds);
          const test = `does not end (${took} s; without the mutation the suite takes ${usual} s)`;
          return { kind: "killed", file, test };
        }
        const { test } = failure;
        const without = await control.failure(file, failure);
        if (without === null) return { kind: "killed", file, test };
        const reason = `${file}: ${test}: fails without a mutation, too: ${without.reason}`;
        return { kind: "invalid", reason };
      }
    }
    return { kind: "survived" };
  } finally {
    limit?.end();
    writeFileSync(target, original);
  }
}

function inSeconds(ms: number): string {
  return (ms / 1000).toFixed(1);
}

interface Row {
  readonly mutation: Mutation;
  readonly verdict: Verdict;
  readonly seconds: string;
}

function printTable(rows: readonly Row[]): void {
  const widest = (texts: readonly string[]): number =>
    Math.max(...texts.map(({ length }) => length));
  const name = widest(rows.map(({ mutation }) => mutation.name));
  const defect = widest(rows.map(({ mutation }) => mutation.defect));
  console.log(`\n${"DEFECT".padEnd(defect)}  ${"MUTATION".padEnd(name)}  SECONDS  KILLED BY`);
  for (const { mutation, verdict, seconds } of rows) {
    const end =
      verdict.kind === "killed" ? `${verdict.file}: ${verdict.test}` : verdict.kind.toUpperCase();
    console.log(
      `${mutation.defect.padEnd(defect)}  ${mutation.name.padEnd(name)}  ${seconds.padStart(7)}  ${end}`,
    );
  }
}

async function main(
  copies: readonly string[],
  pristine: string,
  words: readonly string[],
): Promise<number> {
  const chosen = MUTATIONS.filter(
    (mutation) => words.length === 0 || words.some((word) => selects(word, mutation)),
  );
  if (chosen.length === 0) {
    console.error(`hast: no mutation's name or defect contains ${words.join(" or ")}`);
    return 64;
  }
  const control = new Control(pristine);
  const rows = new Map<Mutation, Row>();
  const queue = [...chosen];
  const work = async (copy: string): Promise<void> => {
    for (let mutation = queue.shift(); mutation !== undefined; mutation = queue.shift()) {
      const began = performance.now();
      const verdict = await tryMutation(copy, mutation, control);
      const seconds = inSeconds(performance.now() - began);
      rows.set(mutation, { mutation, verdict, seconds });
      console.log(
        `${rows.size}/${chosen.length} ${verdict.kind} in ${seconds} s: ${mutation.defect}: ${mutation.name}`,
      );
    }
  };
  await Promise.all(copies.map(work));

  const table = chosen.map((mutation) => rows.get(mutation)!);
  printTable(table);
  const count = (kind: Verdict["kind"]): number =>
    table.filter(({ verdict }) => verdict.kind === kind).length;
  console.log(
    `\n${chosen.length} mutations: ${count("killed")} killed, ${count("survived")} survived, ${count("invalid")} invalid`,
  );
  for (const { mutation, verdict } of table) {
    if (verdict.kind === "survived") {
      console.error(
        `hast: ${mutation.name}: survives its suite (${mutation.suite}); write the missing test`,
      );
    } else if (verdict.kind === "invalid") {
      console.error(`hast: ${mutation.name}: ${verdict.reason}`);
    }
  }
  return count("killed") === chosen.length ? 0 : 1;
}

const copies = Array.from({ length: COPIES + 1 }, makeCopy);
process.on("exit", () => {
  for (const copy of copies) rmSync(copy, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(1));
process.exitCode = await main(copies.slice(1), copies[0]!, process.argv.slice(2));

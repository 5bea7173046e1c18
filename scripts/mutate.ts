// SPDX-License-Identifier: BSD-2-Clause
/**
 * Makes the mutations of test/mutations.ts, one at a time in each of two copies of the tree, and runs
 * each one's suite there until a test fails. Prints a table, in the order in which they end.
 *
 * A death is worth something only if the suite lives without the mutation and the mutant is a program:
 * so the suites run unmutated first, and each mutant must pass the type check. Fails if a mutation
 * survives, does not apply exactly once, or does not type-check.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { run } from "node:test";
import { MUTATIONS, type Mutation, mutate, suiteFiles } from "../test/mutations.ts";

/** One test file may take this long, or this many times what it takes unmutated. */
const FILE_MIN_MS = 60_000;
const FILE_FACTOR = 4;
const UNMUTATED_MS = 180_000;
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

interface Failure {
  readonly test: string;
  readonly reason: string;
}

/** Runs one test file of a copy. @returns its first failure, or null */
async function firstFailure(
  copy: string,
  file: string,
  timeoutMs: number,
): Promise<Failure | null> {
  const path = join(copy, file);
  const stop = new AbortController();
  const events = run({ files: [path], cwd: copy, timeout: timeoutMs, signal: stop.signal });
  let failure: Failure | null = null;
  let passed = 0;
  events.on("test:pass", (event) => {
    if (event.name !== path && event.name !== file) passed++;
  });
  events.on("test:fail", (event) => {
    const whole = event.name === path || event.name === file;
    const { error } = event.details;
    const cause = error.cause instanceof Error ? error.cause.message : String(error.cause);
    // The end of the file repeats what a test of it has told.
    failure ??= {
      test: whole ? "(the file as a whole)" : event.name,
      reason: cause.split("\n", 1)[0]!,
    };
    stop.abort();
  });
  events.resume();
  await new Promise<void>((done) => events.on("close", done).on("end", done));
  if (failure === null && passed === 0) throw new Error(`${file} contains no test that ran`);
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

interface Row {
  readonly killedBy: string | null;
  /** What is wrong with the mutation itself, or "". */
  readonly broken: string;
}

async function tryMutation(
  copy: string,
  mutation: Mutation,
  limits: Map<string, number>,
): Promise<Row> {
  const original = readFileSync(join(copy, mutation.file), "utf8");
  let text: string;
  try {
    text = mutate(mutation, original);
  } catch (error) {
    return { killedBy: null, broken: (error as Error).message };
  }
  const target = join(copy, mutation.file);
  writeFileSync(target, text);
  try {
    const broken = await typeErrors(copy, mutation.file);
    if (broken !== "") return { killedBy: null, broken: `does not type-check: ${broken}` };
    for (const file of suiteFiles(mutation.suite, copy)) {
      const failure = await firstFailure(copy, file, limits.get(file)!);
      if (failure !== null) {
        return { killedBy: `${file}: ${failure.test}`, broken: "" };
      }
    }
    return { killedBy: null, broken: "" };
  } finally {
    writeFileSync(target, original);
  }
}

/** Has each item dealt with, by as many at once as there are copies. */
async function share<T>(
  copies: readonly string[],
  items: readonly T[],
  deal: (copy: string, item: T) => Promise<void>,
): Promise<void> {
  const queue = [...items];
  const work = async (copy: string): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await deal(copy, item);
  };
  await Promise.all(copies.map(work));
}

async function main(copies: readonly string[], words: readonly string[]): Promise<number> {
  const chosen = MUTATIONS.filter(
    ({ name, defect }) =>
      words.length === 0 ||
      words.some((word) => defect.split(/, /).includes(word) || name.includes(word)),
  );
  if (chosen.length === 0) {
    console.error(`hast: no mutation's name or defect contains ${words.join(" or ")}`);
    return 64;
  }
  const limits = new Map<string, number>();
  const files = new Set(chosen.flatMap(({ suite }) => suiteFiles(suite, root)));
  const failing: string[] = [];
  await share(copies, [...files], async (copy, file) => {
    const began = performance.now();
    const failure = await firstFailure(copy, file, UNMUTATED_MS);
    limits.set(file, Math.max(FILE_MIN_MS, FILE_FACTOR * (performance.now() - began)));
    if (failure !== null) failing.push(`${file}: ${failure.test}: ${failure.reason}`);
  });
  if (failing.length > 0) {
    for (const text of failing) console.error(`hast: fails without a mutation: ${text}`);
    return 1;
  }
  console.log(`${limits.size} test files pass without a mutation\n`);

  const width = Math.max(...chosen.map(({ name }) => name.length));
  const wide = Math.max(...chosen.map(({ defect }) => defect.length));
  const long = Math.max(...chosen.map(({ file }) => relative("src", file).length));
  console.log(
    `${"MUTATION".padEnd(width)}  ${"DEFECT".padEnd(wide)}  ${"FILE IN src/".padEnd(long)}  ${"SECONDS".padStart(7)}  KILLED BY`,
  );
  const complaints: string[] = [];
  await share(copies, chosen, async (copy, mutation) => {
    const began = performance.now();
    const { killedBy, broken } = await tryMutation(copy, mutation, limits);
    const seconds = ((performance.now() - began) / 1000).toFixed(1).padStart(7);
    const { name, defect, file } = mutation;
    const verdict = killedBy ?? (broken === "" ? "NOBODY: IT SURVIVES" : "INVALID");
    console.log(
      `${name.padEnd(width)}  ${defect.padEnd(wide)}  ${relative("src", file).padEnd(long)}  ${seconds}  ${verdict}`,
    );
    if (broken !== "") complaints.push(`${name}: ${broken}`);
    else if (killedBy === null) {
      complaints.push(`${name}: survives its suite (${mutation.suite}); write the missing test`);
    }
  });
  console.log(`\n${chosen.length - complaints.length} of ${chosen.length} mutations killed`);
  for (const complaint of complaints) console.error(`hast: ${complaint}`);
  return complaints.length === 0 ? 0 : 1;
}

const copies = Array.from({ length: COPIES }, makeCopy);
try {
  process.exitCode = await main(copies, process.argv.slice(2));
} finally {
  for (const copy of copies) rmSync(copy, { recursive: true, force: true });
}

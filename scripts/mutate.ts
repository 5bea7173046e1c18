// SPDX-License-Identifier: BSD-2-Clause
/**
 * Makes the mutations of test/mutations.ts, one at a time, in a copy of the tree, and runs each one's
 * suite there until a test fails. Prints a table.
 *
 * A death is worth something only if the suite lives without the mutation and the mutant is a program:
 * so the suites run unmutated first, and each mutant must pass the type check. Fails if a mutation
 * survives, does not apply exactly once, or does not type-check.
 */

import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { run } from "node:test";
import { MUTATIONS, type Mutation, mutate, suiteFiles } from "../test/mutations.ts";

/** One test file may take this long, or this many times what it takes unmutated. */
const FILE_MIN_MS = 60_000;
const FILE_FACTOR = 4;
const UNMUTATED_MS = 180_000;

/** What tests read besides their imports. */
const COPIED = ["src", "test", "docs", "package.json", "tsconfig.json"];

const root = resolve(import.meta.dirname, "..");
const copy = mkdtempSync(join(tmpdir(), "hast-mutate-"));

interface Failure {
  readonly test: string;
  readonly reason: string;
}

/** Runs one test file of the copy. @returns its first failure, or null */
async function firstFailure(file: string, timeoutMs: number): Promise<Failure | null> {
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
function typeErrors(file: string): string {
  const project = join(copy, "tsconfig.mutant.json");
  writeFileSync(project, JSON.stringify({ extends: "./tsconfig.json", include: [file] }));
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  const { status, stdout, stderr } = spawnSync(process.execPath, [tsc, "-p", project], {
    cwd: copy,
    encoding: "utf8",
  });
  return status === 0 ? "" : `${stdout}${stderr}`.trim() || `tsc ended with ${status}`;
}

interface Row {
  readonly killedBy: string | null;
  /** What is wrong with the mutation itself, or "". */
  readonly broken: string;
}

async function tryMutation(mutation: Mutation, limits: Map<string, number>): Promise<Row> {
  const original = readFileSync(join(root, mutation.file), "utf8");
  let text: string;
  try {
    text = mutate(mutation, original);
  } catch (error) {
    return { killedBy: null, broken: (error as Error).message };
  }
  const target = join(copy, mutation.file);
  writeFileSync(target, text);
  try {
    const broken = typeErrors(mutation.file);
    if (broken !== "") return { killedBy: null, broken: `does not type-check: ${broken}` };
    for (const file of suiteFiles(mutation.suite, copy)) {
      const failure = await firstFailure(file, limits.get(file)!);
      if (failure !== null) {
        return { killedBy: `${file}: ${failure.test}`, broken: "" };
      }
    }
    return { killedBy: null, broken: "" };
  } finally {
    writeFileSync(target, original);
  }
}

async function main(words: readonly string[]): Promise<number> {
  const chosen = MUTATIONS.filter(
    ({ name, defect }) =>
      words.length === 0 ||
      words.some((word) => defect.split(/, /).includes(word) || name.includes(word)),
  );
  if (chosen.length === 0) {
    console.error(`hast: no mutation's name or defect contains ${words.join(" or ")}`);
    return 64;
  }
  for (const path of COPIED) cpSync(join(root, path), join(copy, path), { recursive: true });
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));

  const limits = new Map<string, number>();
  for (const file of new Set(chosen.flatMap(({ suite }) => suiteFiles(suite, copy)))) {
    const began = performance.now();
    const failure = await firstFailure(file, UNMUTATED_MS);
    if (failure !== null) {
      console.error(`hast: ${file} fails without a mutation: ${failure.test}: ${failure.reason}`);
      return 1;
    }
    limits.set(file, Math.max(FILE_MIN_MS, FILE_FACTOR * (performance.now() - began)));
  }
  console.log(`${limits.size} test files pass without a mutation\n`);

  const width = Math.max(...chosen.map(({ name }) => name.length));
  const wide = Math.max(...chosen.map(({ defect }) => defect.length));
  const long = Math.max(...chosen.map(({ file }) => relative("src", file).length));
  console.log(
    `${"MUTATION".padEnd(width)}  ${"DEFECT".padEnd(wide)}  ${"FILE IN src/".padEnd(long)}  ${"SECONDS".padStart(7)}  KILLED BY`,
  );
  const complaints: string[] = [];
  for (const mutation of chosen) {
    const began = performance.now();
    const { killedBy, broken } = await tryMutation(mutation, limits);
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
  }
  console.log(`\n${chosen.length - complaints.length} of ${chosen.length} mutations killed`);
  for (const complaint of complaints) console.error(`hast: ${complaint}`);
  return complaints.length === 0 ? 0 : 1;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} finally {
  rmSync(copy, { recursive: true, force: true });
}

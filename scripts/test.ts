// SPDX-License-Identifier: BSD-2-Clause
/**
 * The test runner behind `npm test`: node:test with an explicit list of files.
 *
 * `node --test` with a pattern that matches nothing succeeds, and a file without tests counts as one
 * that passed. Here both are failures; under CI=true so is a skipped test.
 */

import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";
import { relative, resolve } from "node:path";
import { run } from "node:test";
import { spec } from "node:test/reporters";

interface Batch {
  readonly name: string;
  readonly files: readonly string[];
  readonly filesAtOnce: number;
  /** For one whole file. */
  readonly timeoutMs: number;
}

interface Counts {
  tests: number;
  passed: number;
  failed: number;
  skipped: number;
}

const UNIT_TIMEOUT_MS = 120_000;
const SYSTEM_TIMEOUT_MS = 480_000;
const SCENARIO_TIMEOUT_MS = 1_500_000;

/** Tests that start daemons and wait for them; unlike the rest they may take minutes. */
function isSystemTest(file: string): boolean {
  return /^test\/(system|interop)\//.test(file) || /^bench\//.test(file);
}

/** Whole machines, as `npm run e2e` has them. */
function isScenario(file: string): boolean {
  return file.startsWith("test/e2e/");
}

/** Of `npm run e2e`, those that take no more than a minute or two. */
const SHORT_SCENARIOS = ["test/e2e/failover.test.ts", "test/e2e/hosts.test.ts"];

/** Hosts are namespaces with a switch between them: that takes root, and a kernel that has all of it. */
function canHaveHosts(): boolean {
  const network =
    "ip link add br0 type bridge && ip link add port0 type veth && nft add table bridge faults";
  const namespaces = ["--net", "--pid", "--fork", "--mount", "--uts", "--ipc"];
  const { status } = spawnSync("unshare", [...namespaces, "sh", "-c", network]);
  return process.getuid!() === 0 && status === 0;
}

function everyTest(): string[] {
  const hosts = canHaveHosts();
  if (!hosts)
    console.log(`left out, for want of root or namespaces: ${SHORT_SCENARIOS.join(", ")}`);
  return globSync("{src,test,bench}/**/*.test.ts")
    .filter((file) => !file.startsWith("test/interop/")) // needs a FreeBSD node: only by name
    .filter((file) => !isScenario(file) || (hosts && SHORT_SCENARIOS.includes(file)))
    .sort();
}

async function runBatch(batch: Batch, total: Counts, empty: string[]): Promise<void> {
  if (batch.files.length === 0) return;
  console.log(`${batch.name}: ${batch.files.length} files`);
  const events = run({
    files: batch.files.map((file) => resolve(file)),
    concurrency: batch.filesAtOnce,
    timeout: batch.timeoutMs,
  });
  events.on("test:pass", (event) => {
    if (event.nesting === 0 && batch.files.includes(relative(".", event.name))) {
      empty.push(relative(".", event.name));
    }
  });
  events.on("test:summary", (summary) => {
    if (summary.file !== undefined) return; // a file's own; the last one is everybody's
    total.tests += summary.counts.tests;
    total.passed += summary.counts.passed;
    total.skipped += summary.counts.skipped + summary.counts.todo;
    total.failed += summary.counts.tests - summary.counts.passed;
    total.failed -= summary.counts.skipped + summary.counts.todo;
    if (!summary.success && total.failed === 0) total.failed = 1;
  });
  for await (const text of events.compose(spec)) process.stdout.write(text);
}

const wanted = process.argv.slice(2).map((file) => relative(".", resolve(file)));
const files = wanted.length > 0 ? globSync(wanted).sort() : everyTest();
const total: Counts = { tests: 0, passed: 0, failed: 0, skipped: 0 };
const empty: string[] = [];
const batches: Batch[] = [
  {
    name: "unit and golden tests",
    files: files.filter((file) => !isSystemTest(file) && !isScenario(file)),
    filesAtOnce: 2,
    timeoutMs: UNIT_TIMEOUT_MS,
  },
  {
    name: "system tests",
    files: files.filter(isSystemTest),
    filesAtOnce: 3, // they wait more than they compute
    timeoutMs: SYSTEM_TIMEOUT_MS,
  },
  {
    name: "scenarios",
    files: files.filter(isScenario),
    filesAtOnce: 1, // they measure seconds
    timeoutMs: SCENARIO_TIMEOUT_MS,
  },
];
for (const batch of batches) await runBatch(batch, total, empty);

const complaints: string[] = [];
for (const file of wanted) {
  if (!files.includes(file)) complaints.push(`${file}: no such test file`);
}
for (const file of empty) complaints.push(`${file}: contains no test`);
if (total.tests - empty.length <= 0) complaints.push("no test ran");
if (total.failed > 0) complaints.push(`${total.failed} failed`);
if (total.skipped > 0 && process.env["CI"] === "true") {
  complaints.push(`${total.skipped} skipped; in CI every test has to run`);
}
console.log(
  `${total.tests} tests in ${files.length} files: ` +
    `${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`,
);
for (const complaint of complaints) console.error(`hast: ${complaint}`);
process.exitCode = complaints.length > 0 ? 1 : 0;

// SPDX-License-Identifier: BSD-2-Clause
/**
 * npm run fuzz: the tests that feed hostile bytes, one after the other, each in a process of its own with
 * little memory, for much longer than npm test runs them.
 *
 *   --minutes N   of a processor's time, altogether; 10
 *   --target TEXT only those whose name contains it
 *   --seed N      the seed that a failure or a hang was told with
 */

import { spawn } from "node:child_process";
import { parseArgs } from "node:util";
import { TARGETS, type Target } from "./fuzz-targets.ts";

const HEAP_MIB = 256;
/** How much longer than its processor time a target may take: the machine may be busy, and what was found is shrunk. */
const PATIENCE = 10;
const GRACE_SECONDS = 120;

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    target: { type: "string", default: "" },
    seed: { type: "string" },
  },
});
const targets = TARGETS.filter(({ name }) => name.includes(values.target));
const seconds = (Number(values.minutes) * 60) / targets.length;
if (!(seconds > 0) || !Number.isFinite(seconds)) {
  console.error(`hast: --minutes is a number above 0; --target one of:`);
  for (const { name } of TARGETS) console.error(`  ${name}`);
  process.exit(64);
}

/** @returns how many inputs it took @throws Error that says what went wrong */
function fuzz({ file, test }: Target, seed: number): Promise<string> {
  const pattern = `^${test.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}$`;
  return new Promise((resolve, reject) => {
    let output = "";
    const child = spawn(
      process.execPath,
      [`--max-old-space-size=${HEAP_MIB}`, `--test-name-pattern=${pattern}`, file],
      {
        env: { ...process.env, HAST_FUZZ_SECONDS: `${seconds}`, HAST_FUZZ_SEED: `${seed}` },
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        output += text;
      });
    }
    const hang = setTimeout(
      () => child.kill("SIGKILL"),
      (seconds * PATIENCE + GRACE_SECONDS) * 1000,
    );
    child.on("close", (code, signal) => {
      clearTimeout(hang);
      const ran = /^(?:ℹ|#) pass 1$/m.test(output);
      const inputs = /\d+ inputs/.exec(output)?.[0] ?? "no inputs counted";
      if (code === 0 && ran) resolve(inputs);
      else if (signal === "SIGKILL") reject(new Error("it hung, and was killed"));
      else reject(new Error(code === 0 ? "its test did not run" : output));
    });
  });
}

let failures = 0;
for (const target of targets) {
  const seed =
    values.seed === undefined ? Math.floor(Math.random() * 2 ** 30) : Number(values.seed);
  console.log(`${target.name}: ${Math.round(seconds)} s of CPU, seed ${seed}`);
  try {
    console.log(`  ${await fuzz(target, seed)}`);
  } catch (error) {
    failures += 1;
    console.error(`${(error as Error).message}\nhast: ${target.name} failed. Again:`);
    console.error(
      `  npm run fuzz -- --target "${target.name}" --seed ${seed} --minutes ${(seconds / 60).toFixed(2)}`,
    );
  }
}
process.exitCode = failures > 0 ? 1 : 0;

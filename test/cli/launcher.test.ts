// SPDX-License-Identifier: BSD-2-Clause
/** bin/hastd, bin/hastctl and bin/hast-failover: which Node, and where compiled code is kept. */

import { strict as expect } from "node:assert";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

const BIN = join(import.meta.dirname, "..", "..", "bin");

test("all programs are started alike", () => {
  const [first, ...others] = readdirSync(BIN).map((name) => readFileSync(join(BIN, name), "utf8"));
  expect.equal(others.length, 2);
  for (const other of others) expect.equal(other, first);
});

test("compiled code is kept where only its owner can write", (t) => {
  const home = mkdtempSync(join(tmpdir(), "hast-home-"));
  t.after(() => rmSync(home, { recursive: true }));
  const isRoot = process.getuid!() === 0;
  const kept = isRoot ? "/var/cache/hast" : join(home, ".cache", "hast");
  const run = (environment: NodeJS.ProcessEnv) =>
    spawnSync(join(BIN, "hastctl"), ["--version"], { env: environment, encoding: "utf8" });
  const { stdout, stderr, status } = run({ PATH: process.env["PATH"], HOME: home });
  expect.equal(status, 0, stderr);
  expect.match(stdout, /^hastctl \d/);
  expect.ok(readdirSync(kept).length > 0);
  const { uid, mode } = statSync(kept);
  expect.equal(uid, process.getuid!());
  expect.equal(mode & 0o022, 0);
  // Without a place for it all works as well.
  expect.equal(run({ PATH: process.env["PATH"] }).status, 0);
});

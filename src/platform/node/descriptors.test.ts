// SPDX-License-Identifier: BSD-2-Clause
import { strict as assert } from "node:assert";
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { canOpen } from "./descriptors.ts";

test("canOpen() leaves nothing open", () => {
  const before = readdirSync("/proc/self/fd").length;
  for (let round = 0; round < 100; round++) assert.equal(canOpen(20), true);
  assert.equal(readdirSync("/proc/self/fd").length, before);
});

test("canOpen() knows how many are left, to the last one", () => {
  const script = `
    import { openSync } from "node:fs";
    import { canOpen } from ${JSON.stringify(join(import.meta.dirname, "descriptors.ts"))};
    const open = [];
    try { for (;;) open.push(openSync("/dev/null")); } catch {}
    const { closeSync } = await import("node:fs");
    for (let count = 0; count < 5; count++) closeSync(open.pop());
    console.log(canOpen(5), canOpen(6), canOpen(5));
  `;
  const { stdout, stderr } = spawnSync(
    "prlimit",
    ["--nofile=64", process.execPath, "--input-type=module", "--eval", script],
    { encoding: "utf8" },
  );
  assert.equal(stdout, "true false true\n", stderr);
});

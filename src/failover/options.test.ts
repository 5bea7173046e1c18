// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { type Command, parseOptions } from "./options.ts";

test("parseOptions() knows the commands, and -c before and after them", () => {
  const cases: readonly [string, string, Command][] = [
    ["", "/etc/hast-failover", { kind: "run" }],
    ["-c /x", "/x", { kind: "run" }],
    ["status", "/etc/hast-failover", { kind: "status" }],
    ["-c /x status", "/x", { kind: "status" }],
    ["seed -c /x --force", "/x", { kind: "seed", force: true }],
    ["seed", "/etc/hast-failover", { kind: "seed", force: false }],
    ["move", "/etc/hast-failover", { kind: "move", to: null }],
    ["move beta", "/etc/hast-failover", { kind: "move", to: "beta" }],
  ];
  for (const [line, directory, command] of cases) {
    const words = line.split(" ").filter(Boolean);
    expect.deepEqual(parseOptions(words), { kind: "command", directory, command }, line);
  }
  expect.deepEqual(parseOptions(["--version"]), { kind: "version" });
  expect.deepEqual(parseOptions(["-h"]), { kind: "usage", complaint: null });
});

test("parseOptions() takes nothing that it does not know", () => {
  for (const line of [
    "-c",
    "-x",
    "go",
    "status now",
    "move a b",
    "--force",
    "move --force",
    "status --force",
  ]) {
    const options = parseOptions(line.split(" "));
    expect.ok(options.kind === "usage" && options.complaint !== null, line);
  }
});

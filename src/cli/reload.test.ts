// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Asked, runCommand } from "../../test/cli/surroundings.ts";
import { reload } from "./reload.ts";

test("what has changed is printed", async () => {
  const asked: Asked = { requests: [], opened: [] };
  const notes = ["r0: changed live; its role is primary", "  timeout: 20 -> 5"];
  const entry = { resource: "hastd", outcome: { kind: "done" }, errmsg: null, notes } as const;
  const given = { reload: { kind: "answered", entries: [entry] } } as const;
  const { out, exitCode } = await runCommand(reload, [], given, asked);
  assert.equal(exitCode, 0);
  assert.equal(
    out,
    "hastd: reloaded\n  r0: changed live; its role is primary\n    timeout: 20 -> 5\n",
  );
  assert.deepEqual(asked.requests, ["reload"]);
});

test("a refusal is an error, with every mistake and its place", async () => {
  const entry = {
    resource: "hastd",
    outcome: { kind: "failed", error: 2 },
    errmsg: "Nothing was reloaded: the old configuration stays in use.",
    notes: ["hast.conf:2:1: unknown statement"],
  } as const;
  const given = { reload: { kind: "answered", entries: [entry] } } as const;
  const { out, err, exitCode } = await runCommand(reload, [], given);
  assert.deepEqual({ out, exitCode }, { out: "", exitCode: 2 });
  assert.match(err, /Nothing was reloaded: .*\n +hast\.conf:2:1: unknown statement\n$/);
});

test("where no hastd hears, the way for a new control is named", async () => {
  const failed = { kind: "failed", lines: ["Unable to connect."], exitCode: 71 } as const;
  const { err, exitCode } = await runCommand(reload, [], { reload: failed });
  assert.equal(exitCode, 71);
  assert.match(err, /another control than before, .*send it SIGHUP/);
});

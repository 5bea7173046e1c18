// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Asked, runCommand } from "../../test/cli/surroundings.ts";
import { golden, goldenPaths } from "../../test/golden/vectors.ts";
import { decodeStatusReply, type StatusEntry } from "../wire/control.ts";
import { FRAME_HEADER_SIZE } from "../wire/frame.ts";
import { list } from "./list.ts";

function captured(name: string): readonly StatusEntry[] {
  return decodeStatusReply(golden(name).subarray(FRAME_HEADER_SIZE)).entries;
}

test("list prints every captured answer as the original does", async () => {
  for (const path of goldenPaths("control/*-list-*.rep.bin")) {
    const { exitCode, out, err } = await runCommand(list, ["all"], {
      status: { kind: "answered", entries: captured(path) },
    });
    assert.equal(out, new TextDecoder().decode(golden(path.replace(".rep.bin", ".stdout.txt"))));
    assert.equal(exitCode, 0);
    assert.equal(err, "");
  }
});

test("list leaves out the source address where none is configured", async () => {
  const [first] = captured("control/08-list-primary-complete.rep.bin");
  assert.ok(first?.outcome.kind === "known");
  const status = { ...first.outcome.status, sourceaddr: null };
  const entries = [{ ...first, outcome: { kind: "known", status } as const }];
  const { out } = await runCommand(list, [], { status: { kind: "answered", entries } });
  assert.doesNotMatch(out, /sourceaddr/);
});

test("list puts what we have to say at the end of an entry", async () => {
  const [first] = captured("control/02-list-init.rep.bin");
  const known = { ...first!, notes: ["one", "two"] };
  const unknown: StatusEntry = {
    resource: "nope",
    outcome: { kind: "failed", error: 1 },
    errmsg: "There is no resource nope.",
    notes: [],
  };
  const { exitCode, out } = await runCommand(list, [], {
    status: { kind: "answered", entries: [known, unknown] },
  });
  assert.equal(exitCode, 1);
  assert.deepEqual(out.split("\n").slice(-7), [
    "    queues: local: 0, send: 0, recv: 0, done: 0, idle: 0",
    "  note: one",
    "  note: two",
    "nope:",
    "  error: 1",
    "  note: There is no resource nope.",
    "",
  ]);
});

test("list asks for all, or for what is named", async () => {
  const asked: Asked = { requests: [], opened: [] };
  const given = { status: { kind: "answered", entries: [] } } as const;
  await runCommand(list, [], given, asked);
  await runCommand(list, ["r0"], given, asked);
  assert.deepEqual(asked.requests, [{ names: ["all"] }, { names: ["r0"] }]);
});

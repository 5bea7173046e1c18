// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { PatientClock } from "../../test/cli/patient-clock.ts";
import type { SetRoleEntry } from "../wire/control.ts";
import type { Answer } from "./control-client.ts";
import { insist } from "./insist.ts";

function done(resource: string): SetRoleEntry {
  return { resource, outcome: { kind: "done", previousRole: "init" }, errmsg: null, notes: [] };
}

function failed(resource: string, error = 2, errmsg = "no"): SetRoleEntry {
  return { resource, outcome: { kind: "failed", error }, errmsg, notes: [] };
}

function answered(...entries: readonly SetRoleEntry[]): Answer<SetRoleEntry> {
  return { kind: "answered", entries };
}

function unreached(exitCode: number): Answer<SetRoleEntry> {
  return { kind: "failed", lines: ["none"], exitCode };
}

/** Insists against answers given in order, the last one for ever. */
async function run(waitMs: number, names: readonly string[], answers: Answer<SetRoleEntry>[]) {
  const clock = new PatientClock();
  const asked: string[] = [];
  const answer = await insist(
    async (missing) => {
      asked.push(`${clock.now() - 5} ${missing.join(" ")}`);
      return answers.length > 1 ? answers.shift()! : answers[0]!;
    },
    names,
    clock,
    waitMs,
  );
  return { asked, answer };
}

test("without waiting, hastd is asked once", async () => {
  const { asked, answer } = await run(0, ["r0"], [answered(failed("r0"))]);
  assert.deepEqual(asked, ["0 r0"]);
  assert.deepEqual(answer, answered(failed("r0")));
});

test("only what is refused is asked for again, and the last answer about each counts", async () => {
  const { asked, answer } = await run(
    5_000,
    ["all"],
    [
      answered(done("r0"), failed("r1"), failed("r2")),
      answered(failed("r1"), done("r2")),
      answered(done("r1")),
    ],
  );
  assert.deepEqual(asked, ["0 all", "1000 r1 r2", "2000 r1"]);
  assert.deepEqual(answer, answered(done("r0"), done("r1"), done("r2")));
});

test("the time ends with one more question, and the last reasons", async () => {
  const { asked, answer } = await run(
    1_500,
    ["r0", "r1"],
    [answered(failed("r0"), done("r1")), answered(failed("r0", 2, "still no"))],
  );
  assert.deepEqual(asked, ["0 r0 r1", "1000 r0", "1500 r0"]);
  assert.deepEqual(answer, answered(failed("r0", 2, "still no"), done("r1")));
});

test("a resource that does not exist will not come", async () => {
  const { asked, answer } = await run(9_000, ["r0", "r1"], [answered(done("r0"), failed("r1", 1))]);
  assert.equal(asked.length, 1);
  assert.deepEqual(answer, answered(done("r0"), failed("r1", 1)));
});

test("a hastd that cannot be reached yet is waited for; one that cannot do it is not", async () => {
  const found = await run(9_000, ["r0"], [unreached(71), unreached(69), answered(done("r0"))]);
  assert.deepEqual(found.asked, ["0 r0", "1000 r0", "2000 r0"]);
  assert.deepEqual(found.answer, answered(done("r0")));
  const never = await run(1_000, ["r0"], [unreached(71)]);
  assert.deepEqual(never.asked, ["0 r0", "1000 r0"]);
  assert.deepEqual(never.answer, unreached(71));
  const cannot = await run(9_000, ["r0"], [unreached(70)]);
  assert.equal(cannot.asked.length, 1);
});

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { statusOf } from "../../test/cli/desk.ts";
import { type Asked, runCommand } from "../../test/cli/surroundings.ts";
import type { ResourceStatus, StatusEntry, WorkerStatus } from "../wire/control.ts";
import { failoverCheck } from "./failover-check.ts";

const WORKER = { status: "complete" } as WorkerStatus;
const ALONE = { status: "degraded" } as WorkerStatus;

async function check(...differences: Partial<ResourceStatus>[]) {
  const entries = differences.map((each, index) => statusOf(`r${index}`, each));
  return runCommand(failoverCheck, ["all"], { status: { kind: "answered", entries } });
}

const FIT: Readonly<Record<string, Partial<ResourceStatus>>> = {
  "a primary": { role: "primary", worker: WORKER, copy: "uptodate" },
  "a primary that is alone": { role: "primary", worker: ALONE, copy: "uptodate" },
  "a primary that the other node fills": {
    role: "primary",
    worker: WORKER,
    copy: "inconsistent",
    connected: true,
  },
  "a primary that has lost its disk and goes on over the other node": {
    role: "primary",
    worker: ALONE,
    copy: "inconsistent",
    connected: true,
  },
  "a secondary in step": { role: "secondary", worker: WORKER, copy: "uptodate" },
  "a secondary that saw the primary go": { role: "secondary", copy: "consistent", vouched: true },
  "a secondary of a resource for one node": {
    role: "secondary",
    copy: "consistent",
    remoteaddr: "none",
  },
};

const UNFIT: Readonly<Record<string, readonly [Partial<ResourceStatus>, RegExp]>> = {
  "role init": [
    { role: "init", copy: "consistent" },
    /role is init.*\n {2} {2}hastctl role secondary r0\n$/,
  ],
  "a primary without a worker": [
    { role: "primary", copy: "uptodate" },
    /worker does not answer.*\n {4}hastctl status r0\n$/,
  ],
  "a primary without its device": [
    {
      role: "primary",
      worker: WORKER,
      copy: "uptodate",
      device: { path: "/dev/hast/r0", kind: "fuse", node: null },
    },
    /\/dev\/hast\/r0 is lost.*\n {4}hastctl status r0\n$/,
  ],
  "an unfilled primary that is alone": [
    { role: "primary", worker: ALONE, copy: "inconsistent" },
    /incomplete copy.*\n {4}hastctl status r0\n$/,
  ],
  "an outdated secondary": [
    { role: "secondary", copy: "outdated", vouched: true },
    /outdated.*\n.*there:\n {4}hastctl role primary r0\n$/,
  ],
  "a secondary being filled": [
    { role: "secondary", worker: WORKER, copy: "inconsistent", vouched: true },
    /being synchronized.*\n {4}hastctl status r0\n$/,
  ],
  "half a copy": [
    { role: "secondary", copy: "inconsistent", vouched: true },
    /unfinished.*\n.*there:\n {4}hastctl role primary r0\n$/,
  ],
  "a secondary that has booted and met nobody": [
    { role: "secondary", copy: "consistent" },
    /does not know that its copy is still the newest.*\n {4}hastctl role primary r0\n$/,
  ],
};

for (const [name, differences] of Object.entries(FIT)) {
  test(`failover-check says nothing, with code 0, about ${name}`, async () => {
    assert.deepEqual(await check(differences), { exitCode: 0, out: "", err: "" });
  });
}

for (const [name, [differences, message]] of Object.entries(UNFIT)) {
  test(`failover-check says why, what to type, and 1, of ${name}`, async () => {
    const { exitCode, out, err } = await check(differences);
    assert.equal(exitCode, 1);
    assert.equal(out, "");
    assert.match(err, /^\[ERROR\] \[r0\] /);
    assert.match(err, message);
  });
}

test("failover-check puts the options typed here only into what is to be typed here", async () => {
  const typed = async (status: Partial<ResourceStatus>) => {
    const entries = [statusOf("r0", status)];
    const given = { status: { kind: "answered", entries } } as const;
    return (await runCommand(failoverCheck, ["all", "-n", "beta"], given)).err;
  };
  assert.match(await typed({ role: "init" }), /Here:\n {4}hastctl role -n beta secondary r0\n$/);
  for (const elsewhere of [
    { copy: "consistent" },
    { copy: "outdated" },
    { copy: "inconsistent" },
    { copy: "inconsistent", worker: WORKER },
  ]) {
    const err = await typed({ role: "secondary", ...elsewhere });
    assert.match(err, /\n {4}hastctl (role primary|status) r0\n$/);
  }
});

test("failover-check of several resources names those that are not fit, and one is enough", async () => {
  const { exitCode, err } = await check(
    { role: "primary", worker: WORKER },
    { role: "init" },
    { role: "primary", worker: null },
  );
  assert.equal(exitCode, 1);
  assert.doesNotMatch(err, /\[r0\]/);
  assert.match(err, /\[r1\][\s\S]*\[r2\]/);
});

test("failover-check of an unknown resource, or without a hastd, is no success", async () => {
  const entry: StatusEntry = {
    resource: "r9",
    outcome: { kind: "failed", error: 1 },
    errmsg: "There is no resource r9.",
    notes: [],
  };
  const asked: Asked = { requests: [], opened: [] };
  const unknown = { status: { kind: "answered", entries: [entry] } } as const;
  assert.equal((await runCommand(failoverCheck, ["r9"], unknown, asked)).exitCode, 1);
  assert.deepEqual(asked.requests, [{ names: ["r9"] }]);
  const silent = { status: { kind: "failed", lines: ["No hastd."], exitCode: 71 } } as const;
  const { exitCode, err } = await runCommand(failoverCheck, ["all"], silent);
  assert.equal(exitCode, 71);
  assert.equal(err, "[ERROR] No hastd.\n");
});

test("failover-check wants names", () => {
  assert.match(failoverCheck.refuse([], new Map()) ?? "", /name the resources/);
});

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Asked, runCommand } from "../../test/cli/surroundings.ts";
import { golden, goldenPaths } from "../../test/golden/vectors.ts";
import { decodeSetRoleReply, type SetRoleEntry } from "../wire/control.ts";
import { FRAME_HEADER_SIZE } from "../wire/frame.ts";
import { role } from "./role.ts";

function done(resource: string, notes: readonly string[] = []): SetRoleEntry {
  return { resource, outcome: { kind: "done", previousRole: "init" }, errmsg: null, notes };
}

function failed(resource: string, error: number, errmsg: string | null): SetRoleEntry {
  return { resource, outcome: { kind: "failed", error }, errmsg, notes: [] };
}

test("role prints what the original prints for every captured answer, with its exit code", async () => {
  const exchanges = JSON.parse(new TextDecoder().decode(golden("control/decoded.json"))) as {
    name: string;
    args: string[];
    exit: number;
    stderr: string;
  }[];
  for (const path of goldenPaths("control/*-role-*.rep.bin")) {
    const exchange = exchanges.find((each) => `${each.name}.rep.bin` === path);
    const { entries } = decodeSetRoleReply(golden(path).subarray(FRAME_HEADER_SIZE));
    const result = await runCommand(role, exchange!.args.slice(1), {
      setRole: { kind: "answered", entries },
    });
    assert.deepEqual(result, { exitCode: exchange!.exit, out: "", err: exchange!.stderr });
  }
});

test("role asks for what is named, and for all by the name all", async () => {
  const asked: Asked = { requests: [], opened: [] };
  const given = { setRole: { kind: "answered", entries: [] } } as const;
  await runCommand(role, ["primary", "r0", "r1"], given, asked);
  await runCommand(role, ["init", "all"], given, asked);
  assert.deepEqual(asked.requests, [
    { role: "primary", names: ["r0", "r1"] },
    { role: "init", names: ["all"] },
  ]);
});

test("role says for each resource why not, and exits with the first error", async () => {
  const entries = [
    done("r0"),
    failed("r1", 2, "its disk /dev/sdb is in use.\nSee who uses it: lsblk /dev/sdb"),
    failed("r2", 1, null),
  ];
  const result = await runCommand(role, ["primary", "all"], {
    setRole: { kind: "answered", entries },
  });
  assert.deepEqual(result, {
    exitCode: 2,
    out: "",
    err:
      "[ERROR] [r1] its disk /dev/sdb is in use.\n" +
      "  See who uses it: lsblk /dev/sdb\n" +
      "[WARNING] [r2] Received error 1 from hastd.\n",
  });
});

test("role passes on what hastd has to say of a change that was made", async () => {
  const entries = [done("r0", ["The peer is away: writes are kept here only."])];
  const result = await runCommand(role, ["primary", "r0"], {
    setRole: { kind: "answered", entries },
  });
  assert.deepEqual(result, {
    exitCode: 0,
    out: "",
    err: "[WARNING] [r0] The peer is away: writes are kept here only.\n",
  });
});

test("role tells the change only when asked to with -d", async () => {
  const given = { setRole: { kind: "answered", entries: [done("r0")] } } as const;
  const { out } = await runCommand(role, ["-d", "primary", "r0"], given);
  assert.equal(out, "[DEBUG][1] [r0] Role changed from init to primary.\n");
});

test("role refuses unknown roles and missing names", () => {
  const none = new Map<string, string>();
  assert.equal(role.refuse([], none), "");
  assert.equal(role.refuse(["primary"], none), "name the resource to become primary, or all");
  assert.equal(role.refuse(["primary", "r0"], none), null);
  assert.equal(
    role.refuse(["master", "r0"], none),
    'there is no role "master"; roles are init, primary and secondary',
  );
});

test("role --wait takes seconds, and insists", async () => {
  const refusal = (seconds: string) => role.refuse(["init", "r0"], new Map([["--wait", seconds]]));
  assert.equal(refusal("0"), null);
  assert.equal(refusal("86400"), null);
  for (const wrong of ["", "-1", "1.5", "86401", "1s"]) {
    assert.match(refusal(wrong) ?? "", /is no time to wait: write seconds, from 0 to 86400$/);
  }
  const asked: Asked = { requests: [], opened: [] };
  const given = { setRole: { kind: "answered", entries: [failed("r0", 2, "no")] } } as const;
  const result = await runCommand(role, ["--wait", "2", "init", "r0"], given, asked);
  assert.deepEqual(result, { exitCode: 2, out: "", err: "[ERROR] [r0] no\n" });
  assert.equal(asked.requests.length, 3);
});

test("an error code that would clash with our own exit codes becomes 70", async () => {
  for (const error of [64, 255, 256, -1]) {
    const given = { setRole: { kind: "answered", entries: [failed("r0", error, "x")] } } as const;
    assert.equal((await runCommand(role, ["init", "r0"], given)).exitCode, 70);
  }
});

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Asked, runCommand } from "../../test/cli/surroundings.ts";
import { golden, goldenPaths } from "../../test/golden/vectors.ts";
import { decodeStatusReply, type StatusEntry } from "../wire/control.ts";
import { FRAME_HEADER_SIZE } from "../wire/frame.ts";
import { status } from "./status.ts";

const INIT = {
  provname: "r0",
  localpath: "/dev/sdb",
  remoteaddr: "none",
  sourceaddr: null,
  replication: "memsync",
  checksum: "none",
  compression: "hole",
  role: "init",
  workerpid: 0,
  worker: null,
} as const;

function entry(resource: string, notes: readonly string[] = []): StatusEntry {
  return { resource, outcome: { kind: "known", status: INIT }, errmsg: null, notes };
}

test("status prints every captured answer as the original does, with its exit code", async () => {
  const exits = new Map(
    (
      JSON.parse(new TextDecoder().decode(golden("control/decoded.json"))) as {
        name: string;
        exit: number;
      }[]
    ).map((exchange) => [exchange.name, exchange.exit]),
  );
  for (const path of goldenPaths("control/*-status-*.rep.bin")) {
    const { entries } = decodeStatusReply(golden(path).subarray(FRAME_HEADER_SIZE));
    const { exitCode, out, err } = await runCommand(status, [], {
      status: { kind: "answered", entries },
    });
    assert.equal(out, new TextDecoder().decode(golden(path.replace(".rep.bin", ".stdout.txt"))));
    assert.equal(exitCode, exits.get(path.replace(".rep.bin", "")), path);
    assert.equal(err, "");
  }
});

test("status asks for all, or for what is named", async () => {
  const asked: Asked = { requests: [], opened: [] };
  const given = { status: { kind: "answered", entries: [] } } as const;
  await runCommand(status, [], given, asked);
  await runCommand(status, ["r0", "-d", "r1"], given, asked);
  assert.deepEqual(asked.requests, [{ names: ["all"] }, { names: ["r0", "r1"] }]);
});

test("status prints nothing where no resource is configured", async () => {
  const { exitCode, out } = await runCommand(status, [], {
    status: { kind: "answered", entries: [] },
  });
  assert.equal(exitCode, 0);
  assert.equal(out, "");
});

test("status prints what we have to say after the whole table, indented by two spaces", async () => {
  const failed: StatusEntry = {
    resource: "r1",
    outcome: { kind: "failed", error: 1 },
    errmsg: "There is no resource r1.",
    notes: ["Look into hast.conf."],
  };
  const entries = [entry("r0", ["one", "two"]), failed, entry("r2")];
  const { exitCode, out } = await runCommand(status, [], { status: { kind: "answered", entries } });
  assert.equal(exitCode, 1);
  assert.deepEqual(out.split("\n"), [
    "Name\tStatus\t Role\t\tComponents",
    "r0\t-        init           /dev/sdb\tnone",
    "r1\tERR1",
    "r2\t-        init           /dev/sdb\tnone",
    "  r0: one",
    "  r0: two",
    "  r1: There is no resource r1.",
    "  r1: Look into hast.conf.",
    "",
  ]);
});

test("status says why hastd did not answer, with the code for it", async () => {
  const lines = ["Unable to connect.", "Start it:"];
  const given = { status: { kind: "failed", lines, exitCode: 71 } } as const;
  assert.deepEqual(await runCommand(status, [], given), {
    exitCode: 71,
    out: "",
    err: "[ERROR] Unable to connect.\n  Start it:\n",
  });
});

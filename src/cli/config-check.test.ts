// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { runAtDesk } from "../../test/cli/desk.ts";
import { readConfig } from "../config/config.ts";
import { configCheck } from "./config-check.ts";

const GOOD = `
timeout 7
resource r0 {
  on alpha { local /disk/a remote 10.0.0.2 }
  on beta { local /disk/b remote 10.0.0.1 }
}
on beta { listen 10.0.0.1 }
`;

function configOf(text: string, node: string) {
  return readConfig(text, "f", { names: [node], uuid: null, hostid: null });
}

test("a good file is printed in full, once for each node it names", async () => {
  const { out, err, exitCode } = await runAtDesk(configCheck, ["f"], { files: { f: GOOD } });
  assert.deepEqual({ err, exitCode }, { err: "", exitCode: 0 });
  assert.match(out, /^# f is good for: alpha, beta\. What it says in full:\n\n# On alpha:\n/);
  const [, alpha, beta] = out.split(/^# On .*:\n/m);
  for (const [node, printed] of [
    ["alpha", alpha],
    ["beta", beta],
  ] as const) {
    const [given, again] = [configOf(GOOD, node), configOf(printed!, node)];
    assert.equal(given.kind, "config");
    assert.equal(again.kind, "config");
    if (given.kind !== "config" || again.kind !== "config") continue;
    assert.deepEqual(again.config, { ...given.config, listenByDefault: false });
  }
  assert.match(alpha!, /^ {4}timeout 7$/m);
  assert.match(alpha!, /^ {4}replication memsync$/m);
  assert.match(beta!, /^listen 10\.0\.0\.1$/m);
});

test("without a file it is that of -c, which is /etc/hast.conf unless given", async () => {
  const files = { "/etc/hast.conf": GOOD, other: "" };
  assert.match((await runAtDesk(configCheck, [], { files })).out, /^# \/etc\/hast\.conf is good/);
  assert.match((await runAtDesk(configCheck, ["-c", "other"], { files })).out, /^# other is good/);
});

test("-n asks for one node, whether or not the file names it", async () => {
  const { out } = await runAtDesk(configCheck, ["f", "-n", "beta"], { files: { f: GOOD } });
  assert.match(out, /good for: beta\./);
  assert.doesNotMatch(out, /On alpha/);
  const { err, exitCode } = await runAtDesk(configCheck, ["f", "-n", "gamma"], {
    files: { f: GOOD },
  });
  assert.equal(exitCode, 78);
  assert.match(
    err,
    /^\[ERROR\] f:3:10: resource r0 has no section for this node;.*\(as gamma reads it\)\n$/,
  );
});

test("a mistake that any node sees is told once, with file, line and column; nothing is printed", async () => {
  const text = `${GOOD}timeout never\n`;
  const { out, err, exitCode } = await runAtDesk(configCheck, ["f"], { files: { f: text } });
  assert.deepEqual({ out, exitCode }, { out: "", exitCode: 78 });
  assert.match(err, /^\[ERROR\] f:8:9: "timeout" is a number of seconds .*\n$/);
});

test("a mistake that only the other node sees is found here", async () => {
  const text = "resource r0 { on alpha { local /a remote none } on beta { remote none } }";
  const { out, err, exitCode } = await runAtDesk(configCheck, ["f"], { files: { f: text } });
  assert.deepEqual({ out, exitCode }, { out: "", exitCode: 78 });
  assert.match(
    err,
    /^\[ERROR\] f:1:5\d: resource r0 has no local component.*\(as beta reads it\)\n$/,
  );
});

test("an empty file is good for this node", async () => {
  const { out, exitCode } = await runAtDesk(configCheck, ["f"], { files: { f: "" } });
  assert.equal(exitCode, 0);
  assert.match(out, /^# f is good for: alpha\./);
});

test("a file that is not there exits 72", async () => {
  const { err, exitCode } = await runAtDesk(configCheck, ["f"], {});
  assert.equal(exitCode, 72);
  assert.match(
    err,
    /^\[ERROR\] Unable to open configuration file f: no such file or directory\.\n/,
  );
});

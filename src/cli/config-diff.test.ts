// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { runAtDesk, statusOf } from "../../test/cli/desk.ts";
import { readConfig } from "../config/config.ts";
import { formatConfig, NODE_IN_USE } from "../config/format.ts";
import { configDiff } from "./config-diff.ts";

function fileOf(...resources: readonly string[]): string {
  return resources
    .map((each) => {
      const [name, ...statements] = each.split(" ");
      return `resource ${name} { local /disk/${name} remote 10.0.0.2 ${statements.join(" ")} on alpha { } }\n`;
    })
    .join("");
}

/** As hastd writes out what it uses. */
function inUse(text: string): string {
  const alpha = { names: ["alpha"], uuid: null, hostid: null };
  const result = readConfig(text, "hast.conf", alpha);
  assert.equal(result.kind, "config");
  return formatConfig(result.config, NODE_IN_USE);
}

test("the file in use says nothing new", async () => {
  const file = fileOf("r0");
  const { out, err, exitCode } = await runAtDesk(configDiff, [], {
    files: { "/etc/hast.conf": file },
    inUse: inUse(file),
    status: [statusOf("r0")],
  });
  assert.deepEqual(
    { out, err, exitCode },
    { out: "Nothing would change.\n", err: "", exitCode: 0 },
  );
});

test("against all that hastd uses, by the role each resource has (behaviour §12)", async () => {
  const to = fileOf(
    "r0 checksum crc32 exec /bin/new",
    "r1 checksum crc32",
    "r2 name disk",
    "r3",
    "r5 timeout 5",
  );
  const { out, err, exitCode } = await runAtDesk(configDiff, [], {
    files: { "/etc/hast.conf": `pidfile /run/new\n${to}` },
    inUse: inUse(fileOf("r0", "r1", "r2 replication async", "r4", "r5")),
    status: [
      statusOf("r0", { role: "primary" }),
      statusOf("r1", { role: "secondary" }),
      statusOf("r2", { role: "primary" }),
      statusOf("r4", { role: "primary" }),
      statusOf("r5", { role: "init" }),
    ],
  });
  assert.deepEqual({ err, exitCode }, { err: "", exitCode: 0 });
  assert.equal(
    out,
    [
      "hastd: pidfile: /var/run/hastd.pid -> /run/new",
      "r4: removed; its role is primary",
      "r0: changed live; its role is primary",
      "  checksum: none -> crc32",
      "  exec: none -> /bin/new",
      "r1: restarted, back to role secondary",
      "  checksum: none -> crc32",
      "r2: restarted, back to role primary",
      "  its disk disappears and comes back",
      "  name: r2 -> disk",
      "  export: unix:///run/hast/r2.sock -> unix:///run/hast/disk.sock",
      "  replication: async -> memsync",
      "r3: added, in role init",
      "r5: restarted, back to role init: nothing runs",
      "  timeout: 20 -> 5",
      "",
    ].join("\n"),
  );
});

test("with --from every setting is compared, and hastd asked for the roles alone", async () => {
  const files = {
    old: `control /run/old\n${fileOf("r0", "r1")}`,
    new: `control /run/new\n${fileOf("r0 timeout 5", "r1 timeout 5")}`,
  };
  const asked: string[] = [];
  const { out, err } = await runAtDesk(
    configDiff,
    ["--from", "old", "new"],
    {
      files,
      status: [statusOf("r0", { checksum: "sha256" }), statusOf("r1", { role: "secondary" })],
    },
    asked,
  );
  assert.deepEqual(asked, ["/run/old"]);
  assert.equal(err, "");
  assert.equal(
    out,
    [
      "hastd: control: /run/old -> /run/new",
      "r0: changed live; its role is primary",
      "  timeout: 20 -> 5",
      "r1: restarted, back to role secondary",
      "  timeout: 20 -> 5",
      "",
    ].join("\n"),
  );
});

test("with --from, nothing is nothing", async () => {
  const files = { old: fileOf("r0"), new: fileOf("r0") };
  const { out } = await runAtDesk(configDiff, ["--from", "old", "new"], { files });
  assert.equal(out, "Nothing would change.\n");
});

test("with --from and no hastd, both answers are given", async () => {
  const files = { old: fileOf("r0", "r1"), new: fileOf("r0 timeout 5", "r1 device nbd timeout 5") };
  const { out, exitCode } = await runAtDesk(configDiff, ["--from", "old", "new"], { files });
  assert.equal(exitCode, 0);
  assert.equal(
    out,
    [
      "r0: changed live if it is primary, else restarted",
      "  timeout: 20 -> 5",
      "r1: restarted, whatever its role",
      "  timeout: 20 -> 5",
      "  device: auto -> nbd",
      "",
    ].join("\n"),
  );
});

test("without hastd and --from, the way with two files is named", async () => {
  const { out, err, exitCode } = await runAtDesk(configDiff, ["new"], {
    files: { "/etc/hast.conf": "", new: "" },
  });
  assert.deepEqual({ out, exitCode }, { out: "", exitCode: 71 });
  assert.match(
    err,
    /^\[ERROR\] No hastd answers\.\n.*\n +hastctl config diff --from OLDFILE new\n$/,
  );
});

test("hastd is looked for where the file in use says, not the new one", async () => {
  const asked: string[] = [];
  const files = { "/etc/hast.conf": "control /run/now", new: "control /run/later" };
  await runAtDesk(configDiff, ["new"], { files, status: [] }, asked);
  assert.deepEqual(asked, ["/run/now", "/run/now"]);
});

test("a wrong file would be refused by a reload, and is here", async () => {
  const { out, err, exitCode } = await runAtDesk(configDiff, ["new"], { files: { new: "bogus" } });
  assert.deepEqual({ out, exitCode }, { out: "", exitCode: 78 });
  assert.match(err, /^\[ERROR\] new:1:1: unknown statement/);
});

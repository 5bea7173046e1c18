// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { failoverFiles, type Pair, type Service } from "./pair-files.ts";

const PAIR: Pair = {
  nodes: [
    { name: "alpha", address: "192.168.0.1" },
    { name: "beta", address: "192.168.0.2" },
  ],
  resources: [
    { name: "r0", locals: ["/a", "/b"], size: null },
    { name: "r1", locals: ["/c", "/d"], size: null },
  ],
};
const SERVICE: Service = { address: "10.0.0.77", prefix: 24, interface: "eth0" };

function filesOf(service: Service, directory = "/etc/hast-failover"): Map<string, string> {
  const where = { directory, configPath: "/etc/hast.conf", password: "secret" };
  return new Map(
    failoverFiles(PAIR, service, where).map((file) => [path.basename(file.path), file.text]),
  );
}

test("keepalived: the first node is preferred, nobody takes the address back, roles follow", () => {
  const files = filesOf(SERVICE);
  const alpha = files.get("keepalived-alpha.conf")!;
  const beta = files.get("keepalived-beta.conf")!;
  assert.match(alpha, /priority 150/);
  assert.equal(alpha.replace("priority 150", "priority 100"), beta);
  for (const line of [
    "state BACKUP",
    "nopreempt",
    "interface eth0",
    "virtual_router_id 77",
    "10.0.0.77/24",
    'notify_master "/etc/hast-failover/hast-switch primary"',
    'notify_backup "/etc/hast-failover/hast-switch secondary"',
    'notify_fault "/etc/hast-failover/hast-switch secondary"',
  ]) {
    assert.ok(alpha.includes(`    ${line}\n`), line);
  }
});

test("ucarp: the same address and preference, and the password is in no command line", () => {
  const files = filesOf(SERVICE);
  assert.match(files.get("ucarp-alpha.service")!, /^ExecStart=.*\/ucarp-start 0$/m);
  assert.match(files.get("ucarp-beta.service")!, /^ExecStart=.*\/ucarp-start 100$/m);
  const start = files.get("ucarp-start")!;
  assert.match(start, /--addr=10\.0\.0\.77 \\\n {2}--vhid=77 --advskew="\$1" --passfile=/);
  assert.doesNotMatch(start, /secret|--preempt (?!\.)/);
  assert.match(files.get("ucarp-up")!, /hast-switch primary\n$/);
  assert.match(files.get("ucarp-down")!, /hast-switch secondary\n$/);
});

test("an IPv6 service address is keepalived's only: ucarp has no IPv6", () => {
  const names = [...filesOf({ ...SERVICE, address: "fd00::" }).keys()];
  assert.deepEqual(names, ["hast-switch", "keepalived-alpha.conf", "keepalived-beta.conf"]);
  // A last byte of 0 is no router id.
  assert.match(filesOf({ ...SERVICE, address: "fd00::" }).get("keepalived-beta.conf")!, /_id 1\n/);
});

test("every script is one for sh", () => {
  for (const [name, text] of filesOf(SERVICE)) {
    if (!text.startsWith("#!")) continue;
    const { status, stderr } = spawnSync("sh", ["-n"], { input: text, encoding: "utf8" });
    assert.equal(status, 0, `${name}: ${stderr}`);
  }
});

/** hast-switch in a folder of its own, with a hastctl, a logger and a sleep that write down their words. */
function switchSite(t: TestContext, hastctl: string) {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "hast-switch-"));
  t.after(() => fs.rmSync(root, { recursive: true }));
  const program = (name: string, text: string): void =>
    fs.writeFileSync(`${root}/${name}`, `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  const note = (name: string): string => `echo "${name} $*" >>${root}/notes`;
  program("hastctl", `${note("hastctl")}\n${hastctl.replaceAll("ROOT", root)}`);
  program("logger", note("logger"));
  program("sleep", ":");
  fs.writeFileSync(`${root}/hast-switch`, filesOf(SERVICE, root).get("hast-switch")!, {
    mode: 0o755,
  });
  return {
    program: (name: string) => program(name, note(name)),
    run: (role: string) => {
      const env = { PATH: `${root}:${process.env["PATH"]}`, HAST_SWITCH_STATE: `${root}/state` };
      return spawnSync(`${root}/hast-switch`, [role], { env }).status;
    },
    notes: () => fs.readFileSync(`${root}/notes`, "utf8").trimEnd().split("\n"),
  };
}

test("hast-switch gives all resources the role at once, with the configuration it was made for", (t) => {
  const site = switchSite(t, "exit 0");
  assert.equal(site.run("primary"), 0);
  assert.deepEqual(site.notes(), [
    "hastctl role -c /etc/hast.conf primary r0 r1",
    "logger -t hast-switch -p daemon.notice role primary: r0 r1",
  ]);
});

test("hast-switch runs the operator's programs, before secondary and after primary", (t) => {
  const site = switchSite(t, "exit 0");
  site.program("before-secondary");
  site.program("after-primary");
  assert.equal(site.run("secondary"), 0);
  assert.equal(site.run("primary"), 0);
  assert.deepEqual(
    site.notes().map((line) => line.split(" ")[0]),
    ["before-secondary", "hastctl", "logger", "hastctl", "logger", "after-primary"],
  );
});

test("hast-switch asks again while the role is refused, never with force, and says what failed", (t) => {
  const site = switchSite(t, "echo 'the peer is primary' >&2; exit 1");
  site.program("after-primary");
  assert.equal(site.run("primary"), 1);
  const notes = site.notes();
  assert.equal(notes.length, 61);
  assert.equal(new Set(notes.slice(0, 60)).size, 1);
  assert.equal(
    notes.at(-1),
    "logger -t hast-switch -p daemon.err no role primary: the peer is primary",
  );
});

test("hast-switch gives up when it has been called for another role since", (t) => {
  const site = switchSite(t, "echo secondary >ROOT/state; exit 1");
  assert.equal(site.run("primary"), 1);
  assert.equal(site.notes().length, 2);
});

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { contrib } from "../../test/cli/contrib.ts";
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
    failoverFiles(PAIR, service, where, contrib).map((file) => [
      path.basename(file.path),
      file.text,
    ]),
  );
}

test("keepalived: the first node is preferred, nobody takes the address back, roles follow", () => {
  const files = filesOf(SERVICE, "/srv/hast-failover");
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
    'notify_master "/srv/hast-failover/failover master"',
    'notify_backup "/srv/hast-failover/failover slave"',
    'notify_fault "/srv/hast-failover/failover slave"',
  ]) {
    assert.ok(alpha.includes(`    ${line}\n`), line);
  }
});

test("ucarp: the same address and preference, and the password is in no command line", () => {
  const files = filesOf(SERVICE);
  assert.match(files.get("ucarp-alpha.service")!, /^ExecStart=.*\/ucarp-start 0$/m);
  assert.match(files.get("ucarp-beta.service")!, /^ExecStart=.*\/ucarp-start 100$/m);
  assert.equal(
    files.get("ucarp.conf")!.replace(/^#.*\n/gm, ""),
    "interface=eth0\naddress=10.0.0.77\nprefix=24\nvhid=77\n",
  );
  const start = files.get("ucarp-start")!;
  assert.match(start, /--passfile=/);
  assert.doesNotMatch(start, /secret|--preempt (?!\.)|--pass=/);
});

test("an IPv6 service address is keepalived's only: ucarp has no IPv6", () => {
  const names = [...filesOf({ ...SERVICE, address: "fd00::" }).keys()];
  assert.deepEqual(names, [
    "failover",
    "failover.conf",
    "keepalived-alpha.conf",
    "keepalived-beta.conf",
  ]);
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

/** failover in a folder of its own, with a hastctl and a logger that write down their words. */
function failoverSite(t: TestContext, hastctl: string) {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "hast-failover-"));
  t.after(() => fs.rmSync(root, { recursive: true }));
  const program = (name: string, text: string): void =>
    fs.writeFileSync(`${root}/${name}`, `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  const note = (name: string): string => `echo "${name} $*" >>${root}/notes`;
  program("hastctl", `${note("hastctl")}\n${hastctl.replaceAll("ROOT", root)}`);
  program("logger", note("logger"));
  // Time passes, to `date` as well.
  program("sleep", `echo >>${root}/seconds`);
  program("date", `echo $(($(cat ${root}/seconds | wc -l) + 1000))`);
  fs.writeFileSync(`${root}/seconds`, "");
  const files = filesOf(SERVICE, root);
  program("failover", files.get("failover")!.replace(/^#!.*\n/, ""));
  fs.writeFileSync(`${root}/failover.conf`, files.get("failover.conf")!);
  const run = (order: string) => {
    const env = { PATH: `${root}:${process.env["PATH"]}`, FAILOVER_RUN: `${root}/run` };
    return spawnSync(`${root}/failover`, [order], { env, timeout: 30_000 }).status;
  };
  return {
    root,
    run,
    program: (name: string) => program(name, note(name)),
    notes: () => fs.readFileSync(`${root}/notes`, "utf8").trimEnd().split("\n"),
    asked: () =>
      fs
        .readFileSync(`${root}/notes`, "utf8")
        .split("\n")
        .filter((line) => !line.startsWith("logger") && line !== ""),
  };
}

const ASK = "hastctl role -c /etc/hast.conf";

test("failover gives all resources the role at once, and runs the operator's programs", (t) => {
  const site = failoverSite(t, "exit 0");
  site.program("before-secondary");
  site.program("after-primary");
  assert.equal(site.run("slave"), 0);
  assert.equal(site.run("master"), 0);
  // What the programs print, or note, is theirs; the order is what counts.
  assert.deepEqual(site.asked(), [
    "before-secondary ",
    `${ASK} --wait 10 secondary r0 r1`,
    `${ASK} --wait 2 primary r0 r1`,
    "after-primary ",
  ]);
});

test("failover asks again while the role is refused, never with force, and lets go of what it got", (t) => {
  const site = failoverSite(t, "echo 'the peer is primary' >&2; exit 2");
  site.program("after-primary");
  assert.equal(site.run("master"), 1);
  const asked = site.asked();
  assert.equal(asked.length, 32);
  assert.deepEqual(
    [...new Set(asked)],
    [`${ASK} --wait 2 primary r0 r1`, `${ASK} secondary r0 r1`],
  );
  assert.match(site.notes().at(-2)!, /Unable to change role to primary: the peer is primary$/);
  assert.ok(fs.existsSync(`${site.root}/run/failed`));
});

test("failover gives up when it has been called for another role since", (t) => {
  const site = failoverSite(t, "echo slave >ROOT/run/order; exit 2");
  assert.equal(site.run("master"), 1);
  assert.equal(site.asked().length, 2);
});

test("failover slave takes the device away where asking does not help, and only then", (t) => {
  const site = failoverSite(t, 'case "$*" in *--force*) exit 0 ;; *) exit 2 ;; esac');
  assert.equal(site.run("slave"), 0);
  assert.deepEqual(site.asked(), [
    `${ASK} --wait 10 secondary r0 r1`,
    `${ASK} --force secondary r0 r1`,
  ]);
});

test("failover check is failover-check's verdict, with its code", (t) => {
  const site = failoverSite(t, "exit 1");
  assert.equal(site.run("check"), 1);
  assert.deepEqual(site.asked(), ["hastctl failover-check -c /etc/hast.conf r0 r1"]);
});

test("failover check says no where none of those answers who should, and asks no further where one does", (t) => {
  const site = failoverSite(t, "exit 0");
  fs.appendFileSync(`${site.root}/failover.conf`, 'ping="10.0.0.1 10.0.0.2"\n');
  const answers = (address: string): void =>
    fs.writeFileSync(
      `${site.root}/ping`,
      `#!/bin/sh\ncase "$*" in *${address}) ;; *) exit 1 ;; esac`,
      {
        mode: 0o755,
      },
    );
  answers("10.0.0.3");
  assert.equal(site.run("check"), 1);
  assert.ok(!fs.existsSync(`${site.root}/notes`));
  answers("10.0.0.2");
  assert.equal(site.run("check"), 0);
  assert.deepEqual(site.asked(), ["hastctl failover-check -c /etc/hast.conf r0 r1"]);
});

test("failover start and stop carry the address and touch no role; start does it once", (t) => {
  const site = failoverSite(t, "exit 0");
  for (const name of ["ip", "arping", "before-secondary", "after-primary"]) site.program(name);
  for (const order of ["start", "start", "stop", "start"]) assert.equal(site.run(order), 0, order);
  const { address, prefix, interface: card } = SERVICE;
  const start = [
    `ip -o address show dev ${card}`,
    `ip address add ${address}/${prefix} dev ${card}`,
    "after-primary ",
  ];
  // The word to the neighbours goes out beside the rest.
  const asked = site.asked().filter((line) => !line.startsWith("arping "));
  assert.deepEqual(asked, [
    ...start,
    `ip address del ${address}/${prefix} dev ${card}`,
    "before-secondary ",
    ...start,
  ]);
});

test("failover start that cannot have the address starts nothing, and says why", (t) => {
  const site = failoverSite(t, "exit 0");
  fs.writeFileSync(`${site.root}/ip`, "#!/bin/sh\necho 'no such card' >&2\nexit 1\n", {
    mode: 0o755,
  });
  site.program("after-primary");
  assert.equal(site.run("start"), 1);
  assert.deepEqual(site.asked(), []);
  assert.match(site.notes().at(-1)!, /Not started: no such card$/);
});

// SPDX-License-Identifier: BSD-2-Clause
/** hastctl and hastd as an operator and a script see them: outputs, exit codes, titles, signals. */

import { strict as assert } from "node:assert";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { runCommand } from "./command.ts";
import { signal } from "./marked-processes.ts";
import { bytesOf, RESOURCE, TwoNodes, withPair } from "./two-nodes.ts";
import { until } from "./until.ts";

const BIN = join(import.meta.dirname, "..", "..", "bin");

test("status and list print the original's bytes, in every role", () =>
  withPair(TwoNodes.start({ replication: "fullsync" }), async (pair) => {
    const { alpha, beta } = pair;
    const header = "Name\tStatus\t Role\t\tComponents\n";
    const components = `${alpha.local}\ttcp4://${beta.place.host}:${beta.place.port}\n`;
    const idle = `${RESOURCE}:
  role: ROLE
  provname: ${RESOURCE}
  localpath: ${alpha.local}
  extentsize: 0 (0B)
  keepdirty: 0
  remoteaddr: tcp4://${beta.place.host}:${beta.place.port}
  sourceaddr: tcp4://${alpha.place.host}
  replication: fullsync
  dirty: 0 (0B)
  statistics:
    reads: 0
    writes: 0
    deletes: 0
    flushes: 0
    activemap updates: 0
    local errors: read: 0, write: 0, delete: 0, flush: 0
    queues: local: 0, send: 0, recv: 0, done: 0, idle: 0
`;
    const list = async (): Promise<string> => (await alpha.hastctl("list", RESOURCE)).stdout;
    /** The original's lines, then ours, by name. */
    const listsIdle = async (role: string, ...ours: readonly string[]): Promise<void> => {
      const listed = await list();
      const original = idle.replace("ROLE", role);
      assert.equal(listed.slice(0, original.length), original);
      const names = [...listed.slice(original.length).matchAll(/^ {2}(\w+): .+\n/gm)];
      assert.deepEqual(
        names.map(([, name]) => name),
        ours,
      );
    };

    assert.equal(
      await alpha.status(),
      `${header}${RESOURCE}\t-        init           ${components}`,
    );
    await listsIdle("init", "resyncrate", "transport");

    await alpha.role("secondary");
    assert.equal(
      await alpha.status(),
      `${header}${RESOURCE}\t-        secondary      ${components}`,
    );
    await listsIdle("secondary", "copy", "resyncrate", "transport");

    await alpha.role("init");
    await beta.role("secondary");
    await alpha.role("primary");
    await pair.inSync(alpha);
    const table = `${header}${RESOURCE}\tcomplete primary        ${components}`;
    const status = await alpha.status();
    assert.ok(status.startsWith(table), status);
    for (const line of status.slice(table.length).split("\n").slice(0, -1)) {
      assert.match(line, /^ {2}\S/, "our own lines come after the table, indented");
    }
    const primary = (await list()).split("\n");
    const upToPid = primary.slice(0, 11);
    const pid = await alpha.workerPid();
    assert.deepEqual(upToPid, [
      ...idle.replace("ROLE", "primary").split("\n").slice(0, 4),
      "  extentsize: 2097152 (2.0MB)",
      "  keepdirty: 64",
      ...idle.split("\n").slice(6, 9),
      "  status: complete",
      `  workerpid: ${pid}`,
    ]);
    assert.equal(primary[11], "  dirty: 0 (0B)");
    assert.equal(primary[12], "  statistics:");
    assert.match(primary[19]!, /^ {4}queues: local: 0, send: 0, recv: 0, done: 0, idle: \d+$/);

    await beta.crash();
    await until("alpha is degraded", async () =>
      (await alpha.status()).startsWith(
        `${header}${RESOURCE}\tdegraded primary        ${components}`,
      ),
    );
  }));

test("an unknown resource is ERR1 in the table and exit code 1, and the others are still shown", () =>
  withPair(TwoNodes.start(), async ({ alpha }) => {
    const mixed = await alpha.hastctl("status", RESOURCE, "nope");
    assert.equal(mixed.code, 1);
    assert.match(mixed.stdout, new RegExp(`^Name\t.*\n${RESOURCE}\t-.*\nnope\tERR1\n`));
    const listed = await alpha.hastctl("list", "nope");
    assert.equal(listed.code, 1);
    assert.match(listed.stdout, /^nope:\n {2}error: 1\n/);
    const role = await alpha.hastctl("role", "primary", "nope");
    assert.equal(role.code, 1);
    assert.equal(role.stdout, "");
    assert.match(role.stderr, /nope/);
  }));

test("wrong usage exits 64 and prints the usage to standard error", () =>
  withPair(TwoNodes.prepare(), async ({ alpha }) => {
    const wrong: readonly (readonly [string, ...string[]])[] = [
      ["frobnicate"],
      ["role"],
      ["role", "master", RESOURCE],
      ["role", "primary"],
      ["create"],
      ["create", "-e", "many", RESOURCE],
      ["status", "--nonsense"],
      ["status", "-h"],
    ];
    for (const [command, ...args] of wrong) {
      const { code, stdout, stderr } = await alpha.hastctl(command, ...args);
      assert.equal(code, 64, `${command} ${args.join(" ")}: ${stderr}`);
      assert.equal(stdout, "");
      assert.match(stderr, /usage|number/i, `${command} ${args.join(" ")}`);
    }
    const daemon = await runCommand(join(BIN, "hastd"), ["-Z"]);
    assert.equal(daemon.code, 64);
    assert.match(daemon.stderr, /usage/);
  }));

test("--version names the program and its version", async () => {
  const manifest = join(BIN, "..", "package.json");
  const { version } = JSON.parse(readFileSync(manifest, "utf8")) as { version: string };
  for (const program of ["hastd", "hastctl"]) {
    const { code, stdout } = await runCommand(join(BIN, program), ["--version"]);
    assert.equal(code, 0);
    assert.match(stdout, new RegExp(`${program}.*${version.replaceAll(".", "\\.")}`));
  }
});

test("without a daemon the commands that need one exit 71, with what to do", () =>
  withPair(TwoNodes.prepare(), async ({ alpha }) => {
    for (const command of ["status", "list"]) {
      const { code, stderr } = await alpha.hastctl(command);
      assert.equal(code, 71);
      assert.match(stderr, /hastd/);
      assert.match(stderr, new RegExp(alpha.control));
    }
  }));

test("dump prints what create wrote, and exits 255 where there is no metadata", () =>
  withPair(TwoNodes.prepare(), async ({ alpha, beta }) => {
    await alpha.create("-e", "1m", "-k", "32");
    const { code, stdout } = await alpha.hastctl("dump", RESOURCE);
    assert.equal(code, 0);
    const shape = new RegExp(
      [
        `^resource: ${RESOURCE}`,
        "    datasize: \\d+ \\(\\d+MB\\)",
        "    extentsize: 1048576 \\(1\\.0MB\\)",
        "    keepdirty: 32",
        "    localoff: \\d+",
        "    resuid: 0",
        "    localcnt: 0",
        "    remotecnt: 0",
        "    prevrole: init",
      ].join("\n"),
    );
    assert.match(stdout, shape);
    const dump = await alpha.dump();
    assert.ok(
      bytesOf(dump.get("datasize")) + bytesOf(dump.get("localoff")) <= 64 * 1024 * 1024,
      stdout,
    );
    const nothing = await beta.hastctl("dump", RESOURCE);
    assert.equal(nothing.code, 255);
    assert.match(nothing.stderr, new RegExp(RESOURCE));
  }));

test("--datasize makes two disks of different size alike", () =>
  withPair(TwoNodes.prepare(), async ({ alpha, beta }) => {
    await alpha.create();
    const datasize = bytesOf((await alpha.dump()).get("datasize"));
    await beta.create("--datasize", String(datasize - 8 * 1024 * 1024));
    assert.equal(bytesOf((await beta.dump()).get("datasize")), datasize - 8 * 1024 * 1024);
  }));

test("processes carry the titles that failover scripts look for", () =>
  withPair(TwoNodes.startReplicating(), async ({ alpha, beta }) => {
    const primary = `hastd: ${RESOURCE} (primary)`;
    const secondary = `hastd: ${RESOURCE} (secondary)`;
    assert.ok(
      alpha.titles().some((title) => title.startsWith(primary)),
      String(alpha.titles()),
    );
    assert.ok(
      beta.titles().some((title) => title.startsWith(secondary)),
      String(beta.titles()),
    );
    const status = readFileSync(`/proc/${await alpha.workerPid()}/status`, "utf8");
    assert.match(status, new RegExp(`^PPid:\t${alpha.daemonPid}$`, "m"));
    await alpha.crash();
    await until("the secondary worker is gone, since the old primary is", () =>
      beta.titles().every((title) => !title.startsWith(secondary)),
    );
  }));

test("SIGTERM ends the daemon and its workers with exit code 0, and removes the control socket", () =>
  withPair(TwoNodes.startReplicating(), async ({ alpha, beta }) => {
    assert.equal(await alpha.stop(), 0);
    assert.equal(await beta.stop(), 0);
    assert.equal(existsSync(alpha.control), false);
    await alpha.start();
    await alpha.role("secondary");
  }));

test("asked for the role it has, a node says yes and keeps its worker", () =>
  withPair(TwoNodes.startReplicating(), async ({ alpha }) => {
    const before = await alpha.workerPid();
    await alpha.role("primary");
    assert.equal(await alpha.workerPid(), before);
  }));

test("SIGUSR1 does not open a debugger", () =>
  withPair(TwoNodes.startReplicating(), async ({ alpha }) => {
    const pid = await alpha.workerPid();
    for (const victim of [alpha.daemonPid, pid]) signal(victim, "SIGUSR1");
    await until(
      "both have had time to react and still work, or the worker was replaced",
      async () => (await alpha.list()).get("status") === "complete",
    );
    assert.doesNotMatch(alpha.logText(), /Debugger listening/);
  }));

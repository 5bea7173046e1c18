// SPDX-License-Identifier: BSD-2-Clause
/**
 * hast-failover.service under a real systemd, with a real etcd: what docs/failover/etcd.md promises of it. And the
 * programs by which docs/systemd.md has a failover tool start and stop units.
 */
import { strict as expect } from "node:assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Host } from "./hosts.ts";
import { recipe } from "./recipe.ts";
import {
  DIRECTORY,
  expectOrder,
  hasAddress,
  nothingBeneath,
  PROGRAMS,
  recordCount,
  type SystemdPair,
  seconds,
  show,
  withPair,
} from "./systemd-pair.ts";

const ETCD_PAGE = readFileSync(join(import.meta.dirname, "../../docs/failover/etcd.md"), "utf8");

/** The service is here, and writes. */
async function serves(host: Host): Promise<void> {
  const before = await recordCount(host);
  const more = async () => (await recordCount(host)) >= before + 10;
  await host.until("ten more records are written", more, { withinMs: 120_000 });
  expect.ok(await hasAddress(host));
  await host.expect("mountpoint", "-q", DIRECTORY);
}

/** Nothing of the group is here. */
async function hasLetGo(pair: SystemdPair, host: Host): Promise<void> {
  expect.equal(await pair.role(host), "secondary");
  expect.ok(!(await hasAddress(host)));
  expect.equal((await host.run(["mountpoint", "-q", DIRECTORY])).code, 32);
  expect.equal((await host.run(["test", "-e", "/run/service.pid"])).code, 1);
}

test("the agent's unit: what a killed agent leaves goes on, a stop and a shutdown give the group away in order", () =>
  withPair(
    async (pair) => {
      const { one, two } = pair;
      // Not every machine lets its root be more protected than it is; less, all do.
      const unit = "hast-failover.service";
      one.write(`/etc/systemd/system/${unit}.d/e2e.conf`, "[Service]\nOOMScoreAdjust=100\n");
      await pair.serveByAgent(PROGRAMS, `disk1:${DIRECTORY}`);
      await serves(one);
      const verify = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no"];
      const found = await one.run([...verify, unit]);
      expect.equal(`${found.stdout}${found.stderr}`, "");
      // As the page has it for a second group.
      const [copy] = /^sed 's\|sbin[\s\S]*?-b\.service$/m.exec(ETCD_PAGE) ?? [];
      await one.expect("sh", "-ec", copy ?? "false");
      await one.expect(...verify, "hast-failover-b.service");
      const second = await show(one, "hast-failover-b", "ExecStart");
      expect.match(second, /argv\[\]=\S+\/hast-failover -c \/etc\/hast-failover-b ;/);
      const analysis = ["systemd-analyze", "security", "--no-pager", unit];
      console.log(/Overall exposure level.*/.exec(await one.expect(...analysis))?.[0]);

      const agent = await show(one, "hast-failover", "MainPID");
      const service = (await one.expect("cat", "/run/service.pid")).trim();
      const score = (pid: string) => one.expect("cat", `/proc/${pid}/oom_score_adj`);
      expect.equal((await score(agent)).trim(), "100");
      expect.equal((await score(service)).trim(), "0");
      expect.match(await one.expect("cat", `/proc/${agent}/status`), /^Seccomp:\s2$/m);

      // As in an upgrade, by the command that the page tells.
      await one.expect("systemctl", "kill", "--kill-whom=main", "-s", "KILL", "hast-failover");
      const restarted = async () => (await show(one, "hast-failover", "NRestarts")) === "1";
      await one.until("the agent is restarted", restarted);
      const wentOn = /This node leads data since .*; going on with that/;
      const log = () => one.expect("journalctl", "-u", "hast-failover", "-o", "cat");
      await one.until("it goes on", async () => wentOn.test(await log()), { withinMs: 30_000 });
      expect.equal((await one.expect("cat", "/run/service.pid")).trim(), service);
      await serves(one);

      const stopped = await seconds(() => one.expect("systemctl", "stop", "hast-failover"));
      await hasLetGo(pair, one);
      const moved = await seconds(() => serves(two));
      expect.equal(await show(one, "hast-failover", "Result"), "success");
      expect.ok(stopped < 30, `${stopped} s`);
      console.log(`agent stopped in ${stopped.toFixed(1)} s; served ${moved.toFixed(1)} s later`);
      await one.expect("systemctl", "start", "hast-failover");
      await pair.inStep();

      await two.run(["systemctl", "--no-block", "poweroff"]);
      const took = await seconds(() => serves(one));
      await two.off({ withinMs: 240_000 });
      expectOrder(await pair.journal(two), [
        "Stopping hast-failover.service",
        "[disk1] (secondary) Role changed from primary to secondary",
        "Stopped hast-failover.service",
        "Stopping hastd.service",
      ]);
      expect.doesNotMatch(await pair.journal(two), /by force|forced|cannot be unmounted/);
      await nothingBeneath(pair, two);
      console.log(`power-off to ten records on the other node: ${took.toFixed(1)} s`);

      // It returns, and its agent with it.
      await pair.boot(two);
      await pair.inStep();
      await hasLetGo(pair, two);

      // hastd is restarted under the leader: in order, too.
      await one.expect("systemctl", "restart", "hastd");
      await serves(two);
      expect.doesNotMatch(await pair.journal(one), /by force|forced/);
      await pair.inStep();
      await hasLetGo(pair, one);
    },
    { etcd: true },
  ));

test("an agent whose hastd cannot start yet, has crashed, or hangs, and one with a wrong failover.conf", () =>
  withPair(
    async (pair) => {
      const { one, two } = pair;
      await pair.serveByAgent(PROGRAMS, `disk1:${DIRECTORY}`);

      // An address that is not there yet.
      await two.expect("systemctl", "stop", "hastd");
      expect.equal(await show(two, "hast-failover", "ActiveState"), "inactive");
      const listen = "listen 192.168.100.101\n";
      two.write("/etc/hast.conf", `${listen}${await two.expect("cat", "/etc/hast.conf")}`);
      const address = ["192.168.100.101/24", "dev", "hast0"];
      await two.expect("ip", "address", "del", ...address);
      expect.notEqual((await two.run(["systemctl", "start", "hastd"])).code, 0);
      await two.expect("ip", "address", "add", ...address);
      await pair.inStep();

      // Crashed: its devices are gone, and the other node takes over.
      const crash = await seconds(async () => {
        await one.expect("systemctl", "kill", "--kill-whom=main", "-s", "KILL", "hastd");
        await serves(two);
      });
      console.log(`hastd killed: ten records on the other node after ${crash.toFixed(1)} s`);
      await pair.inStep();
      await hasLetGo(pair, one);

      const conf = await one.expect("cat", "/etc/hast-failover/failover.conf");
      one.write("/etc/hast-failover/failover.conf", conf.replace(/^group=.*\n/m, ""));
      await one.run(["systemctl", "restart", "hast-failover"]);
      const failed = async () => (await show(one, "hast-failover", "ActiveState")) === "failed";
      await one.until("the agent has given up", failed);
      expect.equal(await show(one, "hast-failover", "ExecMainStatus"), "78");
      expect.match(
        await one.expect("journalctl", "-u", "hast-failover", "-o", "cat"),
        /failover\.conf: name the group of resources: group="data"/,
      );
      await serves(two);
    },
    { etcd: true },
  ));

/** The two programs of docs/systemd.md, as it shows them. */
function unitPrograms(): Record<string, string> {
  const text = recipe("../systemd.md", "With a failover tool");
  const parts = [...text.matchAll(/^# (\S+)\n((?:[^#].*\n)+)/gm)];
  expect.deepEqual(
    parts.map(([, name]) => name),
    ["after-primary", "before-secondary"],
  );
  return Object.fromEntries(parts.map(([, name, body]) => [name, body]));
}

for (const tool of ["keepalived", "hast-failover"]) {
  test(`${tool} starts and stops the units on a resource: a stop, a shutdown, a power cut`, () =>
    withPair(
      async (pair) => {
        const { one, two } = pair;
        const programs = unitPrograms();
        if (tool === "hast-failover") await pair.serveByAgent(programs, "");
        else {
          await pair.serve();
          await one.expect("systemctl", "stop", "hast-promote@disk1");
          for (const host of [one, two]) {
            await pair.installFailover(host);
            pair.install(host, programs);
            pair.want(host, "multi-user.target", "keepalived.service");
          }
          await one.expect("/etc/hast-failover/failover", "master");
          await one.expect("systemctl", "start", tool);
          await one.until("the address is here", () => hasAddress(one), { withinMs: 60_000 });
          await two.expect("systemctl", "start", tool);
        }
        const isFit = async (host: Host) => {
          const check = ["hastctl", "failover-check", "disk1"];
          const fit = async () => (await host.run(check)).code === 0;
          await host.until("it is fit", fit, { withinMs: 90_000 });
          if (tool === "hast-failover") await pair.inStep();
        };
        await pair.served(one);
        await isFit(two);

        await one.expect("systemctl", "stop", tool);
        for (const unit of ["hast-promote@disk1", "mnt-data.mount", "records"]) {
          expect.equal(await show(one, unit, "ActiveState"), "inactive", unit);
        }
        await pair.served(two);
        expect.ok(await hasAddress(two));
        await one.expect("systemctl", "start", tool);
        await isFit(one);

        await two.run(["systemctl", "--no-block", "poweroff"]);
        const off = await seconds(() => pair.served(one));
        await two.off({ withinMs: 240_000 });
        expectOrder(await pair.journal(two), [
          "Stopped records.service",
          "Unmounted mnt-data.mount",
          "[disk1] (secondary) Role changed from primary to secondary",
          "Stopping hastd.service",
        ]);
        expect.doesNotMatch(await pair.journal(two), /by force|forced/);

        await pair.boot(two);
        await isFit(two);
        const kept = await pair.records(one);
        await one.powerOff();
        const cut = await seconds(() => pair.served(two));
        const found = new Set(await pair.records(two));
        expect.deepEqual(
          kept.filter((each) => !found.has(each)),
          [],
        );
        console.log(
          `${tool} with units: power-off ${off.toFixed(1)} s, power cut ${cut.toFixed(1)} s, each to ten records`,
        );
      },
      { etcd: tool === "hast-failover" },
    ));
}

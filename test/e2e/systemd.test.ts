// SPDX-License-Identifier: BSD-2-Clause
/** contrib/systemd under a real systemd: what docs/systemd.md promises. */
import { strict as expect } from "node:assert";
import { globSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import { test } from "node:test";
import type { Host } from "./hosts.ts";
import {
  DIRECTORY,
  expectOrder,
  hasAddress,
  nothingBeneath,
  PROGRAMS,
  recordCount,
  seconds,
  show,
  withPair,
} from "./systemd-pair.ts";

/** No process is in uninterruptible sleep for long. */
async function nobodyHangs(host: Host): Promise<void> {
  const hanging = async () => /^D/m.test(await host.expect("ps", "-e", "-o", "stat="));
  await host.until("nobody waits in the kernel", async () => !(await hanging()));
}

/** What the kernel calls the file of a loop device that is there now; unlike its number, nobody else's ever. */
async function backingFile(host: Host): Promise<string> {
  const node = (await host.expect("readlink", "/dev/hast/disk1")).trim();
  const text = await host.expect("cat", node.replace("/dev/", "/sys/block/").concat(SYS_FILE));
  return basename(text.trim());
}

async function isReleased(host: Host, file: string): Promise<void> {
  const files = () => globSync(`/sys/block/loop*${SYS_FILE}`).map(textOrNothing);
  await host.until(
    `no loop device has ${file}`,
    () => !files().some((text) => text.includes(file)),
  );
}

const SYS_FILE = "/loop/backing_file";

/** It may go while we look. */
function textOrNothing(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (!["ENOENT", "ENXIO"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
    return "";
  }
}

test("systemd finds no fault with the units, starts hastd and knows how it is", () =>
  withPair(async (pair) => {
    const { one } = pair;
    await pair.installFailover(one);
    const units = ["hastd.service", "hast-promote@disk1.service", "hast-services@disk1.target"];
    units.push("mnt-data.mount", "records.service", "ucarp.service", "keepalived.service");
    for (const unit of units) {
      const { code, stdout, stderr } = await one.run([
        ...["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit],
      ]);
      expect.equal(`${stdout}${stderr}`, "", unit);
      expect.equal(code, 0, unit);
    }
    const security = await one.expect("systemd-analyze", "security", "--no-pager", "hastd.service");
    console.log(/Overall exposure level.*/.exec(security)?.[0]);

    // Type=notify: what was started after it found it answering.
    expect.equal(await show(one, "probe.service", "Result"), "success");
    expect.equal(await show(one, "hastd", "StatusText"), "init: disk1 spare");
    const pid = await show(one, "hastd", "MainPID");
    const status = await one.expect("cat", `/proc/${pid}/status`);
    expect.match(status, /^Seccomp:\s2$/m);
    expect.match(status, /^NoNewPrivs:\s1$/m);
    expect.doesNotMatch(status, /^CapBnd:\s0*[13]ffffffffff$/m);

    const conf = await one.expect("cat", "/etc/hast.conf");
    one.write("/etc/hast.conf", conf.replace("timeout 5", "timeout 7"));
    await one.expect("systemctl", "reload", "hastd");
    one.write("/etc/hast.conf", "nonsense\n");
    expect.notEqual((await one.run(["systemctl", "reload", "hastd"])).code, 0);
    expect.equal(await show(one, "hastd", "ActiveState"), "active");
    expect.equal(await show(one, "hastd", "MainPID"), pid);
    const journal = await one.expect("journalctl", "-u", "hastd", "-o", "cat");
    expect.match(journal, /disk1: .*timeout: 5 -> 7/);
    expect.match(journal, /hast\.conf:1:1: /);
    // With such a file it does not start, and is not tried again and again.
    await one.expect("systemctl", "stop", "hastd");
    expect.notEqual((await one.run(["systemctl", "start", "hastd"])).code, 0);
    expect.equal(await show(one, "hastd", "ActiveState"), "failed");
    expect.equal(await show(one, "hastd", "NRestarts"), "0");
  }));

test("what is on a resource starts and stops with its role, on the right node only", () =>
  withPair(async (pair) => {
    const { one, two } = pair;
    await pair.serve();
    const status = () => show(one, "hastd", "StatusText");
    await one.until("systemd knows", async () =>
      /^primary: disk1.*; init: spare$/.test(await status()),
    );

    // hast1 is primary and alive: nothing starts on hast2, and nothing there is touched.
    const refused = await two.run(["systemctl", "start", "hast-services@disk1.target"], {
      withinMs: 120_000,
    });
    expect.notEqual(refused.code, 0);
    for (const unit of ["hast-promote@disk1", "mnt-data.mount", "records"]) {
      expect.notEqual(await show(two, unit, "ActiveState"), "active", unit);
    }
    expect.equal(await pair.role(two), "secondary");
    expect.match(
      await two.expect("journalctl", "-u", "hast-promote@disk1", "-o", "cat"),
      /is connected and alive/,
    );

    const down = await seconds(() => one.expect("systemctl", "stop", "hast-promote@disk1"));
    expect.equal(await pair.role(one), "secondary");
    for (const unit of ["hast-promote@disk1", "mnt-data.mount", "records"]) {
      expect.equal(await show(one, unit, "ActiveState"), "inactive", unit);
    }
    const up = await seconds(() => two.expect("systemctl", "start", "hast-services@disk1.target"));
    await pair.served(two);
    console.log(`switch-over: ${down.toFixed(1)} s to stop, ${up.toFixed(1)} s to start`);

    // A boot promotes nothing.
    await one.powerOff();
    await pair.boot(one);
    expect.equal(await show(one, "hastd", "StatusText"), "init: disk1 spare");
    expect.equal(await show(one, "hast-promote@disk1", "ActiveState"), "inactive");
  }));

test("a hastd that hangs is restarted by the watchdog, and what it served comes back by the rules", () =>
  withPair(async (pair) => {
    const { one, two } = pair;
    one.write("/etc/systemd/system/hastd.service.d/e2e.conf", "[Service]\nWatchdogSec=15\n");
    await one.expect("systemctl", "daemon-reload");
    await pair.serve();
    const before = (await pair.records(one)).length;
    const pid = await show(one, "hastd", "MainPID");
    const took = await seconds(async () => {
      await one.expect("kill", "-STOP", pid);
      const restarted = async () => (await show(one, "hastd", "NRestarts")) === "1";
      await one.until("hastd is restarted", restarted, { withinMs: 90_000 });
      const serves = async () => (await show(one, "records", "SubState")) === "running";
      await one.until("the service is back", serves, { withinMs: 120_000 });
    });
    await pair.served(one);
    expect.ok((await pair.records(one)).length > before);
    expect.match(
      await one.expect("journalctl", "-u", "hastd", "-o", "cat"),
      /Watchdog timeout.*Failed with result 'watchdog'/s,
    );
    await nobodyHangs(one);
    expect.equal(await pair.role(two), "secondary");
    console.log(`hastd stopped, WatchdogSec=15: its service was back after ${took.toFixed(1)} s`);
  }));

test("one worker that hangs is ended alone: hastd, its watchdog and the other resource hear nothing of it", () =>
  withPair(async (pair) => {
    const { one } = pair;
    one.write("/etc/systemd/system/hastd.service.d/e2e.conf", "[Service]\nWatchdogSec=15\n");
    await one.expect("systemctl", "daemon-reload");
    await pair.serve();
    await one.expect("hastctl", "role", "primary", "spare");
    const [hastd, worker, other] = [
      await show(one, "hastd", "MainPID"),
      await workerPid(one, "disk1"),
      await workerPid(one, "spare"),
    ];
    const took = await seconds(async () => {
      await one.expect("kill", "-STOP", worker);
      const replaced = async () => !["0", worker].includes(await workerPid(one, "disk1"));
      await one.until("the worker is another one", replaced, { withinMs: 180_000 });
      await pair.served(one);
    });
    expect.equal(await show(one, "hastd", "MainPID"), hastd);
    expect.equal(await show(one, "hastd", "NRestarts"), "0");
    expect.equal(await workerPid(one, "spare"), other);
    expect.equal(await show(one, "records", "NRestarts"), "0");
    console.log(`worker stopped: its service went on after ${took.toFixed(1)} s, without an error`);
  }));

async function workerPid(host: Host, resource: string): Promise<string> {
  const listed = await host.expect("hastctl", "list", resource);
  return /^ {2}workerpid: (\d+)$/m.exec(listed)?.[1] ?? "0";
}

test("systemctl stop ends hastd in time under a busy file system that systemd knows nothing of", () =>
  withPair(async (pair) => {
    const { one } = pair;
    await pair.serve();
    await one.expect("systemctl", "stop", "hast-promote@disk1");
    await one.expect("hastctl", "role", "primary", "disk1");
    await one.expect("mkdir", "/mnt/hand");
    await one.expect("mount", "/dev/hast/disk1", "/mnt/hand");
    const file = await backingFile(one);
    await pair.leave(
      one,
      "echo $$ >/run/writer; exec 9>>/mnt/hand/busy; while :; do echo x >&9; done",
    );
    const busy = async () => (await one.run(["test", "-s", "/mnt/hand/busy"])).code === 0;
    await one.until("the writer is busy", busy);
    const took = await seconds(() => one.expect("systemctl", "stop", "hastd"));
    expect.equal(await show(one, "hastd", "Result"), "success");
    expect.match(
      await pair.journal(one),
      /\/dev\/hast\/disk1 .* is detached by force, although in use/,
    );
    expect.ok(took < 30, `${took} s`);
    expect.equal((await one.run(["mountpoint", "-q", "/mnt/hand"])).code, 32);
    // A program that goes on after errors has to be ended, but keeps nobody waiting.
    await one.expect("sh", "-c", "kill $(cat /run/writer)");
    await isReleased(one, file);
    await nobodyHangs(one);
    console.log(`hastd stopped in ${took.toFixed(1)} s under a writer`);
  }));

test("a shutdown unmounts first, then demotes; a program that holds the file system costs 10 s more", () =>
  withPair(async (pair) => {
    const { one, two } = pair;
    await pair.serve();
    // One that systemd knows nothing of but that it is mounted.
    await one.expect("systemctl", "start", "hast-promote@spare");
    await one.expect("mkfs.ext4", "-q", "/dev/hast/spare");
    await one.expect("mkdir", "/mnt/hand");
    await one.expect("mount", "-o", "_netdev", "/dev/hast/spare", "/mnt/hand");
    await one.run(["systemctl", "--no-block", "poweroff"]);
    const clean = await seconds(() => one.off({ withinMs: 90_000 }));
    expectOrder(await pair.journal(one), [
      "Unmounted mnt-data.mount",
      "Stopping hast-promote@disk1.service",
      "[disk1] (secondary) Role changed from primary to secondary",
      "Stopping hastd.service",
    ]);
    expectOrder(await pair.journal(one), [
      "Unmounted mnt-hand.mount",
      "Stopping hast-promote@spare.service",
    ]);
    expect.match(await show(two, "hastd", "Before"), /\bremote-fs-pre\.target\b/);
    expect.doesNotMatch(await pair.journal(one), /by force|forced/);
    await two.expect("systemctl", "start", "hast-promote@disk1");
    // Unmounted, and not torn away: there is no journal to replay.
    expect.doesNotMatch(await two.expect("dumpe2fs", "-h", "/dev/hast/disk1"), /needs_recovery/);
    await two.expect("systemctl", "start", "hast-services@disk1.target");
    await pair.served(two);

    await pair.boot(one);
    await one.expect("hastctl", "role", "secondary", "disk1");
    const inStep = async () => (await two.run(["hastctl", "status", "disk1"])).stdout;
    await two.until("hast1 is in step", async () => /complete/.test(await inStep()), {
      withinMs: 60_000,
    });
    const file = await backingFile(two);
    await pair.leave(two, "exec 9>>/mnt/data/held; while :; do echo x >&9; done");
    const held = async () => (await two.run(["test", "-s", "/mnt/data/held"])).code === 0;
    await two.until("somebody holds the file system", held);
    const records = await pair.records(two);
    await two.run(["systemctl", "--no-block", "poweroff"]);
    const busy = await seconds(() => two.off({ withinMs: 120_000 }));
    expect.match(
      await pair.journal(two),
      /\[disk1\] \(secondary\) Role changed from primary to secondary/,
    );
    await isReleased(one, file);
    await one.expect("systemctl", "start", "hast-services@disk1.target");
    await pair.served(one);
    const kept = new Set(await pair.records(one));
    expect.deepEqual(
      records.filter((each) => !kept.has(each)),
      [],
    );
    console.log(`power-off: ${clean.toFixed(1)} s; with a holder ${busy.toFixed(1)} s`);
  }));

for (const tool of ["keepalived", "ucarp"]) {
  test(`${tool} starts when hastd answers; at a shutdown it lets go before hastd ends, and the other node takes over`, () =>
    withPair(async (pair) => {
      const { one, two } = pair;
      await pair.serve();
      await one.expect("systemctl", "stop", "hast-promote@disk1");
      for (const host of [one, two]) {
        await pair.installFailover(host);
        const mounts = `s|^mounts=.*|mounts="disk1:${DIRECTORY}"|`;
        await host.expect("sed", "-i", mounts, "/etc/hast-failover/failover.conf");
        pair.install(host, PROGRAMS);
      }
      const password = await one.expect("cat", "/etc/hast-failover/ucarp.password");
      two.write("/etc/hast-failover/ucarp.password", password, 0o600);
      await one.expect("/etc/hast-failover/failover", "master");
      await one.expect("systemctl", "start", tool);
      const serves = async (host: Host) => {
        const before = await recordCount(host);
        const more = async () => (await hasAddress(host)) && (await recordCount(host)) > before;
        await host.until("it serves", more, { withinMs: 120_000 });
      };
      await serves(one);
      await two.expect("systemctl", "start", tool);
      const fit = async () => (await two.run(["/etc/hast-failover/failover", "check"])).code === 0;
      await two.until("hast2 is fit", fit, { withinMs: 60_000 });

      await one.run(["systemctl", "--no-block", "poweroff"]);
      const took = await seconds(() => serves(two));
      await one.off({ withinMs: 120_000 });
      expectOrder(await pair.journal(one), [
        `Stopping ${tool}.service`,
        "Role switched to secondary for disk1",
        `Stopped ${tool}.service`,
        "Stopping hastd.service",
      ]);
      expect.doesNotMatch(await pair.journal(one), /by force|forced/);
      await nothingBeneath(pair, one);
      console.log(`${tool}: power-off to the service on the other node: ${took.toFixed(1)} s`);

      // It returns: the tool is started after hastd answers, and takes nothing.
      pair.want(one, "multi-user.target", `${tool}.service`);
      await pair.boot(one);
      const [answers, started] = [
        await show(one, "hastd", "ActiveEnterTimestampMonotonic"),
        await show(one, tool, "ExecMainStartTimestampMonotonic"),
      ];
      expect.ok(Number(answers) > 0 && Number(answers) < Number(started), `${answers} ${started}`);
      const inStep = async () =>
        (await one.run(["/etc/hast-failover/failover", "check"])).code === 0;
      await one.until("hast1 is in step", inStep, { withinMs: 60_000 });
      expect.equal(await pair.role(one), "secondary");
      expect.ok(await hasAddress(two));
    }));
}

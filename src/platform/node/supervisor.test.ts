// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { listenForDatagrams } from "../../../test/datagrams.ts";
import { NO_SUPERVISOR } from "../supervisor.ts";
import { takeSupervisor } from "./supervisor.ts";

const noWarning = (text: string) => assert.fail(text);

test("what is told to systemd, in its words; the status only where it differs", async (t) => {
  const systemd = await listenForDatagrams(t);
  const environment = {
    NOTIFY_SOCKET: systemd.path,
    WATCHDOG_USEC: "60000000",
    WATCHDOG_PID: `${process.pid}`,
  };
  const supervisor = takeSupervisor(environment, noWarning);
  assert.equal(supervisor.watchdogMs, 60_000);
  supervisor.ready();
  supervisor.alive("init: disk1");
  supervisor.alive("init: disk1");
  supervisor.reloading();
  supervisor.ready();
  supervisor.stopping();
  const heard = await systemd.heard();
  const [, usec] = /^RELOADING=1\nMONOTONIC_USEC=(\d+)$/.exec(heard[4]!)!;
  heard[4] = "";
  assert.deepEqual(heard, [
    ...["READY=1", "STATUS=init: disk1", "WATCHDOG=1", "WATCHDOG=1"],
    ...["", "READY=1", "STOPPING=1"],
  ]);
  // The clock of the kernel's own boot time, but for suspends.
  const now = Number(spawnSync("cat", ["/proc/uptime"], { encoding: "utf8" }).stdout.split(" ")[0]);
  assert.ok(Math.abs(Number(usec) / 1e6 - now) < 3600 * 24 * 365 && Number(usec) / 1e6 <= now + 1);
});

test("a socket in the abstract namespace is reached", async (t) => {
  const systemd = await listenForDatagrams(t, `@hast-test-${process.pid}`);
  takeSupervisor({ NOTIFY_SOCKET: systemd.path }, noWarning).ready();
  assert.deepEqual(await systemd.heard(), ["READY=1"]);
});

test("a watchdog that is another process's, or none, is not fed", async (t) => {
  const systemd = await listenForDatagrams(t);
  for (const watchdog of [{}, { WATCHDOG_USEC: "5000000", WATCHDOG_PID: "1" }]) {
    const supervisor = takeSupervisor({ NOTIFY_SOCKET: systemd.path, ...watchdog }, noWarning);
    assert.equal(supervisor.watchdogMs, null);
    supervisor.alive("fine");
  }
  assert.deepEqual(await systemd.heard(), ["STATUS=fine", "STATUS=fine"]);
});

test("a systemd that is too busy to take a message gets it later, in order, and is not waited for", async (t) => {
  const systemd = await listenForDatagrams(t); // which reads nothing before it is asked
  const environment = { NOTIFY_SOCKET: systemd.path, WATCHDOG_USEC: "60000000" };
  const supervisor = takeSupervisor(environment, noWarning);
  for (let count = 0; count < 1000; count++) supervisor.reloading();
  supervisor.ready();
  supervisor.alive("fine");
  const heard: string[] = [];
  while (heard.at(-1) !== "STATUS=fine") {
    heard.push(...(await systemd.heard()));
    if (heard.length < 1002) await pause(10);
  }
  // No WATCHDOG=1: the next is as good.
  assert.equal(heard.length, 1002);
  assert.equal(heard[1000], "READY=1");
});

test("nobody is told where nobody listens, which is said once, and children hear nothing of it", () => {
  const warnings: string[] = [];
  const environment = { NOTIFY_SOCKET: "/nonexistent/notify", WATCHDOG_USEC: "1", PATH: "/bin" };
  const supervisor = takeSupervisor(environment, (text) => warnings.push(text));
  assert.deepEqual(environment, { PATH: "/bin" });
  supervisor.ready();
  supervisor.stopping();
  assert.equal(warnings.length, 1);
  assert.match(warnings[0]!, /does not hear us at \/nonexistent\/notify \(errno 2\)/);

  const odd = { NOTIFY_SOCKET: "vsock:2:1234" };
  assert.equal(
    takeSupervisor(odd, (text) => warnings.push(text)),
    NO_SUPERVISOR,
  );
  assert.match(warnings[1]!, /^NOTIFY_SOCKET=vsock:2:1234 is no path/);
  assert.equal(takeSupervisor({}, noWarning), NO_SUPERVISOR);
});

// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { FakeLog } from "../../test/daemon/fakes.ts";
import { PretendClock } from "../../test/pretend/clock.ts";
import { Events } from "../../test/pretend/events.ts";
import type { ProgramHandler } from "../platform/watched-program.ts";
import { startScriptWith } from "./script.ts";

function world() {
  const clock = new PretendClock(new Events());
  const log = new FakeLog();
  const signals: string[] = [];
  const started: (readonly string[])[] = [];
  let handler: ProgramHandler | null = null;
  const startScript = startScriptWith({
    programs: {
      start: (argv, environment, its) => {
        started.push([...argv, ...Object.values(environment)]);
        handler = its;
        return { pid: 1, kill: (signal) => signals.push(signal) };
      },
    },
    clock,
    log,
    path: "/etc/hast-failover/failover",
    environment: { FAILOVER_RUN: "/run/x" },
  });
  return { clock, log, signals, started, startScript, handler: () => handler! };
}

test("a script that ends well has no failure; its output is logged", async () => {
  const { startScript, started, log, handler } = world();
  const { ended } = startScript("start");
  handler().line("stdout", "mounting");
  handler().exited({ kind: "code", code: 0 });
  expect.equal(await ended, null);
  expect.deepEqual(started, [["/etc/hast-failover/failover", "start", "/run/x"]]);
  expect.ok(log.says("failover start: mounting"));
});

test("one that does not says why: in its last line, or by how it ended", async () => {
  const ends = [
    [{ kind: "code", code: 1 }, "mount: no such device", "mount: no such device"],
    [{ kind: "code", code: 3 }, "", 'exit code 3; see the system log of "failover"'],
    [{ kind: "signal", signal: "SIGKILL" }, "x", "it was ended by SIGKILL"],
    [{ kind: "not-started", reason: "no such file" }, "", "no such file"],
  ] as const;
  for (const [exit, line, failure] of ends) {
    const { startScript, handler } = world();
    const { ended } = startScript("stop");
    handler().line("stderr", line);
    handler().exited(exit);
    expect.equal(await ended, failure);
  }
});

test("one that hangs is ended, and not waited for if that does not help", async () => {
  const { startScript, clock, signals } = world();
  const { ended } = startScript("stop");
  await clock.pass(119_000);
  expect.deepEqual(signals, []);
  await clock.pass(2_000);
  expect.deepEqual(signals, ["SIGTERM"]);
  await clock.pass(5_000);
  expect.deepEqual(signals, ["SIGTERM", "SIGKILL"]);
  await clock.pass(5_000);
  expect.equal(await ended, "it was not finished after 120 s");
  expect.equal(clock.waiting, 0);
});

test("kill() ends it; what it says then counts, once", async () => {
  const { startScript, clock, signals, handler } = world();
  const script = startScript("start");
  script.kill();
  script.kill();
  handler().exited({ kind: "signal", signal: "SIGTERM" });
  expect.equal(await script.ended, "it was ended by SIGTERM");
  script.kill();
  await clock.pass(60_000);
  expect.deepEqual(signals, ["SIGTERM"]);
});

test("kill() of one that has ended leaves alone what it has started", async () => {
  const { startScript, clock, signals, handler } = world();
  const script = startScript("start");
  handler().exited({ kind: "code", code: 0 });
  script.kill();
  await clock.pass(60_000);
  expect.deepEqual(signals, []);
});

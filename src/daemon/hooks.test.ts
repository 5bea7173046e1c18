// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock, FakeLog, FakePrograms, QUIET_REPORT, settle } from "../../test/daemon/fakes.ts";
import type { StatusEntry } from "../wire/control.ts";
import {
  HOOK_KILL_MS,
  type HookSettings,
  Hooks,
  LEAVE_KEPT_MS,
  LINES_MAX,
  QUEUE_MAX,
  REFUSED_AGAIN_MS,
} from "./hooks.ts";

const TIMEOUT_MS = 60_000;

class World {
  readonly clock = new FakeClock();
  readonly log = new FakeLog();
  readonly programs = new FakePrograms();
  settings: HookSettings = { exec: "/sbin/hook", gate: "/sbin/gate", timeoutMs: TIMEOUT_MS };
  readonly hooks = new Hooks(
    {
      name: "r0",
      log: this.log,
      statusEntry: async () => this.entry,
    },
    this.clock,
    {
      programs: this.programs,
      settings: () => this.settings,
    },
  );
  entry: StatusEntry = {
    resource: "r0",
    outcome: {
      kind: "known",
      status: {
        provname: "disk0",
        localpath: "/disks/r0",
        remoteaddr: "tcp4://10.0.0.2:8457",
        sourceaddr: null,
        replication: "memsync",
        checksum: "none",
        compression: "hole",
        role: "primary",
        workerpid: 100,
        copy: "consistent",
        worker: QUIET_REPORT,
      },
    },
    errmsg: null,
    notes: ["synchronized"],
  };
}

/** What a promise has resolved with so far, or "pending". */
function watch<Value>(promise: Promise<Value>): { value: Value | "pending" } {
  const seen: { value: Value | "pending" } = { value: "pending" };
  void promise.then((value) => {
    seen.value = value;
  });
  return seen;
}

test("the seven events come with the original's arguments", async () => {
  const world = new World();
  world.hooks.roleChanged("init", "primary");
  const events = [
    "connect",
    "disconnect",
    "syncstart",
    "syncdone",
    "syncintr",
    "split-brain",
  ] as const;
  for (const event of events) world.hooks.workerEvent(event);
  for (let count = 1; count <= 7; count++) {
    await settle();
    assert.equal(world.programs.started.length, count);
    await world.programs.last.exit(0);
  }
  assert.equal(world.programs.last.argv[0], "/sbin/hook");
  assert.deepEqual(world.programs.calls, [
    "role r0 init primary",
    ...events.map((event) => `${event} r0`),
  ]);
  assert.equal(world.log.lines.filter((line) => !line.startsWith("DEBUG")).length, 0);
});

test("BD-47: hooks of one resource run one after the other, in the order of the events", async () => {
  const world = new World();
  world.hooks.workerEvent("disconnect");
  world.hooks.workerEvent("connect");
  await settle();
  assert.deepEqual(world.programs.calls, ["disconnect r0"]);
  await world.clock.advance(TIMEOUT_MS - 1);
  assert.deepEqual(world.programs.calls, ["disconnect r0"]);
  await world.programs.last.exit(0);
  assert.deepEqual(world.programs.calls, ["disconnect r0", "connect r0"]);
});

test("BD-47: a hook that takes too long is ended, and what waits gets its turn", async () => {
  const world = new World();
  world.hooks.workerEvent("disconnect");
  world.hooks.workerEvent("connect");
  await world.clock.advance(TIMEOUT_MS);
  const slow = world.programs.started[0]!;
  assert.deepEqual(slow.kills, ["SIGTERM"]);
  await slow.ends({ kind: "signal", signal: "SIGTERM" });
  assert(
    world.log.says(
      "ERROR Hook /sbin/hook (disconnect) failed: it took longer than 60 s and was ended.",
    ),
  );
  assert.deepEqual(world.programs.calls, ["disconnect r0", "connect r0"]);
});

test("BD-47: a hook that nothing ends is left behind, and what waits gets its turn", async () => {
  const world = new World();
  world.hooks.workerEvent("disconnect");
  world.hooks.workerEvent("connect");
  await world.clock.advance(TIMEOUT_MS + 2 * HOOK_KILL_MS);
  assert.deepEqual(world.programs.started[0]!.kills, ["SIGTERM", "SIGKILL"]);
  assert(world.log.says("its process 500 cannot be killed and is left behind"));
  assert.deepEqual(world.programs.calls, ["disconnect r0", "connect r0"]);
});

test("BD-47: an event that waits already is not told twice in a row", async () => {
  const world = new World();
  for (let count = 0; count < 3; count++) world.hooks.workerEvent("syncintr");
  for (let count = 0; count < 3; count++) {
    await settle();
    await world.programs.last.exit(0);
  }
  // The first ran already when the second came; the third learns nothing new.
  assert.deepEqual(world.programs.calls, ["syncintr r0", "syncintr r0"]);
});

test("a link that flaps beside a slow hook makes no endless queue", async () => {
  const world = new World();
  for (let count = 0; count < 1000; count++) {
    world.hooks.workerEvent("connect");
    world.hooks.workerEvent("disconnect");
  }
  assert(world.log.says("WARNING Hook for "));
  for (let count = 0; count < 2000 && world.programs.last?.running !== false; count++) {
    await settle();
    if (world.programs.last.running) await world.programs.last.exit(0);
    await settle();
  }
  assert.equal(world.programs.started.length, QUEUE_MAX + 1);
  assert.equal(world.programs.calls.at(-1), "disconnect r0");
});

test("a hook finds the state in its environment", async () => {
  const world = new World();
  world.hooks.roleChanged("secondary", "primary");
  await settle();
  const { HAST_STATUS_JSON, ...environment } = world.programs.last.environment;
  assert.deepEqual(environment, {
    HAST_RESOURCE: "r0",
    HAST_EVENT: "role",
    HAST_OLD_ROLE: "secondary",
    HAST_NEW_ROLE: "primary",
    HAST_ROLE: "primary",
    HAST_PROVNAME: "disk0",
    HAST_LOCAL: "/disks/r0",
    HAST_PEER: "tcp4://10.0.0.2:8457",
    HAST_STATUS: "complete",
    HAST_DATA_STATE: "consistent",
  });
  const snapshot = JSON.parse(HAST_STATUS_JSON!);
  assert.equal(snapshot.version, 1);
  assert.equal(snapshot.resource, "r0");
  assert.equal(snapshot.role, "primary");
  assert.equal(snapshot.copy, "consistent");
  assert.equal(snapshot.worker.dirty, 0);
  assert.deepEqual(snapshot.notes, ["synchronized"]);
});

test("what a hook prints is logged line by line under its name, and not without end", async () => {
  const world = new World();
  world.hooks.workerEvent("connect");
  await settle();
  world.programs.last.prints("mounted\t/data");
  world.programs.last.prints("\u001b[31mno such user", "stderr");
  assert(world.log.says("INFO Hook /sbin/hook (connect): mounted /data"));
  assert(world.log.says("WARNING Hook /sbin/hook (connect): ?[31mno such user"));
  for (let count = 0; count < 1000; count++) world.programs.last.prints("again");
  const lines = world.log.lines.filter((line) => line.includes("(connect):"));
  assert.equal(lines.length, LINES_MAX + 1);
  assert.match(lines.at(-1)!, /the rest of its output is not logged/);
});

test("a hook that fails, or cannot be started, is an error in the log, and no more", async () => {
  const world = new World();
  world.hooks.workerEvent("connect");
  world.hooks.workerEvent("disconnect");
  await settle();
  await world.programs.last.exit(3);
  assert(world.log.says("ERROR Hook /sbin/hook (connect) failed: exit code 3."));
  await world.programs.last.ends({ kind: "not-started", reason: "spawn EAGAIN" });
  assert(world.log.says("(disconnect) failed: it could not be started: spawn EAGAIN."));
});

test("a hook that may take long is reported every minute", async () => {
  const world = new World();
  world.settings = { ...world.settings, timeoutMs: 150_000 };
  world.hooks.workerEvent("connect");
  await world.clock.advance(130_000);
  assert(world.log.says("Hook /sbin/hook (connect) has been running for 60 s (pid 500)."));
  assert(world.log.says("has been running for 120 s"));
  await world.programs.last.exit(0);
  assert.equal(world.clock.timerCount, 0);
});

test("without exec nothing runs, and without gate everything is allowed", async () => {
  const world = new World();
  world.settings = { exec: null, gate: null, timeoutMs: TIMEOUT_MS };
  world.hooks.workerEvent("connect");
  assert.equal(await world.hooks.mayPromote("secondary"), null);
  assert.equal(await world.hooks.mayResync(() => true), null);
  assert.equal(world.programs.started.length, 0);
});

test("the gate is asked before a promotion, and its last line is the reason it gives", async () => {
  const world = new World();
  const yes = watch(world.hooks.mayPromote("secondary"));
  await settle();
  assert.deepEqual(world.programs.last.argv, [
    "/sbin/gate",
    "prerole",
    "r0",
    "secondary",
    "primary",
  ]);
  assert.equal(yes.value, "pending");
  await world.programs.last.exit(0);
  assert.equal(yes.value, null);

  const no = watch(world.hooks.mayPromote("init"));
  await settle();
  world.programs.last.prints("looking");
  world.programs.last.prints("the pool is imported elsewhere", "stderr");
  world.programs.last.prints("");
  await world.programs.last.exit(1);
  assert.equal(
    no.value,
    "the gate /sbin/gate refuses it (exit code 1): the pool is imported elsewhere",
  );
});

test("a gate that does not answer in time has not agreed", async () => {
  const world = new World();
  const asked = watch(world.hooks.mayPromote("init"));
  await world.clock.advance(TIMEOUT_MS);
  await world.programs.last.ends({ kind: "signal", signal: "SIGTERM" });
  assert.match(String(asked.value), /took longer than 60 s/);
});

test("leave for a resync is asked for once, however often the peer connects meanwhile", async () => {
  const world = new World();
  const first = watch(world.hooks.mayResync(() => false));
  await settle();
  const second = watch(world.hooks.mayResync(() => true));
  await settle();
  assert.deepEqual(world.programs.calls, ["presync r0"]);
  await world.programs.last.exit(0);
  assert.equal(first.value, null);
  assert.equal(second.value, null);
  // Used up: the next resync is another one.
  void world.hooks.mayResync(() => true);
  await settle();
  assert.deepEqual(world.programs.calls, ["presync r0", "presync r0"]);
});

test("leave for a resync outlasts the connection that asked, but neither a minute nor a role change", async () => {
  const world = new World();
  const ask = async (wanted: boolean) => {
    void world.hooks.mayResync(() => wanted);
    await settle();
    if (world.programs.last.running) await world.programs.last.exit(0);
    return world.programs.started.length;
  };
  assert.equal(await ask(false), 1);
  await world.clock.advance(LEAVE_KEPT_MS - 1);
  assert.equal(await ask(true), 1);
  assert.equal(await ask(false), 2);
  await world.clock.advance(LEAVE_KEPT_MS);
  assert.equal(await ask(false), 3);
  world.settings = { ...world.settings, exec: null };
  world.hooks.roleChanged("secondary", "primary");
  assert.equal(await ask(true), 4);
});

test("BD-34: a gate that refuses a resync is not asked again at every attempt of the peer", async () => {
  const world = new World();
  const refused = world.hooks.mayResync(() => true);
  await settle();
  world.programs.last.prints("no space for a snapshot");
  await world.programs.last.exit(1);
  const reason = "the gate /sbin/gate refuses it (exit code 1): no space for a snapshot";
  assert.equal(await refused, reason);
  assert.equal(await world.hooks.mayResync(() => true), reason);
  assert.equal(world.programs.started.length, 1);
  await world.clock.advance(REFUSED_AGAIN_MS);
  void world.hooks.mayResync(() => true);
  await settle();
  assert.equal(world.programs.started.length, 2);
});

test("close() runs what waits", async () => {
  const world = new World();
  world.hooks.roleChanged("primary", "init");
  world.hooks.workerEvent("disconnect");
  const closed = watch(world.hooks.close(10_000).then(() => "closed"));
  world.hooks.workerEvent("connect");
  await settle();
  await world.programs.last.exit(0);
  assert.equal(closed.value, "pending");
  await world.programs.last.exit(0);
  assert.equal(closed.value, "closed");
  assert.deepEqual(world.programs.calls, ["role r0 primary init", "disconnect r0"]);
  assert.equal(world.clock.timerCount, 0);
});

test("close() does not wait for ever, and whoever asks a gate meanwhile is refused", async () => {
  const world = new World();
  world.hooks.roleChanged("primary", "init");
  const asked = watch(world.hooks.mayPromote("init"));
  const closed = watch(world.hooks.close(10_000).then(() => "closed"));
  await world.clock.advance(10_000);
  assert.equal(asked.value, "hastd is stopping");
  assert.deepEqual(world.programs.last.kills, ["SIGTERM"]);
  assert(world.log.says("Hooks not run, since hastd is stopping: prerole."));
  await world.clock.advance(2 * HOOK_KILL_MS);
  assert.equal(closed.value, "closed");
  assert.equal(world.clock.timerCount, 0);
});

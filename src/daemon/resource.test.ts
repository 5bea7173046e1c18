// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { DeviceMachine, stat } from "../../test/daemon/device-machine.ts";
import {
  DIVERGENCE,
  FakeClock,
  FakeLog,
  FakeProcesses,
  FakePrograms,
  FakeSocket,
  type FakeWorker,
  QUIET_REPORT,
  settingsOf,
  settle,
  surroundingsOf,
  USABLE,
} from "../../test/daemon/fakes.ts";
import type { PeerLacks, WorkerEvent } from "../engine/worker-messages.ts";
import { FRAME_HEADER_SIZE } from "../wire/frame.ts";
import { decodeS1, type P2, type S1 } from "../wire/handshake.ts";
import type { HookSettings } from "./hooks.ts";
import {
  type Probed,
  READY_TIMEOUT_MS,
  RESTART_DELAY_MIN_MS,
  Resource,
  type ResourceSurroundings,
  SILENT_ROUNDS_MAX,
  STOP_GRACE_MS,
} from "./resource.ts";
import { STATUS_TIMEOUT_MS } from "./worker.ts";

class World {
  readonly clock = new FakeClock();
  readonly processes = new FakeProcesses();
  readonly log = new FakeLog();
  readonly events: WorkerEvent[] = [];
  readonly programs = new FakePrograms();
  hookSettings: HookSettings = { exec: null, gate: null, timeoutMs: 60_000 };
  probe: () => Promise<Probed> = async () => USABLE;
  tokenCount = 0;
  readonly surroundings = surroundingsOf({
    clock: this.clock,
    entropy: { fill: (bytes) => bytes.fill(++this.tokenCount) },
    processes: this.processes,
    probe: () => this.probe(),
    log: this.log,
    hooks: {
      programs: this.programs,
      settings: () => this.hookSettings,
    },
    event: (_resource, event) => this.events.push(event),
  });
  readonly resource: Resource = new Resource(settingsOf("r0"), this.surroundings);

  constructor() {
    this.processes.born = (worker) => worker.serves();
  }

  async notes(): Promise<readonly string[]> {
    const entry = this.resource.statusEntry();
    await this.clock.advance(1000);
    return (await entry).notes;
  }

  async workerpid(): Promise<number> {
    const { outcome } = await this.resource.statusEntry();
    assert(outcome.kind === "known");
    return outcome.status.workerpid;
  }

  /** A primary's first connection. */
  async p1(socket = new FakeSocket("10.0.0.2"), version = 2): Promise<FakeSocket> {
    void this.resource.firstStep(socket, {
      kind: "p1",
      resource: "r0",
      version,
      extensions: 0n,
      term: 0n,
    });
    await settle();
    return socket;
  }

  p2(token: Uint8Array, changes: Partial<P2> = {}): P2 {
    return {
      kind: "p2",
      resource: "r0",
      token,
      virgin: false,
      resuid: 7n,
      localcnt: 2n,
      remotecnt: 1n,
      remarks: null,
      life: null,
      whole: false,
      ...changes,
    };
  }

  /** Both connections of a primary. */
  async connect(): Promise<{ a: FakeSocket; b: FakeSocket }> {
    const a = await this.p1();
    const answer = s1(a);
    assert(answer.kind === "accepted");
    const b = new FakeSocket("10.0.0.2", 40001);
    assert.equal(this.resource.secondStep(b, this.p2(answer.token)), null);
    await settle();
    return { a, b };
  }
}

function s1(socket: FakeSocket): S1 {
  return decodeS1(socket.written.subarray(FRAME_HEADER_SIZE));
}

// --- Roles.

test("a resource begins with role init and no worker", async () => {
  const world = new World();
  assert.equal(world.resource.role, "init");
  assert.equal(await world.workerpid(), 0);
});

test("role primary is answered when the worker is ready, and not before (BD-37)", async () => {
  const world = new World();
  world.processes.born = () => undefined;
  let answer: unknown = null;
  void world.resource.changeRole("primary").then((change) => {
    answer = change;
  });
  await world.clock.advance(30_000);
  assert.equal(answer, null);
  world.processes.last.says({ kind: "ready" });
  await settle();
  assert.deepEqual(answer, { kind: "done", previousRole: "init" });
  assert.deepEqual(world.processes.last.identity, { resource: "r0", role: "primary" });
  assert.deepEqual(world.processes.last.start, {
    kind: "start",
    role: "primary",
    settings: settingsOf("r0"),
    debug: 2,
    log: "stdio",
    hello: null,
    trust: "unknown",
    orders: { connected: true, resyncPaused: false, resyncRate: 0 },
  });
});

test("role primary is refused with the worker's own reason, which status keeps until the next change", async () => {
  const world = new World();
  world.processes.born = (worker) => {
    worker.says({ kind: "failed", exitCode: 66, message: "/disks/r0 holds no HAST metadata." });
    worker.exit({ kind: "code", code: 66 });
  };
  assert.deepEqual(await world.resource.changeRole("primary"), {
    kind: "failed",
    previousRole: "init",
    reason: "/disks/r0 holds no HAST metadata.",
  });
  assert.equal(world.resource.role, "init");
  assert.match(
    (await world.notes())[0]!,
    /primary was refused: \/disks\/r0 holds no HAST metadata\.$/,
  );
  assert(world.log.says("ERROR [r0] (init) Role primary refused"));
  assert.equal(world.processes.workers.length, 1);
  assert.equal(world.clock.timerCount, 0);

  world.processes.born = (worker) => worker.says({ kind: "ready" });
  assert.equal((await world.resource.changeRole("primary")).kind, "done");
  world.processes.last.report = QUIET_REPORT;
  assert.deepEqual(await world.notes(), []);
});

test("a primary that is killed while it starts is refused, not started again", async () => {
  const world = new World();
  world.processes.born = (worker) => worker.exit({ kind: "signal", signal: "SIGSEGV" });
  const change = await world.resource.changeRole("primary");
  assert(change.kind === "failed");
  assert.equal(change.reason, "it was killed by SIGSEGV");
  assert.equal(world.resource.role, "init");
  await world.clock.advance(60_000);
  assert.equal(world.processes.workers.length, 1);
});

test("a primary that never becomes ready is killed and refused", async () => {
  const world = new World();
  world.processes.born = () => undefined;
  const change = world.resource.changeRole("primary");
  await world.clock.advance(100_000);
  assert.equal((await change).kind, "failed");
  assert.deepEqual(world.processes.last.kills, ["SIGKILL"]);
  assert.equal(world.resource.role, "init");
  await world.clock.advance(60_000);
  assert.equal(world.processes.workers.length, 1);
});

test("a shortage of processes refuses the role and leaves the resource usable (BD-45)", async () => {
  const world = new World();
  world.processes.shortage = "spawn EMFILE";
  const change = await world.resource.changeRole("primary");
  assert(change.kind === "failed");
  assert.equal(change.reason, "it could not be started: spawn EMFILE");
  world.processes.shortage = null;
  assert.equal((await world.resource.changeRole("primary")).kind, "done");
});

test("role secondary is refused with the reason why the local component cannot be used", async () => {
  const world = new World();
  world.probe = async () => ({ kind: "unusable", reason: "/disks/r0 does not exist" });
  assert.deepEqual(await world.resource.changeRole("secondary"), {
    kind: "failed",
    previousRole: "init",
    reason: "/disks/r0 does not exist",
  });
  assert.equal(world.resource.role, "init");
  world.probe = async () => USABLE;
  assert.deepEqual(await world.resource.changeRole("secondary"), {
    kind: "done",
    previousRole: "init",
  });
  assert.equal(world.processes.workers.length, 0);
  assert.deepEqual(await world.notes(), []);
});

test("a local component that does not answer refuses role secondary within its deadline", async () => {
  const world = new World();
  world.probe = () => new Promise(() => undefined);
  const change = world.resource.changeRole("secondary");
  await world.clock.advance(20_000);
  const { kind } = await change;
  assert.equal(kind, "failed");
  assert.equal(world.resource.role, "init");
});

test("a role that the resource already has is confirmed without a new worker", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  assert.deepEqual(await world.resource.changeRole("primary"), {
    kind: "done",
    previousRole: "primary",
  });
  assert.equal(world.processes.workers.length, 1);
});

test("the old worker has gone before the component is probed and before a new worker starts", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  const primary = world.processes.last;
  primary.obedient = false;
  let probed = false;
  world.probe = async () => {
    assert.equal(primary.alive, false);
    probed = true;
    return USABLE;
  };
  const change = world.resource.changeRole("secondary");
  await world.clock.advance(STOP_GRACE_MS - 1);
  assert.equal(probed, false);
  assert.deepEqual(primary.kinds, ["start", "stop"]);
  assert.deepEqual(primary.kills, []);
  assert.equal(world.resource.announcedRole, "primary");
  await world.clock.advance(1);
  assert.deepEqual(primary.kills, ["SIGKILL"]);
  assert.deepEqual(await change, { kind: "done", previousRole: "primary" });
  assert.equal(world.resource.role, "secondary");
});

test("a worker that survives SIGKILL keeps the next one from starting, until it has gone (S-8)", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  const primary = world.processes.last;
  primary.obedient = false;
  primary.killable = false;
  const change = world.resource.changeRole("secondary");
  await world.clock.advance(STOP_GRACE_MS + 5000);
  const outcome = await change;
  assert(outcome.kind === "failed");
  assert.match(outcome.reason, /old worker \(pid 100\) cannot be killed/);
  assert.equal(world.resource.role, "init");
  const entry = world.resource.statusEntry();
  await world.clock.advance(1000);
  const status = (await entry).outcome;
  assert(status.kind === "known");
  assert.equal(status.status.workerpid, 100);

  primary.exit({ kind: "signal", signal: "SIGKILL" });
  assert.deepEqual(await world.resource.changeRole("primary"), {
    kind: "done",
    previousRole: "init",
  });
  assert.equal(world.processes.alive.length, 1);
});

test("role changes of one resource happen one after the other, in the order asked for", async () => {
  const world = new World();
  const changes = ["primary", "secondary", "primary", "init"] as const;
  const outcomes = await Promise.all(changes.map((role) => world.resource.changeRole(role)));
  assert.deepEqual(
    outcomes.map(({ previousRole }) => previousRole),
    ["init", "primary", "secondary", "primary"],
  );
  assert.equal(world.resource.role, "init");
  assert.equal(world.processes.alive.length, 0);
});

test("a probe that fails in a way nobody foresaw is the caller's error and blocks no later change", async () => {
  const world = new World();
  world.probe = async () => {
    throw new TypeError("a bug");
  };
  await assert.rejects(world.resource.changeRole("secondary"), TypeError);
  assert.equal((await world.resource.changeRole("primary")).kind, "done");
});

test("role primary is refused while a live primary is connected, and nothing is disturbed (S-11)", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await world.connect();
  const worker = world.processes.last;
  worker.report = { ...QUIET_REPORT, silentMs: 5 };
  worker.says({ kind: "ready" });
  const change = world.resource.changeRole("primary");
  await world.clock.advance(5000);
  const outcome = await change;
  assert(outcome.kind === "failed");
  assert.match(outcome.reason, /connected and alive.*hastctl role secondary r0$/);
  assert.equal(world.resource.role, "secondary");
  assert.equal(worker.alive, true);
  assert(!worker.kinds.includes("stop"));
});

test("a primary that has been silent for longer than its keepalives is no obstacle", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await world.connect();
  world.processes.last.report = { ...QUIET_REPORT, silentMs: 12_000 };
  const change = world.resource.changeRole("primary");
  await settle();
  assert.deepEqual(await change, { kind: "done", previousRole: "secondary" });
});

test("a primary that leaves while we ask is no obstacle: a planned switch-over", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await world.connect();
  const worker = world.processes.last;
  worker.report = { ...QUIET_REPORT, silentMs: 5 };
  const change = world.resource.changeRole("primary");
  await world.clock.advance(1000);
  worker.exit({ kind: "code", code: 0 });
  await world.clock.advance(1000);
  assert.deepEqual(await change, { kind: "done", previousRole: "secondary" });
});

test("S-11: a primary whose connection is being made again is alive", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await world.connect();
  world.processes.last.report = { ...QUIET_REPORT, silentMs: 5 };
  await world.p1();
  const change = world.resource.changeRole("primary");
  await world.clock.advance(1000);
  await world.connect();
  world.processes.last.report = { ...QUIET_REPORT, silentMs: 5 };
  await world.clock.advance(4000);
  const outcome = await change;
  assert(outcome.kind === "failed");
  assert.match(outcome.reason, /connected and alive/);
});

test("S-11: a primary is alive, although it was asked about while its worker was still starting", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  world.processes.born = () => undefined;
  await world.connect();
  const worker = world.processes.last; // as one that opens its disk: deaf to what it is asked
  const change = world.resource.changeRole("primary");
  await world.clock.advance(500);
  worker.report = { ...QUIET_REPORT, silentMs: 5 };
  worker.says({ kind: "ready" });
  await world.clock.advance(14_500);
  assert(!worker.kinds.includes("stop"), "its connection is left alone");
  const outcome = await change;
  assert(outcome.kind === "failed");
  assert.match(outcome.reason, /connected and alive/);
});

test("a connection that was begun and never completed is no obstacle for long", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await world.p1();
  const change = world.resource.changeRole("primary");
  await world.clock.advance(11_000);
  assert.equal(world.resource.role, "secondary");
  await world.clock.advance(1_000);
  assert.deepEqual(await change, { kind: "done", previousRole: "secondary" });
});

// --- Supervision.

test("a primary that dies of a signal or of code 75 is started again, later and later, up to 10 s", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  for (const delayMs of [1000, 2000, 4000, 8000, 10_000, 10_000]) {
    const count = world.processes.workers.length;
    world.processes.last.exit(
      count % 2 === 0 ? { kind: "signal", signal: "SIGKILL" } : { kind: "code", code: 75 },
    );
    assert.equal(world.resource.role, "primary");
    await world.clock.advance(delayMs - 1);
    assert.equal(world.processes.workers.length, count, `${delayMs}`);
    await world.clock.advance(1);
    assert.equal(world.processes.workers.length, count + 1, `${delayMs}`);
  }
});

test("a primary that lived for a minute is started again after 1 s", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  for (let round = 0; round < 3; round++) {
    const count = world.processes.workers.length;
    await world.clock.advance(60_000);
    world.processes.last.exit({ kind: "signal", signal: "SIGKILL" });
    await world.clock.advance(1000);
    assert.equal(world.processes.workers.length, count + 1);
  }
});

test("status tells why a primary is being started again, until it is ready", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  world.processes.born = (worker) => {
    worker.report = QUIET_REPORT;
  };
  world.processes.last.exit({ kind: "signal", signal: "SIGKILL" });
  assert.match((await world.notes())[0]!, /started again in 1 s: It was killed by SIGKILL\.$/);
  await world.clock.advance(1000);
  world.processes.last.says({ kind: "ready" });
  assert.deepEqual(await world.notes(), []);
});

test("a primary that ends with another code falls back to init, and status says why and what to type", async () => {
  for (const code of [0, 66, 71, 78]) {
    const world = new World();
    await world.resource.changeRole("primary");
    world.processes.last.exit({ kind: "code", code });
    await settle();
    assert.equal(world.resource.role, "init");
    const [note, next] = await world.notes();
    assert.match(note!, new RegExp(`fell back to init: It ended with exit code ${code}\\.`));
    assert.match(next!, /the other node's copy, there: hastctl role primary r0\. When the cause/);
    assert.match(next!, /here: hastctl role secondary r0, or, .* hastctl role primary r0$/);
    await world.clock.advance(60_000);
    assert.equal(world.processes.workers.length, 1);
  }
});

test("a restarted primary that fails for good falls back to init", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  world.processes.born = (worker) => {
    worker.says({ kind: "failed", exitCode: 66, message: "the disk is gone" });
    worker.exit({ kind: "code", code: 66 });
  };
  world.processes.last.exit({ kind: "signal", signal: "SIGBUS" });
  await world.clock.advance(1000);
  assert.equal(world.resource.role, "init");
  assert.match((await world.notes())[0]!, /The disk is gone\./);
});

test("a restarted primary that hangs is killed and started again", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  world.processes.born = () => undefined;
  world.processes.last.exit({ kind: "signal", signal: "SIGBUS" });
  // The other node may be asked first, which takes up to twice `timeout`.
  await world.clock.advance(1000 + 60_000 + 40_000);
  assert.deepEqual(world.processes.last.kills, ["SIGKILL"]);
  await world.clock.advance(2000);
  assert.equal(world.processes.workers.length, 3);
  assert.equal(world.resource.role, "primary");
});

test("asking for primary while it waits to be started again starts it now", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  world.processes.last.exit({ kind: "signal", signal: "SIGBUS" });
  assert.equal((await world.resource.changeRole("primary")).kind, "done");
  assert.equal(world.processes.workers.length, 2);
  await world.clock.advance(60_000);
  assert.equal(world.processes.workers.length, 2);
});

test("leaving role primary ends the wait for a new worker", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  world.processes.last.exit({ kind: "signal", signal: "SIGBUS" });
  assert.equal((await world.resource.changeRole("init")).kind, "done");
  await world.clock.advance(60_000);
  assert.equal(world.processes.workers.length, 1);
});

test("events of workers arrive in one place", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  world.processes.last.says({ kind: "event", event: "connect" });
  world.processes.last.says({ kind: "event", event: "split-brain" });
  assert.deepEqual(world.events, ["connect", "split-brain"]);
});

// --- Status.

test("a worker that does not answer costs its own entry one second and no more (BD-36)", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  let answered = false;
  const entry = world.resource.statusEntry().finally(() => {
    answered = true;
  });
  await world.clock.advance(999);
  assert.equal(answered, false);
  await world.clock.advance(1);
  assert.equal(answered, true);
  const { outcome, notes } = await entry;
  assert(outcome.kind === "known");
  assert.equal(outcome.status.worker, null);
  assert.equal(outcome.status.workerpid, 100);
  assert.deepEqual(notes, ["The worker (pid 100) does not answer."]);
});

/** One round after the other. @returns what the last one said */
async function rounds(world: World, count: number): Promise<string> {
  let said = "";
  for (let round = 0; round < count; round++) {
    const watched = world.resource.watch();
    await world.clock.advance(STATUS_TIMEOUT_MS);
    said = await watched;
  }
  return said;
}

test("a worker that has hung for too many rounds is killed, and started again as after a crash", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  const worker = world.processes.last;
  assert.equal(await rounds(world, SILENT_ROUNDS_MAX - 1), "does not answer");
  const [question] = worker.sent.filter(({ kind }) => kind === "status").slice(-1);
  assert(question?.kind === "status");
  worker.says({ kind: "status", id: question.id, report: QUIET_REPORT });
  worker.report = { ...QUIET_REPORT, status: "degraded" };
  assert.equal(await rounds(world, 1), "degraded");
  worker.report = null;
  assert.equal(await rounds(world, SILENT_ROUNDS_MAX - 1), "does not answer");
  assert.deepEqual(worker.kills, []);
  await rounds(world, 1);
  assert.deepEqual(worker.kills, ["SIGKILL"]);
  assert(world.log.says("ERROR [r0] (primary) The worker (pid 100) has not answered for a minute"));
  await world.clock.advance(RESTART_DELAY_MIN_MS);
  assert.equal(world.resource.role, "primary");
  assert.notEqual(world.processes.last, worker);
});

test("a worker that hangs in the kernel is killed once, and what it waits for is said", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  const worker = world.processes.last;
  worker.killable = false;
  await rounds(world, 3 * SILENT_ROUNDS_MAX);
  assert.deepEqual(worker.kills, ["SIGKILL"]);
  assert(
    world.log.says("ERROR [r0] (primary) The worker (pid 100) cannot be killed; it probably waits"),
  );
});

test("a worker that starts, or was told to stop, is not watched: others have their eyes on it", async () => {
  const world = new World();
  world.processes.born = () => undefined;
  void world.resource.changeRole("primary");
  await settle();
  assert.equal(await rounds(world, SILENT_ROUNDS_MAX), "");
  world.processes.last.says({ kind: "ready" });
  await settle();
  world.processes.last.obedient = false;
  void world.resource.changeRole("init");
  await settle();
  await rounds(world, SILENT_ROUNDS_MAX);
  assert.deepEqual(world.processes.last.kills, []);
});

test("a worker that does not answer is asked once, however often status is wanted", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  for (let round = 0; round < 5; round++) {
    const entries = [world.resource.statusEntry(), world.resource.statusEntry()];
    await world.clock.advance(1000);
    await Promise.all(entries);
  }
  assert.deepEqual(world.processes.last.kinds, ["start", "status"]);
  // Its late answer is for whoever asks then.
  const entry = world.resource.statusEntry();
  const question = world.processes.last.sent[1]!;
  assert(question.kind === "status");
  world.processes.last.says({ kind: "status", id: question.id, report: QUIET_REPORT });
  const { outcome } = await entry;
  assert(outcome.kind === "known");
  assert.equal(outcome.status.worker, QUIET_REPORT);
});

test("a worker that goes while it is asked leaves an entry without its part", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  const entry = world.resource.statusEntry();
  world.processes.last.exit({ kind: "code", code: 66 });
  const { outcome } = await entry;
  assert(outcome.kind === "known");
  assert.equal(outcome.status.worker, null);
  assert.equal(outcome.status.workerpid, 0);
  assert.equal(outcome.status.role, "init");
});

test("notes of the worker follow our own", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  world.processes.last.report = { ...QUIET_REPORT, notes: ["Resync: 10 % done."] };
  assert.deepEqual(await world.notes(), ["Resync: 10 % done."]);
});

// --- Handshake.

test("P1 is answered with the version, a token and nothing else; P2 makes a worker with both sockets", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  const { a, b } = await world.connect();
  assert.deepEqual(s1(a), {
    kind: "accepted",
    version: 2,
    token: new Uint8Array(16).fill(1),
    extensions: 0n,
  });
  const worker = world.processes.last;
  assert.deepEqual(worker.identity, { resource: "r0", role: "secondary" });
  assert.deepEqual(worker.start.hello, {
    version: 2,
    extensions: 0n,
    virgin: false,
    resuid: 7n,
    localcnt: 2n,
    remotecnt: 1n,
    remarks: null,
    life: null,
    whole: false,
    invalidate: false,
    left: null,
  });
  assert.deepEqual(worker.sent.slice(1), [
    { kind: "socket", channel: "a", peer: a.peer },
    { kind: "socket", channel: "b", peer: b.peer },
  ]);
  assert.deepEqual(worker.sockets, [a, b]);
  assert.equal(world.clock.timerCount, 0);
});

test("S-9: what a secondary's worker leaves goes to the next one, once, and only while the role lasts", async () => {
  const something = { cache: 8n, held: { resuid: 7n, localcnt: 1n, remotecnt: 2n } };
  const world = new World();
  const left = (): unknown => world.processes.last.start.hello?.left;
  const leave = async (exit: Parameters<typeof world.processes.last.exit>[0]): Promise<void> => {
    world.processes.last.says({ kind: "left", left: something });
    world.processes.last.exit(exit);
    await settle();
  };
  await world.resource.changeRole("secondary");
  await world.connect();
  assert.equal(left(), null);
  await leave({ kind: "code", code: 75 });
  await world.connect();
  assert.deepEqual(left(), something);
  world.processes.last.exit({ kind: "signal", signal: "SIGKILL" });
  await settle();
  await world.connect();
  assert.equal(left(), null, "one that was killed left nothing");
  await leave({ kind: "code", code: 75 });
  await world.resource.changeRole("init");
  await world.resource.changeRole("secondary");
  await world.connect();
  assert.equal(left(), null, "disks may be swapped in role init");
  await leave({ kind: "code", code: 75 });
  await world.resource.changeRole("primary");
  await world.resource.changeRole("secondary");
  await world.connect();
  assert.equal(left(), null, "as primary it was written");
});

test("S-9: what a secondary's worker leaves outlasts a reload that restarts the role, on the same disk", async () => {
  const left = { cache: 8n, held: { resuid: 7n, localcnt: 1n, remotecnt: 2n } };
  for (const [local, running, kept] of [
    [settingsOf("r0").local, false, true],
    [settingsOf("r0").local, true, true],
    ["/dev/sdb1", true, false],
  ] as const) {
    const world = new World();
    await world.resource.changeRole("secondary");
    await world.connect();
    const worker = world.processes.last;
    const leave = (): void => {
      worker.says({ kind: "left", left });
      worker.exit({ kind: "code", code: 0 });
    };
    if (!running) leave();
    await settle();
    const done = world.resource.reconfigure(
      settingsOf("r0", { local, replication: "async" }),
      () => ({ kind: "restarted" }),
      () => undefined,
    );
    await settle();
    if (running) leave();
    await done;
    await world.connect();
    assert.deepEqual(world.processes.last.start.hello?.left, kept ? left : null, local);
  }
});

test("a secondary's worker that never gets ready is killed, and the next connection counts", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  world.processes.born = () => undefined;
  await world.connect();
  await world.clock.advance(READY_TIMEOUT_MS - 1);
  assert.notEqual(await world.workerpid(), 0);
  await world.clock.advance(1);
  assert.equal(await world.workerpid(), 0);
  await world.connect();
  assert.equal(world.processes.workers.length, 2);
});

test("a new P1 is answered only when the old worker has finished and gone (S-5)", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await world.connect();
  const old = world.processes.last;
  old.obedient = false;
  const a = await world.p1();
  assert.deepEqual(old.kinds, ["start", "socket", "socket", "stop"]);
  await world.clock.advance(STOP_GRACE_MS - 1);
  assert.equal(a.written.length, 0);
  assert.equal(a.state, "open");
  old.exit({ kind: "code", code: 0 });
  await settle();
  assert.equal(s1(a).kind, "accepted");
  assert.deepEqual(old.kills, []);
});

test("an old worker that does not finish is killed, and only then is P1 answered (S-8)", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await world.connect();
  const old = world.processes.last;
  old.obedient = false;
  const a = await world.p1();
  await world.clock.advance(STOP_GRACE_MS);
  assert.deepEqual(old.kills, ["SIGKILL"]);
  assert.equal(s1(a).kind, "accepted");
});

test("the newest P1 counts: one that waits is closed, and so is a half-open connection", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await world.connect();
  world.processes.last.obedient = false;
  const first = await world.p1();
  const second = await world.p1();
  assert.equal(first.state, "destroyed");
  world.processes.last.exit({ kind: "code", code: 0 });
  await settle();
  assert.equal(first.written.length, 0);
  const old = s1(second);
  assert(old.kind === "accepted");

  const third = await world.p1();
  assert.equal(second.state, "destroyed");
  const fresh = s1(third);
  assert(fresh.kind === "accepted");
  assert.notDeepEqual(fresh.token, old.token);
  const b = new FakeSocket("10.0.0.2");
  assert.equal(world.resource.secondStep(b, world.p2(old.token))?.errmsg, "Token doesn't match.");
});

test("a role change tells a half-open connection, asking it to wait where the role becomes primary", async () => {
  for (const role of ["init", "primary"] as const) {
    const world = new World();
    await world.resource.changeRole("secondary");
    const a = await world.p1();
    const written = a.written.length;
    const change = world.resource.changeRole(role);
    await world.clock.advance(12_000);
    await change;
    assert.deepEqual(decodeS1(a.written.subarray(written + FRAME_HEADER_SIZE)), {
      kind: "refused",
      errmsg: `Remote node acts as ${role} for the resource and not as secondary.`,
      wait: role === "primary",
    });
    assert.equal(a.state, "ended");
  }
});

test("a P1 that waits for the old worker is refused when the role changes meanwhile", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await world.connect();
  const old = world.processes.last;
  old.obedient = false;
  const a = await world.p1();
  const change = world.resource.changeRole("primary");
  await world.clock.advance(12_000);
  await settle();
  assert.equal(s1(a).kind, "refused");
  assert.equal(a.state, "ended");
  old.exit({ kind: "code", code: 0 });
  assert.equal((await change).kind, "done");
  assert.equal(world.processes.last.identity.role, "primary");
});

test("a secondary keeps its role when its worker ends, and status keeps what the worker said", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await world.connect();
  world.processes.last.says({ kind: "failed", exitCode: 78, message: "split-brain" });
  world.processes.last.exit({ kind: "code", code: 78 });
  assert.equal(world.resource.role, "secondary");
  assert.deepEqual(await world.notes(), ["Split-brain."]);
  await world.connect();
  world.processes.last.report = QUIET_REPORT;
  world.processes.last.says({ kind: "ready" });
  assert.deepEqual(await world.notes(), []);
});

test("a secondary whose worker was killed says so in the log, since nobody else does", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await world.connect();
  world.processes.last.exit({ kind: "signal", signal: "SIGKILL" });
  assert(world.log.says("WARNING [r0] (secondary) The worker has gone: it was killed by SIGKILL."));
});

test("S-2: a secondary whose disk is busy says who has it, and that the primary goes on alone", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  world.processes.born = (worker) => {
    const message = "/dev/sdb is in use. See who: fuser -v /dev/sdb; lsblk /dev/sdb";
    worker.says({ kind: "failed", exitCode: 66, message });
    worker.exit({ kind: "code", code: 66 });
  };
  await world.connect();
  assert.deepEqual(await world.notes(), [
    "/dev/sdb is in use. See who: fuser -v /dev/sdb; lsblk /dev/sdb",
    "the primary goes on alone, and tries again by itself: when the cause is gone, nothing is to be typed",
  ]);
});

test("status never ends a command with a full stop", async () => {
  const world = new World();
  assert.deepEqual(await world.notes(), []);
  world.processes.born = (worker) => {
    const message = "/run/x: another process listens there. See who: fuser -v /run/x";
    worker.says({ kind: "failed", exitCode: 71, message });
    worker.exit({ kind: "code", code: 71 });
  };
  await world.resource.changeRole("primary");
  assert.match((await world.notes())[0]!, /fuser -v \/run\/x$/);
});

test("a secondary that cannot get a process closes both connections and stays secondary (BD-45)", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  const a = await world.p1();
  const answer = s1(a);
  assert(answer.kind === "accepted");
  world.processes.shortage = "spawn ENOMEM";
  world.resource.secondStep(new FakeSocket("10.0.0.2"), world.p2(answer.token));
  await settle();
  assert.equal(world.resource.role, "secondary");
  assert.equal(await world.workerpid(), 0);
  world.processes.shortage = null;
  await world.connect();
  assert.equal(world.processes.alive.length, 1);
});

// --- Stopping.

test("stop() ends the worker within its time, and no role change succeeds afterwards", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  world.processes.last.obedient = false;
  const stopped = world.resource.stop(10_000);
  await world.clock.advance(9_999);
  assert.deepEqual(world.processes.last.kills, []);
  await world.clock.advance(1);
  await stopped;
  assert.deepEqual(world.processes.last.kills, ["SIGKILL"]);
  const change = await world.resource.changeRole("secondary");
  assert.equal(change.kind, "failed");
  assert.equal(world.clock.timerCount, 0);
});

test("stop() during a role change lets no new worker start", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  world.processes.last.obedient = false;
  const change = world.resource
    .changeRole("secondary")
    .then(() => world.resource.changeRole("primary"));
  await settle();
  const stopped = world.resource.stop(1000);
  await world.clock.advance(1000);
  await stopped;
  assert.equal((await change).kind, "failed");
  assert.equal(world.processes.alive.length, 0);
});

/** A primary worker that the rules forbid. */
function refusing(worker: FakeWorker): void {
  worker.says({ kind: "failed", exitCode: 77, message: "the other node may have gone on" });
  worker.exit({ kind: "code", code: 77 });
}

test("S-2: a hastd that has just started does not know what its copy has missed", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  assert.equal(world.processes.last.start.trust, "unknown");
  // From here on it was there itself.
  await world.resource.changeRole("secondary");
  await world.resource.changeRole("primary");
  assert.equal(world.processes.last.start.trust, "known");
});

test("S-2: a secondary that had its primary until the link was lost may take over at once", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await world.connect();
  world.processes.last.exit({ kind: "code", code: 75 });
  await world.resource.changeRole("primary");
  assert.equal(world.processes.last.start.trust, "known");
});

test("S-2: one that was in role init meanwhile, or whose primary never got in, may not", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await world.connect();
  await world.resource.changeRole("init");
  await world.resource.changeRole("primary");
  assert.equal(world.processes.last.start.trust, "unknown");

  const other = new World();
  await other.resource.changeRole("secondary");
  other.processes.born = () => undefined;
  await other.connect();
  other.processes.last.exit({ kind: "code", code: 75 });
  await other.resource.changeRole("secondary");
  other.processes.born = (worker) => worker.says({ kind: "ready" });
  await other.resource.changeRole("primary");
  assert.equal(other.processes.last.start.trust, "unknown");
});

test("S-2: nor may one to which its primary came back, and nobody has judged what that had to show", async () => {
  for (const how of ["link", "promotion"] as const) {
    const world = new World();
    await world.resource.changeRole("secondary");
    await world.connect();
    world.processes.last.exit({ kind: "code", code: 75 });
    // It still opens its disk, and P2 may say that the primary went on alone.
    world.processes.born = () => undefined;
    await world.connect();
    if (how === "link") world.processes.last.exit({ kind: "code", code: 75 });
    world.processes.born = (worker) => worker.says({ kind: "ready" });
    const change = world.resource.changeRole("primary");
    await world.clock.advance(20_000);
    assert.equal((await change).kind, "done");
    assert.equal(world.processes.last.start.trust, "unknown");
  }
});

test("S-2: nor may one that was primary, and in role init since", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  await world.resource.changeRole("init");
  await world.resource.changeRole("primary");
  assert.equal(world.processes.last.start.trust, "unknown");

  const fallen = new World();
  await fallen.resource.changeRole("primary");
  fallen.processes.last.exit({ kind: "code", code: 74 });
  await settle();
  assert.equal(fallen.resource.role, "init");
  await fallen.resource.changeRole("primary");
  assert.equal(fallen.processes.last.start.trust, "unknown");
});

test("S-1: after a primary that lived on its peer's copy, the next one asks, and until it is heard", async () => {
  const world = new World();
  const dies = async (delayMs: number): Promise<void> => {
    world.processes.last.exit({ kind: "signal", signal: "SIGKILL" });
    await world.clock.advance(delayMs);
  };
  await world.resource.changeRole("primary");
  await dies(1000);
  assert.equal(world.processes.last.start.trust, "resumed");
  // Its disk has failed, perhaps before it could say so on that disk.
  world.processes.last.says({ kind: "copy", copy: { state: "inconsistent", forced: null } });
  world.processes.born = refusing;
  await dies(2000);
  assert.equal(world.processes.last.start.trust, "unknown");
  assert.equal(world.resource.role, "primary", "the peer may answer yet");
  assert.match(
    (await world.notes())[0]!,
    /started again in 4 s: .*the other node may have gone on/i,
  );
  world.processes.born = (worker) => worker.serves();
  await world.clock.advance(4000);
  assert.equal(world.processes.last.start.trust, "unknown");
  // Whole again.
  world.processes.last.says({ kind: "copy", copy: { state: "uptodate", forced: null } });
  await dies(8000);
  assert.equal(world.processes.last.start.trust, "resumed");
});

test("S-2: after a split-brain, or what its disk did not record, a node's own knowledge counts no more", async () => {
  for (const [exitCode, message] of [
    [78, "both nodes took writes"],
    [74, "the metadata could not be written"],
  ] as const) {
    const world = new World();
    await world.resource.changeRole("primary");
    await world.resource.changeRole("secondary");
    world.processes.born = (worker) => {
      worker.says({ kind: "ready" });
      worker.says({ kind: "failed", exitCode, message });
      worker.exit({ kind: "code", code: exitCode });
    };
    await world.connect();
    world.processes.born = (worker) => worker.says({ kind: "ready" });
    await world.resource.changeRole("primary");
    assert.equal(world.processes.last.start.trust, "unknown");
  }
});

test("a promotion that the rules forbid leaves the node in the role it had", async () => {
  for (const role of ["init", "secondary"] as const) {
    const world = new World();
    await world.resource.changeRole(role);
    world.processes.born = refusing;
    const change = await world.resource.changeRole("primary");
    assert.deepEqual(change, {
      kind: "failed",
      previousRole: role,
      reason: "the other node may have gone on",
    });
    assert.equal(world.resource.role, role);
    assert.equal(world.resource.announcedRole, role);
    assert(world.log.says(`Role primary refused; the role is still ${role}`));
    assert.match((await world.notes())[0]!, /^Role primary was refused: The other node/i);
  }
});

test("S-2: a secondary that a trifle keeps from promotion stays one, and knows its copy as before", async () => {
  const trifles: readonly ((worker: FakeWorker) => void)[] = [
    ...[71, 75].map((code) => (worker: FakeWorker) => {
      worker.says({ kind: "failed", exitCode: code, message: "NBD server: address in use" });
      worker.exit({ kind: "code", code });
    }),
    (worker) => worker.exit({ kind: "not-started", reason: "spawn ENOMEM" }),
  ];
  for (const trifle of trifles) {
    const world = new World();
    await world.resource.changeRole("secondary");
    await world.connect();
    world.processes.last.exit({ kind: "code", code: 75 });
    world.processes.born = trifle;
    const change = await world.resource.changeRole("primary");
    assert.equal(change.kind, "failed");
    assert.equal(world.resource.role, "secondary");
    assert.equal(world.resource.announcedRole, "secondary");
    assert(world.log.says("Role primary refused; the role is still secondary: "));
    assert.match((await world.notes())[0]!, /^Role primary was refused: /);
    world.processes.born = (worker) => worker.says({ kind: "ready" });
    assert.equal((await world.resource.changeRole("primary")).kind, "done");
    assert.equal(world.processes.last.start.trust, "known");
  }
});

test("a promotion by force that fails leaves no secondary: its copy is not the primary's any more", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await world.connect();
  world.processes.last.exit({ kind: "code", code: 75 });
  world.processes.born = (worker) => worker.exit({ kind: "code", code: 71 });
  await world.resource.changeRole("primary", "by force");
  assert.equal(world.resource.role, "init");
});

test("S-2, S-9: who was refused for what the other node said, or whose disk failed, knows that its copy may lack something", async () => {
  for (const [exitCode, message, trust] of [
    [77, "the other node is primary, or is being promoted at this very moment, too", "known"],
    [77, "the other node has data that this copy lacks, or may", "unknown"],
    [71, "NBD server: address in use", "known"],
    [74, "local component failed (EIO)", "unknown"],
    [66, "flushing /dev/sdb failed: Input/output error", "unknown"],
    [75, "/dev/sdb is in use", "known"],
  ] as const) {
    const world = new World();
    await world.resource.changeRole("secondary");
    await world.connect();
    world.processes.last.exit({ kind: "code", code: 75 });
    world.processes.born = (worker) => {
      worker.says({ kind: "failed", exitCode, message });
      worker.exit({ kind: "code", code: exitCode });
    };
    await world.resource.changeRole("primary");
    assert.equal(world.resource.role, "secondary");
    world.processes.born = (worker) => worker.says({ kind: "ready" });
    await world.resource.changeRole("primary");
    assert.equal(world.processes.last.start.trust, trust);
  }
});

test("--force gets past a primary's worker that is refused again and again, or asks", async () => {
  for (const asking of [false, true]) {
    const world = new World();
    await world.resource.changeRole("primary");
    world.processes.last.says({ kind: "copy", copy: { state: "inconsistent", forced: null } });
    world.processes.born = asking ? () => undefined : refusing;
    world.processes.last.exit({ kind: "signal", signal: "SIGKILL" });
    await world.clock.advance(1500);
    const before = world.processes.last;
    assert.equal(before.start.trust, "unknown");
    assert.equal(before.alive, asking);
    world.processes.born = (worker) => worker.says({ kind: "ready" });
    assert.deepEqual(await world.resource.changeRole("primary", "by force"), {
      kind: "done",
      previousRole: "primary",
    });
    assert.equal(world.processes.last.start.trust, "forced");
    assert(world.log.says("WARNING [r0] (primary) Role primary is forced"));
    assert.equal(world.processes.alive.length, 1);
    // It works: there is nothing to force.
    const { length } = world.processes.workers;
    assert.equal((await world.resource.changeRole("primary", "by force")).kind, "done");
    await world.clock.advance(60_000);
    assert.equal(world.processes.workers.length, length);
  }
});

const LACKS = { since: Date.UTC(2026, 10, 21, 6, 53, 26) };
/** In status, of one that ended with LACKS. */
const SAVE_FIRST = [
  "The other node lacks what was acknowledged here since 2026-11-21 06:53:26 UTC",
  "First try to save this disk (cables, controller, ddrescue to another one; runbook failed-disk.md, case B); then " +
    "here: hastctl role primary r0",
  "Only if it cannot be saved, to go on without those writes, there: hastctl role primary r0",
];

/** Its disk has failed. */
function fails(worker: FakeWorker, peerLacks?: PeerLacks): void {
  const lacks = peerLacks === undefined ? {} : { peerLacks };
  const message = "local component failed (EIO)";
  worker.says({ kind: "failed", exitCode: 74, message, ...lacks });
  worker.exit({ kind: "code", code: 74 });
}

test("where the other node lacks something, status says so, and to save this disk first", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  fails(world.processes.last, LACKS);
  await settle();
  const [first, ...advice] = await world.notes();
  assert.match(first!, /fell back to init: Local component failed \(EIO\)\.$/);
  assert.deepEqual(advice, SAVE_FIRST);
  for (const line of SAVE_FIRST) assert(world.log.says(line));

  world.processes.born = (worker) => worker.says({ kind: "ready" });
  await world.resource.changeRole("primary");
  fails(world.processes.last);
  await settle();
  assert.match((await world.notes())[1]!, /^To go on with the other node's copy, there/);
});

test("that the other node lacks something is said, too, of a disk that fails as the primary stops", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  world.processes.last.obedient = false;
  const change = world.resource.changeRole("secondary");
  await settle();
  fails(world.processes.last, LACKS);
  const done = await change;
  assert(done.kind === "failed");
  assert.equal(
    done.reason,
    [
      "the disk failed as the primary stopped (local component failed (EIO)), and may lack what was written last " +
        "and not flushed before",
      ...SAVE_FIRST,
    ].join(". "),
  );
});

/** A primary that is asked for another role, or restarted, and whose disk fails as it stops. */
async function failingStop<Answer>(world: World, asked: () => Promise<Answer>): Promise<Answer> {
  await world.resource.changeRole("primary");
  const worker = world.processes.last;
  worker.obedient = false;
  const answer = asked();
  await settle();
  assert.equal(worker.kinds.at(-1), "stop");
  worker.says({ kind: "failed", exitCode: 74, message: "local component failed (EIO)" });
  worker.exit({ kind: "code", code: 74 });
  return await answer;
}

test("S-4, S-9: whoever ends a primary hears that its disk failed at the end, and what it lacks is not believed", async () => {
  for (const role of ["init", "secondary"] as const) {
    const world = new World();
    const change = await failingStop(world, () => world.resource.changeRole(role));
    assert.equal(change.kind, "failed");
    assert(change.kind === "failed");
    assert.match(
      change.reason,
      /^the disk failed as the primary stopped \(local component failed \(EIO\)\), and may lack .*other node's copy has that, if .* there: hastctl role primary r0\. .*hastctl role primary r0$/,
    );
    assert.equal(world.resource.role, "init");
    const [note] = await world.notes();
    const said =
      role === "init"
        ? /^The role is init, but the disk failed/
        : /^Role secondary was refused: The disk/;
    assert.match(note!, said);
    assert(world.log.says("the disk failed as the primary stopped"));
    await world.resource.changeRole("secondary");
    await world.resource.changeRole("primary");
    assert.equal(world.processes.last.start.trust, "unknown");
  }
});

test("S-9: a primary that hastd had to kill is not believed: a flush may have failed with nobody left to hear it", async () => {
  const trust = (world: World): unknown => world.processes.last.start.trust;
  const serves = (worker: FakeWorker): void => worker.serves();

  const stopped = new World();
  await stopped.resource.changeRole("primary");
  stopped.processes.last.obedient = false;
  const change = stopped.resource.changeRole("secondary");
  await stopped.clock.advance(STOP_GRACE_MS);
  assert.equal((await change).kind, "done");
  await stopped.resource.changeRole("primary");
  assert.equal(trust(stopped), "unknown", "it did not stop");

  const watched = new World();
  await watched.resource.changeRole("primary");
  await rounds(watched, SILENT_ROUNDS_MAX);
  await watched.clock.advance(RESTART_DELAY_MIN_MS);
  assert.equal(trust(watched), "resumed anew", "it did not answer");
  watched.processes.last.exit({ kind: "signal", signal: "SIGSEGV" });
  await watched.clock.advance(2 * RESTART_DELAY_MIN_MS);
  assert.equal(trust(watched), "resumed", "it served again, and died of itself");

  const starting = new World();
  await starting.resource.changeRole("secondary");
  await starting.connect();
  starting.processes.last.exit({ kind: "code", code: 75 });
  starting.processes.born = () => undefined;
  const promotion = starting.resource.changeRole("primary");
  await starting.clock.advance(READY_TIMEOUT_MS + 40_000);
  assert.equal((await promotion).kind, "failed");
  starting.processes.born = serves;
  await starting.resource.changeRole("primary");
  assert.equal(trust(starting), "unknown", "it was never ready");
});

test("S-9: what the peer has kept counts until clients have been served without, whatever ends a primary before", async () => {
  const ready = (worker: FakeWorker): void => worker.says({ kind: "ready" });
  const reload = (world: World): Promise<unknown> =>
    world.resource.reconfigure(
      settingsOf("r0"),
      () => ({ kind: "restarted" }),
      () => undefined,
    );
  for (const [way, trust] of [
    ["it dies", "resumed anew"],
    ["a reload", "resumed anew"],
    ["the role goes and comes", "unknown"],
  ] as const) {
    const world = new World();
    await world.resource.changeRole("primary");
    world.processes.born = ready;
    await rounds(world, SILENT_ROUNDS_MAX);
    await world.clock.advance(RESTART_DELAY_MIN_MS);
    assert.equal(world.processes.last.start.trust, "resumed anew");
    if (way === "it dies") {
      world.processes.last.exit({ kind: "signal", signal: "SIGSEGV" });
      await world.clock.advance(2 * RESTART_DELAY_MIN_MS);
    } else if (way === "a reload") {
      await reload(world);
    } else {
      await world.resource.changeRole("secondary");
      await world.resource.changeRole("primary");
    }
    assert.equal(world.processes.workers.length, 3);
    assert.equal(world.processes.last.start.trust, trust, way);
    world.processes.last.says({ kind: "settled" });
    await reload(world);
    assert.equal(world.processes.last.start.trust, "resumed", way);
  }

  const begun = new World();
  begun.processes.born = ready;
  await begun.resource.changeRole("primary");
  assert.equal(begun.processes.last.start.trust, "unknown");
  await reload(begun);
  assert.equal(begun.processes.last.start.trust, "resumed anew");
});

test("S-9: a primary that is told to go before its first flush has ended is not believed", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  world.processes.born = () => undefined;
  world.processes.last.exit({ kind: "signal", signal: "SIGSEGV" });
  await world.clock.advance(RESTART_DELAY_MIN_MS);
  assert.equal(world.processes.last.start.trust, "resumed");
  await world.resource.changeRole("secondary");
  world.processes.born = (worker) => worker.says({ kind: "ready" });
  await world.resource.changeRole("primary");
  assert.equal(world.processes.last.start.trust, "unknown");
});

test("S-9: a primary that is told to go while it asks the other node is as believed as before", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  world.processes.born = (worker) =>
    worker.says({ kind: "copy", copy: { state: "uptodate", forced: null } });
  world.processes.last.exit({ kind: "signal", signal: "SIGSEGV" });
  await world.clock.advance(RESTART_DELAY_MIN_MS);
  await world.resource.changeRole("secondary");
  world.processes.born = (worker) => worker.says({ kind: "ready" });
  await world.resource.changeRole("primary");
  assert.equal(world.processes.last.start.trust, "known");
});

test("S-9: a primary that ends by itself, just as it is killed, is believed", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  const worker = world.processes.last;
  worker.obedient = false;
  worker.killable = false;
  const change = world.resource.changeRole("secondary");
  await world.clock.advance(STOP_GRACE_MS);
  worker.exit({ kind: "code", code: 0 });
  assert.equal((await change).kind, "done");
  await world.resource.changeRole("primary");
  assert.equal(world.processes.last.start.trust, "known");
});

test("S-9: a primary that a reload restarts does not go on over a disk that failed as it stopped", async () => {
  const world = new World();
  const way = { kind: "restarted" } as const;
  const restart = () =>
    world.resource.reconfigure(
      settingsOf("r0", { timeout: 5 }),
      () => way,
      () => undefined,
    );
  const done = await failingStop(world, restart);
  assert.match(done.failure!, /^the disk failed as the primary stopped/);
  assert.equal(world.resource.role, "init");
  assert.equal(world.resource.settings.timeout, 5);
  assert.equal(world.processes.workers.length, 1);
  const notes = await world.notes();
  assert.match(notes[0]!, /^After a reload the role primary .*now init: The disk failed/);
  assert.match(notes[1]!, /^To go on with the other node's copy, there: hastctl role primary r0/);
  await world.resource.changeRole("primary");
  assert.equal(world.processes.last.start.trust, "unknown");
});

test("--force is handed on, logged as a warning, and asks no live primary (S-11)", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await world.connect();
  world.processes.last.report = { ...QUIET_REPORT, silentMs: 0 };
  const change = world.resource.changeRole("primary", "by force");
  await world.clock.advance(100);
  assert.equal((await change).kind, "done");
  assert.equal(world.processes.last.start.trust, "forced");
  assert(world.log.says("WARNING [r0] (secondary) Role primary is forced"));
});

test("status says whether this hastd vouches for the copy: not after its start, but once it has been connected", async () => {
  const world = new World();
  const vouched = async (): Promise<true | undefined> => {
    const entry = world.resource.statusEntry();
    await world.clock.advance(1000);
    const { outcome } = await entry;
    assert(outcome.kind === "known");
    return outcome.status.vouched;
  };
  await world.resource.changeRole("secondary");
  assert.equal(await vouched(), undefined);
  await world.connect();
  assert.equal(await vouched(), true);
  world.processes.last.exit({ kind: "code", code: 75 });
  assert.equal(await vouched(), true, "it saw the link go");
  for (const exit of [
    { kind: "code", code: 78 }, // refused its primary: split-brain
    { kind: "code", code: 74 }, // its disk did not take a record
    { kind: "code", code: 66 }, // nor could it be opened
    { kind: "code", code: 0 }, // somebody's SIGTERM
    { kind: "signal", signal: "SIGKILL" },
  ] as const) {
    await world.connect();
    assert.equal(await vouched(), true);
    world.processes.last.exit(exit);
    assert.equal(await vouched(), undefined, "S-2: the primary lives, and goes on alone");
  }
  await world.connect();
  await world.resource.changeRole("init");
  assert.equal(await vouched(), undefined);
});

test("status says what the copy is worth, to this hastd and now", async () => {
  const world = new World();
  const copy = async (): Promise<string | undefined> => {
    const entry = world.resource.statusEntry();
    await world.clock.advance(1000);
    const { outcome } = await entry;
    assert(outcome.kind === "known");
    return outcome.status.copy;
  };
  assert.equal(await copy(), undefined, "nobody has looked yet");
  await world.resource.changeRole("secondary");
  assert.equal(await copy(), "consistent", "its primary may have gone on");
  await world.connect();
  assert.equal(await copy(), "uptodate");
  world.processes.last.says({ kind: "copy", copy: { state: "inconsistent", forced: null } });
  assert.equal(await copy(), "inconsistent");
  world.processes.last.exit({ kind: "code", code: 75 });
  assert.match((await world.notes()).join(), /unfinished synchronization.*hastctl role primary r0/);
  world.processes.born = (worker) => {
    const forced = { state: "inconsistent", at: 1_700_000_000 } as const;
    worker.says({ kind: "copy", copy: { state: "consistent", forced } });
    worker.says({ kind: "ready" });
  };
  await world.resource.changeRole("primary", "by force");
  assert.equal(await copy(), "uptodate");
  assert.match(
    (await world.notes()).join(),
    /promoted by force at 2023-11-14T22:13:20Z, while this copy was inconsistent/,
  );
});

// ---- two copies that do not fit together

/** A secondary that has just refused the primary with P2's counters 2/1. */
async function diverged(world: World): Promise<{ a: FakeSocket; b: FakeSocket }> {
  const sockets = await world.connect();
  const worker = world.processes.last;
  worker.says({ kind: "diverged", divergence: DIVERGENCE });
  worker.says({ kind: "event", event: "split-brain" });
  worker.exit({ kind: "code", code: 78 });
  await settle();
  return sockets;
}

test("BD-34: a primary that asks again with the same counters is refused without worker and event", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await diverged(world);
  for (let attempt = 0; attempt < 5; attempt++) {
    await world.clock.advance(10_000);
    const { a } = await world.connect();
    assert.match(Buffer.from(a.written).toString("latin1"), /Split-brain condition!/);
    assert.equal(a.state, "ended");
  }
  assert.equal(world.processes.workers.length, 1);
  // Once a minute the disk is looked at again; and nobody is told twice.
  await world.clock.advance(10_000);
  await diverged(world);
  assert.equal(world.processes.workers.length, 2);
  assert.deepEqual(world.events, ["split-brain"]);
  assert.match((await world.notes()).join("\n"), /hastctl resolve --discard-local --dry-run r0/);
});

test("BD-34: a primary whose counters have changed is judged anew at once", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await diverged(world);
  const a = await world.p1();
  const answer = decodeS1(a.written.subarray(FRAME_HEADER_SIZE));
  assert.ok(answer.kind === "accepted");
  const p2 = world.p2(answer.token, { localcnt: 3n });
  assert.equal(world.resource.secondStep(new FakeSocket("10.0.0.2"), p2), null);
  assert.equal(world.processes.workers.length, 2);
});

test("S-10: resolve hands the worker the counters that the refused primary sent, and is deaf meanwhile", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await diverged(world);
  const resolved = world.resource.discardLocal(false);
  await settle();
  const worker = world.processes.last;
  assert.deepEqual(worker.kinds, ["start", "discard"]);
  assert.equal(world.resource.announcedRole, "init", "the primary comes again later");
  worker.says({ kind: "discarded", plan: "discard", lines: ["so much"] });
  worker.exit({ kind: "code", code: 0 });
  assert.deepEqual(await resolved, { kind: "done", lines: ["so much"] });
  assert.match((await world.notes()).join("\n"), /were thrown away/);
  // The very same counters are judged anew now.
  await world.connect();
  assert.equal(world.processes.workers.length, 3);
});

test("S-10: a copy that the worker does not throw away is a failure, and stays as it was", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await diverged(world);
  const resolved = world.resource.discardLocal(false);
  await settle();
  const worker = world.processes.last;
  worker.says({ kind: "discarded", plan: "refuse", lines: ["the other node's copy is outdated"] });
  worker.exit({ kind: "code", code: 0 });
  const reason = "the other node's copy is outdated";
  assert.deepEqual(await resolved, { kind: "failed", reason });
  assert.doesNotMatch((await world.notes()).join("\n"), /were thrown away/);
});

test("S-10: a primary's changes are in use, and are not thrown away", async () => {
  const world = new World();
  await world.resource.changeRole("primary");
  const outcome = await world.resource.discardLocal(false);
  assert(outcome.kind === "failed");
  assert.match(outcome.reason, /^this node is primary.*hastctl role secondary/);
  assert.deepEqual(world.processes.last.kinds, ["start"]);
  assert.equal(world.processes.alive.length, 1);
});

test("S-8: nothing is thrown away while an old worker still has the disk", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await diverged(world);
  // Judged anew: its counters have changed.
  const answer = s1(await world.p1());
  assert(answer.kind === "accepted");
  const p2 = { ...world.p2(answer.token), localcnt: 9n };
  assert.equal(world.resource.secondStep(new FakeSocket("10.0.0.2", 40001), p2), null);
  await settle();
  const stuck = world.processes.last;
  stuck.obedient = false;
  stuck.killable = false;
  const resolved = world.resource.discardLocal(false);
  await world.clock.advance(STOP_GRACE_MS + 5000);
  const outcome = await resolved;
  assert(outcome.kind === "failed");
  assert.match(outcome.reason, /old worker .* cannot be killed/);
  assert.deepEqual(world.processes.alive, [stuck]);
});

test("a worker that dies while it resolves is the command's failure", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  await diverged(world);
  const resolved = world.resource.discardLocal(false);
  await settle();
  world.processes.last.exit({ kind: "signal", signal: "SIGKILL" });
  const { kind } = await resolved;
  assert.equal(kind, "failed");
  assert.equal(world.resource.announcedRole, "secondary");
});

// --- Hooks.

test("every effective role change is told to the hook, and a change that fails as one to init", async () => {
  const world = new World();
  world.hookSettings = { exec: "/sbin/hook", gate: null, timeoutMs: 60_000 };
  const told = async () => {
    await settle();
    if (world.programs.started.at(-1)?.running) await world.programs.last.exit(0);
    return world.programs.calls.at(-1);
  };
  await world.resource.changeRole("secondary");
  assert.equal(await told(), "role r0 init secondary");
  await world.resource.changeRole("secondary");
  await settle();
  assert.equal(world.programs.started.length, 1);
  world.processes.born = (worker) => {
    worker.report = QUIET_REPORT;
    worker.says({ kind: "ready" });
  };
  await world.resource.changeRole("primary");
  assert.equal(await told(), "role r0 secondary primary");
  world.probe = async () => ({ kind: "unusable", reason: "no metadata" });
  await world.resource.changeRole("secondary");
  assert.equal(await told(), "role r0 primary init");
  world.processes.born = (worker) => worker.exit({ kind: "code", code: 66 });
  await world.resource.changeRole("primary");
  await settle();
  assert.equal(world.programs.started.length, 3);
});

test("BD-47: role changes and events of the worker are told in their order", async () => {
  const world = new World();
  world.hookSettings = { exec: "/sbin/hook", gate: null, timeoutMs: 60_000 };
  world.processes.born = (worker) => {
    worker.report = QUIET_REPORT;
    worker.says({ kind: "ready" });
  };
  await world.resource.changeRole("primary");
  world.processes.last.says({ kind: "event", event: "connect" });
  world.processes.last.says({ kind: "event", event: "syncstart" });
  for (let count = 0; count < 3; count++) {
    await settle();
    await world.programs.last.exit(0);
  }
  assert.deepEqual(world.programs.calls, ["role r0 init primary", "connect r0", "syncstart r0"]);
});

test("BD-47: a worker that connects before its role is settled is told of after the role", async () => {
  const world = new World();
  world.hookSettings = { exec: "/sbin/hook", gate: null, timeoutMs: 60_000 };
  world.processes.born = (worker) => {
    worker.report = QUIET_REPORT;
    worker.says({ kind: "event", event: "connect" });
    worker.says({ kind: "ready" });
  };
  await world.resource.changeRole("primary");
  for (let count = 0; count < 2; count++) {
    await settle();
    await world.programs.last.exit(0);
  }
  assert.deepEqual(world.programs.calls, ["role r0 init primary", "connect r0"]);
});

test("a gate that refuses a promotion leaves the role, and its worker, as they are", async () => {
  const world = new World();
  world.hookSettings = { exec: null, gate: "/sbin/gate", timeoutMs: 60_000 };
  await world.resource.changeRole("secondary");
  assert.equal(world.programs.started.length, 0);
  const change = world.resource.changeRole("primary");
  await settle();
  assert.deepEqual(world.programs.calls, ["prerole r0 secondary primary"]);
  assert.equal(world.processes.workers.length, 0);
  world.programs.last.prints("not on a Sunday");
  await world.programs.last.exit(1);
  assert.deepEqual(await change, {
    kind: "failed",
    previousRole: "secondary",
    reason:
      "the gate /sbin/gate refuses it (exit code 1): not on a Sunday. " +
      "When it would agree: hastctl role primary r0",
  });
  assert.equal(world.resource.role, "secondary");
});

test("S-11: a primary that comes back while the gate thinks keeps this node from promotion", async () => {
  const world = new World();
  world.hookSettings = { exec: null, gate: "/sbin/gate", timeoutMs: 60_000 };
  await world.resource.changeRole("secondary");
  const change = world.resource.changeRole("primary");
  await settle();
  await world.connect();
  world.processes.last.report = { ...QUIET_REPORT, silentMs: 0 };
  await world.programs.last.exit(0);
  await world.clock.advance(4_000);
  const { kind } = await change;
  assert.equal(kind, "failed");
  assert.equal(world.resource.role, "secondary");
});

test("a worker that asks for leave to be overwritten gets the gate's answer", async () => {
  const world = new World();
  world.hookSettings = { exec: null, gate: "/sbin/gate", timeoutMs: 60_000 };
  await world.resource.changeRole("secondary");
  await world.connect();
  const worker = world.processes.last;
  worker.report = QUIET_REPORT;
  worker.says({ kind: "may-resync" });
  await settle();
  assert.deepEqual(world.programs.calls, ["presync r0"]);
  assert(!worker.kinds.includes("resync-answer"));
  await world.programs.last.exit(0);
  assert.deepEqual(worker.sent.at(-1), { kind: "resync-answer", refusal: null });
});

test("leave that comes when the primary has lost patience is for its next attempt", async () => {
  const world = new World();
  world.hookSettings = { exec: null, gate: "/sbin/gate", timeoutMs: 60_000 };
  await world.resource.changeRole("secondary");
  await world.connect();
  world.processes.last.says({ kind: "may-resync" });
  await settle();
  // The primary comes again, which ends the worker that waits.
  await world.connect();
  await world.programs.last.exit(0);
  const second = world.processes.last;
  second.says({ kind: "may-resync" });
  await settle();
  assert.deepEqual(world.programs.calls, ["presync r0"]);
  assert.deepEqual(second.sent.at(-1), { kind: "resync-answer", refusal: null });
});

test("stop() lets hooks that wait run", async () => {
  const world = new World();
  world.hookSettings = { exec: "/sbin/hook", gate: null, timeoutMs: 60_000 };
  await world.resource.changeRole("secondary");
  await world.resource.changeRole("init");
  const stopped = world.resource.stop(10_000);
  for (let count = 0; count < 2; count++) {
    await settle();
    await world.programs.last.exit(0);
  }
  await stopped;
  assert.deepEqual(world.programs.calls, ["role r0 init secondary", "role r0 secondary init"]);
});

// --- The device of a primary.

class DeviceWorld extends World {
  readonly machine = new DeviceMachine(this.clock);
  readonly withDevice: ResourceSurroundings = {
    ...this.surroundings,
    devices: { system: this.machine, directory: "/dev/hast" },
    hooks: { programs: this.machine, settings: () => this.hookSettings },
  };
  override readonly resource = new Resource(settingsOf("r0", { device: "fuse" }), this.withDevice);

  async device(): Promise<unknown> {
    const entry = this.machine.wait(this.resource.statusEntry());
    const { outcome } = await entry;
    assert(outcome.kind === "known");
    return outcome.status.device ?? null;
  }

  role(
    role: "init" | "primary" | "secondary",
    how: "by the rules" | "by force" = "by the rules",
  ): ReturnType<Resource["changeRole"]> {
    return this.machine.wait(this.resource.changeRole(role, how));
  }
}

test("role primary is answered when the device is there, and the device is gone when another role is", async () => {
  const world = new DeviceWorld();
  assert.deepEqual(await world.role("primary"), { kind: "done", previousRole: "init" });
  const worker = world.processes.last;
  assert.match(worker.start.attach!, /^unix:\/\/\/dev\/hast\/\.[0-9a-f]{16}\/worker$/);
  assert.deepEqual(await world.device(), {
    path: "/dev/hast/r0",
    kind: "fuse",
    node: "/dev/loop5",
  });
  assert.deepEqual(await world.role("secondary"), { kind: "done", previousRole: "primary" });
  assert.equal(await world.device(), null);
  assert.deepEqual(world.machine.names("/dev/hast"), []);
  assert.equal(world.machine.tools.size, 0);
});

test("the device goes before the worker is told to stop: what is cached needs it", async () => {
  const world = new DeviceWorld();
  await world.role("primary");
  world.machine.stuck.add("sync");
  const change = world.resource.changeRole("secondary");
  await world.clock.advance(5_000);
  assert.equal(world.machine.ran.at(-1), "sync /dev/loop5");
  assert(!world.processes.last.kinds.includes("stop"));
  // It never ends: the role stays.
  const answer = await world.machine.wait(change);
  assert(answer.kind === "failed");
  assert.match(answer.reason, /could not be written/);
  assert.equal(world.resource.role, "primary");
  assert.deepEqual(world.processes.last.kinds, ["start"]);
});

test("a device in use keeps the role, and the worker; by force it does not", async () => {
  const world = new DeviceWorld();
  await world.role("primary");
  world.machine.mount();
  for (const role of ["secondary", "init"] as const) {
    const answer = await world.role(role);
    assert(answer.kind === "failed");
    assert.match(answer.reason, /mounted on \/data.*hastctl role --force/);
    assert.match(world.resource.held!, /mounted on \/data/);
  }
  assert.equal(world.resource.role, "primary");
  assert.deepEqual(world.processes.last.kinds, ["start"]);
  assert.equal((await world.role("init", "by force")).kind, "done");
  assert.equal(world.processes.alive.length, 0);
  assert(world.machine.ran.includes("umount --lazy /data"));
});

test("a device that cannot be made costs the role, and leaves neither worker nor tools", async () => {
  const world = new DeviceWorld();
  world.machine.broken.set("losetup", "no free loop device");
  const answer = await world.role("primary");
  assert(answer.kind === "failed");
  assert.match(answer.reason, /\/dev\/hast\/r0 could not be made.*no free loop device/);
  assert.equal(world.resource.role, "init");
  assert.equal(world.processes.alive.length, 0);
  assert.equal(world.machine.tools.size, 0);
  assert.deepEqual(world.machine.names("/dev/hast"), []);
});

test("a device that cannot be made leaves a secondary what it was", async () => {
  const world = new DeviceWorld();
  await world.role("secondary");
  world.machine.broken.set("losetup", "no free loop device");
  assert.equal((await world.role("primary")).kind, "failed");
  assert.equal(world.resource.role, "secondary");
  assert.equal(world.processes.alive.length, 0);
  assert.equal(world.machine.tools.size, 0);
});

test("S-9: a promotion that begins nothing takes nothing of what the last worker left", async () => {
  const left = { cache: 8n, held: { resuid: 7n, localcnt: 1n, remotecnt: 2n } };
  const world = new DeviceWorld();
  await world.role("secondary");
  await world.connect();
  world.processes.last.says({ kind: "left", left });
  world.processes.last.exit({ kind: "code", code: 75 });
  world.machine.files.set("/dev/hast/r0", "backup");
  const change = await world.role("primary");
  assert(change.kind === "failed");
  assert.match(change.reason, /is in the way/);
  await world.connect();
  assert.deepEqual(world.processes.last.start.hello?.left, left);
});

test("a machine without the tools keeps the role it has", async () => {
  const world = new DeviceWorld();
  world.machine.installed.delete("nbdfuse");
  await world.role("secondary");
  const answer = await world.role("primary");
  assert(answer.kind === "failed");
  assert.match(answer.reason, /^device fuse: nbdfuse is missing/);
  assert.equal(world.resource.role, "secondary");
});

test("a worker that has died when the device is there costs the role: nobody would start the next one", async () => {
  const world = new DeviceWorld();
  world.processes.born = (worker) => {
    worker.says({ kind: "ready" });
    worker.exit({ kind: "signal", signal: "SIGKILL" });
  };
  const answer = await world.role("primary");
  assert(answer.kind === "failed");
  assert.match(answer.reason, /SIGKILL/);
  assert.equal(world.resource.role, "init");
  assert.deepEqual(world.machine.names("/dev/hast"), []);
});

test("a worker that dies while the device is being made costs the role, too", async () => {
  const world = new DeviceWorld();
  world.machine.stuck.add("nbdfuse");
  const change = world.resource.changeRole("primary");
  await world.clock.advance(2_000);
  world.processes.last.exit({ kind: "signal", signal: "SIGKILL" });
  const answer = await world.machine.wait(change);
  assert(answer.kind === "failed");
  assert.equal(world.resource.role, "init");
  assert.equal(world.machine.tools.size, 0);
});

test("a worker that is restarted serves the same device", async () => {
  const world = new DeviceWorld();
  await world.role("primary");
  const [first] = world.processes.workers;
  world.machine.ran.length = 0;
  first!.exit({ kind: "signal", signal: "SIGKILL" });
  await world.clock.advance(10_000);
  assert.equal(world.processes.workers.length, 2);
  assert.equal(world.processes.last.start.attach, first!.start.attach);
  assert.deepEqual(world.machine.ran, []);
  assert.equal(world.machine.tools.size, 2);
});

test("a primary that falls back to init loses its device, with nothing written any more", async () => {
  const world = new DeviceWorld();
  await world.role("primary");
  world.machine.ran.length = 0;
  world.processes.last.says({ kind: "failed", exitCode: 66, message: "the disk is gone" });
  world.processes.last.exit({ kind: "code", code: 66 });
  await world.clock.advance(10_000);
  assert.equal(world.resource.role, "init");
  assert.deepEqual(world.machine.names("/dev/hast"), []);
  assert(!world.machine.ran.some((command) => command.startsWith("sync")));
});

test("a device whose tool dies is made anew while the role lasts; role primary asks for it again", async () => {
  const world = new DeviceWorld();
  await world.role("primary");
  world.processes.last.report = QUIET_REPORT;
  world.machine.broken.set("nbdfuse", "no memory");
  world.machine.dies(world.machine.pidOf("nbdkit"));
  await world.clock.advance(20_000);
  assert.match((await world.notes()).join(), /no memory/);
  assert.equal((await world.role("primary")).kind, "failed");
  world.machine.broken.clear();
  assert.equal((await world.role("primary")).kind, "done");
  assert.deepEqual(await world.notes(), []);
  assert.equal(world.machine.target("/dev/hast/r0"), "/dev/loop5");
});

test("S-1: a device that cannot tell its users of a loss is taken from them before another worker serves it", async () => {
  const world = new DeviceWorld();
  await world.role("primary");
  world.processes.last.report = QUIET_REPORT;
  const tools = [...world.machine.tools.values()];
  const [worker] = world.processes.workers;
  worker!.says({ kind: "device-misled" });
  assert(tools.every(({ kills }) => kills.includes("SIGKILL")));
  assert.match((await world.notes()).join(), /\/dev\/hast\/r0 is lost: .* gone\. Whoever has it/);
  await world.clock.advance(20_000);
  assert.equal(world.machine.target("/dev/hast/r0"), "/dev/loop5");
  assert.deepEqual(world.processes.workers, [worker], "which serves the next device");
});

test("hastd stops within its time although the device is used and hangs", async () => {
  const world = new DeviceWorld();
  await world.role("primary");
  world.machine.mount();
  for (const name of ["sync", "umount", "losetup"]) world.machine.stuck.add(name);
  const before = world.clock.now();
  await world.machine.wait(world.resource.stop(10_000));
  assert(world.clock.now() - before < 15_000);
  assert.equal(world.processes.alive.length, 0);
});

test("nobody has a role before what an earlier hastd left is cleared", async () => {
  const world = new DeviceWorld();
  await world.role("primary");
  // Its successor has another process id.
  world.machine.files.set("/proc/self/stat", stat(78, "hastd", 9000));
  world.machine.files.delete("/proc/77/stat");
  world.machine.ran.length = 0;
  const next = new Resource(settingsOf("r0"), world.withDevice);
  const change = next
    .changeRole("secondary")
    .then((answer) => [answer.kind, world.machine.ran.length]);
  const [kind, commands] = await world.machine.wait(change);
  assert.equal(kind, "done");
  assert.equal(commands, 5);
  assert.deepEqual(world.machine.names("/dev/hast"), []);
});

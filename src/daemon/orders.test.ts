// SPDX-License-Identifier: BSD-2-Clause
/** A resource that is ordered about: which worker hears what, and what a role change leaves of it. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  FakeClock,
  FakeLog,
  FakeProcesses,
  FakePrograms,
  FakeSocket,
  QUIET_REPORT,
  settingsOf,
  settle,
  surroundingsOf,
} from "../../test/daemon/fakes.ts";
import type { Resolution } from "../engine/worker-messages.ts";
import type { Order, Role } from "../wire/control.ts";
import { FRAME_HEADER_SIZE } from "../wire/frame.ts";
import { decodeS1 } from "../wire/handshake.ts";
import { HALF_OPEN_TIMEOUT_MS } from "./handshake.ts";
import { Resource } from "./resource.ts";

const STANDING = { connected: true, resyncPaused: false, resyncRate: 0 };

class World {
  readonly clock = new FakeClock();
  readonly processes = new FakeProcesses();
  readonly programs = new FakePrograms();
  gate: string | null = null;
  tokenCount = 0;
  readonly resource = new Resource(
    settingsOf("r0"),
    surroundingsOf({
      clock: this.clock,
      entropy: { fill: (bytes) => bytes.fill(++this.tokenCount) },
      processes: this.processes,
      log: new FakeLog(),
      hooks: {
        programs: this.programs,
        settings: () => ({ exec: null, gate: this.gate, timeoutMs: 60_000 }),
      },
    }),
  );

  static async as(role: Role): Promise<World> {
    const world = new World();
    world.processes.born = (worker) => {
      worker.report = QUIET_REPORT;
      worker.serves();
    };
    await world.resource.changeRole(role);
    return world;
  }

  /** A primary connects. */
  async connect(): Promise<void> {
    const a = new FakeSocket("10.0.0.2");
    await this.resource.firstStep(a, {
      kind: "p1",
      resource: "r0",
      version: 2,
      extensions: 0n,
      term: 0n,
    });
    const answer = decodeS1(a.written.subarray(FRAME_HEADER_SIZE));
    assert(answer.kind === "accepted");
    const refusal = this.resource.secondStep(new FakeSocket("10.0.0.2", 40001), {
      kind: "p2",
      resource: "r0",
      token: answer.token,
      virgin: false,
      resuid: 7n,
      localcnt: 2n,
      remotecnt: 1n,
      remarks: null,
      life: null,
      whole: true,
    });
    assert.equal(refusal, null);
    await settle();
  }

  async order(order: Order): Promise<string> {
    return textOf(await this.resource.obey(order));
  }

  async notes(): Promise<string> {
    return (await this.resource.statusEntry()).notes.join("\n");
  }
}

function textOf(resolution: Resolution): string {
  if (resolution.kind === "failed") return `FAILED ${resolution.reason}`;
  return `${resolution.before ? "BEFORE " : ""}${resolution.lines.join("\n")}`;
}

test("a primary's worker hears of orders, and so does its successor after a crash", async () => {
  const world = await World.as("primary");
  await world.order({ kind: "resync-rate", rate: 5 });
  await world.order({ kind: "pause-resync" });
  await world.order({ kind: "disconnect" });
  const orders = { connected: false, resyncPaused: true, resyncRate: 5 };
  assert.deepEqual(world.processes.last.sent.at(-1), { kind: "orders", orders });
  world.processes.last.exit({ kind: "signal", signal: "SIGKILL" });
  await world.clock.advance(1_000);
  assert.deepEqual(world.processes.last.start.orders, orders);
  assert.match(await world.notes(), /disconnected by an operator since .*hastctl connect r0/);
  assert.match(await world.order({ kind: "disconnect" }), /^BEFORE already disconnected/);
  assert.match(await world.order({ kind: "connect" }), /^connecting to/);
  assert.match(await world.order({ kind: "connect" }), /^BEFORE already connected/);
});

test("a change of role ends a disconnection and a pause, and leaves the rate", async () => {
  const world = await World.as("primary");
  await world.order({ kind: "resync-rate", rate: 5 });
  await world.order({ kind: "pause-resync" });
  await world.order({ kind: "disconnect" });
  await world.resource.changeRole("secondary");
  await world.resource.changeRole("primary");
  assert.deepEqual(world.processes.last.start.orders, { ...STANDING, resyncRate: 5 });
  assert.doesNotMatch(await world.notes(), /disconnected/);
});

test("S-2: a secondary that is disconnected refuses its primary, and vouches for its copy no more", async () => {
  const world = await World.as("secondary");
  await world.connect();
  world.processes.last.says({ kind: "copy", copy: { state: "uptodate", forced: null } });
  assert.match(await world.order({ kind: "disconnect" }), /^disconnected from the primary/);
  assert.equal(world.processes.alive.length, 0);
  const { disconnection } = world.resource;
  assert.equal(disconnection?.errmsg, "Remote node was disconnected by an operator.");
  await world.resource.changeRole("primary");
  assert.equal(world.processes.last.start.trust, "unknown");
});

test("S-11: a secondary that is disconnected while its primary connects again, or is away, does not vouch, either", async () => {
  for (const connecting of [true, false]) {
    const world = await World.as("secondary");
    await world.connect();
    world.processes.last.exit({ kind: "code", code: 75 });
    const a = new FakeSocket("10.0.0.2");
    const p1 = { kind: "p1", resource: "r0", version: 2, extensions: 0n, term: 0n } as const;
    if (connecting) await world.resource.firstStep(a, p1);
    assert.match(await world.order({ kind: "disconnect" }), /^disconnected from the primary/);
    await world.resource.changeRole("primary");
    assert.equal(world.processes.last.start.trust, "unknown");
  }
});

test("S-2: a secondary that is disconnected does not vouch, although its worker was about to say that it is ready", async () => {
  const world = await World.as("secondary");
  world.processes.born = () => undefined;
  await world.connect();
  const worker = world.processes.last;
  worker.obedient = false;
  const order = world.order({ kind: "disconnect" });
  await settle();
  assert.equal(worker.kinds.at(-1), "stop");
  worker.says({ kind: "ready" });
  worker.exit({ kind: "code", code: 0 });
  assert.match(await order, /^disconnected from the primary/);
  world.processes.born = (next) => next.says({ kind: "ready" });
  await world.resource.changeRole("primary");
  assert.equal(world.processes.last.start.trust, "unknown");
});

test("a look at what outdate would do takes nothing of what was known, nor does one that cannot be had", async () => {
  const world = await World.as("secondary");
  await world.connect();
  world.processes.last.exit({ kind: "code", code: 75 });
  world.processes.born = (worker) => {
    worker.says({ kind: "answer", resolution: { kind: "done", lines: ["it would"] } });
    worker.exit({ kind: "code", code: 0 });
  };
  assert.equal(await world.order({ kind: "outdate", dryRun: true }), "it would");
  world.processes.born = (worker) => {
    worker.says({ kind: "failed", exitCode: 75, message: "/dev/sdb is in use" });
    worker.exit({ kind: "code", code: 75 });
  };
  assert.match(await world.order({ kind: "outdate", dryRun: true }), /^FAILED .*is in use/);
  assert.equal(await world.notes(), "/dev/sdb is in use.", "there is no primary to go on");
  world.processes.born = (worker) => worker.says({ kind: "ready" });
  await world.resource.changeRole("primary");
  assert.equal(world.processes.last.start.trust, "known");
});

test("S-9: an errand that goes well takes nothing of what the last worker left, unless it changed the copy", async () => {
  const left = { cache: 8n, held: { resuid: 7n, localcnt: 1n, remotecnt: 2n } };
  for (const [code, dryRun, kept] of [
    [0, true, true],
    [75, true, true],
    [66, true, false],
    [0, false, false],
  ] as const) {
    const world = await World.as("secondary");
    await world.connect();
    world.processes.last.says({ kind: "left", left });
    world.processes.last.exit({ kind: "code", code: 75 });
    world.processes.born = (worker) => {
      const resolution = { kind: "done", lines: ["so"] } as const;
      if (code === 0) worker.says({ kind: "answer", resolution });
      worker.exit({ kind: "code", code });
    };
    await world.order({ kind: "outdate", dryRun });
    world.processes.born = (worker) => worker.says({ kind: "ready" });
    await world.connect();
    assert.deepEqual(world.processes.last.start.hello?.left, kept ? left : null);
  }
});

test("S-9: an errand whose disk failed, or that was killed, takes what was known: a flush has lost something", async () => {
  for (const exit of [
    { kind: "code", code: 66 },
    { kind: "signal", signal: "SIGKILL" },
  ] as const) {
    const world = await World.as("secondary");
    await world.connect();
    world.processes.last.exit({ kind: "code", code: 75 });
    world.processes.born = (worker) => worker.exit(exit);
    assert.match(await world.order({ kind: "outdate", dryRun: true }), /^FAILED/);
    world.processes.born = (worker) => worker.says({ kind: "ready" });
    await world.resource.changeRole("primary");
    assert.equal(world.processes.last.start.trust, "unknown");
  }
});

test("a refused promotion leaves the nodes parted", async () => {
  const world = await World.as("secondary");
  await world.order({ kind: "disconnect" });
  world.processes.born = (worker) => {
    worker.says({ kind: "failed", exitCode: 77, message: "the other node is primary" });
    worker.exit({ kind: "code", code: 77 });
  };
  assert.equal((await world.resource.changeRole("primary")).kind, "failed");
  assert.equal(world.resource.role, "secondary");
  assert.notEqual(world.resource.disconnection, null);
});

test("S-6: the connection that a primary needs is not ended, from either side", async () => {
  for (const role of ["primary", "secondary"] as const) {
    const world = await World.as(role);
    if (role === "secondary") await world.connect();
    world.processes.last.report = { ...QUIET_REPORT, bound: true };
    assert.match(await world.order({ kind: "disconnect" }), /^FAILED .*copy is not whole/);
    assert.equal(world.resource.disconnection, null);
  }
});

test("invalidate on a secondary is done by the next worker, once, or given up", async () => {
  const world = await World.as("secondary");
  assert.match(await world.order({ kind: "invalidate", dryRun: false }), /^FAILED no primary/);
  await world.connect();
  const plan = { kind: "done", lines: ["all of it"] } as const;
  const planner = (): void => {
    const worker = world.processes.last;
    void settle().then(() => worker.says({ kind: "answer", resolution: plan }));
  };
  planner();
  assert.equal(await world.order({ kind: "invalidate", dryRun: true }), "all of it");
  assert.equal(world.processes.alive.length, 1, "a look changes nothing");

  planner();
  const order = world.order({ kind: "invalidate", dryRun: false });
  await world.clock.advance(0);
  assert.equal(world.processes.alive.length, 0);
  await world.connect();
  const worker = world.processes.last;
  assert.equal(worker.start.hello?.invalidate, true);
  worker.says({ kind: "invalidated", resolution: { kind: "done", lines: ["thrown away"] } });
  assert.equal(await order, "thrown away");
  worker.exit({ kind: "code", code: 75 });
  await world.connect();
  assert.equal(world.processes.last.start.hello?.invalidate, false);

  // A primary that does not come back: nothing is left behind that would throw away later.
  planner();
  const late = world.order({ kind: "invalidate", dryRun: false });
  for (let turn = 0; turn < 5; turn++) await settle();
  assert.equal(world.processes.alive.length, 0);
  await world.clock.advance(20_000 + HALF_OPEN_TIMEOUT_MS);
  assert.match(await late, /^FAILED the primary has not connected again/);
  await world.connect();
  assert.equal(world.processes.last.start.hello?.invalidate, false);
});

test("a worker that has not said in time whether it has thrown the copy away is not taken for a primary that is missing", async () => {
  const world = await World.as("secondary");
  await world.connect();
  const worker = world.processes.last;
  void settle().then(() =>
    worker.says({ kind: "answer", resolution: { kind: "done", lines: [] } }),
  );
  const order = world.order({ kind: "invalidate", dryRun: false });
  await world.clock.advance(0);
  await world.connect();
  assert.equal(world.processes.last.start.hello?.invalidate, true);
  await world.clock.advance(20_000 + HALF_OPEN_TIMEOUT_MS);
  assert.match(await order, /^FAILED it is not known .* may still be.*hastctl status r0$/);
});

test("a primary that a reload restarts knows its copy as before: its peer, which may be away, is not asked", async () => {
  for (const role of ["primary", "secondary"] as const) {
    const world = await World.as(role);
    if (role === "secondary") await world.connect();
    const way = { kind: "restarted" } as const;
    const done = await world.resource.reconfigure(
      settingsOf("r0"),
      () => way,
      () => undefined,
    );
    assert.equal(done.failure, null);
    if (role === "secondary") await world.resource.changeRole("primary");
    assert.equal(world.processes.last.start.trust, role === "primary" ? "resumed" : "unknown");
  }
});

test("S-2: a secondary that a reload restarts knows its copy as before, if its primary was gone and it has the same disk", async () => {
  const { local } = settingsOf("r0");
  for (const [state, next, trust] of [
    ["gone", local, "known"],
    ["gone", "/dev/sdb1", "unknown"],
    ["connected", local, "unknown"],
    ["connecting", local, "unknown"],
  ] as const) {
    const world = await World.as("secondary");
    await world.connect();
    if (state !== "connected") world.processes.last.exit({ kind: "code", code: 75 });
    const p1 = { kind: "p1", resource: "r0", version: 2, extensions: 0n, term: 0n } as const;
    if (state === "connecting") await world.resource.firstStep(new FakeSocket("10.0.0.2"), p1);
    const done = await world.resource.reconfigure(
      settingsOf("r0", { local: next, timeout: 5 }),
      () => ({ kind: "restarted" }),
      () => undefined,
    );
    assert.equal(done.failure, null);
    await world.resource.changeRole("primary");
    assert.equal(world.processes.last.start.trust, trust, `${state}, ${next}`);
  }
});

test("a reload that restarts a role leaves what operators have ordered", async () => {
  const world = await World.as("primary");
  await world.order({ kind: "disconnect" });
  await world.order({ kind: "pause-resync" });
  const done = await world.resource.reconfigure(
    settingsOf("r0"),
    () => ({ kind: "restarted" }),
    () => undefined,
  );
  assert.equal(done.failure, null);
  const orders = { connected: false, resyncPaused: true, resyncRate: 0 };
  assert.deepEqual(world.processes.last.start.orders, orders);
  assert.match(await world.notes(), /disconnected by an operator since/);
});

test("a gate that refuses keeps the copy, in both roles", async () => {
  for (const role of ["primary", "secondary"] as const) {
    const world = await World.as(role);
    if (role === "secondary") await world.connect();
    world.gate = "/g";
    const worker = world.processes.last;
    void settle().then(() =>
      worker.says({ kind: "answer", resolution: { kind: "done", lines: [] } }),
    );
    const order = world.order({ kind: "invalidate", dryRun: false });
    await world.clock.advance(0);
    assert.equal(world.programs.started.length, 1);
    world.programs.started[0]!.exit(1);
    assert.match(await order, /^FAILED the gate \/g refuses it/);
    const invalidations = worker.sent.filter(({ kind }) => kind === "invalidate");
    assert.deepEqual(invalidations, [{ kind: "invalidate", dryRun: true }]);
    assert.equal(worker.alive, true);
  }
});

test("an order whose worker dies of it may be on record all the same, unless it was to change nothing", async () => {
  for (const dryRun of [false, true]) {
    const world = await World.as("secondary");
    world.processes.born = (worker) => worker.exit({ kind: "signal", signal: "SIGKILL" });
    const answer = await world.order({ kind: "outdate", dryRun });
    assert.match(answer, /^FAILED .*SIGKILL/);
    assert.equal(/; it may be on record .*typed again$/.test(answer), !dryRun, answer);
  }
});

test("outdate runs without a primary, and the other orders say who can follow them", async () => {
  const world = await World.as("secondary");
  world.processes.born = (worker) => {
    worker.says({ kind: "answer", resolution: { kind: "done", lines: ["is outdated"] } });
    worker.exit({ kind: "code", code: 0 });
  };
  assert.equal(await world.order({ kind: "outdate", dryRun: false }), "is outdated");
  assert.deepEqual(world.processes.last.kinds, ["start", "outdate"]);
  assert.match(await world.notes(), /this copy is outdated/);
  assert.match(
    await world.order({ kind: "pause-resync" }),
    /^FAILED .*On the primary: hastctl pause/,
  );
  const init = new World();
  for (const kind of ["connect", "disconnect"] as const) {
    assert.match(await init.order({ kind }), /^FAILED the role here is init/);
  }
});

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  FakeClock,
  FakeLog,
  FakeProcesses,
  FakeStream,
  FIXED,
  QUIET_REPORT,
  settingsOf,
  settle,
  surroundingsOf,
  USABLE,
} from "../../test/daemon/fakes.ts";
import { fuzz, mutated } from "../../test/fuzz.ts";
import {
  type ControlRequest,
  decodeSetRoleReply,
  decodeStatusReply,
  encodeControlRequest,
} from "../wire/control.ts";
import { encodeFrame, FRAME_HEADER_SIZE } from "../wire/frame.ts";
import {
  CLIENTS_MAX,
  ControlServer,
  REPLY_TIMEOUT_MS,
  REQUEST_TIMEOUT_MS,
  type Rights,
} from "./control-server.ts";
import { type Probed, Resource } from "./resource.ts";

class World {
  readonly clock = new FakeClock();
  readonly processes = new FakeProcesses();
  readonly log = new FakeLog();
  readonly resources = new Map<string, Resource>();
  readonly server = new ControlServer({
    clock: this.clock,
    log: this.log,
    resources: () => this.resources,
    configuration: FIXED,
  });
  rights: Rights = "everything";
  probe: () => Promise<Probed> = async () => USABLE;

  constructor(...names: string[]) {
    const { clock, processes, log } = this;
    const surroundings = surroundingsOf({ clock, processes, log, probe: () => this.probe() });
    for (const name of names) {
      this.resources.set(name, new Resource(settingsOf(name), surroundings));
    }
    this.processes.born = (worker) => worker.says({ kind: "ready" });
  }

  connect(): FakeStream {
    const stream = new FakeStream();
    this.server.accept(stream, this.rights);
    return stream;
  }

  ask(request: ControlRequest): FakeStream {
    const stream = this.connect();
    stream.feed(encodeControlRequest(request));
    return stream;
  }
}

function status(...resources: string[]): ControlRequest {
  return { kind: "status", resources, extended: true };
}

function primary(...resources: string[]): ControlRequest {
  return { kind: "set-role", role: "primary", resources, extended: true };
}

async function waitFor(stream: FakeStream): Promise<Uint8Array> {
  for (let turn = 0; turn < 50 && stream.state === "open"; turn++) await settle();
  return stream.written.subarray(FRAME_HEADER_SIZE);
}

test("many clients are served at once: a slow role change delays nobody else (BD-22)", async () => {
  const world = new World("r0", "r1");
  world.processes.born = (worker) => {
    worker.report = QUIET_REPORT;
    if (worker.identity.resource === "r1") worker.says({ kind: "ready" });
  };
  const slow = world.ask(primary("r0"));
  const silent = world.connect();
  assert.equal(decodeSetRoleReply(await waitFor(world.ask(primary("r1")))).error, 0);
  assert.equal(decodeStatusReply(await waitFor(world.ask(status("r1")))).entries.length, 1);
  assert.equal(slow.state, "open");
  assert.equal(silent.state, "open");
  world.processes.workers[0]!.says({ kind: "ready" });
  assert.deepEqual(decodeSetRoleReply(await waitFor(slow)).entries[0]?.outcome, {
    kind: "done",
    previousRole: "init",
  });
});

test("the resources of one request change their roles in parallel", async () => {
  const world = new World("r0", "r1", "r2");
  world.processes.born = () => undefined;
  const stream = world.ask(primary("all"));
  await settle();
  assert.equal(world.processes.workers.length, 3);
  for (const worker of world.processes.workers) worker.says({ kind: "ready" });
  const { entries } = decodeSetRoleReply(await waitFor(stream));
  assert.deepEqual(
    entries.map(({ resource }) => resource),
    ["r0", "r1", "r2"],
  );
});

test("a refused role is error 2, with the reason for those who ask for more", async () => {
  const world = new World("r0");
  world.probe = async () => ({ kind: "unusable", reason: "/disks/r0 does not exist" });
  const request = {
    kind: "set-role",
    role: "secondary",
    resources: ["r0"],
    extended: true,
  } as const;
  const [entry] = decodeSetRoleReply(await waitFor(world.ask(request))).entries;
  assert.deepEqual(entry?.outcome, { kind: "failed", error: 2 });
  assert.equal(entry?.errmsg, "/disks/r0 does not exist");

  const plain = await waitFor(world.ask({ ...request, extended: false }));
  assert.equal(decodeSetRoleReply(plain).entries[0]?.errmsg, null);
  assert(!Buffer.from(plain).includes("errmsg"));

  const { entries } = decodeStatusReply(await waitFor(world.ask(status("r0"))));
  assert.match(entries[0]!.notes[0]!, /Role secondary was refused/);
});

test("one worker that does not answer costs the others nothing (BD-36)", async () => {
  const world = new World("r0", "r1");
  await waitFor(world.ask(primary("all")));
  world.processes.workers[1]!.report = QUIET_REPORT;
  const stream = world.ask(status("all"));
  await world.clock.advance(1000);
  const reply = decodeStatusReply(await waitFor(stream));
  assert.equal(reply.error, 0);
  const workers = reply.entries.map(({ outcome }) =>
    outcome.kind === "known" ? (outcome.status.worker?.status ?? null) : outcome,
  );
  assert.deepEqual(workers, [null, "complete"]);
});

test("a node without resources answers with error 0, not with nothing", async () => {
  const world = new World();
  const reply = await waitFor(world.ask(status("all")));
  assert(reply.length > 0);
  assert.deepEqual(decodeStatusReply(reply), { error: 0, entries: [] });
});

test("a request may arrive in any pieces", async () => {
  const world = new World("r0");
  const request = encodeControlRequest(status("all"));
  for (let pieceMax = 1; pieceMax <= request.length; pieceMax++) {
    const stream = world.connect();
    stream.feed(request, pieceMax);
    assert.equal(decodeStatusReply(await waitFor(stream)).entries.length, 1);
  }
});

test("a client that asks nothing is closed after its deadline", async () => {
  const world = new World("r0");
  const stream = world.connect();
  stream.feed(encodeControlRequest(status("all")).subarray(0, 20));
  await world.clock.advance(REQUEST_TIMEOUT_MS - 1);
  assert.equal(stream.state, "open");
  await world.clock.advance(1);
  assert.equal(stream.state, "destroyed");
  assert.equal(stream.written.length, 0);
});

test("a client that does not read its answer is closed after its deadline", async () => {
  const world = new World("r0");
  const stream = world.ask(status("all"));
  await waitFor(stream);
  await world.clock.advance(REPLY_TIMEOUT_MS);
  assert.equal(stream.state, "destroyed");
});

test("a client that hangs up does not stop the role change it asked for", async () => {
  const world = new World("r0");
  world.processes.born = () => undefined;
  const stream = world.ask(primary("r0"));
  await settle();
  stream.hangUp();
  world.processes.last.says({ kind: "ready" });
  await settle();
  assert.equal(world.resources.get("r0")!.role, "primary");
  assert.equal(stream.written.length, 0);
  assert.equal(world.clock.timerCount, 0);
});

test("a claimed size beyond 64 KiB is refused before any memory is set aside for it", async () => {
  const world = new World("r0");
  const stream = world.connect();
  stream.feed(new Uint8Array([2, 1, 0, 1, 0]));
  assert.equal(stream.state, "destroyed");
});

test("more clients than the limit are closed unheard, and room returns when one goes", async () => {
  const world = new World("r0");
  const streams = Array.from({ length: CLIENTS_MAX }, () => world.connect());
  assert.equal(world.connect().state, "destroyed");
  streams[7]!.hangUp();
  assert.equal(decodeStatusReply(await waitFor(world.ask(status("all")))).entries.length, 1);
});

test("bytes after the request are ignored, as the original ignores them", async () => {
  const world = new World("r0");
  const stream = world.connect();
  stream.feed(Buffer.concat([encodeControlRequest(status("all")), new Uint8Array(1000)]));
  assert.equal(decodeStatusReply(await waitFor(stream)).entries.length, 1);
});

test("any bytes leave the daemon serving", async () => {
  const wellFramed = fc
    .uint8Array({ minLength: 1, maxLength: 200 })
    .map((nv) => encodeFrame(2, nv));
  const toInit = { kind: "set-role", role: "init", resources: ["all"], extended: false } as const;
  const requests = [status("all"), status("r0", "r1"), primary("r0"), toInit];
  const valid = requests.map((request) => mutated(encodeControlRequest(request)));
  await fuzz(
    fc.asyncProperty(
      fc.oneof(fc.uint8Array({ maxLength: 200 }), wellFramed, ...valid),
      async (bytes) => {
        const world = new World("r0");
        const stream = world.connect();
        stream.feed(bytes);
        await settle();
        stream.hangUp();
        const answer = await waitFor(world.ask(status("all")));
        assert.equal(decodeStatusReply(answer).entries.length, 1);
        assert(!world.log.says("Internal error"));
      },
    ),
  );
});

test("a client that may only look is told so, and changes nothing", async () => {
  const world = new World("r0");
  world.rights = "status only";
  const refused = decodeSetRoleReply(await waitFor(world.ask(primary("r0"))));
  assert.equal(refused.entries[0]!.outcome.kind, "failed");
  assert.match(refused.entries[0]!.errmsg!, /status and list.*as root/);
  assert.equal(world.resources.get("r0")!.role, "init");
  const { entries } = decodeStatusReply(await waitFor(world.ask(status("r0"))));
  assert.equal(entries[0]!.outcome.kind, "known");
});

// SPDX-License-Identifier: BSD-2-Clause
/** What an arbiter's agent says to hastd over the control socket, and what comes of it. */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import {
  FakeClock,
  FakeLog,
  FakeProcesses,
  FakeSocket,
  FakeStream,
  FIXED,
  settingsOf,
  settle,
  surroundingsOf,
  USABLE,
} from "../../test/daemon/fakes.ts";
import type { ToWorker } from "../engine/worker-messages.ts";
import {
  decodeLeaseReply,
  decodeSetRoleReply,
  encodeControlRequest,
  type Lease,
  type LeaseEntry,
  type SetRoleEntry,
} from "../wire/control.ts";
import { FRAME_HEADER_SIZE } from "../wire/frame.ts";
import { decodeS1 } from "../wire/handshake.ts";
import { ControlServer } from "./control-server.ts";
import { LEASE_LOST_MS } from "./lease.ts";
import { type Probed, Resource } from "./resource.ts";

/** hastd's part of one node, with one resource. */
class Node {
  readonly clock = new FakeClock();
  readonly processes = new FakeProcesses();
  readonly log = new FakeLog();
  readonly resource: Resource;
  readonly #server: ControlServer;

  probed: Probed = USABLE;

  constructor(arbiter = true) {
    const { clock, processes, log } = this;
    this.resource = new Resource(
      settingsOf("r0", { arbiter }),
      surroundingsOf({ clock, processes, log, probe: async () => this.probed }),
    );
    this.#server = new ControlServer({
      clock: this.clock,
      log: this.log,
      resources: () => new Map([["r0", this.resource]]),
      configuration: FIXED,
    });
    this.processes.born = (worker) => worker.serves();
  }

  /** A lease of 10 s from now on. */
  lease(term = 7n): Lease {
    return { term, deadlineMs: this.clock.now() + 10_000 };
  }

  async promote(lease: Lease | null = this.lease()): Promise<SetRoleEntry> {
    const stream = this.#ask({
      kind: "set-role",
      role: "primary",
      resources: ["r0"],
      extended: true,
      ...(lease === null ? {} : { lease }),
    });
    for (let turn = 0; turn < 20 && stream.written.length === 0; turn++) await settle();
    return decodeSetRoleReply(stream.written.subarray(FRAME_HEADER_SIZE)).entries[0]!;
  }

  /** The answer, once it has come. */
  renew(lease: Lease, confirmed = 0, waitMs = 0): () => LeaseEntry | null {
    const stream = this.#ask({
      kind: "lease",
      resources: ["r0"],
      lease,
      confirmed: [confirmed],
      waitMs,
    });
    return () => {
      const { written } = stream;
      if (written.length === 0) return null;
      return decodeLeaseReply(written.subarray(FRAME_HEADER_SIZE)).entries[0]!;
    };
  }

  async renewed(lease: Lease, confirmed = 0): Promise<LeaseEntry> {
    const answer = this.renew(lease, confirmed);
    await settle();
    return answer()!;
  }

  /** P1 of a primary under this term. */
  async meets(term: bigint): Promise<FakeSocket> {
    const socket = new FakeSocket("10.0.0.2");
    this.resource.heardTerm(term);
    if (this.resource.announcedRole === "secondary") {
      const p1 = { kind: "p1", resource: "r0", version: 2, extensions: 0n, term } as const;
      void this.resource.firstStep(socket, p1);
    }
    await settle();
    return socket;
  }

  /** Of the lease that the present worker has begun with. */
  get term(): bigint | null {
    return this.processes.last.start.lease?.term ?? null;
  }

  /** What the present worker was told of its lease. */
  get told(): Extract<ToWorker, { kind: "lease" }>[] {
    return this.processes.last.sent.filter((message) => message.kind === "lease");
  }

  #ask(request: Parameters<typeof encodeControlRequest>[0]): FakeStream {
    const stream = new FakeStream();
    this.#server.accept(stream, "everything");
    stream.feed(encodeControlRequest(request));
    return stream;
  }
}

test("with an arbiter nobody else makes a node primary, and without one it is none's business", async () => {
  const node = new Node();
  const { outcome, errmsg } = await node.promote(null);
  expect.equal(outcome.kind, "failed");
  expect.match(
    errmsg ?? "",
    /`arbiter on`.*hast-failover status.*hastctl role --force primary r0$/,
  );
  expect.equal(node.processes.workers.length, 0);

  const without = new Node(false);
  const refused = await without.promote();
  expect.match(refused.errmsg ?? "", /does not say `arbiter on` for r0.*hastctl reload$/);
});

test("a chosen primary starts under its lease, and hears of each renewal", async () => {
  const node = new Node();
  const lease = node.lease();
  expect.equal((await node.promote(lease)).outcome.kind, "done");
  expect.deepEqual(node.processes.last.start.lease, lease);
  expect.equal(node.processes.last.start.trust, "granted anew", "this hastd has just begun");

  const later = { ...lease, deadlineMs: lease.deadlineMs + 5_000 };
  expect.equal((await node.renewed(later)).outcome.kind, "known");
  await node.renewed(lease); // overtaken on its way
  expect.deepEqual(
    node.told.map(({ deadlineMs }) => deadlineMs),
    [later.deadlineMs, later.deadlineMs],
  );
});

test("a renewal of another term is refused, and of another role answered with it", async () => {
  const node = new Node();
  await node.promote();
  const { outcome, errmsg } = await node.renewed(node.lease(6n));
  expect.equal(outcome.kind, "failed");
  expect.match(errmsg ?? "", /the lease of term 7, not that of term 6/);
  await node.resource.changeRole("secondary");
  const known = await node.renewed(node.lease());
  expect.deepEqual(known.outcome, { kind: "known", role: "secondary", wish: null });
});

test("a renewal waits for news: a wish, which is confirmed by its number, or the end of the role", async () => {
  const node = new Node();
  await node.promote();
  const answer = node.renew(node.lease(), 0, 5_000);
  await settle();
  expect.equal(answer(), null);
  node.processes.last.says({ kind: "wish", wish: { number: 1, whole: "local" } });
  await settle();
  const { outcome } = answer()!;
  expect.ok(outcome.kind === "known" && outcome.wish?.whole === "local");
  const { number } = outcome.wish;

  const next = node.renew(node.lease(), number, 5_000);
  await settle();
  expect.equal(next(), null);
  expect.equal(node.told.at(-1)?.confirmed, 1, "the worker's own number");
  await node.clock.advance(5_000);
  expect.deepEqual(next()?.outcome, outcome);

  const last = node.renew(node.lease(), number, 5_000);
  await node.resource.changeRole("secondary");
  await settle();
  expect.deepEqual(last()?.outcome, { kind: "known", role: "secondary", wish: null });
});

test("S-17: what was confirmed to a worker that has died is not confirmed to the next", async () => {
  const node = new Node();
  await node.promote();
  node.processes.last.says({ kind: "wish", wish: { number: 1, whole: "local" } });
  const { outcome } = await node.renewed(node.lease());
  expect.ok(outcome.kind === "known" && outcome.wish !== null);
  node.processes.last.exit({ kind: "signal", signal: "SIGKILL" });
  await node.clock.advance(1_000);
  expect.equal(node.processes.workers.length, 2);
  expect.equal(node.term, 7n);
  node.processes.last.says({ kind: "wish", wish: { number: 1, whole: "local" } });
  const again = await node.renewed(node.lease(), outcome.wish.number);
  expect.equal(node.told.at(-1)?.confirmed, 0);
  expect.ok(again.outcome.kind === "known" && again.outcome.wish!.number > outcome.wish.number);
});

test("a primary of nobody's, or of an earlier term, goes on under the lease with its next worker", async () => {
  const node = new Node();
  await node.resource.changeRole("primary", "by force");
  expect.equal(node.term, null);
  expect.match((await node.renewed(node.lease())).errmsg ?? "", /no lease/);
  expect.equal((await node.promote(node.lease(7n))).outcome.kind, "done");
  expect.equal(node.processes.workers.length, 2);
  expect.equal(node.term, 7n);
  expect.equal((await node.promote(node.lease(7n))).outcome.kind, "done");
  expect.equal(node.processes.workers.length, 2);
  await node.promote(node.lease(9n));
  expect.equal(node.term, 9n);
});

test("S-9: a primary whose disk fails as it makes way for its next worker is none under the lease", async () => {
  const node = new Node();
  await node.resource.changeRole("primary", "by force");
  const worker = node.processes.last;
  worker.obedient = false;
  const promoting = node.promote();
  await settle();
  expect.equal(worker.kinds.at(-1), "stop");
  worker.says({ kind: "failed", exitCode: 74, message: "local component failed (EIO)" });
  worker.exit({ kind: "code", code: 74 });
  const { outcome, errmsg } = await promoting;
  expect.equal(outcome.kind, "failed");
  expect.match(errmsg ?? "", /^the disk failed as the primary stopped/);
  expect.equal(node.resource.role, "init");
  expect.equal(node.processes.workers.length, 1);
  expect.ok(node.log.says("The primary worker gave up, and this node's role fell back to init"));
  await node.promote();
  expect.equal(node.processes.last.start.trust, "granted anew");
});

test("S-17: a term that is over is refused, as promotion and as primary", async () => {
  const node = new Node();
  await node.resource.changeRole("secondary");
  await node.meets(8n);
  const s1 = async (term: bigint) =>
    decodeS1((await node.meets(term)).written.subarray(FRAME_HEADER_SIZE));
  expect.equal((await s1(8n)).kind, "accepted");
  // One that has reached the second step counts.
  const answer = await s1(9n);
  expect.ok(answer.kind === "accepted");
  const p2 = { kind: "p2", resource: "r0", token: answer.token, virgin: false } as const;
  const facts = { resuid: 7n, localcnt: 1n, remotecnt: 0n, remarks: null, life: null };
  const b = new FakeSocket("10.0.0.2", 40001);
  expect.equal(node.resource.secondStep(b, { ...p2, ...facts, whole: false }), null);
  expect.equal(node.processes.last.start.hello?.term, 9n);
  expect.equal((await s1(8n)).kind, "refused");
  expect.equal((await s1(0n)).kind, "accepted", "no arbiter: an operator's business");
  expect.match((await node.promote(node.lease(8n))).errmsg ?? "", /term is 8.*heard of 9/);
});

test("S-17: a primary that hears of a later term gives up the role, whatever uses it", async () => {
  const node = new Node();
  await node.promote();
  await node.meets(7n);
  expect.equal(node.resource.role, "primary");
  node.processes.last.obedient = false;
  await node.meets(8n);
  await node.meets(8n);
  node.processes.last.exit({ kind: "code", code: 0 });
  await node.clock.advance(1_000);
  expect.equal(node.resource.role, "secondary");
  const said = node.log.lines.filter((line) => line.includes("primary in the arbiter's term 8"));
  expect.equal(said.length, 1);
});

test("a primary whose agent has died is given up by hastd, so that nothing hangs for ever", async () => {
  const node = new Node();
  await node.promote();
  await node.clock.advance(9_000);
  await node.renewed(node.lease());
  await node.clock.advance(10_000 + LEASE_LOST_MS - 1_000);
  expect.equal(node.resource.role, "primary");
  const entry = node.resource.statusEntry();
  await node.clock.advance(1_000);
  expect.match((await entry).notes.join(), /ran out \d+ s ago: .* nothing is answered here/);
  await node.clock.advance(1_000);
  expect.equal(node.resource.role, "secondary");
  const { notes } = await node.resource.statusEntry();
  expect.match(notes.join(), /hast-failover has not renewed it.*hast-failover status$/s);
});

test("a reload that restarts a primary leaves it under its lease, and the agent does not hear of an end", async () => {
  const node = new Node();
  await node.promote();
  const answer = node.renew(node.lease(), 0, 5_000);
  await settle();
  const settings = settingsOf("r0", { arbiter: true, local: "/other" });
  await node.resource.reconfigure(
    settings,
    () => ({ kind: "restarted" }),
    () => undefined,
  );
  expect.equal(node.resource.role, "primary");
  expect.equal(node.term, 7n);
  expect.equal(answer(), null);
});

test("S-17: status says which term is on record in the copy, and nothing of one that has had none", async () => {
  for (const term of [undefined, 7n]) {
    const node = new Node();
    const copy = { state: "new", forced: null, ...(term === undefined ? {} : { term }) } as const;
    node.probed = { kind: "usable", copy };
    await node.resource.changeRole("secondary");
    const { outcome } = await node.resource.statusEntry();
    expect.equal(outcome.kind === "known" ? outcome.status.term : null, term);
  }
});

test("S-17: a disk that was exchanged since hastd saw it is none that the arbiter has chosen", async () => {
  const created: Probed = { kind: "usable", copy: { state: "new", forced: null } };
  const node = new Node();
  await node.resource.changeRole("secondary");
  node.probed = created;
  const refused = await node.promote();
  expect.match(refused.errmsg ?? "", /\/disks\/r0 was created anew.*hast-failover status$/);
  expect.equal(node.processes.workers.length, 0);
  expect.equal(node.resource.role, "secondary");
  const { outcome } = await node.resource.statusEntry();
  expect.ok(outcome.kind === "known" && outcome.status.copy === "new", "the agent hears of it");
  // Knowing that, it may choose it all the same: it is the one that was seeded.
  expect.equal((await node.promote()).outcome.kind, "done");

  // One that leads, and has met nobody yet, too.
  for (const state of ["uptodate", "new"] as const) {
    const leader = new Node();
    await leader.promote();
    leader.processes.last.says({ kind: "copy", copy: { state, forced: null, term: 7n } });
    leader.probed = created;
    const { failure } = await leader.resource.reconfigure(
      settingsOf("r0", { arbiter: true, local: "/other" }),
      () => ({ kind: "restarted" }),
      () => undefined,
    );
    expect.match(failure ?? "", /\/other was created anew/);
    expect.equal(leader.resource.role, "init");
  }
});

test("S-17: after a reload a primary serves what its last worker knew, not what the arbiter once said of its disk", async () => {
  for (const [what, local, state, trust] of [
    ["the same disk", "/disks/r0", "uptodate", "resumed"],
    ["another disk", "/other", "uptodate", "unknown"],
    // Filled by the other node; or without a disk, which may not even say so.
    ["a copy that is not whole", "/disks/r0", "inconsistent", "unknown"],
  ] as const) {
    const node = new Node();
    await node.promote();
    node.processes.last.says({ kind: "copy", copy: { state, forced: null } });
    await node.resource.reconfigure(
      settingsOf("r0", { arbiter: true, local, export: "unix:///run/other.sock" }),
      () => ({ kind: "restarted" }),
      () => undefined,
    );
    expect.equal(node.term, 7n);
    expect.equal(node.processes.last.start.trust, trust, what);
  }
});

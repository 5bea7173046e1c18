// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import {
  ArbitratedPair,
  BASE,
  INSYNC,
  type PretendNode,
} from "../../test/pretend/arbitrated-pair.ts";
import type { Fate } from "../../test/pretend/etcd.ts";

/** Is a primary that acknowledges. */
function serves(pair: ArbitratedPair, node: PretendNode): boolean {
  return pair.write(node);
}

function isSetsChange(path: string, body: string): boolean {
  return (
    path === "kv/txn" && body.includes(Buffer.from(INSYNC).toString("base64")) && putsSets(body)
  );
}

function putsSets(body: string): boolean {
  const { success } = JSON.parse(body) as { success: { request_put: { key: string } }[] };
  return success.some(({ request_put }) => atob(request_put.key) === INSYNC);
}

test("one of two nodes in step is elected, promoted with the term, and started; the other follows", async () => {
  const pair = new ArbitratedPair();
  pair.seed(["alpha", "beta"]);
  for (const node of pair.nodes) node.startAgent();
  await pair.until("somebody leads", () =>
    pair.nodes.some(({ log }) => log.says("This node leads g")),
  );
  const leader = pair.nodes.find(({ name }) => name === pair.leader())!;
  expect.equal(leader.role, "primary");
  expect.deepEqual(leader.scripts, ["stop", "start"]);
  expect.ok(leader.term > BigInt(BASE));
  await pair.until("the other is secondary", () => leader.peer.role === "secondary");
  await pair.until("it knows", () => leader.peer.log.says(`${leader.name} leads since`));
  await pair.clock.pass(60_000);
  expect.equal(pair.leader(), leader.name);
  expect.deepEqual(leader.peer.scripts, ["stop"]);
});

test("S-17b: where etcd knows no set, as after it was wiped, nobody is promoted", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  pair.etcd.wipe();
  await pair.until("alpha has let go", () => alpha.role === "secondary");
  await pair.clock.pass(60_000);
  expect.equal(pair.leader(), null);
  for (const node of [alpha, beta]) {
    expect.equal(node.role, "secondary");
    expect.ok(node.log.says("hast-failover seed --force"));
  }
});

test("S-17b: an etcd restored from a backup promotes nobody who has seen it further", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  const restore = pair.etcd.backup();
  pair.linkIsUp = false;
  await pair.until("alpha works alone", () => serves(pair, alpha));
  await pair.clock.pass(2_000);
  alpha.powerOff();
  restore();
  expect.equal(pair.set(), '["alpha","beta"]', "the backup says that beta has everything");
  await pair.clock.pass(60_000);
  expect.equal(beta.role, "secondary");
  expect.ok(beta.log.says("it was restored from a backup"));
});

test("S-17b: what a leader has put itself counts as seen at once", async () => {
  for (let early = 0; early < 2_000; early += 500) {
    const pair = await ArbitratedPair.leading();
    const [alpha, beta] = pair.nodes;
    await pair.clock.pass(early);
    const restore = pair.etcd.backup();
    pair.linkIsUp = false;
    await pair.until("alpha works alone", () => serves(pair, alpha));
    alpha.powerOff();
    beta.powerOff();
    restore();
    alpha.powerOn();
    await pair.until("alpha knows", () => alpha.log.says("it was restored from a backup"), 60_000);
  }
});

test("S-17a: nothing is acknowledged alone before the set without the peer is stable in etcd", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha] = pair.nodes;
  alpha.fate = (path, _endpoint, body) =>
    isSetsChange(path, body) ? { delayMs: 1_500 } : "served";
  pair.linkIsUp = false;
  await pair.until("alpha works alone", () => {
    const done = serves(pair, alpha);
    if (done) expect.equal(pair.set(), '["alpha"]');
    return done;
  });
});

test("S-17a: a change of the set that lands after the other node has won has no effect", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  alpha.fate = (path, _endpoint, body) =>
    isSetsChange(path, body) ? { delayMs: 40_000 } : "silent";
  pair.linkIsUp = false;
  const before = pair.acknowledgedCount;
  // Alone for as long as it may answer, which it may not without etcd.
  await pair.until("beta leads", () => {
    serves(pair, alpha);
    return beta.role === "primary";
  });
  expect.equal(pair.acknowledgedCount, before);
  alpha.fate = () => "served";
  await pair.until("beta serves", () => serves(pair, beta));
  const set = pair.set();
  expect.equal(set, '["beta"]');
  await pair.clock.pass(60_000);
  expect.equal(pair.set(), set, "the late change landed");
});

test("S-17a: nor if the other node has changed nothing yet", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  alpha.fate = (path, _endpoint, body) =>
    isSetsChange(path, body) ? { delayMs: 40_000 } : "silent";
  beta.fate = (path, _endpoint, body) => (isSetsChange(path, body) ? "silent" : "served");
  pair.linkIsUp = false;
  serves(pair, alpha);
  await pair.until("beta leads", () => beta.role === "primary");
  await pair.clock.pass(60_000);
  expect.equal(pair.set(), '["alpha","beta"]');
});

test("S-17a: a change that etcd refuses, because this node leads no more, is not confirmed", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha] = pair.nodes;
  pair.clocksStandStill = true;
  alpha.fate = (path) => (path === "kv/txn" ? "served" : "silent");
  pair.etcd.endLeases();
  pair.linkIsUp = false;
  for (let step = 0; step < 300; step++) {
    expect.ok(!serves(pair, alpha), "it is in nobody's interest that this is acknowledged");
    await pair.clock.pass(100);
  }
  expect.equal(alpha.role, "secondary");
});

test("S-17a: an election counts only if no set has changed since it was decided upon", async () => {
  const pair = new ArbitratedPair();
  const [alpha, beta] = pair.nodes;
  pair.seed(["alpha", "beta"]);
  pair.linkIsUp = false;
  for (const node of pair.nodes) node.role = "secondary";
  let late = false;
  beta.fate = (path) => {
    if (path !== "kv/txn") return "served";
    late = true;
    return { delayMs: 1_900 };
  };
  beta.startAgent();
  await pair.until("beta's election is under way", () => late);
  alpha.startAgent();
  await pair.until("alpha works alone", () => serves(pair, alpha), 1_000);
  alpha.agent!.stop();
  await pair.until("alpha has resigned", () => pair.leader() === null, 800);
  await pair.clock.pass(60_000);
  expect.equal(beta.role, "secondary");
});

test("S-17a: a change of unknown outcome is settled by reading, and only then confirmed", async () => {
  for (const fate of ["lost", "silent"] satisfies Fate[]) {
    const pair = await ArbitratedPair.leading();
    const [alpha] = pair.nodes;
    let left = 2; // at both endpoints
    alpha.fate = (path, _endpoint, body) =>
      isSetsChange(path, body) && left-- > 0 ? fate : "served";
    pair.linkIsUp = false;
    await pair.until("alpha works alone", () => serves(pair, alpha), 9_000);
    expect.equal(pair.set(), '["alpha"]');
    expect.equal(pair.leader(), "alpha");
  }
});

test("S-17a: a delayed change back to both cannot land after the later one to alone", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  pair.linkIsUp = false;
  await pair.until("alpha works alone", () => serves(pair, alpha));
  let delayed = 0;
  alpha.fate = (path, _endpoint, body) => {
    if (!isSetsChange(path, body) || delayed >= 2) return "served";
    delayed += 1;
    return { delayMs: 30_000 };
  };
  pair.linkIsUp = true;
  expect.ok(serves(pair, alpha), "over both");
  await pair.until("the change to both is under way", () => delayed > 0);
  pair.linkIsUp = false;
  await pair.until("alpha works alone again", () => serves(pair, alpha));
  await pair.clock.pass(60_000);
  expect.equal(pair.set(), '["alpha"]');
  alpha.powerOff();
  await pair.clock.pass(60_000);
  expect.equal(beta.role, "secondary");
  expect.ok(beta.log.says("beta lacks what was acknowledged without it; alpha has all of it"));
});

test("a node that is not in the set is not promoted; once back in it, it is", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  beta.powerOff();
  await pair.until("alpha works alone", () => serves(pair, alpha));
  alpha.powerOff();
  beta.powerOn();
  await pair.clock.pass(60_000);
  expect.equal(beta.role, "secondary");
  alpha.powerOn();
  await pair.until("alpha leads again", () => serves(pair, alpha));
  await pair.until(
    "both are in the set",
    () => serves(pair, alpha) && pair.set() === '["alpha","beta"]',
  );
  alpha.powerOff();
  await pair.until("beta leads", () => serves(pair, beta));
});

test("the leader's power goes: the other serves after the TTL and a few seconds", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  const at = pair.clock.now();
  alpha.powerOff();
  await pair.until("beta serves", () => serves(pair, beta));
  const seconds = (pair.clock.now() - at) / 1000;
  expect.ok(seconds > 7 && seconds < 13, `${seconds} s`);
});

test("a leader that etcd does not hear stops answering before it can be replaced, then lets go", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  alpha.fate = () => "silent";
  await pair.until("alpha answers nothing", () => !serves(pair, alpha));
  expect.notEqual(beta.role, "primary");
  expect.equal(pair.leader(), "alpha");
  await pair.until("beta serves", () => serves(pair, beta));
  await pair.until("alpha is secondary", () => alpha.role === "secondary");
  expect.deepEqual(alpha.scripts, ["stop", "start", "stop"]);
  alpha.fate = () => "served";
  await pair.until(
    "both are in step",
    () => serves(pair, beta) && pair.set() === '["alpha","beta"]',
  );
});

test("S-17c: a frozen agent's workers stop, reads too; thawed, it renews nothing and lets go", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  alpha.life.frozen = true;
  const deadlineMs = alpha.deadlineMs;
  await pair.until("beta serves", () => serves(pair, beta));
  expect.equal(alpha.deadlineMs, deadlineMs);
  expect.ok(deadlineMs < pair.clock.now());
  alpha.life.thaw();
  await pair.until("alpha is secondary", () => alpha.role === "secondary");
  expect.equal(alpha.deadlineMs, deadlineMs);
  await pair.until(
    "both are in step",
    () => serves(pair, beta) && pair.set() === '["alpha","beta"]',
  );
  expect.equal(pair.leader(), "beta");
});

test("a slow etcd, and one whose first endpoint is frozen, costs nobody the lead", async () => {
  const fates: readonly PretendNode["fate"][] = [
    () => ({ delayMs: 1_500 }),
    (_path, endpoint) => (endpoint.includes("a") ? "silent" : "served"),
  ];
  for (const fate of fates) {
    const pair = await ArbitratedPair.leading();
    const [alpha, beta] = pair.nodes;
    alpha.fate = fate;
    beta.fate = fate;
    for (let step = 0; step < 600; step++) {
      await pair.clock.pass(100);
      expect.ok(serves(pair, alpha));
    }
    expect.equal(pair.leader(), "alpha");
  }
});

test("an etcd that is away for less than the lease costs nothing but the pause", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha] = pair.nodes;
  for (const node of pair.nodes) node.fate = () => "refused";
  await pair.until("alpha pauses", () => !serves(pair, alpha));
  for (const node of pair.nodes) node.fate = () => "served";
  await pair.until("alpha serves", () => serves(pair, alpha), 3_000);
  expect.deepEqual(alpha.scripts, ["stop", "start"]);
});

test("stop(): the group is stopped and demoted before the key goes, and the other leads at once", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  const at = pair.clock.now();
  alpha.agent!.stop();
  await pair.until("nobody leads", () => pair.leader() !== "alpha");
  expect.equal(alpha.role, "secondary");
  expect.deepEqual(alpha.scripts, ["stop", "start", "stop"]);
  await alpha.ended;
  await pair.until("beta serves", () => serves(pair, beta));
  expect.ok(pair.clock.now() - at < 4_000);
});

test("a primary that cannot be ended keeps its lease for as long as that still lives", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  alpha.demotionRefusal = "its worker cannot be ended";
  alpha.agent!.stop();
  await pair.clock.pass(5_000);
  expect.equal(pair.leader(), "alpha");
  await pair.until("beta serves", () => serves(pair, beta), 15_000);
  expect.ok(alpha.log.says("its worker cannot be ended"));
});

test("nor does an agent that finds it so give the lead up before", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  alpha.killAgent();
  alpha.role = "init"; // as of one resource of several
  alpha.demotionRefusal = "its worker cannot be ended";
  alpha.startAgent();
  await pair.until("alpha has tried", () => alpha.log.says("its worker cannot be ended"));
  await pair.clock.pass(3_000);
  expect.equal(pair.leader(), "alpha");
  await pair.until("beta serves", () => serves(pair, beta), 15_000);
});

test("a killed agent that is started again goes on leading, and starts nothing twice", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha] = pair.nodes;
  const { term } = alpha;
  alpha.killAgent();
  await pair.clock.pass(3_000);
  alpha.startAgent();
  await pair.clock.pass(30_000);
  expect.ok(serves(pair, alpha));
  expect.equal(alpha.term, term);
  expect.equal(pair.leader(), "alpha");
  expect.ok(alpha.log.says("going on with that"));
});

test("what a killed agent has left is stopped although etcd cannot be asked", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  alpha.killAgent();
  await pair.until("beta serves", () => serves(pair, beta));
  expect.equal(alpha.role, "secondary");
  alpha.fate = () => "refused";
  alpha.startAgent();
  await pair.until("alpha has stopped it", () => alpha.scripts.at(-1) === "stop", 5_000);
  await pair.clock.pass(10_000);
  expect.deepEqual(alpha.scripts, ["stop", "start", "stop"]);
});

test("S-9: a leader whose machine comes back within the lease leaves it to the node that kept its memory", async () => {
  for (let early = 0; early < 10; early++) {
    const pair = await ArbitratedPair.leading();
    const [alpha, beta] = pair.nodes;
    await pair.clock.pass(early * 100);
    alpha.powerOff();
    await pair.clock.pass(3_000);
    alpha.powerOn();
    await pair.until("somebody leads", () => pair.nodes.some((node) => serves(pair, node)));
    expect.equal(pair.leader(), "beta");
    await pair.clock.pass(20_000);
    beta.powerOff();
    await pair.until("alpha serves", () => serves(pair, alpha), 20_000);
  }
});

test("nor does it wait for one that may not lead, and not for ever", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  beta.powerOff();
  alpha.powerOff();
  await pair.clock.pass(3_000);
  alpha.powerOn();
  await pair.until("alpha serves", () => serves(pair, alpha), 45_000);
  expect.equal(pair.set(), '["alpha"]');
  alpha.powerOff();
  await pair.clock.pass(3_000);
  alpha.powerOn();
  await pair.until("alpha serves again", () => serves(pair, alpha), 15_000);
});

test("S-9: a leader that loses its disk leaves the lead to the node that has what it had not flushed", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  beta.fate = () => ({ delayMs: 1_500 });
  alpha.role = "init"; // its worker has given up
  await pair.until("somebody leads anew", () => pair.nodes.some((node) => serves(pair, node)));
  expect.equal(pair.leader(), "beta");
});

test("S-9: so does one whose agent was killed just then", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  pair.linkIsUp = false;
  beta.fate = () => ({ delayMs: 1_500 });
  alpha.killAgent();
  alpha.role = "init";
  alpha.startAgent();
  await pair.until("somebody leads anew", () => pair.nodes.some((node) => serves(pair, node)));
  expect.equal(pair.leader(), "beta");
});

test("but not one that was elected, and never heard of it", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  alpha.powerOff();
  beta.fate = (path) => (path === "kv/txn" && pair.leader() !== "beta" ? "lost" : "served");
  await pair.until("beta is elected", () => pair.leader() === "beta");
  beta.fate = () => "refused";
  await pair.clock.pass(3_000);
  expect.equal(beta.role, "secondary");
  beta.fate = () => "served";
  await pair.until("beta serves", () => serves(pair, beta), 8_000);
});

test("a node that leaves the lead to the other one says so once, and why, and until when", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  const count = (what: string): number =>
    alpha.log.lines.filter((line) => line.includes(what)).length;
  beta.fate = () => "refused";
  alpha.role = "init";
  await pair.until("nobody leads", () => pair.leader() === null);
  await pair.clock.pass(5_000);
  const waits = "this node waits until 1970-01-01T00:17:16Z, for beta to lead: r0 has become init.";
  expect.equal(count(`Nobody leads, and ${waits}`), 1);
  beta.fate = () => "served";
  await pair.until("beta serves", () => serves(pair, beta), 5_000);
  await pair.until(
    "both are in step",
    () => serves(pair, beta) && pair.set() === '["alpha","beta"]',
  );
  pair.etcd.put("/hast/g/move", '{"to":"alpha"}');
  await pair.clock.pass(10_000);
  expect.equal(count(`This node was asked to take over, but ${waits}`), 1);
  await pair.until("alpha serves", () => serves(pair, alpha), 30_000);
});

test("where no other node has it, a leader that loses its disk tries again at once", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  beta.powerOff();
  await pair.until("alpha works alone", () => serves(pair, alpha));
  alpha.role = "init";
  await pair.until("alpha serves", () => serves(pair, alpha), 12_000);
});

test("beside a primary that etcd knows nothing of, as one by force, nobody else is promoted", async () => {
  const pair = new ArbitratedPair();
  const [alpha, beta] = pair.nodes;
  pair.seed(["alpha", "beta"]);
  [alpha.role, beta.role] = ["primary", "secondary"];
  alpha.deadlineMs = Number.POSITIVE_INFINITY;
  expect.ok(serves(pair, alpha), "over both");
  beta.startAgent();
  await pair.clock.pass(60_000);
  expect.equal(pair.leader(), null);
  expect.ok(beta.log.says("r0: a primary is connected, which no agent has made one"));
  alpha.startAgent();
  await pair.until("alpha leads", () => alpha.log.says("This node leads g"));
  await pair.until("beta follows", () => beta.log.says("alpha leads since"));
});

test("a machine that has been given the leader's name is never promoted", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  beta.killAgent();
  beta.namedLike = alpha;
  beta.startAgent();
  await pair.until("beta says so", () => beta.log.says("Another machine leads g as alpha"));
  pair.linkIsUp = false;
  await pair.until("alpha works alone", () => serves(pair, alpha));
  alpha.powerOff();
  await pair.clock.pass(60_000);
  expect.equal(beta.role, "secondary");
});

test("a hastd that has begun anew under its agent: the agent resigns", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  alpha.on = false;
  await pair.until("beta serves", () => serves(pair, beta));
  expect.deepEqual(alpha.scripts.slice(0, 3), ["stop", "start", "stop"]);
});

test("a hastd that is frozen costs the lead: a node that cannot be demoted does not renew for that", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  const at = pair.clock.now();
  alpha.hastdFrozen = true;
  await pair.until("beta serves", () => serves(pair, beta));
  const seconds = (pair.clock.now() - at) / 1000;
  expect.ok(seconds < 35, `${seconds} s`);
  alpha.hastdFrozen = false;
  await pair.until("alpha follows", () => alpha.log.says("beta leads since"), 300_000);
  await pair.until(
    "both are in step",
    () => serves(pair, beta) && pair.set() === '["alpha","beta"]',
  );
});

test("a group that does not start is given back, and left to the other node for half a minute", async () => {
  const pair = new ArbitratedPair();
  const [alpha, beta] = pair.nodes;
  pair.seed(["alpha", "beta"]);
  alpha.scriptFailure = "mount: no such file system";
  beta.fate = () => "refused";
  beta.startAgent();
  await pair.until("beta is secondary", () => beta.role === "secondary");
  alpha.startAgent();
  await pair.until("alpha has tried", () => alpha.log.says("mount: no such file system"));
  await pair.until("alpha is secondary", () => alpha.role === "secondary");
  expect.deepEqual(alpha.scripts, ["stop", "start", "stop"]);
  await pair.clock.pass(10_000);
  expect.equal(pair.leader(), null);
  beta.fate = () => "served";
  await pair.until("beta serves", () => serves(pair, beta), 10_000);
});

test("while somebody is asked to take over, nobody else competes", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  pair.etcd.put("/hast/g/move", '{"to":"beta"}');
  await pair.until("beta leads", () => serves(pair, beta), 10_000);
  expect.equal(alpha.role, "secondary");
  beta.agent!.stop();
  await pair.clock.pass(30_000);
  expect.equal(pair.leader(), null);
});

test("who has handed over in good order may lead again at once", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  const move = (to: string): void => pair.etcd.put("/hast/g/move", JSON.stringify({ to }));
  move("beta");
  await pair.until("beta leads", () => serves(pair, beta), 10_000);
  await pair.until(
    "both are in step",
    () => serves(pair, beta) && pair.set() === '["alpha","beta"]',
  );
  expect.ok(alpha.log.says("gives g up: beta is to lead."));
  move("alpha");
  await pair.until("alpha leads", () => serves(pair, alpha), 10_000);
});

test("a wish for a node that is not in step is not followed", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha] = pair.nodes;
  pair.linkIsUp = false;
  await pair.until("alpha works alone", () => serves(pair, alpha));
  pair.etcd.put("/hast/g/move", '{"to":"beta"}');
  await pair.clock.pass(30_000);
  expect.ok(serves(pair, alpha));
});

test("a copy that is inconsistent is not promoted, whatever the set says", async () => {
  const pair = new ArbitratedPair();
  const [alpha] = pair.nodes;
  pair.seed(["alpha", "beta"]);
  alpha.copy = "inconsistent";
  alpha.startAgent();
  await pair.clock.pass(30_000);
  expect.equal(pair.leader(), null);
  expect.ok(alpha.log.says("its copy here is inconsistent"));
});

test("S-17: a component created anew is another one than the set speaks of; the first of all is promoted", async () => {
  const pair = new ArbitratedPair();
  const [alpha] = pair.nodes;
  pair.seed(["alpha", "beta"]);
  alpha.copy = "new";
  alpha.startAgent();
  await pair.clock.pass(30_000);
  expect.equal(pair.leader(), null);
  expect.ok(alpha.log.says("its copy here was created anew"));
  pair.seed(["alpha"]);
  await pair.until("the first of all is promoted", () => serves(pair, alpha));
  alpha.powerOff();
  await pair.clock.pass(3_000);
  alpha.powerOn();
  await pair.until("and again, although it has met nobody yet", () => serves(pair, alpha), 60_000);
});

test("S-17: where the only disk in step was replaced, its node is not promoted over the empty one", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  alpha.powerOff();
  await pair.until("beta works alone", () => serves(pair, beta));
  beta.powerOff();
  beta.replaceDisk();
  beta.powerOn();
  await pair.clock.pass(60_000);
  expect.equal(pair.set(), '["beta"]');
  expect.equal(beta.role, "secondary");
  expect.ok(beta.log.says("is on another disk"));
});

/** Numbers that look like chance, from a seed (mulberry32). */
function chance(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** A quarter of an hour of everything that can go wrong, then none of it. */
async function misfortunes(seed: number, clocksStandStill: boolean): Promise<number> {
  const pair = await ArbitratedPair.leading();
  pair.clocksStandStill = clocksStandStill;
  const pick = chance(seed);
  const fates: readonly (() => Fate)[] = [
    () => "served",
    () => "served",
    () => "silent",
    () => "refused",
    () => "lost",
    () => ({ delayMs: pick(30_000) }),
    () => (pick(2) === 0 ? "served" : "lost"),
    () => (pick(2) === 0 ? "served" : { delayMs: pick(12_000) }),
  ];
  const happen = (node: PretendNode): void => {
    switch (pick(8)) {
      case 0:
        pair.linkIsUp = false;
        break;
      case 1:
        pair.linkIsUp = true;
        break;
      case 2:
        node.fate = fates[pick(fates.length)]!;
        break;
      case 3:
        node.life.frozen = true;
        break;
      case 4:
        node.life.thaw();
        break;
      case 5:
        if (node.on) node.powerOff();
        else node.powerOn();
        break;
      case 6:
        node.killAgent();
        if (node.on) node.startAgent();
        break;
      case 7:
        node.hastdFrozen = !node.hastdFrozen;
    }
  };
  for (let step = 0; step < 600; step++) {
    if (pick(3) === 0) happen(pair.nodes[pick(2)]!);
    await pair.clock.pass(pick(3_000));
    for (const node of pair.nodes) pair.write(node);
  }
  const count = pair.acknowledgedCount;
  pair.linkIsUp = true;
  for (const node of pair.nodes) {
    node.fate = () => "served";
    node.life.thaw();
    node.hastdFrozen = false;
    if (!node.on) node.powerOn();
    else if (node.agent === null) node.startAgent();
  }
  await pair.until("both are in step again", () => {
    const served = pair.nodes.filter((node) => pair.write(node));
    return served.length > 0 && pair.set() === '["alpha","beta"]';
  });
  return count;
}

test("S-17: whatever goes wrong, no two writers, and nobody is promoted without what was acknowledged", async () => {
  let count = 0;
  for (let seed = 1; seed <= 6; seed++) count += await misfortunes(seed, false);
  expect.ok(count > 200, `${count} records acknowledged`);
});

test("S-17d: the same with clocks that stand still: no deadline ever passes", async () => {
  let count = 0;
  for (let seed = 101; seed <= 106; seed++) count += await misfortunes(seed, true);
  expect.ok(count > 200, `${count} records acknowledged`);
});

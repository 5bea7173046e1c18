// SPDX-License-Identifier: BSD-2-Clause
/** status, seed and move, as an operator meets them. */
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { ArbitratedPair, INSYNC } from "../../test/pretend/arbitrated-pair.ts";
import type { ResourceStatus } from "../wire/control.ts";
import { Etcd } from "./etcd.ts";
import type { Hastd } from "./hastd.ts";
import { move } from "./move.ts";
import { seed } from "./seed.ts";
import type { GroupSettings } from "./settings.ts";
import { status } from "./status.ts";

const SETTINGS: GroupSettings = {
  group: "g",
  resources: ["r0"],
  node: "beta",
  peer: "alpha",
  ttlS: 10,
  endpoints: ["http://a:2379"],
  files: { authorities: null, own: null },
};

/** A terminal at beta. */
function desk(
  pair: ArbitratedPair,
  local: Partial<ResourceStatus> = {},
  resources: readonly string[] = SETTINGS.resources,
) {
  const settings = { ...SETTINGS, resources };
  const { clock, etcd: store } = pair;
  const etcd = new Etcd({
    http: store.reachedBy(() => "served"),
    clock,
    endpoints: SETTINGS.endpoints,
    timeoutMs: 1_000,
  });
  const hastd = {
    status: async (names: readonly string[]) => ({
      kind: "answered",
      entries: names.map((resource) => ({
        resource,
        outcome: { kind: "known", status: local },
        errmsg: null,
        notes: [],
      })),
    }),
  } as unknown as Hastd;
  let [out, err] = ["", ""];
  const terminal = {
    out: (text: string) => {
      out += text;
    },
    err: (text: string) => {
      err += text;
    },
  };
  const typed = async (
    run: Promise<number>,
  ): Promise<{ code: number; out: string; err: string }> => {
    [out, err] = ["", ""];
    let code: number | null = null;
    void run.then((value) => {
      code = value;
    });
    await pair.until("it ends", () => code !== null);
    return { code: code!, out, err };
  };
  const memory = { latest: () => null, saw: () => undefined };
  return {
    status: () => typed(status(settings, etcd, memory, terminal)),
    move: (to: string | null = null) => typed(move(settings, etcd, clock, terminal, to)),
    seed: (force = false) => typed(seed({ settings, etcd, hastd, clock, terminal }, force)),
  };
}

test("status is 0 and silent about trouble where the other node could take over at once", async () => {
  const pair = await ArbitratedPair.leading();
  await pair.clock.pass(3_000);
  const { code, out, err } = await desk(pair).status();
  expect.equal(code, 0);
  expect.match(out, /^g:\n {2}leader: alpha, since \S+Z\n {2}in step for r0: alpha, beta\n$/);
  expect.equal(err, "");
});

test("status names the node that could not take over, and what to type", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha] = pair.nodes;
  pair.linkIsUp = false;
  await pair.until("alpha works alone", () => pair.write(alpha));
  const leading = await desk(pair).status();
  expect.equal(leading.code, 1);
  expect.match(leading.err, /r0: beta is not in step, .* hastctl status r0\n$/);
  alpha.powerOff();
  await pair.until("nobody leads", () => pair.leader() === null);
  const without = await desk(pair).status();
  expect.match(without.out, /leader: nobody/);
  expect.match(without.err, /beta lacks what was acknowledged without it; alpha has all of it/);
});

test("status names what is not in this node's failover.conf", async () => {
  const pair = await ArbitratedPair.leading();
  await pair.clock.pass(3_000);
  pair.etcd.put("/hast/g/insync/r1", '["alpha","beta"]');
  const { code, err } = await desk(pair).status();
  expect.equal(code, 1);
  expect.match(
    err,
    /r1: in group g, says etcd, and not in .* etcdctl put \/hast\/g\/insync\/r1 '\[\]'$/m,
  );

  const other = new ArbitratedPair();
  other.seed(["alpha", "beta"]);
  other.etcd.put("/hast/g/leader", '{"node":"gamma","serves":true}');
  expect.match((await desk(other).status()).err, /gamma leads, which is neither beta nor alpha/);
});

test("a resource that has left the group is put out of it without a step back in time, and may return", async () => {
  const pair = await ArbitratedPair.leading();
  const [, beta] = pair.nodes;
  pair.etcd.put("/hast/g/insync/r1", '["alpha","beta"]');
  await pair.until("beta has seen it", () => beta.log.says("r1: in group g"));
  const { err } = await desk(pair).status();
  const [, key, value] = / etcdctl put (\S+) '(\S+)'$/m.exec(err) ?? [];
  pair.etcd.put(key!, value!);
  await pair.clock.pass(30_000);
  expect.equal(pair.leader(), "alpha");
  expect.equal((await desk(pair).status()).code, 0);

  for (const node of pair.nodes) node.agent!.stop();
  await pair.until("nobody leads", () => pair.leader() === null);
  const back = await desk(pair, { role: "primary" }, ["r0", "r1"]).seed();
  expect.equal(back.code, 0, back.err);
  expect.equal(pair.etcd.value("/hast/g/insync/r1"), '["beta"]');
  expect.equal(pair.set(), '["alpha","beta"]');
});

test("seed of a resource that joins a group says when, and leaves the others as they are", async () => {
  const pair = await ArbitratedPair.leading();
  const resources = ["r0", "r1"];
  const whole = { role: "init", copy: "new" } as const;
  const refused = await desk(pair, whole, resources).seed();
  expect.match(refused.err, /alpha leads, and r1 can join the group only while nobody does/);
  for (const node of pair.nodes) node.agent!.stop();
  await pair.until("nobody leads", () => pair.leader() === null);
  expect.equal((await desk(pair, whole, resources).seed()).code, 0);
  expect.equal(pair.etcd.value("/hast/g/insync/r1"), '["beta"]');
  expect.equal(pair.set(), '["alpha","beta"]');
});

test("a resource that joins a group which nobody has led yet leaves the other one elected", async () => {
  const pair = new ArbitratedPair();
  const [, beta] = pair.nodes;
  const whole = { role: "init", copy: "new" } as const;
  expect.equal((await desk(pair, whole).seed()).code, 0);
  expect.equal((await desk(pair, whole, ["r0", "r1"]).seed()).code, 0);
  beta.copy = "new";
  beta.startAgent();
  await pair.until("beta serves", () => pair.write(beta), 10_000);
});

test("S-17: but it does not make an empty disk the one that has led", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  alpha.powerOff();
  await pair.until("beta works alone", () => pair.write(beta));
  beta.powerOff();
  await pair.until("nobody leads", () => pair.leader() === null);
  beta.replaceDisk();
  const whole = { role: "init", copy: "new" } as const;
  expect.equal((await desk(pair, whole, ["r0", "r1"]).seed()).code, 0);
  beta.powerOn();
  await pair.clock.pass(60_000);
  expect.equal(beta.role, "secondary");
  expect.ok(beta.log.says("is on another disk"));
});

test("seed says that this node has everything, once", async () => {
  const pair = new ArbitratedPair();
  const { code, out } = await desk(pair, { role: "primary" }).seed();
  expect.equal(code, 0);
  expect.match(out, /beta has all of r0/);
  expect.equal(pair.set(), '["beta"]');
  const again = await desk(pair, { role: "primary" }).seed();
  expect.equal(again.code, 1);
  expect.match(again.err, /hast-failover seed --force/);
});

test("seed refuses a copy of which nobody knows whether it is the newest; --force does not", async () => {
  for (const [local, plain, forced] of [
    [{ role: "init", copy: "new" }, 0, 0],
    [{ role: "init", copy: "consistent" }, 1, 0],
    [{ role: "secondary", copy: "uptodate" }, 1, 0],
    [{ role: "secondary", copy: "inconsistent" }, 1, 1],
    [{ role: "primary", copy: "inconsistent" }, 1, 1],
    [{ role: "secondary", copy: "outdated" }, 1, 1],
    [{ role: "init", copy: "consistent", remoteaddr: "none" }, 0, 0],
  ] as const) {
    const what = JSON.stringify(local);
    expect.equal((await desk(new ArbitratedPair(), local).seed()).code, plain, what);
    expect.equal((await desk(new ArbitratedPair(), local).seed(true)).code, forced, what);
  }
});

test("seed --force begins terms that are higher than any before, and only while nobody leads", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha] = pair.nodes;
  const refused = await desk(pair, { role: "secondary" }).seed(true);
  expect.equal(refused.code, 1);
  expect.match(refused.err, /alpha leads/);
  alpha.powerOff();
  await pair.until("beta leads", () => pair.leader() === "beta");
  const { term } = pair.nodes[1];
  pair.nodes[1].powerOff();
  pair.etcd.wipe();
  expect.equal((await desk(pair, { role: "init", copy: "consistent" }).seed(true)).code, 0);
  expect.ok(Number(pair.etcd.value("/hast/g/base")) > Number(term));
  expect.equal(pair.etcd.value(INSYNC), '["beta"]');
});

test("move returns when the other node serves, and takes its wish back", async () => {
  const pair = await ArbitratedPair.leading();
  const { code, out } = await desk(pair).move();
  expect.equal(code, 0);
  expect.match(out, /g: beta serves, after \d+\.\d s/);
  expect.equal(pair.leader(), "beta");
  expect.equal(pair.etcd.value("/hast/g/move"), null);
  const again = await desk(pair).move("beta");
  expect.deepEqual([again.code, again.out], [0, "g: beta leads already.\n"]);
});

test("move refuses a node that is not in step, or is none; and says so if nothing comes of it", async () => {
  const pair = await ArbitratedPair.leading();
  const [alpha, beta] = pair.nodes;
  expect.match((await desk(pair).move("gamma")).err, /gamma is none of its nodes/);
  beta.killAgent();
  const late = await desk(pair).move();
  expect.equal(late.code, 1);
  expect.match(late.err, /alpha leads on, since the agent on beta has not said within 10\.\d s/);
  expect.ok(pair.write(alpha));
  expect.deepEqual(alpha.scripts, ["stop", "start"], "nobody was interrupted");
  expect.equal(pair.etcd.value("/hast/g/move"), null);
  beta.startAgent();
  beta.scriptFailure = "mount: no such file system";
  const broken = await desk(pair).move();
  expect.match(broken.err, /beta does not serve after 60\.\d s/);
  await pair.until("alpha leads again", () => pair.write(alpha));
  pair.linkIsUp = false;
  await pair.until("alpha works alone", () => pair.write(alpha));
  expect.match((await desk(pair).move()).err, /beta is not in step/);
});

// SPDX-License-Identifier: BSD-2-Clause
/**
 * The operating commands on two real nodes: what each does, that it may be typed again, and what it
 * says where it cannot be done.
 */

import { strict as assert } from "node:assert";
import { test } from "node:test";
import { EXTENT, readExtent, spoil, writeExtents } from "./extents.ts";
import { type Node, RESOURCE, TwoNodes, withPair } from "./two-nodes.ts";
import { pause, until } from "./until.ts";

const MIB = 1024 * 1024;

/** @returns what it printed */
async function typed(node: Node, command: string, ...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await node.hastctl(command, ...args, RESOURCE);
  assert.equal(code, 0, `${node.name}: ${command}: ${stderr}`);
  return stdout;
}

/** @returns what it complained of */
async function refused(node: Node, command: string, ...args: readonly string[]): Promise<string> {
  const { code, stderr } = await node.hastctl(command, ...args, RESOURCE);
  assert.equal(code, 2, `${node.name}: ${command}: ${stderr}`);
  assert.match(stderr, /hastctl /, "it names the next command");
  return stderr;
}

const copyOf = async (node: Node) => (await node.list()).get("copy");

test("disconnect under load, then connect: nothing else than the difference is copied", () =>
  withPair(TwoNodes.startReplicating({ mediaSize: 128 * MIB }), async (pair) => {
    const { alpha, beta } = pair;
    for (const [node, next] of [
      [alpha, 0x22],
      [beta, 0x33],
    ] as const) {
      await writeExtents(alpha, [1, 2, 3], 0x11);
      await pair.inSync(alpha);
      const load = (async () => {
        for (const extent of [10, 11, 12]) await writeExtents(alpha, [extent], next);
      })();
      assert.match(await typed(node, "disconnect"), /disconnected from/);
      await load;
      await writeExtents(alpha, [20, 21], next);
      assert.match(await typed(node, "disconnect"), /already disconnected by an operator since/);
      await pause(1_500);
      assert.equal((await alpha.list()).get("status"), "degraded");
      assert.match(
        await node.status(),
        /disconnected by an operator since .*hastctl connect shared/,
      );
      assert.doesNotMatch(await node.status(), /not connected|connecting to/);
      if (node === beta) {
        const status = await alpha.status();
        assert.match(
          status,
          /disconnected by an operator\. To end that, on that node: hastctl conn/,
        );
      }
      assert.ok((await pair.differences()).length >= 2);

      await spoil(beta, 25 * EXTENT);
      assert.match(await typed(node, "connect"), /To watch/);
      await pair.inSync(alpha);
      assert.match(await typed(node, "connect"), /already connected/);
      assert.deepEqual(await pair.differences(), [25 * EXTENT], "only what was written is copied");
      assert.equal(await readExtent(alpha, 21), next);
      await spoil(beta, 25 * EXTENT);
    }
    // Neither node's order is taken for the primary's death.
    for (const node of [alpha, beta]) {
      await typed(node, "disconnect");
      await until("beta knows", async () => (await beta.list()).get("status") !== "complete");
      const promotion = await beta.hastctl("role", "primary", RESOURCE);
      assert.equal(promotion.code, 2, "the primary lives");
      assert.match(promotion.stderr, /the other node is primary/);
      assert.match(await node.status(), /disconnected by an operator/, "and all is as it was");
      if (node === alpha) await typed(alpha, "connect");
    }
    // A change of role ends it.
    await beta.role("init");
    await beta.role("secondary");
    await pair.inSync(alpha);
  }));

test("outdate: not while in step; then no promotion, until the nodes have met", () =>
  withPair(TwoNodes.startReplicating(), async (pair) => {
    const { alpha, beta } = pair;
    await writeExtents(alpha, [1], 0x11);
    assert.match(await refused(alpha, "outdate"), /this node is primary/);
    assert.match(await refused(beta, "outdate"), /in step .*hastctl disconnect shared/);
    await typed(beta, "disconnect");
    assert.match(await typed(beta, "outdate", "--dry-run"), /would be outdated/);
    assert.equal(await copyOf(beta), "consistent");
    assert.match(await typed(beta, "outdate"), /is outdated/);
    assert.match(await typed(beta, "outdate"), /already outdated/);
    assert.equal(await copyOf(beta), "outdated");
    assert.equal((await beta.dump()).get("state"), "outdated");
    await alpha.crash();
    const { code, stderr } = await beta.hastctl("role", "primary", RESOURCE);
    assert.equal(code, 2);
    assert.match(stderr, /this copy is outdated.*hastctl role --force primary shared/s);
    assert.equal(await copyOf(beta), "outdated");
    // They meet again. Nothing was written, nothing is copied, and both know that they are in step.
    await alpha.start();
    await beta.role("init");
    await beta.role("secondary");
    await alpha.role("primary");
    await until("beta is up to date", async () => (await copyOf(beta)) === "uptodate");
    assert.equal((await beta.dump()).get("state"), "uptodate");
  }));

test("invalidate on the secondary: a spoilt copy is made anew, although no map marks it", () =>
  withPair(TwoNodes.startReplicating(), async (pair) => {
    const { alpha, beta } = pair;
    await writeExtents(alpha, [1, 2, 3], 0x11);
    await pair.inSync(alpha);
    await spoil(beta, 2 * EXTENT);
    await spoil(beta, 20 * EXTENT);
    assert.deepEqual(await pair.differences(), [2 * EXTENT, 20 * EXTENT]);
    const dry = await typed(beta, "invalidate", "--dry-run");
    assert.match(dry, /to be thrown away: this node's copy, 6\dMB on /);
    assert.equal(await copyOf(beta), "uptodate");
    const done = await typed(beta, "invalidate");
    assert.match(done, /to be thrown away[\s\S]*shared: done\n {2}this node's copy is thrown away/);
    await pair.inSync(alpha);
    await until("beta is whole", async () => (await copyOf(beta)) === "uptodate");
    assert.deepEqual(await pair.differences(), []);
    assert.equal(await readExtent(alpha, 2), 0x11);

    // Without a primary that has a whole copy there is nothing to be had.
    await typed(alpha, "disconnect");
    assert.match(await refused(beta, "invalidate"), /no primary is connected/);
    assert.match(await refused(beta, "invalidate", "--dry-run"), /no primary is connected/);
    assert.equal(await copyOf(beta), "consistent");
  }));

test("invalidate on the primary: it serves from the other node until its copy is made anew", () =>
  withPair(TwoNodes.startReplicating({ compression: "none" }), async (pair) => {
    const { alpha, beta } = pair;
    await writeExtents(alpha, [1, 2, 3], 0x11);
    await pair.inSync(alpha);
    await spoil(alpha, 2 * EXTENT);
    await spoil(alpha, 20 * EXTENT);
    await typed(alpha, "resync-rate", "1m");
    assert.match(await typed(alpha, "invalidate", "--dry-run"), /served from there/);
    assert.match(await typed(alpha, "invalidate"), /which serves meanwhile/);
    assert.equal((await alpha.dump()).get("state"), "inconsistent");
    assert.equal(await copyOf(alpha), "inconsistent");
    // What it reads and writes now is the other node's.
    assert.equal(await readExtent(alpha, 2), 0x11);
    await writeExtents(alpha, [30], 0x44);
    assert.match(await typed(alpha, "invalidate"), /already thrown away/);
    assert.match(await alpha.status(), /limited to 1.0MB\/s/);
    // Nobody may take the only copy away.
    assert.match(await refused(alpha, "disconnect"), /own copy is not whole/);
    assert.match(await refused(beta, "disconnect"), /the primary's own copy is not whole/);
    assert.match(await refused(beta, "invalidate"), /the primary's own copy is not whole/);
    assert.equal(await copyOf(beta), "uptodate");
    // It survives a crash of that node.
    await alpha.killWorker();
    await until("alpha is back", async () => (await alpha.list()).get("status") === "complete");
    assert.equal(await readExtent(alpha, 2), 0x11);
    await typed(alpha, "resync-rate", "0");
    await pair.inSync(alpha);
    await until("alpha is whole", async () => (await copyOf(alpha)) === "uptodate");
    assert.deepEqual(await pair.differences(), []);
    assert.equal(await readExtent(alpha, 30), 0x44);
  }));

test("pause-resync holds the copying, and new writes go to both nodes", () =>
  withPair(TwoNodes.startReplicating({ mediaSize: 128 * MIB }), async (pair) => {
    const { alpha, beta } = pair;
    assert.match(await refused(beta, "pause-resync"), /On the primary/);
    await typed(alpha, "disconnect");
    await writeExtents(alpha, [1, 2, 3, 4], 0x11);
    assert.match(await typed(alpha, "pause-resync"), /hastctl resume-resync shared/);
    assert.match(await typed(alpha, "pause-resync"), /already paused/);
    await typed(alpha, "connect");
    await until("they are connected", async () => {
      return (await alpha.list()).get("status") === "complete";
    });
    await writeExtents(alpha, [40], 0x22);
    await pause(1_000);
    assert.match(await alpha.status(), /paused: 0B copied, 8.0MB left.*hastctl resume-resync/);
    assert.deepEqual(
      await pair.differences(),
      [1, 2, 3, 4].map((extent) => extent * EXTENT),
    );
    assert.match(await typed(alpha, "resume-resync"), /go on/);
    await pair.inSync(alpha);
    assert.match(await typed(alpha, "resume-resync"), /not paused/);
    assert.deepEqual(await pair.differences(), []);
  }));

test("resync-rate is kept, listed, and asked for on the primary", () =>
  withPair(TwoNodes.startReplicating(), async ({ alpha, beta }) => {
    assert.match(await typed(alpha, "resync-rate", "20m"), /at most 20MB\/s/);
    assert.match(await typed(alpha, "resync-rate", "20m"), /already/);
    assert.equal((await alpha.list()).get("resyncrate"), "20971520 (20MB/s)");
    assert.match(await typed(beta, "resync-rate", "1k"), /type it on the primary, too/);
    assert.equal((await alpha.hastctl("resync-rate", "fast", RESOURCE)).code, 64);
    assert.match(await typed(alpha, "resync-rate", "0"), /as fast as it goes/);
  }));

test("wrong usage: no such resource, no role, no names, no hastd", async () => {
  const pair = await TwoNodes.start();
  await withPair(Promise.resolve(pair), async ({ alpha, beta }) => {
    const each = ["connect", "disconnect", "pause-resync", "invalidate"];
    for (const command of each) {
      assert.match(await refused(alpha, command), /init/, command);
      const unknown = await alpha.hastctl(command, "nonsense", RESOURCE);
      assert.equal(unknown.code, 1, "the first failure counts");
      assert.match(unknown.stderr, /There is no resource nonsense/);
      assert.match(unknown.stderr, /\[shared\]/, "and the others are dealt with");
      assert.equal((await alpha.hastctl(command)).code, 64);
    }
    assert.match(await refused(alpha, "outdate"), /this copy is new/);
    await beta.stop();
    const absent = await beta.hastctl("connect", "all");
    assert.equal(absent.code, 71);
    assert.match(absent.stderr, /If hastd is not running, start it/);
  });
});

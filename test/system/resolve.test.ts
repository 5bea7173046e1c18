// SPDX-License-Identifier: BSD-2-Clause
/**
 * A split-brain, ended by `hastctl resolve --discard-local`: what either node changed is copied, and no
 * more. An administrator once had 1 to 2 GB of changes and was told 1.8 TB; here it is 7 extents of 128.
 */

import { strict as assert } from "node:assert";
import { test } from "node:test";
import { EXTENT, readExtent, spoil, writeExtents } from "./extents.ts";
import { type Node, RESOURCE, TwoNodes, withPair } from "./two-nodes.ts";
import { pause, until } from "./until.ts";

const MIB = 1024 * 1024;
const MEDIA = 256 * MIB;
/** Zeroes are not shortened, so that a copy takes its time. */
const WIDE = { proxied: true, mediaSize: MEDIA, compression: "none" } as const;

/** Both are written alone, and meet again with alpha primary. alpha: 10 to 13. beta: 13, 20 to 22. */
async function splitBrain(pair: TwoNodes): Promise<void> {
  const { alpha, beta } = pair;
  await writeExtents(alpha, [1, 2, 3, 10, 13, 20], 0x11);
  await pair.inSync(alpha);
  pair.alphaToBeta!.cut();
  pair.betaToAlpha!.cut();
  await until("beta knows", async () => (await beta.list()).get("status") !== "complete");
  await beta.role("primary");
  await writeExtents(alpha, [10, 11, 12, 13], 0xaa);
  await writeExtents(beta, [13, 20, 21, 22], 0xbb);
  await beta.role("secondary");
  pair.alphaToBeta!.heal();
  pair.betaToAlpha!.heal();
  await latched(pair);
}

async function latched({ nodes }: TwoNodes): Promise<void> {
  for (const node of nodes) {
    await until(`${node.name} knows`, async () => /split-brain/.test(await node.status()));
  }
}

function resolve(node: Node, ...options: readonly string[]): ReturnType<Node["hastctl"]> {
  return node.hastctl("resolve", "--discard-local", ...options, RESOURCE);
}

/** With the operator's word where the copy alone does not allow it. */
async function promote(node: Node): Promise<void> {
  const { code } = await node.hastctl("role", "primary", RESOURCE);
  if (code !== 0) await node.role("primary", "--force");
}

function eventCount(node: Node): number {
  return node.logText().match(/Event: split-brain/g)?.length ?? 0;
}

test("a split-brain is ended by copying what either node changed, and no more (S-10)", () =>
  withPair(TwoNodes.startReplicating({ proxied: true, mediaSize: MEDIA }), async (pair) => {
    const { alpha, beta } = pair;
    await splitBrain(pair);

    // Both nodes say who wrote how much, since when, and what to type.
    const time = "alone since \\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d UTC";
    const four = `4 extents \\(8.0MB\\), ${time}`;
    for (const node of pair.nodes) {
      const status = await node.status();
      assert.match(status, new RegExp(`changed here: ${four}; on the other node: ${four}`));
      assert.match(status, /hastctl resolve --discard-local --dry-run shared/);
    }

    // A look changes nothing.
    const before = await Promise.all([alpha.dump(), beta.dump(), pair.differences()]);
    const dry = await resolve(beta, "--dry-run");
    assert.equal(dry.code, 0, dry.stderr);
    assert.match(dry.stdout, new RegExp(`to be thrown away, .*: ${four}`));
    assert.match(dry.stdout, new RegExp(`to be kept, .*: ${four}`));
    assert.match(dry.stdout, /at most 8 extents of 128 \(16MB\)/);
    await pause(500);
    assert.deepEqual(await Promise.all([alpha.dump(), beta.dump(), pair.differences()]), before);

    // On the wrong node it says what to type where.
    const wrong = await resolve(alpha);
    assert.equal(wrong.code, 2);
    assert.match(wrong.stderr, /this node is primary/);
    assert.match(wrong.stderr, /hastctl role secondary shared/);

    await spoil(beta, 50 * EXTENT);
    const done = await resolve(beta);
    assert.equal(done.code, 0, done.stderr);
    assert.match(done.stdout, /shared: done\n {2}thrown away/);
    const again = await resolve(beta);
    assert.equal(again.code, 0, again.stderr);
    assert.match(again.stdout, /nothing to discard/);

    // Nobody does anything on alpha.
    await pair.inSync(alpha);
    await until("alpha tells what was copied", async () =>
      /synchronized to the peer, 14MB in 7 extents copied/.test(await alpha.status()),
    );
    assert.deepEqual(await pair.differences(), [50 * EXTENT], "only what was changed is copied");
    for (const extent of [10, 11, 12, 13]) assert.equal(await readExtent(alpha, extent), 0xaa);
    assert.equal(await readExtent(alpha, 20), 0x11);
    assert.equal(await readExtent(alpha, 21), 0);
    assert.doesNotMatch(await beta.status(), /split-brain|thrown away/);

    // In step, there is nothing to resolve.
    const healthy = await resolve(beta);
    assert.equal(healthy.code, 0);
    assert.match(healthy.stdout, /nothing to discard/);
  }));

test("BD-34: a split-brain is raised once on each node, however long it lasts", () =>
  withPair(TwoNodes.startReplicating({ proxied: true }), async (pair) => {
    const { alpha, beta } = pair;
    await splitBrain(pair);
    await until("the refused worker has gone", async () => (await beta.workerPid()) === 0);
    await pause(22_000);
    assert.equal(eventCount(alpha), 1);
    assert.equal(eventCount(beta), 1);
    assert.equal(await beta.workerPid(), 0, "no worker is started for a primary refused before");
    const starts = beta.logText().match(/changed here/g)?.length;
    assert.equal(starts, 1, "nor is the same said again");
    // The primary goes on serving.
    await writeExtents(alpha, [5], 0x55);
    assert.equal(await readExtent(alpha, 5), 0x55);
    assert.match(await alpha.status(), /changed here: 5 extents/);
    await until(
      "beta hears of it without a new split-brain",
      async () => /on the other node: 5 extents/.test(await beta.status()),
      { withinMs: 15_000 },
    );
    assert.equal(eventCount(beta), 1);
  }));

test("the node that was primary can be the one to give way, in either order of the commands", async () => {
  for (const order of ["resolve first", "other node first"] as const) {
    await withPair(TwoNodes.startReplicating({ proxied: true }), async (pair) => {
      const { alpha, beta } = pair;
      await splitBrain(pair);
      await alpha.role("secondary");
      if (order === "other node first") {
        await promote(beta);
        await latched(pair);
      }
      const done = await resolve(alpha);
      assert.equal(done.code, 0, done.stderr);
      assert.match(done.stdout, /at most 8 extents of/);
      if (order === "resolve first") await promote(beta);
      await pair.inSync(beta);
      assert.deepEqual(await pair.differences(), []);
      assert.equal(await readExtent(beta, 20), 0xbb);
      assert.equal(await readExtent(beta, 10), 0x11);
    });
  }
});

test("S-10: killed at any point, a resolve goes on where it was", () =>
  withPair(TwoNodes.startReplicating(WIDE), async (pair) => {
    const { alpha, beta } = pair;
    await splitBrain(pair);
    const link = pair.alphaToBeta!;
    await resolve(beta);
    // The copy is slow, and both machines die in the middle of it, one after the other.
    link.delay(20);
    await link.cutAfter("upstream", 3 * MIB);
    await beta.crash();
    await beta.start();
    await beta.role("secondary");
    link.heal();
    await link.cutAfter("upstream", 3 * MIB);
    await alpha.crash();
    link.heal();
    await alpha.start();
    await promote(alpha);
    link.delay(0);
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);
    for (const extent of [10, 11, 12, 13]) assert.equal(await readExtent(alpha, extent), 0xaa);
    assert.equal(eventCount(alpha) + eventCount(beta), 2, "and it is no split-brain again");
  }));

test("S-18: nodes written before they ever met: everything is copied, and that is said first", () =>
  withPair(TwoNodes.start(), async (pair) => {
    const { alpha, beta } = pair;
    await alpha.role("primary");
    await writeExtents(alpha, [1], 0xaa);
    await alpha.role("init");
    await beta.role("primary");
    await writeExtents(beta, [2], 0xbb);
    await beta.role("init");
    await spoil(beta, 9 * EXTENT);

    const unknown = await resolve(beta);
    assert.equal(unknown.code, 2);
    assert.match(unknown.stderr, /no split-brain is known here/);
    assert.match(unknown.stderr, /hastctl role primary shared/);

    await beta.role("secondary");
    await alpha.role("primary", "--force");
    await latched(pair);
    const dry = await resolve(beta, "--dry-run");
    assert.match(dry.stdout, /everything, 6\dMB, because the two copies have no history in common/);
    const done = await resolve(beta);
    assert.equal(done.code, 0, done.stderr);
    assert.ok(done.stdout.indexOf("because") < done.stdout.indexOf("done"));
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);
    assert.equal(await readExtent(alpha, 1), 0xaa);
    assert.equal(await readExtent(alpha, 2), 0);
    // A full copy was made: never-written areas are equal, and status has nothing to say of them.
    assert.doesNotMatch(await alpha.status(), /never written/);
  }));

test("resolve without hastd, without names, without saying whose changes", async () => {
  const pair = await TwoNodes.prepare();
  try {
    const absent = await resolve(pair.alpha);
    assert.equal(absent.code, 71);
    assert.match(absent.stderr, /If hastd is not running, start it/);
    assert.equal((await pair.alpha.hastctl("resolve", RESOURCE)).code, 64);
    assert.equal((await pair.alpha.hastctl("resolve", "--discard-local")).code, 64);
    assert.equal((await pair.alpha.hastctl("resolve", "--discard-local", "all")).code, 64);
  } finally {
    await pair.stop();
  }
});

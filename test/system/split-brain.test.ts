// SPDX-License-Identifier: BSD-2-Clause
/** Both nodes took writes while apart: nobody's are overwritten, and everybody is told. */

import { strict as assert } from "node:assert";
import { test } from "node:test";
import { RecordedWriter } from "./recorded-writer.ts";
import { type Node, RESOURCE, TwoNodes, withPair } from "./two-nodes.ts";
import { pause, until } from "./until.ts";

async function writeTo(node: Node, seed: number): Promise<RecordedWriter> {
  const client = await node.connect();
  const writer = new RecordedWriter({ offset: 0, blockCount: 512, seed });
  writer.start(client);
  await until(`${node.name} acknowledges`, () => writer.acknowledgedCount > 1000);
  assert.equal(await writer.stop(), null);
  await client.flush();
  await client.disconnect();
  return writer;
}

async function verifyOn(node: Node, writer: RecordedWriter): Promise<void> {
  const client = await node.connect();
  await writer.verify(client);
  await client.disconnect();
}

test("split-brain is refused, reported on both nodes, and mended by hand", () =>
  withPair(TwoNodes.startReplicating({ proxied: true }), async (pair) => {
    const { alpha, beta } = pair;

    // Apart, both are made primary, and both are written to.
    pair.alphaToBeta!.cut();
    pair.betaToAlpha!.cut();
    await until("beta knows", async () => (await beta.list()).get("status") !== "complete");
    await beta.role("primary");
    const alphas = await writeTo(alpha, 1);
    const betas = await writeTo(beta, 2);
    const before = await pair.differences();
    assert.ok(before.length > 0);

    // Together again.
    await beta.role("secondary");
    pair.alphaToBeta!.heal();
    pair.betaToAlpha!.heal();
    await until("alpha's log says so", () => /split-brain/i.test(alpha.logText()));
    await until("beta's log says so", () => /split-brain/i.test(beta.logText()));
    const status = await alpha.status();
    assert.match(status, /degraded primary/);
    assert.match(status, /split-brain/i, "status says why it is degraded");

    // More than one attempt later, each still has its own.
    await pause(12_000);
    assert.deepEqual(await pair.differences(), before);
    await verifyOn(alpha, alphas);
    await beta.role("init");
    await alpha.role("init");
    // It knows that the other node has data of its own: only an operator can make it primary now.
    const refused = await beta.hastctl("role", "primary", RESOURCE);
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /may have gone on without it/);
    await beta.role("primary", "--force");
    assert.match(await beta.status(), /promoted by force/);
    assert.match((await beta.dump()).get("forced") ?? "", /while uptodate/);
    await verifyOn(beta, betas);

    // The operator chooses alpha: beta's copy is thrown away and filled anew.
    await beta.role("init");
    await beta.create("--force");
    await beta.role("secondary");
    await alpha.role("primary");
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);
    await verifyOn(alpha, alphas);
  }));

test("two nodes that were written before they ever met are a split-brain, too", () =>
  withPair(TwoNodes.start(), async (pair) => {
    const { alpha, beta } = pair;
    await alpha.role("primary");
    const alphas = await writeTo(alpha, 1);
    await alpha.role("init");
    await beta.role("primary");
    await writeTo(beta, 2);
    await beta.role("init");
    const before = await pair.differences();
    await beta.role("secondary");
    await assert.rejects(alpha.role("primary"), /Split-brain condition!.*role --force primary/s);
    await alpha.role("primary", "--force");
    assert.deepEqual(await pair.differences(), before);
    await verifyOn(alpha, alphas);
    assert.match(await alpha.status(), /degraded/);
  }));

test("a node is not promoted while its primary is connected and alive (S-11)", () =>
  withPair(TwoNodes.startReplicating(), async (pair) => {
    const { alpha, beta } = pair;
    let answered = false;
    const promotion = beta.hastctl("role", "primary", RESOURCE).finally(() => {
      answered = true;
    });
    let writer = await writeTo(alpha, 1);
    while (!answered) writer = await writeTo(alpha, 1);
    const { code, stderr } = await promotion;
    assert.equal(code, 2);
    assert.match(stderr, /alive/);
    assert.match(stderr, /hastctl role secondary shared/);
    assert.match(await beta.status(), /complete secondary/);
    await pair.inSync(alpha);
    await verifyOn(alpha, writer);
    assert.deepEqual(await pair.differences(), []);
  }));

// SPDX-License-Identifier: BSD-2-Clause
/** A node was away: afterwards the copies are equal, and only what was dirty has been copied. */

import { strict as assert } from "node:assert";
import { test } from "node:test";
import { spoil } from "./extents.ts";
import type { NbdClient } from "./nbd-client.ts";
import { RecordedWriter } from "./recorded-writer.ts";
import { bytesOf, RESOURCE, TwoNodes, withPair } from "./two-nodes.ts";
import { until } from "./until.ts";

const MIB = 1024 * 1024;

/** Writes to 24 of the disk's 31 or so extents, and leaves what lies above to others. */
function writerOver(client: NbdClient, mebibytes = 8): RecordedWriter {
  const writer = new RecordedWriter({ offset: 0, blockCount: mebibytes * 256 });
  writer.start(client);
  return writer;
}

async function writeSome(writer: RecordedWriter, count: number): Promise<void> {
  const before = writer.acknowledgedCount;
  await until(`${count} writes are acknowledged`, () => writer.acknowledgedCount >= before + count);
}

test("a secondary that was dead gets the dirty extents, and no others", () =>
  withPair(TwoNodes.startReplicating(), async (pair) => {
    const { alpha, beta } = pair;
    const client = await alpha.connect();
    const writer = writerOver(client);
    await writeSome(writer, 2000);
    await beta.crash();
    await writeSome(writer, 2000);
    assert.equal(await writer.stop(), null);
    await until("alpha knows", async () => (await alpha.list()).get("status") === "degraded");
    assert.ok(bytesOf((await alpha.list()).get("dirty")) > 0);
    await spoil(beta, 40 * MIB);
    await spoil(beta, 0);

    await beta.start();
    await beta.role("secondary");
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), [40 * MIB], "only the clean extent was left alone");
    await writer.verify(client);
    await client.disconnect();
  }));

test("a primary that died comes back as secondary and gets what it missed, and no more", () =>
  withPair(TwoNodes.startReplicating(), async (pair) => {
    const { alpha, beta } = pair;
    const client = await alpha.connect();
    const writer = writerOver(client);
    await writeSome(writer, 2000);
    await alpha.crash();
    assert.notEqual(await writer.ended(), null);

    await until("beta knows", async () => (await beta.list()).get("status") !== "complete");
    await beta.role("primary");
    const other = await beta.connect();
    await writer.verify(other);
    writer.start(other);
    await writeSome(writer, 2000);
    assert.equal(await writer.stop(), null);
    await spoil(alpha, 40 * MIB);

    await alpha.start();
    await alpha.role("secondary");
    await pair.inSync(beta);
    assert.deepEqual(await pair.differences(), [40 * MIB]);
    await writer.verify(other);
    await other.disconnect();
    assert.match(alpha.logText(), new RegExp(`\\[${RESOURCE}\\] \\(secondary\\)`));
  }));

test("a primary that was behind reads from the secondary until it has caught up", () =>
  withPair(TwoNodes.startReplicating({ proxied: true }), async (pair) => {
    const { alpha, beta } = pair;
    const client = await alpha.connect();
    const writer = writerOver(client, 24);
    await writeSome(writer, 1000);
    await beta.crash();
    await writeSome(writer, 6000);
    assert.equal(await writer.stop(), null);
    await client.disconnect();
    await alpha.role("secondary");

    // The way back is slow enough to be watched.
    pair.betaToAlpha!.delay(20);
    await beta.start();
    await beta.role("primary");
    const other = await beta.connect();
    await writer.verify(other);
    const during = await beta.list();
    assert.ok(
      bytesOf(during.get("dirty")) > 0 || during.get("status") === "complete",
      "either it was still behind, or it had caught up",
    );
    writer.start(other);
    await writeSome(writer, 200);
    assert.equal(await writer.stop(), null);
    pair.betaToAlpha!.delay(0);
    await pair.inSync(beta);
    assert.deepEqual(await pair.differences(), []);
    await writer.verify(other);
    await other.disconnect();
  }));

test("a resync that is cut goes on where the maps say, and events tell the story", () =>
  withPair(TwoNodes.start({ proxied: true }), async (pair) => {
    const { alpha, beta } = pair;
    await alpha.role("primary");
    const client = await alpha.connect();
    const writer = writerOver(client, 24);
    await until("every extent is dirty", () => writer.acknowledgedBlocks > 20 * 256);
    assert.equal(await writer.stop(), null);
    const link = pair.alphaToBeta!;
    link.delay(10);
    await beta.role("secondary");
    for (const part of [200_000, 2_000_000, 5_000_000]) {
      await link.cutAfter("upstream", part);
      link.heal();
    }
    link.delay(0);
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);
    await writer.verify(client);
    await client.disconnect();
  }));

test("a disk that was replaced is filled completely", () =>
  withPair(TwoNodes.startReplicating(), async (pair) => {
    const { alpha, beta } = pair;
    const client = await alpha.connect();
    const writer = writerOver(client);
    await writeSome(writer, 1000);
    assert.equal(await writer.stop(), null);
    await beta.stop();
    await spoil(beta, 40 * MIB);
    await beta.create("--force");
    await beta.start();
    await beta.role("secondary");
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);
    await client.disconnect();
  }));

test("a primary whose disk was replaced is not promoted on the empty one, and is filled from the other node", () =>
  withPair(TwoNodes.startReplicating(), async (pair) => {
    const { alpha, beta } = pair;
    const client = await alpha.connect();
    const writer = writerOver(client);
    await writeSome(writer, 1000);
    assert.equal(await writer.stop(), null);
    await client.disconnect();
    // The daemon that was primary a moment ago must not believe that it knows the new copy.
    await alpha.role("init");
    await spoil(alpha, 40 * MIB);
    await alpha.create("--force");
    const { code, stderr } = await alpha.hastctl("role", "primary", RESOURCE);
    assert.notEqual(code, 0);
    assert.match(
      stderr,
      /this copy is new, and the other node holds data .*here: hastctl role secondary shared; then on the other node: hastctl role primary shared/,
    );
    await alpha.role("secondary");
    await beta.role("primary");
    await pair.inSync(beta);
    assert.deepEqual(await pair.differences(), []);
    await beta.role("secondary");
    await alpha.role("primary");
    await pair.inSync(alpha);
    const again = await alpha.connect();
    await writer.verify(again);
    await again.disconnect();
  }));

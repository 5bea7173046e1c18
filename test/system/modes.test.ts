// SPDX-License-Identifier: BSD-2-Clause
/** Each replication mode, with each checksum and compression: a verified load, then equal copies. */

import { strict as assert } from "node:assert";
import { test } from "node:test";
import { RecordedWriter } from "./recorded-writer.ts";
import { TwoNodes, type TwoNodesOptions, withPair } from "./two-nodes.ts";
import { until } from "./until.ts";

const CASES: readonly TwoNodesOptions[] = [
  { replication: "fullsync", checksum: "none", compression: "none" },
  { replication: "fullsync", checksum: "sha256", compression: "lzf" },
  { replication: "memsync", checksum: "none", compression: "hole" },
  { replication: "memsync", checksum: "crc32", compression: "lzf" },
  { replication: "async", checksum: "none", compression: "none" },
  { replication: "async", checksum: "crc32", compression: "hole" },
];

for (const options of CASES) {
  const { replication, checksum, compression } = options;
  test(`${replication}, checksum ${checksum}, compression ${compression}: what fio wrote is on both nodes`, () =>
    withPair(TwoNodes.startReplicating(options), async (pair) => {
      const { alpha, beta } = pair;
      assert.equal((await alpha.list()).get("replication"), replication);
      const fio = [
        "--name=v",
        "--ioengine=nbd",
        "--verify_state_save=0",
        "--uri=URI",
        "--size=16M",
        "--iodepth=16",
      ];
      await alpha.tool(
        "fio",
        ...[...fio, "--rw=randwrite", "--bsrange=4k-128k", "--bs_unaligned=0", "--randseed=7"],
        ...["--verify=crc32c", "--do_verify=1", "--buffer_compress_percentage=50"],
      );
      const client = await alpha.connect();
      const writer = new RecordedWriter({
        offset: 20 * 1024 * 1024,
        blockCount: 512,
        flushEvery: 50,
      });
      writer.start(client);
      await until("there is something to lose", () => writer.acknowledgedCount > 2000);
      assert.equal(await writer.stop(), null);
      await client.zero(17 * 1024 * 1024, 1024 * 1024);
      await client.trim(16 * 1024 * 1024, 1024 * 1024);
      await client.disconnect();
      await pair.inSync(alpha);
      assert.deepEqual(await pair.differences(), []);

      // The other node serves the same bytes.
      await alpha.role("secondary");
      await beta.role("primary");
      const other = await beta.connect();
      await writer.verify(other);
      await other.disconnect();
    }));
}

for (const replication of ["fullsync", "memsync", "async"] as const) {
  test(`${replication}: writes are acknowledged without a peer, and reach it when it comes`, () =>
    withPair(TwoNodes.start({ replication }), async (pair) => {
      const { alpha, beta } = pair;
      await alpha.role("primary");
      const client = await alpha.connect();
      const writer = new RecordedWriter({ offset: 0, blockCount: 256 });
      writer.start(client);
      await until("it was acknowledged alone", () => writer.acknowledgedCount > 500);
      assert.equal((await alpha.list()).get("status"), "degraded");
      await beta.role("secondary");
      // Under load something is always dirty: only the connection counts here.
      await until(
        "alpha has a peer",
        async () => (await alpha.list()).get("status") === "complete",
      );
      const before = writer.acknowledgedCount;
      await until("it goes on", () => writer.acknowledgedCount > before + 500);
      assert.equal(await writer.stop(), null);
      await client.disconnect();
      await pair.inSync(alpha);
      assert.deepEqual(await pair.differences(), []);
    }));
}

test("`remote none`: a node alone works, and its writes survive a restart", () =>
  withPair(TwoNodes.start(), async (pair) => {
    const { alpha } = pair;
    await alpha.stop();
    pair.configureAlone();
    await alpha.start();
    await alpha.role("primary");
    const client = await alpha.connect();
    const writer = new RecordedWriter({ offset: 0, blockCount: 256 });
    writer.start(client);
    await until("there is something to lose", () => writer.acknowledgedCount > 500);
    assert.equal(await writer.stop(), null);
    await alpha.crash();
    await alpha.start();
    await alpha.role("primary");
    const again = await alpha.connect();
    await writer.verify(again);
    assert.equal((await alpha.list()).get("remoteaddr"), "none");
    await again.disconnect();
  }));

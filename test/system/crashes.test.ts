// SPDX-License-Identifier: BSD-2-Clause
/** SIGKILL, to each process there is, in the middle of a load: nothing acknowledged is lost. */

import { strict as assert } from "node:assert";
import { test } from "node:test";
import { type Outcome, runCommand } from "./command.ts";
import { RecordedWriter } from "./recorded-writer.ts";
import { type Node, TwoNodes, withPair } from "./two-nodes.ts";
import { until } from "./until.ts";

const MIB = 1024 * 1024;

/** fio on the first 24 MiB, as it runs; verified at its end if nobody pulls the disk away. */
function fio(node: Node): Promise<Outcome> {
  return runCommand("fio", [
    ...[
      "--name=v",
      "--ioengine=nbd",
      "--verify_state_save=0",
      `--uri=${node.uri}`,
      "--size=24M",
      "--rw=randwrite",
    ],
    ...["--bs=4k", "--iodepth=16", "--randseed=7", "--loops=4"],
    ...["--verify=crc32c", "--do_verify=1", "--verify_backlog=512"],
  ]);
}

/** A writer beside it that remembers. */
async function startWriter(node: Node): Promise<RecordedWriter> {
  const writer = new RecordedWriter({ offset: 32 * MIB, blockCount: 2048, flushEvery: 100 });
  writer.start(await node.connect());
  await until("the load is on", () => writer.acknowledgedCount > 1000);
  return writer;
}

async function goOn(node: Node, writer: RecordedWriter): Promise<void> {
  const client = await node.connect();
  await writer.verify(client);
  writer.start(client);
  const before = writer.acknowledgedCount;
  await until("it goes on", () => writer.acknowledgedCount > before + 500);
  assert.equal(await writer.stop(), null);
  await client.disconnect();
}

for (const replication of ["fullsync", "memsync", "async"] as const) {
  test(`${replication}: the secondary node dies under fio --verify, which notices nothing`, () =>
    withPair(TwoNodes.startReplicating({ replication }), async (pair) => {
      const { alpha, beta } = pair;
      const load = fio(alpha);
      const writer = await startWriter(alpha);
      await beta.crash();
      await until("alpha knows", async () => (await alpha.list()).get("status") === "degraded");
      await beta.start();
      await beta.role("secondary");
      const { code, stdout, stderr } = await load;
      assert.equal(code, 0, stdout + stderr);
      assert.equal(await writer.stop(), null);
      await pair.inSync(alpha);
      assert.deepEqual(await pair.differences(), []);
    }));

  test(`${replication}: the primary node dies under fio --verify, comes back as primary, and has everything`, () =>
    withPair(TwoNodes.startReplicating({ replication }), async (pair) => {
      const { alpha } = pair;
      const load = fio(alpha);
      const writer = await startWriter(alpha);
      await alpha.crash();
      assert.notEqual(await writer.ended(), null);
      assert.notEqual((await load).code, 0, "fio lost its disk");
      await alpha.start();
      await alpha.role("primary");
      await goOn(alpha, writer);
      await pair.inSync(alpha);
      assert.deepEqual(await pair.differences(), []);
    }));
}

for (const replication of ["fullsync", "memsync"] as const) {
  test(`${replication}: the primary node dies under fio --verify, and the other one has everything`, () =>
    withPair(TwoNodes.startReplicating({ replication }), async (pair) => {
      const { alpha, beta } = pair;
      const load = fio(alpha);
      const writer = await startWriter(alpha);
      await alpha.crash();
      assert.notEqual(await writer.ended(), null);
      await load;
      await until("beta knows", async () => (await beta.list()).get("status") !== "complete");
      await beta.role("primary");
      await goOn(beta, writer);
      await alpha.start();
      await alpha.role("secondary");
      await pair.inSync(beta);
      assert.deepEqual(await pair.differences(), []);
    }));
}

test("a primary worker that is killed is started again and has everything", () =>
  withPair(TwoNodes.startReplicating(), async (pair) => {
    const { alpha } = pair;
    const writer = await startWriter(alpha);
    const killed = await alpha.killWorker();
    assert.notEqual(await writer.ended(), null);
    const again = await until("there is a new worker", async () => {
      const pid = await alpha.workerPid();
      return pid !== 0 && pid !== killed && pid;
    });
    await goOn(alpha, writer);
    assert.equal(await alpha.workerPid(), again);
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);
  }));

test("a secondary worker that is killed costs a reconnection, and the writer notices nothing", () =>
  withPair(TwoNodes.startReplicating(), async (pair) => {
    const { alpha, beta } = pair;
    const writer = await startWriter(alpha);
    const killed = await beta.killWorker();
    await until("there is a new worker", async () => {
      const pid = await beta.workerPid();
      return pid !== 0 && pid !== killed;
    });
    assert.equal(await writer.stop(), null);
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);
  }));

test("workers end when their daemon is killed, and the next daemon can take over at once", () =>
  withPair(TwoNodes.startReplicating(), async (pair) => {
    const { alpha } = pair;
    const writer = await startWriter(alpha);
    await alpha.killDaemon();
    await until("alpha's worker is gone", () => alpha.processes().length === 0);
    await writer.ended();
    await alpha.start();
    await alpha.role("primary");
    await goOn(alpha, writer);
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);
  }));

test("a new daemon waits for the disk that an orphaned worker still holds for a peer that hangs", () =>
  withPair(TwoNodes.startReplicating(), async (pair) => {
    const { alpha, beta } = pair;
    const writer = await startWriter(alpha);
    const hung = await beta.workerPid();
    process.kill(hung, "SIGSTOP");
    await alpha.killDaemon();
    const orphans = alpha.processes();
    assert.equal(orphans.length, 1);
    await alpha.start();
    // It was not there when the link was lost, and the other node says nothing: the operator decides.
    await alpha.role("primary", "--force");
    assert.ok(!alpha.processes().includes(orphans[0]!));
    process.kill(hung, "SIGCONT");
    await writer.ended();
    await goOn(alpha, writer);
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);
  }));

test("both nodes die; either order of return gives everything back", () =>
  withPair(TwoNodes.startReplicating({ replication: "fullsync" }), async (pair) => {
    const { alpha, beta } = pair;
    const writer = await startWriter(alpha);
    await Promise.all([alpha.crash(), beta.crash()]);
    await writer.ended();
    await beta.start();
    await beta.role("secondary");
    await alpha.start();
    await alpha.role("primary");
    await goOn(alpha, writer);
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);
  }));

// SPDX-License-Identifier: BSD-2-Clause
/** Who may become primary after both nodes were away, with real daemons. */

import { strict as assert } from "node:assert";
import { test } from "node:test";
import { type Node, RESOURCE, TwoNodes, withPair } from "./two-nodes.ts";
import { until } from "./until.ts";

async function write(node: Node, byte: number): Promise<void> {
  const client = await node.connect();
  await client.write(0, Buffer.alloc(4096, byte));
  await client.flush();
  await client.disconnect();
}

/** Alpha has gone on alone, and written 2 over 1; both have been killed, and are back in role init. */
async function alphaWentOnAlone({ alpha, beta }: TwoNodes): Promise<void> {
  await write(alpha, 1);
  await beta.crash();
  await write(alpha, 2);
  await alpha.crash();
  await beta.start();
}

test("S-2: a node that was away is not promoted while the other one cannot be asked, unless by force", () =>
  withPair(TwoNodes.startReplicating(), async (pair) => {
    const { alpha, beta } = pair;
    await alphaWentOnAlone(pair);
    const { code, stderr } = await beta.hastctl("role", "primary", RESOURCE);
    assert.notEqual(code, 0);
    assert.match(stderr, /may have gone on without it.*hastctl role --force primary shared/);
    await alpha.start();
    await alpha.role("secondary");
    await beta.role("primary");
    const client = await beta.connect();
    assert.equal((await client.read(0, 4096))[0], 2);
    await client.disconnect();
  }));

test("S-2: a node that is promoted serves nothing before the other one has answered, slow as it may be", () =>
  withPair(TwoNodes.startReplicating({ timeout: 10 }), async (pair) => {
    const { alpha, beta } = pair;
    await alphaWentOnAlone(pair);
    await alpha.start();
    await alpha.role("secondary");
    // Longer than a primary that knows its copy would wait (2 s).
    process.kill(alpha.daemonPid, "SIGSTOP");
    const awake = setTimeout(() => process.kill(alpha.daemonPid, "SIGCONT"), 4_000);
    try {
      await beta.role("primary");
      const client = await beta.connect();
      assert.equal((await client.read(0, 4096))[0], 2);
      await client.disconnect();
    } finally {
      clearTimeout(awake);
      process.kill(alpha.daemonPid, "SIGCONT");
    }
  }));

test("S-11: of two secondaries that are promoted in the same moment, one makes way", () =>
  withPair(TwoNodes.startReplicating({ timeout: 5 }), async (pair) => {
    const { alpha, nodes } = pair;
    await write(alpha, 1);
    await alpha.role("secondary");
    const promoted = await Promise.all(
      nodes.map((node) => node.hastctl("role", "primary", RESOURCE)),
    );
    const roles = await Promise.all(nodes.map(async (node) => (await node.list()).get("role")));
    assert.deepEqual(
      roles,
      promoted.map(({ code }) => (code === 0 ? "primary" : "secondary")),
    );
    // Rarely both have equal patience.
    let primary = nodes.find((_, index) => promoted[index]!.code === 0);
    assert.ok(roles.filter((role) => role === "primary").length <= 1, roles.join());
    for (const { code, stderr } of promoted) {
      // The later of the two may come when the other one is done.
      const late = "is connected and alive, so this node stays secondary";
      const why = new RegExp(`primary, or is being promoted at this very moment|${late}`);
      if (code !== 0) assert.match(stderr, why);
    }
    if (primary === undefined) {
      await alpha.role("primary");
      primary = alpha;
    }
    await pair.inSync(primary);
    const client = await primary.connect();
    assert.equal((await client.read(0, 4096))[0], 1);
    await client.disconnect();
  }));

test("S-11: a node that a primary reaches, but that cannot reach it, is not promoted beside it", () =>
  withPair(TwoNodes.startReplicating({ timeout: 5, proxied: true }), async (pair) => {
    const { alpha, beta } = pair;
    pair.betaToAlpha!.silence();
    await alpha.killWorker(); // the next one knocks at beta within some 1.5 s, which is told "primary"
    await until("beta has lost its primary", async () => (await beta.workerPid()) === 0, {
      everyMs: 20,
    });
    const { code, stderr } = await beta.hastctl("role", "primary", RESOURCE);
    assert.equal((await alpha.list()).get("role"), "primary");
    assert.notEqual(code, 0, "two primaries");
    assert.match(stderr, /primary/);
  }));

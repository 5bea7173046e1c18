// SPDX-License-Identifier: BSD-2-Clause
/** The link between the nodes fails, in every manner a link has, while somebody writes. */

import { strict as assert } from "node:assert";
import { test } from "node:test";
import { RecordedWriter } from "./recorded-writer.ts";
import type { Direction, TcpProxy } from "./tcp-proxy.ts";
import { TwoNodes, type TwoNodesOptions, withPair } from "./two-nodes.ts";
import { pause, until, withDeadline } from "./until.ts";

/** A pair under load, over a link in the body's hands; afterwards all must be well again. */
function underLoad(
  options: TwoNodesOptions,
  body: (pair: TwoNodes, link: TcpProxy, writer: RecordedWriter) => Promise<void>,
): Promise<void> {
  return withPair(TwoNodes.startReplicating({ ...options, proxied: true }), async (pair) => {
    const client = await pair.alpha.connect();
    const writer = new RecordedWriter({ offset: 0, blockCount: 4096, flushEvery: 100 });
    writer.start(client);
    await body(pair, pair.alphaToBeta!, writer);
    pair.alphaToBeta!.heal();
    await acknowledges(writer);
    assert.equal(await writer.stop(), null, "the application noticed nothing");
    await pair.inSync(pair.alpha);
    assert.deepEqual(await pair.differences(), []);
    await writer.verify(client);
    await client.disconnect();
  });
}

async function acknowledges(writer: RecordedWriter, withinMs = 30_000): Promise<void> {
  const before = writer.acknowledgedCount;
  const more = (): boolean => writer.acknowledgedCount > before + 200;
  await until("writes are acknowledged", more, { withinMs });
}

function connected(pair: TwoNodes): Promise<boolean> {
  return until("alpha has its peer again", async () => {
    const [one, two] = await Promise.all([pair.alpha.list(), pair.beta.list()]);
    return one.get("status") === "complete" && two.get("status") === "complete";
  });
}

for (const replication of ["fullsync", "memsync", "async"] as const) {
  test(`${replication}: cut in the middle of messages, both ways, and nothing partial is applied`, () =>
    underLoad({ replication }, async (pair, link, writer) => {
      const cuts: readonly [Direction, number][] = [
        ["upstream", 1],
        ["upstream", 70_001],
        ["upstream", 1_234_567],
        ["downstream", 3],
        ["downstream", 5001],
      ];
      for (const [direction, count] of cuts) {
        await acknowledges(writer);
        await withDeadline("the link is cut", 20_000, link.cutAfter(direction, count));
        await acknowledges(writer);
        link.heal();
        await connected(pair);
      }
    }));
}

for (const replication of ["fullsync", "memsync", "async"] as const) {
  test(`${replication}: what was under way when the link was cut is copied later, though nobody writes it again`, () =>
    withPair(
      TwoNodes.startReplicating({ replication, proxied: true, create: ["-e", "64k"] }),
      async (pair) => {
        const { alpha } = pair;
        const link = pair.alphaToBeta!;
        const client = await alpha.connect();
        const count = 600;
        let next = 0;
        // Each write has an extent of its own, so that no other write can heal it.
        const lane = async (): Promise<void> => {
          while (next < count) {
            const index = next++;
            await client.write(index * 65_536, Buffer.alloc(4096, 1 + (index % 255)));
          }
        };
        link.delay(5); // so that there is always something under way
        const lanes = Promise.all(Array.from({ length: 16 }, lane));
        for (const at of [50, 150, 250]) {
          await until("the next cut is due", () => next >= at, { everyMs: 1 });
          link.cut();
          await pause(50);
          link.heal();
          await connected(pair);
        }
        await lanes;
        link.delay(0);
        await pair.inSync(alpha);
        assert.deepEqual(await pair.differences(), []);
        await client.disconnect();
      },
    ));
}

test("cut at many a byte of the handshake, the pair still comes together", () =>
  underLoad({}, async (pair, link, writer) => {
    // P1 is 57 bytes, P2 about 160, S1 57 and S2 some 220, and then the map.
    const cuts: readonly [Direction, number][] = [
      ["upstream", 3],
      ["upstream", 56],
      ["upstream", 58],
      ["upstream", 200],
      ["downstream", 4],
      ["downstream", 56],
      ["downstream", 120],
      ["downstream", 280],
    ];
    link.cut();
    for (const [direction, count] of cuts) {
      const cut = link.cutAfter(direction, count);
      link.heal();
      await withDeadline("the next attempt is cut", 30_000, cut);
      await acknowledges(writer);
    }
    link.heal();
    await connected(pair);
  }));

test("a pulled cable: the primary goes on alone in bounded time, and resynchronises afterwards", () =>
  underLoad({ replication: "fullsync" }, async (pair, link, writer) => {
    await acknowledges(writer);
    link.silence();
    await until(
      "alpha goes on alone",
      async () => (await pair.alpha.list()).get("status") === "degraded",
      {
        withinMs: 45_000,
      },
    );
    await acknowledges(writer);
    link.cut(); // what was silent is gone for good
    await pause(200);
    link.heal();
    await connected(pair);
  }));

test("BD-30: an idle pair over a pulled cable: both nodes notice, and status says so", () =>
  withPair(TwoNodes.startReplicating({ timeout: 6, proxied: true }), async (pair) => {
    const link = pair.alphaToBeta!;
    await pair.inSync(pair.alpha);
    link.silence();
    const apart = async (): Promise<boolean> => {
      const [one, two] = await Promise.all([pair.alpha.list(), pair.beta.list()]);
      return one.get("status") === "degraded" && two.get("copy") === "consistent";
    };
    // 6 s by the timeout; the rest is for a busy machine.
    await until("both nodes notice", apart, { withinMs: 15_000 });
    const beta = await pair.beta.list();
    assert.equal(beta.get("role"), "secondary");
    assert.match(
      (await pair.alpha.hastctl("status", "shared")).stdout,
      /not connected: the peer does not answer|no answer from the peer/,
    );
    assert.match(
      (await pair.beta.hastctl("status", "shared")).stdout,
      /The primary has been silent for \d+ s.*hastctl role primary shared/s,
    );
    link.cut();
    link.heal();
    await connected(pair);
  }));

test("a half-open connection: the peer has forgotten it, the primary finds out", () =>
  underLoad({ replication: "fullsync" }, async (pair, link, writer) => {
    await acknowledges(writer);
    link.halfOpen();
    await until("the load goes on", () => acknowledges(writer, 45_000).then(() => true), {
      withinMs: 60_000,
    });
    await connected(pair);
  }));

test("25 ms each way slow the acknowledgements and break nothing", () =>
  underLoad({ replication: "fullsync" }, async (pair, link, writer) => {
    link.delay(25);
    await acknowledges(writer);
    link.delay(0);
    await connected(pair);
  }));

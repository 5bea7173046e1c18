// SPDX-License-Identifier: BSD-2-Clause
/** `hastctl sync --full`: two disks with different old contents become equal where nobody ever wrote. */

import { strict as assert } from "node:assert";
import { closeSync, openSync, writeSync } from "node:fs";
import { test } from "node:test";
import { RESOURCE, TwoNodes, withPair } from "./two-nodes.ts";
import { until } from "./until.ts";

const MIB = 1024 * 1024;

function fill(path: string, value: number): void {
  const file = openSync(path, "r+");
  const garbage = Buffer.alloc(MIB, value);
  for (let offset = 0; offset < 64 * MIB; offset += MIB) writeSync(file, garbage, 0, MIB, offset);
  closeSync(file);
}

test("BD-16: never-written areas that differ are told of in status, and made equal by sync --full", () =>
  withPair(TwoNodes.prepare(), async (pair) => {
    const { alpha, beta } = pair;
    fill(alpha.local, 0x5a);
    fill(beta.local, 0xa5);
    for (const node of pair.nodes) {
      await node.create();
      await node.start();
    }
    await beta.role("secondary");
    await alpha.role("primary");
    await pair.inSync(alpha);
    assert.ok((await pair.differences()).length > 30);
    assert.match(await alpha.status(), /never written.*hastctl sync --full shared/);

    const wrong = await beta.hastctl("sync", "--full", RESOURCE);
    assert.equal(wrong.code, 2);
    assert.match(
      wrong.stderr,
      /this node is secondary.*On the primary: hastctl sync --full shared/s,
    );

    // The application goes on meanwhile, and so it can after a failover in the middle.
    const client = await alpha.connect();
    const { code, stdout, stderr } = await alpha.hastctl("sync", "--full", RESOURCE);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /every extent is in line/);
    await client.write(3 * MIB, Buffer.alloc(4096, 0x33));
    await client.flush();
    assert.equal((await alpha.dump()).get("localcnt"), "1", "nothing was acknowledged alone");
    await until("it has ended", async () => !/never written|left/.test(await alpha.status()), {
      withinMs: 60_000,
    });
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);
    assert.deepEqual(await client.read(3 * MIB, 4096), Buffer.alloc(4096, 0x33));
    await client.disconnect();
    assert.equal((await beta.dump()).get("state"), "uptodate");
  }));

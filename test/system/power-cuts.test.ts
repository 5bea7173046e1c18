// SPDX-License-Identifier: BSD-2-Clause
/** The power of real processes' machines is cut: what the mode promises is there. `npm run powercuts` goes on for longer. */

import { strict as assert } from "node:assert";
import { randomInt } from "node:crypto";
import { type TestContext, test } from "node:test";
import { type Mode, PowerCuts, type RoundKind } from "./power-cuts.ts";

/** FUSE, loop devices and mount want root; CI counts a skipped test as a failed one. */
function mayMount(context: TestContext): boolean {
  if (process.getuid?.() === 0) return true;
  context.skip("needs root: nbdfuse, losetup and mount");
  return false;
}

async function withPowerCuts(mode: Mode, body: (cuts: PowerCuts) => Promise<void>): Promise<void> {
  const cuts = await PowerCuts.start(mode, randomInt(1, 2 ** 31));
  try {
    await body(cuts);
  } catch (error) {
    throw await cuts.failed(error);
  }
}

test("fullsync, power cut: every fsync survives on whichever node is promoted", async (context) => {
  if (!mayMount(context)) return;
  await withPowerCuts("fullsync", async (cuts) => {
    await cuts.round("both");
    // Negative control: the same checks, with disks that lie about flushes.
    const { writer, files } = await cuts.cutWithLies();
    assert.match(writer ?? "nothing", /acknowledged blocks are bad/);
    assert.match(files ?? "nothing", /ext4 on|mount/);
    await cuts.abandon();
  });
});

const PROMISES: readonly (readonly [Mode, string, readonly RoundKind[]])[] = [
  ["memsync", "a failover loses nothing, nor does a resync that is cut", ["primary", "resync"]],
  ["async", "every fsync survives on the primary that comes back", ["primary-again"]],
];

for (const [mode, promise, kinds] of PROMISES) {
  test(`${mode}, power cut: ${promise}`, async (context) => {
    if (!mayMount(context)) return;
    await withPowerCuts(mode, async (cuts) => {
      for (const kind of kinds) await cuts.round(kind);
      await cuts.end();
    });
  });
}

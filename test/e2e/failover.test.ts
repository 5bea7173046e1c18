// SPDX-License-Identifier: BSD-2-Clause
/**
 * Automatic failover with the tools of the field, one resource with ext4: the primary loses its power while
 * a client writes; then it returns, and must not take what is not its own.
 */
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { pause } from "../system/until.ts";
import { Pair } from "./pair.ts";

for (const tool of ["ucarp", "keepalived"] as const) {
  test(`${tool}: the primary's power is cut under a client, then it returns, with its network late`, async () => {
    const pair = await Pair.start(tool);
    const { lan, one, two } = pair;
    try {
      pair.startClient();
      await pair.served(100);
      await one.powerOff();
      await pair.served(100);
      await pair.nothingLost(two);
      console.log(`${tool}: power off to the next record: ${pair.longestGap().toFixed(1)} s`);

      // The seed's reboot trap: it hears nobody when it boots.
      await one.boot();
      for (const card of ["svc0", "hast0"]) await lan.cut(one, card);
      pair.startHastd(one);
      pair.startTool(one);
      for (let second = 0; second < 8; second++) {
        await pause(1000);
        expect.ok(!(await pair.hasAddress(one)), `the address came to a stale node\n${lan.logs()}`);
        expect.notEqual(await pair.role(one), "primary");
      }
      for (const card of ["svc0", "hast0"]) await lan.heal(one, card);
      await one.until("hast1 is in step and fit", () => pair.isFit(one), { withinMs: 60_000 });
      await pair.served(100);
      expect.equal(await pair.role(one), "secondary");
      expect.equal(await pair.role(two), "primary");
      expect.ok(!(await pair.hasAddress(one)));
      expect.doesNotMatch(two.log() + one.log(), /split-brain/i);

      // And now it is worth something again.
      await two.powerOff();
      await pair.served(100);
      const count = await pair.nothingLost(one);
      console.log(
        `${tool}: ${count} records, none lost; longest gap ${pair.longestGap().toFixed(1)} s`,
      );
    } catch (error) {
      console.log(lan.logs());
      throw error;
    } finally {
      await pair.stop();
    }
  });
}

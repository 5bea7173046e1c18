// SPDX-License-Identifier: BSD-2-Clause
/** hast-failover with an etcd cluster of three members: the power of its leaders, and the replication link, are cut. */
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { now, returned, takenOver, withGroup } from "./arbitrated-group.ts";

test("S-17: the leader's power is cut under load, then its successor's", async () => {
  await withGroup(async (group) => {
    for (const expected of ["hast1 hast2", "hast1 hast2 hast1"]) {
      const old = await takenOver(group, "power off", (leader) => leader.powerOff());
      await group.bootAgain(old);
      await returned(group, old);
      expect.equal(group.writers(), expected);
    }
  });
});

test('S-17a: the replication link is cut: "went on alone" is in etcd first, and the other is never promoted', async () => {
  await withGroup(async (group) => {
    const { lan, one, two } = group;
    const since = now();
    await lan.cut(two, "hast0");
    await one.until("etcd knows that hast1 is alone", async () => {
      return (await group.insync()).join() === "hast1";
    });
    await group.served(20);
    const gap = group.longestGap(since).toFixed(1);
    console.log(`etcd: replication cut: the leader goes on alone after ${gap} s`);
    await one.powerOff();
    await two.until("nobody leads", async () => (await group.leader()) === null);
    const said = await two.until("it says why", async () => {
      const { code, stderr } = await two.run(["hast-failover", "status"]);
      return code === 1 && stderr;
    });
    expect.match(said, /hast2 lacks what was acknowledged without it; hast1 has all of it/);
    await lan.heal(two, "hast0");
    const end = now() + 20_000;
    while (now() < end) {
      expect.equal(await group.role(two), "secondary");
      expect.equal(await group.leader(), null);
    }
    await group.bootAgain(one);
    await group.served(20);
    await group.inStep();
    await group.nothingLost(one);
    expect.equal(group.writers(), "hast1");
    await takenOver(group, "power off, back in step", (leader) => leader.powerOff());
    expect.equal(group.writers(), "hast1 hast2");
  });
});

// SPDX-License-Identifier: BSD-2-Clause
/** hast-failover: each host is cut off in turn. Never two writers, and never a lost record. */
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { CARDS, now, returned, takenOver, withGroup } from "./arbitrated-group.ts";

test("S-17: each host is cut off in turn", async () => {
  await withGroup(async (group) => {
    const { lan, witness } = group;
    let old = await takenOver(group, "leader cut off from etcd only", (leader) =>
      lan.cut(leader, "etcd0"),
    );
    await lan.heal(old, "etcd0");
    await returned(group, old);

    old = await takenOver(group, "leader cut off from everything", async (leader) => {
      for (const card of CARDS) await lan.cut(leader, card);
    });
    for (const card of CARDS) await lan.heal(old, card);
    await returned(group, old);
    expect.equal(group.writers(), "hast1 hast2 hast1");

    // Neither the follower nor the witness is missed; but the leader goes on alone for a while.
    const leader = group.host((await group.leader())!);
    const follower = group.other(leader);
    for (const [host, cards] of [
      [follower, ["etcd0"]],
      [follower, CARDS],
      [witness, ["etcd0"]],
    ] as const) {
      const since = now();
      for (const card of cards) await lan.cut(host, card);
      await group.served(300);
      for (const card of cards) await lan.heal(host, card);
      await group.inStep();
      expect.equal(await group.leader(), leader.name);
      const gap = group.longestGap(since).toFixed(1);
      console.log(`etcd: ${host.name} without ${cards.join(", ")}: longest gap ${gap} s`);
    }
    await group.nothingLost(leader);
    expect.equal(group.writers(), "hast1 hast2 hast1");
  });
});

// SPDX-License-Identifier: BSD-2-Clause
/** hast-failover: processes, and a whole host, that are frozen for longer than the lease. */
import { strict as expect } from "node:assert";
import { test } from "node:test";
import {
  AGENT,
  ETCD,
  EVERYTHING,
  HASTD,
  now,
  returned,
  takenOver,
  withGroup,
} from "./arbitrated-group.ts";

test("S-17c: frozen processes on the leader's host, for longer than the lease", async () => {
  await withGroup(async (group) => {
    const leader = group.host((await group.leader())!);
    const since = now();
    await group.signal(leader, "STOP", ETCD);
    await group.served(600);
    await group.signal(leader, "CONT", ETCD);
    await group.inStep();
    expect.equal(await group.leader(), leader.name);
    const gap = group.longestGap(since).toFixed(1);
    console.log(`etcd: the leader's own member frozen: it leads on; longest gap ${gap} s`);

    for (const [what, pattern, expected] of [
      ["agent frozen", AGENT, "hast1 hast2"],
      ["host frozen", EVERYTHING, "hast1 hast2 hast1"],
      ["hastd frozen, its workers not", HASTD, "hast1 hast2 hast1 hast2"],
    ] as const) {
      const old = await takenOver(group, what, (host) => group.signal(host, "STOP", pattern));
      await group.signal(old, "CONT", pattern);
      await returned(group, old);
      expect.equal(group.writers(), expected);
    }
  });
});

test("S-17c: an agent that is killed, and comes back late: nothing is left of what its successor now serves", async () => {
  await withGroup(async (group) => {
    const old = await takenOver(group, "agent killed", (host) => group.signal(host, "KILL", AGENT));
    await old.until("hastd has ended the primary by itself", async () => {
      return (await group.role(old)) !== "primary";
    });
    group.startAgent(old);
    await returned(group, old);
    await old.until("the mount has gone", async () => {
      return (await old.run(["mountpoint", "-q", "/mnt/disk1"])).code !== 0;
    });
    await old.until("the service address has gone", async () => {
      const addresses = await old.expect("ip", "-o", "address", "show", "dev", "svc0");
      return !addresses.includes("10.10.10.180/");
    });
    expect.equal(group.writers(), "hast1 hast2");
  });
});

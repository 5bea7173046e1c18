// SPDX-License-Identifier: BSD-2-Clause
/** hast-failover: two resources that move together, agents and a hastd that end; and an etcd that was wiped. */
import { strict as expect } from "node:assert";
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { AGENT, ETCD, HASTD, now, withGroup } from "./arbitrated-group.ts";
import type { Host } from "./hosts.ts";

test("two resources move together: by hast-failover move, by an agent's stop, and after hastd was killed", async () => {
  const resources = ["disk1", "disk2"];
  await withGroup(async (group) => {
    const { one, two } = group;
    const togetherOn = async (host: Host): Promise<void> => {
      for (const resource of resources) {
        expect.equal(await group.role(host, resource), "primary");
        expect.equal(await group.role(group.other(host), resource), "secondary");
        await host.expect("mountpoint", "-q", `/mnt/${resource}`);
        expect.notEqual(
          (await group.other(host).run(["mountpoint", "-q", `/mnt/${resource}`])).code,
          0,
        );
      }
      await group.served(20);
      await group.nothingLost(host);
    };
    let since = now();
    console.log(`etcd: ${(await two.expect("hast-failover", "move")).trim()}`);
    await togetherOn(two);
    console.log(`etcd: move: longest gap ${group.longestGap(since).toFixed(1)} s`);
    await group.inStep();
    await one.expect("hast-failover", "status");

    since = now();
    await group.signal(two, "TERM", AGENT);
    await one.until("hast1 leads", async () => (await group.leader()) === "hast1");
    await group.served(20);
    console.log(`etcd: agent stopped: longest gap ${group.longestGap(since).toFixed(1)} s`);
    group.startAgent(two);
    await group.inStep();
    await togetherOn(one);

    // An agent that is killed, and started again by whoever watches it, interrupts nothing.
    since = now();
    await group.signal(one, "KILL", AGENT);
    group.startAgent(one);
    await group.served(300);
    expect.equal(await group.leader(), "hast1");
    console.log(`etcd: agent killed: longest gap ${group.longestGap(since).toFixed(1)} s`);

    since = now();
    await group.signal(one, "KILL", HASTD);
    await two.until("hast2 leads", async () => (await group.leader()) === "hast2");
    await group.served(20);
    console.log(`etcd: hastd killed: longest gap ${group.longestGap(since).toFixed(1)} s`);
    group.startHastd(one);
    await group.inStep();
    await togetherOn(two);
    expect.equal(group.writers(), "hast1 hast2 hast1 hast2");
  }, resources);
});

test("S-17b: an etcd that was wiped promotes nobody, says why, and counts on after seed --force", async () => {
  await withGroup(async (group) => {
    const { one, two, witness } = group;
    expect.notEqual(await group.etcdctl(witness, "del", "--prefix", "/hast/"), null);
    for (const host of [one, two]) {
      await host.until("it is secondary", async () => (await group.role(host)) === "secondary");
      const { code, stdout, stderr } = await host.run(["hast-failover", "status"]);
      expect.equal(code, 1);
      expect.match(stdout, /leader: nobody\n {2}in step for disk1: nobody/);
      expect.match(stderr, /etcd does not say who has all of it .* hast-failover seed --force/);
    }
    const refused = await one.run(["hast-failover", "seed"]);
    expect.equal(refused.code, 1);
    expect.match(refused.stderr, /the other node may have newer data/);
    const end = now() + 20_000;
    while (now() < end) {
      for (const host of [one, two]) expect.equal(await group.role(host), "secondary");
    }
    await one.expect("hast-failover", "seed", "--force");
    await group.served(20);
    await group.inStep();
    expect.equal(await group.leader(), "hast1");
    await group.nothingLost(one);
  });
});

test("the service without etcd, and back under it; and a resource that joins: as docs/failover/etcd.md says", async () => {
  await withGroup(async (group) => {
    const { one, two } = group;
    const nodes = [one, two];
    const stopAgents = async (): Promise<void> => {
      for (const host of [two, one]) await group.signal(host, "TERM", AGENT);
      for (const host of nodes) {
        await host.until("it is secondary", async () => (await group.role(host)) === "secondary");
      }
    };
    const startAgents = async (): Promise<void> => {
      group.startAgent(one);
      await one.until("hast1 leads", async () => (await group.leader()) === "hast1", {
        withinMs: 60_000,
      });
      group.startAgent(two);
      await group.served(20);
      await group.inStep();
      await group.nothingLost(one);
    };
    await stopAgents();
    for (const host of group.members) await group.signal(host, "KILL", ETCD);
    await one.expect("hastctl", "role", "--force", "primary", "disk1");
    const run = "FAILOVER_RUN=/run/hast-failover/data";
    await one.expect("env", run, "/etc/hast-failover/failover", "start");
    await group.served(20);
    for (const host of group.members) group.startEtcd(host);
    await one.until("etcd answers", async () => (await group.etcdctl(one, "get", "x")) !== null);
    await one.expect("hast-failover", "seed", "--force");
    await startAgents();

    await stopAgents();
    for (const host of nodes) {
      const disk = join(host.directory, "disk2.img");
      writeFileSync(disk, "");
      truncateSync(disk, 64 * 1024 * 1024);
      const conf = await host.expect("cat", "/etc/hast.conf");
      const [section] = /^resource disk1 \{\n.*?^\}\n/ms.exec(conf) ?? [];
      host.write("/etc/hast.conf", `${conf}\n${section!.replaceAll("disk1", "disk2")}`);
      await host.expect("hastctl", "reload");
      await host.expect("hastctl", "create", "disk2");
      const failover = await host.expect("cat", "/etc/hast-failover/failover.conf");
      host.write(
        "/etc/hast-failover/failover.conf",
        failover
          .replace(/^resources=.*$/m, 'resources="disk1 disk2"')
          .replace(/^mounts=.*$/m, 'mounts="disk1:/mnt/disk1 disk2:/mnt/disk2"'),
      );
    }
    await one.expect("hastctl", "role", "--force", "primary", "disk2");
    await one.expect("mkfs.ext4", "-q", "/dev/hast/disk2");
    await one.expect("hast-failover", "seed");
    await startAgents();
    await one.expect("mountpoint", "-q", "/mnt/disk2");
    await one.until("the new one is in step", async () => {
      return (await group.insync("disk2")).length === 2;
    });
    await one.until("all is well", async () => {
      return (await one.run(["hast-failover", "status"])).code === 0;
    });
    expect.equal(group.writers(), "hast1");
  });
});

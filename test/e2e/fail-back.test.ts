// SPDX-License-Identifier: BSD-2-Clause
/**
 * Fail-back as docs/failover/README.md has it: the repaired site returns, is resynchronised, and takes the role
 * back; on a LAN, where a tool moves the address, and over a slow routed line, where each site has an
 * address of its own, clients try both, and the operator decides.
 *
 *   hast1 192.168.101.2 ── wana ── router ── wanb ── 192.168.102.2 hast2      4 Mbit/s each way
 *        10.10.10.181 ─────────── svc ─────────── 10.10.10.182              clients
 */
import { strict as expect } from "node:assert";
import { test } from "node:test";
import type { Host } from "./hosts.ts";
import { EXT4, MAIN, type Network, Pair } from "./pair.ts";

const FAILOVER = `${MAIN}/failover`;

const ROUTED: Network = {
  nodes: ["192.168.101.2", "192.168.102.2"],
  service: ["10.10.10.181", "10.10.10.182"],
  hosts: [
    site(1, { name: "wana0", address: "192.168.101.2/24" }),
    site(2, { name: "wanb0", address: "192.168.102.2/24" }),
    { name: "client", cards: [{ name: "svc0", address: "10.10.10.1/24" }] },
    {
      name: "router",
      cards: [
        { name: "wana0", address: "192.168.101.1/24" },
        { name: "wanb0", address: "192.168.102.1/24" },
      ],
    },
  ],
  route: async (host) => {
    if (host.name === "hast1") {
      await host.expect("ip", "route", "add", "192.168.102.0/24", "via", "192.168.101.1");
    } else if (host.name === "hast2") {
      await host.expect("ip", "route", "add", "192.168.101.0/24", "via", "192.168.102.1");
    } else if (host.name === "router") {
      await host.expect("sysctl", "-q", "-w", "net.ipv4.ip_forward=1");
      for (const card of ["wana0", "wanb0"]) {
        const limit = ["tbf", "rate", "4mbit", "burst", "16kb", "latency", "300ms"];
        await host.expect("tc", "qdisc", "add", "dev", card, "root", ...limit);
      }
    }
  },
};

function site(index: number, card: { name: string; address: string }) {
  return {
    name: `hast${index}`,
    cards: [{ name: "svc0", address: `10.10.10.18${index}/24` }, card],
    etc: { hosts: "127.0.0.1 localhost\n192.168.101.2 hast1\n192.168.102.2 hast2\n" },
  };
}

/** @returns seconds until the repaired site is in step */
async function returns(pair: Pair): Promise<number> {
  const start = performance.now();
  await pair.one.until("hast1 is in step", () => pair.isFit(pair.one), { withinMs: 180_000 });
  return (performance.now() - start) / 1000;
}

async function step(host: Host, order: string): Promise<void> {
  const { code, stdout, stderr } = await host.run([FAILOVER, order], { withinMs: 150_000 });
  expect.equal(code, 0, `failover ${order} on ${host.name}: ${stdout}${stderr}`);
}

async function withPair(pair: Pair, work: (pair: Pair) => Promise<void>): Promise<void> {
  try {
    await work(pair);
  } catch (error) {
    console.log(pair.lan.logs());
    throw error;
  } finally {
    await pair.stop();
  }
}

for (const tool of ["ucarp", "keepalived"] as const) {
  test(`${tool}, on a LAN: the repaired node is in step, and gets the address back`, async () =>
    withPair(await Pair.start(tool), async (pair) => {
      const { one, two } = pair;
      pair.startClient();
      await pair.served(100);
      await one.powerOff();
      await pair.served(100);
      const taken = pair.longestGap();

      await pair.boot(one);
      pair.startHastd(one);
      pair.startTool(one);
      const synchronized = await returns(pair);
      const before = pair.acknowledged().size;
      await pair.stopTool(two);
      await one.until("the address has come back", () => pair.hasAddress(one), {
        withinMs: 90_000,
      });
      await pair.served(100);
      const gap = pair.longestGap(before);
      pair.startTool(two);
      await two.until("hast2 is fit", () => pair.isFit(two), { withinMs: 60_000 });
      expect.equal(await pair.role(one), "primary");
      expect.equal(await pair.role(two), "secondary");
      expect.ok(!(await pair.hasAddress(two)));
      const count = await pair.nothingLost(one);
      console.log(
        `${tool}, LAN: taken over in ${taken.toFixed(1)} s; in step ${synchronized.toFixed(1)} s after its return; taken back in ${gap.toFixed(1)} s; ${count} records, none lost`,
      );
    }));
}

test("over a slow routed line, without a shared address: three commands", async () =>
  withPair(await Pair.start("none", EXT4, ROUTED), async (pair) => {
    const { one, two, lan } = pair;
    pair.startClient();
    await pair.served(50);
    await one.powerOff();
    await step(two, "master");
    await pair.served(50);
    // What the line needs seconds for.
    await two.expect(
      "dd",
      "if=/dev/urandom",
      "of=/mnt/data/much",
      "bs=1M",
      "count=6",
      "conv=fsync",
    );
    const sum = await two.expect("sha256sum", "/mnt/data/much");

    await pair.boot(one);
    pair.startHastd(one);
    // A boot promotes nothing, and nobody else does.
    expect.ok(!(await pair.isFit(one)));
    await step(one, "slave");
    const synchronized = await returns(pair);
    expect.ok(synchronized > 4, `${synchronized} s: the line is not slow`);
    const before = pair.acknowledged().size;
    await step(two, "slave");
    await step(one, "master");
    await pair.served(50);
    const gap = pair.longestGap(before);
    expect.equal(await one.expect("sha256sum", "/mnt/data/much"), sum);
    expect.equal(await pair.role(two), "secondary");
    await two.until("hast2 is in step", () => pair.isFit(two), { withinMs: 60_000 });
    const count = await pair.nothingLost(one);
    expect.doesNotMatch(lan.logs(), /split-brain/i);
    console.log(
      `routed, 4 Mbit/s: in step ${synchronized.toFixed(1)} s after its return; taken back in ${gap.toFixed(1)} s; ${count} records, none lost`,
    );
  }));

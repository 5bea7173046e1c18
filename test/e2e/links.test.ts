// SPDX-License-Identifier: BSD-2-Clause
/**
 * Cables are pulled, and switches forward in one direction only, now and then, or not every frame, while a
 * client writes: what becomes of the service, the roles and the data. After each repair one node is primary,
 * the other in step, and what the client was acknowledged is there; nothing has parted.
 *
 * Every network at once: partition.test.ts.
 */
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { pause } from "../system/until.ts";
import type { Host } from "./hosts.ts";
import { MAIN, Pair, type Tool } from "./pair.ts";

/** Longer than either tool takes to see that the other node is gone. */
const NOTICED_MS = 8000;

interface Trouble {
  readonly name: string;
  /** Begins it, and looks until it has had its effect. */
  play(pair: Pair, primary: Host, secondary: Host): Promise<void>;
  /** Where the primary is after the repair. */
  readonly primary: "stays" | "moves" | "either";
  /** Left out: both. */
  readonly tool?: Tool;
}

/** Nobody gives up, and nobody tries for more. */
async function keepsRole(pair: Pair, primary: Host, secondary: Host): Promise<void> {
  expect.equal(await pair.role(primary), "primary");
  expect.equal(await pair.role(secondary), "secondary");
  expect.ok(await pair.hasAddress(primary), "the primary has lost the address");
}

const REPLICATION: readonly Trouble[] = [
  {
    name: "cable of the replication network",
    async play(pair, primary, secondary) {
      await pair.lan.cut(primary, "hast0");
      await pair.served(300);
      await pause(NOTICED_MS);
      await keepsRole(pair, primary, secondary);
      expect.ok(!(await pair.hasAddress(secondary)));
    },
    primary: "stays",
  },
  ...(["from", "to"] as const).map(
    (direction): Trouble => ({
      name: `replication network, nothing ${direction} the primary`,
      async play(pair, primary, secondary) {
        await pair.lan.oneWay(primary, "hast0", direction);
        await pause(NOTICED_MS);
        await pair.served(100);
        await keepsRole(pair, primary, secondary);
      },
      primary: "stays",
    }),
  ),
  {
    name: "replication network, on and off each 1.5 s",
    async play(pair, primary, secondary) {
      for (let time = 0; time < 8; time++) {
        await pair.lan.cut(primary, "hast0");
        await pause(1500);
        await pair.lan.heal(primary, "hast0");
        await pause(1500);
      }
      await keepsRole(pair, primary, secondary);
    },
    primary: "stays",
  },
  {
    name: "1 % of all frames of the primary lost",
    async play(pair, primary, secondary) {
      for (const card of ["svc0", "hast0"]) await pair.lan.lose(primary, card, 1);
      await pair.served(500, 120_000);
      await keepsRole(pair, primary, secondary);
    },
    primary: "stays",
  },
];

/** Until the repair there is no service: who serves hears that it is not heard only from one it must yield to. */
const MUTE: Trouble = {
  name: "service network, nothing from the primary",
  async play(pair, primary, secondary) {
    await pair.lan.oneWay(primary, "svc0", "from");
    if (primary !== pair.one) {
      // hast1 is preferred where both would have the address: the tools' priorities.
      await pair.served(50, 120_000);
      expect.equal(await pair.role(secondary), "primary");
      return;
    }
    await secondary.until("it takes the address", () => pair.hasAddress(secondary));
    // The role is refused for 30 s, as the primary lives; then the address goes.
    const gone = async () => !(await pair.hasAddress(secondary));
    await secondary.until("it gives the address back", gone, { withinMs: 90_000 });
    await keepsRole(pair, primary, secondary);
  },
  primary: "either",
};

const SERVICE: readonly Trouble[] = [
  {
    name: "cable of the service network, the secondary's",
    async play(pair, primary, secondary) {
      await pair.lan.cut(secondary, "svc0");
      await pause(NOTICED_MS);
      await pair.served(50);
      await keepsRole(pair, primary, secondary);
    },
    primary: "stays",
  },
  MUTE,
  {
    name: "cable of the service network, the primary's",
    async play(pair, primary, secondary) {
      await pair.lan.cut(primary, "svc0");
      await pair.served(100);
      expect.equal(await pair.role(secondary), "primary");
      expect.equal(await pair.role(primary), "secondary");
    },
    primary: "moves",
  },
  {
    name: "service network, nothing to the primary",
    async play(pair, primary, secondary) {
      await pair.lan.oneWay(primary, "svc0", "to");
      // Its advertisements are heard, so nobody can know.
      await pause(NOTICED_MS);
      await keepsRole(pair, primary, secondary);
      expect.ok(!(await pair.hasAddress(secondary)));
    },
    primary: "stays",
  },
  MUTE,
  {
    name: "cable of the service network, on and off",
    async play(pair, primary) {
      for (let time = 0; time < 6; time++) {
        await pair.lan.cut(primary, "svc0");
        await pause(1000 + 500 * time);
        await pair.lan.heal(primary, "svc0");
        await pause(2000);
      }
    },
    primary: "either",
  },
];

/** With ping= in failover.conf: who hears nobody gives up, although its carrier stays. */
const PINGED: readonly Trouble[] = [
  {
    name: "ping=, service network, nothing to the primary",
    async play(pair, primary, secondary) {
      await pair.lan.oneWay(primary, "svc0", "to");
      await pair.served(100, 120_000);
      expect.equal(await pair.role(secondary), "primary");
      expect.ok(!(await pair.hasAddress(primary)), "the old primary has the address");
    },
    primary: "moves",
  },
  {
    name: "ping=, service network, nothing from the primary",
    async play(pair, primary, secondary) {
      await pair.lan.oneWay(primary, "svc0", "from");
      await pair.served(100, 120_000);
      expect.equal(await pair.role(secondary), "primary");
    },
    primary: "moves",
  },
  {
    name: "ping=, the router is gone",
    async play(pair, primary, secondary) {
      for (const host of [primary, secondary]) {
        await host.expect("ip", "route", "add", "unreachable", ROUTER);
      }
      await pause(NOTICED_MS);
      await pair.served(50);
      await keepsRole(pair, primary, secondary);
      for (const host of [primary, secondary]) await host.expect("ip", "route", "del", ROUTER);
    },
    primary: "stays",
  },
];

/** Answers as a router would; the client is somebody else. */
const ROUTER = "10.10.10.254";

async function ping(pair: Pair): Promise<void> {
  await pair.client.expect("ip", "address", "add", `${ROUTER}/24`, "dev", "svc0");
  for (const [index, host] of [pair.one, pair.two].entries()) {
    const answers = `s|^ping=.*|ping="${ROUTER} 10.10.10.18${2 - index}"|`;
    await host.expect("sed", "-i", answers, `${MAIN}/failover.conf`);
  }
}

async function undergo(pair: Pair, trouble: Trouble): Promise<void> {
  const { primary, secondary } = await pair.settled();
  const before = pair.acknowledged().size;
  await trouble.play(pair, primary, secondary);
  for (const host of [primary, secondary]) {
    for (const card of ["svc0", "hast0"]) await pair.lan.heal(host, card);
  }
  const repaired = performance.now();
  await pair.served(50);
  const after = await pair.settled();
  const seconds = ((performance.now() - repaired) / 1000).toFixed(1);
  if (trouble.primary !== "either") {
    expect.equal(after.primary === primary, trouble.primary === "stays", "the primary");
  }
  await pair.nothingLost(after.primary);
  expect.doesNotMatch(pair.one.log() + pair.two.log(), /split-brain/i);
  console.log(
    `${pair.tool}: ${trouble.name}: the primary ${after.primary === primary ? "stays" : "moves"}; ` +
      `${pair.longestGap(before).toFixed(1)} s without an acknowledgement; ` +
      `served and in step ${seconds} s after the repair`,
  );
}

interface Play {
  readonly what: string;
  readonly tool: Tool;
  readonly troubles: readonly Trouble[];
  prepare?(pair: Pair): Promise<void>;
}

const PLAYED: readonly Play[] = [
  { what: "the replication network fails", tool: "keepalived", troubles: REPLICATION },
  { what: "the service network fails", tool: "keepalived", troubles: SERVICE },
  { what: "the service network fails", tool: "ucarp", troubles: SERVICE },
  { what: "a switch forwards one way", tool: "keepalived", troubles: PINGED, prepare: ping },
  { what: "a switch forwards one way", tool: "ucarp", troubles: PINGED, prepare: ping },
];

for (const { what, tool, troubles, prepare } of PLAYED) {
  test(`${tool}: ${what}, and no record is lost`, async () => {
    const pair = await Pair.start(tool);
    try {
      await prepare?.(pair);
      pair.startClient();
      await pair.served(50);
      for (const trouble of troubles) await undergo(pair, trouble);
      // The other copy is as good.
      const { primary, secondary } = await pair.settled();
      await primary.powerOff();
      await pair.served(50);
      console.log(`${tool}: ${await pair.nothingLost(secondary)} records, none lost`);
    } catch (error) {
      console.log(pair.lan.logs(), error);
      throw error;
    } finally {
      await pair.stop();
    }
  });
}

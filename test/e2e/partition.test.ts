// SPDX-License-Identifier: BSD-2-Clause
/**
 * All networks between the nodes fail at once while both live: what two nodes cannot judge. Where the cards
 * keep their carrier both become primary, each with a client that it serves. When they meet, nothing is
 * overwritten: each copy still has what its client was acknowledged, until the operator chooses. Where the
 * cards lose it, the old primary gives up. And two failures, one after the other, are too many for two nodes:
 * what was acknowledged between them is behind, but not gone.
 */
import { strict as expect } from "node:assert";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Host } from "./hosts.ts";
import { diskOf, Pair, RECORDS, type Tool } from "./pair.ts";

const CARDS = ["svc0", "hast0"] as const;
/** Where the numbers of the client on the isolated node begin. */
const LOCAL = 1_000_001;

async function scenario(tool: Tool, play: (pair: Pair) => Promise<void>): Promise<void> {
  const pair = await Pair.start(tool);
  try {
    await play(pair);
  } catch (error) {
    console.log(pair.lan.logs(), error);
    throw error;
  } finally {
    await pair.stop();
  }
}

async function heal(pair: Pair): Promise<void> {
  for (const card of CARDS) await pair.lan.heal(pair.one, card);
}

/** Both nodes say so, and the one that lost is barred from the service. */
async function partedForGood(pair: Pair, kept: Host, other: Host): Promise<void> {
  for (const host of [kept, other]) {
    const says = async () => (await pair.status(host)).includes("split-brain");
    await host.until("it says split-brain", says, { withinMs: 90_000 });
  }
  expect.equal(await pair.role(kept), "primary");
  expect.equal(await pair.role(other), "secondary");
  await other.until("it may not have the service", async () => !(await pair.isFit(other)));
}

/** What is in a copy that is not in use: its file system, from a copy of the disk as the runbook makes it. */
async function recordsIn(host: Host): Promise<Set<number>> {
  const image = join(host.directory, "copy.img");
  cpSync(diskOf(host.directory, "disk1"), image);
  const offset = /localoff: (\d+)/.exec(await host.expect("hastctl", "dump", "disk1"))![1]!;
  await host.expect("mkdir", "-p", "/mnt/copy");
  await host.expect("mount", "-o", `loop,offset=${offset}`, image, "/mnt/copy");
  const text = await host.expect("cat", "/mnt/copy/records");
  await host.expect("umount", "/mnt/copy");
  return new Set(text.split("\n").map(Number));
}

/** The runbook's end of it: the changes of `other` are thrown away. */
async function resolve(pair: Pair, other: Host): Promise<void> {
  await other.expect("hastctl", "resolve", "--discard-local", "--dry-run", "disk1");
  await other.expect("hastctl", "resolve", "--discard-local", "disk1");
  await pair.settled();
}

function missing(numbers: Iterable<number>, from: ReadonlySet<number>): number[] {
  return [...numbers].filter((each) => !from.has(each));
}

for (const tool of ["keepalived", "ucarp"] as const) {
  test(`${tool}: all networks cut with the carriers up: two primaries, a split-brain, nothing overwritten`, () =>
    scenario(tool, async (pair) => {
      const { one, two, client } = pair;
      pair.startClient();
      await pair.served(50);
      const before = [...pair.acknowledged().keys()];
      for (const card of CARDS) {
        for (const direction of ["from", "to"] as const)
          await pair.lan.oneWay(one, card, direction);
      }
      // Somebody still reaches the old primary.
      pair.startClient(one, LOCAL);
      await pair.served(100);
      const many = () => pair.acknowledged(one).size >= 100;
      await one.until("its own client is served", many, { withinMs: 60_000 });
      for (const host of [one, two]) expect.equal(await pair.role(host), "primary");

      await heal(pair);
      // One of them gives up, as the tools settle it: priority, and with ucarp advskew.
      const quiet = async () =>
        (await pair.role(one)) !== "primary" || (await pair.role(two)) !== "primary";
      await one.until("one of them gives up", quiet, { withinMs: 90_000 });
      const [kept, other] = (await pair.role(one)) === "primary" ? [one, two] : [two, one];
      await partedForGood(pair, kept, other);
      // From now on one node serves both clients: what it lacks of this, the other one has taken.
      const [ofKept, ofOther] = (kept === one ? [one, client] : [client, one]).map((each) => [
        ...pair.acknowledged(each).keys(),
      ]) as [number[], number[]];
      const keptNow = new Set((await kept.expect("cat", RECORDS)).split("\n").map(Number));
      expect.deepEqual(missing(before, keptNow), [], "lost before the cut");
      expect.deepEqual(missing(ofKept, keptNow), [], `lost on ${kept.name}`);
      const alone = missing(ofOther, keptNow);
      expect.ok(alone.length > 0, "the other side took nothing alone");
      const there = await recordsIn(other);
      expect.deepEqual(missing(before, there), [], "lost before the cut");
      expect.deepEqual(missing(alone, there), [], `lost on ${other.name}`);

      const waited = performance.now();
      await resolve(pair, other);
      const seconds = ((performance.now() - waited) / 1000).toFixed(1);
      console.log(
        `${tool}: both networks cut: two primaries; ${kept.name} stays one after the repair, with all its ` +
          `records; ${other.name} had taken ${alone.length} alone, all in its copy until it was thrown away; ` +
          `in step ${seconds} s after resolve`,
      );
    }));
}

test("keepalived: both cables of the primary pulled: it gives up, the other serves", () =>
  scenario("keepalived", async (pair) => {
    const { one, two } = pair;
    pair.startClient();
    await pair.served(50);
    for (const card of CARDS) await pair.lan.cut(one, card);
    await pair.served(100);
    expect.equal(await pair.role(two), "primary");
    const gaveUp = async () => (await pair.role(one)) === "secondary";
    await one.until("it has given up", gaveUp, { withinMs: 60_000 });
    await heal(pair);
    const parted = async () => {
      if ((await pair.status(two)).includes("split-brain")) return "a split-brain";
      return (await pair.copy(one)) === "uptodate" ? "in step again" : null;
    };
    const end = await two.until("they have met", parted, { withinMs: 90_000 });
    if (end === "a split-brain") {
      await partedForGood(pair, two, one);
      await resolve(pair, one);
    }
    await pair.served(50);
    const count = await pair.nothingLost(two);
    console.log(
      `keepalived: both cables of the primary pulled: ${pair.longestGap().toFixed(1)} s without an ` +
        `acknowledgement, then ${end}; ${count} records, none lost`,
    );
  }));

test("keepalived: the replication network fails, then the primary's power: what it took alone is in its copy", () =>
  scenario("keepalived", async (pair) => {
    const { one, two, lan } = pair;
    pair.startClient();
    await pair.served(50);
    await lan.cut(one, "hast0");
    await pair.served(300);
    await one.powerOff();
    await pair.served(50);
    const taken = [...pair.acknowledged().keys()];
    const alone = missing(
      taken,
      new Set((await two.expect("cat", RECORDS)).split("\n").map(Number)),
    );
    expect.ok(alone.length > 0, "it took nothing alone");

    await one.boot();
    pair.startHastd(one);
    pair.startTool(one);
    await partedForGood(pair, two, one);
    expect.deepEqual(missing(alone, await recordsIn(one)), [], "lost on hast1");
    await resolve(pair, one);
    console.log(
      `keepalived: replication cut, then the primary's power: hast2 serves without the ${alone.length} records ` +
        "that were acknowledged since the cut; they were in hast1's copy until it was thrown away",
    );
  }));

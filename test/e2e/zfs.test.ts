// SPDX-License-Identifier: BSD-2-Clause
/**
 * The forum's scenario: three resources, a raidz1 pool on them, made as it is made there, and the failover
 * script; switched by hand, with a writer in the way, and by ucarp and keepalived after a power cut.
 */
import { strict as expect } from "node:assert";
import { test } from "node:test";
import type { Host } from "./hosts.ts";
import { MAIN, Pair, type Storage } from "./pair.ts";

const RESOURCES = ["disk1", "disk2", "disk3"];
const ZFS_FUSE = ["zfs-fuse", "--no-daemon", "--no-kstat-mount"];

const POOL: Storage = {
  resources: RESOURCES,
  sizeMib: 128,
  use: 'pool="zhast"',
  // setsid, or nsenter would stop when zfs-fuse is stopped, and its host never end.
  daemon: ["setsid", "--fork", ...ZFS_FUSE],
  make: async (host) => {
    await zfsAnswers(host);
    const disks = RESOURCES.map((name) => `/dev/hast/${name}`);
    await host.expect("zpool", "create", "-m", "/mnt/data", "zhast", "raidz1", ...disks);
  },
};

/** zfs-fuse listens only seconds after its start. */
function zfsAnswers(host: Host): Promise<unknown> {
  return host.until("zpool answers", async () => (await host.run(["zpool", "list"])).code === 0);
}

async function pools(host: Host): Promise<string> {
  await zfsAnswers(host);
  return (await host.expect("zpool", "list", "-H", "-o", "name")).trim();
}

/** Reads everything, and compares it with its checksums and parity. */
async function scrubIsClean(host: Host): Promise<void> {
  await host.expect("zpool", "scrub", "zhast");
  const status = await host.until("the scrub has ended", async () => {
    const text = await host.expect("zpool", "status", "zhast");
    return /scrub completed/.test(text) && text;
  });
  expect.match(status, /scrub completed .* with 0 errors/);
  expect.match(status, /state: ONLINE/);
  expect.match(status, /errors: No known data errors/);
}

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

/** The failover script succeeds. @returns how many seconds it took */
function failover(host: Host, order: "master" | "slave"): Promise<number> {
  return seconds(async () => {
    const { code, stdout, stderr } = await host.run([`${MAIN}/failover`, order], {
      withinMs: 150_000,
    });
    expect.equal(code, 0, `failover ${order} on ${host.name}: ${stdout}${stderr}\n${host.log()}`);
  });
}

/** Writes, and goes on until it is stopped, without ever asking whether it is on the disk. */
async function startWriter(host: Host): Promise<void> {
  host.spawn("dd", "dd", "if=/dev/urandom", "of=/mnt/data/foo", "bs=64k", "conv=notrunc");
  await host.until("dd writes", async () => {
    const { stdout } = await host.run(["stat", "-c", "%s", "/mnt/data/foo"]);
    return Number(stdout) > 1024 * 1024;
  });
}

/** Writes a file of which nothing may be lost, and syncs it. @returns what {@link keptSum} says of it */
async function keepFile(host: Host): Promise<string> {
  const to = ["of=/mnt/data/kept", "bs=1M", "count=8", "conv=fsync"];
  await host.expect("dd", "if=/dev/urandom", ...to);
  return await keptSum(host);
}

function keptSum(host: Host): Promise<string> {
  return host.expect("sha256sum", "/mnt/data/kept");
}

async function writerLives(host: Host): Promise<boolean> {
  return (await host.run(["pgrep", "-x", "dd"])).code === 0;
}

async function withPair(
  tool: "ucarp" | "keepalived" | "none",
  work: (pair: Pair) => Promise<void>,
) {
  const pair = await Pair.start(tool, POOL);
  try {
    await work(pair);
  } catch (error) {
    console.log(pair.lan.logs());
    throw error;
  } finally {
    await pair.stop();
  }
}

test("by hand: failover slave here, failover master there, and back, while dd writes", () =>
  withPair("none", async ({ one, two }) => {
    const sum = await keepFile(one);
    for (const [from, to] of [[one, two] as const, [two, one] as const]) {
      const slave = await failover(from, "slave");
      const master = await failover(to, "master");
      expect.equal(await pools(from), "");
      expect.equal(await keptSum(to), sum);
      console.log(`by hand: slave ${slave.toFixed(1)} s, master ${master.toFixed(1)} s`);
    }
    await startWriter(one);
    const slave = await failover(one, "slave");
    expect.ok(!(await writerLives(one)));
    expect.equal(await pools(one), "");
    await failover(two, "master");
    expect.equal(await keptSum(two), sum);
    await scrubIsClean(two);
    console.log(`by hand, while dd writes: slave ${slave.toFixed(1)} s`);
  }));

test("zpool export -f while dd writes: failover slave takes the role away in time, and the node is not fit until zfs-fuse is new", () =>
  withPair("none", async (pair) => {
    const { one, two } = pair;
    const sum = await keepFile(one);
    await startWriter(one);
    const { code, stderr } = await one.run(["timeout", "30", "zpool", "export", "-f", "zhast"]);
    expect.notEqual(code, 0);
    expect.match(stderr, /pool is busy/);
    // It has unmounted all the same: nobody sees any more that dd goes on.
    expect.equal((await one.run(["mountpoint", "-q", "/mnt/data"])).code !== 0, true);
    expect.ok(await writerLives(one));

    const slave = await failover(one, "slave");
    expect.ok(slave < 60, `${slave} s`);
    expect.equal(await pair.role(one), "secondary");
    await failover(two, "master");
    expect.equal(await keptSum(two), sum);
    await scrubIsClean(two);
    console.log(`after export -f while dd writes: slave ${slave.toFixed(1)} s`);

    // The pool is still there, without disks.
    await failover(two, "slave");
    const check = await one.run([`${MAIN}/failover`, "check"]);
    expect.notEqual(check.code, 0);
    expect.match(check.stderr, /pool zhast could not be exported .* Restart zfs-fuse/);
    const refused = await one.run([`${MAIN}/failover`, "master"]);
    expect.notEqual(refused.code, 0);
    expect.equal(await pair.role(one), "secondary");

    await one.expect("pkill", "-KILL", "-x", "zfs-fuse");
    await one.until("zfs-fuse and dd have ended", async () => {
      return (await one.run(["pgrep", "-x", "zfs-fuse|dd"])).code === 1;
    });
    one.spawn("zfs-fuse", ...ZFS_FUSE);
    // Out of its cache file, without disks: zpool create was not told otherwise.
    expect.equal(await pools(one), "zhast");
    await failover(one, "slave");
    expect.equal(await pools(one), "");
    await failover(one, "master");
    expect.equal(await keptSum(one), sum);
    expect.ok(await pair.isFit(one));
  }));

test("ZFS hangs: failover slave takes the role away in time, and the other node goes on", () =>
  withPair("none", async (pair) => {
    const { one, two } = pair;
    const sum = await keepFile(one);
    await one.expect("pkill", "-STOP", "-x", "zfs-fuse");
    const slave = await failover(one, "slave");
    expect.ok(slave < 120, `${slave} s`);
    expect.equal(await pair.role(one), "secondary");
    await failover(two, "master");
    expect.equal(await keptSum(two), sum);
    console.log(`while ZFS hangs: slave ${slave.toFixed(1)} s`);
  }));

for (const tool of ["ucarp", "keepalived"] as const) {
  test(`${tool}: the power of the pool's host is cut under a client, it returns, and takes over in its turn`, () =>
    withPair(tool, async (pair) => {
      const { one, two } = pair;
      pair.startClient();
      await pair.served(100);
      await one.powerOff();
      await pair.served(100);
      await pair.nothingLost(two);
      const first = pair.longestGap();

      await one.boot();
      pair.startHastd(one);
      pair.startTool(one);
      await one.until("hast1 is in step and fit", () => pair.isFit(one), { withinMs: 60_000 });
      expect.equal(await pools(one), "");
      expect.equal(await pair.role(one), "secondary");
      await pair.served(100);
      await two.powerOff();
      await pair.served(100);
      const count = await pair.nothingLost(one);
      await scrubIsClean(one);
      console.log(
        `${tool}, raidz1 on three resources: power off to the next record ${first.toFixed(1)} s; ${count} records, none lost; longest gap ${pair.longestGap().toFixed(1)} s; scrub clean`,
      );
    }));
}

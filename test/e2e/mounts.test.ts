// SPDX-License-Identifier: BSD-2-Clause
/**
 * Several resources with a file system each, one mounted below the other, move together: by hand, with users in
 * them, and after a power cut.
 */
import { strict as expect } from "node:assert";
import { test } from "node:test";
import type { Host } from "./hosts.ts";
import { MAIN, Pair, type Storage } from "./pair.ts";

const RESOURCES = ["disk1", "disk2"];

const EXT4_AND_XFS: Storage = {
  resources: RESOURCES,
  sizeMib: 320, // XFS wants 300
  use: 'mounts="disk1:/mnt/data disk2:/mnt/data/archive"',
  make: async (host) => {
    await host.expect("mkfs.ext4", "-q", "/dev/hast/disk1");
    await host.expect("mkfs.xfs", "-q", "/dev/hast/disk2");
  },
};

async function failover(host: Host, order: "master" | "slave"): Promise<void> {
  const { code, stdout, stderr } = await host.run([`${MAIN}/failover`, order], {
    withinMs: 150_000,
  });
  expect.equal(code, 0, `failover ${order} on ${host.name}: ${stdout}${stderr}`);
}

async function write(host: Host, name: string): Promise<void> {
  for (const directory of ["/mnt/data", "/mnt/data/archive"]) {
    const file = `of=${directory}/${name}`;
    await host.expect("dd", "if=/dev/zero", file, "bs=64k", "count=16", "conv=fsync");
  }
}

async function isThere(host: Host, ...names: string[]): Promise<void> {
  const mounts = await host.expect("cat", "/proc/mounts");
  expect.match(mounts, /^\S+ \/mnt\/data ext4 rw/m);
  expect.match(mounts, /^\S+ \/mnt\/data\/archive xfs rw/m);
  for (const name of names) {
    for (const directory of ["/mnt/data", "/mnt/data/archive"]) {
      const size = await host.expect("stat", "-c", "%s", `${directory}/${name}`);
      expect.equal(size, `${1024 * 1024}\n`);
    }
  }
}

test("ext4 and, below it, XFS move together, by hand and after a power cut", async () => {
  const pair = await Pair.start("none", EXT4_AND_XFS);
  const { lan, one, two } = pair;
  try {
    await write(one, "first");
    one.spawn("user", "sh", "-c", "cd /mnt/data/archive && exec sleep 3600");
    await failover(one, "slave");
    expect.doesNotMatch(await one.expect("cat", "/proc/mounts"), / \/mnt\/data/);
    await failover(two, "master");
    await isThere(two, "first");
    await write(two, "second");
    await two.powerOff();
    await failover(one, "master");
    await isThere(one, "first", "second");
    expect.equal(await pair.role(one), "primary");
    expect.doesNotMatch(lan.logs(), /daemon\.err/);
  } catch (error) {
    console.log(lan.logs());
    throw error;
  } finally {
    await pair.stop();
  }
});

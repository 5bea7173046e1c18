// SPDX-License-Identifier: BSD-2-Clause
/**
 * The handbook's promise: "the ability to read the local disk vanishes" under a file system that clients
 * use, and they go on. Afterwards the disk is replaced as docs/runbooks/failed-disk.md has it.
 *
 *   hastd ── disk1.img ─► file ── FUSE ── nbdfuse ── nbdkit: every request fails once disk1.broken is there
 */
import { strict as expect } from "node:assert";
import { renameSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Host } from "./hosts.ts";
import { EXT4, Pair, type Storage } from "./pair.ts";

const FRAGILE: Storage = {
  ...EXT4,
  plug: async (host) => {
    const { image, platters } = filesOf(host);
    renameSync(image, platters);
    await plug(host, 1);
  },
};

function filesOf(host: Host) {
  const at = (name: string): string => join(host.directory, name);
  return { image: at("disk1.img"), platters: at("disk1.raw"), broken: at("disk1.broken") };
}

/** Makes what disk1.img leads to. @param count 1 for the first disk, 2 for the next */
async function plug(host: Host, count: number): Promise<void> {
  const { image, platters, broken } = filesOf(host);
  const [socket, mount] = [`/run/disk${count}.sock`, `/run/disk${count}`];
  const failing = ["error=EIO", "error-rate=100%", `error-file=${broken}`];
  host.spawn(
    "nbdkit",
    "nbdkit",
    "-f",
    "-U",
    socket,
    "--filter=error",
    "file",
    platters,
    ...failing,
  );
  await host.until(
    "nbdkit listens",
    async () => (await host.run(["test", "-S", socket])).code === 0,
  );
  await host.expect("mkdir", mount);
  host.spawn("nbdfuse", "nbdfuse", `${mount}/disk`, `nbd+unix:///?socket=${socket}`);
  await host.until("nbdfuse shows it", async () => {
    return (await host.run(["mountpoint", "-q", mount])).code === 0;
  });
  rmSync(image, { force: true });
  symlinkSync(`${mount}/disk`, image);
}

test("the primary's disk vanishes under a client, who sees nothing of it; then it is replaced", async () => {
  const pair = await Pair.start("keepalived", FRAGILE);
  const { lan, one, two } = pair;
  const status = (host: Host): Promise<string> => host.expect("hastctl", "status");
  try {
    pair.startClient();
    await pair.served(100);
    const { platters, broken } = filesOf(one);
    writeFileSync(broken, "");
    await one.until("status says so", async () => /diskless/.test(await status(one)));
    await pair.served(200);
    expect.equal(await pair.role(one), "primary");
    expect.ok(await pair.hasAddress(one));
    expect.match(await one.expect("cat", "/proc/mounts"), /^\S+ \/mnt\/data ext4 rw/m);
    expect.doesNotMatch(await one.expect("cat", "/proc/mounts"), /emergency_ro/);
    expect.ok(await pair.isFit(one));
    // The only copy of it: nothing must take the role there, or here, away from it by itself.
    const count = await pair.nothingLost(one);
    const gap = pair.longestGap();
    console.log(`disk lost: ${count} records, none lost; longest gap ${gap.toFixed(1)} s`);
    await one.expect("touch", "/mnt/data/written-without-a-disk");
    await one.expect("sync", "-f", "/mnt/data");

    // The runbook, 2: work on the other node.
    await pair.stopTool(one);
    await two.until("the address has moved", () => pair.hasAddress(two), { withinMs: 90_000 });
    await pair.served(100, 90_000);
    await pair.nothingLost(two);
    await two.expect("test", "-e", "/mnt/data/written-without-a-disk");
    await one.expect("hastctl", "role", "init", "disk1");

    // 3: replace the disk. It is as large as the old one, and empty.
    await one.expect("umount", "-l", "/run/disk1");
    rmSync(broken);
    rmSync(platters);
    writeFileSync(platters, "");
    truncateSync(platters, FRAGILE.sizeMib * 1024 * 1024);
    await plug(one, 2);
    const dump = await two.expect("hastctl", "dump", "disk1");
    const size = /datasize: (\d+)/.exec(dump)![1]!;
    await one.expect("hastctl", "create", "--force", "--datasize", size, "disk1");
    await one.expect("hastctl", "role", "secondary", "disk1");

    // 4: check; and the new disk is good for something.
    await two.until(
      "both are in step",
      async () => {
        const copy = await one.expect("hastctl", "list", "disk1");
        return /complete/.test(await status(two)) && /copy: uptodate/.test(copy);
      },
      { withinMs: 60_000 },
    );
    pair.startTool(one);
    await one.until("hast1 is fit", () => pair.isFit(one));
    await pair.served(100);
    await two.powerOff();
    await pair.served(100);
    console.log(`and replaced: ${await pair.nothingLost(one)} records, none lost`);
  } catch (error) {
    console.log(lan.logs());
    throw error;
  } finally {
    await pair.stop();
  }
});

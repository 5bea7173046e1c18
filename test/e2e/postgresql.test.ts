// SPDX-License-Identifier: BSD-2-Clause
/**
 * PostgreSQL on ext4 on /dev/hast/disk1, set up as docs/failover/postgresql.md says, under pgbench and a client
 * that notes each key after its COMMIT. Ten times the primary loses its power, and keepalived brings the
 * database up on the other node; the dead one returns, and is the next primary. The disks are outside the
 * hosts: a power cut takes back a random half of what was not flushed.
 */
import { strict as expect } from "node:assert";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { DiskProcess } from "../system/power.ts";
import type { Host } from "./hosts.ts";
import { diskOf, MAIN, Pair, SERVICE, type Storage } from "./pair.ts";
import { recipe } from "./recipe.ts";

const ROUNDS = 10;
const SIZE_MIB = 256;
const CLIENT = `host=${SERVICE} dbname=bench user=bench password=bench connect_timeout=2 tcp_user_timeout=3000`;
/** pgbench's invariant: whatever was lost or done twice, it was so in all four. */
const SUMS = `SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches),
  (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)`;

class Scenario {
  readonly #directory = mkdtempSync(join(tmpdir(), "hast-disks-"));
  readonly #disks = new Map<string, DiskProcess>();
  #pair: Pair | null = null;

  /** Only after start(). */
  get pair(): Pair {
    return this.#pair!;
  }

  logs(): string {
    return this.#pair?.lan.logs() ?? "";
  }

  async start(): Promise<void> {
    const storage: Storage = {
      resources: ["disk1"],
      sizeMib: SIZE_MIB,
      use: 'mounts="disk1:/mnt/data"',
      make: (host) => host.expect("sh", "-euc", recipe("postgresql.md", "The cluster")),
      plug: (host) => this.plug(host),
      service: "postgresql",
    };
    this.#pair = await Pair.start("keepalived", storage);
    const { one, client } = this.#pair;
    // keepalived has begun with a demotion.
    const isReady = async () => (await client.run(["pg_isready", "-q", "-h", SERVICE])).code === 0;
    await client.until("the database answers", isReady);
    await this.sql(one, "CREATE ROLE bench LOGIN PASSWORD 'bench'", "postgres");
    await this.sql(one, "CREATE DATABASE bench OWNER bench", "postgres");
    await client.expect("psql", "-Xc", "CREATE TABLE keys (key text PRIMARY KEY)", CLIENT);
    await client.expect("pgbench", "--quiet", "-i", CLIENT);
    const commits = join(import.meta.dirname, "commit-client.ts");
    client.spawn("commits", process.execPath, commits, CLIENT, "3");
    const pgbench = `while :; do pgbench -n -c 2 -T 3600 "${CLIENT}"; sleep 0.2; done`;
    client.spawn("pgbench", "sh", "-c", pgbench);
  }

  /** A disk outside of the host, the same one at each boot. */
  async plug(host: Host): Promise<void> {
    let disk = this.#disks.get(host.name);
    if (disk === undefined) {
      const directory = join(this.#directory, host.name);
      mkdirSync(directory);
      const seed = this.#disks.size;
      disk = new DiskProcess(host.name, {
        directory,
        size: SIZE_MIB * 2 ** 20,
        kind: "block",
        seed,
      });
      this.#disks.set(host.name, disk);
    }
    const path = diskOf(host.directory, "disk1");
    rmSync(path, { force: true });
    symlinkSync(await disk.plug(), path);
  }

  /** Nothing that it does at the end gets to the disk. */
  async cutPower(host: Host): Promise<{ unflushed: number; lost: number }> {
    const disk = this.#disks.get(host.name)!;
    await disk.freeze("at flush");
    let cut = { unflushed: 0, lost: 0 };
    await host.powerOff(async () => {
      cut = await disk.cut();
    });
    return cut;
  }

  /** @returns what psql prints, as the database's superuser on this host */
  async sql(host: Host, command: string, database = "bench"): Promise<string> {
    const psql = ["psql", "-XAt", "-h", "/run/postgresql", "-d", database, "-c", command];
    return (await host.expect("runuser", "-u", "postgres", "--", ...psql)).trim();
  }

  /** When the COMMIT of each key was acknowledged, in ms. */
  committed(): Map<string, number> {
    const text = readFileSync(join(this.pair.client.directory, "commits.log"), "utf8");
    return new Map(
      [...text.matchAll(/^(\d+-\d+) (\d+)$/gm)].map(([, key, ms]) => [key!, Number(ms)]),
    );
  }

  async moreCommits(count: number): Promise<void> {
    const wanted = this.committed().size + count;
    const what = `${count} more transactions were committed`;
    await this.pair.client.until(what, () => this.committed().size >= wanted, {
      withinMs: 120_000,
    });
  }

  /** @throws AssertionError where a committed key is missing, or pgbench's sums differ */
  async nothingLost(host: Host): Promise<void> {
    const committed = [...this.committed().keys()];
    const keys = new Set((await this.sql(host, "SELECT key FROM keys")).split("\n"));
    const lost = committed.filter((key) => !keys.has(key));
    expect.deepEqual(lost, [], `committed, and not there on ${host.name}`);
    const sums = new Set((await this.sql(host, SUMS)).split("|"));
    expect.equal(sums.size, 1, `pgbench's sums on ${host.name}: ${[...sums].join()}`);
  }

  /** The longest time without a COMMIT since `from` transactions were committed, in seconds. */
  longestGap(from: number): number {
    const times = [...this.committed().values()].slice(Math.max(0, from - 1));
    return Math.max(...times.slice(1).map((time, index) => time - times[index]!)) / 1000;
  }

  async stop(): Promise<void> {
    await this.#pair?.stop();
    for (const disk of this.#disks.values()) await disk.end();
    rmSync(this.#directory, { recursive: true });
  }
}

test("PostgreSQL: ten power cuts of the primary, and every committed transaction is on the other node", async () => {
  const scenario = new Scenario();
  try {
    await scenario.start();
    const { pair } = scenario;
    for (let round = 1; round <= ROUNDS; round++) {
      await scenario.moreCommits(300);
      const { primary, secondary } = await pair.settled();
      const before = scenario.committed().size;
      const { unflushed, lost } = await scenario.cutPower(primary);
      await scenario.moreCommits(100);
      const gap = scenario.longestGap(before);
      await scenario.nothingLost(secondary);

      await scenario.plug(primary);
      await primary.boot();
      pair.startHastd(primary);
      pair.startTool(primary);
      const back = performance.now();
      const after = await pair.settled();
      expect.equal(after.primary, secondary);
      const seconds = ((performance.now() - back) / 1000).toFixed(1);
      console.log(
        `round ${round}: ${primary.name} lost ${lost} of ${unflushed} unflushed sectors; ` +
          `${secondary.name} had all ${before} commits, the next one after ${gap.toFixed(1)} s; ` +
          `${primary.name} was in step ${seconds} s after its boot`,
      );
      expect.doesNotMatch(pair.lan.logs(), /split-brain/i);
    }
    const { primary, secondary } = await pair.settled();
    // Or the tool would take it from here.
    for (const host of [secondary, primary]) await pair.stopTool(host);
    // A page that was torn or went back in time would have been read by now, or is found here.
    await primary.expect(`${MAIN}/failover`, "slave");
    await primary.expect("hastctl", "role", "--wait", "20", "primary", "disk1");
    await primary.expect("mount", "/dev/hast/disk1", "/mnt/data");
    const check = [
      "/usr/lib/postgresql/15/bin/pg_checksums",
      "--check",
      "-D",
      "/mnt/data/postgresql",
    ];
    console.log((await primary.expect("runuser", "-u", "postgres", "--", ...check)).trim());
  } catch (error) {
    console.log(scenario.logs(), error);
    throw error;
  } finally {
    await scenario.stop();
  }
});

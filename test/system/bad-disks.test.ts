// SPDX-License-Identifier: BSD-2-Clause
/** Disks that are damaged, foreign, missing, too small, in use or of another size: refused, with reasons. */

import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync, rmSync, truncateSync, writeSync } from "node:fs";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { openComponent } from "../../src/platform/node/component.ts";
import { expectCommand } from "./command.ts";
import { makeDisk, type Node, RESOURCE, TwoNodes, withPair } from "./two-nodes.ts";
import { until } from "./until.ts";

const MIB = 1024 * 1024;

function overwrite(path: string, offset: number, bytes: Uint8Array): void {
  const file = openSync(path, "r+");
  writeSync(file, bytes, 0, bytes.length, offset);
  closeSync(file);
}

function digest(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

/** `role` fails, says about which resource and why, changes nothing, and the daemon lives on. */
async function refusesRole(node: Node, role: "primary" | "secondary", why: RegExp): Promise<void> {
  const { code, stdout, stderr } = await node.hastctl("role", role, RESOURCE);
  assert.notEqual(code, 0, `role ${role} should have been refused`);
  assert.equal(stdout, "");
  assert.match(
    stderr,
    new RegExp(`^\\[ERROR\\] \\[${RESOURCE}\\] ${node.local}.*\\. [A-Z]`),
    "what to do",
  );
  assert.match(stderr, why);
  assert.equal((await node.list()).get("role"), "init");
  assert.ok(node.processes().includes(node.daemonPid));
}

test("damaged and foreign metadata are refused in both roles, and left as they are", () =>
  withPair(TwoNodes.start(), async ({ alpha }) => {
    const good = readFileSync(alpha.local).subarray(0, 2 * MIB);
    const noise = Buffer.alloc(4096);
    for (let at = 0; at < noise.length; at++) noise[at] = (at * 89 + 7) & 0xff;
    const foreign = Buffer.from(good.subarray(0, 4096));
    foreign.write("another", foreign.indexOf(RESOURCE), "latin1");
    const huge = Buffer.from(good.subarray(0, 4096));
    huge.fill(0xff, huge.indexOf("datasize\0") + 16, huge.indexOf("datasize\0") + 24);
    // The map, and the metadata's second copy in front of the data.
    const blank = Buffer.alloc(MIB - 4096);
    const spoilt: readonly [string, Buffer, RegExp][] = [
      ["all zeroes", Buffer.alloc(MIB), /metadata|create/i],
      ["noise", Buffer.concat([noise, Buffer.alloc(MIB)]), /metadata/i],
      ["another resource's", Buffer.concat([foreign, blank]), /another|metadata/i],
      ["an impossible size", Buffer.concat([huge, blank]), /size|metadata/i],
    ];
    for (const [kind, block, why] of spoilt) {
      overwrite(alpha.local, 0, good);
      overwrite(alpha.local, 0, block);
      const before = digest(alpha.local);
      await refusesRole(alpha, "primary", why);
      await refusesRole(alpha, "secondary", why);
      assert.equal(digest(alpha.local), before, `${kind} was changed`);
    }
    // With the second copy left, there is nothing to refuse.
    overwrite(alpha.local, 0, good);
    overwrite(alpha.local, 0, huge);
    await alpha.role("primary");
    assert.match(alpha.logText(), /metadata block is damaged .*copy is used; it is written again/);
    assert.deepEqual(readFileSync(alpha.local).subarray(0, 512), good.subarray(0, 512));
  }));

test("a disk that has shrunk is refused", () =>
  withPair(TwoNodes.start(), async ({ alpha }) => {
    truncateSync(alpha.local, 32 * MIB);
    await refusesRole(alpha, "primary", /size|small|shr[iu]nk|bytes/i);
    truncateSync(alpha.local, 100);
    await refusesRole(alpha, "primary", /size|small|short|metadata|bytes/i);
  }));

test("a disk that is missing is refused, and taken once it is there", () =>
  withPair(TwoNodes.start(), async ({ alpha }) => {
    rmSync(alpha.local);
    await refusesRole(alpha, "primary", new RegExp(alpha.local));
    await refusesRole(alpha, "secondary", new RegExp(alpha.local));
    makeDisk(alpha.local, 64 * MIB);
    await alpha.create();
    await alpha.role("primary");
  }));

test("disks of different size do not replicate, and the primary says which size is whose", () =>
  withPair(TwoNodes.prepare(), async (pair) => {
    const { alpha, beta } = pair;
    await alpha.create();
    await beta.create("--datasize", String(32 * MIB));
    for (const node of pair.nodes) await node.start();
    await beta.role("secondary");
    await alpha.role("primary");
    const status = await until("status tells", async () => {
      const text = await alpha.status();
      return /size/i.test(text) && text;
    });
    assert.match(status, /degraded primary/);
    assert.match(alpha.logText(), new RegExp(`${32 * MIB}`));
    const client = await alpha.connect();
    await client.write(0, Buffer.alloc(4096, 1));
    await client.disconnect();
  }));

test("different extent sizes do not replicate", () =>
  withPair(TwoNodes.prepare(), async (pair) => {
    const { alpha, beta } = pair;
    await alpha.create("--datasize", String(32 * MIB), "-e", "1m");
    await beta.create("--datasize", String(32 * MIB), "-e", "2m");
    for (const node of pair.nodes) await node.start();
    await beta.role("secondary");
    await alpha.role("primary");
    await until("status tells", async () => /extent ?size/i.test(await alpha.status()));
    assert.match(await alpha.status(), /degraded primary/);
  }));

test("create refuses a disk that holds something, and --force overrides", () =>
  withPair(TwoNodes.prepare(), async ({ alpha, beta }) => {
    await alpha.create();
    const before = digest(alpha.local);
    const again = await alpha.hastctl("create", RESOURCE);
    assert.notEqual(again.code, 0);
    assert.match(again.stderr, new RegExp(`${RESOURCE}[^]*metadata[^]*--force`, "i"));
    assert.equal(digest(alpha.local), before);
    await alpha.create("--force");

    await expectCommand("mkfs.ext4", ["-q", beta.local]);
    const fs = digest(beta.local);
    const overFs = await beta.hastctl("create", RESOURCE);
    assert.notEqual(overFs.code, 0);
    assert.match(overFs.stderr, /ext/);
    assert.equal(digest(beta.local), fs);
    await beta.create("--force");
    assert.equal((await beta.dump()).get("localcnt"), "0");
  }));

test("create refuses a disk that a daemon is using", () =>
  withPair(TwoNodes.start(), async ({ alpha }) => {
    await alpha.role("primary");
    const client = await alpha.connect();
    await client.write(0, Buffer.alloc(4096, 7));
    const { code, stderr } = await alpha.hastctl("create", RESOURCE);
    assert.notEqual(code, 0);
    assert.match(stderr, /in use/i);
    assert.deepEqual(await client.read(0, 4096), Buffer.alloc(4096, 7));
    await client.disconnect();
  }));

test("a disk that is in use is waited for; one that stays in use is refused, and says so", () =>
  withPair(TwoNodes.start(), async ({ alpha }) => {
    // As a killed worker's lock, which the kernel holds until it has finished.
    const holder = await openComponent(alpha.local, "write");
    await refusesRole(alpha, "primary", /in use/i);
    const change = alpha.role("primary");
    await setTimeout(1_000);
    await holder.close();
    await change;
  }));

test("create refuses sizes that cannot work, with exit code 65, and writes nothing", () =>
  withPair(TwoNodes.prepare(), async ({ alpha }) => {
    const wrong: readonly (readonly string[])[] = [
      ["-e", "3000000"],
      ["-e", "256"],
      ["-e", "4g"],
      ["-k", "1"],
      ["-m", "1t"],
      ["-m", "4096"],
      ["--datasize", "1t"],
    ];
    const before = digest(alpha.local);
    for (const options of wrong) {
      const { code, stderr } = await alpha.hastctl("create", ...options, RESOURCE);
      assert.equal(code, 65, `${options.join(" ")}: ${stderr}`);
      assert.match(stderr, new RegExp(RESOURCE));
    }
    assert.equal(digest(alpha.local), before);
    const unknown = await alpha.hastctl("create", "nope");
    assert.equal(unknown.code, 65);
    assert.match(unknown.stderr, /nope/);
  }));

test("create says which disk it cannot open, with exit code 66", () =>
  withPair(TwoNodes.prepare(), async ({ alpha }) => {
    rmSync(alpha.local);
    const { code, stderr } = await alpha.hastctl("create", RESOURCE);
    assert.equal(code, 66);
    assert.match(stderr, new RegExp(alpha.local));
  }));

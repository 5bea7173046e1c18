// SPDX-License-Identifier: BSD-2-Clause
/** A disk that FreeBSD's hastd wrote, and a new node of ours: docs/compatibility.md, "From FreeBSD". */

import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { decodeNv } from "../../src/wire/nv.ts";
import { golden } from "../golden/vectors.ts";
import { makeDisk, type Node, RESOURCE, TwoNodes, withPair } from "./two-nodes.ts";

const MIB = 1024 * 1024;
/** As the captured disk's `hastctl dump` says. */
const DATASIZE = 2092544;
const FREEBSD_LOCALOFF = 4608;

/** The captured disk's resource is r0. */
function rename(pair: TwoNodes): void {
  const text = readFileSync(pair.configuration, "utf8");
  writeFileSync(pair.configuration, text.replace(`resource ${RESOURCE}`, "resource r0"));
}

async function ask(node: Node, ...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await node.hastctl(args[0]!, ...args.slice(1));
  assert.equal(code, 0, `${node.name}: hastctl ${args.join(" ")}\n${stdout}${stderr}`);
  return stdout;
}

function keysOf(block: Uint8Array): string[] {
  return decodeNv(block).entries.map(({ name }) => name);
}

test("a disk that FreeBSD wrote last is served as it is, fills a new node, and stays one that FreeBSD reads", () =>
  withPair(TwoNodes.prepare({ mediaSize: 4 * MIB }), async (pair) => {
    const { alpha, beta } = pair;
    rename(pair);
    const data = randomBytes(DATASIZE);
    const header = golden("metadata/life-14-alpha.bin");
    makeDisk(alpha.local, 2 * MIB);
    const disk = Buffer.alloc(2 * MIB);
    disk.set(header);
    disk.set(data, FREEBSD_LOCALOFF);
    writeFileSync(alpha.local, disk);
    truncateSync(beta.local, 4 * MIB);

    await ask(beta, "create", "--datasize", `${DATASIZE}`, "-e", "64k", "r0");
    await Promise.all(pair.nodes.map((node) => node.start()));
    // FreeBSD may have had the disk for years: the other node is asked first.
    const alone = await alpha.hastctl("role", "primary", "r0");
    assert.equal(alone.code, 2);
    assert.match(alone.stderr, /hastctl role secondary r0/);
    await ask(beta, "role", "secondary", "r0");
    await ask(alpha, "role", "primary", "r0");
    const client = await alpha.connect();
    assert.equal(client.size, DATASIZE);
    assert.ok((await client.read(0, DATASIZE)).equals(data));
    await client.disconnect();
    for (let wait = 0; ; wait++) {
      const listing = await ask(alpha, "list", "r0");
      if (/status: complete/.test(listing) && /dirty: 0 /.test(listing)) break;
      assert.ok(wait < 100, listing);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    await Promise.all(pair.nodes.map((node) => node.stop()));

    const localoff = Number(/localoff: (\d+)/.exec(await ask(beta, "dump", "r0"))![1]);
    const copy = readFileSync(beta.local).subarray(localoff, localoff + DATASIZE);
    assert.ok(copy.equals(data));
    // FreeBSD's nine keys, in its order, come first on both; it drops what follows.
    const nine = keysOf(header.subarray(0, 4096));
    assert.equal(nine.length, 9);
    for (const node of pair.nodes) {
      assert.deepEqual(keysOf(readFileSync(node.local).subarray(0, 4096)).slice(0, 9), nine);
    }
    // A FreeBSD secondary takes the map to be as long as its disk calls for: it must end before the data.
    assert.ok(4096 + 512 <= localoff);
  }));

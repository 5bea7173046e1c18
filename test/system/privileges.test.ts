// SPDX-License-Identifier: BSD-2-Clause
/** Workers that are nobody, and users who may only look. The tests run as root, or prove nothing. */

import { strict as assert } from "node:assert";
import { appendFileSync, chmodSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { runCommand } from "./command.ts";
import { type Node, RESOURCE, TwoNodes, withPair } from "./two-nodes.ts";

const HASTCTL = join(import.meta.dirname, "../../bin/hastctl");
/** Debian's. */
const NOBODY = 65534;
const NOGROUP = 65534;

async function startWith(...statements: readonly string[]): Promise<TwoNodes> {
  const pair = await TwoNodes.prepare();
  try {
    appendFileSync(pair.configuration, `${statements.join("\n")}\n`);
    for (const node of pair.nodes) await node.create();
    await Promise.all(pair.nodes.map((node) => node.start()));
    return pair;
  } catch (error) {
    throw await pair.failed(error);
  }
}

async function workerOf(node: Node): Promise<number> {
  return Number((await node.list()).get("workerpid"));
}

test("workers run as the user of hast.conf, hold what they need and no more, and can reconnect", async () => {
  await withPair(startWith("user nobody"), async (pair) => {
    const { alpha, beta } = pair;
    await beta.role("secondary");
    await alpha.role("primary");
    await pair.inSync(alpha);
    for (const node of pair.nodes) {
      const pid = await workerOf(node);
      const status = readFileSync(`/proc/${pid}/status`, "utf8");
      assert.match(status, new RegExp(`^Uid:(\t${NOBODY}){4}$`, "m"), node.name);
      assert.match(status, new RegExp(`^Gid:(\t${NOGROUP}){4}$`, "m"), node.name);
      assert.match(status, new RegExp(`^Groups:\t${NOGROUP} $`, "m"), node.name);
      assert.match(status, /^CapEff:\t0+$/m, node.name);
      for (const thread of readdirSync(`/proc/${pid}/task`)) {
        const own = readFileSync(`/proc/${pid}/task/${thread}/status`, "utf8");
        assert.match(own, new RegExp(`^Uid:(\t${NOBODY}){4}$`, "m"), `${node.name} ${thread}`);
      }
      const files = readdirSync(`/proc/${pid}/fd`)
        .map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
        .filter((link) => link.startsWith("/") && !/^\/dev\/(null|urandom)$/.test(link));
      assert.deepEqual([...new Set(files)].toSorted(), [node.local, node.log].toSorted());
    }
    // The other node's worker is replaced, and ours connects again without any privilege.
    await beta.killWorker();
    const client = await alpha.connect();
    await client.write(0, Buffer.alloc(65536, 3));
    await client.flush();
    await client.disconnect();
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);
    // A successor takes the export over.
    await alpha.role("secondary");
    await beta.role("primary");
    await beta.role("secondary");
    await alpha.role("primary");
    await (await alpha.connect()).disconnect();
  });
});

test("without such a user the workers stay root, and hastd says so once", async () => {
  await withPair(TwoNodes.startReplicating(), async ({ alpha }) => {
    const lines = alpha
      .logText()
      .match(/There is no user hast, so workers stay root\..*user root/g);
    assert.equal(lines?.length, 1);
    assert.match(readFileSync(`/proc/${await workerOf(alpha)}/status`, "utf8"), /^Uid:(\t0){4}$/m);
  });
});

test("a user that hast.conf names must be there", async () => {
  const pair = await TwoNodes.prepare();
  await withPair(Promise.resolve(pair), async ({ alpha }) => {
    appendFileSync(pair.configuration, "user nobody-of-that-name\n");
    alpha.spawnDaemon();
    assert.equal(await alpha.exited(), 78);
    assert.match(alpha.logText(), /There is no user nobody-of-that-name.*useradd/);
  });
});

test("members of controlgroup may look, and no more; others may not even connect", async () => {
  await withPair(startWith("controlgroup nogroup"), async (pair) => {
    const { alpha } = pair;
    chmodSync(pair.directory, 0o755);
    const as = (gid: number, ...args: readonly string[]) =>
      runCommand(HASTCTL, [args[0]!, "-n", "alpha", "-c", pair.configuration, ...args.slice(1)], {
        uid: NOBODY,
        gid,
      });
    const status = await as(NOGROUP, "status");
    assert.equal(status.code, 0, status.stderr);
    assert.match(status.stdout, new RegExp(RESOURCE));
    assert.equal((await as(NOGROUP, "list")).code, 0);
    const role = await as(NOGROUP, "role", "secondary", RESOURCE);
    assert.equal(role.code, 2);
    assert.match(
      role.stderr,
      /You may ask for status and list here, and no more\. Ask again as root/,
    );
    assert.equal((await alpha.list()).get("role"), "init");
    const stranger = await as(NOGROUP - 1, "status");
    assert.equal(stranger.code, 71);
    assert.match(stranger.stderr, /permission denied/);
  });
});

test("the controlowner may do everything", async () => {
  await withPair(startWith("controlowner nobody"), async (pair) => {
    chmodSync(pair.directory, 0o755);
    const { code, stderr } = await runCommand(
      HASTCTL,
      ["role", "-n", "alpha", "-c", pair.configuration, "secondary", RESOURCE],
      { uid: NOBODY, gid: NOGROUP },
    );
    assert.equal(code, 0, stderr);
    assert.equal((await pair.alpha.list()).get("role"), "secondary");
  });
});

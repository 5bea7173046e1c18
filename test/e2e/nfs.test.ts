// SPDX-License-Identifier: BSD-2-Clause
/**
 * NFS by ganesha, as docs/failover/nfs.md says, and a client that copies one numbered file after the other to it
 * with libnfs: through a power cut of the primary, and a move of the service in good order. A copy that takes
 * more than 5 s is made again, since libnfs itself would wait for a dead server for ever; under another name,
 * since nfs-cp overwrites nothing.
 */
import { strict as expect } from "node:assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Host } from "./hosts.ts";
import { Pair, SERVICE } from "./pair.ts";
import { recipe } from "./recipe.ts";

const SHARE = `nfs://${SERVICE}/mnt/data`;
const COPY_FILES = `n=1
while :; do
  echo $n >/run/file
  if timeout 5 nfs-cp /run/file ${SHARE}/file-$n-$(date +%s%N) >/dev/null 2>&1; then
    echo "$n $(date +%s%3N)"
    n=$((n + 1))
  else
    sleep 0.2
  fi
done`;

/** When each file was there, in ms, as the client was told. */
function copied(pair: Pair): Map<number, number> {
  const text = readFileSync(join(pair.client.directory, "files.log"), "utf8");
  return new Map([...text.matchAll(/^(\d+) (\d+)$/gm)].map(([, n, ms]) => [Number(n), Number(ms)]));
}

async function moreCopied(pair: Pair, count: number): Promise<void> {
  const wanted = copied(pair).size + count;
  const enough = () => copied(pair).size >= wanted;
  await pair.client.until(`${count} more files are copied`, enough, { withinMs: 120_000 });
}

async function nothingLost(pair: Pair, host: Host): Promise<number> {
  const numbers = [...copied(pair).keys()];
  const text = await host.expect("sh", "-c", "cat /mnt/data/file-*");
  const there = new Set(text.split("\n").map(Number));
  const lost = numbers.filter((each) => !there.has(each));
  expect.deepEqual(lost, [], `copied, and not there on ${host.name}`);
  return numbers.length;
}

test("NFS: every file that was copied is there after a failover, and the client just waits", async () => {
  const make = recipe("nfs.md", "The file system");
  const pair = await Pair.start("keepalived", {
    resources: ["disk1"],
    sizeMib: 64,
    use: 'mounts="disk1:/mnt/data"',
    make: (host) => host.expect("sh", "-euc", make),
    service: "nfs",
  });
  try {
    pair.client.spawn("files", "sh", "-c", COPY_FILES);
    await moreCopied(pair, 50);
    const { primary, secondary } = await pair.settled();
    const before = copied(pair).size;
    await primary.powerOff();
    await moreCopied(pair, 50);
    await nothingLost(pair, secondary);
    const times = [...copied(pair).values()].slice(before - 1);
    const gap = Math.max(...times.slice(1).map((time, index) => time - times[index]!)) / 1000;
    console.log(`power cut of the primary: ${gap.toFixed(1)} s to the next file`);

    await primary.boot();
    pair.startHastd(primary);
    pair.startTool(primary);
    await pair.settled();
    // As `systemctl stop keepalived` does.
    await secondary.expect("sh", "-c", "kill $(cat /run/keepalived.pid)");
    await primary.until("it has the address", () => pair.hasAddress(primary));
    await moreCopied(pair, 50);
    const count = await nothingLost(pair, primary);
    const first = (await primary.expect("sh", "-c", "cd /mnt/data && ls file-1-*")).split("\n")[0]!;
    expect.equal(await pair.client.expect("nfs-cat", `${SHARE}/${first}?version=3`), "1\n");
    console.log(`moved in good order; ${count} files copied, none lost`);
  } catch (error) {
    console.log(pair.lan.logs(), error);
    throw error;
  } finally {
    await pair.stop();
  }
});

// SPDX-License-Identifier: BSD-2-Clause
/** Full disks and too few file descriptors: told, survived, and over when they are over. Needs root. */

import { strict as assert } from "node:assert";
import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createConnection, type Socket } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { expectCommand } from "./command.ts";
import { makeDisk, type Node, TwoNodes, withPair } from "./two-nodes.ts";
import { until } from "./until.ts";

const MIB = 1024 * 1024;

/** A file system of few bytes, with what this node writes on it: disk, pidfile and log. */
class SmallPlace {
  readonly #directory: string;
  readonly #filler: string;

  private constructor(directory: string) {
    this.#directory = directory;
    this.#filler = join(directory, "filler");
  }

  static async under(pair: TwoNodes, node: Node): Promise<SmallPlace> {
    const directory = join(pair.directory, "small");
    mkdirSync(directory);
    await expectCommand("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", directory]);
    for (const path of [node.local, node.pidfile, node.log]) {
      rmSync(path, { force: true });
      symlinkSync(join(directory, path.split("/").at(-1)!), path);
    }
    makeDisk(node.local, 16 * MIB);
    // A page belongs to the log for good: it is as good as full.
    writeFileSync(node.log, `${"x".repeat(4060)}\n`);
    return new SmallPlace(directory);
  }

  /** To the last byte. */
  fill(): void {
    const all = Buffer.alloc(4 * MIB);
    assert.throws(() => writeFileSync(this.#filler, all), { code: "ENOSPC" });
  }

  empty(): void {
    rmSync(this.#filler, { force: true });
  }

  async grow(): Promise<void> {
    this.empty();
    await expectCommand("mount", ["-o", "remount,size=64m", this.#directory]);
  }

  async remove(): Promise<void> {
    await expectCommand("umount", ["--lazy", this.#directory]);
  }
}

for (const role of ["primary", "secondary"] as const) {
  test(`a full disk under the ${role}'s component, log and pidfile: the pair goes on, and heals when there is room`, async () => {
    const preparing = TwoNodes.prepare({ mediaSize: 16 * MIB, create: ["-e", "64k"] });
    await withPair(preparing, async (pair) => {
      const { alpha, beta } = pair;
      const short = role === "primary" ? alpha : beta;
      const place = await SmallPlace.under(pair, short);
      try {
        for (const node of pair.nodes) await node.create("-e", "64k");
        const starting = pair.nodes.map((node) => node.start("-P", node.pidfile));
        place.fill(); // before either can have written anything
        await Promise.all(starting);
        await beta.role("secondary");
        await alpha.role("primary");
        await pair.inSync(alpha);
        const client = await alpha.connect();
        const data = Buffer.alloc(MIB, 7);
        for (let at = 0; at < 8; at++) await client.write(at * MIB, data);
        await client.flush();
        for (let at = 0; at < 8; at++) assert.ok((await client.read(at * MIB, MIB)).equals(data));

        // Another node's trouble is its own business; whose it is says so, and what to do.
        const { stdout } = await short.hastctl("status");
        if (role === "primary") assert.match(stdout, /No space left on device/i);
        else assert.equal((await short.list()).get("copy"), "inconsistent");
        place.empty();
        await place.grow();
        await pair.inSync(alpha);
        assert.deepEqual(await pair.differences(), []);
        await client.disconnect();
        assert.equal(readFileSync(short.pidfile, "utf8"), "", "the daemon did without");
        for (const node of pair.nodes) assert.equal(await node.stop(), 0);
        assert.match(short.logText(), /lines lost before this one/);
      } finally {
        await place.remove();
      }
    });
  });
}

/** Connections that say nothing. */
async function crowd(path: string, count: number): Promise<{ open: number; leave: () => void }> {
  const sockets: Socket[] = [];
  for (let index = 0; index < count; index++) {
    const socket = createConnection({ path });
    socket.on("error", () => undefined);
    socket.resume();
    sockets.push(socket);
  }
  const settled = (socket: Socket) => !socket.connecting;
  await until("the crowd has arrived", () => sockets.every(settled));
  // Those that are not wanted are told at once.
  await new Promise((resolve) => setTimeout(resolve, 500));
  const open = sockets.filter((socket) => !socket.destroyed && !socket.readableEnded).length;
  return {
    open,
    leave: () => {
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** A process may open `spare` more. */
async function limitDescriptors(pid: number, spare: number): Promise<void> {
  const limit = readdirSync(`/proc/${pid}/fd`).length + spare;
  // The soft limit alone: the hard one could not be raised again.
  await expectCommand("prlimit", ["--pid", `${pid}`, `--nofile=${limit}:`]);
}

test("too few descriptors for all clients: those inside are served, the others closed, the log says why", () =>
  withPair(TwoNodes.startReplicating({ mediaSize: 16 * MIB }), async (pair) => {
    const { alpha, beta } = pair;
    const client = await alpha.connect();
    await limitDescriptors(await alpha.workerPid(), 16);
    const clients = await crowd(alpha.socket, 12);
    assert.ok(clients.open >= 1 && clients.open < 12, `${clients.open} NBD clients`);
    await client.write(0, Buffer.alloc(65536, 5));
    await client.flush();
    assert.match(alpha.logText(), /an NBD client could not be accepted: .* Raise the limit/);

    await limitDescriptors(alpha.daemonPid, 30);
    const askers = await crowd(alpha.control, 40);
    assert.ok(askers.open >= 1 && askers.open < 40, `${askers.open} control clients`);
    assert.match(alpha.logText(), /Cannot accept a control connection: .* Raise the limit/);
    // The other resource's worker, or this one's next: there is room to start it.
    const before = await alphaWorker(alpha);
    process.kill(before, "SIGKILL");
    clients.leave();
    askers.leave();
    await until("the worker is back", async () => {
      const pid = await alpha.workerPid();
      return pid !== 0 && pid !== before;
    });
    await pair.inSync(alpha);
    const again = await alpha.connect();
    assert.ok((await again.read(0, 65536)).equals(Buffer.alloc(65536, 5)));
    await again.disconnect();
    client.destroy();
    assert.equal((await beta.list()).get("status"), "complete");
  }));

/** Asked of the kernel, since hastctl gets no answer at the moment. */
async function alphaWorker(alpha: Node): Promise<number> {
  const titles = alpha.titles();
  const index = titles.findIndex((title) => title.includes("(primary)"));
  return alpha.processes()[index]!;
}

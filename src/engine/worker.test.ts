// SPDX-License-Identifier: BSD-2-Clause
/** What a worker tells hastd of its start, and how it ends: hastd judges by that what its copy is worth. */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import { NBD_FLUSH, NbdClient } from "../../test/pretend/nbd-client.ts";
import { pretendConnection } from "../../test/pretend/net.ts";
import { createComponent, dirtyArena, World } from "../../test/pretend/world.ts";
import type { Metadata } from "../metadata/block.ts";
import { DiskError } from "../platform/disk.ts";
import type { Log } from "../platform/log.ts";
import { ResourceWorker, type Start } from "./worker.ts";
import type { FromWorker, Left, PeerHello } from "./worker-messages.ts";

const ARENA = dirtyArena();
const RESUID = 77n;
const BUSY = "/dev/sdb is in use. See who: fuser -v /dev/sdb";

const HELLO: PeerHello = {
  version: 2,
  extensions: 0n,
  virgin: false,
  resuid: RESUID,
  localcnt: 0n,
  remotecnt: 1n,
  remarks: null,
  life: null,
  left: null,
  whole: false,
  invalidate: false,
};

/** A worker and what hastd hears of it. */
class Process {
  readonly world: World = new World({ arena: ARENA });
  readonly told: FromWorker[] = [];
  readonly exits: number[] = [];
  busy = false;
  readonly worker = new ResourceWorker({
    environment: this.world.environment,
    openDisk: () => {
      if (this.busy) throw new DiskError("EBUSY", BUSY);
      return this.world.disk;
    },
    openLog: () => silentLog(),
    dropPrivileges: () => undefined,
    tell: (message) => this.told.push(message),
    exit: (code) => this.exits.push(code),
  });

  constructor(metadata: Partial<Metadata> = {}) {
    const known = { resuid: RESUID, localcnt: 1n, state: "uptodate", sequence: 1n } as const;
    createComponent(this.world.disk, { ...known, synced: "written", ...metadata });
  }

  async start(
    task: Start["role"] | "errand" | "handed over",
    left: Left | null = null,
  ): Promise<void> {
    const role = task === "primary" ? "primary" : "secondary";
    this.worker.message(
      {
        kind: "start",
        role,
        settings: this.world.settings,
        debug: 0,
        log: "stdio",
        hello: task === "primary" || task === "errand" ? null : { ...HELLO, left },
        trust: "resumed",
        orders: { connected: true, resyncPaused: false, resyncRate: 0 },
      },
      null,
    );
    if (task === "errand") this.worker.message({ kind: "outdate", dryRun: true }, null);
    if (task === "secondary") {
      for (const channel of ["a", "b"] as const) {
        const { near } = pretendConnection(this.world.events, `tcp://primary (${channel})`);
        this.worker.message({ kind: "socket", channel, peer: "tcp://primary" }, near);
      }
    }
    await this.world.events.settle();
  }

  get kinds(): string[] {
    return this.told.map(({ kind }) => kind);
  }
}

function silentLog(): Log {
  const log: Log = {
    debugLevel: 0,
    withPrefix: () => log,
    error: () => undefined,
    warning: () => undefined,
    notice: () => undefined,
    info: () => undefined,
    debug: () => undefined,
  };
  return log;
}

test("S-2: a busy disk is worth another attempt to a primary or an errand, and no lost link to a secondary", async () => {
  for (const [role, code] of [
    ["primary", 75],
    ["errand", 75],
    ["secondary", 66],
  ] as const) {
    const process = new Process();
    process.busy = true;
    await process.start(role);
    await process.world.clock.pass(4_000);
    expect.deepEqual(process.exits, [], "whoever has it may be about to end");
    await process.world.clock.pass(2_000);
    expect.deepEqual(process.exits, [code]);
    expect.deepEqual(process.told, [{ kind: "failed", exitCode: code, message: BUSY }]);
  }
});

test("a primary whose disk fails tells hastd what the other node lacks", async () => {
  const process = new Process({ aloneSince: 5, prevrole: "primary" });
  await process.start("primary");
  const { clock, disk, events, net, settings } = process.world;
  await clock.pass(3_000);
  const nbd = new NbdClient(events, net.dial(settings.export));
  expect.ok(await nbd.begin());
  disk.fail = ({ op }) => (op === "flush" ? 5 : 0);
  nbd.send({ type: NBD_FLUSH });
  await events.settle();
  expect.deepEqual(process.exits, [74]);
  expect.deepEqual(process.told.at(-1), {
    kind: "failed",
    exitCode: 74,
    message: "local component failed (Input/output error)",
    peerLacks: { since: 5 },
  });
});

test("S-9: a secondary that one of its two sockets does not reach leaves what the last one left", async () => {
  const left = { cache: 8n, held: { resuid: RESUID, localcnt: 1n, remotecnt: 0n } };
  for (const given of [left, null]) {
    const process = new Process();
    await process.start("handed over", given);
    process.worker.message({ kind: "socket", channel: "a", peer: "tcp://primary" }, null);
    expect.deepEqual(process.exits, [75]);
    expect.deepEqual(process.kinds, given === null ? ["failed"] : ["left", "failed"]);
    if (given !== null) expect.deepEqual(process.told[0], { kind: "left", left: given });
  }
});

test("a secondary is ready when it has accepted its primary", async () => {
  const process = new Process();
  await process.start("secondary");
  expect.deepEqual(process.exits, []);
  expect.equal(process.kinds.at(-1), "ready");
});

test("S-2: a secondary that refuses its primary was never ready", async () => {
  const process = new Process({ resuid: 78n });
  await process.start("secondary");
  expect.deepEqual(process.exits, [78]);
  expect.ok(process.kinds.includes("diverged"));
  expect.ok(!process.kinds.includes("ready"), process.kinds.join());
});

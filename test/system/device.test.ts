// SPDX-License-Identifier: BSD-2-Clause
/**
 * The primary's disk as a block device of this machine: FUSE and a loop device, by the real tools, as root.
 *
 *   ext4 ── /dev/loopN ── nbdfuse ── nbdkit ── worker
 */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { expectCommand, runCommand } from "./command.ts";
import { loopsOn, mountsBelow } from "./device-remains.ts";
import { markedProcesses, signal, titleOf } from "./marked-processes.ts";
import { makeDisk, type Node, RESOURCE, TwoNodes, type TwoNodesOptions } from "./two-nodes.ts";
import { pause, until } from "./until.ts";

/** Whatever becomes of a loop device, its file's name tells whose it was. */
const NAME = `test${process.pid}`;
const FUSE = ["device fuse", `name ${NAME}`];
const MIB = 1024 * 1024;

const deviceOf = (node: Node): string => join(node.devices, NAME);
const mounts = (): string => readFileSync("/proc/mounts", "utf8");

/** A pair of which nothing is left in the kernel afterwards, whatever happens. */
async function withDevices(
  make: Promise<TwoNodes>,
  body: (pair: TwoNodes) => Promise<void>,
): Promise<void> {
  const pair = await make;
  try {
    await body(pair);
    for (const node of pair.nodes) await node.hastctl("role", "init", RESOURCE);
    assert.deepEqual(remains(pair), []);
  } catch (error) {
    const logs = pair.logs();
    await clear(pair);
    if (error instanceof Error) error.stack += `\n${logs}`;
    throw error;
  } finally {
    await clear(pair);
    await pair.stop();
  }
}

/** Mounts, loop devices and processes of the tools. */
function remains({ directory }: TwoNodes): string[] {
  return [
    ...mountsBelow(directory),
    ...loopsOn(`/${NAME}-`),
    ...markedProcesses(directory)
      .map(titleOf)
      .filter((title) => /nbdkit|nbdfuse/.test(title)),
  ];
}

/** By hand what hastd should have done. */
async function clear({ directory }: TwoNodes): Promise<void> {
  for (const pid of markedProcesses(directory)) {
    if (/^(?:\S*\/)?nbd/.test(titleOf(pid))) signal(pid, "SIGKILL");
  }
  const loops = loopsOn(`/${NAME}-`);
  for (const point of mountsBelow(directory).toReversed()) {
    await runCommand("umount", ["--lazy", point]);
  }
  for (const loop of loops) await runCommand("losetup", ["--detach", `/dev/${loop}`]);
}

/** ext4 on the node's device, mounted. @returns where */
async function mounted(pair: TwoNodes, node: Node, how: "make" | "find"): Promise<string> {
  const device = deviceOf(node);
  if (how === "make") {
    const extended = "lazy_itable_init=0,lazy_journal_init=0";
    await expectCommand("mkfs.ext4", ["-q", "-F", "-E", extended, device]);
  }
  const point = join(pair.directory, `${node.name}.mnt`);
  mkdirSync(point, { recursive: true });
  await expectCommand("mount", ["-t", "ext4", device, point]);
  return point;
}

/** Appends lines, each with fsync, until it is stopped or fails. */
class Load {
  readonly #process: ChildProcess;
  readonly ended: Promise<number | string | null>;
  lines = 0;
  said = "";

  constructor(file: string) {
    const program =
      'const fs=require("fs");const fd=fs.openSync(process.argv[1],"a");let n=0;' +
      'for(;;){fs.writeSync(fd,n+++"\\n");fs.fsyncSync(fd);fs.writeSync(1,".")}';
    this.#process = spawn(process.execPath, ["-e", program, file], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#process.stdout!.on("data", (bytes: Buffer) => {
      this.lines += bytes.length;
    });
    this.#process.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.said += text;
    });
    this.ended = new Promise((resolve) => {
      this.#process.once("close", (code, name) => resolve(name ?? code));
    });
  }

  get pid(): number {
    return this.#process.pid!;
  }

  get running(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  /** Waits for so many more lines. */
  async advance(count: number): Promise<void> {
    const goal = this.lines + count;
    await until(`${count} more lines are written`, () => {
      if (!this.running) throw new Error(`the load has ended: ${this.said}`);
      return this.lines >= goal;
    });
  }

  async stop(): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.ended;
  }
}

function hashOf(node: Node): string {
  return createHash("sha256").update(readFileSync(node.local)).digest("hex");
}

const pairOf = (options: TwoNodesOptions = {}): Promise<TwoNodes> =>
  TwoNodes.start({ statements: FUSE, ...options });

test("role primary makes the device; flush, discard and zeroes reach the disk; role init takes it away", async () => {
  await withDevices(pairOf(), async (pair) => {
    const { alpha } = pair;
    await alpha.role("primary");
    const device = deviceOf(alpha);
    const loop = readlinkSync(device);
    assert.equal((await alpha.list()).get("device"), `${device} (fuse, ${loop})`);
    assert.equal(readFileSync(`/sys/block/${loop.slice(5)}/loop/dio`, "utf8").trim(), "1");
    const count = async (what: string): Promise<number> =>
      Number((await alpha.list()).get(`statistics/${what}`));

    const data = join(pair.directory, "data");
    writeFileSync(data, Buffer.alloc(8 * MIB, "hast"));
    const before = await count("flushes");
    await expectCommand("dd", [`if=${data}`, `of=${device}`, "bs=1M", "conv=fsync,nocreat"]);
    assert((await count("flushes")) > before, "fsync is a flush");
    await expectCommand("cmp", ["-n", `${8 * MIB}`, data, device]);
    const used = (): number => statSync(alpha.local).blocks * 512;
    const full = used();
    const deletes = await count("deletes");
    await expectCommand("blkdiscard", ["-f", "-l", `${4 * MIB}`, device]);
    assert((await count("deletes")) > deletes, "a discard is a delete");
    assert(full - used() >= 3 * MIB, `${full} bytes became ${used()}`);
    await expectCommand("blkdiscard", ["-z", "-f", "-o", `${4 * MIB}`, "-l", `${MIB}`, device]);
    await expectCommand("cmp", ["-n", `${5 * MIB}`, "/dev/zero", device]);
    await expectCommand("cmp", ["-i", `${5 * MIB}`, "-n", `${3 * MIB}`, data, device]);
    const size = Number(await expectCommand("blockdev", ["--getsize64", device]));
    assert.equal(size, Number((await alpha.dump()).get("datasize")?.split(" ")[0]));

    await alpha.role("init");
    assert.deepEqual(remains(pair), []);
    assert.deepEqual(readdirSync(alpha.devices), []);
    assert.equal((await alpha.list()).get("device"), undefined);
  });
});

test("a disk with sectors of 4096 bytes becomes such a device", async () => {
  const pair = await TwoNodes.prepare({ statements: FUSE });
  const image = join(pair.directory, "image");
  makeDisk(image, 64 * MIB);
  const local = (
    await expectCommand("losetup", ["--find", "--show", "--sector-size", "4096", image])
  ).trim();
  const text = readFileSync(pair.configuration, "utf8");
  writeFileSync(pair.configuration, text.replace(pair.alpha.local, local));
  await withDevices(Promise.resolve(pair), async ({ alpha }) => {
    await alpha.create();
    await alpha.start();
    await alpha.role("primary");
    assert.equal((await expectCommand("blockdev", ["--getss", deviceOf(alpha)])).trim(), "4096");
    await mounted(pair, alpha, "make");
    await expectCommand("umount", [join(pair.directory, "alpha.mnt")]);
    await alpha.role("init");
    await alpha.stop();
    await expectCommand("losetup", ["--detach", local]);
  });
});

test("a worker that is killed under load is not noticed by the file system", async () => {
  await withDevices(pairOf(), async (pair) => {
    const { alpha } = pair;
    await alpha.role("primary");
    const point = await mounted(pair, alpha, "make");
    const load = new Load(join(point, "log"));
    for (let round = 0; round < 2; round++) {
      await load.advance(5);
      await alpha.killWorker();
      await load.advance(5);
    }
    await load.stop();
    const lines = readFileSync(join(point, "log"), "utf8").trimEnd().split("\n");
    assert(lines.length >= load.lines);
    assert(lines.every((line, index) => line === `${index}`));
    assert.doesNotMatch(mounts(), new RegExp(`${point} ext4 ro`));
    await expectCommand("umount", [point]);
    await expectCommand("e2fsck", ["-f", "-n", deviceOf(alpha)]);
  });
});

test("a device in use stays the primary's: mount and process are named; unmounted, it goes", async () => {
  await withDevices(pairOf(), async (pair) => {
    const { alpha } = pair;
    await alpha.role("primary");
    const point = await mounted(pair, alpha, "make");
    const load = new Load(join(point, "log"));
    await load.advance(1);
    for (const role of ["secondary", "init"]) {
      const refused = await alpha.hastctl("role", role, RESOURCE);
      assert.equal(refused.code, 2);
      for (const part of [
        `mounted on ${point}`,
        `process ${load.pid} (`,
        `hastctl role ${role} ${RESOURCE}`,
        `hastctl role --force ${role} ${RESOURCE}`,
      ]) {
        assert(refused.stderr.includes(part), refused.stderr);
      }
    }
    assert.equal((await alpha.list()).get("role"), "primary");
    // A reload that would take it away is refused as well, as a whole.
    pair.configure("name other");
    const reload = await alpha.hastctl("reload");
    assert.equal(reload.code, 2);
    assert.match(
      reload.stderr,
      new RegExp(`restarted for the new file, but .* mounted on ${point}`),
    );
    pair.configure();
    await load.advance(10);
    await load.stop();
    await expectCommand("umount", [point]);
    await alpha.role("secondary");
    assert.deepEqual(remains(pair), []);
  });
});

test("by force the device goes under load: its users get errors, and nothing is written any more", async () => {
  await withDevices(pairOf(), async (pair) => {
    const { alpha } = pair;
    await alpha.role("primary");
    const point = await mounted(pair, alpha, "make");
    const load = new Load(join(point, "log"));
    await load.advance(10);
    const startedAt = performance.now();
    const forced = await alpha.hastctl("role", "--force", "init", RESOURCE);
    assert.equal(forced.code, 0, forced.stderr);
    assert(performance.now() - startedAt < 15_000);
    const before = hashOf(alpha);
    assert.notEqual(await load.ended, 0);
    assert.match(load.said, /EIO|EROFS|ENXIO|ESHUTDOWN/);
    await until("nothing is left", () => remains(pair).length === 0, { withinMs: 5_000 });
    assert.match(alpha.logText(), /detached by force, although in use: mounted on/);
    await pause(1_000);
    assert.equal(hashOf(alpha), before);
    // What was acknowledged is there.
    const acknowledged = load.lines;
    await alpha.role("primary");
    await mounted(pair, alpha, "find");
    const lines = readFileSync(join(point, "log"), "utf8").trimEnd().split("\n");
    assert(lines.length >= acknowledged, `${lines.length} of ${acknowledged}`);
    await expectCommand("umount", [point]);
  });
});

test("by force a device goes whose worker hangs, and nobody waits in the kernel", async () => {
  await withDevices(pairOf(), async (pair) => {
    const { alpha } = pair;
    await alpha.role("primary");
    const point = await mounted(pair, alpha, "make");
    const load = new Load(join(point, "log"));
    await load.advance(5);
    const worker = await alpha.workerPid();
    signal(worker, "SIGSTOP");
    try {
      await pause(500);
      const forced = alpha.hastctl("role", "--force", "init", RESOURCE);
      const startedAt = performance.now();
      assert.notEqual(await load.ended, 0);
      await until("nothing is left", () => remains(pair).length === 0);
      assert(performance.now() - startedAt < 10_000);
      signal(worker, "SIGCONT");
      assert.equal((await forced).code, 0);
    } finally {
      signal(worker, "SIGCONT");
    }
  });
});

test("hastd stops in time although its device is busy, and leaves nothing behind", async () => {
  await withDevices(pairOf(), async (pair) => {
    const { alpha } = pair;
    await alpha.role("primary");
    const point = await mounted(pair, alpha, "make");
    const load = new Load(join(point, "log"));
    await load.advance(5);
    const startedAt = performance.now();
    assert.equal(await alpha.stop(), 0);
    assert(performance.now() - startedAt < 15_000);
    assert.notEqual(await load.ended, 0);
    assert.deepEqual(remains(pair), []);
    assert.deepEqual(readdirSync(alpha.devices), []);
  });
});

test("what a killed hastd and its worker leave is cleared by the next one", async () => {
  await withDevices(pairOf(), async (pair) => {
    const { alpha } = pair;
    await alpha.role("primary");
    const point = await mounted(pair, alpha, "make");
    const load = new Load(join(point, "log"));
    await load.advance(5);
    const worker = await alpha.workerPid();
    await alpha.killDaemon();
    signal(worker, "SIGKILL");
    // Who writes does not wait for ever, with or without a next hastd.
    assert.notEqual(await load.ended, 0);
    assert(existsSync(deviceOf(alpha)) || mounts().includes(point));
    const acknowledged = load.lines;

    await alpha.start();
    await until("nothing is left", () => remains(pair).length === 0, { withinMs: 10_000 });
    await until("its place is gone", () => readdirSync(alpha.devices).length === 0);
    await alpha.role("primary");
    await mounted(pair, alpha, "find");
    const lines = readFileSync(join(point, "log"), "utf8").trimEnd().split("\n");
    assert(lines.length >= acknowledged, `${lines.length} of ${acknowledged}`);
    await expectCommand("umount", [point]);
  });
});

test("nobody waits who uses a device for the first time after its hastd was killed", async () => {
  await withDevices(pairOf(), async (pair) => {
    const { alpha } = pair;
    await alpha.role("primary");
    const worker = await alpha.workerPid();
    await alpha.killDaemon();
    signal(worker, "SIGKILL");
    await until("nbdkit has gone", () => !remains(pair).some((each) => each.includes("nbdkit")));
    const read = [`if=${deviceOf(alpha)}`, "of=/dev/null", "bs=4096", "count=1", "iflag=direct"];
    assert.match((await runCommand("dd", read)).stderr, /Input\/output error/);
    await alpha.start();
    await until("nothing is left", () => remains(pair).length === 0);
  });
});

test("a device whose tools die comes back by itself", async () => {
  await withDevices(pairOf(), async (pair) => {
    const { alpha } = pair;
    await alpha.role("primary");
    const device = deviceOf(alpha);
    await expectCommand("dd", ["if=/etc/passwd", `of=${device}`, "conv=fsync,notrunc,nocreat"]);
    const tool = alpha.processes().find((pid) => titleOf(pid).includes("nbdkit"));
    assert(tool !== undefined);
    signal(tool, "SIGKILL");
    await until("the loss is known", async () => (await alpha.status()).includes("is lost"));
    await until("it is there again", async () =>
      (await alpha.list()).get("device")?.includes("/dev/"),
    );
    await until("the link leads there", () => existsSync(device));
    await expectCommand("cmp", ["-n", `${statSync("/etc/passwd").size}`, "/etc/passwd", device]);
  });
});

test("S-1: who flushes a device hears that what was acknowledged is gone", async () => {
  await withDevices(
    TwoNodes.startReplicating({ statements: FUSE, replication: "fullsync" }),
    async (pair) => {
      const { alpha, beta } = pair;
      for (const order of ["pause-resync", "invalidate"]) {
        assert.equal((await alpha.hastctl(order, RESOURCE)).code, 0);
      }
      const block = [`of=${deviceOf(alpha)}`, "bs=4096", "count=1", "conv=notrunc,nocreat"];
      await expectCommand("dd", ["if=/dev/urandom", ...block, "oflag=direct"]);
      // The only copy was in beta's cache; which one that was, only its hastd knew.
      await beta.crash();
      await beta.start();
      await beta.role("secondary");
      await until("they are connected", async () => {
        return (await alpha.list()).get("status") === "complete";
      });
      const fsync = await runCommand("dd", [
        "if=/dev/zero",
        "seek=9",
        ...block,
        "conv=notrunc,nocreat,fsync",
      ]);
      assert.notEqual(fsync.code, 0);
      assert.match(fsync.stderr, /Input\/output error/);
      assert.match(await alpha.status(), /were lost .* ago, .* and mount it again/);
      await until("it is there again", async () => {
        return (await alpha.list()).get("device")?.includes("/dev/");
      });
      await until("the link leads there", () => existsSync(deviceOf(alpha)));
      await expectCommand("dd", ["if=/dev/zero", ...block, "conv=notrunc,nocreat,fsync"]);
      assert.equal((await alpha.hastctl("resume-resync", RESOURCE)).code, 0);
      await pair.inSync(alpha);
    },
  );
});

test("the other node's device shows the same file system, and nobody reads old blocks after the return", async () => {
  await withDevices(TwoNodes.startReplicating({ statements: FUSE }), async (pair) => {
    const { alpha, beta } = pair;
    const file = (point: string): string => join(point, "file");
    const first = await mounted(pair, alpha, "make");
    writeFileSync(file(first), "from alpha");
    await expectCommand("umount", [first]);

    for (const [from, to, text] of [
      [alpha, beta, "from alpha"],
      [beta, alpha, "from beta"],
    ] as const) {
      await from.role("secondary");
      await to.role("primary");
      const point = await mounted(pair, to, "find");
      assert.equal(readFileSync(file(point), "utf8"), text);
      writeFileSync(file(point), `from ${to.name}`);
      await expectCommand("umount", [point]);
      await pair.inSync(to);
    }
    await alpha.role("secondary");
    assert.deepEqual(await pair.differences(), []);
  });
});

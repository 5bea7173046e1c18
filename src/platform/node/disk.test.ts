// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import type { Disk, DiskHandler } from "../disk.ts";
import { DiskError } from "../disk.ts";
import { createArena } from "./arena.ts";
import { type DiskEngine, openDisk, withoutUring } from "./disk.ts";

const MIB = 1 << 20;
const EIO = 5;
const ENOSPC = 28;

let dir = "";
before(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), "hast-disk-"));
});
after(() => fs.rmSync(dir, { recursive: true, force: true }));

/** Collects what the disk reports, and lets a test wait for it. */
class Recorder implements DiskHandler {
  readonly done: { token: number; errno: number }[] = [];
  idleCount = 0;
  onDone: (token: number, errno: number) => void = () => {};
  readonly #waiting = new Map<number, (errno: number) => void>();

  diskDone(token: number, errno: number): void {
    this.done.push({ token, errno });
    this.onDone(token, errno);
    this.#waiting.get(token)?.(errno);
    this.#waiting.delete(token);
  }
  diskIdle(): void {
    this.idleCount += 1;
  }
  /** Call before submit(). */
  wait(token: number): Promise<number> {
    return new Promise((resolve) => this.#waiting.set(token, resolve));
  }
}

interface Opened {
  readonly disk: Disk;
  readonly arena: Buffer;
  readonly recorder: Recorder;
  run(start: (token: number) => void): Promise<number>;
  close(): Promise<void>;
}

function open(file: string, engine?: DiskEngine, arenaSize: number = 4 * MIB): Opened {
  const arena = createArena(arenaSize);
  const warn = (text: string) => assert.fail(text);
  const disk = openDisk(file, { arena, lock: true, warn, ...(engine ? { engine } : {}) });
  const recorder = new Recorder();
  disk.attach(recorder);
  return {
    disk,
    arena,
    recorder,
    run(start) {
      const result = recorder.wait(0);
      start(0);
      disk.submit();
      return result;
    },
    close: () => new Promise((resolve) => disk.close(resolve)),
  };
}

function makeFile(name: string, size: number): string {
  const file = path.join(dir, name);
  fs.writeFileSync(file, "");
  fs.truncateSync(file, size);
  return file;
}

/** Attaches `file` to a loop device for the length of `use`; null where that is not permitted. */
async function withLoop<T>(
  file: string,
  sectorSize: number,
  use: (device: string) => Promise<T>,
): Promise<T | null> {
  let device: string;
  try {
    const args = ["-f", "--show", "--direct-io=on", "-b", String(sectorSize), file];
    device = execFileSync("losetup", args, { stdio: ["ignore", "pipe", "ignore"] })
      .toString()
      .trim();
  } catch {
    return null;
  }
  try {
    return await use(device);
  } finally {
    execFileSync("losetup", ["-d", device]);
  }
}

async function withTmpfs<T>(size: number, use: (mount: string) => Promise<T>): Promise<T | null> {
  const mount = fs.mkdtempSync(path.join(dir, "tmpfs-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tmpfs", mount], {
      stdio: "ignore",
    });
  } catch {
    return null;
  }
  try {
    return await use(mount);
  } finally {
    execFileSync("umount", [mount]);
  }
}

/** A small generator, so that a failure can be repeated. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/**
 * Random reads, writes, zeroes and flushes, many in flight, none overlapping another in flight,
 * against a model of the disk. Memory lies at odd offsets.
 */
async function exercise(opened: Opened, seed: number): Promise<void> {
  const { disk, arena, recorder } = opened;
  const random = randomFrom(seed);
  const blockSize = Math.max(4096, disk.sectorSize);
  const blockCount = Math.min(disk.mediaSize, 4 * MIB) / blockSize;
  const model = Buffer.alloc(blockCount * blockSize);
  const busy = new Uint8Array(blockCount);
  const lanes = 64; // tokens, each with its own piece of the arena
  const laneSize = arena.length / lanes;
  const idle: number[] = Array.from({ length: lanes }, (_, lane) => lane);
  const check: (() => void)[] = [];
  let left = 1500;

  const finished = new Promise<void>((resolve, reject) => {
    recorder.onDone = (token, errno) => {
      try {
        assert.equal(errno, 0);
        check[token]!();
        idle.push(token);
        if (left > 0) setImmediate(start);
        else if (idle.length === lanes) resolve();
      } catch (error) {
        reject(error);
      }
    };
  });

  function start(): void {
    for (let batch = 1 + random(8); batch > 0 && left > 0 && idle.length > 0; batch--) {
      const count = 1 + random(Math.min(4, Math.floor((laneSize - 64) / blockSize)));
      const block = random(blockCount - count + 1);
      if (busy.subarray(block, block + count).some((value) => value !== 0)) continue;
      left -= 1;
      busy.fill(1, block, block + count);
      const token = idle.pop()!;
      const memory = token * laneSize + (random(2) === 0 ? 0 : random(64));
      const [offset, length] = [block * blockSize, count * blockSize];
      const free = () => busy.fill(0, block, block + count);
      const kind = random(10);
      if (kind < 4) {
        for (let at = 0; at < length; at += 4) arena.writeUInt32LE(random(2 ** 32), memory + at);
        arena.copy(model, offset, memory, memory + length);
        disk.write(token, memory, length, offset);
        check[token] = free;
      } else if (kind < 8) {
        arena.fill(0xa5, memory, memory + length);
        disk.read(token, memory, length, offset);
        check[token] = () => {
          const got = arena.subarray(memory, memory + length);
          assert.ok(got.equals(model.subarray(offset, offset + length)), `read at ${offset}`);
          free();
        };
      } else if (kind < 9) {
        model.fill(0, offset, offset + length);
        disk.zero(token, offset, length, random(2) === 0);
        check[token] = free;
      } else {
        free();
        disk.flush(token);
        check[token] = () => {};
      }
    }
    disk.submit();
  }
  start();
  await finished;
  recorder.onDone = () => {};
}

const FILE_ENGINES: readonly DiskEngine[] = ["sync", "threadpool", "io_uring"];

for (const engine of FILE_ENGINES) {
  describe(`engine ${engine}, regular file`, () => {
    test("keeps what concurrent reads, writes and zeroes at odd memory addresses did", async () => {
      const file = makeFile(`exercise-${engine}`, 4 * MIB);
      const opened = open(file, engine);
      assert.equal(opened.disk.engine, engine);
      assert.equal(opened.disk.kind, "file");
      assert.equal(opened.disk.mediaSize, 4 * MIB);
      assert.equal(opened.disk.sectorSize, 512);
      await exercise(opened, 1);
      await opened.close();
      assert.equal(fs.statSync(file).size, 4 * MIB);
    });

    test("takes a thousand requests at once, and ones of many mebibytes, at odd addresses", async () => {
      const file = makeFile(`many-${engine}`, 32 * MIB);
      const opened = open(file, engine, 40 * MIB);
      const { disk, arena, recorder } = opened;
      for (let at = 0; at < 9 * MIB; at += 4) arena.writeUInt32LE(Math.imul(at, 40503) >>> 0, at);
      const data = Buffer.from(arena.subarray(3, 3 + 8 * MIB));
      assert.equal(await opened.run((token) => disk.write(token, 3, 8 * MIB, 0)), 0);
      const size = (8 * MIB) / 1024;
      const all: Promise<number>[] = [];
      for (let token = 0; token < 1024; token++) {
        all.push(recorder.wait(token));
        const memory = 10 * MIB + token * (size + 1);
        disk.read(token, memory, size, token * size);
      }
      disk.submit();
      assert.ok((await Promise.all(all)).every((errno) => errno === 0));
      for (let token = 0; token < 1024; token++) {
        const memory = 10 * MIB + token * (size + 1);
        const expected = data.subarray(token * size, (token + 1) * size);
        assert.ok(arena.subarray(memory, memory + size).equals(expected), `read ${token}`);
      }
      arena.fill(0, 0, 10 * MIB);
      assert.equal(await opened.run((token) => disk.read(token, 5, 8 * MIB, 0)), 0);
      assert.ok(arena.subarray(5, 5 + 8 * MIB).equals(data));
      await opened.close();
    });

    test("reports EIO for a read past the end of a file that became shorter", async () => {
      const file = makeFile(`short-${engine}`, MIB);
      const opened = open(file, engine);
      fs.truncateSync(file, 8192 + 100);
      assert.equal(await opened.run((token) => opened.disk.read(token, 0, 4096, 4096)), 0);
      assert.equal(await opened.run((token) => opened.disk.read(token, 0, 4096, 8192)), EIO);
      await opened.close();
    });

    test("reports ENOSPC when the file system is full", async (t) => {
      const result = await withTmpfs(MIB, async (mount) => {
        const file = path.join(mount, "full");
        fs.writeFileSync(file, "");
        fs.truncateSync(file, 4 * MIB);
        const opened = open(file, engine);
        assert.equal(await opened.run((token) => opened.disk.write(token, 0, 65536, 0)), 0);
        assert.equal(
          await opened.run((token) => opened.disk.write(token, 1, 2 * MIB, MIB)),
          ENOSPC,
        );
        await opened.close();
        return true;
      });
      if (result === null) t.skip("mounting a tmpfs is not permitted");
    });

    test("writes zeroes where the file system has no ZERO_RANGE (tmpfs)", async (t) => {
      const result = await withTmpfs(8 * MIB, async (mount) => {
        const file = path.join(mount, "zero");
        fs.writeFileSync(file, Buffer.alloc(4 * MIB, 0xff));
        const opened = open(file, engine);
        const zeroed = opened.run((token) => opened.disk.zero(token, 512, 3 * MIB, false));
        assert.equal(await zeroed, 0);
        const expected = Buffer.alloc(4 * MIB, 0xff).fill(0, 512, 512 + 3 * MIB);
        assert.ok(fs.readFileSync(file).equals(expected));
        await opened.close();
        return true;
      });
      if (result === null) t.skip("mounting a tmpfs is not permitted");
    });

    test("gives space back for zero() with punch, and keeps it without", async () => {
      const file = makeFile(`punch-${engine}`, MIB);
      const opened = open(file, engine);
      const { disk } = opened;
      assert.equal(await opened.run((token) => disk.write(token, 0, MIB, 0)), 0);
      assert.equal(await opened.run((token) => disk.flush(token)), 0);
      const blocksBefore = fs.statSync(file).blocks;
      assert.equal(await opened.run((token) => disk.zero(token, 0, 65536, false)), 0);
      assert.equal(fs.statSync(file).blocks, blocksBefore);
      assert.equal(await opened.run((token) => disk.zero(token, 65536, 131072, true)), 0);
      assert.equal(fs.statSync(file).blocks, blocksBefore - 131072 / 512);
      await opened.close();
    });

    test("close() waits for what is in flight, then unlocks", async () => {
      const file = makeFile(`close-${engine}`, 2 * MIB);
      const opened = open(file, engine);
      opened.arena.fill(0x77);
      for (let token = 0; token < 20; token++) {
        opened.disk.write(token, 3, 65536, token * 65536);
      }
      opened.disk.zero(20, 20 * 65536, 65536, true);
      opened.disk.flush(21);
      opened.disk.submit();
      await opened.close();
      assert.equal(opened.recorder.done.length, 22);
      assert.ok(opened.recorder.done.every(({ errno }) => errno === 0));
      await open(file, engine).close();
    });

    test("submit() from inside diskDone() starts what was queued there", async () => {
      const opened = open(makeFile(`nested-${engine}`, MIB), engine);
      const { disk, recorder } = opened;
      const last = recorder.wait(9);
      recorder.onDone = (token) => {
        if (token >= 9) return;
        disk.write(token + 1, 0, 512, 0);
        disk.submit();
      };
      disk.write(0, 0, 512, 0);
      disk.submit();
      assert.equal(await last, 0);
      assert.deepEqual(
        recorder.done.map(({ token }) => token),
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
      );
      await opened.close();
    });
  });
}

test("engine sync finishes reads and writes inside submit(), in the order queued", async () => {
  const opened = open(makeFile("order", MIB), "sync");
  const { disk, arena, recorder } = opened;
  arena.fill(1, 0, 512);
  arena.fill(2, 512, 1024);
  disk.write(5, 0, 512, 0);
  disk.write(4, 512, 512, 0);
  disk.read(3, 1024, 512, 0);
  assert.equal(recorder.done.length, 0);
  disk.submit();
  assert.deepEqual(recorder.done, [
    { token: 5, errno: 0 },
    { token: 4, errno: 0 },
    { token: 3, errno: 0 },
  ]);
  assert.equal(arena[1024], 2);
  await new Promise(setImmediate);
  assert.equal(recorder.idleCount, 0, "diskIdle() is for what ended outside submit()");
  await opened.close();
});

test("diskIdle() follows a group of diskDone() calls", async () => {
  const opened = open(makeFile("idle", MIB), "threadpool");
  const { disk, recorder } = opened;
  const all = [0, 1, 2, 3].map((token) => recorder.wait(token));
  for (let token = 0; token < 4; token++) disk.write(token, 0, 512, token * 512);
  disk.submit();
  assert.equal(recorder.done.length, 0);
  await Promise.all(all);
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  assert.ok(recorder.idleCount >= 1);
  assert.ok(recorder.idleCount <= 4);
  await opened.close();
});

test("allocation() tells data from holes, whatever their order, within maxRanges", async () => {
  const file = makeFile("holes", MIB);
  const opened = open(file);
  const { disk } = opened;
  assert.equal(await opened.run((token) => disk.write(token, 0, 65536, 131072)), 0);
  assert.equal(await opened.run((token) => disk.write(token, 0, 65536, 524288)), 0);
  const ranges = (offset: number, length: number, max: number) => {
    const found: string[] = [];
    const covered = disk.allocation(offset, length, max, (size, hole) =>
      found.push(`${hole ? "hole" : "data"} ${size}`),
    );
    return { covered, found };
  };
  assert.deepEqual(ranges(0, MIB, 10), {
    covered: MIB,
    found: ["hole 131072", "data 65536", "hole 327680", "data 65536", "hole 458752"],
  });
  assert.deepEqual(ranges(0, MIB, 2), { covered: 196608, found: ["hole 131072", "data 65536"] });
  assert.deepEqual(ranges(135168, 4096, 10), { covered: 4096, found: ["data 4096"] });
  assert.deepEqual(ranges(900000 - (900000 % 512), 512, 1), { covered: 512, found: ["hole 512"] });
  await opened.close();
});

test("openDisk() refuses a component that another process has open, and says how to find it", async () => {
  const file = makeFile("locked", MIB);
  const program = `
    import { createArena } from ${JSON.stringify(path.join(import.meta.dirname, "arena.ts"))};
    import { openDisk } from ${JSON.stringify(path.join(import.meta.dirname, "disk.ts"))};
    openDisk(process.argv[1], { arena: createArena(65536), lock: true, warn: console.error });
    console.log("locked");
    process.stdin.resume();`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program, file], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  await new Promise((resolve) => child.stdout.once("data", resolve));
  assert.throws(
    () => open(file),
    (error) =>
      error instanceof DiskError &&
      error.code === "EBUSY" &&
      error.message.includes(file) &&
      error.message.includes("fuser"),
  );
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await exited;
  await open(file).close();
});

test("a component is carried by threads, with a warning, where io_uring is forbidden", async (t) => {
  const file = makeFile("forbidden", MIB);
  // A seccomp filter: load the call's number; if it is io_uring_setup (425), fail with EPERM; else allow.
  const program = `
    import koffi from "koffi";
    import { createArena } from ${JSON.stringify(path.join(import.meta.dirname, "arena.ts"))};
    import { openDisk } from ${JSON.stringify(path.join(import.meta.dirname, "disk.ts"))};
    const prctl = koffi.load(null).func("prctl", "int", ["int", "ulong", "void *", "ulong", "ulong"]);
    const filter = Buffer.alloc(32);
    [[0x20, 0, 0, 0], [0x15, 0, 1, 425], [0x06, 0, 0, 0x50001], [0x06, 0, 0, 0x7fff0000]].forEach(
      ([code, jt, jf, k], index) => {
        filter.writeUInt16LE(code, index * 8);
        filter.writeUInt8(jt, index * 8 + 2);
        filter.writeUInt8(jf, index * 8 + 3);
        filter.writeUInt32LE(k, index * 8 + 4);
      });
    const fprog = Buffer.alloc(16);
    fprog.writeUInt16LE(4);
    fprog.writeBigUInt64LE(koffi.address(filter), 8);
    const PR_SET_NO_NEW_PRIVS = 38, PR_SET_SECCOMP = 22, SECCOMP_MODE_FILTER = 2;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, null, 0, 0) !== 0) process.exit(77);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog, 0, 0) !== 0) process.exit(77);
    const disk = openDisk(process.argv[1],
      { arena: createArena(65536), lock: true, engine: "io_uring", warn: (text) => console.log(text) });
    console.log(disk.engine);
    disk.attach({ diskDone: (token, errno) => console.log("errno", errno), diskIdle() {} });
    disk.read(0, 1, 4096, 0);
    disk.close(() => {});`;
  const child = spawnSync(process.execPath, ["--input-type=module", "-e", program, file], {
    cwd: import.meta.dirname,
    encoding: "utf8",
  });
  if (child.status === 77) return t.skip("seccomp is not available");
  assert.equal(child.status, 0, child.stderr);
  const [warning, ...rest] = child.stdout.trim().split("\n");
  assert.match(warning!, /forbidden cannot be used through io_uring \(operation not permitted\)/);
  assert.deepEqual(rest, ["threadpool", "errno 0"]);
});

test("a disk that cannot be read is not blamed on io_uring's settings", () => {
  assert.match(
    withoutUring("/dev/sdb", -5),
    /^\/dev\/sdb could not be read .*smartctl -a \/dev\/sdb$/,
  );
  assert.match(withoutUring("/dev/sdb", -38), /through io_uring .*kernel\.io_uring_disabled/);
});

test("openDisk() without lock opens a component that is in use", async () => {
  const file = makeFile("unlocked", MIB);
  const opened = open(file);
  const arena = createArena(65536);
  const second = openDisk(file, { arena, lock: false, warn: assert.fail });
  await new Promise<void>((resolve) => second.close(resolve));
  await opened.close();
});

test("openDisk() names path, fact and remedy for what is no local component", () => {
  const fifo = path.join(dir, "fifo");
  execFileSync("mkfifo", [fifo]);
  const cases: [string, string, RegExp][] = [
    [path.join(dir, "nothing"), "ENOENT", /does not exist.*hast\.conf/],
    [dir, "EFTYPE", /directory.*hast\.conf/],
    [fifo, "EFTYPE", /FIFO/],
    ["/dev/null", "EFTYPE", /character device/],
  ];
  for (const [component, code, message] of cases) {
    assert.throws(
      () => openDisk(component, { arena: createArena(65536), lock: true, warn: assert.fail }),
      (error) =>
        error instanceof DiskError &&
        error.code === code &&
        error.message.startsWith(component) &&
        message.test(error.message),
    );
  }
});

for (const engine of ["sync", "threadpool", "io_uring"] as const) {
  test(`engine ${engine}: after forgetCached() reads show what the disk holds`, async (t) => {
    const file = makeFile(`forget-${engine}`, MIB);
    const result = await withLoop(file, 512, async (device) => {
      const cache = fs.openSync(device, "r");
      const opened = open(device, engine);
      const { disk, arena } = opened;
      const seen = async (): Promise<number> => {
        assert.equal(await opened.run((token) => disk.read(token, 0, 4096, 8192)), 0);
        return arena[0]!;
      };
      fs.readSync(cache, Buffer.alloc(4096), 0, 4096, 8192);
      assert.equal(await seen(), 0);
      fs.writeFileSync(file, Buffer.alloc(MIB, 7)); // behind the back of the device's page cache
      execFileSync("sync", [file]);
      assert.equal(await seen(), engine === "io_uring" ? 7 : 0);
      assert.equal(disk.forgetCached(), 0);
      assert.equal(await seen(), 7);
      await opened.close();
      fs.closeSync(cache);
      return true;
    });
    if (result === null) t.skip("losetup is not permitted");
  });
}

test("forgetCached() drops the pages of a file", async (t) => {
  const opened = open(makeFile("forget", MIB), "sync");
  const { disk } = opened;
  assert.equal(await opened.run((token) => disk.write(token, 0, 65536, 0)), 0);
  assert.equal(await opened.run((token) => disk.flush(token)), 0);
  const pages = (): number => {
    const told = spawnSync("fincore", ["-nb", "-o", "PAGES", disk.path], { encoding: "utf8" });
    return told.status === 0 ? Number(told.stdout) : -1;
  };
  const before = pages();
  assert.equal(disk.forgetCached(), 0);
  const after = pages();
  await opened.close();
  if (before <= 0) return t.skip("fincore is missing");
  assert.equal(after, 0);
});

for (const sectorSize of [512, 4096]) {
  for (const engine of ["threadpool", "io_uring"] as const) {
    test(`engine ${engine} serves a block device with ${sectorSize}-byte sectors`, async (t) => {
      const file = makeFile(`loop-${engine}-${sectorSize}`, 8 * MIB);
      const result = await withLoop(file, sectorSize, async (device) => {
        const opened = open(device, engine);
        assert.equal(opened.disk.kind, "block");
        assert.equal(opened.disk.engine, engine);
        assert.equal(opened.disk.sectorSize, sectorSize);
        assert.equal(opened.disk.mediaSize, 8 * MIB);
        assert.throws(() => open(device), { code: "EBUSY" });
        await exercise(opened, sectorSize);
        const ranges: string[] = [];
        opened.disk.allocation(0, 8 * MIB, 4, (length, hole) => ranges.push(`${length} ${hole}`));
        assert.deepEqual(ranges, [`${8 * MIB} false`]);
        await opened.close();
        return true;
      });
      if (result === null) t.skip("losetup is not permitted");
    });
  }
}

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import {
  blockDeviceSize,
  EAGAIN,
  ENXIO,
  FALLOC_KEEP_SIZE,
  FALLOC_PUNCH_HOLE,
  fallocateAsync,
  findGroup,
  findUser,
  flockExclusive,
  hostId,
  lastErrno,
  seekData,
  seekHole,
} from "./libc.ts";

const EBADF = 9;
const ENOTTY = 25;

let dir = "";
let fd = -1;
before(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), "hast-libc-"));
  fs.writeFileSync(path.join(dir, "file"), Buffer.alloc(1 << 20, 1));
  fd = fs.openSync(path.join(dir, "file"), "r+");
});
after(() => {
  fs.closeSync(fd);
  fs.rmSync(dir, { recursive: true });
});

test("flockExclusive() keeps a second description out, in this process too", () => {
  const other = fs.openSync(path.join(dir, "file"), "r+");
  assert.equal(flockExclusive(fd), 0);
  assert.equal(flockExclusive(other), -EAGAIN);
  fs.closeSync(other);
  assert.equal(flockExclusive(-1), -EBADF);
});

test("fallocateAsync() carries the errno of its own call into its callback", async () => {
  const call = (descriptor: number) =>
    new Promise<number>((resolve) => {
      const mode = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE;
      fallocateAsync(descriptor, mode, 65536, 65536, (error, result) => {
        const errno = lastErrno();
        assert.equal(error, null);
        resolve(result < 0 ? errno : 0);
      });
    });
  assert.deepEqual(await Promise.all([call(fd), call(-1), call(fd), call(-1)]), [
    0,
    EBADF,
    0,
    EBADF,
  ]);
  assert.equal(seekHole(fd, 0), 65536);
  assert.equal(seekData(fd, 65536), 131072);
  assert.equal(seekData(fd, 1 << 20), -ENXIO);
});

test("offsets beyond 4 GiB pass unharmed", () => {
  const size = 3 * 2 ** 40 + 4096;
  fs.truncateSync(path.join(dir, "file"), size);
  fs.writeSync(fd, Buffer.from("x"), 0, 1, size - 1);
  assert.equal(seekData(fd, 2 ** 41), size - 4096);
});

test("blockDeviceSize() refuses a regular file", () => {
  assert.equal(blockDeviceSize(fd), -ENOTTY);
});

test("hostId() is what hostid(1) prints", (t) => {
  if (spawnSync("hostid").error) return t.skip("no hostid(1)");
  assert.equal(hostId(), Number.parseInt(execFileSync("hostid").toString(), 16));
});

test("users and groups are found by name", () => {
  assert.deepEqual(findUser("root"), { uid: 0, gid: 0 });
  assert.equal(findUser("nobody-of-that-name"), null);
  assert.equal(findGroup("root"), 0);
  assert.equal(findGroup("nobody-of-that-name"), null);
});

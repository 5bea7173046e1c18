// SPDX-License-Identifier: BSD-2-Clause
/**
 * A worker that is killed while its disk is slow: what the kernel has of it lands later, and until then
 * nobody else gets the disk.
 *
 *   disk-user.ts ── device or file ── nbdfuse ── disk-process.ts, frozen
 */

import { strict as assert } from "node:assert";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { runCommand } from "./command.ts";
import { FILLING, PIECE_SIZE, WRITES } from "./disk-user.ts";
import type { PlugKind } from "./kernel-plug.ts";
import { DiskProcess } from "./power.ts";
import { until, withDeadline } from "./until.ts";

const USER = join(import.meta.dirname, "disk-user.ts");
const SIZE = 4 * 1024 * 1024;

interface Way {
  readonly name: string;
  readonly kind: PlugKind;
  readonly engine: string;
  /** What the kernel has of the pieces when the disk is frozen. */
  readonly lands: number;
  /** Does the process end before its I/O does? Then only what does the I/O can hold the lock. */
  readonly goes: boolean;
}

const WAYS: readonly Way[] = [
  // O_EXCL is on that description, too.
  {
    name: "a device through io_uring",
    kind: "block",
    engine: "io_uring",
    lands: WRITES,
    goes: true,
  },
  { name: "a file through io_uring", kind: "file", engine: "io_uring", lands: WRITES, goes: true },
  {
    name: "a device through threads",
    kind: "block",
    engine: "threadpool",
    lands: WRITES,
    goes: false,
  },
  { name: "a file", kind: "file", engine: "sync", lands: 1, goes: false },
  { name: "a file that hastctl writes", kind: "file", engine: "component", lands: 1, goes: false },
];

/** What another worker is told: "open", or why not. */
async function openAnother(path: string): Promise<string> {
  // The engine that reads nothing by itself: on a frozen disk it would wait.
  const { stdout, stderr } = await runCommand(process.execPath, [USER, path, "sync"]);
  return (stdout + stderr).trim();
}

/** @returns how many pieces are on the disk as a whole */
function landed(path: string): number {
  const bytes = Buffer.alloc(WRITES * PIECE_SIZE);
  const fd = openSync(path, "r");
  readSync(fd, bytes, 0, bytes.length, 0);
  closeSync(fd);
  let count = 0;
  for (let at = 0; at < bytes.length; at += PIECE_SIZE) {
    if (bytes.subarray(at, at + PIECE_SIZE).every((byte) => byte === FILLING)) count++;
  }
  return count;
}

for (const { name, kind, engine, lands, goes } of WAYS) {
  test(`S-8: a killed process's disk is nobody's until its writes have landed: ${name}`, async () => {
    const directory = mkdtempSync(join(tmpdir(), "hast-killed-"));
    const disk = new DiskProcess(name, { directory, size: SIZE, kind, seed: 1 });
    let user = null as ReturnType<typeof start> | null;
    function start(path: string) {
      return spawn(process.execPath, [USER, path, engine], { stdio: ["pipe", "pipe", "inherit"] });
    }
    try {
      const path = await disk.plug();
      user = start(path);
      const exited = once(user, "exit");
      let said = "";
      user.stdout.setEncoding("utf8").on("data", (text: string) => {
        said += text;
      });
      await until("the disk is open", () => said.includes("\n"));
      assert.equal(said, "open\n");

      await disk.freeze();
      user.stdin.write("\n");
      await until("writes are under way", async () => (await disk.waiting()) > 0);
      user.kill("SIGKILL");
      if (goes) await withDeadline("the process is gone", 30_000, exited);
      for (let round = 0; round < 3; round++) {
        assert.equal(await openAnother(path), "EBUSY");
      }
      assert.ok((await disk.waiting()) > 0, "all this time they were under way");

      await disk.thaw();
      await until("another worker gets the disk", async () => {
        const answer = await openAnother(path);
        assert.ok(["open", "EBUSY"].includes(answer), answer);
        return answer === "open";
      });
      assert.equal(landed(path), lands);
      await withDeadline("the process is gone", 30_000, exited);
    } finally {
      user?.kill("SIGKILL");
      await disk.end();
      rmSync(directory, { recursive: true });
    }
  });
}

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { ComponentError } from "../component.ts";
import { openComponent } from "./component.ts";

async function inDirectory(run: (directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "hast-component-"));
  try {
    await run(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function failsWith(code: string, message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof ComponentError);
    assert.equal(error.code, code);
    assert.match(error.message, message);
    return true;
  };
}

test("a file is read, written, resized and flushed", () =>
  inDirectory(async (directory) => {
    const path = join(directory, "disk");
    writeFileSync(path, "0123456789");
    const component = await openComponent(path, "write");
    assert.deepEqual(
      [component.path, component.kind, component.size, component.sectorSize],
      [path, "file", 10, 512],
    );
    assert.equal(Buffer.from(await component.readAt(3, 4)).toString(), "3456");
    await component.writeAt(8, Buffer.from("abcd"));
    await component.resize(16);
    assert.equal(component.size, 16);
    await component.flush();
    await component.close();
    assert.equal(readFileSync(path, "latin1"), "01234567abcd\0\0\0\0");
  }));

test("reading past the end is an error, never a short answer", () =>
  inDirectory(async (directory) => {
    const path = join(directory, "disk");
    writeFileSync(path, "0123456789");
    const component = await openComponent(path, "read");
    await assert.rejects(
      component.readAt(8, 4),
      failsWith("component-io", /ends at byte 10, 2 bytes too early/),
    );
    await component.close();
  }));

test("a component opened for reading cannot be written, and keeps nobody out", () =>
  inDirectory(async (directory) => {
    const path = join(directory, "disk");
    writeFileSync(path, "0123456789");
    const reader = await openComponent(path, "read");
    await assert.rejects(
      reader.writeAt(0, Buffer.from("x")),
      failsWith("component-io", /write at byte 0 failed \(EBADF\)/),
    );
    const writer = await openComponent(path, "write");
    const second = await openComponent(path, "read");
    for (const component of [reader, writer, second]) await component.close();
  }));

test("two cannot write: the second is told that the component is in use, until the first closes", () =>
  inDirectory(async (directory) => {
    const path = join(directory, "disk");
    writeFileSync(path, "0123456789");
    const first = await openComponent(path, "write");
    await assert.rejects(
      openComponent(path, "write"),
      failsWith("component-locked", /in use by a hastd/),
    );
    await first.close();
    await (await openComponent(path, "write")).close();
  }));

test("what is no disk is refused, without waiting for a pipe's other end", () =>
  inDirectory(async (directory) => {
    const fifo = join(directory, "fifo");
    execFileSync("mkfifo", [fifo]);
    const cases: [string, string, RegExp][] = [
      [join(directory, "none"), "component-missing", /none does not exist$/],
      [join(directory, "none", "deeper"), "component-missing", /does not exist$/],
      [directory, "component-not-a-disk", /is a directory$/],
      [fifo, "component-not-a-disk", /neither a file nor a block device$/],
      ["/dev/null", "component-not-a-disk", /neither a file nor a block device$/],
    ];
    for (const [path, code, message] of cases) {
      for (const access of ["read", "write"] as const) {
        await assert.rejects(openComponent(path, access), failsWith(code, message));
      }
    }
  }));

test("a file of somebody else is refused", () =>
  inDirectory(async (directory) => {
    const path = join(directory, "disk");
    writeFileSync(path, "0123456789");
    chmodSync(path, 0o000);
    // Nothing is forbidden to root, so root is nobody for a moment.
    const asRoot = process.geteuid?.() === 0;
    if (asRoot) process.seteuid?.(65_534);
    try {
      await assert.rejects(
        openComponent(path, "read"),
        failsWith("component-no-permission", /: permission denied$/),
      );
    } finally {
      if (asRoot) process.seteuid?.(0);
    }
  }));

/** A loop device over `path`, or null where this machine does not let us have one. */
function attachLoop(path: string): string | null {
  try {
    return execFileSync("losetup", ["-f", "--show", path], { encoding: "utf8" }).trim();
  } catch {
    return null; // no losetup, no loop driver, or no permission: the test says that it was skipped
  }
}

test("a block device tells its size, and is refused while mounted", (context) =>
  inDirectory(async (directory) => {
    const image = join(directory, "image");
    writeFileSync(image, "");
    execFileSync("truncate", ["-s", "16M", image]);
    execFileSync("mkfs.ext4", ["-q", "-F", image], {
      env: { PATH: "/usr/sbin:/sbin:/usr/bin:/bin" },
    });
    const loop = attachLoop(image);
    if (loop === null) return context.skip("no loop devices here");
    try {
      const free = await openComponent(loop, "write");
      assert.deepEqual([free.kind, free.size, free.sectorSize], ["block", 16 * 1024 * 1024, 512]);
      assert.deepEqual([...(await free.readAt(1080, 2))], [0x53, 0xef]);
      await free.close();
      const mount = join(directory, "mount");
      execFileSync("mkdir", [mount]);
      execFileSync("mount", [loop, mount]);
      try {
        await assert.rejects(
          openComponent(loop, "write"),
          failsWith("component-in-use", /is mounted/),
        );
        await (await openComponent(loop, "read")).close();
      } finally {
        execFileSync("umount", [mount]);
      }
    } finally {
      execFileSync("losetup", ["-d", loop]);
    }
  }));

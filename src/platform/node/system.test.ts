// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readlinkSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { nodeSystem } from "./system.ts";

function place(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "hast-system-"));
  t.after(() => rmSync(directory, { recursive: true }));
  return directory;
}

test("what is not there is nothing, not an error", (t) => {
  const missing = join(place(t), "missing");
  assert.equal(nodeSystem.text(missing), null);
  assert.equal(nodeSystem.target(missing), null);
  assert.deepEqual(nodeSystem.names(missing), []);
  assert.equal(nodeSystem.mayUse(missing), false);
  assert.equal(nodeSystem.program("no-such-program-anywhere"), null);
  nodeSystem.remove(missing);
});

test("/proc and /sys can be read, and what is private there is nothing", () => {
  assert.match(nodeSystem.text("/proc/self/mountinfo")!, / - \S+ \S+ /);
  assert(nodeSystem.names("/proc").includes(`${process.pid}`));
  assert.equal(nodeSystem.target("/proc/self/cwd"), process.cwd());
});

test("programs are found where administrators' lie, too", () => {
  const path = process.env["PATH"];
  process.env["PATH"] = "/nowhere:relative";
  try {
    assert.match(nodeSystem.program("losetup")!, /^\/.*\/losetup$/);
  } finally {
    process.env["PATH"] = path;
  }
});

test("a link replaces a link in one step; directories are ours alone", (t) => {
  const directory = place(t);
  const link = join(directory, "a/b");
  nodeSystem.link(link, "/dev/loop1");
  nodeSystem.link(link, "/dev/loop2");
  assert.equal(readlinkSync(link), "/dev/loop2");
  assert.deepEqual(nodeSystem.names(join(directory, "a")), ["b"]);
  nodeSystem.makeDirectory(join(directory, "c/d"));
  assert.equal(statSync(join(directory, "c/d")).mode & 0o777, 0o700);
  assert.throws(() => nodeSystem.makeDirectory(join(directory, "c/d")), /EEXIST/);
});

test("links, files and empty directories are removed, full ones are not", (t) => {
  const directory = place(t);
  nodeSystem.makeDirectory(join(directory, "full"));
  writeFileSync(join(directory, "full/file"), "");
  assert.throws(() => nodeSystem.remove(join(directory, "full")));
  nodeSystem.link(join(directory, "link"), join(directory, "full"));
  nodeSystem.remove(join(directory, "link"));
  nodeSystem.remove(join(directory, "full/file"));
  nodeSystem.remove(join(directory, "full"));
  assert(!existsSync(join(directory, "full")));
});

test("a process is killed; one that has gone is no error", async () => {
  const child = spawn("sleep", ["100"]);
  const ended = new Promise((resolve) => child.once("exit", (_, signal) => resolve(signal)));
  nodeSystem.kill(child.pid!);
  assert.equal(await ended, "SIGKILL");
  nodeSystem.kill(child.pid!);
});

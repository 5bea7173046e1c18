// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { commitOf, versionLine } from "./build.ts";

test("the commit is found in a checkout, packed or not, in a linked work tree and detached", (t) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "hast-build-"));
  t.after(() => fs.rmSync(directory, { recursive: true }));
  const root = path.join(directory, "main");
  const git = (...args: string[]) =>
    execFileSync("git", ["-c", "user.name=a", "-c", "user.email=a@b", "-C", root, ...args], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }).trim();
  fs.mkdirSync(root);
  assert.equal(commitOf(root), null);
  git("init", "-q");
  assert.equal(commitOf(root), null);
  git("commit", "-q", "--allow-empty", "-m", "one");
  const commit = git("rev-parse", "HEAD");
  assert.equal(commitOf(root), commit);
  const linked = path.join(directory, "linked");
  git("worktree", "add", "-q", linked, "-b", "other/branch");
  assert.equal(commitOf(linked), commit);
  git("pack-refs", "--all");
  assert.equal(commitOf(root), commit);
  assert.equal(commitOf(linked), commit);
  git("checkout", "-q", "--detach");
  assert.equal(commitOf(root), commit);
});

test("the version line names program, version and build", () => {
  assert.match(versionLine("hastd"), /^hastd \d+\.\d+\.\d+ \((release|[0-9a-f]{12})\)$/);
});

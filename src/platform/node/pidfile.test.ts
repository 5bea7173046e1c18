// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { Pidfile, PidfileBusyError } from "./pidfile.ts";

function place(t: TestContext): string {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "hast-pidfile-"));
  t.after(() => fs.rmSync(directory, { recursive: true }));
  return path.join(directory, "hastd.pid");
}

test("the file is for its owner alone and holds the pid without a newline", (t) => {
  const file = place(t);
  const pidfile = new Pidfile(file);
  pidfile.write(1234567);
  pidfile.write(42);
  assert.equal(fs.readFileSync(file, "utf8"), "42");
  assert.equal(fs.statSync(file).mode & 0o777, 0o600);
  pidfile.remove();
  assert.equal(fs.existsSync(file), false);
});

test("a second daemon is told who holds it, and does not disturb the file", (t) => {
  const file = place(t);
  const pidfile = new Pidfile(file);
  t.after(() => pidfile.remove());
  pidfile.write(42);
  assert.throws(
    () => new Pidfile(file),
    (error) => {
      assert(error instanceof PidfileBusyError);
      assert.equal(error.pid, 42);
      assert.match(error.message, /locked by another hastd \(pid 42\)/);
      return true;
    },
  );
  assert.equal(fs.readFileSync(file, "utf8"), "42");
});

test("a file left behind by a daemon that died is taken over", (t) => {
  const file = place(t);
  fs.writeFileSync(file, "99999999");
  const pidfile = new Pidfile(file);
  pidfile.write(7);
  assert.equal(fs.readFileSync(file, "utf8"), "7");
  pidfile.remove();
});

test("a directory that is missing is the system's error", (t) => {
  assert.throws(() => new Pidfile(path.join(place(t), "x")), { code: "ENOENT" });
});

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { readTextFile } from "./text-file.ts";

test("readTextFile() gives a text whole, or says why not", (t) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "text-file-"));
  t.after(() => fs.rmSync(directory, { recursive: true }));
  const file = path.join(directory, "file");
  const text = "é#\n".repeat(100_000);
  fs.writeFileSync(file, text);
  assert.deepEqual(readTextFile(file), { text });
  fs.writeFileSync(file, "");
  assert.deepEqual(readTextFile(file), { text: "" });
  assert.deepEqual(readTextFile(path.join(file, "deeper")), { failure: "not a directory" });
  assert.deepEqual(readTextFile(path.join(directory, "none")), {
    failure: "no such file or directory",
  });
  assert.deepEqual(readTextFile(directory), { failure: "illegal operation on a directory" });
  assert.deepEqual(readTextFile("/dev/zero"), { failure: "it is longer than 16 MiB" });
});

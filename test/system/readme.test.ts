// SPDX-License-Identifier: BSD-2-Clause
/** The README's tour, typed as it is printed there, in a directory of its own. */

import { strict as assert } from "node:assert";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { runCommand } from "./command.ts";
import { killMarked, markedEnvironment } from "./marked-processes.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const PRINTED_DIRECTORY = "/tmp/hast-tour";

test("the five minutes on one machine in the README go as promised", async () => {
  const directory = join(mkdtempSync(join(tmpdir(), "hast-readme-")), "tour");
  const readme = readFileSync(join(ROOT, "README.md"), "utf8");
  const blocks = [...readme.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block]) => block);
  assert.equal(blocks.length, 5);
  try {
    const { code, stdout, stderr } = await runCommand("bash", ["-e", "-o", "pipefail"], {
      cwd: ROOT,
      env: markedEnvironment(directory),
      stdin: blocks.join("\n").replaceAll(PRINTED_DIRECTORY, directory),
      withinMs: 120_000,
    });
    assert.equal(code, 0, stdout + stderr);
    const roles = [...stdout.matchAll(/^shared\t(\S+) +(\S+)/gm)].map(([, status, role]) => [
      status,
      role,
    ]);
    assert.deepEqual(
      roles.map(([, role]) => role),
      ["primary", "primary", "primary"],
    );
    assert.equal(roles[1]![0], "degraded");
    assert.equal(roles[2]![0], "complete");
    assert.equal(existsSync(directory), false);
  } finally {
    killMarked(directory);
    rmSync(dirname(directory), { recursive: true, force: true });
  }
});

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import path from "node:path";
import { test } from "node:test";
import { truncateUtf8 } from "./log.ts";

/** Runs `body` in a process of its own, where `log` writes to its stdout and stderr. */
function logged(body: string): { stdout: string; stderr: string; status: number | null } {
  const program = `
    import { createStdioLog } from ${JSON.stringify(path.join(import.meta.dirname, "log.ts"))};
    const log = createStdioLog({ prefix: "[shared] (primary) ", debugLevel: 1 });
    ${body}`;
  const result = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    encoding: "utf8",
  });
  return { stdout: result.stdout, stderr: result.stderr, status: result.status };
}

test("levels of warning and above go to stderr, the others to stdout, as pjdlog writes them", () => {
  const { stdout, stderr } = logged(`
    log.error("no disk"); log.warning("no peer"); log.notice("role"); log.info("ready");
    log.debug(1, "lifecycle"); log.debug(2, "request");
    log.withPrefix("").info("plain");`);
  assert.equal(
    stderr,
    "[ERROR] [shared] (primary) no disk\n[WARNING] [shared] (primary) no peer\n",
  );
  assert.equal(
    stdout,
    "[NOTICE] [shared] (primary) role\n[INFO] [shared] (primary) ready\n" +
      "[DEBUG][1] [shared] (primary) lifecycle\n[INFO] plain\n",
  );
});

test("a log that nobody reads any more stops nothing", () => {
  const { status } = logged(`
    import fs from "node:fs";
    fs.closeSync(1); fs.closeSync(2);
    log.error("lost"); log.info("lost");
    process.exit(3);`);
  assert.equal(status, 3);
});

test("truncateUtf8() cuts between characters", () => {
  assert.equal(truncateUtf8("naïve", 10), "naïve");
  assert.equal(truncateUtf8("naïve", 3), "na");
  assert.equal(truncateUtf8("naïve", 4), "naï");
  assert.equal(truncateUtf8("€€", 5), "€");
  assert.equal(truncateUtf8("€", 2), "");
});

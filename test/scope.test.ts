// SPDX-License-Identifier: BSD-2-Clause
/** What hast does not do is said where somebody decides whether to use it. */

import { strict as expect } from "node:assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { ARENA_SIZE } from "../src/engine/memory.ts";
import { SLOT_COUNT } from "../src/replication/requests.ts";

const README = readFileSync(join(import.meta.dirname, "..", "README.md"), "utf8");
const LIMITS = README.slice(README.indexOf("\n## Limits\n"), README.indexOf("\n## Further\n"));

test("BD-48: the README names what is out of scope, with the numbers of the code", () => {
  const mib = Math.ceil(ARENA_SIZE / (1024 * 1024));
  for (const limit of [
    /Two nodes per resource.*no third copy and no quorum/,
    /Nothing fails over by itself/,
    /size is fixed by `hastctl create`/,
    /two copies are not compared/,
    new RegExp(`${SLOT_COUNT} requests and ${mib} MiB of buffers`),
  ]) {
    expect.match(LIMITS.replaceAll("\n", " ").replaceAll(/ +/g, " "), limit);
  }
});

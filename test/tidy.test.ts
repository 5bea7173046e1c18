// SPDX-License-Identifier: BSD-2-Clause
import { strict as assert } from "node:assert";
import { existsSync, globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { tidyComplaints } from "./tidy.ts";

const ROOT = join(import.meta.dirname, "..");

function repository(): Map<string, string> {
  const patterns = ["{src,test,bench,scripts}/**/*.{ts,sh,md}", "{docs,man,contrib}/**/*.md"];
  const paths = globSync([...patterns, "bin/*", ".ci/*", "*.md", "package.json"], { cwd: ROOT });
  return new Map(paths.sort().map((path) => [path, readFileSync(join(ROOT, path), "utf8")]));
}

test("the repository keeps the house rules", () => {
  const files = repository();
  assert.ok(files.has("src/base/assert.ts") && files.has("README.md"), "the tree was not read");
  const complaints = tidyComplaints(files, (path) => existsSync(join(ROOT, path)));
  assert.deepEqual(complaints, []);
});

const SPDX = "// SPDX-License-Identifier: BSD-2-Clause\n";

/** Complaints about one file in an otherwise spotless repository. */
function about(path: string, text: string): string[] {
  const files = new Map([
    ["package.json", '{"version":"1.0.0"}'],
    ["CHANGELOG.md", "# Changelog\n\n## 1.0.0 (unreleased)\n"],
    ["src/base/ring.ts", `${SPDX}/** A ring. */\nexport const ring = 1;\n`],
    ["src/base/ring.test.ts", SPDX],
    ["src/replication/a.test.ts", SPDX],
    ["src/engine/engine.ts", `${SPDX}/** Runs. */\nexport type Engine = 1;\n`],
    ["src/platform/clock.ts", `${SPDX}/** Time. */\nexport type Clock = 1;\n`],
    ["src/platform/node/clock.ts", `${SPDX}/** Time. */\nexport const clock = 1;\n`],
    [path, text],
  ]);
  return tidyComplaints(files, () => false);
}

function source(body: string): string {
  return `${SPDX}/** Its purpose. */\n${body}\n`;
}

const FORBIDDEN: readonly [rule: string, path: string, text: string, complaint: RegExp][] = [
  [
    "an import against the arrows",
    "src/wire/a.ts",
    source('import type { Engine } from "../engine/engine.ts";\nexport type A = Engine;'),
    /no arrow wire → engine/,
  ],
  [
    "the same over several lines",
    "src/replication/a.ts",
    source('import {\n  type Clock,\n} from "../platform/clock.ts";\nexport type A = Clock;'),
    /no arrow replication → platform/,
  ],
  [
    "the same as a type in passing",
    "src/nbd/a.ts",
    source('export type A = import("../engine/engine.ts").Engine;'),
    /no arrow nbd → engine/,
  ],
  [
    "platform/node outside src/bin",
    "src/daemon/a.ts",
    source('import { clock } from "../platform/node/clock.ts";\nexport const a = clock;'),
    /no arrow daemon → platform\/node/,
  ],
  [
    "base importing anything",
    "src/base/a.ts",
    source('import type { Clock } from "../platform/clock.ts";\nexport type A = Clock;'),
    /no arrow base → platform/,
  ],
  [
    "a folder nobody planned",
    "src/magic/a.ts",
    source('import type { Clock } from "../platform/clock.ts";\nexport type A = Clock;'),
    /no arrow mentions/,
  ],
  ["node: in the engine", "src/engine/a.ts", source('import "node:fs";'), /imports node:fs/],
  [
    "node: as a type",
    "src/daemon/a.ts",
    source('import type { Socket } from "node:net";\nexport type A = Socket;'),
    /imports node:net/,
  ],
  [
    "a package outside platform/node",
    "src/engine/a.ts",
    source('import koffi from "koffi";\nexport type A = typeof koffi;'),
    /imports the package koffi/,
  ],
  [
    "an import without .ts",
    "test/a.ts",
    `${SPDX}import { ring } from "../src/base/ring";`,
    /does not end in \.ts/,
  ],
  [
    "an import of nothing",
    "test/a.ts",
    `${SPDX}import { ring } from "../src/base/rings.ts";`,
    /does not exist/,
  ],
  ["a clock", "src/engine/a.ts", source("Date.now();"), /uses Date\.now/],
  ["a timer", "src/daemon/a.ts", source("setTimeout(run, 1);"), /uses setTimeout/],
  ["a microtask", "src/engine/a.ts", source("queueMicrotask(run);"), /uses queueMicrotask/],
  ["performance", "src/cli/a.ts", source("performance.now();"), /uses performance/],
  ["a timer in src/bin", "src/bin/a.ts", source("setInterval(run, 1);"), /uses setInterval/],
  ["chance", "src/engine/a.ts", source("Math.random();"), /uses Math\.random/],
  ["the process", "src/cli/a.ts", source("process.exit(1);"), /uses process\.exit/],
  ["the console", "src/daemon/a.ts", source('console.log("");'), /uses console\./],
  ["a clock in a template", "src/cli/a.ts", source("`$" + "{Date.now()}`;"), /uses Date\.now/],
  [
    "await in the core",
    "src/replication/a.ts",
    source("export type A = 1;\nasync function a() {}"),
    /no promises in src\/replication/,
  ],
  [
    "a promise in nbd",
    "src/nbd/a.ts",
    source("export type A = Promise<void>;"),
    /no promises in src\/nbd/,
  ],
  ["a source without licence", "src/engine/a.ts", "// A.\n/** A. */\n", /SPDX/],
  ["a script without licence", "scripts/a.sh", "#!/bin/sh\necho\n", /SPDX/],
  ["a source without purpose", "src/engine/a.ts", `${SPDX}export type A = 1;\n`, /doc comment/],
  ["code without a test", "src/wire/a.ts", source("export const a = 1;"), /no unit test/],
  ["a vague name", "src/engine/io-utils.ts", source("export type A = 1;"), /does not say/],
  ["a vague folder", "src/engine/common/a.ts", source("export type A = 1;"), /does not say/],
  ["index.ts", "src/engine/index.ts", source("export type A = 1;"), /barrel/],
  [
    "a re-export",
    "src/daemon/a.ts",
    source('export { type Engine } from "../engine/engine.ts";'),
    /re-exports/,
  ],
  [
    "a re-export of everything",
    "src/daemon/a.ts",
    source('export * from "../engine/engine.ts";'),
    /re-exports/,
  ],
  ["a dead link", "docs/a.md", "See [the map](../map.md).", /links to \.\.\/map\.md/],
  ["a dead anchor", "docs/a.md", "# One\n\nSee [two](#two).", /no such heading/],
  ["an old changelog", "CHANGELOG.md", "## 0.9.0\n", /top entry is 0\.9\.0/],
];

for (const [rule, path, text, complaint] of FORBIDDEN) {
  test(`tidy complains about ${rule}`, () => {
    const complaints = about(path, text);
    assert.equal(complaints.length, 1, complaints.join("\n"));
    assert.match(complaints[0]!, complaint);
    assert.ok(complaints[0]!.startsWith(`${path}: `));
  });
}

test("tidy allows what the arrows and the rules allow", () => {
  const fine: [string, string][] = [
    ["src/daemon/a.ts", source('import type { Engine } from "../engine/engine.ts";')],
    ["src/bin/a.ts", source('import { clock } from "../platform/node/clock.ts";\nprocess.exit();')],
    [
      "src/platform/node/a.ts",
      source('import koffi from "koffi";\nimport "node:fs";\nDate.now();'),
    ],
    ["src/replication/a.ts", source('export type Mode = "fullsync" | "memsync" | "async";')],
    [
      "src/wire/a.ts",
      source("// Date.now() and setTimeout() are only mentioned.\nexport type A = 1;"),
    ],
    ["src/engine/a.ts", source('throw new Error("no setTimeout, console.log or Promise here");')],
    ["src/engine/a.test.ts", `${SPDX}import "node:fs";\nsetTimeout(run, 1);`],
    [
      "docs/a.md",
      "# One, two\n\n[up](#one-two), [out](https://x.org), [log](../CHANGELOG.md#100-unreleased)",
    ],
  ];
  for (const [path, text] of fine) assert.deepEqual(about(path, text), []);
});

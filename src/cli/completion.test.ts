// SPDX-License-Identifier: BSD-2-Clause
/** The completion, asked in a real bash as bash asks it. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { runAtDesk } from "../../test/cli/desk.ts";
import { completion } from "./completion.ts";
import { COMMANDS } from "./hastctl.ts";
import { COMMON_OPTIONS } from "./options.ts";

const CONF = "resource r0 { on a { local /x } }\n  resource\tdata{ }\n# resource old {\n";

/** What bash offers for the last word of each line. */
async function completed(lines: readonly string[]): Promise<string[][]> {
  const { out, exitCode } = await runAtDesk(completion, ["bash"], {});
  assert.equal(exitCode, 0);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "hast-completion-"));
  try {
    fs.writeFileSync(`${directory}/my.conf`, CONF);
    fs.writeFileSync(`${directory}/other.conf`, "");
    const ask = lines.map((line) => {
      const words = line.split(" ").map((word) => `'${word}'`);
      return `COMP_WORDS=(${words.join(" ")}) COMP_CWORD=${words.length - 1}
        _hastctl; echo "=\${COMPREPLY[*]}"`;
    });
    const input = `set -u\n${out}\ncomplete -p hastctl >/dev/null || exit 9\n${ask.join("\n")}\n`;
    const run = spawnSync("bash", ["--norc"], { input, cwd: directory, encoding: "utf8" });
    assert.equal(run.stderr, "");
    assert.equal(run.status, 0);
    return run.stdout
      .trimEnd()
      .split("\n")
      .map((line) =>
        line
          .slice(1)
          .split(" ")
          .filter((word) => word !== "")
          .toSorted(),
      );
  } finally {
    fs.rmSync(directory, { recursive: true });
  }
}

async function offers(line: string): Promise<string[]> {
  return (await completed([line]))[0]!;
}

test("the first word is a command, the second of some another", async () => {
  const firsts = new Set(COMMANDS.map(({ name }) => name.split(" ")[0]!));
  assert.deepEqual(await offers("hastctl "), [...firsts, "--version"].toSorted());
  assert.deepEqual(await offers("hastctl st"), ["status"]);
  assert.deepEqual(await offers("hastctl config "), ["check", "diff", "generate"]);
  assert.deepEqual(await offers("hastctl config g"), ["generate"]);
  assert.deepEqual(await offers("hastctl bogus "), []);
});

test("every command offers its options, and no others", async () => {
  const lines = COMMANDS.map(({ name }) => `hastctl ${name} -`);
  const found = await completed(lines);
  for (const [index, { name, options }] of COMMANDS.entries()) {
    const flags = [...COMMON_OPTIONS, ...options].map(({ flag }) => flag);
    assert.deepEqual(found[index], [...flags, "-h"].toSorted(), name);
  }
});

test("an argument is one of the words that the usage shows in angle brackets", async () => {
  assert.deepEqual(await offers("hastctl role "), ["init", "primary", "secondary"]);
  assert.deepEqual(await offers("hastctl role -d -n alpha p"), ["primary"]);
  assert.deepEqual(await offers("hastctl completion "), ["bash"]);
});

test("names are those of the hast.conf of this very line, and all where the command takes it", async () => {
  assert.deepEqual(await offers("hastctl status -c my.conf "), ["all", "data", "r0"]);
  assert.deepEqual(await offers("hastctl status -c my.conf r"), ["r0"]);
  assert.deepEqual(await offers("hastctl status -c my.conf r0 "), ["data", "r0"]);
  assert.deepEqual(await offers("hastctl create -e 1m -c my.conf "), ["data", "r0"]);
  assert.deepEqual(await offers("hastctl role primary -c my.conf "), ["all", "data", "r0"]);
  assert.deepEqual(await offers("hastctl status -c missing "), ["all"]);
});

test("files are offered where a file is asked for, nothing where a number is", async () => {
  assert.deepEqual(await offers("hastctl status -c "), ["my.conf", "other.conf"]);
  assert.deepEqual(await offers("hastctl role primary -c m"), ["my.conf"]);
  assert.deepEqual(await offers("hastctl config check o"), ["other.conf"]);
  assert.deepEqual(await offers("hastctl config diff --from m"), ["my.conf"]);
  assert.deepEqual(await offers("hastctl create -e "), []);
});

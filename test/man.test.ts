// SPDX-License-Identifier: BSD-2-Clause
/** The manual pages say what the programs do: each option, statement, default and exit code, both ways. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { configCheck } from "../src/cli/config-check.ts";
import * as exitCodes from "../src/cli/exit-code.ts";
import { COMMANDS, usageLine } from "../src/cli/hastctl.ts";
import { COMMON_OPTIONS } from "../src/cli/options.ts";
import { readConfig } from "../src/config/config.ts";
import { STATEMENTS } from "../src/config/syntax.ts";
import { parseOptions, USAGE } from "../src/daemon/options.ts";
import {
  DIRECTORY_DEFAULT,
  USAGE as FAILOVER_USAGE,
  parseOptions as parseFailoverOptions,
} from "../src/failover/options.ts";
import { groupSettings } from "../src/failover/settings.ts";
import { runAtDesk } from "./cli/desk.ts";

const ROOT = join(import.meta.dirname, "..");
const pageOf = (name: string): string => readFileSync(join(ROOT, "man", name), "utf8");
const HASTD = pageOf("hastd.8");
const HASTCTL = pageOf("hastctl.8");
const HAST_FAILOVER = pageOf("hast-failover.8");
const HAST_CONF = pageOf("hast.conf.5");
const ERRORS = readFileSync(join(ROOT, "docs/errors.md"), "utf8");

/** The lines of a section ("Sh") or subsection ("Ss"), up to the next of either. */
function sectionOf(page: string, level: "Sh" | "Ss", title: string): string {
  const [, rest] = page.split(`\n.${level} ${title}\n`);
  assert.ok(rest !== undefined, `a section ${title}`);
  return rest.split(/^\.S[hs] /m)[0]!;
}

/** The options that a text describes, as the programs' tables have them. */
function describedOptions(text: string): { flag: string; argument: string | null }[] {
  return [...text.matchAll(/^\.It Fl (\S+)(?: Ar (\S+))?$/gm)].map(([, flag, argument]) => ({
    flag: `-${flag}`,
    argument: argument ?? null,
  }));
}

/** As a terminal shows it, in one line; without overstrikes and hyphenation. */
function rendered(name: string): string {
  const page = join(ROOT, "man", name);
  const { stdout, status } = spawnSync("mandoc", ["-Tascii", "-O", "width=1000", page], {
    encoding: "utf8",
  });
  assert.equal(status, 0);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: it is what terminals get
  return stdout.replace(/.\x08/g, "").replace(/\s+/g, " ");
}

/** The words between two headings of a rendered page. */
function synopsisOf(name: string): string {
  return rendered(name).split(" SYNOPSIS ")[1]!.split(" DESCRIPTION ")[0]!;
}

const byFlag = (a: { flag: string }, b: { flag: string }): number => (a.flag < b.flag ? -1 : 1);

test("the pages are correct mdoc", () => {
  const names = readdirSync(join(ROOT, "man"));
  assert.deepEqual(names.toSorted(), ["hast-failover.8", "hast.conf.5", "hastctl.8", "hastd.8"]);
  for (const name of names) {
    const run = spawnSync("mandoc", ["-Tlint", "-Wwarning", join(ROOT, "man", name)]);
    assert.equal(`${run.stdout}${run.stderr}`, "");
    assert.equal(run.status, 0);
  }
});

test("hastctl(8)'s synopsis is what -h prints", () => {
  const usage = [...COMMANDS.map(usageLine), "hastctl --version"];
  assert.equal(synopsisOf("hastctl.8"), usage.join(" "));
});

test("hastctl(8) describes each command, and of each every option", () => {
  const description = HASTCTL.split("\n.Sh DESCRIPTION\n")[1]!.split("\n.Sh ")[0]!;
  const titles = [...description.matchAll(/^\.Ss (.*)$/gm)].map(([, title]) => title);
  assert.deepEqual(
    titles,
    COMMANDS.map(({ name }) => name),
  );
  for (const { name, options } of COMMANDS) {
    const described = describedOptions(sectionOf(HASTCTL, "Ss", name));
    assert.deepEqual(described, options, name);
  }
  const common = describedOptions(description.split("\n.Ss ")[0]!);
  assert.deepEqual(common, COMMON_OPTIONS.toSorted(byFlag));
});

test("hastd(8)'s synopsis is what -h prints, and its options are described", () => {
  const usage = USAGE.replace("usage: ", "").replace(/\s+/g, " ").trimEnd();
  assert.equal(synopsisOf("hastd.8"), usage);
  const described = describedOptions(sectionOf(HASTD, "Sh", "DESCRIPTION"));
  const inUsage = [...USAGE.matchAll(/\[-([A-Za-z]+)(?: (\w+))?\]/g)].flatMap(
    ([, flags, argument]) =>
      [...flags!].map((flag) => ({ flag: `-${flag}`, argument: argument ?? null })),
  );
  inUsage.push({ flag: "--version", argument: null });
  assert.deepEqual(described.toSorted(byFlag), inUsage.toSorted(byFlag));
  for (const { flag, argument } of described) {
    const alone = argument === null ? [flag] : [flag, "x"];
    const parsed = parseOptions(flag === "-j" ? [flag, "-F"] : alone);
    assert.ok(parsed.kind !== "usage" || parsed.complaint === null, flag);
  }
  for (const letter of "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
    if (described.some(({ flag }) => flag === `-${letter}`)) continue;
    assert.equal(parseOptions([`-${letter}`, "x"]).kind, "usage", letter);
  }
});

test("hast-failover(8)'s synopsis is what -h prints, and its options and commands are those there are", () => {
  const usage = FAILOVER_USAGE.replace("usage: ", "").replace(/\s+/g, " ").trimEnd();
  assert.equal(synopsisOf("hast-failover.8"), usage);
  const description = sectionOf(HAST_FAILOVER, "Sh", "DESCRIPTION");
  const described = describedOptions(description).map(({ flag }) => flag);
  const inUsage = [...usage.matchAll(/ \[?(--?[a-z]+)/g)].map(([, flag]) => flag!);
  assert.deepEqual(described, [...new Set([...inUsage, "-h"])].toSorted(optionOrder));
  const commands = [...description.matchAll(/^\.It Cm (\S+)$/gm)].map(([, name]) => name!);
  assert.deepEqual(commands, ["status", "seed", "move"]);
  for (const name of commands) {
    assert.equal(parseFailoverOptions([name]).kind, "command", name);
    assert.ok(usage.includes(`hast-failover ${name} `));
  }
  assert.ok(HAST_FAILOVER.includes(DIRECTORY_DEFAULT));
});

/** "-c" before "--force". */
function optionOrder(a: string, b: string): number {
  return Number(a.startsWith("--")) - Number(b.startsWith("--")) || (a < b ? -1 : 1);
}

test("hast-failover(8)'s settings are those that are read", () => {
  const text = sectionOf(HAST_FAILOVER, "Sh", "CONFIGURATION");
  const described = [...text.matchAll(/^\.It Ic (.*)$/gm)].flatMap(([, names]) =>
    names!.split(" , "),
  );
  const read = new Set<string>();
  const values = { group: "g", resources: "r0", etcd: "http://a:2379" };
  const watched = new Proxy<Record<string, string>>(values, {
    get: (target, name) => {
      read.add(String(name));
      return target[String(name)];
    },
  });
  const settings = groupSettings(watched, ["alpha", "beta"]);
  assert.ok("ttlS" in settings);
  // The program reads `config` before it knows the nodes.
  assert.deepEqual(described.toSorted(), [...read, "config"].toSorted());
  assert.match(text, new RegExp(`^Default: ${settings.ttlS}$`, "m"));
});

interface Statement {
  readonly keyword: string;
  readonly value: string;
  readonly places: readonly string[];
  readonly byDefault: string;
}

function statements(): Statement[] {
  const text = sectionOf(HAST_CONF, "Sh", "STATEMENTS");
  const pattern =
    /^\.It Ic (\S+) (.*)\n(?:(?!\.It)[^\n]*\n)*?Where: (.*)\.\nDefault: (.*)\n(?=\.(?:It|El))/gm;
  return [...text.matchAll(pattern)].map(([, keyword, value, places, byDefault]) => ({
    keyword: keyword!,
    value: value!,
    places: places!.split(", "),
    byDefault: byDefault!,
  }));
}

test("hast.conf(5) describes each statement, and where it is accepted", () => {
  const places: Readonly<Record<string, string>> = {
    file: "global",
    node: "node",
    resource: "resource",
    "resource's node": "resource-node",
  };
  const described = statements().map((each) => [each.keyword, each.places.map((at) => places[at])]);
  assert.deepEqual(Object.fromEntries(described), STATEMENTS);
});

test("hast.conf(5)'s defaults are the parser's", async () => {
  const file = "resource NAME { on alpha { local /d remote none } }";
  const { out } = await runAtDesk(configCheck, ["f"], { files: { f: file } });
  for (const { keyword, byDefault } of statements()) {
    if (byDefault === "required") {
      const without = file.replace(new RegExp(`${keyword} \\S+`), "");
      assert.notEqual(without, file);
      const identity = { names: ["alpha"], uuid: null, hostid: null };
      assert.equal(readConfig(without, "f", identity).kind, "complaints", keyword);
      continue;
    }
    const printed = [...out.matchAll(new RegExp(`^ *${keyword} (\\S+)$`, "gm"))];
    const values = printed.map(([, value]) => value).join(" ");
    const inWords: Readonly<Record<string, string>> = {
      none: "",
      "hastd's user": "",
      "the kernel's choice": "",
    };
    const expected = byDefault === "the name of the resource" ? "NAME" : byDefault;
    assert.ok(values === expected || values === inWords[byDefault], `${keyword}: ${values}`);
  }
});

test("hast.conf(5)'s words are those that the parser accepts", () => {
  const identity = { names: ["alpha"], uuid: null, hostid: null };
  let choices = 0;
  for (const { keyword, value } of statements()) {
    const text = (word: string): string => `resource r { ${keyword} ${word} on alpha { } }`;
    if (!value.startsWith("Cm ")) continue;
    choices += 1;
    const words = value.replace("Cm ", "").split(" | ");
    const result = readConfig(text("bogus"), "f", identity);
    assert.ok(result.kind === "complaints");
    const told = /is (.*), not "bogus"/.exec(result.complaints.map((each) => each.message).join())!;
    assert.deepEqual(words, told[1]!.split(/, | or /), keyword);
  }
  assert.equal(choices, 7);
});

test("hast.conf(5)'s example is a configuration for both nodes", () => {
  const example = /^\.Bd [^\n]*\n([\s\S]*?)^\.Ed$/m.exec(HAST_CONF)![1]!;
  for (const name of ["alpha", "beta"]) {
    const result = readConfig(example, "f", { names: [name], uuid: null, hostid: null });
    assert.equal(result.kind, "config", JSON.stringify(result));
  }
});

/** Rows of the table in docs/errors.md that concern a program: its column, 1 for hastd or 2 for hastctl. */
function exitCodesOf(column: 1 | 2): string[] {
  const rows = [...ERRORS.matchAll(/^\| ([0-9–]+) \| ([^|]*) \| ([^|]*) \|$/gm)];
  assert.ok(rows.length > 10);
  return rows.filter((row) => row[column + 1] !== "–").map(([, code]) => code!);
}

function describedCodes(page: string): string[] {
  const text = sectionOf(page, "Sh", "EXIT STATUS");
  return [...text.matchAll(/^\.It ([0-9]\S*)$/gm)].map(([, code]) => code!.replace("\\(en", "–"));
}

test("the exit codes are those of docs/errors.md, and these the program's", () => {
  assert.deepEqual(describedCodes(HASTD), exitCodesOf(1));
  assert.deepEqual(describedCodes(HASTCTL), exitCodesOf(2));
  const own = Object.values(exitCodes).filter((value) => typeof value === "number");
  const documented = exitCodesOf(2).filter((code) => !code.includes("–"));
  assert.deepEqual(
    documented.map(Number).toSorted((a, b) => a - b),
    own.toSorted((a, b) => a - b),
  );
});

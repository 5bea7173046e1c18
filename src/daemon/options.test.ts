// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseOptions } from "./options.ts";

const DEFAULTS = {
  kind: "run",
  config: null,
  debugLevel: 0,
  json: false,
  foreground: false,
  pidfile: null,
  node: null,
};

function parse(line: string): unknown {
  return parseOptions(line === "" ? [] : line.split(" "));
}

test("options are read as getopt(3) reads them", () => {
  assert.deepEqual(parse(""), DEFAULTS);
  assert.deepEqual(parse("-dFd -c /x/hast.conf -n a -P /run/p"), {
    kind: "run",
    config: "/x/hast.conf",
    debugLevel: 2,
    foreground: true,
    json: false,
    pidfile: "/run/p",
    node: "a",
  });
  assert.deepEqual(parse("-Fc/x -na"), { ...DEFAULTS, foreground: true, config: "/x", node: "a" });
  assert.deepEqual(parse("-d --"), { ...DEFAULTS, debugLevel: 1 });
});

test("the version is asked for with --version", () => {
  assert.deepEqual(parse("-d --version"), { kind: "version" });
});

test("help and mistakes end in the usage", () => {
  assert.deepEqual(parse("-h"), { kind: "usage", complaint: null });
  const complaints: [string, string][] = [
    ["-x", "unknown option -x"],
    ["-dx", "unknown option -x"],
    ["--foreground", "unknown option --foreground"],
    ["-c", "option -c needs a value"],
    ["-F -P", "option -P needs a value"],
    ["-F start", "hastd takes no arguments, but was given start"],
    ["-- -F", "hastd takes no arguments, but was given -F"],
    ["-", "hastd takes no arguments, but was given -"],
  ];
  for (const [line, complaint] of complaints) {
    assert.deepEqual(parse(line), { kind: "usage", complaint }, line);
  }
});

test("-j, JSON lines, is for the foreground", () => {
  assert.deepEqual(parse("-Fj"), { ...DEFAULTS, foreground: true, json: true });
  assert.deepEqual(parse("-j"), { kind: "usage", complaint: "-j goes with -F only" });
});

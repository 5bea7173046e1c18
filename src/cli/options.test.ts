// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseOptions } from "./options.ts";

const OWN = [
  { flag: "-e", argument: "extentsize" },
  { flag: "--datasize", argument: "size" },
  { flag: "--force", argument: null },
];

function parse(...words: string[]): unknown {
  const parsed = parseOptions(words, OWN);
  if (parsed.kind === "wrong") return parsed.message;
  const { configPath, node, debug, help } = parsed.common;
  const own = OWN.flatMap(({ flag }) =>
    parsed.options.has(flag) ? [parsed.options.get(flag)] : [],
  );
  return { configPath, node, debug, help, own, args: parsed.args };
}

const NONE = { configPath: null, node: null, debug: 0, help: false, own: [], args: [] };

test("options stand anywhere after the command, and may hold their value", () => {
  const expected = {
    ...NONE,
    configPath: "/c",
    node: "a",
    debug: 2,
    own: ["2m", "1g", ""],
    args: ["r0", "r1"],
  };
  const forms = [
    "-d -d -c /c -n a -e 2m --datasize 1g --force r0 r1",
    "r0 -dd -c/c -na -e2m --datasize=1g r1 --force",
    "-ddc /c r0 -n a r1 --force -e 2m --datasize=1g",
  ];
  for (const form of forms) assert.deepEqual(parse(...form.split(" ")), expected, form);
});

test("-- ends the options, and a lone - is an argument", () => {
  assert.deepEqual(parse("-d", "--", "-c", "--"), { ...NONE, debug: 1, args: ["-c", "--"] });
  assert.deepEqual(parse("-"), { ...NONE, args: ["-"] });
});

test("of a repeated option the last counts", () => {
  assert.deepEqual(parse("-c", "/a", "-c", "/b"), { ...NONE, configPath: "/b" });
});

test("-h asks for help", () => {
  assert.deepEqual(parse("r0", "-h"), { ...NONE, help: true, args: ["r0"] });
});

test("a value may be empty or look like an option", () => {
  assert.deepEqual(parse("-c", "-x", "--datasize="), { ...NONE, configPath: "-x", own: [""] });
});

test("what makes no sense is named", () => {
  assert.equal(parse("-x"), "unknown option -x");
  assert.equal(parse("-dx"), "unknown option -x");
  assert.equal(parse("--wrong=1"), "unknown option --wrong");
  assert.equal(parse("-c"), "-c needs a value: -c config");
  assert.equal(parse("--datasize"), "--datasize needs a value: --datasize size");
  assert.equal(parse("--force=yes"), "--force takes no value");
});

test("any words give options or one complaint", () => {
  const word = fc.oneof(
    fc.string(),
    fc.constantFrom("-d", "-c", "-n", "-h", "-e", "--datasize", "--force", "--", "-", "--=", "-d-"),
  );
  fc.assert(
    fc.property(fc.array(word), (words) => {
      const parsed = parseOptions(words, OWN);
      assert.ok(parsed.kind === "parsed" || parsed.message.length > 0);
    }),
  );
});

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { tokenize } from "./lexer.ts";

function tokens(text: string): { words: string[]; complaints: string[] } {
  const complaints: string[] = [];
  const found = tokenize(text, (at, message) =>
    complaints.push(`${at.line}:${at.column} ${message}`),
  );
  return {
    words: found.map(({ at, kind, text: word }) => `${at.line}:${at.column} ${word || kind}`),
    complaints,
  };
}

test("tokenize() separates words and braces, however close they stand", () => {
  assert.deepEqual(tokens("resource r0{on a_b{local /dev/x}}").words, [
    "1:1 resource",
    "1:10 r0",
    "1:12 {",
    "1:13 on",
    "1:16 a_b",
    "1:19 {",
    "1:20 local",
    "1:26 /dev/x",
    "1:32 }",
    "1:33 }",
    "1:34 end",
  ]);
});

test("tokenize() counts lines from 1 with either line end, and drops comments", () => {
  const unix = "# first\nlisten tcp://[::1]:8457 # why\n\ttimeout 5";
  const words = ["2:1 listen", "2:8 tcp://[::1]:8457", "3:2 timeout", "3:10 5", "3:11 end"];
  assert.deepEqual(tokens(unix), { words, complaints: [] });
  assert.deepEqual(tokens(unix.replaceAll("\n", "\r\n")), { words, complaints: [] });
});

test("tokenize() takes a comment on a last line without newline, which the original does not", () => {
  assert.deepEqual(tokens("timeout 5\n# the end"), {
    words: ["1:1 timeout", "1:9 5", "2:10 end"],
    complaints: [],
  });
});

test("tokenize() ends a word at a comment sign, and begins none within a comment", () => {
  assert.deepEqual(tokens("a#b {\nc").words, ["1:1 a", "2:1 c", "2:2 end"]);
});

test("tokenize() skips a byte order mark at the start only", () => {
  assert.deepEqual(tokens("\ufefftimeout 5"), {
    words: ["1:1 timeout", "1:9 5", "1:10 end"],
    complaints: [],
  });
  assert.equal(tokens("timeout \ufeff5").complaints.length, 1);
});

test("tokenize() complains once per word with illegal characters, where the first of them is", () => {
  const { complaints } = tokens('local "/dev/x"\nname a=b;c\nname ü\0');
  assert.deepEqual(complaints, [
    '1:7 illegal character """: hast.conf has no quoting; write the value as it is, without spaces',
    '2:7 illegal character "=": a statement is a word and its value, separated by white space only',
    '3:6 illegal character "ü": names, paths and addresses consist of A-Z a-z 0-9 . - _ / : [ ]',
  ]);
});

test("tokenize() shows what cannot be seen by its number", () => {
  assert.match(tokens("a\u00a0b").complaints[0]!, /^1:2 illegal character U\+00A0:/);
  assert.match(tokens("\0").complaints[0]!, /^1:1 illegal character U\+0000:/);
  assert.match(tokens("a\ufffd").complaints[0]!, /^1:2 illegal character U\+FFFD:/);
});

test("tokenize() loses no character of any text", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      const words = tokenize(text, () => {}).map((token) => token.text);
      const rest = text.replace(/^\ufeff/, "").replace(/#[^\n]*/g, "");
      assert.equal(words.join("").replace(/\s/g, ""), rest.replace(/\s/g, ""));
    }),
  );
});

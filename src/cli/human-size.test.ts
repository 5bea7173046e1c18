// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { humanSize, parseSize } from "./human-size.ts";

test("humanSize() renders the examples of the specification (behaviour §16.3)", () => {
  const examples: [number, string][] = [
    [0, "0B"],
    [1, "1B"],
    [999, "999B"],
    [1000, "1.0KB"],
    [1024, "1.0KB"],
    [10189, "10KB"],
    [65536, "64KB"],
    [2097152, "2.0MB"],
    [134217728, "128MB"],
    [1610612736, "1.5GB"],
    [1099511558144, "1.0TB"],
    [1022976, "999KB"],
    [1023410176, "976MB"],
    [1043968, "1.0MB"],
    [8382464, "8.0MB"],
  ];
  for (const [bytes, text] of examples) assert.equal(humanSize(bytes), text);
});

test("humanSize() stays within five characters and near the truth for any size", () => {
  fc.assert(
    fc.property(fc.maxSafeInteger().map(Math.abs), (bytes) => {
      const text = humanSize(bytes);
      const [, digits, unit] = /^(\d{1,4}|\d\.\d)([KMGTPE]?)B$/.exec(text)!;
      const shown = Number(digits) * 1024 ** " KMGTPE".indexOf(unit || " ");
      assert.ok(Math.abs(shown - bytes) <= bytes * 0.06, `${bytes} became ${text}`);
    }),
  );
});

test("parseSize() takes suffixes of either case, hexadecimal and octal (on-disk layout §5)", () => {
  const examples: [string, number | null][] = [
    ["0", 0],
    ["4096", 4096],
    ["64k", 65536],
    ["64K", 65536],
    ["2m", 2097152],
    ["1G", 1073741824],
    ["1t", 1099511627776],
    ["1p", 1125899906842624],
    ["12b", 12],
    ["0x1000", 4096],
    ["0x1k", 1024],
    ["0x1b", 27],
    ["010", 8],
    ["", null],
    ["k", null],
    ["-1", null],
    ["+1", null],
    ["1.5G", null],
    ["1 G", null],
    ["1GB", null],
    ["1x", null],
    ["09", null],
    ["8e", null],
    ["99999999999999999999", null],
  ];
  for (const [text, bytes] of examples) assert.equal(parseSize(text), bytes, text);
});

test("parseSize() returns a safe non-negative integer or null for any text", () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      const size = parseSize(text);
      assert.ok(size === null || (Number.isSafeInteger(size) && size >= 0));
    }),
  );
});

// SPDX-License-Identifier: BSD-2-Clause
import { strict as assert } from "node:assert";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { METADATA_ERROR_CODES } from "../src/metadata/block.ts";
import { COMPONENT_ERROR_CODES } from "../src/platform/component.ts";
import { WIRE_ERROR_CODES } from "../src/wire/error.ts";

const ROOT = join(import.meta.dirname, "..");

/** The source, with each text in one piece that is written in several, and a NUL for what is filled in, which follows. */
function sourceTexts(): string {
  const files = globSync("src/**/*.ts", { cwd: ROOT }).filter((file) => !file.endsWith(".test.ts"));
  const source = files.map((file) => readFileSync(join(ROOT, file), "utf8")).join("\n");
  const constants = new Map(
    [...source.matchAll(/const ([A-Z_]+)(?:: string)? =\s*"([^"]*)"/g)].map(([, name, text]) => [
      name!,
      text!,
    ]),
  );
  const texts = source
    .replace(/\$\{([A-Z_]+)\}/g, (whole, name: string) => constants.get(name) ?? whole)
    .replace(/(?<!\\)["`] \+\s+["`]/g, "")
    .replaceAll("\\`", "`");
  const filledIn = /\$\{[^{}]*\}/g;
  return [texts.replace(filledIn, "\0"), ...texts.match(filledIn)!].join("\n");
}

/** Of a text that a runbook quotes, what stands in the source: not the names, numbers and places of its example. */
function fixedParts(quoted: string): string[] {
  return quoted
    .replace(/\bshared\b|(?<=acts as )init|\/dev\/\S+|\d[\d:.TZ-]*(?: UTC|[KMG]?B| s\b)?/g, "\0")
    .split(/[\0…(),;]|\. |: |\.$/)
    .map((part) => part.trim())
    .filter((part) => part.includes(" "));
}

test("what the runbooks quote is what the programs say", () => {
  const source = sourceTexts();
  const occurs = (part: string) =>
    source.includes(part) || source.includes(part.charAt(0).toLowerCase() + part.slice(1));
  // Or two texts, one of which is filled in at the other's end or beginning.
  const isSaid = (part: string) =>
    occurs(part) ||
    [...part.matchAll(/ /g)].some(({ index }) => {
      const [head, tail] = [part.slice(0, index), part.slice(index + 1)];
      return (occurs(`${head} \0`) && occurs(tail)) || (occurs(head) && occurs(`\0 ${tail}`));
    });
  let count = 0;
  for (const file of globSync("docs/runbooks/*.md", { cwd: ROOT })) {
    const page = readFileSync(join(ROOT, file), "utf8");
    const notes = [...page.matchAll(/^ *(?:shared: |\[[A-Z]+\] \[shared\] )(.*)$/gm)];
    const cells = [...page.matchAll(/^\| (`[^|]*) \|/gm)].flatMap(([, cell]) => [
      ...cell!.matchAll(/`` ?(.+?) ?``|`([^`]+)`/g),
    ]);
    // In a table, all but what was left out is said in one piece.
    const quotes = [
      ...notes.map(([, note]) => fixedParts(note!)),
      ...cells.map(([, twice, once]) => (twice ?? once!).split(/ *(?:…|[()])+ */)),
    ];
    for (const parts of quotes) {
      for (const part of parts) {
        count++;
        assert(isSaid(part), `${file} quotes "${part}", which nobody says`);
      }
    }
  }
  assert(count > 100, `${count} parts`);
});

test("docs/errors.md has a row for each error code, and for no other", () => {
  const page = readFileSync(join(import.meta.dirname, "..", "docs", "errors.md"), "utf8");
  const rows = [...page.matchAll(/^\| `([a-z0-9-]+)` \|/gm)].map(([, code]) => code);
  const codes = [...WIRE_ERROR_CODES, ...METADATA_ERROR_CODES, ...COMPONENT_ERROR_CODES];
  assert.deepEqual(rows.toSorted(), codes.toSorted());
});

// SPDX-License-Identifier: BSD-2-Clause
/** docs/hast.conf.md says what the parser does. */

import { strict as expect } from "node:assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { readConfig } from "../src/config/config.ts";
import { STATEMENTS } from "../src/config/syntax.ts";
import { parseAddress } from "../src/wire/address.ts";

const TEXT = readFileSync(join(import.meta.dirname, "../docs/hast.conf.md"), "utf8");
const ADOPT = readFileSync(join(import.meta.dirname, "../docs/adopt.md"), "utf8");
const COMPATIBILITY = readFileSync(join(import.meta.dirname, "../docs/compatibility.md"), "utf8");
/** Behaviour §15. */
const FREEBSD =
  "control pidfile listen replication checksum compression timeout exec metaflush name local remote source";
const PLACES: Readonly<Record<string, string>> = {
  file: "global",
  node: "node",
  resource: "resource",
  "resource's node": "resource-node",
};

function textBlocks(document: string): string[] {
  return [...document.matchAll(/^ *```text\n([\s\S]*?)^ *```$/gm)].map((match) => match[1]!);
}

test("the table of statements has a row for each, with the places where it is accepted", () => {
  const rows = [...TEXT.matchAll(/^\| `([a-z]+)` [^|]*(?:\\\|[^|]*)*\| ([^|]*) \|/gm)];
  const documented = Object.fromEntries(
    rows.map(([, keyword, places]) => [keyword, places!.split(", ").map((each) => PLACES[each])]),
  );
  expect.deepEqual(documented, STATEMENTS);
});

test("both pages that name the statements FreeBSD does not know name each of them", () => {
  const ours = Object.keys(STATEMENTS).filter((word) => !FREEBSD.split(" ").includes(word));
  for (const [page, sentence] of [
    [TEXT, /`remote` in the resource itself, (.*) are ours; FreeBSD does not know them/],
    [COMPATIBILITY, /refuses a hast\.conf .* `remote` in the resource itself, ([^.]*)\. Leave/],
  ] as const) {
    const named = [...(sentence.exec(page)?.[1] ?? "").matchAll(/`([a-z]+)`/g)];
    expect.deepEqual(named.map(([, word]) => word).toSorted(), ours.toSorted());
  }
});

test("the example files are configurations for both nodes", () => {
  const pages = [TEXT, ADOPT, COMPATIBILITY];
  const examples = pages
    .flatMap(textBlocks)
    .filter((block) => /^ *resource [a-z]+ [{]/m.test(block));
  expect.equal(examples.length, 3);
  for (const example of examples) {
    for (const name of ["alpha", "beta"]) {
      const result = readConfig(example, "f", { names: [name], uuid: null, hostid: null });
      expect.equal(result.kind, "config", JSON.stringify(result));
    }
  }
});

test("the example addresses are addresses", () => {
  const block = textBlocks(TEXT).find((each) => each.includes("fd00::1"))!;
  const addresses = block.trim().split(/\s+/);
  expect.equal(addresses.length, 12);
  for (const address of addresses) parseAddress(address);
});

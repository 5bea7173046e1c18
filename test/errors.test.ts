// SPDX-License-Identifier: BSD-2-Clause
import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { METADATA_ERROR_CODES } from "../src/metadata/block.ts";
import { COMPONENT_ERROR_CODES } from "../src/platform/component.ts";
import { WIRE_ERROR_CODES } from "../src/wire/error.ts";

test("docs/errors.md has a row for each error code, and for no other", () => {
  const page = readFileSync(join(import.meta.dirname, "..", "docs", "errors.md"), "utf8");
  const rows = [...page.matchAll(/^\| `([a-z0-9-]+)` \|/gm)].map(([, code]) => code);
  const codes = [...WIRE_ERROR_CODES, ...METADATA_ERROR_CODES, ...COMPONENT_ERROR_CODES];
  assert.deepEqual(rows.toSorted(), codes.toSorted());
});

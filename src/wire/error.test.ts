// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { WIRE_ERROR_CODES, WireError } from "./error.ts";

const SOURCES = join(import.meta.dirname, "..");

test("every code is a word of its own, and thrown somewhere", () => {
  const files = globSync("**/*.ts", { cwd: SOURCES }).filter(
    (path) => !path.endsWith(".test.ts") && path !== "wire/error.ts",
  );
  const text = files.map((path) => readFileSync(join(SOURCES, path), "utf8")).join("\n");
  expect.deepEqual(WIRE_ERROR_CODES, [...new Set(WIRE_ERROR_CODES)].sort());
  for (const code of WIRE_ERROR_CODES) {
    expect.match(code, /^[a-z]+(-[a-z]+)+$/);
    expect.ok(text.includes(`"${code}"`), `${code} is never thrown`);
  }
});

test("a WireError says what happened, and why", () => {
  const cause = new Error("deeper");
  const error = new WireError("nv-invalid", "type 18 does not exist", { cause });
  expect.ok(error instanceof Error);
  expect.deepEqual(
    [error.name, error.code, error.message, error.cause],
    ["WireError", "nv-invalid", "type 18 does not exist", cause],
  );
});

// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { printable } from "./printable.ts";

test("printable() leaves names as they are, and nothing that could pose as another line", () => {
  expect.equal(printable("shared-1 é"), "shared-1 é");
  expect.equal(printable("no\n[ERROR] all is lost\u001b[2J"), "no?[ERROR] all is lost?[2J");
  expect.equal(printable("x".repeat(5000)).length, 200);
});

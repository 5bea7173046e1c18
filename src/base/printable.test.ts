// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { printable } from "./printable.ts";

test("printable() leaves nothing that could end a line, move a cursor or fill a disk", () => {
  expect.equal(printable("a\nb\r\u001b[2J\u0000\u009b\u202e"), "a?b??[2J????".slice(0, 11));
  expect.equal(printable("Größe, 大小"), "Größe, 大小");
  expect.equal(printable("x".repeat(100_000)).length, 300);
});

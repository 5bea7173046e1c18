// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { formatComplaint } from "./complaint.ts";

test("formatComplaint() puts file, line and column first, as compilers do", () => {
  const complaint = { file: "/etc/hast.conf", line: 3, column: 9, message: "illegal character" };
  assert.equal(formatComplaint(complaint), "/etc/hast.conf:3:9: illegal character");
});

// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { AssertionError, assert, unreachable } from "./assert.ts";

test("assert() lets a true condition pass, whatever its type", () => {
  for (const truth of [true, 1, "x", {}, -1n]) assert(truth);
});

test("assert() throws AssertionError with the message for every false condition", () => {
  for (const lie of [false, 0, "", null, undefined, Number.NaN, 0n]) {
    expect.throws(
      () => assert(lie, "the map is smaller than the disk"),
      (error) =>
        error instanceof AssertionError &&
        error.name === "AssertionError" &&
        error.message === "the map is smaller than the disk",
    );
  }
});

test("assert() without a message still says what failed", () => {
  expect.throws(() => assert(false), { name: "AssertionError", message: "assertion failed" });
});

test("unreachable() names the value that should not exist", () => {
  expect.throws(() => unreachable({ kind: "fourth" } as never), {
    name: "AssertionError",
    message: 'unreachable: {"kind":"fourth"}',
  });
});

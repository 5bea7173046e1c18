// SPDX-License-Identifier: BSD-2-Clause
/** Compares long byte strings, and says where they differ instead of printing them. */

import { strict as expect } from "node:assert";

export function sameBytes(actual: Uint8Array, expected: Uint8Array, what = "bytes"): void {
  if (Buffer.compare(actual, expected) === 0) return;
  const end = Math.min(actual.length, expected.length);
  let at = 0;
  while (at < end && actual[at] === expected[at]) at++;
  const around = (bytes: Uint8Array): string =>
    Buffer.from(bytes.subarray(Math.max(0, at - 16), at + 32)).toString("hex");
  expect.fail(
    `${what}: ${actual.length} bytes where ${expected.length} are expected; they differ at byte ${at}\n` +
      `  actual   …${around(actual)}…\n  expected …${around(expected)}…`,
  );
}

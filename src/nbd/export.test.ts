// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { exportOf } from "../../test/nbd-peer.ts";
import { assertExport, type NbdExport, transmissionFlags } from "./export.ts";

// Numbers as the specification prints them, not our constants.
const ALWAYS = (1 << 0) | (1 << 2) | (1 << 3) | (1 << 5) | (1 << 6) | (1 << 10);
const DF = 1 << 7;
const MULTI_CONN = 1 << 8;

test("transmissionFlags() offers DF only with structured replies, several connections only if true", () => {
  const one = exportOf({ multiConn: false });
  const many = exportOf({ multiConn: true });
  expect.equal(transmissionFlags(one, false), ALWAYS);
  expect.equal(transmissionFlags(one, true), ALWAYS | DF);
  expect.equal(transmissionFlags(many, false), ALWAYS | MULTI_CONN);
  expect.equal(transmissionFlags(many, true), ALWAYS | DF | MULTI_CONN);
});

test("assertExport() takes the limits that we use", () => {
  for (const blockMinimum of [1, 512, 4096]) {
    assertExport(exportOf({ blockMinimum, payloadMaximum: 32 << 20, size: 2 ** 50 }));
  }
  assertExport(exportOf({ size: 0, description: "", contexts: [] }));
});

test("assertExport() rejects what the specification or the parser cannot bear", () => {
  const wrong: readonly Partial<NbdExport>[] = [
    { name: "" },
    { name: "é".repeat(513) },
    { description: "d".repeat(4097) },
    { size: -512 },
    { size: 2 ** 53 },
    { size: 1000 },
    { blockMinimum: 0 },
    { blockMinimum: 768 },
    { blockMinimum: 131072, blockPreferred: 131072, payloadMaximum: 1 << 20 },
    { blockPreferred: 256, blockMinimum: 1 },
    { blockPreferred: 2048, blockMinimum: 4096 },
    { payloadMaximum: 65535 },
    { payloadMaximum: 2 ** 31 },
    { contexts: ["allocation"] },
    { contexts: [":allocation"] },
    { contexts: ["base:"] },
  ];
  for (const change of wrong) {
    expect.throws(() => assertExport(exportOf(change)), { name: "AssertionError" }, String(change));
  }
});

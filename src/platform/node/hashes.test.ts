// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { nodeHashes } from "./hashes.ts";

const CHECK = new TextEncoder().encode("123456789");

test("crc32() is CRC-32/ISO-HDLC, unsigned (its published check value)", () => {
  assert.equal(nodeHashes.crc32(CHECK), 0xcbf43926);
});

test("sha256() gives 32 bytes (FIPS 180-2, example B.1)", () => {
  const digest = nodeHashes.sha256(new TextEncoder().encode("abc"));
  assert.equal(
    Buffer.from(digest).toString("hex"),
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
  );
});

// SPDX-License-Identifier: BSD-2-Clause
/** Extents of a pair, filled and read by clients, and damaged behind hastd's back. */

import { strict as assert } from "node:assert";
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { bytesOf, type Node } from "./two-nodes.ts";

/** What `create` chooses. */
export const EXTENT: number = 2 * 1024 * 1024;

/** Fills a block in the middle of each extent. */
export async function writeExtents(
  node: Node,
  extents: readonly number[],
  value: number,
): Promise<void> {
  const client = await node.connect();
  for (const extent of extents) {
    await client.write(extent * EXTENT + 64 * 1024, Buffer.alloc(8192, value));
  }
  await client.flush();
  await client.disconnect();
}

export async function readExtent(node: Node, extent: number): Promise<number> {
  const client = await node.connect();
  const data = await client.read(extent * EXTENT + 64 * 1024, 8192);
  await client.disconnect();
  assert.ok(data.every((byte) => byte === data[0]));
  return data[0]!;
}

/** Inverts a byte of a node's data area behind its back: whoever copies that extent, mends it. */
export async function spoil(node: Node, offset: number): Promise<void> {
  const at = bytesOf((await node.dump()).get("localoff")) + offset;
  const file = openSync(node.local, "r+");
  const byte = Buffer.alloc(1);
  readSync(file, byte, 0, 1, at);
  byte[0] = 0xff ^ byte[0]!;
  writeSync(file, byte, 0, 1, at);
  closeSync(file);
}

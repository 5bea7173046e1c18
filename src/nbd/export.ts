// SPDX-License-Identifier: BSD-2-Clause
/** What an NBD server offers: one disk, its limits, and what it can tell about its blocks. */

import { assert } from "../base/assert.ts";
import * as nbd from "./protocol.ts";

/** One disk on offer. The name is what clients ask for; the first export is also the default one. */
export interface NbdExport {
  /** 1 to 1024 bytes of UTF-8. */
  readonly name: string;
  /** For people, at most 4096 bytes of UTF-8. */
  readonly description: string;
  /** Bytes, a multiple of blockMinimum. */
  readonly size: number;
  /** Bytes: 1, 512 or 4096. Commands that are not aligned to it are refused. */
  readonly blockMinimum: number;
  /** Bytes, a power of two: requests aligned to it are fast. */
  readonly blockPreferred: number;
  /** Bytes, the longest READ or WRITE. At least 64 KiB. */
  readonly payloadMaximum: number;
  /** True if a FLUSH on one connection covers whatever was answered on any connection. */
  readonly multiConn: boolean;
  /** What BLOCK_STATUS can tell, such as "base:allocation". */
  readonly contexts: readonly string[];
}

/** A metadata context that the client selected, and the id that answers carry. */
export interface NbdContext {
  readonly name: string;
  readonly id: number;
}

/**
 * What the client is told the export can do. SEND_FAST_ZERO is absent: a peer has to be told, over a network.
 *
 * Source: NBD protocol, "Transmission flags".
 */
export function transmissionFlags(disk: NbdExport, structured: boolean): number {
  return (
    nbd.NBD_FLAG_HAS_FLAGS |
    nbd.NBD_FLAG_SEND_FLUSH |
    nbd.NBD_FLAG_SEND_FUA |
    nbd.NBD_FLAG_SEND_TRIM |
    nbd.NBD_FLAG_SEND_WRITE_ZEROES |
    nbd.NBD_FLAG_SEND_CACHE |
    (structured ? nbd.NBD_FLAG_SEND_DF : 0) |
    (disk.multiConn ? nbd.NBD_FLAG_CAN_MULTI_CONN : 0)
  );
}

/** The limits that the parser and the specification rely on. */
export function assertExport(disk: NbdExport): void {
  assert(disk.name.length > 0);
  assert(stringSize(disk.name) <= 1024); // so that a message may quote it
  assert(stringSize(disk.description) <= nbd.NBD_STRING_SIZE_MAX);
  assert(Number.isSafeInteger(disk.size));
  assert(disk.size >= 0);
  assert(isPowerOfTwo(disk.blockMinimum));
  assert(disk.blockMinimum <= 65536);
  assert(disk.size % disk.blockMinimum === 0);
  assert(isPowerOfTwo(disk.blockPreferred));
  assert(disk.blockPreferred >= Math.max(512, disk.blockMinimum));
  assert(Number.isSafeInteger(disk.payloadMaximum));
  assert(disk.payloadMaximum >= Math.max(65536, disk.blockPreferred));
  assert(disk.payloadMaximum < 2 ** 31);
  for (const context of disk.contexts) assert(/^[!-9;-~]+:./.test(context));
}

function stringSize(text: string): number {
  return new TextEncoder().encode(text).length;
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && (value & (value - 1)) === 0;
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * The memory that requests live in: one page-aligned area of fixed size.
 *
 * A WebAssembly.Memory, because Node aligns plain buffers to 16 bytes only, and a disk opened with
 * O_DIRECT wants sectors. The kernel gives it pages as they are first touched, zeroed.
 */
import { assert } from "../../base/assert.ts";

// The one part used; its types otherwise come only with a browser's whole library.
declare const WebAssembly: {
  readonly Memory: new (limits: {
    initial: number;
    maximum: number;
  }) => { readonly buffer: ArrayBuffer };
};

const WASM_PAGE_SIZE = 65536;

/**
 * @param size bytes, > 0, < 4 GiB
 * @returns a view at byteOffset 0, whose address is a multiple of 65536; all zeroes
 */
export function createArena(size: number): Buffer {
  assert(size > 0);
  assert(size < 2 ** 32);
  const pageCount = Math.ceil(size / WASM_PAGE_SIZE);
  const memory = new WebAssembly.Memory({ initial: pageCount, maximum: pageCount });
  return Buffer.from(memory.buffer, 0, size);
}

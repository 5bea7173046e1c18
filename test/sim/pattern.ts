// SPDX-License-Identifier: BSD-2-Clause
/**
 * What a simulated write puts into each cell (one sector): bytes that say which write it was and where.
 *
 *   write u32 │ cell u32 │ words that follow from both
 *
 * so that a cell on a disk, or in a reply, is a number: which write's, 0 for zeroes.
 */

/** Fills whole cells from `cell` on with what write number `write` (> 0) puts there. */
export function fillCells(bytes: Uint8Array, cell: number, cellSize: number, write: number): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const perCell = cellSize / 4;
  for (let start = 0; start < words.length; start += perCell, cell++) {
    words[start] = write;
    words[start + 1] = cell;
    for (let index = 2; index < perCell; index++) words[start + index] = word(write, cell, index);
  }
}

/** Every third write can be compressed. */
function word(write: number, cell: number, index: number): number {
  return write % 3 === 0
    ? write
    : Math.imul(write * 31 + cell, 0x9e3779b1 ^ Math.imul(index, 7919));
}

/**
 * Which write filled the cell whose bytes begin at `at`; 0 for zeroes.
 * @returns -1 if no write fills this cell so
 */
export function cellContent(bytes: Uint8Array, at: number, cell: number, cellSize: number): number {
  const words = wordsOf(bytes, at, cellSize);
  const write = words[0]!;
  if (write === 0) {
    for (let index = 1; index < words.length; index++) if (words[index] !== 0) return -1;
    return 0;
  }
  if (words[1] !== cell) return -1;
  for (let index = 2; index < words.length; index++) {
    if (words[index] !== word(write, cell, index) >>> 0) return -1;
  }
  return write;
}

function wordsOf(bytes: Uint8Array, at: number, length: number): Uint32Array {
  const start = bytes.byteOffset + at;
  if (start % 4 === 0) return new Uint32Array(bytes.buffer, start, length / 4);
  return new Uint32Array(bytes.slice(at, at + length).buffer);
}

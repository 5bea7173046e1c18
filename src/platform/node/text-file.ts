// SPDX-License-Identifier: BSD-2-Clause
/** Small files that people write. */

import fs from "node:fs";
import { getSystemErrorMessage } from "node:util";

/** What is longer was given by mistake: a disk, say, or /dev/zero. */
const SIZE_MAX: number = 16 * 1024 * 1024;

/** @returns the whole text, or one phrase that says why it cannot be read */
export function readTextFile(
  path: string,
): { readonly text: string } | { readonly failure: string } {
  try {
    const fd = fs.openSync(path, "r");
    try {
      return readAll(fd);
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    const { errno } = error as NodeJS.ErrnoException;
    if (errno === undefined) throw error;
    return { failure: getSystemErrorMessage(errno) };
  }
}

function readAll(fd: number): { readonly text: string } | { readonly failure: string } {
  const chunks: Buffer[] = [];
  for (let size = 0; size <= SIZE_MAX; ) {
    const chunk = Buffer.alloc(65536);
    const got = fs.readSync(fd, chunk);
    if (got === 0) return { text: Buffer.concat(chunks).toString("utf8") };
    chunks.push(chunk.subarray(0, got));
    size += got;
  }
  return { failure: `it is longer than ${SIZE_MAX / 1024 / 1024} MiB` };
}

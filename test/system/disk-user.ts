// SPDX-License-Identifier: BSD-2-Clause
/**
 * Opens a disk as the worker, or hastctl, does, and uses it: a process for killed-worker.test.ts to kill.
 *
 *   node disk-user.ts PATH ENGINE     ENGINE: a worker's, or "component" for hastctl's way
 *
 * Says "open", or why not. At the first byte on standard input it says "writing", fills the first
 * {@link WRITES} pieces with {@link FILLING} and flushes. Ends with its standard input.
 */

import { createArena } from "../../src/platform/node/arena.ts";
import { openComponent } from "../../src/platform/node/component.ts";
import { type DiskEngine, openDisk } from "../../src/platform/node/disk.ts";

export const WRITES = 8;
/** Bytes. */
export const PIECE_SIZE = 65_536;
export const FILLING = 0x5a;

/** All pieces at once. */
function worker(path: string, engine: DiskEngine): () => void {
  const arena = createArena(WRITES * PIECE_SIZE);
  arena.fill(FILLING);
  const disk = openDisk(path, { arena, lock: true, engine, warn: console.error });
  let written = 0;
  disk.attach({
    diskDone: () => {
      written += 1;
      if (written !== WRITES) return;
      disk.flush(WRITES);
      disk.submit();
    },
    diskIdle: () => {},
  });
  return () => {
    for (let at = 0; at < WRITES; at++) {
      disk.write(at, at * PIECE_SIZE, PIECE_SIZE, at * PIECE_SIZE);
    }
    disk.submit();
  };
}

/** One piece after the other. */
async function hastctl(path: string): Promise<() => void> {
  const component = await openComponent(path, "write");
  return async () => {
    await component.writeAt(0, new Uint8Array(WRITES * PIECE_SIZE).fill(FILLING));
    await component.flush();
  };
}

if (import.meta.main) {
  const [path, engine] = process.argv.slice(2) as [string, string];
  try {
    const write = engine === "component" ? await hastctl(path) : worker(path, engine as DiskEngine);
    console.log("open");
    process.stdin.once("data", () => {
      console.log("writing");
      write();
    });
    process.stdin.once("end", () => process.exit(0));
    process.stdin.resume();
  } catch (error) {
    console.log((error as { code?: string }).code ?? String(error));
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * File descriptors, which connections must not use up: disks, workers, hooks and the log need some, too.
 * At the limit Node closes new connections without telling anybody, so we stop before it.
 */

import { closeSync, openSync } from "node:fs";

/** What is left for hastctl, when peers and strangers take all that they can get. */
export const SPARE_FOR_PEERS = 24;
/** What is left for workers and hooks when the clients of a UNIX socket do. */
export const SPARE_FOR_CLIENTS = 12;

/** For the log; a sentence without its full stop. */
export const TOO_FEW_DESCRIPTORS =
  "this process has too few file descriptors left, and closed it. Raise the limit: LimitNOFILE= in hastd's unit, or ulimit -Hn before hastd is started";

/** Whether `count` more descriptors could be opened now. The kernel is asked, since workers may not read /proc. */
export function canOpen(count: number): boolean {
  const opened: number[] = [];
  try {
    while (opened.length < count) opened.push(openSync("/dev/null", "r"));
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EMFILE" || code === "ENFILE") return false;
    throw error;
  } finally {
    for (const fd of opened) closeSync(fd);
  }
}

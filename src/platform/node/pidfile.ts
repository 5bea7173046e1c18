// SPDX-License-Identifier: BSD-2-Clause
/**
 * The pidfile: mode 0600, locked while the daemon lives, the pid in decimal without a newline.
 * Source: FreeBSD lib/libutil/pidfile.c; behaviour §2.
 */

import fs from "node:fs";
import { EAGAIN, flockExclusive } from "./libc.ts";

/** Another daemon holds the lock. */
export class PidfileBusyError extends Error {
  override readonly name = "PidfileBusyError";
  /** What the file says, or null where it says nothing yet. */
  readonly pid: number | null;
  constructor(path: string, pid: number | null) {
    super(`${path} is locked by another hastd${pid === null ? "" : ` (pid ${pid})`}`);
    this.pid = pid;
  }
}

export class Pidfile {
  readonly path: string;
  readonly #fd: number;

  /**
   * Creates or takes over, and locks.
   * @throws PidfileBusyError; or a system error, such as EACCES or ENOENT
   */
  constructor(path: string) {
    this.path = path;
    for (;;) {
      const fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600);
      const result = flockExclusive(fd);
      if (result === -EAGAIN) {
        const text = fs.readFileSync(fd, "utf8");
        fs.closeSync(fd);
        throw new PidfileBusyError(path, /^\d+$/.test(text) ? Number(text) : null);
      }
      if (result !== 0) {
        fs.closeSync(fd);
        throw new Error(`${path} cannot be locked (errno ${-result})`);
      }
      // The previous owner may have removed it between our open and our lock.
      if (isFileAt(path, fd)) {
        this.#fd = fd;
        return;
      }
      fs.closeSync(fd);
    }
  }

  write(pid: number): void {
    fs.ftruncateSync(this.#fd);
    fs.writeSync(this.#fd, String(pid), 0);
  }

  /** Removes the file, then unlocks it. */
  remove(): void {
    fs.rmSync(this.path, { force: true });
    fs.closeSync(this.#fd);
  }
}

function isFileAt(path: string, fd: number): boolean {
  const there = fs.statSync(path, { throwIfNoEntry: false });
  const here = fs.fstatSync(fd);
  return there !== undefined && there.dev === here.dev && there.ino === here.ino;
}

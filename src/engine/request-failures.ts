// SPDX-License-Identifier: BSD-2-Clause
/**
 * Requests that a disk failed: told at once, then at most once a minute, and remembered for status.
 *
 * A full or dying disk fails thousands of them, and each is answered on its own; an operator needs to hear
 * it once, with what to do.
 */

import type { Clock } from "../platform/clock.ts";
import { errnoText } from "../wire/errno.ts";
import { duration } from "./quantities.ts";

/** Between two warnings about one disk. */
export const REPEAT_MS = 60_000;
/** Failures older than this are history, which `local errors` of `hastctl list` keeps counting. */
export const REMEMBERED_MS = 3_600_000;

const EINVAL = 22;
const ENOSPC = 28;
const EDQUOT = 122;
const EROFS = 30;

export class RequestFailures {
  readonly #disk: string;
  readonly #clock: Clock;
  readonly #warn: (text: string) => void;
  #count = 0;
  #sinceWarning = 0;
  #lastAt = 0;
  #last = "";
  #warnedAt = Number.NEGATIVE_INFINITY;

  /** @param disk whose, as messages begin: "the local component /dev/sdb", "the peer's component" */
  constructor(disk: string, clock: Clock, warn: (text: string) => void) {
    this.#disk = disk;
    this.#clock = clock;
    this.#warn = warn;
  }

  /** @param what "reading", "writing", … */
  failed(what: string, errno: number): void {
    const now = this.#clock.now();
    this.#count++;
    this.#sinceWarning++;
    this.#lastAt = now;
    this.#last = `${what}: ${errnoText(errno)}`;
    if (now - this.#warnedAt < REPEAT_MS) return;
    const again =
      this.#sinceWarning > 1 ? ` (${this.#sinceWarning} requests since the last warning)` : "";
    this.#warn(`${this.#disk} failed a request, ${this.#last}${again}.${advice(errno)}`);
    this.#warnedAt = now;
    this.#sinceWarning = 0;
  }

  /** For status, or null where nothing has happened lately. */
  get note(): string | null {
    const ago = this.#clock.now() - this.#lastAt;
    if (this.#count === 0 || ago > REMEMBERED_MS) return null;
    const requests = this.#count === 1 ? "1 request" : `${this.#count} requests, the last`;
    return `${this.#disk} failed ${requests} ${duration(ago)} ago, ${this.#last}`;
  }
}

function advice(errno: number): string {
  switch (errno) {
    case EINVAL:
      return " If its sectors are larger than the other node's, hastctl status on that machine says so.";
    case ENOSPC:
    case EDQUOT:
      return " Make room on the file system it lies on.";
    case EROFS:
      return " Remount the file system it lies on read/write; see dmesg for why it is not.";
    default:
      return " See the kernel's log on that machine: dmesg.";
  }
}

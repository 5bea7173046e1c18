// SPDX-License-Identifier: BSD-2-Clause
/** How many of a stream's writes have left, told to its reader once in a turn of the event loop. */

import type { StreamReader } from "../net.ts";

export class SentReports {
  #reader: StreamReader | null = null;
  #count = 0;
  #scheduled = false;

  /** The callback of each write to the socket. */
  readonly written = (error: Error | null | undefined): void => {
    if (error) return; // "error" and "close" tell it
    this.#count += 1;
    this.#schedule();
  };

  start(reader: StreamReader): void {
    this.#reader = reader;
    if (this.#count > 0) this.#schedule();
  }

  /** Nothing is told any more. */
  stop(): void {
    this.#reader = null;
  }

  #schedule(): void {
    if (this.#scheduled || this.#reader === null) return;
    this.#scheduled = true;
    process.nextTick(this.#report);
  }

  readonly #report = (): void => {
    this.#scheduled = false;
    const count = this.#count;
    this.#count = 0;
    this.#reader?.sent(count);
  };
}

// SPDX-License-Identifier: BSD-2-Clause
/** The story of a run: its last lines for people, and a number that tells two stories apart. */

export class Trace {
  readonly #nowMs: () => number;
  readonly #keep: number;
  #lines: string[] = [];
  #hash = 0x811c9dc5;
  count = 0;

  /** @param keep how many lines at least stay */
  constructor(nowMs: () => number, keep: number) {
    this.#nowMs = nowMs;
    this.#keep = keep;
  }

  note(text: string): void {
    const line = `${(this.#nowMs() / 1000).toFixed(4)}  ${text}`;
    this.count++;
    // FNV-1a.
    let hash = this.#hash;
    for (let index = 0; index < line.length; index++) {
      hash = Math.imul(hash ^ line.charCodeAt(index), 0x01000193);
    }
    this.#hash = hash;
    this.#lines.push(line);
    if (this.#lines.length > this.#keep * 2) this.#lines = this.#lines.slice(-this.#keep);
  }

  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, "0");
  }

  get lines(): readonly string[] {
    return this.#lines.slice(-this.#keep);
  }
}

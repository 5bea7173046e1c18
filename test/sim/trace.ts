// SPDX-License-Identifier: BSD-2-Clause
/** The story of a run: its last lines for people, and a number that tells two stories apart. */

/** Cells that a line is about. */
export interface Cells {
  readonly from: number;
  /** 0: none in particular. */
  readonly count: number;
}

interface Line {
  readonly text: string;
  /** "detail": of interest only to who reads everything. Null: to everybody. */
  readonly about: Cells | "detail" | null;
}

export class Trace {
  readonly #nowMs: () => number;
  readonly #keep: number;
  #lines: Line[] = [];
  #hash = 0x811c9dc5;
  count = 0;

  /**
   * @param nowMs since the beginning
   * @param keep how many lines at least stay
   */
  constructor(nowMs: () => number, keep: number) {
    this.#nowMs = nowMs;
    this.#keep = keep;
  }

  note(what: string, about: Cells | "detail" | null = null): void {
    const text = `${(this.#nowMs() / 1000).toFixed(4).padStart(9)}  ${what}`;
    this.count++;
    // FNV-1a.
    let hash = this.#hash;
    for (let index = 0; index < text.length; index++) {
      hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
    }
    this.#hash = hash;
    this.#lines.push({ text, about });
    if (this.#lines.length > this.#keep * 2) this.#lines = this.#lines.slice(-this.#keep);
  }

  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, "0");
  }

  get lines(): readonly string[] {
    return this.#lines.map(({ text }) => text);
  }

  /** What matters to some cells: faults, roles, the operator, and what was done to these. */
  linesAbout(cells: ReadonlySet<number>): string[] {
    const matters = ({ about }: Line): boolean => {
      if (about === null) return true;
      if (about === "detail") return false;
      if (about.count === 0) return cells.size > 0;
      return [...cells].some((cell) => cell >= about.from && cell < about.from + about.count);
    };
    return this.#lines.filter(matters).map(({ text }) => text);
  }
}

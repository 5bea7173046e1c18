// SPDX-License-Identifier: BSD-2-Clause
/** What must hold does not. */

export class Violation extends Error {
  override readonly name = "Violation";
}

/** What went wrong, without numbers and names: equal where two failures are of one kind. */
export function kindOf(failure: Error): string {
  return failure.message
    .split("; ", 1)[0]!
    .replace(/\(counts .*/, "")
    .replace(/\b(READ|WRITE|ZERO) \d+@\S+( FUA)?|READ@\S+|FLUSH/g, "request")
    .replace(/\d+/g, "#")
    .replace(/# \(of [^)]*\)|#(, #)+/g, "#")
    .replace(/\b(A|B)\b/g, "node")
    .trim();
}

/** The cells that a failure names. */
export function cellsOf(failure: Error): ReadonlySet<number> {
  return new Set([...failure.message.matchAll(/\bcell (\d+)/g)].map(([, cell]) => Number(cell)));
}

// SPDX-License-Identifier: BSD-2-Clause
/** The commands that a page in docs/failover/ tells to type, so that what is told is what is tried. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

const PAGES = join(import.meta.dirname, "..", "..", "docs", "failover");

/** @returns the one block of shell commands under this heading of the page */
export function recipe(page: string, heading: string): string {
  const text = readFileSync(join(PAGES, page), "utf8");
  const section = text.split(/^## /m).find((each) => each.startsWith(`${heading}\n`));
  const blocks = [...(section ?? "").matchAll(/^```sh\n(.*?)^```$/gms)];
  if (blocks.length !== 1) {
    throw new Error(`${page}: ${blocks.length} blocks of shell commands under "${heading}"`);
  }
  return blocks[0]![1]!;
}

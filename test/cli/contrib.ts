// SPDX-License-Identifier: BSD-2-Clause
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** The text of a file of contrib/. */
export function contrib(path: string): string {
  return readFileSync(join(import.meta.dirname, "..", "..", "contrib", path), "utf8");
}

// SPDX-License-Identifier: BSD-2-Clause
/** Text from strangers, on its way to a person. */

/** Two fingerprints, and what is said of them. */
const LENGTH_MAX = 300;

/** What somebody said, fit for a line of a log: short, and without line breaks and escape sequences. */
export function printable(text: string): string {
  return text.slice(0, LENGTH_MAX).replace(/\p{C}/gu, "?");
}

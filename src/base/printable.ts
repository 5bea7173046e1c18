// SPDX-License-Identifier: BSD-2-Clause
/** Text from strangers, fit for a log line. */

const LENGTH_MAX = 200;

/** At most {@link LENGTH_MAX} characters of `text`, with question marks for those that do not print. */
export function printable(text: string): string {
  return text.slice(0, LENGTH_MAX).replace(/\p{C}/gu, "?");
}

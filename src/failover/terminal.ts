// SPDX-License-Identifier: BSD-2-Clause
/** Where the commands of hast-failover print, and the codes that they end with. */

/** Both take whole lines, newline included. */
export interface Terminal {
  out(text: string): void;
  err(text: string): void;
}

export const EX_OK = 0;
/** It is not as it should be, or was refused; the output says what to do. */
export const EX_UNFIT = 1;
/** No member of etcd was of use. */
export const EX_UNAVAILABLE = 69;
/** hastd cannot be reached, or does not answer. */
export const EX_OSERR = 71;

/** Prints what is true, then what to do next, the later lines indented. */
export function printError(terminal: Terminal, [first, ...rest]: readonly string[]): void {
  terminal.err(`hast-failover: ${first}\n`);
  for (const line of rest) terminal.err(`  ${line}\n`);
}

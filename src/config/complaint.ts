// SPDX-License-Identifier: BSD-2-Clause
/** What is wrong with a hast.conf, and where. */

export interface Complaint {
  readonly file: string;
  /** From 1. */
  readonly line: number;
  /** Characters, from 1; a tab counts as one. */
  readonly column: number;
  /** What is true and what to write instead; no trailing newline. */
  readonly message: string;
}

/** "FILE:LINE:COLUMN: MESSAGE", as compilers print it and editors read it. */
export function formatComplaint(complaint: Complaint): string {
  return `${complaint.file}:${complaint.line}:${complaint.column}: ${complaint.message}`;
}

// SPDX-License-Identifier: BSD-2-Clause
/** Other programs, run to their end. */

/**
 * Runs a program, found on PATH, with this text as its input; its output is ours.
 *
 * @param argv at least the program's name
 * @returns its exit code, 128 + n where signal n ended it; or why there was no program
 */
export type RunProgram = (
  argv: readonly string[],
  input: string,
) => Promise<{ readonly exitCode: number } | { readonly failure: string }>;

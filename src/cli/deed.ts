// SPDX-License-Identifier: BSD-2-Clause
/**
 * What the answer to one of our own commands looks like: per resource a heading and indented lines.
 *
 *   shared: this node's changes are discarded
 *     thrown away, the changes of this node: 12 extents (24MB), alone since 2026-11-21 05:59:34 UTC
 */
import type { DeedEntry } from "../wire/control.ts";
import { printError, type Terminal } from "./command.ts";
import type { Answer } from "./control-client.ts";
import { exitCodeOf } from "./exit-code.ts";

/** Prints it. @returns the exit code */
export function reportDeeds(
  answer: Answer<DeedEntry>,
  heading: string,
  terminal: Terminal,
): number {
  if (answer.kind === "failed") {
    printError(terminal, null, answer.lines);
    return answer.exitCode;
  }
  for (const { resource, outcome, errmsg, notes } of answer.entries) {
    if (outcome.kind === "failed") {
      printError(terminal, resource, [
        errmsg ?? `Received error ${outcome.error} from hastd.`,
        ...notes,
      ]);
      continue;
    }
    terminal.out(`${resource}: ${heading}\n`);
    for (const note of notes) terminal.out(`  ${note}\n`);
  }
  return exitCodeOf(answer.entries);
}

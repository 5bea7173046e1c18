// SPDX-License-Identifier: BSD-2-Clause
/**
 * `hastctl status`: a table, then what we have to say beyond the original, indented by two spaces.
 *
 *   Name␉Status␉ Role␉␉Components
 *   r0␉complete primary        /dev/sdb␉tcp://10.0.0.2
 *     r0: 3.2MB of 1.0GB await resync
 *
 * Source: FreeBSD sbin/hastctl/hastctl.c, control_status(); behaviour §16.2.
 */
import type { StatusEntry } from "../wire/control.ts";
import { type Command, printError, type Terminal } from "./command.ts";
import { exitCodeOf } from "./exit-code.ts";

export const status: Command = {
  name: "status",
  options: [],
  synopsis: "[all | name ...]",
  refuse: () => null,
  async run(names, _options, { terminal, control }) {
    const answer = await control.status(names.length > 0 ? names : ["all"]);
    if (answer.kind === "failed") {
      printError(terminal, null, answer.lines);
      return answer.exitCode;
    }
    printStatus(answer.entries, terminal);
    return exitCodeOf(answer.entries);
  },
};

function printStatus(entries: readonly StatusEntry[], terminal: Terminal): void {
  if (entries.length > 0) terminal.out("Name\tStatus\t Role\t\tComponents\n");
  for (const { resource, outcome } of entries) {
    if (outcome.kind === "failed") {
      terminal.out(`${resource}\tERR${outcome.error}\n`);
      continue;
    }
    const { role, worker, localpath, remoteaddr } = outcome.status;
    const state = (worker?.status ?? "-").padEnd(9);
    terminal.out(`${resource}\t${state}${role.padEnd(15)}${localpath}\t${remoteaddr}\n`);
  }
  for (const { resource, errmsg, notes } of entries) {
    for (const note of errmsg === null ? notes : [errmsg, ...notes]) {
      terminal.out(`  ${resource}: ${note}\n`);
    }
  }
}

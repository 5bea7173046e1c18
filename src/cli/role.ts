// SPDX-License-Identifier: BSD-2-Clause
/**
 * `hastctl role`: silent on success. With --force a node becomes primary whatever the rules of promotion say
 * (replication/promotion.ts); that is on record afterwards. And it ceases to be primary although its device
 * is used.
 * hastd answers when the new role works, or says why it does not.
 * Source: FreeBSD sbin/hastctl/hastctl.c, control_set_role(); behaviour §16.2.
 */
import type { Role, SetRoleEntry } from "../wire/control.ts";
import { type Command, type Options, printError, printWarning, type Terminal } from "./command.ts";
import { exitCodeOf } from "./exit-code.ts";
import { insist } from "./insist.ts";

/** Seconds; a day. */
const WAIT_MAX = 86_400;

export const role: Command = {
  name: "role",
  options: [
    { flag: "--wait", argument: "seconds" },
    { flag: "--force", argument: null },
  ],
  synopsis: "<init | primary | secondary> all | name ...",
  refuse([wanted, ...names], options) {
    if (wanted === undefined) return "";
    if (!isRole(wanted))
      return `there is no role "${wanted}"; roles are init, primary and secondary`;
    if (waitMs(options) === null) {
      return `"${options.get("--wait")}" is no time to wait: write seconds, from 0 to ${WAIT_MAX}`;
    }
    return names.length === 0 ? `name the resource to become ${wanted}, or all` : null;
  },
  async run([wanted, ...names], options, { terminal, control, clock, debug }) {
    const ask = (missing: readonly string[]): ReturnType<typeof control.setRole> =>
      control.setRole(wanted as Role, missing, options.has("--force"));
    const answer = await insist(ask, names, clock, waitMs(options) ?? 0);
    if (answer.kind === "failed") {
      printError(terminal, null, answer.lines);
      return answer.exitCode;
    }
    for (const entry of answer.entries) report(entry, wanted as Role, { terminal, debug });
    return exitCodeOf(answer.entries);
  },
};

/** @returns milliseconds, 0 without --wait; null where it makes no sense */
function waitMs(options: Options): number | null {
  const text = options.get("--wait") ?? "0";
  return /^[0-9]{1,5}$/.test(text) && Number(text) <= WAIT_MAX ? Number(text) * 1000 : null;
}

function report(
  { resource, outcome, errmsg, notes }: SetRoleEntry,
  wanted: Role,
  { terminal, debug }: { readonly terminal: Terminal; readonly debug: number },
): void {
  if (outcome.kind === "failed") {
    if (errmsg !== null) {
      printError(terminal, resource, [...errmsg.split("\n"), ...notes]);
      return;
    }
    // Word for word the original's: scripts look for it.
    terminal.err(`[WARNING] [${resource}] Received error ${outcome.error} from hastd.\n`);
    for (const note of notes) terminal.err(`  ${note}\n`);
    return;
  }
  if (debug > 0) {
    terminal.out(
      `[DEBUG][1] [${resource}] Role changed from ${outcome.previousRole} to ${wanted}.\n`,
    );
  }
  for (const note of notes) printWarning(terminal, resource, [note]);
}

function isRole(word: string): word is Role {
  return word === "init" || word === "primary" || word === "secondary";
}

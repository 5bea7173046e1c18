// SPDX-License-Identifier: BSD-2-Clause
/**
 * `hastctl config diff`: what a file would change on this node, and what each change costs.
 *
 *   without --from   against what hastd says it uses: every setting, and the roles
 *   with --from      against another file: every setting; roles are hastd's where it answers
 *
 * Ours; the original has no such command. Source of the verdicts: behaviour §12.
 */
import { unreachable } from "../base/assert.ts";
import {
  type Changes,
  changesBetween,
  type ResourceChange,
  type Role,
  settingText,
} from "../config/changes.ts";
import { formatComplaint } from "../config/complaint.ts";
import { type Config, readConfig } from "../config/config.ts";
import { NODE_IN_USE } from "../config/format.ts";
import type { ResourceStatus } from "../wire/control.ts";
import { type FileCommand, printError, type Terminal } from "./command.ts";
import { loadConfig } from "./config-file.ts";
import type { Answer, Control } from "./control-client.ts";
import { EX_OK, EX_SOFTWARE } from "./exit-code.ts";

type Failed = Extract<Answer<never>, { kind: "failed" }>;

export const configDiff: FileCommand = {
  name: "config diff",
  options: [{ flag: "--from", argument: "file" }],
  synopsis: "[file]",
  refuse: (args) => (args.length > 1 ? "one file at a time; --from names the other" : null),
  async runAtDesk([given], options, desk) {
    const { terminal } = desk;
    const load = (file: string): ReturnType<typeof loadConfig> =>
      loadConfig(file, desk, () => desk.here);
    const to = load(given ?? desk.configPath);
    if (typeof to === "number") return to;
    const fromFile = options.get("--from");
    const from = fromFile === undefined ? null : load(fromFile);
    if (typeof from === "number") return from;
    // The hastd that runs listens where -c says, whatever the new file will have it do.
    const inUse = from ?? (given === undefined ? to : load(desk.configPath));
    if (typeof inUse === "number") return inUse;

    const control = desk.controlOf(inUse);
    const known = from ?? (await configInUse(control));
    if ("kind" in known) {
      printError(terminal, null, [
        ...known.lines,
        "To compare two files instead:",
        `  ${desk.suggest("config diff", `--from OLDFILE ${to.file}`)}`,
      ]);
      return known.exitCode;
    }
    const answer = await control.status(["all"]);
    const running = new Map<string, ResourceStatus>();
    if (answer.kind === "answered") {
      for (const { resource, outcome } of answer.entries) {
        if (outcome.kind === "known") running.set(resource, outcome.status);
      }
    }
    const changes = (fallback: Role): Changes =>
      changesBetween(known, to, (name) => running.get(name)?.role ?? fallback);
    const [asSecondary, asPrimary] = [changes("secondary"), changes("primary")];
    for (const change of asSecondary.daemon) terminal.out(`hastd: ${settingText(change)}\n`);
    for (const [index, change] of asSecondary.resources.entries()) {
      const role = running.get(change.resource)?.role ?? null;
      printChange(terminal, change, asPrimary.resources[index]!, role);
    }
    if (asSecondary.daemon.length + asSecondary.resources.length === 0) {
      terminal.out("Nothing would change.\n");
    }
    return EX_OK;
  },
};

/** All that hastd uses, or why it does not say. */
async function configInUse(control: Control): Promise<Config | Failed> {
  const answer = await control.config();
  if (answer.kind === "failed") return answer;
  const text = answer.entries.flatMap(({ notes }) => notes).join("\n");
  const here = { names: [NODE_IN_USE], uuid: null, hostid: null };
  const result = readConfig(`${text}\n`, "the configuration in use", here);
  if (result.kind === "config") return result.config;
  const lines = ["hastd's answer is not understood.", ...result.complaints.map(formatComplaint)];
  return { kind: "failed", lines, exitCode: EX_SOFTWARE };
}

/** @param role null where it is not known: `change` is then for a secondary, `asPrimary` for a primary */
function printChange(
  terminal: Terminal,
  change: ResourceChange,
  asPrimary: ResourceChange,
  role: Role | null,
): void {
  const { resource } = change;
  const say = (text: string): void => terminal.out(`${resource}: ${text}\n`);
  switch (change.kind) {
    case "added":
      say("added, in role init");
      return;
    case "removed":
      say(`removed${role === null ? "" : `; its role is ${role}`}`);
      return;
    case "live":
      say(`changed live; its role is ${role ?? "primary"}`);
      break;
    case "restarted":
      if (role !== null)
        say(`restarted, back to role ${role}${role === "init" ? ": nothing runs" : ""}`);
      else if (asPrimary.kind === "live") say("changed live if it is primary, else restarted");
      else say("restarted, whatever its role");
      if (role === "primary") terminal.out("  its disk disappears and comes back\n");
      break;
    default:
      unreachable(change);
  }
  for (const reason of change.reasons) terminal.out(`  ${settingText(reason)}\n`);
  if (change.kind === "restarted") {
    for (const besides of change.besides) terminal.out(`  ${settingText(besides)}\n`);
  }
}

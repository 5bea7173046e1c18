// SPDX-License-Identifier: BSD-2-Clause
/**
 * `hastctl resolve --discard-local`: ends a split-brain, on the node whose changes are thrown away.
 *
 * What is about to be lost and copied is said first, in every case; with --dry-run that is all.
 */
import type { Command } from "./command.ts";
import { reportDeeds } from "./deed.ts";
import { EX_OK } from "./exit-code.ts";

const DISCARD_LOCAL = "--discard-local";
const DRY_RUN = "--dry-run";

export const resolve: Command = {
  name: "resolve",
  options: [
    { flag: DISCARD_LOCAL, argument: null },
    { flag: DRY_RUN, argument: null },
  ],
  synopsis: "name ...",
  refuse(names, options) {
    if (!options.has(DISCARD_LOCAL)) {
      return `say whose changes are thrown away: with ${DISCARD_LOCAL}, those of the node it is typed on`;
    }
    if (names.length === 0) return "name the resource";
    return names[0] === "all" ? "name each resource: all is too much to throw away at once" : null;
  },
  async run(names, options, { terminal, control }) {
    const plan = await control.discardLocal(names, true);
    const code = reportDeeds(plan, "if this node's changes are discarded", terminal);
    if (options.has(DRY_RUN) || code !== EX_OK) return code;
    return reportDeeds(await control.discardLocal(names, false), "done", terminal);
  },
};

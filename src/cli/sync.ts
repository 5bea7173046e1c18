// SPDX-License-Identifier: BSD-2-Clause
/**
 * `hastctl sync --full`: the primary copies every extent to the other node, never-written ones as well.
 *
 * A resync copies what was written. Two components that were created over different old contents stay
 * different where nothing was ever written (BD-16), and this makes them equal.
 */
import type { Command } from "./command.ts";
import { reportDeeds } from "./deed.ts";

const FULL = "--full";

export const sync: Command = {
  name: "sync",
  options: [{ flag: FULL, argument: null }],
  synopsis: "all | name ...",
  refuse(names, options) {
    if (!options.has(FULL)) {
      return `what was written is synchronized by itself; with ${FULL}, everything is copied to the other node`;
    }
    return names.length === 0 ? "name the resource, or all" : null;
  },
  async run(names, _options, { terminal, control }) {
    return reportDeeds(await control.syncFull(names), "full synchronization", terminal);
  },
};

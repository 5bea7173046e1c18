// SPDX-License-Identifier: BSD-2-Clause
/**
 * The operating commands: one order to hastd about each resource, and what became of it.
 *
 *   connect, disconnect          whether the two nodes talk
 *   pause-resync, resume-resync  whether a synchronization copies, and with resync-rate how fast
 *   invalidate, outdate          what this node's copy is worth
 *
 * Each may be typed again: where nothing is left to do it says so, and the exit code is 0.
 */
import type { Order } from "../wire/control.ts";
import type { Command } from "./command.ts";
import { reportDeeds } from "./deed.ts";
import { EX_OK, exitCodeOf } from "./exit-code.ts";
import { parseSize } from "./human-size.ts";

const NO_NAME = "name the resource, or all";
const DRY_RUN = "--dry-run";

export const connect: Command = plain("connect");
export const disconnect: Command = plain("disconnect");
export const pauseResync: Command = plain("pause-resync");
export const resumeResync: Command = plain("resume-resync");
export const invalidate: Command = dryRunnable("invalidate", "if this copy is thrown away");
export const outdate: Command = dryRunnable("outdate", "if this copy is called outdated");

export const resyncRate: Command = {
  name: "resync-rate",
  options: [],
  synopsis: "rate all | name ...",
  refuse([rate, ...names]) {
    if (rate === undefined) return "say how many bytes per second; 0 = as fast as it goes";
    if (parseSize(rate) === null) {
      return `"${rate}" is no rate: write bytes per second, as 20m, or 0 for as fast as it goes`;
    }
    return names.length === 0 ? NO_NAME : null;
  },
  async run([rate, ...names], _options, { terminal, control }) {
    const order: Order = { kind: "resync-rate", rate: parseSize(rate!)! };
    return reportDeeds(await control.order(order, names), "done", terminal);
  },
};

/** One that has nothing to be said in advance. */
function plain(name: "connect" | "disconnect" | "pause-resync" | "resume-resync"): Command {
  return {
    name,
    options: [],
    synopsis: "all | name ...",
    refuse: (names) => (names.length === 0 ? NO_NAME : null),
    async run(names, _options, { terminal, control }) {
      return reportDeeds(await control.order({ kind: name }, names), "done", terminal);
    },
  };
}

/** One that cannot be taken back: what it will do is said first, in every case. */
function dryRunnable(name: "invalidate" | "outdate", heading: string): Command {
  return {
    name,
    options: [{ flag: DRY_RUN, argument: null }],
    synopsis: "all | name ...",
    refuse: (names) => (names.length === 0 ? NO_NAME : null),
    async run(names, options, { terminal, control }) {
      const plan = await control.order({ kind: name, dryRun: true }, names);
      const code = reportDeeds(plan, heading, terminal);
      if (options.has(DRY_RUN) || plan.kind === "failed") return code;
      // Those that can be done are done, whatever becomes of the others.
      const possible = plan.entries
        .filter(({ outcome }) => outcome.kind === "done")
        .map(({ resource }) => resource);
      if (possible.length === 0) return code;
      const done = await control.order({ kind: name, dryRun: false }, possible);
      const doneCode = reportDeeds(done, "done", terminal);
      if (done.kind === "failed" || code === EX_OK) return doneCode;
      return exitCodeOf(plan.entries);
    },
  };
}

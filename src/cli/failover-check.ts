// SPDX-License-Identifier: BSD-2-Clause
/**
 * `hastctl failover-check`: may the service address be, or come, here? For keepalived, ucarp and the like.
 *
 *   role        fit where
 *   primary     its worker runs, its device is not lost, and what its own copy lacks the other node serves
 *   secondary   a primary is connected and this copy is in step; or this hastd saw the link to it go, and nothing
 *               since speaks against it (a killed worker, a failed disk), so that `hastctl role primary` needs
 *               nobody's word
 *   init        never: a boot promotes nothing
 *
 * Silent and 0 where all resources are fit. Nothing is asked of the other node, so it answers at once.
 * Source: replication/promotion.ts, whose rules decide in the end: this is a forecast.
 */
import type { ResourceStatus } from "../wire/control.ts";
import { type Command, printError, type Surroundings } from "./command.ts";
import { EX_OK } from "./exit-code.ts";

const EX_UNFIT = 1;

export const failoverCheck: Command = {
  name: "failover-check",
  options: [],
  synopsis: "all | name ...",
  refuse: (names) => (names.length === 0 ? "name the resources that move together, or all" : null),
  async run(names, _options, { terminal, control, suggest }) {
    const answer = await control.status(names);
    if (answer.kind === "failed") {
      printError(terminal, null, answer.lines);
      return answer.exitCode;
    }
    let exitCode = EX_OK;
    for (const { resource, outcome, errmsg } of answer.entries) {
      const lines =
        outcome.kind === "failed"
          ? [errmsg ?? `Received error ${outcome.error} from hastd.`]
          : unfitness(resource, outcome.status, suggest);
      if (lines === null) continue;
      printError(terminal, resource, lines);
      exitCode = EX_UNFIT;
    }
    return exitCode;
  },
};

/** @returns null where it is fit; else what is true, and the next command */
function unfitness(
  resource: string,
  status: ResourceStatus,
  suggest: Surroundings["suggest"],
): string[] | null {
  const { role, worker, copy, device, remoteaddr, connected, vouched } = status;
  // What is typed on the other node is without the options that were typed on this one.
  const elsewhere = ["Make the other node primary, there:", `  hastctl role primary ${resource}`];
  switch (role) {
    case "init":
      return [
        "Its role is init: no primary can reach this copy. Here:",
        `  ${suggest("role", `secondary ${resource}`)}`,
      ];
    case "primary":
      if (worker === null) {
        return [
          "Primary, but its worker does not answer. See hastd's log, and:",
          `  ${suggest("status", resource)}`,
        ];
      }
      if (device !== undefined && device.node === null) {
        return [
          `Primary, but ${device.path} is lost. What is wrong with it says:`,
          `  ${suggest("status", resource)}`,
        ];
      }
      // "degraded" would also be who has lost its disk, and goes on over the other node's.
      if (copy === "inconsistent" && connected !== true) {
        return [
          "Primary over an incomplete copy, and the other node is away. Why, says:",
          `  ${suggest("status", resource)}`,
        ];
      }
      return null;
    case "secondary":
      if (copy === "outdated") {
        return ["Its copy is outdated: the other node has gone on without it.", ...elsewhere];
      }
      if (copy === "inconsistent") {
        return worker === null
          ? ["Its copy is the target of an unfinished synchronization.", ...elsewhere]
          : [
              "Its copy is being synchronized. How far it is, on the other node:",
              `  hastctl status ${resource}`,
            ];
      }
      if (worker !== null || vouched === true || remoteaddr === "none") return null;
      return [
        "No primary is connected, and this hastd does not know that its copy is still the newest: the other " +
          "node may have gone on. On the node that was primary last, if none is:",
        `  hastctl role primary ${resource}`,
      ];
  }
}

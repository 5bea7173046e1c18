// SPDX-License-Identifier: BSD-2-Clause
/**
 * `hast-failover seed`: tells etcd that this node has everything, for the first time; with --force in spite of
 * what etcd says. The other node gets into the set by itself once it is in step.
 */

import type { Clock } from "../platform/clock.ts";
import type { ResourceStatus } from "../wire/control.ts";
import type { Etcd } from "./etcd.ts";
import { groupRecord, prefixOf, seeding } from "./group-record.ts";
import type { Hastd } from "./hastd.ts";
import type { GroupSettings } from "./settings.ts";
import { EX_OK, EX_OSERR, EX_UNFIT, printError, type Terminal } from "./terminal.ts";

/** Terms go on from one seeding to the next, also after etcd was wiped: it counts fewer revisions than this. */
const REVISIONS_PER_MS = 1000;

export interface SeedParts {
  readonly settings: GroupSettings;
  readonly etcd: Etcd;
  readonly hastd: Hastd;
  readonly clock: Clock;
  readonly terminal: Terminal;
}

/** @throws EtcdError */
export async function seed(
  { settings, etcd, hastd, clock, terminal }: SeedParts,
  force: boolean,
): Promise<number> {
  const { group, resources, node } = settings;
  const refuse = (...lines: readonly string[]): number => {
    printError(terminal, lines);
    return EX_UNFIT;
  };
  const record = groupRecord(group, await etcd.range(prefixOf(group)));
  // An empty one is that of a resource that has left the group, and joins it again.
  const missing = resources.filter((resource) => !record.insync.get(resource)?.nodes.length);
  if (record.leader !== null) {
    const { node: leader } = record.leader;
    return missing.length > 0 && !force
      ? refuse(
          `${group}: ${leader} leads, and ${missing.join(", ")} can join the group only while nobody does. ` +
            "On both nodes stop the agent; then this again.",
        )
      : refuse(
          `${group}: ${leader} leads, so etcd knows who is in step. Look:`,
          "hast-failover status",
        );
  }
  if (missing.length === 0 && !force) {
    return refuse(
      `${group}: etcd says already who is in step. Look:`,
      "hast-failover status",
      "To say anew that it is this node, and to give up what only the other one has:",
      "hast-failover seed --force",
    );
  }
  const chosen = force ? resources : missing;
  const answer = await hastd.status(chosen);
  if (answer.kind === "failed") {
    printError(terminal, answer.lines);
    return EX_OSERR;
  }
  for (const { resource, outcome, errmsg } of answer.entries) {
    const reason =
      outcome.kind === "failed"
        ? (errmsg ?? `error ${outcome.error} from hastd`)
        : objection(resource, outcome.status, force);
    if (reason !== null) return refuse(`${resource}: ${reason}`);
  }
  const sets = new Map(chosen.map((resource) => [resource, [node]]));
  const now = Math.floor(clock.wallTime()) * REVISIONS_PER_MS;
  const known = record.base?.value ?? 0;
  const base = force || record.base === null ? Math.max(now, known + 1) : known;
  const { comparisons, puts } = seeding(group, record, base, sets);
  if ((await etcd.txn(comparisons, puts)) === null) {
    return refuse(`${group}: etcd has changed meanwhile. Look:`, "hast-failover status");
  }
  terminal.out(`${group}: etcd knows now that ${node} has all of ${chosen.join(", ")}.\n`);
  return EX_OK;
}

/** Why this copy is not to be the one that counts; null where it may. */
function objection(
  resource: string,
  { role, copy, remoteaddr }: ResourceStatus,
  force: boolean,
): string | null {
  const lost = `If that one is lost for good, here: hastctl role --force primary ${resource}; and this again`;
  if (role === "primary") {
    if (copy !== "inconsistent") return null;
    return (
      "its copy here is not whole, and the other node has what it lacks. When that has been copied, type this again; " +
      `to watch: hastctl status ${resource}`
    );
  }
  if (copy === "inconsistent") {
    return `its copy here is inconsistent: half old and half new. Seed on the other node. ${lost}`;
  }
  if (copy === "outdated" && force) {
    return `its copy here is outdated, so hastd does not promote it. Seed on the other node. ${lost}`;
  }
  if (force || copy === "new" || remoteaddr === "none") return null;
  return (
    "it is not primary here, so the other node may have newer data. Type this on the node that was primary last, " +
    "while it is; or, on that node: hast-failover seed --force"
  );
}

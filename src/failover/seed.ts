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
  if (record.leader !== null) {
    return refuse(
      `${group}: ${record.leader.node} leads, so etcd knows who is in step. Look:`,
      "hast-failover status",
    );
  }
  const missing = resources.filter((resource) => !record.insync.has(resource));
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
        : objection(outcome.status, force);
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
function objection({ role, copy, remoteaddr }: ResourceStatus, force: boolean): string | null {
  if (role === "primary") return null;
  if (copy === "inconsistent") {
    return "its copy here is inconsistent: half old and half new. Seed on the other node.";
  }
  if (force || copy === "new" || remoteaddr === "none") return null;
  return (
    "it is not primary here, so the other node may have newer data. Type this on the node that was primary last, " +
    "while it is; or, on that node: hast-failover seed --force"
  );
}

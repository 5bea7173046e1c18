// SPDX-License-Identifier: BSD-2-Clause
/** `hast-failover status`: who leads, who may, and what to type where that is not both nodes. */

import type { Etcd } from "./etcd.ts";
import { type GroupRecord, groupRecord, prefixOf } from "./group-record.ts";
import { type Memory, ranBackwards } from "./memory.ts";
import { notInStep, RESTORED, strangersIn, whoLacks } from "./obstacle.ts";
import type { GroupSettings } from "./settings.ts";
import { EX_OK, EX_UNFIT, printError, type Terminal } from "./terminal.ts";

/** @returns 0 where a node leads and the other could at once. @throws EtcdError */
export async function status(
  settings: GroupSettings,
  etcd: Etcd,
  memory: Memory,
  terminal: Terminal,
): Promise<number> {
  const { group, node, peer } = settings;
  const record = groupRecord(group, await etcd.range(prefixOf(group)));
  terminal.out(`${group}:\n  leader: ${leaderLine(record)}\n`);
  for (const resource of settings.resources) {
    const nodes = record.insync.get(resource)?.nodes;
    terminal.out(`  in step for ${resource}: ${nodes?.join(", ") || "nobody"}\n`);
  }
  if (record.move !== null) terminal.out(`  asked to take over: ${record.move.to}\n`);

  const complaints = [node, peer]
    .toSorted()
    .flatMap((each) =>
      record.leader === null
        ? (whoLacks(record, settings, each) ?? [])
        : (notInStep(record, settings, each) ?? []),
    );
  if (ranBackwards(record, memory.latest())) complaints.push(RESTORED);
  complaints.push(...[strangersIn(record, settings)].filter((complaint) => complaint !== null));
  if (record.leader === null && complaints.length === 0) {
    complaints.push(
      "Nobody leads, and both nodes may: do their agents run? On each: systemctl status hast-failover, or its log.",
    );
  }
  for (const complaint of new Set(complaints)) printError(terminal, [complaint]);
  return record.leader !== null && complaints.length === 0 ? EX_OK : EX_UNFIT;
}

function leaderLine({ leader }: GroupRecord): string {
  if (leader === null) return "nobody";
  return `${leader.node}, since ${leader.since}${leader.serves ? "" : ", starting or stopping"}`;
}

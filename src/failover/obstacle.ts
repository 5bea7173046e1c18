// SPDX-License-Identifier: BSD-2-Clause
/** Why a node may not lead now, for people: what is true, and the next command. */

import type { ResourceStatus } from "../wire/control.ts";
import type { GroupRecord } from "./group-record.ts";
import type { GroupSettings } from "./settings.ts";

/** What ranBackwards() means. */
export const RESTORED: string =
  "etcd says less than it did: it was restored from a backup, so its sets may be wrong, and nobody is promoted " +
  "here. On the node that was primary last: hast-failover seed --force";

/**
 * @param statuses hastd's, in the order of the resources
 * @returns null where nothing is in the way
 */
export function obstacleOf(
  record: GroupRecord,
  settings: GroupSettings,
  statuses: readonly ResourceStatus[],
): string | null {
  const lacking = whoLacks(record, settings, settings.node);
  if (lacking !== null) return lacking;
  for (const [index, { copy, term }] of statuses.entries()) {
    const resource = settings.resources[index]!;
    const set = record.insync.get(resource);
    if (copy === "new" && set?.nodes.length !== 1) {
      // Of another disk than the one that was in step.
      return `${resource}: its copy here was created anew, and is to be filled from ${settings.peer}. Bring that node back`;
    }
    // It is the one that was seeded, or has led since; who leads puts the set again.
    const isMeant = term !== undefined || set?.modRevision === record.base?.modRevision;
    if (copy === "new" && !isMeant) {
      return (
        `${resource}: its copy here was created anew, and what ${settings.node} has all of, says etcd, is on another ` +
        "disk. Bring that one back. If it is lost for good, on the node whose older copy is to count: " +
        "hast-failover seed --force"
      );
    }
    if (copy !== "inconsistent" && copy !== "outdated") continue;
    return `${resource}: its copy here is ${copy}. What is wrong with it, and what to do, says: hastctl status ${resource}`;
  }
  const { move } = record;
  if (move !== null && move.to !== settings.node) {
    return `${move.to} was asked to take over, and has a minute to do so.`;
  }
  return null;
}

/** Why etcd does not let this node of the two lead; null where it does. */
export function whoLacks(
  { base, insync }: GroupRecord,
  { group, resources }: GroupSettings,
  node: string,
): string | null {
  for (const resource of resources) {
    const set = insync.get(resource);
    if (base === null || set === undefined) {
      return (
        `${resource}: etcd does not say who has all of it (/hast/${group}/insync/${resource} is missing). ` +
        "If that is new, on the node with the data: hast-failover seed. If etcd has lost it, on the node that " +
        "was primary last: hast-failover seed --force"
      );
    }
    if (set.nodes.includes(node)) continue;
    const have = set.nodes.length === 0 ? "nobody" : set.nodes.join(", ");
    return (
      `${resource}: ${node} lacks what was acknowledged without it; ${have} has all of it. ` +
      `Bring that node back. If its disk is lost for good, and this older copy is to count, on ${node}: hast-failover seed --force`
    );
  }
  return null;
}

/** Why a node could not take over from the one that leads; null where it could. */
export function notInStep(
  { insync }: GroupRecord,
  { resources }: GroupSettings,
  node: string,
): string | null {
  const lacking = resources.filter((resource) => !insync.get(resource)?.nodes.includes(node));
  if (lacking.length === 0) return null;
  const names = lacking.join(" ");
  return `${names}: ${node} is not in step, and could not take over. Why, says on the node that leads: hastctl status ${names}`;
}

/** What etcd holds of the group that this node's failover.conf does not know; null where there is nothing. */
export function strangersIn(
  { leader, insync }: GroupRecord,
  { group, node, peer, resources }: GroupSettings,
): string | null {
  if (leader !== null && leader.node !== node && leader.node !== peer) {
    return (
      `${group}: ${leader.node} leads, which is neither ${node} nor ${peer}. If other nodes have a group of this name, ` +
      "give this one another: group= in failover.conf, on both nodes"
    );
  }
  const strange = [...insync].flatMap(([resource, { nodes }]) =>
    nodes.length > 0 && !resources.includes(resource) ? [resource] : [],
  );
  if (strange.length === 0) return null;
  const keys = strange.map((resource) => `/hast/${group}/insync/${resource}`);
  return (
    `${strange.join(", ")}: in group ${group}, says etcd, and not in failover.conf on this node, where nothing would ` +
    "start it. Write resources= alike on both nodes, and start the agent again. Or, if it has left the group: " +
    // Nobody has it: a set that is gone would look like an etcd that has forgotten it.
    keys.map((key) => `etcdctl put ${key} '[]'`).join("; ")
  );
}

// SPDX-License-Identifier: BSD-2-Clause
/** `hast-failover move`: a planned switch-over, and its end. */

import type { Clock } from "../platform/clock.ts";
import type { Etcd } from "./etcd.ts";
import { groupRecord, movement, prefixOf } from "./group-record.ts";
import { notInStep } from "./obstacle.ts";
import type { GroupSettings } from "./settings.ts";
import { EX_OK, EX_UNFIT, printError, type Terminal } from "./terminal.ts";

/** For so long nobody else competes. */
const MOVE_TTL_S = 60;
const LOOK_MS = 500;
/** The agent that is to take over looks every second, and one that is frozen, or has gone, does not. */
const READY_MS = 10_000;

/** @param to null for the node that does not lead. @throws EtcdError */
export async function move(
  settings: GroupSettings,
  etcd: Etcd,
  clock: Clock,
  terminal: Terminal,
  to: string | null,
): Promise<number> {
  const { group, node, peer } = settings;
  const refuse = (...lines: readonly string[]): number => {
    printError(terminal, lines);
    return EX_UNFIT;
  };
  const look = async () => groupRecord(group, await etcd.range(prefixOf(group)));
  const record = await look();
  const leader = record.leader?.node;
  if (leader === undefined) {
    return refuse(`${group}: nobody leads. Why, says:`, "hast-failover status");
  }
  const target = to ?? (leader === node ? peer : node);
  if (target !== node && target !== peer) {
    return refuse(`${group}: ${target} is none of its nodes, which are ${node} and ${peer}.`);
  }
  if (target === leader) {
    terminal.out(`${group}: ${leader} leads already.\n`);
    return EX_OK;
  }
  const lacking = notInStep(record, settings, target);
  if (lacking !== null) return refuse(lacking);

  const { id } = await etcd.grant(MOVE_TTL_S);
  const begunAtMs = clock.now();
  const { comparisons, puts } = movement(group, target, id);
  if ((await etcd.txn(comparisons, puts)) === null && (await look()).move?.to !== target) {
    return refuse(`${group}: another move is under way. Look:`, "hast-failover status");
  }
  let served = false;
  let ready = false;
  const elapsedMs = () => clock.now() - begunAtMs;
  while (!served && elapsedMs() < MOVE_TTL_S * 1000 && (ready || elapsedMs() < READY_MS)) {
    await new Promise<void>((resolve) => clock.after(LOOK_MS, resolve));
    const now = await look();
    ready ||= now.move?.ready === true;
    served = now.leader?.node === target && now.leader.serves;
  }
  await etcd.revoke(id);
  const seconds = (elapsedMs() / 1000).toFixed(1);
  if (!served && !ready) {
    return refuse(
      `${group}: ${leader} leads on, since the agent on ${target} has not said within ${seconds} s that it would. Why, says ` +
        "its log there, if it runs: systemctl status hast-failover",
    );
  }
  if (!served) {
    return refuse(
      `${group}: ${target} does not serve after ${seconds} s. What is going on says its log, and:`,
      "hast-failover status",
    );
  }
  terminal.out(`${group}: ${target} serves, after ${seconds} s.\n`);
  return EX_OK;
}

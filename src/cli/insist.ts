// SPDX-License-Identifier: BSD-2-Clause
/**
 * Asking hastd for a role again and again, for as long as the operator wants to wait: for a hastd that is
 * still starting, a peer that has not let go of the role yet, a disk that is about to appear.
 */
import type { Clock } from "../platform/clock.ts";
import { CONTROL_NO_SUCH_RESOURCE, type SetRoleEntry } from "../wire/control.ts";
import type { Answer } from "./control-client.ts";
import { EX_OSERR, EX_UNAVAILABLE } from "./exit-code.ts";

const PAUSE_MS = 1_000;

/**
 * Asks until all resources have the role; those that have it are not asked for again.
 *
 * @param waitMs how long to go on; with 0, one question
 * @returns the last answer about each resource
 */
export async function insist(
  ask: (names: readonly string[]) => Promise<Answer<SetRoleEntry>>,
  names: readonly string[],
  clock: Clock,
  waitMs: number,
): Promise<Answer<SetRoleEntry>> {
  const deadline = clock.now() + waitMs;
  const last = new Map<string, SetRoleEntry>();
  let missing = names;
  for (;;) {
    const answer = await ask(missing);
    const left = deadline - clock.now();
    if (answer.kind === "answered") {
      for (const entry of answer.entries) last.set(entry.resource, entry);
      missing = answer.entries.filter(mayStillCome).map((entry) => entry.resource);
      if (missing.length === 0 || left <= 0) {
        return { kind: "answered", entries: [...last.values()] };
      }
    } else if (left <= 0 || !(answer.exitCode === EX_OSERR || answer.exitCode === EX_UNAVAILABLE)) {
      return answer;
    }
    await new Promise<void>((resolve) => clock.after(Math.min(PAUSE_MS, left), resolve));
  }
}

function mayStillCome({ outcome }: SetRoleEntry): boolean {
  return outcome.kind === "failed" && outcome.error !== CONTROL_NO_SUCH_RESOURCE;
}

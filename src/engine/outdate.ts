// SPDX-License-Identifier: BSD-2-Clause
/**
 * Carries out `hastctl outdate` on this node's component: one metadata write, flushed.
 *
 * Somebody knows that the other node has gone on without this one (S-2). From then on this copy is not
 * promoted (replication/promotion.ts) until a synchronization has ended, or an operator insists.
 */

import { stateOf } from "../metadata/block.ts";
import type { Disk } from "../platform/disk.ts";
import { Component } from "./component.ts";
import type { Memory } from "./memory.ts";
import type { Resolution } from "./worker-messages.ts";

export interface Outdate {
  readonly resource: string;
  /** Change nothing. */
  readonly dryRun: boolean;
  readonly warn: (text: string) => void;
}

/** @throws MetadataError, or Error with what could not be read or written */
export async function outdate(
  disk: Disk,
  memory: Memory,
  { resource, dryRun, warn }: Outdate,
): Promise<Resolution> {
  const component = new Component(disk, memory);
  await component.load(resource, warn);
  const state = stateOf(component.metadata);
  switch (state) {
    case "outdated":
      return done("already outdated: nothing to do", true);
    case "inconsistent":
      return done(
        "already worse than outdated: this copy is inconsistent, the target of an unfinished " +
          "synchronization, and is not promoted either. Nothing to do",
        true,
      );
    case "new":
      return {
        kind: "failed",
        reason:
          "this copy is new and was never in step with the other node, so it cannot have fallen behind. " +
          `To have it filled from there, here: hastctl role secondary ${resource}`,
      };
    default:
      if (!dryRun) await component.storeRecord({ state: "outdated" });
      return done(
        `this copy ${dryRun ? "would be" : "is"} outdated from now on; no data is touched. hastctl ` +
          `role primary ${resource} is refused here until the other node, as primary, has synchronized it`,
      );
  }
}

function done(line: string, before?: true): Resolution {
  return { kind: "done", lines: [line], ...(before ? { before } : {}) };
}

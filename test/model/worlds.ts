// SPDX-License-Identifier: BSD-2-Clause
/**
 * npm run worlds: the small worlds of explore.ts, all of them up to a length, from every beginning.
 *
 *   --length N    events in a sequence, at most (default 4)
 *   --every-kind  each sequence in each kind, not in one of them in turn: 36 times the work
 *   --plan JSON   one world, with its story
 */

import { parseArgs } from "node:util";
import { Violation } from "./disk.ts";
import { explore } from "./explore.ts";
import { BEGINNINGS, type Plan, SmallWorld } from "./small-world.ts";

const { values } = parseArgs({
  options: {
    length: { type: "string", default: "4" },
    "every-kind": { type: "boolean", default: false },
    plan: { type: "string" },
  },
});

function replay(plan: Plan): void {
  const small = new SmallWorld(plan);
  const whole = small.run();
  console.log(small.world.story.join("\n"));
  if (!whole) console.log("(an event cannot happen, or the accident comes too late)");
}

try {
  if (values.plan !== undefined) replay(JSON.parse(values.plan) as Plan);
  else {
    const length = Number(values.length);
    for (const beginning of BEGINNINGS) {
      const began = performance.now();
      const tally = explore({ length, beginnings: [beginning], everyKind: values["every-kind"] });
      const seconds = Math.round((performance.now() - began) / 1000);
      console.log(
        `${beginning}: ${tally.sequences} sequences, ${tally.worlds} worlds in ${seconds} s: ` +
          `${tally.accidents} accidents, ${JSON.stringify(tally.events)}`,
      );
    }
    console.log("nothing that was acknowledged is lost, and all pairs end equal");
  }
} catch (error) {
  if (!(error instanceof Violation)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}

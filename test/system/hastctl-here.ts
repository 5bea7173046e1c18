// SPDX-License-Identifier: BSD-2-Clause
/** hastctl's own code in this process, a hundred times faster: most of what tests ask is asked in a loop. */
import { readFileSync } from "node:fs";
import { hastctl } from "../../src/cli/hastctl.ts";
import { readCertificate } from "../../src/platform/node/certificate.ts";
import { nodeClock } from "../../src/platform/node/clock.ts";
import { openComponent } from "../../src/platform/node/component.ts";
import { nodeEntropy } from "../../src/platform/node/entropy.ts";
import { nodeIdentity } from "../../src/platform/node/identity.ts";
import { nodeNet } from "../../src/platform/node/net.ts";
import { runProgram } from "../../src/platform/node/program.ts";
import { contrib } from "../cli/contrib.ts";
import type { Outcome } from "./command.ts";

export async function hastctlHere(args: readonly string[]): Promise<Outcome> {
  let stdout = "";
  let stderr = "";
  const code = await hastctl([...args], {
    terminal: {
      out: (text) => {
        stdout += text;
      },
      err: (text) => {
        stderr += text;
      },
    },
    clock: nodeClock,
    entropy: nodeEntropy,
    net: nodeNet,
    openComponent,
    readText: (path) => ({ text: readFileSync(path, "utf8") }),
    runProgram,
    readCertificate,
    contrib,
    identity: nodeIdentity,
    node: null,
    versionLine: "",
  });
  return { code, stdout, stderr };
}

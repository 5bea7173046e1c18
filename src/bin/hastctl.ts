// SPDX-License-Identifier: BSD-2-Clause
/** The program hastctl: src/cli/ on this machine. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { hastctl } from "../cli/hastctl.ts";
import { versionLine } from "../platform/node/build.ts";
import { readCertificate } from "../platform/node/certificate.ts";
import { nodeClock } from "../platform/node/clock.ts";
import { openComponent } from "../platform/node/component.ts";
import { nodeEntropy } from "../platform/node/entropy.ts";
import { nodeIdentity } from "../platform/node/identity.ts";
import { nodeNet } from "../platform/node/net.ts";
import { runProgram } from "../platform/node/program.ts";
import { readTextFile } from "../platform/node/text-file.ts";

for (const stream of [process.stdout, process.stderr]) {
  // A reader that left (| head) is no error; what could not be written for another reason is.
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
  });
}

process.exitCode = await hastctl(process.argv.slice(2), {
  terminal: {
    out: (text) => process.stdout.write(text),
    err: (text) => process.stderr.write(text),
  },
  clock: nodeClock,
  entropy: nodeEntropy,
  net: nodeNet,
  openComponent,
  readText: readTextFile,
  runProgram,
  readCertificate,
  contrib: (path) => readFileSync(join(import.meta.dirname, "..", "..", "contrib", path), "utf8"),
  identity: nodeIdentity,
  node: process.env["HAST_NODE"] || null,
  versionLine: versionLine("hastctl"),
});

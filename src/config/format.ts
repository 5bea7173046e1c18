// SPDX-License-Identifier: BSD-2-Clause
/**
 * A configuration written out as the hast.conf that says all of it: nothing inherited, nothing left to
 * a default. Read again, it is the same configuration.
 */
import { writtenMode } from "./changes.ts";
import type { Config, ResourceConfig } from "./config.ts";

/** The node's name where hastd writes out what it uses: nobody else reads that file. */
export const NODE_IN_USE = "hastd";

/** @param node the name under which its sections stand */
export function formatConfig(config: Config, node: string): string {
  const lines = [
    `control ${config.control}`,
    config.controlowner === null ? "# no controlowner" : `controlowner ${config.controlowner}`,
    config.controlgroup === null ? "# no controlgroup" : `controlgroup ${config.controlgroup}`,
    `controlmode ${writtenMode(config.controlmode)}`,
    `pidfile ${config.pidfile}`,
    `user ${config.user}`,
    `tlsdir ${config.tlsdir}`,
    ...config.listen.map((address) => `listen ${address}`),
    ...config.resources.flatMap((resource) => ["", ...resourceLines(resource, node)]),
  ];
  return lines.map((line) => `${line}\n`).join("");
}

function resourceLines(resource: ResourceConfig, node: string): string[] {
  return [
    `resource ${resource.name} {`,
    `    replication ${resource.replication}`,
    `    checksum ${resource.checksum}`,
    `    compression ${resource.compression}`,
    `    timeout ${resource.timeout}`,
    resource.exec === null ? "    # no exec" : `    exec ${resource.exec}`,
    resource.gate === null ? "    # no gate" : `    gate ${resource.gate}`,
    `    exectimeout ${resource.exectimeout}`,
    `    on ${node} {`,
    `        name ${resource.provname}`,
    `        local ${resource.local}`,
    `        remote ${resource.remote}`,
    resource.source === null ? "        # no source" : `        source ${resource.source}`,
    `        metaflush ${resource.metaflush ? "on" : "off"}`,
    `        export ${resource.export}`,
    `        exporttls ${resource.exporttls}`,
    `        device ${resource.device}`,
    `        arbiter ${resource.arbiter ? "on" : "off"}`,
    `        tlspeer ${resource.tlspeer ?? "none"}`,
    "    }",
    "}",
  ];
}

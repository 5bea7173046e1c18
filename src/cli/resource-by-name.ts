// SPDX-License-Identifier: BSD-2-Clause
/** Resources by the names an operator types. */
import type { Config, ResourceConfig } from "../config/config.ts";
import { printError, type Terminal } from "./command.ts";

/** @returns null for a name the configuration does not know, having said so */
export function findResource(
  config: Config,
  name: string,
  terminal: Terminal,
): ResourceConfig | null {
  const found = config.resources.find((resource) => resource.name === name);
  if (found !== undefined) return found;
  const known = config.resources.map((resource) => resource.name).join(", ");
  printError(terminal, null, [
    `There is no resource "${name}" in ${config.file}.`,
    known === "" ? "It defines none for this node." : `It defines ${known}.`,
  ]);
  return null;
}

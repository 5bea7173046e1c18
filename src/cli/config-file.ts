// SPDX-License-Identifier: BSD-2-Clause
/** Configuration files, read for a command: what is wrong with one is said here. */
import { type Complaint, formatComplaint } from "../config/complaint.ts";
import { type Config, type NodeIdentity, readConfig } from "../config/config.ts";
import { printError, type ReadText, type Terminal } from "./command.ts";
import { EX_CONFIG, EX_OSFILE } from "./exit-code.ts";

interface Reader {
  readonly terminal: Terminal;
  readonly readText: ReadText;
}

/** @returns the text, or the exit code where there is none */
export function loadText(file: string, { terminal, readText }: Reader): string | number {
  const read = readText(file);
  if ("text" in read) return read.text;
  printError(terminal, null, [
    `Unable to open configuration file ${file}: ${read.failure}.`,
    /permission/.test(read.failure)
      ? "Run this as a user who may read it, normally root."
      : "Write one, or say with -c where it is; see hast.conf(5).",
  ]);
  return EX_OSFILE;
}

/**
 * @param identity asked only where there is a text
 * @returns the configuration, or the exit code where there is none to work with
 */
export function loadConfig(
  file: string,
  reader: Reader,
  identity: () => NodeIdentity,
): Config | number {
  const text = loadText(file, reader);
  if (typeof text === "number") return text;
  const result = readConfig(text, file, identity());
  if (result.kind === "config") return result.config;
  printComplaints(result.complaints, reader.terminal);
  return EX_CONFIG;
}

export function printComplaints(complaints: readonly Complaint[], terminal: Terminal): void {
  for (const complaint of complaints) printError(terminal, null, [formatComplaint(complaint)]);
}

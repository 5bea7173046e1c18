// SPDX-License-Identifier: BSD-2-Clause
/** What a hastctl command is, and what it is given. */
import type { Config, NodeIdentity } from "../config/config.ts";
import type { Clock } from "../platform/clock.ts";
import type { OpenComponent } from "../platform/component.ts";
import type { Entropy } from "../platform/entropy.ts";
import type { RunProgram } from "../platform/program.ts";
import type { ReadCertificate } from "../platform/tls.ts";
import type { Control } from "./control-client.ts";
import type { Contrib } from "./pair-files.ts";

/** Both take whole lines, newline included. */
export interface Terminal {
  out(text: string): void;
  err(text: string): void;
}

/** What a command gets to work with: nothing is found in the air. */
export interface Surroundings {
  readonly terminal: Terminal;
  readonly config: Config;
  readonly control: Control;
  readonly clock: Clock;
  readonly openComponent: OpenComponent;
  readonly entropy: Entropy;
  /** How often -d was given. */
  readonly debug: number;
  /** A command to suggest, with the -c and -n of this one: ("create", "--force r0"). */
  readonly suggest: (command: string, rest: string) => string;
}

/** An option beyond -c, -d, -n and -h, which every command has. */
export interface Option {
  /** As typed: "-e" or "--datasize". */
  readonly flag: string;
  /** What the usage calls its argument; null for an option without one. */
  readonly argument: string | null;
}

/** Options by flag; those without argument have the value "". */
export type Options = ReadonlyMap<string, string>;

/** How a command is called. */
export interface CommandSyntax {
  /** One word or two: "create", "config check". */
  readonly name: string;
  readonly options: readonly Option[];
  /** Arguments as the usage shows them. */
  readonly synopsis: string;
  /**
   * Whether arguments and options make sense, before the configuration is read.
   *
   * @returns null, or what is wrong: "" when the usage says it all
   */
  refuse(args: readonly string[], options: Options): string | null;
}

/** A command about this node's resources. */
export interface Command extends CommandSyntax {
  /** @returns the exit code; refuse() has returned null for these arguments */
  run(args: readonly string[], options: Options, surroundings: Surroundings): Promise<number>;
}

/** @returns a file's text, or why it cannot be read */
export type ReadText = (path: string) => { readonly text: string } | { readonly failure: string };

/** What a command about files gets to work with; a configuration for this node need not exist. */
export interface Desk {
  readonly terminal: Terminal;
  /** -c, or the default. */
  readonly configPath: string;
  /** -n, or null. */
  readonly node: string | null;
  /** This node: as -n or HAST_NODE names it, else this machine. */
  readonly here: NodeIdentity;
  /** All that hastctl can do. */
  readonly commands: readonly CommandSyntax[];
  readonly readText: ReadText;
  readonly runProgram: RunProgram;
  readonly readCertificate: ReadCertificate;
  readonly contrib: Contrib;
  readonly entropy: Entropy;
  /** The hastd that uses this configuration. */
  readonly controlOf: (config: Config) => Control;
  readonly suggest: Surroundings["suggest"];
}

/** A command about files, not about resources. */
export interface FileCommand extends CommandSyntax {
  /** @returns the exit code; refuse() has returned null for these arguments */
  runAtDesk(args: readonly string[], options: Options, desk: Desk): Promise<number>;
}

/**
 * Prints an error: what is true, then what to do next, the later lines indented.
 *
 * @param resource whom it concerns, or null
 */
export function printError(
  terminal: Terminal,
  resource: string | null,
  lines: readonly string[],
): void {
  print("ERROR", terminal, resource, lines);
}

/** As printError(), for what did not keep the command from being carried out. */
export function printWarning(
  terminal: Terminal,
  resource: string | null,
  lines: readonly string[],
): void {
  print("WARNING", terminal, resource, lines);
}

function print(
  level: "ERROR" | "WARNING",
  terminal: Terminal,
  resource: string | null,
  [first, ...rest]: readonly string[],
): void {
  const prefix = resource === null ? "" : `[${resource}] `;
  terminal.err(`[${level}] ${prefix}${first}\n`);
  for (const line of rest) terminal.err(`  ${line}\n`);
}

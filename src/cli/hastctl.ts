// SPDX-License-Identifier: BSD-2-Clause
/**
 * hastctl, from its arguments to its exit code.
 *
 *   hastctl COMMAND [options] [arguments]
 *
 * Source: FreeBSD sbin/hastctl/hastctl.c, main(), usage(); behaviour §16.1.
 */
import { CONFIG_PATH_DEFAULT, type Config, type NodeIdentity } from "../config/config.ts";
import type { Clock } from "../platform/clock.ts";
import type { OpenComponent } from "../platform/component.ts";
import type { Entropy } from "../platform/entropy.ts";
import type { Net } from "../platform/net.ts";
import type { RunProgram } from "../platform/program.ts";
import type { ReadCertificate } from "../platform/tls.ts";
import type { Command, CommandSyntax, FileCommand, ReadText, Terminal } from "./command.ts";
import { completion } from "./completion.ts";
import { configCheck } from "./config-check.ts";
import { configDiff } from "./config-diff.ts";
import { loadConfig } from "./config-file.ts";
import { configGenerate } from "./config-generate.ts";
import { ControlClient } from "./control-client.ts";
import { create } from "./create.ts";
import { dump } from "./dump.ts";
import { EX_OK, EX_USAGE } from "./exit-code.ts";
import { failoverCheck } from "./failover-check.ts";
import { list } from "./list.ts";
import { COMMON_OPTIONS, parseOptions } from "./options.ts";
import {
  connect,
  disconnect,
  invalidate,
  outdate,
  pauseResync,
  resumeResync,
  resyncRate,
} from "./orders.ts";
import type { Contrib } from "./pair-files.ts";
import { reload } from "./reload.ts";
import { resolve } from "./resolve.ts";
import { role } from "./role.ts";
import { status } from "./status.ts";
import { sync } from "./sync.ts";
import { tlsClient } from "./tls-client.ts";
import { tlsInit } from "./tls-init.ts";
import { tlsShow } from "./tls-show.ts";

/** Everything hastctl touches outside itself. */
export interface World {
  readonly terminal: Terminal;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly net: Net;
  readonly openComponent: OpenComponent;
  readonly readText: ReadText;
  readonly runProgram: RunProgram;
  readonly readCertificate: ReadCertificate;
  readonly contrib: Contrib;
  /** @param node as given with -n or HAST_NODE; null to look at the machine */
  readonly identity: (node: string | null) => NodeIdentity;
  /** HAST_NODE, or null. */
  readonly node: string | null;
  /** What --version prints: "hastctl 0.1.0 (release)". */
  readonly versionLine: string;
}

/** All commands, in the order of the usage. */
export const COMMANDS: readonly (Command | FileCommand)[] = [
  connect,
  create,
  disconnect,
  dump,
  failoverCheck,
  invalidate,
  list,
  outdate,
  pauseResync,
  reload,
  resolve,
  resumeResync,
  resyncRate,
  role,
  status,
  sync,
  configCheck,
  configDiff,
  configGenerate,
  tlsInit,
  tlsShow,
  tlsClient,
  completion,
];

/**
 * Runs one command.
 *
 * @param words what follows the program's name
 * @returns the exit code, behaviour §2.1
 */
export async function hastctl(words: readonly string[], world: World): Promise<number> {
  const { terminal } = world;
  const [name, ...rest] = words;
  if (name === "--version") {
    terminal.out(`${world.versionLine}\n`);
    return EX_OK;
  }
  if (name === undefined || name === "-h" || name === "--help") return usage(terminal, COMMANDS);
  const named = COMMANDS.filter((each) => each.name.split(" ")[0] === name);
  const command = named.find((each) => isCalled(each, words));
  if (command === undefined) {
    const what = name.startsWith("-") ? "a command must come before any option" : "unknown command";
    if (named.length === 0) return usage(terminal, COMMANDS, `${what}: ${name}`);
    const [second] = rest;
    const missing = second === undefined || second.startsWith("-");
    return usage(terminal, named, missing ? "" : `${what}: ${name} ${second}`);
  }
  const parsed = parseOptions(words.slice(command.name.split(" ").length), command.options);
  if (parsed.kind === "wrong") return usage(terminal, [command], parsed.message);
  const { common, args, options } = parsed;
  if (common.help) return usage(terminal, [command]);
  const refusal = command.refuse(args, options);
  if (refusal !== null) return usage(terminal, [command], refusal);

  const configPath = common.configPath ?? CONFIG_PATH_DEFAULT;
  const node = common.node ?? world.node;
  const chosen: string[] = [];
  if (common.configPath !== null) chosen.push("-c", common.configPath);
  if (node !== null) chosen.push("-n", node);
  const suggest = (name: string, rest: string): string =>
    ["hastctl", name, ...chosen, rest].join(" ");
  const controlOf = (config: Config): ControlClient =>
    new ControlClient({
      net: world.net,
      clock: world.clock,
      address: config.control,
      startCommand: ["hastd", ...chosen].join(" "),
    });
  if ("runAtDesk" in command) {
    const { readText, runProgram, readCertificate, contrib, entropy } = world;
    const here = world.identity(node);
    const desk = { terminal, configPath, node: common.node, here, commands: COMMANDS, suggest };
    return command.runAtDesk(args, options, {
      ...desk,
      readText,
      runProgram,
      readCertificate,
      contrib,
      entropy,
      controlOf,
    });
  }
  const config = loadConfig(configPath, world, () => world.identity(node));
  if (typeof config === "number") return config;
  return command.run(args, options, {
    terminal,
    config,
    control: controlOf(config),
    clock: world.clock,
    openComponent: world.openComponent,
    entropy: world.entropy,
    debug: common.debug,
    suggest,
  });
}

/** Whether the words begin with the command's name, of one word or two. */
function isCalled({ name }: CommandSyntax, words: readonly string[]): boolean {
  return name.split(" ").every((word, index) => word === words[index]);
}

/** @param complaint what was wrong with the arguments; "" where they merely ask for the usage */
function usage(terminal: Terminal, commands: readonly CommandSyntax[], complaint = ""): number {
  if (complaint !== "") terminal.err(`hastctl: ${complaint}\n`);
  const lines = commands.map(usageLine);
  if (commands === COMMANDS) lines.push("hastctl --version");
  terminal.err(
    lines.map((line, index) => `${index === 0 ? "usage:" : "      "} ${line}\n`).join(""),
  );
  return EX_USAGE;
}

/** As the original prints it: "hastctl role [-d] [-c config] …". */
export function usageLine(command: CommandSyntax): string {
  const options = [...COMMON_OPTIONS, ...command.options].map(({ flag, argument }) =>
    argument === null ? `[${flag}]` : `[${flag} ${argument}]`,
  );
  return `hastctl ${command.name} ${options.join(" ")} ${command.synopsis}`.trimEnd();
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * hastctl, from its arguments to its exit code.
 *
 *   hastctl COMMAND [options] [arguments]
 *
 * Source: FreeBSD sbin/hastctl/hastctl.c, main(), usage(); behaviour §16.1.
 */
import { formatComplaint } from "../config/complaint.ts";
import {
  CONFIG_PATH_DEFAULT,
  type Config,
  type NodeIdentity,
  readConfig,
} from "../config/config.ts";
import type { Clock } from "../platform/clock.ts";
import type { OpenComponent } from "../platform/component.ts";
import type { Entropy } from "../platform/entropy.ts";
import type { Net } from "../platform/net.ts";
import { type Command, printError, type Terminal } from "./command.ts";
import { ControlClient } from "./control-client.ts";
import { create } from "./create.ts";
import { dump } from "./dump.ts";
import { EX_CONFIG, EX_OK, EX_OSFILE, EX_USAGE } from "./exit-code.ts";
import { list } from "./list.ts";
import { COMMON_OPTIONS, parseOptions } from "./options.ts";
import { role } from "./role.ts";
import { status } from "./status.ts";

/** Everything hastctl touches outside itself. */
export interface World {
  readonly terminal: Terminal;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly net: Net;
  readonly openComponent: OpenComponent;
  /** @returns a file's text, or why it cannot be read */
  readonly readText: (path: string) => { readonly text: string } | { readonly failure: string };
  /** @param node as given with -n or HAST_NODE; null to look at the machine */
  readonly identity: (node: string | null) => NodeIdentity;
  /** HAST_NODE, or null. */
  readonly node: string | null;
  /** What --version prints: "hastctl 0.1.0 (release)". */
  readonly versionLine: string;
}

const COMMANDS: readonly Command[] = [create, dump, list, role, status];

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
  const command = COMMANDS.find((each) => each.name === name);
  if (command === undefined) {
    const what = name.startsWith("-") ? "a command must come before any option" : "unknown command";
    return usage(terminal, COMMANDS, `${what}: ${name}`);
  }
  const parsed = parseOptions(rest, command.options);
  if (parsed.kind === "wrong") return usage(terminal, [command], parsed.message);
  const { common, args, options } = parsed;
  if (common.help) return usage(terminal, [command]);
  const refusal = command.refuse(args, options);
  if (refusal !== null) return usage(terminal, [command], refusal);

  const file = common.configPath ?? CONFIG_PATH_DEFAULT;
  const node = common.node ?? world.node;
  const config = loadConfig(file, node, world);
  if (typeof config === "number") return config;
  const chosen: string[] = [];
  if (common.configPath !== null) chosen.push("-c", common.configPath);
  if (node !== null) chosen.push("-n", node);
  const control = new ControlClient({
    net: world.net,
    clock: world.clock,
    address: config.control,
    startCommand: ["hastd", ...chosen].join(" "),
  });
  return command.run(args, options, {
    terminal,
    config,
    control,
    openComponent: world.openComponent,
    entropy: world.entropy,
    debug: common.debug,
    suggest: (name, rest) => ["hastctl", name, ...chosen, rest].join(" "),
  });
}

/** @returns the exit code where there is no configuration to work with */
function loadConfig(
  file: string,
  node: string | null,
  { terminal, readText, identity }: World,
): Config | number {
  const read = readText(file);
  if ("failure" in read) {
    printError(terminal, null, [
      `Unable to open configuration file ${file}: ${read.failure}.`,
      /permission/.test(read.failure)
        ? "Run this as a user who may read it, normally root."
        : "Write one, or say with -c where it is; see docs/hast.conf.md.",
    ]);
    return EX_OSFILE;
  }
  const result = readConfig(read.text, file, identity(node));
  if (result.kind === "config") return result.config;
  for (const complaint of result.complaints) {
    printError(terminal, null, [formatComplaint(complaint)]);
  }
  return EX_CONFIG;
}

/** @param complaint what was wrong with the arguments; "" where they merely ask for the usage */
function usage(terminal: Terminal, commands: readonly Command[], complaint = ""): number {
  if (complaint !== "") terminal.err(`hastctl: ${complaint}\n`);
  const lines = commands.map(usageLine);
  if (commands === COMMANDS) lines.push("hastctl --version");
  terminal.err(
    lines.map((line, index) => `${index === 0 ? "usage:" : "      "} ${line}\n`).join(""),
  );
  return EX_USAGE;
}

/** As the original prints it: "hastctl role [-d] [-c config] …". */
function usageLine(command: Command): string {
  const options = [...COMMON_OPTIONS, ...command.options].map(({ flag, argument }) =>
    argument === null ? `[${flag}]` : `[${flag} ${argument}]`,
  );
  return `hastctl ${command.name} ${options.join(" ")} ${command.synopsis}`;
}

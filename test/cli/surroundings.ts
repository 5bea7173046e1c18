// SPDX-License-Identifier: BSD-2-Clause
/** What a hastctl command is given, for tests: a terminal that remembers, a hastd that answers as told. */

import type { Command, Surroundings } from "../../src/cli/command.ts";
import type { Answer, Control } from "../../src/cli/control-client.ts";
import { parseOptions } from "../../src/cli/options.ts";
import { readConfig } from "../../src/config/config.ts";
import type { Component } from "../../src/platform/component.ts";
import type { DeedEntry, Order, SetRoleEntry, StatusEntry } from "../../src/wire/control.ts";
import { PatientClock } from "./patient-clock.ts";

export interface Run {
  readonly exitCode: number;
  readonly out: string;
  readonly err: string;
}

export interface Given {
  /** By path; anything else does not exist. */
  readonly components?: ReadonlyMap<string, Component | Error>;
  readonly setRole?: Answer<SetRoleEntry>;
  readonly status?: Answer<StatusEntry>;
  readonly discardLocal?: (dryRun: boolean) => Answer<DeedEntry>;
  readonly order?: (order: Order, names: readonly string[]) => Answer<DeedEntry>;
  readonly syncFull?: Answer<DeedEntry>;
  readonly reload?: Answer<DeedEntry>;
  /** Names of resources, each with local /disk/NAME. */
  readonly resources?: readonly string[];
}

export interface Asked {
  readonly requests: unknown[];
  readonly opened: string[];
}

/** Runs `command` on words as typed after it. */
export async function runCommand(
  command: Command,
  words: readonly string[],
  given: Given,
  asked: Asked = { requests: [], opened: [] },
): Promise<Run> {
  const parsed = parseOptions(words, command.options);
  if (parsed.kind === "wrong") throw new Error(parsed.message);
  const refusal = command.refuse(parsed.args, parsed.options);
  if (refusal !== null) throw new Error(`refused: ${refusal}`);
  let out = "";
  let err = "";
  const surroundings: Surroundings = {
    terminal: {
      out: (text) => {
        out += text;
      },
      err: (text) => {
        err += text;
      },
    },
    config: configOf(given.resources ?? ["r0"]),
    control: controlOf(given, asked),
    clock: new PatientClock(),
    openComponent: async (path, access) => {
      asked.opened.push(`${access} ${path}`);
      const component = given.components?.get(path);
      if (component === undefined) throw new Error(`the test has no ${path}`);
      if (component instanceof Error) throw component;
      return component;
    },
    entropy: { fill: (bytes) => bytes.fill(7) },
    debug: parsed.common.debug,
    suggest: (name, rest) => {
      const { node } = parsed.common;
      return ["hastctl", name, ...(node === null ? [] : ["-n", node]), rest].join(" ");
    },
  };
  const exitCode = await command.run(parsed.args, parsed.options, surroundings);
  return { exitCode, out, err };
}

function configOf(resources: readonly string[]): Surroundings["config"] {
  const text = resources
    .map((name) => `resource ${name} { local /disk/${name} on here { remote none } }`)
    .join("\n");
  const result = readConfig(text, "hast.conf", { names: ["here"], uuid: null, hostid: null });
  if (result.kind === "complaints") throw new Error(result.complaints[0]!.message);
  return result.config;
}

function controlOf(given: Given, asked: Asked): Control {
  const unexpected = (): never => {
    throw new Error("the test expects no request");
  };
  return {
    setRole: async (role, names) => {
      asked.requests.push({ role, names });
      return given.setRole ?? unexpected();
    },
    status: async (names) => {
      asked.requests.push({ names });
      return given.status ?? unexpected();
    },
    discardLocal: async (names, dryRun) => {
      asked.requests.push({ names, dryRun });
      return given.discardLocal?.(dryRun) ?? unexpected();
    },
    syncFull: async (names) => {
      asked.requests.push({ names });
      return given.syncFull ?? unexpected();
    },
    order: async (order, names) => {
      asked.requests.push({ order, names });
      return given.order?.(order, names) ?? unexpected();
    },
    reload: async () => {
      asked.requests.push("reload");
      return given.reload ?? unexpected();
    },
    config: unexpected,
  };
}

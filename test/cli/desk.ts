// SPDX-License-Identifier: BSD-2-Clause
/** Runs a command about files, for tests: files in memory, a hastd that answers as told. */

import type { Desk, FileCommand, ReadText } from "../../src/cli/command.ts";
import type { Answer } from "../../src/cli/control-client.ts";
import { COMMANDS } from "../../src/cli/hastctl.ts";
import { parseOptions } from "../../src/cli/options.ts";
import type { Config, NodeIdentity } from "../../src/config/config.ts";
import type { RunProgram } from "../../src/platform/program.ts";
import type { ReadCertificate } from "../../src/platform/tls.ts";
import type { DeedEntry, ResourceStatus, StatusEntry } from "../../src/wire/control.ts";
import { contrib } from "./contrib.ts";
import type { Run } from "./surroundings.ts";

export interface GivenDesk {
  /** By path; anything else does not exist. */
  readonly files?: Readonly<Record<string, string>>;
  /** Default: alpha. */
  readonly here?: NodeIdentity;
  /** The configuration in use, as a hast.conf. */
  readonly inUse?: string;
  /** Absent: no hastd runs. */
  readonly status?: readonly StatusEntry[];
  readonly runProgram?: RunProgram;
  /** Instead of `files`. */
  readonly readText?: ReadText;
  readonly readCertificate?: ReadCertificate;
}

/** @param asked gets the control address of each question to hastd */
export async function runAtDesk(
  command: FileCommand,
  words: readonly string[],
  given: GivenDesk,
  asked: string[] = [],
): Promise<Run> {
  const parsed = parseOptions(words, command.options);
  if (parsed.kind === "wrong") throw new Error(parsed.message);
  const { args, options, common } = parsed;
  const refusal = command.refuse(args, options);
  if (refusal !== null) throw new Error(`refused: ${refusal}`);
  let out = "";
  let err = "";
  const node = common.node;
  const desk: Desk = {
    terminal: {
      out: (text) => {
        out += text;
      },
      err: (text) => {
        err += text;
      },
    },
    configPath: common.configPath ?? "/etc/hast.conf",
    node,
    here:
      node === null
        ? (given.here ?? { names: ["alpha"], uuid: null, hostid: null })
        : { names: [node], uuid: null, hostid: null },
    commands: COMMANDS,
    readText:
      given.readText ??
      ((path) => {
        const text = given.files?.[path];
        return text === undefined ? { failure: "no such file or directory" } : { text };
      }),
    runProgram:
      given.runProgram ??
      (() => {
        throw new Error("the test expects no program");
      }),
    readCertificate:
      given.readCertificate ?? (() => ({ failure: "the test expects no certificate" })),
    contrib,
    entropy: { fill: (bytes) => bytes.fill(7) },
    controlOf: (config) => ({
      setRole: () => {
        throw new Error("the test expects no role to be set");
      },
      status: async () => answer(config, given, asked),
      discardLocal: () => {
        throw new Error("the test expects nothing to be discarded");
      },
      order: () => {
        throw new Error("the test expects no order");
      },
      syncFull: () => {
        throw new Error("the test expects no synchronization");
      },
      reload: () => {
        throw new Error("the test expects no reload");
      },
      config: async () => inUse(config, given, asked),
    }),
    suggest: (name, rest) => `hastctl ${name} ${rest}`,
  };
  const exitCode = await command.runAtDesk(args, options, desk);
  return { exitCode, out, err };
}

function inUse(config: Config, given: GivenDesk, asked: string[]): Answer<DeedEntry> {
  const known = answer(config, given, asked);
  if (known.kind === "failed") return known;
  const notes = (given.inUse ?? "").split("\n");
  const entry = { resource: "hastd", outcome: { kind: "done" }, errmsg: null, notes } as const;
  return { kind: "answered", entries: [entry] };
}

function answer(config: Config, { status }: GivenDesk, asked: string[]): Answer<StatusEntry> {
  asked.push(config.control);
  return status === undefined
    ? { kind: "failed", lines: ["No hastd answers."], exitCode: 71 }
    : { kind: "answered", entries: status };
}

/** What hastd says of a resource, like any other but for `differences`. */
export function statusOf(resource: string, differences: Partial<ResourceStatus> = {}): StatusEntry {
  const status: ResourceStatus = {
    provname: resource,
    localpath: `/disk/${resource}`,
    remoteaddr: "10.0.0.2",
    sourceaddr: null,
    replication: "memsync",
    checksum: "none",
    compression: "hole",
    role: "primary",
    workerpid: 0,
    worker: null,
    ...differences,
  };
  return { resource, outcome: { kind: "known", status }, errmsg: null, notes: [] };
}

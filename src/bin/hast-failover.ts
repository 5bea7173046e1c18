// SPDX-License-Identifier: BSD-2-Clause
/**
 * The program hast-failover: src/failover/ on this machine.
 *
 *   options ─► failover.conf ─► hast.conf ─► etcd, hastd ─► a command, or: lock ─► agent
 */

import { mkdirSync } from "node:fs";
import path from "node:path";
import { parseEnv } from "node:util";
import { ControlClient } from "../cli/control-client.ts";
import { formatComplaint } from "../config/complaint.ts";
import { CONFIG_PATH_DEFAULT, parseConfig, resolveConfig } from "../config/config.ts";
import { nodesOf } from "../config/nodes.ts";
import { Agent } from "../failover/agent.ts";
import { Etcd, EtcdError } from "../failover/etcd.ts";
import type { Hastd } from "../failover/hastd.ts";
import { FileMemory } from "../failover/memory.ts";
import { move } from "../failover/move.ts";
import { type Command, parseOptions, USAGE } from "../failover/options.ts";
import { startScriptWith } from "../failover/script.ts";
import { seed } from "../failover/seed.ts";
import { type GroupSettings, groupSettings } from "../failover/settings.ts";
import { status } from "../failover/status.ts";
import { EX_OK, EX_UNAVAILABLE, printError, type Terminal } from "../failover/terminal.ts";
import type { Log } from "../platform/log.ts";
import { versionLine } from "../platform/node/build.ts";
import { nodeClock } from "../platform/node/clock.ts";
import { createHttp, httpFilesTrouble } from "../platform/node/http.ts";
import { nodeIdentity } from "../platform/node/identity.ts";
import { createLog, stderrIsJournal } from "../platform/node/log.ts";
import { nodeNet } from "../platform/node/net.ts";
import { Pidfile, PidfileBusyError } from "../platform/node/pidfile.ts";
import { nodeSystem } from "../platform/node/system.ts";
import { readTextFile } from "../platform/node/text-file.ts";
import { nodePrograms } from "../platform/node/watched-program.ts";
import type { Lease } from "../wire/control.ts";

const EX_USAGE = 64;
const EX_OSFILE = 72;
const EX_TEMPFAIL = 75;
const EX_CONFIG = 78;

/** Of the script and of the lock; per group a directory. */
const RUN = "/run/hast-failover";
/** How far etcd was seen to come; per group a file. */
const MEMORY = "/var/lib/hast-failover";
const BOOT_ID = "/proc/sys/kernel/random/boot_id";
/** Of the TTL: for one question to one member, so that another can be asked in time. */
const PATIENCE_SHARE = 0.2;

const terminal: Terminal = {
  out: (text) => process.stdout.write(text),
  err: (text) => process.stderr.write(text),
};

process.exitCode = await main();

async function main(): Promise<number> {
  const options = parseOptions(process.argv.slice(2));
  switch (options.kind) {
    case "version":
      terminal.out(`${versionLine("hast-failover")}\n`);
      return EX_OK;
    case "usage":
      if (options.complaint !== null) printError(terminal, [options.complaint]);
      terminal.err(USAGE);
      return EX_USAGE;
    case "command": {
      const place = placeOf(path.resolve(options.directory));
      if (typeof place === "number") return place;
      try {
        return await obey(options.command, place);
      } catch (error) {
        if (!(error instanceof EtcdError)) throw error;
        printError(terminal, [
          `No member of etcd is of use: ${error.message}.`,
          `Check etcd=, and for https:// etcdca=, etcdcert= and etcdkey=, in ${place.directory}/failover.conf; and the cluster: etcdctl endpoint health`,
        ]);
        return EX_UNAVAILABLE;
      }
    }
  }
}

interface Place {
  readonly directory: string;
  readonly settings: GroupSettings;
  /** Those of its resources that are replicated without waiting. */
  readonly asyncNames: readonly string[];
  readonly etcd: Etcd;
  readonly hastd: Hastd;
}

function obey(command: Command, place: Place): Promise<number> {
  const { settings, etcd, hastd } = place;
  const log = createLog("stdio", { ident: "hast-failover", prefix: "", debugLevel: 0 });
  switch (command.kind) {
    case "run":
      return runAgent(place);
    case "status":
      return status(settings, etcd, memoryOf(settings, log), terminal);
    case "seed":
      return seed({ settings, etcd, hastd, clock: nodeClock, terminal }, command.force);
    case "move":
      return move(settings, etcd, nodeClock, terminal, command.to);
  }
}

async function runAgent({ directory, settings, asyncNames, etcd, hastd }: Place): Promise<number> {
  const log = createLog(stderrIsJournal(process.env["JOURNAL_STREAM"]) ? "journal" : "stdio", {
    ident: "hast-failover",
    prefix: `[${settings.group}] `,
    debugLevel: 0,
  });
  const run = `${RUN}/${settings.group}`;
  for (const each of [run, MEMORY]) mkdirSync(each, { recursive: true, mode: 0o700 });
  let lock: Pidfile;
  try {
    lock = new Pidfile(`${run}/pid`);
  } catch (error) {
    if (!(error instanceof PidfileBusyError)) throw error;
    log.error(`An agent of ${settings.group} runs here already, with pid ${error.pid}.`);
    return EX_TEMPFAIL;
  }
  lock.write(process.pid);
  if (asyncNames.length > 0) {
    log.warning(
      `${asyncNames.join(", ")}: replication async, so a failover loses what was acknowledged last. To lose nothing, in ` +
        "hast.conf on both nodes: replication memsync; then: hastctl reload",
    );
  }
  const agent = new Agent({
    settings,
    etcd,
    hastd,
    startScript: startScriptWith({
      programs: nodePrograms,
      clock: nodeClock,
      log,
      path: `${directory}/failover`,
      environment: { FAILOVER_RUN: run },
    }),
    memory: memoryOf(settings, log),
    clock: nodeClock,
    log,
    boot: nodeSystem.text(BOOT_ID)?.trim() ?? "",
  });
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => agent.stop());
  log.notice(`Started (${versionLine("hast-failover")}) as ${settings.node} of ${settings.group}.`);
  await agent.run();
  lock.remove();
  return EX_OK;
}

/** @returns the exit code where it is not to be had; what is wrong has been printed */
function placeOf(directory: string): Place | number {
  const file = `${directory}/failover.conf`;
  const text = read(file, "Write it, or say with -c where it lies; see hast-failover(8).");
  if (text === null) return EX_OSFILE;
  const values = parseEnv(text);
  const config = values["config"] || CONFIG_PATH_DEFAULT;
  const hastConf = read(config, `Check config= in ${file}.`);
  if (hastConf === null) return EX_OSFILE;
  const here = nodeIdentity(process.env["HAST_NODE"] || null);
  const parsed = parseConfig(hastConf, config);
  const resolved = resolveConfig(parsed, here);
  if (resolved.kind === "complaints") {
    for (const complaint of resolved.complaints) printError(terminal, [formatComplaint(complaint)]);
    return EX_CONFIG;
  }
  const nodes = nodesOf(parsed, here);
  const own = nodes.find(({ identity }) => identity === here);
  const others = nodes.filter((each) => each !== own);
  const settings = groupSettings(
    values,
    own !== undefined && others.length === 1 ? [own.name, others[0]!.name] : null,
  );
  if ("complaints" in settings) {
    for (const complaint of settings.complaints) printError(terminal, [`${file}: ${complaint}`]);
    return EX_CONFIG;
  }
  const trouble = httpFilesTrouble(settings.files);
  if (trouble !== null) {
    printError(terminal, [trouble, `Check etcdca=, etcdcert= and etcdkey= in ${file}.`]);
    return EX_CONFIG;
  }
  const known = resolved.config.resources;
  const asyncNames = known
    .filter(({ name, replication }) => settings.resources.includes(name) && replication === "async")
    .map(({ name }) => name);
  for (const name of settings.resources) {
    const found = known.find((each) => each.name === name);
    if (found?.arbiter === true) continue;
    printError(terminal, [
      found === undefined
        ? `${file}: ${config} has no resource ${name}`
        : `${config}: resource ${name} is without an arbiter. Add to it, on both nodes:`,
      ...(found === undefined ? [] : ["arbiter on"]),
    ]);
    return EX_CONFIG;
  }
  const control = new ControlClient({
    net: nodeNet,
    clock: nodeClock,
    address: resolved.config.control,
    startCommand: config === CONFIG_PATH_DEFAULT ? "hastd" : `hastd -c ${config}`,
  });
  const { endpoints, ttlS } = settings;
  const timeoutMs = ttlS * 1000 * PATIENCE_SHARE;
  const http = createHttp(settings.files);
  const etcd = new Etcd({ http, clock: nodeClock, endpoints, timeoutMs });
  return { directory, settings, asyncNames, etcd, hastd: hastdAt(control) };
}

function hastdAt(control: ControlClient): Hastd {
  /** In whole milliseconds, as the message has it. */
  const whole = ({ term, deadlineMs }: Lease) => ({ term, deadlineMs: Math.floor(deadlineMs) });
  return {
    status: (names) => control.status(names),
    promote: (names, lease) => control.setRole("primary", names, false, whole(lease)),
    demote: (names, force) => control.setRole("secondary", names, force),
    lease: (names, lease, confirmed, waitMs) =>
      control.lease(names, whole(lease), confirmed, waitMs),
  };
}

function memoryOf({ group }: GroupSettings, log: Log): FileMemory {
  return new FileMemory(nodeSystem, MEMORY, group, log);
}

/** @returns null where it cannot be read, which has been printed */
function read(file: string, next: string): string | null {
  const result = readTextFile(file);
  if ("text" in result) return result.text;
  printError(terminal, [`${file} cannot be read: ${result.failure}.`, next]);
  return null;
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * The program hastd: the main daemon on this machine.
 *
 *   options ─► hast.conf ─► pidfile ─► control socket ─► listeners ─► background ─► pid written
 *
 * Source: FreeBSD sbin/hastd/hastd.c, main(); behaviour §2.
 */

import { existsSync } from "node:fs";
import path from "node:path";
import { getSystemErrorMessage } from "node:util";
import { formatComplaint } from "../config/complaint.ts";
import {
  CONFIG_PATH_DEFAULT,
  type Config,
  exportNeedsTls,
  readConfig,
  USER_DEFAULT,
  whoNeedsTls,
} from "../config/config.ts";
import { Daemon, type DaemonSettings, StartError } from "../daemon/daemon.ts";
import { type Options, parseOptions, USAGE } from "../daemon/options.ts";
import { ConfigurationInUse, type Loaded } from "../daemon/reload.ts";
import type { Probed } from "../daemon/resource.ts";
import { daemonSettings } from "../daemon/settings.ts";
import { keepWatch, WATCHDOG_MIN_MS } from "../daemon/watchdog.ts";
import type { WorkerSettings } from "../engine/worker-messages.ts";
import { copyWorth, explainMetadata, type Metadata, MetadataError } from "../metadata/block.ts";
import { findMetadata } from "../metadata/copies.ts";
import { ComponentError, componentAdvice } from "../platform/component.ts";
import type { Log, LogDestination } from "../platform/log.ts";
import { versionLine } from "../platform/node/build.ts";
import { nodeClock } from "../platform/node/clock.ts";
import { openComponent } from "../platform/node/component.ts";
import {
  beginDetach,
  isDetached,
  keepInheritedDescriptors,
  startDetached,
} from "../platform/node/detach.ts";
import { nodeEntropy } from "../platform/node/entropy.ts";
import { NodeHandshakeNet, NodeResolver } from "../platform/node/handshake-socket.ts";
import { nodeIdentity } from "../platform/node/identity.ts";
import { findGroup, findUser } from "../platform/node/libc.ts";
import { createLog, stderrIsJournal } from "../platform/node/log.ts";
import { nodeNet } from "../platform/node/net.ts";
import { Pidfile, PidfileBusyError } from "../platform/node/pidfile.ts";
import type { WorkerUser } from "../platform/node/privileges.ts";
import { NodeProcesses, type NodeProcessesOptions } from "../platform/node/process.ts";
import { takeSupervisor } from "../platform/node/supervisor.ts";
import { nodeSystem } from "../platform/node/system.ts";
import { readTextFile } from "../platform/node/text-file.ts";
import { readTlsFiles, type TlsFiles, TlsFilesError } from "../platform/node/tls-files.ts";
import { NodeTlsTerminator } from "../platform/node/tls-terminator.ts";
import { nodePrograms } from "../platform/node/watched-program.ts";
import type { Supervisor } from "../platform/supervisor.ts";
import { isTls } from "../wire/address.ts";

type Given = Extract<Options, { kind: "run" }>;
type RunOptions = Given & { readonly config: string };

const EX_OK = 0;
const EX_USAGE = 64;
const EX_SOFTWARE = 70;
const EX_OSFILE = 72;
const EX_TEMPFAIL = 75;
const EX_CONFIG = 78;

/** As long as a worker waits: its predecessor may still hold the lock. */
const LOCK_RETRY_MS = 100;
const LOCK_RETRIES = 50;

const TITLE = "hastd";
/** Where the devices of primaries appear; HAST_DEVICES names another place. */
const DEVICES = "/dev/hast";
/** Where syslog(3) sends to. */
const SYSLOG = "/dev/log";

await main(parseOptions(process.argv.slice(2)));

async function main(options: Options): Promise<void> {
  switch (options.kind) {
    case "version":
      process.stdout.write(`${versionLine("hastd")}\n`);
      return;
    case "usage":
      if (options.complaint !== null) process.stderr.write(`hastd: ${options.complaint}\n`);
      process.stderr.write(USAGE);
      process.exitCode = EX_USAGE;
      return;
    case "run":
      keepInheritedDescriptors();
      if (!options.foreground && !isDetached()) process.exitCode = await startDetached();
      else await serve(options);
      return;
  }
}

/** Runs until a signal ends the daemon, or says why it cannot start. */
async function serve(given: Given): Promise<void> {
  process.title = TITLE;
  // The background daemon changes its directory, and may have to find the file again.
  const options = { ...given, config: path.resolve(given.config ?? CONFIG_PATH_DEFAULT) };
  const { foreground, debugLevel } = options;
  const logOptions = { ident: TITLE, prefix: "", debugLevel };
  const destination = destinationOf(options);
  // Until the daemon is up, the terminal hears about it.
  const terminal = createLog(foreground ? destination : "stdio", logOptions);
  const held: Held = { pidfile: null, workerUser: null, tls: null };
  const supervisor = takeSupervisor(process.env, (text) => terminal.warning(text));
  try {
    const config = loadConfig(options);
    held.pidfile = openPidfile(options, config, terminal);
    const log = foreground ? terminal : createLog(destination, logOptions);
    held.workerUser = workerUser(config, log);
    held.tls = tlsFiles(config, log);
    const processes = new NodeProcesses(childOptions("worker.ts", foreground, held));
    const configuration = new ConfigurationInUse(
      config,
      () => load(options, held, processes, log),
      log,
      supervisor,
    );
    const daemon = new Daemon(daemonSettings(config, controlRights(config)), {
      clock: nodeClock,
      entropy: nodeEntropy,
      processes,
      net: nodeNet,
      handshakeNet: new NodeHandshakeNet(),
      tls: new NodeTlsTerminator(childOptions("tls.ts", foreground, held)),
      resolver: new NodeResolver(),
      probe,
      log,
      workerLog: destination,
      hooks: { programs: nodePrograms },
      devices: {
        system: nodeSystem,
        directory: path.resolve(process.env["HAST_DEVICES"] || DEVICES),
      },
      configuration,
    });
    configuration.governs(daemon);
    const end = obeySignals(configuration, daemon, held, log, supervisor);
    const completeDetach = foreground ? () => undefined : beginDetach(end);
    await daemon.open();
    if (held.pidfile !== null) writePid(held.pidfile, terminal);
    if (!foreground && !existsSync(SYSLOG)) {
      terminal.warning(
        `There is no syslog here (${SYSLOG} is missing): what hastd has to say from now on is lost. ` +
          "With -F it stays in the foreground and says it here.",
      );
    }
    log.notice(
      `Started (${versionLine("hastd")}), ${count(config.resources.length)} in role init.`,
    );
    supervisor.ready();
    completeDetach();
    const { watchdogMs } = supervisor;
    if (watchdogMs !== null && watchdogMs < WATCHDOG_MIN_MS) {
      log.warning(
        `WatchdogSec=${watchdogMs / 1000} is too short: while a worker hangs, hastd may be taken for dead. ` +
          `Say at least ${WATCHDOG_MIN_MS / 1000} in: systemctl edit hastd`,
      );
    }
    await keepWatch(nodeClock, supervisor, () => daemon.watch());
  } catch (error) {
    if (!(error instanceof StartError)) throw error;
    for (const line of error.message.split("\n")) terminal.error(line);
    held.pidfile?.remove();
    process.exit(error.exitCode);
  }
}

/** What a reload may replace of the process itself. */
interface Held {
  pidfile: Pidfile | null;
  /** Whom the workers to come become. */
  workerUser: WorkerUser | null;
  /** Null where no resource wants TLS. */
  tls: TlsFiles | null;
}

/** Of a kind of child; what is held may be replaced. */
function childOptions(script: string, foreground: boolean, held: Held): NodeProcessesOptions {
  return {
    script: path.join(import.meta.dirname, script),
    output: foreground ? "inherit" : "ignore",
    get user() {
      return held.workerUser;
    },
    get credentials() {
      return held.tls?.credentials ?? null;
    },
  };
}

/** hast.conf once more. @throws StartError */
function load(options: RunOptions, held: Held, processes: NodeProcesses, log: Log): Loaded {
  const config = loadConfig(options);
  const settings = daemonSettings(config, controlRights(config));
  const user = workerUser(config, log);
  const tls = tlsFiles(config, log);
  const adopt = () => {
    held.workerUser = user;
    movePidfile(options, config, held, log);
    const before = held.tls;
    held.tls = tls;
    if (JSON.stringify(before?.credentials) === JSON.stringify(tls?.credentials)) return [];
    processes.tellCredentials();
    if (tls === null) return [];
    const { fingerprint } = tls.own;
    return [
      `hastd: TLS files of ${config.tlsdir} read; this node's certificate is ${fingerprint}; for new connections`,
    ];
  };
  return { config, settings, adopt };
}

/** What TLS needs, if anything does. @throws StartError */
function tlsFiles(config: Config, log: Log): TlsFiles | null {
  const resource = whoNeedsTls(config);
  if (resource === null) return null;
  let files: TlsFiles;
  try {
    files = readTlsFiles(config.tlsdir);
  } catch (error) {
    if (!(error instanceof TlsFilesError)) throw error;
    throw new StartError(EX_CONFIG, `[${resource}] TLS: ${error.message}`, { cause: error });
  }
  const { authorities, clients } = files.credentials;
  for (const each of config.resources) {
    if (isTls(each.remote) && each.tlspeer === null && authorities === null) {
      throw new StartError(
        EX_CONFIG,
        `[${each.name}] TLS: nothing says which certificate the peer has: no tlspeer in hast.conf, no ca.pem in ${config.tlsdir}. ` +
          "On the other node, hastctl tls show prints the line to add here.",
      );
    }
    if (exportNeedsTls(each) && authorities === null && clients === null) {
      throw new StartError(
        EX_CONFIG,
        `[${each.name}] TLS: ${each.export} is for NBD clients with a certificate, and ${config.tlsdir} has neither clients.pem nor ca.pem. ` +
          "For each client: hastctl tls client NAME DIRECTORY; or, to let anybody in on a network you trust: exporttls off",
      );
    }
  }
  for (const warning of files.warnings) log.warning(`TLS: ${warning}`);
  return files;
}

/** A pidfile that cannot be made is no reason to keep the old configuration: the old file stays. */
function movePidfile(options: RunOptions, config: Config, held: Held, log: Log): void {
  const file = path.resolve(options.pidfile ?? config.pidfile);
  if (options.foreground && options.pidfile === null) return;
  if (file === held.pidfile?.path) return;
  try {
    const pidfile = openPidfile(options, config, log);
    if (pidfile === null) return;
    writePid(pidfile, log);
    held.pidfile?.remove();
    held.pidfile = pidfile;
  } catch (error) {
    if (!(error instanceof StartError)) throw error;
    log.warning(error.message);
  }
}

/** Who workers become: nobody else where we are not root, or may stay it. */
function workerUser({ user }: Config, log: Log): WorkerUser | null {
  if (process.getuid?.() !== 0 || user === "root") return null;
  const found = findUser(user);
  if (found !== null) return found;
  const make = `useradd --system --no-create-home --shell /usr/sbin/nologin ${user}`;
  if (user !== USER_DEFAULT) {
    throw new StartError(
      EX_CONFIG,
      `There is no user ${user}, as hast.conf says. Make it: ${make}`,
    );
  }
  log.notice(
    `There is no user ${user}, so workers stay root. Make it: ${make}; or say in hast.conf that this is meant: user root`,
  );
  return null;
}

function controlRights(config: Config): Pick<DaemonSettings, "controlAccess" | "administrators"> {
  const { controlowner, controlgroup, controlmode } = config;
  const owner = controlowner === null ? null : findUser(controlowner);
  const group = controlgroup === null ? null : findGroup(controlgroup);
  if (controlowner !== null && owner === null) {
    throw new StartError(EX_CONFIG, `There is no user ${controlowner}: correct controlowner.`);
  }
  if (controlgroup !== null && group === null) {
    throw new StartError(EX_CONFIG, `There is no group ${controlgroup}: correct controlgroup.`);
  }
  const own = process.getuid!();
  return {
    controlAccess: { mode: controlmode, user: owner?.uid ?? null, group },
    administrators: [0, own, ...(owner === null ? [] : [owner.uid])],
  };
}

function destinationOf({ foreground, json }: Given): LogDestination {
  if (!foreground) return "syslog";
  if (json) return "json";
  return stderrIsJournal(process.env["JOURNAL_STREAM"]) ? "journal" : "stdio";
}

function loadConfig(options: RunOptions): Config {
  const { config: file } = options;
  const read = readTextFile(file);
  if ("failure" in read) {
    const { failure } = read;
    const advice = /permission/.test(failure)
      ? "Run this as a user who may read it, normally root."
      : "Write one, or say with -c where it is.";
    const message = `Unable to open configuration file ${file}: ${failure}. ${advice}`;
    throw new StartError(EX_OSFILE, message);
  }
  const node = options.node ?? (process.env["HAST_NODE"] || null);
  const result = readConfig(read.text, file, nodeIdentity(node));
  if (result.kind === "config") return result.config;
  throw new StartError(EX_CONFIG, result.complaints.map(formatComplaint).join("\n"));
}

/** Null where there is none: in the foreground, unless one is named with -P. */
function openPidfile(options: RunOptions, config: Config, log: Log): Pidfile | null {
  if (options.foreground && options.pidfile === null) return null;
  const file = path.resolve(options.pidfile ?? config.pidfile);
  try {
    return new Pidfile(file);
  } catch (error) {
    if (error instanceof PidfileBusyError) {
      throw new StartError(
        EX_TEMPFAIL,
        `${error.message}. Stop that one, or name another file with -P.`,
        { cause: error },
      );
    }
    log.warning(`Cannot open or create pidfile ${file}: ${systemReason(error)}.`);
    return null;
  }
}

/** A full disk is no reason not to serve: whoever needs the pid is told. */
function writePid(pidfile: Pidfile, log: Log): void {
  try {
    pidfile.write(process.pid);
  } catch (error) {
    log.warning(
      `Cannot write pidfile ${pidfile.path}: ${systemReason(error)}. The pid is ${process.pid}.`,
    );
  }
}

/** @returns what SIGTERM does */
function obeySignals(
  configuration: ConfigurationInUse,
  daemon: Daemon,
  held: Held,
  log: Log,
  supervisor: Supervisor,
): () => void {
  let stopping = false;
  const end = () => {
    if (stopping) return;
    stopping = true;
    log.debug(1, "Stopping.");
    supervisor.stopping();
    void daemon.stop().then(() => {
      held.pidfile?.remove();
      process.exit(EX_OK);
    });
  };
  process.on("SIGTERM", end);
  process.on("SIGINT", end);
  process.on("SIGHUP", () => void configuration.reload());
  // Our own mistake. The workers notice that we are gone, and end in good order.
  process.on("uncaughtException", (error) => {
    log.error(`Internal error: ${error.stack ?? error.message}`);
    held.pidfile?.remove();
    process.exit(EX_SOFTWARE);
  });
  return end;
}

/** Why a local component could not serve as a secondary's, found out when the role is taken (BD-37). */
async function probe(settings: WorkerSettings): Promise<Probed> {
  for (let attempt = 0; ; attempt++) {
    try {
      const metadata = await readMetadata(settings);
      return { kind: "usable", copy: copyWorth(metadata) };
    } catch (error) {
      if (error instanceof ComponentError) {
        if (error.code === "component-locked" && attempt < LOCK_RETRIES) {
          await new Promise<void>((resolve) => nodeClock.after(LOCK_RETRY_MS, resolve));
          continue;
        }
        const advice = componentAdvice(error.code, settings.local);
        const reason = advice === null ? error.message : `${error.message}. ${advice}`;
        return { kind: "unusable", reason };
      }
      if (!(error instanceof MetadataError)) throw error;
      const reason = explainMetadata(error, settings.local, settings.resource);
      return { kind: "unusable", reason };
    }
  }
}

/** @throws ComponentError, MetadataError */
async function readMetadata(settings: WorkerSettings): Promise<Metadata> {
  const component = await openComponent(settings.local, "write");
  try {
    const media = { mediaSize: component.size, sectorSize: component.sectorSize };
    const read = (offset: number, length: number) => component.readAt(offset, length);
    return (await findMetadata(settings.resource, media, read)).metadata;
  } finally {
    await component.close();
  }
}

function systemReason(error: unknown): string {
  const { errno } = error as NodeJS.ErrnoException;
  if (errno === undefined) throw error;
  return getSystemErrorMessage(errno);
}

function count(resources: number): string {
  return resources === 1 ? "1 resource" : `${resources} resources`;
}

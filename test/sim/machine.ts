// SPDX-License-Identifier: BSD-2-Clause
/**
 * One node: a disk, the main daemon, and its workers, all of them production code in pretended processes.
 *
 *   Daemon, Resource ─ messages, sockets ─ ResourceWorker, engine ─ PretendDisk ─┐
 *                                                                    SimMedium ◄─┘
 *
 * A process that is killed does nothing more; what it had asked of its disk ends some time later, one way
 * or the other, and until then nobody else can lock the disk.
 */

import { formatComplaint } from "../../src/config/complaint.ts";
import { readConfig } from "../../src/config/config.ts";
import { Daemon, StartError } from "../../src/daemon/daemon.ts";
import { ConfigurationInUse, type Loaded } from "../../src/daemon/reload.ts";
import type { Resource } from "../../src/daemon/resource.ts";
import { daemonSettings } from "../../src/daemon/settings.ts";
import { ARENA_SIZE } from "../../src/engine/memory.ts";
import { PrimaryEngine } from "../../src/engine/primary-engine.ts";
import { SecondaryEngine } from "../../src/engine/secondary-engine.ts";
import { ORPHAN_GRACE_MS, ResourceWorker } from "../../src/engine/worker.ts";
import type {
  FromWorker,
  Replication,
  ToWorker,
  WorkerSettings,
} from "../../src/engine/worker-messages.ts";
import {
  COPY_SIZE_MAX,
  decodeMetadata,
  encodeMetadata,
  METADATA_SIZE,
  type Metadata,
} from "../../src/metadata/block.ts";
import { copyOffset } from "../../src/metadata/copies.ts";
import { type Layout, mapBytes } from "../../src/metadata/layout.ts";
import { type Disk, DiskError } from "../../src/platform/disk.ts";
import type { Entropy } from "../../src/platform/entropy.ts";
import type { HandshakeSocket } from "../../src/platform/handshake-socket.ts";
import type { Log } from "../../src/platform/log.ts";
import { createArena } from "../../src/platform/node/arena.ts";
import { nodeHashes } from "../../src/platform/node/hashes.ts";
import type {
  ProcessExit,
  Processes,
  ProcessHandler,
  WorkerIdentity,
  WorkerProcess,
} from "../../src/platform/process.ts";
import { NO_SUPERVISOR } from "../../src/platform/supervisor.ts";
import { NO_DEVICES, NO_HOOKS, NO_TLS } from "../daemon/fakes.ts";
import type { Random } from "../model/disk.ts";
import { PretendDisk, type RunningRequest } from "../pretend/disk.ts";
import type { End } from "../pretend/net.ts";
import { SimMedium } from "./medium.ts";
import {
  type Host,
  type Owner,
  ProcessNet,
  SimHandshakeSocket,
  type SimNetwork,
} from "./network.ts";
import type { Shape } from "./plan.ts";
import { Stopper } from "./stopper.ts";
import { ProcessClock, type Timeline } from "./timeline.ts";
import type { Cells } from "./trace.ts";

const RESOURCE = "r0";
const PORT = 8457;
export const EXPORT = "unix:///run/hast/r0.sock";
const STRENGTH: Readonly<Record<Replication, number>> = { async: 0, memsync: 1, fullsync: 2 };
const EIO = 5;
const ENOSPC = 28;

/** Whoever wants to know what happens on machines. */
export interface Watcher {
  note(text: string, about?: Cells | "detail" | null): void;
  told(worker: SimWorker, message: FromWorker): void;
  /** A line for the operator, above debug. */
  said(machine: Machine, text: string): void;
  opened(worker: SimWorker): void;
  /** @param code how it ended by itself; null if it was killed, or lost its power */
  died(worker: SimWorker, code: number | null): void;
  /** Nothing that it asked of its disk is under way any more. */
  drained(worker: SimWorker): void;
  /** A request of a worker has failed. */
  diskFault(worker: SimWorker, request: RunningRequest): void;
  /** What must not fail has. */
  failed(error: Error): void;
}

export interface Surroundings {
  readonly timeline: Timeline;
  /** This machine's own. */
  readonly random: Random;
  readonly network: SimNetwork;
  readonly arenas: Arenas;
  readonly watcher: Watcher;
}

/** Memory of dead workers, for the next: dirty as it is, since nothing may rely on zeroes in it. */
export class Arenas {
  readonly #free: Uint8Array[] = [];

  take(): Uint8Array {
    // Not as a Buffer, whose slice() copies nothing.
    return this.#free.pop() ?? new Uint8Array(createArena(ARENA_SIZE).buffer, 0, ARENA_SIZE);
  }

  give(arena: Uint8Array): void {
    this.#free.push(arena);
  }
}

class SimEntropy implements Entropy {
  readonly #random: Random;
  constructor(random: Random) {
    this.#random = random;
  }
  fill(bytes: Uint8Array): void {
    for (let index = 0; index < bytes.length; index++) bytes[index] = this.#random.below(256);
  }
}

class SimLog implements Log {
  readonly debugLevel = 1;
  readonly #machine: Machine;
  readonly #watcher: Watcher;
  readonly #prefix: string;

  constructor(machine: Machine, watcher: Watcher, prefix: string) {
    this.#machine = machine;
    this.#watcher = watcher;
    this.#prefix = prefix;
  }
  error(text: string): void {
    this.#say("error", text);
  }
  warning(text: string): void {
    this.#say("warning", text);
  }
  notice(text: string): void {
    this.#say("notice", text);
  }
  info(text: string): void {
    this.#say("info", text);
  }
  debug(_level: number, text: string): void {
    this.#watcher.note(`${this.#machine.name}: ${this.#prefix}${text}`, "detail");
  }
  #say(level: string, text: string): void {
    this.#watcher.note(`${this.#machine.name}: ${this.#prefix}${level}: ${text}`);
    this.#watcher.said(this.#machine, text);
  }
  withPrefix(prefix: string): Log {
    return new SimLog(this.#machine, this.#watcher, prefix);
  }
}

/** How a machine's disk behaves at the moment. */
export interface DiskManners {
  /** Mean ms of a request. */
  readonly delayMs: number;
  /** How often each kind of request fails. */
  readonly readFaults: number;
  readonly writeFaults: number;
  readonly flushFaults: number;
  /** Only the next flush that fails does. */
  readonly flushFaultOnce: boolean;
  /** Nothing can be written. */
  readonly full: boolean;
  /** How many times longer everything takes. */
  readonly slowness: number;
}

/** A disk without faults. */
/** A request that is slow for longer would outlive the last check: see #letGo() of the world. */
const SLOWEST_MS = 2_500;

function decodeAll(blocks: readonly Uint8Array[]): Metadata[] {
  return blocks
    .filter((bytes) => bytes.some((byte) => byte !== 0)) // never written
    .map((bytes) => decodeMetadata(bytes, RESOURCE));
}

function soundDisk(delayMs: number): DiskManners {
  return {
    delayMs,
    readFaults: 0,
    writeFaults: 0,
    flushFaults: 0,
    flushFaultOnce: false,
    full: false,
    slowness: 1,
  };
}

export interface MachineManners {
  readonly diskDelayMs: number;
  readonly clockRate: number;
  /** A failed flush loses part of what was in the cache, although reads still show it. */
  readonly flushLoses: boolean;
  readonly flushLies: boolean;
}

export class Machine implements Host {
  readonly name: string;
  readonly ip: string;
  readonly medium: SimMedium;
  /** What hast.conf says; a daemon reads it when it starts, and when it is told to. */
  settings: WorkerSettings;
  readonly shape: Shape;
  readonly surroundings: Surroundings;
  readonly clockRate: number;
  readonly flushLoses: boolean;
  on = false;
  daemon: SimDaemon | null = null;
  readonly workers: Set<SimWorker> = new Set();
  disk: DiskManners;
  /** No request ends before. */
  diskStuckUntilMs = 0;
  /** Cells that cannot be read until they are written, or that cannot be written, either. */
  readonly badCells: Map<number, "unreadable" | "dead"> = new Map();
  /** Who has the disk open. */
  lockedBy: SimWorker | null = null;
  nextPid = 100;

  constructor(
    name: string,
    ip: string,
    shape: Shape,
    settings: WorkerSettings,
    surroundings: Surroundings,
    manners: MachineManners,
  ) {
    this.name = name;
    this.ip = ip;
    this.shape = shape;
    this.settings = settings;
    this.surroundings = surroundings;
    this.disk = soundDisk(manners.diskDelayMs);
    this.clockRate = manners.clockRate;
    this.flushLoses = manners.flushLoses;
    const { sectorSize, cellCount } = shape;
    this.medium = new SimMedium(
      name,
      { sectorSize, cellCount, dataStart: this.#dataStart },
      surroundings.random,
    );
    this.medium.flushLies = manners.flushLies;
    this.create(true);
  }

  get #dataStart(): number {
    const mapEnd = METADATA_SIZE + 4096 * Math.ceil(this.mapSize / 4096);
    return this.shape.gap ? 65536 * Math.ceil((mapEnd + METADATA_SIZE) / 65536) : mapEnd;
  }

  /** Bytes of the map on disk. */
  get mapSize(): number {
    const { sectorSize } = this.shape;
    return sectorSize * Math.ceil(mapBytes(this.extentCount) / sectorSize);
  }

  get extentCount(): number {
    const { sectorSize, cellCount, extentSize } = this.shape;
    return Math.ceil((cellCount * sectorSize) / extentSize);
  }

  /** `hastctl create`. Nobody has the disk open. */
  create(wipe: boolean): void {
    const { sectorSize, cellCount, extentSize, keepdirty } = this.shape;
    const metadata: Metadata = {
      resource: RESOURCE,
      datasize: cellCount * sectorSize,
      extentsize: extentSize,
      keepdirty,
      localoff: this.#dataStart,
      resuid: 0n,
      localcnt: 0n,
      remotecnt: 0n,
      prevrole: "init",
      state: "new",
      sequence: 1n,
      synced: null,
      aloneSince: null,
    };
    this.badCells.clear(); // a new disk
    this.medium.format(encodeMetadata(metadata), wipe);
  }

  /** What the metadata could be after a power cut, in either copy, the block's present one last. */
  recordVersions(): Metadata[] {
    return this.#recordPlaces.flat();
  }

  /** Of the second copy, and of the block: each way that a power cut could leave it, and last as it is. */
  get #recordPlaces(): [Metadata[], Metadata[]] {
    const at = copyOffset(this.#layout, this.extentCount);
    const within = at % this.shape.sectorSize;
    const copies = this.#versionsAt((at - within) / this.shape.sectorSize, within);
    return [decodeAll(copies), decodeAll(this.#versionsAt(0, 0))];
  }

  #versionsAt(sector: number, within: number): Uint8Array[] {
    return this.medium.rawVersions(sector).map((bytes) => {
      const block = new Uint8Array(METADATA_SIZE);
      block.set(bytes.subarray(within, within + COPY_SIZE_MAX));
      return block;
    });
  }

  get #layout(): Layout {
    const { cellCount, sectorSize } = this.shape;
    return {
      kind: "header",
      metadataOffset: 0,
      mapOffset: METADATA_SIZE,
      mapSize: this.mapSize,
      localoff: this.#dataStart,
      datasize: cellCount * sectorSize,
    };
  }

  get record(): Metadata {
    return this.recordVersions().at(-1)!;
  }

  /** What a worker that reads the disk now goes by. */
  get latestRecord(): Metadata {
    const [copies, blocks] = this.#recordPlaces;
    const block = blocks.at(-1)!;
    const copy = copies.at(-1) ?? block;
    return (copy.sequence ?? 0n) > (block.sequence ?? 0n) ? copy : block;
  }

  /** Extents that are marked whatever a power cut leaves. */
  stableMap(): Uint8Array {
    const { sectorSize } = this.shape;
    const map = new Uint8Array(this.mapSize).fill(0xff);
    for (let at = 0; at < map.length; at += sectorSize) {
      for (const version of this.medium.rawVersions((METADATA_SIZE + at) / sectorSize)) {
        for (let index = 0; index < sectorSize; index++) map[at + index]! &= version[index]!;
      }
    }
    return map;
  }

  /** A map in which every extent is marked. */
  fullMap(): Uint8Array {
    return new Uint8Array(this.mapSize).fill(0xff);
  }

  /** The worker that serves NBD clients, or will, if there is one. */
  get primary(): SimWorker | null {
    return this.#workerIn("primary");
  }

  get secondary(): SimWorker | null {
    return this.#workerIn("secondary");
  }

  /** Of several, who has the disk; a daemon that was killed may have left one that is stopped. */
  #workerIn(role: "primary" | "secondary"): SimWorker | null {
    let found: SimWorker | null = null;
    for (const worker of this.workers) {
      if (worker.role !== role) continue;
      found = worker;
      if (worker === this.lockedBy) break;
    }
    return found;
  }

  get resource(): Resource | null {
    return this.daemon?.resource ?? null;
  }

  startDaemon(): void {
    this.daemon = new SimDaemon(this);
  }

  /** hast.conf. @param finished or somebody is still editing it */
  #configText(finished: boolean): string {
    const { settings } = this;
    const statement = (keyword: keyof WorkerSettings): string =>
      `  ${keyword} ${settings[keyword]}`;
    return [
      "control unix:///run/hastctl",
      `listen tcp://${this.ip}:${PORT}`,
      `resource ${RESOURCE} {`,
      ...(["local", "remote", "export", "replication"] as const).map(statement),
      ...(["checksum", "compression", "timeout"] as const).map(statement),
      `  metaflush ${settings.metaflush ? "on" : "off"}`,
      `  on ${this.name} { }`,
      finished ? "}\n" : "",
    ].join("\n");
  }

  /** As the daemon finds it. @throws StartError */
  loadConfig(finished = true): Loaded {
    const here = { names: [this.name], uuid: null, hostid: null };
    const result = readConfig(this.#configText(finished), "hast.conf", here);
    if (result.kind === "complaints") {
      throw new StartError(78, result.complaints.map(formatComplaint).join("\n"));
    }
    const rights = { controlAccess: { mode: 0o600, user: null, group: null }, administrators: [0] };
    return {
      config: result.config,
      settings: daemonSettings(result.config, rights),
      adopt: () => [],
    };
  }

  powerOn(): void {
    if (this.on) return;
    this.on = true;
    this.surroundings.network.returned();
    this.startDaemon();
  }

  powerCut(): void {
    const { network } = this.surroundings;
    const owners: Owner[] = [...this.workers];
    if (this.daemon !== null) owners.push(this.daemon);
    this.on = false;
    for (const worker of [...this.workers]) worker.powerCut();
    this.lockedBy?.powerCut(); // one that was dead already
    if (this.daemon !== null) this.daemon.alive = false;
    this.daemon = null;
    network.vanish(this, owners);
    this.medium.powerCut();
    this.diskStuckUntilMs = 0;
  }

  /** SIGKILL of the main daemon; its workers notice. */
  killDaemon(): void {
    const { daemon } = this;
    if (daemon === null) return;
    this.daemon = null;
    daemon.alive = false;
    this.surroundings.network.abandon(daemon);
    for (const worker of this.workers) worker.daemonGone();
  }

  /** As by SIGSTOP: the process does nothing, its connections stay. */
  stopProcess(process: SimDaemon | SimWorker): void {
    process.stopper.stop();
    for (const end of process.ends) end.stop();
  }

  processGoesOn(process: SimDaemon | SimWorker): void {
    if (!process.stopper.stopped) return;
    process.stopper.goOn();
    for (const end of process.ends) end.goOn();
  }

  /** No more faults. */
  mend(): void {
    for (const process of [this.daemon, ...this.workers]) {
      if (process !== null) this.processGoesOn(process);
    }
    this.disk = soundDisk(this.disk.delayMs);
    this.diskStuckUntilMs = 0;
    this.badCells.clear();
  }

  /** Does a request fail for the sectors it touches? A write makes those readable that it can. */
  hitsBadCell({ op, offset, length }: RunningRequest): boolean {
    if (this.badCells.size === 0 || op === "flush") return false;
    const { dataStart, sectorSize } = this.medium;
    const from = (offset - dataStart) / sectorSize;
    let hit = false;
    for (const [cell, kind] of this.badCells) {
      if (cell < from || cell >= from + length / sectorSize) continue;
      if (op === "read" || kind === "dead") hit = true;
      else this.badCells.delete(cell);
    }
    return hit;
  }

  /** Null for a request that is not about the data alone. */
  cellsOf({ op, offset, length }: RunningRequest): Cells | null {
    const { dataStart, sectorSize } = this.medium;
    if (op === "flush" || offset < dataStart) return null;
    return { from: (offset - dataStart) / sectorSize, count: length / sectorSize };
  }

  diskDelay(): number {
    const { random, timeline } = this.surroundings;
    const { delayMs, slowness } = this.disk;
    const stuck = Math.max(0, this.diskStuckUntilMs - timeline.nowMs);
    const spike = random.chance(0.02) ? 20 : 2;
    return stuck + Math.min(SLOWEST_MS, delayMs * slowness * spike * random.next());
  }
}

/** The main daemon's process. */
export class SimDaemon implements Owner, Processes {
  readonly host: Machine;
  alive = true;
  readonly ends: Set<End> = new Set();
  readonly stopper: Stopper;
  readonly #daemon: Daemon;
  readonly #configuration: ConfigurationInUse;
  #finished = true;

  constructor(machine: Machine) {
    this.host = machine;
    const { timeline, random, network, watcher } = machine.surroundings;
    this.stopper = new Stopper(timeline);
    const clock = new ProcessClock(timeline, this.stopper, machine.clockRate, () => this.alive);
    const net = new ProcessNet(network, this, clock);
    const log = new SimLog(machine, watcher, "");
    const { config, settings } = machine.loadConfig();
    this.#configuration = new ConfigurationInUse(config, () => this.#load(), log, NO_SUPERVISOR);
    this.#daemon = new Daemon(settings, {
      clock,
      entropy: new SimEntropy(random),
      processes: this,
      net,
      handshakeNet: net,
      tls: NO_TLS,
      resolver: { lookup: () => Promise.resolve([]) },
      probe: () => {
        const copy = { state: machine.record.state!, forced: null };
        return Promise.resolve({ kind: "usable", copy });
      },
      log,
      workerLog: "stdio",
      devices: NO_DEVICES,
      hooks: NO_HOOKS,
      configuration: this.#configuration,
    });
    this.#configuration.governs(this.#daemon);
    void this.#daemon.open();
  }

  get resource(): Resource {
    return this.#daemon.resource(RESOURCE)!;
  }

  #load(): Loaded {
    const finished = this.#finished;
    this.#finished = true;
    return this.host.loadConfig(finished);
  }

  /** As SIGHUP. @param finished or hast.conf makes no sense at that moment */
  reload(finished: boolean): void {
    this.stopper.reach(() => {
      if (!this.alive) return;
      this.#finished = finished;
      this.#configuration
        .reload()
        .catch((error) => this.host.surroundings.watcher.failed(error as Error));
    });
  }

  /** As SIGTERM. */
  async stop(): Promise<void> {
    await this.#daemon.stop();
    if (!this.alive) return;
    this.alive = false;
    if (this.host.daemon === this) this.host.daemon = null;
    this.host.surroundings.network.abandon(this);
    for (const worker of this.host.workers) worker.daemonGone();
  }

  spawn(identity: WorkerIdentity, handler: ProcessHandler): WorkerProcess {
    return new SimWorker(this.host, this, identity, handler);
  }
}

/** A worker's process, and the daemon's handle of it. */
export class SimWorker implements Owner, WorkerProcess {
  readonly host: Machine;
  readonly role: "primary" | "secondary";
  readonly pid: number;
  alive = true;
  readonly ends: Set<End> = new Set();
  readonly stopper: Stopper;
  /** How it replicates. */
  mode: Replication = "fullsync";
  readonly #daemon: SimDaemon;
  readonly #handler: ProcessHandler;
  readonly #clock: ProcessClock;
  readonly #arena: Uint8Array;
  readonly #worker: ResourceWorker;
  #disk: PretendDisk | null = null;
  /** What it had under way when it died. */
  readonly #orphans: Set<RunningRequest> = new Set();
  /** Messages keep their order. */
  #toWorkerMs: number;
  #toDaemonMs = 0;
  #exiting = false;

  constructor(
    machine: Machine,
    daemon: SimDaemon,
    identity: WorkerIdentity,
    handler: ProcessHandler,
  ) {
    this.host = machine;
    this.role = identity.role;
    this.pid = machine.nextPid++;
    this.#daemon = daemon;
    this.#handler = handler;
    const { timeline, random, network, arenas, watcher } = machine.surroundings;
    this.#toWorkerMs = timeline.nowMs + 20 + random.below(100); // Node has to start
    this.stopper = new Stopper(timeline);
    this.#clock = new ProcessClock(timeline, this.stopper, machine.clockRate, () => this.alive);
    this.#arena = arenas.take();
    machine.workers.add(this);
    const prefix = `[${identity.resource}] (${identity.role} ${this.pid}) `;
    this.#worker = new ResourceWorker({
      environment: {
        arena: this.#arena,
        net: new ProcessNet(network, this, this.#clock),
        clock: this.#clock,
        entropy: new SimEntropy(random),
        hashes: nodeHashes,
      },
      openDisk: () => this.#openDisk(),
      dropPrivileges: () => undefined,
      openLog: () => new SimLog(machine, watcher, prefix),
      tell: (message) => this.#tell(message),
      exit: (code) => this.#exit(code),
    });
  }

  toString(): string {
    return `${this.host.name} ${this.role} ${this.pid}`;
  }

  get primaryEngine(): PrimaryEngine | null {
    const { engine } = this.#worker;
    return engine instanceof PrimaryEngine ? engine : null;
  }

  get secondaryEngine(): SecondaryEngine | null {
    const { engine } = this.#worker;
    return engine instanceof SecondaryEngine ? engine : null;
  }

  // ---- the daemon's side ----------------------------------------------------------------------

  send(message: object, socket?: HandshakeSocket): void {
    let end: End | null = null;
    if (socket !== undefined) {
      if (!(socket instanceof SimHandshakeSocket)) throw new TypeError("not a socket of this net");
      end = socket.release();
      if (end === null) return;
      this.#daemon.ends.delete(end);
      if (!this.alive) {
        end.destroy();
        return;
      }
      this.ends.add(end);
    }
    const { timeline, random } = this.host.surroundings;
    this.#toWorkerMs = Math.max(timeline.nowMs + random.next() * 0.5, this.#toWorkerMs);
    timeline.after(this.#toWorkerMs - timeline.nowMs, () => {
      this.stopper.reach(() => {
        if (this.alive && !this.#exiting) this.#hear(message as ToWorker, end);
      });
    });
  }

  #hear(message: ToWorker, end: End | null): void {
    const replication = "settings" in message ? message.settings.replication : this.mode;
    // What it answers on this occasion counts under the mode that promises less.
    if (STRENGTH[replication] < STRENGTH[this.mode]) this.mode = replication;
    this.#worker.message(message, end);
    this.mode = replication;
  }

  kill(signal: "SIGTERM" | "SIGKILL"): void {
    const { timeline, random } = this.host.surroundings;
    timeline.after(random.next(), () => {
      const die = (): void => this.die({ kind: "signal", signal });
      if (signal === "SIGKILL") die();
      else this.stopper.reach(die);
    });
  }

  /** Its channel to the daemon has closed. */
  daemonGone(): void {
    const { timeline, random } = this.host.surroundings;
    timeline.after(random.next() * 2, () => {
      this.stopper.reach(() => {
        if (this.alive && !this.#exiting) this.#worker.stop(ORPHAN_GRACE_MS);
      });
    });
  }

  // ---- the process's side ---------------------------------------------------------------------

  #tell(message: FromWorker): void {
    this.host.surroundings.watcher.told(this, message);
    this.#toDaemon(() => this.#handler.message(message));
  }

  #toDaemon(act: () => void): void {
    const { timeline, random } = this.host.surroundings;
    this.#toDaemonMs = Math.max(timeline.nowMs + random.next() * 0.5, this.#toDaemonMs);
    timeline.after(this.#toDaemonMs - timeline.nowMs, () => {
      this.#daemon.stopper.reach(() => {
        if (this.#daemon.alive) act();
      });
    });
  }

  /** The process lives on until the daemon has been told everything. */
  #exit(code: number): void {
    if (this.#exiting) return;
    this.#exiting = true;
    const { timeline, random } = this.host.surroundings;
    timeline.after(random.next(), () => this.stopper.reach(() => this.die({ kind: "code", code })));
  }

  #openDisk(): Disk {
    const { host } = this;
    if (host.lockedBy !== null) throw new DiskError("EBUSY", "the disk is in use");
    host.lockedBy = this;
    const { random, watcher } = host.surroundings;
    const disk = new PretendDisk({
      events: this.stopper.poster(() => random.next() * 0.01),
      completions: this.stopper.poster(() => host.diskDelay()),
      arena: this.#arena,
      size: 0,
      medium: host.medium,
      sectorSize: host.shape.sectorSize,
      completion: "later",
    });
    disk.fail = (request) => this.#fail(request);
    this.#disk = disk;
    watcher.opened(this);
    return disk;
  }

  /** Whether a request fails; one that does may have done part of its work. */
  #fail(request: RunningRequest): number {
    const { random, watcher } = this.host.surroundings;
    const { readFaults, writeFaults, flushFaults, full } = this.host.disk;
    const rate =
      request.op === "read" ? readFaults : request.op === "flush" ? flushFaults : writeFaults;
    const bad = this.host.hitsBadCell(request);
    const noSpace = full && request.op === "write";
    if (!noSpace && !bad && !random.chance(rate)) return 0;
    const what = `${request.op} of ${request.length} bytes at ${request.offset}`;
    watcher.note(`${this}: ${noSpace ? "ENOSPC" : "EIO"}: ${what}`, this.host.cellsOf(request));
    if (request.op !== "flush") this.#partly(request);
    else {
      if (this.host.flushLoses) this.host.medium.loseSome(() => random.chance(0.5));
      if (this.host.disk.flushFaultOnce) this.host.disk = { ...this.host.disk, flushFaults: 0 };
    }
    watcher.diskFault(this, request);
    return noSpace ? ENOSPC : EIO;
  }

  #partly({ op, offset, length, bytes }: RunningRequest): void {
    const { random } = this.host.surroundings;
    const share = random.pick([0, 0.5, 1]);
    const arrives = (): boolean => random.chance(share);
    if (op === "write") this.host.medium.pokeSome(offset, bytes!, arrives);
    else if (op === "zero") this.host.medium.zeroSome(offset, length, arrives);
  }

  /** The process is gone, whatever it was doing. */
  die(exit: ProcessExit): void {
    if (!this.alive) return;
    this.alive = false;
    const { host } = this;
    const { timeline, network, watcher } = host.surroundings;
    watcher.note(`${this}: ${exit.kind === "code" ? `exits with ${exit.code}` : "is killed"}`);
    host.workers.delete(this);
    network.abandon(this);
    watcher.died(this, exit.kind === "code" ? exit.code : null);
    this.#toDaemon(() => this.#handler.exited(exit));
    this.#leaveDisk();
    for (const request of [...this.#orphans]) {
      timeline.after(host.diskDelay(), () => {
        if (!this.#orphans.delete(request)) return; // the power went first
        this.#partly(request);
        if (this.#orphans.size === 0) this.#drained();
      });
    }
    if (this.#orphans.size === 0) this.#drained();
  }

  #leaveDisk(): void {
    for (const request of this.#disk?.running ?? []) this.#orphans.add(request);
    this.#disk?.abandon(this.#arena);
    this.#disk = null;
  }

  #drained(): void {
    const { arenas, watcher } = this.host.surroundings;
    if (this.host.lockedBy === this) this.host.lockedBy = null;
    arenas.give(this.#arena);
    watcher.drained(this);
  }

  /** Alive or not. */
  powerCut(): void {
    const { watcher } = this.host.surroundings;
    if (this.alive) {
      this.alive = false;
      this.host.workers.delete(this);
      this.#leaveDisk();
      watcher.died(this, null);
    }
    for (const request of this.#orphans) this.#partly(request);
    this.#orphans.clear();
    this.#drained();
  }
}

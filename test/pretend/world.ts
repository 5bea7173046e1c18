// SPDX-License-Identifier: BSD-2-Clause
/** Everything an engine lives in and talks to, for one node of a test. */

import { ARENA_SIZE } from "../../src/engine/memory.ts";
import type { EngineEnvironment, EngineHost } from "../../src/engine/primary-engine.ts";
import type {
  CopyWorth,
  Divergence,
  Left,
  PeerLacks,
  Resolution,
  WorkerEvent,
  WorkerSettings,
} from "../../src/engine/worker-messages.ts";
import { encodeMetadata, type Metadata } from "../../src/metadata/block.ts";
import { freebsdLayout } from "../../src/metadata/layout.ts";
import { nodeHashes } from "../../src/platform/node/hashes.ts";
import type { Wish } from "../../src/wire/control.ts";
import { PretendClock } from "./clock.ts";
import { PretendDisk } from "./disk.ts";
import { FixedEntropy } from "./entropy.ts";
import { Events } from "./events.ts";
import { PretendNet } from "./net.ts";

/** Remembers what an engine tells. */
export class RecordingHost implements EngineHost {
  /** What the local copy was worth, as it changed. */
  readonly copies: CopyWorth[] = [];
  readonly events: WorkerEvent[] = [];
  readonly divergences: Divergence[] = [];
  readonly notices: string[] = [];
  readonly warnings: string[] = [];
  readonly errors: string[] = [];
  exit: { readonly code: number; readonly reason: string } | null = null;
  /** What it leaves to the next engine. */
  left: Left | null = null;

  /** What it wants the arbiter to put on record. */
  readonly wishes: Wish[] = [];
  wish(wish: Wish): void {
    this.wishes.push(wish);
  }
  copy(copy: CopyWorth): void {
    this.copies.push(copy);
  }
  event(event: WorkerEvent): void {
    this.events.push(event);
  }
  diverged(divergence: Divergence): void {
    this.divergences.push(divergence);
  }
  readonly invalidations: Resolution[] = [];
  invalidated(resolution: Resolution): void {
    this.invalidations.push(resolution);
  }
  /** How often the device was to go. */
  devicesMisled = 0;
  deviceMisled(): void {
    this.devicesMisled++;
  }
  /** That it is decided whose data count. */
  hasSettled = false;
  settled(): void {
    this.hasSettled = true;
  }
  /** What the gate says. */
  resyncRefusal: Promise<string | null> = Promise.resolve(null);
  /** How often it was asked. */
  resyncAsked = 0;

  mayResync(): Promise<string | null> {
    this.resyncAsked++;
    return this.resyncRefusal;
  }
  notice(text: string): void {
    this.notices.push(text);
  }
  warning(text: string): void {
    this.warnings.push(text);
  }
  error(text: string): void {
    this.errors.push(text);
  }
  debug(): void {}
  /** What the other node lacks, says a primary that ended. */
  peerLacks: PeerLacks | null = null;

  ended(code: number, reason: string, left: Left | null, lacks: PeerLacks | null = null): void {
    if (this.exit !== null) throw new Error("the engine ended twice");
    this.peerLacks = lacks;
    this.left = left;
    this.exit = { code, reason };
  }
}

const SETTINGS: WorkerSettings = {
  resource: "r0",
  provname: "r0",
  local: "/pretend/disk",
  remote: "tcp://peer",
  source: null,
  replication: "fullsync",
  checksum: "none",
  compression: "none",
  timeout: 20,
  metaflush: true,
  export: "unix:///pretend/r0.sock",
  exportTls: false,
  tlspeer: null,
};

export interface WorldOptions {
  readonly settings?: Partial<WorkerSettings>;
  /** Bytes of the medium. */
  readonly mediaSize?: number;
  readonly completion?: "inside" | "later" | "held";
  /** Reused from test to test, dirty as it is: nothing may rely on zeroes in it. */
  readonly arena?: Uint8Array;
  readonly entropy?: readonly Uint8Array[];
  /** Which of `count` waiting events comes next. */
  readonly pick?: (count: number) => number;
}

export class World {
  readonly events: Events;
  readonly clock: PretendClock;
  readonly net: PretendNet;
  readonly disk: PretendDisk;
  readonly arena: Uint8Array;
  readonly settings: WorkerSettings;
  readonly environment: EngineEnvironment;
  host: RecordingHost = new RecordingHost();

  constructor(options: WorldOptions = {}) {
    this.events = new Events(options.pick);
    this.clock = new PretendClock(this.events);
    this.net = new PretendNet(this.events, this.clock);
    this.arena = options.arena ?? dirtyArena();
    this.settings = { ...SETTINGS, ...options.settings };
    this.disk = new PretendDisk({
      events: this.events,
      arena: this.arena,
      size: options.mediaSize ?? 1024 * 1024,
      completion: options.completion ?? "inside",
    });
    this.environment = {
      arena: this.arena,
      net: this.net,
      clock: this.clock,
      entropy: new FixedEntropy(options.entropy),
      hashes: nodeHashes,
    };
  }

  /** Waits for a promise that the pretended world has to keep going for. */
  async until<T>(promise: Promise<T>): Promise<T> {
    const [result] = await Promise.all([promise, this.events.settle()]);
    return result;
  }
}

/** Bytes at the beginning of an arena: as far as all tests but a few get. */
const DIRTY_SIZE: number = 48 * 1024 * 1024;

/** An arena whose bytes are somebody else's old data. */
export function dirtyArena(): Uint8Array {
  return new Uint8Array(ARENA_SIZE).fill(0xa5, 0, DIRTY_SIZE);
}

/** As FreeBSD's `hastctl create` lays out a component of `disk`'s size, with `changes`. */
export function createComponent(disk: PretendDisk, changes: Partial<Metadata> = {}): Metadata {
  const { mediaSize, sectorSize } = disk;
  const extentsize = changes.extentsize ?? 65536;
  const layout = freebsdLayout({ mediaSize, sectorSize, extentsize });
  const metadata: Metadata = {
    resource: "r0",
    datasize: layout.datasize,
    extentsize,
    keepdirty: 64,
    localoff: layout.localoff,
    resuid: 0n,
    localcnt: 0n,
    remotecnt: 0n,
    prevrole: "init",
    state: null,
    sequence: null,
    synced: null,
    aloneSince: null,
    ...changes,
  };
  disk.poke(0, encodeMetadata(metadata));
  return metadata;
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * What uses the disk: some connections, each with several commands in flight, which overlap on purpose.
 * Each looks for a primary, on either machine, and again when its server has gone.
 */

import type { NetFailure } from "../../src/platform/net.ts";
import type { Random } from "../model/disk.ts";
import type { Request } from "../nbd-peer.ts";
import {
  NBD_FLUSH,
  NBD_FUA,
  NBD_READ,
  NBD_TRIM,
  NBD_WRITE,
  NBD_WRITE_ZEROES,
} from "../pretend/nbd-client.ts";
import type { End } from "../pretend/net.ts";
import { type ClientHandler, NbdConnection } from "./client.ts";
import { describe, type Op, type OpKind } from "./history.ts";
import { EXPORT, type Machine, type SimWorker } from "./machine.ts";
import type { Owner } from "./network.ts";
import { fillCells } from "./pattern.ts";
import { type Rest, stream } from "./plan.ts";
import { Stopper } from "./stopper.ts";
import { ProcessClock } from "./timeline.ts";
import { Violation } from "./violation.ts";
import type { World } from "./world.ts";

const READ_MAX = 65536; // bytes, of the last reading of everything

export interface ApplicationManners {
  readonly connections: number;
  readonly depth: number;
  readonly thinkMs: number;
  readonly rests: readonly Rest[];
}

export class Application {
  readonly world: World;
  readonly manners: ApplicationManners;
  readonly #users: User[];
  paused = false;

  constructor(world: World, manners: ApplicationManners) {
    this.world = world;
    this.manners = manners;
    this.#users = Array.from(
      { length: manners.connections },
      (_, index) => new User(this, stream(world.seed, `user ${index}`)),
    );
  }

  start(): void {
    for (const user of this.#users) user.look();
  }

  /** No more commands. */
  pauseAll(): void {
    this.paused = true;
  }

  /** How long nobody sends anything from now on. */
  get restMs(): number {
    const { sinceStartMs } = this.world;
    const rest = this.manners.rests.find(
      ({ atMs, untilMs }) => atMs <= sinceStartMs && sinceStartMs < untilMs,
    );
    return rest === undefined || this.paused ? 0 : rest.untilMs - sinceStartMs;
  }

  leaveAll(): void {
    for (const user of this.#users) user.end();
  }

  /** A machine has lost its power, and this program's part on it too. */
  hostGone(machine: Machine): void {
    for (const user of this.#users) user.hostGone(machine);
  }

  waiting(): string {
    return this.#users.flatMap((user) => user.waiting()).join(", ");
  }

  readEverything(machine: Machine, done: () => void): void {
    this.#users[0]!.readEverything(machine, done);
  }
}

interface InFlight {
  readonly op: Op;
  readonly sentMs: number;
}

class User implements ClientHandler {
  readonly #application: Application;
  readonly #world: World;
  readonly #random: Random;
  #connection: NbdConnection | null = null;
  #machine: Machine | null = null;
  #worker: SimWorker | null = null;
  #owner: Owner | null = null;
  readonly #inFlight: Map<number, InFlight> = new Map();
  #ended = false;
  #looking = 0;
  /** The last reading: what is left, and whom to tell. */
  #toRead: { readonly cells: number[]; readonly done: () => void } | null = null;

  constructor(application: Application, random: Random) {
    this.#application = application;
    this.#random = random;
    this.#world = application.world;
  }

  waiting(): string[] {
    return [...this.#inFlight.values()].map(({ op }) => `${op.worker}: ${describe(op)}`);
  }

  // ---- finding a primary ----------------------------------------------------------------------

  look(): void {
    const random = this.#random;
    const { timeline } = this.#world;
    timeline.after(random.pick([50, 500]) * random.next(), () => this.#look());
  }

  #look(): void {
    if (this.#ended || this.#connection !== null) return;
    const random = this.#random;
    const { machines, network, timeline } = this.#world;
    const machine = random.pick(machines);
    if (!machine.on) {
      this.look();
      return;
    }
    const stopper = new Stopper(timeline);
    const owner: Owner = { host: machine, alive: true, ends: new Set(), stopper };
    const looking = ++this.#looking;
    const clock = new ProcessClock(timeline, stopper, 1, () => true);
    network.connect(owner, clock, EXPORT, 5_000, (result: End | NetFailure) => {
      if (looking !== this.#looking) return;
      const worker = machine.primary;
      if ("failure" in result || worker === null || this.#ended) {
        if (!("failure" in result)) result.destroy();
        this.look();
        return;
      }
      this.#owner = owner;
      this.#machine = machine;
      this.#worker = worker;
      this.#connection = new NbdConnection(result, this, random.chance(0.5));
    });
  }

  ready(): void {
    this.#think();
    this.#watch(this.#connection!);
  }

  /** Nothing stays without an answer for ever. */
  #watch(connection: NbdConnection): void {
    const { timeline, answerMs } = this.#world;
    timeline.after(10_000, () => {
      if (connection !== this.#connection) return;
      for (const { op, sentMs } of this.#inFlight.values()) {
        if (timeline.nowMs - sentMs > answerMs) {
          throw new Violation(
            `${op.worker}: ${describe(op)} has no answer after ${answerMs / 60_000} minutes`,
          );
        }
      }
      this.#watch(connection);
    });
  }

  closed(connection: NbdConnection): void {
    if (connection !== this.#connection) return;
    this.#forget();
    this.look();
  }

  #forget(): void {
    this.#connection = null;
    this.#owner?.ends.clear();
    this.#inFlight.clear();
  }

  hostGone(machine: Machine): void {
    if (this.#machine !== machine || this.#connection === null) return;
    this.#connection.end.reset();
    this.#connection.leave(false);
    this.#forget();
    this.look();
  }

  end(): void {
    this.#ended = true;
    this.#connection?.leave(this.#random.chance(0.5));
    this.#connection = null;
  }

  // ---- commands -------------------------------------------------------------------------------

  #think(): void {
    const random = this.#random;
    const { timeline } = this.#world;
    const connection = this.#connection;
    const { manners, restMs } = this.#application;
    timeline.after(restMs + manners.thinkMs * 2 * random.next(), () => {
      if (connection !== this.#connection || connection === null || this.#ended) return;
      this.#think();
      if (this.#application.restMs > 0) return;
      if (this.#application.paused) {
        this.#readNext();
        return;
      }
      if (random.chance(0.002)) {
        this.#world.note(`a client leaves ${this.#machine!.name}`, "detail");
        connection.leave(random.chance(0.5));
        this.#forget();
        this.look();
        return;
      }
      if (connection.inFlight < this.#application.manners.depth) this.#act();
    });
  }

  #act(): void {
    const random = this.#random;
    const { plan } = this.#world;
    const { cellCount, sectorSize } = plan.shape;
    const kind = random.pick([
      "read",
      "read",
      "write",
      "write",
      "write",
      "write",
      "zero",
      "flush",
    ] as const);
    if (kind === "flush") {
      this.#send("flush", false, 0, 0, { type: NBD_FLUSH });
      return;
    }
    const most = random.chance(0.05) ? cellCount : random.pick([1, 4, 16]);
    const count = 1 + random.below(Math.min(most, cellCount));
    const spot = random.chance(0.5) ? 0 : random.below(cellCount);
    const from = Math.min(cellCount - count, (spot + random.below(8)) % cellCount);
    const where = { offset: from * sectorSize, length: count * sectorSize };
    const fua = kind !== "read" && random.chance(0.1);
    const flags = fua ? NBD_FUA : 0;
    if (kind === "read") {
      this.#send("read", false, from, count, { type: NBD_READ, ...where });
    } else if (kind === "zero") {
      const type = random.pick([NBD_TRIM, NBD_WRITE_ZEROES, NBD_WRITE]);
      const payload = type === NBD_WRITE ? { payload: new Uint8Array(where.length) } : {};
      this.#send("zero", fua, from, count, { type, flags, ...where, ...payload });
    } else {
      this.#send("write", fua, from, count, { type: NBD_WRITE, flags, ...where });
    }
  }

  #send(kind: OpKind, fua: boolean, from: number, count: number, wanted: Request): void {
    const { history, plan, timeline } = this.#world;
    const op = history.submit(kind, fua, this.#worker!, from, count);
    const { sectorSize } = plan.shape;
    let request = wanted;
    if (kind === "write") {
      const payload = new Uint8Array(count * sectorSize);
      fillCells(payload, from, sectorSize, op.id);
      request = { ...wanted, payload };
    }
    this.#world.note(`${op.worker}: ${describe(op)} #${op.id}`, op);
    const expected = kind === "read" ? count * sectorSize : -1;
    const cookie = this.#connection!.send(request, expected);
    this.#inFlight.set(cookie, { op, sentMs: timeline.nowMs });
  }

  answered(connection: NbdConnection, cookie: number, error: number, data: Uint8Array): void {
    if (connection !== this.#connection) return;
    const { op } = this.#inFlight.get(cookie)!;
    this.#inFlight.delete(cookie);
    this.#world.note(
      `${op.worker}: ${describe(op)} #${op.id} ${error === 0 ? "ok" : `error ${error}`}`,
      op,
    );
    this.#world.history.answered(op, error, data, this.#world.timeline.nowMs);
    if (error !== 0 && this.#toRead !== null) {
      throw new Violation(`${op.worker}: ${describe(op)} fails with ${error} without a fault`);
    }
  }

  // ---- the last reading -----------------------------------------------------------------------

  readEverything(machine: Machine, done: () => void): void {
    const { cellCount, sectorSize } = this.#world.plan.shape;
    const step = READ_MAX / sectorSize;
    const cells = Array.from({ length: Math.ceil(cellCount / step) }, (_, index) => index * step);
    this.#toRead = { cells, done };
    if (this.#machine !== machine && this.#connection !== null) {
      this.#connection.leave(false);
      this.#forget();
      this.look();
    }
  }

  #readNext(): void {
    const reading = this.#toRead;
    if (reading === null || this.#inFlight.size > 0) return;
    const { cellCount, sectorSize } = this.#world.plan.shape;
    const from = reading.cells.shift();
    if (from === undefined) {
      this.#toRead = null;
      reading.done();
      return;
    }
    const count = Math.min(READ_MAX / sectorSize, cellCount - from);
    const where = { offset: from * sectorSize, length: count * sectorSize };
    this.#send("read", false, from, count, { type: NBD_READ, ...where });
  }
}

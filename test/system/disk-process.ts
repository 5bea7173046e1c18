// SPDX-License-Identifier: BSD-2-Clause
/**
 * One node's disk, in a process outside the node: what `DiskProcess` (power.ts) forks.
 *
 *   hastd ── device or file ── nbdfuse ── unix socket ── this process: VolatileDisk
 *                                 qemu ───────┘
 *
 * Orders come over the IPC channel and are answered one by one. When the channel closes the kernel is left
 * as it was found: no mount, no loop device, no nbdfuse.
 */

import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import type { NbdExport } from "../../src/nbd/export.ts";
import * as nbd from "../../src/nbd/protocol.ts";
import { NbdSession, type NbdSink } from "../../src/nbd/session.ts";
import { Random } from "../model/disk.ts";
import { KernelPlug, type PlugKind } from "./kernel-plug.ts";
import { type PowerCut, SECTOR_SIZE, VolatileDisk } from "./volatile-disk.ts";

/** What this process is started with: one argument, as JSON. */
export interface DiskShape {
  /** Exists, and is this disk's alone. */
  readonly directory: string;
  /** Bytes. */
  readonly size: number;
  /** "socket": nothing of this kernel is between; who comes there asks for the export "disk". */
  readonly kind: PlugKind | "socket";
  readonly seed: number;
}

/**
 * plug: makes it a device or file, and answers with the path. freeze: no request is begun or answered any
 * more. freeze-at-flush: the same from the next FLUSH on that has something to do. waiting: how many WRITEs
 * have come since. thaw: begins with those. cut: pulls it out of the machine and takes back what was not
 * flushed. lie: see VolatileDisk. break: fails every request from now on. replace: is a new disk, empty and
 * sound.
 */
export type DiskOrder =
  | "plug"
  | "freeze"
  | "freeze-at-flush"
  | "waiting"
  | "thaw"
  | "cut"
  | "lie"
  | "honest"
  | "break"
  | "replace";

export type DiskAnswer =
  | { readonly order: "plug"; readonly path: string }
  | { readonly order: "waiting"; readonly count: number }
  | { readonly order: "cut"; readonly cut: PowerCut }
  | { readonly order: Exclude<DiskOrder, "plug" | "waiting" | "cut"> }
  | { readonly order: "failed"; readonly reason: string };

/** Commands in flight, per connection. */
const DEPTH = 64;

class DiskServer {
  disk: VolatileDisk;
  readonly random: Random;
  readonly export: NbdExport;
  frozen = false;
  /** What to do at the next FLUSH that has something to do, instead of it. */
  atFlush: (() => void) | null = null;
  broken = false;
  readonly #connections = new Map<Socket, Connection>();
  readonly #server = createServer((socket) => {
    this.#connections.set(socket, new Connection(this, socket));
    socket.once("close", () => this.#connections.delete(socket));
  });

  constructor(size: number, seed: number) {
    this.disk = new VolatileDisk(size);
    this.random = new Random(seed);
    this.export = {
      name: "disk",
      description: "",
      size,
      blockMinimum: SECTOR_SIZE,
      blockPreferred: 4096,
      payloadMaximum: 32 * 1024 * 1024,
      multiConn: true,
      contexts: [],
    };
  }

  listen(path: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(path, resolve);
    });
  }

  dropClients(): void {
    for (const socket of this.#connections.keys()) socket.destroy();
  }

  get waiting(): number {
    let count = 0;
    for (const connection of this.#connections.values()) count += connection.waiting;
    return count;
  }

  thaw(): void {
    this.frozen = false;
    for (const connection of this.#connections.values()) connection.execute();
  }
}

interface Command {
  readonly type: number;
  readonly flags: number;
  readonly cookieHi: number;
  readonly cookieLo: number;
  readonly offset: number;
  readonly length: number;
  /** A WRITE's bytes. */
  readonly payload: Buffer;
  /** For a command that the session refused. */
  readonly nbdErrno: number | null;
}

const NOTHING = Buffer.alloc(0);

class Connection implements NbdSink {
  readonly #server: DiskServer;
  readonly #socket: Socket;
  readonly #session: NbdSession;
  readonly #out = Buffer.alloc(64);
  #chunks: Buffer[] = [];
  #arrived = 0;
  #feeding: Buffer = NOTHING;
  #pending: Command[] = [];

  constructor(server: DiskServer, socket: Socket) {
    this.#server = server;
    this.#socket = socket;
    this.#session = new NbdSession([server.export], this);
    socket.on("data", (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#arrived += chunk.length;
      this.#parse();
    });
    socket.on("error", () => socket.destroy()); // the other end was killed; that is what it is for
    this.#session.begin();
  }

  #parse(): void {
    const { frozen } = this.#server; // then what has come is counted
    while ((frozen || this.#pending.length === 0) && this.#arrived >= this.#session.wanted) {
      const bytes = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks);
      this.#feeding = bytes;
      const rest = bytes.subarray(this.#session.feed(bytes, 0, bytes.length));
      this.#chunks = rest.length > 0 ? [rest] : [];
      this.#arrived = rest.length;
      if (rest.length === bytes.length) break;
    }
    if (this.#pending.length > 0) setImmediate(() => this.execute());
  }

  send(bytes: Uint8Array): void {
    this.#socket.write(Buffer.from(bytes));
  }

  command(
    type: number,
    flags: number,
    cookieHi: number,
    cookieLo: number,
    offset: number,
    length: number,
    payload: number,
  ): boolean {
    if (this.#pending.length === DEPTH) return false;
    const end = type === nbd.NBD_CMD_WRITE ? payload + length : payload;
    const bytes = this.#feeding.subarray(payload, end);
    this.#pending.push({
      type,
      flags,
      cookieHi,
      cookieLo,
      offset,
      length,
      payload: bytes,
      nbdErrno: null,
    });
    return true;
  }

  refuse(type: number, cookieHi: number, cookieLo: number, nbdErrno: number): boolean {
    if (this.#pending.length === DEPTH) return false;
    const nothing = { flags: 0, offset: 0, length: 0, payload: NOTHING };
    this.#pending.push({ type, cookieHi, cookieLo, nbdErrno, ...nothing });
    return true;
  }

  finish(): void {
    this.#socket.end();
  }

  get waiting(): number {
    return this.#pending.filter(({ type }) => type === nbd.NBD_CMD_WRITE).length;
  }

  /** What arrived together was in flight together: any order is the disk's right, and it uses it. */
  execute(): void {
    const pending = this.#pending;
    while (pending.length > 0) {
      if (this.#server.frozen) return;
      const [command] = pending.splice(this.#server.random.below(pending.length), 1);
      this.#perform(command!);
    }
    this.#parse();
  }

  #perform(command: Command): void {
    const { type, flags, offset, length, cookieHi, cookieLo } = command;
    const { disk } = this.#server;
    const fua = (flags & nbd.NBD_CMD_FLAG_FUA) !== 0;
    let errno = command.nbdErrno ?? (this.#server.broken ? nbd.NBD_EIO : 0);
    if (errno === 0) {
      switch (type) {
        case nbd.NBD_CMD_READ: {
          const end = this.#session.putReadHeader(this.#out, 0, cookieHi, cookieLo, offset, length);
          this.#socket.write(Buffer.from(this.#out.subarray(0, end)));
          this.#socket.write(Buffer.from(disk.image.subarray(offset, offset + length)));
          return;
        }
        case nbd.NBD_CMD_WRITE:
          disk.write(offset, command.payload);
          if (fua) disk.flushRange(offset, length);
          break;
        case nbd.NBD_CMD_TRIM:
        case nbd.NBD_CMD_WRITE_ZEROES:
          disk.zero(offset, length);
          if (fua) disk.flushRange(offset, length);
          break;
        case nbd.NBD_CMD_FLUSH:
          if (this.#server.atFlush !== null && disk.unflushed > 0) {
            this.#server.frozen = true;
            this.#server.atFlush();
            return;
          }
          disk.flush();
          break;
        default:
          errno = nbd.NBD_EINVAL;
      }
    }
    const end = this.#session.putReply(this.#out, 0, type, cookieHi, cookieLo, errno);
    this.#socket.write(Buffer.from(this.#out.subarray(0, end)));
  }
}

const shape = JSON.parse(process.argv[2]!) as DiskShape;
const server = new DiskServer(shape.size, shape.seed);
const socketPath = join(shape.directory, "disk.sock");
const uri = `nbd+unix:///disk?socket=${socketPath}`;
const plug =
  shape.kind === "socket"
    ? { insert: async () => socketPath, pull: async () => {} }
    : new KernelPlug(shape.directory, uri, shape.kind);
const listening = server.listen(socketPath);

async function obey(order: DiskOrder): Promise<DiskAnswer> {
  await listening;
  switch (order) {
    case "plug":
      return { order, path: await plug.insert() };
    case "freeze":
      server.frozen = true;
      return { order };
    case "freeze-at-flush":
      await new Promise<void>((resolve) => {
        server.atFlush = resolve;
      });
      server.atFlush = null;
      return { order };
    case "waiting":
      return { order, count: server.waiting };
    case "thaw":
      server.thaw();
      return { order };
    case "cut": {
      server.frozen = true;
      await plug.pull();
      server.dropClients();
      const cut = server.disk.powerCut(() => server.random.next());
      server.frozen = false;
      return { order, cut };
    }
    case "break":
      server.broken = true;
      return { order };
    case "replace":
      await plug.pull();
      server.dropClients();
      server.disk = new VolatileDisk(shape.size);
      server.broken = false;
      return { order };
    case "lie":
    case "honest":
      server.disk.lying = order === "lie";
      return { order };
  }
}

function tell(answer: DiskAnswer): void {
  // Who has gone in the meantime wants only that nothing is left.
  if (process.connected) process.send!(answer);
}

let obeying: Promise<unknown> = Promise.resolve();
process.on("message", (order: DiskOrder) => {
  const answer = obeying.then(() => obey(order));
  obeying = answer.then(tell, (error: Error) =>
    tell({ order: "failed", reason: error.stack ?? error.message }),
  );
});
process.once("disconnect", () => {
  void obeying
    .then(() => plug.pull())
    .then(
      () => process.exit(0),
      (error: Error) => {
        console.error(`disk process: ${error.message}`);
        process.exit(1);
      },
    );
});
// Those are for the process that started us: it closes the channel.
for (const name of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(name, () => {});

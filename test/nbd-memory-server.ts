// SPDX-License-Identifier: BSD-2-Clause
/** A disk in memory behind src/nbd, on a unix socket: what real clients are tried against. */

import { createServer, type Server, type Socket } from "node:net";
import type { NbdExport } from "../src/nbd/export.ts";
import * as nbd from "../src/nbd/protocol.ts";
import { NbdSession, type NbdSink } from "../src/nbd/session.ts";

/** Bytes: what the disk is dirty or allocated by. */
const BLOCK = 4096;
/** Commands accepted and not yet answered, per connection: small, so that feed() is often refused. */
const DEPTH = 5;
/** Extents told in one answer: small, so that clients have to ask again. */
const EXTENTS_MAX = 16;

export interface Seen {
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
}

export class MemoryServer {
  readonly export: NbdExport;
  readonly data: Buffer;
  readonly allocated: Uint8Array; // 1 per block
  readonly dirty: Uint8Array; // 1 per block
  /** Every command that reached the disk, in order. */
  readonly seen: Seen[] = [];
  /** Why clients were sent away, other than by their own DISC or ABORT. */
  readonly broken: string[] = [];
  /** When set, every command fails with this NBD error. */
  failing = 0;
  connections = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #others: readonly NbdExport[];

  constructor(disk: NbdExport, others: readonly NbdExport[] = []) {
    this.export = disk;
    this.#others = others;
    this.data = Buffer.alloc(disk.size);
    this.allocated = new Uint8Array(Math.ceil(disk.size / BLOCK));
    this.dirty = new Uint8Array(this.allocated.length);
    this.#server = createServer((socket) => {
      this.connections += 1;
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
      new Connection(this, socket, [disk, ...this.#others]);
    });
  }

  listen(path: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(path, resolve);
    });
  }

  close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  /** What the commands of one type had for flags. */
  flagsOf(type: number): number[] {
    return this.seen.filter((command) => command.type === type).map((command) => command.flags);
  }
}

interface Pending extends Seen {
  readonly cookieHi: number;
  readonly cookieLo: number;
  /** A WRITE's bytes. */
  readonly payload: Buffer;
  /** For a command that the session refused. */
  readonly nbdErrno: number | null;
}

class Connection implements NbdSink {
  readonly #server: MemoryServer;
  readonly #socket: Socket;
  readonly #session: NbdSession;
  #chunks: Buffer[] = [];
  #arrived = 0;
  #feeding: Buffer = Buffer.alloc(0);
  #pending: Pending[] = [];
  #ending = false;

  constructor(server: MemoryServer, socket: Socket, exports: readonly NbdExport[]) {
    this.#server = server;
    this.#socket = socket;
    this.#session = new NbdSession(exports, this);
    socket.on("data", (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#arrived += chunk.length;
      this.#parse();
    });
    socket.on("error", () => socket.destroy()); // the client vanished; that is its right
    this.#session.begin();
  }

  #parse(): void {
    if (this.#ending || this.#arrived < this.#session.wanted) return;
    const bytes = Buffer.concat(this.#chunks);
    this.#feeding = bytes;
    const rest = bytes.subarray(this.#session.feed(bytes, 0, bytes.length));
    this.#chunks = [rest];
    this.#arrived = rest.length;
    if (this.#pending.length > 0) setImmediate(() => this.#execute());
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
    const bytes = type === nbd.NBD_CMD_WRITE ? length : 0;
    this.#pending.push({
      type,
      flags,
      cookieHi,
      cookieLo,
      offset,
      length,
      payload: this.#feeding.subarray(payload, payload + bytes),
      nbdErrno: null,
    });
    return true;
  }

  refuse(type: number, cookieHi: number, cookieLo: number, nbdErrno: number): boolean {
    if (this.#pending.length === DEPTH) return false;
    const nothing = { flags: 0, offset: 0, length: 0, payload: Buffer.alloc(0) };
    this.#pending.push({ type, cookieHi, cookieLo, nbdErrno, ...nothing });
    return true;
  }

  finish(reason: string | null): void {
    if (reason !== null) this.#server.broken.push(reason);
    this.#ending = true;
    if (this.#pending.length === 0) this.#socket.end();
  }

  /** Answers what was accepted, the last first: the order is the server's affair. */
  #execute(): void {
    const pending = this.#pending.reverse();
    this.#pending = [];
    for (const command of pending) this.#perform(command);
    if (this.#ending) this.#socket.end();
    else this.#parse();
  }

  #perform(command: Pending): void {
    const { type, flags, offset, length, cookieHi, cookieLo } = command;
    const session = this.#session;
    const out = Buffer.alloc(64 + session.contexts.length * (24 + 8 * EXTENTS_MAX));
    const errno = command.nbdErrno ?? this.#server.failing;
    if (command.nbdErrno === null) this.#server.seen.push({ type, flags, offset, length });
    if (command.nbdErrno !== null || errno !== 0) {
      this.#socket.write(
        out.subarray(0, session.putReply(out, 0, type, cookieHi, cookieLo, errno)),
      );
      return;
    }

    const { data, allocated, dirty } = this.#server;
    const firstBlock = Math.floor(offset / BLOCK);
    const endBlock = Math.ceil((offset + length) / BLOCK);
    let end = 0;
    switch (type) {
      case nbd.NBD_CMD_READ:
        end = session.putReadHeader(out, 0, cookieHi, cookieLo, offset, length);
        this.#socket.write(out.subarray(0, end));
        this.#socket.write(Buffer.from(data.subarray(offset, offset + length)));
        return;
      case nbd.NBD_CMD_BLOCK_STATUS:
        for (const context of session.contexts) {
          const base = context.name === "base:allocation";
          const statusOf = base
            ? (block: number) => (allocated[block] === 1 ? 0 : 3)
            : (block: number) => dirty[block]!;
          const one = (flags & nbd.NBD_CMD_FLAG_REQ_ONE) !== 0;
          const extents = extentsOf(offset, length, one ? 1 : EXTENTS_MAX, statusOf);
          const last = context === session.contexts.at(-1);
          const count = extents.length / 2;
          end = session.putBlockStatus(
            out,
            end,
            cookieHi,
            cookieLo,
            context.id,
            extents,
            count,
            last,
          );
        }
        this.#socket.write(out.subarray(0, end));
        return;
      case nbd.NBD_CMD_WRITE:
        command.payload.copy(data, offset);
        allocated.fill(1, firstBlock, endBlock);
        dirty.fill(1, firstBlock, endBlock);
        break;
      case nbd.NBD_CMD_WRITE_ZEROES:
      case nbd.NBD_CMD_TRIM: {
        data.fill(0, offset, offset + length);
        const hole = (flags & nbd.NBD_CMD_FLAG_NO_HOLE) === 0;
        if (hole)
          allocated.fill(0, Math.ceil(offset / BLOCK), Math.floor((offset + length) / BLOCK));
        else allocated.fill(1, firstBlock, endBlock);
        dirty.fill(1, firstBlock, endBlock);
        break;
      }
      case nbd.NBD_CMD_FLUSH:
      case nbd.NBD_CMD_CACHE:
        break;
      default:
        throw new Error(`command ${type} came through`);
    }
    end = session.putReply(out, 0, type, cookieHi, cookieLo, 0);
    this.#socket.write(out.subarray(0, end));
  }
}

/** (length, status) pairs for [offset, offset + length), at most `max` of them. */
function extentsOf(
  offset: number,
  length: number,
  max: number,
  statusOf: (block: number) => number,
): Uint32Array {
  const extents: number[] = [];
  let at = offset;
  while (at < offset + length) {
    const blockEnd = (Math.floor(at / BLOCK) + 1) * BLOCK;
    const size = Math.min(blockEnd, offset + length) - at;
    const status = statusOf(Math.floor(at / BLOCK));
    if (extents.at(-1) === status) extents[extents.length - 2]! += size;
    else if (extents.length === 2 * max) break;
    else extents.push(size, status);
    at += size;
  }
  return Uint32Array.from(extents);
}

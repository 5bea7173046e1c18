// SPDX-License-Identifier: BSD-2-Clause
/**
 * NBD clients of a primary: their connections, and their commands cut into requests for the core.
 *
 *   stream ─▶ inbox ─▶ session ─▶ command ─▶ pieces of ≤ IO_MAX ─▶ core
 *                                    └─▶ (FUA: a flush) ─▶ one reply
 *
 * A command is a place in tables allocated once. There is one queue of commands whose pieces are
 * not all submitted; while it is not empty nothing more is parsed, so that memory stays bounded
 * whatever clients send.
 */

import { assert } from "../base/assert.ts";
import { LineQuota } from "../base/line-quota.ts";
import type { NbdExport } from "../nbd/export.ts";
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  nbdError,
} from "../nbd/protocol.ts";
import { NbdSession, type NbdSink } from "../nbd/session.ts";
import type { Net, NetFailure, SecuredClient, Stream, StreamReader } from "../platform/net.ts";
import {
  FLUSH,
  IO_MAX,
  type Kind,
  READ,
  SLOT_COUNT,
  WRITE,
  ZERO,
} from "../replication/requests.ts";
import { Inbox, LARGE, type Memory, NOBODY, SLAB_SIZE } from "./memory.ts";
import { Outgoing } from "./outgoing.ts";

const CONNECTION_MAX = 16;
/** Commands in flight: every slot may be one, and one waits for the rest of its pieces. */
const COMMAND_COUNT: number = SLOT_COUNT + CONNECTION_MAX + 1;
/** Bytes of replies that one client may have asked for and not taken; a single longer one may be all of them. */
const REPLIES_MAX: number = 4 * 1024 * 1024;
/** A client that has not begun to use the disk by then is sent away: there is room for few. */
const NEGOTIATION_MAX_MS = 60_000;
/** How long the TLS handshake may take. */
const TLS_MAX_MS = 15_000;
/** A client that takes nothing for so long, while others wait for room, is sent away. */
const STALLED_MAX_MS = 30_000;
/** Slabs left for others before a READ is refused a new one. */
const SLAB_RESERVE = 8;
const STATUS_EXTENTS_MAX = 1024;
/** BLOCK_STATUS is answered by walking maps, a millisecond or so: this many, then others have their turn. */
const STATUS_BURST = 8;
/** No reply header is longer, bytes; block status comes on top. */
const REPLY_SIZE_MAX = 64;
const ERR_IO = 5;
/** A piece of a TRIM or WRITE_ZEROES where the peer takes ranges of any length. */
const ZERO_MAX: number = 32 * 1024 * 1024;

/** What the server asks of the resource. */
export interface NbdBackend {
  /** How many pieces submit() will take now. */
  readonly room: number;
  /** Longest ZERO piece, bytes. */
  readonly zeroMax: number;
  /** Hands a piece to the core; `holder` holds its memory until the slot is released. @returns its slot */
  submit(
    kind: Kind,
    offset: number,
    length: number,
    memory: number,
    holder: number,
    punch: boolean,
  ): number;
  /** Allocation of the range, as Disk.allocation(). */
  allocation(
    offset: number,
    length: number,
    maxRanges: number,
    each: (length: number, hole: boolean) => void,
  ): number;
  /** A range no longer than this, in bytes, is quickly asked about with dirtyRun(). */
  readonly dirtySpan: number;
  /** How many bytes from `offset` share one answer to "out of sync?", and that answer. */
  dirtyRun(offset: number, length: number): number;
  isDirty(offset: number): boolean;
  /** Events have been handed over: do what follows from them. */
  turn(): void;
  /** Call breathed() after the event loop has been round once. */
  breathe(): void;
  /** See Net.startTls(); null where clients do without. */
  readonly startTls: NonNullable<Net["startTls"]> | null;
  notice(text: string): void;
  debug(level: number, text: string): void;
}

export class NbdServer {
  readonly #backend: NbdBackend;
  readonly #memory: Memory;
  readonly #exports: readonly NbdExport[];
  readonly #connections: Connection[] = [];
  /** Whose turn it is to be unblocked: round and round, so that none starves. */
  #nextTurn = 0;
  /** As of the last onTick(). */
  #nowMs = 0;
  readonly #noticeQuota = new LineQuota();
  #accepting = true;
  /** Replies stay here until it is false again, and flush() is called. */
  holding = false;

  // Commands.
  readonly #connection: (Connection | null)[] = new Array(COMMAND_COUNT).fill(null);
  readonly #type: Uint8Array = new Uint8Array(COMMAND_COUNT);
  readonly #flags: Uint16Array = new Uint16Array(COMMAND_COUNT);
  readonly #cookieHi: Uint32Array = new Uint32Array(COMMAND_COUNT);
  readonly #cookieLo: Uint32Array = new Uint32Array(COMMAND_COUNT);
  readonly #offset: Float64Array = new Float64Array(COMMAND_COUNT);
  readonly #length: Float64Array = new Float64Array(COMMAND_COUNT);
  readonly #memoryAt: Float64Array = new Float64Array(COMMAND_COUNT);
  readonly #holder: Int16Array = new Int16Array(COMMAND_COUNT);
  /** Bytes handed to the core so far, and pieces it has not answered. */
  readonly #submitted: Float64Array = new Float64Array(COMMAND_COUNT);
  readonly #pieces: Int32Array = new Int32Array(COMMAND_COUNT);
  /** Has any piece been answered? */
  readonly #begun: Uint8Array = new Uint8Array(COMMAND_COUNT);
  readonly #errno: Int32Array = new Int32Array(COMMAND_COUNT);
  readonly #flushed: Uint8Array = new Uint8Array(COMMAND_COUNT);
  readonly #free: Int32Array = new Int32Array(COMMAND_COUNT);
  #freeCount = COMMAND_COUNT;
  readonly #slotCommand: Int32Array = new Int32Array(SLOT_COUNT).fill(-1);
  /** Commands with pieces to submit, in order of arrival. */
  readonly #queue: number[] = [];

  readonly #statusExtents: Uint32Array = new Uint32Array(STATUS_EXTENTS_MAX * 2);
  /** How many more BLOCK_STATUS may be answered before others have had their turn. */
  #statusLeft = STATUS_BURST;

  constructor(backend: NbdBackend, memory: Memory, exports: readonly NbdExport[]) {
    this.#backend = backend;
    this.#memory = memory;
    this.#exports = exports;
    for (let index = 0; index < COMMAND_COUNT; index++) {
      this.#free[index] = COMMAND_COUNT - 1 - index;
    }
  }

  /** A client has connected. @param whose "device": through a socket that nobody but this machine's root can reach */
  accept(stream: Stream, whose: "client" | "device" = "client"): void {
    if (!this.#accepting || !this.#makePlace()) {
      this.notice(
        `refused NBD client ${stream.peer}: ${this.#accepting ? `${CONNECTION_MAX} are connected already` : "shutting down"}`,
      );
      stream.start(new Deaf());
      stream.destroy();
      return;
    }
    const isDevice = whose === "device";
    const needsTls = !isDevice && this.startTls !== null;
    const connection = new Connection(
      this,
      stream,
      this.#memory,
      this.#exports,
      this.#nowMs,
      needsTls,
    );
    connection.isDevice = isDevice;
    // The same nbdkit: the next one comes when this one's other connections have gone with it.
    connection.mute = isDevice && this.#connections.some(({ mute }) => mute);
    this.#connections.push(connection);
  }

  /** The device's connections, and those that come while one of them is there, hear nothing any more. */
  muteDevice(): void {
    for (const connection of this.#connections) {
      if (connection.isDevice) connection.mute = true;
    }
  }

  /** Whoever has not even proved to be a client gives way to the next one. @returns is there a place? */
  #makePlace(): boolean {
    const staying = this.#connections.filter(({ leaving }) => !leaving);
    if (staying.length < CONNECTION_MAX) return true;
    const stranger = staying.find(({ negotiating }) => negotiating);
    stranger?.sendAway("it has not chosen an export yet, and others come");
    return stranger !== undefined;
  }

  get clientCount(): number {
    return this.#connections.length;
  }

  /** No new clients and no new commands; what was accepted is answered, from the next turn on. */
  stop(): void {
    this.#accepting = false;
    for (const connection of [...this.#connections]) connection.finish(null);
  }

  /** Closes every connection at once. */
  destroy(): void {
    this.#accepting = false;
    for (const connection of [...this.#connections]) connection.destroy();
  }

  // ---- called by connections ------------------------------------------------------------------

  /** A parsed command; see NbdSink.command(). */
  command(
    connection: Connection,
    type: number,
    flags: number,
    cookieHi: number,
    cookieLo: number,
    offset: number,
    length: number,
    payload: number,
  ): boolean {
    if (this.#queue.length > 0 || this.#freeCount === 0) return false;
    if (!connection.hasRoom(type === NBD_CMD_READ ? length : 0)) return false;
    if (type === NBD_CMD_CACHE) {
      connection.reply(type, cookieHi, cookieLo, 0);
      return true;
    }
    if (type === NBD_CMD_BLOCK_STATUS) {
      if (this.#statusLeft === 0) return false;
      if (this.#statusLeft-- === STATUS_BURST) this.#backend.breathe();
      this.#blockStatus(connection, flags, cookieHi, cookieLo, offset, length);
      return true;
    }
    let holder = NOBODY;
    let memory = -1;
    if (type === NBD_CMD_WRITE) {
      holder = connection.inbox.holder;
      this.#memory.hold(holder);
      memory = payload;
    } else if (type === NBD_CMD_READ) {
      memory = connection.readMemory(length);
      if (memory < 0) return false;
      holder = connection.readHolder;
    }
    const command = this.#free[--this.#freeCount]!;
    this.#connection[command] = connection;
    this.#type[command] = type;
    this.#flags[command] = flags;
    this.#cookieHi[command] = cookieHi;
    this.#cookieLo[command] = cookieLo;
    this.#offset[command] = offset;
    this.#length[command] = length;
    this.#memoryAt[command] = memory;
    this.#holder[command] = holder;
    this.#submitted[command] = 0;
    this.#pieces[command] = 0;
    this.#begun[command] = 0;
    this.#errno[command] = 0;
    this.#flushed[command] = 0;
    connection.inFlight++;
    if (type === NBD_CMD_READ) connection.reading += length;
    if (!this.#submitPieces(command)) this.#queue.push(command);
    return true;
  }

  /** @returns false if some pieces are left for want of room */
  #submitPieces(command: number): boolean {
    const backend = this.#backend;
    const type = this.#type[command]!;
    if (type === NBD_CMD_FLUSH) {
      if (backend.room === 0) return false;
      this.#submit(command, FLUSH, 0, 0, -1, NOBODY, false);
      return true;
    }
    const kind = type === NBD_CMD_READ ? READ : type === NBD_CMD_WRITE ? WRITE : ZERO;
    const punch = type === NBD_CMD_TRIM || (this.#flags[command]! & NBD_CMD_FLAG_NO_HOLE) === 0;
    const offset = this.#offset[command]!;
    const length = this.#length[command]!;
    for (;;) {
      const done = this.#submitted[command]!;
      if (done === length) return true;
      if (backend.room === 0) return false;
      const most = kind === ZERO ? Math.min(ZERO_MAX, backend.zeroMax) : IO_MAX;
      // Pieces end where the next begins on a multiple of their size: whole extents, whole pages.
      const part = Math.min(length - done, most - ((offset + done) % most));
      this.#submitted[command] = done + part;
      const memory = kind === ZERO ? -1 : this.#memoryAt[command]! + done;
      this.#submit(command, kind, offset + done, part, memory, this.#holder[command]!, punch);
    }
  }

  #submit(
    command: number,
    kind: Kind,
    offset: number,
    length: number,
    memory: number,
    holder: number,
    punch: boolean,
  ): void {
    this.#pieces[command]! += 1;
    const slot = this.#backend.submit(kind, offset, length, memory, holder, punch);
    assert(slot >= 0 && this.#slotCommand[slot] === -1);
    this.#slotCommand[slot] = command;
  }

  // ---- called by the engine -------------------------------------------------------------------

  /** Is the client of this piece still there to be answered? */
  hears(slot: number): boolean {
    return !this.#connection[this.#slotCommand[slot]!]!.gone;
  }

  /**
   * Something that the core has answered is lost: perhaps pieces of commands that have not ended, which then
   * are not done. Nobody could tell later.
   */
  failBegun(): void {
    for (let command = 0; command < COMMAND_COUNT; command++) {
      const pending = this.#connection[command] !== null && this.#type[command] !== NBD_CMD_READ;
      if (pending && this.#begun[command] === 1) this.#errno[command] ||= ERR_IO;
    }
  }

  /** The core has answered a piece. */
  answered(slot: number, errno: number): void {
    const command = this.#slotCommand[slot]!;
    assert(command >= 0);
    this.#slotCommand[slot] = -1;
    this.#pieces[command]! -= 1;
    this.#begun[command] = 1;
    if (errno !== 0 && this.#errno[command] === 0) this.#errno[command] = errno;
    this.#maybeFinish(command);
  }

  #maybeFinish(command: number): void {
    if (this.#pieces[command] !== 0) return;
    const type = this.#type[command]!;
    if (type !== NBD_CMD_FLUSH && this.#submitted[command]! < this.#length[command]!) return;
    const fua = (this.#flags[command]! & NBD_CMD_FLAG_FUA) !== 0 && type !== NBD_CMD_READ;
    if (fua && this.#flushed[command] === 0 && this.#errno[command] === 0) {
      // HAST has no FUA: write, then flush (style: "Names").
      this.#flushed[command] = 1;
      this.#type[command] = NBD_CMD_FLUSH;
      if (this.#holder[command] !== NOBODY) this.#memory.letGo(this.#holder[command]!);
      this.#holder[command] = NOBODY;
      this.#queue.push(command);
      return;
    }
    const connection = this.#connection[command]!;
    connection.inFlight--;
    if (type === NBD_CMD_READ) connection.reading -= this.#length[command]!;
    if (!connection.gone) {
      const errno = nbdError(this.#errno[command]!);
      if (type === NBD_CMD_READ && errno === 0) {
        connection.replyData(
          this.#cookieHi[command]!,
          this.#cookieLo[command]!,
          this.#offset[command]!,
          this.#length[command]!,
          this.#memoryAt[command]!,
          this.#holder[command]!,
        );
      } else {
        connection.reply(type, this.#cookieHi[command]!, this.#cookieLo[command]!, errno);
      }
    }
    if (this.#holder[command] !== NOBODY) this.#memory.letGo(this.#holder[command]!);
    this.#connection[command] = null;
    this.#free[this.#freeCount++] = command;
  }

  /** Submits what has been waiting for room, then listens again to clients that had to wait. */
  pump(): void {
    while (this.#queue.length > 0) {
      if (!this.#submitPieces(this.#queue[0]!)) return;
      this.#queue.shift();
    }
    for (let count = this.#connections.length; count > 0 && this.#queue.length === 0; count--) {
      this.#nextTurn = (this.#nextTurn + 1) % this.#connections.length;
      const connection = this.#connections[this.#nextTurn]!;
      if (connection.blocked) connection.unblock();
    }
  }

  /** Call about once a second with the monotonic clock, and once before anything else. */
  onTick(nowMs: number): void {
    this.#nowMs = nowMs;
    for (const connection of [...this.#connections]) {
      if (connection.negotiating && nowMs - connection.since >= NEGOTIATION_MAX_MS) {
        connection.sendAway(`it has not chosen an export within ${NEGOTIATION_MAX_MS / 1000} s`);
        continue;
      }
      if (connection.stalledMs(nowMs) < STALLED_MAX_MS) continue;
      if (connection.finishing || this.#othersWait(nowMs)) {
        connection.sendAway(
          `it has moved nothing for ${STALLED_MAX_MS / 1000} s, and others may need the memory it holds`,
        );
      }
    }
  }

  /** Does a client that is not at fault wait for room? */
  #othersWait(nowMs: number): boolean {
    return this.#connections.some((each) => each.blocked && each.stalledMs(nowMs) < 2_000);
  }

  /** Sends the replies of this batch. */
  flush(): void {
    for (const connection of this.#connections) connection.flush();
  }

  turn(): void {
    this.#backend.turn();
  }

  /** Memory has been let go outside a batch: somebody may have waited for it. */
  roomFreed(): void {
    for (const connection of this.#connections) {
      if (!connection.blocked) continue;
      this.#backend.turn();
      return;
    }
  }

  /** About a client: they may come and misbehave as often as they like. */
  notice(text: string): void {
    const line = this.#noticeQuota.take(this.#nowMs, text);
    if (line !== null) this.#backend.notice(line);
    else this.debug(text);
  }

  debug(text: string): void {
    this.#backend.debug(1, text);
  }

  get startTls(): NbdBackend["startTls"] {
    return this.#backend.startTls;
  }

  forget(connection: Connection): void {
    const index = this.#connections.indexOf(connection);
    assert(index >= 0);
    this.#connections.splice(index, 1);
  }

  #blockStatus(
    connection: Connection,
    flags: number,
    cookieHi: number,
    cookieLo: number,
    offset: number,
    length: number,
  ): void {
    const most = (flags & NBD_CMD_FLAG_REQ_ONE) !== 0 ? 1 : STATUS_EXTENTS_MAX;
    const contexts = connection.session.contexts;
    for (let index = 0; index < contexts.length; index++) {
      const context = contexts[index]!;
      const count =
        context.name === "hast:dirty"
          ? this.#dirtyExtents(offset, length, most)
          : this.#allocationExtents(offset, length, most);
      connection.replyStatus(
        cookieHi,
        cookieLo,
        context.id,
        this.#statusExtents,
        count,
        index === contexts.length - 1,
      );
    }
  }

  /** See NbdBackend.breathe(). */
  breathed(): void {
    this.#statusLeft = STATUS_BURST;
    // Another one is the first to be unblocked.
    if (this.#connections.length > 0)
      this.#nextTurn = (this.#nextTurn + 1) % this.#connections.length;
    this.#backend.turn();
  }

  #dirtyExtents(offset: number, length: number, most: number): number {
    const end = offset + Math.min(length, this.#backend.dirtySpan);
    let count = 0;
    for (let at = offset; at < end && count < most; count++) {
      const run = this.#backend.dirtyRun(at, end - at);
      this.#statusExtents[count * 2] = run;
      this.#statusExtents[count * 2 + 1] = this.#backend.isDirty(at) ? 1 : 0;
      at += run;
    }
    return count;
  }

  #allocationExtents(offset: number, length: number, most: number): number {
    let count = 0;
    this.#backend.allocation(offset, length, most, (run, hole) => {
      this.#statusExtents[count * 2] = run;
      this.#statusExtents[count * 2 + 1] = hole ? 3 : 0; // HOLE and ZERO
      count++;
    });
    return count;
  }
}

/** For a stream that is closed before anybody listens. */
class Deaf implements StreamReader {
  space(): Uint8Array {
    return new Uint8Array(1);
  }
  received(): void {}
  sent(): void {}
  closed(): void {}
}

class Connection implements StreamReader, NbdSink {
  stream: Stream;
  readonly session: NbdSession;
  readonly inbox: Inbox;
  outgoing: Outgoing;
  readonly #server: NbdServer;
  readonly #memory: Memory;
  inFlight = 0;
  /** Bytes of READs in flight. */
  reading = 0;
  /** When it connected, and when it last kept no memory, or moved something in or out of it. */
  readonly since: number;
  #movedAt: number;
  #moved = false;
  /** Paused for want of room: for a command, or for bytes. */
  blocked = false;
  gone = false;
  /** destroy() was called: its place is free. */
  leaving = false;
  /** It belongs to a device of this machine. */
  isDevice = false;
  /** Whatever is in line for it stays there. */
  mute = false;
  #finishing = false;
  #ended = false;
  /** STARTTLS has been agreed upon: "soon" until our word of it has left. */
  #tls: "no" | "soon" | "handshake" = "no";
  #abandonTls: (() => void) | null = null;

  /** READ data goes to a slab of this connection's own, from its beginning to its end. */
  #readSlab: number = NOBODY;
  #readAt = 0;
  /** What holds the memory that readMemory() last returned. */
  readHolder: number = NOBODY;

  constructor(
    server: NbdServer,
    stream: Stream,
    memory: Memory,
    exports: readonly NbdExport[],
    nowMs: number,
    needsTls: boolean,
  ) {
    this.since = this.#movedAt = nowMs;
    this.#server = server;
    this.#memory = memory;
    this.stream = stream;
    this.inbox = new Inbox(memory);
    this.outgoing = new Outgoing(stream, memory);
    this.session = new NbdSession(
      exports,
      this,
      needsTls ? (clear) => this.#startTls(clear) : null,
    );
    this.session.begin();
    this.outgoing.flush();
    this.blocked = !this.inbox.makeRoom(1);
    stream.start(this);
    if (this.blocked) stream.pause();
  }

  // ---- StreamReader ---------------------------------------------------------------------------

  space(): Uint8Array {
    return this.inbox.space();
  }

  received(length: number): void {
    this.inbox.end += length;
    if (this.inbox.large) this.#moved = true;
    this.#parse();
    this.#server.turn();
  }

  sent(count: number): void {
    this.outgoing.sent(count);
    this.#moved = true;
    this.#server.roomFreed();
    if (this.#ended && this.outgoing.unsent === 0) this.destroy();
    else if (this.#tls === "soon") this.#maybeTls();
  }

  // ---- TLS ------------------------------------------------------------------------------------

  /** In the middle of feed(). */
  #startTls(clear: number): void {
    if (clear > 0) {
      this.sendAway("it sent more before TLS than STARTTLS");
      return;
    }
    this.#tls = "soon";
    this.stream.pause();
    this.#maybeTls();
  }

  #maybeTls(): void {
    if (this.outgoing.unsent > 0 || this.#ended) return;
    this.#tls = "handshake";
    this.#abandonTls = this.#server.startTls!(this.stream, TLS_MAX_MS, (result) =>
      this.#tlsEnded(result),
    );
  }

  #tlsEnded(result: SecuredClient | NetFailure): void {
    this.#abandonTls = null;
    this.#tls = "no";
    if ("failure" in result) {
      this.#server.notice(`NBD client ${this.stream.peer}: no TLS: ${result.failure}`);
      this.closed(result.failure);
      return;
    }
    const { stream, refusal } = result;
    if (refusal !== null) {
      this.#server.notice(
        `NBD client ${stream.peer} is refused: ${refusal}. To make it a certificate: hastctl tls client`,
      );
    }
    this.stream = stream;
    this.outgoing = new Outgoing(stream, this.#memory);
    this.session.secured(refusal);
    this.blocked = !this.inbox.makeRoom(1);
    stream.start(this);
    if (this.blocked) stream.pause();
    if (this.#finishing) this.#server.turn();
  }

  /** Closes at once; closed() follows, later. */
  destroy(): void {
    this.leaving = true;
    if (this.#abandonTls !== null) this.#abandonTls();
    else this.stream.destroy();
  }

  /** The stream is gone, whoever closed it: nothing is answered any more. */
  closed(reason: string | null): void {
    // Clients come and go as they please; what they break is told by finish().
    this.#server.debug(`NBD client ${this.stream.peer} has gone: ${reason ?? "closed"}`);
    this.gone = true;
    this.inbox.close();
    this.outgoing.close();
    if (this.#readSlab !== NOBODY) this.#memory.letGo(this.#readSlab);
    this.#readSlab = NOBODY;
    this.#server.forget(this);
    this.#server.turn();
  }

  #parse(): void {
    if (this.#tls !== "no") return; // until the stream is another one
    if (this.#finishing) {
      this.inbox.start = this.inbox.end;
    } else {
      this.inbox.start = this.session.feed(this.#memory.bytes, this.inbox.start, this.inbox.end);
    }
    const wanted = this.#finishing ? 1 : this.session.wanted;
    const stuck = wanted <= this.inbox.end - this.inbox.start || !this.inbox.makeRoom(wanted);
    if (stuck && !this.blocked) this.stream.pause();
    if (!stuck && this.blocked) this.stream.resume();
    this.blocked = stuck;
  }

  get negotiating(): boolean {
    return this.session.state === "negotiating";
  }

  /**
   * Call every second or so.
   * @returns for how long replies have waited for the client to take one, or the large buffer for
   *   another byte of the WRITE it was taken for
   */
  stalledMs(nowMs: number): number {
    const keepsNothing = this.outgoing.unsent === 0 && (!this.inbox.large || this.blocked);
    if (this.#moved || keepsNothing || this.mute) this.#movedAt = nowMs;
    this.#moved = false;
    return nowMs - this.#movedAt;
  }

  get finishing(): boolean {
    return this.#finishing;
  }

  sendAway(why: string): void {
    this.#server.notice(`NBD client ${this.stream.peer} is disconnected: ${why}`);
    this.destroy();
  }

  /** May it ask for `length` more bytes of replies? */
  hasRoom(length: number): boolean {
    const due = this.reading + this.outgoing.unsent;
    return due === 0 || due + length <= REPLIES_MAX;
  }

  /** There may be room again. */
  unblock(): void {
    if (!this.gone) this.#parse();
  }

  // ---- NbdSink --------------------------------------------------------------------------------

  send(bytes: Uint8Array): void {
    this.outgoing.payload(bytes, 0, bytes.length, NOBODY);
    // Negotiation is a dialogue: nobody else will flush.
    this.outgoing.flush();
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
    return this.#server.command(this, type, flags, cookieHi, cookieLo, offset, length, payload);
  }

  refuse(type: number, cookieHi: number, cookieLo: number, nbdErrno: number): boolean {
    if (!this.hasRoom(0)) return false;
    this.reply(type, cookieHi, cookieLo, nbdErrno);
    return true;
  }

  /** Answers what is in flight, then closes: with the turn that follows, which knows what may be answered. */
  finish(reason: string | null): void {
    if (reason !== null) this.#server.notice(`NBD client ${this.stream.peer}: ${reason}`);
    this.#finishing = true;
  }

  #maybeEnd(): void {
    if (this.inFlight > 0 || this.gone || this.#ended || this.#server.holding || this.mute) return;
    this.#ended = true;
    this.outgoing.flush();
    // A client need not hang up by itself.
    if (this.outgoing.unsent === 0) this.destroy();
    else this.stream.end();
  }

  // ---- memory and replies ---------------------------------------------------------------------

  /** Memory for a READ, held by {@link readHolder} on behalf of the caller; or -1 if none is free. */
  readMemory(length: number): number {
    const memory = this.#memory;
    if (length > SLAB_SIZE) {
      if (memory.takeLarge() === NOBODY) return -1;
      this.readHolder = LARGE;
      return memory.start(LARGE);
    }
    if (this.#readSlab !== NOBODY && memory.holders(this.#readSlab) === 1) {
      this.#readAt = memory.start(this.#readSlab);
    }
    if (
      this.#readSlab === NOBODY ||
      this.#readAt + length > memory.start(this.#readSlab) + SLAB_SIZE
    ) {
      if (memory.freeSlabs <= SLAB_RESERVE) return -1;
      if (this.#readSlab !== NOBODY) memory.letGo(this.#readSlab);
      this.#readSlab = memory.takeSlab();
      this.#readAt = memory.start(this.#readSlab);
    }
    const at = this.#readAt;
    this.#readAt += length;
    memory.hold(this.#readSlab);
    this.readHolder = this.#readSlab;
    return at;
  }

  reply(type: number, cookieHi: number, cookieLo: number, nbdErrno: number): void {
    const out = this.outgoing.reserve(REPLY_SIZE_MAX);
    this.outgoing.advance(
      this.session.putReply(out, this.outgoing.at, type, cookieHi, cookieLo, nbdErrno),
    );
  }

  replyData(
    cookieHi: number,
    cookieLo: number,
    offset: number,
    length: number,
    memory: number,
    holder: number,
  ): void {
    const out = this.outgoing.reserve(REPLY_SIZE_MAX);
    this.outgoing.advance(
      this.session.putReadHeader(out, this.outgoing.at, cookieHi, cookieLo, offset, length),
    );
    this.outgoing.payload(this.#memory.bytes, memory, length, holder);
  }

  replyStatus(
    cookieHi: number,
    cookieLo: number,
    contextId: number,
    extents: Uint32Array,
    count: number,
    last: boolean,
  ): void {
    const out = this.outgoing.reserve(REPLY_SIZE_MAX + count * 8);
    this.outgoing.advance(
      this.session.putBlockStatus(
        out,
        this.outgoing.at,
        cookieHi,
        cookieLo,
        contextId,
        extents,
        count,
        last,
      ),
    );
  }

  flush(): void {
    if (this.#server.holding || this.mute) return;
    this.outgoing.flush();
    if (this.#finishing) this.#maybeEnd();
  }
}

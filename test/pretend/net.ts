// SPDX-License-Identifier: BSD-2-Clause
/**
 * Connections in memory, each a pair of streams that keep the contract of platform/net.ts to the letter:
 *
 *   write() ─► pending ─► in flight (at most `capacity` bytes) ─► reader.space(), received()
 *                 └─ sent(): only now are the writer's bytes copied
 *
 * so whoever changes bytes before sent(), or space() before received(), is found out. Bytes arrive in
 * pieces of the test's choosing.
 */

import { assert } from "../../src/base/assert.ts";
import type { Clock } from "../../src/platform/clock.ts";
import type {
  ConnectOptions,
  Listener,
  Net,
  NetFailure,
  Stream,
  StreamReader,
} from "../../src/platform/net.ts";
import type { Poster } from "./events.ts";

const CAPACITY = 256 * 1024;
/** Bytes behind a delivery that get overwritten: they were not the reader's to keep. */
const SCRIBBLE = 256;

function everything(available: number): number {
  return available;
}

/** One direction of a connection. */
export class Pipe {
  readonly #events: Poster;
  readonly #pending: { readonly bytes: Uint8Array; readonly copy: Uint8Array; moved: number }[] =
    [];
  #inFlight: Uint8Array[] = [];
  #inFlightSize = 0;
  #scheduled = false;
  /** No more writes will come: the reader learns after the last byte. */
  ended = false;
  /** Nothing arrives any more. */
  broken = false;
  /** What is under way stays there, as if the network dropped every packet. */
  stalled = false;
  capacity: number = CAPACITY;
  /** Sees what is written when it is written. */
  tap: (bytes: Uint8Array) => void = () => {};
  /** How many of the `available` bytes arrive at once. */
  chunk: (available: number) => number = everything;
  from!: End;
  to!: End;

  constructor(events: Poster) {
    this.#events = events;
  }

  get pendingSize(): number {
    return this.#pending.reduce((sum, { bytes, moved }) => sum + bytes.length - moved, 0);
  }

  get unreadSize(): number {
    return this.pendingSize + this.#inFlightSize;
  }

  push(bytes: Uint8Array): void {
    this.#pending.push({ bytes, copy: bytes.slice(), moved: 0 });
    this.kick();
    this.tap(bytes);
  }

  /** What the kernel has no room for is lost; the rest it took when it was written. */
  dropPending(): void {
    if (!this.broken) this.#depart();
    this.#pending.length = 0;
  }

  breakOff(): void {
    if (this.broken) return;
    this.broken = true;
    this.#events.post(() => this.from.nobodyReads());
    this.#pending.length = 0;
    this.#inFlight = [];
    this.#inFlightSize = 0;
  }

  kick(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#events.post(() => {
      this.#scheduled = false;
      this.#step();
    });
  }

  #step(): void {
    if (this.broken) {
      this.from.nobodyReads();
      return;
    }
    const sent = this.#depart();
    if (sent > 0) this.from.reportSent(sent);
    if (this.#pending.length === 0) this.from.allSent();
    if (this.broken || this.stalled || !this.to.listening) return;
    if (this.#inFlightSize > 0) {
      this.#deliver();
      this.kick();
    } else if (this.ended && this.#pending.length === 0) {
      this.to.reportEnd(null);
    }
  }

  #depart(): number {
    let sent = 0;
    while (this.#pending.length > 0 && this.#inFlightSize < this.capacity) {
      const first = this.#pending[0]!;
      const part = Math.min(first.bytes.length - first.moved, this.capacity - this.#inFlightSize);
      const piece = first.bytes.slice(first.moved, first.moved + part);
      const asWritten = first.copy.subarray(first.moved, first.moved + part);
      assert(Buffer.compare(piece, asWritten) === 0, "bytes changed before they were sent");
      if (part > 0) this.#inFlight.push(piece);
      this.#inFlightSize += part;
      first.moved += part;
      if (first.moved < first.bytes.length) break;
      this.#pending.shift();
      sent++;
    }
    return sent;
  }

  #deliver(): void {
    const space = this.to.takeSpace();
    const wanted = Math.max(1, Math.floor(this.chunk(this.#inFlightSize)));
    const length = Math.min(space.length, this.#inFlightSize, wanted);
    for (let at = 0; at < length; ) {
      const piece = this.#inFlight[0]!;
      const part = Math.min(piece.length, length - at);
      space.set(piece.subarray(0, part), at);
      at += part;
      if (part === piece.length) this.#inFlight.shift();
      else this.#inFlight[0] = piece.subarray(part);
    }
    this.#inFlightSize -= length;
    space.fill(0xee, length, length + SCRIBBLE);
    this.to.deliver(length);
  }
}

/** One side of a connection. */
export class End implements Stream {
  readonly peer: string;
  readonly #events: Poster;
  readonly #out: Pipe;
  readonly #in: Pipe;
  #reader: StreamReader | null = null;
  /** Why it closed. */
  #reason: string | null = null;
  #paused = false;
  #ending = false;
  #closed = false;
  #space: Uint8Array | null = null;
  /** What its process would have been told, while that is stopped. */
  #untold: (() => void)[] | null = null;

  constructor(events: Poster, peer: string, pipes: { readonly out: Pipe; readonly in: Pipe }) {
    this.#events = events;
    this.peer = peer;
    this.#out = pipes.out;
    this.#in = pipes.in;
    pipes.out.from = this;
    pipes.in.to = this;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Sees what the other side writes when it writes it. */
  set tap(tap: (bytes: Uint8Array) => void) {
    this.#in.tap = tap;
  }

  get listening(): boolean {
    if (this.#untold !== null) return false;
    return this.#reader !== null && !this.#paused && !this.#ending && !this.#closed;
  }

  /** Its process is stopped; bytes wait in the kernel. */
  stop(): void {
    this.#untold ??= [];
  }

  goOn(): void {
    const untold = this.#untold ?? [];
    this.#untold = null;
    for (const tell of untold) this.#events.post(() => this.#tell(tell));
    this.#in.kick();
  }

  #tell(tell: () => void): void {
    if (this.#untold === null) tell();
    else this.#untold.push(tell);
  }

  takeSpace(): Uint8Array {
    const space = this.#space ?? this.#reader!.space();
    this.#space = null;
    assert(space.length > 0, "a reader that is not paused has no space");
    return space;
  }

  deliver(length: number): void {
    this.#reader!.received(length);
    if (this.listening) this.#space = this.#reader!.space();
  }

  reportSent(count: number): void {
    this.#tell(() => {
      if (!this.#closed && this.#reader !== null) this.#reader.sent(count);
    });
  }

  /** Nothing waits to be sent any more. */
  allSent(): void {
    if (this.#ending) this.reportEnd(null);
  }

  /** What it still wanted to send goes nowhere. */
  nobodyReads(): void {
    if (this.#ending) this.reportEnd("connection reset by peer");
  }

  reportEnd(reason: string | null): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reason = reason;
    this.#out.ended = true;
    this.#out.kick();
    this.#in.breakOff();
    this.#tell(() => this.#reader?.closed(reason));
  }

  start(reader: StreamReader): void {
    assert(this.#reader === null);
    this.#reader = reader;
    if (this.#closed) {
      this.#events.post(() => reader.closed(this.#reason));
      return;
    }
    if (this.listening) this.#space = reader.space();
    this.#in.kick();
  }

  write(bytes: Uint8Array): void {
    if (this.#ending || this.#closed || this.#out.ended) return;
    this.#out.push(bytes);
  }

  writeAll(pieces: readonly Uint8Array[]): void {
    for (const piece of pieces) this.write(piece);
  }

  pause(): void {
    this.#paused = true;
    this.#space = null;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (this.listening) this.#space = this.#reader!.space();
    this.#in.kick();
  }

  end(): void {
    if (this.#ending || this.#closed) return;
    this.#ending = true;
    this.#out.kick();
  }

  destroy(): void {
    this.#destroy("closed by this side");
  }

  #destroy(reason: string | null): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reason = reason;
    this.#out.dropPending();
    this.#out.ended = true;
    this.#out.kick();
    this.#in.breakOff();
    // It may go to another process meanwhile, and has no reader then.
    const reader = this.#reader;
    this.#events.post(() => {
      this.#tell(() => {
        if (reader !== null && reader === this.#reader) reader.closed(reason);
      });
    });
  }

  /** Its reader hears no more of it, and another one may start: it goes to another process. */
  detach(): void {
    this.#reader = null;
    this.#space = null;
    this.#paused = false;
  }

  /** The process that had it is gone: the kernel sends what it took, then the end. */
  abandon(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.detach();
    this.#out.dropPending();
    this.#out.ended = true;
    this.#out.kick();
    this.#in.breakOff();
  }

  /** The machine is gone: nothing leaves it any more. */
  vanish(): void {
    this.#closed = true;
    this.detach();
    this.#out.breakOff();
    this.#in.stalled = true;
  }

  /** As if the other machine had forgotten the connection: what is under way is lost. */
  reset(): void {
    if (this.#closed) return;
    this.#out.breakOff();
    this.#in.breakOff();
    this.#destroy("connection reset by peer");
  }
}

/** The end of a connection that is in a test's hands. */
export class FarEnd implements StreamReader {
  readonly #near: End;
  readonly #own: End;
  readonly #toNear: Pipe;
  readonly #fromNear: Pipe;
  readonly #space: Uint8Array = new Uint8Array(65536);
  #heard: Uint8Array[] = [];
  /** The other side has closed. */
  closedByPeer = false;
  /** Called when bytes have arrived; takeHeard() has them. */
  onHeard: () => void = () => {};
  onClosed: () => void = () => {};

  constructor(near: End, own: End, toNear: Pipe, fromNear: Pipe) {
    this.#near = near;
    this.#own = own;
    this.#toNear = toNear;
    this.#fromNear = fromNear;
    own.start(this);
  }

  /** The stream that the subject of the test is given. */
  get near(): Stream {
    return this.#near;
  }

  /** How many of the bytes under way to the subject arrive at once. */
  set chunk(chunk: (available: number) => number) {
    this.#toNear.chunk = chunk;
  }

  /** Bytes that the subject has written and that have not left it. */
  get stuck(): number {
    return this.#fromNear.pendingSize;
  }

  /** Bytes sent to the subject that it has not read. */
  get unread(): number {
    return this.#toNear.unreadSize;
  }

  send(...pieces: readonly Uint8Array[]): void {
    for (const piece of pieces) this.#own.write(piece.slice());
  }

  /** What has arrived since the last time. */
  takeHeard(): Uint8Array {
    const heard = Buffer.concat(this.#heard);
    this.#heard = [];
    return new Uint8Array(heard);
  }

  /** Does not read from now on. */
  stopListening(): void {
    this.#own.pause();
  }

  listenAgain(): void {
    this.#own.resume();
  }

  /** An orderly end: everything sent arrives before it. */
  end(): void {
    this.#own.end();
  }

  /** What is under way is lost on both sides, and the subject is told. */
  reset(): void {
    this.#near.reset();
    this.#own.destroy();
  }

  space(): Uint8Array {
    return this.#space;
  }

  received(length: number): void {
    this.#heard.push(this.#space.slice(0, length));
    this.onHeard();
  }

  sent(): void {}

  closed(): void {
    this.closedByPeer = true;
    this.onClosed();
  }
}

/** A connection between the subject of a test and the test itself. */
export function pretendConnection(events: Poster, peer: string): FarEnd {
  const toNear = new Pipe(events);
  const fromNear = new Pipe(events);
  const near = new End(events, peer, { out: fromNear, in: toNear });
  const own = new End(events, "the subject", { out: toNear, in: fromNear });
  return new FarEnd(near, own, toNear, fromNear);
}

/** What becomes of a connection attempt: a peer, a refusal in words, or no answer at all. */
export type Answer = FarEnd | string | "silence";

export class PretendNet implements Net {
  readonly #events: Poster;
  readonly #clock: Clock;
  readonly #accepted: Map<string, (stream: Stream, user: number | null) => void> = new Map();
  /** Decides about connection attempts of the subject; `count` begins at 1. */
  onConnect: (address: string, count: number) => Answer = () => "connection refused";
  connectCount = 0;

  constructor(events: Poster, clock: Clock) {
    this.#events = events;
    this.#clock = clock;
  }

  connect(
    address: string,
    options: ConnectOptions,
    done: (result: Stream | NetFailure) => void,
  ): () => void {
    let over = false;
    const finish = (result: Stream | NetFailure): void => {
      if (over) return;
      over = true;
      done(result);
    };
    const answer = this.onConnect(address, ++this.connectCount);
    if (answer === "silence") {
      const timer = this.#clock.after(options.timeoutMs, () =>
        finish({ failure: "connection timed out" }),
      );
      return () => {
        over = true;
        timer.cancel();
      };
    }
    this.#events.post(() => finish(typeof answer === "string" ? { failure: answer } : answer.near));
    return () => {
      over = true;
    };
  }

  listen(
    address: string,
    accepted: (stream: Stream, user: number | null) => void,
  ): Promise<Listener> {
    this.#accepted.set(address, accepted);
    return Promise.resolve({ address, close: () => this.#accepted.delete(address) });
  }

  /** Somebody connects to where the subject listens. */
  dial(address: string): FarEnd {
    const accepted = this.#accepted.get(address);
    if (accepted === undefined) throw new Error(`nobody listens at ${address}`);
    const connection = pretendConnection(this.#events, "a client");
    this.#events.post(() => accepted(connection.near, 0));
    return connection;
  }

  isListening(address: string): boolean {
    return this.#accepted.has(address);
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/** An NBD client on a pretended connection: fixed newstyle, structured replies. */

import { strict as expect } from "node:assert";
import { contextRequest, infoRequest, option, type Request, request, u32 } from "../nbd-peer.ts";
import type { Events } from "./events.ts";
import type { FarEnd } from "./net.ts";

export const NBD_READ = 0;
export const NBD_WRITE = 1;
export const NBD_DISC = 2;
export const NBD_FLUSH = 3;
export const NBD_TRIM = 4;
export const NBD_CACHE = 5;
export const NBD_WRITE_ZEROES = 6;
export const NBD_BLOCK_STATUS = 7;
export const NBD_FUA = 1;

const OPT_GO = 7;
const OPT_STRUCTURED_REPLY = 8;
const OPT_SET_META_CONTEXT = 10;

/** The answer to one command. */
export interface NbdAnswer {
  /** 0, or an NBD error number. */
  readonly error: number;
  /** A READ's. */
  readonly data: Uint8Array;
  /** A BLOCK_STATUS's, by context id: [length, flags] pairs. */
  readonly extents: ReadonlyMap<number, readonly (readonly [number, number])[]>;
}

export class NbdClient {
  readonly connection: FarEnd;
  readonly #events: Events;
  #bytes: Buffer = Buffer.alloc(0);
  #nextCookie = 1n;
  readonly #answers: Map<bigint, NbdAnswer> = new Map();
  readonly #parts: Map<bigint, { data: Uint8Array[]; extents: Map<number, [number, number][]> }> =
    new Map();
  /** Ids of metadata contexts, by name. */
  readonly contexts: Map<string, number> = new Map();
  exportSize = 0n;

  constructor(events: Events, connection: FarEnd) {
    this.#events = events;
    this.connection = connection;
  }

  /** Negotiates up to transmission; false if the server hung up instead. */
  async begin(...contexts: readonly string[]): Promise<boolean> {
    await this.#events.settle();
    this.connection.send(u32(3)); // fixed newstyle, no zeroes
    this.connection.send(option(OPT_STRUCTURED_REPLY));
    if (contexts.length > 0) {
      this.connection.send(option(OPT_SET_META_CONTEXT, contextRequest("", ...contexts)));
    }
    this.connection.send(option(OPT_GO, infoRequest("")));
    await this.#events.settle();
    this.#bytes = Buffer.from(this.connection.takeHeard());
    if (this.#bytes.length === 0) return false;
    expect.equal(this.#bytes.toString("latin1", 0, 16), "NBDMAGICIHAVEOPT");
    let at = 18;
    for (;;) {
      const kind = this.#bytes.readUInt32BE(at + 8);
      const type = this.#bytes.readUInt32BE(at + 12);
      const length = this.#bytes.readUInt32BE(at + 16);
      const data = this.#bytes.subarray(at + 20, at + 20 + length);
      at += 20 + length;
      if (kind === OPT_SET_META_CONTEXT && type === 4) {
        this.contexts.set(data.toString("latin1", 4), data.readUInt32BE(0));
      }
      if (kind === OPT_GO && type === 3 && data.readUInt16BE(0) === 0) {
        this.exportSize = data.readBigUInt64BE(2);
      }
      if (kind === OPT_GO && type === 1) break;
      expect.ok(type < 0x80000000, `option ${kind} was refused`);
    }
    expect.equal(at, this.#bytes.length);
    this.#bytes = Buffer.alloc(0);
    return true;
  }

  /** Sends a command. @returns its cookie */
  send(wanted: Request): bigint {
    const cookie = this.#nextCookie++;
    this.connection.send(request({ ...wanted, cookie }));
    return cookie;
  }

  /** Sends a command and lets the world go on. @returns its answer, or null if there is none yet */
  async call(wanted: Request): Promise<NbdAnswer | null> {
    const cookie = this.send(wanted);
    await this.#events.settle();
    return this.answer(cookie);
  }

  /** The same, for a command that must succeed. */
  async done(wanted: Request): Promise<NbdAnswer> {
    const answer = await this.call(wanted);
    expect.ok(answer !== null, "no answer");
    expect.equal(answer.error, 0);
    return answer;
  }

  /** The answer to a command, if it has arrived. */
  answer(cookie: bigint): NbdAnswer | null {
    this.#parse();
    return this.#answers.get(cookie) ?? null;
  }

  get answerCount(): number {
    this.#parse();
    return this.#answers.size;
  }

  #parse(): void {
    this.#bytes = Buffer.concat([this.#bytes, this.connection.takeHeard()]);
    let at = 0;
    for (;;) {
      const left = this.#bytes.length - at;
      if (left < 16) break;
      const magic = this.#bytes.readUInt32BE(at);
      const cookie = this.#bytes.readBigUInt64BE(at + 8);
      if (magic === 0x67446698) {
        this.#finish(cookie, this.#bytes.readUInt32BE(at + 4));
        at += 16;
        continue;
      }
      expect.equal(magic, 0x668e33ef, "this is no reply");
      if (left < 20) break;
      const length = this.#bytes.readUInt32BE(at + 16);
      if (left < 20 + length) break;
      this.#chunk(cookie, at, this.#bytes.subarray(at + 20, at + 20 + length));
      at += 20 + length;
    }
    this.#bytes = this.#bytes.subarray(at);
  }

  #chunk(cookie: bigint, at: number, content: Buffer): void {
    const flags = this.#bytes.readUInt16BE(at + 4);
    const type = this.#bytes.readUInt16BE(at + 6);
    let parts = this.#parts.get(cookie);
    if (parts === undefined) {
      parts = { data: [], extents: new Map() };
      this.#parts.set(cookie, parts);
    }
    let error = 0;
    if (type === 1) parts.data.push(new Uint8Array(content.subarray(8)));
    else if (type === 5) parts.extents.set(content.readUInt32BE(0), extentsOf(content));
    else if (type >= 0x8000) error = content.readUInt32BE(0);
    if ((flags & 1) !== 0) this.#finish(cookie, error);
  }

  #finish(cookie: bigint, error: number): void {
    expect.ok(cookie > 0n && cookie < this.#nextCookie, "an answer to nothing");
    expect.ok(!this.#answers.has(cookie), "two answers to one command");
    const parts = this.#parts.get(cookie);
    this.#answers.set(cookie, {
      error,
      data: Buffer.concat(parts?.data ?? []),
      extents: parts?.extents ?? new Map(),
    });
  }
}

function extentsOf(content: Buffer): [number, number][] {
  const extents: [number, number][] = [];
  for (let at = 4; at < content.length; at += 8) {
    extents.push([content.readUInt32BE(at), content.readUInt32BE(at + 4)]);
  }
  return extents;
}

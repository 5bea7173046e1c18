// SPDX-License-Identifier: BSD-2-Clause
/** The other side of an NBD session, for tests: a client's bytes, a server's answers taken apart, a sink that remembers. */

import type { NbdExport } from "../src/nbd/export.ts";
import type { NbdSink } from "../src/nbd/session.ts";

export function exportOf(change: Partial<NbdExport> = {}): NbdExport {
  return {
    name: "shared",
    description: "HAST resource shared",
    size: 1 << 20,
    blockMinimum: 512,
    blockPreferred: 4096,
    payloadMaximum: 1 << 16,
    multiConn: true,
    contexts: ["base:allocation", "hast:dirty"],
    ...change,
  };
}

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function u64(value: bigint | number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

/** length u32 │ text */
export function string(text: string): Buffer {
  return Buffer.concat([u32(Buffer.byteLength(text)), Buffer.from(text)]);
}

export function option(type: number, data: Uint8Array = Buffer.alloc(0)): Buffer {
  return Buffer.concat([Buffer.from("IHAVEOPT"), u32(type), u32(data.length), data]);
}

/** The data of INFO and GO. */
export function infoRequest(name: string, ...items: number[]): Buffer {
  return Buffer.concat([string(name), u16(items.length), ...items.map(u16)]);
}

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function contextRequest(name: string, ...queries: string[]): Buffer {
  return Buffer.concat([string(name), u32(queries.length), ...queries.map(string)]);
}

export interface Request {
  readonly type: number;
  readonly flags?: number;
  readonly cookie?: bigint;
  readonly offset?: bigint | number;
  readonly length?: number;
  readonly payload?: Uint8Array;
}

export function request(wanted: Request): Buffer {
  const payload = wanted.payload ?? Buffer.alloc(0);
  return Buffer.concat([
    u32(0x25609513),
    u16(wanted.flags ?? 0),
    u16(wanted.type),
    u64(wanted.cookie ?? 0n),
    u64(wanted.offset ?? 0),
    u32(wanted.length ?? payload.length),
    payload,
  ]);
}

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

/** Takes a run of option replies apart; throws unless they end where the bytes end. */
export function optionReplies(bytes: Buffer): OptionReply[] {
  const replies: OptionReply[] = [];
  let at = 0;
  while (at < bytes.length) {
    if (bytes.readBigUInt64BE(at) !== 0x3e889045565a9n) throw new Error(`no reply at byte ${at}`);
    const length = bytes.readUInt32BE(at + 16);
    const data = bytes.subarray(at + 20, at + 20 + length);
    if (data.length !== length) throw new Error(`reply at byte ${at} is cut short`);
    replies.push({ option: bytes.readUInt32BE(at + 8), type: bytes.readUInt32BE(at + 12), data });
    at += 20 + length;
  }
  return replies;
}

export type Call =
  | {
      readonly call: "command";
      readonly type: number;
      readonly flags: number;
      readonly cookie: bigint;
      readonly offset: number;
      readonly length: number;
      readonly payload: string; // hexadecimal
    }
  | {
      readonly call: "refuse";
      readonly type: number;
      readonly cookie: bigint;
      readonly nbdErrno: number;
    }
  | { readonly call: "finish"; readonly reason: string | null };

/** Remembers what the session tells it. */
export class RecordingSink implements NbdSink {
  readonly calls: Call[] = [];
  sent: Buffer = Buffer.alloc(0);
  /** How many more commands there is room for. */
  room: number = Number.POSITIVE_INFINITY;
  /** Set to what is being fed, so that payloads can be looked at. */
  feeding: Uint8Array = Buffer.alloc(0);

  /** What was sent since the last time. */
  takeSent(): Buffer {
    const { sent } = this;
    this.sent = Buffer.alloc(0);
    return sent;
  }

  send(bytes: Uint8Array): void {
    this.#alive();
    this.sent = Buffer.concat([this.sent, bytes]);
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
    this.#alive();
    if (this.room === 0) return false;
    this.room -= 1;
    const bytes = type === 1 ? this.feeding.subarray(payload, payload + length) : Buffer.alloc(0);
    this.calls.push({
      call: "command",
      type,
      flags,
      cookie: cookieOf(cookieHi, cookieLo),
      offset,
      length,
      payload: Buffer.from(bytes).toString("hex"),
    });
    return true;
  }

  refuse(type: number, cookieHi: number, cookieLo: number, nbdErrno: number): boolean {
    this.#alive();
    if (this.room === 0) return false;
    this.room -= 1;
    this.calls.push({ call: "refuse", type, cookie: cookieOf(cookieHi, cookieLo), nbdErrno });
    return true;
  }

  finish(reason: string | null): void {
    this.#alive();
    this.calls.push({ call: "finish", reason });
  }

  #alive(): void {
    if (this.calls.at(-1)?.call === "finish") throw new Error("called after finish()");
  }
}

function cookieOf(hi: number, lo: number): bigint {
  return (BigInt(hi) << 32n) | BigInt(lo);
}

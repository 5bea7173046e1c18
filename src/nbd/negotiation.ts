// SPDX-License-Identifier: BSD-2-Clause
/**
 * The handshake of an NBD session, fixed newstyle: client and server agree on an export and on manners.
 *
 *   server  "NBDMAGIC" │ "IHAVEOPT" │ flags u16
 *   client  flags u32
 *   client  "IHAVEOPT" │ option u32 │ length u32 │ data                     any number of options,
 *   server  magic u64 │ option u32 │ reply u32 │ length u32 │ data          each with its replies
 *
 * GO and EXPORT_NAME end it; EXPORT_NAME alone is answered in an older form, which knows no errors.
 *
 * Where TLS is required, STARTTLS is the only option of use in the clear: nothing else is told there, nothing
 * heard there counts later, and nothing may follow STARTTLS before TLS has begun.
 * Source: NBD protocol, "Newstyle negotiation" and "Option types".
 */

import { assert } from "../base/assert.ts";
import { getU16BE, getU32BE, putU16BE, putU32BE, putU64BE, putU64HalvesBE } from "../base/bytes.ts";
import { assertExport, type NbdContext, type NbdExport, transmissionFlags } from "./export.ts";
import * as nbd from "./protocol.ts";

/** Bytes of an option's data that we are ready to look at; a name has at most 4096, and so has a query. */
export const OPTION_LENGTH_MAX = 16384;
/** Bytes of an option too long to look at that we pass over before hanging up: as much as a WRITE may have. */
export const OPTION_SKIP_MAX = 0x200_0000;
/** Options per session. Bounds what a client that never reads can make us queue. */
export const OPTION_COUNT_MAX = 1024;

const OPTION_HEADER_SIZE = 16;

export type NegotiationState =
  | { readonly kind: "open" }
  /** TLS comes next; then secured(). */
  | { readonly kind: "starttls" }
  | {
      readonly kind: "agreed";
      readonly export: NbdExport;
      readonly structured: boolean;
      readonly contexts: readonly NbdContext[];
    }
  /** The client said goodbye (null), or why nothing more can come of it. */
  | { readonly kind: "over"; readonly reason: string | null };

/** An option's last reply; clients show the message to people. */
interface Verdict {
  readonly reply: number;
  readonly message: string;
}

const ACK: Verdict = { reply: nbd.NBD_REP_ACK, message: "" };
const TLS_REQUIRED: Verdict = {
  reply: nbd.NBD_REP_ERR_TLS_REQD,
  message: "this server requires TLS, and a client certificate that it knows",
};
const MALFORMED: Verdict = { reply: nbd.NBD_REP_ERR_INVALID, message: "malformed option" };
const TOO_BIG: Verdict = {
  reply: nbd.NBD_REP_ERR_TOO_BIG,
  message: `more than ${OPTION_LENGTH_MAX} bytes`,
};

export class Negotiation {
  readonly #exports: readonly NbdExport[];
  readonly #send: (bytes: Uint8Array) => void;
  #tls: "none" | "required" | "done";
  /** Why this client gets nothing, though it has come with TLS; or null. */
  #refusal: string | null = null;
  #greeted = false;
  #fixedNewstyle = false;
  #noZeroes = false;
  #structured = false;
  /** What SET_META_CONTEXT selected last, and for which export: another one does not have them. */
  #selected: { readonly disk: NbdExport; readonly contexts: readonly NbdContext[] } | null = null;
  #optionCount = 0;
  #skip = 0; // bytes of an oversized option still to come, and which option it is
  #skipOption = 0;

  state: NegotiationState = { kind: "open" };
  /** Contiguous bytes that feed() needs to get on. */
  wanted = 4;

  constructor(
    exports: readonly NbdExport[],
    send: (bytes: Uint8Array) => void,
    tls: "none" | "required" = "none",
  ) {
    this.#tls = tls;
    assert(exports.length > 0);
    for (const disk of exports) assertExport(disk);
    this.#exports = exports;
    this.#send = send;
  }

  /** The server speaks first. */
  greet(): void {
    const bytes = new Uint8Array(18);
    putU64HalvesBE(bytes, 0, nbd.NBD_MAGIC_HI, nbd.NBD_MAGIC_LO);
    putU64HalvesBE(bytes, 8, nbd.NBD_OPTION_MAGIC_HI, nbd.NBD_OPTION_MAGIC_LO);
    putU16BE(bytes, 16, nbd.NBD_FLAG_FIXED_NEWSTYLE | nbd.NBD_FLAG_NO_ZEROES);
    this.#send(bytes);
  }

  /** TLS has begun. @param refusal why the client gets nothing all the same; it is told so. Or null */
  secured(refusal: string | null): void {
    assert(this.state.kind === "starttls");
    this.#tls = "done";
    this.#refusal = refusal;
    this.state = { kind: "open" };
  }

  /**
   * Parses [start, end) of `bytes` as far as the negotiation goes.
   * @returns the index of the first byte not consumed
   */
  feed(bytes: Uint8Array, start: number, end: number): number {
    let at = start;
    while (this.state.kind === "open") {
      if (this.#skip > 0) {
        const passed = Math.min(this.#skip, end - at);
        this.#skip -= passed;
        at += passed;
        this.wanted = 1;
        if (this.#skip > 0) return at;
        this.wanted = OPTION_HEADER_SIZE;
        this.#skipped(this.#skipOption);
        continue;
      }
      if (end - at < this.wanted) return at;

      if (!this.#greeted) {
        this.#clientFlags(getU32BE(bytes, at));
        at += 4;
        this.wanted = OPTION_HEADER_SIZE;
        continue;
      }

      if (
        getU32BE(bytes, at) !== nbd.NBD_OPTION_MAGIC_HI ||
        getU32BE(bytes, at + 4) !== nbd.NBD_OPTION_MAGIC_LO
      ) {
        this.#over("this is not an NBD option: wrong magic number");
        continue;
      }
      const option = getU32BE(bytes, at + 8);
      const length = getU32BE(bytes, at + 12);
      if (length > OPTION_LENGTH_MAX) {
        this.#oversized(option, length);
        at += OPTION_HEADER_SIZE;
        continue;
      }
      if (end - at < OPTION_HEADER_SIZE + length) {
        this.wanted = OPTION_HEADER_SIZE + length;
        return at;
      }
      at += OPTION_HEADER_SIZE;
      this.wanted = OPTION_HEADER_SIZE;
      this.#option(option, bytes.subarray(at, at + length));
      at += length;
    }
    return at;
  }

  #clientFlags(flags: number): void {
    this.#greeted = true;
    this.#fixedNewstyle = (flags & nbd.NBD_FLAG_FIXED_NEWSTYLE) !== 0;
    this.#noZeroes = (flags & nbd.NBD_FLAG_NO_ZEROES) !== 0;
    if ((flags & ~(nbd.NBD_FLAG_FIXED_NEWSTYLE | nbd.NBD_FLAG_NO_ZEROES)) !== 0) {
      this.#over(`unknown client flags 0x${flags.toString(16)}`);
    }
  }

  /** True if the client may go on after one more option. */
  #admit(option: number): boolean {
    this.#optionCount += 1;
    if (this.#optionCount > OPTION_COUNT_MAX) {
      this.#over(`more than ${OPTION_COUNT_MAX} options`);
    } else if (!this.#fixedNewstyle && option !== nbd.NBD_OPT_EXPORT_NAME) {
      this.#over(`option ${option} without fixed newstyle: the client could not read its reply`);
    }
    return this.state.kind === "open";
  }

  /** Data that we do not look at is passed over as it comes; then the option is refused. */
  #oversized(option: number, length: number): void {
    if (!this.#admit(option)) return;
    if (option === nbd.NBD_OPT_EXPORT_NAME || length > OPTION_SKIP_MAX) {
      this.#over(`option ${option} with ${length} bytes; at most ${OPTION_LENGTH_MAX}`);
      return;
    }
    this.#skip = length;
    this.#skipOption = option;
  }

  #skipped(option: number): void {
    if (option === nbd.NBD_OPT_SET_META_CONTEXT) this.#selected = null;
    const verdict = option === nbd.NBD_OPT_ABORT ? this.#abort() : TOO_BIG;
    this.#reply(option, verdict.reply, utf8(verdict.message));
  }

  #option(option: number, data: Uint8Array): void {
    if (!this.#admit(option)) return;
    if (option === nbd.NBD_OPT_EXPORT_NAME) {
      this.#exportName(data);
      return;
    }
    const verdict = this.#judge(option, data);
    this.#reply(option, verdict.reply, utf8(verdict.message));
  }

  /** Replies what the option asks for. @returns the reply that comes last */
  #judge(option: number, data: Uint8Array): Verdict {
    if (option === nbd.NBD_OPT_ABORT) return this.#abort();
    if (this.#refusal !== null) {
      return { reply: nbd.NBD_REP_ERR_POLICY, message: this.#refusal };
    }
    if (this.#tls === "required" && option !== nbd.NBD_OPT_STARTTLS) return TLS_REQUIRED;
    switch (option) {
      case nbd.NBD_OPT_STARTTLS:
        return this.#startTls(data);
      case nbd.NBD_OPT_LIST:
        return data.length > 0 ? MALFORMED : this.#list();
      case nbd.NBD_OPT_INFO:
      case nbd.NBD_OPT_GO:
        return this.#info(option, data);
      case nbd.NBD_OPT_STRUCTURED_REPLY:
        if (data.length > 0) return MALFORMED;
        this.#structured = true;
        return ACK;
      case nbd.NBD_OPT_LIST_META_CONTEXT:
      case nbd.NBD_OPT_SET_META_CONTEXT:
        return this.#metaContext(option, data);
      default:
        return { reply: nbd.NBD_REP_ERR_UNSUP, message: `option ${option} is not supported` };
    }
  }

  #startTls(data: Uint8Array): Verdict {
    if (this.#tls === "none") {
      const message = "this export is used without TLS: exporttls says whether it is";
      return { reply: nbd.NBD_REP_ERR_UNSUP, message };
    }
    if (data.length > 0 || this.#tls === "done") return MALFORMED;
    this.state = { kind: "starttls" };
    return ACK;
  }

  #abort(): Verdict {
    this.#over(null);
    return ACK;
  }

  /** The old way to choose an export. It cannot be refused except by hanging up. */
  #exportName(data: Uint8Array): void {
    if (this.#tls === "required" || this.#refusal !== null) {
      this.#over(this.#refusal ?? "the client does not know TLS, which is required");
      return;
    }
    const disk = this.#find(data);
    if (disk === undefined) {
      this.#over("the client asked for an export that is not here");
      return;
    }
    const reply = new Uint8Array(this.#noZeroes ? 10 : 10 + 124);
    putU64BE(reply, 0, disk.size);
    putU16BE(reply, 8, transmissionFlags(disk, this.#structured));
    this.#send(reply);
    this.#agree(disk);
  }

  #list(): Verdict {
    for (const disk of this.#exports) {
      const name = utf8(disk.name);
      const server = concatenate(new Uint8Array(4), name, utf8(disk.description));
      putU32BE(server, 0, name.length);
      this.#reply(nbd.NBD_OPT_LIST, nbd.NBD_REP_SERVER, server);
    }
    return ACK;
  }

  /** INFO asks about an export; GO asks, and begins to use it. */
  #info(option: number, data: Uint8Array): Verdict {
    const asked = decodeInfoRequest(data);
    if (asked === null) return MALFORMED;
    const disk = this.#find(asked.name);
    if (disk === undefined) return this.#unknown();

    const size = new Uint8Array(12);
    putU16BE(size, 0, nbd.NBD_INFO_EXPORT);
    putU64BE(size, 2, disk.size);
    putU16BE(size, 10, transmissionFlags(disk, this.#structured));
    this.#reply(option, nbd.NBD_REP_INFO, size);

    if (asked.items.has(nbd.NBD_INFO_NAME)) {
      const name = concatenate(new Uint8Array(2), utf8(disk.name));
      putU16BE(name, 0, nbd.NBD_INFO_NAME);
      this.#reply(option, nbd.NBD_REP_INFO, name);
    }
    if (asked.items.has(nbd.NBD_INFO_DESCRIPTION)) {
      const description = concatenate(new Uint8Array(2), utf8(disk.description));
      putU16BE(description, 0, nbd.NBD_INFO_DESCRIPTION);
      this.#reply(option, nbd.NBD_REP_INFO, description);
    }
    if (asked.items.has(nbd.NBD_INFO_BLOCK_SIZE)) {
      const limits = new Uint8Array(14);
      putU16BE(limits, 0, nbd.NBD_INFO_BLOCK_SIZE);
      putU32BE(limits, 2, disk.blockMinimum);
      putU32BE(limits, 6, disk.blockPreferred);
      putU32BE(limits, 10, disk.payloadMaximum);
      this.#reply(option, nbd.NBD_REP_INFO, limits);
    }
    if (option === nbd.NBD_OPT_GO) this.#agree(disk);
    return ACK;
  }

  /** LIST tells what could be selected; SET selects, and forgets what was selected before. */
  #metaContext(option: number, data: Uint8Array): Verdict {
    const setting = option === nbd.NBD_OPT_SET_META_CONTEXT;
    if (setting) this.#selected = null;
    if (!this.#structured) {
      return { reply: nbd.NBD_REP_ERR_INVALID, message: "needs structured replies first" };
    }
    const asked = decodeContextRequest(data);
    if (asked === null) return MALFORMED;
    const disk = this.#find(asked.name);
    if (disk === undefined) return this.#unknown();

    const all = asked.queries.length === 0 && !setting;
    const contexts: NbdContext[] = [];
    disk.contexts.forEach((name, index) => {
      if (all || asked.queries.some((query) => matches(query, utf8(name), !setting))) {
        contexts.push({ name, id: index + 1 });
      }
    });
    for (const context of contexts) {
      const reply = concatenate(new Uint8Array(4), utf8(context.name));
      putU32BE(reply, 0, setting ? context.id : 0);
      this.#reply(option, nbd.NBD_REP_META_CONTEXT, reply);
    }
    if (setting) this.#selected = { disk, contexts };
    return ACK;
  }

  /** The empty name means the first export. */
  #find(name: Uint8Array): NbdExport | undefined {
    if (name.length === 0) return this.#exports[0];
    return this.#exports.find((disk) => sameBytes(utf8(disk.name), name));
  }

  #agree(disk: NbdExport): void {
    const contexts = this.#selected?.disk === disk ? this.#selected.contexts : [];
    this.state = { kind: "agreed", export: disk, structured: this.#structured, contexts };
  }

  #over(reason: string | null): void {
    this.state = { kind: "over", reason };
  }

  #unknown(): Verdict {
    const name = this.#exports[0]!.name;
    return { reply: nbd.NBD_REP_ERR_UNKNOWN, message: `no such export; the first is "${name}"` };
  }

  #reply(option: number, type: number, data: Uint8Array): void {
    const header = new Uint8Array(20);
    putU64HalvesBE(header, 0, nbd.NBD_OPTION_REPLY_MAGIC_HI, nbd.NBD_OPTION_REPLY_MAGIC_LO);
    putU32BE(header, 8, option);
    putU32BE(header, 12, type);
    putU32BE(header, 16, data.length);
    this.#send(concatenate(header, data));
  }
}

/**
 *   name length u32 │ name │ count u16 │ information type u16 …
 *
 * @returns null when the lengths contradict each other
 */
function decodeInfoRequest(data: Uint8Array): {
  readonly name: Uint8Array;
  readonly items: ReadonlySet<number>;
} | null {
  const name = takeString(data, 0);
  if (name === null) return null;
  let at = 4 + name.length;
  if (data.length - at < 2) return null;
  const count = getU16BE(data, at);
  at += 2;
  if (data.length - at !== count * 2) return null;
  const items = new Set<number>();
  for (; at < data.length; at += 2) items.add(getU16BE(data, at));
  return { name, items };
}

/**
 *   name length u32 │ name │ count u32 │ (length u32 │ query) …
 *
 * @returns null when the lengths contradict each other
 */
function decodeContextRequest(data: Uint8Array): {
  readonly name: Uint8Array;
  readonly queries: readonly Uint8Array[];
} | null {
  const name = takeString(data, 0);
  if (name === null) return null;
  let at = 4 + name.length;
  if (data.length - at < 4) return null;
  const count = getU32BE(data, at);
  at += 4;
  const queries: Uint8Array[] = [];
  while (queries.length < count) {
    const query = takeString(data, at);
    if (query === null) return null;
    queries.push(query);
    at += 4 + query.length;
  }
  return at === data.length ? { name, queries } : null;
}

/** length u32 │ bytes; null when it does not fit or is longer than a string may be. */
function takeString(data: Uint8Array, at: number): Uint8Array | null {
  if (data.length - at < 4) return null;
  const length = getU32BE(data, at);
  if (length > data.length - at - 4 || length > nbd.NBD_STRING_SIZE_MAX) return null;
  return data.subarray(at + 4, at + 4 + length);
}

/** A query is a context's name; or, where wildcards count, a namespace with its colon. */
function matches(query: Uint8Array, context: Uint8Array, wildcards: boolean): boolean {
  if (sameBytes(query, context)) return true;
  const colon = context.indexOf(0x3a);
  return wildcards && sameBytes(query, context.subarray(0, colon + 1));
}

function sameBytes(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, index) => byte === other[index]);
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function concatenate(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

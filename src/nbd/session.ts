// SPDX-License-Identifier: BSD-2-Clause
/**
 * One NBD client's session, the server's side, without its socket: bytes in, checked commands out.
 *
 *   magic u32 │ flags u16 │ type u16 │ cookie u64 │ offset u64 │ length u32 │ a WRITE's payload
 *
 * A client names each command by a cookie of its own and may have many under way; answers go back in
 * any order. The session keeps no record of them.
 * Source: NBD protocol, "Request message" and "Request types".
 */

import { assert } from "../base/assert.ts";
import { getU16BE, getU32BE, getU64BE } from "../base/bytes.ts";
import type { NbdContext, NbdExport } from "./export.ts";
import { Negotiation } from "./negotiation.ts";
import * as nbd from "./protocol.ts";
import { putBlockStatus, putError, putNone, putOffsetData, putSimpleReply } from "./reply.ts";

export interface NbdSink {
  /** Bytes for the client (negotiation). The callee copies them. */
  send(bytes: Uint8Array): void;
  /**
   * A whole command, checked: [offset, offset + length) lies in the export, is aligned to its blockMinimum
   * and not empty; a FLUSH alone has offset and length 0. READ and WRITE have at most payloadMaximum bytes,
   * the others up to 2^32 - 1.
   * @param flags FUA on WRITE, TRIM, WRITE_ZEROES; NO_HOLE on WRITE_ZEROES; DF on READ; REQ_ONE on BLOCK_STATUS
   * @param payload where a WRITE's bytes begin in the buffer being fed; 0 for the others
   * @returns false when there is no room now: feed() stops before this command; feed again later from there
   */
  command(
    type: number,
    flags: number,
    cookieHi: number,
    cookieLo: number,
    offset: number,
    length: number,
    payload: number,
  ): boolean;
  /**
   * A command that goes no further: answer it with putReply(type, …, nbdErrno).
   * @param nbdErrno why, or 0 for a success: the command asked for zero bytes
   * @returns false when there is no room now, as above
   */
  refuse(type: number, cookieHi: number, cookieLo: number, nbdErrno: number): boolean;
  /**
   * The client said goodbye (null) or broke the protocol (why): answer what is in flight, then close.
   * Called at most once; nothing else is called after it.
   */
  finish(reason: string | null): void;
}

/** What #judge() says of a command that may go on; every other verdict is an error number or 0. */
const FIT = -1;

export class NbdSession {
  readonly #sink: NbdSink;
  readonly #negotiation: Negotiation;
  readonly #startTls: ((clear: number) => void) | null;
  #export: NbdExport | null = null;
  #contexts: readonly NbdContext[] = [];
  #structured = false;
  #state: "negotiating" | "transmission" | "finished" = "negotiating";
  #wanted = 4;
  // A refused WRITE, answered once its payload has passed: libnbd knows no answer to what it is still sending.
  #skip = 0; // bytes of its payload still to come
  #skipCookieHi = 0;
  #skipCookieLo = 0;
  #skipErrno = 0;

  /**
   * @param exports at least one; the first is the default
   * @param startTls where TLS is required, called when it shall begin, with how many bytes follow in the clear,
   *   which must be none: somebody may have put them there; secured() when it has begun
   */
  constructor(
    exports: readonly NbdExport[],
    sink: NbdSink,
    startTls: ((clear: number) => void) | null = null,
  ) {
    this.#sink = sink;
    this.#startTls = startTls;
    const tls = startTls === null ? "none" : "required";
    this.#negotiation = new Negotiation(exports, (bytes) => sink.send(bytes), tls);
  }

  /** See Negotiation.secured(). */
  secured(refusal: string | null): void {
    this.#negotiation.secured(refusal);
  }

  get state(): "negotiating" | "transmission" | "finished" {
    return this.#state;
  }

  /**
   * Contiguous bytes, from the first one not consumed, that feed() needs to do more: at least 1, at most
   * 28 + the greatest payloadMaximum. If feed() stopped for want of room, those bytes are there already.
   */
  get wanted(): number {
    return this.#wanted;
  }

  /** What the client chose; null until then. */
  get export(): NbdExport | null {
    return this.#export;
  }

  get structured(): boolean {
    return this.#structured;
  }

  /** What the client selected: a BLOCK_STATUS is answered with one putBlockStatus() for each. */
  get contexts(): readonly NbdContext[] {
    return this.#contexts;
  }

  /** Sends the greeting: the server speaks first. */
  begin(): void {
    this.#negotiation.greet();
  }

  /**
   * Parses [start, end) of `bytes`, which continue where the last call's unconsumed bytes began.
   * @returns the index of the first byte not consumed. What was consumed may be overwritten, except the
   *   payloads of commands that the sink took
   */
  feed(bytes: Uint8Array, start: number, end: number): number {
    assert(start >= 0);
    assert(start <= end);
    assert(end <= bytes.length);
    let at = start;
    if (this.#state === "negotiating") at = this.#negotiate(bytes, at, end);
    if (this.#state === "transmission") at = this.#transmit(bytes, at, end);
    if (this.#state === "finished") {
      this.#wanted = 1;
      return end; // nothing more is listened to
    }
    return at;
  }

  #negotiate(bytes: Uint8Array, start: number, end: number): number {
    const at = this.#negotiation.feed(bytes, start, end);
    const state = this.#negotiation.state;
    if (state.kind === "over") {
      this.#finish(state.reason);
    } else if (state.kind === "starttls") {
      this.#wanted = this.#negotiation.wanted;
      this.#startTls!(end - at);
    } else if (state.kind === "agreed") {
      this.#export = state.export;
      this.#structured = state.structured;
      this.#contexts = state.contexts;
      this.#state = "transmission";
    } else {
      this.#wanted = this.#negotiation.wanted;
    }
    return at;
  }

  #transmit(bytes: Uint8Array, start: number, end: number): number {
    const disk = this.#export;
    assert(disk !== null);
    let at = start;
    for (;;) {
      if (this.#skip > 0) {
        // Its last byte stays until the answer is taken, so that there is something to feed again.
        const passed = Math.min(this.#skip - 1, end - at);
        this.#skip -= passed;
        at += passed;
        this.#wanted = 1;
        if (at === end) return at;
        const type = nbd.NBD_CMD_WRITE;
        if (!this.#sink.refuse(type, this.#skipCookieHi, this.#skipCookieLo, this.#skipErrno)) {
          return at;
        }
        this.#skip = 0;
        at += 1;
      }
      if (end - at < nbd.NBD_REQUEST_SIZE) {
        this.#wanted = nbd.NBD_REQUEST_SIZE;
        return at;
      }
      if (getU32BE(bytes, at) !== nbd.NBD_REQUEST_MAGIC) {
        this.#finish("this is not an NBD request: wrong magic number");
        return end;
      }
      const flags = getU16BE(bytes, at + 4);
      const type = getU16BE(bytes, at + 6);
      const cookieHi = getU32BE(bytes, at + 8);
      const cookieLo = getU32BE(bytes, at + 12);
      const offset = getU64BE(bytes, at + 16);
      const length = getU32BE(bytes, at + 24);

      if (type === nbd.NBD_CMD_DISC) {
        this.#finish(null);
        return end;
      }
      const payload = type === nbd.NBD_CMD_WRITE ? length : 0;
      if (payload > disk.payloadMaximum) {
        // It would have to be read to the end to be refused.
        this.#finish(`a WRITE of ${payload} bytes; at most ${disk.payloadMaximum}`);
        return end;
      }

      const verdict = this.#judge(disk, type, flags, offset, length);
      if (verdict !== FIT && payload > 0) {
        this.#skip = payload;
        this.#skipCookieHi = cookieHi;
        this.#skipCookieLo = cookieLo;
        this.#skipErrno = verdict;
        at += nbd.NBD_REQUEST_SIZE;
        continue;
      }
      if (verdict !== FIT) {
        if (!this.#sink.refuse(type, cookieHi, cookieLo, verdict)) {
          this.#wanted = nbd.NBD_REQUEST_SIZE;
          return at;
        }
        at += nbd.NBD_REQUEST_SIZE;
        continue;
      }

      const size = nbd.NBD_REQUEST_SIZE + payload;
      if (end - at < size) {
        this.#wanted = size;
        return at;
      }
      const from = payload > 0 ? at + nbd.NBD_REQUEST_SIZE : 0;
      const told = writes(type) ? flags : flags & ~nbd.NBD_CMD_FLAG_FUA;
      if (!this.#sink.command(type, told, cookieHi, cookieLo, offset, length, from)) {
        this.#wanted = size;
        return at;
      }
      at += size;
    }
  }

  /**
   * FIT, or the answer that the command gets at once.
   * @param offset -1 when it exceeds 2^53 - 1
   */
  #judge(disk: NbdExport, type: number, flags: number, offset: number, length: number): number {
    // FUA is legal on every command: clients are known to set it where it means nothing.
    let legal = nbd.NBD_CMD_FLAG_FUA;
    let beyond = nbd.NBD_EINVAL;
    switch (type) {
      case nbd.NBD_CMD_READ:
        if (this.#structured) legal |= nbd.NBD_CMD_FLAG_DF;
        break;
      case nbd.NBD_CMD_WRITE:
        beyond = nbd.NBD_ENOSPC;
        break;
      case nbd.NBD_CMD_WRITE_ZEROES:
        legal |= nbd.NBD_CMD_FLAG_NO_HOLE;
        beyond = nbd.NBD_ENOSPC;
        break;
      case nbd.NBD_CMD_BLOCK_STATUS:
        if (this.#contexts.length === 0) return nbd.NBD_EINVAL;
        legal |= nbd.NBD_CMD_FLAG_REQ_ONE;
        break;
      case nbd.NBD_CMD_FLUSH:
        return (flags & ~legal) === 0 && offset === 0 && length === 0 ? FIT : nbd.NBD_EINVAL;
      case nbd.NBD_CMD_TRIM:
      case nbd.NBD_CMD_CACHE:
        break;
      default:
        return nbd.NBD_EINVAL;
    }
    if ((flags & ~legal) !== 0) return nbd.NBD_EINVAL;
    // As a subtraction: offset + length could exceed what a number holds.
    if (offset < 0 || length > disk.size - offset) return beyond;
    const unaligned = disk.blockMinimum - 1;
    if ((offset & unaligned) !== 0 || (length & unaligned) !== 0) return nbd.NBD_EINVAL;
    if (type === nbd.NBD_CMD_READ && length > disk.payloadMaximum) {
      return (flags & nbd.NBD_CMD_FLAG_DF) !== 0 ? nbd.NBD_EOVERFLOW : nbd.NBD_EINVAL;
    }
    if (length === 0) return type === nbd.NBD_CMD_BLOCK_STATUS ? nbd.NBD_EINVAL : 0;
    return FIT;
  }

  #finish(reason: string | null): void {
    this.#state = "finished";
    this.#sink.finish(reason);
  }

  /**
   * An answer without content: 16 bytes, or 20 to 26 for READ and BLOCK_STATUS with structured replies.
   * @param nbdErrno 0 for success; a READ or BLOCK_STATUS that has something to tell succeeds otherwise
   * @returns the end index
   */
  putReply(
    out: Uint8Array,
    at: number,
    type: number,
    cookieHi: number,
    cookieLo: number,
    nbdErrno: number,
  ): number {
    const chunked = type === nbd.NBD_CMD_READ || type === nbd.NBD_CMD_BLOCK_STATUS;
    if (!this.#structured || !chunked) return putSimpleReply(out, at, cookieHi, cookieLo, nbdErrno);
    if (nbdErrno === 0) return putNone(out, at, cookieHi, cookieLo);
    return putError(out, at, cookieHi, cookieLo, nbdErrno);
  }

  /**
   * The header of a READ's answer: 16 bytes, or 28 with structured replies. Exactly `length` (> 0) bytes of
   * data must follow it, and they must be at hand: nothing can take a success back.
   * @returns the end index
   */
  putReadHeader(
    out: Uint8Array,
    at: number,
    cookieHi: number,
    cookieLo: number,
    offset: number,
    length: number,
  ): number {
    return this.#structured
      ? putOffsetData(out, at, cookieHi, cookieLo, offset, length)
      : putSimpleReply(out, at, cookieHi, cookieLo, 0);
  }

  /**
   * One context's part of the answer to a BLOCK_STATUS: 24 + 8 × extentCount bytes.
   * @param extents (length in bytes, status flags) pairs, consecutive from the request's offset, lengths > 0;
   *   with REQ_ONE only one, no longer than the request
   * @param last for the last of the contexts
   * @returns the end index
   */
  putBlockStatus(
    out: Uint8Array,
    at: number,
    cookieHi: number,
    cookieLo: number,
    contextId: number,
    extents: Uint32Array,
    extentCount: number,
    last: boolean,
  ): number {
    assert(this.#structured);
    return putBlockStatus(out, at, cookieHi, cookieLo, contextId, extents, extentCount, last);
  }
}

function writes(type: number): boolean {
  return (
    type === nbd.NBD_CMD_WRITE || type === nbd.NBD_CMD_TRIM || type === nbd.NBD_CMD_WRITE_ZEROES
  );
}

// SPDX-License-Identifier: BSD-2-Clause
/** One NBD client's session, the server's side. Stub: signatures only. */

/** What a client may choose. Names and descriptions at most 4096 bytes of UTF-8. */
export interface NbdExport {
  readonly name: string;
  readonly description: string;
  /** Bytes, a multiple of blockMinimum. */
  readonly size: number;
  /** Bytes, 1, 512 or 4096: offsets and lengths of commands are multiples of it. */
  readonly blockMinimum: number;
  /** Bytes, 4096. */
  readonly blockPreferred: number;
  /** Bytes, the longest READ or WRITE. At least 64 KiB. */
  readonly payloadMaximum: number;
  /** A FLUSH on one connection covers what was answered on any other. */
  readonly multiConn: boolean;
  /** What BLOCK_STATUS can tell: ["base:allocation", "hast:dirty"]. */
  readonly contexts: readonly string[];
}

/** A metadata context the client selected. */
export interface NbdContext {
  readonly name: string;
  readonly id: number;
}

export interface NbdSink {
  /** Bytes for the client (negotiation). The callee copies them. */
  send(bytes: Uint8Array): void;
  /**
   * A whole command, checked: its range lies in the export, length > 0 except FLUSH (offset and length 0).
   * The payload of a WRITE lies at [payload, payload + length) of the buffer being fed; else payload is 0.
   * FUA is left set only on WRITE, TRIM and WRITE_ZEROES.
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
   * A command the session disposes of itself: answer it with putReply() and this error.
   * @param nbdErrno an NBD_E…, or 0: of length zero, so nothing to do
   * @returns false when there is no room now, as above
   */
  refuse(type: number, cookieHi: number, cookieLo: number, nbdErrno: number): boolean;
  /** The client said goodbye (null) or broke the protocol (why): answer what is in flight, then close. */
  finish(reason: string | null): void;
}

export class NbdSession {
  state: "negotiating" | "transmission" | "finished" = "negotiating";
  wanted = 1;
  /** The client's choice; null while negotiating. */
  export: NbdExport | null = null;
  structured = false;
  /** Negotiated contexts; BLOCK_STATUS answers with one chunk for each, in any order, DONE on the last. */
  contexts: readonly NbdContext[] = [];

  constructor(_exports: readonly NbdExport[], _sink: NbdSink) {}

  /** Sends the greeting. */
  begin(): void {
    throw new Error("stub");
  }

  /**
   * Parses [start, end) of `bytes`.
   * @returns the index of the first byte not consumed. What was consumed may be overwritten, payloads excepted
   */
  feed(_bytes: Uint8Array, _start: number, _end: number): number {
    throw new Error("stub");
  }

  /** An answer without payload (16 to 26 bytes). @returns the end index */
  putReply(
    _out: Uint8Array,
    _at: number,
    _type: number,
    _cookieHi: number,
    _cookieLo: number,
    _nbdErrno: number,
  ): number {
    throw new Error("stub");
  }

  /** The header (16 or 28 bytes) that exactly `length` bytes of data must follow. @returns the end index */
  putReadHeader(
    _out: Uint8Array,
    _at: number,
    _cookieHi: number,
    _cookieLo: number,
    _offset: number,
    _length: number,
  ): number {
    throw new Error("stub");
  }

  /**
   * One context's answer to a BLOCK_STATUS: 24 + 8 × extentCount bytes.
   * @param extents (length in bytes, status flags) pairs, consecutive from the request's offset
   * @param last true for the last of the contexts
   * @returns the end index
   */
  putBlockStatus(
    _out: Uint8Array,
    _at: number,
    _cookieHi: number,
    _cookieLo: number,
    _contextId: number,
    _extents: Uint32Array,
    _extentCount: number,
    _last: boolean,
  ): number {
    throw new Error("stub");
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * What a primary says in the clear before TLS begins: which resource it comes for.
 *
 *   record     22 │ version u16 │ length u16 │ handshake …
 *   handshake  1 │ length u24 │ version u16 │ random 32 │ session id │ ciphers │ compression │ extensions
 *   extension  0 │ length u16 │ list length u16 │ { 0 │ length u16 │ name }         server_name
 *
 * Lengths of the session id and the compression methods are a u8, of the ciphers and the extensions a
 * u16; all are big-endian. The name is the resource's, byte for byte. It is a claim: it says which
 * process ends the TLS connection, and nothing else.
 * Source: RFC 8446 §4.1.2, §5.1; RFC 6066 §3.
 */

import { getU16BE } from "../base/bytes.ts";
import { WireError } from "./error.ts";

/** The first byte of a TLS connection; a HAST frame begins with a version, at most 2. */
export const TLS_HANDSHAKE = 22;
export const RECORD_HEADER_SIZE = 5;
/** Bytes of a plaintext record's body (RFC 8446 §5.1). */
const RECORD_SIZE_MAX = 16384;
/** Type and length of a handshake message, version, random. */
const HELLO_FIXED_SIZE: number = 4 + 2 + 32;
const SERVER_NAME = 0;

/** Alerts that end a TLS connection before it has begun (RFC 8446 §6). */
export const ALERT_ACCESS_DENIED = 49;
export const ALERT_UNRECOGNIZED_NAME = 112;

/**
 * Bytes of the record whose first {@link RECORD_HEADER_SIZE} bytes are `head`, without these.
 * @throws WireError "client-hello-invalid"
 */
export function recordSize(head: Uint8Array): number {
  const size = getU16BE(head, 3);
  if (size < HELLO_FIXED_SIZE || size > RECORD_SIZE_MAX) {
    throw invalid(`its first record claims ${size} bytes`);
  }
  return size;
}

/**
 * The server name in a whole record that holds a whole ClientHello; null where there is none.
 * @throws WireError "client-hello-invalid"
 */
export function serverName(record: Uint8Array): string | null {
  if (record.length < RECORD_HEADER_SIZE + HELLO_FIXED_SIZE || record[0] !== TLS_HANDSHAKE) {
    throw invalid("it is no TLS handshake");
  }
  if (record[RECORD_HEADER_SIZE] !== 1) throw invalid("it does not begin with a ClientHello");
  const size = record[6]! * 65536 + getU16BE(record, 7);
  if (size !== record.length - RECORD_HEADER_SIZE - 4) {
    throw invalid("its ClientHello does not fill its record");
  }
  const hello = new Parts(record, RECORD_HEADER_SIZE + HELLO_FIXED_SIZE, record.length);
  hello.part(1); // session id
  hello.part(2); // ciphers
  hello.part(1); // compression methods
  if (hello.rest === 0) return null;
  const extensions = hello.part(2);
  while (extensions.rest > 0) {
    const type = extensions.number(2);
    const extension = extensions.part(2);
    if (type !== SERVER_NAME) continue;
    const names = extension.part(2);
    if (names.number(1) !== 0) throw invalid("its server name is no host name");
    return names.part(2).text();
  }
  return null;
}

/** A fatal alert, in the clear, as the answer to a ClientHello. */
export function encodeAlert(description: number): Uint8Array {
  const FATAL = 2;
  return Uint8Array.of(21, 3, 3, 0, 2, FATAL, description);
}

/** Numbers, and parts with their length in front, one after the other. */
class Parts {
  readonly #bytes: Uint8Array;
  #at: number;
  readonly #end: number;

  constructor(bytes: Uint8Array, at: number, end: number) {
    this.#bytes = bytes;
    this.#at = at;
    this.#end = end;
  }

  get rest(): number {
    return this.#end - this.#at;
  }

  number(size: 1 | 2): number {
    if (this.rest < size) throw invalid("its ClientHello is cut short");
    const value = size === 1 ? this.#bytes[this.#at]! : getU16BE(this.#bytes, this.#at);
    this.#at += size;
    return value;
  }

  part(lengthSize: 1 | 2): Parts {
    const length = this.number(lengthSize);
    if (length > this.rest) throw invalid("its ClientHello is cut short");
    const from = this.#at;
    this.#at += length;
    return new Parts(this.#bytes, from, this.#at);
  }

  text(): string {
    return String.fromCharCode(...this.#bytes.subarray(this.#at, this.#end));
  }
}

function invalid(what: string): WireError {
  return new WireError("client-hello-invalid", `the TLS connection cannot be understood: ${what}`);
}

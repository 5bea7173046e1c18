// SPDX-License-Identifier: BSD-2-Clause
/**
 * Reads the captured files beside this one (README.md says what they are), with a parser of its own, so
 * that a test does not compare our decoder with itself.
 */

import { strict as expect } from "node:assert";
import { createHash } from "node:crypto";
import { existsSync, globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import type { Hashes } from "../../src/wire/payload.ts";

/** A decoded nv entry, as the .json files have it. Integers a number cannot hold are bigint. */
export interface Field {
  readonly name: string;
  readonly type: string;
  readonly value: unknown;
}

/** A decoded message, as the .json files have it. */
export interface DecodedMessage {
  readonly offset: number;
  readonly version: number;
  readonly nv_bytes: number;
  readonly fields: readonly Field[];
  readonly data_offset?: number;
  readonly data_bytes?: number;
  readonly data_sha256?: string;
}

/** One message of a captured stream. */
export interface Message {
  readonly version: number;
  readonly start: number; // index of the main header
  readonly nv: Uint8Array;
  readonly payload: Uint8Array;
}

export const nodeHashes: Hashes = {
  crc32: (bytes) => crc32(bytes),
  sha256: (bytes) => createHash("sha256").update(bytes).digest(),
};

/** @param path from this directory, as in "wire/01-handshake-virgin-keepalive/conn1.c2s.bin" */
export function golden(path: string): Uint8Array {
  return new Uint8Array(readFileSync(join(import.meta.dirname, path)));
}

export function goldenExists(path: string): boolean {
  return existsSync(join(import.meta.dirname, path));
}

/** Paths that match, sorted; there must be some, or the test that asks would test nothing. */
export function goldenPaths(pattern: string): string[] {
  const paths = globSync(pattern, { cwd: import.meta.dirname }).sort();
  expect.ok(paths.length > 0, `no file matches ${pattern}`);
  return paths;
}

/** Parsed, with integers beyond 2^53 as bigint. */
// biome-ignore lint/suspicious/noExplicitAny: the caller knows the file
export function goldenJson(path: string): any {
  const text = readFileSync(join(import.meta.dirname, path), "utf8");
  const exact = (_key: string, value: unknown, context: { readonly source: string }): unknown =>
    typeof value === "number" && !Number.isSafeInteger(value) ? BigInt(context.source) : value;
  // TypeScript does not know the reviver's third argument yet.
  return JSON.parse(text, exact as (key: string, value: unknown) => unknown);
}

/** Splits a stream of whole messages. */
export function messagesOf(stream: Uint8Array): Message[] {
  const messages: Message[] = [];
  let start = 0;
  while (start < stream.length) {
    const message = messageAt(stream, start);
    expect.ok(message !== null, "the capture ends within a message");
    messages.push(message);
    start += 5 + message.nv.length + message.payload.length;
  }
  return messages;
}

/** The message that begins at `start`, or null while it is not whole. */
export function messageAt(stream: Uint8Array, start: number): Message | null {
  const nvStart = start + 5;
  if (nvStart > stream.length) return null;
  const nvEnd = nvStart + view(stream).getUint32(start + 1, true);
  if (nvEnd > stream.length) return null;
  const nv = stream.subarray(nvStart, nvEnd);
  let size = 0;
  eachEntry(nv, (name, nameStart) => {
    if (name === "size") size = view(nv).getUint32(nameStart + 8, true);
  });
  if (nvEnd + size > stream.length) return null;
  const payload = stream.subarray(nvEnd, nvEnd + size);
  return { version: stream[start]!, start, nv, payload };
}

/** A copy of an nv block with zeroes where the original leaves whatever lay behind a name (BD-41). */
export function zeroNamePadding(nv: Uint8Array): Uint8Array {
  const copy = nv.slice();
  eachEntry(nv, (name, nameStart) => {
    const nameEnd = nameStart + name.length + 1;
    copy.fill(0, nameEnd, nameStart + 8 * Math.ceil((name.length + 1) / 8));
  });
  return copy;
}

/** The same for a stream of messages. */
export function zeroStreamPadding(stream: Uint8Array): Uint8Array {
  const copy = stream.slice();
  for (const { start, nv } of messagesOf(stream)) copy.set(zeroNamePadding(nv), start + 5);
  return copy;
}

function eachEntry(nv: Uint8Array, take: (name: string, nameStart: number) => void): void {
  let at = 0;
  while (at < nv.length && nv[at] !== 0) {
    const nameSize = nv[at + 1]!;
    const dataSize = view(nv).getUint32(at + 2, true);
    const name = Buffer.from(nv.subarray(at + 6, at + 6 + nameSize - 1)).toString("latin1");
    take(name, at + 6);
    at += 6 + 8 * Math.ceil(nameSize / 8) + 8 * Math.ceil(dataSize / 8);
  }
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The value of a field, or undefined. */
export function field(fields: readonly Field[], name: string): unknown {
  return fields.find((each) => each.name === name)?.value;
}

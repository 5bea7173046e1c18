// SPDX-License-Identifier: BSD-2-Clause
/**
 * Name–value lists: the header of every hastd message, and the on-disk metadata.
 *
 *   type u8 │ nameSize u8 │ dataSize u32 │ name, NUL, pad to 8 │ data, pad to 8
 *
 * Entries follow one another without count or terminator; a zero type byte, or the end, ends the list.
 * The top bit of the type says "host order" where it is set; both orders are little-endian here.
 * Source: FreeBSD sbin/hastd/nv.c, struct nvhdr and nv_validate(); wire protocol §2.
 *
 * This file is for the control path, where a message becomes a value. Requests and replies walk their
 * entries with nvEntryEnd() alone, and allocate nothing.
 */

import { assert } from "../base/assert.ts";
import { getI16, getI32, getU32, getU64Big, putU16, putU32, putU64Big } from "../base/bytes.ts";
import { WireError } from "./error.ts";

export const NV_INT8 = 1;
export const NV_UINT8 = 2;
export const NV_INT16 = 3;
export const NV_UINT16 = 4;
export const NV_INT32 = 5;
export const NV_UINT32 = 6;
export const NV_INT64 = 7;
export const NV_UINT64 = 8;
export const NV_INT8_ARRAY = 9;
export const NV_UINT8_ARRAY = 10;
export const NV_INT16_ARRAY = 11;
export const NV_UINT16_ARRAY = 12;
export const NV_INT32_ARRAY = 13;
export const NV_UINT32_ARRAY = 14;
export const NV_INT64_ARRAY = 15;
export const NV_UINT64_ARRAY = 16;
export const NV_STRING = 17;

/** Type, name size and data size: what precedes the name. */
export const NV_HEADER_SIZE = 6;

const HOST_ORDER = 0x80;
const NAME_SIZE_MAX = 255; // the NUL included

export interface NvEntry {
  readonly type: number; // without the byte-order flag
  readonly name: string;
  readonly data: Uint8Array; // a view, without padding
  readonly start: number; // index of the type byte
}

/** `size` rounded up to whole eights, for sizes below 2^31. */
export function up8(size: number): number {
  return (size + 7) & ~7;
}

/**
 * Checks the entry at bytes[at] as wire protocol §2.3 says, in its order; bytes[at] is not zero.
 *
 * @param end index where the list's bytes end, at most bytes.length
 * @returns index behind the entry and its padding
 * @throws WireError "nv-truncated", "nv-invalid"
 */
export function nvEntryEnd(bytes: Uint8Array, at: number, end: number): number {
  const left = end - at;
  if (left < 8) throw truncated(at, 8, left);
  const nameSize = bytes[at + 1]!;
  const dataStart = NV_HEADER_SIZE + up8(nameSize);
  if (left < dataStart) throw truncated(at, dataStart, left);

  const nameNul = at + NV_HEADER_SIZE + nameSize - 1;
  if (nameSize === 0 || bytes[nameNul] !== 0) throw invalid(at, "name does not end in NUL");
  for (let index = at + NV_HEADER_SIZE; index < nameNul; index++) {
    if (bytes[index] === 0) throw invalid(at, "name contains NUL");
  }

  const type = bytes[at]! & ~HOST_ORDER;
  if (type < NV_INT8 || type > NV_STRING) throw invalid(at, `type ${type} does not exist`);

  const dataSize = getU32(bytes, at + 2);
  if (dataSize === 0) throw invalid(at, "value has no bytes");
  // Compared before it is rounded: rounding 0xfffffff9 in 32 bits is how the original was fooled.
  if (dataSize > left - dataStart) throw truncated(at, dataStart + dataSize, left);
  const size = dataStart + up8(dataSize);
  if (size > left) throw truncated(at, size, left);

  if (type === NV_STRING) {
    const first = at + dataStart;
    const last = first + dataSize - 1;
    if (bytes[last] !== 0) throw invalid(at, "string does not end in NUL");
    for (let index = first; index < last; index++) {
      if (bytes[index] === 0) throw invalid(at, "string contains NUL");
    }
  } else if (type <= NV_UINT64) {
    if (dataSize !== elementSize(type)) {
      throw invalid(at, `type ${type} has ${elementSize(type)} bytes, not ${dataSize}`);
    }
  } else if (dataSize % elementSize(type - NV_UINT64) !== 0) {
    throw invalid(at, `type ${type} does not come to ${dataSize} bytes`);
  }
  return at + size;
}

/** Bytes of an integer of scalar type 1…8: types come in pairs, signed and unsigned. */
function elementSize(scalarType: number): number {
  return 1 << ((scalarType - 1) >> 1);
}

/** Whether the bytes from bytes[at] on are `wanted`. There are as many. */
export function nvBytesAre(bytes: Uint8Array, at: number, wanted: Uint8Array): boolean {
  for (let index = 0; index < wanted.length; index++) {
    if (bytes[at + index] !== wanted[index]) return false;
  }
  return true;
}

/** A name as it lies in an entry, NUL included. For constants. */
export function nvName(name: string): Uint8Array {
  return new TextEncoder().encode(`${name}\0`);
}

/**
 * How an entry of a scalar type begins, up to its name's NUL. For constants: an entry that begins so, and
 * is not cut off, passes all of nvEntryEnd()'s checks.
 */
export function nvScalarHead(type: number, name: string): Uint8Array {
  assert(type >= NV_INT8);
  assert(type <= NV_UINT64);
  const entry = new NvWriter().add(type, name, new Uint8Array(elementSize(type))).finish();
  return entry.subarray(0, NV_HEADER_SIZE + nvName(name).length);
}

function truncated(at: number, needed: number, left: number): WireError {
  return new WireError(
    "nv-truncated",
    `nv entry at byte ${at} needs ${needed} bytes; ${left} remain`,
  );
}

function invalid(at: number, reason: string): WireError {
  return new WireError("nv-invalid", `nv entry at byte ${at}: ${reason}`);
}

/**
 * A decoded list. Lookups take the first entry of that name, and give null where there is none or it is of
 * another type; what a missing key means is the message's affair (wire protocol §2.4).
 */
export class NvList {
  readonly entries: readonly NvEntry[];
  /** Bytes up to the end of the last entry. */
  readonly size: number;
  readonly #firstOf = new Map<string, NvEntry>();

  constructor(entries: readonly NvEntry[], size: number) {
    this.entries = entries;
    this.size = size;
    for (const entry of entries) {
      if (!this.#firstOf.has(entry.name)) this.#firstOf.set(entry.name, entry);
    }
  }

  /** Whatever its type and value. */
  exists(name: string): boolean {
    return this.#firstOf.has(name);
  }

  u8(name: string): number | null {
    return this.#data(name, NV_UINT8)?.[0] ?? null;
  }

  u32(name: string): number | null {
    const data = this.#data(name, NV_UINT32);
    return data === null ? null : getU32(data, 0);
  }

  u64(name: string): bigint | null {
    const data = this.#data(name, NV_UINT64);
    return data === null ? null : getU64Big(data, 0);
  }

  i16(name: string): number | null {
    const data = this.#data(name, NV_INT16);
    return data === null ? null : getI16(data, 0);
  }

  i32(name: string): number | null {
    const data = this.#data(name, NV_INT32);
    return data === null ? null : getI32(data, 0);
  }

  i64(name: string): bigint | null {
    const data = this.#data(name, NV_INT64);
    return data === null ? null : BigInt.asIntN(64, getU64Big(data, 0));
  }

  /** Read as UTF-8, without the NUL; bytes that are not UTF-8 become U+FFFD. */
  string(name: string): string | null {
    const data = this.#data(name, NV_STRING);
    if (data === null) return null;
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(data.subarray(0, -1));
  }

  /** A uint8 array; a view of the bytes decoded. */
  bytes(name: string): Uint8Array | null {
    return this.#data(name, NV_UINT8_ARRAY);
  }

  #data(name: string, type: number): Uint8Array | null {
    const entry = this.#firstOf.get(name);
    return entry === undefined || entry.type !== type ? null : entry.data;
  }
}

/**
 * Decodes a whole nv block. Entries keep views of `bytes`.
 *
 * @throws WireError "nv-truncated", "nv-invalid"
 */
export function decodeNv(bytes: Uint8Array): NvList {
  const entries: NvEntry[] = [];
  let at = 0;
  while (at < bytes.length && bytes[at] !== 0) {
    const end = nvEntryEnd(bytes, at, bytes.length);
    const nameStart = at + NV_HEADER_SIZE;
    const nameSize = bytes[at + 1]!;
    const dataStart = nameStart + up8(nameSize);
    entries.push({
      type: bytes[at]! & ~HOST_ORDER,
      name: latin1(bytes.subarray(nameStart, nameStart + nameSize - 1)),
      data: bytes.subarray(dataStart, dataStart + getU32(bytes, at + 2)),
      start: at,
    });
    at = end;
  }
  return new NvList(entries, at);
}

/** One character per byte, so that names which differ in bytes differ as strings. */
function latin1(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

/** Builds an nv block, entry by entry; padding is zero, integers must fit their type. */
export class NvWriter {
  readonly #pieces: Uint8Array[] = [];
  #size = 0;

  u8(name: string, value: number): this {
    assert(value === (value & 0xff));
    return this.add(NV_UINT8, name, Uint8Array.of(value));
  }

  i8(name: string, value: number): this {
    assert(value === (value << 24) >> 24);
    return this.add(NV_INT8, name, Uint8Array.of(value));
  }

  i16(name: string, value: number): this {
    assert(value === (value << 16) >> 16);
    const data = new Uint8Array(2);
    putU16(data, 0, value);
    return this.add(NV_INT16, name, data);
  }

  i32(name: string, value: number): this {
    assert(value === (value | 0));
    const data = new Uint8Array(4);
    putU32(data, 0, value);
    return this.add(NV_INT32, name, data);
  }

  u32(name: string, value: number): this {
    assert(value === value >>> 0);
    const data = new Uint8Array(4);
    putU32(data, 0, value);
    return this.add(NV_UINT32, name, data);
  }

  /** @param value a number only where it is a safe integer */
  u64(name: string, value: bigint | number): this {
    const data = new Uint8Array(8);
    putU64Big(data, 0, BigInt(value));
    return this.add(NV_UINT64, name, data);
  }

  i64(name: string, value: bigint | number): this {
    assert(BigInt(value) === BigInt.asIntN(64, BigInt(value)));
    const data = new Uint8Array(8);
    putU64Big(data, 0, BigInt.asUintN(64, BigInt(value)));
    return this.add(NV_INT64, name, data);
  }

  /** @param value without NUL */
  string(name: string, value: string): this {
    assert(!value.includes("\0"));
    return this.add(NV_STRING, name, nvName(value));
  }

  /** @param value at least one byte */
  bytes(name: string, value: Uint8Array): this {
    return this.add(NV_UINT8_ARRAY, name, value);
  }

  /** An entry of any type, its data already in little-endian bytes. */
  add(type: number, name: string, data: Uint8Array): this {
    const nameBytes = nvName(name);
    assert(nameBytes.length >= 2);
    assert(nameBytes.length <= NAME_SIZE_MAX);
    assert(data.length > 0);
    const dataStart = NV_HEADER_SIZE + up8(nameBytes.length);
    const entry = new Uint8Array(dataStart + up8(data.length));
    entry[0] = type;
    entry[1] = nameBytes.length;
    putU32(entry, 2, data.length);
    entry.set(nameBytes, NV_HEADER_SIZE);
    entry.set(data, dataStart);
    this.#pieces.push(entry);
    this.#size += entry.length;
    return this;
  }

  /** Bytes so far. */
  get size(): number {
    return this.#size;
  }

  finish(): Uint8Array {
    const bytes = new Uint8Array(this.#size);
    let at = 0;
    for (const piece of this.#pieces) {
      bytes.set(piece, at);
      at += piece.length;
    }
    return bytes;
  }
}

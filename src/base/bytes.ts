// SPDX-License-Identifier: BSD-2-Clause
/**
 * Integers in byte arrays: little-endian by default (HAST), big-endian where the name ends in BE (NBD).
 *
 * No DataView and no BigInt, so that the data path allocates nothing. Reading or writing past the end
 * of the array is the caller's mistake; these functions do not check.
 */

import { assert } from "./assert.ts";

const TWO_32 = 0x1_0000_0000;

export function getU16(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8);
}

export function getI16(bytes: Uint8Array, at: number): number {
  return (getU16(bytes, at) << 16) >> 16;
}

export function getU32(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0
  );
}

export function getI32(bytes: Uint8Array, at: number): number {
  return getU32(bytes, at) | 0;
}

/** @returns the value, or -1 where it exceeds 2^53 - 1 and a number could not hold it exactly */
export function getU64(bytes: Uint8Array, at: number): number {
  const hi = getU32(bytes, at + 4);
  return hi > 0x1f_ffff ? -1 : hi * TWO_32 + getU32(bytes, at);
}

export function putU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
}

export function putU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}

/** @param value an integer in [0, 2^53) */
export function putU64(bytes: Uint8Array, at: number, value: number): void {
  assert(Number.isSafeInteger(value));
  assert(value >= 0);
  putU32(bytes, at, value >>> 0);
  putU32(bytes, at + 4, (value / TWO_32) >>> 0);
}

/** The whole 64 bits as two halves, for identities that no arithmetic touches. */
export function putU64Halves(bytes: Uint8Array, at: number, hi: number, lo: number): void {
  putU32(bytes, at, lo);
  putU32(bytes, at + 4, hi);
}

export function getU16BE(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

export function getU32BE(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
  );
}

/** @returns the value, or -1 where it exceeds 2^53 - 1 and a number could not hold it exactly */
export function getU64BE(bytes: Uint8Array, at: number): number {
  const hi = getU32BE(bytes, at);
  return hi > 0x1f_ffff ? -1 : hi * TWO_32 + getU32BE(bytes, at + 4);
}

export function putU16BE(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function putU32BE(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** @param value an integer in [0, 2^53) */
export function putU64BE(bytes: Uint8Array, at: number, value: number): void {
  assert(Number.isSafeInteger(value));
  assert(value >= 0);
  putU32BE(bytes, at, (value / TWO_32) >>> 0);
  putU32BE(bytes, at + 4, value >>> 0);
}

/** The whole 64 bits as two halves, for identities that no arithmetic touches. */
export function putU64HalvesBE(bytes: Uint8Array, at: number, hi: number, lo: number): void {
  putU32BE(bytes, at, hi);
  putU32BE(bytes, at + 4, lo);
}

/** Control path only: a BigInt is an allocation. */
export function getU64Big(bytes: Uint8Array, at: number): bigint {
  return (BigInt(getU32(bytes, at + 4)) << 32n) | BigInt(getU32(bytes, at));
}

/** Control path only. @param value in [0, 2^64) */
export function putU64Big(bytes: Uint8Array, at: number, value: bigint): void {
  assert(value >= 0n);
  assert(value < 1n << 64n);
  putU64Halves(bytes, at, Number(value >> 32n), Number(value & 0xffff_ffffn));
}

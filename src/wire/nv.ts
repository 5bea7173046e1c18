// SPDX-License-Identifier: BSD-2-Clause
/** Stub: signatures are final. Control path: messages decoded to values. */

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
export const NV_STRING = 17;

export interface NvEntry {
  readonly type: number; // without the byte-order flag
  readonly name: string;
  readonly data: Uint8Array; // a view, without padding
  readonly start: number; // index of the type byte
}

/** Lookups take the first entry of that name; null = absent or of another type (wire protocol §2.4). */
export interface NvList {
  readonly entries: readonly NvEntry[];
  /** Bytes up to the end of the last entry. */
  readonly size: number;
  exists(name: string): boolean;
  u8(name: string): number | null;
  u32(name: string): number | null;
  u64(name: string): bigint | null;
  i16(name: string): number | null;
  i32(name: string): number | null;
  i64(name: string): bigint | null;
  string(name: string): string | null;
  bytes(name: string): Uint8Array | null;
}

/** @throws WireError */
export function decodeNv(_bytes: Uint8Array): NvList {
  throw new Error("stub");
}

/** Builds an nv list, entry by entry; padding is zero. */
export class NvWriter {
  u8(_name: string, _value: number): this {
    throw new Error("stub");
  }
  i8(_name: string, _value: number): this {
    throw new Error("stub");
  }
  u32(_name: string, _value: number): this {
    throw new Error("stub");
  }
  u64(_name: string, _value: bigint | number): this {
    throw new Error("stub");
  }
  i16(_name: string, _value: number): this {
    throw new Error("stub");
  }
  i32(_name: string, _value: number): this {
    throw new Error("stub");
  }
  i64(_name: string, _value: bigint | number): this {
    throw new Error("stub");
  }
  string(_name: string, _value: string): this {
    throw new Error("stub");
  }
  bytes(_name: string, _value: Uint8Array): this {
    throw new Error("stub");
  }
  /** The nv block. The writer is spent. */
  finish(): Uint8Array {
    throw new Error("stub");
  }
}

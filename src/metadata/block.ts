// SPDX-License-Identifier: BSD-2-Clause
/** Stub: signatures are final. */

/** Bytes of the metadata block, whatever the sector size. */
export const METADATA_SIZE = 4096;

export type PreviousRole = "init" | "primary" | "secondary";
export type CopyState = "new" | "uptodate" | "consistent" | "outdated" | "inconsistent";

export interface Metadata {
  readonly resource: string;
  readonly datasize: number; // bytes
  readonly extentsize: number; // bytes
  readonly keepdirty: number; // extents
  readonly localoff: number; // bytes
  readonly resuid: bigint; // 0n = never paired
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  readonly prevrole: PreviousRole; // informational; a word we do not know reads as "init"
  /** Null together with `sequence` on a block FreeBSD wrote. */
  readonly state: CopyState | null;
  readonly sequence: bigint | null;
}

export const METADATA_ERROR_CODES = [
  "ambiguous-layout",
  "bad-checksum",
  "bad-value",
  "does-not-fit",
  "foreign-resource",
  "missing-key",
  "not-metadata",
] as const;
export type MetadataErrorCode = (typeof METADATA_ERROR_CODES)[number];

export class MetadataError extends Error {
  override readonly name = "MetadataError";
  readonly code: MetadataErrorCode;
  constructor(code: MetadataErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** @returns METADATA_SIZE bytes */
export function encodeMetadata(_metadata: Metadata): Uint8Array {
  throw new Error("stub");
}
/**
 * @param block METADATA_SIZE bytes
 * @param resource the name the block must carry, or null for any
 * @throws MetadataError
 */
export function decodeMetadata(_block: Uint8Array, _resource: string | null): Metadata {
  throw new Error("stub");
}
/** Whether a block is HAST metadata of whatever resource, sound or damaged: what `create` must not overwrite. */
export function looksLikeMetadata(_block: Uint8Array): boolean {
  throw new Error("stub");
}

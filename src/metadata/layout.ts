// SPDX-License-Identifier: BSD-2-Clause
/** Stub: signatures are final. All in bytes unless said. */

import type { Metadata } from "./block.ts";

export const EXTENT_SIZE_DEFAULT: number = 2 * 1024 * 1024;
export const KEEPDIRTY_DEFAULT = 64;

export interface Media {
  readonly mediaSize: number;
  readonly sectorSize: number;
}

/** Where things lie on a local component. */
export interface Layout {
  /** "header": metadata, map, data. "trailer": data first, as it was before HAST; map and metadata at the end. */
  readonly kind: "header" | "trailer";
  readonly metadataOffset: number;
  readonly mapOffset: number;
  /** Bytes of map to read and write: whole sectors. Also `mapsize` on the wire. */
  readonly mapSize: number;
  readonly localoff: number;
  readonly datasize: number;
}

/** How many extents cover `datasize` (> 0) bytes. */
export function extentCount(_datasize: number, _extentsize: number): number {
  throw new Error("stub");
}
/** Bytes of a bitmap of `extents` bits, in whole 64-bit words. */
export function mapBytes(_extents: number): number {
  throw new Error("stub");
}
/** What FreeBSD's hastctl create makes of it. @throws MetadataError "does-not-fit" */
export function freebsdLayout(_media: Media & { readonly extentsize: number }): Layout {
  throw new Error("stub");
}
/** Our `create`. @throws MetadataError "does-not-fit", "bad-value" */
export function createLayout(
  _media: Media & {
    readonly extentsize: number;
    readonly kind: "file" | "block";
    /** Asked for with --datasize, or null for all there is. */
    readonly datasize: number | null;
  },
): Layout {
  throw new Error("stub");
}
/** `create --adopt`: `datasize` bytes that already hold data stay where they are. @throws MetadataError */
export function trailerLayout(
  _media: Media & { readonly extentsize: number; readonly datasize: number },
): Layout {
  throw new Error("stub");
}
/** Where a trailer's metadata block is, if there is one; null where the media is too small for one. */
export function trailerMetadataOffset(_mediaSize: number): number | null {
  throw new Error("stub");
}
/**
 * Finds and checks a component's metadata.
 *
 * @param blocks METADATA_SIZE bytes from offset 0, and from trailerMetadataOffset()
 * @throws MetadataError
 */
export function locate(
  _resource: string | null,
  _media: Media,
  _blocks: { readonly first: Uint8Array; readonly last: Uint8Array | null },
): { readonly metadata: Metadata; readonly layout: Layout } {
  throw new Error("stub");
}
/** The layout a block's metadata describes, checked against the media. @throws MetadataError "bad-value", "does-not-fit" */
export function layoutOf(_metadata: Metadata, _metadataOffset: number, _media: Media): Layout {
  throw new Error("stub");
}
/** Extent size and keepdirty, as create must check them. @throws MetadataError "bad-value" */
export function checkParameters(_parameters: {
  readonly extentsize: number;
  readonly keepdirty: number;
  readonly sectorSize: number;
}): void {
  throw new Error("stub");
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * Where metadata, activemap and data lie on a local component.
 *
 *   header   │ metadata 4096 │ map │ gap │ data … │
 *   trailer  │ data … │ gap │ map │ metadata 4096 │      whole 4096-byte blocks, at the end
 *
 * The header is FreeBSD's (there without gap). The trailer is ours, for data that was there before HAST:
 * it keeps its offset, 0. A trailer's metadata is the last whole 4096-byte block, so that it is found
 * knowing nothing but the size of the media.
 * Source: FreeBSD sbin/hastctl/hastctl.c, control_create(), activemap.c, activemap_calc_ondisk_size();
 * docs/protocol.md, Disk §4.
 */

import { assert } from "../base/assert.ts";
import {
  decodeMetadata,
  looksLikeMetadata,
  METADATA_SIZE,
  type Metadata,
  MetadataError,
} from "./block.ts";

export const EXTENT_SIZE_DEFAULT: number = 2 * 1024 * 1024; // bytes
export const KEEPDIRTY_DEFAULT = 64; // extents

const EXTENT_SIZE_MAX = 2 ** 30; // bytes; on the wire it is an int32
const EXTENT_COUNT_MAX = 2 ** 31; // a map of 256 MiB
const FILE_BLOCK_SIZE = 4096; // bytes; what a file's layout is rounded to, though its sector size is 512
const ALIGNMENTS: readonly number[] = [1024 * 1024, 64 * 1024, 4096];

export interface Media {
  readonly mediaSize: number; // bytes
  readonly sectorSize: number; // bytes; 512 for a file
}

export interface Layout {
  readonly kind: "header" | "trailer";
  readonly metadataOffset: number; // bytes, as are all of these
  readonly mapOffset: number;
  /** The part of the map's room that is read and written: whole sectors. Also `mapsize` on the wire. */
  readonly mapSize: number;
  readonly localoff: number;
  readonly datasize: number;
}

/** How many extents cover `datasize` (> 0) bytes. */
export function extentCount(datasize: number, extentsize: number): number {
  assert(datasize > 0);
  return Math.floor((datasize - 1) / extentsize) + 1;
}

/** Bytes of a bitmap of `extents` bits, in whole 64-bit words. */
export function mapBytes(extents: number): number {
  return 8 * Math.ceil(extents / 64);
}

function mapSizeOf(datasize: number, extentsize: number, sectorSize: number): number {
  return roundUp(mapBytes(extentCount(datasize, extentsize)), sectorSize);
}

function roundUp(size: number, unit: number): number {
  return Math.ceil(size / unit) * unit;
}

function roundDown(size: number, unit: number): number {
  return Math.floor(size / unit) * unit;
}

/**
 * What FreeBSD's `hastctl create` makes of a component, or of its `-m` size.
 *
 * @throws MetadataError "does-not-fit"
 */
export function freebsdLayout(media: Media & { readonly extentsize: number }): Layout {
  if (media.mediaSize <= METADATA_SIZE) throw tooSmall(media.mediaSize);
  const mapSize = mapSizeOf(media.mediaSize - METADATA_SIZE, media.extentsize, media.sectorSize);
  const localoff = METADATA_SIZE + mapSize;
  if (media.mediaSize <= localoff) throw tooSmall(media.mediaSize);
  return header(localoff, mapSize, media.mediaSize - localoff);
}

function header(localoff: number, mapSize: number, datasize: number): Layout {
  return {
    kind: "header",
    metadataOffset: 0,
    mapOffset: METADATA_SIZE,
    mapSize,
    localoff,
    datasize,
  };
}

/**
 * Our `create`: data begins at a multiple of 1 MiB, or, where that leaves too little, of 64 KiB, 4 KiB
 * or a sector. Peers never see where, only how much.
 *
 * @param media.datasize as asked for with --datasize; null for all that is left, in whole blocks
 * @throws MetadataError "does-not-fit", "bad-value"
 */
export function createLayout(
  media: Media & {
    readonly extentsize: number;
    readonly kind: "file" | "block";
    readonly datasize: number | null;
  },
): Layout {
  const { mediaSize, sectorSize, extentsize } = media;
  checkExtentSize(extentsize, sectorSize);
  if (media.datasize !== null) checkDataSize(media.datasize, sectorSize);
  const block = media.kind === "file" ? Math.max(FILE_BLOCK_SIZE, sectorSize) : sectorSize;
  for (const alignment of [...ALIGNMENTS, sectorSize]) {
    if (alignment < sectorSize) continue;
    const mapUnit = Math.min(block, alignment);
    const mapped = media.datasize ?? mediaSize - METADATA_SIZE;
    if (mapped <= 0) break;
    const localoff = roundUp(METADATA_SIZE + mapSizeOf(mapped, extentsize, mapUnit), alignment);
    const datasize = media.datasize ?? roundDown(mediaSize - localoff, mapUnit);
    if (datasize <= 0 || localoff + datasize > mediaSize) continue;
    checkExtentCount(datasize, extentsize);
    return header(localoff, mapSizeOf(datasize, extentsize, sectorSize), datasize);
  }
  if (media.datasize === null) throw tooSmall(mediaSize);
  throw new MetadataError(
    "does-not-fit",
    `${media.datasize} bytes of data, metadata and activemap do not fit ${mediaSize} bytes`,
  );
}

/**
 * `create --adopt`: the first `datasize` bytes stay what they are.
 *
 * @throws MetadataError "does-not-fit" where the media has not been enlarged enough; "bad-value"
 */
export function trailerLayout(
  media: Media & { readonly extentsize: number; readonly datasize: number },
): Layout {
  checkExtentSize(media.extentsize, media.sectorSize);
  checkDataSize(media.datasize, media.sectorSize);
  checkExtentCount(media.datasize, media.extentsize);
  const metadataOffset = trailerMetadataOffset(media.mediaSize);
  if (metadataOffset === null) throw tooSmall(media.mediaSize);
  const mapSize = mapSizeOf(media.datasize, media.extentsize, media.sectorSize);
  const mapOffset = metadataOffset - roundUp(mapSize, METADATA_SIZE);
  if (media.datasize > mapOffset) {
    throw new MetadataError(
      "does-not-fit",
      `${media.datasize} bytes of data leave no room for metadata and activemap: ` +
        `${trailerSize(media)} more bytes are needed, and there are ${media.mediaSize - media.datasize}`,
    );
  }
  const { datasize } = media;
  return { kind: "trailer", metadataOffset, mapOffset, mapSize, localoff: 0, datasize };
}

/** Bytes by which media that is all data, in whole 4096-byte blocks, must grow to be adopted. */
export function trailerSize(media: {
  readonly datasize: number;
  readonly extentsize: number;
}): number {
  return METADATA_SIZE + mapSizeOf(media.datasize, media.extentsize, METADATA_SIZE);
}

/** Where a trailer's metadata block would be: the last whole block; null where there is no room for one. */
export function trailerMetadataOffset(mediaSize: number): number | null {
  const offset = roundDown(mediaSize, METADATA_SIZE) - METADATA_SIZE;
  return offset >= METADATA_SIZE ? offset : null;
}

/**
 * Finds and checks a component's metadata.
 *
 * What lies in the other place is data that the users of the resource write, so they can make it look like
 * metadata, too. Where both could be meant, none is chosen.
 *
 * @param resource the name it must carry, or null for any
 * @param blocks METADATA_SIZE bytes each: at offset 0, and at trailerMetadataOffset() unless that is null
 * @throws MetadataError
 */
export function locate(
  resource: string | null,
  media: Media,
  blocks: { readonly first: Uint8Array; readonly last: Uint8Array | null },
): { readonly metadata: Metadata; readonly layout: Layout } {
  const last = trailerMetadataOffset(media.mediaSize);
  if (blocks.last !== null && last !== null && claims(blocks.last, resource)) {
    if (claims(blocks.first, resource)) {
      throw new MetadataError(
        "ambiguous-layout",
        `there is metadata of this resource at byte 0 and at byte ${last}; only one can be meant. ` +
          "Overwrite the stale one with zeroes, 4096 bytes, once you know which it is",
      );
    }
    const metadata = decodeMetadata(blocks.last, resource);
    return { metadata, layout: layoutOf(metadata, last, media) };
  }
  const metadata = decodeMetadata(blocks.first, resource);
  return { metadata, layout: layoutOf(metadata, 0, media) };
}

/** Whether a block says it is this resource's metadata. A damaged one says so, too. */
function claims(block: Uint8Array, resource: string | null): boolean {
  if (!looksLikeMetadata(block)) return false;
  try {
    decodeMetadata(block, resource);
    return true;
  } catch (error) {
    if (error instanceof MetadataError) return error.code !== "foreign-resource";
    throw error;
  }
}

/**
 * The layout that metadata found at `metadataOffset` describes, checked against the media. FreeBSD does not
 * check, and lets an activemap grow into the data (behaviour BD-11, BD-12).
 *
 * @throws MetadataError "bad-value", "does-not-fit"
 */
export function layoutOf(metadata: Metadata, metadataOffset: number, media: Media): Layout {
  const { datasize, extentsize, localoff } = metadata;
  checkParameters({ extentsize, keepdirty: metadata.keepdirty, sectorSize: media.sectorSize });
  checkDataSize(datasize, media.sectorSize);
  checkExtentCount(datasize, extentsize);

  if (metadataOffset !== 0) {
    if (localoff !== 0) {
      throw new MetadataError(
        "bad-value",
        `metadata behind the data says data begins at ${localoff}`,
      );
    }
    assert(metadataOffset === trailerMetadataOffset(media.mediaSize));
    return trailerLayout({ ...media, extentsize, datasize });
  }

  const mapSize = mapSizeOf(datasize, extentsize, media.sectorSize);
  if (localoff % media.sectorSize !== 0) {
    throw new MetadataError(
      "does-not-fit",
      `data begins at byte ${localoff}, within a sector: this media's have ${media.sectorSize} bytes`,
    );
  }
  if (METADATA_SIZE + mapSize > localoff) {
    throw new MetadataError(
      "does-not-fit",
      `the activemap needs ${mapSize} bytes from byte ${METADATA_SIZE} on, but data begins at ${localoff}`,
    );
  }
  if (localoff + datasize > media.mediaSize) {
    throw new MetadataError(
      "does-not-fit",
      `data ends at byte ${localoff + datasize}, but the media has ${media.mediaSize}: was it shrunk?`,
    );
  }
  return header(localoff, mapSize, datasize);
}

/**
 * Extent size and keepdirty, as `create` is given them or metadata holds them.
 *
 * @throws MetadataError "bad-value"
 */
export function checkParameters(parameters: {
  readonly extentsize: number;
  readonly keepdirty: number;
  readonly sectorSize: number;
}): void {
  checkExtentSize(parameters.extentsize, parameters.sectorSize);
  const { keepdirty } = parameters;
  if (!Number.isInteger(keepdirty) || keepdirty < 2 || keepdirty > 0xffff_ffff) {
    throw new MetadataError(
      "bad-value",
      `keepdirty is ${keepdirty}; at least 2 extents are needed`,
    );
  }
}

function checkExtentSize(extentsize: number, sectorSize: number): void {
  if (!isPowerOfTwo(sectorSize) || sectorSize > METADATA_SIZE) {
    throw new MetadataError(
      "bad-value",
      `sector size is ${sectorSize}; a power of two up to ${METADATA_SIZE} is needed`,
    );
  }
  if (!isPowerOfTwo(extentsize) || extentsize < sectorSize || extentsize > EXTENT_SIZE_MAX) {
    throw new MetadataError(
      "bad-value",
      `extent size is ${extentsize}; a power of two from ${sectorSize} (a sector) ` +
        `to ${EXTENT_SIZE_MAX} is needed`,
    );
  }
}

function checkDataSize(datasize: number, sectorSize: number): void {
  if (!Number.isSafeInteger(datasize) || datasize <= 0 || datasize % sectorSize !== 0) {
    throw new MetadataError(
      "bad-value",
      `data size is ${datasize}; whole sectors of ${sectorSize} bytes are needed`,
    );
  }
}

function checkExtentCount(datasize: number, extentsize: number): void {
  const extents = extentCount(datasize, extentsize);
  if (extents > EXTENT_COUNT_MAX) {
    throw new MetadataError(
      "bad-value",
      `${datasize} bytes are ${extents} extents; choose a larger extent size than ${extentsize}`,
    );
  }
}

function isPowerOfTwo(size: number): boolean {
  return Number.isSafeInteger(size) && size > 0 && Number.isInteger(Math.log2(size));
}

function tooSmall(mediaSize: number): MetadataError {
  return new MetadataError(
    "does-not-fit",
    `${mediaSize} bytes are too few for metadata, activemap and data`,
  );
}

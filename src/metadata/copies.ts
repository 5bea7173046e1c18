// SPDX-License-Identifier: BSD-2-Clause
/**
 * The metadata block and its second copy, so that no write that is cut short leaves a component without.
 *
 *   gap      │ block 4096 │ map │ … copy 4096 │ data …        localoff a multiple of 64 KiB, with room
 *   tail     │ block 2048 │ copy 2048 │                       any other: FreeBSD's header, the trailer
 *
 * Both hold the same list. The copy is written first and flushed, then the block: whichever is being written,
 * the other one is whole. FreeBSD does not know of the copy, and rewrites the whole block without our keys:
 * such a block is newer than any copy (safety case S-14), and blanks one in its tail.
 * Source: behaviour BD-17; docs/protocol.md, Disk §2.1.
 */

import { assert } from "../base/assert.ts";
import {
  COPY_SIZE_MAX,
  decodeMetadata,
  encodeMetadata,
  looksLikeOurs,
  METADATA_SIZE,
  type Metadata,
  MetadataError,
} from "./block.ts";
import {
  type Layout,
  layoutOf,
  locate,
  type Media,
  mapBytes,
  trailerMetadataOffset,
} from "./layout.ts";

const KIB = 1024;
const GAP_UNIT: number = 64 * KIB;
/** Where our `create` may have put data, at most: behind a map of 256 MiB. */
const LOCALOFF_MAX: number = 257 * KIB * KIB;

/** A write that stores one of the two copies, or both at once. */
export interface CopyWrite {
  /** Bytes into the media. */
  readonly offset: number;
  readonly bytes: Uint8Array;
}

interface Located {
  readonly metadata: Metadata;
  readonly layout: Layout;
}

export interface Found extends Located {
  /** What happened to the block or its copy, for the log; null where nothing is wrong. */
  readonly damage: string | null;
  /** Both must be written again before anything relies on them: they do not agree. */
  readonly rewrite: boolean;
}

/** Where the second copy lies, bytes into the media. */
export function copyOffset(layout: Layout, extents: number): number {
  const { kind, localoff, metadataOffset } = layout;
  // Whatever the sectors of the media it may be moved to: the map takes whole blocks.
  const mapEnd = METADATA_SIZE + METADATA_SIZE * Math.ceil(mapBytes(extents) / METADATA_SIZE);
  const gap = kind === "header" && localoff % GAP_UNIT === 0 && localoff <= LOCALOFF_MAX;
  if (gap && mapEnd <= localoff - METADATA_SIZE) return localoff - METADATA_SIZE;
  return metadataOffset + COPY_SIZE_MAX;
}

/**
 * The writes that store `metadata`, in order, each to be flushed before the next.
 *
 * @param sectorSize bytes; where one sector holds both copies in the tail, they are written as one
 */
export function copyWrites(metadata: Metadata, layout: Layout, sectorSize: number): CopyWrite[] {
  assert(metadata.state !== null);
  const list = encodeMetadata(metadata);
  const block = layout.metadataOffset;
  const copy = copyOffset(layout, extentsOf(metadata));
  if (copy - block !== COPY_SIZE_MAX) {
    return [
      { offset: copy, bytes: list },
      { offset: block, bytes: list },
    ];
  }
  const half = list.subarray(0, COPY_SIZE_MAX);
  if (sectorSize <= COPY_SIZE_MAX) {
    return [
      { offset: copy, bytes: half },
      { offset: block, bytes: half },
    ];
  }
  list.set(half, COPY_SIZE_MAX);
  return [{ offset: block, bytes: list }];
}

/**
 * Finds a component's metadata, and decides between the block and its copy.
 *
 * @param resource the name it must carry, or null for any
 * @param read `length` bytes at `offset` of the media
 * @throws MetadataError, and what `read` throws
 */
export async function findMetadata(
  resource: string | null,
  media: Media,
  read: (offset: number, length: number) => Promise<Uint8Array>,
): Promise<Found> {
  if (media.mediaSize < METADATA_SIZE) {
    throw new MetadataError(
      "does-not-fit",
      `it has ${media.mediaSize} bytes; metadata alone takes ${METADATA_SIZE}. Was it cut short?`,
    );
  }
  const first = await read(0, METADATA_SIZE);
  const lastOffset = trailerMetadataOffset(media.mediaSize);
  const last = lastOffset === null ? null : await read(lastOffset, METADATA_SIZE);
  let found: Located;
  try {
    found = locate(resource, media, { first, last });
  } catch (error) {
    if (!(error instanceof MetadataError) || !isDamage(error)) throw error;
    let copy: Located | null = null;
    if (looksLikeOurs(first)) {
      copy = await searchCopy({ resource, media, block: first, metadataOffset: 0, read });
    } else if (last !== null && looksLikeOurs(last)) {
      copy = await searchCopy({ resource, media, block: last, metadataOffset: lastOffset!, read });
    }
    if (copy === null) throw error;
    return {
      ...copy,
      damage: `the metadata block is damaged (${error.message}), and its copy is used`,
      rewrite: true,
    };
  }
  const { metadata, layout } = found;
  if (metadata.sequence === null) return { ...found, damage: null, rewrite: false };
  const at = copyOffset(layout, extentsOf(metadata));
  const block = layout.metadataOffset === 0 ? first : last!;
  const search = { resource, media, block, metadataOffset: layout.metadataOffset, read };
  const copy = await readCopy(at, search);
  // A build before there were copies wrote it last.
  if (copy === null) return { ...found, damage: null, rewrite: true };
  const ahead = copy.metadata.sequence! - metadata.sequence;
  if (ahead === 0n) return { ...found, damage: null, rewrite: false };
  if (ahead === 1n) {
    const damage = "the last write of the metadata was cut short between its two copies";
    return { ...copy, damage, rewrite: true };
  }
  // No write of ours leaves more than one number between them: the block was written without us.
  return { ...found, damage: null, rewrite: true };
}

/** Whether an error means that bytes were lost, rather than that they never were what is asked for. */
function isDamage(error: MetadataError): boolean {
  return (
    error.code === "bad-checksum" || error.code === "not-metadata" || error.code === "missing-key"
  );
}

interface Search {
  readonly resource: string | null;
  readonly media: Media;
  readonly block: Uint8Array;
  readonly metadataOffset: number;
  readonly read: (offset: number, length: number) => Promise<Uint8Array>;
}

/** Without the block nothing says where data begins, but a copy knows where it belongs. */
async function searchCopy(search: Search): Promise<Located | null> {
  const inTail = await readCopy(search.metadataOffset + COPY_SIZE_MAX, search);
  if (inTail !== null || search.metadataOffset !== 0) return inTail;
  // Upwards: what lies behind the true one is data, in which anything may be written.
  for (let localoff = GAP_UNIT; localoff <= LOCALOFF_MAX && localoff < search.media.mediaSize; ) {
    const copy = await readCopy(localoff - METADATA_SIZE, search);
    if (copy !== null) return copy;
    localoff += localoff < KIB * KIB ? GAP_UNIT : KIB * KIB;
  }
  return null;
}

/** What lies at `at`, if it is a copy that belongs there. */
async function readCopy(
  at: number,
  { resource, media, block, metadataOffset, read }: Search,
): Promise<Located | null> {
  let copy: Uint8Array;
  if (at === metadataOffset + COPY_SIZE_MAX) {
    copy = new Uint8Array(METADATA_SIZE);
    copy.set(block.subarray(COPY_SIZE_MAX));
  } else {
    copy = await read(at, METADATA_SIZE);
  }
  try {
    const metadata = decodeMetadata(copy, resource);
    if (metadata.sequence === null) return null;
    const layout = layoutOf(metadata, metadataOffset, media);
    return copyOffset(layout, extentsOf(metadata)) === at ? { metadata, layout } : null;
  } catch (error) {
    if (error instanceof MetadataError) return null;
    throw error;
  }
}

function extentsOf({ datasize, extentsize }: Metadata): number {
  return Math.ceil(datasize / extentsize);
}

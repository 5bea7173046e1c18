// SPDX-License-Identifier: BSD-2-Clause
/**
 * The metadata block: 4096 bytes, one nv list, zeroes up to the end.
 *
 *   resource, datasize u64, extentsize u32, keepdirty u32, offset u64,
 *   resuid u64, localcnt u64, remotecnt u64, prevrole                     FreeBSD's nine
 *   state, sequence u64, crc u32                                          ours; FreeBSD drops them
 *   synced, alone u64                                                     ours, where known
 *   forced, forcedat u64, unflushed u8, term u64                          ours, before crc, where true
 *   features                                                              ours, see {@link FEATURES}
 *
 * `crc` is the CRC-32 of all bytes before its own entry. With resource names of up to 127 characters the
 * list fits the first 512 bytes (up to 39 with every mark), so that a sector is written whole or not at
 * all; longer ones rely on the second copy (copies.ts).
 * Source: FreeBSD sbin/hastd/metadata.c, metadata_read() and metadata_write(); docs/protocol.md, Disk §2.
 */

import { assert, unreachable } from "../base/assert.ts";
import { crc32 } from "../base/crc32.ts";
import { WireError } from "../wire/error.ts";
import { type SyncedWord, syncedOf } from "../wire/handshake.ts";
import { decodeNv, NV_UINT32, type NvList, NvWriter } from "../wire/nv.ts";

/** Bytes of the metadata block, whatever the sector size. */
export const METADATA_SIZE = 4096;
/** Bytes at the front of the block that the list never exceeds; what follows is free for a second copy. */
export const COPY_SIZE_MAX = 2048;

export type PreviousRole = "init" | "primary" | "secondary";

/**
 * The words that "features" may hold, separated by spaces: what one must know of to use a copy. A build that
 * meets another word refuses the copy; any other key that it does not know it drops when it next writes. None
 * is defined yet. So a change of the format that an older build would misread gets a word, and no other does.
 */
const FEATURES: readonly string[] = [];

/** What a node's copy of the data is worth. */
export type CopyState = "new" | "uptodate" | "consistent" | "outdated" | "inconsistent";

/**
 * What is on record about this copy and its peer's, and absent where nothing is. Nothing is, either,
 * once a FreeBSD primary has been connected: it forgets which extents differ (behaviour BD-1, BD-9).
 *
 * "written": they have been in step, so whatever was ever written is equal, or marked in one of the
 * two maps. "filling": the same, and every extent was put in line to be copied, and some still are.
 * "all": a full copy has ended since, so never-written areas are equal, too.
 */
export type Synced = SyncedWord;

export interface Metadata {
  readonly resource: string;
  readonly datasize: number; // bytes
  readonly extentsize: number; // bytes
  readonly keepdirty: number; // extents
  readonly localoff: number; // bytes into the component, of the first byte of data
  readonly resuid: bigint; // 0n = never paired
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  /** Informational. A word we do not know reads as "init". */
  readonly prevrole: PreviousRole;
  /** Null, together with `sequence`, on a block that FreeBSD wrote. */
  readonly state: CopyState | null;
  /** Grows with every block we write. */
  readonly sequence: bigint | null;
  readonly synced: Synced | null;
  /** When this copy was first written without its peer, in ms since the Unix epoch; null = in step since. */
  readonly aloneSince: number | null;
  /** An operator overruled the rules of promotion; until a synchronization has ended since. */
  readonly forced?: Forced | undefined;
  /** Written with `metaflush off`, and not closed in good order since: no map can be relied upon (S-21). */
  readonly unflushed?: true | undefined;
  /** The highest that an arbiter has granted, to this node or to a primary that it has accepted; > 0. */
  readonly term?: bigint | undefined;
}

/** `hastctl role --force primary`: what the copy was worth then, and when. */
export interface Forced {
  readonly state: CopyState;
  /** Seconds since 1970. */
  readonly at: number;
}

/** What the copy says it is worth. Of one that FreeBSD wrote last, its counters are all we know. */
export function stateOf(metadata: Metadata): CopyState {
  return metadata.state ?? (metadata.resuid === 0n ? "new" : "consistent");
}

/** What a copy says of itself, for hastd. */
export interface CopyWorth {
  readonly state: CopyState;
  /** An operator made it primary against the rules, and no synchronization has ended since. */
  readonly forced: Forced | null;
  /** The highest that an arbiter is known to have granted; left out where there was none. */
  readonly term?: bigint;
}

export function copyWorth(metadata: Metadata): CopyWorth {
  const { forced, term } = metadata;
  const state = stateOf(metadata);
  return { state, forced: forced ?? null, ...(term === undefined ? {} : { term }) };
}

/** Stable; docs/errors.md has a row for each. */
export const METADATA_ERROR_CODES = [
  "ambiguous-layout",
  "bad-checksum",
  "bad-value",
  "does-not-fit",
  "foreign-resource",
  "missing-key",
  "newer-version",
  "not-metadata",
] as const;

export type MetadataErrorCode = (typeof METADATA_ERROR_CODES)[number];

/** The component does not hold metadata this resource can be run on. */
export class MetadataError extends Error {
  override readonly name = "MetadataError";
  readonly code: MetadataErrorCode;
  constructor(code: MetadataErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** What to do about unusable metadata; a sentence without its full stop, since it may end in a command. */
export function metadataAdvice(code: MetadataErrorCode, resource: string): string {
  switch (code) {
    case "not-metadata":
      return `To make it a component (what it holds is lost): hastctl create ${resource}`;
    case "foreign-resource":
      return 'Correct "local" in hast.conf, or the name of the resource';
    case "does-not-fit":
      return "Give it back the size it had, or correct the path in hast.conf";
    case "ambiguous-layout":
    case "bad-checksum":
    case "bad-value":
    case "missing-key":
      return `If the other node has the data, make this copy anew and let it be filled from there: hastctl create --force ${resource}`;
    case "newer-version":
      return "Install a hast at least as new as the one that used this disk last, on this node first";
    default:
      return unreachable(code);
  }
}

/** An unusable component's path, what is wrong with it, and what to do. */
export function explainMetadata(error: MetadataError, path: string, resource: string): string {
  return `${path}: ${error.message}. ${metadataAdvice(error.code, resource)}`;
}

/** @returns METADATA_SIZE bytes; without our own keys where `state` is null, as FreeBSD writes them */
export function encodeMetadata(metadata: Metadata): Uint8Array {
  assert(metadata.resource !== "");
  assert((metadata.state === null) === (metadata.sequence === null));
  const nv = new NvWriter()
    .string("resource", metadata.resource)
    .u64("datasize", metadata.datasize)
    .u32("extentsize", metadata.extentsize)
    .u32("keepdirty", metadata.keepdirty)
    .u64("offset", metadata.localoff)
    .u64("resuid", metadata.resuid)
    .u64("localcnt", metadata.localcnt)
    .u64("remotecnt", metadata.remotecnt)
    .string("prevrole", metadata.prevrole);
  if (metadata.state !== null && metadata.sequence !== null) {
    const { forced, unflushed, term } = metadata;
    nv.string("state", metadata.state).u64("sequence", metadata.sequence);
    if (metadata.synced !== null) nv.string("synced", metadata.synced);
    if (metadata.aloneSince !== null) nv.u64("alone", metadata.aloneSince);
    if (forced !== undefined) nv.string("forced", forced.state).u64("forcedat", forced.at);
    if (unflushed === true) nv.u8("unflushed", 1);
    if (term !== undefined) nv.u64("term", term);
    nv.u32("crc", crc32(nv.finish()));
  }
  assert(nv.size < COPY_SIZE_MAX);
  const block = new Uint8Array(METADATA_SIZE);
  block.set(nv.finish());
  return block;
}

/**
 * @param block METADATA_SIZE bytes
 * @param resource the name the block must carry, or null for any
 * @throws MetadataError
 */
export function decodeMetadata(block: Uint8Array, resource: string | null): Metadata {
  assert(block.length === METADATA_SIZE);
  const list = decodeBlock(block);

  const owner = list.string("resource");
  if (owner === null) throw missing("resource");
  if (resource !== null && owner !== resource) {
    throw new MetadataError(
      "foreign-resource",
      `the metadata belongs to resource ${JSON.stringify(owner)}, not ${JSON.stringify(resource)}`,
    );
  }
  checkFeatures(list);
  const prevrole = list.string("prevrole");
  if (prevrole === null) throw missing("prevrole");
  const state = list.string("state");
  const sequence = list.u64("sequence");
  if (state !== null && !isCopyState(state)) throw unknownWord("state", state);
  if ((state === null) !== (sequence === null))
    throw missing(state === null ? "state" : "sequence");
  if (state !== null && list.u32("crc") === null) throw missing("crc");

  return {
    resource: owner,
    datasize: size64(list, "datasize"),
    extentsize: list.u32("extentsize") ?? raise(missing("extentsize")),
    keepdirty: list.u32("keepdirty") ?? raise(missing("keepdirty")),
    localoff: size64(list, "offset"),
    resuid: list.u64("resuid") ?? raise(missing("resuid")),
    localcnt: list.u64("localcnt") ?? raise(missing("localcnt")),
    remotecnt: list.u64("remotecnt") ?? raise(missing("remotecnt")),
    prevrole: prevrole === "primary" || prevrole === "secondary" ? prevrole : "init",
    state,
    sequence,
    synced: state === null ? null : syncedOf(list),
    aloneSince: state === null || !list.exists("alone") ? null : size64(list, "alone"),
    ...marksOf(list),
  };
}

/** @throws MetadataError "newer-version" for a word that is not among {@link FEATURES} */
function checkFeatures(list: NvList): void {
  if (!list.exists("features")) return;
  for (const word of list.string("features")?.split(" ") ?? [""]) {
    if (!FEATURES.includes(word)) throw unknownWord("features", word);
  }
}

function marksOf(list: NvList): Pick<Metadata, "forced" | "unflushed" | "term"> {
  // Without ours before them they are not ours either.
  const state = list.string("state") === null ? null : list.string("forced");
  if (state !== null && !isCopyState(state)) throw unknownWord("forced", state);
  const term = list.u64("term");
  return {
    ...(state === null ? {} : { forced: { state, at: size64(list, "forcedat") } }),
    ...(list.u8("unflushed") === 1 ? { unflushed: true } : {}),
    ...(term === null || term === 0n ? {} : { term }),
  };
}

/** The block's nv list, its checksum verified if it has one. */
function decodeBlock(block: Uint8Array): NvList {
  let list: NvList;
  try {
    list = decodeNv(block);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    throw new MetadataError(
      "not-metadata",
      `this is not HAST metadata, or it is damaged: ${error.message}`,
      {
        cause: error,
      },
    );
  }
  if (list.entries.length === 0) {
    throw new MetadataError(
      "not-metadata",
      "there is no HAST metadata: the block begins with a zero",
    );
  }
  const crc = list.entries.find((entry) => entry.name === "crc" && entry.type === NV_UINT32);
  const stored = list.u32("crc");
  if (crc !== undefined && stored !== null) {
    const actual = crc32(block.subarray(0, crc.start));
    if (actual !== stored) {
      throw new MetadataError(
        "bad-checksum",
        `the metadata is damaged: bytes 0 to ${crc.start - 1} have CRC-32 ${hex(actual)}, not ${hex(stored)}`,
      );
    }
  }
  return list;
}

/** Whether a block is HAST metadata of whatever resource, sound or damaged: what `create` must not overwrite. */
export function looksLikeMetadata(block: Uint8Array): boolean {
  // Every writer puts the name first, so that much of a damaged block is enough.
  const head = new NvWriter().string("resource", "x").finish();
  if ((block[0]! & 0x7f) !== head[0] || block[1] !== head[1]) return false;
  for (let index = 6; index < 6 + "resource\0".length; index++) {
    if (block[index] !== head[index]) return false;
  }
  return true;
}

/**
 * Whether a block that cannot be read was ours before it was damaged. One that FreeBSD wrote may be newer
 * than any copy of ours, so nothing stands in for it (S-14).
 */
export function looksLikeOurs(block: Uint8Array): boolean {
  const text = new TextDecoder("latin1").decode(block.subarray(0, COPY_SIZE_MAX));
  return looksLikeMetadata(block) && text.includes("sequence\0");
}

function isCopyState(word: string): word is CopyState {
  return (
    word === "new" ||
    word === "uptodate" ||
    word === "consistent" ||
    word === "outdated" ||
    word === "inconsistent"
  );
}

/** A uint64 which a number must hold exactly. */
function size64(list: NvList, name: string): number {
  const value = list.u64(name);
  if (value === null) throw missing(name);
  if (value > Number.MAX_SAFE_INTEGER) {
    throw new MetadataError("bad-value", `metadata key "${name}" is ${value}: more than 2^53 - 1`);
  }
  return Number(value);
}

function unknownWord(name: string, word: string): MetadataError {
  return new MetadataError(
    "newer-version",
    `a newer version of hast has written this metadata: its key "${name}" says ${JSON.stringify(word)}, which this one does not know`,
  );
}

function missing(name: string): MetadataError {
  return new MetadataError(
    "missing-key",
    `the metadata is incomplete: key "${name}" is missing, or of another type`,
  );
}

function raise(error: Error): never {
  throw error;
}

function hex(value: number): string {
  return value.toString(16).padStart(8, "0");
}

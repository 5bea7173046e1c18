// SPDX-License-Identifier: BSD-2-Clause
/**
 * The handshake: two messages of the primary, on two connections, and two answers, both on the first.
 *
 *   A  P1  resource, version [, ext]                                primary → secondary's daemon
 *   A  S1  version, token [, ext]      or  errmsg [, wait]
 *   B  P2  resource, token [, virgin], resuid, localcnt, remotecnt [, remarks] [, life] [, whole]
 *   A  S2  datasize, extentsize, localcnt, remotecnt [, virgin], syncsrc, mapsize [, synced] [, outdated]
 *          [, payload keys, map]       or  …, remotecnt, errmsg [, resuid, remarks]
 *
 * `ext` is ours: a set of extensions (uint64) that P1 offers and S1 accepts; FreeBSD ignores it. So are
 * the remarks, which nodes send that have agreed upon STATE: dirty u64 [, synced] [, alone u64] [, state]; and the
 * life, with those that have agreed upon KEPT: fresh u8, early u8; and, upon WHOLE: whole u8 = 1,
 * outdated u8 = 1, where they are so.
 * Decoders take an nv block and give values; encoders give whole messages, main header included.
 * Source: FreeBSD sbin/hastd/hastd.c, listen_accept(), primary.c, init_remote(), and secondary.c,
 * init_remote(); wire protocol §6.
 */

import { assert } from "../base/assert.ts";
import { WireError } from "./error.ts";
import { encodeFrame, PROTOCOL_VERSION } from "./frame.ts";
import { decodeNv, type NvList, NvWriter } from "./nv.ts";
import {
  CHECKSUM_NONE,
  COMPRESSION_NONE,
  encodePayloadKeys,
  type OutgoingPayload,
  PAYLOAD_KEYS_MAX,
  type PayloadHeader,
  takePayloadKey,
} from "./payload.ts";

/** Bytes of the token that ties connection B to connection A. */
export const TOKEN_SIZE = 16;

/** Exactly this text makes a FreeBSD primary raise its split-brain event. */
export const SPLIT_BRAIN_ERRMSG = "Split-brain condition!";

/** What a node has on record about its copy and the other's (metadata/block.ts). */
export type SyncedWord = "written" | "filling" | "all";

/** The other copy has overtaken it, or it was thrown away; or it is a mix of old and new. */
export type LackingWord = "outdated" | "inconsistent";

/** What a node says of its own copy, for the other one's operator. */
export interface CopyRemarks {
  /** Extents that its map marks: what it may have that the other lacks. */
  readonly dirtyExtents: number;
  readonly synced: SyncedWord | null;
  /** When it first went on alone, in ms since the Unix epoch by its own clock; null = it has not. */
  readonly aloneSince: number | null;
  /** Why nobody may want it to win, as on its record; null where nothing is known against it. */
  readonly lacking: LackingWord | null;
}

/** What a primary says of itself since it began to work (EXT_KEPT). */
export interface PrimaryLife {
  /** It has served nothing yet, and does not know what became of its cache: the peer's copy will do. */
  readonly fresh: boolean;
  /** async: it acknowledges writes that the peer does not have yet. */
  readonly early: boolean;
}

export interface P1 {
  readonly kind: "p1";
  readonly resource: string;
  /** As offered; 0 = missing, which means 1. */
  readonly version: number;
  /** Offered extensions; 0n from a FreeBSD peer. */
  readonly extensions: bigint;
  /** What an arbiter has granted this primary; 0n where it asks none. */
  readonly term: bigint;
}

export interface P2 {
  readonly kind: "p2";
  readonly resource: string;
  readonly token: Uint8Array; // TOKEN_SIZE bytes
  /** The primary made up its resuid during this very handshake. */
  readonly virgin: boolean;
  readonly resuid: bigint; // 0n = missing: refuse it, once the token is checked
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  /** Null from a FreeBSD primary. */
  readonly remarks: CopyRemarks | null;
  /** Null where KEPT is not agreed upon. */
  readonly life: PrimaryLife | null;
  /** The primary's own copy is whole, so that ours could be copied from it; false also where it does not say. */
  readonly whole: boolean;
}

export type S1 =
  | {
      readonly kind: "accepted";
      readonly version: number; // 1 or 2
      readonly token: Uint8Array; // TOKEN_SIZE bytes
      /** Extensions both sides have; 0n with a FreeBSD peer. */
      readonly extensions: bigint;
    }
  | Refusal;

/** "Resource not configured." and the like, in answer to P1 or P2. */
export interface Refusal {
  readonly kind: "refused";
  readonly errmsg: string;
  /** The other node is primary itself: ask again later. */
  readonly wait: boolean;
}

export type S2 = S2Accepted | S2Refused;

export interface S2Accepted {
  readonly kind: "accepted";
  readonly datasize: number; // bytes
  readonly extentsize: number; // bytes
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  readonly virgin: boolean;
  readonly syncsrc: "primary" | "secondary";
  /** Bytes of map before compression, 0 = none; the peer's claim, and it may exceed what our extents need. */
  readonly mapsize: number;
  /** Null also from a FreeBSD secondary. */
  readonly synced: SyncedWord | null;
  /** Names the cache of its disk: the same one has lost nothing since. Null where it does not say. */
  readonly cache: bigint | null;
  /** Its own word for its copy; false also where it does not say. */
  readonly outdated: boolean;
}

/** A refusal by the secondary's worker; one by its daemon decodes to zeroes and the text. */
export interface S2Refused {
  readonly kind: "refused";
  readonly datasize: number;
  readonly extentsize: number;
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  readonly errmsg: string;
  readonly wait: boolean;
  /** Null from a FreeBSD secondary, and from a daemon. */
  readonly resuid: bigint | null;
  readonly remarks: CopyRemarks | null;
}

/**
 * Decodes what a primary says first on a fresh connection: P2 where there is a token, else P1.
 *
 * @throws WireError: close without an answer
 */
export function decodeHello(nv: Uint8Array): P1 | P2 {
  const list = decodeNv(nv);
  const resource = list.string("resource");
  if (resource === null) throw invalid("the first message names no resource");
  const token = list.bytes("token");
  if (token === null) {
    return {
      kind: "p1",
      resource,
      version: list.u8("version") ?? 0,
      extensions: list.u64("ext") ?? 0n,
      term: list.u64("term") ?? 0n,
    };
  }
  return {
    kind: "p2",
    resource,
    token: checkedToken(token),
    virgin: list.exists("virgin"),
    resuid: list.u64("resuid") ?? 0n,
    localcnt: list.u64("localcnt") ?? 0n,
    remotecnt: list.u64("remotecnt") ?? 0n,
    remarks: remarksOf(list),
    life: lifeOf(list),
    whole: list.u8("whole") === 1,
  };
}

/**
 * What a primary says instead of P1, over TLS, to a node whose certificate it does not accept.
 * @returns its reason, or null where this is no such message
 * @throws WireError
 */
export function decodeRefusal(nv: Uint8Array): string | null {
  const list = decodeNv(nv);
  return list.exists("resource") ? null : list.string("errmsg");
}

/** The main header says version 1 whatever is offered, so that a version 1 peer reads on. */
export function encodeP1(hello: Omit<P1, "kind">): Uint8Array {
  const nv = new NvWriter().string("resource", hello.resource).u8("version", hello.version);
  if (hello.extensions !== 0n) nv.u64("ext", hello.extensions);
  if (hello.term !== 0n) nv.u64("term", hello.term);
  return encodeFrame(1, nv.finish());
}

/** @param version as negotiated */
export function encodeP2(version: number, hello: Omit<P2, "kind">): Uint8Array {
  assert(hello.token.length === TOKEN_SIZE);
  assert(hello.resuid !== 0n);
  const nv = new NvWriter().string("resource", hello.resource).bytes("token", hello.token);
  if (hello.virgin) nv.i8("virgin", 1);
  nv.u64("resuid", hello.resuid).u64("localcnt", hello.localcnt).u64("remotecnt", hello.remotecnt);
  if (hello.remarks !== null) encodeRemarks(nv, hello.remarks);
  if (hello.life !== null) {
    nv.u8("fresh", hello.life.fresh ? 1 : 0).u8("early", hello.life.early ? 1 : 0);
  }
  if (hello.whole) nv.u8("whole", 1);
  return encodeFrame(version, nv.finish());
}

/** @throws WireError; also where the answer chose a version that was not offered */
export function decodeS1(nv: Uint8Array): S1 {
  const list = decodeNv(nv);
  const errmsg = list.string("errmsg");
  if (errmsg !== null) return { kind: "refused", errmsg, wait: list.exists("wait") };
  const version = list.u8("version") || 1;
  if (version > PROTOCOL_VERSION) {
    throw invalid(
      `the secondary chose protocol version ${version}; ${PROTOCOL_VERSION} was offered`,
    );
  }
  const token = list.bytes("token");
  if (token === null) throw invalid("the secondary sent no token");
  return {
    kind: "accepted",
    version,
    token: checkedToken(token),
    extensions: list.u64("ext") ?? 0n,
  };
}

/** Also encodes the refusal of P2. A refusal has version byte 2, as the original's has. */
export function encodeS1(answer: S1): Uint8Array {
  const nv = new NvWriter();
  if (answer.kind === "refused") {
    nv.string("errmsg", answer.errmsg);
    if (answer.wait) nv.u8("wait", 1);
    return encodeFrame(PROTOCOL_VERSION, nv.finish());
  }
  assert(answer.token.length === TOKEN_SIZE);
  nv.u8("version", answer.version).bytes("token", answer.token);
  if (answer.extensions !== 0n) nv.u64("ext", answer.extensions);
  return encodeFrame(answer.version, nv.finish());
}

/**
 * Decodes the answer to P2.
 *
 * @returns the answer; and, for one accepted with a map, what the decodePayload() of it needs: its
 *   `payload.size` (> 0, at most answer.mapsize) bytes follow the message, else none do (size 0)
 * @throws WireError
 */
export function decodeS2(nv: Uint8Array): { readonly answer: S2; readonly payload: PayloadHeader } {
  const list = decodeNv(nv);
  const payload = payloadOf(nv, list);
  const errmsg = list.string("errmsg");
  if (errmsg !== null) {
    const answer: S2 = {
      kind: "refused",
      datasize: size64(list, "datasize") ?? 0,
      extentsize: list.i32("extentsize") ?? 0,
      localcnt: list.u64("localcnt") ?? 0n,
      remotecnt: list.u64("remotecnt") ?? 0n,
      errmsg,
      wait: list.exists("wait"),
      resuid: list.u64("resuid"),
      remarks: remarksOf(list),
    };
    return { answer, payload };
  }

  const datasize = size64(list, "datasize");
  if (datasize === null || datasize <= 0) throw invalid("the secondary sent no valid datasize");
  const extentsize = list.i32("extentsize");
  if (extentsize === null || extentsize <= 0)
    throw invalid("the secondary sent no valid extentsize");
  const syncsrc = list.u8("syncsrc");
  if (syncsrc !== 1 && syncsrc !== 2) throw invalid("the secondary sent no valid syncsrc");
  const mapsize = list.u32("mapsize");
  if (mapsize === null) throw invalid("the secondary sent no mapsize");
  // Compression never makes data larger, but that four bytes stand for a hole.
  const sizeMax = mapsize === 0 ? 0 : Math.max(mapsize, 4);
  if (payload.size > sizeMax || (payload.size === 0 && mapsize > 0)) {
    throw new WireError(
      "payload-length",
      `the secondary sends ${payload.size} bytes for a map of ${mapsize}`,
    );
  }
  const answer: S2 = {
    kind: "accepted",
    datasize,
    extentsize,
    localcnt: list.u64("localcnt") ?? 0n,
    remotecnt: list.u64("remotecnt") ?? 0n,
    virgin: list.exists("virgin"),
    syncsrc: syncsrc === 1 ? "primary" : "secondary",
    mapsize,
    synced: syncedOf(list),
    cache: list.u64("cache"),
    outdated: list.u8("outdated") === 1,
  };
  return { answer, payload };
}

/**
 * @param version as negotiated
 * @param payload the map, its bytes included in the result; null where answer.mapsize is 0, and for a refusal
 */
export function encodeS2(version: number, answer: S2, payload: OutgoingPayload | null): Uint8Array {
  const nv = new NvWriter()
    .i64("datasize", answer.datasize)
    .i32("extentsize", answer.extentsize)
    .u64("localcnt", answer.localcnt)
    .u64("remotecnt", answer.remotecnt);
  if (answer.kind === "refused") {
    assert(payload === null);
    nv.string("errmsg", answer.errmsg);
    if (answer.wait) nv.u8("wait", 1);
    if (answer.resuid !== null) nv.u64("resuid", answer.resuid);
    if (answer.remarks !== null) encodeRemarks(nv, answer.remarks);
    return encodeFrame(version, nv.finish());
  }
  if (answer.virgin) nv.i8("virgin", 1);
  nv.u8("syncsrc", answer.syncsrc === "primary" ? 1 : 2).u32("mapsize", answer.mapsize);
  if (answer.synced !== null) nv.string("synced", answer.synced);
  if (answer.cache !== null) nv.u64("cache", answer.cache);
  if (answer.outdated) nv.u8("outdated", 1);
  assert(answer.mapsize > 0 === (payload !== null));
  if (payload === null) return encodeFrame(version, nv.finish());

  const own = nv.finish();
  const keys = new Uint8Array(PAYLOAD_KEYS_MAX);
  const keysSize = encodePayloadKeys(keys, 0, payload);
  const block = new Uint8Array(own.length + keysSize);
  block.set(own);
  block.set(keys.subarray(0, keysSize), own.length);
  const frame = encodeFrame(version, block);
  const message = new Uint8Array(frame.length + payload.size);
  message.set(frame);
  message.set(payload.bytes.subarray(payload.at, payload.at + payload.size), frame.length);
  return message;
}

function encodeRemarks(nv: NvWriter, remarks: CopyRemarks): void {
  nv.u64("dirty", remarks.dirtyExtents);
  if (remarks.synced !== null) nv.string("synced", remarks.synced);
  if (remarks.aloneSince !== null) nv.u64("alone", remarks.aloneSince);
  if (remarks.lacking !== null) nv.string("state", remarks.lacking);
}

/** Null where there are none. They are for people to read: one that makes no sense is left out. */
function remarksOf(list: NvList): CopyRemarks | null {
  const dirtyExtents = count(list, "dirty");
  if (dirtyExtents === null) return null;
  const state = list.string("state");
  const lacking = state === "outdated" || state === "inconsistent" ? state : null;
  return { dirtyExtents, synced: syncedOf(list), aloneSince: count(list, "alone"), lacking };
}

/** Anything but a plain yes or no to both promises nothing. */
function lifeOf(list: NvList): PrimaryLife | null {
  const fresh = list.u8("fresh");
  const early = list.u8("early");
  if (fresh === null || early === null || fresh > 1 || early > 1) return null;
  return { fresh: fresh === 1, early: early === 1 };
}

/** A word that we do not know promises nothing. */
export function syncedOf(list: NvList): SyncedWord | null {
  const word = list.string("synced");
  return word === "written" || word === "filling" || word === "all" ? word : null;
}

/** A uint64 that a number holds exactly, or null. */
function count(list: NvList, name: string): number | null {
  const value = list.u64(name);
  return value === null || value > Number.MAX_SAFE_INTEGER ? null : Number(value);
}

function payloadOf(nv: Uint8Array, list: NvList): PayloadHeader {
  const payload: PayloadHeader = {
    compression: COMPRESSION_NONE,
    checksum: CHECKSUM_NONE,
    hash: new Uint8Array(32),
    hashLength: 0,
    size: 0,
  };
  let seen = 0;
  for (const entry of list.entries) seen = takePayloadKey(nv, entry.start, seen, payload);
  return payload;
}

/** An int64 as a size in bytes; null where it is missing, negative or above 2^53 - 1. */
function size64(list: NvList, name: string): number | null {
  const value = list.i64(name);
  if (value === null || value < 0n || value > Number.MAX_SAFE_INTEGER) return null;
  return Number(value);
}

/** A copy: it outlives the message's bytes. */
function checkedToken(token: Uint8Array): Uint8Array {
  if (token.length !== TOKEN_SIZE) {
    throw invalid(`token has ${token.length} bytes, not ${TOKEN_SIZE}`);
  }
  return token.slice();
}

function invalid(reason: string): WireError {
  return new WireError("handshake-invalid", reason);
}

// SPDX-License-Identifier: BSD-2-Clause
/** Stub: signatures are final. Decoders take the nv block, encoders give whole messages, frame included. */

import type { OutgoingPayload, PayloadHeader } from "./payload.ts";

export const TOKEN_SIZE = 16;

/** Primary → secondary on connection A. */
export interface P1 {
  readonly kind: "p1";
  readonly resource: string;
  /** As offered; 0 = missing, which means 1. */
  readonly version: number;
  /** Our own bits, 0n from a FreeBSD peer. */
  readonly extensions: bigint;
}

/** Primary → secondary on connection B. */
export interface P2 {
  readonly kind: "p2";
  readonly resource: string;
  readonly token: Uint8Array; // TOKEN_SIZE bytes
  readonly virgin: boolean;
  readonly resuid: bigint; // 0n = missing: refuse it
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
}

/** Secondary → primary on A. */
export type S1 =
  | {
      readonly kind: "accepted";
      readonly version: number; // 1 or 2
      readonly token: Uint8Array; // TOKEN_SIZE bytes
      readonly extensions: bigint;
    }
  | Refusal;

/** "Resource not configured." and so on; `wait`: the other node is primary, keep trying. */
export interface Refusal {
  readonly kind: "refused";
  readonly errmsg: string;
  readonly wait: boolean;
}

/** Secondary → primary on A, after P2. */
export type S2 = S2Accepted | S2Refused;

export interface S2Accepted {
  readonly kind: "accepted";
  readonly datasize: number; // bytes
  readonly extentsize: number; // bytes
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  readonly virgin: boolean;
  readonly syncsrc: "primary" | "secondary";
  readonly mapsize: number; // bytes before compression, 0 = no map
}

export interface S2Refused {
  readonly kind: "refused";
  readonly datasize: number;
  readonly extentsize: number;
  readonly localcnt: bigint;
  readonly remotecnt: bigint;
  readonly errmsg: string;
  /** The other node is primary: only in a refusal of P2 by the main daemon. */
  readonly wait: boolean;
}

/** Exactly this text raises the split-brain event at a FreeBSD primary. */
export const SPLIT_BRAIN_ERRMSG = "Split-brain condition!";

/** What a secondary's daemon reads from a fresh connection: P2 where there is a token, else P1. @throws WireError */
export function decodeHello(_nv: Uint8Array): P1 | P2 {
  throw new Error("stub");
}
/** With version byte 1, which every peer accepts. */
export function encodeP1(_hello: Omit<P1, "kind">): Uint8Array {
  throw new Error("stub");
}
export function encodeP2(_version: number, _hello: Omit<P2, "kind">): Uint8Array {
  throw new Error("stub");
}
/** @throws WireError */
export function decodeS1(_nv: Uint8Array): S1 {
  throw new Error("stub");
}
/** A refusal goes out with version byte 2, as the original's does. */
export function encodeS1(_answer: S1): Uint8Array {
  throw new Error("stub");
}
/**
 * @returns the value, and for an accepted one with a map what precedes decodePayload(): `payload.size` bytes follow
 * @throws WireError
 */
export function decodeS2(_nv: Uint8Array): {
  readonly answer: S2;
  readonly payload: PayloadHeader;
} {
  throw new Error("stub");
}
/** @param payload the map, or null where answer.mapsize is 0 or the answer is a refusal; its bytes are included */
export function encodeS2(
  _version: number,
  _answer: S2,
  _payload: OutgoingPayload | null,
): Uint8Array {
  throw new Error("stub");
}

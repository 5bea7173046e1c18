// SPDX-License-Identifier: BSD-2-Clause
/** Stub: signatures are final. Decoders take the nv block, encoders give whole messages, frame included. */

export type Role = "init" | "primary" | "secondary";

export const CONTROL_OK = 0;
export const CONTROL_NO_SUCH_RESOURCE = 1;
export const CONTROL_INVALID = 2;
export const CONTROL_NO_MEMORY = 3;
export const CONTROL_UNIMPLEMENTED = 4;

/** `resources`: names in order, at least one; "all" as the first selects every configured resource. */
export type ControlRequest =
  | {
      readonly kind: "set-role";
      readonly role: Role;
      readonly resources: readonly string[];
      /** The asker understands more than the original's keys: reason and notes may be sent. */
      readonly extended: boolean;
    }
  | { readonly kind: "status"; readonly resources: readonly string[]; readonly extended: boolean };

/** A request that gets no values back. */
export type ControlRefusal =
  /** Close without an answer, as the original does. */
  | { readonly kind: "no-command" }
  /** Answer encodeControlError(error). */
  | { readonly kind: "refused"; readonly error: number };

export interface SetRoleEntry {
  readonly resource: string;
  readonly outcome:
    | { readonly kind: "done"; readonly previousRole: Role }
    | { readonly kind: "failed"; readonly error: number };
  /** One sentence: why the role was refused or is not ready. Extended only. */
  readonly errmsg: string | null;
  /** Sentences for people. Extended only. */
  readonly notes: readonly string[];
}

/** Field names as in the worker's report, to which it is assignable. */
export interface WorkerStatus {
  readonly status: "complete" | "degraded";
  readonly dirty: number; // bytes
  readonly extentsize: number; // bytes
  readonly keepdirty: number; // extents
  readonly reads: number;
  readonly writes: number;
  readonly deletes: number;
  readonly flushes: number;
  readonly activemapUpdates: number;
  readonly readErrors: number;
  readonly writeErrors: number;
  readonly deleteErrors: number;
  readonly flushErrors: number;
  readonly idleQueue: number;
  readonly localQueue: number;
  readonly sendQueue: number;
  readonly recvQueue: number;
  readonly doneQueue: number;
}

export interface ResourceStatus {
  readonly provname: string;
  readonly localpath: string;
  readonly remoteaddr: string;
  readonly sourceaddr: string | null;
  readonly replication: string;
  readonly checksum: string;
  readonly compression: string;
  readonly role: Role;
  readonly workerpid: number; // 0 = no worker
  readonly worker: WorkerStatus | null;
}

export interface StatusEntry {
  readonly resource: string;
  readonly outcome:
    | { readonly kind: "known"; readonly status: ResourceStatus }
    | { readonly kind: "failed"; readonly error: number };
  readonly errmsg: string | null; // extended only
  readonly notes: readonly string[]; // extended only
}

/** `error` is the global outcome, 0 where all is in the entries. */
export interface ControlReply<Entry> {
  readonly error: number;
  readonly entries: readonly Entry[];
}

/** @throws WireError */
export function decodeControlRequest(_nv: Uint8Array): ControlRequest | ControlRefusal {
  throw new Error("stub");
}
export function encodeControlRequest(_request: ControlRequest): Uint8Array {
  throw new Error("stub");
}
/** @param extended as in the request; without it errmsg and notes stay behind */
export function encodeSetRoleReply(
  _reply: ControlReply<SetRoleEntry>,
  _extended: boolean,
): Uint8Array {
  throw new Error("stub");
}
export function encodeStatusReply(
  _reply: ControlReply<StatusEntry>,
  _extended: boolean,
): Uint8Array {
  throw new Error("stub");
}
/** A reply that consists of a global error. */
export function encodeControlError(_error: number): Uint8Array {
  throw new Error("stub");
}
/** @throws WireError */
export function decodeSetRoleReply(_nv: Uint8Array): ControlReply<SetRoleEntry> {
  throw new Error("stub");
}
/** @throws WireError */
export function decodeStatusReply(_nv: Uint8Array): ControlReply<StatusEntry> {
  throw new Error("stub");
}
/** Role numbers on the control socket. */
export function roleCode(_role: Role): number {
  throw new Error("stub");
}

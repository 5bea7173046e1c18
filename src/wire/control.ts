// SPDX-License-Identifier: BSD-2-Clause
/**
 * What hastctl and hastd say to each other on the control socket: one request, one reply, close.
 *
 *   request  cmd u8, role u8 (set role only), [ext u8 = 1, force u8 = 1,] resource0, resource1, …
 *   reply    per resource i, keys with i appended:  resource<i>, error<i>
 *                                              or   resource<i>, role<i>               (set role)
 *                                              or   resource<i>, provname<i>, …        (status)
 *            copy<i>, term<i> u64, connected<i> u8 = 1, vouched<i> u8 = 1, resyncrate<i>, transport<i>,
 *            device<i>, devicekind<i>, devicenode<i>, errmsg<i>, note<i>_0, …   only if the request had `ext`
 *            error i16                                          global, where not 0
 *
 * `ext`, `force` and what only `ext` gets are ours: a FreeBSD hastd ignores the first and sends none. So are
 * the other commands, answered with `error<i>`, `errmsg<i>` and notes: discard-local, which needs `dryrun`
 * u8, 0 or 1; sync-full; reload; config, whose notes are a hast.conf; and the orders, of which invalidate
 * and outdate need `dryrun`, and resync-rate `rate` u64. Reload and config name no resource, and are
 * answered with the one entry `hastd`.
 *
 * An arbiter's agent sets the role primary with `term` u64 and `deadline` u64, and renews its lease with
 *
 *   lease    term, deadline, wait u64, resource<i>, confirmed<i> u64
 *   reply    resource<i>, role<i>, number<i> u64, whole<i>, or error<i> and errmsg<i>
 *
 * Decoders take an nv block and give values; encoders give whole messages, main header included.
 * Source: FreeBSD sbin/hastd/control.c and sbin/hastctl/hastctl.c; wire protocol §12.
 */

import { assert, unreachable } from "../base/assert.ts";
import { WireError } from "./error.ts";
import { encodeFrame, PROTOCOL_VERSION } from "./frame.ts";
import { decodeNv, type NvList, NvWriter } from "./nv.ts";

export type Role = "init" | "primary" | "secondary";

/** What an arbiter has granted to a primary (docs/decisions/0009). */
export interface Lease {
  /** Grows with every election: of two primaries the one with the higher term counts. */
  readonly term: bigint;
  /** Until when it may answer, ms of CLOCK_MONOTONIC. */
  readonly deadlineMs: number;
}

/** Which nodes have every byte that was acknowledged. */
export type Whole = "both" | "local" | "remote";

/** How long a request for a lease may wait for news, ms. */
export const LEASE_WAIT_MAX_MS = 10_000;

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
      /** Primary in spite of the rules of promotion. */
      readonly force?: true;
      /** Primary by the word of an arbiter. */
      readonly lease?: Lease;
    }
  | { readonly kind: "status"; readonly resources: readonly string[]; readonly extended: boolean }
  /** Ours: `hastctl resolve --discard-local`. */
  | {
      readonly kind: "discard-local";
      readonly resources: readonly string[];
      readonly dryRun: boolean;
    }
  /** Ours: `hastctl sync --full`. */
  | { readonly kind: "sync-full"; readonly resources: readonly string[] }
  /** Ours: `hastctl reload`. */
  | { readonly kind: "reload" }
  /** Ours: the configuration in use, for `hastctl config diff`. */
  | { readonly kind: "config" }
  /**
   * Ours, for an arbiter's agent: the lease goes on. Answered when a resource's {@link LeaseEntry} has news, that
   * is, another number than the one confirmed, or another role than primary; or after `waitMs`.
   */
  | {
      readonly kind: "lease";
      readonly resources: readonly string[];
      readonly lease: Lease;
      /** Per resource: the number whose `whole` the arbiter has on record; 0 = none. */
      readonly confirmed: readonly number[];
      /** 0 to {@link LEASE_WAIT_MAX_MS} */
      readonly waitMs: number;
    }
  /** Ours: `hastctl connect` and the like. */
  | { readonly kind: "order"; readonly order: Order; readonly resources: readonly string[] };

/** What an operator orders, by the command's name. */
export type Order =
  | { readonly kind: "connect" | "disconnect" | "pause-resync" | "resume-resync" }
  /** `rate`: bytes per second, 0 = as fast as it goes. */
  | { readonly kind: "resync-rate"; readonly rate: number }
  | { readonly kind: "invalidate" | "outdate"; readonly dryRun: boolean };

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

/** An answer to one of our own commands. */
export interface DeedEntry {
  readonly resource: string;
  readonly outcome: { readonly kind: "done" } | { readonly kind: "failed"; readonly error: number };
  /** Why not. */
  readonly errmsg: string | null;
  /** What was done, or would be. */
  readonly notes: readonly string[];
}

export interface LeaseEntry {
  readonly resource: string;
  readonly outcome:
    | {
        readonly kind: "known";
        readonly role: Role;
        /** What the arbiter is to put on record; null where the worker has not said yet. */
        readonly wish: Wish | null;
      }
    | { readonly kind: "failed"; readonly error: number };
  readonly errmsg: string | null;
}

/** Until it is on record and its number confirmed, a primary answers nothing that it would make untrue. */
export interface Wish {
  /** > 0; grows. */
  readonly number: number;
  readonly whole: Whole;
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
  /** What the local copy is worth: "uptodate", …; absent where it is not known. Extended only. */
  readonly copy?: string;
  /** The highest of an arbiter's terms that is on record in the local copy; absent where there is none. Extended only. */
  readonly term?: bigint;
  /** To the other node. A primary that is, and yet degraded, has lost its disk. Extended only. */
  readonly connected?: true;
  /** This very hastd has had the copy in its hands since it was in step: nobody went on before it lost the link. Extended only. */
  readonly vouched?: true;
  /** Limit of a synchronization from or to this node as primary, bytes per second, 0 = none. Extended only. */
  readonly resyncrate?: number;
  /** How the link to the peer is made: "plain TCP", …; absent where there is no peer. Extended only. */
  readonly transport?: string;
  /** A primary's device; absent where there is none. Extended only. */
  readonly device?: {
    readonly path: string;
    /** "nbd", "ublk", "fuse". */
    readonly kind: string;
    /** The block device that the path leads to; null while it is lost. */
    readonly node: string | null;
  };
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

const CMD_SET_ROLE = 1;
const CMD_STATUS = 2;
/** Ours; far from what FreeBSD might add. */
const CMD_DISCARD_LOCAL = 64;
const CMD_SYNC_FULL = 65;
const CMD_RELOAD = 66;
const CMD_CONFIG = 67;
const ORDER_CODES: Readonly<Record<Order["kind"], number>> = {
  connect: 68,
  disconnect: 69,
  "pause-resync": 70,
  "resume-resync": 71,
  "resync-rate": 72,
  invalidate: 73,
  outdate: 74,
};
const CMD_LEASE = 75;
const ROLE_CODES: Readonly<Record<Role, number>> = { init: 1, primary: 2, secondary: 3 };

/** Keys of a worker's part of a status entry: uint64 each, in the order sent. */
const WORKER_COUNTS = [
  ["stat_read", "reads"],
  ["stat_write", "writes"],
  ["stat_delete", "deletes"],
  ["stat_flush", "flushes"],
  ["stat_activemap_update", "activemapUpdates"],
  ["stat_read_error", "readErrors"],
  ["stat_write_error", "writeErrors"],
  ["stat_delete_error", "deleteErrors"],
  ["stat_flush_error", "flushErrors"],
  ["idle_queue_size", "idleQueue"],
  ["local_queue_size", "localQueue"],
  ["send_queue_size", "sendQueue"],
  ["recv_queue_size", "recvQueue"],
  ["done_queue_size", "doneQueue"],
] as const;

/**
 * Decodes a request, or says how one that is none is to be answered.
 *
 * @throws WireError: close without an answer
 */
export function decodeControlRequest(nv: Uint8Array): ControlRequest | ControlRefusal {
  const list = decodeNv(nv);
  const cmd = list.u8("cmd") ?? 0;
  if (cmd === 0) return { kind: "no-command" };
  if (cmd === CMD_RELOAD) return { kind: "reload" };
  if (cmd === CMD_CONFIG) return { kind: "config" };
  const resources: string[] = [];
  for (;;) {
    const resource = list.string(`resource${resources.length}`);
    if (resource === null) break;
    resources.push(resource);
  }
  if (resources.length === 0) return { kind: "refused", error: CONTROL_INVALID };
  if (cmd === CMD_SYNC_FULL) return { kind: "sync-full", resources };
  if (cmd === CMD_DISCARD_LOCAL) {
    const dryRun = dryRunOf(list);
    if (dryRun === null) return { kind: "refused", error: CONTROL_INVALID };
    return { kind: "discard-local", resources, dryRun };
  }
  for (const [kind, code] of Object.entries(ORDER_CODES)) {
    if (cmd !== code) continue;
    const order = orderOf(kind as Order["kind"], list);
    if (order === null) return { kind: "refused", error: CONTROL_INVALID };
    return { kind: "order", order, resources };
  }
  if (cmd === CMD_LEASE) return leaseRequestOf(list, resources);
  const extended = list.u8("ext") === 1;
  if (cmd === CMD_SET_ROLE) {
    const role = roleOfCode(list.u8("role") ?? 0);
    const lease = list.exists("term") ? leaseOf(list) : undefined;
    if (role === null || lease === null) return { kind: "refused", error: CONTROL_INVALID };
    const granted = lease === undefined ? {} : { lease };
    return { kind: "set-role", role, resources, extended, ...forceOf(list), ...granted };
  }
  if (cmd === CMD_STATUS) return { kind: "status", resources, extended };
  return { kind: "refused", error: CONTROL_UNIMPLEMENTED };
}

/** Not to be guessed: one of the two cannot be taken back. */
function dryRunOf(list: NvList): boolean | null {
  const dryRun = list.u8("dryrun");
  return dryRun === 0 || dryRun === 1 ? dryRun === 1 : null;
}

function orderOf(kind: Order["kind"], list: NvList): Order | null {
  switch (kind) {
    case "invalidate":
    case "outdate": {
      const dryRun = dryRunOf(list);
      return dryRun === null ? null : { kind, dryRun };
    }
    case "resync-rate": {
      const rate = list.u64("rate");
      return rate === null || rate > Number.MAX_SAFE_INTEGER ? null : { kind, rate: Number(rate) };
    }
    default:
      return { kind };
  }
}

function leaseOf(list: NvList): Lease | null {
  const term = list.u64("term");
  const deadline = list.u64("deadline");
  if (term === null || term === 0n || deadline === null) return null;
  return deadline > Number.MAX_SAFE_INTEGER ? null : { term, deadlineMs: Number(deadline) };
}

function leaseRequestOf(
  list: NvList,
  resources: readonly string[],
): ControlRequest | ControlRefusal {
  const lease = leaseOf(list);
  const wait = list.u64("wait");
  const confirmed = resources.map((_, index) => list.u64(`confirmed${index}`));
  if (lease === null || wait === null || wait > LEASE_WAIT_MAX_MS || confirmed.includes(null)) {
    return { kind: "refused", error: CONTROL_INVALID };
  }
  return {
    kind: "lease",
    resources,
    lease,
    confirmed: confirmed.map(Number),
    waitMs: Number(wait),
  };
}

function forceOf(list: NvList): { readonly force?: true } {
  return list.u8("force") === 1 ? { force: true } : {};
}

export function encodeControlRequest(request: ControlRequest): Uint8Array {
  const resources = "resources" in request ? request.resources : [];
  const nv = new NvWriter();
  switch (request.kind) {
    case "set-role":
      nv.u8("cmd", CMD_SET_ROLE).u8("role", ROLE_CODES[request.role]);
      break;
    case "status":
      nv.u8("cmd", CMD_STATUS);
      break;
    case "discard-local":
      nv.u8("cmd", CMD_DISCARD_LOCAL);
      nv.u8("dryrun", request.dryRun ? 1 : 0);
      break;
    case "sync-full":
      nv.u8("cmd", CMD_SYNC_FULL);
      break;
    case "reload":
      nv.u8("cmd", CMD_RELOAD);
      break;
    case "config":
      nv.u8("cmd", CMD_CONFIG);
      break;
    case "lease":
      nv.u8("cmd", CMD_LEASE).u64("wait", request.waitMs);
      for (const [index, number] of request.confirmed.entries()) {
        nv.u64(`confirmed${index}`, number);
      }
      break;
    case "order":
      nv.u8("cmd", ORDER_CODES[request.order.kind]);
      if ("dryRun" in request.order) nv.u8("dryrun", request.order.dryRun ? 1 : 0);
      if ("rate" in request.order) nv.u64("rate", request.order.rate);
      break;
    default:
      unreachable(request);
  }
  assert(resources.length > 0 || !("resources" in request));
  for (const [index, resource] of resources.entries()) {
    nv.string(`resource${index}`, resource);
  }
  if ("extended" in request && request.extended) nv.u8("ext", 1);
  if (request.kind === "set-role" && request.force === true) nv.u8("force", 1);
  if ("lease" in request && request.lease !== undefined) {
    nv.u64("term", request.lease.term).u64("deadline", request.lease.deadlineMs);
  }
  return encodeFrame(PROTOCOL_VERSION, nv.finish());
}

/** @param extended as in the request; without it errmsg and notes stay behind */
export function encodeSetRoleReply(
  reply: ControlReply<SetRoleEntry>,
  extended: boolean,
): Uint8Array {
  const nv = new NvWriter();
  for (const [index, entry] of reply.entries.entries()) {
    nv.string(`resource${index}`, entry.resource);
    if (entry.outcome.kind === "failed") nv.i16(`error${index}`, entry.outcome.error);
    else nv.string(`role${index}`, entry.outcome.previousRole);
    if (extended) encodeRemarks(nv, index, entry);
  }
  return encodeReply(nv, reply.error);
}

/** @param extended as in the request; without it errmsg and notes stay behind */
export function encodeStatusReply(reply: ControlReply<StatusEntry>, extended: boolean): Uint8Array {
  const nv = new NvWriter();
  for (const [index, entry] of reply.entries.entries()) {
    nv.string(`resource${index}`, entry.resource);
    if (entry.outcome.kind === "failed") nv.i16(`error${index}`, entry.outcome.error);
    else encodeStatus(nv, index, entry.outcome.status);
    if (!extended) continue;
    const status = entry.outcome.kind === "known" ? entry.outcome.status : null;
    if (status?.copy !== undefined) nv.string(`copy${index}`, status.copy);
    if (status?.term !== undefined) nv.u64(`term${index}`, status.term);
    if (status?.connected) nv.u8(`connected${index}`, 1);
    if (status?.vouched) nv.u8(`vouched${index}`, 1);
    if (status?.resyncrate !== undefined) nv.u64(`resyncrate${index}`, status.resyncrate);
    if (status?.transport !== undefined) nv.string(`transport${index}`, status.transport);
    if (status !== null) encodeDevice(nv, index, status);
    encodeRemarks(nv, index, entry);
  }
  return encodeReply(nv, reply.error);
}

export function encodeDeedReply(reply: ControlReply<DeedEntry>): Uint8Array {
  const nv = new NvWriter();
  for (const [index, entry] of reply.entries.entries()) {
    nv.string(`resource${index}`, entry.resource);
    if (entry.outcome.kind === "failed") nv.i16(`error${index}`, entry.outcome.error);
    encodeRemarks(nv, index, entry);
  }
  return encodeReply(nv, reply.error);
}

export function encodeLeaseReply(reply: ControlReply<LeaseEntry>): Uint8Array {
  const nv = new NvWriter();
  for (const [index, { resource, outcome, errmsg }] of reply.entries.entries()) {
    nv.string(`resource${index}`, resource);
    if (outcome.kind === "failed") nv.i16(`error${index}`, outcome.error);
    else {
      nv.string(`role${index}`, outcome.role);
      if (outcome.wish !== null) {
        nv.u64(`number${index}`, outcome.wish.number).string(`whole${index}`, outcome.wish.whole);
      }
    }
    encodeRemarks(nv, index, { errmsg, notes: [] });
  }
  return encodeReply(nv, reply.error);
}

function encodeStatus(nv: NvWriter, index: number, status: ResourceStatus): void {
  nv.string(`provname${index}`, status.provname)
    .string(`localpath${index}`, status.localpath)
    .string(`remoteaddr${index}`, status.remoteaddr);
  if (status.sourceaddr !== null) nv.string(`sourceaddr${index}`, status.sourceaddr);
  nv.string(`replication${index}`, status.replication)
    .string(`checksum${index}`, status.checksum)
    .string(`compression${index}`, status.compression)
    .string(`role${index}`, status.role)
    .i32(`workerpid${index}`, status.workerpid);
  const worker = status.worker;
  if (worker === null) return;
  nv.string(`status${index}`, worker.status)
    .u64(`dirty${index}`, worker.dirty)
    .u32(`extentsize${index}`, worker.extentsize)
    .u32(`keepdirty${index}`, worker.keepdirty);
  for (const [key, field] of WORKER_COUNTS) nv.u64(`${key}${index}`, worker[field]);
}

function encodeDevice(nv: NvWriter, index: number, { device }: ResourceStatus): void {
  if (device === undefined) return;
  nv.string(`device${index}`, device.path).string(`devicekind${index}`, device.kind);
  if (device.node !== null) nv.string(`devicenode${index}`, device.node);
}

function encodeRemarks(
  nv: NvWriter,
  index: number,
  entry: { readonly errmsg: string | null; readonly notes: readonly string[] },
): void {
  if (entry.errmsg !== null) nv.string(`errmsg${index}`, entry.errmsg);
  for (const [place, note] of entry.notes.entries()) nv.string(`note${index}_${place}`, note);
}

/** A reply that is nothing but a global error. */
export function encodeControlError(error: number): Uint8Array {
  assert(error !== CONTROL_OK);
  return encodeReply(new NvWriter(), error);
}

/** The original sends no global error where there is none, except that an nv block must not be empty. */
function encodeReply(nv: NvWriter, error: number): Uint8Array {
  if (error !== CONTROL_OK || nv.size === 0) nv.i16("error", error);
  return encodeFrame(PROTOCOL_VERSION, nv.finish());
}

/** @throws WireError */
export function decodeSetRoleReply(nv: Uint8Array): ControlReply<SetRoleEntry> {
  return decodeReply(nv, (list, index): SetRoleEntry => {
    const error = list.i16(`error${index}`) ?? CONTROL_OK;
    return {
      resource: required(list, `resource${index}`),
      outcome:
        error === CONTROL_OK
          ? { kind: "done", previousRole: roleOf(list, `role${index}`) }
          : { kind: "failed", error },
      ...decodeRemarks(list, index),
    };
  });
}

/** @throws WireError */
export function decodeDeedReply(nv: Uint8Array): ControlReply<DeedEntry> {
  return decodeReply(nv, (list, index): DeedEntry => {
    const error = list.i16(`error${index}`) ?? CONTROL_OK;
    return {
      resource: required(list, `resource${index}`),
      outcome: error === CONTROL_OK ? { kind: "done" } : { kind: "failed", error },
      ...decodeRemarks(list, index),
    };
  });
}

/** @throws WireError */
export function decodeLeaseReply(nv: Uint8Array): ControlReply<LeaseEntry> {
  return decodeReply(nv, (list, index): LeaseEntry => {
    const error = list.i16(`error${index}`) ?? CONTROL_OK;
    return {
      resource: required(list, `resource${index}`),
      outcome:
        error === CONTROL_OK
          ? { kind: "known", role: roleOf(list, `role${index}`), wish: wishOf(list, index) }
          : { kind: "failed", error },
      errmsg: list.string(`errmsg${index}`),
    };
  });
}

function wishOf(list: NvList, index: number): Wish | null {
  const number = list.u64(`number${index}`);
  if (number === null) return null;
  const whole = required(list, `whole${index}`);
  if (whole !== "both" && whole !== "local" && whole !== "remote") {
    throw invalid(`whole${index} is ${JSON.stringify(whole)}`);
  }
  return { number: Number(number), whole };
}

/** @throws WireError */
export function decodeStatusReply(nv: Uint8Array): ControlReply<StatusEntry> {
  return decodeReply(nv, (list, index): StatusEntry => {
    const error = list.i16(`error${index}`) ?? CONTROL_OK;
    return {
      resource: required(list, `resource${index}`),
      outcome:
        error === CONTROL_OK
          ? { kind: "known", status: decodeStatus(list, index) }
          : { kind: "failed", error },
      ...decodeRemarks(list, index),
    };
  });
}

function decodeReply<Entry>(
  nv: Uint8Array,
  decodeEntry: (list: NvList, index: number) => Entry,
): ControlReply<Entry> {
  const list = decodeNv(nv);
  const entries: Entry[] = [];
  while (list.string(`resource${entries.length}`) !== null) {
    entries.push(decodeEntry(list, entries.length));
  }
  return { error: list.i16("error") ?? CONTROL_OK, entries };
}

function decodeStatus(list: NvList, index: number): ResourceStatus {
  return {
    provname: required(list, `provname${index}`),
    localpath: required(list, `localpath${index}`),
    remoteaddr: required(list, `remoteaddr${index}`),
    sourceaddr: list.string(`sourceaddr${index}`),
    replication: required(list, `replication${index}`),
    checksum: required(list, `checksum${index}`),
    compression: required(list, `compression${index}`),
    role: roleOf(list, `role${index}`),
    workerpid: list.i32(`workerpid${index}`) ?? 0,
    worker: decodeWorker(list, index),
    ...additionsOf(list, index),
    ...deviceOf(list, index),
  };
}

function additionsOf(
  list: NvList,
  index: number,
): Pick<ResourceStatus, "copy" | "term" | "connected" | "vouched" | "resyncrate" | "transport"> {
  const copy = list.string(`copy${index}`);
  const term = list.u64(`term${index}`);
  const connected = list.u8(`connected${index}`) === 1;
  const vouched = list.u8(`vouched${index}`) === 1;
  const rate = list.u64(`resyncrate${index}`);
  const transport = list.string(`transport${index}`);
  return {
    ...(copy === null ? {} : { copy }),
    ...(term === null ? {} : { term }),
    ...(connected ? { connected } : {}),
    ...(vouched ? { vouched } : {}),
    ...(rate === null ? {} : { resyncrate: Number(rate) }),
    ...(transport === null ? {} : { transport }),
  };
}

function deviceOf(list: NvList, index: number): Pick<ResourceStatus, "device"> {
  const path = list.string(`device${index}`);
  if (path === null) return {};
  const kind = list.string(`devicekind${index}`) ?? "";
  return { device: { path, kind, node: list.string(`devicenode${index}`) } };
}

function decodeWorker(list: NvList, index: number): WorkerStatus | null {
  const status = list.string(`status${index}`);
  if (status === null) return null;
  if (status !== "complete" && status !== "degraded") {
    throw invalid(`status${index} is ${JSON.stringify(status)}`);
  }
  const count = (key: string): number => Number(list.u64(`${key}${index}`) ?? 0n);
  return {
    status,
    dirty: count("dirty"),
    extentsize: list.u32(`extentsize${index}`) ?? 0,
    keepdirty: list.u32(`keepdirty${index}`) ?? 0,
    reads: count("stat_read"),
    writes: count("stat_write"),
    deletes: count("stat_delete"),
    flushes: count("stat_flush"),
    activemapUpdates: count("stat_activemap_update"),
    readErrors: count("stat_read_error"),
    writeErrors: count("stat_write_error"),
    deleteErrors: count("stat_delete_error"),
    flushErrors: count("stat_flush_error"),
    idleQueue: count("idle_queue_size"),
    localQueue: count("local_queue_size"),
    sendQueue: count("send_queue_size"),
    recvQueue: count("recv_queue_size"),
    doneQueue: count("done_queue_size"),
  };
}

function decodeRemarks(
  list: NvList,
  index: number,
): { readonly errmsg: string | null; readonly notes: readonly string[] } {
  const notes: string[] = [];
  for (;;) {
    const note = list.string(`note${index}_${notes.length}`);
    if (note === null) break;
    notes.push(note);
  }
  return { errmsg: list.string(`errmsg${index}`), notes };
}

function required(list: NvList, name: string): string {
  const value = list.string(name);
  if (value === null) throw invalid(`${name} is missing`);
  return value;
}

function roleOf(list: NvList, name: string): Role {
  const role = required(list, name);
  if (role === "init" || role === "primary" || role === "secondary") return role;
  throw invalid(`${name} is ${JSON.stringify(role)}`);
}

/** The role's number on the control socket. */
export function roleCode(role: Role): number {
  return ROLE_CODES[role];
}

function roleOfCode(code: number): Role | null {
  if (code === ROLE_CODES.init) return "init";
  if (code === ROLE_CODES.primary) return "primary";
  return code === ROLE_CODES.secondary ? "secondary" : null;
}

function invalid(reason: string): WireError {
  return new WireError("control-invalid", `control reply: ${reason}`);
}

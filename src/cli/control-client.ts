// SPDX-License-Identifier: BSD-2-Clause
/**
 * Asks hastd over its control socket: one connection, one request, one reply (wire protocol §12).
 *
 * The original waits for ever; here each question has a deadline, so a script gets an exit code.
 */
import type { Clock } from "../platform/clock.ts";
import type { Net, NetFailure, Stream, StreamReader } from "../platform/net.ts";
import {
  type ControlReply,
  type DeedEntry,
  decodeDeedReply,
  decodeLeaseReply,
  decodeSetRoleReply,
  decodeStatusReply,
  encodeControlRequest,
  type Lease,
  type LeaseEntry,
  type Order,
  type Role,
  type SetRoleEntry,
  type StatusEntry,
} from "../wire/control.ts";
import { WireError } from "../wire/error.ts";
import { CONTROL_NV_SIZE_MAX, FRAME_HEADER_SIZE, peekFrame } from "../wire/frame.ts";
import { EX_OSERR, EX_SOFTWARE, EX_UNAVAILABLE } from "./exit-code.ts";

const CONNECT_TIMEOUT_MS = 5_000;
const STATUS_TIMEOUT_MS = 20_000;
/** hastd answers when the new role works, which can include opening disks and draining a peer. */
const ROLE_TIMEOUT_MS = 120_000;
/** The same, and a gate may think for minutes before a copy is thrown away. */
const ORDER_TIMEOUT_MS = 600_000;
/** Beyond what it was asked to wait; nothing there waits for a disk. */
const LEASE_TIMEOUT_MS = 5_000;
const BUFFER_SIZE = 64 * 1024;

export type Answer<Entry> =
  | { readonly kind: "answered"; readonly entries: readonly Entry[] }
  /** No use to be had of hastd: what to print, and the code to exit with. */
  | { readonly kind: "failed"; readonly lines: readonly string[]; readonly exitCode: number };

/** A hastd to ask; names as in the request: "all" as the first one means every resource. */
export interface Control {
  /** @param force a primary in spite of the rules of promotion */
  setRole(role: Role, names: readonly string[], force: boolean): Promise<Answer<SetRoleEntry>>;
  status(names: readonly string[]): Promise<Answer<StatusEntry>>;
  discardLocal(names: readonly string[], dryRun: boolean): Promise<Answer<DeedEntry>>;
  syncFull(names: readonly string[]): Promise<Answer<DeedEntry>>;
  order(order: Order, names: readonly string[]): Promise<Answer<DeedEntry>>;
  /** One entry, about hastd itself. */
  reload(): Promise<Answer<DeedEntry>>;
  /** One entry, whose notes are the lines of a hast.conf: all that hastd uses. */
  config(): Promise<Answer<DeedEntry>>;
}

export interface ControlClientOptions {
  readonly net: Net;
  readonly clock: Clock;
  /** `control` of hast.conf. */
  readonly address: string;
  /** To be suggested where no hastd answers: "hastd -c /etc/hast.conf". */
  readonly startCommand: string;
}

export class ControlClient implements Control {
  readonly #options: ControlClientOptions;

  constructor(options: ControlClientOptions) {
    this.#options = options;
  }

  /** @param lease what an arbiter has granted */
  setRole(
    role: Role,
    names: readonly string[],
    force: boolean,
    lease?: Lease,
  ): Promise<Answer<SetRoleEntry>> {
    const request = {
      kind: "set-role",
      role,
      resources: names,
      extended: true,
      ...(force ? { force: true as const } : {}),
      ...(lease === undefined ? {} : { lease }),
    } as const;
    return this.#ask(encodeControlRequest(request), ROLE_TIMEOUT_MS, decodeSetRoleReply, [
      "The role may have changed or not. Look: hastctl status; and at hastd's log.",
    ]);
  }

  status(names: readonly string[]): Promise<Answer<StatusEntry>> {
    const request = { kind: "status", resources: names, extended: true } as const;
    return this.#ask(encodeControlRequest(request), STATUS_TIMEOUT_MS, decodeStatusReply, [
      "Is its process stopped, or the machine overloaded? See hastd's log, and: ps -C hastd -o pid,stat,args",
    ]);
  }

  /** For an arbiter's agent. @param confirmed in the order of the names */
  lease(
    names: readonly string[],
    lease: Lease,
    confirmed: readonly number[],
    waitMs: number,
  ): Promise<Answer<LeaseEntry>> {
    const request = { kind: "lease", resources: names, lease, confirmed, waitMs } as const;
    const timeoutMs = waitMs + LEASE_TIMEOUT_MS;
    return this.#ask(encodeControlRequest(request), timeoutMs, decodeLeaseReply, []);
  }

  discardLocal(names: readonly string[], dryRun: boolean): Promise<Answer<DeedEntry>> {
    const request = { kind: "discard-local", resources: names, dryRun } as const;
    return this.#ask(encodeControlRequest(request), ROLE_TIMEOUT_MS, decodeDeedReply, [
      "It may have been done or not; typing it again does no harm. Look: hastctl status; and at hastd's log.",
    ]);
  }

  syncFull(names: readonly string[]): Promise<Answer<DeedEntry>> {
    const request = { kind: "sync-full", resources: names } as const;
    return this.#ask(encodeControlRequest(request), ROLE_TIMEOUT_MS, decodeDeedReply, [
      "It may have begun or not; typing it again does no harm. Look: hastctl status; and at hastd's log.",
    ]);
  }

  order(order: Order, names: readonly string[]): Promise<Answer<DeedEntry>> {
    const request = { kind: "order", order, resources: names } as const;
    return this.#ask(encodeControlRequest(request), ORDER_TIMEOUT_MS, decodeDeedReply, [
      "It may have been done or not; typing it again does no harm. Look: hastctl status; and at hastd's log.",
    ]);
  }

  reload(): Promise<Answer<DeedEntry>> {
    return this.#ask(encodeControlRequest({ kind: "reload" }), ROLE_TIMEOUT_MS, decodeDeedReply, [
      "It may be under way still. Look: hastctl config diff; and at hastd's log.",
    ]);
  }

  config(): Promise<Answer<DeedEntry>> {
    return this.#ask(encodeControlRequest({ kind: "config" }), STATUS_TIMEOUT_MS, decodeDeedReply, [
      "Is its process stopped, or the machine overloaded? See hastd's log, and: ps -C hastd -o pid,stat,args",
    ]);
  }

  async #ask<Entry>(
    request: Uint8Array,
    timeoutMs: number,
    decode: (nv: Uint8Array) => ControlReply<Entry>,
    unanswered: readonly string[],
  ): Promise<Answer<Entry>> {
    const { address } = this.#options;
    const stream = await this.#connect();
    if ("failure" in stream) return this.#unreachable(stream.failure);
    try {
      const reply = decode(
        await exchange(stream, request, { clock: this.#options.clock, timeoutMs }),
      );
      if (reply.error === 0) return { kind: "answered", entries: reply.entries };
      const lines = [`hastd at ${address} refused the request: ${refusal(reply.error)}.`];
      return { kind: "failed", lines, exitCode: EX_SOFTWARE };
    } catch (error) {
      if (!(error instanceof WireError || error instanceof NoAnswer)) throw error;
      const lines = [`hastd at ${address} did not answer: ${error.message}.`, ...unanswered];
      return { kind: "failed", lines, exitCode: EX_UNAVAILABLE };
    }
  }

  #connect(): Promise<Stream | NetFailure> {
    const { net, address } = this.#options;
    const options = { source: null, timeoutMs: CONNECT_TIMEOUT_MS };
    return new Promise((resolve) => net.connect(address, options, resolve));
  }

  #unreachable<Entry>(failure: string): Answer<Entry> {
    const { address, startCommand } = this.#options;
    const next = /permission/i.test(failure)
      ? ["Run this as the user hastd runs as, normally root."]
      : ["If hastd is not running, start it:", `  ${startCommand}`];
    const lines = [`Unable to connect to hastd at ${address}: ${failure}.`, ...next];
    return { kind: "failed", lines, exitCode: EX_OSERR };
  }
}

/** Why no whole reply came. */
class NoAnswer extends Error {
  override readonly name = "NoAnswer";
}

/** @returns the nv block of the reply. @throws NoAnswer, WireError */
function exchange(
  stream: Stream,
  request: Uint8Array,
  { clock, timeoutMs }: { readonly clock: Clock; readonly timeoutMs: number },
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    let buffer = new Uint8Array(BUFFER_SIZE);
    let filled = 0;
    let over = false;
    const finish = (settle: () => void): void => {
      if (over) return;
      over = true;
      timer.cancel();
      stream.destroy();
      settle();
    };
    const timer = clock.after(timeoutMs, () => {
      const error = new NoAnswer(`nothing came for ${Math.round(timeoutMs / 1000)} seconds`);
      finish(() => reject(error));
    });
    const reader: StreamReader = {
      space: () => {
        if (filled === buffer.length) {
          const larger = new Uint8Array(buffer.length * 2);
          larger.set(buffer);
          buffer = larger;
        }
        return buffer.subarray(filled);
      },
      received: (length) => {
        if (over) return;
        filled += length;
        try {
          const size = peekFrame(buffer, 0, filled, CONTROL_NV_SIZE_MAX);
          if (size === "incomplete" || filled < FRAME_HEADER_SIZE + size) return;
          const nv = buffer.slice(FRAME_HEADER_SIZE, FRAME_HEADER_SIZE + size);
          finish(() => resolve(nv));
        } catch (error) {
          finish(() => reject(error));
        }
      },
      sent: () => {},
      closed: (reason) => {
        const error = new NoAnswer(reason ?? "it closed the connection");
        finish(() => reject(error));
      },
    };
    stream.start(reader);
    stream.write(request);
  });
}

/** The control protocol's global errors (wire protocol §12.2). */
function refusal(error: number): string {
  switch (error) {
    case 1:
      return "no such resource";
    case 2:
      return "it found the request invalid";
    case 3:
      return "it is out of memory";
    case 4:
      return "it does not know this command";
    default:
      return `error ${error}`;
  }
}

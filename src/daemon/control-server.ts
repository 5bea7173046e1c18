// SPDX-License-Identifier: BSD-2-Clause
/**
 * The control socket: one request and one reply per connection, many connections at once.
 *
 *   hastctl ─► main header, nv ─► set-role or status of some resources ─► main header, nv ─► closed
 *
 * A client has {@link REQUEST_TIMEOUT_MS} to ask; the answer may take as long as the role change does.
 * Source: FreeBSD sbin/hastd/control.c; wire protocol §12; behaviour BD-22, BD-36.
 */

import { unreachable } from "../base/assert.ts";
import type { Resolution } from "../engine/worker-messages.ts";
import type { Clock, Timer } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { Stream, StreamReader } from "../platform/net.ts";
import {
  CONTROL_INVALID,
  CONTROL_NO_SUCH_RESOURCE,
  CONTROL_OK,
  type ControlRequest,
  type DeedEntry,
  decodeControlRequest,
  encodeControlError,
  encodeDeedReply,
  encodeLeaseReply,
  encodeSetRoleReply,
  encodeStatusReply,
  type Lease,
  type LeaseEntry,
  type SetRoleEntry,
  type StatusEntry,
} from "../wire/control.ts";
import { WireError } from "../wire/error.ts";
import { FRAME_HEADER_SIZE, NV_SIZE_MAX, peekFrame } from "../wire/frame.ts";
import type { Resource } from "./resource.ts";

/** How long a request may take to arrive. */
export const REQUEST_TIMEOUT_MS = 10_000;
/** How long a client may take to read its answer. */
export const REPLY_TIMEOUT_MS = 10_000;
/** Clients at once; more are closed unheard. */
export const CLIENTS_MAX = 256;
/** Where `resource0` has this name, every resource is meant. */
const ALL = "all";
/** Whom an answer is about that is not about a resource. */
const DAEMON = "hastd";

/** What a client may do. */
export type Rights = "everything" | "status only";

export interface ControlServerParts {
  readonly clock: Clock;
  readonly log: Log;
  /** In the order of hast.conf. */
  readonly resources: () => ReadonlyMap<string, Resource>;
  readonly configuration: Configuration;
}

/** What a reload has come to, in lines for people. */
export type Reloaded =
  | { readonly kind: "done"; readonly lines: readonly string[] }
  /** `lines`: what is wrong, and where. */
  | { readonly kind: "failed"; readonly reason: string; readonly lines: readonly string[] };

/** The configuration in use. */
export interface Configuration {
  /** As a hast.conf that says all of it, for the node {@link NODE_IN_USE}. */
  text(): string;
  reload(): Promise<Reloaded>;
}

export class ControlServer {
  readonly #parts: ControlServerParts;
  readonly #clients = new Set<Client>();

  constructor(parts: ControlServerParts) {
    this.#parts = parts;
  }

  accept(stream: Stream, rights: Rights): void {
    if (this.#clients.size >= CLIENTS_MAX) {
      this.#parts.log.warning(`Control connection closed: there are ${CLIENTS_MAX} already.`);
      stream.destroy();
      return;
    }
    const client = new Client(stream, this.#parts, (request) =>
      rights === "everything" || request.kind === "status" || request.kind === "config"
        ? this.#answer(request)
        : this.#forbid(request),
    );
    this.#clients.add(client);
    client.start(() => this.#clients.delete(client));
  }

  /** Closes every connection, answered or not. */
  close(): void {
    for (const client of this.#clients) client.destroy();
  }

  async #answer(request: ControlRequest): Promise<Uint8Array> {
    const { configuration } = this.#parts;
    if (request.kind === "config") {
      const notes = configuration.text().trimEnd().split("\n");
      return encodeDeedReply({ error: CONTROL_OK, entries: [doneEntry(notes)] });
    }
    if (request.kind === "reload") {
      const reloaded = await configuration.reload();
      const entry = doneEntry(reloaded.lines);
      const outcome = { kind: "failed", error: CONTROL_INVALID } as const;
      return encodeDeedReply({
        error: CONTROL_OK,
        entries: [
          reloaded.kind === "done" ? entry : { ...entry, outcome, errmsg: reloaded.reason },
        ],
      });
    }
    const names =
      request.resources[0] === ALL ? [...this.#parts.resources().keys()] : request.resources;
    switch (request.kind) {
      case "status": {
        const entries = await Promise.all(names.map((name) => this.#status(name)));
        return encodeStatusReply({ error: CONTROL_OK, entries }, request.extended);
      }
      case "set-role": {
        const entries = await Promise.all(names.map((name) => this.#setRole(name, request)));
        return encodeSetRoleReply({ error: CONTROL_OK, entries }, request.extended);
      }
      case "lease":
        return await this.#lease(request);
      case "discard-local": {
        const { dryRun } = request;
        const deed = (resource: Resource) => resource.discardLocal(dryRun);
        const entries = await Promise.all(names.map((name) => this.#deed(name, deed)));
        return encodeDeedReply({ error: CONTROL_OK, entries });
      }
      case "sync-full": {
        const deed = (resource: Resource) => resource.fullSync();
        const entries = await Promise.all(names.map((name) => this.#deed(name, deed)));
        return encodeDeedReply({ error: CONTROL_OK, entries });
      }
      case "order": {
        const deed = (resource: Resource) => resource.obey(request.order);
        const entries = await Promise.all(names.map((name) => this.#deed(name, deed)));
        return encodeDeedReply({ error: CONTROL_OK, entries });
      }
      default:
        return unreachable(request);
    }
  }

  /** Answers at once where there is news, else when there is some, or after `waitMs`. */
  async #lease({ resources, lease, confirmed, waitMs }: LeaseRequest): Promise<Uint8Array> {
    const { clock } = this.#parts;
    const due = clock.now() + waitMs;
    for (;;) {
      const entries = resources.map((name, index) => this.#renew(name, lease, confirmed[index]!));
      const leftMs = due - clock.now();
      if (leftMs <= 0 || entries.some((entry, index) => hasNews(entry, confirmed[index]!))) {
        return encodeLeaseReply({ error: CONTROL_OK, entries });
      }
      await this.#leaseNews(resources, leftMs);
    }
  }

  #renew(name: string, lease: Lease, confirmed: number): LeaseEntry {
    const resource = this.#parts.resources().get(name);
    if (resource === undefined) {
      const outcome = { kind: "failed", error: CONTROL_NO_SUCH_RESOURCE } as const;
      return { resource: name, outcome, errmsg: noSuchResource(name) };
    }
    const renewed = resource.renewLease(lease, confirmed);
    if ("kind" in renewed) return { resource: name, outcome: renewed, errmsg: null };
    const outcome = { kind: "failed", error: CONTROL_INVALID } as const;
    return { resource: name, outcome, errmsg: renewed.reason };
  }

  #leaseNews(names: readonly string[], withinMs: number): Promise<void> {
    return new Promise((resolve) => {
      const told = () => {
        timer.cancel();
        for (const end of ends) end();
        resolve();
      };
      const ends = names.map((name) => this.#parts.resources().get(name)!.watchLease(told));
      const timer = this.#parts.clock.after(withinMs, told);
    });
  }

  async #deed(name: string, deed: (resource: Resource) => Promise<Resolution>): Promise<DeedEntry> {
    const resource = this.#parts.resources().get(name);
    if (resource === undefined) {
      const outcome = { kind: "failed", error: CONTROL_NO_SUCH_RESOURCE } as const;
      return { resource: name, outcome, errmsg: noSuchResource(name), notes: [] };
    }
    const resolution = await deed(resource);
    if (resolution.kind === "done") {
      return { resource: name, outcome: { kind: "done" }, errmsg: null, notes: resolution.lines };
    }
    const outcome = { kind: "failed", error: CONTROL_INVALID } as const;
    return { resource: name, outcome, errmsg: resolution.reason, notes: [] };
  }

  /** What a client gets that may only look. */
  async #forbid(request: ControlRequest): Promise<Uint8Array> {
    this.#parts.log.warning("A change asked for by a user who may only ask for status is refused.");
    const names = "resources" in request ? request.resources : [DAEMON];
    const entries = names.map((resource) => ({
      resource,
      outcome: { kind: "failed", error: CONTROL_INVALID } as const,
      errmsg:
        "You may ask for status and list here, and no more. Ask again as root, or as the " +
        "controlowner of hast.conf.",
      notes: [],
    }));
    return request.kind === "set-role"
      ? encodeSetRoleReply({ error: CONTROL_OK, entries }, request.extended)
      : encodeDeedReply({ error: CONTROL_OK, entries });
  }

  async #status(name: string): Promise<StatusEntry> {
    const resource = this.#parts.resources().get(name);
    if (resource !== undefined) return await resource.statusEntry();
    return {
      resource: name,
      outcome: { kind: "failed", error: CONTROL_NO_SUCH_RESOURCE },
      errmsg: noSuchResource(name),
      notes: [],
    };
  }

  async #setRole(name: string, { role, force, lease }: SetRole): Promise<SetRoleEntry> {
    const resource = this.#parts.resources().get(name);
    if (resource === undefined) {
      return {
        resource: name,
        outcome: { kind: "failed", error: CONTROL_NO_SUCH_RESOURCE },
        errmsg: noSuchResource(name),
        notes: [],
      };
    }
    const how = force ? "by force" : "by the rules";
    const change = await resource.changeRole(role, how, lease);
    if (change.kind === "done") {
      const outcome = { kind: "done", previousRole: change.previousRole } as const;
      return { resource: name, outcome, errmsg: null, notes: [] };
    }
    const outcome = { kind: "failed", error: CONTROL_INVALID } as const;
    return { resource: name, outcome, errmsg: change.reason, notes: [] };
  }
}

/** An answer about the daemon itself. */
function doneEntry(notes: readonly string[]): DeedEntry {
  return { resource: DAEMON, outcome: { kind: "done" }, errmsg: null, notes };
}

type LeaseRequest = Extract<ControlRequest, { kind: "lease" }>;

function hasNews({ outcome }: LeaseEntry, confirmed: number): boolean {
  if (outcome.kind === "failed" || outcome.role !== "primary") return true;
  return outcome.wish !== null && outcome.wish.number !== confirmed;
}

type SetRole = Extract<ControlRequest, { kind: "set-role" }>;

function noSuchResource(name: string): string {
  return `There is no resource ${name} in this node's configuration.`;
}

class Client implements StreamReader {
  readonly #stream: Stream;
  readonly #parts: ControlServerParts;
  readonly #answer: (request: ControlRequest) => Promise<Uint8Array>;
  #gone: () => void = () => undefined;
  #deadline: Timer | null = null;
  /** Main header at first; grows to header and nv block once the claimed size has been checked. */
  #bytes: Uint8Array = new Uint8Array(FRAME_HEADER_SIZE);
  #filled = 0;
  #heard = false;
  #closed = false;
  /** Where bytes after the request go. */
  readonly #surplus = new Uint8Array(64);

  constructor(
    stream: Stream,
    parts: ControlServerParts,
    answer: (request: ControlRequest) => Promise<Uint8Array>,
  ) {
    this.#stream = stream;
    this.#parts = parts;
    this.#answer = answer;
  }

  start(gone: () => void): void {
    this.#gone = gone;
    this.#limit(REQUEST_TIMEOUT_MS);
    this.#stream.start(this);
  }

  destroy(): void {
    this.#stream.destroy();
  }

  space(): Uint8Array {
    return this.#heard ? this.#surplus : this.#bytes.subarray(this.#filled);
  }

  received(length: number): void {
    // The original reads one request and no more.
    if (this.#heard || this.#closed) return;
    this.#filled += length;
    if (this.#filled < this.#bytes.length) return;
    try {
      const size = peekFrame(this.#bytes, 0, this.#filled, NV_SIZE_MAX);
      if (size === "incomplete") return;
      if (this.#filled < FRAME_HEADER_SIZE + size) {
        const whole = new Uint8Array(FRAME_HEADER_SIZE + size);
        whole.set(this.#bytes);
        this.#bytes = whole;
        return;
      }
      this.#request(this.#bytes.subarray(FRAME_HEADER_SIZE));
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#parts.log.warning(`Control connection closed: ${error.message}`);
      this.#stream.destroy();
    }
  }

  sent(): void {}

  closed(): void {
    this.#closed = true;
    this.#deadline?.cancel();
    this.#gone();
  }

  #request(nv: Uint8Array): void {
    this.#heard = true;
    const request = decodeControlRequest(nv);
    switch (request.kind) {
      case "no-command":
        this.#stream.destroy();
        return;
      case "refused":
        this.#reply(encodeControlError(request.error));
        return;
      default:
        this.#deadline?.cancel();
        this.#answer(request).then(
          (reply) => this.#reply(reply),
          (error) => {
            // Our mistake, but one client's: the resources need not suffer for it.
            this.#parts.log.error(
              `Internal error while answering on the control socket: ${error instanceof Error ? error.stack : error}`,
            );
            this.#stream.destroy();
          },
        );
    }
  }

  #reply(bytes: Uint8Array): void {
    if (this.#closed) return;
    this.#limit(REPLY_TIMEOUT_MS);
    this.#stream.write(bytes);
    this.#stream.end();
  }

  #limit(timeoutMs: number): void {
    this.#deadline?.cancel();
    this.#deadline = this.#parts.clock.after(timeoutMs, () => this.#stream.destroy());
  }
}

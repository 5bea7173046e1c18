// SPDX-License-Identifier: BSD-2-Clause
/**
 * Fresh connections from primaries, up to the moment a resource takes them.
 *
 *   accepted ─► whose host? ─► one message ─► resource? role? ─► P1: connection A, P2: connection B
 *                    └─► ClientHello ─► resource? ─► its relay ─► the plain text's one message ─┘
 *
 * A resource is reached with TLS or without, as its `remote` says, never both ways. Each listener takes both
 * kinds: they differ in the first byte. The checks and their order are those of wire protocol §6.3. Strangers are closed without a word.
 * Source: FreeBSD sbin/hastd/hastd.c, listen_accept().
 */

import { assert } from "../base/assert.ts";
import { LineQuota } from "../base/line-quota.ts";
import { printable } from "../base/printable.ts";
import type { Clock } from "../platform/clock.ts";
import { type HandshakeSocket, HandshakeSocketError } from "../platform/handshake-socket.ts";
import type { Log } from "../platform/log.ts";
import type { TlsTerminator } from "../platform/tls.ts";
import { isTls, remoteHost } from "../wire/address.ts";
import {
  ALERT_ACCESS_DENIED,
  ALERT_UNRECOGNIZED_NAME,
  encodeAlert,
  RECORD_HEADER_SIZE,
  recordSize,
  serverName,
  TLS_HANDSHAKE,
} from "../wire/client-hello.ts";
import { WireError } from "../wire/error.ts";
import { FRAME_HEADER_SIZE, NV_SIZE_MAX, peekFrame } from "../wire/frame.ts";
import { decodeHello, decodeRefusal, encodeS1, type Refusal } from "../wire/handshake.ts";
import type { Access } from "./access.ts";
import { refuse, roleRefusal } from "./handshake.ts";
import type { Resource } from "./resource.ts";

/** How long a message may take to arrive. */
export const MESSAGE_TIMEOUT_MS = 20_000;
/** A host that is refused comes again every few seconds; it is warned of this often. */
export const WARN_AGAIN_MS = 3_600_000;
/** Hosts and reasons that are remembered for that. */
const WARNINGS_MAX = 256;
/** Connections of one host whose message has not arrived, beyond two for each of its resources. */
const PENDING_SPARE = 8;

export interface HandshakeServerParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly access: Access;
  readonly tls: TlsTerminator;
  /** Called for each connection, so that it may change. */
  readonly resources: () => ReadonlyMap<string, Resource>;
}

export class HandshakeServer {
  readonly #parts: HandshakeServerParts;
  /** Connections whose message has not arrived, by host. */
  readonly #pending = new Map<string, Set<HandshakeSocket>>();
  readonly #quota = new LineQuota();
  /** When each warning was last given, by host and text. */
  readonly #warnedAt = new Map<string, number>();
  #closed = false;

  constructor(parts: HandshakeServerParts) {
    this.#parts = parts;
  }

  /** Takes a connection; resolves when it is closed, or a resource's. */
  async accept(socket: HandshakeSocket): Promise<void> {
    if (this.#closed || !this.#admit(socket)) {
      socket.destroy();
      return;
    }
    const fresh: Fresh = { socket };
    const timer = this.#parts.clock.after(MESSAGE_TIMEOUT_MS, () => fresh.socket.destroy());
    // From here on, other deadlines hold.
    const received = () => {
      timer.cancel();
      this.#dismiss(socket);
    };
    try {
      await this.#serve(fresh, received);
    } catch (error) {
      fresh.socket.destroy();
      if (error instanceof WireError || error instanceof HandshakeSocketError) {
        this.#parts.log.debug(1, `Connection from ${socket.peer} closed: ${error.message}`);
      } else {
        // Our mistake, but one connection's: the resources need not suffer for it.
        this.#parts.log.error(
          `Internal error while serving ${socket.peer}: ${error instanceof Error ? error.stack : error}`,
        );
      }
    } finally {
      received();
    }
  }

  close(): void {
    this.#closed = true;
    for (const sockets of this.#pending.values()) for (const socket of sockets) socket.destroy();
  }

  async #serve(fresh: Fresh, received: () => void): Promise<void> {
    const { access, log } = this.#parts;
    const { socket } = fresh;
    const remotes = [...this.#parts.resources().values()].map(({ settings }) => settings.remote);
    if (!(await access.allows(socket.peerHost, remotes))) {
      this.#warn(socket, log, "closed: no resource of hast.conf has it as its remote.");
      socket.destroy();
      return;
    }
    const message = await socket.receive(FRAME_HEADER_SIZE, sizeOfFirst);
    if (message[0] === TLS_HANDSHAKE) {
      await this.#serveTls(fresh, message, received);
      return;
    }
    received();
    await this.#answer(socket, message, null);
  }

  /** The other half of #serve(), where TLS comes first. */
  async #serveTls(fresh: Fresh, clientHello: Uint8Array, received: () => void): Promise<void> {
    const { access, log, tls } = this.#parts;
    const { socket } = fresh;
    const name = serverName(clientHello);
    const resource = name === null ? undefined : this.#parts.resources().get(name);
    if (name === null || resource === undefined) {
      const which = name === null ? "the resource that TLS needs to be told" : printable(name);
      this.#warn(socket, log, `refused: hast.conf has no resource ${which}.`);
      this.#alert(socket, ALERT_UNRECOGNIZED_NAME);
      return;
    }
    const { remote, tlspeer } = resource.settings;
    const host = remoteHost(remote);
    if (host === null || !(await access.allows(socket.peerHost, [remote]))) {
      this.#warn(socket, resource.log, `refused: the remote of this resource is ${remote}.`);
      this.#alert(socket, ALERT_ACCESS_DENIED);
      return;
    }
    if (!isTls(remote)) {
      this.#warn(
        socket,
        resource.log,
        `refused: it comes with TLS, and the remote of this resource here is ${remote}. ` +
          `Write tls:// on both nodes, or on neither; then, here: hastctl reload`,
      );
      this.#alert(socket, ALERT_UNRECOGNIZED_NAME);
      return;
    }
    const expected = { resource: resource.name, pin: tlspeer, host };
    let terminated: Awaited<ReturnType<TlsTerminator["terminate"]>>;
    try {
      terminated = await tls.terminate(socket, clientHello, expected);
    } catch (error) {
      if (!(error instanceof HandshakeSocketError)) throw error;
      this.#warn(socket, resource.log, `closed: ${error.message}.`);
      socket.destroy();
      return;
    }
    const plain = terminated.socket;
    if (this.#closed) {
      plain.destroy();
      return;
    }
    fresh.socket = plain;
    const message = await plain.receive(FRAME_HEADER_SIZE, nvSize);
    received();
    if (terminated.refusal !== null) {
      const { refusal } = terminated;
      this.#warn(plain, resource.log, `refused: ${refusal}. Compare, there: hastctl tls show`);
      const errmsg = `Refused there: ${refusal}. Compare, here: hastctl tls show`;
      this.#refuse(plain, refusedBy(resource, errmsg));
      return;
    }
    // Its certificate was judged by what hast.conf said before it had anything to say.
    const now = resource.settings;
    if (now.remote !== remote || now.tlspeer !== tlspeer) {
      const changed =
        "hast.conf has changed since TLS began, so its certificate is to be judged anew";
      this.#warn(plain, resource.log, `refused: ${changed}.`);
      this.#refuse(plain, refusedBy(resource, `Refused there: ${changed}.`));
      return;
    }
    await this.#answer(plain, message, resource);
  }

  /** @param secured the resource that TLS was agreed upon for, or null for plain TCP */
  async #answer(
    socket: HandshakeSocket,
    message: Uint8Array,
    secured: Resource | null,
  ): Promise<void> {
    const { access, log } = this.#parts;
    const nv = message.subarray(FRAME_HEADER_SIZE);
    if (secured !== null) {
      const refusal = decodeRefusal(nv);
      if (refusal !== null) {
        const text = `closed: refused there: ${printable(refusal)}. Compare, here: hastctl tls show`;
        this.#warn(socket, secured.log, text);
        socket.end();
        return;
      }
    }
    const hello = decodeHello(nv);

    const resource = this.#parts.resources().get(hello.resource);
    if (resource === undefined) {
      this.#warn(socket, log, `refused: hast.conf has no resource ${printable(hello.resource)}.`);
      this.#refuse(socket, refuse("Resource not configured."));
      return;
    }
    if (!(await access.allows(socket.peerHost, [resource.settings.remote]))) {
      const { remote } = resource.settings;
      this.#warn(socket, resource.log, `refused: the remote of this resource is ${remote}.`);
      this.#refuse(socket, refusedBy(resource, "No access to the resource."));
      return;
    }
    if (secured === null && isTls(resource.settings.remote)) {
      const { remote } = resource.settings;
      this.#warn(
        socket,
        resource.log,
        `refused: it comes without TLS, and the remote of this resource here is ${remote}. ` +
          `Write tls:// on both nodes, or on neither; then, there: hastctl reload`,
      );
      const errmsg = `TLS is required: the remote of this resource at the other node is ${remote}, so here it must be a tls:// address, too.`;
      this.#refuse(socket, refusedBy(resource, errmsg));
      return;
    }
    if (secured !== null && secured !== resource) {
      this.#warn(socket, resource.log, "refused: TLS was agreed upon for another resource.");
      this.#refuse(socket, refuse("TLS was agreed upon for another resource."));
      return;
    }
    if (hello.kind === "p1") resource.heardTerm(hello.term);
    const role = resource.announcedRole;
    if (role === "primary" && hello.kind === "p1") resource.meetRival(socket);
    if (role !== "secondary") {
      resource.log.debug(1, `Connection from ${socket.peer} refused: the role here is ${role}.`);
      this.#refuse(socket, roleRefusal(role));
      return;
    }
    const { disconnection } = resource;
    if (disconnection !== null) {
      resource.log.debug(1, `Connection from ${socket.peer} refused: disconnected by an operator.`);
      this.#refuse(socket, disconnection);
      return;
    }
    if (hello.kind === "p1") {
      await resource.firstStep(socket, hello);
      return;
    }
    const refusal = resource.secondStep(socket, hello);
    if (refusal !== null) {
      this.#warn(socket, resource.log, `refused: ${refusal.errmsg}`);
      this.#refuse(socket, refusal);
    }
  }

  #warn(socket: HandshakeSocket, log: Log, what: string): void {
    const text = `Connection from ${socket.peer} ${what}`;
    const key = `${socket.peerHost} ${what}`;
    const now = this.#parts.clock.now();
    const before = this.#warnedAt.get(key);
    if (before !== undefined && now - before < WARN_AGAIN_MS) {
      log.debug(1, text);
      return;
    }
    if (this.#warnedAt.size >= WARNINGS_MAX) this.#warnedAt.clear();
    this.#warnedAt.set(key, now);
    // A stranger can think of any number of things to be refused for.
    const line = this.#quota.take(now, text);
    if (line === null) log.debug(1, text);
    else log.warning(line);
  }

  #alert(socket: HandshakeSocket, description: number): void {
    socket.write(encodeAlert(description));
    socket.end();
  }

  #refuse(socket: HandshakeSocket, refusal: Refusal): void {
    socket.write(encodeS1(refusal));
    socket.end();
  }

  #admit(socket: HandshakeSocket): boolean {
    const sockets = this.#pending.get(socket.peerHost);
    if (sockets === undefined) {
      this.#pending.set(socket.peerHost, new Set([socket]));
      return true;
    }
    // A peer that has just started connects for all of its resources at once.
    if (sockets.size >= 2 * this.#parts.resources().size + PENDING_SPARE) {
      this.#parts.log.debug(1, `Connection from ${socket.peer} closed: too many unfinished ones.`);
      return false;
    }
    sockets.add(socket);
    return true;
  }

  #dismiss(socket: HandshakeSocket): void {
    const sockets = this.#pending.get(socket.peerHost);
    if (sockets?.delete(socket) && sockets.size === 0) this.#pending.delete(socket.peerHost);
  }
}

/**
 * Whoever asks whether it may be promoted is told in any case that there is a primary (S-11): a mistake in hast.conf
 * must not make two.
 */
function refusedBy({ announcedRole }: Resource, errmsg: string): Refusal {
  return { ...refuse(errmsg), wait: announcedRole === "primary" };
}

/** A connection whose message has not arrived. */
interface Fresh {
  /** What to close when it takes too long; with TLS, at first the one that TLS comes over. */
  socket: HandshakeSocket;
}

/** A TLS record's header happens to be as long as a frame's. */
function sizeOfFirst(head: Uint8Array): number {
  assert(FRAME_HEADER_SIZE === RECORD_HEADER_SIZE);
  return head[0] === TLS_HANDSHAKE ? recordSize(head) : nvSize(head);
}

function nvSize(head: Uint8Array): number {
  const size = peekFrame(head, 0, head.length, NV_SIZE_MAX);
  if (size === "incomplete") throw new WireError("frame-empty", "the main header is incomplete");
  return size;
}

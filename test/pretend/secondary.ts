// SPDX-License-Identifier: BSD-2-Clause
/**
 * The peer of a primary under test, one life of its connection: shakes hands as it is told, keeps the
 * requests it hears, and answers them by itself or when the test does.
 */

import {
  decodeHello,
  encodeS1,
  encodeS2,
  type P2,
  type S2,
  type SyncedWord,
} from "../../src/wire/handshake.ts";
import { OutgoingPayload, PayloadEncoder } from "../../src/wire/payload.ts";
import { CMD_KEEPALIVE, CMD_READ, CMD_WRITE } from "../../src/wire/request.ts";
import { type CapturedRequest, requestsOf } from "../golden/conversation.ts";
import { messageAt, nodeHashes } from "../golden/vectors.ts";
import type { Events } from "./events.ts";
import { type FarEnd, pretendConnection } from "./net.ts";
import { reply } from "./requests.ts";

export interface SecondaryOptions {
  readonly datasize: number;
  readonly extentsize?: number;
  readonly extensions?: bigint;
  readonly version?: number;
  readonly localcnt?: bigint;
  readonly remotecnt?: bigint;
  readonly virgin?: boolean;
  readonly syncsrc?: "primary" | "secondary";
  readonly map?: Uint8Array;
  readonly synced?: SyncedWord;
  readonly cache?: bigint;
  readonly outdated?: boolean;
  /** Says this instead of the first or the second answer. */
  readonly s1?: Uint8Array;
  readonly s2?: Uint8Array;
  /** Sends that answer when `until` calls what it is given. */
  readonly holds?: {
    readonly message: "s1" | "s2";
    readonly until: (send: () => void) => void;
  };
}

/** The two answers that these options amount to. */
export function handshakeOf(options: SecondaryOptions): { s1: Uint8Array; s2: Uint8Array } {
  const { version = 2, map } = options;
  const answer: S2 = {
    kind: "accepted",
    datasize: options.datasize,
    extentsize: options.extentsize ?? 65536,
    localcnt: options.localcnt ?? 0n,
    remotecnt: options.remotecnt ?? 0n,
    virgin: options.virgin ?? false,
    syncsrc: options.syncsrc ?? "primary",
    mapsize: map?.length ?? 0,
    synced: options.extensions ? (options.synced ?? "all") : null,
    cache: options.cache ?? null,
    outdated: options.outdated ?? false,
  };
  let payload: OutgoingPayload | null = null;
  if (map !== undefined) {
    payload = new OutgoingPayload();
    new PayloadEncoder(nodeHashes).encode(0, 0, map, 0, map.length, payload);
  }
  const token = new Uint8Array(16).fill(7);
  const extensions = options.extensions ?? 0n;
  return {
    s1: options.s1 ?? encodeS1({ kind: "accepted", version, token, extensions }),
    s2: options.s2 ?? encodeS2(version, answer, payload),
  };
}

export class PretendSecondary {
  readonly #events: Events;
  readonly #s1: Uint8Array;
  readonly #s2: Uint8Array;
  readonly #holds: SecondaryOptions["holds"];
  #a: FarEnd | null = null;
  #b: FarEnd | null = null;
  #hello = false;
  #second = false;
  #left = false;
  #bytes: Uint8Array = new Uint8Array(0);
  /** Requests that nobody has answered, oldest first; keepalives are only counted. */
  readonly waiting: CapturedRequest[] = [];
  /** Every request heard. */
  readonly heard: CapturedRequest[] = [];
  keepalives = 0;
  /** What the primary said on connection B. */
  p2: P2 | null = null;
  /** As a node of ours does where EXT_ALIVE was agreed upon. */
  answersKeepalives = false;
  /** Answers each request as soon as it is heard. */
  automatic = true;
  /** Where writes go and reads come from: the first 16 MiB. */
  readonly data: Uint8Array;

  constructor(events: Events, options: SecondaryOptions) {
    this.#events = events;
    const { s1, s2 } = handshakeOf(options);
    this.#s1 = s1;
    this.#s2 = s2;
    this.#holds = options.holds;
    this.data = new Uint8Array(Math.min(options.datasize, 1 << 24));
  }

  get a(): FarEnd {
    return this.#a!;
  }

  get b(): FarEnd {
    return this.#b!;
  }

  /** Waits for connection B. */
  get wantsSecond(): boolean {
    return this.#b === null && !this.#left && !this.a.closedByPeer;
  }

  /** For PretendNet.onConnect: connection A, then B. */
  connect(): FarEnd {
    const connection = pretendConnection(this.#events, "tcp://peer");
    if (this.#a === null) {
      this.#a = connection;
      connection.onHeard = () => this.#hear(connection.takeHeard());
    } else {
      this.#b = connection;
      connection.onHeard = () => {
        const heard = connection.takeHeard();
        if (this.#second) return;
        const hello = messageAt(heard, 0);
        const p2 = hello === null ? null : decodeHello(hello.nv);
        if (p2?.kind === "p2") this.p2 = p2;
        this.#second = true;
        this.#answer("s2", this.#s2);
      };
    }
    return connection;
  }

  #answer(message: "s1" | "s2", bytes: Uint8Array): void {
    const send = (): void => this.a.send(bytes);
    if (this.#holds?.message === message) this.#holds.until(send);
    else send();
  }

  #hear(bytes: Uint8Array): void {
    if (!this.#hello) {
      this.#hello = true;
      this.#answer("s1", this.#s1);
      return;
    }
    this.#bytes = new Uint8Array(Buffer.concat([this.#bytes, bytes]));
    let end = 0;
    for (;;) {
      const message = messageAt(this.#bytes, end);
      if (message === null) break;
      end += 5 + message.nv.length + message.payload.length;
    }
    const requests = requestsOf(this.#bytes.slice(0, end));
    this.#bytes = this.#bytes.slice(end);
    for (const request of requests) this.#take(request);
  }

  #take(request: CapturedRequest): void {
    if (request.header.cmd === CMD_KEEPALIVE) {
      this.keepalives++;
      if (this.answersKeepalives) this.b.send(reply(0));
      return;
    }
    this.heard.push(request);
    this.waiting.push(request);
    if (this.automatic) this.answerAll();
  }

  /** Executes and answers the oldest waiting request. */
  answerNext(): void {
    const request = this.waiting.shift()!;
    const { cmd, seqLo, offset, length, memsync } = request.header;
    if (cmd === CMD_WRITE && offset + length <= this.data.length) {
      this.data.set(request.data, offset);
    }
    if (memsync) this.b.send(reply(seqLo, { received: true }));
    const read = cmd === CMD_READ;
    this.b.send(reply(seqLo, read ? { data: this.data.slice(offset, offset + length) } : {}));
  }

  answerAll(): void {
    while (this.waiting.length > 0) this.answerNext();
  }

  /** An orderly end of both connections. */
  leave(): void {
    this.#left = true;
    this.a.end();
    this.#b?.end();
  }
}

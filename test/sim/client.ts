// SPDX-License-Identifier: BSD-2-Clause
/**
 * One NBD connection of the application: commands out, several at once, answers in, in any order.
 *
 * An answer counts from when the server has written it: from then on it cannot be taken back, whatever
 * becomes of its bytes. Source: NBD's doc/proto.md; fixed newstyle, structured replies or not.
 */

import type { StreamReader } from "../../src/platform/net.ts";
import { infoRequest, option, type Request, request, u32 } from "../nbd-peer.ts";
import type { End } from "../pretend/net.ts";
import { Violation } from "./violation.ts";

const OPT_GO = 7;
const OPT_STRUCTURED_REPLY = 8;
const NO_BYTES: Uint8Array = new Uint8Array(0);

export interface ClientHandler {
  /** Commands may be sent. */
  ready(client: NbdConnection): void;
  /** @param error 0, or an NBD error number; @param data a READ's */
  answered(client: NbdConnection, cookie: number, error: number, data: Uint8Array): void;
  /** The last call; what has not been answered never will be. */
  closed(client: NbdConnection): void;
}

export class NbdConnection implements StreamReader {
  readonly end: End;
  readonly #handler: ClientHandler;
  readonly #structured: boolean;
  #state: "greeting" | "options" | "serving" | "left" | "closed" = "greeting";
  readonly #space: Uint8Array = new Uint8Array(65536);
  #bytes: Buffer = Buffer.alloc(0);
  #nextCookie = 1;
  /** READs in flight, by cookie, and how long their data is; −1 for other commands. */
  readonly #inFlight: Map<number, number> = new Map();
  /** Data of structured replies, by cookie. */
  readonly #chunks: Map<number, Buffer[]> = new Map();

  constructor(end: End, handler: ClientHandler, structured: boolean) {
    this.end = end;
    this.#handler = handler;
    this.#structured = structured;
    end.tap = (bytes) => this.#heard(bytes);
    end.start(this);
  }

  get isReady(): boolean {
    return this.#state === "serving";
  }

  get inFlight(): number {
    return this.#inFlight.size;
  }

  /** @returns the command's cookie */
  send(wanted: Request, dataLength: number): number {
    const cookie = this.#nextCookie++;
    this.#inFlight.set(cookie, dataLength);
    this.end.write(request({ ...wanted, cookie: BigInt(cookie) }));
    return cookie;
  }

  /** Hangs up, with or without saying so. */
  leave(politely: boolean): void {
    if (this.#state === "left" || this.#state === "closed") return;
    if (politely && this.#state === "serving") {
      this.end.write(request({ type: 2 }));
      this.end.end();
    } else {
      this.end.destroy();
    }
    this.#state = "left";
  }

  space(): Uint8Array {
    return this.#space;
  }

  /** Heard already. */
  received(): void {}

  #heard(bytes: Uint8Array): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
    while (this.#state !== "left" && this.#state !== "closed") {
      const used = this.#take();
      if (used === 0) return;
      this.#bytes = this.#bytes.subarray(used);
    }
  }

  sent(): void {}

  closed(): void {
    this.#state = "closed";
    this.#handler.closed(this);
  }

  /** @returns bytes of one whole message, or 0 */
  #take(): number {
    switch (this.#state) {
      case "greeting":
        return this.#takeGreeting();
      case "options":
        return this.#takeOption();
      default:
        return this.#takeReply();
    }
  }

  #takeGreeting(): number {
    if (this.#bytes.length < 18) return 0;
    if (this.#bytes.toString("latin1", 0, 16) !== "NBDMAGICIHAVEOPT") broken("greeting");
    this.#state = "options";
    this.end.write(u32(3)); // fixed newstyle, no zeroes
    if (this.#structured) this.end.write(option(OPT_STRUCTURED_REPLY));
    this.end.write(option(OPT_GO, infoRequest("")));
    return 18;
  }

  #takeOption(): number {
    if (this.#bytes.length < 20) return 0;
    const kind = this.#bytes.readUInt32BE(8);
    const type = this.#bytes.readUInt32BE(12);
    const length = this.#bytes.readUInt32BE(16);
    if (this.#bytes.length < 20 + length) return 0;
    if (type >= 0x80000000) broken(`option ${kind} was refused`);
    if (kind === OPT_GO && type === 1) {
      this.#state = "serving";
      this.#handler.ready(this);
    }
    return 20 + length;
  }

  #takeReply(): number {
    const bytes = this.#bytes;
    if (bytes.length < 16) return 0;
    const magic = bytes.readUInt32BE(0);
    const cookie = Number(bytes.readBigUInt64BE(8));
    const expected = this.#inFlight.get(cookie);
    if (expected === undefined) broken(`an answer to ${cookie}, which is not in flight`);
    if (magic === 0x67446698) {
      const error = bytes.readUInt32BE(4);
      const length = error === 0 && expected > 0 ? expected : 0;
      if (length > 0 && this.#structured) broken("a simple reply with data");
      if (bytes.length < 16 + length) return 0;
      this.#finish(cookie, error, bytes.subarray(16, 16 + length));
      return 16 + length;
    }
    if (magic !== 0x668e33ef) broken("no reply");
    if (bytes.length < 20) return 0;
    const length = bytes.readUInt32BE(16);
    if (bytes.length < 20 + length) return 0;
    this.#takeChunk(cookie, bytes.subarray(20, 20 + length));
    return 20 + length;
  }

  #takeChunk(cookie: number, content: Buffer): void {
    const flags = this.#bytes.readUInt16BE(4);
    const type = this.#bytes.readUInt16BE(6);
    const data = this.#chunks.get(cookie) ?? [];
    let error = 0;
    if (type === 1) data.push(Buffer.from(content.subarray(8)));
    else if (type >= 0x8000) error = content.readUInt32BE(0);
    else if (type !== 0) broken(`reply chunk of type ${type}`);
    if ((flags & 1) === 0) {
      this.#chunks.set(cookie, data);
      return;
    }
    this.#chunks.delete(cookie);
    this.#finish(cookie, error, Buffer.concat(data));
  }

  #finish(cookie: number, error: number, data: Uint8Array): void {
    const expected = this.#inFlight.get(cookie)!;
    this.#inFlight.delete(cookie);
    if (error === 0 && expected >= 0 && data.length !== expected) {
      broken(`${data.length} bytes in answer to a READ of ${expected}`);
    }
    this.#handler.answered(this, cookie, error, error === 0 ? data : NO_BYTES);
  }
}

function broken(what: string): never {
  throw new Violation(`the NBD server is broken: ${what}`);
}

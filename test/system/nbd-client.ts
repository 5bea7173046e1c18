// SPDX-License-Identifier: BSD-2-Clause
/**
 * A small NBD client: fixed newstyle, NBD_OPT_GO, simple replies, any number of requests in flight.
 *
 *   request  magic u32 │ flags u16 │ type u16 │ cookie u64 │ offset u64 │ length u32 │ data of a WRITE
 *   reply    magic u32 │ error u32 │ cookie u64 │ data of a READ
 *
 * Written against the specification and not against src/nbd/, so that both can be wrong only
 * separately. Source: the NBD protocol (github.com/NetworkBlockDevice/nbd, doc/proto.md).
 */

import { createConnection, type NetConnectOpts, type Socket } from "node:net";

const OPTION_MAGIC = 0x49484156454f5054n;
const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
const REQUEST_MAGIC = 0x25609513;
const REPLY_MAGIC = 0x67446698;
const OPT_GO = 7;
const REP_ACK = 1;
const REP_INFO = 3;
const INFO_EXPORT = 0;

const COMMANDS = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, zero: 6 } as const;
const FLAG_FUA = 1;

export class NbdError extends Error {
  override readonly name = "NbdError";
  /** 0 where the connection broke; else the error number of the reply (5 = EIO, 22 = EINVAL, …). */
  readonly error: number;
  constructor(error: number, message: string) {
    super(message);
    this.error = error;
  }
}

interface Pending {
  readonly what: string;
  readonly readLength: number;
  resolve(data: Buffer): void;
  reject(error: NbdError): void;
}

export class NbdClient {
  /** Bytes. */
  readonly size: number;
  /** Transmission flags, as the server sent them. */
  readonly flags: number;
  /** Resolves when the connection is over, whoever ended it, with the reason. */
  readonly closed: Promise<string>;
  readonly #socket: Socket;
  readonly #pending = new Map<bigint, Pending>();
  #cookie = 0n;
  #chunks: Buffer[] = [];
  #chunksSize = 0;
  #over: string | null = null;

  private constructor(socket: Socket, size: number, flags: number, surplus: Buffer) {
    this.#socket = socket;
    this.size = size;
    this.flags = flags;
    this.closed = new Promise((resolve) => {
      const over = (reason: string): void => {
        if (this.#over !== null) return;
        this.#over = reason;
        for (const pending of this.#pending.values()) {
          pending.reject(new NbdError(0, `${pending.what}: ${reason}`));
        }
        this.#pending.clear();
        resolve(reason);
      };
      socket.on("error", (error) => over(error.message));
      socket.on("close", () => over("connection closed"));
      socket.on("end", () => socket.destroy());
      socket.on("data", (chunk: Buffer) => this.#received(chunk));
    });
    if (surplus.length > 0) this.#received(surplus);
    socket.resume();
  }

  /**
   * Connects and negotiates.
   *
   * @param address where the server listens: `{ path }` or `{ host, port }`
   * @param exportName empty for the server's default
   * @throws NbdError when the server refuses; Error when there is none
   */
  static async connect(address: NetConnectOpts, exportName = ""): Promise<NbdClient> {
    const socket = createConnection(address);
    const input = new Input(socket);
    try {
      const greeting = await input.take(18);
      if (greeting.toString("latin1", 0, 16) !== "NBDMAGICIHAVEOPT") {
        throw new NbdError(0, `no NBD greeting: ${greeting.toString("hex")}`);
      }
      const name = Buffer.from(exportName);
      const hello = Buffer.alloc(4 + 16 + 4 + name.length + 2);
      hello.writeUInt32BE(greeting.readUInt16BE(16) & 3, 0);
      hello.writeBigUInt64BE(OPTION_MAGIC, 4);
      hello.writeUInt32BE(OPT_GO, 12);
      hello.writeUInt32BE(4 + name.length + 2, 16);
      hello.writeUInt32BE(name.length, 20);
      name.copy(hello, 24);
      socket.write(hello);
      let size = -1;
      let flags = 0;
      for (;;) {
        const head = await input.take(20);
        if (head.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC || head.readUInt32BE(8) !== OPT_GO) {
          throw new NbdError(0, `not an option reply: ${head.toString("hex")}`);
        }
        const type = head.readUInt32BE(12);
        const data = await input.take(head.readUInt32BE(16));
        if (type >= 0x8000_0000) {
          throw new NbdError(type & 0x7fff_ffff, `export "${exportName}" refused: ${data}`);
        }
        if (type === REP_INFO && data.readUInt16BE(0) === INFO_EXPORT) {
          size = Number(data.readBigUInt64BE(2));
          flags = data.readUInt16BE(10);
        }
        if (type === REP_ACK) break;
      }
      if (size < 0) throw new NbdError(0, "the server did not tell the export's size");
      return new NbdClient(socket, size, flags, input.release());
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  read(offset: number, length: number): Promise<Buffer> {
    return this.#send("read", 0, offset, length, null);
  }

  async write(offset: number, data: Uint8Array, options: { fua?: boolean } = {}): Promise<void> {
    await this.#send("write", options.fua ? FLAG_FUA : 0, offset, data.length, data);
  }

  async flush(): Promise<void> {
    await this.#send("flush", 0, 0, 0, null);
  }

  async trim(offset: number, length: number): Promise<void> {
    await this.#send("trim", 0, offset, length, null);
  }

  async zero(offset: number, length: number): Promise<void> {
    await this.#send("zero", 0, offset, length, null);
  }

  /** Says goodbye and waits until the server has hung up. */
  async disconnect(): Promise<void> {
    if (this.#over === null) this.#socket.write(request("disconnect", 0, 0n, 0, 0));
    await this.closed;
  }

  /** Vanishes, as a killed client does. */
  destroy(): void {
    this.#socket.destroy();
  }

  /** Sends bytes that are nobody's request: for tests of the server's manners. */
  sendRaw(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** Stops taking replies, as a stuck client does. */
  stopReading(): void {
    this.#socket.pause();
  }

  #send(
    command: keyof typeof COMMANDS,
    flags: number,
    offset: number,
    length: number,
    data: Uint8Array | null,
  ): Promise<Buffer> {
    const what = `${command} of ${length} bytes at ${offset}`;
    if (this.#over !== null) return Promise.reject(new NbdError(0, `${what}: ${this.#over}`));
    const cookie = ++this.#cookie;
    return new Promise((resolve, reject) => {
      const readLength = command === "read" ? length : 0;
      this.#pending.set(cookie, { what, readLength, resolve, reject });
      this.#socket.cork();
      this.#socket.write(request(command, flags, cookie, offset, length));
      if (data !== null) this.#socket.write(data);
      this.#socket.uncork();
    });
  }

  #received(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#chunksSize += chunk.length;
    for (;;) {
      if (this.#chunksSize < 16) return;
      if (this.#chunks[0]!.length < 16) this.#chunks = [Buffer.concat(this.#chunks)];
      const head = this.#chunks[0]!;
      const pending = this.#pending.get(head.readBigUInt64BE(8));
      if (head.readUInt32BE(0) !== REPLY_MAGIC || pending === undefined) {
        this.#socket.destroy(new Error(`not a reply: ${head.toString("hex", 0, 16)}`));
        return;
      }
      const error = head.readUInt32BE(4);
      const total = 16 + (error === 0 ? pending.readLength : 0);
      if (this.#chunksSize < total) return;
      const all = this.#chunks.length === 1 ? head : Buffer.concat(this.#chunks);
      this.#chunks = all.length > total ? [all.subarray(total)] : [];
      this.#chunksSize = all.length - total;
      this.#pending.delete(head.readBigUInt64BE(8));
      if (error === 0) pending.resolve(all.subarray(16, total));
      else pending.reject(new NbdError(error, `${pending.what}: the server answered ${error}`));
    }
  }
}

function request(
  command: keyof typeof COMMANDS,
  flags: number,
  cookie: bigint,
  offset: number,
  length: number,
): Buffer {
  const bytes = Buffer.alloc(28);
  bytes.writeUInt32BE(REQUEST_MAGIC, 0);
  bytes.writeUInt16BE(flags, 4);
  bytes.writeUInt16BE(COMMANDS[command], 6);
  bytes.writeBigUInt64BE(cookie, 8);
  bytes.writeBigUInt64BE(BigInt(offset), 16);
  bytes.writeUInt32BE(length, 24);
  return bytes;
}

/** Bytes of a socket on demand, for the negotiation. */
class Input {
  readonly #socket: Socket;
  #bytes: Buffer = Buffer.alloc(0);
  #failure: Error | null = null;
  #wake: () => void = () => {};
  readonly #onData = (chunk: Buffer): void => {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    this.#wake();
  };
  readonly #onError = (error: Error): void => {
    this.#failure = error;
    this.#wake();
  };
  readonly #onEnd = (): void => {
    this.#failure ??= new NbdError(0, "the server hung up during negotiation");
    this.#wake();
  };

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", this.#onData);
    socket.on("error", this.#onError);
    socket.on("end", this.#onEnd);
    socket.on("close", this.#onEnd);
  }

  async take(length: number): Promise<Buffer> {
    while (this.#bytes.length < length) {
      if (this.#failure !== null) throw this.#failure;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const taken = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return taken;
  }

  /** Stops listening. @returns what has arrived and was not taken */
  release(): Buffer {
    this.#socket.pause();
    this.#socket.off("data", this.#onData);
    this.#socket.off("error", this.#onError);
    this.#socket.off("end", this.#onEnd);
    this.#socket.off("close", this.#onEnd);
    return this.#bytes;
  }
}

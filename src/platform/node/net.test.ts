// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import tls from "node:tls";
import { Authority, type Certified } from "../../../test/certificates.ts";
import { encodeAlert } from "../../wire/client-hello.ts";
import {
  type Listener,
  NetError,
  type NetFailure,
  type SecuredClient,
  type Stream,
  type StreamReader,
} from "../net.ts";
import type { Credentials } from "../tls.ts";
import { createArena } from "./arena.ts";
import { readCertificate } from "./certificate.ts";
import { createNet, nodeNet } from "./net.ts";
import { adoptSocket } from "./socket-stream.ts";

let dir = "";
const AUTHORITY = new Authority("operator");
const HOUR_MS = 3_600_000;
before(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), "hast-net-"));
});
after(() => {
  fs.rmSync(dir, { recursive: true, force: true });
  AUTHORITY.close();
});

/** A node of the operator's, with more or other files. */
function credentialsOf(own: Certified, more: Partial<Credentials> = {}): Credentials {
  const authorities = AUTHORITY.certificate;
  return { key: own.key, certificate: own.certificate, authorities, clients: null, ...more };
}

const HERE: Certified = AUTHORITY.certify({ names: "IP:127.0.0.1" });
const THERE: Certified = AUTHORITY.certify({ names: "IP:127.0.0.1" });

function pinOf({ certificate }: Certified): string {
  const facts = readCertificate(certificate);
  assert.ok(!("failure" in facts));
  return facts.fingerprint;
}

/** Reads into one area, `roomMax` bytes at a time, and keeps what came. */
class Collector implements StreamReader {
  readonly #area: Uint8Array = createArena(65536);
  readonly #roomMax: number;
  #given = false;
  #at = 0;
  readonly chunks: Buffer[] = [];
  sentCount = 0;
  sentCalls = 0;
  closedCalls: (string | null)[] = [];
  onReceived: (total: number) => void = () => {};
  #wake: () => void = () => {};

  constructor(roomMax: number = 65536) {
    this.#roomMax = roomMax;
  }
  space(): Uint8Array {
    assert.equal(this.#given, false, "space() twice without received()");
    this.#given = true;
    this.#at = (this.#at + 7) % 1000;
    const room = Math.min(this.#roomMax, this.#area.length - this.#at);
    return this.#area.subarray(this.#at, this.#at + room);
  }
  received(length: number): void {
    assert.equal(this.#given, true);
    assert.ok(length > 0);
    assert.ok(length <= this.#roomMax);
    this.#given = false;
    this.chunks.push(Buffer.from(this.#area.subarray(this.#at, this.#at + length)));
    this.onReceived(this.length);
    this.#wake();
  }
  sent(count: number): void {
    assert.ok(count > 0);
    this.sentCount += count;
    this.sentCalls += 1;
    this.#wake();
  }
  closed(reason: string | null): void {
    this.closedCalls.push(reason);
    this.#wake();
  }
  get length(): number {
    return this.chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  }
  get text(): string {
    return Buffer.concat(this.chunks).toString();
  }
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

/** What a connection that nothing disturbs looks like from both ends. */
interface Pair {
  readonly client: Stream;
  readonly server: Stream;
  readonly listener: Listener;
  close(): void;
}

async function pair(address: string): Promise<Pair> {
  if (address.startsWith("tls")) return await tlsPair(address);
  let accept: (stream: Stream) => void = () => {};
  const accepted = new Promise<Stream>((resolve) => {
    accept = resolve;
  });
  const listener = await nodeNet.listen(address, accept, assert.fail);
  const client = await connect(listener.address);
  const server = await accepted;
  const close = () => {
    client.destroy();
    server.destroy();
    listener.close();
  };
  return { client, server, listener, close };
}

/** A client's net, and a server that goes on with STARTTLS. */
async function tlsPair(address: string): Promise<Pair> {
  const { client, server, refusal, listener } = await secured(address, {});
  assert.equal(refusal, null);
  const close = () => {
    client.destroy();
    server.destroy();
    listener.close();
  };
  return { client, server, listener, close };
}

interface Secured {
  readonly client: Stream;
  readonly server: Stream;
  /** Of the client's certificate. */
  readonly refusal: string | null;
  readonly listener: Listener;
}

interface Sides {
  readonly client?: Credentials;
  readonly server?: Credentials;
  readonly pin?: string | null;
}

/** @throws Error with the client's reason */
async function secured(address: string, sides: Sides): Promise<Secured> {
  const clientNet = createNet(() => sides.client ?? credentialsOf(HERE));
  const serverNet = createNet(() => sides.server ?? credentialsOf(THERE));
  let accept: (secured: SecuredClient) => void = () => {};
  const accepted = new Promise<SecuredClient>((resolve) => {
    accept = resolve;
  });
  const listener = await serverNet.listen(
    address.replace("tls", "tcp"),
    (stream) => {
      stream.start(new Collector());
      stream.pause();
      serverNet.startTls!(stream, 5000, (result) => {
        if (!("failure" in result)) accept(result);
      });
    },
    assert.fail,
  );
  const expected = { resource: "r0", pin: sides.pin === undefined ? pinOf(THERE) : sides.pin };
  try {
    const client = await new Promise<Stream>((resolve, reject) => {
      clientNet.connect(address, { source: null, timeoutMs: 5000, expected }, (result) => {
        if ("failure" in result) reject(new Error(result.failure));
        else resolve(result);
      });
    });
    const { stream, refusal } = await accepted;
    return { client, server: stream, refusal, listener };
  } catch (error) {
    listener.close();
    throw error;
  }
}

function connect(address: string, source: string | null = null): Promise<Stream> {
  return new Promise((resolve, reject) => {
    nodeNet.connect(address, { source, timeoutMs: 5000 }, (result) => {
      if ("failure" in result) reject(new Error(result.failure));
      else resolve(result);
    });
  });
}

for (const kind of ["tcp", "unix", "tls"]) {
  // Port 0 is no HAST address, so the tests look for a free one beforehand.
  const listenAddress = async () =>
    kind === "unix" ? `unix://${dir}/stream.sock` : `${kind}://127.0.0.1:${await freePort()}`;

  test(`${kind}: bytes arrive in order, whatever their pieces, and sent() counts every write`, async () => {
    const { client, server, close } = await pair(await listenAddress());
    const here = new Collector();
    const there = new Collector(1000);
    client.start(here);
    server.start(there);
    client.write(Buffer.from("one "));
    client.writeAll([Buffer.from("two "), Buffer.from("three "), Buffer.from("four")]);
    assert.equal(here.sentCount, 0, "sent() from inside write()");
    await there.until(() => there.text === "one two three four");
    await here.until(() => here.sentCount === 4);
    assert.ok(here.sentCalls <= 2);
    server.write(Buffer.from("back"));
    await here.until(() => here.text === "back");
    close();
  });

  test(`${kind}: end() delivers what was written, and both ends close orderly, once`, async () => {
    const { client, server, close } = await pair(await listenAddress());
    const here = new Collector();
    const there = new Collector();
    client.start(here);
    server.start(there);
    const sent = Buffer.alloc(3_000_000, "abcdefg");
    client.write(sent);
    client.end();
    await there.until(() => there.closedCalls.length > 0);
    await here.until(() => here.closedCalls.length > 0);
    assert.ok(Buffer.concat(there.chunks).equals(sent));
    assert.deepEqual(here.closedCalls, [null]);
    assert.deepEqual(there.closedCalls, [null]);
    server.write(Buffer.from("void"));
    close();
  });

  test(`${kind}: destroy() is followed by closed() and nothing else`, async () => {
    const { client, server, close } = await pair(await listenAddress());
    const here = new Collector();
    const there = new Collector();
    client.start(here);
    server.start(there);
    client.write(Buffer.alloc(100));
    client.destroy();
    client.destroy();
    client.write(Buffer.alloc(100));
    assert.deepEqual(here.closedCalls, [], "closed() from inside destroy()");
    await here.until(() => here.closedCalls.length > 0);
    await there.until(() => there.closedCalls.length > 0);
    assert.deepEqual(here.closedCalls, ["closed by this side"]);
    assert.equal(here.sentCount, 0);
    close();
    await new Promise(setImmediate);
    assert.equal(here.closedCalls.length, 1);
    assert.equal(there.closedCalls.length, 1);
  });

  test(`${kind}: pause() inside received() stops at once and loses nothing; resume() goes on`, async () => {
    const { client, server, close } = await pair(await listenAddress());
    const there = new Collector(100);
    const data = Buffer.from(Array.from({ length: 5000 }, (_, index) => index % 251));
    let paused = false;
    there.onReceived = () => {
      assert.equal(paused, false, "received() while paused");
      paused = true;
      server.pause();
      setImmediate(() => {
        paused = false;
        server.resume();
      });
    };
    server.start(there);
    client.start(new Collector());
    client.write(data);
    await there.until(() => there.length === data.length);
    assert.ok(Buffer.concat(there.chunks).equals(data));
    close();
  });

  test(`${kind}: pause() and resume() from outside lose nothing`, async () => {
    const { client, server, close } = await pair(await listenAddress());
    const there = new Collector(5000);
    server.start(there);
    client.start(new Collector());
    const data = Buffer.alloc(1_000_000, "0123456789abc");
    client.write(data);
    while (there.length < data.length) {
      server.pause();
      server.pause();
      await new Promise(setImmediate);
      server.resume();
      server.resume();
      await new Promise(setImmediate);
    }
    assert.ok(Buffer.concat(there.chunks).equals(data));
    close();
  });

  test(`${kind}: a stream that is not started reads nothing, and tells of its end when it is`, async () => {
    const { client, server, close } = await pair(await listenAddress());
    const here = new Collector();
    client.start(here);
    client.write(Buffer.from("early"));
    server.write(Buffer.from("before start"));
    await here.until(() => here.text === "before start");
    for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
    const there = new Collector();
    server.start(there);
    await there.until(() => there.text === "early" && there.sentCount === 1);
    close();

    const second = await pair(await listenAddress());
    second.server.destroy();
    await new Promise((resolve) => setTimeout(resolve, 10));
    const late = new Collector();
    second.server.start(late);
    assert.deepEqual(late.closedCalls, []);
    await late.until(() => late.closedCalls.length > 0);
    assert.deepEqual(late.closedCalls, ["closed by this side"]);
    second.close();
  });
}

test("tls: a certificate is judged by its pin alone, or by the authority, the name and the dates", async () => {
  const stranger = new Authority("somebody");
  const address = `tls://127.0.0.1:${await freePort()}`;
  const day = 24 * HOUR_MS;
  const others = { names: "DNS:beta" };
  const old = { names: "IP:127.0.0.1", from: ago(3 * day), until: ago(2 * day) };
  const early = { names: "IP:127.0.0.1", from: ago(-2 * day), until: ago(-3 * day) };
  const cases: readonly [Certified, "pinned" | "not pinned", RegExp | null][] = [
    [THERE, "pinned", null],
    [THERE, "not pinned", null],
    [stranger.certify({ names: "IP:127.0.0.1" }), "pinned", null],
    [stranger.certify({ names: "IP:127.0.0.1" }), "not pinned", /is not vouched for by ca\.pem/],
    [AUTHORITY.certify(others), "pinned", null],
    [AUTHORITY.certify(others), "not pinned", /is not for 127\.0\.0\.1, but for DNS:beta/],
    [AUTHORITY.certify(old), "pinned", /expired at \S+Z, and now is/],
    [AUTHORITY.certify(old), "not pinned", /expired at \S+Z, and now is/],
    [AUTHORITY.certify(early), "pinned", /is valid from \S+Z only/],
  ];
  for (const [certified, pinned, reason] of cases) {
    const pin = pinned === "pinned" ? pinOf(certified) : null;
    const made = secured(address, { server: credentialsOf(certified), pin });
    if (reason !== null) {
      await assert.rejects(made, reason);
      continue;
    }
    const { client, server, listener } = await made;
    client.destroy();
    server.destroy();
    listener.close();
  }
  // Signed as it should be, for the right name: but not the one that is pinned.
  await assert.rejects(
    secured(address, { pin: pinOf(HERE) }),
    new RegExp(`is refused: the certificate is ${pinOf(THERE)}, and tlspeer says ${pinOf(HERE)}`),
  );
  // Nobody vouches for anybody where there is no authority; the system's do not count.
  const alone = credentialsOf(HERE, { authorities: null });
  await assert.rejects(
    secured(address, { client: alone, pin: null }),
    /there is neither a tlspeer nor a ca\.pem/,
  );
  stranger.close();
});

test("tls: a server says why a client's certificate will not do, whatever the client thinks of its own", async () => {
  const stranger = new Authority("somebody");
  const address = `tls://127.0.0.1:${await freePort()}`;
  const client = credentialsOf(stranger.certify({ names: "DNS:app" }));
  const known = credentialsOf(THERE, { clients: stranger.certificate });
  for (const [server, reason] of [
    [undefined, /not vouched for by ca\.pem/],
    [known, null],
  ] as const) {
    const made = await secured(address, server === undefined ? { client } : { client, server });
    if (reason === null) assert.equal(made.refusal, null);
    else assert.match(made.refusal ?? "", reason);
    made.client.destroy();
    made.server.destroy();
    made.listener.close();
  }
  stranger.close();
});

test("tls: a connection that began before a reload that wants no TLS fails, and nothing else does", async () => {
  const expected = { resource: "r0", pin: null };
  let accepted: (stream: Stream) => void = () => {};
  const arrived = new Promise<Stream>((resolve) => {
    accepted = resolve;
  });
  const listener = await nodeNet.listen(
    `tcp://127.0.0.1:${await freePort()}`,
    (each) => accepted(each),
    assert.fail,
  );
  const to = listener.address.replace(/^tcp\d?/, "tls");
  const result = await new Promise((resolve) => {
    nodeNet.connect(to, { source: null, timeoutMs: 5000, expected }, resolve);
  });
  assert.deepEqual(result, { failure: "hast.conf wants no TLS any more" });
  const stream = await arrived;
  stream.pause();
  const secured = await new Promise((resolve) => {
    nodeNet.startTls!(stream, 5000, resolve);
  });
  assert.deepEqual(secured, { failure: "hast.conf wants no TLS any more" });
  listener.close();
});

test("tls: whoever does not answer with TLS 1.3 is told apart", async () => {
  const answers: readonly [(socket: net.Socket) => void, RegExp][] = [
    [(socket) => socket.destroy(), /closed the connection instead of answering TLS/],
    [(socket) => socket.end(Buffer.of(2, 5, 0, 0, 0, 1, 2, 3, 4, 5)), /did not answer with TLS/],
    [(socket) => socket.end(encodeAlert(112)), /takes no TLS for this resource/],
    [(socket) => socket.end(encodeAlert(49)), /has no access for this address/],
    [() => undefined, /no connection within 0\.3 s/],
  ];
  const expected = { resource: "r0", pin: pinOf(THERE) };
  for (const [answer, reason] of answers) {
    const sockets: net.Socket[] = [];
    const server = net.createServer((socket) => {
      sockets.push(socket);
      socket.on("error", () => undefined);
      socket.once("data", () => answer(socket));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as net.AddressInfo;
    const { connect: to } = createNet(() => credentialsOf(HERE));
    const failure = await new Promise<string>((resolve) => {
      to(`tls://127.0.0.1:${port}`, { source: null, timeoutMs: 300, expected }, (result) => {
        resolve("failure" in result ? result.failure : "connected");
      });
    });
    assert.match(failure, reason);
    for (const socket of sockets) socket.destroy();
    server.close();
  }
  const old = await new Promise<string>((resolve) => {
    const server = tls.createServer({
      key: THERE.key,
      cert: THERE.certificate,
      maxVersion: "TLSv1.2",
    });
    server.on("tlsClientError", () => undefined);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as net.AddressInfo;
      const { connect: to } = createNet(() => credentialsOf(HERE));
      to(`tls://127.0.0.1:${port}`, { source: null, timeoutMs: 5000, expected }, (result) => {
        server.close();
        resolve("failure" in result ? result.failure : "connected");
      });
    });
  });
  assert.match(old, /the peer has no TLS 1\.3/);
});

function ago(ms: number): Date {
  return new Date(Date.now() - ms);
}

test("a reset by the peer is closed() with the reason", async () => {
  const port = await freePort();
  let accept: (stream: Stream) => void = () => {};
  const accepted = new Promise<Stream>((resolve) => {
    accept = resolve;
  });
  const listener = await nodeNet.listen(`tcp4://127.0.0.1:${port}`, accept, assert.fail);
  const client = net.connect(port, "127.0.0.1");
  const reader = new Collector();
  (await accepted).start(reader);
  client.resetAndDestroy();
  await reader.until(() => reader.closedCalls.length > 0);
  assert.deepEqual(reader.closedCalls, ["connection reset by peer"]);
  listener.close();
});

test("not a byte beyond space() is taken: the rest reaches whoever gets the socket", async () => {
  const { client, server, close } = await pair(`tcp4://127.0.0.1:${await freePort()}`);
  client.start(new Collector());
  client.write(Buffer.from("HEADbody"));
  const reader = new Collector(4);
  reader.onReceived = (total) => {
    if (total >= 4) server.pause();
  };
  // One byte at first, then what is left of the four.
  let left = 4;
  const exact: StreamReader = {
    space: () => reader.space().subarray(0, left),
    received: (length) => {
      left -= length;
      reader.received(length);
    },
    sent: () => {},
    closed: (reason) => reader.closed(reason),
  };
  server.start(exact);
  await reader.until(() => reader.length === 4);
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  assert.equal(reader.text, "HEAD");
  left = 100;
  reader.onReceived = () => {};
  server.resume();
  await reader.until(() => reader.text === "HEADbody");
  close();
});

test("a socket from the parent process keeps its 16 MiB intact", async () => {
  const program = `
    import { createHash } from "node:crypto";
    import { adoptSocket } from ${JSON.stringify(path.join(import.meta.dirname, "socket-stream.ts"))};
    process.on("message", (message, socket) => {
      const stream = adoptSocket(socket, "tcp://parent");
      const hash = createHash("sha256");
      const area = new Uint8Array(100_001);
      let length = 0;
      stream.start({
        space: () => area,
        received(count) {
          length += count;
          hash.update(area.subarray(0, count));
          if (length % 7 === 0) {
            stream.pause();
            setImmediate(() => stream.resume());
          }
          if (length < message.length) return;
          stream.write(Buffer.from(hash.digest("hex")));
          stream.end();
        },
        sent() {},
        closed() { process.disconnect(); },
      });
    });`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  const data = Buffer.alloc(16 << 20);
  for (let at = 0; at < data.length; at += 4)
    data.writeUInt32LE(Math.imul(at, 2654435761) >>> 0, at);
  const server = net.createServer({ pauseOnConnect: true }, (socket) => {
    child.send({ length: data.length }, socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as net.AddressInfo;
  const client = await connect(`tcp://127.0.0.1:${port}`);
  const reader = new Collector();
  client.start(reader);
  client.write(data);
  const exited = new Promise((resolve) => child.once("exit", resolve));
  await reader.until(() => reader.closedCalls.length > 0);
  assert.equal(reader.text, createHash("sha256").update(data).digest("hex"));
  assert.deepEqual(reader.closedCalls, [null]);
  server.close();
  assert.equal(await exited, 0);
});

test("adoptSocket() reads straight into the reader's memory: no copy of Node's is made", async () => {
  const { client, server, close } = await pair(`tcp4://127.0.0.1:${await freePort()}`);
  client.start(new Collector());
  const memory = createArena(65536);
  const seen: number[] = [];
  await new Promise<void>((resolve) => {
    server.start({
      space: () => memory.subarray(seen.length * 10, seen.length * 10 + 10),
      received: (length) => {
        // The bytes are there before received(), and in what space() gave, not before or behind it.
        assert.equal(memory[seen.length * 10], 0x5a);
        seen.push(length);
        if (seen.length === 6) resolve();
      },
      sent: () => {},
      closed: () => {},
    });
    client.write(Buffer.alloc(51, 0x5a));
  });
  assert.deepEqual(seen, [1, 10, 10, 10, 10, 10]);
  close();
});

test("adoptSocket() refuses a socket that has been closed", () => {
  assert.throws(() => adoptSocket(new net.Socket(), "tcp://nobody"), /no handle/);
});

test("connect() says in words why it failed, later and once", async () => {
  const port = await freePort();
  const failures: [string, string | null, RegExp][] = [
    [`tcp4://127.0.0.1:${port}`, null, /^connection refused$/],
    [`unix://${dir}/nobody.sock`, null, /^no such file or directory$/],
    ["tcp://10.0.0.1:notaport", null, /port/],
    ["tcp4://no-such-host.invalid", null, /^no-such-host\.invalid: host name/],
    ["tcp4://127.0.0.1", "tcp6://::1", /^source tcp6:\/\/::1: ::1 is no IPv4 address$/],
    ["tcp4://127.0.0.1", "tcp4://192.0.2.77", /address not available/],
  ];
  for (const [address, source, expected] of failures) {
    let inside = true;
    const failure = await new Promise<string>((resolve) => {
      nodeNet.connect(address, { source, timeoutMs: 5000 }, (result) => {
        assert.equal(inside, false, "done() from inside connect()");
        assert.ok("failure" in result);
        resolve(result.failure);
      });
      inside = false;
    });
    assert.match(failure, expected);
  }
});

test("connect() gives up after timeoutMs", async () => {
  // A stopped process whose queue of connections is full: the kernel no longer answers for it.
  const program = `require("net").createServer().listen({ port: 0, host: "127.0.0.1", backlog: 1 },
    function () { console.log(this.address().port); })`;
  const child = spawn(process.execPath, ["-e", program], { stdio: ["ignore", "pipe", "inherit"] });
  const port = Number(await new Promise((resolve) => child.stdout.once("data", resolve)));
  child.kill("SIGSTOP");
  const queued = Array.from({ length: 4 }, () => net.connect(port, "127.0.0.1"));
  for (const socket of queued) socket.on("error", () => {});
  await new Promise((resolve) => setTimeout(resolve, 50));
  const failure = await new Promise<string>((resolve) => {
    const options = { source: null, timeoutMs: 100 };
    nodeNet.connect(`tcp4://127.0.0.1:${port}`, options, (result) => {
      resolve("failure" in result ? result.failure : "connected");
    });
  });
  for (const socket of queued) socket.destroy();
  child.kill("SIGKILL");
  assert.equal(failure, "no connection within 0.1 s");
});

test("an abandoned connect() is not reported", async () => {
  const port = await freePort();
  const listener = await nodeNet.listen(`tcp4://127.0.0.1:${port}`, () => {}, assert.fail);
  const abandon = nodeNet.connect(listener.address, { source: null, timeoutMs: 1000 }, () =>
    assert.fail("reported"),
  );
  abandon();
  abandon();
  await new Promise((resolve) => setTimeout(resolve, 20));
  listener.close();
});

test("connect() uses the source address", async () => {
  const port = await freePort();
  const peer = new Promise<string>((resolve) => {
    void nodeNet
      .listen(`tcp4://127.0.0.1:${port}`, (stream) => resolve(stream.peer), assert.fail)
      .then((listener) => after(() => listener.close()));
  });
  const client = await connect(`tcp://localhost:${port}`, "127.0.0.5");
  assert.match(await peer, /^tcp:\/\/127\.0\.0\.5:[0-9]+$/);
  assert.equal(client.peer, `tcp://localhost:${port}`);
  client.destroy();
});

test("listen() on one port takes both families side by side, and names the port it got", async (t) => {
  const port = await freePort();
  const four = await nodeNet.listen(`tcp4://0.0.0.0:${port}`, () => {}, assert.fail);
  assert.equal(four.address, `tcp4://0.0.0.0:${port}`);
  try {
    const six = await nodeNet.listen(`tcp6://[::]:${port}`, () => {}, assert.fail);
    assert.equal(six.address, `tcp6://[::]:${port}`);
    six.close();
  } catch (error) {
    if (!(error instanceof NetError) || error.code !== "EAFNOSUPPORT") throw error;
    t.diagnostic("this machine has no IPv6");
  }
  four.close();
});

test("listen() says what is in the way and what to do", async () => {
  const port = await freePort();
  const first = await nodeNet.listen(`tcp4://127.0.0.1:${port}`, () => {}, assert.fail);
  const socket = path.join(dir, "live.sock");
  const live = await nodeNet.listen(`unix://${socket}`, () => {}, assert.fail);
  const plain = path.join(dir, "plain");
  fs.writeFileSync(plain, "precious");
  const cases: [string, string, RegExp][] = [
    [`tcp4://127.0.0.1:${port}`, "EADDRINUSE", /another port.*ss -ltnp/],
    [`unix://${socket}`, "EADDRINUSE", /another process listens there.*fuser/],
    [`unix://${plain}`, "EEXIST", /no socket is in the way/],
    [`unix://${dir}/a/b/c.sock`, "ENOENT", /mkdir -p/],
    ["tcp4://192.0.2.77:8457", "EADDRNOTAVAIL", /no interface/],
    ["tcp4://no-such-host.invalid", "EINVAL", /host name/],
    ["nonsense://x", "EINVAL", /scheme/],
  ];
  for (const [address, code, message] of cases) {
    await assert.rejects(
      nodeNet.listen(address, () => {}, assert.fail),
      (error) => error instanceof NetError && error.code === code && message.test(error.message),
      address,
    );
  }
  assert.equal(fs.readFileSync(plain, "utf8"), "precious");
  first.close();
  live.close();
});

test("listen() replaces a unix socket that a killed process left, and makes its directory", async () => {
  const socket = path.join(dir, "run", "stale.sock");
  const program = `require("net").createServer().listen(${JSON.stringify(path.join(dir, "stale.sock"))},
    () => process.kill(process.pid, "SIGKILL"))`;
  await new Promise((resolve) =>
    spawn(process.execPath, ["-e", program], { stdio: "ignore" }).once("exit", resolve),
  );
  fs.mkdirSync(path.dirname(socket));
  fs.renameSync(path.join(dir, "stale.sock"), socket);
  assert.ok(fs.lstatSync(socket).isSocket());
  const listener = await nodeNet.listen(`unix://${socket}`, () => {}, assert.fail);
  assert.equal(fs.statSync(socket).mode & 0o777, 0o600);
  const stream = await connect(`unix://${socket}`);
  stream.destroy();
  listener.close();
  await new Promise(setImmediate);
  assert.equal(fs.existsSync(socket), false);

  const fresh = path.join(dir, "made", "new.sock");
  (await nodeNet.listen(`unix://${fresh}`, () => {}, assert.fail)).close();
  assert.ok(fs.statSync(path.dirname(fresh)).isDirectory());
});

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

test("listen() at a unix socket: a process that is busy refuses none of 300 clients", async () => {
  const socket = path.join(dir, "crowded.sock");
  const listener = await nodeNet.listen(
    `unix://${socket}`,
    (stream) => stream.destroy(),
    assert.fail,
  );
  // connect() is called at once, and nothing is accepted before this turn is over.
  const clients = Array.from({ length: 300 }, () => net.connect(socket));
  const ends = clients.map(
    (client) =>
      new Promise<string>((resolve) => {
        client.on("error", (error) => resolve(error.message));
        client.on("close", () => resolve("accepted, and closed"));
        client.resume();
      }),
  );
  assert.deepEqual([...new Set(await Promise.all(ends))], ["accepted, and closed"]);
  listener.close();
});

test("a unix socket is its owner's alone from its first moment, whatever the umask", async () => {
  const file = path.join(dir, "private.sock");
  const before = process.umask(0);
  const listening = nodeNet.listen(`unix://${file}`, () => {}, assert.fail);
  const mode = fs.statSync(file).mode & 0o777;
  const umask = process.umask(before);
  (await listening).close();
  assert.equal(mode, 0o600);
  assert.equal(umask, 0);
});

test("a TCP stream finds out by itself that its peer's machine has died", async () => {
  const server = net.createServer((socket) => socket.resume());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as net.AddressInfo;
  const connected = Promise.withResolvers<Stream | NetFailure>();
  const options = { source: null, timeoutMs: 5_000 };
  nodeNet.connect(`tcp4://127.0.0.1:${port}`, options, connected.resolve);
  const stream = await connected.promise;
  assert.ok(!("failure" in stream));
  stream.start(new Collector());
  // proc(5), net/tcp: local address, remote address, state, queues, timer: 02 is keepalive.
  const remote = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const line = fs
    .readFileSync("/proc/net/tcp", "utf8")
    .split("\n")
    .map((each) => each.trim().split(/\s+/))
    .find((fields) => fields[2] === remote && fields[3] === "01");
  stream.destroy();
  server.close();
  assert.match(line?.[5] ?? "", /^02:/);
});

test("a UNIX socket gets the owner, group and mode asked for, and its clients are known by user", async (t) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "hast-access-"));
  t.after(() => fs.rmSync(directory, { recursive: true }));
  const file = path.join(directory, "ctl");
  const users: (number | null)[] = [];
  const own = { user: process.getuid!(), group: process.getgid!() };
  const listener = await nodeNet.listen(
    `unix://${file}`,
    (stream, user) => {
      users.push(user);
      stream.destroy();
    },
    () => undefined,
    { mode: 0o640, ...own },
  );
  t.after(() => listener.close());
  const { mode, uid, gid } = fs.statSync(file);
  assert.deepEqual([mode & 0o777, uid, gid], [0o640, own.user, own.group]);
  const client = net.connect(file);
  client.on("error", () => undefined);
  client.resume();
  await new Promise((resolve) => client.once("close", resolve));
  assert.deepEqual(users, [process.getuid!()]);
});

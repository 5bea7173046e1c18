// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  FakeClock,
  FakeLog,
  FakeProcesses,
  FakeResolver,
  FakeSocket,
  NO_TLS,
  settingsOf,
  settle,
  surroundingsOf,
} from "../../test/daemon/fakes.ts";
import { fuzz, mutated } from "../../test/fuzz.ts";
import type { HandshakeSocket } from "../platform/handshake-socket.ts";
import { HandshakeSocketError } from "../platform/handshake-socket.ts";
import type { Terminated, TlsTerminator } from "../platform/tls.ts";
import { encodeFrame, FRAME_HEADER_SIZE } from "../wire/frame.ts";
import { decodeS1, encodeP1, encodeP2 } from "../wire/handshake.ts";
import { Access } from "./access.ts";
import { HandshakeServer, MESSAGE_TIMEOUT_MS, WARN_AGAIN_MS } from "./handshake-server.ts";
import { Resource } from "./resource.ts";

/** Ends TLS when the test says so. */
class FakeTls implements TlsTerminator {
  readonly asked: {
    readonly resource: string;
    readonly pin: string | null;
    readonly host: string;
  }[] = [];
  end: (result: Terminated | Error) => void = () => assert.fail("nobody asked");

  terminate(
    socket: HandshakeSocket,
    _hello: Uint8Array,
    expected: Parameters<TlsTerminator["terminate"]>[2],
  ): Promise<Terminated> {
    this.asked.push({ ...expected });
    assert.ok(socket instanceof FakeSocket);
    return new Promise((resolve, reject) => {
      this.end = (result) => (result instanceof Error ? reject(result) : resolve(result));
    });
  }

  /** The plain end, on which the peer says `bytes`. */
  async accept(bytes: Uint8Array, refusal: string | null = null): Promise<FakeSocket> {
    const plain = new FakeSocket("10.0.0.2");
    this.end({ socket: plain, refusal });
    plain.feed(bytes);
    await settle();
    return plain;
  }
}

/** As OpenSSL begins, with a server name. */
function clientHello(name: string): Uint8Array {
  const text = Buffer.from(name);
  const u16 = (value: number): Buffer => Buffer.of(value >> 8, value & 255);
  const names = Buffer.concat([Buffer.of(0), u16(text.length), text]);
  const extension = Buffer.concat([u16(0), u16(names.length + 2), u16(names.length), names]);
  const rest = Buffer.concat([Buffer.of(0), u16(2), Buffer.of(19, 2, 1, 0), u16(extension.length)]);
  const body = Buffer.concat([Buffer.of(3, 3), Buffer.alloc(32, 7), rest, extension]);
  const message = Buffer.concat([Buffer.of(1, 0), u16(body.length), body]);
  return new Uint8Array(Buffer.concat([Buffer.of(22, 3, 1), u16(message.length), message]));
}

const PIN = `sha256:${"ab".repeat(32)}`;

const P1 = encodeP1({ resource: "r0", version: 2, extensions: 0n, term: 0n });

class World {
  readonly clock = new FakeClock();
  readonly processes = new FakeProcesses();
  readonly log = new FakeLog();
  readonly resolver = new FakeResolver();
  readonly tls = new FakeTls();
  readonly resource = this.make("r0", "tcp://hast2");
  readonly resources = new Map([["r0", this.resource]]);
  readonly server = new HandshakeServer({
    clock: this.clock,
    log: this.log,
    access: new Access(this.clock, this.resolver),
    tls: this.tls,
    resources: () => this.resources,
  });

  constructor() {
    this.resolver.answers.set("hast2", ["10.0.0.2"]);
    this.processes.born = (worker) => worker.says({ kind: "ready" });
  }

  make(name: string, remote: string): Resource {
    const { clock, processes, log } = this;
    return new Resource(settingsOf(name, { remote }), surroundingsOf({ clock, processes, log }));
  }

  async connect(bytes?: Uint8Array, host = "10.0.0.2"): Promise<FakeSocket> {
    const socket = new FakeSocket(host);
    void this.server.accept(socket);
    if (bytes !== undefined) socket.feed(bytes);
    await settle();
    return socket;
  }
}

test("a message may arrive in any pieces", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  for (let cut = 1; cut < P1.length; cut++) {
    const socket = await world.connect(P1.subarray(0, cut));
    assert.equal(socket.written.length, 0);
    socket.feed(P1.subarray(cut));
    await settle();
    assert.equal(decodeS1(socket.written.subarray(FRAME_HEADER_SIZE)).kind, "accepted");
  }
});

test("a peer that sends nothing is closed after 20 s, while others are served (BD-22)", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  const silent = await world.connect();
  const partial = await world.connect(P1.subarray(0, 30));
  const other = await world.connect(P1);
  assert.equal(decodeS1(other.written.subarray(FRAME_HEADER_SIZE)).kind, "accepted");
  await world.clock.advance(MESSAGE_TIMEOUT_MS - 1);
  assert.equal(silent.state, "open");
  await world.clock.advance(1);
  assert.equal(silent.state, "destroyed");
  assert.equal(partial.state, "destroyed");
});

test("a resource whose old worker hangs holds up no other resource's handshake (BD-22)", async () => {
  const stuck = new World();
  const other = new World();
  for (const { resource } of [stuck, other]) await resource.changeRole("secondary");
  const both = new Map([
    ["r0", stuck.resource],
    ["r1", other.resource],
  ]);
  const { clock, log, resolver } = stuck;
  const access = new Access(clock, resolver);
  const server = new HandshakeServer({ clock, log, access, tls: NO_TLS, resources: () => both });
  const connect = async (bytes: Uint8Array): Promise<FakeSocket> => {
    const socket = new FakeSocket("10.0.0.2");
    void server.accept(socket);
    socket.feed(bytes);
    await settle();
    return socket;
  };
  const first = await connect(P1);
  const { token } = decodeS1(first.written.subarray(FRAME_HEADER_SIZE)) as { token: Uint8Array };
  const p2 = { resource: "r0", token, virgin: false, resuid: 7n, localcnt: 1n, remotecnt: 0n };
  await connect(encodeP2(2, { ...p2, remarks: null, life: null, whole: false }));
  stuck.processes.last.obedient = false;
  const again = await connect(P1);
  assert.equal(again.written.length, 0, "waits for the old worker");
  const next = await connect(encodeP1({ resource: "r1", version: 2, extensions: 0n, term: 0n }));
  assert.equal(decodeS1(next.written.subarray(FRAME_HEADER_SIZE)).kind, "accepted");
});

test("a silent name server delays a stranger only, and within a deadline", async () => {
  const world = new World();
  world.resolver.silent = true;
  const socket = await world.connect(P1);
  assert.equal(socket.state, "open");
  await world.clock.advance(MESSAGE_TIMEOUT_MS);
  assert.equal(socket.state, "destroyed");
  assert.equal(socket.written.length, 0);
  world.resolver.release();
  await settle();
  assert.equal(world.clock.timerCount, 0);
});

test("a refused host is warned of once an hour, however often it comes", async () => {
  const world = new World();
  const p1 = encodeP1({ resource: "no\n[ERROR] such", version: 2, extensions: 0n, term: 0n });
  const warnings = (): string[] => world.log.lines.filter((line) => /^WARNING/.test(line));
  for (let count = 0; count < 20; count++) await world.connect(p1);
  assert.equal(warnings().length, 1);
  assert.match(warnings()[0]!, /from tcp:\/\/10\.0\.0\.2.* no resource no\?\[ERROR\] such\.$/);
  await world.clock.advance(WARN_AGAIN_MS);
  await world.connect(p1);
  assert.equal(warnings().length, 2);
});

test("unfinished connections of one host are limited, and closing one makes room", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  const sockets: FakeSocket[] = [];
  for (let count = 0; count < 10; count++) sockets.push(await world.connect());
  assert((await world.connect()).state === "destroyed");
  sockets[3]!.break("closed by the peer");
  await settle();
  const next = await world.connect(P1);
  assert.equal(decodeS1(next.written.subarray(FRAME_HEADER_SIZE)).kind, "accepted");
});

test("a connection whose message has arrived counts no longer as unfinished", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  for (let count = 0; count < 50; count++) {
    const socket = await world.connect(P1);
    assert.equal(decodeS1(socket.written.subarray(FRAME_HEADER_SIZE)).kind, "accepted");
  }
});

test("S-11: a worker that still asks whether it may be primary hears who comes as primary; one that is, does not", async () => {
  const world = new World();
  world.processes.born = () => undefined;
  const change = world.resource.changeRole("primary");
  await settle();
  const [asking] = world.processes.workers;
  const rival = async (host: string): Promise<unknown> => {
    const a = await world.connect(P1, host);
    assert.deepEqual(decodeS1(a.written.subarray(FRAME_HEADER_SIZE)).kind, "refused");
    return asking!.sent.filter(({ kind }) => kind === "rival").at(-1);
  };
  world.resolver.answers.set("hast2", ["10.0.0.2", "10.0.0.0", "10.0.0.1"]);
  // We are 10.0.0.1.
  assert.deepEqual(await rival("10.0.0.2"), { kind: "rival", isFirst: true });
  assert.deepEqual(await rival("10.0.0.0"), { kind: "rival", isFirst: false });
  assert.deepEqual(await rival("10.0.0.1"), { kind: "rival", isFirst: null });
  asking!.says({ kind: "ready" });
  assert.equal((await change).kind, "done");
  await rival("10.0.0.2");
  assert.equal(asking!.kinds.filter((kind) => kind === "rival").length, 3);
});

test("a refused second step is answered on B and on A, and both are closed (BD-33)", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  const a = await world.connect(P1);
  const accepted = a.written.length;
  const hello = {
    resource: "r0",
    virgin: false,
    resuid: 1n,
    localcnt: 0n,
    remotecnt: 0n,
    remarks: null,
    life: null,
    whole: false,
  };
  const b = await world.connect(encodeP2(2, { ...hello, token: new Uint8Array(16).fill(9) }));
  const refusal = { kind: "refused", errmsg: "Token doesn't match.", wait: false };
  assert.deepEqual(decodeS1(a.written.subarray(accepted + FRAME_HEADER_SIZE)), refusal);
  assert.deepEqual(decodeS1(b.written.subarray(FRAME_HEADER_SIZE)), refusal);
  assert.equal(a.state, "ended");
  assert.equal(b.state, "ended");
});

test("an oversized message is closed at its header", async () => {
  const world = new World();
  const socket = await world.connect(new Uint8Array([2, 1, 0, 1, 0]));
  assert.equal(socket.state, "destroyed");
  assert.equal(socket.written.length, 0);
});

test("any bytes leave the daemon serving, and leave no timer behind", async () => {
  const wellFramed = fc
    .uint8Array({ minLength: 1, maxLength: 200 })
    .map((nv) => encodeFrame(2, nv));
  // The World's entropy makes this token, so that the second connection can belong to the first.
  const token = new Uint8Array(16).fill(1);
  const hello = {
    resource: "r0",
    virgin: false,
    resuid: 1n,
    localcnt: 0n,
    remotecnt: 0n,
    remarks: null,
    life: null,
    whole: false,
  };
  const connections = fc.oneof(
    fc.oneof(fc.uint8Array({ maxLength: 200 }), wellFramed, mutated(P1)).map((bytes) => [bytes]),
    mutated(encodeP2(2, { ...hello, token })).map((bytes) => [P1, bytes]),
  );
  await fuzz(
    fc.asyncProperty(connections, async (messages) => {
      const world = new World();
      const other = world.make("r1", "tcp4://10.0.0.3");
      world.resources.set("r1", other);
      await other.changeRole("secondary");
      const p1 = encodeP1({ resource: "r1", version: 2, extensions: 0n, term: 0n });
      const a = await world.connect(p1, "10.0.0.3");
      const p2 = encodeP2(2, { ...hello, resource: "r1", token });
      const b = await world.connect(p2, "10.0.0.3");
      const bystander = world.processes.last;

      await world.resource.changeRole("secondary");
      const sockets: FakeSocket[] = [];
      for (const bytes of messages) sockets.push(await world.connect(bytes));
      for (const socket of sockets) socket.break("closed by the peer");
      await settle();
      assert.equal(world.clock.timerCount, 0);
      // What is left of the bytes may be a handshake like any other: its worker is ended.
      await world.resource.changeRole("init");
      await world.resource.changeRole("secondary");
      const socket = await world.connect(P1);
      assert.equal(decodeS1(socket.written.subarray(FRAME_HEADER_SIZE)).kind, "accepted");
      assert(!world.log.says("Internal error"));

      assert.equal(other.role, "secondary");
      assert.deepEqual(bystander.sockets, [a, b]);
      assert.equal(bystander.alive, true);
    }),
  );
});

test("close() ends what is unfinished and refuses what comes", async () => {
  const world = new World();
  const socket = await world.connect();
  world.server.close();
  assert.equal(socket.state, "destroyed");
  assert.equal((await world.connect(P1)).state, "destroyed");
});

test("strangers that come again and again do not fill the log", async () => {
  const world = new World();
  for (let count = 0; count < 500; count++) {
    await world.connect(
      encodeP1({ resource: `no\n[ERROR] ${count}`, version: 2, extensions: 0n, term: 0n }),
    );
  }
  const lines = world.log.lines.filter((line) => /^WARNING/.test(line));
  assert.equal(lines.length, 20);
  assert.match(lines[0]!, /no resource no\?\[ERROR\] 0/);
});

/** A world whose resource wants TLS. */
async function tlsWorld(): Promise<World> {
  const world = new World();
  const settings = settingsOf("r0", { remote: "tls://hast2", tlspeer: PIN });
  await world.resource.reconfigure(
    settings,
    () => null,
    () => undefined,
  );
  await world.resource.changeRole("secondary");
  return world;
}

test("a resource with a tls:// remote is served over TLS, by its pin, and what comes inside is as ever", async () => {
  const world = await tlsWorld();
  const raw = await world.connect(clientHello("r0"));
  assert.deepEqual(world.tls.asked, [{ resource: "r0", pin: PIN, host: "hast2" }]);
  assert.equal(raw.written.length, 0);
  const plain = await world.tls.accept(P1);
  assert.equal(decodeS1(plain.written.subarray(FRAME_HEADER_SIZE)).kind, "accepted");
});

test("a resource with a tls:// remote takes no plain connection, and says what is needed", async () => {
  const world = await tlsWorld();
  const plain = await world.connect(P1);
  const answer = decodeS1(plain.written.subarray(FRAME_HEADER_SIZE));
  assert.ok(answer.kind === "refused");
  assert.match(answer.errmsg, /^TLS is required: .*tls:\/\/hast2.*must be a tls:\/\/ address, too/);
  assert.equal(plain.state, "ended");
  assert.deepEqual(world.tls.asked, []);
  // Nor a second step whose first one came over TLS.
  await world.connect(clientHello("r0"));
  const a = await world.tls.accept(P1);
  const s1 = decodeS1(a.written.subarray(FRAME_HEADER_SIZE));
  assert.ok(s1.kind === "accepted");
  const counts = {
    virgin: false,
    resuid: 1n,
    localcnt: 1n,
    remotecnt: 0n,
    remarks: null,
    life: null,
    whole: false,
  };
  const b = await world.connect(encodeP2(2, { resource: "r0", token: s1.token, ...counts }));
  assert.match(JSON.stringify(decodeS1(b.written.subarray(FRAME_HEADER_SIZE))), /TLS is required/);
  assert.equal(world.processes.workers.length, 0);
});

test("TLS for a resource that has none, or that is unknown, is answered with an alert before it begins", async () => {
  const world = new World();
  await world.resource.changeRole("secondary");
  for (const name of ["r0", "nosuch"]) {
    const socket = await world.connect(clientHello(name));
    assert.deepEqual([...socket.written], [21, 3, 3, 0, 2, 2, 112]);
    assert.equal(socket.state, "ended");
  }
  assert.deepEqual(world.tls.asked, []);
});

test("a peer whose certificate will not do is told why on the connection, and gets no token", async () => {
  const world = await tlsWorld();
  await world.connect(clientHello("r0"));
  const plain = await world.tls.accept(P1, "the certificate is a stranger's");
  const answer = decodeS1(plain.written.subarray(FRAME_HEADER_SIZE));
  assert.ok(answer.kind === "refused");
  assert.match(
    answer.errmsg,
    /^Refused there: the certificate is a stranger's\. Compare, here: hastctl tls show$/,
  );
  assert.match(world.log.lines.join("\n"), /refused: the certificate is a stranger's/);
});

test("a connection from before a reload that names another tlspeer is not served after it", async () => {
  const world = await tlsWorld();
  await world.connect(clientHello("r0"));
  const plain = await world.tls.accept(new Uint8Array(0));
  await world.resource.reconfigure(
    settingsOf("r0", { remote: "tls://hast2", tlspeer: `sha256:${"cd".repeat(32)}` }),
    () => null,
    () => undefined,
  );
  plain.feed(P1);
  await settle();
  assert.match(
    JSON.stringify(decodeS1(plain.written.subarray(FRAME_HEADER_SIZE))),
    /refused.*hast.conf has changed/,
  );
});

test("S-11: a primary says that it is one, although TLS or the address does not fit", async () => {
  const world = await tlsWorld();
  const waits = async (): Promise<(boolean | undefined)[]> => {
    const waitsIn = (socket: FakeSocket): boolean | undefined => {
      const answer = decodeS1(socket.written.subarray(FRAME_HEADER_SIZE));
      return answer.kind === "refused" ? answer.wait : undefined;
    };
    const plain = await world.connect(P1);
    await world.connect(clientHello("r0"));
    const stranger = await world.tls.accept(P1, "the certificate is a stranger's");
    const elsewhere = await world.connect(P1, "10.0.0.9");
    return [plain, stranger, elsewhere].map(waitsIn);
  };
  world.resolver.answers.set("hast9", ["10.0.0.9"]);
  world.resources.set("r9", world.make("r9", "tcp://hast9"));
  assert.deepEqual(await waits(), [false, false, false]);
  await world.resource.changeRole("primary");
  assert.deepEqual(await waits(), [true, true, true]);
});

test("inside the TLS of one resource no other is served", async () => {
  const world = await tlsWorld();
  world.resources.set("r1", world.make("r1", "tls://hast2"));
  await world.resources.get("r1")!.changeRole("secondary");
  await world.connect(clientHello("r0"));
  const plain = await world.tls.accept(
    encodeP1({ resource: "r1", version: 2, extensions: 0n, term: 0n }),
  );
  assert.match(
    JSON.stringify(decodeS1(plain.written.subarray(FRAME_HEADER_SIZE))),
    /another resource/,
  );
});

test("TLS that is never finished counts as unfinished, and ends after 20 s; others are served", async () => {
  const world = await tlsWorld();
  const raw = await world.connect(clientHello("r0"));
  const { end } = world.tls;
  await world.connect(clientHello("r0"));
  const plain = await world.tls.accept(P1);
  assert.equal(decodeS1(plain.written.subarray(FRAME_HEADER_SIZE)).kind, "accepted");
  let refused = 0;
  for (let count = 0; count < 30; count++) {
    if ((await world.connect(clientHello("r0"))).state === "destroyed") refused++;
  }
  assert.ok(refused >= 15, `${refused} were refused`);
  end(new HandshakeSocketError("no TLS within 15 s"));
  await settle();
  assert.match(world.log.lines.join("\n"), /closed: no TLS within 15 s/);
  await world.clock.advance(MESSAGE_TIMEOUT_MS);
  assert.equal(raw.state, "destroyed");
});

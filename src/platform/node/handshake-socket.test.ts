// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { connect, type Socket } from "node:net";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { type HandshakeSocket, HandshakeSocketError } from "../handshake-socket.ts";
import { NetError } from "../net.ts";
import type { ProcessExit, WorkerProcess } from "../process.ts";
import { NodeHandshakeNet, NodeResolver } from "./handshake-socket.ts";
import { NodeProcesses } from "./process.ts";

const STUB = path.resolve(import.meta.dirname, "../../../test/daemon/stub-worker.ts");

/** Listens, and gives pairs of a client's socket and what was accepted. */
async function listen(t: TestContext, host = "127.0.0.1") {
  const waiting: HandshakeSocket[] = [];
  let arrived: () => void = () => undefined;
  const listener = await new NodeHandshakeNet().listenHandshake(
    { host, port: 0 },
    (socket) => {
      waiting.push(socket);
      arrived();
    },
    assert.fail,
  );
  t.after(() => listener.close());
  const port = Number(/:(\d+)$/.exec(listener.address)![1]);
  return async (): Promise<{ client: Socket; accepted: HandshakeSocket }> => {
    const client = connect({ host, port });
    client.on("error", () => undefined);
    t.after(() => client.destroy());
    const accept = new Promise<void>((resolve) => {
      arrived = resolve;
    });
    await once(client, "connect");
    if (waiting.length === 0) await accept;
    const accepted = waiting.shift()!;
    t.after(() => accepted.destroy());
    return { client, accepted };
  };
}

/** Four bytes that say how many follow. */
function bodyLength(head: Uint8Array): number {
  return Number(Buffer.from(head).toString());
}

async function read(socket: Socket, length: number): Promise<string> {
  let text = "";
  while (text.length < length) {
    const [bytes] = await once(socket, "data");
    text += bytes;
  }
  return text;
}

function stubWorker(t: TestContext, resource: string) {
  const processes = new NodeProcesses({
    script: STUB,
    output: "inherit",
    user: null,
    credentials: null,
  });
  const messages: unknown[] = [];
  const exited = Promise.withResolvers<ProcessExit>();
  const worker: WorkerProcess = processes.spawn(
    { resource, role: "secondary" },
    {
      message: (message) => messages.push(message),
      exited: exited.resolve,
    },
  );
  t.after(async () => {
    worker.kill("SIGKILL");
    await exited.promise;
  });
  worker.send({ kind: "start", role: "secondary", settings: { resource } });
  return { worker, messages, exited: exited.promise };
}

test("receive() gives head and body, however they are cut", async (t) => {
  const pair = await listen(t);
  const message = "0006abcdef";
  for (let cut = 1; cut < message.length; cut++) {
    const { client, accepted } = await pair();
    client.setNoDelay();
    client.write(message.slice(0, cut));
    const received = accepted.receive(4, bodyLength);
    await delay(2);
    client.write(message.slice(cut));
    assert.equal(Buffer.from(await received).toString(), message);
    client.destroy();
  }
});

test("receive() takes a head without a body", async (t) => {
  const { client, accepted } = await (await listen(t))();
  client.write("0000");
  assert.equal(Buffer.from(await accepted.receive(4, bodyLength)).toString(), "0000");
});

test("receive() rejects when the peer closes early, and when we do", async (t) => {
  const pair = await listen(t);
  const one = await pair();
  one.client.end("0006abc");
  await assert.rejects(one.accepted.receive(4, bodyLength), HandshakeSocketError);
  const two = await pair();
  const received = two.accepted.receive(4, bodyLength);
  two.accepted.destroy();
  await assert.rejects(received, HandshakeSocketError);
  await once(two.client, "close");
});

test("receive() rejects with what bodyLength throws", async (t) => {
  const { client, accepted } = await (await listen(t))();
  client.write("0006abcdef");
  const refuse = () => {
    throw new RangeError("too long");
  };
  await assert.rejects(accepted.receive(4, refuse), RangeError);
});

test("a byte behind the message is reported, whether it came with it or later", async (t) => {
  const pair = await listen(t);
  for (const together of [true, false]) {
    const { client, accepted } = await pair();
    client.write(together ? "0003abcX" : "0003abc");
    assert.equal(Buffer.from(await accepted.receive(4, bodyLength)).toString(), "0003abc");
    const broken = new Promise<string>((resolve) => accepted.whenBroken(resolve));
    if (!together) client.write("X");
    assert.match(await broken, /sent more than its handshake message/);
  }
});

test("whenBroken() tells of what happened before it was called", async (t) => {
  const { client, accepted } = await (await listen(t))();
  client.write("0003abc");
  await accepted.receive(4, bodyLength);
  client.destroy();
  await delay(20);
  const broken = new Promise<string>((resolve) => accepted.whenBroken(resolve));
  assert.match(await broken, /closed|lost|reset/i);
});

test("end() delivers what was written and closes, though the peer does not", async (t) => {
  const { client, accepted } = await (await listen(t))();
  client.write("0003abc");
  await accepted.receive(4, bodyLength);
  accepted.whenBroken(assert.fail);
  accepted.write(Buffer.from("no"));
  accepted.end();
  assert.equal(await read(client, 2), "no");
  await once(client, "end");
});

test("a worker gets the socket with every byte that came after the message", async (t) => {
  const pair = await listen(t);
  const { worker } = stubWorker(t, "echo");
  for (const rest of ["", "x", "xyz", "x".repeat(100_000)]) {
    const { client, accepted } = await pair();
    client.write("0003abc");
    await accepted.receive(4, bodyLength);
    accepted.whenBroken(assert.fail);
    // Nobody reads between these two: what arrives now is for the worker.
    worker.send({ kind: "socket", channel: "a", peer: accepted.peer }, accepted);
    client.write(rest);
    await delay(5);
    client.write("last");
    const text = (await readUntil(client, "last")).replaceAll("a:", "");
    assert.equal(text, `${rest}last`);
    client.destroy();
  }
});

async function readUntil(socket: Socket, end: string): Promise<string> {
  let text = "";
  while (!text.endsWith(end)) text += (await once(socket, "data"))[0];
  return text;
}

test("sockets that a dying worker did not take are closed, and no descriptor is lost", async (t) => {
  const pair = await listen(t);
  const count = () => readdirSync("/proc/self/fd").length;
  // The first worker opens what stays open.
  for (let round = 0, before = 0; round < 4; round++) {
    const { worker, exited } = stubWorker(t, "deaf");
    const closed: Promise<unknown>[] = [];
    for (const channel of ["a", "b"]) {
      const { client, accepted } = await pair();
      client.write("0003abc");
      await accepted.receive(4, bodyLength);
      worker.send({ kind: "socket", channel, peer: accepted.peer }, accepted);
      client.resume();
      closed.push(once(client, "close"));
    }
    assert.deepEqual(await exited, { kind: "signal", signal: "SIGKILL" });
    await Promise.all(closed);
    await delay(10);
    if (round === 0) before = count();
    else assert.equal(count(), before);
  }
});

test("a socket sent to a worker that has gone is closed", async (t) => {
  const pair = await listen(t);
  const { worker, exited } = stubWorker(t, "echo");
  worker.kill("SIGKILL");
  await exited;
  const { client, accepted } = await pair();
  client.write("0003abc");
  await accepted.receive(4, bodyLength);
  worker.send({ kind: "socket", channel: "a", peer: accepted.peer }, accepted);
  client.resume();
  await once(client, "close");
});

test("addresses are shown in canonical form", async (t) => {
  const four = await (await listen(t))();
  assert.equal(four.accepted.peerHost, "127.0.0.1");
  assert.equal(four.accepted.localHost, "127.0.0.1");
  assert.match(four.accepted.peer, /^tcp:\/\/127\.0\.0\.1:\d+$/);
  const six = await (await listen(t, "::1"))();
  assert.equal(six.accepted.peerHost, "::1");
});

test("both families listen on one port, and peers keep their own addresses", async (t) => {
  const net = new NodeHandshakeNet();
  const hosts: string[] = [];
  const accepted = (socket: HandshakeSocket) => {
    hosts.push(socket.peerHost);
    socket.destroy();
  };
  const first = await net.listenHandshake({ host: "0.0.0.0", port: 0 }, accepted, assert.fail);
  t.after(() => first.close());
  const port = Number(/:(\d+)$/.exec(first.address)![1]);
  const second = await net.listenHandshake({ host: "::", port }, accepted, assert.fail);
  t.after(() => second.close());
  for (const host of ["127.0.0.1", "::1"]) {
    const client = connect({ host, port });
    client.on("error", () => undefined);
    client.resume();
    await once(client, "close");
  }
  assert.deepEqual(hosts, ["127.0.0.1", "::1"]);
});

test("an address that cannot be bound is a NetError with the system's code", async (t) => {
  const net = new NodeHandshakeNet();
  const refuse = () => assert.fail();
  const first = await net.listenHandshake({ host: "127.0.0.1", port: 0 }, refuse, refuse);
  t.after(() => first.close());
  const port = Number(/:(\d+)$/.exec(first.address)![1]);
  const codes: [string, number, string][] = [
    ["127.0.0.1", port, "EADDRINUSE"],
    ["192.0.2.1", 0, "EADDRNOTAVAIL"],
    ["does-not-exist.invalid", 0, "ENOTFOUND"],
  ];
  for (const [host, wanted, code] of codes) {
    await assert.rejects(net.listenHandshake({ host, port: wanted }, refuse, refuse), (error) => {
      assert(error instanceof NetError);
      assert.equal(error.code, code);
      return true;
    });
  }
});

test("a resolver gives every address, and none for a name that has none", async () => {
  const resolver = new NodeResolver();
  assert.deepEqual(await resolver.lookup("127.0.0.1"), ["127.0.0.1"]);
  assert.deepEqual(await resolver.lookup("does-not-exist.invalid"), []);
});

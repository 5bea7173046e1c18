// SPDX-License-Identifier: BSD-2-Clause
/** The real relay, as hastd starts it: a client, its ClientHello, and the plain end. */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { Authority } from "../../../test/certificates.ts";
import { RECORD_HEADER_SIZE, recordSize } from "../../wire/client-hello.ts";
import { type HandshakeSocket, HandshakeSocketError } from "../handshake-socket.ts";
import type { Stream } from "../net.ts";
import type { Credentials, Terminated } from "../tls.ts";
import { readCertificate } from "./certificate.ts";
import { NodeHandshakeNet } from "./handshake-socket.ts";
import { createNet } from "./net.ts";
import { NodeTlsTerminator } from "./tls-terminator.ts";

const AUTHORITY = new Authority("operator");
after(() => AUTHORITY.close());

function credentials(): Credentials & { readonly pin: string } {
  const { key, certificate } = AUTHORITY.certify({ names: "IP:127.0.0.1" });
  const facts = readCertificate(certificate);
  assert.ok(!("failure" in facts));
  return { key, certificate, authorities: null, clients: null, pin: facts.fingerprint };
}

const PRIMARY = credentials();
const SECONDARY = credentials();

function terminator(): NodeTlsTerminator {
  return new NodeTlsTerminator({
    script: path.join(import.meta.dirname, "../../bin/tls.ts"),
    output: "inherit",
    user: null,
    credentials: SECONDARY,
  });
}

/** A listener whose connections `tls` ends. @returns its port, and what became of each */
async function listening(tls: NodeTlsTerminator, pin: string) {
  const results: Promise<Terminated>[] = [];
  let wake: () => void = () => {};
  const accepted = (socket: HandshakeSocket): void => {
    const result = socket
      .receive(RECORD_HEADER_SIZE, recordSize)
      .then((hello) => tls.terminate(socket, hello, { resource: "r0", pin, host: "127.0.0.1" }));
    result.catch(() => undefined);
    results.push(result);
    wake();
  };
  const port = await freePort();
  const listener = await new NodeHandshakeNet().listenHandshake(
    { host: "127.0.0.1", port },
    accepted,
    assert.fail,
  );
  const next = async (): Promise<Promise<Terminated>> => {
    while (results.length === 0) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    return results.shift()!;
  };
  return { port, next: async () => await await next(), close: () => listener.close() };
}

async function freePort(): Promise<number> {
  return await new Promise((resolve) => {
    const server = net.createServer();
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as net.AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

async function connected(port: number): Promise<Stream> {
  const { connect } = createNet(() => PRIMARY);
  const expected = { resource: "r0", pin: SECONDARY.pin };
  return await new Promise((resolve, reject) => {
    connect(`tls://127.0.0.1:${port}`, { source: null, timeoutMs: 20_000, expected }, (result) =>
      "failure" in result ? reject(new Error(result.failure)) : resolve(result),
    );
  });
}

/** What the stream says until it closes. */
function heard(stream: Stream): { text: string; readonly closed: Promise<void> } {
  const space = new Uint8Array(1000);
  let over: () => void = () => {};
  const seen = {
    text: "",
    closed: new Promise<void>((resolve) => {
      over = resolve;
    }),
  };
  stream.start({
    space: () => space,
    received: (length) => {
      seen.text += Buffer.from(space.subarray(0, length)).toString();
    },
    sent: () => undefined,
    closed: () => over(),
  });
  return seen;
}

test("the plain end hears what the peer says over TLS, answers, and its end is the peer's", async () => {
  const { port, next, close } = await listening(terminator(), PRIMARY.pin);
  const [stream, { socket, refusal }] = await Promise.all([connected(port), next()]);
  assert.equal(refusal, null);
  assert.equal(socket.peerHost, "127.0.0.1");
  assert.match(socket.peer, /^tls:\/\/127\.0\.0\.1:\d+$/);
  const seen = heard(stream);
  stream.write(Buffer.from("first message"));
  const message = await socket.receive(5, () => 8);
  assert.equal(Buffer.from(message).toString(), "first message");
  const answer = Buffer.alloc(300_000, "answer ");
  socket.write(answer);
  socket.end();
  await seen.closed;
  assert.equal(seen.text, answer.toString());
  close();
});

test("a peer with another certificate gets a connection and a verdict, so that it can be told", async () => {
  const { port, next, close } = await listening(terminator(), SECONDARY.pin);
  const [stream, { socket, refusal }] = await Promise.all([connected(port), next()]);
  assert.equal(refusal, `the certificate is ${PRIMARY.pin}, and tlspeer says ${SECONDARY.pin}`);
  socket.destroy();
  await heard(stream).closed;
  close();
});

test("a connection that is no TLS fails with a reason, and the next one is served", async () => {
  const { port, next, close } = await listening(terminator(), PRIMARY.pin);
  const client = net.connect(port, "127.0.0.1");
  client.on("error", () => undefined);
  client.write(Buffer.concat([Buffer.of(22, 3, 1, 0, 100), Buffer.alloc(100, 7)]));
  await assert.rejects(next(), (error) => {
    assert.ok(error instanceof HandshakeSocketError);
    return error.message.startsWith("TLS: ");
  });
  const gone = net.connect(port, "127.0.0.1", () => {
    gone.write(Buffer.concat([Buffer.of(22, 3, 1, 0, 100), Buffer.of(1, 0, 0, 96)]));
    gone.destroy();
  });
  await assert.rejects(next(), HandshakeSocketError);
  const [stream, { socket }] = await Promise.all([connected(port), next()]);
  socket.destroy();
  await heard(stream).closed;
  client.destroy();
  close();
});

test("a relay that is stuck is killed, so that the next connection has another", async (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), "hast-relay-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const [script, started] = [path.join(directory, "stuck.ts"), path.join(directory, "pid")];
  writeFileSync(
    script,
    `import fs from "node:fs";
     process.on("message", () => fs.writeFileSync(${JSON.stringify(started)}, String(process.pid)));`,
  );
  const stuck = new NodeTlsTerminator({
    script,
    output: "ignore",
    user: null,
    credentials: SECONDARY,
  });
  const { port, next, close } = await listening(stuck, PRIMARY.pin);
  const client = net.connect(port, "127.0.0.1");
  client.on("error", () => undefined);
  t.mock.timers.enable({ apis: ["setTimeout"] });
  client.write(Buffer.concat([Buffer.of(22, 3, 1, 0, 100), Buffer.alloc(100, 7)]));
  const failed = assert.rejects(next(), /does not answer/);
  while (!existsSync(started) || readFileSync(started).length === 0) await setImmediate();
  t.mock.timers.tick(60_000);
  await failed;
  t.mock.timers.reset();
  const pid = Number(readFileSync(started));
  while (existsSync(`/proc/${pid}`)) await setImmediate();
  client.destroy();
  close();
});

test("a program that cannot run is a failed connection, and no more", async () => {
  const broken = new NodeTlsTerminator({
    script: "/nonexistent.ts",
    output: "ignore",
    user: null,
    credentials: SECONDARY,
  });
  const { port, next, close } = await listening(broken, PRIMARY.pin);
  const [client, server] = await Promise.allSettled([connected(port), next()]);
  assert.equal(client.status, "rejected");
  assert.ok(server.status === "rejected");
  assert.match(String(server.reason), /the process that ends TLS has died/);
  close();
});

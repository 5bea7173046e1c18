// SPDX-License-Identifier: BSD-2-Clause
import { strict as assert } from "node:assert";
import { once } from "node:events";
import { type AddressInfo, createConnection, createServer, type Socket } from "node:net";
import { test } from "node:test";
import { TcpProxy } from "./tcp-proxy.ts";
import { pause, until } from "./until.ts";

interface Bench {
  readonly proxy: TcpProxy;
  readonly client: Socket;
  readonly target: Socket;
  /** What each end has received so far. */
  readonly seen: { client: string; target: string };
  /** In what manner each end was closed: "end", or the error's code. */
  readonly ends: { client: string; target: string };
}

function watch(
  socket: Socket,
  end: "client" | "target",
  bench: Pick<Bench, "seen" | "ends">,
): void {
  socket.on("data", (data: Buffer) => {
    bench.seen[end] += data.toString("latin1");
  });
  socket.on("error", (error: NodeJS.ErrnoException) => {
    bench.ends[end] = error.code ?? "?";
  });
  socket.on("end", () => {
    bench.ends[end] ||= "end";
  });
}

async function withProxy(body: (bench: Bench) => Promise<void>): Promise<void> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const proxy = await TcpProxy.listen({
    listen: { host: "127.0.0.1", port: 0 },
    target: { host: "127.0.0.1", port: (server.address() as AddressInfo).port },
    source: "127.0.0.9",
  });
  const client = createConnection({ host: proxy.host, port: proxy.port });
  const [target] = (await once(server, "connection")) as [Socket];
  const state = { seen: { client: "", target: "" }, ends: { client: "", target: "" } };
  watch(client, "client", state);
  watch(target, "target", state);
  try {
    await body({ proxy, client, target, ...state });
  } finally {
    client.destroy();
    target.destroy();
    await proxy.close();
    server.close();
  }
}

test("a proxy carries bytes both ways and shows the target the source address it was given", () =>
  withProxy(async ({ proxy, client, target, seen }) => {
    client.write("question");
    await until("the question arrives", () => seen.target === "question");
    target.write("answer");
    await until("the answer arrives", () => seen.client === "answer");
    assert.equal(target.remoteAddress, "127.0.0.9");
    assert.equal(proxy.forwarded("upstream"), 8);
    assert.equal(proxy.forwarded("downstream"), 6);
  }));

test("a proxy passes a half-close on and keeps the other direction open", () =>
  withProxy(async ({ client, target, seen, ends }) => {
    target.write("hello");
    client.end("last");
    await until("the end arrives", () => ends.target === "end");
    assert.equal(seen.target, "last");
    await until("the other direction worked", () => seen.client === "hello");
  }));

test("cut() resets both ends and every new connection until heal()", () =>
  withProxy(async ({ proxy, ends }) => {
    proxy.cut();
    await until("both are reset", () => ends.client !== "" && ends.target !== "");
    assert.equal(ends.client, "ECONNRESET");
    assert.equal(ends.target, "ECONNRESET");
    const refused = createConnection({ host: proxy.host, port: proxy.port });
    const [error] = (await once(refused, "error")) as [NodeJS.ErrnoException];
    assert.equal(error.code, "ECONNRESET");
    assert.equal(proxy.linkCount, 0);
    proxy.heal();
    const welcome = createConnection({ host: proxy.host, port: proxy.port });
    await until("the link is there", () => proxy.linkCount === 1);
    welcome.destroy();
    await until("the proxy has noticed", () => proxy.linkCount === 0);
  }));

test("cutAfter() ends the stream after exactly that many bytes", () =>
  withProxy(async ({ proxy, client, seen, ends }) => {
    client.write("abc");
    await until("the first bytes arrive", () => seen.target === "abc");
    const cut = proxy.cutAfter("upstream", 5);
    client.write("defg");
    await until("some more arrive", () => seen.target === "abcdefg");
    client.write("hijk");
    await cut;
    await until("both ends know", () => ends.client !== "" && ends.target !== "");
    assert.equal(seen.target, "abcdefgh");
    assert.equal(ends.target, "end");
    assert.equal(proxy.linkCount, 0);
  }));

test("silence() delivers nothing and closes nothing; heal() delivers what was held", () =>
  withProxy(async ({ proxy, client, target, seen, ends }) => {
    proxy.silence();
    client.write("into the void");
    target.write("out of it");
    await pause(100);
    assert.deepEqual(seen, { client: "", target: "" });
    assert.deepEqual(ends, { client: "", target: "" });
    proxy.heal();
    await until("it arrives", () => seen.target !== "" && seen.client !== "");
    assert.deepEqual(seen, { client: "out of it", target: "into the void" });
  }));

test("halfOpen() closes the target's end and leaves the client waiting", () =>
  withProxy(async ({ proxy, client, seen, ends }) => {
    proxy.halfOpen();
    await until("the target knows", () => ends.target === "ECONNRESET");
    client.write("anybody?");
    await pause(100);
    assert.equal(ends.client, "");
    assert.equal(seen.client, "");
  }));

test("delay() makes everything late and keeps its order", () =>
  withProxy(async ({ proxy, client, seen }) => {
    proxy.delay(100);
    const began = performance.now();
    client.write("a");
    await pause(10);
    client.write("b");
    await until("both arrive", () => seen.target.length === 2, { everyMs: 5 });
    assert.equal(seen.target, "ab");
    assert.ok(performance.now() - began >= 100);
  }));

// SPDX-License-Identifier: BSD-2-Clause
/** NBD clients that vanish, flood or talk nonsense, next to one that works and must not notice. */

import { strict as assert } from "node:assert";
import { once } from "node:events";
import { createConnection, type Socket } from "node:net";
import { test } from "node:test";
import { NbdClient } from "./nbd-client.ts";
import { RecordedWriter } from "./recorded-writer.ts";
import { type Node, TwoNodes, withPair } from "./two-nodes.ts";
import { until, withDeadline } from "./until.ts";

const MIB = 1024 * 1024;

/** Runs `body` while a well-behaved client writes; that client, the worker and the copies stay well. */
function besidesAWriter(
  body: (node: Node, writer: RecordedWriter) => Promise<void>,
): Promise<void> {
  return withPair(TwoNodes.startReplicating(), async (pair) => {
    const { alpha } = pair;
    const worker = await alpha.workerPid();
    const client = await alpha.connect();
    const writer = new RecordedWriter({ offset: 0, blockCount: 1024, flushEvery: 100 });
    writer.start(client);
    await goesOn(writer);
    await body(alpha, writer);
    await goesOn(writer);
    assert.equal(await writer.stop(), null);
    await writer.verify(client);
    await client.disconnect();
    assert.equal(await alpha.workerPid(), worker, "the worker was replaced");
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);
  });
}

async function goesOn(writer: RecordedWriter): Promise<void> {
  const before = writer.acknowledgedCount;
  await until("the writer goes on", () => writer.acknowledgedCount > before + 200);
}

async function rawConnection(node: Node): Promise<Socket> {
  const socket = createConnection({ path: node.socket });
  socket.on("error", () => {}); // being thrown out is expected
  await once(socket, "connect");
  return socket;
}

test("a client that vanishes with requests in flight harms nobody", () =>
  besidesAWriter(async (node, writer) => {
    for (let round = 0; round < 10; round++) {
      const client = await node.connect();
      const pending = Array.from({ length: 64 }, (_, index) =>
        client.write(8 * MIB + index * 65_536, Buffer.alloc(65_536, round)),
      );
      client.destroy();
      await Promise.allSettled(pending);
    }
    await goesOn(writer);
  }));

test("a client that vanishes in the middle of a request harms nobody", () =>
  besidesAWriter(async (node) => {
    const header = Buffer.alloc(28);
    header.writeUInt32BE(0x25609513, 0);
    header.writeUInt16BE(1, 6);
    header.writeUInt32BE(65_536, 24);
    for (const part of [1, 27, 28, 1000]) {
      const client = await node.connect();
      client.sendRaw(Buffer.concat([header, Buffer.alloc(4096)]).subarray(0, part));
      client.destroy();
    }
  }));

test("a hundred clients that come and go, and a hundred that stay silent, harm nobody", () =>
  besidesAWriter(async (node, writer) => {
    const silent = await Promise.all(Array.from({ length: 100 }, () => rawConnection(node)));
    await goesOn(writer);
    for (let round = 0; round < 100; round++) (await rawConnection(node)).destroy();
    for (const socket of silent) socket.destroy();
    await until("new clients are welcome", async () => {
      const client = await NbdClient.connect({ path: node.socket }).catch(() => null);
      await client?.disconnect();
      return client !== null;
    });
  }));

test("a client that floods and never reads its replies stops only itself", () =>
  besidesAWriter(async (node, writer) => {
    const client = await node.connect();
    client.stopReading();
    for (let round = 0; round < 2000; round++) {
      client.read((round % 64) * 65_536, 65_536).catch(() => {}); // never answered
    }
    await goesOn(writer);
    client.destroy();
  }));

test("garbage during negotiation and afterwards costs the client its connection, and nothing else", () =>
  besidesAWriter(async (node) => {
    const noise = Buffer.alloc(8192);
    for (let at = 0; at < noise.length; at++) noise[at] = (at * 197 + 13) & 0xff;
    const option = (length: number): Buffer => {
      const bytes = Buffer.alloc(20);
      bytes.writeUInt32BE(1, 0);
      bytes.write("IHAVEOPT", 4, "latin1");
      bytes.writeUInt32BE(7, 12);
      bytes.writeUInt32BE(length, 16);
      return bytes;
    };
    for (const bytes of [noise, option(0xffff_ffff), option(5)]) {
      const socket = await rawConnection(node);
      socket.write(bytes);
      socket.end();
      await withDeadline("it is thrown out", 20_000, once(socket.resume(), "close"));
    }
    const client = await node.connect();
    client.sendRaw(noise);
    await withDeadline("it is thrown out", 20_000, client.closed);
  }));

test("requests outside the disk, too long, unaligned or unknown are answered, not obeyed", () =>
  besidesAWriter(async (node) => {
    const client = await node.connect();
    const refused = { name: "NbdError", error: 22 };
    await assert.rejects(client.read(client.size, 4096), refused);
    await assert.rejects(client.read(client.size - 4096, 8192), refused);
    await assert.rejects(client.read(2 ** 63, 4096), refused);
    await assert.rejects(
      client.write(client.size - 4096, Buffer.alloc(8192)),
      (error: { error?: number }) => error.error === 22 || error.error === 28,
    );
    await assert.rejects(client.trim(client.size, 4096), refused);
    assert.equal((await client.read(client.size - 4096, 4096)).length, 4096);
    // A read of the longest length the protocol can say is refused or ends the connection.
    const long = client.read(0, 0xffff_f000).then(
      () => "answered",
      () => "refused",
    );
    assert.equal(await withDeadline("it is decided", 20_000, long), "refused");
    client.destroy();
  }));

test("two connections see each other's acknowledged writes", () =>
  besidesAWriter(async (node) => {
    const one = await node.connect();
    const two = await node.connect();
    for (let round = 1; round <= 50; round++) {
      await one.write(16 * MIB, Buffer.alloc(4096, round));
      assert.deepEqual(await two.read(16 * MIB, 4096), Buffer.alloc(4096, round));
    }
    await one.disconnect();
    await two.disconnect();
  }));

// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { createServer } from "node:net";
import { test } from "node:test";
import { connect } from "node:tls";
import fc from "fast-check";
import { fuzz, mutated } from "../../test/fuzz.ts";
import { encodeAlert, RECORD_HEADER_SIZE, recordSize, serverName } from "./client-hello.ts";
import { WireError } from "./error.ts";

/** What OpenSSL says first. */
async function clientHello(servername: string): Promise<Uint8Array> {
  return await new Promise((resolve) => {
    const server = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", (bytes: Buffer) => {
        socket.destroy();
        server.close();
        resolve(new Uint8Array(bytes));
      });
    });
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      const client = connect({ port, host: "127.0.0.1", servername, minVersion: "TLSv1.3" });
      client.on("error", () => undefined);
    });
  });
}

test("serverName() reads the resource out of what OpenSSL sends, whatever its name", async () => {
  for (const name of ["shared", "My Res_1", "a", "x".repeat(254), "ü".normalize("NFD")[0]!]) {
    const hello = await clientHello(name);
    expect.equal(RECORD_HEADER_SIZE + recordSize(hello), hello.length);
    expect.equal(serverName(hello), name);
  }
});

test("a ClientHello without a name has none", async () => {
  expect.equal(serverName(await clientHello("")), null);
});

test("a record that claims more than TLS allows, or less than a ClientHello has, is refused", () => {
  for (const size of [0, 37, 16385, 65535]) {
    const head = Uint8Array.of(22, 3, 1, size >> 8, size & 255);
    expect.throws(() => recordSize(head), WireError);
  }
  expect.equal(recordSize(Uint8Array.of(22, 3, 1, 64, 0)), 16384);
});

test("a ClientHello cut short anywhere is refused, or has no name", async () => {
  const hello = await clientHello("shared");
  for (let size = 0; size < hello.length; size++) {
    expect.throws(() => serverName(hello.subarray(0, size)), WireError, `${size} bytes`);
  }
});

test("any bytes give a name, none, or a WireError", async () => {
  const hello = await clientHello("shared");
  await fuzz(
    fc.asyncProperty(fc.oneof(mutated(hello), fc.uint8Array({ maxLength: 300 })), async (bytes) => {
      try {
        const name = serverName(bytes);
        expect.ok(name === null || name.length <= bytes.length);
      } catch (error) {
        expect.ok(error instanceof WireError, String(error));
      }
    }),
  );
});

test("an alert is one that OpenSSL understands", () => {
  expect.deepEqual([...encodeAlert(112)], [21, 3, 3, 0, 2, 2, 112]);
});

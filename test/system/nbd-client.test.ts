// SPDX-License-Identifier: BSD-2-Clause
import { strict as assert } from "node:assert";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { NbdClient, NbdError } from "./nbd-client.ts";
import { RecordedWriter } from "./recorded-writer.ts";
import { until } from "./until.ts";

/** Runs `body` against an NBD server that is not ours. */
async function withNbdkit(
  args: readonly string[],
  body: (path: string, server: ChildProcess) => Promise<void>,
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "hast-nbd-"));
  const path = join(directory, "s");
  const ready = join(directory, "pid");
  const server = spawn("nbdkit", ["-f", "--exit-with-parent", "-U", path, "-P", ready, ...args], {
    stdio: "ignore",
  });
  const gone = once(server, "exit");
  try {
    await until("nbdkit listens", () => existsSync(ready));
    await body(path, server);
  } finally {
    server.kill("SIGKILL");
    await gone;
    rmSync(directory, { recursive: true });
  }
}

test("NbdClient reads what it wrote, trimmed and zeroed", () =>
  withNbdkit(["memory", "1M"], async (path) => {
    const client = await NbdClient.connect({ path });
    assert.equal(client.size, 1024 * 1024);
    const data = Buffer.alloc(8192, "hast");
    await client.write(4096, data);
    await client.write(65_536, data, { fua: true });
    await client.flush();
    assert.deepEqual(await client.read(4096, 8192), data);
    await client.trim(4096, 4096);
    await client.zero(65_536, 4096);
    assert.deepEqual(await client.read(4096, 4096), Buffer.alloc(4096));
    assert.deepEqual(await client.read(8192, 4096), data.subarray(4096));
    assert.deepEqual(
      await client.read(65_536, 8192),
      Buffer.concat([Buffer.alloc(4096), data], 8192),
    );
    await client.disconnect();
    await assert.rejects(client.flush(), { name: "NbdError", error: 0 });
  }));

test("NbdClient keeps many requests in flight apart", () =>
  withNbdkit(["--filter=delay", "memory", "4M", "rdelay=1ms"], async (path) => {
    const client = await NbdClient.connect({ path });
    const blocks = Array.from({ length: 64 }, (_, index) => Buffer.alloc(65_536, index));
    await Promise.all(blocks.map((block, index) => client.write(index * 65_536, block)));
    const read = await Promise.all(blocks.map((_, index) => client.read(index * 65_536, 65_536)));
    for (const [index, block] of blocks.entries()) assert.ok(block.equals(read[index]!));
    await client.disconnect();
  }));

test("NbdClient reports the server's error and goes on", () =>
  withNbdkit(["memory", "1M"], async (path) => {
    const client = await NbdClient.connect({ path });
    await assert.rejects(client.read(1024 * 1024, 512), { name: "NbdError", error: 22 });
    assert.equal((await client.read(0, 512)).length, 512);
    await client.disconnect();
  }));

test("NbdClient fails what is in flight when the server dies", () =>
  withNbdkit(["--filter=delay", "memory", "1M", "wdelay=10"], async (path, server) => {
    const client = await NbdClient.connect({ path });
    const write = client.write(0, Buffer.alloc(512));
    server.kill("SIGKILL");
    await assert.rejects(write, (error) => error instanceof NbdError && error.error === 0);
    assert.notEqual(await client.closed, "");
  }));

test("NbdClient says so when there is no server or no such export", async () => {
  await assert.rejects(NbdClient.connect({ path: "/nonexistent/s" }), { code: "ENOENT" });
  await withNbdkit(
    ["--filter=exportname", "memory", "1M", "exportname-strict=true"],
    async (path) => {
      await assert.rejects(NbdClient.connect({ path }, "nope"), { name: "NbdError" });
    },
  );
});

test("RecordedWriter finds everything it was promised", () =>
  withNbdkit(["memory", "2M"], async (path) => {
    const client = await NbdClient.connect({ path });
    const writer = new RecordedWriter({ offset: 65_536, blockCount: 100, flushEvery: 8 });
    writer.start(client);
    await until("there are versions", () => writer.acknowledgedCount > 500);
    assert.equal(await writer.stop(), null);
    const { blocks } = await writer.verify(client);
    assert.equal(blocks, writer.acknowledgedBlocks);
    assert.ok(blocks > 90);
    await client.disconnect();
  }));

test("RecordedWriter finds lost, old, foreign and torn blocks", () =>
  withNbdkit(["memory", "1M"], async (path) => {
    const client = await NbdClient.connect({ path });
    const writer = new RecordedWriter({ offset: 0, blockCount: 4, queueDepth: 2 });
    const run = async (): Promise<void> => {
      const before = writer.acknowledgedCount;
      writer.start(client);
      await until("there are versions", () => writer.acknowledgedCount > before + 40);
      assert.equal(await writer.stop(), null);
    };
    await run();
    const old = await client.read(0, 4096);
    await run();
    const good = await client.read(0, 4096);
    await writer.verify(client);
    const spoilt: readonly [string, Buffer, RegExp][] = [
      ["lost", Buffer.alloc(4096), /block 0 at 0: .* no version at all/],
      ["old", old, /block 0 at 0: version \d+ was acknowledged, \d+ sent; found \d+/],
      ["foreign", await client.read(4096, 4096), /no version at all/],
      ["torn", Buffer.concat([good.subarray(0, 512), old.subarray(512)]), /no version at all/],
    ];
    for (const [kind, bytes, complaint] of spoilt) {
      await client.write(0, bytes);
      await assert.rejects(writer.verify(client), complaint, kind);
    }
    await client.write(0, good);
    await writer.verify(client);
    await client.disconnect();
  }));

test("RecordedWriter allows, of a write that was not answered, the old version and the new", () =>
  withNbdkit(["memory", "1M"], async (path) => {
    const client = await NbdClient.connect({ path });
    const writer = new RecordedWriter({ offset: 0, blockCount: 32 });
    writer.start(client);
    await until("there are versions", () => writer.acknowledgedCount > 100);
    client.destroy();
    assert.match((await writer.ended()) ?? "", /connection closed/);
    const again = await NbdClient.connect({ path });
    await writer.verify(again);
    writer.start(again);
    const before = writer.acknowledgedCount;
    await until("it goes on", () => writer.acknowledgedCount > before);
    assert.equal(await writer.stop(), null);
    await writer.verify(again);
    await again.disconnect();
  }));

// SPDX-License-Identifier: BSD-2-Clause
/** NBD clients of an export that requires TLS: real ones, with the right certificate, a wrong one, and none. */

import { strict as assert } from "node:assert";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { type Outcome, runCommand } from "./command.ts";
import { TwoNodes, withPair } from "./two-nodes.ts";
import { until } from "./until.ts";

const HASTCTL = join(import.meta.dirname, "../../bin/hastctl");

async function freePort(host: string): Promise<number> {
  return await new Promise((resolve) => {
    const server = createServer();
    server.listen(0, host, () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

/** Alpha alone, whose export is on TCP and requires TLS. */
async function prepare(): Promise<{ readonly pair: TwoNodes; readonly at: string }> {
  const pair = await TwoNodes.prepare({ tls: true });
  pair.configureAlone();
  const { alpha, configuration } = pair;
  const at = `${alpha.place.host}:${await freePort(alpha.place.host)}`;
  const text = readFileSync(configuration, "utf8");
  const tcp = text.replace(
    `export unix://${alpha.socket}`,
    `export tcp://${at}\n    exporttls required`,
  );
  assert.notEqual(tcp, text);
  writeFileSync(configuration, tcp);
  return { pair, at };
}

async function makeClient(pair: TwoNodes, name: string, dir: string): Promise<string> {
  const made = join(pair.directory, name);
  const outcome = await runCommand(HASTCTL, ["tls", "client", "--dir", dir, name, made]);
  assert.equal(outcome.code, 0, outcome.stderr);
  return made;
}

test("an export that requires TLS serves clients with a certificate of this node, and nobody else", async () => {
  const { pair, at } = await prepare();
  await withPair(Promise.resolve(pair), async () => {
    const { alpha, beta } = pair;
    await alpha.create();
    alpha.spawnDaemon();
    assert.equal(await alpha.exited(), 78);
    assert.match(
      alpha.logText(),
      /\[shared\] TLS: .* has neither clients\.pem nor ca\.pem\. For each client: hastctl tls client NAME DIRECTORY; or, .*: exporttls off/,
    );

    const right = await makeClient(pair, "app1", alpha.tlsDirectory);
    const wrong = await makeClient(pair, "app2", beta.tlsDirectory);
    // It trusts alpha, but alpha does not know it.
    writeFileSync(
      join(wrong, "ca-cert.pem"),
      readFileSync(join(alpha.tlsDirectory, "cert.pem"), "utf8"),
    );
    await alpha.start();
    await alpha.role("primary");

    const info = (uri: string): Promise<Outcome> => runCommand("nbdinfo", ["--size", uri]);
    const good = await info(`nbds://${at}/shared?tls-certificates=${right}`);
    assert.equal(good.code, 0, good.stderr);
    assert.match(good.stdout, /^\d{8}\n$/);

    const plain = await info(`nbd://${at}/shared`);
    assert.notEqual(plain.code, 0);
    assert.match(plain.stderr, /TLS/);

    const stranger = await info(`nbds://${at}/shared?tls-certificates=${wrong}`);
    assert.notEqual(stranger.code, 0);
    assert.match(stranger.stderr, /server policy prevents/);
    await until("alpha says who was refused", () =>
      /NBD client tcp:\/\/\S+ is refused: there was no certificate, or none .*hastctl tls client/.test(
        alpha.logText(),
      ),
    );

    // Bytes through it, by another implementation, and back.
    const qemu = (...commands: string[]): Promise<Outcome> =>
      runCommand("qemu-io", [
        "--object",
        `tls-creds-x509,id=tls0,endpoint=client,dir=${right},verify-peer=yes`,
        "--image-opts",
        `driver=nbd,server.type=inet,server.host=${at.split(":")[0]},server.port=${at.split(":")[1]},export=shared,tls-creds=tls0`,
        ...commands.flatMap((command) => ["-c", command]),
      ]);
    const wrote = await qemu("write -P 0x5a 0 8M", "read -P 0x5a 1M 4M", "flush");
    assert.equal(wrote.code, 0, wrote.stderr + wrote.stdout);
    assert.doesNotMatch(wrote.stdout, /failed/i);
    const uri = `nbds://${at}/shared?tls-certificates=${right}`;
    const copied = await runCommand("nbdcopy", [uri, join(pair.directory, "copy")]);
    assert.equal(copied.code, 0, copied.stderr);
    const copy = readFileSync(join(pair.directory, "copy"));
    assert.ok(copy.subarray(0, 8 * 1024 * 1024).every((byte) => byte === 0x5a));
    assert.equal((await runCommand("nbdcopy", [join(pair.directory, "copy"), uri])).code, 0);
  });
});

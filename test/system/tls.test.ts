// SPDX-License-Identifier: BSD-2-Clause
/** Two real nodes over tls://: replication, failover, and everybody who is to be kept out. */

import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { after, test } from "node:test";
import { Authority, type Certified } from "../certificates.ts";
import { runCommand } from "./command.ts";
import { signal, titleOf } from "./marked-processes.ts";
import { RecordedWriter } from "./recorded-writer.ts";
import { type Node, RESOURCE, TwoNodes, withPair } from "./two-nodes.ts";
import { until } from "./until.ts";

test("a pair over tls:// replicates, survives the loss of a link and of a node, and fails over", () =>
  withPair(TwoNodes.startReplicating({ tls: true, proxied: true }), async (pair) => {
    const { alpha, beta } = pair;
    const client = await alpha.connect();
    const writer = new RecordedWriter({ offset: 0, blockCount: 512 });
    writer.start(client);
    await until("it writes", () => writer.acknowledgedCount > 500);
    assert.match((await alpha.list()).get("transport") ?? "", /^TLS 1\.3, peer sha256:/);
    assert.ok(beta.titles().some((title) => title === `hastd: ${RESOURCE} (tls)`));

    // Nobody on the way reads what is written, and a link that breaks is made again.
    const link = pair.alphaToBeta!;
    link.cut();
    link.heal();
    await until("it has noticed", async () => /Disconnected/.test(alpha.logText()));
    await pair.inSync(alpha);

    await beta.crash();
    const alone = writer.acknowledgedCount;
    await until("it goes on alone", () => writer.acknowledgedCount > alone + 200);
    await beta.start();
    await beta.role("secondary");
    await pair.inSync(alpha);
    assert.equal(await writer.stop(), null);
    await client.disconnect();
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);

    await alpha.crash();
    await beta.role("primary");
    await alpha.start();
    await alpha.role("secondary");
    await pair.inSync(beta);
    assert.deepEqual(await pair.differences(), []);
  }));

test("the process that ends TLS gives up root, and does not outlive its daemon", async () => {
  const pair = await TwoNodes.prepare({ tls: true });
  await withPair(Promise.resolve(pair), async () => {
    const { alpha, beta, configuration } = pair;
    writeFileSync(configuration, `user nobody\n${readFileSync(configuration, "utf8")}`);
    for (const node of pair.nodes) await node.create();
    for (const node of pair.nodes) await node.start();
    await beta.role("secondary");
    await alpha.role("primary");
    await pair.inSync(alpha);
    const relay = beta.processes().find((pid) => titleOf(pid) === `hastd: ${RESOURCE} (tls)`);
    assert.ok(relay !== undefined);
    if (process.getuid?.() === 0) {
      const status = readFileSync(`/proc/${relay}/status`, "utf8");
      const { stdout } = await runCommand("id", ["-u", "nobody"]);
      assert.equal(/^Uid:\s+(.*)$/m.exec(status)![1], new Array(4).fill(stdout.trim()).join("\t"));
    }
    // Killed, it costs the connection and no more.
    signal(relay, "SIGKILL");
    await until("alpha has noticed", () => /Disconnected/.test(alpha.logText()));
    await pair.inSync(alpha);
    assert.equal(await beta.stop(), 0); // which waits for the last process
  });
});

const OTHER = `sha256:${"0".repeat(64)}`;
const DAY_MS = 86_400_000;

/** What a node prints after now. */
function fresh(node: Node): () => string {
  const before = node.logText().length;
  return () => node.logText().slice(before);
}

/** Writes hast.conf, reloads both, and waits until both say why they are apart. */
async function apart(pair: TwoNodes, primary: RegExp, secondary: RegExp): Promise<void> {
  const { alpha, beta } = pair;
  const said = fresh(beta);
  pair.configure();
  await beta.role("init"); // they must connect anew, in any case
  for (const node of [beta, alpha]) {
    const { code, stderr } = await node.hastctl("reload");
    assert.equal(code, 0, stderr);
  }
  await beta.role("secondary");
  await until(`alpha's status says ${primary}`, async () => primary.test(await alpha.status()));
  await until(`beta's log says ${secondary}`, () => secondary.test(said()));
  const listing = await alpha.list();
  assert.equal(listing.get("status"), "degraded");
  assert.equal(await beta.workerPid(), 0);
}

/** They find together again, and nothing is lost. */
async function together(pair: TwoNodes): Promise<void> {
  pair.configure();
  for (const node of pair.nodes) assert.equal((await node.hastctl("reload")).code, 0);
  await pair.inSync(pair.alpha);
}

test("a peer that has another certificate than the pinned one is refused by either node, and both say so", () =>
  withPair(TwoNodes.startReplicating({ tls: true }), async (pair) => {
    const { alpha, beta, pins } = pair;
    const right = { ...pins };

    pins.beta = OTHER;
    await apart(
      pair,
      new RegExp(`Refused there: the certificate is ${right.beta}, and tlspeer says ${OTHER}`),
      new RegExp(
        `\\[shared\\] .*refused: the certificate is ${right.beta}, and tlspeer says ${OTHER}.*hastctl tls show`,
      ),
    );
    pins.beta = right.beta;
    await together(pair);

    pins.alpha = OTHER;
    await apart(
      pair,
      new RegExp(
        `the node at \\S+ is refused: the certificate is ${right.alpha}, and tlspeer says ${OTHER}.*hastctl tls show`,
      ),
      new RegExp(
        `\\[shared\\] .*closed: refused there: the certificate is ${right.alpha}, and tlspeer`,
      ),
    );
    pins.alpha = right.alpha;
    await together(pair);

    // A new certificate counts after a reload, for new connections; those that exist stay.
    const worker = await beta.workerPid();
    const renewed = await beta.makeCertificate("--force");
    const { code, stdout } = await beta.hastctl("reload");
    assert.equal(code, 0);
    assert.match(
      stdout,
      new RegExp(
        `TLS files of .* read; this node's certificate is ${renewed}; for new connections`,
      ),
    );
    assert.equal(await beta.workerPid(), worker);
    assert.equal((await alpha.list()).get("status"), "complete");
    pins.alpha = renewed;
    await together(pair);

    // A certificate whose key is another's changes nothing.
    writeFileSync(join(beta.tlsDirectory, "key.pem"), AUTHORITY.certify({ names: "DNS:x" }).key);
    const refused = await beta.hastctl("reload");
    assert.equal(refused.code, 2);
    assert.match(
      refused.stderr,
      /\[shared\] TLS: .*key\.pem is not the key of .*hastctl tls init --force/,
    );
    assert.equal((await alpha.list()).get("status"), "complete");
    assert.deepEqual(await pair.differences(), []);
  }));

test("a node with tls:// takes no plain connection and makes none, and both say so", () =>
  withPair(TwoNodes.startReplicating({ tls: true }), async (pair) => {
    const { schemes } = pair;
    schemes.alpha = "tcp4";
    await apart(
      pair,
      /TLS is required: the remote of this resource at the other node is tls:/,
      /\[shared\] .*refused: it comes without TLS, and the remote of this resource here is tls:.*hastctl reload/,
    );
    assert.equal(
      (await pair.alpha.list()).get("transport"),
      "plain TCP, neither encrypted nor authenticated",
    );

    schemes.alpha = "tls";
    schemes.beta = "tcp4";
    await apart(
      pair,
      /the other node takes no TLS for this resource: its remote there is no tls:/,
      /\[shared\] .*refused: it comes with TLS, and the remote of this resource here is tcp4:.*hastctl reload/,
    );

    schemes.beta = "tls";
    await together(pair);
  }));

const AUTHORITY = new Authority("operator");
const STRANGER = new Authority("somebody");
after(() => {
  AUTHORITY.close();
  STRANGER.close();
});

function install(node: Node, { key, certificate }: Certified): void {
  writeFileSync(join(node.tlsDirectory, "key.pem"), key, { mode: 0o600 });
  writeFileSync(join(node.tlsDirectory, "cert.pem"), certificate);
}

test("without a pin, the operator's authority vouches for the peer's name and dates, and nobody else does", () =>
  withPair(TwoNodes.startReplicating({ tls: true }), async (pair) => {
    const { alpha, beta, pins } = pair;
    pins.alpha = pins.beta = null;
    for (const node of pair.nodes) {
      writeFileSync(join(node.tlsDirectory, "ca.pem"), AUTHORITY.certificate);
      install(node, AUTHORITY.certify({ names: `IP:${node.place.host}` }));
    }
    await together(pair);
    assert.match(
      (await alpha.list()).get("transport") ?? "",
      /^TLS 1\.3, peer \S+ vouched for by ca\.pem$/,
    );

    const cases: readonly [Certified, RegExp][] = [
      [
        STRANGER.certify({ names: `IP:${alpha.place.host}` }),
        /the certificate sha256:\S+ is not vouched for by ca\.pem/,
      ],
      [
        AUTHORITY.certify({ names: "IP:192.0.2.1,DNS:alpha" }),
        /the certificate is not for 127\.\S+, but for .*192\.0\.2\.1/,
      ],
      [
        AUTHORITY.certify({
          names: `IP:${alpha.place.host}`,
          from: new Date(Date.now() - 3 * DAY_MS),
          until: new Date(Date.now() - 2 * DAY_MS),
        }),
        /the certificate expired at \S+Z, and now is/,
      ],
      [
        AUTHORITY.certify({
          names: `IP:${alpha.place.host}`,
          from: new Date(Date.now() + 3 * DAY_MS),
          until: new Date(Date.now() + 4 * DAY_MS),
        }),
        /the certificate is valid from \S+Z only, and now is/,
      ],
    ];
    for (const [certified, reason] of cases) {
      install(alpha, certified);
      await apart(pair, reason, reason);
    }

    // The same of the secondary's.
    install(alpha, AUTHORITY.certify({ names: `IP:${alpha.place.host}` }));
    await together(pair);
    install(beta, STRANGER.certify({ names: `IP:${beta.place.host}` }));
    const reason = /the certificate sha256:\S+ is not vouched for by ca\.pem/;
    await apart(pair, reason, reason);

    rmSync(join(beta.tlsDirectory, "ca.pem"));
    const refused = await beta.hastctl("reload");
    assert.equal(refused.code, 2);
    assert.match(
      refused.stderr,
      /\[shared\] TLS: nothing says which certificate the peer has: no tlspeer/,
    );
  }));

test("hostile bytes to a TLS resource: it is told apart, refused in time, and the pair is undisturbed", () =>
  withPair(TwoNodes.startReplicating({ tls: true }), async (pair) => {
    const { alpha, beta } = pair;
    const worker = await beta.workerPid();
    const hello = Buffer.from(clientHello(RESOURCE), "hex");
    const inputs = [
      Buffer.of(22),
      Buffer.of(22, 3, 1, 0xff, 0xff),
      Buffer.concat([Buffer.of(22, 3, 1, 1, 0), randomBytes(256)]),
      hello.subarray(0, 60),
      hello, // and then silence
      Buffer.concat([hello, randomBytes(100_000)]),
      Buffer.concat([Buffer.from(clientHello("nosuch"), "hex"), randomBytes(100)]),
      randomBytes(5000),
    ];
    // From alpha's address, since others are closed unread.
    const closed = inputs.map((bytes) => send(bytes, alpha, beta));
    const client = await alpha.connect();
    const writer = new RecordedWriter({ offset: 0, blockCount: 64 });
    writer.start(client);
    await until("it writes", () => writer.acknowledgedCount > 500);
    await Promise.all(closed);
    const before = writer.acknowledgedCount;
    await until("it goes on", () => writer.acknowledgedCount > before + 100);
    assert.equal(await writer.stop(), null);
    await client.disconnect();
    assert.equal(await beta.workerPid(), worker);
    assert.doesNotMatch(beta.logText(), /Internal error/);
    assert.match(beta.logText(), /refused: hast\.conf has no resource nosuch/);
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);
  }));

/** Resolves when the daemon has closed. */
function send(bytes: Uint8Array, from: Node, to: Node): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect({ ...to.place, localAddress: from.place.host });
    socket.on("error", () => undefined);
    socket.on("close", () => resolve());
    socket.resume();
    socket.write(bytes);
  });
}

/** A ClientHello with this server name and little else, in hexadecimal. */
function clientHello(name: string): string {
  const u16 = (value: number): string => value.toString(16).padStart(4, "0");
  const text = Buffer.from(name).toString("hex");
  const size = name.length;
  const extension = `0000${u16(size + 5)}${u16(size + 3)}00${u16(size)}${text}`;
  const body = `0303${"ab".repeat(32)}0000021301${"0100"}${u16(extension.length / 2)}${extension}`;
  const message = `0100${u16(body.length / 2)}${body}`;
  return `160301${u16(message.length / 2)}${message}`;
}

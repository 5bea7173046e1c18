// SPDX-License-Identifier: BSD-2-Clause
/** Wrong configurations and surroundings: an exit code scripts know, and a sentence that helps. */

import { strict as assert } from "node:assert";
import { once } from "node:events";
import { appendFileSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import { test } from "node:test";
import { NbdClient } from "./nbd-client.ts";
import { type Node, RESOURCE, TwoNodes, withPair } from "./two-nodes.ts";
import { until } from "./until.ts";

/** hastd ends with `code` before it serves anybody, and its output matches. */
async function failsToStart(node: Node, code: number, why: RegExp): Promise<void> {
  const before = node.logText().length;
  node.spawnDaemon();
  assert.equal(await node.exited(), code, node.logText().slice(before));
  assert.match(node.logText().slice(before), why);
}

test("a wrong configuration is refused with every error's file, line and column, and exit code 78", () =>
  withPair(TwoNodes.prepare(), async ({ alpha, configuration }) => {
    appendFileSync(configuration, "resource other {\n  replication sometimes\n  timeout 0\n}\n%\n");
    const lines = readFileSync(configuration, "utf8").split("\n");
    const at = (text: string): string => `hast.conf:${lines.indexOf(text) + 1}:`;
    await failsToStart(alpha, 78, new RegExp(at("  replication sometimes")));
    assert.match(alpha.logText(), new RegExp(at("  timeout 0")));
    assert.match(alpha.logText(), new RegExp(at("%")));
    const { code, stderr } = await alpha.hastctl("status");
    assert.equal(code, 78);
    assert.match(stderr, new RegExp(at("  replication sometimes")));
  }));

test("a configuration that cannot be opened is exit code 72", () =>
  withPair(TwoNodes.prepare(), async ({ alpha, configuration }) => {
    rmSync(configuration);
    await failsToStart(alpha, 72, new RegExp(configuration));
    assert.equal((await alpha.hastctl("status")).code, 72);
  }));

test("a configuration without this node says which names it knows itself by", () =>
  withPair(TwoNodes.prepare(), async ({ alpha, configuration }) => {
    writeFileSync(
      configuration,
      readFileSync(configuration, "utf8").replaceAll("on alpha", "on x"),
    );
    await failsToStart(alpha, 78, /alpha/);
  }));

test("a listen port in use is exit code 71 and names the address", () =>
  withPair(TwoNodes.prepare(), async ({ alpha }) => {
    const squatter = createServer().listen(alpha.place.port, alpha.place.host);
    await once(squatter, "listening");
    await failsToStart(alpha, 71, new RegExp(`${alpha.place.host}:${alpha.place.port}`));
    squatter.close();
  }));

test("a second daemon for the same node is refused, and the first one is not disturbed", () =>
  withPair(TwoNodes.start(), async ({ alpha }) => {
    const first = alpha.daemonPid;
    // It would find the port, the control socket and, with -P, the pidfile taken.
    alpha.spawnDaemon("-P", alpha.pidfile);
    assert.notEqual(await alpha.exited(), 0);
    assert.ok(alpha.processes().includes(first));
    assert.equal((await alpha.hastctl("status")).code, 0);
  }));

test("a locked pidfile is exit code 75; -P writes the pid without a newline", () =>
  withPair(TwoNodes.prepare(), async (pair) => {
    const { alpha, beta } = pair;
    await alpha.create();
    await alpha.start("-P", alpha.pidfile);
    assert.equal(readFileSync(alpha.pidfile, "utf8"), String(alpha.daemonPid));
    beta.spawnDaemon("-P", alpha.pidfile);
    assert.equal(await beta.exited(), 75);
    assert.match(beta.logText(), new RegExp(alpha.pidfile));
  }));

test("a control socket that cannot be made is exit code 71 and names the path", () =>
  withPair(TwoNodes.prepare(), async ({ alpha, configuration }) => {
    const text = readFileSync(configuration, "utf8");
    const below = `${alpha.local}/alpha.ctl`; // below a file, not a directory
    writeFileSync(configuration, text.replace(alpha.control, below));
    await failsToStart(alpha, 71, new RegExp(below));
  }));

test("a missing directory of the control socket or of an export is made, if its parent is there", () =>
  withPair(TwoNodes.prepare(), async ({ alpha, configuration, directory }) => {
    await alpha.create();
    const text = readFileSync(configuration, "utf8")
      .replace(alpha.control, `${directory}/run/alpha.ctl`)
      .replace(alpha.socket, `${directory}/exports/alpha.sock`);
    writeFileSync(configuration, text);
    alpha.spawnDaemon();
    await until("hastd answers", async () => (await alpha.hastctl("status")).code === 0);
    await alpha.role("primary");
    const client = await NbdClient.connect({ path: `${directory}/exports/alpha.sock` });
    await client.disconnect();
  }));

test("an export that cannot be made refuses the role, and names the path", () =>
  withPair(TwoNodes.prepare(), async ({ alpha, configuration }) => {
    const text = readFileSync(configuration, "utf8");
    const below = `${alpha.local}/alpha.sock`; // below a file, not a directory
    writeFileSync(configuration, text.replace(alpha.socket, below));
    await alpha.create();
    await alpha.start();
    const { code, stderr } = await alpha.hastctl("role", "primary", RESOURCE);
    assert.notEqual(code, 0);
    assert.match(stderr, new RegExp(`${RESOURCE}[^]*${below}`));
    assert.equal((await alpha.list()).get("role"), "init");
  }));

test("a stale control socket and a stale export socket are replaced", () =>
  withPair(TwoNodes.start(), async ({ alpha }) => {
    await alpha.role("primary");
    // The worker first: one that outlives its daemon tidies up.
    process.kill(await alpha.workerPid(), "SIGKILL");
    await alpha.crash();
    assert.ok(existsSync(alpha.control) && existsSync(alpha.socket), "the crash left them behind");
    await alpha.start();
    await alpha.role("primary");
    const client = await alpha.connect();
    await client.disconnect();
  }));

test("bytes from strangers on the replication port and the control socket harm nobody", () =>
  withPair(TwoNodes.startReplicating(), async (pair) => {
    const { alpha, beta } = pair;
    const workers = await Promise.all(pair.nodes.map((node) => node.workerPid()));
    const noise = Buffer.alloc(100_000);
    for (let at = 0; at < noise.length; at++) noise[at] = (at * 197 + 13) & 0xff;
    const greedy = Buffer.from([2, 0xff, 0xff, 0xff, 0xff]);
    const empty = Buffer.from([2, 0, 0, 0, 0]);
    const own = { localAddress: alpha.place.host };
    for (const bytes of [noise, greedy, empty, Buffer.alloc(0)]) {
      for (const place of [
        { ...beta.place, ...own }, // as if from the peer
        { ...beta.place, localAddress: "127.0.0.1" }, // a stranger
        { path: beta.control },
      ]) {
        const socket = createConnection(place);
        socket.on("error", () => {}); // being thrown out is expected
        socket.end(bytes);
        socket.resume();
        await until("it is closed", () => socket.closed, { everyMs: 5 });
      }
    }
    // A stranger that says nothing does not block the others, either.
    const silent = [createConnection(beta.place), createConnection({ path: beta.control })];
    for (const socket of silent) socket.on("error", () => {});
    assert.equal((await beta.list()).get("role"), "secondary");
    await pair.inSync(alpha);
    assert.deepEqual(await Promise.all(pair.nodes.map((node) => node.workerPid())), workers);
    for (const socket of silent) socket.destroy();
  }));

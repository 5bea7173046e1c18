// SPDX-License-Identifier: BSD-2-Clause
/** The main daemon with real sockets and real processes, whose workers only speak the message contract. */

import { strict as assert } from "node:assert";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { Daemon } from "../../src/daemon/daemon.ts";
import { nodeClock } from "../../src/platform/node/clock.ts";
import { nodeEntropy } from "../../src/platform/node/entropy.ts";
import { NodeHandshakeNet, NodeResolver } from "../../src/platform/node/handshake-socket.ts";
import { nodeNet } from "../../src/platform/node/net.ts";
import { NodeProcesses } from "../../src/platform/node/process.ts";
import {
  type ControlReply,
  type ControlRequest,
  decodeSetRoleReply,
  decodeStatusReply,
  encodeControlRequest,
  type Role,
  type SetRoleEntry,
  type StatusEntry,
} from "../../src/wire/control.ts";
import { FRAME_HEADER_SIZE } from "../../src/wire/frame.ts";
import { decodeS1, encodeP1, encodeP2 } from "../../src/wire/handshake.ts";
import {
  FakeLog,
  FIXED,
  NO_DEVICES,
  NO_HOOKS,
  NO_TLS,
  settingsOf,
  USABLE,
} from "../daemon/fakes.ts";
import { signal } from "./marked-processes.ts";
import { until } from "./until.ts";

const HOST = "127.0.0.1";

class RealDaemon {
  readonly log = new FakeLog();
  readonly control: string;
  readonly port: number;
  readonly daemon: Daemon;
  readonly #sockets: Socket[] = [];

  constructor(directory: string, port: number, names: readonly string[]) {
    this.control = join(directory, "hastctl");
    this.port = port;
    this.daemon = new Daemon(
      {
        control: this.control,
        listen: [`tcp4://${HOST}:${port}`],
        listenByDefault: false,
        resources: names.map((name) => settingsOf(name, { remote: `tcp4://${HOST}:1` })),
        hooks: NO_HOOKS.settings,
        controlAccess: { mode: 0o600, user: null, group: null },
        administrators: [0],
      },
      {
        clock: nodeClock,
        entropy: nodeEntropy,
        processes: new NodeProcesses({
          script: join(import.meta.dirname, "../daemon/stub-worker.ts"),
          output: "inherit",
          user: null,
          credentials: null,
        }),
        tls: NO_TLS,
        net: nodeNet,
        handshakeNet: new NodeHandshakeNet(),
        resolver: new NodeResolver(),
        probe: async () => USABLE,
        log: this.log,
        workerLog: "stdio",
        devices: NO_DEVICES,
        hooks: NO_HOOKS,
        configuration: FIXED,
      },
    );
  }

  static async start(t: TestContext, ...names: string[]): Promise<RealDaemon> {
    const directory = mkdtempSync(join(tmpdir(), "hast-stub-"));
    const real = new RealDaemon(directory, await freePort(), names);
    await real.daemon.open();
    t.after(async () => {
      for (const socket of real.#sockets) socket.destroy();
      await real.daemon.stop();
      rmSync(directory, { recursive: true });
    });
    return real;
  }

  async ask(request: ControlRequest): Promise<Uint8Array> {
    const socket = connect({ path: this.control });
    socket.write(encodeControlRequest(request));
    const pieces: Uint8Array[] = [];
    for await (const bytes of socket) pieces.push(bytes);
    return Buffer.concat(pieces).subarray(FRAME_HEADER_SIZE);
  }

  async role(role: Role, ...resources: string[]): Promise<ControlReply<SetRoleEntry>> {
    return decodeSetRoleReply(
      await this.ask({ kind: "set-role", role, resources, extended: true }),
    );
  }

  async status(...resources: string[]): Promise<readonly StatusEntry[]> {
    const reply = await this.ask({ kind: "status", resources, extended: true });
    return decodeStatusReply(reply).entries;
  }

  async pid(resource: string): Promise<number> {
    const [entry] = await this.status(resource);
    assert(entry?.outcome.kind === "known");
    return entry.outcome.status.workerpid;
  }

  /** A connection from the primary. */
  async dial(bytes: Uint8Array): Promise<Socket> {
    const socket = connect({ host: HOST, port: this.port });
    this.#sockets.push(socket);
    socket.on("error", () => undefined);
    await once(socket, "connect");
    socket.setNoDelay();
    socket.write(bytes);
    return socket;
  }

  /** Both connections of a primary, and what came of them. */
  async connect(resource: string): Promise<{ a: Socket; b: Socket }> {
    const a = await this.dial(encodeP1({ resource, version: 2, extensions: 0n, term: 0n }));
    const answer = decodeS1((await read(a)).subarray(FRAME_HEADER_SIZE));
    assert(answer.kind === "accepted");
    const b = await this.dial(
      encodeP2(2, {
        resource,
        token: answer.token,
        virgin: false,
        resuid: 1n,
        localcnt: 0n,
        remotecnt: 0n,
        remarks: null,
        life: null,
        whole: false,
      }),
    );
    return { a, b };
  }
}

async function freePort(): Promise<number> {
  const net = new NodeHandshakeNet();
  const listener = await net.listenHandshake(
    { host: HOST, port: 0 },
    (socket) => socket.destroy(),
    assert.fail,
  );
  listener.close();
  return Number(/:(\d+)$/.exec(listener.address)![1]);
}

/** However it ends. */
function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.resume().once("close", () => resolve()));
}

async function read(socket: Socket): Promise<Buffer> {
  const [bytes] = await once(socket, "data");
  return bytes;
}

async function readText(socket: Socket, length: number): Promise<string> {
  let text = "";
  while (text.length < length) text += await read(socket);
  return text;
}

test("roles answer when the worker is there, and say why it is not", async (t) => {
  const real = await RealDaemon.start(t, "r0", "refused");
  const { entries } = await real.role("primary", "all");
  assert.deepEqual(entries[0]?.outcome, { kind: "done", previousRole: "init" });
  assert.deepEqual(entries[1]?.outcome, { kind: "failed", error: 2 });
  assert.equal(entries[1]?.errmsg, "/disks/refused holds no HAST metadata");
  const status = await real.status("all");
  const roles = status.map(({ outcome }) => outcome.kind === "known" && outcome.status.role);
  assert.deepEqual(roles, ["primary", "init"]);
  assert(status[0]?.outcome.kind === "known");
  assert.equal(status[0].outcome.status.worker?.writes, 2);
  assert.deepEqual((await real.role("init", "r0")).entries[0]?.outcome, {
    kind: "done",
    previousRole: "primary",
  });
  assert.equal(await real.pid("r0"), 0);
});

test("a killed primary is back within seconds, under another pid", async (t) => {
  const real = await RealDaemon.start(t, "r0");
  await real.role("primary", "r0");
  const first = await real.pid("r0");
  signal(first, "SIGKILL");
  await until("there is another worker", async () => {
    const pid = await real.pid("r0");
    return pid !== 0 && pid !== first;
  });
  assert(real.log.says("It was killed by SIGKILL"));
});

test("a stopped worker costs a status one second, and nobody else anything", async (t) => {
  const real = await RealDaemon.start(t, "r0", "r1");
  await real.role("primary", "all");
  const pid = await real.pid("r0");
  signal(pid, "SIGSTOP");
  const began = performance.now();
  const [entry] = await real.status("r1");
  assert(performance.now() - began < 900);
  assert(entry?.outcome.kind === "known" && entry.outcome.status.worker !== null);
  const [silent] = await real.status("r0");
  assert(silent?.outcome.kind === "known");
  assert.equal(silent.outcome.status.worker, null);
  assert.deepEqual(silent.notes, [`The worker (pid ${pid}) does not answer.`]);
  assert.equal(silent.outcome.status.workerpid, pid);
  signal(pid, "SIGKILL");
});

test("a primary's two connections end at one worker, each as what it is", async (t) => {
  const real = await RealDaemon.start(t, "r0");
  await real.role("secondary", "r0");
  const { a, b } = await real.connect("r0");
  // Right behind P2: nobody may have swallowed it.
  b.write("two");
  assert.equal(await readText(b, 5), "b:two");
  a.write("one");
  assert.equal(await readText(a, 5), "a:one");
  const long = "x".repeat(300_000);
  a.write(`${long}.`);
  let text = "";
  while (!text.endsWith(".")) text += await read(a);
  assert.equal(text.replaceAll("a:", ""), `${long}.`);
});

test("a new first step ends the old worker before it is answered", async (t) => {
  const real = await RealDaemon.start(t, "r0");
  await real.role("secondary", "r0");
  const old = await real.connect("r0");
  old.b.write("x");
  await readText(old.b, 3);
  const pid = await real.pid("r0");
  const ends = [closed(old.a), closed(old.b)];
  const { b } = await real.connect("r0");
  assert.equal(signal(pid, "SIGKILL"), false);
  await Promise.all(ends);
  b.write("y");
  assert.equal(await readText(b, 3), "b:y");
});

test("a peer that sends more than P1 before its answer is closed", async (t) => {
  const real = await RealDaemon.start(t, "r0");
  await real.role("secondary", "r0");
  const p1 = encodeP1({ resource: "r0", version: 2, extensions: 0n, term: 0n });
  for (const surplus of [1, 100, 100_000]) {
    const together = await real.dial(Buffer.concat([p1, new Uint8Array(surplus)]));
    await closed(together);
    const apart = await real.dial(p1);
    await read(apart);
    apart.write(new Uint8Array(surplus));
    await closed(apart);
  }
  const { b } = await real.connect("r0");
  b.write("z");
  assert.equal(await readText(b, 3), "b:z");
});

test("a worker that dies with the sockets on their way closes them, and the next connection works", async (t) => {
  const real = await RealDaemon.start(t, "deaf");
  await real.role("secondary", "deaf");
  for (let round = 0; round < 3; round++) {
    const { a, b } = await real.connect("deaf");
    await Promise.all([closed(a), closed(b)]);
  }
  assert.equal((await real.status("deaf")).length, 1);
});

test("stop() leaves no worker and no control socket behind", async (t) => {
  const real = await RealDaemon.start(t, "r0", "r1");
  await real.role("primary", "all");
  const pids = await Promise.all([real.pid("r0"), real.pid("r1")]);
  await real.daemon.stop();
  for (const pid of pids) assert.equal(signal(pid, "SIGKILL"), false);
  await assert.rejects(real.ask({ kind: "status", resources: ["all"], extended: true }), {
    code: "ENOENT",
  });
});

// SPDX-License-Identifier: BSD-2-Clause
/** The main daemon's part of the handshake, against what FreeBSD's answered. */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import { Access } from "../../src/daemon/access.ts";
import { HandshakeServer } from "../../src/daemon/handshake-server.ts";
import { Resource } from "../../src/daemon/resource.ts";
import type { Role } from "../../src/wire/control.ts";
import {
  FakeClock,
  FakeLog,
  FakeProcesses,
  FakeResolver,
  FakeSocket,
  NO_TLS,
  settingsOf,
  settle,
  surroundingsOf,
} from "../daemon/fakes.ts";
import { golden, goldenPaths, messagesOf, zeroStreamPadding } from "./vectors.ts";

const PRIMARY = "127.0.1.1";

/** The node that was captured, or sent probes to. */
class Node {
  readonly processes = new FakeProcesses();
  readonly server: HandshakeServer;
  readonly #resources = new Map<string, Resource>();
  #token: Uint8Array = new Uint8Array(16);

  constructor() {
    const clock = new FakeClock();
    const log = new FakeLog();
    const { processes } = this;
    const entropy = { fill: (bytes: Uint8Array) => bytes.set(this.#token) };
    const surroundings = surroundingsOf({ clock, entropy, processes, log });
    const add = (name: string, remote: string) =>
      this.#resources.set(name, new Resource(settingsOf(name, { remote }), surroundings));
    add("r0", `tcp4://${PRIMARY}:8457`);
    add("other", "tcp4://127.0.1.9:8457");
    this.processes.born = (worker) => worker.says({ kind: "ready" });
    const access = new Access(clock, new FakeResolver());
    const resources = () => this.#resources;
    this.server = new HandshakeServer({ clock, log, access, tls: NO_TLS, resources });
  }

  async role(role: Role): Promise<void> {
    expect.equal((await this.#resources.get("r0")!.changeRole(role)).kind, "done");
  }

  remove(name: string): void {
    this.#resources.delete(name);
  }

  /** The daemon's token is drawn by chance: let chance draw what it drew then. */
  foresee(answer: Uint8Array): void {
    const [message] = messagesOf(answer);
    if (message === undefined) return;
    // The token is the last entry, and its 16 bytes need no padding.
    this.#token = message.nv.slice(-16);
  }

  async connect(bytes: Uint8Array, host = PRIMARY): Promise<FakeSocket> {
    const socket = new FakeSocket(host);
    void this.server.accept(socket);
    // The first message; what follows is the worker's.
    const [first] = messagesOf(bytes);
    socket.feed(bytes.subarray(0, 5 + (first?.nv.length ?? 0)));
    await settle();
    return socket;
  }
}

function firstMessage(stream: Uint8Array): Uint8Array {
  const [first] = messagesOf(stream);
  return zeroStreamPadding(stream.subarray(0, 5 + (first?.nv.length ?? -5)));
}

/** What became of the connection after the answer (index.json, "after"). */
const PROBES: Readonly<Record<string, FakeSocket["state"]>> = {
  "bad-token": "ended",
  "extra-field": "open",
  "hello-no-version": "open",
  "hello-v1": "open",
  "hello-v2": "open",
  "hello-v9": "open",
  "main-header-version-0": "open",
  "main-header-version-3": "destroyed",
  "no-resource": "destroyed",
  "short-token": "destroyed",
  "unknown-resource": "ended",
};

for (const [name, state] of Object.entries(PROBES)) {
  test(`the probe ${name} is answered as the original answered it`, async () => {
    const node = new Node();
    await node.role("secondary");
    const answer = golden(`probes/${name}.s2c.bin`);
    node.foresee(answer);
    const socket = await node.connect(golden(`probes/${name}.c2s.bin`));
    expect.deepEqual(socket.written, zeroStreamPadding(answer));
    expect.equal(socket.state, state);
    expect.equal(node.processes.workers.length, 0);
  });
}

test("every captured probe is among those sent here", () => {
  const names = goldenPaths("probes/*.c2s.bin").filter((path) => !path.includes("manual-errors"));
  expect.equal(names.length, Object.keys(PROBES).length);
});

const EXCHANGES = ["probes/manual-errors.", ...goldenPaths("wire/*/conn2.c2s.bin")]
  .map((path) => path.replace("conn2.c2s.bin", ""))
  .filter((path) => !path.includes("role-primary"));

for (const prefix of EXCHANGES) {
  test(`the first step of ${prefix} is answered as captured, and the second makes a worker`, async () => {
    const node = new Node();
    await node.role("secondary");
    const answer = golden(`${prefix}conn1.s2c.bin`);
    node.foresee(firstMessage(answer));
    const a = await node.connect(golden(`${prefix}conn1.c2s.bin`));
    expect.deepEqual(a.written, firstMessage(answer));
    const b = await node.connect(golden(`${prefix}conn2.c2s.bin`));
    expect.equal(b.written.length, 0);
    const worker = node.processes.last;
    expect.deepEqual(worker.sockets, [a, b]);
    expect.equal(worker.start.hello?.version, 2);
    expect.notEqual(worker.start.hello?.resuid, 0n);
  });
}

test("a node with role init refuses as captured", async () => {
  await refusal("07-refused-role-init", new Node());
});

test("a node with role primary refuses as captured, and asks the peer to wait", async () => {
  const node = new Node();
  await node.role("primary");
  await refusal("07-refused-role-primary", node);
});

test("an unknown resource is refused as captured", async () => {
  const node = new Node();
  node.remove("r0");
  // As then, the peer may use another resource.
  await refusal("07-refused-unknown-resource", node, "127.0.1.9");
});

test("a peer of another resource is refused as captured", async () => {
  await refusal("07-refused-no-access", new Node(), "127.0.1.9");
});

/** Replays every connection of a scenario that ends with the first answer. */
async function refusal(scenario: string, node: Node, host = PRIMARY): Promise<void> {
  for (const path of goldenPaths(`wire/${scenario}/conn*.c2s.bin`)) {
    const socket = await node.connect(golden(path), host);
    const answer = golden(path.replace("c2s", "s2c"));
    expect.deepEqual(socket.written, zeroStreamPadding(answer), path);
    expect.equal(socket.state, "ended");
  }
}

test("a stranger is closed without a word, and nothing of it is read", async () => {
  const node = new Node();
  await node.role("secondary");
  const socket = await node.connect(golden("probes/hello-v2.c2s.bin"), "127.0.1.77");
  expect.equal(socket.written.length, 0);
  expect.equal(socket.state, "destroyed");
});

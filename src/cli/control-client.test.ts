// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock, settle } from "../../test/daemon/fakes.ts";
import { golden, goldenPaths } from "../../test/golden/vectors.ts";
import type { Net, Stream, StreamReader } from "../platform/net.ts";
import { decodeControlRequest, encodeControlError } from "../wire/control.ts";
import { FRAME_HEADER_SIZE } from "../wire/frame.ts";
import { ControlClient } from "./control-client.ts";

/** A hastd at the other end of a pretend network, played by the test. */
class FakeDaemon implements Net {
  readonly connects: string[] = [];
  readonly requests: Uint8Array[] = [];
  /** Why connecting fails, or null. */
  failure: string | null = null;
  destroyed = false;
  reader: StreamReader | null = null;

  connect(...[address, , done]: Parameters<Net["connect"]>): () => void {
    this.connects.push(address);
    queueMicrotask(() => done(this.failure === null ? this.#stream() : { failure: this.failure }));
    return () => {};
  }

  listen(): never {
    throw new Error("hastctl does not listen");
  }

  /** Sends bytes in pieces of `piece`. */
  send(bytes: Uint8Array, piece = bytes.length): void {
    for (let at = 0; at < bytes.length; ) {
      const space = this.reader!.space();
      assert.ok(space.length > 0);
      const part = bytes.subarray(at, at + Math.min(piece, space.length));
      space.set(part);
      at += part.length;
      this.reader!.received(part.length);
    }
  }

  #stream(): Stream {
    const unexpected = (): never => {
      throw new Error("not used");
    };
    return {
      peer: "unix:///ctl",
      start: (reader) => {
        this.reader = reader;
      },
      write: (bytes) => {
        this.requests.push(bytes.slice());
      },
      writeAll: unexpected,
      pause: unexpected,
      resume: unexpected,
      end: unexpected,
      destroy: () => {
        this.destroyed = true;
      },
    };
  }
}

function setUp(): { daemon: FakeDaemon; clock: FakeClock; client: ControlClient } {
  const daemon = new FakeDaemon();
  const clock = new FakeClock();
  const client = new ControlClient({
    net: daemon,
    clock,
    address: "/ctl",
    startCommand: "hastd -c /c",
  });
  return { daemon, clock, client };
}

test("a question goes to the configured socket, extended, and its answer ends the connection", async () => {
  const { daemon, clock, client } = setUp();
  const answer = client.status(["r0", "r1"]);
  await settle();
  assert.deepEqual(daemon.connects, ["/ctl"]);
  assert.deepEqual(decodeControlRequest(daemon.requests[0]!.subarray(FRAME_HEADER_SIZE)), {
    kind: "status",
    resources: ["r0", "r1"],
    extended: true,
  });
  daemon.send(golden("control/14-status-mixed.rep.bin"));
  const answered = await answer;
  assert.ok(answered.kind === "answered");
  assert.deepEqual(
    answered.entries.map((entry) => entry.resource),
    ["r0", "nope"],
  );
  assert.ok(daemon.destroyed);
  assert.equal(clock.timerCount, 0);
});

test("a role is asked for by its name", async () => {
  const { daemon, client } = setUp();
  const answer = client.setRole("secondary", ["all"], false);
  await settle();
  assert.deepEqual(decodeControlRequest(daemon.requests[0]!.subarray(FRAME_HEADER_SIZE)), {
    kind: "set-role",
    role: "secondary",
    resources: ["all"],
    extended: true,
  });
  daemon.send(golden("control/17-role-secondary-from-primary.rep.bin"));
  assert.deepEqual(await answer, {
    kind: "answered",
    entries: [
      {
        resource: "r0",
        outcome: { kind: "done", previousRole: "primary" },
        errmsg: null,
        notes: [],
      },
    ],
  });
});

test("every captured answer reads the same in one piece and byte by byte", async () => {
  for (const path of goldenPaths("control/*-{status,list}-*.rep.bin")) {
    const answers = [];
    for (const piece of [Number.POSITIVE_INFINITY, 1]) {
      const { daemon, client } = setUp();
      const answer = client.status(["all"]);
      await settle();
      daemon.send(golden(path), piece);
      answers.push(await answer);
    }
    assert.deepEqual(answers[0], answers[1], path);
  }
});

test("an answer larger than the first buffer is taken whole", async () => {
  const { daemon, client } = setUp();
  const one = golden("control/12-status-unknown.rep.bin").subarray(FRAME_HEADER_SIZE);
  const padding = new Uint8Array(300_000); // zeroes end an nv list
  const message = new Uint8Array(FRAME_HEADER_SIZE + one.length + padding.length);
  message[0] = 2;
  new DataView(message.buffer).setUint32(1, one.length + padding.length, true);
  message.set(one, FRAME_HEADER_SIZE);
  const answer = client.status(["nope"]);
  await settle();
  daemon.send(message, 65536);
  assert.equal((await answer).kind, "answered");
});

test("no hastd: exit 71, with the socket, the reason and the command that starts it", async () => {
  const { daemon, client } = setUp();
  daemon.failure = "connection refused";
  assert.deepEqual(await client.status(["all"]), {
    kind: "failed",
    lines: [
      "Unable to connect to hastd at /ctl: connection refused.",
      "If hastd is not running, start it:",
      "  hastd -c /c",
    ],
    exitCode: 71,
  });
});

test("no permission: exit 71, and nobody is told to start a daemon that runs", async () => {
  const { daemon, client } = setUp();
  daemon.failure = "permission denied";
  const answer = await client.status(["all"]);
  assert.ok(answer.kind === "failed");
  assert.equal(answer.exitCode, 71);
  assert.match(answer.lines.join("\n"), /normally root/);
  assert.doesNotMatch(answer.lines.join("\n"), /start/);
});

test("a global error: exit 70, in words", async () => {
  for (const [error, words] of [
    [2, /invalid/],
    [3, /out of memory/],
    [4, /does not know/],
    [99, /error 99/],
  ] as const) {
    const { daemon, client } = setUp();
    const answer = client.status(["all"]);
    await settle();
    daemon.send(encodeControlError(error));
    const failed = await answer;
    assert.ok(failed.kind === "failed");
    assert.equal(failed.exitCode, 70);
    assert.match(failed.lines[0]!, words);
  }
});

test("no answer in time: exit 69, the connection closed", async () => {
  const { daemon, clock, client } = setUp();
  const answer = client.status(["all"]);
  await clock.advance(19_999);
  assert.ok(!daemon.destroyed);
  await clock.advance(1);
  const failed = await answer;
  assert.ok(failed.kind === "failed");
  assert.equal(failed.exitCode, 69);
  assert.match(failed.lines[0]!, /nothing came for 20 seconds/);
  assert.ok(daemon.destroyed);
});

test("a role change may take longer than a status", async () => {
  const { daemon, clock, client } = setUp();
  const answer = client.setRole("primary", ["r0"], false);
  await clock.advance(100_000);
  daemon.send(golden("control/06-role-primary-all.rep.bin"));
  assert.equal((await answer).kind, "answered");
});

test("a connection that closes early, at any byte: exit 69", async () => {
  const whole = golden("control/12-status-unknown.rep.bin");
  for (let length = 0; length < whole.length; length++) {
    const { daemon, clock, client } = setUp();
    const answer = client.status(["nope"]);
    await settle();
    daemon.send(whole.subarray(0, length));
    daemon.reader!.closed(null);
    const failed = await answer;
    assert.ok(failed.kind === "failed");
    assert.equal(failed.exitCode, 69);
    assert.match(failed.lines[0]!, /closed the connection/);
    assert.equal(clock.timerCount, 0);
  }
});

test("garbage for an answer: exit 69, and what follows is ignored", async () => {
  for (const bytes of [
    [0xff, 1, 0, 0, 0, 0],
    [2, 0, 0, 0, 0],
    [2, 0xff, 0xff, 0xff, 0xff],
    [2, 4, 0, 0, 0, 1, 2, 3, 4],
  ]) {
    const { daemon, client } = setUp();
    const answer = client.status(["all"]);
    await settle();
    daemon.send(new Uint8Array(bytes));
    const failed = await answer;
    assert.ok(failed.kind === "failed", `${bytes}`);
    assert.equal(failed.exitCode, 69);
    daemon.send(golden("control/12-status-unknown.rep.bin"));
    daemon.reader!.closed("reset");
  }
});

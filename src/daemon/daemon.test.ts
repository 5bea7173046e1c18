// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  FakeClock,
  FakeLog,
  FakeProcesses,
  FakeResolver,
  FakeSocket,
  FakeStream,
  FIXED,
  NO_DEVICES,
  NO_HOOKS,
  NO_TLS,
  QUIET_REPORT,
  settingsOf,
  settle,
  USABLE,
} from "../../test/daemon/fakes.ts";
import type { HandshakeSocket } from "../platform/handshake-socket.ts";
import { NetError, type Stream } from "../platform/net.ts";
import { decodeStatusReply, encodeControlRequest } from "../wire/control.ts";
import { FRAME_HEADER_SIZE } from "../wire/frame.ts";
import { encodeP1 } from "../wire/handshake.ts";
import { Daemon, type DaemonSettings, SHUTDOWN_GRACE_MS, StartError } from "./daemon.ts";
import { STATUS_TIMEOUT_MS } from "./worker.ts";

class World {
  readonly clock = new FakeClock();
  readonly processes = new FakeProcesses();
  readonly log = new FakeLog();
  /** What is open, in the order in which it was opened. */
  readonly open: string[] = [];
  /** Addresses that cannot be bound, and why. */
  readonly unavailable = new Map<string, string>();
  control: (stream: Stream, user: number | null) => void = () => assert.fail();
  peer: (socket: HandshakeSocket) => void = () => assert.fail();
  readonly daemon: Daemon;

  constructor(settings: Partial<DaemonSettings> = {}) {
    const bind = async (address: string) => {
      const code = this.unavailable.get(address);
      if (code !== undefined) throw new NetError(code, `Cannot listen on ${address}: ${code}.`);
      this.open.push(address);
      return { address, close: () => this.open.splice(this.open.indexOf(address), 1) };
    };
    this.daemon = new Daemon(
      {
        control: "/run/ctl",
        listen: ["tcp4://0.0.0.0:8457", "tcp6://[::]:8457"],
        listenByDefault: true,
        resources: [settingsOf("r0"), settingsOf("r1")],
        hooks: NO_HOOKS.settings,
        controlAccess: { mode: 0o600, user: null, group: null },
        administrators: [0],
        ...settings,
      },
      {
        clock: this.clock,
        entropy: { fill: () => undefined },
        processes: this.processes,
        tls: NO_TLS,
        net: {
          connect: () => assert.fail(),
          listen: async (address, accepted) => {
            this.control = accepted;
            return await bind(address);
          },
        },
        handshakeNet: {
          listenHandshake: async ({ host, port }, accepted) => {
            this.peer = accepted;
            return await bind(`${host}:${port}`);
          },
        },
        resolver: new FakeResolver(),
        probe: async () => USABLE,
        log: this.log,
        workerLog: "stdio",
        devices: NO_DEVICES,
        hooks: NO_HOOKS,
        configuration: FIXED,
      },
    );
    this.processes.born = (worker) => worker.says({ kind: "ready" });
  }

  async fails(): Promise<StartError> {
    let found: unknown;
    await assert.rejects(this.daemon.open(), (error) => {
      found = error;
      return error instanceof StartError;
    });
    return found as StartError;
  }
}

test("the control socket is opened before the listeners", async () => {
  const world = new World();
  await world.daemon.open();
  assert.deepEqual(world.open, ["unix:///run/ctl", "0.0.0.0:8457", ":::8457"]);
});

test("what cannot be opened is exit code 71, names the address and leaves nothing open", async () => {
  const control = new World();
  control.unavailable.set("unix:///run/ctl", "EADDRINUSE");
  const one = await control.fails();
  assert.equal(one.exitCode, 71);
  assert.match(one.message, /^Control socket: .*\/run\/ctl/);

  const listener = new World();
  listener.unavailable.set(":::8457", "EADDRINUSE");
  const two = await listener.fails();
  assert.equal(two.exitCode, 71);
  assert.match(two.message, /:::8457/);
  assert.deepEqual(listener.open, []);
});

test("a missing address family is tolerated among the defaults, and only there", async () => {
  const world = new World();
  world.unavailable.set(":::8457", "EAFNOSUPPORT");
  await world.daemon.open();
  assert.deepEqual(world.daemon.listening, ["0.0.0.0:8457"]);

  const asked = new World({ listenByDefault: false });
  asked.unavailable.set(":::8457", "EAFNOSUPPORT");
  assert.equal((await asked.fails()).exitCode, 71);
});

test("no address family at all is exit code 75", async () => {
  const world = new World();
  world.unavailable.set(":::8457", "EAFNOSUPPORT");
  world.unavailable.set("0.0.0.0:8457", "EADDRNOTAVAIL");
  assert.equal((await world.fails()).exitCode, 75);
  assert.deepEqual(world.open, []);
});

test("both doors lead to the resources", async () => {
  const world = new World();
  await world.daemon.open();
  const stream = new FakeStream();
  world.control(stream, 0);
  stream.feed(encodeControlRequest({ kind: "status", resources: ["all"], extended: false }));
  await settle();
  const { entries } = decodeStatusReply(stream.written.subarray(FRAME_HEADER_SIZE));
  assert.deepEqual(
    entries.map(({ resource }) => resource),
    ["r0", "r1"],
  );

  const socket = new FakeSocket("10.0.0.2");
  world.peer(socket);
  socket.feed(encodeP1({ resource: "r1", version: 2, extensions: 0n, term: 0n }));
  await settle();
  assert.equal(socket.state, "ended");
  assert(world.log.says("[r1] (init) Connection from tcp://10.0.0.2:40000 refused"));
});

test("events of workers are logged under their resource and role", async () => {
  const world = new World();
  await world.daemon.open();
  await world.daemon.resource("r0")!.changeRole("primary");
  world.processes.last.says({ kind: "event", event: "syncdone" });
  assert(world.log.says("INFO [r0] (primary) Event: syncdone."));
});

test("watch() says who has which role, and costs a second where one worker hangs", async () => {
  const world = new World({ resources: ["r0", "r1", "r2"].map((name) => settingsOf(name)) });
  assert.equal(await world.daemon.watch(), "init: r0 r1 r2");
  for (const name of ["r0", "r2"]) await world.daemon.resource(name)!.changeRole("primary");
  world.processes.last.report = { ...QUIET_REPORT, status: "degraded" };
  const watched = world.daemon.watch();
  await world.clock.advance(STATUS_TIMEOUT_MS);
  assert.equal(await watched, "primary: r0 (does not answer) r2 (degraded); init: r1");
});

test("stop() closes the sockets at once and ends all workers in parallel", async () => {
  const world = new World();
  await world.daemon.open();
  for (const name of ["r0", "r1"]) await world.daemon.resource(name)!.changeRole("primary");
  for (const worker of world.processes.workers) worker.obedient = false;
  const stopped = world.daemon.stop();
  assert.deepEqual(world.open, []);
  await world.clock.advance(SHUTDOWN_GRACE_MS);
  await stopped;
  assert.equal(world.processes.alive.length, 0);
  assert.equal(world.clock.timerCount, 0);
});

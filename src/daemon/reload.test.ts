// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  FakeClock,
  FakeLog,
  FakeProcesses,
  FakePrograms,
  FakeResolver,
  FakeStream,
  type FakeWorker,
  NO_DEVICES,
  NO_TLS,
  QUIET_REPORT,
  settle,
  USABLE,
} from "../../test/daemon/fakes.ts";
import { formatComplaint } from "../config/complaint.ts";
import { readConfig } from "../config/config.ts";
import { NetError, type SocketAccess, type Stream } from "../platform/net.ts";
import { NO_SUPERVISOR, type Supervisor } from "../platform/supervisor.ts";
import { decodeDeedReply, encodeControlRequest } from "../wire/control.ts";
import { FRAME_HEADER_SIZE } from "../wire/frame.ts";
import type { Reloaded } from "./control-server.ts";
import { Daemon, StartError } from "./daemon.ts";
import { ConfigurationInUse, type Loaded } from "./reload.ts";
import { daemonSettings } from "./settings.ts";

const HERE = { names: ["alpha"], uuid: null, hostid: null };

/** "r0 timeout 5" → a resource of that name with that statement. */
function fileOf(...resources: readonly string[]): string {
  return resources
    .map((each) => {
      const [name, ...statements] = each.split(" ");
      const remote = each.includes("remote") ? "" : "remote 10.0.0.2";
      return `resource ${name} { local /disk/${name} ${remote} ${statements.join(" ")} on alpha { } }\n`;
    })
    .join("");
}

class World {
  readonly clock = new FakeClock();
  readonly processes = new FakeProcesses();
  readonly programs = new FakePrograms();
  readonly log = new FakeLog();
  /** What is open. */
  readonly open: string[] = [];
  /** What was open already, each time something was opened. */
  readonly besides: string[][] = [];
  readonly unavailable = new Set<string>();
  access: SocketAccess | undefined;
  control: (stream: Stream, user: number | null) => void = () => assert.fail();
  file: string;
  adopted = 0;
  /** What the service manager has heard. */
  readonly told: string[] = [];
  readonly supervisor: Supervisor = {
    ...NO_SUPERVISOR,
    ready: () => this.told.push("ready"),
    reloading: () => {
      // Or its end would say that we serve.
      assert(this.open.length > 0);
      this.told.push("reloading");
    },
  };
  /** What the process says it has taken over. */
  news: readonly string[] = [];
  readonly configuration: ConfigurationInUse;
  readonly daemon: Daemon;

  constructor(file: string) {
    this.file = file;
    const bind = async (address: string) => {
      if (this.unavailable.has(address)) {
        throw new NetError("EADDRINUSE", `Cannot listen on ${address}: in use.`);
      }
      // As the kernel has it: one socket for one address.
      assert(!this.open.includes(address), address);
      this.besides.push([...this.open]);
      this.open.push(address);
      return { address, close: () => this.open.splice(this.open.indexOf(address), 1) };
    };
    const { config, settings } = this.load();
    this.configuration = new ConfigurationInUse(
      config,
      () => this.load(),
      this.log,
      this.supervisor,
    );
    this.daemon = new Daemon(settings, {
      clock: this.clock,
      entropy: { fill: () => undefined },
      processes: this.processes,
      net: {
        connect: () => assert.fail(),
        listen: async (address, accepted, _failed, access) => {
          const listener = await bind(address);
          this.control = accepted;
          this.access = access;
          return listener;
        },
      },
      handshakeNet: { listenHandshake: ({ host, port }) => bind(`${host}:${port}`) },
      tls: NO_TLS,
      resolver: new FakeResolver(),
      probe: async () => USABLE,
      log: this.log,
      workerLog: "stdio",
      devices: NO_DEVICES,
      hooks: { programs: this.programs },
      configuration: this.configuration,
    });
    this.configuration.governs(this.daemon);
    this.processes.born = (worker) => {
      worker.report = QUIET_REPORT;
      worker.says({ kind: "ready" });
    };
  }

  static async start(file: string): Promise<World> {
    const world = new World(file);
    await world.daemon.open();
    return world;
  }

  load(): Loaded {
    const result = readConfig(this.file, "hast.conf", HERE);
    if (result.kind === "complaints") {
      throw new StartError(78, result.complaints.map(formatComplaint).join("\n"));
    }
    const { config } = result;
    const controlAccess = { mode: config.controlmode, user: null, group: null };
    const settings = daemonSettings(config, { controlAccess, administrators: [0] });
    const adopt = () => {
      this.adopted++;
      return this.news;
    };
    return { config, settings, adopt };
  }

  async reload(file: string): Promise<Reloaded> {
    this.file = file;
    return await this.configuration.reload();
  }

  async become(role: "primary" | "secondary", name = "r0"): Promise<FakeWorker> {
    assert.equal((await this.daemon.resource(name)!.changeRole(role)).kind, "done");
    return this.processes.last;
  }
}

test("a file with mistakes changes nothing; who asked and the log hear where they are", async () => {
  const world = await World.start(fileOf("r0"));
  const worker = await world.become("primary");
  const before = world.configuration.text();
  const reloaded = await world.reload(`listen 10.0.0.1\nbogus\n${fileOf("r1 timeout 0")}`);
  assert(reloaded.kind === "failed");
  assert.match(reloaded.reason, /^Nothing was reloaded: the old configuration stays in use\.$/);
  assert.match(reloaded.lines[0]!, /^hast\.conf:2:1: unknown statement/);
  assert.match(reloaded.lines[1]!, /^hast\.conf:3:\d+: /);
  for (const line of reloaded.lines) assert(world.log.says(`ERROR ${line}`));
  assert.equal(world.configuration.text(), before);
  assert.deepEqual(asked(worker), ["start"]);
  assert.equal(world.daemon.resource("r1"), undefined);
  assert.equal(world.adopted, 0);
});

test("a reload while hastd still starts comes after that: neither finds the other's address in use", async () => {
  const world = new World(fileOf("r0"));
  const opening = world.daemon.open();
  const reloaded = await world.reload(fileOf("r0 timeout 5"));
  await opening;
  assert.equal(reloaded.kind, "done");
  assert.equal(world.open.length, new Set(world.open).size);
});

test("the service manager hears when a reload begins and when it has ended, well or not", async () => {
  const world = new World(fileOf("r0"));
  const opening = world.daemon.open();
  assert.equal((await world.reload("bogus")).kind, "failed");
  await opening;
  assert.deepEqual(world.told, ["reloading", "ready"]);
  assert.equal((await world.reload(fileOf("r0"))).kind, "done");
  assert.deepEqual(world.told, ["reloading", "ready", "reloading", "ready"]);
});

test("a primary is told what may change live, and keeps its worker", async () => {
  const world = await World.start(fileOf("r0"));
  const worker = await world.become("primary");
  const reloaded = await world.reload(
    fileOf("r0 replication fullsync timeout 5 checksum crc32 exec /bin/new"),
  );
  assert.deepEqual(reloaded, {
    kind: "done",
    lines: [
      "r0: changed live; its role is primary",
      "  replication: memsync -> fullsync",
      "  checksum: none -> crc32",
      "  timeout: 20 -> 5",
      "  exec: none -> /bin/new",
    ],
  });
  assert(world.log.says("NOTICE r0: changed live; its role is primary: replication: memsync -> "));
  assert.deepEqual(asked(worker), ["start", "settings"]);
  const [, told] = worker.sent;
  assert(told?.kind === "settings");
  assert.deepEqual(told.settings, { ...worker.start.settings, ...changed });
  const { outcome } = await world.daemon.resource("r0")!.statusEntry();
  assert(outcome.kind === "known");
  assert.equal(outcome.status.replication, "fullsync");
  // The next worker has them from the start, and the next event goes to the new program (BD-32).
  worker.exit({ kind: "signal", signal: "SIGKILL" });
  await world.clock.advance(1_000);
  assert.deepEqual(world.processes.last.start.settings, told.settings);
  world.processes.last.says({ kind: "event", event: "connect" });
  await settle();
  assert.deepEqual(world.programs.last.argv, ["/bin/new", "connect", "r0"]);
});

/** What it was told. */
function asked(worker: FakeWorker): readonly string[] {
  return worker.kinds.filter((kind) => kind !== "status");
}

const changed = { replication: "fullsync", timeout: 5, checksum: "crc32" } as const;

test("BD-24: `remote` of a connected primary changes live, and nobody waits for its worker", async () => {
  const world = await World.start(fileOf("r0"));
  const worker = await world.become("primary");
  worker.obedient = false;
  worker.says({ kind: "event", event: "connect" });
  const reloaded = await world.reload(fileOf("r0 remote 10.0.0.3"));
  assert.deepEqual(reloaded, {
    kind: "done",
    lines: ["r0: changed live; its role is primary", "  remote: 10.0.0.2 -> 10.0.0.3"],
  });
  worker.says({ kind: "event", event: "disconnect" });
  assert(world.log.says("Event: disconnect."));
  assert.equal((await world.reload(world.file)).lines[0], "nothing has changed");
});

test("what cannot change live restarts the resource: it has its role again, and no gate is asked", async () => {
  const world = await World.start(fileOf("r0 exec /bin/old gate /bin/gate"));
  world.daemon.setHooks("r0", { exec: "/bin/old", gate: null, timeoutMs: 60_000 });
  const worker = await world.become("primary");
  await settle();
  await world.programs.last.exit(0);
  const reloading = world.reload(fileOf("r0 exec /bin/new gate /bin/gate name disk timeout 5"));
  await settle();
  assert.equal(world.daemon.resource("r0")!.announcedRole, "primary");
  const reloaded = await reloading;
  assert.deepEqual(reloaded, {
    kind: "done",
    lines: [
      "r0: restarted, back to role primary",
      "  name: r0 -> disk",
      "  export: unix:///run/hast/r0.sock -> unix:///run/hast/disk.sock",
      "  timeout: 20 -> 5",
      "  exec: /bin/old -> /bin/new",
    ],
  });
  assert.deepEqual(asked(worker), ["start", "stop"]);
  assert.notEqual(world.processes.last, worker);
  assert.equal(world.processes.last.start.settings.provname, "disk");
  // The role goes under the old program and comes back under the new one (behaviour §12).
  await settle();
  await world.programs.last.exit(0);
  await settle();
  assert.deepEqual(
    world.programs.started.slice(1).map(({ argv }) => argv.join(" ")),
    ["/bin/old role r0 primary init", "/bin/new role r0 init primary"],
  );
});

test("a secondary is restarted for every change, and one in init takes it over without a word", async () => {
  const world = await World.start(fileOf("r0", "r1"));
  await world.become("secondary");
  const reloaded = await world.reload(fileOf("r0 timeout 5", "r1 timeout 5"));
  assert.deepEqual(reloaded, {
    kind: "done",
    lines: [
      "r0: restarted, back to role secondary",
      "  timeout: 20 -> 5",
      "r1: restarted, back to role init: nothing ran",
      "  timeout: 20 -> 5",
    ],
  });
  assert.equal(world.daemon.resource("r0")!.role, "secondary");
  assert.equal(world.daemon.resource("r1")!.settings.timeout, 5);
});

test("a role that cannot be taken again is told, with the way back", async () => {
  const world = await World.start(fileOf("r0"));
  await world.become("primary");
  world.processes.born = (worker) => {
    worker.says({ kind: "failed", exitCode: 66, message: "no metadata at /disk/other" });
    worker.exit({ kind: "code", code: 66 });
  };
  const reloaded = await world.reload(
    "resource r0 { local /disk/other remote 10.0.0.2 on alpha { } }",
  );
  assert.deepEqual(reloaded, {
    kind: "failed",
    reason: "hast.conf is in use now, but one resource has lost the role.",
    lines: [
      "r0: restarted, and in role init now: no metadata at /disk/other",
      "  local: /disk/r0 -> /disk/other",
      "  when the cause is gone: hastctl role primary r0",
    ],
  });
  const entry = await world.daemon.resource("r0")!.statusEntry();
  assert.match(entry.notes[0]!, /After a reload the role primary could not be taken again/);
});

test("resources are added in role init, and removed ones stop", async () => {
  const world = await World.start(fileOf("r0 exec /bin/hook", "r1"));
  const worker = await world.become("primary");
  await world.become("primary", "r1");
  await settle();
  await world.programs.last.exit(0);
  const reloading = world.reload(fileOf("r2", "r1"));
  await world.clock.advance(10);
  await world.clock.advance(10);
  assert.equal(world.programs.started.length, 2);
  await world.programs.last.exit(0);
  assert.deepEqual(await reloading, {
    kind: "done",
    lines: ["r0: removed; its role was primary", "r2: added, in role init"],
  });
  assert.deepEqual(asked(worker), ["start", "stop"]);
  assert.deepEqual(world.programs.last.argv.join(" "), "/bin/hook role r0 primary init");
  assert.equal(world.daemon.resource("r0"), undefined);
  assert.equal(world.daemon.resource("r2")!.role, "init");
  assert.equal(world.daemon.resource("r1")!.role, "primary");
  const stream = new FakeStream();
  world.control(stream, 0);
  stream.feed(encodeControlRequest({ kind: "status", resources: ["all"], extended: false }));
  await settle();
  const { entries } = decodeDeedReply(stream.written.subarray(FRAME_HEADER_SIZE));
  assert.deepEqual(
    entries.map(({ resource }) => resource),
    ["r2", "r1"],
  );
});

test("new listeners and a new control socket are open before the old ones are closed", async () => {
  const world = await World.start(`listen 10.0.0.1\nlisten 10.0.0.9\n${fileOf("r0")}`);
  world.besides.length = 0;
  const reloaded = await world.reload(
    `listen 10.0.0.1\nlisten 10.0.0.5:9000\ncontrol /run/other\n${fileOf("r0")}`,
  );
  assert.deepEqual(reloaded.lines, [
    "hastd: control: /var/run/hastctl -> /run/other",
    "hastd: listen: 10.0.0.1 10.0.0.9 -> 10.0.0.1 10.0.0.5:9000",
  ]);
  assert.deepEqual(world.open, ["10.0.0.1:8457", "10.0.0.5:9000", "unix:///run/other"]);
  assert.equal(world.besides.length, 2);
  for (const open of world.besides) assert(open.includes("10.0.0.9:8457"), open.join());
});

for (const taken of ["10.0.0.5:8457", "unix:///run/other"]) {
  test(`where ${taken} cannot be bound, the old configuration stays in force as a whole`, async () => {
    const world = await World.start(`listen 10.0.0.1\n${fileOf("r0")}`);
    const worker = await world.become("primary");
    world.unavailable.add(taken);
    const reloaded = await world.reload(
      `listen 10.0.0.4\nlisten 10.0.0.5\ncontrol /run/other\n${fileOf("r0 timeout 5")}`,
    );
    assert.equal(reloaded.kind, "failed");
    assert.match(reloaded.lines.join(), new RegExp(`Cannot listen on ${taken}`));
    assert.deepEqual(world.open, ["unix:///var/run/hastctl", "10.0.0.1:8457"]);
    assert.deepEqual(asked(worker), ["start"]);
    assert.equal(world.daemon.resource("r0")!.settings.timeout, 20);
  });
}

test("other rights of the control socket take a new socket at the old path", async () => {
  const world = await World.start(fileOf("r0"));
  await world.reload(`controlmode 640\n${fileOf("r0")}`);
  assert.equal(world.access?.mode, 0o640);
  assert(world.open.includes("unix:///var/run/hastctl"));
});

test("a reload waits for the one before it", async () => {
  const world = await World.start(fileOf("r0"));
  const first = world.reload(fileOf("r0", "r1"));
  const second = world.reload(fileOf("r0", "r1", "r2"));
  // The file is read when its turn comes.
  assert.deepEqual((await first).lines, ["r1: added, in role init", "r2: added, in role init"]);
  assert.deepEqual((await second).lines, ["nothing has changed"]);
});

test("`hastctl reload` is answered with what has changed, and refused to who may only look", async () => {
  const world = await World.start(fileOf("r0"));
  const ask = async (kind: "reload" | "config", user: number) => {
    const stream = new FakeStream();
    world.control(stream, user);
    stream.feed(encodeControlRequest({ kind }));
    await settle();
    return decodeDeedReply(stream.written.subarray(FRAME_HEADER_SIZE)).entries[0]!;
  };
  world.file = fileOf("r0 timeout 5");
  const stranger = await ask("reload", 1000);
  assert.equal(stranger.outcome.kind, "failed");
  assert.match(stranger.errmsg!, /You may ask for status/);
  assert.match((await ask("config", 1000)).notes.join("\n"), /timeout 20/);
  const answer = await ask("reload", 0);
  assert.deepEqual(answer, {
    resource: "hastd",
    outcome: { kind: "done" },
    errmsg: null,
    notes: ["r0: restarted, back to role init: nothing ran", "  timeout: 20 -> 5"],
  });
  assert.match((await ask("config", 0)).notes.join("\n"), /timeout 5/);
  world.file = "bogus";
  const refused = await ask("reload", 0);
  assert.deepEqual(refused.outcome, { kind: "failed", error: 2 });
  assert.match(refused.notes[0]!, /^hast\.conf:1:1: /);
});

// SPDX-License-Identifier: BSD-2-Clause
/** The programs bin/hastd and bin/hastctl: how they start, where they write, what they leave behind. */

import { strict as assert } from "node:assert";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { type TestContext, test } from "node:test";
import { type Outcome, runCommand } from "./command.ts";
import {
  killMarked,
  markedEnvironment,
  markedProcesses,
  signal,
  titleOf,
} from "./marked-processes.ts";
import { until } from "./until.ts";

const BIN = resolve(import.meta.dirname, "../../bin");
const HASTD = join(BIN, "hastd");

class Place {
  readonly directory = mkdtempSync(join(tmpdir(), "hast-program-"));
  readonly configuration = join(this.directory, "hast.conf");
  readonly control = join(this.directory, "ctl");
  readonly pidfile = join(this.directory, "pid");
  readonly environment = markedEnvironment(this.directory);

  constructor(t: TestContext) {
    this.configure();
    t.after(() => {
      killMarked(this.directory);
      rmSync(this.directory, { recursive: true });
    });
  }

  configure(more = ""): void {
    writeFileSync(
      this.configuration,
      `control ${this.control}\npidfile ${this.pidfile}\nlisten tcp4://127.0.0.1:${port()}\n${more}`,
    );
  }

  hastd(...args: string[]): Promise<Outcome> {
    return runCommand(HASTD, ["-c", this.configuration, ...args], {
      env: this.environment,
      cwd: this.directory,
      withinMs: 20_000,
    });
  }

  pid(): number {
    return Number(readFileSync(this.pidfile, "utf8"));
  }

  async gone(pid: number): Promise<void> {
    await until("hastd has gone", () => !markedProcesses(this.directory).includes(pid));
  }
}

let lastPort = 20_000 + (process.pid % 10_000);
function port(): number {
  return ++lastPort;
}

test("--version and wrong usage need no configuration", async () => {
  for (const program of ["hastd", "hastctl"]) {
    const { code, stdout } = await runCommand(join(BIN, program), ["--version"]);
    assert.equal(code, 0);
    assert.match(
      stdout,
      new RegExp(`^${program} \\d+\\.\\d+\\.\\d+ \\((release|[0-9a-f]{12})\\)\\n$`),
    );
  }
  for (const args of [["-h"], ["-x"], ["-c"], ["start"]]) {
    const { code, stderr } = await runCommand(HASTD, args);
    assert.equal(code, 64);
    assert.match(stderr, /^usage: hastd /m);
  }
});

test("the wrappers work through links, from any directory, and do not listen to NODE_OPTIONS", async (t) => {
  const { directory } = new Place(t);
  const link = join(directory, "hastd");
  symlinkSync(HASTD, join(directory, "first"));
  symlinkSync("first", link);
  // Named as the program, as a link in /usr/local/sbin would be.
  const env = { ...process.env, NODE_OPTIONS: "--require=/nonexistent.js", PATH: "/usr/bin:/bin" };
  const { code, stdout, stderr } = await runCommand(link, ["--version"], { env, cwd: "/" });
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^hastd /);
});

test("without the package's Node a new one on PATH serves, and an old one is told apart", async (t) => {
  const { directory } = new Place(t);
  for (const name of ["bin", "path"]) mkdirSync(join(directory, name));
  const program = join(directory, "bin/hastd");
  writeFileSync(program, readFileSync(HASTD));
  chmodSync(program, 0o755);
  symlinkSync(resolve(BIN, "../src"), join(directory, "src"));
  writeFileSync(join(directory, "package.json"), '{ "type": "module", "version": "1.2.3" }');
  const node = join(directory, "path/node");
  const run = () =>
    runCommand(program, ["--version"], { env: { PATH: `${directory}/path:/usr/bin:/bin` } });

  writeFileSync(node, "#!/bin/sh\necho old\n");
  chmodSync(node, 0o755);
  const old = await run();
  assert.equal(old.code, 69);
  assert.match(old.stderr, /^hastd: Node\.js 24\.12 or newer is needed\. Run: cd .* && npm ci\n$/);

  rmSync(node);
  symlinkSync(process.execPath, node);
  const bare = await run();
  assert.equal(bare.code, 69);
  assert.match(bare.stderr, /^hastd: npm packages are missing\. Run: cd .* && npm ci\n$/);

  mkdirSync(join(directory, "node_modules/koffi"), { recursive: true });
  const fresh = await run();
  assert.equal(fresh.code, 0, fresh.stderr);
});

test("hastd goes to the background when it serves: a session of its own, /, no terminal, a pidfile", async (t) => {
  const place = new Place(t);
  const { code, stdout, stderr } = await place.hastd();
  assert.deepEqual([code, stdout], [0, ""]);
  // Nothing to say, unless nobody will hear anything from now on.
  assert.match(stderr, existsSync("/dev/log") ? /^$/ : /^\[WARNING\] There is no syslog .*\n$/);
  const pid = place.pid();
  assert.equal(readFileSync(place.pidfile, "utf8"), String(pid));
  assert.equal(titleOf(pid), "hastd");
  assert.equal(readlinkSync(`/proc/${pid}/cwd`), "/");
  for (const fd of [0, 1, 2]) assert.equal(readlinkSync(`/proc/${pid}/fd/${fd}`), "/dev/null");
  const [, fields] = /\) (.*)/.exec(readFileSync(`/proc/${pid}/stat`, "utf8"))!;
  assert.equal(Number(fields!.split(" ")[3]), pid, "the leader of its session");
  assert.deepEqual(markedProcesses(place.directory), [pid]);
  const status = await runCommand(join(BIN, "hastctl"), ["status", "-c", place.configuration]);
  assert.equal(status.code, 0);

  signal(pid, "SIGTERM");
  await place.gone(pid);
  assert(!existsSync(place.pidfile), "the pidfile is removed (BD-37)");
  assert(!existsSync(place.control), "the control socket is removed");
});

test("a start that fails in the background is told where it was asked for, with its exit code", async (t) => {
  const place = new Place(t);
  await place.hastd();
  const pid = place.pid();
  const second = await place.hastd();
  assert.equal(second.code, 75);
  assert.match(
    second.stderr,
    new RegExp(`^\\[ERROR\\] ${place.pidfile} is locked .*\\(pid ${pid}\\)`),
  );
  // With a pidfile of its own, it finds the control socket taken.
  const third = await place.hastd("-P", join(place.directory, "other"));
  assert.equal(third.code, 71);
  assert.match(third.stderr, /^\[ERROR\] Control socket: .*another process listens there/);
  assert(!existsSync(join(place.directory, "other")), "its own pidfile is removed again");
  assert.equal(place.pid(), pid);

  place.configure("resource {\n");
  assert.equal((await place.hastd("-F")).code, 78);
  rmSync(place.configuration);
  assert.equal((await place.hastd()).code, 72);
});

test("a pidfile that cannot be made is a warning", async (t) => {
  const place = new Place(t);
  const { code, stderr } = await place.hastd("-P", join(place.directory, "none/pid"));
  assert.equal(code, 0);
  assert.match(
    stderr,
    /^\[WARNING\] Cannot open or create pidfile .*: no such file or directory\.$/m,
  );
});

test("SIGHUP with a wrong configuration, a right one, or none ends nothing", async (t) => {
  const place = new Place(t);
  const child = spawn(HASTD, ["-F", "-c", place.configuration], { env: place.environment });
  let log = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (log += text));
  await until("it serves", () => log.includes("Started"));
  child.kill("SIGHUP");
  await until("it has looked", () => log.includes("is reloaded: nothing has changed"));
  place.configure("resource {\n");
  child.kill("SIGHUP");
  await until("it complains", () => /hast\.conf:\d+:\d+: /.test(log));
  rmSync(place.configuration);
  child.kill("SIGHUP");
  await until("it complains", () => log.includes("Unable to open configuration file"));
  assert.equal(child.exitCode, null);
  child.kill("SIGINT");
  const [code] = await once(child, "exit");
  assert.equal(code, 0);
  assert(!existsSync(place.pidfile), "not used with -F");
});

test("what a killed daemon leaves behind does not keep the next from starting", async (t) => {
  const place = new Place(t);
  await place.hastd();
  const pid = place.pid();
  signal(pid, "SIGKILL");
  await place.gone(pid);
  assert(existsSync(place.pidfile) && existsSync(place.control));
  assert.equal((await place.hastd()).code, 0);
  assert.notEqual(place.pid(), pid);
});

test("the background daemon holds none of the descriptors it was started with", async (t) => {
  const place = new Place(t);
  const lock = join(place.directory, "lock");
  writeFileSync(lock, "");
  // As a failover script that has locked itself would start it.
  const child = spawn(HASTD, ["-c", place.configuration], {
    env: place.environment,
    stdio: ["ignore", "inherit", "inherit", openSync(lock, "r"), openSync(lock, "r")],
  });
  const [code] = await once(child, "exit");
  assert.equal(code, 0);
  const held = await runCommand("sh", ["-c", `readlink /proc/${place.pid()}/fd/*`]);
  assert(!held.stdout.includes(lock), held.stdout);
});

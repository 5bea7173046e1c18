// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock, FakeLog, FakeProgram, settle } from "../../test/daemon/fakes.ts";
import type { System } from "../platform/system.ts";
import type { ProgramHandler, Programs, RunningProgram } from "../platform/watched-program.ts";
import {
  Attachment,
  HELD_PATIENCE_MS,
  LAST_SYNC_MS,
  READY_TIMEOUT_MS,
  RENEW_DELAY_MS,
  STEP_TIMEOUT_MS,
} from "./attachment.ts";
import type { DeviceWish } from "./kinds.ts";

const PLACE = "/dev/hast/.0101010101010101";

/** A pretend kernel, with the tools that change it. */
class Machine implements System, Programs {
  readonly clock = new FakeClock();
  readonly log = new FakeLog();
  /** Path → text; a link's begins with "-> ". */
  readonly files = new Map<string, string>();
  readonly installed = new Set(["nbdkit", "nbdfuse", "fusermount3", "losetup"]);
  readonly usable = new Set(["/dev/fuse", "/dev/loop-control"]);
  /** What was run to its end, in order. */
  readonly ran: string[] = [];
  readonly tools = new Map<number, FakeProgram>();
  readonly handlers = new Map<number, ProgramHandler>();
  /** Programs that never end, or are never ready. */
  readonly stuck = new Set<string>();
  /** Programs that fail, and what they say. */
  readonly broken = new Map<string, string>();
  /** Processes that not even SIGKILL ends. */
  unkillable = new Set<number>();
  mounts: string[] = ["21 1 8:1 / / rw - ext4 /dev/sda1 rw"];
  lost = 0;
  token = 0;
  readonly attachment: Attachment;
  #pid = 100;

  constructor() {
    this.files.set("/proc/self/stat", stat(77, "hastd: main", 5000));
    this.files.set("/proc/77/stat", stat(77, "hastd: main", 5000));
    this.files.set("/sys/block/sda/size", "1");
    this.attachment = this.another();
  }

  /** The attachment of another hastd, or of the next one. */
  another(name = "r0"): Attachment {
    const owner = {
      name,
      log: this.log,
      deviceLost: () => {
        this.lost += 1;
      },
    };
    return new Attachment(owner, this.clock, {
      programs: this,
      system: this,
      entropy: { fill: (bytes) => bytes.fill(++this.token) },
      directory: "/dev/hast",
    });
  }

  // --- System.

  text(path: string): string | null {
    if (path === "/proc/self/mountinfo") return `${this.mounts.join("\n")}\n`;
    return this.files.get(path) ?? null;
  }

  names(path: string): string[] {
    const names = new Set<string>();
    for (const file of this.files.keys()) {
      if (file.startsWith(`${path}/`)) names.add(file.slice(path.length + 1).split("/")[0]!);
    }
    return [...names].filter((name) => name !== "");
  }

  target(path: string): string | null {
    const text = this.files.get(path);
    return text?.startsWith("-> ") ? text.slice(3) : null;
  }

  mayUse(path: string): boolean {
    return this.usable.has(path);
  }

  program(name: string): string | null {
    const basic = ["sync", "umount", "mount"].includes(name);
    return basic || this.installed.has(name) ? `/bin/${name}` : null;
  }

  makeDirectory(path: string): void {
    this.files.set(`${path}/`, "");
  }

  write(path: string, text: string): void {
    this.files.set(path, text);
    if (path.endsWith("/abort")) this.ran.push(`abort ${path.split("/").at(-2)}`);
  }

  link(path: string, target: string): void {
    this.files.set(path, `-> ${target}`);
  }

  remove(path: string): void {
    this.files.delete(path);
    this.files.delete(`${path}/`);
  }

  kill(pid: number): void {
    if (this.unkillable.has(pid) || !this.files.has(`/proc/${pid}/cmdline`)) return;
    this.ran.push(`kill ${this.files.get(`/proc/${pid}/comm`)}`);
    this.dies(pid);
  }

  // --- Programs.

  start(
    argv: readonly string[],
    environment: Readonly<Record<string, string>>,
    handler: ProgramHandler,
  ): RunningProgram {
    const pid = this.#pid++;
    const program = new FakeProgram(argv, environment, pid, handler);
    const name = argv[0]!.replace("/bin/", "");
    this.handlers.set(pid, handler);
    void settle().then(async () => {
      const complaint = this.broken.get(name);
      if (complaint !== undefined) {
        program.prints(complaint, "stderr");
        await program.exit(1);
        return;
      }
      const stays = this.#effect(name, argv, pid);
      if (stays) this.tools.set(pid, program);
      else {
        this.ran.push(`${name} ${argv.slice(1).join(" ")}`);
        if (name === "losetup" && argv.includes("--show")) program.prints("/dev/loop5");
        if (!this.stuck.has(name)) await program.exit(0);
      }
    });
    return program;
  }

  /** @returns whether it stays */
  #effect(name: string, argv: readonly string[], pid: number): boolean {
    const after = (option: string) => argv[argv.indexOf(option) + 1]!;
    switch (name) {
      case "nbdkit":
        this.#appears(name, argv, pid);
        if (!this.stuck.has(name)) this.files.set(after("--unix"), "socket");
        return true;
      case "nbdfuse": {
        this.#appears(name, argv, pid);
        if (this.stuck.has(name)) return true;
        const file = argv.at(-2)!;
        this.mounts.push(`43 21 0:40 / ${file.replace(/\/[^/]*$/, "")} rw - fuse /dev/fuse rw`);
        this.files.set(after("--pidfile"), `${pid}`);
        this.files.set("/sys/fs/fuse/connections/40/abort", "");
        return true;
      }
      case "nbd-client":
        if (argv.includes("-d")) return false;
        this.#appears(name, argv, pid);
        this.files.set("/sys/block/nbd1/size", "1000");
        this.files.set("/sys/block/nbd1/pid", `${pid}`);
        return true;
      case "losetup":
        if (argv.includes("--show")) {
          this.files.set("/sys/block/loop5/loop/backing_file", `${argv.at(-1)!}\n`);
          this.files.set("/sys/class/block/loop5/dev", "7:5\n");
        } else if (!this.stuck.has(name)) {
          this.files.delete("/sys/block/loop5/loop/backing_file");
        }
        return false;
      case "umount":
        this.mounts = this.mounts.filter((mount) => !mount.includes(` ${argv.at(-1)} `));
        return false;
      default:
        return false;
    }
  }

  #appears(name: string, argv: readonly string[], pid: number): void {
    this.files.set(`/proc/${pid}/comm`, `${name}`);
    this.files.set(`/proc/${pid}/cmdline`, `${argv.join("\0")}\0`);
  }

  /** A tool dies. */
  dies(pid: number): void {
    this.files.delete(`/proc/${pid}/comm`);
    this.files.delete(`/proc/${pid}/cmdline`);
    this.files.delete(`/proc/${pid}/fd/9`);
    void this.tools.get(pid)?.ends({ kind: "signal", signal: "SIGKILL" });
    this.tools.delete(pid);
  }

  pidOf(name: string): number {
    const found = [...this.tools].find(([, { argv }]) => argv[0] === `/bin/${name}`);
    assert(found !== undefined);
    return found[0];
  }

  /** Somebody mounts the device. */
  mount(): void {
    this.mounts.push("60 21 7:5 / /data rw - ext4 /dev/hast/r0 rw");
  }

  /** Runs the clock until the promise has resolved. */
  async wait<Value>(promise: Promise<Value>, patienceMs = 120_000): Promise<Value> {
    let result: { readonly value: Value } | null = null;
    void promise.then((value) => {
      result = { value };
    });
    for (let waited = 0; waited < patienceMs; waited += 20) {
      await this.clock.advance(20);
      if (result !== null) return (result as { readonly value: Value }).value;
    }
    return assert.fail(`still waiting after ${patienceMs} ms`);
  }

  async attach(device: DeviceWish = "auto", sectorSize = 512): Promise<string | null> {
    const prepared = await this.wait(this.attachment.prepare({ provname: "r0", device }));
    assert.equal(prepared.kind, "ready");
    return await this.wait(this.attachment.attach(sectorSize));
  }
}

function stat(pid: number, name: string, start: number): string {
  return `${pid} (${name}) S ${"0 ".repeat(18)}${start} 0 0\n`;
}

test("a device is there when attach() returns: nbdkit, nbdfuse, a loop device past the page cache, the link", async () => {
  const machine = new Machine();
  const prepared = await machine.wait(
    machine.attachment.prepare({ provname: "r0", device: "auto" }),
  );
  assert.deepEqual(prepared, { kind: "ready", socket: `unix://${PLACE}/worker` });
  assert.equal(await machine.wait(machine.attachment.attach(512)), null);
  assert.equal(machine.target("/dev/hast/r0"), "/dev/loop5");
  assert.deepEqual(machine.attachment.status, {
    path: "/dev/hast/r0",
    kind: "fuse",
    node: "/dev/loop5",
  });
  assert.deepEqual(
    [...machine.tools.values()].map(({ argv }) => argv.slice(0, 3).join(" ")),
    ["/bin/nbdkit --foreground --exit-with-parent", `/bin/nbdfuse --pidfile ${PLACE}/ready1`],
  );
  assert.deepEqual(machine.ran, [
    `losetup --find --show --direct-io=on ${PLACE}/mount1/r0-0101010101010101`,
  ]);
  assert.equal(machine.attachment.held(), null);
  assert.deepEqual(machine.attachment.notes(), []);
});

test("a disk of large sectors becomes a device of large sectors", async () => {
  const machine = new Machine();
  await machine.attach("fuse", 4096);
  assert.match(machine.ran[0]!, /--direct-io=on --sector-size 4096 /);
});

test("without its tools there is no device, and auto says once what to install; fuse is refused", async () => {
  const machine = new Machine();
  machine.installed.delete("nbdkit");
  for (let time = 0; time < 2; time++) {
    const prepared = await machine.attachment.prepare({ provname: "r0", device: "auto" });
    assert.deepEqual(prepared, { kind: "ready", socket: null });
  }
  const notices = machine.log.lines.filter((line) => line.startsWith("NOTICE"));
  assert.equal(notices.length, 1);
  assert.match(notices[0]!, /There will be no \/dev\/hast\/r0.*apt-get install nbdkit/);
  const wanted = { provname: "r0", device: "fuse" } as const;
  assert.match(machine.attachment.impossible(wanted)!, /^device fuse: nbdkit is missing/);
  assert.equal((await machine.attachment.prepare(wanted)).kind, "failed");
  const none = await machine.attachment.prepare({ provname: "r0", device: "none" });
  assert.deepEqual(none, { kind: "ready", socket: null });
  assert.equal(await machine.attachment.attach(512), null);
  assert.equal(machine.attachment.status, null);
});

test("kernel NBD is preferred where it is, and the first free device taken", async () => {
  const machine = new Machine();
  machine.installed.add("nbd-client");
  machine.usable.add("/dev/nbd0");
  machine.files.set("/sys/block/nbd0/size", "77");
  machine.files.set("/sys/block/nbd1/size", "0");
  assert.equal(await machine.attach(), null);
  assert.equal(machine.target("/dev/hast/r0"), "/dev/nbd1");
  const client = machine.tools.get(machine.pidOf("nbd-client"))!;
  assert.deepEqual(client.argv.slice(1, 4), ["-unix", `${PLACE}/kit1`, "/dev/nbd1"]);
  // The client keeps its own device open, and does not count.
  machine.files.set(`/proc/${client.pid}/fd/9`, "-> /dev/nbd1");
  assert.equal(await machine.wait(machine.attachment.detach("unless used")), null);
  assert.deepEqual(machine.ran, [
    "sync /dev/nbd1",
    "nbd-client -d /dev/nbd1",
    "kill nbdkit",
    "kill nbd-client",
  ]);
  assert.equal(machine.target("/dev/hast/r0"), null);
});

test("a tool that fails, or is never ready, is why there is no device; nothing is left of it", async () => {
  for (const [tool, how, reason] of [
    ["nbdkit", "broken", /could not be made \(device fuse\): nbdkit: exit code 1: no such filter/],
    ["nbdfuse", "broken", /nbdfuse: exit code 1: no such filter/],
    ["nbdfuse", "stuck", /nbdfuse is not ready after 10 s/],
    ["losetup", "broken", /losetup: exit code 1: no such filter/],
  ] as const) {
    const machine = new Machine();
    if (how === "broken") machine.broken.set(tool, "no such filter");
    else machine.stuck.add(tool);
    assert.match((await machine.attach())!, reason);
    machine.broken.clear();
    assert.equal(await machine.wait(machine.attachment.detach("at once")), null);
    assert.deepEqual(machine.names("/dev/hast"), []);
    assert.equal(machine.tools.size, 0);
    assert.equal(machine.mounts.length, 1);
    assert.equal(machine.attachment.status, null);
  }
});

test("an nbdfuse that mounts nothing is found out, before writes go to a plain file", async () => {
  const machine = new Machine();
  const { mounts } = machine;
  mounts.push = () => 0;
  assert.match((await machine.attach())!, /has mounted nothing/);
  assert.deepEqual(machine.ran, []);
});

test("a file that somebody wrote where the device should be is not overwritten", async () => {
  const machine = new Machine();
  machine.files.set("/dev/hast/r0", "backup");
  const prepared = await machine.attachment.prepare({ provname: "r0", device: "auto" });
  assert(prepared.kind === "failed");
  assert.match(prepared.reason, /^\/dev\/hast\/r0 is in the way/);
  assert.equal(machine.text("/dev/hast/r0"), "backup");
});

test("an orderly detachment writes what is cached, and nothing of the device is left", async () => {
  const machine = new Machine();
  await machine.attach();
  machine.ran.length = 0;
  assert.equal(await machine.wait(machine.attachment.detach("unless used")), null);
  assert.deepEqual(machine.ran, [
    "sync /dev/loop5",
    "losetup --detach /dev/loop5",
    "abort 40",
    "kill nbdkit",
    "kill nbdfuse",
    `umount --lazy ${PLACE}/mount1`,
  ]);
  assert.deepEqual(machine.names("/dev/hast"), []);
  assert.equal(machine.lost, 0);
});

test("a device in use stays, after a moment's patience, and its users are named", async () => {
  const machine = new Machine();
  await machine.attach();
  machine.ran.length = 0;
  machine.mount();
  machine.files.set("/proc/500/comm", "postgres\n");
  machine.files.set("/proc/500/cwd", "-> /data/pg");
  machine.files.set("/proc/501/comm", "dd\n");
  machine.files.set("/proc/501/fd/3", "-> /dev/loop5");
  const before = machine.clock.now();
  const held =
    "/dev/hast/r0 (/dev/loop5) is in use: mounted on /data, /data is used by process 500 (postgres), " +
    "open in process 501 (dd)";
  assert.equal(await machine.wait(machine.attachment.detach("unless used")), held);
  assert(machine.clock.now() - before >= HELD_PATIENCE_MS);
  assert.equal(machine.attachment.held(), held);
  assert.deepEqual(machine.ran, []);
  assert.equal(machine.target("/dev/hast/r0"), "/dev/loop5");
});

test("who only looked at the device, as udev does, is waited for", async () => {
  const machine = new Machine();
  await machine.attach();
  machine.files.set("/proc/501/fd/3", "-> /dev/loop5");
  machine.clock.after(HELD_PATIENCE_MS / 2, () => machine.files.delete("/proc/501/fd/3"));
  assert.equal(await machine.wait(machine.attachment.detach("unless used")), null);
});

test("what cannot be written keeps the device, rather than being lost without a word", async () => {
  const machine = new Machine();
  await machine.attach();
  machine.broken.set("sync", "Input/output error");
  const refusal = await machine.wait(machine.attachment.detach("unless used"));
  assert.match(refusal!, /could not be written .*Input\/output error.*--force/);
  assert.equal(machine.target("/dev/hast/r0"), "/dev/loop5");
});

test("by force: requests fail before anything waits for them, file systems go before the device", async () => {
  const machine = new Machine();
  await machine.attach();
  machine.ran.length = 0;
  machine.mount();
  assert.equal(await machine.wait(machine.attachment.detach("by force")), null);
  assert.deepEqual(machine.ran, [
    "sync -f /data",
    "abort 40",
    "kill nbdkit",
    "kill nbdfuse",
    "umount --lazy /data",
    "losetup --detach /dev/loop5",
    `umount --lazy ${PLACE}/mount1`,
  ]);
  assert(machine.log.says("is detached by force, although in use: mounted on /data"));
  assert(machine.log.says("What was cached by then is written"));
  assert.deepEqual(machine.names("/dev/hast"), []);
});

test("by force where nothing answers: every step has its deadline", async () => {
  const machine = new Machine();
  await machine.attach();
  machine.mount();
  for (const name of ["sync", "umount", "losetup"]) machine.stuck.add(name);
  const before = machine.clock.now();
  assert.equal(await machine.wait(machine.attachment.detach("by force")), null);
  const tookMs = machine.clock.now() - before;
  assert(tookMs <= LAST_SYNC_MS + 4 * STEP_TIMEOUT_MS, `${tookMs}`);
  assert(machine.log.says("and is lost"));
});

test("a process that cannot be killed stands in the way of the next device, not of the demotion", async () => {
  const machine = new Machine();
  await machine.attach();
  const pid = machine.pidOf("nbdkit");
  machine.unkillable.add(pid);
  assert.equal(await machine.wait(machine.attachment.detach("by force")), null);
  const again = () => machine.wait(machine.attachment.prepare({ provname: "r0", device: "auto" }));
  const refused = await again();
  assert(refused.kind === "failed");
  assert.match(refused.reason, new RegExp(`cannot be ended \\(pid ${pid}\\)`));
  machine.unkillable.clear();
  const prepared = await again();
  // The worker's socket has another name: whatever comes through an old one is heard by nobody.
  assert.deepEqual(prepared, {
    kind: "ready",
    socket: "unix:///dev/hast/.0202020202020202/worker",
  });
  assert.deepEqual(machine.names("/dev/hast"), [".0202020202020202"]);
});

test("a tool that dies is told, and the device made anew; status says what is true meanwhile", async () => {
  const machine = new Machine();
  await machine.attach();
  machine.dies(machine.pidOf("nbdfuse"));
  await settle();
  assert.equal(machine.lost, 1);
  assert.equal(machine.attachment.status?.node, null);
  assert.match(machine.attachment.notes()[0]!, /is lost: nbdfuse: killed by SIGKILL/);
  const before = machine.clock.now();
  assert.equal(await machine.wait(machine.attachment.renew(RENEW_DELAY_MS)), null);
  assert(machine.clock.now() - before >= RENEW_DELAY_MS);
  assert.equal(machine.target("/dev/hast/r0"), "/dev/loop5");
  assert.deepEqual(machine.attachment.notes(), []);
  // The old nbdkit was ended for it, which is no loss.
  await settle();
  assert.equal(machine.lost, 1);
  assert.equal(machine.mounts.filter((mount) => mount.includes("fuse")).length, 1);

  machine.dies(machine.pidOf("nbdkit"));
  await settle();
  machine.broken.set("nbdfuse", "no memory");
  assert.match((await machine.wait(machine.attachment.renew(0)))!, /no memory/);
  assert.match(machine.attachment.notes()[0]!, /no memory\. To try again: hastctl role primary r0/);
});

test("what a killed hastd left is cleared by the next one, and nobody else's", async () => {
  const machine = new Machine();
  await machine.attach();
  machine.files.set("/sys/block/loop9/loop/backing_file", "/srv/image\n");
  machine.files.set("/dev/hast/r1", "-> /dev/loop9");
  machine.ran.length = 0;
  // The next hastd has the same process id, as happens in containers, and was started later.
  machine.files.set("/proc/self/stat", stat(77, "hastd: main", 9000));
  machine.files.set("/proc/77/stat", stat(77, "hastd: main", 9000));
  const next = machine.another();
  assert.equal(await machine.wait(next.clearLeftovers("r1")), null);
  assert.deepEqual(machine.ran, []);
  assert.equal(await machine.wait(next.clearLeftovers("r0")), null);
  assert.deepEqual(machine.ran, [
    "abort 40",
    "kill nbdkit",
    "kill nbdfuse",
    "losetup --detach /dev/loop5",
    `umount --lazy ${PLACE}/mount1`,
  ]);
  assert.deepEqual(machine.names("/dev/hast"), ["r1"]);
  assert.equal(machine.tools.size, 0);
});

test("the device of a hastd that lives is not touched", async () => {
  const machine = new Machine();
  await machine.attach();
  machine.ran.length = 0;
  machine.files.set("/proc/self/stat", stat(78, "hastd", 6000));
  const prepared = await machine.another().prepare({ provname: "r0", device: "auto" });
  assert(prepared.kind === "failed");
  assert.match(prepared.reason, /belongs to another hastd on this machine \(pid 77\)/);
  assert.deepEqual(machine.ran, []);
  assert.equal(machine.target("/dev/hast/r0"), "/dev/loop5");
});

test("a detachment while the device is being made ends the making", async () => {
  const machine = new Machine();
  machine.stuck.add("nbdfuse");
  await machine.wait(machine.attachment.prepare({ provname: "r0", device: "auto" }));
  const attached = machine.attachment.attach(512);
  await machine.clock.advance(READY_TIMEOUT_MS / 2);
  assert.equal(await machine.wait(machine.attachment.detach("by force")), null);
  assert.match((await machine.wait(attached))!, /nbdfuse: killed by SIGKILL/);
  assert.deepEqual(machine.names("/dev/hast"), []);
});

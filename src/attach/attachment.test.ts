// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { DeviceMachine, stat } from "../../test/daemon/device-machine.ts";
import { FakeLog, settle } from "../../test/daemon/fakes.ts";
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

class Machine extends DeviceMachine {
  readonly log = new FakeLog();
  lost = 0;
  token = 0;
  readonly attachment: Attachment = this.another();

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

  async attach(device: DeviceWish = "auto", sectorSize = 512): Promise<string | null> {
    const prepared = await this.wait(this.attachment.prepare({ provname: "r0", device }));
    assert.equal(prepared.kind, "ready");
    return await this.wait(this.attachment.attach(sectorSize));
  }
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
    [...machine.tools.values()].map(({ argv }) => argv.slice(0, 4).join(" ")),
    ["/bin/setpriv --pdeathsig KILL /bin/nbdkit", "/bin/setpriv --pdeathsig KILL /bin/nbdfuse"],
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
  // A killed hastd takes it along: no request waits in the kernel for who does not answer any more.
  assert.deepEqual(client.argv.slice(0, 4), [
    ...["/bin/setpriv", "--pdeathsig", "KILL", "/bin/flock"],
  ]);
  assert.deepEqual(client.argv.slice(8, 13), [
    "/run/lock/hast-nbd1",
    "/bin/nbd-client",
    "-unix",
    `${PLACE}/kit1`,
    "/dev/nbd1",
  ]);
  // The client keeps its own device open, and does not count.
  machine.files.set(`/proc/${client.pid}/fd/9`, "-> /dev/nbd1");
  assert.equal(await machine.wait(machine.attachment.detach("unless used")), null);
  assert.deepEqual(machine.ran, ["sync /dev/nbd1", "nbd-client -d /dev/nbd1", "kill nbdkit"]);
  assert.equal(machine.target("/dev/hast/r0"), null);
});

test("by force from kernel NBD: the file system is unmounted although nbd-client has ended by then", async () => {
  const machine = new Machine();
  machine.installed.add("nbd-client");
  machine.usable.add("/dev/nbd0");
  machine.files.set("/sys/block/nbd0/size", "0");
  assert.equal(await machine.attach(), null);
  machine.mount("/dev/nbd0");
  assert.equal(await machine.wait(machine.attachment.detach("by force")), null);
  assert.deepEqual(machine.ran, [
    "sync -f /data",
    "nbd-client -d /dev/nbd0",
    "kill nbdkit",
    "umount --lazy /data",
  ]);
});

test("what a killed hastd left mounted is unmounted, unless the device is another's by now", async () => {
  for (const taken of [false, true]) {
    const machine = new Machine();
    machine.installed.add("nbd-client");
    machine.usable.add("/dev/nbd0");
    machine.files.set("/sys/block/nbd0/size", "0");
    assert.equal(await machine.attach(), null);
    // nbdkit ends with its hastd, and so nbd-client.
    machine.dies(machine.pidOf("nbd-client"));
    machine.dies(machine.pidOf("nbdkit"));
    machine.mount("/dev/nbd0");
    if (taken) {
      machine.files.set("/proc/900/comm", "nbd-client");
      machine.files.set("/proc/900/cmdline", "nbd-client\0elsewhere\0/dev/nbd0\0");
    }
    machine.files.set("/proc/self/stat", stat(77, "hastd: main", 9000));
    machine.files.set("/proc/77/stat", stat(77, "hastd: main", 9000));
    machine.ran.length = 0;
    assert.equal(await machine.wait(machine.another().clearLeftovers("r0")), null);
    assert.deepEqual(machine.ran, taken ? [] : ["umount --lazy /data"]);
  }
});

test("two that want a device at the same time get one each, and the third hears that there are no more", async () => {
  const machine = new Machine();
  machine.installed.add("nbd-client");
  machine.usable.add("/dev/nbd0");
  for (const name of ["nbd0", "nbd1"]) machine.files.set(`/sys/block/${name}/size`, "0");
  const names = ["r0", "r1", "r2"];
  const attachments = names.map((name) => machine.another(name));
  for (const [index, attachment] of attachments.entries()) {
    const wanted = { provname: names[index]!, device: "nbd" } as const;
    assert.equal((await machine.wait(attachment.prepare(wanted))).kind, "ready");
  }
  const failures = await machine.wait(
    Promise.all(attachments.map((attachment) => attachment.attach(512))),
  );
  assert.deepEqual(failures.slice(0, 2), [null, null]);
  assert.match(failures[2]!, /could not be made \(device nbd\): every \/dev\/nbdN is in use/);
  assert.equal(machine.target("/dev/hast/r0"), "/dev/nbd0");
  assert.equal(machine.target("/dev/hast/r1"), "/dev/nbd1");
});

test("a tool that fails, or is never ready, is why there is no device; nothing is left of it", async () => {
  for (const [tool, how, reason] of [
    ["nbdkit", "broken", /could not be made \(device fuse\): nbdkit: exit code 1: no such filter/],
    ["nbdfuse", "broken", /nbdfuse: exit code 1: no such filter/],
    ["nbdfuse", "stuck", /nbdfuse is not ready after 30 s/],
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
  // Status says so for as long as it is true.
  assert.deepEqual(machine.attachment.notes(), [held]);
  machine.mounts.pop();
  machine.files.delete("/proc/501/fd/3");
  assert.deepEqual(machine.attachment.notes(), []);
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

test("S-1: a device that has to go goes at once, as if its tools had died, and is made anew", async () => {
  const machine = new Machine();
  machine.attachment.lose("there is none yet");
  await machine.attach();
  const tools = [...machine.tools.values()];
  machine.attachment.lose("what was acknowledged is gone");
  assert.deepEqual(
    tools.map(({ kills }) => kills),
    [["SIGKILL"], ["SIGKILL"]],
    "before anything else can happen",
  );
  assert.equal(machine.lost, 1);
  assert.match(
    machine.attachment.notes()[0]!,
    /^\/dev\/hast\/r0 is lost: what was acknowledged is gone\. Whoever has it open gets errors/,
  );
  assert.equal(await machine.wait(machine.attachment.renew(RENEW_DELAY_MS)), null);
  assert.equal(machine.target("/dev/hast/r0"), "/dev/loop5");
  assert.deepEqual(machine.attachment.notes(), []);
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

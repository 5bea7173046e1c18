// SPDX-License-Identifier: BSD-2-Clause
/**
 * Kernel NBD under Debian's own kernel, in a machine that qemu pretends: what device.test.ts shows of FUSE,
 * and a power cut.
 *
 *   ext4 ── /dev/nbd0 ── nbd-client ── nbdkit ── worker ── /dev/vda ═ qemu ═ a disk with a volatile cache
 */
import { strict as expect } from "node:assert";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { DiskProcess } from "../system/power.ts";
import { until } from "../system/until.ts";
import { type Drive, makeBootFiles, VirtualMachine } from "./virtual-machine.ts";

const MIB = 1024 * 1024;
const LOAD = "/opt/hast/test/system/fsync-load.ts";
/** A machine inside a busy one. */
const PATIENCE = { withinMs: 300_000, everyMs: 500 };
const CONFIGURATION = `device nbd
resource r0 {
  on vm { local /dev/vda remote none }
}
resource large {
  on vm { local /dev/vdb remote none }
}
`;
const HASTD = "hastd -F -d -P /run/hastd.pid >>/run/hastd.log 2>&1 &";
/** With lazy initialization the kernel would write for minutes. */
const MKFS = "mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0";
/** What waits in the kernel, what is mounted, and what hastd has started for r0. */
const REMAINS = `for each in /proc/[0-9]*; do
  grep -q '^State:.D' $each/status 2>/dev/null && cat $each/comm
done
grep /mnt /proc/mounts
pgrep -af 'r0[^ ]* .primary|kit'
true`;

/** Lines of `hastctl list r0`, by what they begin with. */
async function listed(vm: VirtualMachine, ...what: string[]): Promise<string[]> {
  const said = await vm.expect("hastctl list r0");
  return what.map((each) => {
    const line = said.split("\n").find((one) => one.trim().startsWith(`${each}: `));
    if (line === undefined) throw new Error(`hastctl list has no ${each}:\n${said}`);
    return line.slice(line.indexOf(": ") + 2);
  });
}

/** What the kernel says of a resource's device: "512 1" for sectors of 512 bytes, and FUA. */
function limits(vm: VirtualMachine, name: string): Promise<string> {
  return vm.expect(`cd /sys/block/$(basename $(readlink /dev/hast/${name}))/queue
    echo $(cat logical_block_size fua write_cache)`);
}

/** fsync-load.ts on /mnt, and what it was acknowledged last. */
class Load {
  readonly #vm: VirtualMachine;
  readonly #to: string;

  /** @param to where it says what is safe; /dev/ttyS0 is read here, and needs no answer of the machine */
  constructor(vm: VirtualMachine, to: "/run/load" | "/dev/ttyS0" = "/run/load") {
    this.#vm = vm;
    this.#to = to;
  }

  async start(): Promise<void> {
    await this.#vm.expect(`rm -f /run/load /run/end
      (node ${LOAD} run /mnt >${this.#to} 2>/run/mourning; echo $? >/run/end) </dev/null &`);
  }

  async acknowledged(): Promise<{ log: number; sql: number }> {
    const said =
      this.#to === "/run/load"
        ? (await this.#vm.run("tail -n 3 /run/load")).stdout
        : this.#vm.console();
    const last = (what: string): number =>
      Number([...said.matchAll(new RegExp(`^${what} (\\d+)\\r?\\n`, "gm"))].at(-1)?.[1] ?? 0);
    return { log: last("log"), sql: last("sql") };
  }

  /** So many more records become safe. @returns seconds that took */
  async advance(count: number): Promise<number> {
    const startedAt = performance.now();
    const goal = (await this.acknowledged()).log + count;
    const what = `${count} more records are safe`;
    const look = async (): Promise<boolean> => {
      const { log } = await this.acknowledged();
      if (log < goal && (await this.#hasEnded())) throw new Error(await this.mourned());
      return log >= goal;
    };
    await until(what, look, PATIENCE);
    return (performance.now() - startedAt) / 1000;
  }

  /** It ends by itself, because of an error, and soon. @returns what it said */
  async mourned(): Promise<string> {
    const patience = { withinMs: 60_000, everyMs: 500 };
    await until("the load has ended", () => this.#hasEnded(), patience);
    return await this.#vm.expect("cat /run/mourning");
  }

  async #hasEnded(): Promise<boolean> {
    return (await this.#vm.run("test -e /run/end")).code === 0;
  }
}

/** All that was acknowledged is on what is mounted on /mnt. */
async function check(vm: VirtualMachine, load: { log: number; sql: number }): Promise<void> {
  await vm.expect(`node ${LOAD} check /mnt ${load.log} ${load.sql} 1`);
}

async function nothingRemains(vm: VirtualMachine): Promise<void> {
  let left = "";
  const look = async (): Promise<boolean> => {
    left = await vm.expect(REMAINS);
    return left.trim() === "";
  };
  await until("nothing is left of it", look, { withinMs: 60_000, everyMs: 1000 }).catch(
    (error: Error) => {
      throw new Error(`${error.message}:\n${left}`);
    },
  );
}

test("ext4 on kernel NBD lives through a worker's death, a demotion by force, a killed hastd and a power cut", async () => {
  const directory = mkdtempSync(join(tmpdir(), "hast-kernel-"));
  const startedAt = performance.now();
  let lastAt = startedAt;
  const done = (what: string): void => {
    const now = performance.now();
    console.log(`kernel nbd: ${what} (${((now - lastAt) / 1000).toFixed(1)} s)`);
    lastAt = now;
  };
  mkdirSync(join(directory, "disk"));
  const shape = { size: 96 * MIB, kind: "socket", seed: 7 } as const;
  const disk = new DiskProcess("vm", { directory: join(directory, "disk"), ...shape });
  let vm: VirtualMachine | null = null;
  try {
    const files = await makeBootFiles(directory, { "hast.conf": CONFIGURATION });
    done("the initramfs is made");
    const large = join(directory, "large.img");
    writeFileSync(large, "");
    truncateSync(large, 64 * MIB);
    const drives: Drive[] = [
      { path: await disk.plug(), sectorSize: 512 },
      { path: large, sectorSize: 4096 },
    ];
    vm = await VirtualMachine.boot(directory, files, drives);
    done(`booted Linux ${(await vm.expect("uname -r")).trim()}`);

    // Both at the same moment: each has to get a device of its own.
    await vm.expect(`hastctl create r0 large; ${HASTD}`);
    await vm.expect("hastctl role --wait 200 primary r0 large");
    const nodes = (await vm.expect("readlink /dev/hast/r0; readlink /dev/hast/large"))
      .trim()
      .split("\n");
    expect.deepEqual(nodes.toSorted(), ["/dev/nbd0", "/dev/nbd1"]);
    expect.equal((await limits(vm, "r0")).trim(), "512 1 write back");
    expect.equal((await limits(vm, "large")).trim(), "4096 1 write back");
    const [device, ...before] = await listed(vm, "device", "deletes", "flushes");
    expect.equal(device, `/dev/hast/r0 (nbd, ${nodes[0]})`);
    await vm.expect("hastctl role init large");
    expect.equal((await vm.expect(`cat /sys/block/${nodes[1]!.slice(5)}/size`)).trim(), "0");
    expect.equal((await vm.run("readlink /dev/hast/large")).code, 1);
    done("two resources became primary, one init again");

    await vm.expect(`dd if=/dev/urandom of=/tmp/data bs=1M count=8 2>/dev/null
      dd if=/tmp/data of=/dev/hast/r0 bs=4M conv=fsync,nocreat
      cmp -n ${8 * MIB} /tmp/data /dev/hast/r0`);
    await vm.expect(`blkdiscard -f -l ${4 * MIB} /dev/hast/r0 &&
      blkdiscard -z -f -o ${4 * MIB} -l ${MIB} /dev/hast/r0 &&
      cmp -n ${5 * MIB} /dev/zero /dev/hast/r0 &&
      cmp -i ${5 * MIB} -n ${3 * MIB} /tmp/data /dev/hast/r0`);
    const after = await listed(vm, "deletes", "flushes");
    for (const [index, count] of after.entries()) {
      expect.ok(Number(count) > Number(before[index]), `${before} became ${after}`);
    }
    done("fsync is a flush, a discard is a delete, zeroes are zeroes");

    await vm.expect(`${MKFS} /dev/hast/r0 && mount -t ext4 /dev/hast/r0 /mnt`);
    let load = new Load(vm);
    await load.start();
    await load.advance(5);
    const [worker] = await listed(vm, "workerpid");
    await vm.expect(`kill -KILL ${worker}`);
    await load.advance(5);
    expect.notEqual((await listed(vm, "workerpid"))[0], worker);
    expect.match(await vm.expect("grep /mnt /proc/mounts"), / ext4 rw/);
    done("a worker died under load; the file system waited, and went on");

    const refused = await vm.run("hastctl role secondary r0");
    expect.equal(refused.code, 2);
    expect.match(
      refused.stdout,
      /mounted on \/mnt, \/mnt is used by process \d+ \(node.*hastctl role --force secondary r0/,
    );
    await vm.expect("kill -STOP $(pgrep -f 'hastd: r0 .primary')");
    await vm.expect("hastctl role --force secondary r0");
    expect.match(await load.mourned(), /EIO|EROFS|ENXIO|disk I\/O error|readonly/);
    await nothingRemains(vm);
    let safe = await load.acknowledged();
    done("demoted by force with a worker that hung: errors, nobody waits in the kernel");

    await vm.expect("hastctl role --wait 200 primary r0 && mount -t ext4 /dev/hast/r0 /mnt");
    await check(vm, safe);
    await load.start();
    await load.advance(5);
    await vm.expect("kill -KILL $(cat /run/hastd.pid) $(pgrep -f 'hastd: ')");
    expect.match(await load.mourned(), /EIO|EROFS|ENXIO|disk I\/O error|readonly/);
    safe = await load.acknowledged();
    // The kernel has no device any more, so there is no request that it could wait with.
    await until("nbd-client has gone", async () => (await vm?.run("pgrep nbd-client"))?.code === 1);
    await vm.expect(HASTD);
    await vm.expect("hastctl role --wait 200 primary r0");
    expect.equal(await vm.expect("grep /mnt /proc/mounts; true"), "");
    await vm.expect("mount -t ext4 /dev/hast/r0 /mnt");
    await check(vm, safe);
    done("hastd and its workers were killed; the next one cleared the device, and made it anew");

    load = new Load(vm, "/dev/ttyS0");
    await load.start();
    await load.advance(20);
    await disk.freeze();
    await vm.powerOff();
    const { unflushed, lost } = await disk.cut();
    safe = await load.acknowledged();
    expect.ok(safe.sql > 10, `${safe.sql} rows`);
    vm = await VirtualMachine.boot(directory, files, drives);
    await vm.expect(HASTD);
    await vm.expect("hastctl role --wait 200 primary r0");
    await vm.expect("mount -t ext4 /dev/hast/r0 /mnt");
    await check(vm, safe);
    await vm.expect("umount /mnt && e2fsck -f -n /dev/hast/r0 && hastctl role init r0");
    await nothingRemains(vm);
    done(
      `power cut, ${lost} of ${unflushed} sectors lost: ${safe.log} records, ${safe.sql} rows there`,
    );
    lastAt = startedAt;
    done("all");
  } catch (error) {
    console.log(vm?.console());
    const { stdout } = (await vm
      ?.run("cat /run/hastd.log; dmesg | tail -n 40; ps | grep -v ' \\['")
      .catch((trouble: Error) => ({ stdout: trouble.message }))) ?? { stdout: "" };
    console.log(stdout);
    throw error;
  } finally {
    await vm?.powerOff();
    await disk.end();
    rmSync(directory, { recursive: true });
  }
});

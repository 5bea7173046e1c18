// SPDX-License-Identifier: BSD-2-Clause
/** A pretend machine with FUSE, loop devices and kernel NBD, as far as the tools that attach a device see it. */

import assert from "node:assert/strict";
import type { System } from "../../src/platform/system.ts";
import type {
  ProgramHandler,
  Programs,
  RunningProgram,
} from "../../src/platform/watched-program.ts";
import { FakeClock, FakeProgram, settle } from "./fakes.ts";

/** A pretend kernel, with the tools that change it. */
export class DeviceMachine implements System, Programs {
  readonly clock: FakeClock;
  /** Path → text; a link's begins with "-> ". */
  readonly files: Map<string, string> = new Map();
  readonly installed: Set<string> = new Set([
    "nbdkit",
    "nbdfuse",
    "fusermount3",
    "losetup",
    "flock",
    "setpriv",
  ]);
  readonly usable: Set<string> = new Set(["/dev/fuse", "/dev/loop-control"]);
  /** What was run to its end, in order. */
  readonly ran: string[] = [];
  readonly tools: Map<number, FakeProgram> = new Map();
  /** Programs that never end, or are never ready. */
  readonly stuck: Set<string> = new Set();
  /** Programs that fail, and what they say. */
  readonly broken: Map<string, string> = new Map();
  /** Processes that not even SIGKILL ends. */
  readonly unkillable: Set<number> = new Set();
  /** Whose it is, by the file. */
  readonly #locks = new Map<string, number>();
  mounts: string[] = ["21 1 8:1 / / rw - ext4 /dev/sda1 rw"];
  #pid = 100;

  constructor(clock: FakeClock = new FakeClock()) {
    this.clock = clock;
    this.files.set("/proc/self/stat", stat(77, "hastd: main", 5000));
    this.files.set("/proc/77/stat", stat(77, "hastd: main", 5000));
    this.files.set("/sys/block/sda/size", "1");
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
    words: readonly string[],
    environment: Readonly<Record<string, string>>,
    handler: ProgramHandler,
  ): RunningProgram {
    const pid = this.#pid++;
    const program = new FakeProgram(words, environment, pid, handler);
    // setpriv OPTION SIGNAL PROGRAM …, without a fork.
    const argv = words[0] === "/bin/setpriv" ? words.slice(3) : words;
    // flock OPTION … CODE FILE PROGRAM …, without a fork.
    const lock = argv[0] === "/bin/flock" ? argv[5]! : null;
    const name = (lock === null ? argv[0]! : argv[6]!).replace("/bin/", "");
    void settle().then(async () => {
      if (lock !== null && this.#locks.has(lock)) {
        // On a busy machine the winner is ready before the loser has said so.
        this.#appears("flock", argv, pid);
        this.clock.after(300, () => {
          this.dies(pid);
          void program.exit(99);
        });
        return;
      }
      if (lock !== null) this.#locks.set(lock, pid);
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
        if (argv.includes("-d")) {
          // The one that holds the device hears of it, and ends.
          for (const [other, { argv: words }] of this.tools) {
            if (words.includes(argv.at(-1)!)) this.dies(other);
          }
          return false;
        }
        this.#appears(name, argv, pid);
        // Each step of its own takes a while.
        this.clock.after(100, () => {
          const device = argv[argv.indexOf("-unix") + 2]!;
          this.files.set(device.replace("/dev/", "/sys/block/").concat("/size"), "1000");
        });
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
    for (const [file, holder] of this.#locks) if (holder === pid) this.#locks.delete(file);
    void this.tools.get(pid)?.ends({ kind: "signal", signal: "SIGKILL" });
    this.tools.delete(pid);
  }

  pidOf(name: string): number {
    const found = [...this.tools].find(([pid]) => this.files.get(`/proc/${pid}/comm`) === name);
    assert(found !== undefined);
    return found[0];
  }

  /** Somebody mounts the device. */
  mount(source = "/dev/hast/r0"): void {
    this.mounts.push(`60 21 7:5 / /data rw - ext4 ${source} rw`);
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
}

/** As /proc/PID/stat. @param start when the process was started */
export function stat(pid: number, name: string, start: number): string {
  return `${pid} (${name}) S ${"0 ".repeat(18)}${start} 0 0\n`;
}

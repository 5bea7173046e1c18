// SPDX-License-Identifier: BSD-2-Clause
/**
 * ext4 on a primary's export, mounted by this machine's kernel, with fsync-load.ts in it.
 *
 *   fsync-load ── ext4 ── /dev/loopN ── nbdfuse ── the primary's NBD export
 *
 * It belongs to the machine that the primary is: when that loses its power, call die(), then appear() on
 * whichever node is primary next.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { expectCommand, type Outcome, runCommand } from "./command.ts";
import { KernelPlug } from "./kernel-plug.ts";
import type { Node } from "./two-nodes.ts";
import { until } from "./until.ts";

const LOAD = join(import.meta.dirname, "fsync-load.ts");

/** What has been acknowledged by fsync and COMMIT. */
export interface Acknowledged {
  anchor: number;
  log: number;
  sql: number;
}

export class MountedLoad {
  /** Of the last run; the anchor's is for ever. */
  readonly acknowledged: Acknowledged = { anchor: 0, log: 0, sql: 0 };
  readonly #directory: string;
  #plugs = 0;
  #plug: KernelPlug | null = null;
  #mountPoint: string | null = null;
  #process: ChildProcess | null = null;
  #ended: Promise<string> = Promise.resolve("");

  /** @param directory an existing one, for mount points */
  constructor(directory: string) {
    this.#directory = directory;
  }

  get mounted(): boolean {
    return this.#mountPoint !== null;
  }

  /** Makes the file system, in the first `size` bytes of the export. */
  async make(node: Node, size: number): Promise<void> {
    const plug = await this.#insert(node);
    // With lazy initialization the kernel would write for minutes.
    const extended = "lazy_itable_init=0,lazy_journal_init=0";
    await expectCommand("mkfs.ext4", ["-q", "-E", extended, plug, `${size / 1024}k`]);
    await this.#pull();
  }

  /**
   * Mounts it on `node`, which replays its journal, and looks whether all is there.
   *
   * @param expected what must be there
   * @throws Error telling what is wrong
   */
  async appear(node: Node, expected: Acknowledged = this.acknowledged): Promise<void> {
    const device = await this.#insert(node);
    const mountPoint = join(this.#directory, `mounted${this.#plugs}`);
    mkdirSync(mountPoint);
    await expectCommand("mount", ["-t", "ext4", device, mountPoint]);
    this.#mountPoint = mountPoint;
    const { anchor, log, sql } = expected;
    const numbers = [log, sql, anchor].map(String);
    // In a process of its own: who waits for a dead disk cannot be killed.
    const { code, stdout, stderr } = await this.#program("check", mountPoint, ...numbers);
    if (code !== 0) throw new Error(`ext4 on ${node.name}: ${stdout}${stderr}`);
  }

  start(): void {
    if (this.#mountPoint === null) throw new Error("not mounted");
    this.acknowledged.log = 0;
    this.acknowledged.sql = 0;
    const stdio = ["ignore", "pipe", "pipe"] as const;
    const load = spawn(process.execPath, [LOAD, "run", this.#mountPoint], { stdio: [...stdio] });
    this.#process = load;
    let rest = "";
    let said = "";
    load.stdout!.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        const [what, number] = line.split(" ");
        this.acknowledged[what as keyof Acknowledged] = Number(number);
      }
    });
    load.stderr!.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
    this.#ended = new Promise((resolve, reject) => {
      load.once("error", reject);
      load.once("close", () => resolve(said));
    });
  }

  /** Ends the load, which must still be going on; then unmounts. */
  async leave(): Promise<void> {
    const load = this.#process;
    if (load !== null) {
      if (load.exitCode !== null) throw new Error(`the load has ended: ${await this.#ended}`);
      load.kill("SIGKILL");
      await this.#ended;
      this.#process = null;
    }
    if (this.#mountPoint !== null) await expectCommand("umount", [this.#mountPoint]);
    this.#mountPoint = null;
    await this.#pull();
  }

  /** The machine that it runs on has lost its power. */
  async die(): Promise<void> {
    this.#process?.kill("SIGKILL");
    this.#plug?.cut();
    await this.#ended;
    this.#process = null;
    const mountPoint = this.#mountPoint;
    if (mountPoint !== null) {
      // Busy until the killed process is wholly gone.
      await until(
        `${mountPoint} is unmounted`,
        async () => (await runCommand("umount", [mountPoint])).code === 0,
      );
    }
    this.#mountPoint = null;
    await this.#pull();
  }

  /** Not mounted: says whether the file system is whole, without mending it. */
  async inspect(node: Node): Promise<void> {
    const device = await this.#insert(node);
    const { code, stdout, stderr } = await runCommand("e2fsck", ["-f", "-n", device]);
    await this.#pull();
    if (code !== 0) throw new Error(`e2fsck on ${node.name}: ${stdout}${stderr}`);
  }

  #program(...args: readonly string[]): Promise<Outcome> {
    return runCommand(process.execPath, [LOAD, ...args]);
  }

  async #insert(node: Node): Promise<string> {
    this.#plugs += 1;
    const directory = join(this.#directory, `export${this.#plugs}`);
    mkdirSync(directory);
    this.#plug = new KernelPlug(directory, node.uri, "block");
    return await this.#plug.insert();
  }

  async #pull(): Promise<void> {
    await this.#plug?.pull();
    this.#plug = null;
  }
}

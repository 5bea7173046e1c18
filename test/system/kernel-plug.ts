// SPDX-License-Identifier: BSD-2-Clause
/**
 * An NBD export as something that the kernel has, on machines without NBD in the kernel.
 *
 *   block   /dev/loopN ── file ── FUSE ── nbdfuse ── export      past the page cache (direct I/O)
 *   file                  file ── FUSE ── nbdfuse ── export      through it, each write at once
 *
 * Flushes go all the way. What the kernel wants from it after it was pulled fails with an error.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { expectCommand, runCommand } from "./command.ts";
import { until } from "./until.ts";

export type PlugKind = "block" | "file";

export class KernelPlug {
  readonly #directory: string;
  readonly #uri: string;
  readonly #kind: PlugKind;
  #count = 0;
  #mount: string | null = null;
  #nbdfuse: ChildProcess | null = null;
  #loop: string | null = null;

  /** @param directory an existing one, for mount points */
  constructor(directory: string, uri: string, kind: PlugKind) {
    this.#directory = directory;
    this.#uri = uri;
    this.#kind = kind;
  }

  /** @returns the path of the device or file */
  async insert(): Promise<string> {
    // A new place each time: the last one may still have a dead process's file open.
    this.#count += 1;
    const mount = join(this.#directory, `plug${this.#count}`);
    mkdirSync(mount);
    const file = join(mount, "disk");
    const nbdfuse = spawn("nbdfuse", [file, this.#uri], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.#nbdfuse = nbdfuse;
    let said = ""; // after the start it only mourns an export that was killed, which is what we do
    nbdfuse.stderr.setEncoding("utf8").on("data", (text: string) => {
      if (said.length < 1000) said += text;
    });
    let failure: string | null = null;
    nbdfuse.once("error", (error) => {
      failure = error.message;
    });
    nbdfuse.once("exit", (code, signal) => {
      failure ??= `nbdfuse ended (${signal ?? code}): ${said}Is /dev/fuse there, and is this user root?`;
    });
    await until(
      `nbdfuse shows ${file}`,
      async () => {
        if (failure !== null) throw new Error(failure);
        return (await runCommand("mountpoint", ["-q", mount])).code === 0;
      },
      { everyMs: 20 },
    );
    this.#mount = mount;
    if (this.#kind === "file") return file;
    const args = ["--find", "--show", "--direct-io=on", file];
    this.#loop = (await expectCommand("losetup", args)).trim();
    return this.#loop;
  }

  /** Nothing of it is left in the kernel afterwards. */
  async pull(): Promise<void> {
    this.cut();
    const nbdfuse = this.#nbdfuse;
    if (nbdfuse !== null && nbdfuse.exitCode === null && nbdfuse.signalCode === null) {
      await new Promise((resolve) => nbdfuse.once("exit", resolve));
    }
    this.#nbdfuse = null;
    if (this.#loop !== null) {
      await expectCommand("losetup", ["--detach", this.#loop]);
      this.#loop = null;
    }
    const mount = this.#mount;
    if (mount !== null) {
      await expectCommand("umount", ["--lazy", mount]);
      rmdirSync(mount);
      this.#mount = null;
    }
  }

  /** The first half of pull(): all I/O fails from now on. */
  cut(): void {
    this.#nbdfuse?.kill("SIGKILL");
  }
}

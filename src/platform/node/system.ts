// SPDX-License-Identifier: BSD-2-Clause
/** The running system, by Node's fs. */

import fs from "node:fs";
import path from "node:path";
import type { System } from "../system.ts";

/** Not everybody's PATH has them. */
const ADMINISTRATORS = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];

export const nodeSystem: System = {
  text: (at) => orNull(() => fs.readFileSync(at, "utf8")),
  names: (at) => orNull(() => fs.readdirSync(at)) ?? [],
  target: (at) => orNull(() => fs.readlinkSync(at)),
  mayUse: (at) =>
    orNull(() => {
      fs.closeSync(fs.openSync(at, fs.constants.O_RDWR | fs.constants.O_NONBLOCK));
      return true;
    }) ?? false,
  program: (name) => {
    const directories = [...(process.env["PATH"] ?? "").split(":"), ...ADMINISTRATORS];
    for (const directory of directories) {
      const file = path.join(directory, name);
      if (path.isAbsolute(file) && isProgram(file)) return file;
    }
    return null;
  },
  makeDirectory: (at) => {
    fs.mkdirSync(path.dirname(at), { recursive: true });
    fs.mkdirSync(at, { mode: 0o700 });
  },
  write: (at, text) => fs.writeFileSync(at, text),
  link: (at, target) => {
    fs.mkdirSync(path.dirname(at), { recursive: true });
    // In one step: whoever looks finds the old one or the new one.
    const fresh = `${at}.new`;
    fs.rmSync(fresh, { force: true });
    fs.symlinkSync(target, fresh);
    fs.renameSync(fresh, at);
  },
  remove: (at) => {
    try {
      fs.unlinkSync(at);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ENOENT") return;
      if (code !== "EISDIR" && code !== "EPERM") throw error;
      fs.rmdirSync(at);
    }
  },
  kill: (pid) => {
    try {
      process.kill(pid, "SIGKILL");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  },
};

/** What is not there, has just gone, or is not ours to see: to whoever asks, all the same. */
function orNull<Value>(read: () => Value): Value | null {
  try {
    return read();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    return null;
  }
}

function isProgram(file: string): boolean {
  return (
    orNull(() => {
      fs.accessSync(file, fs.constants.X_OK);
      return fs.statSync(file).isFile();
    }) ?? false
  );
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * What attached devices leave in the kernel when their hastd is killed and none follows: mounts and loop
 * devices. Whoever kills daemons has to clear them, or they stay until the machine is rebooted.
 */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { runCommand } from "./command.ts";

/** Mount points below a directory, innermost last. */
export function mountsBelow(directory: string): string[] {
  return readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[1] ?? "")
    .filter((point) => point.startsWith(`${directory}/`));
}

/** Loop devices whose file was called like this: names, such as "loop5". */
export function loopsOn(part: string): string[] {
  return readdirSync("/sys/block").filter((name) => {
    const file = `/sys/block/${name}/loop/backing_file`;
    return existsSync(file) && readFileSync(file, "utf8").includes(part);
  });
}

/** Clears what the devices in these directories, each a node's /dev/hast, have left; their tools are dead. */
export async function clearDevices(directories: readonly string[]): Promise<void> {
  const tokens = directories
    .filter((directory) => existsSync(directory))
    .flatMap((directory) => readdirSync(directory))
    .filter((name) => /^\.[0-9a-f]{16}$/.test(name))
    .map((name) => name.slice(1));
  const loops = tokens.flatMap(loopsOn);
  const points = directories.flatMap(mountsBelow);
  for (const point of points.toReversed()) await runCommand("umount", ["--lazy", point]);
  for (const loop of loops) await runCommand("losetup", ["--detach", join("/dev", loop)]);
}

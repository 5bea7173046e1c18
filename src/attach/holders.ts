// SPDX-License-Identifier: BSD-2-Clause
/**
 * Who uses a block device: file systems, swap, devices on top of it, and processes.
 *
 *   /proc/PID/mountinfo   36 35 98:0 / /mnt rw,noatime master:1 - ext4 /dev/loop5 rw
 *                         id parent major:minor root mount-point options … - type source options
 *
 * Only what lives in memory is read, and never what a stuck process can hold up (its command line): this
 * is asked when something does not answer. Processes in other containers are seen as far as /proc shows them.
 * Source: proc_pid_mountinfo(5), proc_pid_fd(5).
 */

import type { System } from "../platform/system.ts";

export interface Mount {
  /** "7:5". */
  readonly device: string;
  readonly point: string;
  readonly type: string;
  readonly source: string;
}

export interface Use {
  /** One for each user, for people: "mounted on /data", "open in process 4711 (dd)". */
  readonly users: readonly string[];
  /** Mount points in our own mount namespace, innermost last. */
  readonly mounts: readonly string[];
}

/** Processes named; of more, only the number is told. */
const PROCESSES_NAMED = 8;

/**
 * @param device such as /dev/loop5
 * @param own processes that do not count
 */
export function usersOf(system: System, device: string, own: ReadonlySet<number>): Use {
  const names = partsOf(system, device);
  const paths = new Set(names.map((name) => `/dev/${name}`));
  const numbers = new Set(
    names.map((name) => system.text(`/sys/class/block/${name}/dev`)?.trim() ?? ""),
  );
  numbers.delete("");
  const isOurs = (mount: Mount): boolean => numbers.has(mount.device) || paths.has(mount.source);
  const mounts = mountsOf(system, "self").filter(isOurs);
  const users = new Set(mounts.map(({ point }) => `mounted on ${point}`));

  for (const name of names) {
    for (const holder of system.names(`/sys/class/block/${name}/holders`)) {
      users.add(`part of /dev/${holder}`);
    }
  }
  for (const name of system.names("/sys/block")) {
    const backing = system.text(`/sys/block/${name}/loop/backing_file`)?.trim();
    if (backing !== undefined && paths.has(backing)) users.add(`behind /dev/${name}`);
  }
  for (const line of system.text("/proc/swaps")?.split("\n").slice(1) ?? []) {
    if (paths.has(line.split(/\s/)[0]!)) users.add("used as swap");
  }
  const points = mounts.map(({ point }) => point);
  for (const user of processesUsing(system, { paths, points, own, isOurs })) users.add(user);
  return { users: [...users], mounts: points };
}

/** The device's name, and its partitions'. */
function partsOf(system: System, device: string): string[] {
  const name = device.replace(/^\/dev\//, "");
  return [name, ...system.names(`/sys/block/${name}`).filter((each) => each.startsWith(name))];
}

function processesUsing(
  system: System,
  {
    paths,
    points,
    own,
    isOurs,
  }: {
    readonly paths: ReadonlySet<string>;
    readonly points: readonly string[];
    readonly own: ReadonlySet<number>;
    readonly isOurs: (mount: Mount) => boolean;
  },
): string[] {
  const found: string[] = [];
  const namespaces = new Set([system.target("/proc/self/ns/mnt")]);
  for (const pid of system.names("/proc").filter((name) => /^\d+$/.test(name))) {
    const process = `process ${pid} (${system.text(`/proc/${pid}/comm`)?.trim() ?? "?"})`;
    const namespace = system.target(`/proc/${pid}/ns/mnt`);
    if (namespace !== null && !namespaces.has(namespace)) {
      namespaces.add(namespace);
      for (const { point } of mountsOf(system, pid).filter(isOurs)) {
        found.push(`mounted on ${point} in the container of ${process}`);
      }
    }
    if (own.has(Number(pid))) continue;
    const open = system
      .names(`/proc/${pid}/fd`)
      .map((fd) => system.target(`/proc/${pid}/fd/${fd}`));
    if (open.some((path) => path !== null && paths.has(path))) {
      found.push(`open in ${process}`);
      continue;
    }
    const places = [...open, system.target(`/proc/${pid}/cwd`), system.target(`/proc/${pid}/root`)];
    const inside = points.find((point) => places.some((place) => isWithin(place, point)));
    if (inside !== undefined) found.push(`${inside} is used by ${process}`);
  }
  if (found.length <= PROCESSES_NAMED) return found;
  return [...found.slice(0, PROCESSES_NAMED), `and ${found.length - PROCESSES_NAMED} more`];
}

function isWithin(place: string | null, point: string): boolean {
  return place !== null && (place === point || place.startsWith(`${point}/`));
}

/** @param process an id, or "self" */
export function mountsOf(system: System, process: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of system.text(`/proc/${process}/mountinfo`)?.split("\n") ?? []) {
    const [before, after] = line.split(" - ");
    const [, , device, , point] = before!.split(" ");
    const [type, source] = after?.split(" ") ?? [];
    if (device === undefined || point === undefined) continue;
    if (type === undefined || source === undefined) continue;
    mounts.push({ device, point: unescaped(point), type, source: unescaped(source) });
  }
  return mounts;
}

/** Spaces and the like are written as three octal digits. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * Opens a local component, and chooses what carries its data.
 *
 *   regular file            "sync", through the page cache
 *   block device            "io_uring" with O_DIRECT; "threadpool", through the page cache, where that is forbidden
 *
 * The lock is taken on the very description that does the I/O: it then holds until the kernel has finished
 * what a killed worker began, and no successor touches the disk before that.
 */
import fs from "node:fs";
import { getSystemErrorMessage, getSystemErrorName } from "node:util";
import { type Disk, DiskError } from "../disk.ts";
import { BufferedDisk } from "./buffered-disk.ts";
import {
  blockDeviceSize,
  EAGAIN,
  ENOSYS,
  EOPNOTSUPP,
  flockExclusive,
  logicalSectorSize,
  setDirectIo,
} from "./libc.ts";
import type { OpenedDisk } from "./queued-disk.ts";
import { UringDisk } from "./uring-disk.ts";

/** What FreeBSD reports for a file; large enough for every request HAST makes to be a multiple of it. */
const FILE_SECTOR_SIZE = 512;

export type DiskEngine = "sync" | "threadpool" | "io_uring";

export interface OpenDiskOptions {
  /** The memory that requests name by offset; see arena.ts. */
  readonly arena: Buffer;
  /** Whether to refuse a component that someone else has locked, and lock it. */
  readonly lock: boolean;
  /** For tests and measurements; left out, the component decides. */
  readonly engine?: DiskEngine;
  /** Told in one sentence what the operator should know although opening succeeded. */
  readonly warn: (text: string) => void;
}

/**
 * Opens `path` read/write.
 *
 * @throws DiskError
 */
export function openDisk(path: string, options: OpenDiskOptions): Disk {
  // Asked before opening, since opening alone can act on a device (a tape) or wait (a FIFO).
  requireDiskKind(path, statOf(path));
  const fd = openFd(path, options.lock);
  try {
    const stat = fs.fstatSync(fd);
    requireDiskKind(path, stat);
    if (options.lock) lockFd(path, fd, options.warn);
    const kind = stat.isBlockDevice() ? "block" : "file";
    const opened = {
      path,
      fd,
      kind,
      mediaSize: kind === "block" ? requireResult(path, "size", blockDeviceSize(fd)) : stat.size,
      sectorSize:
        kind === "block"
          ? requireResult(path, "sector size", logicalSectorSize(fd))
          : FILE_SECTOR_SIZE,
      arena: options.arena,
    } as const;
    if (kind === "block" && opened.mediaSize === 0) {
      throw new DiskError(
        "ENXIO",
        `${path} has nothing behind it. Is the disk there, and attached?`,
      );
    }
    const engine = options.engine ?? (kind === "file" ? "sync" : "io_uring");
    return engine === "io_uring"
      ? openDirect(opened, options.warn)
      : new BufferedDisk(opened, engine);
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
}

function openDirect(opened: OpenedDisk, warn: (text: string) => void): Disk {
  let result = setDirectIo(opened.fd, true);
  if (result === 0) {
    const disk = UringDisk.open(opened);
    if (typeof disk !== "number") return disk;
    result = disk;
    setDirectIo(opened.fd, false);
  }
  warn(withoutUring(opened.path, result));
  return new BufferedDisk(opened, "threadpool");
}

/** @param result -errno of opening a ring, or of the first read through it */
export function withoutUring(path: string, result: number): string {
  const why = getSystemErrorMessage(result);
  // EIO, ENXIO, ENODEV: no setting forbids anything, and threads will read no better.
  if ([-5, -6, -19].includes(result)) {
    return `${path} could not be read (${why}): the disk fails, or is gone. See dmesg, and smartctl -a ${path}`;
  }
  return (
    `${path} cannot be used through io_uring (${why}): threads carry its data, at about half the speed. ` +
    "See sysctl kernel.io_uring_disabled, and the container's seccomp profile."
  );
}

function statOf(path: string): fs.Stats {
  try {
    return fs.statSync(path);
  } catch (error) {
    throw diskErrorOf(path, error as NodeJS.ErrnoException);
  }
}

function openFd(path: string, lock: boolean): number {
  const { O_RDWR, O_EXCL } = fs.constants; // Node adds O_CLOEXEC
  // On a block device O_EXCL asks whether it is mounted, swapped to, or part of something larger.
  const exclusive = lock && statOf(path).isBlockDevice() ? O_EXCL : 0;
  try {
    return fs.openSync(path, O_RDWR | exclusive);
  } catch (error) {
    throw diskErrorOf(path, error as NodeJS.ErrnoException);
  }
}

function requireDiskKind(path: string, stat: fs.Stats): void {
  if (stat.isFile() || stat.isBlockDevice()) return;
  const found = stat.isDirectory()
    ? "a directory"
    : stat.isCharacterDevice()
      ? "a character device"
      : stat.isFIFO()
        ? "a FIFO"
        : "a socket";
  throw new DiskError(
    "EFTYPE",
    `${path} is ${found}. A local component is a block device or a regular file: ` +
      'correct "local" in hast.conf.',
  );
}

function lockFd(path: string, fd: number, warn: (text: string) => void): void {
  const result = flockExclusive(fd);
  if (result === 0) return;
  if (result === -EAGAIN) throw inUse(path);
  if (result === -EOPNOTSUPP || result === -ENOSYS) {
    warn(
      `${path} cannot be locked: its file system has no locks. ` +
        "Make sure that nothing else uses it: two writers destroy it.",
    );
    return;
  }
  throw new DiskError(
    getSystemErrorName(result),
    `${path} cannot be locked: ${getSystemErrorMessage(result)}.`,
  );
}

function requireResult(path: string, what: string, result: number): number {
  if (result >= 0) return result;
  throw new DiskError(
    "EIO",
    `${path}: its ${what} cannot be learned: ${getSystemErrorMessage(result)}.`,
  );
}

function inUse(path: string): DiskError {
  return new DiskError(
    "EBUSY",
    `${path} is in use: by another hastd or hastctl, or, if a device, because it is mounted or ` +
      `belongs to a volume group. See who: fuser -v ${path}; lsblk ${path}`,
  );
}

function diskErrorOf(path: string, error: NodeJS.ErrnoException): DiskError {
  const code = error.code ?? "EIO";
  switch (code) {
    case "ENOENT":
    case "ENOTDIR":
      return new DiskError(
        code,
        `${path} does not exist. Correct "local" in hast.conf, or make it, for example: ` +
          `truncate -s 10G ${path}`,
        { cause: error },
      );
    case "EACCES":
    case "EPERM":
      return new DiskError(
        code,
        `${path} may not be opened for reading and writing by this user. ` +
          "Run as root, or change its owner or mode.",
        { cause: error },
      );
    case "EBUSY":
      return inUse(path);
    case "EROFS":
      return new DiskError(code, `${path} is on a read-only file system. Remount it read/write.`, {
        cause: error,
      });
    default:
      return new DiskError(code, `${path} cannot be opened: ${error.message}.`, { cause: error });
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/** Components by Node's file handles: what `hastctl create` and `dump` open. */
import type { Stats } from "node:fs";
import { constants, type FileHandle, open, stat } from "node:fs/promises";
import { type Component, ComponentError, type ComponentErrorCode } from "../component.ts";
import { createArena } from "./arena.ts";
import { blockDeviceSize, EAGAIN, EOPNOTSUPP, flockExclusive, logicalSectorSize } from "./libc.ts";

const FILE_SECTOR_SIZE = 512;
/** Bytes read or written at once. */
const PIECE_SIZE = 65536;

/** {@link OpenComponent} for this machine. */
export async function openComponent(path: string, access: "read" | "write"): Promise<Component> {
  const handle = await openDisk(path, access);
  try {
    if (access === "write") lock(path, handle);
    const stats = await handle.stat();
    if (stats.isFile()) {
      return new NodeComponent(path, handle, {
        kind: "file",
        size: stats.size,
        sectorSize: FILE_SECTOR_SIZE,
      });
    }
    const size = blockDeviceSize(handle.fd);
    const sectorSize = logicalSectorSize(handle.fd);
    if (size < 0 || sectorSize <= 0) {
      throw new ComponentError("component-io", `${path}: the device does not tell its size`);
    }
    // A loop device without a file, a drive without a medium.
    if (size === 0)
      throw new ComponentError("component-missing", `${path} has no device behind it`);
    return new NodeComponent(path, handle, { kind: "block", size, sectorSize });
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function openDisk(path: string, access: "read" | "write"): Promise<FileHandle> {
  let stats: Stats;
  try {
    // Looked at before it is opened: opening a pipe would wait for its other end.
    stats = await stat(path);
  } catch (error) {
    throw openError(path, error);
  }
  if (!stats.isFile() && !stats.isBlockDevice()) {
    const what = stats.isDirectory() ? "is a directory" : "is neither a file nor a block device";
    throw new ComponentError("component-not-a-disk", `${path} ${what}`);
  }
  // O_EXCL makes Linux refuse a block device that is mounted or belongs to LVM, RAID or another holder.
  const exclusive = stats.isBlockDevice() ? constants.O_EXCL : 0;
  const flags = access === "read" ? constants.O_RDONLY : constants.O_RDWR | exclusive;
  try {
    return await open(path, flags);
  } catch (error) {
    throw openError(path, error);
  }
}

function lock(path: string, handle: FileHandle): void {
  const result = flockExclusive(handle.fd);
  // A file system without locks: the original goes on too (on-disk layout §6).
  if (result === 0 || result === -EOPNOTSUPP) return;
  const locked = result === -EAGAIN;
  throw new ComponentError(
    locked ? "component-locked" : "component-io",
    locked ? `${path} is in use by a hastd` : `${path} cannot be locked (errno ${-result})`,
  );
}

const OPEN_ERRORS: Readonly<Record<string, readonly [ComponentErrorCode, string]>> = {
  EACCES: ["component-no-permission", "permission denied"],
  EBUSY: ["component-in-use", "is mounted, or held by LVM, RAID, ZFS or a daemon"],
  ENODEV: ["component-missing", "has no device behind it"],
  ENOENT: ["component-missing", "does not exist"],
  ENOTDIR: ["component-missing", "does not exist"],
  ENXIO: ["component-missing", "has no device behind it"],
  EPERM: ["component-no-permission", "permission denied"],
  EROFS: ["component-read-only", "is read-only"],
};

function openError(path: string, cause: unknown): Error {
  const code = errorCode(cause);
  const known = OPEN_ERRORS[code];
  const [ours, says] = known ?? (["component-io", `cannot be opened (${code})`] as const);
  return new ComponentError(ours, `${path} ${says}`.replace(" permission", ": permission"), {
    cause,
  });
}

function errorCode(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : String(error);
}

class NodeComponent implements Component {
  readonly path: string;
  readonly kind: "file" | "block";
  readonly sectorSize: number;
  readonly #handle: FileHandle;
  /**
   * Where a page begins: FUSE past the page cache cuts a request where a page of our memory ends, and that must be
   * the end of a sector.
   */
  readonly #piece: Buffer = createArena(PIECE_SIZE);
  #size: number;

  constructor(
    path: string,
    handle: FileHandle,
    media: { kind: "file" | "block"; size: number; sectorSize: number },
  ) {
    this.path = path;
    this.kind = media.kind;
    this.sectorSize = media.sectorSize;
    this.#handle = handle;
    this.#size = media.size;
  }

  get size(): number {
    return this.#size;
  }

  async readAt(offset: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    let done = 0;
    while (done < length) {
      const { bytesRead } = await this.#attempt("read", offset + done, () =>
        this.#handle.read(this.#piece, 0, Math.min(length - done, PIECE_SIZE), offset + done),
      );
      if (bytesRead === 0) {
        const message = `${this.path} ends at byte ${offset + done}, ${length - done} bytes too early`;
        throw new ComponentError("component-io", message);
      }
      bytes.set(this.#piece.subarray(0, bytesRead), done);
      done += bytesRead;
    }
    return bytes;
  }

  async writeAt(offset: number, bytes: Uint8Array): Promise<void> {
    let done = 0;
    while (done < bytes.length) {
      const piece = bytes.subarray(done, done + PIECE_SIZE);
      this.#piece.set(piece);
      const { bytesWritten } = await this.#attempt("write", offset + done, () =>
        this.#handle.write(this.#piece, 0, piece.length, offset + done),
      );
      if (bytesWritten === 0) {
        const message = `${this.path} takes no bytes at offset ${offset + done}`;
        throw new ComponentError("component-io", message);
      }
      done += bytesWritten;
    }
  }

  async resize(size: number): Promise<void> {
    await this.#attempt("resize", size, () => this.#handle.truncate(size));
    this.#size = size;
  }

  async flush(): Promise<void> {
    await this.#attempt("flush", 0, () => this.#handle.sync());
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  async #attempt<Result>(
    what: "read" | "write" | "resize" | "flush",
    offset: number,
    run: () => Promise<Result>,
  ): Promise<Result> {
    try {
      return await run();
    } catch (cause) {
      const where = what === "flush" ? "" : ` at byte ${offset}`;
      const message = `${this.path}: ${what}${where} failed (${errorCode(cause)})`;
      throw new ComponentError("component-io", message, { cause });
    }
  }
}

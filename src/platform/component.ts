// SPDX-License-Identifier: BSD-2-Clause
/**
 * A local component as hastctl handles it: opened, looked at, written in a few large pieces, closed.
 * The data path has its own, faster way: disk.ts.
 */

import { unreachable } from "../base/assert.ts";

/** Stable; docs/errors.md has a row for each. */
export const COMPONENT_ERROR_CODES = [
  "component-in-use",
  "component-io",
  "component-locked",
  "component-missing",
  "component-no-permission",
  "component-not-a-disk",
  "component-read-only",
] as const;

export type ComponentErrorCode = (typeof COMPONENT_ERROR_CODES)[number];

export class ComponentError extends Error {
  override readonly name = "ComponentError";
  readonly code: ComponentErrorCode;
  constructor(code: ComponentErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** What to do about it: a sentence without its full stop, since it may end in a command; or null. */
export function componentAdvice(code: ComponentErrorCode, path: string): string | null {
  switch (code) {
    case "component-missing":
      return path.startsWith("/dev/")
        ? 'Is the disk there? Is "local" in hast.conf right?'
        : `Correct "local" in hast.conf, or make a file, of 10 GiB for example: truncate -s 10G ${path}`;
    case "component-in-use":
      return `See who uses it: lsblk ${path}; fuser -v ${path}`;
    case "component-locked":
      return `See who uses it: fuser -v ${path}`;
    case "component-no-permission":
      return "Run as root, or change its owner or mode";
    case "component-not-a-disk":
      return 'Correct "local" in hast.conf: a local component is a block device or a regular file';
    case "component-read-only":
      return "Remount its file system read/write";
    case "component-io":
      return null;
    default:
      return unreachable(code);
  }
}

export interface Component {
  readonly path: string;
  readonly kind: "file" | "block";
  /** Bytes, when it was opened or last resized. */
  readonly size: number;
  /** Bytes; a file has 512. */
  readonly sectorSize: number;

  /** @returns `length` bytes from `offset`. @throws ComponentError "component-io", also past the end */
  readAt(offset: number, length: number): Promise<Uint8Array>;
  /** Writes all of `bytes`, or throws ComponentError "component-io". */
  writeAt(offset: number, bytes: Uint8Array): Promise<void>;
  /** Lengthens a file with zeroes, or shortens it. @throws ComponentError; a block device cannot */
  resize(size: number): Promise<void>;
  /** All that was written survives a power cut. @throws ComponentError "component-io" */
  flush(): Promise<void>;
  /** Closes, which unlocks. */
  close(): Promise<void>;
}

/**
 * Opens a regular file or a block device.
 *
 * "read": as `dump` does, whoever uses it. "write": for us alone: refuses what a daemon has locked,
 * and a block device that is mounted or part of something else.
 *
 * @throws ComponentError, whose message says what is true of `path`
 */
export type OpenComponent = (path: string, access: "read" | "write") => Promise<Component>;

// SPDX-License-Identifier: BSD-2-Clause
/**
 * What the kernel shows and takes as files (/proc, /sys), the small files of a run (/dev, /run), and
 * processes by their ids.
 *
 * None of these calls waits for a disk: they are for places that live in memory.
 */

export interface System {
  /** Null if it is not there, or cannot be read. */
  text(path: string): string | null;
  /** What lies in a directory; nothing if there is none. */
  names(path: string): readonly string[];
  /** Where a symbolic link points; null if it is none, or may not be read. */
  target(path: string): string | null;
  /** Whether we may open it for reading and writing. Opens and closes it. */
  mayUse(path: string): boolean;
  /** The absolute path of a program on PATH, or where the administrator's lie; or null. */
  program(name: string): string | null;
  /** A directory that only we may enter, and those above it as usual. @throws Error */
  makeDirectory(path: string): void;
  /** @throws Error */
  write(path: string, text: string): void;
  /** A symbolic link, in place of the one that is there. @throws Error */
  link(path: string, target: string): void;
  /** Removes a file, a link, or an empty directory; something that is not there is no error. @throws Error */
  remove(path: string): void;
  /** SIGKILL; a process that has gone is no error. */
  kill(pid: number): void;
}

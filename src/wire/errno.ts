// SPDX-License-Identifier: BSD-2-Clause
/**
 * Error numbers: on the wire they are FreeBSD's, whatever system sends them.
 *
 * A peer only tests for zero and logs the text, so what has no counterpart travels as EIO.
 * Source: wire protocol §11; FreeBSD errno(2), Linux errno(3).
 */

const EIO = 5; // on both

/** FreeBSD's number, Linux's number, and what it means. 0 = that system has none. */
const ERRNOS: readonly (readonly [freebsd: number, linux: number, text: string])[] = [
  [1, 1, "Operation not permitted"],
  [2, 2, "No such file or directory"],
  [4, 4, "Interrupted system call"],
  [5, 5, "Input/output error"],
  [6, 6, "No such device or address"],
  [9, 9, "Bad file descriptor"],
  [12, 12, "Cannot allocate memory"],
  [13, 13, "Permission denied"],
  [14, 14, "Bad address"],
  [16, 16, "Device or resource busy"],
  [19, 19, "No such device"],
  [22, 22, "Invalid argument"],
  [25, 25, "Inappropriate ioctl for device"],
  [27, 27, "File too large"],
  [28, 28, "No space left on device"],
  [30, 30, "Read-only file system"],
  [32, 32, "Broken pipe"],
  [35, 11, "Resource temporarily unavailable"],
  [36, 115, "Operation now in progress"],
  [45, 95, "Operation not supported"],
  [53, 103, "Software caused connection abort"],
  [54, 104, "Connection reset by peer"],
  [55, 105, "No buffer space available"],
  [57, 107, "Transport endpoint is not connected"],
  [60, 110, "Connection timed out"],
  [61, 111, "Connection refused"],
  [63, 36, "File name too long"],
  [69, 122, "Disk quota exceeded"],
  [73, 0, "RPC version wrong"],
  [78, 38, "Function not implemented"],
  [79, 0, "Inappropriate file type or format"],
  [84, 75, "Value too large for defined data type"],
  [85, 125, "Operation canceled"],
  [88, 0, "Programming error"],
  [0, 61, "No data available"],
  [0, 71, "Protocol error"],
  [0, 84, "Invalid or incomplete multibyte or wide character"],
  [0, 117, "Structure needs cleaning"],
  [0, 121, "Remote I/O error"],
];

/** Linux → FreeBSD. 0 stays 0; what FreeBSD has no number for becomes EIO. */
export function errnoToWire(linuxErrno: number): number {
  if (linuxErrno === 0) return 0;
  for (const [freebsd, linux] of ERRNOS) if (linux === linuxErrno) return freebsd || EIO;
  return EIO;
}

/** FreeBSD → Linux. 0 stays 0; what Linux has no number for, or nobody knows, becomes EIO. */
export function errnoFromWire(freebsdErrno: number): number {
  if (freebsdErrno === 0) return 0;
  for (const [freebsd, linux] of ERRNOS) if (freebsd === freebsdErrno) return linux || EIO;
  return EIO;
}

/** A Linux errno in words; "error 4711" for one we have no words for. */
export function errnoText(linuxErrno: number): string {
  for (const [, linux, text] of ERRNOS) if (linux === linuxErrno && linux !== 0) return text;
  return `error ${linuxErrno}`;
}

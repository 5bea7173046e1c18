// SPDX-License-Identifier: BSD-2-Clause
/** Stub: signatures are final. */

/** Linux → FreeBSD errno; EIO for what FreeBSD has no number for; 0 stays 0. */
export function errnoToWire(_linuxErrno: number): number {
  throw new Error("stub");
}
/** FreeBSD → Linux errno; EIO for the unknown; 0 stays 0. */
export function errnoFromWire(_freebsdErrno: number): number {
  throw new Error("stub");
}
/** "Input/output error"; "error 4711" for a number without a name. */
export function errnoText(_linuxErrno: number): string {
  throw new Error("stub");
}

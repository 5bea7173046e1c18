// SPDX-License-Identifier: BSD-2-Clause
/** Sizes, speeds and times as people read them. */

const UNITS = ["B", "KB", "MB", "GB", "TB", "PB"];

/** @param bytes ≥ 0 */
export function size(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit > 0 && value < 10 ? value.toFixed(1) : Math.round(value)}${UNITS[unit]}`;
}

export function rate(bytesPerSecond: number): string {
  return `${size(bytesPerSecond)}/s`;
}

/** @param ms ≥ 0 */
export function duration(ms: number): string {
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}

/** "1 extent", "32 extents" */
export function extents(count: number): string {
  return count === 1 ? "1 extent" : `${count} extents`;
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * Sizes as people write and read them. Source: FreeBSD's humanize_number(3) with HN_DECIMAL, and
 * expand_number(3); behaviour §16.3, on-disk layout §5.
 */

const SUFFIXES = "bkmgtpe";

/**
 * Binary units, three or four characters, then "B": 0B, 999B, 1.0KB, 10KB, 1.5GB.
 *
 * @param bytes ≥ 0, an integer
 */
export function humanSize(bytes: number): string {
  let value = bytes;
  let remainder = 0; // of the last division, in 1024ths
  let unit = 0;
  while (value >= 1000 || (value === 999 && remainder >= 512)) {
    remainder = value % 1024;
    value = Math.floor(value / 1024);
    unit += 1;
  }
  const suffix = `${["", "K", "M", "G", "T", "P", "E"][unit]}B`;
  if (unit > 0 && (value < 9 || (value === 9 && remainder < 973))) {
    const tenths = value * 10 + Math.floor((remainder * 10 + 512) / 1024);
    return `${Math.floor(tenths / 10)}.${tenths % 10}${suffix}`;
  }
  return `${value + (remainder >= 512 ? 1 : 0)}${suffix}`;
}

/**
 * A number of bytes as typed: "4096", "0x1000", "010" (octal), "64k", "1G"; suffixes are powers of 1024.
 *
 * @returns null for anything else, and above 2^53 - 1
 */
export function parseSize(text: string): number | null {
  const match = /^(0x[0-9a-f]+|[0-9]+)([bkmgtpe]?)$/i.exec(text);
  if (match === null) return null;
  const digits = match[1]!;
  // In 0x1b, and only there, b is a digit: the greedy first group has taken it.
  const isOctal = /^0[0-9]/.test(digits);
  if (isOctal && !/^[0-7]+$/.test(digits)) return null;
  const number = isOctal ? Number.parseInt(digits, 8) : Number(digits);
  const power = match[2] === "" ? 0 : SUFFIXES.indexOf(match[2]!.toLowerCase());
  const bytes = number * 1024 ** power;
  return Number.isSafeInteger(bytes) ? bytes : null;
}

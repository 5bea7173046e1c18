// SPDX-License-Identifier: BSD-2-Clause
/**
 * CRC-32/ISO-HDLC, zlib's: reflected polynomial 0xedb88320, init and xorout 0xffffffff.
 * For small, rare things such as a metadata block; the data path has the platform's.
 */

const TABLE = table();

/** @returns in [0, 2^32) */
export function crc32(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return (crc ^ 0xffff_ffff) >>> 0;
}

function table(): Uint32Array {
  const entries = new Uint32Array(256);
  for (let index = 0; index < 256; index++) {
    let entry = index;
    for (let bit = 0; bit < 8; bit++) entry = (entry & 1 ? 0xedb8_8320 : 0) ^ (entry >>> 1);
    entries[index] = entry;
  }
  return entries;
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * Bit sets over bytes: bit N is byte N >> 3, mask 1 << (N & 7), which is also
 * the on-disk and on-wire order of the activemap (docs/protocol.md).
 */

export function testBit(map: Uint8Array, index: number): boolean {
  return (map[index >>> 3]! & (1 << (index & 7))) !== 0;
}

export function setBit(map: Uint8Array, index: number): void {
  map[index >>> 3]! |= 1 << (index & 7);
}

export function clearBit(map: Uint8Array, index: number): void {
  map[index >>> 3]! &= ~(1 << (index & 7));
}

/** The first set bit at or after `from` and below `count`, or -1. Skips zero bytes eight at a time. */
export function nextSetBit(map: Uint8Array, from: number, count: number): number {
  let index = from;
  while (index < count) {
    if ((index & 7) === 0) {
      let byte = index >>> 3;
      const end = (count + 7) >>> 3;
      while (byte < end && map[byte] === 0) byte++;
      index = byte << 3;
      if (index >= count) return -1;
    }
    if (testBit(map, index)) return index;
    index++;
  }
  return -1;
}

/** How many bits below `count` are set. */
export function countBits(map: Uint8Array, count: number): number {
  let total = 0;
  const whole = count >>> 3;
  for (let byte = 0; byte < whole; byte++) {
    let bits = map[byte]!;
    while (bits !== 0) {
      bits &= bits - 1;
      total++;
    }
  }
  for (let index = whole << 3; index < count; index++) if (testBit(map, index)) total++;
  return total;
}

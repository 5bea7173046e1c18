// SPDX-License-Identifier: BSD-2-Clause
/**
 * What a component already holds: enough of blkid(8) to keep `create` from throwing it away.
 *
 * Each row says where a magic number lies, and, where the format tells, how large it believes to be.
 * Offsets: the formats' own documentation, as collected in util-linux' libblkid/src/superblocks.
 */
import { looksLikeMetadata, METADATA_SIZE } from "../metadata/block.ts";

/** How much is looked at, at most. */
export const SIGNATURE_HEAD_SIZE: number = 256 * 1024;
export const SIGNATURE_TAIL_SIZE: number = 132 * 1024;

export interface Signature {
  /** As people call it: "an ext4 file system". */
  readonly name: string;
  /** Bytes it takes up by its own account; null where it does not say. */
  readonly size: number | null;
}

/**
 * What a component begins with.
 *
 * @param head the first SIGNATURE_HEAD_SIZE bytes, or all there are
 * @returns null where nothing known is there
 */
export function recogniseHead(head: Uint8Array): Signature | null {
  return look(AT_THE_FRONT, new Bytes(head, 0));
}

/**
 * What a component ends with: software RAID, GEOM, DRBD and the backup of a GPT keep their mark there.
 *
 * @param tail the last SIGNATURE_TAIL_SIZE bytes, or all there are
 * @param end where they end: the size of the component
 */
export function recogniseTail(tail: Uint8Array, end: number): Signature | null {
  return look(AT_THE_BACK, new Bytes(tail, end - tail.length));
}

function look(looks: readonly Look[], bytes: Bytes): Signature | null {
  for (const each of looks) {
    const found = each(bytes);
    if (found !== null) return found;
  }
  return null;
}

const KIB = 1024;
const MD_MAGIC = 0xa92b4efc;

type Look = (bytes: Bytes) => Signature | null;

const AT_THE_FRONT: readonly Look[] = [
  (b) => {
    const block = b.block();
    return block !== null && looksLikeMetadata(block) ? known("HAST metadata") : null;
  },
  (b) => (b.hasText(0, "LUKS\xba\xbe") ? known("a LUKS volume") : null),
  (b) => {
    for (const label of [0, 512, 1024, 1536]) {
      if (!b.hasText(label, "LABELONE") || !b.hasText(label + 24, "LVM2 001")) continue;
      // pv_header: 32 bytes of UUID, then the size of the device.
      return known("an LVM physical volume", b.u64(label + b.u32(label + 20) + 32));
    }
    return null;
  },
  (b) => (b.u32(0) === MD_MAGIC || b.u32(4096) === MD_MAGIC ? known("a RAID member (md)") : null),
  (b) => {
    for (let ring = 128 * KIB; ring < 256 * KIB; ring += KIB) {
      const low = b.u32(ring);
      if (low === 0x00bab10c && b.u32(ring + 4) === 0) return known("a ZFS pool member");
      if (low === 0 && b.u32be(ring + 4) === 0x00bab10c) return known("a ZFS pool member");
    }
    return null;
  },
  (b) => (b.hasText(0, "XFSB") ? known("an XFS file system", b.u32be(4) * b.u64be(8)) : null),
  (b) => {
    if (!b.hasText(64 * KIB + 64, "_BHRfS_M")) return null;
    const alone = b.u64(64 * KIB + 136) === 1;
    return known("a Btrfs file system", alone ? b.u64(64 * KIB + 112) : null);
  },
  (b) => {
    if (b.u16(KIB + 56) !== 0xef53) return null;
    const is64bit = (b.u32(KIB + 96) & 0x80) !== 0;
    const blocks = b.u32(KIB + 4) + (is64bit ? b.u32(KIB + 0x150) * 2 ** 32 : 0);
    return known(`an ${extName(b)} file system`, blocks * 1024 * 2 ** b.u32(KIB + 24));
  },
  (b) =>
    b.hasText(3, "NTFS    ") ? known("an NTFS file system", (b.u64(40) + 1) * b.u16(11)) : null,
  (b) => (b.hasText(3, "EXFAT   ") ? known("an exFAT file system") : null),
  (b) => {
    const fat = b.hasText(82, "FAT32   ") || b.hasText(54, "FAT12   ") || b.hasText(54, "FAT16   ");
    if (!fat || b.u16(510) !== 0xaa55) return null;
    return known("a FAT file system", (b.u16(19) || b.u32(32)) * b.u16(11));
  },
  (b) => (b.u32(KIB) === 0xf2f52010 ? known("an F2FS file system") : null),
  (b) => {
    const ufs2 = b.u32(64 * KIB + 1372) === 0x19540119;
    return ufs2 || b.u32(8 * KIB + 1372) === 0x00011954 ? known("a UFS file system") : null;
  },
  (b) => {
    for (const page of [4, 8, 16, 64]) {
      const mark = page * KIB - 10;
      if (!b.hasText(mark, "SWAPSPACE2") && !b.hasText(mark, "SWAP-SPACE")) continue;
      return known("swap space", (b.u32(KIB + 4) + 1) * page * KIB);
    }
    return null;
  },
  (b) => {
    if (!b.hasText(32 * KIB + 1, "CD001")) return null;
    return known("an ISO 9660 file system", b.u32(32 * KIB + 80) * b.u16(32 * KIB + 128));
  },
  (b) => (b.hasText(0, "hsqs") ? known("a SquashFS file system", b.u64(40)) : null),
  (b) => (b.hasText(0, "QFI\xfb") ? known("a QCOW2 image") : null),
  (b) => {
    for (const sector of [512, 4096]) {
      if (!b.hasText(sector, "EFI PART")) continue;
      return known("a GPT partition table", (b.u64(sector + 32) + 1) * sector);
    }
    return null;
  },
  (b) => {
    if (b.u16(510) !== 0xaa55) return null;
    const entries = [446, 462, 478, 494];
    const plausible = entries.every((entry) => b.u8(entry) === 0 || b.u8(entry) === 0x80);
    const used = entries.some((entry) => b.u8(entry + 4) !== 0);
    return plausible && used ? known("an MBR partition table") : null;
  },
];

const AT_THE_BACK: readonly Look[] = [
  (b) => {
    const version10 = b.u32(roundDown(b.end - 8 * KIB, 4 * KIB)) === MD_MAGIC;
    const version09 = b.u32(roundDown(b.end, 64 * KIB) - 64 * KIB) === MD_MAGIC;
    return version10 || version09 ? known("a RAID member (md)") : null;
  },
  (b) => (b.hasText(b.end - 512, "GEOM::") ? known("a GEOM member") : null),
  (b) => {
    // DRBD's internal metadata: one magic per format, 0x83740267 to 0x8374026d.
    const magic = b.u32be(roundDown(b.end, 4 * KIB) - 4 * KIB + 60);
    return magic >= 0x83740267 && magic <= 0x8374026d ? known("a DRBD disk") : null;
  },
  (b) => {
    const backup = b.hasText(b.end - 512, "EFI PART") || b.hasText(b.end - 4096, "EFI PART");
    return backup ? known("a GPT partition table") : null;
  },
];

function known(name: string, size: number | null = null): Signature {
  const sound = size !== null && Number.isSafeInteger(size) && size > 0;
  return { name, size: sound ? size : null };
}

function extName(b: Bytes): string {
  const compatible = b.u32(KIB + 92);
  const incompatible = b.u32(KIB + 96);
  const readOnly = b.u32(KIB + 100);
  // Extents, 64bit, flex_bg; huge_file, gdt_csum, dir_nlink, extra_isize, metadata_csum.
  if ((incompatible & 0x2c0) !== 0 || (readOnly & 0x478) !== 0) return "ext4";
  return (compatible & 0x4) !== 0 ? "ext3" : "ext2";
}

function roundDown(size: number, unit: number): number {
  return Math.floor(size / unit) * unit;
}

/** Bytes by their offset on the component, little-endian unless said; all that is not there is zero. */
class Bytes {
  /** Where the bytes end on the component. */
  readonly end: number;
  readonly #bytes: Uint8Array;
  readonly #start: number;

  constructor(bytes: Uint8Array, start: number) {
    this.#bytes = bytes;
    this.#start = start;
    this.end = start + bytes.length;
  }

  /** The metadata block at the front, or null where there are not enough bytes. */
  block(): Uint8Array | null {
    return this.end >= METADATA_SIZE ? this.#bytes.subarray(0, METADATA_SIZE) : null;
  }

  /** `text` in Latin-1. */
  hasText(offset: number, text: string): boolean {
    for (let index = 0; index < text.length; index++) {
      if (this.u8(offset + index) !== text.charCodeAt(index)) return false;
    }
    return true;
  }

  u8(offset: number): number {
    return this.#bytes[offset - this.#start] ?? 0;
  }

  u16(offset: number): number {
    return this.u8(offset) + this.u8(offset + 1) * 256;
  }

  u32(offset: number): number {
    return this.u16(offset) + this.u16(offset + 2) * 65536;
  }

  /** Inexact above 2^53; known() drops what is. */
  u64(offset: number): number {
    return this.u32(offset) + this.u32(offset + 4) * 2 ** 32;
  }

  u32be(offset: number): number {
    let value = 0;
    for (let index = 0; index < 4; index++) value = value * 256 + this.u8(offset + index);
    return value;
  }

  u64be(offset: number): number {
    return this.u32be(offset) * 2 ** 32 + this.u32be(offset + 4);
  }
}

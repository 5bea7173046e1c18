// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { golden } from "../../test/golden/vectors.ts";
import {
  recogniseHead,
  recogniseTail,
  SIGNATURE_HEAD_SIZE,
  SIGNATURE_TAIL_SIZE,
} from "./signature.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

type Mark = readonly [offset: number, bytes: string | readonly number[]];

function head(...marks: readonly Mark[]): Uint8Array {
  return at(SIGNATURE_HEAD_SIZE, ...marks);
}

function at(size: number, ...marks: readonly Mark[]): Uint8Array {
  const bytes = new Uint8Array(size);
  for (const [offset, mark] of marks) {
    bytes.set(typeof mark === "string" ? Buffer.from(mark, "latin1") : mark, offset);
  }
  return bytes;
}

function le(value: number, size: number): number[] {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return [...bytes.subarray(0, size)];
}

function be(value: number, size: number): number[] {
  return le(value, size).reverse();
}

/** Magic numbers and sizes where mkfs and its like put them; each was compared with an image so made. */
const HEADS: readonly [name: string, size: number | null, head: Uint8Array][] = [
  ["a LUKS volume", null, head([0, "LUKS\xba\xbe"])],
  [
    "an LVM physical volume",
    40 * MIB,
    head([512, "LABELONE"], [532, le(32, 4)], [536, "LVM2 001"], [544 + 32, le(40 * MIB, 8)]),
  ],
  ["a RAID member (md)", null, head([0, le(0xa92b4efc, 4)])],
  ["a RAID member (md)", null, head([4096, le(0xa92b4efc, 4)])],
  ["a ZFS pool member", null, head([(128 + 5) * KIB, le(0x00bab10c, 8)])],
  ["a ZFS pool member", null, head([(128 + 127) * KIB, be(0x00bab10c, 8)])],
  ["an XFS file system", 310 * MIB, head([0, "XFSB"], [4, be(4096, 4)], [8, be(79360, 8)])],
  [
    "a Btrfs file system",
    120 * MIB,
    head([64 * KIB + 64, "_BHRfS_M"], [64 * KIB + 112, le(120 * MIB, 8)], [64 * KIB + 136, [1]]),
  ],
  ["a Btrfs file system", null, head([64 * KIB + 64, "_BHRfS_M"], [64 * KIB + 136, [2]])],
  ["an ext2 file system", 8 * MIB, ext({ compatible: 0x38, incompatible: 0x2, readOnly: 0x3 })],
  ["an ext3 file system", 8 * MIB, ext({ compatible: 0x3c, incompatible: 0x2, readOnly: 0x3 })],
  ["an ext4 file system", 8 * MIB, ext({ compatible: 0x3c, incompatible: 0x242, readOnly: 0x46b })],
  [
    "an NTFS file system",
    64 * MIB,
    head([3, "NTFS    "], [11, le(512, 2)], [40, le(131071, 8)], [510, [0x55, 0xaa]]),
  ],
  ["an exFAT file system", null, head([3, "EXFAT   "], [510, [0x55, 0xaa]])],
  [
    "a FAT file system",
    64 * MIB,
    head([82, "FAT32   "], [11, le(512, 2)], [32, le(131072, 4)], [510, [0x55, 0xaa]]),
  ],
  [
    "a FAT file system",
    8 * MIB,
    head([54, "FAT16   "], [11, le(512, 2)], [19, le(16384, 2)], [510, [0x55, 0xaa]]),
  ],
  ["an F2FS file system", null, head([KIB, le(0xf2f52010, 4)])],
  ["a UFS file system", null, head([64 * KIB + 1372, le(0x19540119, 4)])],
  ["a UFS file system", null, head([8 * KIB + 1372, le(0x00011954, 4)])],
  ["swap space", 4 * MIB, head([KIB + 4, le(1023, 4)], [4086, "SWAPSPACE2"])],
  [
    "an ISO 9660 file system",
    358400,
    head([32769, "CD001"], [32848, le(175, 4)], [32896, le(2048, 2)]),
  ],
  ["a SquashFS file system", 689, head([0, "hsqs"], [40, le(689, 8)])],
  ["a QCOW2 image", null, head([0, "QFI\xfb"])],
  ["a GPT partition table", 64 * MIB, head([512, "EFI PART"], [544, le(131071, 8)], ...mbr(0xee))],
  ["a GPT partition table", 64 * MIB, head([4096, "EFI PART"], [4128, le(16383, 8)])],
  ["an MBR partition table", null, head(...mbr(0x83))],
];

function ext(features: { compatible: number; incompatible: number; readOnly: number }): Uint8Array {
  return head(
    [KIB + 4, le(8192, 4)],
    [KIB + 56, le(0xef53, 2)],
    [KIB + 92, le(features.compatible, 4)],
    [KIB + 96, le(features.incompatible, 4)],
    [KIB + 100, le(features.readOnly, 4)],
  );
}

function mbr(type: number): Mark[] {
  return [
    [446, [0x80]],
    [450, [type]],
    [510, [0x55, 0xaa]],
  ];
}

test("recogniseHead() knows what people keep on disks, and how large it is", () => {
  for (const [name, size, bytes] of HEADS) assert.deepEqual(recogniseHead(bytes), { name, size });
});

test("recogniseHead() knows the original's metadata, at any step of a life", () => {
  for (const path of ["metadata/create-tiny.bin", "metadata/life-15-beta.bin"]) {
    assert.deepEqual(recogniseHead(golden(path)), { name: "HAST metadata", size: null });
  }
});

test("recogniseTail() knows what keeps its mark at the end, wherever the bytes given begin", () => {
  const end = 10 * MIB + 3 * KIB;
  const marks: [string, number, string | number[]][] = [
    ["a RAID member (md)", 10 * MIB - 64 * KIB, le(0xa92b4efc, 4)], // version 0.90
    ["a RAID member (md)", 10 * MIB - 8 * KIB, le(0xa92b4efc, 4)], // version 1.0
    ["a GEOM member", end - 512, "GEOM::MIRROR"],
    ["a DRBD disk", 10 * MIB - 4 * KIB + 60, be(0x8374026d, 4)],
    ["a GPT partition table", end - 512, "EFI PART"],
    ["a GPT partition table", end - 4096, "EFI PART"],
  ];
  for (const [name, offset, mark] of marks) {
    for (const size of [SIGNATURE_TAIL_SIZE, SIGNATURE_TAIL_SIZE - 512]) {
      const tail = at(size, [offset - (end - size), mark]);
      assert.deepEqual(recogniseTail(tail, end), { name, size: null }, name);
    }
  }
});

test("zeroes, text and short inputs are nothing known", () => {
  for (const bytes of [new Uint8Array(0), new Uint8Array(1), new Uint8Array(SIGNATURE_HEAD_SIZE)]) {
    assert.equal(recogniseHead(bytes), null);
    assert.equal(recogniseTail(bytes, bytes.length), null);
  }
  assert.equal(recogniseHead(head([0, "just text, ".repeat(1000)])), null);
  // A boot sector without partitions is no partition table.
  assert.equal(recogniseHead(head([510, [0x55, 0xaa]])), null);
});

test("any bytes give an answer, and a size only where it is a whole positive number", () => {
  const known = fc.constantFrom(...HEADS.map(([, , bytes]) => bytes.slice(0, 70 * KIB)));
  const damaged = fc.tuple(known, fc.nat(2048), fc.uint8Array({ maxLength: 600 })).map((parts) => {
    const [bytes, offset, noise] = parts;
    const copy = bytes.slice();
    copy.set(noise, offset);
    return copy;
  });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 5000 }), damaged), (bytes) => {
      for (const found of [recogniseHead(bytes), recogniseTail(bytes, bytes.length)]) {
        const size = found?.size ?? 1;
        assert.ok(Number.isSafeInteger(size) && size > 0);
      }
    }),
  );
});

test("recogniseHead() knows what this machine's mkfs.ext4 and mkswap write", () => {
  const directory = mkdtempSync(join(tmpdir(), "hast-signature-"));
  try {
    const image = join(directory, "image");
    const made = (program: string, ...options: string[]): unknown => {
      writeFileSync(image, "");
      truncateSync(image, 16 * MIB);
      execFileSync(program, [...options, image], {
        stdio: "ignore",
        env: { PATH: "/usr/sbin:/sbin:/usr/bin:/bin" },
      });
      return recogniseHead(readFileSync(image).subarray(0, SIGNATURE_HEAD_SIZE));
    };
    assert.deepEqual(made("mkfs.ext4", "-q", "-F"), {
      name: "an ext4 file system",
      size: 16 * MIB,
    });
    assert.deepEqual(made("mkswap"), { name: "swap space", size: 16 * MIB });
  } finally {
    rmSync(directory, { recursive: true });
  }
});

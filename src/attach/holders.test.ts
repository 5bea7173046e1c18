// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { NO_DEVICES } from "../../test/daemon/fakes.ts";
import type { System } from "../platform/system.ts";
import { mountsOf, usersOf } from "./holders.ts";

/** A /proc and a /sys. @param files path → text; links begin with "-> " */
function systemOf(files: Readonly<Record<string, string>>): System {
  return {
    ...NO_DEVICES.system,
    text: (path) => files[path] ?? null,
    names: (path) => [
      ...new Set(
        Object.keys(files)
          .filter((file) => file.startsWith(`${path}/`))
          .map((file) => file.slice(path.length + 1).split("/")[0]!),
      ),
    ],
    target: (path) => files[path]?.slice(3) ?? null,
  };
}

const LOOP5 = { "/sys/class/block/loop5/dev": "7:5\n", "/sys/block/loop5/size": "8" };
const NOBODY = new Set<number>();

test("nobody uses a device that nobody uses", () => {
  const files = {
    ...LOOP5,
    "/proc/self/mountinfo": "36 35 7:50 / /mnt rw - ext4 /dev/loop50 rw\n",
    "/proc/9/fd/3": "-> /dev/loop50",
    "/proc/9/cwd": "-> /mnt",
    "/proc/swaps": "Filename Type Size Used Priority\n/dev/loop50 partition 8 0 -2\n",
  };
  assert.deepEqual(usersOf(systemOf(files), "/dev/loop5", NOBODY), { users: [], mounts: [] });
});

test("file systems are found by the device's number, by its name, on partitions, and in containers", () => {
  const files = {
    ...LOOP5,
    "/sys/block/loop5/loop5p1/size": "4",
    "/sys/class/block/loop5p1/dev": "259:1\n",
    "/proc/self/mountinfo": [
      "36 35 7:5 / /a\\040b rw,noatime master:1 - ext4 /dev/hast/r0 rw",
      "37 35 259:1 / /part rw - xfs /dev/root rw",
      "38 35 0:77 / /pool rw shared:3 - btrfs /dev/loop5 rw",
    ].join("\n"),
    "/proc/self/ns/mnt": "-> mnt:[1]",
    "/proc/40/ns/mnt": "-> mnt:[2]",
    "/proc/40/comm": "init\n",
    "/proc/40/mountinfo": "50 49 7:5 / /inner rw - ext4 /dev/loop5 rw\n",
    "/proc/41/ns/mnt": "-> mnt:[2]",
    "/proc/41/mountinfo": "50 49 7:5 / /inner rw - ext4 /dev/loop5 rw\n",
  };
  assert.deepEqual(usersOf(systemOf(files), "/dev/loop5", NOBODY), {
    users: [
      "mounted on /a b",
      "mounted on /part",
      "mounted on /pool",
      "mounted on /inner in the container of process 40 (init)",
    ],
    mounts: ["/a b", "/part", "/pool"],
  });
});

test("swap, devices on top and processes are named; our own do not count", () => {
  const files = {
    ...LOOP5,
    "/sys/class/block/loop5/holders/dm-0": "",
    "/sys/block/loop6/loop/backing_file": "/dev/loop5\n",
    "/proc/swaps": "Filename Type Size Used Priority\n/dev/loop5 partition 8 0 -2\n",
    "/proc/7/fd/3": "-> /dev/loop5",
    "/proc/7/comm": "nbd-client\n",
    "/proc/8/fd/3": "-> /dev/loop5",
    "/proc/8/comm": "tgtd\n",
  };
  assert.deepEqual(usersOf(systemOf(files), "/dev/loop5", new Set([7])).users, [
    "part of /dev/dm-0",
    "behind /dev/loop6",
    "used as swap",
    "open in process 8 (tgtd)",
  ]);
});

test("of many processes a few are named, and the others counted", () => {
  const many = Array.from({ length: 20 }, (_, pid) => [`/proc/${pid + 1}/fd/3`, "-> /dev/loop5"]);
  const files = { ...LOOP5, ...Object.fromEntries(many) };
  const { users } = usersOf(systemOf(files), "/dev/loop5", NOBODY);
  assert.equal(users.length, 9);
  assert.equal(users.at(-1), "and 12 more");
});

test("lines of mountinfo that are none are passed over", () => {
  const text = "nonsense\n1 2 7:5\n36 35 7:5 / /mnt rw - ext4 /dev/loop5 rw\n - \n";
  assert.deepEqual(mountsOf(systemOf({ "/proc/self/mountinfo": text }), "self"), [
    { device: "7:5", point: "/mnt", type: "ext4", source: "/dev/loop5" },
  ]);
});

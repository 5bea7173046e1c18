// SPDX-License-Identifier: BSD-2-Clause
/**
 * Which ways to a device this machine has.
 *
 *   nbd    /dev/nbdN ── nbd-client ─────────────┐
 *   ublk   /dev/ublkbN ── nbdublk ──────────────┼── nbdkit --filter=retry ── worker
 *   fuse   /dev/loopN ── file ── FUSE ── nbdfuse ┘
 *
 * nbdkit keeps requests while a worker is restarted: what is before it never sees a connection break.
 * "auto" is nbd, else fuse. ublk, which has not been tried yet, is there for who asks for it.
 */

import type { System } from "../platform/system.ts";

export type DeviceKind = "nbd" | "ublk" | "fuse";
export type DeviceWish = "auto" | DeviceKind | "none";

export type Choice =
  | { readonly kind: DeviceKind }
  /** `notice`: what to do to have one; null where none is wanted. */
  | { readonly kind: "none"; readonly notice: string | null }
  | { readonly kind: "impossible"; readonly reason: string };

/** What every kind needs: programs, and the Debian packages that have them. */
const ALWAYS = [
  ["nbdkit", "nbdkit"],
  ["setpriv", "util-linux"],
] as const;
/** And each one besides. */
const PROGRAMS: Readonly<Record<DeviceKind, readonly (readonly [string, string])[]>> = {
  nbd: [["nbd-client", "nbd-client"], ["flock", "util-linux"], ...ALWAYS],
  ublk: [["nbdublk", "nbdublk"], ...ALWAYS],
  fuse: [["nbdfuse", "libnbd-bin"], ["fusermount3", "fuse3"], ["losetup", "mount"], ...ALWAYS],
};

export function choose(system: System, wish: DeviceWish): Choice {
  if (wish === "none") return { kind: "none", notice: null };
  if (wish !== "auto") {
    const lacking = lack(system, wish);
    return lacking === null
      ? { kind: wish }
      : { kind: "impossible", reason: `device ${wish}: ${lacking}` };
  }
  const nbd = lack(system, "nbd");
  if (nbd === null) return { kind: "nbd" };
  const fuse = lack(system, "fuse");
  if (fuse === null) return { kind: "fuse" };
  return { kind: "none", notice: `fuse: ${fuse}; nbd: ${nbd}` };
}

/** Why this kind cannot be had here, or null. */
function lack(system: System, kind: DeviceKind): string | null {
  const kernel = KERNEL[kind](system);
  if (kernel !== null) return kernel;
  const missing = PROGRAMS[kind].filter(([program]) => system.program(program) === null);
  if (missing.length === 0) return null;
  const programs = missing.map(([program]) => program).join(" and ");
  const packages = [...new Set(missing.map(([, name]) => name))].join(" ");
  return `${programs} ${missing.length === 1 ? "is" : "are"} missing (Debian: apt-get install ${packages})`;
}

const KERNEL: Readonly<Record<DeviceKind, (system: System) => string | null>> = {
  nbd: (system) => {
    if (system.names("/sys/block").includes("nbd0") && system.mayUse("/dev/nbd0")) return null;
    return "the kernel has no /dev/nbd0 for us (modprobe nbd)";
  },
  ublk: (system) =>
    system.mayUse("/dev/ublk-control")
      ? null
      : "the kernel has no /dev/ublk-control for us (modprobe ublk_drv)",
  fuse: (system) => {
    if (!system.mayUse("/dev/fuse")) return "there is no /dev/fuse for us (modprobe fuse)";
    if (!system.mayUse("/dev/loop-control")) {
      return "there is no /dev/loop-control for us (modprobe loop)";
    }
    return null;
  },
};

/** Where a program lies; if it lies nowhere, starting it will say so. */
export function programPath(system: System, name: string): string {
  return system.program(name) ?? `/usr/bin/${name}`;
}

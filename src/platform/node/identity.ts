// SPDX-License-Identifier: BSD-2-Clause
/** What this machine is called, for the `on` sections of hast.conf (behaviour §15). */
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { hostId } from "./libc.ts";

const MACHINE_ID_PATHS = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/** A {@link import("../../config/config.ts").NodeIdentity}. */
export interface HostIdentity {
  readonly names: readonly string[];
  readonly uuid: string | null;
  readonly hostid: number | null;
}

/**
 * This machine's names, or only `node`, where one was given with -n or in HAST_NODE.
 * `hostid` is looked up when it is first read: it can ask a name server.
 */
export function nodeIdentity(node: string | null): HostIdentity {
  if (node !== null) return { names: [node], uuid: null, hostid: null };
  const full = hostname();
  const first = full.split(".")[0]!;
  let hostid: number | null = null;
  return {
    names: first === full ? [full] : [full, first],
    uuid: machineId(),
    get hostid() {
      hostid ??= hostId();
      return hostid;
    },
  };
}

/** The machine id with dashes, as FreeBSD writes a host's UUID; null in a container that has none. */
function machineId(): string | null {
  for (const path of MACHINE_ID_PATHS) {
    let text: string;
    try {
      text = readFileSync(path, "utf8").trim();
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") continue;
      throw error;
    }
    const parts = /^(.{8})(.{4})(.{4})(.{4})(.{12})$/.exec(text);
    // systemd writes "uninitialized" there while an image boots for the first time.
    if (parts !== null && /^[0-9a-f]{32}$/i.test(text)) return parts.slice(1).join("-");
  }
  return null;
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * What a reload does, when the configuration of one node changes.
 *
 *   setting                                                  init, secondary   primary
 *   name, local, export, exporttls, device                   restart           restart
 *   remote from or to none, metaflush from on to off         restart           restart
 *   remote, source, replication, checksum, compression,
 *   timeout, exec, exectimeout, gate, metaflush, tlspeer,    restart           live
 *   arbiter
 *   control, control…, pidfile, user, listen, tlsdir         live              live
 *
 * A restart takes the role away, and gives it back under the new settings: all of them, those that
 * could have changed live included. `export` and `device` are ours; both make the disk disappear and
 * come back, as `name` does. Without `metaflush` a primary says in its metadata, before it begins, that
 * the map may not be stable (safety case S-21); and one without a peer has no link to give an address to.
 *
 * Source: FreeBSD sbin/hastd/hastd.c, resource_needs_restart(), resource_needs_reload(),
 * hastd_reload(); behaviour §12.
 */
import type { Config, ResourceConfig } from "./config.ts";

export type Role = "init" | "primary" | "secondary";

/** A resource's settings; its name says which resource it is. */
type ResourceSetting = Exclude<keyof ResourceConfig, "name">;
/** The daemon's own settings. */
type DaemonSetting =
  | "control"
  | "controlowner"
  | "controlgroup"
  | "controlmode"
  | "pidfile"
  | "user"
  | "listen"
  | "tlsdir";

/** A configuration in use. What is absent is not known, and not compared. */
export interface Known extends Partial<Pick<Config, DaemonSetting>> {
  readonly resources: readonly (Pick<ResourceConfig, "name"> & Partial<ResourceConfig>)[];
}

export interface SettingChange {
  /** The keyword in hast.conf. */
  readonly keyword: string;
  /** As in hast.conf; "none" where there was nothing. */
  readonly from: string;
  readonly to: string;
}

export type ResourceChange =
  | { readonly kind: "added"; readonly resource: string }
  | { readonly kind: "removed"; readonly resource: string }
  | {
      readonly kind: "restarted";
      readonly resource: string;
      /** What cannot change live; never empty. */
      readonly reasons: readonly SettingChange[];
      /** What changes on the occasion. */
      readonly besides: readonly SettingChange[];
    }
  | {
      readonly kind: "live";
      readonly resource: string;
      /** Never empty. */
      readonly reasons: readonly SettingChange[];
    };

export interface Changes {
  /** Of the daemon itself: its sockets and its pidfile. */
  readonly daemon: readonly SettingChange[];
  /** Those that go, in the old order; then the others, in the new. The unchanged are left out. */
  readonly resources: readonly ResourceChange[];
}

type Value = ResourceConfig[ResourceSetting];
type Live = boolean | ((from: Value, to: Value) => boolean);

/** The keyword of each setting, and whether a primary takes it over without a restart. */
const SETTINGS: Readonly<Record<ResourceSetting, { keyword: string; live: Live }>> = {
  provname: { keyword: "name", live: false },
  local: { keyword: "local", live: false },
  remote: { keyword: "remote", live: (from, to) => from !== "none" && to !== "none" },
  source: { keyword: "source", live: true },
  replication: { keyword: "replication", live: true },
  checksum: { keyword: "checksum", live: true },
  compression: { keyword: "compression", live: true },
  timeout: { keyword: "timeout", live: true },
  exec: { keyword: "exec", live: true },
  exectimeout: { keyword: "exectimeout", live: true },
  gate: { keyword: "gate", live: true },
  metaflush: { keyword: "metaflush", live: (_, to) => to === true },
  export: { keyword: "export", live: false },
  exporttls: { keyword: "exporttls", live: false },
  tlspeer: { keyword: "tlspeer", live: true },
  device: { keyword: "device", live: false },
  // One that was promoted without goes on so, until an agent takes it over.
  arbiter: { keyword: "arbiter", live: true },
};

const DAEMON_SETTINGS: readonly DaemonSetting[] = [
  "control",
  "controlowner",
  "controlgroup",
  "controlmode",
  "pidfile",
  "user",
  "listen",
  "tlsdir",
];

/**
 * Compares two configurations for one node.
 *
 * @param from what is in use
 * @param to what would be
 * @param roleOf the present role of a resource of `from`
 */
export function changesBetween(
  from: Known,
  to: Config,
  roleOf: (resource: string) => Role,
): Changes {
  const before = new Map(from.resources.map((resource) => [resource.name, resource]));
  const after = new Set(to.resources.map((resource) => resource.name));
  const resources: ResourceChange[] = [];
  for (const resource of before.keys()) {
    if (!after.has(resource)) resources.push({ kind: "removed", resource });
  }
  for (const resource of to.resources) {
    const old = before.get(resource.name);
    const change =
      old === undefined
        ? ({ kind: "added", resource: resource.name } as const)
        : resourceChange(old, resource, roleOf(resource.name));
    if (change !== null) resources.push(change);
  }
  return { daemon: daemonChanges(from, to), resources };
}

/**
 * What becomes of one resource that stays.
 * @returns null where nothing changes
 */
export function resourceChange(
  from: Partial<ResourceConfig>,
  to: ResourceConfig,
  role: Role,
): ResourceChange | null {
  const live: SettingChange[] = [];
  const restarting: SettingChange[] = [];
  for (const [name, setting] of Object.entries(SETTINGS)) {
    const old = from[name as ResourceSetting];
    const wanted = to[name as ResourceSetting];
    if (old === undefined || old === wanted) continue;
    const change = { keyword: setting.keyword, from: written(old), to: written(wanted) };
    const mayLive = typeof setting.live === "boolean" ? setting.live : setting.live(old, wanted);
    (role === "primary" && mayLive ? live : restarting).push(change);
  }
  const resource = to.name;
  if (restarting.length > 0) {
    return { kind: "restarted", resource, reasons: restarting, besides: live };
  }
  return live.length > 0 ? { kind: "live", resource, reasons: live } : null;
}

function daemonChanges(from: Known, to: Config): SettingChange[] {
  const changes: SettingChange[] = [];
  for (const keyword of DAEMON_SETTINGS) {
    const old = from[keyword];
    if (old === undefined) continue;
    const change = {
      keyword,
      from: writtenOfDaemon(keyword, old),
      to: writtenOfDaemon(keyword, to[keyword]),
    };
    if (change.from !== change.to) changes.push(change);
  }
  return changes;
}

function written(value: string | number | boolean | null): string {
  if (value === null) return "none";
  if (typeof value === "boolean") return value ? "on" : "off";
  return `${value}`;
}

function writtenOfDaemon(
  keyword: DaemonSetting,
  value: string | number | null | readonly string[],
): string {
  if (keyword === "controlmode") return writtenMode(Number(value));
  // The order of several addresses means nothing.
  if (typeof value === "object" && value !== null) return value.toSorted().join(" ");
  return written(value);
}

/** "timeout: 20 -> 5" */
export function settingText({ keyword, from, to }: SettingChange): string {
  return `${keyword}: ${from} -> ${to}`;
}

/** 0o660 → "660" */
export function writtenMode(mode: number): string {
  return mode.toString(8).padStart(3, "0");
}

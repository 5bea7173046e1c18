// SPDX-License-Identifier: BSD-2-Clause
/** failover.conf as the agent reads it: what it does not know is the script's. */

export interface GroupSettings {
  /** The resources that move together have one name in etcd. */
  readonly group: string;
  /** At least one. */
  readonly resources: readonly string[];
  /** This node's name in etcd, and the other's. */
  readonly node: string;
  readonly peer: string;
  /** Seconds that a leader is not heard of before another is elected. */
  readonly ttlS: number;
  /** "http://10.0.0.1:2379", without a slash at the end. */
  readonly endpoints: readonly string[];
}

const TTL_DEFAULT = 10;
/** Below, a machine that is merely busy loses its lease; above, nobody would wait. */
const TTL_MIN = 5;
const TTL_MAX = 300;

/**
 * @param values what stands in the file, by name
 * @param nodes the two nodes of hast.conf, this one first; null where it has not just two
 * @returns the settings, or all that is wrong
 */
export function groupSettings(
  values: Readonly<Record<string, string | undefined>>,
  nodes: readonly [string, string] | null,
): GroupSettings | { readonly complaints: readonly string[] } {
  const complaints: string[] = [];
  const words = (name: string): string[] => (values[name] ?? "").split(/\s+/).filter(Boolean);

  const group = values["group"] ?? "";
  if (!/^[A-Za-z0-9_.-]+$/.test(group)) {
    complaints.push('name the group of resources: group="data"; letters, digits, "_", "." and "-"');
  }
  const resources = words("resources");
  if (resources.length === 0) {
    complaints.push('name the resources that move together: resources="disk1 disk2"');
  }
  const endpoints = words("etcd").map((each) => each.replace(/\/+$/, ""));
  if (endpoints.length === 0) {
    complaints.push(
      'name the members of the etcd cluster: etcd="http://10.0.0.1:2379 http://10.0.0.2:2379"',
    );
  }
  for (const endpoint of endpoints) {
    if (!/^https?:\/\/[^/\s]+$/.test(endpoint)) {
      complaints.push(`etcd: "${endpoint}" is no URL like http://10.0.0.1:2379`);
    }
  }
  const ttl = values["ttl"] ?? String(TTL_DEFAULT);
  const ttlS = /^\d{1,4}$/.test(ttl) ? Number(ttl) : 0;
  if (ttlS < TTL_MIN || ttlS > TTL_MAX) {
    complaints.push(`ttl: "${ttl}" is no number of seconds from ${TTL_MIN} to ${TTL_MAX}`);
  }
  const node = values["node"] || nodes?.[0];
  const peer = values["peer"] || nodes?.[1];
  if (node === undefined || peer === undefined) {
    complaints.push(
      'hast.conf does not tell this node and one other: name them, on both nodes alike: node="alpha" and peer="beta"',
    );
  } else if (node === peer) {
    complaints.push(`node and peer are both "${node}"`);
  }
  if (complaints.length > 0 || node === undefined || peer === undefined) return { complaints };
  return { group, resources, node, peer, ttlS, endpoints };
}

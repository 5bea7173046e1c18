// SPDX-License-Identifier: BSD-2-Clause
/** failover.conf as the agent reads it: what it does not know is the script's. */

import type { HttpFiles } from "../platform/http.ts";

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
  /** Absolute paths. */
  readonly files: HttpFiles;
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
    if (/^https?:\/\/[^/]*@/.test(endpoint)) {
      complaints.push("etcd: a URL with a user's name: use certificates, etcdcert= and etcdkey=");
    } else if (!/^https?:\/\/[^/?#,;]+$/.test(endpoint) || !URL.canParse(endpoint)) {
      complaints.push(`etcd: "${endpoint}" is no URL like http://10.0.0.1:2379`);
    }
  }
  const file = (name: string): string | null => {
    const path = values[name] || null;
    if (path !== null && !path.startsWith("/")) {
      complaints.push(`${name}: "${path}" does not begin with "/"`);
    }
    return path;
  };
  const authorities = file("etcdca");
  const [certificate, key] = [file("etcdcert"), file("etcdkey")];
  if ((certificate === null) !== (key === null)) {
    complaints.push("etcdcert and etcdkey go together: name both files, or neither");
  }
  const own = certificate === null || key === null ? null : { certificate, key };
  const open = endpoints.find((endpoint) => endpoint.startsWith("http:"));
  if (open !== undefined && (authorities !== null || own !== null)) {
    complaints.push(`etcd: ${open} is without TLS, and certificates are named: write https://`);
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
      'hast.conf does not tell this node and one other: name them; on alpha node="alpha" and peer="beta", and on ' +
        'beta node="beta" and peer="alpha"',
    );
  } else if (node === peer) {
    complaints.push(`node and peer are both "${node}"`);
  } else if (node === nodes?.[1]) {
    complaints.push(
      `node: this machine is "${nodes[0]}" in hast.conf, and "${node}" the other one, which shall not share what ` +
        `etcd says of its copy. Write here node="${nodes[0]}" and peer="${nodes[1]}", or leave both out`,
    );
  }
  if (complaints.length > 0 || node === undefined || peer === undefined) return { complaints };
  return { group, resources, node, peer, ttlS, endpoints, files: { authorities, own } };
}

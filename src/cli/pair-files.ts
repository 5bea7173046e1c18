// SPDX-License-Identifier: BSD-2-Clause
/**
 * The files of a pair of nodes, the same ones on both.
 *
 *   hast.conf              both nodes, all resources
 *   hast-failover/         beside it, where clients shall find the primary under one service address:
 *     failover               contrib/failover's, with failover.conf; called by either of
 *     keepalived-NODE.conf   keepalived's whole configuration on NODE
 *     ucarp-NODE.service     ucarp on NODE, with ucarp-start, ucarp-up, ucarp-down, ucarp.conf, ucarp.password
 *
 * Neither node takes the address back from the other when it returns, and nothing is ever forced.
 * Formats: keepalived.conf(5), ucarp(8), systemd.service(5).
 */
import { assert } from "../base/assert.ts";
import { ipBytes, parseAddress } from "../wire/address.ts";

/** Where contrib/'s files suppose that they lie. */
const DIRECTORY = "/etc/hast-failover";

export interface PairNode {
  /** As its host calls itself. */
  readonly name: string;
  /** HAST address under which the other reaches it. */
  readonly address: string;
}

export interface PairResource {
  readonly name: string;
  /** Path of the local component, per node. */
  readonly locals: readonly [string, string];
  /** Bytes, for components that are files to be made; null for what exists. */
  readonly size: number | null;
}

export interface Pair {
  /** The first is preferred as primary. */
  readonly nodes: readonly [PairNode, PairNode];
  readonly resources: readonly PairResource[];
}

/** The address that goes with the role primary. */
export interface Service {
  /** An IP address. */
  readonly address: string;
  /** Bits of the network's prefix. */
  readonly prefix: number;
  /** The network interface, on both nodes. */
  readonly interface: string;
}

export interface GeneratedFile {
  /** Absolute, or as the operator typed it. */
  readonly path: string;
  readonly text: string;
  /** 0o644, 0o755, 0o600. */
  readonly mode: number;
}

/** The text is checked by whoever reads it as a configuration; here names are taken as they are. */
export function hastConf({ nodes, resources }: Pair): string {
  const lines = [
    "# Made by hastctl config generate. The same file for both nodes; see hast.conf(5).",
  ];
  for (const { name, address } of nodes) {
    if (isIpAddress(address)) lines.push("", `on ${name} {`, `    listen ${address}`, "}");
  }
  for (const resource of resources) {
    lines.push("", `resource ${resource.name} {`);
    for (const [index, { name, address }] of nodes.entries()) {
      lines.push(`    on ${name} {`, `        local ${resource.locals[index]}`);
      lines.push(`        remote ${nodes[1 - index]!.address}`);
      // The peer lets in its "remote" alone, so the connection must come from there.
      if (isIpAddress(address)) lines.push(`        source ${withoutPort(address)}`);
      lines.push("    }");
    }
    lines.push("}");
  }
  return lines.map((line) => `${line}\n`).join("");
}

/** The text of a file of contrib/, by its path below that. */
export type Contrib = (path: string) => string;

export interface FailoverPlace {
  /** Absolute. */
  readonly directory: string;
  /** Absolute. */
  readonly configPath: string;
  /** For ucarp's messages. */
  readonly password: string;
}

/** contrib/'s scripts as they are, and what belongs to this pair beside them. */
export function failoverFiles(
  { nodes, resources }: Pair,
  service: Service,
  { directory, configPath, password }: FailoverPlace,
  contrib: Contrib,
): GeneratedFile[] {
  const file = (name: string, mode: number, text: string): GeneratedFile => ({
    path: `${directory}/${name}`,
    text,
    mode,
  });
  /** contrib's file, moved to the directory. */
  const moved = (path: string): string => contrib(path).replaceAll(DIRECTORY, directory);
  const names = resources.map((resource) => resource.name).join(" ");
  const id = routerId(service.address);
  const files = [
    file("failover", 0o755, contrib("failover/failover")),
    file("failover.conf", 0o644, failoverConf(names, configPath, service)),
  ];
  for (const [index, { name }] of nodes.entries()) {
    const text = set(moved("keepalived/keepalived.conf"), [
      ["interface eth0", `interface ${service.interface}`],
      ["virtual_router_id 10", `virtual_router_id ${id}`],
      ["priority 100", `priority ${150 - 50 * index}`],
      ["10.0.0.10/24", `${service.address}/${service.prefix}`],
    ]);
    files.push(file(`keepalived-${name}.conf`, 0o644, text));
  }
  // ucarp knows IPv4 only.
  if (service.address.includes(":")) return files;
  for (const [index, { name }] of nodes.entries()) {
    const text = set(moved("ucarp/ucarp.service"), [["start 100", `start ${100 * index}`]]);
    files.push(file(`ucarp-${name}.service`, 0o644, text));
  }
  for (const name of ["ucarp-start", "ucarp-up", "ucarp-down"]) {
    files.push(file(name, 0o755, contrib(`ucarp/${name}`)));
  }
  const ucarpConf = set(contrib("ucarp/ucarp.conf"), [
    ["interface=eth0", `interface=${service.interface}`],
    ["address=10.0.0.10", `address=${service.address}`],
    ["prefix=24", `prefix=${service.prefix}`],
    ["vhid=10", `vhid=${id}`],
  ]);
  files.push(file("ucarp.conf", 0o644, ucarpConf), file("ucarp.password", 0o600, `${password}\n`));
  return files;
}

export function isIpAddress(address: string): boolean {
  const parsed = parseAddress(address);
  return parsed.kind === "tcp" && ipBytes(parsed.host) !== null;
}

function withoutPort(address: string): string {
  const parsed = parseAddress(address);
  return parsed.kind === "tcp" ? parsed.host : address;
}

/** 1 to 255, one for each service address of a network: its last byte. */
function routerId(address: string): number {
  return ipBytes(address)!.at(-1)! || 1;
}

function failoverConf(names: string, configPath: string, service: Service): string {
  return `# Read by failover, beside this file, and by hast-failover.
resources="${names}"
config=${configPath}
# What is on them: a ZFS pool, or file systems, as "resource:directory ...".
pool=""
mounts=""
# For keepalived and ucarp: addresses on the service network that always answer, such as the router's and the
# other node's. Where none does, a node is not fit for the service.
ping=""
# For hast-failover alone, with group and etcd; see hast-failover(8).
address="${service.address}/${service.prefix}"
interface="${service.interface}"
`;
}

/** Replaces each example by what is set, once. */
function set(text: string, settings: readonly (readonly [string, string])[]): string {
  for (const [example, value] of settings) {
    assert(text.includes(example));
    text = text.replace(example, () => value);
  }
  return text;
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * The files of a pair of nodes, the same ones on both.
 *
 *   hast.conf              both nodes, all resources
 *   hast-failover/         beside it, where clients shall find the primary under one service address:
 *     hast-switch            gives this node's resources a role; called by either of
 *     keepalived-NODE.conf   keepalived's whole configuration on NODE
 *     ucarp-NODE.service     ucarp on NODE, with ucarp-start, ucarp-up, ucarp-down, ucarp.password
 *
 * Neither node takes the address back from the other when it returns, and nothing is ever forced.
 * Formats: keepalived.conf(5), ucarp(8), systemd.service(5).
 */
import { ipBytes, parseAddress } from "../wire/address.ts";

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

/** @param directory absolute; @param configPath absolute; @param password for ucarp's messages */
export function failoverFiles(
  { nodes, resources }: Pair,
  service: Service,
  {
    directory,
    configPath,
    password,
  }: Readonly<Record<"directory" | "configPath" | "password", string>>,
): GeneratedFile[] {
  const file = (name: string, mode: number, text: string): GeneratedFile => ({
    path: `${directory}/${name}`,
    text,
    mode,
  });
  const names = resources.map((resource) => resource.name).join(" ");
  const id = routerId(service.address);
  const files = [file("hast-switch", 0o755, switchScript(names, configPath))];
  for (const [index, { name }] of nodes.entries()) {
    const text = keepalivedConf(service, { directory, id, priority: 150 - 50 * index });
    files.push(file(`keepalived-${name}.conf`, 0o644, text));
  }
  // ucarp knows IPv4 only.
  if (service.address.includes(":")) return files;
  for (const [index, { name }] of nodes.entries()) {
    files.push(file(`ucarp-${name}.service`, 0o644, ucarpUnit(directory, 100 * index)));
  }
  files.push(
    file("ucarp-start", 0o755, ucarpStart(service, directory, id)),
    file("ucarp-up", 0o755, ucarpScript(service, directory, "primary")),
    file("ucarp-down", 0o755, ucarpScript(service, directory, "secondary")),
    file("ucarp.password", 0o600, `${password}\n`),
  );
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

function switchScript(names: string, configPath: string): string {
  return `#!/bin/sh
# hast-switch primary | secondary: gives this node's resources the role. Made by hastctl config generate.
#
# Beside it may lie two programs of your own: before-secondary stops what uses the disks, and
# after-primary starts it.
#
# A role that is refused is asked for again for a minute: the other node may not have let go yet.
# Nothing is forced. What then still fails needs a person; hastctl status says why.
set -u
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
role=$1
here=$(dirname "$0")
state=\${HAST_SWITCH_STATE:-/run/hast-switch}

# The last call counts: an earlier one that is still trying gives up.
echo "$role" >"$state" || exit 1
exec 9>"$state.lock"
flock 9

if [ "$role" = secondary ] && [ -x "$here/before-secondary" ]; then
  "$here/before-secondary" || logger -t hast-switch -p daemon.err "before-secondary failed"
fi
attempt=0
until message=$(hastctl role -c ${configPath} "$role" ${names} 2>&1); do
  attempt=$((attempt + 1))
  if [ "$attempt" -ge 60 ] || [ "$(cat "$state")" != "$role" ]; then
    logger -t hast-switch -p daemon.err "no role $role: $message"
    exit 1
  fi
  sleep 1
done
logger -t hast-switch -p daemon.notice "role $role: ${names}"
if [ "$role" = primary ] && [ -x "$here/after-primary" ]; then
  exec "$here/after-primary"
fi
`;
}

function keepalivedConf(
  service: Service,
  {
    directory,
    id,
    priority,
  }: { readonly directory: string; readonly id: number; readonly priority: number },
): string {
  return `# /etc/keepalived/keepalived.conf. Made by hastctl config generate.
# Both nodes begin as BACKUP with nopreempt: who returns does not take the address back.
global_defs {
    script_user root
    enable_script_security
}

vrrp_instance hast {
    state BACKUP
    nopreempt
    interface ${service.interface}
    virtual_router_id ${id}
    priority ${priority}
    advert_int 1
    virtual_ipaddress {
        ${service.address}/${service.prefix}
    }
    notify_master "${directory}/hast-switch primary"
    notify_backup "${directory}/hast-switch secondary"
    notify_fault "${directory}/hast-switch secondary"
    notify_stop "${directory}/hast-switch secondary"
}
`;
}

function ucarpUnit(directory: string, advskew: number): string {
  return `# /etc/systemd/system/ucarp.service. Made by hastctl config generate.
[Unit]
Description=The address of the HAST primary
After=network-online.target
Wants=network-online.target

[Service]
ExecStart=${directory}/ucarp-start ${advskew}
Restart=on-failure

[Install]
WantedBy=multi-user.target
`;
}

function ucarpStart(service: Service, directory: string, id: number): string {
  return `#!/bin/sh
# ucarp-start ADVSKEW: the lower one is preferred. Made by hastctl config generate.
# Without --preempt: who returns does not take the address back.
set -eu
own=$(ip -4 -o address show dev ${service.interface} scope global |
  awk '{ sub("/.*", "", $4); if ($4 != "${service.address}") { print $4; exit } }')
[ -n "$own" ] || { echo "${service.interface} has no IPv4 address yet" >&2; exit 1; }
exec ucarp --interface=${service.interface} --srcip="$own" --addr=${service.address} \\
  --vhid=${id} --advskew="$1" --passfile=${directory}/ucarp.password --shutdown \\
  --upscript=${directory}/ucarp-up --downscript=${directory}/ucarp-down
`;
}

function ucarpScript(service: Service, directory: string, role: "primary" | "secondary"): string {
  const address = `${service.address}/${service.prefix} dev ${service.interface}`;
  const act =
    role === "primary"
      ? `ip address add ${address} || true # it may be there already`
      : `ip address delete ${address} || true # it may be gone already`;
  return `#!/bin/sh
# Called by ucarp. Made by hastctl config generate.
${act}
exec ${directory}/hast-switch ${role}
`;
}

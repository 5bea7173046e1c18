// SPDX-License-Identifier: BSD-2-Clause
/**
 * hast.conf as one node sees it: everything inherited, defaulted and checked.
 *
 *   strongest first: `on` section of the resource, resource, `on` section of the file, global, default
 *
 * Inheritance is resolved at the end of the file, so a global setting counts for resources above it.
 * Source: FreeBSD sbin/hastd/parse.y, yy_config_parse(); behaviour §15.
 */
import { formatAddress, ipBytes, isTls, parseAddress } from "../wire/address.ts";
import { type Complaint, formatComplaint } from "./complaint.ts";
import type { Position } from "./lexer.ts";
import {
  type Checksum,
  type Compression,
  type Device,
  type ExportTls,
  type NodeSection,
  parseSyntax,
  type Replication,
  type ResourceSection,
  type Setting,
  type Settings,
  type SyntaxTree,
} from "./syntax.ts";

export const CONFIG_PATH_DEFAULT = "/etc/hast.conf";
const CONTROL_DEFAULT = "/var/run/hastctl";
export const TLSDIR_DEFAULT = "/etc/hast/tls";
const PIDFILE_DEFAULT = "/var/run/hastd.pid";
const LISTEN_DEFAULT: readonly string[] = ["tcp4://0.0.0.0:8457", "tcp6://[::]:8457"];
/** The user of the original's workers. */
export const USER_DEFAULT = "hast";
const CONTROLMODE_DEFAULT = 0o600;
const CONTROLMODE_OF_GROUP = 0o660;
const TIMEOUT_DEFAULT = 20; // seconds
const EXECTIMEOUT_DEFAULT = 60; // seconds
/** IANA's port for NBD, for a TCP `export` that names none. */
const NBD_PORT = 10809;
/** Bytes of a UNIX socket's path that Linux accepts. */
const SOCKET_PATH_MAX = 107;

/** How sections recognise the node they are for. */
export interface NodeIdentity {
  /** Full host name, then its first label; or the one name given with -n. Case counts. */
  readonly names: readonly string[];
  /** The machine id, 32 hexadecimal digits with or without dashes; null where there is none. */
  readonly uuid: string | null;
  /** gethostid(), unsigned; null where it shall not count. Read only where a section asks for it. */
  readonly hostid: number | null;
}

export interface ResourceConfig {
  readonly name: string;
  /** The name users see: the NBD export's, and /dev/hast/<provname>. */
  readonly provname: string;
  /** Absolute path of the local component. */
  readonly local: string;
  /** HAST address of the peer as written, or "none". */
  readonly remote: string;
  /** Address to connect from as written, or null for the kernel's choice. */
  readonly source: string | null;
  readonly replication: Replication;
  readonly checksum: Checksum;
  readonly compression: Compression;
  /** Seconds, > 0. */
  readonly timeout: number;
  /** Absolute path of the program told of events, or null. */
  readonly exec: string | null;
  /** Absolute path of the program asked before a promotion and before a resync overwrites this node, or null. */
  readonly gate: string | null;
  /** Seconds, > 0, for either to end. */
  readonly exectimeout: number;
  readonly metaflush: boolean;
  /** Where the NBD server listens: "unix:///path" or "tcp://host:port". Unlike any other resource's. */
  readonly export: string;
  readonly exporttls: ExportTls;
  readonly device: Device;
  /** Somebody beside hastd decides who is primary, and how long. */
  readonly arbiter: boolean;
  /** "sha256:" and the fingerprint of the peer's certificate; null = an authority vouches for it. */
  readonly tlspeer: string | null;
}

export interface Config {
  readonly file: string;
  /** UNIX address of the control socket as written: "/path", "unix:///path" or "uds:///path". */
  readonly control: string;
  /** Name of the user who owns the control socket, besides root; null for the daemon's. */
  readonly controlowner: string | null;
  /** Name of the group whose members may ask for status, or null. */
  readonly controlgroup: string | null;
  /** Permission bits of the control socket. */
  readonly controlmode: number;
  readonly pidfile: string;
  /** Name of the user that workers run as once they have opened what they need; "root" to stay root. */
  readonly user: string;
  /** Addresses as written, each once. */
  readonly listen: readonly string[];
  /** Nobody asked for these addresses: a missing address family is no error. */
  readonly listenByDefault: boolean;
  /** Absolute path of the directory with this node's key and the certificates. */
  readonly tlsdir: string;
  readonly resources: readonly ResourceConfig[];
}

/** A parsed file, for any node. */
export interface Parsed {
  readonly file: string;
  readonly tree: SyntaxTree;
  /** In the order of the text. */
  readonly complaints: readonly Complaint[];
}

export type ConfigResult =
  | { readonly kind: "config"; readonly config: Config }
  | { readonly kind: "complaints"; readonly complaints: readonly Complaint[] };

/**
 * Parses and checks a hast.conf for whatever node: any text gives a result.
 *
 * @param file its name, for complaints
 */
export function parseConfig(text: string, file: string): Parsed {
  const { tree: whole, complaints } = parseSyntax(text, file);
  const report = new Report(file, complaints);
  const tree = withoutDuplicates(whole, report);
  const nodes = new Set(tree.resources.flatMap((resource) => resource.nodes.map((on) => on.node)));
  for (const node of nodes)
    findCollisions(
      viewOf(tree, (name) => name === node),
      report,
    );
  return { file, tree, complaints: report.inOrder() };
}

/** What a parsed file means for one node, or all that is wrong with it. */
export function resolveConfig(parsed: Parsed, identity: NodeIdentity): ConfigResult {
  const { tree, file } = parsed;
  const report = new Report(file, parsed.complaints);
  const isHere = (name: string): boolean => isNode(name, identity);
  for (const resource of tree.resources) {
    if (resource.nodes.some((section) => isHere(section.node))) continue;
    const message = `resource ${resource.name} has no section for this node; add "on NODE { … }", where NODE is ${acceptedNames(identity)}, or say with -n which node this is`;
    report.add(resource.at, message);
  }
  const views = viewOf(tree, isHere);
  const resources = views.map((view) => resolveResource(view, report));
  findCollisions(views, report);
  const complaints = report.inOrder();
  if (complaints.length > 0) return { kind: "complaints", complaints };

  const layers = globalLayers(tree, isHere);
  const listen = layers.toReversed().flatMap((layer) => layer.listen.map(({ value }) => value));
  const controlgroup = strongest(layers, "controlgroup")?.value ?? null;
  const config: Config = {
    file,
    control: strongest(layers, "control")?.value ?? CONTROL_DEFAULT,
    controlowner: strongest(layers, "controlowner")?.value ?? null,
    controlgroup,
    controlmode:
      strongest(layers, "controlmode")?.value ??
      (controlgroup === null ? CONTROLMODE_DEFAULT : CONTROLMODE_OF_GROUP),
    user: strongest(layers, "user")?.value ?? USER_DEFAULT,
    pidfile: strongest(layers, "pidfile")?.value ?? PIDFILE_DEFAULT,
    tlsdir: strongest(layers, "tlsdir")?.value ?? TLSDIR_DEFAULT,
    listen: Object.freeze(listen.length > 0 ? [...new Set(listen)] : [...LISTEN_DEFAULT]),
    listenByDefault: listen.length === 0,
    resources: Object.freeze(resources.filter((resource) => resource !== null)),
  };
  return { kind: "config", config: Object.freeze(config) };
}

/** parseConfig() and resolveConfig() in one. */
export function readConfig(text: string, file: string, identity: NodeIdentity): ConfigResult {
  return resolveConfig(parseConfig(text, file), identity);
}

/** A resource as one node sees it: all that has a say, strongest first. */
interface View {
  readonly resource: ResourceSection;
  /** The resource's first section for the node. */
  readonly section: NodeSection;
  readonly layers: readonly Settings[];
}

/** The resources with a section for the node, in the order of the file. */
function viewOf(tree: SyntaxTree, isHere: (name: string) => boolean): View[] {
  const shared = globalLayers(tree, isHere);
  const views: View[] = [];
  for (const resource of tree.resources) {
    const sections = resource.nodes.filter((section) => isHere(section.node));
    const section = sections[0];
    if (section === undefined) continue;
    const own = sections.map((each) => each.settings).toReversed();
    views.push({ resource, section, layers: [...own, resource.settings, ...shared] });
  }
  return views;
}

function globalLayers(tree: SyntaxTree, isHere: (name: string) => boolean): readonly Settings[] {
  const sections = tree.nodes.filter((section) => isHere(section.node));
  return [...sections.map((each) => each.settings).toReversed(), tree.settings];
}

function strongest<Key extends Exclude<keyof Settings, "listen" | "unsound">>(
  layers: readonly Settings[],
  key: Key,
): Settings[Key] | undefined {
  return layers.find((layer) => layer[key] !== undefined)?.[key];
}

/** @returns null where something required is missing, which has then been reported */
function resolveResource(view: View, report: Report): ResourceConfig | null {
  const { resource, section, layers } = view;
  const local = strongest(layers, "local");
  const remote = strongest(layers, "remote");
  if (local === undefined && !layers.some((layer) => layer.unsound.has("local"))) {
    const message = `resource ${resource.name} has no local component on this node; add "local /PATH" here or in the resource`;
    report.add(section.at, message);
  }
  if (remote === undefined && !layers.some((layer) => layer.unsound.has("remote"))) {
    const message = `resource ${resource.name} has no remote address on this node; add "remote ADDRESS", or "remote none" to run without a peer`;
    report.add(section.at, message);
  }
  const exported = resolveExport(view, report);
  if (local === undefined || remote === undefined || exported === null) return null;
  return Object.freeze({
    name: resource.name,
    provname: provname(view).value,
    local: local.value,
    remote: remote.value,
    source: strongest(layers, "source")?.value ?? null,
    replication: strongest(layers, "replication")?.value ?? "memsync",
    checksum: strongest(layers, "checksum")?.value ?? "none",
    compression: strongest(layers, "compression")?.value ?? "hole",
    timeout: strongest(layers, "timeout")?.value ?? TIMEOUT_DEFAULT,
    exec: strongest(layers, "exec")?.value ?? null,
    gate: strongest(layers, "gate")?.value ?? null,
    exectimeout: strongest(layers, "exectimeout")?.value ?? EXECTIMEOUT_DEFAULT,
    metaflush: strongest(layers, "metaflush")?.value ?? true,
    export: exported.value,
    exporttls: strongest(layers, "exporttls")?.value ?? "auto",
    device: strongest(layers, "device")?.value ?? "auto",
    arbiter: strongest(layers, "arbiter")?.value ?? false,
    tlspeer: pinned(strongest(layers, "tlspeer")?.value),
  });
}

function pinned(tlspeer: string | undefined): string | null {
  return tlspeer === undefined || tlspeer === "none" ? null : tlspeer;
}

/** Whether NBD clients of this resource must use TLS. */
export function exportNeedsTls({ export: address, exporttls }: ResourceConfig): boolean {
  const parsed = parseAddress(address);
  if (parsed.kind === "unix" || exporttls === "off") return false;
  return exporttls === "required" || !isLoopback(parsed.host);
}

/** A name may lead anywhere, "localhost" excepted. */
function isLoopback(host: string): boolean {
  const ip = ipBytes(host);
  if (ip === null) return host.toLowerCase() === "localhost";
  return ip.length === 4 ? ip[0] === 127 : ip.every((byte, at) => byte === (at === 15 ? 1 : 0));
}

/** Whether a node needs a key and a certificate, and what for: the first resource that does, or null. */
export function whoNeedsTls(config: Config): string | null {
  const found = config.resources.find((each) => isTls(each.remote) || exportNeedsTls(each));
  return found?.name ?? null;
}

function provname({ resource, layers }: View): Setting<string> {
  return strongest(layers, "name") ?? { value: resource.name, at: resource.at };
}

/** @returns null where no socket could have the default path, which has then been reported */
function resolveExport(view: View, report: Report): Setting<string> | null {
  const written = strongest(view.layers, "export");
  if (written !== undefined) {
    const address = parseAddress(written.value);
    if (address.kind === "unix" || address.port !== null) return written;
    return { value: formatAddress({ ...address, port: NBD_PORT }), at: written.at };
  }
  const { value, at } = provname(view);
  const path = `/run/hast/${value}.sock`;
  if (path.length <= SOCKET_PATH_MAX) return { value: `unix://${path}`, at };
  const message = `the name of resource ${view.resource.name} is too long for the default export ${path} (a socket's path has at most ${SOCKET_PATH_MAX} characters); add "export unix:///SHORTER/PATH"`;
  report.add(at, message);
  return null;
}

/** Two resources that would use the same thing on one node. */
function findCollisions(views: readonly View[], report: Report): void {
  const names = new Map<string, View>();
  const locals = new Map<string, View>();
  const exports = new Map<string, View>();
  const claim = (owners: Map<string, View>, key: string, view: View): string | null => {
    const owner = owners.get(key);
    if (owner === undefined) owners.set(key, view);
    return owner === undefined
      ? null
      : `resource ${owner.resource.name} in line ${owner.resource.at.line}`;
  };

  for (const view of views) {
    const { resource, layers } = view;
    const name = provname(view);
    if (!isPlainPath(name.value)) {
      report.add(
        name.at,
        `"${name.value}" cannot be a file name under /dev/hast; choose another name`,
      );
      continue;
    }
    const sameName = claim(names, name.value, view);
    if (sameName !== null) {
      const message = `resource ${resource.name} has the name "${name.value}", as ${sameName} has; give it another "name"`;
      report.add(name.at, message);
      continue; // its default export is the same too
    }
    const local = strongest(layers, "local");
    const sameLocal = local && claim(locals, plainPath(local.value), view);
    if (local && sameLocal) {
      const message = `resource ${resource.name} has the local component ${local.value}, as ${sameLocal} has; each needs its own`;
      report.add(local.at, message);
    }
    const exported = resolveExport(view, report);
    const sameExport = exported && claim(exports, addressKey(exported.value), view);
    if (exported && sameExport) {
      const message = `resource ${resource.name} has the export ${exported.value}, as ${sameExport} has; each needs its own`;
      report.add(exported.at, message);
    }
  }
}

/** Without "." and "..", empty parts, or a slash at either end: it cannot leave its directory. */
function isPlainPath(name: string): boolean {
  return name.split("/").every((part) => part !== "" && part !== "." && part !== "..");
}

/** One spelling for paths that differ only in slashes and dots. Links are not followed. */
function plainPath(path: string): string {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return `/${parts.join("/")}`;
}

function addressKey(text: string): string {
  const address = parseAddress(text);
  return address.kind === "unix"
    ? plainPath(address.path)
    : formatAddress({ ...address, family: null });
}

function withoutDuplicates(tree: SyntaxTree, report: Report): SyntaxTree {
  const first = new Map<string, ResourceSection>();
  for (const resource of tree.resources) {
    const earlier = first.get(resource.name);
    if (earlier === undefined) {
      first.set(resource.name, resource);
    } else {
      const message = `resource ${resource.name} is defined a second time, first in line ${earlier.at.line}; rename one, or merge them`;
      report.add(resource.at, message);
    }
  }
  return { ...tree, resources: [...first.values()] };
}

/** Whether a section "on NAME" is for the node. */
export function isNode(name: string, identity: NodeIdentity): boolean {
  if (identity.names.includes(name)) return true;
  if (identity.uuid !== null && bareUuid(name) === bareUuid(identity.uuid)) return true;
  return /^hostid[0-9]+$/.test(name) && name === `hostid${identity.hostid}`;
}

function bareUuid(uuid: string): string {
  return uuid.replaceAll("-", "").toLowerCase();
}

function acceptedNames({ names, uuid, hostid }: NodeIdentity): string {
  const accepted = [...new Set(names)];
  if (uuid !== null) accepted.push(uuid);
  if (hostid !== null) accepted.push(`hostid${hostid}`);
  return accepted.join(", ");
}

/** Complaints, each once, however many nodes it was found for. */
class Report {
  readonly #file: string;
  readonly #complaints: Complaint[];
  readonly #known: Set<string>;

  constructor(file: string, found: readonly Complaint[]) {
    this.#file = file;
    this.#complaints = [...found];
    this.#known = new Set(found.map(formatComplaint));
  }

  add(at: Position, message: string): void {
    const complaint = { file: this.#file, line: at.line, column: at.column, message };
    const key = formatComplaint(complaint);
    if (this.#known.has(key)) return;
    this.#known.add(key);
    this.#complaints.push(complaint);
  }

  inOrder(): readonly Complaint[] {
    return this.#complaints.toSorted((a, b) => a.line - b.line || a.column - b.column);
  }
}

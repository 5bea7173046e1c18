// SPDX-License-Identifier: BSD-2-Clause
/**
 * Addresses as hast.conf and the control socket write them.
 *
 *   [tcp:// | tcp4:// | tcp6:// | tls://] host [:port]      host: name, 10.0.0.1, fd00::1, [fd00::1]
 *   uds:///path | unix:///path | /path
 *
 * Prefixes in any case. Two or more colons are an IPv6 address; its port needs brackets around it.
 * tls:// is ours: TLS 1.3 over TCP.
 * Source: FreeBSD sbin/hastd/proto_tcp.c, tcp_addr(), proto_uds.c, uds_addr(); wire protocol §5, §12.
 */

import { WireError } from "./error.ts";

export const DEFAULT_PORT = 8457;

/** Bytes of a unix socket's path, as Linux has room for, the NUL not counted. */
export const UNIX_PATH_MAX = 107;

export type Address =
  | {
      readonly kind: "tcp" | "tls";
      /** From the prefix, or because the host is an IP address; null for a name under another prefix. */
      readonly family: 4 | 6 | null;
      readonly host: string; // name or IP address, without brackets
      readonly port: number | null; // 1…65535; null = not given: DEFAULT_PORT, or for `source` any
    }
  | { readonly kind: "unix"; readonly path: string }; // absolute

export type NetworkAddress = Exclude<Address, { readonly kind: "unix" }>;

/** @throws WireError "address-invalid", with the reason */
export function parseAddress(text: string): Address {
  const prefix = /^([a-z][a-z0-9+.-]*):\/\//i.exec(text);
  const scheme = prefix === null ? null : prefix[1]!.toLowerCase();
  const rest = prefix === null ? text : text.slice(prefix[0].length);
  switch (scheme) {
    case null:
      return text.startsWith("/") ? parsePath(text, text) : parseTcp(text, rest, null);
    case "tcp":
      return parseTcp(text, rest, null);
    case "tcp4":
      return parseTcp(text, rest, 4);
    case "tcp6":
      return parseTcp(text, rest, 6);
    case "tls":
      return { ...parseTcp(text, rest, null), kind: "tls" };
    case "uds":
    case "unix":
      return parsePath(text, rest);
    default:
      throw invalid(
        text,
        `unknown scheme ${scheme}://; tcp, tcp4, tcp6, tls, unix and uds are known`,
      );
  }
}

function parsePath(text: string, path: string): Address {
  if (!path.startsWith("/")) throw invalid(text, "the path must be absolute");
  if (path.includes("\0")) throw invalid(text, "the path contains NUL");
  if (path.endsWith("/")) throw invalid(text, "the path names a directory");
  const size = new TextEncoder().encode(path).length;
  if (size > UNIX_PATH_MAX) {
    throw invalid(text, `the path has ${size} bytes; a socket's has at most ${UNIX_PATH_MAX}`);
  }
  return { kind: "unix", path };
}

function parseTcp(text: string, rest: string, family: 4 | 6 | null): NetworkAddress {
  const { host, port } = splitPort(text, rest);
  if (host === "") throw invalid(text, "the host is missing");
  const ip = ipv4Bytes(host) !== null ? 4 : ipv6Bytes(host) !== null ? 6 : null;
  if (ip === null) {
    if (host.includes(":")) throw invalid(text, `${host} is no IPv6 address`);
    if (/^[0-9.]+$/.test(host)) throw invalid(text, `${host} is no IPv4 address`);
    if (!isHostName(host)) throw invalid(text, `${host} is no host name`);
  } else if (family !== null && family !== ip) {
    throw invalid(text, `${host} is an IPv${ip} address, but tcp${family}:// was given`);
  }
  return { kind: "tcp", family: ip ?? family, host, port };
}

function splitPort(text: string, rest: string): { host: string; port: number | null } {
  if (rest.startsWith("[")) {
    const bracketed = /^\[([^\]]*)\]:(.*)$/.exec(rest);
    if (bracketed === null) throw invalid(text, "brackets are for [address]:port");
    if (!bracketed[1]!.includes(":")) throw invalid(text, "brackets are for IPv6 addresses");
    return { host: bracketed[1]!, port: parsePort(text, bracketed[2]!) };
  }
  const colon = rest.indexOf(":");
  if (colon === -1 || colon !== rest.lastIndexOf(":")) return { host: rest, port: null };
  return { host: rest.slice(0, colon), port: parsePort(text, rest.slice(colon + 1)) };
}

function parsePort(text: string, digits: string): number {
  const port = /^[0-9]{1,6}$/.test(digits) ? Number(digits) : 0;
  if (port < 1 || port > 65535) {
    throw invalid(text, `port ${JSON.stringify(digits)} is not a number from 1 to 65535`);
  }
  return port;
}

function isHostName(host: string): boolean {
  if (host.length > 253) return false;
  return host.split(".").every((label) => /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/i.test(label));
}

/** The text that parseAddress() reads back to an equal value. */
export function formatAddress(address: Address): string {
  if (address.kind === "unix") return `unix://${address.path}`;
  const scheme = address.kind === "tls" ? "tls" : `tcp${address.family ?? ""}`;
  const prefix = `${scheme}://`;
  if (address.port === null) return prefix + address.host;
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return `${prefix}${host}:${address.port}`;
}

function invalid(text: string, reason: string): WireError {
  return new WireError("address-invalid", `address ${JSON.stringify(text)}: ${reason}`);
}

/**
 * An IP address in network order: 4 bytes, or 16. IPv4 in IPv6's clothes (::ffff:10.0.0.1) gives 4, and a
 * scope (fe80::1%eth0) is ignored.
 *
 * @returns null for what is no IP address
 */
export function ipBytes(text: string): Uint8Array | null {
  const four = ipv4Bytes(text);
  if (four !== null) return four;
  const six = ipv6Bytes(text);
  if (six === null) return null;
  const mapped =
    six.subarray(0, 10).every((byte) => byte === 0) && six[10] === 255 && six[11] === 255;
  return mapped ? six.slice(12) : six;
}

/** 10.0.0.1 for ::ffff:10.0.0.1, which is the same host, reached the same way; else `host` itself. */
export function plainHost(host: string): string {
  const bytes = host.includes(":") ? ipBytes(host) : null;
  return bytes?.length === 4 ? bytes.join(".") : host;
}

/** Whether a `remote` asks for TLS. */
export function isTls(remote: string): boolean {
  return remote !== "none" && parseAddress(remote).kind === "tls";
}

/** The host of a `remote`; null for `none`, and for what is no network address. */
export function remoteHost(remote: string): string | null {
  if (remote === "none") return null;
  const address = parseAddress(remote);
  return address.kind === "unix" ? null : address.host;
}

/** Whether two texts are IP addresses of one host: the access check of wire protocol §5. */
export function sameHost(a: string, b: string): boolean {
  const left = ipBytes(a);
  const right = ipBytes(b);
  if (left === null || right === null || left.length !== right.length) return false;
  return left.every((byte, index) => byte === right[index]);
}

function ipv4Bytes(text: string): Uint8Array | null {
  const parts = text.split(".");
  if (parts.length !== 4) return null;
  const bytes = new Uint8Array(4);
  for (const [index, part] of parts.entries()) {
    if (!/^(0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return null;
    bytes[index] = Number(part);
  }
  return bytes;
}

function ipv6Bytes(text: string): Uint8Array | null {
  const scope = /^([^%]*)%[^%\s\]]+$/.exec(text);
  const address = scope === null ? text : scope[1]!;
  const halves = address.split("::");
  if (halves.length > 2) return null;
  const head = groupBytes(halves[0]!, halves.length === 1);
  const tail = halves.length === 1 ? [] : groupBytes(halves[1]!, true);
  if (head === null || tail === null) return null;
  const missing = 16 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 2) return null;
  const bytes = new Uint8Array(16);
  bytes.set(head);
  bytes.set(tail, 16 - tail.length);
  return bytes;
}

/** The bytes of "1:2:3", or, where it ends the address, of "1:2:10.0.0.1"; none for "". */
function groupBytes(text: string, endsAddress: boolean): number[] | null {
  if (text === "") return [];
  const bytes: number[] = [];
  const groups = text.split(":");
  for (const [index, group] of groups.entries()) {
    if (group.includes(".")) {
      const four = endsAddress && index === groups.length - 1 ? ipv4Bytes(group) : null;
      if (four === null) return null;
      bytes.push(...four);
    } else {
      if (!/^[0-9a-f]{1,4}$/i.test(group)) return null;
      const value = Number.parseInt(group, 16);
      bytes.push(value >> 8, value & 0xff);
    }
  }
  return bytes.length > 16 ? null : bytes;
}

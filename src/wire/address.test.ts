// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { isIP } from "node:net";
import { test } from "node:test";
import fc from "fast-check";
import {
  type Address,
  formatAddress,
  ipBytes,
  isTls,
  parseAddress,
  plainHost,
  remoteHost,
  sameHost,
} from "./address.ts";
import { WireError } from "./error.ts";

const tcp = (family: 4 | 6 | null, host: string, port: number | null = null): Address => ({
  kind: "tcp",
  family,
  host,
  port,
});

const VALID: readonly [text: string, address: Address, formatted?: string][] = [
  ["10.0.0.1", tcp(4, "10.0.0.1"), "tcp4://10.0.0.1"],
  ["10.0.0.1:9999", tcp(4, "10.0.0.1", 9999), "tcp4://10.0.0.1:9999"],
  ["tcp://10.0.0.1", tcp(4, "10.0.0.1"), "tcp4://10.0.0.1"],
  ["tcp4://0.0.0.0:8457", tcp(4, "0.0.0.0", 8457)],
  ["TCP4://10.0.0.1", tcp(4, "10.0.0.1"), "tcp4://10.0.0.1"],
  ["hast2", tcp(null, "hast2"), "tcp://hast2"],
  ["tcp://hast2.example.org:1", tcp(null, "hast2.example.org", 1)],
  ["tcp6://hast2:65535", tcp(6, "hast2", 65535)],
  ["node_a-1", tcp(null, "node_a-1"), "tcp://node_a-1"],
  ["tcp6://[::]:8457", tcp(6, "::", 8457)],
  ["fd00::1", tcp(6, "fd00::1"), "tcp6://fd00::1"],
  ["[fd00::1]:8457", tcp(6, "fd00::1", 8457), "tcp6://[fd00::1]:8457"],
  ["tcp://fe80::1%eth0", tcp(6, "fe80::1%eth0"), "tcp6://fe80::1%eth0"],
  ["tcp6://::ffff:10.0.0.1", tcp(6, "::ffff:10.0.0.1")],
  ["tls://hast2", { kind: "tls", family: null, host: "hast2", port: null }],
  ["TLS://10.0.0.1:1", { kind: "tls", family: 4, host: "10.0.0.1", port: 1 }, "tls://10.0.0.1:1"],
  ["tls://[fd00::1]:8457", { kind: "tls", family: 6, host: "fd00::1", port: 8457 }],
  ["1:2:3:4:5:6:7:8", tcp(6, "1:2:3:4:5:6:7:8"), "tcp6://1:2:3:4:5:6:7:8"],
  ["/var/run/hastctl", { kind: "unix", path: "/var/run/hastctl" }, "unix:///var/run/hastctl"],
  ["uds:///run/hast.sock", { kind: "unix", path: "/run/hast.sock" }, "unix:///run/hast.sock"],
  ["UNIX:///run/a b", { kind: "unix", path: "/run/a b" }, "unix:///run/a b"],
];

for (const [text, address, formatted] of VALID) {
  test(`${text} is an address`, () => {
    expect.deepEqual(parseAddress(text), address);
    expect.equal(formatAddress(address), formatted ?? text);
    expect.deepEqual(parseAddress(formatAddress(address)), address);
  });
}

const INVALID: readonly [text: string, reason: RegExp][] = [
  ["", /host is missing/],
  ["tcp://", /host is missing/],
  [":8457", /host is missing/],
  ["10.0.0.1:", /port "" is not a number/],
  ["10.0.0.1:0", /port "0" is not/],
  ["10.0.0.1:65536", /port "65536" is not/],
  ["host:84x", /port "84x" is not/],
  ["host:+1", /port/],
  ["[fd00::1]", /brackets are for \[address\]:port/],
  ["[fd00::1", /brackets/],
  ["[fd00::1]8457", /brackets/],
  ["[10.0.0.1]:8457", /brackets are for IPv6/],
  ["10.0.0.256", /no IPv4 address/],
  ["10.0.1", /no IPv4 address/],
  ["010.0.0.1", /no IPv4 address/],
  ["fd00::1::2", /no IPv6 address/],
  ["1:2:3:4:5:6:7", /no IPv6 address/],
  ["1:2:3:4:5:6:7:8:9", /no IPv6 address/],
  ["fd00::g", /no IPv6 address/],
  ["tcp4://fd00::1", /is an IPv6 address, but tcp4/],
  ["tcp6://10.0.0.1", /is an IPv4 address, but tcp6/],
  ["host name", /no host name/],
  ["-host", /no host name/],
  ["host..name", /no host name/],
  ["a".repeat(64), /no host name/],
  ["udp://10.0.0.1", /unknown scheme udp/],
  ["unix://relative", /must be absolute/],
  ["uds://", /must be absolute/],
  ["/run/hast/", /names a directory/],
  ["/run/a\0b", /contains NUL/],
  [`/${"x".repeat(107)}`, /has 108 bytes/],
];

for (const [text, reason] of INVALID) {
  test(`${JSON.stringify(text).slice(0, 40)} is no address`, () => {
    expect.throws(() => parseAddress(text), {
      name: "WireError",
      code: "address-invalid",
      message: reason,
    });
  });
}

test("arbitrary text is an address that can be written and read again, or a WireError", () => {
  const piece = fc.constantFrom(
    "tcp",
    "://",
    ":",
    "[",
    "]",
    "4",
    "/",
    "a.b",
    "::",
    "10.0.0.1",
    "%e",
  );
  const text = fc.oneof(
    fc.string(),
    fc.array(piece).map((pieces) => pieces.join("")),
  );
  fc.assert(
    fc.property(text, (each) => {
      let address: Address;
      try {
        address = parseAddress(each);
      } catch (error) {
        expect.ok(error instanceof WireError, String(error));
        return;
      }
      expect.deepEqual(parseAddress(formatAddress(address)), address);
    }),
    { numRuns: 2000 },
  );
});

test("ipBytes() knows an IP address when it sees one", () => {
  const group = fc.stringMatching(/^[0-9a-f]{0,5}$/);
  const six = fc.array(fc.oneof(group, fc.ipV4()), { maxLength: 9 }).map((each) => each.join(":"));
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6(), six, fc.string()), (text) => {
      if (text.includes("%")) return;
      expect.equal(ipBytes(text) !== null, isIP(text) !== 0, text);
    }),
    { numRuns: 3000 },
  );
});

test("plainHost() takes IPv6's clothes off an IPv4 address, and leaves the rest alone", () => {
  expect.equal(plainHost("::ffff:10.0.0.1"), "10.0.0.1");
  expect.equal(plainHost("::FFFF:a00:1"), "10.0.0.1");
  for (const host of ["10.0.0.1", "::1", "fd00::1", "::10.0.0.1", "fe80::1%eth0", "hast2"]) {
    expect.equal(plainHost(host), host);
  }
});

test("sameHost() sees through spelling, scopes and mapped addresses", () => {
  expect.ok(sameHost("10.0.0.1", "10.0.0.1"));
  expect.ok(sameHost("::ffff:10.0.0.1", "10.0.0.1"));
  expect.ok(sameHost("10.0.0.1", "::FFFF:a00:1"));
  expect.ok(sameHost("fe80::1%eth0", "fe80:0:0::1%eth1"));
  expect.ok(sameHost("FD00::A", "fd00:0:0:0:0:0:0:a"));
  expect.ok(!sameHost("10.0.0.1", "10.0.0.2"));
  expect.ok(!sameHost("10.0.0.1", "::a00:1"));
  expect.ok(!sameHost("fd00::1", "fd00::2"));
  expect.ok(!sameHost("hast1", "hast1"));
  expect.ok(!sameHost("none", "none"));
});

test("isTls() and remoteHost() read a remote", () => {
  expect.deepEqual(
    ["none", "10.0.0.1", "tcp://hast2:1", "tls://hast2"].map((text) => [
      isTls(text),
      remoteHost(text),
    ]),
    [
      [false, null],
      [false, "10.0.0.1"],
      [false, "hast2"],
      [true, "hast2"],
    ],
  );
});

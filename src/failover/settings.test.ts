// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { groupSettings } from "./settings.ts";

const GOOD = { group: "data", resources: "disk1 disk2", etcd: "http://a:2379 https://b:2379/" };

test("groupSettings() takes the nodes from hast.conf", () => {
  expect.deepEqual(groupSettings(GOOD, ["alpha", "beta"]), {
    group: "data",
    resources: ["disk1", "disk2"],
    node: "alpha",
    peer: "beta",
    ttlS: 10,
    endpoints: ["http://a:2379", "https://b:2379"],
    files: { authorities: null, own: null },
  });
});

test("what failover.conf says of the nodes and of the TTL counts", () => {
  const settings = groupSettings({ ...GOOD, node: "one", peer: "two", ttl: "20" }, null);
  expect.ok("node" in settings);
  expect.deepEqual([settings.node, settings.peer, settings.ttlS], ["one", "two", 20]);
});

test("groupSettings() says all that is wrong, and what to write", () => {
  const complaints = (values: Record<string, string>): string => {
    const result = groupSettings(values, ["alpha", "beta"]);
    return "complaints" in result ? result.complaints.join("\n") : "";
  };
  expect.equal(complaints({}).split("\n").length, 3);
  expect.match(complaints({ ...GOOD, group: "a b" }), /group="data"/);
  expect.match(complaints({ ...GOOD, etcd: "10.0.0.1:2379" }), /"10.0.0.1:2379" is no URL/);
  expect.match(complaints({ ...GOOD, etcd: "http://a:2379, http://b:2379" }), /"http:\/\/a:2379,"/);
  expect.match(complaints({ ...GOOD, etcd: "http://a:99999" }), /"http:\/\/a:99999" is no URL/);
  const secret = complaints({ ...GOOD, etcd: "https://root:secret@a:2379" });
  expect.match(secret, /use certificates, etcdcert=/);
  expect.doesNotMatch(secret, /secret/);
  expect.match(complaints({ ...GOOD, ttl: "2" }), /from 5 to 300/);
  expect.match(complaints({ ...GOOD, peer: "alpha" }), /both "alpha"/);
  expect.match(
    complaints({ ...GOOD, node: "beta", peer: "alpha" }),
    /^node: this machine is "alpha" in hast.conf.* Write here node="alpha" and peer="beta"/,
  );
  const nobody = groupSettings(GOOD, null);
  expect.match("complaints" in nobody ? nobody.complaints.join() : "", /node="alpha"/);
});

test("groupSettings() takes files for https, whole paths and both of a pair, and for nothing else", () => {
  const etcd = "https://a:2379";
  const [etcdca, etcdcert, etcdkey] = ["/etc/ca.pem", "/etc/own.pem", "/etc/own.key"];
  const of = (values: Record<string, string>) =>
    groupSettings({ ...GOOD, etcd, ...values }, ["alpha", "beta"]);
  const all = of({ etcdca, etcdcert, etcdkey });
  expect.deepEqual("files" in all && all.files, {
    authorities: etcdca,
    own: { certificate: etcdcert, key: etcdkey },
  });
  for (const [values, complaint] of [
    [{ etcdcert }, /^etcdcert and etcdkey go together/],
    [{ etcdkey }, /^etcdcert and etcdkey go together/],
    [{ etcdca: "ca.pem" }, /^etcdca: "ca.pem" does not begin with "\/"/],
    [{ etcdca, etcd: "https://a:2379 http://b:2379" }, /^etcd: http:\/\/b:2379 is without TLS/],
  ] as const) {
    const result = of(values);
    expect.match("complaints" in result ? result.complaints.join("\n") : "", complaint);
  }
});

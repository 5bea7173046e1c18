// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { PretendClock } from "../../test/pretend/clock.ts";
import { type Fate, PretendEtcd } from "../../test/pretend/etcd.ts";
import { Events } from "../../test/pretend/events.ts";
import type { Http } from "../platform/http.ts";
import { Etcd, EtcdError } from "./etcd.ts";

const A = "http://a:2379";
const B = "http://b:2379";

function world(fate: (path: string, endpoint: string) => Fate = () => "served") {
  const clock = new PretendClock(new Events());
  const store = new PretendEtcd(clock);
  const asked: string[] = [];
  const http = store.reachedBy((path, endpoint) => {
    asked.push(`${endpoint.slice(7, 8)} ${path}`);
    return fate(path, endpoint);
  });
  const etcd = new Etcd({ http, clock, endpoints: [A, B], timeoutMs: 1_000 });
  /** What a promise becomes within a minute of pretended time. */
  const outcome = async <T>(promise: Promise<T>): Promise<T> => {
    promise.catch(() => undefined);
    await clock.pass(60_000);
    return promise;
  };
  return { clock, store, etcd, asked, outcome };
}

test("txn() puts everything where all comparisons hold, else nothing", async () => {
  const { etcd, store, outcome } = world();
  const absent = { key: "/hast/g/é", target: "create", revision: 0 } as const;
  const revision = await outcome(
    etcd.txn(
      [absent],
      [
        { key: "/hast/g/é", value: "ü" },
        { key: "/hast/g/b", value: "2" },
      ],
    ),
  );
  expect.equal(revision, 2);
  expect.equal(await outcome(etcd.txn([absent], [{ key: "/hast/g/b", value: "3" }])), null);
  const range = await outcome(etcd.range("/hast/g/"));
  expect.deepEqual(range, {
    revision: 2,
    entries: [
      { key: "/hast/g/b", value: "2", createRevision: 2, modRevision: 2, lease: "0" },
      { key: "/hast/g/é", value: "ü", createRevision: 2, modRevision: 2, lease: "0" },
    ],
  });
  store.put("/hast/g0", "not below it");
  store.put("/hast/gg/x", "nor this");
  expect.equal((await outcome(etcd.range("/hast/g/"))).entries.length, 2);
});

test("an endpoint that is of no use is left for the next, and that one is kept", async () => {
  const bad: Fate = "refused";
  const { etcd, asked, outcome } = world((_path, endpoint) => (endpoint === A ? bad : "served"));
  await outcome(etcd.range("/hast/g/"));
  await outcome(etcd.range("/hast/g/"));
  expect.deepEqual(asked, ["a kv/range", "b kv/range", "b kv/range"]);
});

test("where no endpoint is of use, that is an error which names each of them", async () => {
  const { etcd, outcome } = world((_path, endpoint) => (endpoint === A ? "refused" : "silent"));
  await expect.rejects(
    () => outcome(etcd.range("/hast/g/")),
    (error) =>
      error instanceof EtcdError &&
      error.message === "http://a:2379: connect ECONNREFUSED; http://b:2379: no answer within 1 s",
  );
});

test("renew() counts from when the renewal was sent, not from its answer, nor from the read before it", async () => {
  const { etcd, clock, outcome } = world((path) =>
    path === "lease/grant" ? "served" : { delayMs: 900 },
  );
  const { id } = await outcome(etcd.grant(300));
  const begun = clock.now();
  const renewal = await outcome(etcd.renew(id, "/hast/g/"));
  expect.equal(renewal.sentAtMs, begun + 900);
  expect.equal(renewal.ttlS, 300);
});

test("renew() reads and renews at one and the same endpoint", async () => {
  const { etcd, asked, outcome } = world((path, endpoint) =>
    path === "lease/keepalive" && endpoint === A ? "silent" : "served",
  );
  const { id } = await outcome(etcd.grant(300));
  await outcome(etcd.renew(id, "/hast/g/"));
  expect.deepEqual(asked.slice(1), [
    "a kv/range",
    "a lease/keepalive",
    "b kv/range",
    "b lease/keepalive",
  ]);
});

test("a lease that has ended is renewed for 0 s, cannot carry a key, and may be revoked", async () => {
  const { etcd, outcome } = world();
  const { id, ttlS } = await outcome(etcd.grant(10));
  expect.equal(ttlS, 10);
  expect.equal((await outcome(etcd.renew(id, "/hast/g/"))).ttlS, 0);
  await expect.rejects(
    () => outcome(etcd.txn([], [{ key: "/hast/g/leader", value: "", lease: id }])),
    /requested lease not found/,
  );
  await outcome(etcd.revoke(id));
});

test("answers that make no sense are of no use, and no crash", async () => {
  const clock = new PretendClock(new Events());
  for (const text of [
    "",
    "<html>",
    "[]",
    "{}",
    '{"header":{"revision":"0"}}',
    '{"header":{"revision":"1"},"kvs":{}}',
    '{"header":{"revision":"1"},"kvs":[{}]}',
    '{"header":{"revision":"1"},"kvs":[{"key":"!","mod_revision":"1"}]}',
    '{"header":{"revision":"1"},"kvs":[{"key":"YQ==","create_revision":"-1","mod_revision":"1"}]}',
  ]) {
    const http: Http = { post: async () => ({ status: 200, text }) };
    const etcd = new Etcd({ http, clock, endpoints: [A], timeoutMs: 1_000 });
    await expect.rejects(() => etcd.range("/hast/g/"), EtcdError, text);
  }
});

test("a member of another cluster than the first that answered is of no use", async () => {
  const clock = new PretendClock(new Events());
  const clusters: Record<string, string> = { [A]: "1", [B]: "2" };
  let down = "";
  const http: Http = {
    post: async (url) => {
      const endpoint = url.replace(/\/v3\/.*/, "");
      if (endpoint === down) return { failure: "connect ECONNREFUSED" };
      const header = { cluster_id: clusters[endpoint], revision: "5" };
      const answer = url.endsWith("keepalive") ? { result: { header, TTL: "10" } } : { header };
      return { status: 200, text: JSON.stringify(answer) };
    },
  };
  const etcd = new Etcd({ http, clock, endpoints: [A, B], timeoutMs: 1_000 });
  expect.equal((await etcd.range("/hast/g/")).revision, 5);
  down = A;
  await expect.rejects(() => etcd.range("/hast/g/"), /http:\/\/b:2379: it is of another cluster/);
  down = "";
  await etcd.renew("7", "/hast/g/");
  clusters[A] = "3";
  await expect.rejects(() => etcd.renew("7", "/hast/g/"), /start this agent again/);
});

test("a renewal that is answered with no number of seconds is of no use", async () => {
  const clock = new PretendClock(new Events());
  for (const TTL of ["x", "-1", "1e400", {}]) {
    const http: Http = {
      post: async (url) => {
        const header = { revision: "5" };
        const answer = url.endsWith("keepalive") ? { result: { header, TTL } } : { header };
        return { status: 200, text: JSON.stringify(answer) };
      },
    };
    const etcd = new Etcd({ http, clock, endpoints: [A], timeoutMs: 1_000 });
    await expect.rejects(() => etcd.renew("7", "/hast/g/"), EtcdError, String(TTL));
  }
});

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock, FakeResolver, settle } from "../../test/daemon/fakes.ts";
import { Access, LOOKUP_TIMEOUT_MS, REFRESH_AFTER_MS, RETRY_AFTER_MS } from "./access.ts";

class World {
  readonly clock = new FakeClock();
  readonly resolver = new FakeResolver();
  readonly access = new Access(this.clock, this.resolver);
}

test("a literal address is recognised without asking anyone", async () => {
  const { access, resolver } = new World();
  assert.equal(await access.allows("10.0.0.2", ["tcp4://10.0.0.2:8457"]), true);
  assert.equal(await access.allows("10.0.0.2", ["10.0.0.2"]), true);
  assert.equal(await access.allows("10.0.0.3", ["tcp4://10.0.0.2:8457"]), false);
  assert.equal(await access.allows("2001:db8::1", ["tcp6://[2001:DB8:0::1]:8457"]), true);
  assert.deepEqual(resolver.asked, []);
});

test("nobody is the remote of a resource that has none", async () => {
  const { access } = new World();
  assert.equal(await access.allows("10.0.0.2", ["none"]), false);
  assert.equal(await access.allows("10.0.0.2", []), false);
});

test("any address of a name is recognised", async () => {
  const { access, resolver } = new World();
  resolver.answers.set("hast2", ["10.0.0.2", "2001:db8::2"]);
  assert.equal(await access.allows("10.0.0.2", ["tcp://hast2"]), true);
  assert.equal(await access.allows("2001:db8::2", ["tcp://hast2"]), true);
  assert.equal(await access.allows("10.0.0.3", ["tcp://hast2"]), false);
});

test("a name is asked for once for all who wait, and not again for each stranger", async () => {
  const { access, resolver, clock } = new World();
  resolver.answers.set("hast2", ["10.0.0.2"]);
  access.prepare(["tcp://hast2", "hast2:8457", "none"]);
  for (let count = 0; count < 5; count++) await access.allows("10.0.0.3", ["tcp://hast2"]);
  assert.deepEqual(resolver.asked, ["hast2"]);
  await clock.advance(RETRY_AFTER_MS);
  assert.equal(await access.allows("10.0.0.3", ["tcp://hast2"]), false);
  assert.deepEqual(resolver.asked, ["hast2", "hast2"]);
});

test("a host whose address has changed is recognised at its next attempt", async () => {
  const { access, resolver, clock } = new World();
  resolver.answers.set("hast2", ["10.0.0.2"]);
  assert.equal(await access.allows("10.0.0.2", ["hast2"]), true);
  resolver.answers.set("hast2", ["10.0.0.9"]);
  await clock.advance(RETRY_AFTER_MS);
  assert.equal(await access.allows("10.0.0.9", ["hast2"]), true);
  assert.equal(await access.allows("10.0.0.2", ["hast2"]), false);
});

test("a silent name server delays those it knew before not at all, and others by its deadline (BD-22)", async () => {
  const { access, resolver, clock } = new World();
  resolver.answers.set("hast2", ["10.0.0.2"]);
  await access.allows("10.0.0.2", ["hast2"]);
  resolver.silent = true;
  await clock.advance(REFRESH_AFTER_MS);
  assert.equal(await access.allows("10.0.0.2", ["hast2"]), true);

  let answer: boolean | null = null;
  void access.allows("10.0.0.3", ["hast2"]).then((allowed) => {
    answer = allowed;
  });
  await clock.advance(LOOKUP_TIMEOUT_MS - 1);
  assert.equal(answer, null);
  await clock.advance(1);
  assert.equal(answer, false);
  assert.equal(await access.allows("10.0.0.2", ["hast2"]), true);
});

test("a name server that answers nothing any more does not take away what it said before", async () => {
  const { access, resolver, clock } = new World();
  resolver.answers.set("hast2", ["10.0.0.2"]);
  await access.allows("10.0.0.2", ["hast2"]);
  resolver.answers.clear();
  await clock.advance(REFRESH_AFTER_MS);
  assert.equal(await access.allows("10.0.0.2", ["hast2"]), true);
  await settle();
  assert.equal(await access.allows("10.0.0.2", ["hast2"]), true);
});

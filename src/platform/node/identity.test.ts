// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { hostname } from "node:os";
import { test } from "node:test";
import { nodeIdentity } from "./identity.ts";

test("a node named by the operator goes by that name only", () => {
  assert.deepEqual(nodeIdentity("alpha"), { names: ["alpha"], uuid: null, hostid: null });
});

test("a machine goes by its host name, full and short", () => {
  const { names } = nodeIdentity(null);
  assert.equal(names[0], hostname());
  assert.equal(names.at(-1), hostname().split(".")[0]);
  assert.equal(new Set(names).size, names.length);
});

test("a machine's UUID is its machine id, with dashes", () => {
  const path = "/etc/machine-id";
  const id = existsSync(path) ? readFileSync(path, "utf8").trim() : "";
  const { uuid } = nodeIdentity(null);
  assert.equal(uuid?.replaceAll("-", "") ?? "", /^[0-9a-f]{32}$/.test(id) ? id : "");
  if (uuid !== null) assert.match(uuid, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
});

test("a machine's host id is gethostid(), as hostid(1) prints it", () => {
  const printed = execFileSync("hostid", { encoding: "utf8" }).trim();
  assert.equal(nodeIdentity(null).hostid, Number.parseInt(printed, 16));
});

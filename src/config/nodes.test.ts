// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { type NodeIdentity, parseConfig } from "./config.ts";
import { nodesOf } from "./nodes.ts";

const NOWHERE: NodeIdentity = { names: ["elsewhere"], uuid: null, hostid: null };

function named(text: string, here: NodeIdentity = NOWHERE): [string, readonly string[]][] {
  return nodesOf(parseConfig(text, "f"), here).map(({ name, identity }) => [name, identity.names]);
}

test("each node once, in the order of the text, those of the file's own sections too", () => {
  const text = "on gamma { } resource r { on beta { } on alpha { } } resource q { on beta { } }";
  assert.deepEqual(named(text), [
    ["beta", ["beta"]],
    ["alpha", ["alpha"]],
    ["gamma", ["gamma"]],
  ]);
});

test("a short name and the one full name it begins are one node", () => {
  const both = ["alpha.example.org", "alpha"];
  assert.deepEqual(named("on alpha { } on alpha.example.org { }"), [["alpha", both]]);
  assert.deepEqual(named("on alpha.example.org { } on alpha { }"), [["alpha.example.org", both]]);
});

test("a short name that two full names begin with belongs to the one that stands first", () => {
  assert.deepEqual(named("on a.north { } on a.south { } on a { }"), [
    ["a.north", ["a.north", "a"]],
    ["a.south", ["a.south", "a"]],
  ]);
});

test("all that names this machine is one node; another's machine id is one by itself", () => {
  const here = { names: ["alpha.x", "alpha"], uuid: "0123456789abcdef0123456789abcdef", hostid: 7 };
  const text =
    "on hostid7 { } on alpha { } on 01234567-89ab-cdef-0123-456789abcdef { } on hostid8 { }";
  assert.deepEqual(named(text, here), [
    ["hostid7", here.names],
    ["hostid8", ["hostid8"]],
  ]);
});

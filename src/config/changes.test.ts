// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Changes, changesBetween, type Role } from "./changes.ts";
import { type Config, type ResourceConfig, readConfig } from "./config.ts";
import { STATEMENTS } from "./syntax.ts";

const ROLES: readonly Role[] = ["init", "secondary", "primary"];

function configOf(text: string): Config {
  const result = readConfig(text, "f", { names: ["alpha"], uuid: null, hostid: null });
  if (result.kind === "complaints") throw new Error(result.complaints[0]!.message);
  return result.config;
}

function resourceOf(name: string, statements: string, here = ""): string {
  return `resource ${name} { local /disk/${name} remote 10.0.0.2 ${statements} on alpha { ${here} } }\n`;
}

/** The changes of one resource under a role, as one line. */
function verdict(from: string, to: string, role: Role): string {
  return lines(changesBetween(configOf(from), configOf(to), () => role)).join("\n");
}

function lines({ daemon, resources }: Changes): string[] {
  const told = (changes: readonly { keyword: string; from: string; to: string }[]): string =>
    changes.map(({ keyword, from, to }) => `${keyword} ${from}>${to}`).join(", ");
  return [
    ...daemon.map((change) => `daemon: ${told([change])}`),
    ...resources.map((change) => {
      switch (change.kind) {
        case "added":
        case "removed":
          return `${change.resource}: ${change.kind}`;
        case "live":
          return `${change.resource}: live ${told(change.reasons)}`;
        case "restarted":
          return `${change.resource}: restarted ${told(change.reasons)} (${told(change.besides)})`;
        default:
          throw new Error("a fifth kind");
      }
    }),
  ];
}

/** Each setting: what it is when nothing is said, how to change it, what it is then, and how a primary takes it. */
const TABLE: readonly [string, string, string, string, "live" | "restarted"][] = [
  ["name", "r0", "name disk", "disk", "restarted"],
  ["local", "/disk/r0", "local /other", "/other", "restarted"],
  ["export", "unix:///run/hast/r0.sock", "export /e", "/e", "restarted"],
  ["exporttls", "auto", "exporttls off", "off", "restarted"],
  ["device", "auto", "device nbd", "nbd", "restarted"],
  ["tlspeer", "none", `tlspeer sha256:${"ab".repeat(32)}`, `sha256:${"ab".repeat(32)}`, "live"],
  ["remote", "10.0.0.2", "remote 10.0.0.3", "10.0.0.3", "live"],
  ["source", "none", "source 10.0.0.1", "10.0.0.1", "live"],
  ["replication", "memsync", "replication async", "async", "live"],
  ["checksum", "none", "checksum crc32", "crc32", "live"],
  ["compression", "hole", "compression lzf", "lzf", "live"],
  ["timeout", "20", "timeout 5", "5", "live"],
  ["exec", "none", "exec /hook", "/hook", "live"],
  ["exectimeout", "60", "exectimeout 5", "5", "live"],
  ["gate", "none", "gate /gate", "/gate", "live"],
  ["metaflush", "on", "metaflush off", "off", "restarted"],
  ["arbiter", "off", "arbiter on", "on", "live"],
];

for (const [keyword, before, statement, after, primary] of TABLE) {
  test(`${keyword}: ${primary} in a primary, a restart in a secondary and in init (behaviour §12)`, () => {
    // The default export follows the name; here it shall not.
    const rest = keyword === "name" ? "export unix:///run/hast/r0.sock " : "";
    const from = resourceOf("r0", rest);
    const to =
      keyword === "source" ? resourceOf("r0", "", statement) : resourceOf("r0", rest + statement);
    for (const role of ROLES) {
      const live = role === "primary" && primary === "live";
      const expected = live
        ? `r0: live ${keyword} ${before}>${after}`
        : `r0: restarted ${keyword} ${before}>${after} ()`;
      assert.equal(verdict(from, to, role), expected, role);
      // And back; metaflush on is taken over live, as a test below has it.
      if (keyword === "metaflush") continue;
      const back = live
        ? `r0: live ${keyword} ${after}>${before}`
        : `r0: restarted ${keyword} ${after}>${before} ()`;
      assert.equal(verdict(to, from, role), back, role);
    }
  });
}

test("the table above has every statement that concerns a resource", () => {
  const keywords = Object.entries(STATEMENTS)
    .filter(([, levels]) => levels.includes("resource") || levels.includes("resource-node"))
    .map(([keyword]) => keyword);
  assert.deepEqual(TABLE.map(([keyword]) => keyword).toSorted(), keywords.toSorted());
});

test("one reason to restart suffices; what could have changed live changes besides", () => {
  const from = resourceOf("r0", "");
  const to = resourceOf("r0", "timeout 5 local /other checksum sha256");
  assert.equal(
    verdict(from, to, "primary"),
    "r0: restarted local /disk/r0>/other (checksum none>sha256, timeout 20>5)",
  );
  assert.equal(
    verdict(from, to, "secondary"),
    "r0: restarted local /disk/r0>/other, checksum none>sha256, timeout 20>5 ()",
  );
});

test("resources that come and go are added and removed, whatever else they say", () => {
  const from = resourceOf("r0", "") + resourceOf("r1", "") + resourceOf("r2", "");
  const to = resourceOf("r3", "timeout 3") + resourceOf("r1", "");
  assert.equal(verdict(from, to, "primary"), "r0: removed\nr2: removed\nr3: added");
});

test("each resource is judged by its own role", () => {
  const from = configOf(resourceOf("r0", "") + resourceOf("r1", ""));
  const to = configOf(resourceOf("r0", "timeout 5") + resourceOf("r1", "timeout 5"));
  const changes = changesBetween(from, to, (name) => (name === "r0" ? "primary" : "secondary"));
  assert.deepEqual(lines(changes), ["r0: live timeout 20>5", "r1: restarted timeout 20>5 ()"]);
});

test("a setting of the file changes every resource that inherits it", () => {
  const rest = resourceOf("r0", "") + resourceOf("r1", "timeout 7");
  assert.equal(verdict(rest, `timeout 9\n${rest}`, "primary"), "r0: live timeout 20>9");
});

test("the daemon's own settings change; the order of listen does not matter", () => {
  const from = "control /a pidfile /p listen 10.0.0.1 listen 10.0.0.2";
  const to = "control /b controlgroup staff pidfile /q user nobody listen 10.0.0.2 listen 10.0.0.1";
  assert.deepEqual(verdict(from, to, "init").split("\n"), [
    "daemon: control /a>/b",
    "daemon: controlgroup none>staff",
    "daemon: controlmode 600>660",
    "daemon: pidfile /p>/q",
    "daemon: user hast>nobody",
  ]);
  assert.equal(
    verdict(from, "control /a pidfile /p listen 10.0.0.1", "init"),
    "daemon: listen 10.0.0.1 10.0.0.2>10.0.0.1",
  );
});

test("a primary is restarted to lose or to find its peer, and to do without metaflush (S-21)", () => {
  const none = "resource r0 { local /d/r0 remote none on alpha { } }";
  const some = "resource r0 { local /d/r0 remote 10.0.0.7 on alpha { } }";
  const other = "resource r0 { local /d/r0 remote 10.0.0.8 on alpha { } }";
  assert.match(verdict(none, some, "primary"), /^r0: restarted remote none>10\.0\.0\.7/);
  assert.match(verdict(some, none, "primary"), /^r0: restarted/);
  assert.match(verdict(some, other, "primary"), /^r0: live/);
  const [on, off] = ["on", "off"].map((value) => resourceOf("r0", `metaflush ${value}`));
  assert.match(verdict(on!, off!, "primary"), /^r0: restarted metaflush/);
  assert.match(verdict(off!, on!, "primary"), /^r0: live metaflush/);
});

test("writing a default out is no change, nor is the order of the file", () => {
  const from = resourceOf("r0", "") + resourceOf("r1", "");
  const to =
    "listen tcp6://[::]:8457 listen tcp4://0.0.0.0:8457 timeout 20 replication memsync\n" +
    resourceOf("r1", "metaflush on") +
    resourceOf("r0", "export unix:///run/hast/r0.sock");
  assert.equal(verdict(from, to, "primary"), "");
});

test("what is not known of the old configuration is not compared", () => {
  const to = configOf(`control /c ${resourceOf("r0", "timeout 5 exec /hook")}`);
  const from = { resources: [{ name: "r0", timeout: 5 }, { name: "r1" }] };
  assert.deepEqual(lines(changesBetween(from, to, () => "primary")), ["r1: removed"]);
});

test("a configuration compared with itself changes nothing; there and back, the same resources", () => {
  const statement = fc.constantFrom(
    // A source has its place in another section, and metaflush is live one way only.
    ...TABLE.filter(([keyword]) => !/^(source|metaflush)$/.test(keyword)).map(([, , text]) => text),
  );
  const file = fc
    .uniqueArray(fc.constantFrom("r0", "r1", "r2"))
    .chain((names) =>
      fc
        .tuple(...names.map(() => fc.uniqueArray(statement, { maxLength: 3 })))
        .map((bodies) => bodies.map((body, at) => uniqueResource(names[at]!, body)).join("")),
    );
  fc.assert(
    fc.property(file, file, fc.constantFrom(...ROLES), (a, b, role) => {
      assert.equal(verdict(a, a, role), "");
      const there = changesBetween(configOf(a), configOf(b), () => role).resources;
      const back = changesBetween(configOf(b), configOf(a), () => role).resources;
      const opposite = { added: "removed", removed: "added", live: "live", restarted: "restarted" };
      assert.deepEqual(
        there.map(({ resource, kind }) => `${resource} ${kind}`).toSorted(),
        back.map(({ resource, kind }) => `${resource} ${opposite[kind]}`).toSorted(),
      );
    }),
    { numRuns: 200 },
  );
});

/** Local, name and export of its own, so that no two resources collide. */
function uniqueResource(name: string, body: readonly string[]): string {
  const own = body.map((text) => text.replace(/^(name|local|export) (\S+)$/, `$1 $2${name}`));
  return resourceOf(name, own.join(" "));
}

test("every setting of a resource is compared", () => {
  const config = configOf(resourceOf("r0", ""));
  const resource: ResourceConfig = config.resources[0]!;
  for (const key of Object.keys(resource)) {
    if (key === "name") continue;
    const other = { ...resource, [key]: "something else" };
    const changes = changesBetween({ resources: [other] }, config, () => "primary");
    assert.equal(changes.resources.length, 1, key);
  }
});

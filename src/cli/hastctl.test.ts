// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { MemoryComponent } from "../../test/cli/memory-component.ts";
import { FakeClock } from "../../test/daemon/fakes.ts";
import { COMMANDS, hastctl, type World } from "./hastctl.ts";

const CONFIG = `
control /run/other
resource r0 { local /disk/r0 on alpha { remote none } on beta { remote none } }
on beta { control /run/beta }
`;

interface Seen {
  readonly out: string;
  readonly err: string;
  readonly exitCode: number;
  /** Files read, addresses connected to, nodes looked for, in order. */
  readonly did: readonly string[];
}

async function run(words: readonly string[], world: Partial<World> = {}): Promise<Seen> {
  let out = "";
  let err = "";
  const did: string[] = [];
  const exitCode = await hastctl(words, {
    terminal: {
      out: (text) => {
        out += text;
      },
      err: (text) => {
        err += text;
      },
    },
    clock: new FakeClock(),
    entropy: { fill: () => {} },
    net: {
      connect: (address, _options, done) => {
        did.push(`connect ${address}`);
        queueMicrotask(() => done({ failure: "connection refused" }));
        return () => {};
      },
      listen: () => {
        throw new Error("hastctl does not listen");
      },
    },
    openComponent: async (path) => {
      did.push(`open ${path}`);
      return new MemoryComponent(64 * 1024 * 1024);
    },
    readText: (path) => {
      did.push(`read ${path}`);
      return { text: CONFIG };
    },
    identity: (node) => {
      did.push(`node ${node}`);
      return { names: [node ?? "alpha"], uuid: null, hostid: null };
    },
    readCertificate: () => ({ failure: "no certificate" }),
    contrib: () => "",
    runProgram: async ([program]) => {
      did.push(`run ${program}`);
      return { exitCode: 0 };
    },
    node: null,
    versionLine: "hastctl 0.1.0 (release)",
    ...world,
  });
  return { out, err, exitCode, did };
}

test("--version names the build, and needs nothing else", async () => {
  assert.deepEqual(await run(["--version"]), {
    out: "hastctl 0.1.0 (release)\n",
    err: "",
    exitCode: 0,
    did: [],
  });
});

test("no command, -h and unknown commands print the whole usage to stderr and exit 64", async () => {
  const commands = COMMANDS.map((command) => command.name);
  for (const words of [[], ["-h"], ["--help"], ["bogus"], ["-c", "/x", "status"]]) {
    const { out, err, exitCode, did } = await run(words);
    assert.equal(exitCode, 64);
    assert.equal(out, "");
    assert.deepEqual(did, []);
    for (const command of commands)
      assert.match(err, new RegExp(`^(usage:| {6}) hastctl ${command} `, "m"));
  }
  assert.match((await run(["bogus"])).err, /^hastctl: unknown command: bogus\nusage: /);
  assert.match(
    (await run(["-c", "/x", "status"])).err,
    /^hastctl: a command must come before any option/,
  );
});

test("a command's usage shows every option it takes (behaviour §16.1)", async () => {
  const { err } = await run(["create", "-h"]);
  assert.equal(
    err,
    "usage: hastctl create [-d] [-c config] [-n node] [-e extentsize] [-k keepdirty] [-m mediasize] " +
      "[--datasize size] [--adopt] [--force] name ...\n",
  );
  assert.match(
    (await run(["role", "-h"])).err,
    /<init \| primary \| secondary> all \| name \.\.\.\n$/,
  );
});

test("wrong arguments exit 64 before any file is read, and say what is wrong", async () => {
  const cases: [string, RegExp][] = [
    ["create", /^hastctl: name the resource .*\nusage: hastctl create /],
    ["role", /^usage: hastctl role /],
    ["role primary", /^hastctl: name the resource to become primary, or all\nusage: hastctl role /],
    ["role master r0", /^hastctl: there is no role "master"/],
    ["create -e 2x r0", /^hastctl: "2x" is no extentsize/],
    ["create -k -1 r0", /^hastctl: "-1" is no keepdirty/],
    ["create --adopt -m 1g r0", /^hastctl: -m and --adopt exclude each other/],
    ["status -e 1", /^hastctl: unknown option -e\nusage: hastctl status /],
    ["dump -c", /^hastctl: -c needs a value/],
    [
      "config",
      /^usage: hastctl config check .*\n {7}hastctl config diff .*\n {7}hastctl config gen.*\n$/,
    ],
    ["config bogus", /^hastctl: unknown command: config bogus\nusage: hastctl config check /],
    ["config check a b", /^hastctl: one file at a time/],
    ["config generate", /^hastctl: name both nodes/],
    ["completion zsh", /^hastctl: bash is the one shell/],
  ];
  for (const [words, message] of cases) {
    const { out, err, exitCode, did } = await run(words.split(" "));
    assert.equal(exitCode, 64, words);
    assert.equal(out, "");
    assert.match(err, message);
    assert.match(err, /^usage: hastctl \w+ /m);
    assert.deepEqual(did, []);
  }
});

test("the configuration is /etc/hast.conf, or what -c says", async () => {
  assert.deepEqual((await run(["status"])).did.slice(0, 1), ["read /etc/hast.conf"]);
  assert.deepEqual((await run(["status", "r0", "-c", "my.conf"])).did.slice(0, 1), [
    "read my.conf",
  ]);
});

test("-n names this node, else HAST_NODE does, else the machine", async () => {
  assert.deepEqual((await run(["status", "-n", "beta"], { node: "alpha" })).did, [
    "read /etc/hast.conf",
    "node beta",
    "connect /run/beta",
  ]);
  assert.deepEqual((await run(["status"], { node: "beta" })).did.slice(1), [
    "node beta",
    "connect /run/beta",
  ]);
  assert.deepEqual((await run(["status"])).did.slice(1), ["node null", "connect /run/other"]);
});

test("a configuration that cannot be opened exits 72, with the reason", async () => {
  const readText = (): { failure: string } => ({ failure: "no such file or directory" });
  const { err, exitCode } = await run(["status"], { readText });
  assert.equal(exitCode, 72);
  assert.match(
    err,
    /^\[ERROR\] Unable to open configuration file \/etc\/hast\.conf: no such file or directory\.\n {2}/,
  );
});

test("a configuration that may not be read asks for another user, not for another file", async () => {
  const { err } = await run(["status"], { readText: () => ({ failure: "permission denied" }) });
  assert.match(err, /permission denied\.\n {2}Run this as a user who may read it/);
});

test("a wrong configuration exits 78, every error with file, line and column", async () => {
  const readText = (): { text: string } => ({ text: "timeout 0\nresource r0 {\n  lokal /x\n}\n" });
  const { out, err, exitCode } = await run(["dump"], { readText });
  assert.equal(exitCode, 78);
  assert.equal(out, "");
  assert.deepEqual(
    err.split("\n").map((line) => line.slice(0, 31)),
    [
      '[ERROR] /etc/hast.conf:1:9: "ti',
      "[ERROR] /etc/hast.conf:2:10: re",
      "[ERROR] /etc/hast.conf:3:3: unk",
      "",
    ],
  );
});

test("role, status and list use the control socket; create and dump open the disk instead", async () => {
  for (const words of ["role primary r0", "status", "list r0"]) {
    const { exitCode, did } = await run(words.split(" "));
    assert.equal(exitCode, 71);
    assert.deepEqual(did.slice(2), ["connect /run/other"]);
  }
  for (const words of ["create r0", "dump r0"]) {
    assert.deepEqual((await run(words.split(" "))).did.slice(2), ["open /disk/r0"]);
  }
});

test("what is suggested carries the -c and -n of the command that failed", async () => {
  const where = ["-c", "my.conf", "-n", "beta"];
  assert.match((await run(["status", ...where])).err, /\n {4}hastd -c my\.conf -n beta\n$/);
  assert.match(
    (await run(["dump", ...where, "r0"])).err,
    /\n {4}hastctl create -c my\.conf -n beta r0\n$/,
  );
  // HAST_NODE may have been set for this one command only.
  assert.match((await run(["status"], { node: "beta" })).err, /\n {4}hastd -n beta\n$/);
});

test("any words give an exit code, and nothing is opened without a valid command", async () => {
  const word = fc.oneof(
    fc.string(),
    fc.constantFrom(
      "create",
      "dump",
      "role",
      "status",
      "list",
      "primary",
      "r0",
      "all",
      "-e",
      "-n",
      "--force",
    ),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(word, { maxLength: 6 }), async (words) => {
      const { exitCode, did } = await run(words);
      assert.ok(Number.isInteger(exitCode) && exitCode >= 0 && exitCode <= 255);
      if (exitCode === 64) assert.deepEqual(did, []);
    }),
    { numRuns: 300 },
  );
});

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { formatComplaint } from "./complaint.ts";
import {
  type Config,
  exportNeedsTls,
  type NodeIdentity,
  parseConfig,
  type ResourceConfig,
  readConfig,
  whoNeedsTls,
} from "./config.ts";

const UUID = "8f0e3a52-9a1c-4b7d-8e2f-001122334455";
const ALPHA: NodeIdentity = { names: ["alpha.example.org", "alpha"], uuid: UUID, hostid: 4711 };

function node(name: string): NodeIdentity {
  return { names: [name], uuid: null, hostid: null };
}

function config(text: string, identity: NodeIdentity = ALPHA): Config {
  const result = readConfig(text, "hast.conf", identity);
  if (result.kind === "config") return result.config;
  return assert.fail(result.complaints.map(formatComplaint).join("\n"));
}

function only(text: string, identity: NodeIdentity = ALPHA): ResourceConfig {
  const { resources } = config(text, identity);
  assert.equal(resources.length, 1);
  return resources[0]!;
}

function complaints(text: string, identity: NodeIdentity = ALPHA): string[] {
  const result = readConfig(text, "f", identity);
  if (result.kind === "config") return [];
  return result.complaints.map(formatComplaint);
}

/** A resource with what is required, and more. */
function resource(name: string, more: { inside?: string; on?: string } = {}): string {
  return `resource ${name} {
    local /dev/${name}
    ${more.inside ?? ""}
    on alpha { remote 10.0.0.2 ${more.on ?? ""} }
    on beta { remote 10.0.0.1 }
  }\n`;
}

test("everything left out has the original's default (behaviour §15)", () => {
  assert.deepEqual(config(resource("r0")), {
    file: "hast.conf",
    control: "/var/run/hastctl",
    controlowner: null,
    controlgroup: null,
    controlmode: 0o600,
    pidfile: "/var/run/hastd.pid",
    user: "hast",
    listen: ["tcp4://0.0.0.0:8457", "tcp6://[::]:8457"],
    listenByDefault: true,
    tlsdir: "/etc/hast/tls",
    resources: [
      {
        name: "r0",
        provname: "r0",
        local: "/dev/r0",
        remote: "10.0.0.2",
        source: null,
        replication: "memsync",
        checksum: "none",
        compression: "hole",
        timeout: 20,
        exec: null,
        gate: null,
        exectimeout: 60,
        metaflush: true,
        export: "unix:///run/hast/r0.sock",
        exporttls: "auto",
        device: "auto",
        arbiter: false,
        tlspeer: null,
      },
    ],
  });
});

test("an empty file is a configuration without resources", () => {
  for (const text of ["", "# nothing\n", "\r\n"]) assert.deepEqual(config(text).resources, []);
});

test("a configuration is frozen, all through", () => {
  const frozen = config(resource("r0"));
  for (const part of [frozen, frozen.listen, frozen.resources, frozen.resources[0]]) {
    assert.ok(Object.isFrozen(part));
  }
});

test("global settings count for resources above them too", () => {
  const settings =
    "replication async checksum sha256 compression lzf timeout 3 exec /h gate /g exectimeout 4 metaflush off device fuse";
  const found = only(resource("r0") + settings);
  assert.equal(found.replication, "async");
  assert.equal(found.checksum, "sha256");
  assert.equal(found.compression, "lzf");
  assert.equal(found.timeout, 3);
  assert.equal(found.exec, "/h");
  assert.equal(found.gate, "/g");
  assert.equal(found.exectimeout, 4);
  assert.equal(found.metaflush, false);
  assert.equal(found.device, "fuse");
});

test("a resource's settings beat global ones", () => {
  const inside =
    "replication fullsync checksum none compression none timeout 7 exec /own metaflush on device none";
  const settings =
    "replication async checksum sha256 compression lzf timeout 3 exec /h metaflush off device fuse\n";
  const found = only(settings + resource("r0", { inside }));
  assert.equal(found.replication, "fullsync");
  assert.equal(found.checksum, "none");
  assert.equal(found.compression, "none");
  assert.equal(found.timeout, 7);
  assert.equal(found.exec, "/own");
  assert.equal(found.metaflush, true);
  assert.equal(found.device, "none");
});

test("a resource's section for the node beats the resource, which beats the node", () => {
  const inside = "name middle remote none metaflush off export /run/middle device nbd";
  const globals = "on alpha { export /run/global device fuse }\n";
  const on =
    "name strong local /dev/strong remote tcp://10.9.9.9 source 10.0.0.1 metaflush on export /run/strong device ublk";
  const strong = only(globals + resource("r0", { inside, on }));
  assert.equal(strong.provname, "strong");
  assert.equal(strong.local, "/dev/strong");
  assert.equal(strong.remote, "tcp://10.9.9.9");
  assert.equal(strong.source, "10.0.0.1");
  assert.equal(strong.metaflush, true);
  assert.equal(strong.export, "/run/strong");
  assert.equal(strong.device, "ublk");

  const middle = only(globals + resource("r0", { inside }));
  assert.equal(middle.provname, "middle");
  assert.equal(middle.export, "/run/middle");
  assert.equal(middle.device, "nbd");

  const weak = only(globals + resource("r0"));
  assert.equal(weak.export, "/run/global");
  assert.equal(weak.device, "fuse");
});

test("of a repeated statement the last counts, and sections for one node are merged in order", () => {
  const text = `
    timeout 1 timeout 2
    on alpha { control /one pidfile /p }
    on ${UUID} { control /two }
    resource r0 {
      local /dev/a local /dev/b
      on alpha { remote 10.0.0.2 name first }
      on hostid4711 { name second }
    }`;
  const found = config(text);
  assert.equal(found.control, "/two");
  assert.equal(found.pidfile, "/p");
  assert.equal(found.resources[0]!.timeout, 2);
  assert.equal(found.resources[0]!.local, "/dev/b");
  assert.equal(found.resources[0]!.remote, "10.0.0.2");
  assert.equal(found.resources[0]!.provname, "second");
});

test("listen accumulates, global ones first, each once, and replaces the default", () => {
  const text =
    "on alpha { listen 10.0.0.1 listen 10.0.0.3 } on beta { listen 10.0.0.2 } listen 10.0.0.3";
  assert.deepEqual(config(text).listen, ["10.0.0.3", "10.0.0.1"]);
  assert.equal(config(text).listenByDefault, false);
});

test("a node is known by its full name, first label, UUID or host id", () => {
  const accepted = [
    "alpha.example.org",
    "alpha",
    UUID,
    UUID.toUpperCase(),
    UUID.replaceAll("-", ""),
    "hostid4711",
  ];
  for (const name of accepted) {
    assert.equal(only(`resource r0 { local /x on ${name} { remote none } }`).remote, "none", name);
  }
  for (const name of ["Alpha", "alpha.example", "beta", "hostid471", "hostid04711", "hostid"]) {
    assert.equal(complaints(`resource r0 { local /x on ${name} { remote none } }`).length, 1, name);
  }
});

test("a name given with -n counts alone", () => {
  const text = `resource r0 { local /x on ${UUID} { remote none } on gamma { remote 10.0.0.9 } }`;
  assert.equal(only(text, node("gamma")).remote, "10.0.0.9");
  assert.equal(complaints(text, node("alpha")).length, 1);
});

test("the host id is asked for only where it matters: finding it can take a name server", () => {
  const identity: NodeIdentity = {
    names: ["alpha"],
    uuid: null,
    get hostid(): number {
      return assert.fail("asked for");
    },
  };
  assert.equal(only(resource("r0"), identity).name, "r0");
});

test("a resource without section for this node is refused with the names that would do", () => {
  assert.deepEqual(complaints("resource r0 { local /x on beta { remote none } }"), [
    'f:1:10: resource r0 has no section for this node; add "on NODE { … }", where NODE is ' +
      `alpha.example.org, alpha, ${UUID}, hostid4711, or say with -n which node this is`,
  ]);
});

test("local and remote are required, and a wrong one is not called missing", () => {
  assert.deepEqual(complaints("resource r0 {\n on alpha { remote none }\n}"), [
    'f:2:5: resource r0 has no local component on this node; add "local /PATH" here or in the resource',
  ]);
  assert.deepEqual(complaints("resource r0 {\n local /x on alpha { }\n}"), [
    'f:2:14: resource r0 has no remote address on this node; add "remote ADDRESS", or "remote none" to run without a peer',
  ]);
  assert.equal(complaints("resource r0 { local x on alpha { remote 1.2.3 } }").length, 2);
});

test("a resource defined twice is refused, with the line of the first", () => {
  assert.deepEqual(complaints(resource("r0") + resource("r0")), [
    "f:7:10: resource r0 is defined a second time, first in line 1; rename one, or merge them",
  ]);
});

test("two resources cannot share name, local component or export on one node", () => {
  const pair = (a: object, b: object): string[] => complaints(resource("a", a) + resource("b", b));
  assert.match(
    pair({}, { inside: "name a" })[0]!,
    /^f:9:10: resource b has the name "a", as resource a in line 1 has/,
  );
  assert.match(
    pair({ inside: "local /dev/x" }, { on: "local //dev/./x" })[0]!,
    /^f:10:\d+: resource b has the local component \/\/dev\/.\/x, as resource a in line 1 has/,
  );
  assert.match(
    pair({ inside: "export tcp://10.0.0.1" }, { inside: "export tcp4://10.0.0.1:10809" })[0]!,
    /has the export tcp4:\/\/10.0.0.1:10809, as resource a/,
  );
  assert.match(
    pair({}, { inside: "export uds:///run/hast/a.sock" })[0]!,
    /has the export uds:\/\/\/run\/hast\/a.sock, as resource a/,
  );
  assert.equal(complaints(`export tcp://10.0.0.1\n${resource("a")}${resource("b")}`).length, 1);
  assert.deepEqual(complaints(`export tcp://10.0.0.1\n${resource("a")}`), []);
});

test("collisions on other nodes are found too, each once however many nodes have it", () => {
  const text = `
resource a { on alpha { local /x remote none } on beta { local /x remote none } on gamma { local /x remote none } }
resource b { on alpha { local /y remote none } on beta { local /x remote none } on gamma { local /x remote none } }`;
  assert.deepEqual(
    complaints(text).map((each) => each.split(":")[2]),
    ["64", "98"],
  );
  const shared = "resource a { local /x on alpha { remote none } on beta { remote none } }";
  assert.equal(complaints(`${shared}\n${shared.replace(" a ", " b ")}`).length, 1);
});

test("an NBD export over TCP without port has NBD's, 10809", () => {
  assert.equal(
    only(resource("r0", { inside: "export tcp://localhost" })).export,
    "tcp://localhost:10809",
  );
  assert.equal(only(resource("r0", { inside: "export fd00::1" })).export, "tcp6://[fd00::1]:10809");
  assert.equal(
    only(resource("r0", { inside: "export tcp://10.0.0.1:99" })).export,
    "tcp://10.0.0.1:99",
  );
});

test("a provider name stays within /dev/hast and /run/hast", () => {
  for (const name of ["../x", "a//b", "/a", "a/", "a/./b", ".."]) {
    assert.match(
      complaints(resource("r0", { inside: `name ${name}` }))[0]!,
      /cannot be a file name/,
    );
  }
  assert.equal(only(resource("r0", { inside: "name a/b" })).export, "unix:///run/hast/a/b.sock");
  const long = "x".repeat(93);
  assert.match(complaints(resource(long))[0]!, /too long for the default export/);
  assert.deepEqual(complaints(resource(long, { inside: "export /run/x" })), []);
});

test("complaints of parser and checks come together, in the order of the text", () => {
  const text = `timeout 0\nresource r0 { on beta { remote none } }\nresource r1 { local x on alpha { remote none } }\nbogus`;
  assert.deepEqual(
    complaints(text).map((each) => each.split(":")[1]),
    ["1", "2", "3", "4"],
  );
});

test("the example of the overview parses: listen without port, one disk for both, node names with _", () => {
  const text = `listen tcp://0.0.0.0
resource shared {
local /dev/ada0p4
on fbsd_h1 {
remote tcp://10.0.0.231
}
on fbsd_h2 {
remote tcp://10.0.0.233
}
}
`;
  const found = config(text, node("fbsd_h2"));
  assert.deepEqual(found.listen, ["tcp://0.0.0.0"]);
  assert.equal(found.resources[0]!.local, "/dev/ada0p4");
  assert.equal(found.resources[0]!.remote, "tcp://10.0.0.233");
  assert.equal(only(text, node("fbsd_h1")).remote, "tcp://10.0.0.231");
});

test("the example of the forum parses: three disks, remotes by host name", () => {
  const text = [1, 2, 3]
    .map(
      (n) => `
resource disk${n} {
on hast1 {
local /dev/ad${n}
remote hast2
}
on hast2 {
local /dev/ad${n}
remote hast1
}
}
`,
    )
    .join("");
  const hast1 = { names: ["hast1.freebsd.loc", "hast1"], uuid: null, hostid: null };
  const { resources } = config(text, hast1);
  assert.deepEqual(
    resources.map(({ name, local, remote }) => [name, local, remote]),
    [
      ["disk1", "/dev/ad1", "hast2"],
      ["disk2", "/dev/ad2", "hast2"],
      ["disk3", "/dev/ad3", "hast2"],
    ],
  );
});

test("the example of the slides parses: bare IP addresses", () => {
  const text = `resource data {
    local /dev/ada0

    on hosta {
        remote 10.0.0.1
    }
    on hostb {
        remote 10.0.0.2
    }
}`;
  assert.equal(only(text, node("hosta")).remote, "10.0.0.1");
  assert.equal(only(text, node("hostb")).remote, "10.0.0.2");
});

test("an example with every setting parses the same with CRLF and without last newline", () => {
  const text = `# one\ntimeout 5\n${resource("r0", { inside: "checksum crc32 # strong enough" })}# end`;
  assert.deepEqual(config(text.replaceAll("\n", "\r\n")), config(text));
});

/** Texts near enough to a hast.conf to reach every corner. */
const nearConfig = fc
  .array(
    fc.constantFrom(
      ...'control pidfile listen replication checksum compression timeout exec metaflush resource name local remote source export device on off none memsync { } { } /x /y r0 r1 alpha beta 10.0.0.1 tcp://10.0.0.2:1 unix:///z 5 0 # \n ; " ü'.split(
        " ",
      ),
      "\n",
      "\r\n",
    ),
  )
  .map((words) => words.join(" "));

test("any text gives a configuration or complaints that point into it, never an exception", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: "binary" }), fc.string(), nearConfig), (text) => {
      const result = readConfig(text, "f", ALPHA);
      if (result.kind === "config") return;
      assert.ok(result.complaints.length > 0);
      const lines = text.split("\n");
      for (const { line, column, message } of result.complaints) {
        assert.ok(line >= 1 && line <= lines.length, `line ${line}`);
        assert.ok(column >= 1 && column <= lines[line - 1]!.length + 1, `column ${column}`);
        assert.ok(message.length > 0);
      }
    }),
    { numRuns: 1000 },
  );
});

test("a text cut anywhere gives a configuration or complaints", () => {
  const text = resource("r0", { inside: "replication async exec /h" }) + resource("r1");
  for (let length = 0; length <= text.length; length++) {
    const result = readConfig(text.slice(0, length), "f", ALPHA);
    assert.ok(result.kind === "config" || result.complaints.length > 0);
  }
});

test("parseConfig() knows no node: its complaints are those that any node would have", () => {
  assert.deepEqual(parseConfig("resource r0 { on beta { } }", "f").complaints, []);
  assert.equal(parseConfig("timeout 0", "f").complaints.length, 1);
});

test("the control socket is open to a group where one is named, and as controlmode says where it is given", () => {
  const modeOf = (text: string) => config(text).controlmode;
  assert.equal(modeOf("controlgroup staff"), 0o660);
  assert.equal(modeOf("controlgroup staff controlmode 600"), 0o600);
  assert.equal(modeOf("controlmode 0640"), 0o640);
  for (const mode of ["66", "689", "1777", "rw", "0x1"]) {
    const [complaint] = complaints(`controlmode ${mode}`);
    assert.match(complaint!, /"controlmode" is three octal digits, such as 660/);
  }
});

test("clients of an export on TCP must use TLS, unless it is this machine's own or hast.conf says off", () => {
  const needs = (statements: string): boolean =>
    exportNeedsTls(
      config(`resource r0 { local /d remote none ${statements} on alpha { } }`).resources[0]!,
    );
  for (const local of [
    "",
    "export /r0.sock",
    "export 127.0.0.1",
    "export tcp://[::1]:5",
    "export localhost",
  ]) {
    assert.equal(needs(local), false, local);
  }
  for (const open of [
    "0.0.0.0",
    "10.0.0.1:10809",
    "[::]:5",
    "fd00::1",
    "::ffff:10.0.0.1",
    "alpha",
  ]) {
    assert.equal(needs(`export ${open}`), true, open);
    assert.equal(needs(`export ${open} exporttls off`), false, open);
  }
  assert.equal(needs("export 127.0.0.1 exporttls required"), true);
  assert.equal(needs("export /r0.sock exporttls required"), false);
});

test("a node needs TLS files where a link or an export does", () => {
  const who = (statements: string): string | null =>
    whoNeedsTls(config(`${resource("r0")}resource r1 { local /e ${statements} on alpha { } }`));
  assert.equal(who("remote none"), null);
  assert.equal(who("remote 10.0.0.2"), null);
  assert.equal(who("remote tls://10.0.0.2"), "r1");
  assert.equal(who("remote none export 0.0.0.0"), "r1");
});

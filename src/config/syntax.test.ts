// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSyntax, STATEMENTS } from "./syntax.ts";

function complaints(text: string): string[] {
  return parseSyntax(text, "f").complaints.map((each) => {
    return `${each.line}:${each.column} ${each.message}`;
  });
}

function inResource(statement: string): string[] {
  return complaints(`resource r0 {\n${statement}\n}`);
}

test("parseSyntax() builds the tree of the whole grammar (behaviour §15)", () => {
  const text = `
    control /var/run/hastctl
    pidfile /var/run/hastd.pid
    listen tcp4://0.0.0.0:8457
    listen [::]:8457
    replication async checksum crc32 compression lzf timeout 5 exec /sbin/hook metaflush off
    export tcp://0.0.0.0 device nbd arbiter on
    on alpha { control uds:///a pidfile /b listen 10.0.0.1 export unix:///c device fuse }
    resource r0 {
      replication fullsync checksum sha256 compression none timeout 7 exec /h metaflush on
      name n0 local /dev/a remote none export /e device none arbiter off
      on alpha { name n1 local /dev/b remote hast2 source 10.0.0.1 metaflush off export /f device auto }
    }
  `;
  const { tree, complaints: found } = parseSyntax(text, "f");
  assert.deepEqual(found, []);
  const values = (settings: object): unknown =>
    Object.fromEntries(
      Object.entries(settings).flatMap(([key, setting]) =>
        key === "unsound"
          ? []
          : [[key, Array.isArray(setting) ? setting.map((each) => each.value) : setting.value]],
      ),
    );
  assert.deepEqual(values(tree.settings), {
    control: "/var/run/hastctl",
    pidfile: "/var/run/hastd.pid",
    listen: ["tcp4://0.0.0.0:8457", "[::]:8457"],
    replication: "async",
    checksum: "crc32",
    compression: "lzf",
    timeout: 5,
    exec: "/sbin/hook",
    metaflush: false,
    export: "tcp://0.0.0.0",
    device: "nbd",
    arbiter: true,
  });
  assert.equal(tree.nodes.length, 1);
  assert.equal(tree.nodes[0]!.node, "alpha");
  assert.deepEqual(values(tree.nodes[0]!.settings), {
    control: "uds:///a",
    pidfile: "/b",
    listen: ["10.0.0.1"],
    export: "unix:///c",
    device: "fuse",
  });
  assert.equal(tree.resources.length, 1);
  const [resource] = tree.resources;
  assert.deepEqual(resource!.at, { line: 9, column: 14 });
  assert.deepEqual(values(resource!.settings), {
    listen: [],
    replication: "fullsync",
    checksum: "sha256",
    compression: "none",
    timeout: 7,
    exec: "/h",
    metaflush: true,
    name: "n0",
    local: "/dev/a",
    remote: "none",
    export: "/e",
    device: "none",
    arbiter: false,
  });
  assert.equal(resource!.nodes[0]!.node, "alpha");
  assert.deepEqual(values(resource!.nodes[0]!.settings), {
    listen: [],
    name: "n1",
    local: "/dev/b",
    remote: "hast2",
    source: "10.0.0.1",
    metaflush: false,
    export: "/f",
    device: "auto",
  });
});

test("parseSyntax() accepts each statement where the table says, and nowhere else", () => {
  const value: Readonly<Record<string, string>> = {
    replication: "async",
    checksum: "none",
    compression: "none",
    timeout: "5",
    exectimeout: "5",
    gate: "/x",
    user: "x",
    controlowner: "x",
    controlgroup: "x",
    controlmode: "660",
    metaflush: "on",
    arbiter: "on",
    device: "auto",
    name: "x",
    control: "/x",
    pidfile: "/x",
    exec: "/x",
    local: "/x",
    export: "/x",
    listen: "10.0.0.1",
    remote: "10.0.0.1",
    source: "10.0.0.1",
    exporttls: "off",
    tlsdir: "/x",
    tlspeer: `sha256:${"0a".repeat(32)}`,
  };
  for (const [keyword, levels] of Object.entries(STATEMENTS)) {
    const statement = `${keyword} ${value[keyword]}`;
    const wrap = {
      global: statement,
      node: `on a { ${statement} }`,
      resource: `resource r { ${statement} }`,
      "resource-node": `resource r { on a { ${statement} } }`,
    };
    for (const [level, text] of Object.entries(wrap)) {
      const accepted = levels.some((each) => each === level);
      assert.equal(complaints(text).length, accepted ? 0 : 1, text);
    }
  }
});

test("parseSyntax() reports every error of a file, each where it is", () => {
  const text = `replicaton fullsync
timeout 0
listen udp://10.0.0.1
resource r0 {
  checksum md5
  local relative/path
  on alpha {
    remote tcp://10.0.0.1:99999
    listen 10.0.0.1
  }
  on beta {
    remote
  }
}
resource r1 {
  compression zstd
}
`;
  assert.deepEqual(
    complaints(text).map((each) => /^\d+:\d+/.exec(each)![0]),
    ["1:1", "2:9", "3:8", "5:12", "6:9", "8:12", "9:5", "13:3", "16:15"],
  );
});

test("an unknown statement is named together with what is possible there, and costs one complaint", () => {
  assert.deepEqual(inResource("lokal /dev/x on"), [
    '2:1 unknown statement "lokal"; in a resource section there can be replication, checksum, ' +
      "compression, timeout, exec, exectimeout, gate, metaflush, name, local, remote, export, exporttls, device, arbiter, tlspeer or on",
  ]);
  assert.equal(
    complaints("ressource r0 {\n local /x\n on a { remote none }\n}\ntimeout 5").length,
    1,
  );
  assert.equal(complaints("ressource r0\n{\n on a { }\n}").length, 1);
});

test("a statement in the wrong section is told where it belongs", () => {
  assert.deepEqual(complaints("local /dev/x"), [
    '1:1 "local" is not accepted outside all sections, only in a resource section, or in an on section of a resource',
  ]);
  assert.deepEqual(inResource("listen 10.0.0.1"), [
    '2:1 "listen" is not accepted in a resource section, only outside all sections, or in an on section',
  ]);
});

test("a forgotten value does not swallow the next statement", () => {
  assert.deepEqual(inResource("local\nname x"), ['3:1 "local" needs a value, found "name"']);
  assert.deepEqual(inResource("local name x"), ['2:7 "local" needs a value, found "name"']);
  assert.deepEqual(inResource("local"), ['3:1 "local" needs a value, found }']);
  assert.deepEqual(inResource("exec\nexport /x"), ['3:1 "exec" needs a value, found "export"']);
  assert.deepEqual(complaints("timeout"), [
    '1:8 "timeout" needs a value, found the end of the file',
  ]);
  assert.deepEqual(complaints("exec {\n}\n timeout 5"), ['1:6 "exec" needs a value, found {']);
});

test("a value may stand on the next line, and words of ours remain usable as names", () => {
  assert.deepEqual(inResource("metaflush\non\nlocal\n/dev/x"), []);
  assert.deepEqual(complaints("resource export { name device }"), []);
});

test("missing and surplus braces are found", () => {
  assert.deepEqual(complaints("resource r0 {\n on a { remote none }"), [
    '1:13 the { of "resource r0" is never closed; add a }',
  ]);
  assert.deepEqual(complaints("resource r0 {\n}\n}"), [
    "3:1 this } closes nothing; remove it, or a { is missing above",
  ]);
  assert.deepEqual(complaints("resource r0 {\n on a { remote none\n on b { remote none }\n}"), [
    '3:2 "on" cannot stand in an on section of a resource; the } of "on a", opened in line 2, seems to be missing',
  ]);
  assert.deepEqual(complaints("resource r0 {\n local /x\nresource r1 {\n}"), [
    '3:1 "resource" cannot stand in a resource section; the } of "resource r0", opened in line 1, seems to be missing',
  ]);
  assert.deepEqual(complaints("resource r0\non a { }"), [
    '2:1 expected { after "resource r0", found "on"',
  ]);
  assert.deepEqual(complaints("{ timeout 5 }"), [
    '1:1 a { can only follow "resource NAME" or "on NODE"',
  ]);
  assert.equal(complaints("bogus {\n{\n").length, 2);
});

test("sections need a name that the original could lex", () => {
  assert.deepEqual(complaints("resource { }"), [
    '1:10 expected the name of the resource after "resource", found {',
  ]);
  assert.deepEqual(complaints("resource 12 { }"), [
    '1:10 "12" cannot be the name of the resource: digits alone are a number; add a letter',
  ]);
  assert.deepEqual(complaints("on local { }"), [
    '1:4 "local" cannot be the name of a node: that is a reserved word of hast.conf',
  ]);
  assert.deepEqual(complaints("resource all { }"), [
    '1:10 no resource can be called "all": to hastctl it means every resource',
  ]);
  assert.deepEqual(complaints("resource my disk { }"), [
    '1:13 expected { after "resource my", found "disk"',
  ]);
});

test("lengths are limited as in the original (behaviour §15)", () => {
  const long = (length: number): string => "x".repeat(length);
  assert.deepEqual(complaints(`resource ${long(254)} { }`), []);
  assert.equal(complaints(`resource ${long(255)} { }`).length, 1);
  assert.deepEqual(inResource(`name ${long(254)}`), []);
  assert.equal(inResource(`name ${long(255)}`).length, 1);
  assert.deepEqual(inResource(`local /${long(1022)}`), []);
  assert.match(inResource(`local /${long(1023)}`)[0]!, /has 1024 characters; at most 1023/);
  assert.equal(complaints(`exec /${long(1023)}`).length, 1);
  assert.equal(complaints(`pidfile /${long(1023)}`).length, 1);
});

test("timeout is a positive number of seconds", () => {
  assert.deepEqual(complaints("timeout 1"), []);
  for (const wrong of ["0", "-1", "ten", "5s", "2147484", "99999999999999999999"]) {
    assert.match(complaints(`timeout ${wrong}`)[0]!, /number of seconds from 1 to 2147483/);
  }
});

test("addresses are checked while parsing, each for its purpose", () => {
  assert.deepEqual(inResource("on a { remote tcp://10.0.0.2:8457 source 10.0.0.1 }"), []);
  assert.match(inResource("remote tcp://")[0]!, /^2:8 "remote": address "tcp:\/\/": /);
  assert.match(inResource("remote 10.0.0.256")[0]!, /no IPv4 address/);
  assert.match(inResource("remote unix:///x")[0]!, /the nodes talk over TCP/);
  assert.match(complaints("listen /x")[0]!, /the nodes talk over TCP/);
  assert.match(complaints("control tcp://10.0.0.1")[0]!, /the control socket is local/);
  assert.match(complaints("export unix:///run/hast/")[0]!, /names a directory/);
  assert.match(complaints("export http://10.0.0.1")[0]!, /unknown scheme/);
});

test("paths must be absolute", () => {
  for (const text of ["exec hook.sh", "pidfile hastd.pid"]) {
    assert.match(complaints(text)[0]!, /write an absolute path/);
  }
  assert.match(inResource("local ada0")[0]!, /write an absolute path/);
});

test("a reserved word is no value, except none for remote", () => {
  assert.deepEqual(inResource("remote none"), []);
  assert.match(inResource("local none")[0]!, /reserved word/);
  assert.match(inResource("name 7")[0]!, /digits alone are a number/);
});

test("a word with an illegal character costs one complaint, wherever it stands", () => {
  assert.equal(complaints('listen "tcp://10.0.0.1"').length, 1);
  assert.equal(complaints("timeout=5").length, 1);
  assert.equal(complaints("resource r;0 { local /dev/x; }").length, 2);
  assert.equal(complaints("timeout 5;").length, 1);
});

test("tlspeer is a fingerprint as openssl(1) or hastctl prints it, and nothing else", () => {
  const digits = "8C:E3:".repeat(16).slice(0, -1);
  const bare = digits.replaceAll(":", "").toLowerCase();
  const peerOf = (text: string): unknown => {
    const { tree } = parseSyntax(`tlspeer ${text}`, "f");
    return tree.settings.tlspeer?.value;
  };
  assert.equal(peerOf(`sha256:${digits}`), `sha256:${bare}`);
  assert.equal(peerOf(`SHA256:${bare}`), `sha256:${bare}`);
  assert.equal(peerOf("none"), "none");
  for (const wrong of [
    bare,
    `sha1:${bare}`,
    `sha256:${bare}0`,
    `sha256:${bare.slice(1)}`,
    "sha256:",
  ]) {
    assert.match(
      complaints(`tlspeer ${wrong}`).join(),
      /"tlspeer" is sha256: and 64 .*hastctl tls show/,
    );
  }
});

test("tls:// is for remote alone, and the message says where else TLS is chosen", () => {
  assert.deepEqual(complaints("resource r { remote tls://b:1 on a { local /x } }"), []);
  assert.match(complaints("listen tls://0.0.0.0").join(), /each listener takes both/);
  assert.match(complaints("export tls://0.0.0.0").join(), /exporttls says whether TLS is required/);
  assert.match(
    complaints("resource r { on a { source tls://a } }").join(),
    /the nodes talk over TCP/,
  );
});

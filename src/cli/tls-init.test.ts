// SPDX-License-Identifier: BSD-2-Clause
/** tls init, tls show and tls client: what they run, what they print; the certificates themselves are real. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type GivenDesk, runAtDesk } from "../../test/cli/desk.ts";
import { readCertificate } from "../platform/node/certificate.ts";
import { runProgram } from "../platform/node/program.ts";
import { readTextFile } from "../platform/node/text-file.ts";
import { readTlsFiles, TlsFilesError } from "../platform/node/tls-files.ts";
import { tlsClient } from "./tls-client.ts";
import { tlsInit } from "./tls-init.ts";
import { tlsShow } from "./tls-show.ts";

let root = "";
before(() => {
  root = mkdtempSync(join(tmpdir(), "hast-tls-"));
});
after(() => rmSync(root, { recursive: true, force: true }));

const REAL: GivenDesk = { runProgram, readCertificate, readText: readTextFile };

test("tls init makes a pair that hastd takes, its key for the owner alone, and says what the other node needs", async () => {
  const dir = join(root, "new");
  const { out, exitCode } = await runAtDesk(tlsInit, ["--dir", dir, "alpha", "10.0.0.1"], REAL);
  assert.equal(exitCode, 0);
  const { own, warnings } = readTlsFiles(dir);
  assert.deepEqual(warnings, []);
  assert.equal(own.names, "DNS:alpha, IP Address:10.0.0.1");
  assert.equal(out.split("\n").filter((line) => line === `  tlspeer ${own.fingerprint}`).length, 1);
  assert.equal(statSync(join(dir, "key.pem")).mode & 0o777, 0o600);
  const shown = await runAtDesk(tlsShow, ["--dir", dir], REAL);
  assert.equal(shown.out, out);
});

test("tls init overwrites nothing without --force, and with it both files", async () => {
  const dir = join(root, "old");
  await runAtDesk(tlsInit, ["--dir", dir], REAL);
  const before = readTlsFiles(dir).own.fingerprint;
  const again = await runAtDesk(tlsInit, ["--dir", dir], REAL);
  assert.equal(again.exitCode, 73);
  assert.match(again.err, /has key\.pem or cert\.pem already.*nothing was changed/);
  assert.equal(readTlsFiles(dir).own.fingerprint, before);
  rmSync(join(dir, "cert.pem"));
  assert.equal((await runAtDesk(tlsInit, ["--dir", dir], REAL)).exitCode, 73);
  assert.equal((await runAtDesk(tlsInit, ["--dir", dir, "--force"], REAL)).exitCode, 0);
  assert.notEqual(readTlsFiles(dir).own.fingerprint, before);
});

test("tls init goes where hast.conf says, else to the default", async () => {
  const asked: string[] = [];
  const runProgram: GivenDesk["runProgram"] = async (argv) => {
    asked.push(argv[3]!);
    return { exitCode: 4 };
  };
  const conf = { files: { "/etc/hast.conf": "tlsdir /srv/tls\n" }, runProgram };
  const { err, exitCode } = await runAtDesk(tlsInit, [], conf);
  assert.equal(exitCode, 69);
  assert.match(err, /no openssl\(1\).*\n.*apt install openssl/);
  await runAtDesk(tlsInit, [], { runProgram });
  assert.deepEqual(asked, ["/srv/tls", "/etc/hast/tls"]);
});

test("names, days and directories that cannot be are refused before anything is made", () => {
  const wrong: readonly [readonly string[], Readonly<Record<string, string>>][] = [
    [["a b"], {}],
    [["x,DNS:y"], {}],
    [["$(id)"], {}],
    [[], { "--dir": "relative" }],
    [[], { "--days": "0" }],
    [[], { "--days": "-1" }],
  ];
  for (const [names, options] of wrong) {
    assert.notEqual(tlsInit.refuse(names, new Map(Object.entries(options))), null, names.join());
  }
  assert.equal(tlsInit.refuse(["alpha.example.org", "fd00::1"], new Map([["--days", "7"]])), null);
});

test("tls client makes what libnbd looks for, and this node accept it; once is enough for all", async () => {
  const dir = join(root, "server");
  const none = await runAtDesk(tlsClient, ["--dir", dir, "app1", join(root, "app1")], REAL);
  assert.equal(none.exitCode, 66);
  assert.match(none.err, /hastctl tls init/);
  await runAtDesk(tlsInit, ["--dir", dir], REAL);
  for (const name of ["app1", "app2"]) {
    const made = await runAtDesk(tlsClient, ["--dir", dir, name, join(root, name)], REAL);
    assert.equal(made.exitCode, 0, made.err);
  }
  const certificate = readFileSync(join(dir, "cert.pem"), "utf8");
  assert.equal(readFileSync(join(root, "app1/ca-cert.pem"), "utf8"), certificate);
  assert.equal(readFileSync(join(dir, "clients.pem"), "utf8"), certificate);
  assert.equal(statSync(join(root, "app1/client-key.pem")).mode & 0o777, 0o600);
  const facts = readCertificate(readFileSync(join(root, "app2/client-cert.pem"), "utf8"));
  assert.ok(!("failure" in facts) && facts.names === "DNS:app2");
});

test("tls init --force says that clients of the old certificate are still let in, and how to end that", async () => {
  const dir = join(root, "revoked");
  await runAtDesk(tlsInit, ["--dir", dir], REAL);
  const none = await runAtDesk(tlsInit, ["--dir", dir, "--force"], REAL);
  assert.doesNotMatch(none.out, /clients\.pem/);
  await runAtDesk(tlsClient, ["--dir", dir, "app1", join(root, "app1-revoked")], REAL);
  const { out, exitCode } = await runAtDesk(tlsInit, ["--dir", dir, "--force"], REAL);
  assert.equal(exitCode, 0);
  assert.match(out, /clients\.pem still lets in.*rm .*\/revoked\/clients\.pem/s);
});

test("hastd takes no key of another certificate, no garbage, and warns of a key that others can read", async () => {
  const [one, two] = [join(root, "one"), join(root, "two")];
  for (const dir of [one, two]) await runAtDesk(tlsInit, ["--dir", dir], REAL);
  const key = readFileSync(join(one, "key.pem"));
  writeFileSync(join(one, "key.pem"), readFileSync(join(two, "key.pem")));
  assert.throws(() => readTlsFiles(one), /key\.pem is not the key of .*hastctl tls init --force/);
  writeFileSync(join(one, "key.pem"), "garbage");
  assert.throws(() => readTlsFiles(one), /key\.pem holds no private key/);
  writeFileSync(join(one, "key.pem"), key, { mode: 0o600 });
  writeFileSync(join(one, "ca.pem"), "garbage");
  assert.throws(() => readTlsFiles(one), /ca\.pem holds no certificate/);
  rmSync(join(one, "key.pem"));
  assert.throws(() => readTlsFiles(one), TlsFilesError);
  writeFileSync(join(two, "key.pem"), readFileSync(join(two, "key.pem")));
  rmSync(join(two, "ca.pem"), { force: true });
  const open = join(two, "key.pem");
  const text = readFileSync(open);
  rmSync(open);
  writeFileSync(open, text, { mode: 0o644 });
  assert.match(readTlsFiles(two).warnings.join(), /Others may read .*chmod 600/);
});

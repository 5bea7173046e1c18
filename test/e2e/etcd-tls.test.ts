// SPDX-License-Identifier: BSD-2-Clause
/** hast-failover with an etcd that speaks TLS and asks everybody for a certificate. */
import { strict as expect } from "node:assert";
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Authority, type Certified } from "../certificates.ts";
import { until } from "../system/until.ts";

const PROGRAM = join(import.meta.dirname, "..", "..", "bin", "hast-failover");

test("certificates: etcdca, etcdcert and etcdkey lead to an etcd with --client-cert-auth", async () => {
  const directory = mkdtempSync(join(tmpdir(), "hast-etcd-tls-"));
  const [authority, stranger] = [new Authority("etcd"), new Authority("stranger")];
  const file = (name: string): string => join(directory, name);
  const write = (name: string, { key, certificate }: Certified): void => {
    writeFileSync(file(`${name}.key`), key);
    writeFileSync(file(`${name}.pem`), certificate);
  };
  // The gateway is a client of its own member, by the member's certificate: one for both uses.
  write("member", authority.certify({ names: "IP:127.0.0.1" }));
  write("own", authority.certify({ names: "DNS:alpha" }));
  write("foreign", stranger.certify({ names: "DNS:alpha" }));
  writeFileSync(file("ca.pem"), authority.certificate);
  const [client, peer] = [await freePort(), await freePort()];
  const member = `https://127.0.0.1:${client}`;
  const options = {
    name: "a",
    "data-dir": file("data"),
    "listen-client-urls": member,
    "advertise-client-urls": member,
    "listen-peer-urls": `http://127.0.0.1:${peer}`,
    "initial-advertise-peer-urls": `http://127.0.0.1:${peer}`,
    "initial-cluster": `a=http://127.0.0.1:${peer}`,
    "cert-file": file("member.pem"),
    "key-file": file("member.key"),
    "trusted-ca-file": file("ca.pem"),
    "client-cert-auth": "true",
    "log-level": "error",
  };
  const words = Object.entries(options).map(([name, value]) => `--${name}=${value}`);
  const etcd = spawn("etcd", words, { stdio: "ignore" });
  const ended = new Promise((resolve) => etcd.once("exit", resolve));
  mkdirSync(file("etc"));
  writeFileSync(
    file("hast.conf"),
    "arbiter on\nresource disk1 {\n  local /dev/null\n  on alpha {\n    remote 10.0.0.2\n  }\n" +
      "  on beta {\n    remote 10.0.0.1\n  }\n}\n",
  );
  const status = (files: Readonly<Record<string, string>>) => {
    const values = {
      group: "data",
      resources: "disk1",
      config: file("hast.conf"),
      etcd: member,
      ...files,
    };
    const lines = Object.entries(values).map(([name, value]) => `${name}="${value}"\n`);
    writeFileSync(file("etc/failover.conf"), lines.join(""));
    return spawnSync(PROGRAM, ["status", "-c", file("etc")], {
      encoding: "utf8",
      env: { ...process.env, HAST_NODE: "alpha" },
    });
  };
  const files = { etcdca: file("ca.pem"), etcdcert: file("own.pem"), etcdkey: file("own.key") };
  try {
    await until("etcd answers", () => status(files).status === 1, { withinMs: 60_000 });
    const { stdout, stderr } = status(files);
    expect.match(stdout, /^data:\n {2}leader: nobody\n {2}in step for disk1: nobody\n$/);
    expect.match(stderr, /hast-failover seed/);

    const { etcdca } = files;
    const nobody = status({ etcdca });
    expect.equal(nobody.status, 69);
    expect.match(nobody.stderr, /it wants a certificate that it accepts/);
    expect.match(nobody.stderr, /etcdcert= and etcdkey=/);
    const foreign = { etcdca, etcdcert: file("foreign.pem"), etcdkey: file("foreign.key") };
    expect.match(status(foreign).stderr, /it wants a certificate that it accepts/);
    const unknown = status({ ...files, etcdca: file("foreign.pem") });
    expect.match(unknown.stderr, /no authority that is known here vouches for its certificate/);
    const mixed = status({ ...files, etcdkey: file("foreign.key") });
    expect.equal(mixed.status, 78);
    expect.match(mixed.stderr, /key values mismatch/);
  } finally {
    etcd.kill();
    await ended;
    authority.close();
    stranger.close();
    rmSync(directory, { recursive: true });
  }
});

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => {
        if (address === null || typeof address === "string") reject(new Error("no port"));
        else resolve(address.port);
      });
    });
  });
}

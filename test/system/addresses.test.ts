// SPDX-License-Identifier: BSD-2-Clause
/** Where nodes listen and whence they connect: both families, several addresses, names that nobody resolves. */

import { strict as assert } from "node:assert";
import { createSocket } from "node:dgram";
import { writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { expectCommand } from "./command.ts";
import { bytesOf, makeDisk, type Node, TwoNodes, withPair } from "./two-nodes.ts";
import { until } from "./until.ts";

const SIZE = 16 * 1024 * 1024;

/** A port that nobody has on `host` now. */
function freePort(host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, host, () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

interface Ends {
  readonly remote: string;
  readonly source?: string;
}

interface Setting {
  readonly listen: Readonly<Record<"alpha" | "beta", readonly string[]>>;
  /** By resource: whom each node connects to, and from where. */
  readonly resources: Readonly<Record<string, Readonly<Record<"alpha" | "beta", Ends>>>>;
}

function localOf(pair: TwoNodes, node: Node, resource: string): string {
  return join(pair.directory, `${node.name}.${resource}.img`);
}

function configure(pair: TwoNodes, { listen, resources }: Setting): void {
  const lines = pair.nodes.flatMap((node) => [
    `device none`,
    `on ${node.name} {`,
    `  control ${node.control}`,
    `  pidfile ${node.pidfile}`,
    ...listen[node.name].map((address) => `  listen ${address}`),
    `}`,
  ]);
  for (const [name, ends] of Object.entries(resources)) {
    lines.push(`resource ${name} {`, `  timeout 5`, `  device none`);
    for (const node of pair.nodes) {
      const { remote, source } = ends[node.name];
      lines.push(
        `  on ${node.name} {`,
        `    local ${localOf(pair, node, name)}`,
        `    remote ${remote}`,
        ...(source === undefined ? [] : [`    source ${source}`]),
        `    export unix://${join(pair.directory, `${node.name}.${name}.sock`)}`,
        `  }`,
      );
    }
    lines.push(`}`);
  }
  writeFileSync(pair.configuration, `${lines.join("\n")}\n`);
}

/** Runs hastctl. @throws Error unless it succeeds */
async function ask(node: Node, command: string, ...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await node.hastctl(command, ...args);
  if (code !== 0) throw new Error(`${node.name}: ${command} ${args.join(" ")}: ${code}\n${stderr}`);
  return stdout;
}

async function create(pair: TwoNodes, resources: readonly string[]): Promise<void> {
  for (const node of pair.nodes) {
    for (const name of resources) {
      makeDisk(localOf(pair, node, name), SIZE);
      await ask(node, "create", name);
    }
  }
}

async function complete(node: Node, resource: string): Promise<void> {
  await until(
    `${resource} is complete on ${node.name}`,
    async () => {
      const listing = await ask(node, "list", resource);
      const dirty = /^ {2}dirty: (.*)$/m.exec(listing)?.[1];
      return /^ {2}status: complete$/m.test(listing) && bytesOf(dirty) === 0;
    },
    { withinMs: 20_000 },
  );
}

/** Connections to a port, as ss(8) shows them: "local remote". */
async function connectionsTo(port: number): Promise<string[]> {
  const shown = await expectCommand("ss", ["-Htn", "state", "established", `dport = :${port}`]);
  const lines = shown.split("\n").filter((line) => line !== "");
  return lines.map((line) => line.trim().split(/\s+/).slice(2, 4).join(" "));
}

test("two nodes replicate over IPv6, IPv4, and an IPv4 address in IPv6's clothes, on several addresses at once", () =>
  withPair(TwoNodes.prepare(), async (pair) => {
    const { alpha, beta } = pair;
    const four = { alpha: alpha.place.host, beta: beta.place.host };
    const six = { alpha: await freePort("::1"), beta: await freePort("::1") };
    const spare = await freePort(four.beta);
    const resources = {
      six: {
        alpha: { remote: `tcp6://[::1]:${six.beta}`, source: "tcp6://::1" },
        beta: { remote: `tcp://[::1]:${six.alpha}` },
      },
      four: {
        alpha: {
          remote: `tcp4://${four.beta}:${beta.place.port}`,
          source: `tcp4://${four.alpha}`,
        },
        beta: { remote: `${four.alpha}:${alpha.place.port}`, source: four.beta },
      },
      // What other software calls the same addresses; and beta's second IPv4 address.
      mapped: {
        alpha: {
          remote: `tcp6://[::ffff:${four.beta}]:${spare}`,
          source: `tcp4://${four.alpha}`,
        },
        beta: { remote: `tcp6://[::ffff:${four.alpha}]:${alpha.place.port}` },
      },
    };
    configure(pair, {
      listen: {
        alpha: [`tcp4://${four.alpha}:${alpha.place.port}`, `tcp6://[::1]:${six.alpha}`],
        beta: [
          `tcp4://${four.beta}:${beta.place.port}`,
          `tcp4://${four.beta}:${spare}`,
          `tcp6://[::1]:${six.beta}`,
        ],
      },
      resources,
    });
    await create(pair, Object.keys(resources));
    await Promise.all(pair.nodes.map((node) => node.start()));
    await ask(beta, "role", "secondary", "all");
    await ask(alpha, "role", "primary", "all");
    for (const name of Object.keys(resources)) await complete(alpha, name);
    // Both connections of a resource come from where `source` says.
    for (const [port, from] of [
      [six.beta, /^\[::1\]:/],
      [beta.place.port, new RegExp(`^${four.alpha.replaceAll(".", "\\.")}:`)],
      [spare, new RegExp(`^(\\[::ffff:)?${four.alpha.replaceAll(".", "\\.")}\\]?:`)],
    ] as const) {
      const seen = await connectionsTo(port);
      assert.equal(seen.length, 2, `${port}: ${seen.join()}`);
      for (const line of seen) assert.match(line, from);
    }
    // And the other way round.
    await ask(alpha, "role", "secondary", "all");
    await ask(beta, "role", "primary", "all");
    for (const name of ["six", "four"]) await complete(beta, name);
  }));

test("`remote none`: a resource alone asks nobody, lets nobody in, and says so", () =>
  withPair(TwoNodes.prepare({ mediaSize: SIZE }), async (pair) => {
    const { alpha } = pair;
    pair.configureAlone();
    await alpha.create();
    await alpha.start();
    await alpha.role("primary");
    const client = await alpha.connect();
    await client.write(0, Buffer.alloc(4096, 1));
    await client.flush();
    await client.disconnect();
    const listing = await alpha.list();
    assert.equal(listing.get("remoteaddr"), "none");
    assert.equal(listing.get("status"), "degraded");
    // A stranger, as everybody is here: closed without a word.
    const heard = await new Promise<string>((resolve) => {
      const socket = connect({ ...alpha.place, localAddress: pair.beta.place.host });
      let text = "";
      socket.on("data", (bytes) => {
        text += bytes;
      });
      socket.on("error", () => resolve(text));
      socket.on("close", () => resolve(text));
    });
    assert.equal(heard, "");
    assert.match(alpha.logText(), /no resource of hast\.conf has it as its remote/);
  }));

test("BD-22: names that no name server answers for hold up nobody else", () =>
  withPair(TwoNodes.prepare(), async (pair) => {
    const { alpha, beta } = pair;
    // A name server that hears and never answers.
    const silence = createSocket("udp4");
    await new Promise<void>((resolve) => silence.bind(53, alpha.place.host, resolve));
    let asked = 0;
    silence.on("message", () => {
      asked++;
    });
    try {
      const resolver = join(pair.directory, "resolv.conf");
      writeFileSync(resolver, `nameserver ${alpha.place.host}\noptions timeout:30 attempts:2\n`);
      alpha.wrapper = [
        "unshare",
        "--mount",
        // What is unmounted outside is unmounted here: or this would hold other tests' file systems.
        "--propagation=slave",
        "sh",
        "-c",
        `mount --bind ${resolver} /etc/resolv.conf && exec "$@"`,
        "sh",
      ];
      const address = (node: Node) => `tcp4://${node.place.host}:${node.place.port}`;
      const known = {
        alpha: { remote: address(beta), source: `tcp4://${alpha.place.host}` },
        beta: { remote: address(alpha), source: `tcp4://${beta.place.host}` },
      };
      const lost = (name: string) => ({ alpha: { remote: name }, beta: { remote: "none" } });
      const resources = {
        known,
        lost1: lost("nowhere.example"),
        lost2: lost("tcp://elsewhere.example:9000"),
        lost3: lost("far.example"),
        lost4: lost("away.example"),
        lost5: lost("gone.example"),
      };
      configure(pair, {
        listen: { alpha: [address(alpha)], beta: [address(beta)] },
        resources,
      });
      await create(pair, Object.keys(resources));
      await Promise.all(pair.nodes.map((node) => node.start()));
      await ask(beta, "role", "secondary", "known");
      // New copies ask nobody for long: without a name there is nobody to ask.
      await ask(alpha, "role", "primary", "known");
      await complete(alpha, "known");
      for (const name of Object.keys(resources)) {
        if (name === "known") continue;
        void alpha.hastctl("role", "primary", name);
      }
      await until("the name server was asked", () => asked >= 3);
      for (let round = 0; round < 5; round++) {
        const before = performance.now();
        await ask(alpha, "status", "known");
        // A lookup takes a minute, and a busy machine some seconds for anything.
        assert.ok(performance.now() - before < 10_000, "status while names are looked for");
      }
      // The daemon lets its known peer in as ever, while a stranger is looked up.
      await ask(alpha, "role", "secondary", "known");
      await ask(beta, "role", "primary", "known");
      await complete(beta, "known");
    } finally {
      silence.close();
    }
  }));

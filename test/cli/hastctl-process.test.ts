// SPDX-License-Identifier: BSD-2-Clause
/** hastctl as a process: what its callers see, against a hastd that replays captured answers. */

import { strict as expect } from "node:assert";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { decodeControlRequest } from "../../src/wire/control.ts";
import { FRAME_HEADER_SIZE } from "../../src/wire/frame.ts";
import { golden } from "../golden/vectors.ts";

const PROGRAM = join(import.meta.dirname, "../../src/bin/hastctl.ts");

interface Exchange {
  readonly name: string;
  readonly args: readonly string[];
  readonly exit: number;
  readonly stderr: string;
}

interface Site {
  readonly directory: string;
  run(
    command: string,
    ...words: readonly string[]
  ): Promise<{ code: number; stdout: string; stderr: string }>;
}

async function atSite(use: (site: Site) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "hast-cli-"));
  const configuration = join(directory, "hast.conf");
  writeFileSync(
    configuration,
    `control ${directory}/control
     resource r0 { local ${directory}/r0 on alpha { remote 10.0.0.2 } }`,
  );
  const env = { PATH: process.env["PATH"], HAST_NODE: "alpha" };
  try {
    await use({
      directory,
      run: (command, ...words) =>
        new Promise((resolve) => {
          const all = [PROGRAM, command, "-c", configuration, ...words];
          execFile(process.execPath, all, { env }, (error, stdout, stderr) => {
            resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
          });
        }),
    });
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Answers each connection's one request with `reply`. */
async function listen(
  path: string,
  reply: Uint8Array,
): Promise<{ server: Server; requests: Buffer[] }> {
  const requests: Buffer[] = [];
  const server = createServer((socket) => {
    socket.once("data", (bytes) => {
      requests.push(bytes as Buffer);
      socket.end(reply);
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return { server, requests };
}

test("a captured exchange gives the captured output and exit code", () =>
  atSite(async ({ directory, run }) => {
    const exchanges = JSON.parse(
      new TextDecoder().decode(golden("control/decoded.json")),
    ) as Exchange[];
    // A process each, so one of a kind; the commands' own tests read them all.
    const names = [
      "06-role-primary-all",
      "08-list-primary-complete",
      "13-role-unknown",
      "14-status-mixed",
      "15-status-primary-degraded",
    ];
    for (const name of names.map((each) => `control/${each}`)) {
      const exchange = exchanges.find((each) => each.name === name)!;
      const { server, requests } = await listen(
        join(directory, "control"),
        golden(`${name}.rep.bin`),
      );
      const [command, ...words] = exchange.args;
      const result = await run(command!, ...words);
      server.close();
      expect.deepEqual(
        result,
        {
          code: exchange.exit,
          stdout: new TextDecoder().decode(golden(`${name}.stdout.txt`)),
          stderr: exchange.stderr,
        },
        name,
      );
      // What we ask is what the original asked, and that we understand more.
      const asked = decodeControlRequest(requests[0]!.subarray(FRAME_HEADER_SIZE));
      const original = decodeControlRequest(golden(`${name}.req.bin`).subarray(FRAME_HEADER_SIZE));
      expect.deepEqual({ ...asked, extended: null }, { ...original, extended: null }, name);
    }
  }));

test("create and dump work on a real file, and a second create is refused", () =>
  atSite(async ({ directory, run }) => {
    const missing = await run("create", "r0");
    expect.equal(missing.code, 66);
    expect.match(missing.stderr, /r0 does not exist\.[\s\S]*truncate -s 10G/);

    writeFileSync(join(directory, "r0"), "");
    truncateSync(join(directory, "r0"), 16 * 1024 * 1024);
    expect.deepEqual(await run("create", "r0"), { code: 0, stdout: "", stderr: "" });
    const dump = await run("dump", "r0");
    expect.equal(dump.code, 0);
    expect.match(
      dump.stdout,
      /^resource: r0\n {4}datasize: 15728640 \(15MB\)\n[\s\S]* {4}state: new\n$/,
    );
    expect.equal((await run("create", "r0")).code, 65);
    expect.equal((await run("create", "--force", "r0")).code, 0);
  }));

test("without hastd, without configuration and without command the exit codes are 71, 72 and 64", () =>
  atSite(async ({ directory, run }) => {
    const status = await run("status");
    expect.equal(status.code, 71);
    expect.match(status.stderr, new RegExp(`${directory}/control: no such file or directory`));
    expect.equal((await run("status", "-c", join(directory, "none"))).code, 72);
    expect.equal((await run("bogus")).code, 64);
  }));

test("a reader that closes early does no harm", () =>
  atSite(async ({ directory, run }) => {
    const { server } = await listen(
      join(directory, "control"),
      golden("control/08-list-primary-complete.rep.bin"),
    );
    expect.equal((await run("list")).code, 0);
    const configuration = join(directory, "hast.conf");
    const line = `"${process.execPath}" "${PROGRAM}" list -c "${configuration}" | true`;
    const stderr = await new Promise<string>((resolve) => {
      execFile(
        "sh",
        ["-c", line],
        { env: { ...process.env, HAST_NODE: "alpha" } },
        (_error, _out, err) => resolve(err),
      );
    });
    server.close();
    expect.equal(stderr, "");
  }));

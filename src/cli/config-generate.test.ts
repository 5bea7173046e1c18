// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { runAtDesk } from "../../test/cli/desk.ts";
import { type Config, readConfig } from "../config/config.ts";
import { configGenerate } from "./config-generate.ts";
import { parseOptions } from "./options.ts";

const PAIR = ["alpha=10.0.0.1", "beta=10.0.0.2", "shared=/dev/sdb"];

function configOf(text: string, node: string): Config {
  const result = readConfig(text, "f", { names: [node], uuid: null, hostid: null });
  if (result.kind === "complaints") throw new Error(result.complaints[0]!.message);
  return result.config;
}

/** What refuse() says to the words. */
function refusal(...words: readonly string[]): string | null {
  const parsed = parseOptions(words, configGenerate.options);
  if (parsed.kind === "wrong") throw new Error(parsed.message);
  return configGenerate.refuse(parsed.args, parsed.options);
}

/** Two machines in two folders: what runs "there" over ssh has the folder's name exchanged in its script. */
interface Machines {
  readonly here: string;
  readonly there: string;
  readonly ran: string[];
  /** What the programs said on stderr. */
  readonly said: string[];
  generate(...words: readonly string[]): ReturnType<typeof runAtDesk>;
}

function machines(t: TestContext): Machines {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "hast-generate-"));
  t.after(() => fs.rmSync(root, { recursive: true }));
  const here = path.join(root, "here");
  const there = path.join(root, "there");
  const ran: string[] = [];
  const said: string[] = [];
  return {
    here,
    there,
    ran,
    said,
    generate: (...words) =>
      runAtDesk(configGenerate, words, {
        runProgram: async (argv, input) => {
          ran.push(argv.join(" "));
          const script = argv[0] === "ssh" ? input.replaceAll(here, there) : input;
          const { status, stderr } = spawnSync("sh", [], { input: script, encoding: "utf8" });
          said.push(stderr);
          return { exitCode: status! };
        },
      }),
  };
}

test("nodes and resources make a hast.conf, on stdout, that both nodes read as meant", async () => {
  const words = [
    "alpha=10.0.0.1",
    "beta=[fd00::2]:99",
    "shared=/dev/sdb",
    "logs=/dev/vg/a,/dev/vg/b",
  ];
  const { out, err, exitCode } = await runAtDesk(configGenerate, words, {});
  assert.deepEqual({ err, exitCode }, { err: "", exitCode: 0 });
  const alpha = configOf(out, "alpha");
  const beta = configOf(out, "beta");
  assert.deepEqual(alpha.listen, ["10.0.0.1"]);
  assert.deepEqual(beta.listen, ["[fd00::2]:99"]);
  assert.deepEqual(
    alpha.resources.map(({ name, local, remote, source }) => ({ name, local, remote, source })),
    [
      { name: "shared", local: "/dev/sdb", remote: "[fd00::2]:99", source: "10.0.0.1" },
      { name: "logs", local: "/dev/vg/a", remote: "[fd00::2]:99", source: "10.0.0.1" },
    ],
  );
  assert.deepEqual(
    beta.resources.map(({ local, remote, source }) => ({ local, remote, source })),
    [
      { local: "/dev/sdb", remote: "10.0.0.1", source: "fd00::2" },
      { local: "/dev/vg/b", remote: "10.0.0.1", source: "fd00::2" },
    ],
  );
});

test("names instead of addresses are the peer's only: nodes then listen everywhere", async () => {
  const { out } = await runAtDesk(configGenerate, ["a=a.example", "b=b.example", "r=/d"], {});
  const config = configOf(out, "a");
  assert.equal(config.listenByDefault, true);
  assert.equal(config.resources[0]!.remote, "b.example");
  assert.equal(config.resources[0]!.source, null);
});

test("what hastd would refuse is not made: the parser is the same", async () => {
  for (const [words, message] of [
    [["a=10.0.0.1", "b=10.0.0.2", "all=/d"], /no resource can be called "all"/],
    [["a=10.0.0.1", "b=10.0.0.2", "r=sdb"], /write an absolute path[\s\S]*The line is: local sdb/],
    [["a=10.0.0.1", "b=10.0.0.2", "r=/d", "q=/d"], /each needs its own/],
    [["on=10.0.0.1", "b=10.0.0.2", "r=/d"], /reserved word/],
    [["a=10.0.0.1", "b=10.0.0.2", "r=/a b"], /"\/a b"|unknown statement "b"/],
    [["a=10.0.0.1", "b=10.0.0.2", "r=/a'b"], /illegal character/],
  ] as const) {
    const { out, err, exitCode } = await runAtDesk(configGenerate, words, {});
    assert.deepEqual({ out, exitCode }, { out: "", exitCode: 65 });
    assert.match(err, message);
  }
});

test("arguments and options that make no sense are refused, with what to write", () => {
  for (const [words, message] of [
    [[], /name both nodes/],
    [["a=10.0.0.1", "b=10.0.0.2"], /name both nodes/],
    [["a=10.0.0.1", "b", "r=/d"], /"b" is no node: write NAME=ADDRESS/],
    [["a=10.0.0.1", "b=10.0.0.999", "r=/d"], /10\.0\.0\.999 is no IPv4 address/],
    [["a=10.0.0.1", "b=/run/x", "r=/d"], /no network address/],
    [["a=10.0.0.1", "a=10.0.0.2", "r=/d"], /not a twice/],
    [["a=10.0.0.1", "b=10.0.0.1", "r=/d"], /cannot share the address/],
    [["a=10.0.0.1", "b=10.0.0.2", "r"], /"r" is no resource/],
    [["a=10.0.0.1", "b=10.0.0.2", "r=/d@big"], /"big" is no size/],
    [["a=10.0.0.1", "b=10.0.0.2", "r=/d@0"], /"0" is no size/],
    [[...PAIR, "r=/d@1g"], /add --output/],
    [[...PAIR, "--push"], /--push needs --output/],
    [[...PAIR, "--force"], /--force needs --output/],
    [[...PAIR, "--push", "--output", "x"], /absolute path/],
    [[...PAIR, "--output", "/etc/'x"], /not accepted/],
    [[...PAIR, "--output", "/etc/"], /not accepted/],
    [[...PAIR, "--output", "/x", "--service", "10.0.0.9/24"], /go together/],
    [[...PAIR, "--output", "/x", "--interface", "eth0"], /go together/],
    [[...PAIR, "--output", "/x", "--service", "10.0.0.9", "--interface", "eth0"], /--service 10/],
    [
      [...PAIR, "--output", "/x", "--service", "10.0.0.9/33", "--interface", "eth0"],
      /--service 10/,
    ],
    [[...PAIR, "--output", "/x", "--service", "10.0.0.9/24", "--interface", "e;0"], /--service 10/],
  ] as const) {
    assert.match(refusal(...words) ?? "nothing", message, words.join(" "));
  }
  assert.equal(refusal(...PAIR), null);
});

test("--output writes the file, and never over another without --force", async (t) => {
  const { here, ran, said, generate } = machines(t);
  const file = `${here}/etc/hast.conf`;
  const first = await generate(...PAIR, "--output", file);
  assert.deepEqual(first, { exitCode: 0, out: `alpha: wrote ${file}\n`, err: "" });
  assert.deepEqual(ran, ["sh", "sh"]);
  assert.equal(fs.statSync(file).mode & 0o777, 0o644);
  assert.deepEqual(fs.readdirSync(path.dirname(file)), ["hast.conf"]);
  const text = fs.readFileSync(file, "utf8");
  assert.equal(text, (await runAtDesk(configGenerate, PAIR, {})).out);

  fs.writeFileSync(file, "mine");
  const again = await generate(...PAIR, "--output", file);
  assert.equal(again.exitCode, 73);
  assert.match(
    again.err,
    /^\[ERROR\] On alpha there are such files already; nothing was written\.\n/,
  );
  assert.match(said.join(""), /hast\.conf exists\n$/);
  assert.equal(fs.readFileSync(file, "utf8"), "mine");

  assert.equal((await generate(...PAIR, "--output", file, "--force")).exitCode, 0);
  assert.equal(fs.readFileSync(file, "utf8"), text);
});

test("a link in the way is a file in the way", async (t) => {
  const { here, generate } = machines(t);
  fs.mkdirSync(here);
  fs.symlinkSync("/nowhere", `${here}/f`);
  assert.equal((await generate(...PAIR, "--output", `${here}/f`)).exitCode, 73);
});

test("--push writes the same files there; the component files of each node are its own", async (t) => {
  const { here, there, ran, generate } = machines(t);
  const words = ["alpha=10.0.0.1", "beta=10.0.0.2:99", `r=${here}/a.img,${here}/b.img@3k`];
  const { exitCode, out } = await generate(...words, "--output", `${here}/f`, "--push");
  assert.equal(exitCode, 0);
  assert.equal(out, `alpha: wrote ${here}/f\nbeta: wrote ${here}/f\n`);
  assert.deepEqual(ran, ["sh", "ssh 10.0.0.2 sh", "sh", "ssh 10.0.0.2 sh"]);
  assert.deepEqual(fs.readdirSync(here).toSorted(), ["a.img", "f"]);
  assert.deepEqual(fs.readdirSync(there).toSorted(), ["b.img", "f"]);
  assert.equal(fs.statSync(`${there}/b.img`).size, 3072);
});

test("a file in the way there keeps everything from being written here, too", async (t) => {
  const { here, there, said, generate } = machines(t);
  fs.mkdirSync(there, { recursive: true });
  fs.writeFileSync(`${there}/f`, "theirs");
  const { exitCode, err } = await generate(...PAIR, "--output", `${here}/f`, "--push");
  assert.equal(exitCode, 73);
  assert.match(err, /On beta there are such files already; nothing was written/);
  assert.equal(fs.existsSync(here), false);
  assert.equal(fs.readFileSync(`${there}/f`, "utf8"), "theirs");
  assert.match(said.join(""), /exists/);
});

test("a component file that exists keeps its size and content, even with --force", async (t) => {
  const { here, generate } = machines(t);
  fs.mkdirSync(here);
  fs.writeFileSync(`${here}/img`, "data");
  const words = [...PAIR.slice(0, 2), `r=${here}/img@1m`, "--output", `${here}/f`, "--force"];
  assert.equal((await generate(...words)).exitCode, 0);
  assert.equal(fs.readFileSync(`${here}/img`, "utf8"), "data");
});

test("--dry-run prints the scripts and runs nothing; with a shell they do what was said", async (t) => {
  const { here, ran, generate } = machines(t);
  const { exitCode, out } = await generate(...PAIR, "--output", `${here}/f`, "--push", "--dry-run");
  assert.equal(exitCode, 0);
  assert.deepEqual(ran, []);
  assert.equal(fs.existsSync(here), false);
  assert.match(out, /^# Would run on alpha, with: sh$/m);
  assert.match(out, /^# Would run on beta, with: ssh 10\.0\.0\.2 sh$/m);
  assert.match(out, /^\(umask 077; cat >/m); // secrets are none's even while they are written
  const [, local] = out.split(/^# Would run.*\n/m);
  assert.equal(spawnSync("sh", [], { input: local! }).status, 0);
  assert.equal(
    fs.readFileSync(`${here}/f`, "utf8"),
    (await runAtDesk(configGenerate, PAIR, {})).out,
  );
});

test("a node that ssh does not reach: nothing is written, and what has to work is shown", async () => {
  for (const result of [{ exitCode: 255 }, { failure: "no such file or directory" }]) {
    const ran: string[] = [];
    const { exitCode, err } = await runAtDesk(
      configGenerate,
      [...PAIR, "--output", "/x", "--push"],
      {
        runProgram: async (argv) => {
          ran.push(argv.join(" "));
          return argv[0] === "ssh" ? result : { exitCode: 0 };
        },
      },
    );
    assert.equal(exitCode, 69);
    assert.match(
      err,
      /^\[ERROR\] ssh could not be run for beta: .*\n.*Nothing was written.*\n {4}ssh 10\.0\.0\.2 true\n$/,
    );
    assert.deepEqual(ran, ["sh", "ssh 10.0.0.2 sh"]); // both looked, neither wrote
  }
});

test("writing that fails says so", async (t) => {
  const { here, generate } = machines(t);
  fs.writeFileSync(here, "a file where the folder should be");
  const { exitCode, err } = await generate(...PAIR, "--output", `${here}/f`);
  assert.equal(exitCode, 73);
  assert.match(err, /^\[ERROR\] Writing on alpha failed/);
});

test("a third machine can write the file, but neither push it nor make component files", async () => {
  const here = { names: ["gamma"], uuid: null, hostid: null };
  const runProgram = async () => ({ exitCode: 0 });
  const words = [...PAIR, "--output", "/x"];
  const written = await runAtDesk(configGenerate, words, { here, runProgram });
  assert.deepEqual(written, { exitCode: 0, out: "this machine: wrote /x\n", err: "" });
  for (const more of [["--push"], ["r=/d@1m"]]) {
    const { exitCode, err } = await runAtDesk(configGenerate, [...words, ...more], { here });
    assert.equal(exitCode, 64);
    assert.match(err, /This machine is gamma, neither alpha nor beta\.\n.*-n/);
  }
});

test("with a service address the files for keepalived and ucarp are written beside it", async (t) => {
  const { here, generate } = machines(t);
  const service = ["--service", "10.0.0.10/24", "--interface", "eth0"];
  const { exitCode } = await generate(...PAIR, "--output", `${here}/hast.conf`, ...service);
  assert.equal(exitCode, 0);
  const directory = `${here}/hast-failover`;
  const modes = Object.fromEntries(
    fs.readdirSync(directory).map((name) => {
      return [name, (fs.statSync(`${directory}/${name}`).mode & 0o777).toString(8)];
    }),
  );
  assert.deepEqual(modes, {
    failover: "755",
    "failover.conf": "644",
    "keepalived-alpha.conf": "644",
    "keepalived-beta.conf": "644",
    "ucarp-alpha.service": "644",
    "ucarp-beta.service": "644",
    "ucarp-down": "755",
    "ucarp-start": "755",
    "ucarp-up": "755",
    "ucarp.conf": "644",
    "ucarp.password": "600",
  });
  assert.equal(fs.readFileSync(`${directory}/ucarp.password`, "utf8"), `${"07".repeat(8)}\n`);
});

test("any words are refused, or make a file that both nodes can read or are told about", async () => {
  const word = fc.oneof(
    fc.constantFrom(
      ...PAIR,
      "--output",
      "/etc/x",
      "--push",
      "r=/a,/b@1g",
      "--service",
      "10.0.0.1/8",
    ),
    fc.string({ maxLength: 20 }),
    fc.tuple(fc.string({ maxLength: 5 }), fc.string({ maxLength: 5 })).map(([a, b]) => `${a}=${b}`),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(word, { maxLength: 6 }), async (words) => {
      const parsed = parseOptions([...PAIR, ...words], configGenerate.options);
      if (parsed.kind === "wrong" || parsed.common.node !== null) return;
      if (configGenerate.refuse(parsed.args, parsed.options) !== null) return;
      const runProgram = async () => ({ exitCode: 0 });
      const { exitCode, out } = await runAtDesk(configGenerate, [...PAIR, ...words], {
        runProgram,
      });
      assert.ok([0, 64, 65].includes(exitCode));
      if (exitCode === 0 && !parsed.options.has("--output"))
        configOf(out, parsed.args[0]!.split("=")[0]!);
    }),
    { numRuns: 500 },
  );
});

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import type { ProcessExit } from "../process.ts";
import { nodePrograms } from "./watched-program.ts";

interface Run {
  readonly pid: number;
  readonly lines: string[];
  readonly exit: Promise<ProcessExit>;
  kill(signal: "SIGTERM" | "SIGKILL"): void;
}

function sh(script: string, environment: Record<string, string> = {}): Run {
  return start(["/bin/sh", "-c", script, "sh"], environment);
}

function start(argv: readonly string[], environment: Record<string, string> = {}): Run {
  const lines: string[] = [];
  const { promise, resolve } = Promise.withResolvers<ProcessExit>();
  const program = nodePrograms.start(argv, environment, {
    line: (stream, text) => lines.push(`${stream} ${text}`),
    exited: resolve,
  });
  return { pid: program.pid, lines, exit: promise, kill: (signal) => program.kill(signal) };
}

test("a program's output comes in lines, the last one before its end", async () => {
  const run = sh("printf 'one\\ntwo\\n\\nlast'; echo wrong >&2; exit 3");
  assert.deepEqual(await run.exit, { kind: "code", code: 3 });
  assert.deepEqual(
    run.lines.filter((line) => line.startsWith("stdout")),
    ["stdout one", "stdout two", "stdout ", "stdout last"],
  );
  assert(run.lines.includes("stderr wrong"));
});

test("a line without end comes in pieces", async () => {
  const run = sh("head -c 2500 /dev/zero | tr '\\0' x; echo");
  await run.exit;
  assert.deepEqual(
    run.lines.map((line) => line.length - "stdout ".length),
    [1000, 1000, 500],
  );
});

test("a program starts in /, reads nothing, and inherits our environment, changed, but no descriptor", async (t) => {
  const fd = fs.openSync("/dev/null", "r");
  t.after(() => fs.closeSync(fd));
  const run = sh(
    `pwd; cat; echo $HAST_EVENT; test -n "$PATH" && echo path; [ ! -e /proc/$$/fd/${fd} ]`,
    {
      HAST_EVENT: "connect",
    },
  );
  assert.deepEqual(await run.exit, { kind: "code", code: 0 });
  assert.deepEqual(run.lines, ["stdout /", "stdout connect", "stdout path"]);
});

test("what cannot be started says why", async () => {
  const run = start(["/nonexistent/hook"]);
  assert.equal(run.pid, 0);
  const exit = await run.exit;
  assert(exit.kind === "not-started");
  assert.match(exit.reason, /ENOENT/);
});

test("a program is killed with all it has started", async () => {
  const run = sh("sleep 1000 & echo $!; wait");
  while (run.lines.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  const child = Number(run.lines[0]!.replace("stdout ", ""));
  run.kill("SIGKILL");
  assert.deepEqual(await run.exit, { kind: "signal", signal: "SIGKILL" });
  // Where nothing reaps orphans, a zombie stays.
  const gone = () =>
    !fs.existsSync(`/proc/${child}`) ||
    /\) Z /.test(fs.readFileSync(`/proc/${child}/stat`, "utf8"));
  for (let count = 0; count < 200 && !gone(); count++) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert(gone());
  run.kill("SIGKILL"); // nothing is left to be killed
});

test("what a program leaves in the background neither delays its end nor loses its output", async () => {
  const run = sh("(sleep 1; echo later) & echo now");
  const before = performance.now();
  assert.deepEqual(await run.exit, { kind: "code", code: 0 });
  assert(performance.now() - before < 950);
  assert.deepEqual(run.lines, ["stdout now"]);
  await new Promise((resolve) => setTimeout(resolve, 1200));
  assert.deepEqual(run.lines, ["stdout now", "stdout later"]);
});

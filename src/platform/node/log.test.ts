// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { listenForDatagrams } from "../../../test/datagrams.ts";
import { sendDatagram, unixAddress, unixDatagramSocket } from "./libc.ts";
import { stderrIsJournal, truncateUtf8 } from "./log.ts";

/** A program whose `log` writes to its stdout and stderr, and that then does `body`. */
function program(body: string, destination = "stdio"): string[] {
  const source = `
    import { createLog } from ${JSON.stringify(path.join(import.meta.dirname, "log.ts"))};
    const options = { ident: "hastd", prefix: "[shared] (primary) ", debugLevel: 1 };
    const log = createLog("${destination}", options);
    ${body}`;
  return ["--input-type=module", "-e", source];
}

function logged(
  body: string,
  destination?: string,
): { stdout: string; stderr: string; status: number | null } {
  const args = program(body, destination);
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: "utf8" });
  return { stdout, stderr, status };
}

test("levels of warning and above go to stderr, the others to stdout, as pjdlog writes them", () => {
  const { stdout, stderr } = logged(`
    log.error("no disk"); log.warning("no peer"); log.notice("role"); log.info("ready");
    log.debug(1, "lifecycle"); log.debug(2, "request");
    log.withPrefix("").info("plain");`);
  assert.equal(
    stderr,
    "[ERROR] [shared] (primary) no disk\n[WARNING] [shared] (primary) no peer\n",
  );
  assert.equal(
    stdout,
    "[NOTICE] [shared] (primary) role\n[INFO] [shared] (primary) ready\n" +
      "[DEBUG][1] [shared] (primary) lifecycle\n[INFO] plain\n",
  );
});

test("a log that nobody reads any more stops nothing", () => {
  const { status } = logged(`
    import fs from "node:fs";
    fs.closeSync(1); fs.closeSync(2);
    log.error("lost"); log.info("lost");
    process.exit(3);`);
  assert.equal(status, 3);
});

test("a log on a full disk stops nothing", () => {
  const { status } = logged(`
    import fs from "node:fs";
    for (const fd of [1, 2]) {
      fs.closeSync(fd);
      fs.openSync("/dev/full", "w");
    }
    log.error("lost"); log.info("lost");
    process.exit(3);`);
  assert.equal(status, 3);
});

test("a log that nobody reads at the moment is not waited for, and says afterwards what it lost", async (t) => {
  const args = program(`
    for (let count = 0; count < 10000; count++) log.info("line " + count);
    process.once("message", () => {
      log.info("read again");
      process.exit();
    });
    process.send("done");`);
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit", "ipc"] });
  t.after(() => child.kill("SIGKILL"));
  // Node's pipes are sockets; what reads them has not begun yet.
  await new Promise((resolve) => child.once("message", resolve));
  let text = "";
  child.stdout!.on("data", (bytes) => {
    text += bytes;
  });
  await new Promise((resolve) => setTimeout(resolve, 300));
  child.send("go on");
  await new Promise((resolve) => child.once("close", resolve));
  const lines = text.trimEnd().split("\n");
  const lost = 10000 - lines.filter((line) => / line \d+$/.test(line)).length;
  const told = lines.map((line) => Number(/nobody took them: (\d+)$/.exec(line)?.[1] ?? 0));
  assert.equal(
    told.reduce((sum, each) => sum + each),
    lost,
  );
  assert.equal(lines.at(-1), "[INFO] [shared] (primary) read again");
  assert(lines.length < 10000);
});

test("a line that comes again and again is told once, and then how often; sources do not mix", () => {
  const { stdout, stderr } = logged(`
    const other = log.withPrefix("[other] (secondary) ");
    for (let count = 0; count < 5; count++) {
      log.error("no peer");
      other.info("idle");
    }
    log.info("no peer");
    other.debug(1, "idle");
    log.notice("once"); log.notice("once");
    log.notice("end");`);
  assert.equal(
    stderr,
    "[ERROR] [shared] (primary) no peer\n[ERROR] [shared] (primary) last message repeated 4 times\n",
  );
  assert.deepEqual(stdout.trimEnd().split("\n"), [
    "[INFO] [other] (secondary) idle",
    "[INFO] [shared] (primary) no peer",
    "[INFO] [other] (secondary) last message repeated 4 times",
    "[DEBUG][1] [other] (secondary) idle",
    "[NOTICE] [shared] (primary) once",
    "[NOTICE] [shared] (primary) once",
    "[NOTICE] [shared] (primary) end",
  ]);
});

test("repetitions are told by the end of the process, and while they last, after half a minute", () => {
  const ended = logged(`log.info("a"); log.info("a"); log.info("a"); process.exit(0);`);
  assert.equal(
    ended.stdout,
    "[INFO] [shared] (primary) a\n[INFO] [shared] (primary) last message repeated 2 times\n",
  );
  const lasting = logged(`
    import { mock } from "node:test";
    mock.timers.enable({ apis: ["setTimeout"] });
    const three = () => { for (let count = 0; count < 3; count++) log.info("a"); };
    three(); mock.timers.tick(29_999); log.info("b"); log.info("a");
    three(); mock.timers.tick(30_000); three(); mock.timers.tick(119_999);
    log.withPrefix("").info("mark"); mock.timers.tick(1);`);
  assert.deepEqual(
    lasting.stdout
      .trimEnd()
      .split("\n")
      .map((line) => line.replace("[INFO] ", "").replace("[shared] (primary) ", "")),
    [
      ...["a", "last message repeated 2 times", "b", "a", "last message repeated 3 times"],
      ...["mark", "last message repeated 3 times"],
    ],
  );
});

test("JSON lines have the resource and the role by themselves, and are one line each", () => {
  const { stdout, stderr } = logged(
    `log.error("two\\nlines"); log.withPrefix("").debug(1, "plain");`,
    "json",
  );
  assert.equal(stderr, "");
  const [one, two] = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.match(one.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.equal(typeof one.pid, "number");
  assert.deepEqual(
    { ...one, time: "", pid: 0 },
    {
      time: "",
      level: "error",
      pid: 0,
      resource: "shared",
      role: "primary",
      message: "two\nlines",
    },
  );
  assert.deepEqual(
    { ...two, time: "", pid: 0 },
    { time: "", level: "debug", debugLevel: 1, pid: 0, message: "plain" },
  );
});

function sendTo(at: string, sink: "syslogSink" | "journalSink", body: string): void {
  const source = `
    import { ${sink} } from ${JSON.stringify(path.join(import.meta.dirname, "log.ts"))};
    const sink = ${sink}(${JSON.stringify(at)}, "hastd");
    const line = (level, text, prefix = "[shared] (primary) ") =>
      sink({ level, debugLevel: 0, prefix, text });
    ${body}`;
  const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", source], {
    encoding: "utf8",
  });
  assert.equal(status, 0, stderr);
}

test("syslog gets facility, level, time, name and process id, one line each and 1023 bytes at most", async (t) => {
  const syslog = await listenForDatagrams(t);
  sendTo(
    syslog.path,
    "syslogSink",
    `line("ERROR", "one\\ntwo"); line("DEBUG", "x".repeat(2000), "");`,
  );
  const [one, two, three] = await syslog.heard();
  const head = /^<27>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d hastd\[\d+\]: /;
  assert.match(one!, head);
  assert.equal(one!.replace(head, ""), "[shared] (primary) one");
  assert.equal(two!.replace(head, ""), "two");
  assert.match(three!, /^<31>.*\]: x{1023}$/);
});

test("the journal gets the resource and the role as fields", async (t) => {
  const journal = await listenForDatagrams(t);
  sendTo(journal.path, "journalSink", `line("WARNING", "one\\ntwo"); line("INFO", "plain", "");`);
  const [one, two] = await journal.heard();
  const field = (name: string, value: string) =>
    `${name}\n${String.fromCharCode(value.length)}${"\0".repeat(7)}${value}\n`;
  const common = field("SYSLOG_FACILITY", "3") + field("SYSLOG_IDENTIFIER", "hastd");
  assert.equal(
    one,
    field("PRIORITY", "4") +
      common +
      field("HAST_RESOURCE", "shared") +
      field("HAST_ROLE", "primary") +
      field("MESSAGE", "[shared] (primary) one\ntwo"),
  );
  assert.equal(two, field("PRIORITY", "6") + common + field("MESSAGE", "plain"));
});

test("a syslog that takes nothing, or is not there, is not waited for", async (t) => {
  const syslog = await listenForDatagrams(t); // which reads nothing before it is asked
  sendTo(
    syslog.path,
    "syslogSink",
    `let taken = 0;
    while (line("INFO", "again")) taken++;
    if (taken === 0) process.exit(1);`,
  );
  const fd = unixDatagramSocket();
  t.after(() => fs.closeSync(fd));
  assert.equal(sendDatagram(fd, Buffer.from("x"), unixAddress("/nonexistent/log")), -2);
});

test("stderrIsJournal() believes the environment only where it speaks of this very stream", () => {
  const { dev, ino } = fs.fstatSync(2);
  assert.equal(stderrIsJournal(undefined), false);
  assert.equal(stderrIsJournal(`${dev}:${ino}`), true);
  assert.equal(stderrIsJournal(`${dev}:${ino + 1}`), false);
});

test("truncateUtf8() cuts between characters", () => {
  assert.equal(truncateUtf8("naïve", 10), "naïve");
  assert.equal(truncateUtf8("naïve", 3), "na");
  assert.equal(truncateUtf8("naïve", 4), "naï");
  assert.equal(truncateUtf8("€€", 5), "€");
  assert.equal(truncateUtf8("€", 2), "");
});

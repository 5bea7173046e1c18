// SPDX-License-Identifier: BSD-2-Clause
/**
 * Log lines to the terminal, to syslog, or to the journal.
 *
 *   stdio:   [ERROR] [shared] (primary) text       ERROR and WARNING to stderr, the rest to stdout
 *            [DEBUG][2] [shared] (primary) text
 *   json:    {"time":"…","level":"error","pid":4711,"resource":"shared","role":"primary","message":"text"}
 *   syslog:  [shared] (primary) text               facility daemon, at most 1023 bytes
 *   journal: the same, with the resource and the role as fields
 *
 * A line is never waited for: where nobody takes it, or its disk is full, it is lost, and the next one that is taken says
 * how many were. The same line again and again is told once, and then how often.
 * Source: FreeBSD lib/libpjdlog/pjdlog.c; syslogd(8) for repetition; behaviour §14.
 */
import fs from "node:fs";
import type { Log, LogDestination } from "../log.ts";
import { isWritable, sendDatagram, unixAddress, unixDatagramSocket } from "./libc.ts";

export interface LogOptions {
  /** The program's name in syslog and the journal. */
  readonly ident: string;
  readonly prefix: string;
  /** 0 none, 1 lifecycle, 2 per request. */
  readonly debugLevel: number;
}

export function createLog(destination: LogDestination, options: LogOptions): Log {
  return new LineLog(new Outlet(sinkOf(destination, options.ident)), options);
}

type Level = "ERROR" | "WARNING" | "NOTICE" | "INFO" | "DEBUG";

interface Line {
  readonly level: Level;
  readonly debugLevel: number;
  /** "[shared] (primary) ", or "". */
  readonly prefix: string;
  readonly text: string;
}

/** @returns whether the line was taken */
type Sink = (line: Line) => boolean;

function sinkOf(destination: LogDestination, ident: string): Sink {
  switch (destination) {
    case "stdio":
      return stdioSink();
    case "json":
      return jsonSink();
    case "syslog":
      return syslogSink(SYSLOG, ident);
    case "journal":
      return journalSink(JOURNAL, ident);
  }
}

class LineLog implements Log {
  readonly debugLevel: number;
  readonly #outlet: Outlet;
  readonly #prefix: string;

  constructor(outlet: Outlet, options: { readonly prefix: string; readonly debugLevel: number }) {
    this.#outlet = outlet;
    this.#prefix = options.prefix;
    this.debugLevel = options.debugLevel;
  }

  error(text: string): void {
    this.#write("ERROR", 0, text);
  }

  warning(text: string): void {
    this.#write("WARNING", 0, text);
  }

  notice(text: string): void {
    this.#write("NOTICE", 0, text);
  }

  info(text: string): void {
    this.#write("INFO", 0, text);
  }

  debug(level: number, text: string): void {
    if (level <= this.debugLevel) this.#write("DEBUG", level, text);
  }

  withPrefix(prefix: string): Log {
    return new LineLog(this.#outlet, { prefix, debugLevel: this.debugLevel });
  }

  #write(level: Level, debugLevel: number, text: string): void {
    this.#outlet.write({ level, debugLevel, prefix: this.#prefix, text });
  }
}

/** When repetitions are told, after the line itself and after each time; the last one again and again. */
const REPEAT_REPORTS_MS: readonly number[] = [30_000, 120_000, 600_000];

interface Repeated {
  readonly line: Line;
  /** Not told yet. */
  count: number;
  reports: number;
  timer: NodeJS.Timeout | null;
}

/** What all logs of one process share. */
class Outlet {
  readonly #sink: Sink;
  #lost = 0;
  /** The last line of each source, by prefix. */
  readonly #last = new Map<string, Repeated>();

  constructor(sink: Sink) {
    this.#sink = sink;
    process.once("exit", () => {
      for (const last of this.#last.values()) this.#tell(last);
    });
  }

  write(line: Line): void {
    const last = this.#last.get(line.prefix);
    if (last !== undefined && sameLine(last.line, line)) {
      last.count++;
      this.#schedule(last);
      return;
    }
    if (last !== undefined) this.#tell(last);
    this.#last.set(line.prefix, { line, count: 0, reports: 0, timer: null });
    this.#put(line);
  }

  #schedule(last: Repeated): void {
    if (last.timer !== null) return;
    const delayMs = REPEAT_REPORTS_MS[Math.min(last.reports, REPEAT_REPORTS_MS.length - 1)]!;
    last.timer = setTimeout(() => {
      last.reports++;
      this.#tell(last);
    }, delayMs);
    // Not worth staying alive for: the exit tells it, too.
    last.timer.unref();
  }

  #tell(last: Repeated): void {
    if (last.timer !== null) clearTimeout(last.timer);
    last.timer = null;
    const { line, count } = last;
    last.count = 0;
    if (count === 1) this.#put(line);
    else if (count > 1) this.#put({ ...line, text: `last message repeated ${count} times` });
  }

  #put(line: Line): void {
    if (this.#lost > 0) {
      const text = `lines lost before this one, since nobody took them: ${this.#lost}`;
      // Of the same level, so that it goes where the line goes.
      if (this.#sink({ ...line, text })) this.#lost = 0;
    }
    if (this.#lost > 0 || !this.#sink(line)) this.#lost++;
  }
}

function sameLine(one: Line, other: Line): boolean {
  return (
    one.text === other.text && one.level === other.level && one.debugLevel === other.debugLevel
  );
}

/** "[shared] (primary) " → ["shared", "primary"] */
function contextOf(prefix: string): readonly [resource: string, role: string] | null {
  const [, resource, role] = /^\[(.*)\] \((\w+)\) $/.exec(prefix) ?? [];
  return resource === undefined || role === undefined ? null : [resource, role];
}

// --- The terminal.

/** What a pipe takes at once if it takes anything (PIPE_BUF). */
const WRITE_MAX = 4096;

/** Writes that never wait; what a full pipe leaves of a line is made up for by a line feed. */
class Descriptor {
  readonly #fd: number;
  #torn = false;

  constructor(fd: number) {
    this.#fd = fd;
  }

  write(text: string): boolean {
    let rest = Buffer.from(this.#torn ? `\n${text}` : text);
    const size = rest.length;
    try {
      while (rest.length > 0 && isWritable(this.#fd)) {
        rest = rest.subarray(fs.writeSync(this.#fd, rest, 0, Math.min(rest.length, WRITE_MAX)));
      }
    } catch (error) {
      // Nobody reads the log any more, or its disk is full. Serving ours is worth more than the line.
      if ((error as NodeJS.ErrnoException).syscall !== "write") throw error;
    }
    if (rest.length < size) this.#torn = rest.length > 0;
    return rest.length === 0;
  }
}

function stdioSink(): Sink {
  const stdout = new Descriptor(1);
  const stderr = new Descriptor(2);
  return ({ level, debugLevel, prefix, text }) => {
    const tag = level === "DEBUG" ? `[DEBUG][${debugLevel}]` : `[${level}]`;
    const to = level === "ERROR" || level === "WARNING" ? stderr : stdout;
    return to.write(`${tag} ${prefix}${text}\n`);
  };
}

function jsonSink(): Sink {
  const stdout = new Descriptor(1);
  return ({ level, debugLevel, prefix, text }) => {
    const context = contextOf(prefix);
    const object = {
      time: new Date().toISOString(),
      level: level.toLowerCase(),
      ...(level === "DEBUG" ? { debugLevel } : {}),
      pid: process.pid,
      ...(context === null ? {} : { resource: context[0], role: context[1] }),
      message: context === null ? prefix + text : text,
    };
    return stdout.write(`${JSON.stringify(object)}\n`);
  };
}

// --- Datagrams.

const SYSLOG = "/dev/log";
const JOURNAL = "/run/systemd/journal/socket";

const PRIORITY: Readonly<Record<Level, number>> = {
  ERROR: 3,
  WARNING: 4,
  NOTICE: 5,
  INFO: 6,
  DEBUG: 7,
};
const FACILITY_DAEMON = 3;

/** Bytes of one syslog message: PJDLOG_MAX_MSGSIZE less its NUL. */
const SYSLOG_TEXT_MAX = 1023;
/** Far below what a datagram may have. */
const JOURNAL_TEXT_MAX = 32_768;

/** Sends to whoever listens at `path` at the moment, without ever waiting. */
function datagramsTo(path: string): (bytes: Uint8Array) => boolean {
  const address = unixAddress(path);
  let fd = -1;
  return (bytes) => {
    if (fd < 0) fd = unixDatagramSocket();
    return fd >= 0 && sendDatagram(fd, bytes, address) >= 0;
  };
}

/** syslog(3), which waits where the socket is full. Exported for tests. */
export function syslogSink(path: string, ident: string): Sink {
  const send = datagramsTo(path);
  return ({ level, prefix, text }) =>
    (prefix + text).split("\n").every((line) => {
      const head = `<${FACILITY_DAEMON * 8 + PRIORITY[level]}>${syslogTime(new Date())} ${ident}[${process.pid}]: `;
      return send(Buffer.from(head + truncateUtf8(line, SYSLOG_TEXT_MAX)));
    });
}

/** "Nov  9 08:05:02", in local time (RFC 3164, 4.1.2). */
function syslogTime(time: Date): string {
  const month = time.toLocaleString("en-US", { month: "short" });
  const day = `${time.getDate()}`.padStart(2);
  const [hours, minutes, seconds] = [time.getHours(), time.getMinutes(), time.getSeconds()].map(
    (each) => `${each}`.padStart(2, "0"),
  );
  return `${month} ${day} ${hours}:${minutes}:${seconds}`;
}

/** The journal's own protocol: systemd.io/JOURNAL_NATIVE_PROTOCOL. Exported for tests. */
export function journalSink(path: string, ident: string): Sink {
  const send = datagramsTo(path);
  return ({ level, prefix, text }) => {
    const context = contextOf(prefix);
    const fields: [string, string][] = [
      ["PRIORITY", `${PRIORITY[level]}`],
      ["SYSLOG_FACILITY", `${FACILITY_DAEMON}`],
      ["SYSLOG_IDENTIFIER", ident],
    ];
    if (context !== null) fields.push(["HAST_RESOURCE", context[0]], ["HAST_ROLE", context[1]]);
    fields.push(["MESSAGE", truncateUtf8(prefix + text, JOURNAL_TEXT_MAX)]);
    return send(Buffer.concat(fields.map(([name, value]) => journalField(name, value))));
  };
}

/** Name, line feed, length, value: that form may hold line feeds, too. */
function journalField(name: string, value: string): Uint8Array {
  const bytes = Buffer.from(value);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.length));
  return Buffer.concat([Buffer.from(`${name}\n`), length, bytes, Buffer.from("\n")]);
}

/** Whether our stderr is the journal's, who then tells us so in the environment (systemd.exec(5)). */
export function stderrIsJournal(journalStream: string | undefined): boolean {
  if (journalStream === undefined) return false;
  const { dev, ino } = fs.fstatSync(2);
  return journalStream === `${dev}:${ino}`;
}

/** The longest beginning of `text` that fits `bytesMax` bytes of UTF-8, cut between characters. */
export function truncateUtf8(text: string, bytesMax: number): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= bytesMax) return text;
  let end = bytesMax;
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.toString("utf8", 0, end);
}

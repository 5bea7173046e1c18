// SPDX-License-Identifier: BSD-2-Clause
/**
 * Log lines to the terminal or to syslog.
 *
 *   stdio:  [ERROR] [shared] (primary) text       ERROR and WARNING to stderr, the rest to stdout
 *           [DEBUG][2] [shared] (primary) text
 *   syslog: [shared] (primary) text               facility daemon, at most 1023 bytes
 *
 * Source: FreeBSD lib/libpjdlog/pjdlog.c; behaviour §14.
 */
import fs from "node:fs";
import type { Log } from "../log.ts";
import { openSyslog, syslog } from "./libc.ts";

export interface LogOptions {
  readonly prefix: string;
  /** 0 none, 1 lifecycle, 2 per request. */
  readonly debugLevel: number;
}

/** Lines to stdout and stderr. */
export function createStdioLog(options: LogOptions): Log {
  return new LineLog(writeStdio, options);
}

/** Lines to syslog; `ident` is the program's name there, the same in every call of one process. */
export function createSyslogLog(ident: string, options: LogOptions): Log {
  openSyslog(ident);
  return new LineLog(writeSyslog, options);
}

type Level = "ERROR" | "WARNING" | "NOTICE" | "INFO" | "DEBUG";
type Sink = (level: Level, debugLevel: number, text: string) => void;

class LineLog implements Log {
  readonly debugLevel: number;
  readonly #sink: Sink;
  readonly #prefix: string;

  constructor(sink: Sink, options: LogOptions) {
    this.#sink = sink;
    this.#prefix = options.prefix;
    this.debugLevel = options.debugLevel;
  }

  error(text: string): void {
    this.#sink("ERROR", 0, this.#prefix + text);
  }

  warning(text: string): void {
    this.#sink("WARNING", 0, this.#prefix + text);
  }

  notice(text: string): void {
    this.#sink("NOTICE", 0, this.#prefix + text);
  }

  info(text: string): void {
    this.#sink("INFO", 0, this.#prefix + text);
  }

  debug(level: number, text: string): void {
    if (level <= this.debugLevel) this.#sink("DEBUG", level, this.#prefix + text);
  }

  withPrefix(prefix: string): Log {
    return new LineLog(this.#sink, { prefix, debugLevel: this.debugLevel });
  }
}

function writeStdio(level: Level, debugLevel: number, text: string): void {
  const tag = level === "DEBUG" ? `[DEBUG][${debugLevel}]` : `[${level}]`;
  const fd = level === "ERROR" || level === "WARNING" ? 2 : 1;
  let line = Buffer.from(`${tag} ${text}\n`);
  try {
    while (line.length > 0) line = line.subarray(fs.writeSync(fd, line));
  } catch (error) {
    // Nobody reads the log any more, or reads too slowly. Serving the disk is worth more than the line.
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== "EPIPE" && code !== "EAGAIN" && code !== "EBADF" && code !== "EIO") throw error;
  }
}

const PRIORITY: Readonly<Record<Level, number>> = {
  ERROR: 3,
  WARNING: 4,
  NOTICE: 5,
  INFO: 6,
  DEBUG: 7,
};

/** Bytes of one syslog message: PJDLOG_MAX_MSGSIZE less its NUL. */
const SYSLOG_TEXT_MAX = 1023;

function writeSyslog(level: Level, _debugLevel: number, text: string): void {
  for (const line of text.split("\n")) {
    syslog(PRIORITY[level], truncateUtf8(line, SYSLOG_TEXT_MAX));
  }
}

/** The longest beginning of `text` that fits `bytesMax` bytes of UTF-8, cut between characters. */
export function truncateUtf8(text: string, bytesMax: number): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= bytesMax) return text;
  let end = bytesMax;
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.toString("utf8", 0, end);
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * A program that relies on fsync, and its auditor: a log, and an SQLite database beside it.
 *
 *   node fsync-load.ts run DIRECTORY              prints "log N", "sql N" once N is safe; never ends
 *   node fsync-load.ts check DIRECTORY LOG SQL    are log records up to LOG and rows up to SQL there?
 *
 * Each run begins a new log and an empty table. A third file, the anchor, is written by the first run
 * ("anchor 1") and must never change: check wants it unless a third number, 0, says it was not safe yet.
 * check ends with exit code 1 and a line saying what is wrong.
 */

import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { crc32 } from "node:zlib";

/** Bytes; not a divisor of any block. */
const RECORD_SIZE = 600;
/** Records of a log, then it goes round. */
const RECORD_COUNT = 1024;
const ANCHOR_SIZE = 1024 * 1024;

const [command, directory = "", ...numbers] = process.argv.slice(2);
const [logged = 0, committed = 0, anchored = 1] = numbers.map(Number);
const logPath = join(directory, "log");
const databasePath = join(directory, "database");
const anchorPath = join(directory, "anchor");

function record(number: number): Buffer {
  const bytes = Buffer.alloc(RECORD_SIZE, number & 0xff);
  bytes.writeUInt32LE(number, 0);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, RECORD_SIZE - 4)), RECORD_SIZE - 4);
  return bytes;
}

/** The number of the record in a place of the log, or 0 where none is whole. */
function numberOf(bytes: Buffer): number {
  if (bytes.length < RECORD_SIZE) return 0;
  const number = bytes.readUInt32LE(0);
  return bytes.equals(record(number)) ? number : 0;
}

function anchor(): Buffer {
  const bytes = Buffer.alloc(ANCHOR_SIZE);
  for (let at = 0; at < bytes.length; at += 32) {
    createHash("sha256").update(`${at}`).digest().copy(bytes, at);
  }
  return bytes;
}

function openDatabase(): DatabaseSync {
  const database = new DatabaseSync(databasePath);
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
  database.exec("PRAGMA wal_autocheckpoint = 16");
  database.exec("CREATE TABLE IF NOT EXISTS entry (number INTEGER PRIMARY KEY, body TEXT)");
  return database;
}

function syncDirectory(): void {
  const handle = fs.openSync(directory, "r");
  fs.fsyncSync(handle);
  fs.closeSync(handle);
}

function run(): void {
  if (!fs.existsSync(anchorPath)) {
    const handle = fs.openSync(anchorPath, "wx");
    fs.writeSync(handle, anchor());
    fs.fsyncSync(handle);
    fs.closeSync(handle);
    syncDirectory();
  }
  fs.writeSync(1, "anchor 1\n");
  fs.rmSync(logPath, { force: true });
  const log = fs.openSync(logPath, "wx");
  const database = openDatabase();
  database.exec("DELETE FROM entry");
  syncDirectory();
  const insert = database.prepare("INSERT INTO entry VALUES (?, ?)");
  const remove = database.prepare("DELETE FROM entry WHERE number <= ?");
  for (let number = 1; ; number++) {
    const bytes = record(number);
    fs.writeSync(log, bytes, 0, RECORD_SIZE, ((number - 1) % RECORD_COUNT) * RECORD_SIZE);
    fs.fsyncSync(log);
    fs.writeSync(1, `log ${number}\n`);
    database.exec("BEGIN");
    insert.run(number, bodyOf(number));
    remove.run(number - RECORD_COUNT);
    database.exec("COMMIT");
    fs.writeSync(1, `sql ${number}\n`);
  }
}

function bodyOf(number: number): string {
  return `${number}:`.repeat(50);
}

/** @returns what is wrong, or null */
function check(): string | null {
  if (anchored === 0) return null;
  if (!fs.existsSync(anchorPath)) return "the anchor has gone";
  if (!fs.readFileSync(anchorPath).equals(anchor())) return "the anchor has changed";
  if (!fs.existsSync(logPath)) return logged > 0 ? `${logged} log records: no log` : null;
  const log = fs.readFileSync(logPath);
  // Record logged + 1 may be half written over the oldest one.
  for (let number = Math.max(1, logged - RECORD_COUNT + 2); number <= logged; number++) {
    const at = ((number - 1) % RECORD_COUNT) * RECORD_SIZE;
    const found = numberOf(log.subarray(at, at + RECORD_SIZE));
    if (found !== number) {
      return `log record ${number} of ${logged} that were acknowledged: found ${found}`;
    }
  }
  const database = openDatabase();
  const integrity = database.prepare("PRAGMA integrity_check").all();
  if (integrity.length !== 1 || integrity[0]!["integrity_check"] !== "ok") {
    return `SQLite: ${JSON.stringify(integrity)}`;
  }
  const rows = database.prepare("SELECT number, body FROM entry ORDER BY number").all();
  const last = Number(rows.at(-1)?.["number"] ?? 0);
  if (last < committed) return `${committed} rows were committed: the last one is ${last}`;
  for (const [index, row] of rows.entries()) {
    const number = last - rows.length + 1 + index;
    if (row["number"] !== number || row["body"] !== bodyOf(number)) return `row ${number} is bad`;
  }
  database.close();
  return null;
}

if (command === "run") {
  run();
} else {
  const wrong = check();
  if (wrong !== null) {
    console.log(wrong);
    process.exitCode = 1;
  }
}

// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import {
  decodeControlRequest,
  decodeSetRoleReply,
  decodeStatusReply,
  encodeControlError,
  encodeControlRequest,
  encodeSetRoleReply,
  encodeStatusReply,
  type StatusEntry,
} from "../../src/wire/control.ts";
import {
  type DecodedMessage,
  type Field,
  field,
  golden,
  goldenJson,
  messagesOf,
  zeroStreamPadding,
} from "./vectors.ts";

interface Exchange {
  readonly name: string;
  readonly args?: readonly string[];
  readonly request: readonly DecodedMessage[];
  readonly reply: readonly DecodedMessage[];
}

const EXCHANGES: readonly Exchange[] = goldenJson("control/decoded.json");

/** A status entry's fields, under the names and types the original sends. */
function fieldsOf(entry: StatusEntry, index: number): Field[] {
  const all: Field[] = [];
  const add = (type: string, name: string, value: unknown): void => {
    all.push({ name: `${name}${index}`, type, value });
  };
  add("string", "resource", entry.resource);
  if (entry.outcome.kind === "failed") {
    add("int16", "error", entry.outcome.error);
    return all;
  }
  const { status } = entry.outcome;
  add("string", "provname", status.provname);
  add("string", "localpath", status.localpath);
  add("string", "remoteaddr", status.remoteaddr);
  if (status.sourceaddr !== null) add("string", "sourceaddr", status.sourceaddr);
  add("string", "replication", status.replication);
  add("string", "checksum", status.checksum);
  add("string", "compression", status.compression);
  add("string", "role", status.role);
  add("int32", "workerpid", status.workerpid);
  const { worker } = status;
  if (worker === null) return all;
  add("string", "status", worker.status);
  add("uint64", "dirty", worker.dirty);
  add("uint32", "extentsize", worker.extentsize);
  add("uint32", "keepdirty", worker.keepdirty);
  add("uint64", "stat_read", worker.reads);
  add("uint64", "stat_write", worker.writes);
  add("uint64", "stat_delete", worker.deletes);
  add("uint64", "stat_flush", worker.flushes);
  add("uint64", "stat_activemap_update", worker.activemapUpdates);
  add("uint64", "stat_read_error", worker.readErrors);
  add("uint64", "stat_write_error", worker.writeErrors);
  add("uint64", "stat_delete_error", worker.deleteErrors);
  add("uint64", "stat_flush_error", worker.flushErrors);
  add("uint64", "idle_queue_size", worker.idleQueue);
  add("uint64", "local_queue_size", worker.localQueue);
  add("uint64", "send_queue_size", worker.sendQueue);
  add("uint64", "recv_queue_size", worker.recvQueue);
  add("uint64", "done_queue_size", worker.doneQueue);
  return all;
}

test("every exchange with hastctl was captured", () => {
  expect.equal(EXCHANGES.length, 23);
});

for (const { name, args, request, reply } of EXCHANGES) {
  const sent = golden(`${name}.req.bin`);
  const answered = golden(`${name}.rep.bin`);

  if (args === undefined) {
    test(`${name}: a malformed request is answered as the original answers it`, () => {
      const decoded = decodeControlRequest(messagesOf(sent)[0]!.nv);
      if (reply.length === 0) {
        expect.deepEqual(decoded, { kind: "no-command" });
        return;
      }
      expect.equal(decoded.kind, "refused");
      if (decoded.kind !== "refused") return;
      expect.equal(decoded.error, field(reply[0]!.fields, "error"));
      expect.deepEqual(encodeControlError(decoded.error), zeroStreamPadding(answered));
    });
    continue;
  }

  test(`${name}: the request is read, and written to the byte`, () => {
    const decoded = decodeControlRequest(messagesOf(sent)[0]!.nv);
    const fields = request[0]!.fields;
    if (decoded.kind !== "set-role" && decoded.kind !== "status") {
      throw new Error(`unexpected ${decoded.kind}`);
    }
    expect.equal(decoded.kind, field(fields, "cmd") === 1 ? "set-role" : "status");
    expect.equal(decoded.extended, false);
    if (decoded.kind === "set-role") {
      expect.deepEqual([decoded.role, ...decoded.resources], args.slice(1));
    } else {
      expect.deepEqual(decoded.resources, args.length > 1 ? args.slice(1) : ["all"]);
    }
    expect.deepEqual(encodeControlRequest(decoded), zeroStreamPadding(sent));
  });

  test(`${name}: the reply is read, and written to the byte`, () => {
    const { nv } = messagesOf(answered)[0]!;
    const fields = reply[0]!.fields;
    if (args[0] !== "role") {
      const decoded = decodeStatusReply(nv);
      expect.equal(decoded.error, 0);
      expect.deepEqual(decoded.entries.flatMap(fieldsOf), fields);
      expect.deepEqual(encodeStatusReply(decoded, false), zeroStreamPadding(answered));
      return;
    }
    const decoded = decodeSetRoleReply(nv);
    expect.equal(decoded.error, 0);
    expect.equal(decoded.entries.length, 1);
    const entry = decoded.entries[0]!;
    expect.equal(entry.resource, field(fields, "resource0"));
    const error = field(fields, "error0");
    expect.deepEqual(
      entry.outcome,
      error === undefined
        ? { kind: "done", previousRole: field(fields, "role0") }
        : { kind: "failed", error },
    );
    expect.deepEqual(encodeSetRoleReply(decoded, false), zeroStreamPadding(answered));
  });
}

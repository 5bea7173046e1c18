// SPDX-License-Identifier: BSD-2-Clause
/** The examples in docs/protocol.md are what the code writes. */
import { strict as expect } from "node:assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { encodeMetadata } from "../src/metadata/block.ts";
import { encodeP1 } from "../src/wire/handshake.ts";
import { encodeReply, REPLY_HEADER_MAX } from "../src/wire/reply.ts";
import { CMD_READ, encodeRequest, REQUEST_HEADER_MAX } from "../src/wire/request.ts";

const DOC = readFileSync(join(import.meta.dirname, "../docs/protocol.md"), "utf8");

/** The bytes of the code block that follows `introduction`; what does not look like bytes is comment. */
function example(introduction: string): string {
  const start = DOC.indexOf(introduction);
  expect.notEqual(start, -1, `docs/protocol.md does not say "${introduction}"`);
  const block = /```text\n([^`]*)```/.exec(DOC.slice(start));
  let hex = "";
  for (const line of block![1]!.split("\n")) {
    for (const column of line.trim().split(/\s{2,}/)) {
      if (!/^(?:[0-9a-f]{2})+(?: (?:[0-9a-f]{2})+)*$/.test(column)) break;
      hex += column.replaceAll(" ", "");
    }
  }
  return hex;
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

test("docs/protocol.md shows the P1 we send", () => {
  const p1 = encodeP1({ resource: "shared", version: 2, extensions: 0n, term: 0n });
  expect.equal(example("P1 for the resource `shared`"), hexOf(p1));
});

test("docs/protocol.md shows the READ we send", () => {
  const out = new Uint8Array(REQUEST_HEADER_MAX);
  const end = encodeRequest(out, 0, 2, CMD_READ, 0, 7, 4096, 512, false, null);
  expect.equal(example("READ, seq 7, offset 4096"), hexOf(out.subarray(0, end)));
});

test("docs/protocol.md shows the replies we send", () => {
  const out = new Uint8Array(3 * REPLY_HEADER_MAX);
  let end = encodeReply(out, 0, 2, 0, 8, true, 0, null);
  end = encodeReply(out, end, 2, 0, 8, false, 0, null);
  end = encodeReply(out, end, 2, 0, 8, false, 5, null);
  expect.equal(example("The replies to a memsync WRITE"), hexOf(out.subarray(0, end)));
});

test("docs/protocol.md shows the metadata FreeBSD writes", () => {
  const block = encodeMetadata({
    resource: "shared",
    datasize: 1073737216,
    extentsize: 2097152,
    keepdirty: 64,
    localoff: 4608,
    resuid: 0n,
    localcnt: 0n,
    remotecnt: 0n,
    prevrole: "init",
    state: null,
    sequence: null,
    synced: null,
    aloneSince: null,
  });
  expect.equal(example("An example, `shared`, 1 GiB"), hexOf(block.subarray(0, 254)));
});

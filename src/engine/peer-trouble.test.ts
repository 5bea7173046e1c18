// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { doubtOf, type Peering, withAdvice } from "./peer-trouble.ts";

const PEERING: Peering = {
  resource: "shared",
  source: "tcp4://10.0.0.1",
};

test("withAdvice() follows each reason with what to do, and on which node", () => {
  const table: readonly (readonly [string, RegExp])[] = [
    [
      "Remote node acts as init for the resource and not as secondary.",
      /secondary\. On that node: hastctl role secondary shared$/,
    ],
    [
      "Remote node acts as primary for the resource and not as secondary.",
      /both nodes are primary.*shall not be: hastctl role secondary shared$/,
    ],
    ["Resource not configured.", /configured\. hast\.conf of that node has no resource shared$/],
    ["No access to the resource.", /names another host/],
    ["Split-brain condition!", /On THAT node.*hastctl resolve --discard-local --dry-run shared/],
    [
      "Resource unique ID mismatch (primary=1, secondary=2).",
      /created anew.*resolve --discard-local/,
    ],
    ["Modification counters ran backwards (primary=1/2): …", /resolve --discard-local/],
    [
      "the peer's component was created anew, and this node has no whole copy of its own: nothing is copied",
      /copied\. To go on with it.*here: hastctl role init shared && hastctl role --force primary shared; .*what is damaged$/,
    ],
    [
      "this node has lost its disk, and the peer's copy is older than the one that it has worked over: …",
      /Give that node back.*here: hastctl role init shared; then there: hastctl role --force primary shared$/,
    ],
    ["the peer closed the connection before it answered", /remote.*log there$/],
    ["the peer does not answer the handshake (20 s)", /hastd stopped there/],
    ["connection refused", /^connection refused\. Is hastd running there\?$/],
    ["no connection within 20 s", /machine up/],
    ["no route to host: host is unreachable", /machine up/],
    ["address not available", /source tcp4:\/\/10\.0\.0\.1 an address of this node/],
    ["beta: host name not found", /Correct remote/],
  ];
  for (const [reason, wanted] of table) expect.match(withAdvice(reason, PEERING), wanted);
});

test("withAdvice() leaves a reason alone that nobody can do anything about", () => {
  const reason = "the peer's handshake is broken: type 18 does not exist";
  expect.equal(withAdvice(reason, PEERING), reason);
  expect.equal(
    withAdvice("address not available", { ...PEERING, source: null }),
    "address not available",
  );
});

test("doubtOf() leads to a new copy that the other node fills", () => {
  const wanted = (primarySeen: boolean): string =>
    doubtOf(
      "Resource unique ID mismatch.",
      { needs: "no-objection", primarySeen, newer: false, lacking: false },
      PEERING,
    );
  expect.match(
    wanted(false),
    /copy is new.*holds data .*mismatch\).*here: hastctl role secondary shared; then on the other node: hastctl role primary shared$/,
  );
  expect.match(wanted(true), /copy is new.*is primary.*here: hastctl role secondary shared$/);
});

test("doubtOf() tells whose data is newer where this node's gate stands in the way", () => {
  const asked = { needs: "agreement", primarySeen: false, newer: true, lacking: false } as const;
  for (const reason of [
    "Synchronization refused on this node: the gate /g refuses it (exit code 1): sizes differ.",
    "no answer of this node's gate within 20 s",
  ]) {
    const wanted = doubtOf(reason, asked, PEERING);
    expect.ok(wanted.includes(`(${reason.replace(/\.$/, "")}). To work with`), wanted);
    expect.match(
      wanted,
      /has data that this copy lacks.*there: hastctl role primary shared\. .*again here: hastctl role primary shared\. .*: hastctl role --force primary shared$/,
    );
  }
});

test("doubtOf() calls no copy complete that is the rest of two, and says how to go on with it", () => {
  const reason =
    "the peer's component was created anew, and this node has no whole copy of its own: nothing is copied";
  const asked = { needs: "agreement", primarySeen: false, newer: false, lacking: true } as const;
  const wanted = doubtOf(reason, asked, PEERING);
  expect.match(
    wanted,
    /created anew.*hastctl role --force primary shared; .*from a backup what is damaged$/,
  );
  expect.doesNotMatch(wanted, /was complete/);
});

test("doubtOf() does not say of an inconsistent copy that it was complete, or may be the newest", () => {
  for (const lacking of [true, false]) {
    const asked = { needs: "agreement", primarySeen: false, newer: false, lacking } as const;
    const wanted = doubtOf("connection refused", asked, PEERING);
    expect.equal(/was complete/.test(wanted), !lacking);
    expect.equal(/is the newest/.test(wanted), !lacking);
    expect.equal(/lost for good, and this copy is all there is/.test(wanted), lacking);
    expect.match(
      wanted,
      /\(connection refused\)\. Make it answer; there: hastctl role secondary shared; .*: hastctl role --force primary shared$/,
    );
  }
});

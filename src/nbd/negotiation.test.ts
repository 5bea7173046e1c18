// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import {
  contextRequest,
  exportOf,
  infoRequest,
  type OptionReply,
  option,
  optionReplies,
  string,
  u16,
  u32,
  u64,
} from "../../test/nbd-peer.ts";
import type { NbdExport } from "./export.ts";
import {
  Negotiation,
  type NegotiationState,
  OPTION_COUNT_MAX,
  OPTION_LENGTH_MAX,
  OPTION_SKIP_MAX,
} from "./negotiation.ts";

// Numbers as the specification prints them, not our constants.
const EXPORT_NAME = 1;
const ABORT = 2;
const LIST = 3;
const STARTTLS = 5;
const INFO = 6;
const GO = 7;
const STRUCTURED_REPLY = 8;
const LIST_META_CONTEXT = 9;
const SET_META_CONTEXT = 10;
const EXTENDED_HEADERS = 11;
const ACK = 1;
const ERR_UNSUP = 0x8000_0001;
const ERR_POLICY = 0x8000_0002;
const ERR_INVALID = 0x8000_0003;
const ERR_TLS_REQD = 0x8000_0005;
const ERR_UNKNOWN = 0x8000_0006;
const ERR_TOO_BIG = 0x8000_0009;
const FLAGS = 0x056d; // HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, CAN_MULTI_CONN, CACHE
const FLAGS_STRUCTURED = FLAGS | 0x80; // and DF

const SHARED = exportOf();
const OTHER = exportOf({
  name: "zweite",
  description: "",
  size: 4096,
  multiConn: false,
  contexts: [],
});

/** A negotiation past the greeting, and a way to talk to it. */
class Talk {
  sent: Buffer = Buffer.alloc(0);
  readonly negotiation: Negotiation;

  constructor(
    exports: readonly NbdExport[] = [SHARED, OTHER],
    clientFlags: number | null = 3,
    tls: "none" | "required" = "none",
  ) {
    const send = (bytes: Uint8Array): void => {
      this.sent = Buffer.concat([this.sent, bytes]);
    };
    this.negotiation = new Negotiation(exports, send, tls);
    this.negotiation.greet();
    if (clientFlags === null) return;
    this.say(u32(clientFlags));
  }

  /** Feeds bytes that the negotiation must consume to the end. @returns what it sent */
  say(bytes: Buffer): Buffer {
    this.sent = Buffer.alloc(0);
    expect.equal(this.negotiation.feed(bytes, 0, bytes.length), bytes.length);
    return this.sent;
  }

  /** Sends one option, and checks that every reply names it. */
  ask(type: number, data?: Buffer): OptionReply[] {
    const replies = optionReplies(this.say(option(type, data)));
    for (const reply of replies) expect.equal(reply.option, type);
    return replies;
  }
}

function types(replies: readonly OptionReply[]): number[] {
  return replies.map((reply) => reply.type);
}

/** The one reply of an option that was refused: its type, and that it says something. */
function refusal(replies: readonly OptionReply[]): number {
  expect.equal(replies.length, 1);
  expect.ok(replies[0]!.data.length > 0, "no message");
  return replies[0]!.type;
}

/** The names of contexts, with their ids, in replies that end with an ACK. */
function contexts(replies: readonly OptionReply[]): [number, string][] {
  expect.equal(replies.at(-1)?.type, ACK);
  return replies.slice(0, -1).map((reply) => {
    expect.equal(reply.type, 4);
    return [reply.data.readUInt32BE(0), reply.data.toString("utf8", 4)];
  });
}

test("greet() announces fixed newstyle without zeroes", () => {
  const talk = new Talk([SHARED], null);
  expect.equal(
    talk.sent.toString("hex"),
    Buffer.concat([Buffer.from("NBDMAGIC"), Buffer.from("IHAVEOPT"), u16(3)]).toString("hex"),
  );
  expect.equal(talk.negotiation.wanted, 4);
});

test("unknown client flags end the session", () => {
  for (const flags of [4, 7, 0x8000_0003]) {
    const { state } = new Talk([SHARED], flags).negotiation;
    expect.equal(state.kind, "over");
    expect.match(state.kind === "over" ? `${state.reason}` : "", /unknown client flags/);
  }
});

test("EXPORT_NAME answers size and flags, followed by 124 zeroes unless those were declined", () => {
  const plain = Buffer.concat([u64(SHARED.size), u16(FLAGS)]);
  for (const clientFlags of [0, 1]) {
    const talk = new Talk([SHARED, OTHER], clientFlags);
    const sent = talk.say(option(EXPORT_NAME, Buffer.from("shared")));
    expect.equal(sent.toString("hex"), Buffer.concat([plain, Buffer.alloc(124)]).toString("hex"));
    expect.equal(talk.negotiation.state.kind, "agreed");
  }
  for (const clientFlags of [2, 3]) {
    const talk = new Talk([SHARED, OTHER], clientFlags);
    const sent = talk.say(option(EXPORT_NAME, Buffer.from("shared")));
    expect.equal(sent.toString("hex"), plain.toString("hex"));
  }
});

test("EXPORT_NAME with the empty name means the first export", () => {
  const talk = new Talk();
  talk.say(option(EXPORT_NAME));
  expect.deepEqual(talk.negotiation.state, {
    kind: "agreed",
    export: SHARED,
    structured: false,
    contexts: [],
  });
});

test("EXPORT_NAME with a name that is not there hangs up without an answer", () => {
  for (const name of ["share", "shared2", "SHARED", "shared\0", "x".repeat(4096)]) {
    const talk = new Talk();
    expect.equal(talk.say(option(EXPORT_NAME, Buffer.from(name))).length, 0);
    expect.equal(talk.negotiation.state.kind, "over");
  }
});

test("EXPORT_NAME with a name longer than we look at hangs up at its header", () => {
  const talk = new Talk();
  talk.say(option(EXPORT_NAME, Buffer.alloc(OPTION_LENGTH_MAX + 1)).subarray(0, 16));
  expect.equal(talk.sent.length, 0);
  expect.equal(talk.negotiation.state.kind, "over");
});

test("a client without fixed newstyle may only use EXPORT_NAME", () => {
  for (const type of [LIST, GO, ABORT, STRUCTURED_REPLY, 77]) {
    const talk = new Talk([SHARED], 2);
    expect.equal(talk.say(option(type)).length, 0);
    expect.equal(talk.negotiation.state.kind, "over");
  }
});

test("ABORT is acknowledged, whatever data it has, and ends the session without blame", () => {
  for (const data of [0, 5, OPTION_LENGTH_MAX + 1]) {
    const talk = new Talk();
    const bytes = option(ABORT, Buffer.alloc(data));
    talk.sent = Buffer.alloc(0);
    talk.negotiation.feed(bytes, 0, bytes.length);
    expect.deepEqual(types(optionReplies(talk.sent)), [ACK]);
    expect.deepEqual(talk.negotiation.state, { kind: "over", reason: null });
  }
});

test("LIST names every export with its description", () => {
  const replies = new Talk().ask(LIST);
  expect.deepEqual(types(replies), [2, 2, ACK]);
  expect.equal(
    replies[0]!.data.toString("latin1"),
    Buffer.concat([string("shared"), Buffer.from("HAST resource shared")]).toString("latin1"),
  );
  expect.equal(replies[1]!.data.toString("latin1"), string("zweite").toString("latin1"));
});

test("LIST and STRUCTURED_REPLY take no data", () => {
  const talk = new Talk();
  expect.equal(refusal(talk.ask(LIST, Buffer.from("x"))), ERR_INVALID);
  expect.equal(refusal(talk.ask(STRUCTURED_REPLY, Buffer.from("x"))), ERR_INVALID);
  talk.ask(GO, infoRequest(""));
  const { state } = talk.negotiation;
  expect.equal(state.kind === "agreed" && state.structured, false);
});

test("INFO tells the size, and only what else was asked for", () => {
  const talk = new Talk();
  const size = Buffer.concat([u16(0), u64(SHARED.size), u16(FLAGS)]);
  expect.deepEqual(
    talk.ask(INFO, infoRequest("shared")).map((reply) => [reply.type, reply.data.toString("hex")]),
    [
      [3, size.toString("hex")],
      [ACK, ""],
    ],
  );

  const all = talk.ask(INFO, infoRequest("", 3, 2, 1, 0, 99)).map((reply) => reply.data);
  expect.deepEqual(
    all.map((data) => data.toString("hex")),
    [
      size,
      Buffer.concat([u16(1), Buffer.from("shared")]),
      Buffer.concat([u16(2), Buffer.from("HAST resource shared")]),
      Buffer.concat([u16(3), u32(512), u32(4096), u32(65536)]),
      Buffer.alloc(0),
    ].map((data) => data.toString("hex")),
  );
  expect.equal(talk.negotiation.state.kind, "open");
});

test("GO answers like INFO, and then the export is agreed", () => {
  const talk = new Talk();
  const info = talk.ask(INFO, infoRequest("shared", 1, 3));
  const go = talk.ask(GO, infoRequest("shared", 1, 3));
  expect.deepEqual(
    go.map((reply) => reply.data.toString("hex")),
    info.map((reply) => reply.data.toString("hex")),
  );
  expect.deepEqual(talk.negotiation.state, {
    kind: "agreed",
    export: SHARED,
    structured: false,
    contexts: [],
  });
});

test("GO is agreed with no zeroes after it, even for a client that did not decline them", () => {
  const replies = new Talk([SHARED], 1).ask(GO, infoRequest("shared"));
  expect.deepEqual(types(replies), [3, ACK]);
});

test("INFO and GO with a name that is not there name one that is, and the client may go on", () => {
  const talk = new Talk();
  for (const type of [INFO, GO]) {
    const replies = talk.ask(type, infoRequest("nosuch", 3));
    expect.equal(refusal(replies), ERR_UNKNOWN);
    expect.match(replies[0]!.data.toString(), /"shared"/);
  }
  expect.equal(talk.negotiation.state.kind, "open");
  expect.deepEqual(types(talk.ask(GO, infoRequest("zweite"))), [3, ACK]);
});

test("INFO and GO whose lengths contradict each other are invalid", () => {
  const talk = new Talk();
  const good = infoRequest("shared", 3, 1);
  const wrong = [
    Buffer.alloc(0),
    good.subarray(0, 3),
    good.subarray(0, 9),
    good.subarray(0, 11),
    good.subarray(0, -1),
    good.subarray(0, -2),
    Buffer.concat([good, u16(1)]),
    Buffer.concat([u32(0xffff_ffff), good.subarray(4)]),
    Buffer.concat([u32(4097), Buffer.alloc(4097), u16(0)]),
  ];
  for (const type of [INFO, GO]) {
    for (const data of wrong) expect.equal(refusal(talk.ask(type, data)), ERR_INVALID);
  }
  expect.equal(talk.negotiation.state.kind, "open");
});

test("a client that negotiated structured replies is offered DF", () => {
  const talk = new Talk();
  expect.deepEqual(types(talk.ask(STRUCTURED_REPLY)), [ACK]);
  const replies = talk.ask(GO, infoRequest("shared"));
  expect.equal(replies[0]!.data.readUInt16BE(10), FLAGS_STRUCTURED);
  const { state } = talk.negotiation;
  expect.equal(state.kind === "agreed" && state.structured, true);
});

test("metadata contexts need structured replies first", () => {
  const talk = new Talk();
  for (const type of [LIST_META_CONTEXT, SET_META_CONTEXT]) {
    expect.equal(refusal(talk.ask(type, contextRequest("shared", "base:allocation"))), ERR_INVALID);
  }
});

test("LIST_META_CONTEXT lists all without a query, a namespace by its wildcard, else exact names", () => {
  const talk = new Talk();
  talk.ask(STRUCTURED_REPLY);
  const list = (...queries: string[]): string[] =>
    contexts(talk.ask(LIST_META_CONTEXT, contextRequest("shared", ...queries))).map(
      ([id, name]) => {
        expect.equal(id, 0);
        return name;
      },
    );
  expect.deepEqual(list(), ["base:allocation", "hast:dirty"]);
  expect.deepEqual(list("base:"), ["base:allocation"]);
  expect.deepEqual(list("hast:"), ["hast:dirty"]);
  expect.deepEqual(list("hast:", "base:"), ["base:allocation", "hast:dirty"]);
  expect.deepEqual(list("hast:dirty", "hast:dirty", "hast:"), ["hast:dirty"]);
  for (const nothing of [
    "",
    "base",
    "base:alloc",
    "base:allocation2",
    "qemu:dirty-bitmap:x",
    ":",
  ]) {
    expect.deepEqual(list(nothing), [], nothing);
  }
  expect.deepEqual(contexts(talk.ask(LIST_META_CONTEXT, contextRequest("zweite"))), []);
});

test("SET_META_CONTEXT selects what is named, each with an id of its own, and no wildcards", () => {
  const talk = new Talk();
  talk.ask(STRUCTURED_REPLY);
  const set = (...queries: string[]): [number, string][] =>
    contexts(talk.ask(SET_META_CONTEXT, contextRequest("shared", ...queries)));
  expect.deepEqual(set(), []);
  expect.deepEqual(set("base:", "hast:"), []);
  expect.deepEqual(set("x-unknown:thing"), []);
  expect.deepEqual(set("hast:dirty", "base:allocation", "hast:dirty"), [
    [1, "base:allocation"],
    [2, "hast:dirty"],
  ]);
  expect.deepEqual(set("hast:dirty"), [[2, "hast:dirty"]]);
  talk.ask(GO, infoRequest(""));
  const { state } = talk.negotiation;
  expect.deepEqual(state.kind === "agreed" && state.contexts, [{ name: "hast:dirty", id: 2 }]);
});

test("selected contexts are lost with another export, a failed selection or an oversized one", () => {
  const lost: readonly ((talk: Talk) => void)[] = [
    (talk) => talk.ask(GO, infoRequest("zweite")),
    (talk) => {
      expect.equal(
        refusal(talk.ask(SET_META_CONTEXT, contextRequest("nosuch", "hast:dirty"))),
        ERR_UNKNOWN,
      );
      talk.ask(GO, infoRequest("shared"));
    },
    (talk) => {
      expect.equal(refusal(talk.ask(SET_META_CONTEXT, Buffer.alloc(3))), ERR_INVALID);
      talk.ask(GO, infoRequest("shared"));
    },
    (talk) => {
      const oversized = Buffer.alloc(OPTION_LENGTH_MAX + 1);
      expect.equal(refusal(talk.ask(SET_META_CONTEXT, oversized)), ERR_TOO_BIG);
      talk.ask(GO, infoRequest("shared"));
    },
  ];
  for (const lose of lost) {
    const talk = new Talk([SHARED, OTHER]);
    talk.ask(STRUCTURED_REPLY);
    talk.ask(SET_META_CONTEXT, contextRequest("shared", "hast:dirty"));
    lose(talk);
    const { state } = talk.negotiation;
    expect.deepEqual(state.kind === "agreed" && state.contexts, []);
  }
});

test("metadata context options whose lengths contradict each other are invalid", () => {
  const talk = new Talk();
  talk.ask(STRUCTURED_REPLY);
  const good = contextRequest("shared", "base:allocation");
  const wrong = [
    Buffer.alloc(0),
    good.subarray(0, 13),
    good.subarray(0, -1),
    Buffer.concat([good, Buffer.alloc(1)]),
    Buffer.concat([string("shared"), u32(0xffff_ffff), string("base:allocation")]),
    Buffer.concat([string("shared"), u32(1), u32(0xffff_ffff), Buffer.from("base:")]),
    Buffer.concat([string("shared"), u32(0), string("base:allocation")]),
  ];
  for (const type of [LIST_META_CONTEXT, SET_META_CONTEXT]) {
    for (const data of wrong) expect.equal(refusal(talk.ask(type, data)), ERR_INVALID);
  }
});

test("STARTTLS and options from the future are unsupported, and their data is passed over", () => {
  const talk = new Talk();
  for (const type of [STARTTLS, EXTENDED_HEADERS, 0, 4, 77, 0xffff_ffff]) {
    expect.equal(refusal(talk.ask(type, Buffer.alloc(33, "IHAVEOPT"))), ERR_UNSUP);
  }
  expect.deepEqual(types(talk.ask(GO, infoRequest(""))), [3, ACK]);
});

test("an option too long to look at is passed over as it arrives, and then refused", () => {
  const talk = new Talk();
  const length = OPTION_SKIP_MAX;
  talk.say(Buffer.concat([Buffer.from("IHAVEOPT"), u32(GO), u32(length)]));
  const piece = Buffer.alloc(1 << 20, "IHAVEOPT");
  for (let at = 0; at < length; at += piece.length) {
    expect.equal(talk.negotiation.wanted, 1);
    expect.equal(talk.sent.length, 0);
    talk.say(piece);
  }
  expect.equal(refusal(optionReplies(talk.sent)), ERR_TOO_BIG);
  expect.equal(talk.negotiation.wanted, 16);
  expect.deepEqual(types(talk.ask(GO, infoRequest(""))), [3, ACK]);
});

test("an option that could only be meant to keep us busy ends the session", () => {
  const talk = new Talk();
  talk.say(Buffer.concat([Buffer.from("IHAVEOPT"), u32(LIST), u32(OPTION_SKIP_MAX + 1)]));
  expect.equal(talk.negotiation.state.kind, "over");
});

test("the number of options is limited, so that a client that never reads cannot fill our memory", () => {
  const talk = new Talk();
  for (let count = 0; count < OPTION_COUNT_MAX; count++) talk.ask(LIST);
  expect.equal(talk.negotiation.state.kind, "open");
  expect.equal(talk.say(option(LIST)).length, 0);
  expect.equal(talk.negotiation.state.kind, "over");
});

test("a wrong magic number ends the session", () => {
  const talk = new Talk();
  const bytes = option(LIST);
  bytes[7] = 0x55;
  talk.negotiation.feed(bytes, 0, bytes.length);
  const { state } = talk.negotiation;
  expect.match(state.kind === "over" ? `${state.reason}` : "", /magic/);
});

test("wanted counts what is missing of an option, from its first byte", () => {
  const talk = new Talk();
  const bytes = option(INFO, infoRequest("shared", 3));
  expect.equal(talk.negotiation.wanted, 16);
  expect.equal(talk.negotiation.feed(bytes, 0, 15), 0);
  expect.equal(talk.negotiation.wanted, 16);
  expect.equal(talk.negotiation.feed(bytes, 0, 16), 0);
  expect.equal(talk.negotiation.wanted, bytes.length);
  expect.equal(talk.negotiation.feed(bytes, 0, bytes.length), bytes.length);
  expect.equal(talk.negotiation.wanted, 16);
});

test("where TLS is required, nothing is told before it, and everything after", () => {
  const talk = new Talk([SHARED], 3, "required");
  for (const type of [LIST, INFO, GO, STRUCTURED_REPLY, LIST_META_CONTEXT, SET_META_CONTEXT, 77]) {
    expect.equal(refusal(talk.ask(type, infoRequest(""))), ERR_TLS_REQD);
  }
  expect.equal(refusal(talk.ask(STARTTLS, Buffer.alloc(1))), ERR_INVALID);
  expect.deepEqual(types(talk.ask(STARTTLS)), [ACK]);
  expect.equal(talk.negotiation.state.kind, "starttls");
  talk.negotiation.secured(null);
  expect.equal(refusal(talk.ask(STARTTLS)), ERR_INVALID);
  // What was asked for in the clear does not count.
  expect.equal(refusal(talk.ask(SET_META_CONTEXT, contextRequest(""))), ERR_INVALID);
  expect.deepEqual(types(talk.ask(GO, infoRequest(""))), [3, ACK]);
  const { state } = talk.negotiation as { state: NegotiationState };
  expect.ok(state.kind === "agreed" && !state.structured);
});

test("what follows STARTTLS in the clear is not consumed", () => {
  const talk = new Talk([SHARED], 3, "required");
  const both = Buffer.concat([option(STARTTLS), option(GO, infoRequest(""))]);
  expect.equal(talk.negotiation.feed(both, 0, both.length), option(STARTTLS).length);
  expect.equal(talk.negotiation.state.kind, "starttls");
});

test("a client that is refused after TLS is told why, whatever it asks, and gets nothing", () => {
  const talk = new Talk([SHARED], 3, "required");
  talk.ask(STARTTLS);
  talk.negotiation.secured("the certificate is a stranger's");
  for (const type of [LIST, INFO, GO, STRUCTURED_REPLY, STARTTLS]) {
    const [reply, ...more] = talk.ask(type, infoRequest(""));
    expect.deepEqual(more, []);
    expect.equal(reply!.type, ERR_POLICY);
    expect.equal(reply!.data.toString(), "the certificate is a stranger's");
  }
  talk.say(option(EXPORT_NAME));
  const { state } = talk.negotiation;
  expect.ok(state.kind === "over" && state.reason === "the certificate is a stranger's");
});

test("EXPORT_NAME without TLS where it is required ends the session: it knows no errors", () => {
  const talk = new Talk([SHARED], 3, "required");
  expect.equal(talk.say(option(EXPORT_NAME, Buffer.from("shared"))).length, 0);
  expect.equal(talk.negotiation.state.kind, "over");
});

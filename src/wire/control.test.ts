// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import {
  type ControlReply,
  type ControlRequest,
  decodeControlRequest,
  decodeLeaseReply,
  decodeSetRoleReply,
  decodeStatusReply,
  encodeControlError,
  encodeControlRequest,
  encodeLeaseReply,
  encodeSetRoleReply,
  encodeStatusReply,
  type LeaseEntry,
  type Order,
  roleCode,
  type SetRoleEntry,
  type StatusEntry,
  type WorkerStatus,
} from "./control.ts";
import { WireError } from "./error.ts";
import { FRAME_HEADER_SIZE } from "./frame.ts";
import { decodeNv, NvWriter } from "./nv.ts";

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

function nvOf(message: Uint8Array): Uint8Array {
  return message.subarray(FRAME_HEADER_SIZE);
}

function done(resource: string, previousRole: "init" | "primary" | "secondary"): SetRoleEntry {
  return { resource, outcome: { kind: "done", previousRole }, errmsg: null, notes: [] };
}

const EXAMPLES: readonly [what: string, message: Uint8Array, hex: string][] = [
  [
    "request to become primary",
    encodeControlRequest({
      kind: "set-role",
      role: "primary",
      resources: ["shared"],
      extended: false,
    }),
    `024a000000020401000000636d6400000000000100000000000000020501000000726f6c650000000002000000
     00000000110a070000007265736f7572636530000000000000007368617265640000`,
  ],
  [
    "reply with the previous role",
    encodeSetRoleReply({ error: 0, entries: [done("shared", "init")] }, false),
    `0234000000110a070000007265736f7572636530000000000000007368617265640000110605000000726f6c65
     30000000696e697400000000`,
  ],
  [
    "reply for an unknown resource",
    encodeSetRoleReply(
      {
        error: 0,
        entries: [
          { resource: "nosuch", outcome: { kind: "failed", error: 1 }, errmsg: null, notes: [] },
        ],
      },
      false,
    ),
    `0234000000110a070000007265736f7572636530000000000000006e6f7375636800000307020000006572726f
     723000000100000000000000`,
  ],
  [
    "status request for all resources",
    encodeControlRequest({ kind: "status", resources: ["all"], extended: false }),
    `0234000000020401000000636d6400000000000200000000000000110a040000007265736f7572636530000000
     00000000616c6c0000000000`,
  ],
];

for (const [what, message, expected] of EXAMPLES) {
  test(`the ${what} of wire protocol §13 is written to the byte`, () => {
    expect.equal(hex(message), expected.replace(/\s/g, ""));
  });
}

const text = fc.string().filter((each) => !each.includes("\0"));
const role = fc.constantFrom("init" as const, "primary" as const, "secondary" as const);
const count = fc.nat({ max: Number.MAX_SAFE_INTEGER });
const u32 = fc.nat({ max: 0xffff_ffff });
const remarks = { errmsg: fc.option(text), notes: fc.array(text, { maxLength: 3 }) };
const failed = fc.record({
  kind: fc.constant("failed" as const),
  error: fc.integer({ min: 1, max: 32767 }),
});
const worker: fc.Arbitrary<WorkerStatus> = fc.record({
  status: fc.constantFrom("complete" as const, "degraded" as const),
  dirty: count,
  extentsize: u32,
  keepdirty: u32,
  reads: count,
  writes: count,
  deletes: count,
  flushes: count,
  activemapUpdates: count,
  readErrors: count,
  writeErrors: count,
  deleteErrors: count,
  flushErrors: count,
  idleQueue: count,
  localQueue: count,
  sendQueue: count,
  recvQueue: count,
  doneQueue: count,
});
const statusOfOriginal = {
  provname: text,
  localpath: text,
  remoteaddr: text,
  sourceaddr: fc.option(text),
  replication: text,
  checksum: text,
  compression: text,
  role,
  workerpid: fc.nat(),
  worker: fc.option(worker),
};
const status = fc.record(
  {
    ...statusOfOriginal,
    copy: text,
    term: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    device: fc.record({ path: text, kind: text, node: fc.option(text) }),
  },
  { requiredKeys: Object.keys(statusOfOriginal) as (keyof typeof statusOfOriginal)[] },
);
const statusReply: fc.Arbitrary<ControlReply<StatusEntry>> = fc.record({
  error: fc.integer({ min: 0, max: 200 }),
  entries: fc.array(
    fc.record({
      resource: text,
      outcome: fc.oneof(failed, fc.record({ kind: fc.constant("known" as const), status })),
      ...remarks,
    }),
    { maxLength: 12 },
  ),
});
const setRoleReply: fc.Arbitrary<ControlReply<SetRoleEntry>> = fc.record({
  error: fc.integer({ min: 0, max: 200 }),
  entries: fc.array(
    fc.record({
      resource: text,
      outcome: fc.oneof(
        failed,
        fc.record({ kind: fc.constant("done" as const), previousRole: role }),
      ),
      ...remarks,
    }),
    { maxLength: 12 },
  ),
});

test("requests survive encoding and decoding", () => {
  const resources = fc.array(text, { minLength: 1, maxLength: 12 });
  const request: fc.Arbitrary<ControlRequest> = fc.oneof(
    fc.record({ kind: fc.constant("set-role" as const), role, resources, extended: fc.boolean() }),
    fc.record({ kind: fc.constant("status" as const), resources, extended: fc.boolean() }),
  );
  fc.assert(
    fc.property(request, (each) => {
      expect.deepEqual(
        decodeControlRequest(nvOf(encodeControlRequest(each))),
        structuredClone(each),
      );
    }),
  );
});

test("replies survive encoding and decoding, with all we add to them", () => {
  fc.assert(
    fc.property(statusReply, (reply) => {
      expect.deepEqual(
        decodeStatusReply(nvOf(encodeStatusReply(reply, true))),
        structuredClone(reply),
      );
    }),
  );
  fc.assert(
    fc.property(setRoleReply, (reply) => {
      expect.deepEqual(
        decodeSetRoleReply(nvOf(encodeSetRoleReply(reply, true))),
        structuredClone(reply),
      );
    }),
  );
});

function withoutRemarks<Entry extends StatusEntry | SetRoleEntry>(
  reply: ControlReply<Entry>,
): ControlReply<Entry> {
  const entries = reply.entries.map((entry) => ({ ...entry, errmsg: null, notes: [] }));
  return { error: reply.error, entries };
}

function withoutAdditions({
  error,
  entries,
}: ControlReply<StatusEntry>): ControlReply<StatusEntry> {
  const plain = (entry: StatusEntry): StatusEntry => {
    if (entry.outcome.kind === "failed") return entry;
    const { device: _device, copy: _copy, term: _term, ...status } = entry.outcome.status;
    return { ...entry, outcome: { kind: "known", status } };
  };
  return { error, entries: entries.map(plain) };
}

test("who did not ask for more gets not one key more than the original sends", () => {
  fc.assert(
    fc.property(statusReply, setRoleReply, (statuses, roles) => {
      const plainStatuses = encodeStatusReply(statuses, false);
      const plain = withoutAdditions(withoutRemarks(statuses));
      expect.deepEqual(plainStatuses, encodeStatusReply(plain, true));
      const plainRoles = encodeSetRoleReply(roles, false);
      expect.deepEqual(plainRoles, encodeSetRoleReply(withoutRemarks(roles), true));
      for (const { name } of decodeNv(nvOf(plainStatuses)).entries) {
        expect.doesNotMatch(name, /^(errmsg|note|device)/);
      }
    }),
  );
});

test("our keys come after all of the original's, resource by resource", () => {
  const entries = [
    { ...done("a", "init"), errmsg: "why", notes: ["one", "two"] },
    done("b", "primary"),
  ];
  const names = decodeNv(nvOf(encodeSetRoleReply({ error: 0, entries }, true))).entries.map(
    ({ name }) => name,
  );
  expect.deepEqual(names, [
    "resource0",
    "role0",
    "errmsg0",
    "note0_0",
    "note0_1",
    "resource1",
    "role1",
  ]);
});

test("zero resources are answered with error 0, since an nv block must not be empty", () => {
  const message = encodeStatusReply({ error: 0, entries: [] }, false);
  expect.equal(hex(message), "02160000000306020000006572726f720000000000000000000000");
  expect.deepEqual(decodeStatusReply(nvOf(message)), { error: 0, entries: [] });
});

test("requests that make no sense get the original's answers", () => {
  const decode = (nv: NvWriter): unknown => decodeControlRequest(nv.finish());
  const closed = { kind: "no-command" };
  expect.deepEqual(decode(new NvWriter().string("resource0", "r")), closed);
  expect.deepEqual(decode(new NvWriter().u8("cmd", 0).string("resource0", "r")), closed);
  expect.deepEqual(decode(new NvWriter().u32("cmd", 2).string("resource0", "r")), closed);
  const refused = (error: number): unknown => ({ kind: "refused", error });
  expect.deepEqual(decode(new NvWriter().u8("cmd", 2).string("resource1", "r")), refused(2));
  expect.deepEqual(decode(new NvWriter().u8("cmd", 1).string("resource0", "r")), refused(2));
  expect.deepEqual(decode(new NvWriter().u8("cmd", 9).string("resource0", "r")), refused(4));
  expect.deepEqual(decodeStatusReply(nvOf(encodeControlError(4))), { error: 4, entries: [] });
});

test("a reply without what it must have is refused", () => {
  const noRole = new NvWriter().string("resource0", "r").finish();
  expect.throws(() => decodeSetRoleReply(noRole), { code: "control-invalid" });
  expect.throws(() => decodeStatusReply(noRole), { code: "control-invalid" });
  const oddRole = new NvWriter().string("resource0", "r").string("role0", "king").finish();
  expect.throws(() => decodeSetRoleReply(oddRole), { code: "control-invalid" });
});

test("role codes are the original's", () => {
  expect.deepEqual(
    ["init", "primary", "secondary"].map((each) => roleCode(each as "init")),
    [1, 2, 3],
  );
});

test("arbitrary bytes give a value or a WireError", () => {
  const name = fc.constantFrom(
    "cmd",
    "role",
    "resource0",
    "resource1",
    "role0",
    "error0",
    "status0",
  );
  const entry = fc.tuple(
    fc.constantFrom(2, 3, 17, 8),
    name,
    fc.constantFrom([1], [2, 0], [112, 0], [1, 2, 3, 4, 5, 6, 7, 8]),
  );
  const plausible = fc.array(entry, { maxLength: 8 }).map((entries) => {
    const nv = new NvWriter();
    for (const [type, key, data] of entries) nv.add(type, key, Uint8Array.from(data));
    return nv.finish();
  });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), plausible), (bytes) => {
      for (const decode of [decodeControlRequest, decodeSetRoleReply, decodeStatusReply]) {
        try {
          decode(bytes);
        } catch (error) {
          expect.ok(error instanceof WireError, String(error));
        }
      }
    }),
    { numRuns: 2000 },
  );
});

test("reload and config name no resource", () => {
  for (const kind of ["reload", "config"] as const) {
    const message = encodeControlRequest({ kind });
    expect.deepEqual(decodeControlRequest(message.subarray(FRAME_HEADER_SIZE)), { kind });
  }
});

test("orders survive encoding and decoding; one without its word or number is refused", () => {
  const resources = ["r0", "r1"];
  const orders: readonly Order[] = [
    { kind: "connect" },
    { kind: "disconnect" },
    { kind: "pause-resync" },
    { kind: "resume-resync" },
    { kind: "resync-rate", rate: 20_000_000 },
    { kind: "invalidate", dryRun: true },
    { kind: "outdate", dryRun: false },
  ];
  for (const order of orders) {
    const message = encodeControlRequest({ kind: "order", order, resources });
    const decoded = decodeControlRequest(message.subarray(FRAME_HEADER_SIZE));
    expect.deepEqual(decoded, { kind: "order", order, resources });
  }
  for (const cmd of [72, 73, 74, 75]) {
    for (const nv of [
      new NvWriter().u8("cmd", cmd).string("resource0", "r0"),
      new NvWriter()
        .u8("cmd", cmd)
        .u8("dryrun", 2)
        .u64("rate", 2n ** 60n)
        .string("resource0", "r0"),
    ]) {
      expect.deepEqual(decodeControlRequest(nv.finish()), { kind: "refused", error: 2 });
    }
  }
});

test("a lease, and what comes of it, survives encoding and decoding", () => {
  const lease = { term: 2n ** 60n, deadlineMs: 123_456_789 };
  const requests: ControlRequest[] = [
    { kind: "lease", resources: ["r0", "r1"], lease, confirmed: [0, 17], waitMs: 10_000 },
    { kind: "set-role", role: "primary", resources: ["r0"], extended: true, lease },
  ];
  for (const request of requests) {
    expect.deepEqual(decodeControlRequest(nvOf(encodeControlRequest(request))), request);
  }
  const reply: ControlReply<LeaseEntry> = {
    error: 0,
    entries: [
      {
        resource: "r0",
        outcome: { kind: "known", role: "primary", wish: { number: 18, whole: "remote" } },
        errmsg: null,
      },
      {
        resource: "r1",
        outcome: { kind: "known", role: "init", wish: null },
        errmsg: null,
      },
      { resource: "r2", outcome: { kind: "failed", error: 1 }, errmsg: "There is none." },
    ],
  };
  expect.deepEqual(decodeLeaseReply(nvOf(encodeLeaseReply(reply))), reply);
});

// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { PretendClock } from "../../test/pretend/clock.ts";
import { Events } from "../../test/pretend/events.ts";
import { REMEMBERED_MS, REPEAT_MS, RequestFailures } from "./request-failures.ts";

const EIO = 5;
const EINVAL = 22;
const ENOSPC = 28;

function make(): { failures: RequestFailures; clock: PretendClock; warnings: string[] } {
  const clock = new PretendClock(new Events());
  const warnings: string[] = [];
  const failures = new RequestFailures("/disk", clock, (text) => warnings.push(text));
  return { failures, clock, warnings };
}

test("failed() warns at once, then once a minute with how many there were", async () => {
  const { failures, clock, warnings } = make();
  for (let count = 0; count < 100; count++) failures.failed("writing", ENOSPC);
  expect.deepEqual(warnings, [
    "/disk failed a request, writing: No space left on device. Make room on the file system it lies on.",
  ]);
  await clock.pass(REPEAT_MS);
  failures.failed("reading", EIO);
  expect.equal(warnings.length, 2);
  expect.match(warnings[1]!, /reading: Input\/output error \(100 requests since/);
  expect.match(warnings[1]!, /dmesg\.$/);
});

test("what a disk calls invalid may be a matter of its sectors, and no kernel's log tells of that", () => {
  const { failures, warnings } = make();
  failures.failed("writing", EINVAL);
  expect.match(warnings[0]!, /sectors are larger.*hastctl status on that machine/);
});

test("note tells of the last failure while it is recent", async () => {
  const { failures, clock } = make();
  expect.equal(failures.note, null);
  failures.failed("writing", ENOSPC);
  await clock.pass(12_000);
  expect.equal(failures.note, "/disk failed 1 request 12 s ago, writing: No space left on device");
  failures.failed("reading", EIO);
  expect.match(failures.note!, /^\/disk failed 2 requests, the last 0\.0 s ago, reading: /);
  await clock.pass(REMEMBERED_MS + 1);
  expect.equal(failures.note, null);
});

// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock, settle } from "../../test/daemon/fakes.ts";
import { NO_SUPERVISOR } from "../platform/supervisor.ts";
import { keepWatch, ROUND_PAUSE_MS } from "./watchdog.ts";
import { STATUS_TIMEOUT_MS } from "./worker.ts";

test("the service manager hears of each round that ends, and of none that hangs", async () => {
  const clock = new FakeClock();
  const heard: string[] = [];
  let rounds = 0;
  let hangs = false;
  const supervisor = { ...NO_SUPERVISOR, alive: (status: string) => void heard.push(status) };
  const round = async () => {
    if (hangs) await new Promise(() => undefined);
    await new Promise<void>((resolve) => clock.after(STATUS_TIMEOUT_MS, resolve));
    return `round ${++rounds}`;
  };
  void keepWatch(clock, supervisor, round);
  await clock.advance(2 * STATUS_TIMEOUT_MS + ROUND_PAUSE_MS);
  assert.deepEqual(heard, ["round 1", "round 2"]);
  hangs = true;
  await clock.advance(60_000);
  await settle();
  assert.deepEqual(heard, ["round 1", "round 2"]);
});

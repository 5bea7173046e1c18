// SPDX-License-Identifier: BSD-2-Clause
/** The control socket of two main daemons, in the order in which FreeBSD's were asked. */

import { strict as expect } from "node:assert";
import { test } from "node:test";
import { ControlServer } from "../../src/daemon/control-server.ts";
import { Resource } from "../../src/daemon/resource.ts";
import type { WorkerReport } from "../../src/engine/worker-messages.ts";
import {
  FakeClock,
  FakeLog,
  FakeProcesses,
  FakeSocket,
  FakeStream,
  FIXED,
  QUIET_REPORT,
  settingsOf,
  settle,
  surroundingsOf,
} from "../daemon/fakes.ts";
import { golden, goldenPaths, zeroStreamPadding } from "./vectors.ts";

/** One of the two nodes that were captured. */
class Node {
  readonly clock = new FakeClock();
  readonly processes = new FakeProcesses();
  readonly resource: Resource;
  readonly server: ControlServer;

  constructor(name: "alpha" | "beta") {
    const settings = settingsOf("r0", {
      local: `/var/db/hast/${name}.img`,
      remote: name === "alpha" ? "tcp4://127.0.1.3:8457" : "tcp4://127.0.1.1:8457",
      source: name === "alpha" ? "tcp4://127.0.1.1" : "tcp4://127.0.1.2",
      checksum: "crc32",
      compression: "lzf",
    });
    const log = new FakeLog();
    const { clock, processes } = this;
    this.resource = new Resource(settings, surroundingsOf({ clock, processes, log }));
    this.server = new ControlServer({
      clock: this.clock,
      log,
      resources: () => new Map([["r0", this.resource]]),
      configuration: FIXED,
    });
    this.processes.born = (worker) => worker.says({ kind: "ready" });
  }

  /** Sends a request as captured. @returns what came back */
  async ask(request: Uint8Array): Promise<Uint8Array> {
    const stream = new FakeStream();
    this.server.accept(stream, "everything");
    stream.feed(request);
    for (let turn = 0; turn < 20 && stream.state === "open"; turn++) await settle();
    expect.notEqual(stream.state, "open");
    return stream.written;
  }

  async expectCaptured(name: string): Promise<void> {
    const reply = await this.ask(golden(`control/${name}.req.bin`));
    expect.deepEqual(reply, zeroStreamPadding(golden(`control/${name}.rep.bin`)), name);
  }

  worker(pid: number, report: Partial<WorkerReport>): void {
    this.processes.nextPid = pid;
    this.processes.born = (worker) => {
      worker.report = { ...QUIET_REPORT, ...report };
      worker.says({ kind: "ready" });
    };
  }
}

test("the captured requests get the captured replies, byte for byte", async () => {
  const alpha = new Node("alpha");
  const beta = new Node("beta");
  await alpha.expectCaptured("01-status-init");
  await alpha.expectCaptured("02-list-init");
  await beta.expectCaptured("03-role-secondary");
  await beta.expectCaptured("04-status-secondary-idle");
  await beta.expectCaptured("05-list-secondary-idle");

  alpha.worker(28825, {});
  await alpha.expectCaptured("06-role-primary-all");
  await alpha.expectCaptured("07-status-primary-complete");
  const served = { writes: 2, deletes: 1, flushes: 1 };
  alpha.processes.last.report = { ...QUIET_REPORT, ...served, activemapUpdates: 2 };
  await alpha.expectCaptured("08-list-primary-complete");

  beta.worker(28833, { ...served, keepdirty: 0 });
  void beta.resource.firstStep(new FakeSocket("127.0.1.1"), {
    kind: "p1",
    resource: "r0",
    version: 2,
    extensions: 0n,
    term: 0n,
  });
  await settle();
  beta.resource.secondStep(new FakeSocket("127.0.1.1"), {
    kind: "p2",
    resource: "r0",
    token: new Uint8Array(16).fill(1),
    virgin: true,
    resuid: 1n,
    localcnt: 0n,
    remotecnt: 0n,
    remarks: null,
    life: null,
    whole: false,
  });
  await settle();
  await beta.expectCaptured("09-status-secondary-complete");
  await beta.expectCaptured("10-list-secondary-complete");

  await alpha.expectCaptured("11-role-primary-again");
  await alpha.expectCaptured("12-status-unknown");
  await alpha.expectCaptured("13-role-unknown");
  await alpha.expectCaptured("14-status-mixed");
  alpha.processes.last.report = {
    ...QUIET_REPORT,
    status: "degraded",
    dirty: 65536,
    writes: 3,
    deletes: 1,
    flushes: 2,
    activemapUpdates: 3,
  };
  await alpha.expectCaptured("15-status-primary-degraded");
  await alpha.expectCaptured("16-list-primary-degraded");
  await alpha.expectCaptured("17-role-secondary-from-primary");
  await alpha.expectCaptured("18-role-init");
  await alpha.expectCaptured("19-status-back-to-init");
});

test("malformed requests get what the original gives them, or nothing", async () => {
  const alpha = new Node("alpha");
  for (const path of goldenPaths("control/raw-*.req.bin")) {
    await alpha.expectCaptured(path.replace(/^control\/|\.req\.bin$/g, ""));
  }
});

test("every captured request is among those replayed here", () => {
  expect.equal(goldenPaths("control/*.req.bin").length, 19 + 4);
});

// SPDX-License-Identifier: BSD-2-Clause
/** A reload between two real nodes, under load: live changes keep the connection, a wrong file changes nothing. */

import { strict as assert } from "node:assert";
import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { signal } from "./marked-processes.ts";
import { RecordedWriter } from "./recorded-writer.ts";
import { TwoNodes, withPair } from "./two-nodes.ts";
import { until } from "./until.ts";

test("BD-32: a reload adds and removes a resource, and changes mode and timeout under load", () =>
  withPair(TwoNodes.startReplicating({ replication: "memsync", timeout: 5 }), async (pair) => {
    const { alpha } = pair;
    const before = readFileSync(pair.configuration, "utf8");
    const worker = await alpha.workerPid();
    const client = await alpha.connect();
    const writer = new RecordedWriter({ offset: 0, blockCount: 256 });
    writer.start(client);
    await until("it writes", () => writer.acknowledgedCount > 200);

    const spare = `resource spare { device none local ${pair.directory}/spare.img remote none export unix://${pair.directory}/spare.sock on alpha { } on beta { } }\n`;
    const after = before
      .replace("replication memsync", "replication fullsync")
      .replace("timeout 5", "timeout 9")
      .replace("checksum none", "checksum crc32");
    writeFileSync(pair.configuration, `${after}${spare}`);
    const reloaded = await alpha.hastctl("reload");
    assert.equal(reloaded.code, 0, reloaded.stderr);
    assert.equal(
      reloaded.stdout,
      [
        "hastd: reloaded",
        "  spare: added, in role init",
        "  shared: changed live; its role is primary",
        "    replication: memsync -> fullsync",
        "    checksum: none -> crc32",
        "    timeout: 5 -> 9",
        "",
      ].join("\n"),
    );
    const seen = writer.acknowledgedCount;
    await until("it goes on", () => writer.acknowledgedCount > seen + 200);
    assert.equal((await alpha.list()).get("replication"), "fullsync");
    assert.equal(await alpha.workerPid(), worker);
    assert.match((await alpha.hastctl("status")).stdout, /^spare\s/m);

    // A wrong file changes nothing, whoever asks.
    appendFileSync(pair.configuration, "bogus\n");
    signal(alpha.daemonPid, "SIGHUP");
    await until("hastd complains", () =>
      /hast\.conf:\d+:1: unknown statement/.test(alpha.logText()),
    );
    const refused = await alpha.hastctl("reload");
    assert.equal(refused.code, 78);
    assert.match(refused.stderr, /hast\.conf:\d+:1: unknown statement/);

    writeFileSync(pair.configuration, after);
    signal(alpha.daemonPid, "SIGHUP");
    await until("it is gone", () => alpha.logText().includes("spare: removed; its role was init"));
    const again = writer.acknowledgedCount;
    await until("it goes on", () => writer.acknowledgedCount > again + 200);
    assert.equal(await writer.stop(), null);
    await client.disconnect();
    assert.doesNotMatch(alpha.logText(), /Disconnected/);
    assert.equal(await alpha.workerPid(), worker);
    assert.equal((await alpha.list()).get("status"), "complete");
    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);
  }));

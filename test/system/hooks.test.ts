// SPDX-License-Identifier: BSD-2-Clause
/** Real hooks of two real nodes: what they are told and when, and what a gate can keep from happening. */

import { strict as assert } from "node:assert";
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { NbdClient } from "./nbd-client.ts";
import { type Node, RESOURCE, TwoNodes, withPair } from "./two-nodes.ts";
import { until } from "./until.ts";

/** A directory with an `exec` that keeps a diary, and a `gate` that says no where a file says why. */
class Scripts {
  readonly directory = mkdtempSync(join(tmpdir(), "hast-hooks-"));
  readonly exec = join(this.directory, "exec");
  readonly gate = join(this.directory, "gate");
  readonly #diary = join(this.directory, "diary");

  constructor() {
    this.#script(this.exec, [
      'echo "$node $*" >>"$here/diary"',
      'printf %s "$HAST_STATUS_JSON" >"$here/$node-$1.json"',
      'if [ -e "$here/$node-$1-hangs" ]; then sleep 1000; fi',
    ]);
    this.#script(this.gate, [
      'echo "$node $*" >>"$here/diary"',
      'if [ -e "$here/$node-$1-no" ]; then cat "$here/$node-$1-no"; exit 1; fi',
    ]);
  }

  #script(path: string, lines: readonly string[]): void {
    const head = ["#!/bin/sh", `here=${this.directory}`, 'node=$(basename "$HAST_LOCAL" .img)'];
    writeFileSync(path, `${[...head, ...lines].join("\n")}\n`, { mode: 0o755 });
  }

  get statements(): readonly string[] {
    return [`exec ${this.exec}`, `gate ${this.gate}`, "exectimeout 8"];
  }

  /** What a node's programs were called with. */
  calls(node: Node): string[] {
    if (!existsSync(this.#diary)) return [];
    const lines = readFileSync(this.#diary, "utf8").split("\n");
    const mine = lines.filter((line) => line.startsWith(`${node.name} `));
    return mine.map((line) => line.slice(node.name.length + 1).replaceAll(` ${RESOURCE}`, ""));
  }

  async called(node: Node, ...calls: readonly string[]): Promise<void> {
    await until(
      `${node.name}'s hooks were called: ${calls.join(", ")}`,
      () => this.calls(node).join() === calls.join(),
      { withinMs: 60_000 },
    ).catch((error) => {
      throw new Error(`${node.name}: ${this.calls(node).join(", ")}`, { cause: error });
    });
  }

  refuse(node: Node, event: string, reason: string): void {
    appendFileSync(join(this.directory, `${node.name}-${event}-no`), `thinking\n${reason}\n`);
  }

  agree(node: Node, event: string): void {
    rmSync(join(this.directory, `${node.name}-${event}-no`));
  }

  hang(node: Node, event: string): void {
    appendFileSync(join(this.directory, `${node.name}-${event}-hangs`), "");
  }

  /** HAST_STATUS_JSON of the last such event. */
  snapshot(node: Node, event: string): Record<string, unknown> {
    return JSON.parse(readFileSync(join(this.directory, `${node.name}-${event}.json`), "utf8"));
  }
}

async function withScripts(body: (scripts: Scripts) => Promise<void>): Promise<void> {
  const scripts = new Scripts();
  try {
    await body(scripts);
  } finally {
    rmSync(scripts.directory, { recursive: true });
  }
}

async function statusOf(node: Node): Promise<string> {
  const { stdout, stderr } = await node.hastctl("status");
  return stdout + stderr;
}

async function writeSome(node: Node, offset: number): Promise<void> {
  const client: NbdClient = await node.connect();
  await client.write(offset, Buffer.alloc(4096, 7));
  await client.flush();
  await client.disconnect();
}

test("the hooks hear of roles, connections and synchronizations, in order; a gate holds a resync up until it agrees", async () => {
  await withScripts(async (scripts) => {
    const { statements } = scripts;
    await withPair(TwoNodes.startReplicating({ statements }), async (pair) => {
      const { alpha, beta } = pair;
      await scripts.called(alpha, "prerole init primary", "role init primary", "connect");
      await scripts.called(beta, "role init secondary", "connect");
      const known = scripts.snapshot(alpha, "connect");
      assert.equal(known["version"], 1);
      assert.equal(known["role"], "primary");
      assert.equal(known["event"], "connect");

      await beta.stop();
      await writeSome(alpha, 0);
      scripts.refuse(beta, "presync", "no room for a snapshot");
      await beta.start();
      await beta.role("secondary");
      await until("alpha knows why it is alone", async () =>
        (await statusOf(alpha)).includes("no room for a snapshot"),
      );
      await until("beta knows, too", async () =>
        (await statusOf(beta)).includes("no room for a snapshot"),
      );
      assert(beta.logText().includes(`Hook ${scripts.gate} (presync): thinking`));
      assert.notDeepEqual(await pair.differences(), [], "nothing was copied");

      scripts.agree(beta, "presync");
      await pair.inSync(alpha);
      assert.deepEqual(await pair.differences(), []);
      await scripts.called(
        alpha,
        ...["prerole init primary", "role init primary", "connect"],
        ...["disconnect", "connect", "syncstart", "syncdone"],
      );
      const calls = scripts.calls(beta);
      assert.deepEqual(calls.slice(0, 3), [
        "role init secondary",
        "connect",
        "role init secondary",
      ]);
      assert.deepEqual([...new Set(calls.slice(3))], ["presync", "connect"]);
    });
  });
});

test("a gate that refuses a promotion is quoted, and the node stays what it is", async () => {
  await withScripts(async (scripts) => {
    const { statements } = scripts;
    await withPair(TwoNodes.start({ statements }), async ({ beta }) => {
      await beta.role("secondary");
      scripts.refuse(beta, "prerole", "the other machine is not off");
      const { code, stderr } = await beta.hastctl("role", "primary", RESOURCE);
      assert.equal(code, 2);
      assert.match(stderr, /the gate \S+ refuses it \(exit code 1\): the other machine is not off/);
      assert.match(stderr, /hastctl role primary shared/);
      assert.equal((await beta.list()).get("role"), "secondary");
      scripts.agree(beta, "prerole");
      await beta.role("primary");
    });
  });
});

test("BD-47: a hook that hangs is ended, delays no role change, and those after it run", async () => {
  await withScripts(async (scripts) => {
    const { statements } = scripts;
    await withPair(TwoNodes.start({ statements }), async ({ alpha }) => {
      scripts.hang(alpha, "role");
      await alpha.role("secondary");
      await alpha.role("init");
      assert(!alpha.logText().includes("was ended"), "the roles changed while the first hook hung");
      await until(
        "the second hook was run, and ended",
        () => {
          const ends = alpha
            .logText()
            .match(/\(role\) failed: it took longer than 8 s and was ended/g);
          return ends?.length === 2;
        },
        { withinMs: 60_000 },
      );
      await scripts.called(alpha, "role init secondary", "role secondary init");
    });
  });
});

test("hooks of role changes right before the end of hastd still run", async () => {
  await withScripts(async (scripts) => {
    const { statements } = scripts;
    await withPair(TwoNodes.start({ statements }), async ({ alpha }) => {
      await alpha.role("secondary");
      await alpha.role("init");
      assert.equal(await alpha.stop(), 0);
      assert.deepEqual(scripts.calls(alpha), ["role init secondary", "role secondary init"]);
    });
  });
});

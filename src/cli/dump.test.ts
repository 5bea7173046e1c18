// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { MemoryComponent } from "../../test/cli/memory-component.ts";
import { runCommand } from "../../test/cli/surroundings.ts";
import { golden, goldenPaths } from "../../test/golden/vectors.ts";
import { encodeMetadata, type Metadata } from "../metadata/block.ts";
import { ComponentError } from "../platform/component.ts";
import { dump } from "./dump.ts";

const METADATA: Metadata = {
  resource: "r0",
  datasize: 1048576,
  extentsize: 65536,
  keepdirty: 64,
  localoff: 1048576,
  resuid: 16719415272837691255n,
  localcnt: 1n,
  remotecnt: 2n,
  prevrole: "secondary",
  state: "uptodate",
  sequence: 9n,
  synced: null,
  aloneSince: null,
};

function disk(metadata: Metadata, size = 4194304): MemoryComponent {
  const component = new MemoryComponent(size);
  component.put(0, encodeMetadata(metadata));
  return component;
}

test("dump prints every captured component as the original does", async () => {
  for (const path of goldenPaths("metadata/create-*.bin")) {
    const { media_bytes: size } = JSON.parse(
      new TextDecoder().decode(golden(path.replace(".bin", ".json"))),
    ) as { media_bytes: number };
    const component = new MemoryComponent(size);
    component.put(0, golden(path));
    const { exitCode, out } = await runCommand(dump, ["r0"], {
      components: new Map([["/disk/r0", component]]),
    });
    assert.equal(exitCode, 0, path);
    assert.equal(out, new TextDecoder().decode(golden(path.replace(".bin", ".dump.txt"))), path);
    assert.ok(component.closed);
    assert.deepEqual(component.steps, []);
  }
});

test("dump adds our state last, indented like the original's lines", async () => {
  const components = new Map([["/disk/r0", disk(METADATA)]]);
  const { exitCode, out, err } = await runCommand(dump, ["r0"], { components });
  assert.deepEqual(
    { exitCode, err, out: out.split("\n") },
    {
      exitCode: 0,
      err: "",
      out: [
        "resource: r0",
        "    datasize: 1048576 (1.0MB)",
        "    extentsize: 65536 (64KB)",
        "    keepdirty: 64",
        "    localoff: 1048576",
        "    resuid: 16719415272837691255",
        "    localcnt: 1",
        "    remotecnt: 2",
        "    prevrole: secondary",
        "    state: uptodate",
        "",
      ],
    },
  );
});

test("dump finds metadata behind adopted data", async () => {
  const component = new MemoryComponent(4194304);
  component.put(4194304 - 4096, encodeMetadata({ ...METADATA, localoff: 0 }));
  const { exitCode, out } = await runCommand(dump, ["r0"], {
    components: new Map([["/disk/r0", component]]),
  });
  assert.equal(exitCode, 0);
  assert.match(out, /localoff: 0\n/);
});

test("dump opens for reading only, so that a running daemon's component can be dumped", async () => {
  const asked = { requests: [], opened: [] };
  await runCommand(dump, ["r0"], { components: new Map([["/disk/r0", disk(METADATA)]]) }, asked);
  assert.deepEqual(asked.opened, ["read /disk/r0"]);
});

test("dump without names, or of all, takes every resource", async () => {
  const components = new Map([
    ["/disk/r0", disk(METADATA)],
    ["/disk/r1", disk({ ...METADATA, resource: "r1" })],
  ]);
  for (const words of [[], ["all"]]) {
    const { exitCode, out } = await runCommand(dump, words, {
      components,
      resources: ["r0", "r1"],
    });
    assert.equal(exitCode, 0);
    assert.deepEqual(out.match(/^resource: .*$/gm), ["resource: r0", "resource: r1"]);
  }
});

test("dump goes on after a failure, and exits with the first code", async () => {
  const components = new Map([["/disk/r0", disk(METADATA)]]);
  const { exitCode, out, err } = await runCommand(dump, ["nope", "r0"], { components });
  assert.equal(exitCode, 65);
  assert.match(out, /^resource: r0$/m);
  assert.equal(err, '[ERROR] There is no resource "nope" in hast.conf.\n  It defines r0.\n');
});

test("dump of what cannot be read or understood exits 255 and says why", async () => {
  const missing = new ComponentError("component-missing", "/disk/r0 does not exist");
  const damaged = disk(METADATA);
  damaged.put(100, new Uint8Array([0xff]));
  const cases: [MemoryComponent | Error, RegExp][] = [
    [
      missing,
      /^\[ERROR\] \[r0\] \/disk\/r0 does not exist\.\n {2}Correct "local".*truncate -s 10G \/disk\/r0\n$/,
    ],
    [
      new MemoryComponent(4194304),
      /there is no HAST metadata.*\n {2}To make it.*\n {4}hastctl create r0\n$/,
    ],
    [new MemoryComponent(100), /metadata alone takes 4096/],
    [disk({ ...METADATA, resource: "r9" }), /the metadata belongs to resource "r9", not "r0"/],
    [damaged, /damaged/],
  ];
  for (const [component, message] of cases) {
    const components = new Map([["/disk/r0", component]]);
    const { exitCode, out, err } = await runCommand(dump, ["r0"], { components });
    assert.equal(exitCode, 255);
    assert.equal(out, "");
    assert.match(err, message);
  }
});

test("dump shows metadata that hastd would refuse, and says that it would", async () => {
  const components = new Map([["/disk/r0", disk(METADATA, 1310720)]]);
  const { exitCode, out, err } = await runCommand(dump, ["r0"], { components });
  assert.equal(exitCode, 0);
  assert.match(out, /^resource: r0$/m);
  assert.match(err, /^\[WARNING\] \[r0\] hastd will refuse \/disk\/r0 .*was it shrunk\?/);
});

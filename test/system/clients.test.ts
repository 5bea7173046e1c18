// SPDX-License-Identifier: BSD-2-Clause
/** The tools people already have, against the primary's export. */

import { strict as assert } from "node:assert";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { expectCommand } from "./command.ts";
import { bytesOf, TwoNodes, withPair } from "./two-nodes.ts";

const MIB = 1024 * 1024;

test("nbdinfo, nbdcopy, qemu-img, qemu-io, nbdsh and fio agree about the disk", () =>
  withPair(TwoNodes.startReplicating({ replication: "fullsync" }), async (pair) => {
    const { alpha, directory } = pair;
    const size = bytesOf((await alpha.dump()).get("datasize"));
    assert.equal((await alpha.tool("nbdinfo", "--size", "URI")).trim(), String(size));
    const info = JSON.parse(await alpha.tool("nbdinfo", "--json", "URI"));
    assert.equal(info.protocol, "newstyle-fixed");
    assert.equal(info.structured, true);
    const [exported] = info.exports;
    for (const capability of ["can_flush", "can_fua", "can_trim", "can_zero", "can_cache"]) {
      assert.equal(exported[capability], true, capability);
    }
    assert.deepEqual(exported.contexts.toSorted(), ["base:allocation", "hast:dirty"]);
    assert.match(await alpha.tool("nbdinfo", "--list", "URI"), /export=/);

    // An image with a pattern, holes and an odd tail.
    const image = join(directory, "image");
    const content = Buffer.alloc(8 * MIB);
    for (let at = 0; at < MIB; at += 4) content.writeUInt32LE(Math.imul(at, 0x9e3779b1) >>> 0, at);
    content.copy(content, 5 * MIB, 0, MIB);
    writeFileSync(image, content);
    await alpha.tool("nbdcopy", "--flush", image, "URI");
    const back = join(directory, "back");
    await alpha.tool("nbdcopy", "URI", back);
    await expectCommand("cmp", ["-n", String(content.length), image, back]);
    const compare = await alpha.tool("qemu-img", "compare", "-f", "raw", "-F", "raw", "URI", image);
    assert.match(compare, /identical/);

    // The map knows the holes.
    const map = JSON.parse(await alpha.tool("nbdinfo", "--map", "--json", "URI")) as {
      offset: number;
      length: number;
      type: number;
    }[];
    assert.equal(
      map.reduce((sum, { length }) => sum + length, 0),
      size,
    );
    assert.deepEqual(
      map.slice(0, 3).map(({ offset, length, type }) => ({ offset, length, type })),
      [
        { offset: 0, length: MIB, type: 0 },
        { offset: MIB, length: 4 * MIB, type: 3 },
        { offset: 5 * MIB, length: MIB, type: 0 },
      ],
    );
    const dirty = await alpha.tool("nbdinfo", "--map=hast:dirty", "--totals", "URI");
    assert.match(dirty, /\d/);

    await alpha.tool(
      "qemu-io",
      ...["-f", "raw", "URI"],
      ...["-c", "write -P 0xa5 16M 64k", "-c", "write -f -P 0x5a 17M 512"],
      ...["-c", "write -z 18M 1M", "-c", "discard 19M 1M", "-c", "flush"],
    );
    const reads = await alpha.tool(
      "qemu-io",
      ...["-f", "raw", "URI"],
      ...["-c", "read -P 0xa5 16M 64k", "-c", "read -P 0x5a 17M 512", "-c", "read -P 0 18M 2M"],
    );
    assert.doesNotMatch(reads, /verification failed/);

    await expectCommand("/usr/bin/nbdsh", ["-u", alpha.uri, "-c", "-"], {
      // Its "env python3" must be the one that has libnbd.
      env: { ...process.env, PATH: `/usr/bin:${process.env["PATH"]}` },
      stdin: [
        "assert h.pread(512, 17 * 1024 * 1024) == b'Z' * 512",
        "h.pwrite(b'hast' * 128, 20 * 1024 * 1024, nbd.CMD_FLAG_FUA)",
        "assert h.pread(512, 20 * 1024 * 1024) == b'hast' * 128",
        "h.set_strict_mode(0)",
        "try:",
        "    h.pread(512, h.get_size())",
        "    raise SystemExit('a read past the end succeeded')",
        "except nbd.Error as error:",
        "    assert error.errno == 'EINVAL', error",
        "",
      ].join("\n"),
    });

    const fio = [
      "--name=v",
      "--ioengine=nbd",
      "--verify_state_save=0",
      "--uri=URI",
      "--offset=24M",
      "--size=24M",
    ];
    const verify = ["--rw=randwrite", "--bs=4k", "--iodepth=16", "--verify=crc32c", "--randseed=7"];
    await alpha.tool("fio", ...fio, ...verify, "--do_verify=1");

    await pair.inSync(alpha);
    assert.deepEqual(await pair.differences(), []);
  }));

test("an ext4 file system survives a failover", () =>
  withPair(TwoNodes.startReplicating(), async (pair) => {
    const { alpha, beta, directory } = pair;
    const image = join(directory, "ext4");
    const note = join(directory, "note");
    writeFileSync(note, "still here\n");
    await expectCommand("mkfs.ext4", ["-q", image, "32M"]);
    await expectCommand("debugfs", ["-w", "-R", `write ${note} note`, image]);
    await alpha.tool("nbdcopy", "--flush", image, "URI");
    await alpha.role("secondary");
    await beta.role("primary");
    const copy = join(directory, "copy");
    await beta.tool("nbdcopy", "URI", copy);
    await expectCommand("e2fsck", ["-fn", copy]);
    assert.equal(await expectCommand("debugfs", ["-R", "cat note", copy]), "still here\n");
  }));

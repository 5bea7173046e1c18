// SPDX-License-Identifier: BSD-2-Clause
/** src/nbd as the clients people use see it: libnbd's tools, qemu's, fio. Each talks to a disk in memory. */

import { strict as expect } from "node:assert";
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { NbdExport } from "../src/nbd/export.ts";
import { MemoryServer } from "./nbd-memory-server.ts";
import { exportOf } from "./nbd-peer.ts";

const MIB = 1 << 20;
const EIO = 5;

/** Each tool, and the Debian package that has it. */
const PACKAGES = {
  nbdinfo: "libnbd-bin",
  nbdcopy: "libnbd-bin",
  nbdsh: "python3-libnbd",
  "qemu-io": "qemu-utils",
  "qemu-img": "qemu-utils",
  "qemu-nbd": "qemu-utils",
  fio: "fio",
} as const;
type Tool = keyof typeof PACKAGES;

/** Runs a client to its end. @returns what it printed; rejects with all of it unless it succeeds */
function run(tool: Tool, ...args: string[]): Promise<string> {
  // nbdsh must find Debian's Python, which has the bindings, before any other.
  const { PATH } = process.env as { PATH?: string };
  const env = { ...process.env, PATH: `/usr/bin:${PATH}` };
  return new Promise((resolve, reject) => {
    const options = { env, maxBuffer: 64 * MIB, timeout: 60_000, killSignal: "SIGKILL" } as const;
    execFile(tool, args, options, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else if (error.code === "ENOENT") {
        reject(new Error(`${tool} is missing; run: apt-get install -y ${PACKAGES[tool]}`));
      } else reject(new Error(`${tool} ${args.join(" ")}: ${error.message}\n${stdout}${stderr}`));
    });
  });
}

/** What `nbdinfo --list --json`, `nbdinfo --map --json` and `qemu-img map` print of each item. */
interface ListedExport {
  readonly "export-name": string;
  readonly description?: string;
  readonly "export-size": number;
  readonly contexts: readonly string[];
}
interface MapExtent {
  readonly offset: number;
  readonly length: number;
  readonly type: number;
}
interface QemuExtent {
  readonly start: number;
  readonly length: number;
  readonly zero: boolean;
}

interface Bench {
  readonly server: MemoryServer;
  readonly uri: string;
  readonly socket: string;
  /** A directory of this test's own. */
  readonly directory: string;
}

/** Serves one export (and others) while `body` runs; afterwards nothing is left. */
async function serving(
  change: Partial<NbdExport>,
  body: (bench: Bench) => Promise<void>,
  others: readonly NbdExport[] = [],
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "hast-nbd-"));
  const socket = join(directory, "s");
  const disk = exportOf({ size: 16 * MIB, payloadMaximum: 32 * MIB, ...change });
  const server = new MemoryServer(disk, others);
  await server.listen(socket);
  try {
    await body({ server, uri: `nbd+unix:///?socket=${socket}`, socket, directory });
  } finally {
    await server.close();
    await rm(directory, { recursive: true });
  }
}

/** Runs a Python script in nbdsh: `h` is an unconnected handle, `uri` the address. */
async function python(uri: string, script: string): Promise<void> {
  await run("nbdsh", "-c", `uri = ${JSON.stringify(uri)}\n${PYTHON}\n${script}`);
}

const PYTHON = `
import errno
def fails(wanted, call, *args):
    try:
        call(*args)
    except nbd.Error as ex:
        assert ex.errnum == wanted, "%s instead of errno %d" % (ex, wanted)
    else:
        raise AssertionError("succeeded instead of errno %d" % wanted)
`;

test("nbdinfo --json shows the export, its limits and what it can do", async () => {
  for (const blockMinimum of [1, 512, 4096]) {
    await serving({ blockMinimum }, async ({ uri, server }) => {
      const { exports, ...session } = JSON.parse(await run("nbdinfo", "--json", uri));
      expect.deepEqual(session, { protocol: "newstyle-fixed", TLS: false, structured: true });
      expect.equal(exports.length, 1);
      const wanted = {
        "export-name": "shared",
        description: "HAST resource shared",
        "export-size": 16 * MIB,
        contexts: ["base:allocation", "hast:dirty"],
        is_rotational: false,
        is_read_only: false,
        can_cache: true,
        can_df: true,
        can_fast_zero: false,
        can_flush: true,
        can_fua: true,
        can_multi_conn: true,
        can_trim: true,
        can_zero: true,
        block_size_minimum: blockMinimum,
        block_size_preferred: 4096,
        block_size_maximum: 32 * MIB,
      };
      for (const [key, value] of Object.entries(wanted)) {
        expect.deepEqual(exports[0][key], value, key);
      }
      expect.deepEqual(server.broken, []);
    });
  }
});

test("nbdinfo tells a client that several connections would not be safe", async () => {
  await serving({ multiConn: false }, async ({ uri }) => {
    const { exports } = JSON.parse(await run("nbdinfo", "--json", uri));
    expect.equal(exports[0].can_multi_conn, false);
  });
});

test("nbdinfo --list and qemu-nbd --list show every export", async () => {
  const other = exportOf({ name: "zweite ü", description: "", size: MIB, contexts: [] });
  const body = async ({ uri, socket, server }: Bench): Promise<void> => {
    const { exports } = JSON.parse(await run("nbdinfo", "--list", "--json", uri));
    const facts = exports.map((each: ListedExport) => [
      each["export-name"],
      each.description,
      each["export-size"],
      each.contexts,
    ]);
    expect.deepEqual(facts, [
      ["shared", "HAST resource shared", 16 * MIB, ["base:allocation", "hast:dirty"]],
      ["zweite ü", undefined, MIB, []],
    ]);
    const listing = await run("qemu-nbd", "--list", "--socket", socket);
    expect.match(listing, /exports available: 2/);
    expect.match(
      listing,
      /export: 'shared'\n +description: HAST resource shared\n +size: +16777216/,
    );
    expect.match(listing, /min block: 512\n +opt block: 4096\n +max block: 33554432/);
    expect.match(listing, /available meta contexts: 2\n +base:allocation\n +hast:dirty/);
    expect.deepEqual(server.broken, []);
  };
  await serving({}, body, [other]);
});

test("an export is found by its name, and a wrong name is answered with a right one", async () => {
  await serving({}, async ({ socket, server }) => {
    const named = (name: string): string => `nbd+unix:///${name}?socket=${socket}`;
    expect.equal((await run("nbdinfo", "--size", named("shared"))).trim(), String(16 * MIB));
    await expect.rejects(run("nbdinfo", "--size", named("nosuch")), /no export named 'nosuch'/);
    await expect.rejects(run("qemu-img", "info", named("nosuch")), /no such export; .*"shared"/);
    expect.deepEqual(server.broken, []);
  });
});

test("nbdinfo --map shows holes, and --map=hast:dirty what is out of sync", async () => {
  await serving({}, async ({ uri, server }) => {
    server.allocated.fill(1, 3, 5);
    server.dirty.fill(1, 7, 8);
    const map = async (option: string): Promise<unknown[]> => {
      const extents = JSON.parse(await run("nbdinfo", "--json", option, uri));
      return extents.map(({ offset, length, type }: MapExtent) => [offset, length, type]);
    };
    expect.deepEqual(await map("--map"), [
      [0, 3 * 4096, 3],
      [3 * 4096, 2 * 4096, 0],
      [5 * 4096, 16 * MIB - 5 * 4096, 3],
    ]);
    expect.deepEqual(await map("--map=hast:dirty"), [
      [0, 7 * 4096, 0],
      [7 * 4096, 4096, 1],
      [8 * 4096, 16 * MIB - 8 * 4096, 0],
    ]);
    // More extents than the server tells at once: blocks 6 to 8 are one.
    for (let block = 0; block < 200; block += 2) server.dirty[block] = 1;
    expect.equal((await map("--map=hast:dirty")).length, 198);
  });
});

test("nbdcopy brings a sparse image in and out, over one connection or four", async () => {
  for (const connections of [1, 4]) {
    await serving({}, async ({ uri, server, directory }) => {
      const image = join(directory, "in");
      await writeFile(image, randomBytes(5 * MIB));
      await truncate(image, 16 * MIB);
      const count = `--connections=${connections}`;
      await run("nbdcopy", "--flush", count, image, uri);
      expect.ok(server.data.equals(await readFile(image)), "the copy in differs");
      expect.equal(server.allocated.indexOf(0), (5 * MIB) / 4096, "the hole was filled");
      expect.ok(server.seen.some((command) => command.type === 3));

      const back = join(directory, "out");
      await run("nbdcopy", count, uri, back);
      expect.ok(server.data.equals(await readFile(back)), "the copy out differs");
      // It opens as many as it has threads, but several if it may.
      expect.ok(connections === 1 || server.connections > 3, `${server.connections} connections`);
      expect.deepEqual(server.broken, []);
    });
  }
});

for (const manners of ["structured", "simple", "EXPORT_NAME with zeroes"] as const) {
  test(`nbdsh reads, writes, flushes, trims, zeroes and caches (${manners})`, async () => {
    await serving({}, async ({ uri, server }) => {
      const structured = manners === "structured";
      await python(
        uri,
        `
if ${structured ? "False" : "True"}:
    h.set_request_structured_replies(False)
if ${manners === "EXPORT_NAME with zeroes" ? "True" : "False"}:
    h.set_handshake_flags(0)
h.connect_uri(uri)
assert h.get_structured_replies_negotiated() == ${structured ? "True" : "False"}
assert h.get_protocol() == ${manners.startsWith("EXPORT") ? '"newstyle"' : '"newstyle-fixed"'}, h.get_protocol()
assert h.get_size() == ${16 * MIB}
assert h.can_df() == ${structured ? "True" : "False"}
assert h.can_multi_conn() and h.can_fua() and h.can_cache()
data = bytes(range(256)) * 16
h.pwrite(data, 8192)
h.pwrite(data, 65536, nbd.CMD_FLAG_FUA)
assert h.pread(4096, 8192) == data
assert h.pread(512, 8192 + 512) == data[512:1024]
assert h.pread(8192, 4096) == bytes(4096) + data
if h.can_df():
    chunks = []
    def chunk(buf, at, status, error):
        chunks.append((at, status))
    assert h.pread_structured(4096, 65536, chunk, nbd.CMD_FLAG_DF) == data
    assert chunks == [(65536, nbd.READ_DATA)], chunks
h.trim(512, 8192)
assert h.pread(1024, 8192) == bytes(512) + data[512:1024]
h.trim(4096, 8192, nbd.CMD_FLAG_FUA)
h.zero(4096, 65536)
h.zero(4096, 69632, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
assert h.pread(8192, 65536) == bytes(8192)
h.cache(4096, 0)
h.flush()
big = bytes(h.get_size())
h.pwrite(b"\\x55" * len(big), 0)
assert h.pread(len(big), 0) == b"\\x55" * len(big)
h.shutdown()
`,
      );
      expect.deepEqual(server.flagsOf(1), [0, 1, 0]);
      expect.deepEqual(server.flagsOf(4), [0, 1]);
      expect.deepEqual(server.flagsOf(6), [0, 3]);
      expect.equal(server.flagsOf(3).length, 1);
      expect.equal(server.flagsOf(5).length, 1);
      expect.deepEqual(server.broken, []);
    });
  });
}

test("nbdsh negotiates by hand: list, info, contexts, wrong names, abort", async () => {
  await serving({}, async ({ uri, server }) => {
    await python(
      uri,
      `
h.set_opt_mode(True)
h.set_full_info(True)
h.connect_uri(uri)
names = []
assert h.opt_list(lambda name, description: names.append((name, description))) == 1
assert names == [("shared", "HAST resource shared")], names
h.set_export_name("nosuch")
fails(errno.ENOENT, h.opt_info)
fails(errno.ENOENT, h.opt_go)
h.set_export_name("")
h.opt_info()
assert h.get_size() == ${16 * MIB}
assert h.get_canonical_export_name() == "shared"
assert h.get_export_description() == "HAST resource shared"
assert h.get_block_size(nbd.SIZE_MINIMUM) == 512
assert h.get_block_size(nbd.SIZE_MAXIMUM) == ${32 * MIB}
def contexts(call):
    found = []
    call(lambda name: found.append(name))
    return found
assert contexts(h.opt_list_meta_context) == ["base:allocation", "hast:dirty"]
h.add_meta_context("hast:")
assert contexts(h.opt_list_meta_context) == ["hast:dirty"]
h.clear_meta_contexts()
h.add_meta_context("hast:dirty")
h.add_meta_context("x-other:thing")
h.opt_go()
assert h.can_meta_context("hast:dirty")
assert not h.can_meta_context("base:allocation")
h.shutdown()

h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri(uri)
h.opt_abort()
`,
    );
    expect.deepEqual(server.broken, []);
  });
});

test("nbdsh gets block status per context, in whole or one extent at a time", async () => {
  await serving({}, async ({ uri, server }) => {
    server.allocated.fill(1, 1, 2);
    await python(
      uri,
      `
h.add_meta_context("base:allocation")
h.add_meta_context("hast:dirty")
h.connect_uri(uri)
def status(length, offset, flags=0):
    found = {}
    def each(context, at, entries, error):
        assert at == offset and context not in found
        found[context] = entries
    h.block_status(length, offset, each, flags)
    return found
assert status(12288, 0) == {
    "base:allocation": [4096, 3, 4096, 0, 4096, 3],
    "hast:dirty": [12288, 0],
}, status(12288, 0)
one = nbd.CMD_FLAG_REQ_ONE
assert status(12288, 0, one) == {"base:allocation": [4096, 3], "hast:dirty": [12288, 0]}
assert status(512, 4096 + 512, one) == {"base:allocation": [512, 0], "hast:dirty": [512, 0]}
h.set_strict_mode(0)
fails(errno.EINVAL, h.block_status, 512, ${16 * MIB}, lambda *args: 0)
fails(errno.EINVAL, h.block_status, 0, 0, lambda *args: 0)
h.shutdown()

h = nbd.NBD()
h.set_strict_mode(0)
h.connect_uri(uri)
fails(errno.EINVAL, h.block_status, 512, 0, lambda *args: 0)
h.shutdown()
`,
    );
    expect.deepEqual(server.broken, []);
  });
});

for (const structured of [true, false]) {
  test(`nbdsh without its own checks gets the specified errors (structured: ${structured})`, async () => {
    await serving({ payloadMaximum: MIB }, async ({ uri, server }) => {
      await python(
        uri,
        `
h.set_strict_mode(0)
h.set_request_structured_replies(${structured ? "True" : "False"})
h.connect_uri(uri)
size = h.get_size()
sector = bytes(512)
fails(errno.EINVAL, h.pread, 512, size)
fails(errno.EINVAL, h.pread, 1024, size - 512)
fails(errno.EINVAL, h.pread, 512, 2**53)
fails(errno.EINVAL, h.pread, 512, 2**63 - 512)
fails(errno.ENOSPC, h.pwrite, sector, size)
fails(errno.ENOSPC, h.pwrite, sector * 2, size - 512)
fails(errno.ENOSPC, h.pwrite, sector * 2048, size - 512)
fails(errno.ENOSPC, h.pwrite, sector, 2**53)
fails(errno.ENOSPC, h.zero, 512, size)
fails(errno.EINVAL, h.trim, 1024, size - 512)
fails(errno.EINVAL, h.cache, 512, size)
fails(errno.EINVAL, h.pread, 511, 0)
fails(errno.EINVAL, h.pread, 512, 1)
fails(errno.EINVAL, h.pwrite, b"x", 0)
fails(errno.EINVAL, h.zero, 512, 0, nbd.CMD_FLAG_FAST_ZERO)
fails(errno.EINVAL, h.pwrite, sector, 0, nbd.CMD_FLAG_NO_HOLE)
fails(errno.EINVAL, h.flush, nbd.CMD_FLAG_DF)
fails(errno.EINVAL, h.pread, ${MIB} + 512, 0)
if ${structured ? "True" : "False"}:
    chunk = lambda *args: 0
    fails(errno.EOVERFLOW, h.pread_structured, ${MIB} + 512, 0, chunk, nbd.CMD_FLAG_DF)
assert h.pread(0, 0) == b""
h.pwrite(b"", 0)
h.zero(0, size)
h.trim(0, 0)
h.pwrite(b"\\x77" * ${MIB}, 0)
assert h.pread(${MIB}, 0) == b"\\x77" * ${MIB}
h.zero(size, 0)
h.shutdown()
`,
      );
      expect.deepEqual(server.broken, []);
    });
  });

  test(`nbdsh is told of a failing disk (structured: ${structured})`, async () => {
    await serving({}, async ({ uri, server }) => {
      server.failing = EIO;
      await python(
        uri,
        `
h.set_request_structured_replies(${structured ? "True" : "False"})
h.add_meta_context("base:allocation")
h.connect_uri(uri)
fails(errno.EIO, h.pread, 4096, 0)
fails(errno.EIO, h.pwrite, bytes(4096), 0)
fails(errno.EIO, h.flush)
fails(errno.EIO, h.zero, 4096, 0)
if ${structured ? "True" : "False"}:
    fails(errno.EIO, h.block_status, 4096, 0, lambda *args: 0)
h.shutdown()
`,
      );
      expect.deepEqual(server.broken, []);
    });
  });
}

test("a WRITE longer than the maximum payload loses the client, and nothing else", async () => {
  await serving({ payloadMaximum: MIB }, async ({ uri, server }) => {
    await python(
      uri,
      `
other = nbd.NBD()
other.connect_uri(uri)
h.set_strict_mode(0)
h.connect_uri(uri)
try:
    h.pwrite(bytes(${2 * MIB}), 0)
    raise AssertionError("succeeded")
except nbd.Error:
    pass
assert h.aio_is_dead() or h.aio_is_closed()
other.pwrite(b"x" * 512, 0)
assert other.pread(512, 0) == b"x" * 512
other.shutdown()
`,
    );
    expect.equal(server.broken.length, 1);
    expect.match(server.broken[0]!, /a WRITE of 2097152 bytes/);
  });
});

test("qemu-io writes, reads, discards and zeroes, with FUA where it is asked", async () => {
  await serving({}, async ({ uri, server }) => {
    const commands = [
      "write -f -P 1 0 64k",
      "read -P 1 0 64k",
      "write -P 2 1M 3M",
      "read -P 2 1M 3M",
      "aio_write -P 3 8M 1M",
      "aio_flush",
      "read -P 3 8M 1M",
      "discard 0 64k",
      "write -z 1M 64k",
      "write -z -u 2M 64k",
      "read -P 0 1M 64k",
      "read -P 0 2M 64k",
      "flush",
    ];
    const output = await run(
      "qemu-io",
      "-t",
      "writeback",
      "-f",
      "raw",
      uri,
      ...commands.flatMap((c) => ["-c", c]),
    );
    expect.doesNotMatch(output, /verification failed|error/i);
    expect.deepEqual(server.flagsOf(1), [1, 0, 0]);
    expect.deepEqual(server.flagsOf(6), [2, 0]);
    expect.equal(server.flagsOf(4).length, 1);
    expect.ok(server.flagsOf(3).length > 0);
    expect.deepEqual(server.broken, []);
  });
});

test("qemu-img knows the export, maps, compares and converts it both ways", async () => {
  await serving({}, async ({ uri, server, directory }) => {
    const image = join(directory, "in");
    await writeFile(image, randomBytes(3 * MIB));
    await truncate(image, 16 * MIB);
    const info = JSON.parse(await run("qemu-img", "info", "--output=json", uri));
    expect.equal(info["virtual-size"], 16 * MIB);

    await run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, uri);
    expect.ok(server.data.equals(await readFile(image)), "the copy in differs");
    await run("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, image);

    const map = JSON.parse(await run("qemu-img", "map", "-f", "raw", "--output=json", uri));
    expect.deepEqual(
      map.map(({ start, length, zero }: QemuExtent) => [start, length, zero]),
      [
        [0, 3 * MIB, false],
        [3 * MIB, 13 * MIB, true],
      ],
    );

    const back = join(directory, "out");
    await run("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, back);
    expect.ok(server.data.equals(await readFile(back)), "the copy out differs");

    server.data[16 * MIB - 1]! ^= 1;
    server.allocated[server.allocated.length - 1] = 1;
    await expect.rejects(
      run("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, image),
      /mismatch/,
    );
    expect.deepEqual(server.broken, []);
  });
});

test("qemu-nbd serves the export on to others", async () => {
  await serving({ blockMinimum: 4096 }, async ({ uri, server, directory }) => {
    const image = join(directory, "in");
    await writeFile(image, randomBytes(16 * MIB));
    const proxy = join(directory, "proxy");
    const pidFile = join(directory, "pid");
    await run("qemu-nbd", "--fork", `--pid-file=${pidFile}`, "-f", "raw", "-k", proxy, uri);
    try {
      await run("nbdcopy", "--flush", "--connections=1", image, `nbd+unix:///?socket=${proxy}`);
    } finally {
      // It leaves by itself after its last client, and takes its pid file along.
      if (existsSync(pidFile)) process.kill(Number(await readFile(pidFile, "utf8")));
    }
    expect.ok(server.data.equals(await readFile(image)), "the copy in differs");
    expect.deepEqual(server.broken, []);
  });
});

test("fio verifies what it wrote at random, many requests at a time", async () => {
  await serving({}, async ({ uri, server, directory }) => {
    const job = [
      `--directory=${directory}`,
      "--name=verify",
      "--ioengine=nbd",
      `--uri=${uri}`,
      "--size=16M",
      "--rw=randwrite",
      "--bsrange=4k-64k",
      "--iodepth=32",
      "--fsync=64",
      "--verify=crc32c",
      "--verify_fatal=1",
      "--verify_state_save=0", // it would go to the current directory
      "--randseed=7",
    ];
    await run("fio", ...job, "--do_verify=0");
    await run("fio", ...job, "--verify_only");
    expect.ok(server.flagsOf(1).length > 200);
    expect.ok(server.flagsOf(0).length > 200);
    expect.ok(server.flagsOf(3).length > 0);

    server.data[8 * MIB + 100]! ^= 1;
    await expect.rejects(run("fio", ...job, "--verify_only"), /verify/);
    expect.deepEqual(server.broken, []);
  });
});

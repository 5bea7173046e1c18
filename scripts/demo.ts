// SPDX-License-Identifier: BSD-2-Clause
/**
 * `npm run demo`: two nodes on this machine, a failover, a return, and the proof that nothing was lost.
 *
 * Unprivileged, in a temporary directory, under a minute. With --keep the pair stays and the commands
 * to play with it are printed.
 */

import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { join } from "node:path";
import { expectCommand } from "../test/system/command.ts";
import { RecordedWriter } from "../test/system/recorded-writer.ts";
import { bytesOf, type Node, RESOURCE, TwoNodes } from "../test/system/two-nodes.ts";
import { pause, until } from "../test/system/until.ts";

const MIB = 1024 * 1024;
const MEDIA_SIZE = 256 * MIB;
const IMAGE_SIZE = 24 * MIB;
/** Where the writer writes: above the file system's image. */
const WRITER_OFFSET = 64 * MIB;
const WRITER_BLOCKS = 4096;

const began = performance.now();

function say(...lines: readonly string[]): void {
  for (const line of lines) console.log(line);
}

let steps = 0;
function step(title: string): void {
  steps += 1;
  const seconds = ((performance.now() - began) / 1000).toFixed(1).padStart(4);
  say("", `[${seconds} s] ${steps}. ${title}`);
}

/** Shows a command as an operator of that node would have typed it, and what it printed. */
function show(node: Node, command: string, output: string): void {
  say(`    ${node.name}# ${command}`);
  for (const line of output.trimEnd().split("\n")) if (line !== "") say(`    ${line}`);
}

async function role(node: Node, wanted: "primary" | "secondary"): Promise<void> {
  await node.role(wanted);
  show(node, `hastctl role ${wanted} ${RESOURCE}`, "");
}

async function status(node: Node): Promise<void> {
  show(node, "hastctl status", await node.status());
}

/** SHA-256 of a node's data area, read from its disk and not through hastd. */
async function digest(node: Node): Promise<string> {
  const dump = await node.dump();
  const hash = createHash("sha256");
  const buffer = Buffer.alloc(4 * MIB);
  const file = openSync(node.local, "r");
  let at = bytesOf(dump.get("localoff"));
  const end = at + bytesOf(dump.get("datasize"));
  while (at < end) {
    const got = readSync(file, buffer, 0, Math.min(buffer.length, end - at), at);
    if (got === 0) throw new Error(`${node.local} ends at ${at}, before its data area`);
    hash.update(buffer.subarray(0, got));
    at += got;
  }
  closeSync(file);
  return hash.digest("hex");
}

function short(sha256: string): string {
  return `${sha256.slice(0, 16)}…`;
}

async function demo(pair: TwoNodes): Promise<void> {
  const { alpha, beta, directory } = pair;

  step("Two nodes, alpha and beta, each with a disk of its own (here: a file) and a hastd.");
  say(`    Everything lies in ${directory}; hastctl is called with -c hast.conf -n NODE.`, "");
  for (const line of readFileSync(pair.configuration, "utf8").trimEnd().split("\n")) {
    say(`    | ${line}`);
  }
  say("");
  for (const node of pair.nodes) {
    await node.create();
    show(node, `hastctl create ${RESOURCE}`, "");
    await node.start();
    show(node, "hastd", "");
  }

  step("beta becomes secondary, alpha primary; they find each other.");
  await role(beta, "secondary");
  await role(alpha, "primary");
  await pair.inSync(alpha);
  await status(alpha);
  await status(beta);

  step(
    "A real ext4 file system goes onto the disk that alpha now offers (NBD, over a UNIX socket).",
  );
  const image = join(directory, "ext4.img");
  const source = join(import.meta.dirname, "..", "src");
  await expectCommand("mkfs.ext4", ["-q", "-d", source, image, `${IMAGE_SIZE / MIB}M`]);
  await expectCommand("nbdcopy", ["--flush", image, alpha.uri]);
  say(`    # mkfs.ext4 -d ${source} ext4.img ${IMAGE_SIZE / MIB}M`);
  say(`    # nbdcopy --flush ext4.img '${alpha.uri}'`);

  step("A program keeps writing 4 KiB blocks, and remembers each write that was acknowledged.");
  const writer = new RecordedWriter({
    offset: WRITER_OFFSET,
    blockCount: WRITER_BLOCKS,
    flushEvery: 64,
  });
  writer.start(await alpha.connect());
  await until("the program is busy", () => writer.acknowledgedCount > 5000);
  await pause(1500);

  step("In the middle of that, alpha dies: SIGKILL to hastd and its worker.");
  await alpha.crash();
  const died = performance.now();
  const reason = await writer.ended();
  const promised = writer.acknowledgedCount;
  say(`    The program was told: ${reason}`);
  say(
    `    By then ${promised} writes had been acknowledged, to ${writer.acknowledgedBlocks} blocks.`,
  );

  step("beta takes over.");
  await until("beta has noticed", async () => (await beta.list()).get("status") !== "complete");
  await role(beta, "primary");
  const client = await beta.connect();
  await client.read(0, 4096);
  const outage = ((performance.now() - died) / 1000).toFixed(1);
  await status(beta);
  say(`    The disk was away for ${outage} s.`);

  step("Is everything there? Every acknowledged block is read back from beta and compared.");
  const verified = await writer.verify(client);
  say(`    ${verified.blocks} of ${verified.blocks} acknowledged blocks are right,`);
  say(`    sha256 ${short(verified.sha256)}; none is older than what was acknowledged.`);
  const copy = join(directory, "ext4.copy");
  await expectCommand("nbdcopy", [beta.uri, copy]);
  await expectCommand("cmp", ["-n", String(IMAGE_SIZE), image, copy]);
  await expectCommand("e2fsck", ["-fn", copy]);
  say("    # e2fsck -fn: clean. The file system's image is the same, byte for byte.");

  step("The program goes on, on beta; alpha is still dead.");
  writer.start(client);
  await until("some more is written", () => writer.acknowledgedCount > promised + 3000);
  const end = await writer.stop();
  if (end !== null) throw new Error(`beta failed the program: ${end}`);
  await client.flush();
  const degraded = await beta.list();
  const extentSize = bytesOf(degraded.get("extentsize"));
  const dirty = bytesOf(degraded.get("dirty"));
  const extents = Math.ceil(client.size / extentSize);
  await status(beta);
  say(`    ${dirty / extentSize} of ${extents} extents differ from what alpha has.`);

  step("alpha comes back, as secondary, and is resynchronised.");
  await alpha.start();
  show(alpha, "hastd", "");
  await role(alpha, "secondary");
  const returned = performance.now();
  let shown = "";
  await until(
    "both are in sync",
    async () => {
      const listing = await beta.list();
      const line = `${listing.get("status")}, dirty: ${listing.get("dirty")}`;
      if (line !== shown) say(`    beta: ${line}`);
      shown = line;
      return listing.get("status") === "complete" && bytesOf(listing.get("dirty")) === 0;
    },
    { everyMs: 50, withinMs: 40_000 },
  );
  await pair.inSync(beta);
  const resync = ((performance.now() - returned) / 1000).toFixed(1);
  await status(beta);
  // A copy is one write of at most 128 KiB, or one request that makes zeroes.
  const received = await alpha.list();
  const copies =
    Number(received.get("statistics/writes")) + Number(received.get("statistics/deletes"));
  const copied = Math.ceil((copies * 128 * 1024) / extentSize);
  say(
    `    ${copied} of ${extents} extents were copied: those that beta wrote alone, and those whose`,
    "    last writes alpha may have done without anybody knowing: it had them marked on its own disk.",
    `    Back in sync ${resync} s after its return.`,
  );

  step("Are the copies equal? Both disks are read directly.");
  const last = await writer.verify(client);
  await client.disconnect();
  const digests = await Promise.all(pair.nodes.map(digest));
  for (const [index, node] of pair.nodes.entries()) {
    say(`    ${node.name}: sha256 ${short(digests[index]!)} of ${node.local}`);
  }
  if (digests[0] !== digests[1]) {
    throw new Error(`the copies differ, in the extents at ${await pair.differences()}`);
  }

  const total = ((performance.now() - began) / 1000).toFixed(0);
  say(
    "",
    `Shown in ${total} s, with real processes and real kills:`,
    `  - ${promised} writes were acknowledged before the primary died; the other node had every one.`,
    `  - The disk was back after ${outage} s, with a clean file system.`,
    `  - ${last.blocks} blocks are right after the return, and both copies are equal, byte for byte.`,
    `  - To get there, ${copied} of ${extents} extents were copied, not the whole disk.`,
  );
}

function invite(pair: TwoNodes): void {
  const { alpha, beta, configuration, directory } = pair;
  const bin = join(import.meta.dirname, "..", "bin");
  const hastctl = (command: string, node: Node, rest = ""): string =>
    `  ${bin}/hastctl ${command} -c ${configuration} -n ${node.name} ${rest}`.trimEnd();
  say(
    "",
    "The pair is still running; beta is primary. To play with it:",
    hastctl("status", beta),
    hastctl("list", alpha),
    `  nbdinfo '${beta.uri}'`,
    `  qemu-io -f raw -c 'write -P 7 0 64k' '${beta.uri}'`,
    "A failover in the other direction:",
    hastctl("role", beta, `secondary ${RESOURCE}`),
    hastctl("role", alpha, `primary ${RESOURCE}`),
    `What they say is in ${directory}/*.log. To end it:`,
    `  kill ${alpha.daemonPid} ${beta.daemonPid} && rm -r ${directory}`,
  );
}

const options = process.argv.slice(2);
if (options.some((option) => option !== "--keep")) {
  console.error("usage: npm run demo [-- --keep]");
  process.exit(64);
}
const pair = await TwoNodes.prepare({ mediaSize: MEDIA_SIZE });
try {
  await demo(pair);
} catch (error) {
  throw await pair.failed(error);
}
if (options.includes("--keep")) {
  invite(pair);
  await pair.leave();
} else {
  await pair.stop();
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * What does a second copy cost an application, against servers that keep only one?
 *
 * fio over NBD, on a UNIX socket: two hast nodes in fullsync (client, primary and secondary on this
 * machine, over loopback), qemu-nbd, and nbdkit's file plugin, all on files in one directory, their
 * pages warm. Expected: a 4 KiB write costs hast a message each way and a second write, so nearly
 * twice the system calls of nbdkit; at queue depth 32 batches should pay most of that back. Reads go
 * to the local copy and owe the peer nothing. At 1 MiB the second copy's memory traffic shows.
 *
 *     npm run bench -- fio [--rounds 5] [--seconds 4] [--size 1024] [--only NAME] [--under DIRECTORY]
 *
 * Rounds are interleaved: each round runs every workload on every server, so that a noisy minute hits
 * all alike. Shown are medians, and in brackets the least and the greatest.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { cpus, release, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { expectCommand } from "../../test/system/command.ts";
import { NbdClient } from "../../test/system/nbd-client.ts";
import { makeDisk, TwoNodes } from "../../test/system/two-nodes.ts";
import { until } from "../../test/system/until.ts";

const MIB = 1024 * 1024;

export interface BenchOptions {
  readonly rounds: number;
  /** Per workload and round. */
  readonly seconds: number;
  /** Of the area fio works on, in MiB. */
  readonly sizeMib: number;
  /** Only workloads whose name contains it; empty for all. */
  readonly only: string;
  /** Where the files are; the temporary directory by default. */
  readonly under: string;
  /** Ends a run after so many requests, however short; null for `seconds`. For the test. */
  readonly requests: number | null;
}

interface Workload {
  readonly name: string;
  readonly unit: "IOPS" | "MB/s";
  readonly args: readonly string[];
}

export const WORKLOADS: readonly Workload[] = [
  { name: "4k randwrite QD1", unit: "IOPS", args: ["--rw=randwrite", "--bs=4k", "--iodepth=1"] },
  { name: "4k randwrite QD32", unit: "IOPS", args: ["--rw=randwrite", "--bs=4k", "--iodepth=32"] },
  { name: "4k randread QD32", unit: "IOPS", args: ["--rw=randread", "--bs=4k", "--iodepth=32"] },
  {
    name: "4k 70/30 QD16",
    unit: "IOPS",
    args: ["--rw=randrw", "--rwmixread=70", "--bs=4k", "--iodepth=16"],
  },
  { name: "1M write QD4", unit: "MB/s", args: ["--rw=write", "--bs=1M", "--iodepth=4"] },
];

/** A server under test. */
interface Contender {
  readonly name: string;
  readonly uri: string;
  /** Ids of all its processes. */
  pids(): number[];
  stop(): Promise<void>;
}

export interface Sample {
  /** In the workload's unit. */
  readonly rate: number;
  /** Microseconds, 99th percentile of completion. */
  readonly p99: number;
  /** Microseconds of the servers' CPU time per request. */
  readonly cpu: number;
}

/** By workload, then by contender: one sample per round. */
export type Results = ReadonlyMap<string, ReadonlyMap<string, readonly Sample[]>>;

/** Runs the whole comparison. @throws Error when a server or fio fails */
export async function compare(
  options: BenchOptions,
  progress: (line: string) => void,
): Promise<Results> {
  const directory = mkdtempSync(join(options.under, "hast-bench-"));
  const contenders: Contender[] = [];
  const results = new Map<string, Map<string, Sample[]>>();
  const workloads = WORKLOADS.filter(({ name }) => name.includes(options.only));
  try {
    const mediaSize = (options.sizeMib + 16) * MIB;
    contenders.push(await startHast(mediaSize, directory));
    contenders.push(await startQemuNbd(mediaSize, directory));
    contenders.push(await startNbdkit(mediaSize, directory));
    for (const contender of contenders) {
      progress(`filling ${contender.name}`);
      const fill = ["--rw=write", "--bs=1M", "--iodepth=4", "--end_fsync=1"];
      await fio(contender, fill, { ...options, requests: options.sizeMib });
    }
    for (let round = 1; round <= options.rounds; round++) {
      for (const workload of workloads) {
        for (const contender of contenders) {
          const sample = await fio(contender, workload.args, options, workload.unit);
          const row = results.get(workload.name) ?? new Map<string, Sample[]>();
          results.set(workload.name, row);
          row.set(contender.name, [...(row.get(contender.name) ?? []), sample]);
          progress(
            `round ${round} of ${options.rounds}: ${workload.name}, ${contender.name}: ` +
              `${Math.round(sample.rate)} ${workload.unit}`,
          );
        }
      }
    }
    return results;
  } finally {
    for (const contender of contenders) await contender.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The results as a table for people: rates, ratios to the single copies, latency and CPU. */
export function table(results: Results): string {
  const lines: string[] = [];
  for (const [workload, row] of results) {
    const unit = WORKLOADS.find(({ name }) => name === workload)!.unit;
    const ours = median([...row.values()][0]!.map(({ rate }) => rate));
    lines.push(workload);
    for (const [contender, samples] of row) {
      const rates = samples.map(({ rate }) => rate);
      const rate = median(rates);
      const spread = `[${figure(Math.min(...rates))}–${figure(Math.max(...rates))}]`;
      const ratio = contender.startsWith("hast") ? "" : `hast is ${(ours / rate).toFixed(2)}×`;
      lines.push(
        [
          `  ${contender.padEnd(16)}`,
          `${figure(rate).padStart(8)} ${unit} ${spread.padEnd(18)}`,
          `p99 ${figure(median(samples.map(({ p99 }) => p99))).padStart(6)} µs`,
          `CPU ${median(samples.map(({ cpu }) => cpu))
            .toFixed(1)
            .padStart(6)} µs/request`,
          ratio,
        ]
          .join("  ")
          .trimEnd(),
      );
    }
  }
  return lines.join("\n");
}

async function startHast(mediaSize: number, directory: string): Promise<Contender> {
  const pair = await TwoNodes.startReplicating({
    replication: "fullsync",
    mediaSize,
    under: directory,
  });
  return {
    name: "hast, two copies",
    uri: pair.alpha.uri,
    pids: () => pair.nodes.flatMap((node) => node.processes()),
    stop: () => pair.stop(),
  };
}

function startQemuNbd(mediaSize: number, directory: string): Promise<Contender> {
  const disk = join(directory, "qemu.img");
  const socket = join(directory, "qemu.sock");
  makeDisk(disk, mediaSize);
  const args = ["-t", "-e", "16", "-f", "raw", "-k", socket, disk];
  return startServer("qemu-nbd", args, socket);
}

function startNbdkit(mediaSize: number, directory: string): Promise<Contender> {
  const disk = join(directory, "nbdkit.img");
  const socket = join(directory, "nbdkit.sock");
  makeDisk(disk, mediaSize);
  return startServer("nbdkit", ["-f", "-U", socket, "file", disk], socket);
}

async function startServer(
  program: string,
  args: readonly string[],
  socket: string,
): Promise<Contender> {
  const child: ChildProcess = spawn(program, args, { stdio: "inherit" });
  const gone = once(child, "exit");
  const client = await until(`${program} listens`, () =>
    // It creates the socket before it listens.
    NbdClient.connect({ path: socket }).catch(() => null),
  );
  await client.disconnect();
  return {
    name: program,
    uri: `nbd+unix:///?socket=${socket}`,
    pids: () => (child.pid === undefined ? [] : [child.pid]),
    async stop() {
      child.kill("SIGTERM");
      await gone;
    },
  };
}

interface FioSide {
  readonly total_ios: number;
  readonly iops: number;
  readonly bw_bytes: number;
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> };
}

async function fio(
  contender: Contender,
  args: readonly string[],
  options: BenchOptions,
  unit: Workload["unit"] = "IOPS",
): Promise<Sample> {
  const bound =
    options.requests === null
      ? ["--time_based", `--runtime=${options.seconds}`]
      : [`--number_ios=${options.requests}`];
  const before = cpuSeconds(contender);
  const output = await expectCommand(
    "fio",
    [
      ...["--name=bench", "--ioengine=nbd", `--uri=${contender.uri}`, `--size=${options.sizeMib}M`],
      ...["--output-format=json", "--norandommap", "--randseed=7", ...bound, ...args],
    ],
    { withinMs: (options.seconds + 120) * 1000 },
  );
  const cpuUsed = cpuSeconds(contender) - before;
  const [job] = (
    JSON.parse(output.slice(output.indexOf("{"))) as {
      jobs: { read: FioSide; write: FioSide }[];
    }
  ).jobs;
  const sides = [job!.read, job!.write].filter((side) => side.total_ios > 0);
  const requests = sides.reduce((sum, side) => sum + side.total_ios, 0);
  if (requests === 0) throw new Error(`fio did nothing on ${contender.name}:\n${output}`);
  return {
    rate:
      unit === "IOPS"
        ? sides.reduce((sum, side) => sum + side.iops, 0)
        : sides.reduce((sum, side) => sum + side.bw_bytes, 0) / 1e6,
    p99: Math.max(...sides.map((side) => side.clat_ns.percentile?.["99.000000"] ?? 0)) / 1000,
    cpu: (cpuUsed / requests) * 1e6,
  };
}

/** User and system time of all processes of a server so far. */
function cpuSeconds(contender: Contender): number {
  let ticks = 0;
  for (const pid of contender.pids()) {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / 100; // USER_HZ, the same on every Linux there is
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

function figure(value: number): string {
  return value >= 10_000 ? `${(value / 1000).toFixed(1)}k` : value.toFixed(0);
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "5" },
      seconds: { type: "string", default: "4" },
      size: { type: "string", default: "1024" },
      only: { type: "string", default: "" },
      under: { type: "string", default: tmpdir() },
    },
  });
  console.log(
    `${cpus().length} × ${cpus()[0]?.model}, ${Math.round(totalmem() / 2 ** 30)} GiB, ` +
      `Linux ${release()}, Node ${process.version}`,
  );
  const results = await compare(
    {
      rounds: Number(values.rounds),
      seconds: Number(values.seconds),
      sizeMib: Number(values.size),
      only: values.only,
      under: values.under,
      requests: null,
    },
    (line) => console.error(line),
  );
  console.log(table(results));
}

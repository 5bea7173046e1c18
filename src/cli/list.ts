// SPDX-License-Identifier: BSD-2-Clause
/**
 * `hastctl list`: everything hastd says of a resource, one line each, our additions last.
 * Source: FreeBSD sbin/hastctl/hastctl.c, control_list(); behaviour §16.2.
 */
import type { ResourceStatus, StatusEntry, WorkerStatus } from "../wire/control.ts";
import { type Command, printError } from "./command.ts";
import { exitCodeOf } from "./exit-code.ts";
import { humanSize } from "./human-size.ts";

export const list: Command = {
  name: "list",
  options: [],
  synopsis: "[all | name ...]",
  refuse: () => null,
  async run(names, _options, { terminal, control }) {
    const answer = await control.status(names.length > 0 ? names : ["all"]);
    if (answer.kind === "failed") {
      printError(terminal, null, answer.lines);
      return answer.exitCode;
    }
    for (const entry of answer.entries) {
      terminal.out(
        entryLines(entry)
          .map((line) => `${line}\n`)
          .join(""),
      );
    }
    return exitCodeOf(answer.entries);
  },
};

/** What the original prints for a resource without a worker. */
const IDLE: WorkerStatus = {
  status: "degraded",
  dirty: 0,
  extentsize: 0,
  keepdirty: 0,
  reads: 0,
  writes: 0,
  deletes: 0,
  flushes: 0,
  activemapUpdates: 0,
  readErrors: 0,
  writeErrors: 0,
  deleteErrors: 0,
  flushErrors: 0,
  idleQueue: 0,
  localQueue: 0,
  sendQueue: 0,
  recvQueue: 0,
  doneQueue: 0,
};

function entryLines({ resource, outcome, errmsg, notes }: StatusEntry): string[] {
  const lines = [`${resource}:`];
  if (outcome.kind === "failed") lines.push(`  error: ${outcome.error}`);
  else lines.push(...statusLines(outcome.status));
  for (const note of errmsg === null ? notes : [errmsg, ...notes]) lines.push(`  note: ${note}`);
  return lines;
}

function statusLines(status: ResourceStatus): string[] {
  const worker = status.worker ?? IDLE;
  const size = (bytes: number): string => `${bytes} (${humanSize(bytes)})`;
  return [
    `  role: ${status.role}`,
    `  provname: ${status.provname}`,
    `  localpath: ${status.localpath}`,
    `  extentsize: ${size(worker.extentsize)}`,
    `  keepdirty: ${worker.keepdirty}`,
    `  remoteaddr: ${status.remoteaddr}`,
    ...(status.sourceaddr === null ? [] : [`  sourceaddr: ${status.sourceaddr}`]),
    `  replication: ${status.replication}`,
    ...(status.worker === null ? [] : [`  status: ${status.worker.status}`]),
    ...(status.workerpid === 0 ? [] : [`  workerpid: ${status.workerpid}`]),
    `  dirty: ${size(worker.dirty)}`,
    "  statistics:",
    `    reads: ${worker.reads}`,
    `    writes: ${worker.writes}`,
    `    deletes: ${worker.deletes}`,
    `    flushes: ${worker.flushes}`,
    `    activemap updates: ${worker.activemapUpdates}`,
    `    local errors: read: ${worker.readErrors}, write: ${worker.writeErrors}, ` +
      `delete: ${worker.deleteErrors}, flush: ${worker.flushErrors}`,
    `    queues: local: ${worker.localQueue}, send: ${worker.sendQueue}, ` +
      `recv: ${worker.recvQueue}, done: ${worker.doneQueue}, idle: ${worker.idleQueue}`,
    ...(status.copy === undefined ? [] : [`  copy: ${status.copy}`]),
    ...(status.resyncrate === undefined ? [] : [`  resyncrate: ${rateText(status.resyncrate)}`]),
    ...(status.transport === undefined ? [] : [`  transport: ${status.transport}`]),
    ...(status.device === undefined ? [] : [`  device: ${deviceText(status.device)}`]),
  ];
}

function deviceText({ path, kind, node }: NonNullable<ResourceStatus["device"]>): string {
  return `${path} (${kind}, ${node ?? "lost"})`;
}

/** "20971520 (20MB/s)", or "0 (unlimited)". */
function rateText(rate: number): string {
  return `${rate} (${rate === 0 ? "unlimited" : `${humanSize(rate)}/s`})`;
}

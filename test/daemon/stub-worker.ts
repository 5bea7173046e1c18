// SPDX-License-Identifier: BSD-2-Clause
/**
 * A worker that speaks the message contract and replicates nothing: a primary is ready at once, a
 * secondary sends back on each socket what it reads there. The resource's name says how it behaves.
 */

import type { Socket } from "node:net";
import type { FromWorker, ToWorker, WorkerReport } from "../../src/engine/worker-messages.ts";
import { workerTitle } from "../../src/platform/process.ts";

const REPORT: WorkerReport = {
  status: "complete",
  dirty: 0,
  extentsize: 65536,
  keepdirty: 64,
  reads: 1,
  writes: 2,
  deletes: 3,
  flushes: 4,
  activemapUpdates: 5,
  readErrors: 0,
  writeErrors: 0,
  deleteErrors: 0,
  flushErrors: 0,
  idleQueue: 256,
  localQueue: 0,
  sendQueue: 0,
  recvQueue: 0,
  doneQueue: 0,
  connected: true,
  bound: false,
  silentMs: 60_000,
  notes: [],
};

let resource = "";

function tell(message: FromWorker): void {
  process.send?.(message);
}

process.on("message", (unchecked, handle) => {
  const message = unchecked as ToWorker;
  switch (message.kind) {
    case "start": {
      const { settings, role } = message;
      resource = settings.resource;
      process.title = workerTitle({ resource, role });
      if (resource === "refused") {
        tell({ kind: "failed", exitCode: 66, message: `${settings.local} holds no HAST metadata` });
        process.exitCode = 66;
        process.disconnect?.();
      } else if (role === "primary") {
        tell({ kind: "ready" });
      }
      return;
    }
    case "socket": {
      if (resource === "deaf") {
        // Dies with a socket on its way.
        process.kill(process.pid, "SIGKILL");
        return;
      }
      const socket = handle as Socket;
      socket.on("data", (bytes) => socket.write(`${message.channel}:${bytes}`));
      socket.on("error", () => undefined);
      if (message.channel === "b") tell({ kind: "ready" });
      return;
    }
    case "status":
      if (resource === "mute") return;
      if (resource === "chatty") tell({ kind: "event", event: "syncstart" });
      tell({ kind: "status", id: message.id, report: REPORT });
      if (resource === "chatty") tell({ kind: "event", event: "syncdone" });
      return;
    case "discard":
    case "sync":
    case "settings":
    case "orders":
    case "lease":
    case "rival":
    case "invalidate":
    case "outdate":
    case "resync-answer":
      return;
    case "stop":
      if (resource !== "stubborn") process.exit(0);
      return;
  }
});
process.on("disconnect", () => process.exit());

// SPDX-License-Identifier: BSD-2-Clause
/**
 * The worker process of one resource in one role. Started by hastd, never by hand; it ends itself
 * when hastd is gone.
 */

import type { Socket } from "node:net";
import { ARENA_SIZE } from "../engine/memory.ts";
import { ORPHAN_GRACE_MS, ResourceWorker, STOP_GRACE_MS, type Start } from "../engine/worker.ts";
import type { FromWorker, ToWorker } from "../engine/worker-messages.ts";
import type { Log } from "../platform/log.ts";
import type { Stream } from "../platform/net.ts";
import { createArena } from "../platform/node/arena.ts";
import { nodeClock } from "../platform/node/clock.ts";
import { openDisk } from "../platform/node/disk.ts";
import { nodeEntropy } from "../platform/node/entropy.ts";
import { nodeHashes } from "../platform/node/hashes.ts";
import { createLog } from "../platform/node/log.ts";
import { createNet } from "../platform/node/net.ts";
import { becomeUser, takeWorkerUser } from "../platform/node/privileges.ts";
import type { CredentialsMessage } from "../platform/node/process.ts";
import { adoptSocket } from "../platform/node/socket-stream.ts";
import { workerTitle } from "../platform/process.ts";
import type { Credentials } from "../platform/tls.ts";

const EXIT_ASSERTION = 70;

/** Messages on their way to the daemon. */
let unsent = 0;

function tell(message: FromWorker): void {
  if (!process.connected) return;
  unsent++;
  // Fails only when the daemon is gone, which "disconnect" tells.
  process.send?.(message, undefined, undefined, () => {
    unsent--;
  });
}

/** Ends the process once the daemon has been told everything; it may be too busy to listen. */
function exit(code: number, patience = 100): void {
  if (unsent === 0 || patience === 0) process.exit(code);
  nodeClock.after(10, () => exit(code, patience - 1));
}

function openLog({ role, settings, debug, log }: Start): Log {
  process.title = workerTitle({ resource: settings.resource, role });
  const prefix = `[${settings.resource}] (${role}) `;
  return createLog(log, { ident: "hastd", prefix, debugLevel: debug });
}

/** To be called where the socket arrives: what is read before is lost. */
function streamOf(message: ToWorker, socket: Socket | undefined): Stream | null {
  if (message.kind !== "socket" || socket === undefined) return null;
  return adoptSocket(socket, message.peer);
}

/** As hastd read them: this process may not. */
let credentials: Credentials | null = null;
const user = takeWorkerUser();
const arena = createArena(ARENA_SIZE);
const worker = new ResourceWorker({
  environment: {
    arena,
    net: createNet(() => credentials),
    clock: nodeClock,
    entropy: nodeEntropy,
    hashes: nodeHashes,
  },
  openDisk: ({ local }, warn) => openDisk(local, { arena, lock: true, warn }),
  openLog,
  dropPrivileges: () => {
    if (user !== null) becomeUser(user);
  },
  tell,
  exit,
});
process.on("message", (message: ToWorker | CredentialsMessage, socket) => {
  if (message.kind === "credentials") credentials = message.credentials;
  else worker.message(message, streamOf(message, socket as Socket | undefined));
});
process.on("disconnect", () => worker.stop(ORPHAN_GRACE_MS));
process.on("SIGTERM", () => worker.stop(STOP_GRACE_MS));
process.on("SIGINT", () => worker.stop(STOP_GRACE_MS));
// "pkill -HUP hastd" means the daemon; its default action would end us.
process.on("SIGHUP", () => undefined);
process.on("uncaughtException", (error) => {
  try {
    worker.dying(
      error,
      EXIT_ASSERTION,
      createLog("stdio", { ident: "hastd", prefix: "", debugLevel: 0 }),
    );
  } finally {
    process.exit(EXIT_ASSERTION);
  }
});

// SPDX-License-Identifier: BSD-2-Clause
/**
 * The process where the TLS of one resource's incoming connections ends. Started by hastd, never by hand.
 * It gives up its privileges first; it goes when it has had nothing to do for a while, or, once its
 * connections have, when hastd is gone.
 */

import type { Socket } from "node:net";
import { nodeClock } from "../platform/node/clock.ts";
import { becomeUser, takeWorkerUser } from "../platform/node/privileges.ts";
import { type FromRelay, type Terminate, TlsRelay } from "../platform/node/tls-relay.ts";

const IDLE_MS = 60_000;

const user = takeWorkerUser();
if (user !== null) becomeUser(user);
const title = process.argv[2];
if (title !== undefined) process.title = title;

let idleSince = nodeClock.now();
const relay = new TlsRelay(
  (message: FromRelay, plain?: Socket) => {
    if (process.connected) process.send?.(message, plain, {}, () => plain?.destroy());
    else plain?.destroy();
  },
  () => {
    idleSince = nodeClock.now();
    if (!process.connected) process.exit(0);
  },
);
process.on("message", (message: Terminate, raw) => {
  // Null where it has closed on its way.
  if (raw instanceof Object) relay.terminate(message, raw as Socket);
});
process.on("disconnect", () => {
  if (relay.count === 0) process.exit(0);
});
look();

function look(): void {
  if (relay.count === 0 && nodeClock.now() - idleSince >= IDLE_MS) process.exit(0);
  nodeClock.after(IDLE_MS / 4, look);
}

// hastd ends it by closing the channel; a group's signal, or a shell's, is not for it.
for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => undefined);

// SPDX-License-Identifier: BSD-2-Clause
/**
 * A worker's way from root to nobody in particular.
 *
 *   hastd (root) ──environment──► worker: disk open, NBD address bound ─► groups, group, user
 *
 * What it holds by then is all it has: its disk, its sockets, the channel to hastd. It can still connect
 * to its peer and resolve names. There is no chroot(2): Node, the resolver and syslog need their files.
 * Source: FreeBSD sbin/hastd/subr.c, drop_privs(); behaviour §13.
 */

import { assert } from "../../base/assert.ts";

export interface WorkerUser {
  readonly uid: number;
  readonly gid: number;
}

const VARIABLE = "HASTD_WORKER_USER";

/** For the environment of a worker. */
export function workerUserVariable({ uid, gid }: WorkerUser): Record<string, string> {
  return { [VARIABLE]: `${uid}:${gid}` };
}

/** Who this worker is to become, or null. Answers once: our own children are not meant. */
export function takeWorkerUser(): WorkerUser | null {
  const [, uid, gid] = /^(\d+):(\d+)$/.exec(process.env[VARIABLE] ?? "") ?? [];
  delete process.env[VARIABLE];
  return uid === undefined || gid === undefined ? null : { uid: Number(uid), gid: Number(gid) };
}

/**
 * Gives up root for good, in every thread of this process.
 * @throws Error if the kernel refuses
 */
export function becomeUser({ uid, gid }: WorkerUser): void {
  process.setgroups!([gid]);
  process.setgid!(gid);
  process.setuid!(uid);
  assert(process.getuid!() === uid);
  assert(process.geteuid!() === uid);
  assert(process.getegid!() === gid);
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * How far this node has seen the sets in etcd come: an etcd that knows less now was restored from a backup, and
 * what was acknowledged since may be missing on a node that its sets call in step (safety case S-17).
 *
 *   BASE REVISION       in a file, written when a set has changed
 *
 * It helps where this node has seen a change that the backup lacks. What no surviving node has seen, nobody
 * can miss.
 */

import type { Log } from "../platform/log.ts";
import type { System } from "../platform/system.ts";
import type { GroupRecord } from "./group-record.ts";

export interface Seen {
  /** Of the seeding that it belongs to. */
  readonly base: number;
  /** Of the last change of a set. */
  readonly changed: number;
}

export interface Memory {
  /** Null where nothing was seen yet. */
  latest(): Seen | null;
  saw(record: GroupRecord): void;
}

/** @param before what had been seen when the record was asked for: answers may overtake each other */
export function ranBackwards({ base, changed }: GroupRecord, before: Seen | null): boolean {
  if (base === null || before === null) return false;
  return base.value < before.base || (base.value === before.base && changed < before.changed);
}

export class FileMemory implements Memory {
  readonly #system: System;
  readonly #path: string;
  readonly #log: Log;
  #latest: Seen | null;

  /** @param directory an existing one */
  constructor(system: System, directory: string, group: string, log: Log) {
    this.#system = system;
    this.#path = `${directory}/${group}`;
    this.#log = log;
    const [, base, changed] = /^(\d{1,16}) (\d{1,16})\n$/.exec(system.text(this.#path) ?? "") ?? [];
    this.#latest = base === undefined ? null : { base: Number(base), changed: Number(changed) };
  }

  latest(): Seen | null {
    return this.#latest;
  }

  saw({ base, changed }: GroupRecord): void {
    const latest = this.#latest;
    if (base === null || base.value < (latest?.base ?? 0)) return;
    if (base.value === latest?.base && changed <= latest.changed) return;
    this.#latest = { base: base.value, changed };
    try {
      this.#system.write(this.#path, `${base.value} ${changed}\n`);
    } catch (error) {
      this.#cannotWrite(error);
    }
  }

  /** What it has seen lately it knows as long as it runs. */
  #cannotWrite(error: unknown): void {
    const reason = error instanceof Error ? error.message : String(error);
    this.#log.warning(
      `${this.#path} cannot be written: ${reason}. A restart of this agent will forget how far it has seen etcd come.`,
    );
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * The programs that hast.conf names for one resource: `exec`, told of events, and `gate`, asked before
 * something that cannot be undone.
 *
 *   tell(role | connect | disconnect | syncstart | syncdone | syncintr | split-brain) ─┐
 *   ask(prerole | presync) ────────────────────────────────────────────────────────────┤
 *          ┌───────────────────────────────────────────────────────────────────────────┘
 *          ▼
 *     queue, first come first served ─► one program at a time ─► exit 0, or a complaint in the log
 *                                       deadline: SIGTERM, SIGKILL, left behind
 *
 * Resources do not wait for each other, and the daemon waits for nothing.
 * Source: FreeBSD sbin/hastd/hooks.c, event.c; behaviour §11, BD-47.
 */

import { assert, unreachable } from "../base/assert.ts";
import type { WorkerEvent } from "../engine/worker-messages.ts";
import type { Clock, Timer } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { ProcessExit } from "../platform/process.ts";
import type { Programs } from "../platform/watched-program.ts";
import type { ResourceStatus, Role, StatusEntry } from "../wire/control.ts";

/** A program that was told to end has so long to do it, and again after it was killed. */
export const HOOK_KILL_MS = 5_000;
/** One that is allowed to take longer than this is reported each time it has passed. */
export const HOOK_REPORT_MS = 60_000;
/** Events that wait; of more, the oldest are dropped. */
export const QUEUE_MAX = 64;
/** Lines of one program's output that are logged. */
export const LINES_MAX = 100;
/** For so long a gate that has refused a resync is not asked again: the peer comes every few seconds. */
export const REFUSED_AGAIN_MS = 30_000;
/** For so long a leave is good whose asker has lost its connection while it waited. */
export const LEAVE_KEPT_MS = 60_000;

/** What hast.conf says about one resource's programs. */
export interface HookSettings {
  /** Absolute path of the program told of events, or null. */
  readonly exec: string | null;
  /** Absolute path of the program asked for leave, or null. */
  readonly gate: string | null;
  /** Milliseconds, > 0, for either to end. */
  readonly timeoutMs: number;
}

export interface HookParts {
  readonly programs: Programs;
  /** Asked each time, so that it may change. */
  readonly settings: (resource: string) => HookSettings;
}

/** The resource, as its hooks see it. */
export interface HookSubject {
  readonly name: string;
  readonly log: Log;
  statusEntry(): Promise<StatusEntry>;
}

interface Job {
  /** As they were when it was told: a reload may change them before its turn comes. */
  readonly settings: HookSettings;
  readonly kind: "exec" | "gate";
  readonly event: string;
  readonly args: readonly string[];
  /** Null, or why not. Events are told of neither. */
  readonly done: (refusal: string | null) => void;
}

type Leave =
  | { readonly kind: "asking"; readonly answer: Promise<string | null> }
  | { readonly kind: "given"; readonly untilMs: number }
  | { readonly kind: "refused"; readonly reason: string; readonly untilMs: number };

export class Hooks {
  readonly #clock: Clock;
  readonly #parts: HookParts;
  readonly #subject: HookSubject;
  #waiting: Job[] = [];
  #busy = false;
  #closed = false;
  /** Ends the program that runs now. */
  #abort: (() => void) | null = null;
  #idle: () => void = () => undefined;
  #leave: Leave | null = null;

  constructor(subject: HookSubject, clock: Clock, parts: HookParts) {
    this.#clock = clock;
    this.#parts = parts;
    this.#subject = subject;
  }

  /** The role has changed, by command or reload. */
  roleChanged(from: Role, to: Role): void {
    this.#leave = null;
    this.#tell("role", [from, to]);
  }

  /** A worker has raised an event. */
  workerEvent(event: WorkerEvent): void {
    this.#tell(event, []);
  }

  get hasGate(): boolean {
    return this.#parts.settings(this.#subject.name).gate !== null;
  }

  /** Asks whether this node may become primary. @returns null, or why not */
  async mayPromote(from: Role): Promise<string | null> {
    return await this.#ask("prerole", [from, "primary"]);
  }

  /**
   * Asks whether a resync may overwrite this node's copy. An answer that comes too late for who asked is
   * kept for the next attempt.
   *
   * @param wanted whether who asks still waits when the answer comes
   * @returns null, or why not
   */
  async mayResync(wanted: () => boolean): Promise<string | null> {
    const now = this.#clock.now();
    const leave = this.#leave;
    if (leave?.kind === "given" && now < leave.untilMs) {
      this.#leave = null;
      return null;
    }
    if (leave?.kind === "refused" && now < leave.untilMs) return leave.reason;
    if (leave?.kind === "asking") return await this.#heard(leave, wanted);
    const asking = { kind: "asking", answer: this.#ask("presync", []) } as const;
    this.#leave = asking;
    return await this.#heard(asking, wanted);
  }

  async #heard(asking: Leave & { kind: "asking" }, wanted: () => boolean): Promise<string | null> {
    const reason = await asking.answer;
    const now = this.#clock.now();
    // The first to hear it notes it; a role change in between has made it void.
    if (this.#leave === asking) {
      this.#leave =
        reason === null
          ? { kind: "given", untilMs: now + LEAVE_KEPT_MS }
          : { kind: "refused", reason, untilMs: now + REFUSED_AGAIN_MS };
    }
    if (this.#leave?.kind === "given" && wanted()) this.#leave = null;
    return reason;
  }

  /** Runs what waits, for at most `graceMs`; then ends what still runs. Nothing follows. */
  async close(graceMs: number): Promise<void> {
    this.#closed = true;
    if (!this.#busy) return;
    await new Promise<void>((resolve) => {
      const timer = this.#clock.after(graceMs, () => {
        const left = this.#waiting.splice(0);
        for (const job of left) job.done(STOPPING);
        if (left.length > 0) {
          this.#subject.log.warning(`Hooks not run, since hastd is stopping: ${names(left)}.`);
        }
        this.#abort?.();
      });
      this.#idle = () => {
        timer.cancel();
        resolve();
      };
    });
  }

  #tell(event: string, args: readonly string[]): void {
    const settings = this.#parts.settings(this.#subject.name);
    if (this.#closed || settings.exec === null) return;
    // A flapping link and a slow program: told twice in a row, it would learn nothing new.
    const last = this.#waiting.at(-1);
    if (last?.kind === "exec" && last.event === event && sameWords(last.args, args)) return;
    const events = this.#waiting.filter(({ kind }) => kind === "exec");
    if (events.length >= QUEUE_MAX) {
      const oldest = events[0]!;
      this.#waiting = this.#waiting.filter((job) => job !== oldest);
      this.#subject.log.warning(
        `Hook for ${oldest.event} dropped: ${QUEUE_MAX} others wait for a program that is slow.`,
      );
    }
    this.#add({ settings, kind: "exec", event, args, done: () => undefined });
  }

  async #ask(event: string, args: readonly string[]): Promise<string | null> {
    if (this.#closed) return STOPPING;
    const settings = this.#parts.settings(this.#subject.name);
    if (settings.gate === null) return null;
    return await new Promise((done) => {
      this.#add({ settings, kind: "gate", event, args, done });
    });
  }

  #add(job: Job): void {
    this.#waiting.push(job);
    if (!this.#busy) void this.#work();
  }

  async #work(): Promise<void> {
    this.#busy = true;
    try {
      for (let job = this.#waiting.shift(); job !== undefined; job = this.#waiting.shift()) {
        job.done(await this.#run(job));
      }
    } finally {
      this.#busy = false;
      this.#idle();
    }
  }

  /** @returns null, or why a gate's answer is no */
  async #run(job: Job): Promise<string | null> {
    const { settings } = job;
    const path = settings[job.kind];
    assert(path !== null);
    const environment = await this.#environment(job);
    const { end, lastLine } = await this.#program(path, job, environment, settings.timeoutMs);
    if (end === null) return null;
    this.#subject.log.error(`Hook ${path} (${job.event}) failed: ${end}.`);
    if (job.kind === "exec") return null;
    return `the gate ${path} refuses it (${end})${lastLine === "" ? "" : `: ${lastLine}`}`;
  }

  /** @returns how it failed, or null */
  async #program(
    path: string,
    job: Job,
    environment: Readonly<Record<string, string>>,
    timeoutMs: number,
  ): Promise<{ readonly end: string | null; readonly lastLine: string }> {
    const clock = this.#clock;
    const { programs } = this.#parts;
    const { log } = this.#subject;
    const title = `Hook ${path} (${job.event})`;
    let lastLine = "";
    let lineCount = 0;
    return await new Promise((resolve) => {
      let late: string | null = null;
      const timers: Timer[] = [];
      const settle = (end: string | null) => {
        for (const timer of timers) timer.cancel();
        this.#abort = null;
        resolve({ end, lastLine });
      };
      const program = programs.start(
        [path, job.event, this.#subject.name, ...job.args],
        environment,
        {
          line: (stream, text) => {
            const clean = text.trimEnd().replace(/\t/g, " ").replace(/\p{C}/gu, "?");
            if (clean !== "") lastLine = clean;
            if (++lineCount > LINES_MAX + 1) return;
            if (lineCount > LINES_MAX)
              log.warning(`${title}: the rest of its output is not logged.`);
            else if (stream === "stderr") log.warning(`${title}: ${clean}`);
            else log.info(`${title}: ${clean}`);
          },
          exited: (exit) => settle(late ?? failureOf(exit)),
        },
      );
      const expire = (why: string) => {
        if (late !== null) return;
        late = why;
        program.kill("SIGTERM");
        timers.push(
          clock.after(HOOK_KILL_MS, () => program.kill("SIGKILL")),
          clock.after(2 * HOOK_KILL_MS, () =>
            settle(`${why}; its process ${program.pid} cannot be killed and is left behind`),
          ),
        );
      };
      this.#abort = () => expire("it still ran when hastd had to stop, and was ended");
      const patience = timeoutMs / 1000;
      timers.push(
        clock.after(timeoutMs, () => expire(`it took longer than ${patience} s and was ended`)),
      );
      for (let at = HOOK_REPORT_MS; at < timeoutMs; at += HOOK_REPORT_MS) {
        timers.push(
          clock.after(at, () => {
            log.warning(`${title} has been running for ${at / 1000} s (pid ${program.pid}).`);
          }),
        );
      }
      log.debug(1, `${title} started (pid ${program.pid}).`);
    });
  }

  async #environment(job: Job): Promise<Readonly<Record<string, string>>> {
    const entry = await this.#subject.statusEntry();
    const { outcome } = entry;
    const status = outcome.kind === "known" ? outcome.status : null;
    return {
      HAST_RESOURCE: this.#subject.name,
      HAST_EVENT: job.event,
      ...(job.event === "role" || job.event === "prerole"
        ? { HAST_OLD_ROLE: job.args[0]!, HAST_NEW_ROLE: job.args[1]! }
        : {}),
      ...(status === null ? {} : statusVariables(status)),
      HAST_STATUS_JSON: JSON.stringify({
        version: 1,
        event: job.event,
        ...(status ?? { resource: entry.resource }),
        resource: entry.resource,
        notes: entry.notes,
      }),
    };
  }
}

const STOPPING = "hastd is stopping";

function statusVariables(status: ResourceStatus): Record<string, string> {
  return {
    HAST_ROLE: status.role,
    HAST_PROVNAME: status.provname,
    HAST_LOCAL: status.localpath,
    HAST_PEER: status.remoteaddr,
    HAST_STATUS: status.worker?.status ?? "",
    HAST_DATA_STATE: status.copy ?? "unknown",
  };
}

/** Null for exit code 0. */
function failureOf(exit: ProcessExit): string | null {
  switch (exit.kind) {
    case "code":
      return exit.code === 0 ? null : `exit code ${exit.code}`;
    case "signal":
      return `killed by ${exit.signal}`;
    case "not-started":
      return `it could not be started: ${exit.reason}`;
    default:
      return unreachable(exit);
  }
}

function sameWords(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((word, index) => word === other[index]);
}

function names(jobs: readonly Job[]): string {
  return jobs.map(({ event }) => event).join(", ");
}

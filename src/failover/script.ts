// SPDX-License-Identifier: BSD-2-Clause
/**
 * The operator's script, contrib/failover/failover: "start" mounts and starts what uses the resources, "stop"
 * ends it. What it prints is logged; one that hangs is not waited for.
 */

import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { ProcessExit } from "../platform/process.ts";
import type { Programs } from "../platform/watched-program.ts";
import type { StartScript, Verb } from "./hastd.ts";

/** A file system may have to be checked. Until then the lease is renewed. */
const START_LIMIT_MS = 600_000;
const STOP_LIMIT_MS = 120_000;
/** From SIGTERM to SIGKILL; and then for a program that hangs in the kernel. */
const GRACE_MS = 5_000;

export interface ScriptOptions {
  readonly programs: Programs;
  readonly clock: Clock;
  readonly log: Log;
  /** Absolute. */
  readonly path: string;
  /** Added to ours. */
  readonly environment: Readonly<Record<string, string>>;
}

export function startScriptWith(options: ScriptOptions): StartScript {
  return (verb) => {
    const { programs, clock, log, path, environment } = options;
    const { promise: ended, resolve } = Promise.withResolvers<string | null>();
    let last = "";
    const program = programs.start([path, verb], environment, {
      line: (stream, text) => {
        if (text === "") return;
        last = text;
        log[stream === "stderr" ? "warning" : "info"](`failover ${verb}: ${text}`);
      },
      exited: (exit) => end(failureOf(exit, last)),
    });
    let timer = clock.after(limitOf(verb), () =>
      kill(`it was not finished after ${limitOf(verb) / 1000} s`),
    );
    // What it has left running is not ended when it has: that is the service.
    let over = false;
    const end = (failure: string | null): void => {
      over = true;
      timer.cancel();
      resolve(failure);
    };
    let killed = false;
    const kill = (why: string): void => {
      if (killed || over) return;
      killed = true;
      timer.cancel();
      program.kill("SIGTERM");
      timer = clock.after(GRACE_MS, () => {
        program.kill("SIGKILL");
        timer = clock.after(GRACE_MS, () => end(why));
      });
    };
    return { ended, kill: () => kill("it was ended, and hangs in the kernel") };
  };
}

function limitOf(verb: Verb): number {
  return verb === "start" ? START_LIMIT_MS : STOP_LIMIT_MS;
}

/** @param last line that it printed */
function failureOf(exit: ProcessExit, last: string): string | null {
  switch (exit.kind) {
    case "not-started":
      return exit.reason;
    case "signal":
      return `it was ended by ${exit.signal}`;
    case "code":
      if (exit.code === 0) return null;
      return last === "" ? `exit code ${exit.code}; see the system log of "failover"` : last;
  }
}

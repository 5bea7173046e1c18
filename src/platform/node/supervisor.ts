// SPDX-License-Identifier: BSD-2-Clause
/**
 * systemd, by its notification protocol: datagrams of "NAME=value" lines to a UNIX socket.
 *
 *   NOTIFY_SOCKET=/run/systemd/notify    a path; or "@name", in the abstract namespace
 *   WATCHDOG_USEC=60000000               how often WATCHDOG=1 is wanted, from the process WATCHDOG_PID
 *
 * Source: sd_notify(3), sd_watchdog_enabled(3); unix(7) for abstract names.
 */

import type { Supervisor } from "../supervisor.ts";
import { NO_SUPERVISOR } from "../supervisor.ts";
import { EAGAIN, sendDatagram, unixAddress, unixDatagramSocket } from "./libc.ts";

/** A message that its socket has no room for is sent again after this. */
const RETRY_MS = 50;

type Environment = Record<string, string | undefined>;

/**
 * Who watches this process. What the environment says of it is taken out, since it is not meant for
 * our children.
 * @param warn told once where nobody hears us
 */
export function takeSupervisor(environment: Environment, warn: (text: string) => void): Supervisor {
  const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: usec, WATCHDOG_PID: pid } = environment;
  for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]) delete environment[name];
  if (socket === undefined || socket === "") return NO_SUPERVISOR;
  if (!/^[/@]./.test(socket)) {
    warn(`NOTIFY_SOCKET=${socket} is no path, so the service manager is told nothing.`);
    return NO_SUPERVISOR;
  }
  const ours = pid === undefined || pid === `${process.pid}`;
  const watchdogMs = ours && /^[1-9]\d*$/.test(usec ?? "") ? Number(usec) / 1000 : null;
  return new Systemd(socket, watchdogMs, warn);
}

class Systemd implements Supervisor {
  readonly watchdogMs: number | null;
  readonly #socket: string;
  readonly #warn: (text: string) => void;
  #fd = -1;
  /** In order; what could not be sent yet. */
  readonly #unsent: string[] = [];
  #status = "";
  #warned = false;

  constructor(socket: string, watchdogMs: number | null, warn: (text: string) => void) {
    this.#socket = socket;
    this.watchdogMs = watchdogMs;
    this.#warn = warn;
  }

  ready(): void {
    this.#tell("READY=1");
  }

  reloading(): void {
    // CLOCK_MONOTONIC, as systemd's own: it tells the READY=1 of this reload from an earlier one by it.
    this.#tell(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`);
  }

  stopping(): void {
    this.#tell("STOPPING=1");
  }

  alive(status: string): void {
    if (status !== this.#status) this.#tell(`STATUS=${status}`);
    this.#status = status;
    // What waits for room need not be reminded of.
    if (this.watchdogMs !== null && this.#unsent.length === 0) this.#tell("WATCHDOG=1");
  }

  #tell(message: string): void {
    this.#unsent.push(message);
    if (this.#unsent.length === 1) this.#send();
  }

  /** Without ever waiting: a manager that is busy is no reason to serve nobody. */
  #send(): void {
    const address = unixAddress(this.#socket);
    for (let message = this.#unsent[0]; message !== undefined; message = this.#unsent[0]) {
      if (this.#fd < 0) this.#fd = unixDatagramSocket();
      const sent = this.#fd < 0 ? this.#fd : sendDatagram(this.#fd, Buffer.from(message), address);
      if (sent === -EAGAIN) {
        setTimeout(() => this.#send(), RETRY_MS).unref();
        return;
      }
      if (sent < 0 && !this.#warned) {
        this.#warned = true;
        const text = `The service manager does not hear us at ${this.#socket} (errno ${-sent}).`;
        this.#warn(`${text} It may take us for dead: systemctl status hastd`);
      }
      this.#unsent.shift();
    }
  }
}

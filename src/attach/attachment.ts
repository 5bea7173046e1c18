// SPDX-License-Identifier: BSD-2-Clause
/**
 * A primary's disk as a device of this machine, made and kept by tools that others wrote.
 *
 *   prepare ─► worker listens at DIR/worker ─► attach ─► /dev/hast/NAME ─► detach
 *      │                                         ▲  │
 *      └ what a dead hastd left is cleared       └──┘ a tool has died
 *
 *   /dev/hast/NAME ─► /dev/loop5, or /dev/nbd0, …
 *   /dev/hast/.TOKEN/     DIR, one for each time the role is primary
 *       owner             the resource and the hastd that made it
 *       worker            the worker's socket, for us alone
 *       node              what /dev/hast/NAME leads to
 *       kit1              nbdkit's socket: it keeps requests while a worker is restarted
 *       ready1            nbdfuse is ready
 *       mount1/NAME-TOKEN the file that nbdfuse shows, and that is behind the loop device
 *
 * TOKEN is random, and stands in whatever the kernel and ps(1) tell of it: what is left of one is found by
 * it, and never mistaken for another's. And no tool of one time reaches the worker of a later one, whose
 * socket has another name; so nothing that was written before a demotion can arrive after it.
 *
 * Nothing here waits without a deadline, least of all for a device.
 * Source: nbdfuse(1), nbdkit-retry-filter(1), losetup(8), nbd-client(8), nbdublk(1), setpriv(1).
 */

import { assert, unreachable } from "../base/assert.ts";
import type { Clock } from "../platform/clock.ts";
import type { Entropy } from "../platform/entropy.ts";
import type { Log } from "../platform/log.ts";
import type { System } from "../platform/system.ts";
import type { Programs, RunningProgram } from "../platform/watched-program.ts";
import { mountsOf, type Use, usersOf } from "./holders.ts";
import { choose, type DeviceKind, type DeviceWish, programPath } from "./kinds.ts";
import { describeExit, quote, type Ran, run } from "./run.ts";

/** How long a tool may take to be ready. On a machine that swaps or boots, nbd-client's handshakes were seen to take 10 s. */
export const READY_TIMEOUT_MS = 30_000;
const POLL_MS = 20;
/** Whoever looks at each new or closed device (udev, blkid) may do so for this long before a demotion. */
export const HELD_PATIENCE_MS = 2_000;
const HELD_POLL_MS = 200;
/** How long writing what is cached may take before an orderly detachment. */
export const SYNC_TIMEOUT_MS = 30_000;
/** And before a forced one. */
export const LAST_SYNC_MS = 3_000;
/** How long one step of taking a device apart may take, before the next one is taken anyway. */
export const STEP_TIMEOUT_MS = 2_000;
/** A device whose tools have died is made anew after this. */
export const RENEW_DELAY_MS = 2_000;

/**
 * Connections to the worker. nbdkit's filter has one request at a time on each, so that this is also how
 * many requests are on their way at once; the worker takes 16 clients in all.
 */
const CONNECTIONS = 8;
/** Times that a request is sent again, a second after the last attempt has failed, however long that took. */
const RETRIES = 60;
/**
 * Seconds, more than a week: when the kernel gives an NBD connection up. It then sends the request again on another
 * one, while nbdkit may still bring the first one through, later, over what was written meanwhile. Zero means 30 s
 * where there are several connections. How long a request may take is for nbdkit to say, see RETRIES.
 */
const KERNEL_TIMEOUT_S = 1_000_000;

/** flock's answer where another hastd, or another resource of this one, has the device. */
const TAKEN = 99;

/** Our tools, as /proc/PID/comm has them. */
const TOOLS = new Set(["nbdkit", "nbdfuse", "nbd-client", "nbdublk"]);
const TOKEN = /^\.[0-9a-f]{16}$/;

export interface AttachmentParts {
  readonly programs: Programs;
  readonly system: System;
  readonly entropy: Entropy;
  /** Where devices appear: /dev/hast. */
  readonly directory: string;
}

/** Whose device it is. */
export interface AttachmentOwner {
  readonly name: string;
  readonly log: Log;
  /** A tool has died, and the device with it; to be followed by renew(). */
  deviceLost(): void;
}

export interface Wanted {
  readonly provname: string;
  readonly device: DeviceWish;
}

/** What status says of it. */
export interface DeviceStatus {
  readonly path: string;
  readonly kind: DeviceKind;
  /** What the path leads to; null while there is nothing. */
  readonly node: string | null;
}

export type Prepared =
  /** Null: no device is wanted, or can be had. */
  | { readonly kind: "ready"; readonly socket: string | null }
  | { readonly kind: "failed"; readonly reason: string };

interface Session {
  readonly kind: DeviceKind;
  readonly provname: string;
  readonly directory: string;
  readonly token: string;
  /** Bytes. */
  sectorSize: number;
  /** Times the device was made. */
  count: number;
  node: string | null;
  /** Those that run. */
  readonly tools: Set<RunningProgram>;
  /** Why there is no device although there should be. */
  trouble: string | null;
  /** A demotion was refused since it was in use. */
  refused: boolean;
}

export class Attachment {
  readonly #owner: AttachmentOwner;
  readonly #clock: Clock;
  readonly #parts: AttachmentParts;
  #session: Session | null = null;
  /** Tools that end now do so because we want it. */
  #clearing = false;
  /** Said once, not at each promotion. */
  #noticed: string | null = null;

  constructor(owner: AttachmentOwner, clock: Clock, parts: AttachmentParts) {
    this.#owner = owner;
    this.#clock = clock;
    this.#parts = parts;
  }

  get status(): DeviceStatus | null {
    const session = this.#session;
    if (session === null) return null;
    return { path: this.#pathOf(session), kind: session.kind, node: session.node };
  }

  /** What is wrong with the device; who is in the way of a demotion, once that was refused. */
  notes(): string[] {
    const session = this.#session;
    if (session === null) return [];
    const held = session.refused ? this.held() : null;
    if (held === null) session.refused = false;
    return [session.trouble, held].filter((note) => note !== null);
  }

  /** Why a device as wanted cannot be had on this machine, or null. */
  impossible({ device }: Wanted): string | null {
    const choice = choose(this.#parts.system, device);
    return choice.kind === "impossible" ? choice.reason : null;
  }

  /**
   * Before the worker starts: what an earlier hastd left of this device is cleared, and a place made.
   * @returns where the worker has to listen for us
   */
  async prepare({ provname, device }: Wanted): Promise<Prepared> {
    assert(this.#session === null);
    const { system, directory } = this.#parts;
    const choice = choose(system, device);
    if (choice.kind === "impossible") return { kind: "failed", reason: choice.reason };
    const left = await this.clearLeftovers(provname);
    if (left !== null) return { kind: "failed", reason: left };
    if (choice.kind === "none") {
      if (choice.notice !== null && choice.notice !== this.#noticed) {
        this.#noticed = choice.notice;
        this.#owner.log.notice(
          `There will be no ${directory}/${provname}, since this machine lacks what makes one (${choice.notice}). ` +
            'The disk is served over NBD all the same. "device none" in hast.conf says that this is meant.',
        );
      }
      return { kind: "ready", socket: null };
    }
    const path = `${directory}/${provname}`;
    if (system.target(path) === null && this.#isThere(path)) {
      return {
        kind: "failed",
        reason: `${path} is in the way: it is no device of ours, but a file that somebody wrote there. Look at it, and move it away`,
      };
    }
    const bytes = new Uint8Array(8);
    this.#parts.entropy.fill(bytes);
    const token = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    const place = `${directory}/.${token}`;
    const unmade = attempt(() => {
      system.makeDirectory(place);
      system.write(`${place}/owner`, `${provname}\n${this.#identity()}\n`);
    });
    if (unmade !== null) return { kind: "failed", reason: `${place} cannot be made: ${unmade}` };
    this.#session = {
      kind: choice.kind,
      provname,
      directory: place,
      token,
      sectorSize: 512,
      count: 0,
      node: null,
      tools: new Set(),
      trouble: null,
      refused: false,
    };
    return { kind: "ready", socket: `unix://${place}/worker` };
  }

  /**
   * The worker listens: makes the device. Where none was prepared, there is nothing to do.
   * @param sectorSize bytes; requests are multiples of it
   * @returns null, or why there is none; then call detach()
   */
  async attach(sectorSize: number): Promise<string | null> {
    const session = this.#session;
    if (session === null || session.node !== null) return null;
    session.sectorSize = sectorSize;
    const failure = await this.#make(session);
    const path = this.#pathOf(session);
    if (failure === null) {
      session.trouble = null;
      this.#owner.log.info(`${path} is there (${session.kind}, ${session.node}).`);
      return null;
    }
    return `${path} could not be made (device ${session.kind}): ${failure}`;
  }

  /** A tool has died: takes apart what is left and makes the device anew. @returns null, or why that failed */
  async renew(delayMs: number): Promise<string | null> {
    const session = this.#session;
    if (session === null || session.node !== null) return null;
    await new Promise<void>((resolve) => {
      this.#clock.after(delayMs, resolve);
    });
    if (session !== this.#session) return null;
    const left = (await this.#clear(session)) ?? (await this.attach(session.sectorSize));
    if (left === null) return null;
    session.trouble = `${left}. To try again: hastctl role primary ${this.#owner.name}`;
    this.#owner.log.error(session.trouble);
    return left;
  }

  /**
   * Its users must get errors that its tools would hide: it ends as if they had died, to be followed by renew().
   * @param why "… are gone", for people
   */
  lose(why: string): void {
    const session = this.#session;
    if (session === null) return;
    this.#toolEnded(session, why);
    for (const tool of session.tools) tool.kill("SIGKILL");
  }

  /** Who uses the device, for people; null if nobody does. */
  held(): string | null {
    const session = this.#session;
    if (session === null || session.node === null) return null;
    const { users } = this.#use(session);
    if (users.length === 0) return null;
    return `${this.#pathOf(session)} (${session.node}) is in use: ${users.join(", ")}`;
  }

  /**
   * Takes the device away.
   *
   * @param how "unless used": with what is cached written; "by force": at most {@link LAST_SYNC_MS} are
   *   spent on that, and users get errors; "at once": nothing would be written any more
   * @returns null, or, unless by force, who uses it: then nothing has changed
   */
  async detach(how: "unless used" | "by force" | "at once"): Promise<string | null> {
    const session = this.#session;
    if (session === null) return null;
    const { node } = session;
    if (how === "unless used" && node !== null) {
      const refusal = (await this.#awaitUnused()) ?? (await this.#release(session, node));
      if (refusal !== null) {
        session.refused = true;
        return refusal;
      }
    }
    if (how === "by force" && node !== null) await this.#forceNotice(session, node);
    const left = await this.#clear(session);
    if (left !== null) this.#owner.log.error(`${left}.`);
    else this.#remove(session.directory);
    this.#session = null;
    return null;
  }

  /** Clears the devices of this name whose hastd is no more. @returns null, or what stands in the way */
  async clearLeftovers(provname: string): Promise<string | null> {
    const { system, directory } = this.#parts;
    for (const name of system.names(directory).filter((each) => TOKEN.test(each))) {
      const place = `${directory}/${name}`;
      const [whose, owner] = system.text(`${place}/owner`)?.split("\n") ?? [];
      if (whose !== provname || place === this.#session?.directory) continue;
      if (owner !== undefined && owner !== this.#identity() && this.#lives(owner)) {
        return (
          `${directory}/${provname} belongs to another hastd on this machine (pid ${owner.split(" ")[0]}). ` +
          `There: hastctl role secondary NAME; or "device none" here`
        );
      }
      this.#owner.log.notice(`Clearing what an earlier hastd left of ${directory}/${provname}.`);
      const left = await this.#clearPlace({ directory: place, token: name.slice(1), provname });
      if (left !== null) return left;
      this.#remove(place);
    }
    return null;
  }

  #pathOf(session: Session): string {
    return `${this.#parts.directory}/${session.provname}`;
  }

  // ---- making ---------------------------------------------------------------------------------

  async #make(session: Session): Promise<string | null> {
    const { system } = this.#parts;
    const number = ++session.count;
    const place = session.directory;
    const kit = `${place}/kit${number}`;
    const kitFailure = await this.#startTool(
      session,
      [
        programPath(system, "nbdkit"),
        "--foreground",
        "--exit-with-parent",
        "--unix",
        kit,
        "--filter=retry",
        "nbd",
        `socket=${place}/worker`,
        `retries=${RETRIES}`,
        "retry-delay=1",
        "retry-exponential=no",
      ],
      () => system.names(place).includes(`kit${number}`),
    );
    if (kitFailure !== null) return kitFailure;
    const uri = `nbd+unix:///?socket=${kit}`;
    switch (session.kind) {
      case "fuse":
        return await this.#makeLoop(session, uri, number);
      case "nbd":
        return await this.#makeNbd(session, kit);
      case "ublk":
        return await this.#makeUblk(session, uri);
      default:
        return unreachable(session.kind);
    }
  }

  async #makeLoop(session: Session, uri: string, number: number): Promise<string | null> {
    const { system } = this.#parts;
    const mount = `${session.directory}/mount${number}`;
    // The kernel goes on to tell this name when the mount is gone.
    const file = `${mount}/${session.provname.replaceAll("/", "!")}-${session.token}`;
    const ready = `${session.directory}/ready${number}`;
    const unmade = attempt(() => system.makeDirectory(mount));
    if (unmade !== null) return unmade;
    const nbdfuse = [
      programPath(system, "nbdfuse"),
      ...["--pidfile", ready, "--connections", `${CONNECTIONS}`, file, uri],
    ];
    const failure = await this.#startTool(session, nbdfuse, () => {
      return /\d/.test(system.text(ready) ?? "");
    });
    if (failure !== null) return failure;
    // Otherwise the loop device would lie on a plain file, and the writes nowhere.
    if (!mountsOf(system, "self").some(({ point }) => point === mount)) {
      return `nbdfuse is ready, but has mounted nothing at ${mount}`;
    }
    const ran = await this.#run(
      "losetup",
      ["--find", "--show", "--direct-io=on", ...sectorOption(session), file],
      READY_TIMEOUT_MS,
    );
    if (ran.kind === "failed") return `losetup: ${ran.reason}`;
    return this.#made(session, ran.output.trim());
  }

  /**
   * Two nbd-clients that set up one device at the same time break it for both: the second one's first step
   * clears the sockets of the first, and what they end with is a mixture. So each is locked for as long as its
   * nbd-client lives, against other resources and other hastds. The device itself is no place for the lock:
   * udev looks at no device that is locked.
   */
  async #makeNbd(session: Session, kit: string): Promise<string | null> {
    const { system } = this.#parts;
    for (const number of freeNumbers(system)) {
      const node = `/dev/nbd${number}`;
      // Not by netlink: this way the device lasts as long as the process, which we can watch and end.
      const failure = await this.#startTool(
        session,
        [
          programPath(system, "flock"),
          ...["--nonblock", "--no-fork", "--conflict-exit-code", `${TAKEN}`],
          `/run/lock/hast-nbd${number}`,
          programPath(system, "nbd-client"),
          ...["-unix", kit, node, "-nonetlink", "-nofork"],
          ...["-connections", `${CONNECTIONS}`, "-block-size", `${session.sectorSize}`],
          ...["-timeout", `${KERNEL_TIMEOUT_S}`],
        ],
        // Until flock has made way for nbd-client, the size may be another's.
        (pid) =>
          system.text(`/proc/${pid}/comm`)?.trim() === "nbd-client" &&
          sizeOf(system, `nbd${number}`) > 0,
      );
      if (failure === null) return this.#made(session, node);
      if (!failure.startsWith(`nbd-client: exit code ${TAKEN}`)) return failure;
    }
    return "every /dev/nbdN is in use (modprobe nbd nbds_max=64)";
  }

  async #makeUblk(session: Session, uri: string): Promise<string | null> {
    const { system } = this.#parts;
    const number = unusedNumber(system);
    const node = `/dev/ublkb${number}`;
    const failure = await this.#startTool(
      session,
      [programPath(system, "nbdublk"), "--connections", `${CONNECTIONS}`, node, uri],
      () => sizeOf(system, `ublkb${number}`) > 0,
    );
    return failure ?? this.#made(session, node);
  }

  #made(session: Session, node: string): string | null {
    const { system } = this.#parts;
    if (!/^\/dev\/[a-z]+\d+$/.test(node)) return `no device, but "${node}"`;
    // Taken apart meanwhile, since hastd is stopping.
    if (session !== this.#session) return "it is not wanted any more";
    session.node = node;
    return attempt(() => {
      system.write(`${session.directory}/node`, node);
      system.link(this.#pathOf(session), node);
    });
  }

  /**
   * Starts a tool that stays, and waits until it is ready.
   *
   * It is killed when hastd dies. nbdkit's own --exit-with-parent is not enough: at SIGTERM it lets each client go
   * only when that asks for something. A kernel that has sent a request on a connection just closing then waits,
   * without end, until the seven others are closed, too.
   *
   * @returns null, or what became of it instead
   */
  async #startTool(
    session: Session,
    words: readonly string[],
    isReady: (pid: number) => boolean,
  ): Promise<string | null> {
    const { programs, system } = this.#parts;
    const argv = [programPath(system, "setpriv"), "--pdeathsig", "KILL", ...words];
    const name = argv.map((word) => word.replace(/.*\//, "")).find((word) => TOOLS.has(word));
    const number = session.count;
    const { log } = this.#owner;
    const said: string[] = [];
    let end: string | null = null;
    const tool = programs.start(
      argv,
      {},
      {
        line: (_stream, text) => {
          said.push(text.trim());
          if (said.length > 3) said.shift();
          log.debug(1, `${name}: ${text}`);
        },
        exited: (exit) => {
          end = `${name}: ${describeExit(exit)}${quote(said)}`;
          session.tools.delete(tool);
          // One of an earlier attempt does not matter.
          if (number === session.count) this.#toolEnded(session, end);
        },
      },
    );
    session.tools.add(tool);
    log.debug(1, `Started (pid ${tool.pid}): ${argv.join(" ")}`);
    const ready = await this.#until(() => end !== null || isReady(tool.pid), READY_TIMEOUT_MS);
    if (end !== null) return end;
    return ready ? null : `${name} is not ready after ${READY_TIMEOUT_MS / 1000} s${quote(said)}`;
  }

  #toolEnded(session: Session, end: string): void {
    if (this.#clearing || session !== this.#session || session.node === null) return;
    session.node = null;
    session.trouble = `${this.#pathOf(session)} is lost: ${end}. Whoever has it open gets errors, and has to close it`;
    this.#owner.log.error(`${session.trouble}.`);
    this.#owner.deviceLost();
  }

  // ---- taking apart ---------------------------------------------------------------------------

  async #awaitUnused(): Promise<string | null> {
    const deadline = this.#clock.now() + HELD_PATIENCE_MS;
    for (;;) {
      const users = this.held();
      if (users === null || this.#clock.now() >= deadline) return users;
      await new Promise<void>((resolve) => {
        this.#clock.after(HELD_POLL_MS, resolve);
      });
    }
  }

  /** Writes what is cached, and takes the device from the kernel if nobody has opened it meanwhile. */
  async #release(session: Session, node: string): Promise<string | null> {
    const path = this.#pathOf(session);
    const ran = await this.#run("sync", [node], SYNC_TIMEOUT_MS);
    if (ran.kind === "failed") {
      return `what is cached of ${path} could not be written (sync ${node}: ${ran.reason}). It is lost with --force`;
    }
    if (session.kind !== "fuse") return null;
    await this.#run("losetup", ["--detach", node], STEP_TIMEOUT_MS);
    const gone = () => !this.#loops(session.token).includes(node);
    if (await this.#until(gone, STEP_TIMEOUT_MS)) return null;
    // The kernel lets go of it when its last user does.
    return this.held() ?? `${path} (${node}) is in use, by whom /proc does not tell`;
  }

  /** Gives what is cached a chance, and says what a forced detachment means. */
  async #forceNotice(session: Session, node: string): Promise<void> {
    const { users, mounts } = this.#use(session);
    if (users.length === 0) {
      await this.#run("sync", [node], LAST_SYNC_MS);
      return;
    }
    const args = mounts.length > 0 ? ["-f", ...mounts] : [node];
    const ran = await this.#run("sync", args, LAST_SYNC_MS);
    const { log } = this.#owner;
    const written =
      ran.kind === "done"
        ? "What was cached by then is written; what they write from now on fails"
        : `What was cached could not be written within ${LAST_SYNC_MS / 1000} s (${ran.reason}), and is lost`;
    log.warning(
      `${this.#pathOf(session)} (${node}) is detached by force, although in use: ${users.join(", ")}. ${written}.`,
    );
  }

  /** Takes the device apart in whatever state it is. @returns null, or what cannot be ended */
  async #clear(session: Session): Promise<string | null> {
    this.#clearing = true;
    try {
      const { node } = session;
      session.node = null;
      if (session.kind === "nbd" && node !== null) {
        await this.#run("nbd-client", ["-d", node], STEP_TIMEOUT_MS);
      }
      return await this.#clearPlace(session);
    } finally {
      this.#clearing = false;
    }
  }

  /**
   * The order matters. Requests in the kernel fail first, so that nobody waits for them, not even these
   * steps; a file system is unmounted before the device below it goes.
   */
  async #clearPlace({
    directory: place,
    token,
    provname,
  }: Pick<Session, "directory" | "token" | "provname">): Promise<string | null> {
    const { system } = this.#parts;
    const nodes = [
      ...this.#loops(token),
      ...this.#nodesOfTools(token),
      ...this.#nodesOfNobody(place),
    ];
    const uses = nodes.map((node) => usersOf(system, node, new Set()));
    const link = `${this.#parts.directory}/${provname}`;
    // It may be another's device by now.
    const target = system.target(link);
    if (target !== null && target === system.text(`${place}/node`)) system.remove(link);
    const fuse = mountsOf(system, "self").filter(({ point }) => point.startsWith(`${place}/`));
    for (const { device } of fuse) await this.#abort(device.split(":")[1]!);
    const ended = () => this.#toolPids(token).length === 0;
    const gone = await this.#until(() => {
      for (const pid of this.#toolPids(token)) system.kill(pid);
      return ended();
    }, STEP_TIMEOUT_MS);
    for (const { mounts } of uses) {
      for (const point of mounts.toReversed()) {
        await this.#run("umount", ["--lazy", point], STEP_TIMEOUT_MS);
      }
    }
    for (const node of this.#loops(token)) {
      await this.#run("losetup", ["--detach", node], STEP_TIMEOUT_MS);
    }
    for (const { point } of fuse.toReversed()) {
      await this.#run("umount", ["--lazy", point], STEP_TIMEOUT_MS);
    }
    if (gone) return null;
    const pids = this.#toolPids(token).join(", ");
    return `a former device's process cannot be ended (pid ${pids}). It can write nothing any more; try again when it has gone`;
  }

  /** Lets all requests of a FUSE mount fail. @param connection the minor number of its device */
  async #abort(connection: string): Promise<void> {
    const { system } = this.#parts;
    const control = "/sys/fs/fuse/connections";
    if (system.names(control).length === 0) {
      await this.#run("mount", ["-t", "fusectl", "none", control], STEP_TIMEOUT_MS);
    }
    if (!system.names(control).includes(connection)) return;
    const failure = attempt(() => system.write(`${control}/${connection}/abort`, "1"));
    // Killing the process has the same effect, except where it cannot be killed.
    if (failure !== null) this.#owner.log.debug(1, `${control}/${connection}/abort: ${failure}`);
  }

  #remove(place: string): void {
    const { system } = this.#parts;
    const failure = attempt(() => {
      for (const name of system.names(place)) system.remove(`${place}/${name}`);
      system.remove(place);
    });
    // Of no consequence; the next promotion tries again.
    if (failure !== null) this.#owner.log.debug(1, `${place} is left: ${failure}`);
  }

  // ---- looking --------------------------------------------------------------------------------

  #use({ node, token }: Session): Use {
    if (node === null) return { users: [], mounts: [] };
    return usersOf(this.#parts.system, node, new Set(this.#toolPids(token)));
  }

  /** Loop devices on our file, wherever it is mounted by now. */
  #loops(token: string): string[] {
    const { system } = this.#parts;
    return system
      .names("/sys/block")
      .filter((name) => system.text(`/sys/block/${name}/loop/backing_file`)?.includes(token))
      .map((name) => `/dev/${name}`);
  }

  /** Devices that our tools were started for. */
  #nodesOfTools(token: string): string[] {
    const lines = this.#toolPids(token).map((pid) => this.#commandLine(pid));
    return lines.flatMap((line) => line.match(/\/dev\/(?:nbd|ublkb)\d+(?=\0|$)/g) ?? []);
  }

  /**
   * What the device was, where its tool has ended and nobody's else has it by now: file systems are still
   * mounted on it.
   */
  #nodesOfNobody(place: string): string[] {
    const node = this.#parts.system.text(`${place}/node`) ?? "";
    if (!/^\/dev\/(?:nbd|ublkb)\d+$/.test(node)) return [];
    const isTaken = this.#pidsOfTools().some((pid) =>
      this.#commandLine(pid).split("\0").includes(node),
    );
    return isTaken ? [] : [node];
  }

  #toolPids(token: string): number[] {
    return this.#pidsOfTools().filter((pid) => this.#commandLine(pid).includes(token));
  }

  /** Ours, and those of others that are the same programs. */
  #pidsOfTools(): number[] {
    const { system } = this.#parts;
    return system
      .names("/proc")
      .filter((name) => /^\d+$/.test(name))
      .filter((pid) => TOOLS.has(system.text(`/proc/${pid}/comm`)?.trim() ?? ""))
      .map(Number);
  }

  /** With zeroes between the words; empty for one that has ended. */
  #commandLine(pid: number): string {
    return this.#parts.system.text(`/proc/${pid}/cmdline`) ?? "";
  }

  #isThere(path: string): boolean {
    const [, directory, name] = /^(.*)\/([^/]*)$/.exec(path)!;
    return this.#parts.system.names(directory!).includes(name!);
  }

  /** This hastd: its id, and when it was started. */
  #identity(): string {
    return this.#identityOf("self") ?? "";
  }

  #lives(identity: string): boolean {
    return this.#identityOf(identity.split(" ")[0]!) === identity;
  }

  /** Source: proc_pid_stat(5): "pid (comm) state …", of which the 22nd is the start time. */
  #identityOf(process: string): string | null {
    const [, pid, rest] =
      /^(\d+) .*\) (.*)$/s.exec(this.#parts.system.text(`/proc/${process}/stat`) ?? "") ?? [];
    return pid === undefined ? null : `${pid} ${rest!.split(" ")[19]}`;
  }

  async #run(name: string, args: readonly string[], timeoutMs: number): Promise<Ran> {
    const { system, programs } = this.#parts;
    const argv = [programPath(system, name), ...args];
    const ran = await run({ programs, clock: this.#clock }, argv, timeoutMs);
    const end = ran.kind === "done" ? "done" : ran.reason;
    this.#owner.log.debug(1, `${name} ${args.join(" ")}: ${end}`);
    return ran;
  }

  async #until(look: () => boolean, withinMs: number): Promise<boolean> {
    const deadline = this.#clock.now() + withinMs;
    for (;;) {
      if (look()) return true;
      if (this.#clock.now() >= deadline) return false;
      await new Promise<void>((resolve) => {
        this.#clock.after(POLL_MS, resolve);
      });
    }
  }
}

function sectorOption({ sectorSize }: Session): string[] {
  return sectorSize > 512 ? ["--sector-size", `${sectorSize}`] : [];
}

/** In sectors of 512 bytes; 0 for a device that leads nowhere. */
function sizeOf(system: System, name: string): number {
  return Number(system.text(`/sys/block/${name}/size`) ?? 0);
}

/** Those of the fixed number of /dev/nbdN that nobody has attached, in order. */
function freeNumbers(system: System): number[] {
  return system
    .names("/sys/block")
    .filter((name) => /^nbd\d+$/.test(name))
    .filter((name) => system.text(`/sys/block/${name}/pid`) === null && sizeOf(system, name) === 0)
    .map((name) => Number(name.slice("nbd".length)))
    .toSorted((a, b) => a - b);
}

/** /dev/ublkbN come when they are asked for. */
function unusedNumber(system: System): number {
  const names = new Set(system.names("/sys/block"));
  let number = 0;
  while (names.has(`ublkb${number}`)) number++;
  return number;
}

/** What System throws, in its words; null if it does not. */
function attempt(deed: () => void): string | null {
  try {
    deed();
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * The configuration in use, and how a new one takes its place: on SIGHUP, and for `hastctl reload`.
 *
 *   hast.conf read and checked ─► new sockets open ─┬─► in use ─► old sockets closed ─► resources: gone,
 *          │ wrong                      │ no        │             new, then changed (config/changes.ts)
 *          └────────────────────────────┴─► nothing has changed
 *
 * One reload follows the other. It waits for resources, each with its deadlines, and no resource waits for
 * it (BD-24).
 * Source: FreeBSD sbin/hastd/hastd.c, hastd_reload(); behaviour §12.
 */

import { assert } from "../base/assert.ts";
import {
  changesBetween,
  type ResourceChange,
  resourceChange,
  settingText,
} from "../config/changes.ts";
import type { Config, ResourceConfig } from "../config/config.ts";
import { formatConfig, NODE_IN_USE } from "../config/format.ts";
import type { Log } from "../platform/log.ts";
import type { Supervisor } from "../platform/supervisor.ts";
import type { Role } from "../wire/control.ts";
import type { Configuration, Reloaded } from "./control-server.ts";
import { type Daemon, type DaemonSettings, StartError } from "./daemon.ts";
import { workerSettings } from "./settings.ts";

const EX_TEMPFAIL = 75;

/** A configuration that could be used: all that it names has been found. */
export interface Loaded {
  readonly config: Config;
  readonly settings: DaemonSettings;
  /** What the process itself takes over; called when nothing can go wrong any more. @returns what that is, a line each */
  readonly adopt: () => readonly string[];
}

export class ConfigurationInUse implements Configuration {
  #config: Config;
  readonly #load: () => Loaded;
  readonly #log: Log;
  readonly #supervisor: Supervisor;
  #daemon: Daemon | null = null;
  #last: Promise<unknown> = Promise.resolve();

  /** @param load reads hast.conf again; throws StartError, whose lines say what is wrong */
  constructor(config: Config, load: () => Loaded, log: Log, supervisor: Supervisor) {
    this.#config = config;
    this.#load = load;
    this.#log = log;
    this.#supervisor = supervisor;
  }

  /** Before the first reload. */
  governs(daemon: Daemon): void {
    this.#daemon = daemon;
  }

  text(): string {
    return formatConfig(this.#config, NODE_IN_USE);
  }

  /** Resolves when everything is as the new file says, or nothing is. */
  async reload(): Promise<Reloaded> {
    const reload = this.#last.then(async () => {
      const daemon = this.#daemon;
      assert(daemon !== null);
      await daemon.opened();
      this.#supervisor.reloading();
      try {
        return await this.#reload(daemon);
      } finally {
        this.#supervisor.ready();
      }
    });
    // A failure is this caller's to hear; the next reload only waits for the end.
    this.#last = reload.catch(() => undefined);
    return await reload;
  }

  async #reload(daemon: Daemon): Promise<Reloaded> {
    let next: Loaded;
    try {
      next = this.#load();
      refuseHeld(daemon, this.#config, next.config);
      await daemon.moveDoors(next.settings);
    } catch (error) {
      if (!(error instanceof StartError)) throw error;
      const lines = error.message.split("\n");
      for (const line of lines) this.#log.error(line);
      const reason = "Nothing was reloaded: the old configuration stays in use.";
      this.#log.error(reason);
      return { kind: "failed", reason, lines };
    }
    const adopted: Told[] = next.adopt().map((line) => ({ lines: [line], failed: false }));
    const before = this.#config;
    this.#config = next.config;
    const told = [...adopted, ...(await this.#change(daemon, before, next))];
    const lines = told.flatMap(({ lines }) => lines);
    for (const { lines, failed } of told) {
      const [first, ...rest] = lines.map((line) => line.trim());
      const text = rest.length === 0 ? first! : `${first}: ${rest.join(", ")}`;
      if (failed) this.#log.error(text);
      else this.#log.notice(text);
    }
    const { file } = next.config;
    const failures = told.filter(({ failed }) => failed).length;
    if (failures === 0) {
      this.#log.notice(`${file} is reloaded${lines.length === 0 ? ": nothing has changed" : ""}.`);
      return { kind: "done", lines: lines.length === 0 ? ["nothing has changed"] : lines };
    }
    const reason = `${file} is in use now, but ${failures === 1 ? "one resource has" : `${failures} resources have`} lost the role.`;
    this.#log.error(reason);
    return { kind: "failed", reason, lines };
  }

  async #change(daemon: Daemon, before: Config, { config, settings }: Loaded): Promise<Told[]> {
    const old = new Map(before.resources.map((resource) => [resource.name, resource]));
    const names = config.resources.map(({ name }) => name);
    const told: Told[] = changesBetween(before, config, () => "init").daemon.map((change) => ({
      lines: [`hastd: ${settingText(change)}`],
      failed: false,
    }));
    // First of all those that go: another may want their disk, their name or their export.
    const gone = [...old.keys()].filter((name) => !names.includes(name));
    told.push(...(await Promise.all(gone.map((name) => removed(daemon, name)))));
    const kept: { readonly from: ResourceConfig; readonly to: ResourceConfig }[] = [];
    for (const resource of config.resources) {
      const from = old.get(resource.name);
      if (from !== undefined) {
        kept.push({ from, to: resource });
        continue;
      }
      daemon.add(workerSettings(resource), settings.hooks(resource.name));
      told.push({ lines: [`${resource.name}: added, in role init`], failed: false });
    }
    daemon.arrange(names);
    const changed = kept.filter(({ from, to }) => resourceChange(from, to, "init") !== null);
    told.push(
      ...(await Promise.all(
        changed.map(async ({ from, to }) => {
          const resource = daemon.resource(to.name);
          assert(resource !== undefined);
          const { role, way, failure } = await resource.reconfigure(
            workerSettings(to),
            (role) => resourceChange(from, to, role),
            () => daemon.setHooks(to.name, settings.hooks(to.name)),
          );
          assert(way !== null);
          return { lines: linesOf(way, role, failure), failed: failure !== null };
        }),
      )),
    );
    daemon.arrange(names);
    return told;
  }
}

/**
 * A primary that is to be restarted, or goes, takes its device with it.
 * @throws StartError while somebody uses it
 */
function refuseHeld(daemon: Daemon, before: Config, after: Config): void {
  const lines: string[] = [];
  for (const from of before.resources) {
    const resource = daemon.resource(from.name);
    const held = resource?.role === "primary" ? resource.held : null;
    if (held === null) continue;
    const to = after.resources.find(({ name }) => name === from.name);
    if (to !== undefined && resourceChange(from, to, "primary")?.kind !== "restarted") continue;
    lines.push(
      `${from.name}: ${to === undefined ? "it is gone from" : "it would be restarted for"} the new file, but ${held}. Stop what uses it, and reload again`,
    );
  }
  if (lines.length > 0) throw new StartError(EX_TEMPFAIL, lines.join("\n"));
}

/** What became of one thing: a heading, and indented lines. */
interface Told {
  readonly lines: readonly string[];
  readonly failed: boolean;
}

async function removed(daemon: Daemon, name: string): Promise<Told> {
  const role = daemon.resource(name)!.role;
  const left = await daemon.remove(name);
  const lines = [`${name}: removed; its role was ${role}`];
  return { lines: left === null ? lines : [...lines, `  ${left}`], failed: left !== null };
}

function linesOf(change: ResourceChange, role: Role, failure: string | null): string[] {
  assert(change.kind === "live" || change.kind === "restarted");
  const { resource } = change;
  const settings = change.kind === "live" ? change.reasons : [...change.reasons, ...change.besides];
  const lines = settings.map((each) => `  ${settingText(each)}`);
  if (failure !== null) {
    return [
      `${resource}: restarted, and in role init now: ${failure}`,
      ...lines,
      `  when the cause is gone: hastctl role ${role} ${resource}`,
    ];
  }
  if (change.kind === "live") return [`${resource}: changed live; its role is ${role}`, ...lines];
  return [
    `${resource}: restarted, back to role ${role}${role === "init" ? ": nothing ran" : ""}`,
    ...lines,
  ];
}

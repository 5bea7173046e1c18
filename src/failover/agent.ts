// SPDX-License-Identifier: BSD-2-Clause
/**
 * The agent of one group of resources on one node: follows, and leads when it is its turn.
 *
 *   follow ── nobody leads, this node is in every set ──► elected ──► promoted, started ──► leads
 *     ▲                                                                                      │
 *     └─────── stopped, demoted, resigned ◄── asked to, lease lost, or hastd in trouble ◄────┘
 *
 * While it leads it renews the lease, and keeps the sets in etcd equal to what the workers wish: a worker
 * acknowledges nothing without its peer before the set without that peer is stable in etcd. So whoever is
 * in the set has every acknowledged byte, and whoever is not is never promoted, whatever any clock says.
 * The deadline that goes with each renewal, and a restart, bound what a primary that has been replaced may
 * still show to its readers.
 *
 * The leader's key is polled, not watched: one linearizable read a second says as much, and a stream that
 * has silently gone stale says nothing.
 * Source: docs/decisions/0009-who-may-lead-is-written-down.md; safety case S-17.
 */

import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { LeaseEntry, ResourceStatus, Whole } from "../wire/control.ts";
import { type Etcd, EtcdError } from "./etcd.ts";
import {
  announcement,
  election,
  type GroupRecord,
  groupRecord,
  type Leader,
  prefixOf,
  readiness,
  setsChange,
  termOf,
  withSets,
} from "./group-record.ts";
import type { Answer, Hastd, StartScript, Verb } from "./hastd.ts";
import { Leadership } from "./leadership.ts";
import { type Memory, ranBackwards } from "./memory.ts";
import { obstacleOf, RESTORED, strangersIn, whoLacks } from "./obstacle.ts";
import type { GroupSettings } from "./settings.ts";

/** Between two looks of a follower. */
const LOOK_MS = 1_000;
/** After a change of the sets that had no use. */
const AGAIN_MS = 200;
/** How long a node that could not start the group, or has lost its memory or its role, leaves it to the other. */
const BACKOFF_MS = 30_000;
/** A leader's key outlives its machine by a TTL; by another one, where etcd itself has changed its leader. */
const LEADER_TTLS = 3;
/** hastd answers a poll after this, if nothing happens. */
const POLL_MS = 5_000;
/** A renewal every so much of the TTL; or, where that was of no use, after so long. */
const RENEWAL_SHARE = 0.2;
const RETRY_MS = 500;
/** A leader whose hastd does not answer for so much of the TTL gives up. */
const SILENCE_SHARE = 0.2;

export interface AgentOptions {
  readonly settings: GroupSettings;
  readonly etcd: Etcd;
  readonly hastd: Hastd;
  readonly startScript: StartScript;
  readonly memory: Memory;
  readonly clock: Clock;
  readonly log: Log;
  /** Of the machine: /proc/sys/kernel/random/boot_id. */
  readonly boot: string;
}

export class Agent {
  readonly #options: AgentOptions;
  #stopping = false;
  #leadership: Leadership | null = null;
  /** Why the lead is left to the other node, and until when, also for people. */
  #backoff: { readonly untilMs: number; readonly until: string; readonly why: string } | null =
    null;
  #leaderSeenAtMs = Number.NEGATIVE_INFINITY;
  /** A leader of our name that is not this agent, and when it was seen first. */
  #ownName: { readonly createRevision: number; readonly seenAtMs: number } | null = null;
  #hasNamesake = false;
  #tidied = false;
  readonly #pauses = new Set<() => void>();
  /** What was said last, by subject: the same is not said again. */
  readonly #said = new Map<string, string>();

  constructor(options: AgentOptions) {
    this.#options = options;
  }

  /** Until stop(). */
  async run(): Promise<void> {
    while (!this.#stopping) {
      await this.#follow();
      if (!this.#stopping) await this.#pause(LOOK_MS);
    }
  }

  /** A leader stops the group and resigns; then run() ends. */
  stop(): void {
    this.#stopping = true;
    this.#leadership?.end("it was told to stop");
    this.#wake();
  }

  async #follow(): Promise<void> {
    const { settings, boot } = this.#options;
    const statuses = await this.#statuses();
    if (statuses === null) return;
    const record = await this.#look();
    const mine =
      record !== null && record.leader?.node === settings.node && record.leader.boot === boot;
    const primaries = settings.resources.filter((_, index) => statuses[index]!.role === "primary");
    const primary = primaries.length > 0;
    if (!mine && primary && record !== null && record.leader !== null) {
      this.#say(
        "role",
        "warning",
        `${primaries.join(" ")}: primary here, and ${record.leader.node} leads: stopped, and made secondary.`,
      );
      await this.#letGo();
      this.#tidied = true;
      return;
    }
    // Of an agent, or a hastd, that was killed, something may be left: mounts without a disk, the address.
    if (!mine && !primary && !this.#tidied) {
      await this.#run("stop");
      this.#tidied = true;
    }
    // A boot promotes nothing, and a secondary is what the other node needs.
    const idle = statuses.flatMap(({ role }, index) =>
      role === "init" ? [settings.resources[index]!] : [],
    );
    if (idle.length > 0 && !mine) {
      this.#complain("role", await this.#options.hastd.demote(idle, false));
      return;
    }
    if (record === null || this.#stopping) return;
    if (mine) {
      await this.#resume(record, record.leader, statuses);
      return;
    }
    const now = this.#options.clock.now();
    if (record.leader !== null) {
      const { node, since } = record.leader;
      this.#leaderSeenAtMs = now;
      if (node === settings.node) this.#meetOwnName(record, record.leader);
      else this.#say("state", "notice", `${node} leads since ${since}; this node follows.`);
      await this.#offer(record, statuses);
      return;
    }
    if (this.#hasNamesake) return;
    const waits = this.#waits();
    if (waits !== null) {
      this.#say("state", "notice", `Nobody leads, and ${waits}`);
      return;
    }
    const obstacle = obstacleOf(record, settings, statuses);
    if (obstacle !== null) {
      this.#say("state", "warning", `Nobody leads, and this node may not: ${obstacle}`);
      return;
    }
    // Made by an operator, by force. One whose agent has died is the leader that was seen until just now.
    const led = now - this.#leaderSeenAtMs < LEADER_TTLS * settings.ttlS * 1000;
    const index = statuses.findIndex(({ connected }) => connected === true);
    if (!primary && !led && index !== -1) {
      this.#say(
        "state",
        "warning",
        `${settings.resources[index]}: a primary is connected, which no agent has made one, so this node stays ` +
          `secondary. On ${settings.peer}: hast-failover seed --force; and start its agent`,
      );
      return;
    }
    await this.#elect(record);
  }

  /** This node is to take over: the leader gives nothing up before it hears that somebody is there. */
  async #offer(record: GroupRecord, statuses: readonly ResourceStatus[]): Promise<void> {
    const { etcd, settings } = this.#options;
    const { move } = record;
    if (move?.to !== settings.node || move.ready) {
      this.#said.delete("move");
      return;
    }
    if (this.#hasNamesake) return;
    const waits = this.#waits();
    if (waits !== null) {
      this.#say("move", "warning", `This node was asked to take over, but ${waits}`);
      return;
    }
    const why = obstacleOf(record, settings, statuses);
    if (why !== null) {
      this.#say("move", "warning", `This node was asked to take over, and may not: ${why}`);
      return;
    }
    try {
      const { comparisons, puts } = readiness(settings.group, move);
      await etcd.txn(comparisons, puts);
    } catch (error) {
      this.#sayUnreachable(error);
    }
  }

  /**
   * etcd says that this node leads, under another boot. Mostly this machine has been started anew within the
   * lease: then what nobody had flushed is in the other one's memory only (S-9). Else another machine has our
   * name, and what the sets say of that name is not said of this copy.
   */
  #meetOwnName(record: GroupRecord, { node, createRevision }: Leader): void {
    const { settings, clock } = this.#options;
    const now = clock.now();
    if (this.#ownName?.createRevision !== createRevision) {
      this.#ownName = { createRevision, seenAtMs: now };
    }
    if (now - this.#ownName.seenAtMs > LEADER_TTLS * settings.ttlS * 1000) {
      this.#hasNamesake = true;
      this.#say(
        "state",
        "error",
        `Another machine leads ${settings.group} as ${node}, which is this node's name, too; so nobody is promoted ` +
          "here. Give each its own: node= and peer= in failover.conf, which are the other way round on the other " +
          "node, or the `on` sections of hast.conf. Then start this agent again.",
      );
      return;
    }
    if (!this.#leaveToPeer(record, "this machine led, and was started anew")) return;
    this.#say(
      "state",
      "notice",
      `This machine led, and was started anew. ${settings.peer}, which has all of it in its memory, may lead: for ` +
        `${BACKOFF_MS / 1000} s this node leaves it that.`,
    );
  }

  /**
   * What nobody had flushed is perhaps in the other node's memory only (S-9).
   *
   * @returns whether it has all, and may lead
   */
  #leaveToPeer(record: GroupRecord, why: string): boolean {
    const { settings } = this.#options;
    if (whoLacks(record, settings, settings.peer) !== null) return false;
    this.#backOff(why);
    return true;
  }

  #backOff(why: string): void {
    const { clock } = this.#options;
    const until = forPeople(clock.wallTime() + BACKOFF_MS);
    this.#backoff = { untilMs: clock.now() + BACKOFF_MS, until, why };
  }

  /** That this node leaves the lead to the other one, why, and until when; null where it does not. */
  #waits(): string | null {
    const { clock, settings } = this.#options;
    if (this.#backoff === null || clock.now() >= this.#backoff.untilMs) return null;
    const { until, why } = this.#backoff;
    return `this node waits until ${until}, for ${settings.peer} to lead: ${why}.`;
  }

  /** The status of each resource; null where hastd does not know them all. */
  async #statuses(): Promise<readonly ResourceStatus[] | null> {
    const { hastd, settings } = this.#options;
    const answer = await hastd.status(settings.resources);
    if (!this.#complain("hastd", answer) || answer.kind !== "answered") return null;
    const known = answer.entries.flatMap(({ outcome }) =>
      outcome.kind === "known" ? [outcome.status] : [],
    );
    return known.length === settings.resources.length ? known : null;
  }

  /** What etcd holds; null where it cannot be asked, or has forgotten what it knew. */
  async #look(): Promise<GroupRecord | null> {
    const { etcd, settings, memory } = this.#options;
    const before = memory.latest();
    try {
      const record = groupRecord(settings.group, await etcd.range(prefixOf(settings.group)));
      this.#said.delete("etcd");
      if (this.#isForgetful(record, before)) return null;
      const strange = strangersIn(record, settings);
      if (strange !== null) this.#say("group", "warning", strange);
      return record;
    } catch (error) {
      this.#sayUnreachable(error);
      return null;
    }
  }

  /** Whether etcd knows less than it did `before` this record was asked for. */
  #isForgetful(record: GroupRecord, before: ReturnType<Memory["latest"]>): boolean {
    if (ranBackwards(record, before)) {
      this.#say("forgot", "error", RESTORED);
      return true;
    }
    this.#options.memory.saw(record);
    this.#said.delete("forgot");
    return false;
  }

  async #elect(record: GroupRecord): Promise<void> {
    const { etcd, settings, clock, boot } = this.#options;
    const { node, resources } = settings;
    try {
      const { id, ttlS, sentAtMs } = await etcd.grant(settings.ttlS);
      const since = forPeople(clock.wallTime());
      const wanted = { node, boot, since, serves: false, lease: id, resources };
      const leader = await this.#makeLeader(record, wanted);
      if (leader === null) {
        await etcd.revoke(id);
        return;
      }
      const leadership = this.#leadershipOf(record, leader);
      leadership.renewed(sentAtMs, ttlS);
      await this.#lead(leadership, "promote");
    } catch (error) {
      // If the key was made all the same, the next look finds it, and goes on from there.
      this.#sayUnreachable(error);
    }
  }

  /** @returns null where somebody else was first. @throws EtcdError: nobody knows */
  async #makeLeader(
    record: GroupRecord,
    wanted: Parameters<typeof election>[2],
  ): Promise<Leader | null> {
    const { etcd, settings } = this.#options;
    const { comparisons, puts } = election(settings.group, record, wanted);
    const revision = await etcd.txn(comparisons, puts);
    if (revision !== null) return { ...wanted, createRevision: revision };
    // Perhaps by an attempt of ours whose answer was lost.
    const range = await etcd.range(prefixOf(settings.group));
    const { leader } = groupRecord(settings.group, range);
    return leader?.lease === wanted.lease ? leader : null;
  }

  #leadershipOf(record: GroupRecord, { lease, createRevision }: Leader): Leadership {
    const term = termOf(record.base?.value ?? 0, createRevision);
    const confirmed = this.#options.settings.resources.map(() => 0);
    const { clock } = this.#options;
    return new Leadership({ clock, term, lease, createRevision, record, confirmed });
  }

  /** This node leads, says etcd, but this agent does not: it was restarted. */
  async #resume(
    record: GroupRecord,
    leader: Leader,
    statuses: readonly ResourceStatus[],
  ): Promise<void> {
    const { etcd, settings, log } = this.#options;
    const leadership = this.#leadershipOf(record, leader);
    try {
      if (statuses.every(({ role }) => role === "primary")) {
        const { sentAtMs, ttlS } = await etcd.renew(leader.lease, prefixOf(settings.group));
        if (ttlS === 0) return;
        leadership.renewed(sentAtMs, ttlS);
        log.notice(`This node leads ${settings.group} since ${leader.since}; going on with that.`);
        await this.#lead(leadership, "go-on");
        return;
      }
      // hastd, or the whole machine, has begun anew: what was started is gone.
      const lost = settings.resources.filter((_, index) => statuses[index]!.role === "init");
      if (lost.length > 0) this.#leaveToPeer(record, `this node led, and lost ${lost.join(" ")}`);
      if (await this.#letGo()) await etcd.revoke(leader.lease);
    } catch (error) {
      this.#sayUnreachable(error);
    }
  }

  /** From the election to the resignation. */
  async #lead(leadership: Leadership, how: "promote" | "go-on"): Promise<void> {
    const { settings, log } = this.#options;
    this.#leadership = leadership;
    this.#tidied = true;
    this.#said.clear();
    if (this.#stopping) leadership.end("it was told to stop");
    const over = { value: false };
    const renewing = this.#keepLease(leadership, over);
    // Beside the promotion: its devices are read before it is complete, and no worker answers before that.
    const polling = this.#keepSets(leadership, over);
    const promoted = how === "go-on" || (await this.#promote(leadership));
    leadership.promoted = promoted;
    if (promoted && (await this.#start(leadership))) {
      leadership.serves = true;
      log.notice(`This node leads ${settings.group}, in term ${leadership.term}.`);
    }
    log.warning(`This node gives ${settings.group} up: ${await leadership.ending.said}.`);

    const demoted = await this.#letGo(leadership);
    over.value = true;
    leadership.dispose();
    this.#leadership = null;
    this.#wake();
    await renewing;
    await polling;
    // A primary that could not be ended keeps its lease, and the other node waits until that has run out.
    if (demoted) await this.#resign(leadership);
  }

  async #promote(leadership: Leadership): Promise<boolean> {
    const { hastd, settings } = this.#options;
    if (leadership.ending.value !== null) return false;
    const answer = await hastd.promote(settings.resources, leadership);
    if (this.#complain("promotion", answer)) return true;
    this.#giveUp(leadership, "not all of its resources could become primary");
    return false;
  }

  async #start(leadership: Leadership): Promise<boolean> {
    const script = this.#options.startScript("start");
    void leadership.ending.said.then(() => script.kill());
    const failure = await script.ended;
    if (failure === null) return true;
    this.#giveUp(leadership, `"failover start" did not succeed: ${failure}`);
    return false;
  }

  /** The other node may have better luck. */
  #giveUp(leadership: Leadership, why: string): void {
    if (leadership.ending.value !== null) return;
    this.#backOff(why);
    leadership.end(why);
  }

  /** Renews, as long as it is not over; notices that another node is to lead. */
  async #keepLease(leadership: Leadership, over: { value: boolean }): Promise<void> {
    const { settings, clock } = this.#options;
    let begunAtMs = clock.now();
    let renewed = true;
    for (;;) {
      const everyMs = renewed ? settings.ttlS * 1000 * RENEWAL_SHARE : RETRY_MS;
      await this.#pause(Math.max(0, begunAtMs + everyMs - clock.now()));
      leadership.checkTime();
      if (over.value || leadership.lost.value !== null) return;
      begunAtMs = clock.now();
      try {
        await this.#renew(leadership);
        renewed = true;
      } catch (error) {
        this.#sayUnreachable(error);
        renewed = false;
      }
    }
  }

  /** @throws EtcdError */
  async #renew(leadership: Leadership): Promise<void> {
    const { etcd, settings, hastd, memory } = this.#options;
    const before = memory.latest();
    const { range, sentAtMs, ttlS } = await etcd.renew(leadership.lease, prefixOf(settings.group));
    const record = groupRecord(settings.group, range);
    if (this.#isForgetful(record, before)) {
      leadership.lose("etcd was restored from a backup");
      return;
    }
    if (record.leader?.createRevision !== leadership.createRevision) {
      leadership.lose(`${record.leader?.node ?? "nobody"} leads, says etcd`);
      return;
    }
    this.#said.delete("etcd");
    leadership.renewed(sentAtMs, ttlS);
    // Not waited for: the next one comes soon enough.
    void hastd.lease(settings.resources, leadership, leadership.confirmed, 0);
    if (isToMove(record, settings)) leadership.end(`${record.move?.to} is to lead`);
    if (leadership.serves && !record.leader.serves) {
      const { comparisons, puts } = announcement(settings.group, record.leader);
      await etcd.txn(comparisons, puts);
    }
  }

  /** Makes the sets in etcd what the workers wish, and then tells them so. */
  async #keepSets(leadership: Leadership, over: { value: boolean }): Promise<void> {
    const { hastd, settings, clock } = this.#options;
    const { resources } = settings;
    let heardAtMs = clock.now();
    while (!over.value && leadership.lost.value === null) {
      const answer = await hastd.lease(resources, leadership, leadership.confirmed, POLL_MS);
      if (over.value) return;
      leadership.checkTime();
      if (answer.kind === "failed") {
        const silentMs = clock.now() - heardAtMs;
        if (silentMs >= settings.ttlS * 1000 * SILENCE_SHARE) {
          // It would not hear of a demotion either, so nothing is renewed meanwhile.
          leadership.lose(answer.lines[0]?.replace(/\.$/, "") ?? "hastd does not answer");
          return;
        }
        await this.#pause(AGAIN_MS);
        continue;
      }
      heardAtMs = clock.now();
      const trouble = troubleOf(answer.entries, resources);
      if (trouble !== null && leadership.promoted) {
        // Its disk, perhaps.
        this.#leaveToPeer(leadership.record, trouble);
        leadership.lose(trouble);
        return;
      }
      const confirmed = [...leadership.confirmed];
      const sets = new Map<string, readonly string[]>();
      for (const [index, { resource, outcome }] of answer.entries.entries()) {
        const wish = outcome.kind === "known" ? outcome.wish : null;
        if (wish === null || wish.number === confirmed[index]) continue;
        confirmed[index] = wish.number;
        sets.set(resource, this.#nodesOf(wish.whole));
      }
      if (sets.size === 0) {
        if (trouble !== null) await this.#pause(AGAIN_MS);
        continue;
      }
      if (await this.#writeSets(leadership, sets)) {
        leadership.confirmed = confirmed;
        for (const [resource, nodes] of sets) {
          this.#say(`set ${resource}`, "notice", `In step for ${resource}: ${nodes.join(", ")}.`);
        }
      } else await this.#pause(AGAIN_MS);
    }
  }

  #nodesOf(whole: Whole): readonly string[] {
    const { node, peer } = this.#options.settings;
    switch (whole) {
      case "both":
        return [node, peer].toSorted();
      case "local":
        return [node];
      case "remote":
        return [peer];
    }
  }

  /** @returns whether etcd has them; where not, they are read before the next attempt */
  async #writeSets(
    leadership: Leadership,
    sets: ReadonlyMap<string, readonly string[]>,
  ): Promise<boolean> {
    const { etcd, settings } = this.#options;
    try {
      if (leadership.mustRead) {
        const range = await etcd.range(prefixOf(settings.group));
        const record = groupRecord(settings.group, range);
        if (record.leader?.createRevision !== leadership.createRevision) {
          leadership.lose(`${record.leader?.node ?? "nobody"} leads, says etcd`);
          return false;
        }
        leadership.record = record;
        leadership.mustRead = false;
      }
      const { record, createRevision } = leadership;
      const { comparisons, puts } = setsChange(settings.group, record, createRevision, sets);
      leadership.mustRead = true;
      const revision = await etcd.txn(comparisons, puts);
      if (revision === null) return false;
      leadership.record = withSets(record, revision, sets);
      this.#options.memory.saw(leadership.record);
      leadership.mustRead = false;
      return true;
    } catch (error) {
      this.#sayUnreachable(error);
      return false;
    }
  }

  /**
   * Stops what uses the resources, and makes them secondary. Where the right to lead is lost, both at once:
   * a worker that does not answer would hold up every unmount.
   *
   * @returns whether they are secondary
   */
  async #letGo(leadership?: Leadership): Promise<boolean> {
    const stopped = this.#run("stop");
    if (leadership !== undefined) {
      await Promise.race([stopped, leadership.lost.said]);
      // hastd tells of the first one that is secondary before all are.
      leadership.promoted = false;
    }
    const forced = leadership === undefined || leadership.lost.value !== null;
    const demoted = (!forced && (await this.#demote(false))) || (await this.#demote(true));
    await stopped;
    return demoted;
  }

  async #demote(force: boolean): Promise<boolean> {
    const { hastd, settings } = this.#options;
    return this.#complain("demotion", await hastd.demote(settings.resources, force));
  }

  async #run(verb: Verb): Promise<void> {
    const failure = await this.#options.startScript(verb).ended;
    if (failure !== null) this.#options.log.error(`"failover ${verb}" did not succeed: ${failure}`);
  }

  async #resign({ lease }: Leadership): Promise<void> {
    try {
      await this.#options.etcd.revoke(lease);
    } catch (error) {
      this.#sayUnreachable(error);
    }
  }

  /** @returns whether hastd did it, for all resources; what it did not do is logged */
  #complain(
    subject: string,
    answer: Answer<{
      readonly resource: string;
      readonly outcome: { readonly kind: string; readonly error?: number };
      readonly errmsg: string | null;
      readonly notes: readonly string[];
    }>,
  ): boolean {
    const lines =
      answer.kind === "failed"
        ? [answer.lines.join(" ")]
        : answer.entries.flatMap(({ resource, outcome, errmsg, notes }) => {
            if (outcome.kind !== "failed") return [];
            const reason = errmsg?.replaceAll("\n", " ") ?? `error ${outcome.error} from hastd`;
            return [[`${resource}: ${reason}`, ...notes].join(" ")];
          });
    if (lines.length === 0) {
      this.#said.delete(subject);
      return true;
    }
    this.#say(subject, "error", lines.join(" "));
    return false;
  }

  #sayUnreachable(error: unknown): void {
    if (!(error instanceof EtcdError)) throw error;
    this.#say("etcd", "warning", `etcd is of no use at the moment: ${error.message}.`);
  }

  #say(subject: string, level: "notice" | "warning" | "error", text: string): void {
    if (this.#said.get(subject) === text) return;
    this.#said.set(subject, text);
    this.#options.log[level](text);
  }

  /** Less where something has ended meanwhile. */
  #pause(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = this.#options.clock.after(ms, resolve);
    const wake = (): void => {
      timer.cancel();
      resolve();
    };
    this.#pauses.add(wake);
    return promise.finally(() => this.#pauses.delete(wake));
  }

  #wake(): void {
    for (const wake of this.#pauses) wake();
  }
}

/** Why hastd cannot go on with the lease for one of the resources; null where it does. */
function troubleOf(entries: readonly LeaseEntry[], resources: readonly string[]): string | null {
  if (entries.length !== resources.length) return "hastd does not know all of its resources";
  for (const { resource, outcome, errmsg } of entries) {
    if (outcome.kind === "failed") {
      return `${resource}: ${errmsg ?? `error ${outcome.error} from hastd`}`;
    }
    if (outcome.role !== "primary") return `${resource} has become ${outcome.role}`;
  }
  return null;
}

/** A wall time, to the second. */
function forPeople(timeMs: number): string {
  return `${new Date(timeMs).toISOString().slice(0, 19)}Z`;
}

/** Whether another node was asked to take over, would, and may. */
function isToMove({ move, insync }: GroupRecord, { node, resources }: GroupSettings): boolean {
  if (move === null || move.to === node || !move.ready) return false;
  return resources.every((resource) => insync.get(resource)?.nodes.includes(move.to));
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * Two nodes with one resource, as their agents see them: hastd as far as an arbiter has to do with it, the copies
 * as sets of records, and the script that starts what uses them. Judges every acknowledgement:
 *
 *   a record that was acknowledged is in the copy of whoever is promoted later
 *   nobody acknowledges after somebody with a higher term has
 */

import { strict as expect } from "node:assert";
import { Agent } from "../../src/failover/agent.ts";
import { Etcd } from "../../src/failover/etcd.ts";
import type { Answer, Hastd, StartScript } from "../../src/failover/hastd.ts";
import type { Memory, Seen } from "../../src/failover/memory.ts";
import type { GroupSettings } from "../../src/failover/settings.ts";
import type { Clock, Timer } from "../../src/platform/clock.ts";
import type {
  Lease,
  LeaseEntry,
  ResourceStatus,
  Role,
  SetRoleEntry,
  Wish,
} from "../../src/wire/control.ts";
import { FakeLog } from "../daemon/fakes.ts";
import { PretendClock } from "./clock.ts";
import { type Fate, PretendEtcd } from "./etcd.ts";
import { Events } from "./events.ts";

export const BASE: number = 1_000_000_000;
const GROUP = "g";
export const INSYNC: string = `/hast/${GROUP}/insync/r0`;

/** One life of an agent: it may be frozen for a while, or killed. */
class Life {
  frozen = false;
  killed = false;
  #held: (() => void)[] = [];

  through(run: () => void): void {
    if (this.killed) return;
    if (this.frozen) this.#held.push(run);
    else run();
  }

  pass<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve) => {
      void promise.then((value) => this.through(() => resolve(value)));
    });
  }

  thaw(): void {
    this.frozen = false;
    const held = this.#held;
    this.#held = [];
    for (const run of held) this.through(run);
  }
}

export class PretendNode {
  readonly name: string;
  readonly pair: ArbitratedPair;
  readonly log: FakeLog = new FakeLog();
  readonly scripts: string[] = [];
  /** What the script says next. */
  scriptFailure: string | null = null;
  /** What hastd says to "secondary", by force too; null: it obeys. */
  demotionRefusal: string | null = null;
  /** Whether hastd answers. */
  on = true;
  /** hastd itself has stopped, and its workers go on: who asks waits until his patience ends. */
  hastdFrozen = false;
  role: Role = "init";
  readonly records: Set<number> = new Set();
  /** The highest it has heard of; stable. */
  term = 0n;
  copy: "new" | "uptodate" | "inconsistent" = "uptodate";
  deadlineMs = 0;
  wish: Wish | null = null;
  confirmed = 0;
  peerInStep = false;
  /** What becomes of a request of its agent to etcd. */
  fate: (path: string, endpoint: string, body: string) => Fate = () => "served";
  /** Its agent was given that node's configuration. */
  namedLike: PretendNode | null = null;
  life: Life = new Life();
  #boots = 1;
  agent: Agent | null = null;
  ended: Promise<void> = Promise.resolve();
  #seen: Seen | null = null;
  #polls = new Set<() => void>();

  constructor(name: string, pair: ArbitratedPair) {
    this.name = name;
    this.pair = pair;
  }

  get peer(): PretendNode {
    return this.pair.nodes.find((each) => each !== this)!;
  }

  startAgent(): void {
    this.life = new Life();
    const { life } = this;
    const clock: Clock = {
      now: () => this.pair.clock.now(),
      wallTime: () => this.pair.clock.wallTime(),
      after: (delayMs, run): Timer => this.pair.clock.after(delayMs, () => life.through(run)),
    };
    const way = this.pair.etcd.reachedBy((...request) => this.fate(...request));
    const http = {
      post: (...request: Parameters<typeof way.post>) => life.pass(way.post(...request)),
    };
    const settings: GroupSettings = {
      group: GROUP,
      resources: ["r0"],
      node: (this.namedLike ?? this).name,
      peer: (this.namedLike ?? this).peer.name,
      ttlS: 10,
      endpoints: ["http://a:2379", "http://b:2379"],
      files: { authorities: null, own: null },
    };
    const memory: Memory = {
      latest: () => this.#seen,
      saw: ({ base, changed }) => {
        if (base !== null) this.#seen = { base: base.value, changed };
      },
    };
    this.agent = new Agent({
      settings,
      etcd: new Etcd({ http, clock, endpoints: settings.endpoints, timeoutMs: 2_000 }),
      hastd: this.#hastd(life),
      startScript: this.#startScript(life),
      memory,
      clock,
      log: this.log,
      boot: `${this.name}-${this.#boots}`,
    });
    this.ended = this.agent.run();
  }

  killAgent(): void {
    this.life.killed = true;
    this.agent = null;
  }

  /** Everything here dies; what was written is kept. */
  powerOff(): void {
    this.killAgent();
    this.on = false;
    this.#become("init");
  }

  powerOn(): void {
    this.#boots += 1;
    this.on = true;
    this.startAgent();
  }

  /** `hastctl create` on an empty disk. */
  replaceDisk(): void {
    this.copy = "new";
    this.term = 0n;
    this.records.clear();
  }

  /** One attempt of the worker to acknowledge a record. */
  write(record: number): boolean {
    if (!this.on || this.role !== "primary" || !this.#mayAnswer()) return false;
    this.#connect();
    if (this.role !== "primary") return false;
    this.records.add(record);
    if (this.peerInStep) this.peer.records.add(record);
    else if (!this.#answers()) return false;
    this.pair.acknowledged(record, this);
    return true;
  }

  /** Whether it answers clients: what is on record in etcd has to be true then. */
  #answers(): boolean {
    if (!this.on || this.role !== "primary" || !this.#mayAnswer()) return false;
    this.#connect();
    return this.peerInStep || (this.wish !== null && this.confirmed === this.wish.number);
  }

  /** Finds the peer, copies to it, loses it, or learns that it has been replaced. */
  #connect(): void {
    const { peer } = this;
    if (this.pair.linkIsUp && peer.on && peer.term > this.term) {
      this.#become("secondary");
      return;
    }
    if (this.pair.linkIsUp && peer.on && peer.role === "primary") peer.#become("secondary");
    const there = this.pair.linkIsUp && peer.on && peer.role === "secondary";
    if (!there) {
      if (this.wish?.whole !== "local") this.#wants("local");
      this.peerInStep = false;
      return;
    }
    if (this.peerInStep) return;
    peer.term = this.term;
    peer.records.clear();
    for (const record of this.records) peer.records.add(record);
    this.peerInStep = true;
    this.#wants("both");
  }

  #wants(whole: Wish["whole"]): void {
    this.wish = { number: (this.wish?.number ?? 0) + 1, whole };
    this.#news();
  }

  #mayAnswer(): boolean {
    return this.pair.clocksStandStill || this.pair.clock.now() < this.deadlineMs;
  }

  #become(role: Role): void {
    this.role = role;
    this.peerInStep = false;
    this.wish = null;
    this.confirmed = 0;
    if (this.peer.peerInStep) this.peer.peerInStep = false;
    this.#news();
  }

  #news(): void {
    for (const look of this.#polls) look();
  }

  #hastd(life: Life): Hastd {
    const failed = { kind: "failed", lines: ["hastd cannot be reached"] } as const;
    /** Later, as over a socket. @param patienceMs as src/cli/control-client.ts has it */
    const answer = <E>(entry: () => E, patienceMs: number): Promise<Answer<E>> =>
      life.pass(
        new Promise((resolve) =>
          this.pair.clock.after(this.hastdFrozen ? patienceMs : 1, () =>
            resolve(
              this.on && !this.hastdFrozen ? { kind: "answered", entries: [entry()] } : failed,
            ),
          ),
        ),
      );
    const roleEntry = (refusal: string | null, change: () => void): SetRoleEntry => {
      const previousRole = this.role;
      if (refusal === null) change();
      return {
        resource: "r0",
        outcome: refusal === null ? { kind: "done", previousRole } : { kind: "failed", error: 70 },
        errmsg: refusal,
        notes: [],
      };
    };
    return {
      status: () =>
        answer(
          () => ({
            resource: "r0",
            outcome: {
              kind: "known",
              status: {
                role: this.role,
                copy: this.copy,
                ...(this.term === 0n ? {} : { term: this.term }),
                connected: this.role === "secondary" && this.pair.linkIsUp && this.peer.peerInStep,
              } as unknown as ResourceStatus,
            },
            errmsg: null,
            notes: [],
          }),
          20_000,
        ),
      promote: async (_names, lease) => {
        const promoted = await answer(() => this.#promote(lease, roleEntry), 120_000);
        // The device is read before the role works.
        for (let tries = 0; this.role === "primary" && !this.#answers(); tries++) {
          if (tries === 100) this.#become("init");
          await life.pass(new Promise<void>((resolve) => this.pair.clock.after(100, resolve)));
        }
        if (this.role === "primary") return promoted;
        return answer(() => roleEntry("its device could not be made", () => undefined), 120_000);
      },
      demote: async () => {
        const demoted = await answer(
          () => roleEntry(this.demotionRefusal, () => this.#become("secondary")),
          120_000,
        );
        // The polls hear of the first resource while the others are still at it.
        await life.pass(new Promise<void>((resolve) => this.pair.clock.after(50, resolve)));
        return demoted;
      },
      lease: (_names, { term, deadlineMs }, [confirmed], waitMs) => {
        const renewed = answer(() => {
          if (term !== this.term || this.role !== "primary") return;
          this.deadlineMs = Math.max(this.deadlineMs, deadlineMs);
          this.confirmed = Math.max(this.confirmed, confirmed!);
        }, waitMs + 5_000);
        return renewed.then(async (outcome) => {
          if (outcome.kind === "failed") return outcome;
          if (waitMs > 0) await life.pass(this.#newsAfter(confirmed!, waitMs));
          return answer(() => this.#leaseEntry(term), 5_000);
        });
      },
    };
  }

  #promote(
    { term, deadlineMs }: Lease,
    roleEntry: (refusal: string | null, change: () => void) => SetRoleEntry,
  ): SetRoleEntry {
    const refusal =
      term < this.term
        ? `term ${term} is over`
        : this.copy === "inconsistent"
          ? "inconsistent"
          : null;
    return roleEntry(refusal, () => {
      this.#become("primary");
      this.term = term;
      this.deadlineMs = deadlineMs;
      this.pair.promoted(this);
    });
  }

  #newsAfter(confirmed: number, waitMs: number): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        timer.cancel();
        this.#polls.delete(look);
        resolve();
      };
      const look = (): void => {
        if (this.role !== "primary" || (this.wish?.number ?? confirmed) !== confirmed) end();
      };
      const timer = this.pair.clock.after(waitMs, end);
      this.#polls.add(look);
      look();
    });
  }

  #leaseEntry(term: bigint): LeaseEntry {
    const refused = this.role === "primary" && term !== this.term;
    return {
      resource: "r0",
      outcome: refused
        ? { kind: "failed", error: 70 }
        : { kind: "known", role: this.role, wish: this.wish },
      errmsg: null,
    };
  }

  #startScript(life: Life): StartScript {
    return (verb) => {
      this.scripts.push(verb);
      const failure = this.scriptFailure;
      return {
        ended: life.pass(
          new Promise<string | null>((resolve) =>
            this.pair.clock.after(100, () => resolve(verb === "start" ? failure : null)),
          ),
        ),
        kill: () => undefined,
      };
    };
  }
}

export class ArbitratedPair {
  readonly clock: PretendClock = new PretendClock(new Events());
  readonly etcd: PretendEtcd = new PretendEtcd(this.clock);
  readonly nodes: readonly [PretendNode, PretendNode];
  linkIsUp = true;
  /** No deadline ever passes: what is left is what etcd and the terms see to. */
  clocksStandStill = false;
  #record = 0;
  readonly #acknowledged: number[] = [];
  #lastTerm = 0n;

  constructor() {
    this.nodes = [new PretendNode("alpha", this), new PretendNode("beta", this)];
  }

  /** Both in step, alpha leads, both agents run. */
  static async leading(): Promise<ArbitratedPair> {
    const pair = new ArbitratedPair();
    const [alpha, beta] = pair.nodes;
    pair.seed(["alpha", "beta"]);
    alpha.startAgent();
    await pair.until("alpha leads", () => alpha.log.says("This node leads"));
    beta.startAgent();
    await pair.until("beta is secondary", () => beta.role === "secondary");
    await pair.until("alpha serves over both", () => pair.write(alpha) && alpha.peerInStep);
    await pair.until("both are in the set", () => pair.set() === '["alpha","beta"]');
    return pair;
  }

  seed(nodes: readonly string[]): void {
    this.etcd.putTogether([
      [`/hast/${GROUP}/base`, String(BASE)],
      [INSYNC, JSON.stringify(nodes)],
    ]);
  }

  /** Who is in step, says etcd. */
  set(): string | null {
    return this.etcd.value(INSYNC);
  }

  leader(): string | null {
    const value = this.etcd.value(`/hast/${GROUP}/leader`);
    return value === null ? null : (JSON.parse(value) as { node: string }).node;
  }

  /** A new record for this node to acknowledge. */
  write(node: PretendNode): boolean {
    return node.write(++this.#record);
  }

  acknowledged(record: number, by: PretendNode): void {
    expect.ok(by.term >= this.#lastTerm, `two writers: ${by.name} is of term ${by.term}`);
    this.#lastTerm = by.term;
    this.#acknowledged.push(record);
  }

  promoted(node: PretendNode): void {
    const lost = this.#acknowledged.filter((record) => !node.records.has(record));
    expect.deepEqual(lost, [], `${node.name} was promoted without these records`);
  }

  get acknowledgedCount(): number {
    return this.#acknowledged.length;
  }

  async until(what: string, look: () => boolean, withinMs = 120_000): Promise<void> {
    const end = this.clock.now() + withinMs;
    while (!look()) {
      if (this.clock.now() > end) {
        const logs = this.nodes.map(({ name, log }) => `${name}:\n  ${log.lines.join("\n  ")}`);
        throw new Error(`in vain until ${what}\n${logs.join("\n")}`);
      }
      await this.clock.pass(50);
    }
  }
}

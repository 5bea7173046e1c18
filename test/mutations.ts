// SPDX-License-Identifier: BSD-2-Clause
/**
 * Defects on purpose: each of these changes, made to a copy of the source, must make a test fail.
 *
 *   npm run mutate              all of them; minutes, many on a busy machine
 *   npm run mutate -- BD-3 …    those of a defect; "BD-" takes every BD-n, and other words are looked for
 *                               in names
 *
 * `defect` names what comes back: a defect of the original (BD-n: behaviour §19.1), a safety case
 * (S-n), or a rule of docs/architecture.md. `find` occurs exactly once in `file`, so that a change of
 * the source cannot quietly leave a mutation behind; mutations.test.ts sees to that.
 *
 * A mutation that survives calls for a test, not for its removal.
 */

import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { AGENT_MUTATIONS } from "./agent-mutations.ts";
import { ARBITER_MUTATIONS } from "./arbiter-mutations.ts";
import { COPY_MUTATIONS } from "./copy-mutations.ts";
import { ENGINE_MUTATIONS } from "./engine-mutations.ts";

export interface Mutation {
  /** What the broken code does, in a few words. */
  readonly name: string;
  readonly defect: string;
  readonly file: string;
  readonly find: string;
  readonly replace: string;
  readonly suite: Suite;
}

export type Suite =
  | "activemap"
  | "primary"
  | "secondary"
  | "promotion"
  | "discard"
  | "gate"
  | "verdict"
  | "primaryEngine"
  | "secondaryEngine"
  | "component"
  | "disk"
  | "memory"
  | "nbd"
  | "worker"
  | "daemon"
  | "wire"
  | "simulator"
  | "arbiter"
  | "agent"
  | "create";

/** Test files, in the order in which they are tried: close to the subject first, slow ones last. */
export const SUITES: Readonly<Record<Suite, readonly string[]>> = {
  activemap: [
    "src/replication/activemap.test.ts",
    "src/replication/primary.test.ts",
    "test/replication-model.test.ts",
    "test/exhaustive.test.ts",
  ],
  primary: [
    "src/replication/sequence-ring.test.ts",
    "src/replication/sync-window.test.ts",
    "src/replication/primary.test.ts",
    "src/replication/failing-disk.test.ts",
    "src/replication/resync-orders.test.ts",
    "test/golden/replay-primary.test.ts",
    "test/replication-model.test.ts",
    "test/exhaustive.test.ts",
  ],
  secondary: [
    "src/replication/secondary.test.ts",
    "src/replication/failing-disk.test.ts",
    "test/golden/replay-secondary.test.ts",
    "src/engine/secondary-engine.test.ts",
    "test/replication-model.test.ts",
    "test/exhaustive.test.ts",
  ],
  promotion: ["src/replication/promotion.test.ts", "src/engine/primary-engine.test.ts"],
  discard: [
    "src/replication/discard.test.ts",
    "src/engine/discard.test.ts",
    "src/engine/divergence.test.ts",
  ],
  gate: ["src/engine/may-resync.test.ts"],
  verdict: ["src/replication/sync-verdict.test.ts", "src/replication/secondary.test.ts"],
  primaryEngine: ["test/golden/replay-primary.test.ts", "src/engine/primary-engine.test.ts"],
  secondaryEngine: [
    "test/golden/replay-secondary.test.ts",
    "src/engine/secondary-engine.test.ts",
    "src/engine/invalidate.test.ts",
    "src/engine/may-resync.test.ts",
  ],
  component: [
    "src/engine/component.test.ts",
    "src/metadata/block.test.ts",
    "src/metadata/layout.test.ts",
    "src/metadata/copies.test.ts",
  ],
  disk: ["test/system/killed-worker.test.ts"], // as root: FUSE and loop devices
  memory: [
    "src/engine/memory.test.ts",
    "src/engine/outgoing.test.ts",
    "src/engine/secondary-engine.test.ts",
  ],
  nbd: ["src/engine/nbd-server.test.ts"],
  worker: ["src/engine/worker.test.ts"],
  daemon: [
    "src/daemon/handshake.test.ts",
    "src/daemon/handshake-server.test.ts",
    "src/daemon/resource.test.ts",
    "src/daemon/orders.test.ts",
  ],
  wire: ["src/wire/*.test.ts", "test/golden/wire.test.ts"],
  simulator: ["test/simulator.test.ts"],
  arbiter: [
    "src/engine/arbitration.test.ts",
    "src/daemon/lease.test.ts",
    "src/engine/primary-engine.test.ts",
    "test/replication-model.test.ts",
  ],
  agent: ["src/failover/*.test.ts"],
  create: ["src/cli/create.test.ts"],
};

/** The files of a suite that exist below `root`, each pattern's in order. */
export function suiteFiles(suite: Suite, root: string): string[] {
  return SUITES[suite].flatMap((pattern) => globSync(pattern, { cwd: root }).sort());
}

/**
 * Does a word of the command line mean this mutation? The beginning of a defect does, unless it ends
 * within a number (S-4 means S-4a, not S-40), and so does any part of its name.
 */
export function selects(word: string, { name, defect }: Mutation): boolean {
  const begins = (part: string): boolean =>
    part.startsWith(word) && !/\d\d/.test(part.slice(word.length - 1, word.length + 1));
  return name.includes(word) || defect.split(", ").some(begins);
}

/** Finds the defect's numbers in names of tests, or null where the mutation brings back no BD-n or S-n. */
export function namesOf({ defect }: Mutation): RegExp | null {
  const numbers = defect.match(/\b(BD|S)-\d+/g);
  return numbers === null ? null : new RegExp(`\\b(${numbers.join("|")})(?!\\d)`);
}

/** `text` with the mutation made. @throws Error unless its search text occurs exactly once */
export function mutate(mutation: Mutation, text: string): string {
  const parts = text.split(mutation.find);
  if (parts.length !== 2) {
    throw new Error(
      `mutation "${mutation.name}": its search text occurs ${parts.length - 1} times in ` +
        `${mutation.file}, not once; adapt it to the source as it is now (test/mutations.ts)`,
    );
  }
  return parts.join(mutation.replace);
}

/** Like {@link mutate}, of the file below `root`. */
export function mutateFile(mutation: Mutation, root: string): string {
  return mutate(mutation, readFileSync(join(root, mutation.file), "utf8"));
}

const ACTIVEMAP = { file: "src/replication/activemap.ts", suite: "activemap" } as const;
const PRIMARY = { file: "src/replication/primary.ts", suite: "primary" } as const;
const RING = { file: "src/replication/sequence-ring.ts", suite: "primary" } as const;
const WINDOW = { file: "src/replication/sync-window.ts", suite: "primary" } as const;
const SECONDARY = { file: "src/replication/secondary.ts", suite: "secondary" } as const;
const PROMOTION = { file: "src/replication/promotion.ts", suite: "promotion" } as const;
const VERDICT = { file: "src/replication/sync-verdict.ts", suite: "verdict" } as const;
const LINK = { file: "src/engine/peer-link.ts", suite: "primaryEngine" } as const;
const SECONDARY_ENGINE = {
  file: "src/engine/secondary-engine.ts",
  suite: "secondaryEngine",
} as const;
const COMPONENT = { file: "src/engine/component.ts", suite: "component" } as const;
const MEMORY = { file: "src/engine/memory.ts", suite: "memory" } as const;
const LAYOUT = { file: "src/metadata/layout.ts", suite: "component" } as const;
const BLOCK = { file: "src/metadata/block.ts", suite: "component" } as const;
const PAYLOAD = { file: "src/wire/payload.ts", suite: "wire" } as const;

/** Parts of the original's defects that no mutation brings back, and why. */
export const NOT_EXPRESSED: Readonly<Record<string, string>> = {
  "BD-12":
    "the record of the sector size: nothing is recorded yet; only the check against the media is ours",
  "BD-21": "an unsupported flush reported as 22 the second time: we remember no answer of a device",
};

const CORE_MUTATIONS: readonly Mutation[] = [
  // ---- the original's defects, in their order -------------------------------------------------
  {
    name: "a write in flight at a disconnect is not scheduled",
    defect: "BD-1",
    ...PRIMARY,
    find: `    this.map.schedule(this.offset[slot]!, this.length[slot]!);
    if (this.#answered[slot] === ANSWERED) this.#owes = true;`,
    replace: `    if (this.#answered[slot] === ANSWERED) this.#owes = true;`,
  },
  {
    name: "a write refused by the peer is not scheduled",
    defect: "BD-2",
    ...PRIMARY,
    find: `    this.#peerLacks(slot);
    if (this.#answered[slot] === ANSWERED) {`,
    replace: `    if (this.#answered[slot] === ANSWERED) {`,
  },
  {
    name: "an error of the peer counts as done",
    defect: "BD-2",
    ...PRIMARY,
    find: `    this.#remote[slot] = failure === 0 ? OK : FAILED;`,
    replace: `    this.#remote[slot] = OK;`,
  },
  {
    name: "the peer's success masks a local write error",
    defect: "BD-3",
    ...PRIMARY,
    find: `if (remote === OK) this.#answerOverPeer(slot, out);`,
    replace: `if (remote === OK) this.#answer(slot, 0, out);`,
  },
  {
    name: "a range that failed here is not copied over",
    defect: "BD-3",
    ...PRIMARY,
    find: `    if (local === FAILED) this.#peerLacks(slot);`,
    replace: "",
  },
  {
    name: "memsync answers without a look at the local result",
    defect: "BD-4",
    ...PRIMARY,
    find: `    if (local === FAILED) {
      // Not before`,
    replace: `    if (local === FAILED && this.#effectiveMode !== "memsync") {
      // Not before`,
  },
  {
    name: "a partial WRITE is applied when the connection ends",
    defect: "BD-5",
    ...SECONDARY_ENGINE,
    find: `if (this.#pendingBytes < total) return total;`,
    replace: `if (this.#pendingBytes < total && this.#state === "serving") return total;`,
  },
  {
    name: "a partial READ reply is taken for whole",
    defect: "BD-5",
    ...LINK,
    find: `      if (inbox.end - inbox.start < total) {`,
    replace: `      if (inbox.end < header.headerEnd) {`,
  },
  {
    name: "a payload may be shorter than the request",
    defect: "BD-6",
    ...PAYLOAD,
    find: `  if (length !== expectedLength) {`,
    replace: `  if (length > expectedLength) {`,
  },
  {
    name: "a refused WRITE leaves its data in the stream",
    defect: "BD-7",
    ...SECONDARY_ENGINE,
    find: `        if (!this.#valid(header, REQUEST_MAX)) return true;
        return this.#takeWrite(header, bytes);`,
    replace: `        if (!this.#valid(header, REQUEST_MAX)) {
          this.#inbox.start -= header.size;
          return true;
        }
        return this.#takeWrite(header, bytes);`,
  },
  {
    name: "an unknown reply leaves its data in the stream",
    defect: "BD-7",
    ...LINK,
    find: `        else this.#handler.debug(1, text);
      } else {`,
    replace: `        else this.#handler.debug(1, text);
        inbox.start -= header.size;
      } else {`,
  },
  {
    name: "an extent that could not be copied counts as copied",
    defect: "BD-8",
    ...WINDOW,
    find: `this.#map.extentFailed(extent);`,
    replace: `this.#map.extentCopied(extent);`,
  },
  {
    name: "an extent is clean as soon as both have written",
    defect: "BD-9",
    ...ACTIVEMAP,
    find: `      if (this.#writes[extent] === 0 && !this.#inResync(extent)) this.#dirtyCount--;
      this.#settled.add(extent);`,
    replace: `      if (this.#writes[extent] === 0 && !this.#inResync(extent)) {
        this.#dirtyCount--;
        this.#keepWarm(extent);
      }`,
  },
  {
    name: "a copied extent is clean before any flush",
    defect: "BD-9, S-19",
    ...ACTIVEMAP,
    find: `    if (!testBit(this.#scheduled, extent) && this.#writes[extent] === 0) this.#dirtyCount--;
    this.#settled.add(extent);`,
    replace: `    if (!testBit(this.#scheduled, extent) && this.#writes[extent] === 0) {
      this.#dirtyCount--;
      this.#keepWarm(extent);
    } else this.#settled.add(extent);`,
  },
  {
    name: "a flush of our own disk alone cleans",
    defect: "BD-9, S-3",
    ...PRIMARY,
    find: `    if (this.#flushLocal === OK && this.#flushRemote === OK) {
      this.map.flushDone();`,
    replace: `    if (this.#flushLocal === OK) {
      this.map.flushDone();`,
  },
  {
    name: "no flush before the counters are equalised",
    defect: "BD-9",
    ...PRIMARY,
    find: `    this.#maybeEndSync();
  }`,
    replace: `    this.#maybeEndSync();
    if (this.#syncEnding === "flush") {
      this.#syncFlushFresh = true;
      this.#endSync(out);
    }
  }`,
  },
  {
    name: "a flush that began before the last copy ends the pass",
    defect: "BD-9",
    ...PRIMARY,
    find: `    this.#syncFlushFresh = !this.#flushing;`,
    replace: `    this.#syncFlushFresh = true;`,
  },
  {
    name: "unflushed extents are not scheduled at link loss",
    defect: "BD-10, S-3",
    ...PRIMARY,
    find: `    if (this.#scheduleUnflushed()) this.#doubtful = true;
    this.#window.abandon();`,
    replace: `    this.#window.abandon();`,
  },
  {
    name: "what a flush was about to cover is not scheduled at link loss",
    defect: "BD-10, S-3",
    ...ACTIVEMAP,
    find: `for (const set of [this.#settled, this.#flushing]) {`,
    replace: `for (const set of [this.#settled]) {`,
  },
  {
    name: "the map is sized by the media, not by the data",
    defect: "BD-11",
    ...LAYOUT,
    find: `  return header(localoff, mapSize, datasize);`,
    replace: `  const whole = mapSizeOf(media.mediaSize - METADATA_SIZE, extentsize, media.sectorSize);
  return header(localoff, whole, datasize);`,
  },
  {
    name: "a map that larger sectors grow into the data is accepted",
    defect: "BD-12",
    ...LAYOUT,
    find: `  if (METADATA_SIZE + mapSize > localoff) {`,
    replace: `  if (METADATA_SIZE > localoff) {`,
  },
  {
    name: "a stale range is read here",
    defect: "BD-13",
    ...PRIMARY,
    find: `    if (this.#staleHere(slot)) {
      this.#local[slot] = NONE;`,
    replace: `    if (!this.connected && this.#staleHere(slot)) {
      this.#local[slot] = NONE;`,
  },
  {
    name: "a read of a stale range is queued nowhere",
    defect: "BD-13",
    ...PRIMARY,
    find: `      this.#local[slot] = NONE;
      this.#readFromPeer(slot, out);
      return;`,
    replace: `      this.#local[slot] = NONE;
      return;`,
  },
  {
    name: "a read under way when this copy turns out stale is answered",
    defect: "BD-13",
    ...PRIMARY,
    find: `        if (this.#staleHere(slot)) this.#begin(slot, out);
        else this.#finishRead(slot, 0, out);`,
    replace: `        this.#finishRead(slot, 0, out);`,
  },
  {
    name: "clean ranges are read from the peer, too",
    defect: "BD-13",
    ...PRIMARY,
    find: `    if (this.#staleHere(slot)) {
      this.#local[slot] = NONE;`,
    replace: `    if (this.#stale) {
      this.#local[slot] = NONE;`,
  },
  {
    name: "a write before the nodes ever met leaves no mark",
    defect: "BD-14a",
    ...PRIMARY,
    find: `    if (this.#marked) {
      this.#answer(slot, 0, out);`,
    replace: `    if (this.#marked || this.#record.resuid === 0n) {
      this.#answer(slot, 0, out);`,
  },
  {
    name: "an older mark passes for this instance's",
    defect: "BD-14b",
    ...PRIMARY,
    find: `    if (this.#marked) {
      this.#answer(slot, 0, out);`,
    replace: `    if (this.#marked || this.#record.localcnt > this.#peerRemote) {
      this.#answer(slot, 0, out);`,
  },
  {
    name: "a resync from the peer begins without a record that this copy is a mix",
    defect: "BD-15",
    ...PRIMARY,
    find: `      record = { ...record, state: "inconsistent" };`,
    replace: "",
  },
  {
    name: "the peer is not told that it is a resync's target",
    defect: "BD-15, S-13",
    ...PRIMARY,
    find: `    const knows = this.#stale || this.#peerKnows || this.#comparing;`,
    replace: `    const knows = this.#peerErrors >= 0;`,
  },
  {
    name: "an unfinished resync's target is promoted",
    defect: "BD-15",
    ...PROMOTION,
    find: `    if (!wasPrimary || !hasRemote) return`,
    replace: `    if (!hasRemote) return`,
  },
  {
    name: "a copy that the other node has overtaken is promoted",
    defect: "BD-15, S-2",
    ...PROMOTION,
    find: `  if (state === "outdated") return { kind: "refuse", because: state };
`,
    replace: "",
  },
  {
    name: "a stored `uptodate` is believed by another instance",
    defect: "S-2",
    ...PROMOTION,
    find: `  if (trust === "known" && !unused)`,
    replace: `  if ((trust === "known" || state === "uptodate") && !unused)`,
  },
  {
    name: "a copy that its primary has overtaken does not note it",
    defect: "S-2",
    ...SECONDARY,
    find: `  if (!behind || own.state === "inconsistent") return null;`,
    replace: `  if (!behind || own.state !== "outdated") return null;`,
  },
  {
    name: "a copy that a FreeBSD primary is filling counts as whole",
    defect: "S-13, BD-15",
    ...SECONDARY,
    find: `  if (!peer.states) return { ...own, state: "inconsistent", synced: null };
`,
    replace: `  if (!peer.states) return null;
`,
  },
  {
    name: "a component made anew is not given everything",
    defect: "BD-16",
    ...SECONDARY,
    find: `    if (!peer.virgin || gaveWay) return`,
    replace: `    if (gaveWay) return`,
  },
  {
    name: "marks of writes before the first pairing are dropped",
    defect: "BD-16",
    ...SECONDARY_ENGINE,
    find: `    if (judgement.map === "own-unless-empty" && map.every((byte) => byte === 0)) map = null;`,
    replace: `    if (judgement.map === "own-unless-empty") map = null;`,
  },
  {
    name: "all ones are sent, but not stored first",
    defect: "BD-16",
    ...SECONDARY_ENGINE,
    find: `    if (judgement.map === "full") {
      const errno = await this.#storeFullMap();`,
    replace: `    if (this.#paused) {
      const errno = await this.#storeFullMap();`,
  },
  {
    name: "the metadata block is not flushed",
    defect: "BD-17",
    ...COMPONENT,
    find: `        if (errno === 0) this.#flush(RECORD_FLUSH);
        else this.#recordWriteDone(errno);`,
    replace: `        this.#recordWriteDone(errno);`,
  },
  {
    name: "a failed flush of the metadata block is ignored",
    defect: "BD-17",
    ...COMPONENT,
    find: `        this.#recordWriteDone(this.#stableSince(this.#recordFailures, errno));`,
    replace: `        this.#recordWriteDone(0);`,
  },
  {
    name: "a failed metadata write is ignored",
    defect: "BD-17",
    ...PRIMARY,
    find: `      this.#loseDisk("the metadata block", errno, out);
      return;`,
    replace: "",
  },
  {
    name: "a failed map write is ignored",
    defect: "BD-17",
    ...COMPONENT,
    find: `        if (errno === 0) this.#nextMapRun();
        else this.#endMap(errno);`,
    replace: `        this.#nextMapRun();`,
  },
  {
    name: "a failed flush of the map is ignored",
    defect: "BD-17",
    ...COMPONENT,
    find: `        this.#endMap(this.#stableSince(this.#mapFailures, errno));`,
    replace: `        this.#endMap(0);`,
  },
  {
    name: "a damaged metadata block is believed",
    defect: "BD-17",
    ...BLOCK,
    find: `    if (actual !== stored) {`,
    replace: `    if (actual < 0) {`,
  },
  {
    name: "requests go out before the merged map is stored",
    defect: "BD-17",
    ...PRIMARY,
    find: `    if (this.#recordWriting || this.#mapWriting || this.map.mustWrite) return;`,
    replace: `    if (this.#recordWriting) return;`,
  },
  {
    name: "merging a map overwrites the counts of writes in flight",
    defect: "BD-18",
    ...ACTIVEMAP,
    find: `      this.#schedule(extent);
    }
    this.#urgent = this.#changedCount > 0;`,
    replace: `      this.#schedule(extent);
      this.#writes[extent] = 1;
    }
    this.#urgent = this.#changedCount > 0;`,
  },
  {
    name: "a doubly failed write never releases its count",
    defect: "BD-19",
    ...PRIMARY,
    find: `    this.map.writeDone(this.offset[slot]!, this.length[slot]!);
    this.#free(slot, out);`,
    replace: `    if (local === OK || remote === OK) {
      this.map.writeDone(this.offset[slot]!, this.length[slot]!);
    }
    this.#free(slot, out);`,
  },
  {
    name: "a trim is locked against nothing",
    defect: "BD-20",
    ...PRIMARY,
    find: `      if (kind === FLUSH) continue;
      if (kind === READ`,
    replace: `      if (kind === FLUSH || kind === ZERO) continue;
      if (kind === READ`,
  },
  {
    name: "a trim's local error is masked",
    defect: "BD-20",
    ...PRIMARY,
    find: `    if (local === FAILED) {
      // Not before`,
    replace: `    if (local === FAILED && this.kind[slot] !== ZERO) {
      // Not before`,
  },
  {
    name: "a trim that the peer could not do is not copied",
    defect: "BD-20",
    ...PRIMARY,
    find: `    this.#peerLacks(slot);
    if (this.#answered`,
    replace: `    if (this.kind[slot] !== ZERO) this.#peerLacks(slot);
    if (this.#answered`,
  },
  {
    name: "a FLUSH that failed here succeeds if the peer's did",
    defect: "BD-21",
    ...PRIMARY,
    find: `      this.#loseDisk("a cache flush", this.#flushLocalErrno, out);
      this.#rideAgain();
      return;`,
    replace: `      this.#answerRiders(out);
      this.#loseDisk("a cache flush", this.#flushLocalErrno, out);
      return;`,
  },
  {
    name: "a FLUSH that failed at the peer succeeds without a mark",
    defect: "BD-21",
    ...PRIMARY,
    find: `    if (this.#flushCovers()) this.#answer(slot, 0, out);`,
    replace: `    if (this.#flushLocal === OK) this.#answer(slot, 0, out);`,
  },
  {
    name: "what was answered on `received` and then lost leaves no mark",
    defect: "BD-21, S-4d",
    ...PRIMARY,
    find: `    if (this.#answered[slot] === ANSWERED) this.#owes = true;`,
    replace: "",
  },
  {
    name: "numbers begin again with each connection",
    defect: "BD-31",
    ...RING,
    find: `    this.#slot.fill(-1);
`,
    replace: `    this.#slot.fill(-1);
    this.#next = 1;
`,
  },
  {
    name: "requests of a lost connection still wait for their replies",
    defect: "BD-31",
    ...PRIMARY,
    find: `    this.#sequence.forgetAll();
    this.#stateAsked`,
    replace: `    this.#stateAsked`,
  },
  {
    name: "a split-brain is retried like a broken cable",
    defect: "BD-34",
    ...LINK,
    find: `      this.#close(errmsg, RETRY_DIVERGED_MS, false);`,
    replace: `      this.#close(errmsg, this.#backoff(), false);`,
  },

  // ---- a map that can be trusted --------------------------------------------------------------
  {
    name: "the map is not flushed",
    defect: "invariant 1",
    ...COMPONENT,
    find: `    } else if (this.#mapFlush) {`,
    replace: `    } else if (this.#mapFlush && this.#mapRuns.length === 0) {`,
  },
  {
    name: "a bit set in memory counts as stored",
    defect: "invariant 1",
    ...ACTIVEMAP,
    find: `    setBit(this.image, extent);
    this.#touchSector(extent);`,
    replace: `    setBit(this.image, extent);
    setBit(this.#persisted, extent);
    this.#touchSector(extent);`,
  },
  {
    name: "a bit about to be cleared on disk counts as stored",
    defect: "invariant 1",
    ...ACTIVEMAP,
    find: `    clearBit(this.image, extent);
    clearBit(this.#persisted, extent);`,
    replace: `    clearBit(this.image, extent);`,
  },
  {
    name: "a bit cleared during the map write counts as stored",
    defect: "invariant 1",
    ...ACTIVEMAP,
    find: `      this.#persisted[at] = staging[index]! & this.image[at]!;`,
    replace: `      this.#persisted[at] = staging[index]!;`,
  },
  {
    name: "an extent with a write under way is cleaned",
    defect: "invariant 2",
    ...ACTIVEMAP,
    find: `      if (this.#settled.has(extent) || this.#writes[extent] !== 0 || this.#inResync(extent))
        continue;`,
    replace: `      if (this.#settled.has(extent) || this.#inResync(extent)) continue;`,
  },
  {
    name: "an extent that settled during the flush is cleaned",
    defect: "invariant 2",
    ...ACTIVEMAP,
    find: `      if (this.#settled.has(extent) || this.#writes[extent] !== 0 || this.#inResync(extent))
        continue;`,
    replace: `      if (this.#writes[extent] !== 0 || this.#inResync(extent)) continue;`,
  },
  {
    name: "a failed flush cleans",
    defect: "invariant 2",
    ...PRIMARY,
    find: `      this.map.flushFailed();`,
    replace: `      this.map.flushDone();`,
  },
  {
    name: "what a killed worker wrote is believed without a flush",
    defect: "invariant 1",
    ...COMPONENT,
    find: `    const errno = await this.#settled(() => this.#flush(LOAD));`,
    replace: `    const errno = 0;`,
  },

  // ---- answers --------------------------------------------------------------------------------
  {
    name: "a write is answered before the peer has it",
    defect: "fullsync, memsync",
    ...PRIMARY,
    find: `        if (this.#effectiveMode === "async" && this.#mayBeEarly) this.#answer(slot, 0, out);
        return;
      default:`,
    replace: `        if (this.#mayBeEarly) this.#answer(slot, 0, out);
        return;
      default:`,
  },
  {
    name: "a write is answered before our own disk has it",
    defect: "every mode",
    ...PRIMARY,
    find: `    if (local === PENDING || local === NONE) return;`,
    replace: `    if (local === NONE) return;`,
  },
  {
    name: "a slot is free before the peer has answered",
    defect: "slot reuse",
    ...PRIMARY,
    find: `    if (local < OK || remote < OK || this.#answered[slot] !== ANSWERED) return;`,
    replace: `    if (local < OK || this.#answered[slot] !== ANSWERED) return;`,
  },
  {
    name: "a READ's memory is free before its reply has left",
    defect: "slot reuse",
    ...SECONDARY_ENGINE,
    find: `inPlace ? holder : NOBODY`,
    replace: `inPlace ? -2 : NOBODY`,
  },
  {
    name: "a WRITE's memory is free before the disk has it",
    defect: "slot reuse",
    ...SECONDARY_ENGINE,
    find: `    if (holder !== NOBODY) this.#memory.hold(holder);
    const slot = this.#core.submit(`,
    replace: `    if (holder !== NOBODY && kind !== WRITE) this.#memory.hold(holder);
    if (kind === WRITE) holder = NOBODY;
    const slot = this.#core.submit(`,
  },
  {
    name: "an inbox overwrites what requests point to",
    defect: "slot reuse",
    ...MEMORY,
    find: `      const ours = memory.holders(this.#holder) === 1;`,
    replace: `      const ours = memory.holders(this.#holder) >= 1;`,
  },
  {
    name: "nothing is marked before it is answered alone",
    defect: "invariant 3",
    ...PRIMARY,
    find: `    if (this.#marked) {
      this.#answer(slot, 0, out);`,
    replace: `    if (!this.#stale) {
      this.#answer(slot, 0, out);`,
  },
  {
    name: "the mark is made after the answer",
    defect: "invariant 3",
    ...PRIMARY,
    find: `    this.#setAnswered(slot, WANTS_MARK);
    this.#mark(out);
  }`,
    replace: `    this.#mark(out);
    this.#answer(slot, 0, out);
  }`,
  },
  {
    name: "a mark is made while the counters are on the wire",
    defect: "invariant 3",
    ...PRIMARY,
    find: `    if (this.#marked || this.#marking || this.#handshaking) return;`,
    replace: `    if (this.#marked || this.#marking) return;`,
  },
  {
    name: "counters are sent that are not stable yet",
    defect: "invariant 3",
    ...PRIMARY,
    find: `    if (this.#recordWriting) return null;`,
    replace: "",
  },
  {
    name: "alone, a FLUSH of what the peer has not flushed leaves no mark",
    defect: "S-4a",
    ...PRIMARY,
    find: `    return this.#flushedTogether && !this.#stale && dirtyCount === 0 && unflushedCount === 0;`,
    replace: `    return this.#flushedTogether && !this.#stale && dirtyCount * 0 === unflushedCount;`,
  },
  {
    name: "a promoted node believes its peer has flushed",
    defect: "S-4b",
    ...PRIMARY,
    find: `    return this.#flushedTogether && !this.#stale && `,
    replace: `    return !this.#stale && `,
  },
  {
    name: "a FLUSH over an unfinished resync is acknowledged",
    defect: "S-4c",
    ...PRIMARY,
    find: `    return this.#comparing || this.map.resyncCount === 0;
  }`,
    replace: `    return true;
  }`,
  },
  {
    name: "a stale primary's good extents are overwritten by a peer that lost its power",
    defect: "S-3",
    ...PRIMARY,
    find: `    return this.#stale && this.#disk !== "gone" ? "stale" : "whole";`,
    replace: `    return this.#stale && this.#nowMs < 0 ? "stale" : "whole";`,
  },
  {
    name: "async: a stop forgets a predecessor's backlog",
    defect: "S-4e",
    ...PRIMARY,
    find: `      if (this.#wasAsync && !whole && !this.#marked) {`,
    replace: `      if (this.#wasAsync && !whole && this.#peerErrors < 0) {`,
  },
  {
    name: "a stale primary goes on alone",
    defect: "S-6",
    ...PRIMARY,
    find: `    if (this.#stale) {
      // Our own copy is not whole, so it must not go on alone (S-6).`,
    replace: `    if (this.#stale && this.#link === "up") {
      // Our own copy is not whole, so it must not go on alone (S-6).`,
  },
  {
    name: "a stale primary counts its own copy as one of two",
    defect: "S-6",
    ...PRIMARY,
    find: `        if (this.#effectiveMode !== "fullsync" && this.#mayBeEarly) this.#answer(slot, 0, out);`,
    replace: `        if (this.#effectiveMode !== "fullsync") this.#answer(slot, 0, out);`,
  },
  {
    name: "a leg that ended well on a lost connection still counts",
    defect: "S-3",
    ...PRIMARY,
    find: `    if (remote === NONE || remote === FAILED) return;`,
    replace: `    if (remote === NONE || remote === FAILED || remote === OK) return;`,
  },
  {
    name: "unanswered writes are not sent to a peer that is back",
    defect: "invariant 4",
    ...PRIMARY,
    find: `    this.#resend(out);
    if (this.#disk !== "gone") this.#beginPass(out);`,
    replace: `    if (this.#disk !== "gone") this.#beginPass(out);`,
  },

  // ---- flush errors ---------------------------------------------------------------------------
  {
    name: "a local flush error is ignored",
    defect: "invariant 6",
    ...PRIMARY,
    find: `    this.#flushLocal = believable && errno === 0 ? OK : FAILED;`,
    replace: `    this.#flushLocal = OK;`,
  },
  {
    name: "what a peer wrote before it failed a flush counts",
    defect: "S-3, invariant 2",
    ...PRIMARY,
    find: `      if (errno !== 0 && !CANNOT_FLUSH.includes(errno)) this.#distrustPeer(out);
`,
    replace: "",
  },
  {
    name: "copies to a peer that failed a flush are not made again",
    defect: "BD-8, invariant 2",
    ...PRIMARY,
    find: `    this.map.copyAgain(here);
`,
    replace: "",
  },
  {
    name: "what a peer answers after a failed flush counts",
    defect: "S-3",
    ...PRIMARY,
    find: `errno === 0 && this.#distrusted[slot] === 1 ? ERR_IO : errno;`,
    replace: `errno;`,
  },
  {
    name: "a stale primary takes what a failing peer may have lost from there",
    defect: "S-3",
    ...PRIMARY,
    find: `this.map.scheduleWrite(this.offset[slot]!, this.length[slot]!, here);`,
    replace: `this.map.scheduleWrite(this.offset[slot]!, this.length[slot]!, "whole");`,
  },
  {
    name: "a peer that failed a flush with nothing to copy stays inconsistent",
    defect: "S-16",
    ...PRIMARY,
    find: `    if (this.#peerStates) this.#peerOutdated = true;
    else if`,
    replace: `    if (this.#peerStates) return;
    if`,
  },
  {
    name: "a mark for a peer that failed a flush is never taken back",
    defect: "BD-9",
    ...PRIMARY,
    find: `const toTell = this.#peerOutdated || this.#record.alone;`,
    replace: `const toTell = this.#peerOutdated;`,
  },
  {
    name: "until our own flush has ended, what a failing peer has is believed",
    defect: "invariant 5",
    ...PRIMARY,
    find: `    this.#comparing = false;
    this.#scheduleUnflushed();
    this.map.copyAgain(here);`,
    replace: `    this.map.copyAgain(here);`,
  },
  {
    name: "a disk that is given up takes a write alone",
    defect: "S-1",
    ...PRIMARY,
    find: `    if (this.#disk === "leaving") {
      // Our own disk has failed`,
    replace: `    if (this.#disk === "leaving" && this.#leaveStep !== "drain") {
      // Our own disk has failed`,
  },
  {
    name: "a write is issued to a disk that is given up",
    defect: "S-1",
    ...PRIMARY,
    find: `    if (this.#disk === "gone" || this.#disk === "leaving") return;
    if (errno`,
    replace: `    if (this.#disk === "gone") return;
    if (errno`,
  },
  {
    name: "a full copy keeps a read from the peer that has it all",
    defect: "BD-13",
    ...PRIMARY,
    find: `} else if (!this.#comparing && this.#behindThere(slot)) {`,
    replace: `} else if (this.#behindThere(slot)) {`,
  },
  {
    name: "a disk whose flush failed goes on being trusted",
    defect: "invariant 6",
    ...PRIMARY,
    find: `      this.#loseDisk("a cache flush", this.#flushLocalErrno, out);`,
    replace: "",
  },
  {
    name: "a secondary's flush error is ignored",
    defect: "invariant 6",
    ...SECONDARY_ENGINE,
    find: `    if (errno !== 0 && kind !== READ && !this.#core.keeping) this.#failed(slot, errno);`,
    replace: `    if (kind === FLUSH) this.#core.localDone(slot, 0, this);
    else if (errno !== 0 && kind !== READ && !this.#core.keeping) this.#failed(slot, errno);`,
  },
  {
    name: "a primary without disk relies on a peer that counts no further",
    defect: "S-1",
    ...SECONDARY,
    find: `  const ahead = own.localcnt > remotecnt ? own.localcnt : remotecnt + 1n;`,
    replace: `  const ahead = own.localcnt;`,
  },
  {
    name: "a primary without disk works on over a peer that was rolled back to before it kept the record",
    defect: "S-1, S-12",
    ...PRIMARY,
    find: `    } else if (peer.source !== "secondary" || peer.localcnt < lastSeen) {`,
    replace: `    } else if (peer.localcnt < lastSeen) {`,
  },
  {
    name: "a primary without disk works on over a peer that was rolled back",
    defect: "S-1, S-12",
    ...PRIMARY,
    find: `    } else if (peer.source !== "secondary" || peer.localcnt < lastSeen) {
      this.#peerLocal = lastSeen;`,
    replace: `    } else if (peer.source !== "secondary" || peer.localcnt < lastSeen) {`,
  },
  {
    name: "a peer that keeps the record writes before it has marked",
    defect: "S-1",
    ...SECONDARY,
    find: `      if (verdict === "persist-first") {`,
    replace: `      if (verdict === "persist-first" && this.room < 0) {`,
  },
  {
    name: "a peer that keeps the record clears its map at the first request",
    defect: "S-1",
    ...SECONDARY,
    find: `    this.#kept = map;
    this.#mapCleared = true;`,
    replace: `    this.#kept = map;`,
  },
  {
    name: "a failed write is masked before it is on record",
    defect: "S-7",
    ...PRIMARY,
    find: `    } else if (this.#stale && this.#staleOnRecord) {
      this.map.schedule`,
    replace: `    } else if (this.#stale) {
      this.map.schedule`,
  },
  {
    name: "a failed write is masked while the peer lacks an answered one",
    defect: "S-7",
    ...PRIMARY,
    find: `      if (this.#remote[slot] === PENDING || this.#remote[slot] === RECEIVED) return false;`,
    replace: "",
  },
  {
    name: "a primary goes without disk over a peer that lacks something",
    defect: "S-1, S-7",
    ...PRIMARY,
    find: `    return this.map.resyncCount === 0 && !this.#marked && !this.#marking && !this.#owes;`,
    replace: `    return true;`,
  },
  {
    name: "a repair overtakes a write of the same range",
    defect: "invariant 4",
    ...PRIMARY,
    find: `    this.#syncIndex[slot] = REPAIR;
    this.#begin(slot, out);`,
    replace: `    this.#syncIndex[slot] = REPAIR;
    this.#cover(slot, out);`,
  },
  {
    name: "a peer that cannot flush counts as failed",
    defect: "S-15",
    ...PRIMARY,
    find: `    if (this.#flushRemote === FAILED && CANNOT_FLUSH.includes(errno)) {`,
    replace: `    if (this.#flushRemote === FAILED && errno < 0) {`,
  },

  // ---- order ----------------------------------------------------------------------------------
  {
    name: "overlapping writes reach our own disk unordered",
    defect: "invariant 4",
    ...PRIMARY,
    find: `      } else if (this.#state[other] !== ISSUED || this.#local[other] === PENDING) {`,
    replace: `      } else if (this.#state[other] !== ISSUED) {`,
  },
  {
    name: "overlapping requests reach the secondary's disk unordered",
    defect: "invariant 4",
    ...SECONDARY,
    find: `      if (otherStart < end && otherStart + this.length[other]! > start) return true;`,
    replace: `      if (otherStart < end && otherStart + this.length[other]! < start) return true;`,
  },
  {
    name: "a copy does not wait for a write of its range",
    defect: "resync range lock",
    ...PRIMARY,
    find: `(kind !== READ || this.#readsThere(slot)) && this.#conflicts(slot)`,
    replace: `(kind !== READ || this.#readsThere(slot)) && kind !== SYNC && this.#conflicts(slot)`,
  },
  {
    name: "a write does not wait for a copy of its range",
    defect: "resync range lock",
    ...PRIMARY,
    find: `      if (kind === FLUSH) continue;
      if (kind === READ`,
    replace: `      if (kind === FLUSH || kind === SYNC) continue;
      if (kind === READ`,
  },
  {
    name: "a READ at the peer overtakes a write that this disk does not have yet",
    defect: "BD-13",
    ...PRIMARY,
    find: `        if (kind !== SYNC && !behind && !this.#settled(other)) return true;`,
    replace: ``,
  },
  {
    name: "a write overtakes a READ at the peer",
    defect: "BD-13",
    ...PRIMARY,
    find: `        if (this.#disk !== "gone" && there) return true;
`,
    replace: ``,
  },
  {
    name: "a secondary's FLUSH does not wait for earlier writes",
    defect: "wire protocol §8",
    ...SECONDARY,
    find: `        if (otherKind !== READ) return true;`,
    replace: "",
  },

  // ---- the secondary --------------------------------------------------------------------------
  {
    name: "`received` is sent before the payload has been verified",
    defect: "S-5",
    ...SECONDARY_ENGINE,
    find: `    if (at < 0) return false;
    decodePayload(`,
    replace: `    if (at < 0) return false;
    if (header.memsync) {
      header.memsync = false;
      this.#sendReply(header.seqHi, header.seqLo, true, 0, -1, 0, NOBODY);
      this.#outgoing.flush();
    }
    decodePayload(`,
  },
  {
    name: "what was received whole is dropped when the connection ends",
    defect: "S-5",
    ...SECONDARY_ENGINE,
    find: `    this.#a.destroy();
    this.turn();`,
    replace: `    this.#a.destroy();
    this.#finish(exitCode, reason);`,
  },
  {
    name: "whole requests that wait for room are dropped when the connection ends",
    defect: "S-5",
    ...SECONDARY_ENGINE,
    find: `      if (this.#paused || this.#state === "draining") this.#parse();`,
    replace: `      if (this.#state === "draining") this.#nothingWhole = true;
      else if (this.#paused) this.#parse();`,
  },
  {
    name: "a failing secondary tells its primary before its own metadata",
    defect: "S-16",
    ...SECONDARY_ENGINE,
    find: `    if (errno !== 0 && kind !== READ && !this.#core.keeping) this.#failed(slot, errno);`,
    replace: `    if (errno !== 0 && kind === READ && !this.#core.keeping) this.#failed(slot, errno);`,
  },
  {
    name: "a copy that failed a FreeBSD primary's request counts as whole",
    defect: "S-16",
    ...SECONDARY_ENGINE,
    find: `    if (errno !== 0 && kind !== READ && !this.#core.keeping) this.#failed(slot, errno);`,
    replace: `    if (errno !== 0 && kind !== READ && this.#states && !this.#core.keeping) this.#failed(slot, errno);`,
  },
  {
    name: "what the last flush under a FreeBSD primary has lost is not put on record",
    defect: "architecture.md, invariant 6",
    ...SECONDARY_ENGINE,
    find: `    if (errno !== 0) {
      this.#diskFailures.failed("flushing", errno);`,
    replace: `    if (errno < 0) {
      this.#diskFailures.failed("flushing", errno);`,
  },
  {
    name: "a cache whose last flush has failed is vouched for",
    defect: "architecture.md, invariant 6",
    ...SECONDARY,
    find: `      this.#lacks = true;
      this.#kept!.scheduleUnflushed();`,
    replace: `      this.#kept!.scheduleUnflushed();`,
  },
  {
    name: "a flush overtakes the failure of an earlier one, and unmarks what that has lost",
    defect: "S-16",
    ...SECONDARY_ENGINE,
    find: `    else if (kind === FLUSH && this.#failures.length > 0) this.#failures.push({ slot, errno });`,
    replace: `    else if (kind === FLUSH && this.#failures.length < 0) this.#failures.push({ slot, errno });`,
  },
  {
    name: "a WRITE that waits for memory is taken for two, and so for a copy",
    defect: "S-13",
    ...SECONDARY_ENGINE,
    find: `  #mayBeCopy({ seqHi, seqLo }: RequestHeader): void {`,
    replace: `  #mayBeCopy({ seqHi, seqLo }: RequestHeader): void {
    if (isOne(seqHi, seqLo)) this.#numberOnes++;`,
  },
  {
    name: "a copy that a FreeBSD primary fills is new for ever",
    defect: "architecture.md, invariant 7",
    ...SECONDARY,
    find: `state: own.state === "new" ? state : own.state, synced`,
    replace: `synced`,
  },
  {
    name: "a new copy that a FreeBSD primary has known before is new for ever",
    defect: "architecture.md, invariant 7",
    ...SECONDARY,
    find: `(own.synced === null && own.state !== "new")`,
    replace: `own.synced === null`,
  },
  {
    name: "a copy that a FreeBSD primary is about to fill is called whole",
    defect: "architecture.md, invariant 7",
    ...SECONDARY,
    find: `from === "primary" ? "inconsistent" : "uptodate"`,
    replace: `from === "secondary" ? "inconsistent" : "uptodate"`,
  },
  {
    name: "a mix of old and new is overwritten by a disk created anew",
    defect: "architecture.md, invariant 7",
    ...SECONDARY,
    find: `    if (own.state === "new" && neverWhole(own)) return`,
    replace: `    if (neverWhole(own)) return`,
  },
  {
    name: "the target of a resync is whole without the source's counter",
    defect: "S-13",
    ...SECONDARY_ENGINE,
    find: `      const whole = { remotecnt: localcnt, synced, aloneSince: null };`,
    replace: `      const whole = { synced, aloneSince: null };`,
  },
  {
    name: "a state is stored before the copies that it speaks of",
    defect: "S-13",
    ...SECONDARY_ENGINE,
    find: `    if (waiting === null || this.#storingState || this.#core.active > 0) return;`,
    replace: `    if (waiting === null || this.#storingState) return;`,
  },
  {
    name: "a secondary clears its map before the first request",
    defect: "BD-17",
    ...SECONDARY_ENGINE,
    find: `    this.#host.event("connect");
    this.#scheduleTick();`,
    replace: `    this.#host.event("connect");
    this.clearMap();
    this.#component.disk.submit();
    this.#scheduleTick();`,
  },

  // ---- who is newer ---------------------------------------------------------------------------
  {
    name: "a primary's count that ran backwards is accepted",
    defect: "S-12, row 8",
    ...VERDICT,
    find: `  if (primary.local < secondary.remote) return { kind: "impossible" };`,
    replace: "",
  },
  {
    name: "a secondary's count that ran backwards is accepted",
    defect: "S-12, row 7",
    ...VERDICT,
    find: `  if (secondary.local < primary.remote) return { kind: "impossible" };`,
    replace: "",
  },
  {
    name: "a split-brain is decided for the primary",
    defect: "split-brain",
    ...VERDICT,
    find: `  if (primaryAhead && secondaryAhead) return { kind: "split-brain" };`,
    replace: `  if (primaryAhead && secondaryAhead) return { kind: "regular", from: "primary" };`,
  },
  {
    name: "two nodes written before they ever met are no split-brain",
    defect: "S-18",
    ...SECONDARY,
    find: `    if (own.localcnt !== 0n) {`,
    replace: `    if (own.localcnt < 0n) {`,
  },
  {
    name: "the primary trusts `syncsrc`",
    defect: "S-12",
    ...LINK,
    find: `    const doubt = this.#doubt(answer);`,
    replace: `    const doubt = answer.mapsize >= 0 ? null : this.#doubt(answer);`,
  },
  {
    name: "a FreeBSD peer is sent a DELETE for a trim",
    defect: "S-20",
    ...LINK,
    find: `    } else if (core.peerZeroes) {`,
    replace: `    } else if (core.peerZeroes || length > 0) {`,
  },

  // ---- more of the core's own -----------------------------------------------------------------
  {
    name: "a number is given to two requests at once",
    defect: "BD-31",
    ...RING,
    find: `    while (this.#slot[this.#next % PLACES] !== -1) this.#next++;
`,
    replace: "",
  },
  {
    name: "a write without a peer is not scheduled",
    defect: "BD-1",
    ...PRIMARY,
    find: `      this.#remote[slot] = FAILED;
      this.#peerLacks(slot);
      return;`,
    replace: `      this.#remote[slot] = FAILED;
      return;`,
  },
  {
    name: "an extent in the middle of its copy is forgotten at link loss",
    defect: "BD-8",
    ...WINDOW,
    find: `    this.#map.abandonSyncing();
`,
    replace: "",
  },
  {
    name: "an unreadable range is read from a peer that lacks it",
    defect: "invariant 5",
    ...PRIMARY,
    find: `      if (this.#comparing || !this.#behindThere(slot)) this.#readFromPeer(slot, out);`,
    replace: `      if (this.map.extentCount > 0) this.#readFromPeer(slot, out);`,
  },
  {
    name: "what a failed flush of the peer may have lost is not copied",
    defect: "invariant 6",
    ...PRIMARY,
    find: `        const doubtful = this.#scheduleUnflushed();`,
    replace: `        const doubtful = this.#stale;`,
  },
  {
    name: "what a failed flush did not cover is forgotten",
    defect: "invariant 2",
    ...ACTIVEMAP,
    find: `      this.#settled.add(this.#flushing.at(index));
    }
    this.#flushing.clear();`,
    replace: `      this.#keepWarm(this.#flushing.at(index));
    }
    this.#flushing.clear();`,
  },
  {
    name: "a pass ends over what failed while `uptodate` travelled",
    defect: "S-13",
    ...PRIMARY,
    find: `      if (overtaken || this.map.resyncCount > 0) this.#syncEnding = "no";`,
    replace: `      if (overtaken && this.#peerErrors < 0) this.#syncEnding = "no";`,
  },
  {
    name: "an answer alone waits for a mark that nobody makes after a failed handshake",
    defect: "invariant 3, 11",
    ...PRIMARY,
    find: `    if (this.#markWaitCount > 0 || this.owesMark) this.#mark(out);
  }`,
    replace: `  }`,
  },
];

export const MUTATIONS: readonly Mutation[] = [
  ...CORE_MUTATIONS,
  ...ENGINE_MUTATIONS,
  ...ARBITER_MUTATIONS,
  ...AGENT_MUTATIONS,
  ...COPY_MUTATIONS,
];

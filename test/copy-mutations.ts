// SPDX-License-Identifier: BSD-2-Clause
/** The table of mutations.ts goes on: what a copy is worth, who may say so, and who gives way. */

import type { Mutation } from "./mutations.ts";

const PRIMARY = { file: "src/replication/primary.ts", suite: "primary" } as const;
const SECONDARY = { file: "src/replication/secondary.ts", suite: "secondary" } as const;
const PROMOTION = { file: "src/replication/promotion.ts", suite: "promotion" } as const;
const DISCARD = { file: "src/replication/discard.ts", suite: "discard" } as const;
const DISCARDING = { file: "src/engine/discard.ts", suite: "discard" } as const;
const LINK = { file: "src/engine/peer-link.ts", suite: "gate" } as const;
const PRIMARY_ENGINE = { file: "src/engine/primary-engine.ts", suite: "primaryEngine" } as const;
const SECONDARY_ENGINE = {
  file: "src/engine/secondary-engine.ts",
  suite: "secondaryEngine",
} as const;
const COMPONENT = { file: "src/engine/component.ts", suite: "component" } as const;
const RESOURCE = { file: "src/daemon/resource.ts", suite: "daemon" } as const;
const WORKER = { file: "src/engine/worker.ts", suite: "worker" } as const;

export const COPY_MUTATIONS: readonly Mutation[] = [
  // ---- promotion ------------------------------------------------------------------------------
  {
    name: "what was known of one component is believed of another",
    defect: "S-2",
    ...PROMOTION,
    find: `  if (trust === "known" && !unused)`,
    replace: `  if (trust === "known")`,
  },
  {
    name: "who knows its copy does not ask whether the other node is primary",
    defect: "S-11",
    ...PROMOTION,
    find: `  if (trust === "known" && !unused) return { kind: "ask", needs: "no-rival" };`,
    replace: `  if (trust === "known" && !unused) return { kind: "go" };`,
  },
  {
    name: "a copy that has been in step counts as new until it is on record as whole",
    defect: "S-2",
    ...PROMOTION,
    find: `state === "new" && !met ?`,
    replace: `state === "new" ?`,
  },
  {
    name: "who asks does not hear it twice that the other node is primary",
    defect: "S-11",
    ...PRIMARY_ENGINE,
    find: `    if (repeated) this.#host.debug(1, reason);
    else {`,
    replace: `    if (repeated) return;
    else {`,
  },
  {
    name: "a busy node is taken for a dead one",
    defect: "S-11",
    ...PRIMARY_ENGINE,
    find: `    if (this.#question?.patience === "none") this.#extend(this.#question);
`,
    replace: "",
  },
  {
    name: "a primary that knocks is not heard by a worker that asks",
    defect: "S-11",
    ...RESOURCE,
    find: `    worker.meetRival(localHost === peerHost ? null : localHost < peerHost);
`,
    replace: "",
  },
  {
    name: "a rival that knocks is gone when it cannot be reached",
    defect: "S-11",
    ...PRIMARY_ENGINE,
    find: `question.primarySeen = question.knocked;`,
    replace: `question.primarySeen = false;`,
  },
  {
    name: "one that is begun to be accepted serves before it has heard the counters",
    defect: "S-2",
    ...PRIMARY_ENGINE,
    find: `    question.primarySeen = question.knocked = false;
    this.#extend(question);`,
    replace: `    question.primarySeen = question.knocked = false;`,
  },
  {
    name: "two that are promoted together wait for each other equally long",
    defect: "S-11",
    ...PRIMARY_ENGINE,
    find: `this.#deadline(leastMs + share * timeoutMs)`,
    replace: `this.#deadline(leastMs)`,
  },
  {
    name: "an unfinished target goes on without asking",
    defect: "BD-15, S-6",
    ...PROMOTION,
    find: `    return isResumed ? { kind: "go" } : { kind: "ask", needs: "agreement" };`,
    replace: `    return { kind: "go" };`,
  },
  {
    name: "what was alone as primary counts as the only copy there is",
    defect: "S-2, S-1",
    ...PRIMARY_ENGINE,
    find: `      sole: prevrole === "secondary" && metadata.aloneSince !== null,`,
    replace: `      sole: metadata.aloneSince !== null,`,
  },
  {
    name: "the only copy there is becomes primary beside the primary that works over it",
    defect: "S-11, S-1",
    ...PROMOTION,
    find: `  if (sole && state === "uptodate") return { kind: "ask", needs: "no-primary" };`,
    replace: `  if (sole && state === "uptodate") return { kind: "go" };`,
  },
  {
    name: "a node is promoted although nobody has answered",
    defect: "S-2",
    ...PRIMARY_ENGINE,
    find: `    if (reason === null || (needs !== "agreement" && !objection)) {`,
    replace: `    if (reason === null || !objection) {`,
  },
  {
    name: "a new node is promoted although the other one holds data",
    defect: "S-2, S-18",
    ...PRIMARY_ENGINE,
    find: `(reason !== null &&
        ((parts && HOLDS_DATA.test(reason)) ||
          (needs !== "no-rival" && MAY_HOLD_DATA.test(reason))))`,
    replace: `false`,
  },
  {
    name: "the peer's map is merged before the note that the map is not flushed",
    defect: "S-21",
    ...PRIMARY_ENGINE,
    find: `    await this.#noteUnflushed();
    if (this.#ended) return false; // stopped meanwhile`,
    replace: `    if (this.#ended) return false;`,
  },
  {
    name: "a failed disk is said to have been closed in good order",
    defect: "S-21, S-1",
    ...PRIMARY_ENGINE,
    find: `    if (metadata.unflushed !== true || this.#core.diskless) {`,
    replace: `    if (metadata.unflushed !== true) {`,
  },
  {
    name: "hastd is not told that the disk has failed",
    defect: "S-1",
    ...PRIMARY_ENGINE,
    find: `    this.#host.copy({ ...copyWorth(this.#component.metadata), state: "inconsistent" });
`,
    replace: "",
  },
  {
    name: "a successor of a primary without disk asks nobody",
    defect: "S-1",
    ...RESOURCE,
    find: `    return worker.identity.role === "primary" && this.#copy?.state === "inconsistent";`,
    replace: `    return worker.identity.role === "secondary" && this.#copy === null;`,
  },
  {
    name: "what was known before role init still counts",
    defect: "S-2",
    ...RESOURCE,
    find: `    if (role === "init") this.#vouched = false;
`,
    replace: "",
  },
  {
    name: "what was known before a split-brain still counts",
    defect: "S-2",
    ...RESOURCE,
    find: `  return exit.code === EX_TEMPFAIL || (exit`,
    replace: `  return exit.code === EX_TEMPFAIL || exit.code === 78 || (exit`,
  },
  {
    name: "a secondary whose disk failed is promoted on its word",
    defect: "S-2, S-16",
    ...RESOURCE,
    find: `  return exit.code === EX_TEMPFAIL || (exit`,
    replace: `  return exit.code === EX_TEMPFAIL || exit.code === EX_IOERR || (exit`,
  },
  {
    name: "a secondary whose worker was killed is promoted on its word",
    defect: "S-2",
    ...RESOURCE,
    find: `  if (exit.kind !== "code" || !wasReady) return false;`,
    replace: `  if (exit.kind !== "code") return true;
  if (!wasReady) return false;`,
  },
  {
    name: "what a primary that came back has shown is forgotten with the worker that was to judge it",
    defect: "S-2",
    ...RESOURCE,
    find: `  if (exit.kind !== "code" || !wasReady) return false;`,
    replace: `  if (exit.kind !== "code") return false;`,
  },
  {
    name: "a secondary whose disk was busy is promoted on its word",
    defect: "S-2",
    ...WORKER,
    find: `inUse && (role === "primary" || hello === null);`,
    replace: `inUse && role !== null;`,
  },
  {
    name: "a secondary that refuses its primary has been ready before",
    defect: "S-2",
    ...WORKER,
    find: `    if (!engine.report().connected) return;
`,
    replace: "",
  },
  {
    name: "a secondary whose worker somebody has ended is promoted on its word",
    defect: "S-2",
    ...RESOURCE,
    find: `(exit.code === EX_OK && requested);`,
    replace: `exit.code === EX_OK;`,
  },
  {
    name: "an errand's end takes what was known of the copy",
    defect: "architecture.md, invariant 7",
    ...RESOURCE,
    find: `    const usual = errand ? isDone(end) : isUsual(end);`,
    replace: `    const usual = isUsual(end);`,
  },
  {
    name: "a copy whose flush failed in an errand is believed later",
    defect: "S-9",
    ...RESOURCE,
    find: `    const usual = errand ? isDone(end) : isUsual(end);`,
    replace: `    const usual = errand || isUsual(end);`,
  },
  {
    name: "an errand forgets what the last worker left",
    defect: "S-9",
    ...RESOURCE,
    find: `!(errand && usual)) this.#left`,
    replace: `!this.#stopping) this.#left`,
  },
  {
    name: "an errand keeps what the last worker left, although it failed",
    defect: "S-9",
    ...RESOURCE,
    find: `!(errand && usual)) this.#left`,
    replace: `!errand) this.#left`,
  },
  {
    name: "a promotion that began nothing forgets what the last worker left",
    defect: "S-9",
    ...RESOURCE,
    find: `    if (role !== this.#role) this.#setRole(role);`,
    replace: `    this.#setRole(role);`,
  },
  {
    name: "a connection that broke as it was handed over takes what the last worker left",
    defect: "S-9",
    ...WORKER,
    find: `          if (left !== null) this.#host.tell({ kind: "left", left });
`,
    replace: "",
  },
  {
    name: "a copy whose flush failed as a promotion began is believed later",
    defect: "S-9",
    ...RESOURCE,
    find: `    unusable || isDiskFailure(end)`,
    replace: `    isDiskFailure(end)`,
  },
  {
    name: "a primary that hastd had to kill is promoted on its word later",
    defect: "S-9",
    ...RESOURCE,
    find: `(end.killed || (end.requested && !end.hadOpened))`,
    replace: `end.requested && !end.hadOpened`,
  },
  {
    name: "a primary that had to go before it was ready is promoted on its word later",
    defect: "S-9",
    ...RESOURCE,
    find: `(end.killed || (end.requested && !end.hadOpened))`,
    replace: `end.killed`,
  },
  {
    name: "a primary that is told to go while it asks the other node is asked about later",
    defect: "S-9",
    ...RESOURCE,
    find: `(end.killed || (end.requested && !end.hadOpened))`,
    replace: `(end.killed || (end.requested && !end.wasReady))`,
  },
  {
    name: "a primary whose worker hung serves nothing before its peer is back",
    defect: "S-9",
    ...RESOURCE,
    find: `    return known === "resumed" ? "resumed anew" : "unknown";`,
    replace: `    return "unknown";`,
  },
  {
    name: "a primary that ended well, as it was to be killed, counts as killed",
    defect: "S-9",
    file: "src/daemon/worker.ts",
    suite: "daemon",
    find: `this.#killed && exit.kind === "signal",`,
    replace: `this.#killed,`,
  },
  {
    name: "an errand that found the disk busy takes what was known of the copy",
    defect: "S-2",
    ...WORKER,
    find: `inUse && (role === "primary" || hello === null);`,
    replace: `inUse && role === "primary";`,
  },
  {
    name: "a worker that was told to go vouches for its copy",
    defect: "S-2",
    ...RESOURCE,
    find: `    if (worker.wanted) {
      this.#vouched`,
    replace: `    {
      this.#vouched`,
  },
  {
    name: "a copy whose disk failed in a promotion is believed later",
    defect: "S-9",
    ...RESOURCE,
    find: `unusable || isDiskFailure(end)`,
    replace: `unusable`,
  },
  {
    name: "nobody hears that the disk failed as the primary stopped",
    defect: "S-9",
    ...RESOURCE,
    find: `        return loss;
      case "secondary": {`,
    replace: `        return null;
      case "secondary": {`,
  },
  {
    name: "status leads to the other node's copy, whatever that lacks",
    defect: "S-1",
    ...RESOURCE,
    find: `    if (this.#peerLacks !== null) return saveDiskAdvice(this.#peerLacks, this.name);
`,
    replace: "",
  },
  {
    name: "hastd does not hear that the other node lacks something",
    defect: "S-1",
    ...WORKER,
    find: `lacks === null ? {} : { peerLacks: lacks }`,
    replace: `lacks !== null ? {} : {}`,
  },
  {
    name: "a primary whose disk fails leads to the other node's copy, whatever that lacks",
    defect: "S-1",
    ...PRIMARY_ENGINE,
    find: `    if (this.#link === null || !this.#core.peerLacks) return null;`,
    replace: `    if (this.#link !== null || !this.#core.peerLacks) return null;`,
  },
  {
    name: "what was acknowledged alone before a restart is taken for what the peer has",
    defect: "S-1",
    ...PRIMARY,
    find: `    return this.#wentAlone || filling;`,
    replace: `    return filling;`,
  },
  {
    name: "a peer that was not filled to the end is taken for one that has everything",
    defect: "S-1",
    ...PRIMARY,
    find: `    this.#cutShort = this.map.resyncCount > 0 && !this.#comparing;
`,
    replace: "",
  },
  {
    name: "a peer whose map is being merged is taken for one that has everything",
    defect: "S-1",
    ...PRIMARY,
    find: `if (this.#link !== "down") return this.map.resyncCount > 0 && !this.#comparing;`,
    replace: `if (this.#link === "up") return this.map.resyncCount > 0 && !this.#comparing;`,
  },
  {
    name: "a copy is thrown away although the peer does not know yet that it has everything",
    defect: "invariant 7",
    ...PRIMARY,
    find: `return this.#peerWhole && !telling ? null`,
    replace: `return this.#peerWhole ? null`,
  },
  {
    name: "a reload goes on over a disk that failed as the primary stopped",
    defect: "S-9",
    ...RESOURCE,
    find: `(await this.#retireWorker()) ?? this.#lossOf(worker);`,
    replace: `worker === null ? null : await this.#retireWorker();`,
  },
  {
    name: "who was refused for what the other node said is promoted on its word later",
    defect: "S-2",
    ...RESOURCE,
    find: `(refusal !== null && !refusal`,
    replace: `(refusal === "" && !refusal`,
  },
  {
    name: "force does not get past a worker that is refused",
    defect: "architecture.md, invariant 7",
    ...RESOURCE,
    find: `      const insists = forced && this.#worker?.ready !== true;`,
    replace: `      const insists = forced && this.#stopping;`,
  },
  {
    name: "an address in use costs a secondary what it knew of its copy",
    defect: "architecture.md, invariant 7",
    ...RESOURCE,
    find: `typeof failure !== "string" || (stays && this.#worker === null);`,
    replace: `typeof failure !== "string" || (stays && this.#stopping);`,
  },
  {
    name: "a copy that was forced counts as the secondary that it was",
    defect: "S-2",
    ...RESOURCE,
    find: `previousRole === "secondary" && !forced;`,
    replace: `previousRole === "secondary";`,
  },
  {
    name: "a reload takes what a secondary without a primary knew of its copy",
    defect: "architecture.md, invariant 7",
    ...RESOURCE,
    find: `    const asBefore = role === "primary" || unheard;`,
    replace: `    const asBefore = role === "primary" || (unheard && this.#stopping);`,
  },
  {
    name: "a secondary that a reload parts from its primary is promoted on its word",
    defect: "S-2",
    ...RESOURCE,
    find: `    const unheard = this.#worker === null && this.#handshake.attempt === null;`,
    replace: `    const unheard = this.#handshake.attempt !== undefined;`,
  },
  {
    name: "a secondary that a reload parts from a primary about to connect is promoted on its word",
    defect: "S-2",
    ...RESOURCE,
    find: `    const unheard = this.#worker === null && this.#handshake.attempt === null;`,
    replace: `    const unheard = this.#worker === null;`,
  },
  {
    name: "a primary hides behind a mistake in hast.conf",
    defect: "S-11",
    file: "src/daemon/handshake-server.ts",
    suite: "daemon",
    find: `wait: announcedRole === "primary" };`,
    replace: `wait: announcedRole === "secondary" };`,
  },
  {
    name: "a reload makes a secondary forget that it has lost nothing",
    defect: "S-9",
    ...RESOURCE,
    find: `      if (known && this.#worker === null) this.#left = left;
`,
    replace: "",
  },
  {
    name: "after a reload another disk counts as one that has lost nothing",
    defect: "S-9",
    ...RESOURCE,
    find: `role === "secondary" && local === this.#settings.local;`,
    replace: `role === "secondary";`,
  },
  {
    name: "a stale primary reads here before it has the peer's map",
    defect: "S-1, BD-13",
    ...PRIMARY,
    find: `    if (!this.#staleMarked) return true;
`,
    replace: "",
  },
  {
    name: "the only copy's failed flush is told to nobody",
    defect: "BD-21, S-1",
    ...PRIMARY,
    find: `        if (this.#stale && errno !== 0) this.#flushFault = true;
        else if (doubtful) this.#doubtful = true;`,
    replace: `        if (doubtful) this.#doubtful = true;`,
  },
  {
    name: "of two FLUSHes in line one hears of the loss, and the other that all is stable",
    defect: "S-1",
    ...PRIMARY,
    find: `          this.#flushFault = false;
        }
        this.#answer(slot, this.#flushRemoteErrno || ERR_IO, out);`,
    replace: `          this.#answer(slot, this.#flushRemoteErrno || ERR_IO, out);
          this.#flushFault = false;
        } else this.#answer(slot, 0, out);`,
  },
  {
    name: "a loss that only clients who have gone were told counts as told",
    defect: "S-1",
    ...PRIMARY,
    find: `if (this.#flushFault && out.hears(slot)) {`,
    replace: `if (this.#flushFault) {`,
  },
  {
    name: "a loss looks like any FLUSH that fails, to be tried again",
    defect: "S-1",
    ...PRIMARY,
    find: `          out.lossTold();
`,
    replace: "",
  },
  {
    name: "a peer with another cache has lost nothing",
    defect: "S-1, S-3",
    ...PRIMARY,
    find: `(peer.cache === null || peer.cache !== this.#peerCache)`,
    replace: `peer.cache === null`,
  },
  {
    name: "what a peer had not flushed two connections ago is forgotten",
    defect: "S-1, S-3",
    ...PRIMARY,
    find: `    this.#peerCache = peer.cache;`,
    replace: `    this.#peerCache = peer.cache;
    this.#doubtful = false;`,
  },
  {
    name: "what a predecessor left in the peer's cache only is taken for stable",
    defect: "S-1",
    ...PRIMARY,
    find: `    if (this.#stale && !this.#met) this.#doubtful = true;
`,
    replace: "",
  },
  {
    name: "a copy that is not whole doubts each new connection",
    defect: "S-1",
    ...PRIMARY,
    find: `    this.#met = true;
`,
    replace: "",
  },
  {
    name: "what is in doubt is not flushed while nobody asks",
    defect: "S-1",
    ...PRIMARY,
    find: `(this.map.unflushedCount > 0 || this.#doubtful)`,
    replace: `this.map.unflushedCount > 0`,
  },
  {
    name: "the peer hears that it is to be synchronized after other requests",
    defect: "BD-15",
    ...PRIMARY,
    find: `    if (this.#peerStates && !this.#stale && this.map.resyncCount > 0) {
      this.#sendState("inconsistent", out);
    }
`,
    replace: "",
  },
  {
    name: "a FLUSH covers copies that ended while it was under way",
    defect: "S-4",
    ...PRIMARY,
    find: `return this.#flushBeganWhole && this.#peerLacksNothing;`,
    replace: `return this.#peerLacksNothing;`,
  },
  {
    name: "a failed write counts where the peer awaits a copy from here",
    defect: "S-7",
    ...PRIMARY,
    find: `    if (!this.#peerStates || goodHere) {`,
    replace: `    if (!this.#peerStates || (goodHere && this.#nowMs < 0)) {`,
  },
  {
    name: "async: a failed disk takes what was acknowledged along without a mark",
    defect: "S-4",
    ...PRIMARY,
    find: `    if (what !== "the metadata block" && this.owesMark) this.#mark(out);
`,
    replace: "",
  },
  {
    name: "marks of the only copy are not flushed",
    defect: "S-1, S-21",
    ...SECONDARY_ENGINE,
    find: `    this.#component.writeMap(this.#kept!, true);`,
    replace: `    this.#component.writeMap(this.#kept!, this.#settings.metaflush);`,
  },

  // ---- one copy gives way ---------------------------------------------------------------------
  {
    name: "a copy that gives way keeps its own count",
    defect: "S-10",
    ...DISCARD,
    find: `      localcnt: keeper.remotecnt,`,
    replace: `      localcnt: own.localcnt,`,
  },
  {
    name: "a copy that gives way may be promoted",
    defect: "S-10, S-2",
    ...DISCARD,
    find: `  const state = own.state === "inconsistent" ? own.state : "outdated";`,
    replace: `  const { state } = own;`,
  },
  {
    name: "a map that was never whole is believed",
    defect: "S-10",
    ...DISCARD,
    find: `  if (own.synced === null) {`,
    replace: `  if (own.synced === null && own.resuid === 0n) {`,
  },
  {
    name: "the other node's map that was never whole is believed",
    defect: "S-10",
    ...DISCARD,
    find: `  if (keeper.synced === null) {`,
    replace: `  if (keeper.synced === null && keeper.resuid === 0n) {`,
  },
  {
    name: "the maps are believed after a count ran backwards",
    defect: "S-10, S-12",
    ...DISCARD,
    find: `  if (impossible)
`,
    replace: `  if (impossible && own.localcnt < 0n)
`,
  },
  {
    name: "two maps of nodes that never met are believed",
    defect: "S-10, S-18",
    ...DISCARD,
    find: `  if (!sameId) {`,
    replace: `  if (!sameId && own.localcnt < 0n) {`,
  },
  {
    name: "another node's count is kept",
    defect: "S-10",
    ...DISCARD,
    find: `      remotecnt: own.remotecnt <= keeper.localcnt ? own.remotecnt : 0n,`,
    replace: `      remotecnt: own.remotecnt,`,
  },
  {
    name: "a copy that gives way waits for an id that nobody may ever have again",
    defect: "S-10",
    ...DISCARD,
    find: `{ ...UNPAIRED, state }`,
    replace: `{ ...UNPAIRED, resuid: keeper.resuid, localcnt: keeper.remotecnt, state }`,
  },
  {
    name: "a copy that was thrown away is taken for equal to one that nobody has written",
    defect: "S-10, BD-16",
    file: "src/replication/secondary.ts",
    suite: "discard",
    find: `    if (!peer.virgin || gaveWay) return`,
    replace: `    if (!peer.virgin) return`,
  },
  {
    name: "everything is to be copied, and the map does not say so",
    defect: "S-10",
    ...DISCARDING,
    find: `  if (plan.fullBecause !== null) await component.markAll();
`,
    replace: "",
  },
  {
    name: "the map says that everything is to be copied only after the counter does",
    defect: "S-10",
    ...DISCARDING,
    find: `  if (plan.fullBecause !== null) await component.markAll();
  await component.storeRecord({ ...plan.record, aloneSince: null });
`,
    replace: `  await component.storeRecord({ ...plan.record, aloneSince: null });
  if (plan.fullBecause !== null) await component.markAll();
`,
  },
  {
    name: "a dry run discards",
    defect: "S-10",
    ...DISCARDING,
    find: `  if (plan.kind !== "discard" || dryRun) return result;`,
    replace: `  if (plan.kind !== "discard") return result;`,
  },
  {
    name: "the only good copy is thrown away",
    defect: "S-10",
    ...DISCARD,
    find: `  if (keeper.lacking !== null && good) return`,
    replace: `  if (keeper.lacking !== null && !good) return`,
  },
  {
    name: "what a node says against its own copy is not told",
    defect: "S-10",
    file: "src/engine/divergence.ts",
    suite: "discard",
    find: `remarks: { dirtyExtents, synced, aloneSince, lacking } };`,
    replace: `remarks: { dirtyExtents, synced, aloneSince, lacking: null } };`,
  },
  {
    name: "a primary's changes are thrown away under its users",
    defect: "S-10",
    ...RESOURCE,
    find: `    if (this.#role === "primary") {
      return failed(
        "this node is primary, so its changes`,
    replace: `    if (this.#role === "primary" && this.#stopping) {
      return failed(
        "this node is primary, so its changes`,
  },
  {
    name: "changes are thrown away while the worker still applies requests",
    defect: "S-10, S-8",
    ...RESOURCE,
    find: `      if (stuck !== null) return failed(stuck);
      return await run`,
    replace: `      if (stuck === "") return failed(stuck);
      return await run`,
  },
  {
    name: "a FreeBSD primary's forgetting is not noted",
    defect: "S-10",
    ...SECONDARY,
    find: `(own.synced === null && own.state !== "new")`,
    replace: `own.state !== "new"`,
  },
  {
    name: "a FreeBSD primary's new copy counts as never out of step",
    defect: "S-10",
    ...SECONDARY,
    find: `    const record = peer.states ? { ...met, synced: "written" as const } : untold(met, "primary");`,
    replace: `    const record = { ...(peer.states ? met : untold(met, "primary")), synced: "written" as const };`,
  },

  // ---- a full copy, asked for -----------------------------------------------------------------
  {
    name: "a full copy is on record before the map is",
    defect: "BD-16",
    ...PRIMARY,
    find: `    if (!this.#fillWanted || this.#mapWriting || this.map.mustWrite) return;`,
    replace: `    if (!this.#fillWanted) return;`,
  },
  {
    name: "a full copy is done when it begins",
    defect: "BD-16",
    ...PRIMARY,
    find: `    this.#setRecord({ ...this.#record, synced: "filling" }, out);`,
    replace: `    this.#setRecord({ ...this.#record, synced: "all" }, out);`,
  },
  {
    name: "a first pairing of written nodes counts as a full copy",
    defect: "BD-16",
    ...PRIMARY,
    find: `    return own === "all" && this.#peerSynced === "all" ? "all" : "written";`,
    replace: `    return own === "all" || this.#peerSynced === "all" ? "all" : "written";`,
  },
  {
    name: "a full copy begun over a difference counts as none",
    defect: "BD-16, S-4c",
    ...PRIMARY,
    find: `    this.#comparing = this.#link === "up" && this.map.resyncCount === 0;`,
    replace: `    this.#comparing = this.#link === "up";`,
  },
  {
    name: "a full copy hides what the peer refuses meanwhile",
    defect: "BD-16, BD-2",
    ...PRIMARY,
    find: `  #peerLacks(slot: number): void {
    this.#comparing = false;`,
    replace: `  #peerLacks(slot: number): void {`,
  },
  {
    name: "a full copy hides what a link loss leaves behind",
    defect: "BD-16, S-3",
    ...PRIMARY,
    find: `    this.#comparing = false;
    if (this.#scheduleUnflushed()) this.#doubtful = true;`,
    replace: `    if (this.#scheduleUnflushed()) this.#doubtful = true;`,
  },
  {
    name: "a full copy hides a chunk that is half copied",
    defect: "BD-16, BD-8",
    ...PRIMARY,
    find: `    } else {
      this.#comparing = false;
    }
    this.#free(slot, out);`,
    replace: `    }
    this.#free(slot, out);`,
  },
  {
    name: "a full copy hides what a failed flush of the peer lost",
    defect: "BD-16, invariant 6",
    ...PRIMARY,
    find: `    this.#comparing = false;
    this.#scheduleUnflushed();`,
    replace: `    this.#scheduleUnflushed();`,
  },
  {
    name: "a stale copy is copied to the peer",
    defect: "BD-16, BD-15",
    ...PRIMARY,
    find: `    if (this.#stale || this.#disk !== "good") return false;
    if (this.#record.synced`,
    replace: `    if (this.#disk !== "good") return false;
    if (this.#record.synced`,
  },

  // ---- under a FreeBSD primary ----------------------------------------------------------------
  {
    name: "after a power cut the primary's older blocks win",
    defect: "S-9",
    ...SECONDARY,
    find: `peer.keptHere && equal(own, peer) ? "secondary" : verdict.from`,
    replace: `verdict.from`,
  },
  {
    name: "a first copy from a FreeBSD primary is whole from its beginning",
    defect: "BD-15",
    ...SECONDARY,
    find: `  const state = "inconsistent" as const;`,
    replace: `  const state = peer.states ? ("inconsistent" as const) : own.state;`,
  },
  {
    name: "what failed here is not marked",
    defect: "S-16",
    ...SECONDARY,
    find: `      if (errno !== 0 && this.#keepsLacking) kept`,
    replace: `      if (errno < 0 && this.#keepsLacking) kept`,
  },
  {
    name: "what a failed flush here lost is not marked",
    defect: "S-16",
    ...SECONDARY,
    find: `    if (errno !== 0) this.#unflushable(kept);
`,
    replace: "",
  },
  {
    name: "a write under way during a failed flush here is not marked",
    defect: "S-16",
    ...SECONDARY,
    find: `      kept.schedule(this.offset[slot]!, this.length[slot]!);
    }
  }`,
    replace: `    }
  }`,
  },
  {
    name: "a flush here unmarks what came after it began",
    defect: "S-16",
    ...SECONDARY,
    find: `    if (this.#epochFlush !== slot) return;
    this.#epochFlush = -1;
    kept.flushDone();`,
    replace: `    this.#epochFlush = -1;
    kept.flushDone();
    kept.flushStart();
    kept.flushDone();`,
  },
  {
    name: "a copy of which a part failed is inferred to be whole",
    defect: "S-13, S-16",
    ...SECONDARY_ENGINE,
    find: `    } else if (this.#core.lacks ||`,
    replace: `    } else if (`,
  },
  {
    name: "a copy is inferred to be whole before it is flushed",
    defect: "S-13, S-19",
    ...SECONDARY_ENGINE,
    find: `    this.#component.flush();
  }`,
    replace: `    this.flushed(0);
  }`,
  },
  {
    name: "a copy whose flush failed is inferred to be whole",
    defect: "S-13, S-19",
    ...SECONDARY_ENGINE,
    find: `    if (errno !== 0) {
      void this.#giveUp(\`flushing`,
    replace: `    if (errno < 0) {
      void this.#giveUp(\`flushing`,
  },
  {
    name: "a copy promoted by force is not told when it is in step",
    defect: "S-2",
    ...SECONDARY_ENGINE,
    find: `state === "inconsistent" || forced !== undefined;`,
    replace: `state === "inconsistent";`,
  },
  {
    name: "a copy is called whole again while the primary is filled from it",
    defect: "S-13",
    ...SECONDARY_ENGINE,
    find: `    const settles = marred(metadata) && this.#source === "primary";`,
    replace: `    const settles = marred(metadata);`,
  },
  {
    name: "a copy is inferred to be whole while it goes on",
    defect: "S-13",
    ...SECONDARY_ENGINE,
    find: `    if (isOne(seqHi, seqLo) || this.#numberOnes < 2) this.#copyAt`,
    replace: `    if (this.#numberOnes < 2) this.#copyAt`,
  },
  {
    name: "a copy is inferred to be whole while its last piece is written",
    defect: "S-13",
    ...SECONDARY_ENGINE,
    find: `    if (this.#numberOnes < 2 ? this.#core.active > 0 : this.#core.executes(0, 1)) return;
`,
    replace: "",
  },

  // ---- what may be overwritten, and what may be read ------------------------------------------
  {
    name: "a primary is overwritten without a question",
    defect: "gate",
    ...LINK,
    find: `    else if (target && core.record.state !== "inconsistent") this.#askLeave(answer, map);`,
    replace: `    else if (target && map === null) this.#askLeave(answer, map);`,
  },
  {
    name: "leave that was asked for one connection opens another",
    defect: "gate",
    ...LINK,
    find: `      if (attempt !== this.#attempt) return;
      this.#leave = null;`,
    replace: `      this.#leave = null;`,
  },
  {
    name: "a secondary is overwritten although the gate said no",
    defect: "gate",
    ...SECONDARY_ENGINE,
    suite: "gate",
    find: `      if (refusal !== null) {
        this.#refuseResync(refusal);
        return;
      }`,
    replace: `      if (refusal === "") return;`,
  },
  {
    name: "a secondary whose map alone tells of changes is overwritten without a question",
    defect: "gate",
    ...SECONDARY_ENGINE,
    suite: "gate",
    find: `    return map.some((byte) => byte !== 0);`,
    replace: `    return map.length === 0;`,
  },
  {
    name: "a cache that a failed flush has left behind is believed",
    defect: "invariant 6",
    ...COMPONENT,
    find: `    const errno = this.disk.forgetCached();`,
    replace: `    const errno = 0;`,
  },
];

// SPDX-License-Identifier: BSD-2-Clause
/** The table of mutations.ts goes on: the engine, the metadata, and what else is not the core's. */

import type { Mutation } from "./mutations.ts";

const COMPONENT = { file: "src/engine/component.ts", suite: "component" } as const;
const MEMORY = { file: "src/engine/memory.ts", suite: "memory" } as const;
const OUTGOING = { file: "src/engine/outgoing.ts", suite: "memory" } as const;
const ATTACHMENT = { file: "src/attach/attachment.ts", suite: "daemon" } as const;
const NBD = { file: "src/engine/nbd-server.ts", suite: "nbd" } as const;
const LINK = { file: "src/engine/peer-link.ts", suite: "primaryEngine" } as const;
const PRIMARY_ENGINE = { file: "src/engine/primary-engine.ts", suite: "primaryEngine" } as const;
const SECONDARY_ENGINE = {
  file: "src/engine/secondary-engine.ts",
  suite: "secondaryEngine",
} as const;
const HANDSHAKE = { file: "src/daemon/handshake.ts", suite: "daemon" } as const;
const RESOURCE = { file: "src/daemon/resource.ts", suite: "daemon" } as const;
const BLOCK = { file: "src/metadata/block.ts", suite: "component" } as const;
const DISK = { file: "src/platform/node/disk.ts", suite: "disk" } as const;
const COPIES = { file: "src/metadata/copies.ts", suite: "component" } as const;
const SIMULATED = { suite: "simulator" } as const;
const LAYOUT = { file: "src/metadata/layout.ts", suite: "component" } as const;

export const ENGINE_MUTATIONS: readonly Mutation[] = [
  // ---- one disk -------------------------------------------------------------------------------
  {
    name: "a worker is over before its disk is",
    defect: "S-8",
    ...COMPONENT,
    find: `    this.disk.close(done);`,
    replace: `    this.disk.close(() => {});
    done();`,
  },
  {
    name: "a closing worker's last write is acted upon",
    defect: "S-8",
    ...COMPONENT,
    find: `    if (this.#closing) return;
    const flushed`,
    replace: `    const flushed`,
  },
  {
    name: "the lock is not on the description that does the I/O",
    defect: "S-8",
    ...DISK,
    find: `      path,
      fd,
      kind,`,
    replace: `      path,
      fd: openFd(path, false),
      kind,`,
  },
  {
    name: "a failed flush at the start is ignored",
    defect: "invariant 6",
    ...COMPONENT,
    find: `    if (errno !== 0) {
      throw new Error(\`flushing`,
    replace: `    if (errno < 0) {
      throw new Error(\`flushing`,
  },
  {
    name: "what a failed flush of a secondary's copy has lost is not put on record",
    defect: "S-16",
    ...COMPONENT,
    find: `      await this.storeRecord({ state: "inconsistent" });
`,
    replace: "",
  },
  {
    name: "a primary is called inconsistent, since its flush failed as it began",
    defect: "S-16",
    ...COMPONENT,
    find: `known || metadata.prevrole !== "secondary" || metadata`,
    replace: `known || metadata`,
  },
  {
    name: "the only copy is to be made like another one",
    defect: "S-16, S-1",
    ...COMPONENT,
    find: ` || metadata.aloneSince !== null) {`,
    replace: `) {`,
  },
  {
    name: "a map write that failed counts as stored",
    defect: "BD-17",
    ...COMPONENT,
    find: `    if (errno === 0) {
      for (const { offset, at, length }`,
    replace: `    if (errno >= 0) {
      for (const { offset, at, length }`,
  },
  {
    name: "zeroes land in front of the data",
    defect: "BD-11",
    ...COMPONENT,
    find: `this.disk.zero(slot, this.layout.localoff + offset, length, punch);`,
    replace: `this.disk.zero(slot, offset, length, punch);`,
  },
  {
    name: "the map lies where the metadata is",
    defect: "BD-11",
    ...COMPONENT,
    find: `      this.disk.write(MAP_WRITE, at, length, this.layout.mapOffset + offset);`,
    replace: `      this.disk.write(MAP_WRITE, at, length, offset);`,
  },
  {
    name: "a metadata block has the number of the one before",
    defect: "BD-17",
    ...COMPONENT,
    find: `      sequence: (this.metadata.sequence ?? 0n) + 1n,`,
    replace: `      sequence: this.metadata.sequence ?? 0n,`,
  },
  {
    name: "an unclean stop without metaflush is forgotten",
    defect: "S-21",
    ...COMPONENT,
    find: `    if (found.metadata.unflushed === true) {`,
    replace: `    if (found.metadata.unflushed === true && found.rewrite) {`,
  },
  {
    name: "after an unclean stop without metaflush the map is believed",
    defect: "S-21",
    ...COMPONENT,
    find: `      await this.markAll();
`,
    replace: "",
  },
  {
    name: "a damaged copy stays damaged",
    defect: "BD-17",
    ...COMPONENT,
    find: `    if (found.rewrite) await this.#store(found.metadata);
`,
    replace: "",
  },

  // ---- what metadata says ---------------------------------------------------------------------
  {
    name: "a block of ours without checksum is believed",
    defect: "BD-17",
    ...BLOCK,
    find: `  if (state !== null && list.u32("crc") === null) throw missing("crc");
`,
    replace: "",
  },
  {
    name: "another resource's metadata is taken for ours",
    defect: "invariant 9",
    ...BLOCK,
    find: `  if (resource !== null && owner !== resource) {`,
    replace: `  if (resource !== null && owner === "") {`,
  },
  {
    name: "a size that a number cannot hold is rounded",
    defect: "invariant 9",
    ...BLOCK,
    find: `  if (value > Number.MAX_SAFE_INTEGER) {`,
    replace: `  if (value < 0n) {`,
  },
  {
    name: "a disk that has shrunk is accepted",
    defect: "invariant 9",
    ...LAYOUT,
    find: `  if (localoff + datasize > media.mediaSize) {`,
    replace: `  if (localoff > media.mediaSize) {`,
  },
  {
    name: "data may begin within a sector",
    defect: "BD-12",
    ...LAYOUT,
    find: `  if (localoff % media.sectorSize !== 0) {`,
    replace: `  if (localoff % 512 !== 0) {`,
  },
  {
    name: "of two metadata blocks the last one is believed",
    defect: "invariant 9",
    ...LAYOUT,
    find: `    if (claims(blocks.first, resource)) {`,
    replace: `    if (claims(blocks.first, resource) && last === 0) {`,
  },
  {
    name: "an adopted component's map overlaps its data",
    defect: "BD-11",
    ...LAYOUT,
    find: `  if (media.datasize > mapOffset) {`,
    replace: `  if (media.datasize > metadataOffset) {`,
  },
  {
    name: "keepdirty 1 is accepted",
    defect: "BD-43",
    ...LAYOUT,
    find: `keepdirty < 2 || keepdirty`,
    replace: `keepdirty < 1 || keepdirty`,
  },
  {
    name: "there is one copy of the metadata",
    defect: "BD-17",
    ...COPIES,
    find: `    return [
      { offset: copy, bytes: list },
      { offset: block, bytes: list },
    ];`,
    replace: `    return [{ offset: block, bytes: list }];`,
  },
  {
    name: "a damaged block is final although its copy is whole",
    defect: "BD-17",
    ...COPIES,
    find: `    if (copy === null) throw error;`,
    replace: `    if (copy === null || media.mediaSize > 0) throw error;`,
  },
  {
    name: "a copy from before FreeBSD had the disk wins",
    defect: "S-14",
    ...COPIES,
    find: `  if (ahead === 1n) {`,
    replace: `  if (ahead >= 1n) {`,
  },
  {
    name: "data that looks like a copy is taken for one",
    defect: "BD-17",
    ...COPIES,
    find: `    return copyOffset(layout, extentsOf(metadata)) === at ? { metadata, layout } : null;`,
    replace: `    return copyOffset(layout, extentsOf(metadata)) <= at ? { metadata, layout } : null;`,
  },

  // ---- a primary and its peer -----------------------------------------------------------------
  {
    name: "a disk's errors do not reach the core",
    defect: "BD-3",
    ...PRIMARY_ENGINE,
    find: `    this.#core.localDone(slot, errno, this);`,
    replace: `    this.#core.localDone(slot, 0, this);`,
  },
  {
    name: "the peer's map is not merged",
    defect: "invariant 1",
    ...PRIMARY_ENGINE,
    find: `    this.#core.linkUp(peer, this);`,
    replace: `    this.#core.linkUp({ ...peer, map: null }, this);`,
  },
  {
    name: "our own map is not read",
    defect: "invariant 1",
    ...PRIMARY_ENGINE,
    find: `    map.load(onDisk);`,
    replace: `    map.load(new Uint8Array(onDisk.length));`,
  },
  {
    name: "a primary whose disk has failed goes on",
    defect: "invariant 6",
    ...PRIMARY_ENGINE,
    find: `    this.#end(74, \`local component failed (\${errnoText(errno)})\`, lacks);
`,
    replace: "",
  },
  {
    name: "a copy's memory is never given back",
    defect: "slot reuse",
    ...PRIMARY_ENGINE,
    find: `      this.#memory.returnCopy(this.#core.memory[slot]!);`,
    replace: `      this.#events++;`,
  },
  {
    name: "two copies share one piece of memory",
    defect: "slot reuse",
    ...MEMORY,
    find: `    return COPIES_START + this.#freeCopies[--this.#freeCopyCount]! * IO_MAX;`,
    replace: `    return COPIES_START + this.#freeCopies[--this.#freeCopyCount & ~1]! * IO_MAX;`,
  },
  {
    name: "a FreeBSD peer is left out of a long trim",
    defect: "S-20",
    ...PRIMARY_ENGINE,
    suite: "nbd",
    find: `    return this.#core.connected && !this.#core.peerZeroes ? IO_MAX : ZERO_MAX;`,
    replace: `    return ZERO_MAX;`,
  },
  {
    name: "holes are reported while part of the data is at the peer only",
    defect: "BD-13",
    ...PRIMARY_ENGINE,
    suite: "nbd",
    find: `    if (this.#core.stale) {
      each(length, false);`,
    replace: `    if (this.#core.stale && length === 0) {
      each(length, false);`,
  },
  {
    name: "a first meeting is not announced as one",
    defect: "BD-16",
    ...LINK,
    find: `      this.#virgin = true;
`,
    replace: "",
  },
  {
    name: "what makes the peer anew is to be typed here",
    defect: "invariant 10",
    ...LINK,
    find: `there: \${anew(dataSize, extentSize)}`,
    replace: `there: \${anew(answer.datasize, answer.extentsize)}`,
  },
  {
    name: "components of different size replicate",
    defect: "invariant 10",
    ...LINK,
    find: `    if (answer.datasize !== dataSize || answer.extentsize !== extentSize) {`,
    replace: `    if (answer.extentsize !== extentSize) {`,
  },
  {
    name: "a map that is too short is merged",
    defect: "BD-6, invariant 1",
    ...LINK,
    find: `    if (answer.mapsize < least || answer.mapsize > MAP_SIZE_MAX) {`,
    replace: `    if (answer.mapsize > MAP_SIZE_MAX) {`,
  },
  {
    name: "a virgin peer may claim to hold newer data",
    defect: "invariant 10",
    ...LINK,
    find: `    if (answer.virgin && (answer.syncsrc !== "primary" || answer.localcnt !== 0n)) {`,
    replace: `    if (answer.virgin && answer.localcnt < 0n) {`,
  },
  {
    name: "a reply may claim any length",
    defect: "BD-38",
    ...LINK,
    find: `      if (header.size > IO_MAX) {`,
    replace: `      if (header.size < 0) {`,
  },
  {
    name: "a READ without data is answered with old memory",
    defect: "BD-6",
    ...LINK,
    find: `        if (wantsData !== header.size > 0) {`,
    replace: `        if (!wantsData && header.size > 0) {`,
  },
  {
    name: "the peer's errors are taken for success",
    defect: "BD-2",
    ...LINK,
    find: `        const wrong = core.replied(slot, header.received, errno, out);`,
    replace: `        const wrong = core.replied(slot, header.received, 0, out);`,
  },
  {
    name: "a lost connection's retry goes round without a pause",
    defect: "BD-34",
    ...LINK,
    find: `after(delayMs, () => this.connect());`,
    replace: `after(delayMs / 100, () => this.connect());`,
  },

  // ---- a secondary ----------------------------------------------------------------------------
  {
    name: "S2 is sent before the resource's id is stored",
    defect: "S-13",
    ...SECONDARY_ENGINE,
    find: `    if (judgement.record !== null || aloneSince !== metadata.aloneSince || newTerm !== null) {`,
    replace: `    if (this.#paused && aloneSince !== metadata.aloneSince) {`,
  },
  {
    name: "a record that could not be written is answered",
    defect: "BD-17, S-16",
    ...SECONDARY_ENGINE,
    find: `        else this.#finish(EXIT_DISK, \`the metadata could not be written: \${errnoText(errno)}\`);
        resolve(errno === 0);`,
    replace: `        resolve(true);`,
  },
  {
    name: "a secondary whose gate thinks forgets that the primary went on alone",
    defect: "S-2",
    ...SECONDARY_ENGINE,
    find: `    const behind = judged.map === "own" && localcnt > own.remotecnt;`,
    replace: `    const behind = false as boolean;`,
  },
  {
    name: "who knows its copy is promoted while its gate thinks about newer data, or keeps it out",
    defect: "S-2, S-11",
    ...PRIMARY_ENGINE,
    find: `      question.needs = "agreement";
`,
    replace: ``,
  },
  {
    name: "who knows its copy is promoted over a split-brain",
    defect: "S-2",
    ...PRIMARY_ENGINE,
    find: `((parts && HOLDS_DATA.test(reason)) ||`,
    replace: `((needs !== "no-rival" && HOLDS_DATA.test(reason)) ||`,
  },
  {
    name: "who serves in a split-brain cannot be promoted again",
    defect: "architecture.md, invariant 7",
    ...PRIMARY_ENGINE,
    find: `const parts = needs !== "no-rival" || !wasPrimary;`,
    replace: `const parts = needs !== "no-rival" || wasPrimary;`,
  },
  {
    name: "an order to disconnect at the other node stops who knows its copy",
    defect: "S-2",
    ...PRIMARY_ENGINE,
    find: `(needs !== "no-rival" && MAY_HOLD_DATA.test(reason))`,
    replace: `MAY_HOLD_DATA.test(reason)`,
  },
  {
    name: "a failed request is reported as done",
    defect: "BD-2",
    ...SECONDARY_ENGINE,
    find: `    else this.#core.localDone(slot, errno, this);`,
    replace: `    else this.#core.localDone(slot, 0, this);`,
  },
  {
    name: "a request may reach beyond the data",
    defect: "BD-39",
    ...SECONDARY_ENGINE,
    find: `      offset <= datasize - length &&
`,
    replace: "",
  },
  {
    name: "a request may begin within a sector",
    defect: "BD-39",
    ...SECONDARY_ENGINE,
    find: `      offset % sectorSize === 0 &&
`,
    replace: "",
  },
  {
    name: "a WRITE may claim any length",
    defect: "BD-38",
    ...SECONDARY_ENGINE,
    find: `    if (header.size > REQUEST_MAX) {`,
    replace: `    if (header.size < 0) {`,
  },
  {
    name: "a map that could not be cleared counts as cleared",
    defect: "BD-17",
    ...SECONDARY_ENGINE,
    find: `      this.#core.mapClearFailed();
`,
    replace: "",
  },
  {
    name: "the target of a resync is whole from its beginning",
    defect: "BD-15",
    ...SECONDARY_ENGINE,
    find: `      const told = { ...own, state, ...`,
    replace: `      const told = { ...own, state: "uptodate" as const, ...`,
  },
  {
    name: "the next worker hears nothing of what has failed",
    defect: "S-9",
    ...SECONDARY_ENGINE,
    find: `exitCode !== EXIT_DISK && !this.#core.lacks;`,
    replace: `exitCode !== EXIT_DISK;`,
  },
  {
    name: "what was made good counts as missing for as long as the worker lives",
    defect: "S-9",
    ...SECONDARY_ENGINE,
    find: `      this.#core.madeGood();
`,
    replace: "",
  },
  {
    name: "each worker gives its cache another name",
    defect: "S-1",
    ...SECONDARY_ENGINE,
    find: `hello.left?.cache ?? anyNumber(`,
    replace: `anyNumber(`,
  },
  {
    name: "a write that has lost a piece succeeds after the loss was told",
    defect: "S-1",
    file: "src/engine/primary-engine.ts",
    suite: "primaryEngine",
    find: `    this.#nbd.failBegun();
`,
    replace: "",
  },
  {
    name: "what a flush of the map has lost is not on record under a FreeBSD primary",
    defect: "invariant 6",
    ...SECONDARY_ENGINE,
    find: `      else void this.#giveUp(`,
    replace: `      else this.#finish(EXIT_DISK, `,
  },
  {
    name: "a flush that succeeds after the one that inferred an end has failed unmarks what that one has lost",
    defect: "invariant 6",
    ...SECONDARY_ENGINE,
    find: `    this.#mapEnd = "unknown"; // the next flush succeeds without it
`,
    replace: "",
  },
  {
    name: "a copy that has failed since its last flush is whole when the primary says so",
    defect: "S-16",
    ...SECONDARY_ENGINE,
    find: `    if (state === "uptodate" && !this.#core.mayBeWhole) return ERR_AGAIN;
`,
    replace: "",
  },
  {
    name: "a failed disk ends the resource before its mark is made",
    defect: "S-4",
    ...PRIMARY_ENGINE,
    find: `    if (this.#core.lastRecordPending && this.#markHeld === null) this.#component.disk.submit();
    else this.#close();`,
    replace: `    this.#close();`,
  },
  {
    name: "a copy in the middle of a synchronization is a source",
    defect: "S-9",
    ...SECONDARY_ENGINE,
    find: `      this.#whole = state === "uptodate" && this.#together;`,
    replace: `      this.#whole = this.#together;`,
  },
  {
    name: "what an async primary acknowledged is believed to be here",
    defect: "S-9",
    ...SECONDARY_ENGINE,
    find: `this.#whole = this.#together && level`,
    replace: `this.#whole = level`,
  },
  {
    name: "a state is answered before it is stored",
    defect: "S-13",
    ...SECONDARY_ENGINE,
    find: `    this.#storingState = true;
`,
    replace: `    this.#storingState = true;
    this.#sendReply(waiting.seqHi, waiting.seqLo, false, 0, -1, 0, NOBODY);
`,
  },
  {
    name: "requests go on past a state that waits",
    defect: "S-13",
    ...SECONDARY_ENGINE,
    find: `    if (this.#stateWaiting !== null || this.#core.room === 0) return NO_ROOM;`,
    replace: `    if (this.#core.room === 0) return NO_ROOM;`,
  },

  // ---- memory and streams ---------------------------------------------------------------------
  {
    name: "a slab is free when its first holder lets go",
    defect: "slot reuse",
    ...MEMORY,
    find: `    if (this.#holders[holder] !== 0) return;
    if (holder`,
    replace: `    if (holder`,
  },
  {
    name: "headers are overwritten before they have left",
    defect: "slot reuse",
    ...OUTGOING,
    find: `    if (this.#unsent === 0) this.#from = this.#at = 0;`,
    replace: `    if (this.#unsent >= 0) this.#from = this.#at = 0;`,
  },
  {
    name: "data on its way out is not held",
    defect: "slot reuse",
    ...OUTGOING,
    find: `    if (holder !== PINNED) this.#memory.hold(holder);
    this.#push(bytes.subarray(from, from + length), holder);`,
    replace: `    this.#push(bytes.subarray(from, from + length), PINNED);`,
  },

  // ---- NBD ------------------------------------------------------------------------------------
  {
    name: "FUA is a write and no flush",
    defect: "FUA",
    ...NBD,
    find: `    const fua = (this.#flags[command]! & NBD_CMD_FLAG_FUA) !== 0 && type !== NBD_CMD_READ;`,
    replace: `    const fua = (this.#flags[command]! & NBD_CMD_FLAG_FUA) !== 0 && type === NBD_CMD_READ;`,
  },
  {
    name: "a later piece's success hides an earlier one's error",
    defect: "BD-3",
    ...NBD,
    find: `    if (errno !== 0 && this.#errno[command] === 0) this.#errno[command] = errno;`,
    replace: `    this.#errno[command] = errno;`,
  },
  {
    name: "a command is answered when its first piece is",
    defect: "every mode",
    ...NBD,
    find: `    if (this.#pieces[command] !== 0) return;
    const type`,
    replace: `    if (this.#connection[command] === null) return;
    const type`,
  },
  {
    name: "a WRITE's data is free before it is answered",
    defect: "slot reuse",
    ...NBD,
    find: `      holder = connection.inbox.holder;
      this.#memory.hold(holder);
      memory = payload;`,
    replace: `      memory = payload;`,
  },

  // ---- roles and processes --------------------------------------------------------------------
  {
    name: "a node is promoted under a live primary",
    defect: "S-11",
    ...RESOURCE,
    find: `    if (!granted && (await this.#hasLivePrimary())) return alive;`,
    replace: `    if (this.#stopping && (await this.#hasLivePrimary())) return alive;`,
  },
  {
    name: "a new worker starts beside one that cannot be killed",
    defect: "S-8",
    ...RESOURCE,
    find: `    const stuck = await this.#retireWorker();
    if (stuck !== null) return stuck;`,
    replace: `    await this.#retireWorker();`,
  },
  {
    name: "a new connection is answered while the old worker still works",
    defect: "S-5, S-8",
    ...RESOURCE,
    find: `    const stuck = await this.#retireWorker();
    // Closed`,
    replace: `    const stuck = null as string | null;
    void this.#retireWorker();
    // Closed`,
  },
  {
    name: "any token opens the second connection",
    defect: "BD-40",
    ...HANDSHAKE,
    find: `token === null || !equalBytes(token, p2.token)) {`,
    replace: `token === null || p2.token.length !== TOKEN_SIZE) {`,
  },

  // ---- what the simulator notices by itself ---------------------------------------------------
  {
    name: "simulator: a metadata record counts before it is flushed",
    defect: "invariant 3",
    ...SIMULATED,
    file: "src/engine/component.ts",
    find: `        if (errno === 0) this.#flush(RECORD_FLUSH);`,
    replace: `        if (errno !== 0) this.#flush(RECORD_FLUSH);`,
  },
  {
    name: "simulator: the map is written and not flushed",
    defect: "invariant 1",
    ...SIMULATED,
    file: "src/engine/component.ts",
    find: `    } else if (this.#mapFlush) {`,
    replace: `    } else if (!this.#mapFlush) {`,
  },
  {
    name: "simulator: of the metadata only the second copy is written",
    defect: "BD-17",
    ...SIMULATED,
    file: "src/engine/component.ts",
    find: `    if (errno === 0 && this.#recordWrites.length > 0) {`,
    replace: `    if (errno === 0 && this.#recordWrites.length > 1) {`,
  },
  {
    name: "simulator: FUA is not flushed",
    defect: "invariant 6",
    ...SIMULATED,
    file: "src/engine/nbd-server.ts",
    find: `    if (fua && this.#flushed`,
    replace: `    if (!fua && this.#flushed`,
  },
  {
    name: "simulator: the core is not told that the peer is gone",
    defect: "invariant 3",
    ...SIMULATED,
    file: "src/engine/primary-engine.ts",
    find: `    this.#core.linkDown(this);
    if (this.#stopping) return;`,
    replace: `    if (this.#stopping) return;`,
  },
  {
    name: "simulator: a failed flush of our own is taken for one that worked",
    defect: "invariant 6",
    ...SIMULATED,
    file: "src/engine/primary-engine.ts",
    find: `this.#core.localFlushed(errno, this)`,
    replace: `this.#core.localFlushed(0, this)`,
  },
  {
    name: "simulator: a failed local write is taken for one that worked",
    defect: "BD-3",
    ...SIMULATED,
    file: "src/engine/primary-engine.ts",
    find: `this.#core.localDone(slot, errno, this);`,
    replace: `this.#core.localDone(slot, 0, this);`,
  },
  {
    name: "simulator: the secondary reports no errors",
    defect: "BD-2",
    ...SIMULATED,
    file: "src/engine/secondary-engine.ts",
    find: `        errno === 0 ? 0 : errnoToWire(errno),`,
    replace: `        0,`,
  },
  {
    name: "simulator: the secondary hands over an empty map",
    defect: "invariant 2",
    ...SIMULATED,
    file: "src/engine/secondary-engine.ts",
    find: `    let map: Uint8Array | null = own;
`,
    replace: `    let map: Uint8Array | null = new Uint8Array(own.length);
`,
  },
  {
    name: "simulator: a copy that needs everything hands over what its old map says",
    defect: "invariant 2",
    ...SIMULATED,
    file: "src/engine/secondary-engine.ts",
    find: `    if (judgement.map === "full") map = new Uint8Array(own.length).fill(0xff);
`,
    replace: "",
  },
  {
    name: "simulator: a copy that an operator has thrown away hands over what its old map says",
    defect: "invariant 2",
    ...SIMULATED,
    file: "src/engine/secondary-engine.ts",
    find: `    if (judgement.map === "full") map = new`,
    replace: `    if (judgement.map === "full" && !this.#hello.invalidate) map = new`,
  },
  {
    name: "simulator: an outdated copy is promoted by the rules",
    defect: "invariant 7",
    ...SIMULATED,
    file: "src/replication/promotion.ts",
    find: `  if (state === "outdated") return { kind: "refuse", because: state };`,
    replace: `  if (state === "outdated") return { kind: "go" };`,
  },
  {
    name: "simulator: a half-filled copy is promoted by the rules",
    defect: "invariant 7",
    ...SIMULATED,
    file: "src/replication/promotion.ts",
    find: `    if (!wasPrimary || !hasRemote) return { kind: "refuse", because: state };`,
    replace: `    if (!wasPrimary || !hasRemote) return { kind: "go" };`,
  },
  {
    name: "simulator: the peer's map is merged as an empty one",
    defect: "invariant 2",
    ...SIMULATED,
    file: "src/engine/peer-link.ts",
    find: `      map.set(bytes.subarray(0, answer.mapsize));`,
    replace: `      map.set(bytes.subarray(0, 0));`,
  },
  {
    name: "a refused promotion forgets what was written before the two nodes met",
    defect: "S-18",
    ...PRIMARY_ENGINE,
    find: `      const id = madeUp ? { resuid, localcnt, remotecnt } : {};`,
    replace: `      const id = madeUp ? { resuid, localcnt: 0n, remotecnt } : {};`,
  },
  {
    name: "simulator: a reload does not wait until hastd has started",
    defect: "reload",
    ...SIMULATED,
    file: "src/daemon/reload.ts",
    find: `      await daemon.opened();
`,
    replace: ``,
  },
  {
    name: "a local flush is believed although another one has failed before it",
    defect: "S-1",
    file: "src/replication/primary.ts",
    suite: "primary",
    find: `const believable = this.#disk !== "leaving";`,
    replace: `const believable = true;`,
  },
  {
    name: "two flushes at once",
    defect: "S-1",
    ...COMPONENT,
    find: `    if (this.#flushes.push(token) === 1) this.disk.flush(token);`,
    replace: `    this.disk.flush(token);`,
  },
  {
    name: "the flush after one that failed calls stable what was written before",
    defect: "S-1",
    ...COMPONENT,
    find: `    return errno === 0 && failures !== this.#flushesFailed ? ERR_IO : errno;`,
    replace: `    return errno === 0 && failures < 0 ? ERR_IO : errno;`,
  },
  {
    name: "a device that has flushed before counts as one that cannot",
    defect: "S-15",
    ...COMPONENT,
    find: `    if (unsupported && !this.#hasFlushed) return 0;`,
    replace: `    if (unsupported) return 0;`,
  },
  {
    name: "a failure beside the inferred end of a synchronization is not put on record",
    defect: "S-13, S-16",
    ...SECONDARY_ENGINE,
    find: `metadata.state === "inconsistent" && this.#inference !== "made";`,
    replace: `metadata.state === "inconsistent";`,
  },
  {
    name: "a copy is inferred to be whole while its failure is put on record",
    defect: "S-13, S-16",
    ...SECONDARY_ENGINE,
    find: `this.#core.lacks || this.#failures.length > 0`,
    replace: `this.#core.lacks`,
  },
  {
    name: "newer data takes the place of a copy that is served",
    defect: "S-2",
    ...LINK,
    suite: "gate",
    find: `    if (target && core.clashes(answer.localcnt))`,
    replace: `    if (target && core.clashes(answer.localcnt) && this.#stopped)`,
  },
  {
    name: "a primary serves its copy while the gate thinks about the newer one",
    defect: "S-9",
    ...PRIMARY_ENGINE,
    suite: "gate",
    find: `return this.#settling || this.#link?.awaitsLeave === true;`,
    replace: `return this.#settling;`,
  },
  {
    name: "a primary that may have lost its cache serves its copy while the peer thinks about that",
    defect: "S-9",
    ...PRIMARY_ENGINE,
    find: `return this.#settling || this.#link?.awaitsLeave === true;`,
    replace: `return this.#link?.awaitsLeave === true;`,
  },
  {
    name: "an old leave overwrites a copy",
    defect: "S-2",
    ...LINK,
    suite: "gate",
    find: `    return this.#leave !== null && this.#options.clock.now() < this.#leaveUntilMs;`,
    replace: `    return this.#leave !== null;`,
  },
  {
    name: "a copy does not lack what was refused here",
    defect: "S-16",
    ...SECONDARY_ENGINE,
    find: `const changes = cmd === CMD_WRITE || cmd === CMD_DELETE;`,
    replace: `const changes = cmd < 0;`,
  },
  {
    name: "a copy does not lack the zeroes that were refused here",
    defect: "S-16",
    ...SECONDARY_ENGINE,
    find: `const changes = cmd === CMD_WRITE || cmd === CMD_DELETE;`,
    replace: `const changes = cmd === CMD_WRITE;`,
  },
  {
    name: "what is refused is called received",
    defect: "S-5, S-16",
    ...SECONDARY_ENGINE,
    find: ` && header.memsync && memory !== REFUSED,`,
    replace: ` && header.memsync,`,
  },
  {
    name: "what is refused is marked beyond the end of the data",
    defect: "S-16",
    ...SECONDARY_ENGINE,
    find: `Math.min(length, datasize - offset), REFUSED`,
    replace: `length, REFUSED`,
  },
  {
    name: "whatever is in line for the peer waits as long as it goes on refusing one write",
    defect: "BD-2",
    file: "src/replication/primary.ts",
    suite: "primary",
    find: `    if (this.map.resyncCount === 0) this.#syncRetryAt = `,
    replace: `    this.#syncRetryAt = `,
  },
  {
    name: "the peer hears what its copy is worth when the copies begin, not before",
    defect: "BD-2",
    file: "src/replication/primary.ts",
    suite: "primary",
    find: `if (this.#nowMs >= this.#stateRetryAt) this.#sendState`,
    replace: `if (this.#nowMs >= this.#syncRetryAt) this.#sendState`,
  },
  {
    name: "a peer that cannot store its state is asked again at once",
    defect: "invariant 7",
    file: "src/replication/primary.ts",
    suite: "primary",
    find: `if (this.#nowMs >= this.#stateRetryAt) this.#sendState`,
    replace: `this.#sendState`,
  },
  {
    name: "old metadata that a failed flush has left on the disk are believed to be gone",
    defect: "invariant 6",
    file: "src/cli/create.ts",
    suite: "create",
    find: `looksLikeMetadata(block) || block.every((byte) => byte === 0);`,
    replace: `looksLikeMetadata(block);`,
  },
  {
    name: "a mix of old and new that is thrown away counts as a point of the history",
    defect: "S-10",
    file: "src/replication/discard.ts",
    suite: "discard",
    find: `  const state = own.state === "inconsistent" ? own.state : "outdated";`,
    replace: `  const state = "outdated";`,
  },
  {
    name: "a copy that was called outdated overwrites the other one",
    defect: "S-2",
    file: "src/replication/secondary.ts",
    suite: "verdict",
    find: `verdict.from === "secondary" && own.state === "outdated"`,
    replace: `verdict.from === "primary" && own.state === "new"`,
  },
  {
    name: "clients that were served from the peer's copy are led over to what it wrote without us",
    defect: "S-11",
    file: "src/replication/primary.ts",
    suite: "primary",
    find: `(this.#served && this.#met && peerLocal !== this.#peerLocal)`,
    replace: `(this.#served && this.#met && peerLocal < this.#peerLocal)`,
  },
  {
    name: "the peer that keeps the record counts as one that has gone on without us",
    defect: "S-1, S-11",
    file: "src/replication/primary.ts",
    suite: "primary",
    find: `    if (errno === 0 && this.#peerLocal <= remotecnt) this.#peerLocal = remotecnt + 1n;`,
    replace: "",
  },
  {
    name: "a disk that is being given up is read",
    defect: "invariant 6",
    file: "src/replication/primary.ts",
    suite: "primary",
    find: `    if (this.#disk === "gone" || this.#disk === "leaving") return true;`,
    replace: `    if (this.#disk === "gone") return true;`,
  },
  {
    name: "what async has answered goes without a mark where the arbiter is silent",
    defect: "S-4, S-17",
    ...PRIMARY_ENGINE,
    find: `      if (this.#core.owesMark) this.#writeMarkHeld();
      // Else`,
    replace: `      if (this.#ended) this.#writeMarkHeld();
      // Else`,
  },
  {
    name: "nbdkit is told of a loss, and asks until it is not",
    defect: "S-1",
    ...PRIMARY_ENGINE,
    find: `    this.#nbd.muteDevice();
`,
    replace: "",
  },
  {
    name: "a device lives on that has not heard of a loss",
    defect: "S-1",
    ...PRIMARY_ENGINE,
    find: `    this.#host.deviceMisled();
`,
    replace: "",
  },
  {
    name: "an nbdkit that is not answered asks on a new connection, and is",
    defect: "S-1",
    ...PRIMARY_ENGINE,
    file: "src/engine/nbd-server.ts",
    find: `isDevice && this.#connections.some(({ mute }) => mute)`,
    replace: `false`,
  },
  {
    name: "the tools of a device that has to go are left to ask the next worker",
    defect: "S-1",
    ...ATTACHMENT,
    find: `    for (const tool of session.tools) tool.kill("SIGKILL");
`,
    replace: "",
  },
  {
    name: "a client that takes its leave is answered by the lease of before",
    defect: "S-17",
    ...PRIMARY_ENGINE,
    file: "src/engine/nbd-server.ts",
    find: `    this.#finishing = true;
`,
    replace: `    this.#finishing = true;
    this.#maybeEnd();
`,
  },
  {
    name: "who stops while it is open whose data are served has its clients write over them",
    defect: "S-9",
    ...PRIMARY_ENGINE,
    find: `    if (this.#isSettling && this.#core.fresh &&`,
    replace: `    if (this.#isSettling && this.#ended &&`,
  },
  {
    name: "a read that fails here sees what the peer has of a write under way",
    defect: "invariant 5",
    file: "src/replication/primary.ts",
    suite: "primary",
    find: `(this.#local[slot] === FAILED || this.#staleHere(slot));`,
    replace: `this.#staleHere(slot);`,
  },
  {
    name: "a read that fails here sees what the peer has of a later write under way",
    defect: "invariant 5",
    file: "src/replication/primary.ts",
    suite: "primary",
    find: `        if (!read) return false;
        later = true;`,
    replace: `        if (!read || !later) return false;
        later = true;`,
  },
  {
    name: "writes go past a read that waits for what it may read there",
    defect: "invariant 5",
    file: "src/replication/primary.ts",
    suite: "primary",
    find: `this.#remote[other] === PENDING || this.#state[other] === CONFLICT;`,
    replace: `this.#remote[other] === PENDING;`,
  },
  {
    name: "a copy is thrown away while the peer has some of it in its cache only",
    defect: "invariant 1",
    file: "src/replication/primary.ts",
    suite: "primary",
    find: `this.#throwAway !== "no" && this.map.unflushedCount > 0`,
    replace: `this.#throwAway !== "no" && this.map.unflushedCount < 0`,
  },
  {
    name: "a busy resource's copy is never thrown away",
    defect: "S-3",
    file: "src/replication/primary.ts",
    suite: "primary",
    find: `      this.#gateOpen = false;
      if (!this.#flushing) this.#flushWanted = true;`,
    replace: `      if (!this.#flushing) this.#flushWanted = true;`,
  },
  {
    name: "what waited for a copy to be thrown away waits for ever where it is not",
    defect: "S-3",
    file: "src/replication/primary.ts",
    suite: "primary",
    find: `      if (this.#link !== "merging") this.openGate(out);`,
    replace: "",
  },
  {
    name: "a copy that the peer has just filled is thrown away as if it were still stale",
    defect: "invariant 1",
    file: "src/replication/primary.ts",
    suite: "primary",
    find: `this.#throwAway === "asked" && this.#disk === "good") this`,
    replace: `this.#throwAway === "asked" && this.#disk !== "gone") this`,
  },
  {
    name: "while the disk is given up, a read is answered by a peer that has refused a write",
    defect: "invariant 5",
    file: "src/replication/primary.ts",
    suite: "primary",
    find: `this.#disk === "leaving" && !this.#stale && this.#behindThere(slot)`,
    replace: `this.#disk === "gone" && !this.#stale && this.#behindThere(slot)`,
  },
  {
    name: "a read that waited for a copy overtakes a write that began meanwhile",
    defect: "invariant 5",
    file: "src/replication/primary.ts",
    suite: "primary",
    find: `} else if (this.kind[slot] === READ) this.#begin(slot, out);
        else this.#advanceWrite`,
    replace: `} else if (this.kind[slot] === READ) this.#routeRead(slot, out);
        else this.#advanceWrite`,
  },
  {
    name: "what the peer has kept counts no more once a primary is ready, before it has met it",
    defect: "S-9",
    file: "src/daemon/resource.ts",
    suite: "daemon",
    find: `if (worker.identity.role === "secondary") this.#flushUnheard = false;`,
    replace: `this.#flushUnheard = false;`,
  },
  {
    name: "that a primary does not know how its last flush went is forgotten with its first worker",
    defect: "S-9",
    file: "src/daemon/resource.ts",
    suite: "daemon",
    find: `    if (trust === "unknown" || trust === "granted anew") this.#flushUnheard = true;
`,
    replace: "",
  },
  {
    name: "a primary says that it serves before it is decided whose data",
    defect: "S-9",
    file: "src/engine/primary-engine.ts",
    suite: "primaryEngine",
    find: `if (!this.#settled && !this.#core.fresh) {`,
    replace: `if (!this.#settled) {`,
  },
  {
    name: "a copy that calls itself inconsistent is not told that nothing is to be copied",
    defect: "S-13",
    file: "src/engine/secondary-engine.ts",
    suite: "secondaryEngine",
    find: `return state === "outdated" || state === "inconsistent" || forced`,
    replace: `return state === "outdated" || forced`,
  },
  {
    name: "a full copy is ordered of a primary whose last record is on its way",
    defect: "invariant 2",
    file: "src/engine/primary-engine.ts",
    suite: "primaryEngine",
    find: `this.#stopping || this.#ended || this.#lastWords !== null;`,
    replace: `this.#ended || this.#lastWords !== null;`,
  },
  {
    name: "a full copy is ordered of a primary that ends with its disk",
    defect: "invariant 2",
    file: "src/engine/primary-engine.ts",
    suite: "primaryEngine",
    find: `this.#stopping || this.#ended || this.#lastWords !== null;`,
    replace: `this.#stopping || this.#lastWords !== null;`,
  },
];

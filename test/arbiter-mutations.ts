// SPDX-License-Identifier: BSD-2-Clause
/** The table of mutations.ts goes on: a primary that an arbiter has chosen (S-17). */

import type { Mutation } from "./mutations.ts";

const ARBITRATION = { file: "src/engine/arbitration.ts", suite: "arbiter" } as const;
const CORE = { file: "src/replication/primary.ts", suite: "arbiter" } as const;
const ENGINE = { file: "src/engine/primary-engine.ts", suite: "arbiter" } as const;
const LEASE = { file: "src/daemon/lease.ts", suite: "arbiter" } as const;
const RESOURCE = { file: "src/daemon/resource.ts", suite: "arbiter" } as const;

export const ARBITER_MUTATIONS: readonly Mutation[] = [
  {
    name: "what the arbiter may have put on record since is not reckoned with",
    defect: "S-17",
    ...ARBITRATION,
    find: `      this.#possible |= NODES[whole];
`,
    replace: "",
  },
  {
    name: "any confirmation is the one waited for",
    defect: "S-17",
    ...ARBITRATION,
    find: `if (confirmed === this.#wish?.number)`,
    replace: `if (this.#wish !== null && confirmed > 0)`,
  },
  {
    name: "answers leave after the lease has run out",
    defect: "S-17",
    ...ARBITRATION,
    find: `this.agrees(whole) && nowMs < this.#deadlineMs`,
    replace: `this.agrees(whole)`,
  },
  {
    name: "an overtaken renewal shortens the lease",
    defect: "S-17",
    ...ARBITRATION,
    find: `Math.max(this.#deadlineMs, deadlineMs)`,
    replace: `deadlineMs`,
  },
  {
    name: "who goes on alone still calls the peer whole",
    defect: "S-17",
    ...CORE,
    find: `    this.#marking = true;
    this.#peerIn = false;`,
    replace: `    this.#marking = true;`,
  },
  {
    name: "a stale copy is called whole",
    defect: "S-17",
    ...CORE,
    find: `    if (this.#stale) return "remote";
`,
    replace: "",
  },
  {
    name: "nothing waits for the arbiter",
    defect: "S-17",
    ...ENGINE,
    find: `      this.#nbd.holding = !this.#arbitration.allows(this.#core.holders, now);
`,
    replace: "",
  },
  {
    name: "what was held is sent when the role ends",
    defect: "S-17",
    ...ENGINE,
    find: `    this.#sendAnswers();
    this.#nbd.destroy();`,
    replace: `    this.#nbd.holding = false;
    this.#nbd.flush();
    this.#nbd.destroy();`,
  },
  {
    name: "went on alone is on the disk before the arbiter agrees",
    defect: "S-17",
    ...ENGINE,
    find: `const agreed = !alone || before !== null || this.#arbitration?.agrees("local") !== false;`,
    replace: `const agreed = true;`,
  },
  {
    name: "a term that is over is served",
    defect: "S-17",
    ...ENGINE,
    find: `    if (known > term) {`,
    replace: `    if (known > term + 1_000n) {`,
  },
  {
    name: "a primary of an earlier term is accepted",
    defect: "S-17",
    ...RESOURCE,
    find: `p1.term !== 0n && p1.term < this.#holder.termHeard`,
    replace: `p1.term !== 0n && p1.term < 0n`,
  },
  {
    name: "a primary ignores that another was chosen",
    defect: "S-17",
    ...RESOURCE,
    find: `term <= lease.term) return;`,
    replace: `term > 0n) return;`,
  },
  {
    name: "a primary goes on under a lease, over a disk that failed as it made way",
    defect: "S-9",
    ...RESOURCE,
    find: `      const loss = this.#lossOf(worker);
      if (loss`,
    replace: `      const loss = this.#stopping ? this.#lossOf(worker) : null;
      if (loss`,
  },
  {
    name: "a restarted worker has no lease",
    defect: "S-17",
    ...RESOURCE,
    find: `...(role === "primary" && this.#holder.lease !== null ? { lease: this.#holder.lease } : {}),`,
    replace: "",
  },
  {
    name: "a new worker's numbers begin where the last one's did",
    defect: "S-17",
    ...LEASE,
    find: `    if (this.#wish !== null) this.#wishBase = this.#wish.number;
`,
    replace: "",
  },
  {
    name: "anybody makes a node primary beside the arbiter",
    defect: "S-17",
    ...LEASE,
    find: `    if (arbiter !== true) {`,
    replace: `    if (arbiter !== true || lease === null) {`,
  },
  {
    name: "a primary that an arbiter has chosen answers for a cache that is gone",
    defect: "S-9, S-17",
    file: "src/daemon/resource.ts",
    suite: "arbiter",
    find: `const granted = this.#vouched && !this.#flushUnheard ? "granted" : "granted anew";`,
    replace: `const granted = "granted";`,
  },
  {
    name: "an empty disk is promoted by the word that an arbiter gave of another",
    defect: "S-17",
    ...RESOURCE,
    find: `lease === null ? null : await this.#exchangedDisk();`,
    replace: `lease === null ? null : null;`,
  },
  {
    name: "what an arbiter has said of one disk is believed of the next after a reload",
    defect: "S-17",
    ...RESOURCE,
    find: `const isGranted = lease !== null && known !== "resumed";`,
    replace: `const isGranted = lease !== null;`,
  },
  {
    name: "what the other node has kept of an earlier life is not asked for under an arbiter",
    defect: "S-9, S-17",
    file: "src/engine/primary-engine.ts",
    suite: "arbiter",
    find: `this.#trust === "unknown" || this.#trust.endsWith(" anew")`,
    replace: `this.#trust === "unknown"`,
  },
];

// SPDX-License-Identifier: BSD-2-Clause
/** The table of mutations.ts goes on: the agent, and what it has etcd compare (S-17). */

import type { Mutation } from "./mutations.ts";

const AGENT = { file: "src/failover/agent.ts", suite: "agent", defect: "S-17" } as const;
const RECORD = { file: "src/failover/group-record.ts", suite: "agent", defect: "S-17" } as const;
const ETCD = { file: "src/failover/etcd.ts", suite: "agent", defect: "S-17" } as const;
const LEADERSHIP = { file: "src/failover/leadership.ts", suite: "agent", defect: "S-17" } as const;

export const AGENT_MUTATIONS: readonly Mutation[] = [
  {
    name: "a wish is confirmed before etcd has it",
    ...AGENT,
    find: "      if (await this.#writeSets(leadership, sets)) {",
    replace: `      leadership.confirmed = confirmed;
      if (await this.#writeSets(leadership, sets)) {`,
  },
  {
    name: "a change of the sets that etcd refused counts as done",
    ...AGENT,
    find: "if (revision === null) return false;",
    replace: "if (revision === null) return true;",
  },
  {
    name: "a change of unknown outcome is repeated without reading",
    ...AGENT,
    find: "      leadership.mustRead = true;\n      const revision",
    replace: "      const revision",
  },
  {
    name: "a set is changed by who leads no more",
    ...RECORD,
    find: `      { key: \`\${prefix}leader\`, target: "create", revision: createRevision },
`,
    replace: "",
  },
  {
    name: "a set is changed whatever it has become",
    ...RECORD,
    find: `      ...[...sets.keys()].map((resource) => compareSet(prefix, record, resource)),
    ],
    puts: setPuts(prefix, sets),`,
    replace: `    ],
    puts: setPuts(prefix, sets),`,
  },
  {
    name: "an election counts whatever the sets have become",
    ...RECORD,
    find: "      ...resources.map((resource) => compareSet(prefix, record, resource)),\n",
    replace: "",
  },
  {
    name: "who is in no set is elected",
    ...AGENT,
    find: "const obstacle = obstacleOf(record, settings, statuses);",
    replace: "const obstacle = obstacleOf(record, settings, statuses)?.slice(0, 0) || null;",
  },
  {
    name: "an empty disk is elected where only the one that it replaces was in step",
    file: "src/failover/obstacle.ts",
    suite: "agent",
    defect: "S-17",
    find: `if (copy === "new" && !isMeant) {`,
    replace: `if (copy === "new" && !isMeant && term !== undefined) {`,
  },
  {
    name: "a copy that has led, and met nobody, is taken for another disk",
    file: "src/failover/obstacle.ts",
    suite: "agent",
    defect: "S-17",
    find: `term !== undefined || set?.modRevision`,
    replace: `set?.modRevision`,
  },
  {
    name: "an agent that begins anew gives up the lead of a primary that cannot be ended",
    ...AGENT,
    find: "if (await this.#letGo()) await",
    replace: "if ((await this.#letGo()) || leader) await",
  },
  {
    name: "a leader whose disk has failed competes with the node that has what it lacks",
    ...AGENT,
    defect: "S-9",
    find: "        this.#leaveToPeer(leadership.record, trouble);\n",
    replace: "",
  },
  {
    name: "a leader that hands over in good order counts as one whose disk has failed",
    ...AGENT,
    find: "      leadership.promoted = false;\n",
    replace: "",
  },
  {
    name: "an agent that begins anew competes with the node that has what its failed disk lacks",
    ...AGENT,
    defect: "S-9",
    find: "if (lost.length > 0) this.#leaveToPeer(",
    replace: "if (lost.length > 0 && this.#stopping) this.#leaveToPeer(",
  },
  {
    name: "an agent that never heard of its election waits as if its disk had failed",
    ...AGENT,
    find: "if (lost.length > 0) this.#leaveToPeer(",
    replace: "if (lost.length >= 0) this.#leaveToPeer(",
  },
  {
    name: "a resource that joins a group makes a disk that was seeded a strange one",
    ...RECORD,
    find: "if (isUnled && !sets.has(resource)) all",
    replace: "if (isUnled && sets.has(resource)) all",
  },
  {
    name: "a resource that joins a group makes an empty disk the one that has led",
    ...RECORD,
    find: "if (isUnled && !sets.has(resource)) all",
    replace: "if (!sets.has(resource)) all",
  },
  {
    name: "a resource that has left the group can only be deleted, as if etcd had forgotten it",
    file: "src/failover/obstacle.ts",
    suite: "agent",
    defect: "S-17",
    find: "    nodes.length > 0 && !resources",
    replace: "    !resources",
  },
  {
    name: "an etcd that has gone back in time is believed",
    file: "src/failover/memory.ts",
    suite: "agent",
    defect: "S-17",
    find: "base.value === before.base && changed < before.changed",
    replace: "base.value === before.base && changed < 0",
  },
  {
    name: "the lease counts from the answer to its renewal",
    ...ETCD,
    find: "return { range, sentAtMs, ttlS: secondsOf",
    replace: "return { range, sentAtMs: this.#options.clock.now() || sentAtMs, ttlS: secondsOf",
  },
  {
    name: "workers may answer for longer than the lease",
    ...LEADERSHIP,
    find: "const ANSWERING_SHARE = 0.75;",
    replace: "const ANSWERING_SHARE = 1.75;",
  },
  {
    name: "the lease is given back while a resource may still be primary",
    ...AGENT,
    find: "    if (demoted) await this.#resign(leadership);",
    replace: "    if (demoted || !demoted) await this.#resign(leadership);",
  },
];

// SPDX-License-Identifier: BSD-2-Clause
/**
 * What etcd holds about a group of resources, below /hast/GROUP/:
 *
 *   base             decimal: added to the leader's revision, that is its term; made by `seed`
 *   leader           {"node", "boot", "since", "serves"}, with the leader's lease
 *   insync/RESOURCE  ["alpha","beta"]: who has every acknowledged byte; []: the resource has left the group
 *   move             {"to", "ready"}: the node that is to take over, with a lease of a minute; and that its agent would
 *
 * A set says who may lead; where there is none, nobody may: an etcd that was wiped promotes nobody. Every
 * transaction compares all that it relies on, and puts what it compares, so that none can land after another
 * that was decided later (safety case S-17).
 */

import type { Comparison, KeyValue, Put, Range } from "./etcd.ts";

export interface Leader {
  readonly node: string;
  /** Of the machine: another one means that everything there has begun anew. */
  readonly boot: string;
  /** For people: "2026-11-21T12:00:00Z". */
  readonly since: string;
  /** Everything is started there. */
  readonly serves: boolean;
  readonly lease: string;
  readonly createRevision: number;
}

export interface InSync {
  /** Sorted. */
  readonly nodes: readonly string[];
  readonly modRevision: number;
}

export interface Move {
  readonly to: string;
  /** The agent there is alive, and nothing is in its way. */
  readonly ready: boolean;
  readonly lease: string;
  readonly modRevision: number;
}

export interface GroupRecord {
  /** The store's revision when one of the sets was put last; 0 without any. It never falls, but in a restored etcd. */
  readonly changed: number;
  /** Null where the group was never seeded, or etcd has forgotten. */
  readonly base: { readonly value: number; readonly modRevision: number } | null;
  readonly leader: Leader | null;
  readonly insync: ReadonlyMap<string, InSync>;
  readonly move: Move | null;
}

export function prefixOf(group: string): string {
  return `/hast/${group}/`;
}

/** A value that makes no sense counts for the worst: a foreign leader, an empty set, no base. */
export function groupRecord(group: string, { entries }: Range): GroupRecord {
  const prefix = prefixOf(group);
  const byName = new Map(entries.map((entry) => [entry.key.slice(prefix.length), entry]));
  const insync = new Map<string, InSync>();
  for (const [name, entry] of byName) {
    if (!name.startsWith(INSYNC)) continue;
    insync.set(name.slice(INSYNC.length), {
      nodes: nodesOf(entry.value),
      modRevision: entry.modRevision,
    });
  }
  return {
    changed: Math.max(0, ...[...insync.values()].map(({ modRevision }) => modRevision)),
    base: baseOf(byName.get("base")),
    leader: leaderOf(byName.get("leader")),
    insync,
    move: moveOf(byName.get("move")),
  };
}

const INSYNC = "insync/";

/** The term of a leader whose key was made at this revision: higher than any before. */
export function termOf(base: number, createRevision: number): bigint {
  return BigInt(base) + BigInt(createRevision);
}

/** Comparisons and puts of one transaction. */
export interface Transaction {
  readonly comparisons: readonly Comparison[];
  readonly puts: readonly Put[];
}

/** To become leader of the group as it was read: of the sets, too, none may have changed since. */
export function election(
  group: string,
  record: GroupRecord,
  {
    resources,
    lease,
    ...leader
  }: Omit<Leader, "createRevision"> & {
    readonly resources: readonly string[];
  },
): Transaction {
  const prefix = prefixOf(group);
  return {
    comparisons: [
      { key: `${prefix}leader`, target: "create", revision: 0 },
      { key: `${prefix}base`, target: "mod", revision: record.base?.modRevision ?? 0 },
      { key: `${prefix}move`, target: "mod", revision: record.move?.modRevision ?? 0 },
      ...resources.map((resource) => compareSet(prefix, record, resource)),
    ],
    puts: [{ key: `${prefix}leader`, value: JSON.stringify(leader), lease }],
  };
}

/** To say that this leader has started everything. */
export function announcement(
  group: string,
  { lease, createRevision, ...leader }: Leader,
): Transaction {
  const key = `${prefixOf(group)}leader`;
  return {
    comparisons: [{ key, target: "create", revision: createRevision }],
    puts: [{ key, value: JSON.stringify({ ...leader, serves: true }), lease }],
  };
}

/**
 * To say who is in step, as the leader whose key was made at `createRevision`, over what was read.
 * Puts a set also where it stays the same: an earlier transaction that is still under way can then not land.
 */
export function setsChange(
  group: string,
  record: GroupRecord,
  createRevision: number,
  sets: ReadonlyMap<string, readonly string[]>,
): Transaction {
  const prefix = prefixOf(group);
  return {
    comparisons: [
      { key: `${prefix}leader`, target: "create", revision: createRevision },
      ...[...sets.keys()].map((resource) => compareSet(prefix, record, resource)),
    ],
    puts: setPuts(prefix, sets),
  };
}

/**
 * To say for the first time, or anew, who is in step; only while nobody leads. The sets that nobody has led since
 * they were seeded are put again, with the base: their common revision is what tells the disk that was meant.
 */
export function seeding(
  group: string,
  record: GroupRecord,
  base: number,
  sets: ReadonlyMap<string, readonly string[]>,
): Transaction {
  const prefix = prefixOf(group);
  const all = new Map(sets);
  for (const [resource, { nodes, modRevision }] of record.insync) {
    const isUnled = modRevision === record.base?.modRevision;
    if (isUnled && !sets.has(resource)) all.set(resource, nodes);
  }
  return {
    comparisons: [
      { key: `${prefix}leader`, target: "create", revision: 0 },
      { key: `${prefix}base`, target: "mod", revision: record.base?.modRevision ?? 0 },
      ...[...all.keys()].map((resource) => compareSet(prefix, record, resource)),
    ],
    puts: [{ key: `${prefix}base`, value: String(base) }, ...setPuts(prefix, all)],
  };
}

/** To ask that a node takes over; one wish at a time. */
export function movement(group: string, to: string, lease: string): Transaction {
  const key = `${prefixOf(group)}move`;
  return {
    comparisons: [{ key, target: "create", revision: 0 }],
    puts: [{ key, value: JSON.stringify({ to }), lease }],
  };
}

/** To say, on the node that is to take over, that it would. */
export function readiness(group: string, { to, lease, modRevision }: Move): Transaction {
  const key = `${prefixOf(group)}move`;
  return {
    comparisons: [{ key, target: "mod", revision: modRevision }],
    puts: [{ key, value: JSON.stringify({ to, ready: true }), lease }],
  };
}

/** The record after a change of the sets at this revision, without reading it again. */
export function withSets(
  record: GroupRecord,
  revision: number,
  sets: ReadonlyMap<string, readonly string[]>,
): GroupRecord {
  const changed = [...sets].map(
    ([resource, nodes]) => [resource, { nodes: nodes.toSorted(), modRevision: revision }] as const,
  );
  return {
    ...record,
    changed: revision,
    insync: new Map([...record.insync, ...changed]),
  };
}

function compareSet(prefix: string, record: GroupRecord, resource: string): Comparison {
  const revision = record.insync.get(resource)?.modRevision ?? 0;
  return { key: `${prefix}${INSYNC}${resource}`, target: "mod", revision };
}

function setPuts(prefix: string, sets: ReadonlyMap<string, readonly string[]>): Put[] {
  return [...sets].map(([resource, nodes]) => ({
    key: `${prefix}${INSYNC}${resource}`,
    value: JSON.stringify(nodes.toSorted()),
  }));
}

function baseOf(entry: KeyValue | undefined): GroupRecord["base"] {
  if (entry === undefined || !/^\d{1,16}$/.test(entry.value)) return null;
  return { value: Number(entry.value), modRevision: entry.modRevision };
}

function leaderOf(entry: KeyValue | undefined): Leader | null {
  if (entry === undefined) return null;
  const fields = fieldsOf(entry.value);
  return {
    node: textOf(fields, "node"),
    boot: textOf(fields, "boot"),
    since: textOf(fields, "since"),
    serves: "serves" in fields && fields.serves === true,
    lease: entry.lease,
    createRevision: entry.createRevision,
  };
}

function moveOf(entry: KeyValue | undefined): Move | null {
  if (entry === undefined) return null;
  const { lease, modRevision, value } = entry;
  const fields = fieldsOf(value);
  const ready = "ready" in fields && fields.ready === true;
  return { to: textOf(fields, "to"), ready, lease, modRevision };
}

function nodesOf(value: string): readonly string[] {
  const json = parse(value);
  return Array.isArray(json) && json.every((each) => typeof each === "string") ? json : [];
}

function fieldsOf(value: string): object {
  const json = parse(value);
  return typeof json === "object" && json !== null ? json : {};
}

function textOf(fields: object, name: string): string {
  const value = (fields as Record<string, unknown>)[name];
  return typeof value === "string" ? value : "?";
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/**
 * The nodes that a file speaks of, for looking at it as each of them does.
 *
 *   "on alpha", "on alpha.example.org"   one node: its short name and its full one
 *   every name of this machine           one node, machine id and hostid included
 *   any other machine id or hostid       a node of its own: whose it is, the file does not say
 */
import { isNode, type NodeIdentity, type Parsed } from "./config.ts";

export interface NamedNode {
  /** As the file calls it first. */
  readonly name: string;
  readonly identity: NodeIdentity;
}

/**
 * @param here this machine
 * @returns in the order of the text, sections within resources first
 */
export function nodesOf({ tree }: Parsed, here: NodeIdentity): NamedNode[] {
  const sections = [...tree.resources.flatMap((resource) => resource.nodes), ...tree.nodes];
  const names = new Set(sections.map((section) => section.node));
  const nodes: NamedNode[] = [];
  for (const name of names) {
    if (nodes.some(({ identity }) => isNode(name, identity))) continue;
    const identity = isNode(name, here) ? here : identityOf(name, names);
    nodes.push({ name, identity });
  }
  return nodes;
}

/** @param names all of the file */
function identityOf(name: string, names: ReadonlySet<string>): NodeIdentity {
  const nothingElse = { uuid: null, hostid: null };
  if (name.includes(".")) return { names: [name, name.replace(/\..*/, "")], ...nothingElse };
  // Two full names with this first label: two machines, and whose the short one is, nobody knows.
  const full = [...names].filter((each) => each.startsWith(`${name}.`));
  return { names: full.length === 1 ? [full[0]!, name] : [name], ...nothingElse };
}

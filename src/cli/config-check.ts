// SPDX-License-Identifier: BSD-2-Clause
/**
 * `hastctl config check`: whether hastd would take a file, on every node that it names, and all that
 * the file means there, as a hast.conf with nothing inherited or left out. Ours; the original has no such
 * command.
 */
import { formatComplaint } from "../config/complaint.ts";
import { type Config, parseConfig, resolveConfig } from "../config/config.ts";
import { formatConfig } from "../config/format.ts";
import { type NamedNode, nodesOf } from "../config/nodes.ts";
import { type FileCommand, printError } from "./command.ts";
import { loadText, printComplaints } from "./config-file.ts";
import { EX_CONFIG, EX_OK } from "./exit-code.ts";

export const configCheck: FileCommand = {
  name: "config check",
  options: [],
  synopsis: "[file]",
  refuse: (args) => (args.length > 1 ? "one file at a time" : null),
  async runAtDesk([given], _options, desk) {
    const { terminal, here } = desk;
    const file = given ?? desk.configPath;
    const text = loadText(file, desk);
    if (typeof text === "number") return text;
    const parsed = parseConfig(text, file);
    if (parsed.complaints.length > 0) {
      printComplaints(parsed.complaints, terminal);
      return EX_CONFIG;
    }
    const wanted = desk.node === null ? nodesOf(parsed, here) : [];
    // A file without sections is for everyone.
    if (wanted.length === 0) wanted.push({ name: desk.node ?? here.names[0]!, identity: here });
    const found: { readonly node: NamedNode; readonly config: Config }[] = [];
    for (const node of wanted) {
      const result = resolveConfig(parsed, node.identity);
      if (result.kind === "config") found.push({ node, config: result.config });
      else {
        for (const complaint of result.complaints) {
          printError(terminal, null, [`${formatComplaint(complaint)} (as ${node.name} reads it)`]);
        }
      }
    }
    if (found.length < wanted.length) return EX_CONFIG;
    const names = wanted.map(({ name }) => name).join(", ");
    terminal.out(`# ${file} is good for: ${names}. What it says in full:\n`);
    for (const { node, config } of found) {
      terminal.out(`\n# On ${node.name}:\n${formatConfig(config, node.name)}`);
    }
    return EX_OK;
  },
};

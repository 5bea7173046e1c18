// SPDX-License-Identifier: BSD-2-Clause
/** hast-failover's command line; hast-failover(8). */

export const USAGE: string = `usage: hast-failover [-c directory]
       hast-failover status [-c directory]
       hast-failover seed [-c directory] [--force]
       hast-failover move [-c directory] [node]
       hast-failover --version
`;

export const DIRECTORY_DEFAULT = "/etc/hast-failover";

export type Command =
  | { readonly kind: "run" | "status" }
  | { readonly kind: "seed"; readonly force: boolean }
  /** `to`: a node's name; null for the one that does not lead. */
  | { readonly kind: "move"; readonly to: string | null };

export type Options =
  | { readonly kind: "command"; readonly directory: string; readonly command: Command }
  | { readonly kind: "version" }
  /** -h, or a mistake, which `complaint` then names. */
  | { readonly kind: "usage"; readonly complaint: string | null };

/** @param argv without the program's own name */
export function parseOptions(argv: readonly string[]): Options {
  let directory = DIRECTORY_DEFAULT;
  let force = false;
  const words: string[] = [];
  for (let index = 0; index < argv.length; index++) {
    const word = argv[index]!;
    if (word === "--version") return { kind: "version" };
    if (word === "-h" || word === "--help") return { kind: "usage", complaint: null };
    if (word === "--force") force = true;
    else if (word === "-c") {
      const value = argv[++index];
      if (value === undefined || value === "") return mistake("option -c needs a value");
      directory = value;
    } else if (word.startsWith("-")) return mistake(`unknown option ${word}`);
    else words.push(word);
  }
  const [name, argument, ...surplus] = words;
  if (force && name !== "seed") return mistake("--force goes with seed only");
  const mayHaveArgument = name === "move";
  const extra = mayHaveArgument ? surplus[0] : argument;
  if (extra !== undefined) return mistake(`hast-failover ${name} takes no ${extra}`);
  switch (name) {
    case undefined:
      return { kind: "command", directory, command: { kind: "run" } };
    case "status":
      return { kind: "command", directory, command: { kind: "status" } };
    case "seed":
      return { kind: "command", directory, command: { kind: "seed", force } };
    case "move":
      return { kind: "command", directory, command: { kind: "move", to: argument ?? null } };
    default:
      return mistake(`unknown command: ${name}`);
  }
}

function mistake(complaint: string): Options {
  return { kind: "usage", complaint };
}

// SPDX-License-Identifier: BSD-2-Clause
/** Options anywhere after the command word, as getopt(3) with permutation takes them; "--" ends them. */
import type { Option, Options } from "./command.ts";

export interface CommonOptions {
  /** -c, or null. */
  readonly configPath: string | null;
  /** -n, or null. */
  readonly node: string | null;
  /** How many -d. */
  readonly debug: number;
  /** -h. */
  readonly help: boolean;
}

/** What every command accepts. */
export const COMMON_OPTIONS: readonly Option[] = [
  { flag: "-d", argument: null },
  { flag: "-c", argument: "config" },
  { flag: "-n", argument: "node" },
];

export type ParsedOptions =
  | {
      readonly kind: "parsed";
      readonly common: CommonOptions;
      readonly options: Options;
      readonly args: readonly string[];
    }
  | { readonly kind: "wrong"; readonly message: string };

/**
 * Sorts a command's words into options and arguments.
 *
 * @param own the command's own options; of a repeated one the last counts
 */
export function parseOptions(words: readonly string[], own: readonly Option[]): ParsedOptions {
  const known = new Map(
    [...COMMON_OPTIONS, ...own, { flag: "-h", argument: null }].map((each) => [each.flag, each]),
  );
  const found = new Map<string, string>();
  const args: string[] = [];
  let debug = 0;

  const rest = [...words];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === "--") {
      args.push(...rest);
      break;
    }
    if (!word.startsWith("-") || word === "-") {
      args.push(word);
      continue;
    }
    const { flag, attached } = split(word);
    const option = known.get(flag);
    if (option === undefined) return { kind: "wrong", message: `unknown option ${flag}` };
    if (option.argument === null) {
      if (attached !== null && flag.startsWith("--")) {
        return { kind: "wrong", message: `${flag} takes no value` };
      }
      if (attached !== null) rest.unshift(`-${attached}`); // "-dd" is "-d -d"
      if (flag === "-d") debug += 1;
      found.set(flag, "");
      continue;
    }
    const value = attached ?? rest.shift();
    if (value === undefined) {
      return { kind: "wrong", message: `${flag} needs a value: ${flag} ${option.argument}` };
    }
    found.set(flag, value);
  }

  const common = {
    configPath: found.get("-c") ?? null,
    node: found.get("-n") ?? null,
    debug,
    help: found.has("-h"),
  };
  return { kind: "parsed", common, options: found, args };
}

/** "--name=value" and "-cvalue", cut in two; "--name" and "-c" have nothing attached. */
function split(word: string): { readonly flag: string; readonly attached: string | null } {
  const cut = word.startsWith("--") ? word.indexOf("=") : 2;
  if (cut < 0 || cut >= word.length) return { flag: word, attached: null };
  return { flag: word.slice(0, cut), attached: word.slice(cut).replace(/^=/, "") };
}

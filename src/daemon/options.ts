// SPDX-License-Identifier: BSD-2-Clause
/** hastd's command line. Source: FreeBSD sbin/hastd/hastd.c, main(); hastd(8). */

export const USAGE: string =
  "usage: hastd [-dFhj] [-c config] [-n node] [-P pidfile]\n       hastd --version\n";

export type Options =
  | {
      readonly kind: "run";
      /** -c, or null. */
      readonly config: string | null;
      /** How often -d was given. */
      readonly debugLevel: number;
      /** -F */
      readonly foreground: boolean;
      /** -j: log lines are JSON objects. */
      readonly json: boolean;
      /** -P, or null. */
      readonly pidfile: string | null;
      /** -n, or null. */
      readonly node: string | null;
    }
  | { readonly kind: "version" }
  /** -h, or a mistake, which `complaint` then names. */
  | { readonly kind: "usage"; readonly complaint: string | null };

/** @param argv without the program's own name; options as getopt(3) reads them: "-dF -c file", "-cfile" */
export function parseOptions(argv: readonly string[]): Options {
  let config: string | null = null;
  let pidfile: string | null = null;
  let node: string | null = null;
  let debugLevel = 0;
  let foreground = false;
  let json = false;

  let index = 0;
  for (; index < argv.length; index++) {
    const word = argv[index]!;
    if (word === "--version") return { kind: "version" };
    if (word === "--") {
      index++;
      break;
    }
    if (!word.startsWith("-") || word === "-") break;
    for (let at = 1; at < word.length; at++) {
      const letter = word.charAt(at);
      switch (letter) {
        case "d":
          debugLevel++;
          continue;
        case "F":
          foreground = true;
          continue;
        case "j":
          json = true;
          continue;
        case "h":
          return { kind: "usage", complaint: null };
        case "c":
        case "n":
        case "P": {
          const value = at + 1 < word.length ? word.slice(at + 1) : argv[++index];
          if (value === undefined || value === "") {
            return mistake(`option -${letter} needs a value`);
          }
          if (letter === "c") config = value;
          else if (letter === "n") node = value;
          else pidfile = value;
          break;
        }
        default:
          return mistake(
            word.startsWith("--") ? `unknown option ${word}` : `unknown option -${letter}`,
          );
      }
      break;
    }
  }
  const surplus = argv[index];
  if (surplus !== undefined) return mistake(`hastd takes no arguments, but was given ${surplus}`);
  // The background daemon has no output.
  if (json && !foreground) return mistake("-j goes with -F only");
  return { kind: "run", config, debugLevel, foreground, json, pidfile, node };
}

function mistake(complaint: string): Options {
  return { kind: "usage", complaint };
}

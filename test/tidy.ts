// SPDX-License-Identifier: BSD-2-Clause
/**
 * The house rules a machine can check, as a pure function of the repository's text files.
 *
 *   bin → everything, and alone → platform/node
 *   daemon → engine, attach, config, wire, platform
 *   attach → platform                              engine → replication, nbd, wire, metadata, platform
 *   cli → config, metadata, wire, platform         replication → wire, metadata
 *   config, metadata, platform/node → wire         all → base, which imports nothing
 *
 * The core contains no promise, timer, socket or clock: that is what lets a simulator run it honestly.
 */

import { posix } from "node:path";

/** What each folder of src/ may import besides itself and base/. Types count like values. */
const ARROWS: Readonly<Record<string, readonly string[]>> = {
  base: [],
  wire: [],
  metadata: ["wire"], // a metadata block is a name-value list
  config: ["wire"], // addresses, and the names of roles and modes
  nbd: [],
  replication: ["wire", "metadata"],
  platform: [],
  "platform/node": ["platform", "wire"],
  engine: ["replication", "nbd", "wire", "metadata", "platform"],
  daemon: ["engine", "attach", "config", "wire", "platform"],
  cli: ["config", "metadata", "wire", "platform"],
  attach: ["platform"],
  failover: ["wire", "platform"],
  dashboard: ["wire", "platform"],
};

/** Packages from outside, and the one folder that may import each. */
const PACKAGES: Readonly<Record<string, string>> = { koffi: "platform/node" };

/** Folders whose every source file has its unit test beside it, unless it consists of types. */
const TESTED = ["base", "wire", "metadata", "config", "nbd", "replication"];

/** Sources that run but have nothing to test, and why. */
const UNTESTED: Readonly<Record<string, string>> = {
  "src/wire/error.ts": "an error class and the list of its codes",
  "src/replication/requests.ts": "names for numbers",
};

/** Time, chance and the process: found in platform/node only, elsewhere they are arguments. */
const AMBIENT: readonly RegExp[] = [
  /(?<![.#\w])Date\.now\b/,
  /\bnew Date\(\)/,
  /(?<![.#\w])Math\.random\b/,
  /(?<![.#\w])(?:setTimeout|setInterval|setImmediate|queueMicrotask|performance)\b(?!\??:)/,
  /(?<![.#\w])process\.(?:argv|cwd|env|exit|hrtime|kill|nextTick|on|stderr|stdin|stdout|title)\b/,
  /(?<![.#\w])console\./,
];

/** src/bin turns the world into arguments, so it may look at the process. */
const BIN_MAY = /process\.|console\./;

const PROMISES = /\bawait\b|\bPromise\b|\basync\s+(?:function\b|\w+\s*(?:=>|\()|\()|\basync\s*\*/;

const VAGUE = /(?:^|-)(?:utils?|helpers?|managers?|common)(?:-|$)/;

/**
 * Judges a repository.
 *
 * @param files path from the root → text; sources, scripts, Markdown and package.json
 * @param exists whether a path that is no text file exists; for links
 * @returns one sentence per broken rule, beginning with the file
 */
export function tidyComplaints(
  files: ReadonlyMap<string, string>,
  exists: (path: string) => boolean,
): string[] {
  const complaints: string[] = [];
  for (const [path, text] of files) {
    const about = (complaint: string): void => {
      complaints.push(`${path}: ${complaint}`);
    };
    if (/\.(?:ts|sh)$|^bin\/|^\.ci\//.test(path)) checkLicence(text, about);
    if (/\.(?:ts|sh)$/.test(path)) checkName(path, about);
    if (path.endsWith(".ts")) checkImports(path, text, files, about);
    if (path.startsWith("src/") && path.endsWith(".ts") && !path.endsWith(".test.ts")) {
      checkSource(path, text, files, about);
    }
    if (path.endsWith(".md")) checkLinks(path, text, files, exists, about);
  }
  checkVersion(files, complaints);
  return complaints;
}

type About = (complaint: string) => void;

function checkLicence(text: string, about: About): void {
  const lines = text.split("\n", 2);
  const first = lines[0]!.startsWith("#!") ? lines[1] : lines[0];
  if (!/^(?:\/\/|#) SPDX-License-Identifier: BSD-2-Clause$/.test(first ?? "")) {
    about("does not begin with its SPDX line");
  }
}

function checkName(path: string, about: About): void {
  for (const part of path.split("/")) {
    const name = part.split(".", 1)[0]!;
    if (VAGUE.test(name)) about(`"${name}" does not say what is inside`);
  }
  if (posix.basename(path) === "index.ts")
    about("a barrel: import the file that defines the thing");
}

function checkImports(
  path: string,
  text: string,
  files: ReadonlyMap<string, string>,
  about: About,
): void {
  const test = path.endsWith(".test.ts");
  for (const wanted of importsOf(text)) {
    const from = path.startsWith("src/") && !test ? layerOf(path) : null;
    if (!wanted.startsWith(".")) {
      if (from === null) continue;
      if (wanted.startsWith("node:")) {
        if (from !== "platform/node" && from !== "bin") about(`imports ${wanted}`);
      } else if (PACKAGES[wanted] !== from) {
        about(`imports the package ${wanted}`);
      }
      continue;
    }
    const target = posix.join(posix.dirname(path), wanted);
    if (!wanted.endsWith(".ts")) about(`imports ${wanted}, which does not end in .ts`);
    else if (!files.has(target)) about(`imports ${wanted}, which does not exist`);
    if (from === null || from === "bin") continue;
    const to = layerOf(target);
    if (to === from || to === "base") continue;
    if (ARROWS[from] === undefined) about(`lies in src/${from}, which no arrow mentions`);
    else if (!ARROWS[from].includes(to)) about(`imports ${wanted}: no arrow ${from} → ${to}`);
  }
}

function checkSource(
  path: string,
  text: string,
  files: ReadonlyMap<string, string>,
  about: About,
): void {
  const layer = layerOf(path);
  if (!text.split("\n", 2)[1]?.startsWith("/**")) about("does not open with a doc comment");
  if (/^export\b[^;{(]*(?:\{[^}]*\}\s*)?\bfrom\s*"/m.test(code(text, "keep strings"))) {
    about("re-exports: import the file that defines the thing");
  }
  const bare = code(text, "blank strings");
  if (layer !== "platform/node") {
    for (const ambient of AMBIENT) {
      const found = ambient.exec(bare);
      if (found === null || (layer === "bin" && BIN_MAY.test(found[0]))) continue;
      about(`uses ${found[0]}; time, chance and the process belong to platform/node`);
    }
  }
  if (layer === "replication" || layer === "nbd") {
    const found = PROMISES.exec(bare);
    if (found !== null) about(`uses ${found[0].trim()}; there are no promises in src/${layer}`);
  }
  if (TESTED.includes(layer) && runs(text) && UNTESTED[path] === undefined) {
    const test = path.replace(/\.ts$/, ".test.ts");
    if (!files.has(test)) about("has no unit test beside it");
  }
}

function checkLinks(
  path: string,
  text: string,
  files: ReadonlyMap<string, string>,
  exists: (path: string) => boolean,
  about: About,
): void {
  const prose = text.replace(/^```.*?^```/gms, "").replace(/`[^`\n]*`/g, "");
  for (const [, link] of prose.matchAll(/\]\(\s*<?([^)\s>]+)>?[^)]*\)/g)) {
    if (/^[a-z]+:/.test(link!)) continue;
    const [file, anchor] = link!.split("#", 2);
    const target = file === "" ? path : posix.join(posix.dirname(path), decodeURI(file!));
    const content = files.get(target);
    if (content === undefined && !exists(target)) about(`links to ${link}, which does not exist`);
    else if (anchor && content !== undefined && !anchorsOf(content).has(anchor)) {
      about(`links to ${link}: ${target} has no such heading`);
    }
  }
}

function checkVersion(files: ReadonlyMap<string, string>, complaints: string[]): void {
  const version: unknown = JSON.parse(files.get("package.json")!).version;
  const top = /^## (\S+)/m.exec(files.get("CHANGELOG.md") ?? "")?.[1];
  if (top !== version) {
    complaints.push(`CHANGELOG.md: its top entry is ${top}, package.json says ${version}`);
  }
}

/** src/replication/lanes.ts → replication; src/platform/node/net.ts → platform/node; test/x.ts → test. */
function layerOf(path: string): string {
  if (path.startsWith("src/platform/node/")) return "platform/node";
  const [top, folder] = path.split("/");
  return top === "src" ? folder! : top!;
}

/** Every module a source names: import, import type, export from, import() of a value or a type. */
function importsOf(text: string): string[] {
  const source = code(text, "keep strings");
  const named = source.matchAll(/^\s*(?:import|export)\b[^;"]*\bfrom\s*"([^"]+)"/gm);
  const bare = source.matchAll(/^\s*import\s*"([^"]+)"/gm);
  const called = source.matchAll(/\bimport\(\s*"([^"]+)"/g);
  return [...named, ...bare, ...called].map((match) => match[1]!);
}

/**
 * The source without its comments and, where asked, without the text of its strings. Only strings
 * that contain quotes are in single ones (Biome sees to it), and no module is called so.
 */
function code(text: string, strings: "keep strings" | "blank strings"): string {
  const token =
    /"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`|\/\/[^\n]*|\/\*[\s\S]*?\*\//g;
  return text.replace(token, (found) => {
    if (found.startsWith("/")) return " ";
    if ((strings === "keep strings" && found.startsWith('"')) || found.startsWith("`"))
      return found;
    return '""';
  });
}

/** Whether a source declares something besides types. */
function runs(text: string): boolean {
  return /^(?:export )?(?:async )?(?:const|let|function|class)\b/m.test(code(text, "keep strings"));
}

/** The anchors that GitHub and its kin make of a document's headings. */
function anchorsOf(markdown: string): Set<string> {
  const anchors = new Set<string>();
  const prose = markdown.replace(/^```.*?^```/gms, "");
  for (const [, heading] of prose.matchAll(/^#+ +(.+?) *$/gm)) {
    const slug = heading!
      .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\p{M}\s_-]/gu, "")
      .replace(/\s/g, "-");
    let anchor = slug;
    for (let copy = 1; anchors.has(anchor); copy++) anchor = `${slug}-${copy}`;
    anchors.add(anchor);
  }
  return anchors;
}

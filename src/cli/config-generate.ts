// SPDX-License-Identifier: BSD-2-Clause
/**
 * `hastctl config generate`: writes the files of a pair of nodes, here and, with --push, there. Ours.
 *
 *   hastctl config generate alpha=10.0.0.1 beta=10.0.0.2 shared=/dev/sdb
 *
 *   1. make    the texts, and read hast.conf as both nodes will
 *   2. look    on each node: nothing that exists is overwritten without --force
 *   3. write   on each node: each file whole or not at all; then component files of a given size
 *
 * What is done on a node is one shell script, the same here and over ssh; --dry-run prints it instead.
 */
import { formatComplaint } from "../config/complaint.ts";
import { isNode, type NodeIdentity, readConfig } from "../config/config.ts";
import { ipBytes, parseAddress } from "../wire/address.ts";
import { WireError } from "../wire/error.ts";
import { type Desk, type FileCommand, type Options, printError } from "./command.ts";
import { EX_CANTCREAT, EX_DATAERR, EX_OK, EX_UNAVAILABLE, EX_USAGE } from "./exit-code.ts";
import { parseSize } from "./human-size.ts";
import {
  failoverFiles,
  type GeneratedFile,
  hastConf,
  type Pair,
  type PairNode,
  type PairResource,
  type Service,
} from "./pair-files.ts";

/** ssh's own exit code for a connection that failed. */
const SSH_FAILED = 255;
/** The look's: a file is there. */
const EXISTS = 3;

export const configGenerate: FileCommand = {
  name: "config generate",
  options: [
    { flag: "--output", argument: "file" },
    { flag: "--service", argument: "address/bits" },
    { flag: "--interface", argument: "name" },
    { flag: "--push", argument: null },
    { flag: "--dry-run", argument: null },
    { flag: "--force", argument: null },
  ],
  synopsis: "node=address node=address resource=path[,path][@size] ...",
  refuse(args, options) {
    const pair = pairOf(args);
    if (typeof pair === "string") return pair;
    return refuseOptions(options, pair);
  },
  async runAtDesk(args, options, desk) {
    const pair = pairOf(args) as Pair;
    const output = options.get("--output");
    const text = hastConf(pair);
    if (!isGood(text, pair, output ?? "hast.conf", desk)) return EX_DATAERR;
    if (output === undefined) {
      desk.terminal.out(text);
      return EX_OK;
    }
    const service = serviceOf(options);
    const files = [{ path: output, text, mode: 0o644 }];
    if (service !== null) {
      const directory = `${output.replace(/\/[^/]*$/, "")}/hast-failover`;
      const password = options.has("--dry-run") ? "(random)" : randomPassword(desk);
      const place = { directory, configPath: output, password };
      files.push(...failoverFiles(pair, service, place, desk.contrib));
    }
    const hosts = hostsOf(pair, options, desk.here);
    if (hosts === null) {
      const [first, second] = pair.nodes;
      printError(desk.terminal, null, [
        `This machine is ${desk.here.names[0]}, neither ${first.name} nor ${second.name}.`,
        "Say with -n which of them it is, or generate on one of them.",
      ]);
      return EX_USAGE;
    }
    return install(files, hosts, options, desk);
  },
};

/** A machine to write on. */
interface Host {
  readonly name: string;
  /** For ssh; null for this machine. */
  readonly destination: string | null;
  /** Component files to be made. */
  readonly components: readonly { readonly path: string; readonly size: number }[];
}

/** @returns this machine, and with --push the other; null where this machine would have to be one of the pair */
function hostsOf({ nodes, resources }: Pair, options: Options, here: NodeIdentity): Host[] | null {
  const local = nodes.findIndex(({ name }) => isNode(name, here));
  const makesFiles = resources.some(({ size }) => size !== null);
  if (local < 0) {
    const known = !options.has("--push") && !makesFiles;
    return known ? [{ name: "this machine", destination: null, components: [] }] : null;
  }
  const host = (index: number, destination: string | null): Host => ({
    name: nodes[index]!.name,
    destination,
    components: resources.flatMap(({ locals, size }) =>
      size === null ? [] : [{ path: locals[index]!, size }],
    ),
  });
  const hosts = [host(local, null)];
  if (options.has("--push")) {
    const address = parseAddress(nodes[1 - local]!.address);
    hosts.push(host(1 - local, address.kind === "tcp" ? address.host : null));
  }
  return hosts;
}

async function install(
  files: readonly GeneratedFile[],
  hosts: readonly Host[],
  options: Options,
  desk: Desk,
): Promise<number> {
  const { terminal } = desk;
  const force = options.has("--force");
  const steps = hosts.map((host) => ({
    host,
    look: lookScript(files),
    write: writeScript(files, host, force),
  }));
  if (options.has("--dry-run")) {
    for (const { host, look, write } of steps) {
      const how = `Would run on ${host.name}, with: ${argvOf(host).join(" ")}`;
      terminal.out(`# ${how}\n${force ? "" : look}${write}\n`);
    }
    return EX_OK;
  }
  for (const phase of force ? (["write"] as const) : (["look", "write"] as const)) {
    for (const step of steps) {
      const result = await desk.runProgram(argvOf(step.host), step[phase]);
      if (!("exitCode" in result) || result.exitCode !== 0) {
        return sayFailure(desk, step.host, phase, result);
      }
    }
  }
  for (const { name } of hosts) {
    for (const { path } of files) terminal.out(`${name}: wrote ${path}\n`);
  }
  return EX_OK;
}

/** @returns the exit code */
function sayFailure(
  { terminal }: Desk,
  host: Host,
  phase: "look" | "write",
  result: Awaited<ReturnType<Desk["runProgram"]>>,
): number {
  const unreached = "failure" in result || result.exitCode === SSH_FAILED;
  if (unreached) {
    const [program, ...rest] = argvOf(host);
    const reason = "failure" in result ? result.failure : "see above";
    printError(terminal, null, [
      `${program} could not be run for ${host.name}: ${reason}.`,
      phase === "look" ? "Nothing was written. This has to work first:" : "This has to work first:",
      `  ${[program, ...rest.slice(0, -1), "true"].join(" ")}`,
    ]);
    return EX_UNAVAILABLE;
  }
  printError(
    terminal,
    null,
    phase === "look" && result.exitCode === EXISTS
      ? [
          `On ${host.name} there are such files already; nothing was written.`,
          "To see what would be written add --dry-run; to overwrite them, --force.",
        ]
      : [
          `Writing on ${host.name} failed; the lines above say why.`,
          "Once that is mended, run it again with --force: what is there already is written again.",
        ],
  );
  return EX_CANTCREAT;
}

function argvOf({ destination }: Host): readonly string[] {
  return destination === null ? ["sh"] : ["ssh", destination, "sh"];
}

/** Paths are of hast.conf's characters, by its parser or refuseOptions(): there is no quote in them. */
function quoted(path: string): string {
  return `'${path}'`;
}

function lookScript(files: readonly GeneratedFile[]): string {
  const paths = files.map(({ path }) => quoted(path)).join(" ");
  return `found=0
for file in ${paths}; do
  if [ -e "$file" ] || [ -L "$file" ]; then echo "$(uname -n): $file exists" >&2; found=${EXISTS}; fi
done
[ $found = 0 ] || exit $found
`;
}

function writeScript(files: readonly GeneratedFile[], host: Host, force: boolean): string {
  const lines = ["set -eu", "umask 022"];
  for (const { path, text, mode } of files) {
    const directory = path.includes("/") ? path.replace(/\/[^/]*$/, "") || "/" : ".";
    const fresh = quoted(`${path}.new`);
    lines.push(
      `mkdir -p ${quoted(directory)}`,
      `rm -f ${fresh}`,
      // Never readable by more than it shall be, not even for a moment.
      `(umask 077; cat >${fresh} <<'END OF FILE'`,
      `${text}END OF FILE`,
      ")",
      `chmod ${mode.toString(8)} ${fresh}`,
      force
        ? `mv -f ${fresh} ${quoted(path)}`
        : `ln ${fresh} ${quoted(path)} && rm ${fresh} # fails if it exists by now`,
    );
  }
  for (const { path, size } of host.components) {
    lines.push(
      `mkdir -p ${quoted(path.replace(/\/[^/]*$/, "") || "/")}`,
      // What exists keeps its content and its size.
      `[ -e ${quoted(path)} ] || truncate -s ${size} ${quoted(path)}`,
    );
  }
  return lines.map((line) => `${line}\n`).join("");
}

/** Reads the text as each node will. What is wrong has then been said. */
function isGood(text: string, { nodes }: Pair, file: string, { terminal }: Desk): boolean {
  for (const { name } of nodes) {
    const result = readConfig(text, file, { names: [name], uuid: null, hostid: null });
    if (result.kind === "config") continue;
    for (const complaint of result.complaints) {
      const line = text.split("\n")[complaint.line - 1]!.trim();
      printError(terminal, null, [
        `What you asked for makes a hast.conf that hastd refuses: ${formatComplaint(complaint)}`,
        `The line is: ${line}`,
      ]);
    }
    return false;
  }
  return true;
}

/** 16 characters: ucarp takes no more than 19. */
function randomPassword({ entropy }: Desk): string {
  const bytes = new Uint8Array(8);
  entropy.fill(bytes);
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @returns the pair, or what is wrong with the arguments */
function pairOf(args: readonly string[]): Pair | string {
  const [first, second, ...rest] = args;
  if (first === undefined || second === undefined || rest.length === 0) {
    return "name both nodes, then at least one resource: alpha=10.0.0.1 beta=10.0.0.2 shared=/dev/sdb";
  }
  const nodes = [nodeOf(first), nodeOf(second)] as const;
  for (const node of nodes) if (typeof node === "string") return node;
  const [alpha, beta] = nodes as readonly [PairNode, PairNode];
  if (alpha.name === beta.name) return `two nodes are needed, not ${alpha.name} twice`;
  if (alpha.address === beta.address) return `two nodes cannot share the address ${alpha.address}`;
  const resources: PairResource[] = [];
  for (const text of rest) {
    const resource = resourceOf(text);
    if (typeof resource === "string") return resource;
    resources.push(resource);
  }
  return { nodes: [alpha, beta], resources };
}

function nodeOf(text: string): PairNode | string {
  const [name, address, more] = text.split("=");
  if (!name || !address || more !== undefined) return `"${text}" is no node: write NAME=ADDRESS`;
  try {
    if (parseAddress(address).kind !== "tcp") return `"${address}" is no network address`;
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    return error.message;
  }
  return { name, address };
}

function resourceOf(text: string): PairResource | string {
  const match = /^([^=,@]+)=([^=,@]+)(?:,([^=,@]+))?(?:@([^=,@]+))?$/.exec(text);
  if (match === null) {
    return `"${text}" is no resource: write NAME=PATH, NAME=PATH,OTHERPATH or NAME=PATH@SIZE`;
  }
  const [, name, path, otherPath, sizeText] = match;
  const size = sizeText === undefined ? null : parseSize(sizeText);
  if (sizeText !== undefined && !size)
    return `"${sizeText}" is no size: write a number, with k, m, g or t`;
  return { name: name!, locals: [path!, otherPath ?? path!], size };
}

function refuseOptions(options: Options, { resources }: Pair): string | null {
  const output = options.get("--output");
  const service = options.get("--service");
  const needsFile = ["--service", "--push", "--dry-run", "--force"].find((each) =>
    options.has(each),
  );
  if (output === undefined) {
    if (needsFile !== undefined) return `${needsFile} needs --output: say where hast.conf shall be`;
    if (resources.some(({ size }) => size !== null)) {
      return "files of a given size are made when hast.conf is written: add --output";
    }
    return null;
  }
  if (!/^[A-Za-z0-9._/-]+$/.test(output) || output.startsWith("-") || output.endsWith("/")) {
    return `--output: "${output}" is not accepted; write the path of a file, of A-Z a-z 0-9 . _ / -`;
  }
  if (!output.startsWith("/") && (options.has("--service") || options.has("--push"))) {
    return "--service and --push need an absolute path in --output, such as /etc/hast.conf";
  }
  if ((service === undefined) !== !options.has("--interface")) {
    return "--service and --interface go together: the address, and where it shall be";
  }
  if (service !== undefined && serviceOf(options) === null) {
    return "write the service address as --service 10.0.0.10/24 --interface eth0";
  }
  return null;
}

/** @returns null where there is none, or where it makes no sense */
function serviceOf(options: Options): Service | null {
  const match = /^([0-9a-fA-F.:]+)\/([0-9]{1,3})$/.exec(options.get("--service") ?? "");
  const name = options.get("--interface") ?? "";
  if (match === null || !/^[A-Za-z0-9._-]{1,15}$/.test(name)) return null;
  const bytes = ipBytes(match[1]!);
  const prefix = Number(match[2]);
  if (bytes === null || prefix < 1 || prefix > bytes.length * 8) return null;
  return { address: match[1]!, prefix, interface: name };
}

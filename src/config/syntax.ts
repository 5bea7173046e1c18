// SPDX-License-Identifier: BSD-2-Clause
/**
 * hast.conf as a tree, every node's sections included.
 *
 *   file     = { global | "on" NODE "{" … "}" | resource }
 *   resource = "resource" NAME "{" { setting | "on" NODE "{" … "}" } "}"
 *   setting  = KEYWORD VALUE
 *
 * STATEMENTS says which keyword is accepted where. Beyond the original: `export`, `device`, `gate`,
 * `exectimeout`, `user`, `control…` and `tls…`, `remote` at resource level, every error of a file in one go, and values checked as they are read.
 * Source: FreeBSD sbin/hastd/parse.y; behaviour §15.
 */
import { unreachable } from "../base/assert.ts";
import { type Address, parseAddress } from "../wire/address.ts";
import { WireError } from "../wire/error.ts";
import type { Complaint } from "./complaint.ts";
import { type Position, type Token, tokenize } from "./lexer.ts";

export type Replication = "fullsync" | "memsync" | "async";
export type Checksum = "none" | "crc32" | "sha256";
export type Compression = "none" | "hole" | "lzf";
/** Of an export on TCP: `auto` = required unless the address is this machine's own. */
export type ExportTls = "auto" | "required" | "off";
export type Device = "auto" | "nbd" | "ublk" | "fuse" | "none";

/** A value and where it stands. */
export interface Setting<Value> {
  readonly value: Value;
  readonly at: Position;
}

/** What one section says; absent = not said here. Of a repeated statement the last one counts. */
export interface Settings {
  control?: Setting<string>;
  /** Names of the user and the group of the control socket. */
  controlowner?: Setting<string>;
  controlgroup?: Setting<string>;
  /** Permission bits. */
  controlmode?: Setting<number>;
  pidfile?: Setting<string>;
  user?: Setting<string>;
  /** Accumulates. */
  readonly listen: Setting<string>[];
  /** Statements whose value made no sense: complained about, so not missing. */
  readonly unsound: Set<string>;
  replication?: Setting<Replication>;
  checksum?: Setting<Checksum>;
  compression?: Setting<Compression>;
  timeout?: Setting<number>;
  exec?: Setting<string>;
  exectimeout?: Setting<number>;
  gate?: Setting<string>;
  metaflush?: Setting<boolean>;
  name?: Setting<string>;
  local?: Setting<string>;
  remote?: Setting<string>;
  source?: Setting<string>;
  export?: Setting<string>;
  exporttls?: Setting<ExportTls>;
  device?: Setting<Device>;
  arbiter?: Setting<boolean>;
  tlsdir?: Setting<string>;
  /** "sha256:" and 64 lower-case hexadecimal digits, or "none". */
  tlspeer?: Setting<string>;
}

export interface NodeSection {
  /** What follows `on`: a host name, a UUID, or "hostid" and a number. */
  readonly node: string;
  readonly at: Position;
  readonly settings: Settings;
}

export interface ResourceSection {
  readonly name: string;
  readonly at: Position;
  readonly settings: Settings;
  readonly nodes: readonly NodeSection[];
}

export interface SyntaxTree {
  readonly settings: Settings;
  readonly nodes: readonly NodeSection[];
  readonly resources: readonly ResourceSection[];
}

type Level = "global" | "node" | "resource" | "resource-node";
type Keyword = Exclude<keyof Settings, "unsound">;

/** Where each statement is accepted. */
export const STATEMENTS: Readonly<Record<Keyword, readonly Level[]>> = {
  control: ["global", "node"],
  controlowner: ["global", "node"],
  controlgroup: ["global", "node"],
  controlmode: ["global", "node"],
  pidfile: ["global", "node"],
  user: ["global", "node"],
  listen: ["global", "node"],
  replication: ["global", "resource"],
  checksum: ["global", "resource"],
  compression: ["global", "resource"],
  timeout: ["global", "resource"],
  exec: ["global", "resource"],
  exectimeout: ["global", "resource"],
  gate: ["global", "resource"],
  metaflush: ["global", "resource", "resource-node"],
  name: ["resource", "resource-node"],
  local: ["resource", "resource-node"],
  remote: ["resource", "resource-node"],
  source: ["resource-node"],
  export: ["global", "node", "resource", "resource-node"],
  exporttls: ["global", "node", "resource", "resource-node"],
  device: ["global", "node", "resource", "resource-node"],
  arbiter: ["global", "resource", "resource-node"],
  tlsdir: ["global", "node"],
  tlspeer: ["global", "node", "resource", "resource-node"],
};

/** Words the original reserves, so never a name or a path. Our own keywords stay usable. */
const RESERVED: ReadonlySet<string> = new Set(
  (
    "control pidfile listen replication checksum compression timeout exec metaflush resource " +
    "name local remote source on off fullsync memsync async none crc32 sha256 hole lzf"
  ).split(" "),
);

const NAME_MAX = 254; // bytes; values are ASCII
const TEXT_MAX = 1023; // bytes
/** Seconds; beyond it, milliseconds would not fit the timers' 31 bits. */
const TIMEOUT_MAX = 2147483;

const PLACES: Readonly<Record<Level, string>> = {
  global: "outside all sections",
  node: "in an on section",
  resource: "in a resource section",
  "resource-node": "in an on section of a resource",
};

/**
 * Parses the text of a hast.conf.
 *
 * @returns the tree of all that made sense, and what did not, in the order of the text; with
 *   complaints the tree is for further checks only, never for use
 */
export function parseSyntax(
  text: string,
  file: string,
): { readonly tree: SyntaxTree; readonly complaints: Complaint[] } {
  const parser = new Parser(text, file);
  return { tree: parser.file(), complaints: parser.complaints };
}

class Parser {
  readonly complaints: Complaint[] = [];
  readonly #file: string;
  readonly #tokens: readonly Token[];
  #index = 0;

  constructor(text: string, file: string) {
    this.#file = file;
    this.#tokens = tokenize(text, (at, message) => this.#complain(at, message));
  }

  file(): SyntaxTree {
    const settings: Settings = { listen: [], unsound: new Set() };
    const nodes: NodeSection[] = [];
    const resources: ResourceSection[] = [];
    for (;;) {
      const token = this.#next();
      if (token.kind === "end") break;
      if (token.kind === "}") {
        this.#complain(token.at, "this } closes nothing; remove it, or a { is missing above");
      } else if (token.text === "on") {
        nodes.push(...this.#node("node"));
      } else if (token.text === "resource") {
        resources.push(...this.#resource());
      } else {
        this.#statement(token, "global", settings);
      }
    }
    this.complaints.sort((a, b) => a.line - b.line || a.column - b.column);
    return { settings, nodes, resources };
  }

  /** `resource` has been read. @returns none where its name makes no sense */
  #resource(): ResourceSection[] {
    const settings: Settings = { listen: [], unsound: new Set() };
    const nodes: NodeSection[] = [];
    const name = this.#sectionName("resource");
    if (name?.value === "all") {
      this.#complain(
        name.at,
        'no resource can be called "all": to hastctl it means every resource',
      );
    }
    this.#section(`resource ${name?.value ?? ""}`.trimEnd(), "resource", settings, nodes);
    return name === null ? [] : [{ name: name.value, at: name.at, settings, nodes }];
  }

  /** `on` has been read. */
  #node(level: "node" | "resource-node"): NodeSection[] {
    const settings: Settings = { listen: [], unsound: new Set() };
    const name = this.#sectionName("on");
    this.#section(`on ${name?.value ?? ""}`.trimEnd(), level, settings, []);
    return name === null ? [] : [{ node: name.value, at: name.at, settings }];
  }

  #sectionName(keyword: "on" | "resource"): Setting<string> | null {
    const token = this.#peek();
    const what = keyword === "on" ? "the name of a node" : "the name of the resource";
    if (token.kind !== "word") {
      this.#complain(token.at, `expected ${what} after "${keyword}", found ${describe(token)}`);
      return null;
    }
    this.#next();
    const sound = this.#checkName(token, what);
    return sound ? { value: token.text, at: token.at } : null;
  }

  /** From "{" to the matching "}". `title` names the section in messages. */
  #section(title: string, level: Level, settings: Settings, nodes: NodeSection[]): void {
    const open = this.#peek();
    if (open.kind !== "{") {
      this.#complain(open.at, `expected { after "${title}", found ${describe(open)}`);
      // Words up to a brace on this line belong to the mistake: "resource my disk {".
      this.#skipLine(open.at.line);
      if (this.#peek().kind !== "{") return;
    }
    this.#next();
    for (;;) {
      const token = this.#peek();
      if (token.kind === "end") {
        this.#complain(open.at, `the { of "${title}" is never closed; add a }`);
        return;
      }
      if (token.text === "resource" || (token.text === "on" && level !== "resource")) {
        const message = `"${token.text}" cannot stand ${PLACES[level]}; the } of "${title}", opened in line ${open.at.line}, seems to be missing`;
        this.#complain(token.at, message);
        return;
      }
      this.#next();
      if (token.kind === "}") return;
      if (token.text === "on") nodes.push(...this.#node("resource-node"));
      else this.#statement(token, level, settings);
    }
  }

  /** `word` has been read: a keyword, or a mistake. */
  #statement(word: Token, level: Level, settings: Settings): void {
    if (word.kind === "{") {
      this.#complain(word.at, 'a { can only follow "resource NAME" or "on NODE"');
      this.#index -= 1;
      this.#skipBlock();
      return;
    }
    if (!isKeyword(word.text)) {
      if (word.sound) this.#complain(word.at, unknownStatement(word, level));
      this.#skipLine(word.at.line);
      this.#skipBlock();
      return;
    }
    const keyword = word.text;
    const levels = STATEMENTS[keyword];
    const welcome = levels.includes(level);
    if (!welcome) {
      const places = levels.map((each) => PLACES[each]).join(", or ");
      this.#complain(word.at, `"${keyword}" is not accepted ${PLACES[level]}, only ${places}`);
    }
    const token = this.#peek();
    if (token.kind !== "word" || isNextStatement(word, token)) {
      settings.unsound.add(keyword);
      this.#complain(token.at, `"${keyword}" needs a value, found ${describe(token)}`);
      // "listen {": the braces are part of the mistake.
      if (token.kind === "{") this.#skipBlock();
      return;
    }
    this.#next();
    if (!welcome) return;
    const known = this.complaints.length;
    if (token.sound) this.#assign(keyword, token, settings);
    if (!token.sound || this.complaints.length > known) settings.unsound.add(keyword);
  }

  #assign(keyword: Keyword, token: Token, settings: Settings): void {
    const at = token.at;
    switch (keyword) {
      case "control":
      case "source":
      case "remote":
      case "export":
        if (this.#checkText(keyword, token) && this.#checkAddress(keyword, token)) {
          settings[keyword] = { value: token.text, at };
        }
        break;
      case "listen":
        if (this.#checkText(keyword, token) && this.#checkAddress(keyword, token)) {
          settings.listen.push({ value: token.text, at });
        }
        break;
      case "pidfile":
      case "exec":
      case "gate":
      case "local":
      case "tlsdir":
        if (this.#checkText(keyword, token) && this.#checkPath(keyword, token)) {
          settings[keyword] = { value: token.text, at };
        }
        break;
      case "name":
        if (this.#checkName(token, "a value of name")) settings.name = { value: token.text, at };
        break;
      case "user":
      case "controlowner":
      case "controlgroup":
        if (this.#checkName(token, `a value of ${keyword}`)) {
          settings[keyword] = { value: token.text, at };
        }
        break;
      case "controlmode": {
        const value = this.#mode(token);
        if (value !== null) settings.controlmode = { value, at };
        break;
      }
      case "timeout":
      case "exectimeout": {
        const value = this.#timeout(keyword, token);
        if (value !== null) settings[keyword] = { value, at };
        break;
      }
      case "arbiter":
      case "metaflush": {
        const value = this.#choice(keyword, token, ["on", "off"]);
        if (value !== null) settings[keyword] = { value: value === "on", at };
        break;
      }
      case "replication": {
        const value = this.#choice(keyword, token, ["fullsync", "memsync", "async"]);
        if (value !== null) settings.replication = { value, at };
        break;
      }
      case "checksum": {
        const value = this.#choice(keyword, token, ["none", "crc32", "sha256"]);
        if (value !== null) settings.checksum = { value, at };
        break;
      }
      case "compression": {
        const value = this.#choice(keyword, token, ["none", "hole", "lzf"]);
        if (value !== null) settings.compression = { value, at };
        break;
      }
      case "exporttls": {
        const value = this.#choice(keyword, token, ["auto", "required", "off"]);
        if (value !== null) settings.exporttls = { value, at };
        break;
      }
      case "tlspeer": {
        const value = this.#fingerprint(token);
        if (value !== null) settings.tlspeer = { value, at };
        break;
      }
      case "device": {
        const value = this.#choice(keyword, token, ["auto", "nbd", "ublk", "fuse", "none"]);
        if (value !== null) settings.device = { value, at };
        break;
      }
      default:
        unreachable(keyword);
    }
  }

  #choice<Word extends string>(
    keyword: Keyword,
    token: Token,
    words: readonly Word[],
  ): Word | null {
    const found = words.find((word) => word === token.text);
    if (found !== undefined) return found;
    this.#complain(token.at, `"${keyword}" is ${oneOf(words)}, not "${token.text}"`);
    return null;
  }

  #timeout(keyword: "timeout" | "exectimeout", token: Token): number | null {
    const value = /^[0-9]+$/.test(token.text) ? Number(token.text) : 0;
    if (value >= 1 && value <= TIMEOUT_MAX) return value;
    const message = `"${keyword}" is a number of seconds from 1 to ${TIMEOUT_MAX}, not "${token.text}"`;
    this.#complain(token.at, message);
    return null;
  }

  #mode(token: Token): number | null {
    if (/^0?[0-7]{3}$/.test(token.text)) return Number.parseInt(token.text, 8);
    const message = `"controlmode" is three octal digits, such as 660, not "${token.text}"`;
    this.#complain(token.at, message);
    return null;
  }

  /** With or without colons between the digits, as openssl(1) prints them. */
  #fingerprint(token: Token): string | null {
    if (token.text === "none") return "none";
    const digits = /^sha256:(.*)$/is.exec(token.text)?.[1]?.replaceAll(":", "").toLowerCase();
    if (digits !== undefined && /^[0-9a-f]{64}$/.test(digits)) return `sha256:${digits}`;
    const message = `"tlspeer" is sha256: and 64 hexadecimal digits, or none, not "${token.text}"; on the other node, hastctl tls show prints them`;
    this.#complain(token.at, message);
    return null;
  }

  /** What goes for every name, path and address. */
  #checkText(keyword: Keyword, token: Token): boolean {
    if (keyword === "remote" && token.text === "none") return true;
    const reason = reservedReason(token);
    if (reason !== null) {
      this.#complain(token.at, `"${keyword}" cannot be "${token.text}": ${reason}`);
      return false;
    }
    if (token.text.length > TEXT_MAX) {
      const message = `"${keyword}" has ${token.text.length} characters; at most ${TEXT_MAX} are accepted`;
      this.#complain(token.at, message);
      return false;
    }
    return true;
  }

  #checkName(token: Token, what: string): boolean {
    if (!token.sound) return false;
    const reason = reservedReason(token);
    if (reason !== null) {
      this.#complain(token.at, `"${token.text}" cannot be ${what}: ${reason}`);
      return false;
    }
    if (token.text.length > NAME_MAX) {
      const message = `${what} has ${token.text.length} characters; at most ${NAME_MAX} are accepted`;
      this.#complain(token.at, message);
      return false;
    }
    return true;
  }

  #checkPath(keyword: Keyword, token: Token): boolean {
    if (token.text.startsWith("/")) return true;
    const message = `"${keyword}" is "${token.text}"; write an absolute path, beginning with / (the daemon's working directory is /)`;
    this.#complain(token.at, message);
    return false;
  }

  #checkAddress(
    keyword: "control" | "listen" | "remote" | "source" | "export",
    token: Token,
  ): boolean {
    if (keyword === "remote" && token.text === "none") return true;
    let address: Address;
    try {
      address = parseAddress(token.text);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#complain(token.at, `"${keyword}": ${error.message}`);
      return false;
    }
    const wrong = wrongKind(keyword, address);
    if (wrong !== null) this.#complain(token.at, `"${keyword}" is "${token.text}": ${wrong}`);
    return wrong === null;
  }

  #peek(): Token {
    return this.#tokens[this.#index]!; // the last token is "end", and #next() stays on it
  }

  #next(): Token {
    const token = this.#peek();
    if (token.kind !== "end") this.#index += 1;
    return token;
  }

  /** Skips words up to the next line or brace. */
  #skipLine(line: number): void {
    for (let token = this.#peek(); token.kind === "word" && token.at.line === line; ) {
      this.#next();
      token = this.#peek();
    }
  }

  /** Skips a block in braces, if one comes next. */
  #skipBlock(): void {
    if (this.#peek().kind !== "{") return;
    let depth = 0;
    for (;;) {
      const token = this.#next();
      if (token.kind === "{") depth += 1;
      else if (token.kind === "}") depth -= 1;
      else if (token.kind === "end") this.#complain(token.at, "a } is missing");
      if (depth === 0 || token.kind === "end") return;
    }
  }

  #complain(at: Position, message: string): void {
    this.complaints.push({ file: this.#file, line: at.line, column: at.column, message });
  }
}

function isKeyword(word: string): word is Keyword {
  return Object.hasOwn(STATEMENTS, word);
}

/** Whether the value of `keyword` was forgotten, and `token` begins the next statement. */
function isNextStatement(keyword: Token, token: Token): boolean {
  const isSwitch = keyword.text === "metaflush" || keyword.text === "arbiter";
  if (isSwitch && token.text === "on") return false;
  if (token.text !== "on" && token.text !== "resource" && !isKeyword(token.text)) return false;
  return RESERVED.has(token.text) || token.at.line !== keyword.at.line;
}

function describe(token: Token): string {
  if (token.kind === "end") return "the end of the file";
  return token.kind === "word" ? `"${token.text}"` : token.text;
}

function oneOf(words: readonly string[]): string {
  return `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}

function unknownStatement(token: Token, level: Level): string {
  const known = Object.entries(STATEMENTS)
    .filter(([, levels]) => levels.includes(level))
    .map(([keyword]) => keyword);
  if (level === "global" || level === "resource") known.push("on");
  if (level === "global") known.push("resource");
  return `unknown statement "${token.text}"; ${PLACES[level]} there can be ${oneOf(known)}`;
}

/** Why the original's lexer would not take this word for a string. */
function reservedReason(token: Token): string | null {
  if (RESERVED.has(token.text)) return "that is a reserved word of hast.conf";
  if (/^[0-9]+$/.test(token.text)) return "digits alone are a number; add a letter";
  return null;
}

function wrongKind(
  keyword: "control" | "listen" | "remote" | "source" | "export",
  address: Address,
): string | null {
  if (keyword === "control") {
    return address.kind === "unix"
      ? null
      : "the control socket is local; write unix:///PATH or /PATH";
  }
  if (keyword === "export") {
    if (address.kind === "tls") return "write tcp://; exporttls says whether TLS is required there";
    const directory = address.kind === "unix" && address.path.endsWith("/");
    return directory ? "that names a directory; write the path of a socket" : null;
  }
  if (keyword === "remote" && address.kind === "tls") return null;
  if (keyword === "listen" && address.kind === "tls") {
    return "each listener takes both, TLS and not; write tcp://, and tls:// where it counts: in remote";
  }
  return address.kind === "tcp"
    ? null
    : "the nodes talk over TCP; write tcp://HOST or tcp://HOST:PORT";
}

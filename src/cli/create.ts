// SPDX-License-Identifier: BSD-2-Clause
/**
 * `hastctl create`: makes a file or a disk the local component of a resource.
 *
 *   1. look    refuse what is in use, what holds something, what does not fit
 *   2. erase   metadata that was there, so that no old block can vouch for a new map
 *   3. map     zeroes up to the data; all extents dirty with --adopt
 *   4. block   the metadata, its second copy first: what a power cut leaves before the block is no component
 *
 * Each step is flushed before the next. The original takes no lock, looks at nothing and does not flush.
 * Source: FreeBSD sbin/hastctl/hastctl.c, control_create(); on-disk layout §4, §5; behaviour BD-43.
 */
import { setBit } from "../base/bitmap.ts";
import type { ResourceConfig } from "../config/config.ts";
import {
  decodeMetadata,
  looksLikeMetadata,
  METADATA_SIZE,
  type Metadata,
  MetadataError,
} from "../metadata/block.ts";
import { copyWrites } from "../metadata/copies.ts";
import {
  checkParameters,
  createLayout,
  EXTENT_SIZE_DEFAULT,
  extentCount,
  KEEPDIRTY_DEFAULT,
  type Layout,
  trailerLayout,
  trailerMetadataOffset,
  trailerSize,
} from "../metadata/layout.ts";
import { type Component, ComponentError, componentAdvice } from "../platform/component.ts";
import type { Entropy } from "../platform/entropy.ts";
import { type Command, type Options, printError, type Surroundings } from "./command.ts";
import { readMetadataBlocks } from "./component-metadata.ts";
import { EX_DATAERR, EX_IOERR, EX_NOINPUT, EX_OK } from "./exit-code.ts";
import { parseSize } from "./human-size.ts";
import { findResource } from "./resource-by-name.ts";
import {
  recogniseHead,
  recogniseTail,
  SIGNATURE_HEAD_SIZE,
  SIGNATURE_TAIL_SIZE,
  type Signature,
} from "./signature.ts";

const WRITE_SIZE = 1024 * 1024; // bytes written at once
/** What a data size is rounded up to when a file is adopted: the unit of a layout on files. */
const FILE_BLOCK_SIZE = 4096;

const SIZES = [
  { flag: "-e", argument: "extentsize" },
  { flag: "-k", argument: "keepdirty" },
  { flag: "-m", argument: "mediasize" },
  { flag: "--datasize", argument: "size" },
] as const;

export const create: Command = {
  name: "create",
  options: [...SIZES, { flag: "--adopt", argument: null }, { flag: "--force", argument: null }],
  synopsis: "name ...",
  refuse(names, options) {
    for (const { flag, argument } of SIZES) {
      const text = options.get(flag);
      if (text === undefined || parseSize(text) !== null) continue;
      return `"${text}" is no ${argument}: write a number below 8p, with b, k, m, g, t or p for powers of 1024`;
    }
    if (options.has("--adopt") && options.has("-m")) {
      return "-m and --adopt exclude each other: say with --datasize how large the existing data is";
    }
    return names.length === 0 ? "name the resource whose local component shall be made" : null;
  },
  async run(names, options, surroundings) {
    const wish = wishOf(options);
    let exitCode = EX_OK;
    for (const name of names) {
      const resource = findResource(surroundings.config, name, surroundings.terminal);
      const code =
        resource === null ? EX_DATAERR : await createResource(resource, wish, surroundings);
      exitCode ||= code;
    }
    return exitCode;
  },
};

/** What the options ask for. */
interface Wish {
  readonly extentsize: number; // bytes
  readonly keepdirty: number; // extents
  /** Bytes of the component to use; null for all of it. */
  readonly mediaSize: number | null;
  /** Bytes of data; null for what fits. */
  readonly datasize: number | null;
  readonly adopt: boolean;
  readonly force: boolean;
  /** The sizes as they were typed, to be repeated in suggestions: "-e 1m --datasize 10g ", or "". */
  readonly typed: string;
}

function wishOf(options: Options): Wish {
  // As in the original, 0 asks for the default.
  const size = (flag: string): number | null => parseSize(options.get(flag) ?? "0") || null;
  return {
    extentsize: size("-e") ?? EXTENT_SIZE_DEFAULT,
    keepdirty: size("-k") ?? KEEPDIRTY_DEFAULT,
    mediaSize: size("-m"),
    datasize: size("--datasize"),
    adopt: options.has("--adopt"),
    force: options.has("--force"),
    typed: SIZES.filter(({ flag }) => options.has(flag))
      .map(({ flag }) => `${flag} ${options.get(flag)} `)
      .join(""),
  };
}

/** A reason not to do it: what is true, then what to do next. */
class Refusal extends Error {
  override readonly name = "Refusal";
  readonly lines: readonly string[];
  readonly exitCode: number;
  constructor(lines: readonly string[], exitCode: number = EX_DATAERR) {
    super(lines[0]!);
    this.lines = lines;
    this.exitCode = exitCode;
  }
}

async function createResource(
  resource: ResourceConfig,
  wish: Wish,
  surroundings: Surroundings,
): Promise<number> {
  const { terminal, openComponent } = surroundings;
  let component: Component;
  try {
    component = await openComponent(resource.local, "write");
  } catch (error) {
    if (!(error instanceof ComponentError)) throw error;
    printError(terminal, resource.name, openRefusal(resource, error, surroundings.suggest));
    return EX_NOINPUT;
  }
  const job = { resource, wish, component, suggest: surroundings.suggest };
  try {
    const plan = await (wish.adopt ? planAdoption : planCreation)(job);
    const metadata = freshMetadata(resource, plan, wish, surroundings.entropy);
    await writeComponent(component, plan, metadata);
    if (wish.adopt) sayAdopted(resource, metadata, surroundings);
    return EX_OK;
  } catch (error) {
    if (error instanceof Refusal) {
      printError(terminal, resource.name, error.lines);
      return error.exitCode;
    }
    if (error instanceof MetadataError) {
      printError(terminal, resource.name, [`${resource.local}: ${error.message}.`]);
      return EX_DATAERR;
    }
    if (error instanceof ComponentError) {
      printError(terminal, resource.name, [`${error.message}.`]);
      return EX_NOINPUT;
    }
    throw error;
  } finally {
    await component.close();
  }
}

/** One component to be made. */
interface Job {
  readonly resource: ResourceConfig;
  readonly wish: Wish;
  readonly component: Component;
  readonly suggest: Surroundings["suggest"];
}

/** What goes where, on a component of which size. */
interface Plan {
  readonly layout: Layout;
  /** Bytes: the component's size, or what a file must grow to. */
  readonly mediaSize: number;
}

/** For a component whose content may be lost. */
async function planCreation(job: Job): Promise<Plan> {
  const { wish, component } = job;
  const { size, sectorSize, kind } = component;
  const { extentsize, datasize } = wish;
  checkParameters({ extentsize, keepdirty: wish.keepdirty, sectorSize });
  const mediaSize = wish.mediaSize ?? size;
  if (mediaSize > size) {
    throw new Refusal([
      `-m asks for ${mediaSize} bytes, but ${component.path} has ${size}.`,
      "Enlarge it, or leave -m out to use all of it.",
    ]);
  }
  const layout = createLayout({ mediaSize, sectorSize, kind, extentsize, datasize });
  checkKeepDirty(wish, layout);
  if (!wish.force) await refuseContent(job, layout.datasize);
  return { layout, mediaSize: size };
}

/** Refuses what somebody may want to keep. @param datasize what the new component would have, bytes */
async function refuseContent(
  { resource, wish, component, suggest }: Job,
  datasize: number,
): Promise<void> {
  const { path, size } = component;
  const force = (sizes: string): string[] => [
    "If what it holds can go, throw it away with",
    `  ${suggest("create", `--force ${sizes}${resource.name}`)}`,
  ];
  const blocks = await readMetadataBlocks(component);
  for (const block of [blocks.first, blocks.last]) {
    if (block === null || !looksLikeMetadata(block)) continue;
    const old = readable(block);
    // The nodes agreed upon a size: the new component had better have it, too.
    const kept =
      old?.resource === resource.name && wish.typed === "" && old.datasize !== datasize
        ? `--datasize ${old.datasize} `
        : wish.typed;
    throw new Refusal([
      `${path} already holds HAST metadata, ${ownerOf(old, resource.name)}.`,
      `Look at it with: ${suggest("dump", resource.name)}`,
      "Creating it anew throws this copy away; all data then comes from the peer, if it has any.",
      ...force(kept),
    ]);
  }
  const found = await identify(component, { start: 0, end: size });
  if (found === null) return;
  const sizes = wish.mediaSize === null ? wish.typed : "";
  throw new Refusal([
    `${path} holds ${found.name}.`,
    `To replicate it as it is (see docs/adopt.md): ${suggest("create", `--adopt ${sizes}${resource.name}`)}`,
    ...force(wish.typed),
  ]);
}

/** For a component whose content becomes the resource's data. */
async function planAdoption(job: Job): Promise<Plan> {
  const { wish, component } = job;
  const { path, size, sectorSize, kind } = component;
  const { extentsize } = wish;
  checkParameters({ extentsize, keepdirty: wish.keepdirty, sectorSize });
  await refuseAdopted(job);
  if (kind === "block" && wish.datasize === null) {
    throw new Refusal([
      `${path} has ${size} bytes; how many of them are data, and how many are room for the metadata?`,
      "Enlarge the device, and give the size it had before: --datasize BYTES. See docs/adopt.md.",
    ]);
  }
  const datasize = wish.datasize ?? Math.ceil(size / FILE_BLOCK_SIZE) * FILE_BLOCK_SIZE;
  let mediaSize = size;
  if (kind === "file") {
    const blocks = Math.ceil(datasize / FILE_BLOCK_SIZE) * FILE_BLOCK_SIZE;
    mediaSize = Math.max(size, blocks + trailerSize({ datasize: blocks, extentsize }));
  }
  const layout = trailerLayout({ mediaSize, sectorSize, extentsize, datasize });
  checkKeepDirty(wish, layout);
  if (!wish.force) await refuseMisfit(job, datasize);
  return { layout, mediaSize };
}

/** Refuses what has HAST metadata already: adopting it again would replicate or destroy that. */
async function refuseAdopted({ resource, component, suggest }: Job): Promise<void> {
  const { path } = component;
  const { first, last } = await readMetadataBlocks(component);
  const block = looksLikeMetadata(first) ? first : last;
  if (block === null || !looksLikeMetadata(block)) return;
  throw new Refusal([
    `${path} already holds HAST metadata, ${ownerOf(readable(block), resource.name)}: it needs no adoption.`,
    `Look at it with: ${suggest("dump", resource.name)}`,
    ...(block === last ? ["To adopt it anew, cut the metadata off first: see docs/adopt.md."] : []),
  ]);
}

/** Refuses to adopt nothing, to cut off what is there, and to write over what lies behind it. */
async function refuseMisfit(
  { resource, component, suggest }: Job,
  datasize: number,
): Promise<void> {
  const { path, size } = component;
  const found = await identify(component, { start: 0, end: Math.min(datasize, size) });
  if (found === null) {
    throw new Refusal([
      `${path} holds nothing that is known to be worth keeping.`,
      `For an empty component: ${suggest("create", resource.name)}`,
      "To keep what it holds all the same, add --force.",
    ]);
  }
  if (found.size !== null && found.size > datasize) {
    throw new Refusal([
      `${path} holds ${found.name} of ${found.size} bytes; a data size of ${datasize} would cut it off.`,
      "Give the size it had before it was enlarged: --datasize BYTES. See docs/adopt.md.",
    ]);
  }
  const behind =
    size > datasize ? await identifyEnd(component, { start: datasize, end: size }) : null;
  if (behind !== null) {
    throw new Refusal([
      `The end of ${path}, where the metadata would go, holds ${behind.name}.`,
      "Enlarge it further, or, if that can go, add --force. See docs/adopt.md.",
    ]);
  }
}

/** What is known to lie in a part of a component. */
async function identify(component: Component, part: Part): Promise<Signature | null> {
  const size = Math.min(SIGNATURE_HEAD_SIZE, part.end - part.start);
  const found = recogniseHead(await component.readAt(part.start, size));
  return found ?? (await identifyEnd(component, part));
}

/** As identify(), of what keeps its mark at the end. */
async function identifyEnd(component: Component, { start, end }: Part): Promise<Signature | null> {
  const size = Math.min(SIGNATURE_TAIL_SIZE, end - start);
  return recogniseTail(await component.readAt(end - size, size), end);
}

interface Part {
  readonly start: number; // bytes
  readonly end: number; // bytes
}

function ownerOf(metadata: Metadata | null, resource: string): string {
  if (metadata === null) return "though damaged";
  return metadata.resource === resource
    ? "of this very resource"
    : `of resource ${metadata.resource}`;
}

/** Whosever metadata it is; null where it is damaged. */
function readable(block: Uint8Array): Metadata | null {
  try {
    return decodeMetadata(block, null);
  } catch (error) {
    if (!(error instanceof MetadataError)) throw error;
    return null;
  }
}

/** More extents kept dirty than there are: surely a slip. The default is always accepted. */
function checkKeepDirty(wish: Wish, layout: Layout): void {
  const extents = extentCount(layout.datasize, wish.extentsize);
  if (wish.keepdirty <= Math.max(extents, KEEPDIRTY_DEFAULT)) return;
  throw new Refusal([
    `-k asks to keep ${wish.keepdirty} extents dirty, but ${layout.datasize} bytes have ${extents}.`,
    `Leave -k out for the default of ${KEEPDIRTY_DEFAULT}, or choose smaller extents with -e.`,
  ]);
}

/**
 * Adopted data gets an id and a modification count of its own: a peer with a fresh component then takes all
 * of it, and a primary with any other id is refused. So this node cannot become a sync target by accident.
 */
function freshMetadata(
  resource: ResourceConfig,
  { layout }: Plan,
  { extentsize, keepdirty, adopt }: Wish,
  entropy: Entropy,
): Metadata {
  return {
    resource: resource.name,
    datasize: layout.datasize,
    extentsize,
    keepdirty,
    localoff: layout.localoff,
    resuid: adopt ? randomId(entropy) : 0n,
    localcnt: adopt ? 1n : 0n,
    remotecnt: 0n,
    prevrole: "init",
    state: "new",
    sequence: 1n,
    synced: null,
    aloneSince: null,
  };
}

function randomId(entropy: Entropy): bigint {
  const bytes = new Uint8Array(8);
  for (;;) {
    entropy.fill(bytes);
    const id = new DataView(bytes.buffer).getBigUint64(0, true);
    if (id !== 0n) return id; // 0 means "never paired"
  }
}

async function writeComponent(component: Component, plan: Plan, metadata: Metadata): Promise<void> {
  const sizeBefore = component.size;
  try {
    if (plan.mediaSize > sizeBefore) await component.resize(plan.mediaSize);
    await eraseMetadata(component);
    if (plan.layout.kind === "header") await writeCleanMap(component, plan.layout);
    else await writeDirtyMap(component, plan.layout, metadata);
    await component.flush();
    for (const { offset, bytes } of copyWrites(metadata, plan.layout, component.sectorSize)) {
      await component.writeAt(offset, bytes);
      await component.flush();
    }
  } catch (error) {
    if (!(error instanceof ComponentError)) throw error;
    if (component.size > sizeBefore) await component.resize(sizeBefore);
    const next =
      plan.layout.kind === "trailer"
        ? `Its data is untouched. When the cause is gone, run the command again.`
        : `${component.path} is no component now. When the cause is gone, run the command again with --force.`;
    throw new Refusal([`${error.message}.`, next], EX_IOERR);
  }
}

/** Makes metadata of an earlier life unreadable before anything it vouches for changes. */
async function eraseMetadata(component: Component): Promise<void> {
  const { first, last } = await readMetadataBlocks(component);
  if (mayBeMetadata(first)) await component.writeAt(0, new Uint8Array(METADATA_SIZE));
  const trailer = trailerMetadataOffset(component.size);
  if (trailer !== null && last !== null && mayBeMetadata(last)) {
    await component.writeAt(trailer, new Uint8Array(METADATA_SIZE));
  }
  await component.flush();
}

/** Zeroes may be those of an earlier attempt: if its flush failed, the cache has them, and the disk has not. */
function mayBeMetadata(block: Uint8Array): boolean {
  return looksLikeMetadata(block) || block.every((byte) => byte === 0);
}

/** Zeroes between metadata and data: the map, and the gap behind it with whatever once lay there. */
async function writeCleanMap(component: Component, layout: Layout): Promise<void> {
  const zeroes = new Uint8Array(WRITE_SIZE);
  for (let offset = layout.mapOffset; offset < layout.localoff; offset += WRITE_SIZE) {
    await component.writeAt(offset, zeroes.subarray(0, layout.localoff - offset));
  }
}

async function writeDirtyMap(
  component: Component,
  layout: Layout,
  { extentsize }: Metadata,
): Promise<void> {
  const extents = extentCount(layout.datasize, extentsize);
  const map = new Uint8Array(layout.mapSize);
  map.fill(0xff, 0, Math.floor(extents / 8));
  for (let extent = extents - (extents % 8); extent < extents; extent++) setBit(map, extent);
  await component.writeAt(layout.mapOffset, map);
}

function sayAdopted(
  resource: ResourceConfig,
  metadata: Metadata,
  { terminal, suggest }: Surroundings,
): void {
  const extents = metadata.extentsize === EXTENT_SIZE_DEFAULT ? "" : ` -e ${metadata.extentsize}`;
  const lines = [
    `[${resource.name}] ${resource.local}: ${metadata.datasize} bytes of data stay where they are, all marked dirty.`,
    "  From now on use them through the resource only. On the other node, with an empty component:",
    `    hastctl create --datasize ${metadata.datasize}${extents} ${resource.name}`,
    `    hastctl role secondary ${resource.name}`,
    "  Then on this one; all data is copied from here:",
    `    ${suggest("role", `primary ${resource.name}`)}`,
  ];
  terminal.out(lines.map((line) => `${line}\n`).join(""));
}

function openRefusal(
  resource: ResourceConfig,
  error: ComponentError,
  suggest: Surroundings["suggest"],
): string[] {
  const { name, local } = resource;
  const first = `${error.message}.`;
  if (error.code === "component-locked") {
    return [first, "Stop that first:", `  ${suggest("role", `init ${name}`)}`];
  }
  const advice = componentAdvice(error.code, local);
  return advice === null ? [first] : [first, advice];
}

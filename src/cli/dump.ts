// SPDX-License-Identifier: BSD-2-Clause
/**
 * `hastctl dump`: the metadata as it is on the disk, whether or not a daemon runs. Locks nothing, changes nothing.
 * Source: FreeBSD sbin/hastctl/hastctl.c, control_dump(); behaviour §16.2.
 */
import type { ResourceConfig } from "../config/config.ts";
import {
  decodeMetadata,
  looksLikeMetadata,
  type Metadata,
  MetadataError,
  metadataAdvice,
} from "../metadata/block.ts";
import { findMetadata } from "../metadata/copies.ts";
import { type Component, ComponentError, componentAdvice } from "../platform/component.ts";
import { type Command, printError, printWarning, type Surroundings } from "./command.ts";
import { readMetadataBlocks } from "./component-metadata.ts";
import { EX_DATAERR, EX_DUMP, EX_OK } from "./exit-code.ts";
import { humanSize } from "./human-size.ts";
import { findResource } from "./resource-by-name.ts";

export const dump: Command = {
  name: "dump",
  options: [],
  synopsis: "[all | name ...]",
  refuse: () => null,
  async run(names, _options, surroundings) {
    const { config, terminal } = surroundings;
    const all = names.length === 0 || names[0] === "all";
    const wanted = all ? config.resources.map((each) => each.name) : names;
    let exitCode = EX_OK;
    for (const name of wanted) {
      const resource = findResource(config, name, terminal);
      const code = resource === null ? EX_DATAERR : await dumpResource(resource, surroundings);
      exitCode ||= code;
    }
    return exitCode;
  },
};

async function dumpResource(
  resource: ResourceConfig,
  { openComponent, terminal, suggest }: Surroundings,
): Promise<number> {
  try {
    const component = await openComponent(resource.local, "read");
    try {
      const { metadata, problem, damage } = await readMetadata(resource.name, component);
      terminal.out(metadataText(metadata));
      if (problem !== null) {
        printWarning(terminal, resource.name, [
          `hastd will refuse ${resource.local} with this metadata: ${problem}.`,
        ]);
      }
      if (damage !== null) printWarning(terminal, resource.name, [`${resource.local}: ${damage}.`]);
      return EX_OK;
    } finally {
      await component.close();
    }
  } catch (error) {
    if (!(error instanceof ComponentError || error instanceof MetadataError)) throw error;
    printError(terminal, resource.name, reasons(resource, error, suggest));
  }
  return EX_DUMP;
}

/** `problem`: why hastd would refuse metadata that can nevertheless be shown. `damage`: what it will repair. */
async function readMetadata(
  name: string,
  component: Component,
): Promise<{
  readonly metadata: Metadata;
  readonly problem: string | null;
  readonly damage: string | null;
}> {
  const media = { mediaSize: component.size, sectorSize: component.sectorSize };
  const read = (offset: number, length: number) => component.readAt(offset, length);
  try {
    const { metadata, damage } = await findMetadata(name, media, read);
    return { metadata, problem: null, damage };
  } catch (error) {
    if (!(error instanceof MetadataError)) throw error;
    if (error.code !== "bad-value" && error.code !== "does-not-fit") throw error;
    const blocks = await readMetadataBlocks(component);
    const trailer = blocks.last !== null && looksLikeMetadata(blocks.last);
    const metadata = decodeMetadata(trailer ? blocks.last : blocks.first, name);
    return { metadata, problem: error.message, damage: null };
  }
}

function metadataText(metadata: Metadata): string {
  const size = (bytes: number): string => `${bytes} (${humanSize(bytes)})`;
  const lines = [
    `resource: ${metadata.resource}`,
    `    datasize: ${size(metadata.datasize)}`,
    `    extentsize: ${size(metadata.extentsize)}`,
    `    keepdirty: ${metadata.keepdirty}`,
    `    localoff: ${metadata.localoff}`,
    `    resuid: ${metadata.resuid}`,
    `    localcnt: ${metadata.localcnt}`,
    `    remotecnt: ${metadata.remotecnt}`,
    `    prevrole: ${metadata.prevrole}`,
  ];
  const { state, forced, unflushed } = metadata;
  if (state !== null) lines.push(`    state: ${state}`);
  if (forced !== undefined) {
    const since = new Date(forced.at * 1000).toISOString().replace(/\.\d+/, "");
    lines.push(`    forced: ${since}, while ${forced.state}`);
  }
  if (unflushed === true) lines.push("    metaflush: off, and not closed in good order yet");
  return lines.map((line) => `${line}\n`).join("");
}

function reasons(
  resource: ResourceConfig,
  error: ComponentError | MetadataError,
  suggest: Surroundings["suggest"],
): string[] {
  if (error instanceof MetadataError) {
    const first = `${resource.local}: ${error.message}.`;
    return error.code === "not-metadata"
      ? [
          first,
          "To make it a component (what it holds is lost):",
          `  ${suggest("create", resource.name)}`,
        ]
      : [first, metadataAdvice(error.code, resource.name)];
  }
  const advice = componentAdvice(error.code, resource.local);
  return advice === null ? [`${error.message}.`] : [`${error.message}.`, advice];
}

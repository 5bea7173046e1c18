// SPDX-License-Identifier: BSD-2-Clause
/** The two places of a component where metadata can lie, read. */
import { METADATA_SIZE } from "../metadata/block.ts";
import { trailerMetadataOffset } from "../metadata/layout.ts";
import { type Component, ComponentError } from "../platform/component.ts";

export interface MetadataBlocks {
  readonly first: Uint8Array;
  /** Null where the component is too small for a trailer. */
  readonly last: Uint8Array | null;
}

/** @throws ComponentError, also where there is not even room for one block */
export async function readMetadataBlocks(component: Component): Promise<MetadataBlocks> {
  if (component.size < METADATA_SIZE) {
    const message = `${component.path} has ${component.size} bytes; metadata alone takes ${METADATA_SIZE}`;
    throw new ComponentError("component-io", message);
  }
  const first = await component.readAt(0, METADATA_SIZE);
  const offset = trailerMetadataOffset(component.size);
  const last = offset === null ? null : await component.readAt(offset, METADATA_SIZE);
  return { first, last };
}

// SPDX-License-Identifier: BSD-2-Clause
import { strict as expect } from "node:assert";
import { test } from "node:test";
import { createComponent, dirtyArena, World } from "../../test/pretend/world.ts";
import { decodeMetadata, METADATA_SIZE, type Metadata } from "../metadata/block.ts";
import { divergenceNotes, ownFacts } from "./divergence.ts";

const MAP = Uint8Array.of(0b101);

function metadata(changes: Partial<Metadata>): Metadata {
  const world = new World({ arena: dirtyArena() });
  createComponent(world.disk, { sequence: 1n, ...changes });
  return decodeMetadata(world.disk.peek(0, METADATA_SIZE), "r0");
}

test("S-10: a copy that nobody shall want to win says so, to the other node and to its operator", () => {
  for (const state of ["uptodate", "consistent", "outdated", "inconsistent"] as const) {
    const facts = ownFacts(metadata({ state }), MAP);
    const lacking = state === "outdated" || state === "inconsistent" ? state : null;
    expect.equal(facts.remarks?.lacking, lacking);
    const { datasize: dataSize, extentsize: extentSize } = metadata({ state: "uptodate" });
    const reason = "both nodes took writes";
    const sides = { own: ownFacts(metadata({ state: "uptodate" }), MAP), peer: facts };
    const [, changes] = divergenceNotes(
      { splitBrain: true, reason, refusal: null, dataSize, extentSize, ...sides },
      "r0",
    );
    expect.match(
      changes!,
      lacking === null ? /[^a-z]$/ : new RegExp(`in a copy that is ${state}$`),
    );
  }
});

// SPDX-License-Identifier: BSD-2-Clause
/** Which build this is, for --version. */

import fs from "node:fs";
import path from "node:path";

/** The root of the package this file belongs to. */
export const PACKAGE_ROOT: string = path.resolve(import.meta.dirname, "../../..");

/** "hastd 0.1.0 (2c49b27d1f0a)"; where there is no git checkout, "hastd 0.1.0 (release)". */
export function versionLine(program: string): string {
  const text = fs.readFileSync(path.join(PACKAGE_ROOT, "package.json"), "utf8");
  const { version } = JSON.parse(text) as { version: string };
  return `${program} ${version} (${commitOf(PACKAGE_ROOT)?.slice(0, 12) ?? "release"})`;
}

/** The commit checked out at `root`, or null where that is no git checkout. */
export function commitOf(root: string): string | null {
  let directory = path.join(root, ".git");
  // In a linked work tree, .git is a file that names the directory.
  const link = /^gitdir: (.*)$/m.exec(readText(directory) ?? "");
  if (link?.[1] !== undefined) directory = path.resolve(root, link[1]);
  const head = readText(path.join(directory, "HEAD"))?.trim();
  if (head === undefined) return null;
  const name = /^ref: (.*)$/.exec(head)?.[1];
  if (name === undefined) return commitFrom(head);

  const shared = readText(path.join(directory, "commondir"))?.trim() ?? ".";
  for (const place of [directory, path.resolve(directory, shared)]) {
    const commit = commitFrom(readText(path.join(place, name)));
    if (commit !== null) return commit;
    for (const line of readText(path.join(place, "packed-refs"))?.split("\n") ?? []) {
      const [packed, packedName] = line.split(" ");
      if (packedName === name) return commitFrom(packed);
    }
  }
  return null;
}

function commitFrom(text: string | undefined | null): string | null {
  return /^[0-9a-f]{40,64}$/.exec(text?.trim() ?? "")?.[0] ?? null;
}

function readText(file: string): string | undefined {
  try {
    return fs.readFileSync(file, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR" || code === "EISDIR") return undefined;
    throw error;
  }
}

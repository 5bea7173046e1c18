// SPDX-License-Identifier: BSD-2-Clause
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Config, readConfig } from "./config.ts";
import { formatConfig } from "./format.ts";
import { STATEMENTS } from "./syntax.ts";

function read(text: string): Config {
  const result = readConfig(text, "f", { names: ["alpha"], uuid: null, hostid: null });
  if (result.kind === "complaints") throw new Error(result.complaints[0]!.message);
  return result.config;
}

const PLAIN = "resource r { on alpha { local /d remote none } }";
const FULL = `
  control /c controlowner ops controlgroup staff controlmode 640 pidfile /p user nobody
  listen 10.0.0.1 on alpha { listen 10.0.0.9:99 }
  exec /hook gate /gate exectimeout 7 timeout 3 checksum sha256 export tcp://127.0.0.1
  resource r { compression lzf replication async metaflush off device fuse arbiter on
    on alpha { name n local /d remote fd00::1 source fd00::2 } }`;

test("a configuration written out and read again is the same", () => {
  for (const text of [PLAIN, FULL, ""]) {
    const config = read(text);
    const again = read(formatConfig(config, "alpha"));
    // Addresses that are written are asked for.
    assert.deepEqual(again, { ...config, listenByDefault: false });
  }
});

test("every statement is there, and a second time nothing changes", () => {
  const text = formatConfig(read(FULL), "alpha");
  for (const keyword of Object.keys(STATEMENTS)) {
    assert.match(text, new RegExp(`^ *${keyword} \\S+$`, "m"), keyword);
  }
  assert.equal(formatConfig(read(text), "alpha"), text);
  assert.match(
    formatConfig(read(PLAIN), "alpha"),
    /# no exec\n {4}# no gate\n[\s\S]*# no source\n/,
  );
});

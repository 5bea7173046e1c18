// SPDX-License-Identifier: BSD-2-Clause
/** Whoever listens to datagrams, which Node cannot: syslog, the journal, systemd. */

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";

export interface DatagramListener {
  /** Where to send to; "@name" in the abstract namespace. */
  readonly path: string;
  /** Reads what has come since it was last asked. */
  readonly heard: () => Promise<string[]>;
}

/** Bound by a program that reads nothing before it is asked. @param name left out, a path of its own */
export async function listenForDatagrams(t: TestContext, name?: string): Promise<DatagramListener> {
  const directory = mkdtempSync(join(tmpdir(), "hast-datagrams-"));
  const path = name ?? join(directory, "socket");
  const child = spawn("python3", ["-c", PROGRAM, path], { stdio: ["pipe", "pipe", "inherit"] });
  t.after(() => {
    child.kill("SIGKILL");
    rmSync(directory, { recursive: true });
  });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  const next = async (): Promise<string> => {
    const { value, done } = await lines.next();
    if (done === true) throw new Error("the listener has ended");
    return value;
  };
  await next();
  return {
    path,
    heard: async () => {
      child.stdin.write("\n");
      const heard: string[] = [];
      for (let line = await next(); line !== ""; line = await next()) {
        heard.push(Buffer.from(JSON.parse(line), "latin1").toString());
      }
      return heard;
    },
  };
}

/** For each line on stdin: what has come, a JSON string per line, and an empty line. */
const PROGRAM = `import json, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1].replace("@", "\\0", 1))
s.setblocking(False)
print("bound", flush=True)
for line in sys.stdin:
    try:
        while True: print(json.dumps(s.recv(100000).decode("latin-1")))
    except BlockingIOError: print(flush=True)
`;

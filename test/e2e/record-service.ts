// SPDX-License-Identifier: BSD-2-Clause
/**
 * A small service, as a program: `record-service.ts FILE PORT` appends each line it is sent to FILE, and
 * sends it back when fsync says that it is on the disk. It ends when the disk fails.
 */
import { closeSync, fsyncSync, openSync, writeSync } from "node:fs";
import { createServer } from "node:net";

const [file, port] = process.argv.slice(2);
const descriptor = openSync(file!, "a");
process.on("exit", () => closeSync(descriptor));

createServer((socket) => {
  let rest = "";
  socket.setNoDelay(true);
  socket.on("error", () => socket.destroy());
  socket.setEncoding("utf8").on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      writeSync(descriptor, `${line}\n`);
      fsyncSync(descriptor);
      socket.write(`${line}\n`);
    }
  });
}).listen(Number(port));

// SPDX-License-Identifier: BSD-2-Clause
/**
 * Its client, as a program: `record-client.ts ADDRESS[,ADDRESS] PORT FIRST [NAME]` sends FIRST, FIRST + 1, …, one
 * after the other, or NAME-FIRST, …, and prints "N milliseconds", by the machine's clock, for each that was
 * acknowledged. One that was not within 400 ms, or whose connection ended, is sent again over a new one, to the
 * next address.
 */
import { connect, type Socket } from "node:net";

const PATIENCE_MS = 400;
const PAUSE_MS = 10;
const [addresses, port, first, name] = process.argv.slice(2);
const turns = addresses!.split(",");
let next = Number(first);

function attempt(): void {
  const socket = connect(Number(port), turns[0]!);
  turns.push(turns.shift()!);
  let over = false;
  const again = (): void => {
    if (over) return;
    over = true;
    socket.destroy();
    setTimeout(attempt, 50);
  };
  let rest = "";
  socket.setNoDelay(true);
  socket.setTimeout(PATIENCE_MS, again);
  socket.on("error", again).on("close", again);
  socket.on("connect", () => send(socket));
  socket.setEncoding("utf8").on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      if (over || line !== record()) continue;
      process.stdout.write(`${line} ${process.hrtime.bigint() / 1_000_000n}\n`);
      next += 1;
      setTimeout(() => send(socket), PAUSE_MS);
    }
  });
}

function record(): string {
  return name === undefined ? String(next) : `${name}-${next}`;
}

function send(socket: Socket): void {
  if (!socket.destroyed) socket.write(`${record()}\n`);
}

attempt();

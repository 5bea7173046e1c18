// SPDX-License-Identifier: BSD-2-Clause
/**
 * A client of record-service.ts that says who it is, as a program: `named-client.ts ADDRESS PORT NAME` sends
 * NAME-1, NAME-2, …, one after the other, and prints "NAME-n milliseconds" by the machine's clock for each
 * that was acknowledged. One that was not within 400 ms, or whose connection ended, is sent again over a new
 * one.
 */
import { connect, type Socket } from "node:net";

const PATIENCE_MS = 400;
const [address, port, name] = process.argv.slice(2);
let next = 1;

function attempt(): void {
  const socket = connect(Number(port), address!);
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
      if (over || line !== `${name}-${next}`) continue;
      process.stdout.write(`${line} ${process.hrtime.bigint() / 1_000_000n}\n`);
      next += 1;
      setTimeout(() => send(socket), 20);
    }
  });
}

function send(socket: Socket): void {
  if (!socket.destroyed) socket.write(`${name}-${next}\n`);
}

attempt();

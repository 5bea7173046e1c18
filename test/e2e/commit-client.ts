// SPDX-License-Identifier: BSD-2-Clause
/**
 * A client of a database, as a program: `commit-client.ts CONNINFO LANES` inserts keys, "LANE-N", into
 * table keys, each in a transaction of its own, and prints "LANE-N milliseconds" when COMMIT has
 * succeeded. What is not answered within 3 s, or fails, is asked again over a new connection.
 */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";

const PATIENCE_MS = 3000;
const [conninfo, lanes] = process.argv.slice(2);

class Lane {
  readonly #lane: number;
  #next = 1;

  constructor(lane: number) {
    this.#lane = lane;
  }

  /** One connection, until it fails. */
  run(): void {
    const psql = spawn("psql", ["-X", "-v", "ON_ERROR_STOP=1", conninfo!]);
    let timer = this.#ask(psql);
    psql.stdin.on("error", () => {}); // it has ended, which "close" tells
    let rest = "";
    psql.stdout.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        if (line !== "COMMIT") continue;
        clearTimeout(timer);
        process.stdout.write(`${this.#lane}-${this.#next} ${Math.round(performance.now())}\n`);
        this.#next += 1;
        timer = this.#ask(psql);
      }
    });
    psql.on("close", () => {
      clearTimeout(timer);
      setTimeout(() => this.run(), 100);
    });
  }

  #ask(psql: ChildProcessWithoutNullStreams): NodeJS.Timeout {
    // It may have been committed although nobody said so.
    const insert = `INSERT INTO keys VALUES ('${this.#lane}-${this.#next}') ON CONFLICT DO NOTHING`;
    psql.stdin.write(`BEGIN; ${insert}; COMMIT;\n`);
    return setTimeout(() => psql.kill("SIGKILL"), PATIENCE_MS);
  }
}

for (let lane = 1; lane <= Number(lanes); lane++) new Lane(lane).run();

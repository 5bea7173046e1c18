// SPDX-License-Identifier: BSD-2-Clause
/**
 * A service whose client has a disk of it: a writer that remembers what was acknowledged goes on while the
 * primary loses its power, and while the service is moved in good order.
 *
 *   RecordedWriter ── NBD ── qemu-nbd on the client ── iSCSI ── service address
 */
import { strict as expect } from "node:assert";
import { join } from "node:path";
import { NbdClient } from "../system/nbd-client.ts";
import { RecordedWriter } from "../system/recorded-writer.ts";
import type { Host } from "./hosts.ts";
import { Pair, type Storage } from "./pair.ts";

const BLOCK_COUNT = 1024;

export class RemoteDisk {
  readonly #pair: Pair;
  readonly #url: string;
  readonly #writer = new RecordedWriter({ offset: 0, blockCount: BLOCK_COUNT, flushEvery: 16 });
  #client: NbdClient | null = null;

  private constructor(pair: Pair, url: string) {
    this.#pair = pair;
    this.#url = url;
  }

  /** The whole scenario. @param url as qemu spells it */
  static async play(storage: Storage, url: string): Promise<void> {
    const pair = await Pair.start("keepalived", storage);
    const disk = new RemoteDisk(pair, url);
    try {
      await disk.#play();
    } catch (error) {
      console.log(pair.lan.logs(), error);
      throw error;
    } finally {
      disk.#client?.destroy();
      await pair.stop();
    }
  }

  async #play(): Promise<void> {
    const pair = this.#pair;
    await this.#connect();
    this.#writer.start(this.#client!);
    await this.#acknowledged(500);

    const { primary, secondary } = await pair.settled();
    await primary.powerOff();
    const cut = performance.now();
    await this.#acknowledged(1);
    const outage = ((performance.now() - cut) / 1000).toFixed(1);
    await this.#acknowledged(500);
    await this.#verify(secondary);
    console.log(`power cut of the primary: ${outage} s until the next acknowledgement`);

    await primary.boot();
    pair.startHastd(primary);
    pair.startTool(primary);
    await pair.settled();
    // As `systemctl stop keepalived` does.
    await secondary.expect("sh", "-c", "kill $(cat /run/keepalived.pid)");
    await primary.until("it has the address", () => pair.hasAddress(primary));
    const moved = performance.now();
    await this.#acknowledged(500);
    await this.#verify(primary);
    const seconds = ((performance.now() - moved) / 1000).toFixed(1);
    console.log(`moved in good order: 500 acknowledgements ${seconds} s after the address`);

    expect.equal(await this.#writer.stop(), null, "the client has seen an error");
    console.log(`${this.#writer.acknowledgedCount} writes acknowledged, none lost`);
  }

  /** The service may have to be moved first: keepalived begins with a demotion. */
  async #connect(): Promise<void> {
    const { client } = this.#pair;
    const socket = join(client.directory, "disk.sock");
    const read = ["qemu-io", "-r", "-f", "raw", "-c", "read 0 512", this.#url];
    const answers = async () => (await client.run(["timeout", "20", ...read])).code === 0;
    await client.until("the service answers", answers, { withinMs: 120_000, everyMs: 1000 });
    client.spawn(
      "qemu-nbd",
      "qemu-nbd",
      "-t",
      "-f",
      "raw",
      "--cache=none",
      "-k",
      socket,
      this.#url,
    );
    this.#client = await client.until("qemu-nbd serves the disk", async () => {
      try {
        return await NbdClient.connect({ path: socket });
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code !== "ENOENT" && code !== "ECONNREFUSED") throw error;
        return null;
      }
    });
  }

  async #acknowledged(count: number): Promise<void> {
    const wanted = this.#writer.acknowledgedCount + count;
    const what = `${count} more writes are acknowledged`;
    const enough = () => this.#writer.acknowledgedCount >= wanted;
    await this.#pair.client.until(what, enough, { withinMs: 120_000 });
  }

  /** Reads back from this host what was acknowledged, by whichever; then goes on. */
  async #verify(host: Host): Promise<void> {
    expect.equal(await this.#writer.stop(), null, "the client has seen an error");
    expect.equal(await this.#pair.role(host), "primary");
    await this.#writer.verify(this.#client!);
    this.#writer.start(this.#client!);
  }
}

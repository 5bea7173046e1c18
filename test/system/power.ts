// SPDX-License-Identifier: BSD-2-Clause
/**
 * Two nodes whose disks live outside them, so that the power of a node can be cut.
 *
 *   cut:  the disk freezes ─▶ SIGKILL to every process of the node ─▶ the disk is pulled out, and loses a
 *         random half of what was not flushed ─▶ (restore) plugged in again, hastd starts, role init
 *
 * In this order no process of the node can act on anything that the disk did or failed to do at the end.
 */

import { type ChildProcess, fork } from "node:child_process";
import { appendFileSync, mkdirSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import type { DiskAnswer, DiskOrder, DiskShape } from "./disk-process.ts";
import type { PlugKind } from "./kernel-plug.ts";
import { markedProcesses, signal } from "./marked-processes.ts";
import { type Node, TwoNodes, type TwoNodesOptions } from "./two-nodes.ts";
import { withDeadline } from "./until.ts";
import type { PowerCut } from "./volatile-disk.ts";

/** Longer than any order takes on a busy machine. */
const ORDER_DEADLINE_MS = 60_000;

/** The disk of one machine, outside of it. */
export class DiskProcess {
  readonly #name: string;
  readonly #process: ChildProcess;
  #waiting: { resolve(answer: DiskAnswer): void; reject(error: Error): void } | null = null;

  constructor(name: string, shape: DiskShape) {
    this.#name = name;
    this.#process = fork(join(import.meta.dirname, "disk-process.ts"), [JSON.stringify(shape)], {
      detached: true, // a Ctrl-C is for us; it ends when we do, after it has tidied up
    });
    this.#process.on("message", (answer: DiskAnswer) => {
      const waiting = this.#waiting;
      this.#waiting = null;
      if (answer.order !== "failed") waiting?.resolve(answer);
      else waiting?.reject(new Error(`${name}'s disk: ${answer.reason}`));
    });
    this.#process.on("exit", () => {
      this.#waiting?.reject(new Error(`${name}'s disk: its process has ended`));
    });
  }

  /** @returns the device or file, or with kind "socket" that */
  async plug(): Promise<string> {
    const answer = await this.#order("plug");
    if (answer.order !== "plug") throw new Error(`${this.#name}'s disk answered ${answer.order}`);
    return answer.path;
  }

  /** @param moment now; or, under load, when the cache is not empty and about to be flushed */
  async freeze(moment: "now" | "at flush" = "now"): Promise<void> {
    await this.#order(moment === "now" ? "freeze" : "freeze-at-flush");
  }

  /** Of a frozen disk. @returns WRITEs that have arrived and are kept from it */
  async waiting(): Promise<number> {
    const answer = await this.#order("waiting");
    if (answer.order !== "waiting")
      throw new Error(`${this.#name}'s disk answered ${answer.order}`);
    return answer.count;
  }

  /** The end of freeze(): what waits is done, in any order. */
  async thaw(): Promise<void> {
    await this.#order("thaw");
  }

  async cut(): Promise<PowerCut> {
    const answer = await this.#order("cut");
    if (answer.order !== "cut") throw new Error(`${this.#name}'s disk answered ${answer.order}`);
    return answer.cut;
  }

  async obey(order: "lie" | "honest" | "break" | "replace"): Promise<void> {
    await this.#order(order);
  }

  async end(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const gone = new Promise((resolve) => this.#process.once("exit", resolve));
    if (this.#process.connected) this.#process.disconnect();
    await withDeadline(`${this.#name}'s disk process has ended`, ORDER_DEADLINE_MS, gone);
  }

  #order(order: DiskOrder): Promise<DiskAnswer> {
    if (this.#waiting !== null) throw new Error(`${this.#name}'s disk: one order at a time`);
    const answer = new Promise<DiskAnswer>((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
    this.#process.send(order);
    return withDeadline(`${this.#name}'s disk obeys "${order}"`, ORDER_DEADLINE_MS, answer);
  }
}

export interface PoweredPairOptions extends TwoNodesOptions {
  /** Of each disk, bytes. */
  readonly mediaSize: number;
  /** What hastd gets: alpha's disk, then beta's. */
  readonly kinds: readonly [PlugKind, PlugKind];
  readonly seed: number;
}

export class PoweredPair {
  readonly pair: TwoNodes;
  readonly #disks: ReadonlyMap<Node, DiskProcess>;
  readonly #plugged = new Set<Node>();

  private constructor(pair: TwoNodes, disks: ReadonlyMap<Node, DiskProcess>) {
    this.pair = pair;
    this.#disks = disks;
  }

  /** Beta secondary, alpha primary, both connected and in sync. */
  static async startReplicating(options: PoweredPairOptions): Promise<PoweredPair> {
    const pair = await TwoNodes.prepare(options);
    const disks = new Map<Node, DiskProcess>();
    const powered = new PoweredPair(pair, disks);
    try {
      for (const [index, node] of pair.nodes.entries()) {
        const directory = join(pair.directory, `${node.name}.disk`);
        mkdirSync(directory);
        const { mediaSize: size, kinds, seed } = options;
        const shape = { directory, size, kind: kinds[index]!, seed: seed * 2 + index };
        disks.set(node, new DiskProcess(node.name, shape));
        await powered.plug(node);
        await node.create(...(options.create ?? []));
        await node.start();
      }
      await pair.beta.role("secondary");
      await pair.alpha.role("primary");
      await pair.inSync(pair.alpha);
      return powered;
    } catch (error) {
      throw await powered.failed(error);
    }
  }

  /** The disk is there again, if it was not; hastd is not. */
  async plug(...nodes: readonly Node[]): Promise<void> {
    for (const node of nodes) {
      if (this.#plugged.has(node)) continue;
      const path = await this.#disks.get(node)!.plug();
      rmSync(node.local, { force: true });
      symlinkSync(path, node.local);
      this.#plugged.add(node);
    }
  }

  /** From the next write on, until `lying` is false again. */
  async setLying(node: Node, lying: boolean): Promise<void> {
    await this.#disks.get(node)!.obey(lying ? "lie" : "honest");
  }

  /** Every request to this node's disk fails from now on. */
  async breakDisk(node: Node): Promise<void> {
    await this.#disks.get(node)!.obey("break");
  }

  /** Another disk is in its place, under the same path: empty, not yet created by hastctl. */
  async replaceDisk(node: Node): Promise<void> {
    await this.#disks.get(node)!.obey("replace");
    this.#plugged.delete(node);
    await this.plug(node);
  }

  /** All at the same moment, as far as that goes. */
  async cut(...nodes: readonly Node[]): Promise<PowerCut[]> {
    await Promise.all(nodes.map((node) => this.#disks.get(node)!.freeze()));
    for (const node of nodes) for (const pid of node.processes()) signal(pid, "SIGKILL");
    return await Promise.all(
      nodes.map(async (node) => {
        const cut = await this.#disks.get(node)!.cut();
        this.#plugged.delete(node);
        await node.crash(); // waits until they are gone, with what was born meanwhile
        const { unflushed, lost } = cut;
        appendFileSync(node.log, `[test] power cut: ${lost} of ${unflushed} sectors lost\n`);
        return cut;
      }),
    );
  }

  /** The power is back: the disk, and hastd in role init. */
  async restore(...nodes: readonly Node[]): Promise<void> {
    await Promise.all(
      nodes.map(async (node) => {
        await this.plug(node);
        await node.start();
      }),
    );
  }

  /** Stops everything. @returns `error` with the logs added to its message */
  async failed(error: unknown): Promise<Error> {
    await this.unplug();
    return await this.pair.failed(error);
  }

  async stop(): Promise<void> {
    await this.unplug();
    await this.pair.stop();
  }

  /** The end of both machines; before their directory is removed, in which their disks are mounted. */
  async unplug(): Promise<void> {
    for (const pid of markedProcesses(this.pair.directory)) signal(pid, "SIGKILL");
    await Promise.all([...this.#disks.values()].map((disk) => disk.end()));
  }
}

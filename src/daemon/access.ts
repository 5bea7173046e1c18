// SPDX-License-Identifier: BSD-2-Clause
/**
 * Who may connect: the hosts named as `remote` of a resource.
 *
 * Names are resolved in the background and remembered, so that neither a slow name server nor a
 * stranger who connects can delay anyone else. An answer once heard stays valid while the name
 * server is silent. Source: wire protocol §6.3; behaviour BD-22, BD-40.
 */

import type { Clock } from "../platform/clock.ts";
import type { Resolver } from "../platform/handshake-socket.ts";
import { remoteHost, sameHost } from "../wire/address.ts";

/** Older answers are asked for again when they are used. */
export const REFRESH_AFTER_MS = 60_000;
/** A host that no answer matches has newer ones asked for, but not more often than this. */
export const RETRY_AFTER_MS = 2000;
/** How long a connection waits for an answer. */
export const LOOKUP_TIMEOUT_MS = 5000;

interface Name {
  addresses: readonly string[];
  /** When the last lookup began; null before the first. */
  askedMs: number | null;
  lookup: Promise<void> | null;
}

export class Access {
  readonly #clock: Clock;
  readonly #resolver: Resolver;
  /** One entry per host, shared by the resources that name it. */
  readonly #names = new Map<string, Name>();

  constructor(clock: Clock, resolver: Resolver) {
    this.#clock = clock;
    this.#resolver = resolver;
  }

  /** Begins to resolve the hosts of these `remote` addresses. */
  prepare(remotes: readonly string[]): void {
    for (const remote of remotes) {
      const host = remoteHost(remote);
      if (host !== null) this.#refresh(this.#nameOf(host), host);
    }
  }

  /**
   * Whether `peerHost` is the host of one of the `remote` addresses. Answers from memory where it
   * can; else within {@link LOOKUP_TIMEOUT_MS}.
   */
  async allows(peerHost: string, remotes: readonly string[]): Promise<boolean> {
    const hosts = new Set(remotes.map(remoteHost).filter((host) => host !== null));
    if (this.knows(peerHost, hosts)) return true;
    const lookups: Promise<void>[] = [];
    for (const host of hosts) {
      const name = this.#nameOf(host);
      if (name.askedMs === null || this.#clock.now() - name.askedMs >= RETRY_AFTER_MS) {
        this.#refresh(name, host);
      }
      if (name.lookup !== null) lookups.push(name.lookup);
    }
    if (lookups.length === 0) return false;
    await this.#within(LOOKUP_TIMEOUT_MS, Promise.all(lookups));
    return this.knows(peerHost, hosts);
  }

  /** The same from memory alone. */
  knows(peerHost: string, hosts: Iterable<string>): boolean {
    for (const host of hosts) {
      const name = this.#nameOf(host);
      if (!name.addresses.some((address) => sameHost(address, peerHost))) continue;
      if (name.askedMs !== null && this.#clock.now() - name.askedMs >= REFRESH_AFTER_MS) {
        this.#refresh(name, host);
      }
      return true;
    }
    return false;
  }

  #nameOf(host: string): Name {
    let name = this.#names.get(host);
    if (name === undefined) {
      // A literal address is its own, only, and final answer.
      const literal = sameHost(host, host);
      name = { addresses: literal ? [host] : [], askedMs: null, lookup: null };
      this.#names.set(host, name);
    }
    return name;
  }

  #refresh(name: Name, host: string): void {
    if (name.lookup !== null || sameHost(host, host)) return;
    name.askedMs = this.#clock.now();
    name.lookup = this.#resolver.lookup(host).then((addresses) => {
      name.lookup = null;
      if (addresses.length > 0) name.addresses = addresses;
    });
  }

  async #within(timeoutMs: number, work: Promise<unknown>): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const timer = this.#clock.after(timeoutMs, resolve);
      work.then(
        () => {
          timer.cancel();
          resolve();
        },
        (error) => {
          timer.cancel();
          reject(error);
        },
      );
    });
  }
}

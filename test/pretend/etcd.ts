// SPDX-License-Identifier: BSD-2-Clause
/**
 * An etcd cluster behind its JSON gateway, as far as the agent uses it; what goes wrong on the way there is
 * up to the test. Its answers were compared with those of etcd 3.4.23.
 */

import type { Clock } from "../../src/platform/clock.ts";
import type { Http, HttpAnswer } from "../../src/platform/http.ts";

/**
 * What becomes of a request.
 *
 *   served    carried out, answered
 *   refused   not carried out, and that is said at once
 *   silent    not carried out, no answer
 *   lost      carried out, no answer
 *   late      carried out after `delayMs`, when its sender may have given up; answered then
 */
export type Fate = "served" | "refused" | "silent" | "lost" | { readonly delayMs: number };

interface Entry {
  readonly value: string;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly lease: string;
}

interface Granted {
  readonly ttlS: number;
  expiresAtMs: number;
}

type Json = Record<string, unknown>;

export class PretendEtcd {
  readonly #clock: Clock;
  #entries = new Map<string, Entry>();
  #leases = new Map<string, Granted>();
  #revision = 1;
  #leaseCount = 1000;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** One client's way to it. @param fate asked for each request, with its path below /v3/ and its body */
  reachedBy(fate: (path: string, endpoint: string, body: string) => Fate): Http {
    return {
      post: (url, body, timeoutMs) => {
        const [, endpoint, path] = /^(https?:\/\/[^/]+)\/v3\/(.*)$/.exec(url)!;
        return this.#carry(fate(path!, endpoint!, body), { path: path!, body, timeoutMs });
      },
    };
  }

  /** A key's value, or null. */
  value(key: string): string | null {
    this.#expire();
    return this.#entries.get(key)?.value ?? null;
  }

  put(key: string, value: string): void {
    this.putTogether([[key, value]]);
  }

  putTogether(entries: readonly (readonly [key: string, value: string])[]): void {
    this.#revision += 1;
    for (const [key, value] of entries) this.#put(key, value, "0", this.#revision);
  }

  /** As a backup has it. */
  backup(): () => void {
    const [entries, leases, revision] = [new Map(this.#entries), this.#leases, this.#revision];
    return () => {
      this.#entries = new Map(entries);
      this.#revision = revision;
      // They live again, for their whole time.
      this.#leases = new Map(
        [...leases].map(([id, { ttlS }]) => [
          id,
          { ttlS, expiresAtMs: this.#clock.now() + ttlS * 1000 },
        ]),
      );
    };
  }

  /** Every lease ends before its time. */
  endLeases(): void {
    for (const id of this.#leases.keys()) this.#end(id);
  }

  wipe(): void {
    this.#entries = new Map();
    this.#leases = new Map();
    this.#revision = 1;
  }

  #carry(
    fate: Fate,
    request: { readonly path: string; readonly body: string; readonly timeoutMs: number },
  ): Promise<HttpAnswer | { readonly failure: string }> {
    const { path, body, timeoutMs } = request;
    return new Promise((resolve) => {
      if (fate === "refused") {
        resolve({ failure: "connect ECONNREFUSED" });
        return;
      }
      const timer = this.#clock.after(timeoutMs, () => {
        resolve({ failure: `no answer within ${timeoutMs / 1000} s` });
      });
      if (fate === "silent") return;
      const serve = (): void => {
        const answer = this.#serve(path, JSON.parse(body) as Json);
        if (fate === "lost") return;
        timer.cancel();
        resolve(answer);
      };
      this.#clock.after(typeof fate === "object" ? fate.delayMs : 1, serve);
    });
  }

  #serve(path: string, body: Json): HttpAnswer {
    this.#expire();
    const header = () => ({ cluster_id: "1", revision: String(this.#revision) });
    switch (path) {
      case "kv/range": {
        const [from, to] = [decode(body["key"]), decode(body["range_end"])];
        const kvs = [...this.#entries]
          .filter(([key]) => key >= from && key < to)
          .toSorted(([a], [b]) => (a < b ? -1 : 1))
          .map(([key, entry]) => ({
            key: encode(key),
            value: encode(entry.value),
            create_revision: String(entry.createRevision),
            mod_revision: String(entry.modRevision),
            ...(entry.lease === "0" ? {} : { lease: entry.lease }),
          }));
        return ok({ header: header(), ...(kvs.length === 0 ? {} : { kvs }) });
      }
      case "kv/txn": {
        const compares = body["compare"] as Json[];
        if (!compares.every((each) => this.#holds(each))) return ok({ header: header() });
        const puts = (body["success"] as Json[]).map((each) => each["request_put"] as Json);
        const gone = puts.some(({ lease }) => lease !== "0" && !this.#leases.has(lease as string));
        if (gone) return { status: 404, text: '{"error":"etcdserver: requested lease not found"}' };
        const revision = ++this.#revision;
        for (const { key, value, lease } of puts) {
          this.#put(decode(key), decode(value), lease as string, revision);
        }
        return ok({ header: header(), succeeded: true });
      }
      case "lease/grant": {
        const id = String(++this.#leaseCount);
        const ttlS = Number(body["TTL"]);
        this.#leases.set(id, { ttlS, expiresAtMs: this.#clock.now() + ttlS * 1000 });
        return ok({ header: header(), ID: id, TTL: String(ttlS) });
      }
      case "lease/keepalive": {
        const id = body["ID"] as string;
        const lease = this.#leases.get(id);
        if (lease === undefined) return ok({ result: { header: header(), ID: id } });
        lease.expiresAtMs = this.#clock.now() + lease.ttlS * 1000;
        return ok({ result: { header: header(), ID: id, TTL: String(lease.ttlS) } });
      }
      case "lease/revoke": {
        if (!this.#leases.has(body["ID"] as string)) {
          return { status: 404, text: '{"error":"etcdserver: requested lease not found"}' };
        }
        this.#end(body["ID"] as string);
        return ok({ header: header() });
      }
      default:
        return { status: 404, text: '{"error":"Not Found"}' };
    }
  }

  #holds(compare: Json): boolean {
    const entry = this.#entries.get(decode(compare["key"]));
    const wanted = compare["target"] === "CREATE" ? "create_revision" : "mod_revision";
    const is = wanted === "create_revision" ? entry?.createRevision : entry?.modRevision;
    return (is ?? 0) === Number(compare[wanted]);
  }

  #put(key: string, value: string, lease: string, revision: number): void {
    const createRevision = this.#entries.get(key)?.createRevision ?? revision;
    this.#entries.set(key, { value, createRevision, modRevision: revision, lease });
  }

  #expire(): void {
    for (const [id, { expiresAtMs }] of this.#leases) {
      if (expiresAtMs <= this.#clock.now()) this.#end(id);
    }
  }

  #end(lease: string): void {
    this.#leases.delete(lease);
    const keys = [...this.#entries].filter(([, entry]) => entry.lease === lease);
    if (keys.length > 0) this.#revision += 1;
    for (const [key] of keys) this.#entries.delete(key);
  }
}

function ok(body: object): HttpAnswer {
  return { status: 200, text: JSON.stringify(body) };
}

function encode(text: string): string {
  return Buffer.from(text).toString("base64");
}

function decode(base64: unknown): string {
  return Buffer.from(base64 as string, "base64").toString();
}

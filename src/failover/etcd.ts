// SPDX-License-Identifier: BSD-2-Clause
/**
 * A client of etcd's JSON gateway: the handful of requests that the agent needs.
 *
 *   POST ENDPOINT/v3/kv/range         {key, range_end}                     → kvs, header.revision
 *   POST ENDPOINT/v3/kv/txn           {compare, success}                   → succeeded, header.revision
 *   POST ENDPOINT/v3/lease/grant      {TTL}                                → ID, TTL
 *   POST ENDPOINT/v3/lease/keepalive  {ID}                                 → result.TTL, absent where it has gone
 *   POST ENDPOINT/v3/lease/revoke     {ID}
 *
 * Keys and values are base64, 64-bit numbers decimal strings. A range is linearizable: it is answered only
 * by a member that a majority has just confirmed. Each request goes to one member, with a deadline, and
 * where that has no use, to the next.
 *
 * So a transaction whose answer did not come may be carried out late, or twice if its comparisons allow it;
 * those of the agent do not (group-record.ts).
 * Source: etcd 3.4, Documentation/dev-guide/api_grpc_gateway.md, etcdserver/etcdserverpb/rpc.proto.
 */

import type { Clock } from "../platform/clock.ts";
import type { Http } from "../platform/http.ts";

export interface KeyValue {
  readonly key: string;
  readonly value: string;
  /** The store's revision when the key was made, and when it was last put. */
  readonly createRevision: number;
  readonly modRevision: number;
  /** Id of the lease that it goes away with; "0" where there is none. */
  readonly lease: string;
}

export interface Range {
  /** Of the whole store, at the time of the answer. */
  readonly revision: number;
  readonly entries: readonly KeyValue[];
}

/** That a key was made, or last put, at this revision; 0: that there is no such key. */
export interface Comparison {
  readonly key: string;
  readonly target: "create" | "mod";
  readonly revision: number;
}

export interface Put {
  readonly key: string;
  readonly value: string;
  /** Id of a lease, or left out. */
  readonly lease?: string;
}

export interface Renewal {
  /** What lies below the prefix, read just before the renewal. */
  readonly range: Range;
  /** When the renewal was sent, on the clock's scale: the lease lives from there, or longer. */
  readonly sentAtMs: number;
  /** Seconds; 0: there is no such lease any more. */
  readonly ttlS: number;
}

/** No endpoint was of use. */
export class EtcdError extends Error {
  override readonly name = "EtcdError";
}

export interface EtcdOptions {
  readonly http: Http;
  readonly clock: Clock;
  /** "http://10.0.0.1:2379", at least one, without a slash at the end. */
  readonly endpoints: readonly string[];
  /** For one request to one endpoint. */
  readonly timeoutMs: number;
}

/** Every method @throws EtcdError */
export class Etcd {
  readonly #options: EtcdOptions;
  /** Index of the endpoint that was of use last. */
  #current = 0;
  /** Id of the cluster that answered first. */
  #cluster: string | null = null;

  constructor(options: EtcdOptions) {
    this.#options = options;
  }

  /** All keys that begin with `prefix`, by a linearizable read. @param prefix ends in "/" */
  range(prefix: string): Promise<Range> {
    return this.#atAny((endpoint) => this.#rangeAt(endpoint, prefix));
  }

  /**
   * Puts everything if all comparisons hold, else nothing.
   *
   * @returns the revision of the puts; null where a comparison did not hold, which an earlier attempt of
   *   this very call may have caused: read, to know
   */
  txn(comparisons: readonly Comparison[], puts: readonly Put[]): Promise<number | null> {
    const body = {
      compare: comparisons.map(({ key, target, revision }) => ({
        key: encode(key),
        target: target === "create" ? "CREATE" : "MOD",
        result: "EQUAL",
        [target === "create" ? "create_revision" : "mod_revision"]: String(revision),
      })),
      success: puts.map(({ key, value, lease }) => ({
        request_put: { key: encode(key), value: encode(value), lease: lease ?? "0" },
      })),
    };
    return this.#atAny(async (endpoint) => {
      const answer = await this.#ask(endpoint, "kv/txn", body);
      return answer["succeeded"] === true ? revisionOf(answer) : null;
    });
  }

  /** @returns the lease's id, and the seconds that it lives, from `sentAtMs` or later */
  grant(
    ttlS: number,
  ): Promise<{ readonly id: string; readonly ttlS: number; readonly sentAtMs: number }> {
    return this.#atAny(async (endpoint) => {
      const sentAtMs = this.#options.clock.now();
      const answer = await this.#ask(endpoint, "lease/grant", { TTL: String(ttlS) });
      const { ID: id } = answer;
      const granted = secondsOf(answer["TTL"]);
      if (typeof id !== "string" || granted === 0) throw new Useless("it granted no lease");
      return { id, ttlS: granted, sentAtMs };
    });
  }

  /**
   * Reads what lies below the prefix, and then renews the lease at the same endpoint.
   *
   * In this order: a member that was frozen may believe for a moment that it still leads, and would renew a
   * lease that the others have already ended. One that has answered a linearizable read knows who leads; and
   * a leader elected after that lets every lease live its whole time again.
   */
  renew(lease: string, prefix: string): Promise<Renewal> {
    return this.#atAny(async (endpoint) => {
      const range = await this.#rangeAt(endpoint, prefix);
      const sentAtMs = this.#options.clock.now();
      const { result } = await this.#ask(endpoint, "lease/keepalive", { ID: lease });
      if (!isRecord(result)) throw new Useless("its answer to a renewal makes no sense");
      return { range, sentAtMs, ttlS: secondsOf(result["TTL"] ?? "0") };
    });
  }

  /** Ends a lease, and its keys with it; one that has ended is no error. */
  async revoke(lease: string): Promise<void> {
    await this.#atAny(async (endpoint) => {
      try {
        await this.#ask(endpoint, "lease/revoke", { ID: lease });
      } catch (error) {
        if (!(error instanceof Useless && error.status === NOT_FOUND)) throw error;
      }
    });
  }

  async #rangeAt(endpoint: string, prefix: string): Promise<Range> {
    const end = `${prefix.slice(0, -1)}0`; // "0" follows "/"
    const body = { key: encode(prefix), range_end: encode(end) };
    const answer = await this.#ask(endpoint, "kv/range", body);
    const kvs = answer["kvs"] ?? [];
    if (!Array.isArray(kvs)) throw new Useless("its answer to a range makes no sense");
    return { revision: revisionOf(answer), entries: kvs.map(keyValueOf) };
  }

  /** Tries one endpoint after the other, beginning with the one that was of use last. */
  async #atAny<T>(attempt: (endpoint: string) => Promise<T>): Promise<T> {
    const { endpoints } = this.#options;
    const reasons: string[] = [];
    const first = this.#current;
    for (let step = 0; step < endpoints.length; step++) {
      const index = (first + step) % endpoints.length;
      const endpoint = endpoints[index]!;
      try {
        const result = await attempt(endpoint);
        this.#current = index;
        return result;
      } catch (error) {
        if (!(error instanceof Useless)) throw error;
        reasons.push(`${endpoint}: ${error.message}`);
      }
    }
    throw new EtcdError(reasons.join("; "));
  }

  async #ask(endpoint: string, path: string, body: object): Promise<Record<string, unknown>> {
    const { http, timeoutMs } = this.#options;
    const answer = await http.post(`${endpoint}/v3/${path}`, JSON.stringify(body), timeoutMs);
    if ("failure" in answer) throw new Useless(answer.failure);
    const json = parse(answer.text);
    if (answer.status !== OK) {
      const said = json?.["error"];
      throw new Useless(typeof said === "string" ? said : `HTTP ${answer.status}`, answer.status);
    }
    if (json === null) throw new Useless("its answer is no JSON: is it an etcd?");
    this.#checkCluster(json);
    return json;
  }

  /** What two clusters hold of one group are two histories. */
  #checkCluster({ header, result }: Record<string, unknown>): void {
    const from = isRecord(result) ? result["header"] : header;
    const cluster = isRecord(from) ? from["cluster_id"] : undefined;
    if (typeof cluster !== "string") return;
    this.#cluster ??= cluster;
    if (cluster === this.#cluster) return;
    throw new Useless(
      `it is of another cluster (${cluster}) than the one that answered first (${this.#cluster}): look at etcd= in ` +
        "failover.conf; if the cluster was made anew, start this agent again",
    );
  }
}

const OK = 200;
const NOT_FOUND = 404;

/** One endpoint's failure. */
class Useless extends Error {
  readonly status: number | null;
  constructor(message: string, status: number | null = null) {
    super(message);
    this.status = status;
  }
}

function keyValueOf(kv: unknown): KeyValue {
  if (!isRecord(kv) || typeof kv["key"] !== "string") {
    throw new Useless("its answer to a range makes no sense");
  }
  return {
    key: decode(kv["key"]),
    value: typeof kv["value"] === "string" ? decode(kv["value"]) : "",
    createRevision: integerOf(kv["create_revision"]),
    modRevision: integerOf(kv["mod_revision"]),
    lease: typeof kv["lease"] === "string" ? kv["lease"] : "0",
  };
}

function revisionOf({ header }: Record<string, unknown>): number {
  return integerOf(isRecord(header) ? header["revision"] : undefined);
}

function integerOf(value: unknown): number {
  const number = typeof value === "string" ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(number) || number <= 0) {
    throw new Useless(`it speaks of revision ${JSON.stringify(value)}`);
  }
  return number;
}

function secondsOf(value: unknown): number {
  const number = typeof value === "string" ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(number) || number < 0) {
    throw new Useless(`it speaks of ${JSON.stringify(value)} seconds`);
  }
  return number;
}

function parse(text: string): Record<string, unknown> | null {
  try {
    const json: unknown = JSON.parse(text);
    return isRecord(json) ? json : null;
  } catch {
    return null;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function encode(text: string): string {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}

function decode(base64: string): string {
  try {
    return new TextDecoder().decode(Uint8Array.from(atob(base64), (each) => each.charCodeAt(0)));
  } catch {
    throw new Useless("its keys or values are not base64");
  }
}

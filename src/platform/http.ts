// SPDX-License-Identifier: BSD-2-Clause
/** Questions to services that speak HTTP with JSON. */

export interface HttpAnswer {
  readonly status: number;
  readonly text: string;
}

export interface Http {
  /**
   * Posts a JSON text and waits for the whole answer, of whatever status; never rejects, and goes nowhere else.
   *
   * @param url "http://…" or "https://…"
   * @param timeoutMs for all of it; afterwards nothing more is sent
   * @returns the answer, or why there is none; then the request may have been carried out, or still be
   */
  post(
    url: string,
    body: string,
    timeoutMs: number,
  ): Promise<HttpAnswer | { readonly failure: string }>;
}

/** Files, all PEM, for "https://…". */
export interface HttpFiles {
  /** Whom to believe; null: the authorities that this machine knows. */
  readonly authorities: string | null;
  /** What is shown to a service that asks who we are; null: nothing. */
  readonly own: { readonly certificate: string; readonly key: string } | null;
}

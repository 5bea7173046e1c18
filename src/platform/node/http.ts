// SPDX-License-Identifier: BSD-2-Clause
/** HTTP by Node's fetch(), which keeps connections open between questions. */

import type { Http } from "../http.ts";

export const nodeHttp: Http = {
  async post(url, body, timeoutMs) {
    try {
      const response = await fetch(url, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
        // Whoever is asked was named by the operator; nobody else is.
        redirect: "error",
        signal: AbortSignal.timeout(timeoutMs),
      });
      return { status: response.status, text: await response.text() };
    } catch (error) {
      return { failure: reasonOf(error, timeoutMs) };
    }
  },
};

/** fetch() says "fetch failed", and keeps the reason as the cause. */
function reasonOf(error: unknown, timeoutMs: number): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === "TimeoutError") return `no answer within ${timeoutMs / 1000} s`;
  const { cause } = error;
  return cause instanceof Error && cause.message !== "" ? cause.message : error.message;
}

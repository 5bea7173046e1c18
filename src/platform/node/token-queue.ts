// SPDX-License-Identifier: BSD-2-Clause
/** Requests waiting their turn, by token, in an array allocated once. */

import { assert } from "../../base/assert.ts";

/** Tokens are below this; a power of two. */
export const TOKEN_COUNT = 1024;

/** First in, first out, of request tokens; each is in it at most once, so it cannot overflow. */
export class TokenQueue {
  readonly #tokens = new Uint16Array(TOKEN_COUNT);
  #head = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(token: number): void {
    assert(this.#length < TOKEN_COUNT);
    this.#tokens[(this.#head + this.#length) & (TOKEN_COUNT - 1)] = token;
    this.#length += 1;
  }

  shift(): number {
    assert(this.#length > 0);
    const token = this.#tokens[this.#head]!;
    this.#head = (this.#head + 1) & (TOKEN_COUNT - 1);
    this.#length -= 1;
    return token;
  }
}

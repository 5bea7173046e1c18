// SPDX-License-Identifier: BSD-2-Clause
/** Waiting for what real processes do: by looking, with a deadline, never by sleeping and hoping. */

export interface Patience {
  /** Default 30 s. */
  readonly withinMs?: number;
  /** Between two looks; default 100 ms. */
  readonly everyMs?: number;
}

/**
 * Looks again and again until `look` returns something other than false, null and undefined.
 *
 * @param what completes the sentence "waited N s until …"
 * @returns what `look` returned
 * @throws Error at the deadline, or at once what `look` threw
 */
export async function until<T>(
  what: string,
  look: () => T | Promise<T>,
  patience: Patience = {},
): Promise<Exclude<T, false | null | undefined>> {
  const withinMs = patience.withinMs ?? 30_000;
  const deadline = performance.now() + withinMs;
  for (;;) {
    const found = await look();
    if (found !== false && found !== null && found !== undefined) {
      return found as Exclude<T, false | null | undefined>;
    }
    if (performance.now() > deadline) {
      throw new Error(`waited ${withinMs / 1000} s in vain until ${what}`);
    }
    await pause(patience.everyMs ?? 100);
  }
}

/** For a rhythm (a burst of load, a moment of outage); a condition is waited for with {@link until}. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** `promise`, or an error saying `what` did not happen. */
export async function withDeadline<T>(
  what: string,
  withinMs: number,
  promise: Promise<T>,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`waited ${withinMs / 1000} s in vain until ${what}`));
    }, withinMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// SPDX-License-Identifier: BSD-2-Clause
/** What we believe. Assertions stay on in production: a stopped resource is an incident, a wrong map is corruption. */

export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/** Throws {@link AssertionError} unless `condition` holds; for our own mistakes, never for input. */
export function assert(condition: unknown, message = "assertion failed"): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/** Fails to compile while a union still has an unhandled member; throws if one arrives anyway. */
export function unreachable(value: never): never {
  throw new AssertionError(`unreachable: ${JSON.stringify(value)}`);
}

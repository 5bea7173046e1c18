// SPDX-License-Identifier: BSD-2-Clause
/**
 * Hostile bytes: what the tests that feed them have in common.
 *
 * In `npm test` each goes on for a few seconds, with a seed of its own. `npm run fuzz` says in the
 * environment how much of a processor's time to take, and which seed, so that a hang can be found
 * again, too.
 */

import fc from "fast-check";

/** Of each such test, in npm test: of time. */
const SECONDS = 4;
/** After so many runs the time is looked at. */
const ROUND = 50;

/** Tries a property with more and more input until the time is up; fails as fc.assert() does. */
export async function fuzz<Input>(property: fc.IAsyncPropertyWithHooks<Input>): Promise<void> {
  const asked = process.env["HAST_FUZZ_SECONDS"];
  const spent = asked === undefined ? wallSeconds : cpuSeconds;
  const seconds = Number(asked ?? SECONDS);
  const begin = spent();
  const seed = Number(process.env["HAST_FUZZ_SEED"] ?? Math.floor(Math.random() * 2 ** 30));
  let round = 0;
  for (; spent() - begin < seconds; round++) {
    await fc.assert(property, { numRuns: ROUND, seed: seed + round });
  }
  // scripts/fuzz.ts passes it on.
  if (asked !== undefined) console.log(`${round * ROUND} inputs`);
}

function wallSeconds(): number {
  return performance.now() / 1000;
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** A valid stream with up to four mistakes: a byte changed, bytes put in, left out, or told twice. */
export function mutated(stream: Uint8Array): fc.Arbitrary<Uint8Array> {
  const mistake = fc.record({
    at: fc.nat(stream.length - 1),
    change: fc.nat(255),
    insert: fc.oneof(fc.constant(new Uint8Array(0)), fc.uint8Array({ maxLength: 40 })),
    drop: fc.oneof(fc.constant(0), fc.nat(40)),
    again: fc.oneof(fc.constant(0), fc.nat(200)),
  });
  return fc.array(mistake, { minLength: 1, maxLength: 4 }).map((mistakes) => {
    let bytes = Buffer.from(stream);
    for (const { at, change, insert, drop, again } of mistakes) {
      const from = Math.min(at, bytes.length);
      const rest = bytes.subarray(Math.min(from + drop, bytes.length));
      const twice = bytes.subarray(Math.max(0, from - again), from);
      bytes = Buffer.concat([bytes.subarray(0, from), twice, insert, rest]);
      if (from < bytes.length) bytes[from]! ^= change;
    }
    return new Uint8Array(bytes);
  });
}

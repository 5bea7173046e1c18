// SPDX-License-Identifier: BSD-2-Clause
/** The tests that feed hostile bytes to whatever reads from a network. */

export interface Target {
  /** Who reads them. */
  readonly name: string;
  readonly file: string;
  readonly test: string;
}

export const TARGETS: readonly Target[] = [
  {
    name: "handshake, secondary's side",
    file: "src/daemon/handshake-server.test.ts",
    test: "any bytes leave the daemon serving, and leave no timer behind",
  },
  {
    name: "handshake, primary's side",
    file: "src/engine/primary-engine.test.ts",
    test: "a mutated or random handshake connects or is tried again: nothing else",
  },
  {
    name: "request stream",
    file: "src/engine/secondary-engine.test.ts",
    test: "mutated and random streams end the connection or are answered: nothing else",
  },
  {
    name: "reply stream",
    file: "src/engine/primary-engine.test.ts",
    test: "mutated and random replies: every request is answered, and the primary goes on",
  },
  {
    name: "control socket",
    file: "src/daemon/control-server.test.ts",
    test: "any bytes leave the daemon serving",
  },
  {
    name: "NBD negotiation",
    file: "src/engine/nbd-server.test.ts",
    test: "garbage ends the session it comes from, and no other",
  },
  {
    name: "NBD requests",
    file: "src/engine/nbd-server.test.ts",
    test: "valid requests with a byte changed are answered, or end the session",
  },
];

// SPDX-License-Identifier: BSD-2-Clause
/** What must hold does not. */

export class Violation extends Error {
  override readonly name = "Violation";
}

// SPDX-License-Identifier: BSD-2-Clause
/** Why a connection failed, in words an operator reads. */

import { getSystemErrorMessage } from "node:util";

/** One phrase without a full stop: "connection refused", "host name not found". */
export function failureText(error: NodeJS.ErrnoException): string {
  switch (error.code) {
    // getaddrinfo() has its own numbers.
    case "ENOTFOUND":
    case "EAI_NONAME":
    case "EAI_NODATA":
      return "host name not found";
    case "EAI_AGAIN":
      return "host name cannot be resolved now";
    case "EADDRFAMILY":
      return "host name has no address of this family";
    default:
      return error.errno === undefined ? error.message : getSystemErrorMessage(error.errno);
  }
}

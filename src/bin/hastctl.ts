// SPDX-License-Identifier: BSD-2-Clause
/** The program hastctl: src/cli/ on this machine. */
import { readFile } from "node:fs/promises";

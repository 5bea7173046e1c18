// SPDX-License-Identifier: BSD-2-Clause
/**
 * `hastctl reload`: hastd reads its hast.conf again, and says what has changed. As SIGHUP, with an answer.
 *
 * Ours; the original has SIGHUP only.
 */
import type { Command } from "./command.ts";
import { reportDeeds } from "./deed.ts";
import { EX_OSERR } from "./exit-code.ts";

export const reload: Command = {
  name: "reload",
  options: [],
  synopsis: "",
  refuse: (args) => (args.length > 0 ? "hastd reloads the file it was started with, whole" : null),
  async run(_names, _options, { terminal, control }) {
    const answer = await control.reload();
    const code = reportDeeds(answer, "reloaded", terminal);
    if (answer.kind === "failed" && code === EX_OSERR) {
      terminal.err(
        "  Where the file has another control than before, hastd hears at the old one only: send it SIGHUP.\n",
      );
    }
    return code;
  },
};

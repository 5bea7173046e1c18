// SPDX-License-Identifier: BSD-2-Clause
/**
 * `hastctl tls init`: a key and a certificate for this node, and what to tell the other one. Ours.
 *
 * Names are for those who check them: NBD clients, and peers without `tlspeer`.
 */
import {
  DAYS,
  DAYS_DEFAULT,
  DIRECTORY,
  makeCertificate,
  refuseWanted,
  tlsDirectory,
  type Wanted,
} from "./certificate-maker.ts";
import type { FileCommand } from "./command.ts";
import { EX_OK } from "./exit-code.ts";
import { showCertificate } from "./tls-show.ts";

export const tlsInit: FileCommand = {
  name: "tls init",
  options: [DIRECTORY, DAYS, { flag: "--force", argument: null }],
  synopsis: "[name ...]",
  refuse: (names, options) => refuseWanted(options, names),
  async runAtDesk(given, options, desk) {
    const directory = tlsDirectory(options, desk);
    const names = given.length > 0 ? given : [...new Set(desk.here.names)];
    const wanted: Wanted = {
      directory,
      keyFile: "key.pem",
      certificateFile: "cert.pem",
      names,
      days: options.get("--days") ?? DAYS_DEFAULT,
      replace: options.has("--force"),
      signer: null,
    };
    const made = await makeCertificate(wanted, desk);
    if (made !== EX_OK) return made;
    const shown = showCertificate(directory, desk);
    const clients = `${directory}/clients.pem`;
    if (wanted.replace && !("failure" in desk.readText(clients))) {
      desk.terminal.out(
        `${clients} still lets in every NBD client that it did before. To shut those out, on each node: rm ${clients}\n` +
          "Then, for each client that shall be let in: hastctl tls client NAME DIRECTORY\n",
      );
    }
    return shown;
  },
};

// SPDX-License-Identifier: BSD-2-Clause
/**
 * `hastctl tls client`: a key and a certificate for an NBD client, which this node then accepts. Ours.
 *
 * The directory has the names that libnbd, nbdkit and QEMU look for:
 *   client-key.pem, client-cert.pem   the client's own
 *   ca-cert.pem                       whom it trusts: this node's certificate, which has signed its own
 */
import {
  DAYS,
  DAYS_DEFAULT,
  DIRECTORY,
  makeCertificate,
  refuseWanted,
  tlsDirectory,
} from "./certificate-maker.ts";
import { type FileCommand, printError } from "./command.ts";
import { EX_CANTCREAT, EX_NOINPUT, EX_OK } from "./exit-code.ts";

/** Puts this node's certificate where its clients look, and where this node looks for whom to accept. */
const ADMIT = `
set -eu
directory=$1 tls=$2
cp "$tls/cert.pem" "$directory/ca-cert.pem"
new=$(mktemp "$tls/new.XXXXXX")
trap 'rm -f "$new"' EXIT
for known in "$tls/clients.pem" "$tls/ca.pem"; do
  [ ! -e "$known" ] || { cat "$known" >"$new"; break; }
done
# Each line of base64 is in it already if the last but one is.
grep -qxF "$(tail -n 3 "$tls/cert.pem" | head -n 1)" "$new" || cat "$tls/cert.pem" >>"$new"
chmod 644 "$new"
mv -f "$new" "$tls/clients.pem"
`;

export const tlsClient: FileCommand = {
  name: "tls client",
  options: [DIRECTORY, DAYS],
  synopsis: "name directory",
  refuse(args, options) {
    const [name, target] = args;
    if (args.length !== 2) return "";
    if (!target!.startsWith("/")) return `${target}: write an absolute path`;
    return refuseWanted(options, [name!]);
  },
  async runAtDesk(args, options, desk) {
    const { terminal } = desk;
    const [name, target] = args as [string, string];
    const directory = tlsDirectory(options, desk);
    if ("failure" in desk.readText(`${directory}/cert.pem`)) {
      printError(terminal, null, [
        `This node has no certificate itself: there is no ${directory}/cert.pem.`,
        "To make one: hastctl tls init",
      ]);
      return EX_NOINPUT;
    }
    const made = await makeCertificate(
      {
        directory: target,
        keyFile: "client-key.pem",
        certificateFile: "client-cert.pem",
        names: [name],
        days: options.get("--days") ?? DAYS_DEFAULT,
        replace: false,
        signer: directory,
      },
      desk,
    );
    if (made !== EX_OK) return made;
    const admitted = await desk.runProgram(["sh", "-s", "--", target, directory], ADMIT);
    if ("failure" in admitted || admitted.exitCode !== 0) {
      printError(terminal, null, [
        `${target} was made, but ${directory}/clients.pem could not be written: see above.`,
      ]);
      return EX_CANTCREAT;
    }
    terminal.out(
      [
        `certificate of NBD client ${name}: ${target}, to be copied to it whole, and kept secret`,
        `accepted by this node: ${directory}/clients.pem; on the other node, the same file`,
        "Then, on each node whose files have changed: hastctl reload",
        `To try it: nbdinfo 'nbds://HOST:PORT/NAME?tls-certificates=${target}'`,
        "",
      ].join("\n"),
    );
    return EX_OK;
  },
};

// SPDX-License-Identifier: BSD-2-Clause
/** `hastctl tls show`: this node's certificate, and the line that makes the other node accept it. Ours. */
import { DIRECTORY, refuseWanted, tlsDirectory } from "./certificate-maker.ts";
import { type Desk, type FileCommand, printError } from "./command.ts";
import { EX_DATAERR, EX_NOINPUT, EX_OK } from "./exit-code.ts";

export const tlsShow: FileCommand = {
  name: "tls show",
  options: [DIRECTORY],
  synopsis: "",
  refuse: (args, options) => (args.length > 0 ? "" : refuseWanted(options, [])),
  runAtDesk: async (_args, options, desk) => showCertificate(tlsDirectory(options, desk), desk),
};

export function showCertificate(directory: string, desk: Desk): number {
  const file = `${directory}/cert.pem`;
  const read = desk.readText(file);
  if ("failure" in read) {
    printError(desk.terminal, null, [
      `${file} cannot be read: ${read.failure}.`,
      "To make this node's key and certificate: hastctl tls init",
    ]);
    return EX_NOINPUT;
  }
  const facts = desk.readCertificate(read.text);
  if ("failure" in facts) {
    printError(desk.terminal, null, [
      `${file} holds no certificate: ${facts.failure}.`,
      "To make another: hastctl tls init --force",
    ]);
    return EX_DATAERR;
  }
  const { fingerprint, names, validUntil, dateTrouble } = facts;
  desk.terminal.out(
    [
      `certificate of this node: ${file}`,
      `  names: ${names}`,
      `  valid until: ${validUntil}`,
      `  fingerprint: ${fingerprint}`,
      "What the other node's hast.conf has to say of this one, beside remote tls://...:",
      `  tlspeer ${fingerprint}`,
      "Then, on each node whose files have changed: hastctl reload",
      "",
    ].join("\n"),
  );
  if (dateTrouble !== null) {
    printError(desk.terminal, null, [
      `This certificate ${dateTrouble}: every peer refuses it.`,
      "To make another: hastctl tls init --force",
    ]);
    return EX_DATAERR;
  }
  return EX_OK;
}

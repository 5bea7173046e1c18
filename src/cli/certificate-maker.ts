// SPDX-License-Identifier: BSD-2-Clause
/**
 * A key and a certificate, made by openssl(1): a node's, which signs itself, or a client's, which a node signs.
 * QEMU wants it so: what it trusts must be an authority, and its own must be signed by that.
 *
 * Everything is made in a new directory beside the old files, and takes their place at the end: who reads
 * meanwhile finds the old pair. Nobody but the owner can read the key at any time.
 */
import { readConfig, TLSDIR_DEFAULT } from "../config/config.ts";
import { ipBytes } from "../wire/address.ts";
import { type Desk, type Option, type Options, printError } from "./command.ts";
import { EX_CANTCREAT, EX_OK, EX_UNAVAILABLE } from "./exit-code.ts";

/** Both ends of a link know the certificate by heart, so it need not end soon. */
export const DAYS_DEFAULT = "3650";

export const DIRECTORY: Option = { flag: "--dir", argument: "directory" };
export const DAYS: Option = { flag: "--days", argument: "count" };

/** The script's exit codes. */
const EXISTS = 3;
const NO_OPENSSL = 4;
const NO_AUTHORITY = 5;

export interface Wanted {
  /** Absolute. */
  readonly directory: string;
  readonly keyFile: string;
  readonly certificateFile: string;
  /** Host names and IP addresses, at least one. */
  readonly names: readonly string[];
  readonly days: string;
  readonly replace: boolean;
  /** Directory with the key and the certificate that sign this one; null = it signs itself. */
  readonly signer: string | null;
}

const SCRIPT = `
set -eu
umask 077
directory=$1 key=$2 certificate=$3 days=$4 replace=$5 subject=$6 names=$7 signer=$8
command -v openssl >/dev/null || exit ${NO_OPENSSL}
[ -d "$directory" ] || mkdir -p -m 755 "$directory"
if [ "$replace" = no ]; then
  [ ! -e "$directory/$key" ] || exit ${EXISTS}
  [ ! -e "$directory/$certificate" ] || exit ${EXISTS}
fi
new=$(mktemp -d "$directory/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$new/key" 2>"$new/said" ||
  { cat "$new/said" >&2; exit 1; }
if [ -z "$signer" ]; then
  kind='basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, digitalSignature, keyCertSign'
else
  kind='basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature'
fi
cat >"$new/config" <<END
[req]
prompt = no
distinguished_name = subject
x509_extensions = extensions
[subject]
CN = $subject
[extensions]
$kind
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = $names
END
make() {
  if [ -z "$signer" ]; then
    openssl req -x509 -new -config "$new/config" -key "$new/key" -days "$days" \\
      -out "$new/certificate"
    return
  fi
  openssl req -new -config "$new/config" -key "$new/key" -out "$new/request" &&
    openssl x509 -req -in "$new/request" -CA "$signer/cert.pem" -CAkey "$signer/key.pem" \\
      -set_serial "0x01$(openssl rand -hex 15)" -days "$days" \\
      -extfile "$new/config" -extensions extensions -out "$new/certificate"
}
make 2>"$new/said" || { cat "$new/said" >&2; exit 1; }
if [ -n "$signer" ]; then
  openssl verify -CAfile "$signer/cert.pem" "$new/certificate" >/dev/null 2>&1 || exit ${NO_AUTHORITY}
fi
chmod 644 "$new/certificate"
mv -f "$new/key" "$directory/$key"
mv -f "$new/certificate" "$directory/$certificate"
`;

/** Makes the pair. @returns EX_OK, or what has been complained about */
export async function makeCertificate(wanted: Wanted, desk: Desk): Promise<number> {
  const { directory, keyFile, certificateFile, names, days, replace, signer } = wanted;
  const subject = names[0]!.slice(0, 64); // all that X.520 has room for
  const alternatives = names.map((name) => (ipBytes(name) === null ? `DNS:${name}` : `IP:${name}`));
  const files = [directory, keyFile, certificateFile];
  const rest = [days, replace ? "yes" : "no", subject, alternatives.join(", "), signer ?? ""];
  const ran = await desk.runProgram(["sh", "-s", "--", ...files, ...rest], SCRIPT);
  const { terminal } = desk;
  if ("failure" in ran) {
    printError(terminal, null, [`sh(1) cannot be started: ${ran.failure}.`]);
    return EX_UNAVAILABLE;
  }
  switch (ran.exitCode) {
    case 0:
      return EX_OK;
    case EXISTS:
      printError(terminal, null, [
        `${directory} has ${keyFile} or ${certificateFile} already, and they may be in use: nothing was changed.`,
        "To see what there is: hastctl tls show",
        "To replace both, with --force; whoever knows the old certificate must then be told the new one.",
      ]);
      return EX_CANTCREAT;
    case NO_OPENSSL:
      printError(terminal, null, [
        "There is no openssl(1) on this machine, which makes keys and certificates.",
        "Install it: apt install openssl, or dnf install openssl",
      ]);
      return EX_UNAVAILABLE;
    case NO_AUTHORITY:
      printError(terminal, null, [
        `${signer}/cert.pem may not sign others: it comes from an authority of yours, as it seems.`,
        `Have that make the client's certificate, and put its own into ${signer}/clients.pem.`,
      ]);
      return EX_CANTCREAT;
    default:
      printError(terminal, null, [
        `No certificate was made in ${directory}: see above. What was there before is unchanged.`,
      ]);
      return EX_CANTCREAT;
  }
}

/** --dir; else what this node's hast.conf says, if there is one; else the default. */
export function tlsDirectory(options: Options, desk: Desk): string {
  const given = options.get("--dir");
  if (given !== undefined) return given;
  const read = desk.readText(desk.configPath);
  if ("failure" in read) return TLSDIR_DEFAULT;
  const result = readConfig(read.text, desk.configPath, desk.here);
  return result.kind === "config" ? result.config.tlsdir : TLSDIR_DEFAULT;
}

/** Complains about --dir, --days and names, or returns null. */
export function refuseWanted(options: Options, names: readonly string[]): string | null {
  const directory = options.get("--dir");
  if (directory !== undefined && !directory.startsWith("/")) {
    return `--dir ${directory}: write an absolute path`;
  }
  const days = options.get("--days");
  if (days !== undefined && !(/^[0-9]{1,5}$/.test(days) && Number(days) >= 1)) {
    return `--days ${days}: a number from 1 to 99999`;
  }
  const odd = names.find((name) => ipBytes(name) === null && !/^[A-Za-z0-9_.-]{1,253}$/.test(name));
  return odd === undefined ? null : `${odd} is neither a host name nor an IP address`;
}
